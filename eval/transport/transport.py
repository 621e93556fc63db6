"""An affine map of mean images for each component of a mixture."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.mixture.density import MixtureDensity
from trainer.run_folder.checkpoint import fingerprint


@dataclass(frozen=True, kw_only=True)
class Transport:
    """Moves the mean image g(z), for z of component k, to A_k (g(z) - source_k) + target_k.

    Images are transported in P directions, the columns of `basis`; their parts outside of these stay as they are.
    """

    mixture: MixtureDensity
    """Whose components latents belong to."""
    source: Tensor
    """(K, P) float32, the mean of mean images of each component."""
    target: Tensor
    """(K, P) float32, the mean of its real images."""
    maps: Tensor
    """(M, P, P) float32, the different A_k."""
    group: Tensor
    """(K,) int64, which of them is A_k."""
    basis: Tensor | None
    """(d, P) float32 with orthonormal columns; None where P = d, for pixels themselves."""

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that differ between different transports."""
        tensors = {"source": self.source, "target": self.target, "maps": self.maps, "group": self.group}
        tensors |= {"weights": self.mixture.weights, "means": self.mixture.means}
        return f"{fingerprint(tensors):016x}"

    @torch.inference_mode()
    def apply(self, z: Tensor, images: Tensor) -> Tensor:
        """Transports images: (B, C, H, W), the g(z) of latents z, (B, D). Returns (B, C, H, W), not cut to [0, 1]."""
        flat = images.flatten(1).cpu()  # (B, d)
        points = flat if self.basis is None else flat @ self.basis  # (B, P)
        component = self.mixture.predict(z)
        transported = torch.empty_like(points)
        for k in component.unique().tolist():
            own = component == k
            transported[own] = (points[own] - self.source[k]) @ self.maps[self.group[k]].mT + self.target[k]
        moved = transported if self.basis is None else flat + (transported - points) @ self.basis.mT
        return moved.view(images.shape).to(images.device)
