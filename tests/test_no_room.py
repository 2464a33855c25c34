"""A full disk, no right to write, an input that is gone, two processes with different settings."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys

import pytest
from conftest import SMALL, in_another_process, map_of
from omegaconf import OmegaConf

from xai_brain import compose, run
from xai_brain.cli import main
from xai_brain.config.saved import stage_settings
from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import WriteError, file_hash, write_atomic
from xai_brain.stages.explain import explain
from xai_brain.study.training import cross_validation as train_stage


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("old")

    def full(temporary):
        temporary.write_text("ne")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(WriteError) as caught:
        write_atomic(path, full)
    assert str(caught.value) == (
        f"{path}: cannot be written (No space left on device); free disk space or allow writing, then "
        "start again: finished results are kept"
    )
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == ["a.tsv"]
    assert path.read_text() == "old"


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_full_disk_is_one_line_and_what_is_finished_is_kept(copied, small_run):
    cut = [map_of(copied, "GuidedBackprop", number) for number in (0, 9)]  # of two batches
    for path in cut:
        path.unlink()
    names = [path.relative_to(copied.path) for path in cut]
    message = in_another_process(
        "import resource, sys; from xai_brain.cli import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "  # what a map does not fit in
        f"sys.exit(main(['explain', 'run_dir={copied.path}']))"
    )
    assert message.returncode == 1
    (line,) = message.stderr.splitlines()
    assert "_attribution.nii.gz: cannot be written (File too large)" in line
    assert not list(copied.path.rglob(".partial-*"))
    assert not copied.locks.exists()
    explain(stage_settings("explain", [f"run_dir={copied.path}"]))
    for name in names:
        assert file_hash(copied.path / name) == file_hash(small_run.path / name)


def test_a_disk_that_is_full_while_a_network_learns_is_told_by_the_run(tmp_path, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/elsewhere/tmpl3dubhmd")  # as of a checkpoint

    monkeypatch.setattr(train_stage, "fit_fold", full)
    assert main(["train", *SMALL, f"run_dir={tmp_path / 'run'}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'run'}: cannot be written (No space left on device); free disk space" in line
    assert not list((tmp_path / "run").rglob(".partial-*"))


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="permissions of POSIX")
def test_a_folder_that_may_not_be_written(copied, capsys):
    folder = copied.path
    (folder / "report.html").unlink()
    was_root = os.geteuid() == 0
    places = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    parents = [path for path in folder.parents if path.stat().st_uid == os.geteuid() and path != path.parent]
    modes = {path: path.stat().st_mode for path in [*places, *parents]}
    try:
        for path in parents:
            path.chmod(modes[path] | 0o055)
        for path in places:
            path.chmod(0o555)
        if was_root:
            os.seteuid(65534)  # root may write everywhere
        assert main(["report", f"run_dir={folder}"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert str(folder) in line
        assert "Permission denied" in line
        assert main(["evaluate", f"run_dir={folder}"]) == 0  # nothing has to be written
    finally:
        if was_root:
            os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)


def test_an_input_that_goes_in_mid_run(bids_tree, tmp_path, capsys):
    from conftest import add_subject

    for i in range(6, 8):
        add_subject(bids_tree, i, "MF"[i % 2])
    given = ["data=bids", f"data.root={bids_tree}", "preprocessing=t1w_4mm", "folds.n_folds=2", *SMALL[3:6]]
    given += ["folds.validation_fraction=0.4", "trainer.batch_size=2", f"run_dir={tmp_path / 'run'}"]
    assert main(["train", *given]) == 0
    before = file_hash(tmp_path / "run" / "predictions.tsv")
    shutil.rmtree(bids_tree / "sub-03")
    assert main(["explain", f"run_dir={tmp_path / 'run'}", "attribution=[grad_cam]"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "sub-03: no T1w image; add it" in line
    given = [f"run_dir={tmp_path / 'run'}", "attribution=[grad_cam]", "data.on_error=skip"]
    assert main(["explain", *given]) == 1
    assert "sub-03: can no longer be used; restore it" in capsys.readouterr().err.splitlines()[-1]
    assert file_hash(tmp_path / "run" / "predictions.tsv") == before


# -- two at once --------------------------------------------------------------------------------------


def test_other_settings_are_refused_while_another_process_is_at_work(tmp_path):
    folder = tmp_path / "run"
    other = subprocess.Popen([sys.executable, "-c", OTHER, str(folder)], stdin=subprocess.PIPE, stdout=-1)
    try:
        assert other.stdout.readline() == b"ready\n"
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(compose("run", SMALL)))
        given = [*SMALL, f"run_dir={folder}", "trainer.lr=0.5"]
        with pytest.raises(ConfigError, match=r"trainer\.lr: 0\.002 before, 0\.5 now"):
            run(compose("run", given))
        with pytest.raises(ConfigError, match="another process uses this run with other settings"):
            run(compose("run", [*given, "overwrite=true"]))
    finally:
        other.communicate(b"\n")


OTHER = """
import sys
from pathlib import Path
from xai_brain.parallel.locks import lock
with lock(Path(sys.argv[1]) / ".locks", "at-work-of-another"):
    print("ready", flush=True)
    sys.stdin.readline()
"""
