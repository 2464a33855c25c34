from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.version import Version

from xai_brain.io.extras import install_command

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


def group(name):
    """Requirements of a dependency group and of the groups that it includes."""
    found = []
    for item in PYPROJECT["dependency-groups"][name]:
        found += [item] if isinstance(item, str) else group(item["include-group"])
    return found


def name_of(requirement):
    return re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower().replace("_", "-")


def test_importing_the_package_is_light():
    code = "import sys, xai_brain; print({'torch', 'nilearn', 'hydra', 'pandas'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
    )


def test_every_public_name_can_be_loaded():
    import xai_brain

    assert all(getattr(xai_brain, name) is not None for name in xai_brain.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = xai_brain.nothing


def test_torchvision_stays_out():
    # beside this torch its mere presence breaks the import of pytorch_lightning and torchmetrics
    assert importlib.util.find_spec("torchvision") is None


@pytest.mark.parametrize("extra", ["lab", "models", "raw", "sweeps"])
def test_an_extra_is_installed_by_the_names_of_its_packages(extra):
    command = install_command(extra)
    assert shlex.split(command)[:2] == ["pip", "install"]
    wanted = PROJECT["optional-dependencies"][extra]
    assert sorted(map(name_of, shlex.split(command)[2:])) == sorted(map(name_of, wanted))


def test_nothing_is_installed_from_an_index_under_our_own_name():
    # the project is not published: such a command would fail, or install what somebody else has put there
    folders = ("xai_brain", "conf", "notebooks", "benchmarks", "tests")
    files = [*ROOT.glob("*.*"), *(path for name in folders for path in (ROOT / name).rglob("*"))]
    texts = [path for path in files if path.suffix in (".py", ".md", ".yaml", ".ipynb", ".yml", ".toml")]
    assert len(texts) > 200
    command = re.compile(r"pip install [\"']?xai[-_]brain")
    assert [str(path) for path in texts if command.search(path.read_text(encoding="utf-8"))] == []


def test_conda_environment_follows_the_project_file():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    conda = [item for item in environment["dependencies"] if isinstance(item, str)]
    (pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    assert f"python{PROJECT['requires-python']},<3.14" in [item.replace(" ", "") for item in conda]
    ranges = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["lab"]]
    assert sorted(pip) == sorted([*ranges, "-e ."])


def test_lock_pins_every_dependency_and_names_no_machine():
    text = (ROOT / "requirements.lock").read_text()
    pins = {name_of(line): line for line in text.splitlines() if line.strip()}
    assert all("==" in line for line in pins.values())
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *group("dev"), *extras["lab"], *extras["sweeps"], *extras["models"]]
    assert [requirement for requirement in wanted if name_of(requirement) not in pins] == []
    assert pins["torch"] == "torch==2.13.0"
    assert "torchvision" not in pins
    assert "://" not in text


def test_version_authors_and_licence_are_the_same_in_all_files():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    codemeta = json.loads((ROOT / "codemeta.json").read_text())
    fallback = PYPROJECT["tool"]["hatch"]["version"]["fallback-version"]
    changelog = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert Version(fallback).is_prerelease
    assert {citation["version"], codemeta["version"], changelog} == {Version(fallback).base_version}
    assert citation["authors"] == PROJECT["authors"] == [{"name": codemeta["author"][0]["name"]}]
    assert citation["license"] == PROJECT["license"] == codemeta["license"].rpartition("/")[2]
    assert citation["keywords"] == PROJECT["keywords"] == codemeta["keywords"]
    assert codemeta["description"] == PROJECT["description"]
    assert codemeta["runtimePlatform"] == f"Python {PROJECT['requires-python']}"
    assert citation["repository-code"] == codemeta["codeRepository"] == PROJECT["urls"]["Source"]
    assert all(url.startswith(PROJECT["urls"]["Source"]) for url in PROJECT["urls"].values())


def test_the_version_is_that_of_the_installed_package():
    import xai_brain
    from xai_brain.runs.provenance import versions

    assert xai_brain.__version__ == versions()["xai-brain"] == metadata.version("xai-brain")
    assert "__version__" not in dir(xai_brain)


def test_minimum_versions_are_the_lower_bounds():
    """`make test-minimum` tests with exactly the versions that the ranges begin with."""
    pins = dict(line.split("==") for line in (ROOT / "tests" / "minimum_versions.txt").read_text().split())
    for requirement in map(Requirement, PROJECT["dependencies"]):
        (bound,) = requirement.specifier
        assert bound.operator == ">="
        assert Version(pins.pop(name_of(requirement.name))) == Version(bound.version), requirement
    assert not pins
    chosen = (ROOT / "tests" / "minimum_tests.txt").read_text().split()
    assert [name for name in chosen if not (ROOT / name).is_file()] == []


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """The sdist, the wheel that is built from it, and the wheel that is built from this folder."""
    folder, beside = tmp_path_factory.mktemp("packages"), tmp_path_factory.mktemp("beside")
    build = [sys.executable, "-m", "build", "--no-isolation", str(ROOT), "--outdir"]
    subprocess.run([*build, str(folder)], check=True, capture_output=True)
    subprocess.run([*build, str(beside), "--wheel"], check=True, capture_output=True)
    (sdist,), (wheel,), (other,) = folder.glob("*.tar.gz"), folder.glob("*.whl"), beside.glob("*.whl")
    return sdist, wheel, other


@pytest.mark.slow
def test_the_sdist_contains_what_the_wheel_needs(packages):
    sdist, wheel, other = packages
    assert wheel.name == other.name
    assert wheel.read_bytes() == other.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (about,) = (name for name in names if name.endswith("/METADATA"))
        fields = Metadata.from_email(archive.read(about), validate=True)
    assert {"xai_brain/py.typed", "xai_brain/conf/run.yaml"} <= names
    assert {name.partition("/")[0] for name in names} == {"xai_brain", about.partition("/")[0]}
    assert str(fields.version) == wheel.name.split("-")[1]
    assert fields.author == "The xai_brain developers"
    with tarfile.open(sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {"Makefile", "requirements.lock", "environment.yml", "tests/conftest.py", "codemeta.json"} <= files
    assert not [name for name in files if name.startswith((".venv", ".git/", "outputs", "docs/_build"))]


@pytest.mark.slow
@pytest.mark.network  # pip downloads what the build needs
def test_the_sdist_is_installed_in_an_empty_environment(packages, tmp_path):
    sdist, wheel, _ = packages
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / "bin"
    command = [programs / "python", "-m", "pip", "install", "--quiet", "--no-deps", str(sdist)]
    subprocess.run(command, check=True, capture_output=True)
    done = subprocess.run([programs / "xai-brain", "--version"], env=clean(), capture_output=True, text=True)
    assert done.stdout.strip() == wheel.name.split("-")[1], done.stderr


def clean():
    """The environment without PYTHONPATH and the like."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


@pytest.mark.slow
@pytest.mark.network  # pip downloads what the wheel depends on
@pytest.mark.timeout(1500)
def test_the_wheel_runs_the_demo_in_an_empty_folder(packages, tmp_path):
    _, wheel, _ = packages
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "-c", str(ROOT / "requirements.lock"), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    settings = ["experiment=demo", "data.cohort.n_subjects=24", "folds.n_folds=2", "trainer.max_epochs=2"]
    settings += ["attribution.MeaningfulPerturbation.n_iter=4", "evaluation.n_bootstrap=50"]
    command = [str(python.with_name("xai-brain")), "run", *settings]
    done = subprocess.run(command, cwd=empty, env=clean(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (empty / "outputs" / "demo" / "report.html").stat().st_size > 100_000
    assert "report: outputs/demo/report.html" in done.stdout
    command = [str(python.with_name("xai-brain-bids")), "--version"]
    done = subprocess.run(command, env=clean(), capture_output=True, text=True)
    assert done.stdout.strip() == wheel.name.split("-")[1], done.stderr
    about = json.loads((empty / "outputs" / "demo" / "provenance.json").read_text())
    assert about["versions"]["xai-brain"] == wheel.name.split("-")[1]
    assert about["git_commit"] is None
