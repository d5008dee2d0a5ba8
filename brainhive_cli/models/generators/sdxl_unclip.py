"""SDXL-unCLIP, MindEye2's decoder of ViT-bigG-14 tokens: pictures, such as the keyframe
of a clip.

Source: MindEye2 (arXiv 2403.11207; MIT); diffusers runs its weights as sgm does.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from brainhive_cli.core import documents, hub, weights
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.models.foreign_weights import (
    find_file_input,
    find_weight_file,
    is_weight_file,
)
from brainhive_cli.models.generators import (
    GeneratedMedia,
    Sampling,
    _components,
    _denoising,
    _latent_diffusion,
    sdxl,
)
from brainhive_cli.models.generators._components import (
    ARCHITECTURES,
    RANDOM,
    Architecture,
)
from brainhive_cli.models.generators._latent_diffusion import (
    LatentDiffusion,
    OnStep,
    Request,
    mask_weights,
)
from brainhive_cli.models.heads import Conditioning

ARCHITECTURE = ARCHITECTURES["sdxl-unclip"]
SIZE_PX = 768.0
"""Size of picture that the U-Net is given; MindEye2's."""
TOKENS = 256
"""Of a picture, by ViT-bigG-14."""
ANOTHER = "give unclip6_epoch0_step110000.ckpt, or set generator.architecture"
NETWORKS = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}


class Config(_latent_diffusion.Config):
    """MindEye2's checkpoint, or what it was converted to.

    Conditions: `embeddings` [B, S, D] (encoder clip-bigg-tokens), `start` (pictures or
    latents), and `masks` [B, F, 1, H, W], whose mean over the frames weighs the tokens
    by their position. Of `embeddings` alone of all frames [B, F, S, D] it draws the
    frames of clips. MindEye2 samples 768 px in 38 steps at guidance 5.
    """

    cites = ("scotti2024", "podell2024")
    published = ARCHITECTURE
    family = "SDXL"
    addition = "text_time"
    usual = sdxl.Config.usual

    source: str = Field(
        "hub:datasets/pscotti/mindeyev2/unclip6_epoch0_step110000.ckpt",
        description=(
            "Checkpoint, hub:[datasets/]OWNER/NAME/FILE or a path; a converted folder; "
            "or `random`."
        ),
    )
    offset_noise: float = Field(
        0.04,
        ge=0,
        description="Spread of a shift of each picture's noise; MindEye2: 0.04.",
    )
    pixel_scale: PositiveFloat = Field(
        0.8,
        description=(
            "A decoded pixel x in −1..1 becomes scale · x + shift; MindEye2: 0.8, "
            "plain: 0.5."
        ),
    )
    pixel_shift: float = Field(0.2, description="The shift; MindEye2: 0.2, plain: 0.5.")

    def inputs(self) -> list[Input]:
        """Look for the checkpoint, which is not needed once it is converted, or for the
        folder's weights.
        """
        if not is_weight_file(self.source):
            return super().inputs()
        need = find_file_input(self.source)
        # a hub reference identifies the conversion without the file
        is_here = self.source.startswith("hub:") or need.error is None
        return [
            Input(need.name)
            if is_here and _components.is_converted(_converted_name(self.source))
            else need
        ]

    def check_unet(self, config: dict[str, Any], where: Path | str) -> None:
        """Refuse a U-Net that takes more than sizes next to its tokens, as SDXL's own
        does.
        """
        super().check_unet(config, where)
        # four size and crop ids; SDXL's own U-Net takes six and pooled text
        takes = config.get("projection_class_embeddings_input_dim")
        if takes != (sizes := 4 * config.get("addition_time_embed_dim", 0)):
            raise BrainhiveError(
                f"the U-Net of {where} is not unCLIP's: it takes {takes} numbers "
                f"next to tokens, not {sizes}",
                "use generator.kind=sdxl",
            )

    def read_configs(self) -> Architecture:
        """Read the architecture of a folder; that of a checkpoint is published, or set
        by the recipe.
        """
        if is_weight_file(self.source):
            return {**ARCHITECTURE, **(self.architecture or {})}
        return super().read_configs()

    def load(self, dtype: torch.dtype, folder: Path | None = None) -> dict[str, Any]:
        """Load the components, converted first where the source is a checkpoint
        file.
        """
        if not is_weight_file(self.source):
            return super().load(dtype, folder)
        convert = partial(convert_checkpoint, self.source, self.read_configs(), dtype)
        folder = _components.convert_once(
            _converted_name(self.source), dtype, "SDXL-unCLIP", convert
        )
        return super().load(dtype, folder)

    def assemble(self, components: dict[str, Any], device: torch.device) -> "UnCLIP":
        """Make the generator of its components."""
        return UnCLIP(self, components, device)


TINY = Config(source=RANDOM, architecture=ARCHITECTURES["sdxl-unclip TINY"])
"""Small enough for tests; pictures from 16 px."""


class UnCLIP(LatentDiffusion):
    """Pictures of tokens, from random latents or a start under MindEye2's noise."""

    refused = ("texts", "images")
    overflows_in_half = True

    def check_conditioning(
        self, conditioning: Conditioning, rows: int, sampling: Sampling | None = None
    ) -> None:
        """Refuse conditions that the generator does not take, and prompts."""
        super().check_conditioning(conditioning, rows)
        if sampling is not None and (sampling.prompt or sampling.negative_prompt):
            raise RecipeError(
                "sdxl-unclip has no text encoder for prompts", "leave prompts out"
            )
        if conditioning.masks is not None and conditioning.embeddings is None:
            raise BrainhiveError(
                "masks have no effect without embeddings", "use a prior that gives both"
            )

    @torch.no_grad()
    def sample(self, request: Request) -> Tensor:
        """Sample the latents [B, C, h, w] of pictures; of tokens of frames [B, F, S, D]
        those of clips.

        Each row draws a latent, noise, its shift, and unconditional tokens from its own
        seed. The frames of a clip begin from the same noise, so that they differ as
        their tokens do.
        """
        # sample frames as if they were pictures, by the seed of their clip
        tokens = request.conditioning.embeddings
        if tokens is not None and tokens.ndim == 4:
            frames = tokens.shape[1]
            flat = replace(request.conditioning, embeddings=tokens.flatten(0, 1))
            seeds = [seed for seed in request.seeds for _ in range(frames)]
            sampled = self.sample(request._replace(conditioning=flat, seeds=seeds))
            return sampled.unflatten(0, (-1, frames))  # [B, F, C, h, w]
        conditioning = request.conditioning
        sampling = request.sampling
        null = request.null
        self.check_conditioning(conditioning, len(request.seeds), sampling)

        # draw by each row's seed: latents and noise [B, C, h, w], and the noise's shift
        # [B, 1, 1, 1]
        random = [torch.Generator().manual_seed(seed) for seed in request.seeds]
        shape = (1, *self.latent_shape(request.size_px))
        shapes = (shape, shape, (1, 1, 1, 1))
        drawn = [
            [torch.randn(size, generator=row) for size in shapes] for row in random
        ]
        latents, noise, shift = (
            torch.cat(rows).to(self.device) for rows in zip(*drawn, strict=True)
        )

        # tokens of the condition; with guidance those to move away from come first
        tokens = self._weigh_tokens(conditioning, len(request.seeds))  # [B, S, D]
        if sampling.guidance > 1:
            if null.embeddings is not None:
                away = self._weigh_tokens(
                    Conditioning(null.embeddings), len(tokens)
                ).expand_as(tokens)
            else:  # MindEye2's
                draws = [
                    torch.randn(1, *tokens.shape[1:], generator=row) for row in random
                ]
                away = torch.cat(draws).to(tokens)
            tokens = torch.cat([away, tokens])

        # begin at a start if there is one
        if sampling.strength < 1 and conditioning.start is not None:
            latents = self.encode_start(conditioning.start, request.size_px)
        else:  # all steps, from random latents
            sampling = sampling.model_copy(update={"strength": 1.0})
        noise = noise + self.config.offset_noise * shift
        return self.sample_from(
            latents, noise, tokens, sampling, random, request.on_step
        )

    @torch.no_grad()
    def sample_from(
        self,
        latents: Tensor,
        noise: Tensor,
        tokens: Tensor,
        sampling: Sampling,
        random: Sequence[torch.Generator] = (),
        on_step: OnStep = None,
    ) -> Tensor:
        """Sample latents [B, C, h, w] from noise that lies on latents, a start or
        random ones.

        Args:
            latents: [B, C, h, w].
            noise: [B, C, h, w].
            tokens: [B, S, D]; with guidance [2 B, S, D], unconditional ones first.
            sampling: Steps, guidance and strength.
            random: Of each row, for schedulers that add noise.
            on_step: Called with the number of each step done.

        Source: MindEye2's unclip_recon (MIT).
        """
        # the U-Net alone works until the latents are decoded
        self.placement.use(self.unet)

        predict = partial(self._predict, tokens=tokens)

        # MindEye2's steps, which end before the last
        first = self._scheduler.config.num_train_timesteps - 1
        steps = (
            np.linspace(first, 0, sampling.steps, endpoint=False).astype(int).tolist()
        )
        return _denoising.denoise(
            self._scheduler, sampling, noise, latents, predict, random, on_step, steps
        )

    def to_media(self, latents: Tensor) -> GeneratedMedia:
        """Decode what was sampled, in MindEye2's range of pixels."""
        return self.decode(latents, self.config.pixel_scale, self.config.pixel_shift)

    def predict(
        self,
        latents: Tensor,
        times: Tensor,
        conditioning: Conditioning,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise of latents [B, C, h, w] at timesteps [B]; sizes have no
        effect.
        """
        return self._predict(
            latents, times, self._weigh_tokens(conditioning, len(latents))
        )

    def _predict(self, latents: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
        # SDXL's size and crop ids [B, 4], and no pooled text
        rows = len(latents)
        side = SIZE_PX
        ids = torch.tensor(
            [[side, side, 0.0, 0.0]], device=self.device, dtype=tokens.dtype
        ).expand(rows, -1)
        added = {"text_embeds": tokens.new_empty(rows, 0), "time_ids": ids}
        return self.run_unet(latents, times, tokens, added_cond_kwargs=added)

    def _weigh_tokens(self, conditioning: Conditioning, rows: int) -> Tensor:
        """Give tokens [B, S, D], weighed by the masks; zeros where there are none."""
        # zeros stand for no condition
        tokens = conditioning.embeddings
        width = self.unet.config.cross_attention_dim
        if tokens is None:
            return torch.zeros(
                rows, TOKENS, width, device=self.device, dtype=self.unet.dtype
            )
        fitting = self.fit_tokens(
            "tokens",
            tokens,
            width,
            rows,
            "use a head that predicts the encoder clip-bigg-tokens",
        )
        if conditioning.masks is None:
            return fitting

        # weigh each token by the share of its square that the mask covers
        side = isqrt(tokens.shape[1])
        if side * side != tokens.shape[1]:
            raise BrainhiveError(
                f"masks weigh tokens by their position, and {tokens.shape[1]} "
                "tokens are no square",
                "use tokens without a class token, or a prior without masks",
            )
        shares = mask_weights(conditioning.masks, side).mean(1)  # [B, 1, side, side]
        return (tokens * shares.flatten(1)[..., None].to(tokens)).to(fitting)


def _converted_name(source: str) -> str:
    """Name what is converted, by the reference at the hub or by the file's digest."""
    if source.startswith("hub:"):
        return f"sdxl-unclip-{documents.digest_text(source)[:12]}"
    file = find_weight_file(source)
    return f"sdxl-unclip-{hub.digest(file.parent, [file.name])[:12]}"


def convert_checkpoint(
    source: str, architecture: Architecture, dtype: torch.dtype, part: Path
) -> None:
    """Convert the networks one by one."""
    file = find_weight_file(source)
    state = weights.read(file)
    for name in NETWORKS:
        convert_network(part / name, name, architecture[name], state, dtype, file)
    (part / "scheduler").mkdir(exist_ok=True)
    (part / "scheduler/scheduler_config.json").write_text(
        json.dumps(architecture["scheduler"])
    )


def convert_network(
    folder: Path,
    name: str,
    config: dict[str, Any],
    state: dict[str, Tensor],
    dtype: torch.dtype,
    file: Path,
) -> None:
    """Convert one network of a checkpoint to a folder of diffusers."""
    import diffusers
    from diffusers.loaders.single_file_utils import (
        convert_ldm_unet_checkpoint,
        convert_ldm_vae_checkpoint,
    )

    # shapes alone, to check the weights against
    with (
        weights.reading(f"the architecture of {name}", ANOTHER, BrainhiveError),
        torch.device("meta"),
    ):
        network = getattr(diffusers, NETWORKS[name]).from_config(config)

    # rename the weights as diffusers does
    convert = (
        convert_ldm_unet_checkpoint if name == "unet" else convert_ldm_vae_checkpoint
    )
    with weights.reading(
        file, ANOTHER, BrainhiveError, problem=f"does not fit {NETWORKS[name]}"
    ):
        converted = convert(state, network.config)
    weights.fill(network, converted, file, ANOTHER)

    # write the folder that `load` reads
    network.save_config(folder)
    cast = {key: value.to(dtype) for key, value in converted.items()}
    weights.save(folder / f"{_components.WEIGHTS}.safetensors", cast)
