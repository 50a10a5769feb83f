"""Where the bits of a codec go: amortization, approximation and inference gap of each image, with error bars."""

from .ais import AnnealedEstimate as AnnealedEstimate
from .ais import anneal as anneal
from .ais import anneal_from_each as anneal_from_each
from .bidirectional import BidirectionalEstimate as BidirectionalEstimate
from .bidirectional import bidirectional as bidirectional
from .bidirectional import both_sides as both_sides
from .bidirectional import simulate as simulate
from .curve import IdealCurve as IdealCurve
from .curve import ideal_curve as ideal_curve
from .decomposition import GapDecomposition as GapDecomposition
from .decomposition import SourceBounds as SourceBounds
from .decomposition import decompose as decompose
from .importance import ImportanceEstimate as ImportanceEstimate
from .importance import importance_bound as importance_bound
from .lattice import RoundedDecomposition as RoundedDecomposition
from .lattice import decompose_rounded as decompose_rounded
from .oracles import fine_tune as fine_tune
from .oracles import refit_prior as refit_prior
from .pilot import widen as widen
from .posterior import Posterior as Posterior
from .variational import Box as Box
from .variational import Gaussian as Gaussian
from .variational import fit_box as fit_box
from .variational import fit_gaussian as fit_gaussian
