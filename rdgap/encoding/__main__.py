"""Command: iterative encoding of images by trained codecs, and what it saves."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import _cli, _files, _jobs, _plots
from ..model import LatticeCodec
from ..schemas import ENCODED
from ..zoo import checked_ntc, named_codec
from .encoder import Encoder, add_steps
from .jobs import Encoded, Job, measure, read_crop, settings_of, stream_path
from .methods import METHODS

if TYPE_CHECKING:
    import pandas as pd


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _cli.parser(
        "encoding",
        "Search for the latents that describe each image best, by its own L = bpp + lmbda * mse, from those that the\n"
        "codec's encoder chooses. Decoders need not know. Rates are estimates under hard rounding; distortions are\n"
        "those of the 8-bit image that a bitstream decodes to. Never worse than the encoder's own choice. With --csv\n"
        "every finished image is kept, and the same command goes on from there.",
        "python -m rdgap.encoding photo.png --model two-layer-lite --lmbda 0.01 --steps 500 --csv encoded.csv",
    )
    _jobs.add_arguments(arguments)
    add = arguments.add_argument
    add("--method", choices=tuple(METHODS), default="sga", help="how rounding is relaxed (default: sga)")
    add_steps(arguments)
    add(
        "--crop",
        type=_cli.positive_int,
        default=0,
        metavar="SIZE",
        help="take the square in the middle of each image (default: all of it)",
    )
    add(
        "--batch",
        type=_cli.positive_int,
        default=8,
        help="images of equal size that are searched together; bounds memory (default: 8)",
    )
    _cli.add_seed(arguments)
    _cli.add_device(arguments)
    _cli.add_cluster(arguments)
    _cli.add_output(arguments, "--csv", "a table, one row per image; rows of the same settings in it are kept")
    _cli.add_output(arguments, "--json", "settings, images and means")
    _cli.add_plot(arguments, "rate and PSNR of each image before and after")
    add("--out", type=Path, metavar="FOLDER", help="write a bitstream of each image, to be read by rdgap.codec")
    return _cli.run(_body, arguments, argv)


def _body(options: argparse.Namespace) -> None:
    encoder = Encoder(method=options.method, steps=options.steps, seed=options.seed, bf16=options.bf16)
    settings = settings_of(encoder) | {"crop": options.crop}
    paths = _jobs.checked_paths(options)
    codecs: dict[tuple[str, float], LatticeCodec] = {}  # for workers elsewhere
    for model, lmbda in product(options.model, options.lmbda):
        codec = named_codec(model, lmbda)
        if not isinstance(codec, LatticeCodec):
            raise ValueError(f"a codec must name its lattice points (`to_symbols`, `from_symbols`), got {model}.")
        if options.out:
            checked_ntc(codec, model)
        if options.cluster:
            codecs[model, lmbda] = codec
    device = None if options.cluster else _cli.device(options.device)
    kept = _jobs.kept_rows(options.csv, settings, ENCODED)
    if options.out:
        kept = _with_streams(kept, options.out)
        _make_folder(options.out)
    together = list(_jobs.equal_sizes(paths, lambda path: read_crop(path, options.crop).shape, options.batch))
    if device:
        _cli.note_slow_bf16(options.bf16, device)

    def job_of(model: str, lmbda: float, paths: tuple[Path, ...]) -> Job:
        return Job(
            model=model,
            lmbda=lmbda,
            paths=paths,
            encoder=encoder,
            crop=options.crop,
            device=options.device,
            codec=codecs.get((model, lmbda)),
        )

    def rows_of(encoded: Encoded) -> pd.DataFrame:
        if options.out:
            for row, stream in zip(encoded.table.to_dict("records"), encoded.streams, strict=True):
                assert stream is not None  # checked before
                with _files.replacing(stream_path(options.out, row["image"], row["model"], row["lmbda"])) as temporary:
                    temporary.write_bytes(stream)
        return encoded.table

    with _cli.executor(options.cluster) as executor:
        table = _jobs.complete(
            kept,
            options.model,
            options.lmbda,
            together,
            job_of,
            measure,
            rows_of=rows_of,
            executor=executor,
            schema=ENCODED,
            file=options.csv,
            description="encoding",
        )
    print(format_report(table))
    if options.json:
        rows = {"images": _files.json_rows(table), "means": _files.json_rows(means(table))}
        content = {"settings": settings} | rows
        _files.write_json(options.json, content)
    if options.plot:
        from ._plot import draw

        _plots.save(draw(table), options.plot)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"`--out` must be a folder, got {folder}.") from error


def _with_streams(kept: pd.DataFrame | None, folder: Path) -> pd.DataFrame | None:
    """Return the rows whose bitstreams are there as well."""
    if kept is None:
        return None
    streams = [stream_path(folder, row["image"], row["model"], row["lmbda"]) for row in kept.to_dict("records")]
    return kept.loc[np.array([stream.is_file() for stream in streams]), :]


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per model and lmbda: means over images of costs, savings in percent and seconds.

    `saving_percent` is the mean of the images' savings, `least_saving_percent` the least of them.
    """
    columns = ("encoder_lagrangian_bpp", "lagrangian_bpp", "saving_percent", "seconds")
    return table.groupby(["model", "lmbda"], as_index=False, sort=False).agg(
        images=("image", "size"),
        **{name: (name, "mean") for name in columns},
        least_saving_percent=("saving_percent", "min"),
    )


def format_report(table: pd.DataFrame) -> str:
    """Return what the command prints: every image, and means where there are several."""
    lines = ["Rates are estimated; L = bpp + lmbda * mse; before: the codec's own encoder."]
    width = max(map(len, table["image"]))
    for _, rows in table.groupby(["model", "lmbda"], sort=False):
        first = rows.iloc[0]
        lines.append(f"\n{first['model']}, lmbda {first['lmbda']:g}, {first['method']}, {first['steps']} steps")
        lines.append(
            f"{'image':{width}} {'bits before':>11} {'after':>9} {'mse before':>10} {'after':>8} "
            f"{'L before':>8} {'after':>7} {'saving':>7} {'seconds':>8}"
        )
        for row in rows.to_dict("records"):
            lines.append(
                f"{row['image']:{width}} {row['encoder_bits']:11.0f} {row['bits']:9.0f} {row['encoder_mse']:10.3f} "
                f"{row['mse']:8.3f} {row['encoder_lagrangian_bpp']:8.4f} {row['lagrangian_bpp']:7.4f} "
                f"{row['saving_percent']:6.2f}% {row['seconds']:8.1f}"
            )
        if len(rows) > 1:
            (mean,) = means(rows).to_dict("records")
            lines.append(
                f"{'mean':{width}} {'':11} {'':9} {'':10} {'':8} {mean['encoder_lagrangian_bpp']:8.4f} "
                f"{mean['lagrangian_bpp']:7.4f} {mean['saving_percent']:6.2f}% {mean['seconds']:8.1f}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
