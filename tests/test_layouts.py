"""Every layout in which users have their images: a small tree, and the exact table that comes of it."""

from __future__ import annotations

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import COARSE, COARSE_SHAPE, fake_brain

from xai_brain.data.participants import load_participants
from xai_brain.io.problems import DataError, Problems

COLUMNS = ["participant_id", "session_id", "label", "target", "age", "sex"]


def brain(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    fake_brain(COARSE_SHAPE, COARSE, seed=seed).to_filename(path)
    return path


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def rows(table, *more):
    """What is asked of a table, as plain tuples; NaN as None."""
    chosen = table[[*COLUMNS, *more]].astype(object)
    return [tuple(row) for row in chosen.where(chosen.notna(), None).itertuples(index=False)]


def names(table, root, column="t1w_path"):
    return [path if path is None else path.relative_to(root).as_posix() for path in table[column]]


# one maker per layout: eight people, four of each sex; returns the settings of data


def make_bids(root, image=brain):
    for i in range(8):
        image(root / f"sub-{i:02d}" / "anat" / f"sub-{i:02d}_space-MNI152_T1w.nii.gz", seed=i)
    lines = [f"sub-{i:02d}\t{'MF'[i % 2]}\t{30 + i}" for i in range(8)]
    (root / "participants.tsv").write_text("\n".join(["participant_id\tsex\tage", *lines]) + "\n")
    return {}


def make_bids_sessions(root, image=brain):
    """A derivative: two sessions each, several images in a folder, the table elsewhere."""
    for i in range(8):
        for ses in ("ses-1", "ses-2"):
            stem = root / f"sub-{i:02d}" / ses / "anat" / f"sub-{i:02d}_{ses}_run-1"
            image(stem.with_name(f"{stem.name}_space-MNI152_res-2_desc-brain_T1w.nii.gz"), seed=i)
            touch(stem.with_name(f"{stem.name}_desc-brain_T1w.nii.gz"))
    (root / "code").mkdir()
    lines = [f"{i:02d}\t{('female', 'male')[i % 2]}\t{30 + i}" for i in range(8)]
    (root / "code" / "people.tsv").write_text("\n".join(["participant_id\tgender\tage", *lines]) + "\n")
    return {"tables": ["code/people.tsv"], "entities": {"space": "MNI152"}}


def make_hcp(root, image=brain, form="MNINonLinear/T1w_restore_brain.nii.gz"):
    lines = []
    for i in range(8):
        number = 100307 + i
        image(root / (form.format(number) if "{}" in form else f"{number}/{form}"), seed=i)
        lines.append(f"{number},{'FM'[i % 2]},{('22-25', '26-30', '31-35', '36+')[i % 4]}")
    lines.append("999999,F,26-30")  # the tables list the whole study
    (root / "unrestricted_me.csv").write_text("\n".join(["Subject,Gender,Age", *lines]) + "\n")
    return {}


def make_ixi(root, image=brain):
    lines = []
    for i in range(8):
        site = ("Guys", "HH", "IOP")[i % 3]
        image(root / "T1" / f"IXI{i + 2:03d}-{site}-0{800 + i}-T1.nii.gz", seed=i)
        lines.append(f"{i + 2},{1 + i % 2},{170 + i},{35.5 + i}")
    header = 'IXI_ID,"SEX_ID (1=m, 2=f)",HEIGHT,AGE'
    (root / "IXI.csv").write_text("\n".join([header, *lines]) + "\n")
    return {}


def make_oasis(root, image=brain):
    ids = [f"OAS1_{i:04d}_MR1" for i in (1, 2, 3, 4, 5, 6, 7, 9)]  # nilearn leaves 8 out
    for i, name in enumerate(ids):
        for tissue in ("mwrc1", "mwrc2"):
            path = root / "oasis1" / name / f"{tissue}{name}_mpr_anon_fslswapdim_bet.nii.gz"
            (image if tissue == "mwrc1" else touch)(path, **({"seed": i} if tissue == "mwrc1" else {}))
    header = "ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF,Delay"
    cdr = ("", "0", "0.5", "1")
    lines = [
        f"{name},{'FM'[i % 2]},R,{60 + i},2,3,29,{cdr[i % 4]},1344,0.743,1.3,N/A"
        for i, name in enumerate(ids)
    ]
    (root / "oasis1" / "oasis_cross-sectional.csv").write_text("\n".join([header, *lines]) + "\n")
    touch(root / "oasis1" / "data_usage_agreement.txt")
    return {"n_subjects": 8}


def make_caps(root, image=brain):
    lines = []
    for i in range(8):
        for ses in ("ses-M000", "ses-M012"):
            stem = f"sub-ADNI{i}_{ses}_T1w_space-MNI152NLin2009cSym"
            folder = root / "subjects" / f"sub-ADNI{i}" / ses / "t1_linear"
            image(folder / f"{stem}_desc-Crop_res-1x1x1_T1w.nii.gz", seed=i)
            touch(folder / f"{stem}_res-1x1x1_T1w.nii.gz")
        lines.append(f"sub-ADNI{i}\tses-M000\t{('AD', 'CN')[i % 2]}\t{'FM'[i // 2 % 2]}\t{70 + i}")
    (root / "labels.tsv").write_text("\n".join(["participant_id\tsession_id\tdiagnosis\tsex\tage", *lines]))
    return {"tables": ["labels.tsv"], "entities": {"desc": "Crop"}, "label": "diagnosis"}


def make_table(root, image=brain):
    lines = []
    for i in range(8):
        image(root / f"scan {i}" / "Käse.nii.gz", seed=i)
        lines.append(f"P{i},scan {i}/Käse.nii.gz,{' M' if i % 2 else 'f '},{20 + i},MNI152")
    (root / "cohort.csv").write_text("\n".join(["participant_id,t1w_path,Sex,Age,space", *lines]))
    return {"tables": ["cohort.csv"]}


LAYOUTS = {
    "bids": ("bids", make_bids),
    "derivative": ("bids", make_bids_sessions),
    "hcp": ("hcp", make_hcp),
    "ixi": ("ixi", make_ixi),
    "oasis": ("oasis", make_oasis),
    "caps": ("caps", make_caps),
    "table": ("table", make_table),
}


def fake(path, seed=0):
    return touch(path)


def test_bids_derivative_with_sessions(tmp_path):
    settings = make_bids_sessions(tmp_path, fake)
    table = load_participants("bids", tmp_path, **settings)
    assert rows(table)[:3] == [
        ("sub-00", "ses-1", "female", 0, 30, "female"),
        ("sub-00", "ses-2", "female", 0, 30, "female"),
        ("sub-01", "ses-1", "male", 1, 31, "male"),
    ]
    assert len(table) == 16
    assert names(table, tmp_path)[1] == (
        "sub-00/ses-2/anat/sub-00_ses-2_run-1_space-MNI152_res-2_desc-brain_T1w.nii.gz"
    )
    assert set(table["space"]) == {"MNI152"}
    native = load_participants("bids", tmp_path, **{**settings, "entities": {"space": None}})
    assert set(native["space"]) == {""}


def test_a_session_that_leads_out_of_the_tree_is_never_made_a_path(tmp_path):
    make_table(tmp_path, fake)
    lines = (tmp_path / "cohort.csv").read_text().splitlines()
    sessions = ["session_id", "x/../../../../evil", *["b"] * (len(lines) - 2)]
    lines = [f"{line},{session}" for line, session in zip(lines, sessions, strict=True)]
    (tmp_path / "cohort.csv").write_text("\n".join(lines))
    with pytest.raises(
        DataError, match="P0: a session_id can contain letters, digits and hyphens only; rename it"
    ):
        load_participants("table", tmp_path, tables=["cohort.csv"], label="Sex")


def test_bids_values_of_a_session_go_before_those_of_the_person(tmp_path):
    make_bids_sessions(tmp_path, fake)
    for i in range(8):
        (tmp_path / f"sub-{i:02d}" / f"sub-{i:02d}_sessions.tsv").write_text(
            f"session_id\tage\tdiagnosis\nses-1\t{50 + i}\tCN\nses-2\tn/a\tMCI\n"
        )
    table = load_participants(
        "bids", tmp_path, label="diagnosis", tables=["code/people.tsv"], entities={"space": "MNI152"}
    )
    assert rows(table)[:2] == [
        ("sub-00", "ses-1", "CN", 0, 50, "female"),
        ("sub-00", "ses-2", "MCI", 1, 30, "female"),
    ]


def test_bids_runs_and_masks(tmp_path):
    make_bids(tmp_path, fake)
    anat = tmp_path / "sub-03" / "anat"
    shutil.rmtree(anat)
    for run in ("01", "02"):
        touch(anat / f"sub-03_run-{run}_space-MNI152_T1w.nii.gz")
        touch(anat / f"sub-03_run-{run}_space-MNI152_desc-brain_mask.nii.gz")
        touch(anat / f"sub-03_run-{run}_desc-brain_mask.nii.gz")
    with pytest.raises(DataError, match=r"sub-03: 2 T1w images .*data\.entities"):
        load_participants("bids", tmp_path)
    table = load_participants("bids", tmp_path, entities={"run": "1"}).set_index("participant_id")
    assert len(table) == 8
    assert table.loc["sub-03", "t1w_path"].name == "sub-03_run-01_space-MNI152_T1w.nii.gz"
    assert table.loc["sub-03", "brain_mask_path"].name == "sub-03_run-01_space-MNI152_desc-brain_mask.nii.gz"
    assert table.loc["sub-00", "brain_mask_path"] is None
    problems = Problems("skip")
    with pytest.raises(DataError, match="two classes"):
        load_participants("bids", tmp_path, entities={"run": "2"}, problems=problems)
    assert len(problems.rows) == 7


def test_bids_further_tables_add_columns(tmp_path):
    make_bids(tmp_path, fake)
    touch(tmp_path / "phenotype" / "memory.tsv").write_text(
        "participant_id\tscore\tage\n" + "".join(f"sub-{i:02d}\t{i}\t99\n" for i in range(8))
    )
    tables = ["participants.tsv", "phenotype/memory.tsv"]
    table = load_participants("bids", tmp_path, label="score", threshold=3, tables=tables)
    assert table["label"].tolist() == ["score-up-to-3"] * 4 + ["score-above-3"] * 4
    assert table["age"].tolist() == list(range(30, 38))  # the first table is right


HCP_FORMS = {
    "MNINonLinear/T1w_restore_brain.nii.gz": "MNI152NLin6Asym",
    "T1w/T1w_acpc_dc_restore_brain.nii.gz": "",
    "{}.nii": "",
}


@pytest.mark.parametrize("form", HCP_FORMS)
def test_hcp_in_three_forms(tmp_path, form):
    make_hcp(tmp_path, fake, form)
    table = load_participants("hcp", tmp_path)
    assert rows(table)[:4] == [
        ("sub-100307", "", "female", 0, 23.5, "female"),
        ("sub-100308", "", "male", 1, 28, "male"),
        ("sub-100309", "", "female", 0, 33, "female"),
        ("sub-100310", "", "male", 1, 36, "male"),
    ]
    assert len(table) == 8  # 999999 has no image, which is no problem
    expected = form.format(100307) if "{}" in form else f"100307/{form}"
    assert names(table, tmp_path)[0] == expected
    assert set(table["space"]) == {HCP_FORMS[form]}
    assert "family_id" not in table


def test_hcp_restricted_table_gives_years_and_families_and_nothing_else(tmp_path):
    make_hcp(tmp_path, fake)
    lines = [f"{100307 + i},{22 + i},{51000 + i // 2}_82000,secret" for i in range(8)]
    (tmp_path / "RESTRICTED_me.csv").write_text("\n".join(["Subject,Age_in_Yrs,Family_ID,Drugs", *lines]))
    table = load_participants("hcp", tmp_path)
    assert rows(table, "family_id")[:2] == [
        ("sub-100307", "", "female", 0, 22, "female", "51000_82000"),
        ("sub-100308", "", "male", 1, 23, "male", "51000_82000"),
    ]
    assert "Drugs" not in table
    young = load_participants("hcp", tmp_path, label="age", threshold=25)
    assert young["label"].tolist() == ["age-up-to-25"] * 4 + ["age-above-25"] * 4


def test_hcp_one_form_for_all(tmp_path):
    make_hcp(tmp_path, fake)
    (tmp_path / "100310" / "MNINonLinear" / "T1w_restore_brain.nii.gz").unlink()
    touch(tmp_path / "100310" / "T1w" / "T1w_acpc_dc_restore_brain.nii.gz")
    problems = Problems("skip")
    assert len(load_participants("hcp", tmp_path, problems=problems)) == 7
    assert problems.rows[0]["participant_id"] == "sub-100310"
    acpc = "T1w/T1w_acpc_dc_restore_brain.nii.gz"
    problems = Problems("skip")
    with pytest.raises(DataError, match="male"):
        load_participants("hcp", tmp_path, image=acpc, problems=problems)
    assert len(problems.rows) == 7


def test_ixi_as_downloaded(tmp_path):
    make_ixi(tmp_path, fake)
    with open(tmp_path / "IXI.csv", "a") as file:
        # twice the same, once with the age missing; nobody's image; sex 0
        file.write("3,2,171,36.5\n4,1,0,0\n600,1,180,50\n")
    touch(tmp_path / "T1" / "IXI003-HH-0801-T1_brain_mask.nii.gz")
    table = load_participants("ixi", tmp_path)
    assert rows(table, "site")[:3] == [
        ("sub-IXI002", "", "male", 1, 35.5, "male", "Guys"),
        ("sub-IXI003", "", "female", 0, 36.5, "female", "HH"),
        ("sub-IXI004", "", "male", 1, 37.5, "male", "IOP"),
    ]
    assert len(table) == 8
    assert names(table, tmp_path)[0] == "T1/IXI002-Guys-0800-T1.nii.gz"
    assert names(table, tmp_path, "brain_mask_path")[:2] == [None, "T1/IXI003-HH-0801-T1_brain_mask.nii.gz"]
    assert table["HEIGHT"].tolist()[:2] == ["170", "171"]
    by_site = load_participants("ixi", tmp_path, label="site")
    assert by_site["label"].tolist()[:3] == ["Guys", "HH", "IOP"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("3,1,171,36.5", "sub-IXI003: its 2 lines differ in sex"),
        ("3,2,171,63", "sub-IXI003: its 2 lines differ in age"),
    ],
)
def test_ixi_lines_that_contradict_each_other(tmp_path, line, told):
    make_ixi(tmp_path, fake)
    with open(tmp_path / "IXI.csv", "a") as file:
        file.write(f"{line}\n")
    with pytest.raises(DataError, match=told):
        load_participants("ixi", tmp_path)
    problems = Problems("skip")
    assert len(load_participants("ixi", tmp_path, problems=problems)) == 7
    assert [row["participant_id"] for row in problems.rows] == ["sub-IXI003"]


def test_ixi_sex_0_is_missing(tmp_path):
    make_ixi(tmp_path, fake)
    path = tmp_path / "IXI.csv"
    path.write_text(path.read_text().replace("\n5,2,", "\n5,0,"))
    with pytest.raises(DataError, match="sub-IXI005: no value of sex"):
        load_participants("ixi", tmp_path)


def test_ixi_xls_names_the_library_that_is_missing(tmp_path):
    make_ixi(tmp_path, fake)
    (tmp_path / "IXI.csv").rename(tmp_path / "IXI.xls")
    with pytest.raises(
        DataError, match=r"IXI\.xls: (reading it needs xlrd: pip install xlrd|cannot be read)"
    ):
        load_participants("ixi", tmp_path)


def test_oasis_from_a_folder_that_is_filled(tmp_path):
    settings = make_oasis(tmp_path, fake)
    table = load_participants("oasis", tmp_path, **settings)
    assert rows(table, "cdr")[:3] == [
        ("sub-OASIS10001", "", "female", 0, 60, "female", None),
        ("sub-OASIS10002", "", "male", 1, 61, "male", "0"),
        ("sub-OASIS10003", "", "female", 0, 62, "female", "0.5"),
    ]
    assert table["participant_id"].tolist()[-1] == "sub-OASIS10009"
    assert (
        names(table, tmp_path)[0] == "oasis1/OAS1_0001_MR1/mwrc1OAS1_0001_MR1_mpr_anon_fslswapdim_bet.nii.gz"
    )
    assert set(table["space"]) == {"MNI152"}
    problems = Problems("skip")
    demented = load_participants("oasis", tmp_path, label="cdr", threshold=0, problems=problems, **settings)
    assert demented["label"].tolist() == ["cdr-up-to-0", "cdr-above-0", "cdr-above-0"] * 2
    assert {row["reason"].split(";")[0] for row in problems.rows} == {"no value of cdr"}


def test_oasis_from_a_mirror(tmp_path):
    make_oasis(tmp_path / "made", fake)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    content = tmp_path / "made" / "oasis1"
    for name in ("oasis_cross-sectional.csv", "data_usage_agreement.txt"):
        shutil.move(content / name, mirror / name)
    shutil.move(shutil.make_archive(str(mirror / "archive"), "gztar", content), mirror / "archive_dartel.tgz")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(mirror)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        table = load_participants("oasis", tmp_path / "new", n_subjects=8, url=url)
        assert len(table) == 8
        assert all(path.is_file() for path in table["t1w_path"])
        with pytest.raises(
            DataError, match=r"oasis1: the maps do not exist and cannot be downloaded .*data\.url"
        ):
            load_participants("oasis", tmp_path / "other", n_subjects=8, url=f"{url}/nowhere")
    finally:
        server.shutdown()
        server.server_close()


def test_caps_takes_the_sessions_of_the_table(tmp_path):
    settings = make_caps(tmp_path, fake)
    table = load_participants("caps", tmp_path, **settings)
    assert rows(table)[:3] == [
        ("sub-ADNI0", "ses-M000", "AD", 0, 70, "female"),
        ("sub-ADNI1", "ses-M000", "CN", 1, 71, "female"),
        ("sub-ADNI2", "ses-M000", "AD", 0, 72, "male"),
    ]
    assert len(table) == 8
    assert names(table, tmp_path)[0] == (
        "subjects/sub-ADNI0/ses-M000/t1_linear/"
        "sub-ADNI0_ses-M000_T1w_space-MNI152NLin2009cSym_desc-Crop_res-1x1x1_T1w.nii.gz"
    )
    assert set(table["space"]) == {"MNI152NLin2009cSym"}
    with pytest.raises(DataError, match=r"2 T1w images .*data\.entities"):
        load_participants("caps", tmp_path, **{**settings, "entities": {}})
    whole = load_participants("caps", tmp_path, **{**settings, "entities": {"desc": None}})
    assert "Crop" not in whole["t1w_path"][0].name
    with open(tmp_path / "labels.tsv", "a") as file:
        file.write("\nsub-ADNI0\tses-M024\tAD\tF\t71\n")
    with pytest.raises(DataError, match="sub-ADNI0: has a line of ses-M024 but no T1w image"):
        load_participants("caps", tmp_path, **settings)


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_a_table_in_each_format(tmp_path, ending):
    make_table(tmp_path, fake)
    content = pd.read_csv(tmp_path / "cohort.csv", dtype=str)
    if ending == "parquet":
        content.to_parquet(tmp_path / "people.parquet")
    else:
        content.to_csv(tmp_path / f"people.{ending}", sep="," if ending == "csv" else "\t", index=False)
    table = load_participants("table", tmp_path, tables=[f"people.{ending}"])
    assert rows(table, "space")[:2] == [
        ("sub-P0", "", "female", 0, 20, "female", "MNI152"),
        ("sub-P1", "", "male", 1, 21, "male", "MNI152"),
    ]
    assert names(table, tmp_path)[7] == "scan 7/Käse.nii.gz"


def test_a_table_may_hold_masks_sessions_and_absolute_paths(tmp_path):
    lines = ["participant_id;session_id;t1w_path;brain_mask_path;diagnosis;age"]
    for i in range(4):
        image, mask = touch(tmp_path / f"i{i}.nii"), touch(tmp_path / f"m{i}.nii")
        lines += [f"P{i // 2};{i % 2 + 1};{image};{mask};{'AC'[i % 2]}{'DN'[i % 2]};6{i},5"]
    (tmp_path / "participants.tsv").write_text("\n".join(lines))
    table = load_participants("table", tmp_path, label="diagnosis")
    chosen = table[["participant_id", "session_id", "label", "target", "age"]]
    assert [tuple(row) for row in chosen.itertuples(index=False)] == [
        ("sub-P0", "ses-1", "AD", 0, 60.5),
        ("sub-P0", "ses-2", "CN", 1, 61.5),
        ("sub-P1", "ses-1", "AD", 0, 62.5),
        ("sub-P1", "ses-2", "CN", 1, 63.5),
    ]
    assert names(table, tmp_path, "brain_mask_path") == ["m0.nii", "m1.nii", "m2.nii", "m3.nii"]


def test_a_parquet_table_without_its_library_says_what_to_install(tmp_path):
    make_table(tmp_path, fake)
    (tmp_path / "people.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"people\.parquet: (reading it needs pyarrow: pip|cannot be read)"):
        load_participants("table", tmp_path, tables=["people.parquet"])


def test_settings_of_another_layout_are_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"data\.image: is no setting of data=bids, which takes entities, tables"
    ):
        load_participants("bids", tmp_path, image="x")


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_whole_tree_is_found(tmp_path, name):
    layout, make = LAYOUTS[name]
    settings = make(tmp_path, fake)
    table = load_participants(layout, tmp_path, **settings)
    assert table["participant_id"].nunique() == 8
    assert sorted(table["target"].unique()) == [0, 1]
    assert list(table["label"].unique()) in (["female", "male"], ["male", "female"], ["AD", "CN"])
    assert all(path.is_file() for path in table["t1w_path"])
    assert table["age"].dtype == float


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "bids"])
def test_every_layout_reaches_a_trained_model(tmp_path, name):
    from xai_brain import BrainClassifier, compose
    from xai_brain.runs.directory import read_tsv
    from xai_brain.stages.train import train

    layout, make = LAYOUTS[name]
    root = tmp_path / "cohort"
    root.mkdir()
    settings = make(root)
    overrides = [
        f"data={layout}",
        f"data.root={root}",
        f"run_dir={tmp_path / 'run'}",
        "preprocessing=t1w_4mm",
    ]
    overrides += ["folds.n_folds=2", "folds.validation_fraction=0.5", "trainer.max_epochs=1"]
    overrides += ["trainer.batch_size=2", "model.channels=[2,3,4]", "evaluation.n_bootstrap=20"]
    for key, value in settings.items():
        told = f"{{{','.join(f'{k}: {v}' for k, v in value.items())}}}" if isinstance(value, dict) else value
        overrides.append(f"data.{key}={told}")
    overrides += ["preprocessing.scaling=none", "preprocessing.brain=template"] if layout == "oasis" else []
    run = train(compose("train", overrides))
    predictions = read_tsv(run.predictions)
    assert predictions["participant_id"].nunique() == 8
    assert BrainClassifier.load_from_checkpoint(run.checkpoint(0, 0), weights_only=True).output_names
    paths = read_tsv(run.participants)["t1w_path"]
    assert all((root / path).is_file() for path in paths)  # relative to the cohort


def test_the_made_images_are_what_the_layouts_hold(tmp_path):
    img = nib.load(brain(tmp_path / "x.nii.gz"))
    assert img.shape == COARSE_SHAPE
    np.testing.assert_allclose(img.affine, COARSE)
