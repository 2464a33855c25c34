"""Every command that is printed anywhere is accepted; those that need little are run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import hydra
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import SMALL, map_of
from hydra.utils import instantiate
from printed_commands import DEMO, ROOT, printed, printed_scripts, printed_targets, texts

from xai_brain import RunDirectory, cli
from xai_brain.attribution.protocol import method_info
from xai_brain.config.command_help import STAGES, TOOLS
from xai_brain.config.compose import compose, known_keys
from xai_brain.config.saved import saved_settings
from xai_brain.data.layouts.synthetic import make_synthetic_cohort
from xai_brain.data.planted.synthetic_subject import SyntheticSettings
from xai_brain.runs.directory import write_json
from xai_brain.study.commands.settings import check_inexpensively
from xai_brain.tools.settings import all_settings

# what stands for a name in angle brackets, and for what a message inserts
PLACES = {
    **dict.fromkeys(("<run_dir>", "<run>", "<sweep_dir>", "<value>"), "outputs/demo"),
    **dict.fromkeys(("<folder>", "<ixi>", "<hcp>"), "/path/to/bids"),
    **{"<labels.nii.gz>": "labels.nii.gz", "<Name>": "Mine"},
    **{"<published state dict>": "best_model_all", "$SLURM_ARRAY_TASK_ID": "3"},
}
RUNS = ("demo", "dense", "mine", "run", "predicted", "my_card", "my_study", "before", "after")
SWEEPS = ("grid", "folds", "detection_curve", "sweeps_grid")
NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self, input_shape, n_classes, width=4):
        super().__init__()
"""
# commands that are checked but not started here, and the reason
NOT_STARTED = {
    "best_model_all": "the published weights cannot be distributed; test_published_weights.py",
}
# training of the demo with these settings, and the reason why it is accepted but not run
NOT_TRAINED = {
    "devices=4": "four processes; test_several_processes.py trains with several",
    "model=resnet18": "minutes on a CPU; test_models.py",
    "model=densenet121": "minutes on a CPU; test_models.py",
    "<published state dict>": "the published weights cannot be distributed; test_published_weights.py",
    "preprocessing=t1w_2mm": "minutes on a CPU; test_preprocessing.py prepares volumes of this grid",
    "preprocessing=t1w_58x70x58": "minutes on a CPU; test_preprocessing.py prepares volumes of this grid",
}
# commands of an existing run that are started but not run, and the reason
NOT_RUN = {
    "launcher=slurm": "needs SLURM; tests with the mark slurm submit jobs",
    "shard=": "parts of a stage are tested by test_shards.py",
    "adapt=standardize": "needs 20 images; test_new_images.py",
    "explain.output_space=native": "needs images that were aligned; test_predict_native.py",
    "explain.target=male": "conflicts with the maps of the run on purpose; test_terminal.py",
    "evaluation.calibration": "needs a report card of the same cohort; test_report_card.py",
    "labels.nii.gz": "an atlas of the whole brain; test_atlas_tables.py",
    "region_ablation": "an atlas of the whole brain; test_occlusion.py",
    **dict.fromkeys(
        ("attention_rollout", "attention_relevance", "token_grad_cam"),
        "needs a network with attention; test_attention_methods.py",
    ),
    "preprocessing.raw=true": "needs the extra raw; test_raw_heads.py",
    "harmonization.site_column": "needs participants of several sites; test_harmonization.py",
    "morphometry": "needs a table of many participants; test_baseline_runs.py",
    "baselines=[kan2020]": "networks for volumes of 3 mm; test_baseline_runs.py",
    "baselines=[sfcn]": "networks for volumes of 3 mm; test_baseline_runs.py",
    "baselines=[resnet18]": "networks for volumes of 3 mm; test_baseline_runs.py",
    "baselines=[densenet121]": "networks for volumes of 3 mm; test_baseline_runs.py",
}


def words_of(command):
    """Arguments with names in place of angle brackets, as a shell passes them on."""
    found = []
    for word in command:
        for place, name in PLACES.items():
            word = word.replace(place, name)
        word = {"data=": "data=bids", "data.root=": "data.root=/path/to/bids"}.get(word, word)
        assert not re.search("<[^=>]+>", word), f"{word}: add what it stands for to PLACES"
        found += shlex.split(word)
    return found


def reason(command, table):
    return next((why for text, why in table.items() if text in " ".join(command)), None)


@pytest.fixture(scope="module")
def home(small_run, tmp_path_factory):
    """A working directory in which the printed paths exist: runs, sweeps, tables, labels."""
    folder = tmp_path_factory.mktemp("home")
    demo = folder / "outputs" / "demo"
    shutil.copytree(small_run.path, demo)
    (demo / "evaluation" / "report_card.tsv").touch()
    for name in (*RUNS[1:], *SWEEPS):
        (folder / "outputs" / name).symlink_to(demo)
    (folder / "mine.py").write_text(NETWORK)
    tables = folder / "path" / "to"
    tables.mkdir(parents=True)
    rows = range(24)
    table = pd.DataFrame({
        "participant_id": [f"sub-{n:02d}" for n in rows], "sex": ["F", "M"] * 12, "age": rows,
        "icv_ml": 1500, "site": ["A", "B", "C"] * 8, "family_id": rows, "diagnosis": ["CN", "AD"] * 12,
        "fold": [1, 2] * 12, "t1w_path": "image.nii.gz",
    })  # fmt: skip
    table.to_csv(tables / "participants.tsv", sep="\t", index=False)
    for name in ("labels.tsv", "cohort.csv", "../../table.csv"):
        table.to_csv(tables / name, sep="\t" if name.endswith("tsv") else ",", index=False)
    hcp = pd.DataFrame({"Subject": range(100000, 100024), "Gender": ["F", "M"] * 12})
    for name in ("unrestricted.csv", "RESTRICTED.csv"):
        hcp.to_csv(tables / name, index=False)
    pd.DataFrame({"IXI_ID": rows, "SEX_ID": [1, 2] * 12}).to_csv(tables / "IXI.csv", index=False)
    for name in ("labels.nii.gz", "atlas.nii.gz", "path/to/labels.nii.gz"):
        nib.Nifti1Image(np.ones((2, 3, 4), np.uint8), np.eye(4)).to_filename(folder / name)
    for name in ("best_model_all", "backbone.pt", "dense.safetensors"):
        (folder / name).touch()
    return folder


@pytest.fixture
def at_home(home, monkeypatch):
    """Printed paths exist, and programs of the user are found."""
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(str(home))
    demo = home / "outputs" / "demo"
    yield lambda word: re.sub(r"/path/to(/(?!labels)\w+)?", f"{home}/path/to", word)
    sys.modules.pop("mine", None)
    (demo / "sweep.json").unlink(missing_ok=True)
    (demo / "study.db").unlink(missing_ok=True)
    shutil.rmtree(demo / "0", ignore_errors=True)


def add_job(folder):
    """A finished job in the folder of a sweep."""
    write_json({"overrides": ["seeds=[0]"], "state": "complete", "seconds": 1.0}, folder / "0" / "job.json")
    write_json({"test/auroc": 0.7, "test/brier": 0.2}, folder / "0" / "metrics.json")


COMMANDS = printed()
each_command = pytest.mark.parametrize("command", COMMANDS, ids=" ".join)


@each_command
def test_a_printed_command_is_accepted(command, at_home, monkeypatch, capsys):
    """Everything before the work: flags, settings, files, columns, trust, and the plan of a sweep."""
    words = [at_home(word) for word in words_of(command)]
    if reason(command, NOT_STARTED):
        check_inexpensively(words[0], words[1:])
        return
    if words[0] == "collect":
        add_job(Path("outputs/demo"))
    started = []
    monkeypatch.setattr(cli, "_execute", lambda *arguments: started.append(arguments))
    monkeypatch.setattr(hydra, "main", lambda **_: lambda _: lambda: started.append(sys.argv))
    monkeypatch.setattr(cli, "_function", lambda *_: lambda arguments: started.append(arguments) or 0)
    monkeypatch.setattr("xai_brain.tools.sweep.summarize_jobs", lambda *_: 0)
    assert cli.main(words) == 0, capsys.readouterr().err
    assert len(started) == 1


def test_every_reason_and_place_belongs_to_a_printed_command():
    everything = "\n".join(" ".join(command) for command in COMMANDS)
    assert [text for text in (*NOT_STARTED, *NOT_RUN, *NOT_TRAINED, *PLACES) if text not in everything] == []


WITH_IMAGES = ("import-maps", "explain-network")  # see test_import_maps.py and test_explain_network.py
TOOLS_RUN = [command for command in COMMANDS if command[0] in TOOLS and command[0] not in WITH_IMAGES]


@pytest.mark.parametrize("command", TOOLS_RUN, ids=" ".join)
def test_a_printed_tool_is_run(command, at_home, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XAI_BRAIN_CACHE", str(tmp_path))
    opened = []
    monkeypatch.setattr("xai_brain.tools.view.os.execv", lambda _, arguments: opened.append(arguments))
    monkeypatch.setattr("xai_brain.tools.view.subprocess.run", lambda _: SimpleNamespace(returncode=0))
    words = [at_home(word) for word in words_of(command)]
    if "data.root" in " ".join(words):  # of other images
        words = words[:2]
    if words[0] == "collect":
        add_job(Path("outputs/demo"))
    assert cli.main(words) == 0, capsys.readouterr()
    assert len(opened) == (command[0] == "view")


OF_A_RUN = {
    re.sub(r"(run_dir=)?outputs/\w+", "<run>", " ".join(words_of(command))): command
    for command in COMMANDS
    if command[0] in (*STAGES, "predict", "import-maps") and not reason(command, NOT_STARTED | NOT_RUN)
}


@pytest.fixture
def used(home, tmp_path):
    """A copy of the directory, in which a command may change the run."""
    folder = tmp_path / "home"
    shutil.copytree(home / "outputs" / "demo", folder / "outputs" / "demo")
    for name in (*RUNS[1:], *SWEEPS):
        (folder / "outputs" / name).symlink_to(folder / "outputs" / "demo")
    run = RunDirectory(folder / "outputs" / "demo")
    maps, source = folder / "path" / "to" / "maps", map_of(run)
    maps.mkdir(parents=True)
    shutil.copy(source, maps / source.name.replace("_desc-GradCAM", ""))
    (folder / "path" / "to" / "bids").symlink_to(maps)  # a folder of maps, too
    for manifest in ("evaluation/inputs.json", "evaluation/groups.json", "figures/inputs.json"):
        (run.path / manifest).unlink(missing_ok=True)  # so that nothing is up to date
    (run.path / "evaluation" / "report_card.tsv").unlink()
    return folder


def quick_settings(words, run):
    """One iteration of the methods that a command adds."""
    there = saved_settings(run.config).attribution
    chosen = [word for word in words if word.startswith("attribution=")]
    composed = compose("explain", ["data=synthetic", *chosen], checked=False) if chosen else None
    for label, method in composed.attribution.items() if chosen else ():
        quick = method_info(instantiate(method)).trial_settings if label not in there else {}
        quick = {"n_levels": 1} if label == "Occlusion" else quick
        yield from (f"attribution.{label}.{name}={value}" for name, value in quick.items())


@pytest.mark.slow
@pytest.mark.parametrize("command", OF_A_RUN.values(), ids=OF_A_RUN)
def test_a_printed_command_of_a_run_is_run(command, used, monkeypatch, capsys):
    monkeypatch.chdir(used)
    run = RunDirectory(Path("outputs/demo"))
    words = [word.replace("/path/to", f"{used}/path/to") for word in words_of(command)]
    if command[0] == "explain":
        words += [*quick_settings(words, run), "shard=1/4"]
    if command[0] == "validate":
        words += [f"evaluation.masks.{text}" for text in ("methods=[GradCAM]", "n_subjects=1", "n_random=1")]
    if command[0] == "threshold":
        words += [f"evaluation.threshold.{text}" for text in ("alpha=0.5", "n_perm=1", "n_participants=2")]
    if command[0] == "predict":
        others = SyntheticSettings(n_subjects=6, seed=1)
        make_synthetic_cohort(used / "path" / "to" / "new", others)
        words.append("run_dir=outputs/predictions")
    assert cli.main(words) == 0, capsys.readouterr().err


OF_THE_DEMO = [
    command
    for command in COMMANDS
    if command[0] in ("run", "train")
    and DEMO in command
    and not {"-m", "--cfg"} & set(command)
    and not reason(command, NOT_TRAINED)
]


@pytest.mark.slow
@pytest.mark.parametrize("command", OF_THE_DEMO, ids=" ".join)
def test_a_printed_command_on_the_demo_trains(command, tmp_path, capsys):
    """`run` is `train` and the stages of the tests above, so that only the training differs."""
    words = words_of(command)[1:]
    small = [word for word in SMALL if word != DEMO and not word.startswith(("model.", "attribution."))]
    few = [*small, "trainer.fast_dev_run=true", f"run_dir={tmp_path / 'run'}"]
    assert cli.main(["train", *few, *words]) == 0, capsys.readouterr().err
    assert (tmp_path / "run" / "predictions.tsv").exists()


@pytest.mark.slow
def test_a_printed_sweep_is_run(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (command,) = (each for each in COMMANDS if each[:2] == ("run", "-m") and "trainer.lr" in each[-1])
    small = [word for word in SMALL if word != DEMO]
    assert cli.main(["train", *command[1:], *small, "trainer.fast_dev_run=true"]) == 0
    assert cli.main(["collect", "outputs/demo"]) == 0
    assert "2 of 2 jobs complete" in capfd.readouterr().out


@pytest.mark.parametrize("command", printed_scripts())
def test_a_printed_benchmark_and_its_options_exist(command):
    script, *options = command.split()
    text = (ROOT / script).read_text()
    for option in options:
        name = option.strip("[]")
        assert not name.startswith("--") or f'"{name}"' in text, option


@pytest.mark.parametrize("target", printed_targets())
def test_a_printed_target_of_make_exists(target):
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_settings_that_texts_and_messages_name_exist():
    """Of `trainer.lr=1e-3` in any message, help text or comment, `trainer.lr` is a setting."""
    known = {each.name for each in all_settings()} | set(known_keys("run"))
    sections = "|".join(sorted({name.partition(".")[0] for name in known if "." in name}))
    free = ("attribution", "model", "baselines", "data.cohort", "data.entities", "trainer.extra", "task")
    unknown = []
    for where, text in texts():
        for name in re.findall(rf"(?<![\w./])((?:{sections})(?:\.[a-z_]+)+)=", text):
            if name not in known and not name.startswith(tuple(f"{each}." for each in free)):
                unknown.append((where, name))
    assert unknown == []
