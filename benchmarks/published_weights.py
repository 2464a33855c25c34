"""Sex of new participants from a file of weights, on images that keep brain size: how well it transfers.

    python benchmarks/published_weights.py --data /path/to/ixi --weights best_model_all   # of Kan et al. 2020
    python benchmarks/published_weights.py --data /path/to/ixi                            # without that file

The images of IXI are aligned to MNI152 such that all brains have the size of the template. Their size is
restored first: the affine of each is scaled about the anterior commissure by `scale_to_mni` to the power of
-1/3, as if the image had been aligned rigidly. All predictions are made by ``xai-brain predict
model.weights=<file>`` with its defaults: the published grid, and intensities scaled to a brain median of 700.

Without the published file, networks are trained on the restored images by cross-validation, each is saved
under the names of the published file, and each file predicts the participants of its test fold. Their AUROC
is then that of the same network out of fold, and their logits are those of the run before calibration.

The last line is JSON: `auroc` (mean over folds), `auroc_pooled`, `largest_difference` (between the rank of
the probabilities of file and run: 0).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from xai_brain import compose
from xai_brain.data.raw.heads import ACPC_MM
from xai_brain.models.calibrated import read_checkpoint
from xai_brain.runs.directory import read_tsv
from xai_brain.stages.predict import predict
from xai_brain.stages.train import train
from xai_brain.study.training.predict_settings import predict_settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path, default=Path("outputs/published_weights"))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--channels", type=int, nargs=3, default=[32, 64, 128])
    asked = parser.parse_args()
    table = read_tsv(asked.data / "participants.tsv")
    restore_brain_size(asked.data, table, asked.out / "images")
    if asked.weights:
        found = predicted(asked.weights, asked.out / "images", asked.out / "predicted")
        print(json.dumps({"auroc": auroc(found), "n": len(found)}))
    else:
        print(json.dumps(trained_here(asked, table)))


def restore_brain_size(data: Path, table: pd.DataFrame, root: Path) -> None:
    """Write the images with their brain size restored, and participants.tsv."""
    for row in table.itertuples():
        (path,) = (data / row.participant_id).rglob("*_T1w.nii.gz")
        folder = root / row.participant_id / "anat"
        target = folder / f"{row.participant_id}_space-MNI152NLin6Asym_desc-brain_T1w.nii.gz"
        if target.exists():
            continue
        factor = float(row.scale_to_mni) ** (-1 / 3)
        scaling = nib.affines.from_matvec(factor * np.eye(3), (1 - factor) * ACPC_MM[0])
        img = nib.load(path)
        folder.mkdir(parents=True, exist_ok=True)
        nib.Nifti1Image(np.asanyarray(img.dataobj), scaling @ img.affine).to_filename(target)
    table.to_csv(root / "participants.tsv", sep="\t", index=False, na_rep="n/a")


def predicted(weights: Path, root: Path, run_dir: Path, *more: str) -> pd.DataFrame:
    """Predictions of the participants below a folder by the command with its defaults."""
    settings = [f"model.weights={weights}", "data=bids", f"data.root={root}", f"run_dir={run_dir}"]
    return read_tsv(predict(predict_settings([*settings, *more])).predictions)


def trained_here(asked: argparse.Namespace, table: pd.DataFrame) -> dict[str, float]:
    """AUROC out of fold of networks that were saved as files."""
    channels = f"model.channels=[{','.join(map(str, asked.channels))}]"
    settings = ["data=bids", f"data.root={asked.out / 'images'}", "preprocessing=kan2020", channels]
    settings += [f"folds.n_folds={asked.folds}", f"trainer.max_epochs={asked.epochs}"]
    run = train(compose("train", [*settings, f"run_dir={asked.out / 'run'}"]))
    folds, ranks = [], []
    own = read_tsv(run.predictions)
    for fold in range(asked.folds):
        state = read_checkpoint(run.checkpoint(fold, 0)).network.state_dict()
        folder = asked.out / f"fold-{fold + 1}"
        test = own[own["fold"] == fold]
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({published_name(key): value for key, value in state.items()}, folder / "best_model_all")
        for participant_id in test["participant_id"]:
            link = folder / "images" / participant_id
            link.parent.mkdir(exist_ok=True)
            if not link.exists():
                link.symlink_to((asked.out / "images" / participant_id).resolve())
        mine = table[table["participant_id"].isin(test["participant_id"])]
        mine.to_csv(folder / "images" / "participants.tsv", sep="\t", index=False, na_rep="n/a")
        found = predicted(folder / "best_model_all", folder / "images", folder / "predicted", channels)
        folds.append(found)
        both = found.merge(test, on="participant_id", suffixes=("", "_run"))
        ranks.append((both["prob_male"].rank() - both["prob_male_run"].rank()).abs().max())
        print(f"fold {fold + 1}: AUROC {auroc(found):.3f}, n = {len(found)}", flush=True)
    return {
        "auroc": float(np.mean([auroc(found) for found in folds])),
        "auroc_pooled": auroc(pd.concat(folds)),
        "largest_difference": float(max(ranks)),
    }


def auroc(predictions: pd.DataFrame) -> float:
    return float(roc_auc_score(predictions["target"], predictions["prob_male"]))


def published_name(key: str) -> str:
    """block2.conv.weight -> hidden2.0.weight, block2.norm.weight -> hidden2.1.weight."""
    return key.replace("block", "hidden").replace(".conv.", ".0.").replace(".norm.", ".1.")


if __name__ == "__main__":
    main()
