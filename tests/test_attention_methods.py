"""Attention rollout, attention relevance and Grad-CAM on tokens: cases computed by hand, and places."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import SHAPE, ToyNet
from torch import nn
from torch.nn import functional as F
from transformer_networks import GRID, NETWORKS, PATCH, SmallViT, network, swin

from xai_brain.attribution import (
    AttentionRelevance,
    AttentionRollout,
    AttnLRP,
    ClassScore,
    Saliency,
    TokenGradCAM,
)
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.protocol import Method, method_info

METHODS = {
    "AttentionRollout": AttentionRollout,
    "AttentionRelevance": AttentionRelevance,
    "TokenGradCAM": TokenGradCAM,
    "AttnLRP": AttnLRP,
}
OF_TOKENS = ["AttentionRollout", "AttentionRelevance"]  # all tokens attend to each other


# -- two tokens --------------------------------------------------------------------------------------


class TwoTokens(nn.Module):
    """Tokens are voxels, queries, keys and values the tokens; a second attention is uniform.

    The output is a multiple of the first token, with or without residual connections.
    """

    def __init__(self, weights=(1.0, -1.0), residual=True, depth=1):
        super().__init__()
        self.weights, self.residual, self.depth = torch.tensor(weights), residual, depth

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)  # (N, 2, 1)
        mixed = F.scaled_dot_product_attention(tokens, tokens, tokens)
        tokens = tokens + mixed if self.residual else mixed
        if self.depth == 2:
            tokens = tokens + F.scaled_dot_product_attention(0 * tokens, tokens, tokens)
        return tokens[:, 0] * self.weights


def two_voxels(first, second):
    return torch.tensor([first, second]).view(1, 1, 1, 2, 1)


def softmax(*logits):
    values = [math.exp(logit) for logit in logits]
    return [value / sum(values) for value in values]


def test_rollout_of_two_tokens_and_one_layer():
    # logits of the second token: (0, 3 ln 3 / 3); the first token attends to both alike
    x = two_voxels(0.0, math.sqrt(math.log(3)))
    expected = torch.tensor([0.75, 0.25]).view(1, 1, 1, 2, 1)  # (I + A) / 2, first row, A = (1/2, 1/2)
    torch.testing.assert_close(AttentionRollout(TwoTokens()).attribute(x, 0), expected)


def test_rollout_multiplies_the_last_layer_from_the_left():
    # A1 = [[1/2, 1/2], [1/4, 3/4]], A2 = 1/2 everywhere;
    # first row of (I + A2) / 2 (I + A1) / 2 = (3/4, 1/4) [[3/4, 1/4], [1/8, 7/8]]
    x = two_voxels(0.0, math.sqrt(math.log(3)))
    expected = torch.tensor([0.59375, 0.40625]).view(1, 1, 1, 2, 1)
    torch.testing.assert_close(AttentionRollout(TwoTokens(depth=2)).attribute(x, 0), expected)
    torch.testing.assert_close(AttentionRollout(TwoTokens(depth=2)).attribute(x, 1), expected)


def test_relevance_of_two_tokens_and_one_layer():
    # d out / d A_0j = w x_j with x = (1, 2), w = 3; logits of the first token: (1, 2)
    a, b = softmax(1.0, 2.0)
    expected = torch.tensor([3 * a, 6 * b]).view(1, 1, 1, 2, 1)
    method = AttentionRelevance(TwoTokens((3.0, -3.0)))
    torch.testing.assert_close(method.attribute(two_voxels(1.0, 2.0), 0), expected)
    assert not method.attribute(two_voxels(1.0, 2.0), 1).any()  # only positive gradients count


def test_relevance_accumulates_over_layers():
    # after the first layer the tokens are t; the second attention is 1/2 everywhere:
    # out = t_0 + (t_0 + t_1) / 2, d out / d A2 = (t_0, t_1) in the first row,
    # d out / d A1 = (3/2 x_0, 3/2 x_1) and (x_0 / 2, x_1 / 2); R - I = M2 + M1 + M2 M1
    x = torch.tensor([1.0, 2.0])
    attention = torch.tensor([softmax(1.0, 2.0), softmax(2.0, 4.0)])
    tokens = x + attention @ x
    first = torch.stack([1.5 * x, 0.5 * x]) * attention
    second = torch.stack([0.5 * tokens, torch.zeros(2)])
    expected = (second + first + second @ first)[0].view(1, 1, 1, 2, 1)
    maps = AttentionRelevance(TwoTokens(depth=2)).attribute(two_voxels(1.0, 2.0), 0)
    torch.testing.assert_close(maps, expected)


class TwoFeatures(nn.Module):
    """Attention, then features (x, -x) of each token; the outputs are weighted means of them."""

    def __init__(self):
        super().__init__()
        self.features = nn.Linear(1, 2, bias=False)
        self.features.weight.data = torch.tensor([[1.0], [-1.0]])
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight.data = torch.tensor([[3.0, 1.0], [0.0, 4.0]])

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(tokens, tokens, tokens)
        return self.head(self.features(tokens).mean(1)) + 0 * mixed.mean(1)


def test_grad_cam_of_two_tokens():
    # gradients are w / 2 at both tokens: (3 x - x) / 2 and -4 x / 2
    x = two_voxels(1.0, -2.0)
    method = TokenGradCAM(TwoFeatures(), layer="features")
    torch.testing.assert_close(method.attribute(x, 0), x)
    torch.testing.assert_close(method.attribute(x, 1), -2 * x)
    with pytest.raises(AttributionError, match="no layer normalisation gives tokens of several patches"):
        TokenGradCAM(TwoFeatures()).attribute(x, 0)
    with pytest.raises(AttributionError, match="no layer 'feature'"):
        TokenGradCAM(TwoFeatures(), layer="feature").attribute(x, 0)


# -- the contract of all methods ---------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_maps_do_not_depend_on_the_batch(method, name, inputs):
    explain = METHODS[method](network(name))
    target = torch.tensor([0, 1, 1])
    together = explain.attribute(inputs, target)
    alone = torch.cat([explain.attribute(inputs[i : i + 1], target[i : i + 1]) for i in range(3)])
    assert together.shape == inputs.shape
    assert bool(together.isfinite().all())
    assert together.abs().sum() > 0
    assert not together.requires_grad
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * together.abs().max().item())
    if method != "AttentionRollout":
        assert not torch.allclose(explain.attribute(inputs, 0), explain.attribute(inputs, 1))


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_left_unchanged(method, inputs):
    model = network("class token").train()
    model(inputs).sum().backward()
    attributes = {module: set(vars(module)) for module in model.modules()}
    state = {key: value.clone() for key, value in model.state_dict().items()}
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    METHODS[method](model).attribute(inputs, 1)
    for wrong in (None, 7, -1):
        with pytest.raises(AttributionError, match="target"):
            METHODS[method](model).attribute(inputs, wrong)
    assert all(module.training for module in attributes)
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in attributes)
    assert {module: set(vars(module)) for module in model.modules()} == attributes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), grads, strict=True))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("method", METHODS)
def test_what_it_says_about_itself(method):
    made = METHODS[method](network("class token"))
    assert isinstance(made, Method)
    assert method_info(made) is made.info
    assert made.info.name == method
    assert made.info.multiplies_by_inputs
    assert made.info.citation
    assert not made.info.is_baseline


def test_rollout_sums_to_one_and_relevance_is_not_negative(inputs):
    model = network("mean token")
    rollout = AttentionRollout(model).attribute(inputs, 0)
    assert bool((rollout >= 0).all())
    centres = rollout[:, 0, 1::3, 3::7]  # centres along odd patches; between two voxels along the third axis
    torch.testing.assert_close(
        centres.unflatten(-1, (4, 4)).mean(-1).sum((1, 2, 3)), torch.ones(3), atol=0.05, rtol=0
    )
    assert bool((AttentionRelevance(model).attribute(inputs, 0) >= 0).all())


@pytest.mark.parametrize("method", METHODS)
def test_maps_scale_with_the_output(method, inputs):
    model = network("class token")
    maps = METHODS[method](model).attribute(inputs, 1)
    with torch.no_grad():
        model.head.weight.mul_(2)
        model.head.bias.mul_(2)
    factor = 1 if method == "AttentionRollout" else 2
    doubled = METHODS[method](model).attribute(inputs, 1)
    torch.testing.assert_close(doubled, factor * maps, rtol=1e-3, atol=1e-4 * float(maps.abs().max()))


@pytest.mark.parametrize("method", METHODS)
def test_maps_follow_patches_that_are_moved(method, inputs):
    """Without position embeddings, the order of patches has no effect on the output."""
    model = network("mean token")
    nn.init.zeros_(model.positions)
    explain = METHODS[method](model)
    maps, moved = explain.attribute(inputs, 1), explain.attribute(inputs.roll(3, 2), 1)
    centres = maps[:, :, 1::3]  # along the first axis; between them, values are interpolated
    torch.testing.assert_close(
        moved[:, :, 1::3], centres.roll(1, 2), rtol=1e-3, atol=1e-4 * float(maps.abs().max())
    )


@pytest.mark.parametrize("method", METHODS)
def test_several_channels(method):
    model = SmallViT(n_channels=2).eval()
    inputs = torch.randn(2, 2, *SHAPE)
    maps = METHODS[method](model).attribute(inputs, 1)
    assert maps.shape == inputs.shape
    assert torch.equal(maps[:, 0], maps[:, 1]) is (method != "AttnLRP")


# -- refusals ----------------------------------------------------------------------------------------


class CrossAttention(SmallViT):
    def __init__(self):
        super().__init__(class_token=False)
        self.queries = nn.Parameter(torch.randn(1, 5, 8))
        self.cross = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        tokens = self.encoder(self.patches(x).flatten(2).transpose(1, 2) + self.positions)
        return self.head(self.cross(self.queries.expand(len(x), -1, -1), tokens, tokens)[0].mean(1))


class Mixing(nn.Module):
    def forward(self, tokens):
        return (tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens


class Scripted(SmallViT):
    def __init__(self):
        super().__init__()
        self.encoder = torch.jit.script(Mixing())


REFUSED = {
    "no attention": (lambda: ToyNet(), r"the network has no attention .*Occlusion"),
    "windows": (swin, r"module 'swin.layers1.0.blocks.0.attn' \(WindowAttention\) .* 48 windows.*AttnLRP"),
    "cross-attention": (CrossAttention, r"module 'cross' \(MultiheadAttention\) has 5 queries and 32 keys"),
}


@pytest.mark.parametrize("method", OF_TOKENS)
@pytest.mark.parametrize("case", REFUSED)
def test_other_networks_are_refused_by_name(method, case, inputs):
    make, reason = REFUSED[case]
    with pytest.raises(AttributionError, match=reason) as error:
        METHODS[method](make().eval()).attribute(inputs, 0)
    assert "\n" not in str(error.value)


def test_cross_attention_is_explained_by_relevance(inputs):
    model = CrossAttention().eval()
    maps = AttnLRP(model).attribute(inputs, 0)  # which checks conservation
    gradient = Saliency(model).attribute(inputs, 0)
    assert torch.equal(maps != 0, gradient != 0)


@pytest.mark.parametrize("method", [*OF_TOKENS, "TokenGradCAM"])
@pytest.mark.filterwarnings("ignore")
def test_attention_that_is_hidden_is_refused_by_name(method, inputs):
    with pytest.raises(AttributionError, match="cannot read the attention that is computed by"):
        METHODS[method](Scripted().eval()).attribute(inputs, 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("setting", ["add_bias_kv", "add_zero_attn"])
def test_additional_keys_are_refused(method, setting, inputs):
    model = network("class token")
    model.encoder.layers[0].self_attn = nn.MultiheadAttention(8, 2, batch_first=True, **{setting: True})
    with pytest.raises(AttributionError, match="add_zero_attn, add_bias_kv"):
        METHODS[method](model.eval()).attribute(inputs, 0)


@pytest.mark.parametrize("method", METHODS)
def test_probabilities(method, inputs):
    score = ClassScore(network("class token"), "probability")
    if method == "AttnLRP":
        with pytest.raises(AttributionError, match="decomposes a logit"):
            AttnLRP(score)
    else:
        assert METHODS[method](score).attribute(inputs, 0).abs().sum() > 0


# -- a trained transformer ---------------------------------------------------------------------------

PATTERN = torch.randn(PATCH, generator=torch.Generator().manual_seed(3))


def planted(n, seed):
    """Volumes of noise with a pattern in one patch at random; its sign is the class."""
    generator = torch.Generator().manual_seed(seed)
    volumes = torch.randn(n, *SHAPE, generator=generator)
    classes = torch.randint(2, (n,), generator=generator)
    truth = torch.zeros(n, *SHAPE, dtype=torch.bool)
    places = torch.stack([torch.randint(g, (n,), generator=generator) for g in GRID], 1).tolist()
    for volume, mask, place, target in zip(volumes, truth, places, classes, strict=True):
        box = tuple(slice(p * size, (p + 1) * size) for p, size in zip(place, PATCH, strict=True))
        volume[box] += 1.5 * (2 * target - 1) * PATTERN
        mask[box] = True
    return volumes[:, None], classes, truth


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model = SmallViT(width=16).train()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for step in range(80):
        volumes, classes, _ = planted(32, seed=step + 1)
        optimizer.zero_grad()
        F.cross_entropy(model(volumes), classes).backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("method", ["AttentionRollout", "AttentionRelevance", "AttnLRP"])
def test_a_trained_transformer_is_explained_by_its_patch(method, trained):
    volumes, classes, truth = planted(32, seed=0)
    assert (trained(volumes).argmax(1) == classes).float().mean() > 0.9
    maps = METHODS[method](trained).attribute(volumes, classes)[:, 0].flatten(1)
    n_true = math.prod(PATCH)
    rank_accuracy = truth.flatten(1).gather(1, maps.topk(n_true).indices).float().mean()
    chance = 1 / math.prod(GRID)
    assert rank_accuracy > 8 * chance


# -- the calling context -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_precision_and_modes_of_the_caller(method, dtype, inputs):
    model = network("class token").to(dtype)
    volumes = inputs.to(dtype)
    expected = METHODS[method](model.float()).attribute(volumes.float(), 1)
    with torch.inference_mode():
        maps = METHODS[method](model.to(dtype)).attribute(volumes.clone(), 1)
    assert maps.dtype == dtype
    rounding = max(torch.finfo(dtype).eps, 1e-5)
    torch.testing.assert_close(
        maps.float(), expected, rtol=rounding, atol=rounding * expected.abs().max().item()
    )


@pytest.mark.parametrize("method", METHODS)
def test_other_outputs_than_a_table_of_classes(method, inputs):
    model = network("class token")
    model.head = nn.Identity()
    model.forward = lambda x: (SmallViT.forward(model, x),)
    with pytest.raises(AttributionError, match=r"^the network returns a tuple: .*wrap the network"):
        METHODS[method](model).attribute(inputs, 1)
