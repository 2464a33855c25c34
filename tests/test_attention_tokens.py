"""Attention: where tokens lie in the volume, and how attention weights are read."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import SHAPE
from test_attention_methods import METHODS
from torch import nn
from torch.nn import functional as F
from transformer_networks import GRID, NETWORKS, PATCH, SmallViT, network

from xai_brain.attribution import (
    AttentionRelevance,
    AttentionRollout,
    AttnLRP,
    TokenGradCAM,
    memory,
)
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.transformers.attention_weights import read_attention
from xai_brain.attribution.transformers.explicit_attention import ExplicitAttention
from xai_brain.attribution.transformers.patches import find_patches
from xai_brain.attribution.transformers.tokens import find_tokens

# -- places ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_patches_are_measured(name, inputs):
    grid = find_patches(network(name), inputs[:1], "a method")
    has_class_token = name not in ("mean token",)
    expected = torch.arange(math.prod(GRID)).view(GRID) + has_class_token
    assert torch.equal(grid.order, expected)
    assert grid.size == PATCH
    assert grid.first == tuple((size - 1) / 2 for size in PATCH)
    assert grid.n_tokens == math.prod(GRID) + has_class_token
    assert bool(grid.covered.all())


class Reversed(SmallViT):
    """Tokens run along the first axis first, and backwards."""

    def forward(self, x):
        tokens = self.patches(x).flip(2).permute(0, 4, 3, 2, 1).flatten(1, 3) + self.positions
        return self.head(self.encoder(tokens).mean(1))


def test_the_order_of_tokens_is_measured(inputs):
    model = Reversed(class_token=False).eval()
    grid = find_patches(model, inputs[:1], "a method")
    expected = torch.arange(math.prod(GRID)).view(GRID[::-1]).permute(2, 1, 0).flip(0)
    assert torch.equal(grid.order, expected)


@pytest.mark.parametrize("name", ["class token", "MONAI"])
@pytest.mark.parametrize("place", [(0, 0, 0), (3, 1, 2), (1, 0, 1), (2, 1, 3)])
def test_a_hot_token_lights_its_patch(name, place, inputs):
    model = network(name)
    tokens = find_tokens(model, inputs, "a method")
    values = torch.zeros(1, tokens.grid.n_tokens)
    values[0, 1 + place[0] * GRID[1] * GRID[2] + place[1] * GRID[2] + place[2]] = 1
    volume = tokens.volume(values)[0, 0]
    centre = torch.tensor([p * n + (n - 1) / 2 for p, n in zip(place, PATCH, strict=True)])
    hottest = (volume == volume.max()).nonzero().float()
    inner = [0 < p < n - 1 for p, n in zip(place, GRID, strict=True)]
    for axis, is_inner in enumerate(inner):
        if is_inner:  # at the border, the value continues outwards
            assert abs(hottest[:, axis].mean() - centre[axis]) <= 0.5
            mass = (volume.sum([a for a in range(3) if a != axis]) * torch.arange(SHAPE[axis])).sum()
            assert abs(mass / volume.sum() - centre[axis]) <= 0.5
        lower = place[axis] * PATCH[axis]
        assert bool(((hottest[:, axis] >= lower) & (hottest[:, axis] < lower + PATCH[axis])).all())


@pytest.mark.parametrize("name", ["class token", "MONAI, linear patches"])
def test_a_token_depends_on_the_voxels_of_its_patch(name, inputs):
    """A check of the places that uses neither gradients nor attention: a change of voxels."""
    model = network(name)
    layer = model.patches if name == "class token" else model.network.patch_embedding
    changed = inputs[:1].clone()
    changed[..., 6:9, 7:14, 8:12] += 1  # patch (2, 1, 2)
    before, after = layer(inputs[:1]), layer(changed)
    if before.ndim == 5:
        before, after = (tokens.flatten(2).transpose(1, 2) for tokens in (before, after))
    (number,) = (before != after).any(2)[0].nonzero()[:, 0].tolist()
    assert int(find_patches(model, inputs[:1], "a method").order[2, 1, 2]) == number + 1


def test_voxels_without_a_patch_are_zero_and_centres_stay_true():
    shape = (13, 16, 19)  # one, two and three voxels more than whole patches
    model = SmallViT(shape).eval()
    inputs = torch.randn(2, 1, *shape)
    maps = TokenGradCAM(model).attribute(inputs, 0)
    assert not maps[:, :, 12:].any()
    assert not maps[:, :, :, 14:].any()
    assert not maps[..., 16:].any()
    whole = TokenGradCAM(model).attribute(inputs[..., :12, :14, :16], 0)
    torch.testing.assert_close(maps[..., :12, :14, :16], whole)


def test_padded_patches_keep_their_centres(inputs):
    model = SmallViT((15, 14, 16), class_token=False).eval()
    model.patches = nn.Conv3d(1, 8, PATCH, stride=PATCH, padding=(1, 0, 0))
    grid = find_patches(model, torch.randn(1, 1, 13, 14, 16), "a method")
    assert grid.first == (0.0, 3.0, 1.5)
    assert grid.size == PATCH


def test_overlapping_patches_are_refused(inputs):
    model = SmallViT(class_token=False).eval()
    model.patches = nn.Conv3d(1, 8, (5, 7, 4), stride=PATCH, padding=(1, 0, 0))
    for make in (AttentionRollout, AttentionRelevance, TokenGradCAM):
        with pytest.raises(AttributionError, match=r"cannot place tokens in the volume.*AttnLRP") as error:
            make(model).attribute(inputs, 0)
        assert "\n" not in str(error.value)
    assert AttnLRP(model).attribute(inputs, 0).abs().sum() > 0


# -- reading of attention ----------------------------------------------------------------------------


class Fused(nn.Module):
    def __init__(self, compute):
        super().__init__()
        self.compute = compute

    def forward(self, x):
        return self.compute(*x)


def masks(n, heads, length):
    generator = torch.Generator().manual_seed(2)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    added = torch.randn(n * heads, length, length, generator=generator)
    padding = torch.zeros(n, length, dtype=torch.bool)
    padding[1, -2:] = True
    return {
        "none": {},
        "bool": {"attn_mask": ~causal},
        "added": {"attn_mask": added},
        "padding": {"key_padding_mask": padding},
        "both": {"attn_mask": ~causal, "key_padding_mask": padding},
    }


@pytest.mark.parametrize("mask", ["none", "bool", "added", "padding", "both"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"batch_first": True}, {"bias": False}, {"kdim": 3, "vdim": 5, "batch_first": True}],
    ids=str,
)
@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention_step_by_step_is_the_same_function(mask, settings, need_weights):
    module = nn.MultiheadAttention(8, 2, **settings).eval()
    generator = torch.Generator().manual_seed(1)
    query, key, value = (
        torch.randn(3, 5, width, generator=generator, requires_grad=True)
        for width in (8, settings.get("kdim", 8), settings.get("vdim", 8))
    )
    if not settings.get("batch_first"):
        query, key, value = (tokens.transpose(0, 1) for tokens in (query, key, value))
    kwargs = {**masks(3, 2, 5)[mask], "need_weights": need_weights}
    expected = module(query, key, value, **kwargs)
    with ExplicitAttention({}):
        output = module(query, key, value, **kwargs)
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"scale": 0.7},
        {"is_causal": True},
        {"attn_mask": torch.randn(5, 5)},
        {"attn_mask": torch.eye(5) > 0},
    ],
    ids=["plain", "scale", "causal", "added", "bool"],
)
def test_scaled_dot_product_attention_step_by_step_is_the_same_function(kwargs):
    query, key, value = torch.randn(3, 2, 4, 5, 6).requires_grad_()
    expected = F.scaled_dot_product_attention(query, key, value, **kwargs)
    with ExplicitAttention({}):
        output = F.scaled_dot_product_attention(query, key, value, **kwargs)
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_attention_is_read_per_head_with_gradients_and_outputs_stay_the_same(name, inputs):
    model = network(name)
    outputs, found = read_attention(model, inputs.clone().requires_grad_())
    torch.testing.assert_close(outputs, model(inputs))
    length = math.prod(GRID) + (name != "mean token")
    assert [attention.weights.shape for attention in found] == [(3, 2, length, length)] * 2
    torch.testing.assert_close(found[0].weights.sum(-1), torch.ones(3, 2, length))
    assert all("ttention" in attention.place or "SABlock" in attention.place for attention in found)
    assert torch.autograd.grad(outputs[:, 0].sum(), found[0].weights)[0].abs().sum() > 0


def test_flash_attention_of_monai_is_read(inputs):
    model = network("MONAI")
    from monai.networks.blocks import SABlock

    flash = network("MONAI")
    for block in flash.network.blocks:
        attention = SABlock(8, 2, use_flash_attention=True).eval()
        attention.load_state_dict(block.attn.state_dict())
        block.attn = attention
    for make in METHODS.values():
        expected = make(model).attribute(inputs, 1)
        torch.testing.assert_close(make(flash).attribute(inputs, 1), expected, rtol=1e-3, atol=1e-6)
        assert expected.abs().sum() > 0


@pytest.mark.parametrize("method", ["AttentionRollout", "AttentionRelevance", "AttnLRP"])
def test_memory_of_attention_weights_counts(method, inputs, monkeypatch):
    """Fused attention keeps no weights: the size of a chunk follows the pass that is explained."""
    model = SmallViT(patch=(1, 2, 2), width=8, depth=1).eval()  # 673 tokens
    weights = 2 * 673**2 * 4
    monkeypatch.setitem(memory.MAX_BYTES, "cpu", 3 * weights)
    plain = memory.volumes_that_fit(model, inputs[:1])
    sizes = []
    run = memory.Chunks.run
    monkeypatch.setattr(memory.Chunks, "run", lambda self, *args: (sizes.append(self.size), run(self, *args)))
    METHODS[method](model).attribute(inputs[:1], 1)
    assert sizes == [1]
    assert plain > 1
