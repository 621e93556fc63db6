"""The small U-Net of flow_decoder.py: the velocity of images on their way from draws of p(x|z) to real ones."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (48, 96)
"""Channels at half and at a quarter of the sides."""
FREQUENCIES, CONDITION = 8, 128
"""Of the embedding of t, and numbers that t and z make for the blocks."""


class Block(nn.Module):
    """x + f(x) with two convolutions in f, scaled and shifted between them by a linear function of the condition."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(CONDITION, 2 * channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, 1)
        return x + self.second(F.silu(self.first(F.silu(self.norm(x))) * (1 + scale) + shift))


class Velocity(nn.Module):
    """v(x, t, z) for grey images whose sides are multiples of 4."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        fine, coarse = WIDTHS
        self.condition = nn.Sequential(
            nn.Linear(latent_dim + 2 * FREQUENCIES, CONDITION), nn.SiLU(), nn.Linear(CONDITION, CONDITION)
        )
        self.into = nn.Conv2d(3 * 4, fine, 3, padding=1)
        self.down = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.fine = nn.ModuleList(Block(fine) for _ in range(3))
        self.coarse = nn.ModuleList(Block(coarse) for _ in range(2))
        self.out = nn.Conv2d(fine, 4, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """x, mean, std: (B, 1, H, W); t: (B,); z: (B, D). Returns (B, 1, H, W)."""
        angle = t[:, None] * (math.pi * 2.0 ** torch.arange(FREQUENCIES) / 4)
        condition = F.silu(self.condition(torch.cat([z, angle.sin(), angle.cos()], 1)))
        seen = torch.cat([4 * x - 4 * mean, 2 * mean - 1, 8 * std - 1], 1)
        h = self.into(F.pixel_unshuffle(seen, 2).contiguous(memory_format=torch.channels_last))
        h = self.fine[0](h, condition)
        low = self.down(h)
        for block in self.coarse:
            low = block(low, condition)
        h = h + F.pixel_shuffle(self.up(low), 2)
        for block in self.fine[1:]:
            h = block(h, condition)
        return F.pixel_shuffle(self.out(F.silu(h)), 2)
