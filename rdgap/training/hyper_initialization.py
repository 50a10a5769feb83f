"""A good start for hyperpriors: side information that is worth its bits from the first step on.

The hyper latents begin as averages over 4 x 4 positions of what neighbours have in common, the values of the channels
that are smooth (brightness and color) and the magnitudes of the others, and means and scales are least-squares fits to
what comes through rounded. Without that a hyperprior learns first to ignore its hyper latents, because they cost bits
before anything reads them, and hardly finds back in thousands of steps.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..ntc.priors import (
    LARGEST_SCALE,
    SMALLEST_SCALE,
    CodingStep,
    Head,
    Hyperprior,
    ScaleHyperprior,
)
from ..ntc.transforms import Transform
from ._linear import SIGNS, bias_of, convolutions_of, fit_outputs, least_squares, pixels_of

_LEAST_GAIN_BITS = 0.25  # per entry of y, for a hyper latent of its own: it serves 16 entries and costs some bits
_MAGNITUDE_GAIN = 4.0  # hyper latents per unit of pooled magnitude, in deviations of y
_LEAST_DEVIATION = 0.5  # of hyper latents: smaller ones are rounded away
_SMALLEST_RESIDUAL = 0.03
_BOX = (0, 0, 0.5, 0.5, 0)  # of a 5x5 convolution of stride 2: the average of two entries
_MIDDLE = (0, 1, 0)  # of a 3x3 convolution: the entry itself
_TENT = (0, 0.25, 0.75, 0.75, 0.25)  # of a transposed one: the line between the middles of two entries


@torch.no_grad()
def start_hyperprior(prior: Hyperprior, y: Tensor) -> None:
    """Set hyper analysis, density and what predicts means and scales, in place.

    Args:
        prior: Changed in place.
        y: Output of the analysis, (batch, channels, height, width), height and width multiples of 4.
    """
    heads = prior.heads()
    mean = y.mean(dim=(0, 2, 3)) * any(head.quantity == "mean" for head in heads)
    deviation = (y - mean[:, None, None]).square().mean(dim=(0, 2, 3)).sqrt().clamp(SMALLEST_SCALE, LARGEST_SCALE)
    for layer, inputs, channels in prior.readers():
        layer.weight[:, inputs].div_(deviation[channels].sqrt()[:, None, None])
    values = y.abs() if isinstance(prior, ScaleHyperprior) else y
    used = _start_hyper_analysis(prior, values, mean)
    z, _ = prior.infer(y)
    prior.density.stretch(z.std(dim=(0, 2, 3)).clamp(min=_LEAST_DEVIATION / 3) / prior.density.initial_deviation)
    hyper_synthesis = prior.get_submodule("hyper_synthesis")
    for transform in hyper_synthesis.modules():
        if isinstance(transform, Transform):
            _pass_on(
                [layer for layer in convolutions_of(transform) if all(layer is not head.layer for head in heads)], used
            )
    seen = _seen_by_networks(prior, torch.round(z), torch.round(y))
    for _, step in groupby(heads, lambda head: head.channels.start):
        of_step = list(step)
        target = y[:, of_step[0].channels]
        if of_step[0].network is not hyper_synthesis:
            _carry_predictions(of_step, seen, target)
        _fit_heads(of_step, seen, target)


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
        first.weight[pair, channel, middle[0], middle[1]] = SIGNS / unit[channel]
        bias_of(first)[pair] = -SIGNS * mean[channel] / unit[channel]
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
        third.weight[row, 2 * row : 2 * row + 2] = SIGNS[:, None, None] * box / left[channel]
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


def _pass_on(layers: list[nn.ConvTranspose2d | nn.Conv2d], used: int) -> None:
    """Let each layer of a hyper synthesis, all with a ReLU behind, carry the used inputs, a ReLU for each sign.

    Those that upsample draw lines between the entries.
    """
    if not layers:
        return
    count = min(used, *(layer.out_channels // 2 for layer in layers))
    for index, layer in enumerate(layers):
        kernel = _kernel(_TENT if isinstance(layer, nn.ConvTranspose2d) else _MIDDLE)
        into = layer.weight if isinstance(layer, nn.ConvTranspose2d) else layer.weight.transpose(0, 1)
        layer.weight.mul_(0.3)
        bias_of(layer).zero_()
        into[:, : 2 * count] = 0
        for row in range(count):
            pair = slice(2 * row, 2 * row + 2)
            if index == 0:
                into[row, pair] = SIGNS[:, None, None] * kernel
            else:
                into[pair, pair] = SIGNS[:, None, None, None] * SIGNS[:, None, None] * kernel


def _seen_by_networks(prior: Hyperprior, z: Tensor, y: Tensor) -> dict[nn.Module, Tensor]:
    """Return what enters the networks that end in heads while the latents are coded, each position as it is coded."""
    inputs: dict[nn.Module, list[Tensor]] = defaultdict(list)
    masks: dict[int | None, list[Tensor]] = defaultdict(list)

    def note(network: nn.Module, arguments: tuple[Tensor]) -> None:
        inputs[network].append(arguments[0])

    def visit(step: CodingStep) -> Tensor:
        masks[step.channels.start].append(step.mask)
        return y[:, step.channels]

    channels = {head.network: head.channels.start for head in prior.heads()}
    hooks = [network.register_forward_pre_hook(note) for network in channels]
    prior.walk(z, visit)
    for hook in hooks:
        hook.remove()
    seen = {}
    for network, start in channels.items():
        seen[network], *later = inputs[network]
        for features, mask in zip(later, masks[start][1:], strict=True):
            seen[network] = torch.where(mask, features, seen[network])
    return seen


def _carry_predictions(heads: list[Head], seen: dict[nn.Module, Tensor], y: Tensor) -> None:
    """Let the inner layers of a step's networks carry what linear predictions of means and scales need most."""
    needed: dict[nn.Module, list[Tensor]] = defaultdict(list)
    residual = pixels_of(y)
    for head in heads:
        inputs = pixels_of(seen[head.network])
        if head.quantity == "mean":
            prediction = _affine_fit(inputs, residual)
            residual = residual - prediction
            # An error e of a mean costs e^2 / (2 variance) nats, one of a logarithm e^2.
            needed[head.network].append(prediction / (2 * (residual.square().mean(0) + 1 / 12)).sqrt())
        elif head.quantity == "log-scale":
            needed[head.network].append(_affine_fit(inputs, residual.abs().clamp(min=_SMALLEST_RESIDUAL).log()))
    for network, predictions in needed.items():
        _carry(network, pixels_of(seen[network]), torch.cat(predictions, 1))


def _carry(network: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
    """Let the inner layers carry the principal components of affine functions of the inputs, a ReLU for each sign."""
    *layers, _ = convolutions_of(network)
    centered = (outputs - outputs.mean(0)).double()
    eigenvalues, vectors = torch.linalg.eigh(centered.T @ centered / len(centered))
    count = min([max(1, int((eigenvalues > 1e-6).sum())), *(layer.out_channels // 2 for layer in layers)])
    directions = vectors.flip(1)[:, :count] / eigenvalues.flip(0)[:count].clamp(min=1e-6).sqrt()
    solution = least_squares(inputs, (centered @ directions).to(inputs.dtype), _ridge(inputs))
    for index, layer in enumerate(layers):
        layer.weight.mul_(0.3)
        bias_of(layer).zero_()
        middle = layer.kernel_size[0] // 2
        rows = slice(0, 2 * count)
        layer.weight[rows] = 0
        if index == 0:
            both = (solution.T[:, None] * SIGNS[:, None]).flatten(0, 1)
            layer.weight[rows, :, middle, middle] = both[:, :-1]
            bias_of(layer)[rows] = both[:, -1]
        else:
            layer.weight[rows, rows, middle, middle] = torch.block_diag(*[SIGNS[:, None] * SIGNS] * count)


def _fit_heads(heads: list[Head], seen: dict[nn.Module, Tensor], y: Tensor) -> None:
    """Fit means and logarithms of scales to all features of the networks' last layers, in place."""
    residual = y
    for head in heads:  # means come first
        layer, outputs = head.layer, head.outputs
        if head.quantity == "correction":
            layer.weight.mul_(0.1)
            bias_of(layer).zero_()
            continue
        features = seen[head.network]
        for inner in list(head.network)[:-1]:
            features = inner(features)
        ridge = _ridge(pixels_of(features))
        if head.quantity == "mean":
            fit_outputs(layer, outputs, features, y, ridge)
            residual = y - layer(features)[:, outputs]
            continue
        fit_outputs(layer, outputs, features, residual.abs().clamp(min=_SMALLEST_RESIDUAL).log(), ridge)
        # The logarithm's mean lies below that of the deviation; now the standardized residual has variance one.
        log_scale = layer(features)[:, outputs]
        bias_of(layer)[outputs] += 0.5 * (residual / log_scale.exp()).square().mean(dim=(0, 2, 3)).log()


def _affine_fit(inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the best affine functions of the inputs, (number, targets)."""
    solution = least_squares(inputs, targets, _ridge(inputs))
    return inputs @ solution[:-1] + solution[-1]


def _ridge(inputs: Tensor) -> float:
    """Return a penalty for `least_squares` that is strong where few samples would be followed by as many weights."""
    number, features = inputs.shape
    return features / number


def _kernel(profile: tuple[float, ...]) -> Tensor:
    taps = torch.tensor(profile)
    return taps[:, None] * taps
