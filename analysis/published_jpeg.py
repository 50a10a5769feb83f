"""Does JPEG through this library give the published JPEG curve of Kodak? Yes, to .05 dB, given the same chroma.

    python analysis/published_jpeg.py --images KODAK

The published curve (CompressAI, `jpeg.json`) has chroma 4:2:0 and the standard's Huffman tables, Pillow's defaults:
its files are as long as those of `jpeg-default` here, to .2 %. Its PSNR is about .1 dB lower, which agrees with a
decoder that scales chroma in the DCT domain, as IJG's libjpeg does since version 7; libjpeg-turbo interpolates.

Writes `tables/published_jpeg.csv`, one row per way and quality: mean bpp and PSNR here, the PSNR that was published at
equal bpp (interpolated over ln(bpp) by PCHIP), and the difference.

- `jpeg`: the library's `jpeg`, with optimised Huffman tables;
- `jpeg-default`: without them;
- `jpeg-default, chroma by DCT`: the same files, chroma of the decoded image scaled up in the DCT domain.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from _experiment import check_smoke, parser
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn, idctn

from rdgap import _cli
from rdgap._files import replacing
from rdgap.bdrate import published_curve
from rdgap.bdrate.interpolation import Interpolant
from rdgap.conventional import CODECS
from rdgap.images import image_paths, read_rgb8
from rdgap.parallel import map_images

QUALITIES = (5, 10, 20, 35, 50, 65, 80, 90)
PUBLISHED = "compressai/jpeg"
WAYS = ("jpeg", "jpeg-default", "jpeg-default, chroma by DCT")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and compare."""
    arguments = parser(__doc__, smoke="two images, two qualities")
    arguments.add_argument("--images", type=Path, required=True, help="folder of the 24 Kodak images")
    return _cli.run(_run, arguments, argv)


def _run(options: argparse.Namespace) -> None:
    check_smoke(options)
    few = 2 if options.smoke else None
    table = compare(image_paths([options.images])[:few], QUALITIES[:few])
    with replacing(options.tables / "published_jpeg.csv") as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    print(table.to_string(index=False, float_format=lambda number: f"{number:.4f}"))


def compare(paths: Sequence[Path], qualities: Sequence[int]) -> pd.DataFrame:
    """Return mean rate and PSNR in each way, beside the published PSNR at equal bpp."""
    with ThreadPoolExecutor(2) as threads:
        fn = partial(_measure, qualities=qualities)
        measured = np.array(list(map_images(fn, paths, executor=threads, description="JPEG")))
    curve = published_curve(PUBLISHED, "kodak")
    published = Interpolant(np.log(curve.rate_bpp), curve.quality, "pchip")
    rows = []
    for way, of_way in zip(WAYS, measured.mean(axis=0), strict=True):
        for quality, (rate_bpp, psnr_db) in zip(qualities, of_way, strict=True):
            covered = curve.rate_bpp[0] <= rate_bpp * (1 + 1e-3) and rate_bpp <= curve.rate_bpp[-1]
            at = np.log(max(rate_bpp, curve.rate_bpp[0]))
            expected = float(published.at(at)) if covered else float("nan")
            rows.append(
                {
                    "way": way,
                    "quality": quality,
                    "images": len(paths),
                    "rate_bpp": rate_bpp,
                    "psnr_db": psnr_db,
                    "published_psnr_db": expected,
                    "difference_db": psnr_db - expected,
                }
            )
    return pd.DataFrame(rows)


def _measure(path: Path, qualities: Sequence[int]) -> list[list[tuple[float, float]]]:
    """Return (bpp, PSNR in dB) of an image in each way at each quality."""
    pixels = read_rgb8(path)
    points: list[list[tuple[float, float]]] = [[] for _ in WAYS]
    for quality in qualities:
        files = [CODECS[name].encode(pixels, quality) for name in ("jpeg", "jpeg-default")]
        decoded = [CODECS["jpeg"].decode(file) for file in files] + [decode_with_dct_chroma(files[1])]
        for of_way, file, image in zip(points, [*files, files[1]], decoded, strict=True):
            mse = np.square(image.astype(np.float64) - pixels).mean()
            of_way.append((8 * len(file) / pixels[..., 0].size, 10 * np.log10(255**2 / mse)))
    return points


def decode_with_dct_chroma(file: bytes) -> NDArray[np.uint8]:
    """Decode a 4:2:0 JPEG as IJG's libjpeg 7 and later do: chroma doubled in size by a transform of twice the length.

    Sides must be multiples of 16. At half the size libjpeg-turbo hands chroma out as it is stored.
    """
    with Image.open(io.BytesIO(file)) as full:
        full.draft("YCbCr", full.size)
        luma = np.array(full)[..., 0].astype(np.float64)
    with Image.open(io.BytesIO(file)) as half:
        half.draft("YCbCr", (half.width // 2, half.height // 2))
        stored = np.array(half).astype(np.float64)
    blue, red = (_doubled(stored[..., channel]) - 128 for channel in (1, 2))
    rgb = [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue]
    return np.stack(rgb, axis=-1).round().clip(0, 255).astype(np.uint8)


def _doubled(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    height, width = plane.shape
    blocks = plane.reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2)
    coefficients = np.zeros((*blocks.shape[:2], 16, 16))
    coefficients[..., :8, :8] = 2 * np.asarray(dctn(blocks, axes=(2, 3), norm="ortho"))
    doubled = np.asarray(idctn(coefficients, axes=(2, 3), norm="ortho"))
    return doubled.swapaxes(1, 2).reshape(2 * height, 2 * width).round().clip(0, 255)


if __name__ == "__main__":
    sys.exit(main())
