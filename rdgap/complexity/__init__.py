"""Multiply-accumulates per pixel and parameters of the transforms of a codec.

Nothing is computed but shapes: the transforms run on the meta device, so that counting needs neither time nor memory.
"""

from .counting import COUNTED as COUNTED
from .counting import Complexity as Complexity
from .counting import TransformComplexity as TransformComplexity
from .counting import count as count
from .counting import count_transform as count_transform
