"""`python -m rdgap.curvature`, with a toy codec in place of the trained ones."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rdgap import objective, zoo
from rdgap.curvature import __main__ as command
from rdgap.curvature import curve_length, image_decoder, jobs
from rdgap.curvature.__main__ import main
from rdgap.curvature.pairs import random_pairs
from rdgap.images import read_image, write_image
from rdgap.schemas import CURVATURE, CURVATURE_PATHS
from rdgap.tables import read_table


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class ToyCodec:
    """Averages 4 x 4 blocks and decodes them by a smooth curve; pads to multiples of 4."""

    def __init__(self, lmbda=0.01):
        self.lmbda = lmbda

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
        if name not in ("two-layer-lite", "other-lite"):
            raise ValueError(f"Unknown model {name!r}; there is: two-layer-lite.")
        if lmbda not in (0.01, 0.04):
            raise ValueError(f"`lmbda` must be one that was trained, 0.01 or 0.04, got {lmbda}.")
        return ToyCodec(lmbda)

    monkeypatch.setattr(zoo, "load_codec", load_codec)
    jobs._loaded.cache_clear()


def run_json(tmp_path: Path, arguments: list[str]) -> dict:
    assert main([*arguments, "--device", "cpu", "--json", str(tmp_path / "result.json")]) == 0
    return json.loads((tmp_path / "result.json").read_text())


def test_command_prints_writes_and_draws(photographs, tmp_path, capsys):
    table, per_t, picture = (tmp_path / name for name in ("curve.csv", "per_t.csv", "curve.png"))
    options = ["--points", "20", "--csv", str(table), "--paths", str(per_t), "--plot", str(picture)]
    content = run_json(tmp_path, [*photographs, *options])
    printed = capsys.readouterr().out
    assert "eta = length / chord" in printed
    assert "20 points, midpoint rule" in printed
    assert "+- 0 " not in printed

    codec = ToyCodec()
    first, last = (read_image(Path(path))[None] for path in photographs)
    originals = (first, last)
    start, end = map(codec.infer, originals)
    expected = curve_length(image_decoder(codec, (22, 30)), start, end, num_points=20, originals=originals)
    (pair,) = content["pairs"]
    assert pair["eta"] == pytest.approx(expected.eta.item(), rel=1e-6)
    assert pair["eta"] > 1.001
    assert (pair["num_pixels"], pair["num_points"], pair["zeta_lower"]) == (660, 20, None)
    assert read_table(table, CURVATURE)["eta"].tolist() == [pair["eta"]]

    rows = read_table(per_t, CURVATURE_PATHS)
    assert rows["t"].tolist() == expected.ts.tolist()
    assert np.allclose(rows["speed"], expected.speed[0], rtol=1e-5)
    assert np.allclose(rows["mse_to_originals"], expected.mse_to_originals[0], rtol=1e-4)
    assert np.allclose(rows["mse_to_reconstructions"], expected.mse_to_reconstructions[0], rtol=1e-3)
    assert rows["mse_to_reconstructions"][10] < rows["mse_to_originals"][10]
    assert read_image(picture).shape[-1] == pytest.approx(6.9 * 300, abs=1)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for seed in range(5):
        image = torch.rand(3, 30 + seed, 40, generator=seeded(seed + 10))
        write_image(tmp_path / "photos" / f"{seed}.png", image)
    return str(tmp_path / "photos")


def test_every_model_and_lmbda_sees_the_same_random_pairs(folder, tmp_path, capsys):
    table, picture = tmp_path / "eta.csv", tmp_path / "eta.png"
    options = ["--model", "two-layer-lite", "other-lite", "--lmbda", "0.01", "0.04", "--rule", "hermite"]
    arguments = [folder, "--pairs", "6", "--crop", "12", *options, "--csv", str(table), "--plot", str(picture)]
    content = run_json(tmp_path, arguments)
    rows = read_table(table, CURVATURE)
    assert len(rows) == 24
    for _, same in rows.groupby("pair"):
        assert same["eta"].nunique() == same["first"].nunique() == same["second"].nunique() == 1
    assert rows["eta"].nunique() == 6
    assert [summary["pairs"] for summary in content["summaries"]] == [6] * 4
    assert "6 pairs, 12 x 12 pixels, 9 points, hermite rule" in capsys.readouterr().out
    assert read_image(picture).shape[-1] == pytest.approx(6.8 * 300, abs=2)
    assert rows["first"].tolist() != rows["second"].tolist()
    other = run_json(tmp_path, [folder, "--pairs", "6", "--crop", "12", "--seed", "1", "--rule", "hermite"])
    assert [pair["eta"] for pair in other["pairs"]] != rows["eta"][:6].tolist()


def test_pairs_are_two_different_images_the_same_for_every_size(folder):
    paths = sorted(Path(folder).iterdir())
    small, large = (random_pairs(paths, 40, crop=crop, seed=3) for crop in (4, 12))
    assert all(pair.first != pair.second for pair in small)
    assert {pair.first for pair in small} == set(paths)
    assert [(p.first, p.second, p.seed) for p in small] == [(p.first, p.second, p.seed) for p in large]


def test_a_list_of_pairs_may_have_images_of_many_sizes(folder, tmp_path):
    listed = Path(folder) / "pairs.csv"
    for name, seed in (("big", 1), ("large", 2)):
        write_image(Path(folder) / f"{name}.png", torch.rand(3, 50, 41, generator=seeded(seed)))
    write_image(Path(folder) / "same-size.png", torch.rand(3, 30, 40, generator=seeded(3)))
    listed.write_text("first,second\n0.png,same-size.png\nbig.png,large.png\n")
    content = run_json(tmp_path, ["--list", str(listed), "--rule", "hermite"])
    assert [pair["num_pixels"] for pair in content["pairs"]] == [30 * 40, 50 * 41]
    assert content["pairs"][1]["first"] == "big"


OWN_CODEC = """
import torch
from torch import nn

class Codec:
    def infer(self, images):
        return (images[..., ::2, ::2],)
    def quantize(self, latents):
        return latents
    def log_prior(self, latents):
        return -latents[0].square().sum((1, 2, 3))
    def decode(self, latents):
        return torch.sin(2 * nn.functional.interpolate(latents[0], scale_factor=2))

codec = Codec()
encoder = nn.AvgPool2d(2)
number = 3

def decoder(latents):
    return nn.functional.interpolate(latents, scale_factor=2) ** 3
"""


@pytest.mark.parametrize("options", [["--decoder", "own:codec"], ["--decoder", "own:Codec"],
                                     ["--decoder", "own:decoder", "--encoder", "own:encoder"]])  # fmt: skip
def test_a_decoder_of_ones_own(options, photographs, tmp_path, monkeypatch, capsys):
    (tmp_path / "own.py").write_text(OWN_CODEC)
    monkeypatch.syspath_prepend(tmp_path)
    content = run_json(tmp_path, [*photographs, *options, "--rule", "hermite"])
    (pair,) = content["pairs"]
    assert (pair["model"], pair["lmbda"]) == (options[1], None)
    assert pair["eta"] > 1.01
    assert options[1] in capsys.readouterr().out


def test_geodesics_are_between_the_chord_and_the_straight_line(photographs, tmp_path, capsys):
    content = run_json(tmp_path, [*photographs, "--crop", "8", "--rule", "hermite", "--geodesics"])
    (pair,) = content["pairs"]
    assert pair["chord"] < pair["geodesic_length"] < pair["length"]
    assert 1 < pair["zeta_lower"] < pair["eta"]
    assert pair["geodesic_converged"] == 1
    assert "zeta, lower bound" in capsys.readouterr().out


def test_hyper_latents_may_be_held(photographs, tmp_path, monkeypatch):
    infer = ToyCodec.infer
    monkeypatch.setattr(ToyCodec, "infer", lambda self, images: (images.mean((1, 2, 3)), *infer(self, images)))
    monkeypatch.setattr(
        ToyCodec,
        "decode",
        lambda self, latents: torch.sin(
            nn.functional.interpolate(latents[1], scale_factor=4) + 3 * latents[0][:, None, None, None]
        ),
    )
    moving, held = (run_json(tmp_path, [*photographs, *more])["pairs"][0] for more in ([], ["--hold-hyper"]))
    assert (moving["hyper"], held["hyper"]) == ("moving", "held")
    assert moving["eta"] != held["eta"]


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
    assert first["pairs"][0]["eta"] != other["pairs"][0]["eta"]
    assert first["pairs"][0]["num_pixels"] == 144


def test_left_rule_reaches_the_computation(photographs, tmp_path):
    arguments = [*photographs, "--points", "6"]
    assert run_json(tmp_path, [*arguments, "--rule", "left"])["pairs"] != run_json(tmp_path, arguments)["pairs"]


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
        case "list":
            broken.write_text("a,b\n1,2\n")
            return ["--list", str(broken)], "must have the columns first,second"
        case "list and images":
            return [*photographs, "--list", str(broken)], "already says which images"
        case "one image":
            return [good], "Two images must be given"
        case "pairs without crop":
            return [*photographs, "--pairs", "3"], "needs `--crop SIZE`"
        case "pairs of one image":
            return [good, "--pairs", "3", "--crop", "8"], "at least two images, got 1"
        case "twice":
            return [*photographs, "--model", "two-layer-lite", "two-layer-lite"], "different from each other"
        case "decoder":
            return [*photographs, "--decoder", "no_such_module:f"], "`--decoder` must be package.module:function"
        case "decoder of nothing":
            return [*photographs, "--decoder", "math:pi"], "`--decoder` must name a function, got float"
        case "decoder no codec":
            return [*photographs, "--decoder", "builtins:dict"], "must name a codec"
        case "encoder":
            return [*photographs, "--encoder", "math:sin"], "`--encoder` belongs to `--decoder`"
        case "rule":
            return [*photographs, "--rule", "gauss-legendre", "--points", "12"], "at most 8 or a multiple of 8"
        case "plot":
            return [*photographs, "--plot", "curve.gif"], "--plot: must end in"
        case _:
            return [*photographs, "--device", "abacus"], "`--device`"


@pytest.mark.parametrize(
    "kind",
    [
        *("missing", "truncated", "text", "model", "lmbda", "crop", "sizes", "same", "list", "list and images"),
        *("one image", "pairs without crop", "pairs of one image", "twice", "decoder", "decoder of nothing"),
        *("decoder no codec", "encoder", "rule", "plot", "device"),
    ],
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


def test_an_interrupted_run_goes_on_with_what_is_missing(folder, tmp_path, monkeypatch, capsys):
    def arguments(name, *more):
        outputs = ["--csv", str(tmp_path / f"{name}.csv"), "--paths", str(tmp_path / f"{name}-paths.csv")]
        models = ["--model", "two-layer-lite", "other-lite", "--device", "cpu"]
        return [str(folder), "--pairs", "4", "--crop", "12", "--points", "6", *models, *outputs, *more]

    assert main(arguments("whole")) == 0
    done, measure = [], command.measure

    def failing(job):
        done.append(job.source.model)
        if len(done) == 2:
            raise RuntimeError("the power failed")
        return measure(job)

    monkeypatch.setattr(command, "measure", failing)
    assert main(arguments("resumed")) == 1
    assert set(read_table(tmp_path / "resumed.csv", CURVATURE)["model"]) == {"two-layer-lite"}
    assert main(arguments("resumed", "--plot", str(tmp_path / "eta.png"))) == 0
    assert done == ["two-layer-lite", "other-lite", "other-lite"]
    for kind in ("", "-paths"):
        assert (tmp_path / f"resumed{kind}.csv").read_bytes() == (tmp_path / f"whole{kind}.csv").read_bytes()

    (tmp_path / "resumed-paths.csv").unlink()  # without its paths a row does not count
    before = (tmp_path / "resumed.csv").read_bytes()
    assert main([*arguments("resumed"), "--model", "other-lite"]) == 0
    assert done[3:] == ["other-lite"]
    assert (tmp_path / "resumed.csv").read_bytes() == before  # the other model's rows among them
    assert set(read_table(tmp_path / "resumed-paths.csv", CURVATURE_PATHS)["model"]) == {"other-lite"}

    capsys.readouterr()
    assert main(arguments("resumed", "--seed", "7")) == 2
    assert "rows with seed 0, this run has 7" in capsys.readouterr().err
    names = sorted(Path(folder).iterdir())
    assert main([str(names[0]), str(names[1]), *arguments("resumed")[3:]]) == 2
    assert "this run has" in capsys.readouterr().err
