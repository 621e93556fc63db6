"""The weights of vision transformers in the layouts in which they are published, under one set of names.

torch.hub's DINOv2, OpenAI's and open_clip's CLIP, timm's and Hugging Face's of both. A file is read as safetensors, or
by torch.load with weights_only; a folder is Hugging Face's, whose config.json says what tensors do not.

Names: patch.weight, cls (width,), pos (places, width), registers, pre.*, norm.*, projection (width, dim), and for each
block norm1.*, qkv.*, out.*, scale1, norm2.*, up.*, down.*, scale2.
"""

import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from data_shards.io.errors import InputError, raise_machine_fault

# Of text networks, of classifiers, and what only training uses.
_DROPPED = re.compile(
    r"(text_model|text_projection|logit_scale|logit_bias|(embeddings\.)?mask_token|.*position_ids|classifier).*"
)
# In the order in which they are tried; the first that matches renames.
_NAMES = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"(?:embeddings\.)?(?:cls_token|class_embedding)", "cls"),
        (
            r"pos_embed|positional_embedding|embeddings\.position_embeddings|embeddings\.position_embedding\.weight",
            "pos",
        ),
        (r"register_tokens|reg_token|embeddings\.register_tokens", "registers"),
        (
            r"(?:patch_embed\.proj|conv1|embeddings\.patch_embeddings\.projection|embeddings\.patch_embedding)\.(\w+)",
            r"patch.\1",
        ),
        (r"(?:norm_pre|ln_pre|pre_layrnorm)\.(\w+)", r"pre.\1"),
        (r"(?:norm|ln_post|layernorm|post_layernorm)\.(\w+)", r"norm.\1"),
        (r"proj", "projection"),
        (r"(?:head|visual_projection)\.weight", "projection.T"),
        (r"(?:head|visual_projection)\.bias", "projection.bias"),
    )
]
_BLOCK = re.compile(r"(?:blocks|transformer\.resblocks|encoder\.layers?|layers?)\.(\d+)\.(.+)")
_IN_BLOCK = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"(?:norm1|ln_1|layer_norm1)\.(\w+)", r"norm1.\1"),
        (r"(?:norm2|ln_2|layer_norm2)\.(\w+)", r"norm2.\1"),
        (r"attn\.qkv\.(\w+)", r"qkv.\1"),
        (r"attn\.in_proj_(\w+)", r"qkv.\1"),
        (r"(?:attention\.attention\.|attention\.|self_attn\.)(query|key|value|q_proj|k_proj|v_proj)\.(\w+)", r"\1.\2"),
        (
            r"(?:attn\.proj|attn\.out_proj|attention\.output\.dense|self_attn\.out_proj|attention\.o_proj)\.(\w+)",
            r"out.\1",
        ),
        (r"ls([12])\.gamma", r"scale\1"),
        (r"layer_scale([12])\.lambda1", r"scale\1"),
        (r"mlp\.gate_proj\.(\w+)", r"gate.\1"),
        (r"mlp\.(?:fc1|w12|c_fc|weights_in|up_proj)\.(\w+)", r"up.\1"),
        (r"mlp\.(?:fc2|w3|c_proj|weights_out|down_proj)\.(\w+)", r"down.\1"),
    )
]
_PARTS = (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))


def read_transformer(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The weights under the names of this module, float32 on the CPU, and what config.json says of the image network.

    Raises InputError where there are none, or they are not of a vision transformer.
    """
    config: Mapping[str, Any] = {}
    if path.is_dir():
        state, config = _folder(path)
    elif path.is_file():
        state = _file(path)
    else:
        raise InputError(
            f"{path} does not exist; give a state dict or a folder of weights", parameter="extractor_weights"
        )
    weights = _renamed(state, path)
    missing = [
        name for name in ("patch.weight", "cls", "pos", "norm.weight", "blocks.0.qkv.weight") if name not in weights
    ]
    if missing:
        raise InputError(f"{path}: no vision transformer of DINOv2 or CLIP: it lacks {', '.join(missing)}")
    return weights, config.get("vision_config", config)


def _folder(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    try:
        config = json.loads((path / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise_machine_fault(error, path / "config.json")
        raise InputError(f"{path}: no readable config.json ({error}); give Hugging Face's folder") from error
    files = sorted(path.glob("*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))
    if not files:
        raise InputError(f"{path}: no weights in it; download model.safetensors too")
    state: dict[str, Tensor] = {}
    for file in files:
        state |= _file(file)
    return state, config


def _file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        elif _is_torchscript(path):
            content = torch.jit.load(path, "cpu").state_dict()
        else:
            content = torch.load(path, "cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # of many kinds, pickle's for anything but plain tensors among them
        raise_machine_fault(error, path)
        raise _no_weights(path, error) from error
    for key in ("state_dict", "model", "teacher"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    found = {name: value for name, value in content.items() if isinstance(value, Tensor)} if content else {}
    if not found:
        raise InputError(f"{path}: holds no tensors by name; give a state dict", parameter="extractor_weights")
    return found


def _is_torchscript(path: Path) -> bool:
    """Whether a file is an archive of a network, as OpenAI's are, and not of tensors alone."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.partition("/")[2].startswith("code/") for name in archive.namelist())


def _no_weights(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:120]
    return InputError(
        f"{path}: holds no plain weights ({reason}); give a state dict saved by torch.save or safetensors",
        parameter="extractor_weights",
    )


def _renamed(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    is_clip_whole = any(name.startswith("visual.") for name in state)
    found: dict[str, Tensor] = {}
    for given, tensor in state.items():
        if is_clip_whole and not given.startswith("visual."):
            continue  # the text network
        name = re.sub(r"^(?:module\.|visual\.|vision_model\.|dinov2\.|dinov2_with_registers\.|model\.)+", "", given)
        if _DROPPED.fullmatch(name):
            continue
        found[_name(name, given, path)] = tensor.float()
    projected = found.pop("projection.T", None)
    if projected is not None and projected.ndim == 2:
        found["projection"] = projected.T.contiguous()
    for block in range(1 + max((int(name.split(".")[1]) for name in found if name.startswith("blocks.")), default=-1)):
        for kind in ("weight", "bias"):
            names = [[f"blocks.{block}.{word}.{kind}" for word in words] for words in _PARTS]
            parts = [found.pop(name) for same in names for name in same if name in found]
            if len(parts) == len(_PARTS):
                found[f"blocks.{block}.qkv.{kind}"] = torch.cat(parts)
            if (gate := found.pop(f"blocks.{block}.gate.{kind}", None)) is not None:
                found[f"blocks.{block}.up.{kind}"] = torch.cat([gate, found[f"blocks.{block}.up.{kind}"]])
    for name in ("cls", "pos", "registers"):
        if name in found:
            found[name] = found[name].reshape(-1, found[name].shape[-1])
    if "cls" in found:
        found["cls"] = found["cls"][0]
    return found


def _name(name: str, given: str, path: Path) -> str:
    block = _BLOCK.fullmatch(name)
    table, rest = (_NAMES, name) if block is None else (_IN_BLOCK, block[2])
    for pattern, new in table:
        if (match := pattern.fullmatch(rest)) is not None:
            return f"{'' if block is None else f'blocks.{block[1]}.'}{match.expand(new)}"
    raise InputError(f"{path}: tensor {given} is of no DINOv2 or CLIP network", parameter="extractor_weights")
