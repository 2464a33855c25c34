"""The report: complete, self-contained, escaped, also from half a run; left stays left on slices."""

import json
import re
import subprocess
import sys
from itertools import combinations, product

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from nilearn.datasets import load_mni152_template
from scipy import ndimage

from xai_brain.io.nifti import bids_name, get_grid, resample_to_grid, save_img, template_brain_mask
from xai_brain.reporting import gallery
from xai_brain.reporting.contents import RunContents
from xai_brain.reporting.figures import brain as brain_figures
from xai_brain.reporting.figures import scores as figures
from xai_brain.reporting.figures import slices
from xai_brain.reporting.html_report import fixed, write_report
from xai_brain.runs.directory import RunDirectory, sidecar, write_json, write_tsv

GRID = get_grid("t1w_4mm")
METHODS = {
    "GradCAM": {"_target_": "xai_brain.attribution.GradCAM", "_partial_": True, "layer": "auto"},
    "GuidedBackprop": {"_target_": "xai_brain.attribution.GuidedBackprop", "_partial_": True},
    "MeaningfulPerturbation": {
        "_target_": "xai_brain.attribution.MeaningfulPerturbation",
        "_partial_": True,
        "n_iter": 100,
        "fill": "blur",
    },
}
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


def build_run(path, *, n_subjects=12, methods=METHODS, classes=("F", "M"), seeds=(0,), first_id="sub-00",
              truth=True, baseline=True, maps=True):  # fmt: skip
    """A run directory as the stages leave it, of random numbers."""
    run, rng, seeds = RunDirectory(path), np.random.default_rng(0), list(seeds)
    path.mkdir(parents=True)
    methods = methods if maps else {}
    write_settings(run, methods, seeds)
    people = write_people(run, n_subjects, classes, first_id, rng)
    predictions = write_predictions(run, people, classes, seeds, rng)
    write_curves(run, seeds, rng)
    metrics = fake_metrics(baseline)
    if maps:
        write_maps(run, predictions, methods, classes, seeds, truth, rng)
        write_tables(run, predictions, list(methods), classes, truth, rng)
        metrics |= {f"empty_maps/{method}": 0 for method in methods}
    if baseline:
        write_tsv(fake_baselines(metrics), run.evaluation("baselines"))
    write_json(metrics, run.metrics)
    return run


def write_settings(run, methods, seeds):
    config = {
        "name": "fake",
        "run_dir": str(run.path),
        "seeds": seeds,
        "data": {"layout": "table", "root": str(run.path), "label": "sex", "brain_size_column": "icv_ml"},
        "preprocessing": {"grid": GRID.name, "zscore": True},
        "folds": {"n_folds": 3},
        "model": {"_target_": "xai_brain.models.Kan2020"},
        "trainer": {"max_epochs": 6, "batch_size": 8, "lr": 3e-4, "calibrate": True},
        "explain": {"target": "predicted", "output": None},
        "attribution": methods,
        "evaluation": {"n_bootstrap": 1000},
    }
    run.config.write_text(yaml.safe_dump(config, sort_keys=False))
    provenance = {
        "created": "2026-01-02T03:04:05+00:00",
        "versions": {"xai-brain": "0.1.0", "torch": "2.13.0"},
        "git_commit": "abcdef1234567890",
        "machine": {"python": "3.11"},
        "seeds": seeds,
        "inputs_sha256": {str(run.path / "sub-01_T1w.nii.gz"): "0" * 64},
    }
    write_json(provenance, run.provenance)


def write_people(run, n_subjects, classes, first_id, rng):
    target = np.arange(n_subjects) % len(classes)
    people = pd.DataFrame(
        {
            "participant_id": [first_id] + [f"sub-{i:02d}" for i in range(1, n_subjects)],
            "label": [classes[t] for t in target],
            "target": target,
            "age": rng.normal(44, 12, n_subjects).round(1),
            "site": rng.choice(["Guys", "HH"], n_subjects),
            "icv_ml": (1350 + 120 * target + rng.normal(0, 90, n_subjects)).round(),
        }
    )
    write_tsv(people, run.participants)
    people["fold"] = np.arange(n_subjects) // len(classes) % 3
    write_tsv(people[["participant_id", "fold"]], run.folds)
    lost = {"path": [str(run.path / "sub-99_T1w.nii.gz")], "reason": [f"{run.path}/sub-99: is truncated"]}
    write_tsv(pd.DataFrame(lost), run.quarantine)
    return people


def write_predictions(run, people, classes, seeds, rng):
    rows = []
    for seed in seeds:
        evidence = 1.7 * np.eye(len(classes))[people["target"]] + rng.normal(
            0, 1, (len(people), len(classes))
        )
        prob = np.exp(evidence) / np.exp(evidence).sum(1, keepdims=True)
        columns = {f"prob_{name}": prob[:, i] for i, name in enumerate(classes)}
        rows.append(people[["participant_id", "fold", "target"]].assign(seed=seed, **columns))
    predictions = pd.concat(rows, ignore_index=True)
    write_tsv(predictions, run.predictions)
    return predictions


def write_curves(run, seeds, rng):
    ends = {"train/loss": -0.55, "val/loss": -0.35, "val/balanced_accuracy": 0.3, "val/auroc": 0.4}
    for seed, fold in product(seeds, range(3)):
        rows = [
            (
                epoch,
                metric,
                (0.7 if change < 0 else 0.5) + change * (1 - np.exp(-epoch / 2)) + rng.normal(0, 0.03),
            )
            for epoch, (metric, change) in product(range(6 - (fold == 2)), ends.items())
        ]
        write_tsv(pd.DataFrame(rows, columns=["epoch", "metric", "value"]), run.history(fold, seed, seeds))


def fake_metrics(baseline):
    values = {"auroc": 0.8765, "auroc_pooled": 0.8612, "balanced_accuracy": 0.7912, "accuracy": 0.7934}
    values = {f"test/{name}": value for name, value in values.items()}
    if baseline:
        size = {"auroc": 0.7311, "auroc_pooled": 0.7204, "balanced_accuracy": 0.6622}
        values |= {f"baseline/brain_size/{name}": value for name, value in size.items()}
    low = {f"{name}_ci_low": value - 0.061 for name, value in values.items()}
    high = {f"{name}_ci_high": value + 0.052 for name, value in values.items()}
    return {"seconds/train": 431.2, **values, **low, **high}


def fake_baselines(metrics):
    """evaluation/baselines.tsv: the network, brain size, and a classifier on voxels that is better."""
    rows = []
    for name, at in (("network", "test"), ("brain_size", "baseline/brain_size"), ("rbf_svm", "")):
        for metric in (
            "auroc",
            "auroc_pooled",
            "balanced_accuracy",
            "accuracy",
            "brier",
            "auroc_size_matched",
        ):
            value = metrics.get(f"{at}/{metric}", 0.9123 if at == "" else 0.1711)
            row = {
                "name": name,
                "metric": metric,
                "value": value,
                "ci_low": value - 0.061,
                "ci_high": value + 0.052,
            }
            row["n_subjects"] = 62 if metric == "auroc_size_matched" else 120
            if name != "network" and metric in ("auroc", "accuracy"):
                difference = metrics["test/auroc"] - value
                row |= {"difference": difference, "difference_ci_low": difference - 0.05}
                row |= {"difference_ci_high": difference + 0.05, "p": 0.0002 if at else 0.163}
            rows.append(row)
    return pd.DataFrame(rows)


def write_maps(run, predictions, methods, classes, seeds, truth, rng):
    brain = template_brain_mask(GRID.name)
    where = sphere(TRUE_MM, 15) & brain
    t1w = (220 * resample_to_grid(load_mni152_template(resolution=4), GRID) * brain).astype(np.uint8)
    by_class = {}
    for row, method in product(predictions.to_dict("records"), methods):
        pid, prob = row["participant_id"], np.array([row[f"prob_{name}"] for name in classes])
        save_img(t1w, GRID.affine, run.image(pid, None, "MNI152"))
        if truth:
            save_img(where, GRID.affine, run.image(pid, None, "MNI152", "mask"))
        values = fake_map(method, where, rng).astype(np.float32)
        by_class.setdefault((method, classes[row["target"]]), []).append(values)
        file = run.attribution(pid, None, "MNI152", method, row["seed"], seeds)
        save_img(values, GRID.affine, file)
        mask = method.startswith("Meaningful")
        content = {
            "Method": method,
            "Parameters": {"fill": "blur"} if mask else {},
            "Target": int(prob.argmax()),
            "TargetName": classes[prob.argmax()],
            "TargetProbability": prob.max(),
            "Output": "probability" if mask else "logit",
            "Empty": False,
            "ValueMeaning": "share removed, in [0, 1]" if mask else "signed gradient",
            "Fold": row["fold"],
        }
        write_json(content, sidecar(file))
    for (method, name), maps in by_class.items():
        save_img(np.mean(maps, 0), GRID.affine, run.group_map(method, f"class-{name}", "mean"))
    if truth:
        save_img(where.astype(np.float32), GRID.affine, run.group_map("truth", "class-all", "mean"))


def write_tables(run, predictions, methods, classes, truth, rng):
    people = predictions[["participant_id", "seed", "fold"]].to_numpy().tolist()
    found = [
        (*person, method, metric, np.clip(value * (1 + i) + rng.normal(0, 0.02), 0, 1), 0.0123)
        for person, (i, method) in product(people, enumerate(methods))
        for metric, value in (("rma", 0.05), ("rra", 0.1), ("pointing", 0.3))
    ]
    columns = ["participant_id", "seed", "fold", "method", "metric", "value", "chance"]
    tidy = {"localization": pd.DataFrame(found, columns=columns)} if truth else {}
    rows = []
    for (pid, seed, _), pair in product(people, combinations(methods, 2)):
        for percent in (1, 2, 5, 10, 20, 50):
            k = percent / 100
            dice = np.clip(k + 0.1 + 0.02 * methods.index(pair[1]) + rng.normal(0, 0.03), 0, 1)
            for metric, value, chance in (
                ("dice", dice, k),
                ("iou", dice / (2 - dice), k / (2 - k)),
                ("voxel_agreement", 1 - 2 * k * (1 - dice), 1 - 2 * k * (1 - k)),
            ):
                rows.append(("subject", pid, seed, *pair, metric, percent, value, chance))
        rows.append(("subject", pid, seed, *pair, "spearman", np.nan, rng.normal(0.2, 0.05), 0.0))
    of_means = [
        ("class", name, 0, *pair, "dice", 10, 0.31, 0.1)
        for name, pair in product(classes, combinations(methods, 2))
    ]
    columns = ["level", "name", "seed", "method_a", "method_b", "metric", "top_percent", "value", "chance"]
    if rows:
        pairs = pd.DataFrame(rows, columns=columns)
        tidy["agreement"] = pairs.assign(method=pairs["method_a"] + " × " + pairs["method_b"])
        write_tsv(pd.DataFrame(rows + of_means, columns=columns), run.evaluation("agreement"))
    if truth:
        write_tsv(tidy["localization"], run.evaluation("localization"))
    summaries = []
    for name, table in tidy.items():
        table = table.assign(table=name, top_percent=table.get("top_percent", np.nan))
        groups = table.groupby(["table", "method", "metric", "top_percent"], dropna=False, sort=False)
        means = groups.agg(
            mean=("value", "mean"), chance=("chance", "mean"), n=("value", "size")
        ).reset_index()
        summaries.append(means.assign(ci_low=means["mean"] - 0.03, ci_high=means["mean"] + 0.03))
    write_tsv(pd.concat(summaries), run.evaluation("summary"))


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    run = build_run(tmp_path_factory.mktemp("runs") / "complete")
    write_report(run)
    return run


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are built but not drawn, where only the page is looked at."""
    monkeypatch.setattr(gallery, "_rendered", lambda fig, kind, **options: b"")
    monkeypatch.setattr(gallery, "_palette", lambda png: b"")


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


def test_words_about_baselines_follow_from_the_numbers(complete):
    text = text_of(complete.report.read_text())
    assert "The best baseline by AUROC is RBF SVM on voxels with 0.912" in text
    assert "the network is not distinguishable from it (difference −0.036" in text
    assert "p = 0.163" in text
    assert "Brain size alone reaches 0.731; the network is above it." in text
    assert "In 31 pairs of test subjects" in text
    assert "0.171 (95 % CI 0.110 to 0.223); that it uses more than size is not shown" in text.replace(
        ": it", ":it"
    )


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
def test_partial_runs(tmp_path, undrawn, missing, absent, present):
    run = build_run(tmp_path / "run", n_subjects=6, **missing)
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


def test_maps_without_tables_of_the_evaluation(tmp_path, undrawn):
    run = build_run(tmp_path / "run", methods={"GradCAM": METHODS["GradCAM"], "Own": {}}, n_subjects=4)
    run.evaluation("summary").unlink()  # means come from the tidy tables then, without intervals
    run.predictions.unlink()
    run.quarantine.write_text("")
    text = text_of(write_report(run).read_text())
    rows = pd.read_csv(run.evaluation("localization"), sep="\t")
    rows = rows[(rows["method"] == "Own") & (rows["metric"] == "rma")]
    assert fixed(rows["value"].mean()) in text
    assert not re.search(r"\bnan\b", text)


def test_data_are_escaped(tmp_path):
    methods = {"GradCAM": METHODS["GradCAM"]}
    names = {"first_id": "sub-<script>", "classes": ("<script>", "$x_{1")}
    run = build_run(tmp_path / "run", n_subjects=6, methods=methods, **names)
    html = write_report(run).read_text()
    assert "<script" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.slow
def test_several_seeds_many_methods_three_classes(tmp_path):
    methods = {f"{name}{i}": {**METHODS[name], "_target_": ""} for name in METHODS for i in (1, 2)}
    run = build_run(
        tmp_path / "run", classes=("CN", "MCI", "AD"), seeds=(3, 7), methods=methods, n_subjects=9
    )
    html = write_report(run).read_text()
    assert "3 folds, 2 seeds" in html
    assert "18 predictions" in text_of(html)


def test_chance_level_is_said(tmp_path, undrawn):
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


def test_maps_in_another_space_lie_on_the_subjects(tmp_path, undrawn):
    run = build_run(tmp_path / "run", n_subjects=4, methods={"GradCAM": METHODS["GradCAM"]})
    for file in list(run.path.rglob("*_space-MNI152_*")):
        file.rename(file.with_name(file.name.replace("space-MNI152", "space-native")))
    html = write_report(run).read_text()
    assert "not in MNI152" in html
    assert "MNI152 template" not in html
    assert 'id="subjects"' in html


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
    same = slices.world_slice(left_blob, *cut, BOUNDS)
    np.testing.assert_allclose(slices.world_slice(flipped, *cut, BOUNDS), same, atol=1e-6)
    assert same.max() > 0.9


def test_left_is_on_the_left_side(left_blob):
    for cut, peak in ((("z", 20.0), (-30, -50)), (("y", -50.0), (-30, 20)), (("x", -30.0), (-50, 20))):
        picture = slices.world_slice(left_blob, *cut, BOUNDS)
        row, column = np.unravel_index(picture.argmax(), picture.shape)
        right, up = slices.IN_PLANE[cut[0]]
        assert abs(BOUNDS[right][0] + column - peak[0]) <= 2
        assert abs(BOUNDS[up][0] + row - peak[1]) <= 2
    head = nib.Nifti1Image(np.ones(left_blob.shape, np.float32), left_blob.affine)
    scale = slices.Scale(1, False)
    fig = brain_figures.slice_figure(head, {"a": left_blob}, [("z", 20.0)], scale)
    (board,) = fig.axes
    x0, x1, bottom, top = board.images[0].get_extent()
    assert x0 < x1
    assert bottom > top  # inches from above
    assert board.images[0].origin == "lower"
    letters = {text.get_text(): text.get_position()[0] for text in board.texts}
    assert letters["L"] == x0
    assert letters["R"] == x1
    green = np.asarray(board.images[0].get_array())[..., 1]  # least where the map is strongest
    row, column = np.unravel_index(green.argmin(), green.shape)
    (left, _), (back, _), _ = slices.world_bounds(head)
    assert abs(left + column + 30) <= 4
    assert abs(back + row + 50) <= 4


def test_scale():
    values = np.array([-2.0, 0.0, 1.0, np.nan])
    scale = slices.Scale.of(values)
    assert scale.signed
    assert scale.limit == pytest.approx(2, rel=0.02)
    red, blue = scale.rgba(np.array([2.0, -2.0]))
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert scale.rgba(np.array([0.0, np.nan]))[:, 3].max() == 0
    assert not slices.Scale.of(np.array([0, 0.5, 1.0])).signed


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
        "import sys, xai_brain.reporting.html_report\n"
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
