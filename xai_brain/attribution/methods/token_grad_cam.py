"""Grad-CAM on the tokens of a transformer."""

from __future__ import annotations

import torch
from torch import nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.inputs import check_volumes
from xai_brain.attribution.memory import in_chunks
from xai_brain.attribution.model_state import CachedCheck, preserved
from xai_brain.attribution.outputs import select_outputs
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.transformers.token_layer import find_layer, keep_outputs


class TokenGradCAM:
    """Features of tokens at one layer, weighted by their mean gradient over the patches.

    The map is signed: negative values are evidence against the class. Values of tokens are at the centres of
    their patches, with trilinear interpolation between these. Tokens without a patch, such as a class token,
    are left out.

    After attention, the features of a token contain those of other tokens. The map shows at which tokens the
    evidence is at this layer, which need not be the patches from which it comes.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes). Vision transformers and networks with windows of attention (Swin).
    layer : str, optional
        Dotted name of a module whose output is tokens, (N, L, E), or a grid of tokens, (N, GX, GY, GZ, E).
        Default: the last layer normalisation of several patches on which the output depends. With a class
        token this is the one before the last attention.

    References
    ----------
    Selvaraju et al., "Grad-CAM", ICCV 2017; on tokens: Gildenblat et al., pytorch-grad-cam, 2021.
    """

    info = MethodInfo(
        name="TokenGradCAM",
        value_meaning="raw and signed: positive values support the class",
        multiplies_by_inputs=True,
        citation=(
            "Selvaraju RR, Cogswell M, Das A, Vedantam R, Parikh D, Batra D. Grad-CAM: visual "
            "explanations from deep networks via gradient-based localization. ICCV 2017:618–626. "
            "arXiv:1610.02391."
        ),
    )

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
                with keep_outputs(layer.module) as kept:
                    scores = select_outputs(self.model(volumes), targets)
                (gradient,) = torch.autograd.grad(scores.sum(), kept[layer.number])
                weights = layer.on_grid(gradient).mean((1, 2, 3), keepdim=True)  # (N, 1, 1, 1, E)
                patches = (weights * layer.on_grid(kept[layer.number])).sum(-1)  # (N, GX', GY', GZ')
                return layer.grid.interpolated(patches, layer.merged)

            return in_chunks(self.model, inputs, target, explain)
