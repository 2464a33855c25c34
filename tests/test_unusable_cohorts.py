"""Input of which nothing can be used: one line, also with `data.on_error=skip`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from bad_inputs import EVERYBODY, TABLE, as_table, cohort, image, lines, sexes, table, truncate

from xai_brain.data.folds.splits import make_folds
from xai_brain.io.problems import DataError


def twice(root: Path, name: str) -> None:
    """Another person of another age with the same image."""
    image(root, f"{name}x").parent.mkdir(parents=True)
    shutil.copy(image(root, name), image(root, f"{name}x"))
    with open(table(root), "a") as file:
        file.write(f"{name}x\tM\t4{name[-1]}\n")


class UnusableCohort(NamedTuple):
    damage: Callable[[Path], object]
    message: str
    overrides: tuple[str, ...] = ()


HOPELESS = {
    "no folder": UnusableCohort(lambda r: shutil.rmtree(r), r"bids: there is no such folder; set data\.root"),
    "root is a file": UnusableCohort(
        lambda r: (shutil.rmtree(r), r.write_text("x")), r"bids: is a file; set data\.root to the folder"
    ),
    "no table": UnusableCohort(
        lambda r: table(r).unlink(), r"participants\.tsv: the file does not exist; name"
    ),
    "table of zero bytes": UnusableCohort(
        lambda r: table(r).write_text(""), r"participants\.tsv: is empty; a header"
    ),
    "table of a header only": UnusableCohort(
        lambda r: table(r).write_text("participant_id\tsex\n"), r"participants\.tsv: has no lines below"
    ),
    "table that is an image": UnusableCohort(
        lambda r: shutil.copy(image(r), table(r)), r"participants\.tsv: (is not a text table|has)"
    ),
    "table that is a folder": UnusableCohort(
        lambda r: (table(r).unlink(), table(r).mkdir()), r"participants\.tsv: is a folder, and a file"
    ),
    "line with too many values": UnusableCohort(
        lambda r: table(r).write_text(table(r).read_text() + "sub-07\tM\t20\tx\n"),
        r"participants\.tsv: line 8 has 4 values for 3 columns; quote",
    ),
    "a column twice": UnusableCohort(
        lambda r: table(r).write_text(table(r).read_text().replace("age", "sex", 1)),
        r"has several columns 'sex'; rename",
    ),
    "no participant_id": UnusableCohort(
        lines(lambda p: p.rename(columns={"participant_id": "id"})), "has no column participant_id"
    ),
    "a line without an id": UnusableCohort(
        lambda r: table(r).write_text(table(r).read_text().replace("sub-03\t", "n/a\t")),
        r"participants\.tsv: line 5 has no participant_id; give it one",
    ),
    "misspelt label": UnusableCohort(
        lines(lambda p: p.rename(columns={"sex": "sexe"})), r"no column 'sex'; did you mean 'sexe'"
    ),
    "one class": UnusableCohort(
        sexes(*"MMMMMM"), r"two classes of sex are needed; there are male: 6; see data\.label"
    ),
    "no label at all": UnusableCohort(sexes(*[None] * 6), "two classes of sex are needed|no value of sex"),
    "class with one member": UnusableCohort(
        lines(lambda p: p.assign(dx=["A", "B", "A", "B", "A", "C"])),
        r"class 'C' of dx has one member, .*; leave it out with data\.class_names",
        ("data.label=dx",),
    ),
    "a class that no participant has": UnusableCohort(
        lambda r: None,
        r"two classes of sex are needed; .*other: 0",
        ("data.class_names=[female,male,other]",),
    ),
    "a measurement as label": UnusableCohort(
        lambda r: [twice(r, name) for name in EVERYBODY],
        r"age has 12 different numbers; make classes of them with data\.threshold=60",
        ("data.label=age",),
    ),
    "threshold and bins": UnusableCohort(
        lambda r: None, "only one of them", ("data.label=age", "data.threshold=3", "data.bins=[2,3]")
    ),
    "bins that do not ascend": UnusableCohort(
        lambda r: None, "ascending order", ("data.label=age", "data.bins=[30,20]")
    ),
    "threshold on words": UnusableCohort(
        lambda r: None, "sex is 'M', no number|two classes", ("data.threshold=3",)
    ),
    "class with a slash": UnusableCohort(
        lines(lambda p: p.assign(dx=["AD/MCI", "CN"] * 3)), "class 'AD/MCI' holds a slash", ("data.label=dx",)
    ),
    "setting of another layout": UnusableCohort(
        as_table(), r"data\.entities: is no setting of data=table", (*TABLE, "data.entities={desc: brain}")
    ),
    "table without paths": UnusableCohort(
        as_table(lambda t: t.replace("t1w_path", "image")), r"cohort\.csv: has no column t1w_path", TABLE
    ),
    "every image is broken": UnusableCohort(
        lambda r: [truncate(image(r, name), 60) for name in EVERYBODY], "is it truncated|two classes of sex"
    ),
}


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("name", HOPELESS)
def test_a_cohort_that_cannot_be_used_is_one_line(tree, tmp_path, name, on_error):
    case = HOPELESS[name]
    case.damage(tree)
    with pytest.raises(DataError, match=case.message) as caught:
        cohort(tree, tmp_path / "run", *case.overrides, f"data.on_error={on_error}")
    assert "\n" not in str(caught.value)


def test_fewer_subjects_than_folds(tree, tmp_path):
    prepared = cohort(tree, tmp_path / "run")
    with pytest.raises(DataError, match=r"folds\.n_folds=5: .*only 3 .*fewer folds") as caught:
        make_folds(prepared, 5)
    assert "\n" not in str(caught.value)
