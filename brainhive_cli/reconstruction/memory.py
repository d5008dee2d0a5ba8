"""How much memory drawing would take on a GPU."""

from typing import Any

from brainhive_cli.data.memory_estimate import Footprint, drawing, size_of
from brainhive_cli.priors.fusion_prior import FusionPrior
from brainhive_cli.reconstruction.sampler import DTYPES, Sampling


def estimate(generator: Any, how: Sampling, prior: FusionPrior) -> Footprint:
    """Estimate what drawing takes on a GPU: weights and the tensors that live at once, without workspaces.

    Args:
        generator: A generator's Config.
        how: How pictures are drawn.
        prior: The prior.
    """
    made = generator.skeleton(DTYPES[how.precision])
    guided = how.batch_size * (2 if how.guidance > 1 else 1)
    decoded = 1 if how.vae_tiling else how.batch_size
    denoising, decoding = drawing(made, guided, decoded, how.resolution_px)
    networks = size_of(made.unet), size_of(made.vae)
    weights = (max if how.offload else sum)(networks) + size_of(prior)
    return Footprint(how.batch_size, {"weights": weights}, {"denoising": denoising, "decoding": decoding})
