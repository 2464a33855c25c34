"""Networks of several seeds as one; a choice among kinds of networks in which no test subject has a say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from xai_brain.baselines.ensembles import chosen_within_folds, log_loss, mean_over_seeds
from xai_brain.statistics.classification import classification_metrics
from xai_brain.task.classification import Classification
from xai_brain.task.regression import Regression


def predictions_of(probabilities, seed=0, fold=0, targets=None, first=0):
    p = np.asarray(probabilities, float)
    table = pd.DataFrame({"participant_id": [f"sub-{first + i:03d}" for i in range(len(p))]})
    table = table.assign(session_id=np.nan, seed=seed, fold=fold)
    table["target"] = (p > 0.5).astype(int) if targets is None else targets
    return table.assign(prob_a=1 - p, prob_b=p)


def test_the_mean_of_seeds_is_that_of_their_logits():
    p, q = np.array([0.2, 0.9, 0.5]), np.array([0.6, 0.99, 0.0])
    target = [0, 1, 1]
    table = pd.concat([predictions_of(p, 0, targets=target), predictions_of(q, 3, targets=target)])
    together = mean_over_seeds(table)
    assert list(together) == list(table)
    assert together["seed"].tolist() == [0, 0, 0]
    assert together["target"].tolist() == target
    np.testing.assert_allclose(together["prob_b"][:2], expit((logit(p[:2]) + logit(q[:2])) / 2))
    np.testing.assert_allclose(together["prob_a"] + together["prob_b"], 1)
    assert 0 < together["prob_b"][2] < 1e-5  # one is certain; no logit is infinite
    assert log_loss(together.iloc[:1]) == pytest.approx(-np.log(together["prob_a"][0]))


def test_the_class_of_an_ensemble_is_that_of_its_own_probabilities():
    task = Classification(("a", "b"))
    tables = [predictions_of([p], seed, targets=[1]) for seed, p in enumerate((0.4, 0.95))]
    table = pd.concat([task.with_labels(each) for each in tables])
    assert table["predicted"].tolist() == ["a", "b"]
    together = mean_over_seeds(table)
    assert len(together) == 1  # seeds that predict different classes are one row
    assert together[["label", "predicted"]].to_numpy().tolist() == [["b", "b"]]
    assert list(together) == list(table)


def test_many_weak_networks_are_better_together():
    rng = np.random.default_rng(0)
    target = np.arange(200) % 2
    tables = [
        predictions_of(expit(2 * target - 1 + 2 * rng.standard_normal(200)), seed, targets=target)
        for seed in range(8)
    ]
    single = classification_metrics(pd.concat(tables), "x", n_bootstrap=20)["x/auroc"]
    together = classification_metrics(mean_over_seeds(pd.concat(tables)), "x", n_bootstrap=20)["x/auroc"]
    assert single < 0.8 < 0.95 < together


def test_networks_of_a_number_are_chosen_by_their_mean_absolute_error():
    def table(error, fold):
        people = pd.DataFrame({"participant_id": [f"sub-{fold}{i}" for i in range(4)], "session_id": np.nan})
        people = people.assign(seed=0, fold=fold, target=[20.0, 30.0, 40.0, 50.0])
        return people.assign(predicted_age=people["target"] + error * np.array([1, -1, 1, -1]))

    validation = {
        "network": pd.concat([table(2, 0), table(5, 1)]),
        "other": pd.concat([table(3, 0), table(4, 1)]),
    }
    test = {"network": pd.concat([table(9, 0), table(0, 1)]), "other": pd.concat([table(0, 0), table(9, 1)])}
    chosen, choices = chosen_within_folds(test, validation, Regression(("age",)))
    assert choices[choices["chosen"]][["fold", "name", "mae"]].values.tolist() == [
        [0, "network", 2],
        [1, "other", 4],
    ]
    assert (chosen["predicted_age"] - chosen["target"]).abs().tolist() == [9] * 8


def test_networks_are_chosen_by_their_validation_part_in_every_fold():
    rng = np.random.default_rng(1)
    target = np.array([0, 1] * 10)

    def table(signal, fold, seed=0):  # 0 knows nothing, 1 all, -1 the contrary
        p = expit(4 * signal * (2 * target - 1) + 0.1 * rng.standard_normal(20))
        return predictions_of(p, seed, fold, target, 100 * fold)

    validation = {
        "network": pd.concat([table(1, 0), table(1, 0, seed=1), table(0, 1), table(0, 1, seed=1)]),
        "other": pd.concat([table(0, 0), table(1, 1)]),
    }
    test = {  # what was good in validation is bad in the test part: it is taken all the same
        "network": pd.concat([table(-1, 0), table(-1, 0, seed=1), table(1, 1), table(1, 1, seed=1)]),
        "other": pd.concat([table(1, 0), table(-1, 1)]),
    }
    chosen, choices = chosen_within_folds(test, validation)
    assert choices[choices["chosen"]][["fold", "name"]].values.tolist() == [[0, "network"], [1, "other"]]
    assert choices.set_index(["fold", "name"])["n_validation"].to_dict() == {
        (0, "network"): 40, (0, "other"): 20, (1, "other"): 20, (1, "network"): 40,
    }  # fmt: skip
    assert chosen["fold"].value_counts().to_dict() == {0: 20, 1: 20}
    assert ((chosen["prob_b"] > 0.5) != (chosen["target"] == 1)).all()
    expected = mean_over_seeds(test["network"][test["network"]["fold"] == 0])
    pd.testing.assert_frame_equal(chosen[chosen["fold"] == 0], expected)
