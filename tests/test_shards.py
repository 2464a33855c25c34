"""A part of the units of work: the parts together are what one process makes, to the byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from killed_runs import SETTINGS, compare

from xai_brain import compose, run
from xai_brain.config.saved import stage_settings
from xai_brain.config.setting import ConfigError
from xai_brain.parallel.locks import run_exclusive, run_shared
from xai_brain.parallel.shards import read_shard, select_shard
from xai_brain.runs.directory import read_tsv
from xai_brain.stages.evaluate import evaluate
from xai_brain.stages.explain import explain
from xai_brain.stages.validate import validate
from xai_brain.tools.sweep import plan_sweep


def test_shards_part_all_units_evenly_whatever_their_order():
    units = [f"unit-{i:02d}" for i in range(11)]
    shards = [select_shard(reversed(units), f"{k}/4") for k in (1, 2, 3, 4)]
    assert shards[0] == {"unit-00", "unit-04", "unit-08"}
    assert shards[3] == {"unit-03", "unit-07"}
    assert sorted(name for shard in shards for name in shard) == units
    assert select_shard(units, "12/12") == set()
    assert select_shard(units, None) == set(units)


@pytest.mark.parametrize("shard", ["0/8", "9/8", "a/b", "3", "1/0", "-1/8", "1/2/3", "1.5/2", ""])
def test_what_is_no_shard_is_refused_in_one_line(shard):
    with pytest.raises(ConfigError) as caught:
        compose("run", ["experiment=demo", f"shard='{shard}'"])
    assert str(caught.value).startswith(f"shard={shard}: ")
    assert "such as 3/8" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_shard_is_of_stages_that_have_units_and_of_one_run():
    assert compose("run", ["experiment=demo", "shard=3/8"]).shard == "3/8"
    assert read_shard("3/8") == (3, 8)
    with pytest.raises(ConfigError, match=r"^shard=1/2: `xai-brain train` has none"):
        compose("train", ["experiment=demo", "shard=1/2"])
    with pytest.raises(ConfigError, match=r"^shard=1/2,2/2: the jobs of `xai-brain run -m` are"):
        plan_sweep("run", ["experiment=demo", "shard=1/2,2/2"])


def test_what_others_do_is_not_waited_for_by_a_shard(tmp_path):
    from xai_brain.parallel.locks import _held

    before = set(_held)
    (tmp_path / "b.0").write_text("00000000-1-1")  # a process of another machine
    did = []
    run_shared(tmp_path, {"a": "a", "b": "b", "c": "c"}, done=did.__contains__, do=did.append, stay=False)
    run_exclusive(tmp_path, "b", lambda: did.append("b"), stay=False)
    assert did == ["a", "c"]
    assert _held == before


# -- whole runs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of one process."""
    folder = tmp_path_factory.mktemp("shards") / "whole"
    run(compose("run", [*SETTINGS, f"run_dir={folder / 'run'}", f"data.cache_dir={folder / 'cache'}"]))
    return folder


def trained_only(whole: Path, folder: Path) -> Path:
    """A copy of the run as it was before its maps."""
    shutil.copytree(whole / "run", folder / "run")
    (folder / "cache").symlink_to(whole / "cache")
    for name in ("attributions", "images", "evaluation", "group", "figures"):
        shutil.rmtree(folder / "run" / name)
    (folder / "run" / "report.html").unlink()
    return folder / "run"


def output_of(stage, command, run_dir, capsys, *more):
    stage(stage_settings(command, [f"run_dir={run_dir}", *more]))
    return capsys.readouterr().out


@pytest.mark.slow
def test_shards_make_together_what_one_process_makes(whole, tmp_path, capsys):
    run_dir = trained_only(whole, tmp_path)
    before = (run_dir / "config.yaml").read_text()
    counts = []
    for shard in ("2/3", "3/3"):  # in any order
        out = output_of(explain, "explain", run_dir, capsys, f"shard={shard}")
        counts.append(len(list(run_dir.rglob("sub-*_attribution.nii.gz"))))
        assert f"explain shard {shard}: done; {24 - counts[-1]} maps are left to other shards" in out
    assert counts == [8, 16]  # 2 methods, 6 batches of 2 subjects
    with pytest.raises(ConfigError, match=r"^shard=1/3: 8 maps are missing"):
        evaluate(stage_settings("evaluate", [f"run_dir={run_dir}", "shard=1/3"]))
    assert "explain shard 3/3: nothing to do" in output_of(explain, "explain", run_dir, capsys, "shard=3/3")
    assert "left to" not in output_of(explain, "explain", run_dir, capsys, "shard=1/3")

    out = output_of(evaluate, "evaluate", run_dir, capsys, "shard=1/3")
    computed = list((run_dir / "evaluation" / "metrics").glob("*.tsv"))
    assert len(computed) == 2  # of 2 methods and 2 networks: the first and the fourth
    assert "evaluate shard 1/3: done; 2 files of metrics and the tables are left" in out
    assert not (run_dir / "evaluation" / "summary.tsv").exists()
    output_of(evaluate, "evaluate", run_dir, capsys, "shard=2/3")
    out = output_of(evaluate, "evaluate", run_dir, capsys, "shard=3/3")  # the last: the tables too
    assert "left to" not in out
    assert (run_dir / "config.yaml").read_text() == before
    run(compose("run", [*SETTINGS, f"run_dir={run_dir}", f"data.cache_dir={tmp_path / 'cache'}"]))
    compare(tmp_path, whole)


@pytest.mark.slow
def test_a_start_without_a_shard_does_what_shards_left(whole, tmp_path, capsys):
    run_dir = trained_only(whole, tmp_path)
    settings = [*SETTINGS, f"run_dir={run_dir}", f"data.cache_dir={tmp_path / 'cache'}"]
    run(compose("run", [*settings, "shard=1/2"]))
    out = capsys.readouterr().out
    assert "run shard 1/2: done; evaluate and report need the maps of all shards" in out
    for path in (run_dir / "images").glob("sub-*"):  # as if the process that writes them had been killed
        path.unlink()
        break
    run(compose("run", settings))
    compare(tmp_path, whole)


@pytest.mark.slow
def test_masks_are_validated_in_shards(whole, tmp_path, capsys):
    shutil.copytree(whole / "run", tmp_path / "run")
    masks = ["evaluation.masks.n_subjects=2", "evaluation.masks.n_random=1", "evaluation.masks.areas=[10]"]
    out = output_of(validate, "validate", tmp_path / "run", capsys, *masks, "shard=1/2")
    assert "validate shard 1/2: done; 2 units and the tables are left to other processes" in out
    assert not (tmp_path / "run" / "evaluation" / "mask_validation.tsv").exists()
    output_of(validate, "validate", tmp_path / "run", capsys, *masks, "shard=2/2")
    table = read_tsv(tmp_path / "run" / "evaluation" / "mask_validation.tsv")
    assert {"GradCAM", "GuidedBackprop"} <= set(table["method"])
