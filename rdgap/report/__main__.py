"""Command: one HTML page about codecs on one's images."""

from __future__ import annotations

import argparse
import math
import platform
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .. import _cli, _jobs, conventional
from .._files import write_text
from ..images import image_paths, read_image, to_8bit
from ..objective import reconstruct
from ..schemas import CURVATURE, EVALUATION, GAPS, OWN_ENCODER
from ..tables import write_table
from ..zoo import DEFAULT_LMBDA, DEFAULT_MODEL, NAMES, named_codec
from . import page

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 256  # pixels of a side of what is shown of a reconstruction
_FEWEST_LEVELS = 8.0  # that an error map is scaled to at least


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _cli.parser(
        "report",
        "Measure codecs on images and write FOLDER/index.html, one page that opens offline: rate-distortion curves,\n"
        "BD-rates, gaps, straightness of the manifold, reconstructions with maps of their errors. The tables behind\n"
        "it are written beside it.",
        "python -m rdgap.report out/report --model two-layer-lite mean-scale-lite --images PHOTOS",
    )
    add = arguments.add_argument
    add("folder", type=Path, metavar="FOLDER", help="where the page and its tables go")
    add("--model", nargs="+", default=[DEFAULT_MODEL], help=f"{NAMES} (default: {DEFAULT_MODEL})")
    add("--images", nargs="+", type=Path, required=True, metavar="PATH", help="image files and folders of images")
    add(
        "--anchor",
        nargs="*",
        default=["jpeg"],
        choices=tuple(conventional.CODECS),
        help="conventional codecs beside them; BD-rates are over the first (default: jpeg)",
    )
    add("--lmbda", nargs="+", type=_cli.positive_float, help="points of the curves (default: all trained ones)")
    add(
        "--at",
        type=_cli.positive_float,
        default=DEFAULT_LMBDA,
        metavar="LMBDA",
        help="one of them, for gaps, straightness and reconstructions (default: %(default)s)",
    )
    add("--gap-images", type=_cli.positive_int, default=4, help="images whose gaps are measured (default: 4)")
    add("--pairs", type=_at_least_one_or_none, default=12, help="pairs of images for eta, 0 for none (default: 12)")
    add("--samples", type=_cli.positive_int, default=3, help="images whose reconstructions are shown (default: 3)")
    add("--crop", type=_cli.positive_int, default=64, help="side of the squares for gaps and eta (default: 64)")
    add("--temperatures", type=_cli.at_least_two, default=100, help="annealing steps of the gaps (default: 100)")
    add("--fit-steps", type=_cli.positive_int, default=300, help="steps of each fit of the gaps (default: 300)")
    add("--jobs", type=_cli.positive_int, default=1, help="images on which conventional codecs run at once")
    add("--cache", type=Path, metavar="FOLDER", help="where what conventional codecs gave is kept, as in evaluation")
    _cli.add_seed(arguments)
    _cli.add_device(arguments)
    return _cli.run(_body, arguments, argv)


def _body(options: argparse.Namespace) -> None:
    if options.folder.exists() and not options.folder.is_dir():
        raise ValueError(f"FOLDER must be a folder, got the file {options.folder}.")
    paths = image_paths(options.images)
    _jobs.check_distinct("--model", options.model)
    _jobs.check_distinct("--anchor", options.anchor)
    _jobs.check_distinct("the names of the images", [path.stem for path in paths])
    device = _cli.device(options.device)
    for path in paths:
        if min(read_image(path).shape[-2:]) < options.crop:
            raise ValueError(f"images must be at least `--crop` {options.crop} pixels wide and high, got {path}.")
    if options.pairs and len(paths) < 2:
        raise ValueError(f"`--pairs` needs at least two images, got {len(paths)}; 0 leaves them out.")
    focus = _trained_at(options)
    sections = [
        *_rate_distortion(options, paths, device),
        _gaps(options, focus, paths),
        *([_straightness(options, focus, paths)] if options.pairs else []),
    ]
    rates = sections[0].rows
    assert rates is not None
    sections += [_reconstructions(options, focus, paths, rates, device), _origin(options, paths)]
    lead = page.paragraph(
        f"{_listed(options.model)} on {len(paths)} image{'s' if len(paths) > 1 else ''}. "
        "The cost is L = bpp + lmbda * MSE, the MSE over pixels and channels on the 0..255 scale."
    )
    content = page.page("Where the bits go", lead, [(section.heading, section.html) for section in sections])
    write_text(options.folder / "index.html", content)
    print(f"{options.folder / 'index.html'}: {len(content) / 1e6:.1f} MB, nothing else is needed to read it")


def _trained_at(options: argparse.Namespace) -> list[str]:
    """Return the models to look at closely: all but files of weights that were trained for another lmbda.

    Raises:
        ValueError: If a model cannot be loaded, or none of the files that make up a curve is for `--at`.
    """
    codecs = {
        model: named_codec(model, None if model.endswith(".safetensors") else options.at) for model in options.model
    }
    chosen = [
        model
        for model, codec in codecs.items()
        if not model.endswith(".safetensors") or math.isclose(getattr(codec, "lmbda", math.nan), options.at)
    ]
    if without := {_called(model) for model in options.model} - {_called(model) for model in chosen}:
        raise ValueError(f"`--at` must be a point of every model's curve, got {options.at:g} without {min(without)}.")
    return chosen


class _Section:
    """A part of the page, with the table that it is made of, if a later part needs it."""

    def __init__(self, heading: str, html: str, rows: pd.DataFrame | None = None) -> None:
        self.heading, self.html, self.rows = heading, html, rows


# ---- rate and distortion


def _rate_distortion(options: argparse.Namespace, paths: Sequence[Path], device: torch.device) -> list[_Section]:
    from ..evaluation import average, evaluate
    from ..evaluation._plot import plot_curves
    from ..evaluation.measurement import DEFAULT_METRICS
    from ..evaluation.named import named_points

    asked = argparse.Namespace(lmbda=options.lmbda, coded=False, encoder=OWN_ENCODER, cache=options.cache, cluster=None)
    points = named_points([*options.model, *options.anchor], asked, device, DEFAULT_METRICS)
    for name in dict.fromkeys(map(_called, options.model)):
        own = sorted(point.setting for point in points if point.codec == name)
        if options.at not in own:
            known = ", ".join(f"{lmbda:g}" for lmbda in own)
            raise ValueError(f"`--at` must be a point of every model's curve, got {options.at:g}; {name} has {known}.")
    table = evaluate(points, paths, jobs=options.jobs)
    write_table(options.folder / "evaluation.csv", table, EVALUATION)
    # One comparison over all images, whichever folders they are from.
    together = table.assign(dataset=" and ".join(sorted(set(table["dataset"]))))
    means = average(together).sort_values(["codec", "rate_bpp"])
    rows = [("codec", "lmbda or quality", "rate", "bpp", "PSNR [dB]", "MSE", "L")]
    rows += [
        (row["codec"], f"{row['setting']:g}", row["rate_kind"], f"{row['rate_bpp']:.4f}", f"{row['psnr_db']:.2f}",
         f"{row['mse']:.2f}", "" if math.isnan(row["lagrangian_bpp"]) else f"{row['lagrangian_bpp']:.4f}")
        for row in means.to_dict("records")
    ]  # fmt: skip
    curves = page.plot(plot_curves(means), "PSNR over rate of each codec") + page.paragraph(
        "Means over images. Distortion is that of the image rounded to 8 bit; rates of learned codecs are -log2 of "
        "their prior at the rounded latents, those of conventional ones the length of real files.",
        soft=True,
    )
    folded = f"<details><summary>The points as a table</summary>{page.table(rows)}</details>"
    return [_Section("Rate and distortion", curves + folded, table), _Section("BD-rate", _bd(options, together))]


def _bd(options: argparse.Namespace, table: pd.DataFrame) -> str:
    from ..bdrate import codec_grids, compare
    from ..bdrate.report import caption, cells

    if not options.anchor:
        return page.paragraph("No anchor was asked for.")
    grids = codec_grids(table)
    anchor, tests = grids.pop(options.anchor[0]), list(grids.values())
    compared, refused = [], []
    for test in tests:  # one at a time: a codec whose curve allows none takes nothing from the others
        try:
            compared += compare(
                anchor, [test], interpolation="pchip", generator=np.random.default_rng(options.seed), resamples=1000
            )
        except ValueError as error:
            refused.append(page.paragraph(f"None of {error}"))
    what = conventional.CODECS[options.anchor[0]].what
    html = page.table(cells(compared)) + page.paragraph(caption(compared, what), soft=True) if compared else ""
    return html + "".join(refused)


# ---- gaps


def _gaps(options: argparse.Namespace, focus: Sequence[str], paths: Sequence[Path]) -> _Section:
    import matplotlib as mpl

    from .._plots import STYLE
    from ..gaps.ais import LEAPFROG_STEPS, TARGET_ACCEPTANCE
    from ..gaps.jobs import Job, Settings, groups, measure
    from ..gaps.report import draw, means

    settings = Settings(
        crop=options.crop,
        seed=options.seed,
        chains=4,
        temperatures=options.temperatures,
        leapfrog_steps=LEAPFROG_STEPS,
        target_acceptance=TARGET_ACCEPTANCE,
        fit_steps=options.fit_steps,
        samples=64,
        batch=16,
        bf16=False,
    )
    file = options.folder / "gaps.csv"
    table = _jobs.complete(
        _jobs.kept_rows(file, settings.columns, GAPS),
        focus,
        [options.at],
        list(groups(paths[: options.gap_images], settings)),
        lambda model, lmbda, group: Job(
            model=model, lmbda=lmbda, paths=group, settings=settings, device=options.device
        ),
        measure,
        executor=None,
        schema=GAPS,
        file=file,
        description="gaps",
    )
    rows: list[tuple[str, ...]] = [
        ("codec", "encoder q", "-log Gamma (upper)", "approximation", "amortization (lower)", "inference (lower)")
    ]
    for row in means(table).to_dict("records"):
        cells = [
            f"{row[f'{name}_bpp']:.4f} ± {row[f'{name}_estimator_stderr_bpp']:.4f}"
            for name in ("encoder", "neg_log_gamma_upper", "approximation_gap", "amortization_gap_lower",
                         "inference_gap_lower")
        ]  # fmt: skip
        rows.append((_called(row["model"]), *cells))
    number = len(set(table["image"]))
    with mpl.rc_context(STYLE):
        figure = draw(table)
    html = page.plot(figure, "Costs and gaps of each codec as stacked bars") + page.table(rows)
    html += page.paragraph(
        f"Bits per pixel at lmbda {options.at:g}, a square of {options.crop} x {options.crop} pixels of each of "
        f"{number} image{'s' if number > 1 else ''}; ± is the Monte Carlo error of the mean. -log Gamma is what "
        "decoder and prior would cost with an ideal channel. The rest is the encoder's: the amortization gap is what "
        "a box fitted to the very image would save, the approximation gap what is lost because the channel is a box "
        "at all. -log Gamma is an upper bound in expectation, so that the inference gap is a lower one.",
        soft=True,
    )
    return _Section("Where the bits go", html)


# ---- straightness


def _straightness(options: argparse.Namespace, focus: Sequence[str], paths: Sequence[Path]) -> _Section:
    import matplotlib as mpl
    import pandas as pd
    from matplotlib.figure import Figure

    from .._curvature_plots import colours_of, draw_etas
    from .._plots import COLUMN_WIDTH_INCHES, STYLE
    from ..curvature.jobs import Job, Settings, Source, groups, measure
    from ..curvature.pairs import random_pairs
    from ..curvature.report import summaries
    from ..parallel import map_images

    pairs = random_pairs(paths, options.pairs, crop=options.crop, seed=options.seed)
    settings = Settings(
        rule="hermite", num_points=9, hyper="moving", geodesics=False, crop=options.crop, seed=options.seed
    )
    jobs = [
        Job(source=Source(model=model, lmbda=options.at), pairs=group, settings=settings, device=options.device)
        for model in focus
        for group in groups(pairs)
    ]
    table = pd.concat([part.table for part in map_images(measure, jobs, description="eta")], ignore_index=True)
    write_table(options.folder / "curvature.csv", table, CURVATURE)
    colours = colours_of([*map(_called, options.model), *options.anchor])  # those of the curves above
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_WIDTH_INCHES, 2.6), layout="constrained")
        shown = table.assign(model=[_called(model) for model in table["model"]])
        draw_etas(figure.subplots(), shown, {_called(model): colours[_called(model)] for model in focus})
    rows = [("codec", "pairs", "eta, median", "range", "error at most")]
    rows += [
        (_called(row["model"]), f"{row['pairs']}", f"{row['eta_median']:.5f}",
         f"{row['eta_min']:.5f} to {row['eta_max']:.5f}", f"{row['eta_error_max']:.1e}")
        for row in summaries(table).to_dict("records")
    ]  # fmt: skip
    html = page.plot(figure, "Ratio of curve to chord over the chord, a point per pair") + page.table(rows)
    html += page.paragraph(
        f"The line between the latents of two squares of {options.crop} x {options.crop} pixels, decoded: the length "
        "of that curve over the distance of its ends. 1 means that mixing latents is mixing images. Lengths are "
        "Euclidean, over pixels and channels in [0, 1].",
        soft=True,
    )
    return _Section("How straight the manifold of reconstructions is", html)


# ---- reconstructions


def _reconstructions(
    options: argparse.Namespace, focus: Sequence[str], paths: Sequence[Path], rates: pd.DataFrame, device: torch.device
) -> _Section:
    codecs = {_called(model): named_codec(model, options.at, device=device) for model in focus}
    first = _called(focus[0])
    html = page.paragraph(
        f"Learned codecs at lmbda {options.at:g}, conventional ones at the setting whose rate is nearest to that of "
        f"{first}. Numbers are those of whole images, of which up to {_SHOWN} x {_SHOWN} pixels "
        "in the middle are shown. Maps: error of a pixel, root of the mean square over channels, black for none.",
        soft=True,
    )
    for path in paths[: options.samples]:
        image = read_image(path)
        of_image = rates.loc[rates["image"] == path.stem, :]
        decoded: dict[str, tuple[Tensor, Mapping[str, float]]] = {}
        for name, codec in codecs.items():
            with torch.inference_mode():
                latents = codec.quantize(codec.infer(image[None].to(device)))
                found = to_8bit(reconstruct(codec, latents, (image.shape[1], image.shape[2])))[0].cpu()
            decoded[name] = found, _row(of_image, name, options.at)
        target = decoded[first][1]["bits"]
        for name in options.anchor:
            candidates = of_image.loc[of_image["codec"] == name, :]
            setting = float(min(zip(abs(candidates["bits"] - target), candidates["setting"], strict=True))[1])
            found = conventional.transcode(name, image, int(setting)).decoded
            decoded[f"{name} {setting:g}"] = found, _row(of_image, name, setting)
        html += f"<h3>{page.escape(path.name)}</h3>" + _side_by_side(image, decoded)
    return _Section("Reconstructions", html)


def _side_by_side(image: Tensor, decoded: Mapping[str, tuple[Tensor, Mapping[str, float]]]) -> str:
    errors = {name: _middle(255 * (found - image)).square().mean(0).sqrt() for name, (found, _) in decoded.items()}
    most = max(_FEWEST_LEVELS, *(float(error.quantile(0.999)) for error in errors.values()))
    figures = [page.pictures({"original": _pixels(_middle(image))}, "original")]
    for name, (found, row) in decoded.items():
        shown = {
            f"reconstruction by {name}": _pixels(_middle(found)),
            f"errors of {name}": _heat(errors[name] / most),
        }
        rate = row["bits"] / row["num_pixels"]
        figures.append(page.pictures(shown, f"{name}: {rate:.3f} bpp, {row['psnr_db']:.2f} dB"))
    figures.append(page.paragraph(f"Brightest in the maps: an error of {most:.0f} gray levels or more.", soft=True))
    return f'<div class="samples">{"".join(figures)}</div>'


def _middle(image: Tensor) -> Tensor:
    top, left = (max(0, (size - _SHOWN) // 2) for size in image.shape[-2:])
    return image[..., top : top + _SHOWN, left : left + _SHOWN]


def _pixels(image: Tensor) -> np.ndarray:
    return (255 * image).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def _heat(shares: Tensor) -> np.ndarray:
    """Return numbers in [0, 1], (height, width), as colours."""
    import matplotlib as mpl

    return (255 * mpl.colormaps["inferno"](shares.clamp(0, 1).numpy())[..., :3]).round().astype(np.uint8)


def _row(rates: pd.DataFrame, codec: str, setting: float) -> Mapping[str, float]:
    found = rates.loc[(rates["codec"] == codec) & (rates["setting"] == setting), :]
    return found.to_dict("records")[0]


# ---- words


def _origin(options: argparse.Namespace, paths: Sequence[Path]) -> _Section:
    try:
        own = version("rdgap")
    except PackageNotFoundError:  # run from a checkout that is not installed
        own = "unknown"
    rows = [
        ("what", "value"),
        ("rdgap", own),
        ("torch", torch.__version__),
        ("Python", platform.python_version()),
        ("device", str(_cli.device(options.device))),
        ("seed", str(options.seed)),
        ("images", _listed([path.name for path in paths])),
        ("tables", "evaluation.csv, gaps.csv" + (", curvature.csv" if options.pairs else "")),
    ]
    return _Section("How it was made", page.table(rows))


@cache
def _called(model: str) -> str:
    """Return what evaluation tables call a model."""
    return str(named_codec(model).name) if model.endswith(".safetensors") else model  # pyright: ignore


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _at_least_one_or_none(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
