"""Bjontegaard differences between codecs, from tables of measured points; `python -m rdgap.bdrate`."""

from .anchors import SHIPPED_ANCHORS as SHIPPED_ANCHORS
from .anchors import shipped_anchor_path as shipped_anchor_path
from .comparison import Averaging as Averaging
from .comparison import Comparison as Comparison
from .comparison import Delta as Delta
from .comparison import Interval as Interval
from .comparison import QualityRange as QualityRange
from .comparison import compare as compare
from .delta import BDQuality as BDQuality
from .delta import BDRate as BDRate
from .delta import RDCurve as RDCurve
from .delta import bd_quality as bd_quality
from .delta import bd_rate as bd_rate
from .delta import common_quality_range as common_quality_range
from .delta import savings_percent as savings_percent
from .delta import subset_changes_percent as subset_changes_percent
from .grid import CodecGrid as CodecGrid
from .grid import CurveAveraging as CurveAveraging
from .grid import codec_grids as codec_grids
from .interpolation import Interpolation as Interpolation
from .measures import MEASURES as MEASURES
from .measures import MeasureName as MeasureName
from .published import in_batches as in_batches
from .published import published_curve as published_curve
from .published import published_grids as published_grids
