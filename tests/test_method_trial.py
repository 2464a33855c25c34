"""A method that cannot explain the chosen network is reported before training, with what removes it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL, ToyNet
from torch import nn

from xai_brain import cli, compose
from xai_brain.attribution.perturbation.mask_descent import MaskDescent
from xai_brain.config.checks import read_config
from xai_brain.config.saved import stage_settings
from xai_brain.config.setting import ConfigError
from xai_brain.runs.directory import read_json
from xai_brain.study.explanation.method_trial import try_methods

GRID_SHAPE = (46, 55, 46)  # of t1w_4mm


class GeluNet(ToyNet):
    """A network without a ReLU: guided backpropagation has no rule for it."""

    def __init__(self, channels=None):  # experiment=demo has a value for it
        super().__init__()
        self.relu1 = self.relu2 = nn.GELU()


class Reshaping:
    """A method whose maps do not have the shape of the inputs."""

    multiplies_by_inputs = True

    def __init__(self, model):
        pass

    def attribute(self, inputs, target):
        return inputs.mean(4)


@pytest.fixture
def cohort(tmp_path):
    """Prepared volumes of four participants."""
    rng, rows = np.random.default_rng(0), []
    brain = np.zeros(GRID_SHAPE, bool)
    brain[8:38, 9:46, 7:39] = True
    np.save(tmp_path / "brain.npy", brain)
    for i in range(4):
        np.save(tmp_path / f"{i}.npy", np.where(brain, rng.standard_normal(GRID_SHAPE), 0).astype(np.float32))
        rows.append({"volume_path": str(tmp_path / f"{i}.npy"), "target": i % 2, "label": "ab"[i % 2]})
    return pd.DataFrame(rows).assign(volume_mask_path=str(tmp_path / "brain.npy"))


def settings(*more):
    small = [text for text in SMALL if not text.startswith("model.")]
    network = ["model=custom", "model._target_=test_method_trial.GeluNet"]
    return [*small, *network, "trusted_modules=[test_method_trial]", *more]


def test_methods_that_cannot_explain_the_network_are_named_with_what_removes_them(cohort):
    before = torch.get_rng_state()
    reshaping = "+attribution.Mine={_target_: test_method_trial.Reshaping, _partial_: true}"
    cfg = compose("run", settings(reshaping))
    message = (
        r"GeluNet cannot be explained by GuidedBackprop, Mine \(attribution\.GuidedBackprop: .*; "
        r"attribution\.Mine: its maps have the shape \(1, 1, 46, 55\).*"
        r"'~attribution\.GuidedBackprop' '~attribution\.Mine'"
    )
    with pytest.raises(ConfigError, match=message):
        try_methods(read_config(cfg), cohort)
    assert torch.equal(torch.get_rng_state(), before)


def test_methods_that_can_explain_the_network_pass_and_iterate_once(cohort, monkeypatch):
    steps = []
    step, descend = torch.optim.Adam.step, MaskDescent.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: steps.append(1) or step(self))
    monkeypatch.setattr(MaskDescent, "step", lambda self, *given: steps.append(1) or descend(self, *given))
    methods = [
        "grad_cam",
        "t_map",
        "meaningful_perturbation",
        "kan2020",
        "area_constrained",
        "amortized_masker",
    ]
    cfg = compose("run", settings(f"attribution=[{','.join(methods)}]"))
    try_methods(read_config(cfg), cohort)
    assert len(steps) == 4
    assert cfg.attribution.Kan2020Perturbation.n_iter == 300


def test_infidelity_asks_before_training_whether_a_method_multiplies_by_the_input(cohort, monkeypatch):
    monkeypatch.setattr(Reshaping, "attribute", lambda self, inputs, target: inputs)
    monkeypatch.delattr(Reshaping, "multiplies_by_inputs")
    mine = "+attribution.Mine={_target_: test_method_trial.Reshaping, _partial_: true}"
    try_methods(read_config(compose("run", settings(mine, "~attribution.GuidedBackprop"))), cohort)
    cfg = compose(
        "run", settings(mine, "~attribution.GuidedBackprop", "evaluation.card.metrics=[infidelity]")
    )
    with pytest.raises(ConfigError, match=r"attribution\.Mine: Reshaping does not state"):
        try_methods(read_config(cfg), cohort)


@pytest.mark.slow
def test_the_command_works_without_the_method(tmp_path, capsys):
    given = settings(f"run_dir={tmp_path / 'run'}")
    assert cli.main(["run", *given]) == 1
    assert "'~attribution.GuidedBackprop'" in capsys.readouterr().err
    assert not list((tmp_path / "run").rglob("*.ckpt"))
    assert cli.main(["run", *given, "~attribution.GuidedBackprop"]) == 0
    maps = list((tmp_path / "run" / "attributions").rglob("*_attribution.json"))
    assert {read_json(path)["Method"] for path in maps} == {"GradCAM", "MeaningfulPerturbation"}


def test_a_method_without_maps_is_removed_from_the_settings_of_a_run(copied):
    given = [f"run_dir={copied.path}", "attribution=[saliency]"]
    assert "Saliency" in stage_settings("explain", given).attribution
    assert "Saliency" not in stage_settings("explain", [*given, "~attribution.Saliency"]).attribution
    with pytest.raises(ConfigError, match=r"contains maps of GradCAM; remove the files \*_desc-GradCAM_"):
        stage_settings("explain", [*given, "~attribution.GradCAM"])
    with pytest.raises(ConfigError, match=r"has no such method; its methods are GradCAM, "):
        stage_settings("explain", [*given, "~attribution.GradCAN"])


def test_a_method_that_is_not_there_cannot_be_removed():
    with pytest.raises(ConfigError, match=r"~attribution\.GradCAN: there is no such setting; did you mean"):
        compose("run", ["experiment=demo", "~attribution.GradCAN"])
