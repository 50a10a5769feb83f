"""How straight every trained model keeps the lines between latents, and two controls that need not be straight.

python analysis/latent_curvature.py --images KODAK        # an hour on two busy cores; the same command resumes
python analysis/latent_curvature.py --images KODAK --smoke --tables FOLDER        # two pairs, one model, seconds

50 random pairs of squares of 16, 64 and 256 pixels, the same for every model and, but for the size, every crop. All
models under models/ are measured at all their lmbdas; new ones are added by running the command again. Beside them:

- random-control: an untrained decoder of four layers with tanh, of large random weights;
- generative-control: a small VAE trained by this pipeline at high noise (analysis/controls).

Writes into analysis/tables:

- latent_curvature.csv: each pair, model, lmbda and crop; latent_curvature_summary.csv: medians and ranges of it;
- latent_curvature_paths.csv: mean and quartiles over pairs of the distances to both straight paths at each t;
- latent_curvature_geometry.csv: beyond the paper, the first pairs of 16 pixels at lmbda 0.01, in float64: the spectrum
  of the pullback metric at the middle of the line, the bending there, and geodesics;
- latent_curvature.json: settings and provenance;

and the block between the markers in the top-level README.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from _experiment import ROOT, check_smoke, fill_readme, forget_other_weights, parser
from torch import Tensor, nn

from rdgap import _cli, _files
from rdgap.curvature import (
    PullbackMetric,
    bending,
    extreme_eigenvalues,
    geodesic,
    image_decoder,
    jacobian_vector,
    line,
    log_determinant,
    trace,
)
from rdgap.curvature.jobs import Settings, groups, latent_ends, measure_pairs
from rdgap.curvature.pairs import Pair, random_pairs
from rdgap.curvature.report import summaries
from rdgap.images import image_paths
from rdgap.model import Codec, from_modules
from rdgap.schemas import CURVATURE
from rdgap.tables import read_table, write_table
from rdgap.zoo import load_codec, model_directory, trained_lmbdas, trained_models, weights_name

CONTROLS = ROOT / "analysis" / "controls"
BEGIN = "<!-- curvature table: python analysis/latent_curvature.py -->"
END = "<!-- end of curvature table -->"
PAIRS, SEED = 50, 0
POINTS = {16: 17, 64: 17, 256: 9}
"""Points of the "hermite" rule for each crop."""
GEOMETRY_PAIRS, GEOMETRY_CROP, GEOMETRY_LMBDA = 3, 16, 0.01
RANDOM, GENERATIVE = CONTROLS_NAMES = ("random-control", "generative-control")
KEYS = ["model", "lmbda", "crop"]
DISTANCES = ("mse_to_originals", "mse_to_reconstructions")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    arguments = parser(__doc__, smoke="two pairs, one model")
    arguments.add_argument("--images", type=Path, required=True, help="folder of the Kodak images")
    _cli.add_device(arguments)
    return _cli.run(_tables, arguments, argv)


def _tables(options: argparse.Namespace) -> None:
    out: Path = options.tables
    check_smoke(options)
    device = _cli.device(options.device)
    paths = image_paths([options.images])
    models = list_models()
    kinds = ("", "_paths", "_geometry")
    forget_other_weights(out / "latent_curvature.json", [out / f"latent_curvature{kind}.csv" for kind in kinds])
    crops, number, geometry_pairs = POINTS, PAIRS, GEOMETRY_PAIRS
    if options.smoke:
        models, crops, number, geometry_pairs = [models[0], models[-1]], {16: 5}, 2, 1

    provenance = {
        "command": "python analysis/latent_curvature.py --images KODAK",
        "settings": {"pairs": number, "seed": SEED, "rule": "hermite", "points": {str(k): v for k, v in crops.items()}},
        "weights_sha256": {weights_name(*pair): _sha256(*pair) for pair in models if pair[0] != RANDOM},
        "torch": torch.__version__,
    }
    _files.write_json(out / "latent_curvature.json", provenance)

    for crop, points in crops.items():
        settings = Settings(rule="hermite", num_points=points, hyper="moving", geodesics=False, crop=crop, seed=SEED)
        pairs = random_pairs(paths, number, crop=crop, seed=SEED)
        for model, lmbda in models:
            _add_lengths(out, model, lmbda, pairs, settings, device)
    _sum_up(out)
    for model, lmbda in models:
        if lmbda == GEOMETRY_LMBDA or model in CONTROLS_NAMES:
            pairs = random_pairs(paths, geometry_pairs, crop=GEOMETRY_CROP, seed=SEED)
            _add_geometry(out, model, lmbda, pairs, device)
            _sum_up(out)
    print(f"tables in {out}")


def _sum_up(out: Path) -> None:
    """Write what follows from the tables: medians and ranges, and the block in the README."""
    summary = summaries(read_table(out / "latent_curvature.csv", CURVATURE)).drop(
        columns=["zeta_lower_median", "geodesics_converged"]
    )
    _write(out / "latent_curvature_summary.csv", summary)
    fill_readme(BEGIN, END, markdown(out), tables=out)


def list_models() -> list[tuple[str, float]]:
    """Return the controls and every trained model at every lmbda, cheap ones first."""
    cheap_first = sorted(trained_models(), key=lambda name: ("two-layer" not in name, "jpeg" not in name, name))
    shipped = [(model, lmbda) for model in cheap_first for lmbda in trained_lmbdas(model)]
    generative = [
        (GENERATIVE, float(path.stem.removeprefix(f"{GENERATIVE}-")))
        for path in CONTROLS.glob(f"{GENERATIVE}-*.safetensors")
    ]
    return [(RANDOM, math.nan), *generative, *shipped]


def load(model: str, lmbda: float) -> Codec:
    """Load a trained model or make a control."""
    if model == RANDOM:
        return random_control()
    return load_codec(str(_weights(model, lmbda)))


def random_control() -> Codec:
    """Return an encoder of random orthogonal 16 x 16 blocks and an untrained decoder that bends their latents.

    The latents have about unit variance on photographs, and with a gain of 2 before each tanh no layer is near linear.
    """
    generator = torch.Generator().manual_seed(SEED)

    def normal(*shape: int, std: float) -> Tensor:
        return std * torch.randn(shape, generator=generator)

    channels = 32
    blocks = torch.linalg.qr(normal(768, channels, std=1.0)).Q.T.reshape(channels, 3, 16, 16)
    kernels = [normal(channels, channels, 4, 4, std=2 / math.sqrt(4 * channels)) for _ in range(3)]
    last = normal(channels, 3, 4, 4, std=0.3 / math.sqrt(4 * channels))
    biases = [normal(channels, std=0.5) for _ in kernels]

    def decode(latents: Tensor) -> Tensor:
        hidden = latents
        for kernel, bias in zip(kernels, biases, strict=True):
            moved = [parameter.to(latents) for parameter in (kernel, bias)]
            hidden = nn.functional.conv_transpose2d(hidden, *moved, stride=2, padding=1).tanh()
        return nn.functional.conv_transpose2d(hidden, last.to(latents), stride=2, padding=1) + 0.5

    return from_modules(
        lambda images: nn.functional.conv2d(4 * (images - 0.5), blocks.to(images), stride=16),
        decode,
        lambda latents: -latents.square().flatten(1).sum(1) / 2,
    )


def _add_lengths(
    out: Path, model: str, lmbda: float, pairs: Sequence[Pair], settings: Settings, device: torch.device
) -> None:
    """Measure one model at one lmbda on one crop, unless its rows are there."""
    table, paths = out / "latent_curvature.csv", out / "latent_curvature_paths.csv"
    key = (model, lmbda, settings.crop)
    if _has(table, key):
        return
    print(f"{model}, lmbda {lmbda:g}, crop {settings.crop}", flush=True)
    codec = _on(load(model, lmbda), device)
    measured = [measure_pairs(codec, model, group, settings, device) for group in groups(pairs)]
    rows = pd.concat([part.table for part in measured])
    per_t = pd.concat([part.paths for part in measured]).groupby([*KEYS, "t"], dropna=False)
    columns = {}
    for name in DISTANCES:
        columns[f"{name}_mean"] = per_t[name].mean()
        columns[f"{name}_lower_quartile"] = per_t[name].quantile(0.25)
        columns[f"{name}_upper_quartile"] = per_t[name].quantile(0.75)
    _append(paths, pd.DataFrame(columns).reset_index(), [*KEYS, "t"])
    kept = [read_table(table, CURVATURE)] if table.exists() else []
    write_table(table, pd.concat([*kept, rows]), CURVATURE)


def _add_geometry(out: Path, model: str, lmbda: float, pairs: Sequence[Pair], device: torch.device) -> None:
    """Measure what is beyond the paper, in float64, unless its rows are there."""
    table = out / "latent_curvature_geometry.csv"
    if _has(table, (model, lmbda, GEOMETRY_CROP)):
        return
    print(f"{model}, lmbda {lmbda:g}, geometry", flush=True)
    codec = _on(load(model, lmbda), device)
    if isinstance(codec, nn.Module):
        codec.double()
    rows = [
        {"model": model, "lmbda": lmbda, "crop": GEOMETRY_CROP, "pair": number, **geometry_of(codec, pair, device)}
        for number, pair in enumerate(pairs)
    ]
    _append(table, pd.DataFrame(rows), [*KEYS, "pair"])


def geometry_of(codec: Codec, pair: Pair, device: torch.device) -> dict[str, float]:
    """Return the spectrum and the bending at the middle of the latent line, and geodesics, of one pair."""
    originals = tuple(image.to(device).double() for image in pair.read())
    start, end = latent_ends(codec, originals, "moving")
    decode = image_decoder(codec, (originals[0].shape[-2], originals[0].shape[-1]))
    generator = torch.Generator().manual_seed(SEED)
    middle = torch.tensor([0.5]).double()
    curve = line(start, end)
    at = tuple(z.detach() for z in curve(middle))
    moving = [index == len(start) - 1 for index in range(len(start))]  # the metric of y; z has its own units
    metric = PullbackMetric(decode, at, moving=moving)
    spectrum = extreme_eigenvalues(metric, metric.dim, number=1, max_steps=100, generator=generator)
    damping = 1e-6 * float(spectrum.largest[0])
    determinant = log_determinant(metric, metric.dim, damping=damping, steps=40, probes=4, generator=generator)
    total = trace(metric, generator=generator)
    bent = bending(decode, curve, middle, tolerance=1e-6)
    search: dict[str, Any] = {"degree": 4, "num_nodes": 16, "max_iterations": 50, "generator": generator}
    free = geodesic(decode, start, end, **search)
    row = {
        "dim": metric.dim,
        "num_values": metric.num_values,
        "largest_eigenvalue": float(spectrum.largest[0]),
        "largest_eigenvalue_residual": float(spectrum.largest_residuals[0]),
        "smallest_eigenvalue_upper": max(0.0, float(spectrum.smallest[0])),
        "trace": total.value,
        "trace_stderr": total.stderr,
        "log_det_damped_upper_nats": determinant.upper,
        "log_det_damped_stderr_nats": determinant.stderr,
        "damping": damping,
        "curvature_times_chord": float(bent.curvature * free.straight.chord),
        "geodesic_curvature_times_chord": float(bent.geodesic_curvature * free.straight.chord),
        "normal_curvature_times_chord": float(bent.normal_curvature * free.straight.chord),
        "projection_residual": float(bent.projection_residual),
        "eta": free.zeta_upper,
        "zeta_lower": free.zeta_lower,
        "zeta_error": free.zeta_error,
        "geodesic_iterations": free.iterations,
        "geodesic_converged": int(free.converged),
        "zeta_lower_hyper_held": free.zeta_lower,
    }
    hyper = tuple(torch.zeros_like(z) if moves else torch.ones_like(z) for z, moves in zip(at, moving, strict=True))
    if jacobian_vector(decode, at, hyper).any():  # else the decoder does not see the hyper latents
        row["zeta_lower_hyper_held"] = geodesic(decode, start, end, moving=moving, **search).zeta_lower
    return row


def markdown(tables: Path) -> str:
    """Return what the README shows: medians and ranges of eta over pairs, lmbdas together, and of zeta."""
    table = read_table(tables / "latent_curvature.csv", CURVATURE)
    crops = sorted(set(table["crop"]))
    header = "".join(f" | {crop} x {crop}" for crop in crops)
    lines = [f"| eta: median (smallest to largest) | lmbdas{header} |", "| --- " * (len(crops) + 2) + "|"]
    for model in sorted(set(table["model"]), key=lambda name: (name in CONTROLS_NAMES, name)):
        rows = table.loc[table["model"] == model]
        cells = []
        for crop in crops:
            eta = rows.loc[rows["crop"] == crop, "eta"]
            cells.append(f"{eta.median():.4f} ({eta.min():.4f} to {eta.max():.4f})" if len(eta) else "")
        lmbdas = sorted(set(rows["lmbda"].dropna()))
        span = ", ".join(f"{lmbda:g}" for lmbda in lmbdas) if len(lmbdas) < 3 else f"{lmbdas[0]:g} to {lmbdas[-1]:g}"
        lines.append(f"| {model} | {span or 'none'} | {' | '.join(cells)} |")
    measured = tables / "latent_curvature_geometry.csv"
    if not measured.exists():
        return "\n".join(lines)
    geometry = pd.read_csv(measured)
    lines += [
        "",
        "| medians, 16 x 16 | pairs | eta | zeta > | curvature x chord | of it normal | largest stretch |",
    ]
    lines += ["| --- " * 7 + "|"]
    for model in sorted(set(geometry["model"]), key=lambda name: (name in CONTROLS_NAMES, name)):
        rows = geometry.loc[geometry["model"] == model]
        stretch = rows["largest_eigenvalue"].pow(0.5).median()
        medians = rows[["eta", "zeta_lower", "curvature_times_chord", "normal_curvature_times_chord"]].median()
        lines.append(
            f"| {model} | {len(rows)} | {medians['eta']:.4f} | {medians['zeta_lower']:.4f} | "
            f"{medians['curvature_times_chord']:.3f} | {medians['normal_curvature_times_chord']:.3f} | {stretch:.3g} |"
        )
    return "\n".join(lines)


def _on(codec: Codec, device: torch.device) -> Codec:
    return codec.to(device) if isinstance(codec, nn.Module) else codec


def _has(table: Path, key: tuple[str, float, int]) -> bool:
    if not table.exists():
        return False
    model, lmbda, crop = key
    rows = pd.read_csv(table, usecols=KEYS)
    same = rows["lmbda"].isna() if math.isnan(lmbda) else rows["lmbda"] == lmbda
    return bool(((rows["model"] == model) & same & (rows["crop"] == crop)).any())


def _append(table: Path, rows: pd.DataFrame, order: list[str]) -> None:
    kept = [pd.read_csv(table)] if table.exists() else []
    _write(table, pd.concat([*kept, rows]).sort_values(order))


def _write(table: Path, frame: pd.DataFrame) -> None:
    with _files.replacing(table) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def _weights(model: str, lmbda: float) -> Path:
    folder = CONTROLS if model == GENERATIVE else model_directory()
    return folder / f"{weights_name(model, lmbda)}.safetensors"


def _sha256(model: str, lmbda: float) -> str:
    return _files.sha256(_weights(model, lmbda))


if __name__ == "__main__":
    sys.exit(main())
