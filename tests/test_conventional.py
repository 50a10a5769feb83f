"""Conventional codecs are real files: counted whole, decoded as any reader decodes them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from rdgap.conventional import CODECS, QUALITIES, transcode
from rdgap.metrics import mse


def waves(height, width):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([0.5 + 0.4 * torch.sin(rows / a + columns / 7) for a in (3.0, 5.0, 9.0)])


def test_jpeg_is_pillows_with_420_chroma_and_optimised_tables():
    image = waves(33, 47)
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=40, subsampling=2, optimize=True)
    coded = transcode("jpeg", image, 40)
    assert coded.bits == 8 * len(file.getvalue())
    expected = np.array(Image.open(file).convert("RGB"))
    assert np.array_equal((coded.decoded * 255).round().byte().permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("codec", CODECS)
def test_more_quality_is_more_bits_and_less_error(codec):
    image = waves(64, 96)
    coded = [transcode(codec, image, quality) for quality in (QUALITIES[0], 50, QUALITIES[-1])]
    errors = [float(mse(image[None], one.decoded[None])) for one in coded]
    assert coded[0].bits < coded[1].bits < coded[2].bits
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 20  # chroma is subsampled


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 5)])
def test_any_size_comes_back_in_its_size(codec, size):
    coded = transcode(codec, waves(*size), 80)
    assert coded.decoded.shape == (3, *size)
    assert 0 <= coded.decoded.min() <= coded.decoded.max() <= 1


@pytest.mark.parametrize("quality", [0, 101])
def test_quality_out_of_range_is_refused(quality):
    with pytest.raises(ValueError, match=f"from 1 to 100, got {quality}"):
        transcode("jpeg", waves(4, 4), quality)


def test_unknown_codecs_are_refused():
    with pytest.raises(ValueError, match="one of jpeg, webp, got 'gif'"):
        transcode("gif", waves(4, 4), 50)
