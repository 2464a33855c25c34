"""Random classes, strengths, distractors, confounds and sites of a planted effect.

All values are determined by a hash of the participant's id and do not depend on other properties or on the
order of the rows. Within each class they are assigned by rank, so that counts and moments are exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import numpy as np
import pandas as pd
from scipy.special import ndtri

from xai_brain.config.planted_effect import PlantedEffect, PlantedError

CLASS_NAMES = ("without", "with")


def draw(participant_ids: Iterable[str], settings: PlantedEffect) -> pd.DataFrame:
    """Random values of each participant.

    Parameters
    ----------
    participant_ids : iterable of str
        In any order; repeated ids are used once.
    settings : PlantedEffect

    Returns
    -------
    pandas.DataFrame
        Indexed by participant_id: target (0 without, 1 with; half and half), strength of the effect (0
        without; mean 1 and standard deviation `variation` with), distractor (its strength, 0 for participants
        without it), confound (mean 0, variance 1, correlation `confound_rho` with the class), site
        (from 0) and seed.
    """
    ids = sorted(set(participant_ids))
    if len(ids) < 4:
        raise PlantedError(f"{len(ids)} participants; planting needs two for each class, at least 4")
    with_effect = set(_shuffled(ids, "class", settings)[: len(ids) // 2])
    target = np.array([int(i in with_effect) for i in ids])
    position = {participant_id: k for k, participant_id in enumerate(ids)}
    strength, distractor, confound = np.zeros((3, len(ids)))
    site = np.zeros(len(ids), int)
    placed = 0
    for k in (0, 1):
        members = [i for i in ids if (i in with_effect) == bool(k)]

        def places(purpose: str, participants: list[str] = members) -> list[int]:
            return [position[i] for i in _shuffled(participants, purpose, settings)]

        if k == 1:
            strength[places("strength")] = 1 + settings.variation * _normal_scores(len(members))
        carriers = _shuffled(members, "distractor", settings)[: (len(members) + k) // 2]
        its_strength = 1 + settings.variation * _normal_scores(len(carriers))
        distractor[places("distractor strength", carriers)] = its_strength
        confound[places("confound")] = _normal_scores(len(members))
        site[places("site")] = (placed + np.arange(len(members))) % settings.n_sites
        placed += len(members)
    of_class = (target - target.mean()) / target.std()
    rho = settings.confound_rho
    confound = rho * of_class + np.sqrt(1 - rho**2) * confound
    columns = {"target": target, "strength": strength, "distractor": distractor, "confound": confound}
    columns |= {"site": site, "seed": [int(_digest(i, "seed", settings)[:15], 16) for i in ids]}
    return pd.DataFrame(columns, index=pd.Index(ids, name="participant_id"))


def _shuffled(ids: list[str], purpose: str, settings: PlantedEffect) -> list[str]:
    return sorted(ids, key=lambda i: _digest(i, purpose, settings))


def _digest(participant_id: str, purpose: str, settings: PlantedEffect) -> str:
    return sha256(f"{settings.random_state}/{purpose}/{participant_id}".encode()).hexdigest()


def _normal_scores(n: int) -> np.ndarray:
    """Quantiles of the normal distribution with mean 0 and standard deviation 1."""
    if n < 2:
        return np.zeros(n)
    scores = ndtri((np.arange(n) + 0.5) / n)
    return scores / scores.std()
