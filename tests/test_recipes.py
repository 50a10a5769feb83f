"""Recipes: what is shipped parses, and every mistake is named."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from rdgap.complexity import count
from rdgap.recipes import TwoLayer, build_codec, build_synthesis, parse_recipe, read_recipe
from rdgap.zoo import model_directory, shipped_recipe
from tests._recipes import PRIORS, TINY, tiny_recipe

RECIPES = sorted(path.stem for path in model_directory().glob("*.toml"))
PAPER_SIZE = [name for name in RECIPES if not name.endswith("-lite")]
SMALL = [name for name in RECIPES if name.endswith("-lite")]


def changed(old: str, new: str) -> str:
    assert TINY.count(old) == 1
    return TINY.replace(old, new)


# ---------------------------------------------------------------- shipped recipes


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_parse_and_carry_the_name_of_their_file(name: str) -> None:
    recipe = shipped_recipe(name)
    assert recipe.name == name
    assert recipe.description.endswith(".")


@pytest.mark.parametrize("name", PAPER_SIZE)
def test_paper_size_recipes_have_a_small_one_beside_them(name: str) -> None:
    paper, small = shipped_recipe(name), shipped_recipe(f"{name}-lite")
    assert (small.synthesis.kind, small.prior.kind) == (paper.synthesis.kind, paper.prior.kind)


@pytest.mark.parametrize("name", SMALL)
def test_small_recipes_stay_small(name: str) -> None:
    complexity = count(shipped_recipe(name))
    assert complexity.parameters < 6e6  # 12 MB of weights in half precision
    of_elic = name == "two-layer-elic-lite"  # the small one with the analysis that `two-layer` has
    assert complexity.analysis.macs_per_pixel < (70e3 if of_elic else 40e3)
    paper = "two-layer" if of_elic else name.removesuffix("-lite")
    assert complexity.parameters < count(shipped_recipe(paper)).parameters / 2.5


@pytest.mark.parametrize("name", PAPER_SIZE)
def test_paper_size_recipes_train_as_the_paper_says(name: str) -> None:
    training = shipped_recipe(name).training
    mixed = ("two-layer-no-residual", "charm", "elic", "elic-xs")
    assert training.quantization == ("mixed" if name in mixed else "noise")
    assert (training.steps, training.batch_size, training.crop_size) == (2_000_000, 8, 256)
    assert (training.learning_rate, training.decay, training.warmup_fraction) == (1e-4, "step", 0.02)
    assert (training.gradient_clip, training.boosted_fraction) == (1.0, 0.2)


def test_two_layer_recipes_have_the_geometry_of_the_paper() -> None:
    for name, channels, residual in [("two-layer", 12, True), ("two-layer-no-residual", 24, False)]:
        synthesis = shipped_recipe(name).synthesis
        assert synthesis == TwoLayer(
            kind="two-layer", channels=channels, kernels=(13, 5), strides=(8, 2), residual=residual
        )


# ---------------------------------------------------------------- building


def test_a_recipe_builds_a_codec_of_its_own() -> None:
    recipe = tiny_recipe(quantization="mixed")
    codec = build_codec(recipe)
    assert (codec.name, codec.quantization, codec.factor) == ("tiny", "mixed", 64)
    assert math.isnan(codec.lmbda)
    assert build_codec(tiny_recipe(prior="factorized")).factor == 16


def test_the_synthesis_alone_is_that_of_the_codec() -> None:
    recipe = tiny_recipe()
    alone, whole = build_synthesis(recipe).state_dict(), build_codec(recipe).synthesis.state_dict()
    assert {name: weight.shape for name, weight in alone.items()} == {name: w.shape for name, w in whole.items()}


def test_a_recipe_survives_json() -> None:
    recipe = tiny_recipe()
    assert type(recipe).model_validate_json(recipe.model_dump_json()) == recipe


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch_size", "batchsize", r"`training.batch_size`: field required; `training.batchsize`: extra inputs"),
        ("[prior]", "[priors]", r"`prior`: field required; `priors`: extra inputs"),
        ("filters = 6\n", "", r"`analysis.filters`: field required"),
        ("width = 5\n", "", r"`prior.mean-scale.width`: field required"),
        ("residual = true", "residual = true\nkernel = 3", r"`synthesis.two-layer.kernel`: extra inputs"),
        ('"balle2017"', '"balle2107"', r"`analysis.kind`: input should be 'balle2017', "),
        ('"two-layer"', '"three-layer"', r"`synthesis`: input tag 'three-layer'"),
        ("strides = [8, 2]", "strides = [8, 4]", r"must multiply to the analysis's 16, got \[8, 4\]"),
        ("strides = [8, 2]", "strides = [16]", r"`synthesis.two-layer.strides.1`: field required"),
        ("kernels = [13, 5]", "kernels = [7, 5]", r"must cover their strides, got \[7, 5\] for \[8, 2\]"),
        (
            "latent_channels = 4",
            "latent_channels = 0",
            r"`latent_channels`: input should be greater than or equal",
        ),
        ("latent_channels = 4", "latent_channels = 4.5", r"`latent_channels`: input should be a valid integer"),
        ("steps = 100", 'steps = "100"', r"`training.steps`: input should be a valid integer"),
        ("residual = true", 'residual = "no"', r"`synthesis.two-layer.residual`: input should be a valid boolean"),
        ("learning_rate = 0.001", "learning_rate = inf", r"`training.learning_rate`: input should be a finite number"),
        ("learning_rate = 0.001", "learning_rate = 0", r"`training.learning_rate`: input should be greater than 0"),
        ('"cosine"', '"linear"', r"`training.decay`: input should be 'step' or 'cosine'"),
        ('"tiny"', '"../tiny"', r"`name`: string should match"),
    ],
)
def test_a_wrong_key_or_value_is_named(old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^mine.toml is not a valid recipe: .*{message}"):
        parse_recipe(changed(old, new), "mine.toml")


def test_an_analysis_without_a_mirror_image_is_no_synthesis() -> None:
    head, rest = TINY.split("[synthesis]\n")
    text = f'{head}[synthesis]\nkind = "cnn"\nfilters = 3\n\n[prior]{rest.split("[prior]")[1]}'
    with pytest.raises(ValueError, match=r"recipe: there is no synthesis of kind 'cnn'\.$"):
        parse_recipe(text, "mine.toml")


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (PRIORS["charm"].replace("slices = 2", "slices = 3"), "the 4 latent channels must make 3 equal slices"),
        (PRIORS["elic"].replace("[1, 3]", "[1, 2]"), r"must add up to the 4 latent channels, got \[1, 2\]"),
    ],
)
def test_slices_and_groups_must_make_up_the_latents(prior: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_recipe(changed(PRIORS["mean-scale"], prior), "mine.toml")


@pytest.mark.parametrize("activation", ["gdn", "leaky-relu", "relu", "none"])
def test_the_activation_of_two_layers_can_be_chosen(activation: str) -> None:
    recipe = parse_recipe(changed("residual = true", f'residual = false\nactivation = "{activation}"'), "mine.toml")
    synthesis = build_synthesis(recipe).double().requires_grad_(False)
    y = torch.randn(1, 4, 2, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    hidden = synthesis.get_submodule("conv1")(y)
    expected = {
        "gdn": hidden * (1 + 0.1 * hidden.abs()),
        "leaky-relu": torch.where(hidden > 0, hidden, 0.2 * hidden),
        "relu": hidden.clamp(min=0),
        "none": hidden,
    }
    torch.testing.assert_close(synthesis(y), synthesis.get_submodule("conv2")(expected[activation]), rtol=0, atol=1e-6)


def test_a_jpeg_like_synthesis_must_have_the_stride_of_the_analysis() -> None:
    head, rest = TINY.split("[synthesis]\n")
    text = f'{head}[synthesis]\nkind = "jpeg-like"\nstride = 8\n\n[prior]{rest.split("[prior]")[1]}'
    with pytest.raises(ValueError, match=r"analysis's 16, got \[8\]"):
        parse_recipe(text, "mine.toml")


def test_broken_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(changed("[prior]", "[prior"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"must be a TOML file, got .*broken.toml: .*line 16"):
        read_recipe(path)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.toml"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(ValueError, match=r"must be a TOML file, got .*image.toml"):
        read_recipe(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be a TOML file"):
        read_recipe(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no recipe .*nowhere.toml"):
        read_recipe(tmp_path / "nowhere.toml")


def test_an_unknown_shipped_recipe_lists_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"there is no recipe 'two-layers'; there are balle2018, .*two-layer-lite"):
        shipped_recipe("two-layers")
    with pytest.raises(ValueError, match="there is no recipe"):
        shipped_recipe("../models/two-layer")
