"""Messages: quiet, normal and verbose, by flag, environment variable, function and standard logging."""

from __future__ import annotations

import logging
import re

import pytest
from conftest import in_another_process

from xai_brain.cli import main
from xai_brain.parallel import progress
from xai_brain.parallel.progress import EpochLines, log, log_debug, log_error, log_warning, track
from xai_brain.parallel.verbosity import LOGGER, VARIABLE, set_verbosity, temporary_verbosity


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("XAI_BRAIN_DEBUG", raising=False)


def report_everything():
    log_debug("a detail")
    log("a message")
    assert list(track([1, 2, 3], "count", "numbers")) == [1, 2, 3]
    log_warning("a problem")
    log_error("an error")


def test_messages_go_to_stdout_and_errors_to_stderr(capsys):
    report_everything()
    out, err = capsys.readouterr()
    assert re.fullmatch(r"a message\ncount: 3/3 numbers, 0\.\d s\nwarning: a problem\n", out)
    assert err == "xai-brain: an error\n"


def test_quiet_shows_warnings_and_errors_only(capsys):
    with temporary_verbosity("quiet"):
        report_everything()
    assert capsys.readouterr() == ("warning: a problem\n", "xai-brain: an error\n")
    log("a message again")
    assert capsys.readouterr().out == "a message again\n"


def test_verbose_adds_details_and_the_time_of_each_message(capsys):
    with temporary_verbosity("verbose"):
        report_everything()
        with progress.log_seconds("a step"):
            pass
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines[:2]] == ["a detail", "a message"]
    assert re.fullmatch(r"\d\d:\d\d:\d\d a step: 0\.\d\d s", lines[-1])


@pytest.mark.parametrize(
    ("verbosity", "shown"), [("quiet", []), ("normal", [1, 4]), ("verbose", [1, 2, 3, 4])]
)
def test_epochs(verbosity, shown, capsys):
    with temporary_verbosity(verbosity):
        report_epoch = EpochLines("train fold 1/2", 4)
        for epoch in range(1, 5):
            report_epoch(epoch, {"train/loss": 0.5})
    lines = capsys.readouterr().out.splitlines()
    assert [int(re.search(r"epoch (\d)/4, train/loss 0.500", line)[1]) for line in lines] == shown


def test_the_first_epoch_has_a_duration_and_slow_epochs_have_lines(capsys, monkeypatch):
    seconds = iter([0.0, 2.0, 4.0, 20.0, 22.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    report_epoch = EpochLines("train fold 1/2", 9)
    for epoch in range(1, 5):
        report_epoch(epoch, {"train/loss": 0.5})
    assert capsys.readouterr().out.splitlines() == [
        "train fold 1/2: epoch 1/9, train/loss 0.500, 2.0 s",
        "train fold 1/2: epoch 3/9, train/loss 0.500",
    ]


def test_a_terminal_shows_a_bar_unless_quiet(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    bars = []
    original = progress._bar
    monkeypatch.setattr(progress, "_bar", lambda: bars.append(1) or original())
    assert list(track("abc", "write", "letters")) == ["a", "b", "c"]
    assert bars == [1]
    with temporary_verbosity("quiet"):
        assert list(track("abc", "write", "letters")) == ["a", "b", "c"]
    assert bars == [1]


@pytest.mark.parametrize("flag", ["-q", "--quiet"])
def test_flags_are_accepted_before_and_after_the_command(flag, capsys, tmp_path):
    folder = f"data.cache_dir={tmp_path / 'none'}"
    for arguments in ([flag, "cache", "info", folder], ["cache", "info", folder, flag]):
        assert main(arguments) == 0
        assert capsys.readouterr() == ("", "")
    assert main(["cache", "info", folder]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "xai-brain cache: starting"
    assert second == f"{tmp_path / 'none'}: nothing is cached yet"
    assert main(["cache", "info", folder, "--verbose"]) == 0
    out = capsys.readouterr().out
    assert "nothing is cached yet" in out
    assert re.search(r"xai-brain cache: \d+\.\d\d s", out)


def test_short_work_is_reported_only_if_it_takes_long(capsys, monkeypatch):
    seconds = iter([0.0, 0.1, 0.2, 0.3])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    assert list(track([1], "short", "steps", brief=True)) == [1]
    assert capsys.readouterr().out == ""
    seconds = iter([0.0, 0.0, 0.1, 20.0, 20.0, 40.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    assert list(track("ab", "long", "steps", brief=True)) == ["a", "b"]
    assert capsys.readouterr().out.splitlines() == [
        "long: 1/2 steps, 3.0/min, 20 s left",
        "long: 2/2 steps, 40.0 s",
    ]


def test_progress_counts_the_units_in_its_items(capsys, monkeypatch):
    batches = [["sub-01", "sub-02"], ["sub-03", "sub-04"], ["sub-05"]]
    seconds = iter([0.0, 0.0, 0.1, 0.2, 20.0, 20.0, 40.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    assert list(track(batches, "explain", unit="participants", size=len)) == batches
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["explain: 4/5 participants, 12.0/min, 5 s left", "explain: 5/5 participants, 40.0 s"]


def test_a_line_is_reported_once(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_logged", set())
    for _ in range(2):
        progress.log_once("F is read as female")
    assert capsys.readouterr().out == "F is read as female\n"


def test_errors_appear_when_quiet(small_run, capsys):
    assert main(["explain", "run_dir=nowhere", "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("xai-brain: nowhere/config.yaml: there is no run")
    assert main(["trian", "--quiet"]) == 1  # codespell:ignore
    assert "did you mean 'train'" in capsys.readouterr().err


def test_stages_are_silent_when_quiet(copied, capsys):
    arguments = ["report", f"run_dir={copied.path}"]
    copied.report.unlink()
    assert main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(arguments) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "xai-brain report: starting"
    assert second == f"report: nothing to do, {copied.report} is up to date"
    copied.report.unlink()
    assert main([*arguments, "--verbose"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"report section performance: \d+\.\d\d s", out)
    assert re.search(r"^\d\d:\d\d:\d\d report: \d+\.\d s$", out, re.MULTILINE)


def test_damaged_files_are_named_when_quiet(copied, capsys):
    copied.report.unlink()
    assert main(["verify", str(copied.path), "--quiet"]) == 1
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.startswith(f"{copied.report}: is missing")


def test_the_environment_variable_holds_for_commands(monkeypatch, capsys, tmp_path):
    arguments = ["cache", "info", f"data.cache_dir={tmp_path / 'none'}"]
    monkeypatch.setenv(VARIABLE, "quiet")
    assert main(arguments) == 0
    assert capsys.readouterr().out == ""
    assert main([*arguments, "--verbose"]) == 0  # a flag has precedence
    assert "nothing is cached yet" in capsys.readouterr().out
    monkeypatch.setenv(VARIABLE, "loud")
    assert main(arguments) == 1
    assert capsys.readouterr().err == f"xai-brain: {VARIABLE}=loud: must be one of quiet, normal, verbose\n"


def test_contradicting_flags_are_refused(capsys):
    assert main(["cache", "info", "-q", "-v"]) == 1
    assert (
        capsys.readouterr().err == "xai-brain: --quiet and --verbose exclude each other; give one of them\n"
    )


def test_the_verbosity_of_a_command_ends_with_it(tmp_path):
    level = LOGGER.level
    main(["cache", "info", f"data.cache_dir={tmp_path / 'none'}", "-q"])
    assert LOGGER.level == level


MESSAGE = "from xai_brain.parallel.progress import log, log_error; log('shown'); log_error('wrong')"


def test_importing_the_library_reports_on_stdout():
    done = in_another_process(MESSAGE)
    assert (done.stdout, done.stderr) == ("shown\n", "xai-brain: wrong\n")
    assert in_another_process(MESSAGE, **{VARIABLE: "quiet"}).stdout == ""
    code = f"import xai_brain; xai_brain.set_verbosity('quiet'); {MESSAGE}"
    assert in_another_process(code).stdout == ""


def test_an_unknown_verbosity_is_reported_when_the_library_is_used():
    out = in_another_process(MESSAGE, **{VARIABLE: "loud"}).stdout
    assert out == f"warning: {VARIABLE}=loud is ignored: must be one of quiet, normal, verbose\nshown\n"


def test_standard_logging_silences_or_redirects_the_messages(tmp_path):
    code = f"import logging; logging.getLogger('xai_brain').setLevel('WARNING'); {MESSAGE}"
    assert in_another_process(code).stdout == ""
    file = tmp_path / "messages.log"
    code = (
        "import logging; handler = logging.FileHandler(r'" + str(file) + "'); "
        "handler.setFormatter(logging.Formatter('%(levelname)s %(message)s')); "
        f"logging.getLogger('xai_brain').addHandler(handler); {MESSAGE}"
    )
    done = in_another_process(code)
    assert (done.stdout, done.stderr) == ("", "")
    assert file.read_text() == "INFO shown\nERROR wrong\n"


def test_other_handlers_do_not_repeat_a_message():
    done = in_another_process(f"import logging; logging.basicConfig(level='INFO'); {MESSAGE}")
    assert done.stderr == "xai-brain: wrong\n"


def test_set_verbosity_refuses_other_names():
    with pytest.raises(ValueError, match="verbosity=loud: must be one of quiet, normal, verbose"):
        set_verbosity("loud")
    assert LOGGER.level == logging.INFO


@pytest.mark.slow
def test_jobs_of_a_sweep_are_silent_when_quiet(tmp_path, monkeypatch, capfd):
    from conftest import SMALL

    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", "-q", *SMALL[:-2], "trainer.lr=1e-3,1e-4", "name=quiet"]) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


def test_all_long_work_of_a_stage_is_reported_with_counts_and_seconds(copied, capsys, monkeypatch):
    monkeypatch.setattr(progress, "BRIEF_SECONDS", 0)
    for manifest in ("evaluation/inputs.json", "evaluation/groups.json"):
        (copied.path / manifest).unlink()
    assert main(["evaluate", str(copied.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(set(lines))
    done = {found[1] for line in lines if (found := re.fullmatch(r"(.+): (\d+)/\2 [a-z]+, \d+\.\d s", line))}
    works = {"compare maps", "class maps, female", "class maps, male", "summarise metrics"}
    assert works | {"cluster methods, bootstrap"} <= done
