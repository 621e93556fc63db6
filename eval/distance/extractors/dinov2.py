"""DINOv2's class token (Oquab et al. 2023), as FD-DINOv2 takes it (Stein et al. 2023); weights are given."""

from pathlib import Path

import torch

from eval.distance.extractors.extractor import Extractor
from eval.distance.extractors.of_transformer import of_transformer
from eval.distance.extractors.transformer_weights import read_transformer
from eval.distance.extractors.vision_transformer import TransformerForm

_SIZE = 224
_FORM = TransformerForm(eps=1e-6, quick_gelu=False, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def dinov2(device: torch.device, path: Path, *, size: int = 0) -> Extractor:
    """path: see `read_transformer`; size: of images in pixels, a multiple of the patch, 0 for 224."""
    weights, config = read_transformer(path)
    for head in ("projection", "projection.bias"):  # of classes
        weights.pop(head, None)
    return of_transformer(device, "dinov2", "DINOv2", weights, config, _FORM, size=size or _SIZE)
