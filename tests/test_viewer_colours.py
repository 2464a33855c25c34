"""Colour scales of the viewer."""

from __future__ import annotations

import numpy as np
import pytest

from xai_brain.viewer.canvas import COLOURS, colour_tables

# dichromacy in linear RGB: Machado, Oliveira and Fernandes (2009), severity 1
PROTANOPIA = "0.152286 1.052583 -0.204868 0.114503 0.786281 0.099216 -0.003882 -0.048116 1.051998"
DEUTERANOPIA = "0.367322 0.860646 -0.227968 0.280085 0.672501 0.047413 -0.01182 0.04294 0.968881"
TRITANOPIA = "1.255528 -0.076749 -0.178779 -0.078411 0.930809 0.147602 0.004733 0.691367 0.3039"
NONE = "1 0 0 0 1 0 0 0 1"


def seen_colours(rgb, deficiency):
    """CIELAB of sRGB colours as seen with a colour vision deficiency."""
    matrix = np.array(deficiency.split(), float).reshape(3, 3)
    linear = np.where(rgb <= 0.04045 * 255, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = np.clip(linear @ matrix.T, 0, 1) @ to_xyz.T / to_xyz.sum(1)
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def test_tables_are_diverging_and_sequential():
    tables = colour_tables()
    assert tables.shape == (len(COLOURS), 384, 3)
    assert tables[0, 0].tolist() == [0x14, 0x54, 0xB8]
    assert tables[0, 255].tolist() == tables[0, 383].tolist() == [0xA5, 0x0F, 0x15]
    assert tables[0, 256].tolist() == [0xFD, 0xDB, 0xC7]


@pytest.mark.parametrize("deficiency", [NONE, PROTANOPIA, DEUTERANOPIA, TRITANOPIA])
def test_signs_and_sizes_can_be_told_apart_with_a_colour_vision_deficiency(deficiency):
    for table in colour_tables():
        lab = seen_colours(table.astype(float), deficiency)
        difference = np.linalg.norm(lab[127::-1] - lab[128:256], axis=1)  # of values with opposite signs
        assert difference[13:].min() > 20  # from a tenth of the limit on
        lightness = np.diff(lab[256:, 0])  # of a map without negative values
        assert (lightness > 0).all() or (lightness < 0).all()
