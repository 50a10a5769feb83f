"""Codecs of a user's own, by `package.module:callable`, on every command that takes a model."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rdgap import zoo
from rdgap.adapters import CompressAICodec
from rdgap.images import read_image
from rdgap.rate_distortion import named_source
from rdgap.schemas import CURVATURE, ENCODED, EVALUATION, GAPS
from rdgap.tables import read_table
from tests._toys import TwoLatents

OWN = '''
import torch
from rdgap.model import from_modules
from tests._compressai import Model
from tests._recipes import tiny_codec
from tests._toys import TwoLatents, patch_means

NUMBER = 3

def gray(lmbda):
    """A codec of 8 gray levels, or of 32 at larger lmbdas; latents are patch means."""
    levels = 8 if lmbda < 0.05 else 32
    normal = torch.distributions.Normal(0.0, levels / 4)
    pool, grow = torch.nn.AvgPool2d(4, ceil_mode=True), torch.nn.Upsample(scale_factor=4)
    return from_modules(
        lambda x: levels * (pool(x) - 0.5), lambda y: grow(y) / levels + 0.5,
        lambda y: normal.log_prob(y).sum((1, 2, 3)),
    )

def placed(device):
    codec = TwoLatents()
    codec.told = device
    return codec

def tiny(lmbda=0.02):
    codec = tiny_codec()
    codec.name, codec.lmbda = "tiny", lmbda
    return codec

def compressai():
    return Model()

ready = TwoLatents()
plain = patch_means

def failing():
    return 1 / 0

def source():
    from rdgap.rate_distortion import named_source
    return named_source("laplace")

def number():
    return NUMBER
'''

GAPS_QUICK = ["--chains", "2", "--temperatures", "2", "--fit-steps", "2", "--samples", "2", "--leapfrog-steps", "1"]


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_codecs.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(importlib.import_module("sys").modules, "own_codecs", raising=False)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in "ab":
        smooth = np.kron(draw.integers(0, 256, (4, 4, 3)), np.ones((4, 4, 1)))
        Image.fromarray(smooth.astype(np.uint8)).save(folder / f"{name}.png")
    return folder


def command(name: str) -> Callable[[Sequence[str]], int]:
    return importlib.import_module(f"rdgap.{name}.__main__").main


# ---------------------------------------------------------------- what a name stands for


def test_a_function_is_told_the_lmbda_and_the_device_that_it_takes() -> None:
    image = torch.rand(1, 3, 8, 8)
    coarse, fine = (zoo.named_codec("own_codecs:gray", lmbda) for lmbda in (0.01, 0.08))
    assert torch.allclose(fine.infer(image)[0], 4 * coarse.infer(image)[0])
    placed = zoo.named_codec("own_codecs:placed", 0.01, device="cpu")
    assert placed.told == torch.device("cpu")  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(zoo.named_codec("own_codecs:plain", 0.01), type(coarse))
    assert math.isclose(zoo.trained_codec("own_codecs:tiny").lmbda, 0.02)
    assert math.isclose(zoo.trained_codec("own_codecs:tiny", 0.04).lmbda, 0.04)


def test_a_codec_itself_and_a_model_of_another_make_are_taken_too() -> None:
    ready = zoo.named_codec("own_codecs:ready")
    assert type(ready).__name__ == TwoLatents.__name__
    assert not any(parameter.requires_grad for parameter in ready.parameters())  # pyright: ignore
    assert isinstance(zoo.named_codec("own_codecs:TwoLatents"), torch.nn.Module)  # a class is called
    assert isinstance(zoo.named_codec("own_codecs:compressai"), CompressAICodec)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("own_codecs:gray", "`lmbda` must be given for own_codecs:gray"),
        ("own_codecs:absent", "must be package.module:function, got own_codecs:absent"),
        ("no_such_module:gray", "must be package.module:function, got no_such_module:gray"),
        (":gray", "must be package.module:function, got :gray"),
        ("own_codecs:NUMBER", "must name a function, got int"),
        ("own_codecs:failing", "must return a codec, got ZeroDivisionError: division by zero"),
        ("own_codecs:number", "own_codecs:number: a codec must have `infer`"),
    ],
)
def test_what_is_no_codec_is_refused(name: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        zoo.named_codec(name)


def test_the_shipped_models_and_files_are_found_as_before() -> None:
    assert zoo.trained_codec("two-layer-lite", 0.01).name == "two-layer-lite"
    with pytest.raises(FileNotFoundError):
        zoo.named_codec("C:/none.safetensors")


def test_sources_of_ones_own_are_found_alike() -> None:
    assert named_source("own_codecs:source").name == "laplace"
    with pytest.raises(ValueError, match="own_codecs:number must return a source"):
        named_source("own_codecs:number")
    with pytest.raises(ValueError, match=r"`SOURCE` must be package\.module:function, got own_codecs:absent"):
        named_source("own_codecs:absent")


# ---------------------------------------------------------------- commands


def test_evaluation(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "rd.csv"
    given = ["own_codecs:gray", "--images", str(photos), "--lmbda", "0.01", "0.08", "--csv", str(table)]
    assert command("evaluation")(given) == 0
    rows = read_table(table, EVALUATION).set_index(["setting", "image"])
    latents = (8 * (read_image(photos / "a.png")[:, ::4, ::4] - 0.5)).round()
    expected = -torch.distributions.Normal(0.0, 2.0).log_prob(latents).sum() / math.log(2)
    assert rows["bits"][0.01, "a"] == pytest.approx(float(expected), rel=1e-5)
    assert rows["mse"][0.08, "a"] < rows["mse"][0.01, "a"]
    assert set(rows["codec"]) == {"own_codecs:gray"}
    assert command("evaluation")(["own_codecs:ready", "--images", str(photos)]) == 2
    assert "`--lmbda` must be given for own_codecs:ready" in capsys.readouterr().err
    assert command("evaluation")(["own_codecs:plain", "--images", str(photos), "--lmbda", "0.01", "--coded"]) == 2
    assert "bitstreams and transforms are those of `rdgap.ntc.NTCCodec`" in capsys.readouterr().err


def test_evaluation_takes_the_lmbda_that_a_codec_names(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "rd.csv"
    assert command("evaluation")(["own_codecs:tiny", "--coded", "--images", str(photos), "--csv", str(table)]) == 0
    rows = read_table(table, EVALUATION)
    assert set(rows["setting"]) == {0.02}
    assert set(rows["rate_kind"]) == {"coded", "estimated"}


def test_gaps(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "gaps.csv"
    assert command("gaps")([str(photos), "--model", "own_codecs:plain", "--csv", str(table), *GAPS_QUICK]) == 0
    rows = read_table(table, GAPS)
    assert list(rows["model"]) == ["own_codecs:plain"] * 2
    latents = 8 * (read_image(photos / "a.png")[:, ::4, ::4] - 0.5)
    rounded = -torch.distributions.Normal(0.0, 2.0).log_prob(latents.round()).sum() / math.log(2) / 256
    mse = ((latents.round() - latents) / 8 * 255).square().mean()
    assert rows["rounded_bpp"][0] == pytest.approx(float(rounded + 0.01 * mse), rel=1e-4)


def test_encoding(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, summary = tmp_path / "encoded.csv", tmp_path / "encoded.json"
    given = [str(photos), "--model", "own_codecs:plain", "--steps", "5"]
    assert command("encoding")([*given, "--csv", str(table), "--json", str(summary)]) == 0
    rows = read_table(table, ENCODED)
    assert rows["stream_bits"].isna().all()
    assert (rows["lagrangian_bpp"] <= rows["encoder_lagrangian_bpp"] + 1e-9).all()
    assert '"stream_bits": null' in summary.read_text()
    capsys.readouterr()
    assert command("encoding")([*given, "--out", str(tmp_path / "streams")]) == 2
    assert "bitstreams and transforms" in capsys.readouterr().err
    assert command("encoding")([str(photos), "--model", "own_codecs:ready"]) == 2
    assert "must name its lattice points" in capsys.readouterr().err


def test_curvature(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "eta.csv"
    pair = [str(photos / "a.png"), str(photos / "b.png")]
    assert command("curvature")([*pair, "--model", "own_codecs:plain", "own_codecs:tiny", "--csv", str(table)]) == 0
    rows = read_table(table, CURVATURE).set_index("model")
    assert rows["eta"]["own_codecs:plain"] == pytest.approx(1, abs=1e-6)
    assert rows["lmbda"]["own_codecs:tiny"] == 0.02


def test_bd_rate(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = tmp_path / "points.csv"
    given = ["--images", str(photos), "--anchor", "jpeg", "--lmbda", "0.01", "0.08", "--points", str(points)]
    assert command("bdrate")(["--model", "own_codecs:gray", *given, "--cache", str(tmp_path / "cache")]) in (0, 2)
    assert "own_codecs:gray" in set(read_table(points, EVALUATION)["codec"])
    assert "package.module" not in capsys.readouterr().err


def test_bitstreams(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream, decoded = tmp_path / "a.rdg", tmp_path / "a.png"
    model = ["--model", "own_codecs:tiny"]
    assert command("codec")(["encode", str(photos / "a.png"), *model, "-o", str(stream)]) == 0
    assert command("codec")(["decode", str(stream), *model, "-o", str(decoded)]) == 0
    assert read_image(decoded).shape == (3, 16, 16)
    assert command("codec")(["encode", str(photos / "a.png"), "--model", "own_codecs:plain", "-o", str(stream)]) == 2
    assert "bitstreams and transforms" in capsys.readouterr().err


def test_complexity(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("complexity")(["own_codecs:tiny"]) == 0
    assert "all to decode" in capsys.readouterr().out
    assert command("complexity")(["own_codecs:plain"]) == 2
    assert "bitstreams and transforms" in capsys.readouterr().err
