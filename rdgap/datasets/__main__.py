"""Download or check a data set of the literature: `python -m rdgap.datasets`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import _cli
from . import DATASETS, dataset_called, dataset_paths, fetch


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    known = "\n".join(f"  {name:28} {dataset.what}" for name, dataset in DATASETS.items())
    arguments = _cli.parser(
        "datasets",
        "Download a data set of the literature, or check a folder that you have.\n\n"
        "An interrupted download goes on with the same command. Checksums are compared wherever one is known.\n\n"
        f"data sets:\n{known}",
        "python -m rdgap.datasets kodak --out datasets",
    )
    arguments.add_argument("name", help="one of the data sets above")
    arguments.add_argument("--out", type=Path, default=Path("datasets"), help="folder of data sets (default: datasets)")
    arguments.add_argument("--check", type=Path, metavar="FOLDER", help="download nothing, check this folder of images")
    arguments.add_argument("--mirror", metavar="URL", help="folder on another server to take the files from")
    arguments.add_argument("--keep-archive", action="store_true", help="keep a downloaded archive after unpacking")
    return _cli.run(_fetch, arguments, argv)


def _fetch(options: argparse.Namespace) -> None:
    dataset = dataset_called(options.name)
    if options.mirror and not options.mirror.startswith(("http://", "https://")):
        raise ValueError(f"`--mirror` must start with http:// or https://, got {options.mirror}.")
    if options.check:
        dataset_paths(options.name, options.check)
        folder = options.check
    else:
        folder = fetch(options.name, options.out, mirror=options.mirror, keep_archive=options.keep_archive)
    print(f"{options.name}: {dataset.images} images in {folder}")


if __name__ == "__main__":
    sys.exit(main())
