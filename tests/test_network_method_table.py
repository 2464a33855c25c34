"""The table of networks and methods, on small networks: every map is correct or refused by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
table = pytest.importorskip("network_method_table")

SHAPE = table.SHAPES[True]
KINDS = {kind.name: kind for kind in table.kinds(SHAPE, small=True)}
LARGE = "MONAI SwinUNETR, segmentation"  # also with its smallest image: one test for each method
ALL = {
    *("Saliency", "InputXGradient", "SmoothGrad", "IntegratedGradients", "Occlusion"),
    "MeaningfulPerturbation",
}
USUAL = {"GradCAM", "HiResCAM", "LayerCAM", "ScoreCAM", "RISE", "KernelShap"}
OF_ATTENTION = {
    "vision transformer": {"AttentionRollout", "AttentionRelevance", "TokenGradCAM", "AttnLRP"},
    "MONAI ViT": {"AttentionRollout", "AttentionRelevance", "TokenGradCAM", "AttnLRP"},
    "MONAI Swin": {"TokenGradCAM", "AttnLRP"},
    LARGE: {"TokenGradCAM"},
}


def test_networks_and_the_methods_that_explain_all_of_them():
    assert len(KINDS) == 21
    assert {check.name for check in table.CHECKS if check.required == "all"} == ALL
    assert {check.name for check in table.CHECKS if check.required == "usual"} == USUAL
    unusual = {name for name, kind in KINDS.items() if not kind.is_usual}
    assert unusual == {"two channels", "one logit", "several labels", "TorchScript archive", LARGE}


def explained(name, methods=None):
    """Methods whose maps of this network are correct; the others are refused in one line."""
    cells = table.run(KINDS[name], SHAPE, methods)
    for cell in cells:
        assert cell.is_right, f"{cell.check.name}: {cell.text} {cell.reason}"
        if cell.reason:
            assert "\n" not in cell.reason
        else:
            assert cell.error <= cell.check.tolerance
    return {cell.check.name for cell in cells if not cell.reason}


@pytest.mark.parametrize("name", [name for name in KINDS if name != LARGE])
def test_every_map_is_correct_or_refused_by_name(name):
    assert ALL | OF_ATTENTION.get(name, set()) <= explained(name)


QUICK = ("InputXGradient", "GradCAM", "LRP")  # on this network


@pytest.mark.parametrize(
    "method", [pytest.param(c.name, marks=[pytest.mark.slow] * (c.name not in QUICK)) for c in table.CHECKS]
)
def test_a_segmentation_by_swin_unetr_is_explained_correctly_or_refused_by_name(method):
    found = explained(LARGE, {method})
    assert found == {method} or method not in ALL | OF_ATTENTION[LARGE]


def test_lrp_points_to_the_method_for_transformers():
    (cell,) = table.run(KINDS["MONAI ViT"], SHAPE, {"LRP"})
    assert "AttnLRP has rules for transformers" in cell.reason
    (cell,) = table.run(KINDS["InstanceNorm"], SHAPE, {"LRP"})
    assert "AttnLRP" not in cell.reason
