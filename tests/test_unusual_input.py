"""Unusual but correct tables, images and paths are accepted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from bad_inputs import EVERYBODY, TABLE, as_table, cohort, data_of, image, make_tree, put, sexes, table
from conftest import COARSE


class Odd(NamedTuple):
    change: Callable[[Path], object]
    overrides: tuple[str, ...] = ()
    check: Callable[[pd.DataFrame], object] = lambda prepared: True


def rewritten(
    change: Callable[[str], str], encoding: str = "utf-8", end: str = "\n"
) -> Callable[[Path], object]:
    return lambda root: table(root).write_bytes(
        change(table(root).read_text()).replace("\n", end).encode(encoding)
    )


def forms_of_two_spaces(root: Path) -> None:
    img = nib.Nifti1Image(data_of(root), COARSE)
    img.set_sform(COARSE, 4)
    moved = COARSE.copy()
    moved[0, 3] += 40
    img.set_qform(moved, 1)
    nib.save(img, image(root))


def scaled_integers(root: Path) -> None:
    img = nib.Nifti1Image(np.round(data_of(root)).astype(np.uint8), COARSE)
    img.header.set_slope_inter(0.5, 0)
    nib.save(img, image(root))


ACCEPTED = {
    "as it should be": Odd(lambda r: None),
    "trailing axis of 1": Odd(put(lambda d: d[..., None])),
    "two trailing axes of 1": Odd(put(lambda d: d[..., None, None])),
    "NaN outside the brain": Odd(put(lambda d: np.where(d == 0, np.nan, d))),
    "infinity outside the brain": Odd(put(lambda d: np.where(d == 0, np.inf, d))),
    "float64": Odd(put(lambda d: d.astype(np.float64))),
    "big-endian": Odd(
        lambda r: nib.save(nib.Nifti1Image(data_of(r), COARSE, nib.Nifti1Header(endianness=">")), image(r))
    ),
    "NIfTI-2": Odd(lambda r: nib.save(nib.Nifti2Image(data_of(r), COARSE), image(r))),
    "integers with header scaling": Odd(scaled_integers),
    "another orientation": Odd(
        lambda r: nib.save(nib.load(image(r)).as_reoriented([[2, 1], [0, -1], [1, 1]]), image(r))
    ),
    "sform of another space than qform": Odd(forms_of_two_spaces),
    "not compressed": Odd(
        lambda r: (nib.save(nib.load(image(r)), image(r).with_suffix("")), image(r).unlink())
    ),
    "link to an image elsewhere": Odd(
        lambda r: (image(r).rename(r.parent / "x.nii.gz"), image(r).symlink_to(r.parent / "x.nii.gz"))
    ),
    "byte-order mark": Odd(rewritten(str, "utf-8-sig")),
    "UTF-16": Odd(rewritten(str, "utf-16")),
    "Latin-1": Odd(rewritten(lambda t: t.replace("age", "größe"), "latin-1")),
    "semicolons": Odd(rewritten(lambda t: t.replace("\t", ";"))),
    "commas": Odd(rewritten(lambda t: t.replace("\t", ","))),
    "Windows line ends": Odd(rewritten(str, end="\r\n")),
    "empty lines at the end": Odd(rewritten(lambda t: t + "\t\t\n\n")),
    "separators at the end of lines": Odd(rewritten(lambda t: t.replace("\n", "\t\t\n"))),
    "ids without prefix": Odd(rewritten(lambda t: t.replace("sub-", ""))),
    "ids with and without prefix": Odd(rewritten(lambda t: t.replace("sub-03", "03"))),
    "ids with blanks": Odd(rewritten(lambda t: t.replace("sub-03", " sub-03 "))),
    "labels with blanks": Odd(rewritten(lambda t: t.replace("\tM", "\t M ").replace("\tF", "\tF "))),
    "labels in mixed spelling": Odd(sexes("male", "F", "Male", "f", "m", "FEMALE")),
    "ages such as 89+": Odd(
        rewritten(lambda t: t.replace("23", "89+")),
        (),
        lambda p: p["age"].tolist() == [20, 21, 22, 89, 24, 25],
    ),
    "ages in bands": Odd(
        rewritten(lambda t: t.replace("23", "22-25")), (), lambda p: p["age"].tolist()[3] == 23.5
    ),
    "decimal commas": Odd(
        rewritten(lambda t: t.replace("23", "23,5")), (), lambda p: p["age"].tolist()[3] == 23.5
    ),
    "a threshold on decimal commas": Odd(
        rewritten(lambda t: t.replace("22\n", "22,5\n")),
        ("data.label=age", "data.threshold=22.5"),
        lambda p: p["label"].tolist() == ["age-up-to-22.5"] * 3 + ["age-above-22.5"] * 3,
    ),
    "ages that are missing": Odd(
        rewritten(lambda t: t.replace("23", "n/a")), (), lambda p: p["age"].isna().tolist()[3]
    ),
    "a table of paths": Odd(as_table(), TABLE),
    "a table of paths with dots in them": Odd(
        as_table(lambda t: t.replace(",sub-", ",./sub-00/../sub-")), TABLE
    ),
}


@pytest.fixture(scope="session")
def plain(tmp_path_factory, brains) -> list[np.ndarray]:
    """What the six images become."""
    folder = tmp_path_factory.mktemp("plain")
    prepared = cohort(make_tree(folder / "bids", brains), folder / "run")
    return [np.load(path) for path in prepared["volume_path"]]


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_odd_input_is_accepted(tree, tmp_path, plain, name):
    odd = ACCEPTED[name]
    odd.change(tree)
    prepared = cohort(tree, tmp_path / "run", *odd.overrides)
    assert prepared["participant_id"].tolist() == EVERYBODY
    if not odd.overrides or odd.overrides == TABLE:
        assert prepared["label"].tolist() == ["male", "female"] * 3
    assert odd.check(prepared)
    for before, after in zip(plain, prepared["volume_path"], strict=True):
        np.testing.assert_allclose(np.load(after), before, atol=0.2)  # integers round
    assert not (tmp_path / "run" / "quarantine.tsv").exists()


def test_a_path_with_blanks_and_other_alphabets(tmp_path, brains):
    root = make_tree(tmp_path / "Größe 脳 (1)" / "my data", brains)
    assert cohort(root, tmp_path / "run")["participant_id"].tolist() == EVERYBODY
