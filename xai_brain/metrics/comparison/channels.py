"""Share of every channel of the inputs in a map, for maps with values of their own for each channel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from xai_brain.statistics.bootstrap import bootstrap_mean


def channel_shares(
    maps: Iterable[tuple[str, Iterable[Sequence[Sequence[np.ndarray]]]]], channels: Sequence[str]
) -> pd.DataFrame:
    """Share of every channel in the sum of the absolute values of a map.

    Parameters
    ----------
    maps : iterable of (method, participants)
        Of each participant one or several maps, each with one array (X, Y, Z) per channel.
    channels : sequence of str

    Returns
    -------
    pandas.DataFrame
        method, channel, mean (over participants), ci_low, ci_high, n (participants with a map that is not
        empty).
    """
    rows = []
    for method, participants in maps:
        shares = []
        for of_participant in participants:
            sums = np.zeros(len(channels))
            for parts in of_participant:
                sums += [np.abs(values).sum(dtype=np.float64) for values in parts]
            if sums.sum() > 0:
                shares.append(sums / sums.sum())
        for k, channel in enumerate(channels):
            estimates = bootstrap_mean(np.array([share[k] for share in shares]))
            rows.append((method, channel, *estimates, len(shares)))
    return pd.DataFrame(rows, columns=["method", "channel", "mean", "ci_low", "ci_high", "n"])
