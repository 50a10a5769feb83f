"""Weights on disk and the shipped models: `load_codec("two-layer-lite", lmbda=0.01)`; users' own: `named_codec`."""

from __future__ import annotations

import inspect
import json
import math
import re
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils import convert_conv2d_weight_memory_format

from . import _kernels
from ._files import replacing
from .model import Codec
from .ntc.codec import NTCCodec
from .recipes import Recipe, build_codec, read_recipe

DEFAULT_MODEL = "two-layer-lite"
DEFAULT_LMBDA = 0.01
NAMES = "shipped models, .safetensors files, or codecs of yours as package.module:callable"
"""What `named_codec` takes, for the help of options."""

Kernels = Literal["float32", "float16"] | dict[str, _kernels.Steps]
"""How a file holds the kernels of convolutions, see `write_codec`."""


def model_directory() -> Path:
    """Return the folder of recipes and weights: inside an installed wheel, else beside the package in a checkout.

    Raises:
        FileNotFoundError: If neither is there.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "_models", package.parent / "models"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError("there is no folder of models beside the `rdgap` package; pass a path to weights instead.")


def weights_name(name: str, lmbda: float) -> str:
    """Return the stem of the files that belong to one trained model."""
    return f"{name}-{lmbda:g}"


def trained_lmbdas(name: str) -> list[float]:
    """Return the lmbdas at which weights of the shipped model `name` are there, rising."""
    stems = (path.stem.removeprefix(f"{name}-") for path in model_directory().glob(f"{name}-*.safetensors"))
    return sorted(float(stem) for stem in stems if re.fullmatch(r"\d+(\.\d+)?(e-\d+)?", stem))


def trained_models() -> list[str]:
    """Return the names of the shipped models that have weights."""
    return sorted(path.stem for path in model_directory().glob("*.toml") if trained_lmbdas(path.stem))


def is_own(name: str) -> bool:
    """Return whether a name is that of a codec of the user's, `package.module:callable`."""
    return ":" in name and not name.endswith(".safetensors")


def named_codec(name: str, lmbda: float | None = None, *, device: torch.device | str = "cpu") -> Codec:
    """Return the codec that a user calls by `name`, in eval mode: the one place where commands get theirs.

    Args:
        name: What `load_codec` takes, or `package.module:callable` for a codec of the user's: a function that returns a
            codec of the protocol or a CompressAI model, told `lmbda` and `device` where it has such parameters, or the
            codec or model itself.
        lmbda: Which of its weights; may be left out where `load_codec` or the function does without.
        device: Where the codec goes, if it is a module.

    Raises:
        ValueError: As `load_codec`, or if there is no such function, it fails, or what it returns is no codec.
        FileNotFoundError: As `load_codec`.
    """
    if not is_own(name):
        return load_codec(name, lmbda, device=device)
    from .adapters import adapted

    found = imported("--model", name)
    if isinstance(found, type) or not (isinstance(found, Codec) or hasattr(found, "g_a")):
        found = _made(name, found, lmbda, torch.device(device))
    try:
        return frozen(adapted(found), device)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def trained_codec(name: str, lmbda: float | None = None, *, device: torch.device | str = "cpu") -> NTCCodec:
    """Return what `named_codec` does, for what only this package's own architectures can do; errors as `named_codec`.

    Raises:
        ValueError: Also if the codec is of another make.
    """
    return checked_ntc(named_codec(name, lmbda, device=device), name)


def checked_ntc(codec: Codec, name: str) -> NTCCodec:
    """Return a codec that the user calls `name` if it is one of `rdgap.ntc`; raise `ValueError` if not."""
    if not isinstance(codec, NTCCodec):
        raise ValueError(
            f"bitstreams and transforms are those of `rdgap.ntc.NTCCodec`, got {type(codec).__name__} from {name}."
        )
    return codec


def imported(option: str, name: str) -> Any:
    """Return what `package.module:name` names, something that can be called or a codec.

    Raises:
        ValueError: If there is no such thing; the message names `option`.
    """
    module_name, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"`{option}` must be package.module:function, got {name}: {error}.") from error
    if not (callable(found) or isinstance(found, Codec)):
        raise ValueError(f"`{option}` must name a function, got {type(found).__name__} from {name}.")
    return found


def frozen(function: Any, device: torch.device | str) -> Any:
    """Bring a module to the device, in eval mode; leave anything else as it is."""
    return function.to(device).eval().requires_grad_(False) if isinstance(function, torch.nn.Module) else function


def _made(name: str, make: Any, lmbda: float | None, device: torch.device) -> Any:
    """Call a user's function with those of `lmbda` and `device` that it takes."""
    try:
        parameters = inspect.signature(make).parameters
    except ValueError:  # written in C
        parameters = {}
    told: dict[str, Any] = {"device": device} if "device" in parameters else {}
    if "lmbda" in parameters:
        if lmbda is not None:
            told["lmbda"] = lmbda
        elif parameters["lmbda"].default is inspect.Parameter.empty:
            raise ValueError(f"`lmbda` must be given for {name}, which takes one, got none.")
    try:
        return make(**told)
    except Exception as error:
        raise ValueError(f"{name} must return a codec, got {type(error).__name__}: {error}.") from error


def load_codec(name: str, lmbda: float | None = None, *, device: torch.device | str = "cpu") -> NTCCodec:
    """Load a trained codec in eval mode, its parameters frozen.

    Args:
        name: A shipped model, or a path to a .safetensors file that `rdgap.training` wrote.
        lmbda: Which of a shipped model's weights; may be left out for a path.
        device: Where the codec goes.

    Raises:
        ValueError: If there is no such model, it is not trained at `lmbda`, or the file is not a codec's.
        FileNotFoundError: If the path does not exist.
    """
    if name.endswith(".safetensors"):
        codec = read_codec(Path(name))
        if lmbda is not None and not math.isclose(lmbda, codec.lmbda):
            raise ValueError(f"{name} was trained at lmbda {codec.lmbda:g}, got {lmbda:g}.")
        return codec.to(device)
    lmbdas = trained_lmbdas(name) if Path(name).name == name else []
    if not lmbdas:
        raise ValueError(
            f"there is no trained model {name!r}; there are {', '.join(trained_models()) or 'none'}, "
            "or give the path of a .safetensors file."
        )
    if lmbda is None:
        raise ValueError(f"`lmbda` must be one of {_listed(lmbdas)} for {name}, got none.")
    if lmbda not in lmbdas:
        raise ValueError(f"{name} is not trained at lmbda {lmbda:g}; it is at {_listed(lmbdas)}.")
    return read_codec(model_directory() / f"{weights_name(name, lmbda)}.safetensors").to(device)


def read_codec(path: Path) -> NTCCodec:
    """Read one codec, recipe and weights, from a .safetensors file; errors as `load_codec`."""
    if not path.is_file():
        raise FileNotFoundError(f"there are no weights {path}.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, (*exponents, shape) in json.loads(metadata.get("packed", "{}")).items():
            tensors[name] = _kernels.unpack(tensors[name], _kernels.Steps.stored(exponents, shape), shape)
        recipe = Recipe.model_validate_json(metadata["recipe"])
        with torch.random.fork_rng(devices=[]):
            codec = build_codec(recipe)
        codec.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        codec.lmbda = float(metadata["lmbda"])
    except KeyError as error:
        raise ValueError(f"{path} does not hold the weights of a codec: its metadata have no {error}.") from error
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} does not hold the weights of a codec of this version: {error}.") from error
    # Convolutions are up to twice as fast on kernels laid out so.
    return convert_conv2d_weight_memory_format(codec, torch.channels_last).eval().requires_grad_(False)


def write_codec(
    path: Path, recipe: Recipe, weights: dict[str, Tensor], metadata: dict[str, str], *, kernels: Kernels
) -> None:
    """Write weights with their recipe.

    Args:
        path: A .safetensors file.
        recipe: What the weights belong to.
        weights: State of the codec.
        metadata: At least `lmbda`; step, seed, data and commit say where the weights come from.
        kernels: How those of convolutions are stored: float16 is half of float32; rounded to steps and compressed they
            take a tenth to a sixth. Everything else is float32.
    """
    stored = {name: weight.contiguous().cpu() for name, weight in weights.items()}
    packed = {}
    if kernels == "float16":
        stored |= {name: weight.half() for name, weight in stored.items() if weight.ndim == 4}
    elif kernels != "float32":
        packed = {name: (*steps, stored[name].shape) for name, steps in kernels.items()}
        stored |= {name: _kernels.pack(stored[name], steps) for name, steps in kernels.items()}
    said = {"packed": json.dumps(packed, separators=(",", ":"))} if packed else {}
    with replacing(path) as temporary:
        save_file(stored, temporary, {"recipe": recipe.model_dump_json(), **said, **metadata})


def shipped_recipe(name: str) -> Recipe:
    """Read the recipe of a shipped model.

    Raises:
        ValueError: If there is none of that name; the message lists what there is.
    """
    path = model_directory() / f"{name}.toml"
    if Path(name).name != name or not path.is_file():
        names = ", ".join(sorted(found.stem for found in model_directory().glob("*.toml")))
        raise ValueError(f"there is no recipe {name!r}; there are {names}.")
    return read_recipe(path)


def _listed(lmbdas: list[float]) -> str:
    return ", ".join(f"{lmbda:g}" for lmbda in lmbdas)
