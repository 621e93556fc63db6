"""A small network in the form of clean-fid's TorchScript file: forward(x, return_features) and .layers, 2048 features.

The real weights cannot be fetched in a test; the same images through the same file by two programs is what is compared.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class StandinInception(nn.Module):
    """Random convolutions in the place of Inception-v3."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 7, stride=4), nn.ReLU(), nn.Conv2d(8, 32, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(8)
        )

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        inside = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
        features = self.layers((inside - 128) / 128).flatten(1)
        return features if return_features else features[:, :1008]


def write_standin(path, seed=0):
    """Saves the network under `path`."""
    torch.manual_seed(seed)
    torch.jit.save(torch.jit.script(StandinInception().eval()), str(path))
