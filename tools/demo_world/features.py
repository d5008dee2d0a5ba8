"""What the demo's frozen encoders make of pictures: the inputs of its Fusion Prior."""

from functools import cache

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from tools.demo_world import encoder, vae
from tools.demo_world.pool import Pool, random_pool

DIMS = {"demo-clip": 128, "demo-vae": 1024}
"""Width of each embedding, by its key in the prior."""
_POOL, _BATCH = 24_000, 100


@cache
def embedded_pool() -> tuple[Pool, dict[str, Tensor]]:
    """Draw and embed the pictures that prior and generator are trained on, once for
    both.
    """
    pool = random_pool(_POOL, seed=3)
    return pool, embed(pool.pictures)


@torch.no_grad()
def embed(pictures: Tensor) -> dict[str, Tensor]:
    """Embed uint8 pictures [N, 3, H, W] with the saved weights.

    Returns:
        Key > [N, D]; `demo-vae` is the scaled latent, channel after channel.
    """
    meaning = CLIPVisionModelWithProjection.from_pretrained(
        encoder.FOLDER, dtype=torch.float32
    ).eval()
    codec = AutoencoderKL.from_pretrained(vae.FOLDER, torch_dtype=torch.float32).eval()
    embeddings, latents = [], []
    for batch in pictures.split(_BATCH):
        embeddings.append(meaning(encoder.standardise(batch)).image_embeds)
        latents.append(codec.encode(vae.to_range(batch)).latent_dist.mode().flatten(1))
    return {
        "demo-clip": torch.cat(embeddings),
        "demo-vae": torch.cat(latents) * codec.config.scaling_factor,
    }
