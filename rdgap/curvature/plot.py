"""The picture of one decoded curve: its distances to both straight paths (Fig. 11) over a film strip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..model import Latents
from .curve import Decode, decoded_curve, line
from .length import CurveLength

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRAMES = 7
_WIDTH = 6.9  # inches, two columns of a paper
_LEFT, _RIGHT = 0.68, 0.12  # margins, the left one for labels
_BOTTOM, _BETWEEN, _TOP = 0.26, 0.62, 0.28  # room for labels under the strip, under the panel and above it
_PANEL = 1.75  # height of the upper panel
_GAP = 0.04  # between frames
_RECONSTRUCTIONS, _ORIGINALS = "#0072b2", "#d55e00"


@dataclass(frozen=True, kw_only=True)
class FilmStrip:
    """Frames along t: what the decoder makes of the latent line, and the cross-fade of the original images.

    Attributes:
        ts: (frames,).
        decoded: (frames, 3, height, width), in [0, 1] up to overshoot.
        crossfade: `(1-t) x0 + t x1`, of the same shape.
    """

    ts: Tensor
    decoded: Tensor
    crossfade: Tensor


def film_strip(decode: Decode, start: Latents, end: Latents, originals: tuple[Tensor, Tensor]) -> FilmStrip:
    """Return `FRAMES` frames between two images: the decoded latent line, and the cross-fade of the originals."""
    ts = torch.linspace(0, 1, FRAMES)
    x0, x1 = originals
    weights = ts.to(x0)[:, None, None, None]
    return FilmStrip(
        ts=ts,
        decoded=decoded_curve(decode, line(start, end), ts),
        crossfade=(1 - weights) * x0 + weights * x1,
    )


def draw(result: CurveLength, strip: FilmStrip) -> Figure:
    """Return the figure of one pair: distances to its originals and reconstructions over t above, the frames below."""
    from matplotlib.figure import Figure

    frames, (height, width) = len(strip.ts), strip.decoded.shape[-2:]
    frame_width = (_WIDTH - _LEFT - _RIGHT - (frames - 1) * _GAP) / frames
    frame_height = frame_width * height / width
    strips_height = 2 * frame_height + _GAP
    panel_bottom = _BOTTOM + strips_height + _BETWEEN
    total = panel_bottom + _PANEL + _TOP
    figure = Figure(figsize=(_WIDTH, total))

    def axes_at(left: float, bottom: float, across: float, up: float) -> Axes:
        return figure.add_axes((left / _WIDTH, bottom / total, across / _WIDTH, up / total))

    _draw_distances(axes_at(_LEFT, panel_bottom, _WIDTH - _LEFT - _RIGHT, _PANEL), result)
    rows = ((strip.decoded, "decoded", frame_height + _GAP), (strip.crossfade, "cross-fade", 0.0))
    for images, label, above in rows:
        for i, (t, image) in enumerate(zip(strip.ts.tolist(), images, strict=True)):
            axes = axes_at(_LEFT + i * (frame_width + _GAP), _BOTTOM + above, frame_width, frame_height)
            axes.imshow(image.clamp(0, 1).permute(1, 2, 0).cpu().float().numpy())
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if i == 0:
                axes.set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center")
            if above == 0.0:
                axes.set_xlabel(f"$t$ = {t:.2f}", fontsize=8, labelpad=3)
    return figure


def _draw_distances(axes: Axes, result: CurveLength) -> None:
    assert result.mse_to_originals is not None
    ts = result.ts.numpy()
    axes.plot(ts, result.mse_to_originals[0].numpy(), color=_ORIGINALS, lw=1.4, label="to the line between originals")
    axes.plot(
        ts,
        result.mse_to_reconstructions[0].numpy(),
        color=_RECONSTRUCTIONS,
        lw=1.4,
        ls=(0, (5, 1.5)),
        label="to the line between reconstructions",
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.08)
    axes.set_xlabel("position $t$ on the latent line", fontsize=8, labelpad=2)
    axes.set_ylabel("MSE (0..255 scale)", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    # Above the panel, where no curve can run through them.
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.98), ncols=2, frameon=False, fontsize=8, borderaxespad=0)
    axes.set_title(rf"$\eta$ = {result.eta.item():.4f}", loc="right", fontsize=8, pad=4)
