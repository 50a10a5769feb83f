from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rdgap.gaps import __main__ as command

from ._toys import patch_means

QUICK = ["--fit-steps", "20", "--temperatures", "5", "--samples", "8", "--chains", "4"]


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def _toy_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "load_codec", lambda *_, **__: patch_means())


@pytest.mark.usefixtures("_toy_zoo")
def test_command_prints_and_writes_what_it_measured(
    photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "second.png"
    Image.open(photograph).transpose(Image.Transpose.ROTATE_90).save(other)
    outputs = {kind: tmp_path / "new" / f"gaps.{kind}" for kind in ("csv", "json", "png")}
    arguments = [str(photograph), str(other), "--crop", "8", *QUICK]
    arguments += ["--csv", str(outputs["csv"]), "--json", str(outputs["json"]), "--plot", str(outputs["png"])]
    assert command.main(arguments) == 0
    printed, progress = capsys.readouterr()
    assert progress == ""
    table = pd.read_csv(outputs["csv"])
    content = json.loads(outputs["json"].read_text())
    assert list(table.num_pixels) == [64, 64]
    assert content["settings"]["crop"] == 8
    assert pd.DataFrame(content["images"]).equals(table)
    for name in ("encoder", "fitted_gaussian", "inference_gap_lower"):
        for index in (0, 1):
            assert f"{table[f'{name}_bpp'][index]:.4f}±{table[f'{name}_stderr_bpp'][index]:.4f}" in printed
        average = content["average"]
        assert average[f"{name}_bpp"] == pytest.approx(table[f"{name}_bpp"].mean())
        assert average[f"{name}_image_stderr_bpp"] == pytest.approx(abs(table[f"{name}_bpp"].diff()[1]) / 2)
        assert average[f"{name}_estimator_stderr_bpp"] == pytest.approx(np.hypot(*table[f"{name}_stderr_bpp"]) / 2)
    with Image.open(outputs["png"]) as picture:
        assert picture.width > 1000


@pytest.mark.usefixtures("_toy_zoo")
def test_images_of_different_sizes_and_folders_are_taken_whole(
    photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.open(photograph).crop((0, 0, 12, 8)).save(tmp_path / "small.png")
    table = tmp_path / "gaps.csv"
    assert command.main([str(tmp_path), *QUICK, "--batch", "8", "--csv", str(table)]) == 0
    assert sorted(pd.read_csv(table).num_pixels) == [96, 960]
    assert "mean of 2" in capsys.readouterr().out


@pytest.mark.usefixtures("_toy_zoo")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "missing.png"),
        (["text.png"], "text.png"),
        (["cut.png"], "cut.png"),
        (["photo.png", "--crop", "25"], "photo.png.*25"),
        (["photo.png", "--plot", "gaps.xyz"], "must end in .*got gaps.xyz"),
        (["photo.png", "--chains", "1"], "--chains: must be at least 2, got 1"),
        (["photo.png", "--lmbda", "-1"], "--lmbda: must be positive"),
        (["photo.png", "--device", "abacus"], "`--device` must name a device"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    photograph: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(photograph.parent)
    Path("text.png").write_text("no image")
    Path("cut.png").write_bytes(photograph.read_bytes()[:900])
    assert command.main(arguments) == 2
    _is_one_line(capsys.readouterr(), message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--model", "no-such-model"], "no-such-model"), (["--lmbda", "0.0123"], "0.0123|trained")],
)
def test_unknown_model_or_lmbda_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(photograph), *arguments]) == 2
    _is_one_line(capsys.readouterr(), message)


def test_module_runs_from_another_directory(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    finished = subprocess.run(
        [sys.executable, "-m", "rdgap.gaps", "missing.png"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    _is_one_line((finished.stdout, finished.stderr), "missing.png")


def _is_one_line(captured: tuple[str, str], message: str) -> None:
    printed, error = captured
    assert printed == ""
    assert len(error.splitlines()) == 1
    assert re.search(message, error)
