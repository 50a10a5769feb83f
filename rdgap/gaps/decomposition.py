"""Costs of the encoder's `q`, of fitted `q` and of the ideal channel for each image, and the gaps between them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..model import Codec
from ..objective import check_lmbda, nats_to_bpp
from .ais import LEAPFROG_STEPS, TARGET_ACCEPTANCE, anneal_from_each
from .pilot import widen
from .posterior import Posterior, flatten
from .variational import Box, fit_box, fit_gaussian

if TYPE_CHECKING:
    import pandas as pd

COSTS = ("encoder", "fitted_box", "fitted_gaussian", "neg_log_gamma_upper")
GAPS = ("amortization_gap_lower", "approximation_gap", "inference_gap_lower")


@dataclass(frozen=True, kw_only=True)
class SourceBounds:
    """What is known of the source's own R-D function, in bits per pixel; by default that costs are not negative.

    Attributes:
        irreducible_lower_bpp: Lower bound of `inf_w F_w`.
        irreducible_upper_bpp: Upper bound of it.
        fixed_decoder_lower_bpp: Lower bound of `F_g`, the same for the codec's own decoder.
        fixed_decoder_upper_bpp: Upper bound of it.
    """

    irreducible_lower_bpp: float = 0.0
    irreducible_upper_bpp: float = math.inf
    fixed_decoder_lower_bpp: float = 0.0
    fixed_decoder_upper_bpp: float = math.inf

    def __post_init__(self) -> None:
        """Refuse bounds that cross."""
        for name in ("irreducible", "fixed_decoder"):
            lower, upper = getattr(self, f"{name}_lower_bpp"), getattr(self, f"{name}_upper_bpp")
            if not 0 <= lower <= upper:
                raise ValueError(f"`{name}` bounds must satisfy 0 <= lower <= upper, got {lower} and {upper}.")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Mean over images with its two errors kept apart, in bits per pixel.

    Attributes:
        mean_bpp: Mean over images, equally weighted.
        estimator_stderr_bpp: Monte Carlo error of that mean.
        image_stderr_bpp: How far it may be from the mean of all images like these; NaN for one image.
    """

    mean_bpp: float
    estimator_stderr_bpp: float
    image_stderr_bpp: float


@dataclass(frozen=True, kw_only=True)
class GapDecomposition:
    """Every term of Eq. 24 for the noise channel of a codec on some images.

        encoder = irreducible + modeling gap + approximation gap + amortization gap      (cost: bpp + lmbda * mse)
                  '------- -log Gamma -----'   '--------- inference gap ---------'

    All tensors are (images,), double precision, on the CPU. `*_stderr_bpp` is the Monte Carlo error of the estimate of
    that image, nothing else. A term's name carries its side; the sides of `-log Gamma` and of what follows from it hold
    in expectation.

    Attributes:
        encoder_bpp: Cost of the encoder's `q`, the unit box around its output.
        fitted_box_bpp: Cost of a unit box fitted to the image: an upper bound on the best box.
        fitted_gaussian_bpp: Cost of a fitted diagonal Gaussian: an upper bound on the best of its family. It belongs
            to no gap. Half of the annealed chains start from it, half from what pilot chains have widened it to, see
            `widen`.
        neg_log_gamma_upper_bpp: `-log Gamma`, the cost of the ideal channel, by annealed importance sampling.
        equilibrium_lower_bpp: `-log Gamma` by right sums of thermodynamic integration along the same chains: a lower
            bound as far as they are in equilibrium.
        rounded_bpp: Cost of the hard-rounded codec. It belongs to another model, the lattice with its probability
            mass function, which has a `Gamma` of its own: never subtract it from the others.
        acceptance: Mean acceptance probability of HMC.
        divergent_share: Share of HMC proposals whose energy was not finite or jumped by 1000 nats.
        effective_chains: Effective sample size of the annealed weights; near 1 the standard error is unreliable.
        source: What is known of the source.
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
    equilibrium_lower_bpp: Tensor
    equilibrium_lower_stderr_bpp: Tensor
    rounded_bpp: Tensor
    acceptance: Tensor
    divergent_share: Tensor
    effective_chains: Tensor
    source: SourceBounds = SourceBounds()
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

    def mean(self, name: str) -> Estimate:
        """Return the mean over images of a cost or gap, called as its field or property less `_bpp`."""
        amount, stderr = getattr(self, f"{name}_bpp"), getattr(self, f"{name}_stderr_bpp")
        number = len(amount)
        return Estimate(
            mean_bpp=float(amount.mean()),
            estimator_stderr_bpp=float(stderr.norm()) / number,
            image_stderr_bpp=float(amount.std()) / number**0.5 if number > 1 else math.nan,
        )

    @property
    def modeling_gap_interval_bpp(self) -> tuple[float, float]:
        """What decoder and prior lose against the best of all, `E[-log Gamma] - inf_w F_w`: lower and upper bound.

        The upper one holds in expectation, the lower one as far as the chains are in equilibrium as well.
        """
        return self._over(self.source.irreducible_lower_bpp, self.source.irreducible_upper_bpp)

    @property
    def prior_gap_interval_bpp(self) -> tuple[float, float]:
        """What the prior loses for the codec's own decoder, `E[-log Gamma] - F_g`: lower and upper bound."""
        return self._over(self.source.fixed_decoder_lower_bpp, self.source.fixed_decoder_upper_bpp)

    @property
    def transform_gap_interval_bpp(self) -> tuple[float, float]:
        """What the decoder loses, `F_g - inf_w F_w`: lower and upper bound."""
        known, ideal = self.source, float(self.neg_log_gamma_upper_bpp.mean())
        upper = min(known.fixed_decoder_upper_bpp, ideal) - known.irreducible_lower_bpp
        return max(0.0, known.fixed_decoder_lower_bpp - known.irreducible_upper_bpp), upper

    def _over(self, lower: float, upper: float) -> tuple[float, float]:
        """Return the interval of `E[-log Gamma]` less something between `lower` and `upper`; not below zero.

        Chains that lag behind raise right sums, even above the upper bound: they count up to that.
        """
        ideal = float(self.neg_log_gamma_upper_bpp.mean())
        least = min(float(self.equilibrium_lower_bpp.mean()), ideal)
        return max(0.0, least - upper), ideal - lower

    def to_frame(self) -> pd.DataFrame:
        """Return one row per image, a column per cost, gap, standard error and diagnostic."""
        import pandas as pd

        columns = {"lmbda": self.lmbda, "num_pixels": self.num_pixels}
        for name in (*COSTS, "equilibrium_lower", *GAPS):
            columns |= {f"{name}{unit}": getattr(self, f"{name}{unit}").numpy() for unit in ("_bpp", "_stderr_bpp")}
        for name in ("rounded_bpp", "acceptance", "divergent_share", "effective_chains"):
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
    chains: int = 8,
    temperatures: int = 100,
    leapfrog_steps: int = LEAPFROG_STEPS,
    target_acceptance: float = TARGET_ACCEPTANCE,
    fit_steps: int = 300,
    samples: int = 64,
    batch: int = 16,
    bf16: bool = False,
    source: SourceBounds | None = None,
) -> GapDecomposition:
    """Split the cost of each image into the cost of the ideal channel and the gaps of the encoder.

    Args:
        model: Any codec of the protocol in `rdgap.model`, on the device of the images.
        images: (images, channels, height, width), in [0, 1].
        lmbda: Weight of the MSE (0..255 scale) in bits per pixel.
        generator: Source of all random numbers, on the device of the images.
        chains: Annealed chains for each image, at least 2.
        temperatures: Annealing steps, at least 2.
        leapfrog_steps: Of each HMC move between two temperatures.
        target_acceptance: Mean acceptance probability that HMC's step sizes are tuned for.
        fit_steps: Optimization steps of each fitted `q`.
        samples: Draws from each `q`, at least 2, for its cost.
        batch: Most latents that are decoded at a time; bounds the memory.
        bf16: Let fits and HMC follow slopes in bfloat16; energies stay in full precision, and so do all bounds.
        source: What is known of the source's R-D function, for the modeling gap.

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
    check_arguments(
        images,
        lmbda,
        chains=chains,
        temperatures=temperatures,
        leapfrog_steps=leapfrog_steps,
        fit_steps=fit_steps,
        samples=samples,
        batch=batch,
    )
    if not 0 < target_acceptance < 1:
        raise ValueError(f"`target_acceptance` must lie between 0 and 1, got {target_acceptance}.")
    began = time.perf_counter()
    posterior = Posterior(model, images, lmbda, batch=batch, bf16=bf16)
    box = fit_box(posterior, steps=fit_steps, generator=generator)
    gaussian = fit_gaussian(posterior, steps=fit_steps, generator=generator)
    estimate = anneal_from_each(
        posterior,
        (gaussian, widen(posterior, gaussian, generator=generator)),
        chains=chains,
        temperatures=temperatures,
        generator=generator,
        leapfrog_steps=leapfrog_steps,
        target_acceptance=target_acceptance,
    )
    draws = {
        "encoder": Box(location=posterior.location).sample_cost(posterior, samples, generator),
        "fitted_box": box.sample_cost(posterior, samples, generator),
        "fitted_gaussian": gaussian.sample_cost(posterior, samples, generator),
        "equilibrium_lower": estimate.lower_sums_nats,
    }
    nats = {f"{name}_bpp": each.mean(0) for name, each in draws.items()}
    nats |= {f"{name}_stderr_bpp": each.std(0) / len(each) ** 0.5 for name, each in draws.items()}
    nats["neg_log_gamma_upper_bpp"] = estimate.neg_log_gamma_upper_nats
    nats["neg_log_gamma_upper_stderr_bpp"] = estimate.stderr_nats
    rounded = [flatten(model.quantize(posterior.latents_of(row[None]))) for row in posterior.location]
    nats["rounded_bpp"] = posterior.energy(torch.cat(rounded))
    check_estimates(nats)
    return GapDecomposition(
        **{name: nats_to_bpp(amount, posterior.num_pixels).cpu() for name, amount in nats.items()},
        acceptance=estimate.acceptance.cpu(),
        divergent_share=estimate.divergent_share.cpu(),
        effective_chains=estimate.effective_chains.cpu(),
        source=source or SourceBounds(),
        chains=chains,
        temperatures=temperatures,
        seconds=(time.perf_counter() - began) / len(images),
        num_pixels=posterior.num_pixels,
        lmbda=lmbda,
    )


def check_arguments(images: Tensor, lmbda: float, **counts: int) -> None:
    """Raise `ValueError` unless there are images and every count is at least what its estimator needs."""
    check_lmbda(lmbda)
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"`images` must be (images, channels, height, width), got {tuple(images.shape)}.")
    for name, count in counts.items():
        least = (
            1 if name in ("fit_steps", "batch", "leapfrog_steps", "moves") else 2
        )  # a standard error and a path need two
        if count < least:
            raise ValueError(f"`{name}` must be at least {least}, got {count}.")


def check_estimates(nats: dict[str, Tensor]) -> None:
    """Raise `RuntimeError` if an estimate is not finite or `-log Gamma` is negative beyond its error."""
    for name, amount in nats.items():
        if not amount.isfinite().all():
            raise RuntimeError(f"`{name}` is not finite for {int((~amount.isfinite()).sum())} of {len(amount)} images.")
    negative = nats["neg_log_gamma_upper_bpp"] + 5 * nats["neg_log_gamma_upper_stderr_bpp"] < -1e-3
    if negative.any():
        lowest = float(nats["neg_log_gamma_upper_bpp"].min())
        raise RuntimeError(
            f"`-log Gamma` must not be negative, got {lowest:.3f} nats: the codec's prior integrates to more than 1."
        )
