"""Mask methods: the truths of mathematics, and planted boxes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BOX, SHAPE, BoxDetector, ToyNet, boxed_reference
from torch import nn

from xai_brain.attribution import (
    AmortizedMasker,
    AreaConstrainedPerturbation,
    ClassScore,
    Kan2020Perturbation,
    MeaningfulPerturbation,
)
from xai_brain.attribution.methods.area_constrained import area_constrained_mask
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.outputs import gives_probabilities
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.perturbation.masks import total_variation, upsampled
from xai_brain.attribution.perturbation.score_scale import ScoreScale, on_scale


def subjects(n=2, seed=0):
    noise = 0.3 * torch.randn(n, 1, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return boxed_reference().class_means[1:].expand(n, -1, -1, -1, -1) + noise


def share_in_box(maps):
    """Of the voxels of the box, how many are among the highest of a map: relevance rank accuracy."""
    truth = torch.zeros(SHAPE, dtype=torch.bool)
    truth[BOX] = True
    n = int(truth.sum())
    return [truth.flatten()[m[0].flatten().topk(n).indices].float().mean().item() for m in maps]


BOX_SETTINGS = {"mask_spacing_voxels": 2, "shift_voxels": (0, 0)}


def test_total_variation_is_that_of_the_upsampled_mask():
    ramp = torch.linspace(0, 1, 9).view(1, 1, 9, 1, 1).expand(1, 1, 9, 9, 9).contiguous()
    fine = upsampled(ramp, (36, 36, 36))
    # away from the ends, where the upsampled mask is flat for half a node
    expected = fine.diff(dim=2)[:, :, 4:-4].abs().pow(3).mean()
    torch.testing.assert_close(total_variation(ramp, 4, 3)[0], expected, rtol=1e-3, atol=0)


# -- modes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["deletion", "preservation", "both"])
def test_every_mode_finds_a_planted_box(mode):
    model = ClassScore(BoxDetector(), "probability")
    method = MeaningfulPerturbation(model, boxed_reference(), mode=mode, tv_weight=0.8, **BOX_SETTINGS)
    results = method.optimize(subjects(), target=1)
    assert min(share_in_box([result.evidence for result in results])) > 0.6  # chance is 0.04
    for result in results:
        assert result.score_before > 0.9
        assert result.area < 0.2
        if mode != "preservation":
            assert result.score_after < 0.3
        if mode != "deletion":
            assert result.score_preserved > 0.7


def test_masks_of_logits_do_not_depend_on_the_scale_of_a_network():
    class Scaled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.network, self.factor = BoxDetector(), factor

        def forward(self, x):
            return self.factor * self.network(x)

    maps, details = {}, {}
    for factor in (1, 20):
        model = ClassScore(Scaled(factor), "logit_difference")
        method = MeaningfulPerturbation(model, boxed_reference(), tv_weight=0.8, **BOX_SETTINGS)
        maps[factor], details[factor] = method.attribute_with_details(subjects(), target=1)
    torch.testing.assert_close(maps[1], maps[20], atol=1e-3, rtol=0)
    assert min(share_in_box(maps[20])) > 0.6
    for name in ("ScoreCentre", "ScoreWidth"):
        assert details[20][0][name] == pytest.approx(20 * details[1][0][name], rel=1e-3)
    assert 0.02 < details[20][0]["Area"] < 0.3  # neither nothing nor everything


@pytest.mark.parametrize("output", ["logit", "logit_difference"])
def test_masks_of_logits_are_as_small_as_those_of_probabilities(output):
    """A logit falls without limit when more is replaced; on its scale this does not pay."""
    areas = {}
    for each in ("probability", output):
        method = MeaningfulPerturbation(
            ClassScore(BoxDetector(), each), boxed_reference(), tv_weight=0.8, **BOX_SETTINGS
        )
        results = method.optimize(subjects(), target=1)
        areas[each] = np.mean([result.area for result in results])
        assert min(share_in_box([result.evidence for result in results])) > 0.6
    assert areas[output] < 1.5 * areas["probability"]


def test_typical_scores_of_the_classes_are_near_the_ends_of_the_scale():
    reference = boxed_reference(n=24)
    engine = BatchedScorer(ClassScore(BoxDetector(), "logit"))
    scale = ScoreScale(engine, reference).of(torch.tensor([1, 1, 0]))
    assert torch.equal(scale[0], scale[1])
    for k in (0, 1):
        target = torch.full((24,), k)
        scores = engine.scores(reference.volumes, target)
        value, slope = on_scale(scores, torch.ones(24, 1, 1, 1, 1), scale[[1 if k else 2]].expand(24, 2))
        own = reference.targets == k
        assert value[own].mean() == pytest.approx(0.95, abs=0.03)
        assert value[~own].mean() == pytest.approx(0.05, abs=0.03)
        leaf = scores.clone().requires_grad_()
        expected = torch.autograd.grad(
            ((leaf - scale[2 - 2 * k, 0]) / scale[2 - 2 * k, 1]).sigmoid().sum(), leaf
        )
        torch.testing.assert_close(slope.ravel(), expected[0])


def test_without_a_reference_the_image_and_its_replacement_are_the_ends_of_the_scale():
    engine = BatchedScorer(ClassScore(BoxDetector(), "logit"))
    images, targets = subjects(), torch.ones(len(subjects()), dtype=torch.long)
    replaced = torch.zeros_like(images)
    scale = ScoreScale(engine, None).of_images(images, replaced, targets)
    for volumes, expected in ((images, 0.95), (replaced, 0.05)):
        scores = engine.scores(volumes, targets)
        value, _ = on_scale(scores, torch.ones(len(images), 1, 1, 1, 1), scale)
        assert torch.allclose(value, torch.full_like(value, expected), atol=1e-4)


def test_whether_a_network_gives_probabilities_is_found_from_its_outputs():
    """A plain network of logits has the masks of its logits, one with a softmax those of probabilities."""
    logits, probabilities = BoxDetector(), nn.Sequential(BoxDetector(), nn.Softmax(1))
    assert not gives_probabilities(logits, subjects())
    assert gives_probabilities(probabilities, subjects())
    settings = {"reference": boxed_reference(), "tv_weight": 0.8, **BOX_SETTINGS}
    for plain, output in ((logits, "logit"), (probabilities, "probability")):
        stated = MeaningfulPerturbation(ClassScore(BoxDetector(), output), **settings).attribute(
            subjects(), 1
        )
        found = MeaningfulPerturbation(plain, **settings).attribute(subjects(), 1)
        torch.testing.assert_close(found, stated, rtol=0, atol=1e-4)


def test_a_network_that_separates_no_classes_has_a_scale():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 2)

    scale = ScoreScale(BatchedScorer(Constant()), boxed_reference()).of(torch.tensor([0]))
    assert scale.isfinite().all()
    assert scale[0, 1] > 0


def test_finished_subjects_leave_the_batch():
    sizes = []

    class Counting(BoxDetector):
        def forward(self, x):
            if torch.is_grad_enabled():
                sizes.append(len(x))
            return super().forward(x * torch.ones(len(x)).view(-1, 1, 1, 1, 1))

    torch.manual_seed(0)
    images = torch.cat([subjects(1), torch.zeros(1, 1, *SHAPE)])  # nothing speaks for class 1 in the second
    method = MeaningfulPerturbation(
        ClassScore(Counting(), "probability"), boxed_reference(), n_iter=200, tv_weight=0.8, **BOX_SETTINGS
    )
    first, second = method.optimize(images, target=1)
    assert second.stop_reason == "converged"
    assert second.n_iter < 200
    assert second.area < 0.02
    assert max(sizes) == 2
    assert sizes[-1] == 1
    assert first.n_iter > second.n_iter
    (alone,) = method.optimize(images[:1], target=1)
    torch.testing.assert_close(alone.mask, first.mask, atol=1e-4, rtol=0)


def test_a_group_of_one_has_the_mask_of_its_subject():
    model = ClassScore(BoxDetector(), "probability")
    method = MeaningfulPerturbation(model, boxed_reference(), **BOX_SETTINGS)
    group = method.optimize_group(subjects(1), target=1, n_iter=method.n_iter)
    (single,) = method.optimize(subjects(1), target=1)
    # the order of a group takes one draw of the generator before the start
    assert np.corrcoef(group.mask.ravel(), single.mask.ravel())[0, 1] > 0.99


def test_group_mask_finds_what_the_group_shares():
    model = ClassScore(BoxDetector(), "probability")
    method = MeaningfulPerturbation(model, boxed_reference(), tv_weight=0.8, **BOX_SETTINGS)
    result = method.optimize_group(subjects(6), target=1, n_checked=6)
    assert share_in_box([result.evidence])[0] > 0.7
    assert result.score_before > 0.9 > 0.3 > result.score_after


def test_checks_unmask_a_mask_that_works_with_one_fill_only():
    """A model that looks for the fill itself: its score falls with that fill, and with no other."""

    class LooksForTheFill(nn.Module):
        def forward(self, x):
            seen = ((x - 3).abs() < 1e-3).float().mean((1, 2, 3, 4))
            smooth = torch.sigmoid(6 - 40 * (x - 1).clamp(0, 2).mean((1, 2, 3, 4)) - 100 * seen)
            return torch.stack([1 - smooth, smooth], 1)

    reference = boxed_reference()
    reference.class_means[0] = 3.0
    method = MeaningfulPerturbation(LooksForTheFill(), reference, area_weight=0.1)
    result = method.optimize(torch.zeros(1, 1, *SHAPE) + 0.01 * torch.randn(1, 1, *SHAPE), target=1)[0]
    assert result.score_before > 0.9
    assert result.score_after < 0.3
    assert result.score_after_other_fill > 0.9
    assert set(result.details()) >= {"ScoreAfterOtherFill", "Area", "Saturation", "StopReason"}


def test_bfloat16_is_close_and_unknown_precision_is_refused(toy_net):
    model = ClassScore(BoxDetector(), "probability")
    fine = MeaningfulPerturbation(model, boxed_reference(), **BOX_SETTINGS)
    coarse = MeaningfulPerturbation(model, boxed_reference(), precision="bfloat16", **BOX_SETTINGS)
    a, b = fine.attribute(subjects(), 1), coarse.attribute(subjects(), 1)
    assert b.dtype == torch.float32
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.98
    with pytest.raises(AttributionError, match="one of float32, bfloat16"):
        BatchedScorer(toy_net, precision="float16")


# -- masks of fixed area -----------------------------------------------------------------------------


def test_area_is_exact_and_its_gradient_too():
    torch.manual_seed(0)
    values = torch.randn(2, 1, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    brain = (torch.rand(2, 1, 3, 4, 3) > 0.2).double()
    areas = torch.tensor([0.05, 0.4], dtype=torch.float64)
    masks = area_constrained_mask(values, areas, brain, 60)
    assert ((masks * brain).sum((1, 2, 3, 4)) / brain.sum((1, 2, 3, 4))).tolist() == pytest.approx(
        [0.05, 0.4]
    )
    assert not masks[brain == 0].any()
    weights = torch.randn_like(masks)
    assert torch.autograd.gradcheck(
        lambda v: (area_constrained_mask(v, areas, brain, 60) * weights).sum(), values
    )


def test_area_constrained_masks_find_the_box_and_their_curve_falls():
    model = ClassScore(BoxDetector(), "probability")
    method = AreaConstrainedPerturbation(model, boxed_reference(), areas=(0.01, 0.04, 0.2), **BOX_SETTINGS)
    curves = method.optimize(subjects(), target=1)
    for curve in curves:
        assert curve.evidence.mean((1, 2, 3)).tolist() == pytest.approx([0.01, 0.04, 0.2], abs=0.002)
        assert curve.score_before > curve.scores[0] > curve.scores[1] > curve.scores[2]
    assert min(share_in_box([curve.integrated for curve in curves])) > 0.7


# -- the published algorithm -------------------------------------------------------------------------


GOLDEN = Path(__file__).parent / "data" / "kan2020_mask.npz"


def published():
    """The slow, literal implementation of the benchmarks."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    import published

    return published


def small_network(shape, channels=4):
    """The kind of network of the golden file; probabilities."""
    n_features = channels * int(np.prod([(n - 2) // 4 for n in shape]))
    return nn.Sequential(
        *(nn.Conv3d(1, channels, 3), nn.ReLU(), nn.MaxPool3d(4), nn.Flatten()),
        *(nn.Linear(n_features, 2), nn.Softmax(1)),
    ).requires_grad_(False)


def pearson(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


@pytest.mark.parametrize("implementation", ["preset", "benchmark"])
def test_the_published_algorithm_gives_the_map_of_the_published_code(implementation):
    golden = np.load(GOLDEN)
    image = torch.from_numpy(golden["image"])[None, None]
    network = small_network(image.shape[2:])
    for place, name in ((0, "conv"), (4, "linear")):
        network[place].weight.copy_(torch.from_numpy(golden[f"{name}_weight"]))
        network[place].bias.copy_(torch.from_numpy(golden[f"{name}_bias"]))
    target, first_kept = int(golden["target"]), int(golden["first_kept_iteration"])
    assert network(image)[0, target] == pytest.approx(0.997, abs=5e-4)
    if implementation == "preset":
        assert first_kept == Kan2020Perturbation(network).first_kept_iteration
        attribution = Kan2020Perturbation(network, shifts=golden["shifts"]).attribute(image, target)
    else:
        shifts = torch.from_numpy(golden["shifts"])
        attribution, _ = published().published_perturbation(network, image, target, shifts)
    assert pearson(attribution[0, 0], golden["attribution"]) >= 0.9999
    assert np.abs(attribution[0, 0].numpy() - golden["attribution"]).max() < 1e-3


@pytest.mark.parametrize(("shape", "channels", "seed"), [((17, 20, 23), 3, 1), ((24, 19, 18), 6, 2)])
def test_the_preset_is_the_published_algorithm_for_other_volumes_and_networks(shape, channels, seed):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = small_network(shape, channels)
    network[4].weight.mul_(4)
    images = torch.rand(2, 1, *shape, generator=generator)  # not 0 at the edges, where zeros come in
    targets = network(images).argmax(1)
    shifts = published().published_shifts(54, 2, seed)
    maps = Kan2020Perturbation(network, shifts=shifts, chunk_size=4).attribute(images, targets)
    for i in range(2):
        expected, _ = published().published_perturbation(network, images[i : i + 1], int(targets[i]), shifts)
        assert maps[i].std() > 0
        assert pearson(maps[i], expected[0]) >= 0.9999


def test_the_preset_explains_the_papers_kind_of_network_as_published():
    torch.manual_seed(0)
    network = ClassScore(ToyNet().eval(), "probability")
    with torch.no_grad():
        network.model.linear.weight *= 20
    images = torch.randn(2, 1, 20, 24, 21, generator=torch.Generator().manual_seed(1))
    maps = Kan2020Perturbation(network, n_iter=54, n_shifts=2, random_state=7).attribute(images, target=1)
    shifts = published().published_shifts(54, 2, 7)
    for i in range(2):
        expected, _ = published().published_perturbation(network, images[i : i + 1], 1, shifts)
        assert maps[i].std() > 0
        assert pearson(maps[i], expected[0]) >= 0.9999


def test_settings_with_which_the_published_algorithm_gives_no_mask_are_refused(toy_net):
    with pytest.raises(AttributionError, match="set n_iter to 52 or more"):
        Kan2020Perturbation(toy_net, n_iter=51)
    with pytest.raises(AttributionError, match="of shape \\(n_iter, n_shifts, 3\\)"):
        Kan2020Perturbation(toy_net, shifts=np.zeros((60, 3), int))
    with pytest.raises(AttributionError, match="whole numbers of 0 or more"):
        Kan2020Perturbation(toy_net, shifts=np.full((60, 2, 3), -1))


# -- the masker --------------------------------------------------------------------------------------


def test_masker_finds_the_box_in_new_subjects():
    model = ClassScore(BoxDetector(), "probability")
    masker = AmortizedMasker(model, boxed_reference(n=24), n_steps=120, tv_weight=0.8)
    maps = masker.attribute(subjects(3, seed=9), target=1)
    assert maps.shape == (3, 1, *SHAPE)
    assert min(share_in_box(maps)) > 0.5  # chance is 0.04, the nodes are four voxels apart
    again = AmortizedMasker(model, boxed_reference(n=24), n_steps=120, tv_weight=0.8)
    assert torch.equal(again.attribute(subjects(3, seed=9), target=1), maps)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "make",
    [
        lambda m: MeaningfulPerturbation(m, boxed_reference()),
        lambda m: AreaConstrainedPerturbation(m, boxed_reference()),
        lambda m: AmortizedMasker(m, boxed_reference()),
        lambda m: Kan2020Perturbation(m, n_iter=60),
    ],
)
def test_cuda_gives_what_the_cpu_gives(make, toy_net):
    on_cpu = make(ClassScore(toy_net, "probability")).attribute(subjects(), target=1)
    on_cuda = make(ClassScore(toy_net, "probability").cuda()).attribute(subjects().cuda(), target=1)
    assert np.corrcoef(on_cpu.ravel(), on_cuda.cpu().ravel())[0, 1] > 0.99
