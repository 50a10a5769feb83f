"""What annealing costs: a leapfrog step beside one gradient of the log joint, and the seconds to -log Gamma.

python -m benchmarks.gaps PHOTO

Both sides of the first comparison evaluate the same points at the same batch in float32, in turn; the ratio is the
median over repeats. The second anneals a 64 x 64 crop with ever more temperatures and says when the bound is within
.01 bpp of that of the longest schedule, fit included.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rdgap import _cli
from rdgap.gaps import Posterior, anneal, fit_gaussian
from rdgap.gaps.hmc import transition
from rdgap.gaps.path import GaussianPath
from rdgap.images import random_crop, read_image
from rdgap.objective import cost, nats_to_bpp
from rdgap.zoo import load_codec

LMBDA, CROP, CHAINS, LEAPFROG_STEPS, REPEATS = 0.01, 64, 16, 5, 9
SCHEDULES, LONGEST, CLOSE_BPP = (10, 20, 50, 100), 200, 0.01


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("photo", type=Path)
    arguments.add_argument("--model", nargs="+", default=["two-layer-lite", "mean-scale-lite"])
    return _cli.run(_measure, arguments, argv)


def _measure(options: argparse.Namespace) -> None:
    crop = random_crop(read_image(options.photo), CROP, torch.Generator().manual_seed(0))[None]
    for model in options.model:
        _compare_steps(model, crop)
        _time_to_gamma(model, crop)


def _compare_steps(model: str, crop: Tensor) -> None:
    posterior = Posterior(load_codec(model, LMBDA), crop, LMBDA, batch=CHAINS)
    generator = torch.Generator().manual_seed(0)
    path = GaussianPath(posterior, fit_gaussian(posterior, steps=20, generator=generator))
    state = path.start(CHAINS, generator)
    points = path.base.at(state.points)[:, 0]

    def leapfrog() -> None:
        transition(
            state,
            path,
            beta=0.5,
            step_size=torch.full((1,), 0.1),
            leapfrog_steps=LEAPFROG_STEPS,
            generator=generator,
        )

    def plain() -> None:
        for _ in range(LEAPFROG_STEPS):
            rows = points.detach().requires_grad_()
            joint = cost(posterior.model, posterior.latents_of(rows), crop, LMBDA).lagrangian_nats
            torch.autograd.grad(joint.sum(), rows)

    leapfrog()
    plain()
    times = [(_seconds(leapfrog), _seconds(plain)) for _ in range(REPEATS)]
    step, gradient = (1e3 * statistics.median(column) / LEAPFROG_STEPS for column in zip(*times, strict=True))
    ratio = statistics.median(ours / other for ours, other in times)
    print(
        f"{model}: leapfrog step of {CHAINS} chains {step:.1f} ms, one gradient of the log joint {gradient:.1f} ms, "
        f"ratio {ratio:.2f}",
        flush=True,
    )


def _time_to_gamma(model: str, crop: Tensor) -> None:
    posterior = Posterior(load_codec(model, LMBDA), crop, LMBDA, batch=CHAINS, bf16=True)
    generator = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    base = fit_gaussian(posterior, steps=300, generator=generator)
    fit_seconds = time.perf_counter() - began

    def bound_bpp(temperatures: int) -> float:
        estimate = anneal(posterior, base, chains=4, temperatures=temperatures, generator=generator)
        return float(nats_to_bpp(estimate.neg_log_gamma_upper_nats, posterior.num_pixels))

    longest = bound_bpp(LONGEST)
    for temperatures in SCHEDULES:
        began = time.perf_counter()
        excess = bound_bpp(temperatures) - longest
        seconds = fit_seconds + time.perf_counter() - began
        print(f"{model}: {temperatures:4d} temperatures {seconds:6.1f} s, {excess:+.4f} bpp over {LONGEST}", flush=True)
        if excess < CLOSE_BPP:
            break


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
