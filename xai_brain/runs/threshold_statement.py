"""What corrected thresholds are compared with, and what exceeding them states."""

from __future__ import annotations

import pandas as pd

# names of the reference: networks of permuted labels, or copies of the network with randomised parameters
PERMUTED, RANDOMIZED = "permuted labels", "randomised parameters"
CLAIM = (  # beside every thresholded map
    "If the labels were unrelated to the images, a map would contain anything above the threshold with a "
    "probability of at most alpha. If they are related somewhere, this does not state which voxels are."
)
WEAKER_CLAIM = (
    "Weaker statement, from networks with randomised parameters: if the parameters of the network were in "
    "random order, a map would contain anything above the threshold with a probability of at most alpha. "
    "This is not the family-wise error for labels that are unrelated to the images, and it does not state "
    "which voxels are related to a label."
)


def threshold_text(reference: str) -> str:
    """What a threshold states, by the networks that it is compared with: `PERMUTED` or `RANDOMIZED`."""
    return WEAKER_CLAIM if reference == RANDOMIZED else CLAIM


def threshold_name(reference: str) -> str:
    """Name of a threshold with this reference in lists of thresholds."""
    return RANDOMIZED if reference == RANDOMIZED else "corrected"


def reference_of(thresholds: pd.DataFrame) -> str:
    """The reference of the rows of thresholds.tsv; in tables of older versions it is not stated."""
    return str(thresholds["reference"].iloc[0]) if "reference" in thresholds else PERMUTED
