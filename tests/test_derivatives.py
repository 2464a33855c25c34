"""The folders of maps are BIDS derivatives: names, sidecars, descriptions, and the validator itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from bidsschematools.schema import load_schema
from conftest import COARSE, COARSE_SHAPE, ToyNet, fake_brain

import xai_brain as xb
from xai_brain.io.nifti import save_img
from xai_brain.io.problems import DataError
from xai_brain.runs.derivatives import map_roots, write_map_datasets
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, sidecar
from xai_brain.runs.group_maps import find_group_maps, write_group_map
from xai_brain.task.labels import LabelRule, make_labels

UNAVOIDABLE = {"TOO_FEW_AUTHORS"}  # the authors of the images are not always known
WITHOUT_PARTICIPANTS = {"SUBJECT_FOLDERS"}  # a warning for datasets of group maps


@pytest.fixture(scope="module")
def schema():
    return load_schema()


@pytest.fixture
def seeds_run(small_run, tmp_path):
    """Maps of two participants by two networks, one of them in a session, with a group map of all."""
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.config.write_text("seeds: [0, 1]\n")
    table = read_tsv(small_run.participants).iloc[:2]
    table.assign(session_id=["n/a", "ses-2"]).to_csv(run.participants, sep="\t", index=False)
    made = []
    for seed in (0, 1):
        for row in read_tsv(run.participants).itertuples():
            source = small_run.attribution(row.participant_id, None, "GradCAM", 0)
            target = run.attribution(row.participant_id, row.session_id, "GradCAM", seed)
            target.parent.mkdir(parents=True)
            for old, new in ((source, target), (sidecar(source), sidecar(target))):
                shutil.copy(old, new)
            made.append(target)
    write_map_datasets(run, {"cohort": Path("/data/my cohort")})
    volume = np.zeros((12, 14, 16), np.float32)
    write_group_map(run, "GradCAM", "class->50 years", "mean", volume, COARSE, {}, made)
    return run


def issues_of(root):
    """Errors and warnings of the validator, by their codes."""
    command = [Path(sys.executable).with_name("bids-validator-deno"), root, "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)["issues"]["issues"]
    codes = {
        severity: [each for each in found if each["severity"] == severity]
        for severity in ("error", "warning")
    }
    return codes["error"], {each["code"] for each in codes["warning"]}


@pytest.mark.parametrize("folder", ["attributions", "group"])
def test_the_validator_accepts_the_datasets_of_a_run(small_run, folder):
    errors, warnings = issues_of(small_run.path / folder)
    assert errors == []
    assert warnings == UNAVOIDABLE | (WITHOUT_PARTICIPANTS if folder == "group" else set())
    assert (small_run.path / folder / ".bidsignore").read_text().split() == ["*_attribution.*", "*_statmap.*"]


def test_each_seed_is_a_dataset_of_its_own(seeds_run):
    roots = map_roots(seeds_run)
    assert roots == {f"seed-{seed}": seeds_run.path / "attributions" / f"seed-{seed}" for seed in (0, 1)}
    errors, warnings = issues_of(roots["seed-1"])
    assert (errors, warnings) == ([], UNAVOIDABLE)
    (made,) = find_group_maps(seeds_run)
    assert made.quantity == "class->50 years"
    assert made.path.name == "tpl-MNI152_cohort-x3e50years_desc-GradCAM+mean_statmap.nii.gz"
    sources = files_of(seeds_run.path / "group", read_json(sidecar(made.path))["Sources"])
    assert len(sources) == 4
    assert all(path.exists() for path in sources)


def files_of(root, sources):
    """Files that BIDS URIs name, by the links of their dataset."""
    links = read_json(root / "dataset_description.json")["DatasetLinks"]
    files = []
    for source in sources:
        _, name, path = source.split(":", 2)
        link = urlparse(links[name])
        folder = Path(unquote(link.path)) if link.scheme == "file" else (root / link.path).resolve()
        files.append(folder / unquote(path))
    return files


def check_name(schema, path):
    """Entities of a name, which are defined, in the order of the schema, with valid values and folders."""
    order = [schema.objects.entities[name].name for name in schema.rules.entities]
    *pairs, suffix = path.name.split(".")[0].split("_")
    entities = dict(pair.split("-", 1) for pair in pairs)
    assert len(entities) == len(pairs)
    assert sorted(entities, key=order.index) == list(entities)
    assert all(re.fullmatch(schema.objects.formats.label.pattern, value) for value in entities.values())
    assert suffix not in {each.value for each in schema.objects.suffixes.values()}  # otherwise not ignored
    assert path.parent.name == "anat"
    folders = [f"{name}-{entities[name]}" for name in ("sub", "tpl", "ses") if name in entities]
    assert path.parts[-2 - len(folders) : -2] == tuple(folders)
    return entities


def check_sidecar(schema, about, entities):
    """Fields that the schema requires or recommends for a derivative image with these entities."""
    rules = schema.rules.sidecars.derivatives
    standard = schema.objects.enums["_StandardTemplateCoordSys"].enum
    chosen = [rules.common_derivatives.CommonDerivativeFields, rules.common_derivatives.ImageDerivatives]
    if not {entities.get("space"), entities.get("tpl")} & {*standard}:
        template = "tpl" in entities
        own = rules.common_derivatives.SpatialReferenceNonStandard
        chosen.append(rules.atlas.TemplateNonStandard if template else own)
    for rule in chosen:
        for field, level in rule.fields.items():
            if getattr(level, "level", level) in ("required", "recommended"):
                assert field in about, field
    assert isinstance(about["SkullStripped"], bool)
    assert about["Description"]
    assert about["Units"] in ("arbitrary", "1")
    uri = re.compile(schema.objects.formats.bids_uri.pattern)
    assert all(uri.fullmatch(source) for source in about.get("Sources", []))


def test_names_and_sidecars_follow_the_schema(schema, small_run, seeds_run):
    maps = [
        *(small_run.path / "attributions").rglob("*_attribution.nii.gz"),
        *(small_run.path / "group").rglob("*_statmap.nii.gz"),
        *(seeds_run.path / "attributions").rglob("*_attribution.nii.gz"),
        *(seeds_run.path / "group").rglob("*_statmap.nii.gz"),
    ]
    assert len(maps) == 24 * 3 + 3 * 2 * 3 + 1 + 4 + 1
    for path in maps:
        about = read_json(sidecar(path))
        check_sidecar(schema, about, check_name(schema, path))
        root = next(each for each in path.parents if (each / ".bidsignore").exists())
        if small_run.path in path.parents and about.get("Sources"):
            assert all(file.exists() for file in files_of(root, about["Sources"]))
    described = [path for path in maps if not read_json(sidecar(path)).get("Sources")]
    assert [path.name for path in described] == ["tpl-MNI152_cohort-all_desc-truth+mean_statmap.nii.gz"]


def test_the_dataset_names_its_participants_and_their_source(small_run):
    root = small_run.path / "attributions"
    about = read_json(root / "dataset_description.json")
    assert about["DatasetType"] == "derivative"
    assert about["GeneratedBy"][0]["Name"] == "xai_brain"
    assert about["SourceDatasets"] == [{"URL": about["DatasetLinks"]["cohort"]}]
    table = pd.read_csv(root / "participants.tsv", sep="\t")
    assert table["participant_id"].tolist() == sorted(path.name for path in root.glob("sub-*"))
    columns = read_json(root / "participants.json")
    assert set(table.columns) == set(columns) - {"Description"} == {"participant_id", "age", "sex", "label"}


def test_maps_of_any_network_are_a_dataset(schema, tmp_path):
    paths = []
    for number, name in enumerate(("sub-01_ses-a_T1w", "sub-02_T1w")):
        paths.append(tmp_path / "my images" / name[:6] / f"{name}.nii.gz")
        paths[-1].parent.mkdir(parents=True)
        fake_brain(COARSE_SHAPE, COARSE, seed=number).to_filename(paths[-1])
    xb.explain(ToyNet(), paths, ["Saliency"], target=1, folder=tmp_path / "run")
    root = tmp_path / "run" / "attributions"
    made = sorted(root.rglob("*_attribution.nii.gz"))
    assert [path.relative_to(root).as_posix() for path in made] == [
        "sub-01/ses-a/anat/sub-01_ses-a_space-T1w_desc-Saliency_attribution.nii.gz",
        "sub-02/anat/sub-02_space-T1w_desc-Saliency_attribution.nii.gz",
    ]
    for path, source in zip(made, paths, strict=True):
        about = read_json(sidecar(path))
        check_sidecar(schema, about, check_name(schema, path))
        assert files_of(root, about["Sources"]) == [source]
        assert about["SpatialReference"] == about["Sources"][0]
    images = [nib.load(path) for path in paths]
    xb.explain(ToyNet(), images, ["Saliency"], target=1, folder=tmp_path / "in_memory")
    about = read_json(next((tmp_path / "in_memory").rglob("*_attribution.json")))
    assert "Sources" not in about
    assert about["SpatialReference"] == "orig"


def test_imported_maps_name_their_files(copied, tmp_path):
    from xai_brain.tools.import_maps import import_maps

    source = copied.attribution("sub-0001", None, "GradCAM", 0)
    img = nib.load(source)
    given = tmp_path / "theirs" / "sub-0001_desc-Theirs_map.nii.gz"
    save_img(np.asanyarray(img.dataobj), img.affine, given)
    import_maps([f"maps={given.parent}", f"run_dir={copied.path}"])
    about = read_json(sidecar(copied.attribution("sub-0001", None, "Theirs", 0)))
    root = copied.path / "attributions"
    assert files_of(root, about["Sources"]) == [given]
    assert {"cohort", "Theirs"} == set(read_json(root / "dataset_description.json")["DatasetLinks"])


def test_the_licence_of_the_images_is_that_of_the_maps(seeds_run, tmp_path):
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    content = {"License": "CC0", "Authors": ["A", "B"], "DatasetDOI": "doi:10.1/x", "HowToAcknowledge": "-"}
    (cohort / "dataset_description.json").write_text(json.dumps(content))
    write_map_datasets(seeds_run, {"cohort": cohort})
    about = read_json(map_roots(seeds_run)["seed-0"] / "dataset_description.json")
    assert about["License"] == "CC0"
    assert about["Authors"] == ["A", "B"]
    assert about["SourceDatasets"] == [{"URL": cohort.as_uri(), "DOI": "doi:10.1/x"}]
    assert "HowToAcknowledge" not in about


def test_classes_whose_files_would_have_one_name_are_refused():
    values = pd.Series(["up to 60", "up-to-60"])
    with pytest.raises(DataError, match="classes 'up to 60' and 'up-to-60' have the same file names"):
        make_labels(values, LabelRule("age"), "participants.tsv")


def test_a_damaged_sidecar_is_no_group_map(seeds_run):
    (made,) = find_group_maps(seeds_run)
    assert find_group_maps(seeds_run, "Grad*", ["class-*"], "mean") == [made]
    assert find_group_maps(seeds_run, statistic="t") == []
    sidecar(made.path).write_text("{")
    assert find_group_maps(seeds_run) == []
