"""The nonlinear transform codec: an analysis, a synthesis and a prior that follow the protocol of `rdgap.model`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..images import pad_reflect
from ..model import Latents, ReadSymbols
from .priors import Prior
from .quantization import Quantization, Share


class NTCCodec(nn.Module):
    """Nonlinear transform codec.

    Args:
        analysis: Images less 0.5 to `y`.
        synthesis: `y` to images less 0.5.
        prior: Prior of the latents, with the hyper transforms where there are any.
        quantization: How quantization is imitated in training; decides where the lattice of the latents lies.
        name: What tables call the codec.
        lmbda: Weight of the MSE that the weights are trained for; NaN before training.
    """

    def __init__(
        self,
        *,
        analysis: nn.Module,
        synthesis: nn.Module,
        prior: Prior,
        quantization: Quantization,
        factor: int,
        name: str = "",
        lmbda: float = float("nan"),
    ) -> None:
        super().__init__()
        self.analysis, self.synthesis, self.prior = analysis, synthesis, prior
        self.quantization: Quantization = quantization
        self.factor = factor * prior.factor
        self.name, self.lmbda = name, lmbda

    def infer(self, images: Tensor) -> Latents:
        """Return the latents before quantization of (batch, 3, height, width) in [0, 1], of any size from 1x1 up."""
        return self.prior.infer(self.analysis(pad_reflect(images, self.factor) - 0.5))

    def quantize(self, latents: Latents) -> Latents:
        """Round to the codec's lattice."""
        return self.from_symbols(self.to_symbols(latents))

    def to_symbols(self, latents: Latents) -> Latents:
        """Return the integers, as floating-point numbers, of the lattice point that `latents` are rounded to."""
        return self.prior.to_symbols(latents, self.quantization)

    def from_symbols(self, symbols: Latents) -> Latents:
        """Return the lattice point of integers."""
        return self.prior.from_symbols(symbols, self.quantization)

    def symbol_reader(self) -> ReadSymbols:
        """Return a function from symbols to `log_prior` and `decode` of their lattice point, by one walk."""
        offset = self.prior.lattice_offset(self.quantization)

        def read(symbols: Latents) -> tuple[Tensor, Tensor]:
            log_prior, y = self.prior.read(symbols, offset)
            return log_prior, self.synthesis(y).to(log_prior.dtype) + 0.5

        return read

    @torch.no_grad()
    def sample_prior(self, latents: Latents, generator: torch.Generator) -> Latents:
        """Draw latents shaped like `latents` from the box-convolved prior."""
        return self.prior.sample(latents, generator)

    def log_prior(self, latents: Latents) -> Tensor:
        """Return the box-convolved log-density of the latents in nats, (batch,)."""
        return self.prior.log_prior(latents)

    def decode(self, latents: Latents) -> Tensor:
        """Return images whose height and width are multiples of `factor`; not clipped."""
        return self.synthesis(self.prior.for_synthesis(latents)) + 0.5

    def forward(self, images: Tensor, generator: torch.Generator | Share) -> tuple[Tensor, Tensor]:
        """Return rate in nats and squared error (0..255 scale) with quantization imitated, each (batch,), for training.

        The transforms run in the precision of a surrounding autocast, rate and distortion in that of the images.
        """
        height, width = images.shape[-2:]
        y = self.analysis(pad_reflect(images, self.factor) - 0.5).to(images.dtype)
        rate_nats, y_for_synthesis = self.prior.imitate(y, self.quantization, generator)
        decoded = self.synthesis(y_for_synthesis).to(images.dtype)[..., :height, :width] + 0.5
        return rate_nats, ((decoded - images) * 255.0).square().sum(dim=(1, 2, 3))
