"""A CompressAI model through evaluation, gaps and curvature.

    python examples/compressai_codec.py                              random weights, two sample photographs
    python examples/compressai_codec.py --weights model.pth a.png b.png

`load` below serves the commands as well: python -m rdgap.gaps a.png --model examples.compressai_codec:load
"""

import argparse
from pathlib import Path

import torch
from compressai.models import MeanScaleHyperprior

import rdgap
from rdgap.curvature import image_decoder
from rdgap.evaluation import evaluate_image
from rdgap.images import center_crop, read_image, sample_photographs

LMBDA = 0.0130  # CompressAI's quality 4: bits per pixel + lmbda * 255^2 * mse, the cost of this package


def load(weights: Path | None = None, lmbda: float = LMBDA) -> rdgap.Codec:
    """Return a MeanScaleHyperprior, trained or random, as a codec of the protocol."""
    if weights:
        model = MeanScaleHyperprior.from_state_dict(torch.load(weights, weights_only=True))
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = MeanScaleHyperprior(N=32, M=48)
    return rdgap.from_compressai(model, lmbda=lmbda)


def main() -> None:
    """Measure the codec on two photographs."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("photos", nargs="*", type=Path, metavar="PHOTO", help="two images")
    arguments.add_argument("--weights", type=Path, help="a state dict that CompressAI saved (default: random weights)")
    options = arguments.parse_args()
    codec = load(options.weights)
    photos = [read_image(path) for path in options.photos] or list(sample_photographs().values())
    first, second = (center_crop(photo, 128) for photo in photos)

    # %% Rate and distortion of the rounded latents, as the model's own forward pass finds them in eval mode
    measured = evaluate_image(codec, first)
    print(f"{measured.bits / measured.num_pixels:.4f} bpp, {measured.psnr_db:.2f} dB")

    # %% Where the bits go: the encoder against the ideal one for the same decoder and prior
    crop = center_crop(first, 64)[None]
    generator = torch.Generator().manual_seed(0)
    gaps = rdgap.decompose(codec, crop, LMBDA, generator=generator, fit_steps=100, temperatures=30)
    print(
        f"{gaps.encoder_bpp.item():.3f} bpp (noise channel) = {gaps.neg_log_gamma_upper_bpp.item():.3f} ideal channel"
        f" + {gaps.approximation_gap_bpp.item():.3f} approximation + {gaps.amortization_gap_lower_bpp.item():.3f}"
        f" amortization; +- {gaps.inference_gap_lower_stderr_bpp.item():.3f}"
    )

    # %% How straight the curve of reconstructions between the two photographs is
    with torch.no_grad():
        start, end = codec.infer(first[None]), codec.infer(second[None])
    curve = rdgap.curve_length(image_decoder(codec, (128, 128)), start, end, rule="hermite", num_points=9)
    print(f"eta = {curve.eta.item():.4f} +- {curve.eta_error.item():.1g} (1: straight)")


if __name__ == "__main__":
    main()
