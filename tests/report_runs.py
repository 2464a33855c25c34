"""Runs of the tests of the report, and changes of their files."""

from __future__ import annotations

import json
import re
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import yaml

from xai_brain import compose, run
from xai_brain.config.saved import stage_settings
from xai_brain.data.layouts.synthetic import make_synthetic_cohort
from xai_brain.data.planted.synthetic_subject import SyntheticSettings
from xai_brain.io.nifti import load_img, save_img
from xai_brain.reporting.html_report import write_report
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, write_json, write_tsv
from xai_brain.stages.evaluate import evaluate

METHODS = ["GradCAM", "GuidedGradCAM", "LRP", "InputXGradient", "GradientShap"]
SMALL = [
    "preprocessing=t1w_4mm",
    "trainer.max_epochs=2",
    "trainer.batch_size=6",
    "model.channels=[2,3,4]",
    "evaluation.n_bootstrap=50",
]


def make_cohort(root):
    """BIDS folder of 12 participants with a planted effect, and one truncated image."""
    root = make_synthetic_cohort(root, SyntheticSettings(n_subjects=12, seed=2020))
    table = pd.read_csv(root / "participants.tsv", sep="\t")
    source = next(root.glob("sub-0001/anat/*T1w.nii.gz"))
    truncated = root / "sub-9999" / "anat" / source.name.replace("sub-0001", "sub-9999")
    truncated.parent.mkdir(parents=True)
    truncated.write_bytes(source.read_bytes()[:2000])
    extra = table.iloc[:1].assign(participant_id="sub-9999")
    pd.concat([table, extra]).to_csv(root / "participants.tsv", sep="\t", index=False)
    return root


def make_run(cohort, run_dir):
    """A finished run with baselines and a report; do not change it."""
    settings = [
        "data=bids",
        f"data.root={cohort}",
        "data.label=sex",
        "data.brain_size_column=brain_volume_ml",
        "data.on_error=skip",
        "folds.n_folds=3",
        "attribution=[grad_cam,guided_grad_cam,lrp,input_x_gradient,gradient_shap]",
        "attribution.GradientShap.n_samples=2",
        "baselines=[rbf_svm]",
    ]
    return run(compose("run", [*SMALL, *settings, f"run_dir={run_dir}"]))


def make_compared_run(complete, folder):
    """A copy of the run: by their sidecars all maps explain one output; with groups, regions, channels."""
    shutil.copytree(complete.path, folder / "run", ignore=shutil.ignore_patterns("report.html", "figures"))
    done = RunDirectory(folder / "run")
    for file in (done.path / "attributions").rglob("*_attribution.json"):
        output = {"TargetRule": "male", "TargetName": "male", "Output": "logit_difference"}
        write_json({**read_json(file), **output}, file)
    grid = load_img(next((done.path / "images").glob("*_T1w.nii.gz")))
    x_mm, y_mm, z_mm = np.moveaxis(
        nib.affines.apply_affine(grid.affine, np.stack(np.indices(grid.shape), -1)), -1, 0
    )
    box = (np.abs(x_mm) < 50) & (y_mm > -60) & (y_mm < 25) & (z_mm > -10) & (z_mm < 45)
    save_img(
        np.where(box, np.where(x_mm < 0, 1, 2), 0).astype(np.int16),
        grid.affine,
        folder / "halves_dseg.nii.gz",
    )
    (folder / "halves_dseg.tsv").write_text("index\tname\n1\thalf_L\n2\thalf_R\n")
    changes = [
        f"run_dir={done.path}",
        f"evaluation.atlas={folder / 'halves_dseg.nii.gz'}",
        "evaluation.n_perm=50",
        "evaluation.group.n_perm=20",
        "evaluation.first_layer=true",
    ]
    evaluate(stage_settings("evaluate", changes))
    write_report(done)
    return done, folder / "halves_dseg.nii.gz"


def change_settings(run, **groups):
    """Change values of groups of the settings of a run."""
    config = yaml.safe_load(run.config.read_text())
    for group, values in groups.items():
        config[group] = {**(config.get(group) or {}), **values}
    run.config.write_text(yaml.safe_dump(config))


def text_of(html):
    html = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    text = re.sub(r"<[^>]+>", " ", html.split("</style>")[1]).replace("&nbsp;", " ").replace("&#39;", "'")
    return re.sub(r"\s+", " ", text)


def assert_self_contained(run, html):
    for outside in ('src="http', "<link", "@import", "url(http", "<script ", 'href="http', "file://"):
        assert outside not in html
    assert html.count("<script") == 1  # of the page itself
    assert str(run.path) not in html
    assert set(re.findall(r'src="([^,"]+)', html)) <= {
        f"data:image/{kind};base64" for kind in ("png", "svg+xml", "webp")
    }
    anchors = re.findall(r'href="#([^"]+)"', html)
    assert anchors
    assert all(f'id="{anchor}"' in html for anchor in anchors)


def set_scores(run, **scores):
    """Change scores of metrics.json: name to (value, low, high)."""
    metrics = json.loads(run.metrics.read_text())
    for name, values in scores.items():
        for end, value in zip(("", "_ci_low", "_ci_high"), values, strict=True):
            metrics[f"test/{name}{end}"] = value
    write_json(metrics, run.metrics)


def set_size_difference(run, low, high):
    """Interval of the AUROC of the network minus that of brain size."""
    table = read_tsv(run.evaluation("baselines"))
    size = (table["name"] == "brain_size") & (table["metric"] == "auroc")
    columns = ["difference", "difference_ci_low", "difference_ci_high"]
    table.loc[size, columns] = [(low + high) / 2, low, high]
    table.loc[table["metric"] == "auroc_size_matched", "ci_low"] = 0.3
    write_tsv(table, run.evaluation("baselines"))


def without_truth(run):
    for path in [*(run.path / "images").glob("*_mask.nii.gz"), *(run.path / "group").rglob("*desc-truth*")]:
        path.unlink()
    run.evaluation("localization").unlink()
    summary = read_tsv(run.evaluation("summary"))
    write_tsv(summary[summary["table"] != "localization"], run.evaluation("summary"))


def set_differences(run):
    """GradCAM has two clusters, LRP one significant region; all other tests find nothing."""
    tests = read_tsv(run.evaluation("group_tests"))
    write_tsv(tests.assign(n_significant=0), run.evaluation("group_tests"))
    peaks = [(12.0, -40.4, 8.0, -6.1, "cuneus"), (-30.0, 20.0, -6.0, 7.2, "insula"), (0, 0, 0, 5.0, None)]
    rows = pd.DataFrame(peaks, columns=["x_mm", "y_mm", "z_mm", "peak_t", "region"])
    about = {"method": "GradCAM", "comparison": "male-minus-female", "size_mm3": 512.0, "logp_fwe": 2.0}
    write_tsv(rows.assign(cluster=["1", "2", "3"], **about), run.evaluation("group_clusters"))
    table = read_tsv(run.evaluation("region_groups"))
    one = (table["method"] == "LRP") & (table["region"] == "half_L") & (table["measure"] == "mean")
    table["q"] = np.where(one, 0.004, 0.8)
    write_tsv(table, run.evaluation("region_groups"))
