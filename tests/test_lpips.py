"""LPIPS against two independent implementations: lpips-jax, by stored values, and plain loops over numpy arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from scipy.signal import correlate

from rdgap.lpips import LPIPS, MIN_SIDE, WEIGHTS, lpips

data = pytest.importorskip("skimage.data", reason="the sample photographs come with scikit-image")


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255.0


def pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    astronaut, coffee = data.astronaut()[100:196, 180:309], data.coffee()[120:248, 200:328]
    return {
        "8 levels": (astronaut, astronaut // 32 * 32 + 16),
        "upside down": (coffee, coffee[::-1]),
        "moved by 2": (coffee, np.roll(coffee, 2, axis=1)),
    }


@pytest.mark.parametrize(
    ("name", "expected"), [("8 levels", 0.0493125), ("upside down", 0.64471346), ("moved by 2", 0.028345)]
)
def test_agrees_with_lpips_jax(name: str, expected: float) -> None:
    # lpips-jax 0.1.0 with jax 0.10.2: LPIPSEvaluator(net="alexnet", replicate=False)(a / 127.5 - 1, b / 127.5 - 1),
    # matrix products in full float32.
    images, decoded = pairs()[name]
    assert float(lpips(tensor(images), tensor(decoded))) == pytest.approx(expected, rel=2e-5)


def by_loops(images: np.ndarray, decoded: np.ndarray) -> float:
    """LPIPS of two images in float64, each convolution a sum of scipy's plane by plane."""
    weights = {name: values.astype(np.float64) for name, values in load_file(WEIGHTS).items()}
    distance = 0.0
    features = []
    for pixels in (images, decoded):
        planes = pixels.astype(np.float64).transpose(2, 0, 1) / 127.5 - 1
        shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
        planes = (planes - shift[:, None, None]) / scale[:, None, None]
        of_image = []
        for layer, (stride, padding) in enumerate([(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]):
            if layer in (1, 2):
                windows = np.lib.stride_tricks.sliding_window_view(planes, (3, 3), axis=(1, 2))
                planes = windows[:, ::2, ::2].max(axis=(3, 4))
            kernels, biases = weights[f"features.{layer}.weight"], weights[f"features.{layer}.bias"]
            padded = np.pad(planes, ((0, 0), (padding, padding), (padding, padding)))
            planes = np.array(
                [
                    correlate(padded, kernel, mode="valid", method="direct" if kernel.shape[0] < 4 else "fft")[0]
                    [::stride, ::stride] + bias
                    for kernel, bias in zip(kernels, biases, strict=True)
                ]
            )  # fmt: skip
            planes = np.maximum(planes, 0)
            of_image.append(planes)
        features.append(of_image)
    for layer, (first, second) in enumerate(zip(*features, strict=True)):
        unit = [planes / (np.sqrt((planes**2).sum(axis=0)) + 1e-10) for planes in (first, second)]
        heads = weights[f"linear.{layer}.weight"].reshape(-1, 1, 1)
        distance += float((heads * (unit[0] - unit[1]) ** 2).sum(axis=0).mean())
    return distance


def test_agrees_with_plain_loops() -> None:
    images, decoded = (pixels[3:36, 7:44] for pixels in pairs()["8 levels"])
    assert float(lpips(tensor(images), tensor(decoded))) == pytest.approx(by_loops(images, decoded), rel=1e-5)


def test_images_of_a_batch_are_apart_and_equal_ones_have_distance_zero() -> None:
    images, decoded = (tensor(pixels) for pixels in pairs()["upside down"])
    together = lpips(torch.cat([images, decoded]), torch.cat([decoded, decoded]))
    assert together.dtype == torch.float64
    assert together[0] == pytest.approx(float(lpips(images, decoded)), rel=1e-6)
    assert together[1] == 0
    assert float(lpips(decoded, images)) == pytest.approx(float(together[0]), rel=1e-6)


def test_images_too_small_have_none() -> None:
    small = torch.rand(2, 3, MIN_SIDE - 1, 64, generator=torch.Generator().manual_seed(0))
    assert torch.isnan(lpips(small, small)).all()
    enough = torch.rand(1, 3, MIN_SIDE, MIN_SIDE, generator=torch.Generator().manual_seed(0))
    assert lpips(enough, 1 - enough) > 0


@pytest.mark.parametrize("shapes", [((1, 3, 40, 40), (1, 3, 40, 41)), ((1, 1, 40, 40),) * 2, ((3, 40, 40),) * 2])
def test_wrong_shapes_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"must be \(batch, 3, height, width\) of one shape, got"):
        lpips(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no weights of LPIPS at"):
        LPIPS(tmp_path / "missing.safetensors")
    save_file({"x": np.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    for name in ("other", "text"):
        with pytest.raises(ValueError, match="does not hold the weights of LPIPS on AlexNet"):
            LPIPS(tmp_path / f"{name}.safetensors")
