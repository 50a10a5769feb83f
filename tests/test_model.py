"""The protocol: what counts as a codec, and codecs from plain functions."""

import math

import pytest
import torch

from rdgap.model import Codec, from_modules


def normal_log_density(latent):
    return (-0.5 * latent.square() - 0.5 * math.log(2 * math.pi)).sum(dim=(1, 2, 3))


CODEC = from_modules(lambda x: 8 * x - 4, lambda y: (y + 4) / 8, normal_log_density)
IMAGES = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))


def test_a_codec_from_modules_follows_the_protocol():
    assert isinstance(CODEC, Codec)


@pytest.mark.parametrize("missing", ["infer", "quantize", "log_prior", "decode"])
def test_each_of_the_four_methods_is_needed(missing):
    methods = {name: lambda self, _: None for name in ("infer", "quantize", "log_prior", "decode") if name != missing}
    assert not isinstance(type("Incomplete", (), methods)(), Codec)


def test_latents_are_a_tuple_and_come_unrounded():
    latents = CODEC.infer(IMAGES)
    assert isinstance(latents, tuple)
    assert len(latents) == 1
    assert torch.equal(latents[0], 8 * IMAGES - 4)


def test_quantizing_rounds_to_the_nearest_integer_and_is_idempotent():
    latents = (torch.tensor([[-1.6, -0.4, 0.4, 0.6, 2.0]]),)
    (rounded,) = CODEC.quantize(latents)
    assert rounded.tolist() == [[-2.0, 0.0, 0.0, 1.0, 2.0]]
    assert torch.equal(CODEC.quantize((rounded,))[0], rounded)


def test_decoding_inverts_this_analysis():
    assert torch.allclose(CODEC.decode(CODEC.infer(IMAGES)), IMAGES, atol=1e-6)


def test_the_prior_is_one_number_per_image():
    (latent,) = latents = CODEC.infer(IMAGES)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(latent).flatten(1).sum(1)
    assert torch.allclose(CODEC.log_prior(latents), expected)
    assert expected[0] != expected[1]


def test_modules_serve_as_functions_and_stay_differentiable():
    analysis, synthesis = torch.nn.Conv2d(3, 2, 1), torch.nn.Conv2d(2, 3, 1)
    codec = from_modules(analysis, synthesis, normal_log_density)
    codec.decode(codec.infer(IMAGES)).sum().backward()
    assert analysis.weight.grad is not None
    assert analysis.weight.grad.abs().sum() > 0
