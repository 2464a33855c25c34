"""Batch sizes that fit into memory, and smaller batches after an out-of-memory error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointError

from xai_brain.attribution.inputs import as_targets
from xai_brain.attribution.model_state import AttributionError, preserved
from xai_brain.attribution.reduced_precision import reliable_precision
from xai_brain.parallel.memory import return_freed_memory

MAX_VOLUMES = {"cpu": 8, "cuda": 256}  # more in one pass are no faster
MEMORY_SHARE = 0.5  # of what is free
MAX_BYTES = {"cpu": 1280 * 1024**2}  # of one pass, also where more is free
GROWTH = 1792 * 1024**2  # bytes by which freed memory may grow on a CPU: one pass, and what is cut up
# of networks that were asked before; were one of them changed since, `Chunks` would still halve in time
_BYTES: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], int]] = WeakKeyDictionary()

Result = TypeVar("Result")


class Chunks:
    """Process many volumes in chunks, whose size is halved after an out-of-memory error.

    Parameters
    ----------
    size : int
        Volumes at once.
    """

    def __init__(self, size: int):
        self.size = size

    def retry_on_out_of_memory(self, work: Callable[[int], Result]) -> Result:
        """Result of ``work(size)``, repeated with half the size after out-of-memory errors."""
        while True:
            try:
                result = work(self.size)
                return_freed_memory(GROWTH)
                return result
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if self.size == 1 or not _is_out_of_memory(error):
                    raise
            # after the handler, whose traceback would keep the tensors of the failed attempt
            self.size //= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def run(self, n: int, work: Callable[[slice], None]) -> None:
        """Call ``work(rows)`` until all `n` rows are done; what is done stays done."""
        start = 0

        def next_rows(size: int) -> int:
            rows = slice(start, min(start + size, n))
            work(rows)
            return rows.stop

        while start < n:
            start = self.retry_on_out_of_memory(next_rows)


def in_chunks(
    model: nn.Module,
    inputs: torch.Tensor,
    target: int | torch.Tensor | None,
    explain: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    chunk_size: int | None = None,
) -> torch.Tensor:
    """Maps of a batch, with as many volumes at a time as memory allows; the model is not changed.

    Parameters
    ----------
    model : torch.nn.Module
    inputs : Tensor of shape (N, C, X, Y, Z)
    target : int or Tensor of shape (N,)
    explain : function of (inputs, targets) that gives maps
        Its inputs ask for gradients.
    chunk_size : int, optional

    Returns
    -------
    Tensor of shape (N, C, X, Y, Z)
    """
    targets = as_targets(target, inputs)
    inputs = inputs.detach()
    maps = torch.empty_like(inputs)
    with preserved(model):
        chunks = Chunks(chunk_size or volumes_that_fit(model, inputs[:1]))

        def work(rows: slice) -> None:
            maps[rows] = explain(inputs[rows].clone().requires_grad_(), targets[rows]).detach()

        with reliable_precision(model, model, inputs[:1], chunks.size):
            try:
                chunks.run(len(inputs), work)
            except CheckpointError as error:
                raise AttributionError(
                    "the network computes activations again in the backward pass (gradient checkpointing), "
                    "where the rules of this method do not apply: switch it off, as with use_checkpoint=False"
                ) from error
    return maps


def volumes_that_fit(network: nn.Module, volume: torch.Tensor) -> int:
    """Number of volumes that fit into a forward and backward pass, from the memory of one.

    Parameters
    ----------
    network : torch.nn.Module
    volume : Tensor of shape (1, 1, X, Y, Z)
    """
    known = _BYTES.setdefault(network, {})
    size = (volume.shape, volume.dtype, volume.device)
    if size not in known:
        known[size] = _bytes_of(network, volume)
    device = volume.device.type
    usable = MEMORY_SHARE * _free_memory(volume.device)
    usable = min(usable, MAX_BYTES.get(device, usable))
    return max(1, min(int(usable / max(known[size], 1)), MAX_VOLUMES.get(device, 8)))


def reset_peak_memory(device: torch.device) -> None:
    """Begin to measure the peak memory of a CUDA device."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, object]:
    """For sidecars: name of a CUDA device and its peak memory since the reset; nothing for other devices."""
    if device.type != "cuda":
        return {}
    return {
        "Device": torch.cuda.get_device_name(device),
        "PeakMemoryBytes": torch.cuda.max_memory_allocated(device),
    }


def _bytes_of(network: nn.Module, volume: torch.Tensor) -> int:
    """What one volume needs, its gradients too."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # an output that is kept with its graph would keep itself, for ever

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(volume.detach().requires_grad_())
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    return 2 * sum(size for place, size in kept.items() if place not in weights)


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def _free_memory(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux
        return 4 * 1024**3
