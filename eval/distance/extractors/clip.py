"""CLIP's image embedding (Radford et al. 2021), which CMMD is defined on. Its weights are given by path."""

from dataclasses import replace
from pathlib import Path

import torch

from data_shards.io.errors import InputError
from eval.distance.extractors.extractor import Extractor
from eval.distance.extractors.of_transformer import of_transformer
from eval.distance.extractors.transformer_weights import read_transformer
from eval.distance.extractors.vision_transformer import TransformerForm

# OpenAI's networks; where a config.json names another activation, as for open_clip's, that is taken.
_FORM = TransformerForm(
    eps=1e-5, quick_gelu=True, mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
)


def clip(device: torch.device, path: Path, *, size: int = 0) -> Extractor:
    """path: see `read_transformer`; size: of images in pixels, 0 for what the network was made for."""
    weights, config = read_transformer(path)
    if "projection" not in weights:
        raise InputError(f"{path}: lacks the projection of image embeddings", parameter="extractor_weights")
    form = replace(_FORM, quick_gelu=config.get("hidden_act", "quick_gelu") == "quick_gelu")
    return of_transformer(device, "clip", "CLIP", weights, config, form, size=size)
