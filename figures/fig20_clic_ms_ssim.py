"""Figure 20: MS-SSIM over rate on the CLIC 2018 professional validation set.

python figures/fig20_clic_ms_ssim.py      # reads analysis/tables, writes figures/out/fig20_clic_ms_ssim.png and .pdf
"""

from __future__ import annotations

import sys

from _figure import main
from _sets import curves_on
from matplotlib.figure import Figure


def draw() -> Figure:
    """Draw mean MS-SSIM over mean rate."""
    return curves_on("clic2018-professional-valid", "ms-ssim")


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
