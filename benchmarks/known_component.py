"""Methods on a component with a known location that is added to the output of trained networks.

    pip install monai einops                          # brings DenseNet-121 and the transformer
    python benchmarks/known_component.py              # about half an hour on one CPU core
    python benchmarks/known_component.py --networks kan2020 --subjects 8

The network of the paper, DenseNet-121 and a vision transformer are trained on the embedded cohort, whose
effect lies in the left temporal lobe. The component (a high-pass filter, a ReLU and the mean over a sphere of
22 mm in the right temporal lobe) is added to the last logit, with a standard deviation of 0, 2 and 8 times
that of the logit. Tissue is replaced by its blur, or by the mean of the images whose component is small. The
relevance rank accuracy (RRA) is the share of true voxels among the highest ones, as many as there are true
voxels. Intervals are 95 % bootstrap intervals over participants of the test fold, on whom nothing was chosen.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from cohorts import RIGHT_MM, TrainedFold, planted, trained_fold

from xai_brain.attribution.network_outputs import AdaptedNetwork, output_kind
from xai_brain.parallel.memory import keep_freed_memory
from xai_brain.study.given.known_component import component_scores
from xai_brain.study.methods import method_settings

METHODS = [
    *("Saliency", "InputXGradient", "IntegratedGradients", "SmoothGrad", "GuidedBackprop", "DeepLift", "LRP"),
    *("GradCAM", "AttentionRollout", "AttentionRelevance", "TokenGradCAM", "AttnLRP"),
    *("Occlusion", "MeaningfulPerturbation", "RandomMap"),
]
TRAINING = {
    "kan2020": ["model=kan2020", "trainer.max_epochs=6", "trainer.lr=1e-3"],
    "densenet121": ["model=densenet121", "trainer.max_epochs=6", "trainer.lr=1e-3"],
    "transformer": [
        "model=custom",
        "model._target_=volume_transformer.VolumeTransformer",
        "trusted_modules=[volume_transformer]",
        "trainer.max_epochs=20",
        "trainer.lr=1e-3",
    ],
}


def network_of(name: str) -> TrainedFold:
    """A network of the embedded cohort; its volumes have voxels of 4 mm."""
    kept = [s for s in planted("intensity", 22) if not s.startswith(("model", "trainer"))]
    return trained_fold(
        f"component_{name}", [*kept, *TRAINING[name], "trainer.batch_size=8", "trainer.tensorboard=false"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=list(TRAINING), choices=list(TRAINING))
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--subjects", type=int, default=24, help="of the test fold")
    args = parser.parse_args()

    keep_freed_memory()  # as the stages do
    results: dict[str, Any] = {}
    for name in args.networks:
        fold = network_of(name)
        print(f"\n{name}: accuracy in the test fold {fold.accuracy:.3f} of {len(fold.test)} participants")
        volumes, affine = fold.last(args.subjects).volumes(), fold.reference.affine
        assert affine is not None
        adapted = AdaptedNetwork(fold.classifier)
        table = component_scores(
            adapted,
            output_kind("classes", adapted(volumes[:1])),
            volumes,
            affine.numpy(),
            method_settings(args.methods),
            target=1,
            center_mm=RIGHT_MM,
        )
        print(
            "\n| method | strength | replaced by | RRA | 95 % interval | chance |\n|---|---|---|---|---|---|"
        )
        for row in table.to_dict("records"):
            figures = f"{row['rra']:.3f} | {row['ci_low']:.3f} to {row['ci_high']:.3f} | {row['chance']:.3f}"
            shown = f"{row['reason']} | | " if row["reason"] else figures
            print(f"| {row['method']} | {row['strength']:g} | {row['fill']} | {shown} |", flush=True)
        results[name] = {"accuracy": fold.accuracy, "rows": json.loads(table.to_json(orient="records"))}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
