"""Weights files: PyTorch state dicts, checkpoints and safetensors.

Nothing in a file is executed (``weights_only=True``), and every error is one line that names the file.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from xai_brain.io.paths import WEIGHTS, why_no_file

CONTAINERS = ("state_dict", "model_state_dict", "model", "network", "net", "module", "weights")
PREFIXES = ("module.", "model.", "net.", "network.")
WRAPPERS = re.compile(r"_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.")  # at any depth
# Entries of a training checkpoint that are not weights: buffers of losses and metrics, the counter of
# torch.optim.swa_utils.AveragedModel, and what CalibratedNetwork adds to its network.
BESIDE_NETWORK = re.compile(
    r"(loss|criterion|\w*metrics)(\w*)\.|(n_averaged|temperature|mean_volume|inverse_sd)$"
)
N_SHOWN = 3
NUMPY_SCALARS: list[Any] = [  # as in {"state_dict": ..., "best_accuracy": numpy.float64(0.9)}
    np.dtype,
    *((np.float64().__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
]


class WeightsError(ValueError):
    """A file contains no usable weights, or weights of another network."""


def load_weights(
    network: nn.Module,
    path: str | Path,
    rename: Callable[[str], str] = lambda key: key,
    new_layers: Sequence[str] = (),
) -> None:
    """Load the weights of a file into a network; every tensor of the network is replaced.

    The file can hold a state dict, a checkpoint with one (see `read_state_dict`) or safetensors. Prefixes
    that training frameworks add to all keys (``module.``, ``_orig_mod.``, ``model.``, ``net.``,
    ``network.``, also nested) are removed. Checkpoints of this project are also accepted, but
    their temperature and standardisation are not part of the network: `is_calibrated` returns whether a file
    contains them, and `xai_brain.models.calibrated.read_checkpoint` applies them. A 1x1x1 convolution of the
    file is loaded into a linear layer.

    Parameters
    ----------
    network : torch.nn.Module
    path : str or Path
    rename : callable, optional
        Converts the keys of another layout, without prefix, to the keys of `network`.
    new_layers : sequence of str, optional
        Modules of `network` that keep their own weights, such as a new head; those of the file are ignored.

    Raises
    ------
    WeightsError
        The file cannot be read, `new_layers` do not exist, keys or shapes differ from those of the network,
        or a weight is not finite.
    """
    state, expected = read_state_dict(path), network.state_dict()
    own = tuple(f"{name}." for name in new_layers)
    for name, prefix in zip(new_layers, own, strict=True):
        if not any(key.startswith(prefix) for key in expected):
            names = dict.fromkeys(key.partition(".")[0] for key in expected)
            raise WeightsError(f"new_layers: the network has no layer {name!r}; it has {', '.join(names)}")
    needed = {
        key
        for key in expected
        if not key.endswith("num_batches_tracked") and not key.startswith(own)  # absent before PyTorch 0.4.1
    }
    best: dict[str, torch.Tensor] = {}
    for candidate in _without_prefixes({WRAPPERS.sub("", key): value for key, value in state.items()}):
        found = {rename(key): value for key, value in candidate.items()}
        found = {key: _as_linear(value, expected.get(key)) for key, value in found.items()}
        found = {key: value for key, value in found.items() if not key.startswith(own)}
        if needed <= set(found) <= set(expected):
            _check_values(path, network, found, expected)
            network.load_state_dict({**expected, **found})
            return
        if len(set(found) & set(expected)) >= len(set(best) & set(expected)):
            best = found
    name = type(network).__name__
    in_file, in_network = sorted(set(best) - set(expected)), sorted(needed - set(best))
    sides = [
        f"{title} {', '.join(keys[:N_SHOWN])}{f' and {len(keys) - N_SHOWN} more' if keys[N_SHOWN:] else ''}"
        for title, keys in (("only in the file:", in_file), ("only in the network:", in_network))
        if keys
    ]
    raise WeightsError(f"{path}: its weights are not those of the network {name}; {'; '.join(sides)}")


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Named tensors of a weights file, on the CPU.

    Parameters
    ----------
    path : str or Path
        A state dict, a dictionary that contains one as ``state_dict``, ``model_state_dict``, ``model``,
        ``network``, ``net``, ``module`` or ``weights``, or a safetensors file.

    Raises
    ------
    WeightsError
        The file cannot be read or contains no state dict.
    """
    content = read_weights_file(path)
    while isinstance(content, Mapping) and not _is_state_dict(content):
        inner = [content[name] for name in CONTAINERS if isinstance(content.get(name), Mapping)]
        if not inner:
            break
        content = inner[0]
    if not (isinstance(content, Mapping) and _is_state_dict(content)):
        held = ", ".join(map(str, list(content)[:N_SHOWN])) if isinstance(content, Mapping) else ""
        raise WeightsError(
            f"{path}: contains no state dict ({held or type(content).__name__}); save "
            'network.state_dict() or {"state_dict": network.state_dict()}'
        )
    return {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}


def is_calibrated(path: str | Path) -> bool:
    """Whether a file is a checkpoint of this project, which `calibrated.read_checkpoint` reads."""
    return "temperature" in read_state_dict(path)


def read_weights_file(path: str | Path) -> Any:
    """Content of a weights file, on the CPU; nothing in it is executed.

    Raises
    ------
    WeightsError
        The file does not exist, is empty, damaged or of another kind, or contains objects other than tensors,
        numbers, texts and containers of these.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise WeightsError(f"{path}: does not exist")
    if path.is_dir():
        raise WeightsError(f"{path}: {why_no_file(path, WEIGHTS)}")
    with path.open("rb") as file:
        head = file.read(512)
    if other := _other_kind(head):
        raise WeightsError(f"{path}: {other}")
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            text = f"{path}: is a damaged safetensors file ({error}); download it again"
            raise WeightsError(text) from error
    if not head.startswith((b"PK\x03\x04", b"\x80")):
        raise WeightsError(f"{path}: is neither a PyTorch nor a safetensors file; is it damaged?")
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    # PyTorch's own messages advise to load the file unsafely.
    except Exception as error:  # damaged pickles raise errors of any kind
        raise WeightsError(f"{path}: {_why_not_loaded(path, str(error))}") from error


def _why_not_loaded(path: Path, error: str) -> str:
    if _is_torchscript(path):
        return "is a TorchScript archive, which contains code, and is not loaded; save network.state_dict()"
    if held := re.search(r"GLOBAL (\S+)", error):
        return (
            f"contains Python objects ({held[1]}), which could run code, and is not loaded; save only "
            "the state dict (torch.save(network.state_dict(), ...))"
        )
    return "is damaged, incomplete or not a PyTorch checkpoint, and is not loaded; download or save it again"


def _other_kind(head: bytes) -> str:
    """Type of a file that contains no weights, from its first bytes; empty if it may contain weights."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "is empty; download or save it again"
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return "is a web page; the download returned a page instead of the file, download it again"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer; download the weights with `git lfs pull`"
    if head.startswith(b"\x89HDF"):
        return "is an HDF5 file (Keras?); PyTorch or safetensors weights are needed"
    if head.startswith(b"\x1f\x8b"):
        return "is compressed with gzip; decompress it first"
    return ""


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def _is_state_dict(content: Mapping[str, Any]) -> bool:
    """Whether all values are tensors, except for ``_extra_state`` of modules."""
    kept = {key: value for key, value in content.items() if not str(key).endswith("_extra_state")}
    return bool(kept) and all(isinstance(value, torch.Tensor) for value in kept.values())


def _without_prefixes(state: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    """The state dict, and the state dicts without each prefix that all weights of a network have."""
    yield state
    for prefix in PREFIXES:
        inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        beside = [key for key in state if not key.startswith(prefix)]
        if inner and all(BESIDE_NETWORK.match(key) for key in beside):
            yield from _without_prefixes(inner)


def _as_linear(value: torch.Tensor, expected: torch.Tensor | None) -> torch.Tensor:
    """Weights of a convolution with one voxel, if the network has the linear layer that is the same."""
    if expected is not None and value.shape == (*expected.shape, 1, 1, 1):
        return value.view(expected.shape)
    return value


def _check_values(
    path: str | Path,
    network: nn.Module,
    found: dict[str, torch.Tensor],
    expected: dict[str, torch.Tensor],
) -> None:
    for key, value in found.items():
        if value.shape != expected[key].shape:
            raise WeightsError(
                f"{path}: its weights do not fit the network {type(network).__name__}; {key} has shape "
                f"{tuple(value.shape)} in the file, {tuple(expected[key].shape)} in the network; the grid, "
                "the number of classes and the settings of the network must be those of the file"
            )
        if value.is_complex() != expected[key].is_complex() or value.is_quantized:
            raise WeightsError(f"{path}: {key} has the type {value.dtype}, which cannot be used")
        if not value.isfinite().all():
            raise WeightsError(f"{path}: {key} holds NaN or infinite values; the weights cannot be used")
