"""Detection benchmark: its settings, its tables by hand, and a small benchmark that is continued."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from xai_brain import cli, compose, run
from xai_brain.config.checks import read_config
from xai_brain.config.saved import stage_settings
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import load_img
from xai_brain.metrics.cells.reference import FILE, similar_cells
from xai_brain.metrics.cells.summary import LEARNED, MASK, cell_table, method_table
from xai_brain.metrics.detection import detection_curve
from xai_brain.metrics.localization import localization
from xai_brain.reporting.figures.detection import auroc_figure, rank_figure
from xai_brain.runs.directory import read_json, read_tsv
from xai_brain.stages.explain import explain
from xai_brain.study.commands.settings import check_inexpensively
from xai_brain.study.detection import ranks
from xai_brain.study.detection.benchmark import cell_settings
from xai_brain.study.run_images import brain_of, truth_of

CELLS = (
    "detection.cells=[{network: shallow, effect: intensity, places: one, sizes: [8]},"
    "{network: kan2020, effect: lesion, places: five, sizes: [-4]}]"
)
NAMES = ["shallow_intensity_one_8", "kan2020_lesion_five_-4"]
SETTINGS = [
    "experiment=detection_ixi",
    "data=synthetic",
    "data.entities={}",
    "data.cohort.n_subjects=16",
    "attribution=[saliency,edges]",
    "trainer.max_epochs=1",
    "detection.networks.kan2020.trainer.max_epochs=1",
    "detection.networks.kan2020.model.channels=[2,2,2]",
    "detection.networks.kan2020.n_perm=1",
    "model.channels=2",
    "detection.n_perm=2",
    "detection.n_participants=2",
    "evaluation.n_bootstrap=20",
]


# -- settings ----------------------------------------------------------------------------------
def test_the_experiment_has_thirty_cells(tmp_path):
    config = read_config(compose("run", ["experiment=detection_ixi", f"data.root={tmp_path}"]))
    cells = list(config.detection.all_cells())
    assert [cell.network for cell in cells].count("shallow") == 24
    assert [cell.network for cell in cells].count("kan2020") == 6
    assert {(cell.effect, cell.places) for cell in cells} == {
        (effect, places) for effect in ("intensity", "volume", "lesion") for places in ("one", "five")
    }
    assert len({cell.name for cell in cells}) == 30
    own = cell_settings(config, cells[-1])
    assert own.planted.kind == "lesion"
    assert len(own.planted.further_centers_mm) == 4
    assert own.model["_target_"].endswith("Kan2020")
    assert (own.trainer.max_epochs, own.trainer.standardize) != (config.trainer.max_epochs, "mean")
    assert own.run_dir.endswith(f"cells/{cells[-1].name}")
    assert not own.detection.cells
    assert cell_settings(config, cells[0]).model == config.model


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("detection.cells=[{network: shallow, effect: intensity, places: one}]", "needs network, effect, pl"),
        (
            "detection.cells=[{network: a, effect: intensity, places: one, sizes: [1]}]",
            "a: not in detection.n",
        ),
        ("detection.cells=[{network: shallow, effect: lesion, places: one, sizes: [1, 1]}]", "occurs twice"),
        ("detection.cells=[{network: shallow, effect: intensity, places: one, sizes: [90]}]", "cannot make"),
        ("+detection.effects.intensity.size=3", "intensity.size: not a field of an effect"),
        ("+detection.networks.shallow.lr=1", "shallow.lr: one of model, trainer, n_perm"),
        ("planted=lesion", "needs task=classification and planted=none"),
        ("seeds=[0,1]", "one network per cell"),
        ("shard=1/2", "is not divided"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(override, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run(compose("run", [*SETTINGS, f"run_dir={tmp_path / 'new'}", override]))


# -- tables ------------------------------------------------------------------------------------
def rows_of_cell(size, auroc, values, effect="intensity"):
    """Rows of detection.tsv; `values` by method: mean and whether the effect is found."""
    about = {"cell": f"shallow_{effect}_one_{size}", "network": "shallow", "effect": effect}
    about |= {"planted_kind": effect, "places": "one", "size": size, "n_subjects": 9, "n_perm": 2}
    rows = [("(the network)", "network", auroc, True), *((m, "method", *v) for m, v in values.items())]
    rows.append(("TMap", "baseline", 0.9, True))
    return [
        {**about, "method": method, "kind": kind, "value": value, "ci_low": value - 0.05,
         "ci_high": value + 0.05, "found": found}
        for method, kind, value, found in rows
    ]  # fmt: skip


@pytest.fixture
def table():
    return pd.DataFrame(
        [
            *rows_of_cell(1, 0.6, {MASK: (0.1, False), "LRP": (0.2, False)}),
            *rows_of_cell(2, 0.85, {MASK: (0.36, True), "LRP": (0.4, True)}),
            *rows_of_cell(4, 0.99, {MASK: (0.3, False), "LRP": (0.7, True)}),
        ]
    )


def test_a_mask_within_the_interval_of_the_best_method(table):
    cells = cell_table(table).set_index("size")
    assert cells["auroc"].tolist() == [0.6, 0.85, 0.99]
    assert cells["best_method"].tolist() == ["LRP"] * 3  # baselines are no methods
    assert cells["mask_within"].tolist() == [False, True, False]
    assert cells["found"].tolist() == ["", f"LRP, {MASK}", "LRP"]
    assert cells["n_found"].tolist() == [0, 2, 1]
    without = cell_table(table[table["method"] != MASK])
    assert without["mask"].isna().all()
    assert not without["mask_within"].any()


def test_methods_are_compared_where_the_network_has_learned_the_effect(table):
    methods = method_table(table).set_index("method")
    assert list(methods.index) == ["LRP", MASK, "TMap"]
    assert methods.loc["LRP", ["n_cells", "n_learned", "n_found", "n_within"]].tolist() == [3, 2, 2, 2]
    assert methods.loc[MASK, ["n_learned", "n_found", "n_within"]].tolist() == [2, 1, 1]
    assert methods.loc["LRP", "mean"] == pytest.approx(0.55)


def test_the_null_is_the_highest_of_all_permuted_networks():
    about = {"kind": "method", "method": "A", "place": "one", "unit": "d", "size": 1.0, "job": "0", "seed": 0}
    subjects = [f"sub-{i}" for i in range(4)]
    maps = [{**about, "what": "rra", "participant_id": one, "value": 0.3, "chance": 0.1} for one in subjects]
    nulls = [
        {**about, "what": "null", "participant_id": one, "value": value, "chance": 0.1, "permutation": number}
        for number, value in ((1, 0.1), (2, 0.4))
        for one in subjects
    ]
    (row,) = detection_curve(pd.DataFrame([*maps, *nulls]), 20).itertuples()
    assert row.null == pytest.approx(0.4)
    assert not row.found
    (row,) = detection_curve(pd.DataFrame([*maps, *nulls[:4]]), 20).itertuples()
    assert row.null == pytest.approx(0.1)
    assert row.found


def test_figures_show_every_cell_and_method(table):
    panels = auroc_figure(table).axes
    assert [axes.get_title() for axes in panels] == ["intensity"]
    axes = rank_figure(table).axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["AUROC", "LRP", MASK, "TMap"]
    assert len(texts) == 3 * 4
    assert {".85", ".36", ".99", ".90"} <= set(texts)
    assert len(axes.patches) == 4  # best or within the interval of the best: LRP three times, the mask once


# -- the cohort of a user among the cells --------------------------------------------------------
def test_similar_cells_have_the_same_kind_and_auroc(table):
    more = pd.DataFrame(rows_of_cell(3, 0.86, {MASK: (0.1, False)}, effect="lesion"))
    both = pd.concat([table, more])
    found = similar_cells("intensity", 0.88, ["LRP", MASK], both)
    assert found.names == ["shallow_intensity_one_2"]
    assert found.methods["method"].tolist() == ["LRP", MASK]
    assert found.methods.loc[0, ["n_found", "n_cells", "low", "high"]].tolist() == [1, 1, 0.4, 0.4]
    assert similar_cells("lesion", 0.88, [MASK], both).methods["n_found"].tolist() == [0]
    assert similar_cells("intensity", 0.7, ["LRP"], both) is None
    assert similar_cells("atrophy", 0.88, ["LRP"], both) is None
    assert similar_cells("intensity", 0.88, ["Other"], both) is None


def test_the_table_of_the_package_has_all_cells_and_its_origin():
    table, about = read_tsv(FILE), read_json(FILE.with_suffix(".json"))
    networks = table[table["kind"] == "network"]
    assert networks["network"].value_counts().to_dict() == {"shallow": 24, "kan2020": 6}
    assert table.groupby("cell")["method"].nunique().nunique() == 1
    assert (table.loc[table["kind"] == "method"].groupby("cell").size() >= 8).all()
    assert set(networks["planted_kind"]) <= {"intensity", "atrophy", "expansion", "lesion"}
    assert about["Tested"] == table["n_subjects"].max()
    assert len(about["GitCommit"].removesuffix("+changes")) == 40
    assert (networks["value"] > LEARNED).any()


# -- the benchmark -----------------------------------------------------------------------------
def times(folder, pattern):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob(pattern))}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A benchmark that was interrupted before the maps of its second cell, and went on."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    network_maps = ranks.network_maps

    def interrupted(config, *more):
        if config.name == NAMES[1]:
            raise KeyboardInterrupt
        return network_maps(config, *more)

    settings = [*SETTINGS, CELLS, f"run_dir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "network_maps", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(compose("run", settings))
    before = times(folder, "*.ckpt") | times(folder, "ranks.tsv")
    assert len(before) == 2 + 2 + 3  # networks, permuted networks of the first cell and ranks
    done = run(compose("run", settings))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    return done


@pytest.mark.slow
def test_every_cell_has_a_row_for_its_network_and_every_method(finished):
    table = read_tsv(finished.path / "detection.tsv")
    assert list(dict.fromkeys(table["cell"])) == NAMES
    assert (
        table.groupby("cell", sort=False)["method"].agg(list).tolist()
        == [["Saliency", "Edges", "(the network)"]] * 2
    )
    assert table["planted_kind"].unique().tolist() == ["intensity", "lesion"]
    saliency = table[table["method"] == "Saliency"]
    assert saliency["null_mean"].between(0, 1).all()
    assert (saliency["null"] >= saliency["chance"]).all()
    assert table.loc[table["kind"] == "baseline", "null_mean"].isna().all()  # they use no network
    assert saliency["n_perm"].tolist() == [2, 1]
    assert (table["n_subjects"] == 4).all()
    assert len(list(finished.path.rglob("permutation-*/ranks.tsv"))) == 3
    assert len(read_tsv(finished.path / "cells.tsv")) == 2
    assert read_json(finished.path / "detection.json")["Tested"] == 4
    page = finished.report.read_text()
    assert all(text in page for text in ("Saliency", "Edges", "which kind of effect", "All cells"))
    assert (finished.path / "detection_auroc.png").stat().st_size > 10_000
    assert (finished.path / "detection_methods.png").stat().st_size > 10_000


@pytest.mark.slow
def test_verify_checks_the_run_of_every_cell_and_the_tables_of_all(finished, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(finished.path, folder)
    assert cli.main(["verify", str(folder)]) == 0
    assert "3 settings, " in capsys.readouterr().out  # of the benchmark and of two cells
    network = next((folder / "cells" / NAMES[0]).rglob("*.ckpt"))
    network.write_bytes(network.read_bytes() + b"0")
    table = folder / "methods.tsv"
    table.write_text(f"{table.read_text()}\n")
    (folder / "report.html").unlink()
    assert cli.main(["verify", str(folder)]) == 1
    printed = capsys.readouterr().out
    for path, problem in ((network, "altered"), (table, "altered"), (folder / "report.html", "missing")):
        assert f"{path}: is {problem}" in printed
    assert "; 3 missing or altered" in printed


@pytest.mark.slow
def test_ranks_are_those_of_the_maps_that_explain_saves(finished, tmp_path):
    shutil.copytree(finished.path / "cells" / NAMES[1], tmp_path / "cell")
    cell = explain(stage_settings("explain", [f"run_dir={tmp_path / 'cell'}"]))
    found = read_tsv(cell.evaluation("ranks")).set_index(["participant_id", "method"])["value"]
    for row in read_tsv(cell.predictions).itertuples():
        path = cell.attribution(row.participant_id, row.session_id, "Saliency", 0)
        brain, truth = (of(cell, row.participant_id, row.session_id) for of in (brain_of, truth_of))
        expected = localization(np.asanyarray(load_img(path).dataobj), truth & brain, brain)["rra"]
        assert found[row.participant_id, "Saliency"] == pytest.approx(expected)
    mean = read_tsv(finished.path / "detection.tsv").set_index(["cell", "method"])["value"]
    assert mean[NAMES[1], "Saliency"] == pytest.approx(found.xs("Saliency", level=1).mean())


@pytest.mark.slow
def test_finished_cells_are_kept_and_other_settings_refused(finished):
    before = times(finished.path / "cells", "*.*")
    run(compose("run", [*SETTINGS, CELLS, f"run_dir={finished.path}"]))
    after = times(finished.path / "cells", "*.*")
    assert {path for path in before if after.get(path) != before[path]} == set()
    settings = [*SETTINGS, CELLS, "detection.effects.lesion.lesion_count=1", f"run_dir={finished.path}"]
    with pytest.raises(ConfigError, match=r"other settings.*detection\.effects\.lesion"):
        run(compose("run", settings))
    with pytest.raises(ConfigError, match="is a detection benchmark, which only `xai-brain run` continues"):
        check_inexpensively("report", [f"run_dir={finished.path}"])
