"""Meaningful Perturbation: the smallest mask whose replacement removes the evidence for a class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from captum.attr import PerturbationAttribution
from torch import nn
from tqdm.auto import tqdm

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.inputs import as_targets
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.outputs import gives_probabilities
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.perturbation.mask_descent import MaskDescent, cosine_rates
from xai_brain.attribution.perturbation.mask_optimization import (
    MaskBatch,
    MaskState,
    Objective,
    optimize_masks,
    optimize_shared_mask,
)
from xai_brain.attribution.perturbation.masks import (
    brain_of,
    coarse_shape,
    mean_in,
    total_variation,
    upsampled,
)
from xai_brain.attribution.perturbation.perturbation_result import MEASURED, PerturbationResult, check_masks
from xai_brain.attribution.perturbation.replacement import ReplacementVolumes, mixed
from xai_brain.attribution.perturbation.score_scale import ScoreScale, on_scale
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.reference import Reference

MODES = {
    "deletion": "1 - perturbation mask, in [0, 1]: how much of the voxel was replaced to take the class away",
    "preservation": "in [0, 1]: how much of the voxel was kept to keep the class, the rest being replaced",
    "both": "in [0, 1]: how much of the voxel loses the class when replaced and keeps it when kept alone",
}
OF_NUMBERS = {  # where a predicted number is explained
    "deletion": "1 - perturbation mask, in [0, 1]: how much of the voxel was replaced to move the predicted "
    "number to the opposite end of the target",
    "preservation": "in [0, 1]: how much of the voxel was kept to keep the predicted number, the rest being "
    "replaced",
    "both": "in [0, 1]: how much of the voxel moves the predicted number when replaced and keeps it when "
    "kept alone",
}
START_SD = 0.02  # of the coarse nodes at the start, around 1/2
LEAST = 0.01  # a mask that replaces a smaller part of every voxel is empty


class MeaningfulPerturbation(PerturbationAttribution):
    """Mask of smallest area that removes the evidence for a class, for many participants at once.

    For each participant separately, with e = 1 - mask upsampled trilinearly from a coarse grid, it minimises
    score(x + e (fill - x)) + area_weight mean(e) + tv_weight TV(e). It starts at e = 1/2, where
    the score has a gradient even if the network is certain.

    Scores that are not probabilities are converted to a logistic scale, see `ScoreScale`. Of a predicted
    number it is the least tissue whose replacement moves the prediction towards the opposite end of the
    target, in units of the target's standard deviation, see `TargetDistribution.score_scale`. A map all of
    whose values are below 0.01 is set to 0: where a network is so certain that its probability has no
    gradient, nothing is found; the logit difference has one.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes); probabilities suit the default weights (see `ClassScore`).
    reference : Reference, optional
        Training subjects of the model's fold: for fills that are made of them, for the brain and the voxel
        size.
    fill : str or list of str, optional
        What replaces tissue, see `ReplacementVolumes`; of several, a random mixture at every step. Default:
        ``counterfactual_mean`` with a reference, else ``blur``.
    mode : {"deletion", "preservation", "both"}, default "deletion"
        Deletion: e is the least tissue whose replacement takes the class away. Preservation: the least
        tissue that keeps the class when everything else is replaced; its applied mask is e. Both: one e for
        both.
    n_iter : int, default 40
        At most, for each mask of a volume: `n_iter` times C for the masks of C channels
        (``share_mask=False``), which come to rest later. A subject whose masks rest is done earlier.
    lr : float, default 0.15
        Of Adam; falls to 0 as a cosine.
    area_weight, tv_weight, tv_beta : float, default 1, 3, 2
        Total variation is the sum over axes of the mean of the absolute difference of neighbouring voxels, to
        the power `tv_beta`.
    score_floor : float, optional
        A score below it is low enough.
    n_shifts : int, default 1
        Random moves of the perturbed volume per iteration; a mask that fools the network by fine detail does
        not survive them.
    shift_voxels : (int, int), default (0, 0)
        Smallest and largest move along each axis. Moves blur differences of shape: give
        them where the images are not aligned.
    moving : {"volume", "image"}, default "volume"
        See `BatchedScorer.gradients`; ``image`` needs ``fill="kan2020_blur"`` and ``mode="deletion"``.
    mask_spacing_voxels : int, default 4
        Distance of the coarse grid's nodes.
    restrict_to_brain : bool, default True
        The mask acts, and its area is measured, in the brain only: that of the reference, without one where
        the volume is not 0.
    share_mask : bool, default True
        Whether all channels of a volume have one mask; otherwise each has its own, and the area and TV of the
        masks are added.
    blur_sigma_mm : float, default 12
    voxel_size_mm : sequence of 3 float, optional
        For the blur; default: that of the reference.
    tolerance : float, default 0.01
        A mask none of whose coarse nodes changes by more, three times in a row, has come to rest.
    random_state : int, default 0
        Of the moves, the mixtures, noise and the start.
    chunk_size, precision
        See `BatchedScorer`.

    Examples
    --------
    >>> import torch
    >>> from xai_brain import Kan2020
    >>> network = Kan2020(input_shape=(30, 28, 26), channels=(2, 3, 4)).eval()
    >>> volumes = torch.rand(1, 1, 30, 28, 26)
    >>> method = MeaningfulPerturbation(network, fill="zero", n_iter=2)
    >>> method.attribute(volumes, target=1).shape
    torch.Size([1, 1, 30, 28, 26])

    References
    ----------
    Fong and Vedaldi, "Interpretable Explanations of Black Boxes by Meaningful Perturbation", ICCV 2017.
    Kan et al., "Interpretation of 3D CNNs for Brain MRI Data Classification", AIST 2020.
    """

    info = MethodInfo(
        name="MeaningfulPerturbation",
        value_meaning=MODES["deletion"],
        multiplies_by_inputs=True,
        citation=(
            "Fong RC, Vedaldi A. Interpretable explanations of black boxes by meaningful "
            "perturbation. ICCV 2017:3429–3437. arXiv:1704.03296."
        ),
        default_output="probability",
        trial_settings={"n_iter": 1},
    )

    def __init__(
        self,
        model: nn.Module,
        reference: Reference | None = None,
        fill: str | Sequence[str] | None = None,
        mode: str = "deletion",
        n_iter: int = 40,
        lr: float = 0.15,
        area_weight: float = 1.0,
        tv_weight: float = 3.0,
        tv_beta: float = 2.0,
        score_floor: float | None = None,
        n_shifts: int = 1,
        shift_voxels: Sequence[int] = (0, 0),
        moving: str = "volume",
        mask_spacing_voxels: int = 4,
        restrict_to_brain: bool = True,
        share_mask: bool = True,
        blur_sigma_mm: float = 12.0,
        voxel_size_mm: Sequence[float] | None = None,
        tolerance: float = 0.01,
        random_state: int = 0,
        chunk_size: int | None = None,
        precision: str = "float32",
    ):
        super().__init__(model)
        self.model = model
        if mode not in MODES:
            raise AttributionError(f"mode={mode!r}: one of {', '.join(MODES)}")
        if moving == "image" and (fill != "kan2020_blur" or mode != "deletion"):
            raise AttributionError(
                f"moving='image' with fill={fill!r} and mode={mode!r}: only fill='kan2020_blur' with "
                "mode='deletion' is defined when the image moves below the mask; set moving='volume'"
            )
        if score_floor is not None and reference is not None and reference.distribution is not None:
            raise AttributionError(
                f"score_floor={score_floor:g}: is for the evidence of a class, and not for a predicted number"
            )
        fill = fill or ("counterfactual_mean" if reference else "blur")
        is_number = reference is not None and reference.distribution is not None
        meaning = (OF_NUMBERS if is_number else MODES)[mode]
        self.reference, self.mode = reference, mode
        self.info = replace(self.info, value_meaning=meaning, per_channel=not share_mask)
        self.fills = ReplacementVolumes(fill, reference, blur_sigma_mm, voxel_size_mm)
        self.engine = BatchedScorer(model, chunk_size, precision)
        self.n_iter, self.lr, self.tolerance = n_iter, lr, tolerance
        self.area_weight, self.tv_weight, self.tv_beta = area_weight, tv_weight, tv_beta
        self.score_floor, self.mask_spacing_voxels = score_floor, mask_spacing_voxels
        self.n_shifts, self.shift_voxels, self.moving = n_shifts, shift_voxels, moving
        self.restrict_to_brain, self.random_state = restrict_to_brain, random_state
        self.share_mask = share_mask
        self.is_probability = True  # set for the model and inputs of every call
        self.scale = ScoreScale(self.engine, reference)

    @in_float32
    def attribute(
        self, inputs: torch.Tensor, target: int | torch.Tensor | None = None, show_progress: bool = False
    ) -> torch.Tensor:
        """Return 1 - mask, in [0, 1]; see `Method.attribute`."""
        maps = torch.empty_like(inputs, requires_grad=False)
        for evidence, result in zip(maps, self._results(inputs, target, show_progress), strict=True):
            evidence.copy_(result.evidence)
        return maps

    @in_float32
    def attribute_with_details(
        self, inputs: torch.Tensor, target: int | torch.Tensor | None = None
    ) -> tuple[torch.Tensor, list[dict[str, Any]]]:
        """As `attribute`, with the content of the sidecar of each participant."""
        maps, details = torch.empty_like(inputs, requires_grad=False), []
        for evidence, result in zip(maps, self._results(inputs, target), strict=True):
            evidence.copy_(result.evidence)
            details.append(result.details())
        return maps, details

    @in_float32
    def optimize(
        self, inputs: torch.Tensor, target: int | torch.Tensor | None = None, show_progress: bool = False
    ) -> list[PerturbationResult]:
        """Explain a batch, with the details of each participant.

        Parameters
        ----------
        inputs, target, show_progress
            As in `attribute`.

        Returns
        -------
        list of PerturbationResult
        """
        return list(self._results(inputs, target, show_progress))

    def _results(
        self, inputs: torch.Tensor, target: int | torch.Tensor | None, show_progress: bool = False
    ) -> Iterator[PerturbationResult]:
        """Yield one result after another, so that callers that need only the maps keep nothing else."""
        inputs = inputs.detach()
        n_iter = self.n_iter * (1 if self.share_mask else inputs.shape[1])
        targets = as_targets(target, inputs)
        brain = brain_of(inputs, self.reference, self.restrict_to_brain)
        with self.engine.prepared(inputs, targets), tqdm(total=len(inputs), disable=not show_progress) as bar:
            self.is_probability = gives_probabilities(self.model, inputs[:1])
            scale, shared = self._scale_of(inputs, targets, brain), len(brain) == 1

            def load(rows: torch.Tensor) -> MaskBatch:
                its_brain, generator = brain if shared else brain[rows], self._generator()
                fills = self.fills.make(inputs[rows], targets[rows], its_brain, generator).transpose(0, 1)
                return MaskBatch(inputs[rows], fills, targets[rows], scale[rows], its_brain, shared)

            objective, start = self._objective(inputs, n_iter)
            found = optimize_masks(
                len(inputs),
                self.engine.chunks.size,
                load,
                lambda n: MaskDescent(start.expand(n, -1, -1, -1, -1), cosine_rates(self.lr, n_iter)),
                objective,
                self.tolerance,
                bar.update,
            )
            histories = found.histories()
            for rows in torch.arange(len(inputs)).split(self.engine.chunks.size):
                batch = load(rows)
                with torch.no_grad():
                    evidence = upsampled(found.coarse[rows], inputs.shape) * batch.brain
                    evidence *= evidence.amax((1, 2, 3, 4), keepdim=True) >= LEAST
                yield from self._measured(batch, evidence, [histories[k] for k in rows.tolist()])

    def _measured(
        self, batch: MaskBatch, evidence: torch.Tensor, histories: list[tuple[list[float], str]]
    ) -> list[PerturbationResult]:
        scores = check_masks(
            *(self.engine, batch.images, batch.fills[:, 0], evidence, batch.targets, batch.brain),
            self._generator(),
        )
        scales = [None] * len(evidence) if self.is_probability else [(c, w) for c, w in batch.scale.tolist()]
        return [
            PerturbationResult(1 - mask, objective=objective, stop_reason=reason, scale=scale, **of_mask)
            for mask, (objective, reason), scale, of_mask in zip(
                evidence, histories, scales, scores, strict=True
            )
        ]

    @in_float32
    def optimize_group(
        self,
        inputs: torch.Tensor,
        target: int | torch.Tensor | None = None,
        n_iter: int = 20,
        subjects_per_step: int = 1,
        n_checked: int = 4,
    ) -> PerturbationResult:
        """One mask for all participants of a group, in their common space.

        Each iteration uses the next participants in random order, so that the cost does not depend on their
        number.

        Parameters
        ----------
        inputs, target
            As in `attribute`.
        n_iter : int, default 20
        subjects_per_step : int, default 1
        n_checked : int, default 4
            Subjects over which the scores of the result are means.

        Returns
        -------
        PerturbationResult

        References
        ----------
        Thibeau-Sutre et al., "Visualization approach to assess the robustness of neural networks for medical
        image classification", SPIE Medical Imaging 2020.
        """
        inputs = inputs.detach()
        targets = as_targets(target, inputs)
        brain = brain_of(inputs, self.reference, self.restrict_to_brain).amax(0, keepdim=True)
        order = torch.randperm(len(inputs), generator=self._generator())
        turns = torch.arange(n_iter * subjects_per_step).view(n_iter, subjects_per_step) % len(order)
        with self.engine.prepared(inputs, targets):
            self.is_probability = gives_probabilities(self.model, inputs[:1])
            fills = self.fills.make(inputs, targets, brain, self._generator()).transpose(0, 1)
            scale = self._scale_of(inputs, targets, brain)
            group = MaskBatch(inputs, fills, targets, scale, brain, shared_brain=True)
            objective, start = self._objective(inputs, n_iter)
            descent = MaskDescent(start, cosine_rates(self.lr, n_iter))
            subjects = order[turns].to(inputs.device)
            found = optimize_shared_mask(MaskState(group, descent, objective, self.tolerance, subjects))
            with torch.no_grad():
                evidence = upsampled(found.coarse, inputs.shape) * brain
            some = group.select(order[:n_checked].to(inputs.device))
            n_some = len(some.images)
            measured = self._measured(
                some, evidence.expand(n_some, -1, -1, -1, -1), found.histories() * n_some
            )
        means = {name: sum(getattr(one, name) for one in measured) / n_some for name in MEASURED}
        return replace(measured[0], **means)

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.random_state)  # the same for all participants

    def _objective(self, inputs: torch.Tensor, n_iter: int) -> tuple[Objective, torch.Tensor]:
        """Objective with the random numbers of all iterations, and the coarse mask of its first one."""
        generator = self._generator()
        shape = coarse_shape(inputs.shape, self.mask_spacing_voxels)
        n_masks = 1 if self.share_mask else inputs.shape[1]
        start = (0.5 + START_SD * torch.randn(1, n_masks, *shape, generator=generator)).to(inputs)
        weights = self.fills.mixtures(n_iter, generator).to(inputs)
        low, high = self.shift_voxels
        shifts: torch.Tensor | None = None
        if self.n_shifts > 1 or (low, high) != (0, 0):
            shifts = torch.randint(low, high + 1, (n_iter, self.n_shifts, 3), generator=generator)
            shifts = shifts.to(inputs.device)

        def objective(
            coarse: torch.Tensor, batch: MaskBatch, position: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            position = position.expand(len(batch.images))  # several participants may share a mask
            fills = mixed(batch.fills, weights[position])
            return self._value_and_gradient(
                coarse, batch, fills, None if shifts is None else shifts[position]
            )

        return objective, start

    def _value_and_gradient(
        self, coarse: torch.Tensor, batch: MaskBatch, fills: torch.Tensor, shifts: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Objective (K,) and its gradient (K, 1, X', Y', Z') for coarse masks, which share participants."""
        images, targets, n_masks = batch.images, batch.targets, len(coarse)
        coarse = coarse.detach().requires_grad_()
        evidence = upsampled(coarse, images.shape) * batch.brain  # (K, 1, X, Y, Z)
        applied = evidence.detach().expand(len(images), -1, -1, -1, -1)
        score, gradient = applied.new_zeros(len(images)), torch.zeros_like(applied)
        if self.mode != "preservation":
            lost = self.engine.gradients(
                images, fills, applied, targets, shifts, self.score_floor, self.moving
            )
            lost = lost if self.is_probability else on_scale(*lost, batch.scale)
            score, gradient = score + lost[0], gradient + lost[1]
        if self.mode != "deletion":
            kept = self.engine.gradients(fills, images, applied, targets, shifts, None, self.moving)
            kept = kept if self.is_probability else on_scale(*kept, batch.scale)
            score, gradient = score - kept[0], gradient - kept[1]
        regulariser = self.area_weight * mean_in(evidence, batch.brain) + self.tv_weight * total_variation(
            coarse, self.mask_spacing_voxels, self.tv_beta
        )
        regulariser = regulariser * coarse.shape[1]  # a voxel costs the same with masks for each channel
        share = n_masks / len(images)  # the mean over the participants that share a mask
        total = share * (evidence * gradient).sum() + regulariser.sum()
        (coarse_gradient,) = torch.autograd.grad(total, coarse)
        return (score.view(n_masks, -1).mean(1) + regulariser).detach(), coarse_gradient

    def _scale_of(self, inputs: torch.Tensor, targets: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
        """Scale of the scores of each participant, (N, 2); not used for probabilities."""
        scale = torch.zeros(len(targets), 2, device=targets.device)
        if self.is_probability:
            return scale
        distribution = self.reference.distribution if self.reference is not None else None
        if self.reference is not None and distribution is None:
            return self.scale.of(targets)
        for rows in torch.arange(len(inputs), device=inputs.device).split(self.engine.chunks.size):
            if distribution is not None:
                scale[rows] = distribution.score_scale(inputs[rows]).to(scale)
                continue
            its_brain = brain if len(brain) == 1 else brain[rows]
            fills = self.fills.make(inputs[rows], targets[rows], its_brain, self._generator())[0]
            replaced = torch.lerp(inputs[rows], fills, its_brain)
            scale[rows] = self.scale.of_images(inputs[rows], replaced, targets[rows])
        return scale
