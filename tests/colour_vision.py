"""Colours as people with colour vision deficiencies see them."""

from __future__ import annotations

import numpy as np

DEFICIENCIES = {  # linear RGB that is seen, severity 1: Machado, Oliveira and Fernandes (2009)
    "none": "1 0 0 0 1 0 0 0 1",
    "protanopia": "0.152286 1.052583 -0.204868 0.114503 0.786281 0.099216 -0.003882 -0.048116 1.051998",
    "deuteranopia": "0.367322 0.860646 -0.227968 0.280085 0.672501 0.047413 -0.01182 0.04294 0.968881",
    "tritanopia": "1.255528 -0.076749 -0.178779 -0.078411 0.930809 0.147602 0.004733 0.691367 0.3039",
}


def seen_colours(rgb, deficiency="none"):
    """CIELAB of sRGB colours (0 to 255) as seen with a colour vision deficiency."""
    matrix = np.array(DEFICIENCIES[deficiency].split(), float).reshape(3, 3)
    rgb = np.asarray(rgb, float)
    linear = np.where(rgb <= 0.04045 * 255, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = np.clip(linear @ matrix.T, 0, 1) @ to_xyz.T / to_xyz.sum(1)
    x, y, z = np.moveaxis(np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
