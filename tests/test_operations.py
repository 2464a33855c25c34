"""Operations without a rule are refused by name; those with a rule are explained correctly."""

from __future__ import annotations

import pytest
import torch
from conftest import SHAPE, ToyNet
from step_networks import ACTIVATIONS, POOLING, Step
from torch import nn
from torch.nn import functional as F

from xai_brain.attribution import LRP, DeepLift, GuidedBackprop, InputXGradient, IntegratedGradients, Saliency
from xai_brain.attribution.completeness import sums
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.operations import trace


class Gate(nn.Module):
    def forward(self, x):
        return x * x.flip(2)


class Standardised(nn.Module):
    def forward(self, x):
        return (x - x.mean((1, 2, 3, 4), keepdim=True)) / x.std((1, 2, 3, 4), keepdim=True)


class Divided(nn.Module):
    def forward(self, x):
        return x / x.mean((1, 2, 3, 4), keepdim=True)


class Chosen(nn.Module):
    def forward(self, x):
        return torch.where(x > 0.2, x, 0.1 * x)


class Attention(nn.Module):
    def forward(self, x):
        tokens = x.flatten(2)
        return (tokens @ tokens.transpose(1, 2) @ tokens).view_as(x)


class Switch(nn.Module):
    def forward(self, x):
        return x if x.mean() > 0 else 2 * x


class Looked(nn.Module):
    """The mask of a comparison has no gradient, and depends on the image all the same."""

    def forward(self, x):
        return x * (x > 0.2)


class Written(nn.Module):
    """Into a constant, in place, by a view."""

    def forward(self, x):
        out = torch.zeros_like(x)
        out[:, :2] = x[:, :2]
        return out * out


def amax(x):
    return x - x.amax((2, 3, 4), keepdim=True)


NORMS = {
    "InstanceNorm": nn.InstanceNorm3d(4),
    "GroupNorm": nn.GroupNorm(2, 4),
    "LayerNorm": nn.LayerNorm(SHAPE),
}
DATA_DEPENDENT = {
    "gate": (Gate(), r"the product of two activations \(mul\) in module 'step' \(Gate\)"),
    "standardised": (Standardised(), r"the operation std in module 'step' \(Standardised\)"),
    "divided": (Divided(), r"the division by an activation \(div\) in module 'step' \(Divided\)"),
    "where": (Chosen(), "the operation gt in module 'step'"),
    "attention": (Attention(), r"the product of two activations \(bmm\) in module 'step' \(Attention\)"),
    "control flow": (Switch(), "the operation gt in module 'step'"),
    "mask": (Looked(), "the operation gt in module 'step'"),
    "view": (Written(), r"the product of two activations \(mul\) in module 'step' \(Written\)"),
    "norm": (lambda x: x / x.norm(), r"the operation linalg_vector_norm in the forward method of Step"),
}
NAMES = {GuidedBackprop: "guided backpropagation", DeepLift: "DeepLIFT", LRP: "LRP"}


@pytest.mark.parametrize("make", NAMES)
@pytest.mark.parametrize("name", DATA_DEPENDENT)
def test_operations_that_no_rule_covers_are_refused_by_name(make, name, inputs):
    step, reason = DATA_DEPENDENT[name]
    with pytest.raises(
        AttributionError, match=f"{NAMES[make]} has no rule for {reason}.*IntegratedGradients"
    ):
        make(Step(step)).attribute(inputs, 1)


@pytest.mark.parametrize("make", [DeepLift, LRP])
@pytest.mark.parametrize("name", NORMS)
def test_normalisation_by_the_image_is_not_linear(make, name, inputs):
    norm = NORMS[name]
    reason = r"has no rule for the normalisation by statistics of the image \(native_\w+_norm\)"
    with pytest.raises(AttributionError, match=reason):
        make(Step(norm)).attribute(inputs, 1)


@pytest.mark.parametrize(
    "name", ["GELU", "Mish", "Hardswish", "ReLU6", "clamp", "Sigmoid", "LeakyReLU", "clamp(min=0)"]
)
def test_guided_backprop_refuses_other_gates_beside_a_relu(name, inputs):
    with pytest.raises(AttributionError, match="guided backpropagation has no rule for the operation"):
        GuidedBackprop(Step(nn.Identity(), ACTIVATIONS[name])).attribute(inputs, 1)


@pytest.mark.parametrize("name", ["GELU", "Mish", "Hardswish", "ReLU6", "clamp", "Sigmoid", "Tanh"])
def test_lrp_refuses_activations_that_do_not_scale(name, inputs):
    with pytest.raises(AttributionError, match="LRP has no rule for the operation"):
        LRP(Step(nn.Identity(), ACTIVATIONS[name])).attribute(inputs, 1)


@pytest.mark.parametrize("step", [*POOLING.values(), nn.LeakyReLU(0.1), nn.PReLU(), lambda x: x.clamp(min=0)])
def test_lrp_without_rules_is_input_times_gradient_whatever_the_biases(step, inputs):
    model = Step(step)
    maps = LRP(model, gamma=0, epsilon=0).attribute(inputs, 1)
    expected = InputXGradient(model).attribute(inputs, 1)
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


class Shifted(nn.Module):
    """Constants wherever they can be: before, between and after the layers, on both sides of a minus."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.net = ToyNet()
        self.norm = nn.BatchNorm3d(1)
        self.norm.running_mean.fill_(0.4)
        self.functional = nn.Parameter(torch.randn(2, 2))

    def forward(self, x):
        x = 0.3 - self.norm(x - torch.linspace(-1, 1, x.shape[-1]))
        return F.linear(self.net(x) + 0.7, self.functional, torch.tensor([0.5, -1.0]))


def test_relevance_of_constants_and_voxels_sums_to_the_output(inputs):
    model = Shifted().eval()
    doubled = 2 * model(inputs)[:, 1].detach() - 2 * model(0 * inputs)[:, 1].detach()
    maps = LRP(model).attribute(inputs, 1)  # refuses if the sum is not conserved
    # the voxels alone do not: constants have their share
    total, _ = sums(maps)
    assert ((total - model(inputs)[:, 1]).abs() > 0.05 * model(inputs)[:, 1].abs()).all()
    assert doubled.isfinite().all()


def test_a_network_that_loses_relevance_is_refused(inputs):
    class Constant(ToyNet):  # concatenated, a constant is neither added nor a bias
        def forward(self, x):
            x = self.relu2(self.conv2(self.pool(self.relu1(self.norm(self.conv1(x)))))).mean((2, 3, 4))
            return self.linear(torch.cat([x[:, :5], torch.full((len(x), 1), 50.0)], 1))

    with pytest.raises(AttributionError, match=r"LRP: the attributions of volume 0 sum to .* tolerance 5 ?%"):
        LRP(Constant().eval()).attribute(inputs, 1)


class OwnRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.relu(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (ctx.saved_tensors[0] > 0)


@pytest.mark.parametrize("make", [GuidedBackprop, DeepLift])
def test_functions_inside_an_autograd_function_are_not_reached(make, inputs):
    model = Step(nn.Identity(), OwnRelu.apply)
    with pytest.raises(
        AttributionError, match="has no rule for the operation relu in the forward method of Step"
    ):
        make(model).attribute(inputs, 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_networks_are_explained_or_refused(toy_net, inputs):
    scripted = torch.jit.trace(toy_net, inputs)
    for make in (Saliency, InputXGradient, IntegratedGradients):
        torch.testing.assert_close(
            make(scripted).attribute(inputs, 1), make(toy_net).attribute(inputs, 1), rtol=1e-3, atol=1e-6
        )
    for make in (GuidedBackprop, DeepLift, LRP):
        with pytest.raises(
            AttributionError, match="has no rule for the operation _convolution in the network"
        ):
            make(scripted).attribute(inputs, 1)


def test_operations_are_traced_with_their_places(toy_net, inputs):
    kinds = {(o.name, o.kind, o.place) for o in trace(toy_net, inputs[:1])}
    assert ("convolution", "affine", "module 'conv1' (Conv3d)") in kinds
    assert ("native_batch_norm", "affine", "module 'norm' (BatchNorm3d)") in kinds
    assert ("max_pool3d_with_indices", "max", "module 'pool' (MaxPool3d)") in kinds
    assert ("mean", "linear", "the forward method of ToyNet") in kinds
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in toy_net.modules())


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda x: 2 * x / torch.full((16,), 3.0) - x, "linear"),
        (lambda x: 1 - x, "affine"),
        (lambda x: F.pad(x, (1, 1), value=2.0), "affine"),
        (lambda x: F.pad(x, (1, 1)), "linear"),
        (lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"), "linear"),
        (lambda x: torch.einsum("ncxyz,z->n", x, torch.ones(16)), "linear"),
        (lambda x: torch.einsum("ncxyz,ncxyz->n", x, x), "product"),
        (lambda x: F.conv3d(x, torch.ones(1, 1, 2, 2, 2)), "affine"),
        (lambda x: F.conv3d(x, x[..., :2, :2, :2]), "product"),
        (lambda x: x[:, :, [0, 1]], "shape"),
        (lambda x: torch.ones(14)[x[0, 0, 0, :, 0].long()], "other"),
        (lambda x: torch.div(x, 2, rounding_mode="floor"), "other"),
        (lambda x: x.clamp(min=0.0), "homogeneous"),
        (lambda x: x.clamp(0, 1), "other"),
        (lambda x: F.batch_norm(x, None, None, training=True), "normalisation"),
        (lambda x: F.batch_norm(x, torch.zeros(1), torch.ones(1)), "affine"),
        (lambda x: x.double().exp(), "other"),
        (lambda x: torch.zeros_like(x) + x.new_ones(1) * x.shape[0], None),
    ],
)
def test_kinds_of_operations(function, kind, inputs):
    class Model(nn.Module):
        def forward(self, x):
            function(x)
            return x.flatten(1)[:, :2]

    order = [
        "shape",
        "linear",
        "homogeneous",
        "affine",
        "max",
        "normalisation",
        "division",
        "product",
        "other",
    ]
    kinds = [operation.kind for operation in trace(Model(), inputs[:1])]
    kinds = [k for k in kinds if k != "shape"] or (["shape"] if kind else [])
    assert max(kinds, key=order.index, default=None) == kind
