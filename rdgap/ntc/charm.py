"""The channel-wise autoregressive prior with latent residual prediction (Minnen & Singh 2020, "CHARM")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..model import Latents
from .layers import down
from .priors import CodingStep, Head, Hyperprior, Reader, Visitor, bounded_scale, everywhere
from .transforms import Transform, hyper_analysis, hyper_synthesis


class CharmPrior(Hyperprior):
    """Prior of `y` in slices of channels, each given `z` and the first slices.

    Of each slice, means and scales are predicted from hyper features and slices decoded before, and then a correction
    of what rounding lost, at most half a step, which the synthesis and the later slices see. The latents `(z, y)`
    are without it.

    Args:
        latent_channels: Of `y`, a multiple of `slices`.
        slices: Number of slices.
        support: How many of the slices, the first ones, the later slices depend on.
        hyper_widths: Of the hyper analysis; the two hyper syntheses are its mirror image.
        widths: Of the networks of each slice.

    Raises:
        ValueError: If the slices would not be equally wide.
    """

    def __init__(
        self,
        latent_channels: int,
        *,
        slices: int,
        support: int,
        hyper_widths: tuple[int, int, int],
        widths: tuple[int, int],
    ) -> None:
        if latent_channels % slices:
            raise ValueError(f"`latent_channels` must be a multiple of the number of slices, got {latent_channels}.")
        features, middle, hyper_channels = hyper_widths
        super().__init__(hyper_analysis(latent_channels, hyper_widths), hyper_channels)
        self.support, self.slice_width = support, latent_channels // slices
        self.hyper_synthesis = _Twins((hyper_channels, hyper_channels, middle, features))
        supports = [features + min(index, support) * self.slice_width for index in range(slices)]
        self.context = nn.ModuleList(_SliceNetworks(entering, widths, self.slice_width) for entering in supports)

    def walk(self, first: Tensor, visit: Visitor) -> tuple[Latents, Tensor]:
        """Visit slice after slice; the synthesis sees the corrected ones."""
        of_means, of_scales = self.hyper_synthesis(first)
        slices: list[Tensor] = []
        corrected: list[Tensor] = []
        for channels, networks in self._slices():
            support = corrected[: self.support]
            for_mean = torch.cat([of_means, *support], 1)
            mean = networks.mean(for_mean).to(first.dtype)
            scale = bounded_scale(networks.log_scale(torch.cat([of_scales, *support], 1)).to(first.dtype))
            values = visit(CodingStep(channels=channels, mask=everywhere(mean), mean=mean, scale=scale))
            correction = networks.correction(torch.cat([for_mean, values], 1)).to(first.dtype)
            slices.append(values)
            corrected.append(values + 0.5 * torch.tanh(correction))
        return (first, torch.cat(slices, 1)), torch.cat(corrected, 1)

    def for_synthesis(self, latents: Latents) -> Tensor:
        """Return `y` with the predicted corrections."""
        return self.walk(latents[0], lambda step: latents[1][:, step.channels])[1]

    def readers(self) -> list[Reader]:
        """Return the first layers of the hyper analysis and of the networks of all slices."""
        readers = super().readers()
        features = self.hyper_synthesis.features
        for channels, networks in self._slices():
            known = min(channels.start, self.support * self.slice_width)
            for network in (networks.mean, networks.log_scale, networks.correction) if known else ():
                readers.append(Reader(_first(network), slice(features, features + known), slice(0, known)))
            readers.append(Reader(_first(networks.correction), slice(features + known, None), channels))
        return readers

    def heads(self) -> list[Head]:
        """Return the networks of all slices."""
        heads = []
        for channels, networks in self._slices():
            heads.append(Head(networks.mean, slice(None), channels, "mean"))
            heads.append(Head(networks.log_scale, slice(None), channels, "log-scale"))
            heads.append(Head(networks.correction, slice(None), channels, "correction"))
        return heads

    def _slices(self) -> list[tuple[slice, _SliceNetworks]]:
        """Return each slice's channels and networks."""
        found = []
        for index, networks in enumerate(self.context):
            assert isinstance(networks, _SliceNetworks)
            found.append((slice(index * self.slice_width, (index + 1) * self.slice_width), networks))
        return found


class _Twins(nn.Module):
    """Two hyper syntheses, each with a ReLU after its last layer as well: features of means, features of scales."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.features = widths[-1]
        self.mean, self.scale = (nn.Sequential(hyper_synthesis(widths), nn.ReLU()) for _ in range(2))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(z), self.scale(z)


class _SliceNetworks(nn.Module):
    """What predicts one slice: 5x5, 5x5, 3x3 with ReLU between them, three times."""

    def __init__(self, entering: int, widths: tuple[int, int], leaving: int) -> None:
        super().__init__()
        self.mean = _network(entering, widths, leaving)
        self.log_scale = _network(entering, widths, leaving)
        self.correction = _network(entering + leaving, widths, leaving)


def _network(entering: int, widths: tuple[int, int], leaving: int) -> Transform:
    first, second = widths
    layers = (down(entering, first, 5), nn.ReLU(), down(first, second, 5), nn.ReLU(), down(second, leaving, 3))
    return Transform(layers, factor=1)


def _first(network: nn.Sequential) -> nn.Conv2d:
    layer = network[0]
    assert isinstance(layer, nn.Conv2d)
    return layer
