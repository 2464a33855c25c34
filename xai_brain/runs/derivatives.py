"""BIDS derivatives: each folder of maps of a run is a dataset that the BIDS validator accepts. No torch.

The datasets are attributions/ (with several seeds attributions/seed-<s>/), native/ in the same way, and
group/.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from xai_brain.io.atomic import write_atomic
from xai_brain.io.nifti import is_mni152
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, write_json, write_tsv
from xai_brain.runs.provenance import versions
from xai_brain.runs.seeds import seed_folder

BIDS_VERSION = "1.11.1"
BIDSIGNORE = "*_attribution.*\n*_statmap.*\n"  # suffixes that BIDS does not define
COHORT = "cohort"  # name of the dataset of the images in BIDS URIs
# BIDS requires a reference for spaces that are not among its standard identifiers
MNI152_REFERENCE = "https://nist.mni.mcgill.ca/icbm-152-nonlinear-atlases-2009/"
SEXES = {"male", "female", "M", "F", "m", "f", "MALE", "FEMALE", "Male", "Female", "n/a"}
INHERITED = ("License", "Authors", "Acknowledgements", "Funding")  # from the dataset of the images
MAPS_README = """# Attribution maps

Each map shows, voxel by voxel, what a network used for its decision about one image. The maps were made with
xai_brain. They lie in `<participant_id>/[<session_id>/]anat/` and are named
`<participant_id>[_<session_id>]_space-<space>_desc-<method>_attribution.nii.gz`. The JSON file beside a map
describes the method, its settings, the explained output, the meaning of the values and the network.

BIDS does not define the suffix `attribution`; `.bidsignore` therefore lists it. The licence of the images
may extend to the maps.
"""
GROUP_README = """# Group maps

Means of attribution maps over participants, and statistical maps of differences and associations. The maps
were made with xai_brain. They lie in `tpl-<space>/anat/` and are named
`tpl-<space>[_cohort-<class>]_desc-<method>[+<quantity>]+<statistic>_statmap.nii.gz`. The JSON file beside a
map describes the quantity, the statistic, the test and the participants.

BIDS does not define the suffix `statmap`; `.bidsignore` therefore lists it. The licence of the images may
extend to the maps.
"""


def write_map_datasets(run: RunDirectory, links: Mapping[str, Path]) -> None:
    """Describe the folders of the maps of a run: one dataset for each seed.

    Parameters
    ----------
    run : RunDirectory
        With participants.tsv.
    links : mapping of str to Path
        Folders of the sources, by the name that the BIDS URIs of `Sources` contain.
    """
    known = {name: folder.expanduser().absolute().as_uri() for name, folder in links.items()}
    for root in map_roots(run).values():
        _write_dataset(root, "Attribution maps", MAPS_README, known, _description_of(links.get(COHORT)))
        _write_participants(root, run)


def write_native_datasets(run: RunDirectory) -> None:
    """Describe the folders of the maps in native space, whose sources are the maps in attributions/."""
    roots = map_roots(run)
    for name, root in map_roots(run, "native").items():
        if root.is_dir():
            about = _description_of(roots[name])  # whose links the references of the spaces contain
            links = {**about.get("DatasetLinks", {}), **_links_from(root, {name: roots[name]})}
            _write_dataset(root, "Attribution maps in native space", MAPS_README, links, about)
            _write_participants(root, run)


def write_group_dataset(run: RunDirectory) -> None:
    """Describe the folder of the group maps, whose sources are the maps in attributions/."""
    root, roots = run.path / "group", map_roots(run)
    about = _description_of(next(iter(roots.values())))
    _write_dataset(root, "Group maps of attributions", GROUP_README, _links_from(root, roots), about)


def map_roots(run: RunDirectory, folder: str = "attributions") -> dict[str, Path]:
    """Folders of the datasets of maps, by their names in BIDS URIs."""
    names = [seed_folder(seed, run.seeds) for seed in run.seeds]
    return {name or "attributions": run.path / folder / name for name in names}


def bids_uri(dataset: str, path: str | Path) -> str:
    """BIDS URI of a file of a dataset.

    Examples
    --------
    >>> bids_uri("cohort", "sub-01/anat/sub-01_T1w.nii.gz")
    'bids:cohort:sub-01/anat/sub-01_T1w.nii.gz'
    """
    return f"bids:{dataset}:{quote(Path(path).as_posix(), safe='/+~')}"


def uris_of_maps(run: RunDirectory, paths: Iterable[Path]) -> list[str]:
    """BIDS URIs of maps in attributions/, sorted."""
    roots = map_roots(run)
    named = [(path, next(name for name, root in roots.items() if root in path.parents)) for path in paths]
    return sorted(bids_uri(name, path.relative_to(roots[name])) for path, name in named)


def map_record(space: str, sources: list[str], description: str) -> dict[str, Any]:
    """Fields of the sidecar of a map that BIDS requires or recommends.

    Parameters
    ----------
    space : str
        Of the map.
    sources : list of str
        BIDS URIs of the files from which the map was made; empty for images in memory.
    description : str
    """
    return {
        "Description": description,
        **({"Sources": sources} if sources else {}),
        **spatial_reference(space, sources[0] if sources else "orig"),
        "SkullStripped": False,  # by BIDS: values outside the brain are not set to 0
        "Units": "arbitrary",
    }


def spatial_reference(space: str, own: str = "orig") -> dict[str, str]:
    """Field SpatialReference; `own` is the reference of spaces of single participants."""
    if space in ("MNI", "MNI152"):
        return {"SpatialReference": MNI152_REFERENCE}
    return {} if is_mni152(space) else {"SpatialReference": own}  # others are standard identifiers


def _write_dataset(
    root: Path, name: str, readme: str, links: Mapping[str, str], source: Mapping[str, Any]
) -> None:
    before = _description_of(root)
    links = {**before.get("DatasetLinks", {}), **links}
    doi = {COHORT: {"DOI": source["DatasetDOI"]}} if source.get("DatasetDOI") else {}
    sources = [{"URL": link, **doi.get(dataset, {})} for dataset, link in links.items()]
    content = {
        "Name": f"{name} (xai_brain)",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "xai_brain", "Version": versions().get("xai-brain", "unknown")}],
        **({"SourceDatasets": sources} if sources else {}),
        **({"DatasetLinks": links} if links else {}),
        **{key: source[key] for key in INHERITED if source.get(key)},
    }
    if content != before:
        write_json(content, root / "dataset_description.json")
    _write_text(readme, root / "README.md")
    _write_text(BIDSIGNORE, root / ".bidsignore")


def _write_text(text: str, path: Path) -> None:
    if not path.exists():
        write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _write_participants(root: Path, run: RunDirectory) -> None:
    """Write participants.tsv, one row for each participant, and the description of its columns."""
    every = read_tsv(run.participants)
    table = every[["participant_id"]].drop_duplicates()
    about: dict[str, Any] = {
        "Description": "Participants whose images were explained.",
        "participant_id": {"Description": "Identifier of the participant"},
    }
    known = {
        "age": {"Description": "Age of the participant", "Units": "year"},
        "sex": {"Description": "Sex of the participant"},
        "site": {"Description": "Site of the acquisition"},
        "label": {"Description": "Class or value of the participant that the networks predict"},
    }
    for column, description in known.items():
        if column not in every:
            continue
        of_each = every.groupby("participant_id", sort=False)[column]
        if (of_each.nunique() > 1).any():  # differs between sessions
            continue
        values = of_each.first()
        is_valid = {
            "age": pd.api.types.is_numeric_dtype(values),
            "sex": set(values.dropna().astype(str)) <= SEXES,
        }
        if values.notna().any() and is_valid.get(column, True):
            table = table.assign(**{column: values.reindex(table["participant_id"]).to_numpy()})
            about[column] = description
    before = read_tsv(root / "participants.tsv") if (root / "participants.tsv").exists() else None
    if before is None or not before.astype(str).equals(table.reset_index(drop=True).astype(str)):
        write_tsv(table, root / "participants.tsv")
        write_json(about, root / "participants.json")


def _description_of(root: Path | None) -> dict[str, Any]:
    """Content of dataset_description.json; empty if it does not exist or cannot be read."""
    try:
        content = read_json(root / "dataset_description.json") if root else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _links_from(root: Path, roots: Mapping[str, Path]) -> dict[str, str]:
    """Links to other datasets of the run, relative to a dataset, so that the run can be copied."""
    return {name: Path(os.path.relpath(other, root)).as_posix() for name, other in roots.items()}
