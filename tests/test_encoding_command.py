"""The command: what it prints and writes, how it resumes, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from rdgap.codec import Coder
from rdgap.codec import __main__ as codec_command
from rdgap.encoding import Encoder, jobs
from rdgap.encoding import __main__ as command
from rdgap.images import read_image
from rdgap.metrics import mse
from rdgap.ntc import NTCCodec
from rdgap.schemas import ENCODED
from rdgap.tables import read_table
from tests._recipes import tiny_codec

QUICK = ["--steps", "10", "--device", "cpu"]
SIZES = {"a": (40, 50), "b": (33, 20), "c": (40, 50)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, two of one size."""
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(1)
    for name, size in SIZES.items():
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


def tiny(lmbda: float = 0.01) -> NTCCodec:
    codec = tiny_codec(seed=int(1000 * lmbda)).requires_grad_(False)
    codec.name, codec.lmbda = "tiny", lmbda
    return codec


@pytest.fixture(autouse=True)
def _toy_zoo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def load(name: str, lmbda: float, *, device: object = "cpu") -> NTCCodec:
        if name != "tiny":
            raise ValueError(f"there is no trained model {name!r}.")
        return tiny(lmbda)

    for module in (command, jobs):
        monkeypatch.setattr(module, "named_codec", load)
    monkeypatch.setattr(codec_command, "trained_codec", load)
    jobs._coder.cache_clear()
    yield
    jobs._coder.cache_clear()


def test_the_table_is_what_the_library_finds_and_streams_decode_to_its_distortion(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / f"t.{name}" for name in ("csv", "json", "png")}
    outputs = ["--csv", str(files["csv"]), "--json", str(files["json"]), "--plot", str(files["png"])]
    options = ["--model", "tiny", "--lmbda", "0.01", "0.04", "--out", str(tmp_path / "streams"), *QUICK]
    assert command.main([str(folder), *options, *outputs, "--seed", "5"]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    table = read_table(files["csv"], ENCODED)
    assert len(table) == 6
    for row in table.to_dict("records"):
        codec, image = tiny(row["lmbda"]), read_image(folder / f"{row['image']}.png")
        (found,) = Encoder(method="sga", steps=10, seed=5).encode(codec, image[None], row["lmbda"])
        assert row["bits"] == pytest.approx(found.bits)
        assert row["encoder_bits"] == pytest.approx(found.encoder_bits)
        stream = (tmp_path / "streams" / f"{row['image']}-tiny-{row['lmbda']:g}.rdg").read_bytes()
        decoded = Coder(codec).decode(stream)
        assert row["mse"] == float(mse(image[None], decoded[None]))  # exactly
        assert row["mse"] == pytest.approx(found.mse, rel=1e-3)
        assert row["stream_bits"] == 8 * len(stream)
        assert row["num_pixels"] == image[0].numel()
        before, after = (
            row[f"{side}bits"] / row["num_pixels"] + row["lmbda"] * row[f"{side}mse"] for side in ("encoder_", "")
        )
        assert row["lagrangian_bpp"] == pytest.approx(after)
        assert row["saving_percent"] == pytest.approx(100 * (1 - after / before))
        assert row["saving_percent"] > 0
        assert f"{row['lagrangian_bpp']:7.4f}" in printed
    content = json.loads(files["json"].read_text())
    assert content["settings"] == {"method": "sga", "steps": 10, "seed": 5, "bf16": 0, "crop": 0}
    of_first = table.loc[table["lmbda"] == 0.01, "saving_percent"]
    assert content["means"][0]["saving_percent"] == pytest.approx(of_first.mean())
    assert content["means"][0]["least_saving_percent"] == pytest.approx(of_first.min())
    assert f"{of_first.mean():6.2f}%" in printed
    with Image.open(files["png"]) as picture:
        assert picture.size == (1020, 840)


def test_an_interrupted_run_goes_on_with_what_is_missing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(folder), "--model", "tiny", *QUICK, "--csv", str(tmp_path / "t.csv"), "--out", str(tmp_path / "s")]
    measured: list[list[str]] = []
    measure = jobs.measure

    def failing(job: jobs.Job) -> pd.DataFrame:
        measured.append([path.stem for path in job.paths])
        if len(measured) == 2:
            raise RuntimeError("the power failed")
        return measure(job)

    monkeypatch.setattr(command, "measure", failing)
    assert command.main(arguments) == 1
    assert measured == [["a", "c"], ["b"]]
    assert command.main(arguments) == 0
    assert measured[2:] == [["b"]]
    content = (tmp_path / "t.csv").read_bytes()
    (tmp_path / "s" / "c-tiny-0.01.rdg").unlink()
    assert command.main(arguments) == 0
    assert measured[3:] == [["c"]]  # its stream was gone
    assert command.main(arguments) == 0
    assert len(measured) == 4
    without_seconds = [line.rsplit(",", 1)[0] for line in content.decode().splitlines()]
    assert [line.rsplit(",", 1)[0] for line in (tmp_path / "t.csv").read_text().splitlines()] == without_seconds


def test_rows_of_other_settings_are_not_mixed_in(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(folder / "b.png"), "--model", "tiny", *QUICK, "--csv", str(tmp_path / "t.csv")]
    assert command.main(arguments) == 0
    for changes in (["--method", "sga-ssl"], ["--steps", "11"], ["--seed", "1"], ["--crop", "16"], ["--bf16"]):
        assert command.main([*arguments, *changes]) == 2
        assert "write it to another file" in capsys.readouterr().err


def test_a_crop_is_the_middle_of_the_image(folder: Path, tmp_path: Path) -> None:
    assert command.main([str(folder), "--model", "tiny", *QUICK, "--crop", "16", "--csv", str(tmp_path / "t.csv")]) == 0
    row = read_table(tmp_path / "t.csv", ENCODED).set_index("image").loc["a"]
    crop = read_image(folder / "a.png")[None, :, 12:28, 17:33]
    codec = tiny()
    own = codec.quantize(codec.infer(crop))
    assert row["num_pixels"] == 256
    assert row["encoder_bits"] == pytest.approx(float(-codec.log_prior(own) / np.log(2)), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--model", "none"], "no trained model 'none'"),
        (["--model", "tiny", "tiny"], "--model must be different from each other, got tiny twice"),
        (["--lmbda", "0.01", "0.01"], "--lmbda must be different from each other"),
        (["--steps", "0"], "must be at least 1, got 0"),
        (["--method", "sgd"], "invalid choice: 'sgd'"),
        (["--crop", "41"], r"a\.png: .* 41"),
        (["--plot", "t.txt"], r"\.pdf, \.png or \.svg"),
        (["--device", "abacus"], "--device"),
        (["--device", "cpu", "gone"], "unrecognized arguments: gone"),
        (["--out", "images/a.png"], r"`--out` must be a folder, got images/a\.png"),
        (["--out", "images/a.png/b"], r"`--out` must be a folder, got images/a\.png/b"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    rule: str,
) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(command, "measure", lambda job: pytest.fail("worked"))
    model = [] if "--model" in arguments else ["--model", "tiny"]
    assert command.main([str(folder), *model, "--device", "cpu", *arguments]) == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert errors.count("\n") == 1
    assert re.search(rule, errors)


def test_a_stream_of_the_codec_command_keeps_its_promise(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.rdg"
    arguments = ["encode", str(folder / "a.png"), "--model", "tiny", "-o", str(out), "--encoder", "sga", *QUICK]
    assert codec_command.main(arguments) == 0
    image = read_image(folder / "a.png")
    (found,) = Encoder(method="sga", steps=10).encode(tiny(), image[None], 0.01)
    coder = Coder(tiny())
    assert out.read_bytes() == coder.encode(image, found.symbols)
    decoded = coder.decode(out.read_bytes())
    promised = re.search(r"decodes to mse (\S+);", capsys.readouterr().out)
    assert promised is not None
    assert float(promised[1]) == pytest.approx(float(mse(image[None], decoded[None])), rel=1e-5)
    assert torch.equal(decoded, coder.reconstruct(found.symbols, 40, 50))
