"""Training that starts from weights: a new head, and layers that are not trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import SMALL

from xai_brain import BrainClassifier, Kan2020, RunDirectory, compose
from xai_brain.config.setting import ConfigError
from xai_brain.models.weights import WeightsError, load_weights
from xai_brain.runs.directory import read_tsv
from xai_brain.stages.explain import explain
from xai_brain.stages.train import train

SETTINGS = {"channels": [2, 3, 4], "input_shape": (46, 55, 46)}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """Weights of a network with another head and other running statistics."""
    torch.manual_seed(9)
    network = Kan2020(n_classes=5, **SETTINGS)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_()
    path = tmp_path_factory.mktemp("weights") / "backbone.pt"
    torch.save(network.state_dict(), path)
    return network, path


def test_a_frozen_backbone_with_a_new_head_is_trained_out_of_fold_and_explained(backbone, tmp_path):
    network, path = backbone
    cfg = compose("train", [
        *SMALL, f"model.weights={path}", "+model.new_layers=[linear]", f"run_dir={tmp_path / 'run'}",
        "trainer.freeze=[block1,block2,block3]",
    ])  # fmt: skip
    run = train(cfg)
    assert len(read_tsv(run.predictions)) == 24
    heads = []
    for fold in (0, 1):
        trained = BrainClassifier.load_from_checkpoint(run.checkpoint(fold, 0), weights_only=True)
        for name, value in network.state_dict().items():
            if not name.startswith("linear."):
                found = trained.network.state_dict()[name]
                assert torch.equal(found, value), name
        assert trained.network.linear.weight.shape[0] == 2
        heads.append(trained.network.linear.weight.detach())
    assert not torch.equal(*heads)  # each fold has a head of its own
    explain(cfg)
    assert len(list((run.path / "attributions").rglob("*_desc-GradCAM_attribution.nii.gz"))) == 24


def test_without_freezing_all_layers_are_trained(backbone, tmp_path):
    network, path = backbone
    run = train(compose("train", [
        *SMALL, f"model.weights={path}", "+model.new_layers=[linear]", f"run_dir={tmp_path / 'run'}",
        "trainer.max_epochs=1",
    ]))  # fmt: skip
    trained = BrainClassifier.load_from_checkpoint(run.checkpoint(0, 0), weights_only=True)
    start = network.block1.conv.weight
    change = (trained.network.block1.conv.weight - start).abs().max()
    assert 0 < change < 0.1 * start.abs().max()  # it started from the weights of the file


def test_layers_that_do_not_exist_are_refused(backbone, tmp_path):
    _, path = backbone
    with pytest.raises(WeightsError, match=r"no layer 'head'; it has block1, block2, block3, linear"):
        load_weights(Kan2020(**SETTINGS), path, new_layers=["head"])
    with pytest.raises(WeightsError, match=r"linear.weight has shape"):
        load_weights(Kan2020(**SETTINGS), path)
    for freeze, message in (
        ("[head]", r"trainer.freeze: the network has no module 'head'; it has block1, block2"),
        ("[block1,block2,block3,linear]", "freezes the whole network; nothing is trained"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(compose("train", [*SMALL, f"trainer.freeze={freeze}", f"run_dir={tmp_path / 'no'}"]))
    assert not RunDirectory(tmp_path / "no").predictions.exists()


def test_predictions_do_not_depend_on_the_mode_of_frozen_layers(backbone):
    """Frozen layers use their running statistics in training, too."""
    _, path = backbone
    settings = {
        "_target_": "xai_brain.models.networks.kan2020.Kan2020",
        "channels": [2, 3, 4],
        "dropout": 0.0,
    }
    model = BrainClassifier(
        {**settings, "weights": str(path), "new_layers": ["linear"]}, ["a", "b"], [46, 55, 46],
        freeze=["block1", "block2", "block3"],
    )  # fmt: skip
    volumes = torch.randn(3, 1, 46, 55, 46)
    with torch.no_grad():
        in_training, in_evaluation = model.train()(volumes), model.eval()(volumes)
    assert np.allclose(in_training, in_evaluation, atol=1e-6)
