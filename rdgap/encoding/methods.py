"""Relaxations of rounding that iterative encoding follows, and their schedule.

Stochastic Gumbel annealing, SGA (Yang, Bamler & Mandt 2020): a symbol `v` between two integers is replaced by a mixture
of both, a relaxed one-hot sample whose log-odds grow with the fraction `r = v - floor(v)` and with falling temperature:

    sga          ( atanh(r) - atanh(1 - r) ) / tau
    sga-linear   log( r / (1 - r) ) / tau                probability r of rounding up, at tau = 1
    sga-cosine   2 log( tan(pi r / 2) ) / tau            probability sin^2(pi r / 2)
    sga-ssl      a log( r / (1 - r) ) / tau              sigmoid-scaled logit, a = 4/3

The last three are SGA+ (Perugachi-Diaz, Gansekoele & Bhulai, arXiv 2401.17789). The weight of the upper integer is
`sigmoid((log-odds + noise) / tau)` with logistic noise, which is how the difference of two Gumbel variables is
distributed.

`straight-through`, the baseline, rounds and takes the slope of the identity (Theis et al. 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PAPER_STEPS = 3000
"""Steps that the schedule is given for; with fewer it runs faster."""

_EDGE = 1e-5  # arguments stay away from the poles of atanh and logit by this much
_HOTTEST, _COOLING, _COOLING_START = 0.5, 5e-4, 200
_SCALED_LOGIT = 4 / 3
_MOST_HASTE = 5.0

Relaxation = Callable[[Tensor, float, Sequence[torch.Generator]], Tensor]
"""Maps symbols (images, ...), the temperature and a generator per image to symbols that the slope is taken at."""


@dataclass(frozen=True)
class Method:
    """A relaxation and the step size of Adam that suits it.

    Attributes:
        relax: The relaxation.
        learning_rate: Step size in symbols, for 3000 steps.
    """

    relax: Relaxation
    learning_rate: float = 5e-3

    def default_learning_rate(self, steps: int) -> float:
        """Return the step size for `steps`, times `sqrt(3000 / steps)`: a random walk of any length goes as far.

        At most five times, beyond which single steps are too large to end anywhere.
        """
        return self.learning_rate * min(_MOST_HASTE, math.sqrt(PAPER_STEPS / steps))


@dataclass(frozen=True)
class Annealed:
    """Mixture of the two integers next to each symbol, random at high temperature, the nearer one at temperature zero.

    Attributes:
        log_odds: Maps fractions in (0, 1) to log-odds of rounding up at temperature 1.
    """

    log_odds: Callable[[Tensor], Tensor]

    def __call__(self, symbols: Tensor, temperature: float, generators: Sequence[torch.Generator]) -> Tensor:
        """Draw a mixture for each symbol; differentiable in `symbols`."""
        floor = symbols.detach().floor()
        log_odds = self.log_odds(symbols - floor) / temperature
        return floor + torch.sigmoid((log_odds + _logistic_noise(symbols, generators)) / temperature)


def straight_through(symbols: Tensor, temperature: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Round; the slope is that of the identity."""
    del temperature, generators  # nothing is random, nothing is annealed
    return symbols + (symbols.round() - symbols).detach()


def atanh_log_odds(fraction: Tensor) -> Tensor:
    """Return the log-odds of SGA."""
    return torch.atanh(fraction.clamp(max=1 - _EDGE)) - torch.atanh((1 - fraction).clamp(max=1 - _EDGE))


def linear_log_odds(fraction: Tensor) -> Tensor:
    """Return the log-odds of a probability that is the fraction itself."""
    return torch.logit(fraction.clamp(_EDGE, 1 - _EDGE))


def cosine_log_odds(fraction: Tensor) -> Tensor:
    """Return the log-odds of the probability `sin^2(pi r / 2)`."""
    return 2 * torch.log(torch.tan(0.5 * math.pi * fraction.clamp(_EDGE, 1 - _EDGE)))


def scaled_logit_log_odds(fraction: Tensor) -> Tensor:
    """Return the log-odds of the sigmoid-scaled logit."""
    return _SCALED_LOGIT * linear_log_odds(fraction)


METHODS = {
    "sga": Method(Annealed(atanh_log_odds)),
    "sga-linear": Method(Annealed(linear_log_odds)),
    "sga-cosine": Method(Annealed(cosine_log_odds)),
    "sga-ssl": Method(Annealed(scaled_logit_log_odds)),
    "straight-through": Method(straight_through, learning_rate=5e-4),  # larger ones make nothing but noise
}
"""The methods by the names that commands and tables know them by."""


def temperature(step: int, steps: int) -> float:
    """Return `tau` at a step: `.5 exp(-5e-4 max(0, t - 200))`, where `t` runs from 0 to 3000 whatever `steps` is."""
    paper_step = step * PAPER_STEPS / steps
    return _HOTTEST * math.exp(-_COOLING * max(0.0, paper_step - _COOLING_START))


def learning_rate_factor(step: int, steps: int) -> float:
    """Return 1, and 0.1 after 90 % of the steps."""
    return 1.0 if step < 0.9 * steps else 0.1


def _logistic_noise(symbols: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw standard logistic noise, each image by its own generator so that its noise is its own in any batch."""
    draw = {"dtype": symbols.dtype, "device": symbols.device}
    uniform = torch.stack([torch.rand(symbols.shape[1:], generator=generator, **draw) for generator in generators])
    return torch.logit(uniform.clamp(1e-7, 1 - 1e-7))
