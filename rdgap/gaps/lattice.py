"""The hard-rounded codec: a lattice with a probability mass function, and so with a `Gamma` of its own.

    rounded = -log Gamma_lattice + determinism gap + search gap

`Gamma_lattice = sum_k P(k) exp(-kappa SSE(x, g(k)))` over all lattice points. A codec that sends one point pays at
least the best single point; what that costs over `-log Gamma_lattice` is the *determinism gap*, which only bits-back
coding or channel simulation recovers. What the encoder's own point costs over the best one is the *search gap*, which
iterative encoding recovers. None of these numbers may be mixed with those of the noise channel.

Estimates walk over the integers that stand for lattice points (`LatticeCodec`): annealed importance sampling from a
discretised Gaussian, with moves that propose -1, 0 or +1 for all symbols at once, weighted by half the slope (locally
balanced proposals, Zanella 2020; Zhang et al. 2022) and corrected by Metropolis and Hastings.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from ..model import Codec, Latents, LatticeCodec
from ..objective import nats_to_bpp
from .ais import jackknife_stderr, log_mean_exp, sigmoid_schedule
from .decomposition import check_arguments, check_estimates
from .posterior import Posterior
from .variational import Gaussian, fit_gaussian

if TYPE_CHECKING:
    import pandas as pd

_WINDOW = 12  # integers to each side over which a discretised Gaussian is normalised; it has no others
_NARROWEST_STD = 0.2
_WIDEST_STD = 3.0
_TARGET_ACCEPTANCE = 0.6
_ADAPTATION_RATE = 0.5
_COLDEST = 30.0  # inverse temperature at which the search for the best point ends


@dataclass(frozen=True, kw_only=True)
class RoundedDecomposition:
    """Where the bits of the hard-rounded codec go, for each image.

        rounded = -log Gamma_lattice + determinism gap + search gap

    All tensors are (images,), double precision, on the CPU.

    Attributes:
        rounded_bpp: Cost of the encoder's own lattice point, exact.
        best_point_upper_bpp: Least cost among all points that were visited: an upper bound of the best point's.
        neg_log_gamma_upper_bpp: `-log Gamma_lattice`; in expectation an upper bound.
        neg_log_gamma_upper_stderr_bpp: Its Monte Carlo error.
        acceptance: Mean acceptance probability of the moves while weighing.
        chains: Number of annealed chains.
        temperatures: Number of annealing steps.
        seconds: Wall-clock time per image.
        num_pixels: Of one image.
        lmbda: Weight of the MSE in bits per pixel.
    """

    rounded_bpp: Tensor
    best_point_upper_bpp: Tensor
    neg_log_gamma_upper_bpp: Tensor
    neg_log_gamma_upper_stderr_bpp: Tensor
    acceptance: Tensor
    chains: int
    temperatures: int
    seconds: float
    num_pixels: int
    lmbda: float

    @property
    def search_gap_lower_bpp(self) -> Tensor:
        """Encoder's point less the best one: a lower bound, exact as far as it goes."""
        return self.rounded_bpp - self.best_point_upper_bpp

    @property
    def determinism_gap_bpp(self) -> Tensor:
        """Best point less `-log Gamma_lattice`: no side, because both terms are upper bounds."""
        return self.best_point_upper_bpp - self.neg_log_gamma_upper_bpp

    @property
    def inference_gap_lower_bpp(self) -> Tensor:
        """Encoder's point less `-log Gamma_lattice`, the sum of the two gaps: in expectation a lower bound."""
        return self.rounded_bpp - self.neg_log_gamma_upper_bpp

    def to_frame(self) -> pd.DataFrame:
        """Return one row per image, a column per cost and gap; their common error is that of `-log Gamma_lattice`."""
        import pandas as pd

        names = ("rounded", "best_point_upper", "neg_log_gamma_upper", "neg_log_gamma_upper_stderr")
        gaps = ("search_gap_lower", "determinism_gap", "inference_gap_lower")
        columns = {"lmbda": self.lmbda, "num_pixels": self.num_pixels}
        columns |= {f"{name}_bpp": getattr(self, f"{name}_bpp").numpy() for name in (*names, *gaps)}
        columns |= {"acceptance": self.acceptance.numpy(), "chains": self.chains, "temperatures": self.temperatures}
        return pd.DataFrame(columns | {"seconds": self.seconds})


class _Symbols:
    """A codec whose latents are the integers of another one's lattice points."""

    def __init__(self, codec: LatticeCodec) -> None:
        self._codec = codec

    def infer(self, images: Tensor) -> Latents:
        return self._codec.to_symbols(self._codec.infer(images))

    def quantize(self, latents: Latents) -> Latents:
        return tuple(latent.round() for latent in latents)

    def log_prior(self, latents: Latents) -> Tensor:
        return self._codec.log_prior(self._codec.from_symbols(latents))

    def decode(self, latents: Latents) -> Tensor:
        return self._codec.decode(self._codec.from_symbols(latents))


class _Base:
    """Independent discretised Gaussians over the integers within a window of their means."""

    def __init__(self, fitted: Gaussian) -> None:
        self.mean = fitted.mean
        self.variance = fitted.log_std.exp().clamp(_NARROWEST_STD, _WIDEST_STD).square()
        self._centre = self.mean.round()
        offsets = torch.arange(-_WINDOW, _WINDOW + 1, dtype=self.mean.dtype, device=self.mean.device)
        logits = -((self._centre[..., None] + offsets - self.mean[..., None]).square() / (2 * self.variance[..., None]))
        self._log_normalizer = logits.logsumexp(-1)
        self._cumulative = (logits - self._log_normalizer[..., None]).exp().cumsum(-1)

    def sample(self, chains: int, generator: torch.Generator) -> Tensor:
        draw = {"dtype": self.mean.dtype, "device": self.mean.device, "generator": generator}
        uniform = torch.rand((chains, *self.mean.shape), **draw)
        index = (uniform[..., None] > self._cumulative).sum(-1).clamp(max=2 * _WINDOW)
        return self._centre + index - _WINDOW

    def energy(self, symbols: Tensor) -> Tensor:
        """`-log q`, (chains, images), infinite outside the window."""
        per_symbol = (symbols - self.mean).square() / (2 * self.variance) + self._log_normalizer
        outside = ((symbols - self._centre).abs() > _WINDOW).any(-1)
        return torch.where(outside, torch.inf, per_symbol.double().sum(-1))

    def slope(self, symbols: Tensor) -> Tensor:
        return (symbols - self.mean) / self.variance


@dataclass(frozen=True)
class _State:
    symbols: Tensor  # (chains, images, dim)
    base: Tensor  # (chains, images)
    target: Tensor
    base_slope: Tensor  # (chains, images, dim)
    target_slope: Tensor

    def energy(self, beta: float) -> Tensor:
        # Written so that an infinite base energy does not meet the factor zero.
        return beta * self.target if beta >= 1 else (1 - beta) * self.base + beta * self.target

    def slope(self, beta: float) -> Tensor:
        return beta * self.target_slope if beta >= 1 else (1 - beta) * self.base_slope + beta * self.target_slope

    def where(self, chosen: Tensor, other: _State) -> _State:
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__)
        return _State(*(torch.where(chosen[..., None] if a.ndim > chosen.ndim else chosen, a, b) for a, b in pairs))


def decompose_rounded(
    model: Codec,
    images: Tensor,
    lmbda: float,
    *,
    generator: torch.Generator,
    chains: int = 8,
    temperatures: int = 50,
    moves: int = 5,
    fit_steps: int = 300,
    batch: int = 16,
    bf16: bool = False,
) -> RoundedDecomposition:
    """Split the cost of the hard-rounded codec on each image.

    Args:
        model: A codec that names its lattice points (`LatticeCodec`).
        images: (images, channels, height, width), in [0, 1].
        lmbda: Weight of the MSE (0..255 scale) in bits per pixel.
        generator: Source of all random numbers, on the device of the images.
        chains: Annealed chains for each image, at least 2.
        temperatures: Annealing steps, at least 2; half as many follow in search of the best point.
        moves: Metropolis-Hastings moves at each temperature.
        fit_steps: Optimization steps of the Gaussian that is discretised.
        batch: Most latents that are decoded at a time; bounds the memory.
        bf16: Let fits and proposals follow slopes in bfloat16.

    Raises:
        ValueError: If the codec does not name its lattice points, or an argument is out of its range.
        RuntimeError: If an estimate is not finite.
    """
    check_arguments(
        images, lmbda, chains=chains, temperatures=temperatures, moves=moves, fit_steps=fit_steps, batch=batch
    )
    if not isinstance(model, LatticeCodec):
        raise ValueError(
            "the rounded codec needs `to_symbols(latents)` and `from_symbols(symbols)`, "
            f"got {type(model).__name__}, which lacks them."
        )
    began = time.perf_counter()
    posterior = Posterior(_Symbols(model), images, lmbda, batch=batch, bf16=bf16)
    base = _Base(fit_gaussian(posterior, steps=fit_steps, generator=generator))
    rounded = posterior.energy(posterior.location)
    best = rounded

    def state_of(symbols: Tensor) -> _State:
        nonlocal best
        there = posterior.evaluate(symbols)
        target = there.rate_nats + there.distortion_nats
        best = torch.minimum(best, torch.where(target.isfinite(), target, torch.inf).amin(0))
        slope = there.rate_slope + there.distortion_slope
        return _State(symbols, base.energy(symbols), target, base.slope(symbols), slope)

    def moved(state: _State, beta: float, boldness: Tensor) -> tuple[_State, Tensor]:
        propose = _Proposal(base.variance, beta, boldness)
        symbols, forward = propose.draw(state, generator)
        proposal = state_of(symbols)
        gain = state.energy(beta) - proposal.energy(beta) + propose.log_probability(proposal, state.symbols) - forward
        probability = torch.where(gain.isfinite(), gain.clamp(max=0).exp(), 0.0)
        draw = torch.rand(probability.shape, dtype=probability.dtype, device=gain.device, generator=generator)
        return proposal.where(draw < probability, state), probability

    def tuned(state: _State, beta: float, boldness: Tensor) -> tuple[_State, Tensor]:
        for _ in range(moves):
            state, probability = moved(state, beta, boldness)
            boldness = boldness + _ADAPTATION_RATE * (probability.mean(0) - _TARGET_ACCEPTANCE)
        return state, boldness

    betas = sigmoid_schedule(temperatures)
    boldness = torch.full((len(images),), -2.0, dtype=torch.double, device=images.device)  # log of how often to move
    state, frozen = state_of(base.sample(max(2, chains // 4), generator)), []
    for beta in tqdm(betas[1:], desc="lattice moves", leave=False, disable=None):
        state, boldness = tuned(state, beta, boldness)
        frozen.append(boldness)

    state, acceptance = state_of(base.sample(chains, generator)), []
    sums = torch.zeros_like(state.target)
    for index, (beta, next_beta) in enumerate(pairwise(betas)):
        if index:
            for _ in range(moves):
                state, probability = moved(state, beta, frozen[index - 1])
                acceptance.append(probability.mean(0))
        sums = sums + (next_beta - beta) * (state.target - state.base)

    cooling = torch.logspace(0, 1, max(2, temperatures // 2), base=_COLDEST).tolist()
    for beta in cooling:
        state, boldness = tuned(state, beta, boldness)
    nats = {
        "rounded_bpp": rounded,
        "best_point_upper_bpp": best,
        "neg_log_gamma_upper_bpp": -log_mean_exp(-sums),
        "neg_log_gamma_upper_stderr_bpp": jackknife_stderr(-sums),
    }
    check_estimates(nats)
    return RoundedDecomposition(
        **{name: nats_to_bpp(amount, posterior.num_pixels).cpu() for name, amount in nats.items()},
        acceptance=torch.stack(acceptance).mean(0).cpu(),
        chains=chains,
        temperatures=temperatures,
        seconds=(time.perf_counter() - began) / len(images),
        num_pixels=posterior.num_pixels,
        lmbda=lmbda,
    )


class _Proposal:
    """Steps of -1, 0 and +1, independent for each symbol given where the chain is.

    A step `d` has weight `exp(-1/2 (slope d + curvature d^2 / 2) + boldness d^2)`, with the curvature of the fitted
    Gaussian, because the slope alone says little about a whole step.
    """

    def __init__(self, variance: Tensor, beta: float, boldness: Tensor) -> None:
        self._beta = beta
        self._offset = boldness[:, None].to(variance.dtype) - max(1.0, beta) / (4 * variance)

    def _logits(self, state: _State) -> Tensor:
        slope = 0.5 * state.slope(self._beta)
        rest = torch.zeros_like(slope)
        return torch.stack([slope + self._offset, rest, -slope + self._offset], -1).log_softmax(-1)

    def draw(self, state: _State, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return proposed symbols and the log-probability of proposing them, (chains, images)."""
        logits = self._logits(state)
        uniform = torch.rand(state.symbols.shape, dtype=logits.dtype, device=logits.device, generator=generator)
        cumulative = logits.exp().cumsum(-1)
        step = (uniform > cumulative[..., 0]).to(logits.dtype) + (uniform > cumulative[..., 1]).to(logits.dtype) - 1
        return state.symbols + step, self._picked(logits, step)

    def log_probability(self, state: _State, symbols: Tensor) -> Tensor:
        """Return the log-probability of proposing `symbols` from `state`, (chains, images)."""
        return self._picked(self._logits(state), symbols - state.symbols)

    @staticmethod
    def _picked(logits: Tensor, step: Tensor) -> Tensor:
        return logits.gather(-1, (step + 1).long()[..., None])[..., 0].double().sum(-1)
