"""Wall time of the transforms of a codec, as they run when an image is coded."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from ..ntc import NTCCodec
from ..ntc.deployment import deployed
from .counting import transforms_of

TIMED = (
    "Times are medians of {runs} runs on one random image of {width} x {height} pixels, in float32, on {where};\n"
    "entropy coding is not part of them. What predicts later latents runs step by step, as in a decoder."
)
"""What the times mean, in words; printed by the command."""


def time_transforms(
    codec: NTCCodec, *, height: int, width: int, runs: int, generator: torch.Generator
) -> dict[str, float]:
    """Return the median wall time in seconds of each transform of a codec, after one run that is not counted.

    Args:
        codec: Timed on the device that holds it.
        height: Of the image; it is padded to what the codec divides by.
        width: Likewise.
        runs: Number of times that the image is encoded and decoded.
        generator: Draws the image; on the device of the codec.

    Raises:
        ValueError: If `runs` is not positive.

    Example:
        >>> import torch
        >>> from rdgap.complexity import time_transforms
        >>> from rdgap.zoo import load_codec
        >>> codec = load_codec("two-layer-lite", lmbda=0.01)
        >>> list(time_transforms(codec, height=64, width=64, runs=1, generator=torch.Generator()))
        ['analysis', 'synthesis', 'hyper_analysis', 'hyper_synthesis']
    """
    if runs < 1:
        raise ValueError(f"`runs` must be at least 1, got {runs}.")
    device = next(codec.parameters()).device
    clock = _Clock(device)
    synthesis = deployed(codec.synthesis)
    image = torch.rand((1, 3, height, width), generator=generator, device=device)
    seconds: dict[str, list[float]] = {name: [] for name in transforms_of(codec)}
    for run in range(runs + 1):
        measured = _run(codec, synthesis, image, clock)
        for name in seconds if run else ():
            seconds[name].append(measured[name])
    return {name: statistics.median(each) for name, each in seconds.items()}


@torch.no_grad()
def _run(codec: NTCCodec, synthesis: nn.Module, image: torch.Tensor, clock: _Clock) -> dict[str, float]:
    """Encode and decode once; the context model takes what is left of the walk through the steps of decoding."""
    seconds = {}
    began = clock()
    with _Stopwatch(codec.analysis, clock) as analysis:
        latents = codec.infer(image)
    seconds["analysis"], seconds["hyper_analysis"] = analysis.seconds, clock() - began - analysis.seconds
    hyper_synthesis = getattr(codec.prior, "hyper_synthesis", nn.Identity())
    began = clock()
    with _Stopwatch(hyper_synthesis, clock) as part:
        _, for_synthesis = codec.prior.walk(latents[0], lambda step: step.mean)
    seconds["hyper_synthesis"], seconds["context"] = part.seconds, clock() - began - part.seconds
    began = clock()
    synthesis(for_synthesis)
    seconds["synthesis"] = clock() - began
    return seconds


class _Clock:
    """Seconds, once the device has done all that it was given."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class _Stopwatch:
    """Measures how long a module runs within a `with` block."""

    def __init__(self, module: nn.Module, clock: Callable[[], float]) -> None:
        self.seconds = 0.0
        self._module, self._clock = module, clock

    def __enter__(self) -> _Stopwatch:
        self._hooks = (
            self._module.register_forward_pre_hook(lambda *_: self._add(-1)),
            self._module.register_forward_hook(lambda *_: self._add(1)),
        )
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _add(self, sign: int) -> None:
        self.seconds += sign * self._clock()
