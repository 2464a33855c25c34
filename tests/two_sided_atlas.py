"""An atlas with a region on each side, for tests."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
from conftest import COARSE, COARSE_SHAPE, world_coordinates

from xai_brain.io.nifti import get_grid

FINE_SHAPE = (150, 180, 140)  # 1 mm, RAS, x from -75 to 74
FINE = np.eye(4)
FINE[:3, 3] = [-75, -100, -60]
GRID = get_grid("t1w_58x70x58")
NAMES = {7: "Insula_L", 130: "Insula_R", 300: "BrainStem"}


def two_sides(shape=COARSE_SHAPE, affine=COARSE, dtype=np.int16) -> nib.Nifti1Image:
    """Label 7 is a ball on the left, 130 its mirror image on the right, 300 lies in the middle."""
    mm = world_coordinates(shape, affine)
    labels = np.zeros(shape, dtype)
    for label, centre in {7: (-40, 0, 10), 130: (40, 0, 10), 300: (0, -30, -20)}.items():
        labels[((mm - centre) ** 2).sum(-1) < 17**2] = label
    return nib.Nifti1Image(labels, affine, dtype=dtype)


def as_table(names=NAMES) -> pd.DataFrame:
    return pd.DataFrame({"index": list(names), "name": list(names.values())})
