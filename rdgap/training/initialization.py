"""Good starts: block transforms from principal components, and weights of another training.

A codec whose analysis and synthesis start as a block transform of principal components begins where a linear transform
codec ends, instead of spending its first hours on finding that.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from itertools import zip_longest

import torch
from torch import Tensor, nn

from ..ntc.codec import NTCCodec
from ..ntc.layers import Attention, Convolution, ResidualBottleneck
from ..ntc.priors import FactorizedPrior, Hyperprior, last_layer
from ..ntc.transforms import TwoLayerSynthesis
from ._linear import SIGNS, bias_of, blocks_of, convolutions_of, fit_outputs, least_squares, pixels_of
from .hyper_initialization import start_hyperprior

PARTS: tuple[str, ...] = ("analysis", "synthesis", "prior")
_FEATURE_SCALE = 0.3  # keeps the features where GDN, which starts at 1 + 0.1 |x|, is nearly linear
_TURNS = 40  # of the basis of the latents
_SHARES = 4  # that training blocks are divided into, one for each turn


@torch.no_grad()
def initialize_principal(codec: NTCCodec, images: Tensor, lmbda: float, parts: set[str]) -> None:
    """Set the named parts of a codec from training images, in place.

    Each strided convolution of the analysis becomes the principal components of the blocks that it sees, the last one
    turned so that few of its outputs matter at a time; the layers of the synthesis are least-squares fits back to the
    blocks, one after the other; residual branches between them start weak; the latents are scaled so that a step of
    one costs what is best at high rate, `step^2 / 12 = 3 / (2 lmbda ln 2)` on the 0..255 scale; and the hyperprior
    starts with side information that is worth its bits (`start_hyperprior`).

    Args:
        codec: Changed in place.
        images: (batch, 3, height, width) in [0, 1], sides multiples of the codec's factor.
        lmbda: What the codec will be trained for.
        parts: Any of "analysis", "synthesis", "prior".

    Raises:
        ValueError: If the images have other sides.
    """
    height, width = images.shape[-2:]
    if height % codec.factor or width % codec.factor:
        raise ValueError(
            f"a principal start needs images whose sides are multiples of {codec.factor}, got {height} x {width}."
        )
    for part, transform in (("analysis", codec.analysis), ("synthesis", codec.synthesis)):
        if part in parts:
            _quieten(transform)
    if "analysis" in parts:
        _fit_analysis(codec.analysis, images - 0.5, lmbda)
        _scale_latents(codec.analysis, images - 0.5, lmbda)
    y = codec.analysis(images - 0.5)
    if "synthesis" in parts:
        _fit_synthesis(codec.synthesis, y, images - 0.5)
    if "prior" in parts and isinstance(codec.prior, Hyperprior):
        start_hyperprior(codec.prior, y)


def _quieten(transform: nn.Module) -> None:
    """Leave of residual blocks hardly more than their skips, and of attentions hardly more than a factor.

    Their perturbations add up over a dozen blocks; the branches still learn, at rates relative to their size.
    """
    for block in transform.modules():
        if isinstance(block, ResidualBottleneck | Attention):
            _multiply_outputs(last_layer(block.branch if isinstance(block, ResidualBottleneck) else block.mask), 0.01)


def _fit_analysis(analysis: nn.Module, images: Tensor, lmbda: float) -> None:
    layers = list(analysis.children())
    last = convolutions_of(analysis)[-1]
    features = known = images  # channels, or differences of two, that hold principal components
    signs = torch.ones(1)  # of the channels that carry one component
    for layer, following in zip_longest(layers, layers[1:]):
        if not (isinstance(layer, nn.Conv2d) and layer.stride[0] > 1):
            features = layer(features)
            known = _differences(features, known.shape[1], signs)
            continue
        stride, padding = layer.stride[0], int(layer.padding[0])
        blocks = blocks_of(known, stride)
        mean = blocks.mean(0)
        _, vectors = torch.linalg.eigh((blocks - mean).T.double() @ (blocks - mean).double())
        basis = vectors.T.flip(0).to(features.dtype)
        if layer is last:
            basis = sparse_basis(blocks - mean, basis, _FEATURE_SCALE * _step(lmbda))
        scale = _FEATURE_SCALE if features is images else 1.0
        leaving = SIGNS if isinstance(following, nn.ReLU | nn.LeakyReLU) else torch.ones(1)
        kernels = scale * basis[: layer.out_channels // len(leaving)]
        count, entering = len(kernels), known.shape[1]
        inner = kernels.reshape(count, 1, entering, 1, stride, stride)
        inner = inner * leaving[:, None, None, None, None] * signs[:, None, None]
        layer.weight.mul_(_FEATURE_SCALE)
        outputs, inputs = slice(0, count * len(leaving)), slice(0, entering * len(signs))
        layer.weight[outputs, inputs] = 0
        middle = slice(padding, padding + stride)
        layer.weight[outputs, inputs, middle, middle] = inner.reshape(outputs.stop, inputs.stop, stride, stride)
        if layer.bias is not None:
            layer.bias.zero_()
            layer.bias[outputs] = (-(kernels @ mean)[:, None] * leaving).flatten()
        features, signs = layer(features), leaving
        known = _differences(features, count, signs)


def _differences(features: Tensor, count: int, signs: Tensor) -> Tensor:
    """Return the signed sums of the channels that carry one component each."""
    return (features[:, : count * len(signs)].unflatten(1, (count, len(signs))) * signs[:, None, None]).sum(2)


@torch.no_grad()
def sparse_basis(vectors: Tensor, basis: Tensor, step: float) -> Tensor:
    """Turn an orthonormal basis so that few coefficients matter; rows by how much of the vectors they then carry.

    Principal components spread an edge over all of them. Alternately the coefficients above a threshold are kept and
    the basis is turned to give them back as well as it can (a sparse orthonormal transform: Sezer, Guleryuz &
    Altunbasak, 2015); the threshold falls from 1.6 quantization steps to about half of one.

    Args:
        vectors: (number, dimensions).
        basis: To start from, (dimensions, dimensions).
        step: Quantization step of coefficients.
    """
    for iteration in range(_TURNS):
        part = vectors[iteration % _SHARES :: _SHARES]
        coefficients = part @ basis.T
        threshold = step * (1.6 - 1.05 * iteration / _TURNS)
        left, _, right = torch.linalg.svd((coefficients * (coefficients.abs() > threshold)).T @ part)
        basis = left @ right
    coefficients = vectors @ basis.T
    carried = (coefficients.square() * (coefficients.abs() > step / 2)).sum(0)
    return basis[carried.argsort(descending=True)]


def _step(lmbda: float) -> float:
    """Return the quantization step that is best at high rate, `step^2 / 12 = 3 / (2 lmbda ln 2)` for values 0..255."""
    return math.sqrt(18 / (lmbda * math.log(2))) / 255


def _scale_latents(analysis: nn.Module, images: Tensor, lmbda: float) -> None:
    last = convolutions_of(analysis)[-1]
    y = analysis(images)
    kernels = least_squares(pixels_of(y), blocks_of(images, images.shape[-1] // y.shape[-1]))[:-1]
    gain = kernels.norm(dim=1) / _step(lmbda)
    last.weight.mul_(gain[:, None, None, None])
    if last.bias is not None:
        last.bias.mul_(gain)


def _fit_synthesis(synthesis: nn.Module, y: Tensor, images: Tensor) -> None:
    if isinstance(synthesis, TwoLayerSynthesis):
        stride = synthesis.conv2.stride[0]
        target = _principal_features(images, stride, synthesis.conv2.in_channels)
        if synthesis.conv_res is None:
            _fit_layer(synthesis.conv1, y, target)
        else:
            _fit_layer(synthesis.conv_res, y, target)
            # The activated path starts at half the way, the residual one carries what it leaves.
            synthesis.conv1.weight.copy_(0.5 * synthesis.conv_res.weight)
            bias_of(synthesis.conv1).copy_(0.5 * bias_of(synthesis.conv_res))
            _fit_layer(synthesis.conv_res, y, target - synthesis.activation(synthesis.conv1(y)))
            hidden = synthesis.activation(synthesis.conv1(y)) + synthesis.conv_res(y)
            _fit_layer(synthesis.conv2, hidden, images)
            return
        _fit_layer(synthesis.conv2, synthesis.activation(synthesis.conv1(y)), images)
        return
    layers = list(synthesis.children())
    convolutions = [layer for layer in layers if isinstance(layer, nn.ConvTranspose2d)]
    targets = [images]
    for layer in reversed(convolutions[1:]):
        targets.insert(0, _principal_features(targets[0], layer.stride[0], layer.in_channels))
    features = y
    for layer in layers:
        if isinstance(layer, nn.ConvTranspose2d):
            _fit_layer(layer, features, targets.pop(0))
        features = layer(features)


def _principal_features(features: Tensor, stride: int, channels: int) -> Tensor:
    """Return the first principal components of the blocks of `features`, at most `channels` of them, as a map."""
    blocks = blocks_of(features, stride)
    _, vectors = torch.linalg.eigh(blocks.T.double() @ blocks.double())
    scale = 1.0 if features.shape[1] > 3 else _FEATURE_SCALE
    components = scale * blocks @ vectors.flip(1)[:, :channels].to(blocks.dtype)
    batch, _, height, width = features.shape
    return components.reshape(batch, height // stride, width // stride, -1).permute(0, 3, 1, 2)


def _fit_layer(layer: nn.ConvTranspose2d, features: Tensor, target: Tensor) -> None:
    """Set the first output channels to the least-squares fit of `target`, without overlap of the blocks.

    Channels beyond those of the target keep a tenth of their random weights, so that training can use them.
    """
    layer.weight.mul_(0.1)
    bias_of(layer).zero_()
    fit_outputs(layer, slice(0, target.shape[1]), features, target)


@torch.no_grad()
def take_weights(codec: NTCCodec, source: NTCCodec, parts: Collection[str] = PARTS) -> tuple[set[str], set[str]]:
    """Take parts, all by default, of another codec as far as their shapes agree.

    Each part is taken whole or not at all: half of a transform computes nothing.

    Returns:
        The parts that were taken, and those that were not.
    """
    taken = set()
    for part in parts:
        here, there = getattr(codec, part), getattr(source, part)
        shapes = [{name: value.shape for name, value in module.state_dict().items()} for module in (here, there)]
        if shapes[0] == shapes[1] and type(here) is type(there):
            here.load_state_dict(there.state_dict())
            taken.add(part)
    return taken, set(PARTS) - taken


@torch.no_grad()
def rescale_latents(codec: NTCCodec, gain: float) -> bool:
    """Multiply all `y` by `gain` and compensate in synthesis and prior, in place.

    The decoded image without quantization stays the same while the quantization step changes relative to `y`: what
    another lmbda asks for. The mixture of a factorized prior is stretched likewise.

    Returns:
        False, and nothing is changed, where that is impossible: where anything but attentions and residual blocks lies
        between `y` and the nearest convolution of a transform, or the prior corrects `y` by at most half a step.
    """
    exits, after = _nearest_to_latents(reversed(list(codec.analysis.children())))
    entrances, before = _nearest_to_latents(codec.synthesis.children())
    if isinstance(codec.synthesis, TwoLayerSynthesis):
        entrances = [layer for layer in (codec.synthesis.conv1, codec.synthesis.conv_res) if layer is not None]
    heads = codec.prior.heads() if isinstance(codec.prior, Hyperprior) else []
    if not (exits and entrances) or any(head.quantity == "correction" for head in heads):
        return False
    for layer in exits:
        _multiply_outputs(layer, gain)
    for block in (*after, *before):
        _stretch(block, gain)
    for layer in entrances:
        layer.weight.div_(gain)
    if isinstance(codec.prior, FactorizedPrior):
        codec.prior.density.stretch(torch.tensor(gain))
    if isinstance(codec.prior, Hyperprior):
        for layer, inputs, _ in codec.prior.readers():
            layer.weight[:, inputs].div_(gain)
    for head in heads:
        weight, bias = head.parameters()
        if head.quantity == "mean":
            weight.mul_(gain)
            bias.mul_(gain)
        else:
            bias.add_(math.log(gain))
    return True


def _nearest_to_latents(layers: Iterable[nn.Module]) -> tuple[list[Convolution], list[ResidualBottleneck | Attention]]:
    """Return the first convolution, none where something else comes first, and the blocks before it."""
    blocks = []
    for layer in layers:
        if isinstance(layer, Convolution):
            return [layer], blocks
        if not isinstance(layer, ResidualBottleneck | Attention):
            break
        blocks.append(layer)
    return [], []


def _stretch(block: ResidualBottleneck | Attention, gain: float) -> None:
    """Make of a block `f` one that maps `gain * x` to `gain * f(x)`."""
    for inner in block.modules():
        if isinstance(inner, ResidualBottleneck):
            first, *_, last = convolutions_of(inner.branch)
            first.weight.div_(gain)
            _multiply_outputs(last, gain)
    if isinstance(block, Attention):
        last_layer(block.mask).weight.div_(gain)


def _multiply_outputs(layer: Convolution, gain: float) -> None:
    layer.weight.mul_(gain)
    if layer.bias is not None:
        layer.bias.mul_(gain)
