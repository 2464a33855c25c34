from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import fx, nn

from xai_brain.config.checks import read_config
from xai_brain.models.calibrated import CalibratedNetwork, OutputError, read_checkpoint
from xai_brain.models.fitting import determinism_kept
from xai_brain.models.module import BrainClassifier
from xai_brain.models.networks.kan2020 import Kan2020
from xai_brain.models.networks.sfcn import SFCN
from xai_brain.models.networks.shallow import ShallowNet
from xai_brain.task.classification import Classification

SHAPE = (30, 34, 31)


def published_order(model: Kan2020) -> nn.Sequential:
    """The network as the paper writes it: convolution, batch norm, ReLU, pooling, three times."""
    layers = []
    for block in (model.block1, model.block2, model.block3):
        layers += [block.conv, block.norm, nn.ReLU(), nn.MaxPool3d(2)]
    return nn.Sequential(*layers, nn.Flatten(), model.dropout, model.linear)


def randomise_norms(model):
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            # negative gains too: pooling does not commute with those, but it does with ReLU
            module.weight.data = torch.randn(module.weight.shape, generator=generator)
            module.bias.data = torch.randn(module.bias.shape, generator=generator)
            module.running_mean = torch.randn(module.bias.shape, generator=generator)


def test_parameter_count_of_the_paper():
    assert sum(parameter.numel() for parameter in Kan2020().parameters()) == 322_818


@pytest.mark.parametrize("training", [False, True])
def test_equal_to_the_published_order_in_values_and_gradients(training):
    torch.manual_seed(0)
    model = Kan2020(SHAPE, channels=(3, 4, 5), dropout=0.0)
    randomise_norms(model)
    reference = published_order(model)
    model.train(training)
    reference.train(training)
    volumes = torch.randn(3, 1, *SHAPE)
    gradients, outputs = [], []
    for network in (model, reference):
        inputs = volumes.clone().requires_grad_()
        network.zero_grad()
        output = network(inputs)
        output[:, 1].sum().backward()
        outputs.append(output.detach())
        gradients.append([inputs.grad, *(p.grad.clone() for p in model.parameters())])
    torch.testing.assert_close(outputs[0], outputs[1])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_too_small_an_input_is_refused():
    with pytest.raises(ValueError, match="too small"):
        Kan2020((12, 40, 40))


def settings(**kwargs):
    return {
        "network": {
            "_target_": "xai_brain.models.networks.kan2020.Kan2020",
            "channels": [2, 3, 4],
            "weights": None,
        },
        "output_names": ["female", "male"],
        "input_shape": list(SHAPE),
        **kwargs,
    }


def test_checkpoint_loads_without_configuration_and_safely(tmp_path):
    import pytorch_lightning as pl

    classifier = BrainClassifier(**settings(standardize="zscore")).eval()
    classifier.temperature.fill_(2.0)
    classifier.mean_volume.normal_()
    classifier.inverse_sd.uniform_(0.5, 2)
    trainer = pl.Trainer(
        logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu"
    )
    trainer.strategy.connect(classifier)
    trainer.save_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    loaded = BrainClassifier.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True).eval()
    volumes = torch.randn(2, 1, *SHAPE)
    torch.testing.assert_close(loaded(volumes), classifier(volumes))
    standardized = (volumes - loaded.mean_volume) * loaded.inverse_sd
    torch.testing.assert_close(loaded(volumes), loaded.network(standardized) / 2)
    without_lightning = read_checkpoint(tmp_path / "x.ckpt")
    assert not isinstance(without_lightning, pl.LightningModule)
    assert torch.equal(without_lightning(volumes), loaded(volumes))
    assert without_lightning.output_names == loaded.output_names == ["female", "male"]


@pytest.mark.parametrize("n_steps", range(1, 12))
def test_the_one_cycle_schedule_ends_near_zero_for_any_number_of_steps(n_steps):
    classifier = BrainClassifier(**settings(scheduler="one_cycle", lr=0.1))
    classifier._trainer = SimpleNamespace(estimated_stepping_batches=n_steps)
    (optimizer,), (scheduler,) = classifier.configure_optimizers()
    schedule = scheduler["scheduler"]
    rates = [schedule.get_last_lr()[0]]
    for _ in range(n_steps - 1):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    assert max(rates) <= 0.1
    assert all(rate >= 0 for rate in rates)
    assert n_steps < 3 or (rates[-1] < 1e-4 and max(rates) > 0.03)


def test_any_network_can_be_named():
    network = {"_target_": "conftest.ToyNet", "inplace": False}
    classifier = BrainClassifier(**settings(network=network)).eval()
    assert classifier(torch.randn(2, 1, *SHAPE)).shape == (2, 2)


def test_convolutions_of_every_network_have_the_fast_layout():
    settings = {"_target_": "xai_brain.models.networks.sfcn.SFCN", "channels": [2, 3, 4], "dropout": 0.0}
    torch.manual_seed(0)
    classifier = BrainClassifier(settings, ["a", "b"], [12, 13, 14]).eval()
    torch.manual_seed(0)
    plain = SFCN((12, 13, 14), channels=[2, 3, 4], dropout=0.0).eval()
    volumes = torch.randn(2, 1, 12, 13, 14)
    features = classifier.network.features[0](volumes)
    assert features.is_contiguous(memory_format=torch.channels_last_3d)
    assert not plain.features[0](volumes).is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(classifier(volumes), plain(volumes))


def test_shallow_network_reads_places():
    network = ShallowNet((9, 10, 12), n_classes=3, channels=2).eval()
    volumes = torch.randn(2, 1, 9, 10, 12)
    assert torch.equal(network(volumes), network.linear.bias.expand(2, 3))  # before anything is learned
    torch.nn.init.normal_(network.linear.weight)
    one_place = torch.zeros(1, 1, 9, 10, 12)
    one_place[..., :2, :2, :2] = 3
    elsewhere = one_place.roll(4, dims=3)  # the same thing one place further is another thing
    assert not torch.allclose(network(one_place), network(elsewhere), atol=1e-3)
    with pytest.raises(ValueError, match="at least 4 voxels per axis"):
        ShallowNet((3, 10, 12))


def test_temperature_restores_calibrated_logits():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 2, (4000, 1))) * torch.tensor([[0.0, 1.0]])
    targets = torch.from_numpy((rng.random(4000) < logits.softmax(1)[:, 1].numpy()).astype(int))
    assert Classification().fit_temperature(3 * logits, targets) == pytest.approx(3, rel=0.1)


def test_temperature_stays_moderate_where_nothing_is_wrong():
    logits = torch.tensor([[2.0, -2.0], [-2.0, 2.0]] * 10)
    assert 0.3 < Classification().fit_temperature(logits, torch.tensor([0, 1] * 10)) <= 1.0


@pytest.mark.parametrize(
    ("key", "preprocessing", "warned"),
    [
        ("hidden1.0.weight", "t1w_58x70x58", True),
        ("features.0.weight", "t1w_58x70x58", True),
        ("features.0.weight", "kan2020", False),
        ("block1.conv.weight", "t1w_58x70x58", False),
    ],
)
def test_published_weights_want_the_published_input(tmp_path, capsys, key, preprocessing, warned):
    from xai_brain.config.compose import compose
    from xai_brain.study.training.cross_validation import check_weights

    path = tmp_path / "best_model.pt"
    torch.save({key: torch.zeros(1)}, path)
    settings = ["data=synthetic", f"preprocessing={preprocessing}", f"model.weights={path}"]
    check_weights(read_config(compose("train", settings)))
    message = capsys.readouterr().out
    assert ("preprocessing=kan2020 gives its input" in message) == warned


def test_torch_is_as_it_was_after_training_and_fills_no_tensor_meanwhile():
    settings = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    with determinism_kept():
        torch.use_deterministic_algorithms(True)
        assert not settings.fill_uninitialized_memory
    assert (torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory) == before
    assert before == (False, True)


class Returns(nn.Module):
    """Logits of the mean intensity, in one of several forms."""

    def __init__(self, form: str):
        super().__init__()
        self.form = form
        self.scale = nn.Parameter(torch.tensor([1.0, -1.0]))

    def forward(self, x):
        logits = x.mean((1, 2, 3, 4))[:, None] * self.scale
        forms = {
            "tuple": (logits, logits),
            "dict": {"logits": logits},
            "one": logits[:, :1],
            "flat": logits[:, 0],
        }
        return forms.get(self.form, logits)


@pytest.mark.parametrize(
    ("form", "what"),
    [
        ("tuple", "a tuple"),
        ("dict", "a dict"),
        ("one", r"a tensor of shape \(3, 1\)"),
        ("flat", r"a tensor of shape \(3,\)"),
    ],
)
def test_networks_that_do_not_return_one_logit_per_class_are_refused(form, what):
    settings = {"_target_": f"{__name__}.Returns", "form": form}
    for kind in (CalibratedNetwork, BrainClassifier):
        classifier = kind(settings, ["a", "b"], [4, 5, 6])
        reason = rf"^model: the network returns {what}: one tensor of shape \(N, 2\) is needed"
        with pytest.raises(OutputError, match=reason):
            classifier(torch.ones(3, 1, 4, 5, 6))


def test_a_checked_network_can_still_be_traced():
    network = CalibratedNetwork({"_target_": f"{__name__}.Returns", "form": "plain"}, ["a", "b"], [4, 5, 6])
    traced = fx.symbolic_trace(network)
    assert "check_outputs" in traced.code
    volumes = torch.randn(3, 1, 4, 5, 6)
    assert torch.equal(traced(volumes), network(volumes))
