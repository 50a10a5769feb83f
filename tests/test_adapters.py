"""Adapters: models of other makes measured as they measure themselves, latent by latent where that is slow."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from rdgap.adapters import adapted, from_autoencoder, from_compressai
from rdgap.curvature import curve_length, image_decoder
from rdgap.gaps import Posterior, anneal, fit_gaussian
from rdgap.model import Codec, GenerativeCodec, LatticeCodec, from_modules
from rdgap.objective import cost
from tests import _compressai as stand_in
from tests._recipes import first_jvp_warns

IMAGES = torch.rand(2, 3, 128, 64, generator=torch.Generator().manual_seed(1))


def own_nats(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rate in nats, (batch,), and the reconstruction that a model itself finds."""
    with torch.no_grad():
        result = model(images)
    rates = [-likelihoods.double().log().flatten(1).sum(1) for likelihoods in result["likelihoods"].values()]
    return torch.stack(rates).sum(0), result["x_hat"]


# ---------------------------------------------------------------- CompressAI's models


@pytest.mark.parametrize("kind", [kind for kind in stand_in.ALL if kind is not stand_in.Serial])
def test_rate_and_reconstruction_are_the_models_own(kind: type[stand_in.Model]) -> None:
    model = kind().eval().double()
    codec = from_compressai(model)
    nats, decoded = own_nats(model, IMAGES.double())
    latents = codec.quantize(codec.infer(IMAGES.double()))
    assert torch.allclose(-codec.log_prior(latents), nats, rtol=1e-9)
    assert torch.allclose(codec.decode(latents), decoded, atol=1e-9)
    assert latents[-1].round().unique().numel() > 5  # something was quantized
    assert isinstance(codec, Codec)
    assert isinstance(codec, LatticeCodec)
    assert isinstance(codec, GenerativeCodec)


def test_a_serial_context_rounds_like_a_decoder_that_goes_latent_by_latent() -> None:
    model = stand_in.Serial().eval().double()
    codec = from_compressai(model)
    z, y = codec.infer(IMAGES.double())
    z_hat, y_hat = codec.quantize((z, y))
    expected = model.code(y, model.h_s(z_hat))
    assert torch.allclose(y_hat, expected, atol=1e-9)
    scales, means = model.scales_and_means(y_hat, model.h_s(z_hat))
    _, likelihoods = model.gaussian_conditional(y_hat, scales, means)
    _, hyper_likelihoods = model.entropy_bottleneck(z_hat)
    nats = -likelihoods.log().flatten(1).sum(1) - hyper_likelihoods.log().flatten(1).sum(1)
    assert torch.allclose(-codec.log_prior((z_hat, y_hat)), nats, rtol=1e-9)
    assert (y_hat - y_hat.round()).abs().max() > 0.1  # the lattice lies about the means


@pytest.mark.parametrize("kind", stand_in.ALL)
def test_symbols_are_integers_and_stand_for_the_rounded_latents(kind: type[stand_in.Model]) -> None:
    codec = from_compressai(kind())
    latents = codec.infer(IMAGES)
    symbols, rounded = codec.to_symbols(latents), codec.quantize(latents)
    again = codec.to_symbols(rounded)
    for symbol, other, point, latent in zip(symbols, again, rounded, latents, strict=True):
        assert torch.equal(symbol, symbol.round())
        assert torch.equal(symbol, other)
        assert (point - latent).abs().max() < 0.5 + 1e-4
    for point, found in zip(codec.from_symbols(symbols), rounded, strict=True):
        assert torch.equal(point, found)


@pytest.mark.parametrize("kind", stand_in.ALL)
def test_slopes_of_the_cost_are_those_of_differences(kind: type[stand_in.Model]) -> None:
    codec = from_compressai(kind()).double()
    image = IMAGES[:1, :, :64].double()
    generator = torch.Generator().manual_seed(2)
    latents = tuple(latent.detach().requires_grad_() for latent in codec.infer(image))
    slopes = torch.autograd.grad(cost(codec, latents, image, 0.01).lagrangian_nats.sum(), latents)
    assert all(slope.abs().sum() > 0 for slope in slopes)
    directions = [torch.randn(latent.shape, generator=generator, dtype=torch.double) for latent in latents]
    ends = [
        cost(codec, [z + sign * 1e-6 * v for z, v in zip(latents, directions, strict=True)], image, 0.01)
        for sign in (1, -1)
    ]
    difference = (ends[0].lagrangian_nats - ends[1].lagrangian_nats) / 2e-6
    along = sum((slope * v).sum() for slope, v in zip(slopes, directions, strict=True))
    assert float(difference.detach()) == pytest.approx(float(along.detach()), rel=1e-5)


@pytest.mark.parametrize("kind", stand_in.ALL)
def test_samples_have_the_moments_that_the_prior_says(kind: type[stand_in.Model]) -> None:
    codec = from_compressai(kind(seed=3)).double()
    like = tuple(latent.expand(2000, -1, -1, -1) for latent in codec.infer(IMAGES[:1, :, :64].double()))
    samples = codec.sample_prior(like, torch.Generator().manual_seed(4))
    # The score of a density has mean zero; that of one known entry is a test of means, scales and contexts together.
    points = tuple(sample.detach().requires_grad_() for sample in samples)
    scores = torch.autograd.grad(codec.log_prior(points).sum(), points)
    for point, score in zip(points, scores, strict=True):
        for moment in (score, score * point + 1):  # E s = 0 and E s v = -1, by parts
            entries = moment.flatten(1)
            error = entries.std(0) / math.sqrt(len(entries))
            assert ((entries.mean(0)).abs() < 5 * error + 1e-9).all()


def test_a_model_of_scales_alone_tells_its_hyperprior_magnitudes() -> None:
    codec = from_compressai(stand_in.Scales())
    with torch.no_grad():
        before = codec.infer(IMAGES)
        for parameter in codec.model.g_a[2].parameters():
            parameter.neg_()
        after = codec.infer(IMAGES)
    assert torch.equal(after[1], -before[1])
    assert torch.equal(after[0], before[0])


def test_the_model_itself_stays_as_it_is() -> None:
    model = stand_in.Model().train()
    weights = copy.deepcopy(model.state_dict())
    codec = from_compressai(model, name="mine", lmbda=0.013)
    assert (codec.name, codec.lmbda) == ("mine", 0.013)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    with torch.no_grad():
        codec.model.g_s[0].weight.add_(1)
    assert torch.equal(model.g_s[0].weight, weights["g_s.0.weight"])


@pytest.mark.parametrize("size", [(1, 1), (65, 130)])
def test_images_of_any_size_are_padded(size: tuple[int, int]) -> None:
    codec = from_compressai(stand_in.Model())
    assert codec.factor == 64
    image = torch.rand(1, 3, *size)
    decoded = codec.decode(codec.quantize(codec.infer(image)))
    assert decoded.shape[-2:] == (64 * math.ceil(size[0] / 64), 64 * math.ceil(size[1] / 64))


@torch.no_grad()
def test_no_latent_costs_more_than_the_bound_on_likelihoods() -> None:
    codec = from_compressai(stand_in.Model())
    z, y = codec.quantize(codec.infer(IMAGES[:1, :, :64]))
    far = y.clone()
    far[0, 0, 0, 0] += 10_000
    dearer = codec.log_prior((z, y)) - codec.log_prior((z, far))
    assert 0 < float(dearer) <= -math.log(1e-9)
    assert float(codec.log_prior((z, y + 10_000))) == pytest.approx(
        float(codec.bottleneck.log_density(z)) + y.numel() * math.log(1e-9), rel=1e-5
    )


def test_gaps_and_curvature_take_the_adapter() -> None:
    codec = from_compressai(stand_in.Serial())
    generator = torch.Generator().manual_seed(0)
    posterior = Posterior(codec, IMAGES[:1, :, :64], 0.01, batch=8)
    fitted = fit_gaussian(posterior, steps=3, generator=generator)
    estimate = anneal(posterior, fitted, chains=2, temperatures=3, generator=generator)
    assert torch.isfinite(estimate.upper_sums_nats).all()
    with torch.no_grad():
        start, end = codec.infer(IMAGES[:1]), codec.infer(IMAGES[1:])
    curve = curve_length(image_decoder(codec, (128, 64)), start, end, rule="gauss-legendre", num_points=8)
    assert 1 <= float(curve.eta) < 2
    torch.func.jvp(codec.decode, (start,), (end,))  # the model's own bounds are not known to it


class Doubling(stand_in.Model):
    """Does something that its parts do not tell."""

    def forward(self, x: Tensor) -> dict:
        result = super().forward(x)
        return result | {"x_hat": 2 * result["x_hat"]}


class Demanding(stand_in.Model):
    def forward(self, x: Tensor, quality: int) -> dict:
        return super().forward(x)


class Cheap(stand_in.Model):
    def forward(self, x: Tensor) -> dict:
        result = super().forward(x)
        return result | {"likelihoods": {name: each**0.99 for name, each in result["likelihoods"].items()}}


@pytest.mark.parametrize(
    ("model", "rule"),
    [
        (Doubling(), "reconstruction .* must be that of its own `forward`"),
        (Cheap(), "rate .* must be that of its own `forward`"),
        (Demanding(), "must take an image alone, got .*quality"),
        (SimpleNamespace(g_a=1, g_s=2), "parts of SimpleNamespace must be CompressAI's"),
    ],
)
def test_a_model_that_is_not_understood_is_refused(model: object, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        from_compressai(model)


# ---------------------------------------------------------------- autoencoders


class Attention(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        rows = values.flatten(2).transpose(1, 2)[:, None]
        attended = nn.functional.scaled_dot_product_attention(rows, rows, rows)[:, 0].transpose(1, 2)
        return attended.unflatten(2, values.shape[2:]) + values  # not contiguous


class Autoencoder(nn.Module):
    """What a Stable Diffusion autoencoder is from outside."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.encoder, self.decoder = nn.Conv2d(3, 8, 8, 8), nn.ConvTranspose2d(4, 3, 8, 8)
        self.attention, self.norm = Attention(), nn.GroupNorm(2, 4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        self.config = SimpleNamespace(scaling_factor=0.5, shift_factor=0.25)

    def encode(self, x: Tensor) -> SimpleNamespace:
        assert x.min() < 0  # images in [-1, 1]
        mean, logvar = self.encoder(x).chunk(2, 1)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=(0.5 * logvar).exp()))

    def decode(self, z: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=self.decoder(self.norm(self.attention(z))))


def test_an_autoencoder_reconstructs_what_it_does_itself() -> None:
    model = Autoencoder()
    codec = from_autoencoder(model, step=0.25)
    images = IMAGES[:, :, :61, :59]
    with torch.no_grad():
        padded = nn.functional.pad(images, (0, 5, 0, 3), mode="reflect")
        own = model.encode(2 * padded - 1).latent_dist
        (y,) = codec.infer(images)
        assert torch.allclose(y, (own.mean - 0.25) * 0.5 / 0.25)
        assert torch.allclose(codec.infer_std(images), own.std * 0.5 / 0.25)
        assert torch.allclose(codec.decode((y,)), model.decode(own.mean).sample / 2 + 0.5, atol=1e-5)


@pytest.mark.parametrize("step", [0.1, 1.0])
def test_the_rate_of_an_autoencoder_is_a_probability_and_its_prior_is_normal(step: float) -> None:
    codec = from_autoencoder(Autoencoder(), step=step)
    points = torch.arange(-100, 101, dtype=torch.double)[:, None, None, None]
    assert float(codec.log_prior((points,)).exp().sum()) == pytest.approx(1, abs=1e-7)
    normal = torch.distributions.Normal(0.0, 1.0)
    assert torch.allclose(codec.log_prior((points,)), normal.log_prob(step * points).flatten() + math.log(step))
    (sample,) = codec.sample_prior((torch.zeros(1, 4, 100, 100),), torch.Generator().manual_seed(0))
    assert float(sample.std()) == pytest.approx(1 / step, rel=0.02)


@first_jvp_warns
def test_forward_mode_passes_attention_and_group_norms() -> None:
    codec = from_autoencoder(Autoencoder(), step=0.5)
    latents = codec.infer(IMAGES)
    direction = tuple(torch.ones_like(latent) for latent in latents)
    _, slope = torch.func.jvp(codec.decode, (latents,), (direction,))
    ends = [
        codec.decode(tuple(z + sign * 1e-2 * v for z, v in zip(latents, direction, strict=True))) for sign in (1, -1)
    ]
    assert torch.allclose(slope, (ends[0] - ends[1]) / 2e-2, atol=1e-2)


class Squeezing(Autoencoder):
    def decode(self, z: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=super().decode(z).sample[..., 1:])


@pytest.mark.parametrize(
    ("model", "options", "rule"),
    [
        (Autoencoder(), {"step": 1.5}, r"`step` must lie in \(0, 1\]"),
        (Autoencoder(), {"step": 0.0}, r"`step` must lie in \(0, 1\]"),
        (Autoencoder(), {"step": 0.5, "scale": -1.0}, "`scale` must be positive"),
        (nn.Identity(), {"step": 0.5}, "no `config.scaling_factor`"),
        (nn.Identity(), {"step": 0.5, "scale": 1.0}, "must have `encode"),
        (Squeezing(), {"step": 0.5}, "decode to the size of its image"),
    ],
)
def test_an_autoencoder_that_is_not_understood_is_refused(model: nn.Module, options: dict, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        from_autoencoder(model, **options)


# ---------------------------------------------------------------- whichever it is


def test_what_a_model_is_is_seen_by_what_it_has() -> None:
    codec = from_modules(lambda x: x, lambda y: y, lambda y: y.sum())
    assert adapted(codec) is codec
    assert adapted(stand_in.Model()).factor == 64
    with pytest.raises(ValueError, match=r"from_autoencoder\(model, step=\.\.\.\)`, got Autoencoder alone"):
        adapted(Autoencoder())
    with pytest.raises(ValueError, match=r"must have `infer`.* got int"):
        adapted(3)
    with pytest.raises(ValueError, match="got type"):
        adapted(type(codec))
