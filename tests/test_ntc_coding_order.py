"""Priors that code `y` in steps: what a step may depend on, what a decoder can know, what follows from the order."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor
from torch.autograd import forward_ad

from rdgap.model import Latents
from rdgap.ntc import CharmPrior, ElicPrior, MeanScaleHyperprior, NTCCodec, ScaleHyperprior
from rdgap.ntc.priors import CodingStep, Hyperprior
from rdgap.ntc.quantization import Quantization
from rdgap.objective import cost, reconstruct
from rdgap.recipes import Recipe, build_codec
from rdgap.training.initialization import initialize_principal
from rdgap.training.schedule import learning_rate_factor, parameter_groups
from rdgap.zoo import model_directory, shipped_recipe
from tests._recipes import first_jvp_warns, random_images, shaken, tiny_codec
from tests._training import smooth_images

CHANNELS = 6
LITE = sorted(path.stem for path in model_directory().glob("*-lite.toml"))
PRIORS = {
    "scale": lambda: ScaleHyperprior(CHANNELS, 4),
    "mean-scale": lambda: MeanScaleHyperprior(CHANNELS, 4),
    "charm": lambda: CharmPrior(CHANNELS, slices=3, support=3, hyper_widths=(5, 4, 4), widths=(6, 5)),
    "charm of short support": lambda: CharmPrior(CHANNELS, slices=3, support=1, hyper_widths=(5, 4, 4), widths=(6, 5)),
    "elic": lambda: ElicPrior(CHANNELS, 4, groups=(1, 2, 3), context_widths=(5, 4), aggregation_widths=(6, 5)),
}
every_prior = pytest.mark.parametrize("name", PRIORS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prior_of(name: str) -> Hyperprior:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = PRIORS[name]().double()
    shaken(prior, strength=0.1)
    with torch.no_grad():  # hyper latents and means that do not all round to zero
        prior.get_parameter("hyper_analysis.4.weight").mul_(10.0)
    return prior.requires_grad_(False)


def latents_of(prior: Hyperprior, batch: int = 1, height: int = 8, width: int = 12, seed: int = 0) -> Latents:
    y = 4 * torch.randn(batch, CHANNELS, height, width, generator=generator(seed), dtype=torch.float64)
    return prior.infer(y)


def steps_of(prior: Hyperprior, latents: Latents) -> list[CodingStep]:
    """What each step says when `y` is known."""
    steps: list[CodingStep] = []

    def visit(step: CodingStep) -> Tensor:
        steps.append(step)
        return latents[1][:, step.channels]

    prior.walk(latents[0], visit)
    return steps


def coded_by(step: CodingStep, like: Tensor) -> Tensor:
    """The entries of `y` that a step codes, as a mask of the shape of `y`."""
    entries = torch.zeros_like(like, dtype=torch.bool)
    entries[:, step.channels] = step.mask
    return entries


def what_is_said(step: CodingStep) -> Tensor:
    return torch.stack([step.mean, step.scale.log()])[..., step.mask]


# ---------------------------------------------------------------- the order


@every_prior
def test_every_entry_is_coded_in_exactly_one_step(name: str) -> None:
    prior = prior_of(name)
    latents = latents_of(prior)
    times = sum(coded_by(step, latents[1]).int() for step in steps_of(prior, latents))
    assert torch.equal(times, torch.ones_like(times))


def test_groups_are_coded_in_order_anchors_where_row_and_column_add_up_to_even() -> None:
    prior = prior_of("elic")
    steps = steps_of(prior, latents_of(prior))
    assert [(step.channels.start, step.channels.stop) for step in steps] == [
        (0, 1), (0, 1), (1, 3), (1, 3), (3, 6), (3, 6)
    ]  # fmt: skip
    for row in range(8):
        for column in range(12):
            assert [bool(step.mask[row, column]) for step in steps] == 3 * [(row + column) % 2 == 0, (row + column) % 2]


@every_prior
def test_a_step_depends_on_nothing_that_is_coded_with_it_or_later(name: str) -> None:
    prior = prior_of(name)
    z, y = latents_of(prior, batch=2)
    steps = steps_of(prior, (z, y))
    unknown = torch.ones_like(y, dtype=torch.bool)
    for index, step in enumerate(steps):
        nothing_known = torch.where(unknown, torch.full_like(y, math.nan), y)
        said = what_is_said(steps_of(prior, (z, nothing_known))[index])
        assert torch.equal(said, what_is_said(step))
        assert said.isfinite().all()
        unknown &= ~coded_by(step, y)


@pytest.mark.parametrize(
    ("name", "dependencies"),
    [
        ("charm", {(0, 1), (0, 2), (1, 2)}),
        ("charm of short support", {(0, 1), (0, 2)}),
        # anchors, others of three groups: all on earlier groups, others on their own anchors as well
        ("elic", {(a, b) for b in range(6) for a in range(b)}),
    ],
)
def test_a_step_depends_on_the_steps_that_the_paper_says(name: str, dependencies: set[tuple[int, int]]) -> None:
    prior = prior_of(name)
    z, y = latents_of(prior)
    before, found = steps_of(prior, (z, y)), set()
    for index, step in enumerate(before):
        after = steps_of(prior, (z, y + 3 * coded_by(step, y)))
        for other, (old, new) in enumerate(zip(before, after, strict=True)):
            if not torch.equal(what_is_said(old), what_is_said(new)):
                found.add((index, other))
    assert found == dependencies


@pytest.mark.parametrize("name", ["charm", "charm of short support"])
def test_slices_follow_from_corrected_ones_by_the_formulas_of_charm(name: str) -> None:
    """Minnen & Singh 2020, figure 2: `mu_i, sigma_i` of `y_bar_<i`, and `y_bar_i = y_i + tanh(lrp_i) / 2`."""
    prior = prior_of(name)
    assert isinstance(prior, CharmPrior)
    z, y = latents_of(prior, batch=2)
    of_means, of_scales = prior.hyper_synthesis(z)
    y_bar: list[Tensor] = []
    for index, step in enumerate(steps_of(prior, (z, y))):
        networks = prior.get_submodule(f"context.{index}")
        known, own = y_bar[: prior.support], y[:, 2 * index : 2 * index + 2]
        mean = networks.get_submodule("mean")(torch.cat([of_means, *known], 1))
        log_scale = networks.get_submodule("log_scale")(torch.cat([of_scales, *known], 1))
        lrp = networks.get_submodule("correction")(torch.cat([of_means, *known, own], 1))
        torch.testing.assert_close(step.mean, mean)
        torch.testing.assert_close(step.scale, log_scale.exp().clamp(0.11, 256))
        y_bar.append(own + torch.tanh(lrp) / 2)
    torch.testing.assert_close(prior.for_synthesis((z, y)), torch.cat(y_bar, 1))


def test_groups_follow_from_channel_and_space_by_the_formulas_of_elic() -> None:
    """He et al. 2022, section 3: parameters of hyper features, earlier groups and, but for anchors, anchors nearby."""
    prior = prior_of("elic")
    z, y = latents_of(prior, batch=2)
    features = prior.get_submodule("hyper_synthesis")(z)
    steps, ends = steps_of(prior, (z, y)), [0, 1, 3, 6]
    anchors = torch.tensor([[(row + column) % 2 == 0 for column in range(12)] for row in range(8)])
    for index, (start, end) in enumerate(pairwise(ends)):
        networks = prior.get_submodule(f"context.{index}")
        sources = [features, networks.get_submodule("channel")(y[:, :start])] if index else [features]
        kernel = networks.get_parameter("space.weight").clone()
        kernel.flatten(2)[:, :, ::2] = 0  # of a 5x5 kernel, the middle and the positions of its color
        bias = networks.get_parameter("space.bias")
        space = torch.nn.functional.conv2d(y[:, start:end] * anchors, kernel, bias, padding=2)
        for step, mask, nearby in ((steps[2 * index], anchors, 0 * space), (steps[2 * index + 1], ~anchors, space)):
            out = networks.get_submodule("aggregation")(torch.cat([*sources, nearby], 1))
            mean, log_scale = out[:, : end - start], out[:, end - start :]
            assert torch.equal(step.mask, mask)
            torch.testing.assert_close(step.mean[..., mask], mean[..., mask])
            torch.testing.assert_close(step.scale[..., mask], log_scale.exp().clamp(0.11, 256)[..., mask])


def test_an_anchor_tells_only_the_other_color_within_its_window() -> None:
    prior = prior_of("elic")
    z, y = latents_of(prior, height=12, width=12)
    moved = y.clone()
    moved[:, 3, 5, 7] += 2.0  # row + column even: an anchor, of the last group
    before, after = (steps_of(prior, (z, each)) for each in (y, moved))
    for index in range(5):
        assert torch.equal(what_is_said(before[index]), what_is_said(after[index]))
    changed = ((before[5].mean != after[5].mean) & before[5].mask).any(dim=(0, 1))
    offsets = {(row - 5, column - 7) for row, column in changed.nonzero().tolist()}
    assert offsets == {(r, c) for r in range(-2, 3) for c in range(-2, 3) if (r + c) % 2}


# ---------------------------------------------------------------- what a decoder knows


@pytest.mark.parametrize("quantization", ["noise", "mixed"])
@every_prior
def test_a_decoder_that_knows_only_what_it_decoded_recovers_the_lattice_point(
    name: str, quantization: Quantization
) -> None:
    prior = prior_of(name)
    latents = latents_of(prior, batch=2)
    symbols = prior.to_symbols(latents, quantization)
    point = prior.from_symbols(symbols, quantization)
    sent = deque(symbols[1][coded_by(step, point[1])] for step in steps_of(prior, point))

    def decode(step: CodingStep) -> Tensor:
        integers = torch.full_like(step.mean, math.nan)
        integers[..., step.mask] = sent.popleft().view_as(integers[..., step.mask])
        return step.mean + integers

    decoded, _ = prior.walk(symbols[0] + prior.lattice_offset(quantization), decode)
    assert not sent
    assert torch.equal(decoded[0], point[0])
    assert torch.equal(decoded[1], point[1])
    assert symbols[1].unique().numel() > 5
    assert (point[1] - latents[1]).abs().max() <= 0.5 + 1e-9


@pytest.mark.parametrize("quantization", ["noise", "mixed"])
@every_prior
def test_the_prior_of_a_lattice_point_is_the_product_of_what_a_decoder_meets(
    name: str, quantization: Quantization
) -> None:
    prior = prior_of(name)
    z, y = latents_of(prior, batch=2)
    with torch.no_grad():  # symbols near their means, where naive differences do not underflow
        z, y = prior.sample((z, y), generator(1))
    point = prior.from_symbols(prior.to_symbols((z, y), quantization), quantization)
    expected = prior.density.log_density(point[0]).sum(dim=(1, 2, 3)).numpy()

    def decode(step: CodingStep) -> Tensor:
        values = torch.where(step.mask, point[1][:, step.channels], torch.full_like(step.mean, math.nan))
        residual = (values - step.mean)[..., step.mask].numpy()
        np.testing.assert_allclose(residual, residual.round(), atol=1e-9)
        scale = step.scale[..., step.mask].numpy()
        probability = norm.cdf((0.5 - abs(residual)) / scale) - norm.cdf((-0.5 - abs(residual)) / scale)
        nonlocal expected
        expected = expected + np.log(probability).reshape(2, -1).sum(1)
        return values

    prior.walk(point[0], decode)
    np.testing.assert_allclose(prior.log_prior(point).numpy(), expected, rtol=1e-8)


@every_prior
def test_samples_are_standard_within_every_step_and_independent_of_the_step_before(name: str) -> None:
    prior = prior_of(name)
    like = tuple(latent.expand(150, *latent.shape[1:]) for latent in latents_of(prior))
    latents = prior.sample(like, generator(3))
    residuals = []
    for step in steps_of(prior, latents):
        difference = (latents[1][:, step.channels] - step.mean)[..., step.mask]
        # a Gaussian plus a unit box
        residuals.append((difference / (step.scale[..., step.mask].square() + 1 / 12).sqrt()).flatten())
    for residual in residuals:
        number = residual.numel()
        assert number > 7000
        assert abs(float(residual.mean())) < 5 / number**0.5
        assert float(residual.square().mean()) == pytest.approx(1, abs=5 * (2 / number) ** 0.5)
    for earlier, later in pairwise(residuals):
        number = min(earlier.numel(), later.numel())
        assert abs(float((earlier[:number] * later[:number]).mean())) < 5 / number**0.5
    assert latents[1].var(dim=0).min() > 1 / 12


@pytest.mark.parametrize("name", ["charm", "elic"])
def test_context_is_worth_bits_to_its_own_samples(name: str) -> None:
    prior = prior_of(name)
    like = tuple(latent.expand(40, *latent.shape[1:]) for latent in latents_of(prior))
    z, y = prior.sample(like, generator(4))
    first = next(iter(steps_of(prior, (z, y)))).channels
    other = torch.cat([y.roll(1, 0)[:, first], y[:, first.stop :]], 1)  # the first channels of another sample
    scored = torch.stack([prior.log_prior((z, each)) for each in (y, other)])
    # The first channels alone are as likely as before on average; only what they tell of the rest is lost.
    alone = torch.stack([steps_of(prior, (z, each))[0].log_density(each[:, first]) for each in (y, other)])
    assert float(((scored - alone)[0] - (scored - alone)[1]).mean()) > 0.1


# ---------------------------------------------------------------- the synthesis behind a walk


def test_corrections_stay_within_half_a_step_and_are_no_part_of_the_latents() -> None:
    prior = prior_of("charm")
    latents = latents_of(prior)
    seen = prior.for_synthesis(latents)
    correction = seen - latents[1]
    assert 0 < float(correction.abs().max()) < 0.5
    assert correction.unique().numel() == correction.numel()
    assert torch.equal(prior.walk(latents[0], lambda step: latents[1][:, step.channels])[0][1], latents[1])


@first_jvp_warns
@pytest.mark.parametrize("prior", ["charm", "elic", "scale"])
def test_forward_derivatives_through_decoding_equal_finite_differences(prior: str) -> None:
    codec = tiny_codec(prior=prior).double().requires_grad_(False)
    latents = codec.infer(random_images(1, 3, 64, 64).double())
    tangents = tuple(torch.randn(v.shape, generator=generator(5), dtype=v.dtype) for v in latents)
    with forward_ad.dual_level():
        duals = tuple(map(forward_ad.make_dual, latents, tangents))
        decoded = forward_ad.unpack_dual(codec.decode(duals)).tangent
        log_prior = forward_ad.unpack_dual(codec.log_prior(duals)).tangent
    step = 1e-6
    ends = [tuple(v + sign * step * t for v, t in zip(latents, tangents, strict=True)) for sign in (1, -1)]
    for found, function in ((decoded, codec.decode), (log_prior, codec.log_prior)):
        assert found is not None
        expected = (function(ends[0]) - function(ends[1])) / (2 * step)
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (65, 130)])
@pytest.mark.parametrize("prior", ["scale", "charm", "elic"])
def test_any_size_goes_through_every_prior(prior: str, size: tuple[int, int]) -> None:
    codec, images = tiny_codec(prior=prior).requires_grad_(False), random_images(2, 3, *size)
    latents = codec.quantize(codec.infer(images))
    assert latents[1].shape[-2:] == tuple(4 * n for n in latents[0].shape[-2:])
    assert reconstruct(codec, latents, size).shape == images.shape
    assert codec.log_prior(latents).isfinite().all()
    sampled = codec.sample_prior(latents, generator())
    assert [v.shape for v in sampled] == [v.shape for v in latents]


# ---------------------------------------------------------------- training


def narrowed(recipe: Recipe) -> Recipe:
    """The recipe with a quarter of its channels, or fewer."""
    content = recipe.model_dump()
    content["latent_channels"] = 24
    for part in ("analysis", "synthesis", "prior"):
        content[part] |= {key: content[part][key] // 4 for key in ("filters", "width") if key in content[part]}
    if recipe.prior.kind == "charm":
        content["prior"] |= {"hyper_widths": (16, 16, 16), "widths": (8, 8)}
    if recipe.prior.kind == "elic":
        content["prior"] |= {"groups": (2, 2, 4, 16), "context_widths": (8, 8), "aggregation_widths": (16, 16)}
    return Recipe.model_validate(content)


def built(recipe: Recipe) -> NTCCodec:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_codec(recipe)


def objective(codec: NTCCodec, images: Tensor, lmbda: float) -> Tensor:
    """Rate in bpp + lmbda MSE on the 0..255 scale, quantization imitated with the same noise each time."""
    rate_nats, sse = codec(images, generator(1))
    num_pixels = images.shape[0] * images.shape[2] * images.shape[3]
    return rate_nats.sum() / (math.log(2) * num_pixels) + lmbda * sse.sum() / (3 * num_pixels)


@pytest.mark.parametrize("name", LITE)
def test_a_small_recipe_starts_well_and_learns_one_batch(name: str) -> None:
    recipe, images, lmbda = narrowed(shipped_recipe(name)), smooth_images(32), 0.01
    codec, batch, plan = built(recipe), images[:2], recipe.training
    random = objective(codec, batch, lmbda).item()
    initialize_principal(codec, images, lmbda, {"analysis", "synthesis", "prior"})
    start = objective(codec, batch, lmbda).item()
    assert start < 0.5 * random
    groups = parameter_groups(plan, codec)
    optimizer = torch.optim.Adam(groups)
    for step in range(30):
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * learning_rate_factor(plan, step, 30) * group["scale"]
        optimizer.zero_grad()
        objective(codec, batch, lmbda).backward()
        torch.nn.utils.clip_grad_norm_(codec.parameters(), plan.gradient_clip)
        optimizer.step()
    with torch.no_grad():
        rounded = cost(codec, codec.quantize(codec.infer(batch)), batch, lmbda)
    assert objective(codec, batch, lmbda).item() < 0.9 * start
    assert float((rounded.rate_bpp + lmbda * rounded.mse).mean()) < start
