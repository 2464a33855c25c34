"""Names of regions: tables in every format and encoding, tables beside images, broken tables."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from two_sided_atlas import NAMES, as_table, two_sides

from xai_brain.atlas.atlas import AtlasError, load_atlas


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "tpl-MNI152NLin6Asym_atlas-Two_res-8_dseg.nii.gz"
    two_sides().to_filename(path)
    return path


FSL = """<?xml version="1.0" encoding="ISO-8859-1"?>
<atlas version="1.0"><header><name>Two</name><type>{kind}</type></header><data>
{labels}</data></atlas>"""
TABLES = {
    "bids.tsv": "index\tname\tcolor\n0\tBackground\t#000\n"
    + "".join(f"{i}\t{n}\t#123456\n" for i, n in NAMES.items()),
    "semicolons.csv": "ROI;Region;Volume\n" + "".join(f"{i};{n};12,5\n" for i, n in NAMES.items()),
    "quoted.csv": "id,name\n" + "".join(f'{i},"{n}"\n' for i, n in NAMES.items()),
    "headless.csv": "".join(f"{i},{n},255,0,0\n" for i, n in NAMES.items()),
    "fsl.xml": FSL.format(
        kind="Probabalistic",  # codespell:ignore
        labels="".join(f'<label index="{i - 1}" x="4">{n}</label>\n' for i, n in NAMES.items()),
    ),
    "fsl_labels.xml": FSL.format(
        kind="Label",
        labels='<label index="0">Unclassified</label>'
        + "".join(f'<label index="{i}">{n}</label>\n' for i, n in NAMES.items()),
    ),
    "aal.xml": "<atlas><data>"
    + "".join(f"<label><index>{i}</index><name>{n}</name></label>" for i, n in NAMES.items())
    + "</data></atlas>",
    "itksnap.label": '# ITK-SnAP Label Description File\n    0   0  0  0   0  0  0    "Clear Label"\n'
    + "".join(f'  {i}   255    0  0        1  1  1    "{n}"\n' for i, n in NAMES.items()),
    "freesurfer.txt": "#No. Label Name:  R   G   B   A\n0  Unknown  0 0 0 0\n"
    + "".join(f"{i}   {n}    70  130 180 0\n" for i, n in NAMES.items()),
    "numbered.txt": "".join(f"{i} {n}\n" for i, n in NAMES.items()),
    "lines.txt": "".join(f"{n}\n" for n in NAMES.values()),
    "lines_with_background.txt": "Background\r\n" + "".join(f"{n}\r\n" for n in NAMES.values()),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_kind_of_table_gives_the_same_names(path, tmp_path, name):
    (tmp_path / name).write_text(TABLES[name], newline="")
    lut = load_atlas(path, tmp_path / name).lut
    assert dict(zip(lut["index"], lut["name"], strict=True)) == NAMES


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig", "utf-16"])
def test_names_keep_their_letters_in_every_encoding(path, tmp_path, encoding):
    names = {7: "Rétrosplénial gauche", 130: "Übergang", 300: "Pons"}
    text = "index;name\n" + "".join(f"{i};{n}\n" for i, n in names.items())
    (tmp_path / "table.csv").write_bytes(text.encode(encoding))
    assert load_atlas(path, tmp_path / "table.csv").lut["name"].tolist() == list(names.values())


def test_lines_number_all_labels_up_to_the_highest(tmp_path):
    img = nib.Nifti1Image(np.array([0, 1, 2, 5] * 6, np.uint8).reshape(2, 3, 4), np.eye(4))
    (tmp_path / "names.txt").write_text("one\ntwo\nthree\nfour\nfive\n")
    assert load_atlas(img, tmp_path / "names.txt").lut["name"].tolist() == ["one", "two", "five"]
    (tmp_path / "names.txt").write_text("one\ntwo\nthree\nfour\n")  # whose is "three": 3, or the third label?
    with pytest.raises(AtlasError, match=r"names\.txt: lists 4 names for 3 labels \(the highest is 5\)"):
        load_atlas(img, tmp_path / "names.txt")


@pytest.mark.parametrize("name", ["{stem}_res-8_dseg.tsv", "{stem}_dseg.tsv"])
def test_table_beside_the_image_is_found(path, tmp_path, name):
    as_table().to_csv(tmp_path / name.format(stem="tpl-MNI152NLin6Asym_atlas-Two"), sep="\t", index=False)
    atlas = load_atlas(str(path))
    assert atlas.name == "Two"
    assert atlas.index_of("insula_r") == 130


@pytest.mark.parametrize(
    ("image", "table"),
    [
        ("BN_Atlas_246_1mm.nii.gz", "BN_Atlas_246.txt"),
        ("BN_Atlas_246_2mm.nii.gz", "BN_Atlas_246_LUT.txt"),
        ("BN_Atlas_246_1.25mm.nii", "BN_Atlas_246.tsv"),
        ("Mine-2x2x2mm.nii.gz", "Mine.txt"),
        ("Schaefer2018_100Parcels_7Networks_order_FSLMNI152_1mm.nii.gz",
         "Schaefer2018_100Parcels_7Networks_order.txt"),
    ],
)  # fmt: skip
def test_one_table_serves_all_resolutions(tmp_path, image, table):
    two_sides().to_filename(tmp_path / image)
    lines = [f"{index}\t{name}\t70\t130\t180\t0" for index, name in NAMES.items()]
    text = "\n".join(["index\tname\tr\tg\tb\ta", *lines] if table.endswith("tsv") else lines)
    (tmp_path / table).write_text(text + "\n")
    assert load_atlas(tmp_path / image).lut["name"].tolist() == list(NAMES.values())


def test_the_table_of_the_same_resolution_goes_first(tmp_path):
    two_sides().to_filename(tmp_path / "BN_2mm.nii.gz")
    as_table({7: "x", 130: "y", 300: "z"}).to_csv(tmp_path / "BN.tsv", sep="\t", index=False)
    as_table().to_csv(tmp_path / "BN_2mm.csv", index=False)
    assert load_atlas(tmp_path / "BN_2mm.nii.gz").lut["name"].tolist() == list(NAMES.values())


def test_missing_table_names_what_was_looked_for(tmp_path):
    two_sides().to_filename(tmp_path / "BN_Atlas_246_1mm.nii.gz")
    expected = r"looked for BN_Atlas_246_1mm or BN_Atlas_246_1mm_LUT or BN_Atlas_246 or BN_Atlas_246_LUT with"
    with pytest.raises(AtlasError, match=expected + r" the endings \.tsv, .*\.txt"):
        load_atlas(tmp_path / "BN_Atlas_246_1mm.nii.gz")


XXE = (
    '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]><atlas><data><label index="7">&e;</label></data>'
    "</atlas>"
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (XXE.encode(), "has a DOCTYPE"),
        (('<?xml version="1.0" encoding="utf-16"?>' + XXE).encode("utf-16"), "has a DOCTYPE"),
        (b"<atlas><data>", "not well-formed XML"),
        (b"<atlas><data></data></atlas>", "no <label> elements"),
        (b'<atlas><label index="x">a</label></atlas>', "a <label> without a number"),
        (b"", "is empty"),
        (b"\x5c\x01\0\0", "is not a text file"),
        (b"colour\tsize\nred\t3\n", "needs a column 'index' .*its columns: colour, size"),
        (b"index\tname\n7\ta\n7\tb\n130\tc\n300\td\n", "label 7 has two names, 'a' and 'b'"),
        (b"index\tname\n1\ta\n2\tb\n7\tc\n", r"names 1 of the 3 labels in the image \(not 130, 300"),
    ],
)
def test_broken_tables_say_what_to_do(path, tmp_path, content, message):
    (tmp_path / "table.txt").write_bytes(content)
    with pytest.raises(AtlasError, match=message) as raised:
        load_atlas(path, tmp_path / "table.txt")
    assert str(raised.value).startswith(f"{tmp_path / 'table.txt'}: ")
    assert "\n" not in str(raised.value)


def test_labels_without_a_name_get_their_number():
    lut = load_atlas(two_sides(), as_table({7: "Insula_L", 300: "BrainStem", 999: "absent"})).lut
    assert lut["name"].tolist() == ["Insula_L", "unnamed-130", "BrainStem"]


# -- nilearn's atlases -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["indices", "lut", "labels"])
def test_fetched_atlases_come_with_their_names(path, monkeypatch, kind):
    import nilearn.datasets
    from sklearn.utils import Bunch

    about = {
        "indices": {"indices": [str(i) for i in NAMES], "labels": list(NAMES.values())},
        "lut": {"lut": pd.concat([as_table({0: "Background"}), as_table()]), "labels": ["of", "no", "use"]},
        "labels": {"labels": [NAMES.get(i, f"absent {i}") for i in range(301)]},
    }[kind]
    monkeypatch.setattr(nilearn.datasets, "fetch_atlas_aal", lambda verbose: Bunch(maps=str(path), **about))
    atlas = load_atlas("aal")
    assert atlas.name == "aal"
    assert atlas.lut["name"].tolist() == list(NAMES.values())
