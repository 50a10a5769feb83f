"""What all commands share: common arguments, the choice of a device, and how errors end a run."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence

import torch


def parser(module: str, description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser for `python -m rdgap.<module>` whose help ends in one worked example."""
    return argparse.ArgumentParser(
        prog=f"python -m rdgap.{module}",
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_device(arguments: argparse.ArgumentParser) -> None:
    """Add `--device`, read by `device`."""
    arguments.add_argument(
        "--device", default="auto", help="auto (a GPU where there is one), cpu, cuda, cuda:1, mps (default: auto)"
    )


def add_seed(arguments: argparse.ArgumentParser) -> None:
    """Add `--seed`."""
    arguments.add_argument("--seed", type=int, default=0, help="seed of every random number (default: 0)")


def device(name: str) -> torch.device:
    """Return the device called `name`; "auto" takes a GPU where there is one.

    Raises:
        ValueError: If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"`--device` must name a device of this machine, got {name!r}.") from error
    return chosen


def positive_int(text: str) -> int:
    """Parse an integer of at least 1, for `type=` of an argument."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


def positive_float(text: str) -> float:
    """Parse a positive finite number, for `type=` of an argument."""
    number = float(text)
    if not (number > 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"must be positive and finite, got {text}")
    return number


def run(body: Callable[[argparse.Namespace], None], arguments: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Parse `argv`, run `body` and return the exit code.

    A `ValueError` or `OSError` is bad input: its message is the one line that the user reads, and the
    exit code is 2. A `RuntimeError` or `ArithmeticError` is a computation that failed: one line and exit code 1.
    """
    namespace = arguments.parse_args(argv)
    try:
        body(namespace)
    except (ValueError, OSError) as error:
        return _fail(arguments.prog, error, 2)
    except (RuntimeError, ArithmeticError) as error:
        return _fail(arguments.prog, error, 1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _fail(program: str, error: BaseException, code: int) -> int:
    message = " ".join(str(error).split()) or type(error).__name__
    print(f"{program}: error: {message}", file=sys.stderr)
    return code
