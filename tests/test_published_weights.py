"""Weights that were trained elsewhere predict new participants without a run directory."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

from xai_brain import RunDirectory, compose
from xai_brain.cli import main
from xai_brain.config.checks import read_config
from xai_brain.config.data import PreprocessingConfig
from xai_brain.config.setting import ConfigError
from xai_brain.data.preprocessing import preprocess_t1w
from xai_brain.io.nifti import ImageError, load_img
from xai_brain.models.networks.kan2020 import Kan2020
from xai_brain.runs.directory import read_json, read_tsv, sidecar
from xai_brain.study.training.predict_participants import check_published_input
from xai_brain.study.training.predict_settings import predict_settings

SMALL = "model.channels=[2,3,4]"
ANTERIOR_COMMISSURE_MM = np.array([0, 3, -5])
LAYOUTS = {  # names of the tensors in the two published files
    "best_model_all": ({"conv": "hidden{n}.0", "norm": "hidden{n}.1"}, "linear"),
    "best_model_all_grad": ({"conv": "features.{c}", "norm": "features.{b}"}, "classifier.3"),
}


def published_name(key: str, layout: str) -> str:
    """block2.conv.weight -> hidden2.0.weight or features.4.weight."""
    blocks, linear = LAYOUTS[layout]
    if key.startswith("linear."):
        return key.replace("linear", linear)
    block, kind, tensor = key.split(".")
    n = int(block.removeprefix("block"))
    return blocks[kind].format(n=n, c=4 * n - 4, b=4 * n - 3) + f".{tensor}"


@pytest.fixture(scope="module")
def network() -> Kan2020:
    torch.manual_seed(3)
    network = Kan2020(channels=[2, 3, 4])
    with torch.no_grad():
        for number, block in enumerate((network.block1, network.block2, network.block3)):
            block.norm.running_mean.uniform_(-1, 1)
            block.norm.running_var.fill_(1e4 if number == 0 else 1.0)
    return network.eval()


@pytest.fixture(scope="module")
def published(network, tmp_path_factory):
    """Both published files, with weights of a small network."""
    folder = tmp_path_factory.mktemp("weights")
    for layout in LAYOUTS:
        state = {published_name(key, layout): value for key, value in network.state_dict().items()}
        torch.save(state, folder / layout)
    return folder


@pytest.fixture(scope="module")
def participants(tmp_path_factory):
    """A BIDS tree of four template brains of different sizes, intensities and scalings."""
    root = tmp_path_factory.mktemp("bids")
    template = load_mni152_template(resolution=4)
    inside = np.asarray(load_mni152_brain_mask(resolution=4).dataobj) > 0
    rng = np.random.default_rng(0)
    for i, (size, intensity) in enumerate([(0.85, 40), (0.9, 3000), (0.95, 500), (0.88, 1)]):
        data = np.asarray(template.dataobj) * (1 + 0.05 * rng.standard_normal(template.shape)) * intensity
        affine = template.affine.copy()
        affine[:3] = size * affine[:3]
        affine[:3, 3] += (1 - size) * ANTERIOR_COMMISSURE_MM
        path = root / f"sub-{i:02d}" / "anat" / f"sub-{i:02d}_space-MNI152NLin6Asym_desc-brain_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        nib.Nifti1Image(np.where(inside, data, 0).astype(np.float32), affine).to_filename(path)
    table = pd.DataFrame({"participant_id": [f"sub-{i:02d}" for i in range(4)], "sex": list("FMMF")})
    table.to_csv(root / "participants.tsv", sep="\t", index=False)
    return root


def command(participants, weights, tmp_path, *more):
    return [
        f"model.weights={weights}",
        "data=bids",
        f"data.root={participants}",
        f"run_dir={tmp_path / 'new'}",
        *more,
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_command_predicts_with_a_published_file(participants, published, network, tmp_path, layout):
    assert main(["predict", *command(participants, published / layout, tmp_path, SMALL)]) == 0
    table = read_tsv(tmp_path / "new" / "predictions.tsv")
    kan2020 = PreprocessingConfig("kan2020_58x70x58", scaling="none", brain_median=700, alignment="rigid")
    for row in table.itertuples():
        (path,) = (participants / row.participant_id).rglob("*_T1w.nii.gz")
        prepared = preprocess_t1w(load_img(path), kan2020, space="MNI152", path=path)
        assert np.median(prepared.volume[prepared.brain_mask]) == pytest.approx(700, rel=1e-4)
        with torch.no_grad():
            probabilities = network(torch.from_numpy(prepared.volume)[None, None]).softmax(1)[0]
        np.testing.assert_allclose([row.prob_female, row.prob_male], probabilities, atol=1e-5)
    assert table["target"].tolist() == [0, 1, 1, 0], "class 1 of the published files is male"
    assert table["prob_male"].std() > 1e-4
    assert "test/auroc" in read_json(tmp_path / "new" / "metrics.json")


@pytest.mark.slow
def test_predictions_of_a_file_are_explained_and_verified(participants, published, tmp_path, capsys):
    few = "attribution.MeaningfulPerturbation.n_iter=2"
    settings = command(participants, published / "best_model_all", tmp_path, SMALL, few)
    assert main(["predict", *settings]) == 0
    run = RunDirectory(tmp_path / "new")
    for stage in ("explain", "evaluate", "report"):
        assert main([stage, f"run_dir={run.path}"]) == 0, capsys.readouterr().err
    about = read_json(sidecar(run.attribution("sub-02", "", "GradCAM", 0)))
    assert about["CheckpointSHA256"] == read_json(run.provenance)["networks_sha256"]["best_model_all"]
    assert main(["verify", str(run.path)]) == 0, capsys.readouterr()
    assert main(["predict", *settings]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_methods_that_need_training_participants_are_refused(participants, published, tmp_path, capsys):
    settings = command(participants, published / "best_model_all", tmp_path, SMALL)
    refused = "DeepLift.baseline=training_mean: needs images of training participants"
    assert main(["predict", *settings, "attribution=[deep_lift]"]) == 1
    assert f"attribution.{refused}" in capsys.readouterr().err
    assert main(["predict", *settings, "attribution=[t_map]"]) == 1
    assert "attribution.TMap: needs images of training participants" in capsys.readouterr().err
    assert main(["predict", *settings, "attribution=[grad_cam]"]) == 0
    stage = ["explain", f"run_dir={tmp_path / 'new'}", "attribution=[deep_lift]"]
    assert main(stage) == 1
    message = capsys.readouterr().err
    assert f"attribution.{refused}" in message
    advice = message.strip().rpartition("choose ")[2]
    assert advice == "attribution.DeepLift.baseline=zero"
    assert main([*stage, advice]) == 0, capsys.readouterr().err
    run = RunDirectory(tmp_path / "new")
    assert run.attribution("sub-03", "", "DeepLift", 0).exists()


def test_weights_of_another_kind_need_their_preparation_and_classes(participants, network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "own.pt")
    settings = command(participants, tmp_path / "own.pt", tmp_path, SMALL)
    with pytest.raises(ConfigError, match=r"own\.pt: the file does not state how .* give preprocessing="):
        predict_settings(settings)
    with pytest.raises(ConfigError, match=r"own\.pt: the file does not name its classes"):
        predict_settings([*settings, "preprocessing=kan2020"])
    cfg = predict_settings([*settings, "preprocessing=kan2020", "data.class_names=[female,male]"])
    assert cfg.preprocessing.brain_median == 700


def test_a_checkpoint_brings_its_preparation_its_classes_and_its_temperature(small_run, tmp_path):
    checkpoint = small_run.checkpoint(0, 0)
    people = ["data=synthetic", "data.cohort.n_subjects=8", "data.cohort.seed=77", "attribution=[grad_cam]"]
    assert main(["predict", f"model.weights={checkpoint}", *people, f"run_dir={tmp_path / 'new'}"]) == 0
    from xai_brain import BrainClassifier
    from xai_brain.study.participants import prepared_cohort

    cfg = predict_settings([f"model.weights={checkpoint}", *people, f"run_dir={tmp_path / 'new'}"])
    assert cfg.preprocessing.grid == "t1w_4mm"
    cohort = prepared_cohort(cfg, RunDirectory(tmp_path / "new"))
    volumes = torch.from_numpy(np.stack([np.load(path) for path in cohort["volume_path"]]))[:, None]
    network = BrainClassifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    with torch.no_grad():
        expected = network(volumes).softmax(1).numpy()
    table = read_tsv(tmp_path / "new" / "predictions.tsv")
    np.testing.assert_allclose(table[["prob_female", "prob_male"]], expected, atol=1e-5)
    with pytest.raises(ConfigError, match=r"preprocessing\.grid cannot be changed"):
        predict_settings([f"model.weights={checkpoint}", *people, "preprocessing.grid=t1w_2mm"])


def test_rigidly_aligned_images_that_claim_no_space_are_compared_without_their_size(participants):
    kan2020 = PreprocessingConfig("kan2020_58x70x58", scaling="none", brain_median=700, alignment="rigid")
    (path,) = (participants / "sub-00").rglob("*_T1w.nii.gz")
    img = load_img(path)
    prepared = preprocess_t1w(img, kan2020, path="100307.nii.gz")
    size = np.count_nonzero(np.asarray(img.dataobj)) * abs(np.linalg.det(img.affine[:3, :3]))
    assert prepared.brain_mask.sum() * abs(np.linalg.det(prepared.affine[:3, :3])) == pytest.approx(
        size, rel=0.02
    )
    with pytest.raises(ImageError, match="Dice with the template's brain"):
        preprocess_t1w(img, PreprocessingConfig("t1w_4mm"), path="100307.nii.gz")
    shifted = img.affine.copy()
    shifted[1, 3] += 15
    with pytest.raises(ImageError, match="is not in MNI152 space"):
        preprocess_t1w(nib.Nifti1Image(img.dataobj, shifted), kan2020, path="100307.nii.gz")


def test_a_run_and_a_file_are_not_used_together(small_run, participants, published, tmp_path):
    settings = command(participants, published / "best_model_all", tmp_path)
    with pytest.raises(ConfigError, match=r"one of networks and model\.weights is needed"):
        predict_settings([*settings, f"networks={small_run.path}"])


def test_another_preparation_than_the_published_one_is_refused(participants, published, tmp_path, capsys):
    settings = command(participants, published / "best_model_all", tmp_path, SMALL, "attribution=[grad_cam]")
    with pytest.raises(ConfigError, match=r"was trained on intensities .* use preprocessing=kan2020"):
        predict_settings([*settings, "preprocessing=t1w_58x70x58"])
    assert main(["predict", *settings, "preprocessing.brain_median=null"]) == 1
    message = capsys.readouterr().err
    assert "preprocessing.brain_median=None: the median intensity of these brains" in message
    assert "use preprocessing.brain_median=700" in message


@pytest.mark.parametrize(("spread", "warned"), [(0.02, True), (0.1, False)])
def test_equal_brain_sizes_are_noticed(tmp_path, published, capsys, spread, warned):
    rows = []
    for i, factor in enumerate(np.linspace(1 - spread, 1 + spread, 12)):
        mask = np.zeros((20, 24, 22), bool)
        mask.ravel()[: round(factor * 4000)] = True
        np.save(tmp_path / f"{i}_mask.npy", mask)
        np.save(tmp_path / f"{i}.npy", 700.0 * mask)
        rows.append([str(tmp_path / f"{i}.npy"), str(tmp_path / f"{i}_mask.npy")])
    chosen = ["data=synthetic", "preprocessing=kan2020", f"networks={published / 'best_model_all'}"]
    config = read_config(compose("predict", chosen))
    check_published_input(config, pd.DataFrame(rows, columns=["volume_path", "volume_mask_path"]))
    assert ("brain sizes differ by" in capsys.readouterr().out) == warned
