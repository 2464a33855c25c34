"""Recipes of docs/how_to/recipes.md: their lines are run, with files of the published names and shapes.

Sizes of images and the depth of the networks are reduced in the text of a recipe, as each test shows.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

import xai_brain as xb
from xai_brain.models.weights import WeightsError

nets = pytest.importorskip("monai.networks.nets")
pytest.importorskip("einops")

PAGE = Path(__file__).parents[1] / "docs" / "how_to" / "recipes.md"
LAS = np.array([[-1.0, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])
TURN = np.array([[0.96, 0.28, 0], [-0.28, 0.96, 0], [0, 0, 1]])
OBLIQUE = nib.affines.from_matvec(TURN @ np.diag([-0.9, 1.4, 2.0]), (-20, -30, -25))


def blocks(heading: str) -> list[str]:
    """Python code below a heading."""
    section = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(heading)]
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def reduced(code: str, **sizes: str) -> str:
    """Code in which texts are replaced, each of which has to occur."""
    for before, after in sizes.items():
        assert before in code, before
        code = code.replace(before, after)
    return code


def write_image(path: str, shape: tuple[int, ...], affine: np.ndarray, seed: int = 0) -> nib.Nifti1Image:
    """Positive values in a box, 0 around it."""
    data = np.zeros(shape, np.float32)
    inner = tuple(slice(1, n - 1) for n in shape)
    data[inner] = 50 + 100 * np.random.default_rng(seed).random(data[inner].shape)
    img = nib.Nifti1Image(data, affine)
    img.to_filename(path)
    return img


def random_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator) / max(1, int(np.prod(shape[1:]))) ** 0.5
        weights[name] = values.square() + 0.5 if name.endswith("running_var") else values
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(3)
    return weights


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# -- SFCN ------------------------------------------------------------------------------------------


def published_sfcn(channels: tuple[int, ...], n_outputs: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    before = 1
    for k, n in enumerate(channels):
        size = 1 if k == len(channels) - 1 else 3
        layer = f"module.feature_extractor.conv_{k}"
        shapes |= {f"{layer}.0.weight": (n, before, size, size, size), f"{layer}.0.bias": (n,)}
        parts = ("weight", "bias", "running_mean", "running_var")
        shapes |= {f"{layer}.1.{part}": (n,) for part in parts}
        shapes[f"{layer}.1.num_batches_tracked"] = ()
        before = n
    head = {"weight": (n_outputs, before, 1, 1, 1), "bias": (n_outputs,)}
    return shapes | {f"module.classifier.conv_{len(channels)}.{part}": shape for part, shape in head.items()}


def original_sfcn(state: dict[str, torch.Tensor], volumes: torch.Tensor) -> torch.Tensor:
    """Log-probabilities by the published order: convolution, batch norm, max pooling, ReLU; mean; softmax."""
    x, k = volumes, 0
    while f"module.feature_extractor.conv_{k}.0.weight" in state:
        conv, norm = (f"module.feature_extractor.conv_{k}.{part}." for part in (0, 1))
        weight = state[conv + "weight"]
        x = nn.functional.conv3d(x, weight, state[conv + "bias"], padding=weight.shape[-1] // 2)
        statistics = (state[norm + part] for part in ("running_mean", "running_var", "weight", "bias"))
        x = nn.functional.batch_norm(x, *statistics)
        x = torch.relu(nn.functional.max_pool3d(x, 2) if weight.shape[-1] > 1 else x)
        k += 1
    head = f"module.classifier.conv_{k}."
    x = nn.functional.conv3d(x.mean((2, 3, 4), keepdim=True), state[head + "weight"], state[head + "bias"])
    return x.flatten(1).log_softmax(1)


def test_sfcn_for_sex_and_age():
    """The network is the published one, and the map of the crop lies at its place in the image."""
    sex, age = (random_weights(published_sfcn(*sizes)) for sizes in (
        ((28, 58, 128, 256, 256, 64), 2), ((32, 64, 128, 256, 256, 64), 40)))  # fmt: skip
    torch.save(sex, "run_20191008_00_epoch_last.p")
    torch.save(age, "run_20190719_00_epoch_best_mae.p")
    img = write_image("sub-01_T1w.nii.gz", (38, 44, 36), LAS)
    names: dict = {}
    code, ages = blocks("SFCN")
    exec(reduced(code, **{"(160, 192, 160)": "(32, 40, 32)"}) + ages, names)

    data = img.get_fdata(dtype=np.float32)
    crop = torch.from_numpy((data / data.mean())[3:35, 2:42, 2:34])[None, None].requires_grad_()
    expected = original_sfcn(sex, crop).detach()
    network = names["network"].eval()
    assert torch.allclose(network(crop).log_softmax(1), expected, atol=1e-4)
    maps = names["maps"]
    target = int(expected.argmax())
    assert maps.sidecar("sub-01", "Saliency")["TargetName"] == ["female", "male"][target]
    probability = maps.sidecar("sub-01", "Saliency")["TargetProbability"]
    assert probability == pytest.approx(float(expected.exp().max()), abs=1e-4)
    found = maps.img("sub-01", "Saliency")
    assert np.allclose(found.affine, LAS)
    (gradient,) = torch.autograd.grad(network(crop)[0, target], crop)
    assert np.allclose(
        found.get_fdata()[3:35, 2:42, 2:34], gradient[0, 0], atol=1e-6 + 1e-3 * gradient.abs().max()
    )
    outside = np.ones(found.shape, bool)
    outside[3:35, 2:42, 2:34] = False
    assert not found.get_fdata()[outside].any()

    years = (original_sfcn(age, crop).exp() * (torch.arange(40) + 42.5)).sum()
    with torch.no_grad():
        found_years = float(names["Age"]("run_20190719_00_epoch_best_mae.p").eval()(crop))
    assert found_years == pytest.approx(float(years.detach()), abs=1e-2)
    assert names["ages"].sidecar("sub-01", "Saliency")["Output"] == "value"


def test_weights_of_another_sfcn_are_refused():
    state = random_weights(published_sfcn((2, 3, 4), 2))
    torch.save(state, "weights.p")
    from xai_brain.models.networks.sfcn import SFCN

    loaded = SFCN((12, 14, 16), channels=(2, 3, 4), weights="weights.p")
    assert torch.equal(loaded.linear.weight, state["module.classifier.conv_3.weight"][..., 0, 0, 0])
    with pytest.raises(WeightsError, match="do not fit the network SFCN"):
        SFCN((12, 14, 16), channels=(2, 3, 5), weights="weights.p")
    with pytest.raises(WeightsError, match=r"do not fit the network SFCN; linear\.weight"):
        SFCN((12, 14, 16), n_classes=3, channels=(2, 3, 4), weights="weights.p")


# -- BrainIAC --------------------------------------------------------------------------------------


def published_vit(n_layers: int) -> dict[str, tuple[int, ...]]:
    """Of MONAI 1.3, without cross-attention."""
    norm = {"weight": (768,), "bias": (768,)}
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding.position_embeddings": (1, 216, 768),
        "patch_embedding.patch_embeddings.weight": (768, 1, 16, 16, 16),
        "patch_embedding.patch_embeddings.bias": (768,),
        **{f"norm.{part}": shape for part, shape in norm.items()},
    }
    for k in range(n_layers):
        block = {
            **{"mlp.linear1.weight": (3072, 768), "mlp.linear1.bias": (3072,)},
            **{"mlp.linear2.weight": (768, 3072), "mlp.linear2.bias": (768,)},
            **{f"norm{n}.{part}": shape for n in (1, 2) for part, shape in norm.items()},
            **{"attn.out_proj.weight": (768, 768), "attn.out_proj.bias": (768,)},
            "attn.qkv.weight": (2304, 768),
        }
        shapes |= {f"blocks.{k}.{name}": shape for name, shape in block.items()}
    return shapes


def test_brainiac():
    n_layers = 1
    state = random_weights(published_vit(n_layers))
    head = random_weights({"fc.weight": (1, 768), "fc.bias": (1,)})
    own = {f"backbone.backbone.{name}": value for name, value in state.items()}
    own |= {f"classifier.{name}": value for name, value in head.items()}
    torch.save({"state_dict": own | {f"model.{name}": value for name, value in own.items()}}, "brainage.ckpt")
    resnet = nets.resnet50(spatial_dims=3, n_input_channels=1, conv1_t_stride=2, feed_forward=False)
    first = {f"backbone.{name}": value for name, value in resnet.state_dict().items()}
    assert first["backbone.conv1.weight"].shape == (64, 1, 7, 7, 7)
    assert first["backbone.layer4.2.conv3.weight"].shape == (2048, 512, 1, 1, 1)
    projection = {"projection_head.layers.0.weight": torch.ones(2, 2)}
    torch.save({"state_dict": first | projection}, "BrainIAC.ckpt")
    img = write_image("sub-01_T1w.nii.gz", (20, 26, 24), OBLIQUE)
    names: dict = {}
    vit, resnet_code = blocks("BrainIAC")
    exec(reduced(vit, **{"num_layers=12": f"num_layers={n_layers}"}) + resnet_code, names)

    network, maps = names["network"], names["maps"]
    for name, value in state.items():
        assert torch.equal(network.backbone.state_dict()[name], value), name
    assert torch.equal(network.head.weight, head["fc.weight"])
    assert torch.equal(names["first"].backbone.conv1.weight, first["backbone.conv1.weight"])
    assert maps.sidecar("sub-01", "AttnLRP")["TargetName"] == "age"
    for method in maps.methods:
        found = maps.img("sub-01", method)
        assert found.shape == img.shape
        assert np.allclose(found.affine, OBLIQUE)
        assert found.get_fdata().any()
    # the centre of the resized volume is that of the image, and so are its corners
    prepared = names["prepare"](img)
    corners = np.array([[-0.5] * 3, [95.5] * 3])
    in_image = nib.affines.apply_affine(np.linalg.inv(OBLIQUE) @ prepared.affine, corners)
    assert np.allclose(in_image, [[-0.5] * 3, np.array(img.shape) - 0.5])
    inside = prepared.get_fdata()[prepared.get_fdata() != 0]
    assert inside.mean() == pytest.approx(0, abs=1e-4)
    assert inside.std() == pytest.approx(1, abs=1e-4)


# -- segmentation ----------------------------------------------------------------------------------


def test_swin_unetr_has_the_published_shapes():
    state = nets.SwinUNETR(in_channels=4, out_channels=3, feature_size=48).state_dict()
    published = {
        "swinViT.patch_embed.proj.weight": (48, 4, 2, 2, 2),
        "swinViT.layers1.0.blocks.0.attn.relative_position_bias_table": (2197, 3),
        "swinViT.layers1.0.blocks.0.attn.qkv.weight": (144, 48),
        "swinViT.layers4.0.downsample.reduction.weight": (768, 3072),
        "encoder1.layer.conv1.conv.weight": (48, 4, 3, 3, 3),
        "encoder10.layer.conv1.conv.weight": (768, 768, 3, 3, 3),
        "decoder5.transp_conv.conv.weight": (768, 384, 2, 2, 2),
        "out.conv.conv.weight": (3, 48, 1, 1, 1),
    }
    assert {name: tuple(state[name].shape) for name in published} == published


@pytest.mark.slow
def test_swin_unetr():
    """The map of a window of four channels, for a label that overlaps with others."""
    torch.manual_seed(0)
    saved = nets.SwinUNETR(in_channels=4, out_channels=3, feature_size=12).eval()
    torch.save({"epoch": 3, "state_dict": saved.state_dict()}, "model.pt")
    imgs = [
        write_image(f"sub-01_{name}.nii.gz", (40, 70, 37), LAS, seed)
        for seed, name in enumerate(("flair", "t1ce", "t1", "t2"))
    ]
    names: dict = {}
    (code,) = blocks("SwinUNETR")
    sizes = {
        "(128, 128, 128)": "(32, 64, 32)",
        "(56, 56, 14)": "(4, 3, 2)",
        "feature_size=48": "feature_size=12",
    }
    exec(reduced(code, **sizes), names)

    maps = names["maps"]
    inputs = torch.stack([
        torch.from_numpy(img.get_fdata(dtype=np.float32)) for img in names["prepare"](imgs)
    ])[None].requires_grad_()  # fmt: skip
    logits = saved(inputs)[0, 1]
    (gradient,) = torch.autograd.grad(logits[logits > 0].sum(), inputs)
    expected = (inputs * gradient)[0].detach().numpy()
    for k, channel in enumerate(("flair", "t1ce", "t1", "t2")):
        found = maps.img("sub-01", "InputXGradient", channel=channel)
        assert np.allclose(found.affine, LAS)
        assert found.shape == (40, 70, 37)
        difference = found.get_fdata()[4:36, 3:67, 2:34] - expected[k]
        assert np.abs(difference).max() <= 1e-3 * np.abs(expected[k]).max()


def test_monai_bundle():
    torch.manual_seed(0)
    definition = {
        **{"_target_": "SegResNet", "blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1]},
        **{"init_filters": 8, "in_channels": 4, "out_channels": 3, "dropout_prob": 0.2},
    }
    saved = nets.SegResNet(**{key: value for key, value in definition.items() if key != "_target_"})
    for folder in ("configs", "models"):
        Path("brats_mri_segmentation", folder).mkdir(parents=True)
    torch.save(saved.state_dict(), "brats_mri_segmentation/models/model.pt")
    config = {"imports": ["$import os"], "network_def": definition, "network": "$@network_def.to(@device)"}
    Path("brats_mri_segmentation/configs/inference.json").write_text(json.dumps(config))
    for seed, name in enumerate(("t1ce", "t1", "t2", "flair")):
        write_image(f"sub-01_{name}.nii.gz", (24, 17, 14), OBLIQUE, seed)
    names: dict = {}
    exec(*blocks("MONAI bundle"), names)

    loaded = names["network"].network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in saved.state_dict().items())
    found = names["maps"].img("sub-01", "InputXGradient")
    assert found.shape == (24, 17, 14)
    assert np.allclose(found.affine, OBLIQUE)
    total = sum(
        names["maps"].img("sub-01", "InputXGradient", channel=name).get_fdata() for name in names["names"]
    )
    assert found.get_fdata().any()
    assert np.allclose(found.get_fdata(), total, atol=1e-5)


class Block(nn.Module):
    """Convolution, instance normalisation and leaky ReLU, under the names of nnU-Net, each of them twice."""

    def __init__(self, n_in, n_out, stride=1):
        super().__init__()
        self.conv = nn.Conv3d(n_in, n_out, 3, stride, 1)
        self.norm = nn.InstanceNorm3d(n_out, affine=True)
        self.nonlin = nn.LeakyReLU(inplace=True)
        self.all_modules = nn.Sequential(self.conv, self.norm, self.nonlin)

    def forward(self, x):
        return self.all_modules(x)


class PlainUNet(nn.Module):
    """Of the form of a PlainConvUNet with two stages, deep supervision off."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleDict({"stages": nn.ModuleList([Block(1, 4), Block(4, 8, (1, 2, 2))])})
        self.decoder = nn.ModuleDict({
            "stages": nn.ModuleList([Block(8, 4)]),
            "transpconvs": nn.ModuleList([nn.ConvTranspose3d(8, 4, (1, 2, 2), (1, 2, 2))]),
            "seg_layers": nn.ModuleList([nn.Conv3d(4, 3, 1)]),
        })  # fmt: skip

    def forward(self, x):
        skip = self.encoder["stages"][0](x)
        x = self.decoder["transpconvs"][0](self.encoder["stages"][1](skip))
        return self.decoder["seg_layers"][0](self.decoder["stages"][0](torch.cat([x, skip], 1)))


def test_nnunet(monkeypatch):
    """The network gets (Z, Y, X) with the spacing of the plan; its map has the axes of the image."""
    torch.manual_seed(0)
    network, given = PlainUNet().eval(), {}

    class Predictor:
        def __init__(self, device):
            self.device = device

        def initialize_from_trained_model_folder(self, folder, use_folds):
            given.update(folder=folder, use_folds=use_folds)
            self.network = network
            self.configuration_manager = SimpleNamespace(spacing=[3.0, 1.5, 1.0], patch_size=[6, 12, 16])

    module = ModuleType("nnunetv2.inference.predict_from_raw_data")
    module.nnUNetPredictor = Predictor  # type: ignore[attr-defined]
    for name in ("nnunetv2", "nnunetv2.inference", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    affine = np.diag([-1.0, 1.5, 3.0, 1]) + np.array([[0, 0, 0, 12], [0, 0, 0, -9], [0, 0, 0, -10], [0] * 4])
    img = write_image("sub-01_T1w.nii.gz", (20, 14, 9), affine)
    names: dict = {}
    exec(*blocks("nnU-Net"), names)

    assert given["use_folds"] == (0,)
    data = img.get_fdata(dtype=np.float32)
    patch = ((data - data.mean()) / data.std())[2:18, 1:13, 1:7]  # 16 x 12 x 6 around the centre
    inputs = torch.from_numpy(patch.transpose(2, 1, 0).copy())[None, None].requires_grad_()
    logits = network(inputs)[0]
    (gradient,) = torch.autograd.grad(logits[1][logits.argmax(0) == 1].sum(), inputs)
    found = names["maps"].img("sub-01", "Saliency")
    assert np.allclose(found.affine, affine)
    expected = gradient[0, 0].numpy().transpose(2, 1, 0)
    assert np.allclose(found.get_fdata()[2:18, 1:13, 1:7], expected, atol=1e-4 * np.abs(expected).max())


def test_regions_of_labels_that_overlap():
    """Two labels share a voxel; the largest logit assigns it to one of them."""
    outputs = torch.tensor([[2.0, 1.0, -1.0], [1.0, 2.0, -2.0]]).view(1, 2, 1, 1, 3)
    target = xb.SegmentationTarget(1, exclusive=False)
    assert target.region_of(outputs).flatten().tolist() == [True, True, False]
    assert xb.SegmentationTarget(1).region_of(outputs).flatten().tolist() == [False, True, False]
