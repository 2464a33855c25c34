"""Cohorts as objects: tables, grids, labels, excluded participants, and a study that they start."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from test_api import SMALL_NETWORK, one_line

import xai_brain as xb
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import get_grid
from xai_brain.io.problems import DataError


@pytest.fixture(scope="module")
def cohort(synthetic_cohort):
    return synthetic_cohort


def test_a_cohort_has_a_table_a_figure_and_a_grid(cohort):
    assert cohort.table["participant_id"].nunique() == len(cohort) == 16
    assert cohort.class_names == ["female", "male"]
    assert cohort.grid == "t1w_4mm"
    assert np.load(cohort.table["volume_path"].iloc[0]).shape == get_grid("t1w_4mm").shape
    figure = cohort.plot()
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert "<table" in cohort._repr_html_()


def test_a_cohort_can_be_prepared_again_on_another_grid(cohort):
    other = cohort.prepare("t1w_58x70x58")
    assert other.grid == "t1w_58x70x58"
    assert np.load(other.table["volume_path"].iloc[0]).shape == (58, 70, 58)
    assert list(other.table.columns) == list(cohort.table.columns)


def test_columns_of_numbers_are_numeric(bids_tree):
    path = bids_tree / "participants.tsv"
    table = pd.read_csv(path, sep="\t")
    table = table.assign(icv=["1450.5", "n/a", *["1500"] * 4], mmse=30, code="007", site=1, score="12-14")
    table.assign(family_id=3).to_csv(path, sep="\t", index=False)
    cohort = xb.load_cohort("bids", bids_tree)
    kinds = cohort.table.dtypes
    assert kinds[["age", "icv", "mmse"]].map(pd.api.types.is_numeric_dtype).all()
    assert cohort.table["icv"].sum() == 1450.5 + 4 * 1500
    assert cohort.table["icv"].isna().sum() == 1
    for name in ("participant_id", "label", "sex", "code", "site", "family_id", "score"):
        assert cohort.table[name].map(type).eq(str).all(), name
    assert set(cohort.table["code"]) == {"007"}


def test_a_label_of_numbers_stays_text(bids_tree):
    path = bids_tree / "participants.tsv"
    table = pd.read_csv(path, sep="\t")
    table.assign(group=[1, 2] * 3).to_csv(path, sep="\t", index=False)
    cohort = xb.load_cohort("bids", bids_tree, label="group")
    assert cohort.class_names == ["1", "2"]
    assert cohort.table["group"].tolist() == cohort.table["label"].tolist() == ["1", "2"] * 3


def test_excluded_participants_are_listed(bids_tree):
    table = pd.read_csv(bids_tree / "participants.tsv", sep="\t")
    table.assign(sex=["n/a", *table["sex"][1:]]).to_csv(bids_tree / "participants.tsv", sep="\t", index=False)
    cohort = xb.load_cohort("bids", bids_tree, on_error="skip")
    assert len(cohort) == 5
    assert cohort.excluded["participant_id"].tolist() == ["sub-00"]
    with pytest.raises(DataError, match="sub-00"):
        xb.load_cohort("bids", bids_tree)


def test_prepared_volumes_of_a_cohort(cohort):
    volumes = cohort.volumes()
    assert volumes.shape == (16, *get_grid("t1w_4mm").shape)
    np.testing.assert_array_equal(volumes[3], np.load(cohort.table["volume_path"].iloc[3]))
    np.testing.assert_array_equal(cohort.affine, get_grid("t1w_4mm").affine)
    with pytest.raises(ConfigError, match="not prepared"):
        xb.load_cohort("synthetic", n_subjects=16).volumes()


@pytest.mark.parametrize(
    ("arguments", "valid"),
    [
        ({"model": "kan"}, "model 'kan'; there are .*kan2020"),
        ({"folds": "random"}, "folds 'random'; there are .*stratified"),
        ({"augmentation": "all"}, "augmentation 'all'; there are .*none"),
        ({"trainer": {"epochs": 3}}, "'epochs'; there are max_epochs"),
    ],
)
def test_unknown_arguments_of_a_study_list_the_valid_ones(cohort, tmp_path, arguments, valid):
    with pytest.raises(ConfigError) as error:
        xb.cross_validate(cohort, run_dir=tmp_path / "run", **arguments)
    assert re.search(f"there is no .*{valid}", one_line(error))
    assert not (tmp_path / "run").exists()


def test_grids_are_listed_and_needed(cohort, tmp_path):
    with pytest.raises(ConfigError, match=r"there is no grid 't1w_3mm'; there are .*t1w_4mm"):
        cohort.prepare("t1w_3mm")
    with pytest.raises(ConfigError, match=r"not prepared: call cohort.prepare\(grid\) first; grids are"):
        xb.cross_validate(xb.load_cohort("synthetic", n_subjects=16), run_dir=tmp_path / "run")


def test_folders_without_results_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no study; xai_brain.cross_validate makes one"):
        xb.open_study(tmp_path)
    with pytest.raises(ConfigError, match=r"there are no maps; Study.explain makes them"):
        xb.open_maps(tmp_path)
    with pytest.raises(ConfigError, match="has no report card"):
        xb.ReportCard(tmp_path)


@pytest.mark.slow
def test_a_report_card_of_a_planted_effect(cohort, tmp_path):
    planted = xb.PlantedEffect(kind="intensity", size=3.0, center_mm=[34, -20, -10], radius_mm=22.0)
    card = xb.report_card(
        cohort,
        methods=["GradCAM", "Saliency"],
        metrics=["rra", "pointing"],
        baselines=["RandomMap"],
        planted=planted,
        model_settings=SMALL_NETWORK,
        seeds=(0,),
        max_epochs=1,
        n_bootstrap=50,
        card_settings={"n_sanity": 2},
        run_dir=tmp_path / "card",
    )
    assert set(card.table["method"]) == {"GradCAM", "Saliency", "RandomMap"}
    assert set(card.verdicts["method"]) == {"GradCAM", "Saliency", "RandomMap"}
    assert card.verdicts["believe"].isin(["yes", "with care", "no", "not rated"]).all()
    assert card.plot()._repr_png_().startswith(b"\x89PNG")
    assert set(card.maps.methods) == {"GradCAM", "Saliency", "RandomMap"}
    assert repr(xb.ReportCard(card.run_dir)) == repr(card)
    assert card.study.class_names == ["without", "with"]
    with pytest.raises(ConfigError, match=r"'n_sane'; there are .*n_sanity"):
        xb.report_card(cohort, planted=planted, card_settings={"n_sane": 2}, run_dir=tmp_path / "none")
    with pytest.raises(ConfigError, match=r"planted.kind is needed"):
        xb.report_card(cohort, planted=xb.PlantedEffect(), run_dir=tmp_path / "none")
