"""Figure 15: LPIPS over rate on Kodak.

python figures/fig15_kodak_lpips.py      # reads analysis/tables, writes figures/out/fig15_kodak_lpips.png and .pdf
"""

from __future__ import annotations

import sys

from _figure import main
from _sets import curves_on
from matplotlib.figure import Figure


def draw() -> Figure:
    """Draw mean LPIPS over mean rate."""
    return curves_on("kodak", "lpips")


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
