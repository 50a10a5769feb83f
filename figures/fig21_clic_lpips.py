"""Figure 21: LPIPS over rate on the CLIC 2018 professional validation set.

python figures/fig21_clic_lpips.py      # reads analysis/tables, writes figures/out/fig21_clic_lpips.png and .pdf
"""

from __future__ import annotations

import sys

from _figure import main
from _sets import curves_on
from matplotlib.figure import Figure


def draw() -> Figure:
    """Draw mean LPIPS over mean rate."""
    return curves_on("clic2018-professional-valid", "lpips")


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
