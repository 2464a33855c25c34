"""Settings of planted effects: what is refused, and what is made once."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from planted_cohort import EVERY_KIND, GRID, INTENSITY, LEFT, RIGHT, UP, write_cohort

from xai_brain.config.planted_effect import PlantedEffect, PlantedError, check_planted
from xai_brain.data.planted.draws import draw
from xai_brain.data.planted.effects import plant


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("prepared"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"further_centers_mm": [[1, 2]]}, "three numbers are needed"),
        ({"further_centers_mm": [RIGHT], "suppression": 1.0}, "without planted.suppression"),
        ({"further_centers_mm": [LEFT]}, r"further_centers_mm: overlaps the effect"),
        ({"further_centers_mm": [RIGHT], "distractor_center_mm": RIGHT}, "distractor_center_mm: overlaps"),
    ],
)
def test_places_that_cannot_be_used_are_refused(cohort, more, message):
    with pytest.raises(PlantedError, match=message):
        plant(cohort, replace(INTENSITY, confound_center_mm=UP, **more), GRID)


def test_same_settings_same_bytes_and_nothing_is_made_twice(cohort, tmp_path):
    rows = cohort.head(6)
    settings = EVERY_KIND[3]
    first = plant(rows, settings, GRID, cache_dir=tmp_path / "a")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}

    def refuse(missing):
        raise AssertionError(f"{len(missing)} are made again")

    again = plant(rows, replace(settings), GRID, cache_dir=tmp_path / "a", progress=refuse)
    pd.testing.assert_frame_equal(first, again)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")} == before
    plant(rows, settings, GRID, cache_dir=tmp_path / "b")
    files = sorted(path.name for path in (tmp_path / "a" / "planted").iterdir())
    assert len(files) == 12
    for name in files:
        assert (tmp_path / "a/planted" / name).read_bytes() == (tmp_path / "b/planted" / name).read_bytes()


@pytest.mark.parametrize("change", [{"size": -1.0}, {"random_state": 1}, {"lesion_compactness": 0.5}])
def test_another_plant_is_another_image(cohort, tmp_path, change):
    rows, settings = cohort.head(6), EVERY_KIND[3]
    first = plant(rows, settings, GRID, cache_dir=tmp_path)
    other = plant(rows, replace(settings, **change), GRID, cache_dir=tmp_path)
    assert not set(first["sha256"]) & set(other["sha256"])
    assert (first["sha256"].str[:64] == rows["sha256"]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "tumour"}, "planted.kind=tumour: one of atrophy, expansion, intensity, lesion"),
        ({"center_mm": None}, "no value for planted.center_mm"),
        ({"center_mm": [1.0, 2.0]}, "three numbers"),
        ({"radius_mm": 0.0}, "planted.radius_mm=0.0: above 0"),
        ({"edge_mm": -1.0}, "planted.edge_mm=-1.0: above 0"),
        ({"confound_rho": 0.5}, "no value for planted.confound_center_mm"),
        ({"confound_center_mm": UP, "confound_rho": 1.5}, "from -1 to 1"),
        ({"confound_center_mm": UP, "confound_rho": 0.5, "suppression": 1.0}, "confound_rho=0"),
        ({"kind": "lesion", "confound_center_mm": UP, "suppression": 1.0}, "only with kind=intensity"),
        ({"variation": 0.5}, "planted.variation=0.5: from 0 to 0.3"),
        ({"size": 8.0}, "planted.size=8.0: a strength that varies by 0.2"),
        ({"kind": "atrophy", "size": 80.0}, "from 0 to 60"),
        ({"kind": "expansion", "size": -3.0}, "from 0 to 150"),
        ({"n_sites": 0}, "planted.n_sites=0"),
        ({"site_gain_sd": -1.0}, "planted.site_gain_sd"),
        ({"lesion_count": 0}, "planted.lesion_count=0"),
        ({"lesion_volume_ml": 0.0}, "planted.lesion_volume_ml=0.0"),
        ({"lesion_compactness": 1.0}, "planted.lesion_compactness=1.0"),
        ({"mask_img": "a.nii", "region": 3}, "one place only"),
        ({"region": 3}, "no value for planted.labels_img"),
        ({"labels_img": "a.nii"}, "no value for planted.region"),
    ],
)
def test_wrong_settings_are_told_in_one_line(change, message):
    with pytest.raises(PlantedError) as caught:
        check_planted(replace(INTENSITY, **change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (replace(INTENSITY, center_mm=[0.0, 300.0, 0.0]), "outside the grid"),
        (
            replace(INTENSITY, center_mm=[-60.0, -60.0, -30.0], radius_mm=5.0),
            "outside the brain of sub-00",
        ),
        (replace(INTENSITY, distractor_center_mm=[-20.0, -10.0, 16.0]), "overlaps the effect"),
        (replace(EVERY_KIND[1], size=50.0, edge_mm=2.0), "would fold"),
        (replace(EVERY_KIND[3], radius_mm=6.0, lesion_volume_ml=5.0), "too small for them"),
        (PlantedEffect(), "no effect is chosen"),
    ],
)
def test_what_cannot_be_planted_here_is_told_in_one_line(cohort, tmp_path, settings, message):
    with pytest.raises(PlantedError, match=message) as caught:
        plant(cohort.head(8), settings, GRID, cache_dir=tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(PlantedError, match="at least 4"):
        draw(["sub-1", "sub-2"], INTENSITY)
