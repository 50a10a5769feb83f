"""A principal start is a linear transform codec; weights of another training are taken whole and rescaled."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from rdgap.model import Latents
from rdgap.ntc import FactorizedPrior, MeanScaleHyperprior, NTCCodec
from rdgap.ntc.priors import CodingStep, Hyperprior, gaussian_log_density
from rdgap.recipes import Recipe, build_codec
from rdgap.training.hyper_initialization import start_hyperprior
from rdgap.training.initialization import initialize_principal, rescale_latents, sparse_basis, take_weights
from tests._recipes import shaken
from tests._training import BALLE, FACTORIZED, HYPERPRIOR, JPEG_LIKE, TWO_LAYER, smooth_images, tiny_recipe

PARTS = {"analysis", "synthesis", "prior"}
ARCHITECTURES = {
    "two-layer": tiny_recipe(),
    "two-layer without residual": tiny_recipe(synthesis=TWO_LAYER.replace("true", "false")),
    "jpeg-like": tiny_recipe(synthesis=JPEG_LIKE),
    "factorized": tiny_recipe(synthesis=BALLE, prior=FACTORIZED),
}


CONTEXTS = {
    "scale": 'kind = "scale"\nwidth = 8',
    "charm": 'kind = "charm"\nslices = 4\nsupport = 2\nhyper_widths = [8, 8, 8]\nwidths = [6, 6]',
    "elic": 'kind = "elic"\nwidth = 8\ngroups = [2, 6, 8]\ncontext_widths = [6, 6]\naggregation_widths = [8, 8]',
}
CONVOLUTIONAL = ["minnen2018", "elic", "cnn"]


def convolutional(kind: str, filters: int = 16) -> Recipe:
    """Analysis of that kind, and synthesis where there is one."""
    analysis = {"kind": kind, "filters": filters}
    synthesis = {"kind": "minnen2018" if kind == "cnn" else kind, "filters": filters}
    return Recipe.model_validate(tiny_recipe().model_dump() | {"analysis": analysis, "synthesis": synthesis})


def steps_of(prior: Hyperprior, latents: Latents) -> list[CodingStep]:
    """What each step says when `y` is known."""
    steps: list[CodingStep] = []

    def visit(step: CodingStep) -> torch.Tensor:
        steps.append(step)
        return latents[1][:, step.channels]

    prior.walk(latents[0], visit)
    return steps


def build(recipe: Recipe, seed: int = 0) -> NTCCodec:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = build_codec(recipe)
    return codec.requires_grad_(False)


def principal(recipe: Recipe, images: torch.Tensor, lmbda: float = 0.01) -> NTCCodec:
    codec = build(recipe)
    initialize_principal(codec, images, lmbda, PARTS)
    return codec


def mse(codec: NTCCodec, images: torch.Tensor) -> float:
    return float((codec.decode(codec.infer(images)) - images).double().square().mean())


def klt_mse(images: torch.Tensor, rank: int) -> float:
    """The least error of a linear code of 16 x 16 blocks: the tail of the eigenvalues of their covariance."""
    blocks = nn.functional.pixel_unshuffle(images, 16).permute(0, 2, 3, 1).flatten(0, 2).double()
    eigenvalues = torch.linalg.eigvalsh(torch.cov(blocks.T, correction=0))
    return float(eigenvalues[:-rank].sum()) / blocks.shape[1]


@pytest.fixture(scope="module")
def images():
    return smooth_images(48)


def test_a_principal_start_codes_about_as_well_as_the_klt_of_its_rank(images):
    codec = principal(tiny_recipe(synthesis=JPEG_LIKE, filters=48, latent_channels=24), images)
    best = klt_mse(images, 24)
    assert best < 0.2 * float(images.double().var())
    # Worse than the best by what GDN bends and by giving up what is rounded away: not more than rounding itself.
    rounding = 3 / (2 * 0.01 * math.log(2)) / 255**2 * 24 / 768
    assert best < mse(codec, images) < best + 1.5 * rounding


@pytest.mark.parametrize("recipe", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_a_principal_start_beats_a_random_one_and_the_mean(recipe, images):
    assert mse(principal(recipe, images), images) < 0.5 * float(images.double().var())
    assert mse(principal(recipe, images), images) < 0.5 * mse(build(recipe), images)


@pytest.mark.parametrize("lmbda", [0.0025, 0.04])
def test_a_step_of_one_is_the_best_at_high_rate(lmbda, images):
    """`step^2 / 12 = 3 / (2 lmbda ln 2)`: what rounding one latent costs, spread over a block of 16 x 16 x 3."""
    codec = principal(tiny_recipe(synthesis=JPEG_LIKE), images, lmbda)
    kernels = codec.synthesis.get_parameter("0.weight").flatten(1).norm(dim=1)
    step = math.sqrt(12 * 3 / (2 * lmbda * math.log(2))) / 255
    torch.testing.assert_close(kernels, torch.full_like(kernels, step), rtol=0.02, atol=0)


def correlated_latents(seed: int) -> torch.Tensor:
    """One smooth channel about a mean, seven of noise with one slowly changing deviation."""
    generator = torch.Generator().manual_seed(seed)

    def slow(batch: int) -> torch.Tensor:
        coarse = torch.randn(batch, 1, 4, 4, generator=generator)
        return nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")

    noise = torch.randn(128, 7, 16, 16, generator=generator) * 3 * (1.5 * slow(128)).exp()
    return torch.cat([7 + 20 * slow(128), noise], 1)


WIDE_PRIORS = {
    "mean-scale": 'kind = "mean-scale"\nwidth = 32',
    "jpeg-like": 'kind = "mean-scale"\nwidth = 32\nhyper_synthesis = "jpeg-like"',
    "scale": 'kind = "scale"\nwidth = 32',
    "charm": 'kind = "charm"\nslices = 2\nsupport = 1\nhyper_widths = [32, 32, 32]\nwidths = [12, 12]',
    "elic": 'kind = "elic"\nwidth = 32\ngroups = [2, 6]\ncontext_widths = [6, 6]\naggregation_widths = [16, 16]',
}


@pytest.mark.parametrize("kind", WIDE_PRIORS)
def test_side_information_is_worth_its_bits_from_the_start(kind):
    """On other latents than it was made from, side information included, against each channel's own Gaussian."""
    y = correlated_latents(0)
    codec = build(tiny_recipe(prior=WIDE_PRIORS[kind], latent_channels=8))
    assert isinstance(codec.prior, Hyperprior)
    start_hyperprior(codec.prior, y)
    fresh = correlated_latents(1)
    latents = codec.quantize(codec.prior.infer(fresh))
    bits = -codec.log_prior(latents).sum() / math.log(2)
    mean = 0 if kind == "scale" else y.mean(dim=(0, 2, 3), keepdim=True)
    deviation = (y - mean).square().mean(dim=(0, 2, 3), keepdim=True).sqrt()
    alone = -gaussian_log_density(torch.round(fresh - mean), deviation).sum() / math.log(2)
    of_z = -codec.prior.density.log_density(latents[0]).sum() / math.log(2)
    assert of_z < 0.1 * bits
    assert bits < (0.95 if kind == "scale" else 0.9) * alone


def test_a_sparse_basis_finds_the_directions_that_vectors_are_made_of():
    generator = torch.Generator().manual_seed(0)
    truth = torch.linalg.qr(torch.randn(12, 12, generator=generator))[0]
    is_there = torch.rand(20_000, 12, generator=generator) < 0.1
    sizes = torch.linspace(3.1, 3.0, 12)  # nearly equal, so that principal components mean nothing
    vectors = (torch.randn(20_000, 12, generator=generator) * is_there * sizes) @ truth
    start = torch.linalg.eigh(vectors.T @ vectors)[1].T.flip(0)
    basis = sparse_basis(vectors, start, 1.5)
    torch.testing.assert_close(basis @ basis.T, torch.eye(12), rtol=0, atol=1e-5)
    assert (basis @ truth.T).abs().max(dim=1).values.min() > 0.99
    assert (start @ truth.T).abs().max(dim=1).values.min() < 0.9
    carried = (vectors @ basis.T).square().mean(0)
    assert (carried[1:] < 1.05 * carried[:-1]).all()  # the most important first


@pytest.mark.parametrize("kind", CONVOLUTIONAL)
def test_a_principal_start_of_several_stages_beats_the_mean_at_its_best_step(kind, images):
    codec = principal(convolutional(kind), images)
    assert mse(codec, images) < 0.2 * float(images.double().var())
    _, y = codec.infer(images)
    # The kernels of the best linear decoder: what a step of one in a latent adds to its block.
    design = y.permute(0, 2, 3, 1).flatten(0, 2).double()
    design = torch.cat([design, torch.ones_like(design[:, :1])], 1).numpy()
    blocks = nn.functional.pixel_unshuffle(images, 16).permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
    kernels = np.linalg.norm(np.linalg.lstsq(design, blocks, rcond=None)[0][:-1], axis=1)
    step = math.sqrt(12 * 3 / (2 * 0.01 * math.log(2))) / 255
    np.testing.assert_allclose(kernels, step, rtol=0.02)


@pytest.mark.parametrize("kind", ["charm", "elic"])
def test_every_step_starts_with_residuals_of_its_own_scale(kind, images):
    codec = build(tiny_recipe(prior=CONTEXTS[kind]))
    codec.get_parameter("analysis.4.weight").mul_(60.0)  # means of several integers, as principal components have not
    initialize_principal(codec, images, 0.01, {"prior"})
    assert isinstance(codec.prior, Hyperprior)
    z, y = codec.infer(images)
    assert y.mean(dim=(0, 2, 3)).abs().max() > 1
    assert (z.std(dim=(0, 2, 3)) > 0.5).any()
    deviation = y.std(dim=(0, 2, 3))
    for step in steps_of(codec.prior, (torch.round(z), torch.round(y))):
        residual = (y[:, step.channels] - step.mean)[..., step.mask]
        wide = deviation[step.channels] > 1
        assert (residual.mean(dim=(0, 2)).abs() < 0.1 * deviation[step.channels] + 0.1).all()
        assert (residual.std(dim=(0, 2)) < deviation[step.channels] + 0.1).all()
        standardized = (residual / step.scale[..., step.mask]).square().mean(dim=(0, 2)).sqrt()
        assert ((standardized[wide] - 1).abs() < 0.2).all()
    correction = codec.prior.for_synthesis((z, y)) - y
    assert float(correction.abs().mean()) < 0.05
    assert bool(correction.any()) == (kind == "charm")


@pytest.mark.parametrize("size", [(64, 72), (32, 64)])
def test_a_principal_start_needs_whole_blocks(size):
    with pytest.raises(ValueError, match=rf"multiples of 64, got {size[0]} x {size[1]}"):
        principal(tiny_recipe(), smooth_images(2, *size))


def test_only_the_named_parts_are_set(images):
    codec, untouched = build(ARCHITECTURES["jpeg-like"]), build(ARCHITECTURES["jpeg-like"])
    initialize_principal(codec, images, 0.01, {"synthesis"})
    changed = {
        name for name, weight in codec.state_dict().items() if not torch.equal(weight, untouched.state_dict()[name])
    }
    assert changed == {"synthesis.0.weight", "synthesis.0.bias"}


def assert_rescaled_alike(codec: NTCCodec, gain: float, images: torch.Tensor) -> None:
    before, decoded = codec.infer(images), codec.decode(codec.infer(images))
    assert rescale_latents(codec, gain)
    after = codec.infer(images)
    torch.testing.assert_close(after[-1], gain * before[-1], rtol=1e-4, atol=1e-4 * float(after[-1].abs().max()))
    torch.testing.assert_close(codec.decode(after), decoded, rtol=0, atol=1e-4)


@pytest.mark.parametrize("gain", [0.3, 2.0])
def test_attentions_beside_the_latents_are_rescaled_with_them(gain, images):
    codec = build(convolutional("elic"))
    shaken(codec.analysis, strength=0.05)
    shaken(codec.synthesis, strength=0.05)
    assert_rescaled_alike(codec, gain, images[:4])


@pytest.mark.parametrize("recipe", ARCHITECTURES.values(), ids=ARCHITECTURES)
@pytest.mark.parametrize("gain", [0.3, 2.0])
def test_rescaled_latents_decode_to_the_same_image(recipe, gain, images):
    assert_rescaled_alike(principal(recipe, images), gain, images[:4])


def test_rescaled_latents_keep_what_the_hyperprior_says(images):
    codec = principal(ARCHITECTURES["two-layer"], images)
    assert isinstance(codec.prior, MeanScaleHyperprior)
    z, _ = codec.infer(images[:4])
    mean, scale = codec.prior.parameters_of(z)
    rescale_latents(codec, 2.0)
    z_after, _ = codec.infer(images[:4])
    torch.testing.assert_close(z_after, z, rtol=1e-4, atol=1e-3)
    mean_after, scale_after = codec.prior.parameters_of(z)
    torch.testing.assert_close(mean_after, 2 * mean, rtol=1e-4, atol=1e-3)
    inside = (scale > 0.12) & (scale < 120)
    assert inside.any()
    torch.testing.assert_close(scale_after[inside], 2 * scale[inside], rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", ["scale", "elic"])
def test_rescaled_latents_keep_what_every_step_says(kind, images):
    codec = principal(tiny_recipe(prior=CONTEXTS[kind]), images)
    assert isinstance(codec.prior, Hyperprior)
    z, y = codec.infer(images[:4])
    decoded = codec.decode((z, y))
    before = steps_of(codec.prior, (z, y))
    assert rescale_latents(codec, 2.0)
    z_after, y_after = codec.infer(images[:4])
    torch.testing.assert_close(z_after, z, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(codec.decode((z_after, y_after)), decoded, rtol=0, atol=1e-4)
    for step, after in zip(before, steps_of(codec.prior, (z, 2 * y)), strict=True):
        torch.testing.assert_close(after.mean, 2 * step.mean, rtol=1e-4, atol=1e-3)
        inside = (step.scale > 0.12) & (step.scale < 120)
        assert inside.any()
        torch.testing.assert_close(after.scale[inside], 2 * step.scale[inside], rtol=1e-4, atol=0)


@pytest.mark.parametrize("obstacle", ["corrections", "activation"])
def test_latents_that_cannot_be_rescaled_stay_as_they_are(obstacle):
    codec = build(tiny_recipe(prior=CONTEXTS["charm"]) if obstacle == "corrections" else ARCHITECTURES["jpeg-like"])
    if obstacle == "activation":
        codec.synthesis = nn.Sequential(nn.Tanh(), *codec.synthesis.children())
    untouched = copy.deepcopy(codec.state_dict())
    assert not rescale_latents(codec, 2.0)
    for name, weight in codec.state_dict().items():
        assert torch.equal(weight, untouched[name])


def test_rescaled_latents_stretch_the_factorized_density(images):
    codec = principal(ARCHITECTURES["factorized"], images)
    assert isinstance(codec.prior, FactorizedPrior)
    values = torch.linspace(-20, 20, 9).expand(16, 1, 9)
    before = codec.prior.density.logits(values)
    rescale_latents(codec, 2.0)
    torch.testing.assert_close(codec.prior.density.logits(2 * values), before, rtol=1e-4, atol=1e-4)


def test_parts_are_taken_whole_or_not_at_all():
    source = build(tiny_recipe(synthesis=JPEG_LIKE), seed=1)
    codec, before = build(tiny_recipe()), build(tiny_recipe())
    assert take_weights(codec, source) == ({"analysis", "prior"}, {"synthesis"})
    for part, other in (("analysis", source), ("prior", source), ("synthesis", before)):
        there = getattr(other, part).state_dict()
        assert all(torch.equal(weight, there[name]) for name, weight in getattr(codec, part).state_dict().items())


def test_nothing_is_taken_where_every_shape_differs():
    source = build(tiny_recipe(filters=10, latent_channels=12, prior=HYPERPRIOR.replace("8", "10")), seed=1)
    assert take_weights(build(tiny_recipe()), source) == (set(), PARTS)
