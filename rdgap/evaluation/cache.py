"""Measurements of conventional codecs, kept on disk: by the image's pixels and exactly what was run."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .._files import write_json
from .measurement import METRICS, Measurement

_FORMAT = 1  # raised whenever a metric changes, so that what older versions measured is not taken up


class MeasurementCache:
    """A folder of one small file per image and command, each written in one step.

    Args:
        folder: Made where needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)

    @staticmethod
    def key(pixels: np.ndarray, command: str) -> str:
        """Return what names a measurement: a hash of the pixels, their shape and the command."""
        content = hashlib.sha256(f"{_FORMAT} {pixels.shape} {command} ".encode())
        content.update(np.ascontiguousarray(pixels).data)
        return content.hexdigest()

    def get(self, key: str, metrics: Collection[str]) -> Measurement | None:
        """Return a measurement that has these metrics, no others, or None; a damaged file counts as none."""
        try:
            entry = json.loads(self._path(key).read_text(encoding="utf-8"))
            if not set(metrics) <= set(entry["metrics"]):
                return None
            numbers = {name: math.nan if value is None else float(value) for name, value in entry["numbers"].items()}
            numbers |= {name: math.nan for name in METRICS if name not in metrics}
            return Measurement(num_pixels=int(numbers.pop("num_pixels")), rate_kind=str(entry["rate_kind"]), **numbers)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def put(self, key: str, measurement: Measurement, metrics: Collection[str]) -> None:
        """Keep a measurement that has these metrics."""
        numbers = asdict(measurement)
        rate_kind = numbers.pop("rate_kind")
        texts = {name: None if math.isnan(value) else repr(value) for name, value in numbers.items()}
        write_json(self._path(key), {"metrics": sorted(metrics), "rate_kind": rate_kind, "numbers": texts})

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"


def default_cache_folder() -> Path:
    """Return where the commands keep measurements: `rdgap` in `XDG_CACHE_HOME`, or in `.cache` of the home folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rdgap"
