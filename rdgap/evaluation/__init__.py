"""Rate-distortion points of any codec on any images.

Rates are estimates under hard rounding, `-log2 P(rounded latents)`, or lengths of real files, always so for
conventional codecs; distortions are those of the decoded image rounded to 8 bit and cropped to the image's size.
"""

from .cache import MeasurementCache as MeasurementCache
from .cache import default_cache_folder as default_cache_folder
from .measurement import Measurement as Measurement
from .points import IterativeChoice as IterativeChoice
from .points import OperatingPoint as OperatingPoint
from .points import coded_point as coded_point
from .points import conventional_points as conventional_points
from .points import estimated_bits as estimated_bits
from .points import evaluate as evaluate
from .points import evaluate_image as evaluate_image
from .points import learned_point as learned_point
from .summary import average as average
from .summary import best_lagrangian as best_lagrangian
