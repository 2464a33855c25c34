"""AttnLRP: every rule against its formula, conservation, windows, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import SHAPE
from scipy import ndimage
from test_attention_methods import TwoTokens, softmax, two_voxels
from torch import nn
from torch.nn import functional as F
from transformer_networks import NETWORKS, SmallViT, SwinUNETREncoder, network, swin

from xai_brain.attribution import LRP, AttnLRP, InputXGradient, Saliency, TokenGradCAM
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.outputs import select_outputs
from xai_brain.attribution.relevance.transformer_rules import TransformerRelevanceRules
from xai_brain.attribution.transformers.patches import find_patches


def test_two_tokens_by_hand():
    # out = a x_0 + b x_1 with (a, b) = softmax(l), l = (x_0 x_0, x_0 x_1), x = (1, 2)
    a, b = softmax(1.0, 2.0)
    of_a, of_b = a / 2, 2 * b / 2  # half of each product; the values get the other half
    of_l0 = 1 * (of_a - a * (of_a + of_b))  # softmax: x (R - s sum R)
    of_l1 = 2 * (of_b - b * (of_a + of_b))
    query, key0, key1 = (of_l0 + of_l1) / 2, of_l0 / 2, of_l1 / 2
    expected = torch.tensor([of_a + query + key0, of_b + key1]).view(1, 1, 1, 2, 1)
    maps = AttnLRP(TwoTokens((1.0, 3.0), residual=False)).attribute(two_voxels(1.0, 2.0), 0)
    torch.testing.assert_close(maps, expected)
    torch.testing.assert_close(maps, torch.tensor([0.1344707, 0.8293645]).view(1, 1, 1, 2, 1))


def relevance_of(function, relevance, *values, gamma_linear=0.0):
    """Relevance of the arguments of a function, and of the constants, for a relevance of its result."""
    leaves = [value.clone().requires_grad_() for value in values]
    constants = torch.ones(1, requires_grad=True)
    with TransformerRelevanceRules(constants, 0.0, gamma_linear, 0.0, []):
        result = function(*leaves)
    gradients = torch.autograd.grad(
        result, (*leaves, constants), relevance / result.detach(), allow_unused=True, materialize_grads=True
    )
    return *(leaf.detach() * g for leaf, g in zip(leaves, gradients, strict=False)), gradients[-1]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_softmax_rule():
    x, relevance = normal(1, 3, 5), normal(1, 3, 5, seed=1)
    of_x, of_constants = relevance_of(lambda x: x.softmax(-1), relevance, x)
    torch.testing.assert_close(of_x, x * (relevance - x.softmax(-1) * relevance.sum(-1, keepdim=True)))
    torch.testing.assert_close(of_x.sum() + of_constants[0], relevance.sum())


def test_uniform_rule_of_products():
    a, b, relevance = normal(1, 3, 4), normal(1, 4, 5, seed=1), normal(1, 3, 5, seed=2)
    share = relevance / (a @ b)
    for product in (
        lambda a, b: a @ b,
        torch.matmul,
        torch.bmm,
        lambda a, b: torch.einsum("bij,bjk->bik", a, b),
        lambda a, b: torch.einsum("bij,bjk->bik", [a, b]),
    ):
        of_a, of_b, _ = relevance_of(product, relevance, a, b)
        torch.testing.assert_close(of_a, a * (share @ b.transpose(1, 2)) / 2)
        torch.testing.assert_close(of_b, b * (a.transpose(1, 2) @ share) / 2)
    of_a, of_b, _ = relevance_of(lambda a, b: a * b, relevance, a[..., :1], b[:, :3])
    torch.testing.assert_close(of_b, relevance / 2)
    torch.testing.assert_close(of_a, relevance.sum(-1, keepdim=True) / 2)


def test_identity_rule_of_layer_norm():
    x, relevance = normal(1, 3, 6), normal(1, 3, 6, seed=1)
    weight, bias = normal(6, seed=2), normal(6, seed=3)
    centred, scale = x - x.mean(-1, keepdim=True), (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    factor = relevance / F.layer_norm(x, [6], weight, bias) * weight / scale
    of_x, of_constants = relevance_of(lambda x: F.layer_norm(x, [6], weight, bias), relevance, x)
    # the division passes relevance on, the mean is a linear layer
    torch.testing.assert_close(of_x, x * (factor - factor.mean(-1, keepdim=True)))
    torch.testing.assert_close(of_x.sum(), (factor * centred).sum())
    torch.testing.assert_close(of_x.sum() + of_constants[0], relevance.sum())


@pytest.mark.parametrize(
    "function", [F.gelu, F.silu, F.mish, torch.tanh, F.elu, F.hardswish, nn.GELU("tanh")]
)
def test_identity_rule_of_activations(function):
    x, relevance = normal(1, 7), normal(1, 7, seed=1)
    of_x, _ = relevance_of(function, relevance, x)
    torch.testing.assert_close(of_x, relevance)
    leaf = torch.zeros(1, 3, requires_grad=True)
    with TransformerRelevanceRules(torch.ones(1, requires_grad=True), 0.0, 0.0, 0.0, []):
        assert torch.equal(torch.autograd.grad(function(leaf).sum(), leaf)[0], torch.zeros(1, 3))


@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_gamma_rule_of_linear_layers_of_tokens(gamma):
    x, weight, bias = normal(1, 3, 4), normal(5, 4, seed=1), normal(5, seed=2)
    relevance = normal(1, 3, 5, seed=3)
    products = x[..., None, :] * weight  # (1, 3, 5, 4)
    z = products.sum(-1) + bias
    preferred = torch.where(z[..., None] >= 0, products.clamp(min=0), products.clamp(max=0))
    offset = torch.where(z >= 0, bias.clamp(min=0), bias.clamp(max=0))
    total = z + gamma * (preferred.sum(-1) + offset)
    expected = ((products + gamma * preferred) * (relevance / total)[..., None]).sum(-2)
    of_x, of_constants = relevance_of(lambda x: F.linear(x, weight, bias), relevance, x, gamma_linear=gamma)
    torch.testing.assert_close(of_x, expected)
    torch.testing.assert_close(of_x.sum() + of_constants[0], relevance.sum())


def test_constants_that_are_joined_or_added():
    x, token, relevance = normal(1, 3, 4), normal(1, 2, 4, seed=1), normal(1, 5, 4, seed=2)
    of_x, of_constants = relevance_of(lambda x: torch.cat([token, x], 1), relevance, x)
    torch.testing.assert_close(of_x, relevance[:, 2:])
    torch.testing.assert_close(of_constants[0], relevance[:, :2].sum())
    of_x, of_constants = relevance_of(lambda x: x + token[:, :1], relevance[:, :3], x)
    torch.testing.assert_close(of_x, relevance[:, :3] * x / (x + token[:, :1]))
    torch.testing.assert_close(of_x.sum() + of_constants[0], relevance[:, :3].sum())


# -- conservation ------------------------------------------------------------------------------------


class LinearAttention(SmallViT):
    """A transformer without constants: no bias, position or class token, and attention without softmax."""

    def __init__(self):
        super().__init__(class_token=False)
        torch.manual_seed(1)
        self.patches = nn.Conv3d(1, 8, (3, 7, 4), stride=(3, 7, 4), bias=False)
        self.qkv = nn.Linear(8, 24, bias=False)
        self.norm = nn.LayerNorm(8, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(8, 16, bias=False), nn.GELU(), nn.Linear(16, 8, bias=False))
        self.head = nn.Linear(8, 2, bias=False)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(tokens)).chunk(3, -1)
        tokens = tokens + (q @ k.transpose(1, 2) / 32) @ v
        return self.head((tokens + self.mlp(self.norm(tokens))).mean(1))


@pytest.mark.parametrize("gamma", [0.0, 0.1])
def test_without_constants_the_voxels_sum_to_the_output(gamma, inputs):
    model = LinearAttention().eval()
    maps = AttnLRP(model, gamma, gamma, epsilon=1e-7).attribute(inputs, 1)
    torch.testing.assert_close(maps.sum((1, 2, 3, 4)), model(inputs)[:, 1], rtol=1e-3, atol=1e-5)


ALL = {**{name: (lambda name=name: network(name)) for name in NETWORKS}, "Swin": swin}


@pytest.mark.parametrize("name", ALL)
def test_voxels_and_constants_of_each_volume_sum_to_its_output(name, inputs):
    model, shapes = ALL[name](), []
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    target = torch.tensor([0, 1, 1])

    def relevance(volumes, targets):
        volumes = volumes.clone().requires_grad_()
        constants = torch.ones(len(volumes), requires_grad=True)
        with TransformerRelevanceRules(constants, 0.25, 0.05, 1e-6, shapes):
            output = select_outputs(model(volumes), targets)
        gradient, of_constants = torch.autograd.grad(output.sum(), (volumes, constants))
        return (volumes * gradient).sum((1, 2, 3, 4)).detach(), of_constants, output.detach()

    alone = [relevance(inputs[i : i + 1], target[i : i + 1]) for i in range(3)]
    of_voxels, of_constants, output = relevance(inputs, target)
    torch.testing.assert_close(of_voxels + of_constants, output, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(of_constants, torch.cat([each[1] for each in alone]), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(output, model(inputs).gather(1, target[:, None])[:, 0], rtol=1e-4, atol=1e-5)


def test_a_layer_without_attention_is_that_of_lrp(toy_net, inputs):
    maps = AttnLRP(toy_net, gamma_linear=0.0).attribute(inputs, 1)
    assert (
        torch.nn.functional.cosine_similarity(
            maps.flatten(1), LRP(toy_net).attribute(inputs, 1).flatten(1)
        ).min()
        > 0.9
    )  # LRP folds batch norm
    torch.testing.assert_close(
        AttnLRP(toy_net, 0.0, 0.0, 0.0).attribute(inputs, 1),
        InputXGradient(toy_net).attribute(inputs, 1),
        rtol=1e-3,
        atol=1e-6,
    )


# -- windows -----------------------------------------------------------------------------------------


class OneToken(nn.Module):
    """The output reads one token after shifted windows."""

    def __init__(self, model, place):
        super().__init__()
        self.model, self.place = model, place

    def forward(self, x):
        swin = self.model.swin
        features = swin.patch_embed(x)
        layer = swin.layers1[0]
        layer.downsample = None
        return layer(features)[:, :2, *self.place]


@pytest.mark.parametrize("place", [(0, 0, 0), (1, 3, 2), (5, 6, 7), (3, 1, 4)])
def test_relevance_reaches_the_voxels_that_shifted_windows_reach(place, inputs):
    model = OneToken(swin(), place).eval()
    maps = AttnLRP(model).attribute(inputs[:1], 1)
    gradient = Saliency(model).attribute(inputs[:1], 1)
    reached, has_relevance = (values.abs() > 1e-20 for values in (gradient, maps))  # masks leave exp(-100)
    assert torch.equal(has_relevance, reached)
    own = tuple(slice(2 * p, 2 * p + 2) for p in place)
    assert bool(reached[0, 0][own].all())
    assert 0.01 < reached.float().mean() < 0.3


@pytest.mark.parametrize("shape", [SHAPE, (20, 22, 34)])
def test_grad_cam_on_tokens_of_merged_windows(shape):
    model, inputs = swin(), normal(2, 1, *shape)
    features = model.features(inputs).detach()  # (N, C, X', Y', Z') at the last layer normalisation
    expected = torch.einsum("c,ncxyz->nxyz", model.head.weight[1].detach(), features) / features[0, 0].numel()
    maps = TokenGradCAM(model).attribute(inputs, 1)[:, 0].detach()
    # patches of 2 voxels that were merged twice: centres at 3.5, 11.5, ...; images are padded to whole steps
    places = (np.indices(shape) - 3.5) / 8
    for coarse, volume in zip(expected, maps, strict=True):
        interpolated = ndimage.map_coordinates(coarse.numpy(), places, order=1, mode="nearest")
        np.testing.assert_allclose(volume.numpy(), interpolated, atol=1e-4 * np.abs(interpolated).max())


def test_grad_cam_on_tokens_of_a_named_layer_before_the_shift(inputs):
    model = swin()
    maps = TokenGradCAM(model, "swin.layers1.0.blocks.1.norm1").attribute(inputs, 1)
    assert maps.shape == inputs.shape
    assert bool(maps.isfinite().all())
    with pytest.raises(AttributionError, match=r"layer 'head' gives tokens.*use GradCAM"):
        TokenGradCAM(model, "head").attribute(inputs, 1)


def test_the_encoder_of_swin_unetr():
    """Windows of 7 tokens do not divide the grid: padded tokens belong to no voxel."""
    torch.manual_seed(0)
    model, volumes = SwinUNETREncoder().eval(), normal(1, 1, 16, 18, 32)
    for method in (AttnLRP(model), TokenGradCAM(model)):
        maps = method.attribute(volumes, 1)
        assert maps.shape == volumes.shape
        assert maps.abs().sum() > 0
    grid = find_patches(model, volumes[:1], "a method")
    assert grid.order.shape == (8, 9, 16)
    assert grid.size == (2, 2, 2)
    assert grid.first == (0.5, 0.5, 0.5)
    with pytest.raises(AttributionError, match=r"AttnLRP has no rule for the normalisation .*InstanceNorm3d"):
        AttnLRP(SwinUNETREncoder(use_v2=True).eval()).attribute(volumes, 1)
    with pytest.raises(AttributionError, match=r"Grad-CAM on tokens cannot place tokens in the volume"):
        TokenGradCAM(SwinUNETREncoder(use_v2=True).eval()).attribute(volumes, 1)


@pytest.mark.parametrize("make", [AttnLRP, TokenGradCAM])
def test_maps_of_windows_do_not_depend_on_the_batch(make, inputs):
    model = swin()
    together = make(model).attribute(inputs, 1)
    alone = torch.cat([make(model).attribute(volume[None], 1) for volume in inputs])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * together.abs().max().item())


# -- refusals ----------------------------------------------------------------------------------------


class Gated(SmallViT):
    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head((tokens * torch.sigmoid(tokens)).mean(1))


class Normalised(SmallViT):
    def forward(self, x):
        return self.head(F.normalize(self.patches(x).flatten(2).transpose(1, 2), dim=-1).mean(1))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Gated, "AttnLRP has no rule for the operation sigmoid in the forward method of Gated"),
        (Normalised, "AttnLRP has no rule for the operation linalg_vector_norm in the forward method"),
    ],
)
def test_operations_without_a_rule_are_refused_by_name(make, reason, inputs):
    with pytest.raises(AttributionError, match=reason):
        AttnLRP(make().eval()).attribute(inputs, 0)


def test_gradient_checkpointing_is_refused(inputs):
    with pytest.raises(AttributionError, match=r"gradient checkpointing.*use_checkpoint=False"):
        AttnLRP(swin(use_checkpoint=True)).attribute(inputs, 0)
