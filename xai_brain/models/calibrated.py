"""The model that is saved and explained: standardised inputs, network, scaled outputs."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any, cast, get_type_hints

import torch
from torch import fx, nn

from xai_brain.config.setting import ConfigError
from xai_brain.config.trust import KNOWN_PACKAGES
from xai_brain.models.weights import load_weights, read_weights_file
from xai_brain.task.build import build_task
from xai_brain.task.selected_output import OutputError, select_tensor


class CalibratedNetwork(nn.Module):
    """A network between the standardisation of its inputs and the scaling of its outputs.

    Parameters
    ----------
    network : dict
        ``_target_`` and keyword arguments of the network, which returns (N, n_outputs), e.g. logits.
    output_names : list of str
        Names of the outputs, e.g. of the classes in the order of their index.
    input_shape : list of 3 int
    standardize : {"mean", "zscore"}, optional
        Subtract `mean_volume`, (1, X, Y, Z), from every input; for zscore also divide by the standard
        deviation at each voxel (multiply by `inverse_sd`).
    task : dict, optional
        ``_target_`` and arguments of the task; default: classification.
    """

    temperature: torch.Tensor
    target_mean: torch.Tensor
    target_sd: torch.Tensor
    mean_volume: torch.Tensor
    inverse_sd: torch.Tensor

    def __init__(
        self,
        network: dict[str, Any],
        output_names: list[str],
        input_shape: list[int],
        standardize: str | None = None,
        task: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.task, self.standardize = build_task(task, output_names), standardize
        self.decoder = self.task.decoder()
        kwargs = {key: value for key, value in network.items() if key != "_target_"}
        self.network = channels_last(
            build_network(network["_target_"], kwargs, input_shape, self.n_network_outputs)
        )
        self.register_buffer("temperature", torch.ones(()))
        if self.task.standardizes_targets:
            self.register_buffer("target_mean", torch.zeros(()))
            self.register_buffer("target_sd", torch.ones(()))
        if standardize is not None:
            self.register_buffer("mean_volume", torch.zeros(1, *input_shape))
        if standardize == "zscore":
            self.register_buffer("inverse_sd", torch.ones(1, *input_shape))

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        return list(self.task.names)

    @property
    def n_network_outputs(self) -> int:
        """Number of values that the network itself returns for a volume."""
        return self.task.n_outputs if self.decoder is None else cast(int, self.decoder.n_inputs)

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        """Outputs (N, n_outputs) of volumes (N, 1, X, Y, Z): calibrated logits, or numbers in their unit."""
        return self.in_units(self.raw_outputs(volumes))

    def raw_outputs(self, volumes: torch.Tensor) -> torch.Tensor:
        """What the network returns for volumes (N, 1, X, Y, Z): (N, n_network_outputs)."""
        if self.standardize is not None:
            volumes = volumes - self.mean_volume
        if self.standardize == "zscore":
            volumes = volumes * self.inverse_sd
        return check_outputs(self.network(volumes), self.n_network_outputs)

    def in_units(self, raw: torch.Tensor) -> torch.Tensor:
        """Outputs (N, n_outputs) for what the network returns."""
        outputs = (raw if self.decoder is None else self.decoder(raw)) / self.temperature
        if self.task.standardizes_targets:
            outputs = outputs * self.target_sd + self.target_mean
        return outputs


class SelectedOutput(nn.Module):
    """A network of whose outputs one tensor counts.

    Parameters
    ----------
    network : torch.nn.Module
    output_key : str or int, optional
        See `select_tensor`.
    one_logit : bool, default False
        Whether the tensor is one logit z of the second of two classes; their logits become -z/2 and z/2.
    """

    def __init__(self, network: nn.Module, output_key: str | int | None = None, one_logit: bool = False):
        super().__init__()
        self.network, self.output_key, self.one_logit = network, output_key, one_logit

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        outputs = select_tensor(self.network(volumes), self.output_key)
        outputs = outputs[:, None] if outputs.ndim == 1 else outputs
        return torch.cat([-outputs, outputs], 1) / 2 if self.one_logit else outputs


def check_outputs(outputs: Any, n_outputs: int) -> torch.Tensor:
    """Refuse outputs of a network that are not one value for each output of the task.

    Raises
    ------
    OutputError
    """
    if isinstance(outputs, torch.Tensor):
        if outputs.ndim == 2 and outputs.shape[1] == n_outputs:
            return outputs
        what = f"a tensor of shape {tuple(outputs.shape)}"
    else:
        what = "None" if outputs is None else f"a {type(outputs).__name__}"
    raise OutputError(
        f"model: the network returns {what}: one tensor of shape (N, {n_outputs}) is needed, one "
        "value for each class or other output of the task; wrap the network in a torch.nn.Module that "
        "returns it, or set its number of outputs"
    )


fx.wrap("check_outputs")  # a value decides: kept as one call in a traced copy of the network


def read_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> CalibratedNetwork:
    """Read the network of a checkpoint of a `BrainClassifier`, in eval mode, without Lightning.

    Nothing in the file is executed.

    Raises
    ------
    WeightsError
        The file cannot be read (see `xai_brain.models.weights.read_weights_file`).
    LookupError, TypeError, ValueError, RuntimeError
        The file is not a checkpoint of a `BrainClassifier`.
    """
    saved = read_weights_file(path)
    names = ("network", "output_names", "input_shape", "standardize", "task")
    found = CalibratedNetwork(**{name: saved["hyper_parameters"][name] for name in names})
    found.load_state_dict(saved["state_dict"])
    return found.to(device).eval()


def build_network(target: str, kwargs: dict[str, Any], input_shape: list[int], n_classes: int) -> nn.Module:
    """Create a network from its dotted name.

    Parameters
    ----------
    target : str
        E.g. ``xai_brain.models.networks.kan2020.Kan2020``. ``input_shape`` and the number of classes (as
        ``n_classes``, ``num_classes`` or ``out_channels``) are passed if the signature contains them.
    kwargs : dict
        ``weights``, a file, is loaded into any network (see `xai_brain.models.weights.load_weights`);
        ``new_layers`` are its layers that the file does not contain, or that are to be trained anew.
        ``output_key`` and ``one_logit`` are those of `SelectedOutput`.
    input_shape : list of 3 int
    n_classes : int

    Raises
    ------
    ValueError
        The target is neither a subclass of ``torch.nn.Module`` nor a function that is annotated to return
        one, or its package is neither known nor imported. The latter protects against untrusted checkpoints.
    ConfigError
        The network cannot be created with these arguments.
    """
    module, _, name = target.rpartition(".")
    package = module.split(".")[0]
    if package not in KNOWN_PACKAGES and package not in sys.modules:
        raise ValueError(
            f"model._target_={target}: its package is not trusted; if it is yours, import it first"
        )
    factory = getattr(importlib.import_module(module), name)
    made = factory if inspect.isclass(factory) else _returns(factory)
    if not (inspect.isclass(made) and issubclass(made, nn.Module)):
        raise ValueError(
            f"model._target_={target}: is not a torch.nn.Module, nor a function annotated `-> nn.Module`"
        )
    accepted = inspect.signature(factory).parameters
    selected = {key: kwargs[key] for key in ("output_key", "one_logit") if kwargs.get(key) is not None}
    kwargs = {key: value for key, value in kwargs.items() if key not in ("output_key", "one_logit")}
    if selected.get("one_logit"):
        if n_classes != 2:
            raise ConfigError(f"model.one_logit=true: is for two classes, there are {n_classes}")
        n_classes = 1
    known: dict[str, Any] = {"input_shape": input_shape}
    known |= dict.fromkeys(("n_classes", "num_classes", "out_channels"), n_classes)
    kwargs = {**{key: value for key, value in known.items() if key in accepted}, **kwargs}
    new_layers = kwargs.pop("new_layers", None) or ()
    by_network = "weights" in accepted and not new_layers
    weights = None if by_network else kwargs.pop("weights", None)
    try:
        network = factory(**kwargs)
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{key}={value}" for key, value in kwargs.items() if key not in known)
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"model: {name} cannot be created with {given or 'these settings'}: {reason}; an "
            "experiment may set values for another network (`--cfg job` shows all settings)"
        ) from error
    if weights is not None:
        load_weights(network, weights, new_layers=new_layers)
    return SelectedOutput(network, **selected) if selected else network


def _returns(function: Any) -> Any:
    """Annotated return type of a function, None if there is none."""
    try:
        return get_type_hints(function).get("return")
    except (NameError, TypeError):
        return None


def channels_last(network: nn.Module) -> nn.Module:
    """Convert the 3-D convolutions of a network to channels last, which halves their time on CPUs."""
    for weight in network.parameters():
        if weight.dim() == 5:
            weight.data = weight.data.to(memory_format=torch.channels_last_3d)
    return network


def missing_package(target: str) -> str | None:
    """Package to install for the network of this dotted name; None if it is installed."""
    package = target.partition(".")[0]
    if importlib.util.find_spec(package) is not None:
        return None
    return package
