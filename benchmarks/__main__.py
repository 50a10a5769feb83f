"""`python -m benchmarks`: this library beside what else one could use, as ratios measured in one run.

Each comparison runs both sides in turn, several times, and quotes the median ratio; both results are compared first.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from . import bd_rate, blahut_arimoto, curvature

REPEATS = 7


def seconds(run: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Print a line per comparison."""
    print(f"{'what':46} {'here':>10} {'other':>10} {'other/here':>11}  disagreement")
    for module in (bd_rate, curvature, blahut_arimoto):
        for name, here, other, difference in module.comparisons():
            disagreement = difference(here(), other())  # also the warm-up
            times = [(seconds(here), seconds(other)) for _ in range(REPEATS)]
            ratio = statistics.median(slow / fast for fast, slow in times)
            fast, slow = (statistics.median(column) for column in zip(*times, strict=True))
            print(f"{name:46} {1e3 * fast:8.2f}ms {1e3 * slow:8.2f}ms {ratio:10.1f}x  {disagreement:.1e}", flush=True)


if __name__ == "__main__":
    main()
