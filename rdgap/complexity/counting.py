"""Counting multiply-accumulates with hooks on the layers, at the shapes that they meet."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from ..ntc import NTCCodec
from ..ntc.layers import GDN
from ..recipes import Recipe, build_codec

if TYPE_CHECKING:
    import pandas as pd

Shape: TypeAlias = torch.Size | tuple[int, ...]

COUNTED = (
    "Multiply-accumulates (MAC) per image pixel of the convolutions: k^2 Cin Cout for each output position of a\n"
    "convolution and for each input position of a transposed one; masked kernels in full, what runs twice twice.\n"
    "The channel mixing of GDN, channels^2 for each position, is counted apart. Biases, activations, the densities\n"
    "and entropy coding are not counted."
)
"""What the numbers mean, in words; printed by the command."""


@dataclass(frozen=True, kw_only=True)
class TransformComplexity:
    """Complexity of one transform.

    Attributes:
        macs_per_pixel: Multiply-accumulates of the convolutions per pixel of the image.
        gdn_macs_per_pixel: Those of the channel mixing in GDN layers, not contained in `macs_per_pixel`.
        parameters: Numbers that are trained, those of GDN and the biases included.
    """

    macs_per_pixel: float
    gdn_macs_per_pixel: float
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """Complexity of each transform of a codec.

    Attributes:
        name: The codec's.
        analysis: Image to latents.
        synthesis: Latents to image.
        hyper_analysis: Latents to hyper latents; None without a hyperprior.
        hyper_synthesis: Hyper latents to the parameters of the latents' prior, or to features from which a context
            model makes them; None without a hyperprior.
        context: The networks that predict latents, and correct them, from those decoded before; None where all are
            decoded at once.
        density_parameters: Numbers that are trained in the deep factorized density.
    """

    name: str
    analysis: TransformComplexity
    synthesis: TransformComplexity
    hyper_analysis: TransformComplexity | None
    hyper_synthesis: TransformComplexity | None
    context: TransformComplexity | None
    density_parameters: int

    @property
    def transforms(self) -> dict[str, TransformComplexity]:
        """The transforms that the codec has, by name."""
        parts = {
            "analysis": self.analysis,
            "synthesis": self.synthesis,
            "hyper_analysis": self.hyper_analysis,
            "hyper_synthesis": self.hyper_synthesis,
            "context": self.context,
        }
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def decoding_macs_per_pixel(self) -> float:
        """MACs per pixel of what a decoder runs: synthesis, hyper synthesis and context model, GDN not counted."""
        parts = (self.synthesis, self.hyper_synthesis, self.context)
        return sum(part.macs_per_pixel for part in parts if part is not None)

    @property
    def parameters(self) -> int:
        """All numbers that are trained."""
        return self.density_parameters + sum(part.parameters for part in self.transforms.values())

    def to_frame(self) -> pd.DataFrame:
        """Return one row per transform."""
        import pandas as pd

        return pd.DataFrame(
            {"codec": self.name, "transform": name, **vars(part)} for name, part in self.transforms.items()
        )


def count(codec: NTCCodec | Recipe) -> Complexity:
    """Count the transforms of a codec, or of the codec that a recipe describes.

    The image is a square of the codec's total downsampling factor, so that no position is lost or padded and the
    counts are exact for every size that is a multiple of it.

    Args:
        codec: A codec, left as it is, or a recipe, of which no weight is allocated. Codecs of other makes: count
            their modules by `count_transform`.

    Raises:
        TypeError: If it is neither.

    Example:
        >>> from rdgap.complexity import count
        >>> from rdgap.zoo import shipped_recipe
        >>> count(shipped_recipe("two-layer")).synthesis.macs_per_pixel
        5295.0
    """
    if isinstance(codec, Recipe):
        with torch.device("meta"):
            codec = build_codec(codec)
    if not isinstance(codec, NTCCodec):
        raise TypeError(
            f"`codec` must be an NTCCodec or a Recipe, got {type(codec).__name__}; "
            "count the modules of other codecs by `count_transform`."
        )
    codec = copy.deepcopy(codec).to("meta")
    num_pixels = codec.factor**2
    meters = {name: _Meter(transform) for name, transform in transforms_of(codec).items()}
    with torch.no_grad():
        latents = codec.infer(torch.empty((1, 3, codec.factor, codec.factor), device="meta"))
        _, for_synthesis = codec.prior.walk(latents[0], lambda step: step.mean)
        codec.synthesis(for_synthesis)
    return Complexity(
        name=codec.name,
        analysis=meters["analysis"].read(num_pixels),
        synthesis=meters["synthesis"].read(num_pixels),
        **{
            name: meters[name].read(num_pixels) if name in meters else None
            for name in ("hyper_analysis", "hyper_synthesis", "context")
        },
        density_parameters=_num_parameters(codec.prior.density),
    )


def transforms_of(codec: NTCCodec) -> dict[str, nn.Module]:
    """Return the parts of a codec that are counted and timed, by name."""
    of_prior = {name: part for name, part in codec.prior.named_children() if name != "density"}
    return {"analysis": codec.analysis, "synthesis": codec.synthesis, **of_prior}


def count_transform(transform: nn.Module, input_shape: Shape, *, num_pixels: int) -> TransformComplexity:
    """Count any module that is made of `Conv2d`, `ConvTranspose2d` and `rdgap.ntc.layers.GDN`.

    A layer that runs several times counts several times.

    Args:
        transform: The module, of one tensor; left as it is.
        input_shape: Shape of its input, (1, channels, height, width).
        num_pixels: Pixels of the image that such an input stands for.

    Raises:
        ValueError: If the module owns weights of another kind of layer, which could not be counted.

    Example:
        >>> from torch import nn
        >>> from rdgap.complexity import count_transform
        >>> count_transform(nn.ConvTranspose2d(320, 3, 18, 16), (1, 320, 4, 4), num_pixels=64 * 64).macs_per_pixel
        1215.0
    """
    transform = copy.deepcopy(transform).to("meta")
    meter = _Meter(transform)
    with torch.no_grad():
        transform(torch.empty(input_shape, device="meta"))
    return meter.read(num_pixels)


class _Meter:
    """Adds up the multiply-accumulates of a transform whenever it runs; to be put on a copy, whose hooks stay."""

    def __init__(self, transform: nn.Module) -> None:
        self._transform = transform
        self._macs = {"convolutions": 0, "gdn": 0}
        for layer in transform.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(self._hook("convolutions", _conv_macs))
            elif isinstance(layer, nn.ConvTranspose2d):
                layer.register_forward_hook(self._hook("convolutions", _transposed_conv_macs))
            elif isinstance(layer, GDN):
                layer.register_forward_hook(self._hook("gdn", _gdn_macs))
            elif any(parameter.ndim > 1 for parameter in layer.parameters(recurse=False)):
                raise ValueError(
                    "the weights of a transform must be those of Conv2d, ConvTranspose2d and GDN layers, "
                    f"got a {type(layer).__name__}."
                )

    def read(self, num_pixels: int) -> TransformComplexity:
        """Return what has run so far, on an image of `num_pixels`."""
        return TransformComplexity(
            macs_per_pixel=self._macs["convolutions"] / num_pixels,
            gdn_macs_per_pixel=self._macs["gdn"] / num_pixels,
            parameters=_num_parameters(self._transform),
        )

    def _hook(self, kind: str, count_layer: Callable[[nn.Module, Tensor, Tensor], int]) -> Callable[..., None]:
        def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._macs[kind] += count_layer(layer, inputs[0], output)

        return add


def _conv_macs(layer: nn.Module, _: Tensor, output: Tensor) -> int:
    assert isinstance(layer, nn.Conv2d)
    return layer.weight.numel() * _positions(output)


def _transposed_conv_macs(layer: nn.Module, entering: Tensor, _: Tensor) -> int:
    assert isinstance(layer, nn.ConvTranspose2d)
    return layer.weight.numel() * _positions(entering)


def _gdn_macs(layer: nn.Module, entering: Tensor, _: Tensor) -> int:
    assert isinstance(layer, GDN)
    return layer.gamma_root.numel() * _positions(entering)


def _positions(activations: Tensor) -> int:
    return activations.shape[0] * activations.shape[-2] * activations.shape[-1]


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
