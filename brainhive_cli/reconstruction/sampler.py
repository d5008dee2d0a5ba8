"""From decoded heads to media: a prior attached to a generator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from brainhive_cli.core.decoded import Decoded
from brainhive_cli.core.heads import Heads, refuse_other_target
from brainhive_cli.core.latent_space import PREFIX
from brainhive_cli.core.media import Media
from brainhive_cli.generators import Sampling
from brainhive_cli.priors import Prior
from brainhive_cli.reconstruction.recipe import Output

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, eq=False)
class Sampler:
    """Prior and generator; the generator is loaded for the first batch.

    Attributes:
        build: Loads the generator onto a device, in a dtype.
        prior: On `device`.
        output: Size, precision and memory.
        sampling: Steps, guidance, prompts.
        device: Where media are generated.
        heads: Those of the brain model, so that latents of another autoencoder are refused.
    """

    build: Callable[[torch.device, torch.dtype], Any]
    prior: Prior
    output: Output
    sampling: Sampling
    device: torch.device
    heads: Heads = field(default_factory=dict)

    @cached_property
    def generator(self) -> Any:
        """The generator, with the prior attached."""
        output, on_cpu = self.output, self.device.type == "cpu"
        is_offloaded = output.offload and not on_cpu
        generator = self.build(
            torch.device("cpu") if is_offloaded else self.device,
            torch.float32 if on_cpu and output.precision == "fp16" else DTYPES[output.precision],
        )
        generator.spare_memory(self.device if is_offloaded else None, output.tiling)
        self.prior.attach(generator)
        return generator

    @torch.inference_mode()
    def sample(
        self,
        decoded: Decoded | None,
        seeds: Sequence[int],
        start: Tensor | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> Media:
        """Generate one picture or clip for each row of decoded heads and its seed.

        Args:
            decoded: Heads of B rows; None for the prior's unconditional ones.
            seeds: [B], of the noise.
            start: Pictures to start from, [B, 3, H, W] in 0..1.
            on_step: Called with the number of each step done.

        Raises:
            BrainhiveError: if sampling would start from decoded latents of another autoencoder.
        """
        prior, count = self.prior, len(seeds)
        conditioning = prior.null(count, seeds) if decoded is None else prior.condition(decoded, seeds)
        null = prior.null(count, seeds) if self.sampling.guidance > 1 else None
        if start is not None:
            conditioning = replace(conditioning, start=start)
        elif conditioning.start is not None:
            for name, head in self.heads.items():
                if head.digest.startswith(PREFIX):
                    refuse_other_target(name, head, self.generator.latent_space, "the generator")
        media: Media = self.generator.generate(
            conditioning, seeds, self.output.resolution_px, self.sampling, null=null, on_step=on_step
        )
        return media
