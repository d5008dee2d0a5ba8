"""SDXL-unCLIP, MindEye2's generator of pictures from ViT-bigG-14 tokens.

Source: MindEye2 (arXiv 2403.11207, MIT). diffusers runs its weights as sgm does.
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

from brainhive_cli.core.base import BrainhiveError, RecipeError
from brainhive_cli.core.files import Input, documents, hub
from brainhive_cli.core.runs import weights
from brainhive_cli.models import (
    Conditioning,
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
    compute_mask_weights,
)

ARCHITECTURE = ARCHITECTURES["sdxl-unclip"]
CHECKPOINT_HINT = "give unclip6_epoch0_step110000.ckpt, or set generator.architecture"
NETWORK_CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}


class Config(_latent_diffusion.Config):
    """MindEye2's checkpoint, or a folder to which it was converted.

    Conditions: `embeddings` [B, S, D] (encoder clip-bigg-tokens), `start` (pictures or
    latents), and `masks` [B, F, 1, H, W], whose mean over frames weighs the tokens by
    position. Embeddings [B, F, S, D] without other conditions give the frames of clips.
    MindEye2 samples 768 px in 38 steps at guidance 5.
    """

    cites = ("scotti2024", "podell2024")
    called = "SDXL-unCLIP"
    published_architecture = ARCHITECTURE
    family = "SDXL"
    addition_embed_type = "text_time"
    alternative = sdxl.Config.alternative

    source: str = Field(
        "hub:datasets/pscotti/mindeyev2/unclip6_epoch0_step110000.ckpt",
        description=(
            "Checkpoint as hub:[datasets/]OWNER/NAME/FILE or a path, a converted "
            "folder, or `random`."
        ),
    )
    offset_noise: float = Field(
        0.04,
        ge=0,
        description="Standard deviation of a shift that is added to the noise of each "
        "picture. MindEye2: 0.04.",
    )
    pixel_scale: PositiveFloat = Field(
        0.8,
        description=(
            "Factor a of a decoded pixel x in −1..1, which becomes a · x + b. "
            "MindEye2: 0.8, without its correction: 0.5."
        ),
    )
    pixel_shift: float = Field(
        0.2, description="Summand b. MindEye2: 0.2, without its correction: 0.5."
    )

    def inputs(self) -> list[Input]:
        """List the checkpoint, or the weights of a folder, with their states.

        A converted checkpoint is not needed any more.
        """
        if not is_weight_file(self.source):
            return super().inputs()
        checkpoint = find_file_input(self.source)
        # a hub reference identifies the conversion without the file
        is_identified = self.source.startswith("hub:") or checkpoint.error is None
        if is_identified and _components.is_converted(_name_conversion(self.source)):
            return [Input(checkpoint.name)]
        return [checkpoint]

    def check_unet(self, config: dict[str, Any], source: Path | str) -> None:
        """Raise an error if the U-Net takes pooled text, as SDXL's does."""
        super().check_unet(config, source)
        # four numbers of size and crop, where SDXL has six and pooled text
        n_inputs = config.get("projection_class_embeddings_input_dim")
        n_size_inputs = 4 * config.get("addition_time_embed_dim", 0)
        if n_inputs != n_size_inputs:
            raise BrainhiveError(
                f"the U-Net of {source} is not unCLIP's: it takes {n_inputs} numbers "
                f"next to tokens, not {n_size_inputs}",
                "use generator.kind=sdxl",
            )

    def read_configs(self) -> Architecture:
        """Read the architecture of a folder.

        A checkpoint has the published architecture, or the architecture of the recipe.
        """
        if is_weight_file(self.source):
            return ARCHITECTURE | (self.architecture or {})
        return super().read_configs()

    def load_components(
        self, dtype: torch.dtype, folder: Path | None = None
    ) -> dict[str, Any]:
        """Load the components, after converting a checkpoint."""
        if not is_weight_file(self.source):
            return super().load_components(dtype, folder)
        convert = partial(convert_checkpoint, self.source, self.read_configs(), dtype)
        folder = _components.convert_once(
            _name_conversion(self.source), dtype, "SDXL-unCLIP", convert
        )
        return super().load_components(dtype, folder)

    def assemble(self, components: dict[str, Any], device: torch.device) -> "UnCLIP":
        """Make the generator from its components."""
        return UnCLIP(self, components, device)


TINY = Config(source=RANDOM, architecture=ARCHITECTURES["sdxl-unclip TINY"])
"""Config for tests, for pictures from 16 px."""


class UnCLIP(LatentDiffusion):
    """Generator of pictures from tokens, with random latents or a start."""

    refused_conditions = ("texts", "images")
    overflows_in_float16 = True

    def check_conditioning(
        self, conditioning: Conditioning, rows: int, sampling: Sampling | None = None
    ) -> None:
        """Raise an error for prompts, and for conditions of other generators."""
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
        """Sample latents [B, C, h, w], or [B, F, C, h, w] from tokens [B, F, S, D].

        Each row draws a latent, noise, its shift and unconditional tokens from its own
        seed. The frames of a clip have the same noise and differ only in their tokens.
        """
        # sample the frames of a clip as pictures with the clip's seed
        conditioning = request.conditioning
        if conditioning.embeddings is not None and conditioning.embeddings.ndim == 4:
            n_frames = conditioning.embeddings.shape[1]
            frame_tokens = conditioning.embeddings.flatten(0, 1)
            frame_seeds: list[int] = []
            for seed in request.seeds:
                frame_seeds += [seed] * n_frames
            frame_request = request._replace(
                conditioning=replace(conditioning, embeddings=frame_tokens),
                seeds=frame_seeds,
            )
            return self.sample(frame_request).unflatten(0, (-1, n_frames))

        sampling = request.sampling
        rows = len(request.seeds)
        self.check_conditioning(conditioning, rows, sampling)

        # draw with the seed of each row
        rngs = [torch.Generator().manual_seed(seed) for seed in request.seeds]
        shape = (1, *self.latent_shape(request.size_px))
        row_latents = []
        row_noises = []
        row_shifts = []
        for rng in rngs:
            row_latents.append(torch.randn(shape, generator=rng))
            row_noises.append(torch.randn(shape, generator=rng))
            row_shifts.append(torch.randn(1, 1, 1, 1, generator=rng))
        latents = torch.cat(row_latents).to(self.device)
        noise = torch.cat(row_noises).to(self.device)
        shift = torch.cat(row_shifts).to(self.device)

        # condition on tokens, with guidance on the unconditional rows first
        tokens = self._weigh_tokens(conditioning, rows)  # [B, S, D]
        if sampling.guidance > 1:
            null_embeddings = request.null.embeddings
            if null_embeddings is not None:
                null = Conditioning(null_embeddings)
                null_tokens = self._weigh_tokens(null, rows).expand_as(tokens)
            else:
                # random tokens, as MindEye2
                token_shape = (1, *tokens.shape[1:])
                row_tokens = [torch.randn(token_shape, generator=rng) for rng in rngs]
                null_tokens = torch.cat(row_tokens).to(tokens)
            tokens = torch.cat([null_tokens, tokens])

        # a start replaces the random latents, which need all steps
        if sampling.strength < 1 and conditioning.start is not None:
            latents = self.encode_start(conditioning.start, request.size_px)
        else:
            sampling = sampling.model_copy(update={"strength": 1.0})
        noise = noise + self.config.offset_noise * shift
        return self.sample_from_noise(
            latents, noise, tokens, sampling, rngs, request.on_step
        )

    @torch.no_grad()
    def sample_from_noise(
        self,
        latents: Tensor,
        noise: Tensor,
        tokens: Tensor,
        sampling: Sampling,
        rngs: Sequence[torch.Generator] = (),
        on_step: OnStep = None,
    ) -> Tensor:
        """Sample latents [B, C, h, w] from latents under noise.

        Args:
            latents: Latents [B, C, h, w] of a start, or random latents.
            noise: Noise [B, C, h, w] that is added to them.
            tokens: Tokens [B, S, D], or with guidance [2 B, S, D], the unconditional
                rows first.
            sampling: Steps, guidance and strength.
            rngs: Random generator of each row, for schedulers that add noise.
            on_step: Function that is called with the number of each finished step.

        Source: MindEye2's unclip_recon (MIT).
        """
        # only the U-Net computes until the latents are decoded
        self.placement.use(self.unet)
        predict = partial(self._predict_pictures, tokens=tokens)

        # MindEye2's timesteps, without the last
        first = self._scheduler.config.num_train_timesteps - 1
        timesteps = np.linspace(first, 0, sampling.steps, endpoint=False)
        return _denoising.denoise(
            self._scheduler,
            sampling,
            noise,
            latents,
            predict,
            rngs,
            on_step,
            timesteps.astype(int).tolist(),
        )

    def decode_media(self, latents: Tensor) -> GeneratedMedia:
        """Decode sampled latents, with MindEye2's scale and shift of pixels."""
        return self.decode(latents, self.config.pixel_scale, self.config.pixel_shift)

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise of latents [B, C, h, w]. `sizes` have no effect."""
        tokens = self._weigh_tokens(conditioning, len(latents))
        return self._predict_pictures(latents, timesteps, tokens)

    def _predict_pictures(
        self, latents: Tensor, timesteps: Tensor, tokens: Tensor
    ) -> Tensor:
        """Predict the noise of latents [B, C, h, w] from tokens [B, S, D]."""
        # numbers of size and crop [B, 4], without pooled text
        rows = len(latents)
        # Size of the picture, as a condition of the U-Net. The value is MindEye2's.
        size_px = 768.0
        sizes = [[size_px, size_px, 0.0, 0.0]]
        time_ids = torch.tensor(sizes, device=self.device, dtype=tokens.dtype)
        added_cond_kwargs = {
            "text_embeds": tokens.new_empty(rows, 0),
            "time_ids": time_ids.expand(rows, -1),
        }
        return self.run_unet(
            latents, timesteps, tokens, added_cond_kwargs=added_cond_kwargs
        )

    def _weigh_tokens(self, conditioning: Conditioning, rows: int) -> Tensor:
        """Weigh image tokens [B, S, D] by masks of the key object.

        Each token stands for an area of the picture. Areas outside of the mask count
        half. Without masks, tokens stay as they are. Without tokens, they are zeros.
        """
        tokens = conditioning.embeddings
        width = self.unet.config.cross_attention_dim
        if tokens is None:
            # Number of tokens of a picture in ViT-bigG-14.
            shape = (rows, 256, width)
            return torch.zeros(shape, device=self.device, dtype=self.unet.dtype)
        unet_tokens = self.prepare_tokens(
            "tokens",
            tokens,
            width,
            rows,
            "use a head that predicts the encoder clip-bigg-tokens",
        )
        if conditioning.masks is None:
            return unet_tokens

        # the weight of a token is the mean weight of its area
        side = isqrt(tokens.shape[1])
        if side * side != tokens.shape[1]:
            raise BrainhiveError(
                f"masks weigh tokens by their position, and {tokens.shape[1]} "
                "tokens are no square",
                "use tokens without a class token, or a prior without masks",
            )
        mask_weights = compute_mask_weights(conditioning.masks, side)
        token_weights = mask_weights.mean(1).flatten(1)[..., None]  # [B, S, 1]
        return (tokens * token_weights.to(tokens)).to(unet_tokens)


def _name_conversion(source: str) -> str:
    """Name a conversion by the hub reference, or by the digest of the file."""
    if source.startswith("hub:"):
        return f"sdxl-unclip-{documents.digest_text(source)[:12]}"
    file = find_weight_file(source)
    return f"sdxl-unclip-{hub.digest(file.parent, [file.name])[:12]}"


def convert_checkpoint(
    source: str, architecture: Architecture, dtype: torch.dtype, folder: Path
) -> None:
    """Convert the networks of a checkpoint to an existing folder of diffusers."""
    file = find_weight_file(source)
    state_dict = weights.read(file)
    for name in NETWORK_CLASSES:
        convert_network(
            folder / name, name, architecture[name], state_dict, dtype, file
        )
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler/scheduler_config.json").write_text(
        json.dumps(architecture["scheduler"])
    )


def convert_network(
    folder: Path,
    name: str,
    config: dict[str, Any],
    state_dict: dict[str, Tensor],
    dtype: torch.dtype,
    file: Path,
) -> None:
    """Convert the network `unet` or `vae` of a checkpoint to a folder of diffusers.

    Raises:
        BrainhiveError: if the weights do not fit the config.
    """
    import diffusers
    from diffusers.loaders.single_file_utils import (
        convert_ldm_unet_checkpoint,
        convert_ldm_vae_checkpoint,
    )

    # shapes without values, to check the weights
    class_name = NETWORK_CLASSES[name]
    with (
        weights.reading(f"the architecture of {name}", CHECKPOINT_HINT, BrainhiveError),
        torch.device("meta"),
    ):
        network = getattr(diffusers, class_name).from_config(config)

    # rename the weights as diffusers does
    convert = convert_ldm_vae_checkpoint
    if name == "unet":
        convert = convert_ldm_unet_checkpoint
    with weights.reading(
        file, CHECKPOINT_HINT, BrainhiveError, problem=f"does not fit {class_name}"
    ):
        converted = convert(state_dict, network.config)
    weights.fill(network, converted, file, CHECKPOINT_HINT)

    network.save_config(folder)
    for key, value in converted.items():
        converted[key] = value.to(dtype)
    weights.save(folder / f"{_components.WEIGHTS_STEM}.safetensors", converted)
