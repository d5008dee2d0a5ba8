"""Repository of stable-diffusion-v1-5 at tiny widths."""

import json
from pathlib import Path

import torch
import transformers as tf
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel

from tests.repositories.text_encoders import IDS, WORDS, write_tokenizer

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
TEXT = 12
"""Width of text tokens."""
UNET = {
    "sample_size": 8,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": TEXT,
    "attention_head_dim": 2,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}
VAE = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 16,
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.6.0",
    "feature_extractor": [None, None],
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
"""model_index.json, without the safety checker."""


def write(root: Path) -> Path:
    """Write the repository."""
    torch.manual_seed(0)
    folder = root / SD15
    UNet2DConditionModel(**UNET).save_pretrained(folder / "unet")
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    PNDMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    sizes = {
        "hidden_size": TEXT,
        "intermediate_size": 8,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
    }
    text = tf.CLIPTextConfig(
        **sizes, **IDS, vocab_size=len(WORDS), hidden_act="quick_gelu"
    )
    tf.CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    write_tokenizer(folder / "tokenizer", "<|endoftext|>")
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    (folder / "v1-5-pruned.safetensors").write_bytes(b"many gigabytes")
    return root
