"""Trains the decoder of the demo's VAE further, its encoder frozen: latents stay as
they are.

So it may run beside or after the stages that train on latents. A little noise on the
latents makes the decoder bear what a generator gets slightly wrong. The shipped decoder
had 2,000 steps before this run.
"""

import torch
from diffusers import AutoencoderKL

from tools.demo_world import vae
from tools.demo_world.pool import random_pool

POOL, STEPS, BATCH, LEARNING_RATE = 16_000, 1_200, 16, 1.5e-3
NOISE = 0.05  # in units of the latents' spread


def main() -> None:
    """Go on from the saved VAE."""
    torch.manual_seed(5)
    pictures = random_pool(POOL, seed=5).pictures
    codec = AutoencoderKL.from_pretrained(vae.FOLDER, torch_dtype=torch.float32)
    noise = NOISE / codec.config.scaling_factor
    parameters = [*codec.decoder.parameters(), *codec.post_quant_conv.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=STEPS, pct_start=0.1
    )
    for step in range(STEPS):
        # [B, 3, H, W]
        batch = vae.to_range(pictures[torch.randint(len(pictures), (BATCH,))])
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents = codec.encode(batch).latent_dist.mode()
            restored = codec.decode(
                latents + noise * torch.randn_like(latents)
            ).sample.float()
        loss = vae.difference(restored, batch)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"decoder {step}/{STEPS} loss {loss:.4f}", flush=True)
    codec.half().save_pretrained(vae.FOLDER)
