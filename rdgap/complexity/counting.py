"""Counting multiply-accumulates with hooks on the layers, at the shapes that they meet."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from ..ntc import MeanScaleHyperprior, NTCCodec
from ..ntc.layers import GDN
from ..recipes import Recipe, build_codec

if TYPE_CHECKING:
    import pandas as pd

Shape: TypeAlias = torch.Size | tuple[int, ...]

COUNTED = (
    "Multiply-accumulates (MAC) per image pixel of the convolutions: k^2 Cin Cout for each output position of a\n"
    "convolution and for each input position of a transposed one. The channel mixing of GDN, channels^2 for each\n"
    "position, is counted apart. Biases, activations, the densities and entropy coding are not counted."
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
        hyper_synthesis: Hyper latents to the parameters of the latents' prior; None without a hyperprior.
        density_parameters: Numbers that are trained in the deep factorized density.
    """

    name: str
    analysis: TransformComplexity
    synthesis: TransformComplexity
    hyper_analysis: TransformComplexity | None
    hyper_synthesis: TransformComplexity | None
    density_parameters: int

    @property
    def transforms(self) -> dict[str, TransformComplexity]:
        """The transforms that the codec has, by name."""
        parts = {
            "analysis": self.analysis,
            "synthesis": self.synthesis,
            "hyper_analysis": self.hyper_analysis,
            "hyper_synthesis": self.hyper_synthesis,
        }
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def decoding_macs_per_pixel(self) -> float:
        """MACs per pixel of what a decoder runs: synthesis and hyper synthesis, GDN not counted."""
        hyper = self.hyper_synthesis.macs_per_pixel if self.hyper_synthesis else 0.0
        return self.synthesis.macs_per_pixel + hyper

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
    image = (1, 3, codec.factor, codec.factor)
    num_pixels = codec.factor**2
    analysis, latents = _run(codec.analysis, image, num_pixels)
    synthesis, _ = _run(codec.synthesis, latents, num_pixels)
    hyper_analysis, hyper_synthesis = None, None
    if isinstance(codec.prior, MeanScaleHyperprior):
        hyper_analysis, hyper_latents = _run(codec.prior.hyper_analysis, latents, num_pixels)
        hyper_synthesis, _ = _run(codec.prior.hyper_synthesis, hyper_latents, num_pixels)
    return Complexity(
        name=codec.name,
        analysis=analysis,
        synthesis=synthesis,
        hyper_analysis=hyper_analysis,
        hyper_synthesis=hyper_synthesis,
        density_parameters=_num_parameters(codec.prior.density),
    )


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
    return _run(transform, input_shape, num_pixels)[0]


def _run(transform: nn.Module, input_shape: Shape, num_pixels: int) -> tuple[TransformComplexity, torch.Size]:
    """Return the complexity of a transform and the shape of its output."""
    transform = copy.deepcopy(transform).to("meta")
    macs = {"convolutions": 0, "gdn": 0}

    def hook(kind: str, count_layer: Callable[[nn.Module, Tensor, Tensor], int]) -> Callable[..., None]:
        def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            macs[kind] += count_layer(layer, inputs[0], output)

        return add

    for layer in transform.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(hook("convolutions", _conv_macs))
        elif isinstance(layer, nn.ConvTranspose2d):
            layer.register_forward_hook(hook("convolutions", _transposed_conv_macs))
        elif isinstance(layer, GDN):
            layer.register_forward_hook(hook("gdn", _gdn_macs))
        elif any(parameter.ndim > 1 for parameter in layer.parameters(recurse=False)):
            raise ValueError(
                "the weights of a transform must be those of Conv2d, ConvTranspose2d and GDN layers, "
                f"got a {type(layer).__name__}."
            )
    with torch.no_grad():
        output: Tensor = transform(torch.empty(input_shape, device="meta"))
    complexity = TransformComplexity(
        macs_per_pixel=macs["convolutions"] / num_pixels,
        gdn_macs_per_pixel=macs["gdn"] / num_pixels,
        parameters=_num_parameters(transform),
    )
    return complexity, output.shape


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
