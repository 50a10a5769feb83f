"""Figure 19: PSNR over rate on the CLIC 2018 professional validation set.

python figures/fig19_clic_psnr.py      # reads analysis/tables, writes figures/out/fig19_clic_psnr.png and .pdf
"""

from __future__ import annotations

import sys

from _figure import main
from _sets import curves_on
from matplotlib.figure import Figure


def draw() -> Figure:
    """Draw mean PSNR over mean rate."""
    return curves_on("clic2018-professional-valid", "psnr")


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
