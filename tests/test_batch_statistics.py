"""Batch normalisation in training: as torch defines it, summed exactly in every layout."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from xai_brain.models import batch_statistics
from xai_brain.models.batch_statistics import exact_batch_statistics

LAYOUTS = (torch.contiguous_format, torch.channels_last_3d)


def passed(layer, values, gradient):
    """Output, gradients of values and parameters, and what is remembered."""
    values = values.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    result = layer(values)
    result.backward(gradient)
    own = [parameter.grad for parameter in layer.parameters()]
    return [result.detach(), values.grad, *own, *layer.buffers()]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"momentum": None}])
def test_a_layer_is_the_one_of_torch(layout, options, monkeypatch):
    monkeypatch.setattr(batch_statistics, "SLAB", 5 * 4 * 2)  # slabs of two planes, the last of one
    generator = torch.Generator().manual_seed(0)
    values, gradient = (
        torch.randn(4, 3, 7, 5, 4, generator=generator, dtype=torch.float64).contiguous(memory_format=layout)
        for _ in range(2)
    )
    layer = nn.BatchNorm3d(3, **options, dtype=torch.float64)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=generator)
    ours = copy.deepcopy(layer)
    with exact_batch_statistics(ours):
        for _ in range(2):  # the second step finds what the first has remembered
            expected, found = passed(layer, 5 + 2 * values, gradient), passed(ours, 5 + 2 * values, gradient)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        assert found[0].is_contiguous(memory_format=layout)
        ours.eval(), layer.eval()
        torch.testing.assert_close(ours(values), layer(values))


def test_a_gradient_is_right_in_another_layout_than_its_values(monkeypatch):
    monkeypatch.setattr(batch_statistics, "SLAB", 8)
    layer = nn.BatchNorm3d(2, dtype=torch.float64)
    values = torch.randn(3, 2, 4, 2, 2, dtype=torch.float64).contiguous(memory_format=LAYOUTS[1])
    with exact_batch_statistics(layer):
        # the way back from the sum over squares of `contiguous` has the usual layout
        torch.autograd.gradcheck(lambda x: layer(x).contiguous().square(), values.requires_grad_())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_statistics_of_millions_of_voxels_are_exact(layout):
    values = torch.randn(2, 4, 90, 90, 90, generator=torch.Generator().manual_seed(1)) + 5
    layer = nn.BatchNorm3d(4, momentum=1.0)
    with exact_batch_statistics(layer):
        layer(values.contiguous(memory_format=layout))
    variance, mean = torch.var_mean(values.double(), (0, 2, 3, 4))
    torch.testing.assert_close(layer.running_mean.double(), mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(layer.running_var.double(), variance, rtol=2e-6, atol=0)


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5)])
def test_heads_without_space_are_normalised_too(shape):
    layer, values = nn.BatchNorm1d(3), torch.randn(shape)
    ours = copy.deepcopy(layer)
    with exact_batch_statistics(ours):
        torch.testing.assert_close(passed(ours, values, values), passed(layer, values, values))


def test_one_value_has_no_variance():
    layer = nn.BatchNorm1d(3)
    with exact_batch_statistics(layer), pytest.raises(ValueError, match="has no variance"):
        layer(torch.randn(1, 3))
    assert torch.equal(layer.running_var, torch.ones(3))


def test_layers_made_of_torchs_do_what_they_do():
    class Doubled(nn.BatchNorm3d):
        def forward(self, x):
            return 2 * super().forward(x)

    torch.manual_seed(0)
    values, layer = torch.randn(2, 3, 4, 4, 4), Doubled(3)
    expected = 2 * nn.BatchNorm3d(3)(values)
    with exact_batch_statistics(layer):
        torch.testing.assert_close(layer(values), expected)


def test_after_a_fit_the_layers_are_what_they_were():
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2))
    with exact_batch_statistics(network):
        assert "forward" in network[1].__dict__
    assert "forward" not in network[1].__dict__
