"""Multiply-accumulates per pixel, parameters and wall time of the transforms of a codec.

For counts nothing is computed but shapes: the transforms run on the meta device, so that counting needs neither time
nor memory.
"""

from .counting import COUNTED as COUNTED
from .counting import Complexity as Complexity
from .counting import TransformComplexity as TransformComplexity
from .counting import count as count
from .counting import count_transform as count_transform
from .timing import time_transforms as time_transforms
