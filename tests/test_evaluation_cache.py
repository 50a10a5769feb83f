"""Conventional codecs run once per image and command, side by side, and are then remembered."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rdgap import conventional
from rdgap.evaluation import MeasurementCache, conventional_points, evaluate
from rdgap.images import write_image


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "photographs" / f"p{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        write_image(path, torch.rand(3, 40, 33 + number, generator=torch.Generator().manual_seed(number)))
    return paths


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What was really run, one entry per image."""
    seen: list[tuple[str, int]] = []
    original = conventional.transcode

    def transcode(codec: str, image: torch.Tensor, setting: int) -> conventional.Coded:
        seen.append((codec, setting))
        return original(codec, image, setting)

    monkeypatch.setattr(conventional, "transcode", transcode)
    return seen


def test_a_second_run_takes_all_from_the_cache(
    photographs: list[Path], runs: list[tuple[str, int]], tmp_path: Path
) -> None:
    cache = MeasurementCache(tmp_path / "cache")
    points = [*conventional_points("jpeg", [20, 80], cache=cache), *conventional_points("webp", [50], cache=cache)]
    first = evaluate(points, photographs)
    assert len(runs) == 15
    again = evaluate(points, photographs)
    assert len(runs) == 15
    assert again.equals(first)
    files = list((tmp_path / "cache").rglob("*"))
    assert len([path for path in files if path.is_file()]) == 15
    assert not [path for path in files if path.name.startswith(".")]


def test_other_pixels_settings_or_metrics_are_measured(
    photographs: list[Path], runs: list[tuple[str, int]], tmp_path: Path
) -> None:
    cache = MeasurementCache(tmp_path / "cache")
    evaluate(conventional_points("jpeg", [20], cache=cache, metrics=()), photographs[:1])
    evaluate(conventional_points("jpeg", [21], cache=cache, metrics=()), photographs[:1])
    evaluate(conventional_points("jpeg-default", [20], cache=cache, metrics=()), photographs[:1])
    evaluate(conventional_points("jpeg", [20], cache=cache, metrics=()), photographs[1:2])
    assert len(runs) == 4
    with_lpips = evaluate(conventional_points("jpeg", [20], cache=cache, metrics=("lpips",)), photographs[:1])
    assert len(runs) == 5
    assert with_lpips["lpips"].iloc[0] > 0
    without = evaluate(conventional_points("jpeg", [20], cache=cache, metrics=()), photographs[:1])
    assert len(runs) == 5
    assert without["lpips"].isna().all()
    assert math.isnan(without["ms_ssim"].iloc[0])


def test_damaged_entries_are_measured_again(
    photographs: list[Path], runs: list[tuple[str, int]], tmp_path: Path
) -> None:
    cache = MeasurementCache(tmp_path / "cache")
    points = conventional_points("jpeg", [20], cache=cache)
    first = evaluate(points, photographs[:1])
    (entry,) = (tmp_path / "cache").rglob("*.json")
    for damaged in ("", "[]", "{}", json.dumps({"metrics": ["ms_ssim"], "rate_kind": "coded", "numbers": {"mse": 1}})):
        entry.write_text(damaged)
        assert evaluate(points, photographs[:1]).equals(first)
    assert len(runs) == 5
    assert "nan" not in entry.read_text().lower()


def test_an_exact_codec_is_remembered_as_exact(tmp_path: Path, runs: list[tuple[str, int]]) -> None:
    path = tmp_path / "flat" / "gray.png"
    write_image(path, torch.full((3, 32, 32), 128 / 255))
    points = conventional_points("jpeg", [90], cache=MeasurementCache(tmp_path / "cache"))
    tables = [evaluate(points, [path]) for _ in range(2)]
    assert len(runs) == 1
    assert [table["psnr_db"].iloc[0] for table in tables] == [math.inf, math.inf]


def test_many_at_once_are_the_same_table(photographs: list[Path]) -> None:
    points = [*conventional_points("jpeg", [20, 80]), *conventional_points("jpeg2000", [20])]
    keys = ["codec", "setting", "image"]
    alone, together = (
        evaluate(points, photographs, jobs=jobs).sort_values(keys).reset_index(drop=True) for jobs in (1, 3)
    )
    assert together.equals(alone)


def test_pixels_of_another_shape_have_another_key() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    keys = {MeasurementCache.key(pixels, "a"), MeasurementCache.key(pixels.reshape(4, 2, 3), "a")}
    assert len(keys | {MeasurementCache.key(pixels, "b")}) == 3
