"""Oracles: what they may change, that they help, and that they stay above the infimum they bound."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from rdgap.gaps import decompose, fine_tune, refit_prior
from rdgap.model import Latents, from_modules
from rdgap.objective import kappa
from tests._recipes import random_images, tiny_codec

LMBDA = 0.01


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Scalar(nn.Module):
    """Four pixels, each the shifted multiple of one latent; a normal prior of trainable mean and width."""

    def __init__(self, mean: float, log_std: float, scale: float = 0.05) -> None:
        super().__init__()
        self.mean, self.log_std = (nn.Parameter(torch.tensor(x).double()) for x in (mean, log_std))
        self.scale = nn.Parameter(torch.tensor(scale).double())

    def infer(self, images: Tensor) -> Latents:
        return ((images[:, 0, 0] - 0.5) / 0.05,)

    def quantize(self, latents: Latents) -> Latents:
        return (latents[0].round(),)

    def log_prior(self, latents: Latents) -> Tensor:
        z = (latents[0] - self.mean) / self.log_std.exp()
        return (-0.5 * z.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(1)

    def decode(self, latents: Latents) -> Tensor:
        return (self.scale * latents[0] + 0.5)[:, None, None]


def images() -> Tensor:
    return 0.5 + 0.1 * torch.randn(40, 1, 1, 4, generator=seeded(0), dtype=torch.double)


def ideal_nats_per_pixel(codec: Scalar) -> float:
    """`E[-log Gamma]`: a pixel is normal with the variance of prior plus likelihood."""
    weight = 2 * kappa(LMBDA, channels=1) * (255 * float(codec.scale)) ** 2  # precision of the likelihood in z
    z = (images() - 0.5) / float(codec.scale)
    variance = float(codec.log_std.exp()) ** 2
    square = (z - float(codec.mean)).square().mean()
    return float(0.5 * math.log(1 + weight * variance) + 0.5 * weight * square / (1 + weight * variance))


def test_refitting_reaches_the_best_prior_of_its_family_and_leaves_the_decoder() -> None:
    codec = Scalar(mean=2.0, log_std=-0.5)
    oracle = refit_prior(codec, images(), LMBDA, steps=1500, generator=seeded(1), batch=100)
    assert torch.equal(oracle.scale, codec.scale)
    assert float(codec.mean.detach()) == 2.0  # the given codec is not touched
    z = (images() - 0.5) / 0.05
    weight = 2 * kappa(LMBDA, channels=1) * (255 * 0.05) ** 2
    best = Scalar(float(z.mean()), 0.5 * math.log(float(z.var(correction=0)) - 1 / weight))
    before, after, least = (ideal_nats_per_pixel(each.requires_grad_(False)) for each in (codec, oracle, best))
    assert least - 1e-9 <= after < before - 0.3 * (before - least)


def test_the_saving_of_the_oracle_is_what_the_decomposition_measures() -> None:
    codec = Scalar(mean=1.0, log_std=0.0)
    oracle = refit_prior(codec, images(), LMBDA, steps=300, generator=seeded(1), batch=100)
    for each in (codec.requires_grad_(False), oracle):
        gaps = decompose(each, images(), LMBDA, generator=seeded(2), fit_steps=200, chains=8, batch=1000)
        measured = gaps.mean("neg_log_gamma_upper")
        expected = ideal_nats_per_pixel(each) / math.log(2)
        assert abs(measured.mean_bpp - expected) < 5 * measured.estimator_stderr_bpp + 1e-6
    assert ideal_nats_per_pixel(oracle) < ideal_nats_per_pixel(codec)


def test_fine_tuning_changes_decoder_and_prior_but_not_the_encoder() -> None:
    codec, crops = tiny_codec(), random_images(2, 3, 64, 64)
    settings = {"steps": 60, "generator": seeded(0)}
    prior_only, both = refit_prior(codec, crops, LMBDA, **settings), fine_tune(codec, crops, LMBDA, **settings)
    state = codec.state_dict()

    def changed(oracle: nn.Module, part: str) -> bool:
        return any(not torch.equal(w, state[name]) for name, w in oracle.state_dict().items() if name.startswith(part))

    assert changed(prior_only, "prior.")
    assert not changed(prior_only, "synthesis.")
    assert changed(both, "prior.")
    assert changed(both, "synthesis.")
    assert not changed(both, "analysis.")
    before, after = (
        decompose(each, crops, LMBDA, generator=seeded(3), fit_steps=80, chains=2, temperatures=15)
        for each in (codec.requires_grad_(False), both)
    )
    # Random weights cost distortion, which the prior cannot help.
    saved = before.mean("neg_log_gamma_upper").mean_bpp - after.mean("neg_log_gamma_upper").mean_bpp
    assert saved > 0.02 * before.mean("neg_log_gamma_upper").mean_bpp


def test_codecs_without_parameters_are_refused() -> None:
    codec = from_modules(lambda x: x, lambda y: y, lambda y: -y.square().sum((1, 2, 3)))
    with pytest.raises(ValueError, match="torch module"):
        refit_prior(codec, random_images(1, 3, 4, 4), LMBDA, steps=1, generator=seeded(0))  # type: ignore[type-var]
    fixed = Scalar(0.0, 0.0)
    fixed.mean.requires_grad_(False)
    assert refit_prior(fixed, images(), LMBDA, steps=1, generator=seeded(0)).mean is not fixed.mean
