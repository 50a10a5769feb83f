"""`F(lmbda)` of finite alphabets to certified accuracy, by Newton steps on the few reproductions that are used.

Blahut's and Arimoto's problem is `min_q E[-log sum_j q_j exp(-lmbda rho(X, j))]`, convex in the probabilities `q` of
the reproductions. With `Gamma = sum_j q_j exp(-lmbda rho)` and `w_j = E[exp(-lmbda rho(X, j)) / Gamma(X)]` every `q`
gives

    E[-log Gamma] - log max_j w_j  <=  F(lmbda)  <=  E[-log Gamma],

and the iteration stops when the two meet. Their own iteration `q <- q w` halves its error ever more slowly, because
most reproductions end with probability 0 and only creep there. Here it is only the first phase and the safeguard. In
between, reproductions that symbols ask for enter the support, those that a quadratic model of the cost sets to 0 leave
it, and on the support the step is Newton's (Wang 2007 and Kim et al. 2020 solve mixtures of known components so).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from ..objective import check_lmbda
from .estimate import Estimate
from .source import DiscreteSource, VectorSource
from .sources import LaplaceAbsolute

_FIRST_ITERATIONS = 20  # of the plain iteration, to find the support
_MOST_STEPS = 500


@dataclass(frozen=True, kw_only=True)
class Certified:
    """The solution at one lmbda; the two estimates enclose `F` of the finite alphabets.

    Attributes:
        upper: Cost of the channel found, an upper bound.
        lower: Its dual, a lower bound.
        probabilities: Of the reproductions, (reproductions,).
        neg_log_gamma_nats: `-log Gamma` of each symbol, (symbols,).
        steps: Newton steps.
    """

    upper: Estimate
    lower: Estimate
    probabilities: Tensor
    neg_log_gamma_nats: Tensor
    steps: int


def blahut_arimoto(
    probabilities: Tensor, distortions: Tensor, lmbdas: Sequence[float], *, tolerance_nats: float = 1e-8
) -> list[Certified]:
    """Solve for each lmbda until upper and lower bound differ by less than the tolerance.

    Exponents are taken relative to each symbol's nearest reproduction, so that nothing over- or underflows at any
    lmbda.

    Args:
        probabilities: Of the symbols, (symbols,), sum 1.
        distortions: (symbols, reproductions), finite.
        lmbdas: Nats per unit of distortion.
        tolerance_nats: Of the difference of the bounds.

    Returns:
        Solutions in the order of `lmbdas`.

    Raises:
        ValueError: If a table is no probability or distortion, or the tolerance is not positive.
        RuntimeError: If the bounds did not meet.

    Example:
        >>> import torch
        >>> from rdgap.rate_distortion import blahut_arimoto
        >>> (solution,) = blahut_arimoto(torch.tensor([0.5, 0.5]), 1 - torch.eye(2), [math.log(9)])
        >>> round(solution.upper.distortion, 6)
        0.1
    """
    source = DiscreteSource(probabilities.double() / probabilities.double().sum(), distortions)
    if not tolerance_nats > 0:
        raise ValueError(f"`tolerance_nats` must be positive, got {tolerance_nats}.")
    for lmbda in lmbdas:
        check_lmbda(lmbda)
    occurring = source.probabilities > 0
    table = source.table.numpy()
    solutions: list[Certified] = []
    for lmbda in lmbdas:
        began = time.perf_counter()
        problem = _Problem(source.probabilities[occurring].numpy(), table[occurring.numpy()], lmbda)
        weights, steps = problem.solve(tolerance_nats)
        upper, excess, _ = problem.evaluate(weights)
        rate, distortion = problem.rate_and_distortion(weights)
        neg_log_gamma = _neg_log_gamma(table, weights, lmbda)
        shared = {"method": "Blahut-Arimoto", "lmbda": lmbda, "seconds": time.perf_counter() - began}
        solutions.append(
            Certified(
                upper=Estimate(side="upper", f_nats=upper, rate_nats=rate, distortion=distortion, **shared),
                lower=Estimate(side="lower", f_nats=upper - excess, **shared),
                probabilities=torch.from_numpy(weights),
                neg_log_gamma_nats=torch.from_numpy(neg_log_gamma),
                steps=steps,
            )
        )
    return solutions


class _Problem:
    """The convex problem at one lmbda: symbols of positive probability `p`, `kernel` relative to the nearest."""

    def __init__(self, p: np.ndarray, distortions: np.ndarray, lmbda: float) -> None:
        self.p, self.lmbda, self.distortions = p, lmbda, distortions
        self.nearest = distortions.min(1)
        self.kernel = np.exp(-lmbda * (distortions - self.nearest[:, None]))
        self.floor = lmbda * float(p @ self.nearest)

    def cost(self, gamma: np.ndarray) -> float:
        """Return `E[-log Gamma]`, infinite where a symbol cannot be described."""
        if not gamma.min() > 0:
            return math.inf
        return self.floor - float(self.p @ np.log(gamma))

    def evaluate(self, weights: np.ndarray) -> tuple[float, float, np.ndarray]:
        """Return the upper bound, how far the lower one is below, and `w`, of probabilities of sum 1."""
        support = np.flatnonzero(weights)
        gamma = self.kernel[:, support] @ weights[support]
        wanted = (self.p / gamma) @ self.kernel
        return self.cost(gamma), max(0.0, math.log(wanted.max())), wanted

    def rate_and_distortion(self, weights: np.ndarray) -> tuple[float, float]:
        """Return rate and distortion of the channel with output probabilities `weights`."""
        support = np.flatnonzero(weights)
        joint = self.kernel[:, support] * weights[support]
        gamma = joint.sum(1)
        distortion = float((self.p / gamma) @ (joint * self.distortions[:, support]).sum(1))
        return max(0.0, self.cost(gamma) - self.lmbda * distortion), distortion

    def solve(self, tolerance: float) -> tuple[np.ndarray, int]:
        """Return probabilities whose bounds differ by less than `tolerance`, and the steps that they took."""
        size = self.kernel.shape[1]
        weights = np.full(size, 1 / size)
        for _ in range(_FIRST_ITERATIONS):
            _, excess, wanted = self.evaluate(weights)
            if excess <= tolerance:
                return weights, 0
            weights = weights * wanted
        # Each symbol names the reproduction that serves it best: what lies between the names is superfluous.
        named = np.unique((np.log(np.maximum(weights, 1e-300)) + self._log_kernel).argmax(1))
        kept = np.zeros(size)
        kept[named] = weights[named]
        weights = kept / kept.sum()
        excess = math.inf
        for step in range(1, _MOST_STEPS + 1):
            upper, excess, wanted = self.evaluate(weights)
            if excess <= tolerance:
                return weights, step
            weights = self._step(weights, wanted, upper, tolerance)
        raise RuntimeError(
            f"Blahut-Arimoto: the bounds must meet within {tolerance} nats, "
            f"they differ by {excess} at lmbda {self.lmbda}."
        )

    @property
    def _log_kernel(self) -> np.ndarray:
        return -self.lmbda * (self.distortions - self.nearest[:, None])

    def _step(self, weights: np.ndarray, wanted: np.ndarray, upper: float, tolerance: float) -> np.ndarray:
        """Admit reproductions, minimise the quadratic model over the support, go as far that way as the cost falls."""
        support = np.flatnonzero(weights)
        asking = wanted > 1 + 0.5 * tolerance
        if asking.any():
            best = np.flatnonzero(asking)
            named = best[(np.log(wanted[best]) + self._log_kernel[:, best]).argmax(1)]
            support = np.union1d(support, np.append(named, wanted.argmax()))
        kernel = self.kernel[:, support]
        gamma = kernel @ weights[support]
        scaled = kernel * (np.sqrt(self.p) / gamma)[:, None]
        target = _quadratic_minimum(scaled, np.sqrt(self.p), weights[support])
        direction = np.zeros_like(weights)
        direction[support] = target - weights[support]
        slope = float((1 - wanted) @ direction)
        rounding = 1e-14 * (1 + abs(upper))  # the last steps lower the cost by less than it can resolve
        length = 1.0
        while length > 1e-10:
            candidate = np.maximum(weights + length * direction, 0)
            candidate /= candidate.sum()
            moved = self.kernel[:, support] @ candidate[support]
            if self.cost(moved) <= upper + 0.1 * length * min(slope, 0.0) + rounding:
                break
            length /= 4
        else:
            candidate = weights
            moved = gamma
        # One plain iteration: it never raises the cost, and moves on where the model is of no use.
        candidate = candidate * ((self.p / moved) @ self.kernel)
        kept = np.where(candidate < 1e-14 * candidate.max(), 0, candidate)
        chosen = kept if math.isfinite(self.cost(self.kernel @ kept)) else candidate
        return chosen / chosen.sum()


def _quadratic_minimum(scaled: np.ndarray, root: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the probabilities `z` of least `|scaled z - 2 root|^2`, the quadratic model of the cost.

    With `sum z = 1` that is `|M z|^2`, `M = scaled - 2 root 1^T`; its least value among probabilities is at `u / sum
    u`, `u` the least squares solution of `M u = 0`, `sum u = 1` over `u >= 0` (Dax 1990). Where reproductions can
    hardly be told apart the solver may go round in circles: then `z` is held to the present weights, as softly as will
    do.
    """
    homogeneous = scaled - 2 * root[:, None]
    size = homogeneous.shape[1]
    if len(homogeneous) > size:
        homogeneous = np.linalg.qr(homogeneous, mode="r")
    system = np.vstack([homogeneous, np.ones(size)])
    sizes = np.linalg.norm(system, axis=0)  # rare symbols make columns of very different size
    system, target = system / sizes, np.append(np.zeros(len(homogeneous)), 1.0)
    for hold in (0.0, 1e-9, 1e-7, 1e-5, 1e-3):
        held = np.vstack([system, hold * np.eye(size)]) if hold else system
        aim = np.append(target, hold * sizes * weights) if hold else target
        try:
            solution = optimize.nnls(held, aim)[0] / sizes
        except RuntimeError:
            continue
        return solution / solution.sum()
    return weights


def _neg_log_gamma(distortions: np.ndarray, weights: np.ndarray, lmbda: float) -> np.ndarray:
    support = np.flatnonzero(weights)
    exponents = np.log(weights[support]) - lmbda * distortions[:, support]
    largest = exponents.max(1)
    return -(largest + np.log(np.exp(exponents - largest[:, None]).sum(1)))


def on_grid(
    source: VectorSource | LaplaceAbsolute, lmbdas: Sequence[float], *, size: int = 0, tolerance_nats: float = 1e-6
) -> list[Certified]:
    """Solve for a continuous source of one or two coordinates, with nodes of quadrature for symbols.

    Reproductions are a regular grid over the box around the nodes (the nodes themselves where that would be the same or
    a box has too many dimensions). The bounds enclose `F` of the finite problem; that of the source differs by the
    quadrature and the grid.

    Args:
        source: With a `quadrature`.
        lmbdas: As for `blahut_arimoto`.
        size: Nodes and reproductions along each coordinate; by default 1000 for one coordinate, 60 for two.
        tolerance_nats: Of the difference of the bounds.

    Raises:
        ValueError: If the source has no quadrature.
    """
    size = size or (400 if source.dim == 1 else 60)
    found = source.quadrature(size)
    if found is None:
        raise ValueError(f"a grid needs a source of one or two coordinates, got {source.name}.")
    nodes, shares = found
    grid = nodes
    if source.dim == 2:
        axes = [torch.linspace(float(low), float(high), size, dtype=torch.double) for low, high in _box(nodes, shares)]
        grid = torch.cartesian_prod(*axes)
    return blahut_arimoto(shares, source.distortions(nodes, grid), lmbdas, tolerance_nats=tolerance_nats)


def _box(nodes: Tensor, shares: Tensor) -> Tensor:
    """Return where nodes that matter begin and end in each coordinate, (dim, 2)."""
    inside = nodes[shares > 1e-9]
    return torch.stack([inside.amin(0), inside.amax(0)], 1)
