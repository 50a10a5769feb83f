"""Rate and distortion of every shipped model on Tecnick or the CLIC 2018 professional validation set.

python analysis/tecnick_clic.py --tecnick FOLDER --clic FOLDER       # or one; a quarter of an hour per model and lmbda

`python -m rdgap.datasets` downloads both. Writes `tables/tecnick_learned.csv` and
`tables/clic2018-professional-valid_learned.csv` with provenance beside them; Figures 16 to 21 then show our points. The
same command resumes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from _experiment import check_smoke, every_model, parser
from kodak import measure_learned

from rdgap import _cli
from rdgap.images import image_paths

SETS = {"tecnick": ("tecnick", 100), "clic": ("clic2018-professional-valid", 41)}
"""What the tables call a data set, and how many images it has."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment."""
    arguments = parser(__doc__, smoke="one image, one model")
    arguments.add_argument("--tecnick", type=Path, metavar="FOLDER", help="the 100 images of Tecnick")
    arguments.add_argument(
        "--clic", type=Path, metavar="FOLDER", help="the 41 images of CLIC 2018, professional, valid"
    )
    _cli.add_device(arguments)
    return _cli.run(_run, arguments, argv)


def _run(options: argparse.Namespace) -> None:
    check_smoke(options)
    folders: dict[str, Path] = {name: folder for name in SETS if (folder := getattr(options, name))}
    if not folders:
        raise ValueError("`--tecnick FOLDER` or `--clic FOLDER` must be given, got neither.")
    images = {name: image_paths([folder]) for name, folder in folders.items()}
    for name, paths in images.items():
        if len(paths) != SETS[name][1] and not options.smoke:
            raise ValueError(f"`--{name}` must hold {SETS[name][1]} images, got {len(paths)}.")
    few = 1 if options.smoke else None
    for name, paths in images.items():
        measure_learned(
            options.tables / f"{SETS[name][0]}_learned.csv",
            every_model()[:few],
            paths[:few],
            dataset=SETS[name][0],
            command=f"python analysis/tecnick_clic.py --{name} FOLDER",
            device=_cli.device(options.device),
        )


if __name__ == "__main__":
    sys.exit(main())
