from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import get_type_hints

import nibabel as nib
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from xai_brain.config.checks import read_config
from xai_brain.config.compose import COMMANDS, compose, conf_dir
from xai_brain.config.planted_effect import PlantedEffect
from xai_brain.config.saved import saved_settings, settings_text, settings_to_save
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError

GROUPS = sorted(folder.name for folder in conf_dir().iterdir() if folder.is_dir())
FILES = [(path.parent.name, path.stem) for path in sorted(conf_dir().glob("*/*.yaml"))]
# those whose plugins are an extra
EXTRA = [("launcher", "joblib"), ("launcher", "submitit"), ("launcher", "slurm"), ("sweep", "optuna")]
ROOT = "data.root=somewhere"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_file_that_composes(command):
    expected = "predicted" if command == "predict" else "run"  # what it leaves is no run of its own
    assert compose(command, ["data=synthetic"]).name == expected


@pytest.mark.parametrize(("group", "choice"), FILES)
def test_every_file_composes_and_says_how_to_use_it(group, choice):
    if (group, choice) == ("model", "custom"):
        with pytest.raises(ConfigError, match=r"no value for model\._target_"):
            compose("run", ["data=synthetic", "model=custom"])
        return
    if choice == "region_ablation":
        with pytest.raises(ConfigError, match=r"no value for attribution\.RegionAblation\.labels_img"):
            compose("run", ["data=synthetic", "attribution=[region_ablation]"])
    if (group, choice) in EXTRA and find_spec("hydra_plugins") is None:
        with pytest.raises(ConfigError, match=r"is not installed: pip install 'hydra-joblib-launcher"):
            compose("run", ["data=synthetic", f"{group}={choice}"])
        return
    overrides = [f"{group}={choice}" if group != "attribution" else f"attribution=[{choice}]", ROOT]
    overrides += ["attribution.RegionAblation.labels_img=atlas.nii.gz"] * (choice == "region_ablation")
    overrides += ["regional.atlas=atlas.nii.gz"] * (choice == "siegel")
    cfg = compose("run", overrides if group in ("data", "experiment") else ["data=bids", *overrides])
    assert OmegaConf.missing_keys(cfg) == set()
    lines = (conf_dir() / group / f"{choice}.yaml").read_text().splitlines()
    comment = lines[1] if lines[0] == "# @package _global_" else lines[0]
    assert comment.startswith("# ")
    assert "xai-brain" in comment
    assert choice in comment or group in comment


@pytest.mark.parametrize("choice", [choice for group, choice in FILES if group == "attribution"])
def test_every_method_can_be_made(choice, toy_net, tmp_path):
    from xai_brain.attribution import Reference
    from xai_brain.attribution.target_distribution import TargetDistribution
    from xai_brain.study.explanation.configured_methods import build_method

    overrides = ["data=synthetic", f"attribution=[{choice}]"]
    if choice == "region_ablation":
        labels_img = nib.Nifti1Image(np.ones((8, 9, 10), np.int16), np.diag([2.0, 2, 2, 1]))
        labels_img.to_filename(tmp_path / "atlas.nii.gz")
        (tmp_path / "atlas.tsv").write_text("index\tname\n1\tbrain\n")
        overrides.append(f"attribution.RegionAblation.labels_img={tmp_path}/atlas.nii.gz")
    cfg = compose("run", overrides)
    volumes = torch.zeros(2, 1, 8, 9, 10)
    reference = Reference(
        class_means=volumes,
        volumes=volumes,
        targets=torch.tensor([0, 1]),
        brain_mask=torch.ones(8, 9, 10, dtype=torch.bool),
        voxel_size_mm=(2.0, 2.0, 2.0),
        class_variances=volumes,
        class_counts=torch.tensor([2, 2]),
        affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64)),
    )
    if choice in ("opposite_difference", "correlation_map"):
        target = TargetDistribution(*volumes[:1].expand(3, 1, 8, 9, 10), low=1, high=3, median=2, sd=1)
        reference = replace(reference, distribution=target)
    (label,) = cfg.attribution
    method, _ = build_method(read_config(cfg), label, toy_net, reference)
    assert callable(method.attribute)


def test_the_published_protocol():
    cfg = compose("run", ["experiment=kan2020", ROOT])
    assert (cfg.folds.n_folds, cfg.trainer.batch_size, cfg.trainer.max_epochs, cfg.trainer.lr) == (
        10,
        45,
        20,
        3e-4,
    )
    assert list(cfg.trainer.milestones) == [5, 15]
    assert cfg.model["_target_"] == "xai_brain.models.networks.kan2020.Kan2020"
    assert cfg.preprocessing.grid == "kan2020_58x70x58"
    assert cfg.preprocessing.scaling == "none"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.max_epoch=3"], "'trainer.max_epoch'; did you mean 'trainer.max_epochs'"),
        (["model.chanels=[1,2,3]"], "'model.chanels'; did you mean 'model.channels'"),  # codespell:ignore
        (["trainr.lr=1"], "did you mean 'trainer.lr'"),
        (["lr=1e-3"], "did you mean 'trainer.lr'"),  # not that of a mask
        (["attribution=[gradcam]"], "token_grad_cam; did you mean grad_cam?"),
        (["trainer.max_epochs=many"], "trainer.max_epochs: Value 'many'"),
        (
            ["model=kan2021"],
            "no model=kan2021; one of custom, densenet121, kan2020, kan2020_small, resnet18, sfcn, shallow",
        ),
        (
            ["experiment=dmo"],
            "no experiment=dmo; one of demo, detection_ixi, dose, ixi_age, ixi_age_networks, ixi_sex, "
            "ixi_sex_full, kan2020",
        ),
        (["attribution=[cam]"], "no attribution=cam; one of amortized_masker"),
        (["data.on_error=ignore"], "data.on_error=ignore: one of raise, skip"),
        (["folds.n_folds=1"], "folds.n_folds=1: at least 2"),
        (["folds.kind=column"], "no value for folds.column"),
        (["folds.kind=random"], "folds.kind=random: one of stratified, hold_out, column"),
        (["folds=hold_out", "folds.n_repeats=2"], "only folds.kind=stratified is repeated"),
        (["folds.test_fraction=1.5"], "folds.test_fraction=1.5: a number between 0 and 1"),
        (["augmentation.elastic_sd_mm=9"], "above an eighth of"),
        (["augmentation.noise_sd=-1"], "augmentation.noise_sd=-1.0: at least 0"),
        (["augmentation.flip_probability=2"], "flip_probability=2.0: at least 0, at most 1 is needed"),
        (["evaluation.top_percents=[0,150]"], "above 0, at most 100"),
        (["preprocessing.grid=foo"], "one of t1w_58x70x58"),
        (
            ["preprocessing.scaling=foo"],
            "preprocessing.scaling=foo: one of zscore, percentile, quantile, none",
        ),
        (["preprocessing.brain=foo"], "preprocessing.brain=foo: one of image, template"),
        (["preprocessing.brain_median=700"], "brain_median=700.0: a positive number with scaling=none"),
        (["data.num_workers=0"], "data.num_workers=0: at least 1"),
        (["seeds=[1,1]"], "seeds=.*different numbers"),
        (["attribution.GradCAM._target_=os.system"], "package is not trusted"),
        (["attribution=[grad_cam]", "+attribution.Other.n_iter=3"], r"attribution\.Other has no _target_"),
        (["trainer.max_epochs=="], "trainer.max_epochs: Value '='"),
    ],
)
def test_a_wrong_setting_is_one_line_with_the_nearest_right_one(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        compose("run", ["data=synthetic", *overrides])
    assert "\n" not in str(caught.value)


def test_a_cohort_is_needed():
    with pytest.raises(ConfigError, match="no value for data"):
        compose("run")
    with pytest.raises(ConfigError, match=r"no value for data\.root"):
        compose("run", ["data=bids"])


def test_an_experiment_brings_back_no_method_that_was_not_chosen():
    cfg = compose("run", ["experiment=ixi_sex", ROOT, "attribution=[grad_cam]"])
    assert list(cfg.attribution) == ["GradCAM"]
    assert compose("run", ["experiment=ixi_sex", ROOT]).attribution.MeaningfulPerturbation.n_iter == 40


def test_the_whole_study_of_ixi_can_compare_its_classes():
    cfg = compose("run", ["experiment=ixi_sex_full", ROOT, "evaluation.atlas=labels.nii.gz"])
    assert (cfg.name, cfg.run_dir, list(cfg.seeds)) == ("ixi_sex_full", "outputs/ixi_sex_full", [0, 1, 2])
    assert (cfg.explain.target, cfg.explain.output) == ("male", "logit_difference")  # of everybody
    assert cfg.explain.target in cfg.data.class_names
    assert cfg.explain.seeds is None  # all that are trained
    assert list(cfg.attribution) == ["GradCAM", "GuidedBackprop", "MeaningfulPerturbation"]
    without_table = {path.stem for path in (conf_dir() / "baselines").glob("*.yaml")}
    without_table = {name for name in without_table if not name.startswith("morphometry")}
    of_numbers = {"ridge", "pca_ridge", "linear_svr"}
    assert set(cfg.baselines) == without_table - of_numbers - {"shallow"}  # the network of the run
    assert cfg.data.brain_size_column == "icv_ml"  # a confound, as age and site are, unless others are named
    assert cfg.evaluation.group.confounds is None
    assert (cfg.evaluation.first_layer, cfg.evaluation.masks.in_run) == (True, True)
    assert cfg.evaluation.atlas == "labels.nii.gz"
    assert (
        cfg.augmentation == compose("run", ["data=synthetic", "augmentation=none"]).augmentation
    )  # measured


def test_own_modules_can_be_trusted():
    overrides = ["data=synthetic", "attribution.GradCAM._target_=mine.Method"]
    with pytest.raises(ConfigError, match=r"trusted_modules=\[mine\]"):
        compose("run", overrides)
    assert compose("run", [*overrides, "trusted_modules=[mine]"])


def test_groups_have_the_name_of_what_they_configure():
    fields = set(Config.__dataclass_fields__) | {"experiment", "sweep", "launcher"}
    assert set(GROUPS) <= fields
    assert Path(conf_dir() / "run.yaml").exists()


def test_stored_settings_are_read_with_their_types_and_unknown_ones_are_refused(tmp_path):
    settings = settings_to_save(read_config(compose("run", ["data=bids", ROOT])))
    (tmp_path / "config.yaml").write_text(settings_text(settings))
    found = saved_settings(tmp_path / "config.yaml")
    assert isinstance(found, Config)
    assert found.run_dir == str(tmp_path)
    assert settings_to_save(found) == settings

    del settings["data"]["num_workers"]  # what is absent has its default
    settings["preprocessing"]["smooth"] = 4
    (tmp_path / "config.yaml").write_text(settings_text(settings))
    with pytest.raises(
        ConfigError, match=r"config\.yaml: preprocessing\.smooth: not a setting of this version"
    ):
        saved_settings(tmp_path / "config.yaml")


def test_every_setting_states_its_meaning():
    def check(schema, where):
        hints = get_type_hints(schema)
        for each in fields(schema):
            kind = hints[each.name]
            if is_dataclass(kind):
                check(kind, f"{where}{each.name}.")
            elif schema is not PlantedEffect and f"{where}{each.name}" not in ("data.layout", "model"):
                assert each.metadata.get("meaning"), f"{where}{each.name}"

    check(Config, "")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.group.alpha=1.5", "a number between 0 and 1 is needed"),
        ("evaluation.masks.areas=[5,100]", "a number between 0 and 100 is needed"),
        ("evaluation.top_percents=[0]", "above 0, at most 100 is needed"),
        ("trainer.max_epochs=0", "at least 1 is needed"),
        ("folds.test_fraction=nan", "a number between 0 and 1 is needed"),
        ("trainer.scheduler=cosine", "one of one_cycle, multistep, constant is needed"),
        ("preprocessing.grid=t1w_3mm", "one of .*t1w_58x70x58.* is needed"),
    ],
)
def test_limits_and_choices_are_those_of_the_schema(override, message):
    name = override.split("=")[0].replace(".", r"\.")
    with pytest.raises(ConfigError, match=rf"^{name}=.*: {message}$"):
        compose("run", ["data=synthetic", override])


@pytest.mark.parametrize("experiment", ["demo", "report_card"])
def test_a_network_that_is_chosen_with_an_experiment_has_its_own_settings(experiment):
    alone = compose("run", ["data=synthetic", "model=shallow"]).model
    assert compose("run", [f"experiment={experiment}", "model=shallow"]).model == alone
    paper = compose("run", [f"experiment={experiment}", "model=kan2020"]).model
    assert list(paper.channels) == [32, 64, 128]
