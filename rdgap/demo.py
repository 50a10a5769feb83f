"""`python -m rdgap.demo`: the main measurements on two photographs with the shipped models, a line for each result."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from . import _cli, _plots
from .curvature import curve_length, image_decoder
from .curvature.plot import draw, film_strip
from .evaluation import OperatingPoint, average, best_lagrangian, conventional_points, evaluate, learned_point
from .gaps import decompose
from .gaps.report import draw as draw_gaps
from .images import center_crop, sample_photographs, write_image
from .schemas import EVALUATION
from .tables import write_table
from .zoo import DEFAULT_LMBDA, DEFAULT_MODEL, load_codec, trained_lmbdas, trained_models

JPEG_QUALITIES = (5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 95)
LMBDAS = (0.0025, 0.01, 0.04)
PAIR_SIZE, GAP_SIZE = 256, 64


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    arguments = _cli.parser(
        "demo",
        "Measure the shipped codecs on two sample photographs: rate and distortion beside JPEG,\n"
        "the gaps of a crop, and how straight the manifold of reconstructions is between two crops.",
        "python -m rdgap.demo --out out/demo",
    )
    arguments.add_argument("--out", type=Path, default=Path("out/demo"), help="folder of results (default: out/demo)")
    _cli.add_device(arguments)
    _cli.add_seed(arguments)
    return _cli.run(_demo, arguments, argv)


def _demo(options: argparse.Namespace) -> None:
    began = time.monotonic()
    device = _cli.device(options.device)
    photographs = sample_photographs()
    for name, image in photographs.items():
        write_image(options.out / "photographs" / f"{name}.png", image)

    _rate_distortion(options.out, device)
    _gaps(options.out, photographs, device, options.seed)
    _curvature(options.out, photographs, device)
    print(f"\n{time.monotonic() - began:.0f} s; pictures and tables are in {options.out}/")


def _rate_distortion(out: Path, device: torch.device) -> None:
    print("L = bpp + lmbda * mse, mean of two photographs (rate of learned codecs: estimated; all points in the table)")
    points: list[OperatingPoint] = conventional_points("jpeg", JPEG_QUALITIES)
    for model in trained_models():
        for lmbda in sorted(set(LMBDAS) & set(trained_lmbdas(model))):
            codec = load_codec(model, lmbda, device=device)
            points.append(learned_point(codec, name=model, lmbda=lmbda, device=device))
    table = evaluate(points, sorted((out / "photographs").glob("*.png")))
    write_table(out / "rate_distortion.csv", table, EVALUATION)
    averages = average(table)
    learned = averages.loc[averages["rate_kind"] == "estimated", :]
    costs = learned.pivot(index="codec", columns="setting", values="lagrangian_bpp").sort_values(DEFAULT_LMBDA)
    jpeg = table.loc[table["codec"] == "jpeg", :]
    costs.loc["jpeg, best quality"] = [
        float(best_lagrangian(jpeg, float(lmbda))["lagrangian_bpp"].iloc[0]) for lmbda in costs.columns
    ]
    costs.columns = pd.Index([f"lmbda {lmbda:g}" for lmbda in costs.columns])
    print(costs.rename_axis(None).to_string(float_format="{:.3f}".format, na_rep="-"))

    from .evaluation._plot import plot_curves

    _plots.save(plot_curves(averages), out / "rate_distortion.png")


def _gaps(out: Path, photographs: dict[str, Tensor], device: torch.device, seed: int) -> None:
    name, image = next(iter(photographs.items()))
    crop = center_crop(image, GAP_SIZE)
    model = load_codec(DEFAULT_MODEL, DEFAULT_LMBDA, device=device)
    gaps = decompose(model, crop[None].to(device), DEFAULT_LMBDA, generator=torch.Generator(device).manual_seed(seed))
    print(f"\nWhere the bits go: {DEFAULT_MODEL}, lmbda {DEFAULT_LMBDA:g}, {GAP_SIZE} x {GAP_SIZE} pixels of {name}")
    print(
        f"  {gaps.encoder_bpp.item():.3f} bpp (noise channel)"
        f" = {gaps.neg_log_gamma_upper_bpp.item():.3f} ideal channel (-log Gamma, upper bound)"
        f" + {gaps.approximation_gap_bpp.item():.3f} approximation"
        f" + {gaps.amortization_gap_lower_bpp.item():.3f} amortization (lower bound);"
        f" error of the sum's parts {gaps.inference_gap_lower_stderr_bpp.item():.3f}"
    )
    table = gaps.to_frame()
    table.insert(0, "image", name)
    table.insert(1, "model", DEFAULT_MODEL)
    _plots.save(draw_gaps(table), out / "gaps.png")


def _curvature(out: Path, photographs: dict[str, Tensor], device: torch.device) -> None:
    first, last = (center_crop(image, PAIR_SIZE)[None].to(device) for image in photographs.values())
    print(f"\nHow straight: curves of reconstructions between {PAIR_SIZE} x {PAIR_SIZE} pixels of each photograph")
    for model in trained_models():
        if DEFAULT_LMBDA not in trained_lmbdas(model):
            continue
        codec = load_codec(model, DEFAULT_LMBDA, device=device)
        with torch.no_grad():
            start, end = codec.infer(first), codec.infer(last)
        decode = image_decoder(codec, (PAIR_SIZE, PAIR_SIZE))
        curve = curve_length(decode, start, end, rule="hermite", num_points=17, originals=(first, last))
        print(f"  {model:<24} eta = {curve.eta.item():.4f} +- {curve.eta_error.item():.1g} (1: straight)")
        if model == DEFAULT_MODEL:
            _plots.save(draw(curve, film_strip(decode, start, end, (first, last))), out / "curvature.png")


if __name__ == "__main__":
    sys.exit(main())
