"""Group maps: t against scipy and OLS, family-wise error, a planted difference, confounds, refusals."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import awkward_affine
from scipy import stats

from xai_brain.atlas.atlas import Atlas
from xai_brain.metrics.comparison.group_overlap import group_overlap
from xai_brain.statistics.cluster_tables import cluster_table, significant_clusters
from xai_brain.statistics.group import scale, smooth, voxelwise_test
from xai_brain.statistics.group_design import GroupError, common_output, make_design
from xai_brain.statistics.map_rows import MapRows, describe

SHAPE = (9, 10, 11)


def people(n=40, seed=0, **columns):
    rng = np.random.default_rng(seed)
    labels = np.where(np.arange(n) % 2, "male", "female")
    table = {"participant_id": [f"sub-{i:02d}" for i in range(n)], "label": labels}
    table |= {"age": rng.uniform(20, 80, n), "icv_ml": 1400 + 150 * (labels == "male") + rng.normal(0, 90, n)}
    table |= {"site": np.array(["Guys", "HH", "IOP"])[rng.integers(0, 3, n)]}
    return pd.DataFrame({**table, **columns})


def rows_of(values):
    rows = MapRows(*values.shape)
    for i, one in enumerate(values):
        rows[i] = one
    return rows


def compared(values, table, confounds=(), **settings):
    design = make_design(table, ("female", "male"), confounds)
    return voxelwise_test(rows_of(values), np.flatnonzero(design.kept), design, **settings)


def test_progress_covers_all_voxels():
    values = np.random.default_rng(1).normal(3, 2, (40, 5000)).astype(np.float32)
    blocks = []
    compared(values, people(), n_perm=19, progress=lambda found: blocks.extend(found) or found)
    assert np.array_equal(np.concatenate(blocks), np.arange(5000))
    assert len(blocks) > 1


def test_t_without_confounds_is_that_of_scipy():
    table = people()
    values = np.random.default_rng(1).normal(3, 2, (40, 5000)).astype(np.float32)
    male = (table["label"] == "male").to_numpy()
    expected = stats.ttest_ind(values[male].astype(float), values[~male].astype(float)).statistic
    # maps so small that their squares are not float32 numbers
    for factor in (np.float32(1), np.float32(2.0**-90)):
        test = compared(values * factor, table, n_perm=0)
        np.testing.assert_allclose(test.t, expected, rtol=1e-6, atol=1e-6)
    means = values[male].mean(0, dtype=float) - values[~male].mean(0, dtype=float)
    np.testing.assert_allclose(test.effect / 2.0**-90, means, rtol=1e-6, atol=1e-9)
    assert not test.logp_fwe.any()
    assert test.threshold(0.05) == np.inf


def test_t_with_confounds_is_that_of_ordinary_least_squares():
    table = people()
    rng = np.random.default_rng(2)
    values = (rng.normal(size=(40, 300)) + 0.05 * table["age"].to_numpy()[:, None]).astype(np.float32)
    test = compared(values, table, ["age", "icv_ml", "site"], n_perm=0)
    sites = pd.get_dummies(table["site"], drop_first=True).to_numpy(float)
    tested = (table["label"] == "male").to_numpy(float)
    x = np.column_stack([tested, np.ones(40), table[["age", "icv_ml"]], sites])
    y = values.astype(float)
    beta, rss, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    error = np.sqrt(rss / (40 - rank) * np.linalg.inv(x.T @ x)[0, 0])
    assert rank == 6
    np.testing.assert_allclose(test.t, beta[0] / error, rtol=1e-6, atol=1e-6)


def test_blocks_on_any_number_of_cores_give_what_nilearn_gives_for_the_whole(monkeypatch):
    from nilearn.mass_univariate import permuted_ols

    from xai_brain.statistics import group

    table = people()
    values = np.random.default_rng(3).normal(size=(40, 530)).astype(np.float32)
    values[:, 100:130] += 0.9 * (table["label"] == "male").to_numpy()[:, None]
    design = make_design(table, ("female", "male"), ["age"])
    whole = permuted_ols(
        design.tested, values.astype(float), design.confounds, n_perm=120, random_state=4, output_type="dict"
    )
    monkeypatch.setattr(group, "BLOCK", 64)
    monkeypatch.setattr(group, "PARALLEL_FROM", 0)
    for n_jobs in (1, 2):
        test = compared(values, table, ["age"], n_perm=120, random_state=4, n_jobs=n_jobs)
        np.testing.assert_allclose(test.t, whole["t"][0], rtol=1e-9)
        np.testing.assert_allclose(test.null_max_t, whole["h0_max_t"][0], rtol=1e-9)
        np.testing.assert_allclose(test.logp_fwe, whole["logp_max_t"][0], rtol=1e-9)
        above = np.abs(test.t) > test.threshold(0.05)
        assert above.any()
        np.testing.assert_array_equal(above, 10**-test.logp_fwe <= 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("confounds", [[], ["age", "site"]])
def test_under_the_null_the_family_wise_error_is_that_asked_for(confounds):
    rng = np.random.default_rng(5)
    table, n_wrong = people(24), 0
    for run in range(200):
        smooth_noise = rng.normal(size=(24, 300)).cumsum(1) / 10 + 0.02 * table["age"].to_numpy()[:, None]
        shuffled = table.assign(label=rng.permutation(table["label"]))
        test = compared(smooth_noise, shuffled, confounds, n_perm=99, random_state=run)
        n_wrong += (np.abs(test.t) > test.threshold(0.05)).any()
    assert 0.02 <= n_wrong / 200 <= 0.09


def ball(shape, affine, centre_mm, radius_mm):
    mm = nib.affines.apply_affine(affine, np.stack(np.indices(shape), -1))
    return np.linalg.norm(mm - centre_mm, axis=-1) <= radius_mm


@pytest.mark.parametrize("more", [{}, {"tfce": True, "cluster_p": 0.001}])
def test_a_planted_difference_is_found_at_its_place_and_nowhere_else(more):
    affine, shape = awkward_affine(), (15, 18, 13)
    centre = nib.affines.apply_affine(affine, [6, 9, 6])
    brain, truth = np.ones(shape, bool), ball(shape, affine, centre, 5.0)
    brain[:2] = False
    table = people(60)
    values = np.random.default_rng(6).normal(size=(60, *shape))
    values[:, truth] += 1.5 * (table["label"] == "female").to_numpy()[:, None]
    brain_img = nib.Nifti1Image(brain.astype(np.uint8), affine)
    test = compared(values[:, brain], table, ["age"], n_perm=199, brain_img=brain_img, **more)
    found, t, logp = np.zeros(shape, bool), np.zeros(shape), np.zeros(shape)
    t[brain], logp[brain] = test.t, test.logp_fwe
    found[brain] = np.abs(test.t) > test.threshold(0.05)
    assert not (found & ~truth).any()
    assert (found & truth).sum() > 0.8 * truth.sum()
    images = [nib.Nifti1Image(values, affine) for values in (t, logp)]
    table = cluster_table(images[0], test.threshold(0.05), 1, images[1])
    main = table.iloc[0]
    assert main["peak_t"] == pytest.approx(t.min())
    assert np.linalg.norm(main[["x_mm", "y_mm", "z_mm"]].to_numpy(float) - centre) <= 5.0
    assert main["logp_fwe"] == pytest.approx(np.log10(200))
    assert table["size_mm3"].sum() == pytest.approx(found.sum() * 2.0 * 1.5 * 2.5, abs=len(table))
    for name in ("logptfce", "logpclustersize", "logpclustermass") if more else ():
        strongest = np.zeros(shape)
        strongest[brain] = test.more[name]
        assert strongest[truth].max() > -np.log10(0.05)
        assert strongest[truth].mean() > 10 * strongest[brain & ~truth].mean()


def test_the_cluster_table_knows_both_signs_and_millimetres():
    affine = awkward_affine()
    t = np.zeros((12, 14, 16))
    t[3, 4, 5], t[3, 4, 6], t[8, 9, 10] = 6.0, 5.0, -7.0
    table = cluster_table(nib.Nifti1Image(t, affine), 4.0, 1)
    assert list(table["cluster"]) == ["1", "2"]
    assert list(table["peak_t"]) == [6.0, -7.0]
    assert list(table["size_mm3"]) == [15, 7]  # voxels of 7.5 mm3, rounded down by nilearn
    world = nib.affines.apply_affine(affine, [[3, 4, 5], [8, 9, 10]])
    np.testing.assert_allclose(table[["x_mm", "y_mm", "z_mm"]], world, atol=1e-4)
    labels = np.zeros(t.shape, np.int16)
    labels[8, 9, 10], labels[3, 4, 6] = 300, 7
    names = pd.DataFrame({"index": [7, 300], "name": ["beside", "Hippocampus"]})
    atlas = Atlas(nib.Nifti1Image(labels, affine), names)
    named = cluster_table(nib.Nifti1Image(t, affine), 4.0, 1, atlas=atlas)
    assert named["region"].isna().tolist() == [True, False]
    assert named["region"][1] == "Hippocampus"
    assert len(cluster_table(nib.Nifti1Image(t, affine), np.inf, 1)) == 0
    t[8, 9, 10] = 0
    assert list(cluster_table(nib.Nifti1Image(t, affine), 5.0, 1)["peak_t"]) == [6.0]


def test_small_clusters_are_neither_listed_nor_outlined():
    t = np.zeros((12, 14, 16))
    t[1:3, 2:4, 5], t[6, 6, 6:9], t[9, 9, 9], t[10, 10, 10] = 5.0, -7.0, 8.0, 8.0  # 4 voxels, 3, 1 and 1
    t[3, 2, 5] = -6.0  # beside the first cluster, but of the other sign
    img = nib.Nifti1Image(t, awkward_affine())
    for least, sizes, n_smaller in [(1, [1, 1, 4, 3, 1], 0), (2, [4, 3], 3), (4, [4], 4), (5, [], 5)]:
        listed, n = significant_clusters(t, 4.0, least)
        assert (int(listed.sum()), n) == (sum(sizes), n_smaller)
        assert not listed[t == 0].any()
        peaks = cluster_table(img, 4.0, least)["peak_t"].tolist()
        assert len(peaks) == len(sizes)
    assert significant_clusters(t, 5.0, 4)[0].sum() == 0  # values at the threshold are not above it


def test_confounds_that_say_nothing_are_dropped_and_told():
    table = people(site="HH", scanner=["Philips"] * 40, year=2006)
    table["months"] = 12 * table["age"]
    design = make_design(table, ("female", "male"), ["age", "site", "scanner", "year", "months", "icv_ml"])
    assert design.names == ["age", "icv_ml"]
    same = "the same for all"
    assert design.dropped == {"site": same, "scanner": same, "year": same, "months": "follows from age"}
    assert design.dof == 40 - 2 - 2
    np.testing.assert_allclose(design.confounds.mean(0), 0, atol=1e-12)
    numbered = make_design(people(fold=np.arange(40) % 3 + 1), ("female", "male"), ["fold"])
    assert numbered.names == ["fold=2", "fold=3"]


def test_subjects_without_a_value_are_left_out_and_named():
    table = people()
    table.loc[[3, 8], "age"] = np.nan
    table.loc[8, "site"] = None
    design = make_design(table, ("female", "male"), ["age", "site"])
    assert design.left_out == {"sub-03": "no age", "sub-08": "no age"}
    assert design.kept.sum() == 38
    values = np.random.default_rng(7).normal(size=(40, 20)).astype(np.float32)
    without = table.drop([3, 8]).reset_index(drop=True)
    kept = np.delete(values, [3, 8], axis=0)
    expected = compared(kept, without, ["age", "site"], n_perm=0).t
    np.testing.assert_allclose(compared(values, table, ["age", "site"], n_perm=0).t, expected, rtol=1e-9)
    with pytest.raises(GroupError, match="confound age: no subject has a value"):
        make_design(table.assign(age=np.nan), ("female", "male"), ["age"])


@pytest.mark.parametrize(
    ("change", "confounds", "message"),
    [
        (
            {"scanner": np.where(np.arange(40) % 2, "A", "B")},
            ["age", "scanner"],
            "separate female from male without",
        ),
        ({}, ["weight"], "confound weight: there is no such column"),
        ({"label": ["female"] * 39 + ["male"]}, [], "39 female, 1 male: at least 2"),
        ({"ward": [f"w{i // 2}" for i in range(40)]}, ["ward", "age", "icv_ml"], None),
        ({"ward": [f"w{i}" for i in range(39)] + ["w38"]}, ["ward"], "too few|tell female from male"),
    ],
)
def test_comparisons_that_cannot_be_made_are_refused(change, confounds, message):
    table = people(**change)
    if message is None:
        assert make_design(table, ("female", "male"), confounds).dof == 40 - 2 - 21
        return
    with pytest.raises(GroupError, match=message):
        make_design(table, ("female", "male"), confounds)


def about(target="male", output="logit_difference", rule="male"):
    return {"TargetName": target, "Output": output, "TargetRule": rule}


def test_only_maps_of_one_common_output_are_compared():
    assert common_output([about(), about()]) == "male"
    settings = r"explain\.target=<one class> explain\.output=logit_difference"
    with pytest.raises(GroupError, match=f"different classes .female and male.*{settings}"):
        common_output([about("male", rule="predicted"), about("female", rule="predicted")])
    with pytest.raises(GroupError, match=f"probability of male; .*{settings}"):
        common_output([about(output="probability")])
    with pytest.raises(GroupError, match=f"the predicted class, here male always; .*{settings}"):
        common_output([about(rule="predicted")])


def test_mean_spread_and_median_are_those_of_numpy():
    values = np.random.default_rng(8).normal(5, 2, (7, 45_000)).astype(np.float32)
    chosen = np.array([0, 2, 3, 6])
    found = describe(rows_of(values), chosen)
    np.testing.assert_allclose(found["mean"], values[chosen].mean(0, dtype=float), rtol=1e-6)
    np.testing.assert_allclose(found["sd"], values[chosen].std(0, ddof=1, dtype=float), rtol=1e-5)
    np.testing.assert_allclose(found["median"], np.median(values[chosen], 0), rtol=1e-6)
    assert not describe(rows_of(values), chosen[:1])["sd"].any()


def test_smoothing_has_its_width_in_millimetres_and_keeps_the_rim():
    affine, shape = awkward_affine(), (30, 40, 24)
    brain = np.zeros(shape, bool)
    brain[:, :25] = True
    assert np.allclose(smooth(np.where(brain, 3.0, 99.0), affine, 8.0, brain), np.where(brain, 3.0, 0))
    point = np.zeros(shape)
    point[15, 20, 12] = 1
    smoothed = smooth(point, affine, 8.0, np.ones(shape, bool))
    # half of the maximum at 4 mm from the centre, along each axis of the voxels
    for axis, spacing in enumerate((2.0, 1.5, 2.5)):
        step = np.zeros(3, int)
        step[axis] = 2
        expected = np.exp(-4 * np.log(2) * (2 * spacing / 8.0) ** 2)
        there = smoothed[tuple(np.array([15, 20, 12]) + step)]
        assert there / smoothed[15, 20, 12] == pytest.approx(expected, rel=0.02)
    np.testing.assert_array_equal(smooth(point, affine, 0.0, brain), point)


def test_scaling_of_a_subject():
    values = np.array([-3.0, 0.0, 4.0, 0.0])
    assert scale(values, "none") is values
    np.testing.assert_allclose(scale(values, "l2"), values / 2.5)
    np.testing.assert_allclose(scale(values, "rank"), [-0.375, 0.0, 0.375, 0.0])
    assert not scale(np.zeros(4), "l2").any()
    with pytest.raises(GroupError, match=r"scaling=max: one of none, l2, rank"):
        scale(values, "max")


def test_voxels_without_variance_are_left_out_of_the_null():
    table = people()
    values = np.random.default_rng(9).normal(size=(40, 12)).astype(np.float32)
    values[:, 2], values[:, 5] = 0, 7
    values[:, 9] = (table["site"] == "HH") * 2 + 1
    test = compared(values, table, ["site"], n_perm=19)
    assert test.n_constant == 3
    assert not test.t[[2, 5, 9]].any()
    assert np.isfinite(test.null_max_t).all()
    with pytest.raises(GroupError, match="the same in all subjects"):
        compared(values[:, [2, 5]], table, n_perm=19)


def test_overlap_of_equal_opposite_and_unrelated_maps():
    rng = np.random.default_rng(10)
    reference = rng.normal(size=20_000)
    for same in (reference, -3 * reference):
        found = {(r["metric"], r["top_percent"]): r for r in group_overlap(same, reference)}
        assert found["dice", 10]["value"] == 1
        assert found["dice_auc", None]["value"] == pytest.approx(1)
        assert found["spearman", None]["value"] == pytest.approx(1)
    assert found["dice_auc", None]["chance"] == pytest.approx((0.01 + 0.5) / 2)  # of a straight line
    unrelated = {r["metric"]: r for r in group_overlap(rng.normal(size=20_000), reference)}
    assert unrelated["dice_auc"]["value"] == pytest.approx(0.255, abs=0.02)
    assert abs(unrelated["spearman"]["value"]) < 0.03
    assert group_overlap(np.zeros(20), reference[:20]) == []


def numbers(n=40, seed=0, **columns):
    """A table whose column ``target`` is a number."""
    rng = np.random.default_rng(seed)
    return people(n, seed, target=1950 + 20 * rng.normal(size=n), **columns)


def test_t_and_slope_of_a_number_are_those_of_ordinary_least_squares():
    table = numbers()
    rng, number = np.random.default_rng(2), table["target"].to_numpy()
    values = (rng.normal(size=(40, 200)) + 0.02 * (number[:, None] - 1950)).astype(np.float32)
    design = make_design(table, ["year"], ["age", "site"])
    test = voxelwise_test(rows_of(values), np.arange(40), design, n_perm=0)
    sites = pd.get_dummies(table["site"], drop_first=True).to_numpy(float)
    x = np.column_stack([number - number.mean(), np.ones(40), table["age"], sites])
    beta, rss, rank, _ = np.linalg.lstsq(x, values.astype(float), rcond=None)
    error = np.sqrt(rss / (40 - rank) * np.linalg.inv(x.T @ x)[0, 0])
    assert design.dof == 40 - rank == 35
    np.testing.assert_allclose(test.t, beta[0] / error, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(test.effect, beta[0], rtol=1e-5, atol=1e-8)


def test_t_of_a_number_without_confounds_follows_from_the_correlation():
    table, values = numbers(), np.random.default_rng(3).normal(size=(40, 50)).astype(np.float32)
    test = voxelwise_test(rows_of(values), np.arange(40), make_design(table, ["year"]), n_perm=0)
    r = np.array([stats.pearsonr(column, table["target"]).statistic for column in values.T.astype(float)])
    np.testing.assert_allclose(test.t, r * np.sqrt(38 / (1 - r**2)), rtol=1e-5, atol=1e-6)


def test_an_association_is_found_where_it_is_and_p_is_two_sided():
    table = numbers()
    values = np.random.default_rng(4).normal(size=(40, 300)).astype(np.float32)
    z = stats.zscore(table["target"].to_numpy())
    values[:, 7] -= 2 * z
    design = make_design(table, ["year"], ["age"])
    test = voxelwise_test(rows_of(values), np.arange(40), design, n_perm=199)
    assert np.flatnonzero(np.abs(test.t) > test.threshold(0.05)).tolist() == [7]
    assert test.t[7] < 0
    assert 10 ** -test.logp_fwe[7] == pytest.approx(1 / 200)


@pytest.mark.parametrize(
    ("confounds", "columns", "message"),
    [
        (["copy"], lambda x: {"copy": x}, r"copy determine year \(R² = 1\.0000\): nothing is left to test"),
        (["line"], lambda x: {"line": 3 - 0.1 * x}, "line determine year"),
        (["rounded"], lambda x: {"rounded": x.round()}, "rounded determine year"),
        (["a", "b"], lambda x: {"a": np.arange(40.0) ** 2, "b": x - np.arange(40.0) ** 2}, "a, b determine"),
        (["code"], lambda x: {"code": [f"c{i}" for i in range(40)]}, "too few for 39 columns"),
    ],
)
def test_confounds_that_determine_the_number_are_refused(confounds, columns, message):
    table = numbers()
    table = table.assign(**columns(table["target"].to_numpy()))
    with pytest.raises(GroupError, match=message) as caught:
        make_design(table, ["year"], confounds)
    assert len(str(caught.value).splitlines()) == 1


def test_correlated_confounds_of_a_number_are_kept_and_missing_values_left_out():
    table = numbers()
    near = table["target"] + np.random.default_rng(1).normal(0, 5, 40)
    near[3] = np.nan
    table = table.assign(near=near)
    table.loc[5, "target"] = np.nan
    design = make_design(table, ["year"], ["near"])
    assert np.flatnonzero(~design.kept).tolist() == [3, 5]
    assert design.left_out == {"sub-03": "no near"}
    with pytest.raises(GroupError, match="40 subjects with 1 different values of year"):
        make_design(table.assign(target=7.0), ["year"])


def test_maps_of_a_number_must_explain_it():
    about = {"TargetName": "age", "Output": "value", "TargetRule": "age"}
    assert common_output([about, about], "value") == "age"
    with pytest.raises(GroupError, match="logit of male and value of age; all must explain"):
        common_output([about, {"TargetName": "male", "Output": "logit"}], "value")
