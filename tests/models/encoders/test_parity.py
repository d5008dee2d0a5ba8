"""Each family, in its repositories' real layout, against a direct call of its
library.
"""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torchvision import transforms

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.core.recipes import parts
from brainhive_cli.models import encoders

open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed")

SAME = 1e-5
"""Largest difference in standard deviations of the reference. Rounding in float32
differs between batches.
"""
TIMM = {"kind": "timm", "source": "random", "architecture": "test_vit"}
SIGLIP2 = parts.load("encoders", "siglip2").TINY.model_dump()
TOWER = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
TEXT = {
    **TOWER,
    "intermediate_size": 24,
    "vocab_size": 60,
    "max_position_embeddings": 8,
}
TEXT |= {"bos_token_id": 1, "eos_token_id": 2}

Pictures = list[Image.Image]


@pytest.fixture(scope="module")
def pictures():
    """Pictures of three sizes: photographs, or noise if there are none."""
    photos = sorted(
        (Path(__file__).resolve().parents[4] / "shared/data/photos").glob("*.jpg")
    )[:3]
    noise = np.random.default_rng(0).integers(0, 255, (3, 40, 50, 3), dtype=np.uint8)
    originals = [Image.open(photo).convert("RGB") for photo in photos] or [
        Image.fromarray(pixels) for pixels in noise
    ]
    sizes = [(128, 128), (300, 500), (640, 260)]
    return [
        pixels.resize(size, Image.Resampling.BICUBIC)
        for pixels, size in zip(originals, sizes, strict=True)
    ]


pytestmark = pytest.mark.usefixtures("without_gradients")


def unlike(ours, theirs):
    """Compute the largest difference in standard deviations of the reference."""
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype == torch.float32
    assert theirs.std() > 0
    return float((ours - theirs).abs().max() / theirs.std())


@dataclass(frozen=True)
class Family:
    """Functions that write a folder of a family, and compute its outputs directly."""

    kind: str
    write: Callable[[Path], Any]
    directly: Callable[[Path, Pictures], dict[str, Tensor]]
    knobs: tuple[tuple[str, Any], ...] = ()
    has_class: bool = True


def shaken(network):
    """Add noise to all weights, so that no norm, scale or bias has no effect."""
    torch.manual_seed(1)
    for weight in network.parameters():
        weight.data.add_(0.1 * torch.randn_like(weight))
    return network.eval()


def write_transformers(network, config, processor):
    def write(folder):
        shaken(getattr(transformers, network)(config)).save_pretrained(folder)
        processor.save_pretrained(folder)

    return write


def tokens(last_tokens, blocks, extra):
    """Return outputs by name, from last tokens and tokens of each block.

    Args:
        last_tokens: Tokens [B, S, D] after the last norm.
        blocks: Tokens [B, S, D] of each block.
        extra: Number of tokens before the patches.
    """
    return {
        "class": last_tokens[:, 0],
        "mean": last_tokens[:, extra:].mean(1),
        "patches": last_tokens[:, extra:],
        "tokens": last_tokens,
        "block-0": blocks[0],
        "block-1.class": blocks[1][:, 0],
        "block-2.mean": blocks[2][:, extra:].mean(1),
        "block-1.patches": blocks[1][:, extra:],
        "tokens-mean": last_tokens.mean(1),
        "block-1.tokens-mean": blocks[1].mean(1),
        "block-0.667.mean": blocks[int(0.667 * len(blocks)) - 1][:, extra:].mean(1),
    }


def transformers_directly(network, extra):
    def directly(folder, pictures):
        tower = getattr(transformers, network).from_pretrained(folder).eval()
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
        batch = processor(images=pictures, return_tensors="pt")
        output = tower(**batch, output_hidden_states=True)
        last_tokens = output.last_hidden_state
        if network.startswith("CLIP"):  # the library normalises the class token alone
            last_tokens = tower.vision_model.post_layernorm(last_tokens)
        embedding = (
            output.image_embeds if network.startswith("CLIP") else output.pooler_output
        )
        blocks = output.hidden_states[1:]
        return {"embedding": embedding, **tokens(last_tokens, blocks, extra)}

    return directly


def vit(side_px, patch, **options):
    return {**TOWER, "image_size": side_px, "patch_size": patch, **options}


CLIP = transformers.CLIPConfig(
    text_config=TEXT,
    vision_config=vit(
        56, 14, intermediate_size=24, hidden_act="quick_gelu", projection_dim=12
    ),
    projection_dim=12,
)
SIGLIP = transformers.SiglipConfig(
    text_config={**TEXT, "projection_size": 24},
    vision_config=vit(48, 16, intermediate_size=24),
)
DINOV2 = transformers.Dinov2Config(**vit(518, 14))
REGISTERS = transformers.Dinov2WithRegistersConfig(
    **vit(518, 14, num_register_tokens=4)
)
DINOV3 = transformers.DINOv3ViTConfig(
    **vit(224, 16, intermediate_size=24, num_register_tokens=4)
)


def square(side_px):
    return {"height": side_px, "width": side_px}


CLIP_VIEW = transformers.CLIPImageProcessor(
    size={"shortest_edge": 56}, crop_size=square(56)
)
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
DINOV2_VIEW = transformers.BitImageProcessor(
    size={"shortest_edge": 256}, crop_size=square(224), **IMAGENET
)
SIGLIP2_VIEW = transformers.SiglipImageProcessor(size=square(48), resample=2)
DINOV3_VIEW = transformers.DINOv3ViTImageProcessor()


def write_open_clip(vision, **options):
    text = {"context_length": 8, "vocab_size": 60, "width": 16, "heads": 2, "layers": 1}
    model = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text, **options}
    view = {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.2],
        "interpolation": "bilinear",
    }

    def write(folder):
        folder.mkdir()
        network = shaken(open_clip.CLIP(**model))
        save_file(network.state_dict(), folder / "open_clip_model.safetensors")
        config = {"model_cfg": model, "preprocess_cfg": view}
        (folder / "open_clip_config.json").write_text(json.dumps(config))

    return write


def open_clip_directly(folder, pictures):
    model, view = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    batch = torch.stack([view(picture) for picture in pictures])
    outputs = {"embedding": model.eval().encode_image(batch)}
    if not hasattr(model.visual, "transformer"):
        stages = model.visual.forward_intermediates(batch)["image_intermediates"]
        return {**outputs, "stage-3": stages[3], "stage-3.mean": stages[3].mean((2, 3))}
    _, blocks = model.visual.transformer.forward_intermediates(
        model.visual._embeds(batch)
    )
    return {**outputs, **tokens(model.visual.ln_post(blocks[-1]), blocks, extra=1)}


def write_timm(name):
    def write(folder):
        model = shaken(timm.create_model(name, num_classes=10))
        folder.mkdir()
        save_file(model.state_dict(), folder / "model.safetensors")
        config = {
            "architecture": name,
            "num_classes": 10,
            "pretrained_cfg": model.pretrained_cfg,
        }
        (folder / "config.json").write_text(
            json.dumps({**config, "num_features": model.num_features})
        )

    return write


def timm_directly(folder, pictures):
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    view = timm.data.create_transform(
        **timm.data.resolve_model_data_config(model), is_training=False
    )
    return timm_outputs(model, torch.stack([view(picture) for picture in pictures]))


def timm_outputs(model, batch):
    features = model.forward_features(batch)
    outputs = {"embedding": model.forward_head(features, pre_logits=True)}
    if features.ndim == 4:  # a convolutional network
        stage = model.layer3(
            model.layer2(
                model.layer1(model.maxpool(model.act1(model.bn1(model.conv1(batch)))))
            )
        )
        return {**outputs, "stage-3": stage, "stage-4.mean": features.mean((2, 3))}
    pairs = model.forward_intermediates(
        batch, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
    )
    blocks = [torch.cat([prefix, patches], 1) for patches, prefix in pairs]
    return {**outputs, **tokens(features, blocks, model.num_prefix_tokens)}


def write_synclr(folder):
    folder.mkdir()
    tower = {f"module.visual.{k}": v for k, v in synclr_network().state_dict().items()}
    state = {
        **tower,
        "module.visual.mask_token": torch.zeros(1),
        "module.head.weight": torch.zeros(2),
    }
    torch.save({"model": state, "epoch": 500}, folder / "synclr_vit_b_16.pth")


def synclr_network():
    torch.manual_seed(2)
    return shaken(timm.create_model("test_vit", num_classes=0))


def synclr_directly(folder, pictures):
    steps = [transforms.Resize(160), transforms.CenterCrop(160), transforms.ToTensor()]
    clip = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    mean, std = clip
    view = transforms.Compose(steps + [transforms.Normalize(mean, std)])
    model = synclr_network()
    batch = torch.stack([view(picture) for picture in pictures])
    return {
        **timm_outputs(model, batch),
        "embedding": model.forward_features(batch)[:, 0],
    }


def write_vae(shift):
    def write(folder):
        blocks = {
            "down_block_types": ["DownEncoderBlock2D"] * 3,
            "up_block_types": ["UpDecoderBlock2D"] * 3,
        }
        sizes = {
            "block_out_channels": [8, 8, 8],
            "norm_num_groups": 4,
            "scaling_factor": 0.13025,
        }
        shaken(
            diffusers.AutoencoderKL(**sizes, **blocks, shift_factor=shift)
        ).save_pretrained(folder)

    return write


def cropped(pictures):
    steps = [transforms.Resize(128), transforms.CenterCrop(128), transforms.ToTensor()]
    return (
        torch.stack([transforms.Compose(steps)(picture) for picture in pictures]) * 2
        - 1
    )


def vae_directly(folder, pictures):
    vae = diffusers.AutoencoderKL.from_pretrained(folder)
    latents = vae.encode(cropped(pictures)).latent_dist.mode() - (
        vae.config.shift_factor or 0
    )
    return {"embedding": (latents * 0.13025).flatten(1), "latent": latents * 0.13025}


def hf(network, config, view, tower, extra):
    return {
        "write": write_transformers(network, config, view),
        "directly": transformers_directly(tower, extra),
    }


RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
VIT = {"image_size": 32, "patch_size": 8, "layers": 3, "width": 16, "head_width": 8}
FAMILIES = {
    "clip": Family(
        "clip-l14",
        **hf("CLIPModel", CLIP, CLIP_VIEW, "CLIPVisionModelWithProjection", 1),
    ),
    "dinov2": Family(
        "dinov2-b14", **hf("Dinov2Model", DINOV2, DINOV2_VIEW, "Dinov2Model", 1)
    ),
    "dinov2 with registers": Family(
        "transformers-vit",
        **hf(
            "Dinov2WithRegistersModel",
            REGISTERS,
            DINOV2_VIEW,
            "Dinov2WithRegistersModel",
            5,
        ),
    ),
    "dinov3": Family(
        "dinov3", **hf("DINOv3ViTModel", DINOV3, DINOV3_VIEW, "DINOv3ViTModel", 5)
    ),
    "siglip2": Family(
        "siglip2",
        **hf("SiglipModel", SIGLIP, SIGLIP2_VIEW, "SiglipVisionModel", 0),
        has_class=False,
    ),
    "open_clip RN50": Family("clip-rn50", write_open_clip(RESNET), open_clip_directly),
    "open_clip ViT": Family(
        "open-clip", write_open_clip(VIT, quick_gelu=True), open_clip_directly
    ),
    "timm ViT": Family("timm", write_timm("test_vit"), timm_directly),
    "timm ResNet": Family("timm", write_timm("test_resnet"), timm_directly),
    "synclr": Family(
        "synclr-b16", write_synclr, synclr_directly, (("architecture", "test_vit"),)
    ),
    "vae": Family("vae", write_vae(None), vae_directly),
    "vae with a shift": Family("diffusers-vae", write_vae(0.2), vae_directly),
}


def compare(name, folder, pictures):
    """Embed with the family's part, all outputs in a single forward, and measure the
    differences from the library.
    """
    family = FAMILIES[name]
    family.write(folder)
    theirs = family.directly(folder, pictures)
    if not family.has_class:
        theirs = {
            name: values for name, values in theirs.items() if "class" not in name
        }
    outputs_setting = {"output": list(theirs)} if len(theirs) > 1 else {}
    encoder = encoders.resolve(
        {
            "kind": family.kind,
            "source": str(folder),
            **dict(family.knobs),
            **outputs_setting,
        }
    ).build()
    batch = torch.stack([encoder.preprocess(picture) for picture in pictures])
    ours = encoder.module(batch)
    ours = dict(zip(theirs, ours if outputs_setting else [ours], strict=True))
    return {output: unlike(ours[output], values) for output, values in theirs.items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_gives_what_its_library_gives(name, tmp_path, pictures):
    differences = compare(name, tmp_path / "model", pictures)
    assert max(differences.values()) <= SAME, differences
    assert len(differences) in (1, 2, 3, 10, 12)


def test_a_vae_samples_as_diffusers_does_with_the_same_noise(tmp_path, pictures):
    write_vae(None)(tmp_path)
    encoder = encoders.resolve(
        {"kind": "vae", "source": str(tmp_path), "posterior": "sample", "seed": 5}
    ).build()
    posterior = (
        diffusers.AutoencoderKL.from_pretrained(tmp_path)
        .encode(cropped(pictures))
        .latent_dist
    )
    batch = torch.stack([encoder.preprocess(picture) for picture in pictures])
    for row, view in enumerate(batch):
        noise = torch.Generator().manual_seed(zlib.crc32(view.numpy().tobytes()) ^ 5)
        expected = posterior.mean[row] + posterior.std[row] * torch.randn(
            4, 32, 32, generator=noise
        )
        assert (
            unlike(encoder.module(batch)[row], (expected * 0.13025).flatten()) <= SAME
        )


def test_unknown_outputs_are_refused():
    for knobs, pattern in (
        ({"kind": "dinov2-b14", "output": "clas"}, "output"),
        ({**TIMM, "output": "block-6"}, "'block-6'"),
        # int(0.1 * 6) = 0: before the first block
        ({**TIMM, "output": "block-0.1"}, "'block-0.1'"),
        ({**SIGLIP2, "output": "class"}, "'class'"),
    ):
        with pytest.raises(RecipeError, match=pattern):
            _ = encoders.resolve(knobs).build().module
