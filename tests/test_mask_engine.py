"""The engine: an exact copy of the network, gradients in chunks, what memory allows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ToyNet
from torch import nn

from xai_brain.attribution import ClassScore, GuidedBackprop, InputXGradient, Saliency
from xai_brain.attribution.first_convolution import FirstConvolution
from xai_brain.attribution.memory import volumes_that_fit
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer, moved
from xai_brain.attribution.perturbation.eval_copy import _same_function, eval_copy
from xai_brain.attribution.perturbation.memory_layout import use_faster_layout
from xai_brain.models.calibrated import channels_last
from xai_brain.models.networks.kan2020 import Kan2020


@pytest.fixture
def awkward_net():
    """Batch norm that matters: negative gains, means far from 0; ReLU before the pooling."""
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Conv3d(1, 4, 3),
        nn.BatchNorm3d(4),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(4, 3, 3, bias=False),
        nn.BatchNorm3d(3),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(3, 2),
    )
    for norm in (net[1], net[5]):
        norm.weight.data.normal_()
        norm.bias.data.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 3)
    return net.eval()


def test_fast_copy_is_the_same_function_with_fewer_layers(awkward_net, inputs):
    before = {key: value.clone() for key, value in awkward_net.state_dict().items()}
    fast = eval_copy(awkward_net, inputs)
    assert fast is not awkward_net
    kinds = [type(dict(fast.named_modules())[n.target]) for n in fast.graph.nodes if n.op == "call_module"]
    assert nn.BatchNorm3d not in kinds
    assert kinds.index(nn.MaxPool3d) < kinds.index(nn.ReLU)
    for x in (inputs, 10 * inputs):
        leaf_a, leaf_b = x.clone().requires_grad_(), x.clone().requires_grad_()
        out_a, out_b = awkward_net(leaf_a), fast(leaf_b)
        torch.testing.assert_close(out_a, out_b, rtol=1e-4, atol=1e-5)
        gradient_a, gradient_b = (
            torch.autograd.grad(o[:, 1].sum(), leaf)[0] for o, leaf in ((out_a, leaf_a), (out_b, leaf_b))
        )
        torch.testing.assert_close(gradient_a, gradient_b, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(value, before[key]) for key, value in awkward_net.state_dict().items())
    assert all(parameter.requires_grad for parameter in awkward_net.parameters())


@pytest.mark.parametrize("output", ["logit", "logit_difference", "probability"])
def test_the_fast_copy_reaches_through_the_checks_of_outputs(output, awkward_net, inputs):
    scored = ClassScore(awkward_net, output).eval()
    fast = eval_copy(scored, inputs)
    assert fast is not scored
    called = [fast.get_submodule(n.target) for n in fast.graph.nodes if n.op == "call_module"]
    assert not any(isinstance(module, nn.BatchNorm3d) for module in called)
    torch.testing.assert_close(fast(inputs), scored(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [(3, 3, 3), (5, 3, 2)])
@pytest.mark.parametrize("shape", [(12, 14, 16), (9, 12, 11)])
def test_first_convolution_goes_back_to_the_image_as_the_usual_one(shape, kernel):
    torch.manual_seed(0)
    usual = nn.Conv3d(1, 6, kernel)
    fast = FirstConvolution(usual)
    results = []
    for layer in (usual, fast):
        x = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
        output = layer(x)
        results.append((output.detach(), torch.autograd.grad((output**2).sum(), x)[0]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)
    assert FirstConvolution.fits(usual)
    assert not FirstConvolution.fits(nn.Conv3d(1, 6, 3, stride=2))
    assert not FirstConvolution.fits(nn.Conv3d(2, 6, 3))


class Branching(ToyNet):
    def forward(self, x):
        return super().forward(x if x.mean() > 1e9 else 2 * x)  # cannot be traced


@pytest.mark.parametrize("make", [Branching, lambda: ToyNet().train()])
def test_a_model_that_cannot_be_copied_faithfully_is_used_itself(make, inputs):
    torch.manual_seed(0)
    model = make()
    assert eval_copy(model, inputs) is model


@pytest.mark.parametrize("seed", range(3))
def test_near_ties_that_rounding_turns_do_not_refuse_the_fast_copy(seed):
    """Of millions of feature voxels some are always nearly 0, or nearly the largest of their pool."""
    torch.manual_seed(seed)
    model = channels_last(Kan2020(dropout=0.0)).eval()
    volumes = torch.rand(1, 1, 58, 70, 58)
    fast = eval_copy(model, volumes)
    assert fast is not model
    torch.testing.assert_close(fast(volumes), model(volumes), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [0.9, 1.0])
def test_a_copy_of_the_same_output_and_another_gradient_is_not_the_same(awkward_net, inputs, share):
    class Weaker(nn.Module):
        def forward(self, x):
            return awkward_net(share * x + (1 - share) * x.detach())

    assert _same_function(awkward_net, Weaker(), inputs[:1], 1e-4) is (share == 1)


@pytest.mark.parametrize("method", [GuidedBackprop, Saliency, InputXGradient])
def test_the_quick_way_back_is_used_and_taken_off_again(method, monkeypatch):
    torch.manual_seed(0)
    model = Kan2020((30, 34, 31), channels=(4, 4, 4)).eval()
    volumes = torch.randn(2, 1, 30, 34, 31)
    calls, quick = [], FirstConvolution.forward
    monkeypatch.setattr(FirstConvolution, "forward", lambda self, x: calls.append(self) or quick(self, x))
    maps = method(model).attribute(volumes, 1)
    assert (n := len(calls))
    assert "forward" not in vars(model.block1.conv)
    monkeypatch.setattr(FirstConvolution, "fits", staticmethod(lambda module: False))
    usual = method(model).attribute(volumes, 1)
    assert len(calls) == n
    assert (maps - usual).abs().max() <= 1e-5 * usual.abs().max()


def test_a_shared_layer_is_not_folded(inputs):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv3d(1, 1, 3, padding=1), nn.BatchNorm3d(1)
            self.norm.running_var.fill_(4)
            self.linear = nn.Linear(1, 2)

        def forward(self, x):
            return self.linear(self.conv(self.norm(self.conv(x))).mean((2, 3, 4)))

    model = Shared().eval()
    fast = eval_copy(model, inputs)
    torch.testing.assert_close(fast(inputs), model(inputs))


@pytest.mark.parametrize("chunk_size", [1, 2, 5, None])
def test_gradients_are_those_of_autograd(awkward_net, inputs, chunk_size):
    fills, replaced = torch.zeros_like(inputs), torch.rand_like(inputs)
    targets = torch.tensor([0, 1, 1])
    shifts = torch.tensor([[0, 0, 0], [1, -2, 0], [0, 1, 1]])
    engine = BatchedScorer(ClassScore(awkward_net, "probability"), chunk_size)
    with engine.prepared(inputs, targets):
        scores, gradients = engine.gradients(
            inputs, fills, replaced, targets, shifts.expand(3, -1, -1), floor=0.2
        )
    leaf = replaced.clone().requires_grad_()
    perturbed = inputs * (1 - leaf)
    expected = 0
    for shift in shifts:
        probability = awkward_net(moved(perturbed, shift.expand(3, 3))).softmax(1)
        expected = expected + (probability[torch.arange(3), targets] - 0.2).clamp_min(0) / 3
    (expected_gradients,) = torch.autograd.grad(expected.sum(), leaf)
    torch.testing.assert_close(scores, expected.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-3, atol=1e-7)


def test_moved_puts_content_where_it_was_told():
    volumes = torch.zeros(2, 1, 5, 6, 7)
    volumes[:, 0, 2, 3, 4] = 1
    volumes[:, 0, 4] += 5  # an edge
    result = moved(volumes, torch.tensor([[1, 0, -2], [-1, 1, 0]]))
    assert result[0, 0, 3, 3, 2] == 1
    assert result[1, 0, 1, 4, 4] == 1
    assert (result[1, 0, 4] == 5).all()  # the edge is repeated
    zeros = moved(volumes, torch.tensor([[1, 0, 0], [-1, 0, 0]]), "constant")
    assert (zeros[1, 0, 4] == 0).all()


def test_out_of_memory_halves_the_chunk_and_gives_the_same(toy_net, inputs):
    sizes = []

    class Small(nn.Module):
        def forward(self, x):
            sizes.append(len(x))
            if len(x) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return toy_net(x)

    targets = torch.tensor([0, 1, 0])
    engine = BatchedScorer(Small(), chunk_size=3)
    scores = engine.scores(inputs, targets)
    torch.testing.assert_close(scores, toy_net(inputs)[torch.arange(3), targets].detach())
    assert sizes == [3, 1, 1, 1]

    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        BatchedScorer(Broken(), chunk_size=2).scores(inputs, targets)


def test_chunk_follows_the_memory(toy_net, inputs, monkeypatch):
    memory = "xai_brain.attribution.memory"
    assert volumes_that_fit(toy_net, inputs[:1]) == 8
    with monkeypatch.context() as patch:
        patch.setattr(f"{memory}.MAX_BYTES", {"cpu": 1_000_000})  # a machine with much memory
        assert 1 <= volumes_that_fit(toy_net, inputs[:1]) < 8
    monkeypatch.setattr(f"{memory}._free_memory", lambda device: 1_000_000)
    assert 1 <= volumes_that_fit(toy_net, inputs[:1]) < 8
    monkeypatch.setattr(f"{memory}._free_memory", lambda device: 0)
    assert volumes_that_fit(toy_net, inputs[:1]) == 1


def test_bfloat16_goes_through_the_fast_copy(awkward_net, inputs):
    evidence = torch.full_like(inputs, 0.3)
    gradients = []
    for precision in ("float32", "bfloat16"):
        engine = BatchedScorer(ClassScore(awkward_net, "probability"), precision=precision)
        with engine.prepared(inputs):
            gradients.append(engine.gradients(inputs, 0 * inputs, evidence, torch.tensor([0, 1, 1]))[1])
    assert gradients[1].dtype == torch.float32
    assert np.corrcoef(gradients[0].ravel(), gradients[1].ravel())[0, 1] > 0.95


def test_the_layout_that_was_faster_is_used_and_timed_once(awkward_net, inputs, monkeypatch):
    timed, module = [], "xai_brain.attribution.perturbation.memory_layout"

    def seconds(network, volumes, layout):
        timed.append(layout)
        return {torch.channels_last_3d: 2.0, torch.contiguous_format: 1.0}[layout]

    monkeypatch.setattr(f"{module}._seconds", seconds)
    network = eval_copy(awkward_net, inputs)
    use_faster_layout(awkward_net, network, inputs)
    assert timed == []  # nothing to choose on CPUs
    on_device = inputs.to("meta")
    for _ in range(2):
        use_faster_layout(awkward_net, network, on_device)
    assert len(timed) == 2
    weight = next(w for w in network.parameters() if w.ndim == 5 and w.shape[1] > 1)
    assert weight.is_contiguous()
    assert not weight.is_contiguous(memory_format=torch.channels_last_3d)
    use_faster_layout(awkward_net, awkward_net, on_device)
    assert len(timed) == 2  # the model itself is not touched
