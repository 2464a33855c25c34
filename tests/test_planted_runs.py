from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from omegaconf import OmegaConf

from xai_brain.config.checks import read_config
from xai_brain.config.compose import compose
from xai_brain.config.planted_effect import PlantedEffect
from xai_brain.config.saved import saved_settings
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import get_grid, load_img, same_grid
from xai_brain.io.problems import DataError
from xai_brain.runs.directory import read_json, read_tsv
from xai_brain.stages.run import run
from xai_brain.study.participants import prepared_cohort, same_cohort
from xai_brain.study.settings import open_run
from xai_brain.study.training.folds import audit

RUN = [
    "experiment=demo",
    "data.cohort.n_subjects=16",
    "data.cohort.effect_volume_change=0",
    "data.cohort.effect_intensity_change=0",
    "attribution=[grad_cam]",
    "folds.n_folds=2",
    "trainer.max_epochs=1",
    "trainer.tensorboard=false",
    "model.channels=[2,3,4]",
    "evaluation.n_bootstrap=20",
]
PLANTED = ["planted=intensity", "planted.center_mm=[30,-20,-14]", "planted.size=2"]


@pytest.fixture(scope="module")
def planted_run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "planted"
    config = read_config(compose("run", [*RUN, *PLANTED, f"run_dir={run_dir}"]))
    return run(config), config


@pytest.mark.slow
def test_a_run_learns_the_random_classes_and_knows_the_truth(planted_run):
    done, config = planted_run
    people = read_tsv(done.participants)
    assert people["label"].value_counts().to_dict() == {"with": 8, "without": 8}
    assert people["sex"].value_counts().to_dict() == {"female": 8, "male": 8}
    assert ((people["planted_strength"] > 0) == (people["label"] == "with")).all()
    assert people["truth_path"].isna().all()
    assert {"prob_without", "prob_with"} < set(read_tsv(done.predictions))
    grid = get_grid(config.preprocessing.grid)
    for row in people.itertuples():
        truth_img = load_img(done.image(row.participant_id, row.session_id, "mask"))
        assert same_grid(truth_img, grid)
        voxels = np.argwhere(np.asanyarray(truth_img.dataobj) > 0)
        world = voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3]
        np.testing.assert_allclose(world.mean(axis=0), [30, -20, -14], atol=3)
        assert np.linalg.norm(world - [30, -20, -14], axis=1).max() < 14
    assert "localization/GradCAM/rra" in read_json(done.metrics)
    assert "planted intensity" in done.report.read_text()


@pytest.mark.slow
def test_what_is_planted_belongs_to_the_training(planted_run):
    done, config = planted_run
    same = same_cohort(prepared_cohort(config, done), done)
    assert len(same) == 16
    other = replace(config, planted=replace(config.planted, size=1.0))
    with pytest.raises(DataError, match="the image has changed since training"):
        same_cohort(prepared_cohort(other, done), done)
    with pytest.raises(ConfigError, match=r"planted\.size: 2\.0 before, 1\.0 now"):
        open_run(other)


@pytest.mark.slow
def test_a_run_from_before_has_nothing_planted(planted_run, tmp_path):
    done, _ = planted_run
    old = OmegaConf.to_container(OmegaConf.load(done.config))
    del old["planted"]
    path = tmp_path / "config.yaml"
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(old)))
    assert saved_settings(path).planted == PlantedEffect()


@pytest.mark.slow
def test_two_copies_of_an_image_are_found_whatever_they_carry(planted_run):
    done, config = planted_run
    cohort, folds = prepared_cohort(config, done), read_tsv(done.folds)
    audit(config, cohort, folds)
    first = folds[folds["fold"] == 0]["participant_id"].iloc[0]
    second = folds[folds["fold"] == 1]["participant_id"].iloc[0]
    content = cohort.set_index("participant_id")["sha256"].str.partition("+")
    copied = cohort["participant_id"] == second
    copy_of_first = content.at[first, 0] + "+" + content.at[second, 2]
    twice = cohort.assign(sha256=cohort["sha256"].mask(copied, copy_of_first))
    with pytest.raises(DataError, match="identical image files"):
        audit(config, twice, folds)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["planted=atrophy", "planted.size=90"], r"planted\.size=90\.0: percent of the region's volume"),
        (["planted=lesion", "planted.radius_mm=0"], r"planted\.radius_mm=0\.0: above 0"),
        (
            ["planted=intensity", "planted.confound_rho=2", "planted.confound_center_mm=[0,0,0]"],
            "from -1 to 1",
        ),
        (["planted.kind=tumour"], r"planted\.kind=tumour: one of atrophy, expansion, intensity, lesion"),
        (["planted.kind=lesion"], r"no value for planted\.center_mm"),
        (["planted=atrofy"], "no planted=atrofy; one of atrophy, expansion, intensity, lesion, none"),
        (["planted.sizes=3"], r"did you mean 'planted\.size'"),
    ],
)
def test_wrong_settings_stop_before_any_work(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        compose("run", ["data=synthetic", *overrides])
    assert "\n" not in str(caught.value)
