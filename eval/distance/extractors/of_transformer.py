"""The extractor of a vision transformer, known by its weights, whatever the layout they came in."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from data_shards.io.errors import InputError
from eval.distance.extractors.extractor import Extractor, resize_clean
from eval.distance.extractors.probe import probe
from eval.distance.extractors.vision_transformer import TransformerForm, VisionTransformer
from trainer.run_folder.checkpoint import fingerprint


def of_transformer(
    device: torch.device,
    name: str,
    title: str,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    form: TransformerForm,
    *,
    size: int,
) -> Extractor:
    """config: Hugging Face's, empty where there is none; size: of images in pixels, 0 for the network's own."""
    there = {key: tensor.to(device) for key, tensor in weights.items()}
    network = VisionTransformer(there, form, int(config.get("num_attention_heads", 0)))
    size = size or network.grid * network.patch
    if size % network.patch:
        raise InputError(f"{size} is no multiple of the patch of {network.patch} pixels", parameter="extractor_size")
    made = Extractor(
        label=f"FD ({title}, {network.width} wide, {network.depth} blocks, {size} px)",
        dim=network.dim,
        resize=partial(resize_clean, size=size),
        network=network,
        device=device,
        description={
            "name": name,
            "size": size,
            "resizer": "clean-fid (Pillow bicubic per channel, float32, not rounded)",
            "activation": "quick GELU" if form.quick_gelu else "GELU",
            "weights": f"{fingerprint(dict(weights)):016x}",
        },
    )
    return replace(made, description={**made.description, "probe": probe(made, name)})
