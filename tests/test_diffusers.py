"""The adapter against a real autoencoder of diffusers, which lives in an environment of its own: `make foreign`."""

from __future__ import annotations

import pytest
import torch

from rdgap.adapters import from_autoencoder
from rdgap.curvature import curve_length, image_decoder
from rdgap.gaps import decompose
from tests._foreign import imported

AutoencoderKL = imported("diffusers.models.autoencoders.autoencoder_kl").AutoencoderKL
pytestmark = pytest.mark.filterwarnings("ignore")  # of its own
IMAGES = torch.rand(2, 3, 40, 36, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def autoencoder() -> torch.nn.Module:
    """One like that of Stable Diffusion, small, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoencoderKL(
            block_out_channels=(16, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=8,
        )
    return model.eval()


def test_latents_and_reconstructions_are_its_own(autoencoder: torch.nn.Module) -> None:
    codec = from_autoencoder(autoencoder, step=0.5)
    with torch.no_grad():
        own = autoencoder.encode(2 * IMAGES - 1).latent_dist
        (latents,) = codec.infer(IMAGES)
        assert torch.allclose(latents * 0.5, own.mean * autoencoder.config.scaling_factor, rtol=0, atol=1e-5)
        assert torch.allclose(
            codec.infer_std(IMAGES) * 0.5, own.std * autoencoder.config.scaling_factor, rtol=0, atol=1e-5
        )
        assert torch.allclose(codec.decode((latents,)), (autoencoder.decode(own.mean).sample + 1) / 2, atol=1e-5)


def test_gaps_and_curvature_take_it(autoencoder: torch.nn.Module) -> None:
    codec = from_autoencoder(autoencoder, step=0.5)
    settings = {"chains": 2, "temperatures": 3, "fit_steps": 3, "samples": 4}
    gaps = decompose(codec, IMAGES[..., :16, :16], 0.01, generator=torch.Generator().manual_seed(0), **settings)
    assert gaps.neg_log_gamma_upper_bpp.isfinite().all()
    with torch.no_grad():
        start, end = codec.infer(IMAGES[:1]), codec.infer(IMAGES[1:])
    curve = curve_length(image_decoder(codec, (40, 36)), start, end, rule="gauss-legendre", num_points=4)
    assert 1 - 1e-5 < float(curve.eta) < 2
