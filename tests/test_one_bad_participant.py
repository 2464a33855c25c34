"""One participant with a bad row, image or mask: one line names it, or it is set aside."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from bad_inputs import (
    EVERYBODY,
    OTHERS,
    TABLE,
    VICTIM,
    as_table,
    cohort,
    data_of,
    image,
    lines,
    make_tree,
    mask,
    put,
    sexes,
    table,
    truncate,
)
from conftest import COARSE, COARSE_SHAPE
from test_unusable_cohorts import HOPELESS
from test_unusual_input import ACCEPTED

from xai_brain import RunDirectory
from xai_brain.io.nifti import ImageError
from xai_brain.io.problems import DataError
from xai_brain.runs.directory import read_tsv


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
