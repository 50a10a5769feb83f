"""Figure 18: LPIPS over rate on Tecnick.

python figures/fig18_tecnick_lpips.py      # reads analysis/tables, writes figures/out/fig18_tecnick_lpips.png and .pdf
"""

from __future__ import annotations

import sys

from _figure import main
from _sets import curves_on
from matplotlib.figure import Figure


def draw() -> Figure:
    """Draw mean LPIPS over mean rate."""
    return curves_on("tecnick", "lpips")


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
