"""Colour scales of the viewer."""

from __future__ import annotations

import numpy as np
import pytest
from colour_vision import DEFICIENCIES, seen_colours

from xai_brain.statistics.colour_scale import NEGATIVE, POSITIVE
from xai_brain.viewer.canvas import COLOURS, colour_tables


def test_tables_are_diverging_and_sequential():
    tables = colour_tables()
    assert tables.shape == (len(COLOURS), 384, 3)
    negative, weak, positive = (list(bytes.fromhex(c[1:])) for c in (NEGATIVE[-1], POSITIVE[0], POSITIVE[-1]))
    assert tables[0, 0].tolist() == negative
    assert tables[0, 255].tolist() == tables[0, 383].tolist() == positive
    assert tables[0, 256].tolist() == weak


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_signs_and_sizes_can_be_told_apart_with_a_colour_vision_deficiency(deficiency):
    for table in colour_tables():
        lab = seen_colours(table.astype(float), deficiency)
        difference = np.linalg.norm(lab[127::-1] - lab[128:256], axis=1)  # of values with opposite signs
        assert difference[13:].min() > 20  # from a tenth of the limit on
        lightness = np.diff(lab[256:, 0])  # of a map without negative values
        assert (lightness > 0).all() or (lightness < 0).all()
