"""The extractor that a name stands for: one of ours, a TorchScript file, or a Python function that makes a network."""

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from data_shards.io.disk import sha256_of_file
from data_shards.io.errors import InputError
from eval.distance.extractors.clip import clip
from eval.distance.extractors.dinov2 import dinov2
from eval.distance.extractors.efficientnet import LITES, efficientnet_lite
from eval.distance.extractors.extractor import Extractor, resize_clean
from eval.distance.extractors.inception import inception
from eval.distance.extractors.probe import probe, probe_images, require_eval_mode
from eval.distance.extractors.users_code import reported_as_of
from trainer.run_folder.checkpoint import fingerprint

_LITE_SIZE, _CUSTOM_SIZE = 64, 224

Network = Callable[[Tensor], Tensor]
"""(B, 3, size, size) float32 in 0 to 255 to features: (B, dim), or (B, dim, h, w), which is averaged over positions."""


def extractor_by_name(
    name: str, device: torch.device, *, size: int = 0, mode: str = "clean", weights: str = ""
) -> Extractor:
    """The extractor `name`: one of LITES, "inception", "dinov2", "clip", the path of a TorchScript file, or
    MODULE:FUNCTION.

    size: input size in pixels, 0 for the extractor's own (64 for EfficientNet-Lite, 224 for custom ones); mode: see
    `inception`; weights: of inception, dinov2 or clip. Raises InputError for an unknown name, or an option that the
    extractor does not have.
    """
    if size and not 32 <= size <= 1024:
        raise InputError(f"{size} is not in 32 to 1024 pixels", parameter="extractor_size")
    if name == "inception":
        if size:
            raise InputError("inception takes 299 pixels; leave it out", parameter="extractor_size")
        return inception(device, mode=mode, weights=weights)
    if name in ("dinov2", "clip") and mode == "clean":
        if not weights:
            raise InputError(
                f"{name} needs its weights; give a state dict (.pth, .safetensors) or a Hugging Face folder",
                parameter="extractor_weights",
            )
        return (dinov2 if name == "dinov2" else clip)(device, Path(weights), size=size)
    if mode != "clean" or weights:
        given = "extractor_mode" if mode != "clean" else "extractor_weights"
        raise InputError(f"is not for the extractor {name}; leave it out", parameter=given)
    if name in LITES:
        return efficientnet_lite(device, name, size=size or _LITE_SIZE)
    if Path(name).is_file():
        return torchscript(device, Path(name), size=size or _CUSTOM_SIZE)
    if ":" in name:
        return function(device, name, size=size or _CUSTOM_SIZE)
    raise InputError(
        f"{name!r} is unknown; use {', '.join(LITES)}, inception, dinov2, clip, a TorchScript file or MODULE:FUNCTION",
        parameter="extractor",
    )


def torchscript(device: torch.device, path: Path, *, size: int) -> Extractor:
    """The network in the TorchScript file `path`, see `Network`. size: height and width in pixels that it is given."""
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{path} is no TorchScript file ({error}); give one made by torch.jit.save", parameter="extractor"
        ) from error
    return _extractor(
        network, None, device, size=size, name=path.name, file=str(path), files={"weights_sha256": sha256_of_file(path)}
    )


def function(device: torch.device, target: str, *, size: int) -> Extractor:
    """The network that MODULE:FUNCTION returns when called with the device, see `Network`.

    It is made twice, to see that it is the same each time. The protocol records what it does, see `probe`, and the
    digests of its parameters and of the module's source. Raises InputError where it cannot be imported, is in train
    mode, or has other weights each time.
    """
    module_name, _, name = target.partition(":")
    try:
        with reported_as_of(target):
            module = importlib.import_module(module_name)
    except InputError as error:
        if isinstance(error.__cause__, ImportError):
            raise InputError(
                f"module {module_name} cannot be imported ({error.__cause__}); is it on PYTHONPATH?",
                parameter="extractor",
            ) from error
        raise
    if not callable(getattr(module, name, None)):
        raise InputError(f"module {module_name} has no function {name!r}; give MODULE:FUNCTION", parameter="extractor")
    source = Path(module.__file__).read_bytes() if module.__file__ else b""
    with reported_as_of(target, module.__file__):
        network, again = getattr(module, name)(device), getattr(module, name)(device)
    if not callable(network):
        raise InputError(f"{target} gave {type(network).__name__}; return a network", parameter="extractor")
    require_eval_mode(network, target)
    files = {"source_sha256": hashlib.sha256(source).hexdigest()}
    if isinstance(network, nn.Module):
        files["parameters"] = f"{fingerprint(network.state_dict()):016x}"
    return _extractor(network, again, device, size=size, name=target, file=module.__file__, files=files)


def _extractor(
    network: Network,
    again: Network | None,
    device: torch.device,
    *,
    size: int,
    name: str,
    file: str | None,
    files: Mapping[str, str],
) -> Extractor:
    """The extractor of a network of the user's.

    again: the network made a second time; file: where its code lies; files: digests of its files
    """

    def extractor(network: Network) -> Extractor:
        return Extractor(
            label=f"FD ({name}, {size} px)",
            dim=0,
            resize=partial(resize_clean, size=size),
            network=partial(_pooled, network, name, file),
            device=device,
            description={},
        )

    made = extractor(network)
    found = probe(made, name, again=None if again is None else extractor(again))
    description: dict[str, str | int] = {
        "name": name,
        "size": size,
        "resizer": "clean-fid (Pillow bicubic per channel, float32, not rounded)",
        **files,
        "probe": found,
    }
    return replace(made, dim=made(probe_images()).shape[1], description=description)


def _pooled(network: Network, name: str, file: str | None, images: Tensor) -> Tensor:
    with reported_as_of(name, file):
        features = network(images)
    if not isinstance(features, Tensor) or features.ndim not in (2, 4) or len(features) != len(images):
        form = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise InputError(
            f"{name} gave {form} for {len(images)} images; it must give (B, dim) or (B, dim, h, w)",
            parameter="extractor",
        )
    return features.mean(dim=(2, 3)) if features.ndim == 4 else features
