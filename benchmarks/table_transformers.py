"""Transformers of the table of networks and methods."""

from __future__ import annotations

import torch
from monai.networks.nets import SwinUNETR, ViT
from monai.networks.nets.swin_unetr import SwinTransformer
from table_networks import Kind, Tokens, settle
from torch import nn

from xai_brain.attribution.network_outputs import AdaptedNetwork, SegmentationTarget


class VisionTransformer(nn.Module):
    """Patches, attention, and a linear layer on the mean of the tokens."""

    def __init__(self, shape, patch, width=24, depth=2):
        super().__init__()
        self.patches = nn.Conv3d(1, width, patch, stride=patch)
        n_tokens = torch.tensor([n // p for n, p in zip(shape, patch, strict=True)]).prod()
        self.positions = nn.Parameter(0.1 * torch.randn(1, int(n_tokens), width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.linear = nn.Linear(width, 2)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.linear(self.encoder(tokens).mean(1))


class SwinClassifier(nn.Module):
    """MONAI's SwinTransformer, layer normalisation of its last features, and a linear layer on their mean."""

    def __init__(self, n_stages: int, width: int = 12, window: int = 2):
        super().__init__()
        self.n_stages = n_stages
        self.swin = SwinTransformer(1, width, [window] * 3, [2] * 3, [2] * n_stages, [2] * n_stages)
        self.norm = nn.LayerNorm(width * 2**n_stages)
        self.linear = nn.Linear(width * 2**n_stages, 2)

    def forward(self, x):
        x = self.swin.patch_embed(x)
        for number in range(1, self.n_stages + 1):
            x = getattr(self.swin, f"layers{number}")[0](x.contiguous())
        return self.linear(self.norm(x.movedim(1, -1)).mean((1, 2, 3)))


def transformers(shape: tuple[int, int, int], small: bool) -> list[Kind]:
    """Networks with weights of a fixed seed.

    Parameters
    ----------
    shape : tuple of 3 int
        Voxels of their inputs; SwinUNETR takes multiples of 32 only.
    small : bool
        Whether Swin has two stages instead of four.
    """
    torch.manual_seed(1)
    return [_vision_transformer(shape), _vit(shape), _swin(shape, 2 if small else 4), _swin_unetr()]


def _vision_transformer(shape: tuple[int, int, int]) -> Kind:
    patch = (4, shape[1] // 2, 4)
    network = VisionTransformer(shape, patch)
    settle(network, torch.Size([4, 1, *shape]))
    return Kind("vision transformer", network, "patches", tokens=Tokens("encoder.norm", patch))


def _vit(shape: tuple[int, int, int]) -> Kind:
    """With a class token; it returns a tuple."""
    patch = (4, shape[1] // 2, 4)
    sizes = {"hidden_size": 24, "mlp_dim": 48, "num_layers": 2, "num_heads": 4}
    network = ViT(1, shape, patch, **sizes, classification=True, num_classes=2, post_activation=None)
    _vary(network)
    settle(network, torch.Size([4, 1, *shape]))
    return Kind(
        *("MONAI ViT", AdaptedNetwork(network, 0), "patch_embedding.patch_embeddings"),
        original=network,
        tokens=Tokens("blocks.1.norm1", patch, class_token=True),
    )


def _swin(shape: tuple[int, int, int], n_stages: int) -> Kind:
    network = SwinClassifier(n_stages)
    _vary(network)
    settle(network, torch.Size([4, 1, *shape]))
    tokens = Tokens("norm", (2 * 2**n_stages,) * 3)
    return Kind("MONAI Swin", network, "swin.patch_embed.proj", tokens=tokens)


def _swin_unetr() -> Kind:
    """The sum of the logits of label 1 over a box."""
    shape = (32, 64, 32)
    network = SwinUNETR(1, 3, depths=[1] * 4, num_heads=[2] * 4, window_size=2, feature_size=12).eval()
    _vary(network)
    region = torch.zeros(shape, dtype=torch.bool)
    region[8:20, 16:40, 10:22] = True
    adapted = AdaptedNetwork(network, None, SegmentationTarget(1, region))
    adapted.region = region
    return Kind(
        *("MONAI SwinUNETR, segmentation", adapted, "out.conv.conv"),
        **{"n_outputs": 1, "outputs": "numbers", "original": network, "label": 1, "region": region},
        tokens=Tokens("encoder10", (32, 32, 32), of_input=True),
        shape=shape,
        n_volumes=1,
    )


@torch.no_grad()
def _vary(network: nn.Module) -> None:
    """Change what begins at 0 or 1: biases, normalisations, tables of positions, class tokens."""
    for parameter in network.parameters():
        if parameter.ndim == 1 or not parameter.any() or len(parameter.unique()) == 1:
            parameter.add_(0.2 * torch.randn(parameter.shape))
