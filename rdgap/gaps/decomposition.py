"""Costs of the encoder's `q`, of fitted `q` and of the ideal channel for each image, and the gaps between them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..model import Codec
from ..objective import check_lmbda, nats_to_bpp
from .ais import anneal
from .posterior import Posterior
from .variational import fit_box, fit_gaussian, sample_box_cost

if TYPE_CHECKING:
    import pandas as pd

COSTS = ("encoder", "fitted_box", "fitted_gaussian", "neg_log_gamma_upper")
GAPS = ("amortization_gap_lower", "approximation_gap", "inference_gap_lower")


@dataclass(frozen=True, kw_only=True)
class GapDecomposition:
    """The inference gap of each image and its parts, for the noise channel of a codec.

        encoder = -log Gamma  +  approximation gap  +  amortization gap      (cost: bpp + lmbda * mse)

    All tensors are (images,), double precision, on the CPU. `*_stderr_bpp` is the Monte Carlo error of the estimate of
    that image, nothing else. A gap's name carries its side; the sides of `-log Gamma` and of what follows from it hold
    in expectation.

    Attributes:
        encoder_bpp: Cost of the encoder's `q`, the unit box around its output.
        fitted_box_bpp: Cost of a unit box fitted to the image: an upper bound on the best box.
        fitted_gaussian_bpp: Cost of a fitted diagonal Gaussian, from which the annealing starts: an upper bound on
            the best of its family. It belongs to no gap.
        neg_log_gamma_upper_bpp: `-log Gamma`, the cost of the ideal channel, by annealed importance sampling.
        rounded_bpp: Cost of the hard-rounded codec. It belongs to another model, the lattice with its probability
            mass function, which has a `Gamma` of its own: never subtract it from the others.
        acceptance: Mean acceptance probability of HMC.
        effective_chains: Effective sample size of the annealed weights; near 1 the standard error is unreliable.
        chains: Number of annealed chains.
        temperatures: Number of annealing steps.
        seconds: Wall-clock time per image.
        num_pixels: Of one image.
        lmbda: Weight of the MSE in bits per pixel.
    """

    encoder_bpp: Tensor
    encoder_stderr_bpp: Tensor
    fitted_box_bpp: Tensor
    fitted_box_stderr_bpp: Tensor
    fitted_gaussian_bpp: Tensor
    fitted_gaussian_stderr_bpp: Tensor
    neg_log_gamma_upper_bpp: Tensor
    neg_log_gamma_upper_stderr_bpp: Tensor
    rounded_bpp: Tensor
    acceptance: Tensor
    effective_chains: Tensor
    chains: int
    temperatures: int
    seconds: float
    num_pixels: int
    lmbda: float

    @property
    def amortization_gap_lower_bpp(self) -> Tensor:
        """Encoder minus fitted box: a lower bound, because the best box may be better than the fitted one."""
        return self.encoder_bpp - self.fitted_box_bpp

    @property
    def amortization_gap_lower_stderr_bpp(self) -> Tensor:
        """Standard error of the amortization gap."""
        return torch.hypot(self.encoder_stderr_bpp, self.fitted_box_stderr_bpp)

    @property
    def approximation_gap_bpp(self) -> Tensor:
        """Fitted box minus `-log Gamma`: neither a lower nor an upper bound, because both terms are upper bounds."""
        return self.fitted_box_bpp - self.neg_log_gamma_upper_bpp

    @property
    def approximation_gap_stderr_bpp(self) -> Tensor:
        """Standard error of the approximation gap."""
        return torch.hypot(self.fitted_box_stderr_bpp, self.neg_log_gamma_upper_stderr_bpp)

    @property
    def inference_gap_lower_bpp(self) -> Tensor:
        """Encoder minus `-log Gamma`, the sum of the two gaps: in expectation a lower bound."""
        return self.encoder_bpp - self.neg_log_gamma_upper_bpp

    @property
    def inference_gap_lower_stderr_bpp(self) -> Tensor:
        """Standard error of the inference gap."""
        return torch.hypot(self.encoder_stderr_bpp, self.neg_log_gamma_upper_stderr_bpp)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per image, a column per cost, gap, standard error and diagnostic."""
        import pandas as pd

        columns = {"lmbda": self.lmbda, "num_pixels": self.num_pixels}
        for name in (*COSTS, *GAPS):
            columns |= {f"{name}{unit}": getattr(self, f"{name}{unit}").numpy() for unit in ("_bpp", "_stderr_bpp")}
        for name in ("rounded_bpp", "acceptance", "effective_chains"):
            columns[name] = getattr(self, name).numpy()
        return pd.DataFrame(
            columns | {"chains": self.chains, "temperatures": self.temperatures, "seconds": self.seconds}
        )


def decompose(
    model: Codec,
    images: Tensor,
    lmbda: float,
    *,
    generator: torch.Generator,
    chains: int = 16,
    temperatures: int = 100,
    fit_steps: int = 500,
    samples: int = 64,
    batch: int = 16,
) -> GapDecomposition:
    """Split the cost of each image into the cost of the ideal channel and the gaps of the encoder.

    Args:
        model: Any codec of the protocol in `rdgap.model`, on the device of the images.
        images: (images, channels, height, width), in [0, 1].
        lmbda: Weight of the MSE (0..255 scale) in bits per pixel.
        generator: Source of all random numbers, on the device of the images.
        chains: Annealed chains for each image, at least 2.
        temperatures: Annealing steps, at least 2.
        fit_steps: Optimization steps of each fitted `q`.
        samples: Draws from each `q`, at least 2, for its cost.
        batch: Most latents that are decoded at a time; bounds the memory.

    Raises:
        ValueError: If an argument is out of its range.
        RuntimeError: If an estimate is not finite, or `-log Gamma` is negative beyond its error, which no
            normalized prior allows.

    Example:
        >>> import torch
        >>> from rdgap.gaps import decompose
        >>> from rdgap.model import from_modules
        >>> normal = torch.distributions.Normal(0.0, 1.0)
        >>> codec = from_modules(lambda x: 8 * x, lambda y: y / 8, lambda y: normal.log_prob(y).sum((1, 2, 3)))
        >>> gaps = decompose(codec, torch.full((1, 3, 2, 2), 0.1), 0.01, generator=torch.Generator().manual_seed(0))
        >>> bool(gaps.inference_gap_lower_bpp > 0)
        True
    """
    _check(images, lmbda, chains=chains, temperatures=temperatures, fit_steps=fit_steps, samples=samples, batch=batch)
    began = time.perf_counter()
    posterior = Posterior(model, images, lmbda, batch=batch)
    box = fit_box(posterior, steps=fit_steps, generator=generator)
    gaussian = fit_gaussian(posterior, steps=fit_steps, generator=generator)
    estimate = anneal(posterior, gaussian, chains=chains, temperatures=temperatures, generator=generator)

    costs_nats = {
        "encoder": sample_box_cost(posterior, posterior.location, samples, generator),
        "fitted_box": sample_box_cost(posterior, box, samples, generator),
        "fitted_gaussian": gaussian.sample_cost(posterior, samples, generator),
    }
    nats = {f"{name}_bpp": draws.mean(0) for name, draws in costs_nats.items()}
    nats |= {f"{name}_stderr_bpp": draws.std(0) / samples**0.5 for name, draws in costs_nats.items()}
    nats["neg_log_gamma_upper_bpp"] = estimate.neg_log_gamma_upper_nats
    nats["neg_log_gamma_upper_stderr_bpp"] = estimate.stderr_nats
    nats["rounded_bpp"] = posterior.rounded_nats
    _check_estimates(nats)
    return GapDecomposition(
        **{name: nats_to_bpp(amount, posterior.num_pixels).cpu() for name, amount in nats.items()},
        acceptance=estimate.acceptance.cpu(),
        effective_chains=estimate.effective_chains.cpu(),
        chains=chains,
        temperatures=temperatures,
        seconds=(time.perf_counter() - began) / len(images),
        num_pixels=posterior.num_pixels,
        lmbda=lmbda,
    )


def _check(images: Tensor, lmbda: float, **counts: int) -> None:
    check_lmbda(lmbda)
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"`images` must be (images, channels, height, width), got {tuple(images.shape)}.")
    for name, count in counts.items():
        least = 1 if name in ("fit_steps", "batch") else 2  # a standard error and a path need two
        if count < least:
            raise ValueError(f"`{name}` must be at least {least}, got {count}.")


def _check_estimates(nats: dict[str, Tensor]) -> None:
    for name, amount in nats.items():
        if not amount.isfinite().all():
            raise RuntimeError(f"`{name}` is not finite for {int((~amount.isfinite()).sum())} of {len(amount)} images.")
    negative = nats["neg_log_gamma_upper_bpp"] + 5 * nats["neg_log_gamma_upper_stderr_bpp"] < -1e-3
    if negative.any():
        lowest = float(nats["neg_log_gamma_upper_bpp"].min())
        raise RuntimeError(
            f"`-log Gamma` must not be negative, got {lowest:.3f} nats: the codec's prior integrates to more than 1."
        )
