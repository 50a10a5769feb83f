"""`python -m rdgap.curvature`, with a toy codec in place of the trained ones."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rdgap import objective, zoo
from rdgap.curvature import curve_length, distances_to_straight_paths, image_decoder
from rdgap.curvature.__main__ import main
from rdgap.images import read_image, write_image


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class ToyCodec:
    """Averages 4 x 4 blocks and decodes them by a smooth curve; pads to multiples of 4."""

    lmbda = 0.01

    def infer(self, images):
        height, width = images.shape[-2:]
        padded = nn.functional.pad(images, (0, -width % 4, 0, -height % 4), mode="replicate")
        return (nn.functional.avg_pool2d(padded, 4),)

    def quantize(self, latents):
        return (latents[0].round(),)

    def log_prior(self, latents):
        return -latents[0].square().sum((1, 2, 3))

    def decode(self, latents):
        return torch.sin(1.5 * nn.functional.interpolate(latents[0], scale_factor=4))


@pytest.fixture
def photographs(tmp_path: Path) -> list[str]:
    paths = [tmp_path / "A.png", tmp_path / "B.png"]
    for seed, path in enumerate(paths):
        write_image(path, torch.rand(3, 22, 30, generator=seeded(seed)))
    return [str(path) for path in paths]


@pytest.fixture(autouse=True)
def toy_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_codec(name, lmbda=None, *, device="cpu"):
        if name != "two-layer-lite":
            raise ValueError(f"Unknown model {name!r}; there is: two-layer-lite.")
        if lmbda != 0.01:
            raise ValueError(f"`lmbda` must be one that was trained, 0.01, got {lmbda}.")
        return ToyCodec()

    monkeypatch.setattr(zoo, "load_codec", load_codec)


def run_json(tmp_path: Path, arguments: list[str]) -> dict:
    assert main([*arguments, "--device", "cpu", "--json", str(tmp_path / "result.json")]) == 0
    return json.loads((tmp_path / "result.json").read_text())


def test_command_prints_writes_and_draws(photographs, tmp_path, capsys):
    table, picture = tmp_path / "curve.csv", tmp_path / "curve.png"
    content = run_json(tmp_path, [*photographs, "--points", "20", "--csv", str(table), "--plot", str(picture)])
    printed = capsys.readouterr().out
    assert "eta = length / chord" in printed
    assert "20 terms, midpoint rule" in printed
    assert "+- 0 " not in printed

    codec = ToyCodec()
    first, last = (read_image(Path(path))[None] for path in photographs)
    originals = (first, last)
    start, end = map(codec.infer, originals)
    decode = image_decoder(codec, (22, 30))
    expected = curve_length(decode, start, end, num_points=20)
    assert content["eta"] == pytest.approx(expected.eta, rel=1e-6)
    assert content["eta"] > 1.001
    assert (content["height"], content["width"], content["num_points"]) == (22, 30, 20)

    rows = list(csv.DictReader(table.read_text().splitlines()))
    distances = distances_to_straight_paths(decode, start, end, originals, expected.ts)
    assert [float(row["t"]) for row in rows] == expected.ts.tolist()
    assert np.allclose([float(row["speed"]) for row in rows], expected.speed, rtol=1e-5)
    assert np.allclose([float(row["mse_to_originals"]) for row in rows], distances.mse_to_originals, rtol=1e-4)
    assert np.allclose(
        [float(row["mse_to_reconstructions"]) for row in rows], distances.mse_to_reconstructions, rtol=1e-3
    )
    assert float(rows[10]["mse_to_reconstructions"]) < float(rows[10]["mse_to_originals"])
    assert read_image(picture).shape[-1] == pytest.approx(6.9 * 300, abs=1)


@pytest.mark.parametrize("suffix", [".pdf", ".svg", ".png"])
def test_a_repeated_run_draws_the_same_bytes(photographs, tmp_path, suffix):
    pictures = [tmp_path / f"{name}{suffix}" for name in ("first", "second")]
    for picture in pictures:
        assert main([*photographs, "--points", "4", "--crop", "8", "--device", "cpu", "--plot", str(picture)]) == 0
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_crops_follow_the_seed_and_allow_other_sizes(photographs, tmp_path):
    write_image(Path(photographs[1]), torch.rand(3, 16, 40, generator=seeded(5)))
    arguments = [*photographs, "--points", "6", "--crop", "12"]
    first, again, other = (run_json(tmp_path, [*arguments, "--seed", seed]) for seed in ("1", "1", "2"))
    assert first == again
    assert first["eta"] != other["eta"]
    assert (first["height"], first["width"]) == (12, 12)


def test_left_rule_reaches_the_computation(photographs, tmp_path):
    arguments = [*photographs, "--points", "6"]
    assert run_json(tmp_path, [*arguments, "--rule", "left"])["eta"] != run_json(tmp_path, arguments)["eta"]


@pytest.mark.parametrize(
    ("arguments", "lmbda"),
    [([], 0.01), (["--lmbda", "0.04"], 0.04), (["--model", "mine.safetensors"], None)],
)
def test_lmbda_is_the_shipped_default_or_that_of_the_file(arguments, lmbda, photographs, monkeypatch):
    asked = []
    monkeypatch.setattr(zoo, "load_codec", lambda name, lmbda, *, device: asked.append(lmbda) or ToyCodec())
    assert main([*photographs, "--points", "2", "--device", "cpu", *arguments]) == 0
    assert asked == [lmbda]


def bad_input(kind: str, photographs: list[str], folder: Path) -> tuple[list[str], str]:
    """Return arguments and what the error line must say."""
    good, other = photographs
    broken = folder / "broken.png"
    match kind:
        case "missing":
            return [good, str(folder / "none.png")], "none.png"
        case "truncated":
            broken.write_bytes(Path(other).read_bytes()[:900])
            return [good, str(broken)], "broken.png"
        case "text":
            broken.write_text("not an image")
            return [good, str(broken)], "broken.png"
        case "model":
            return [*photographs, "--model", "no-such"], "Unknown model 'no-such'"
        case "lmbda":
            return [*photographs, "--lmbda", "0.3"], "0.3"
        case "crop":
            return [*photographs, "--crop", "23"], "`--crop` must fit into the image, got 23"
        case "sizes":
            write_image(broken, torch.rand(3, 9, 30, generator=seeded(2)))
            return [good, str(broken)], "got 30 x 22 and 30 x 9 pixels; --crop SIZE"
        case "same":
            return [good, good], "eta divides by"
        case "plot":
            return [*photographs, "--plot", "curve.gif"], "--plot: must end in"
        case _:
            return [*photographs, "--device", "abacus"], "`--device`"


@pytest.mark.parametrize(
    "kind", ["missing", "truncated", "text", "model", "lmbda", "crop", "sizes", "same", "plot", "device"]
)
def test_bad_input_is_one_line_and_exit_code_two(kind, photographs, tmp_path, capsys):
    arguments, message = bad_input(kind, photographs, tmp_path)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert message in printed.err


def test_images_that_decode_alike_are_bad_input(photographs, monkeypatch, capsys):
    monkeypatch.setattr(ToyCodec, "decode", lambda self, latents: torch.ones(len(latents[0]), 3, 24, 32))
    assert main([*photographs, "--device", "cpu"]) == 2
    assert "must decode to different images" in capsys.readouterr().err


def test_a_decode_that_is_not_finite_is_a_failed_computation(photographs, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        ToyCodec, "decode", lambda self, latents: nn.functional.interpolate(latents[0], scale_factor=4) / 0
    )
    assert main([*photographs, "--device", "cpu", "--json", str(tmp_path / "result.json")]) == 1
    assert "not finite" in capsys.readouterr().err
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize("points", ["1", "0", "few"])
def test_points_must_be_at_least_two(photographs, points):
    assert main([*photographs, "--points", points]) == 2


def test_help_runs_from_another_folder(tmp_path):
    root = Path(objective.__file__).parents[1]
    finished = subprocess.run(
        [sys.executable, "-m", "rdgap.curvature", "--help"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "example:\n  python -m rdgap.curvature A.png B.png" in finished.stdout
    assert finished.stderr == ""
