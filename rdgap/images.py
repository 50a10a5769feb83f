"""Reading, writing, padding and cropping photographs.

Image tensors are float32, (3, height, width) or (batch, 3, height, width), in [0, 1]. A file is read as the
8-bit RGB pixels that it stores, or refused: what Pillow would quietly truncate, blend or convert
(16 bits per channel, transparency, CMYK, animations) is a clear `ValueError` here, never other pixels.
Embedded color profiles are not applied: codecs work on the stored values.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ._files import replacing

SUFFIXES = (".avif", ".jpeg", ".jpg", ".png", ".webp")
"""Names of the files in a folder that count as images, in any case."""

_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
_OPAQUE_MODES = ("1", "L", "P", "RGB")
_ALPHA_MODES = ("LA", "PA", "RGBA")
_OPENING = threading.Lock()  # warning filters belong to the process: one thread at a time may change them


def read_image(path: Path) -> Tensor:
    """Read a photograph as a float32 tensor, (3, height, width), in [0, 1].

    Raises:
        ValueError: If the file is no image, damaged, or not representable in 8-bit RGB; see `read_rgb8`.
        OSError: If the file cannot be read at all.
    """
    return torch.from_numpy(read_rgb8(path)).permute(2, 0, 1).float() / 255.0


def read_rgb8(path: Path) -> np.ndarray:
    """Read a photograph as uint8 RGB, (height, width, 3).

    PNG, JPEG, WebP and AVIF. Gray, 1-bit and palette images become RGB without loss, an alpha channel that is
    opaque everywhere is dropped, and the EXIF orientation is applied.

    Raises:
        ValueError: If the file is no image, damaged, animated, transparent, CMYK, of more than 8 bits per
            channel, or larger than `PIL.Image.MAX_IMAGE_PIXELS`.
        OSError: If the file cannot be read at all.
    """
    content = Path(path).read_bytes()
    try:
        with _opened(content) as image:
            _check(image, content)
            upright = ImageOps.exif_transpose(image)
            return np.array(_opaque_rgb(upright))
    except UnidentifiedImageError:
        raise ValueError(f"{path}: not a PNG, JPEG, WebP or AVIF image.") from None
    except Exception as error:  # decoders of damaged files raise nearly every kind of error
        raise ValueError(f"{path}: cannot be read as an 8-bit photograph: {error}") from error


def _opened(content: bytes) -> Image.Image:
    """Open an image whose header and EXIF data are sound; Pillow's warnings about them are errors."""
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("error")
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
        image.getexif()
    return image


def _check(image: Image.Image, content: bytes) -> None:
    """Refuse what `convert("RGB")` would silently misread."""
    if getattr(image, "n_frames", 1) > 1:
        raise ValueError("it must hold a single image, got several frames.")
    if _bits_per_channel(image, content) > 8:
        raise ValueError("it must have at most 8 bits per channel, got more.")
    if image.mode not in _OPAQUE_MODES + _ALPHA_MODES:
        raise ValueError(f"its pixels must be gray, palette or RGB, got mode {image.mode}.")


def _bits_per_channel(image: Image.Image, content: bytes) -> int:
    """Return the stored bit depth, which Pillow does not tell: it hands out 16-bit RGB cut down to 8."""
    if image.format == "PNG":
        return content[24]  # signature 8, chunk length 4, "IHDR" 4, width 4, height 4
    if image.format == "AVIF":
        configuration = content.find(b"av1C") + 4  # the codec configuration box; bit 6 of byte 2: high_bitdepth
        return 10 if content[configuration + 2] & 0x40 else 8
    return 8  # WebP has no other; Pillow refuses 12-bit JPEG


def _opaque_rgb(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema() != (255, 255):
        raise ValueError("it must be opaque, got transparent pixels.")
    return rgba.convert("RGB")


def write_image(path: Path, image: Tensor) -> None:
    """Write an image, (3, height, width) in [0, 1], as PNG, rounded and saturated to 8 bit.

    Raises:
        ValueError: If the name does not end in `.png`, or the image has another shape or is not finite.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"Images are written without loss, to a name ending in .png, got {path}.")
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise ValueError(f"`image` must be (3, height, width), got {tuple(image.shape)}.")
    if not torch.isfinite(image).all():
        raise ValueError("`image` must be finite, got NaN or infinity.")
    pixels = (to_8bit(image.detach().float()) * 255.0).round().to("cpu", torch.uint8)
    with replacing(path) as temporary:
        Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(temporary)


def image_paths(sources: Sequence[Path]) -> list[Path]:
    """List image files: the files among `sources` and the images directly inside the folders, sorted.

    Hidden files are left out, and a file that is named twice is listed once.

    Raises:
        ValueError: If there is no source, or a folder without images.
        FileNotFoundError: If a source does not exist.
    """
    if not sources:
        raise ValueError("At least one image file or folder must be given, got none.")
    found: set[Path] = set()
    for source in map(Path, sources):
        if source.is_dir():
            inside = [path for path in source.iterdir() if _is_image_name(path) and path.is_file()]
            if not inside:
                raise ValueError(f"A folder of images must hold {', '.join(SUFFIXES)} files, got none in {source}.")
            found.update(inside)
        elif source.exists():
            found.add(source)
        else:
            raise FileNotFoundError(f"No such image file or folder: {source}")
    return sorted(found)


def _is_image_name(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def to_8bit(images: Tensor) -> Tensor:
    """Round to the 256 gray levels of an 8-bit file and saturate; still float, in [0, 1]."""
    return (images.clamp(0.0, 1.0) * 255.0).round() / 255.0


def random_crop(image: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Cut a square of `size` at a uniformly random place of an image, (..., height, width).

    Raises:
        ValueError: If the crop is larger than the image.
    """
    top, left = (
        int(torch.randint(room + 1, (), generator=generator, device=generator.device))
        for room in _room_around(image, size)
    )
    return image[..., top : top + size, left : left + size]


def center_crop(image: Tensor, size: int) -> Tensor:
    """Cut a square of `size` from the middle of an image, (..., height, width).

    Raises:
        ValueError: If the crop is larger than the image.
    """
    top, left = (room // 2 for room in _room_around(image, size))
    return image[..., top : top + size, left : left + size]


def _room_around(image: Tensor, size: int) -> tuple[int, int]:
    height, width = image.shape[-2:]
    if not 1 <= size <= min(height, width):
        raise ValueError(f"`size` of a crop must be from 1 to the image's {height} x {width}, got {size}.")
    return height - size, width - size


def pad_reflect(images: Tensor, multiple: int) -> Tensor:
    """Extend (..., height, width) at the bottom and right to a multiple, by reflection about the last pixel.

    Any size from 1 x 1: the reflection goes back and forth as often as needed. Differentiable.

    Raises:
        ValueError: If `multiple` is less than 1 or the images are empty.
    """
    if multiple < 1 or 0 in images.shape[-2:]:
        raise ValueError(f"`multiple` must be at least 1 and images not empty, got {multiple}, {tuple(images.shape)}.")
    for axis in (-2, -1):
        size = images.shape[axis]
        if size % multiple:
            padded = size + -size % multiple
            images = images.index_select(axis, _reflected_index(size, padded).to(images.device))
    return images


def _reflected_index(size: int, padded: int) -> Tensor:
    """Return 0, 1, ..., size-1, size-2, ..., 1, 0, 1, ...: a triangle wave of period 2 (size - 1)."""
    period = max(2 * (size - 1), 1)  # a single pixel is repeated
    phase = torch.arange(padded) % period
    return torch.minimum(phase, period - phase)


def sample_photographs() -> dict[str, Tensor]:
    """Return the two photographs of scikit-image that travel in its wheel, (3, height, width) in [0, 1].

    Raises:
        ModuleNotFoundError: If scikit-image, the extra `[demo]`, is not installed.
    """
    try:
        from skimage import data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The sample photographs come with scikit-image: pip install 'rdgap[demo]'.", name=error.name
        ) from error
    photographs = {"astronaut": data.astronaut(), "coffee": data.coffee()}
    return {name: torch.from_numpy(pixels).permute(2, 0, 1).float() / 255.0 for name, pixels in photographs.items()}
