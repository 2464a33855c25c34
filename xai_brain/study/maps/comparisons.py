"""Comparisons of maps between classes: regions of an atlas, and voxel by voxel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import pandas as pd

from xai_brain.config.build import change_settings, valid_choice
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.runs.directory import RunDirectory, read_tsv
from xai_brain.runs.seeds import counted_from_one
from xai_brain.study.maps.surfaces import MapSurfaces
from xai_brain.study.settings import open_run, stage


class MapComparisons(MapSurfaces):
    """Maps and their comparisons between classes; see `xai_brain.Maps`."""

    def regions(
        self, labels_img: str | Path | nib.Nifti1Image, lut: pd.DataFrame | str | Path | None = None
    ) -> pd.DataFrame:
        """Summarise every map in every region of an atlas.

        Parameters
        ----------
        labels_img : str, Path or nibabel.Nifti1Image
            Atlas in MNI152, on any grid; 0 is background.
        lut : pandas.DataFrame or path, optional
            Columns ``index`` and ``name``; default: the table beside the image.

        Returns
        -------
        pandas.DataFrame
            participant_id, session_id, seed, fold (from 1), class, method, index, region, n_voxels, sum,
            mean, positive_share and mass_share; see `xai_brain.statistics.regions.region_values`.
        """
        from xai_brain.atlas.atlas import load_atlas
        from xai_brain.study.evaluation.regions import region_table

        self._require_common_space("regions")
        atlas = load_atlas(labels_img, lut)
        where = str(labels_img) if isinstance(labels_img, str | Path) else "labels_img"
        rows = self._rows.assign(fold=counted_from_one(self._rows["fold"])).to_dict("records")
        return region_table(self._run, rows, atlas, where)

    def compare_regions(
        self,
        labels_img: str | Path | nib.Nifti1Image,
        lut: pd.DataFrame | str | Path | None = None,
        *,
        confounds: Sequence[str] | None = None,
        n_perm: int = 1000,
    ) -> pd.DataFrame:
        """Test classes or a number region by region, with the direction and confounds of `compare_groups`.

        The maps must explain one common output, as for `compare_groups`.

        Parameters
        ----------
        labels_img, lut
            As in `regions`.
        confounds : sequence of str, optional
            As in `compare_groups`.
        n_perm : int, default 1000

        Returns
        -------
        pandas.DataFrame
            method, region, measure (mean, mass_share), class_a (the earlier class), class_b, mean_a, mean_b,
            difference (b minus a, adjusted for the confounds) with its interval, ratio (mean_b / mean_a), t,
            p, q (Benjamini-Hochberg) and others; see `xai_brain.statistics.regions.compare_classes`. With
            ``task="regression"``: mean, slope (change for each unit of the target, adjusted) with its
            interval, partial_r, t, p and q; see `xai_brain.statistics.continuous.regions.associate_regions`.

        Raises
        ------
        ConfigError
            There is no such column, or the maps explain different outputs.
        """
        from xai_brain.study.evaluation.regions import explained_output, region_tests
        from xai_brain.study.participants import task_of

        changes = {"evaluation.group.confounds": None if confounds is None else list(confounds)}
        config = change_settings(self._settings(), {**changes, "evaluation.n_perm": n_perm})
        task = task_of(config, read_tsv(self._run.participants))
        for method, rows in self._rows.groupby("method"):
            reason, is_common = explained_output(rows, task)
            if not is_common:
                raise ConfigError(f"{method}: {reason}")
        return region_tests(config, self._run, self.regions(labels_img, lut))

    def compare_groups(
        self, confounds: Sequence[str] | None = None, *, n_perm: int = 1000, fwhm_mm: float = 0.0
    ) -> pd.DataFrame:
        """Test classes or a number voxel by voxel (Freedman-Lane permutation test, family-wise error).

        With ``task="regression"``, the association of the maps with the target over participants is tested.
        Of classes, the maps must explain one common output: ``study.explain(..., target="male",
        output="logit_difference")``. Statistical maps are written to the folder ``group`` of the study.

        Parameters
        ----------
        confounds : sequence of str, optional
            Columns of participants.tsv, or ``fold``; default: age, sex, brain size, site and fold, as far
            as they exist.
        n_perm : int, default 1000
        fwhm_mm : float, default 0.0
            Smoothing of every map.

        Returns
        -------
        pandas.DataFrame
            One row per method and pair of classes: number of voxels, of significant voxels and others;
            ``image`` in place of a method is the same comparison of the prepared images.

        Raises
        ------
        ConfigError
            There is no such column, the confounds leave nothing to test, or the maps explain different
            outputs.
        """
        from xai_brain.runs.contents import IMAGE
        from xai_brain.study.confounds import check_confounds
        from xai_brain.study.evaluation.tables import make_group_tests
        from xai_brain.study.participants import task_of

        self._require_common_space("compare_groups")
        participants = read_tsv(self._run.participants)
        for name in confounds or ():
            valid_choice("column", name, (*participants, "fold"))
        given: dict[str, Any] = {"n_perm": n_perm, "fwhm_mm": fwhm_mm}
        given["confounds"] = None if confounds is None else list(confounds)
        changes = {f"evaluation.group.{name}": value for name, value in given.items()}
        config = change_settings(self._settings(), changes)  # is refused before the study is changed
        check_confounds(config, task_of(config, participants), participants)
        self._evaluate(make_group_tests, changes)
        table = read_tsv(self._run.evaluation("group_tests"))
        own = table[table["method"].isin(self.methods)]
        if own["reason"].notna().all():
            raise ConfigError(
                f"no method can be tested: {own['reason'].iloc[0]}; in Python, for classes: "
                "study.explain(methods, target=<one class>, output='logit_difference', overwrite=True)"
            )
        return table[table["method"].isin([*self.methods, IMAGE])].reset_index(drop=True)

    # -- internal ------------------------------------------------------------------------------
    def _evaluate(self, make: Any, changes: dict[str, Any]) -> None:
        def work(config: Config) -> RunDirectory:
            run = open_run(config)
            make(config, run, self._find(config))
            return run

        stage(work)(change_settings(self._settings(), changes))

    def _summary(self, table: str) -> pd.DataFrame:
        from xai_brain.study.evaluation.tables import make_tables

        self._evaluate(make_tables, {})
        summary = read_tsv(self._run.evaluation("summary"))
        return summary[summary["table"] == table]
