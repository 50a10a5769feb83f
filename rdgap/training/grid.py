"""Many trainings side by side on one machine, each a process of its own, within one time budget."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from tqdm import tqdm

from ..recipes import read_recipe
from ..zoo import shipped_recipe, weights_name


def train_grid(options: argparse.Namespace) -> None:
    """Train each recipe at each lmbda; the options are those of `python -m rdgap.training grid`.

    The cores are shared out among the jobs. A job that fails does not stop the others; the failures are named at the end.

    Raises:
        RuntimeError: If a job failed; its log says why.
    """
    for name in options.recipes:  # a mistake in the last recipe should not show after the first has been trained
        _stem(name, options.lmbda[0])
    options.out.mkdir(parents=True, exist_ok=True)
    deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    waiting = [(recipe, lmbda) for recipe in options.recipes for lmbda in options.lmbda]
    running: dict[Path, subprocess.Popen[bytes]] = {}
    failed: list[Path] = []
    bar = tqdm(total=len(waiting), desc="grid", unit="training", disable=None)
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs and (deadline is None or time.monotonic() < deadline):
                recipe, lmbda = waiting.pop(0)
                log = options.out / f"{_stem(recipe, lmbda)}.log"
                running[log] = _start(options, recipe, lmbda, deadline, log)
            if not running:
                break
            time.sleep(0.2)
            for log, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[log]
                bar.update()
                lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                tqdm.write(lines[-1] if lines else f"{log}: no output")
                if process.returncode != 0:
                    failed.append(log)
    finally:
        for process in running.values():
            process.terminate()
        bar.close()
    if waiting:
        print(f"{len(waiting)} of the trainings did not begin within the time; the same command goes on.")
    if failed:
        raise RuntimeError(f"{len(failed)} of the trainings failed; see {', '.join(map(str, failed))}.")


def _stem(recipe: str, lmbda: float) -> str:
    name = (read_recipe(Path(recipe)) if recipe.endswith(".toml") else shipped_recipe(recipe)).name
    return weights_name(name, lmbda)


def _start(
    options: argparse.Namespace, recipe: str, lmbda: float, deadline: float | None, log: Path
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "rdgap.training", recipe, "--lmbda", str(lmbda), "--out", str(options.out)]
    command += ["--images", *map(str, options.images), "--seed", str(options.seed), "--device", options.device]
    command += ["--validate-every", str(options.validate_every)]
    if options.validation:
        command += ["--validation", *map(str, options.validation)]
    if options.init_from:
        command += ["--init-from", str(options.init_from)]
    if options.steps:
        command += ["--steps", str(options.steps)]
    if options.bf16:
        command.append("--bf16")
    if deadline is not None:
        command += ["--minutes", str(max(0.01, (deadline - time.monotonic()) / 60))]
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
