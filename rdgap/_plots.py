"""The look that all pictures share, and writing them so that equal figures give equal files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".pdf", ".png", ".svg")
COLUMN_WIDTH_INCHES = 3.4
MARKERS = "osD^vPX*"
STYLE: Any = {
    "font.size": 8,
    "axes.linewidth": 0.6,
    "legend.fontsize": 7,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,
    "svg.hashsalt": "rdgap",
}


LOOKS: dict[str, tuple[str, str]] = {
    "two-layer": ("#c1272d", "o"),
    "two-layer-no-residual": ("#f08a5d", "8"),
    "two-layer-elic": ("#5e1a2e", "X"),
    "cnn-analysis": ("#d81b86", "<"),
    "jpeg-like": ("#0072b2", "s"),
    "jpeg-like-hyper": ("#56b4e9", "p"),
    "mean-scale": ("#009e73", "D"),
    "balle2018": ("#8a9a00", "v"),
    "charm": ("#e69f00", "^"),
    "cenic": ("#7b3fa0", "h"),
    "elic": ("#cc79a7", "P"),
    "elic-xs": ("#8c564b", "d"),
    "factorized": ("#a6761d", ">"),
    "generative-control": ("#4c5b6b", "*"),
    "random-control": ("#9aa5b1", "H"),
    "bpg": ("0.2", ""),
    "vtm": ("0.0", ""),
    "webp": ("0.45", ""),
    "jpeg": ("0.65", ""),
}
"""Colour and marker of each codec, in every picture that draws several; at any size, trained by whomever."""


def _family(codec: str) -> str:
    name = codec.removesuffix("-lite")
    stem, _, last = name.rpartition("-")
    return stem if last.isdecimal() else name


def is_known(codec: str) -> bool:
    """Whether a codec has a look of its own."""
    return _family(codec) in LOOKS


def look_of(codec: str) -> dict[str, str]:
    """Return colour and marker of a codec by its name, with or without "-lite" and a width: `cnn-analysis-96-lite`.

    Raises:
        KeyError: If it has no look of its own.
    """
    colour, marker = LOOKS[_family(codec)]
    return {"color": colour, "marker": marker}


def save(figure: Figure, path: Path, dpi: int = 300) -> None:
    """Write a figure in one step, without the date."""
    import matplotlib as mpl

    date = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix.lower())
    with mpl.rc_context(STYLE), replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi, metadata=date)
