"""The maps of a study: images, means and comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xai_brain.config.build import change_settings, valid_choice
from xai_brain.config.setting import ConfigError
from xai_brain.metrics.comparison.channels import channel_shares
from xai_brain.runs.directory import read_tsv
from xai_brain.study.maps.comparisons import MapComparisons
from xai_brain.study.maps.files import path_of_channel
from xai_brain.study.maps.thresholded import ThresholdedMaps
from xai_brain.study.run_images import map_values
from xai_brain.study.settings import stage

if TYPE_CHECKING:
    from xai_brain.config.schema import Config
    from xai_brain.runs.directory import RunDirectory
    from xai_brain.study.thresholds.reference_networks import NullNetworks
    from xai_brain.viewer.slice_viewer import SliceViewer


class Maps(MapComparisons):
    """Attribution maps of the participants of a study, in MNI152 space.

    Values are raw and signed. Where several networks (seeds) explain a participant, every result is a mean
    over their maps, unless a seed is given; means over participants average the seeds and sessions of each
    participant first, and exclude empty maps (0 everywhere). A participant with several sessions has one
    map per session.

    Parameters
    ----------
    run_dir : str or Path
    methods : sequence of str, optional
        Default: all methods that have maps in the study.
    trusted_modules : sequence of str, optional
        See `xai_brain.open_study`.
    """

    _reference: Callable[[Config, RunDirectory], NullNetworks] | None = None

    def with_reference(self, networks: Callable[[Config, RunDirectory], NullNetworks]) -> Maps:
        """The same maps, with the reference networks of their thresholds; used by `xai_brain.explain`."""
        self._reference = networks
        return self

    def agreement(self) -> pd.DataFrame:
        """Similarity of every pair of methods: means over participants with 95 % intervals.

        Returns
        -------
        pandas.DataFrame
            method_a, method_b, metric, top_percent (share of voxels that is kept, where it applies), mean,
            ci_low, ci_high, n (participants).
        """
        if len(self.methods) < 2:
            raise ConfigError(f"agreement compares two methods or more; there is {self.methods[0]} only")
        table = self._summary("agreement")
        pairs = table["method"].str.split(" × ", expand=True)
        table = table.assign(method_a=pairs[0], method_b=pairs[1])
        table = table[table["method_a"].isin(self.methods) & table["method_b"].isin(self.methods)]
        columns = ["method_a", "method_b", "metric", "top_percent", "mean", "ci_low", "ci_high", "n"]
        return table[columns].reset_index(drop=True)

    def channel_shares(self) -> pd.DataFrame:
        """Share of every channel of the inputs in a map.

        See `xai_brain.metrics.comparison.channels.channel_shares`.

        Raises
        ------
        ConfigError
            The inputs have one channel, or a method has one map for all of them.
        """
        if not self.channels:
            raise ConfigError("channel_shares: the inputs of the network have one channel")

        def of_channels(path: Path, method: str) -> list[np.ndarray]:
            return [map_values(path_of_channel(path, method, name)) for name in self.channels]

        def participants(method: str) -> Iterator[list[list[np.ndarray]]]:
            rows = self._rows[self._rows["method"] == method]
            for _, paths in rows.groupby("participant_id")["path"]:
                yield [of_channels(path, method) for path in paths]

        return channel_shares(((name, participants(name)) for name in self.methods), self.channels)

    def localization(self) -> pd.DataFrame:
        """How well every method finds the true location, known for planted and synthetic effects.

        Returns
        -------
        pandas.DataFrame
            method, metric, mean, ci_low, ci_high, chance, n (participants).

        Raises
        ------
        ConfigError
            The true location is not known.
        """
        table = self._summary("localization")
        if table.empty:
            raise ConfigError(
                "the true location of an effect is not known; plant an effect (xai_brain.report_card)"
            )
        columns = ["method", "metric", "mean", "ci_low", "ci_high", "chance", "n"]
        return table.loc[table["method"].isin(self.methods), columns].reset_index(drop=True)

    def validate_masks(
        self, areas: Sequence[float] = (5, 10, 20), *, n_random: int = 5, retrain: bool = False
    ) -> pd.DataFrame:
        """Evaluate the networks on images that contain only the top-ranked voxels, or all other voxels.

        Voxels are ranked by maps of the training participants of each network.

        Parameters
        ----------
        areas : sequence of float, default (5, 10, 20)
            Sizes of the masks, percent of the brain.
        n_random : int, default 5
            Random masks of the same size and smoothness, for comparison.
        retrain : bool, default False
            Also train networks on the masked images.

        Returns
        -------
        pandas.DataFrame
            method, mask, area_percent, kept (mask or complement), control (map, random or none), retrained,
            metric, value, ci_low, ci_high and chance.
        """
        from xai_brain.study.evaluation.mask_validation import validate_run

        self._require_common_space("validate_masks")
        values = {"methods": self.methods, "areas": [float(area) for area in areas], "which": ["joint"]}
        values |= {"n_random": n_random, "retrain": retrain}
        changes = {f"evaluation.masks.{name}": value for name, value in values.items()}
        stage(validate_run)(change_settings(self._settings(), changes))
        return read_tsv(self._run.evaluation("mask_validation"))

    def threshold(
        self,
        alpha: float | None = None,
        *,
        n_perm: int | None = None,
        n_participants: int | None = None,
        blocks: Sequence[str] | None = None,
        statistic: str | None = None,
    ) -> ThresholdedMaps:
        """Voxels that exceed what networks show that were trained on permuted labels.

        The labels of the participants are permuted `n_perm` times, and networks are trained on them with the
        folds and the budget of the study. A map is divided by its root mean square in the brain; the
        threshold is a quantile of the maximum over the brain, in which every permuted network has the weight
        1 / (`n_perm` + 1) and the remaining weight lies at infinity.

        If no class differs from another, a map contains a voxel above the threshold with a probability of
        `alpha` at most (weak control of the family-wise error). If there is a difference somewhere, nothing
        is stated about the truth of a single voxel.

        A network that was trained elsewhere cannot be trained on permuted labels. Its reference are `n_perm`
        copies with randomised parameters, on the same images. This is a weaker statement: it compares the
        network with the same architecture with random parameters, and is no family-wise error under the
        hypothesis that labels and images are unrelated.

        The duration is stated before it is spent; results are kept, and an interrupted call goes on. The
        values given become settings of the study (``evaluation.threshold``). What is not given is a setting
        of the study: after ``xai-brain threshold``, a call without arguments reads its result.

        Parameters
        ----------
        alpha : float, optional
            At first 0.05.
        n_perm : int, optional
            Permutations of the labels, or networks with randomised parameters, at least 1 / `alpha` - 1; at
            first 39.
        n_participants : int, optional
            Participants who are explained in each permutation; at first 20.
        blocks : sequence of str, optional
            Columns of participants.tsv within whose values labels are permuted, such as site; numbers within
            quarters. Families (``group_column``) are always kept. At first none.
        statistic : {"max", "extent", "mass"}, optional
            The largest voxel, or extent or mass of clusters of voxels above twice the root mean square; at
            first "max".

        Returns
        -------
        ThresholdedMaps

        Raises
        ------
        ConfigError, AttributionError
            `n_perm` is too small for `alpha`; the network is not known, or has no parameters to randomise.
        """
        from xai_brain.study.thresholds.thresholds import threshold_run

        given: dict[str, Any] = {"alpha": alpha, "n_perm": n_perm, "n_participants": n_participants}
        given |= {"blocks": None if blocks is None else list(blocks), "statistic": statistic}
        settings = self._settings()
        known = settings.evaluation.threshold.methods
        given["methods"] = [m for m in self.methods if known is None or m in known] or self.methods
        changes = {f"evaluation.threshold.{key}": value for key, value in given.items() if value is not None}
        config = change_settings(settings, changes)
        networks = None if self._reference is None else self._reference(config, self._run)
        stage(partial(threshold_run, networks=networks))(config)
        return ThresholdedMaps(self)

    def view(self, participant_id: str | None = None) -> SliceViewer:
        """Viewer of all maps of the study, for JupyterLab.

        Parameters
        ----------
        participant_id : str, optional
            Participant that is shown first.
        """
        from xai_brain.viewer.slice_viewer import SliceViewer

        viewer = SliceViewer(self._run)
        viewer.maps = self  # a temporary folder exists as long as its maps
        if participant_id is not None:
            valid_choice("participant", participant_id, self.participants)
            viewer.show(participant_id)
        return viewer
