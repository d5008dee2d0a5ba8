"""The demo's SDXL-type U-Net as a plain one, with its prior's attention: where dual
guidance begins.
"""

from typing import Any

from diffusers import UNet2DConditionModel

from brainhive_cli.demo.joined_generators import plain_state, unet_config


def load() -> Any:
    """Load it, frozen: latents [B, 4, h, w], timesteps [B] and image tokens [B, S, D]
    to velocities.
    """
    plain: Any = UNet2DConditionModel.from_config(unet_config())
    plain.load_state_dict(plain_state())
    return plain.requires_grad_(False)
