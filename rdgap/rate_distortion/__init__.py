"""The irreducible term: sources with known rate-distortion functions, and estimators and bounds of `F(lmbda)`."""

from .blahut_arimoto import Certified as Certified
from .blahut_arimoto import blahut_arimoto as blahut_arimoto
from .blahut_arimoto import on_grid as on_grid
from .dual import dual_lower_bound as dual_lower_bound
from .estimate import Estimate as Estimate
from .fixed_decoder import FixedDecoderBounds as FixedDecoderBounds
from .fixed_decoder import GridPrior as GridPrior
from .fixed_decoder import fixed_decoder_bounds as fixed_decoder_bounds
from .mixture import mixture_upper_bound as mixture_upper_bound
from .named import named_source as named_source
from .nerd import nerd_upper_bound as nerd_upper_bound
from .ntc import operational_cost as operational_cost
from .ntc import train_codec as train_codec
from .particles import particle_upper_bound as particle_upper_bound
from .source import Source as Source
from .source import VectorSource as VectorSource
from .water_filling import water_filling as water_filling
