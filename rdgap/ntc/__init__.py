"""Nonlinear transform coding: transforms, priors, quantization and the codec made of them."""

from .codec import NTCCodec as NTCCodec
from .priors import FactorizedPrior as FactorizedPrior
from .priors import MeanScaleHyperprior as MeanScaleHyperprior
