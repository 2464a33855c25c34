"""Compare the classes voxel by voxel, in the maps of every method and in the prepared images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import file_hash
from xai_brain.io.nifti import save_img
from xai_brain.io.problems import DataError
from xai_brain.parallel.progress import log, track
from xai_brain.parallel.threads import available_cores
from xai_brain.runs.contents import IMAGE
from xai_brain.runs.directory import (
    SPACE,
    RunDirectory,
    read_json,
    read_tsv,
    sidecar,
    update_metrics,
    write_json,
    write_tsv,
)
from xai_brain.runs.manifest import is_up_to_date, write_manifest
from xai_brain.runs.provenance import versions
from xai_brain.statistics.cluster_tables import cluster_table, significant_clusters
from xai_brain.statistics.group import BRAIN_SHARE, GroupTest, compare_classes, scale, smooth
from xai_brain.statistics.group_design import (
    Design,
    GroupError,
    common_output,
    design_messages,
    make_design,
)
from xai_brain.statistics.map_rows import MapRows
from xai_brain.study.evaluation.group_records import (
    MEANING,
    agreements_of,
    chosen_confounds,
    overlap_metrics,
    overlaps_of,
    record_of,
    row_of,
    voxelwise_files,
)
from xai_brain.study.evaluation.regions import atlas_files, atlas_of
from xai_brain.study.participants import is_readable, of_one_class, prepared_cohort, same_cohort, task_of
from xai_brain.study.run_images import brain_share, made_by, map_values

TABLES = ("group_tests", "group_clusters", "group_overlap", "group_agreement")


def evaluate_groups(config: Config, run: RunDirectory, maps: list[dict[str, Any]]) -> None:
    """Compare the classes in all maps that explain one common output; other maps are logged.

    Parameters
    ----------
    config : Config
        With the settings ``evaluation.group``.
    run : RunDirectory
    maps : list of dict
        From `xai_brain.study.evaluation.found_maps.find_maps`.

    Notes
    -----
    Writes group_tests.tsv (one row per comparison, with the reason if it was not possible),
    group_clusters.tsv, group_overlap.tsv (of maps and images) and group_agreement.tsv (of pairs of methods)
    to evaluation/.
    """
    _remove_comparisons(run)
    if config.evaluation.group.n_perm:
        Comparison(config, run, pd.DataFrame(maps)).write()
    made = [*voxelwise_files(run.path / "group"), *map(run.evaluation, TABLES)]
    write_manifest(run.path / "group" / "inputs.json", group_inputs(config, run, maps), made)


def groups_are_compared(config: Config, run: RunDirectory, maps: list[dict[str, Any]]) -> bool:
    """Whether the existing comparisons were made from these inputs."""
    return is_up_to_date(run.path / "group" / "inputs.json", group_inputs(config, run, maps))


def group_inputs(config: Config, run: RunDirectory, maps: list[dict[str, Any]]) -> dict[str, Any]:
    """Inputs that the comparisons depend on."""
    return {
        "settings": asdict(config.evaluation.group),
        "random_state": config.evaluation.random_state,
        "top_percents": list(config.evaluation.top_percents),
        "brain_size_column": config.data.brain_size_column,
        "atlas": [config.evaluation.atlas, *atlas_files(config)],
        "participants": file_hash(run.participants),
        "cohort": is_readable(config) if config.evaluation.group.images else None,
        "maps": sorted(f"{m['method']} {m['path'].name} {m['seed']} {m['file_state']}" for m in maps),
    }


def _remove_comparisons(run: RunDirectory) -> None:
    (run.path / "group" / "inputs.json").unlink(missing_ok=True)
    for path in voxelwise_files(run.path / "group"):
        path.unlink()
    for name in TABLES:
        run.evaluation(name).unlink(missing_ok=True)
    update_metrics(run, {}, replace=("group/", "group_overlap/"))


class Comparison:
    """All comparisons of one run and their tables.

    Parameters
    ----------
    config : Config
    run : RunDirectory
    maps : pandas.DataFrame
        One row per map.
    """

    def __init__(self, config: Config, run: RunDirectory, maps: pd.DataFrame):
        self.config, self.run, self.maps, self.settings = config, run, maps, config.evaluation.group
        participants = of_one_class(read_tsv(run.participants), report=log)
        self.task = task_of(config, participants)
        self.confounds = chosen_confounds(config, participants)
        folds = maps.drop_duplicates("participant_id")[["participant_id", "fold"]]
        self.subjects = participants.drop(columns="fold", errors="ignore").merge(folds, on="participant_id")
        self.atlas = atlas_of(config)
        share, self.affine = brain_share(run, maps)
        self.brain_mask = share >= BRAIN_SHARE
        if not self.brain_mask.any():
            raise ConfigError(f"no voxel lies in {BRAIN_SHARE:.0%} of the brains of {run.path / 'images'}")
        self.tests: list[dict[str, Any]] = []
        self.clusters: list[pd.DataFrame] = []
        self.results: dict[tuple[str, str], GroupTest] = {}
        self.messages: set[str] = set()  # about confounds, that were logged

    def write(self) -> None:
        for method, rows in self.maps.groupby("method", sort=False):
            self._compare_maps(str(method), rows)
        if self.settings.images and self.results:
            self._compare_images()
        write_tsv(pd.DataFrame(self.tests), self.run.evaluation("group_tests"))
        if self.clusters:
            listed = [table for table in self.clusters if len(table)] or self.clusters[:1]
            write_tsv(pd.concat(listed), self.run.evaluation("group_clusters"))
        metrics = {
            f"group/{row['method']}/{row['comparison']}/{name}": float(row[name])
            for row in self.tests
            if not row["reason"]
            for name in ("n_significant", "largest_t")
        }
        settings = self.config.evaluation
        if agreements := agreements_of(self.results, int(self.brain_mask.size), settings):
            write_tsv(pd.DataFrame(agreements), self.run.evaluation("group_agreement"))
        if overlaps := overlaps_of(self.results, settings.random_state):
            write_tsv(pd.DataFrame(overlaps), self.run.evaluation("group_overlap"))
        update_metrics(self.run, metrics | overlap_metrics(overlaps))

    # -- comparisons -------------------------------------------------------------------------
    def _compare_maps(self, method: str, rows: pd.DataFrame) -> None:
        try:
            about_maps = [read_json(sidecar(path)) for path in rows["path"]]
            target = common_output(about_maps, self.task.group_output)
        except GroupError as error:
            log(f"evaluate: {method}: classes are not compared: {error}")
            self.tests.append({"method": method, "comparison": "", "reason": str(error)})
            return
        paths = rows.groupby("participant_id", sort=False)["path"].agg(list).to_dict()

        def read(participant_id: str) -> list[np.ndarray]:
            return [map_values(path) for path in paths.get(participant_id, [])]

        about = {
            "Method": method,
            "TargetName": target,
            "Output": self.task.group_output,
            "SubjectScaling": self.settings.scaling,
            **made_by(rows["path"]),
        }
        self._compare(method, read, self.confounds, self.settings.scaling, about)

    def _compare_images(self) -> None:
        try:
            cohort = same_cohort(prepared_cohort(self.config, self.run), self.run)
        except (DataError, ConfigError, OSError) as error:
            reason = f"the images of the cohort cannot be read: {error}"
            log(f"evaluate: images are not compared: {reason}; evaluation.group.images=false leaves them out")
            self.tests.append({"method": IMAGE, "comparison": "", "reason": "the cohort cannot be read"})
            return
        paths = cohort.groupby("participant_id")["volume_path"].agg(list).to_dict()

        def read(participant_id: str) -> list[np.ndarray]:
            return [np.load(path) for path in paths[participant_id]]

        confounds = [name for name in self.confounds if name != "fold"]
        about = {"Method": IMAGE, "IntensityScaling": self.config.preprocessing.scaling}
        self._compare(IMAGE, read, confounds, "none", about | {"SubjectScaling": "none"})

    def _compare(
        self,
        name: str,
        read: Callable[[str], list[np.ndarray]],
        confounds: Sequence[str],
        scaling: str,
        about: dict[str, Any],
    ) -> None:
        """Compare every pair of classes; `read` returns the maps of a participant, which are averaged."""
        rows = MapRows(len(self.subjects), int(self.brain_mask.sum()), self.run.path / "group")
        empty = np.zeros(len(self.subjects), bool)
        for i, participant_id in enumerate(track(list(self.subjects["participant_id"]), f"group, {name}")):
            inside = [
                smooth(values, self.affine, self.settings.fwhm_mm, self.brain_mask)[self.brain_mask]
                for values in read(participant_id)
            ]
            found = [scale(values, scaling) for values in inside if values.any()]
            empty[i] = not found
            if found:
                rows[i] = np.mean(found, axis=0)
        there = np.flatnonzero(~empty)
        for classes in self.task.contrasts():
            comparison = f"{classes[1]}-minus-{classes[0]}"
            if self.settings.tfce or self.settings.cluster_p is not None:
                log(f"evaluate: {name}, {comparison}: {self.settings.n_perm} permutations of clusters")
            n_empty = int((empty & self.subjects["label"].isin(classes).to_numpy()).sum())
            try:
                design = make_design(self.subjects.iloc[there], classes, confounds)
                test = compare_classes(
                    rows, there[design.kept], design, n_perm=self.settings.n_perm,
                    random_state=self.config.evaluation.random_state, n_jobs=available_cores(),
                    brain_img=nib.Nifti1Image(self.brain_mask.astype(np.uint8), self.affine),
                    tfce=self.settings.tfce, cluster_p=self.settings.cluster_p,
                    progress=partial(track, description=f"permutations, {name}, {comparison}", brief=True),
                )  # fmt: skip
            except GroupError as error:
                log(f"evaluate: {name}, {comparison}: not compared: {error}")
                self.tests.append({"method": name, "comparison": comparison, "reason": str(error)})
                continue
            self.results[name, comparison] = test
            self._save_test(name, comparison, classes, design, test, n_empty, about)

    def _save_test(
        self,
        name: str,
        comparison: str,
        classes: Sequence[str],
        design: Design,
        test: GroupTest,
        n_empty: int,
        about: dict[str, Any],
    ) -> None:
        threshold = test.threshold(self.settings.alpha)
        row = row_of(name, comparison, design, test, n_empty, self.settings)
        row["explains"] = about.get("TargetName", "")
        least = self.settings.min_cluster_voxels
        row["n_small_clusters"] = significant_clusters(self._volume(test.t), threshold, least)[1]
        self.tests.append(row)
        self._log(row, design)
        sidecar_of = {
            **about,
            **record_of(classes, design, test, n_empty, self.settings),
            "RandomState": self.config.evaluation.random_state,
            "MeaningOfP": MEANING[name == IMAGE],
            "StatisticVersions": versions(),
        }
        images = {}
        found = {"difference": test.difference, "t": test.t, "logpfwe": test.logp_fwe, **test.more}
        for stat, values in found.items():
            volume = self._volume(values)
            images[stat] = nib.Nifti1Image(volume, self.affine)
            path = self.run.group_map(name, comparison, stat)
            save_img(volume.astype(np.float32), self.affine, path, space=SPACE)
            write_json({**sidecar_of, "Statistic": stat}, sidecar(path))
        table = cluster_table(images["t"], threshold, least, images["logpfwe"], self.atlas)
        self.clusters.append(table.assign(method=name, comparison=comparison))

    def _volume(self, values: np.ndarray) -> np.ndarray:
        """Values of the voxels of the brain as (X, Y, Z), 0 outside."""
        volume = np.zeros(self.brain_mask.shape)
        volume[self.brain_mask] = values
        return volume

    def _log(self, row: dict[str, Any], design: Design) -> None:
        about = f"evaluate: {row['method']}, {row['comparison']}: "
        for message in design_messages(design):  # each once, although every method has the same confounds
            if (text := f"{row['comparison']}: {message}") not in self.messages:
                self.messages.add(text)
                log(f"evaluate: {text}")
        if row["n_empty"]:
            log(f"{about}{row['n_empty']} participants excluded: their maps are empty")
        log(
            f"{about}{row['n_significant']} of {row['n_voxels']} voxels differ at family-wise "
            f"p <= {row['alpha']:g} ({row['n_first']} and {row['n_second']} participants, smallest p "
            f"{row['smallest_p']:.3g})"
        )
