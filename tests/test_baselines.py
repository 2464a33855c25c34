"""Baselines: what they learn from, what they choose, how they are compared. Known answers on small data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from xai_brain.baselines.classifiers import BaselineError, class_probabilities, fit_baseline, pipeline_of
from xai_brain.baselines.morphometry import morphometry_features
from xai_brain.baselines.voxel_features import BrainVoxels, block_means, voxel_features
from xai_brain.io.problems import DataError


def test_block_means_by_hand():
    volume = np.arange(3 * 4 * 5, dtype=float).reshape(3, 4, 5)
    found = block_means(volume, 2)
    assert found.shape == (2, 2, 3)
    assert found[0, 0, 0] == volume[:2, :2, :2].mean()
    assert found[1, 1, 2] == volume[2:, 2:, 4:].mean()  # what is left at the far ends
    np.testing.assert_array_equal(block_means(volume, 1), volume)
    assert np.average(found, weights=np.multiply.outer(np.multiply.outer([2, 1], [2, 2]), [2, 2, 1])) == (
        pytest.approx(volume.mean())
    )


def test_voxels_inside_the_brain_of_the_training_subjects_that_vary():
    features = np.array([[0, 0, 5, 1], [0, 3, 5, 2], [0, 4, 5, 3], [7, 0, 5, 4]], float)
    # in the brain of 1, 2, 4, 4 of 4 subjects; the third never varies
    np.testing.assert_array_equal(BrainVoxels().fit(features).get_support(), [False, True, False, True])


def cohort_of_volumes(folder, n=40, shape=(7, 8, 9), effect=1.5, seed=0):
    """Subjects of two classes whose volumes differ in a box inside an ellipsoid of brain."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.indices(shape), -1)
    brain = (((grid - np.array(shape) / 2 + 0.5) / (np.array(shape) / 2)) ** 2).sum(-1) < 1
    rows = []
    for i in range(n):
        volume = rng.normal(size=shape)
        volume[3:5, 3:6, 4:6] += effect * (2 * (i % 2) - 1) / 2
        path, mask_path = folder / f"{i}.npy", folder / f"{i}_mask.npy"
        np.save(path, np.where(brain, volume, 0).astype(np.float32))
        np.save(mask_path, brain)
        rows.append((f"sub-{i:02d}", "", i % 2, "ab"[i % 2], str(path), str(mask_path)))
    columns = ["participant_id", "session_id", "target", "label", "volume_path", "volume_mask_path"]
    return pd.DataFrame(rows, columns=columns)


CLASSIFIERS = {
    "pca": ([PCA(random_state=0), LogisticRegression()], {"pca__n_components": [2, 5, 1000]}),
    "svm": ([SVC()], {"svc__C": [0.1, 10], "svc__gamma": [0.3, 1]}),
    "knn": ([KNeighborsClassifier()], {"kneighborsclassifier__n_neighbors": [3, 500]}),
}


def test_choices_are_bounded_by_the_subjects_there_are(tmp_path):
    cohort = cohort_of_volumes(tmp_path, n=20)
    features = voxel_features(cohort["volume_path"], 1)
    steps, _ = CLASSIFIERS["knn"]
    ids, targets = cohort["participant_id"].to_numpy(), cohort["target"].to_numpy()
    _, chosen = fit_baseline(
        pipeline_of("voxels", steps), {"kneighborsclassifier__n_neighbors": [500]}, features, targets, ids
    )
    assert chosen == {"kneighborsclassifier__n_neighbors": 15}  # 16 subjects in an inner fold


def test_calibrated_probabilities_come_true():
    rng = np.random.default_rng(0)
    targets = np.arange(2000) % 2
    features = rng.normal(size=(2000, 3)) + np.array([0.7, 0, 0]) * (2 * targets - 1)[:, None]
    ids = np.arange(2000).astype(str)
    model, _ = fit_baseline(
        pipeline_of("morphometry", [SVC()]), {"svc__C": [1.0]}, features[:1000], targets[:1000], ids[:1000]
    )
    p = class_probabilities(model, features[1000:], 2)[:, 1]
    for low, high in ((0.0, 0.35), (0.35, 0.65), (0.65, 1.0)):
        some = (p >= low) & (p < high)
        assert some.sum() > 80
        assert p[some].mean() == pytest.approx(targets[1000:][some].mean(), abs=0.1)


def test_images_of_a_participant_stay_together_in_inner_folds():
    # labels are random but shared by the images of a person, whom the features identify: only inner folds
    # that divide persons would find a neighbour of the same person
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(30), 4)
    targets = (np.arange(30) % 2)[person]
    features = rng.normal(size=(30, 12))[person] + 0.01 * rng.normal(size=(120, 12))
    pipeline = pipeline_of("morphometry", [KNeighborsClassifier(1)])
    together, _ = fit_baseline(pipeline, {}, features, targets, person)
    apart, _ = fit_baseline(pipeline, {}, features, targets, np.arange(120))
    seen = features[:1]
    assert class_probabilities(apart, seen, 2)[0, 0] > 0.95
    assert class_probabilities(together, seen, 2)[0, 0] < 0.75


def test_a_class_of_one_subject_is_refused():
    with pytest.raises(BaselineError, match="fewer than two training subjects"):
        fit_baseline(pipeline_of("morphometry", [SVC()]), {}, np.eye(4), np.array([0, 0, 0, 1]), np.arange(4))


PEOPLE = pd.DataFrame(
    {
        "participant_id": [f"sub-{i}" for i in (101, 102, 103, 104)],
        "session_id": "",
        "label": ["F", "M", "F", "M"],
    }
)


def test_columns_that_are_no_morphometry_are_dropped(tmp_path):
    (tmp_path / "t.csv").write_text(
        "nr,Subject,Gender,code,eTIV,Left-Hippocampus,scan,note,own\n"
        "1,101,0,0,1500,4.1,a,,101\n"
        "2,104,1,1,1600,n/a,b,,104\n"
        "3,103,0,0,1400,3.9,c,,103\n"
        "4,999,1,1,1400,3.0,d,,999\n"
    )
    features, dropped = morphometry_features(tmp_path / "t.csv", PEOPLE, "sex")
    assert list(features) == ["eTIV", "Left-Hippocampus"]
    np.testing.assert_array_equal(features["eTIV"], [1500, np.nan, 1400, 1600])  # lines by id, 102 has none
    np.testing.assert_array_equal(features["Left-Hippocampus"], [4.1, np.nan, 3.9, np.nan])
    assert dropped == {
        "Subject": "names participants",
        "nr": "counts the lines",
        "Gender": "describes participants, not brains",
        "code": "repeats the label",
        "scan": "is not numeric",
        "note": "is empty",
        "own": "repeats the id",
    }


def test_sessions_of_a_table(tmp_path):
    people = pd.DataFrame(
        {"participant_id": ["sub-1", "sub-1", "sub-2"], "session_id": ["ses-1", "ses-2", "ses-1"],
         "label": ["F", "F", "M"]}
    )  # fmt: skip
    (tmp_path / "a.tsv").write_text(
        "Measure:volume\tv\nsub-1_ses-2\t12\nsub-1_ses-1\t11.5\nsub-2_ses-1\t21\n"
    )
    (tmp_path / "b.tsv").write_text("participant_id\tsession_id\tv\n1\t2\t12\n1\t1\t11.5\n2\t1\t21\n")
    for name in ("a.tsv", "b.tsv"):
        features, _ = morphometry_features(tmp_path / name, people)
        assert features["v"].tolist() == [11.5, 12, 21]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,v\n7,1\n8,2\n", "no column holds ids of the cohort, such as sub-101"),
        ("id,v\n101,1\n101,2\n", "id sub-101 has several lines; one is needed for each image"),
        ("id,sex\n101,0\n102,1\n", "no column of regional numbers is left"),
    ],
)
def test_tables_that_cannot_be_used(text, message, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        morphometry_features(tmp_path / "t.csv", PEOPLE, "sex")
