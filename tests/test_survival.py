"""Killed at any moment, or two at once: the run ends as an undisturbed one does, and does nothing twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from xai_brain.io import atomic
from xai_brain.io.atomic import is_gone, this_process
from xai_brain.parallel import locks
from xai_brain.parallel.locks import is_locked, lock, run_exclusive, run_shared
from xai_brain.parallel.threads import ReadAhead

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and reads /proc")


def ended_process() -> str:
    """Token of a process of this machine that has ended."""
    ask = "from xai_brain.parallel.locks import this_process; print(this_process())"
    return subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, check=True
    ).stdout.strip()


def put(folder: Path, name: str, process: str, age: float = 0.0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(process)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


# -- locks --------------------------------------------------------------------------------------------


def test_a_claim_is_of_one_process_and_leaves_nothing(tmp_path):
    folder = tmp_path / "claims"
    with lock(folder, "unit") as mine:
        assert mine
        assert (folder / "unit.0").read_text() == this_process()
        with lock(folder, "unit") as again, lock(folder, "unit.2") as other:
            assert not again
            assert other
        assert not is_locked(folder)
    assert not folder.exists()


def test_the_claim_of_a_dead_process_is_taken_over_at_once_that_of_another_machine_when_it_is_old(tmp_path):
    dead, elsewhere = ended_process(), "00000000-1-1"
    assert is_gone(dead)
    assert not is_gone(this_process())
    assert is_gone(elsewhere) is None
    for name, process, age, expected in (
        ("dead", dead, 0, True),
        ("own but forgotten", this_process(), 0, True),  # a cell of a notebook that was interrupted
        ("elsewhere", elsewhere, locks.STALE_SECONDS - 20, False),
        ("elsewhere, old", elsewhere, locks.STALE_SECONDS + 20, True),
        ("says nothing yet", "", 0, False),
        ("says nothing", "", locks.WRITING_SECONDS + 1, True),
    ):
        folder = tmp_path / name
        put(folder, "unit.4", process, age)
        assert is_locked(folder) is not expected, name
        with lock(folder, "unit") as mine:
            assert mine is expected, name
            assert (folder / "unit.5").exists() is expected
        assert folder.exists() is not expected  # stale locks go with the one that took over


def test_what_killed_processes_claimed_is_forgotten_when_nobody_is_at_work(tmp_path):
    stale, living = put(tmp_path, "unit.2", ended_process()), put(tmp_path, "other.0", "00000000-1-1")
    with lock(tmp_path, "at-work") as mine:
        locks.remove_stale_locks(tmp_path)
        assert mine
        assert stale.exists()  # the other machine might take it over
        living.unlink()
        locks.remove_stale_locks(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["at-work.0"]


def test_of_many_that_take_over_at_once_one_has_the_claim(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    put(tmp_path / "c", "unit.0", ended_process())
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: locks._take(tmp_path / "c", "unit"), range(8)))
    assert sum(path is not None for path in taken) == 1


def test_a_claim_is_renewed_while_the_work_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.01)
    with lock(tmp_path / "c", "unit"):
        path = tmp_path / "c" / "unit.0"
        os.utime(path, (1e9, 1e9))
        deadline = time.monotonic() + 20
        while path.stat().st_mtime < 2e9 and time.time() - path.stat().st_mtime > 60:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_units_are_shared_those_of_others_waited_for_and_failures_given_up(tmp_path):
    done, waited = set(), []
    elsewhere = put(tmp_path / "c", "b.0", "00000000-1-1")

    def do(unit):
        done.add(unit)
        if unit == "c":  # meanwhile the other machine has finished
            done.add("b of others")
            elsewhere.unlink()

    units = {"a": "a", "b": "b of others", "c": "c", "d": "d"}
    done.add("d")
    run_shared(tmp_path / "c", units, done=done.__contains__, do=do, wait=waited.append)
    assert done == {"a", "b of others", "c", "d"}
    assert waited == []

    with pytest.raises(ZeroDivisionError):
        run_exclusive(tmp_path / "c", "fails", lambda: 1 / 0)
    assert not (tmp_path / "c").exists()


def test_a_unit_is_finished_and_unlocked_after_the_next_one_is_computed(tmp_path):
    log, finished = [], set()

    def do(unit):
        log.append(f"do {unit}")

        def finish():
            assert is_locked_by_this_process(unit)
            finished.add(unit)
            log.append(f"finish {unit}")

        return finish

    def is_locked_by_this_process(unit):
        return any(path.name.startswith(f"{unit}.") for path in locks._held)

    run_shared(tmp_path, {"a": "a", "b": "b", "c": "c"}, done=finished.__contains__, do=do)
    assert log == ["do a", "do b", "finish a", "do c", "finish b", "finish c"]
    assert not any(map(is_locked_by_this_process, "abc"))

    def fail(unit):
        if unit == "b":
            raise ZeroDivisionError
        return do(unit)

    finished.clear()
    with pytest.raises(ZeroDivisionError):
        run_shared(tmp_path, {"a": "a", "b": "b"}, done=finished.__contains__, do=fail)
    assert finished == {"a"}  # what was computed is kept
    assert not any(map(is_locked_by_this_process, "ab"))


def test_the_next_item_is_read_meanwhile():
    began, may_end = [], threading.Event()

    def read(item):
        began.append(item)
        if item == "b":
            assert may_end.wait(20)
        return item.upper()

    with ReadAhead(read, ["a", "b", "c", "d"]) as ahead:
        assert ahead.get("a") == "A"
        may_end.set()
        assert ahead.get("b") == "B"
        assert ahead.get("d") == "D"  # c was left out
    assert began[:2] == ["a", "b"]
    assert "d" in began


def test_only_unfinished_files_of_ended_processes_are_removed(tmp_path):
    dead = put(tmp_path / "a", f".partial-{ended_process()}-x7.npy", "")
    alive = put(tmp_path / "a", f"{atomic.partial_prefix()}x7.npy", "")
    elsewhere = put(tmp_path, ".partial-00000000-1-1-x7.npy", "")
    atomic.remove_partial_files(tmp_path)
    assert not dead.exists()
    assert alive.exists()
    assert elsewhere.exists()


# -- whole runs ---------------------------------------------------------------------------------------


def runs(base: Path, *arguments: object) -> dict:
    script = Path(__file__).with_name("killed_runs.py")
    what, *numbers = map(str, arguments)
    done = subprocess.run(
        [sys.executable, str(script), what, str(base), *numbers],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=850,
    )
    message = "".join(path.read_text() for path in base.glob("*.out"))
    assert done.returncode == 0, done.stderr[-3000:] + message[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """An undisturbed run, to compare with."""
    folder = tmp_path_factory.mktemp("survival")
    # 12 images, their copies, 2 networks, 6 batches of 2 methods, a metric of 2 methods and 2 networks
    assert runs(folder, "reference")["units"] == 12 + 1 + 2 + 6 * 2 + 2 * 2
    return folder


@pytest.mark.slow
def test_killed_at_any_point_it_ends_the_same_and_repeats_only_what_was_in_hand(base):
    assert runs(base, "kill", 10, 1)["kills"] >= 10


@pytest.mark.slow
@pytest.mark.skipif("XAI_BRAIN_KILLS" not in os.environ, reason="minutes; set XAI_BRAIN_KILLS=40")
def test_killed_many_times(base):
    wanted = int(os.environ["XAI_BRAIN_KILLS"])
    assert sum(runs(base, "kill", 10, seed)["kills"] for seed in range(2, 2 + -(-wanted // 10))) >= wanted


@pytest.mark.slow
def test_two_processes_share_a_run(base):
    shared = runs(base, "together")["units"]
    assert min(shared) >= 1  # of 31; how many depends on the machine


@pytest.mark.slow
def test_the_other_goes_on_when_one_of_two_is_killed(base):
    runs(base, "together", 0.4)
