"""The cache: nothing twice, nothing lost, nothing damaged, whoever is killed and however many fill it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import COARSE, COARSE_SHAPE

from xai_brain.cli import main
from xai_brain.config.data import PreprocessingConfig
from xai_brain.data import cache, cohort, image_records
from xai_brain.data.cohort import prepare_cohort
from xai_brain.data.datamodule import VolumeDataset
from xai_brain.data.participants import load_participants
from xai_brain.io.nifti import GRIDS, ImageError
from xai_brain.io.problems import DataError, Problems

SETTINGS = PreprocessingConfig("t1w_4mm")


@pytest.fixture
def participants(bids_tree):
    """Six images that were written long ago."""
    table = load_participants("bids", bids_tree)
    for path in table["t1w_path"]:
        os.utime(path, (1e9, 1e9))
    return table


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def prepared(participants, folder, **kwargs):
    return prepare_cohort(participants, SETTINGS, cache_dir=folder, **kwargs)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "volumes").glob("[!.]*.npy"))}


def forbid(monkeypatch, *names):
    for name in names:
        modules = [module for module in (cache, image_records) if hasattr(module, name)]
        assert modules
        for module in modules:
            monkeypatch.setattr(module, name, lambda *a, _name=name, **k: pytest.fail(f"{_name} was called"))


def test_an_unchanged_cohort_is_neither_hashed_nor_read(participants, folder, monkeypatch):
    first = prepared(participants, folder)
    forbid(monkeypatch, "file_hash", "load_img", "preprocess_t1w", "_checksum")
    asked = []
    again = prepared(participants, folder, progress=lambda rows: asked.append(rows) or rows)
    pd.testing.assert_frame_equal(first, again)
    assert asked == []  # no progress is shown of nothing


def test_a_changed_image_of_the_same_size_is_noticed_by_its_time(participants, folder):
    first = prepared(participants, folder)
    path = participants["t1w_path"][2]
    content = Path(participants["t1w_path"][3]).read_bytes()
    stat = os.stat(path)
    padded = content[: stat.st_size].ljust(stat.st_size, b"\0")  # zeros after a gzip file are nothing
    Path(path).write_bytes(padded if len(content) <= stat.st_size else content)
    os.utime(path, (1e9, 1e9 + 1))
    again = prepared(participants, folder)
    assert (again["sha256"] != first["sha256"]).tolist() == [False, False, True, False, False, False]


def test_an_image_that_changes_just_now_is_not_trusted_by_its_time(participants, folder):
    path = Path(participants["t1w_path"][0])
    now = time.time_ns()
    os.utime(path, ns=(now, now))
    before = prepared(participants, folder)["sha256"][0]
    content = bytearray(path.read_bytes())
    content[4] ^= 1  # the time in the gzip header: other bytes, the same size
    path.write_bytes(content)
    os.utime(path, ns=(now, now))
    assert prepared(participants, folder)["sha256"][0] != before


def test_a_file_that_is_not_what_its_name_says_is_refused_although_its_content_is_known(participants, folder):
    path = Path(participants["t1w_path"][0])
    uncompressed = path.with_suffix("")
    uncompressed.write_bytes(gzip.decompress(path.read_bytes()))
    first = participants.copy()
    first.loc[0, "t1w_path"] = str(uncompressed)
    prepared(first, folder)
    shutil.copy(uncompressed, path)
    with pytest.raises((DataError, ImageError), match=r"rename it to \.nii"):
        prepared(participants, folder)


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "record cut", "record of other things"])
@pytest.mark.parametrize("which", ["volume", "mask"])
def test_a_damaged_entry_is_made_anew(participants, folder, damage, which):
    table = prepared(participants, folder)
    whole = contents(folder)
    path = Path(table["volume_path" if which == "volume" else "volume_mask_path"][1])
    record = Path(str(table["volume_path"][1]).replace("_volume.npy", "_record.json"))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    if damage == "flipped":
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-100])
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content)
        record.write_text('{"files": ' if damage == "record cut" else "[1, 2]")
    pd.testing.assert_frame_equal(prepared(participants, folder), table)
    assert contents(folder) == whole


def test_a_copied_cache_is_checked_once_and_used(participants, folder, monkeypatch):
    prepared(participants, folder)
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)  # other times
    monkeypatch.setattr(cache, "preprocess_t1w", lambda *a, **k: pytest.fail("prepared again"))
    prepared(participants, copy)
    forbid(monkeypatch, "_checksum")
    prepared(participants, copy)


def test_workers_give_the_same_bytes_as_one_process(participants, folder, monkeypatch):
    monkeypatch.setattr(cohort, "WORKERS_AFTER_SECONDS", 0)
    alone = prepared(participants, folder, num_workers=1)
    monkeypatch.setattr(cache, "preprocess_t1w", lambda *a, **k: pytest.fail("prepared in this process"))
    other = folder.with_name("parallel")
    together = prepared(participants, other, num_workers=2)
    assert contents(folder) == contents(other)
    assert [Path(p).name for p in alone["volume_path"]] == [Path(p).name for p in together["volume_path"]]
    assert together["participant_id"].tolist() == participants["participant_id"].tolist()


def test_workers_set_unusable_images_aside(participants, folder, monkeypatch):
    monkeypatch.setattr(cohort, "WORKERS_AFTER_SECONDS", 0)
    path = participants["t1w_path"][4]
    nib.save(nib.Nifti1Image(np.full(COARSE_SHAPE, 7, np.float32), COARSE), path)
    problems = Problems("skip")
    table = prepared(participants, folder, num_workers=2, problems=problems)
    assert len(table) == 5
    assert problems.table().to_dict("records") == [
        {"participant_id": "sub-04", "path": str(path), "reason": "is constant (7 everywhere)"}
    ]
    with pytest.raises(DataError, match="sub-04: is constant"):
        prepared(participants, folder, num_workers=2)


KILLED = """
import os, signal, sys
from pathlib import Path
from xai_brain.data.cohort import prepare_cohort
from xai_brain.data.participants import load_participants
from xai_brain.data.preprocessing import PreprocessingConfig

root, folder = Path(sys.argv[1]), Path(sys.argv[2])
participants = load_participants("bids", root)
replace = os.replace

def killed_at(step, before):
    left = [step]
    def counted(source, target):
        left[0] -= 1
        if left[0] == 0 and before:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return counted

def prepare():
    return prepare_cohort(participants, PreprocessingConfig("t1w_4mm"), cache_dir=folder, num_workers=1)

finished = {}
for step in range(1, 6):  # each run comes some files further, the last one to the end
    for before in (True, False):
        pid = os.fork()
        if pid == 0:
            os.replace = killed_at(step, before)
            prepare()
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        for path, time in finished.items():  # what was finished is as it was
            assert path.stat().st_mtime_ns == time, path
        for record in (folder / "volumes").glob("[!.]*_record.json"):
            key = record.name.split("_")[0]
            for path in (record, *(record.with_name(f"{key}_{what}.npy") for what in ("volume", "mask"))):
                finished[path] = path.stat().st_mtime_ns
assert 0 < len(finished) < 18, len(finished)  # the kills came in the middle
prepare()
"""


def run_script(text, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_at_any_write_it_goes_on(participants, bids_tree, folder):
    reference = folder.with_name("reference")
    prepared(participants, reference)
    process = run_script(KILLED, bids_tree, folder)
    _, message = process.communicate(timeout=120)
    assert process.returncode == 0, message
    assert contents(folder) == contents(reference)


TOGETHER = """
import sys, time
from pathlib import Path
from xai_brain.data.cohort import prepare_cohort
from xai_brain.data.participants import load_participants
from xai_brain.data.preprocessing import PreprocessingConfig

participants = load_participants("bids", sys.argv[1])
Path(sys.argv[3]).touch()
while not Path(sys.argv[4]).exists():
    time.sleep(0.001)
table = prepare_cohort(participants, PreprocessingConfig("t1w_4mm"), cache_dir=sys.argv[2], num_workers=1)
assert len(table) == 6
"""


def test_two_processes_fill_it_at_once(participants, bids_tree, folder, tmp_path, monkeypatch):
    reference = folder.with_name("reference")
    expected = prepared(participants, reference)
    flags = tmp_path / "a", tmp_path / "b"
    processes = [
        run_script(TOGETHER, bids_tree, folder, mine, other)
        for mine, other in (flags, flags[::-1])  # each waits for the other
    ]
    for process in processes:
        _, message = process.communicate(timeout=120)
        assert process.returncode == 0, message
    assert contents(folder) == contents(reference)
    assert cache.partial_files(folder) == []
    monkeypatch.setattr(cache, "preprocess_t1w", lambda *a, **k: pytest.fail("prepared again"))
    assert prepared(participants, folder)["sha256"].tolist() == expected["sha256"].tolist()


def in_cache(folder, *arguments):
    return main(["cache", *arguments, f"data.cache_dir={folder}"])


def test_verify_finds_what_size_and_time_hide(participants, folder, capsys):
    table = prepared(participants, folder)
    assert in_cache(folder, "verify") == 0
    assert "6 volumes are intact; removed 0 damaged" in capsys.readouterr().out
    for path in (Path(table["volume_path"][1]), Path(participants["t1w_path"][3])):
        stat = path.stat()
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert in_cache(folder, "verify") == 1
    message = capsys.readouterr().out
    assert f"{table['volume_path'][1]}: damaged, removed" in message
    assert "removed 1 damaged, 0 unfinished, 1 records of changed or missing images" in message
    with pytest.raises(DataError, match="sub-03"):  # the changed image is looked at again
        prepared(participants, folder)
    assert in_cache(folder, "verify") == 0


def test_verify_leaves_what_another_process_is_writing(participants, folder):
    prepared(participants, folder)
    volumes = folder / "volumes"
    young, old = volumes / ".partial-young.npy", volumes / ".partial-old.npy"
    young.touch()
    old.touch()
    os.utime(old, (1e9, 1e9))
    assert in_cache(folder, "verify") == 0
    assert young.exists()
    assert not old.exists()


def test_info_and_clear_tell_what_there_is_and_what_was_removed(participants, folder, capsys):
    assert in_cache(folder, "info") == 0
    assert "nothing is cached yet" in capsys.readouterr().out
    prepared(participants, folder)
    prepare_cohort(participants, PreprocessingConfig("t1w_58x70x58", scaling="none"), cache_dir=folder)
    (folder / "volumes" / "notes.txt").write_text("mine")
    (folder / "other").mkdir()
    assert in_cache(folder, "info") == 0
    message = capsys.readouterr().out
    assert "6 images (t1w_4mm, scaling zscore)" in message
    assert "6 images (t1w_58x70x58, scaling none)" in message
    assert "6 images known" in message
    assert in_cache(folder, "clear", "sources") == 0
    assert f"removed {folder / 'sources'}: 6 files" in capsys.readouterr().out
    assert len(contents(folder)) == 24
    assert in_cache(folder, "clear") == 0
    assert f"removed {folder / 'volumes'}: 36 files" in capsys.readouterr().out
    left = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    assert left == [Path("other"), Path("volumes"), Path("volumes/notes.txt")]


@pytest.mark.parametrize("arguments", [[], ["wipe"], ["clear", "everything"], ["info", "volumes"]])
def test_wrong_arguments_are_told_in_one_line(arguments, folder, capsys):
    folder.mkdir()
    assert in_cache(folder, *arguments) == 1
    assert "xai-brain cache info|verify|clear [volumes|sources|synthetic|planted]" in capsys.readouterr().err
    assert main(["cache", "info", "trainer.lr=1"]) == 1


def test_an_image_error_survives_the_way_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(ImageError("a.nii.gz", "is constant")))
    assert (error.path, error.reason, str(error)) == ("a.nii.gz", "is constant", "a.nii.gz: is constant")


def test_an_entry_tells_its_settings(participants, folder):
    table = prepared(participants, folder)
    record = json.loads(Path(table["volume_path"][0].replace("_volume.npy", "_record.json")).read_text())
    assert record["settings"] == asdict(SETTINGS)
    assert record["source"] == str(participants["t1w_path"][0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_the_cohort(tmp_path):
    def private_mb():
        return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024

    shape = GRIDS["t1w_58x70x58"].shape
    real = tmp_path / "real.npy"
    np.save(real, np.random.default_rng(0).standard_normal(shape, np.float32))
    paths = [tmp_path / f"{i}.npy" for i in range(300)]  # 283 MB
    for path in paths:
        os.link(real, path)
    table = pd.DataFrame({"volume_path": paths, "target": 0, "participant_id": "sub-01"})
    dataset = VolumeDataset(table)
    assert dataset[0]["volume"].shape == (1, *shape)
    before = private_mb()
    for i in range(len(dataset)):
        dataset[i]
    assert private_mb() - before < 20
