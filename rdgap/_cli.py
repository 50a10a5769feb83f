"""What all commands share: common arguments, the choice of a device, and how errors end a run."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import torch

from ._memory import keep_freed_memory
from ._plots import SUFFIXES


def parser(module: str, description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser for `python -m rdgap.<module>` whose help ends in one worked example."""
    return _Parser(
        prog=f"python -m rdgap.{module}",
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Leave it to `run` to end in one line, without the usage."""
        raise ValueError(message)


def add_output(
    arguments: argparse.ArgumentParser, option: str, what: str, *, short: tuple[str, ...] = (), required: bool = False
) -> None:
    """Add an option that names a file to write; one that cannot be written is found out now, not after an hour."""
    arguments.add_argument(*short, option, type=_output_path, metavar="FILE", required=required, help=f"write {what}")


def add_plot(arguments: argparse.ArgumentParser, what: str) -> None:
    """Add `--plot`, a picture of `what`."""
    arguments.add_argument("--plot", type=_plot_path, metavar="FILE", help=f"draw {what} (.pdf, .png or .svg)")


def _output_path(text: str) -> Path:
    path = Path(text)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"must be a file that can be written, got {text}")
    return path


def _plot_path(text: str) -> Path:
    path = _output_path(text)
    if path.suffix.lower() not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"must end in .pdf, .png or .svg, got {text}")
    return path


def add_device(arguments: argparse.ArgumentParser) -> None:
    """Add `--device`, read by `device`."""
    arguments.add_argument(
        "--device", default="auto", help="auto (a GPU where there is one), cpu, cuda, cuda:1, mps (default: auto)"
    )


def add_seed(arguments: argparse.ArgumentParser) -> None:
    """Add `--seed`."""
    arguments.add_argument("--seed", type=int, default=0, help="seed of every random number (default: 0)")


def device(name: str | torch.device) -> torch.device:
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


def is_slow_in_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is slower than float32: on an x86 CPU without instructions for it, where torch can tell."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and capabilities.get("avx512_bf16") is False


def note_slow_bf16(bf16: bool, device: torch.device) -> None:
    """Say so where `--bf16` makes a run slower."""
    if bf16 and is_slow_in_bf16(device):
        print("note: this CPU has no instructions for bfloat16; without --bf16 it is faster", file=sys.stderr)


def add_cluster(arguments: argparse.ArgumentParser) -> None:
    """Add `--cluster`, read by `executor`."""
    arguments.add_argument(
        "--cluster",
        type=_address,
        metavar="ADDRESS",
        help="compute on the workers of this Dask scheduler, which get models and images from here (tcp://HOST:PORT)",
    )


def _address(text: str) -> str:
    if not re.fullmatch(r"(\w+://)?\S+:\d+", text):
        raise argparse.ArgumentTypeError(f"must be like tcp://HOST:PORT, got {text}")
    return text


@contextmanager
def executor(address: str | None) -> Iterator[Executor | None]:
    """Yield what `parallel.map_images` runs on: the workers of a Dask scheduler, or None, this process.

    Raises:
        ModuleNotFoundError: If Dask is not installed.
        OSError: If no scheduler answers.
        RuntimeError: If the cluster gives the work up.
    """
    if address is None:
        yield None
        return
    from .cluster import connected

    with connected(address) as workers:
        yield workers


def positive_int(text: str) -> int:
    """Parse an integer of at least 1, for `type=` of an argument."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


def at_least_two(text: str) -> int:
    """Parse an integer of at least 2, for `type=` of an argument."""
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2, got {text}")
    return number


def positive_float(text: str) -> float:
    """Parse a positive finite number, for `type=` of an argument."""
    number = float(text)
    if not (number > 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"must be positive and finite, got {text}")
    return number


def run(
    body: Callable[[argparse.Namespace], None],
    arguments: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    *,
    is_heard: Callable[[], bool] = lambda: True,
) -> int:
    """Parse `argv`, run `body` and return the exit code.

    A `ValueError` or `OSError` is bad input, a `ModuleNotFoundError` a missing extra: its message is the one line that
    the user reads, and the exit code is 2. A `RuntimeError` or `ArithmeticError` is a computation that failed: one line
    and exit code 1. Of several processes that fail together the one that `is_heard` says so.
    """
    keep_freed_memory()
    try:
        body(arguments.parse_args(argv))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if is_heard():
            _say(arguments.prog, error)
        return 2
    except (RuntimeError, ArithmeticError) as error:
        if is_heard():
            _say(arguments.prog, error)
        return 1
    except KeyboardInterrupt:
        if is_heard():
            print("interrupted", file=sys.stderr)
        return 130
    return 0


def _say(program: str, error: BaseException) -> None:
    parts = [str(error) or type(error).__name__]
    parts += [note for note in getattr(error, "__notes__", []) if note not in parts[0]]  # the item that was at work
    message = " ".join(": ".join(parts[::-1]).split())
    print(f"{program}: error: {message}", file=sys.stderr)
