"""Paths and labels are taken literally on the command line: spaces, umlauts, quotes, TRUE, 01."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import COARSE, COARSE_SHAPE, add_subject, fake_brain
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from xai_brain import RunDirectory, compose
from xai_brain.cli import main
from xai_brain.config.overrides import literal, quoted, split_commas, text_settings, unquoted
from xai_brain.config.setting import ConfigError
from xai_brain.runs.directory import read_json, read_tsv, write_tsv
from xai_brain.task.classification import Classification
from xai_brain.task.labels import LabelRule, make_labels

NAMES = ["two words", "Müller", "Study (2020)", "a=b", "v1,final", "O'Brien", "R&D", "c#1", "50% [new]",
         "{x}", '"quoted" part', "back\\slash", "100", "TRUE", "null,", "ends with '", "tab\tand *",
         "Größe~"]  # fmt: skip


def parsed(override):
    return OverridesParser.create().parse_override(override).value()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "key", ["data.root", "run_dir", "data.cache_dir", "model.weights", "data.label", "name"]
)
def test_a_text_is_what_was_written(name, key):
    value = f"/data/{name}" if key not in ("data.label", "name") else name
    written = literal(f"{key}={value}")
    assert parsed(written) == value
    assert literal(written) == written
    swept = literal(f"{key}={quoted(value)},/other", multirun=True)
    elements = list(OverridesParser.create().parse_override(swept).sweep_string_iterator())
    assert [parsed(literal(f"{key}={each}")) for each in elements] == [value, "/other"]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1))
def test_any_text_survives_the_grammar(value):
    inner = unquoted(value)
    if "${" in inner or value == "null":
        return
    assert parsed(literal(f"data.label={value}")) == inner
    assert unquoted(quoted(value)) == value


def test_lists_of_labels_are_texts():
    labels = literal("data.class_names=[FALSE,TRUE]")
    assert parsed(labels) == ["FALSE", "TRUE"]
    assert parsed(literal("data.class_names=[01,1,1e3,null,yes,1_0]")) == [
        "01",
        "1",
        "1e3",
        "null",
        "yes",
        "1_0",
    ]
    assert parsed(literal('data.tables=[a (1).csv,"b, c.csv",O\'Brien.csv]')) == [
        "a (1).csv", "b, c.csv", "O'Brien.csv",
    ]  # fmt: skip
    assert parsed(literal("data.class_names=[]")) == []
    assert parsed(literal("data.class_names=null")) is None
    with pytest.raises(ConfigError, match=r"data\.tables=x\.csv: a list is needed, data\.tables=\[x\.csv\]"):
        literal("data.tables=x.csv")


def test_values_between_commas():
    assert split_commas("a,b") == ["a", "b"]
    assert split_commas("'a, b',c") == ["'a, b'", "c"]
    assert split_commas("O'Brien,O'Neil") == ["O'Brien", "O'Neil"]
    assert split_commas('[a,"b, c"],[d]') == ['[a,"b, c"]', "[d]"]
    assert split_commas("a,,b") == ["a", "", "b"]


def test_which_settings_are_texts_follows_from_the_schema():
    known = text_settings()
    assert {name for name, text in known.items() if text.is_path} == {
        "run_dir", "networks", "morphometry", "data.root", "data.tables", "data.cache_dir", "folds.path",
        "planted.mask_img", "planted.labels_img", "planted.table",
        "evaluation.atlas", "evaluation.atlas_table", "evaluation.calibration",
        "regional.atlas", "regional.atlas_table",
    }  # fmt: skip
    labels = {name for name, text in known.items() if text.is_label}
    assert labels == {"data.class_names", "data.participants", "data.entities", "planted.region",
                      "explain.target", "evaluation.masks.which", "regional.regions",
                      "regional.columns"}  # fmt: skip
    assert {"data.label", "data.image", "folds.group_column", "evaluation.group.confounds"} <= set(known)
    assert not {"trainer.lr", "seeds", "data.threshold", "folds.n_folds"} & set(known)
    # numbers and groups stay what Hydra makes of them
    for override in (
        "trainer.lr=1e-3",
        "seeds=[0,1]",
        "data=bids",
        "attribution=[grad_cam,lrp]",
        "+model.width=8",
    ):
        assert literal(override) == override


def test_home_is_expanded_in_paths_only(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    given = ["data=bids", "data.root=~/bids", "data.label=~x", "run_dir=~/out (1)",
             "data.tables=[~/a.csv,b.csv]", "model.weights=~/w.pt", "evaluation.atlas=aal"]  # fmt: skip
    cfg = compose("run", given)
    assert (cfg.data.root, cfg.run_dir, cfg.data.label) == ("/home/me/bids", "/home/me/out (1)", "~x")
    assert list(cfg.data.tables) == ["/home/me/a.csv", "b.csv"]
    assert (cfg.model.weights, cfg.evaluation.atlas) == ("/home/me/w.pt", "aal")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trainer.lr=1e-3 (fast)"], "trainer.lr: Value '1e-3 (fast)'"),
        (["data.rot=/a (b)"], "there is no setting 'data.rot'; did you mean 'data.root'?"),
        (["trainer.lr=1e-3,1e-4"], "trainer.lr=1e-3,1e-4: several values need -m (a sweep)"),
        (["experiment=dem(o"], "there is no experiment=dem(o; one of"),
        (["data.root=/nowhere/R&D (2020), Müller's"], "data/nowhere"),
    ],
)
def test_no_error_of_the_grammar_reaches_the_user(arguments, message, capsys):
    assert main(["train", "data=bids", *arguments, "run_dir=/nonexistent/x"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    if message.startswith("data/"):
        message = "/nowhere/R&D (2020), Müller's"
    assert message in line
    for word in ("grammar", "token", "mismatched", "HydraException", "no viable"):
        assert word not in line


def test_a_sweep_explains_how_to_quote_a_comma(tmp_path, capsys):
    (tmp_path / "v1,final").mkdir()
    assert main(["train", "-m", "data=bids", f"data.root={tmp_path}/v1,final"]) == 1
    assert f"""'data.root="{tmp_path}/v1,final"'""" in capsys.readouterr().err
    assert main(["train", "-m", "data=synthetic", "run_dir=a,b", "seeds=[0],[1]"]) == 1
    assert "run_dir cannot be swept" in capsys.readouterr().err
    assert main(["train", "-m", "data=synthetic", "run_dir=a,b", "seeds=[0],[1]"]) == 1
    assert """'run_dir="a,b"'""" in capsys.readouterr().err


WEIRD = "Müller's Study (2020), a=b & R&D #1"


@pytest.fixture
def weird(bids_tree, tmp_path):
    """The small BIDS tree in a folder with an awkward name; labels TRUE and FALSE in an awkward column."""
    root = tmp_path / WEIRD
    for number in range(6, 12):
        add_subject(bids_tree, number, "MF"[number % 2])
    shutil.move(bids_tree, root)
    table = pd.read_csv(root / "participants.tsv", sep="\t", dtype=str)
    table["Sex (M/F), self-reported"] = ["TRUE" if sex == "M" else "FALSE" for sex in table["sex"]]
    table["site"] = ["01", "02"] * 6
    table.to_csv(root / "participants.tsv", sep="\t", index=False)
    return root


SMALLEST = ["model=sfcn", "model.channels=[2,2]", "folds.n_folds=2", "folds.validation_fraction=0.34",
            "trainer.max_epochs=1", "trainer.batch_size=2", "trainer.tensorboard=false",
            "preprocessing=t1w_4mm", "evaluation.n_bootstrap=5", "attribution=[saliency]",
            "evaluation.group.n_perm=0"]  # fmt: skip


def small(root, run_dir):
    return ["data=bids", f"data.root={root}", f"run_dir={run_dir}", "data.label=Sex (M/F), self-reported",
            "data.class_names=[FALSE,TRUE]", *SMALLEST]  # fmt: skip


@pytest.mark.slow
def test_the_command_line_in_a_folder_with_an_awkward_name(weird, tmp_path):
    run_dir = tmp_path / f"{WEIRD} results"
    command = [sys.executable, "-W", "ignore", "-m", "xai_brain"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}

    def started(*arguments):
        done = subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=800
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    started("train", *small(weird, run_dir))
    run = RunDirectory(run_dir)
    saved = OmegaConf.load(run.config)
    assert saved.data.root == str(weird)
    assert saved.data.label == "Sex (M/F), self-reported"
    assert list(saved.data.class_names) == ["FALSE", "TRUE"]
    predictions = read_tsv(run.predictions)
    assert {"prob_FALSE", "prob_TRUE"} <= set(predictions)
    assert set(read_tsv(run.participants)["label"]) == {"TRUE", "FALSE"}
    started("explain", f"run_dir={run_dir}", "explain.target=TRUE", "explain.output=logit_difference")
    about = [read_json(path) for path in run.path.rglob("*_attribution.json")]
    assert len(about) == 12
    assert {(a["TargetName"], a["TargetRule"]) for a in about} == {("TRUE", "TRUE")}
    started("verify", str(run_dir))
    new = tmp_path / "new, (2)"
    started("predict", f"networks={run_dir}", "data=bids", f"data.root={renamed(weird)}", f"run_dir={new}")
    assert {"prob_FALSE", "prob_TRUE"} <= set(read_tsv(new / "predictions.tsv"))


def renamed(root):
    """The same participants with other ids and images."""
    other = root.parent / "O'Neil & 50% = [x]"
    shutil.copytree(root, other)
    for i, path in enumerate(sorted(other.rglob("*_T1w.nii.gz"))):
        fake_brain(COARSE_SHAPE, COARSE, seed=100 + i).to_filename(path)
    return other


@pytest.mark.slow
def test_jobs_of_a_sweep_get_what_was_written(weird, tmp_path):
    sweep = tmp_path / "sweep (1), ü"
    arguments = [f"data.root={quoted(str(weird))}", f"run_dir={quoted(str(sweep))}",
                 "data.label='Sex (M/F), self-reported','sex'", "data.class_names=null"]  # fmt: skip
    given = [text for text in small(weird, sweep) if not text.startswith(("data.", "run_dir"))]
    assert main(["train", "-m", *given, *arguments]) == 0
    jobs = [OmegaConf.load(sweep / job / "config.yaml") for job in "01"]
    assert [job.data.label for job in jobs] == ["Sex (M/F), self-reported", "sex"]
    assert {job.data.root for job in jobs} == {str(weird)}
    assert main(["collect", str(sweep)]) == 0
    assert read_tsv(sweep / "sweep.tsv")["data.label"].tolist() == ["Sex (M/F), self-reported", "sex"]


@pytest.mark.parametrize(
    "labels", [("FALSE", "TRUE"), ("no", "yes"), ("0", "1"), ("01", "02"), ("false", "true"), ("1", "01")]
)
def test_labels_are_compared_as_the_text_of_the_table(labels, tmp_path):
    values = pd.Series(list(labels) * 3)
    names = parsed(literal(f"data.class_names=[{labels[1]},{labels[0]}]"))
    found, in_order, reasons = make_labels(values, LabelRule("dx", names), "table")
    assert in_order == [labels[1], labels[0]]
    assert found.tolist() == values.tolist()
    assert not reasons.any()
    table = pd.DataFrame({"participant_id": ["1", "02"], "label": labels, "class": labels, "class_a": labels,
                          "mask": labels, "name": labels, "value": [1, 2]})  # fmt: skip
    again = read_tsv(write_tsv(table, tmp_path / "x.tsv"))
    pd.testing.assert_frame_equal(again, table.astype(again.dtypes))
    assert again["class"].tolist() == list(labels)
    cfg = compose(
        "run", ["data=synthetic", f"explain.target={labels[1]}", f"evaluation.masks.which=[{labels[0]}]"]
    )
    assert (cfg.explain.target, list(cfg.evaluation.masks.which)) == (labels[1], [labels[0]])
    saved = OmegaConf.create(OmegaConf.to_yaml(cfg))
    assert (saved.explain.target, list(saved.evaluation.masks.which)) == (labels[1], [labels[0]])


def test_target_is_a_label_or_a_reserved_word():
    assert Classification(("FALSE", "TRUE")).read_target("predicted") == "predicted"
    assert Classification(("FALSE", "TRUE")).read_target("true") == "true"
    assert Classification(("FALSE", "TRUE")).read_target("TRUE") == 1
    assert Classification(("1", "01")).read_target("01") == 1
    names = ("false", "true")
    assert Classification(names).read_target("false") == 0
    with pytest.raises(
        ConfigError, match=r"explain\.target=true: is a label of this run and also a reserved"
    ) as e:
        Classification(names).read_target("true")
    assert "explain.target=label:true" in str(e.value)
    assert "explain.target=rule:true" in str(e.value)
    assert Classification(names).read_target("label:true") == 1
    assert Classification(names).read_target("rule:true") == "true"
    assert Classification(names).target_rule("label:true") == "label:true"  # not the rule
    assert Classification(names).target_rule("rule:true") == "true"
    assert Classification(("FALSE", "TRUE")).target_rule("label:TRUE") == "TRUE"
    with pytest.raises(ConfigError, match=r"explain\.target=True: one of predicted, true, FALSE, TRUE"):
        Classification(("FALSE", "TRUE")).read_target("True")


def test_labels_of_yaml_files(tmp_path):
    from xai_brain.config.overrides import finish

    def finished(text):
        cfg = compose("run", ["data=synthetic"])
        cfg = OmegaConf.merge(cfg, OmegaConf.create(text))
        finish(cfg)
        return cfg

    for text in (
        "explain: {target: TRUE}",
        "data: {class_names: [yes, no]}",
        "data: {entities: {acq: true}}",
    ):
        with pytest.raises(
            ConfigError, match="YAML reads yes, no, true and TRUE as booleans; write the label in"
        ):
            finished(text)
    cfg = finished('{explain: {target: "TRUE"}, data: {class_names: [0, 1]}, planted: {region: 17}}')
    assert (cfg.explain.target, list(cfg.data.class_names), cfg.planted.region) == ("TRUE", ["0", "1"], "17")
