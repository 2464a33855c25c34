"""What users have on their disks: each malformed input is told in one line, each odd one is accepted."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import struct
import tempfile
import tracemalloc
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import COARSE, COARSE_SHAPE, fake_brain
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig

from xai_brain import RunDirectory, compose
from xai_brain.config.checks import read_config
from xai_brain.config.data import PreprocessingConfig
from xai_brain.data.folds.splits import make_folds
from xai_brain.data.preprocessing import preprocess_t1w
from xai_brain.io.nifti import ImageError, load_img
from xai_brain.io.problems import DataError
from xai_brain.runs.directory import read_tsv
from xai_brain.study.participants import prepared_cohort

EVERYBODY = [f"sub-{i:02d}" for i in range(6)]
VICTIM = "sub-03"
OTHERS = [name for name in EVERYBODY if name != VICTIM]


@pytest.fixture(scope="session")
def brains(tmp_path_factory) -> Path:
    """The six images, made once; every case changes a copy."""
    folder = tmp_path_factory.mktemp("brains")
    for i, name in enumerate(EVERYBODY):
        fake_brain(COARSE_SHAPE, COARSE, seed=i).to_filename(folder / f"{name}.nii.gz")
    return folder


@pytest.fixture
def tree(tmp_path, brains) -> Path:
    return make_tree(tmp_path / "bids", brains)


def make_tree(root: Path, brains: Path) -> Path:
    for name in EVERYBODY:
        image(root, name).parent.mkdir(parents=True)
        shutil.copy(brains / f"{name}.nii.gz", image(root, name))
    lines = [f"{name}\t{'MF'[i % 2]}\t{20 + i}" for i, name in enumerate(EVERYBODY)]
    table(root).write_text("\n".join(["participant_id\tsex\tage", *lines]) + "\n")
    return root


def image(root: Path, name: str = VICTIM) -> Path:
    return root / name / "anat" / f"{name}_space-MNI152_desc-brain_T1w.nii.gz"


def mask(root: Path) -> Path:
    return image(root).with_name(f"{VICTIM}_space-MNI152_desc-brain_mask.nii.gz")


def table(root: Path) -> Path:
    return root / "participants.tsv"


def cohort(root: Path, run_dir: Path, *overrides: str) -> pd.DataFrame:
    """As `xai-brain train` begins."""
    cfg = composed(overrides).copy()
    cfg.data.root = str(root)
    return prepared_cohort(read_config(cfg), RunDirectory(run_dir))


@lru_cache
def composed(overrides: tuple[str, ...]) -> DictConfig:
    given = () if any(text.startswith("data=") for text in overrides) else ("data=bids",)
    return compose("train", [*given, "data.root=set later", "preprocessing=t1w_4mm", *overrides])


# --- damages


def data_of(root: Path) -> np.ndarray:
    return nib.load(image(root)).get_fdata(dtype=np.float32)


def put(change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray = COARSE) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        nib.save(nib.Nifti1Image(change(data_of(root)), affine), image(root))

    return damage


def patch(position: int, *values: float, kind: str) -> Callable[[Path], object]:
    """Other bytes at a place of the header."""

    def damage(root: Path) -> None:
        content = bytearray(gzip.decompress(image(root).read_bytes()))
        struct.pack_into(f"<{len(values)}{kind}", content, position, *values)
        image(root).write_bytes(gzip.compress(bytes(content)))

    return damage


def nifti2_of_a_hundred_thousand(root: Path) -> None:
    header = nib.Nifti2Image(np.zeros((2, 2, 2), np.float32), COARSE).header
    header["dim"][1:4] = 100_000
    header["magic"] = b"n+2"
    header["vox_offset"] = 544
    image(root).write_bytes(gzip.compress(header.binaryblock + bytes(100_000)))


def forms_that_disagree(root: Path) -> None:
    img = nib.Nifti1Image(data_of(root), COARSE)
    moved = COARSE.copy()
    moved[0, 3] += 40
    img.set_sform(COARSE, 1)
    img.set_qform(moved, 1)
    nib.save(img, image(root))


def rgb(root: Path) -> None:
    voxels = np.zeros(COARSE_SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(voxels, COARSE), image(root))


def inside(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(data: np.ndarray) -> np.ndarray:
        data = data.copy()
        data[10:12, 12:14, 10:12] = value
        return data

    return change


def save_mask(voxels: np.ndarray) -> Callable[[Path], object]:
    return lambda root: nib.save(nib.Nifti1Image(voxels.astype(np.uint8), COARSE), mask(root))


def directory(root: Path) -> None:
    image(root).unlink()
    image(root).mkdir()


def broken_link(root: Path) -> None:
    image(root).unlink()
    image(root).symlink_to("../../.git/annex/objects/x")


def lines(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        people = pd.read_csv(table(root), sep="\t", dtype=str)
        change(people).to_csv(table(root), sep="\t", index=False, na_rep="n/a")

    return damage


def sexes(*values: str | None) -> Callable[[Path], object]:
    return lines(lambda people: people.assign(sex=list(values)))


def as_table(change: Callable[[str], str] = str) -> Callable[[Path], object]:
    """The same cohort as a CSV with paths; `change` is given its text."""

    def damage(root: Path) -> None:
        people = [
            f"{name},{'MF'[i % 2]},{image(root, name).relative_to(root)}" for i, name in enumerate(EVERYBODY)
        ]
        text = "\n".join(["participant_id,sex,t1w_path", *people]) + "\n"
        (root / "cohort.csv").write_text(change(text))

    return damage


def twice(root: Path, name: str) -> None:
    """Another person of another age with the same image."""
    image(root, f"{name}x").parent.mkdir(parents=True)
    shutil.copy(image(root, name), image(root, f"{name}x"))
    with open(table(root), "a") as file:
        file.write(f"{name}x\tM\t4{name[-1]}\n")


TABLE = ("data=table", "data.tables=[cohort.csv]", "data.space=MNI152")


def truncate(path: Path, n: int) -> None:
    path.write_bytes(path.read_bytes()[:n])


# --- one input is bad: who is named, why, and what to do about it


class Bad(NamedTuple):
    damage: Callable[[Path], object]
    reason: str
    file: Callable[[Path], Path] = image
    overrides: tuple[str, ...] = ()


WHOLE_TABLE = lambda root: root / "cohort.csv"  # noqa: E731
BAD = {
    "truncated gz": Bad(
        lambda r: truncate(image(r), 900), "cannot be read, is it truncated.*; copy it again"
    ),
    "truncated within the header": Bad(lambda r: truncate(image(r), 60), "cannot be read, is it truncated"),
    "truncated without compression": Bad(
        lambda r: (
            image(r).with_suffix("").write_bytes(gzip.decompress(image(r).read_bytes())[:9000]),
            image(r).unlink(),
        ),
        r"is it truncated\? \(9000 bytes, but its header states",
        lambda r: image(r).with_suffix(""),
    ),
    "not compressed, against its name": Bad(
        lambda r: image(r).write_bytes(gzip.decompress(image(r).read_bytes())), "rename it to .nii"
    ),
    "wrong magic": Bad(patch(344, 1, kind="i"), r"is not a NIfTI file \(magic .*; convert it"),
    "a text instead of an image": Bad(
        lambda r: image(r).write_text("<html>404</html>"), "is not a NIfTI file.*; copy or convert it again"
    ),
    "zero bytes": Bad(lambda r: image(r).write_bytes(b""), r"is empty \(0 bytes\); copy it again"),
    "NIfTI-2 of 10^5 voxels per axis": Bad(
        nifti2_of_a_hundred_thousand, r"states 100000 x 100000 x 100000 voxels .* GB of memory"
    ),
    "NIfTI-1 of 30,000 voxels per axis": Bad(
        patch(42, 30_000, 30_000, 30_000, kind="h"), r"states 30000 x 30000 x 30000 voxels .* GB of memory"
    ),
    "more voxels than the file can hold": Bad(
        patch(42, 400, 400, 400, kind="h"), "bytes, but its header states"
    ),
    "negative numbers of voxels": Bad(patch(42, -5, kind="h"), "its header states -5 x 28 x 22 voxels"),
    "unknown data type": Bad(patch(70, 77, kind="h"), r"unknown data type \(77\)"),
    "all NaN": Bad(put(lambda d: np.full_like(d, np.nan)), "has no finite voxel"),
    "NaN inside the brain": Bad(put(inside(np.nan)), r"8 voxels in its brain are NaN or infinite; fill them"),
    "infinity inside the brain": Bad(put(inside(np.inf)), "8 voxels in its brain are NaN or infinite"),
    "constant": Bad(put(lambda d: np.full_like(d, 3)), "is constant"),
    "all zero": Bad(put(np.zeros_like), "is constant"),
    "negative zooms": Bad(
        patch(80, -8.0, kind="f"), r"negative voxel sizes \(-8 x 8 x 8 mm\); correct pixdim"
    ),
    "singular affine": Bad(
        patch(280, *[0.0] * 12, kind="f"), "has a singular affine; set the voxel-to-world"
    ),
    "NaN in the affine": Bad(patch(280, np.nan, kind="f"), "its affine contains NaN"),
    "voxels of micrometres": Bad(
        put(lambda d: d, np.diag([0.001, 0.001, 0.001, 1])), "has voxels of 0.001 x 0.001 x 0.001 mm"
    ),
    "sform and qform disagree": Bad(forms_that_disagree, "differ by up to 40 mm"),
    "RGB": Bad(rgb, "has colours"),
    "complex": Bad(put(lambda d: d.astype(np.complex64)), "has complex values; save their magnitude"),
    "several volumes": Bad(put(lambda d: np.stack([d, d], -1)), r"\(23, 28, 22, 2\); a single 3-D volume"),
    "a slice": Bad(put(lambda d: d[..., 11]), r"has shape \(23, 28\); a single 3-D volume is needed"),
    "a slice of thickness one": Bad(put(lambda d: d[..., 11:12]), "a single 3-D volume is needed"),
    "far from the template": Bad(
        put(lambda d: d, COARSE + np.pad([[500]], ((0, 3), (3, 0)))), "none of its brain lies in the grid"
    ),
    "not skull-stripped": Bad(
        put(lambda d: d + np.linspace(1, 2, d.size).reshape(d.shape)),
        "is not skull-stripped and has no brain mask",
    ),
    "empty brain mask": Bad(save_mask(np.zeros(COARSE_SHAPE)), "its brain mask is empty"),
    "mask of another grid": Bad(save_mask(np.ones((5, 6, 7))), "brain mask has another grid"),
    "truncated mask": Bad(
        lambda r: (save_mask(np.ones(COARSE_SHAPE))(r), truncate(mask(r), 60)), "is it truncated", mask
    ),
    "mask that is a broken link": Bad(lambda r: mask(r).symlink_to("nowhere"), "is a link to nowhere", mask),
    "broken link": Bad(broken_link, r"is a link to \S+annex\S+, which does not exist; fetch the file"),
    "directory": Bad(directory, "is a folder, and a file is needed"),
    "no image": Bad(lambda r: image(r).unlink(), "no T1w image", lambda r: image(r).parent),
    "two images": Bad(
        lambda r: shutil.copy(image(r), image(r).with_name(f"{VICTIM}_T1w.nii.gz")),
        r"2 T1w images .*; choose with data\.entities",
        lambda r: image(r).parent,
    ),
    "image without a line": Bad(
        lines(lambda p: p[p["participant_id"] != VICTIM]), r"no line in participants\.tsv; add it"
    ),
    "duplicate id": Bad(lines(lambda p: pd.concat([p, p.iloc[[3]]])), "has several lines; keep one", table),
    "duplicate id with and without prefix": Bad(
        lines(lambda p: pd.concat([p, p.iloc[[3]].assign(participant_id="03")])), "has several lines", table
    ),
    "NaN label": Bad(sexes("M", "F", "M", None, "M", "F"), "no value of sex; correct the table", table),
    "label of no class": Bad(
        sexes("M", "F", "M", "X", "M", "F"),
        "sex is 'X', not one of female, male",
        table,
        ("data.class_names=[female,male]",),
    ),
    "session without a label": Bad(
        lambda r: (
            (r / VICTIM / "ses-1").mkdir(),
            image(r).parent.rename(r / VICTIM / "ses-1" / "anat"),
            lines(lambda p: p.assign(dx=["A", "B", "A", None, "A", "B"]))(r),
            (r / VICTIM / f"{VICTIM}_sessions.tsv").write_text("session_id\tdx\nses-1\tn/a\n"),
        ),
        "no value of dx in ses-1",
        table,
        ("data.label=dx",),
    ),
    "number on both sides of the threshold": Bad(
        lines(lambda p: p.assign(age=["20", "40", "20", "28-33", "20", "40"])),
        "age is '28-33', no number that lies on one side of 30",
        table,
        ("data.label=age", "data.threshold=30"),
    ),
    "line of a table without a path": Bad(
        as_table(lambda t: t.replace(f"F,{VICTIM}/anat/{VICTIM}_space-MNI152_desc-brain_T1w.nii.gz", "F,")),
        "its line has no t1w_path; add it",
        WHOLE_TABLE,
        TABLE,
    ),
    "path that does not exist": Bad(
        as_table(lambda t: t.replace(f"{VICTIM}_space", "sub-33_space")),
        "t1w_path .* does not exist; correct the table",
        lambda r: image(r).parent / image(r).name.replace(VICTIM, "sub-33"),
        TABLE,
    ),
    "path out of the root": Bad(
        as_table(lambda t: t.replace(f",{VICTIM}/anat", ",../elsewhere")),
        r"lies outside data\.root",
        lambda r: r.parent / "elsewhere" / image(r).name,
        TABLE,
    ),
    "absolute path out of the root": Bad(
        as_table(lambda t: t.replace(f",{VICTIM}/anat", ",/elsewhere")),
        r"lies outside data\.root",
        lambda r: Path("/elsewhere") / image(r).name,
        TABLE,
    ),
}


def test_enough_cases():
    assert len({*BAD, *HOPELESS, *ACCEPTED}) >= 35


@pytest.mark.parametrize("name", BAD)
def test_a_bad_input_is_one_line_or_set_aside(tree, tmp_path, name):
    bad = BAD[name]
    bad.damage(tree)
    with pytest.raises((DataError, ImageError)) as caught:
        cohort(tree, tmp_path / "raised", *bad.overrides)
    message = str(caught.value)
    assert message.startswith(f"{bad.file(tree)}: {VICTIM}: ")
    assert re.search(bad.reason, message), message
    assert "\n" not in message

    run = RunDirectory(tmp_path / "skipped")
    prepared = cohort(tree, run.path, *bad.overrides, "data.on_error=skip")
    assert prepared["participant_id"].tolist() == OTHERS
    assert all(np.load(path).shape == (46, 55, 46) for path in prepared["volume_path"])
    (row,) = read_tsv(run.quarantine).to_dict("records")
    assert (row["participant_id"], row["path"]) == (VICTIM, str(bad.file(tree)))
    assert re.search(bad.reason, row["reason"])


def test_an_id_that_leads_out_of_the_tree_is_never_made_a_path(tree, tmp_path):
    lines(lambda p: pd.concat([p, p.iloc[[3]].assign(participant_id="../../etc")]))(tree)
    with pytest.raises(
        DataError, match=r"participants\.tsv: sub-\.\./\.\./etc: an id can contain letters, digits"
    ):
        cohort(tree, tmp_path / "run")
    prepared = cohort(tree, tmp_path / "run", "data.on_error=skip")
    assert prepared["participant_id"].tolist() == EVERYBODY


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="permissions of POSIX")
@pytest.mark.parametrize("victim", [image, table], ids=["image", "table"])
def test_a_file_that_may_not_be_read(brains, victim):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        Path(folder).chmod(0o777)
        root = make_tree(Path(folder) / "bids", brains)
        victim(root).chmod(0)
        (Path(folder) / "cache").mkdir()
        (Path(folder) / "cache").chmod(0o777)
        cache = f"data.cache_dir={folder}/cache"
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)  # root may read everything
        try:
            with pytest.raises(DataError, match=r"cannot be read \(Permission denied\); check its") as caught:
                cohort(root, Path(folder) / "run", cache)
            assert str(caught.value).startswith(f"{victim(root)}: ")
            if victim is image:
                prepared = cohort(root, Path(folder) / "run", cache, "data.on_error=skip")
                assert prepared["participant_id"].tolist() == OTHERS
        finally:
            os.seteuid(before)


# --- nothing can be done with the cohort: one line, also with on_error=skip


class Hopeless(NamedTuple):
    damage: Callable[[Path], object]
    message: str
    overrides: tuple[str, ...] = ()


HOPELESS = {
    "no folder": Hopeless(lambda r: shutil.rmtree(r), r"bids: there is no such folder; set data\.root"),
    "root is a file": Hopeless(
        lambda r: (shutil.rmtree(r), r.write_text("x")), r"bids: is a file; set data\.root to the folder"
    ),
    "no table": Hopeless(lambda r: table(r).unlink(), r"participants\.tsv: the file does not exist; name"),
    "table of zero bytes": Hopeless(
        lambda r: table(r).write_text(""), r"participants\.tsv: is empty; a header"
    ),
    "table of a header only": Hopeless(
        lambda r: table(r).write_text("participant_id\tsex\n"), r"participants\.tsv: has no lines below"
    ),
    "table that is an image": Hopeless(
        lambda r: shutil.copy(image(r), table(r)), r"participants\.tsv: (is not a text table|has)"
    ),
    "table that is a folder": Hopeless(
        lambda r: (table(r).unlink(), table(r).mkdir()), r"participants\.tsv: is a folder, and a file"
    ),
    "line with too many values": Hopeless(
        lambda r: table(r).write_text(table(r).read_text() + "sub-07\tM\t20\tx\n"),
        r"participants\.tsv: line 8 has 4 values for 3 columns; quote",
    ),
    "a column twice": Hopeless(
        lambda r: table(r).write_text(table(r).read_text().replace("age", "sex", 1)),
        r"has several columns 'sex'; rename",
    ),
    "no participant_id": Hopeless(
        lines(lambda p: p.rename(columns={"participant_id": "id"})), "has no column participant_id"
    ),
    "a line without an id": Hopeless(
        lambda r: table(r).write_text(table(r).read_text().replace("sub-03\t", "n/a\t")),
        r"participants\.tsv: line 5 has no participant_id; give it one",
    ),
    "misspelt label": Hopeless(
        lines(lambda p: p.rename(columns={"sex": "sexe"})), r"no column 'sex'; did you mean 'sexe'"
    ),
    "one class": Hopeless(
        sexes(*"MMMMMM"), r"two classes of sex are needed; there are male: 6; see data\.label"
    ),
    "no label at all": Hopeless(sexes(*[None] * 6), "two classes of sex are needed|no value of sex"),
    "class with one member": Hopeless(
        lines(lambda p: p.assign(dx=["A", "B", "A", "B", "A", "C"])),
        r"class 'C' of dx has one member, .*; leave it out with data\.class_names",
        ("data.label=dx",),
    ),
    "a class that nobody has": Hopeless(
        lambda r: None,
        r"two classes of sex are needed; .*other: 0",
        ("data.class_names=[female,male,other]",),
    ),
    "a measurement as label": Hopeless(
        lambda r: [twice(r, name) for name in EVERYBODY],
        r"age has 12 different numbers; make classes of them with data\.threshold=60",
        ("data.label=age",),
    ),
    "threshold and bins": Hopeless(
        lambda r: None, "only one of them", ("data.label=age", "data.threshold=3", "data.bins=[2,3]")
    ),
    "bins that do not ascend": Hopeless(
        lambda r: None, "ascending order", ("data.label=age", "data.bins=[30,20]")
    ),
    "threshold on words": Hopeless(
        lambda r: None, "sex is 'M', no number|two classes", ("data.threshold=3",)
    ),
    "class with a slash": Hopeless(
        lines(lambda p: p.assign(dx=["AD/MCI", "CN"] * 3)), "class 'AD/MCI' holds a slash", ("data.label=dx",)
    ),
    "setting of another layout": Hopeless(
        as_table(), r"data\.entities: is no setting of data=table", (*TABLE, "data.entities={desc: brain}")
    ),
    "table without paths": Hopeless(
        as_table(lambda t: t.replace("t1w_path", "image")), r"cohort\.csv: has no column t1w_path", TABLE
    ),
    "every image is broken": Hopeless(
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


# --- odd, but right


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


# --- any header at all


@pytest.fixture(scope="session")
def plain_file(tmp_path_factory) -> Path:
    data = np.zeros((18, 19, 20), np.float32)
    data[4:14, 4:15, 4:16] = np.random.default_rng(0).random((10, 11, 12))
    img = nib.Nifti1Image(data, COARSE)
    img.header.set_slope_inter(2, 1)
    path = tmp_path_factory.mktemp("fuzz") / "x.nii"
    nib.save(img, path)
    return path


CHANGES = st.lists(st.tuples(st.integers(0, 347), st.binary(min_size=1, max_size=8)), min_size=1, max_size=5)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, compressed=st.booleans())
@example(changes=[(40, struct.pack("<8h", 7, *[32767] * 7))], compressed=True)
@example(changes=[(40, struct.pack("<4h", 3, 700, 700, 700))], compressed=True)
@example(changes=[(108, struct.pack("<f", 1e38))], compressed=True)
@example(changes=[(114, b"\x00a")], compressed=False)
@example(changes=[(114, b"\x00_")], compressed=False)
@example(changes=[(108, struct.pack("<f", np.nan))], compressed=False)
@example(changes=[(112, struct.pack("<2f", np.inf, np.nan))], compressed=False)
@example(changes=[(70, struct.pack("<2h", 1536, 128))], compressed=False)
@example(changes=[(0, struct.pack("<i", 540))], compressed=False)
def test_any_header_is_read_or_refused_in_one_line_within_memory(tmp_path, plain_file, changes, compressed):
    content = bytearray(plain_file.read_bytes())
    for position, values in changes:
        content[position : min(position + len(values), 348)] = values[: 348 - position]
    path = tmp_path / ("y.nii.gz" if compressed else "y.nii")
    path.write_bytes(gzip.compress(bytes(content), 1) if compressed else bytes(content))
    refused = None
    tracemalloc.start()
    try:
        img = load_img(path)
        preprocess_t1w(img, PreprocessingConfig("t1w_4mm"), space="MNI152", path=path)
    except ImageError as error:
        refused = error
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2**28  # bytes that were asked for, also if they were never touched
    if refused:
        assert str(refused).startswith(f"{path}: ")
        assert "\n" not in str(refused)
        assert len(refused.reason) > 10
    else:
        assert img.ndim == 3
        assert np.isfinite(img.affine).all()
        assert abs(np.linalg.det(img.affine[:3, :3])) > 0
