"""NERD: reproductions made by a network from noise, the rate-distortion function by a plug-in mean (Lei et al. 2022).

The cost is `E[-log 1/m sum_j exp(-lmbda rho(X, g(z_j)))]` with m fresh draws of the noise: by Jensen's inequality an
upper bound in expectation of `E[-log Gamma]`, and so of `F`, whatever m. But it is close only while many of the m
draws share the description of a sample: at rates near `log m` one draw takes all of it, and the number says more about
m than about the source. How many share is measured, and too few are refused.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor, nn
from tqdm import trange

from .estimate import Estimate, check_counts, from_samples
from .source import VectorSource

FEWEST_SHARING = 10.0
"""Harmonic mean, over samples, of the codewords that share a description; below it the estimate is refused."""

_ROWS = 1024
_LEARNING_RATE = 3e-3
_WIDTH = 64
_TRAINING_CODEWORDS = 512


def nerd_upper_bound(
    source: VectorSource,
    lmbda: float,
    *,
    generator: torch.Generator,
    steps: int = 500,
    codewords: int = 20_000,
    batch: int = 256,
    samples: int = 10_000,
) -> Estimate:
    """Train a generator of reproductions and return its cost on fresh samples with fresh codewords.

    Args:
        source: Under squared error.
        lmbda: Nats per unit of distortion.
        generator: Source of all random numbers.
        steps: Of Adam.
        codewords: m of the measured cost, at least 2; training takes 512 at a time.
        batch: Samples of each step.
        samples: That the cost is measured on, at least 2.

    Raises:
        ValueError: If a count is too small.
        RuntimeError: If too few codewords share the description of a sample, because the rate is too close to `log m`.
    """
    began = time.perf_counter()
    check_counts(("steps", steps, 1), ("codewords", codewords, 2), ("batch", batch, 2), ("samples", samples, 2))
    network = _train(
        source, lmbda, steps=steps, codewords=min(codewords, _TRAINING_CODEWORDS), batch=batch, generator=generator
    )
    costs, distortions, sharing = [], [], []
    with torch.no_grad():
        for start in range(0, samples, _ROWS):
            x = source.sample(min(_ROWS, samples - start), generator)
            rho = source.distortions(x, network(_noise(source, codewords, generator)))
            costs.append(math.log(codewords) - torch.logsumexp(-lmbda * rho, 1))
            shares = (-lmbda * rho).softmax(1)
            distortions.append((shares * rho).sum(1))
            sharing.append(1 / shares.square().sum(1))
    estimate = from_samples(
        torch.cat(costs), torch.cat(distortions), method="nerd", side="upper", lmbda=lmbda, began=began
    )
    few = float(1 / (1 / torch.cat(sharing)).mean())
    if few < FEWEST_SHARING:
        raise RuntimeError(
            f"nerd: {FEWEST_SHARING:g} of the {codewords} codewords must share the description of a sample, got "
            f"{few:.1f} at lmbda {lmbda:g}: the rate is too close to log m = {math.log(codewords):.1f} nats."
        )
    return estimate


def _noise(source: VectorSource, number: int, generator: torch.Generator) -> Tensor:
    return torch.randn(number, source.intrinsic_dim, dtype=torch.double, generator=generator)


def _train(
    source: VectorSource, lmbda: float, *, steps: int, codewords: int, batch: int, generator: torch.Generator
) -> nn.Module:
    example = source.sample(2000, generator)
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(
            torch.Generator().manual_seed(int(torch.randint(2**31, (), generator=generator))).get_state()
        )
        network = _Generator(source.intrinsic_dim, example)
    optimizer = torch.optim.Adam(network.parameters(), _LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in trange(steps, desc="nerd", leave=False, disable=None):
        x = source.sample(batch, generator)
        rho = source.distortions(x, network(_noise(source, codewords, generator)))
        loss = -torch.logsumexp(-lmbda * rho, 1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


class _Generator(nn.Module):
    """The affine map that has the source's mean and covariance, plus a network: training starts at the Gaussian."""

    def __init__(self, noise_dim: int, example: Tensor) -> None:
        super().__init__()
        dim = example.shape[1]
        covariance = example.T.cov().reshape(dim, dim)
        values, vectors = torch.linalg.eigh(covariance)
        kept = values.topk(min(noise_dim, dim)).indices
        linear = torch.zeros(noise_dim, dim, dtype=torch.double)
        linear[: len(kept)] = (vectors[:, kept] * values[kept].clamp(min=0).sqrt()).T
        self.mean, self.linear = nn.Parameter(example.mean(0)), nn.Parameter(linear)
        self.network = nn.Sequential(
            nn.Linear(noise_dim, _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, dim)
        ).double()
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.scale = float(values.clamp(min=0).mean().sqrt())

    def forward(self, noise: Tensor) -> Tensor:
        return self.mean + noise @ self.linear + self.scale * self.network(noise)
