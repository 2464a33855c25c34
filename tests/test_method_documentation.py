"""Documentation of all methods."""

from __future__ import annotations

import inspect
import re

import pytest

from xai_brain import attribution
from xai_brain.attribution import RegionAblation
from xai_brain.attribution.protocol import Method

METHOD_CLASSES = [
    member for name in attribution.__all__ if hasattr(member := getattr(attribution, name), "info")
]


@pytest.mark.parametrize("method", METHOD_CLASSES)
def test_attribute_is_documented_once_in_the_protocol(method):
    assert len(METHOD_CLASSES) > 25
    (line,) = inspect.getdoc(method.attribute).splitlines()
    assert "`Method.attribute`" in line
    contract = inspect.getdoc(Method.attribute)
    for part in ("Parameters", "Returns", "Raises", "(N, C, X, Y, Z)", "AttributionError"):
        assert part in contract
    arguments = list(inspect.signature(method.attribute).parameters)
    assert arguments[:3] == list(inspect.signature(Method.attribute).parameters)
    assert set(arguments[3:]) <= {"show_progress"}


@pytest.mark.parametrize("method", METHOD_CLASSES)
def test_published_methods_have_a_citation(method):
    unpublished = method.info.is_baseline or method is RegionAblation
    assert unpublished or re.search(r"\b(19|20)\d\d\b", method.info.citation)
