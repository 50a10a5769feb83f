"""`python -m rdgap.training`: train one codec, or a grid of them side by side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import _cli
from . import processes
from .data import split
from .grid import read_named_recipe, train_grid
from .initialization import PARTS
from .loop import train


def _parser() -> argparse.ArgumentParser:
    arguments = _cli.parser(
        "training",
        "Train a codec: recipe + images -> weights. The same command resumes an interrupted run.\n"
        "Over several processes or GPUs: torchrun --nproc-per-node 2 -m rdgap.training, with the same arguments.\n"
        "To train many side by side: python -m rdgap.training grid --help",
        "python -m rdgap.training models/two-layer-lite.toml --images PHOTOS --lmbda 0.01 --bf16 --out out/training",
    )
    arguments.add_argument("recipe", help="recipe (.toml), or the name of a shipped one")
    arguments.add_argument("--lmbda", type=_cli.positive_float, required=True, help="weight of the MSE (0..255 scale)")
    arguments.add_argument(
        "--snapshots", type=_step, nargs="+", default=(), metavar="STEP", help="keep the weights after these steps too"
    )
    _add_common(arguments)
    return arguments


def _step(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {text}")
    return number


def _grid_parser() -> argparse.ArgumentParser:
    arguments = _cli.parser(
        "training grid",
        "Train each recipe at each lmbda, several at a time, within a time budget.\n"
        "The same command goes on with what is unfinished.",
        "python -m rdgap.training grid models/two-layer-lite.toml models/jpeg-like-lite.toml --images PHOTOS "
        "--lmbda .0025 .01 .04 --minutes 9 --jobs 4 --out out/grid",
    )
    arguments.add_argument("recipes", nargs="+", metavar="recipe", help="recipes (.toml), or names of shipped ones")
    arguments.add_argument("--lmbda", type=_cli.positive_float, nargs="+", required=True, help="weights of the MSE")
    arguments.add_argument("--jobs", type=_cli.positive_int, default=1, help="trainings at a time (default: 1)")
    _add_common(arguments)
    return arguments


def _add_common(arguments: argparse.ArgumentParser) -> None:
    arguments.add_argument("--images", type=Path, nargs="+", required=True, help="training images, or folders of them")
    arguments.add_argument(
        "--validation", type=Path, nargs="+", help="held-out images (default: every 50th image, at most 64)"
    )
    arguments.add_argument("--out", type=Path, required=True, help="folder of weights, logs, cards and checkpoints")
    arguments.add_argument("--steps", type=_cli.positive_int, help="instead of the recipe's")
    arguments.add_argument("--minutes", type=_cli.positive_float, help="time for everything; the same command resumes")
    arguments.add_argument(
        "--bf16", action="store_true", help="transforms in bfloat16: about twice as fast where the processor has it"
    )
    arguments.add_argument(
        "--init-from", type=Path, help="weights (.safetensors) of another lmbda or architecture to start from"
    )
    arguments.add_argument(
        "--afresh", choices=PARTS, nargs="+", default=(), help="parts not to be taken from --init-from"
    )
    arguments.add_argument(
        "--validate-every", type=_cli.positive_int, default=1000, help="steps between validations (default: 1000)"
    )
    _cli.add_device(arguments)
    _cli.add_seed(arguments)


def _train(options: argparse.Namespace) -> None:
    images, held_out = split(options.images, options.validation)
    result = train(
        read_named_recipe(options.recipe),
        images=images,
        validation_images=held_out,
        lmbda=options.lmbda,
        out=options.out,
        seed=options.seed,
        steps=options.steps,
        device=_cli.device(options.device),
        bf16=options.bf16,
        init_from=options.init_from,
        afresh=options.afresh,
        minutes=options.minutes,
        validate_every=options.validate_every,
        snapshots=options.snapshots,
        command=["python", "-m", "rdgap.training", *options.argv],
    )
    if not processes.is_first():
        return
    state = "finished" if result.finished else "stopped by the time budget, the same command goes on"
    print(f"{result.weights}: {state} at step {result.step} of {result.steps}; validation {result.validation}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["grid"]:
        arguments, body = _grid_parser(), train_grid
        argv = argv[1:]
    else:
        arguments, body = _parser(), _train
    arguments.set_defaults(argv=argv)
    return _cli.run(body, arguments, argv, is_heard=processes.is_first_to_fail)


if __name__ == "__main__":
    sys.exit(main())
