"""The report: complete, self-contained, escaped, also from half a run; left stays left on slices."""

import json
import re
import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import ndimage

from xai_brain.plotting import brain_figures, figures
from xai_brain.plotting.contents import RunContents
from xai_brain.plotting.html_report import fixed, write_report
from xai_brain.runs import RunDirectory, sidecar, write_json, write_tsv
from xai_brain.volumes import bids_name, get_grid, save_img, template_brain_mask

GRID = get_grid("t1w_4mm")
METHODS = {
    "GradCAM": {"_target_": "xai_brain.attribution.GradCAM", "_partial_": True, "layer": "auto"},
    "GuidedBackprop": {"_target_": "xai_brain.attribution.GuidedBackprop", "_partial_": True},
    "MeaningfulPerturbation": {
        "_target_": "xai_brain.attribution.MeaningfulPerturbation", "_partial_": True, "n_iter": 100, "fill": "blur"
    },
}  # fmt: skip
TRUE_MM = (-36.0, -22.0, 8.0)


def sphere(centre_mm, radius_mm):
    world = nib.affines.apply_affine(GRID.affine, np.moveaxis(np.indices(GRID.shape), 0, -1))
    return np.linalg.norm(world - centre_mm, axis=-1) <= radius_mm


def fake_map(method, truth, rng):
    brain = template_brain_mask(GRID.name)
    noise = rng.standard_normal(GRID.shape)
    signal = ndimage.gaussian_filter(truth.astype(float), 1.0)
    if method.startswith("GradCAM"):
        blob = ndimage.gaussian_filter(noise, 6)
        return 3e-3 * (blob / np.abs(blob).max() + 0.7 * ndimage.gaussian_filter(signal, 4) / 0.05)
    if method.startswith("MeaningfulPerturbation"):
        return np.clip(signal + 0.35 * ndimage.gaussian_filter(noise, 2) / 0.05, 0, 1) * brain
    edges = ndimage.gaussian_gradient_magnitude(brain.astype(float), 1.0)
    return 40 * brain * ndimage.gaussian_filter(noise, 0.7) * (0.2 + edges + 2 * signal)


def build_run(path, *, n_subjects=12, methods=METHODS, classes=("F", "M"), truth=True, baseline=True, maps=True,
              first_id="sub-00", seeds=(0,)):  # fmt: skip
    """A run directory like the stages write it, from random numbers."""
    run, rng = RunDirectory(path), np.random.default_rng(0)
    path.mkdir(parents=True)
    methods, seeds = methods if maps else {}, list(seeds)
    config = {
        "name": "fake", "run_dir": str(path), "seeds": seeds,
        "data": {"layout": "table", "root": str(path / "data"), "label": "sex", "brain_size_column": "icv_ml"},
        "preprocessing": {"grid": GRID.name, "zscore": True}, "folds": {"n_folds": 3},
        "model": {"_target_": "xai_brain.models.Kan2020"},
        "trainer": {"max_epochs": 6, "batch_size": 8, "lr": 3e-4, "calibrate": True},
        "explain": {"target": "predicted", "output": None}, "attribution": methods,
        "evaluation": {"n_bootstrap": 1000},
    }  # fmt: skip
    run.config.write_text(yaml.safe_dump(config, sort_keys=False))
    pids = [first_id] + [f"sub-{i:02d}" for i in range(1, n_subjects)]
    target = np.arange(n_subjects) % len(classes)
    people = pd.DataFrame(
        {
            "participant_id": pids, "label": [classes[t] for t in target], "target": target,
            "age": rng.normal(44, 12, n_subjects).round(1), "site": rng.choice(["Guys", "HH"], n_subjects),
            "icv_ml": (1350 + 120 * target + rng.normal(0, 90, n_subjects)).round(),
        }
    )  # fmt: skip
    write_tsv(people, run.participants)
    folds = pd.DataFrame({"participant_id": pids, "fold": (np.arange(n_subjects) // len(classes)) % 3})
    write_tsv(folds, run.folds)
    lost = pd.DataFrame({"path": [str(path / "data" / "sub-99_T1w.nii.gz")], "reason": ["is truncated"]})
    write_tsv(lost, run.quarantine)
    write_json(
        {
            "created": "2026-01-02T03:04:05+00:00", "versions": {"xai-brain": "0.1.0", "torch": "2.13.0"},
            "git_commit": "abcdef1234567890", "machine": {"python": "3.11"}, "seeds": seeds,
            "inputs_sha256": {pid: "0" * 64 for pid in pids},
        },
        run.provenance,
    )  # fmt: skip
    rows = []
    for seed in seeds:
        score = 1.7 * (np.eye(len(classes))[target] - 0.35) + rng.normal(0, 1, (n_subjects, len(classes)))
        prob = np.exp(score) / np.exp(score).sum(1, keepdims=True)
        table = pd.DataFrame({"participant_id": pids, "seed": seed, "fold": folds["fold"], "target": target})
        rows.append(table.assign(**{f"prob_{name}": prob[:, i] for i, name in enumerate(classes)}))
    predictions = pd.concat(rows)
    write_tsv(predictions, run.predictions)
    for seed in seeds:
        for fold in range(3):
            curve = [
                (epoch, metric, start + slope * (1 - np.exp(-epoch / 2)) + rng.normal(0, 0.03))
                for epoch in range(6 - (fold == 2))
                for metric, start, slope in (
                    ("train/loss", 0.7, -0.55), ("val/loss", 0.7, -0.35), ("val/accuracy", 0.5, 0.3),
                    ("val/balanced_accuracy", 0.5, 0.3), ("val/auroc", 0.5, 0.4),
                )
            ]  # fmt: skip
            write_tsv(
                pd.DataFrame(curve, columns=["epoch", "metric", "value"]), run.history(fold, seed, seeds)
            )
    metrics = {"seconds/train": 431.2}
    figures_ = {
        "test/auroc": 0.8765,
        "test/auroc_pooled": 0.8612,
        "test/balanced_accuracy": 0.7912,
        "test/accuracy": 0.7934,
    }
    if baseline:
        figures_ |= {f"baseline/brain_size/{k}": v for k, v in
                     (("auroc", 0.7311), ("balanced_accuracy", 0.6622), ("auroc_pooled", 0.7204))}  # fmt: skip
    for key, value in figures_.items():
        metrics |= {key: value, f"{key}_ci_low": value - 0.061, f"{key}_ci_high": value + 0.052}

    where = sphere(TRUE_MM, 15) & template_brain_mask(GRID.name)
    t1w = (
        200
        * template_brain_mask(GRID.name)
        * (0.6 + 0.4 * ndimage.gaussian_filter(rng.random(GRID.shape), 1))
    )
    localization, agreement, sums = [], [], {}
    names = list(methods)
    for i, pid in enumerate(pids if maps else []):
        save_img(t1w.astype(np.uint8), GRID.affine, run.image(pid, None, "MNI152"))
        if truth:
            save_img(where, GRID.affine, run.image(pid, None, "MNI152", "mask"))
        for seed in seeds:
            for method in names:
                values = fake_map(method, where, rng).astype(np.float32)
                sums.setdefault((method, classes[target[i]]), []).append(values)
                file = run.attribution(pid, None, "MNI152", method, seed, seeds)
                save_img(values, GRID.affine, file)
                mask = method.startswith("Meaningful")
                row = predictions[(predictions.participant_id == pid) & (predictions.seed == seed)].iloc[0]
                prob = row[[f"prob_{name}" for name in classes]].to_numpy(float)
                content = {
                    "Method": method, "Parameters": {"fill": "blur"} if mask else {}, "Target": int(prob.argmax()),
                    "TargetName": classes[prob.argmax()], "TargetProbability": prob.max(),
                    "Output": "probability" if mask else "logit", "Empty": False,
                    "ValueMeaning": "share removed, in [0, 1]" if mask else "signed gradient", "Fold": int(row.fold),
                }  # fmt: skip
                write_json(content, sidecar(file))
                for metric, value in (("rma", 0.05), ("rra", 0.1), ("pointing", 0.4)):
                    value = float(np.clip(value * (1 + names.index(method)) + rng.normal(0, 0.02), 0, 1))
                    localization.append((pid, seed, folds["fold"][i], method, metric, value, 0.0123))
            for a in range(len(names)):
                for b in range(a + 1, len(names)):
                    for k in (1, 2, 5, 10, 20, 50):
                        dice = float(np.clip(k / 100 + 0.1 + 0.02 * (a + b) + rng.normal(0, 0.03), 0, 1))
                        for metric, value, chance in (
                            ("dice", dice, k / 100), ("iou", dice / (2 - dice), k / (200 - k)),
                            ("voxel_agreement", 1 - 2 * k / 100 * (1 - dice), 1 - 2 * k / 100 * (1 - k / 100)),
                        ):  # fmt: skip
                            agreement.append(
                                ("subject", pid, seed, names[a], names[b], metric, k, value, chance)
                            )
                    rho = rng.normal(0.2, 0.05)
                    agreement.append(("subject", pid, seed, names[a], names[b], "spearman", np.nan, rho, 0.0))
    for (method, name), values in sums.items():
        save_img(
            np.mean(values, 0), GRID.affine, run.group_map(method, f"class-{name.replace('/', '-')}", "mean")
        )
        metrics[f"empty_maps/{method}"] = 0
    if maps:
        columns = [
            "level",
            "name",
            "seed",
            "method_a",
            "method_b",
            "metric",
            "top_percent",
            "value",
            "chance",
        ]
        tables = {"agreement": pd.DataFrame(agreement, columns=columns)}
        tables["agreement"]["method"] = (
            tables["agreement"]["method_a"] + " × " + tables["agreement"]["method_b"]
        )
        for a in range(len(names)):
            for b in range(a + 1, len(names)):
                rows = [("class", c, 0, names[a], names[b], "dice", 10, 0.31, 0.1) for c in classes]
                agreement += rows
        if truth:
            columns_ = ["participant_id", "seed", "fold", "method", "metric", "value", "chance"]
            tables["localization"] = pd.DataFrame(localization, columns=columns_)
            write_tsv(tables["localization"], run.evaluation("localization"))
            save_img(where.astype(np.float32), GRID.affine, run.group_map("truth", "class-all", "mean"))
        write_tsv(pd.DataFrame(agreement, columns=columns), run.evaluation("agreement"))
        parts = []
        for table, tidy in tables.items():
            tidy = tidy.assign(table=table, top_percent=tidy.get("top_percent", np.nan))
            by = ["table", "method", "metric", "top_percent"]
            means = tidy.groupby(by, dropna=False, sort=False).agg(
                mean=("value", "mean"), chance=("chance", "mean")
            )
            means = means.reset_index().assign(n=n_subjects)
            parts.append(means.assign(ci_low=means["mean"] - 0.03, ci_high=means["mean"] + 0.03))
        write_tsv(pd.concat(parts), run.evaluation("summary"))
    write_json(metrics, run.metrics)
    return run


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    run = build_run(tmp_path_factory.mktemp("runs") / "complete")
    write_report(run)
    return run


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html.split("</style>")[1])).replace("&nbsp;", " ")


def assert_self_contained(run, html):
    for outside in ('src="http', "<link", "@import", "url(http", "<script", 'href="http', "file://"):
        assert outside not in html
    assert str(run.path) not in html
    assert set(re.findall(r'src="([^,"]+)', html)) <= {"data:image/png;base64", "data:image/svg+xml;base64"}
    anchors = re.findall(r'href="#([^"]+)"', html)
    assert anchors
    assert all(f'id="{anchor}"' in html for anchor in anchors)


def test_complete_run(complete):
    html = complete.report.read_text()
    assert_self_contained(complete, html)
    text = text_of(html)
    for figure in ("0.876", "0.815 to 0.928", "0.861", "0.791", "0.731", "0.670 to 0.783", "× chance"):
        assert figure in text
    summary = pd.read_csv(complete.evaluation("summary"), sep="\t")
    for value in summary.loc[summary["table"] == "localization", "mean"]:
        assert fixed(value) in text
    assert "sub-99_T1w.nii.gz" in text
    assert "Voxel agreement" in text
    assert "compatible with a true Dice of 0" in text
    assert "abcdef1234567890" in text
    assert len(html) < 6e6
    assert (
        text.count("Figure ")
        == html.count("<figure>")
        == len(list((complete.path / "figures").glob("*.png")))
    )
    order = [text.index(f"Figure {i}.") for i in range(1, html.count("<figure>") + 1)]
    assert order == sorted(order)


def test_second_write_is_identical(complete):
    files = [complete.report, *sorted((complete.path / "figures").glob("*.png"))]
    before = [file.read_bytes() for file in files]
    write_report(complete)
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize(
    ("missing", "absent", "present"),
    [
        ({"maps": False}, ["id=\"subjects\"", "id=\"localization\""], "No maps have been computed yet"),
        ({"truth": False}, ["id=\"localization\"", "Black outline"], "No true location is known"),
        ({"baseline": False}, ["id=\"baseline\""], "id=\"performance\""),
    ],
)  # fmt: skip
def test_partial_runs(tmp_path, missing, absent, present):
    run = build_run(tmp_path / "run", **missing)
    html = write_report(run).read_text()
    assert_self_contained(run, html)
    assert present in html
    for piece in absent:
        assert piece not in html


def test_settings_alone_and_nothing_at_all(tmp_path):
    run = build_run(tmp_path / "run", maps=False)
    for file in (run.participants, run.predictions, run.metrics, run.provenance, run.quarantine, run.folds):
        file.unlink()
    for file in run.path.glob("checkpoints/*"):
        file.unlink()
    assert "have not been evaluated" in write_report(run).read_text()
    empty = RunDirectory(tmp_path / "empty")
    assert "No maps have been computed yet" in write_report(empty).read_text()


def test_maps_without_tables_of_the_evaluation(tmp_path):
    run = build_run(tmp_path / "run", methods={"GradCAM": METHODS["GradCAM"], "Own": {}})
    run.evaluation("summary").unlink()  # means come from the tidy tables then, without intervals
    run.predictions.unlink()
    run.quarantine.write_text("")
    text = text_of(write_report(run).read_text())
    rows = pd.read_csv(run.evaluation("localization"), sep="\t")
    rows = rows[(rows["method"] == "Own") & (rows["metric"] == "rma")]
    assert fixed(rows["value"].mean()) in text
    assert not re.search(r"\bnan\b", text)


def test_data_are_escaped(tmp_path):
    evil = "sub-<script>alert(1)</script>".replace("/", "")
    run = build_run(tmp_path / "run", first_id=evil, classes=("<script>", "$x_{1"), n_subjects=6)
    html = write_report(run).read_text()
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_several_seeds_many_methods_three_classes(tmp_path):
    methods = {f"{name}{i}": {**METHODS[name], "_target_": ""} for name in METHODS for i in (1, 2)}
    run = build_run(
        tmp_path / "run", classes=("CN", "MCI", "AD"), seeds=(3, 7), methods=methods, n_subjects=9
    )
    html = write_report(run).read_text()
    assert "3 folds, 2 seeds" in html
    assert "18 predictions" in text_of(html)


def test_chance_level_is_said(tmp_path):
    run = build_run(tmp_path / "run", maps=False, n_subjects=6)
    metrics = json.loads(run.metrics.read_text())
    write_json(
        {**metrics, "test/auroc": 0.55, "test/auroc_ci_low": 0.41, "test/auroc_ci_high": 0.68}, run.metrics
    )
    assert "includes 0.5" in write_report(run).read_text()


def test_shown_subjects_are_the_most_confident(complete):
    table = pd.read_csv(complete.predictions, sep="\t")
    prob = table[["prob_F", "prob_M"]].to_numpy()
    right = prob.argmax(1) == table["target"]
    shown = RunContents(complete).shown_subjects()
    assert [s.correct for s in shown] == sorted([s.correct for s in shown], reverse=True)
    for subject in shown:
        same = (right == subject.correct) & (table["target"] == ("F", "M").index(subject.label))
        assert subject.probability == prob[same].max()


def test_empty_and_nan_maps_are_drawn(tmp_path):
    run = build_run(tmp_path / "run", n_subjects=4, methods={"GradCAM": {}})
    values = np.zeros(GRID.shape, np.float32)
    for file in (run.path / "attributions").rglob("*.nii.gz"):
        save_img(values, GRID.affine, file)
    save_img(
        np.full(GRID.shape, np.nan, np.float32), GRID.affine, run.group_map("GradCAM", "class-F", "mean")
    )
    save_img(values, GRID.affine, run.group_map("GradCAM", "class-M", "mean"))
    assert "All values are zero" in write_report(run).read_text()


BOUNDS = ((-80.0, 80.0), (-110.0, 80.0), (-70.0, 90.0))


@pytest.fixture
def left_blob():
    """An anisotropic image with a blob at (-30, -50, 20) mm."""
    affine = np.diag([4.0, 5.0, 3.0, 1])
    affine[:3, 3] = (-82, -115, -71)
    world = nib.affines.apply_affine(affine, np.moveaxis(np.indices((42, 40, 55)), 0, -1))
    data = np.exp(-(((world - (-30, -50, 20)) / 15) ** 2).sum(-1))
    return nib.Nifti1Image(data.astype(np.float32), affine)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("cut", [("x", -28.0), ("y", -47.0), ("z", 21.0)])
def test_slices_do_not_depend_on_the_axes_of_the_file(left_blob, axis, cut):
    affine = left_blob.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (left_blob.shape[axis] - 1)
    affine[:3, axis] *= -1
    flipped = nib.Nifti1Image(np.flip(left_blob.get_fdata(), axis).astype(np.float32), affine)
    same = brain_figures.world_slice(left_blob, *cut, BOUNDS)
    np.testing.assert_allclose(brain_figures.world_slice(flipped, *cut, BOUNDS), same, atol=1e-6)
    assert same.max() > 0.9


def test_left_is_on_the_left_side(left_blob):
    for cut, peak in ((("z", 20.0), (-30, -50)), (("y", -50.0), (-30, 20)), (("x", -30.0), (-50, 20))):
        picture = brain_figures.world_slice(left_blob, *cut, BOUNDS)
        row, column = np.unravel_index(picture.argmax(), picture.shape)
        right, up = brain_figures.IN_PLANE[cut[0]]
        assert abs(BOUNDS[right][0] + column - peak[0]) <= 2
        assert abs(BOUNDS[up][0] + row - peak[1]) <= 2
    fig = brain_figures.slice_figure(
        left_blob, {"a": left_blob}, [("z", 20.0)], brain_figures.Scale(1, False)
    )
    ax = fig.axes[0]
    assert ax.get_xlim()[0] < ax.get_xlim()[1]
    letters = {text.get_text(): text.get_position()[0] for text in ax.texts}
    assert letters["L"] < letters["R"]
    shown = ax.images[0]
    assert shown.origin == "lower"
    assert shown.get_extent()[:2] == [pytest.approx(v) for v in ax.get_xlim()]


def test_scale():
    values = np.array([-2.0, 0.0, 1.0, np.nan])
    scale = brain_figures.Scale.of(values)
    assert scale.signed
    assert scale.limit == pytest.approx(2, rel=0.02)
    red, blue = scale.rgba(np.array([2.0, -2.0]))
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert scale.rgba(np.array([0.0, np.nan]))[:, 3].max() == 0
    assert not brain_figures.Scale.of(np.array([0, 0.5, 1.0])).signed


def test_roc_matches_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    target = rng.random(80) < 0.4
    score = (target + rng.normal(0, 1, 80)).round(1)  # with ties
    weights = rng.integers(0, 3, 80)
    grid = np.linspace(0, 1, 4001)
    area = np.trapezoid(figures.roc(target, score, weights, grid), grid)
    assert area == pytest.approx(roc_auc_score(target, score, sample_weight=weights), abs=2e-3)


def test_plotting_needs_no_torch():
    code = (
        "import sys, xai_brain.plotting.html_report\n"
        "bad = {'torch', 'captum', 'pytorch_lightning', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_of_files_follow_the_run_directory(complete):
    contents = RunContents(complete)
    assert contents.space == "MNI152"
    assert contents.methods == list(METHODS)
    assert contents.n_explained("GradCAM", "F") == 6
    name = bids_name("sub-01", space="MNI152", desc="GradCAM", suffix="attribution")
    assert contents.maps_of("sub-01", None)["GradCAM"].name == f"{name}.nii.gz"
