"""Layer-wise relevance propagation through attention (AttnLRP)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.inputs import check_volumes
from xai_brain.attribution.memory import volumes_that_fit
from xai_brain.attribution.model_state import CachedCheck, preserved
from xai_brain.attribution.operations import check_logits, check_operations
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.relevance.conservation import conserved_relevance
from xai_brain.attribution.relevance.rules import ALLOWED
from xai_brain.attribution.relevance.transformer_rules import TransformerRelevanceRules
from xai_brain.attribution.transformers.explicit_attention import UnderRules


class AttnLRP:
    """Output of a transformer decomposed backwards, layer by layer, to the voxels.

    Linear layers and convolutions follow the gamma rule, products of two activations (queries and keys,
    attention and values) give half of the relevance to each, a softmax follows its Taylor expansion, layer
    normalisation and activation functions with f(0) = 0 (GELU, SiLU, tanh, ...) the identity rule. ReLU, max
    pooling, sums and rearrangements, such as shifted windows, pass relevance on unchanged. A network with
    other nonlinear operations is refused.

    What is conserved: the relevances of a volume's voxels plus the relevance of the network's constants
    (biases, position embeddings, class tokens, offsets of the expansions of softmax) sum to the output
    explained. The sum is checked for every volume, with a tolerance of 5 % (see `completeness_error`).

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes) logits.
    gamma : float, default 0.25
        How much contributions of the sign of the sum are preferred in convolutions; 0: the epsilon rule.
    gamma_linear : float, default 0.05
        The same in linear layers.
    epsilon : float, default 1e-4
        Of the root mean square of a layer's output for the token or volume: smaller sums pass on less.
    chunk_size : int, optional
        Volumes in one pass; default: what fits into memory.

    References
    ----------
    Achtibat et al., "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers", ICML 2024.
    """

    info = MethodInfo(
        name="AttnLRP",
        value_meaning="raw and signed: relevance, the share of the voxel in the output explained",
        multiplies_by_inputs=True,
        per_channel=True,
        citation=(
            "Achtibat R, Hatefi SMV, Dreyer M, et al. AttnLRP: attention-aware layer-wise relevance "
            "propagation for transformers. ICML 2024. arXiv:2402.05602."
        ),
        operations=ALLOWED,
    )

    def __init__(
        self,
        model: nn.Module,
        gamma: float = 0.25,
        gamma_linear: float = 0.05,
        epsilon: float = 1e-4,
        chunk_size: int | None = None,
    ):
        check_logits(model, "AttnLRP")
        self.model, self.gamma, self.gamma_linear = model, gamma, gamma_linear
        self.epsilon, self.chunk_size = epsilon, chunk_size
        self._shapes = CachedCheck(_check)
        self._explicit = UnderRules(model, lambda volume: _rules(volume, gamma, gamma_linear, epsilon, []))

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`; the relevance of each volume is checked for conservation."""
        check_volumes(inputs)
        with preserved(self.model):
            settings = (self.gamma, self.gamma_linear, self.epsilon)
            shapes = self._shapes.result_for(self.model, inputs, *settings)
            chunk_size = self.chunk_size or volumes_that_fit(self._explicit, inputs[:1].detach())

        def rules(constants: torch.Tensor) -> TransformerRelevanceRules:
            return TransformerRelevanceRules(constants, *settings, shapes)

        return conserved_relevance("AttnLRP", self.model, inputs, target, rules, chunk_size)


def _check(
    model: nn.Module, inputs: torch.Tensor, gamma: float, gamma_linear: float, epsilon: float
) -> list[torch.Size]:
    """Shapes for one volume, of a network of which all operations have a rule."""
    shapes: list[torch.Size] = []
    rules = _rules(inputs, gamma, gamma_linear, epsilon, shapes)
    check_operations(model, inputs[:1], "AttnLRP", ALLOWED, rules)
    return shapes


def _rules(inputs: torch.Tensor, *settings: Any) -> TransformerRelevanceRules:
    """Rules for a pass with one volume."""
    return TransformerRelevanceRules(inputs.new_ones(1, requires_grad=True), *settings)
