"""Networks that are stored with their program: TorchScript, torch.export and MONAI bundles."""

from __future__ import annotations

import importlib
import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from xai_brain.models.weights import WeightsError, load_weights

BUNDLE_CONFIGS = ("inference", "train", "evaluate")
BUNDLE_WEIGHTS = ("model.pt", "model.safetensors")


class TorchScript(nn.Module):
    """A network from a TorchScript archive, whose program runs in PyTorch's interpreter.

    Parameters
    ----------
    weights : str
        File that was written by ``torch.jit.save``.
    """

    def __init__(self, weights: str):
        super().__init__()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # for those who write archives
                self.network = torch.jit.load(weights, map_location="cpu")
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise WeightsError(f"{weights}: is no TorchScript archive that can be read ({reason})") from error

    def forward(self, volumes: torch.Tensor) -> Any:
        return self.network(volumes)


class Exported(nn.Module):
    """A network from an archive of ``torch.export.save``.

    Parameters
    ----------
    weights : str
        The number of volumes in a batch must have been exported as dynamic to explain several at once.
    """

    def __init__(self, weights: str):
        super().__init__()
        try:
            self.network = torch.export.load(weights).module()
        except (RuntimeError, ValueError, KeyError, AttributeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise WeightsError(
                f"{weights}: is no torch.export archive that can be read ({reason})"
            ) from error

    def forward(self, volumes: torch.Tensor) -> Any:
        return self.network(volumes)

    def train(self, mode: bool = True) -> Exported:
        """Exported programs have one mode, that in which they were exported."""
        self.training = mode
        return self


class MonaiBundle(nn.Module):
    """The network of a MONAI bundle, without running its configuration.

    Parameters
    ----------
    weights : str
        ``models/model.pt`` in the folder of the bundle. ``network_def`` of its configuration names a class of
        MONAI and its arguments; expressions (``$...``) are not evaluated.
    """

    def __init__(self, weights: str):
        super().__init__()
        path = Path(weights).expanduser()
        self.network = _made(*_definition(path.parent.parent))
        load_weights(self.network, path)

    def forward(self, volumes: torch.Tensor) -> Any:
        return self.network(volumes)


def _definition(folder: Path) -> tuple[dict[str, Any], Mapping[str, Any], Path]:
    """``network_def`` of a bundle, the whole configuration and its file."""
    for file in (f for name in BUNDLE_CONFIGS for f in sorted((folder / "configs").glob(f"{name}.*"))):
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
        if isinstance(content, Mapping) and isinstance(content.get("network_def"), Mapping):
            return dict(content["network_def"]), content, file
    raise WeightsError(f"{folder}: no configs/inference.json with network_def; is this a MONAI bundle?")


def _made(definition: dict[str, Any], content: Mapping[str, Any], file: Path) -> nn.Module:
    target = str(definition.pop("_target_", ""))
    module, _, name = target.rpartition(".")
    if not (module or "monai.networks.nets").startswith("monai."):
        raise WeightsError(f"{file}: network_def names {target}; only networks of MONAI are created")
    kind = getattr(importlib.import_module(module or "monai.networks.nets"), name, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise WeightsError(f"{file}: network_def names {target}, which is no network of MONAI")
    arguments = {
        key: _plain(value, content, file) for key, value in definition.items() if not key.startswith("_")
    }
    return kind(**arguments)


def _plain(value: Any, content: Mapping[str, Any], file: Path) -> Any:
    """A value without references (``@name``); expressions are refused."""
    if isinstance(value, str) and value.startswith("@"):
        names = value[1:].replace("#", "::").split("::")
        found: Any = content
        for name in names:
            found = found[int(name)] if isinstance(found, list) else found[name]
        return _plain(found, content, file)
    if isinstance(value, str) and value.startswith("$"):
        raise WeightsError(
            f"{file}: network_def contains the expression {value}, which is not evaluated; create the "
            "network in Python and use xai_brain.explain"
        )
    if isinstance(value, list):
        return [_plain(each, content, file) for each in value]
    return value


def archive_kind(path: Path) -> str | None:
    """Name of the class of this module that reads a file; None for a file of weights only."""
    if path.parent.name == "models" and (path.parent.parent / "configs").is_dir():
        return "MonaiBundle"
    if not path.is_file() or not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = [name.rpartition("/")[2] for name in archive.namelist()]
    if "constants.pkl" in names:
        return "TorchScript"
    if any(name in ("serialized_exported_program.json", "archive_format", "model.json") for name in names):
        return "Exported"
    return None
