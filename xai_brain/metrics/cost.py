"""Computing time and memory of a map."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from pathlib import Path

import numpy as np
import torch

from xai_brain.attribution.inputs import as_targets
from xai_brain.metrics.maps import Method

CLEAR_REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def cost(method: Method, inputs: torch.Tensor, target: int | torch.Tensor) -> dict[str, float]:
    """Time and memory of one call of a method.

    Parameters
    ----------
    method : object with ``attribute(inputs, target)``
        It should be called once before, because the first call includes initialisation.
    inputs : Tensor of shape (N, 1, X, Y, Z)
    target : int or Tensor of shape (N,)

    Returns
    -------
    dict
        ``seconds`` per participant. ``peak_mb``: largest increase of memory during the call, of tensors on a
        CUDA device or of the process on Linux (whose recorded peak is reset); NaN on other systems.
    """
    device = inputs.device
    on_cuda = device.type == "cuda"
    volumes = inputs.detach().clone().requires_grad_()
    if on_cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    before_mb = torch.cuda.memory_allocated(device) / 2**20 if on_cuda else np.nan
    resettable = not on_cuda and _forget_peak()
    before_mb = _peak_mb() if resettable else before_mb
    targets = as_targets(target, inputs)
    start = time.perf_counter()
    method.attribute(volumes, target=targets)
    if on_cuda:
        torch.cuda.synchronize(device)
    seconds = (time.perf_counter() - start) / len(inputs)
    if on_cuda:
        peak_mb = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        peak_mb = _peak_mb() if resettable else np.nan
    return {"seconds": seconds, "peak_mb": peak_mb - before_mb}


def _forget_peak() -> bool:
    """Reset the recorded peak memory of this process; False if the system does not support it."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed memory that is kept for the next tensor
    try:
        CLEAR_REFS.write_text("5")
    except OSError:  # not Linux, or not permitted in a container
        return False
    return True


def _peak_mb() -> float:
    return int(STATUS.read_text().split("VmHWM:")[1].split()[0]) / 1024
