"""Table of a regional benchmark: means over participants and regions with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd

from xai_brain.statistics.bootstrap import over_subjects

ALL_REGIONS = "mean of all regions"
LEARNT_REGIONS = "mean of learned regions"
NETWORK = "network"  # in the column method: the test correlation of the regression
COLUMNS = ["region", "method", "metric", "mean", "ci_low", "ci_high", "n", "chance"]


def summarise(
    scores: pd.DataFrame, networks: pd.DataFrame, *, n_bootstrap: int = 1000, random_state: int = 0
) -> pd.DataFrame:
    """Means with 95 % bootstrap intervals over participants.

    Parameters
    ----------
    scores : pandas.DataFrame
        participant_id, region, method, metric, value, chance. All regions have the same participants.
    networks : pandas.DataFrame
        region, mean (Pearson's r of the test predictions), ci_low, ci_high, n.
    n_bootstrap, random_state : int

    Returns
    -------
    pandas.DataFrame
        `COLUMNS`. Rows of the networks (metric pearson_r), of every region, and of two means over regions: of
        all, and of those whose network has learned its measure (interval of r above 0). For these, the values
        of a participant are averaged over regions before participants are drawn. `n` is the number of
        participants with a value.
    """
    rows = [
        {**row, "method": NETWORK, "metric": "pearson_r", "chance": 0.0}
        for row in networks.to_dict("records")
    ]
    learned = learned_regions(networks)
    groups = {str(region): [region] for region in networks["region"]}
    groups |= {ALL_REGIONS: list(networks["region"])} | ({LEARNT_REGIONS: learned} if learned else {})
    for name, members in groups.items():
        part = scores[scores["region"].isin(members)]
        for (method, metric), values in part.groupby(["method", "metric"], sort=False):
            of_participant = values.groupby("participant_id")[["value", "chance"]].mean()
            found = over_subjects(
                of_participant["value"].to_numpy(),
                of_participant["chance"].to_numpy(),
                n_bootstrap,
                random_state,
            )
            n, mean = found.pop("n_subjects"), found.pop("value")
            if np.isfinite(mean):
                rows.append(
                    {"region": name, "method": method, "metric": metric, "mean": mean, "n": n, **found}
                )
    return pd.DataFrame(rows)[COLUMNS]


def learned_regions(networks: pd.DataFrame) -> list[str]:
    """Regions whose interval of the test correlation lies above 0."""
    return networks.loc[networks["ci_low"] > 0, "region"].tolist()


def networks_of_table(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the networks: region, mean, ci_low, ci_high, n."""
    return table.loc[table["method"] == NETWORK, ["region", "mean", "ci_low", "ci_high", "n"]]


def matrix(table: pd.DataFrame, metric: str, column: str = "mean") -> pd.DataFrame:
    """Methods in rows, regions and means in columns."""
    part = table[table["metric"] == metric]
    wide = part.pivot(index="method", columns="region", values=column)
    return wide.loc[list(dict.fromkeys(part["method"])), list(dict.fromkeys(part["region"]))]
