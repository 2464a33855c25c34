"""TF32 and bfloat16 are used where they are correct, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from conftest import ToyNet
from torch import nn

from xai_brain.attribution import ClassScore, MeaningfulPerturbation, Saliency, reduced_precision
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.reduced_precision import full_float32

REAL_CONVOLUTION = nn.functional.conv3d
TARGETS = torch.tensor([0, 1, 1])


class PlaceNet(ToyNet):
    """A network whose output depends on where a feature lies."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6 * 6 * 7 * 8, 2)

    def forward(self, x):
        x = self.pool(self.relu1(self.norm(self.conv1(x))))
        return self.linear(self.relu2(self.conv2(x)).flatten(1))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ClassScore(PlaceNet().eval(), "probability")


@pytest.fixture(autouse=True)
def _tf32():
    """TF32 is allowed, as in PyTorch by default, and the setting of the process comes back."""
    kept = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32 = kept


def rounds_to_bfloat16():
    return torch.is_autocast_enabled("cpu")


def rounds_to_tf32():
    return torch.backends.cudnn.allow_tf32


@pytest.fixture
def break_convolutions(monkeypatch):
    """Let convolutions of more than `n_correct` volumes displace their result where `rounds()` is true."""

    def break_where(rounds, n_correct=0):
        def convolution(volumes, *args, **kwargs):
            result = REAL_CONVOLUTION(volumes, *args, **kwargs)
            return result.roll(2, 2) if rounds() and len(volumes) > n_correct else result

        monkeypatch.setattr(nn.functional, "conv3d", convolution)
        if rounds is rounds_to_tf32:  # as on a CUDA device
            monkeypatch.setattr(reduced_precision, "uses_tf32", lambda device: rounds_to_tf32())

    return break_where


def gradients(network, inputs, precision="float32", chunk_size=None):
    engine = BatchedScorer(network, chunk_size, precision)
    with engine.prepared(inputs):
        return engine.gradients(inputs, 0 * inputs, torch.full_like(inputs, 0.3), TARGETS.to(inputs.device))


@pytest.mark.parametrize(
    ("rounds", "precision", "name"),
    [(rounds_to_bfloat16, "bfloat16", "bfloat16"), (rounds_to_tf32, "float32", "TF32")],
)
def test_incorrect_convolutions_are_noticed_and_float32_is_used(
    rounds, precision, name, break_convolutions, network, inputs
):
    scores, expected = gradients(network, inputs)
    break_convolutions(rounds)
    with pytest.warns(RuntimeWarning, match=rf"{name} arithmetic is incorrect on cpu .*: float32 is used"):
        found = gradients(network, inputs, precision)
    torch.testing.assert_close(found[0], scores, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found[1], expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    assert rounds_to_tf32()  # the setting is as it was


def test_errors_of_large_passes_only_are_noticed(break_convolutions, network, inputs):
    break_convolutions(rounds_to_bfloat16, n_correct=1)
    with pytest.warns(RuntimeWarning, match="bfloat16 arithmetic is incorrect"):
        gradients(network, inputs, "bfloat16", chunk_size=2)


def test_correct_bfloat16_is_used_without_a_warning(network, inputs):
    engine = BatchedScorer(network, precision="bfloat16")
    with engine.prepared(inputs):
        scores = engine.scores(inputs, TARGETS)
    exact = network(inputs)[torch.arange(3), TARGETS].detach()
    assert not torch.equal(scores, exact)
    torch.testing.assert_close(scores, exact, rtol=0.02, atol=0)


def test_gradients_of_the_network_itself_are_checked_as_well(break_convolutions, network, inputs):
    expected = Saliency(network).attribute(inputs, 1)
    break_convolutions(rounds_to_tf32)
    with pytest.warns(RuntimeWarning, match="TF32 arithmetic is incorrect"):
        found = Saliency(network).attribute(inputs, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


def test_masks_in_bfloat16_are_those_of_float32_where_it_is_incorrect(break_convolutions, network, inputs):
    settings = {"fill": "zero", "n_iter": 4}
    expected = MeaningfulPerturbation(network, **settings).attribute(inputs, 1)
    break_convolutions(rounds_to_bfloat16)
    with pytest.warns(RuntimeWarning, match="bfloat16 arithmetic is incorrect"):
        found = MeaningfulPerturbation(network, precision="bfloat16", **settings).attribute(inputs, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_settings_of_the_process_come_back_after_an_exception():
    def use():
        with full_float32():
            assert not rounds_to_tf32()
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        use()
    assert rounds_to_tf32()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.filterwarnings("ignore:.*arithmetic is incorrect:RuntimeWarning")
def test_on_cuda_the_gradients_are_those_of_the_cpu_whatever_the_convolutions_do(precision, network, inputs):
    _, expected = gradients(network, inputs)
    _, found = gradients(network.cuda(), inputs.cuda(), precision)
    similarity = torch.nn.functional.cosine_similarity(found.cpu().flatten(1), expected.flatten(1))
    assert similarity.min() > (0.95 if precision == "bfloat16" else 0.999)
