"""Repository of shi-labs/versatile-diffusion at tiny widths, as float32 pickles."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.deprecated.versatile_diffusion.modeling_text_unet import (
    UNetFlatConditionModel,
)
from torch import Tensor

from tests.repositories.text_encoders import WORDS, write_tokenizer

NAME = "shi-labs/versatile-diffusion"
WIDTH = 12
"""Width of the projections of both towers and of the U-Nets' cross-attention."""
SIDE_PX = 16
"""Side of a picture. Latents are 8 × 8, and the image tower sees four patches."""
State = dict[str, Tensor]
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "projection_dim": WIDTH,
    "hidden_act": "quick_gelu",
}
VISION = {**TOWER, "image_size": 16, "patch_size": 8}
TEXT = {
    **TOWER,
    "vocab_size": 49,
    "max_position_embeddings": 77,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
UNET = {
    "sample_size": 8,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 2,
}
IMAGE_UNET = {
    **UNET,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "in_channels": 4,
    "out_channels": 4,
}
TEXT_UNET = {
    **UNET,
    "down_block_types": ["CrossAttnDownBlockFlat", "DownBlockFlat"],
    "up_block_types": ["UpBlockFlat", "CrossAttnUpBlockFlat"],
    "in_channels": [12, 1, 1],
    "out_channels": [12, 1, 1],
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
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.8.0.dev0",
    "trained_betas": None,
}
PROCESSOR = {
    "crop_size": {"height": 16, "width": 16},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "CLIPFeatureExtractor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 16},
}
INDEX = {
    "_class_name": "VersatileDiffusionPipeline",
    "_diffusers_version": "0.8.0.dev0",
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "image_feature_extractor": ["transformers", "CLIPFeatureExtractor"],
    "image_unet": ["diffusers", "UNet2DConditionModel"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
    "text_unet": ["versatile_diffusion", "UNetFlatConditionModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "vae": ["diffusers", "AutoencoderKL"],
}
"""model_index.json."""
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""Names of the autoencoder's attention layers in the published weights."""


def write(
    folder: Path,
    states: Mapping[str, State] = {},
    sizes: Mapping[str, Mapping[str, Any]] = {},
) -> Path:
    """Write the folder of the generator.

    Args:
        folder: Folder to write.
        states: Weights by component. Other components have random weights.
        sizes: Changes of the configs by component.
    """
    torch.manual_seed(0)
    components: dict[str, tuple[Any, dict[str, Any]]] = {
        # the order determines the random weights
        "text_unet": (UNetFlatConditionModel, TEXT_UNET),
        "image_unet": (UNet2DConditionModel, IMAGE_UNET),
        "vae": (AutoencoderKL, VAE),
    }
    for name, (network_class, default_config) in components.items():
        config = {**default_config, **sizes.get(name, {})}
        network = network_class(**config)
        state = states.get(name) or network.state_dict()
        _write_component(
            folder / name,
            {"_class_name": network_class.__name__, **config},
            _rename_attention(state) if name == "vae" else state,
            "diffusion_pytorch_model.bin",
        )
    vision = tf.CLIPVisionConfig(**{**VISION, **sizes.get("image_encoder", {})})
    text = tf.CLIPTextConfig(**{**TEXT, **sizes.get("text_encoder", {})})
    image_state = (
        states.get("image_encoder")
        or tf.CLIPVisionModelWithProjection(vision).state_dict()
    )
    n_patches = (vision.image_size // vision.patch_size) ** 2
    image_ids = torch.arange(n_patches + 1)[None]
    _write_component(
        folder / "image_encoder",
        _make_config(vision, "clip_vision_model"),
        {**image_state, "vision_model.embeddings.position_ids": image_ids},
        "pytorch_model.bin",
    )
    text_state = (
        states.get("text_encoder") or tf.CLIPTextModelWithProjection(text).state_dict()
    )
    text_ids = torch.arange(text.max_position_embeddings)[None]
    _write_component(
        folder / "text_encoder",
        _make_config(text, "clip_text_model"),
        {**text_state, "text_model.embeddings.position_ids": text_ids},
        "pytorch_model.bin",
    )
    write_tokenizer(folder / "tokenizer", "<|endoftext|>")
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER))
    (folder / "image_feature_extractor").mkdir()
    (folder / "image_feature_extractor/preprocessor_config.json").write_text(
        json.dumps(PROCESSOR)
    )
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    (folder / "pretrained_pth").mkdir()
    (folder / "pretrained_pth/vd-four-flow-v1-0.pth").write_bytes(b"many gigabytes")
    assert len(WORDS) <= TEXT["vocab_size"]
    return folder


def _make_config(config: Any, model_type: str) -> dict[str, Any]:
    return {**config.to_diff_dict(), "model_type": model_type, "torch_dtype": "float32"}


def _rename_attention(state: Mapping[str, Tensor]) -> State:
    """Give the attention layers the names of the published weights."""
    renamed = {}
    for name, value in state.items():
        for new_name, old_name in OLD_NAMES.items():
            if ".attentions." in name:
                name = name.replace(f".{new_name}.", f".{old_name}.")
        renamed[name] = value
    return renamed


def _write_component(
    folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor], file: str
) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(
        {
            name: value.float() if value.is_floating_point() else value
            for name, value in state.items()
        },
        folder / file,
    )
