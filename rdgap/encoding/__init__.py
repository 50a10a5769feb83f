"""Iterative encoding: the best description of each image for a codec that stays as it is.

The encoder network of a codec is only a fast guess. `encode_iteratively` goes on from it by stochastic Gumbel annealing
and its kin; decoders and bitstreams need not know.
"""

from .encoder import Encoder as Encoder
from .methods import METHODS as METHODS
from .methods import PAPER_STEPS as PAPER_STEPS
from .search import Encoding as Encoding
from .search import encode_iteratively as encode_iteratively
