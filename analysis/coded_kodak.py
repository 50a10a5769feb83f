"""Real bitstreams of every shipped model on Kodak: their length beside the estimate, and whether decoding is exact.

    python analysis/coded_kodak.py --images KODAK      # half an hour on two cores; the same command resumes
    python analysis/coded_kodak.py                     # only sums up the committed table again

Writes `tables/coded_kodak.csv` with provenance beside it, and the block between the markers in the top-level README.
Rows of weights that have changed are measured again.
Every image is encoded with one thread and decoded with two, and the other way round. Every eighth image is also
decoded in a process that is kept from the vector instructions of this CPU, AVX-512 and bfloat16 among them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _experiment import check_smoke, every_model, fill_readme, forget_other_weights, parser, provenance, weights_of
from numpy.typing import NDArray
from torch import Tensor

from rdgap import _cli
from rdgap._files import write_json
from rdgap.codec import Coder, unpack
from rdgap.evaluation import estimated_bits
from rdgap.images import image_paths, read_image
from rdgap.parallel import map_images
from rdgap.schemas import CODED
from rdgap.tables import read_table, write_table
from rdgap.zoo import load_codec

BEGIN, END = "<!-- coded table: python analysis/coded_kodak.py -->", "<!-- end of coded table -->"
KEYS = ["model", "lmbda", "image"]
OLD_CPU = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
"""What keeps torch and oneDNN from instructions newer than SSE 4.1, and MKL from those newer than SSE 2."""
OLD_CPU_STRIDE = 8

Job = tuple[Path, str, float]
"""An image, and a model at one lmbda."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment."""
    arguments = parser(__doc__, smoke="two images and one model")
    arguments.add_argument("--images", type=Path, help="folder of the 24 Kodak images; without it nothing is measured")
    return _cli.run(_run, arguments, argv)


def _run(options: argparse.Namespace) -> None:
    check_smoke(options)
    path: Path = options.tables / "coded_kodak.csv"
    if options.images:
        images = image_paths([options.images])[: 2 if options.smoke else None]
        _measure_missing(path, images, every_model()[: 1 if options.smoke else None])
    text = markdown(read_table(path, CODED))
    print(text)
    fill_readme(BEGIN, END, text, tables=options.tables)


def _measure_missing(path: Path, images: Sequence[Path], models: Sequence[tuple[str, float]]) -> None:
    """Measure what is not in the table yet; every finished row is kept at once."""
    forget_other_weights(path.with_suffix(".json"), [path])
    rows = read_table(path, CODED).to_dict("records") if path.exists() else []
    done = {tuple(row[key] for key in KEYS) for row in rows}
    jobs = [(image, *model) for image, model in product(images, models)]
    missing = [job for job in jobs if (job[1], job[2], job[0].stem) not in done]
    if not missing:
        return
    weights = [weights_of(*model) for model in models]
    origin = provenance("python analysis/coded_kodak.py --images KODAK", images=images, weights=weights)
    origin |= {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "old_cpu": OLD_CPU,
    }
    write_json(path.with_suffix(".json"), origin)
    on_old_cpu = frozenset(images[::OLD_CPU_STRIDE])
    with _old_cpu() as old_cpu:
        for row in map_images(partial(_measure, old_cpu, on_old_cpu), missing, description="coding"):
            rows.append({str(name): entry for name, entry in row.items()})
            write_table(path, pd.DataFrame(rows), CODED)


@contextmanager
def _old_cpu() -> Iterator[Executor]:
    """Yield one process that is kept from newer instructions."""
    before = {name: os.environ.get(name) for name in OLD_CPU}
    os.environ.update(OLD_CPU)
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
            if executor.submit(torch.backends.cpu.get_cpu_capability).result() != "DEFAULT":
                raise RuntimeError("the process must be kept from newer instructions, but is not.")
            yield executor
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _measure(old_cpu: Executor, on_old_cpu: frozenset[Path], job: Job) -> dict[str, object]:
    path, model, lmbda = job
    coder, image = _coder(model, lmbda), read_image(path)
    torch.set_num_threads(1)
    stream, y = coder.encode_with_latents(image)
    height, width = image.shape[-2:]
    by_one = coder.synthesize(y, height, width)
    torch.set_num_threads(2)
    one_to_two = _differing(coder.decode(stream), by_one)
    by_two_stream, y_by_two = coder.encode_with_latents(image)
    by_two = coder.synthesize(y_by_two, height, width)
    torch.set_num_threads(1)
    two_to_one = _differing(coder.decode(by_two_stream), by_two)
    with torch.no_grad():
        latents = coder.codec.quantize(coder.codec.infer(image[None]))
    row: dict[str, object] = {
        **dict(zip(KEYS, (model, lmbda, path.stem), strict=True)),
        "num_pixels": height * width,
        "bits_estimated": estimated_bits(coder.codec, latents),
        "bits_coded": 8 * len(stream),
        "tail_saving_bits": coder.tail_saving_bits(image),
        "values_differing_one_to_two_threads": float(one_to_two),
        "values_differing_two_to_one_threads": float(two_to_one),
        "latents_differing_old_cpu": float("nan"),
        "values_differing_old_cpu": float("nan"),
        "largest_difference_old_cpu": float("nan"),
    }
    if path in on_old_cpu:
        old_y, old_image = old_cpu.submit(_decode, model, lmbda, stream).result()
        row["latents_differing_old_cpu"] = float(_differing(old_y, y))
        row["values_differing_old_cpu"] = float(_differing(old_image, by_one))
        row["largest_difference_old_cpu"] = float(torch.round(255 * (old_image - by_one).abs().max()))
    return row


def _decode(model: str, lmbda: float, stream: bytes) -> tuple[Tensor, Tensor]:
    """Return latents and image of a stream."""
    coder = _coder(model, lmbda)
    header, payload = unpack(stream)
    y = coder.read_latents(payload, header)
    return y, coder.synthesize(y, header.height, header.width)


@cache
def _coder(model: str, lmbda: float) -> Coder:
    return Coder(load_codec(model, lmbda))


def _differing(one: Tensor, other: Tensor) -> int:
    return int((one != other).sum())


def shares_of_allowance(table: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how much each stream is longer than its estimate, and than that less what unlikely symbols save.

    Both as shares of 0.2 % and 32 bytes, negative where the stream is shorter.
    """
    names = ("bits_estimated", "bits_coded", "tail_saving_bits")
    estimated, coded, saved = (table[name].to_numpy(np.float64) for name in names)
    allowance = 0.002 * estimated + 8 * 32
    return (coded - estimated) / allowance, (coded - (estimated - saved)) / allowance


def markdown(table: pd.DataFrame) -> str:
    """Return what the README shows: lengths and exactness of each model over its lmbdas and all images."""
    lines = [
        "| model | lmbdas | streams | coded over estimated, all | each, least and most "
        "| over estimate, of 0.2 % + 32 bytes | the same less what unlikely symbols save "
        "| other values, 1 and 2 threads | other latents, old CPU | other values, old CPU |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model, rows in table.groupby("model"):
        old = rows.loc[rows["values_differing_old_cpu"].notna()]
        excess = 100 * (rows["bits_coded"] / rows["bits_estimated"] - 1)
        shares = " | ".join(
            f"{100 * each.min():+.0f} to {100 * each.max():+.0f} %" for each in shares_of_allowance(rows)
        )
        threads = rows[[f"values_differing_{way}_threads" for way in ("one_to_two", "two_to_one")]].dropna()
        lines.append(
            f"| {model} | {rows['lmbda'].nunique()} | {len(rows)} "
            f"| {100 * (rows['bits_coded'].sum() / rows['bits_estimated'].sum() - 1):+.3f} % "
            f"| {excess.min():+.2f} %, {excess.max():+.2f} % "
            f"| {shares} | {int(threads.to_numpy().sum())} "
            f"in {len(threads)} streams "
            f"| {int(old['latents_differing_old_cpu'].sum())} "
            f"| {1e6 * old['values_differing_old_cpu'].sum() / (3 * old['num_pixels'].sum()):.0f} in a million, "
            f"by at most {int(old['largest_difference_old_cpu'].max())} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
