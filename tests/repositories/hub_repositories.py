"""Repositories of the hub at tiny widths, with their real names, files and configs."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler
from safetensors.torch import load_file, save_file

from brainhive_cli.models.generators import sdxl
from brainhive_cli.models.priors import fusion_prior
from tests.repositories import text_encoders

H14 = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
TOWER = {
    "hidden_act": "gelu",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
}
CLIP_CONFIG = {
    "architectures": ["CLIPModel"],
    "initializer_factor": 1.0,
    "logit_scale_init_value": 2.6592,
    "model_type": "clip",
    "projection_dim": 1024,
    "text_config": {
        **TOWER,
        **text_encoders.IDS,
        "vocab_size": len(text_encoders.SPELLING_VOCABULARY),
    },
    "vision_config": {**TOWER, "image_size": 224, "patch_size": 14},
    "torch_dtype": "float32",
}
"""Config as LAION wrote it, with the width of the projection only at the top level."""
PREPROCESSOR = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
VAE_CONFIG = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.20.0.dev0",
    "_name_or_path": "../sdxl-vae/",
    "act_fn": "silu",
    "block_out_channels": [8, 8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "force_upcast": True,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "out_channels": 3,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
PRIOR, TURBO = "fakekungfu/Fusion-Prior-SynCLR_B32_VAE", "stabilityai/sdxl-turbo"
DIMS = {"synclr_vit_b_16": 768, "CLIP-ViT-B-32-laion2B-s34B-b79K": 512, "vae": 1024}
STORES = {"synclr-b16": 768, "clip-b32": 512, "vae": 1024}
"""Our names of the same encoders."""
TURBO_WEIGHTS = (
    "unet/diffusion_pytorch_model",
    "vae/diffusion_pytorch_model",
    "text_encoder/model",
    "text_encoder_2/model",
)
"""Weight files of sdxl-turbo that generation reads."""
INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.24.0.dev0",
    "force_zeros_for_empty_prompt": True,
    "scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
"""model_index.json of sdxl-turbo."""


def write_encoders(root: Path) -> Path:
    """Write both towers of clip-h14 and the VAE of SDXL at tiny widths."""
    from diffusers import AutoencoderKL
    from transformers import CLIPConfig, CLIPModel

    clip, vae = root / H14, root / SDXL / "vae"
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(**CLIP_CONFIG)).save_pretrained(clip)
    AutoencoderKL.from_config(VAE_CONFIG).save_pretrained(vae)
    (clip / "config.json").write_text(json.dumps(CLIP_CONFIG))
    (vae / "config.json").write_text(json.dumps(VAE_CONFIG))
    (clip / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    tokens = text_encoders.SPELLING_VOCABULARY
    token_ids = {token: index for index, token in enumerate(tokens)}
    text_encoders.write_tokenizer(clip, "<|endoftext|>", token_ids)
    (clip / "open_clip_config.json").write_text("{}")
    for name in (
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.bin",
        "pytorch_model.bin",
    ):
        (clip / name).write_bytes(b"the same weights for others")
    _save_half_precision(vae / "diffusion_pytorch_model")
    (root / SDXL / "sd_xl_base_1.0.safetensors").write_bytes(b"many gigabytes")
    return root


def write_prior_and_turbo(root: Path) -> Path:
    """Write a Fusion Prior and sdxl-turbo at tiny widths."""
    unet, turbo = sdxl.TINY.build().unet, root / TURBO
    torch.manual_seed(0)
    prior = fusion_prior.TINY.build(DIMS, unet)
    for weight in prior.attn_adapter.parameters():
        weight.data.mul_(10)  # a new adapter is too faint to see in a tiny picture
    prior.save(root / PRIOR)
    unet.save_pretrained(turbo / "unet")
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[4, 4, 4, 4],
        norm_num_groups=2,
        layers_per_block=1,
        scaling_factor=0.13025,
        force_upcast=True,
    )
    vae.save_pretrained(turbo / "vae")
    EulerAncestralDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
    ).save_pretrained(turbo / "scheduler")
    text_encoders.write(turbo)
    (turbo / "model_index.json").write_text(json.dumps(INDEX))
    for stem in TURBO_WEIGHTS:
        _save_half_precision(turbo / stem)
    (turbo / "sd_xl_turbo_1.0_fp16.safetensors").write_bytes(b"many gigabytes")
    return root


def _save_half_precision(stem: Path) -> None:
    weights = load_file(f"{stem}.safetensors")
    halves = {name: weight.half() for name, weight in weights.items()}
    save_file(halves, f"{stem}.fp16.safetensors")
