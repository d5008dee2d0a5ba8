"""How much memory reconstructing takes on a GPU."""

from typing import Any

from brainhive_cli.core.memory_estimate import size_of
from brainhive_cli.reconstruction.sampler import DTYPES, Sampling


def estimate(generator: Any, how: Sampling, prior: Any) -> int:
    """Estimate the bytes that reconstructing takes: weights and the tensors that live at once, no workspaces.

    Args:
        generator: A generator's Config.
        how: How pictures are generated.
        prior: The prior.
    """
    made = generator.skeleton(DTYPES[how.precision])
    memory = (how.batch_size, how.resolution_px, how.guidance, how.vae_tiling, how.offload)
    return int(made.memory_estimate(*memory)) + size_of(prior)
