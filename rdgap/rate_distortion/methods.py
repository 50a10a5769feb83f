"""Every method under one name, with the effort that the command spends on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .blahut_arimoto import blahut_arimoto, on_grid
from .dual import dual_lower_bound
from .estimate import Estimate
from .mixture import mixture_upper_bound
from .nerd import nerd_upper_bound
from .ntc import operational_cost, train_codec
from .particles import particle_upper_bound
from .source import DiscreteSource, Source, VectorSource
from .sources import Gaussian, LaplaceAbsolute

METHODS = ("known", "ba", "mixture", "wgd", "dual", "nerd", "ntc")
"""`known` closed forms or bounds; `ba` Blahut-Arimoto; upper bounds `mixture`, `wgd` (particles), `nerd`, `ntc` (a
codec that is trained); `dual` lower bound."""

_MOST_MIXED = 128  # dimensions beyond which a mixture of full covariances takes minutes


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Sizes of the estimators that have any; the standard error falls with `samples`, the bias with the others."""

    samples: int = 20_000
    components: int = 32
    particles: int = 256
    codewords: int = 10_000
    steps: int = 300
    codec_steps: int = 1000
    batch: int = 1024
    batches: int = 40


def suitable(source: Source) -> tuple[str, ...]:
    """Return the methods that give something for the source in a minute or so."""
    if not isinstance(source, VectorSource):
        return ("known", "ba")
    low = source.intrinsic_dim <= 10
    chosen = ["known"]
    if source.dim <= 2 and source.quadrature(2) is not None:
        chosen.append("ba")
    if source.intrinsic_dim > 1 or source.dim <= 2:
        chosen.append("mixture")
    if low:
        chosen += ["wgd", "dual"]
    return tuple(chosen)


def estimates(
    source: Source, lmbda: float, methods: Sequence[str], *, generator: torch.Generator, effort: Effort | None = None
) -> tuple[list[Estimate], list[str]]:
    """Return what each method says of `F(lmbda)`, and what those said that refused.

    Args:
        source: Any source.
        lmbda: Nats per unit of distortion.
        methods: Names among `METHODS`; `dual` takes `Gamma` from the mixture, or from the particles where the mixture
            is not asked for.
        generator: Source of all random numbers.
        effort: Sizes.

    Raises:
        ValueError: If a method is unknown or cannot work on the source.
    """
    check_methods(source, methods)
    effort = effort or Effort()
    found: list[Estimate] = []
    refusals: list[str] = []
    gamma: tuple[Callable[[Tensor], Tensor], Tensor] | None = None
    for method in (name for name in METHODS if name in methods):
        try:
            if method == "known":
                found += known(source, lmbda)
            elif method == "ba":
                found += _grid(source, lmbda)
            elif isinstance(source, VectorSource):
                if method == "dual":
                    evaluate, starts = gamma or _gamma(source, lmbda, effort, generator)
                    sizes = {"batch": effort.batch, "batches": effort.batches}
                    found.append(dual_lower_bound(source, lmbda, evaluate, generator=generator, starts=starts, **sizes))
                else:
                    estimate, evaluate = upper_bound(source, lmbda, method, effort, generator)
                    found.append(estimate)
                    gamma = gamma or evaluate
        except RuntimeError as error:
            refusals.append(str(error))
    return found, refusals


def check_methods(source: Source, methods: Sequence[str]) -> None:
    """Raise `ValueError` unless all methods are known and can work on the source."""
    for method in methods:
        if method not in METHODS:
            raise ValueError(f"a method must be one of {', '.join(METHODS)}, got {method!r}.")
        if method == "ba" and isinstance(source, VectorSource) and source.quadrature(2) is None:
            raise ValueError(f"ba needs a finite alphabet or a source of one or two coordinates, got {source.name}.")
        if method not in ("known", "ba") and not isinstance(source, VectorSource):
            raise ValueError(f"{method} needs vectors under squared error, got {source.name}.")


def known(source: Source, lmbda: float) -> list[Estimate]:
    """Return the closed form, or else the known bounds."""
    point = source.point(lmbda)
    if point is not None:
        return [point]
    lower, upper = source.bounds(lmbda)
    sides = [Estimate(method="known bound", side="lower", lmbda=lmbda, f_nats=lower)]
    if upper < float("inf"):
        sides.append(Estimate(method="known bound", side="upper", lmbda=lmbda, f_nats=upper))
    return sides


def _grid(source: Source, lmbda: float) -> list[Estimate]:
    if isinstance(source, DiscreteSource):
        (solution,) = blahut_arimoto(source.probabilities, source.table, [lmbda])
        return [solution.upper, solution.lower]
    assert isinstance(source, VectorSource | LaplaceAbsolute)
    (solution,) = on_grid(source, [lmbda])
    return [replace(solution.upper, method="Blahut-Arimoto, grid", side="estimate")]


def _gamma(
    source: VectorSource, lmbda: float, effort: Effort, generator: torch.Generator
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    method = "mixture" if source.dim <= _MOST_MIXED else "wgd"
    evaluate = upper_bound(source, lmbda, method, effort, generator)[1]
    assert evaluate is not None
    return evaluate


def upper_bound(
    source: VectorSource, lmbda: float, method: str, effort: Effort, generator: torch.Generator
) -> tuple[Estimate, tuple[Callable[[Tensor], Tensor], Tensor] | None]:
    """Return an upper bound and, where there is one, its `-log Gamma` with the places where reproductions are."""
    if method == "mixture":
        one = isinstance(source, Gaussian)  # is its own best component; a covariance takes many samples
        estimate, mixture = mixture_upper_bound(
            source,
            lmbda,
            generator=generator,
            components=1 if one else effort.components,
            training_samples=100_000 if one and source.dim > 100 else 20_000 if source.dim <= 100 else 50_000,
            samples=effort.samples,
        )
        return estimate, (mixture.neg_log_gamma, mixture.means)
    if method == "wgd":
        estimate, particles = particle_upper_bound(
            source,
            lmbda,
            generator=generator,
            particles=effort.particles,
            steps=effort.steps,
            batch=512,
            samples=effort.samples,
        )
        return estimate, (lambda x: particles.neg_log_gamma(source, x), particles.points)
    if method == "nerd":
        sizes = {"steps": 4 * effort.steps, "codewords": effort.codewords, "samples": effort.samples // 2}
        return nerd_upper_bound(source, lmbda, generator=generator, **sizes), None
    codec = train_codec(source, lmbda, generator=generator, steps=effort.codec_steps)
    return operational_cost(codec, source, lmbda, generator=generator, samples=effort.samples), None
