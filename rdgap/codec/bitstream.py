"""The file format: a small header, then the payload of the range coder.

    3 bytes   "rdg"
    1 byte    version of the format
    4 bytes   CRC-32 of all that follows
    8 bytes   identity of the model: a hash of its weights
    4 bytes   lmbda, IEEE 754 single
    1-4 bytes each: height and width, seven bits per byte, least first
    payload, to the end

Numbers are little-endian: 24 bytes before the payload for sides from 128 to 16383 pixels. A payload has at least one
byte for every 4096 pixels, if need be by zeros at its end, so that a short stream cannot ask for a large image.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

VERSION = 2
IDENTITY_BYTES = 8
MAX_PIXELS = 2**21
"""Of an image with its padding, unless the caller allows more: bounds the memory that a stream can ask for."""

PIXELS_PER_BYTE = 4096
"""The most pixels, padding included, that a byte of a stream may stand for."""

_MAGIC = b"rdg"
_FIXED = struct.Struct(f"<3sBI{IDENTITY_BYTES}sf")
_CHECKED_FROM = 8  # what lies before is magic, version and the checksum itself
_VARINT_BYTES = 4


class BitstreamError(ValueError):
    """A stream that cannot be decoded."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a stream says of itself.

    Attributes:
        identity: Hash of the weights of the codec that wrote it.
        lmbda: What that was trained for, in single precision; NaN if it was not.
        height: Of the image.
        width: Of the image.
        payload_bytes: Length of what follows the header.
    """

    identity: bytes
    lmbda: float
    height: int
    width: int
    payload_bytes: int


def padded_pixels(height: int, width: int, factor: int) -> int:
    """Return the pixels of an image extended to multiples of `factor`."""
    return (height + -height % factor) * (width + -width % factor)


def pack(payload: bytes, *, identity: bytes, lmbda: float, height: int, width: int, factor: int) -> bytes:
    """Return the stream of a payload.

    Args:
        payload: What the range coder wrote.
        identity: Hash of the codec's weights, of `IDENTITY_BYTES`.
        lmbda: What it was trained for.
        height: Of the image.
        width: Of the image.
        factor: What the codec pads images to multiples of.
    """
    payload += bytes(max(0, -(-padded_pixels(height, width, factor) // PIXELS_PER_BYTE) - len(payload)))
    checked = identity + struct.pack("<f", lmbda) + _varint(height) + _varint(width) + payload
    return _MAGIC + struct.pack("<BI", VERSION, zlib.crc32(checked)) + checked


def unpack(stream: bytes) -> tuple[Header, bytes]:
    """Return header and payload.

    Raises:
        BitstreamError: If this is no stream of this version, damaged or cut.
    """
    if stream[: len(_MAGIC)] != _MAGIC:
        raise BitstreamError("this is not an rdgap bitstream: it does not begin with 'rdg'.")
    if len(stream) < _FIXED.size:
        raise BitstreamError(f"the bitstream must have at least {_FIXED.size} bytes, got {len(stream)}.")
    _, version, checksum, identity, lmbda = _FIXED.unpack_from(stream)
    if version != VERSION:
        raise BitstreamError(f"the bitstream must be of version {VERSION}, got {version}.")
    if zlib.crc32(stream[_CHECKED_FROM:]) != checksum:
        raise BitstreamError("the bitstream is damaged or cut: its checksum is wrong.")
    height, place = _read_varint(stream, _FIXED.size)
    width, place = _read_varint(stream, place)
    payload = stream[place:]
    return Header(identity=identity, lmbda=lmbda, height=height, width=width, payload_bytes=len(payload)), payload


def check_size(header: Header, factor: int, max_pixels: int) -> None:
    """Refuse an image that is empty, too large, or larger than so short a payload can stand for.

    Args:
        header: Of the stream.
        factor: What the codec pads images to multiples of.
        max_pixels: The most pixels allowed, padding included.

    Raises:
        BitstreamError: If the size is out of bounds.
    """
    pixels = padded_pixels(header.height, header.width, factor)
    most = min(max_pixels, PIXELS_PER_BYTE * header.payload_bytes)
    if header.height < 1 or header.width < 1 or pixels > most:
        raise BitstreamError(
            f"the image must have from 1 to {most} pixels with its padding, "
            f"given {header.payload_bytes} bytes of payload, got {header.width} x {header.height}."
        )


def _varint(number: int) -> bytes:
    digits = [number & 0x7F]
    while number := number >> 7:
        digits[-1] |= 0x80
        digits.append(number & 0x7F)
    return bytes(digits)


def _read_varint(stream: bytes, place: int) -> tuple[int, int]:
    """Return a number and where the next begins."""
    number = 0
    for index, digit in enumerate(stream[place : place + _VARINT_BYTES]):
        number |= (digit & 0x7F) << 7 * index
        if digit < 0x80:
            return number, place + index + 1
    raise BitstreamError(f"the numbers in a bitstream's header must end within {_VARINT_BYTES} bytes.")
