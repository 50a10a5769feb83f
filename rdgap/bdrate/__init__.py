"""Bjontegaard differences between codecs, from tables of measured points; `python -m rdgap.bdrate`."""

from .anchors import SHIPPED_ANCHORS as SHIPPED_ANCHORS
from .anchors import shipped_anchor_path as shipped_anchor_path
from .comparison import Comparison as Comparison
from .comparison import compare as compare
from .delta import BDPSNR as BDPSNR
from .delta import BDRate as BDRate
from .delta import Interpolation as Interpolation
from .delta import RDCurve as RDCurve
from .delta import bd_psnr as bd_psnr
from .delta import bd_rate as bd_rate
from .delta import common_psnr_range_db as common_psnr_range_db
from .delta import savings_percent as savings_percent
from .grid import CodecGrid as CodecGrid
from .grid import codec_grids as codec_grids
