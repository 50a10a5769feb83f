"""Recipes: TOML files that say how a codec is built and trained. An unknown or missing key is an error."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import nn

from .ntc import CharmPrior, ElicPrior, FactorizedPrior, MeanScaleHyperprior, NTCCodec, ScaleHyperprior, transforms
from .ntc.priors import HyperSynthesis, Prior
from .ntc.quantization import Quantization

Positive = Annotated[int, Field(ge=1)]
# TOML has lists, no tuples
Pair = Annotated[tuple[Positive, Positive], Field(strict=False)]
Triple = Annotated[tuple[Positive, Positive, Positive], Field(strict=False)]
Several = Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Convolutional(_Strict):
    """A transform of one of the literature's convolutional designs."""

    kind: Literal["balle2017", "minnen2018", "cnn", "elic"]
    filters: Positive


class JPEGLike(_Strict):
    """One transposed convolution."""

    kind: Literal["jpeg-like"]
    kernel: Positive = 18
    stride: Positive = 16


class TwoLayer(_Strict):
    """Two transposed convolutions with an activation, inverse GDN in the paper, between them."""

    kind: Literal["two-layer"]
    channels: Positive
    kernels: Pair = (13, 5)
    strides: Pair = (8, 2)
    residual: bool
    activation: transforms.Activation = "gdn"


class Factorized(_Strict):
    """Deep factorized prior."""

    kind: Literal["factorized"]


class Scale(_Strict):
    """Zero-mean hyperprior."""

    kind: Literal["scale"]
    width: Positive


class MeanScale(_Strict):
    """Mean-scale hyperprior."""

    kind: Literal["mean-scale"]
    width: Positive
    hyper_synthesis: HyperSynthesis = "minnen2018"


class Charm(_Strict):
    """Channel-wise autoregressive prior with latent residual prediction."""

    kind: Literal["charm"]
    slices: Positive
    support: Positive
    """How many slices, the first ones, later slices depend on."""
    hyper_widths: Triple
    widths: Pair
    """Of the networks of each slice."""


class Elic(_Strict):
    """Unevenly grouped channels, each group in two halves of a checkerboard."""

    kind: Literal["elic"]
    width: Positive
    groups: Several
    context_widths: Pair
    aggregation_widths: Pair


class Training(_Strict):
    """How the codec is trained; the command line gives images, lmbda and seed."""

    quantization: Quantization
    steps: Positive
    batch_size: Positive
    crop_size: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    relative_learning_rate: bool = False
    """Whether the learning rate is in units of each tensor's root mean square at the start."""
    decay: Literal["step", "cosine"]
    """`step`: x0.1 at 80 % of the steps. `cosine`: to 1 % of the peak along half a cosine."""
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.02
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    boosted_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """lmbda is ten times larger in this first part of the steps where it is .01 or less."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Of the running average of the weights, which is what is saved."""
    initialization: Literal["random", "principal"]
    """`principal`: transforms start as block transforms made of principal components of the training images."""


class Recipe(_Strict):
    """One architecture and its training."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    description: str
    latent_channels: Positive
    analysis: Convolutional
    synthesis: Annotated[Convolutional | JPEGLike | TwoLayer, Field(discriminator="kind")]
    prior: Annotated[Factorized | Scale | MeanScale | Charm | Elic, Field(discriminator="kind")]
    training: Training

    @model_validator(mode="after")
    def _channels_agree(self) -> Recipe:
        if isinstance(self.prior, Charm) and self.latent_channels % self.prior.slices:
            raise ValueError(f"the {self.latent_channels} latent channels must make {self.prior.slices} equal slices")
        if isinstance(self.prior, Elic) and sum(self.prior.groups) != self.latent_channels:
            raise ValueError(
                f"the groups must add up to the {self.latent_channels} latent channels, got {list(self.prior.groups)}"
            )
        return self

    @model_validator(mode="after")
    def _factors_agree(self) -> Recipe:
        if isinstance(self.synthesis, Convolutional):
            if self.synthesis.kind not in _SYNTHESES:
                raise ValueError(f"there is no synthesis of kind {self.synthesis.kind!r}")
            return self
        if isinstance(self.synthesis, TwoLayer):
            kernels, strides = self.synthesis.kernels, self.synthesis.strides
        else:
            kernels, strides = (self.synthesis.kernel,), (self.synthesis.stride,)
        if math.prod(strides) != 16:
            raise ValueError(f"the strides of the synthesis must multiply to the analysis's 16, got {list(strides)}")
        if any(kernel < stride for kernel, stride in zip(kernels, strides, strict=True)):
            raise ValueError(
                f"the kernels of the synthesis must cover their strides, got {list(kernels)} for {list(strides)}"
            )
        return self


_ANALYSES = {
    "balle2017": transforms.balle2017_analysis,
    "minnen2018": transforms.minnen2018_analysis,
    "cnn": transforms.cnn_analysis,
    "elic": transforms.elic_analysis,
}
_SYNTHESES = {
    "balle2017": transforms.balle2017_synthesis,
    "minnen2018": transforms.minnen2018_synthesis,
    "elic": transforms.elic_synthesis,
}


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no TOML or does not follow the schema; the message names each offending key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no recipe {path}.") from error
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise ValueError(f"a recipe must be a TOML file, got {path}.") from error
    return parse_recipe(text, str(path))


def parse_recipe(text: str, origin: str) -> Recipe:
    """Parse the text of a recipe; `origin` is named in errors, which are those of `read_recipe`."""
    try:
        return Recipe.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"a recipe must be a TOML file, got {origin}: {error}.") from error
    except ValidationError as error:
        problems = "; ".join(_problem(each["loc"], each["msg"]) for each in error.errors())
        raise ValueError(f"{origin} is not a valid recipe: {problems}.") from error


def _problem(place: tuple[int | str, ...], message: str) -> str:
    """Return a problem of pydantic's in this project's words; those of the recipe as a whole have no place."""
    message = message.removeprefix("Value error, ")
    return f"`{'.'.join(map(str, place))}`: {message[0].lower()}{message[1:]}" if place else message


def build_synthesis(recipe: Recipe) -> nn.Module:
    """Build the synthesis transform alone, with random weights."""
    synthesis = recipe.synthesis
    if isinstance(synthesis, JPEGLike):
        return transforms.jpeg_like_synthesis(recipe.latent_channels, synthesis.kernel, synthesis.stride)
    if isinstance(synthesis, TwoLayer):
        return transforms.TwoLayerSynthesis(
            recipe.latent_channels,
            synthesis.channels,
            synthesis.kernels,
            synthesis.strides,
            residual=synthesis.residual,
            activation=synthesis.activation,
        )
    return _SYNTHESES[synthesis.kind](synthesis.filters, recipe.latent_channels)


def build_prior(recipe: Recipe) -> Prior:
    """Build the prior alone, with random weights."""
    channels, prior = recipe.latent_channels, recipe.prior
    if isinstance(prior, Factorized):
        return FactorizedPrior(channels)
    if isinstance(prior, Scale):
        return ScaleHyperprior(channels, prior.width)
    if isinstance(prior, MeanScale):
        return MeanScaleHyperprior(channels, prior.width, prior.hyper_synthesis)
    if isinstance(prior, Charm):
        return CharmPrior(
            channels,
            slices=prior.slices,
            support=prior.support,
            hyper_widths=prior.hyper_widths,
            widths=prior.widths,
        )
    return ElicPrior(
        channels,
        prior.width,
        groups=prior.groups,
        context_widths=prior.context_widths,
        aggregation_widths=prior.aggregation_widths,
    )


def build_codec(recipe: Recipe) -> NTCCodec:
    """Build the codec of a recipe with random weights.

    The weights are drawn from torch's global generator; `rdgap.training` forks and seeds it.
    """
    analysis = _ANALYSES[recipe.analysis.kind](recipe.analysis.filters, recipe.latent_channels)
    return NTCCodec(
        analysis=analysis,
        synthesis=build_synthesis(recipe),
        prior=build_prior(recipe),
        quantization=recipe.training.quantization,
        factor=analysis.factor,
        name=recipe.name,
    )
