"""A grid that is symmetric about the plane x = 0, for tests of the regional benchmark."""

from __future__ import annotations

import numpy as np

SHAPE = (20, 22, 24)
# voxel 9.5 along x lies at 0 mm
AFFINE = np.array([[-2.0, 0, 0, 19], [0, 2, 0, -20], [0, 0, 2, -22], [0, 0, 0, 1]])
