"""Syntheses with fixed weights, made faster for a decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .layers import GDN, Upsampling
from .transforms import TwoLayerSynthesis


def deployed(synthesis: nn.Module) -> nn.Module:
    """Return a synthesis whose output is that of `synthesis` up to rounding, and which is faster where that is known.

    That is two-layer syntheses on a CPU; any other is returned as it is. There are no gradients, and later changes of
    the weights may not be seen.
    """
    if (
        isinstance(synthesis, TwoLayerSynthesis)
        and synthesis.conv1.kernel_size[0] <= 2 * synthesis.conv1.stride[0]
        and synthesis.conv1.weight.device.type == "cpu"
    ):
        return _DeployedTwoLayers(synthesis)
    return synthesis


class _DeployedTwoLayers(nn.Module):
    """`TwoLayerSynthesis` with both convolutions of the latents in one."""

    def __init__(self, synthesis: TwoLayerSynthesis) -> None:
        super().__init__()
        firsts = [synthesis.conv1, synthesis.conv_res]
        self.first = FixedUpsampling([layer for layer in firsts if layer is not None])
        self.activation, self.conv2 = synthesis.activation, synthesis.conv2

    def forward(self, y: Tensor) -> Tensor:
        entering, *residual = self.first(y).split(self.conv2.in_channels, dim=1)
        if isinstance(self.activation, GDN) and residual:
            hidden = torch.addcmul(residual[0], entering, self._norm(self.activation, entering))
        else:
            hidden = self.activation(entering) + sum(residual)
        return self.conv2(hidden)

    @staticmethod
    def _norm(gdn: GDN, entering: Tensor) -> Tensor:
        """Return what inverse GDN multiplies by; as a matrix product, which is faster for so few channels."""
        by_position = entering.permute(0, 2, 3, 1)
        norm = torch.addmm(gdn.beta, by_position.abs().flatten(0, 2), gdn.gamma.T)
        return norm.view(by_position.shape).permute(0, 3, 1, 2)


class FixedUpsampling(nn.Module):
    """Transposed convolutions of one input, their outputs joined, by fewer multiplications (Winograd 1980).

    In one dimension: let a, b, c, d be neighbours in the input. Of the outputs about b, the first see a and b, the last
    see b and c, those between b alone; of the outputs about c likewise. A first output with kernel entries g and h is

        g a + h b = g (a - b) + (g + h) b     about b,
        g b + h c = h (c - b) + (g + h) b     about c,

    three products instead of four, and the last outputs share `(g + h) c` in the same way. So all outputs about the
    pair b, c are sums of products with a - b, b, c - b, c and d - c. In two dimensions pairs are squares of four, and
    there are 25 such inputs, each with a matrix product of its own: 0.65 of the multiplications for kernels of 13 with
    stride 8. All factors of the transformations are 1 or -1, so that rounding errors stay as they were.

    Args:
        layers: Alike but for weights and outputs. Kernels must not overlap more than twice.
    """

    def __init__(self, layers: Sequence[Upsampling]) -> None:
        super().__init__()
        (size, _), (self.stride, _), (last, _) = layers[0].kernel_size, layers[0].stride, layers[0].padding
        assert isinstance(last, int)
        if any((each.kernel_size, each.stride) != (layers[0].kernel_size, layers[0].stride) for each in layers):
            raise ValueError("transposed convolutions that are joined must have kernels and strides alike.")
        if size > 2 * self.stride:
            raise ValueError(f"kernels must not overlap more than twice, got {size} for a stride of {self.stride}.")
        self.last, self.first = last, size - self.stride - last
        self.between = self.stride - self.last - self.first
        weight = torch.cat([layer.weight.detach() for layer in layers], 1).double()
        biases = [layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias for layer in layers]
        self.outputs = weight.shape[1]
        rules = self._rules(size)
        self._phases = [len(rule) for rule in rules]
        bias = torch.cat(biases).detach()
        self._products = [
            [
                # Of b or c down as well as across one is in every output: the bias enters there.
                _Linear(
                    torch.einsum("iy,jx,coyx->ijoc", down, right, weight).flatten(0, 2).float(),
                    bias.repeat(len(down) * len(right)) if i % 2 == j % 2 == 1 else None,
                )
                for j, right in enumerate(rules)
            ]
            for i, down in enumerate(rules)
        ]

    def _rules(self, size: int) -> list[Tensor]:
        """Return for a - b, b, c - b, c, d - c the combinations of kernel entries, (phases, size), they meet."""
        entries = torch.eye(size, dtype=torch.float64)
        first_near = entries[self.last : self.last + self.first]  # meets b in outputs about b
        first_far = entries[self.last + self.stride :]
        between = entries[self.last + self.first : self.stride]
        last_near, last_far = entries[self.stride : self.stride + self.last], entries[: self.last]
        return [
            first_far,
            torch.cat([first_near + first_far, between]),
            torch.cat([first_near, -last_near]),
            torch.cat([between, last_near + last_far]),
            last_far,
        ]

    @torch.no_grad()
    def forward(self, y: Tensor) -> Tensor:
        """Map (batch, in_channels, height, width), float32, to (batch, outputs, height * stride, width * stride)."""
        batch, _, height, width = y.shape
        padded = nn.functional.pad(y.permute(0, 2, 3, 1), (0, 0, 0, width % 2, 0, height % 2))
        rows, columns, stride = padded.shape[1] // 2, padded.shape[2] // 2, self.stride
        inputs = [_differences(of_rows, 2) for of_rows in _differences(padded, 1)]
        strips = []
        for j, across in enumerate(self._phases):
            products = [
                self._products[i][j](inputs[i][j].flatten(0, 2))
                .view(batch, rows, columns, along, across, self.outputs)
                .transpose(3, 4)
                for i, along in enumerate(self._phases)
            ]
            strip = y.new_empty(batch, rows, 2, stride, columns, across, self.outputs)
            self._join(products, strip.permute(0, 1, 4, 5, 2, 3, 6))
            strips.append(strip)
        joined = y.new_empty(batch, rows, 2, stride, columns, 2, stride, self.outputs)
        self._join(strips, joined)
        upsampled = joined.view(batch, 2 * rows * stride, 2 * columns * stride, self.outputs)
        return upsampled[:, : height * stride, : width * stride].permute(0, 3, 1, 2)

    def _join(self, products: Sequence[Tensor], pair: Tensor) -> None:
        """Write the outputs about b and about c, (..., 2, stride, outputs), given the five products of each."""
        of_a, of_b, of_step, of_c, of_d = products
        first, last = slice(self.first), slice(self.stride - self.last, None)
        between = slice(self.first, self.stride - self.last)
        about_b, about_c = pair.unbind(-3)
        torch.add(of_a, of_b[..., first, :], out=about_b[..., first, :])
        torch.add(of_step[..., first, :], of_b[..., first, :], out=about_c[..., first, :])
        about_b[..., between, :] = of_b[..., self.first :, :]
        about_c[..., between, :] = of_c[..., : self.between, :]
        torch.add(of_step[..., self.first :, :], of_c[..., self.between :, :], out=about_b[..., last, :])
        torch.add(of_d, of_c[..., self.between :, :], out=about_c[..., last, :])


class _Linear:
    """A matrix product with fixed weights, (outputs, inputs), in oneDNN's own layout of them: a tenth faster."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias
        self._packed = torch.backends.mkldnn.is_available() and weight.numel() > 0  # it refuses empty ones
        if self._packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())

    def __call__(self, x: Tensor) -> Tensor:
        """Map (number, inputs), float32, to (number, outputs)."""
        if self._packed:
            return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return nn.functional.linear(x, self._weight, self._bias)


def _differences(x: Tensor, axis: int) -> list[Tensor]:
    """Return a - b, b, c - b, c and d - c of all pairs along an axis."""
    b, c = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
    edge = torch.zeros_like(b.narrow(axis, 0, 1))
    a = torch.cat([edge, c.narrow(axis, 0, c.shape[axis] - 1)], axis)
    d = torch.cat([b.narrow(axis, 1, b.shape[axis] - 1), edge], axis)
    return [a - b, b, c - b, c, d - c]
