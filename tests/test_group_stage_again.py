"""The evaluate stage on classes for a second time: which tests are kept, and which are done again."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from conftest import awkward_affine
from group_runs import COMMON, N, evaluated, map_of, settings, write_run

from xai_brain.io.nifti import load_img, save_img
from xai_brain.runs.directory import read_json, read_tsv, sidecar, write_json, write_tsv
from xai_brain.study.evaluation import groups as stage
from xai_brain.study.evaluation.found_maps import find_maps
from xai_brain.study.evaluation.groups import evaluate_groups, groups_are_compared


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def test_nothing_is_done_twice_and_old_results_do_not_stay(run):
    evaluated(run)
    t_path = run.group_map("GradCAM", "male-minus-female", "t")
    before = t_path.stat().st_mtime_ns
    cfg = settings()
    assert groups_are_compared(cfg, run, find_maps(cfg, run))
    assert t_path.stat().st_mtime_ns == before
    rank = settings("evaluation.group.scaling=rank")
    assert not groups_are_compared(rank, run, find_maps(rank, run))
    evaluate_groups(rank, run, find_maps(rank, run))
    assert read_json(sidecar(t_path))["SubjectScaling"] == "rank"
    off = settings("evaluation.group.n_perm=0")
    assert not groups_are_compared(off, run, find_maps(off, run))
    evaluate_groups(off, run, find_maps(off, run))
    assert not t_path.exists()
    assert not run.evaluation("group_tests").exists()
    assert not [name for name in read_json(run.metrics) if name.startswith("group/")]


@pytest.fixture
def tested(monkeypatch):
    """The number of participants in each permutation test that is computed."""
    counts, original = [], stage.voxelwise_test

    def count(maps, rows, *arguments, **settings):
        counts.append(len(rows))
        return original(maps, rows, *arguments, **settings)

    monkeypatch.setattr(stage, "voxelwise_test", count)
    return counts


def tables_of(run):
    names = ("group_tests", "group_clusters", "group_agreement")
    return {name: run.evaluation(name).read_text() for name in names if run.evaluation(name).exists()}


def test_tests_of_other_methods_are_kept_if_a_method_is_added(run, tested, capsys):
    for path in run.path.rglob("*_desc-GuidedBackprop_attribution.json"):
        write_json(COMMON, path)
    alone = "attribution=[grad_cam]"
    evaluated(run, alone)
    assert len(tested) == 1
    t_path = run.group_map("GradCAM", "male-minus-female", "t")
    before = t_path.stat().st_mtime_ns
    evaluated(run)
    assert len(tested) == 2
    assert t_path.stat().st_mtime_ns == before
    assert "existing group tests are kept: GradCAM\n" in capsys.readouterr().out
    kept, metrics = tables_of(run), read_json(run.metrics)
    shutil.rmtree(run.path / "group")
    evaluated(run)
    assert len(tested) == 4
    assert tables_of(run) == kept
    assert read_json(run.metrics) == metrics
    evaluated(run, alone)  # nothing of the other method stays
    assert len(tested) == 4
    assert not [path for path in run.path.rglob("*GuidedBackprop*") if "attributions" not in path.parts]


@pytest.mark.parametrize("change", ["nothing", "map", "result", "participants", "setting"])
def test_a_test_is_kept_unless_anything_it_depends_on_has_changed(run, tested, change):
    evaluated(run)
    more = ["evaluation.top_percents=[7]"]  # by which the stage is to be repeated
    if change == "map":
        path = map_of(run, "sub-03")
        save_img(load_img(path).get_fdata().astype(np.float32)[::-1], awkward_affine(), path)
    if change == "result":
        run.group_map("GradCAM", "male-minus-female", "t").write_bytes(b"altered")
    if change == "participants":
        write_tsv(read_tsv(run.participants).assign(age=np.arange(N)[::-1]), run.participants)
    if change == "setting":
        more.append("evaluation.group.scaling=rank")
    evaluated(run, *more)
    assert len(tested) == (1 if change == "nothing" else 2)
