"""How straight, and how curved, is a codec's manifold of reconstructions? (Yang & Mandt 2023, 7.4.1, and beyond)."""

from .acceleration import Bending as Bending
from .acceleration import bending as bending
from .curve import Decode as Decode
from .curve import LatentCurve as LatentCurve
from .curve import decoded_curve as decoded_curve
from .curve import image_decoder as image_decoder
from .curve import jacobian_vector as jacobian_vector
from .curve import line as line
from .geodesic import Geodesic as Geodesic
from .geodesic import geodesic as geodesic
from .length import CurveLength as CurveLength
from .length import curve_length as curve_length
from .length import lengths_along as lengths_along
from .metric import Estimate as Estimate
from .metric import LogDeterminant as LogDeterminant
from .metric import PullbackMetric as PullbackMetric
from .metric import Spectrum as Spectrum
from .metric import extreme_eigenvalues as extreme_eigenvalues
from .metric import log_determinant as log_determinant
from .metric import trace as trace
from .quadrature import Rule as Rule
