"""Pictures of all methods on one participant: ``python docs/_ext/gallery.py``, which ``make docs`` runs.

Two small networks, a convolutional one and a transformer, are trained on the embedded cohort with one effect
at a known place. Every method explains the class that the network predicts for the same participant of the
test fold. Two baselines need a continuous target and come from a third cohort, in which the effect has a
dose.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pandas as pd
from gallery_pages import ATTENTION
from method_pages import methods

HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE.parent / "benchmarks"))  # a small transformer

import xai_brain as xb  # noqa: E402
import xai_brain.attribution as xa  # noqa: E402
from xai_brain.attribution.protocol import takes  # noqa: E402

TARGET = HERE / "_gallery"
CENTER_MM, RADIUS_MM = (-34.0, -20.0, -14.0), 22.0
EFFECT = {
    "effect_center_mm": list(CENTER_MM),
    "effect_radius_mm": RADIUS_MM,
    "effect_volume_change": 0.0,
    "effect_intensity_change": 0.7,
}
DPI, SIZE = 110, 12  # of the pictures and their labels, which are shown at half of their size
CONTINUOUS = ("CorrelationMap", "OppositeDifference")
FEWER: dict[str, dict[str, Any]] = {  # so that the pictures are made in a minute
    "RISE": {"n_masks": 300},
    "KernelShap": {"n_samples": 256},
    "Kan2020Perturbation": {"n_iter": 55},
    "AmortizedMasker": {"n_steps": 60},
    "ExpectedGradients": {"n_baselines": 8},
}


def boxes(reference: xb.Reference, edge_mm: float = 44.0) -> dict[str, Any]:
    """An atlas whose regions are boxes, for the method that needs one."""
    shape, affine = reference.brain_mask.shape[-3:], np.asarray(reference.affine)
    mm = np.einsum("ij,jxyz->ixyz", affine[:3, :3], np.indices(shape)) + affine[:3, 3, None, None, None]
    corner = np.floor((mm - np.asarray(CENTER_MM)[:, None, None, None]) / edge_mm + 0.5).astype(int)
    _, labels = np.unique(corner.reshape(3, -1), axis=1, return_inverse=True)
    labels = labels.reshape(shape) + 1
    index = np.unique(labels)
    table = pd.DataFrame({"index": index, "name": [f"box {number}" for number in index]})
    return {"labels_img": nib.Nifti1Image(labels.astype(np.int16), affine), "table": table}


def train(
    folder: Path, name: str, model: Any, data: dict[str, Any] | None = None, **settings: Any
) -> xb.Study:
    """Train one network on three quarters of a cohort of 96 participants."""
    cohort = xb.load_cohort("synthetic", n_subjects=96, **EFFECT, **(data or {})).prepare("t1w_4mm")
    split = {"folds": "hold_out", "fold_settings": {"test_fraction": 0.25}, "seeds": (1,)}
    trainer = {"tensorboard": False, **settings.pop("trainer", {})}
    return xb.cross_validate(cohort, model, run_dir=folder / name, trainer=trainer, **split, **settings)


def explain(study: xb.Study, names: list[str], participant: str) -> dict[str, np.ndarray]:
    """Map of every method for one participant, on the output that the method explains by default."""
    classifier, reference, inputs = study.network(1), study.reference(1), study.inputs([participant])
    has_classes = len(study.class_names) > 1
    outputs = {name: xa.ClassScore(classifier, name) for name in ("logit", "probability") if has_classes}
    target = int(classifier(inputs).argmax(1)) if has_classes else 0
    maps = {}
    for name in names:
        kind = getattr(xa, name)
        arguments = dict(FEWER.get(name, {}))
        if takes(kind, "reference"):
            arguments["reference"] = reference
        if name == "RegionAblation":
            arguments |= boxes(reference)
        network = outputs.get(kind.info.default_output, classifier)
        start = time.process_time()
        maps[name] = kind(network, **arguments).attribute(inputs, target=target)[0, 0].detach().numpy()
        print(f"{name}: {time.process_time() - start:.1f} s", flush=True)
    return maps


def planes(volume: np.ndarray, affine: np.ndarray) -> list[np.ndarray]:
    """Axial, coronal and sagittal plane through the centre of the effect."""
    voxel = np.rint(nib.affines.apply_affine(np.linalg.inv(affine), CENTER_MM)).astype(int)
    return [np.take(volume, voxel[axis], axis=axis).T for axis in (2, 1, 0)]


def draw_anatomy(image: np.ndarray, affine: np.ndarray, brain: np.ndarray) -> tuple[Any, Any]:
    """Figure and axes of the three planes of the T1w image, with the outline of the effect."""
    place = nib.affines.apply_affine(affine, np.moveaxis(np.indices(image.shape), 0, -1))
    effect = np.linalg.norm(place - CENTER_MM, axis=-1) <= RADIUS_MM
    low, high = np.percentile(image[brain], [1, 99.5])
    shown, limits = np.where(brain, image, np.nan), {"vmin": low, "vmax": high * 1.1}
    ratios = [plane.shape[1] for plane in planes(image, affine)]
    figure, axes = plt.subplots(1, 3, figsize=(6, 2.2), width_ratios=ratios, layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)
    tallest = np.isfinite(planes(shown, affine)[0]).any(axis=1).sum() + 6
    parts = zip(axes, planes(shown, affine), planes(effect, affine), ("LR", "LR", "PA"), strict=True)
    for axis, plane, inside, sides in parts:
        axis.imshow(plane, cmap="gray", origin="lower", **limits)
        axis.contour(inside, [0.5], colors="black", linewidths=1)
        centre = np.flatnonzero(np.isfinite(plane).any(axis=1)).mean()
        axis.set_ylim(centre - tallest / 2, centre + tallest / 2)  # the same scale in all planes
        axis.set_axis_off()
        for x, side in zip((0.04, 0.96), sides, strict=True):
            axis.text(x, 0.98, side, transform=axis.transAxes, va="top", ha="center", fontsize=SIZE)
    return figure, axes


def draw_t1(path: Path, *volumes: np.ndarray) -> None:
    """The T1w image without a map, with the colours of all maps."""
    figure, axes = draw_anatomy(*volumes)
    colours = xb.ColourScale(1.0, True).matplotlib()
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(colours["vmin"], colours["vmax"]), colours["cmap"])
    bar = figure.colorbar(scale, ax=axes, location="bottom", fraction=0.06, aspect=50, pad=0.02)
    bar.set_ticks([-1, 0, 1], labels=["−limit", "0 (transparent)", "limit"], fontsize=SIZE)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def draw_map(values: np.ndarray, path: Path, *volumes: np.ndarray) -> None:
    """A map on the T1w image, and the limit of its colours."""
    _, affine, brain = volumes
    inside = np.where(brain, values, 0)
    scale = xb.ColourScale.of(inside[brain])
    figure, axes = draw_anatomy(*volumes)
    for axis, plane in zip(axes, planes(inside, affine), strict=True):
        axis.imshow(plane, origin="lower", **scale.matplotlib())
    figure.supxlabel(f"limit {scale.limit:.2g}", fontsize=SIZE)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def main() -> None:
    mpl.use("Agg")
    start, target = time.process_time(), TARGET
    target.mkdir(parents=True, exist_ok=True)
    from volume_transformer import VolumeTransformer

    usual = [name for name in methods() if name not in (*ATTENTION, *CONTINUOUS)]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        cnn = {"model_settings": {"channels": [8, 16, 32]}, "max_epochs": 4, "batch_size": 4, "lr": 2e-3}
        vit = {"model_settings": {"patch": 9}, "max_epochs": 14, "batch_size": 4, "lr": 5e-4}
        dose = {"label": "dose", "task": "regression", "dose": True}
        studies = {
            "cnn": (train(home, "cnn", "kan2020", **cnn), usual),
            "vit": (train(home, "vit", VolumeTransformer, **vit), list(ATTENTION)),
            "dose": (train(home, "dose", "shallow", dose, max_epochs=3), list(CONTINUOUS)),
        }
        print(f"training: {time.process_time() - start:.0f} s of CPU", flush=True)
        chosen = studies["cnn"][0].predictions.query("label == predicted").iloc[0]
        participant, accuracy = chosen["participant_id"], {}
        for name, (study, names) in studies.items():
            if name != "dose":  # its maps do not use the network
                accuracy[name] = float(study.scores.set_index("metric")["value"]["accuracy"])
            reference, image = study.reference(1), study.inputs([participant])[0, 0].numpy()
            brain = reference.brain_mask.numpy().reshape(image.shape)
            volumes = (image, np.asarray(reference.affine), brain)
            if name == "cnn":
                draw_t1(target / "T1.png", *volumes)
            for method, values in explain(study, names, participant).items():
                draw_map(values, target / f"{method}.png", *volumes)
    seconds = round(time.process_time() - start)
    about = {"participant": participant, "label": chosen["label"], "accuracy": accuracy, "seconds": seconds}
    (target / "gallery.json").write_text(json.dumps(about))
    print(json.dumps(about))


if __name__ == "__main__":
    main()
