"""Operations of an iteration do not grow with the participants; none makes a device wait for the host."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from conftest import SHAPE, ToyNet, boxed_reference
from torch.utils._python_dispatch import TorchDispatchMode

from xai_brain.attribution import (
    RISE,
    AreaConstrainedPerturbation,
    ClassScore,
    ExpectedGradients,
    GradientShap,
    IntegratedGradients,
    Kan2020Perturbation,
    KernelShap,
    MeaningfulPerturbation,
)
from xai_brain.attribution.perturbation import mask_optimization
from xai_brain.attribution.perturbation.mask_descent import MaskDescent, cosine_rates
from xai_brain.attribution.perturbation.mask_optimization import MaskBatch, MaskState, optimize_masks
from xai_brain.attribution.perturbation.repeated_step import RepeatedStep

# what makes the host wait for a device
TRANSFERS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "unique")
MANY = 32


class Operations(TorchDispatchMode):
    """Counts the operations that reach a device."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))

    def transfers(self):
        return sum(n for name, n in self.counts.items() if name in TRANSFERS)


def counted(method, n):
    inputs = torch.rand(n, 1, *SHAPE, generator=torch.Generator().manual_seed(0)) + 0.1
    with Operations() as operations:
        method.attribute(inputs, 1)
    return operations


def per_iteration(make, n, few=6, more=10):
    """Operations and transfers of one iteration: the difference of two runs."""
    first, second = counted(make(few), n), counted(make(more), n)
    return (
        (second.counts.total() - first.counts.total()) / (more - few),
        (second.transfers() - first.transfers()) / (more - few),
    )


def probability():
    torch.manual_seed(0)
    return ClassScore(ToyNet().eval(), "probability")


ALL_AT_ONCE = {"chunk_size": 10 * MANY}
MASKS = {
    "default": {},
    "both, mixed fills, shifts": {
        "mode": "both",
        "fill": ["zero", "brain_mean", "training_mean"],
        "shift_voxels": (-1, 1),
        "n_shifts": 2,
    },
    "kan2020_fast": {"fill": "kan2020_blur", "moving": "image", "shift_voxels": (-4, 0)},
    "logits": {},
}


def mask_method(name, n_iter=20, **settings):
    score = ClassScore(probability().model, "logit") if name == "logits" else probability()
    return MeaningfulPerturbation(
        score, boxed_reference(), n_iter=n_iter, tolerance=0.0, **ALL_AT_ONCE, **MASKS[name], **settings
    )


ITERATIVE = {
    **{name: lambda n, name=name: mask_method(name, n) for name in MASKS},
    "kan2020": lambda n: Kan2020Perturbation(
        probability(), n_iter=n, n_shifts=2, first_kept_iteration=1, **ALL_AT_ONCE
    ),
    "area_constrained": lambda n: AreaConstrainedPerturbation(
        probability(), boxed_reference(), n_iter=n, shift_voxels=(-1, 1), **ALL_AT_ONCE
    ),
}


@pytest.mark.parametrize("name", ITERATIVE)
def test_an_iteration_has_as_many_operations_for_32_participants_as_for_one_and_no_transfer(name):
    one, of_one = per_iteration(ITERATIVE[name], 1)
    many, of_many = per_iteration(ITERATIVE[name], MANY)
    assert one > 20
    assert abs(many - one) <= 0.02 * one
    assert (of_one, of_many) == (0, 0)


def test_a_group_mask_needs_no_transfer_and_no_more_operations():
    def operations(n_iter, n_together):
        inputs = torch.rand(MANY, 1, *SHAPE) + 0.1
        with Operations() as found:
            mask_method("default").optimize_group(inputs, 1, n_iter=n_iter, subjects_per_step=n_together)
        return found

    few, more = ({n: operations(k, n) for n in (1, MANY)} for k in (6, 10))
    per_step = {n: (more[n].counts.total() - few[n].counts.total()) / 4 for n in (1, MANY)}
    assert abs(per_step[MANY] - per_step[1]) <= 0.02 * per_step[1]
    # one look per iteration on CPUs: is the mask done?
    assert {more[n].transfers() - few[n].transfers() for n in (1, MANY)} == {4}


@pytest.mark.parametrize("name", ["default", "both, mixed fills, shifts", "kan2020_fast"])
def test_an_iteration_reads_no_value_of_a_tensor(name, monkeypatch):
    """On the device "meta", whose tensors have no values, reading one is an error."""
    method = mask_method(name)
    method.model.to("meta")
    monkeypatch.setattr(method.engine, "_outputs", method.engine.network)  # there is no autocast there
    inputs = torch.rand(3, 1, *SHAPE)
    objective, start = method._objective(inputs.to("meta"), 20)
    fills = torch.zeros(3, len(method.fills.names), 1, *SHAPE, device="meta")
    targets, scale = torch.zeros(3, dtype=torch.long, device="meta"), torch.ones(3, 2, device="meta")
    batch = MaskBatch(inputs.to("meta"), fills, targets, scale, inputs[:1].to("meta"), shared_brain=True)
    state = MaskState(
        batch, MaskDescent(start.expand(3, -1, -1, -1, -1), cosine_rates(0.1, 20)), objective, 0
    )
    state.iterate()
    assert state.objectives.device.type == "meta"
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        state.done.tolist()


@pytest.mark.parametrize(
    "make",
    [
        lambda: IntegratedGradients(probability(), boxed_reference(), **ALL_AT_ONCE, n_steps=4),
        lambda: GradientShap(probability(), boxed_reference(), n_samples=4, **ALL_AT_ONCE),
        lambda: ExpectedGradients(probability(), boxed_reference(), n_steps=8, chunk_size=10**4),
    ],
)
def test_points_of_all_volumes_fill_the_passes_together(make):
    passes = [counted(make(), n).counts["convolution_backward"] for n in (1, MANY)]
    assert passes[0] == passes[1]


@pytest.mark.parametrize(
    "make",
    [
        lambda n: RISE(probability(), boxed_reference(), n_masks=n, **ALL_AT_ONCE),
        lambda n: KernelShap(probability(), boxed_reference(), n_samples=n, size_mm=12, **ALL_AT_ONCE),
    ],
)
def test_random_masks_of_a_volume_are_made_and_scored_together(make):
    few, many = (counted(make(n), 1) for n in (20, 200))
    assert few.counts["convolution"] == many.counts["convolution"]
    assert few.counts.total() == many.counts.total()
    assert few.transfers() == many.transfers()


# -- slots -------------------------------------------------------------------------------------------


def quadratic(n, targets, record=None):
    """Participant k is at rest once its mask has reached targets[k]; far ones take longer."""
    places = torch.tensor(targets).view(-1, 1, 1, 1, 1)

    def load(rows):
        some = places[rows].clone()
        return MaskBatch(some, some[:, None], rows.clone(), torch.ones(len(rows), 2), torch.ones(1), True)

    def objective(coarse, batch, position):
        if record is not None:
            record.append((tuple(batch.targets.tolist()), tuple(position.tolist())))
        difference = coarse - batch.images
        return difference.square().sum((1, 2, 3, 4)), 2 * difference

    def descent(k):
        return MaskDescent(torch.full((k, 1, 1, 1, 1), 0.5), cosine_rates(0.1, 30))

    return n, load, descent, objective


@pytest.mark.parametrize("n_slots", [1, 2, 3, 7])
@pytest.mark.parametrize(("look", "shrink"), [(1, 1.0), (5, 0.5), (4, 0.0)])
def test_the_result_does_not_depend_on_slots_and_on_when_finished_masks_are_removed(
    n_slots, look, shrink, monkeypatch
):
    targets = [0.5, 0.9, 0.1, 0.52, 0.5, 0.7, 0.3]
    n, load, descent, objective = quadratic(7, targets)
    expected = optimize_masks(n, n, load, descent, objective, 0.01)
    monkeypatch.setattr(mask_optimization, "LOOK_INTERVAL", {"cpu": look})
    monkeypatch.setattr(mask_optimization, "SHRINK_AT", {"cpu": shrink})
    reported, record = [], []
    _, load, descent, objective = quadratic(7, targets, record)
    found = optimize_masks(n, n_slots, load, descent, objective, 0.01, reported.append)
    assert torch.equal(found.coarse, expected.coarse)
    assert found.histories() == expected.histories()
    assert sum(reported) == n
    assert max(len(who) for who, _ in record) == n_slots
    assert len(set(found.iterations.tolist())) > 2  # so that slots become free at different times


def test_a_free_slot_is_taken_by_the_next_participant_at_its_first_iteration():
    record = []
    n, load, descent, objective = quadratic(3, [0.5, 0.9, 0.5], record)
    optimize_masks(n, 2, load, descent, objective, 0.01)
    assert record[2] == ((0, 1), (2, 2))
    assert record[3] == ((2, 1), (0, 3))


def test_descent_is_adam():
    torch.manual_seed(0)
    for amsgrad in (False, True):
        start = torch.rand(2, 1, 2, 3, 4)
        leaf = start.clone().requires_grad_()
        adam = torch.optim.Adam([leaf], lr=0.2, betas=(0.9, 0.99), amsgrad=amsgrad)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 12)
        descent = MaskDescent(start, cosine_rates(0.2, 12), amsgrad=amsgrad)
        for _ in range(12):
            gradient = torch.randn_like(start)
            leaf.grad = gradient
            adam.step()
            schedule.step()
            leaf.data.clamp_(0, 1)
            descent.step(gradient, torch.tensor([True, True]))
        torch.testing.assert_close(descent.values, leaf.detach(), rtol=1e-5, atol=1e-6)


# -- graphs ------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", MASKS)
def test_a_cuda_graph_gives_the_masks_of_single_calls(name, monkeypatch):
    inputs = torch.rand(6, 1, *SHAPE).cuda() + 0.1
    method = mask_method(name)
    method.model.cuda()
    captured, capture = [], RepeatedStep._capture

    def note(step):
        capture(step)
        captured.append(step.graph is not None)

    monkeypatch.setattr(RepeatedStep, "_capture", note)
    by_graph = method.attribute(inputs, 1)
    assert captured == [True]
    monkeypatch.setattr(RepeatedStep, "__call__", lambda step: step.step())
    torch.testing.assert_close(method.attribute(inputs, 1), by_graph, rtol=1e-4, atol=1e-4)


def test_a_step_that_cannot_be_captured_is_called_as_it_is(monkeypatch):
    class NoGraph:
        def __init__(self, *arguments):
            raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", NoGraph)
    calls = []
    step = RepeatedStep(lambda: calls.append(1), torch.device("cpu"))
    step.calls_left = 0  # as on a CUDA device after the warm-up
    with pytest.warns(RuntimeWarning, match="no CUDA graph of this network can be captured"):
        step()
    step()
    assert len(calls) == 2
