"""The prior with unevenly grouped space-channel context (He et al. 2022, "ELIC")."""

from __future__ import annotations

from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from ..model import Latents
from .layers import CheckerboardConv2d, checkerboard, down
from .priors import CodingStep, Head, Hyperprior, Reader, Visitor, bounded_scale, last_layer
from .transforms import Transform, hyper_analysis, hyper_synthesis


class ElicPrior(Hyperprior):
    """Prior of `y` in groups of channels, each in two steps: the anchors of a checkerboard, then the other positions.

    Means and scales of a group are made of hyper features, of all groups before, and of its own anchors nearby.

    Args:
        latent_channels: Of `y`.
        width: Of the hyper transforms, which are those of Minnen et al. 2018.
        groups: Channels of each group.
        context_widths: Of the 5x5 convolutions that read earlier groups.
        aggregation_widths: Of the 1x1 convolutions that join the three sources.

    Raises:
        ValueError: If the groups do not add up to the latent channels.
    """

    def __init__(
        self,
        latent_channels: int,
        width: int,
        *,
        groups: tuple[int, ...],
        context_widths: tuple[int, int],
        aggregation_widths: tuple[int, int],
    ) -> None:
        if sum(groups) != latent_channels:
            raise ValueError(f"`groups` must add up to the {latent_channels} latent channels, got {list(groups)}.")
        super().__init__(hyper_analysis(latent_channels, (width, width, width)), width)
        features = 2 * latent_channels
        self.hyper_synthesis = hyper_synthesis((width, width, width * 3 // 2, features))
        self.ends = (0, *accumulate(groups))
        self.context = nn.ModuleList(
            _GroupNetworks(features, start, group, context_widths, aggregation_widths)
            for start, group in zip(self.ends, groups, strict=False)
        )

    def walk(self, first: Tensor, visit: Visitor) -> tuple[Latents, Tensor]:
        """Visit group after group, anchors first; the synthesis sees `y`."""
        features = self.hyper_synthesis(first).to(first.dtype)
        anchors = checkerboard(features)
        groups: list[Tensor] = []
        for channels, networks in self._groups():
            known = networks.known(features, groups)
            mean, scale = networks.parameters_of(known, None)
            at_anchors = visit(CodingStep(channels=channels, mask=anchors, mean=mean, scale=scale))
            seen = torch.where(anchors, at_anchors, torch.zeros_like(at_anchors))
            mean, scale = networks.parameters_of(known, seen)
            elsewhere = visit(CodingStep(channels=channels, mask=~anchors, mean=mean, scale=scale))
            groups.append(torch.where(anchors, at_anchors, elsewhere))
        y = torch.cat(groups, 1)
        return (first, y), y

    def readers(self) -> list[Reader]:
        """Return the first layers of the hyper analysis and of the context networks of all groups."""
        readers = super().readers()
        for channels, networks in self._groups():
            if networks.channel is not None:
                first = networks.channel[0]
                assert isinstance(first, nn.Conv2d)
                readers.append(Reader(first, slice(None), slice(0, channels.start)))
            readers.append(Reader(networks.space, slice(None), channels))
        return readers

    def heads(self) -> list[Head]:
        """Return both halves of the outputs of the networks of all groups."""
        heads = []
        for channels, networks in self._groups():
            half = last_layer(networks.aggregation).out_channels // 2
            heads.append(Head(networks.aggregation, slice(0, half), channels, "mean"))
            heads.append(Head(networks.aggregation, slice(half, 2 * half), channels, "log-scale"))
        return heads

    def _groups(self) -> list[tuple[slice, _GroupNetworks]]:
        """Return each group's channels and networks."""
        found = []
        for networks, (start, end) in zip(self.context, pairwise(self.ends), strict=True):
            assert isinstance(networks, _GroupNetworks)
            found.append((slice(start, end), networks))
        return found


class _GroupNetworks(nn.Module):
    """What predicts one group: channel context, 5x5 three times; space context, masked 5x5; aggregation, 1x1 thrice."""

    def __init__(
        self,
        features: int,
        before: int,
        group: int,
        context_widths: tuple[int, int],
        aggregation_widths: tuple[int, int],
    ) -> None:
        super().__init__()
        leaving = 2 * group
        self.channel = _network(before, context_widths, leaving, kernel=5) if before else None
        self.space = CheckerboardConv2d(group, leaving, 5)
        entering = features + (leaving if before else 0) + leaving
        self.aggregation = _network(entering, aggregation_widths, leaving, kernel=1)

    def known(self, features: Tensor, groups: list[Tensor]) -> Tensor:
        """Join hyper features and channel context."""
        if self.channel is None:
            return features
        return torch.cat([features, self.channel(torch.cat(groups, 1)).to(features.dtype)], 1)

    def parameters_of(self, known: Tensor, anchors: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return mean and scale given the group's anchors, zero elsewhere, or before any of them is known."""
        if anchors is None:
            batch, _, height, width = known.shape
            space = known.new_zeros((batch, self.space.out_channels, height, width))
        else:
            space = self.space(anchors)
        mean, raw = self.aggregation(torch.cat([known, space], 1)).to(known.dtype).chunk(2, dim=1)
        return mean, bounded_scale(raw)


def _network(entering: int, widths: tuple[int, int], leaving: int, kernel: int) -> Transform:
    first, second = widths
    return Transform(
        (
            down(entering, first, kernel),
            nn.ReLU(),
            down(first, second, kernel),
            nn.ReLU(),
            down(second, leaving, kernel),
        ),
        factor=1,
    )
