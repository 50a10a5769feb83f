"""What a second worker of a Dask cluster saves: the same gaps by one and by two workers on loopback, in one run.

python -m benchmarks.cluster PHOTOS

Workers have one thread each and are warmed up before the clock runs. Both sides measure in turn, several times; the
ratio is the median. The load of the machine is printed, because a busy one has no second core to give.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pandas as pd

from rdgap import _cli
from rdgap.gaps.__main__ import main as gaps
from rdgap.images import image_paths
from rdgap.schemas import GAPS
from rdgap.tables import read_table

REPEATS, IMAGES = 3, 24
SETTINGS = ["--crop", "64", "--temperatures", "5", "--fit-steps", "10", "--samples", "8"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("photos", type=Path)
    arguments.add_argument("--images", type=_cli.positive_int, default=IMAGES, help="how many of them")
    arguments.add_argument("--repeats", type=_cli.positive_int, default=REPEATS)
    return _cli.run(_measure, arguments, argv)


def _measure(options: argparse.Namespace) -> None:
    photos = [str(path) for path in image_paths([options.photos])[: options.images]]
    with tempfile.TemporaryDirectory() as folder, _clusters((1, 2)) as addresses:
        ratios, tables = [], []
        for address in addresses.values():
            _seconds(photos[:4], Path(folder, "warm-up.csv"), address)  # two jobs: one for each worker
        for repeat in range(options.repeats):
            files = {number: Path(folder, f"{number}-{repeat}.csv") for number in addresses}
            seconds = {number: _seconds(photos, files[number], addresses[number]) for number in addresses}
            tables += [read_table(file, GAPS).drop(columns="seconds") for file in files.values()]
            ratios.append(seconds[1] / seconds[2])
            print(
                f"{len(photos)} images: one worker {seconds[1]:.1f} s, two workers {seconds[2]:.1f} s, "
                f"ratio {ratios[-1]:.2f}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
                flush=True,
            )
        for table in tables[1:]:
            pd.testing.assert_frame_equal(table, tables[0], rtol=0, atol=1e-6)
        print(f"median ratio {statistics.median(ratios):.2f}; all tables equal to 1e-6")


@contextmanager
def _clusters(numbers: Sequence[int]) -> Iterator[dict[int, str]]:
    """Yield the addresses of schedulers with so many workers."""
    from distributed import LocalCluster

    started = {}
    try:
        for number in numbers:
            options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": None}  # no dashboard
            started[number] = LocalCluster(n_workers=number, host="127.0.0.1", protocol="tcp://", **options)
        yield {number: cluster.scheduler_address for number, cluster in started.items()}
    finally:
        for cluster in started.values():
            cluster.close()


def _seconds(photos: Sequence[str], file: Path, address: str) -> float:
    file.unlink(missing_ok=True)
    before = time.perf_counter()
    with redirect_stdout(io.StringIO()):
        code = gaps([*photos, *SETTINGS, "--csv", str(file), "--cluster", address])
    if code:
        raise RuntimeError(f"the gaps of {len(photos)} images failed with exit code {code}.")
    return time.perf_counter() - before


if __name__ == "__main__":
    sys.exit(main())
