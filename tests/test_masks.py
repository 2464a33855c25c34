"""The mask engine, the fills and the mask methods: truths of mathematics and planted boxes."""

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
from xai_brain.attribution.area_constrained import of_area
from xai_brain.attribution.eval_copy import eval_copy
from xai_brain.attribution.fills import FILLS, Fills, kan2020_blur
from xai_brain.attribution.first_convolution import FirstConvolution
from xai_brain.attribution.mask_engine import MaskEngine, moved, volumes_that_fit
from xai_brain.attribution.masks import total_variation, upsampled
from xai_brain.attribution.model_state import AttributionError


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


@pytest.fixture
def inputs():
    return torch.randn(3, 1, *SHAPE, generator=torch.Generator().manual_seed(5))


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


# -- the fast copy -----------------------------------------------------------------------------------


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


# -- the engine --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [1, 2, 5, None])
def test_gradients_are_those_of_autograd(awkward_net, inputs, chunk_size):
    fills, replaced = torch.zeros_like(inputs), torch.rand_like(inputs)
    targets = torch.tensor([0, 1, 1])
    shifts = torch.tensor([[0, 0, 0], [1, -2, 0], [0, 1, 1]])
    engine = MaskEngine(ClassScore(awkward_net, "probability"), chunk_size)
    with engine.prepared(inputs):
        scores, gradients = engine.gradients(inputs, fills, replaced, targets, shifts, floor=0.2)
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
    engine = MaskEngine(Small(), chunk_size=3)
    scores = engine.scores(inputs, targets)
    torch.testing.assert_close(scores, toy_net(inputs)[torch.arange(3), targets].detach())
    assert sizes == [3, 1, 1, 1]

    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        MaskEngine(Broken(), chunk_size=2).scores(inputs, targets)


def test_chunk_follows_the_memory(toy_net, inputs, monkeypatch):
    assert volumes_that_fit(toy_net, inputs[:1]) == 8
    monkeypatch.setattr("xai_brain.attribution.mask_engine._free_memory", lambda device: 1_000_000)
    assert 1 <= volumes_that_fit(toy_net, inputs[:1]) < 8
    monkeypatch.setattr("xai_brain.attribution.mask_engine._free_memory", lambda device: 0)
    assert volumes_that_fit(toy_net, inputs[:1]) == 1


def test_bfloat16_is_close_and_unknown_precision_is_refused(toy_net):
    model = ClassScore(BoxDetector(), "probability")
    fine = MeaningfulPerturbation(model, boxed_reference(), **BOX_SETTINGS)
    coarse = MeaningfulPerturbation(model, boxed_reference(), precision="bfloat16", **BOX_SETTINGS)
    a, b = fine.attribute(subjects(), 1), coarse.attribute(subjects(), 1)
    assert b.dtype == torch.float32
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.98
    with pytest.raises(AttributionError, match="one of float32, bfloat16"):
        MaskEngine(toy_net, precision="float16")


def test_bfloat16_goes_through_the_fast_copy(awkward_net, inputs):
    evidence = torch.full_like(inputs, 0.3)
    gradients = []
    for precision in ("float32", "bfloat16"):
        engine = MaskEngine(ClassScore(awkward_net, "probability"), precision=precision)
        with engine.prepared(inputs):
            gradients.append(engine.gradients(inputs, 0 * inputs, evidence, torch.tensor([0, 1, 1]))[1])
    assert gradients[1].dtype == torch.float32
    assert np.corrcoef(gradients[0].ravel(), gradients[1].ravel())[0, 1] > 0.95


def test_total_variation_is_that_of_the_upsampled_mask():
    ramp = torch.linspace(0, 1, 9).view(1, 1, 9, 1, 1).expand(1, 1, 9, 9, 9).contiguous()
    fine = upsampled(ramp, (36, 36, 36))
    # away from the ends, where the upsampled mask is flat for half a node
    expected = fine.diff(dim=2)[:, :, 4:-4].abs().pow(3).mean()
    torch.testing.assert_close(total_variation(ramp, 4, 3)[0], expected, rtol=1e-3, atol=0)


# -- fills -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILLS)
def test_every_fill_is_a_volume_per_subject_and_repeats(name, inputs):
    fills = Fills(name, boxed_reference(), blur_sigma_mm=4.0)
    brain, targets = torch.ones_like(inputs[:1]), torch.tensor([0, 1, 1])
    twice = [fills.make(inputs, targets, brain, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert twice[0].shape == (1, *inputs.shape)
    assert torch.equal(*twice)
    assert not torch.equal(twice[0][0], inputs)


def test_blur_is_in_mm(inputs):
    point = torch.zeros(1, 1, 41, 41, 41)
    point[..., 20, 20, 20] = 1
    fills = Fills("blur", None, blur_sigma_mm=6.0, voxel_size_mm=(2.0, 3.0, 4.0))
    blurred = fills.make(point, torch.tensor([0]), torch.ones_like(point), torch.Generator())[
        0, 0, 0
    ].double()
    grid = torch.meshgrid(*[torch.arange(41.0) - 20] * 3, indexing="ij")
    sd_mm = [
        ((blurred * axis**2).sum() / blurred.sum()).sqrt() * size
        for axis, size in zip(grid, (2, 3, 4), strict=True)
    ]
    assert sd_mm == pytest.approx([6, 6, 6], rel=0.01)


def test_the_published_blur_is_a_box_one_voxel_off():
    point = torch.zeros(1, 1, 15, 15, 15)
    point[..., 7, 7, 7] = 1
    blurred = kan2020_blur(point)[0, 0].double()
    axis = torch.arange(15.0)
    weights = blurred.sum((1, 2))
    mean = (weights * axis).sum() / weights.sum()
    sd = ((weights * (axis - mean) ** 2).sum() / weights.sum()).sqrt()
    assert abs(float(mean) - 7) == pytest.approx(1, abs=0.02)
    assert float(sd) == pytest.approx(1.41, abs=0.01)


def test_nearest_counterfactual_is_of_the_other_class_and_near():
    reference = boxed_reference(n=20)
    near = reference.volumes[1] + 0.01  # nearly a subject of class 1
    fill = reference.nearest_counterfactual(near[None], torch.tensor([0]), torch.ones(1, 1, *SHAPE), 1)
    assert torch.equal(fill[0], reference.volumes[1])
    fill = reference.nearest_counterfactual(near[None], torch.tensor([1]), torch.ones(1, 1, *SHAPE), 5)
    assert fill[0, 0][BOX].mean() < 0.2  # class 0 has no box


def test_mixture_is_convex_and_new_at_every_step():
    fills = torch.stack([torch.zeros(2, 1, *SHAPE), torch.ones(2, 1, *SHAPE)])
    generator = torch.Generator().manual_seed(0)
    values = [float(Fills.mixed(fills, generator).mean()) for _ in range(20)]
    assert all(0 <= value <= 1 for value in values)
    assert np.std(values) > 0.1


def test_fill_that_cannot_be_made_is_refused(toy_net):
    with pytest.raises(AttributionError, match="needs reference"):
        MeaningfulPerturbation(toy_net, fill="training_mean")
    with pytest.raises(AttributionError, match="give voxel_size_mm"):
        MeaningfulPerturbation(toy_net)
    with pytest.raises(AttributionError, match="one of counterfactual_mean"):
        MeaningfulPerturbation(toy_net, fill="bluur")
    with pytest.raises(AttributionError, match="one of deletion, preservation, both"):
        MeaningfulPerturbation(toy_net, mode="deletoin")


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


# -- masks of fixed area -----------------------------------------------------------------------------


def test_area_is_exact_and_its_gradient_too():
    torch.manual_seed(0)
    values = torch.randn(2, 1, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    brain = (torch.rand(2, 1, 3, 4, 3) > 0.2).double()
    areas = torch.tensor([0.05, 0.4], dtype=torch.float64)
    masks = of_area(values, areas, brain, 60)
    assert ((masks * brain).sum((1, 2, 3, 4)) / brain.sum((1, 2, 3, 4))).tolist() == pytest.approx(
        [0.05, 0.4]
    )
    assert not masks[brain == 0].any()
    weights = torch.randn_like(masks)
    assert torch.autograd.gradcheck(lambda v: (of_area(v, areas, brain, 60) * weights).sum(), values)


def test_area_constrained_masks_find_the_box_and_their_curve_falls():
    model = ClassScore(BoxDetector(), "probability")
    method = AreaConstrainedPerturbation(model, boxed_reference(), areas=(0.01, 0.04, 0.2), **BOX_SETTINGS)
    curves = method.optimize(subjects(), target=1)
    for curve in curves:
        assert curve.evidence.mean((1, 2, 3)).tolist() == pytest.approx([0.01, 0.04, 0.2], abs=0.002)
        assert curve.score_before > curve.scores[0] > curve.scores[1] > curve.scores[2]
    assert min(share_in_box([curve.integrated for curve in curves])) > 0.7


# -- the published algorithm -------------------------------------------------------------------------


def test_the_preset_repeats_the_published_algorithm():
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    from published import published_perturbation

    torch.manual_seed(0)
    net = ClassScore(ToyNet().eval(), "probability")
    with torch.no_grad():
        net.model.linear.weight *= 20
    # as in a brain image there is nothing at the edge, where the published blur and shifts do not commute
    x = torch.zeros(2, 1, 20, 24, 20)
    x[:, :, 5:-8, 5:-8, 5:-8] = torch.randn(2, 1, 7, 11, 7, generator=torch.Generator().manual_seed(1))
    maps = Kan2020Perturbation(net, n_iter=30, n_shifts=3, random_state=7).attribute(x, target=1)
    for i in range(2):
        expected, _ = published_perturbation(net, x[i : i + 1], 1, n_iter=30, n_shifts=3, seed=7)
        assert maps[i].std() > 0
        assert np.corrcoef(maps[i].numpy().ravel(), expected.numpy().ravel())[0, 1] > 0.999


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
        lambda m: Kan2020Perturbation(m, n_iter=20),
    ],
)
def test_cuda_gives_what_the_cpu_gives(make, toy_net):
    on_cpu = make(ClassScore(toy_net, "probability")).attribute(subjects(), target=1)
    on_cuda = make(ClassScore(toy_net, "probability").cuda()).attribute(subjects().cuda(), target=1)
    assert np.corrcoef(on_cpu.ravel(), on_cuda.cpu().ravel())[0, 1] > 0.99
