"""stable-diffusion-v1-5 and IP-Adapter's repository at tiny widths, in their folders and files."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from safetensors.torch import save_file
from text_encoders import IDS, WORDS, write_tokenizer
from torch import Tensor

SD15, IP = "stable-diffusion-v1-5/stable-diffusion-v1-5", "h94/IP-Adapter"
ADAPTER, PLUS = "ip-adapter_sd15.safetensors", "ip-adapter-plus_sd15.safetensors"
TEXT, IMAGE, HIDDEN = 12, 10, 64
"""Widths of text tokens, of image embeddings, and of the image encoder's hidden states."""
SIDE_PX = 16
UNET = {"sample_size": 8, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4}
UNET |= {"cross_attention_dim": TEXT, "attention_head_dim": 2}
UNET |= {"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"]}
UNET |= {"up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}
VAE = {"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 16}
VAE |= {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULER |= {"num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True}
SCHEDULER |= {"steps_offset": 1}
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
    """Write both repositories."""
    torch.manual_seed(0)
    folder, unet = root / SD15, UNet2DConditionModel(**UNET)
    unet.save_pretrained(folder / "unet")
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    PNDMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    sizes = {"hidden_size": TEXT, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2}
    text = tf.CLIPTextConfig(**sizes, **IDS, vocab_size=len(WORDS), hidden_act="quick_gelu")
    tf.CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    write_tokenizer(folder / "tokenizer", "<|endoftext|>")
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    (folder / "v1-5-pruned.safetensors").write_bytes(b"many gigabytes")
    _write_adapters(root / IP / "models", unet)
    return root


def _write_adapters(folder: Path, unet: Any) -> None:
    sizes = {"hidden_size": HIDDEN, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3}
    vision = tf.CLIPVisionConfig(**sizes, projection_dim=IMAGE, image_size=SIDE_PX, patch_size=8)
    tf.CLIPVisionModelWithProjection(vision).save_pretrained(folder / "image_encoder")
    image = {"proj.weight": torch.randn(4 * TEXT, IMAGE), "proj.bias": torch.randn(4 * TEXT)}
    image |= {"norm.weight": torch.ones(TEXT), "norm.bias": torch.zeros(TEXT)}
    plus = IPAdapterPlusImageProjection(HIDDEN, TEXT, HIDDEN, heads=HIDDEN // 64, num_queries=16).state_dict()
    joined = {_old(name): value for name, value in plus.items() if ".to_v." not in name}
    for name, value in plus.items():
        if ".to_v." in name:  # IP-Adapter keeps keys and values in one
            keys = joined.pop(_old(name.replace(".to_v.", ".to_k.")))
            joined[_old(name.replace(".to_v.", ".to_kv."))] = torch.cat([keys, value])
    for file, projection in ((ADAPTER, image), (PLUS, joined)):
        named = {f"image_proj.{name}": value for name, value in projection.items()}
        save_file(named | _attentions(unet), folder / file)


def _attentions(unet: Any) -> dict[str, Tensor]:
    found, place = {}, 1
    for name in unet.attn_processors:
        if name.endswith("attn2.processor"):
            attention = unet.get_submodule(name.removesuffix(".processor"))
            for kind in "kv":
                shape = getattr(attention, f"to_{kind}").weight.shape
                found[f"ip_adapter.{place}.to_{kind}_ip.weight"] = torch.randn(shape)
            place += 2
    return found


def _old(name: str) -> str:
    """Name a weight of the resampler as IP-Adapter's files do."""
    for new, old in (
        *((".attn.to_out.0.", ".0.to_out."), (".attn.to_", ".0.to_"), (".ln0.", ".0.norm1.")),
        *(
            (".ln1.", ".0.norm2."),
            (".ff.0.", ".1.0."),
            (".ff.1.net.0.proj.", ".1.1."),
            (".ff.1.net.2.", ".1.3."),
        ),
    ):
        name = name.replace(new, old)
    return name
