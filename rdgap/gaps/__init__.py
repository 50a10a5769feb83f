"""Where the bits of a codec go: amortization, approximation and inference gap of each image, with error bars."""

from .ais import AnnealedEstimate as AnnealedEstimate
from .ais import anneal as anneal
from .decomposition import GapDecomposition as GapDecomposition
from .decomposition import decompose as decompose
from .posterior import Posterior as Posterior
from .variational import Gaussian as Gaussian
from .variational import fit_box as fit_box
from .variational import fit_gaussian as fit_gaussian
