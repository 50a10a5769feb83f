"""BD-rate of the codecs of a table over an anchor: `python -m rdgap.bdrate`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from .. import _cli
from .._files import replacing, write_json
from ..tables import EVALUATION, read_table
from .anchors import SHIPPED_ANCHORS, shipped_anchor_path
from .comparison import Comparison, compare
from .delta import Interpolation
from .grid import CodecGrid, codec_grids

SHOWN: tuple[Interpolation, ...] = ("pchip", "akima")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    anchors = "\n".join(f"  {name:8} {what}" for name, what in SHIPPED_ANCHORS.items())
    arguments = _cli.parser(
        "bdrate",
        "Compare codecs with an anchor: average rate change at equal PSNR, negative is better.\n\n"
        "Tables are those of `python -m rdgap.evaluation`. Two numbers are printed for each codec, because both are\n"
        "published and they differ: the BD-rate of the curve averaged over images (mean bpp and mean PSNR at each\n"
        "setting), and the mean of the images' own BD-rates with its standard error over images.\n\n"
        f"shipped anchors:\n{anchors}",
        "python -m rdgap.bdrate --test bpg-m9 --anchor bpg --plot savings.png",
    )
    arguments.add_argument(
        "--test", required=True, metavar="TABLE", help="table of one or several codecs, or a shipped anchor"
    )
    arguments.add_argument(
        "--anchor", required=True, metavar="NAME", help="a shipped anchor (see above), or a table that holds the anchor"
    )
    arguments.add_argument(
        "--anchor-codec", metavar="CODEC", help="which codec of the anchor's table, if it holds several"
    )
    arguments.add_argument(
        "--common-images", action="store_true", help="compare on the images that all have, where the sets differ"
    )
    _cli.add_output(arguments, "--csv", "the printed table, in full precision")
    _cli.add_output(arguments, "--json", "the same with every image's own BD-rate")
    _cli.add_plot(arguments, f"the rate saved at each PSNR, interpolated by {SHOWN[0]},")
    return _cli.run(_compare_tables, arguments, argv)


def _compare_tables(options: argparse.Namespace) -> None:
    tests = _read_grids(options.test, "--test")
    anchor = _choose(_read_grids(options.anchor, "--anchor"), options.anchor, options.anchor_codec)
    if options.common_images:
        anchor, tests = _restrict_to_common(anchor, tests)
    comparisons = [compare(anchor, test, interpolation=kind) for test in tests.values() for kind in SHOWN]
    _print_report(options.anchor, comparisons)
    if options.csv:
        _write_csv(options.csv, comparisons)
    if options.json:
        write_json(options.json, {"comparisons": [_details(comparison) for comparison in comparisons]})
    if options.plot:
        from .._plots import save
        from ._plot import plot_savings

        shown = [comparison for comparison in comparisons if comparison.averaged.interpolation == SHOWN[0]]
        save(plot_savings(shown), options.plot)


def _read_grids(source: str, option: str) -> dict[str, CodecGrid]:
    path = shipped_anchor_path(source) if source in SHIPPED_ANCHORS else Path(source)
    if not path.is_file():
        raise ValueError(f"`{option}` must be a table or one of {', '.join(SHIPPED_ANCHORS)}, got no file {source!r}.")
    return codec_grids(read_table(path, EVALUATION))


def _choose(grids: Mapping[str, CodecGrid], source: str, codec: str | None) -> CodecGrid:
    if codec is None and len(grids) == 1:
        return next(iter(grids.values()))
    if codec is None or codec not in grids:
        raise ValueError(f"`--anchor-codec` must be one of {', '.join(grids)}, which {source} holds, got {codec}.")
    return grids[codec]


def _restrict_to_common(anchor: CodecGrid, tests: Mapping[str, CodecGrid]) -> tuple[CodecGrid, dict[str, CodecGrid]]:
    everyone = [set(grid.images) for grid in (anchor, *tests.values())]
    common = set.intersection(*everyone)
    if not common:
        raise ValueError("`--common-images` needs an image that the anchor and every codec have, got none.")
    left_out = sorted(set.union(*everyone) - common)
    if left_out:
        print(
            f"WARNING: compared on the {len(common)} images that all have; left out: {', '.join(left_out)}",
            file=sys.stderr,
        )
    return anchor.restricted_to(common), {name: grid.restricted_to(common) for name, grid in tests.items()}


def _print_report(source: str, comparisons: Sequence[Comparison]) -> None:
    header = (
        "codec",
        "rate",
        "interpolation",
        "PSNR range [dB]",
        "BD-rate of averaged curve [%]",
        "mean of per-image BD-rates [%]",
        "images",
    )
    anchor = comparisons[0]
    print(f"anchor: {anchor.anchor}, {anchor.anchor_rate_kind} rate ({SHIPPED_ANCHORS.get(source, source)})")
    _print_columns([header, *(_cells(comparison) for comparison in comparisons)])
    for comparison in comparisons:
        if comparison.excluded and comparison.averaged.interpolation == SHOWN[0]:
            print(
                f"\n{comparison.test}: {len(comparison.excluded)} of {comparison.num_images} images have no BD-rate of "
                "their own; they are in the averaged curve, not in the mean of per-image BD-rates:"
            )
            for image, reason in comparison.excluded.items():
                print(f"  {image}: {reason}")


def _cells(comparison: Comparison) -> tuple[str, ...]:
    averaged, error = comparison.averaged, comparison.standard_error_percent
    mean = f"{comparison.mean_of_images_percent:+.2f}" if comparison.by_image else "-"
    used, total = len(comparison.by_image), comparison.num_images
    return (
        comparison.test,
        comparison.test_rate_kind,
        averaged.interpolation,
        f"{averaged.psnr_low_db:.2f}..{averaged.psnr_high_db:.2f}",
        f"{averaged.bd_rate_percent:+.2f}",
        mean if math.isnan(error) else f"{mean} +- {error:.2f}",
        str(total) if used == total else f"{total}, {used} in the mean",
    )


def _print_columns(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _record(comparison: Comparison) -> dict[str, str | int | float]:
    """Return the row of a table; an undefined mean or standard error is NaN."""
    averaged = comparison.averaged
    return {
        "codec": comparison.test,
        "rate_kind": comparison.test_rate_kind,
        "anchor": comparison.anchor,
        "anchor_rate_kind": comparison.anchor_rate_kind,
        "interpolation": averaged.interpolation,
        "psnr_low_db": averaged.psnr_low_db,
        "psnr_high_db": averaged.psnr_high_db,
        "averaged_curve_bd_rate_percent": averaged.bd_rate_percent,
        "mean_of_images_bd_rate_percent": comparison.mean_of_images_percent,
        "mean_of_images_standard_error_percent": comparison.standard_error_percent,
        "averaged_images": comparison.num_images,
        "mean_of_images_images": len(comparison.by_image),
    }


def _write_csv(path: Path, comparisons: Sequence[Comparison]) -> None:
    import pandas as pd

    with replacing(path) as temporary:
        pd.DataFrame(map(_record, comparisons)).to_csv(temporary, index=False, lineterminator="\n")


def _details(comparison: Comparison) -> dict[str, object]:
    record = {name: None if value != value else value for name, value in _record(comparison).items()}
    curves = {"anchor_curve": comparison.anchor_curve, "test_curve": comparison.test_curve}
    return {
        **record,
        **{
            name: {"rate_bpp": curve.rate_bpp.tolist(), "psnr_db": curve.psnr_db.tolist()}
            for name, curve in curves.items()
        },
        "by_image": {image: asdict(result) for image, result in comparison.by_image.items()},
        "excluded": dict(comparison.excluded),
    }


if __name__ == "__main__":
    sys.exit(main())
