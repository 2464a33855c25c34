"""The terminal as a new user meets it: lists, completion, and refusals that say what to write instead."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess

import pytest

from xai_brain import cli
from xai_brain.config.command_help import COMMANDS, STAGES, TOOLS
from xai_brain.config.compose import SYNONYMS, compose, known_keys
from xai_brain.config.saved import saved_settings
from xai_brain.config.setting import ConfigError
from xai_brain.runs.directory import update_metrics
from xai_brain.stages.run import print_summary
from xai_brain.study.study import Study
from xai_brain.tools.settings import all_settings


def error_of(capsys, *arguments):
    assert cli.main(list(arguments)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_settings_are_listed_with_meaning_type_and_default(capsys):
    assert cli.main(["settings", "trainer"]) == 0
    text = capsys.readouterr().out
    assert "trainer.lr=0.0003  (float)\n    learning rate" in text
    assert "one of one_cycle, multistep, constant" in text
    assert "trainer=default" in text
    assert "folds." not in text


def test_every_setting_has_a_meaning_and_is_a_setting():
    listed = all_settings()
    assert all(each.meaning for each in listed)
    names = {each.name for each in listed}
    assert {"data.cohort", "data.image", "planted.radius_mm", "evaluation.group.n_perm"} <= names
    composed = set(known_keys("run"))
    layouts = ("data.image", "data.n_subjects", "data.dartel", "data.url")  # of other kinds of cohorts
    assert names - composed <= set(layouts)


def test_settings_of_the_same_name_say_how_they_differ():
    meanings: dict[str, list[str]] = {}
    for each in all_settings():
        meanings.setdefault(each.name.rpartition(".")[2], []).append(each.meaning)
    assert not [name for name, texts in meanings.items() if len(set(texts)) < len(texts)]
    of_voxels = next(text for text in meanings["n_perm"] if "voxel-wise" in text)
    of_regions = next(text for text in meanings["n_perm"] if "in regions" in text)
    assert "(regions: evaluation.n_perm)" in of_voxels
    assert "(voxels: evaluation.group.n_perm)" in of_regions


def test_groups_of_files_are_listed_without_settings_of_their_own(capsys):
    assert cli.main(["settings", "augmentation"]) == 0
    assert "augmentation=flip" in capsys.readouterr().out
    assert "there is no group of settings 'trainr'" in error_of(capsys, "settings", "trainr")


@pytest.mark.parametrize("name", SYNONYMS)
def test_names_of_other_software_lead_to_the_setting(name):
    assert SYNONYMS[name] in known_keys("run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "learning_rate=1"], "did you mean 'trainer.lr'?"),
        (["run", "data=synthetic", "trainer.learning_rate=1"], "did you mean 'trainer.lr'?"),
        (["run", "--experiment", "demo"], "a setting is written experiment=demo"),
        (["run", "--epochs=3"], "a setting is written epochs=3"),
        (["run", "experiment"], "settings are written key=value"),
        (["evaluate", "a", "b"], "takes one run directory"),
        (["completion", "fish"], "only bash is supported"),
    ],
)
def test_what_cannot_be_is_refused_with_the_correct_form(arguments, message, capsys):
    assert message in error_of(capsys, *arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["attribution=[grad_cam]", "attribution.Occlusion.window_mm=20"],
            "attribution.Occlusion.window_mm: it belongs to the method Occlusion, which is not chosen; "
            "add occlusion to attribution=[...]",
        ),
        (
            ["attribution=[occlusion]", "attribution.Occlusion.windw_mm=2"],
            "mean 'attribution.Occlusion.window_mm'?",
        ),
        (
            ["baselines.linear_svm.block_voxels=3"],
            "baselines.linear_svm.block_voxels: it belongs to the baseline linear_svm, which is not chosen; "
            "add linear_svm to baselines=[...]",
        ),
        (["model=shallow", "model.channel_width=3"], "there is no setting 'model.channel_width'"),
        (["model=custom", "model.dropout=0.1"], "model.dropout: it belongs to model=kan2020 or model="),
        (
            ["data=bids", "data.cohort.n_subjects=3"],
            "data.cohort.n_subjects: it belongs to data=synthetic, which is not chosen",
        ),
        (
            ["data=bids", "data.image=a.nii"],
            "data.image: it belongs to data=hcp or data=ixi, which is not chosen",
        ),
        (["+trainer.lr=1e-3"], "+trainer.lr: there is such a setting; leave out the +"),
    ],
)
def test_settings_of_other_choices_are_refused_with_their_choice(settings, message):
    with pytest.raises(ConfigError) as caught:
        compose("run", settings if "data=bids" in settings else ["experiment=demo", *settings], checked=False)
    assert message in str(caught.value)


@pytest.mark.parametrize("command", STAGES)
def test_a_run_directory_may_be_positional(command, tmp_path, capsys):
    folder = tmp_path / "nowhere"
    expected = f"xai-brain: {folder}/config.yaml: there is no run"
    assert error_of(capsys, command, str(folder)).startswith(expected)
    assert error_of(capsys, command, f"run_dir={folder}").startswith(expected)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("xai-brain exp", {"explain"}),
        ("xai-brain run trainer.max_e", {"trainer.max_epochs="}),
        ("xai-brain run experiment=de", {"demo"}),
        ("xai-brain run attribution=[grad_c", {"attribution=[grad_cam]", "[grad_cam]"}),
    ],
)
def test_completion_works_in_bash(typed, expected, capsys):
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    words = typed.replace("=", " = ").split()  # as bash divides them
    ask = f"""
{script}
compopt() {{ :; }}
COMP_LINE={typed!r} COMP_POINT={len(typed)}
COMP_CWORD={len(words) - 1} COMP_WORDS=({" ".join(map(repr, words))})
_xai_brain
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    answer = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert answer.stderr == ""
    assert set(answer.stdout.split()) & expected


def test_every_command_has_its_help(capsys):
    for command in COMMANDS:
        assert cli.main([command, "--help"]) == 0
        text = capsys.readouterr().out
        assert f"usage: xai-brain {command}" in text
        assert ("<run_dir>" in text) or command not in STAGES
    assert set(TOOLS) < set(COMMANDS)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("explain.target=malle", "explain.target=malle"),
        ("folds.group_column=famly_id", "folds.group_column=famly_id: not in participants.tsv"),
        ("folds.balance_on=[agee]", "folds.balance_on=agee: not in participants.tsv; did you mean age?"),
        ("data.brain_size_column=icv", "data.brain_size_column=icv: not in participants.tsv"),
        ("evaluation.group.confounds=[weight]", "evaluation.group.confounds=weight: not in participants.tsv"),
        ("evaluation.masks.which=[mann]", "which: there is no 'mann'; there are joint, female"),
        ("evaluation.group.confounds=[age,sex]", "evaluation.group.confounds=sex: is the label"),
    ],
)
def test_columns_and_labels_are_checked_before_images_are_prepared(
    setting, message, bids_tree, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("xai_brain.study.participants.prepare_volumes", lambda *_: pytest.fail("too late"))
    run_dir = tmp_path / "run"
    given = ["data=bids", f"data.root={bids_tree}", "folds.n_folds=2", f"run_dir={run_dir}"]
    assert cli.main(["run", *given, setting]) == 1
    assert message in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_names_the_setting(bids_tree, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "home" / "cache"

    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("xai_brain.study.participants.prepare_volumes", lambda *_: refuse(folder / "volumes"))
    given = ["data=bids", f"data.root={bids_tree}", "folds.n_folds=2", f"run_dir={tmp_path / 'run'}"]
    message = error_of(capsys, "run", *given, f"data.cache_dir={folder}")
    assert message.startswith(f"xai-brain: {folder}: the folder of prepared images cannot be written")
    assert "XAI_BRAIN_CACHE=<folder>" in message
    assert "data.cache_dir=<folder>" in message


def test_too_few_matched_pairs_are_stated_in_place_of_an_interval(copied, capsys):
    update_metrics(copied, {"test/auroc_size_matched": 0.8, "test/n_pairs_size_matched": 5.0})
    print_summary(saved_settings(copied.config), copied)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "AUROC, matched" in line)
    assert "0.800" in line
    assert "5 pairs: too few" in line
    scores = Study(copied.path).scores.set_index("metric")
    assert scores.loc["auroc_size_matched", "note"] == "5 pairs: too few for an interval"
    assert scores.loc["auroc_size_matched", ["ci_low", "ci_high"]].isna().all()
    assert set(scores["note"]) == {"", "5 pairs: too few for an interval"}


def test_explain_names_the_commands_that_include_new_maps(copied, capsys):
    assert cli.main(["explain", str(copied.path)]) == 0
    assert "report" not in capsys.readouterr().out
    (copied.path / "evaluation" / "groups.json").unlink()
    assert cli.main(["explain", str(copied.path)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    evaluate, report = (f"`xai-brain {name} {copied.path}`" for name in ("evaluate", "report"))
    assert last == f"explain: {evaluate} and then {report} include these maps"
