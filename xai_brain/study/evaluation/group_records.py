"""Records of group tests of maps: rows of the tables, sidecars, and agreement of tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from xai_brain.atlas.atlas import Atlas
from xai_brain.config.evaluation import EvaluationConfig, GroupConfig
from xai_brain.metrics.comparison.group_overlap import group_agreement, group_overlap
from xai_brain.parallel.progress import log
from xai_brain.runs.contents import IMAGE
from xai_brain.runs.directory import RunDirectory, read_json
from xai_brain.runs.group_maps import GroupMap, find_group_maps, write_group_map
from xai_brain.runs.manifest import manifest_files
from xai_brain.runs.provenance import versions
from xai_brain.statistics.cluster_tables import cluster_table, significant_clusters
from xai_brain.statistics.group import BRAIN_SHARE, GroupTest
from xai_brain.statistics.group_design import Design, contrast_name, design_messages

COMPARISONS = "*-minus-*", "contrast-*"  # quantities of group maps
SHARES = "mask-*"
N_CLASSES, N_NUMBER = ("n_first", "n_second"), ("n_subjects",)  # columns of group_tests.tsv
REGION_MEAN = "regionmean"  # statistic of comparisons of regions
DIFFERENCE, SLOPE = "difference", "slope"  # statistics of the effect: of classes, of a number

MEANING = {  # of the images, of maps
    DIFFERENCE: (
        "the prepared images of the classes differ at this voxel, given the confounds",
        "the attribution of these networks at this voxel differs between the classes, given the "
        "confounds; this does not imply that the brains differ",
    ),
    SLOPE: (
        "the prepared images are associated with the number at this voxel over participants, given the "
        "confounds",
        "the attribution of these networks at this voxel is associated with the number over participants, "
        "given the confounds; this does not imply that the brain is",
    ),
}


@dataclass(frozen=True)
class SavedTest:
    """Statistical maps of a test as they were saved.

    Parameters
    ----------
    t, effect : ndarray of shape (n_voxels,), float32
        In the brain.
    statistic : {"difference", "slope"}
        Of the effect.
    """

    t: np.ndarray
    effect: np.ndarray
    statistic: str

    @property
    def maps(self) -> dict[str, np.ndarray]:
        """The maps by their statistic."""
        return {"t": self.t, self.statistic: self.effect}


@dataclass
class MethodTests:
    """Tests of the maps of one method, and their files.

    Parameters
    ----------
    evaluation : EvaluationConfig
    run : RunDirectory
    method : str
    brain_mask : ndarray of shape (X, Y, Z), bool
    affine : ndarray of shape (4, 4)
    atlas : Atlas, optional
    sources : sequence of Path
        Maps of the participants; none for tests of images.
    tests : list of dict
        Rows of group_tests.tsv.
    clusters : list of dict
        Tables of clusters, with the keys ``columns`` and ``data``.
    files : list of Path
        Statistical maps and their sidecars.
    """

    evaluation: EvaluationConfig
    run: RunDirectory
    method: str
    brain_mask: np.ndarray
    affine: np.ndarray
    atlas: Atlas | None
    sources: Sequence[Path] = ()
    tests: list[dict[str, Any]] = field(default_factory=list)
    clusters: list[dict[str, Any]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def save(
        self, contrast: Sequence[str], design: Design, test: GroupTest, n_empty: int, about: dict[str, Any]
    ) -> None:
        """Write the statistical maps of a test; add its row and its clusters."""
        settings, comparison = self.evaluation.group, contrast_name(contrast)
        effect = SLOPE if design.is_number else DIFFERENCE
        threshold, least = test.threshold(settings.alpha), settings.min_cluster_voxels
        content = {
            **about,
            **record_of(contrast, design, test, n_empty, settings),
            "RandomState": self.evaluation.random_state,
            "MeaningOfP": MEANING[effect][self.method != IMAGE],
            "StatisticVersions": versions(),
        }
        volumes = {}
        found = {effect: test.effect, "t": test.t, "logpfwe": test.logp_fwe, **test.more}
        for stat, values in found.items():
            volumes[stat] = np.zeros(self.brain_mask.shape)
            volumes[stat][self.brain_mask] = values
            volume = volumes[stat].astype(np.float32)
            made = write_group_map(
                self.run, self.method, comparison, stat, volume, self.affine, content, self.sources
            )
            self.files += made.files
        row = row_of(self.method, comparison, design, test, n_empty, settings)
        row["explains"] = about.get("TargetName", "")
        row["n_small_clusters"] = significant_clusters(volumes["t"], threshold, least)[1]
        self.tests.append(row)
        t, logp = (nib.Nifti1Image(volumes[stat], self.affine) for stat in ("t", "logpfwe"))
        table = cluster_table(t, threshold, least, logp, self.atlas)
        table = table.assign(method=self.method, comparison=comparison)
        self.clusters.append(table.to_dict("split", index=False))


Results = dict[tuple[str, str], SavedTest]  # by method and comparison


def voxelwise_maps(run: RunDirectory) -> list[GroupMap]:
    """Maps of the voxel-wise tests, without those of the regions and of the classes."""
    found = find_group_maps(run, quantities=COMPARISONS)
    tests = (each for each in found if not each.quantity.startswith("class-"))
    return [each for each in tests if each.statistic != REGION_MEAN]


def test_record(run: RunDirectory, method: str) -> Path:
    """Manifest of the comparisons of the classes in the maps of a method, with the rows of their tables."""
    return record_folder(run) / f"{method}.json"


def groups_manifest(run: RunDirectory) -> Path:
    """Manifest of the comparisons of all methods."""
    return run.evaluation("groups").with_suffix(".json")


def record_folder(run: RunDirectory) -> Path:
    """Folder of the manifests of the single methods."""
    return run.path / "evaluation" / "groups"


def read_record(record: Path) -> tuple[list[dict[str, Any]], list[pd.DataFrame]]:
    """Rows of group_tests.tsv and tables of clusters of a method."""
    content = read_json(record)
    return content["Tests"], [
        pd.DataFrame(table["data"], columns=table["columns"]) for table in content["Clusters"]
    ]


def remove_others(run: RunDirectory, records: Sequence[Path]) -> None:
    """Remove records and voxel-wise comparisons of other methods and of earlier settings."""
    kept = {*records, *(path for record in records for path in manifest_files(record))}
    for each in voxelwise_maps(run):
        if each.path not in kept:
            each.remove()
    for path in record_folder(run).glob("*.json"):
        if path not in kept:
            path.unlink()


def row_of(
    name: str, comparison: str, design: Design, test: GroupTest, n_empty: int, settings: GroupConfig
) -> dict[str, Any]:
    """Row of group_tests.tsv."""
    threshold = test.threshold(settings.alpha)
    n = [len(design.tested)] if design.is_number else class_sizes(design)
    return {
        "method": name,
        "comparison": comparison,
        "reason": "",
        "explains": "",
        **dict(zip(N_NUMBER if design.is_number else N_CLASSES, n, strict=True)),
        "n_empty": n_empty,
        "n_left_out": len(design.left_out),
        "confounds": ", ".join(design.names),
        "dropped": "; ".join(f"{column}: {why}" for column, why in design.dropped.items()),
        "dof": design.dof,
        "n_voxels": len(test.t),
        "n_constant": test.n_constant,
        "n_perm": settings.n_perm,
        "alpha": settings.alpha,
        "min_cluster_voxels": settings.min_cluster_voxels,
        "threshold_t": threshold,
        "largest_t": float(np.abs(test.t).max()),
        "smallest_p": float(10 ** -test.logp_fwe.max()),
        "n_significant": int((np.abs(test.t) > threshold).sum()),
    }


def record_of(
    contrast: Sequence[str], design: Design, test: GroupTest, n_empty: int, settings: GroupConfig
) -> dict[str, Any]:
    """Description of a test in the sidecar of its statistical map."""
    threshold = test.threshold(settings.alpha)
    if design.is_number:
        what: dict[str, Any] = {"Association": contrast[0], "NumberOfSubjects": len(design.tested)}
    else:
        what = {
            "Difference": f"{contrast[1]} minus {contrast[0]}",
            "NumberOfSubjects": dict(zip(contrast, class_sizes(design), strict=True)),
        }
    return {
        **what,
        "NumberOfEmptyMaps": n_empty,
        "LeftOut": design.left_out,
        "Confounds": design.names,
        "DroppedConfounds": design.dropped,
        "DegreesOfFreedom": design.dof,
        "Smoothing": f"{settings.fwhm_mm:g} mm FWHM inside the brain" if settings.fwhm_mm else "none",
        "Brain": f"voxels in at least {BRAIN_SHARE:.0%} of the participants' brains",
        "NumberOfVoxels": len(test.t),
        "NumberOfConstantVoxels": test.n_constant,
        "Test": "two-sided, permuted residuals (nilearn.mass_univariate.permuted_ols)",
        "NumberOfPermutations": settings.n_perm,
        "Correction": "family-wise over voxels, by the largest |t| of each permutation",
        "Alpha": settings.alpha,
        "ThresholdT": threshold if np.isfinite(threshold) else None,
        "ClusterFormingP": settings.cluster_p,
        "MinimumClusterVoxels": settings.min_cluster_voxels,
        "Exchangeability": "participants are permuted across folds and sites; differences in mean between "
        "these are confounds, differences in variance are not modelled; family members count as independent",
    }


def log_test(row: dict[str, Any], design: Design, logged: set[str]) -> None:
    """Report the result of a test, and messages about confounds that were not reported before."""
    about = f"evaluate: {row['method']}, {row['comparison']}: "
    for message in design_messages(design):
        if (text := f"{row['comparison']}: {message}") not in logged:
            logged.add(text)
            log(f"evaluate: {text}")
    if row["n_empty"]:
        log(f"{about}{row['n_empty']} participants excluded: their maps are empty")
    verb = "are associated" if design.is_number else "differ"
    counts = " and ".join(str(row[name]) for name in (*N_CLASSES, *N_NUMBER) if name in row)
    log(
        f"{about}{row['n_significant']} of {row['n_voxels']} voxels {verb} at family-wise "
        f"p <= {row['alpha']:g} ({counts} participants, smallest p {row['smallest_p']:.3g})"
    )


def class_sizes(design: Design) -> list[int]:
    """Number of participants of the first and of the second class."""
    return [int((design.tested == k).sum()) for k in (0, 1)]


def agreements_of(results: Results, n_voxels: int, settings: EvaluationConfig) -> list[dict[str, Any]]:
    """Rows of group_agreement.tsv: agreement of the group maps of every pair of methods."""
    rows: list[dict[str, Any]] = []
    for comparison in dict.fromkeys(comparison for _, comparison in results):
        tests = {m: test for (m, c), test in results.items() if c == comparison and m != IMAGE}
        for what in next(iter(tests.values())).maps if tests else ():
            maps = {method: test.maps[what] for method, test in tests.items()}
            found = group_agreement(maps, n_voxels, settings.top_percents, settings.random_state)
            rows += [{"comparison": comparison, "map": what, **row} for row in found]
    return rows


def overlaps_of(results: Results, random_state: int) -> list[dict[str, Any]]:
    """Rows of group_overlap.tsv: overlap of the group map of each method with the test of the images."""
    rows: list[dict[str, Any]] = []
    for (name, comparison), test in results.items():
        reference = results.get((IMAGE, comparison))
        if name == IMAGE or reference is None:
            continue
        for what, values in test.maps.items():
            about = {"method": name, "comparison": comparison, "map": what}
            found = group_overlap(values, reference.t, random_state)
            rows += [{**about, **row} for row in found]
    return rows


def overlap_metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Metrics of the overlaps by their names in metrics.json."""
    return {
        f"group_overlap/{r['method']}/{r['comparison']}/{r['map']}/{r['metric']}": float(r["value"])
        for r in rows
        if r["metric"] in ("dice_auc", "spearman")
    }
