"""Training crops are a pure function of seed and number; held-out images are never trained on."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rdgap.training.data import HeldOut, TrainingCrops, fingerprint, seeded, split
from tests._training import write_photographs


def write(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose red is the row and whose green is the column of each pixel."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, 0 * rows], axis=-1)


def flat(number: int) -> np.ndarray:
    return np.full((9, 10, 3), number)


@pytest.fixture
def photographs(tmp_path):
    return write_photographs(tmp_path / "photographs")


def test_a_batch_depends_on_seed_and_number_alone(photographs):
    crops = TrainingCrops(photographs, 64, seed=3)
    forward = [crops.batch(step, 2) for step in range(6)]  # into the third epoch
    uncached = TrainingCrops(photographs, 64, seed=3, cache_mib=0)
    for step in reversed(range(6)):
        assert torch.equal(uncached.batch(step, 2), forward[step])
    assert not torch.equal(forward[0], forward[1])
    assert not torch.equal(forward[0], TrainingCrops(photographs, 64, seed=4).batch(0, 2))


def test_a_batch_is_of_the_images_pixels_in_unit_range(photographs):
    batch = TrainingCrops(photographs, 64, seed=0).batch(0, 3)
    assert batch.shape == (3, 3, 64, 64)
    assert batch.dtype == torch.float32
    assert torch.equal((batch * 255).round() / 255, batch)
    assert 0 <= batch.min() < 0.3
    assert 0.7 < batch.max() <= 1


def test_each_image_comes_once_per_epoch_in_an_order_of_its_own(tmp_path):
    crops = TrainingCrops([write(tmp_path / f"{n}.png", flat(n)) for n in range(7)], 8, seed=0)
    shown = [int(255 * crops.batch(step, 1)[0, 0, 0, 0] + 0.5) for step in range(21)]
    epochs = [shown[start : start + 7] for start in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_crops_lie_anywhere_inside_and_half_of_them_are_flipped(tmp_path):
    crops = TrainingCrops([write(tmp_path / "x.png", coordinates(12, 11))], 8, seed=0)
    batch = (crops.batch(0, 600) * 255).round()
    rows, columns = batch[:, 0, :, 0], batch[:, 1, 0, :]
    flipped = columns[:, 0] > columns[:, -1]
    columns = torch.where(flipped[:, None], columns.flip(1), columns)
    for index, last in ((rows, 4), (columns, 3)):
        assert torch.equal(index - index[:, :1], torch.arange(8.0).expand(600, 8))
        assert sorted(set(index[:, 0].tolist())) == list(range(last + 1))
    assert abs(flipped.double().mean() - 0.5) < 5 * 0.5 / 600**0.5


def test_images_smaller_than_a_crop_are_left_out_and_counted(tmp_path):
    small, large = write(tmp_path / "a.png", coordinates(8, 7)), write(tmp_path / "b.png", coordinates(8, 9))
    crops = TrainingCrops([small, large], 8, seed=0)
    assert (len(crops), crops.too_small, crops.num_pixels) == (1, 1, 72)
    with pytest.raises(ValueError, match=r"no training image holds a crop of 9 x 9; 2 were read\."):
        TrainingCrops([small, large], 9, seed=0)


def test_an_image_that_cannot_be_read_is_named(photographs, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png: not a PNG, JPEG, WebP or AVIF image"):
        TrainingCrops([*photographs, broken], 64, seed=0)


@pytest.mark.parametrize("other", [(1, 2, 4), (1, 3, 3), (2, 1, 3), (0, 2, 3)])
def test_different_keys_give_different_streams(other):
    draw = torch.rand(100, generator=seeded("cpu", 1, 2, 3))
    assert torch.equal(draw, torch.rand(100, generator=seeded("cpu", 1, 2, 3)))
    assert abs(torch.corrcoef(torch.stack([draw, torch.rand(100, generator=seeded("cpu", *other))]))[0, 1]) < 0.5


def test_every_50th_image_is_held_out_unless_others_are_given(tmp_path):
    for number in range(101):
        write(tmp_path / f"{number:03}.png", flat(number))
    images, held_out = split([tmp_path], None)
    assert [path.stem for path in held_out] == ["000", "050", "100"]
    assert len(images) == 98
    assert not set(images) & set(held_out)
    assert split([tmp_path / "001.png"], [tmp_path / "002.png"]) == ([tmp_path / "001.png"], [tmp_path / "002.png"])
    with pytest.raises(ValueError, match=r"at least 2 images to hold one out, got 1\."):
        split([tmp_path / "001.png"], None)


def test_of_many_images_at_most_64_are_held_out(tmp_path, monkeypatch):
    many = [tmp_path / f"{number}.png" for number in range(10_000)]
    monkeypatch.setattr("rdgap.training.data.image_paths", lambda sources: many)
    images, held_out = split([tmp_path], None)
    assert len(held_out) == 64
    assert len(images) == 10_000 - 64


def test_a_file_in_both_lists_is_refused(photographs):
    with pytest.raises(ValueError, match=r"held-out images must not be trained on, got .*0\.png in both"):
        split([photographs[0].parent], [photographs[0].parent / ".." / "photographs" / "0.png"])


def test_a_held_out_copy_of_a_training_image_is_refused(photographs, tmp_path):
    crops = TrainingCrops(photographs, 64, seed=0)
    copy = tmp_path / "copy.webp"
    Image.open(photographs[2]).save(copy, lossless=True)
    with pytest.raises(ValueError, match=r"must not be trained on, got .*copy\.webp, equal to .*2\.png"):
        HeldOut([copy], crops)


def test_held_out_images_are_whole_and_may_differ_in_size(photographs):
    held_out = HeldOut(photographs[:2], TrainingCrops(photographs[2:], 64, seed=0))
    assert len(held_out) == 2
    assert [tuple(image.shape) for image in held_out] == [(3, 80, 97), (3, 81, 96)]
    first = next(iter(held_out))
    assert np.array_equal((first * 255).round().permute(1, 2, 0), np.asarray(Image.open(photographs[0])))


def test_the_fingerprint_knows_files_without_reading_them(photographs):
    before = fingerprint(photographs[1:], photographs[:1])
    assert before == fingerprint(photographs[1:], photographs[:1])
    assert before != fingerprint(photographs[2:], photographs[:2])
    os.utime(photographs[0], ns=(0, 0))
    assert before != fingerprint(photographs[1:], photographs[:1])
