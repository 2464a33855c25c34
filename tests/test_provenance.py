"""provenance.json lists every image, also where all of them have the same file name."""

from __future__ import annotations

import pytest
from conftest import COARSE, COARSE_SHAPE, fake_brain

from xai_brain import compose
from xai_brain.cli import main
from xai_brain.io.atomic import file_hash
from xai_brain.runs.directory import read_json
from xai_brain.stages.train import train

N_IMAGES = 12
SETTINGS = ["data=table", "data.space=MNI152", "preprocessing=t1w_4mm"]


def make_cohort(root, seed):
    """Twelve participants, each with a file T1w.nii.gz in its own folder; returns the hash of each image."""
    lines = ["participant_id\tt1w_path\tsex"]
    for i in range(N_IMAGES):
        path = root / f"P{i:02d}" / "T1w.nii.gz"
        path.parent.mkdir(parents=True)
        fake_brain(COARSE_SHAPE, COARSE, seed=seed + i).to_filename(path)
        lines.append(f"P{i:02d}\tP{i:02d}/T1w.nii.gz\t{'FM'[i % 2]}")
    (root / "participants.tsv").write_text("\n".join(lines) + "\n")
    return {f"P{i:02d}/T1w.nii.gz": file_hash(root / f"P{i:02d}" / "T1w.nii.gz") for i in range(N_IMAGES)}


@pytest.mark.slow
def test_every_image_is_listed_by_its_path_below_the_cohort(tmp_path):
    hashes = make_cohort(tmp_path / "cohort", seed=0)
    assert len(set(hashes.values())) == N_IMAGES
    settings = [*SETTINGS, f"data.root={tmp_path / 'cohort'}", f"run_dir={tmp_path / 'run'}"]
    settings += ["model.channels=[2,3,4]", "folds.n_folds=2", "trainer.max_epochs=1", "trainer.batch_size=6"]
    run = train(compose("train", settings))
    assert read_json(run.provenance)["inputs_sha256"] == hashes

    others = make_cohort(tmp_path / "others", seed=100)
    settings = ["data=table", "data.space=MNI152", f"data.root={tmp_path / 'others'}"]
    assert main(["predict", f"networks={run.path}", f"run_dir={tmp_path / 'new'}", *settings]) == 0
    assert read_json(tmp_path / "new" / "provenance.json")["inputs_sha256"] == others

    (tmp_path / "made").mkdir()
    img = fake_brain(COARSE_SHAPE, COARSE)
    img.to_filename(tmp_path / "made" / "sub-P00_space-MNI152_desc-Own_attribution.nii.gz")
    settings = ["import-maps", f"maps={tmp_path / 'made'}", f"run_dir={tmp_path / 'maps'}", *settings]
    assert main([*settings, "preprocessing=t1w_4mm"]) == 0
    assert read_json(tmp_path / "maps" / "provenance.json")["inputs_sha256"] == others
