"""The columns of the tables that travel between commands, declared once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .tables import Column, Schema

OWN_ENCODER = "own"

EVALUATION: Schema = {
    "codec": Column(str),
    "setting": Column(float),
    "dataset": Column(str),
    "image": Column(str),
    "num_pixels": Column(int, minimum=1),
    "bits": Column(float, minimum=0),
    "rate_kind": Column(str, one_of=("estimated", "coded")),
    "mse": Column(float, minimum=0),
    "psnr_db": Column(float, may_be_infinite=True),
    "ms_ssim": Column(float, may_be_nan=True),
    "lpips": Column(float, minimum=0, may_be_nan=True, default=math.nan),
    "encoder": Column(str, default=OWN_ENCODER),
    "encoder_steps": Column(int, minimum=0, default=0),
    "encoder_seed": Column(int, default=0),
    "encoder_bf16": Column(int, minimum=0, default=0),
}
"""Rate and distortion of each image under each codec and setting.

codec: Name of the codec.
setting: What moves the codec along its curve: `lmbda` of a trained codec, the quality of JPEG, the QP of BPG.
dataset: Name of the folder of images.
image: Name of the image file without its suffix.
num_pixels: Height times width.
bits: Size of the image's description in bits; `bits / num_pixels` is its rate in bits per pixel.
rate_kind: "estimated" (-log2 of the prior at the rounded latents) or "coded" (the length of a real file).
mse: Mean squared error over pixels and channels, 0..255 scale, of the decoded image rounded to 8 bit.
psnr_db: 10 log10(255^2 / mse); `inf` where the decoded image is exact.
ms_ssim: Multi-scale structural similarity; empty (NaN) where it was not measured, so for images too small for its five
    scales.
lpips: LPIPS (AlexNet), lower is better; empty (NaN) where it was not asked for.
encoder: "own" where the codec's own encoder chose what to send, else a method of `rdgap.encoding`, "sga" for one.
encoder_steps: Steps of that method for each image; 0 for "own".
encoder_seed: Seed of its random numbers; 0 for "own".
encoder_bf16: 1 where it followed slopes in bfloat16, else 0.
"""


def curve_name(row: Mapping[Any, Any]) -> str:
    """Return what a row's codec is called, with its encoder where that is not the codec's own."""
    if row["encoder"] == OWN_ENCODER:
        return row["codec"]
    return f"{row['codec']} ({row['encoder']}, {row['encoder_steps']} steps)"


_SIDED = (
    *("encoder", "fitted_box", "fitted_gaussian", "neg_log_gamma_upper", "equilibrium_lower"),
    *("amortization_gap_lower", "approximation_gap", "inference_gap_lower"),
)

_MEASURED: Schema = {
    "model": Column(str),
    "lmbda": Column(float, minimum=0),
    "image": Column(str),
    "num_pixels": Column(int, minimum=1),
}

_SETTINGS: Schema = {
    "crop": Column(int, minimum=0),
    "seed": Column(int),
    "chains": Column(int, minimum=2),
    "temperatures": Column(int, minimum=2),
    "leapfrog_steps": Column(int, minimum=1),
    "target_acceptance": Column(float, minimum=0),
    "fit_steps": Column(int, minimum=1),
    "samples": Column(int, minimum=2),
    "batch": Column(int, minimum=1),
    "bf16": Column(int, minimum=0),
    "device": Column(str),
    "seconds": Column(float, minimum=0),
}

GAPS: Schema = {
    **_MEASURED,
    **{f"{name}{unit}": Column(float) for name in _SIDED for unit in ("_bpp", "_stderr_bpp")},
    "rounded_bpp": Column(float),
    "acceptance": Column(float, minimum=0),
    "divergent_share": Column(float, minimum=0),
    "effective_chains": Column(float, minimum=0),
    **_SETTINGS,
}
"""Costs and gaps of each image under each codec and lmbda; `rdgap.gaps.GapDecomposition` says what the terms are.

model: Name or file of the codec.
lmbda: Weight of the MSE in bits per pixel.
image: Name of the image file without its suffix.
num_pixels: Height times width of what was measured.
crop: Side of the random square of the image; 0 for all of it.
bf16: 1 where fits and HMC followed slopes in bfloat16, else 0.
device: Where it was computed, "cpu" or "cuda"; other devices draw other random numbers.
seconds: Wall-clock time of the image.
"""

GAPS_ALONG_TRAINING: Schema = {"step": Column(int, minimum=0), **GAPS}
"""The same of snapshots of one training run, which `model` names; `step`: after how many steps it was taken."""

BOTH_SIDES: Schema = {
    **_MEASURED,
    "neg_log_gamma_upper_bpp": Column(float),
    "neg_log_gamma_lower_bpp": Column(float),
    "bidirectional_gap_bpp": Column(float),
    "bidirectional_gap_stderr_bpp": Column(float, minimum=0),
    "acceptance": Column(float, minimum=0),
    "reverse_acceptance": Column(float, minimum=0),
    "reverse_moves": Column(int, minimum=1),
    **_SETTINGS,
}
"""Bounds of `-log Gamma` from both sides, in expectation, of images drawn from each codec itself.

image: Name of the photograph whose random numbers and size were used, nothing else of it.
acceptance: Of the moves towards the posterior; `reverse_acceptance` of those away from it.
reverse_moves: At each temperature, each of half the step size of the one before.

The other columns are those of `GAPS`; `samples` has no part in it.
"""

ENCODED: Schema = {
    **_MEASURED,
    "encoder_bits": Column(float, minimum=0),
    "encoder_mse": Column(float, minimum=0),
    "encoder_lagrangian_bpp": Column(float, minimum=0),
    "bits": Column(float, minimum=0),
    "mse": Column(float, minimum=0),
    "lagrangian_bpp": Column(float, minimum=0),
    "saving_percent": Column(float, minimum=0),
    "stream_bits": Column(float, minimum=0, may_be_nan=True),
    "method": Column(str),
    "steps": Column(int, minimum=1),
    "crop": Column(int, minimum=0),
    "seed": Column(int),
    "bf16": Column(int, minimum=0),
    "device": Column(str),
    "seconds": Column(float, minimum=0),
}
"""Iterative encoding of each image under each codec and lmbda, beside what the codec's own encoder chooses.

The first four columns and `device` are those of `GAPS`.

encoder_bits: Estimated size, in bits, of the encoder's own choice.
encoder_mse: Its distortion, 0..255 scale, of the image rounded to 8 bit as a bitstream of it decodes.
encoder_lagrangian_bpp: `encoder_bits / num_pixels + lmbda * encoder_mse`.
bits, mse, lagrangian_bpp: The same of what iterative encoding found.
saving_percent: By how much `lagrangian_bpp` is less than `encoder_lagrangian_bpp`.
stream_bits: Length of the bitstream of what was found, header included; empty (NaN) for codecs without bitstreams.
method: One of `rdgap.encoding.METHODS`.
steps: Of the search.
crop: Side of the square in the middle of the image; 0 for all of it.
seed: Of the random numbers of each image.
bf16: 1 where the search followed slopes in bfloat16, else 0; costs are in float32 in any case.
seconds: Wall-clock time of the image, an equal share of that of the images searched together.
"""

ROUNDED: Schema = {
    **_MEASURED,
    "rounded_bpp": Column(float),
    "best_point_upper_bpp": Column(float),
    "neg_log_gamma_upper_bpp": Column(float),
    "neg_log_gamma_upper_stderr_bpp": Column(float, minimum=0),
    "search_gap_lower_bpp": Column(float, minimum=0),
    "determinism_gap_bpp": Column(float),
    "inference_gap_lower_bpp": Column(float),
    "acceptance": Column(float, minimum=0),
    **_SETTINGS,
}
"""The hard-rounded codec on each image, a model of its own; `rdgap.gaps.RoundedDecomposition` says what the terms are.

The other columns are those of `GAPS`; `samples`, `leapfrog_steps` and `target_acceptance` have no part in it.
"""

CODED: Schema = {
    **_MEASURED,
    "bits_estimated": Column(float, minimum=0),
    "bits_coded": Column(int, minimum=0),
    "tail_saving_bits": Column(float),
    "values_differing_one_to_two_threads": Column(float, minimum=0, may_be_nan=True),
    "values_differing_two_to_one_threads": Column(float, minimum=0, may_be_nan=True),
    "latents_differing_old_cpu": Column(float, minimum=0, may_be_nan=True),
    "values_differing_old_cpu": Column(float, minimum=0, may_be_nan=True),
    "largest_difference_old_cpu": Column(float, minimum=0, may_be_nan=True),
}
"""The bitstream of each image under each codec and lmbda, and how its decoding compares with the encoder's.

bits_estimated: -log2 of the prior at the rounded latents.
bits_coded: Length of the whole stream, header included.
tail_saving_bits: How many bits fewer unlikely symbols take than the prior charges, part of the difference of these two.
values_differing_one_to_two_threads: How many of the 3 * num_pixels 8-bit values a decoder with two threads has
    otherwise than the encoder, which had one; and the other way round. Empty where that was not tried.
latents_differing_old_cpu: How many latents a decoder has otherwise that is kept from newer instructions of its CPU;
    empty where that was not tried.
values_differing_old_cpu: How many 8-bit values it has otherwise.
largest_difference_old_cpu: The largest of these differences, in levels of 8 bit.
"""

RECIPE_STEPS: Schema = {
    "codec": Column(str),
    "steps": Column(int, minimum=1),
    "num_pixels": Column(int, minimum=1),
    "first_lagrangian_bpp": Column(float, minimum=0),
    "last_lagrangian_bpp": Column(float, minimum=0),
    "seconds_per_step": Column(float, minimum=0),
    "peak_memory_bytes": Column(int, minimum=0),
}
"""Some training steps of each recipe on one crop.

first_lagrangian_bpp, last_lagrangian_bpp: bpp + lmbda * mse on that crop before the first and after the last step.
seconds_per_step: Wall-clock time on one thread, with whatever else ran on the machine.
peak_memory_bytes: Of the whole process.
"""

_CURVE: Schema = {
    "model": Column(str),
    "lmbda": Column(float, minimum=0, may_be_nan=True),
    "crop": Column(int, minimum=0),
    "hyper": Column(str, one_of=("moving", "held")),
    "pair": Column(int, minimum=0),
}

CURVATURE: Schema = {
    **_CURVE,
    "first": Column(str),
    "second": Column(str),
    "num_pixels": Column(int, minimum=1),
    "eta": Column(float, minimum=0),
    "eta_error": Column(float, minimum=0),
    "length": Column(float, minimum=0),
    "length_error": Column(float, minimum=0),
    "chord": Column(float, minimum=0),
    "polyline_length": Column(float, minimum=0),
    "speed_variation": Column(float, minimum=0),
    "max_deviation_over_chord": Column(float, minimum=0),
    "max_mse_to_reconstructions": Column(float, minimum=0),
    "max_mse_to_originals": Column(float, minimum=0),
    "zeta_lower": Column(float, minimum=0, may_be_nan=True),
    "zeta_error": Column(float, minimum=0, may_be_nan=True),
    "geodesic_length": Column(float, minimum=0, may_be_nan=True),
    "geodesic_converged": Column(float, minimum=0, may_be_nan=True),
    "rule": Column(str, one_of=("midpoint", "left", "gauss-legendre", "hermite")),
    "num_points": Column(int, minimum=2),
    "seed": Column(int),
}
"""Decoded lines between the latents of pairs of images; `rdgap.curvature.CurveLength` says what is measured.

model: Name or file of the codec, or package.module:function of a decoder.
lmbda: Weight of the MSE that the codec was trained for; empty for a decoder.
crop: Side of the random squares of the two images; 0 for all of them.
hyper: Whether the hyper latents move with the others or are "held" at those of the first image.
pair: Number of the pair, from 0.
first, second: Names of the image files without their suffixes.
zeta_lower, zeta_error, geodesic_length, geodesic_converged (1 or 0): `rdgap.curvature.Geodesic`; empty where not asked
for.
rule, num_points: How length was found; seed: of the pairs and squares.
"""

CURVATURE_PATHS: Schema = {
    **_CURVE,
    "t": Column(float, minimum=0),
    "speed": Column(float, minimum=0),
    "mse_to_reconstructions": Column(float, minimum=0),
    "mse_to_originals": Column(float, minimum=0),
}
"""The same lines at each t: speed, and MSE (0..255 scale) to the straight paths in pixel space (Fig. 11)."""

PUBLISHED_IMAGES: Schema = {
    "codec": Column(str),
    "dataset": Column(str),
    "lmbda": Column(float, minimum=0),
    "instance_id": Column(int, minimum=0),
    "images": Column(int, minimum=1),
    "rate_bpp": Column(float, minimum=0),
    "mse": Column(float, minimum=0),
    "psnr_db": Column(float),
    "ms_ssim": Column(float),
    "lpips": Column(float, minimum=0),
    "source_path": Column(str),
}
"""Published points of single images. The source tells bits per pixel, not pixels.

instance_id: The authors' number of the image, in the order of the data set's file names.
images: How many images the row is the mean of: 1, or the size of a batch that was published as one.
source_path: Repository and file that the row was read from.
"""

PUBLISHED_CURVES: Schema = {
    "codec": Column(str),
    "dataset": Column(str),
    "images": Column(int, minimum=1),
    "rate_bpp": Column(float, minimum=0),
    "psnr_db": Column(float, may_be_nan=True),
    "ms_ssim": Column(float, may_be_nan=True),
    "lpips": Column(float, minimum=0, may_be_nan=True),
    "source_path": Column(str),
}
"""Published curves, averaged over a data set; `images` is how many it has."""

BD: Schema = {
    "codec": Column(str),
    "rate_kind": Column(str, one_of=("estimated", "coded")),
    "anchor": Column(str),
    "anchor_rate_kind": Column(str, one_of=("estimated", "coded")),
    "dataset": Column(str),
    "measure": Column(str, one_of=("psnr", "ms-ssim", "lpips")),
    "interpolation": Column(str, one_of=("akima", "pchip", "cubic")),
    "averaging": Column(str, one_of=("mean quality", "mean distortion", "images")),
    "range": Column(str, one_of=("common", "aligned", "given")),
    "quality_low": Column(float, may_be_nan=True),
    "quality_high": Column(float, may_be_nan=True),
    "bd_rate_percent": Column(float, may_be_nan=True),
    "bd_rate_low_percent": Column(float, may_be_nan=True),
    "bd_rate_high_percent": Column(float, may_be_nan=True),
    "bd_quality": Column(float, may_be_nan=True),
    "bd_quality_low": Column(float, may_be_nan=True),
    "bd_quality_high": Column(float, may_be_nan=True),
    "largest_subset_change_percent": Column(float, minimum=0, may_be_nan=True),
    "images": Column(int, minimum=0),
    "images_without_bd": Column(int, minimum=0),
    "resamples": Column(int, minimum=0),
    "undefined_resamples": Column(int, minimum=0),
}
"""Bjontegaard differences, one row per codec, anchor, measure, interpolation and averaging; see `rdgap.bdrate`.

averaging: "mean quality": of the curve of mean bpp and mean quality (PSNR: mean of dB); "mean distortion": of the curve
    of mean bpp and the quality of the mean distortion (PSNR: of the mean MSE); "images": mean of the images' own BDs.
range: Rule for the range of quality: "common" to codec and anchor, "aligned" over all codecs of the table, or "given".
quality_low, quality_high: That range, dB or -LPIPS; for "images" the mean of the images' own.
bd_rate_percent, bd_quality: The differences; `_low` and `_high` bound their 95 % bootstrap intervals over images.
largest_subset_change_percent: Largest change of the BD-rate when a point is left out; empty but for "mean quality".
images: Images in the number; images_without_bd: those left out of it, because they have no BD of their own.
"""

COMPLEXITY: Schema = {
    "codec": Column(str),
    "transform": Column(str),
    "macs_per_pixel": Column(float, minimum=0),
    "gdn_macs_per_pixel": Column(float, minimum=0),
    "parameters": Column(int, minimum=0),
}
"""The transforms of codecs; `rdgap.complexity.TransformComplexity` says what is counted."""

_PAIR: Schema = {
    "ablation": Column(str),
    "part": Column(str, one_of=("analysis", "synthesis", "hyper_analysis", "hyper_synthesis", "context")),
    "reference": Column(str),
    "variant": Column(str),
}

ABLATIONS: Schema = {
    **_PAIR,
    "lmbdas": Column(int, minimum=2),
    "images": Column(int, minimum=1),
    "quality_low": Column(float),
    "quality_high": Column(float),
    "bd_rate_percent": Column(float),
    "bd_rate_low_percent": Column(float, may_be_nan=True),
    "bd_rate_high_percent": Column(float, may_be_nan=True),
    "reference_macs_per_pixel": Column(float, minimum=0, may_be_nan=True),
    "variant_macs_per_pixel": Column(float, minimum=0, may_be_nan=True),
}
"""Pairs of models that differ in one part: BD-rate of the variant over the reference, as in `BD` by "mean quality".

lmbdas: How many both are trained at.
reference_macs_per_pixel, variant_macs_per_pixel: Of that part.
"""

ABLATIONS_LAGRANGIAN: Schema = {
    **_PAIR,
    "lmbda": Column(float, minimum=0),
    "images": Column(int, minimum=1),
    "reference_lagrangian_bpp": Column(float, minimum=0),
    "variant_lagrangian_bpp": Column(float, minimum=0),
    "change_percent": Column(float),
    "change_low_percent": Column(float, may_be_nan=True),
    "change_high_percent": Column(float, may_be_nan=True),
}
"""The same pairs at one lmbda: by how much L of the variant is more than that of the reference, mean over images of
percents with Student's 95 % interval for pairs."""

RATE_DISTORTION: Schema = {
    "source": Column(str),
    "lmbda": Column(float, minimum=0),
    "method": Column(str),
    "side": Column(str, one_of=("exact", "upper", "lower", "estimate")),
    "f_nats": Column(float, minimum=0),
    "stderr_nats": Column(float, minimum=0),
    "rate_nats": Column(float, may_be_nan=True),
    "distortion": Column(float, minimum=0, may_be_nan=True),
    "seed": Column(int),
    "seconds": Column(float, minimum=0),
}
"""Points of rate-distortion functions; `rdgap.rate_distortion.Estimate` says what the columns are.

lmbda: Nats per unit of the source's distortion.
distortion: In that unit; empty where a bound belongs to no channel.
"""
