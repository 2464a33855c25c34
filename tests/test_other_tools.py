"""The trials of other tools, as far as they are in the lock file; the page states their results."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
tools = pytest.importorskip("other_tools")

PAGE = (ROOT / "docs" / "explanation" / "other_tools.md").read_text()
pytestmark = pytest.mark.filterwarnings("ignore")  # of what other tools import and call


@pytest.mark.parametrize("tool", ["Captum", "MONAI", "Quantus"])
def test_methods_that_explain_volumes_are_those_of_the_page(tool):
    if tool == "Quantus":
        missing = "OpenCV, which Quantus imports, needs libGL (apt-get install libgl1)"
        pytest.importorskip("quantus", reason=missing, exc_type=ImportError)
    found = tools.trials(tool.lower())
    maps = [each for each in found.values() if isinstance(each, np.ndarray)]
    row = re.search(rf"^\| {tool} .*$", PAGE, re.M).group()
    n_stated, n_tried = map(int, re.search(r"(\d+) of (\d+)", row).groups())
    assert (len(maps), len(found)) == (n_stated, n_tried)


@pytest.mark.parametrize("tool", ["xai_brain", "captum", "monai"])
def test_guided_backpropagation_without_a_rule_is_as_the_page_states(tool):
    methods = tools.own() if tool == "xai_brain" else dict(tools.METHODS[tool]())
    explain = methods[tools.GUIDED[tool]]
    found = [tools.guided(explain, kind) for kind in tools.KINDS[:3]]
    if tool == "xai_brain":
        assert found[:2] == ["guided", "guided"]
        assert "no rule for the operation gelu" in found[2]
    else:
        assert found == ["guided", "gradient", "gradient"]


@pytest.mark.parametrize("tool", ["xai_brain", "captum"])
def test_the_sum_of_deep_lift_without_a_rule_is_as_the_page_states(tool):
    methods = tools.own() if tool == "xai_brain" else dict(tools.METHODS[tool]())
    found = [tools.sum_of_deep_lift(methods["DeepLift"], kind) for kind in tools.KINDS]
    if tool == "xai_brain":
        assert found[:3] == ["1.00"] * 3
        assert "no rule for the normalisation" in found[3]
    else:
        assert found == ["1.00", "0.96", "1.41", "-0.59"]


@pytest.mark.parametrize(("tool", "correlation"), [("captum", 1), ("monai", -1)])
def test_grad_cam_agrees_with_other_tools_and_that_of_monai_is_inverted(tool, correlation):
    assert tools.grad_cam_agreement(tool) == pytest.approx(correlation, abs=1e-5)


def test_a_class_of_captum_is_a_method_of_explain_as_documented():
    from captum.attr import Deconvolution

    block = re.search(r"^```python\n(.*?)^```$", PAGE, re.M | re.S).group(1)
    names = {}
    exec(block, names)
    img = names["maps"].img("sub-0001", "Deconvolution")
    volumes = torch.from_numpy(names["images"][:1, None]).float()
    expected = Deconvolution(names["network"].eval()).attribute(volumes, target=1)[0, 0]
    found = np.asarray(img.dataobj)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5 * float(expected.abs().max()))
    np.testing.assert_array_equal(img.affine, np.diag([4, 4, 4, 1]))


def test_the_numbers_of_own_methods_are_those_of_the_readme():
    stated = re.search(r"(\d+) attribution methods, (\d+) baseline maps", (ROOT / "README.md").read_text())
    assert f"| {stated[1]}, and {stated[2]} baseline maps" in PAGE
