"""Pictures of ViT-bigG-14 tokens by SDXL-unCLIP's networks: the loop, and what it draws."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.memory_estimate import peak, size_of
from brainhive_cli.models.conditioning import Conditioning, Media
from brainhive_cli.models.generators import (
    Objective,
    Sampling,
    _autoencoder,
    _components,
    _objective,
    _sampling,
)
from brainhive_cli.models.generators._denoising import Placement, denoise, steps_left
from brainhive_cli.models.generators._motion import mask_weights
from brainhive_cli.models.generators._objective import Random
from brainhive_cli.models.heads import latent_space

TOKENS = 256
"""Of a picture, by ViT-bigG-14."""


class Knobs(NamedTuple):
    """What `sdxl_unclip.Config` says of sampling.

    Attributes:
        is_noise: Whether guidance moves away from random tokens, else from zeros.
        offset_noise: Spread of a shift of each picture's noise.
        pixel_scale: Of decoded pixels in −1..1.
        pixel_shift: Of the scaled pixels.
        size_px: Size of picture that the U-Net is given.
        mask_floor: Weight of tokens outside of masks.
    """

    is_noise: bool
    offset_noise: float
    pixel_scale: float
    pixel_shift: float
    size_px: int
    mask_floor: float


class UnCLIP:
    """U-Net, VAE and scheduler, and the loop that samples pictures of tokens.

    Args:
        knobs: Noise, pixels, and what stands for no condition.
        components: unet, vae and scheduler.
        device: Where all run.
    """

    def __init__(self, knobs: Knobs, components: dict[str, Any], device: torch.device) -> None:
        from diffusers import DDPMScheduler

        self.knobs = knobs
        self.vae, self._unet = self.networks = components["vae"], components["unet"]
        if self.vae.dtype == torch.float16 and self.vae.config.force_upcast:  # as SDXL's own overflows
            _components.cast(self.vae, torch.float32)
        self._placement = Placement(self.networks, device)
        self._scheduler = components["scheduler"]
        self._schedule = DDPMScheduler.from_config(self._scheduler.config)
        _objective.check(self._schedule)

    @property
    def device(self) -> torch.device:
        """Where the networks compute."""
        return self._placement.device

    @cached_property
    def latent_space(self) -> str:
        """Name of the autoencoder's latent space, the same in any precision."""
        return latent_space(self.vae)

    def latent_shape(self, size_px: int) -> tuple[int, int, int]:
        """Return the shape [C, h, w] of the latent of a picture; raises as `check_size` does."""
        return _autoencoder.latent_shape(self.vae, size_px)

    def check_size(self, size_px: int) -> None:
        """Refuse a size of pictures that the VAE does not have."""
        _autoencoder.check_size(self.vae, size_px)

    def spare_memory(self, offload_to: torch.device | None = None, tile: bool = False) -> None:
        """Take less memory and more time: networks on a device only while they compute, tiles in decoding."""
        if tile:
            self.vae.enable_slicing()
            self.vae.enable_tiling()
        if offload_to is not None:
            self._placement.offload(offload_to)

    def encode(self, media: Media, random: Random | None = None) -> Tensor:
        """Encode pictures [B, 3, H, W] in 0..1 as latents [B, C, h, w]; `random` samples the posterior."""
        self._placement.use(self.vae)
        return _autoencoder.encode(self.vae, media, self.device, random)

    def decode(self, latents: Tensor) -> Media:
        """Decode latents [B, C, h, w] to pictures [B, 3, H, W] in 0..1, as they were encoded."""
        self._placement.use(self.vae)
        return _autoencoder.decode(self.vae, latents, self.device)

    def generate(
        self,
        conditioning: Conditioning,
        seeds: Sequence[int],
        size_px: int,
        sampling: Sampling,
        null: Conditioning | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> Media:
        """Generate pictures [B, 3, H, W], as `Generator.generate` says, in MindEye2's range of pixels."""
        self.check_size(size_px)
        latents = self.sample(conditioning, seeds, size_px, sampling, null, on_step)
        self._placement.use(self.vae)
        scale, shift = self.knobs.pixel_scale, self.knobs.pixel_shift
        pixels = _autoencoder.decoded(self.vae, latents, self.device)  # [B, 3, H, W] in −1..1
        return (pixels * scale + shift).clamp(0, 1)

    @torch.no_grad()
    def sample(
        self,
        conditioning: Conditioning,
        seeds: Sequence[int],
        size_px: int,
        sampling: Sampling,
        null: Conditioning | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Sample the latents [B, C, h, w] that `generate` decodes.

        Each row draws a latent, noise, its shift, and unconditional tokens from its own seed.
        """
        self._refuse(conditioning, len(seeds), sampling)
        random = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = (1, *self.latent_shape(size_px))
        drawn = [
            [torch.randn(each, generator=one) for each in (shape, shape, (1, 1, 1, 1))] for one in random
        ]
        latents, noise, shift = (torch.cat(each).to(self.device) for each in zip(*drawn, strict=True))
        tokens = self._tokens(conditioning, len(seeds))
        if sampling.guidance > 1:
            tokens = torch.cat([self._unconditional(tokens, null, random), tokens])
        has_start = sampling.strength < 1 and conditioning.start is not None
        if conditioning.start is not None and has_start:
            latents = _sampling.latents_of(conditioning.start, size_px, self)
        noise = noise + self.knobs.offset_noise * shift
        return self.sample_from(latents, noise, tokens, sampling, has_start, random, on_step)

    @torch.no_grad()
    def sample_from(
        self,
        latents: Tensor,
        noise: Tensor,
        tokens: Tensor,
        sampling: Sampling,
        has_start: bool = False,
        random: Sequence[torch.Generator] = (),
        on_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Sample latents [B, C, h, w] from noise that lies on latents.

        Args:
            latents: Of a start, or at random, [B, C, h, w].
            noise: [B, C, h, w].
            tokens: [B, S, D]; with guidance [2 B, S, D], unconditional ones first.
            sampling: Steps and guidance, and strength if there is a start.
            has_start: Whether latents are a start.
            random: Of each row, for schedulers that add noise.
            on_step: Called with the number of each step done.

        Source: MindEye2's unclip_recon (MIT).
        """
        scheduler = self._prepared(sampling)
        times = steps_left(scheduler, sampling) if has_start else scheduler.timesteps
        if not len(times):
            return latents
        latents = scheduler.add_noise(latents, noise, times[:1].expand(len(latents)))
        self._placement.use(self._unet)

        def predict(latents: Tensor, time: Tensor) -> Tensor:
            return self._predict(latents, time, tokens)

        return denoise(scheduler, latents, times, predict, sampling.guidance, random, on_step)

    def loss(
        self,
        latents: Tensor,
        conditioning: Conditioning,
        random: Random,
        sizes: Tensor,
        objective: Objective = Objective(),  # noqa: B008 (frozen)
    ) -> Tensor:
        """Mean squared error of the predicted noise, as `Generator.loss` says; sizes have no effect."""
        count = self._schedule.config.num_train_timesteps
        noise, times = _objective.draw(random, latents.shape, count, objective.noise_offset, self.device)
        tokens = self._tokens(conditioning, len(latents))
        predicted = self._predict(self._schedule.add_noise(latents, noise, times), times, tokens)
        return _objective.error(self._schedule, predicted, latents, noise, times, objective.min_snr_gamma)

    def memory_estimate(
        self, batch: int, size_px: int, guidance: float = 0.0, tile: bool = False, offload: bool = False
    ) -> int:
        """Estimate the bytes that sampling takes on a GPU, weights included; for a generator of `skeleton`.

        Args:
            batch: Pictures at once.
            size_px: Height and width.
            guidance: Above 1 the U-Net takes two rows for each picture.
            tile: Whether the VAE decodes one picture at a time.
            offload: Whether U-Net and VAE are on the GPU one at a time.
        """
        held = (max if offload else sum)(map(size_of, self.networks))
        rows, at_once = batch * (2 if guidance > 1 else 1), 1 if tile else min(batch, _autoencoder.AT_ONCE)
        latents = torch.empty(rows, *self.latent_shape(size_px), device="meta", dtype=self._unet.dtype)
        first, times = latents[:at_once].to(self.vae.dtype), torch.empty(rows, device="meta")
        tokens = self._tokens(Conditioning(), rows)
        with torch.no_grad():
            decoding = peak(lambda: self.vae.decode(first), self.vae)
            denoising = peak(lambda: self._predict(latents, times, tokens), self._unet)
            return held + max(denoising + latents.nbytes + tokens.nbytes, decoding)

    def _prepared(self, sampling: Sampling) -> Any:
        """Give the scheduler with its steps; its own are MindEye2's, which end before the last."""
        scheduler = _sampling.scheduler_of(self._scheduler, sampling)
        if sampling.scheduler is not None:
            scheduler.set_timesteps(sampling.steps, device=self.device)
            return scheduler
        last = scheduler.config.num_train_timesteps - 1
        times = np.linspace(last, 0, sampling.steps, endpoint=False).astype(int).tolist()
        scheduler.set_timesteps(timesteps=times, device=self.device)
        return scheduler

    def _predict(self, latents: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
        rows, side = len(latents), float(self.knobs.size_px)
        ids = torch.tensor([[side, side, 0.0, 0.0]], device=self.device, dtype=tokens.dtype).expand(rows, -1)
        added = {"text_embeds": tokens.new_empty(rows, 0), "time_ids": ids}
        found: Tensor = self._unet(
            latents.to(self._unet.dtype),
            times.to(self.device),
            tokens,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return found

    def _tokens(self, conditioning: Conditioning, rows: int) -> Tensor:
        """Give tokens [B, S, D], weighed by the masks; zeros where there are none."""
        tokens, width = conditioning.embeddings, self._unet.config.cross_attention_dim
        if tokens is None:
            return torch.zeros(rows, TOKENS, width, device=self.device, dtype=self._unet.dtype)
        if tokens.ndim != 3 or tokens.shape[-1] != width:
            raise BrainhiveError(
                f"the generator takes tokens [B, S, {width}], not {list(tokens.shape)}",
                "use a head that predicts the encoder clip-bigg-tokens",
            )
        if conditioning.masks is not None:
            side = round(tokens.shape[1] ** 0.5)
            if side * side != tokens.shape[1]:
                raise BrainhiveError(
                    f"masks weigh tokens by their place, and {tokens.shape[1]} tokens are no square",
                    "use tokens without a class token, or a prior without masks",
                )
            held = mask_weights(conditioning.masks, side, self.knobs.mask_floor).mean(1)  # [B, 1, side, side]
            tokens = tokens * held.flatten(1)[..., None].to(tokens)
        return tokens.to(self.device, self._unet.dtype)

    def _unconditional(
        self, tokens: Tensor, null: Conditioning | None, random: Sequence[torch.Generator]
    ) -> Tensor:
        if null is not None and null.embeddings is not None:
            return self._tokens(Conditioning(null.embeddings), len(tokens)).expand_as(tokens)
        if not self.knobs.is_noise:
            return torch.zeros_like(tokens)
        return torch.cat([torch.randn(1, *tokens.shape[1:], generator=each) for each in random]).to(tokens)

    def _refuse(self, conditioning: Conditioning, rows: int, sampling: Sampling) -> None:
        for name in ("texts", "images"):
            if getattr(conditioning, name) is not None:
                raise BrainhiveError(f"sdxl-unclip takes no condition {name}", "use another prior")
        if sampling.prompt or sampling.negative_prompt:
            raise RecipeError("sdxl-unclip has no text encoder for prompts", "leave prompts out")
        if conditioning.masks is not None and conditioning.embeddings is None:
            raise BrainhiveError("masks have no effect without embeddings", "use a prior that gives both")
        _sampling.check_rows(conditioning, rows)
