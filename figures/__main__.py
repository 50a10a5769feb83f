"""Draw every figure from the committed tables: `python figures`, in seconds.

Figures whose tables have not been measured yet are left out, each with one line that says what measures them.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from _figure import OUT, MissingTableError, write

HERE = Path(__file__).resolve().parent
NAMES = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))


def main() -> int:
    """Draw them."""
    arguments = argparse.ArgumentParser(prog="python figures", description=__doc__)
    arguments.add_argument("--out", type=Path, default=OUT, help="folder of the pictures (default: figures/out)")
    out: Path = arguments.parse_args().out
    for name in NAMES:
        try:
            write(importlib.import_module(name).draw, name, out)
        except MissingTableError as error:
            print(f"{name}: left out, {error}", flush=True)
        else:
            print(f"{name}: {out / name}.png and .pdf", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
