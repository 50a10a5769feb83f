"""Distortion measures against closed forms and a slow second route."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import correlate1d

from rdgap.metrics import MS_SSIM_MIN_SIDE, ms_ssim, mse, psnr_db


def photograph_like(height, width, seed=0, batch=2):
    """Smooth color waves and fine noise, (batch, 3, height, width), in [0, 1]."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    phase = random.uniform(0, 6, (batch, 3, 1, 1))
    waves = 0.5 + 0.3 * np.sin(rows / 17 + phase) * np.cos(columns / 11 - phase)
    return torch.from_numpy(np.clip(waves + random.normal(0, 0.05, waves.shape), 0, 1))


def distorted(images, strength, seed=9):
    noise = np.random.default_rng(seed).normal(0, strength, images.shape)
    return (images + torch.from_numpy(noise)).clamp(0, 1)


def slow_ms_ssim(x, y):
    """Wang, Simoncelli & Bovik 2003 for one channel on the 0..255 scale, written from the paper."""
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(a):  # where the whole window fits
        return correlate1d(correlate1d(a, window, axis=0), window, axis=1)[5:-5, 5:-5]

    product = 1.0
    for scale, weight in enumerate([0.0448, 0.2856, 0.3001, 0.2363, 0.1333]):
        if scale:
            x, y = ((a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2]) / 4 for a in (x, y))
        mean_x, mean_y = blur(x), blur(y)
        var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
        covariance = blur(x * y) - mean_x * mean_y
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        term = (2 * covariance + c2) / (var_x + var_y + c2)
        if scale == 4:
            term = term * (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        product *= term.mean() ** weight
    return product


# ---------------------------------------------------------------- squared error


def test_mse_is_on_the_255_scale_and_per_image():
    images = torch.zeros(2, 3, 5, 7)
    decoded = images.clone()
    decoded[0, 1, 4, 6] = 10 / 255
    decoded[1] = 3 / 255
    assert mse(images, decoded).tolist() == pytest.approx([100 / (3 * 5 * 7), 9.0])


@pytest.mark.parametrize("step", [1, 16, 255])
def test_psnr_of_a_constant_error_is_its_closed_form(step):
    images = torch.zeros(1, 3, 1, 1)
    assert float(psnr_db(mse(images, images + step / 255))) == pytest.approx(20 * math.log10(255 / step), abs=1e-5)


def test_psnr_of_an_exact_image_is_infinite():
    assert psnr_db(torch.tensor([0.0])).item() == math.inf


@pytest.mark.parametrize("metric", [mse, ms_ssim])
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 3, 8, 9), (2, 3, 8, 8)])
def test_other_shapes_are_refused_not_broadcast(metric, shape):
    with pytest.raises(ValueError, match="of one shape"):
        metric(torch.zeros(1, 3, 8, 8), torch.zeros(shape))


# ---------------------------------------------------------------- MS-SSIM


@pytest.mark.parametrize("strength", [0.02, 0.2])
def test_ms_ssim_equals_the_slow_route(strength):
    images = photograph_like(176, 208)  # even at every scale: borders of odd sizes are a matter of convention
    decoded = distorted(images, strength)
    slow = [
        np.mean([slow_ms_ssim(255 * x, 255 * y) for x, y in zip(image.numpy(), other.numpy(), strict=True)])
        for image, other in zip(images, decoded, strict=True)
    ]
    # the library keeps its window in float32, of relative precision 6e-8; five scales multiply
    assert ms_ssim(images, decoded).tolist() == pytest.approx(slow, rel=3e-6)
    assert 0.3 < min(slow) < max(slow) < 0.9999


def test_ms_ssim_is_one_for_equal_images_symmetric_and_falls_with_noise():
    images = photograph_like(192, 161)
    noisy = [distorted(images, strength) for strength in (0.03, 0.1, 0.3)]
    values = [ms_ssim(images, other) for other in noisy]
    assert ms_ssim(images, images).tolist() == pytest.approx([1.0, 1.0], abs=1e-6)
    assert (values[0] > values[1]).all()
    assert (values[1] > values[2]).all()
    assert ms_ssim(noisy[1], images).tolist() == pytest.approx(values[1].tolist(), abs=1e-12)


def test_ms_ssim_of_a_batch_is_that_of_its_images():
    images = photograph_like(164, 170)
    decoded = torch.stack([distorted(images, 0.02)[0], distorted(images, 0.2)[1]])
    single = [float(ms_ssim(images[i : i + 1], decoded[i : i + 1])) for i in range(2)]
    assert ms_ssim(images, decoded).tolist() == pytest.approx(single, abs=1e-12)
    assert single[0] - single[1] > 0.01


@pytest.mark.parametrize("shape", [(1, 1), (MS_SSIM_MIN_SIDE - 1, 300), (300, MS_SSIM_MIN_SIDE - 1)])
def test_ms_ssim_of_small_images_is_nan(shape):
    images = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    assert ms_ssim(images, images).isnan().tolist() == [True, True]


def test_ms_ssim_of_the_smallest_image_is_a_number():
    images = photograph_like(MS_SSIM_MIN_SIDE, MS_SSIM_MIN_SIDE)
    assert ms_ssim(images, distorted(images, 0.1)).isfinite().all()


def test_metrics_of_a_jpeg_file_match_pixels_counted_by_numpy(tmp_path):
    pixels = (photograph_like(24, 40, batch=1)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=30)
    with Image.open(tmp_path / "a.jpg") as opened:
        decoded = np.array(opened)
    expected = np.mean((pixels.astype(float) - decoded) ** 2)
    as_tensor = [torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255 for array in (pixels, decoded)]
    assert float(mse(*as_tensor)) == pytest.approx(expected, rel=1e-5)
