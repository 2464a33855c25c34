"""Grad-CAM on volumes, on Captum's LayerGradCam."""

from __future__ import annotations

import torch
from captum.attr import LayerGradCam
from torch import nn

from xai_brain.attribution.inputs import check_volumes
from xai_brain.attribution.masks import upsampled
from xai_brain.attribution.memory import in_chunks
from xai_brain.attribution.model_state import AttributionError, Tried, preserved
from xai_brain.attribution.outputs import ClassScore


class GradCAM:
    """Channels of one layer weighted by their mean gradient, brought to the input grid.

    The map is signed: negative values speak against the class. (The paper clips them; so can you.)
    Values are resized trilinearly, voxel centre to voxel centre of the two fields of view.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).
    layer : str, optional
        Dotted name of a module. Default: the last ReLU whose output is a volume, else the last
        convolution; found by a forward pass.

    References
    ----------
    Selvaraju et al., "Grad-CAM", ICCV 2017.
    """

    value_meaning = "raw and signed: positive values speak for the class"

    def __init__(self, model: nn.Module, layer: str | None = None):
        self.model, self.layer = model, layer
        self._found = Tried(find_layer)

    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """Explain a batch.

        Parameters
        ----------
        inputs : Tensor of shape (N, 1, X, Y, Z)
        target : int or Tensor of shape (N,)
            Class index.

        Returns
        -------
        Tensor of shape (N, 1, X, Y, Z)
            Raw and signed.
        """
        check_volumes(inputs)
        with preserved(self.model):
            grad_cam = LayerGradCam(self.model, self._found.on(self.model, inputs, self.layer))

            def explain(some: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
                coarse = grad_cam.attribute(some, targets)
                if coarse.ndim != 5:
                    raise AttributionError(
                        f"layer {self.layer!r} gives shape {tuple(coarse.shape)}: "
                        "Grad-CAM needs one whose output is a volume"
                    )
                return upsampled(coarse, some.shape)

            return in_chunks(self.model, inputs, target, explain)


def find_layer(model: nn.Module, inputs: torch.Tensor, name: str | None = None) -> nn.Module:
    """The layer by name, or the one that Grad-CAM is meant for.

    Raises
    ------
    AttributionError
        There is no such module, or no layer whose output is a volume.
    """
    inner = model.model if isinstance(model, ClassScore) else model
    modules = dict(inner.named_modules())
    if name is not None:
        if name not in modules:
            ends = [full for full in modules if full.endswith(f".{name}")]
            if len(ends) != 1:
                raise AttributionError(
                    f"the model has no layer {name!r}; its last ones: {', '.join([*modules][-8:])}"
                )
            name = ends[0]
        return modules[name]
    volumes: list[nn.Module] = []

    def note(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == inputs.ndim and max(output.shape[2:]) > 1:
            volumes.append(module)

    candidates = [m for m in modules.values() if isinstance(m, nn.ReLU | nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    handles = [module.register_forward_hook(note) for module in candidates]
    try:
        with torch.no_grad():
            model(inputs[:1])
    finally:
        for handle in handles:
            handle.remove()
    relus = [module for module in volumes if isinstance(module, nn.ReLU)]
    if not volumes:
        raise AttributionError("no convolution of the model gives a volume: Grad-CAM has no layer to work on")
    return (relus or volumes)[-1]
