"""60 participants on a small grid, for tests of planted effects."""

from __future__ import annotations

import numpy as np
import pandas as pd

from xai_brain.config.planted_effect import PlantedEffect
from xai_brain.data.planted.placement import world_mm
from xai_brain.data.planted.smooth_fields import smooth_fields
from xai_brain.io.nifti import Grid, load_img

N = 60
AFFINE = np.diag([-3.0, 2.5, 3.5, 1.0])  # anisotropic, x flipped, with an offset
AFFINE[:3, 3] = [66, -70, -40]
GRID = Grid("small", (44, 50, 34), AFFINE)
WORLD = world_mm(GRID)
BRAIN = ((WORLD - [0, -8, 18]) ** 2 / np.array([58, 56, 50]) ** 2).sum(-1) < 1
LEFT = [-30.0, -10.0, 16.0]
RIGHT = [30.0, -10.0, 16.0]
UP = [0.0, 12.0, 48.0]
INTENSITY = PlantedEffect("intensity", size=1.0, center_mm=LEFT, radius_mm=12.0)


def write_cohort(folder):
    """60 subjects as `prepare_cohort` gives them: smooth anatomy and noise, z-scored, 0 outside."""
    rng = np.random.default_rng(3)
    rows = []
    for i in range(N):
        volume = smooth_fields(rng, GRID, 40.0, 1)[0] + 0.3 * rng.standard_normal(GRID.shape)
        volume = (volume - volume[BRAIN].mean()) / volume[BRAIN].std()
        np.save(folder / f"{i}.npy", np.where(BRAIN, volume, 0).astype(np.float32))
        rows.append(
            {
                "participant_id": f"sub-{i:02d}",
                "session_id": "",
                "t1w_path": f"/data/sub-{i:02d}_T1w.nii.gz",
                "truth_path": None,
                "label": "male" if i % 2 else "female",
                "target": i % 2,
                "age": 20.0 + i,
                "volume_path": str(folder / f"{i}.npy"),
                "volume_mask_path": str(folder / "mask.npy"),
                "sha256": f"{i:064x}",
            }
        )
    np.save(folder / "mask.npy", BRAIN)
    return pd.DataFrame(rows)


def volumes(table, column="volume_path"):
    return np.stack([np.load(path) for path in table[column]])


def truths(table):
    return np.stack([np.asanyarray(load_img(path).dataobj) > 0 for path in table["truth_path"]])


def cohens_d(values, target):
    """Difference of two means by the pooled standard deviation."""
    a, b = values[target == 0], values[target == 1]
    return (b.mean() - a.mean()) / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)


EVERY_KIND = [
    INTENSITY,
    PlantedEffect("atrophy", size=25, center_mm=LEFT, radius_mm=9.0),
    PlantedEffect("expansion", size=25, center_mm=LEFT, radius_mm=9.0),
    PlantedEffect("lesion", size=-2.0, center_mm=LEFT, radius_mm=14.0, lesion_volume_ml=1.5),
]
