"""Gradient-weighted attention relevance on volumes."""

from __future__ import annotations

import torch
from torch import nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.inputs import check_volumes
from xai_brain.attribution.memory import in_chunks, volumes_that_fit
from xai_brain.attribution.model_state import CachedCheck, preserved
from xai_brain.attribution.outputs import select_outputs
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.transformers.attention_weights import AttentionReader, read_attention
from xai_brain.attribution.transformers.explicit_attention import UnderRules
from xai_brain.attribution.transformers.tokens import find_tokens, heads


class AttentionRelevance:
    """Attention weighted by its positive gradient, accumulated over layers.

    The relevance R of tokens to tokens begins with the identity and becomes R + A R in each layer, where A is
    the mean over heads of the positive part of attention times its gradient. The map is the row of R, without
    the identity, for the tokens that are classified (the class token, or the mean over all tokens). Values of
    tokens are at the centres of their patches, with trilinear interpolation between these. Networks in which
    not all tokens attend to each other (windows, several sets of tokens) are refused.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).

    References
    ----------
    Chefer, Gur and Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and
    Encoder-Decoder Transformers", ICCV 2021.
    """

    info = MethodInfo(
        name="AttentionRelevance",
        value_meaning="raw and not negative: relevance of the token to the output explained",
        multiplies_by_inputs=True,
        citation=(
            "Chefer H, Gur S, Wolf L. Generic attention-model explainability for interpreting bi-modal and "
            "encoder-decoder transformers. ICCV 2021:397–406. arXiv:2103.15679."
        ),
    )

    def __init__(self, model: nn.Module):
        self.model = model
        self._tokens = CachedCheck(find_tokens)
        self._explicit = UnderRules(model, lambda _: AttentionReader())

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`."""
        check_volumes(inputs)
        with preserved(self.model):
            tokens = self._tokens.result_for(self.model, inputs, "attention relevance")

            def explain(volumes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
                outputs, found = read_attention(self.model, volumes)
                weights = [attention.weights for attention in found]
                gradients = torch.autograd.grad(
                    select_outputs(outputs, targets).sum(), weights, allow_unused=True, materialize_grads=True
                )
                row = first = tokens.output_tokens.to(volumes).expand(len(volumes), 1, -1)  # (N, 1, L)
                for attention, gradient in zip(reversed(weights), reversed(gradients), strict=True):
                    positive = (attention.detach() * gradient).clamp_min(0)
                    row = row + row @ heads(positive).mean(1)  # R <- R + mean((grad A * A)+) R
                return tokens.volume((row - first)[:, 0])

            chunk_size = volumes_that_fit(self._explicit, inputs[:1].detach())
            return in_chunks(self.model, inputs, target, explain, chunk_size)
