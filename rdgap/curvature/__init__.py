"""How straight is a codec's manifold of reconstructions? Lengths of decoded curves (Yang & Mandt 2023, 7.4.1)."""

from .curve import Decode as Decode
from .curve import decoded_curve as decoded_curve
from .curve import image_decoder as image_decoder
from .curve import jacobian_vector as jacobian_vector
from .length import CurveLength as CurveLength
from .length import Rule as Rule
from .length import curve_length as curve_length
from .paths import PathDistances as PathDistances
from .paths import distances_to_straight_paths as distances_to_straight_paths
