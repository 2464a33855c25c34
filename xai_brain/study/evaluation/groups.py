"""Test classes or a number voxel by voxel, in the maps of every method and in the prepared images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import file_hash
from xai_brain.io.problems import DataError
from xai_brain.parallel.progress import log, track
from xai_brain.parallel.threads import available_cores
from xai_brain.runs.contents import IMAGE
from xai_brain.runs.directory import (
    RunDirectory,
    read_json,
    read_tsv,
    sidecar,
    update_metrics,
    write_tsv,
)
from xai_brain.runs.manifest import is_intact, is_up_to_date, manifest_files, write_manifest
from xai_brain.statistics.group import BRAIN_SHARE, scale, smooth, voxelwise_test
from xai_brain.statistics.group_design import GroupError, common_output, contrast_name, make_design
from xai_brain.statistics.map_rows import MapRows
from xai_brain.study.confounds import chosen_confounds, group_participants
from xai_brain.study.evaluation.found_maps import map_states
from xai_brain.study.evaluation.group_records import (
    DIFFERENCE,
    SLOPE,
    MethodTests,
    Results,
    SavedTest,
    agreements_of,
    groups_manifest,
    log_test,
    overlap_metrics,
    overlaps_of,
    read_record,
    remove_others,
    test_record,
    voxelwise_maps,
)
from xai_brain.study.evaluation.regions import atlas_files, atlas_of
from xai_brain.study.participants import is_readable, prepared_cohort, same_cohort, task_of
from xai_brain.study.run_images import brain_share, made_by, map_values

TABLES = ("group_tests", "group_clusters", "group_overlap", "group_agreement")


def evaluate_groups(config: Config, run: RunDirectory, maps: list[dict[str, Any]]) -> None:
    """Test the classes, or the number, in all maps that explain one common output; others are logged.

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
    manifest = groups_manifest(run)
    manifest.unlink(missing_ok=True)
    for name in TABLES:
        run.evaluation(name).unlink(missing_ok=True)
    update_metrics(run, {}, replace=("group/", "group_overlap/"))
    asked = config.evaluation.group.n_perm > 0
    records = Comparison(config, run, pd.DataFrame(maps)).write() if asked else []
    remove_others(run, records)
    made = [*records, *map(run.evaluation, TABLES), *(p for each in voxelwise_maps(run) for p in each.files)]
    write_manifest(manifest, group_inputs(config, run, maps), made)


def groups_are_compared(config: Config, run: RunDirectory, maps: list[dict[str, Any]]) -> bool:
    """Whether the existing comparisons were made from these inputs, and none of their files was removed."""
    manifest, inputs = groups_manifest(run), group_inputs(config, run, maps)
    return is_up_to_date(manifest, inputs) and all(path.exists() for path in manifest_files(manifest))


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
        "maps": map_states(maps),
    }


class Comparison:
    """All tests of one run and their tables; `maps` has one row per map."""

    def __init__(self, config: Config, run: RunDirectory, maps: pd.DataFrame):
        self.config, self.run, self.maps, self.settings = config, run, maps, config.evaluation.group
        every = read_tsv(run.participants)
        self.task = task_of(config, every)
        participants = group_participants(self.task, every, report=log)
        self.confounds = chosen_confounds(config, self.task, participants)
        folds = maps[["participant_id", "fold"]].drop_duplicates("participant_id")
        self.subjects = participants.drop(columns="fold", errors="ignore").merge(folds, on="participant_id")
        self.atlas = atlas_of(config)
        share, self.affine = brain_share(run, maps)
        self.brain_mask = share >= BRAIN_SHARE
        self.effect = DIFFERENCE if self.task.has_classes else SLOPE
        if not self.brain_mask.any():
            raise ConfigError(f"no voxel lies in {BRAIN_SHARE:.0%} of the brains of {run.path / 'images'}")
        self.tests: list[dict[str, Any]] = []
        self.clusters: list[pd.DataFrame] = []
        self.results: Results = {}
        self.records: list[Path] = []
        self.kept: list[str] = []  # methods whose comparisons existed
        self.messages: set[str] = set()  # about confounds, that were logged

    def write(self) -> list[Path]:
        """Test all maps and write the tables; returns the records of the methods."""
        for method, rows in self.maps.groupby("method", sort=False):
            try:
                self._compare_maps(str(method), rows)
            except GroupError as error:
                self.tests.append({"method": method, "comparison": "", "reason": str(error)})
        if self.settings.images and self.results:
            self._compare_images()
        for text, methods in _refusals(self.tests).items():
            log(f"evaluate: {', '.join(methods)}{text}")
        if self.kept:
            log(f"evaluate: existing group tests are kept: {', '.join(self.kept)}")
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
        return self.records

    # -- comparisons -------------------------------------------------------------------------
    def _compare_maps(self, method: str, rows: pd.DataFrame) -> None:
        about_maps = [read_json(sidecar(path)) for path in rows["path"]]
        target = common_output(about_maps, self.task.group_output)
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
        files = sorted(f"{row.path.name} {row.seed} {row.file_state}" for row in rows.itertuples())
        self._compare_once(
            method, read, self.confounds, self.settings.scaling, about, files, list(rows["path"])
        )

    def _compare_images(self) -> None:
        made = self.config.preprocessing
        about = {"Method": IMAGE, "IntensityScaling": made.scaling, "SubjectScaling": "none"}
        prepared = [str(asdict(made)), is_readable(self.config)]
        others = [name for name in self.confounds if name != "fold"]
        try:
            if self.run.predictions.exists() and "fold" not in read_tsv(self.run.predictions):
                raise ConfigError("the inputs of a given network are not kept")
            self._compare_once(IMAGE, self._read_images, others, "none", about, prepared)
        except (DataError, ConfigError, OSError) as error:
            log(f"evaluate: images are not tested: {error}; evaluation.group.images=false leaves them out")
            self.tests.append({"method": IMAGE, "comparison": "", "reason": "the cohort cannot be read"})

    def _read_images(self, participant_id: str) -> list[np.ndarray]:
        return [np.load(path) for path in self._image_paths[participant_id]]

    @cached_property
    def _image_paths(self) -> dict[str, list[str]]:
        cohort = same_cohort(prepared_cohort(self.config, self.run), self.run)
        return cohort.groupby("participant_id")["volume_path"].agg(list).to_dict()

    def _compare_once(
        self,
        name: str,
        read: Callable[[str], list[np.ndarray]],
        confounds: Sequence[str],
        scaling: str,
        about: dict[str, Any],
        files: list[Any],
        sources: Sequence[Path] = (),
    ) -> None:
        """Make the tests, unless those of these files and settings exist unaltered."""
        record = test_record(self.run, name)
        common = group_inputs(self.config, self.run, [])
        inputs = {
            **{key: value for key, value in common.items() if key not in ("top_percents", "cohort")},
            "about": about,
            "confounds": list(confounds),
            "subjects": self.subjects[["participant_id", "fold"]].to_numpy().tolist(),
            "brain": sha256(self.brain_mask.tobytes()).hexdigest(),
            "maps": files,
        }
        if is_intact(record, inputs):
            self.kept.append(name)
        else:
            record.unlink(missing_ok=True)
            made = MethodTests(
                self.config.evaluation, self.run, name, self.brain_mask, self.affine, self.atlas, sources
            )
            self._compare(made, read, confounds, scaling, about)
            write_manifest(record, inputs, made.files, Tests=made.tests, Clusters=made.clusters)
        self.records.append(record)
        # also results that were just computed are read again, so that both ways give the same numbers
        tests, clusters = read_record(record)
        self.tests += tests
        self.clusters += clusters
        for row in tests:
            if not row["reason"]:
                t, effect = (
                    map_values(self.run.group_map(name, row["comparison"], stat))[self.brain_mask]
                    for stat in ("t", self.effect)
                )
                self.results[name, row["comparison"]] = SavedTest(t, effect, self.effect)

    def _compare(
        self,
        made: MethodTests,
        read: Callable[[str], list[np.ndarray]],
        confounds: Sequence[str],
        scaling: str,
        about: dict[str, Any],
    ) -> None:
        """Test every contrast; `read` returns the maps of a participant, which are averaged."""
        name, ids = made.method, list(self.subjects["participant_id"])
        rows = MapRows(len(self.subjects), int(self.brain_mask.sum()), self.run.path / "group")
        empty = np.zeros(len(self.subjects), bool)
        for i, participant_id in enumerate(track(ids, f"group, {name}", "participants")):
            inside = [
                smooth(values, self.affine, self.settings.fwhm_mm, self.brain_mask)[self.brain_mask]
                for values in read(participant_id)
            ]
            if found := [scale(values, scaling) for values in inside if values.any()]:
                rows[i] = np.mean(found, axis=0)
            empty[i] = not found
        there = np.flatnonzero(~empty)
        for contrast in self.task.contrasts():
            comparison = contrast_name(contrast)
            if self.settings.tfce or self.settings.cluster_p is not None:
                log(f"evaluate: {name}, {comparison}: {self.settings.n_perm} permutations of clusters")
            of_contrast = len(contrast) == 1 or self.subjects["label"].isin(contrast).to_numpy()
            n_empty = int((empty & of_contrast).sum())
            try:
                design = make_design(self.subjects.iloc[there], contrast, confounds)
                test = voxelwise_test(
                    rows, there[design.kept], design, n_perm=self.settings.n_perm,
                    random_state=self.config.evaluation.random_state, n_jobs=available_cores(),
                    brain_img=nib.Nifti1Image(self.brain_mask.astype(np.uint8), self.affine),
                    tfce=self.settings.tfce, cluster_p=self.settings.cluster_p,
                    progress=partial(track, description=f"permutations, {name}, {comparison}",
                                     unit="voxels", size=len, brief=True),
                )  # fmt: skip
            except GroupError as error:
                made.tests.append({"method": name, "comparison": comparison, "reason": str(error)})
                continue
            made.save(contrast, design, test, n_empty, about)
            log_test(made.tests[-1], design, self.messages)


def _refusals(tests: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Comparisons that were not made, in words, and their methods."""
    found: dict[str, list[str]] = {}
    for row in tests:
        if row["reason"] and (row["comparison"] or row["method"] != IMAGE):  # reported before
            pair = f", {row['comparison']}" if row["comparison"] else ""
            found.setdefault(f"{pair}: maps are not tested: {row['reason']}", []).append(row["method"])
    return found
