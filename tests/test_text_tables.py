"""Separators and quotation marks of tables that people write."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from xai_brain.atlas.atlas import AtlasError
from xai_brain.atlas.lookup_tables import read_names
from xai_brain.data.folds.tables import read_folds
from xai_brain.io.problems import DataError
from xai_brain.io.tables import read_table
from xai_brain.runs.directory import read_json, read_tsv, write_tsv


@pytest.fixture
def read(tmp_path):
    """Write a text to a file of the given name and read it as a table of participants."""

    def write_and_read(name, text):
        (tmp_path / name).write_text(text, newline="")
        return read_table(tmp_path / name)

    return write_and_read


@pytest.mark.parametrize("mark", [",", ";"])
def test_tsv_is_separated_by_tabs_whatever_the_header_contains(read, mark):
    column = f"diagnosis (AD{mark} MCI{mark} CN{mark} other)"
    table = read("a.tsv", f"participant_id\tsex\t{column}\nsub-1\tF\tAD{mark} early\n")
    assert table.columns.tolist() == ["participant_id", "sex", column]
    assert table.iloc[0].tolist() == ["sub-1", "F", f"AD{mark} early"]


@pytest.mark.parametrize("ending", ["csv", "txt"])
@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ('participant_id,"age; in years; at scan; rounded",sex\n1,20,F\n', "age; in years; at scan; rounded"),
        ("participant_id;age, in years, at scan, rounded;sex\n1;20;F\n", "age, in years, at scan, rounded"),
        (
            "participant_id\tage, in years, at scan, rounded\tsex\n1\t20\tF\n",
            "age, in years, at scan, rounded",
        ),
    ],
)
def test_csv_is_separated_by_the_mark_that_fits_all_rows(read, ending, text, columns):
    table = read(f"a.{ending}", text)
    assert table.columns.tolist() == ["participant_id", columns, "sex"]
    assert table.iloc[0].tolist() == ["1", "20", "F"]


@pytest.mark.parametrize("mark", [",", ";"])
def test_tsv_without_tabs_is_read_by_the_mark_it_has(read, mark):
    table = read("a.tsv", f"participant_id{mark}sex\n1{mark}F\n")
    assert table.columns.tolist() == ["participant_id", "sex"]


@pytest.mark.parametrize("ending", ["tsv", "csv"])
@pytest.mark.parametrize(
    "rows",
    [
        ["1,a,F", "2,b,M", '3,"c,F', "4,d,M"],  # never closed
        ["1,a,F", "", '2,"b,M', '3,"c,F', "4,d,M"],  # closed by the next one; an empty line counts
        ["1,a,F", "2,b,M", '3,"c" c,F', "4,d,M"],  # text after the closed one
        ["1,a,F", "2,b,M", '3,"c,F', '4,d,M"', "5,e,M"],  # would lose participant 4
    ],
)
def test_an_unclosed_quotation_mark_is_an_error_with_its_line(read, ending, rows):
    text = "\n".join(["participant_id,note,sex", *rows]) + "\n"
    with pytest.raises(DataError, match=rf"a\.{ending}: line 4: a quotation mark \(\"\) is not closed"):
        read(f"a.{ending}", text.replace(",", "\t") if ending == "tsv" else text)


def test_quoted_values_may_contain_separators_quotes_and_lines(read):
    table = read("a.csv", 'participant_id,note,sex\n1,"a, ""b""\nc",F\n2,5" tall,M\n')
    assert table["note"].tolist() == ['a, "b"\nc', '5" tall']
    assert table["participant_id"].tolist() == ["1", "2"]


def test_messages_count_lines_of_the_file(read):
    with pytest.raises(DataError, match=r"a\.csv: line 5 has 3 values for 2 columns"):
        read("a.csv", '\nparticipant_id,sex\n\n1,F\n2,F,3\n')  # fmt: skip


def test_region_tables_are_separated_by_tabs_too(tmp_path):
    path = tmp_path / "dseg.tsv"
    path.write_text("index\tname\tnote (a, b, c, d)\n3\tGyrus, left\tx\n7\tPons\ty\n")
    assert read_names(path, np.array([3, 7])).values.tolist() == [[3, "Gyrus, left"], [7, "Pons"]]
    path.write_text('index\tname\n3\t"Gyrus\n7\tPons\n')
    with pytest.raises(AtlasError, match=r"dseg\.tsv: line 2: a quotation mark"):
        read_names(path, np.array([3, 7]))
    path.write_text('# made by hand\nindex\tname\n# left\n3\t"Gyrus\n7\tPons\n')
    with pytest.raises(AtlasError, match=r"dseg\.tsv: line 4: a quotation mark"):
        read_names(path, np.array([3, 7]))


def test_tables_of_folds_are_read_by_the_same_rules(tmp_path):
    people = pd.DataFrame({"participant_id": ["sub-1", "sub-2", "sub-3", "sub-4"], "label": list("ABAB")})
    people["target"] = [0, 1, 0, 1]
    path = tmp_path / "folds.csv"
    path.write_text("participant_id;fold\n1;0\n2;0\n3;1\n4;1\n")
    folds, strangers = read_folds(path, people)
    assert folds.sort_values("participant_id")["fold"].tolist() == [0, 0, 1, 1]
    assert strangers == []
    path.write_text('participant_id;fold\n1;"0\n2;0\n3;1\n4;1\n')
    with pytest.raises(DataError, match="line 2: a quotation mark"):
        read_folds(path, people)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_tables_and_json_are_read_in_the_encodings_that_people_use(tmp_path, encoding):
    (tmp_path / "a.tsv").write_bytes("participant_id\tlabel\nsub-01\tMüller\n".encode(encoding))
    (tmp_path / "a.json").write_bytes('{"Name": "Müller"}'.encode(encoding))
    assert read_tsv(tmp_path / "a.tsv").columns.tolist() == ["participant_id", "label"]
    for read in (read_tsv, read_table):
        assert read(tmp_path / "a.tsv")["label"].tolist() == ["Müller"]
    assert read_json(tmp_path / "a.json") == {"Name": "Müller"}


def test_identifiers_and_codes_stay_text_in_tables_of_runs(tmp_path):
    path = tmp_path / "participants.tsv"
    table = pd.DataFrame({
        "participant_id": ["007", "010"], "session_id": ["01", "02"], "family_id": ["3", "4"],
        "scanner": ["n/a", "02"], "age": [20, 31.5], "site": ["1", "2"], "n": [0, 10], "x": [0.25, -0.5],
    })  # fmt: skip
    write_tsv(table, path)
    found = read_tsv(path)
    expected = table.assign(scanner=[np.nan, "02"])
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    texts = ("participant_id", "session_id", "family_id", "scanner", "site")
    assert [name for name in found if isinstance(found[name].iloc[-1], str)] == list(texts)
    write_tsv(found, path)
    pd.testing.assert_frame_equal(read_tsv(path), found)
