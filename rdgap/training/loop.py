"""The training loop: recipe + images -> weights, log and card."""

from __future__ import annotations

import csv
import json
import math
import platform
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from .._files import replacing, write_text
from ..images import read_image, to_8bit
from ..metrics import mse, psnr_db
from ..ntc.codec import NTCCodec
from ..objective import check_lmbda, cost, nats_to_bpp, reconstruct
from ..recipes import Recipe, Training, build_codec
from ..zoo import read_codec, weights_name, write_codec
from . import checkpoint
from .data import TrainingCrops, seeded
from .initialization import initialize_principal, rescale_latents, take_weights

_PRINCIPAL_CROPS = 256
_SMALLEST_SCALE = 3e-3  # of a relative learning rate, for tensors that start at zero
_LARGEST_HALF_LOSS = 1e-3  # relative change of L that storing half-precision kernels may cost
LOG_COLUMNS = (
    "step", "seconds", "learning_rate", "train_lagrangian_bpp", "train_bpp", "train_mse",
    "validation_lagrangian_bpp", "validation_bpp", "validation_mse", "validation_psnr_db",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Means over validation images under hard rounding, with 8-bit reconstructions."""

    lagrangian_bpp: float
    rate_bpp: float
    mse: float
    psnr_db: float


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a call of `train` left behind.

    Attributes:
        weights: The averaged weights with their recipe, beside them a .csv log and a .md card.
        finished: False where the time budget ended before the steps did.
        step: Steps done.
        steps: Steps of the whole run.
        seconds: Training time over all parts of the run.
        validation: Of the averaged weights as they are stored.
    """

    weights: Path
    finished: bool
    step: int
    steps: int
    seconds: float
    validation: Validation


def train(
    recipe: Recipe,
    *,
    images: Sequence[Path],
    validation_images: Sequence[Path],
    lmbda: float,
    out: Path,
    seed: int = 0,
    steps: int | None = None,
    device: torch.device | str = "cpu",
    bf16: bool = False,
    init_from: Path | None = None,
    minutes: float | None = None,
    validate_every: int = 1000,
    command: Sequence[str] = (),
) -> TrainingResult:
    """Train a codec, or go on where an earlier call with the same arguments and `out` stopped.

    A resumed run equals an uninterrupted one: batches and noise are pure functions of seed and step.

    Args:
        recipe: Architecture and schedule.
        images: Training images; those smaller than the recipe's crop are left out.
        validation_images: Held-out images, used whole.
        lmbda: Weight of the MSE (0..255 scale) in bits per pixel.
        out: Folder of the results `NAME-LMBDA.safetensors`, `.csv`, `.md` and `.checkpoint.safetensors`.
        seed: Of weights, crops and noise.
        steps: Overrides the recipe's number of steps; the schedule scales with it.
        device: Where to train.
        bf16: Run the transforms under bfloat16 autocast.
        init_from: Weights to start from; what fits is taken, the latents are rescaled to the new lmbda.
        minutes: Stop with a checkpoint after this time, to be resumed by the same call.
        validate_every: Steps between rows of the log, each with validation and checkpoint.
        command: For the card.

    Raises:
        ValueError: If an argument is unusable, or `out` holds another run of the same name.
        RuntimeError: If the training cost or its gradient is no longer finite; the last checkpoint is kept.
    """
    check_lmbda(lmbda)
    plan = recipe.training
    steps = steps or plan.steps
    files = _Files.named(out, weights_name(recipe.name, lmbda))
    fabric = Fabric(accelerator=torch.device(device).type, devices=1)
    held_out = [read_image(path).to(fabric.device) for path in validation_images]
    crops = TrainingCrops(images, plan.crop_size, seed)
    codec, said = _initial_codec(recipe, crops, lmbda, seed, init_from)
    codec = codec.to(fabric.device, memory_format=torch.channels_last)
    average = {name: tensor.clone() for name, tensor in codec.state_dict().items()}
    optimizer = torch.optim.Adam(_parameter_groups(plan, codec))
    model, wrapped_optimizer = fabric.setup(codec, optimizer)
    configuration = json.dumps(
        {
            "recipe": recipe.model_dump_json(),
            "lmbda": lmbda,
            "seed": seed,
            "steps": steps,
            "bf16": bf16,
            "images": crops.sha256,
            "init_from": init_from.name if init_from else None,
            "validate_every": validate_every,
        }
    )
    progress = checkpoint.Progress()
    if files.checkpoint.exists():
        progress = checkpoint.load(
            files.checkpoint, configuration=configuration, model=codec, average=average, optimizer=optimizer
        )
        said = f"resumed at step {progress.step}; {said}"
    _truncate_log(files.log, progress.step)
    print(f"{files.weights.stem}: {len(crops)} images, {crops.too_small} too small; {said}", flush=True)

    averaged = build_averaged(recipe, average)
    started = time.monotonic() - progress.seconds
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    state = {"configuration": configuration, "model": codec, "average": average, "optimizer": optimizer}
    bar = tqdm(total=steps, initial=progress.step, desc=files.weights.stem, unit="step", disable=None)
    while progress.step < steps and time.monotonic() < deadline:
        batch = crops.batch(progress.step, plan.batch_size).to(fabric.device, memory_format=torch.channels_last)
        # Fabric's own mixed precision would round the images themselves to bfloat16, half a gray level.
        with torch.autocast(fabric.device.type, torch.bfloat16, enabled=bf16):
            rate_nats, sse = model(batch, seeded(fabric.device, seed, 2, progress.step))
        num_pixels = plan.crop_size**2
        bpp, batch_mse = nats_to_bpp(rate_nats, num_pixels).mean(), (sse / (3 * num_pixels)).mean()
        objective = bpp + lmbda * lmbda_boost(plan, lmbda, progress.step, steps) * batch_mse
        wrapped_optimizer.zero_grad()
        fabric.backward(objective)
        norm = fabric.clip_gradients(model, wrapped_optimizer, max_norm=plan.gradient_clip, error_if_nonfinite=False)
        if not (torch.isfinite(objective) and norm is not None and torch.isfinite(norm)):
            raise RuntimeError(_diverged(progress.step, objective.item(), files.checkpoint))
        learning_rate = plan.learning_rate * learning_rate_factor(plan, progress.step, steps)
        for group in wrapped_optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        wrapped_optimizer.step()
        progress.step += 1
        _update_average(average, codec, min(plan.average_decay, (1 + progress.step) / (10 + progress.step)))
        _accumulate(progress, bpp=bpp.item(), mse=batch_mse.item())
        bar.update()
        mean = {name: value / progress.count for name, value in progress.sums.items()}
        bar.set_postfix_str(
            f"L {mean['bpp'] + lmbda * mean['mse']:.4f} bpp {mean['bpp']:.4f} "
            f"PSNR {10 * math.log10(255**2 / mean['mse']):.2f} dB",
            refresh=False,
        )
        if progress.step % validate_every == 0 or progress.step == steps:
            measured = validate(averaged, held_out, lmbda)
            if not math.isfinite(measured.lagrangian_bpp):
                raise RuntimeError(_diverged(progress.step, measured.lagrangian_bpp, files.checkpoint))
            progress.seconds = time.monotonic() - started
            _log(files.log, progress, lmbda, learning_rate, measured)
            tqdm.write(
                f"step {progress.step}/{steps}  train L {mean['bpp'] + lmbda * mean['mse']:.4f}  validation "
                f"L {measured.lagrangian_bpp:.4f}  bpp {measured.rate_bpp:.4f}  PSNR {measured.psnr_db:.2f} dB"
            )
            progress.sums, progress.count = {}, 0
            checkpoint.save(files.checkpoint, progress=progress, **state)
    bar.close()
    progress.seconds = time.monotonic() - started
    checkpoint.save(files.checkpoint, progress=progress, **state)
    origin = {
        "lmbda": repr(lmbda),
        "step": str(progress.step),
        "steps": str(steps),
        "seed": str(seed),
        "data": f"{len(crops)} images, {crops.num_pixels / 1e6:.1f} Mpx, sha256 {crops.sha256}",
        "commit": _git_commit(),
    }
    stored, half = _store(files.weights, recipe, averaged, origin, held_out, lmbda)
    minutes_spent = progress.seconds / 60
    _write_card(files, recipe, origin, said, stored, half, minutes_spent, bf16, fabric.device, command)
    return TrainingResult(
        weights=files.weights,
        finished=progress.step >= steps,
        step=progress.step,
        steps=steps,
        seconds=progress.seconds,
        validation=stored,
    )


def learning_rate_factor(plan: Training, step: int, steps: int) -> float:
    """Return the learning rate of a step as a fraction of the recipe's: linear warm-up, then the recipe's decay."""
    warmup = max(1, round(plan.warmup_fraction * steps))
    rising = min(1.0, (step + 1) / warmup)
    if plan.decay == "step":
        return rising * (0.1 if step >= 0.8 * steps else 1.0)
    return rising * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def lmbda_boost(plan: Training, lmbda: float, step: int, steps: int) -> float:
    """Return the factor of lmbda: ten in the first part of the steps where lmbda is .01 or less."""
    return 10.0 if lmbda <= 0.01 and step < plan.boosted_fraction * steps else 1.0


@torch.inference_mode()
def validate(codec: NTCCodec, images: Sequence[Tensor], lmbda: float) -> Validation:
    """Evaluate a codec under hard rounding with 8-bit reconstructions; means over the images.

    Args:
        codec: The codec.
        images: Each (3, height, width) in [0, 1].
        lmbda: Weight of the MSE.
    """
    rates, errors = [], []
    for image in images:
        batch = image[None]
        latents = codec.quantize(codec.infer(batch))
        rates.append(float(cost(codec, latents, batch, lmbda).rate_bpp))
        errors.append(float(mse(batch, to_8bit(reconstruct(codec, latents, batch.shape[-2:])))))  # type: ignore[arg-type]
    rate_bpp, mean_mse = sum(rates) / len(rates), sum(errors) / len(errors)
    return Validation(
        lagrangian_bpp=rate_bpp + lmbda * mean_mse,
        rate_bpp=rate_bpp,
        mse=mean_mse,
        psnr_db=float(psnr_db(torch.tensor(errors, dtype=torch.float64)).mean()),
    )


def build_averaged(recipe: Recipe, average: dict[str, Tensor]) -> NTCCodec:
    """Return a codec in eval mode whose weights are the very tensors of `average`."""
    with torch.random.fork_rng():
        codec = build_codec(recipe)
    codec.load_state_dict(average, assign=True)
    return codec.eval().requires_grad_(False)


def _parameter_groups(plan: Training, codec: NTCCodec) -> list[dict[str, Any]]:
    """Return the parameters with the scale of each one's learning rate.

    Adam moves every weight by about the learning rate. The transforms' natural sizes differ a hundredfold between the
    first and the last layers, and with lmbda, so one rate for all either wrecks the small ones or leaves the large ones
    where they are; `relative` rates are in units of each tensor's root mean square at the start.
    """
    if not plan.relative_learning_rate:
        return [{"params": list(codec.parameters()), "scale": 1.0}]
    return [
        {"params": [parameter], "scale": max(_SMALLEST_SCALE, parameter.detach().square().mean().sqrt().item())}
        for parameter in codec.parameters()
    ]


@dataclass(frozen=True)
class _Files:
    weights: Path
    log: Path
    card: Path
    checkpoint: Path

    @staticmethod
    def named(out: Path, stem: str) -> _Files:
        out.mkdir(parents=True, exist_ok=True)
        return _Files(*(out / f"{stem}{end}" for end in (".safetensors", ".csv", ".md", ".checkpoint.safetensors")))


def _initial_codec(
    recipe: Recipe, crops: TrainingCrops, lmbda: float, seed: int, init_from: Path | None
) -> tuple[NTCCodec, str]:
    """Return the codec at step 0 and a sentence about where its weights come from."""
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(seed)
        codec = build_codec(recipe)
    fresh, said = {"analysis", "synthesis", "prior"}, "starts afresh"
    if init_from is not None:
        source = read_codec(init_from)
        gain = math.sqrt(lmbda / source.lmbda)
        rescaled = rescale_latents(source, gain)
        taken, fresh = take_weights(codec, source)
        said = f"took {_names(taken)} from {init_from.name}"
        said += f", latents times {gain:.3g}" if rescaled else ", latents not rescaled"
        said += f"; {_names(fresh)} starts afresh" if fresh else ""
    if fresh and recipe.training.initialization == "principal":
        initialize_principal(codec, crops.batch(0, _PRINCIPAL_CROPS), lmbda, fresh)
        said += ", from principal components"
    return codec, said


def _names(parts: set[str]) -> str:
    return " and ".join(sorted(parts)) or "nothing"


@torch.no_grad()
def _update_average(average: dict[str, Tensor], codec: NTCCodec, decay: float) -> None:
    current = codec.state_dict()
    torch._foreach_lerp_(list(average.values()), [current[name] for name in average], 1 - decay)


def _accumulate(progress: checkpoint.Progress, **measures: float) -> None:
    for name, value in measures.items():
        progress.sums[name] = progress.sums.get(name, 0.0) + value
    progress.count += 1


def _log(path: Path, progress: checkpoint.Progress, lmbda: float, learning_rate: float, measured: Validation) -> None:
    bpp, mean_mse = (progress.sums[name] / progress.count for name in ("bpp", "mse"))
    row = (
        progress.step, f"{progress.seconds:.1f}", learning_rate, bpp + lmbda * mean_mse, bpp, mean_mse,
        measured.lagrangian_bpp, measured.rate_bpp, measured.mse, measured.psnr_db,
    )  # fmt: skip
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerow(row)


def _truncate_log(path: Path, step: int) -> None:
    """Start the log, or drop the rows that a killed run wrote after its last checkpoint."""
    rows: list[list[str]] = []
    if path.exists() and step > 0:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row and row[0] != "step" and int(row[0]) <= step]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([LOG_COLUMNS, *rows])


def _diverged(step: int, value: float, kept: Path) -> str:
    end = f"the last good checkpoint is {kept}" if kept.exists() else "no checkpoint was reached yet"
    return f"the training cost or its gradient must be finite, got a cost of {value} at step {step}; {end}."


def _store(
    path: Path, recipe: Recipe, averaged: NTCCodec, origin: dict[str, str], images: Sequence[Tensor], lmbda: float
) -> tuple[Validation, bool]:
    """Write the weights, in half precision where that hardly changes L; return what was measured of the file."""
    full = validate(averaged, images, lmbda)
    for half in (True, False):
        write_codec(path, recipe, averaged.state_dict(), origin, half=half)
        stored = validate(read_codec(path).to(images[0].device), images, lmbda)
        if abs(stored.lagrangian_bpp / full.lagrangian_bpp - 1) < _LARGEST_HALF_LOSS:
            return stored, half
    raise RuntimeError(f"the weights read back from {path} must cost what they did, got {stored} after {full}.")


def _git_commit() -> str:
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or "unknown"


def _write_card(
    files: _Files,
    recipe: Recipe,
    origin: dict[str, str],
    said: str,
    stored: Validation,
    half: bool,
    minutes: float,
    bf16: bool,
    device: torch.device,
    command: Sequence[str],
) -> None:
    precision = "transforms in bfloat16 (autocast), densities in float32" if bf16 else "float32"
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    with files.log.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shown = rows[:: max(1, len(rows) // 10)]
    curve = "".join(
        f"| {row['step']} | {float(row['seconds']) / 60:.1f} | {float(row['train_lagrangian_bpp']):.4f} "
        f"| {float(row['validation_lagrangian_bpp']):.4f} | {float(row['validation_bpp']):.4f} "
        f"| {float(row['validation_psnr_db']):.2f} |\n"
        for row in (shown if not rows or shown[-1] is rows[-1] else [*shown, rows[-1]])
    )
    write_text(
        files.card,
        f"""# {files.weights.stem}

{recipe.description}

| | |
| --- | --- |
| lmbda | {origin["lmbda"]} |
| command | `{shlex.join(command) or "rdgap.training.train"}` |
| start | {said} |
| seed | {origin["seed"]} |
| data | {origin["data"]} |
| steps | {origin["step"]} of {origin["steps"]} |
| minutes | {minutes:.1f} on {machine}, {platform.machine()}, torch {torch.__version__} |
| precision | {precision}; kernels stored as {"float16" if half else "float32"} |
| code | {origin["commit"]} |
| validation | L {stored.lagrangian_bpp:.4f}, {stored.rate_bpp:.4f} bpp, {stored.psnr_db:.2f} dB (mean PSNR) |

Validation: means over held-out images of the stored, averaged weights, under hard rounding, 8-bit reconstructions.

| step | minutes | training L | validation L | bpp | PSNR [dB] |
| --- | --- | --- | --- | --- | --- |
{curve}""",
    )


