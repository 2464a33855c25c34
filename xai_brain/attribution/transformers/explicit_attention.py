"""Attention computed step by step, so that rules apply to each step.

Fused functions give neither the weights of attention nor their gradients. They are replaced by projections,
products and a softmax, which are the same function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.rules import Rules


class ExplicitAttention(Rules):
    """Rules that also apply inside ``scaled_dot_product_attention`` and `torch.nn.MultiheadAttention`.

    Parameters
    ----------
    rules : mapping of str to callable
        See `Rules`.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        steps = STEPS.get(getattr(func, "__name__", ""))
        if steps is None or not torch.is_grad_enabled():
            return super().__torch_function__(func, types, args, kwargs)
        with self:
            return steps(*args, **(kwargs or {}))


class UnderRules(nn.Module):
    """A network to which rules apply, for which the memory of a pass is measured.

    Attention that is computed step by step keeps its weights and needs more memory than a fused function.

    Parameters
    ----------
    model : torch.nn.Module
    rules : callable of a batch
        Gives the rules.
    """

    def __init__(self, model: nn.Module, rules: Callable[[torch.Tensor], Rules]):
        super().__init__()
        self.model, self.rules = model, rules

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        with self.rules(volumes):
            return self.model(volumes)


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """The function of the same name of `torch.nn.functional`."""
    if dropout_p or enable_gqa:
        what = "dropout in eval mode" if dropout_p else "grouped queries"
        raise AttributionError(f"the network uses attention with {what}, which cannot be explained")
    logits = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = ~attn_mask
    return _weighted_sum(logits, attn_mask, value)[0]


def multi_head_attention_forward(
    query: torch.Tensor,  # (L, N, E), as key and value (S, N, E)
    key: torch.Tensor,
    value: torch.Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: torch.Tensor | None,
    in_proj_bias: torch.Tensor | None,
    bias_k: torch.Tensor | None,
    bias_v: torch.Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: torch.Tensor,
    out_proj_bias: torch.Tensor | None,
    training: bool = True,
    key_padding_mask: torch.Tensor | None = None,
    need_weights: bool = True,
    attn_mask: torch.Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: torch.Tensor | None = None,
    k_proj_weight: torch.Tensor | None = None,
    v_proj_weight: torch.Tensor | None = None,
    static_k: torch.Tensor | None = None,
    static_v: torch.Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The function of the same name of `torch.nn.functional`, which `torch.nn.MultiheadAttention` calls."""
    if add_zero_attn or any(extra is not None for extra in (bias_k, bias_v, static_k, static_v)):
        raise AttributionError(
            "the network uses MultiheadAttention with add_zero_attn, add_bias_kv or fixed keys, which cannot "
            "be explained"
        )
    if query.ndim != 3:
        raise AttributionError("MultiheadAttention gets one volume without a batch axis: give it (N, L, E)")
    weights: Any = (q_proj_weight, k_proj_weight, v_proj_weight)
    if in_proj_weight is not None and not use_separate_proj_weight:
        weights = in_proj_weight.chunk(3)
    biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
    q, k, v = (
        F.linear(tokens.transpose(0, 1), weight, bias).unflatten(-1, (num_heads, -1)).transpose(1, 2)
        for tokens, weight, bias in zip((query, key, value), weights, biases, strict=True)
    )  # (N, heads, L or S, E / heads)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if attn_mask is not None and attn_mask.ndim == 3:
        attn_mask = attn_mask.view(logits.shape[0], num_heads, *attn_mask.shape[1:])
    if key_padding_mask is not None:
        padding = _additive(key_padding_mask[:, None, None], logits)
        attn_mask = padding if attn_mask is None else padding + _additive(attn_mask, logits)
    mixed, attention = _weighted_sum(logits, attn_mask, v)
    output = F.linear(mixed.transpose(1, 2).flatten(2), out_proj_weight, out_proj_bias).transpose(0, 1)
    if not need_weights:
        return output, None
    return output, attention.mean(1) if average_attn_weights else attention


def _weighted_sum(
    logits: torch.Tensor, mask: torch.Tensor | None, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values weighted by the softmax of masked logits, and the weights."""
    if mask is not None:
        logits = logits + _additive(mask, logits)
    weights = logits.softmax(-1)
    return weights @ values, weights


def _additive(mask: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """A mask that is added to logits, of one that is True where nothing is attended to."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=logits.dtype).masked_fill(mask, float("-inf"))


STEPS: dict[str, Any] = {
    "scaled_dot_product_attention": scaled_dot_product_attention,
    "multi_head_attention_forward": multi_head_attention_forward,
}
