"""Figure 16: PSNR over rate on Tecnick.

python figures/fig16_tecnick_psnr.py      # reads analysis/tables, writes figures/out/fig16_tecnick_psnr.png and .pdf
"""

from __future__ import annotations

import sys

from _figure import main
from _sets import curves_on
from matplotlib.figure import Figure


def draw() -> Figure:
    """Draw mean PSNR over mean rate."""
    return curves_on("tecnick", "psnr")


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
