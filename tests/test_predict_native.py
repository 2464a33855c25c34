"""Participants whose images are in native space are predicted by networks that were trained in MNI152."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from native_brains import KNOWN, native, replace_extraction_and_alignment, template_brain
from nibabel.affines import apply_affine

from xai_brain import BrainClassifier
from xai_brain.cli import main
from xai_brain.config.data import PreprocessingConfig
from xai_brain.config.setting import ConfigError
from xai_brain.data.preprocessing import preprocess_t1w
from xai_brain.io.nifti import load_img
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, sidecar
from xai_brain.study.training.predict_settings import predict_settings

N = 3


@pytest.fixture
def calls(monkeypatch):
    return replace_extraction_and_alignment(monkeypatch, template_brain())


@pytest.fixture(scope="module")
def natives(tmp_path_factory):
    """Three brains as acquired, without a word on their space or on brain extraction."""
    root = tmp_path_factory.mktemp("native")
    for i in range(N):
        path = root / f"sub-{i:02d}" / "anat" / f"sub-{i:02d}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        native(template_brain(seed=i)).to_filename(path)
    table = pd.DataFrame({"participant_id": [f"sub-{i:02d}" for i in range(N)], "sex": list("FMF")})
    table.to_csv(root / "participants.tsv", sep="\t", index=False)
    return root


@pytest.fixture
def settings(small_run, natives, tmp_path):
    networks = f"networks={small_run.path}"
    return [
        networks,
        "data=bids",
        f"data.root={natives}",
        f"data.cache_dir={tmp_path / 'cache'}",
        "data.num_workers=1",
        f"run_dir={tmp_path / 'new'}",
    ]


@pytest.mark.parametrize("raw", ["preprocessing.raw=true", "preprocessing=raw"])
def test_native_images_are_predicted_with_one_command(small_run, settings, calls, raw, capsys):
    assert main(["predict", *settings, raw]) == 0, capsys.readouterr().err
    assert calls.count("align_to_mni") == N
    run = RunDirectory(settings[-1].split("=")[1])
    expected = []
    for i in range(N):  # the same brains, in MNI152
        prepared = preprocess_t1w(template_brain(seed=i), PreprocessingConfig("t1w_4mm"), space="MNI152")
        volume, each = torch.from_numpy(prepared.volume)[None, None], []
        for fold in (0, 1):
            path = small_run.checkpoint(fold, 0)
            network = BrainClassifier.load_from_checkpoint(path, map_location="cpu").eval()
            with torch.no_grad():
                each.append(network(volume).softmax(1)[0].numpy())
        expected.append(np.mean(each, 0))
    table = read_tsv(run.predictions)
    np.testing.assert_allclose(table[["prob_female", "prob_male"]], expected, atol=1e-4)


def test_maps_of_native_images_come_back_to_them(settings, calls, natives, capsys):
    assert main(["predict", *settings, "preprocessing.raw=true", "attribution=[grad_cam]"]) == 0
    run = RunDirectory(settings[-1].split("=")[1])
    assert main(["explain", f"run_dir={run.path}", "explain.output_space=native"]) == 0, (
        capsys.readouterr().err
    )
    np.testing.assert_allclose(read_json(run.alignment("sub-01", ""))["MNI152ToNative"], KNOWN)
    path = run.attribution("sub-01", "", "GradCAM", 0)
    back_img, map_img = load_img(run.native(path, "T1w")), load_img(path)
    (t1w_path,) = (natives / "sub-01").rglob("*_T1w.nii.gz")
    np.testing.assert_allclose(back_img.affine, nib.load(t1w_path).affine, atol=1e-4)
    values = np.asarray(map_img.dataobj)
    peak_mm = apply_affine(
        KNOWN, apply_affine(map_img.affine, np.unravel_index(values.argmax(), values.shape))
    )
    voxel = np.round(apply_affine(np.linalg.inv(back_img.affine), peak_mm)).astype(int)
    assert np.asarray(back_img.dataobj)[tuple(voxel)] > 0.8 * values.max()
    about = read_json(sidecar(run.native(path, "T1w")))
    assert about["Sources"] == [f"bids:attributions:{path.relative_to(run.path / 'attributions')}"]
    assert about["SpatialReference"] == f"bids:cohort:{t1w_path.relative_to(natives)}"
    links = read_json(run.path / "native" / "dataset_description.json")["DatasetLinks"]
    assert links == {"cohort": natives.as_uri(), "attributions": "../attributions"}


def test_without_alignment_the_advice_can_be_followed(settings, calls, capsys):
    assert main(["predict", *settings]) == 1
    assert "preprocessing.raw=true" in capsys.readouterr().err
    assert main(["predict", *settings, "preprocessing.raw=true"]) == 0


def test_the_rest_of_the_preparation_belongs_to_training(settings):
    for refused in ("preprocessing.grid=t1w_2mm", "preprocessing=t1w_2mm", "preprocessing.scaling=none"):
        with pytest.raises(ConfigError, match="belongs to training"):
            predict_settings([*settings, refused])
    cfg = predict_settings([*settings, "preprocessing=raw"])
    assert (cfg.preprocessing.raw, cfg.preprocessing.grid) == (True, "t1w_4mm")
