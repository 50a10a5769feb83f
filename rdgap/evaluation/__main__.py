"""Rate and distortion of codecs on images: `python -m rdgap.evaluation`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import _cli, conventional
from .._files import write_json
from ..objective import PAPER_LMBDAS
from ..schemas import curve_name
from ..zoo import NAMES
from .measurement import DEFAULT_METRICS, METRICS
from .named import add_options, measured
from .summary import AVERAGING, average, best_lagrangian, is_learned

if TYPE_CHECKING:
    import pandas as pd


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    arguments = _cli.parser(
        "evaluation",
        "Measure rate and distortion of codecs on images.\n\n"
        "Learned codecs: estimated rate of the rounded latents, at each trained lmbda; with --coded also the length\n"
        "of real bitstreams. Conventional codecs: length of the real file, at a grid of settings. Distortion is that\n"
        "of the decoded image rounded to 8 bit. L = bpp + lmbda * mse, MSE on the 0..255 scale. With --csv every\n"
        "finished image is kept, and the same command goes on from there.\n\n"
        f"conventional codecs:\n{conventional.listing()}",
        "python -m rdgap.evaluation two-layer-lite jpeg --images photographs/ --csv rd.csv --plot rd.png",
    )
    arguments.add_argument("models", nargs="+", metavar="MODEL", help=f"{NAMES}; or conventional codecs")
    arguments.add_argument(
        "--images", nargs="+", type=Path, required=True, metavar="PATH", help="image files and folders of images"
    )
    add_options(arguments)
    arguments.add_argument("--lpips", action="store_true", help="measure LPIPS (AlexNet) as well, a further column")
    _cli.add_output(arguments, "--csv", "one row per image, codec and setting; rows that are in it are kept")
    _cli.add_output(arguments, "--json", "the printed summary in full precision")
    _cli.add_plot(arguments, "rate-distortion curves")
    return _cli.run(_evaluate, arguments, argv)


def _evaluate(options: argparse.Namespace) -> None:
    metrics = METRICS if options.lpips else DEFAULT_METRICS
    table = measured(options.models, options.images, options, metrics, options.csv)
    averages = average(table)
    lmbdas = sorted(options.lmbda or set(averages["setting"][averages["rate_kind"] == "estimated"]) or PAPER_LMBDAS)
    untrained = table.loc[~is_learned(table), :]
    best = {lmbda: best_lagrangian(untrained, lmbda) for lmbda in lmbdas}

    _print_averages(averages)
    if not untrained.empty:
        _print_best(best)
    if options.json:
        best_rows = [row | {"lmbda": lmbda} for lmbda, frame in best.items() for row in _records(frame)]
        write_json(options.json, {"averaging": AVERAGING, "averages": _records(averages), "best_lagrangian": best_rows})
    if options.plot:
        from .._plots import save
        from ._plot import plot_curves

        save(plot_curves(averages), options.plot)


def _print_averages(averages: pd.DataFrame) -> None:
    print("Means over images; bpp is the mean of ratios, PSNR the mean of dB.")
    has_lpips = bool(averages["lpips"].notna().any())
    print(
        f"{'data set':12} {'codec':20} {'setting':>9} {'rate':9} {'images':>6} "
        f"{'bpp':>8} {'PSNR dB':>8} {'MS-SSIM':>8} {'L':>8}" + (f" {'LPIPS':>8}" if has_lpips else "")
    )
    for row in averages.to_dict("records"):
        print(
            f"{row['dataset']:12} {curve_name(row):20} {row['setting']:9g} {row['rate_kind']:9} {row['images']:6d} "
            f"{row['rate_bpp']:8.4f} {row['psnr_db']:8.3f} "
            f"{_or_dash(row['ms_ssim'], '8.5f')} {_or_dash(row['lagrangian_bpp'], '8.4f')}"
            + (f" {_or_dash(row['lpips'], '8.5f')}" if has_lpips else "")
        )


def _or_dash(number: float, form: str) -> str:
    return f"{'-':>8}" if math.isnan(number) else format(number, form)


def _print_best(best: dict[float, pd.DataFrame]) -> None:
    print("\nL with the best quality for each image, mean over images")
    print(f"{'data set':12} {'codec':20} {'lmbda':>9} {'L':>8}")
    for lmbda, frame in best.items():
        for row in frame.to_dict("records"):
            print(f"{row['dataset']:12} {row['codec']:20} {lmbda:9g} {row['lagrangian_bpp']:8.4f}")


def _records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Return the rows for JSON, which has neither NaN nor infinity: null stands for both."""
    return [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


if __name__ == "__main__":
    sys.exit(main())
