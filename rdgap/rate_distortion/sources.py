"""Sources whose rate-distortion functions are known, in part or in full, and patches of photographs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import integrate, optimize, special
from torch import Tensor

from ..images import image_paths, read_rgb8
from ..objective import check_lmbda
from .estimate import Estimate
from .source import DiscreteSource, Source, VectorSource
from .water_filling import water_filling

_LUMA = (0.299, 0.587, 0.114)


class HammingSource(DiscreteSource):
    """Equally likely symbols, or two of any probability, under Hamming distortion: `R(D) = h(p) - h(D)` for two.

    Args:
        probabilities: Two numbers, or any number of equal ones.

    Raises:
        ValueError: If they are neither, so that no closed form is known.
    """

    def __init__(self, probabilities: Sequence[float], *, name: str = "hamming") -> None:
        pmf = torch.tensor(probabilities, dtype=torch.double)
        size = len(pmf)
        if size < 2 or (size > 2 and float(pmf.max() - pmf.min()) > 1e-12):
            raise ValueError(f"`probabilities` must be two, or equal ones, got {list(probabilities)}.")
        table = 1 - torch.eye(size, dtype=torch.double)
        super().__init__(pmf, table, name=name, unit="probability of a wrong symbol")

    def point(self, lmbda: float) -> Estimate:
        """Return the exact point: the channel is symmetric until the rate is zero."""
        check_lmbda(lmbda)
        others, largest = len(self.probabilities) - 1, float(1 - self.probabilities.max())
        distortion = float(special.expit(math.log(others) - lmbda))
        if distortion >= largest:
            return self._exact(lmbda, 0.0, largest)
        spent = float(special.entr(distortion) + special.entr(1 - distortion)) + distortion * math.log(others)
        return self._exact(lmbda, self.entropy_nats - spent, distortion)

    def bounds(self, lmbda: float) -> tuple[float, float]:
        """Return `F` twice."""
        f_nats = self.point(lmbda).f_nats
        return f_nats, f_nats


class Gaussian(VectorSource):
    """N(mean, covariance) under the sum of squared errors: reverse water-filling.

    Args:
        covariance: (dim, dim), positive definite.
        mean: (dim,); zero by default.
        name: Of the source.

    Raises:
        ValueError: If the covariance is not symmetric and positive definite.
    """

    def __init__(self, covariance: Tensor, mean: Tensor | None = None, *, name: str = "gaussian") -> None:
        covariance = covariance.double()
        if covariance.ndim != 2 or not torch.allclose(covariance, covariance.mT):
            raise ValueError(f"`covariance` must be a symmetric matrix, got {tuple(covariance.shape)}.")
        variances, directions = torch.linalg.eigh(covariance)
        if not float(variances[0]) > 0:
            raise ValueError(f"`covariance` must be positive definite, got an eigenvalue of {float(variances[0])}.")
        self.name, self.dim, self.variances = name, len(covariance), variances
        self.mean = torch.zeros(self.dim, dtype=torch.double) if mean is None else mean.double()
        self._root = directions * variances.sqrt()
        self.entropy_nats = 0.5 * float(torch.log(2 * math.pi * math.e * variances).sum())

    @staticmethod
    def spectrum(dim: int, *, seed: int = 0) -> Gaussian:
        """Return `dim` dimensions of variances from 4 down to 0.04, equal ratios apart, in random directions."""
        generator = torch.Generator().manual_seed(seed)
        directions = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.double, generator=generator)).Q
        variances = torch.logspace(math.log10(4), math.log10(0.04), dim, dtype=torch.double)
        covariance = (directions * variances) @ directions.T
        return Gaussian((covariance + covariance.T) / 2, name=f"gaussian-{dim}")

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Draw (number, dim)."""
        noise = torch.randn(number, self.dim, dtype=torch.double, generator=generator)
        return self.mean + noise @ self._root.T

    def point(self, lmbda: float) -> Estimate:
        """Return the exact point by reverse water-filling."""
        assert self.variances is not None
        rate, distortion = water_filling(self.variances, self.noise_variance(lmbda))
        return self._exact(lmbda, rate, self.weight * distortion)

    def quadrature(self, size: int) -> tuple[Tensor, Tensor] | None:
        """Return a grid along the eigendirections."""
        if self.dim > 2:
            return None
        nodes, shares = _normal_grid(self.dim, size)
        return self.mean + nodes @ self._root.T, shares


class Laplace(VectorSource):
    """Independent Laplace variables of scale `b` under the sum of squared errors; `R(D)` is bounded, not known."""

    def __init__(self, dim: int = 1, scale: float = 1.0) -> None:
        self.name, self.dim, self.scale = f"laplace-{dim}" if dim > 1 else "laplace", dim, scale
        self.variances = torch.full((dim,), 2 * scale**2, dtype=torch.double)
        self.entropy_nats = dim * (1 + math.log(2 * scale))

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Draw (number, dim)."""
        return _laplace(torch.rand(number, self.dim, dtype=torch.double, generator=generator), self.scale)

    def quadrature(self, size: int) -> tuple[Tensor, Tensor] | None:
        """Return bins of equal width out to 20 scales, each with its probability and its mean, in one dimension."""
        return _laplace_bins(self.scale, size) if self.dim == 1 else None


class LaplaceAbsolute(Source):
    """A Laplace variable of scale `b` under the absolute error: `R(D) = log(b / D)`.

    Blahut-Arimoto on `size` bins of equal width `h` is off by at most `error_nats(lmbda)`: rounding the source moves
    distortions by `E|X - X'|`, and rounding reproductions to the grid by `h / 2`.
    """

    name, dim, distortion_unit = "laplace-absolute", 1, "absolute error"

    def __init__(self, scale: float = 1.0) -> None:
        self.scale, self.entropy_nats = scale, 1 + math.log(2 * scale)

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Draw (number, 1)."""
        return _laplace(torch.rand(number, 1, dtype=torch.double, generator=generator), self.scale)

    def distortions(self, x: Tensor, y: Tensor) -> Tensor:
        """Return `rho` of each x (n, 1) and y (m, 1), (n, m)."""
        return (x - y.T).abs()

    def quadrature(self, size: int) -> tuple[Tensor, Tensor]:
        """Return bins of equal width out to 20 scales, each with its probability and its mean."""
        return _laplace_bins(self.scale, size)

    def error_nats(self, lmbda: float, size: int) -> float:
        """Return how far `F` of `size` bins may be from that of the source."""
        width = 40 * self.scale / size
        return lmbda * (width + 2 * self.scale * math.exp(-20))  # E|X - X'| <= h/2 within the bins, and the tails

    def point(self, lmbda: float) -> Estimate:
        """Return the exact point; the rate is zero where the mean error `b` costs less."""
        check_lmbda(lmbda)
        distortion = min(1 / lmbda, self.scale)
        return self._exact(lmbda, math.log(self.scale / distortion), distortion)

    def bounds(self, lmbda: float) -> tuple[float, float]:
        """Return `F` twice."""
        f_nats = self.point(lmbda).f_nats
        return f_nats, f_nats


class Banana(VectorSource):
    """The bent Gaussian of Balle et al. 2021 under the sum of squared errors, in the plane or embedded in n dimensions.

    `z ~ N(0, diag(9, 1/4))` is bent to `(z1, z2 - z1^2 / 10)`, rotated by -240 degrees and moved by (-1, -1). Bending
    keeps volumes, so that the entropy is that of `z`. The embedding is a random isometry: reproductions gain nothing
    outside its plane, and the R-D function is that of the plane.
    """

    def __init__(self, dim: int = 2, *, seed: int = 0) -> None:
        if dim < 2:
            raise ValueError(f"`dim` must be at least 2, got {dim}.")
        self.name, self.dim = "banana" if dim == 2 else f"banana-{dim}", dim
        self.variances = torch.tensor([9.0, 0.25 + 0.01 * 2 * 81], dtype=torch.double)
        self.entropy_nats = math.log(2 * math.pi * math.e * 1.5)
        generator = torch.Generator().manual_seed(seed)
        normal = torch.randn(dim, dim, dtype=torch.double, generator=generator)
        self._basis = torch.eye(2, dtype=torch.double) if dim == 2 else torch.linalg.qr(normal).Q[:, :2].T

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Draw (number, dim)."""
        return self._bend(torch.randn(number, 2, dtype=torch.double, generator=generator))

    def quadrature(self, size: int) -> tuple[Tensor, Tensor] | None:
        """Return the bent grid of `z`."""
        if self.dim > 2:
            return None
        nodes, shares = _normal_grid(2, size)
        return self._bend(nodes), shares

    def _bend(self, noise: Tensor) -> Tensor:
        first, second = 3 * noise[:, 0], 0.5 * noise[:, 1]
        angle = math.radians(-240)
        rotation = torch.tensor(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.double
        )
        bent = torch.stack([first, second - 0.1 * first.square()], 1)
        return (bent @ rotation.T - 1) @ self._basis


class Sphere(VectorSource):
    """A uniform point of the unit sphere plus Gaussian noise, under half the squared error.

    From `lmbda = 1 / noise` on, `X` is a reproduction plus the Gaussian `exp(-lmbda rho)`, so that Shannon's lower
    bound is `F`: at `1 / noise` reproductions lie on the sphere, at larger lmbdas on a fuzzy one.

    Args:
        dim: Of the space around the sphere, at least 2.
        noise: Variance of the noise in each dimension.
    """

    weight, distortion_unit = 0.5, "half SSE"

    def __init__(self, dim: int = 2, noise: float = 0.1) -> None:
        if dim < 2:
            raise ValueError(f"`dim` must be at least 2, got {dim}.")
        self.name, self.dim, self.noise = f"sphere-{dim}", dim, noise
        self.variances = torch.full((dim,), 1 / dim + noise, dtype=torch.double)
        self.entropy_nats = self._entropy()

    def _entropy(self) -> float:
        """Integrate `-log p` over the radius; `N(x; y, noise)` averaged over the sphere is a Bessel function."""
        dim, noise = self.dim, self.noise
        order = dim / 2 - 1

        def log_density(radius: float) -> float:
            argument = radius / noise
            bessel = math.log(special.ive(order, argument)) + argument
            average = special.gammaln(dim / 2) + order * math.log(2 / argument) + bessel
            return average - (radius**2 + 1) / (2 * noise) - 0.5 * dim * math.log(2 * math.pi * noise)

        log_area = math.log(2) + 0.5 * dim * math.log(math.pi) - special.gammaln(dim / 2)

        def integrand(radius: float) -> float:
            log_p = log_density(radius)
            return -log_p * math.exp(log_p + log_area + (dim - 1) * math.log(radius))

        largest = 1 + 12 * math.sqrt(noise) + math.sqrt(dim * noise)
        return integrate.quad(integrand, 1e-9, largest, epsabs=1e-12, epsrel=1e-12, limit=500)[0]

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Draw (number, dim)."""
        noise = torch.randn(2, number, self.dim, dtype=torch.double, generator=generator)
        return noise[0] / noise[0].norm(dim=1, keepdim=True) + math.sqrt(self.noise) * noise[1]

    def point(self, lmbda: float) -> Estimate | None:
        """Return the exact point from `lmbda = 1 / noise` on."""
        variance = self.noise_variance(lmbda)
        if variance > self.noise * (1 + 1e-12):
            return None
        rate = self.entropy_nats - 0.5 * self.dim * math.log(2 * math.pi * math.e * variance)
        return self._exact(lmbda, rate, 0.5 * self.dim * variance)

    def quadrature(self, size: int) -> tuple[Tensor, Tensor] | None:
        """Return rings about the circle, at radii from a grid of the noise's two coordinates, in two dimensions."""
        if self.dim > 2:
            return None
        axis = torch.linspace(-1 - 6 * math.sqrt(self.noise), 1 + 6 * math.sqrt(self.noise), size, dtype=torch.double)
        nodes = torch.cartesian_prod(axis, axis)
        radius = nodes.norm(dim=1)
        log_density = torch.special.i0e(radius / self.noise).log() - (radius - 1).square() / (2 * self.noise)
        return nodes, log_density.softmax(0)


class Sawbridge(VectorSource):
    """The process `X(t) = t - 1(t >= U)`, `U` uniform, under the squared error integrated over [0, 1] (Wagner & Balle).

    Paths are sampled at the middles of `dim` intervals. A reproduction that knows only a set of `U` is `t - G(t)` with
    the cumulative `G` of `U` on it, and `|X_u - X_v|^2 = |u - v|`.

    Known of `F`:

    - a quantizer of `U` with cells of lengths p_i has `D = sum p_i^2 / 6` and `H = -sum p_i log p_i`: an upper bound,
      and the optimum of codes for one sample at a time;
    - `log lmbda - 1`, a lower bound by the dual with constant multiplier: no `G` makes `INT exp(-lmbda rho(u, G)) du`
      larger than `e / lmbda`. The best one has `G' = lmbda G (1 - G)`, a logistic function: it is the mean of its own
      posterior, `G' = p` with `p ~ exp(-lmbda rho)`, where `d rho / du = 2 G - 1`.
    """

    distortion_unit = "integrated SE"
    name = "sawbridge"

    def __init__(self, dim: int = 256) -> None:
        self.dim, self.weight = dim, 1 / dim
        self._times = (torch.arange(dim, dtype=torch.double) + 0.5) / dim

    @property
    def intrinsic_dim(self) -> int:
        """Return 1: a path is known from its jump."""
        return 1

    def paths(self, jumps: Tensor) -> Tensor:
        """Return the paths (number, dim) that jump at `jumps`, (number,)."""
        return self._times - (self._times >= jumps[:, None]).double()

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Draw (number, dim)."""
        return self.paths(torch.rand(number, dtype=torch.double, generator=generator))

    def one_shot(self, lmbda: float) -> Estimate:
        """Return the least `H + lmbda D` of quantizers of a single sample.

        `-p log p + lmbda p^2 / 6` is convex in `p` from `3 / lmbda` on and concave below, so that in an optimum cells
        are of equal length, but for at most one that is shorter.
        """
        check_lmbda(lmbda)

        def cost(cells: Sequence[float] | np.ndarray) -> float:
            lengths = np.asarray(cells)
            return float(special.entr(lengths).sum() + lmbda * np.square(lengths).sum() / 6)

        candidates: list[np.ndarray] = []
        for number in range(1, math.ceil(lmbda / 3) + 3):
            candidates.append(np.full(number, 1 / number))

            def split(first: float, rest: int = number) -> np.ndarray:
                return np.concatenate([[first], np.full(rest, (1 - first) / rest)])

            grid = np.linspace(1e-6, 1 - 1e-6, 201)
            start = grid[int(np.argmin([cost(split(each)) for each in grid]))]
            found = optimize.minimize_scalar(
                lambda first, split=split: cost(split(first)),
                bounds=(max(1e-9, start - 5e-3), min(1 - 1e-9, start + 5e-3)),
                method="bounded",
                options={"xatol": 1e-12},
            )
            candidates.append(split(float(found.x)))
        best = min(candidates, key=cost)
        distortion = float(np.square(best).sum()) / 6
        return Estimate(
            method="one-shot optimum",
            side="upper",
            lmbda=lmbda,
            f_nats=cost(best),
            rate_nats=cost(best) - lmbda * distortion,
            distortion=distortion,
        )

    def bounds(self, lmbda: float) -> tuple[float, float]:
        """Return `log lmbda - 1` and the cost of the best quantizer, in nats."""
        return max(0.0, math.log(lmbda) - 1), self.one_shot(lmbda).f_nats


class Patches(VectorSource):
    """Square patches of photographs, luma on the 0..255 scale, under the sum of squared errors; `F` is not known.

    Args:
        images: Files, or folders of images.
        size: Side of the patches.

    Raises:
        ValueError: If an image is smaller than a patch.
    """

    def __init__(self, images: Sequence[Path], size: int = 8) -> None:
        self.name, self.size, self.dim = f"patches-{size}", size, size**2
        self._luma = []
        for path in image_paths(images):
            luma = torch.from_numpy(read_rgb8(path)).double() @ torch.tensor(_LUMA, dtype=torch.double)
            if min(luma.shape) < size:
                raise ValueError(f"{path}: must be at least {size} x {size}, got {luma.shape[0]} x {luma.shape[1]}.")
            self._luma.append(luma)

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Draw patches (number, size^2) from random images at random places."""
        which = torch.randint(len(self._luma), (number,), generator=generator)
        places = torch.rand(number, 2, dtype=torch.double, generator=generator)
        patches = torch.empty(number, self.dim, dtype=torch.double)
        for index, luma in enumerate(self._luma):
            rows = (which == index).nonzero()[:, 0]
            room = torch.tensor(luma.shape) - self.size + 1
            corners = (places[rows] * room).long()
            windows = luma.unfold(0, self.size, 1).unfold(1, self.size, 1)
            patches[rows] = windows[corners[:, 0], corners[:, 1]].reshape(len(rows), self.dim)
        return patches


def _normal_grid(dim: int, size: int) -> tuple[Tensor, Tensor]:
    """Return equally spaced points out to 6 standard deviations and their shares of a standard normal."""
    axis = torch.linspace(-6, 6, size, dtype=torch.double)
    nodes = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
    return nodes, (-0.5 * nodes.square().sum(1)).softmax(0)


def _laplace(uniform: Tensor, scale: float) -> Tensor:
    centred = uniform - 0.5
    return -scale * centred.sign() * torch.log1p(-2 * centred.abs())


def _laplace_bins(scale: float, size: int) -> tuple[Tensor, Tensor]:
    edges = torch.linspace(-20, 20, size + 1, dtype=torch.double)
    cumulative = torch.where(edges < 0, 0.5 * edges.exp(), 1 - 0.5 * (-edges).exp())
    # INT x p(x) dx up to an edge is -(1 + |x|) exp(-|x|) / 2 on either side
    moment = -0.5 * (1 + edges.abs()) * (-edges.abs()).exp()
    shares, means = cumulative.diff(), moment.diff()
    return scale * (means / shares)[:, None], shares / shares.sum()
