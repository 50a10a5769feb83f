"""Multiply-accumulates against formulas worked out by hand from the published layer tables."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rdgap.complexity import count, count_transform, time_transforms
from rdgap.complexity.__main__ import main
from rdgap.ntc.layers import GDN
from rdgap.zoo import shipped_recipe, write_codec
from tests._recipes import PRIORS, TINY, tiny_codec, tiny_recipe

HYPER_ANALYSIS = 9 * 320 * 320 / 16**2 + 25 * 320 * 320 / 32**2 + 25 * 320 * 320 / 64**2
HYPER_SYNTHESIS = 25 * 320 * 320 / 64**2 + 25 * 320 * 480 / 32**2 + 9 * 480 * 640 / 16**2

BOTTLENECK = 96 * 192 + 9 * 96 * 96 + 96 * 192  # MACs at each position
WIDE_BOTTLENECK = 160 * 320 + 9 * 160 * 160 + 160 * 320
ELIC = (
    (25 * 3 * 192 + 3 * BOTTLENECK) / 2**2
    + (25 * 192 * 192 + 3 * BOTTLENECK + 6 * BOTTLENECK + 192 * 192) / 4**2
    + (25 * 192 * 192 + 3 * BOTTLENECK) / 8**2
    + (25 * 192 * 320 + 6 * WIDE_BOTTLENECK + 320 * 320) / 16**2
)
MINNEN = 25 * 3 * 192 / 2**2 + 25 * 192**2 / 4**2 + 25 * 192**2 / 8**2 + 25 * 192 * 320 / 16**2
BALLE = 81 * 3 * 256 / 4**2 + 25 * 256**2 / 8**2 + 25 * 256**2 / 16**2


@pytest.mark.parametrize(
    ("name", "analysis", "synthesis"),
    [
        ("two-layer", ELIC, 2 * 169 * 320 * 12 / 16**2 + 25 * 12 * 3 / 2**2),
        ("two-layer-no-residual", MINNEN, 169 * 320 * 24 / 16**2 + 25 * 24 * 3 / 2**2),
        ("jpeg-like", ELIC, 18 * 18 * 320 * 3 / 16**2),
        ("mean-scale", MINNEN, MINNEN),
    ],
)
def test_paper_size_codecs_cost_what_their_layers_say(name: str, analysis: float, synthesis: float) -> None:
    complexity = count(shipped_recipe(name))
    assert complexity.analysis.macs_per_pixel == analysis
    assert complexity.synthesis.macs_per_pixel == synthesis
    assert complexity.hyper_analysis is not None
    assert complexity.hyper_synthesis is not None
    assert complexity.hyper_analysis.macs_per_pixel == HYPER_ANALYSIS == 6725
    assert complexity.hyper_synthesis.macs_per_pixel == HYPER_SYNTHESIS == 15175
    assert complexity.decoding_macs_per_pixel == synthesis + 15175


def hyper_analysis(latent: int, first: int, second: int, third: int) -> float:
    return 9 * latent * first / 16**2 + 25 * first * second / 32**2 + 25 * second * third / 64**2


def hyper_synthesis(z: int, first: int, second: int, last: int) -> float:
    return 25 * z * first / 64**2 + 25 * first * second / 32**2 + 9 * second * last / 16**2


# Of each slice: means and scales from 320 features and at most five slices, the correction from its own slice as well.
CHARM_CONTEXT = sum(
    2 * 25 * (320 + 32 * min(index, 5)) * 224 + 25 * (320 + 32 * min(index, 5) + 32) * 224
    + 3 * (25 * 224 * 128 + 9 * 128 * 32)
    for index in range(10)
) / 16**2  # fmt: skip
# Of each group: channels before it once, its masked neighbours once, the aggregation for both halves of the board.
ELIC_CONTEXT = sum(
    bool(before) * 25 * (before * 224 + 224 * 128 + 128 * 2 * group) + 25 * group * 2 * group
    + 2 * ((640 + (4 if before else 2) * group) * 640 + 640 * 512 + 512 * 2 * group)
    for before, group in [(0, 16), (16, 16), (32, 32), (64, 64), (128, 192)]
) / 16**2  # fmt: skip


def narrow_elic(wide: int, filters: int) -> float:
    """ELIC's synthesis of 320 channels with `filters` channels after the first attention."""
    block = filters * filters + 9 * filters**2 / 4
    first = 6 * WIDE_BOTTLENECK + 320 * 320
    at_16, at_8 = first + 25 * wide * filters, 3 * block + 25 * filters**2
    at_4 = 9 * block + filters**2 + 25 * filters**2
    return at_16 / 16**2 + at_8 / 8**2 + at_4 / 4**2 + (3 * block + 25 * filters * 3) / 2**2


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("balle2018", (MINNEN, MINNEN, hyper_analysis(320, 192, 192, 192), hyper_synthesis(192, 192, 192, 320), 0)),
        (
            "charm",
            (
                MINNEN, MINNEN, hyper_analysis(320, 320, 256, 192), 2 * hyper_synthesis(192, 192, 256, 320),
                CHARM_CONTEXT,
            ),
        ),
        ("elic", (ELIC, ELIC, hyper_analysis(320, 192, 192, 192), hyper_synthesis(192, 192, 288, 640), ELIC_CONTEXT)),
        (
            "elic-xs",
            (
                ELIC, narrow_elic(320, 32), hyper_analysis(320, 192, 192, 192), hyper_synthesis(192, 192, 288, 640),
                ELIC_CONTEXT,
            ),
        ),
        (
            "cenic",
            (
                MINNEN, 25 * 50 * (320 / 16**2 + 50 / 8**2 + 50 / 4**2 + 3 / 2**2), HYPER_ANALYSIS, HYPER_SYNTHESIS,
                0,
            ),
        ),
        ("jpeg-like-hyper", (ELIC, 18 * 18 * 320 * 3 / 16**2, HYPER_ANALYSIS, 36 * 320 * 640 / 64**2, 0)),
        ("cnn-analysis", (MINNEN, 2 * 169 * 320 * 12 / 16**2 + 25 * 12 * 3 / 2**2, HYPER_ANALYSIS, HYPER_SYNTHESIS, 0)),
    ],
)  # fmt: skip
def test_further_architectures_cost_what_their_layers_say(name: str, parts: tuple[float, ...]) -> None:
    complexity = count(shipped_recipe(name))
    names = ("analysis", "synthesis", "hyper_analysis", "hyper_synthesis", "context")
    counted = complexity.transforms
    assert [counted[part].macs_per_pixel if part in counted else 0 for part in names] == pytest.approx(parts, rel=1e-9)
    assert complexity.decoding_macs_per_pixel == pytest.approx(parts[1] + parts[3] + parts[4])


def test_narrow_syntheses_cost_what_the_paper_says() -> None:
    assert count(shipped_recipe("elic-xs")).synthesis.macs_per_pixel == pytest.approx(16.4e3, rel=0.01)
    assert count(shipped_recipe("cenic")).synthesis.macs_per_pixel == pytest.approx(7.3e3, rel=0.015)
    cheap = count(shipped_recipe("jpeg-like-hyper")).hyper_synthesis
    assert cheap is not None
    assert cheap.macs_per_pixel == 1800


def test_shallow_syntheses_cost_what_the_paper_says() -> None:
    assert count(shipped_recipe("two-layer")).synthesis.macs_per_pixel == 5295
    assert count(shipped_recipe("jpeg-like")).synthesis.macs_per_pixel == 1215


def test_a_factorized_codec_has_no_hyper_transforms() -> None:
    complexity = count(shipped_recipe("factorized"))
    assert list(complexity.transforms) == ["analysis", "synthesis"]
    assert complexity.analysis.macs_per_pixel == complexity.synthesis.macs_per_pixel == BALLE
    assert complexity.decoding_macs_per_pixel == BALLE


def test_gdn_is_counted_apart() -> None:
    two_layer, mean_scale = (count(shipped_recipe(name)) for name in ("two-layer", "mean-scale"))
    assert two_layer.analysis.gdn_macs_per_pixel == 0
    assert two_layer.synthesis.gdn_macs_per_pixel == 12**2 / 2**2
    for transform in (mean_scale.analysis, mean_scale.synthesis):
        assert transform.gdn_macs_per_pixel == 192**2 * (1 / 2**2 + 1 / 4**2 + 1 / 8**2)


def test_parameters_are_those_of_the_layers() -> None:
    complexity = count(shipped_recipe("two-layer"))
    gdn, biases = 12 * 12 + 12, 12 + 12 + 3
    assert complexity.synthesis.parameters == 2 * 169 * 320 * 12 + 25 * 12 * 3 + gdn + biases
    # softplus(M), b and tanh(a) of the layers 1 -> 3 -> 3 -> 1, for each channel
    assert complexity.density_parameters == 320 * ((3 + 9 + 3) + (3 + 3 + 1) + (3 + 3))
    parts = [part.parameters for part in complexity.transforms.values()]
    assert complexity.parameters == sum(parts) + complexity.density_parameters


def test_all_parameters_of_a_codec_are_counted_once() -> None:
    codec = tiny_codec()
    assert count(codec).parameters == sum(parameter.numel() for parameter in codec.parameters())


def test_a_codec_costs_what_its_recipe_costs_and_is_left_alone() -> None:
    codec = tiny_codec()
    state = {name: weight.clone() for name, weight in codec.state_dict().items()}
    assert count(codec) == count(tiny_recipe())
    assert all(torch.equal(weight, state[name]) for name, weight in codec.state_dict().items())
    assert not any(module._forward_hooks for module in codec.modules())


def test_counting_a_recipe_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    count(tiny_recipe())
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_no_codec_is_refused() -> None:
    with pytest.raises(TypeError, match="must be an NTCCodec or a Recipe, got Linear; count the modules"):
        count(nn.Linear(1, 1))  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------- modules of the user


class Squeezed(nn.Module):
    """Runs one layer twice, with GDN between, and a grouped layer back up."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(6, 6, (3, 5), padding=(1, 2))
        self.gdn = GDN(6)
        self.back = nn.ConvTranspose2d(6, 4, 4, 2, padding=1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.same(self.gdn(self.same(x))))


def test_any_module_is_counted_at_the_shapes_that_its_layers_meet() -> None:
    result = count_transform(Squeezed(), (1, 6, 7, 9), num_pixels=50)
    assert result.macs_per_pixel == (2 * 15 * 36 + 16 * 6 * 4 / 2) * 63 / 50
    assert result.gdn_macs_per_pixel == 36 * 63 / 50


def test_strides_that_do_not_divide_the_size_are_counted_as_they_run() -> None:
    result = count_transform(nn.Conv2d(2, 3, 3, stride=2), (1, 2, 8, 11), num_pixels=88)
    assert result.macs_per_pixel == 9 * 2 * 3 * (3 * 5) / 88


@pytest.mark.parametrize("layer", [nn.Linear(3, 3), nn.Conv1d(3, 3, 1)])
def test_layers_that_cannot_be_counted_are_refused(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match=f"got a {type(layer).__name__}"):
        count_transform(nn.Sequential(nn.Conv2d(3, 3, 1), layer), (1, 3, 8, 3), num_pixels=24)


# ---------------------------------------------------------------- command


def test_the_command_prints_and_writes_every_transform(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, details = tmp_path / "complexity.csv", tmp_path / "complexity.json"
    assert main(["two-layer", "factorized", "--csv", str(table), "--json", str(details)]) == 0
    printed = capsys.readouterr().out
    assert "k^2 Cin Cout for each output position" in printed
    assert "entropy coding are not counted" in printed
    assert any(line.split()[:3] == ["two-layer", "synthesis", "5,295"] for line in printed.splitlines())
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert "seconds" not in rows[0]
    assert [row["codec"] for row in rows] == ["two-layer"] * 4 + ["factorized"] * 2
    assert [row["transform"] for row in rows[:4]] == ["analysis", "synthesis", "hyper_analysis", "hyper_synthesis"]
    assert [float(row["macs_per_pixel"]) for row in rows] == [ELIC, 5295, 6725, 15175, BALLE, BALLE]
    assert float(rows[1]["gdn_macs_per_pixel"]) == 36
    content = json.loads(details.read_text(encoding="utf-8"))
    assert "GDN" in content["counted"]
    assert content["codecs"][0]["synthesis"]["macs_per_pixel"] == 5295
    assert content["codecs"][1]["hyper_analysis"] is None


@pytest.mark.parametrize("prior", PRIORS)
def test_every_transform_takes_its_share_of_the_time(prior: str) -> None:
    codec = tiny_codec(prior=prior)
    seconds = time_transforms(codec, height=40, width=70, runs=2, generator=torch.Generator().manual_seed(0))
    assert list(seconds) == list(count(codec).transforms)
    assert all(0 < each < 5 for each in seconds.values())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in codec.modules())


def test_a_slow_transform_is_the_one_that_takes_long() -> None:
    codec = tiny_codec(prior="charm")
    codec.prior.get_submodule("context.1.mean").register_forward_pre_hook(lambda *_: time.sleep(0.2))
    seconds = time_transforms(codec, height=64, width=64, runs=1, generator=torch.Generator().manual_seed(0))
    assert 0.2 <= seconds["context"] < 1
    assert sum(seconds.values()) - seconds["context"] < 0.2


def test_times_need_a_run() -> None:
    with pytest.raises(ValueError, match="`runs` must be at least 1, got 0"):
        time_transforms(tiny_codec(), height=8, width=8, runs=0, generator=torch.Generator())


def test_the_command_times_each_transform(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, table, details = (tmp_path / name for name in ("mine.toml", "times.csv", "times.json"))
    recipe.write_text(TINY, encoding="utf-8")
    options = ["--time", "1", "--device", "cpu", "--csv", str(table), "--json", str(details)]
    assert main([str(recipe), *options]) == 0
    printed = capsys.readouterr().out
    assert "medians of 1 runs on one random image of 768 x 512 pixels" in printed
    with table.open(encoding="utf-8", newline="") as file:
        seconds = {row["transform"]: float(row["seconds"]) for row in csv.DictReader(file)}
    assert min(seconds.values()) > 0
    for name, each in seconds.items():
        line = next(line for line in printed.splitlines() if line.startswith(f"tiny   {name.replace('_', ' ')}"))
        assert float(line.split()[-1]) == pytest.approx(1e3 * each, abs=0.051)
    assert json.loads(details.read_text(encoding="utf-8"))["codecs"][0]["seconds"] == pytest.approx(seconds)


def test_the_command_reads_recipes_and_weights_of_the_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, weights = tmp_path / "mine.toml", tmp_path / "mine.safetensors"
    recipe.write_text(TINY, encoding="utf-8")
    write_codec(weights, tiny_recipe(), tiny_codec().state_dict(), {"lmbda": "0.01"}, kernels="float16")
    assert main([str(recipe), str(weights)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tiny ")]
    assert len(rows) == 12
    assert rows[:6] == rows[6:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["two-layers"], "there is no recipe 'two-layers'; there are balle2018,"),
        (["nowhere.toml"], "there is no recipe nowhere.toml"),
        (["nowhere.safetensors"], "there are no weights nowhere.safetensors"),
        ([], "the following arguments are required: MODEL"),
    ],
)
def test_bad_models_end_in_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_the_example_of_the_help_runs_from_another_folder(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-W", "error", "-m", "rdgap.complexity"]
    command += ["two-layer", "jpeg-like", "mean-scale", "--csv", "complexity.csv"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}, capture_output=True, check=True
    )
    assert b"15,175" in done.stdout
    assert (tmp_path / "complexity.csv").read_text(encoding="utf-8").count("\n") == 13
