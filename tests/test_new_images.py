"""New images: their distance from those of training, and networks that are adapted to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import SMALL
from scipy import stats

from xai_brain import BrainClassifier, compose
from xai_brain.cli import main
from xai_brain.config.checks import read_config
from xai_brain.config.saved import stage_settings
from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import file_hash
from xai_brain.io.problems import DataError
from xai_brain.models.standardization import use_statistics, volume_statistics
from xai_brain.parallel.verbosity import LOGGER
from xai_brain.runs.directory import read_json, read_tsv, sidecar
from xai_brain.stages.explain import explain
from xai_brain.statistics.confounds.distance import distance_p, share_is_high
from xai_brain.study.participants import prepared_cohort
from xai_brain.study.predictions import new_images
from xai_brain.study.training.cross_validation import train_run
from xai_brain.study.training.networks import load_classifier
from xai_brain.study.training.predict_participants import predict_run
from xai_brain.study.training.predict_settings import predict_settings

PARTS = ("train", "held_out", "new")


def test_a_distance_is_compared_with_those_of_held_out_participants():
    rng = np.random.default_rng(0)
    train, held_out = rng.normal(size=(2000, 2)), rng.normal(size=(9, 2))
    held_out *= np.arange(1, 10)[:, None] / np.linalg.norm(held_out, axis=1, keepdims=True)  # at 1 to 9 SD
    new = np.array([[0.0, 0.1], [0.0, 4.5], [30.0, 0.0]])
    np.testing.assert_allclose(distance_p(train, held_out, new), [1.0, (1 + 5) / 10, 1 / 10])


def test_p_is_uniform_for_participants_of_the_same_population_and_low_for_others():
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(6, 6))
    train, held_out, new = (rng.normal(size=(n, 6)) @ mixing for n in (150, 400, 400))
    p = distance_p(train, held_out, new)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert not share_is_high(p)
    shifted = distance_p(train, held_out, new + 4 * mixing[0])
    assert share_is_high(shifted)
    assert (shifted < 0.05).mean() > 0.5
    axes = rng.normal(size=(3, 500))  # as many features as a layer has
    many = [rng.normal(size=(n, 3)) @ axes for n in (90, 300, 300)]
    many = [each + 0.1 * rng.normal(size=each.shape) for each in many]
    assert stats.kstest(distance_p(*many), "uniform").pvalue > 0.001
    assert (distance_p(many[0], many[1], many[2] + 0.5 * rng.normal(size=500)) < 0.05).all()
    constant = np.ones((30, 3))  # nothing varies
    assert (distance_p(constant, constant, constant) == 1).all()


def test_sharpness_noise_and_contrast_change_the_features_of_an_image():
    rng = np.random.default_rng(2)
    volume = np.zeros((12, 12, 12), np.float32)
    volume[2:10, 2:10, 2:10] = rng.normal(size=(8, 8, 8))
    found = new_images.intensity_features(volume)
    n = len(new_images.PERCENTILES)
    inside = volume[2:10, 2:10, 2:10]
    np.testing.assert_allclose(found[:n], np.percentile(inside, new_images.PERCENTILES))
    assert found[n] == pytest.approx(np.abs(np.diff(inside, axis=0)).mean())  # the border does not count
    assert found[n + 1] == pytest.approx(np.abs(np.diff(inside, 2, axis=0)).mean())


def test_statistics_of_volumes_are_those_of_numpy_where_most_have_brain():
    volumes = torch.from_numpy(np.random.default_rng(3).normal(2, 3, (7, 1, 4, 5, 6)).astype(np.float32))
    volumes[:4, :, 0] = 0  # background in most volumes
    mean, inverse_sd = volume_statistics(iter(volumes))
    torch.testing.assert_close(mean, volumes.mean(0))
    torch.testing.assert_close(inverse_sd[:, 1:], 1 / volumes.std(0, correction=0)[:, 1:])
    assert not inverse_sd[:, 0].any()


def test_an_adapted_network_does_not_see_a_gain_and_an_offset_of_the_cohort():
    network = {"_target_": "xai_brain.models.networks.shallow.ShallowNet", "channels": 2}
    made = BrainClassifier(network, ["a", "b"], [8, 12, 10], standardize="zscore").eval()
    volumes = torch.randn(25, 1, 8, 12, 10, generator=torch.Generator().manual_seed(0))
    use_statistics(made, *volume_statistics(iter(volumes)))
    before = made(volumes)
    use_statistics(made, *volume_statistics(iter(3 * volumes + 5)))
    torch.testing.assert_close(made(3 * volumes + 5), before, atol=1e-4, rtol=1e-4)
    plain = BrainClassifier(network, ["a", "b"], [8, 12, 10]).eval()
    with pytest.raises(ConfigError, match=r"adapt=standardize: the networks do not standardise.*zscore"):
        use_statistics(plain, *volume_statistics(iter(volumes)))


def new_cohort(small_run, tmp_path, *more: str) -> list[str]:
    cohort = ["data=synthetic", "data.cohort.n_subjects=8", "data.cohort.seed=77"]
    return [f"networks={small_run.path}", *cohort, f"run_dir={tmp_path / 'new'}", *more]


def test_predictions_state_how_far_the_images_are(small_run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(new_images, "FEWEST", 5)
    monkeypatch.setattr(LOGGER, "propagate", True)
    settings = new_cohort(small_run, tmp_path, "data.cohort.noise=0.2")
    table = read_tsv(predict_run(predict_settings(settings)).predictions)
    assert table[["intensity_p", "features_p"]].apply(lambda p: p.between(0, 1)).all(axis=None)
    assert (table["intensity_p"] < 0.1).all()  # 12 held-out participants: 1 / 13 at least
    assert "no comparison with the training images" not in caplog.text


def test_adaptation_needs_enough_images_and_is_for_new_participants(small_run, tmp_path, monkeypatch):
    settings = new_cohort(small_run, tmp_path, "adapt=standardize")
    with pytest.raises(DataError, match=r"adapt=standardize: 8 images; at least 20 are needed"):
        predict_run(predict_settings(settings))
    with pytest.raises(ConfigError, match="adapt=standardize: is for `xai-brain predict"):
        compose("run", [*SMALL, "adapt=standardize"])
    with pytest.raises(ConfigError, match="adapt=mean: null or standardize is needed"):
        predict_settings(new_cohort(small_run, tmp_path, "adapt=mean"))


@pytest.mark.slow
def test_adapted_networks_predict_explain_and_are_verified(tmp_path, monkeypatch):
    """Predictions and maps are those of networks that are standardised by the new images; files tell it."""
    monkeypatch.setattr(new_images, "LEAST_ADAPTED", 8)
    small = [s for s in SMALL if not s.startswith(("attribution.", "trainer.max_epochs"))]
    trained = [*small, "trainer.max_epochs=1", "trainer.standardize=zscore", "attribution=[saliency]"]
    run = train_run(read_config(compose("run", [*trained, f"run_dir={tmp_path / 'trained'}"])))
    config = predict_settings([*new_cohort(run, tmp_path, "adapt=standardize"), "attribution=[saliency]"])
    new = predict_run(config)
    volumes = [np.load(path) for path in prepared_cohort(config, new)["volume_path"]]
    inputs = torch.from_numpy(np.stack(volumes))[:, None]
    each = []
    for fold in (0, 1):
        network = load_classifier(run.checkpoint(fold, 0))
        use_statistics(network, inputs.mean(0), network.inverse_sd)
        plain = network(inputs)
        use_statistics(network, *volume_statistics(iter(inputs)))
        each.append(network(inputs).softmax(1).detach().numpy())
        assert not torch.allclose(plain, network(inputs))
    table = read_tsv(new.predictions)
    np.testing.assert_allclose(table[["prob_female", "prob_male"]], np.mean(each, 0), atol=1e-5)
    explain(stage_settings("explain", [f"run_dir={new.path}"]))
    path = new.attribution(table["participant_id"][0], table["session_id"][0], "Saliency", 0)
    assert read_json(sidecar(path))["StandardizationSHA256"] == file_hash(new.standardization)
    assert main(["verify", str(new.path)]) == 0
    np.savez(new.standardization, mean=inputs.mean(0).numpy(), inverse_sd=np.ones((1, *volumes[0].shape)))
    assert main(["verify", str(new.path)]) == 1
