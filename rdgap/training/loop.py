"""The training loop: recipe + images -> weights, log and card."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from .. import _cli
from .._files import replacing, sha256
from ..metrics import psnr_db
from ..ntc.codec import NTCCodec
from ..ntc.quantization import Share
from ..objective import check_lmbda, nats_to_bpp
from ..recipes import Recipe, build_codec
from ..zoo import read_codec, weights_name, write_codec
from . import checkpoint, processes
from .data import HeldOut, TrainingCrops, check_apart, fingerprint, seeded
from .initialization import PARTS, initialize_principal, rescale_latents, take_weights
from .results import Files, add_to_log, code_version, logged_validation, start_log, write_card
from .schedule import average_decay, learning_rate_factor, lmbda_boost, parameter_groups
from .storing import store
from .validation import Validation, validate

_PRINCIPAL_CROPS = 256
_CACHE_MIB = 4096  # of decoded images, on a machine


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a call of `train` left behind.

    Attributes:
        weights: The averaged weights with their recipe, beside them a .csv log and a .md card.
        finished: False where the time budget ended before the steps did.
        step: Steps done.
        steps: Steps of the whole run.
        seconds: Training time over all parts of the run.
        validation: Of the averaged weights in full precision, as the log has it.
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
    afresh: Collection[str] = (),
    minutes: float | None = None,
    validate_every: int = 1000,
    snapshots: Collection[int] = (),
    command: Sequence[str] = (),
) -> TrainingResult:
    """Train a codec, or go on where an earlier call with the same arguments and `out` stopped.

    A resumed run equals an uninterrupted one: batches and noise are pure functions of seed and step. On a CPU that
    holds bit for bit; a GPU sums in no fixed order. Processes that `torchrun` has started share each batch, with the
    result of one process up to the order of sums; all of them make this call, the first one writes.

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
        afresh: Parts, of "analysis", "synthesis" and "prior", not to be taken from `init_from`.
        minutes: Time for the whole call, from reading the images to the last validation. When it is up the run stops
            with a checkpoint, to be resumed by the same call.
        validate_every: Steps between rows of the log, each with validation and checkpoint.
        snapshots: Steps, from 0, after which the averaged weights are kept as `snapshot_path` names them.
        command: For the card.

    Raises:
        ValueError: If an argument is unusable, or `out` holds another run of the same name.
        RuntimeError: If the training cost or its gradient is no longer finite; the last checkpoint is kept.
    """
    began = time.monotonic()
    steps = recipe.training.steps if steps is None else steps
    _check(lmbda=lmbda, seed=seed, steps=steps, minutes=minutes, validate_every=validate_every)
    check_afresh(afresh, init_from)
    if not validation_images:
        raise ValueError("`validation_images` must hold at least one image, got none.")
    check_apart(images, validation_images)
    fabric = processes.fabric(torch.device(device))
    part = processes.part_of(recipe.training.batch_size, fabric)
    files = Files.named(out, weights_name(recipe.name, lmbda))
    sources = fingerprint(images, validation_images)
    source = None if init_from is None else (init_from, read_codec(init_from))
    configuration: dict[str, Any] = {
        "recipe": recipe.model_dump_json(),
        "lmbda": lmbda,
        "seed": seed,
        "steps": steps,
        "bf16": bf16,
        "init_from": init_from.name if init_from else None,
        "init_from_sha256": sha256(init_from) if init_from else None,
        "afresh": sorted(afresh),
        "validate_every": validate_every,
    }
    is_first = fabric.is_global_zero
    if finished := fabric.broadcast(_finished_before(files, configuration, sources) if is_first else None):
        if is_first:
            print(f"{files.weights.stem}: finished before, nothing to do", flush=True)
        return finished

    crops = TrainingCrops(images, recipe.training.crop_size, seed, cache_mib=_CACHE_MIB // processes.per_machine())
    if fabric.broadcast(crops.sha256) != crops.sha256:
        raise ValueError(f"all processes must read the same images, process {fabric.global_rank} read others.")
    held_out = HeldOut(validation_images, crops)
    configuration |= {"images": crops.sha256, "validation": held_out.sha256}
    run = _Run(recipe, configuration, sources, crops, held_out, fabric, part, source)
    if is_first:
        files.weights.parent.mkdir(parents=True, exist_ok=True)
    remark = run.resume(files)
    if is_first:
        print(
            f"{files.weights.stem}: {len(crops)} images, {crops.too_small} too small, {len(held_out)} held out; "
            f"{run.start}{remark}",
            flush=True,
        )
        _cli.note_slow_bf16(bf16, fabric.device)
    if is_first and run.progress.step == 0 and 0 in snapshots:
        run.keep_snapshot(files)
    deadline = math.inf
    if minutes is not None and is_first:
        deadline = began + 60 * minutes - run.closing_seconds()

    def has_time() -> bool:
        return minutes is None or fabric.broadcast(time.monotonic() < deadline)

    initial, hidden = run.progress.step, None if is_first else True
    with tqdm(total=steps, initial=initial, desc=files.weights.stem, unit="step", disable=hidden) as bar:
        while run.progress.step < steps and has_time():
            run.take_step(files)
            if is_first and run.progress.step in snapshots:
                run.keep_snapshot(files)
            bar.update()
            bar.set_postfix_str(run.course(), refresh=False)
            if run.progress.step % validate_every == 0 or run.progress.step == steps:
                course = run.course()
                if is_first:
                    tqdm.write(f"step {run.progress.step}/{steps}  training {course}  validation {run.log(files)}")
                run.progress.start_over()
    result = fabric.broadcast(run.close(files, command) if is_first else None)
    assert result is not None
    return result


class _Run:
    """A training between two steps: the codec, the running average of its weights, optimizer and progress."""

    def __init__(
        self,
        recipe: Recipe,
        configuration: dict[str, Any],
        sources: str,
        crops: TrainingCrops,
        held_out: HeldOut,
        fabric: Fabric,
        part: range,
        source: tuple[Path, NTCCodec] | None,
    ) -> None:
        self.recipe, self.plan = recipe, recipe.training
        self.configuration, self.sources = configuration, sources
        self.lmbda: float = configuration["lmbda"]
        self.seed: int = configuration["seed"]
        self.steps: int = configuration["steps"]
        self.bf16: bool = configuration["bf16"]
        self.crops, self.held_out = crops, held_out
        self.fabric, self.part = fabric, part
        codec, said = _initial_codec(
            recipe, crops, self.lmbda, self.seed, source, configuration["afresh"], fabric.is_global_zero
        )
        weights, self.start = fabric.broadcast((codec.state_dict(), said))
        codec.load_state_dict(weights)
        self.codec = codec.to(self.fabric.device)
        convert_conv2d_weight_memory_format(self.codec, torch.channels_last)
        self.average = {name: tensor.clone() for name, tensor in self.codec.state_dict().items()}
        self.averaged = _around(recipe, self.average)
        self.optimizer = torch.optim.Adam(parameter_groups(self.plan, self.codec))
        self._model, self._fabric_optimizer = self.fabric.setup(self.codec, self.optimizer)
        self.progress = checkpoint.Progress()
        self._resumed_at = time.monotonic()

    def resume(self, files: Files) -> str:
        """Restore the checkpoint, if there is one, and return a remark on it."""
        remark, saved = "", None
        if self.fabric.is_global_zero and files.checkpoint.exists():
            header = checkpoint.read_header(files.checkpoint)
            checkpoint.check_same_run(files.checkpoint, header.configuration, self.configuration)
            saved = header.progress, checkpoint.read_tensors(files.checkpoint)
            remark = f"; resumed at step {header.progress.step}"
        if saved := self.fabric.broadcast(saved):
            self.progress, tensors = saved
            checkpoint.restore(tensors, self.codec, self.average, self.optimizer)
        if self.fabric.is_global_zero:
            remark += start_log(files.log, self.progress.step, self.configuration["validate_every"])
        self._resumed_at = time.monotonic() - self.progress.seconds
        return remark

    def take_step(self, files: Files) -> None:
        """Move the codec by one step of the optimizer, and the average after it."""
        step, batch_size = self.progress.step, self.plan.batch_size
        batch = self.crops.batch(step, batch_size, self.part)
        batch = batch.to(self.fabric.device, memory_format=torch.channels_last)
        # Fabric's own mixed precision would round the images themselves to bfloat16, half a gray level.
        with torch.autocast(self.fabric.device.type, torch.bfloat16, enabled=self.bf16):
            noise = Share(seeded(self.fabric.device, self.seed, 2, step), self.part, batch_size)
            rate_nats, sse = self._model(batch, noise)
        num_pixels = self.plan.crop_size**2
        sums = torch.stack([nats_to_bpp(rate_nats, num_pixels).sum(), (sse / (3 * num_pixels)).sum()])
        weights = sums.new_tensor([1.0, self.lmbda * lmbda_boost(self.plan, self.lmbda, step, self.steps)])
        self._fabric_optimizer.zero_grad()
        # The processes' gradients are averaged, whatever the numbers of their samples.
        self.fabric.backward((weights * sums).sum() * self.fabric.world_size / batch_size)
        means = torch.as_tensor(self.fabric.all_reduce(sums.detach(), reduce_op="sum")) / batch_size
        objective = (weights * means).sum()
        norm = self.fabric.clip_gradients(
            self._model, self._fabric_optimizer, max_norm=self.plan.gradient_clip, error_if_nonfinite=False
        )
        if not (torch.isfinite(objective) and norm is not None and torch.isfinite(norm)):
            raise RuntimeError(_diverged(step, objective.item(), files.checkpoint))
        for group in self._fabric_optimizer.param_groups:
            group["lr"] = self._learning_rate(step) * group["scale"]
        self._fabric_optimizer.step()
        self.progress.add(bpp=means[0].item(), mse=means[1].item())
        if self.fabric.is_global_zero:
            self._update_average(average_decay(self.plan, self.progress.step))

    def course(self) -> str:
        """Return how training went since the last row of the log."""
        bpp, mse = self.progress.mean("bpp"), self.progress.mean("mse")
        psnr = float(psnr_db(torch.tensor(mse, dtype=torch.float64)))
        return f"L {bpp + self.lmbda * mse:.4f}, {bpp:.4f} bpp, {psnr:.2f} dB"

    def log(self, files: Files) -> Validation:
        """Validate, add a row to the log and save a checkpoint."""
        measured = self._validate(files)
        self.progress.seconds = time.monotonic() - self._resumed_at
        learning_rate = self._learning_rate(self.progress.step - 1)
        add_to_log(files.log, self.progress, self.lmbda, learning_rate, measured)
        self.progress.start_over()
        self._save(files)
        return measured

    def closing_seconds(self) -> float:
        """Return about how long `close` takes, two validations, from the time of one image."""
        num_pixels = [image.shape[1] * image.shape[2] for image in self.held_out]
        seconds = 0.0
        for _ in range(2):  # the first time is the slower one
            before = time.monotonic()
            validate(self.averaged, islice(self.held_out, 1), self.lmbda)
            seconds = time.monotonic() - before
        return 2 * seconds * sum(num_pixels) / num_pixels[0]

    def close(self, files: Files, command: Sequence[str]) -> TrainingResult:
        """Save a checkpoint, then card and weights; the weights come last, so that they stand for all of it."""
        step = self.progress.step
        measured = logged_validation(files.log, step) or self._validate(files)
        self.progress.seconds = time.monotonic() - self._resumed_at
        self._save(files)
        origin = self._origin()
        with replacing(files.weights) as candidate:
            stored, kernels = store(candidate, self.recipe, self.averaged, origin, self.crops, self.held_out, measured)
            write_card(
                files,
                self.recipe,
                origin,
                start=self.start,
                held_out=f"{len(self.held_out)} images, sha256 {self.held_out.sha256}",
                stored=stored,
                kernels=kernels,
                bf16=self.bf16,
                seconds=self.progress.seconds,
                device=self.fabric.device,
                command=command,
            )
        return _result(files, self.progress, self.steps, measured)

    def keep_snapshot(self, files: Files) -> None:
        """Write the averaged weights as they are now, in full precision."""
        path = snapshot_path(files.weights, self.progress.step)
        write_codec(path, self.recipe, self.averaged.state_dict(), self._origin(), kernels="float32")

    def _origin(self) -> dict[str, str]:
        """Return what weights say of where they come from."""
        crops = self.crops
        return {
            "lmbda": repr(self.lmbda),
            "step": str(self.progress.step),
            "steps": str(self.steps),
            "seed": str(self.seed),
            "data": f"{len(crops)} images, {crops.num_pixels / 1e6:.1f} Mpx, sha256 {crops.sha256}",
            "commit": code_version(),
        }

    def _learning_rate(self, step: int) -> float:
        return self.plan.learning_rate * learning_rate_factor(self.plan, step, self.steps)

    @torch.no_grad()
    def _update_average(self, decay: float) -> None:
        current = self.codec.state_dict()
        get_ema_multi_avg_fn(decay)(list(self.average.values()), [current[name] for name in self.average], 0)

    def _validate(self, files: Files) -> Validation:
        """Validate the averaged weights; those that are no longer finite never reach a checkpoint."""
        measured = validate(self.averaged, self.held_out, self.lmbda)
        if not measured.is_finite:
            raise RuntimeError(_diverged(self.progress.step, measured.lagrangian_bpp, files.checkpoint))
        return measured

    def _save(self, files: Files) -> None:
        header = checkpoint.Header(configuration=self.configuration, progress=self.progress, sources=self.sources)
        checkpoint.save(files.checkpoint, header, self.codec, self.average, self.optimizer)


def snapshot_path(weights: Path, step: int) -> Path:
    """Return where the snapshot of a step lies: beside the weights of its run."""
    return weights.with_name(f"{weights.stem}-step-{step}.safetensors")


def _check(*, lmbda: float, seed: int, steps: int, minutes: float | None, validate_every: int) -> None:
    check_lmbda(lmbda)
    if seed < 0:
        raise ValueError(f"`seed` must not be negative, got {seed}.")
    for name, number in (("steps", steps), ("validate_every", validate_every)):
        if number < 1:
            raise ValueError(f"`{name}` must be at least 1, got {number}.")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"`minutes` must be positive, got {minutes}.")


def check_afresh(afresh: Collection[str], init_from: Path | None) -> None:
    """Raise `ValueError` if parts are to start afresh that there are not, or without weights to take others from."""
    if unknown := set(afresh) - set(PARTS):
        raise ValueError(f"`afresh` must name parts out of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}.")
    if afresh and init_from is None:
        raise ValueError("`afresh` must come with `init_from`: without it all parts start afresh.")


def _finished_before(files: Files, configuration: dict[str, Any], sources: str) -> TrainingResult | None:
    """Return the result of a run that needs no more steps, without reading its images.

    Raises:
        ValueError: If the files belong to another run.
    """
    if not files.checkpoint.exists():
        if files.weights.exists():
            raise ValueError(f"{files.weights} has no checkpoint to go on from. Choose another `--out`, or remove it.")
        return None
    header = checkpoint.read_header(files.checkpoint)
    checkpoint.check_same_run(files.checkpoint, header.configuration, configuration)
    measured = logged_validation(files.log, configuration["steps"])
    if measured is None or header.sources != sources or not files.are_finished():
        return None
    return _result(files, header.progress, configuration["steps"], measured)


def _result(files: Files, progress: checkpoint.Progress, steps: int, measured: Validation) -> TrainingResult:
    return TrainingResult(
        weights=files.weights,
        finished=progress.step >= steps,
        step=progress.step,
        steps=steps,
        seconds=progress.seconds,
        validation=measured,
    )


def _initial_codec(
    recipe: Recipe,
    crops: TrainingCrops,
    lmbda: float,
    seed: int,
    source: tuple[Path, NTCCodec] | None,
    afresh: Collection[str],
    is_first: bool,
) -> tuple[NTCCodec, str]:
    """Return the codec at step 0 and a sentence about where its weights come from; both count in the first process."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        codec = build_codec(recipe)
    if not is_first:
        return codec, ""
    fresh, said = set(PARTS), "starts afresh"
    if source is not None:
        path, other = source
        gain = math.sqrt(lmbda / other.lmbda)
        rescaled = rescale_latents(other, gain)
        taken, fresh = take_weights(codec, other, set(PARTS) - set(afresh))
        said = f"took {_names(taken)} from {path.name}"
        said += f", latents times {gain:.3g}" if rescaled else ", latents not rescaled"
        said += f"; {_names(fresh)} starts afresh" if fresh else ""
    if fresh and recipe.training.initialization == "principal":
        initialize_principal(codec, crops.batch(0, _PRINCIPAL_CROPS), lmbda, fresh)
        said += ", from principal components"
    return codec, said


def _around(recipe: Recipe, weights: dict[str, Tensor]) -> NTCCodec:
    """Return a codec in eval mode whose weights are the very tensors given."""
    with torch.random.fork_rng(devices=[]):
        codec = build_codec(recipe)
    codec.load_state_dict(weights, assign=True)
    return codec.eval().requires_grad_(False)


def _names(parts: set[str]) -> str:
    return " and ".join(sorted(parts)) or "nothing"


def _diverged(step: int, value: float, kept: Path) -> str:
    end = f"the last good checkpoint is {kept}" if kept.exists() else "no checkpoint was reached yet"
    return f"the training cost or its gradient must be finite, got a cost of {value} at step {step}; {end}."
