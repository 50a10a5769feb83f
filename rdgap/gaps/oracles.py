"""Oracles for the modeling gap: the same codec with its prior, or decoder and prior, fitted to the very images.

Both minimise the cost of the ideal channel, `E[-log Gamma_{g,P}]`, by variational expectation maximisation: a Gaussian
`q` for each image and the codec's parameters descend `E_q[U(z) + log q(z)]` together. Whatever they reach is an *upper*
bound of the infimum that they stand for: of `F_g` over priors for the codec's own decoder, of `inf_w F_w` over all
codecs. The source is then the set of images itself, which an oracle may come to know by heart.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn
from tqdm import trange

from ..model import Codec
from ..objective import cost
from .posterior import Posterior
from .variational import fit_gaussian

_LEARNING_RATE = 3e-4
_LEARNING_RATE_OF_Q = 0.02

Model = TypeVar("Model", bound=nn.Module)


def refit_prior(
    model: Model, images: Tensor, lmbda: float, *, steps: int, generator: torch.Generator, batch: int = 16
) -> Model:
    """Return a copy of the codec whose prior is fitted to the images, decoder untouched.

    Its `E[-log Gamma]` is an upper bound of `F_g`, and what it saves a lower bound of the prior gap.

    Args:
        model: A codec of the protocol that is a module. Parameters of the prior are those that `log_prior` depends
            on and `decode` does not.
        images: (images, channels, height, width), in [0, 1].
        lmbda: Weight of the MSE (0..255 scale) in bits per pixel.
        steps: Steps of Adam, as many again as the first fit of the Gaussians.
        generator: Source of all random numbers.
        batch: Most latents that are decoded at a time; bounds the memory.

    Raises:
        ValueError: If the codec is not a module or its prior has no parameters of its own.
        RuntimeError: If the fit diverged.
    """
    oracle = _copy_of(model)
    prior, decoder = _parameters_of(oracle, images)
    own = [parameter for parameter in prior if not any(parameter is other for other in decoder)]
    if not own:
        raise ValueError("the prior must have parameters of its own to be refitted, got none.")
    return _fitted(oracle, own, images, lmbda, steps=steps, generator=generator, batch=batch)


def fine_tune(
    model: Model, images: Tensor, lmbda: float, *, steps: int, generator: torch.Generator, batch: int = 16
) -> Model:
    """Return a copy of the codec whose decoder and prior are fitted to the images; arguments as `refit_prior`.

    Its `E[-log Gamma]` is an upper bound of `inf_w F_w` on these images.
    """
    oracle = _copy_of(model)
    prior, decoder = _parameters_of(oracle, images)
    both = [*prior, *(parameter for parameter in decoder if not any(parameter is other for other in prior))]
    if not both:
        raise ValueError("the codec must have parameters to be fine-tuned, got none.")
    return _fitted(oracle, both, images, lmbda, steps=steps, generator=generator, batch=batch)


def _copy_of(model: Model) -> Model:
    if not (isinstance(model, nn.Module) and isinstance(model, Codec)):
        raise ValueError(f"an oracle needs a codec that is a torch module, got {type(model).__name__}.")
    return copy.deepcopy(model).requires_grad_(True)


def _parameters_of(model: nn.Module, images: Tensor) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters that `log_prior` and those that `decode` depend on."""
    assert isinstance(model, Codec)
    with torch.no_grad():
        latents = model.infer(images[:1])

    def reached_from(output: Tensor) -> list[nn.Parameter]:
        if not output.requires_grad:
            return []
        parameters = list(model.parameters())
        gradients = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
        return [parameter for parameter, slope in zip(parameters, gradients, strict=True) if slope is not None]

    return reached_from(model.log_prior(latents)), reached_from(model.decode(latents))


def _fitted(
    oracle: Model,
    parameters: Iterable[nn.Parameter],
    images: Tensor,
    lmbda: float,
    *,
    steps: int,
    generator: torch.Generator,
    batch: int,
) -> Model:
    assert isinstance(oracle, Codec)
    parameters = list(parameters)
    posterior = Posterior(oracle, images, lmbda, batch=batch)
    q = fit_gaussian(posterior, steps=steps, generator=generator)
    mean, log_std = q.mean.clone(), q.log_std.clone()
    groups = [{"params": parameters, "lr": _LEARNING_RATE}, {"params": [mean, log_std], "lr": _LEARNING_RATE_OF_Q}]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in trange(steps, desc="oracle", leave=False, disable=None):
        optimizer.zero_grad()
        mean.grad, log_std.grad = torch.zeros_like(mean), torch.zeros_like(log_std)
        draw = {"dtype": mean.dtype, "device": mean.device, "generator": generator}
        noise = torch.randn(mean.shape, **draw)
        for start in range(0, len(images), max(1, batch // 2)):
            rows = slice(start, start + max(1, batch // 2))
            for sign in (1, -1):  # antithetic pairs, as in the fits
                std = log_std[rows].exp()
                points = (mean[rows] + sign * std * noise[rows]).requires_grad_()
                costs = cost(oracle, posterior.latents_of(points), images[rows], lmbda).lagrangian_nats
                costs.sum().div(2 * len(images)).backward()
                assert points.grad is not None
                slope = len(images) * points.grad - 0.5 * sign * noise[rows] / std  # of U + log q at fixed q
                mean.grad[rows] += slope
                log_std.grad[rows] += slope * sign * std * noise[rows]
        optimizer.step()
        schedule.step()
    if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
        raise RuntimeError("The oracle diverged: its parameters are not finite.")
    return oracle.eval().requires_grad_(False)
