"""The irreducible term: sources with known rate-distortion functions, and estimators and bounds of `F(lmbda)`."""

from .blahut_arimoto import Certified as Certified
from .blahut_arimoto import blahut_arimoto as blahut_arimoto
from .blahut_arimoto import on_grid as on_grid
from .estimate import Estimate as Estimate
from .sources import named_source as named_source
from .water_filling import water_filling as water_filling
