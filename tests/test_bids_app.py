"""The BIDS App: arguments as of other BIDS Apps, results of both levels, a dataset that is only read."""

from __future__ import annotations

import re
import shlex
import shutil
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
from conftest import hashes

from xai_brain import RunDirectory, load_participants
from xai_brain.cli import main_bids
from xai_brain.data.layouts.synthetic import make_synthetic_cohort
from xai_brain.data.planted.synthetic_subject import SyntheticSettings
from xai_brain.io.problems import DataError, Problems
from xai_brain.runs.directory import read_tsv
from xai_brain.tools.bids_app import commands_of, parser

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    """A BIDS derivative of twelve participants; no test changes it."""
    folder = make_synthetic_cohort(tmp_path_factory.mktemp("data") / "bids", SyntheticSettings(12, seed=3))
    before = hashes(folder)
    yield folder
    assert hashes(folder) == before


def test_participants_are_explained_by_given_networks(bids, small_run, tmp_path, capsys):
    labels = ["--participant-label", "0002"]
    few = ["--settings", "attribution=[saliency]"]
    arguments = [str(bids), str(tmp_path), "participant", "--networks", str(small_run.path), *labels, *few]
    assert main_bids(arguments) == 0, capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["sub-0002"]
    run = RunDirectory(tmp_path / "sub-0002")
    assert list(read_tsv(run.predictions)["participant_id"]) == ["sub-0002"]
    assert run.attribution("sub-0002", "", "Saliency", 0).exists()
    before = hashes(tmp_path)
    assert main_bids(arguments) == 0  # nothing is missing
    assert hashes(tmp_path) == before


@pytest.mark.slow
def test_a_group_is_trained_explained_and_reported(bids, tmp_path, capsys):
    few = ["model.channels=[2,3,4]", "folds.n_folds=2", "trainer.max_epochs=1", "preprocessing=t1w_4mm"]
    few += ["attribution=[saliency]", "evaluation.n_bootstrap=20", "evaluation.group.n_perm=20"]
    assert main_bids([str(bids), str(tmp_path), "group", "-q", "--settings", *few]) == 0, capsys.readouterr()
    run = RunDirectory(tmp_path / "group")
    assert len(read_tsv(run.predictions)) == 12
    assert run.report.exists()


def test_one_participant_that_fails_does_not_stop_the_others(bids, small_run, tmp_path, capsys):
    root = tmp_path / "bids"
    shutil.copytree(bids, root)
    next((root / "sub-0001" / "anat").glob("*T1w.nii.gz")).write_bytes(b"no image")
    for name in ("sub-0003", "sub-0004"):
        shutil.rmtree(root / name)  # has a line in participants.tsv, but is not asked for
    arguments = [str(root), str(tmp_path / "out"), "participant", "--networks", str(small_run.path)]
    arguments += ["--participant-label", "0001", "sub-0002", "--settings", "attribution=[saliency]"]
    assert main_bids(arguments) == 1
    message = capsys.readouterr().err
    assert "sub-0001" in message
    assert "1 of 2 participants failed" in message
    assert RunDirectory(tmp_path / "out" / "sub-0002").predictions.exists()


def test_arguments_become_commands(bids, tmp_path):
    data = ["data=bids", f"data.root={bids}"]
    chosen = ["--label", "diagnosis", "--participant-label", "0001"]
    group = commands_of([str(bids), str(tmp_path), "group", *chosen])
    run_dir = f"run_dir={tmp_path / 'group'}"
    assert group == [[["run", *data, "data.label=diagnosis", "data.participants=[sub-0001]", run_dir]]]
    file = tmp_path / "weights.pt"
    (first, *others) = commands_of([str(bids), str(tmp_path), "participant", "--networks", str(file), "-v"])
    assert len(others) == 11
    run_dir = f"run_dir={tmp_path / 'sub-0001'}"
    one = ["data.label=null", "data.participants=[sub-0001]", run_dir, "--verbose"]
    assert first == [["predict", f"model.weights={file}", *data, *one], ["explain", run_dir, "--verbose"]]
    own = ["--settings", "network._target_=mine.Net", "network.weights=a.pt", "data.label=sex"]
    (first, *_) = commands_of([str(bids), str(tmp_path), "participant", "--participant-label", "0001", *own])
    assert first == [["explain-network", *data, *own[1:], "data.participants=[sub-0001]", run_dir]]


@pytest.mark.parametrize(
    ("level", "more", "message"),
    [
        ("participant", [], "give --networks"),
        ("group", ["--networks", "outputs/demo"], "is for the analysis level participant"),
        ("group", ["--participant-label", "99"], "has no sub-99"),
        ("group", ["--settings", "seeds"], "settings are written key=value"),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(level, more, message, bids, tmp_path, capsys):
    assert main_bids([str(bids), str(tmp_path), level, *more]) == 1
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1


def test_results_are_not_written_into_the_dataset(bids, tmp_path, capsys):
    for folder in (bids, bids / "sub-0001", bids / "out"):
        assert main_bids([str(bids), str(folder), "group"]) == 1
        assert "which is only read" in capsys.readouterr().err
    assert commands_of([str(bids), str(bids / "derivatives" / "xai_brain"), "group"])
    assert main_bids([str(tmp_path / "nothing"), str(tmp_path), "group"]) == 1
    assert "there is no such folder" in capsys.readouterr().err


def test_version_and_help(capsys):
    for argument, text in (("--version", metadata.version("xai-brain")), ("--help", "bids_dir")):
        with pytest.raises(SystemExit) as stopped:
            main_bids([argument])
        assert stopped.value.code == 0
        assert text in capsys.readouterr().out


def printed_commands():
    """Commands ``xai-brain-bids`` of the documentation, the containers and the help."""
    texts = [parser().epilog, *(path.read_text() for path in (ROOT / "containers").iterdir())]
    texts += [path.read_text() for path in (ROOT / "docs").rglob("*.md")]
    found = re.findall(
        r"^(?:# )?\s*(?:xai-brain-bids|.*xai_brain\.sif|.* xai_brain) (/.+ (?:participant|group) .+)$",
        "\n".join(texts),
        re.M,
    )
    assert len(found) >= 8
    return found


@pytest.mark.parametrize("command", printed_commands())
def test_a_printed_command_is_accepted(command, tmp_path):
    words = [
        re.sub(r"^/(path/to|data)?/?(bids|new)$", str(tmp_path / "bids"), word)
        for word in shlex.split(command)
    ]
    for label in ("01", "02"):
        (tmp_path / "bids" / f"sub-{label}").mkdir(parents=True)
    assert commands_of(words)


def test_participants_are_selected(bids):
    table = load_participants("bids", bids, label=None, participants=["sub-0004", "sub-0001"])
    assert list(table["participant_id"]) == ["sub-0001", "sub-0004"]
    problems = Problems("skip")
    with pytest.raises(DataError, match="has no participant sub-77"):
        load_participants("bids", bids, participants=["sub-0001", "sub-77"], problems=problems)
    everyone = pd.read_csv(bids / "participants.tsv", sep="\t")
    assert len(load_participants("bids", bids)) == len(everyone)
