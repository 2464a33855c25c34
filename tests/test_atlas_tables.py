"""Values of regions, and the tables of regions of a run."""

from __future__ import annotations

import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import SMALL

from xai_brain import compose
from xai_brain import run as run_all
from xai_brain.atlas.atlas import AtlasError
from xai_brain.cli import main
from xai_brain.config.saved import stage_settings
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import ImageError, get_grid
from xai_brain.reporting.html_report import write_report
from xai_brain.runs.directory import read_json, read_tsv, sidecar, write_json
from xai_brain.stages.evaluate import evaluate
from xai_brain.statistics.regions import region_values

SHAPE = (5, 6, 7)
LUT = pd.DataFrame({"index": [300, 7, 12], "name": ["three", "seven", "lost"]})  # not in ascending order


@pytest.fixture
def labels():
    labels = np.zeros(SHAPE, np.int64)
    labels[:, :3] = 7
    labels[:, 3:5] = 300
    labels[4] = 8  # a label that the table does not ask for
    return labels


def test_what_regions_hold_of_a_signed_map(labels):
    brain_mask = np.ones(SHAPE, bool)
    brain_mask[..., 0] = False
    values = np.zeros(SHAPE, np.float32)
    values[0, 0, 1:4] = [2, -6, 1]  # seven
    values[0, 3, 1] = -3  # three
    values[0, 5, 1] = 4  # brain without a region
    values[4, 0, 1] = 4  # label 8
    values[0, 0, 0] = 99  # outside of the brain
    rows = region_values(values, labels, LUT, brain_mask).set_index("index")
    assert rows["region"].to_dict() == {300: "three", 7: "seven", 12: "lost"}
    assert rows["n_voxels"].to_dict() == {300: 4 * 2 * 6, 7: 4 * 3 * 6, 12: 0}
    assert rows.loc[7, ["sum", "mean", "positive_share", "mass_share"]].tolist() == pytest.approx(
        [-3, -3 / 72, 3 / 11, 9 / 20]
    )
    assert rows.loc[300, ["sum", "mean", "positive_share", "mass_share"]].tolist() == pytest.approx(
        [-3, -3 / 48, 0, 3 / 20]
    )
    assert rows.loc[12, ["sum", "mean", "positive_share", "mass_share"]].isna().all()


def test_negative_map_has_sums_and_mass_but_no_positive_share(labels):
    rows = region_values(np.full(SHAPE, -2.0), labels, LUT, np.ones(SHAPE, bool)).set_index("index")
    assert rows.loc[7, "mean"] == -2
    assert rows.loc[7, "sum"] == -2 * 4 * 3 * 7
    assert rows.loc[7, "mass_share"] == pytest.approx(84 / 210)
    assert rows["positive_share"].isna().all()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_empty_map_gives_nothing_to_average(labels, value):
    values = np.zeros(SHAPE)
    values[1, 1, 1] = value
    rows = region_values(values, labels, LUT, np.ones(SHAPE, bool))
    assert rows[["sum", "mean", "positive_share", "mass_share"]].isna().all(axis=None)


def test_shapes_that_differ_are_refused(labels):
    with pytest.raises(ValueError, match=r"shapes differ: map \(5, 6, 7\), labels \(5, 6, 6\)"):
        region_values(np.ones(SHAPE), labels[..., 1:], LUT, np.ones(SHAPE, bool))


# -- in a run ----------------------------------------------------------------------------------------


INSIDE = ((-50, 50), (-60, 25), (-10, 45))  # mm, a box in the brain


def halves(path, grid_name):
    """An atlas of two regions: label 4 is the left half of a box, 300 the right one."""
    grid = get_grid(grid_name)
    mm = nib.affines.apply_affine(grid.affine, np.stack(np.indices(grid.shape), -1))
    box = np.all([(mm[..., a] > low) & (mm[..., a] < high) for a, (low, high) in enumerate(INSIDE)], axis=0)
    labels = np.where(box, np.where(mm[..., 0] < 0, 4, 300), 0).astype(np.uint16)
    nib.Nifti1Image(labels, grid.affine).to_filename(path)
    path.with_name(path.name.replace(".nii.gz", ".tsv")).write_text("index\tname\n4\tall_L\n300\tall_R\n")


def copied(run, folder):
    shutil.copytree(run.path, folder)
    return type(run)(folder)


@pytest.fixture(scope="module")
def atlas_run(small_run, tmp_path_factory):
    """The small run with an atlas; by their sidecars its maps explain one output for everybody."""
    folder = tmp_path_factory.mktemp("atlas_run")
    path = folder / "tpl-MNI152_atlas-Halves_dseg.nii.gz"
    halves(path, "t1w_2mm")
    run = copied(small_run, folder / "run")
    for file in (run.path / "attributions").rglob("*_attribution.json"):
        said = {"TargetRule": "male", "TargetName": "male", "Output": "logit_difference"}
        write_json({**read_json(file), **said}, file)
    evaluate(
        stage_settings(
            "evaluate", [f"run_dir={run.path}", f"evaluation.atlas={path}", "evaluation.n_perm=100"]
        )
    )
    write_report(run)
    return run


def test_tables_of_a_run_hold_what_its_maps_do(atlas_run):
    table = read_tsv(atlas_run.evaluation("regions"))
    assert list(table)[:6] == ["participant_id", "session_id", "seed", "fold", "class", "method"]
    assert len(table) == 24 * 3 * 2
    participant = table["participant_id"].iloc[0]
    brain = np.mean(
        [np.asanyarray(nib.load(p).dataobj) > 0 for p in (atlas_run.path / "images").glob("*_T1w.nii.gz")],
        axis=0,
    )
    img = nib.load(atlas_run.attribution(participant, "", "GuidedBackprop", 0))
    mm = nib.affines.apply_affine(img.affine, np.stack(np.indices(img.shape), -1))
    (x, _), (y_low, y_high), (z_low, z_high) = INSIDE
    left = (brain > 0.5) & (mm[..., 0] > x) & (mm[..., 0] < 0)
    left &= (mm[..., 1] > y_low) & (mm[..., 1] < y_high) & (mm[..., 2] > z_low) & (mm[..., 2] < z_high)
    row = table.query("participant_id == @participant and method == 'GuidedBackprop' and region == 'all_L'")
    assert row["n_voxels"].item() == pytest.approx(left.sum(), rel=0.15)  # borders of other voxels
    assert row["mass_share"].item() == pytest.approx(
        np.abs(img.get_fdata()[left]).sum() / np.abs(img.get_fdata()[brain > 0.5]).sum(), rel=0.15
    )


def test_group_table_says_what_is_explained(atlas_run):
    groups = read_tsv(atlas_run.evaluation("region_groups"))
    assert groups["common_output"].all()
    assert set(groups["explained"]) == {"logit_difference of male"}
    assert set(groups["measure"]) == {"mean", "mass_share"}
    assert (groups["n_a"] == 12).all()
    row = groups.query("method == 'GradCAM' and measure == 'mean' and region == 'all_R'").iloc[0]
    a, b = row["class_a"], row["class_b"]
    path = atlas_run.group_map("GradCAM", f"{b}-minus-{a}", "regionmean")
    assert path.name == "tpl-MNI152_desc-GradCAM+male+minus+female+regionmean_statmap.nii.gz"
    assert (a, b) == ("female", "male")
    assert read_json(sidecar(path))["Difference"] == "male minus female"
    assert row["confounds"].split(", ")[0] == "age"
    img = nib.load(path)
    at = np.linalg.inv(img.affine) @ [40, -20, 10, 1]
    assert img.get_fdata()[tuple(at[:3].round().astype(int))] == pytest.approx(row["difference"], rel=1e-5)
    assert read_json(sidecar(path))["Atlas"] == "Halves"
    top = read_tsv(atlas_run.evaluation("region_top"))
    assert sorted(top.query("method == 'GradCAM' and `class` == 'male'")["rank"]) == [1, 2]


def test_report_shows_the_regions(atlas_run):
    html = atlas_run.report.read_text()
    assert '<section id="regions">' in html
    assert "all_R" in html
    assert "that the brains differ there" in html
    assert (atlas_run.path / "figures" / "regions_top.png").exists()
    assert (atlas_run.path / "figures" / "regions_male-minus-female.png").exists()
    section = html.split('<section id="regions">')[1].split("</section>")[0]
    assert "Not compared" not in section


@pytest.mark.slow
def test_new_names_are_read_again_and_no_atlas_leaves_no_tables(atlas_run, capsys, tmp_path):

    run = copied(atlas_run, tmp_path / "run")
    table = tmp_path / "names.csv"
    table.write_text("id;name\n4;links\n300;rechts\n")
    given = [f"run_dir={run.path}", f"evaluation.atlas_table={table}"]
    evaluate(stage_settings("evaluate", given))
    assert set(read_tsv(run.evaluation("region_top"))["region"]) == {"links", "rechts"}
    evaluate(stage_settings("evaluate", given))
    assert "nothing to do" in capsys.readouterr().out
    evaluate(stage_settings("evaluate", [*given[:1], "evaluation.atlas=null", "evaluation.atlas_table=null"]))
    assert not run.evaluation("regions").exists()
    assert not list((run.path / "group").rglob("*regionmean*"))


@pytest.mark.slow
def test_maps_of_the_predicted_class_are_marked_and_told(small_run, tmp_path, capsys):
    run = copied(small_run, tmp_path / "run")
    path = tmp_path / "halves_dseg.nii.gz"
    halves(path, "t1w_4mm")
    evaluate(
        stage_settings(
            "evaluate", [f"run_dir={run.path}", f"evaluation.atlas={path}", "evaluation.n_perm=20"]
        )
    )
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "common_output" in line)
    assert line.startswith("evaluate: GradCAM, GuidedBackprop, MeaningfulPerturbation: region_groups.tsv")
    assert "maps explain different classes (female and male)" in line
    assert "explain.target=<one class> explain.output=logit_difference" in line
    groups = read_tsv(run.evaluation("region_groups"))
    assert not groups["common_output"].any()
    assert "Not compared" in write_report(run).read_text()


def test_atlas_that_lies_elsewhere_is_refused(small_run, tmp_path):

    run = copied(small_run, tmp_path / "run")
    img = nib.Nifti1Image(np.full((20, 21, 22), 3, np.uint8), np.diag([2.0, 2, 2, 1]) + np.eye(4, k=3) * 60)
    img.to_filename(tmp_path / "a.nii.gz")
    (tmp_path / "a.tsv").write_text("index\tname\n3\tcorner\n")
    with pytest.raises(
        AtlasError, match=r"a\.nii\.gz: \d+% of atlas a on the grid of the maps lies in the brain"
    ):
        evaluate(
            stage_settings("evaluate", [f"run_dir={run.path}", f"evaluation.atlas={tmp_path / 'a.nii.gz'}"])
        )


def test_run_refuses_a_bad_atlas_before_it_trains(tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.nii\.gz: the file does not exist"):
        run_all(
            compose("run", [*SMALL, f"evaluation.atlas={tmp_path}/nowhere.nii.gz", f"run_dir={tmp_path}/run"])
        )
    assert not (tmp_path / "run").exists()


def test_table_without_atlas_is_refused():

    with pytest.raises(ConfigError, match=r"no value for evaluation\.atlas"):
        compose("run", ["experiment=demo", "evaluation.atlas_table=names.tsv"])


def test_tables_need_no_torch():
    code = "import sys, xai_brain.statistics.regions; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert said.strip() == "False"


def test_an_atlas_that_is_refused_leaves_the_run_as_it_was(copied, tmp_path):
    """Neither the settings nor the results of an earlier evaluation are lost."""
    grid = get_grid("t1w_4mm")
    labels = np.zeros(grid.shape, np.int16)
    left = nib.affines.apply_affine(grid.affine, np.moveaxis(np.indices(grid.shape), 0, -1))[..., 0] < -20
    labels[left] = 1
    path = tmp_path / "wrong_dseg.nii.gz"
    nib.Nifti1Image(labels, grid.affine).to_filename(path)
    (tmp_path / "wrong_dseg.tsv").write_text("index\tname\n1\tRight thalamus\n")
    before = {file: file.read_bytes() for file in copied.path.rglob("*.tsv")}
    settings = copied.config.read_text()
    assert main(["evaluate", str(copied.path), f"evaluation.atlas={path}"]) == 1
    assert copied.config.read_text() == settings
    assert {file: file.read_bytes() for file in copied.path.rglob("*.tsv")} == before
