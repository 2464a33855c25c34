"""Networks, targets and inputs that a method cannot explain: one line that says what was expected."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from all_methods import METHODS, OF_A_CLASS, OF_A_MODEL, REFERENCE, reference_for
from conftest import SHAPE, ToyNet
from torch import nn

from xai_brain.attribution import (
    AmortizedMasker,
    AreaConstrainedPerturbation,
    ClassScore,
    GradientShap,
    IntegratedGradients,
    Kan2020Perturbation,
    MeanDifference,
    MeaningfulPerturbation,
    Occlusion,
    Saliency,
    TMap,
)
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.perturbation.replacement import ReplacementVolumes

SLOWER = {
    "AreaConstrained": lambda model: AreaConstrainedPerturbation(
        ClassScore(model, "probability"), REFERENCE, n_iter=2
    ),
    "Amortized": lambda model: AmortizedMasker(ClassScore(model, "probability"), REFERENCE, n_steps=2),
    "Kan2020": lambda model: Kan2020Perturbation(
        ClassScore(model, "probability"), n_iter=2, n_shifts=1, first_kept_iteration=0
    ),
}
ALL = METHODS | SLOWER
OF_MODELS, OF_CLASSES = [*OF_A_MODEL, *SLOWER], [*OF_A_CLASS, *SLOWER]


class Returns(nn.Module):
    """ToyNet, whose logits are returned in another form."""

    def __init__(self, form):
        super().__init__()
        self.net, self.form = ToyNet(), form

    def forward(self, x):
        return self.form(self.net(x))


OUTPUTS = {
    "a tuple": lambda logits: (logits, logits),
    "a dict": lambda logits: {"logits": logits},
    r"a tensor of shape \(\d,\)": lambda logits: logits[:, 0],
    "None": lambda logits: None,
}


@pytest.mark.parametrize("name", OF_MODELS)
@pytest.mark.parametrize("what", OUTPUTS)
def test_other_outputs_than_a_table_of_classes(name, what, inputs):
    model = Returns(OUTPUTS[what]).eval()
    with pytest.raises(
        AttributionError, match=rf"^the network returns {what}: .* \(N, n_classes\) is needed; wrap"
    ):
        ALL[name](model).attribute(inputs, target=1)


@pytest.mark.parametrize("name", OF_CLASSES)
@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (2, r"target 2: the (network|reference) has 2 classes, 0 to 1"),
        ([0, 5, 1], r"target 5: the (network|reference) has 2 classes, 0 to 1"),
        (-1, "target=-1: a class index is 0 or more"),
        (0.5, "target=0.5: an integer class index is needed"),
        (
            "male",
            "target='male': an integer class index is needed, one for all volumes or one for each of the 3",
        ),
        ([0, 1], r"target=\[0, 1\]: an integer class index is needed"),
        (True, "target=True: an integer class index is needed"),
    ],
)
def test_targets_that_are_no_class(name, target, reason, toy_net, inputs):
    with pytest.raises(AttributionError, match=f"^{reason}"):
        ALL[name](toy_net).attribute(inputs, target=target)


def test_targets_may_be_anything_that_holds_class_indices(toy_net, inputs):
    expected = Saliency(toy_net).attribute(inputs, torch.tensor([1, 0, 1]))
    for target in ([1, 0, 1], np.array([1, 0, 1]), torch.tensor([1, 0, 1], dtype=torch.uint8)):
        assert torch.equal(Saliency(toy_net).attribute(inputs, target), expected)
    assert torch.equal(Saliency(toy_net).attribute(inputs, np.int64(1))[0], expected[0])


@pytest.mark.parametrize("output", ["probability", "logit_difference"])
@pytest.mark.parametrize("name", [name for name in OF_MODELS if name not in ("DeepLift", "LRP")])
def test_one_logit_has_neither_probabilities_nor_a_difference(name, output, inputs):
    model = ClassScore(Returns(lambda logits: logits[:, :1]).eval(), output)
    with pytest.raises(
        AttributionError, match=r"^the network returns one logit: .* needs one logit per class"
    ):
        ALL[name](model).attribute(inputs, target=0)


@pytest.mark.parametrize("name", ["DeepLift", "LRP"])
def test_one_logit_has_no_difference_for_methods_of_logits(name, inputs):
    model = ClassScore(Returns(lambda logits: logits[:, :1]).eval(), "logit_difference")
    with pytest.raises(AttributionError, match=r"^the network returns one logit"):
        ALL[name](model).attribute(inputs, target=0)


def test_the_only_logit_itself_is_explained(inputs):
    model = Returns(lambda logits: logits[:, 1:]).eval()
    torch.testing.assert_close(Saliency(model).attribute(inputs, 0), Saliency(model.net).attribute(inputs, 1))
    with pytest.raises(AttributionError, match=r"^target 1: the network has one output, target 0"):
        Saliency(ClassScore(model)).attribute(inputs, 1)


class TwoChannels(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu, self.linear = nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(self.relu(self.conv(x)).mean((2, 3, 4)))


@pytest.fixture
def two_channels():
    return torch.randn(2, 2, *SHAPE, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", ["RegionAblation", "AreaConstrained", "Amortized", "Kan2020", "Edges"])
def test_methods_of_one_channel_refuse_two(name, two_channels):
    with pytest.raises(AttributionError, match=r"takes volumes with one channel, \(N, 1, X, Y, Z\), not 2$"):
        ALL[name](TwoChannels().eval()).attribute(two_channels, target=1)


@pytest.mark.parametrize("fill", ["blur", "kan2020_blur", "brain_mean"])
def test_fills_are_made_of_each_channel(fill, two_channels):
    targets, brain = torch.zeros(len(two_channels), dtype=torch.long), torch.ones_like(two_channels[:1, :1])
    fills = ReplacementVolumes(fill, None, 6.0, (2, 2, 2))
    made = fills.make(two_channels, targets, brain, torch.Generator())[0]
    for k in (0, 1):
        alone = fills.make(two_channels[:, k : k + 1], targets, brain, torch.Generator())[0]
        torch.testing.assert_close(made[:, k : k + 1], alone)


@pytest.mark.parametrize(
    "make",
    [
        IntegratedGradients,
        GradientShap,
        Occlusion,
        MeaningfulPerturbation,
        MeanDifference,
        TMap,
        lambda model, reference: IntegratedGradients(model, reference, "nearest_counterfactual"),
    ],
)
def test_a_reference_of_other_volumes_is_refused(make, two_channels, inputs, toy_net):
    reason = r"the reference is made of volumes of shape \(1, .*both have to be equal"
    with pytest.raises(AttributionError, match=reason):
        make(TwoChannels().eval(), REFERENCE).attribute(two_channels, target=1)
    with pytest.raises(AttributionError, match=reason):
        make(toy_net, reference_for((12, 14, 15))).attribute(inputs, target=1)


def test_two_channels_are_occluded_where_either_is_not_zero(two_channels):
    """The score is the sum of the second channel, which alone reaches beyond the first eight voxels."""

    class Second(nn.Module):
        def forward(self, x):
            return x[:, 1].sum((1, 2, 3))[:, None]

    two_channels[:, 0, 8:] = 0
    method = Occlusion(Second(), fill="zero", voxel_size_mm=(1, 1, 1), window_mm=99, n_levels=1)
    total = method.attribute(two_channels, 0).sum((1, 2, 3, 4))
    torch.testing.assert_close(total, two_channels[:, 1].sum((1, 2, 3)), rtol=1e-4, atol=1e-3)
