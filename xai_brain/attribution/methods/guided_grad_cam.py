"""Guided backpropagation, gated by Grad-CAM."""

from __future__ import annotations

import torch
from torch import nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.methods.grad_cam import GradCAM
from xai_brain.attribution.methods.guided_backprop import GuidedBackprop
from xai_brain.attribution.protocol import MethodInfo


class GuidedGradCAM:
    """Guided gradient times the Grad-CAM map of the class.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes); see `GuidedBackprop`.
    layer : str, optional
        Of Grad-CAM; see `GradCAM`.
    positive_gate : bool, default True
        Whether Grad-CAM is clipped at 0 before it multiplies, as published: the sign is that of the guided
        gradient, and the map is 0 where Grad-CAM is negative. Otherwise two negative factors
        give a positive value.

    References
    ----------
    Selvaraju et al., "Grad-CAM", ICCV 2017.
    """

    info = MethodInfo(
        name="GuidedGradCAM",
        value_meaning="guided gradient of the output explained, times Grad-CAM",
        multiplies_by_inputs=False,
        per_channel=True,
        citation=(
            "Selvaraju RR, Cogswell M, Das A, Vedantam R, Parikh D, Batra D. Grad-CAM: visual "
            "explanations from deep networks via gradient-based localization. ICCV 2017:618–626. "
            "arXiv:1610.02391."
        ),
        operations=GuidedBackprop.info.operations,
    )

    def __init__(self, model: nn.Module, layer: str | None = None, positive_gate: bool = True):
        self.model = model
        self.grad_cam, self.guided = GradCAM(model, layer), GuidedBackprop(model)
        self.positive_gate = positive_gate

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`."""
        guided = self.guided.attribute(inputs, target)
        gate = self.grad_cam.attribute(inputs, target)
        return guided * (gate.clamp_min(0) if self.positive_gate else gate)
