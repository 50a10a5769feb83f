"""Figure 17: MS-SSIM over rate on Tecnick.

python figures/fig17_tecnick_ms_ssim.py     # reads analysis/tables, writes figures/out/fig17_tecnick_ms_ssim.png, .pdf
"""

from __future__ import annotations

import sys

from _figure import main
from _sets import curves_on
from matplotlib.figure import Figure


def draw() -> Figure:
    """Draw mean MS-SSIM over mean rate."""
    return curves_on("tecnick", "ms-ssim")


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
