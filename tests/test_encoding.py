"""Iterative encoding: exhaustive optima, never worse, images apart, every kind of codec."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rdgap.codec import Coder
from rdgap.encoding import METHODS, Encoder, Encoding, encode_iteratively
from rdgap.encoding.methods import (
    atanh_log_odds,
    cosine_log_odds,
    learning_rate_factor,
    linear_log_odds,
    temperature,
)
from rdgap.evaluation import evaluate_image
from rdgap.images import to_8bit
from rdgap.metrics import mse
from rdgap.model import Codec, from_modules, symbol_reader
from rdgap.objective import cost
from tests._recipes import PRIORS, random_images, tiny_codec
from tests._toys import TwoLatents

LMBDA = 0.01
ANNEALED = [name for name in METHODS if name.startswith("sga")]


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def coarse(dim: int = 3) -> Codec:
    """Few latents that a linear decoder mixes, so that rounding each by itself is not the best; poor locations."""
    mixing = torch.tensor([[1.0, 0.3, -0.1, 0.1], [0.2, 1.0, 0.2, -0.2], [-0.1, 0.3, 1.0, 0.3]])[:dim]
    cells = torch.distributions.Normal(torch.zeros(dim), 1.5)

    def log_prior(latents: Tensor) -> Tensor:
        return (cells.cdf(latents + 0.5) - cells.cdf(latents - 0.5)).clamp(min=1e-30).log().sum(1)

    return from_modules(
        lambda images: (images[:, 0, 0, :dim] - 0.5) / 0.1,
        lambda latents: 0.5 + 0.1 * (latents @ mixing)[:, None, None],
        log_prior,
    )


def coarse_images(number: int, seed: int = 0) -> Tensor:
    return 0.5 + 0.4 * (torch.rand(number, 1, 1, 4, generator=torch.Generator().manual_seed(seed)) - 0.5)


def hard_cost(codec: Codec, symbols: Tensor, image: Tensor) -> Tensor:
    """`L` of integers (points, dim) by its definition, the decoded image rounded to 8 bit."""
    decoded = to_8bit(codec.decode((symbols,)))
    error = (255 * (decoded - image)).double().square().mean((1, 2, 3))
    return -codec.log_prior((symbols,)).double() / math.log(2) / image[0, 0].numel() + LMBDA * error


def exhaustive(codec: Codec, images: Tensor, dim: int = 3) -> Tensor:
    points = torch.tensor(list(itertools.product(range(-7, 8), repeat=dim))).float()
    return torch.stack([hard_cost(codec, points, image[None]).amin() for image in images])


def costs(found: list[Encoding]) -> Tensor:
    return torch.tensor([one.lagrangian_bpp for one in found], dtype=torch.double)


# ---------------------------------------------------------------- relaxations


@pytest.mark.parametrize("name", ANNEALED)
def test_a_cold_relaxation_is_rounding(name: str) -> None:
    symbols = torch.linspace(-3.05, 2.95, 200)[None]
    symbols = symbols[(symbols - symbols.floor() - 0.5).abs() > 0.02][None]
    relaxed = METHODS[name].relax(symbols, 1e-3, seeded(0))
    torch.testing.assert_close(relaxed, symbols.round())


@pytest.mark.parametrize("name", ANNEALED)
def test_a_relaxation_rounds_up_as_often_as_its_log_odds_say(name: str) -> None:
    """Logistic noise exceeds minus the log-odds with their probability: sigmoid(log-odds / tau)."""
    tau, number = 0.4, 20_000
    expected = {
        "sga": lambda r: math.atanh(r) - math.atanh(1 - r),
        "sga-linear": lambda r: math.log(r / (1 - r)),
        "sga-cosine": lambda r: math.log(math.sin(math.pi * r / 2) ** 2 / math.cos(math.pi * r / 2) ** 2),
        "sga-ssl": lambda r: 4 / 3 * math.log(r / (1 - r)),
    }[name]
    for fraction in (0.2, 0.5, 0.65):
        relaxed = METHODS[name].relax(torch.full((1, number), 3 + fraction), tau, seeded(1))
        assert 3 <= float(relaxed.min()) <= float(relaxed.max()) <= 4
        share = float((relaxed > 3.5).double().mean())
        probability = 1 / (1 + math.exp(-expected(fraction) / tau))
        assert share == pytest.approx(probability, abs=5 * math.sqrt(0.25 / number))


@pytest.mark.parametrize("log_odds", [atanh_log_odds, linear_log_odds, cosine_log_odds])
def test_log_odds_are_odd_about_a_half_rise_and_stay_finite(log_odds: Callable[[Tensor], Tensor]) -> None:
    fractions = torch.linspace(0, 1, 101, requires_grad=True)
    odds = log_odds(fractions)
    torch.testing.assert_close(odds, -odds.flip(0), atol=1e-4, rtol=1e-3)
    assert (odds.diff()[1:-1] > 0).all()
    assert odds.isfinite().all()
    (slope,) = torch.autograd.grad(odds.sum(), fractions)
    assert slope.isfinite().all()


@pytest.mark.parametrize("name", ANNEALED)
def test_the_slope_of_a_relaxation_is_that_of_differences(name: str) -> None:
    symbols = torch.tensor([[0.3, 1.45, -0.7, -2.2]], dtype=torch.double, requires_grad=True)
    torch.autograd.gradcheck(lambda v: METHODS[name].relax(v, 0.5, seeded(3)), symbols)


def test_straight_through_rounds_with_the_slope_of_the_identity() -> None:
    symbols = torch.tensor([[0.3, 1.7, -2.6]], requires_grad=True)
    rounded = METHODS["straight-through"].relax(symbols, 0.5, [])
    assert rounded.tolist() == [[0.0, 2.0, -3.0]]
    (slope,) = torch.autograd.grad((rounded * torch.tensor([1.0, 2.0, 3.0])).sum(), symbols)
    assert slope.tolist() == [[1.0, 2.0, 3.0]]


def test_an_images_noise_is_its_own_in_any_batch() -> None:
    symbols = torch.full((2, 5), 0.5)
    both = METHODS["sga"].relax(symbols, 0.5, seeded(4, 5))
    alone = METHODS["sga"].relax(symbols[1:], 0.5, seeded(5))
    assert torch.equal(both[1:], alone)
    assert not torch.equal(both[0], both[1])


def test_the_schedule_is_the_papers_and_shorter_ones_pass_through_all_of_it() -> None:
    assert temperature(0, 3000) == temperature(200, 3000) == 0.5
    assert temperature(2200, 3000) == pytest.approx(0.5 * math.exp(-1))
    assert temperature(220, 300) == pytest.approx(0.5 * math.exp(-1))
    assert METHODS["sga"].default_learning_rate(3000) == pytest.approx(5e-3)
    assert METHODS["sga"].default_learning_rate(750) == pytest.approx(1e-2)
    assert METHODS["sga"].default_learning_rate(10) == pytest.approx(2.5e-2)
    assert [learning_rate_factor(step, 3000) for step in (0, 2699, 2700, 2999)] == [1, 1, 0.1, 0.1]


# ---------------------------------------------------------------- the search


@pytest.mark.parametrize("name", ANNEALED)
def test_the_best_lattice_point_is_found_where_all_can_be_tried(name: str) -> None:
    codec, images = coarse(), coarse_images(24)
    truth = exhaustive(codec, images)
    found = encode_iteratively(
        codec, images, LMBDA, generators=seeded(*range(24)), method=METHODS[name], steps=300, batch=24
    )
    own = torch.tensor([one.encoder_lagrangian_bpp for one in found], dtype=torch.double)
    excess = costs(found) / truth - 1
    assert (excess > -1e-6).all()
    assert float((excess < 1e-6).double().mean()) > 0.6
    assert float(excess.mean()) < 0.06
    assert float((own / truth - 1).mean()) > 0.2  # the encoder alone is far off


def test_costs_are_those_of_the_symbols_by_definition() -> None:
    codec, images = coarse(), coarse_images(3)
    found = encode_iteratively(codec, images, LMBDA, generators=seeded(0, 1, 2), steps=60)
    for image, one in zip(images, found, strict=True):
        assert one.lagrangian_bpp == pytest.approx(float(hard_cost(codec, one.symbols[0], image[None])), rel=1e-6)
        own = codec.quantize(codec.infer(image[None]))[0]
        assert torch.equal(own, one.encoder_symbols[0])
        assert one.encoder_lagrangian_bpp == pytest.approx(float(hard_cost(codec, own, image[None])), rel=1e-6)
        assert one.num_pixels == 4
        saving = 100 * (1 - one.lagrangian_bpp / one.encoder_lagrangian_bpp)
        assert one.saving_percent == pytest.approx(saving)


@pytest.mark.parametrize("learning_rate", [1e-9, 0.5, 1e3, 1e30])
@pytest.mark.parametrize("name", list(METHODS))
def test_nothing_gets_worse_however_wrong_the_step_size(name: str, learning_rate: float) -> None:
    codec, images = tiny_codec(), random_images(2, 3, 32, 48)
    found = encode_iteratively(
        codec, images, LMBDA, generators=seeded(0, 1), method=METHODS[name], steps=6, learning_rate=learning_rate
    )
    for image, one in zip(images, found, strict=True):
        assert one.lagrangian_bpp <= one.encoder_lagrangian_bpp
        assert one.encoder_lagrangian_bpp == pytest.approx(_evaluated(codec, image), rel=1e-6)
        assert all(torch.equal(each, each.round()) for each in one.symbols)


def test_an_encoder_that_knows_best_is_left_alone() -> None:
    codec, images = (
        from_modules(
            lambda images: 20 * images.round(decimals=1),
            lambda latents: latents / 20,
            lambda latents: 0 * latents.sum((1, 2, 3)),
        ),
        (random_images(1, 3, 4, 5) * 10).round() / 10,
    )
    (one,) = encode_iteratively(codec, images, LMBDA, generators=seeded(0), steps=40)
    assert torch.equal(one.symbols[0], one.encoder_symbols[0])
    assert one.saving_percent == 0 or math.isnan(one.saving_percent)


def test_more_steps_find_more() -> None:
    codec, images = tiny_codec(), random_images(2, 3, 64, 64)
    means = [
        float(costs(encode_iteratively(codec, images, LMBDA, generators=seeded(0, 1), steps=steps)).mean())
        for steps in (3, 60)
    ]
    assert means[1] < means[0]


def test_images_do_not_influence_each_other_and_sizes_may_be_mixed() -> None:
    codec = tiny_codec()
    images = [random_images(3, *size, seed=seed) for seed, size in enumerate([(64, 64), (33, 50), (64, 64), (20, 30)])]
    together = encode_iteratively(codec, images, LMBDA, generators=seeded(*range(4)), steps=8)
    small = encode_iteratively(codec, images, LMBDA, generators=seeded(*range(4)), steps=8, batch=1)
    for index, image in enumerate(images):
        (alone,) = encode_iteratively(codec, [image], LMBDA, generators=seeded(index), steps=8)
        for other in (together[index], small[index]):
            assert other.num_pixels == image[0].numel()
            assert all(torch.equal(a, b) for a, b in zip(alone.symbols, other.symbols, strict=True))
            assert (alone.bits, alone.mse) == (other.bits, other.mse)


def test_the_seed_decides_and_nothing_else_random() -> None:
    codec, images = tiny_codec(), random_images(1, 3, 48, 48)
    torch.manual_seed(0)
    first, again, other = (
        encode_iteratively(codec, images, LMBDA, generators=seeded(seed), steps=20)[0] for seed in (7, 7, 8)
    )
    assert all(torch.equal(a, b) for a, b in zip(first.symbols, again.symbols, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.symbols, other.symbols, strict=True))


def test_a_warm_start_is_a_candidate_and_goes_on_from_there() -> None:
    codec, images = tiny_codec(), random_images(2, 3, 64, 64)
    first = encode_iteratively(codec, images, LMBDA, generators=seeded(0, 1), steps=40)
    start = [one.symbols for one in first]
    kept = encode_iteratively(codec, images, LMBDA, generators=seeded(2, 3), steps=1, learning_rate=1e-6, start=start)
    more = encode_iteratively(codec, images, LMBDA, generators=seeded(2, 3), steps=80, start=start)
    assert (costs(kept) == costs(first)).all()
    assert (costs(more) < costs(first)).all()
    assert [one.encoder_bits for one in more] == [one.encoder_bits for one in first]


def test_a_start_from_the_encoders_own_symbols_and_from_worse_ones_both_work() -> None:
    codec, images = coarse(), coarse_images(6)
    truth = exhaustive(codec, images)
    for away, excess in ((0.0, 0.1), (1.0, 0.2)):
        start = [(codec.quantize(codec.infer(image[None]))[0] + away,) for image in images]
        found = encode_iteratively(codec, images, LMBDA, generators=seeded(*range(6)), steps=200, start=start)
        assert float((costs(found) / truth - 1).mean()) < excess
        given = torch.cat(
            [hard_cost(codec, symbols, image[None]) for (symbols,), image in zip(start, images, strict=True)]
        )
        assert (costs(found) <= given + 1e-9).all()
        assert float((given / truth - 1).mean()) > 1.5 * excess


def test_parameters_are_left_alone() -> None:
    codec = tiny_codec()
    before = {name: weight.clone() for name, weight in codec.state_dict().items()}
    encode_iteratively(codec, random_images(1, 3, 32, 32), LMBDA, generators=seeded(0), steps=3)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in codec.parameters())
    assert all(torch.equal(before[name], weight) for name, weight in codec.state_dict().items())


# ---------------------------------------------------------------- codecs


def _evaluated(codec: Codec, image: Tensor, symbols: tuple[Tensor, ...] | None = None) -> float:
    measured = evaluate_image(codec, image, symbols=symbols)
    return measured.rate_bpp + LMBDA * measured.mse


@pytest.mark.parametrize("quantization", ["noise", "mixed"])
@pytest.mark.parametrize("prior", list(PRIORS))
def test_reading_symbols_is_from_symbols_then_prior_and_decoder(prior: str, quantization: str) -> None:
    codec, images = tiny_codec(prior=prior, quantization=quantization), random_images(2, 3, 64, 80)
    symbols = codec.to_symbols(codec.infer(images))
    generator = torch.Generator().manual_seed(0)
    symbols = tuple((each + torch.rand(each.shape, generator=generator)).requires_grad_() for each in symbols)
    log_prior, decoded = symbol_reader(codec)(symbols)
    latents = codec.from_symbols(symbols)
    torch.testing.assert_close(log_prior, codec.log_prior(latents))
    torch.testing.assert_close(decoded, codec.decode(latents))
    for one, other in ((log_prior, codec.log_prior(latents)), (decoded, codec.decode(latents))):
        slopes, others = (
            torch.autograd.grad(each.sum(), symbols, retain_graph=True, materialize_grads=True) for each in (one, other)
        )
        for slope, expected in zip(slopes, others, strict=True):
            torch.testing.assert_close(slope, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("prior", list(PRIORS))
def test_every_kind_of_codec_is_searched_and_its_stream_keeps_the_promise(prior: str, bf16: bool) -> None:
    codec, image = tiny_codec(prior=prior).requires_grad_(False), random_images(3, 70, 90)
    (found,) = Encoder(method="sga", steps=25, bf16=bf16).encode(codec, image[None], LMBDA)
    assert found.saving_percent > 0.5
    assert found.lagrangian_bpp == pytest.approx(_evaluated(codec, image, found.symbols), rel=1e-5)
    latents = codec.from_symbols(found.symbols)
    separate = cost(codec, latents, image[None], LMBDA)  # not rounded to 8 bit
    assert found.bits == pytest.approx(float(separate.rate_nats) / math.log(2), rel=1e-5)
    coder = Coder(codec)
    stream = coder.encode(image, found.symbols)
    promised = coder.reconstruct(found.symbols, 70, 90)
    decoded = coder.decode(stream)
    assert torch.equal(decoded, promised)
    assert float(mse(image[None], decoded[None])) == pytest.approx(found.mse, rel=2e-3)
    assert stream != coder.encode(image)


def test_the_coder_refuses_symbols_of_another_image() -> None:
    codec, image = tiny_codec(), random_images(3, 70, 90)
    coder, symbols = Coder(codec), codec.to_symbols(codec.infer(image[None]))
    with pytest.raises(ValueError, match=r"`symbols` of an image of 140 x 90 must have the shapes"):
        coder.encode(random_images(3, 140, 90), symbols)
    with pytest.raises(ValueError, match="must be whole numbers"):
        coder.encode(image, (symbols[0], symbols[1] + 0.5))
    with pytest.raises(ValueError, match="must be whole numbers"):
        coder.encode(image, (symbols[0] * math.nan, symbols[1]))
    with pytest.raises(ValueError, match="must be whole numbers of at most"):
        coder.encode(image, (symbols[0], symbols[1] + 2.0**40))


def test_large_symbols_are_escaped() -> None:
    codec, image = tiny_codec(), random_images(3, 70, 90)
    coder, symbols = Coder(codec), codec.to_symbols(codec.infer(image[None]))
    symbols[1][0, 0, 0, 0] = 20_000
    assert torch.equal(coder.decode(coder.encode(image, symbols)), coder.reconstruct(symbols, 70, 90))


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"lmbda": -1.0}, "`lmbda` must be positive"),
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"batch": 0}, "`batch` must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "`learning_rate` must be positive and finite, got 0.0"),
        ({"learning_rate": math.inf}, "`learning_rate` must be positive and finite"),
        ({"generators": []}, "`generators` must have one entry for each of 1 images, got 0"),
        ({"images": []}, r"`images` must each be \(channels, height, width\), got \[\]"),
        ({"images": [torch.zeros(4, 4)]}, r"`images` must each be .* got \[\(4, 4\)\]"),
        ({"images": torch.full((1, 3, 8, 8), math.nan)}, "`images` must be finite"),
        ({"start": []}, "`start` must have one entry"),
        ({"start": [(torch.zeros(1, 2),)]}, r"`start` must have symbols of the shapes \[\(1, 3\)\], got \[\(1, 2\)\]"),
        ({"start": [(torch.full((1, 3), 0.5),)]}, "`start` must have whole numbers"),
        ({"model": TwoLatents()}, "got TwoLatents, which lacks them"),
    ],
)
def test_wrong_arguments_are_refused(changes: dict[str, object], rule: str) -> None:
    arguments: dict = {"model": coarse(), "images": coarse_images(1), "lmbda": LMBDA, "generators": seeded(0)} | changes
    with pytest.raises(ValueError, match=rule):
        encode_iteratively(arguments.pop("model"), arguments.pop("images"), arguments.pop("lmbda"), **arguments)


def test_a_cost_that_is_not_finite_is_an_error() -> None:
    codec = from_modules(lambda x: x, lambda y: y, lambda y: y.sum((1, 2, 3)) * math.nan)
    with pytest.raises(RuntimeError, match="encoder's own choice must be finite"):
        encode_iteratively(codec, random_images(1, 3, 4, 4), LMBDA, generators=seeded(0), steps=2)
