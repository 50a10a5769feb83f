"""The codec of `rdgap.ntc`: protocol, sizes, and the training pass against the one place where costs are defined."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rdgap.images import pad_reflect
from rdgap.model import Codec, GenerativeCodec, LatticeCodec
from rdgap.ntc import NTCCodec
from rdgap.objective import cost, reconstruct, uniform_noise
from rdgap.recipes import build_codec
from rdgap.zoo import model_directory, shipped_recipe
from tests._recipes import PRIORS, random_images, tiny_codec

RECIPES = sorted(path.stem for path in model_directory().glob("*.toml"))
SIZES = [(1, 1), (1, 70), (17, 33), (64, 64), (128, 65)]


def latent_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Of z and y, for an analysis that divides by 16 and a hyper analysis that divides by 4."""
    rows, columns = math.ceil(height / 64), math.ceil(width / 64)
    return [(rows, columns), (4 * rows, 4 * columns)]


def test_the_codec_follows_the_protocol() -> None:
    assert isinstance(tiny_codec(), Codec)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_any_size_goes_through_the_codec(height: int, width: int) -> None:
    codec, images = tiny_codec(), random_images(2, 3, height, width)
    with torch.no_grad():
        latents = codec.infer(images)
        decoded = reconstruct(codec, codec.quantize(latents), (height, width))
    assert [tuple(latent.shape[-2:]) for latent in latents] == latent_sizes(height, width)
    assert decoded.shape == images.shape
    assert codec.decode(latents).shape[-2:] == tuple(64 * n for n in latent_sizes(height, width)[0])


def test_latents_are_those_of_the_reflected_image() -> None:
    codec, images = tiny_codec(), random_images(2, 3, 50, 33)
    padded = pad_reflect(images, 64)
    assert padded.shape[-2:] == (64, 64)
    for latent, expected in zip(codec.infer(images), codec.infer(padded), strict=True):
        assert torch.equal(latent, expected)


def test_transforms_see_and_give_images_less_a_half() -> None:
    codec, images = tiny_codec(), random_images(1, 3, 64, 64)
    latents = codec.infer(images)
    torch.testing.assert_close(latents[-1], codec.analysis(images - 0.5))
    torch.testing.assert_close(codec.decode(latents), codec.synthesis(latents[-1]) + 0.5)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("-lite")])
def test_small_recipes_code_an_odd_image(name: str) -> None:
    recipe = shipped_recipe(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        codec = build_codec(recipe).eval().requires_grad_(False)
    images = random_images(1, 3, 17, 33)
    latents = codec.quantize(codec.infer(images))
    assert latents[-1].shape[1] == recipe.latent_channels
    result = cost(codec, latents, images, 0.01)
    assert 0 < float(result.rate_bpp) < 1000
    assert 0 < float(result.mse) < 255**2
    assert (codec.name, math.isnan(codec.lmbda)) == (name, True)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_pads_to_what_its_transforms_divide_by(name: str) -> None:
    with torch.device("meta"):  # shapes only: those of paper size are large
        codec = build_codec(shipped_recipe(name))
    latents = codec.infer(torch.empty(1, 3, 17, 33, device="meta"))
    hyper = len(latents) == 2
    assert codec.factor == (64 if hyper else 16)
    sizes = [(1, 1), (4, 4)] if hyper else [(2, 3)]
    assert [tuple(latent.shape[-2:]) for latent in latents] == sizes
    assert codec.decode(latents).shape == (1, 3, *((64, 64) if hyper else (32, 48)))


@pytest.mark.parametrize("prior", PRIORS)
def test_training_with_noise_costs_what_the_objective_says(prior: str) -> None:
    codec, images = tiny_codec(prior=prior), random_images(3, 3, 40, 70)
    rate_nats, sse = codec(images, torch.Generator().manual_seed(4))
    noisy = uniform_noise(codec.infer(images), torch.Generator().manual_seed(4))
    expected = cost(codec, noisy, images, 0.01)
    torch.testing.assert_close(rate_nats, expected.rate_nats)
    torch.testing.assert_close(sse, expected.sse)
    assert rate_nats.unique().numel() == 3


def test_training_straight_through_costs_what_rounded_latents_cost() -> None:
    codec, images = tiny_codec(quantization="straight-through"), random_images(2, 3, 40, 70)
    rate_nats, sse = codec(images, torch.Generator())
    expected = cost(codec, codec.quantize(codec.infer(images)), images, 0.01)
    torch.testing.assert_close(rate_nats, expected.rate_nats)
    torch.testing.assert_close(sse, expected.sse)


def test_mixed_training_distorts_as_rounded_latents_do() -> None:
    codec, images = tiny_codec(quantization="mixed"), random_images(2, 3, 40, 70)
    rate_nats, sse = codec(images, torch.Generator().manual_seed(0))
    expected = cost(codec, codec.quantize(codec.infer(images)), images, 0.01)
    torch.testing.assert_close(sse, expected.sse)
    assert not torch.allclose(rate_nats, expected.rate_nats, rtol=1e-4)


@pytest.mark.parametrize("quantization", ["noise", "straight-through", "mixed"])
@pytest.mark.parametrize("prior", PRIORS)
def test_every_parameter_gets_a_gradient(quantization: str, prior: str) -> None:
    codec = tiny_codec(quantization=quantization, prior=prior)
    rate_nats, sse = codec(random_images(2, 3, 64, 64), torch.Generator().manual_seed(0))
    (rate_nats + sse).sum().backward()
    silent = [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_training_under_autocast_keeps_costs_in_float32() -> None:
    codec, images = tiny_codec(), random_images(2, 3, 64, 64)
    exact = codec(images, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        costs = codec(images, torch.Generator().manual_seed(0))
    for half, full in zip(costs, exact, strict=True):
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, full, rtol=0.02, atol=0)


def test_the_mean_of_the_prior_follows_the_hyper_latent_of_its_own_image() -> None:
    codec, images = tiny_codec(), random_images(2, 3, 64, 64)
    alone = [codec.log_prior(codec.quantize(codec.infer(image[None]))) for image in images]
    torch.testing.assert_close(codec.log_prior(codec.quantize(codec.infer(images))), torch.cat(alone))


def test_decoding_is_differentiable_in_the_latents() -> None:
    codec: NTCCodec = tiny_codec().double().requires_grad_(False)
    y = torch.randn(1, 4, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)

    def corner(y: Tensor) -> Tensor:
        return codec.decode((y, y))[..., 3:9:5, 15:18:2]

    assert torch.autograd.gradcheck(corner, y, fast_mode=True)


@pytest.mark.parametrize("prior", PRIORS)
def test_lattice_points_stand_for_integers_and_come_back_from_them(prior: str) -> None:
    codec = tiny_codec(prior=prior)
    assert isinstance(codec, LatticeCodec)
    assert isinstance(codec, GenerativeCodec)
    latents = codec.sample_prior(codec.infer(random_images(2, 3, 40, 70)), torch.Generator().manual_seed(0))
    symbols = codec.to_symbols(latents)
    for symbol in symbols:
        assert torch.equal(symbol, symbol.round())
    point = codec.from_symbols(symbols)
    torch.testing.assert_close(codec.quantize(latents), point)
    for again, symbol in zip(codec.to_symbols(point), symbols, strict=True):
        assert torch.equal(again, symbol)
