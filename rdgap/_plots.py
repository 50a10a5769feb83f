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


def save(figure: Figure, path: Path) -> None:
    """Write a figure in one step, without the date."""
    import matplotlib as mpl

    date = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix.lower())
    with mpl.rc_context(STYLE), replacing(path) as temporary:
        figure.savefig(temporary, dpi=300, metadata=date)
