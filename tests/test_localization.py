from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wasserstein_distance
from sklearn.metrics import average_precision_score

from xai_brain.metrics.comparison.regions import (
    chance_of_place,
    most_covered_region,
    region_means,
    region_place,
)
from xai_brain.metrics.comparison.transport import brain_blocks, earth_movers_distance, worst_distance
from xai_brain.metrics.localization import (
    average_precision,
    average_precision_of_chance,
    localization,
    ranked,
)
from xai_brain.metrics.true_effect import TrueEffect
from xai_brain.statistics.bootstrap import over_subjects

SHAPE, VOXEL_MM = (12, 14, 16), (2.0, 1.5, 3.0)
BRAIN = np.ones(SHAPE, bool)
BRAIN[0] = BRAIN[-1] = False
BOX = (slice(3, 6), slice(4, 8), slice(5, 10))  # 60 voxels
TRUTH = np.zeros(SHAPE, bool)
TRUTH[BOX] = True
LABELS = np.zeros(SHAPE, int)  # 105 in front of 300, the box in the middle of 7; some of the brain is none
LABELS[1:7, 2:10, 3:12], LABELS[7:11, 2:10, 3:12], LABELS[1:11, 10:13] = 7, 300, 105


@pytest.fixture(scope="module")
def effect():
    return TrueEffect(TRUTH, BRAIN, VOXEL_MM, tolerance_mm=3.0, labels=LABELS, max_blocks=4)


def test_a_perfect_map_scores_1(effect):
    scores = effect.scores(-5.0 * TRUTH)
    assert scores.pop("false_positive") == 0
    assert scores == pytest.approx(dict.fromkeys(scores, 1.0))
    assert [*scores, "false_positive"] == effect.names


def test_an_empty_map_scores_0(effect):
    assert effect.scores(np.zeros(SHAPE)) == dict.fromkeys(effect.names, 0.0)


def test_the_worst_map_has_emd_0(effect):
    # all weight in the block that is farthest from the box, at the high end of all axes
    worst = np.zeros(SHAPE)
    worst[10, 13, 15] = 1
    scores = effect.scores(worst)
    assert scores["emd"] == pytest.approx(0, abs=1e-5)
    assert scores["false_positive"] == 1


def test_random_maps_are_at_the_stated_chance(effect):
    rng = np.random.default_rng(0)
    found = pd.DataFrame(effect.scores(rng.random(SHAPE), i) for i in range(150))
    chance = effect.chance()
    assert list(found) == list(chance) == effect.names
    for name, level in chance.items():
        error = found[name].std() / np.sqrt(len(found))
        # of emd and the region hits the level itself is drawn
        assert abs(found[name].mean() - level) < 4 * error + 0.003, name


def test_a_constant_map_is_like_a_random_one_where_order_counts(effect):
    found = pd.DataFrame(effect.scores(np.ones(SHAPE), i) for i in range(120)).mean()
    chance = effect.chance()
    assert found["auprc"] == pytest.approx(chance["auprc"], rel=0.15)
    assert found["region_hit"] == pytest.approx(1 / 3, abs=0.15)
    assert found["emd"] == pytest.approx(chance["emd"], abs=0.01)
    assert found["false_positive"] == 0  # nothing is above anything


def test_pointing_within_a_tolerance_is_in_mm():
    peak = np.zeros(SHAPE)
    peak[6, 5, 7] = 1  # one voxel of 2 mm beside the box
    for tolerance_mm, hit in ((1.9, 0), (2.0, 1)):
        scores = TrueEffect(TRUTH, BRAIN, VOXEL_MM, tolerance_mm).scores(peak)
        assert (scores["pointing"], scores["pointing_near"]) == (0, hit)
    beyond = np.zeros(SHAPE)
    beyond[4, 5, 10] = 1  # 3 mm on another axis
    assert TrueEffect(TRUTH, BRAIN, VOXEL_MM, 2.9).scores(beyond)["pointing_near"] == 0
    assert TrueEffect(TRUTH, BRAIN, VOXEL_MM, 3.0).scores(beyond)["pointing_near"] == 1


def test_average_precision_by_hand_and_as_sklearns():
    # true at places 1, 3 and 6: (1/1 + 2/3 + 3/6) / 3
    assert average_precision(np.array([1, 0, 1, 0, 0, 1, 0], bool)) == pytest.approx(13 / 18)
    rng = np.random.default_rng(0)
    values, true = rng.random(500), rng.random(500) < 0.1
    assert average_precision(true[ranked(values)]) == pytest.approx(average_precision_score(true, values))


def test_average_precision_of_chance_is_the_mean_over_all_orders():
    # of 3 voxels with one true: (1 + 1/2 + 1/3) / 3; with two true: 1, (1 + 2/3)/2, (1/2 + 2/3)/2
    assert average_precision_of_chance(1, 3) == pytest.approx(11 / 18)
    assert average_precision_of_chance(2, 3) == pytest.approx((1 + 5 / 6 + 7 / 12) / 3)
    assert average_precision_of_chance(3, 3) == 1


def test_earth_movers_distance_by_hand():
    corners = np.array([[0, 0, 0], [3, 0, 0], [0, 4, 0]], float)
    a, b = np.array([1, 0, 0.0]), np.array([0, 0.5, 0.5])
    assert earth_movers_distance(a, b, corners) == pytest.approx(0.5 * 3 + 0.5 * 4)
    assert earth_movers_distance(b, np.array([0.25, 0.5, 0.25]), corners) == pytest.approx(0.25 * 4)
    assert earth_movers_distance(b, b, corners) == 0
    assert worst_distance(np.array([0, 1.0, 0]), corners) == 5


def test_earth_movers_distance_is_scipys_along_a_line():
    rng = np.random.default_rng(0)
    a, b, places = rng.dirichlet(np.ones(30)), rng.dirichlet(np.ones(30)), rng.normal(0, 40, 30)
    centers = places[:, None] * [2 / 7, 3 / 7, 6 / 7]  # unit vector: distances are those of the line
    expected = wasserstein_distance(places, places, a, b)
    assert earth_movers_distance(a, b, centers) == pytest.approx(expected, rel=1e-5)


def test_blocks_are_at_most_8_along_each_axis_with_centres_in_mm():
    block_of, centers = brain_blocks(BRAIN, VOXEL_MM)
    assert len(centers) == 8**3
    assert len(block_of) == BRAIN.sum()
    assert centers[0] == pytest.approx([2.0 * 1.5, 1.5 * 0.5, 3.0 * 0.5])  # voxels 1-2, 0-1 and 0-1
    assert np.unique(centers[:, 2]) == pytest.approx(3.0 * (2 * np.arange(8) + 0.5))
    small = np.zeros(SHAPE, bool)
    small[2:5, 3, 4:6] = True
    assert len(brain_blocks(small, VOXEL_MM)[1]) == 6  # every voxel is a block


def test_a_map_moved_by_a_block_has_the_distance_of_the_move():
    truth, moved = np.zeros(SHAPE, bool), np.zeros(SHAPE)
    truth[3:5, 4:6, 4:6] = True
    moved[3:5, 4:6, 8:10] = 2  # two blocks of 2 voxels of 3 mm
    effect = TrueEffect(truth, BRAIN, VOXEL_MM)
    assert effect.scores(moved)["emd"] == pytest.approx(1 - 12 / effect.worst_mm)


def test_region_means_with_sparse_and_large_labels():
    values, labels = np.array([1.0, 3, 10, 20, 99]), np.array([7, 7, 300, 300, 0])
    regions, means = region_means(values, labels)
    assert regions.tolist() == [7, 300]
    assert means.tolist() == [2, 15]
    assert [region_place(values, labels, region) for region in (300, 7)] == [1, 2]


def test_region_hit_by_hand(effect):
    assert effect.region == 7
    third = np.select([LABELS == 300, LABELS == 105, LABELS == 7], [3.0, 2.0, 1.0])
    scores = effect.scores(third)
    assert (scores["region_hit"], scores["region_hit_top3"]) == (0, 1)
    assert effect.chance()["region_hit_top3"] == 1  # there are three regions


def test_small_regions_come_first_more_often_by_chance():
    labels = np.repeat([1, 2, 3], [4, 400, 400])
    rng = np.random.default_rng(0)
    drawn = [region_place(rng.normal(size=len(labels)), labels, 1) for _ in range(2000)]
    assert chance_of_place(labels, 1, 1) == pytest.approx(np.mean(np.array(drawn) == 1), abs=0.04)
    assert chance_of_place(labels, 1, 1) > 0.4
    total = sum(chance_of_place(labels, region, 1) for region in (1, 2, 3))
    assert total == pytest.approx(1, abs=0.01)


def test_the_planted_region_is_what_a_perfect_map_puts_first():
    true, labels = np.array([1, 1, 1, 1, 1, 0], bool), np.array([1, 1, 1, 2, 2, 1])
    assert most_covered_region(true, labels) == 2
    with pytest.raises(ValueError, match="no true voxel lies in a region"):
        most_covered_region(true, np.array([0, 0, 0, 0, 0, 4]))


def test_false_positive_is_what_exceeds_the_99th_percentile_nearby():
    near_values = np.zeros(SHAPE)
    effect = TrueEffect(TRUTH, BRAIN, VOXEL_MM, tolerance_mm=0)
    near_values[BOX] = 1 + np.arange(60).reshape(3, 4, 5)  # 99th percentile, next value up: 60
    for elsewhere, false_positive in ((60, 0), (61, 1)):
        near_values[9, 10, 12] = elsewhere
        assert effect.scores(near_values)["false_positive"] == false_positive
    # the highest of all is in the box with probability 60 / n
    assert effect.chance(n_maps=1)["false_positive"] == pytest.approx(1 - 60 / BRAIN.sum())


def test_messages_of_wrong_input():
    with pytest.raises(ValueError, match="no true voxel lies in the brain"):
        TrueEffect(~BRAIN, BRAIN, VOXEL_MM)
    with pytest.raises(ValueError, match=r"labels: shape \(1, 14, 16\)"):
        TrueEffect(TRUTH, BRAIN, VOXEL_MM, labels=LABELS[:1])
    with pytest.raises(ValueError, match="region=8: has no voxel"):
        TrueEffect(TRUTH, BRAIN, VOXEL_MM, labels=LABELS, region=8)


def test_a_figure_of_a_report_counts_only_subjects_with_a_value():
    found = over_subjects(np.array([0.2, np.nan, 0.6]), np.array([0.1, 0.9, 0.3]))
    assert (found["value"], found["chance"], found["n_subjects"]) == pytest.approx((0.4, 0.2, 2))
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((0.2, 0.6))
    assert over_subjects(np.array([np.nan]))["n_subjects"] == 0


def test_mass_rank_and_pointing_are_quantus():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it imports warns
        missing = "OpenCV, which Quantus imports, needs libGL (apt-get install libgl1)"
        quantus = pytest.importorskip("quantus", reason=missing, exc_type=ImportError)
        metrics = {
            "rma": quantus.RelevanceMassAccuracy(abs=True, normalise=False),
            "rra": quantus.RelevanceRankAccuracy(abs=True, normalise=False),
            "pointing": quantus.PointingGame(abs=True, normalise=False),
        }
    maps = np.random.default_rng(0).normal(size=(6, *SHAPE))
    maps[:3][:, TRUTH] *= 3
    everywhere = np.ones(SHAPE, bool)
    ours = pd.DataFrame(localization(one, TRUTH, everywhere) for one in maps)
    # the public call checks shapes of 2-D images; what it computes per batch is for any number of axes
    a_batch, s_batch = np.abs(maps)[:, None], np.repeat(TRUTH[None, None], 6, 0)
    for name, metric in metrics.items():
        np.testing.assert_allclose(ours[name], metric.evaluate_batch(a_batch=a_batch, s_batch=s_batch))
