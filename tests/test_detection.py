from __future__ import annotations

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from xai_brain.cli import main
from xai_brain.config.compose import compose
from xai_brain.metrics.detection import NETWORK, detection_curve, place_and_size, smallest_effects
from xai_brain.runs.directory import read_tsv, write_json, write_tsv

CHANCE = 0.05
# rank accuracies by size that are the same for all subjects, so that intervals are points
VALUES = {
    ("Good", "method"): {0.5: 0.1, 1: 0.4, 2: 0.6},
    ("Weak", "method"): {0.5: 0.1, 1: 0.15, 2: 0.3},
    ("Lucky", "method"): {0.5: 0.1, 1: 0.5, 2: 0.1},  # finds 1, but not 2
    ("OwnNull", "method"): {0.5: 0.1, 1: 0.4, 2: 0.6},  # a network that learned nothing gives 0.45
    ("Edges", "baseline"): {0.5: 0.2, 1: 0.2, 2: 0.2},
    ("TMap", "baseline"): {0.5: 0.9, 1: 0.9, 2: 0.9},  # knows the labels: nobody has to beat it
}


def rows_of(size, place="here", job="0", what="rra", values=None, n_subjects=6):
    return pd.DataFrame(
        {
            "participant_id": f"sub-{i}",
            "seed": 0,
            "fold": 0,
            "method": method,
            "kind": kind,
            "value": by[size],
        }
        for (method, kind), by in (values or VALUES).items()
        for i in range(n_subjects)
    ).assign(
        seed=0, fold=0, size=size, place=place, unit="intensity, Cohen's d", job=job, what=what, chance=CHANCE
    )


@pytest.fixture
def found():
    null = {("OwnNull", "method"): {0.5: 0.45, 1: 0.45, 2: 0.45}}
    sizes = (0.5, 1, 2)
    return pd.concat([*map(rows_of, sizes), *(rows_of(s, what="null", values=null) for s in sizes)])


def test_an_effect_is_found_above_chance_own_null_and_blind_baselines(found):
    curve = detection_curve(found, n_bootstrap=20).set_index(["method", "size"])
    assert curve.loc[("Good", 1), ["value", "ci_low", "ci_high"]].tolist() == pytest.approx([0.4] * 3)
    assert curve.loc["Good", "found"].tolist() == [False, True, True]  # 0.1 is above chance, below edges
    assert curve.loc["Weak", "found"].tolist() == [False, False, True]
    assert curve.loc["OwnNull", "found"].tolist() == [False, False, True]
    assert curve.loc[("OwnNull", 1), "null"] == pytest.approx(0.45)
    assert curve.loc[("Good", 1), "null"] == pytest.approx(CHANCE)
    assert curve.loc[("Good", 1), "blind"] == pytest.approx(0.2)
    assert np.isnan(curve.loc[("Edges", 1), "blind"])  # the only one; it is not compared with itself
    assert curve["n_subjects"].eq(6).all()


def test_the_smallest_effect_is_found_at_all_larger_sizes_too(found):
    table = smallest_effects(detection_curve(found, n_bootstrap=20)).set_index("method")
    assert table["smallest"][["Good", "Weak", "OwnNull"]].tolist() == [1, 2, 2]
    assert np.isnan(table.at["Lucky", "smallest"])
    assert table[table["kind"] == "method"].index.tolist() == ["Good", "OwnNull", "Weak", "Lucky"]


def test_an_absent_effect_is_no_size_to_be_found():
    values = {("Good", "method"): {0: 0.6, 1: 0.6}}
    found = pd.concat([rows_of(size, values=values) for size in (0, 1)])
    assert smallest_effects(detection_curve(found, 20))["smallest"].tolist() == [1]


def test_seeds_of_one_subject_are_one_subject():
    low, high = ({("A", "method"): {1: value}} for value in (0.2, 0.4))
    found = pd.concat([rows_of(1, job="0", values=low), rows_of(1, job="1", values=high)])
    (row,) = detection_curve(found, 20).itertuples()
    assert (row.value, row.ci_low, row.n_subjects, row.n_jobs) == (
        pytest.approx(0.3),
        pytest.approx(0.3),
        6,
        2,
    )


def test_noise_is_rarely_found():
    rng = np.random.default_rng(0)
    n_found = 0
    for k in range(100):
        rows = rows_of(1, values={("A", "method"): {1: 0}}, n_subjects=30)
        noise = rows.assign(value=CHANCE + 0.02 * rng.standard_normal(30))
        n_found += int(detection_curve(noise, 200, random_state=k)["found"].sum())
    assert n_found <= 9  # 2.5 % of them, a little more of a bootstrap; above 9 with a probability of 0.0003


def test_places_and_sizes_in_words():
    def output_of(*overrides):
        return tuple(place_and_size(compose("run", ["data=synthetic", *overrides]).planted).values())

    sphere = ["planted=intensity", "planted.center_mm=[3.5,-20,0]"]
    assert output_of(*sphere, "planted.size=-1.5") == ("(3.5, -20, 0) mm", "darker intensity, Cohen's d", 1.5)
    assert output_of(*sphere, "planted.absolute=true")[1] == "intensity, intensity units"
    region = [
        "planted=atrophy",
        "planted.center_mm=null",
        "planted.labels_img=a.nii",
        "planted.region=Amygdala",
    ]
    assert output_of(*region, "planted.size=30") == ("Amygdala", "atrophy, % of volume", 30)
    assert place_and_size(compose("run", ["data=synthetic"]).planted) is None


def start_job(folder, planted, *overrides):
    """A complete job with its settings, without results; returns its overrides."""
    folder.mkdir()
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create({"planted": planted})))
    write_json({"overrides": list(overrides), "state": "complete"}, folder / "job.json")
    return list(overrides)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("left", "right"), {"left": 0.2, "right": 0.6}),  # two masks of the same file name are two places
        (("same", "same"), {"": 0.4}),
    ],
)
def test_masks_of_the_same_file_name_are_different_places(tmp_path, folders, expected):
    jobs = {}
    for number, (where, seed, value) in enumerate(zip(folders, (0, 1), (0.2, 0.6), strict=True)):
        for size in (1, 2):
            mask = f"/masks/{where}/hippocampus.nii.gz"
            planted = {"kind": "intensity", "size": size, "mask_img": mask}
            job = f"{number}{size}"
            overrides = [f"planted.mask_img={mask}", f"planted.size={size}", f"seeds=[{seed}]"]
            jobs[job] = start_job(tmp_path / job, planted, *overrides)
            rows = rows_of(size, values={("Good", "method"): {size: value}}).assign(metric="rra")
            write_tsv(rows.drop(columns="what"), tmp_path / job / "evaluation" / "localization.tsv")
    write_json({"command": "run", "jobs": jobs}, tmp_path / "sweep.json")
    assert main(["collect", str(tmp_path)]) == 0
    curve = read_tsv(tmp_path / "detection.tsv")
    at_size_1 = curve[curve["size"] == 1].set_index("place")["value"]
    places = {f"hippocampus; planted.mask_img=/masks/{k}/hippocampus.nii.gz" if k else "hippocampus": v
              for k, v in expected.items()}  # fmt: skip
    assert at_size_1.to_dict() == pytest.approx(places)


@pytest.fixture
def sweep(tmp_path):
    """Nine jobs: three sizes at two places, and a second seed of the first place."""
    jobs, rng = {}, np.random.default_rng(0)
    cases = [(size, x, seed) for size in (0.5, 1, 2) for x, seed in ((34, 0), (34, 1), (-26, 0))]
    for number, (size, x, seed) in enumerate(cases):
        folder = tmp_path / str(number)
        planted = {"kind": "intensity", "size": size, "center_mm": [x, -20, 0]}
        overrides = [f"planted.size={size}", f"planted.center_mm=[{x},-20,0]", f"seeds=[{seed}]"]
        jobs[str(number)] = start_job(folder, planted, *overrides)
        write_json({"test/auroc": 0.7}, folder / "metrics.json")
        rows = rows_of(size)[["participant_id", "seed", "fold", "method", "value", "chance"]]
        rows = rows.assign(seed=seed, value=rows["value"] * (1 if x == 34 else 0.3))
        localization = pd.concat([rows.assign(metric="rra"), rows.assign(metric="rma", value=1.0)])
        write_tsv(localization, folder / "evaluation" / "localization.tsv")
        for method, kind in VALUES:
            name = f"sub-0_space-MNI152_desc-{method}_attribution.json"
            write_json({"Kind": kind}, folder / "attributions" / "sub-0" / "anat" / name)
        target = np.arange(40) % 2
        score = 1 / (1 + np.exp(-(target - 0.5) * 4 * size - rng.standard_normal(40)))
        predictions = pd.DataFrame(
            {"participant_id": [f"sub-{i}" for i in range(40)], "seed": seed, "fold": 0}
        )
        predictions = predictions.assign(target=target, prob_without=1 - score, prob_with=score)
        write_tsv(predictions, folder / "predictions.tsv")
    write_json({"command": "run", "jobs": jobs}, tmp_path / "sweep.json")
    return tmp_path


def test_collect_tells_the_smallest_effect_of_each_method_and_place(sweep, capsys):
    assert main(["collect", str(sweep)]) == 0
    out = capsys.readouterr().out
    assert "Good, (34, -20, 0) mm: finds the effect from intensity, Cohen's d 1 on" in out
    assert "Lucky, (34, -20, 0) mm: finds the effect at no size tested" in out
    table = read_tsv(sweep / "detection_smallest.tsv").set_index(["place", "method"])["smallest"]
    assert table["(34, -20, 0) mm"][["Good", "Weak"]].tolist() == [1, 2]
    # all values are 0.3 of those, and edges reach 0.06
    assert table["(-26, -20, 0) mm"][["Good", "Weak"]].tolist() == [1, 2]
    curve = read_tsv(sweep / "detection.tsv")
    network = curve[curve["method"] == NETWORK].set_index(["place", "size"])
    assert network.at[("(34, -20, 0) mm", 2), "value"] > 0.99
    assert network.at[("(34, -20, 0) mm", 2), "n_jobs"] == 2
    assert network.at[("(-26, -20, 0) mm", 2), "n_jobs"] == 1
    for name in ("detection_curves", "detection_smallest"):
        picture = matplotlib.image.imread(sweep / "figures" / f"{name}.png")[..., :3]
        assert (picture < 0.9).any(2).mean() > 0.01
