"""The first line of every command, and what is missing, appear before heavy imports.

Order is tested here; benchmarks/startup.py measures the seconds.
"""

from __future__ import annotations

import json

import pytest
from conftest import in_another_process

from xai_brain.config.command_help import COMMANDS, PRINTING, STAGES
from xai_brain.config.inputs import RESULTS
from xai_brain.config.overrides import UNTYPED_PATHS, text_settings
from xai_brain.config.setting import ConfigError
from xai_brain.io.paths import why_no_file
from xai_brain.study.commands.settings import check_inexpensively, check_jobs

SLOW = ["torch", "pytorch_lightning", "captum", "nilearn", "sklearn", "matplotlib"]
MISSING_FOLDER = {
    "run": ["data=bids", "data.root=nowhere"],
    "train": ["data=bids", "data.root=nowhere"],
    "predict": ["networks=nowhere", "data=bids", "data.root=."],
    **{command: ["nowhere"] for command in (*STAGES, "verify", "collect", "view")},
    "import-maps": ["maps=nowhere", "run_dir=new"],
    "explain-network": ["network.weights=weights.pt", "data=bids", "data.root=nowhere"],
}
WITHOUT_FOLDER = ("cache", "settings", "completion")  # an empty cache is not an error

FIRST_LINES = """
import json
from xai_brain.cli import main

class Stop(BaseException):
    pass

class FirstLine:
    text = ""
    def write(self, text):
        self.text += text
        if "\\n" in self.text:
            raise Stop
    def flush(self): pass
    def isatty(self): return False

found, stdout = {}, sys.stdout
for command, arguments in commands.items():
    sys.stdout = FirstLine()
    try:
        main([command, *arguments])
    except Stop:
        pass
    found[command] = [sys.stdout.text.strip(), [name for name in modules if name in sys.modules]]
sys.stdout = stdout
print(json.dumps(found))
"""

ERRORS = """
import contextlib, io, json
from xai_brain.cli import main

found = {}
for command, arguments in commands.items():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as stderr:
        assert main([command, *arguments]) == 1
    found[command] = [stderr.getvalue().strip(), [name for name in modules if name in sys.modules]]
print(json.dumps(found))
"""


def in_order(code, commands, modules):
    """What one process reports that runs commands one after another: text, and modules imported so far."""
    done = in_another_process(f"import sys\ncommands, modules = {commands!r}, {modules!r}\n{code}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_first_line_of_every_command_comes_before_imports():
    assert set(MISSING_FOLDER) | set(WITHOUT_FOLDER) == set(COMMANDS)
    logging = [command for command in COMMANDS if command not in PRINTING]
    found = in_order(FIRST_LINES, {name: [] for name in logging}, ["numpy", "pandas", "hydra", *SLOW])
    assert found == {command: [f"xai-brain {command}: starting", []] for command in logging}
    printing = {"settings": [], "completion": ["bash"]}
    assert set(printing) == set(PRINTING)
    found = in_order(FIRST_LINES, printing, ["pandas", *SLOW])
    assert all(line and not loaded for line, loaded in found.values())


def test_a_missing_folder_is_reported_before_imports():
    found = in_order(ERRORS, MISSING_FOLDER, ["pandas", *SLOW])
    for command, (message, loaded) in found.items():
        assert "nowhere" in message, command
        assert "\n" not in message
        assert loaded == [], command


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.label=diagnosis", "has no column 'diagnosis'"),
        ("explain.target=malle", "explain.target=malle"),
        ("folds.group_column=famly_id", "folds.group_column=famly_id: not in participants.tsv"),
        ("data.tables=[other.tsv]", "data.tables=other.tsv: there is no such file"),
    ],
)
def test_columns_and_labels_are_checked_before_torch_is_imported(setting, message, bids_tree):
    found = in_order(ERRORS, {"run": ["data=bids", f"data.root={bids_tree}", setting]}, SLOW)
    assert message in found["run"][0]
    assert found["run"][1] == []


def test_names_of_an_existing_run_are_checked_before_torch_is_imported(small_run):
    given = [str(small_run.path), "evaluation.group.confounds=[weight]"]
    found = in_order(ERRORS, {"evaluate": given, "explain": [given[0], "explain.target=malle"]}, SLOW)
    assert "evaluation.group.confounds=weight: not in participants.tsv" in found["evaluate"][0]
    assert "explain.target=malle" in found["explain"][0]
    assert [loaded for _, loaded in found.values()] == [[], []]


PATHS = [name for name, text in text_settings().items() if text.is_path and name not in RESULTS]
UNTYPED = ["model.weights", "attribution.RegionAblation.labels_img", "attribution.RegionAblation.table"]


@pytest.mark.parametrize("name", [*PATHS, *UNTYPED])
def test_every_setting_that_is_a_path_is_checked(name, bids_tree, tmp_path):
    assert name in PATHS or name.rpartition(".")[2] in UNTYPED_PATHS
    missing = tmp_path / "nowhere"
    value = f"[{missing}]" if name == "data.tables" else missing
    given = ["data=bids", f"data.root={bids_tree}", "attribution=[region_ablation]", f"{name}={value}"]
    if name == "evaluation.atlas_table":
        given.append("evaluation.atlas=aal")
    if name != "attribution.RegionAblation.labels_img":
        given.append("attribution.RegionAblation.labels_img=aal")
    with pytest.raises(ConfigError, match=rf"^{name}={missing}: "):
        check_inexpensively("run", given)


FILES = [
    name for name in [*PATHS, *UNTYPED] if name not in ("data.root", "networks", "evaluation.calibration")
]


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_place_of_a_file_is_named_with_its_files(name, bids_tree, tmp_path):
    folder = tmp_path / "given"
    folder.mkdir()
    leaf = name.rpartition(".")[2]
    images, weights = leaf in ("atlas", "labels_img", "mask_img"), leaf == "weights"
    suitable = "b.nii.gz" if images else "b.ckpt" if weights else "b.tsv"
    for file in ("a.pdf", suitable, f"c{suitable}"):
        (folder / file).touch()
    value = f"[{folder}]" if name == "data.tables" else folder
    given = ["data=bids", f"data.root={bids_tree}", "attribution=[region_ablation]", f"{name}={value}"]
    if name == "evaluation.atlas_table":
        given.append("evaluation.atlas=aal")
    if name != "attribution.RegionAblation.labels_img":
        given.append("attribution.RegionAblation.labels_img=aal")
    with pytest.raises(ConfigError) as caught:
        check_inexpensively("run", given)
    assert str(caught.value) == (
        f"{name}={folder}: is a folder, and a file is needed; it contains {suitable}, c{suitable}"
    )


def test_few_files_of_a_folder_are_listed(tmp_path):
    assert why_no_file(tmp_path, (".tsv",)) == "is a folder, and a file is needed; it contains no file .tsv"
    for k in range(7):
        (tmp_path / f"{k}.tsv").touch()
    assert why_no_file(tmp_path).endswith("it contains 0.tsv, 1.tsv, 2.tsv, 3.tsv, 4.tsv and 2 more")
    assert why_no_file(tmp_path / "nowhere") == "there is no such file"


def test_a_table_beside_the_images_or_in_the_working_directory_is_found(bids_tree, tmp_path, monkeypatch):
    given = ["data=bids", f"data.root={bids_tree}", "data.tables=[mine.tsv]"]
    (tmp_path / "mine.tsv").write_bytes((bids_tree / "participants.tsv").read_bytes())
    with pytest.raises(ConfigError, match=r"neither in data\.root="):
        check_inexpensively("run", given)
    monkeypatch.chdir(tmp_path)
    assert check_inexpensively("run", given).data.tables == ["mine.tsv"]


def test_a_column_that_only_tables_of_sessions_have_is_found(bids_tree):
    for folder in bids_tree.glob("sub-*"):
        image = next((folder / "anat").iterdir())
        session = folder / "ses-1" / "anat"
        session.mkdir(parents=True)
        image.rename(session / image.name.replace("_space", "_ses-1_space"))
        (folder / f"{folder.name}_sessions.tsv").write_text("session_id\tscanner\nses-1\tA\n")
    given = ["data=bids", f"data.root={bids_tree}"]
    assert check_inexpensively("run", [*given, "folds.group_column=scanner"]).folds.group_column == "scanner"
    with pytest.raises(ConfigError, match=r"folds.group_column=scaner: not in participants.tsv"):
        check_inexpensively("run", [*given, "folds.group_column=scaner"])


def test_all_values_of_a_sweep_are_checked_before_its_first_job(bids_tree, tmp_path):
    given = ["data=bids", f"data.root={bids_tree},{tmp_path}/nowhere", "trainer.lr=1e-3,1e-4"]
    with pytest.raises(ConfigError, match=r"nowhere: there is no such folder"):
        check_jobs("run", given)
    with pytest.raises(ValueError, match=r"explain.target=malle"):
        check_jobs("run", ["data=bids", f"data.root={bids_tree}", "explain.target=male,malle"])


def test_the_folder_of_a_cohort_that_is_downloaded_need_not_exist(tmp_path):
    config = check_inexpensively("run", ["data=oasis", f"data.root={tmp_path / 'new'}"])
    assert config.data.layout == "oasis"
