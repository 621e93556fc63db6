"""DINOv2 and CLIP from random weights in each published layout, against timm's and transformers' own forward passes."""

import json
from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from timm.layers import QuickGELU
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

from data_shards.io.errors import InputError
from eval.distance.extractors.by_name import extractor_by_name

CPU = torch.device("cpu")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def randomised(network):
    """A network whose every parameter is random, its norms and scales too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def pictures(side):
    return torch.randint(0, 256, (3, 3, side, side), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def normalised(images, moments):
    mean, std = (torch.tensor(m)[:, None, None] for m in moments)
    return (images / 255 - mean) / std


def features(name, path, side):
    return extractor_by_name(name, CPU, weights=str(path), size=side)(pictures(side))


def write(state, path):
    state = {name: value.contiguous() for name, value in state.items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize("file", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_of_torch_hub_and_timm_has_timms_features(tmp_path, file, registers):
    network = VisionTransformer(
        img_size=56,
        patch_size=14,
        embed_dim=128,
        depth=2,
        num_heads=2,
        num_classes=0,
        init_values=0.5,
        reg_tokens=registers,
        no_embed_class=registers > 0,
    )
    randomised(network)
    with torch.no_grad():
        expected = network.forward_features(normalised(pictures(56), IMAGENET))[:, 0]
    found = features("dinov2", write(network.state_dict(), tmp_path / file), 56)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("registers", [False, True])
def test_dinov2_of_hugging_face_has_transformers_features(tmp_path, swiglu, registers):
    kind, model = (Dinov2WithRegistersConfig, Dinov2WithRegistersModel) if registers else (Dinov2Config, Dinov2Model)
    config = kind(
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=56,
        patch_size=14,
        use_swiglu_ffn=swiglu,
    )
    network = randomised(model(config))
    network.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = network(pixel_values=normalised(pictures(56), IMAGENET)).last_hidden_state[:, 0]
    torch.testing.assert_close(features("dinov2", tmp_path, 56), expected, atol=2e-5, rtol=1e-5)


def small_clip(activation):
    vision = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
        "hidden_act": activation,
        "projection_dim": 32,
    }
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return CLIPConfig(vision_config=vision, text_config=text, projection_dim=32)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_clip_of_hugging_face_has_transformers_features(tmp_path, whole, activation):
    config = small_clip(activation)
    images = CLIPVisionModelWithProjection(config.vision_config)
    randomised(images)
    if whole:
        both = CLIPModel(config)
        both.load_state_dict(images.state_dict(), strict=False)
        both.save_pretrained(tmp_path)
    else:
        images.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = images(pixel_values=normalised(pictures(64), OPENAI)).image_embeds
    torch.testing.assert_close(features("clip", tmp_path, 64), expected, atol=2e-5, rtol=1e-5)


def timm_clip():
    return randomised(
        VisionTransformer(
            img_size=64,
            patch_size=16,
            embed_dim=128,
            depth=2,
            num_heads=2,
            num_classes=32,
            pre_norm=True,
            act_layer=QuickGELU,
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
        )
    )


def as_openai(state):
    """timm's tensors under OpenAI's names."""
    names = {"cls_token": "class_embedding", "pos_embed": "positional_embedding", "patch_embed.proj": "conv1"}
    names |= {"norm_pre": "ln_pre", "blocks": "transformer.resblocks", "norm1": "ln_1", "norm2": "ln_2"}
    names |= {
        "attn.qkv.": "attn.in_proj_",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    found = {"logit_scale": torch.ones(()), "token_embedding.weight": torch.zeros(5, 8)}
    for name, value in state.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        name = name.replace("norm.", "ln_post.") if name.startswith("norm.") else name
        if name == "head.weight":
            name, value = "proj", value.T
        if name in ("class_embedding", "positional_embedding"):
            value = value[0, 0] if name == "class_embedding" else value[0]
        if name != "head.bias":
            found[f"visual.{name}"] = value
    return found


def test_clip_of_timm_and_of_openai_has_timms_features(tmp_path):
    network = timm_clip()
    with torch.no_grad():
        network.head.bias.zero_()
        expected = network(normalised(pictures(64), OPENAI))
    for name, state in (("timm.safetensors", network.state_dict()), ("openai.pt", as_openai(network.state_dict()))):
        found = features("clip", write(state, tmp_path / name), 64)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


class Archive(nn.Module):
    """A network that holds tensors by OpenAI's names, as their TorchScript files do."""

    def __init__(self, state):
        super().__init__()
        for name, value in state.items():
            place = self
            for word in name.split(".")[:-1]:
                if not hasattr(place, word):
                    place.add_module(word, nn.Module())
                place = getattr(place, word)
            place.register_buffer(name.split(".")[-1], value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_the_same_weights_are_one_extractor_in_every_layout(tmp_path):
    state = timm_clip().state_dict()
    state["head.bias"] = torch.zeros(32)
    del state["head.bias"]
    write(state, tmp_path / "timm.safetensors")
    write(as_openai(state), tmp_path / "openai.pt")
    torch.jit.save(torch.jit.script(Archive(as_openai(state))), tmp_path / "archive.pt")
    made = [
        extractor_by_name("clip", CPU, weights=str(tmp_path / name)).description
        for name in ("timm.safetensors", "openai.pt", "archive.pt")
    ]
    assert made[0] == made[1] == made[2]


def test_dinov2_takes_images_of_224_pixels_unless_it_is_told_otherwise(tmp_path):
    network = VisionTransformer(
        img_size=56, patch_size=14, embed_dim=64, depth=1, num_heads=1, num_classes=0, init_values=0.5
    )
    path = write(randomised(network).state_dict(), tmp_path / "weights.pth")
    made = extractor_by_name("dinov2", CPU, weights=str(path))
    assert made.description["size"] == 224
    assert made(pictures(32)).shape == (3, 64)
    with pytest.raises(InputError, match="no multiple of the patch of 14"):
        extractor_by_name("dinov2", CPU, weights=str(path), size=100)


class Anything:
    pass


@pytest.mark.parametrize(
    ("write_it", "message"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.write_bytes(b"nothing"), "no plain weights"),
        (lambda p: torch.save({"cls_token": Anything()}, p), "no plain weights"),
        (lambda p: torch.save({"a": 1}, p), "no tensors by name"),
        (lambda p: torch.save({"layer1.0.conv1.weight": torch.zeros(2)}, p), "of no DINOv2 or CLIP network"),
        (lambda p: torch.save({"cls_token": torch.zeros(1, 1, 8)}, p), "it lacks"),
        (lambda p: p.mkdir(), "config.json"),
        (lambda p: (p.mkdir(), (p / "config.json").write_text(json.dumps({}))), "no weights in it"),
    ],
)
def test_what_is_not_their_weights_is_one_clear_error(tmp_path, write_it, message):
    write_it(tmp_path / "weights.pth")
    with pytest.raises(InputError, match=message):
        extractor_by_name("dinov2", CPU, weights=str(tmp_path / "weights.pth"))


def test_they_are_not_made_without_weights():
    with pytest.raises(InputError, match="extractor_weights: clip needs its weights"):
        extractor_by_name("clip", CPU)
