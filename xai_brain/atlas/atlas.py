"""Atlases: label images with the names of their labels, on any grid. No torch.

>>> from xai_brain import load_atlas
>>> atlas = load_atlas("tpl-MNI152_atlas-Mine_dseg.nii.gz")  # doctest: +SKIP
>>> atlas.region_mask("Hippocampus_L", get_grid("t1w_58x70x58")).sum()  # doctest: +SKIP
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from xai_brain.atlas.label_images import centroids, labels_on_grid, read_labels
from xai_brain.atlas.lookup_tables import AtlasError, names_of_table, read_names
from xai_brain.io.nifti import Grid, is_mni152, parse_entities

# atlases that nilearn downloads into its own cache; all are in MNI152
FETCHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "aal": ("fetch_atlas_aal", {}),
    "destrieux_2009": ("fetch_atlas_destrieux_2009", {}),
    "harvard_oxford": (
        "fetch_atlas_harvard_oxford",
        {"atlas_name": "cort-maxprob-thr25-2mm", "symmetric_split": True},
    ),
    "harvard_oxford_subcortical": (
        "fetch_atlas_harvard_oxford",
        {"atlas_name": "sub-maxprob-thr25-2mm"},
    ),
    "juelich": ("fetch_atlas_juelich", {"atlas_name": "maxprob-thr25-2mm"}),
    "pauli_2017": ("fetch_atlas_pauli_2017", {"atlas_type": "deterministic"}),
    "schaefer_2018": ("fetch_atlas_schaefer_2018", {"resolution_mm": 2}),
}
TABLE_ENDINGS = (".tsv", ".csv", ".xml", ".txt", ".label", ".lut")
MIDLINE_MM = 2.0  # tolerated distance of the centroid of a region beyond the midline
SIDES = {"left": {"left", "lh", "l"}, "right": {"right", "rh", "r"}}


@dataclass(frozen=True)
class Atlas:
    """A label image with the names of its labels.

    Parameters
    ----------
    labels_img : nibabel.Nifti1Image
        3-D, whole numbers, 0 is background.
    lut : pandas.DataFrame
        ``index`` and ``name`` of every label in the image, ascending.
    name : str, default "atlas"
    """

    labels_img: nib.Nifti1Image
    lut: pd.DataFrame
    name: str = "atlas"
    _last: dict[tuple[Any, ...], np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def on_grid(self, grid: Grid | nib.Nifti1Image) -> np.ndarray:
        """Resample the labels to a grid.

        A voxel that is larger than those of the atlas gets the most frequent label in its volume, including
        background. Nearest-neighbour interpolation would use one of many labels and make thin regions ragged.
        On a grid as fine as the atlas both are the same.

        Parameters
        ----------
        grid : Grid or image
            Its shape and affine are used.

        Returns
        -------
        ndarray of the shape of the grid, int64, read-only
            Labels of the atlas; 0 for background and outside the atlas.
        """
        shape = tuple(int(n) for n in grid.shape[:3])
        key = (shape, grid.affine.tobytes())
        if key not in self._last:
            self._last.clear()  # a run uses one grid only
            labels = labels_on_grid(self.labels_img, shape, grid.affine)
            labels.setflags(write=False)
            self._last[key] = labels
        return self._last[key]

    def index_of(self, name: str) -> int:
        """Label of a region, given by its name (case-insensitive) or by the label as text.

        Raises
        ------
        AtlasError
            No region has this name, or several regions have it.
        """
        same = self.lut["name"].str.lower() == name.strip().lower()
        found = self.lut.loc[same, "index"].tolist()
        if len(found) == 1:
            return int(found[0])
        if not found and name.strip().isdecimal() and int(name) in set(self.lut["index"]):
            return int(name)
        if found:
            raise AtlasError(
                f"{self.name}: labels {', '.join(map(str, found))} are all named {name!r}; give a label"
            )
        near = difflib.get_close_matches(name, self.lut["name"].tolist(), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "; Atlas.lut lists the names"
        raise AtlasError(f"{self.name}: has no region {name!r}{hint}")

    def region_mask(self, region: str | int, grid: Grid | nib.Nifti1Image) -> np.ndarray:
        """Voxels of a grid that belong to a region, given by name or label.

        Returns
        -------
        ndarray of the shape of the grid, bool
            All False if the region is too small for the grid.
        """
        index = self.index_of(region) if isinstance(region, str) else int(region)
        if index not in set(self.lut["index"]):
            raise AtlasError(f"{self.name}: has no label {index}; Atlas.lut lists them")
        voxels: np.ndarray = self.on_grid(grid) == index
        return voxels


def load_atlas(
    labels_img: str | Path | nib.Nifti1Image,
    table: str | Path | pd.DataFrame | None = None,
    name: str | None = None,
    *,
    space: str = "MNI152",
    orientation: str | None = None,
) -> Atlas:
    """Read an atlas and check that names, labels, sides and space are consistent.

    Parameters
    ----------
    labels_img : path, image, or one of FETCHERS
        3-D image of whole numbers, 0 is background. A name such as ``"aal"`` is downloaded by nilearn.
    table : path or DataFrame, optional
        Names of the labels (see `xai_brain.atlas.lookup_tables`); by default the table beside the image with
        the same stem (BIDS: ``..._dseg.tsv``).
    name : str, optional
        By default the ``atlas-`` entity of the file name, or its stem.
    space : str, default "MNI152"
        Space of the maps. An atlas whose file name states another space is refused; all variants of MNI152,
        which differ by millimetres, are accepted as one space.
    orientation : str, optional
        Directions in which the voxel indices increase, such as ``LAS``, if the file does not contain them;
        without it, such a file is refused.

    Returns
    -------
    Atlas
        Labels without a name are called ``unnamed-<label>``; names without a voxel are ignored.

    Raises
    ------
    AtlasError, ImageError
        The atlas cannot be used; the message contains the file, the reason and what to do.

    Examples
    --------
    >>> from xai_brain.io.nifti import get_grid
    >>> grid = get_grid("t1w_4mm")
    >>> labels = np.zeros(grid.shape, np.uint8)
    >>> labels[10:14, 20:24, 20:24] = 1
    >>> table = pd.DataFrame({"index": [1], "name": ["Mine"]})
    >>> load_atlas(nib.Nifti1Image(labels, grid.affine), table, name="mine").lut["name"].tolist()
    ['Mine']
    """
    if isinstance(labels_img, str) and labels_img in FETCHERS and not Path(labels_img).exists():
        labels_img, fetched = _fetch(labels_img, name := name or labels_img)
        table = fetched if table is None else table
    path = Path(labels_img).expanduser() if isinstance(labels_img, str | Path) else None
    if path is not None:
        _check_space(path, space)
        name = name or parse_entities(path).get("atlas") or path.name.split(".")[0]
    name = name or "atlas"
    img = read_labels(labels_img if path is None else path, name, orientation)
    codes, centroids_mm = centroids(img)
    if not len(codes):
        raise AtlasError(f"{path or name}: contains no labels, only 0")
    if table is None:
        table = _table_beside(path, name)
    names = names_of_table(table, name) if isinstance(table, pd.DataFrame) else read_names(table, codes)
    lut = _lut(names, codes, name if isinstance(table, pd.DataFrame) else table)
    _check_sides(lut, centroids_mm[:, 0], path or name)
    return Atlas(img, lut, name)


def side_of(name: str) -> str | None:
    """``"left"`` or ``"right"`` if a word of the name of a region states the side.

    Examples
    --------
    >>> [side_of(name) for name in ("Left-Amygdala", "ctx-rh-insula", "SFG_L_7_1", "Vermis", "Lobule")]
    ['left', 'right', 'left', None, None]
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=Left|Right)|(?<=Left)(?=[A-Z])|(?<=Right)(?=[A-Z])", " ", name)
    words = set(re.split(r"[\W_]+", spaced.lower()))  # é is a letter
    sides = {side for side, marks in SIDES.items() if words & marks}
    return sides.pop() if len(sides) == 1 else None


def _fetch(atlas: str, name: str) -> tuple[Any, pd.DataFrame]:
    from nilearn import datasets

    function, options = FETCHERS[atlas]
    try:
        fetched = getattr(datasets, function)(**options, verbose=0)
    except Exception as error:  # requests, tar and nilearn raise different errors
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise AtlasError(
            f"{name}: cannot be downloaded ({reason}); give the path of a copy instead"
        ) from error
    if fetched.get("indices") is not None:  # AAL: its labels are not consecutive
        return fetched.maps, pd.DataFrame({"index": list(fetched.indices), "name": list(fetched.labels)})
    lut = fetched.get("lut")
    table = (
        lut if lut is not None else pd.DataFrame({"name": fetched.labels}).rename_axis("index").reset_index()
    )
    return fetched.maps, table


def _check_space(path: Path, space: str) -> None:
    entities = parse_entities(path)
    said = entities.get("space") or entities.get("tpl")
    if said and said != space and not (is_mni152(said) and is_mni152(space)):
        raise AtlasError(
            f"{path}: its name states space {said}, the maps are in {space}; use the atlas in {space}, "
            "or rename the file if its name is wrong"
        )


def _table_beside(path: Path | None, name: str) -> Path:
    if path is None:
        raise AtlasError(f"{name}: names of its labels are needed; give a table")
    if found := tables_beside(path):
        return found[0]
    endings = ", ".join(TABLE_ENDINGS)
    raise AtlasError(
        f"{path}: no table of region names was found beside it (looked for {' or '.join(_table_stems(path))} "
        f"with the endings {endings}); rename the table, or give its path"
    )


def tables_beside(path: Path) -> list[Path]:
    """Tables of names beside a label image; the first one is used."""
    candidates = (path.with_name(stem + ending) for stem in _table_stems(path) for ending in TABLE_ENDINGS)
    return [candidate for candidate in candidates if candidate.is_file()]


def _table_stems(path: Path) -> list[str]:
    """Possible stems of the table of an atlas; the most specific first.

    One table may serve all resolutions of an atlas: ``res-`` of BIDS and TemplateFlow, or an ending such as
    ``_1mm`` or ``-2mm`` (Brainnetome), in the Schaefer atlas after the space.
    """
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    any_resolution = re.sub(r"[_-]\d+(?:\.\d+)?(?:x\d+(?:\.\d+)?)*mm$", "", re.sub(r"_res-[^_]+", "", stem))
    stems = dict.fromkeys([stem, any_resolution, any_resolution.removesuffix("_FSLMNI152")])
    return [found for each in stems for found in (each, f"{each}_LUT")]


def _lut(names: pd.DataFrame, codes: np.ndarray, where: object) -> pd.DataFrame:
    """One name for every label of the image; background and absent labels are excluded."""
    names = names[names["index"].isin(codes)].drop_duplicates()
    twice = names.loc[names["index"].duplicated(), "index"]
    if len(twice):
        both = " and ".join(map(repr, names.loc[names["index"] == twice.iloc[0], "name"].tolist()[:2]))
        raise AtlasError(f"{where}: label {twice.iloc[0]} has two names, {both}; keep one")
    known = dict(zip(names["index"], names["name"], strict=True))
    if 2 * len(known) < len(codes):
        without = ", ".join(str(code) for code in codes if code not in known)
        raise AtlasError(
            f"{where}: names {len(known)} of the {len(codes)} labels in the image (not {without[:60]}); "
            "it may belong to another atlas; give the correct table"
        )
    return pd.DataFrame(
        {"index": codes, "name": [known.get(int(code)) or f"unnamed-{code}" for code in codes]}
    )


def _check_sides(lut: pd.DataFrame, x_mm: np.ndarray, where: object) -> None:
    wrong = [
        f"{name} (x = {x:+.0f} mm)"
        for name, x in zip(lut["name"], x_mm, strict=True)
        if (side := side_of(name)) and (x if side == "left" else -x) > MIDLINE_MM
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise AtlasError(
            f"{where}: regions lie on the opposite side of their names: {', '.join(wrong[:5])}{more}; "
            "left is x < 0 mm: correct the affine of the image or the names in the table"
        )
