"""What a training leaves behind: weights, a log of its course, a card that says where they come from."""

from __future__ import annotations

import csv
import platform
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from .._files import replacing, write_text
from ..recipes import Recipe
from .checkpoint import Progress
from .validation import Validation

LOG_COLUMNS = (
    "step", "seconds", "learning_rate", "train_lagrangian_bpp", "train_bpp", "train_mse",
    "validation_lagrangian_bpp", "validation_bpp", "validation_mse", "validation_psnr_db",
)  # fmt: skip


@dataclass(frozen=True)
class Files:
    """The files of one run, which share a stem."""

    weights: Path
    log: Path
    card: Path
    checkpoint: Path

    @staticmethod
    def named(out: Path, stem: str) -> Files:
        """Return the files of the run called `stem` in the folder `out`."""
        return Files(*(out / f"{stem}{end}" for end in (".safetensors", ".csv", ".md", ".checkpoint.safetensors")))

    def are_finished(self) -> bool:
        """Whether the weights are those of the last step."""
        try:
            with safe_open(self.weights, "pt") as file:
                metadata = file.metadata() or {}
        except (SafetensorError, OSError):
            return False
        return "step" in metadata and metadata["step"] == metadata.get("steps")


def start_log(path: Path, step: int, validate_every: int) -> str:
    """Start the log of a run at `step`: drop the rows that a killed run wrote after its last checkpoint.

    Returns:
        A remark where rows that should be there are not, else nothing.
    """
    rows = [row for row in read_log(path) if int(row["step"]) <= step] if step else []
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([LOG_COLUMNS, *(row.values() for row in rows)])
    return f", the log lacks earlier rows: {path} was changed" if len(rows) < step // validate_every else ""


def read_log(path: Path) -> list[dict[str, str]]:
    """Return the complete rows of a log; a kill may have cut the last one short."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if len(row) == len(LOG_COLUMNS) and row[0].isdecimal()]
    return [dict(zip(LOG_COLUMNS, row, strict=True)) for row in rows]


def add_to_log(path: Path, progress: Progress, lmbda: float, learning_rate: float, measured: Validation) -> None:
    """Append a row: the means of training since the last one, and a validation of the averaged weights."""
    bpp, mse = progress.mean("bpp"), progress.mean("mse")
    row = (
        progress.step, f"{progress.seconds:.1f}", learning_rate, bpp + lmbda * mse, bpp, mse,
        measured.lagrangian_bpp, measured.rate_bpp, measured.mse, measured.psnr_db,
    )  # fmt: skip
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerow(row)


def logged_validation(path: Path, step: int) -> Validation | None:
    """Return the validation that the log has of a step, if it has one."""
    for row in read_log(path):
        if int(row["step"]) == step:
            names = ("lagrangian_bpp", "bpp", "mse", "psnr_db")
            lagrangian, bpp, mse, psnr = (float(row[f"validation_{name}"]) for name in names)
            return Validation(lagrangian_bpp=lagrangian, rate_bpp=bpp, mse=mse, psnr_db=psnr)
    return None


def code_version() -> str:
    """Return the git commit of this package where it is a checkout, else its version."""
    checkout = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    if not (checkout / ".git").exists():  # installed, perhaps inside somebody else's repository
        from importlib.metadata import PackageNotFoundError, version

        try:
            return f"rdgap {version('rdgap')}"
        except PackageNotFoundError:
            return "unknown"
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # no git
        return "unknown"
    return described.stdout.strip() or "unknown"


def write_card(
    files: Files,
    recipe: Recipe,
    origin: dict[str, str],
    *,
    start: str,
    held_out: str,
    stored: Validation,
    kernels: str,
    bf16: bool,
    seconds: float,
    device: torch.device,
    command: Sequence[str],
) -> None:
    """Write what a reader of the weights wants to know as Markdown."""
    precision = "transforms in bfloat16 (autocast), densities in float32" if bf16 else "float32"
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    rows = read_log(files.log)
    shown = rows[:: max(1, len(rows) // 10)]
    course = "".join(
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
| start | {start} |
| seed | {origin["seed"]} |
| data | {origin["data"]} |
| held out | {held_out} |
| steps | {origin["step"]} of {origin["steps"]} |
| minutes | {seconds / 60:.1f} on {machine}, {platform.machine()}, torch {torch.__version__} |
| precision | {precision}; kernels {kernels} |
| code | {origin["commit"]} |
| validation | {stored} (mean PSNR) |

Validation: means over held-out images of the stored, averaged weights, under hard rounding, 8-bit reconstructions.

| step | minutes | training L | validation L | bpp | PSNR [dB] |
| --- | --- | --- | --- | --- | --- |
{course}""",
    )
