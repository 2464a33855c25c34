"""Anonymised reports contain no identifier, path, user or host; pseudonyms do not reveal the order."""

from __future__ import annotations

import base64
import getpass
import re
import shutil
import socket
from io import BytesIO
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from xai_brain import open_study
from xai_brain.config.saved import stage_settings, with_hash
from xai_brain.reporting import gallery
from xai_brain.reporting.anonymity import Anonymity, draw_pseudonyms, path_settings
from xai_brain.reporting.contents import ReportContents
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, write_tsv
from xai_brain.stages.report import report

PLACE = "/srv/clinic data/ward 7"


def embedded(html):
    """Content of the embedded pictures: text of SVG, and all bytes and texts of PNG and WebP."""
    found = []
    for kind, data in re.findall(r"data:image/([^;]+);base64,([^\"]+)", html):
        content = base64.b64decode(data)
        found.append(content.decode("latin-1"))
        if kind != "svg+xml":
            found.append(str(Image.open(BytesIO(content)).info))
    return found


@pytest.fixture(scope="module")
def anonymised(small_run, tmp_path_factory):
    """A run with identifiers and paths in all files that a report reads, and its page."""
    copied = RunDirectory(tmp_path_factory.mktemp("anonymised") / "run")
    shutil.copytree(small_run.path, copied.path)
    config = yaml.safe_load(copied.config.read_text())
    config["data"] |= {
        "root": PLACE,
        "cache_dir": f"/home/{getpass.getuser()}/cache",
        "brain_size_column": None,
    }
    config["folds"]["path"] = "folds of sub-0003.tsv"
    copied.config.write_text(with_hash(yaml.safe_dump(config, sort_keys=False)))
    rows = [
        ("sub-7001", f"{PLACE}/sub-7001/anat/sub-7001_T1w.nii.gz: is truncated"),
        ("sub-0004", f"{socket.gethostname()}: sub-0004_T1w.nii.gz differs from sub-0005"),
    ]
    write_tsv(pd.DataFrame(rows, columns=["participant_id", "reason"]), copied.quarantine)
    done = report(stage_settings("report", [f"run_dir={copied.path}", "report.anonymise=true"]))
    return done, done.report.read_text()


def test_no_identifier_and_no_path_anywhere(anonymised):
    done, html = anonymised
    ids = [*read_tsv(done.participants)["participant_id"], "sub-7001"]
    assert len(ids) == 25
    hashes = read_json(done.provenance)["inputs_sha256"].values()
    page = re.sub(r"data:image/[^\"]+", "", html)
    for text in (page, *embedded(html)):
        for secret in (*ids, *hashes, PLACE, "ward 7", str(done.path), str(Path.home()) + "/", "_T1w.nii"):
            assert secret not in text
    for name in (getpass.getuser(), socket.gethostname()):
        assert name == "root" or not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", page)
    assert "data-file=" not in page
    assert "is truncated" in page
    assert "report.anonymise=true" in page
    assert len(embedded(html)) > 24


def test_one_pseudonym_per_participant_in_all_sections(anonymised):
    done, html = anonymised
    names = read_tsv(done.pseudonyms).set_index("participant_id")["pseudonym"]
    assert sorted(names) == [f"sub-{i:03d}" for i in range(1, 26)]
    for subject in ReportContents(done).shown_subjects():
        assert subject.name == names[subject.participant_id]
        assert f"<h3>{subject.name}: {subject.label}, predicted" in html
        assert (done.path / "figures" / f"subject_{subject.name}.png").exists()
    shown = re.findall(r"<img [^>]*alt=\"Slices of (sub-\d+)", html)
    assert sorted(shown) == sorted(names[list(read_tsv(done.participants)["participant_id"])])
    excluded = re.findall(r"<tr><th>(sub-\d+)</th>", html.split("Excluded inputs")[1])
    assert excluded == sorted([names["sub-7001"], names["sub-0004"]])


def test_rows_of_figures_are_in_the_order_of_the_pseudonyms(anonymised):
    contents = ReportContents(anonymised[0])
    for table in (contents.participants, contents.predictions):
        shown = [contents.shown_name(name) for name in table["participant_id"]]
        assert shown == sorted(shown)
        assert list(table["participant_id"]) != sorted(table["participant_id"])


def test_a_second_report_has_the_same_pseudonyms_and_bytes(anonymised):
    done, html = anonymised
    before = done.pseudonyms.read_bytes()
    done.report.unlink()
    report(stage_settings("report", [f"run_dir={done.path}"]))
    times = r"<p>Computing time: .*?</p>"
    assert re.sub(times, "", done.report.read_text()) == re.sub(times, "", html)
    assert done.pseudonyms.read_bytes() == before


def test_pseudonyms_are_random_and_kept(tmp_path):
    ids = [f"sub-IXI{i:03d}" for i in range(200)]
    orders = []
    for name in ("a", "b"):
        drawn = draw_pseudonyms(RunDirectory(tmp_path / name), ids)
        assert sorted(drawn.values()) == [f"sub-{i:03d}" for i in range(1, 201)]
        numbers = pd.Series([int(drawn[each][4:]) for each in ids])
        assert abs(numbers.corr(pd.Series(range(200)))) < 0.35  # p < 1e-6 for random orders
        orders.append(drawn)
    assert orders[0] != orders[1]
    later = draw_pseudonyms(RunDirectory(tmp_path / "a"), [*ids, "sub-late"])
    assert later == {**orders[0], "sub-late": "sub-201"}
    assert draw_pseudonyms(RunDirectory(tmp_path / "a"), ids) == later


def test_a_pseudonym_is_never_the_identifier_of_a_participant(tmp_path):
    ids = [f"sub-{i:03d}" for i in range(1, 8)]
    drawn = draw_pseudonyms(RunDirectory(tmp_path), ids)
    assert not set(ids) & set(drawn.values())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sub-12 and sub-123", "sub-001 and sub-123"),
        ("CC0123: broken; 0123 voxels", "sub-002: broken; 0123 voxels"),
        ("/data/x/sub-12_T1w.nii.gz: is empty", "<path>: is empty"),
        ("/data/My Study/a/b.nii: is empty", "<path>: is empty"),
        (r"C:\scans\a.nii is empty", "<path> is empty"),
        (r"\\server\share\a.nii is empty", "<path> is empty"),
        ("~/scans/a is empty", "<path> is empty"),
        ("https://host.example/a?b=c is empty", "<path> is empty"),
        ("anat/sub-12_T1w.nii.gz, IXI002-Guys-0828-T1.nii.gz", "<path>, <path>"),
        ("val/loss, F/M 1/2, 3 / 4, p < 0.05", "val/loss, F/M 1/2, 3 / 4, p < 0.05"),
        ("xai_brain.models.Kan2020, arXiv:2006.15969", "xai_brain.models.Kan2020, arXiv:2006.15969"),
    ],
)
def test_texts(text, shown):
    anonymity = Anonymity({"sub-12": "sub-001", "sub-CC0123": "sub-002"}, ["/data/My Study"])
    assert anonymity.clean(text) == shown


def test_settings_that_are_paths_are_hidden():
    assert {
        "data.root",
        "data.tables",
        "folds.path",
        "evaluation.atlas",
        "networks",
        "run_dir",
    } < path_settings()
    anonymity = Anonymity({"sub-1a": "sub-001"})
    settings = {
        "data": {"root": "my data", "tables": ["a.tsv", "b"], "label": "sex", "url": "mirror.example"},
        "folds": {"path": "mine", "n_folds": 5},
        "evaluation": {"atlas": "aal"},
        "model": {"weights": "/x/y.pt", "_target_": "a.b.C"},
    }
    assert anonymity.clean_settings(settings) == {
        "data": {"root": "<path>", "tables": ["<path>", "<path>"], "label": "sex", "url": "<path>"},
        "folds": {"path": "<path>", "n_folds": 5},
        "evaluation": {"atlas": "aal"},
        "model": {"weights": "<path>", "_target_": "a.b.C"},
    }
    assert (
        anonymity.clean_settings({"evaluation": {"atlas": "./mine.nii"}})["evaluation"]["atlas"] == "<path>"
    )


def test_python_sets_the_same_setting(copied, monkeypatch):
    monkeypatch.setattr(gallery, "_rendered", lambda fig, kind, **options: b"")
    monkeypatch.setattr(gallery, "_palette", lambda png: b"")
    study = open_study(copied.path)
    assert "sub-0001" not in study.report(anonymise=True).path.read_text()
    assert "sub-0001" not in study.report().path.read_text()  # the run keeps the setting
    assert "sub-0001" in study.report(anonymise=False).path.read_text()
