"""A vision transformer in the forms of DINOv2 and CLIP, made from its weights alone.

Sizes follow from the shapes of the tensors; what shapes do not say is in `TransformerForm`. The tensors have the names
of `transformer_weights`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

HEAD_WIDTH = 64
"""Of all published DINOv2 and CLIP networks."""


@dataclass(frozen=True, kw_only=True)
class TransformerForm:
    """What the shapes of the weights do not say."""

    eps: float
    """Of layer norms."""
    quick_gelu: bool
    """x sigmoid(1.702 x) in place of GELU."""
    mean: tuple[float, float, float]
    """Subtracted from pixels in [0, 1], a channel each."""
    std: tuple[float, float, float]
    """What they are divided by."""


class VisionTransformer:
    """Images (B, 3, size, size) in 0 to 255 to the class token after the last norm, and its projection if there is one.

    weights: by the names of `transformer_weights`, float32; heads: attention heads, 0 for the width over HEAD_WIDTH.
    """

    def __init__(self, weights: Mapping[str, Tensor], form: TransformerForm, heads: int = 0) -> None:
        self._weights, self._form = dict(weights), form
        self.width, self.patch = weights["patch.weight"].shape[0], weights["patch.weight"].shape[-1]
        self.depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        self._heads = heads or self.width // HEAD_WIDTH
        self._places: dict[int, tuple[Tensor, Tensor]] = {}
        self._mean = weights["cls"].new_tensor(form.mean)[:, None, None]
        self._std = weights["cls"].new_tensor(form.std)[:, None, None]

    @property
    def grid(self) -> int:
        """Patches in a row of the images that the network was made for."""
        return int(self._patch_places() ** 0.5)

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        projection = self._weights.get("projection")
        return self.width if projection is None else projection.shape[1]

    def _patch_places(self) -> int:
        """Embedded places but that of the class token, which some layouts have added to the token itself."""
        places = len(self._weights["pos"])
        return places if int(places**0.5) ** 2 == places else places - 1

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, size, size) float32 in 0 to 255, size a multiple of the patch, to (B, dim)."""
        weights = self._weights
        x = (images / 255 - self._mean) / self._std
        patches = F.conv2d(x, weights["patch.weight"], weights.get("patch.bias"), stride=self.patch)
        first, places = self._embedded(patches.shape[-1])
        tokens = patches.flatten(2).mT + places  # (B, patches, width)
        start = [(weights["cls"] + first).expand(len(x), 1, -1)]
        if "registers" in weights:
            start.append(weights["registers"].expand(len(x), -1, -1))
        tokens = torch.cat([*start, tokens], dim=1)
        if "pre.weight" in weights:
            tokens = self._norm(tokens, "pre")
        for block in range(self.depth):
            tokens = self._block(tokens, f"blocks.{block}.")
        features = self._norm(tokens[:, 0], "norm")
        if "projection" not in weights:
            return features
        return features @ weights["projection"] + weights.get("projection.bias", 0.0)

    def _embedded(self, side: int) -> tuple[Tensor, Tensor]:
        """The embeddings of the class token's place, (width,), and of side x side patches, (side^2, width)."""
        if side not in self._places:
            pos, grid = self._weights["pos"], self.grid
            ahead = len(pos) - grid**2
            first, patches = (pos[0] if ahead else torch.zeros_like(pos[0])), pos[ahead:]
            if side != grid:
                # As DINOv2 does it: 0.1 more than the new side over the old one, bicubic, not antialiased.
                square = patches.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
                scale = (side + 0.1) / grid
                resized = F.interpolate(square, scale_factor=(scale, scale), mode="bicubic")
                patches = resized.permute(0, 2, 3, 1).reshape(side * side, -1)
            self._places[side] = first, patches
        return self._places[side]

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weights = self._weights
        return F.layer_norm(x, (self.width,), weights[f"{name}.weight"], weights[f"{name}.bias"], self._form.eps)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias"))

    def _block(self, x: Tensor, name: str) -> Tensor:
        scale1, scale2 = (self._weights.get(f"{name}{scale}", 1.0) for scale in ("scale1", "scale2"))
        x = x + scale1 * self._attention(self._norm(x, f"{name}norm1"), name)
        return x + scale2 * self._perceptron(self._norm(x, f"{name}norm2"), name)

    def _attention(self, x: Tensor, name: str) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self._linear(x, f"{name}qkv").view(batch, tokens, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])  # (B, heads, tokens, width / heads)
        return self._linear(attended.transpose(1, 2).reshape(batch, tokens, width), f"{name}out")

    def _perceptron(self, x: Tensor, name: str) -> Tensor:
        hidden = self._linear(x, f"{name}up")
        if hidden.shape[-1] == 2 * self._weights[f"{name}down.weight"].shape[1]:  # SwiGLU, of the largest DINOv2
            gate, value = hidden.chunk(2, dim=-1)
            hidden = F.silu(gate) * value
        elif self._form.quick_gelu:
            hidden = hidden * torch.sigmoid(1.702 * hidden)
        else:
            hidden = F.gelu(hidden)
        return self._linear(hidden, f"{name}down")
