"""How far a decoded curve strays from straight paths in pixel space (Yang & Mandt 2023, Fig. 11)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import Latents
from .curve import Decode, as_rows, check_ends, decoded_curve, interpolate


@dataclass(frozen=True, kw_only=True)
class PathDistances:
    """Distances of a decoded curve to two straight paths, at equal t.

    Attributes:
        ts: Positions, (num_points,), float64.
        mse_to_reconstructions: MSE (per pixel and channel, 0..255 scale) between `g(gamma(t))` and
            `(1-t) x_hat0 + t x_hat1`, (num_points,), float64; zero for an affine decoder.
        mse_to_originals: The same to `(1-t) x0 + t x1`; a quadratic function of t for an affine decoder.
    """

    ts: Tensor
    mse_to_reconstructions: Tensor
    mse_to_originals: Tensor


def distances_to_straight_paths(
    decode: Decode,
    start: Latents,
    end: Latents,
    originals: tuple[Tensor, Tensor],
    ts: Tensor,
    *,
    chunk_size: int = 8,
) -> PathDistances:
    """Compare the decoded curve with the straight lines between its ends and between the original images.

    Args:
        decode: The decoder `g`, returning images of the size of the originals.
        start: Latents of the first image, each (1, ...).
        end: Latents of the second image, of the same shapes.
        originals: The two images, each (1, channels, height, width), in [0, 1].
        ts: Positions, (num_points,).
        chunk_size: How many points are decoded at once.

    Raises:
        ValueError: If the latents do not form a pair, or the images have another shape than the decoded ones.
        RuntimeError: If the decoder returns a value that is not finite.
    """
    check_ends(start, end)
    ends = decoded_curve(decode, start, end, torch.tensor([0.0, 1.0]))
    if any(image.shape != ends[:1].shape for image in originals):
        raise ValueError(
            f"`originals` must have the shape of the decoded images {tuple(ends[:1].shape)}, "
            f"got {[tuple(image.shape) for image in originals]}."
        )
    first, last = as_rows(ends).split(1)
    original_first, original_last = map(as_rows, originals)
    ts = ts.cpu().double()

    to_reconstructions, to_originals = [], []
    for chunk in ts.split(chunk_size):
        points = as_rows(decoded_curve(decode, start, end, chunk, chunk_size=chunk_size))
        (between_reconstructions,) = interpolate((first,), (last,), chunk)
        (between_originals,) = interpolate((original_first,), (original_last,), chunk)
        to_reconstructions.append(_mse(points, between_reconstructions))
        to_originals.append(_mse(points, between_originals))
    return PathDistances(
        ts=ts, mse_to_reconstructions=torch.cat(to_reconstructions), mse_to_originals=torch.cat(to_originals)
    )


def _mse(images: Tensor, others: Tensor) -> Tensor:
    return ((images - others) * 255.0).square().mean(dim=1)
