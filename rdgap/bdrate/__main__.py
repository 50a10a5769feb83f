"""BD-rate of codecs over anchors, from tables or measured on images: `python -m rdgap.bdrate`."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from .. import _cli, conventional
from .._files import write_json, write_text
from ..schemas import BD, EVALUATION
from ..tables import read_table, write_table
from .anchors import SHIPPED_ANCHORS, shipped_anchor_path
from .comparison import Comparison, QualityRange, check_same_images, compare
from .grid import CodecGrid, codec_grids
from .interpolation import Interpolation
from .measures import MEASURES, MeasureName
from .report import caption, cells, frame, latex, markdown, text

if TYPE_CHECKING:
    import pandas as pd

_METRICS: dict[MeasureName, tuple[str, ...]] = {"psnr": (), "ms-ssim": ("ms_ssim",), "lpips": ("lpips",)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    anchors = "\n".join(f"  {name:8} {what}" for name, what in SHIPPED_ANCHORS.items())
    arguments = _cli.parser(
        "bdrate",
        "Compare codecs with anchors: average rate change at equal quality, negative is better.\n\n"
        "Codecs come from tables of `python -m rdgap.evaluation` (--test), or are measured here on images (--images\n"
        "with --model). The BD-rate is printed for every way of averaging that is published, because they differ;\n"
        "brackets are 95 % intervals of a paired bootstrap over images.\n\n"
        f"shipped anchors, tables on Kodak:\n{anchors}\n\n"
        f"conventional codecs, run on --images:\n{conventional.listing()}",
        "python -m rdgap.bdrate --images photographs/ --model two-layer-lite --anchor webp --anchor avif --plot bd.png",
    )
    sources = arguments.add_argument_group("codecs")
    sources.add_argument(
        "--test", action="append", default=[], metavar="TABLE", help="table of codecs, or a shipped anchor; repeatable"
    )
    sources.add_argument("--images", nargs="+", type=Path, metavar="PATH", help="image files and folders of images")
    sources.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="MODEL",
        help="shipped model, .safetensors file, package.module:callable, or conventional codec to measure on --images; "
        "repeatable",
    )
    sources.add_argument(
        "--anchor",
        action="append",
        required=True,
        metavar="NAME",
        help="with --images a conventional codec to run on them, else a shipped anchor or a table; repeatable",
    )
    sources.add_argument("--anchor-codec", metavar="CODEC", help="which codec of an anchor's table that holds several")
    sources.add_argument(
        "--common-images", action="store_true", help="compare on the images that all have, where the sets differ"
    )
    from ..evaluation.named import add_options

    add_options(arguments)
    choices = arguments.add_argument_group("the number")
    choices.add_argument(
        "--measure",
        nargs="+",
        choices=get_args(MeasureName),
        default=["psnr"],
        help="quality that is held equal, MS-SSIM in dB (default: psnr)",
    )
    choices.add_argument(
        "--interpolation",
        nargs="+",
        choices=get_args(Interpolation),
        help="of ln(rate) over quality, the first is drawn (default: pchip akima, and cubic for four points)",
    )
    choices.add_argument(
        "--range",
        nargs="+",
        default=["common"],
        metavar="RANGE",
        help="of quality: common to codec and anchor (default), aligned over all codecs, or two numbers: LOW HIGH",
    )
    choices.add_argument(
        "--resamples", type=_cli.positive_int, default=1000, help="of the bootstrap over images (default: 1000)"
    )
    _cli.add_output(arguments, "--csv", "every number in full precision")
    _cli.add_output(arguments, "--json", "the same with curves and every image's own BD")
    _cli.add_output(arguments, "--markdown", "the printed tables with captions that define the numbers")
    _cli.add_output(arguments, "--latex", "the same for LaTeX (booktabs)")
    _cli.add_output(arguments, "--points", "the table of points measured on --images; rows that are in it are kept")
    _cli.add_plot(arguments, "the rate saved at each quality")
    return _cli.run(_compare_all, arguments, argv)


def _compare_all(options: argparse.Namespace) -> None:
    rules: dict[MeasureName, QualityRange] = {name: _quality_range(options.range, name) for name in options.measure}
    _check_sources(options)
    commands: dict[str, dict[int, str]] = {}
    if options.images:
        table, commands = _measure(options)
        tests, anchors = _split(table, options)
    else:
        tests = [_read(source, "--test") for source in options.test]
        anchors = {source: _read(source, "--anchor") for source in dict.fromkeys(options.anchor)}

    blocks: list[tuple[list[Comparison], str]] = []
    failures: list[str] = []
    for source, anchor_table in anchors.items():
        for measure, rule in rules.items():
            try:
                comparisons = _compare(options, tests, anchor_table, source, measure, rule)
                blocks.append((comparisons, _described(source, commands)))
            except ValueError as error:
                failures.append(str(error))
    if blocks:
        _report(options, blocks, commands)
    if failures:
        raise ValueError(" Also: ".join(failures))


def _compare(
    options: argparse.Namespace,
    tests: Sequence[pd.DataFrame],
    anchor_table: pd.DataFrame,
    source: str,
    measure: MeasureName,
    rule: QualityRange,
) -> list[Comparison]:
    anchor = _choose(codec_grids(anchor_table, measure), source, options.anchor_codec)
    grids = [grid for test in tests for grid in codec_grids(test, measure).values()]
    if options.common_images:
        anchor, grids = _restrict_to_common(anchor, grids)
    for number, grid in enumerate(grids):
        check_same_images(anchor, grid)
        if grid.codec in {other.codec for other in grids[:number]}:
            raise ValueError(f"A codec must be in one table of `--test` only, got {grid.codec} in several.")
    kinds: list[Interpolation] = list(dict.fromkeys(options.interpolation or ("pchip", "akima")))
    if options.interpolation is None and min(len(grid.settings) for grid in (anchor, *grids)) >= 4:
        kinds.append("cubic")
    return [
        comparison
        for kind in kinds
        for comparison in compare(
            anchor,
            grids,
            interpolation=kind,
            quality_range=rule,
            resamples=options.resamples,
            generator=np.random.default_rng(options.seed),
        )
    ]


def _check_sources(options: argparse.Namespace) -> None:
    if bool(options.images) != bool(options.model):
        raise ValueError("`--images` and `--model` must come together, got one without the other.")
    if bool(options.images) == bool(options.test):
        raise ValueError("Codecs must come either from `--test` or from `--images` with `--model`.")
    if options.points and not options.images:
        raise ValueError("`--points` writes what is measured on `--images`, got none.")
    if twice := set(options.anchor) & set(options.model):
        raise ValueError(f"A codec must be either model or anchor, got both for {', '.join(sorted(twice))}.")


def _quality_range(texts: Sequence[str], measure: MeasureName) -> QualityRange:
    if texts == ["common"]:
        return "common"
    if texts == ["aligned"]:
        return "aligned"
    try:
        low, high = map(float, texts)
    except ValueError:
        raise ValueError(f"`--range` must be common, aligned, or two numbers, got {' '.join(texts)}.") from None
    if not low < high:
        raise ValueError(f"`--range` must rise, got {low:g} {high:g}.")
    return (-high, -low) if measure == "lpips" else (low, high)


# ---- where codecs come from


def _measure(options: argparse.Namespace) -> tuple[pd.DataFrame, dict[str, dict[int, str]]]:
    """Measure models and anchors on the images; return the table, and what was run for each conventional setting."""
    from ..evaluation.named import measured

    names = list(dict.fromkeys((*options.model, *options.anchor)))
    unknown = [name for name in options.anchor if name not in conventional.CODECS]
    if unknown:
        raise ValueError(
            f"With `--images`, `--anchor` must be one of {', '.join(conventional.CODECS)}, got {unknown[0]!r}."
        )
    metrics = [metric for measure in options.measure for metric in _METRICS[measure]]
    # One folder or several: the comparison is over all images given, told apart by folder where names repeat.
    table = measured(names, options.images, options, metrics, options.points)
    datasets = sorted(set(table["dataset"]))
    if len(datasets) > 1:
        labels = [f"{folder}/{image}" for folder, image in zip(table["dataset"], table["image"], strict=True)]
        table = table.assign(image=labels, dataset=" and ".join(datasets))
    known = [name for name in names if name in conventional.CODECS]
    grids = {name: conventional.CODECS[name].grid for name in known}
    return table, {name: {value: conventional.command(name, value) for value in grid} for name, grid in grids.items()}


def _described(source: str, commands: Mapping[str, Mapping[int, str]]) -> str:
    """Return what an anchor is, for the caption."""
    if source not in commands:
        return SHIPPED_ANCHORS.get(source, source)
    codec, of_source = conventional.CODECS[source], commands[source]
    example = next(iter(of_source.values()))
    return f"{codec.what}, {len(of_source)} settings, {codec.knob} {min(of_source)}..{max(of_source)}, like {example}"


def _split(table: pd.DataFrame, options: argparse.Namespace) -> tuple[list[pd.DataFrame], dict[str, pd.DataFrame]]:
    is_anchor = table["codec"].isin(options.anchor)
    anchors = {name: table.loc[table["codec"] == name, :] for name in dict.fromkeys(options.anchor)}
    return [table.loc[~is_anchor, :]], anchors


def _read(source: str, option: str) -> pd.DataFrame:
    path = shipped_anchor_path(source) if source in SHIPPED_ANCHORS else Path(source)
    if not path.is_file():
        raise ValueError(f"`{option}` must be a table or one of {', '.join(SHIPPED_ANCHORS)}, got no file {source!r}.")
    return read_table(path, EVALUATION)


def _choose(grids: Mapping[str, CodecGrid], source: str, codec: str | None) -> CodecGrid:
    if codec is None and len(grids) == 1:
        return next(iter(grids.values()))
    if codec is None or codec not in grids:
        raise ValueError(f"`--anchor-codec` must be one of {', '.join(grids)}, which {source} holds, got {codec}.")
    return grids[codec]


def _restrict_to_common(anchor: CodecGrid, tests: Sequence[CodecGrid]) -> tuple[CodecGrid, list[CodecGrid]]:
    everyone = [set(grid.images) for grid in (anchor, *tests)]
    common = set.intersection(*everyone)
    if not common:
        raise ValueError("`--common-images` needs an image that the anchor and every codec have, got none.")
    left_out = sorted(set.union(*everyone) - common)
    if left_out:
        print(
            f"WARNING: compared on the {len(common)} images that all have; left out: {', '.join(left_out)}",
            file=sys.stderr,
        )
    return anchor.restricted_to(common), [grid.restricted_to(common) for grid in tests]


# ---- what is written


def _report(
    options: argparse.Namespace,
    blocks: Sequence[tuple[list[Comparison], str]],
    commands: Mapping[str, Mapping[int, str]],
) -> None:
    tables = [(cells(comparisons), caption(comparisons, what)) for comparisons, what in blocks]
    for number, ((rows, of_block), (comparisons, _)) in enumerate(zip(tables, blocks, strict=True)):
        print(("\n" if number else "") + textwrap.fill(of_block, 110) + "\n\n" + text(rows))
        _print_excluded(comparisons)
    everything = [comparison for comparisons, _ in blocks for comparison in comparisons]
    if options.csv:
        write_table(options.csv, frame(everything), BD)
    if options.json:
        details = {
            "encoders": {name: dict(of_codec) for name, of_codec in commands.items()},
            "comparisons": [_details(comparison) for comparison in everything],
        }
        write_json(options.json, details)
    if options.markdown:
        write_text(options.markdown, "\n".join(markdown(*table) for table in tables))
    if options.latex:
        write_text(options.latex, "\n".join(latex(*table) for table in tables))
    if options.plot:
        from .._plots import save
        from ._plot import plot_savings

        drawn = [[one for one in of if one.interpolation == of[0].interpolation] for of, _ in blocks]
        save(plot_savings(drawn), options.plot)


def _print_excluded(comparisons: Iterable[Comparison]) -> None:
    told: set[str] = set()
    for comparison in comparisons:
        if comparison.excluded and comparison.test not in told:
            told.add(comparison.test)
            print(
                f"\n{comparison.test}: {len(comparison.excluded)} of {comparison.num_images} images have no BD-rate of "
                f"their own ({comparison.interpolation}); they are in the averaged curves, not in the mean over images:"
            )
            for image, reason in comparison.excluded.items():
                print(f"  {image}: {reason}")


def _details(comparison: Comparison) -> dict[str, object]:
    curves: Any = {
        f"{side}_curves": {
            way: {"rate_bpp": curve.rate_bpp.tolist(), "quality": curve.quality.tolist()} for way, curve in of.items()
        }
        for side, of in (("anchor", comparison.anchor_curves), ("test", comparison.test_curves))
    }
    rows = [
        {name: None if value != value else value for name, value in row.items()}
        for row in frame([comparison]).to_dict("records")
    ]
    return {
        **{name: getattr(comparison, name) for name in ("test", "anchor", "dataset", "measure", "interpolation")},
        "label": MEASURES[comparison.measure].axis,
        "rows": rows,
        **curves,
        "subset_changes_percent": comparison.subset_changes_percent.tolist(),
        "by_image": {
            image: {**asdict(rate), **asdict(comparison.quality_by_image[image])}
            for image, rate in comparison.by_image.items()
        },
        "excluded": dict(comparison.excluded),
    }


if __name__ == "__main__":
    sys.exit(main())
