"""Importance-weighted bound of `log Gamma` (Burda et al. 2016), from any `q` that covers the posterior."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .ais import jackknife_stderr, log_mean_exp
from .posterior import Posterior
from .variational import Box, Gaussian


@dataclass(frozen=True, kw_only=True)
class ImportanceEstimate:
    """Estimate of `-log Gamma` of each image from independent draws of `q`.

    Attributes:
        log_weights_nats: `-U(z) - log q(z)` of each draw, (samples, images), double precision; `E[exp(.)] = Gamma`.
    """

    log_weights_nats: Tensor

    @property
    def neg_log_gamma_upper_nats(self) -> Tensor:
        """`-log mean exp` of the weights, (images,): in expectation an upper bound, which falls with more samples."""
        return -log_mean_exp(self.log_weights_nats)

    @property
    def stderr_nats(self) -> Tensor:
        """Jackknife standard error, (images,)."""
        return jackknife_stderr(self.log_weights_nats)

    @property
    def effective_samples(self) -> Tensor:
        """Effective sample size of the weights, (images,), from 1 to the number of samples."""
        return 1 / self.log_weights_nats.softmax(0).square().sum(0)


def importance_bound(
    posterior: Posterior, q: Gaussian, *, samples: int, generator: torch.Generator
) -> ImportanceEstimate:
    """Bound `-log Gamma` from above by the average of `samples` importance weights.

    Args:
        posterior: Target.
        q: A Gaussian for each image; the tighter it fits, the tighter the bound.
        samples: Draws per image, at least 2.
        generator: Source of the draws.

    Raises:
        ValueError: If `q` is a box, or there are fewer than two samples.
    """
    if isinstance(q, Box):
        raise ValueError(
            "`q` must have mass wherever the posterior has: a unit box has none outside itself, so that its weights "
            "converge to the part of Gamma inside the box, however many they are. Fit a Gaussian (`fit_gaussian`)."
        )
    if samples < 2:
        raise ValueError(f"`samples` must be at least 2, got {samples}.")
    return ImportanceEstimate(log_weights_nats=-q.sample_cost(posterior, samples, generator))
