"""`python -m rdgap COMMAND ...` is `python -m rdgap.COMMAND ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "evaluation": "rate and distortion of codecs on images",
    "gaps": "where the bits go",
    "rate_distortion": "what the source itself costs",
    "curvature": "how straight curves of reconstructions are",
    "bdrate": "BD-rates over BPG and others",
    "encoding": "what the best encoder would save",
    "report": "all of it on one HTML page",
    "codec": "images to bitstreams and back",
    "complexity": "what decoding costs",
    "datasets": "Kodak, Tecnick, CLIC, COCO",
    "training": "train a codec",
    "demo": "the main measurements on two photographs",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the arguments to the command that the first of them names."""
    name, *others = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print("usage: python -m rdgap COMMAND ..., each with --help\n")
        print("\n".join(f"  {command:16} {what}" for command, what in COMMANDS.items()))
        return 0
    if name not in COMMANDS:
        print(f"python -m rdgap: error: COMMAND must be one of {', '.join(COMMANDS)}, got {name}", file=sys.stderr)
        return 2
    module = "rdgap.demo" if name == "demo" else f"rdgap.{name}.__main__"
    return import_module(module).main(others)


if __name__ == "__main__":
    sys.exit(main())
