"""Corrected thresholds of a run: networks of permuted labels, tables, and thresholded maps."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import xai_brain as xb
from xai_brain.cli import main
from xai_brain.config.setting import ConfigError
from xai_brain.runs.directory import RunDirectory, read_tsv
from xai_brain.runs.threshold_statement import CLAIM
from xai_brain.study.thresholds.statistic import corrected_threshold, normalised
from xai_brain.study.training import permuted

FEW = {"alpha": 0.25, "n_perm": 3, "n_participants": 8}  # 3 permutations suffice for this alpha


@pytest.fixture(scope="module")
def run(small_run, tmp_path_factory):
    """A run with thresholds; do not change it."""
    path = tmp_path_factory.mktemp("thresholds") / "run"
    shutil.copytree(small_run.path, path)
    xb.open_maps(path).threshold(**FEW)
    return RunDirectory(path)


def null_of(run, method):
    paths = sorted(run.path.glob(f"permuted/all/*/statistics/desc-{method}.tsv"))
    return [read_tsv(path) for path in paths]


def test_thresholds_follow_from_the_statistics_of_each_permutation(run):
    table = read_tsv(run.evaluation("thresholds"))
    assert set(table["statistic"]) == {"max", "extent", "mass"}
    for row in table.itertuples():
        null = null_of(run, row.method)
        assert [len(each) for each in null] == [8, 8, 8]
        expected = corrected_threshold([each[row.statistic].to_numpy() for each in null], 0.25)
        assert row.threshold == pytest.approx(expected)
    for each in null_of(run, "GradCAM"):  # explained by the network that was not trained on them
        folds = read_tsv(run.folds).set_index("participant_id")["fold"]
        assert (folds[each["participant_id"]].to_numpy() == each["fold"].to_numpy()).all()
    drawn = [tuple(each["participant_id"]) for each in null_of(run, "GradCAM")]
    assert len(set(drawn)) == 3  # other participants in each permutation


def test_networks_of_a_permutation_saw_permuted_labels_on_the_folds_of_the_run(run):
    folds, own = read_tsv(run.folds), read_tsv(run.participants).set_index("participant_id")["target"]
    differing = 0
    for number in (1, 2, 3):
        tables = sorted(run.path.glob(f"permuted/all/permutation-{number:03d}/checkpoints/*_predictions.tsv"))
        assert len(tables) == 2
        for fold, path in enumerate(tables):
            tested = read_tsv(path).set_index("participant_id")
            assert set(tested.index) == set(folds.loc[folds["fold"] == fold, "participant_id"])
            differing += int((tested["target"] != own[tested.index]).sum())
    assert 18 < differing < 54  # of 72; half of them are expected to change


def test_tables_agree_with_the_thresholded_maps(run):
    thresholded = xb.open_maps(run.path).threshold(**FEW)
    thresholds = thresholded.thresholds.set_index("method")["threshold"]
    n_above, some = 0, thresholded.table.sort_values("n_voxels", ascending=False)
    for row in some.groupby("method").head(2).itertuples():
        img = thresholded.img(row.participant_id, row.method)
        raw = xb.open_maps(run.path).img(row.participant_id, row.method).get_fdata()
        above = img.get_fdata() != 0
        assert above.sum() <= row.n_voxels  # a voxel above the threshold is not 0
        assert (img.get_fdata()[above] == raw[above]).all()
        brain = xb.open_maps(run.path).t1w_img(row.participant_id).get_fdata() > 0
        assert above.sum() == (normalised(raw, brain) > thresholds[row.method]).sum()
        assert (row.p <= 0.25) == (row.n_voxels > 0)
        n_above += int(above.sum())
    assert n_above > 0
    for method, rows in thresholded.table.groupby("method"):
        share = (rows["n_voxels"] > 0).mean()
        assert thresholded.thresholds.set_index("method").loc[method, "share"] == pytest.approx(share)
        assert thresholded.empty[method] == (rows["n_voxels"] == 0).sum()
    assert CLAIM in thresholded._repr_html_()


def test_a_second_call_does_nothing_and_another_statistic_trains_nothing(run, monkeypatch, capsys, tmp_path):
    copy = shutil.copytree(run.path, tmp_path / "run")
    monkeypatch.setattr(permuted, "train_fold", lambda *args: pytest.fail("trained again"))
    given = [f"evaluation.threshold.{name}={value}" for name, value in FEW.items()]
    assert main(["threshold", str(copy), *given]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["threshold", str(copy), *given, "evaluation.threshold.statistic=extent"]) == 0
    table = read_tsv(RunDirectory(copy).evaluation("thresholds"))
    assert set(table.dropna(subset="share")["statistic"]) == {"extent"}
    assert main(["verify", str(copy)]) == 0


def test_an_interrupted_permutation_is_computed_again(run, tmp_path):
    copy = RunDirectory(shutil.copytree(run.path, tmp_path / "run"))
    before = read_tsv(copy.evaluation("thresholds"))
    second = copy.path / "permuted" / "all" / "permutation-002"
    (second / "checkpoints" / "fold-1_predictions.tsv").unlink()
    (second / "statistics" / "desc-GradCAM.tsv").unlink()
    xb.open_maps(copy.path).threshold(**FEW)
    assert read_tsv(copy.evaluation("thresholds")).equals(before)


def test_a_result_that_is_altered_is_named_by_verify(run, tmp_path, capsys):
    copy = RunDirectory(shutil.copytree(run.path, tmp_path / "run"))
    path = copy.evaluation("threshold_maps")
    path.write_text(path.read_text().replace("female", "male"))
    assert main(["verify", str(copy.path)]) == 1
    assert f"{path}: is altered" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"n_perm": 2}, "fewer than 3 permutations cannot control"),
        ({"blocks": ["nothing"]}, r"evaluation.threshold.blocks=nothing: not in participants.tsv"),
        ({"blocks": ["sex"]}, "the labels of 24 of 24 participants cannot be permuted within sex"),
    ],
)
def test_what_cannot_be_permuted_is_refused_in_one_line(run, tmp_path, given, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        xb.open_maps(shutil.copytree(run.path, tmp_path / "run")).threshold(**FEW | given)
    assert len(str(error.value).splitlines()) == 1


def test_the_viewer_offers_the_threshold_and_says_what_it_means(run, small_run, tmp_path):
    viewer = xb.open_maps(run.path).view("sub-0002")
    assert viewer.controls["threshold_kind"].options[-1] == "corrected"
    thresholds = read_tsv(run.evaluation("thresholds")).query("statistic == 'max'").set_index("method")
    for name, layer in viewer._scene.layers.items():
        values = layer.img.get_fdata()[viewer._scene.brain]
        expected = thresholds.loc[name, "threshold"] * np.sqrt((values**2).mean())
        assert layer.threshold({"threshold_kind": 4, "threshold": 5}, layer.limit) == pytest.approx(expected)
    viewer.controls["threshold_kind"].index = 4
    page = viewer.save_html(tmp_path / "page.html").read_text()
    assert '"corrected"], "Threshold by"' in page
    assert CLAIM in page
    other = xb.open_maps(small_run.path).view()
    assert "corrected" not in other.controls["threshold_kind"].options
    assert '"corrected"], "Threshold by"' not in other.save_html(tmp_path / "other.html").read_text()


def test_a_call_without_arguments_reads_the_result_of_the_run(run, tmp_path, capsys):
    path = shutil.copytree(run.path, tmp_path / "run")
    thresholded = xb.open_maps(path).threshold()
    assert set(thresholded.thresholds["alpha"]) == {0.25}
    assert "nothing to do" in capsys.readouterr().out
    for file in path.glob("permuted/all/*/statistics/desc-GradCAM.*"):
        file.unlink()  # as if the method had been added
    xb.open_maps(path).threshold(alpha=0.5)
    lines = capsys.readouterr().out.splitlines()
    assert any(
        "3 permutations: no training, and the maps of 8 participants in each" in line for line in lines
    )
    assert any("is replaced: alpha was 0.25 and is 0.5" in line for line in lines)
