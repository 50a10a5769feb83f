"""Checkpoints: everything that a run needs to go on as if it had never stopped, in one safetensors file.

There is no state of random number generators in it: batches and noise are pure functions of seed and step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .._files import replacing


@dataclass(kw_only=True)
class Progress:
    """Where a run is.

    Attributes:
        step: Steps done.
        seconds: Training time so far, over all its parts.
        sums: Sums of the training measures since the last row of the log.
        count: Steps in those sums.
    """

    step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def add(self, **measures: float) -> None:
        """Count a step with its measures."""
        self.step += 1
        self.count += 1
        for name, value in measures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def start_over(self) -> None:
        """Forget the measures: a row of the log has them."""
        self.sums, self.count = {}, 0

    def mean(self, name: str) -> float:
        """Return the mean of a measure since the last row of the log."""
        return self.sums[name] / self.count


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a checkpoint says of itself.

    Attributes:
        configuration: What makes the run the run that it is.
        progress: Where it was.
        sources: `data.fingerprint` of its images.
    """

    configuration: Mapping[str, Any]
    progress: Progress
    sources: str


def save(
    path: Path, header: Header, model: torch.nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Write a checkpoint in one step; a kill leaves the one before it."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in average.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
    metadata = {
        "configuration": json.dumps(header.configuration),
        "progress": json.dumps(asdict(header.progress)),
        "sources": header.sources,
    }
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)


def read_header(path: Path) -> Header:
    """Read what a checkpoint says of itself, but no weights.

    Raises:
        ValueError: If the file is damaged, or no checkpoint.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return Header(
            configuration=json.loads(metadata["configuration"]),
            progress=Progress(**json.loads(metadata["progress"])),
            sources=metadata.get("sources", ""),
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a readable checkpoint ({error}); remove it to start afresh.") from error


def check_same_run(path: Path, saved: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise `ValueError`, naming what differs, if a checkpoint belongs to another run than the one asked for.

    Only what both know is compared, so that everything but the data can be checked before the images are read.
    """
    saved, asked = _flat(saved), _flat(asked)
    different = sorted(key for key in saved.keys() & asked.keys() if saved[key] != asked[key])
    if different:
        changes = "; ".join(f"`{key}` was {saved[key]!r}, now {asked[key]!r}" for key in different)
        raise ValueError(f"{path} belongs to another run ({changes}). Choose another `--out`, or remove it.")


def _flat(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with the recipe's keys one by one, as `recipe.training.steps`."""
    flat: dict[str, Any] = {}

    def add(prefix: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{prefix}.{key}", inner)
        else:
            flat[prefix] = value

    for key, value in configuration.items():
        add(key, json.loads(value) if key == "recipe" else value)
    return flat


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, for `restore`.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable checkpoint ({error}); remove it to start afresh.") from error


def restore(
    tensors: Mapping[str, Tensor],
    model: torch.nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Restore model, average and optimizer in place, from a checkpoint of the same run."""
    model.load_state_dict(_part(tensors, "model."))
    for name, tensor in _part(tensors, "average.").items():
        average[name].copy_(tensor)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _part(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:  # in the parameter's memory layout, as if it had never left
            tensor = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
