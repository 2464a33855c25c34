"""Attention rollout on volumes."""

from __future__ import annotations

import torch
from torch import nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.inputs import check_volumes
from xai_brain.attribution.memory import in_chunks, volumes_that_fit
from xai_brain.attribution.model_state import CachedCheck, preserved
from xai_brain.attribution.outputs import check_targets
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.transformers.attention_weights import AttentionReader, read_attention
from xai_brain.attribution.transformers.explicit_attention import UnderRules
from xai_brain.attribution.transformers.tokens import find_tokens, heads


class AttentionRollout:
    """Product of the attention matrices of all layers, half of each of which is the residual connection.

    The map is the row of the product for the tokens that are classified (the class token, or the mean over
    all tokens). It is the same for every class: it shows from where a network gathers information, not for
    what. Values of tokens are at the centres of their patches, with trilinear interpolation between these.
    Networks in which not all tokens attend to each other (windows, several sets of tokens) are refused.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).

    References
    ----------
    Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020.
    """

    info = MethodInfo(
        name="AttentionRollout",
        value_meaning="raw and not negative: share of the token in what is classified, for every class",
        multiplies_by_inputs=True,
        citation=(
            "Abnar S, Zuidema W. Quantifying attention flow in transformers. ACL 2020:4190–4197. "
            "arXiv:2005.00928."
        ),
    )

    def __init__(self, model: nn.Module):
        self.model = model
        self._tokens = CachedCheck(find_tokens)
        self._explicit = UnderRules(model, lambda _: AttentionReader())

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`; the target is checked and has no effect."""
        check_volumes(inputs)
        with preserved(self.model):
            tokens = self._tokens.result_for(self.model, inputs, "attention rollout")

            def explain(volumes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
                outputs, found = read_attention(self.model, volumes)
                check_targets(targets, outputs.shape[1])
                row = tokens.output_tokens.to(volumes).expand(len(volumes), 1, -1)  # (N, 1, L)
                for attention in reversed(found):
                    mean = heads(attention.weights).detach().mean(1)  # (N, L, L)
                    row = row / 2 + row @ mean / 2
                return tokens.volume(row[:, 0])

            chunk_size = volumes_that_fit(self._explicit, inputs[:1].detach())
            return in_chunks(self.model, inputs, target, explain, chunk_size)
