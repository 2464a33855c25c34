"""Maps from one layer of a network and its gradient: the common part, and Grad-CAM."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.inputs import check_volumes
from xai_brain.attribution.memory import in_chunks
from xai_brain.attribution.model_state import AttributionError, CachedCheck, preserved
from xai_brain.attribution.operations import GENERAL_METHODS, is_scripted
from xai_brain.attribution.outputs import ClassScore, select_outputs
from xai_brain.attribution.perturbation.masks import upsampled
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.rules import Rules


class LayerMap(ABC):
    """Combination of the channels of one layer and of their gradient, interpolated to the input grid.

    Values are resized trilinearly, voxel centre to voxel centre of the two fields of view; all channels of
    an input get the same map.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).
    layer : str, optional
        Dotted name of a module. Default: the last ReLU whose output is a volume; if that is a function or
        there is none, the last convolution; found by a forward pass. Of a module that runs several times, the
        last volume counts.
    """

    info: MethodInfo

    def __init__(self, model: nn.Module, layer: str | None = None):
        self.model, self.layer = model, layer
        self._found = CachedCheck(find_layer)

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`."""
        check_volumes(inputs)
        with preserved(self.model):
            layer = self._found.result_for(self.model, inputs, self.layer)

            def explain(volumes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
                features, scores = features_and_scores(self.model, layer, volumes, targets)
                gradient = torch.autograd.grad(scores.sum(), features)[0]
                return upsampled(self.combine(features.detach(), gradient), volumes.shape)

            return in_chunks(self.model, inputs, target, explain)

    @abstractmethod
    def combine(self, features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Map on the grid of the layer, (N, 1, X', Y', Z').

        Parameters
        ----------
        features, gradient : Tensor of shape (N, K, X', Y', Z')
            Output of the layer, and gradient of the explained output with respect to it.
        """


class GradCAM(LayerMap):
    """Channels of one layer, weighted by their mean gradient and interpolated to the input grid.

    The map is signed: negative values are evidence against the class. The paper clips them to 0.

    Parameters
    ----------
    model, layer
        See `LayerMap`.

    Examples
    --------
    >>> import torch
    >>> from xai_brain import Kan2020
    >>> network = Kan2020(input_shape=(30, 28, 26), channels=(2, 3, 4)).eval()
    >>> volumes = torch.rand(1, 1, 30, 28, 26)
    >>> GradCAM(network).attribute(volumes, target=1).shape
    torch.Size([1, 1, 30, 28, 26])

    References
    ----------
    Selvaraju et al., "Grad-CAM", ICCV 2017.
    """

    info = MethodInfo(
        name="GradCAM",
        value_meaning="raw and signed: positive values support the class",
        multiplies_by_inputs=True,
        citation=(
            "Selvaraju RR, Cogswell M, Das A, Vedantam R, Parikh D, Batra D. Grad-CAM: visual "
            "explanations from deep networks via gradient-based localization. ICCV 2017:618–626. "
            "arXiv:1610.02391."
        ),
    )

    def combine(self, features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """See `LayerMap.combine`."""
        weights = gradient.mean((2, 3, 4), keepdim=True)  # (N, K, 1, 1, 1)
        return (weights * features).sum(1, keepdim=True)


def features_and_scores(
    model: nn.Module, layer: nn.Module, volumes: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output of the layer, (N, K, X', Y', Z'), with its graph, and output for the targets, (N,)."""
    outputs: list[torch.Tensor] = []

    def keep(module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
        outputs.append(output)
        return output.clone()  # operations in place that follow leave `output` as it is

    handle = layer.register_forward_hook(keep)
    try:
        scores = select_outputs(model(volumes), targets)
    finally:
        handle.remove()
    features = [output for output in outputs if output.ndim == 5]
    if not features:
        shapes = ", ".join(str(tuple(output.shape)) for output in outputs) or "nothing"
        raise AttributionError(
            f"the layer gives {shapes}: a volume (N, K, X, Y, Z) is needed; choose another layer="
        )
    return features[-1], scores


def find_layer(model: nn.Module, inputs: torch.Tensor, name: str | None = None) -> nn.Module:
    """The layer by name, or the default layer (see `LayerMap`).

    Raises
    ------
    AttributionError
        There is no such module, or no layer whose output is a volume.
    """
    if is_scripted(model):
        raise AttributionError(
            "the layers of a TorchScript archive cannot be read: explain the original network, or use another"
            f" method; methods for any network: {GENERAL_METHODS}"
        )
    inner = model.model if isinstance(model, ClassScore) else model
    modules: dict[str, nn.Module] = dict(inner.named_modules())
    if name is not None:
        if name not in modules:
            ends = [full for full in modules if full.endswith(f".{name}")]
            if len(ends) != 1:
                raise AttributionError(
                    f"the model has no layer {name!r}; its last ones: {', '.join([*modules][-8:])}"
                )
            name = ends[0]
        return modules[name]
    convolutions: list[nn.Module] = []
    relus: list[nn.Module | None] = []  # None: a function

    def is_volume(output: object) -> bool:
        return isinstance(output, torch.Tensor) and output.ndim == 5 and max(output.shape[2:]) > 1

    def note_convolution(module: nn.Module, _: object, output: object) -> None:
        if is_volume(output):
            convolutions.append(module)

    def note_relu(module: nn.Module, _: object, output: object) -> None:
        if is_volume(output):
            relus[-1:] = [module]  # instead of the function that it called

    def note_function(function: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        output: torch.Tensor = function(*args, **kwargs)
        if is_volume(output):
            relus.append(None)
        return output

    handles = [
        module.register_forward_hook(note_relu if isinstance(module, nn.ReLU) else note_convolution)
        for module in modules.values()
        if isinstance(module, nn.ReLU | nn.Conv3d)
    ]
    try:
        with torch.enable_grad(), Rules({"relu": note_function}):
            model(inputs[:1].detach())
    finally:
        for handle in handles:
            handle.remove()
    if relus and relus[-1] is not None:
        return relus[-1]
    if not convolutions:
        raise AttributionError("no convolution of the model gives a volume: there is no layer to work on")
    return convolutions[-1]
