"""A run of two seeds, end to end: what is known of its networks beside its maps, and what the report says."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import torch
from conftest import SMALL
from scipy import stats

from xai_brain import compose, run
from xai_brain.config.checks import read_config
from xai_brain.models.module import BrainClassifier
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv
from xai_brain.statistics.first_layer import map_entropy
from xai_brain.study.evaluation.first_layer import evaluate_first_layer
from xai_brain.study.participants import prepared_cohort

SEEDS = [0, 1]
TWO_SEEDS = [
    *(text for text in SMALL if not text.startswith("attribution")),
    f"seeds={SEEDS}",
    "attribution=[grad_cam,saliency,guided_backprop]",
    "explain.target=male",
    "explain.output=logit_difference",
    "evaluation.first_layer=true",
    "evaluation.group.n_perm=19",
    "evaluation.group.images=false",
]
METHODS = {"GradCAM", "Saliency", "GuidedBackprop"}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunDirectory:
    return run(compose("run", [*TWO_SEEDS, f"run_dir={tmp_path_factory.mktemp('seeds') / 'run'}"]))


def test_variance_clusters_and_group_agreement_are_of_all_methods(finished):
    variance = read_tsv(finished.evaluation("variance"))
    assert set(variance["method"]) == METHODS
    np.testing.assert_allclose(variance.groupby("method")["share"].sum(), 1)
    assert set(variance["n_models"]) == {4}
    assert set(variance["n_subjects"]) == {24}
    merges = read_tsv(finished.evaluation("method_clusters"))
    assert merges["n_methods"].tolist() == [2, 3]
    summary = read_tsv(finished.evaluation("summary"))
    rho = summary[(summary["table"] == "agreement") & (summary["metric"] == "spearman")]["mean"]
    assert merges["distance"][0] == pytest.approx(1 - rho.max())
    groups = read_tsv(finished.evaluation("group_agreement"))
    assert len(groups.drop_duplicates(["method_a", "method_b", "map"])) == 3 * 2


def test_every_network_is_tested_by_itself_on_the_people_it_has_not_seen(finished):
    channels, networks = (read_tsv(finished.evaluation(n)) for n in ("first_layer", "first_layer_networks"))
    assert len(networks) == 2 * 2 * 2  # seeds, folds, features
    assert len(channels) == len(networks) * 2  # channels
    row = channels[
        (channels["seed"] == 1) & (channels["fold"] == 0) & (channels["feature"] == "entropy")
    ].iloc[1]
    folds = read_tsv(finished.folds)
    test = folds.loc[folds["fold"] == 0, "participant_id"]
    cohort = (
        prepared_cohort(read_config(compose("run", TWO_SEEDS)), finished)
        .set_index("participant_id")
        .loc[test]
    )
    checkpoint = finished.checkpoint(0, 1)
    block = BrainClassifier.load_from_checkpoint(checkpoint, weights_only=True).eval().network.block1
    values = {"female": [], "male": []}
    for person in cohort.itertuples():
        with torch.no_grad():
            features = block(torch.from_numpy(np.load(person.volume_path))[None, None])[0, row["channel"]]
        values[person.label].append(map_entropy(features.numpy()))
    assert row["mean_b"] == pytest.approx(np.mean(values["male"]), rel=1e-3)
    expected = stats.ttest_ind(values["male"], values["female"], equal_var=False)
    assert row["t"] == pytest.approx(expected.statistic, rel=0.02, abs=0.02)
    assert (row["n_a"], row["n_b"]) == (len(values["female"]), len(values["male"]))
    metrics = read_json(finished.metrics)
    shares = networks.loc[networks["feature"] == "mean", "share_different"]
    assert metrics["first_layer/share_different/mean"] == pytest.approx(shares.mean())
    null = networks.loc[networks["feature"] == "entropy", "null_share"]
    assert metrics["first_layer/null_share/entropy"] == pytest.approx(null.mean())


def test_the_report_tells_it_with_its_figures(finished):
    html = finished.report.read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html.split("</style>")[1])).replace("&nbsp;", " ")
    for said in (
        "Clusters of methods",
        "Agreement of the differences between classes",
        "Networks of 2 seeds explained the same 24 participants in 2 folds (4 networks)",
        "of the variance depends on the network",
        "The mean and the histogram entropy (256 bins) of each of the 2 feature maps",
        "network.block1.relu",
    ):
        assert said in text
    assert not re.search(r"\bnan\b", text)
    for name in ("method-clusters", "variance", "variance-model", "first-layer"):
        assert (finished.path / "figures" / f"{name}.png").exists()


def test_without_the_setting_nothing_stays(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run", ignore=shutil.ignore_patterns("attributions"))
    copy = RunDirectory(tmp_path / "run")
    cfg = compose("run", [*TWO_SEEDS, "evaluation.first_layer=false", f"run_dir={copy.path}"])
    evaluate_first_layer(read_config(cfg), copy)
    assert not copy.evaluation("first_layer").exists()
    assert not copy.evaluation("first_layer_networks").exists()
    assert not [name for name in read_json(copy.metrics) if name.startswith("first_layer/")]
