"""All experiments, one after the other: every table that figures and README read.

python analysis --images KODAK --train PHOTOS      # hours on two cores; goes on where it was stopped
python analysis --smoke                            # all of them from end to end in two minutes, in a temporary folder

`make tables` and `make smoke` do the same. What is measured already is not measured again, so that after new weights
have come the same command adds their rows. `python analysis/NAME.py --help` tells about each.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from rdgap import _cli

EXPERIMENTS: dict[str, tuple[str, ...]] = {
    "complexity": (),
    "published_bd_rate": (),
    "kodak": ("images",),
    "published_jpeg": ("images",),
    "sga_kodak": ("images",),
    "ablations": (),
    "gap_validation": (),
    "kodak_gaps": ("images",),
    "latent_curvature": ("images",),
    "coded_kodak": ("images",),
    "known_sources": ("images",),
    "recipe_steps": ("images",),
    "gaps_along_training": ("images", "train"),
    "tecnick_clic": ("tecnick", "clic"),
    "claims": (),
}
"""Scripts in an order in which each finds the tables that it reads, and the photographs that each needs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiments."""
    arguments = argparse.ArgumentParser(
        prog="python analysis", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--images", type=Path, help="folder of the 24 Kodak images")
    arguments.add_argument("--train", type=Path, help="folder of training photographs, for the one that trains")
    arguments.add_argument("--tecnick", type=Path, help="folder of the 100 images of Tecnick")
    arguments.add_argument("--clic", type=Path, help="folder of the 41 images of CLIC 2018, professional, valid")
    arguments.add_argument(
        "--smoke", action="store_true", help="two small synthetic images, hardly any work, no output"
    )
    arguments.add_argument(
        "--only", nargs="+", choices=EXPERIMENTS, metavar="NAME", help=f"of {', '.join(EXPERIMENTS)}"
    )
    return _cli.run(_run, arguments, argv)


def _run(options: argparse.Namespace) -> None:
    names = [name for name in EXPERIMENTS if name in (options.only or EXPERIMENTS)]
    if options.smoke:
        with tempfile.TemporaryDirectory() as folder:
            write_smoke_images(Path(folder) / "images")
            for name in names:
                run(name, smoke_arguments(name, Path(folder)))
        return
    if options.images is None and any("images" in EXPERIMENTS[name] for name in names):
        raise ValueError(
            "`--images KODAK` must name the folder of the Kodak images, got none; "
            "`python -m rdgap.datasets kodak --out datasets` downloads them."
        )
    for name in names:
        needs = EXPERIMENTS[name]
        given = {need: folder for need in needs if (folder := getattr(options, need)) is not None}
        if needs and len(given) < len(needs):
            missing = " and ".join(f"--{need} FOLDER" for need in needs if need not in given)
            print(f"== {name}: without `{missing}`", flush=True)
            if name == "tecnick_clic" and not given:
                continue
            if name == "gaps_along_training":  # only summed up again
                given = {}
        run(name, [text for need, folder in given.items() for text in (f"--{need}", str(folder))])


def run(name: str, argv: Sequence[str]) -> None:
    """Run one experiment.

    Raises:
        RuntimeError: If it failed; it has said why.
    """
    began = time.perf_counter()
    print(f"== {name}", flush=True)
    if importlib.import_module(name).main(argv):
        raise RuntimeError(f"{name} failed.")
    print(f"== {name}: {time.perf_counter() - began:.0f} s", flush=True)


def smoke_arguments(name: str, folder: Path) -> list[str]:
    """Return the arguments of a trial of an experiment that reads and writes in `folder` alone."""
    photographs = [text for need in EXPERIMENTS[name] for text in (f"--{need}", str(folder / "images"))]
    elsewhere = ["--out", str(folder / "training")] if "train" in EXPERIMENTS[name] else []
    return ["--smoke", "--tables", str(folder / "tables"), *photographs, *elsewhere]


def write_smoke_images(folder: Path) -> None:
    """Write three small, smooth, noisy images with names of Kodak, whose BPG points are known."""
    folder.mkdir(parents=True)
    for seed in range(3):
        random = np.random.default_rng(seed)
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((96, 80), Image.Resampling.BICUBIC), dtype=np.float64)
        noisy = (smooth + random.normal(0, 4, smooth.shape)).round().clip(0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(folder / f"kodim{seed + 1:02d}.png")


if __name__ == "__main__":
    sys.exit(main())
