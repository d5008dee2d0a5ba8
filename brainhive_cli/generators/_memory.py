"""The GPU memory that sampling with an SDXL-type generator takes, by shapes alone."""

from typing import Any

import torch

from brainhive_cli.core.memory_estimate import peak


def sampling_bytes(generator: Any, rows: int, decoded: int, size_px: int) -> int:
    """Estimate the bytes that sampling takes next to the weights, workspaces left out.

    Args:
        generator: On the meta device.
        rows: Rows that the U-Net denoises at once; with guidance two a picture.
        decoded: Pictures that the VAE decodes at once.
        size_px: Height and width.
    """
    unet, vae = generator.unet, generator.vae
    latents = torch.empty(rows, *generator.latent_shape(size_px), device="meta", dtype=unet.dtype)
    sizes = torch.empty(rows, 6, device="meta", dtype=unet.dtype)

    def denoise() -> None:
        text, pooled = generator.empty_prompt(rows)
        unet(latents, sizes[:, 0], text, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes})

    with torch.no_grad():
        decoding = peak(lambda: vae.decode(torch.empty_like(latents[:decoded], dtype=vae.dtype)), vae)
        return max(peak(denoise, unet) + latents.nbytes + sizes.nbytes, decoding)
