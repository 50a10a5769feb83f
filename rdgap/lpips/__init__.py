"""LPIPS, the learned perceptual distance of Zhang et al. (CVPR 2018), version 0.1 on AlexNet.

Both images go through the five convolutions of AlexNet; after each, the features of a place are scaled to length one,
and the squared differences are weighed by channel and averaged over places. The weights travel with the library;
`README.md` beside them tells where they come from.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("lpips_alex.safetensors")
MIN_SIDE = 31
"""Shorter side of the smallest image of which the last features still have one place."""

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of values in [-1, 1]
_CHANNELS = (3, 64, 192, 384, 256, 256)
_KERNELS = (11, 5, 3, 3, 3)
_STRIDES = (4, 1, 1, 1, 1)
_PADDINGS = (2, 2, 1, 1, 1)
_POOLED_BEFORE = (1, 2)


class LPIPS(nn.Module):
    """The network, frozen.

    Args:
        weights: A file with the tensors `features.i.weight`, `features.i.bias` and `linear.i.weight`.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If it holds anything else.
    """

    def __init__(self, weights: Path = WEIGHTS) -> None:
        super().__init__()
        self.features = nn.ModuleList(
            nn.Conv2d(before, after, kernel, stride, padding)
            for before, after, kernel, stride, padding in zip(
                _CHANNELS, _CHANNELS[1:], _KERNELS, _STRIDES, _PADDINGS, strict=False
            )
        )
        self.linear = nn.ModuleList(nn.Conv2d(channels, 1, 1, bias=False) for channels in _CHANNELS[1:])
        if not weights.is_file():
            raise FileNotFoundError(f"there are no weights of LPIPS at {weights}; they travel with the library.")
        try:
            self.load_state_dict(load_file(weights))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{weights} does not hold the weights of LPIPS on AlexNet: {error}") from error
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor, decoded: Tensor) -> Tensor:
        """Return the distance of each image, (batch,).

        Args:
            images: (batch, 3, height, width), in [0, 1], of the dtype of the network.
            decoded: Shaped alike.
        """
        shift, scale = (images.new_tensor(values)[:, None, None] for values in (_SHIFT, _SCALE))
        pair = torch.cat([images, decoded])
        pair = (2.0 * pair - 1.0 - shift) / scale
        distance = images.new_zeros(len(images))
        for index, (convolution, weigh) in enumerate(zip(self.features, self.linear, strict=True)):
            if index in _POOLED_BEFORE:
                pair = F.max_pool2d(pair, 3, 2)
            pair = F.relu(convolution(pair))
            unit = pair / (pair.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
            first, second = unit.chunk(2)
            distance = distance + weigh((first - second).square()).mean(dim=(1, 2, 3))
        return distance


def lpips(images: Tensor, decoded: Tensor) -> Tensor:
    """Return LPIPS (AlexNet) of each image, (batch,), float64; 0 for equal images, lower is better.

    Args:
        images: (batch, 3, height, width), in [0, 1].
        decoded: Shaped alike, on the same device.

    Returns:
        NaN for images of fewer than 31 pixels on the shorter side.

    Raises:
        ValueError: If the shapes differ, or images are not RGB.
    """
    if images.ndim != 4 or images.shape != decoded.shape or images.shape[1] != 3:
        raise ValueError(
            "Images and decoded images must be (batch, 3, height, width) of one shape, "
            f"got {tuple(images.shape)} and {tuple(decoded.shape)}."
        )
    if min(images.shape[-2:]) < MIN_SIDE:
        return images.new_full(images.shape[:1], torch.nan, dtype=torch.float64)
    return _network(images.device)(images.float(), decoded.float()).double()


@cache
def _network(device: torch.device) -> LPIPS:
    return LPIPS().to(device)
