"""Bitstreams: exact round trips, sizes near the estimate, the same everywhere, and nothing bad from bad streams."""

from __future__ import annotations

import hashlib
import math
import random
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from rdgap.codec import BitstreamError, Coder, bitstream, decode, elementary, encode, tables, unpack
from rdgap.codec.__main__ import main
from rdgap.codec.entropy import LARGEST_SYMBOL, SymbolReader, SymbolWriter, bits_of
from rdgap.codec.fixed_point import FRACTION_BITS, FixedPointConvolution, in_fixed_point
from rdgap.evaluation import coded_point, evaluate_image
from rdgap.images import center_crop, read_image, write_image
from rdgap.ntc import NTCCodec
from rdgap.ntc.layers import GDN, CheckerboardConv2d, down, up
from rdgap.recipes import Recipe, build_codec
from rdgap.zoo import load_codec
from tests._data import data_folder
from tests._recipes import random_images, shaken, tiny_codec, tiny_recipe

PRIORS = {
    "charm": {"kind": "charm", "slices": 2, "support": 1, "hyper_widths": (3, 4, 5), "widths": (3, 4)},
    "elic": {"kind": "elic", "width": 5, "groups": (1, 3), "context_widths": (3, 4), "aggregation_widths": (5, 6)},
}
KINDS = [
    ("mean-scale", "noise"),
    ("mean-scale", "mixed"),
    ("factorized", "noise"),
    ("scale", "noise"),
    ("jpeg-like-hyper", "mixed"),
    ("charm", "mixed"),
    ("elic", "noise"),
]


def codec_of(prior: str, quantization: str) -> NTCCodec:
    """A tiny codec with that prior."""
    if prior not in PRIORS:
        return tiny_codec(prior=prior, quantization=quantization)
    recipe = tiny_recipe(quantization=quantization).model_dump() | {"prior": PRIORS[prior]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        codec = build_codec(Recipe.model_validate(recipe))
    shaken(codec.prior, 0, 0.1)
    with torch.no_grad():
        codec.get_parameter("analysis.4.weight").mul_(40.0)
    return codec.eval()


SIZES_AT = 20
"""Where height and width begin in a stream."""


def resealed(stream: bytes) -> bytes:
    """A stream with the checksum of what it holds."""
    return stream[:4] + struct.pack("<I", zlib.crc32(stream[8:])) + stream[8:]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (64, 64), (65, 130)])
@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_decoding_gives_the_encoders_reconstruction_bit_for_bit(kind, size):
    coder = Coder(codec_of(*kind))
    stream, y = coder.encode_with_latents(random_images(3, *size))
    assert y.abs().max() > 0.5
    image = coder.decode(stream)
    assert image.shape == (3, *size)
    assert torch.equal(image, coder.synthesize(y, *size))
    assert torch.equal(image, (image * 255).round() / 255)


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_the_coded_latents_are_the_codecs_own_lattice_points(kind):
    codec = codec_of(*kind)
    image = random_images(3, 100, 140)
    _, y = Coder(codec).encode_with_latents(image)
    with torch.no_grad():
        expected = codec.prior.for_synthesis(codec.quantize(codec.infer(image[None])))
    difference = (y - expected).abs()
    assert (difference < 0.01).float().mean() > 0.99  # a rare symbol within rounding of a half may go the other way
    assert difference.max() < 1.01


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_the_payload_is_as_long_as_the_estimate(kind, monkeypatch):
    codec = codec_of(*kind)
    image = random_images(3, 640, 960)
    with torch.no_grad():  # latents as the prior expects them: unlikely ones take fewer bits than it charges
        latents = codec.sample_prior(codec.infer(image[None]), generator())
    monkeypatch.setattr(codec, "infer", lambda images: latents)
    estimated_bytes = evaluate_image(codec, image).bits / 8
    header, _ = unpack(Coder(codec).encode(image))
    assert estimated_bytes > 3000
    assert 0.995 * estimated_bytes < header.payload_bytes < 1.002 * estimated_bytes + 32


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_a_stream_is_shorter_than_its_estimate_by_what_unlikely_symbols_save(kind, monkeypatch):
    codec = codec_of(*kind)
    image = random_images(3, 640, 960)
    with torch.no_grad():
        *first, last = codec.sample_prior(codec.infer(image[None]), generator())
    outliers = torch.rand(last.shape, generator=generator(1)) < 0.01
    latents = (*first, torch.where(outliers, last + 400 * torch.sign(last), last))
    monkeypatch.setattr(codec, "infer", lambda images: latents)
    coder = Coder(codec)
    estimated_bits, coded_bits = evaluate_image(codec, image).bits, 8 * len(coder.encode(image))
    saving_bits = coder.tail_saving_bits(image)
    assert saving_bits > 0.01 * estimated_bits
    assert abs(coded_bits - (estimated_bits - saving_bits)) < 0.005 * estimated_bits + 8 * 32


@pytest.fixture(scope="module")
def photograph() -> torch.Tensor:
    data = data_folder()
    if data is None:
        pytest.skip("needs the Kodak photographs of the data folder")
    return center_crop(read_image(data / "kodak" / "kodim05.png"), 256)


@pytest.mark.parametrize("lmbda", [0.00125, 0.01])
def test_a_shipped_codec_codes_a_photograph_within_its_estimate_header_included(photograph, lmbda):
    codec = load_codec("two-layer-lite", lmbda)
    coder = Coder(codec)
    stream = coder.encode(photograph)
    estimate = evaluate_image(codec, photograph)
    expected = estimate.bits - coder.tail_saving_bits(photograph)
    assert 0.99 * estimate.bits < expected <= estimate.bits
    assert abs(8 * len(stream) - expected) < 0.002 * estimate.bits + 8 * 32
    measured = coded_point(coder, name="two-layer-lite", lmbda=lmbda).measure(photograph)
    assert measured.bits == 8 * len(stream)
    assert measured.rate_kind == "coded"
    assert measured.mse == pytest.approx(estimate.mse, rel=0.005)


def test_the_functions_are_the_coders():
    codec, image = tiny_codec(), random_images(3, 20, 30)
    assert encode(codec, image) == Coder(codec).encode(image)
    assert torch.equal(decode(codec, encode(codec, image)), Coder(codec).decode(encode(codec, image)))


@pytest.mark.parametrize(
    ("image", "rule"),
    [
        (torch.zeros(1, 4, 4), r"must be \(3, height, width\), got \(1, 4, 4\)"),
        (torch.zeros(3, 0, 4), "must be"),
        (torch.full((3, 4, 4), math.nan), "finite"),
        (torch.zeros(1).expand(3, 1, 65537), "at most 2097152 pixels with its padding to be coded, got 4198400"),
    ],
)
def test_an_image_that_cannot_be_coded_is_refused(image, rule):
    with pytest.raises(ValueError, match=rule):
        Coder(tiny_codec()).encode(image)


# ---------------------------------------------------------------- the same everywhere


def test_latents_do_not_depend_on_threads_or_autocast():
    coder = Coder(tiny_codec())
    stream, y = coder.encode_with_latents(random_images(3, 200, 300))
    header, payload = unpack(stream)
    threads = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            assert torch.equal(coder.read_latents(payload, header), y)
    finally:
        torch.set_num_threads(threads)
    with torch.autocast("cpu", torch.bfloat16):
        assert coder.encode(random_images(3, 200, 300)) == stream
        assert torch.equal(coder.decode(stream), coder.synthesize(y, 200, 300))


OLD_CPU = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
DECODE = """
import sys
from pathlib import Path
import numpy, torch
from rdgap.codec import Coder, unpack
from rdgap.zoo import load_codec
assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
coder, stream = Coder(load_codec("two-layer-lite", 0.01)), Path("photograph.rdg").read_bytes()
header, payload = unpack(stream)
numpy.savez("decoded.npz", latents=coder.read_latents(payload, header), image=coder.decode(stream))
"""


def test_a_cpu_without_newer_instructions_decodes_the_same_latents(tmp_path):
    coder = Coder(load_codec("two-layer-lite", 0.01))
    stream, y = coder.encode_with_latents(random_images(3, 100, 140))
    (tmp_path / "photograph.rdg").write_bytes(stream)
    environment = {"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": "/usr/bin:/bin", **OLD_CPU}
    subprocess.run([sys.executable, "-c", DECODE], cwd=tmp_path, env=environment, check=True)
    with np.load(tmp_path / "decoded.npz") as decoded:
        assert np.array_equal(decoded["latents"], y.numpy())
        differences = np.abs(decoded["image"] - coder.synthesize(y, 100, 140).numpy())
    assert differences.max() < 1.5 / 255  # of the synthesis, where a value is within rounding of a half
    assert (differences > 0).mean() < 1e-3


def test_a_fixed_point_convolution_does_not_depend_on_the_order_of_summation():
    layer = down(40, 8, 5)
    order = torch.randperm(40, generator=generator())
    shuffled = down(40, 8, 5)
    shuffled.load_state_dict({"weight": layer.weight[:, order], "bias": layer.bias})
    x = 100 * torch.randn(1, 40, 9, 11, generator=generator(1), dtype=torch.float64)
    expected = FixedPointConvolution(layer)(x)
    assert torch.equal(FixedPointConvolution(shuffled)(x[:, order]), expected)
    layer.weight.data = layer.weight.data.flip(3)
    assert torch.equal(FixedPointConvolution(layer)(x.flip(3)).flip(3), expected)


def test_a_fixed_point_convolution_is_arithmetic_of_python_integers():
    layer = down(2, 1, 3)
    exact = FixedPointConvolution(layer)
    x = torch.randint(-(2**20), 2**20, (1, 2, 4, 5), generator=generator()).double()
    kernel = torch.round(layer.weight.detach().double() * 2.0**exact.weight_bits).long()
    bias = int(torch.round(layer.bias.detach().double() * 2.0 ** (exact.weight_bits + FRACTION_BITS)))
    half, bits = 2 ** (exact.weight_bits - 1), exact.weight_bits
    result = exact(x / 2**FRACTION_BITS) * 2**FRACTION_BITS
    padded = nn.functional.pad(x, (1, 1, 1, 1)).long()
    for row, column in ((0, 0), (2, 3), (3, 4)):
        products = (padded[0, :, row : row + 3, column : column + 3] * kernel[0]).flatten().tolist()
        assert result[0, 0, row, column] == (sum(products) + bias + half) >> bits


@pytest.mark.parametrize(
    "layer",
    [
        down(6, 5, 3),
        down(6, 5, 5, bias=False),
        up(6, 5, 5, 2),
        up(6, 5, 13, 8),
        up(6, 5, 6, 4),
        CheckerboardConv2d(6, 5, 5),
    ],
    ids=str,
)
def test_a_fixed_point_convolution_is_near_the_floating_one(layer):
    x = torch.randint(-(2**16), 2**16, (2, 6, 4, 7), generator=generator()).double() / 2**FRACTION_BITS
    expected = layer.double()(x)
    assert FixedPointConvolution(layer)(x).sub(expected).abs().max() < 2.0**-FRACTION_BITS


def test_activations_and_weights_of_any_size_stay_exact():
    layer = down(3, 2, 3)
    with torch.no_grad():
        layer.weight.mul_(1e3)
        saturated = FixedPointConvolution(layer)(torch.full((1, 3, 4, 4), 1e30, dtype=torch.float64))
        assert torch.equal(saturated, FixedPointConvolution(layer)(torch.full((1, 3, 4, 4), 8192.0).double()))
        for factor in (1e9, math.nan):
            layer.weight.mul_(factor)
            with pytest.raises(ValueError, match="too large, or not finite"):
                FixedPointConvolution(layer)


@pytest.mark.parametrize(
    "layer",
    [GDN(3), nn.Sequential(nn.GELU()), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, stride=2)],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_that_cannot_be_exact_are_refused(layer):
    with pytest.raises(ValueError, match="in fixed point"):
        in_fixed_point(layer)


def test_elementary_functions_are_accurate():
    x = np.linspace(-30, 30, 6001)
    assert np.abs(elementary.exp(x) / np.exp(x) - 1).max() < 1e-15
    assert np.abs(elementary.log(np.exp(x)) - x).max() < 1e-14
    assert np.abs(elementary.tanh(x) - np.tanh(x)).max() < 1e-15
    assert np.abs(elementary.softplus(x) - np.logaddexp(0, x)).max() < 1e-14
    above = np.linspace(0, 8, 801)
    assert np.abs(elementary.normal_above_median(above) - (stats.norm.cdf(above) - 0.5)).max() < 2e-15


def test_no_hyperbolic_tangent_is_near_where_rounding_turns():
    steps = torch.arange(1, 2**17).double() / 2**FRACTION_BITS  # beyond, it is one in float64
    halved = 0.5 * torch.tanh(steps) * 2**FRACTION_BITS
    assert ((halved - torch.floor(halved)) - 0.5).abs().min() > 1e-9


def test_gaussian_tables_are_those_of_every_machine():
    digest = hashlib.sha256()
    for counts in tables.gaussian_tables().counts:
        digest.update(counts.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "a74f82ba520917a5"


def test_gaussian_tables_are_gaussians():
    gaussians = tables.gaussian_tables()
    for index in (0, 100, 200, len(gaussians.counts) - 1):
        scale = math.exp(tables._log_scales()[index] / 2**FRACTION_BITS)
        symbols = np.arange(gaussians.lowest[index], gaussians.highest[index] + 1)
        mass = stats.norm.cdf((symbols + 0.5) / scale) - stats.norm.cdf((symbols - 0.5) / scale)
        counts = gaussians.counts[index]
        assert counts.sum() == 2**24
        assert counts.min() >= 1
        assert np.abs(counts[:-1] / 2**24 - mass).max() < 3e-3 * mass.max() + 2**-23


def test_density_tables_are_the_priors():
    codec = tiny_codec()
    exact = tables.ExactDensity(codec.prior.density, about_medians=True)
    assert np.abs(exact.offset - codec.prior.density.medians().numpy()).max() < 2.0 ** (1 - FRACTION_BITS)
    channels = len(exact.offset)
    for channel in range(channels):
        symbols = torch.arange(exact.tables.lowest[channel], exact.tables.highest[channel] + 1)
        lattice = (symbols + exact.offset[channel]).float().expand(1, channels, 1, -1)
        with torch.no_grad():
            mass = codec.prior.density.log_density(lattice)[0, channel, 0].exp().numpy()
        counts = exact.tables.counts[channel]
        assert counts.sum() == 2**24
        assert np.abs(counts[:-1] / 2**24 - mass).max() < 1e-4
        assert counts[-1] < 2**6  # the tails


def test_no_scale_is_near_a_threshold():
    logarithms = torch.arange(-9041, 22714).double() / 2**FRACTION_BITS
    index = tables.scale_index(logarithms.exp())
    for error in (-1e-6, 1e-6):
        assert torch.equal(tables.scale_index((logarithms + error).exp()), index)
    levels = torch.tensor(list(tables._log_scales())) / 2.0**FRACTION_BITS
    assert (logarithms - levels[index.long()]).abs().max() <= levels.diff().max() / 2
    assert tables.scale_index(torch.tensor([0.11, 256.0]).double()).tolist() == [0, len(levels) - 1]


# ---------------------------------------------------------------- entropy coding


def test_symbols_cost_what_their_counts_say():
    gaussians = tables.gaussian_tables()
    rng = np.random.default_rng(0)
    index = rng.integers(0, len(gaussians.counts), 20_000)
    scales = np.exp(np.array(tables._log_scales())[index] / 2**FRACTION_BITS)
    symbols = np.clip(np.rint(rng.normal(size=20_000) * scales), gaussians.lowest[index], gaussians.highest[index])
    writer = SymbolWriter()
    writer.write(symbols.astype(np.int64), index, gaussians)
    counts = [gaussians.counts[i][int(s) - gaussians.lowest[i]] for i, s in zip(index, symbols, strict=True)]
    bits = (24 - np.log2(counts)).sum()
    assert 8 * len(writer.payload()) == pytest.approx(bits, abs=64)
    assert bits_of(symbols.astype(np.int64), index, gaussians).sum() == pytest.approx(bits)


def test_escapes_cost_what_the_coder_makes_of_them():
    gaussians = tables.gaussian_tables()
    symbols = np.arange(-2000, 2000)
    index = np.full(len(symbols), 20)
    assert gaussians.highest[20] < 5
    writer = SymbolWriter()
    writer.write(symbols, index, gaussians)
    bits = bits_of(symbols, index, gaussians)
    assert bits.sum() == pytest.approx(8 * len(writer.payload()), rel=1e-3)


def test_every_symbol_can_be_coded():
    gaussians = tables.gaussian_tables()
    magnitudes = [0, 1, 2, 3, 40, 1000, 1280, 1281, 5000, 2**16, 2**20 + 7, LARGEST_SYMBOL - 1, LARGEST_SYMBOL]
    symbols = np.array([sign * magnitude for magnitude in magnitudes for sign in (1, -1)] * 3)
    index = np.repeat([0, 90, len(gaussians.counts) - 1], len(symbols) // 3)
    writer = SymbolWriter()
    writer.write(symbols, index, gaussians)
    writer.write(symbols[::-1].copy(), index, gaussians)
    reader = SymbolReader(writer.payload())
    assert np.array_equal(reader.read(index, gaussians), symbols)
    assert np.array_equal(reader.read(index, gaussians), symbols[::-1])


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
@pytest.mark.parametrize("gain", [1e4, 1e12])
def test_latents_far_outside_every_table_survive(kind, gain):
    codec = codec_of(*kind)
    with torch.no_grad():
        codec.get_parameter("analysis.4.weight").mul_(gain)
        codec.get_parameter("synthesis.conv2.weight").mul_(1e-30)
    coder = Coder(codec)
    stream, y = coder.encode_with_latents(random_images(3, 70, 70))
    assert y.abs().max() > min(gain, LARGEST_SYMBOL) / 10
    header, payload = unpack(stream)
    assert torch.equal(coder.read_latents(payload, header), y)
    assert torch.equal(coder.decode(stream), coder.synthesize(y, 70, 70))


def test_latents_that_are_no_numbers_are_an_error():
    codec = tiny_codec()
    codec.get_parameter("analysis.4.weight").data.fill_(math.nan)
    with pytest.raises(RuntimeError, match="latents must be finite"):
        Coder(codec).encode(random_images(3, 8, 8))


# ---------------------------------------------------------------- the file format


@pytest.fixture(scope="module")
def tiny() -> Coder:
    return Coder(tiny_codec())


def test_the_header_says_what_was_coded(tiny):
    tiny.codec.lmbda = 0.3
    stream = tiny.encode(random_images(3, 133, 1000))
    header, payload = unpack(stream)
    assert len(stream) == 24 + len(payload)
    assert (header.lmbda, header.identity) == (pytest.approx(0.3), tiny.identity)
    assert (header.height, header.width, header.payload_bytes) == (133, 1000, len(payload))


def test_every_flipped_bit_is_detected(tiny):
    stream = tiny.encode(random_images(3, 20, 20))
    assert 40 < len(stream) < 400
    for bit in range(8 * len(stream)):
        flipped = bytearray(stream)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError):
            tiny.decode(bytes(flipped))


def test_every_cut_and_every_extension_is_detected(tiny):
    stream = tiny.encode(random_images(3, 20, 20))
    for length in range(len(stream)):
        with pytest.raises(BitstreamError):
            tiny.decode(stream[:length])
    with pytest.raises(BitstreamError):
        tiny.decode(stream + b"\0")


def test_another_models_stream_is_refused(tiny):
    other = tiny_codec(seed=1)
    with pytest.raises(BitstreamError, match=r"the model must have the weights .* at lmbda nan, got .*, tiny at lmbda"):
        tiny.decode(encode(other, random_images(3, 8, 8)))
    touched = tiny_codec()
    stream = tiny.encode(random_images(3, 8, 8))
    touched.get_parameter("synthesis.conv2.bias").data[0] += 1e-6
    with pytest.raises(BitstreamError, match="must have the weights"):
        decode(touched, stream)
    with pytest.raises(BitstreamError, match="must have the weights"):
        decode(tiny_codec(quantization="mixed"), stream)


@pytest.mark.parametrize(
    "size", [(0, 16), (16, 0), (2**28 - 1, 2**28 - 1), (1, 2**20), (2000, 2000), (65, 64 * 33)], ids=str
)
def test_a_size_that_the_payload_cannot_stand_for_is_refused(tiny, size):
    honest, lying = (
        resealed(
            bitstream.pack(bytes(64), identity=tiny.identity, lmbda=1.0, height=16, width=16, factor=64).replace(
                b"\x10\x10", bitstream._varint(height) + bitstream._varint(width)
            )
        )
        for height, width in ((64, 64 * 64), size)
    )
    assert tiny.decode(honest).shape == (3, 64, 64 * 64)
    with pytest.raises(BitstreamError, match="given 64 bytes of payload, got" if max(size) < 2**20 else "image"):
        tiny.decode(lying)


def test_the_largest_image_is_the_callers_choice():
    codec, image = tiny_codec(), random_images(3, 64, 65)
    stream = encode(codec, image)
    assert Coder(codec, max_pixels=64 * 128).decode(stream).shape == image.shape
    tight = Coder(codec, max_pixels=64 * 128 - 1)
    with pytest.raises(BitstreamError, match="from 1 to 8191 pixels"):
        tight.decode(stream)
    with pytest.raises(ValueError, match="at most 8191 pixels"):
        tight.encode(image)


def test_a_black_image_is_long_enough_for_its_size():
    codec = tiny_codec()
    with torch.no_grad():
        codec.get_parameter("analysis.4.weight").zero_()
    coder = Coder(codec)
    stream = coder.encode(torch.zeros(3, 640, 640))
    assert unpack(stream)[0].payload_bytes >= 100
    assert coder.decode(stream).shape == (3, 640, 640)


def mutated(stream: bytes, rng: random.Random) -> bytes:
    """A stream with bits flipped, cut, bytes replaced, or a header's numbers replaced; half of them resealed."""
    bad = bytearray(stream)
    kind = rng.randrange(5)
    if kind == 0:
        for _ in range(rng.randint(1, 8)):
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        bad = bad[: rng.randrange(len(bad))]
    elif kind == 2:
        start = rng.randrange(len(bad))
        bad[start:] = rng.randbytes(len(bad) - start)
    elif kind == 3:
        size = rng.randbytes(rng.randint(1, 8))
        bad[SIZES_AT : SIZES_AT + len(size)] = size
    else:
        payload = rng.randrange(SIZES_AT + 2, len(bad))
        bad[payload:] = rng.choice([b"\0", b"\xff"]) * (len(bad) - payload)
    return resealed(bytes(bad)) if len(bad) >= 8 and rng.random() < 0.5 else bytes(bad)


def test_ten_thousand_bad_streams_end_in_an_error_or_an_image(tiny):
    rng = random.Random(0)
    stream = tiny.encode(random_images(3, 20, 20))
    assert stream[SIZES_AT : SIZES_AT + 2] == b"\x14\x14"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {"error": 0, "image": 0}
    for _ in range(10_000):
        try:
            image = tiny.decode(mutated(stream, rng))
        except BitstreamError:
            outcomes["error"] += 1
        else:
            assert torch.isfinite(image).all()
            outcomes["image"] += 1
    assert outcomes["error"] > 5000
    assert outcomes["image"] > 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


# ---------------------------------------------------------------- the command


def test_the_command_writes_and_reads_files(tmp_path, capsys):
    image = random_images(3, 40, 50)
    write_image(tmp_path / "in.png", image)
    stream, out = tmp_path / "a.rdg", tmp_path / "out.png"
    assert main(["encode", str(tmp_path / "in.png"), "--lmbda", "0.01", "-o", str(stream), "--device", "cpu"]) == 0
    assert "50 x 40 pixels, two-layer-lite at lmbda 0.01" in capsys.readouterr().out
    root = Path(__file__).parent.parent
    command = [sys.executable, "-W", "error", "-m", "rdgap.codec", "decode", "a.rdg", "-o", "out.png"]
    environment = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    decoded = read_image(out)
    expected = decode(load_codec("two-layer-lite", 0.01), stream.read_bytes())
    # Another number of threads may round a pixel that is within 1e-6 of a half the other way.
    assert (decoded - expected).abs().max() < 1.5 / 255
    assert (decoded == expected).float().mean() > 0.999


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys):
    image, stream = tmp_path / "in.png", tmp_path / "a.rdg"
    write_image(image, random_images(3, 8, 8))
    (tmp_path / "unnamed.rdg").write_bytes(encode(tiny_codec(), random_images(3, 8, 8)))
    stream.write_bytes(b"rdg but no more")
    out = ["-o", str(tmp_path / "o.png")]
    cases = [
        (["encode", str(image), "--lmbda", "0.3", "-o", str(stream)], "is not trained at lmbda 0.3"),
        (["encode", str(stream), "-o", str(stream)], "not a PNG"),
        (["decode", str(stream), *out], "a.rdg: the bitstream must have at least"),
        (["decode", str(image), *out], "in.png: this is not an rdgap bitstream"),
        (["decode", str(tmp_path / "unnamed.rdg"), *out], "at lmbda nan, which is not among"),
        (["decode", str(tmp_path / "gone.rdg"), *out], "gone.rdg"),
        (["decode", str(stream), "-o", str(tmp_path / "o.jpg")], "ending in .png"),
        (["decode", str(stream)], "-o/--out"),
        ([], "encode | decode"),
    ]
    for argv, said in cases:
        assert main(argv) == 2
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1
        assert said in printed
    assert stream.read_bytes() == b"rdg but no more"
