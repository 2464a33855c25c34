"""The table of networks and methods, on small networks: every map is correct or refused by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
table = pytest.importorskip("network_method_table")

SHAPE = table.SHAPES[True]
KINDS = {kind.name: kind for kind in table.kinds(SHAPE, small=True)}
USUAL = {
    "Saliency",
    "InputXGradient",
    "SmoothGrad",
    "IntegratedGradients",
    "GradCAM",
    "HiResCAM",
    "LayerCAM",
    "ScoreCAM",
    "Occlusion",
    "RISE",
    "KernelShap",
    "MeaningfulPerturbation",
}


def test_sixteen_networks_and_the_methods_that_explain_any_network():
    assert len(KINDS) == 16
    assert {check.name for check in table.CHECKS if check.for_any} == USUAL


@pytest.mark.parametrize("name", KINDS)
def test_every_map_is_correct_or_refused_by_name(name):
    for cell in table.run(KINDS[name], SHAPE):
        assert cell.is_right, f"{cell.check.name}: {cell.text} {cell.reason}"
        if cell.reason:
            assert "\n" not in cell.reason
        else:
            assert cell.error <= cell.check.tolerance
