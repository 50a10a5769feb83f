"""Images to bitstreams and back: `python -m rdgap.codec encode` and `decode`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import _cli, metrics
from .._files import replacing
from ..encoding.encoder import add_encoder, encoder
from ..images import read_image, write_image
from ..ntc.codec import NTCCodec
from ..zoo import DEFAULT_LMBDA, DEFAULT_MODEL, is_own, load_codec, trained_codec, trained_lmbdas, trained_models
from .bitstream import MAX_PIXELS, BitstreamError, Header, unpack
from .coder import Coder, identity_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _cli.parser(
        "codec",
        "Write an image as a bitstream by a trained codec, and read it again.",
        "python -m rdgap.codec encode PHOTO.png --model two-layer-lite --lmbda 0.01 -o PHOTO.rdg\n"
        "  python -m rdgap.codec decode PHOTO.rdg -o DECODED.png",
    )
    commands = arguments.add_subparsers(dest="command", required=True, metavar="encode | decode")

    encode = commands.add_parser("encode", help="image to bitstream")
    encode.add_argument("image", type=Path, metavar="IMAGE", help="PNG, JPEG, WebP or AVIF")
    encode.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="shipped model, .safetensors file, or package.module:callable that returns a codec of rdgap.ntc "
        "(default: %(default)s)",
    )
    encode.add_argument(
        "--lmbda",
        type=_cli.positive_float,
        help=f"trade-off that it was trained for (default: {DEFAULT_LMBDA}, or the one in the file)",
    )
    _cli.add_output(encode, "--out", "the bitstream", short=("-o",), required=True)
    add_encoder(encode)
    _add_common(encode)

    decode = commands.add_parser("decode", help="bitstream to image")
    decode.add_argument("stream", type=Path, metavar="FILE", help="what `encode` wrote")
    decode.add_argument(
        "--model",
        metavar="WEIGHTS",
        help="the .safetensors file, or package.module:callable, that wrote it (default: the shipped model whose hash "
        "it carries)",
    )
    _cli.add_output(decode, "--out", "the image, as PNG", short=("-o",), required=True)
    _add_common(decode)
    return _cli.run(_run, arguments, argv)


def _add_common(arguments: argparse.ArgumentParser) -> None:
    arguments.add_argument(
        "--max-pixels",
        type=_cli.positive_int,
        default=MAX_PIXELS,
        help="of the largest image, padding included; bounds the memory (default: %(default)s)",
    )
    _cli.add_device(arguments)


def _run(options: argparse.Namespace) -> None:
    if options.command == "encode":
        _encode(options)
    else:
        _decode(options)


def _encode(options: argparse.Namespace) -> None:
    image = read_image(options.image)
    knows_its_own = options.model.endswith(".safetensors") or is_own(options.model)
    lmbda = options.lmbda or (None if knows_its_own else DEFAULT_LMBDA)
    device = _cli.device(options.device)
    codec = trained_codec(options.model, lmbda, device=device)
    coder = Coder(codec, max_pixels=options.max_pixels)
    stream = coder.encode(image)  # also where another is written: it refuses what cannot be coded before the long work
    chosen, remark = encoder(options), ""
    if chosen:
        (found,) = chosen.encode(codec, image[None].to(device), codec.lmbda)
        stream = coder.encode(image, found.symbols)
        mse = float(metrics.mse(image[None], coder.reconstruct(found.symbols, *image.shape[1:])[None]))
        remark = (
            f"decodes to mse {mse:.6g}; bpp + lmbda * mse is {found.saving_percent:.2f} % less than the encoder's own"
        )
    with replacing(options.out) as temporary:
        temporary.write_bytes(stream)
    _report(options.out, codec, image.shape[2], image.shape[1], len(stream))
    if remark:
        print(remark)


def _decode(options: argparse.Namespace) -> None:
    if options.out.suffix.lower() != ".png":
        raise ValueError(f"the image is written without loss, to a name ending in .png, got {options.out}.")
    stream = options.stream.read_bytes()
    try:
        header, _ = unpack(stream)
        codec = _shipped_codec(header) if options.model is None else trained_codec(options.model)
        coder = Coder(codec.to(_cli.device(options.device)), max_pixels=options.max_pixels)
        image = coder.decode(stream)
    except BitstreamError as error:
        raise BitstreamError(f"{options.stream}: {error}") from error
    write_image(options.out, image)
    _report(options.stream, codec, header.width, header.height, len(stream))


def _shipped_codec(header: Header) -> NTCCodec:
    """Load the shipped model whose hash a stream carries."""
    for name in trained_models():
        for lmbda in trained_lmbdas(name):
            if math.isclose(lmbda, header.lmbda, rel_tol=1e-6):
                codec = load_codec(name, lmbda)
                if identity_of(codec) == header.identity:
                    return codec
    raise BitstreamError(
        f"it was written by a model with the hash {header.identity.hex()}, trained at lmbda {header.lmbda:g}, which is "
        "not among the shipped models; give its weights by --model."
    )


def _report(path: Path, codec: NTCCodec, width: int, height: int, num_bytes: int) -> None:
    print(
        f"{path}: {width} x {height} pixels, {codec.name} at lmbda {codec.lmbda:g}, "
        f"{num_bytes} bytes, {8 * num_bytes / (height * width):.4f} bpp"
    )


if __name__ == "__main__":
    sys.exit(main())
