"""The demo's SDXL-type U-Net as a plain one, with its prior's attention: where dual guidance begins.

SDXL's size ids and its empty pooled prompt never change: they become a bias of the time embedding. The
prior's image attention takes the place of the text attention, which sees nothing but zeros.
"""

from typing import Any

import torch
from diffusers import UNet2DConditionModel

from brainhive_cli.demo.dual_guided import SHARED, dual_names, unet_config
from brainhive_cli.priors.fusion_prior import FusionPrior

SIZE_IDS = (64.0, 64.0, 0.0, 0.0, 64.0, 64.0)  # of every picture of the SDXL-type generator


def load() -> Any:
    """Load it, frozen: latents [B, 4, h, w], timesteps [B] and image tokens [B, S, D] to velocities."""
    unet: Any = UNet2DConditionModel.from_pretrained(SHARED / "unet", torch_dtype=torch.float32)
    adapter = FusionPrior.load("demo:prior").float().attn_adapter
    with torch.no_grad():
        ids = unet.add_time_proj(torch.tensor(SIZE_IDS)).reshape(1, -1)
        pooled = torch.zeros(1, unet.add_embedding.linear_1.in_features - ids.shape[1])
        unet.time_embedding.linear_2.bias += unet.add_embedding(torch.cat([pooled, ids], 1))[0]
        for place, pair in adapter.attn_processors.items():
            attention = unet.get_submodule(adapter.names[int(place)].removesuffix(".processor"))
            attention.to_k.weight.copy_(pair.to_k_ip.weight)
            attention.to_v.weight.copy_(pair.to_v_ip.weight)
    plain: Any = UNet2DConditionModel.from_config(unet_config())
    plain.load_state_dict({name: each for name, each in unet.state_dict().items() if [*dual_names(name)]})
    return plain.requires_grad_(False)
