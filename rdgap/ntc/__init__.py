"""Nonlinear transform coding: transforms, priors, quantization and the codec made of them."""

from .charm import CharmPrior as CharmPrior
from .codec import NTCCodec as NTCCodec
from .elic import ElicPrior as ElicPrior
from .priors import FactorizedPrior as FactorizedPrior
from .priors import MeanScaleHyperprior as MeanScaleHyperprior
from .priors import ScaleHyperprior as ScaleHyperprior
