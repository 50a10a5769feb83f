"""Length of the decoded curves between images: `python -m rdgap.curvature A.png B.png`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import _cli, _jobs, zoo
from .._files import json_rows, write_json
from ..images import image_paths
from ..parallel import map_images
from ..schemas import CURVATURE, CURVATURE_PATHS
from .curve import image_decoder
from .jobs import Job, Settings, Source, groups, latent_ends, lmbda_of, load, measure
from .length import CurveLength
from .pairs import Pair, listed_pairs, random_pairs
from .quadrature import RULES, check_rule, default_points
from .report import format_pair, format_table, summaries

if TYPE_CHECKING:
    import pandas as pd


Key = tuple[str, float | None, int]
"""What tells a pair's row, or rows, from others: model, lmbda and number of the pair."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _cli.parser(
        "curvature",
        "Measure how straight the decoder keeps the line between the latents of two images: the length of the decoded\n"
        "curve, the chord between the two reconstructions, and eta = length / chord (1 for a straight segment).\n"
        "Two images, --list of pairs, or --pairs random crops of folders, the same for every model. With --csv every\n"
        "finished pair is kept, and the same command goes on from there.",
        "python -m rdgap.curvature A.png B.png --crop 256 --plot curve.png\n"
        "  python -m rdgap.curvature PHOTOS --pairs 50 --crop 64 --model two-layer-lite mean-scale-lite --csv eta.csv",
    )
    add = arguments.add_argument
    add("images", nargs="*", type=Path, metavar="IMAGE", help="two images; with --pairs, images and folders of images")
    add("--pairs", type=_cli.positive_int, metavar="N", help="draw N random pairs of --crop squares from the images")
    add("--list", type=Path, metavar="FILE", help="pairs of image files: a CSV table with the columns first,second")
    add(
        "--model",
        nargs="+",
        help=f"{zoo.NAMES} (default: {zoo.DEFAULT_MODEL}, or none with --decoder)",
    )
    add(
        "--lmbda",
        nargs="+",
        type=_cli.positive_float,
        help=f"trade-offs that they were trained for (default: {zoo.DEFAULT_LMBDA}, or the one in the file)",
    )
    add(
        "--decoder",
        metavar="PACKAGE.MODULE:FUNCTION",
        help="your own: a codec of rdgap/model.py, a function that returns one, or with --encoder a decoder alone, "
        "latents (1, ...) to images (1, 3, height, width) in [0, 1]",
    )
    add("--encoder", metavar="PACKAGE.MODULE:FUNCTION", help="images to the latents of --decoder")
    add(
        "--crop",
        type=_cli.positive_int,
        default=0,
        metavar="SIZE",
        help="cut a random square of SIZE pixels from each image, by --seed",
    )
    add(
        "--rule",
        choices=RULES,
        default="midpoint",
        help="how length is found; the paper's is left, hermite the cheapest for nearly straight curves "
        "(default: midpoint)",
    )
    add(
        "--points",
        type=_points,
        help="where points and speeds are taken (default: the paper's 100; gauss-legendre 8, hermite 9)",
    )
    add("--hold-hyper", action="store_true", help="keep the hyper latents at those of the first image")
    add("--geodesics", action="store_true", help="also search the shortest decoded curve; minutes for larger images")
    _cli.add_plot(arguments, "distances to both straight paths, with a film strip (one pair) or eta over the chord")
    _cli.add_output(arguments, "--json", "settings, pairs, medians and ranges")
    _cli.add_output(arguments, "--csv", "a table, one row per pair and codec; rows of the same settings in it are kept")
    _cli.add_output(
        arguments, "--paths", "a table of speed and distances to both straight paths per t; goes on beside --csv"
    )
    _cli.add_device(arguments)
    _cli.add_cluster(arguments)
    _cli.add_seed(arguments)
    return _cli.run(_run, arguments, argv)


def _run(options: argparse.Namespace) -> None:
    points = default_points(options.rule) if options.points is None else options.points
    check_rule(options.rule, points)
    settings = Settings(
        rule=options.rule,
        num_points=points,
        hyper="held" if options.hold_hyper else "moving",
        geodesics=options.geodesics,
        crop=options.crop,
        seed=options.seed,
    )
    pairs = _pairs(options)
    sources = _sources(options)
    device = torch.device("cpu") if options.cluster else _cli.device(options.device)
    codecs = {source: load(source, device) for source in sources}  # what cannot be used is found out now
    for pair in pairs:
        pair.read()
    if options.csv and options.paths:
        _jobs.check_distinct("output files", [options.csv, options.paths])

    keys = [(source.model, lmbda_of(codec), number) for source, codec in codecs.items() for number in range(len(pairs))]
    wanted = {_key(*key): place for place, key in enumerate(keys)}
    kept, kept_paths, done = _kept(options, settings, pairs, set(wanted))
    jobs = []
    for group, (source, codec) in product(groups(pairs), codecs.items()):
        missing = tuple(each for each in group if _key(source.model, lmbda_of(codec), each[0]) not in done)
        if missing:
            there = codec if options.cluster else None
            jobs.append(Job(source=source, pairs=missing, settings=settings, device=options.device, codec=there))

    result = None
    with (
        _jobs.growing(options.csv, kept, CURVATURE) as table,
        _jobs.growing(options.paths, kept_paths, CURVATURE_PATHS) as paths,
        _cli.executor(options.cluster) as executor,
    ):
        alone = executor is None and len(jobs) == 1  # a bar of its own follows the decodes
        several = map_images(measure, jobs, executor=executor, in_order=False, description="curvature")
        for measured in map(measure, jobs) if alone else several:
            paths.add(measured.paths)
            table.add(measured.table)  # last, because it says that all of the pair is there
            result = measured.result
    rows = _asked_for(table.rows, wanted)
    _report(options, settings, pairs, sources, rows, _asked_for(paths.rows, wanted) if options.plot else None, result)


def _kept(
    options: argparse.Namespace, settings: Settings, pairs: Sequence[Pair], wanted: set[Key]
) -> tuple[pd.DataFrame | None, pd.DataFrame | None, set[Key]]:
    """Return the rows of an earlier run, their paths, and which of the wanted ones are complete.

    Those that are not, for want of paths or a geodesic, are left out.
    """
    table = _jobs.kept_rows(options.csv, settings.columns, CURVATURE, ["model", "lmbda", "pair"])
    if table is None:
        return None, None, set()
    for row in table.to_dict("records"):
        if row["pair"] >= len(pairs):
            continue
        names = tuple(path.stem for path in (pairs[row["pair"]].first, pairs[row["pair"]].second))
        if names != (row["first"], row["second"]):
            raise ValueError(
                f"{options.csv} has {row['first']} and {row['second']} as pair {row['pair']}, this run has "
                f"{' and '.join(names)}: write it to another file."
            )
    described = {name: settings.columns[name] for name in ("crop", "hyper")}
    paths = _jobs.kept_rows(options.paths, described, CURVATURE_PATHS, ["model", "lmbda", "pair", "t"])
    complete = table.loc[table["zeta_lower"].notna(), :] if settings.geodesics else table
    done = wanted & set(_keys(complete))
    if options.paths or options.plot:
        done &= set() if paths is None else set(_keys(paths))
    if options.plot and len(wanted) == 1:  # the film strip needs more than tables hold
        done = set()
    again = wanted - done
    return _less(table, again), None if paths is None else _less(paths, again), done


def _less(rows: pd.DataFrame, keys: set[Key]) -> pd.DataFrame | None:
    left = rows.loc[[key not in keys for key in _keys(rows)], :]
    return None if left.empty else left


def _key(model: str, lmbda: float, pair: int) -> Key:
    """Return a key, in which a codec without lmbda is, unlike NaN, equal to itself."""
    return model, None if math.isnan(lmbda) else lmbda, pair


def _keys(rows: pd.DataFrame) -> list[Key]:
    return [_key(*row) for row in rows[["model", "lmbda", "pair"]].itertuples(index=False, name=None)]


def _asked_for(rows: pd.DataFrame, wanted: Mapping[Key, int]) -> pd.DataFrame:
    """Return the rows that were asked for, in their order."""
    import numpy as np

    places = np.array([wanted.get(key, -1) for key in _keys(rows)])
    order = np.argsort(places, kind="stable")
    return rows.iloc[order[places[order] >= 0]].reset_index(drop=True)


def _report(
    options: argparse.Namespace,
    settings: Settings,
    pairs: Sequence[Pair],
    sources: Sequence[Source],
    table: pd.DataFrame,
    paths: pd.DataFrame | None,
    result: CurveLength | None,
) -> None:
    alone = len(table) == 1
    if options.json:
        listed = [{"first": str(pair.first), "second": str(pair.second)} for pair in pairs]
        content = {"settings": vars(settings), "images": listed}
        content |= {"pairs": json_rows(table), "summaries": json_rows(summaries(table))}
        write_json(options.json, content)
    if options.plot:
        from .._plots import save

        assert paths is not None
        if alone:
            assert result is not None
            picture = _picture_of_one(sources[0], pairs[0], settings, result, options)
        else:
            picture = _picture_of_many(table, paths)
        save(picture, options.plot)

    rule = f"{settings.num_points} points, {settings.rule} rule"
    if alone:
        row = table.to_dict("records")[0]
        height, width = pairs[0].read()[0].shape[-2:]
        lmbda = "" if math.isnan(row["lmbda"]) else f", lmbda {row['lmbda']:g}"
        print(f"{pairs[0].first} to {pairs[0].second}, {width} x {height} pixels")
        print(f"{row['model']}{lmbda}, {rule}\n\n{format_pair(row)}")
        return
    size = f"{settings.crop} x {settings.crop} pixels, " if settings.crop else ""
    print(f"{len(pairs)} pairs, {size}{rule}\n\n{format_table(table)}")


def _picture_of_one(
    source: Source, pair: Pair, settings: Settings, result: CurveLength, options: argparse.Namespace
) -> Any:
    from .plot import draw, film_strip

    device = torch.device("cpu") if options.cluster else _cli.device(options.device)
    codec = load(source, device)
    first, last = (image.to(device) for image in pair.read())
    start, end = latent_ends(codec, (first, last), settings.hyper)
    size = (first.shape[-2], first.shape[-1])
    return draw(result, film_strip(image_decoder(codec, size), start, end, (first, last)))


def _picture_of_many(table: pd.DataFrame, paths: pd.DataFrame) -> Any:
    from .._curvature_plots import draw_both

    return draw_both(table, paths)


def _pairs(options: argparse.Namespace) -> list[Pair]:
    """Return the pairs that were asked for, in one of three ways."""
    if options.list:
        if options.images or options.pairs:
            raise ValueError("`--list` already says which images form pairs, got images or `--pairs` as well.")
        return listed_pairs(options.list, crop=options.crop, seed=options.seed)
    if options.pairs:
        if not options.crop:
            raise ValueError("`--pairs` draws squares, so it needs `--crop SIZE`, got none.")
        return random_pairs(image_paths(options.images), options.pairs, crop=options.crop, seed=options.seed)
    if len(options.images) != 2:
        raise ValueError(
            "Two images must be given, or `--list`, or `--pairs N` and `--crop SIZE` with images, "
            f"got {len(options.images)}."
        )
    first, second = options.images
    return [Pair(first=first, second=second, crop=options.crop, seed=options.seed)]


def _sources(options: argparse.Namespace) -> list[Source]:
    """Return the codecs that were asked for."""
    models = options.model or ([] if options.decoder else [zoo.DEFAULT_MODEL])
    for what, chosen in (("--model", models), ("--lmbda", options.lmbda or [])):
        if len(set(chosen)) < len(chosen):
            raise ValueError(
                f"What `{what}` names must be different from each other, got {' '.join(map(str, chosen))}."
            )
    if options.encoder and not options.decoder:
        raise ValueError("`--encoder` belongs to `--decoder`, got it alone.")
    sources = []
    for model in models:
        knows_its_own = model.endswith(".safetensors") or zoo.is_own(model)
        lmbdas = options.lmbda or [None if knows_its_own else zoo.DEFAULT_LMBDA]
        sources += [Source(model=model, lmbda=lmbda) for lmbda in lmbdas]
    if options.decoder:
        sources.append(Source(model=options.decoder, encoder=options.encoder or ""))
    return sources


def _points(text: str) -> int:
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2, got {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
