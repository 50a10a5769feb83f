"""A good start for hyperpriors: side information that is worth its bits from the first step on.

The hyper latents begin as averages over 4 x 4 positions of what neighbours have in common, the values of the channels
that are smooth (brightness and color) and the magnitudes of the others, and means and scales are least-squares fits to
what comes through rounded. Without that a hyperprior learns first to ignore its hyper latents, because they cost bits
before anything reads them, and hardly finds back in thousands of steps.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..ntc.priors import (
    LARGEST_SCALE,
    SMALLEST_SCALE,
    Hyperprior,
    MeanScaleHyperprior,
    ScaleHyperprior,
)
from ._linear import bias_of, fit_outputs, pixels_of

_LEAST_GAIN_BITS = 0.25  # per entry of y, for a hyper latent of its own: it serves 16 entries and costs some bits
_MAGNITUDE_GAIN = 4.0  # hyper latents per unit of pooled magnitude, in deviations of y
_LEAST_DEVIATION = 0.5  # of hyper latents: smaller ones are rounded away
_SMALLEST_RESIDUAL = 0.03
_BOX = (0, 0, 0.5, 0.5, 0)  # of a 5x5 convolution of stride 2: the average of two entries
_SIGNS = torch.tensor([1.0, -1.0])  # of a value that passes ReLUs, one for each
_TENT = (0, 0.25, 0.75, 0.75, 0.25)  # of a transposed one: the line between the middles of two entries


@torch.no_grad()
def start_hyperprior(prior: Hyperprior, y: Tensor) -> None:
    """Set hyper analysis, density and what predicts means and scales, in place.

    Where means and scales come from `z` alone, they are fitted; where contexts take part, each channel starts at its
    moments.

    Args:
        prior: Changed in place.
        y: Output of the analysis, (batch, channels, height, width), height and width multiples of 4.
    """
    heads = prior.heads()
    mean = y.mean(dim=(0, 2, 3)) * any(head.quantity == "mean" for head in heads)
    deviation = (y - mean[:, None, None]).square().mean(dim=(0, 2, 3)).sqrt().clamp(SMALLEST_SCALE, LARGEST_SCALE)
    for layer, inputs, channels in prior.readers():
        layer.weight[:, inputs].div_(deviation[channels].sqrt()[:, None, None])
    seen = y.abs() if isinstance(prior, ScaleHyperprior) else y
    used = _start_hyper_analysis(prior, seen, mean)
    z, _ = prior.infer(y)
    prior.density.stretch(z.std(dim=(0, 2, 3)).clamp(min=_LEAST_DEVIATION / 3) / prior.density.initial_deviation)
    if isinstance(prior, MeanScaleHyperprior | ScaleHyperprior):
        _fit_hyper_synthesis(prior, torch.round(z), y, used)
        return
    starts = {"mean": mean, "log-scale": deviation.log(), "correction": torch.zeros_like(mean)}
    for head in heads:
        weight, bias = head.parameters()
        weight.mul_(0.1)
        bias.copy_(starts[head.quantity][head.channels])


def _start_hyper_analysis(prior: Hyperprior, y: Tensor, mean: Tensor) -> int:
    """Make averages of values, then principal components of averaged magnitudes; return the number of both."""
    first, second, third = (layer for layer in prior.hyper_analysis if isinstance(layer, nn.Conv2d))
    # Channels far below a quantization step hardly cost anything, so their magnitudes matter little.
    unit = ((y - mean[:, None, None]).square().mean(dim=(0, 2, 3)) + 0.25).sqrt()
    normal = (y - mean[:, None, None]) / unit[:, None, None]
    smooth, left = _smooth_channels(normal, unit)
    smooth = smooth[: first.out_channels // 8]
    strong = unit.argsort(descending=True)[: first.out_channels // 2 - len(smooth)]
    for layer in (first, second, third):
        bias_of(layer).zero_()
    middle = tuple(size // 2 for size in first.kernel_size)
    for row, channel in enumerate(torch.cat([smooth, strong])):
        pair = slice(2 * row, 2 * row + 2)  # a ReLU for each sign
        first.weight[pair] = 0
        first.weight[pair, channel, middle[0], middle[1]] = _SIGNS / unit[channel]
        bias_of(first)[pair] = -_SIGNS * mean[channel] / unit[channel]
    box = _kernel(_BOX)
    values, magnitudes = 2 * len(smooth), len(strong)
    second.weight[: values + magnitudes] = 0
    for row in range(values):
        second.weight[row, row] = box
    for row in range(magnitudes):
        second.weight[values + row, values + 2 * row : values + 2 * row + 2] = box
    averages = functional.avg_pool2d(torch.relu(second(torch.relu(first(y))))[:, values : values + magnitudes], 2)
    about = averages.mean(dim=(0, 2, 3))
    eigenvalues, vectors = torch.linalg.eigh(torch.cov(pixels_of(averages).T.double(), correction=0))
    wide = _MAGNITUDE_GAIN * eigenvalues.clamp(min=0).sqrt() >= _LEAST_DEVIATION
    components = vectors.flip(1)[:, : max(1, int(wide.sum()))].T.to(y.dtype)[: third.out_channels - len(smooth)]
    used = len(smooth) + len(components)
    third.weight.mul_(0.1)
    third.weight[:used] = 0
    for row, channel in enumerate(smooth):
        # A step of one about as wide as what the average leaves unsaid.
        third.weight[row, 2 * row : 2 * row + 2] = _SIGNS[:, None, None] * box / left[channel]
    rows = slice(len(smooth), used)
    third.weight[rows, values : values + magnitudes] = _MAGNITUDE_GAIN * components[:, :, None, None] * box
    bias_of(third)[rows] = -_MAGNITUDE_GAIN * components @ about
    return used


def _smooth_channels(normal: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Return the channels whose averages save the most bits, most first, and what deviation averages leave in each."""
    averages = functional.interpolate(functional.avg_pool2d(normal, 4), scale_factor=4, mode="bilinear")
    total = normal.square().mean(dim=(0, 2, 3))
    product = (averages * normal).mean(dim=(0, 2, 3))
    left = total - product.square() / averages.square().mean(dim=(0, 2, 3)).clamp(min=1e-12)
    noise = 1 / (12 * unit.square())
    gain_bits = 0.5 * torch.log2((total + noise) / (left + noise))
    order = gain_bits.argsort(descending=True)
    return order[gain_bits[order] > _LEAST_GAIN_BITS], left.clamp(min=1e-6).sqrt()


def _fit_hyper_synthesis(prior: MeanScaleHyperprior | ScaleHyperprior, z: Tensor, y: Tensor, used: int) -> None:
    """Interpolate the used hyper latents and fit means and logarithms of scales to all features, in place."""
    *inner, _ = (layer for layer in prior.hyper_synthesis if isinstance(layer, nn.ConvTranspose2d | nn.Conv2d))
    if inner:
        _interpolate(cast(list[nn.ConvTranspose2d], inner), used)
    features = z
    for layer in list(prior.hyper_synthesis)[:-1]:
        features = layer(features)
    # Strong where a handful of samples would be followed by as many weights.
    ridge = features.shape[1] / features[:, 0].numel()
    residual = y
    for layer, outputs, _, quantity in prior.heads():  # means come first
        if quantity == "mean":
            fit_outputs(layer, outputs, features, y, ridge)
            residual = y - layer(features)[:, outputs]
            continue
        fit_outputs(layer, outputs, features, residual.abs().clamp(min=_SMALLEST_RESIDUAL).log(), ridge)
        # The logarithm's mean lies below that of the deviation; now the standardized residual has variance one.
        log_scale = layer(features)[:, outputs]
        bias_of(layer)[outputs] += 0.5 * (residual / log_scale.exp()).square().mean(dim=(0, 2, 3)).log()


def _interpolate(layers: list[nn.ConvTranspose2d], used: int) -> None:
    """Let each layer draw lines between the used inputs, a ReLU for each sign, as far as its width goes."""
    count = min(used, *(layer.out_channels // 2 for layer in layers))
    tents = _SIGNS[:, None, None] * _kernel(_TENT)
    for index, layer in enumerate(layers):
        layer.weight.mul_(0.3)
        bias_of(layer).zero_()
        layer.weight[:, : 2 * count] = 0
        for row in range(count):
            pair = slice(2 * row, 2 * row + 2)
            if index == 0:
                layer.weight[row, pair] = tents
            else:
                layer.weight[pair, pair] = _SIGNS[:, None, None, None] * tents


def _kernel(profile: tuple[float, ...]) -> Tensor:
    taps = torch.tensor(profile)
    return taps[:, None] * taps
