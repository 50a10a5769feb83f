"""Many trainings side by side on one machine, each a process of its own, within one time budget."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from tqdm import tqdm

from ..recipes import Recipe, read_recipe
from ..zoo import read_codec, shipped_recipe, weights_name
from . import processes
from .data import split
from .loop import check_afresh
from .results import Files

_NO_TIME = 0.01  # minutes for a training that begins when the budget is used up: it saves what there is


@dataclass(frozen=True)
class _Job:
    recipe: str
    lmbda: float
    stem: str


def train_grid(options: argparse.Namespace) -> None:
    """Train each recipe at each lmbda; the options are those of `python -m rdgap.training grid`.

    The cores are shared out among the jobs, and their processes end with this one, however it ends. A job that fails
    does not stop the others; the failures are named at the end.

    Raises:
        ValueError: If an option is unusable.
        RuntimeError: If a job failed; its log says why.
    """
    if processes.count() > 1:
        raise ValueError(f"`grid` starts processes itself, got {processes.count()} of torchrun's.")
    deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    waiting = _jobs(options)  # a mistake in the last recipe should not show after the first has been trained
    split(options.images, options.validation)
    check_afresh(options.afresh, options.init_from)
    if options.init_from:
        read_codec(options.init_from)
    options.out.mkdir(parents=True, exist_ok=True)
    stems = [job.stem for job in waiting]
    failed: list[Path] = []
    with tqdm(total=len(waiting), desc="grid", unit="training", disable=None) as bar, _processes() as running:
        while running or (waiting and _has_time(deadline)):
            while waiting and len(running) < options.jobs and _has_time(deadline):
                job = waiting.pop(0)
                log = options.out / f"{job.stem}.log"
                running[log] = _start(_arguments(options, job), log, deadline, options.jobs)
            wait([process.sentinel for process in running.values()])
            for log in [log for log, process in running.items() if process.exitcode is not None]:
                process = running.pop(log)
                lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                tqdm.write(lines[-1] if lines else f"{log}: no output, exit code {process.exitcode}")
                if process.exitcode != 0:
                    failed.append(log)
                bar.update()
    finished = sum(Files.named(options.out, stem).are_finished() for stem in stems)
    goes_on = "" if finished == len(stems) else "; the same command goes on with the rest"
    print(f"{finished} of {len(stems)} trainings are finished{goes_on}.")
    if failed:
        raise RuntimeError(f"{len(failed)} of the trainings failed; see {', '.join(map(str, failed))}.")


def read_named_recipe(name: str) -> Recipe:
    """Read a recipe by its path (.toml), or by the name of a shipped one."""
    return read_recipe(Path(name)) if name.endswith(".toml") else shipped_recipe(name)


def _jobs(options: argparse.Namespace) -> list[_Job]:
    names = {recipe: read_named_recipe(recipe).name for recipe in options.recipes}
    jobs = [
        _Job(recipe, lmbda, weights_name(names[recipe], lmbda)) for recipe in options.recipes for lmbda in options.lmbda
    ]
    stems = [job.stem for job in jobs]
    for stem in stems:
        if stems.count(stem) > 1:
            raise ValueError(f"each recipe and lmbda must be given once, got {stem} {stems.count(stem)} times.")
    return jobs


def _has_time(deadline: float | None) -> bool:
    return deadline is None or time.monotonic() < deadline


def _arguments(options: argparse.Namespace, job: _Job) -> list[str]:
    arguments = [job.recipe, "--lmbda", repr(job.lmbda), "--out", str(options.out)]
    arguments += ["--images", *map(str, options.images), "--seed", str(options.seed), "--device", options.device]
    arguments += ["--validate-every", str(options.validate_every)]
    if options.validation:
        arguments += ["--validation", *map(str, options.validation)]
    if options.init_from:
        arguments += ["--init-from", str(options.init_from)]
    if options.afresh:
        arguments += ["--afresh", *options.afresh]
    if options.steps:
        arguments += ["--steps", str(options.steps)]
    if options.bf16:
        arguments.append("--bf16")
    return arguments


@contextmanager
def _processes() -> Iterator[dict[Path, BaseProcess]]:
    """Yield a dictionary of processes; those that are in it at the end are ended too."""
    running: dict[Path, BaseProcess] = {}
    try:
        yield running
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join()


def _start(arguments: list[str], log: Path, deadline: float | None, jobs: int) -> BaseProcess:
    threads = max(1, torch.get_num_threads() // jobs)
    process = multiprocessing.get_context("spawn").Process(target=_train_one, args=(arguments, log, deadline, threads))
    process.start()
    return process


def _train_one(arguments: list[str], log: Path, deadline: float | None, threads: int) -> None:
    """Train in a process of its own, everything that is said going to `log`."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with log.open("wb") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    torch.set_num_threads(threads)
    if deadline is not None:  # counted from now: starting Python took time as well
        arguments = [*arguments, "--minutes", repr(max(_NO_TIME, (deadline - time.monotonic()) / 60))]
    from .__main__ import main

    sys.exit(main(arguments))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
