"""Sentences for the methods section of a paper about networks that predict a number."""

from __future__ import annotations

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.number_verdict import MEAN, NETWORK, number_scores
from xai_brain.reporting.sections.number_prediction import words_of
from xai_brain.reporting.wording import listed, with_interval

LOSSES = {"mse": "the mean squared error", "l1": "the mean absolute error", "huber": "Huber's loss"}
LOSSES["soft_bins"] = "the Kullback-Leibler divergence from a distribution over bins (Peng et al. 2021)"


def is_number(contents: ReportContents) -> bool:
    """Whether the networks predict a number."""
    return contents.task.reported_as == "number"


def loss_in_words(contents: ReportContents) -> str:
    """Loss of training."""
    if not is_number(contents):
        return "the cross entropy"
    loss = LOSSES.get(contents.setting("task.loss_function", "mse"), "a loss")
    return f"{loss} of the standardised target (mean and SD of the training participants)"


def performance(contents: ReportContents) -> str:
    """Scores with their definitions, and values."""
    scores, text = number_scores(contents), []
    if contents.n_networks:
        text.append(
            "The participants were not used for training; the predictions of all "
            f"{contents.n_networks} networks were averaged."
        )
    if scores.mae is None or scores.r2 is None:
        return " ".join(text)
    text.append(
        "Performance was measured by the mean absolute error (MAE), the root of the mean squared error, R² "
        "(relative to the mean of the tested participants) and Pearson's r."
    )
    where = "For these participants" if contents.n_networks else f"Out of fold ({scores.kind})"
    text.append(f"{where}, the MAE was {with_interval(scores.mae)} and R² {with_interval(scores.r2)}.")
    if draws := contents.setting("evaluation.n_bootstrap"):
        text.append(f"Confidence intervals (95 %) are bootstrap intervals over participants ({draws} draws).")
    return " ".join(text)


def baselines(contents: ReportContents) -> str:
    """Regressors on the same folds."""
    table = contents.evaluation("baselines")
    names = [] if table is None else [name for name in table["name"].unique() if name != NETWORK]
    names = [str(name) for name in names if not str(name).startswith(NETWORK)]
    if not names:
        return ""
    text = [f"Baselines were fitted on the same folds: {listed(map(words_of, names))}."]
    scores = number_scores(contents)
    if MEAN in names and scores.mae_of_mean is not None:
        text.append(f"The MAE of the mean was {with_interval(scores.mae_of_mean)} (mean over folds).")
    text.append(
        "Differences of the MAE from the network were tested for the same participants by a paired t-test "
        "within folds, without correction for the number of baselines."
    )
    return " ".join(text)
