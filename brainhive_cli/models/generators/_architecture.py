"""The published SDXL architecture, for generators with random weights (benchmarks, tests)."""

from typing import Any

Architecture = dict[str, dict[str, Any]]
"""Arguments of diffusers' classes, by component: unet, vae, scheduler."""

SDXL: Architecture = {
    "unet": {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "use_linear_projection": True,
    },
    "vae": {
        "sample_size": 512,
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "scaling_factor": 0.13025,
    },
    "scheduler": {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "timestep_spacing": "trailing",
    },
}
"""config.json of stabilityai/stable-diffusion-xl-base-1.0, sizes and steps of sdxl-turbo."""

TINY: Architecture = {
    "unet": {
        **SDXL["unet"],
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": 1,
        "layers_per_block": 1,
        "attention_head_dim": (1, 2),
        "norm_num_groups": 8,
        "cross_attention_dim": 16,
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 32,
    },
    "vae": {
        **SDXL["vae"],
        "sample_size": 32,
        "block_out_channels": (8, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
    "scheduler": SDXL["scheduler"],
}
"""The same kind of generator at a width for tests; its VAE shrinks pictures 4 times."""
