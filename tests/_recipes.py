"""A recipe small enough to build and run in milliseconds, and what tests of its layers share."""

import pytest
import torch

from rdgap.ntc import NTCCodec
from rdgap.ntc.priors import Hyperprior
from rdgap.recipes import Recipe, build_codec, parse_recipe

first_jvp_warns = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

TINY = """\
name = "tiny"
description = "Two layers and a hyperprior, as small as they get."
latent_channels = 4

[analysis]
kind = "balle2017"
filters = 6

[synthesis]
kind = "two-layer"
channels = 3
kernels = [13, 5]
strides = [8, 2]
residual = true

[prior]
kind = "mean-scale"
width = 5

[training]
quantization = "noise"
steps = 100
batch_size = 2
crop_size = 64
learning_rate = 0.001
decay = "cosine"
initialization = "random"
"""

PRIORS = {
    "factorized": 'kind = "factorized"',
    "scale": 'kind = "scale"\nwidth = 5',
    "mean-scale": 'kind = "mean-scale"\nwidth = 5',
    "jpeg-like-hyper": 'kind = "mean-scale"\nwidth = 5\nhyper_synthesis = "jpeg-like"',
    "charm": 'kind = "charm"\nslices = 2\nsupport = 1\nhyper_widths = [6, 4, 5]\nwidths = [3, 2]',
    "elic": 'kind = "elic"\nwidth = 5\ngroups = [1, 3]\ncontext_widths = [3, 2]\naggregation_widths = [6, 5]',
}


def tiny_recipe(**changes: str) -> Recipe:
    """The tiny recipe with other `quantization` or `prior`, one of `PRIORS`."""
    text = TINY.replace('"noise"', f'"{changes.get("quantization", "noise")}"')
    text = text.replace(PRIORS["mean-scale"], PRIORS[changes.get("prior", "mean-scale")])
    return parse_recipe(text, "tiny")


def shaken(module: torch.nn.Module, seed: int = 0, strength: float = 0.3) -> None:
    """Move every parameter off its symmetric start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(strength * torch.randn(parameter.shape, generator=generator).to(parameter))


def tiny_codec(seed: int = 0, **changes: str) -> NTCCodec:
    """A codec of the tiny recipe with seeded weights, eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = build_codec(tiny_recipe(**changes))
    shaken(codec.prior, seed, 0.1)
    with torch.no_grad():  # latents that do not all round to zero
        codec.get_parameter("analysis.4.weight").mul_(40.0)
        if isinstance(codec.prior, Hyperprior):
            codec.get_parameter("prior.hyper_analysis.4.weight").mul_(10.0)
    return codec.eval()


def random_images(*shape: int, seed: int = 1) -> torch.Tensor:
    """Uniform noise in [0, 1]."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
