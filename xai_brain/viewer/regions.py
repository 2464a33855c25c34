"""The atlas of the viewer: given labels with their names, or the atlas of the run."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import pandas as pd

from xai_brain.atlas.atlas import load_atlas
from xai_brain.atlas.lookup_tables import AtlasError
from xai_brain.io.nifti import ImageError, load_img
from xai_brain.viewer.catalogue import Image

Regions = tuple[nib.Nifti1Image | None, pd.DataFrame | None, list[str]]


def given_regions(labels_img: Image | None, lut: pd.DataFrame | None) -> Regions:
    """Label image, names of its labels and messages.

    Parameters
    ----------
    labels_img : image or path, optional
    lut : pandas.DataFrame, optional
        Columns ``index`` and ``name``; default: the table beside the file of the labels, if there is one.
    """
    if labels_img is None or not isinstance(labels_img, str | Path):
        return labels_img, lut, []
    path = Path(labels_img).expanduser()
    if lut is not None:
        try:
            return load_img(path), lut, []
        except (ImageError, OSError) as error:
            return None, None, [f"atlas: {error}"]
    try:
        atlas = load_atlas(path)
    except AtlasError as error:  # an outline does not need names
        try:
            return load_img(path), None, [f"atlas: regions have no names ({error})"]
        except (ImageError, OSError):
            return None, None, [f"atlas: {error}"]
    except (ImageError, OSError) as error:
        return None, None, [f"atlas: {error}"]
    return atlas.labels_img, atlas.lut, []


def regions_of_run(labels_path: str | None, table_path: str | None) -> Regions:
    """Atlas of the settings of a run (``evaluation.atlas``); nothing if it is not a file."""
    if not labels_path or not Path(labels_path).expanduser().is_file():
        return None, None, []
    try:
        atlas = load_atlas(Path(labels_path).expanduser(), table_path)
    except (AtlasError, ImageError, OSError) as error:
        return None, None, [f"atlas of the run: {error}"]
    return atlas.labels_img, atlas.lut, []
