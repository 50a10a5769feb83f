"""The adapter against a real CompressAI, which lives in an environment of its own: `make foreign`."""

from __future__ import annotations

import math
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rdgap.adapters import CompressAICodec, from_compressai
from rdgap.curvature import curve_length, image_decoder
from rdgap.evaluation import evaluate_image
from tests._foreign import imported

models = imported("compressai.models")
pytestmark = pytest.mark.filterwarnings("ignore")  # of CompressAI's own

MAKE = {
    "FactorizedPrior": lambda: models.FactorizedPrior(16, 24),
    "FactorizedPriorReLU": lambda: models.FactorizedPriorReLU(16, 24),
    "ScaleHyperprior": lambda: models.ScaleHyperprior(16, 24),
    "MeanScaleHyperprior": lambda: models.MeanScaleHyperprior(16, 24),
    "Cheng2020AnchorCheckerboard": lambda: models.Cheng2020AnchorCheckerboard(12),
    "Elic2022Official": lambda: models.Elic2022Official(16, 40, [4, 4, 8, 8, 16]),
    "Elic2022Chandelier": lambda: models.Elic2022Chandelier(16, 40, [4, 4, 8, 8, 16]),
    "JointAutoregressiveHierarchicalPriors": lambda: models.JointAutoregressiveHierarchicalPriors(12, 12),
    "Cheng2020Anchor": lambda: models.Cheng2020Anchor(12),
}
SERIAL = ("JointAutoregressiveHierarchicalPriors", "Cheng2020Anchor")
IMAGES = torch.rand(2, 3, 128, 64, generator=torch.Generator().manual_seed(1))


def random_model(name: str) -> torch.nn.Module:
    """A model with random weights whose latents are of several steps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MAKE[name]().eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.startswith("g_a") and parameter.ndim == 4:
                parameter.mul_(2.5 if name.startswith("Factorized") else 1.7)
    return model


def own_bpp(model: torch.nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return bits per pixel, (batch,), and reconstruction of the model's forward pass in eval mode."""
    with torch.no_grad():
        result = model(images)
    num_pixels = images.shape[-2] * images.shape[-1]
    bits = [-each.double().log2().flatten(1).sum(1) for each in result["likelihoods"].values()]
    return torch.stack(bits).sum(0) / num_pixels, result["x_hat"]


@pytest.mark.parametrize("name", [name for name in MAKE if name not in SERIAL])
def test_bpp_and_reconstruction_are_those_of_its_forward_pass(name: str) -> None:
    model = random_model(name)
    codec = from_compressai(model)
    bpp, x_hat = own_bpp(model, IMAGES)
    with torch.no_grad():
        latents = codec.quantize(codec.infer(IMAGES))
        ours_bpp = -codec.log_prior(latents).double() / math.log(2) / IMAGES[0, 0].numel()
        assert torch.allclose(ours_bpp, bpp, rtol=0, atol=1e-5)
        assert torch.allclose(codec.decode(latents), x_hat, rtol=0, atol=1e-5)
        assert codec.to_symbols(codec.infer(IMAGES))[-1].abs().max() >= 1


@pytest.mark.parametrize("name", SERIAL)
def test_serial_contexts_round_as_its_bitstreams_do(name: str) -> None:
    model = random_model(name)
    codec = from_compressai(model)
    model.update()
    with torch.no_grad():
        stream = model.compress(IMAGES[:1])
        x_hat = model.decompress(**stream)["x_hat"]
        latents = codec.quantize(codec.infer(IMAGES[:1]))
        assert torch.allclose(codec.decode(latents).clamp(0, 1), x_hat, rtol=0, atol=1e-5)
    coded_bpp = sum(8 * len(strings[0]) for strings in stream["strings"]) / IMAGES[0, 0].numel()
    estimated_bpp = float(-codec.log_prior(latents)) / math.log(2) / IMAGES[0, 0].numel()
    assert coded_bpp < 1.05 * estimated_bpp  # its escapes cost less than its bound on likelihoods says
    assert coded_bpp > 0.5 * estimated_bpp


def test_a_variable_rate_model_is_refused() -> None:
    with pytest.raises(ValueError, match="must be that of its own `forward`"):
        from_compressai(models.MeanScaleHyperpriorVbr(16, 24))


@pytest.mark.parametrize("name", ["MeanScaleHyperprior", "Elic2022Official"])
def test_curves_of_reconstructions_can_be_measured(name: str) -> None:
    codec = from_compressai(random_model(name))
    with torch.no_grad():
        start, end = codec.infer(IMAGES[:1]), codec.infer(IMAGES[1:])
    curve = curve_length(image_decoder(codec, (128, 64)), start, end, rule="gauss-legendre", num_points=4)
    assert 1 - 1e-5 < float(curve.eta) < 2


def test_the_example_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).resolve().parents[1] / "examples" / "compressai_codec.py"
    monkeypatch.setattr(sys, "argv", [str(script)])
    names = runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    codec = names["load"]()
    assert isinstance(codec, CompressAICodec)
    from rdgap.images import center_crop, sample_photographs

    measured = evaluate_image(codec, center_crop(next(iter(sample_photographs().values())), 128))
    assert f"{measured.bits / measured.num_pixels:.4f} bpp, {measured.psnr_db:.2f} dB" in printed
    assert "ideal channel" in printed
    assert "eta = " in printed
