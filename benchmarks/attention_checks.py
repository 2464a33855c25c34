"""Checks of methods for transformers: attention from its definition, in double precision.

In a copy of the network, every attention is replaced by a module that computes queries, keys and values from
the weights of the original one, step by step.
"""

from __future__ import annotations

import copy

import torch
from monai.networks.blocks.selfattention import SABlock
from monai.networks.nets.swin_unetr import WindowAttention
from table_case import Case, relative
from torch import nn
from torch.nn import functional as F

from xai_brain import attribution as xa


class Attention(nn.Module):
    """Attention of `torch.nn.MultiheadAttention`, or of the ViT or Swin of MONAI, step by step.

    Parameters
    ----------
    original : torch.nn.Module
    halved : bool
        Whether each of two factors has half of the gradient of their product.
    """

    batch_first, in_proj_bias = True, None  # read by torch.nn.TransformerEncoderLayer

    def __init__(self, original: nn.Module, halved: bool):
        super().__init__()
        self.original, self.halved = original, halved
        self.weights: torch.Tensor  # of the last pass, (N, heads, L, L)

    def forward(self, x: torch.Tensor, *args: object, mask: torch.Tensor | None = None, **kwargs: object):
        own = self.original
        if isinstance(own, nn.MultiheadAttention):
            projected = x @ own.in_proj_weight.T + own.in_proj_bias
        else:
            projected = own.qkv(x)
        q, k, v = (
            part.unflatten(-1, (own.num_heads, -1)).transpose(1, 2) for part in projected.chunk(3, -1)
        )  # (N, heads, L, E / heads)
        logits = self.product(q, k.transpose(-2, -1)) / q.shape[-1] ** 0.5
        if isinstance(own, WindowAttention):
            n = x.shape[1]
            index = own.relative_position_index[:n, :n]
            logits = logits + own.relative_position_bias_table[index].permute(2, 0, 1)
            if mask is not None:  # (windows, L, L), the same for every volume
                logits = logits + mask.repeat(len(x) // len(mask), 1, 1)[:, None]
        self.weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
        if self.weights.requires_grad:
            self.weights.retain_grad()
        mixed = self.product(self.weights, v).transpose(1, 2).flatten(2)
        if isinstance(own, nn.MultiheadAttention):
            return own.out_proj(mixed), None
        return (own.proj if isinstance(own, WindowAttention) else own.out_proj)(mixed)

    def product(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a.detach() @ b + a @ b.detach()) / 2 if self.halved else a @ b


class FixedNorm(nn.Module):
    """Layer normalisation whose standard deviation is a constant."""

    def __init__(self, original: nn.LayerNorm):
        super().__init__()
        self.original = original

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        sd = (x.var(-1, correction=0, keepdim=True) + self.original.eps).sqrt().detach()
        return centred / sd * self.original.weight + self.original.bias


class Gate(nn.Module):
    """An activation function as a constant multiple of its argument."""

    def __init__(self, original: nn.Module):
        super().__init__()
        self.original = original

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.where(x == 0, 0.0, self.original(x) / x).detach()


def stepwise(network: nn.Module, rules: bool) -> tuple[nn.Module, list[Attention]]:
    """A copy with attention step by step, and all attention modules in their order.

    Parameters
    ----------
    network : torch.nn.Module
    rules : bool
        Whether gradients follow the rules of AttnLRP with gamma and epsilon 0.
    """
    network = copy.deepcopy(network)
    found = []
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.MultiheadAttention | SABlock | WindowAttention):
            found.append(Attention(module, rules))
            network.set_submodule(name, found[-1])
        elif rules and isinstance(module, nn.LayerNorm):
            network.set_submodule(name, FixedNorm(module))
        elif rules and isinstance(module, nn.GELU | nn.SiLU | nn.Mish):
            network.set_submodule(name, Gate(module))
        elif rules and isinstance(module, nn.TransformerEncoderLayer):
            module.activation = Gate(module.activation)
    return network, found


def attention(case: Case) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weights and their gradients in every layer, both (N, heads, L, L)."""
    network, found = stepwise(case.exact, rules=False)
    leaf = case.inputs.double().requires_grad_()
    outputs = network(leaf)
    outputs = outputs[0] if isinstance(outputs, tuple) else outputs
    assert torch.allclose(outputs, case.exact_columns(case.inputs))
    outputs[:, case.target].sum().backward()
    return [(layer.weights.detach(), layer.weights.grad) for layer in found]


def in_volume(case: Case, values: torch.Tensor) -> torch.Tensor:
    """Values of patches, (N, GX, GY, GZ), interpolated between their centres."""
    size = [n * p for n, p in zip(values.shape[1:], case.kind.tokens.patch, strict=True)]
    volume = F.interpolate(values[:, None], size, mode="trilinear", align_corners=False)
    x, y, z = case.shape
    return volume[..., :x, :y, :z].expand_as(case.inputs)


def row_in_volume(case: Case, matrix: torch.Tensor) -> torch.Tensor:
    """Row of a matrix of tokens for the class token or the mean token, (N, L, L), in the volume."""
    tokens = case.kind.tokens
    row = matrix[:, 0, 1:] if tokens.class_token else matrix.mean(1)
    grid = [n // p for n, p in zip(case.shape, tokens.patch, strict=True)]
    return in_volume(case, row.unflatten(1, grid))


def rollout(case: Case) -> float:
    maps = case.maps(xa.AttentionRollout(case.score()))
    product = torch.eye(1, dtype=torch.float64)
    for weights, _ in attention(case):
        step = (weights.mean(1) + torch.eye(weights.shape[-1])) / 2
        product = step @ product if product.ndim > 2 else step
    return relative(maps, row_in_volume(case, product))


def relevance(case: Case) -> float:
    maps = case.maps(xa.AttentionRelevance(case.score()))
    total = None
    for weights, gradient in attention(case):
        layer = (weights * gradient).clamp_min(0).mean(1)
        start = torch.eye(layer.shape[-1], dtype=torch.float64).expand_as(layer)
        total = start + layer if total is None else total + layer @ total
    return relative(maps, row_in_volume(case, total - start))


def token_grad_cam(case: Case) -> float:
    maps = case.maps(xa.TokenGradCAM(case.score()))
    tokens, kept = case.kind.tokens, []
    module = case.exact.get_submodule(tokens.layer)
    if tokens.of_input:
        handle = module.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    else:
        handle = module.register_forward_hook(lambda _, args, output: kept.append(output))
    scores = case.exact_columns(case.inputs.double().requires_grad_())[:, case.target]
    handle.remove()
    (gradient,) = torch.autograd.grad(scores.sum(), kept)
    features = kept[0].detach()
    if features.ndim == 3:  # (N, L, E)
        grid = [n // p for n, p in zip(case.shape, tokens.patch, strict=True)]
        features, gradient = (
            each[:, int(tokens.class_token) :].unflatten(1, grid) for each in (features, gradient)
        )
    elif tokens.of_input:  # (N, E, GX, GY, GZ)
        features, gradient = features.movedim(1, -1), gradient.movedim(1, -1)
    weights = gradient.mean((1, 2, 3), keepdim=True)
    return relative(maps, in_volume(case, (weights * features).sum(-1)))


def attn_lrp(case: Case) -> float:
    """Gamma and epsilon 0: the input times the gradient of the rules; otherwise the sum is checked."""
    assert torch.isfinite(case.maps(xa.AttnLRP(case.score()))).all()
    maps = case.maps(xa.AttnLRP(case.score(), gamma=0, gamma_linear=0, epsilon=0))
    plain, case.exact = case.exact, stepwise(case.exact, rules=True)[0]
    assert torch.allclose(case.exact(case.inputs.double())[0], plain(case.inputs.double())[0])
    expected = case.inputs * case.exact_gradient(case.inputs)
    case.exact = plain
    return relative(maps, expected)
