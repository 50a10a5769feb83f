"""Checkpoints: everything that a run needs to go on as if it had never stopped, in one safetensors file.

There is no state of random number generators in it: batches and noise are pure functions of seed and step.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

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


def save(
    path: Path,
    *,
    configuration: str,
    progress: Progress,
    model: torch.nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write a checkpoint in one step; a kill leaves the one before it."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in average.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
    metadata = {"configuration": configuration, "progress": json.dumps(asdict(progress))}
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)


def load(
    path: Path,
    *,
    configuration: str,
    model: torch.nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> Progress:
    """Restore model, average and optimizer in place and return the progress.

    Raises:
        ValueError: If the file is damaged, or another run's: the message names what differs.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable checkpoint: {error}.") from error
    _check_same_run(path, json.loads(metadata["configuration"]), json.loads(configuration))
    model.load_state_dict(_part(tensors, "model."))
    for name, tensor in _part(tensors, "average.").items():
        average[name].copy_(tensor)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _part(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return Progress(**json.loads(metadata["progress"]))


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _check_same_run(path: Path, saved: dict[str, object], asked: dict[str, object]) -> None:
    different = sorted(key for key in saved.keys() | asked.keys() if saved.get(key) != asked.get(key))
    if different:
        changes = "; ".join(f"`{key}` was {saved.get(key)!r}, now {asked.get(key)!r}" for key in different)
        raise ValueError(f"{path} belongs to another run ({changes}). Choose another `--out`, or remove it.")
