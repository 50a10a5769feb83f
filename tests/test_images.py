"""Photographs are read as they are stored, or refused with one clear line."""

import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rdgap.images import (
    _bits_per_channel,
    center_crop,
    image_paths,
    pad_reflect,
    random_crop,
    read_image,
    read_rgb8,
    sample_photographs,
    to_8bit,
    write_image,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)  # odd, not square
SMOOTH = np.stack(np.meshgrid(np.arange(40), np.arange(24), [3]), -1)[:, :, 0].astype(np.uint8) * np.uint8(4)


def png(path, array_or_image, **options):
    image = array_or_image if isinstance(array_or_image, Image.Image) else Image.fromarray(array_or_image)
    image.save(path, **options)
    return path


def raw_png(path, *, depth, color_type, scanlines):
    """Write a PNG of one row by hand, because Pillow cannot write 16-bit RGB."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 2, 1, depth, color_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + scanlines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("webp", {"lossless": True})])
def test_lossless_files_are_read_exactly(tmp_path, suffix, options):
    path = png(tmp_path / f"a.{suffix}", PIXELS, **options)
    assert np.array_equal(read_rgb8(path), PIXELS)
    image = read_image(path)
    assert image.dtype == torch.float32
    assert image.shape == (3, 5, 7)
    assert image[2, 4, 6] == pytest.approx(PIXELS[4, 6, 2] / 255)


@pytest.mark.parametrize("suffix", ["jpg", "avif", "webp"])
def test_lossy_files_are_read_about_right(tmp_path, suffix):
    path = png(tmp_path / f"a.{suffix}", SMOOTH, quality=95)
    assert np.abs(read_rgb8(path).astype(int) - SMOOTH).mean() < 6


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_gray_bilevel_and_palette_become_rgb(tmp_path, mode):
    image = Image.fromarray(PIXELS).convert(mode)
    assert np.array_equal(read_rgb8(png(tmp_path / "a.png", image)), np.array(image.convert("RGB")))


@pytest.mark.parametrize(("depth", "levels"), [(2, [0, 85, 170, 255]), (4, [0, 17, 34, 51])])
def test_gray_of_few_bits_spans_the_whole_scale(tmp_path, depth, levels):
    packed = {2: 0b00011011, 4: 0x01}[depth]
    path = raw_png(tmp_path / "a.png", depth=depth, color_type=0, scanlines=bytes([packed]))
    assert read_rgb8(path)[0, :, 1].tolist() == levels[:2]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_opaque_alpha_is_dropped(tmp_path, mode):
    image = Image.fromarray(PIXELS).convert(mode)
    assert np.array_equal(read_rgb8(png(tmp_path / "a.png", image)), np.array(image.convert("RGB")))


@pytest.mark.parametrize("alpha", [0, 254])
def test_one_transparent_pixel_is_refused(tmp_path, alpha):
    image = Image.fromarray(PIXELS).convert("RGBA")
    image.putpixel((3, 2), (9, 9, 9, alpha))
    with pytest.raises(ValueError, match=r"a\.png.*must be opaque, got transparent pixels"):
        read_rgb8(png(tmp_path / "a.png", image))


def test_transparent_palette_entry_is_refused_only_where_used(tmp_path):
    image = Image.fromarray(PIXELS).convert("L").convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    used = int(np.array(image)[0, 0])
    with pytest.raises(ValueError, match="must be opaque"):
        read_rgb8(png(tmp_path / "used.png", image, transparency=used))
    expected = np.array(image.convert("RGB"))
    assert np.array_equal(read_rgb8(png(tmp_path / "unused.png", image, transparency=200)), expected)


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_png_of_16_bits_is_refused_not_truncated(tmp_path, color_type, channels):
    path = raw_png(tmp_path / "a.png", depth=16, color_type=color_type, scanlines=b"\x12\x34" * channels * 2)
    with pytest.raises(ValueError, match=r"a\.png.*at most 8 bits per channel"):
        read_rgb8(path)


def test_the_hand_made_png_is_read_at_8_bits(tmp_path):
    path = raw_png(tmp_path / "a.png", depth=8, color_type=2, scanlines=bytes([1, 2, 3, 4, 5, 6]))
    assert read_rgb8(path).tolist() == [[[1, 2, 3], [4, 5, 6]]]


def test_depth_of_avif_is_read_from_its_configuration(tmp_path):
    content = bytearray(png(tmp_path / "a.avif", SMOOTH).read_bytes())
    with Image.open(tmp_path / "a.avif") as image:
        assert _bits_per_channel(image, content) == 8
        content[content.index(b"av1C") + 6] |= 0x40  # high_bitdepth; Pillow writes 8 bit only
        assert _bits_per_channel(image, content) == 10


def test_cmyk_is_refused(tmp_path):
    path = png(tmp_path / "a.jpg", Image.fromarray(PIXELS).convert("CMYK"))
    with pytest.raises(ValueError, match=r"a\.jpg.*got mode CMYK"):
        read_rgb8(path)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_animations_are_refused(tmp_path, suffix):
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="single image, got several frames"):
        read_rgb8(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(3, PIXELS[::-1, ::-1]), (6, np.rot90(PIXELS, -1)), (8, np.rot90(PIXELS)), (2, PIXELS[:, ::-1])],
)
def test_exif_orientation_is_applied(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(read_rgb8(png(tmp_path / "a.png", PIXELS, exif=exif)), turned)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "avif"])
def test_truncated_files_are_refused_by_name(tmp_path, suffix, kept):
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = png(tmp_path / f"cut.{suffix}", pixels)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=rf"cut\.{suffix}"):
        read_rgb8(path)


@pytest.mark.parametrize("content", [b"", b"just a text\n", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(40)])
def test_what_is_no_image_is_refused_by_name(tmp_path, content):
    (tmp_path / "no.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"no\.png"):
        read_image(tmp_path / "no.png")


def test_missing_files_and_folders_are_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        read_image(tmp_path)


@pytest.mark.parametrize("limit", [20, 12])  # a warning of Pillow's, and its error beyond twice the limit
def test_decompression_bombs_are_refused(tmp_path, monkeypatch, limit):
    path = png(tmp_path / "a.png", PIXELS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match=r"a\.png.*exceeds limit"):
        read_rgb8(path)


# ---------------------------------------------------------------- writing and listing


def test_writing_rounds_and_saturates(tmp_path):
    image = torch.tensor([-0.3, 0.4 / 255, 0.6 / 255, 100.49 / 255, 254.6 / 255, 1.7]).expand(3, 1, 6)
    write_image(tmp_path / "a.png", image)
    assert read_rgb8(tmp_path / "a.png")[0, :, 0].tolist() == [0, 0, 1, 100, 255, 255]


def test_every_gray_level_survives_writing_and_reading(tmp_path):
    image = (torch.arange(768).view(3, 16, 16) % 256).float() / 255
    write_image(tmp_path / "new" / "a.png", image)
    assert torch.equal(read_image(tmp_path / "new" / "a.png"), image)
    assert torch.equal(to_8bit(image), image)


@pytest.mark.parametrize(
    ("name", "image", "rule"),
    [
        ("a.jpg", torch.zeros(3, 2, 2), r"ending in \.png"),
        ("a.png", torch.zeros(1, 3, 2, 2), r"\(3, height, width\)"),
        ("a.png", torch.zeros(3, 0, 2), r"\(3, height, width\)"),
        ("a.png", torch.full((3, 2, 2), torch.nan), "finite"),
    ],
)
def test_what_cannot_be_written_leaves_no_file(tmp_path, name, image, rule):
    with pytest.raises(ValueError, match=rule):
        write_image(tmp_path / name, image)
    assert list(tmp_path.iterdir()) == []


def test_folders_list_their_images_sorted_and_once(tmp_path):
    for name in ["b.PNG", "a.jpeg", "c.txt", ".hidden.png", "d.avif"]:
        (tmp_path / name).touch()
    (tmp_path / "sub.png").mkdir()
    expected = [tmp_path / name for name in ("a.jpeg", "b.PNG", "d.avif")]
    assert image_paths([tmp_path / "d.avif", tmp_path]) == expected
    assert image_paths([tmp_path / "c.txt"]) == [tmp_path / "c.txt"]  # named by the user: read_image decides


def test_no_images_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="got none"):
        image_paths([])
    with pytest.raises(ValueError, match=tmp_path.name):
        image_paths([tmp_path])
    with pytest.raises(FileNotFoundError, match="gone"):
        image_paths([tmp_path / "gone"])


# ---------------------------------------------------------------- cropping and padding

RAMP = torch.arange(3 * 5 * 7, dtype=torch.float32).view(3, 5, 7)


def test_center_crop_is_in_the_middle():
    assert torch.equal(center_crop(RAMP, 3), RAMP[:, 1:4, 2:5])
    assert torch.equal(center_crop(RAMP, 5), RAMP[:, :, 1:6])


def test_random_crops_reach_every_place_and_repeat_with_their_seed():
    def corners(seed):
        generator = torch.Generator().manual_seed(seed)
        return [int(random_crop(RAMP, 4, generator)[0, 0, 0]) for _ in range(200)]

    assert corners(0) == corners(0) != corners(1)
    assert set(corners(0)) == {7 * row + column for row in range(2) for column in range(4)}
    assert random_crop(RAMP, 4, torch.Generator()).shape == (3, 4, 4)


@pytest.mark.parametrize("size", [0, 6])
def test_crops_that_do_not_fit_are_refused(size):
    with pytest.raises(ValueError, match=rf"5 x 7, got {size}"):
        center_crop(RAMP, size)
    with pytest.raises(ValueError, match=rf"5 x 7, got {size}"):
        random_crop(RAMP, size, torch.Generator())


@given(height=st.integers(1, 9), width=st.integers(1, 9), multiple=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_padding_reflects_at_any_size(height, width, multiple):
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height * 10 + width))
    padded = pad_reflect(images, multiple)
    rows, columns = padded.shape[-2:]
    assert rows % multiple == columns % multiple == 0
    assert 0 <= rows - height < multiple
    assert 0 <= columns - width < multiple
    expected = np.pad(images.numpy(), [(0, 0), (0, 0), (0, rows - height), (0, columns - width)], mode="reflect")
    assert np.array_equal(padded.numpy(), expected)


def test_padding_of_multiples_is_the_identity():
    assert pad_reflect(RAMP[:, :4, :4], 4).data_ptr() == RAMP.data_ptr()


def test_padding_passes_gradients_to_every_copy():
    images = torch.rand(1, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: pad_reflect(x, 7), images.requires_grad_())


@pytest.mark.parametrize(("shape", "multiple"), [((3, 4, 4), 0), ((3, 0, 4), 2)])
def test_padding_of_nothing_is_refused(shape, multiple):
    with pytest.raises(ValueError, match="at least 1 and images not empty"):
        pad_reflect(torch.zeros(shape), multiple)


# ---------------------------------------------------------------- sample photographs


def test_sample_photographs_are_there_without_download(monkeypatch):
    pytest.importorskip("skimage")
    monkeypatch.setitem(sys.modules, "pooch", None)
    photographs = sample_photographs()
    assert {name: tuple(image.shape) for name, image in photographs.items()} == {
        "astronaut": (3, 512, 512),
        "coffee": (3, 400, 600),
    }
    assert all(0 <= image.min() < 0.1 and 0.9 < image.max() <= 1 for image in photographs.values())


def test_missing_scikit_image_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ModuleNotFoundError, match=r"rdgap\[demo\]"):
        sample_photographs()
