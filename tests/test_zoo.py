"""Weights on disk: what is written comes back, and what is not a codec's is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rdgap import _kernels, zoo
from rdgap.model import Codec
from rdgap.ntc import NTCCodec
from rdgap.zoo import Kernels, load_codec, read_codec, trained_lmbdas, trained_models, weights_name, write_codec
from tests._recipes import TINY, random_images, tiny_codec, tiny_recipe


def write(path: Path, *, lmbda: str = "0.01", kernels: Kernels = "float32", seed: int = 0) -> NTCCodec:
    codec = tiny_codec(seed)
    write_codec(path, tiny_recipe(), codec.state_dict(), {"lmbda": lmbda, "step": "100"}, kernels=kernels)
    return codec


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped models in which "tiny" and "tiny-lite" are trained, and "tiny-raw" is not."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("tiny", "tiny-lite", "tiny-raw"):
        (folder / f"{name}.toml").write_text(TINY.replace('"tiny"', f'"{name}"'), encoding="utf-8")
    for seed, lmbda in enumerate(("0.00125", "0.01")):
        write(folder / f"tiny-{lmbda}.safetensors", lmbda=lmbda, seed=seed)
    write(folder / "tiny-lite-0.02.safetensors", lmbda="0.02")
    (folder / "tiny-0.01.md").touch()
    monkeypatch.setattr(zoo, "model_directory", lambda: folder)
    return folder


# ---------------------------------------------------------------- writing and reading


def test_a_codec_comes_back_from_its_file_exactly(tmp_path: Path) -> None:
    written = write(tmp_path / "a.safetensors")
    read = read_codec(tmp_path / "a.safetensors")
    assert isinstance(read, Codec)
    assert (read.name, read.lmbda, read.quantization) == ("tiny", 0.01, "noise")
    assert not read.training
    assert not any(parameter.requires_grad for parameter in read.parameters())
    for name, weights in written.state_dict().items():
        assert torch.equal(read.state_dict()[name], weights), name
    images = random_images(1, 3, 40, 70)
    latents = written.infer(images)
    torch.testing.assert_close(read.infer(images), latents)  # another memory layout adds in another order
    torch.testing.assert_close(read.log_prior(latents), written.log_prior(latents))
    torch.testing.assert_close(read.decode(latents), written.decode(latents))


def test_half_precision_is_for_kernels_only(tmp_path: Path) -> None:
    written = write(tmp_path / "a.safetensors", kernels="float16")
    write(tmp_path / "full.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_size < 0.7 * (tmp_path / "full.safetensors").stat().st_size
    read = read_codec(tmp_path / "a.safetensors").state_dict()
    rounded = 0
    for name, weight in written.state_dict().items():
        assert read[name].dtype == torch.float32
        if weight.ndim == 4:
            torch.testing.assert_close(read[name], weight, rtol=2**-11, atol=2**-25)
            rounded += int(not torch.equal(read[name], weight))
        else:
            assert torch.equal(read[name], weight)
    assert rounded > 0


def steps_of(codec: NTCCodec, exponent: int) -> dict[str, _kernels.Steps]:
    """Rows in steps that rise by a power of two each, columns in steps that fall."""
    return {
        name: _kernels.Steps(
            [4 * (exponent + row) for row in range(len(kernel))], [-4 * n for n in range(len(kernel[0]))]
        )
        for name, kernel in codec.state_dict().items()
        if kernel.ndim == 4
    }


def test_packed_kernels_are_rounded_to_their_steps_and_everything_else_is_exact(tmp_path: Path) -> None:
    steps = steps_of(tiny_codec(0), -9)
    written = write(tmp_path / "a.safetensors", kernels=steps)
    read = read_codec(tmp_path / "a.safetensors").state_dict()
    for name, weight in written.state_dict().items():
        if weight.ndim != 4:
            assert torch.equal(read[name], weight)
            continue
        rows, columns = (torch.arange(count) for count in weight.shape[:2])
        error = (read[name] - weight).abs().amax((2, 3))
        assert (error <= 0.5 * 2.0 ** (-9 + rows[:, None] - columns) + 1e-7).all(), name
        assert error.max() > 0


def test_packing_is_exact_on_its_steps_whatever_their_size() -> None:
    integers = torch.tensor([0, 1, -1, 127, -128, 256, -70_000, 2**30]).reshape(2, 2, 1, 2).double()
    for exponent in (-20, 0, 7):
        steps = _kernels.Steps([4 * exponent, 4 * exponent + 5], [1, -7])
        kernel = integers * 2.0 ** (exponent + torch.tensor([[0, -2], [2, 0]])[..., None, None])  # 6, -2 quarters round
        back = _kernels.unpack(_kernels.pack(kernel, steps), steps, kernel.shape)
        assert torch.equal(back, kernel.float())
    # files of before, when a kernel had one step for all
    assert _kernels.Steps.stored([-3], (2, 3, 5, 5)).sizes().tolist() == [[0.125] * 3] * 2
    assert _kernels.Steps.stored([[4, 8], [0]], (2, 1, 5, 5)).sizes().tolist() == [[2.0], [4.0]]


def test_steps_are_inverse_to_the_root_of_the_sensitivity() -> None:
    rows, columns = torch.tensor([1.0, 16.0, 2.0**-20]), torch.tensor([4.0, 1.0, 64.0, 2.0**-10])
    sizes = torch.from_numpy(_kernels.steps_for(torch.outer(rows, columns), -5.0).sizes())
    wanted = 2**-5.0 / torch.outer(rows, columns).sqrt()
    least = float(torch.outer(rows, columns).mean()) * 1e-4  # what needs less than that is treated as if it did not
    seen = torch.outer(rows, columns) > least
    assert seen[:2, :3].all()
    assert not seen[2].any()
    ratio = (sizes / wanted)[:2, :3]
    assert ratio.max() / ratio.min() <= 2.0  # powers of two
    assert (sizes > 0).all()
    assert _kernels.steps_for(torch.zeros(1, 1), -5.0).sizes()[0, 0] > 1e6  # what nothing depends on


@pytest.mark.parametrize("damaged", [b"", b"nothing", b"\xfd7zXZ\x00"])
def test_damaged_kernels_are_said_to_be_so(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "a.safetensors"
    write(path, kernels=steps_of(tiny_codec(), -9))
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["analysis.0.weight"] = torch.tensor(list(damaged), dtype=torch.uint8)
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match="does not hold the weights of a codec of this version"):
        read_codec(path)


def test_reading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors")
    before = torch.get_rng_state()
    read_codec(tmp_path / "a.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_given_to_the_writer_are_left_as_they_are(tmp_path: Path) -> None:
    codec = tiny_codec()
    weights = codec.state_dict()
    write_codec(tmp_path / "a.safetensors", tiny_recipe(), weights, {"lmbda": "0.01"}, kernels="float16")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("lmbda", "stem"), [(0.01, "two-layer-0.01"), (0.00125, "two-layer-0.00125"), (1.0, "two-layer-1")]
)
def test_weights_are_named_by_model_and_lmbda(lmbda: float, stem: str) -> None:
    assert weights_name("two-layer", lmbda) == stem


@pytest.mark.parametrize("lmbda", [0.00001, 0.00125, 0.08, 3.0])
def test_every_lmbda_is_found_again_by_its_name(models: Path, lmbda: float) -> None:
    (models / f"{weights_name('tiny-raw', lmbda)}.safetensors").touch()
    assert trained_lmbdas("tiny-raw") == [lmbda]


def test_trained_lmbdas_are_those_of_this_model_alone(models: Path) -> None:
    assert trained_lmbdas("tiny") == [0.00125, 0.01]
    assert trained_lmbdas("tiny-lite") == [0.02]
    assert trained_lmbdas("tiny-raw") == []
    assert trained_lmbdas("tin?") == []


def test_trained_models_are_those_with_weights(models: Path) -> None:
    assert trained_models() == ["tiny", "tiny-lite"]


# ---------------------------------------------------------------- loading


def test_a_shipped_model_is_loaded_by_name_and_lmbda(models: Path) -> None:
    codec = load_codec("tiny", 0.00125)
    assert codec.lmbda == 0.00125
    expected, other = tiny_codec(seed=0).state_dict(), tiny_codec(seed=1).state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in codec.state_dict().items())
    assert all(torch.equal(weight, other[name]) for name, weight in load_codec("tiny", 0.01).state_dict().items())


def test_a_path_is_loaded_with_or_without_its_lmbda(models: Path) -> None:
    path = str(models / "tiny-0.01.safetensors")
    assert load_codec(path).lmbda == load_codec(path, 0.01).lmbda == 0.01


def test_a_path_that_contradicts_lmbda_is_refused(models: Path) -> None:
    with pytest.raises(ValueError, match=r"tiny-0.01.safetensors was trained at lmbda 0.01, got 0.02"):
        load_codec(str(models / "tiny-0.01.safetensors"), 0.02)


@pytest.mark.parametrize("name", ["huge", "tiny-raw", "models/tiny", "", "tin?"])
def test_an_unknown_model_lists_what_there_is(models: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"there is no trained model '.*'; there are tiny, tiny-lite, or give"):
        load_codec(name, 0.01)


def test_without_weights_there_is_no_model(models: Path) -> None:
    for path in models.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(ValueError, match=r"no trained model 'tiny'; there are none, or give"):
        load_codec("tiny", 0.01)


def test_an_untrained_lmbda_lists_those_that_are(models: Path) -> None:
    with pytest.raises(ValueError, match=r"tiny is not trained at lmbda 0.02; it is at 0.00125, 0.01\.$"):
        load_codec("tiny", 0.02)


def test_a_shipped_model_needs_its_lmbda(models: Path) -> None:
    with pytest.raises(ValueError, match=r"`lmbda` must be one of 0.00125, 0.01 for tiny, got none"):
        load_codec("tiny")


# ---------------------------------------------------------------- files that are no codec's


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there are no weights .*nowhere.safetensors"):
        load_codec(str(tmp_path / "nowhere.safetensors"))


@pytest.mark.parametrize("kept", [0, 4, 300, -10])
def test_a_damaged_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.safetensors"
    write(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"a.safetensors does not hold the weights of a codec"):
        read_codec(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "its metadata have no 'recipe'"),
        ({"recipe": tiny_recipe().model_dump_json(), "lmbda": "0.01"}, "Missing key"),
        ({"recipe": "{}", "lmbda": "0.01"}, "latent_channels"),
        ({"recipe": "no json", "lmbda": "0.01"}, "JSON"),
    ],
)
def test_other_safetensors_are_refused(tmp_path: Path, metadata: dict[str, str] | None, message: str) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.ones(3)}, path, metadata)
    with pytest.raises(ValueError, match=rf"(?s)other.safetensors does not hold the weights of a codec.*{message}"):
        read_codec(path)


@pytest.mark.parametrize("metadata", [{}, {"lmbda": "a lot"}])
def test_weights_without_their_lmbda_are_refused(tmp_path: Path, metadata: dict[str, str]) -> None:
    path = tmp_path / "a.safetensors"
    write_codec(path, tiny_recipe(), tiny_codec().state_dict(), metadata, kernels="float32")
    with pytest.raises(ValueError, match=r"does not hold the weights of a codec.*('lmbda'|a lot)"):
        read_codec(path)


# ---------------------------------------------------------------- the folder of models


def test_models_lie_in_the_wheel_or_else_beside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "rdgap"
    package.mkdir(parents=True)
    monkeypatch.setattr(zoo, "__file__", str(package / "zoo.py"))
    with pytest.raises(FileNotFoundError, match="there is no folder of models"):
        zoo.model_directory()
    (tmp_path / "site" / "models").mkdir()
    assert zoo.model_directory() == tmp_path / "site" / "models"
    (package / "_models").mkdir()
    assert zoo.model_directory() == package / "_models"


def test_the_default_model_has_a_recipe() -> None:
    assert zoo.shipped_recipe(zoo.DEFAULT_MODEL).name == zoo.DEFAULT_MODEL
