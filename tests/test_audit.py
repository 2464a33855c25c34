"""Leakage is refused with names; what folds are made of is told."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from xai_brain.data.audit import audit_split, content_hashes
from xai_brain.data.folds.splits import make_folds, split_fold
from xai_brain.data.folds.summary import confound_differences, describe_confounds, summarise_folds
from xai_brain.io.problems import DataError


def parts(**columns):
    """Nine people, three on each side."""
    ids = [f"sub-{i}" for i in range(9)]
    table = pd.DataFrame({"participant_id": ids, "sha256": [f"image {i}" for i in range(9)], **columns})
    return {
        "train": table.iloc[:3],
        "validation": table.iloc[3:6],
        "test": table.iloc[6:],
    }


SIDES = [(6, 0, "test"), (6, 3, "test"), (3, 0, "validation")]


def shared(values, a, b):
    values = list(values)
    values[a] = values[b]
    return values


def test_sides_that_share_nothing_pass():
    audit_split(parts(family_id=[f"f{i // 3}" for i in range(9)], content=[None] * 9))
    audit_split(parts(family_id=[None] * 9))  # unknown families are not one family


@pytest.mark.parametrize(("a", "b", "side"), SIDES)
def test_a_participant_on_both_sides(a, b, side):
    ids = shared([f"sub-{i}" for i in range(9)], a, b)
    sessions = [f"ses-{i}" for i in range(9)]  # another session is the same person
    with pytest.raises(DataError, match=rf"fold 2: on the {side} and the training side: sub-{b};") as caught:
        audit_split(parts(participant_id=ids, session_id=sessions), where="fold 2")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("a", "b", "side"), SIDES)
def test_a_family_on_both_sides(a, b, side):
    split = parts(family_id=shared([f"f{i}" for i in range(9)], a, b))
    message = (
        rf"the {side} and .* family_id of sub-{b}, sub-{a}; set folds\.group_column=family_id.*allow_shared"
    )
    with pytest.raises(DataError, match=message):
        audit_split(split)
    audit_split(split, allow_shared=["family_id"])


@pytest.mark.parametrize(("a", "b", "side"), SIDES)
def test_any_group_on_both_sides(a, b, side):
    split = parts(scanner=shared([f"s{i}" for i in range(9)], a, b))
    audit_split(split)
    with pytest.raises(DataError, match=f"the {side} .*scanner of sub-{b}, sub-{a}"):
        audit_split(split, group_column="scanner")


@pytest.mark.parametrize(("a", "b", "side"), SIDES)
@pytest.mark.parametrize(("column", "what"), [("sha256", "image files"), ("content", "prepared volumes")])
def test_one_image_under_two_names(a, b, side, column, what):
    split = parts(**{column: shared([f"image {i}" for i in range(9)], a, b)})
    with pytest.raises(DataError, match=f"the {side} .*identical {what} of sub-{b}, sub-{a}"):
        audit_split(split, allow_shared=[column])  # that cannot be accepted


def test_the_same_twins_twice_on_one_side_are_no_leak():
    audit_split(parts(family_id=shared([f"f{i}" for i in range(9)], 1, 0), sha256=shared("abcdefghi", 1, 0)))


def test_grouping_is_what_the_audit_wants():
    people = pd.DataFrame(
        {
            "participant_id": [f"sub-{i:02d}" for i in range(60)],
            "target": [i // 2 % 2 for i in range(60)],
            "family_id": [f"f{i // 2}" for i in range(60)],
        }
    )
    folds = make_folds(people, 3)
    with pytest.raises(DataError, match="family_id of sub-"):
        audit_split(split_fold(people, folds, 0, 0.2))
    folds = make_folds(people, 3, group_column="family_id")
    for fold in range(3):
        audit_split(split_fold(people, folds, fold, 0.2, 0, "family_id"), group_column="family_id")


def test_contents_are_compared_not_files(tmp_path):
    rng = np.random.default_rng(0)
    volumes = [rng.standard_normal((5, 6, 7)).astype(np.float32) for _ in range(4)]
    volumes.append(volumes[1].copy())
    nearly = volumes[2].copy()  # equal in the middle slice only
    nearly[0, 0, 0] += 1
    volumes.append(nearly)
    paths = [str(tmp_path / f"{i}.npy") for i in range(6)]
    for path, volume in zip(paths, volumes, strict=True):
        np.save(path, volume)
    hashes = content_hashes(paths)
    assert hashes[0] is None
    assert hashes[3] is None
    assert hashes[1] == hashes[4] is not None
    assert hashes[2] != hashes[5]


def test_an_image_compressed_twice_is_found_after_preparation(bids_tree):
    from xai_brain.config.data import PreprocessingConfig
    from xai_brain.data.cohort import prepare_cohort
    from xai_brain.data.participants import load_participants

    images = sorted(bids_tree.glob("*/anat/*.nii.gz"))
    images[4].write_bytes(gzip.compress(gzip.decompress(images[1].read_bytes()), compresslevel=1))
    table = prepare_cohort(load_participants("bids", bids_tree), PreprocessingConfig("t1w_4mm"))
    assert table["sha256"].is_unique
    table["content"] = content_hashes(table["volume_path"].tolist())
    assert table.loc[table["content"].notna(), "participant_id"].tolist() == ["sub-01", "sub-04"]
    split = {"train": table.iloc[:2], "validation": table.iloc[2:3], "test": table.iloc[3:]}
    with pytest.raises(DataError, match="identical prepared volumes of sub-01, sub-04"):
        audit_split(split)


def people_of_two_classes():
    rng = np.random.default_rng(0)
    n = 400
    label = np.repeat(["female", "male"], n // 2)
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{i:03d}" for i in range(n)],
            "label": label,
            "target": (label == "male").astype(int),
            "age": rng.normal(50, 10, n).round(2).astype(str),  # tables are read as text
            "icv_ml": np.where(label == "male", 1600, 1500) + rng.normal(0, 100, n),
            "site": np.where(rng.random(n) < np.where(label == "male", 0.8, 0.2), "Guys", "HH"),
            "scanner": "one",
        }
    )


def test_the_standardised_difference_is_that_of_the_definition():
    people = people_of_two_classes()
    a, b = (people.loc[people["label"] == label, "icv_ml"] for label in ("female", "male"))
    found = confound_differences(people, ["age", "icv_ml", "site", "scanner", "height"])
    assert found["icv_ml"] == pytest.approx((b.mean() - a.mean()) / np.sqrt((a.var() + b.var()) / 2))
    assert 0.8 < found["icv_ml"] < 1.2
    assert found["age"] < 0.3
    p, q = (people.loc[people["label"] == label, "site"].eq("Guys").mean() for label in ("female", "male"))
    assert found["site"] == pytest.approx((q - p) / np.sqrt((p * (1 - p) + q * (1 - q)) / 2))
    assert found["scanner"] == 0
    assert "height" not in found


def test_strong_differences_are_told_in_a_line_each():
    icv, site = describe_confounds(people_of_two_classes(), ["age", "icv_ml", "site"], "sex")
    assert icv.startswith("icv_ml differs between the classes, 0.")
    assert "maps may show icv_ml, not sex" in icv
    assert "female: Guys" in site
    apart = people_of_two_classes().assign(site=lambda t: t["label"].map({"female": "A", "male": "B"}))
    assert "without overlap" in describe_confounds(apart, ["site"], "sex")[0]


def test_the_summary_counts_people_not_images():
    people = people_of_two_classes()
    folds = make_folds(people, 4)
    twice = pd.concat([people, people.iloc[:100]])
    table = summarise_folds(twice, folds, ["age", "site"])
    assert table["fold"].tolist() == [0, 1, 2, 3]
    assert table["n_participants"].tolist() == [100] * 4
    assert table["n_images"].sum() == 500
    assert table["label"].tolist() == ["female 50, male 50"] * 4
    tested = people[folds["fold"] == 2]
    assert table.loc[2, "age_mean"] == pytest.approx(tested["age"].astype(float).mean(), abs=1e-3)
    guys = (tested["site"] == "Guys").sum()
    assert table.loc[2, "site"] == f"Guys {guys}, HH {100 - guys}"
