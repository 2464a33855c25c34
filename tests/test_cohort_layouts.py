"""HCP, IXI and OASIS as they are downloaded: images, tables, and errors in them."""

from __future__ import annotations

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from layout_trees import fake, make_hcp, make_ixi, make_oasis, names, rows, touch

from xai_brain.data.participants import load_participants
from xai_brain.io.problems import DataError, Problems

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
        # twice the same, once with the age missing; an image without a line; sex 0
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
    ("line", "message"),
    [
        ("3,1,171,36.5", "sub-IXI003: its 2 lines differ in sex"),
        ("3,2,171,63", "sub-IXI003: its 2 lines differ in age"),
    ],
)
def test_ixi_lines_that_contradict_each_other(tmp_path, line, message):
    make_ixi(tmp_path, fake)
    with open(tmp_path / "IXI.csv", "a") as file:
        file.write(f"{line}\n")
    with pytest.raises(DataError, match=message):
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
