"""What the experiments share: their options, provenance beside their tables, and blocks in the top-level README."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import torch

from rdgap._files import replacing, sha256, write_json, write_text
from rdgap.training.results import code_version
from rdgap.zoo import model_directory, trained_lmbdas, trained_models, weights_name

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "analysis" / "tables"
README = ROOT / "README.md"


def parser(description: str | None, *, smoke: str) -> argparse.ArgumentParser:
    """Return a parser with `--tables` and `--smoke`, which does `smoke`; `check_smoke` looks at both."""
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tables", type=Path, default=TABLES, help="folder of the tables (default: these)")
    arguments.add_argument("--smoke", action="store_true", help=f"the whole path in seconds: {smoke}")
    return arguments


def check_smoke(options: argparse.Namespace) -> None:
    """Raise `ValueError` if a trial run would overwrite the real tables."""
    if options.smoke and options.tables.resolve() == TABLES:
        raise ValueError("`--smoke` needs `--tables FOLDER`, because it would overwrite the real tables.")


def every_model() -> list[tuple[str, float]]:
    """Return every trained model at each of its lmbdas; those that come later are found without a change here."""
    return [(model, lmbda) for model in trained_models() for lmbda in trained_lmbdas(model)]


def few_models() -> list[tuple[str, float]]:
    """Return two models at two lmbdas each, where they are trained: what a trial measures to have curves to compare."""
    return [
        pair for pair in every_model() if pair[0] in ("jpeg-like-lite", "two-layer-lite") and pair[1] in (0.0025, 0.01)
    ]


def weights_of(model: str, lmbda: float) -> Path:
    """Return the weights file of a trained model."""
    return model_directory() / f"{weights_name(model, lmbda)}.safetensors"


def provenance(command: str, *, images: Sequence[Path] = (), weights: Iterable[Path] = ()) -> dict[str, object]:
    """Return where a table comes from, for `write_json`: the command, the code, and hashes of what went in."""
    known: dict[str, object] = {"command": command, "commit": code_version()}
    if images:
        known["images_sha256"] = {path.name: sha256(path) for path in images}
    if files := list(weights):
        known["weights_sha256"] = {path.stem: sha256(path) for path in files}
    return known | {"torch": torch.__version__, "python": sys.version.split()[0], "machine": platform.machine()}


def forget_other_weights(record: Path, tables: Iterable[Path]) -> None:
    """Drop rows of models whose weights have changed since they were measured, and note the present weights.

    Args:
        record: Provenance, whose `weights_sha256` says what was measured; where it is missing nothing is dropped.
        tables: With columns `model` and `lmbda`; all other entries are kept to the digit.
    """
    if not record.exists():
        return
    known = json.loads(record.read_text(encoding="utf-8"))
    hashes = {(model, lmbda): sha256(weights_of(model, lmbda)) for model, lmbda in every_model()}
    measured = known["weights_sha256"]
    changed = {pair for pair, present in hashes.items() if measured.get(weights_name(*pair), present) != present}
    if not changed:
        return
    for table in filter(Path.exists, tables):
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
        is_kept = [
            (model, float(lmbda or "nan")) not in changed
            for model, lmbda in zip(rows["model"], rows["lmbda"], strict=True)
        ]
        if not any(is_kept):
            table.unlink()
        elif not all(is_kept):
            with replacing(table) as temporary:
                rows.loc[is_kept].to_csv(temporary, index=False, lineterminator="\n")
    now = {weights_name(*pair): hashes[pair] for pair in changed}
    write_json(record, known | {"weights_sha256": measured | now})


def fill_readme(begin: str, end: str, text: str, *, tables: Path) -> None:
    """Put `text` between two markers of the README, if it comes from the real tables."""
    if tables.resolve() == TABLES:
        before, rest = README.read_text(encoding="utf-8").split(begin)
        write_text(README, f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")
