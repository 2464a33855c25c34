"""TF32 and bfloat16 are used only where they give the result of float32.

Some versions of cuDNN and oneDNN compute 3-D convolutions in these types incorrectly, for some sizes only
(pytorch issues 163539 and 169688). The results look plausible, so that they are compared with float32 first.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import nn

from xai_brain.attribution.outputs import check_outputs

# largest differences of the output, relative to its largest value, and of the gradient, relative to its norm
TOLERANCES = {"TF32": (0.01, 0.1), "bfloat16": (0.1, 0.4)}
_FOUND: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], str | None]] = WeakKeyDictionary()


@contextmanager
def reliable_precision(
    model: nn.Module, network: nn.Module, volume: torch.Tensor, n_volumes: int, precision: str = "float32"
) -> Iterator[bool]:
    """Inside, a network computes in a reduced precision if that is correct, otherwise in float32.

    On CUDA devices float32 convolutions may use TF32, as PyTorch allows by default.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes). Its result in float32 is what counts.
    network : torch.nn.Module
        The model or a faster copy of it, which is going to be used.
    volume : Tensor of shape (1, C, X, Y, Z)
    n_volumes : int
        Volumes in one pass: the errors depend on the size.
    precision : {"float32", "bfloat16"}, default "float32"

    Yields
    ------
    bool
        Whether the caller should use autocast to bfloat16.

    Warns
    -----
    RuntimeWarning
        The reduced precision is incorrect and float32 is used instead.
    """
    reduced = "bfloat16" if precision == "bfloat16" else "TF32" if uses_tf32(volume.device) else None
    if reduced is None:
        yield False
        return
    known = _FOUND.setdefault(model, {})
    key = (volume.shape, volume.device, n_volumes, reduced)
    if key not in known:
        known[key] = _difference(model, network, volume, n_volumes, reduced)
    if known[key] is None:
        yield reduced == "bfloat16"
        return
    warnings.warn(
        f"{reduced} arithmetic is incorrect on {volume.device} for this network ({known[key]}): float32 is "
        f"used and is slower; another cuDNN may help (installed: {torch.backends.cudnn.version()})",
        RuntimeWarning,
        stacklevel=2,
    )
    with full_float32():
        yield False


def uses_tf32(device: torch.device) -> bool:
    """Whether float32 convolutions or products on a device are rounded to TF32."""
    return device.type == "cuda" and (
        torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    )


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside, float32 is not rounded to TF32."""
    kept = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = kept


def _difference(
    model: nn.Module, network: nn.Module, volume: torch.Tensor, n_volumes: int, reduced: str
) -> str | None:
    """In words, by how much the reduced precision changes outputs or gradients; None if by little."""
    with full_float32():
        output, gradient = output_and_gradient(model, volume)
    volumes = volume.expand(n_volumes, *volume.shape[1:])
    with torch.autocast(volume.device.type, torch.bfloat16, enabled=reduced == "bfloat16"):
        outputs, gradients = output_and_gradient(network, volumes)
    change = float((outputs - output).abs().max() / output.abs().max())
    turn = float((gradients - gradient).flatten(1).norm(dim=1).max() / gradient.norm().clamp_min(1e-30))
    if change <= TOLERANCES[reduced][0] and turn <= TOLERANCES[reduced][1]:
        return None
    return f"the output differs from that of float32 by {change:.1%}, the gradient by {turn:.1%}"


def output_and_gradient(network: nn.Module, volumes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs (N, n_classes) and the gradients of the first class, (N, C, X, Y, Z)."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = volumes.detach().clone().requires_grad_()
        output = check_outputs(network(leaf)).float()
        (gradient,) = torch.autograd.grad(output[:, 0].sum(), leaf)
    return output.detach(), gradient
