"""One training over several processes, as `torchrun` starts them: which of the work is whose, and who may speak.

The first process alone keeps the running average, writes files and prints. Randomness belongs to the samples of a
batch, whoever has them, so that the number of processes changes nothing but the order of sums.
"""

from __future__ import annotations

import logging
import os
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

_PATIENCE = timedelta(hours=12)  # the others wait while the first validates; torchrun ends them if it fails


def count() -> int:
    """Return how many processes train together."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def per_machine() -> int:
    """Return how many of them share this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if count() > 1 else 1


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return count() == 1 or os.environ["RANK"] == "0"


def is_first_to_fail() -> bool:
    """Whether no other process has failed: one says why, and torchrun ends all."""
    if count() == 1:
        return True
    from torch.distributed import DistError, TCPStore  # pyright: ignore[reportPrivateImportUsage]

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=10))
        return store.add(f"rdgap failures {os.environ['TORCHELASTIC_RESTART_COUNT']}", 1) == 1
    except DistError:  # torchrun is gone: better twice than never
        return True


def fabric(device: torch.device) -> Fabric:
    """Return the device of this process, connected with the others: by gloo on CPUs, by NCCL on GPUs.

    Raises:
        ValueError: If a machine has fewer GPUs than processes, or `device` is one for all of them.
    """
    if count() == 1:
        is_numbered = device.type == "cuda" and device.index is not None
        return Fabric(accelerator=device.type, devices=[device.index] if is_numbered else 1)
    if device.type not in ("cpu", "cuda") or device.index is not None:
        raise ValueError(f"`--device` must be auto, cpu or cuda under torchrun, got {device}.")
    if device.type == "cuda" and per_machine() > torch.cuda.device_count():
        raise ValueError(
            f"torchrun must start at most one process per GPU, got {per_machine()} for {torch.cuda.device_count()}."
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # no banner
    connected = Fabric(
        accelerator=device.type,
        devices=per_machine(),
        num_nodes=count() // per_machine(),
        strategy=DDPStrategy(timeout=_PATIENCE, broadcast_buffers=False),
    )
    connected.launch()
    return connected


def part_of(batch_size: int, connected: Fabric) -> range:
    """Return which samples of each batch are this process's.

    Raises:
        ValueError: If there are more processes than samples.
    """
    if batch_size < connected.world_size:
        raise ValueError(
            f"every process must have a sample of each batch of {batch_size}, got {connected.world_size} processes."
        )
    rank, number = connected.global_rank, connected.world_size
    return range(rank * batch_size // number, (rank + 1) * batch_size // number)
