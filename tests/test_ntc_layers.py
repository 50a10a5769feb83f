"""Layers and transforms of `rdgap.ntc` against loops, explicit formulas and finite differences."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

from rdgap.ntc import transforms
from rdgap.ntc.deployment import FixedUpsampling, deployed
from rdgap.ntc.layers import (
    GDN,
    Attention,
    CheckerboardConv2d,
    ResidualBottleneck,
    Upsampling,
    as_convolution,
    down,
    lower_bound,
    up,
)
from tests._recipes import first_jvp_warns, shaken


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gdn(channels: int = 3, *, inverse: bool = False) -> GDN:
    layer = GDN(channels, inverse=inverse).double()
    shaken(layer, strength=0.2)
    return layer


def gdn_by_loops(x: Tensor, beta: Tensor, gamma: Tensor, *, inverse: bool) -> Tensor:
    result = torch.empty_like(x)
    for n, i, row, column in torch.cartesian_prod(*map(torch.arange, x.shape)).tolist():
        norm = float(beta[i])
        for j in range(x.shape[1]):
            norm += float(gamma[i, j]) * abs(float(x[n, j, row, column]))
        value = float(x[n, i, row, column])
        result[n, i, row, column] = value * norm if inverse else value / norm
    return result


# ---------------------------------------------------------------- convolutions


@pytest.mark.parametrize(("kernel", "stride"), [(9, 4), (5, 2), (5, 1), (3, 1), (1, 1)])
def test_down_divides_the_size_by_its_stride(kernel: int, stride: int) -> None:
    assert down(2, 3, kernel, stride)(torch.zeros(1, 2, 3 * stride, 4 * stride)).shape == (1, 3, 3, 4)


@pytest.mark.parametrize(("kernel", "stride"), [(9, 4), (5, 2), (18, 16), (13, 8), (16, 16), (6, 4), (3, 3), (4, 2)])
def test_up_multiplies_the_size_by_its_stride(kernel: int, stride: int) -> None:
    assert up(2, 3, kernel, stride)(torch.zeros(1, 2, 1, 4)).shape == (1, 3, stride, 4 * stride)


@pytest.mark.parametrize(("kernel", "stride", "overhang"), [(16, 16, 0), (18, 16, 1), (5, 2, 2), (13, 8, 3)])
def test_up_puts_each_latent_on_its_own_block(kernel: int, stride: int, overhang: int) -> None:
    layer = up(1, 1, kernel, stride, bias=False)
    nn.init.ones_(layer.weight)
    latent = torch.zeros(1, 1, 1, 9)
    latent[..., 4] = 1
    reached = layer(latent)[0, 0].any(dim=0).nonzero().flatten()
    assert reached.tolist() == list(range(4 * stride - overhang, 4 * stride - overhang + kernel))


def test_up_refuses_a_kernel_with_gaps() -> None:
    with pytest.raises(ValueError, match="must cover its stride, got 3 for 4"):
        up(1, 1, 3, 4)


GEOMETRIES = [(5, 2), (13, 8), (18, 16), (16, 16), (9, 4), (6, 4), (3, 3), (4, 2), (7, 3), (3, 2), (5, 1)]


def plainly(layer: Upsampling, x: Tensor) -> Tensor:
    """What torch makes of a transposed convolution."""
    return functional.conv_transpose2d(x, layer.weight, layer.bias, layer.stride, layer.padding, layer.output_padding)


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (5, 2)], ids=str)
@pytest.mark.parametrize("outputs", [3, 6])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "stride"), GEOMETRIES)
def test_up_is_a_transposed_convolution(
    kernel: int, stride: int, bias: bool, outputs: int, size: tuple[int, int]
) -> None:
    layer, x = up(4, outputs, kernel, stride, bias=bias).double(), normal(2, 4, *size)
    torch.testing.assert_close(layer(x), plainly(layer, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "padding", "stride", "surplus"),
    [
        (size, padding, stride, stride + 2 * padding - size)
        for size, padding, stride in product(range(1, 10), range(6), range(1, 5))
        if 0 <= stride + 2 * padding - size < stride  # so that height and width are multiplied by the stride
    ],
)
def test_interleaved_convolutions_are_a_transposed_one(size: int, padding: int, stride: int, surplus: int) -> None:
    x, weight = normal(2, 3, 4, 5), normal(3, 2, size, size, seed=1)
    kernel, before, after = as_convolution(weight, stride, padding)
    interleaved = functional.pixel_shuffle(functional.conv2d(functional.pad(x, (before, after) * 2), kernel), stride)
    expected = functional.conv_transpose2d(x, weight, None, stride, padding, surplus)
    torch.testing.assert_close(interleaved, expected, rtol=1e-12, atol=1e-12)


@first_jvp_warns
@pytest.mark.parametrize(("kernel", "stride"), [(5, 2), (6, 4)])
def test_derivatives_of_up_are_those_of_a_transposed_convolution(kernel: int, stride: int) -> None:
    layer, x, tangent = up(2, 3, kernel, stride).double(), normal(1, 2, 2, 3), normal(1, 2, 2, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x.requires_grad_(), *layer.parameters()))
    slope = torch.func.jvp(layer, (x.detach(),), (tangent,))[1]
    expected = torch.func.jvp(lambda x: plainly(layer, x), (x.detach(),), (tangent,))[1]
    torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (2, 4), (3, 4), (5, 7)], ids=str)
@pytest.mark.parametrize(("kernel", "stride"), [pair for pair in GEOMETRIES if pair[0] <= 2 * pair[1]])
def test_fewer_multiplications_give_the_same(kernel: int, stride: int, size: tuple[int, int]) -> None:
    layers = [up(4, 5, kernel, stride), up(4, 2, kernel, stride, bias=False)]
    x = normal(2, 4, *size, dtype=torch.float32)
    expected = torch.cat([plainly(layer, x) for layer in layers], 1)
    torch.testing.assert_close(FixedUpsampling(layers)(x), expected, rtol=1e-5, atol=2e-6)


def test_what_cannot_be_joined_is_refused() -> None:
    with pytest.raises(ValueError, match="must not overlap more than twice, got 5 for a stride of 2"):
        FixedUpsampling([up(2, 3, 5, 2)])
    with pytest.raises(ValueError, match="kernels and strides alike"):
        FixedUpsampling([up(2, 3, 4, 2), up(2, 3, 3, 2)])


@pytest.mark.parametrize("activation", ["gdn", "leaky-relu"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("kernels", [(13, 5), (18, 5)])
def test_a_deployed_synthesis_is_the_synthesis(
    kernels: tuple[int, int], residual: bool, activation: transforms.Activation
) -> None:
    synthesis = transforms.TwoLayerSynthesis(4, 6, kernels, (8, 2), residual=residual, activation=activation)
    shaken(synthesis, strength=0.1)
    y = normal(2, 4, 3, 6, dtype=torch.float32)
    fast = deployed(synthesis)
    assert (fast is synthesis) == (kernels == (18, 5))
    with torch.no_grad():
        torch.testing.assert_close(fast(y), synthesis(y), rtol=1e-5, atol=1e-5)


def test_other_syntheses_are_deployed_as_they_are() -> None:
    for synthesis in (transforms.jpeg_like_synthesis(4, 18, 16), transforms.minnen2018_synthesis(4, 6)):
        assert deployed(synthesis) is synthesis


# ---------------------------------------------------------------- lower bound


def test_lower_bound_passes_the_gradient_inside_and_inwards_only() -> None:
    x = torch.tensor([2.0, 2.0, -1.0, -1.0, 0.0, 0.0], requires_grad=True)
    slopes = torch.tensor([3.0, -3.0, 3.0, -3.0, 3.0, -3.0])
    bounded = lower_bound(x, 0.0)
    assert bounded.tolist() == [2, 2, 0, 0, 0, 0]
    (slopes * bounded).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3, -3, 0, -3, 3, -3]  # descent on a slope of -3 raises x: inwards


def test_lower_bound_has_the_derivatives_of_a_clamp_above_the_bound() -> None:
    x = torch.tensor([0.3, 1.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: lower_bound(x, 0.2).square(), x)
    assert torch.autograd.gradgradcheck(lambda x: lower_bound(x, 0.2).pow(3), x)


@first_jvp_warns
def test_lower_bound_has_the_forward_derivative_of_a_clamp() -> None:
    x, tangent = torch.tensor([-1.0, 0.5]), torch.tensor([7.0, 5.0])
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(lower_bound(forward_ad.make_dual(x, tangent), 0.0))
    assert dual.primal.tolist() == [0, 0.5]
    assert dual.tangent is not None
    assert dual.tangent.tolist() == [0, 5]
    pair = torch.func.jvp(lambda x: lower_bound(x, 0.0), (x,), (tangent,))
    assert [each.tolist() for each in pair] == [[0, 0.5], [0, 5]]


# ---------------------------------------------------------------- GDN


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_equals_loops_over_pixels(inverse: bool) -> None:
    layer, x = gdn(inverse=inverse), normal(2, 3, 4, 5)
    expected = gdn_by_loops(x, layer.beta.detach(), layer.gamma.detach(), inverse=inverse)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_starts_at_beta_one_and_a_tenth_of_the_identity(inverse: bool) -> None:
    layer, x = GDN(3, inverse=inverse), normal(1, 3, 2, 2, dtype=torch.float32)
    norm = 1 + 0.1 * x.abs()
    torch.testing.assert_close(layer(x), x * norm if inverse else x / norm, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("inverse", [False, True])
def test_gradients_of_gdn_equal_finite_differences(inverse: bool) -> None:
    layer, x = gdn(inverse=inverse), normal(1, 3, 2, 2).requires_grad_(True)
    with torch.no_grad():  # at the bound the gradient is one-sided by design
        layer.gamma_root.abs_().add_(0.01)
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x, *layer.parameters()))


def test_beta_and_gamma_stay_positive_and_come_back() -> None:
    layer = GDN(2)
    with torch.no_grad():
        layer.beta_root.fill_(-3.0)
        layer.gamma_root.fill_(-3.0)
    assert layer.beta.min() > 0.9e-6
    assert layer.gamma.min() >= 0
    (-layer.beta.sum() - layer.gamma.sum()).backward()  # both should rise
    assert layer.beta_root.grad is not None
    assert layer.gamma_root.grad is not None
    assert layer.beta_root.grad.max() < 0
    assert layer.gamma_root.grad.max() < 0


# ---------------------------------------------------------------- transforms


@pytest.mark.parametrize(
    ("transform", "channels"),
    [
        (transforms.balle2017_analysis(4, 6), 6),
        (transforms.minnen2018_analysis(4, 6), 6),
        (transforms.cnn_analysis(4, 6), 6),
        (transforms.elic_analysis(4, 6), 6),
    ],
    ids=["balle2017", "minnen2018", "cnn", "elic"],
)
def test_analyses_divide_by_sixteen(transform: transforms.Transform, channels: int) -> None:
    assert transform.factor == 16
    assert transform(torch.rand(2, 3, 32, 48)).shape == (2, channels, 2, 3)


@pytest.mark.parametrize(
    "synthesis",
    [
        transforms.balle2017_synthesis(4, 6),
        transforms.minnen2018_synthesis(4, 6),
        transforms.elic_synthesis(4, 6),
        transforms.jpeg_like_synthesis(6, 18, 16),
        transforms.TwoLayerSynthesis(6, 3, (13, 5), (8, 2), residual=True),
        transforms.TwoLayerSynthesis(6, 3, (13, 5), (8, 2), residual=False),
        transforms.TwoLayerSynthesis(6, 3, (5, 8), (2, 8), residual=True),
    ],
    ids=["balle2017", "minnen2018", "elic", "jpeg-like", "two-layer", "no-residual", "other-strides"],
)
def test_syntheses_multiply_by_sixteen(synthesis: transforms.Transform) -> None:
    assert synthesis.factor == 16
    assert synthesis(torch.rand(2, 6, 2, 3)).shape == (2, 3, 32, 48)


def test_hyper_transforms_divide_and_multiply_by_four_and_return_means_and_scales() -> None:
    z = transforms.hyper_analysis(6, (5, 5, 5))(torch.rand(2, 6, 8, 12))
    assert z.shape == (2, 5, 2, 3)
    assert transforms.hyper_synthesis((5, 5, 7, 12))(z).shape == (2, 12, 8, 12)


@pytest.mark.parametrize("residual", [False, True])
def test_two_layer_synthesis_is_its_formula(residual: bool) -> None:
    synthesis = transforms.TwoLayerSynthesis(4, 3, (13, 5), (8, 2), residual=residual).double()
    shaken(synthesis, strength=0.1)
    y = normal(2, 4, 2, 3)

    def transposed(x: Tensor, layer: nn.ConvTranspose2d, stride: int, skip: int) -> Tensor:
        """Without padding, then cut to the block that begins `skip` into the result."""
        full = functional.pad(functional.conv_transpose2d(x, layer.weight, layer.bias, stride), (0, stride, 0, stride))
        height, width = x.shape[-2] * stride, x.shape[-1] * stride
        return full[..., skip : skip + height, skip : skip + width]

    first = transposed(y, synthesis.conv1, 8, 3)
    hidden = first * (synthesis.activation.beta[:, None, None] + _mixed(synthesis.activation.gamma, first.abs()))
    if residual:
        assert synthesis.conv_res is not None
        hidden = hidden + transposed(y, synthesis.conv_res, 8, 3)
    expected = transposed(hidden, synthesis.conv2, 2, 2)
    torch.testing.assert_close(synthesis(y), expected, rtol=1e-10, atol=1e-10)
    assert (synthesis.conv_res is not None) == residual


def _mixed(gamma: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("ij,njhw->nihw", gamma, x)


def test_the_jpeg_like_synthesis_is_affine() -> None:
    synthesis = transforms.jpeg_like_synthesis(4, 18, 16).double()
    a, b = normal(1, 4, 2, 2), normal(1, 4, 2, 2, seed=1)
    torch.testing.assert_close(synthesis(0.3 * a + 0.7 * b), 0.3 * synthesis(a) + 0.7 * synthesis(b))


def test_convolutional_transforms_end_without_an_activation() -> None:
    def kinds(transform: nn.Sequential) -> list[str]:
        return [type(layer).__name__ for layer in transform]

    assert kinds(transforms.balle2017_analysis(4, 6)) == ["Conv2d", "GDN"] * 2 + ["Conv2d"]
    assert kinds(transforms.minnen2018_analysis(4, 6)) == ["Conv2d", "GDN"] * 3 + ["Conv2d"]
    assert kinds(transforms.cnn_analysis(4, 6)) == ["Conv2d", "LeakyReLU"] * 3 + ["Conv2d"]
    assert kinds(transforms.balle2017_synthesis(4, 6)) == ["Upsampling", "GDN"] * 2 + ["Upsampling"]
    assert kinds(transforms.minnen2018_synthesis(4, 6)) == ["Upsampling", "GDN"] * 3 + ["Upsampling"]


def test_syntheses_multiply_where_analyses_divide_and_the_cnn_leaks_a_fifth() -> None:
    layers = [*transforms.minnen2018_analysis(4, 6), *transforms.minnen2018_synthesis(4, 6)]
    assert [layer.inverse for layer in layers if isinstance(layer, GDN)] == [False] * 3 + [True] * 3
    slopes = [layer.negative_slope for layer in transforms.cnn_analysis(4, 6) if isinstance(layer, nn.LeakyReLU)]
    assert slopes == [0.2] * 3


def test_elic_analysis_has_the_published_layers() -> None:
    analysis = transforms.elic_analysis(192, 320)
    kinds = {nn.Conv2d: "conv", ResidualBottleneck: "RB", Attention: "attention"}
    stages = ["conv RB RB RB", "conv RB RB RB attention", "conv RB RB RB", "conv attention"]
    assert [kinds[type(layer)] for layer in analysis] == " ".join(stages).split()
    blocks = [layer for layer in analysis.modules() if isinstance(layer, ResidualBottleneck)]
    assert len(blocks) == 9 + 2 * 6
    convolutions = [layer for layer in analysis.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 4 + 3 * len(blocks) + 2
    assert [c.out_channels for c in convolutions if c.stride == (2, 2)] == [192, 192, 192, 320]


def test_elic_synthesis_has_the_published_layers() -> None:
    synthesis = transforms.elic_synthesis(32, 320)
    kinds = {Upsampling: "up", ResidualBottleneck: "RB", Attention: "attention"}
    stages = ["attention up RB RB RB", "up attention RB RB RB", "up RB RB RB", "up"]
    assert [kinds[type(layer)] for layer in synthesis] == " ".join(stages).split()
    ups = [layer for layer in synthesis if isinstance(layer, Upsampling)]
    assert [(layer.in_channels, layer.out_channels) for layer in ups] == [(320, 32), (32, 32), (32, 32), (32, 3)]


def test_a_checkerboard_convolution_sees_the_other_color_only() -> None:
    layer = CheckerboardConv2d(1, 1, 5).double()
    nn.init.ones_(layer.weight)
    x = torch.zeros(1, 1, 9, 9, dtype=torch.double)
    x[..., 4, 4] = 1
    reached = (layer(x) - layer(0 * x))[0, 0].detach()
    for row, column in torch.cartesian_prod(torch.arange(9), torch.arange(9)).tolist():
        down, across = abs(row - 4), abs(column - 4)
        assert float(reached[row, column]) == float(down <= 2 and across <= 2 and (down + across) % 2 == 1)


def test_the_jpeg_like_hyper_synthesis_is_one_affine_layer_of_stride_four() -> None:
    (layer,) = transform = transforms.jpeg_like_hyper_synthesis(5, 12)
    assert isinstance(layer, nn.ConvTranspose2d)
    assert (transform.factor, layer.kernel_size, layer.stride) == (4, (6, 6), (4, 4))
    assert transform(torch.rand(2, 5, 2, 3)).shape == (2, 12, 8, 12)


def test_a_bottleneck_is_its_branch_and_the_skip() -> None:
    block, x = ResidualBottleneck(4).double(), normal(1, 4, 5, 6)
    first, second, third = (layer for layer in block.branch if isinstance(layer, nn.Conv2d))
    assert [c.kernel_size for c in (first, second, third)] == [(1, 1), (3, 3), (1, 1)]
    assert [c.out_channels for c in (first, second, third)] == [2, 2, 4]
    torch.testing.assert_close(block(x), x + third(second(first(x).clamp(min=0)).clamp(min=0)))


def test_attention_weighs_its_trunk_between_zero_and_one() -> None:
    attention, x = Attention(4).double(), normal(1, 4, 5, 6)
    gate = attention.mask[-1]
    assert isinstance(gate, nn.Conv2d)
    assert gate.bias is not None
    nn.init.zeros_(gate.weight)
    nn.init.constant_(gate.bias, 0.7)
    torch.testing.assert_close(attention(x), x + attention.trunk(x) / (1 + torch.exp(torch.tensor(-0.7))))
