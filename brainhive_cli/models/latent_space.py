"""Which latent space an autoencoder has, whatever the precision of its weights."""

import hashlib
from typing import Any

import numpy as np

PREFIX = "latents:"
"""Before the name of a latent space, so that it is not compared with a digest of files."""
SIGNS = 2048
"""Signs that are read of a tensor: rounding to half precision moves few weights to zero, among all some."""


def latent_space(autoencoder: Any) -> str:
    """Name the space of a diffusers autoencoder's latents, by its scale and signs of its encoder's weights.

    Rounding keeps signs, so weights in half precision have the same name; so has a fine-tuned decoder.
    """
    config, state = autoencoder.config, autoencoder.state_dict()
    digest = hashlib.sha256(f"{config.scaling_factor} {config.get('shift_factor') or 0.0}".encode())
    kernels = [name for name, weight in state.items() if name.startswith("encoder.") and weight.ndim == 4]
    for name in (kernels[0], kernels[-1]):
        is_positive = (state[name].flatten()[:SIGNS] > 0).cpu().numpy()
        digest.update(np.packbits(is_positive).tobytes())
    return PREFIX + digest.hexdigest()[:16]
