"""Decoded curves: closed forms, finite differences and identities."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rdgap import zoo
from rdgap.curvature import (
    curve_length,
    decoded_curve,
    image_decoder,
    jacobian_vector,
    lengths_along,
    line,
)
from rdgap.curvature.quadrature import RULES, nodes_and_weights
from rdgap.model import from_modules
from rdgap.recipes import build_codec, build_synthesis

FLOAT32_UNITS = 16 * torch.finfo(torch.float32).eps  # the rounding that an error estimate grants


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image_pair(height: int, width: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    first, last = torch.rand(2, 1, 3, height, width, generator=seeded(seed), dtype=torch.float64)
    return first, last


def scalar(number: float) -> tuple[Tensor]:
    return (torch.full((1, 1), number, dtype=torch.float64),)


# Decoders of one latent whose curves have closed forms.


def circle(latents):
    (angle,) = latents
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def helix(latents):
    (angle,) = latents
    return torch.cat([2 * angle.cos(), 2 * angle.sin(), 0.5 * angle], dim=1)


def parabola(latents):
    (x,) = latents
    return torch.cat([x, x.square()], dim=1)


def parabola_length(x: float) -> float:
    """Arc length from the vertex to x."""
    slope = math.hypot(1, 2 * x)
    return x * slope / 2 + math.asinh(2 * x) / 4


class InverseGDN(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter(0.1 * torch.eye(channels) + 0.01)

    def forward(self, x: Tensor) -> Tensor:
        return x * nn.functional.conv2d(x.abs(), self.gamma[:, :, None, None], self.beta)


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
        self.mask = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.trunk(x) * torch.sigmoid(self.mask(x))


def up(channels_in: int, channels_out: int, kernel: int, stride: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(
        channels_in, channels_out, kernel, stride, padding=(kernel - 1) // 2, output_padding=stride - kernel % 2
    )


SYNTHESES = {
    "one layer": lambda: up(6, 3, 5, 2),
    "GDN": lambda: nn.Sequential(up(6, 5, 5, 4), InverseGDN(5), up(5, 3, 5, 2)),
    "leaky ReLU": lambda: nn.Sequential(up(6, 5, 5, 2), nn.LeakyReLU(), nn.Conv2d(5, 3, 3, padding=1)),
    "attention": lambda: nn.Sequential(
        up(6, 5, 5, 2), Attention(5), nn.Conv2d(5, 12, 3, padding=1), nn.PixelShuffle(2)
    ),
    "softplus, tanh": lambda: nn.Sequential(up(6, 5, 5, 2), nn.Softplus(), up(5, 3, 3, 2), nn.Tanh()),
}


def synthesis_module(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return SYNTHESES[name]()


def synthesis(name: str, dtype: torch.dtype = torch.float64, pairs: int = 1):
    """Return a decoder of 6 channels with random weights, and pairs of latents of size 3 x 2."""
    module = synthesis_module(name).to(dtype)
    z0, z1 = torch.randn(2, pairs, 6, 3, 2, generator=seeded(4), dtype=torch.float64).to(dtype)
    return (lambda latents: module(latents[0])), (z0,), (z1,)


# Lengths.


@pytest.mark.parametrize("angle", [0.01, 1.0, 3.0, 6.0])
def test_circle_has_the_eta_of_arc_over_chord(angle):
    result = curve_length(circle, scalar(0.3), scalar(0.3 + angle))
    assert result.length == pytest.approx(angle, rel=1e-12)
    assert result.eta == pytest.approx(angle / (2 * math.sin(angle / 2)), rel=1e-11)
    assert result.speed_variation < 1e-12
    assert result.polyline_length < result.length


@pytest.mark.parametrize("angle", [1.0, 3.0])
def test_largest_deviation_of_a_circle_is_its_sagitta(angle):
    result = curve_length(circle, scalar(0.0), scalar(angle), num_points=101)  # one sample at the middle
    assert result.max_deviation == pytest.approx(1 - math.cos(angle / 2), rel=1e-12)
    assert result.max_deviation_over_chord == pytest.approx(math.tan(angle / 4) / 2, rel=1e-12)


def test_helix_has_its_closed_form_length():
    result = curve_length(helix, scalar(-1.0), scalar(6.0))
    assert result.length == pytest.approx(7 * math.hypot(2, 0.5), rel=1e-12)
    assert result.chord == pytest.approx(math.hypot(4 * math.sin(3.5), 3.5), rel=1e-12)


@pytest.mark.parametrize("rule", ["midpoint", "left"])
def test_parabola_has_its_arc_length_within_the_stated_error(rule):
    result = curve_length(parabola, scalar(0.25), scalar(2.0), rule=rule)
    error = abs(result.length - (parabola_length(2.0) - parabola_length(0.25)))
    assert 0 < error < 1.01 * result.length_error < 20 * error
    speed = 1.75 * torch.sqrt(1 + 4 * (0.25 + 1.75 * result.ts) ** 2)
    torch.testing.assert_close(result.speed, speed[None])
    assert result.speed_variation == pytest.approx(np.std(speed.numpy()) / np.mean(speed.numpy()))


@pytest.mark.parametrize(("rule", "order"), [("midpoint", 2), ("left", 1)])
def test_rules_converge_at_their_order(rule, order):
    truth = parabola_length(2.0) - parabola_length(0.25)
    counts = np.array([10, 20, 40, 80, 160])
    lengths = [
        curve_length(parabola, scalar(0.25), scalar(2.0), num_points=int(count), rule=rule).length.item()
        for count in counts
    ]
    errors = np.abs(np.array(lengths) - truth)
    assert np.all(np.diff(errors) < 0)
    assert errors[-1] > 1e-9
    assert np.polyfit(np.log(1 / counts), np.log(errors), 1)[0] == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("num_points", [2, 5, 8, 16, 24])
def test_gauss_legendre_integrates_polynomials_exactly(num_points):
    nodes, weights = nodes_and_weights("gauss-legendre", num_points)
    assert (nodes.diff() > 0).all()
    for power in range(2 * min(num_points, 8)):
        assert nodes**power @ weights == pytest.approx(1 / (power + 1), rel=1e-13)


def test_eight_gauss_legendre_nodes_measure_a_smooth_curve_within_the_stated_error():
    result = curve_length(parabola, scalar(0.25), scalar(2.0), rule="gauss-legendre")
    assert len(result.ts) == 8
    error = abs(result.length.item() - (parabola_length(2.0) - parabola_length(0.25)))
    assert error < 1e-8
    assert error < result.length_error.item() < 1e-3
    assert result.eta > 1


def spiral(latents):
    (angle,) = latents
    return (0.3 * angle).exp() * torch.cat([angle.cos(), angle.sin()], dim=1)


def spiral_length(start: float, end: float) -> float:
    return math.hypot(1, 0.3) / 0.3 * (math.exp(0.3 * end) - math.exp(0.3 * start))


def test_cubics_converge_at_fourth_order_within_the_stated_error():
    counts = np.array([8, 16, 32, 64])
    results = [curve_length(spiral, scalar(0.2), scalar(3.0), num_points=int(n) + 1, rule="hermite") for n in counts]
    errors = np.array([abs(result.length.item() - spiral_length(0.2, 3.0)) for result in results])
    assert errors[-1] > 1e-11
    assert np.polyfit(np.log(1 / counts), np.log(errors), 1)[0] == pytest.approx(4, abs=0.1)
    for result, error in zip(results, errors, strict=True):
        assert error < result.length_error.item() < 30 * error


def test_cubics_are_exact_for_a_parabola():
    result = curve_length(parabola, scalar(0.25), scalar(2.0), rule="hermite", num_points=33)
    assert result.length.item() == pytest.approx(parabola_length(2.0) - parabola_length(0.25), rel=1e-12)


def test_a_jump_of_the_speed_on_a_straight_line_is_nothing_to_cubics():
    def decode(latents):
        return nn.functional.leaky_relu(latents[0], 0.7) * torch.tensor([[3.0, 4.0]], dtype=torch.float64)

    by_cubics, by_gauss = (
        curve_length(decode, scalar(-0.37), scalar(1.0), rule=rule) for rule in ("hermite", "gauss-legendre")
    )
    assert by_cubics.eta.item() == pytest.approx(1, abs=1e-13)
    assert abs(by_gauss.eta.item() - 1) > 1e-3
    assert by_gauss.eta.item() + by_gauss.eta_error.item() > 1


def test_any_curve_of_latents_has_a_length():
    def wave(ts):
        return (torch.stack([ts, torch.sin(3 * ts)], 1),)

    curves = [wave, line(*lifted(0.0, 1.0))]
    stretched = lengths_along(lambda latents: 2 * latents[0], curves, rule="gauss-legendre", num_points=64)
    fine = torch.linspace(0, 1, 200001, dtype=torch.float64)
    assert stretched.length[0] == pytest.approx(2 * wave(fine)[0].diff(dim=0).norm(dim=1).sum().item(), rel=1e-8)
    assert stretched.length[1] == pytest.approx(2, rel=1e-12)


def lifted(*numbers: float) -> list[tuple[Tensor]]:
    """Return latents (1, 2), the second coordinate 0."""
    return [(torch.tensor([[number, 0.0]], dtype=torch.float64),) for number in numbers]


def test_left_rule_is_the_papers_riemann_sum():
    result = curve_length(parabola, scalar(0.0), scalar(1.0), rule="left", num_points=100)
    by_hand = sum(math.hypot(1, 2 * i / 100) for i in range(100)) / 100
    assert result.length == pytest.approx(by_hand, rel=1e-12)


def test_default_is_a_hundred_midpoints():
    result = curve_length(parabola, scalar(0.0), scalar(1.0))
    assert result.rule == "midpoint"
    torch.testing.assert_close(result.ts, torch.arange(0.005, 1, 0.01, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_affine_decoder_has_eta_one_and_no_deviation(dtype):
    decode, start, end = synthesis("one layer", dtype)
    result = curve_length(decode, start, end)
    precision = 8 * torch.finfo(dtype).eps
    assert result.eta == pytest.approx(1, abs=precision)
    assert 0 < result.eta_error < 5 * FLOAT32_UNITS
    assert result.speed_variation < precision
    assert result.max_deviation_over_chord < precision


@pytest.mark.parametrize("rule", ["midpoint", "left"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SYNTHESES)
def test_length_is_at_least_polyline_and_chord_up_to_the_stated_error(name, dtype, rule):
    result = curve_length(*synthesis(name, dtype), num_points=20, rule=rule)
    assert result.length + result.length_error >= result.polyline_length
    assert result.eta + result.eta_error >= 1
    assert result.polyline_length >= result.chord * (1 - 1e-6)
    if name != "one layer":
        assert result.polyline_length > result.chord * 1.0001
        assert result.polyline_length < result.length + result.length_error


@pytest.mark.parametrize("name", SYNTHESES)
def test_length_is_what_a_very_fine_polyline_measures(name):
    decode, start, end = synthesis(name)
    points = decoded_curve(decode, line(start, end), torch.linspace(0, 1, 2001, dtype=torch.float64))
    polyline = float(points.flatten(1).diff(dim=0).norm(dim=1).sum())
    result = curve_length(decode, start, end, num_points=200)
    assert abs(result.length - polyline) < result.length_error + 1e-6 * polyline
    assert result.length_error < 0.003 * result.length


def test_every_latent_of_a_tuple_moves():
    def decode(latents):
        z, y = latents
        return torch.cat([z.flatten(1), 2 * y.flatten(1)], dim=1)

    start = (torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, 3, 1, dtype=torch.float64))
    end = (torch.ones(1, 2, dtype=torch.float64), torch.ones(1, 3, 1, dtype=torch.float64))
    assert curve_length(decode, start, end).length == pytest.approx(math.sqrt(2 + 12), rel=1e-12)


def test_a_latent_that_the_decoder_ignores_does_not_count():
    decode, start, end = synthesis("GDN")
    extra = torch.ones(1, 5, dtype=torch.float64)
    alone = curve_length(decode, start, end, num_points=10)
    both = curve_length(lambda zy: decode(zy[1:]), (extra, *start), (-extra, *end), num_points=10)
    assert both.length == pytest.approx(alone.length, rel=1e-12)


TENSORS = (
    *("length", "length_error", "chord", "polyline_length", "max_deviation", "speed"),
    *("mse_to_reconstructions", "mse_to_originals"),
)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("together", [1, 7, 40, 1000])
def test_batches_and_chunks_do_not_change_results(together, rule):
    """Three pairs: one point at a time, some of one pair, some whole pairs, everything."""
    num_points = 17 if rule == "hermite" else 16
    decode, start, end = synthesis("GDN", pairs=3)
    firsts, lasts = torch.rand(2, 3, 3, 24, 16, generator=seeded(5))
    options = {"num_points": num_points, "rule": rule, "values_at_once": together * 3 * 24 * 16}
    result = curve_length(decode, start, end, originals=(firsts, lasts), **options)
    for i in range(3):
        originals = (firsts[i : i + 1], lasts[i : i + 1])
        ends = (start[0][i : i + 1],), (end[0][i : i + 1],)
        alone = curve_length(decode, *ends, num_points=num_points, rule=rule, originals=originals)
        for field in TENSORS:
            torch.testing.assert_close(getattr(result, field)[i], getattr(alone, field)[0], rtol=1e-10, atol=1e-13)


def test_arguments_are_left_as_they_were():
    decode, start, end = synthesis("GDN")
    originals = image_pair(24, 16)
    ts = torch.linspace(0, 1, 5)
    before = [t.clone() for t in (*start, *end, *originals, ts)]
    curve_length(decode, start, end, num_points=4, originals=originals)
    decoded_curve(decode, line(start, end), ts)
    for tensor, kept in zip((*start, *end, *originals, ts), before, strict=True):
        assert torch.equal(tensor, kept)
        assert not tensor.requires_grad


def test_only_the_images_own_pixels_count():
    decode, start, end = synthesis("GDN")  # decodes to 24 x 16
    codec = from_modules(lambda x: x, lambda y: decode((y,)), lambda y: -y.square().sum())
    cropped = curve_length(image_decoder(codec, (17, 9)), start, end, num_points=10)
    by_hand = curve_length(lambda latents: decode(latents)[..., :17, :9], start, end, num_points=10)
    assert cropped.length == by_hand.length
    assert cropped.length < curve_length(decode, start, end, num_points=10).length


# Jacobian-vector products.


def deviation_from_finite_differences(module: nn.Module, latents: Tensor, direction: Tensor) -> list[float]:
    """Return the relative deviations in float32 and float64, the worst of the batch.

    The differences are taken in float64, where a step is short enough to meet no kink of a piecewise linear decoder.
    """
    step = 1e-6
    module = copy.deepcopy(module).double()
    deviations = []
    with torch.no_grad():
        difference = (module(latents + step * direction) - module(latents - step * direction)) / (2 * step)
        for dtype in (torch.float32, torch.float64):
            network = module.to(dtype)
            product = jacobian_vector(
                lambda z, g=network: g(z[0]),
                (latents.to(dtype),),
                (direction.to(dtype),),
                values_at_once=2 * difference[0].numel(),
            )
            assert product.dtype == dtype
            error = (product - difference).flatten(1).norm(dim=1) / difference.flatten(1).norm(dim=1)
            deviations.append(float(error.max()))
    return deviations


@pytest.mark.parametrize("name", SYNTHESES)
def test_jacobian_vector_is_the_finite_difference(name):
    latents = torch.randn(3, 6, 3, 2, generator=seeded(8)).double()
    direction = torch.randn(1, 6, 3, 2, generator=seeded(9)).double()
    in_float32, in_float64 = deviation_from_finite_differences(synthesis_module(name), latents, direction)
    assert in_float32 < 1e-3
    assert in_float64 < 1e-7


RECIPES = sorted(path.stem for path in zoo.model_directory().glob("*.toml"))


@pytest.mark.parametrize("name", RECIPES)
def test_jacobian_vector_is_the_finite_difference_on_every_architecture(name):
    recipe = zoo.shipped_recipe(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        module = build_synthesis(recipe).eval()
    latents = 2 * torch.randn(2, recipe.latent_channels, 1, 2, generator=seeded(8)).double()
    direction = torch.randn(1, recipe.latent_channels, 1, 2, generator=seeded(9)).double()
    in_float32, in_float64 = deviation_from_finite_differences(module, latents, direction)
    assert in_float32 < 1e-3
    assert in_float64 < 1e-7


@pytest.mark.parametrize("name", ["jpeg-like", "jpeg-like-lite"])
def test_jpeg_like_codec_is_straight_on_images(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        codec = build_codec(zoo.shipped_recipe(name)).eval()
    x0, x1 = torch.rand(2, 1, 3, 41, 23, generator=seeded(6))
    with torch.no_grad():
        start, end = codec.infer(x0), codec.infer(x1)
    result = curve_length(image_decoder(codec, (41, 23)), start, end, num_points=10)
    assert result.eta == pytest.approx(1, abs=1e-5)


def test_jacobian_vector_is_the_dense_jacobian_times_the_vector():
    decode, start, end = synthesis("attention")
    dense = torch.func.jacrev(lambda z: decode((z,)))(start[0]).reshape(-1, start[0].numel())
    product = jacobian_vector(decode, start, end)
    torch.testing.assert_close(product.flatten(), dense @ end[0].flatten())


class CountedConvolutions(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += func is torch.ops.aten.convolution.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["two-layer-lite", "mean-scale-lite", "charm-lite"])
def test_a_product_convolves_twice_as_often_as_a_decode(name):
    codec = build_codec(zoo.shipped_recipe(name)).eval()
    latents = codec.infer(torch.rand(1, 3, 64, 64, generator=seeded(0)))
    with torch.no_grad(), CountedConvolutions() as plain:
        codec.decode(latents)
    with CountedConvolutions() as forward_mode:
        jacobian_vector(codec.decode, latents, latents)
    assert plain.number > 0
    assert forward_mode.number <= 2 * plain.number


def test_kernels_that_move_are_differentiated_too():
    kernel, image = torch.randn(2, 1, 1, 3, 3, generator=seeded(0)).double().unbind(0)
    product = jacobian_vector(
        lambda latents: nn.functional.conv2d(latents[0], latents[1], bias=latents[1].sum((1, 2, 3))),
        (image, kernel),
        (torch.ones_like(image), torch.ones_like(kernel)),
    )
    expected = kernel.sum() + image.sum() + 9
    torch.testing.assert_close(product.flatten(), expected[None])


def test_each_member_of_a_batch_may_have_its_own_direction():
    decode, start, end = synthesis("GDN")
    both = jacobian_vector(decode, (torch.cat([start[0], end[0]]),), (torch.cat([end[0], start[0]]),))
    torch.testing.assert_close(both[:1], jacobian_vector(decode, start, end))
    torch.testing.assert_close(both[1:], jacobian_vector(decode, end, start))


class OldStyleLowerBound(torch.autograd.Function):
    """Without `setup_context`, as published codecs bound their parameters."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp_min(0.5)

    @staticmethod
    def backward(ctx, *grad_outputs):
        return grad_outputs[0]


def test_custom_functions_of_the_parameters_are_no_obstacle():
    weight = torch.linspace(0, 1, 4, dtype=torch.float64).requires_grad_()
    product = jacobian_vector(
        lambda latents: latents[0].square() * OldStyleLowerBound.apply(weight),
        (torch.ones(2, 4, dtype=torch.float64),),
        (torch.ones(1, 4, dtype=torch.float64),),
    )
    torch.testing.assert_close(product, (2 * weight.detach().clamp_min(0.5)).expand(2, 4))
    assert not product.requires_grad


# Distances to straight paths.


def affine_distances():
    decode, start, end = synthesis("one layer")
    originals = image_pair(6, 4)
    result = curve_length(decode, start, end, num_points=20, rule="left", originals=originals)
    return decode, start, end, originals, result


def test_affine_decoder_keeps_to_the_line_between_reconstructions():
    *_, result = affine_distances()
    assert float(result.mse_to_reconstructions.max()) < 1e-20


def test_affine_decoder_has_a_quadratic_distance_to_the_originals():
    decode, start, end, (x0, x1), result = affine_distances()
    e0, e1 = (255 * (decode(z).detach() - x) for z, x in ((start, x0), (end, x1)))
    ts = result.ts
    expected = (1 - ts) ** 2 * e0.square().mean() + 2 * ts * (1 - ts) * (e0 * e1).mean() + ts**2 * e1.square().mean()
    torch.testing.assert_close(result.mse_to_originals, expected[None])


def test_circle_has_its_closed_form_distance_to_the_chord():
    ends = (circle(scalar(0.0)), circle(scalar(2.0)))
    result = curve_length(circle, scalar(0.0), scalar(2.0), num_points=11, originals=ends)
    ts = result.ts
    x = (2 * ts).cos() - (1 - ts) - ts * math.cos(2)
    y = (2 * ts).sin() - ts * math.sin(2)
    torch.testing.assert_close(result.mse_to_reconstructions, 255**2 * (x**2 + y**2)[None] / 2)
    torch.testing.assert_close(result.mse_to_originals, result.mse_to_reconstructions)
    assert curve_length(circle, scalar(0.0), scalar(2.0)).mse_to_originals is None


def test_curve_starts_and_ends_at_the_reconstructions():
    decode, start, end = synthesis("GDN")
    ends = decoded_curve(decode, line(start, end), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(ends, torch.cat([decode(start), decode(end)]).detach(), rtol=1e-12, atol=1e-12)


# Bad arguments.


def test_ends_that_decode_alike_are_refused():
    with pytest.raises(ValueError, match="a line of length zero has no eta; got equal ones for pair 0"):
        curve_length(circle, scalar(0.5), scalar(0.5))
    with pytest.raises(ValueError, match="eta divides by their distance"):
        curve_length(circle, scalar(0.0), scalar(2 * math.pi))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_points": 1}, "`num_points` must be at least 2, got 1"),
        ({"rule": "right"}, "`rule` must be .* got 'right'"),
        ({"rule": "gauss-legendre", "num_points": 12}, "at most 8 or a multiple of 8, got 12"),
        ({"rule": "hermite", "num_points": 8}, "must be odd, both ends included, got 8"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        curve_length(circle, scalar(0.0), scalar(1.0), **options)


@pytest.mark.parametrize("end", [(), (torch.ones(1, 2),), (torch.ones(1, 1), torch.ones(1, 1)), (torch.ones(2, 1),)])
def test_ends_of_other_shapes_are_refused(end):
    with pytest.raises(ValueError, match="equal shapes"):
        curve_length(circle, (torch.zeros(1, 1),), end)


def test_directions_and_originals_of_other_shapes_are_refused():
    decode, start, end, originals, _ = affine_distances()
    with pytest.raises(ValueError, match="`direction` must have the shapes of `latents`"):
        jacobian_vector(decode, start, (torch.ones(1, 6, 2, 2),))
    with pytest.raises(ValueError, match="`originals` must have the shape"):
        curve_length(decode, start, end, originals=(originals[0], originals[1][..., :3]))


@pytest.mark.parametrize("decode", [lambda latents: 1 / latents[0], lambda latents: latents[0].abs().sqrt()])
def test_values_that_are_not_finite_are_errors(decode):
    with pytest.raises(RuntimeError, match="not finite"):  # 1/0 itself; the slope of the square root at 0
        curve_length(decode, scalar(-1.0), scalar(3.0), num_points=4, rule="left")
