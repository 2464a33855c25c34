"""Small transformers for volumes: with torch.nn.TransformerEncoder, blocks of MONAI, and windows."""

from __future__ import annotations

import pytest
import torch
from conftest import SHAPE
from torch import nn

PATCH = (3, 7, 4)
GRID = (4, 2, 4)


class SmallViT(nn.Module):
    """Patches, torch.nn.TransformerEncoder, and a linear layer on the class token or on the mean token."""

    def __init__(
        self,
        shape=SHAPE,
        patch=PATCH,
        width=8,
        depth=2,
        n_channels=1,
        class_token=True,
        batch_first=True,
        norm_first=True,
        activation="gelu",
    ):
        super().__init__()
        self.patches = nn.Conv3d(n_channels, width, patch, stride=patch)
        n_tokens = int(torch.tensor([n // p for n, p in zip(shape, patch, strict=True)]).prod())
        self.class_token = nn.Parameter(torch.randn(1, 1, width)) if class_token else None
        self.positions = nn.Parameter(0.5 * torch.randn(1, n_tokens + class_token, width))
        layer = nn.TransformerEncoderLayer(
            width, 2, 2 * width, 0.0, activation, batch_first=batch_first, norm_first=norm_first
        )
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, 2)
        self.batch_first = batch_first

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)  # (N, L, E)
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], 1)
        tokens = tokens + self.positions
        if not self.batch_first:
            tokens = tokens.transpose(0, 1)
        tokens = self.encoder(tokens)
        if not self.batch_first:
            tokens = tokens.transpose(0, 1)
        return self.head(tokens[:, 0] if self.class_token is not None else tokens.mean(1))


class FirstOutput(nn.Module):
    """Logits of a network that also returns its hidden states."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)[0]


def monai_vit(proj_type="conv", **kwargs):
    pytest.importorskip("einops")
    from monai.networks.nets import ViT

    sizes = {"hidden_size": 8, "mlp_dim": 16, "num_layers": 2, "num_heads": 2}
    return FirstOutput(ViT(1, SHAPE, PATCH, **sizes, proj_type=proj_type, classification=True, **kwargs))


class SwinClassifier(nn.Module):
    """Mean of the last features of a SwinTransformer, and a linear layer."""

    def __init__(self, depths=(2, 2), window=(2, 2, 2), **kwargs):
        super().__init__()
        pytest.importorskip("einops")
        from monai.networks.nets.swin_unetr import SwinTransformer

        settings = {"num_heads": (2,) * len(depths), "patch_size": (2, 2, 2), **kwargs}
        self.swin = SwinTransformer(1, 8, window_size=window, depths=depths, **settings)
        self.head = nn.Linear(8 * 2 ** len(depths), 2)
        self.depths = depths

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3, 4)))

    def features(self, x):
        swin = self.swin
        x = swin.pos_drop(swin.patch_embed(x))
        for number in range(len(self.depths)):
            x = getattr(swin, f"layers{number + 1}")[0](x.contiguous())
        return swin.proj_out(x, True)


class SwinUNETREncoder(nn.Module):
    """Mean of the last features of the encoder of SwinUNETR, and a linear layer."""

    def __init__(self, **kwargs):
        super().__init__()
        pytest.importorskip("einops")
        from monai.networks.nets import SwinUNETR

        self.encoder = SwinUNETR(1, 2, feature_size=12, **kwargs).swinViT
        self.head = nn.Linear(12 * 16, 2)

    def forward(self, x):
        return self.head(self.encoder(x)[-1].mean((2, 3, 4)))


NETWORKS = {
    "class token": lambda: SmallViT(),
    "mean token": lambda: SmallViT(class_token=False),
    "normalised after": lambda: SmallViT(norm_first=False),
    "sequence first": lambda: SmallViT(batch_first=False, activation="relu"),
    "MONAI": lambda: monai_vit(),
    "MONAI, linear patches": lambda: monai_vit("perceptron", qkv_bias=True),
}


def network(name):
    """One of `NETWORKS` with random weights."""
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    for parameter in model.parameters():  # also those that begin at 0 or 1
        nn.init.normal_(parameter, 0, 0.3)
    return model


def swin(**kwargs):
    torch.manual_seed(0)
    return SwinClassifier(**kwargs).eval()
