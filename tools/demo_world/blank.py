"""Writes all of the demo's generator but the VAE and the U-Net's training: an SDXL in
miniature.
"""

import json

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file

from brainhive_cli.core.hub import DEMO_WEIGHTS

FOLDER = DEMO_WEIGHTS / "generator"
CROSS_ATTENTION_DIM, POOLED_DIM, TIME_ID_DIM = 128, 16, 8


def write() -> None:
    """Save an untrained U-Net, the scheduler, the empty prompt and the folder's
    index.
    """
    _unet().save_pretrained(FOLDER / "unet")
    _scheduler().save_pretrained(FOLDER / "scheduler")
    empty = {
        # no text encoder: the text says nothing
        "prompt_embeds": torch.zeros(1, 1, CROSS_ATTENTION_DIM),
        "pooled_prompt_embeds": torch.zeros(1, POOLED_DIM),
    }
    save_file(empty, FOLDER / "empty_prompt.safetensors")
    index = {
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": True,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        **{
            name: [None, None]
            for name in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
        },
    }
    (FOLDER / "model_index.json").write_text(
        json.dumps(index, indent=2) + "\n", encoding="utf-8"
    )


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        # the last works on 4x4 fields, where a U-Net soon knows its place
        block_out_channels=(32, 64, 112),
        down_block_types=(
            "DownBlock2D",
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
        ),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=16,
        transformer_layers_per_block=1,
        attention_head_dim=(1, 4, 7),  # heads, as SDXL's config means it too
        cross_attention_dim=CROSS_ATTENTION_DIM,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_ID_DIM,
        projection_class_embeddings_input_dim=POOLED_DIM + 6 * TIME_ID_DIM,
    )


def _scheduler() -> DDIMScheduler:
    """SDXL's noise schedule, made to begin at pure noise (arXiv 2305.08891) so that few
    steps suffice.
    """
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
    )
