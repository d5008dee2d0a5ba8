"""How much GPU memory training a prior takes, estimated by shapes alone."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from brainhive_cli.core.memory_estimate import peak, size_of
from brainhive_cli.generators import Objective
from brainhive_cli.prior_training.recipe import Train

ADAM = {"adamw": 8, "adamw8bit": 2}
"""Bytes of the optimiser's two averages, a weight."""


def training_bytes(
    generator: Any,
    prior: Any,
    parameters: Sequence[nn.Parameter],
    train: Train,
    size_px: int,
    has_latents: bool,
    processes: int = 1,
    steps: int = 1,
) -> int:
    """Estimate what a step takes on each GPU: weights, optimiser and the tensors that live at once.

    Encoders that embed or compare pictures, and workspaces, are not counted.

    Args:
        generator: On the meta device, as the training prepares it; the prior is attached.
        prior: On the meta device.
        parameters: Those that are trained.
        train: Batch size, optimiser, precision.
        size_px: Height and width of the pictures.
        has_latents: Whether latents are known, so that nothing is encoded.
        processes: How many share the work.
        steps: 0 for what is there between steps.
    """
    gradients = size_of(parameters)
    weights = sum(map(size_of, (*generator.networks, prior)))
    optimiser = gradients // 4 * ADAM[train.optimizer] + gradients * bool(train.ema)

    if not steps:
        return weights + optimiser

    def work() -> None:
        for _ in range(min(train.accumulate, 2)):  # the second pass finds the gradients of the first
            _pass(generator, prior, train, size_px, has_latents)

    averaged = 2 * gradients if processes > 1 else 0  # over processes, in one piece
    return weights + optimiser + max(peak(work, *generator.networks, prior), averaged)


def _pass(generator: Any, prior: Any, train: Train, size_px: int, has_latents: bool) -> None:
    count = train.batch_size
    with torch.device("meta"):
        latents = torch.empty(count, *generator.latent_shape(size_px))
        if not has_latents:
            latents = generator.encode(torch.empty(count, 3, size_px, size_px))
        embeddings = {key: torch.empty(count, dim) for key, dim in prior.dims.items()}
        conditioning = prior.condition_on_embeddings(embeddings)
    objective, sizes = Objective(min_snr_gamma=train.min_snr_gamma), torch.empty(count, 6)
    generator.loss(latents, conditioning, torch.Generator(), sizes, objective).backward()
