"""Pictures of all methods on one participant: ``python docs/_ext/gallery.py``, which ``make docs`` runs.

Two small networks, a convolutional one and a transformer, are trained on the embedded cohort with one effect
at a known place. Every method explains the class that the network predicts for the same participant of the
test fold. Two maps need a continuous target and come from a third cohort, in which the effect has a dose.
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
from gallery_pages import NETWORKS
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
ATTENTION = ("AttentionRollout", "AttentionRelevance", "TokenGradCAM", "AttnLRP")
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


def draw(values: np.ndarray, image: np.ndarray, affine: np.ndarray, brain: np.ndarray, path: Path) -> None:
    """Three planes through the centre of the effect, whose outline is black."""
    voxel = np.rint(nib.affines.apply_affine(np.linalg.inv(affine), CENTER_MM)).astype(int)
    size = nib.affines.voxel_sizes(affine)
    place = nib.affines.apply_affine(affine, np.moveaxis(np.indices(values.shape), 0, -1))
    effect = np.linalg.norm(place - CENTER_MM, axis=-1) <= RADIUS_MM
    scale = xb.ColourScale.of(np.where(brain, values, 0)[brain])
    low, high = np.percentile(image[brain], [1, 99.5])
    figure, axes = plt.subplots(1, 3, figsize=(6, 2.1), layout="constrained")
    for axis, (number, flip) in zip(axes, ((2, "L"), (1, "L"), (0, "P")), strict=True):
        planes = [np.take(each, voxel[number], axis=number).T for each in (image, values, effect, brain)]
        edges = np.delete(size, number)
        common = {"origin": "lower", "aspect": edges[1] / edges[0]}
        axis.imshow(np.where(planes[3], planes[0], np.nan), cmap="gray", vmin=low, vmax=high * 1.1, **common)
        axis.imshow(np.where(planes[3], planes[1], 0), **scale.matplotlib(), **common)
        axis.contour(planes[2], [0.5], colors="black", linewidths=1)
        axis.set_axis_off()
        axis.text(0.02, 0.98, flip, transform=axis.transAxes, va="top", fontsize=8)
    figure.savefig(path, dpi=90)
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
        participant = studies["cnn"][0].predictions.query("label == predicted")["participant_id"].iloc[0]
        scores = {}
        for name, (study, names) in studies.items():
            first = study.scores.iloc[0]
            scores[name] = f"{NETWORKS[name]} {first['metric']} {first['value']:.2f}"
            reference, image = study.reference(1), study.inputs([participant])[0, 0].numpy()
            brain = reference.brain_mask.numpy().reshape(image.shape)
            for method, values in explain(study, names, participant).items():
                draw(values, image, np.asarray(reference.affine), brain, target / f"{method}.png")
    seconds = time.process_time() - start
    about = {"participant": participant, "scores": ", ".join(scores.values()), "seconds": round(seconds)}
    (target / "gallery.json").write_text(json.dumps(about))
    print(json.dumps(about))


if __name__ == "__main__":
    main()
