"""Clips by a U-Net with motion modules: from noise or blurry frames, with a keyframe or without."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.memory_estimate import peak, size_of
from brainhive_cli.models.conditioning import Conditioning, Media
from brainhive_cli.models.generators import Objective, Sampling, _autoencoder, _objective, _sampling
from brainhive_cli.models.generators._denoising import Placement, denoise, steps_left
from brainhive_cli.models.generators._motion import in_between, mask_weights
from brainhive_cli.models.generators._objective import Random
from brainhive_cli.models.heads import latent_space


class Keyframe(NamedTuple):
    """What SparseCtrl is given: latents of keyframes at their frames, zeros elsewhere, and where they are."""

    latents: Tensor  # [B, C, F, h, w]
    mask: Tensor  # [B, 1, F, h, w]


class Prompts(Protocol):
    """From conditionings to text tokens [B, S, D]."""

    def given(self, conditioning: Conditioning, prompt: str, rows: int) -> Tensor:
        """Give the tokens of B rows."""
        ...

    def unconditional(self, null: Conditioning, prompt: str, like: Tensor) -> Tensor:
        """Give the other side of guidance, of `like`'s shape."""
        ...


class Timing(NamedTuple):
    """The frames of a clip.

    Attributes:
        frames: How many are sampled.
        kept: Which of them are the result.
        decimals: As `in_between` has it.
        seed: Of every clip's noise, where it is not its own.
        mask_floor: Weight outside of a mask.
    """

    frames: int
    kept: tuple[int, ...]
    decimals: int | None
    seed: int | None
    mask_floor: float


class ClipDiffusion:
    """Networks and scheduler, and the loop that samples a clip.

    Args:
        components: unet (with motion modules), vae, scheduler; sparse_control or None.
        prompts: Makes the U-Net's text tokens.
        timing: The frames.
        device: Where all run.
    """

    def __init__(
        self, components: dict[str, Any], prompts: Prompts, timing: Timing, device: torch.device
    ) -> None:
        from diffusers import DDPMScheduler

        self.prompts, self.timing = prompts, timing
        self.unet, self.vae, self.sparse_control = (
            components[name] for name in ("unet", "vae", "sparse_control")
        )
        found = (self.vae, self.unet, self.sparse_control)
        self.networks = tuple(each for each in found if each is not None)
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
        """Return the shape [C, h, w] of the latent of a frame; raises as `check_size` does."""
        return _autoencoder.latent_shape(self.vae, size_px)

    def check_size(self, size_px: int) -> None:
        """Refuse a size of frames that the VAE does not have."""
        _autoencoder.check_size(self.vae, size_px)

    def spare_memory(self, offload_to: torch.device | None = None, tile: bool = False) -> None:
        """Take less memory and more time: networks on a device only while they compute, tiles in decoding."""
        if tile:
            self.vae.enable_slicing()
            self.vae.enable_tiling()
        if offload_to is not None:
            self._placement.offload(offload_to)

    def encode(self, media: Media, random: Random | None = None) -> Tensor:
        """Encode clips [B, F, 3, H, W] in 0..1 as latents [B, F, C, h, w]; `random` samples the posterior."""
        if random is not None and not isinstance(random, torch.Generator):
            random = [each for each in random for _ in range(media.shape[1])]
        self._placement.use(self.vae)
        found = _autoencoder.encode(self.vae, media.flatten(0, 1), self.device, random)
        return found.unflatten(0, media.shape[:2])

    def decode(self, latents: Tensor) -> Media:
        """Decode latents [B, F, C, h, w] to clips [B, F, 3, H, W] in 0..1."""
        self._placement.use(self.vae)
        found = _autoencoder.decode(self.vae, latents.flatten(0, 1), self.device)
        return found.unflatten(0, latents.shape[:2])

    def generate(
        self,
        conditioning: Conditioning,
        seeds: Sequence[int],
        size_px: int,
        sampling: Sampling,
        null: Conditioning | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> Media:
        """Generate clips [B, F, 3, H, W] of the frames kept, as `Generator.generate` says."""
        self.check_size(size_px)
        latents = self.sample(conditioning, seeds, size_px, sampling, null, on_step)
        return self.decode(latents[:, list(self.timing.kept)])

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
        """Sample the latents [B, F, C, h, w] of all frames.

        Source: diffusers' AnimateDiffSparseControlNetPipeline and AnimateDiffVideoToVideoPipeline (Apache
        2.0), which take one keyframe for all clips of a batch, and a keyframe or a start.
        """
        self._refuse(conditioning, len(seeds))
        text, guided = self.prompts.given(conditioning, sampling.prompt, len(seeds)), sampling.guidance > 1
        if guided:
            other = self.prompts.unconditional(null or Conditioning(), sampling.negative_prompt, text)
            text = torch.cat([other, text])
        keyframe = self._keyframe(conditioning.images, size_px, 2 if guided else 1)
        seeds = seeds if self.timing.seed is None else [self.timing.seed] * len(seeds)
        random = [torch.Generator().manual_seed(seed) for seed in seeds]
        scheduler = _sampling.scheduler_of(self._scheduler, sampling)
        latents, times = self._begin(scheduler, conditioning, size_px, sampling, random)
        self._placement.use(*self.networks[1:])

        def predict(latents: Tensor, time: Tensor) -> Tensor:
            return self._predict(latents, time, text, keyframe)

        latents = denoise(scheduler, latents, times, predict, sampling.guidance, random, on_step)
        return latents.transpose(1, 2)

    def loss(
        self,
        latents: Tensor,
        conditioning: Conditioning,
        random: Random,
        sizes: Tensor,
        objective: Objective = Objective(),  # noqa: B008 (frozen)
    ) -> Tensor:
        """Mean squared error of what the U-Net predicts of clean latents [B, F, C, h, w]; sizes: no effect.

        Conditions are texts and keyframes, as `generate` takes them; with SparseCtrl keyframes are needed.
        """
        count, shape = self._schedule.config.num_train_timesteps, latents.shape
        flat = latents.to(self.device).flatten(1, 2)  # [B, F C, h, w]
        noise, times = _objective.draw(random, flat.shape, count, objective.noise_offset, self.device)
        self._refuse(conditioning, len(latents))
        size_px = shape[-1] * _autoencoder.shrinks_by(self.vae)
        keyframe = self._keyframe(conditioning.images, size_px, 1)
        noisy = self._schedule.add_noise(flat, noise, times).view(shape).transpose(1, 2)
        text = self.prompts.given(conditioning, "", len(latents))
        predicted = self._predict(noisy, times, text, keyframe).transpose(1, 2).flatten(1, 2)
        return _objective.error(self._schedule, predicted, flat, noise, times, objective.min_snr_gamma)

    def memory_estimate(
        self, batch: int, size_px: int, guidance: float = 0.0, tile: bool = False, offload: bool = False
    ) -> int:
        """Estimate the bytes that sampling takes on a GPU, weights included; for a generator of `skeleton`.

        Args:
            batch: Clips at once.
            size_px: Height and width.
            guidance: Above 1 the networks take two rows for each clip.
            tile: Whether the VAE decodes one frame at a time.
            offload: Whether the VAE and the others are on the GPU by turns.
        """
        sizes = list(map(size_of, self.networks))
        weights = max(sizes[0], sum(sizes[1:])) if offload else sum(sizes)
        rows, decoded = batch * (2 if guidance > 1 else 1), 1 if tile else _autoencoder.AT_ONCE
        channels, *sides = self.latent_shape(size_px)
        options = {"device": "meta", "dtype": self.unet.dtype}
        latents = torch.empty(rows, channels, self.timing.frames, *sides, **options)
        keyframe = Keyframe(latents, latents[:, :1]) if self.sparse_control is not None else None
        times, first = torch.empty(rows, device="meta"), torch.empty(decoded, channels, *sides, **options)

        def denoise() -> None:
            self._predict(latents, times, self.prompts.given(Conditioning(), "", rows), keyframe)

        with torch.no_grad():
            decoding = peak(lambda: self.vae.decode(first), self.vae)
            return weights + max(peak(denoise, *self.networks[1:]) + 2 * latents.nbytes, decoding)

    def _predict(self, latents: Tensor, times: Tensor, text: Tensor, keyframe: Keyframe | None) -> Tensor:
        """Predict the noise of latents [B, C, F, h, w], or what else the U-Net predicts."""
        latents, frames = latents.to(self.unet.dtype), latents.shape[2]
        times, text = times.to(self.device), text.repeat_interleave(frames, 0)
        residuals: dict[str, Any] = {}
        if keyframe is not None:
            down, mid = self.sparse_control(
                latents, times, text, keyframe.latents, conditioning_mask=keyframe.mask, return_dict=False
            )
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        found: Tensor = self.unet(latents, times, text, return_dict=False, **residuals)[0]
        return found

    def _begin(
        self,
        scheduler: Any,
        conditioning: Conditioning,
        size_px: int,
        sampling: Sampling,
        random: list[torch.Generator],
    ) -> tuple[Tensor, Tensor]:
        """Make the latents [B, C, F, h, w] that sampling begins with, and the timesteps that are left."""
        frames, (channels, *sides) = self.timing.frames, self.latent_shape(size_px)
        noise = torch.cat([torch.randn(1, channels, frames, *sides, generator=each) for each in random])
        noise = noise.to(self.device)
        scheduler.set_timesteps(sampling.steps, device=self.device)
        start = self._start(conditioning, size_px)
        if start is None:
            return noise * scheduler.init_noise_sigma, scheduler.timesteps
        latents, times = self.encode(start).transpose(1, 2), steps_left(scheduler, sampling)
        if not len(times):
            return latents, times
        return scheduler.add_noise(latents, noise, times[:1].expand(len(latents))), times

    def _start(self, conditioning: Conditioning, size_px: int) -> Tensor | None:
        """Make the frames [B, F, 3, H, W] to start from, of latents or pictures and their masks."""
        start, masks = conditioning.start, conditioning.masks
        if start is None:
            return None
        start = start[:, None] if start.ndim == 4 else start
        if masks is not None or start.shape[2] != 3:
            latents = self.encode(start) if start.shape[2] == 3 else start.to(self.device)
            if masks is not None:
                latents = latents * mask_weights(masks, latents.shape[-1], self.timing.mask_floor).to(latents)
            start = self.decode(latents)
        sized = _sampling.resized(start.flatten(0, 1), size_px).unflatten(0, start.shape[:2])
        return in_between(sized, self.timing.frames, self.timing.decimals)

    def _keyframe(self, images: Tensor | None, size_px: int, times: int) -> Keyframe | None:
        """Encode keyframes [B, 3, H, W] as SparseCtrl takes them at the first frame; rows `times` over."""
        if images is None or self.sparse_control is None:
            return None
        encoded = self.encode(_sampling.resized(images, size_px)[:, None]).transpose(1, 2)  # [B, C, 1, h, w]
        latents = encoded.new_zeros(*encoded.shape[:2], self.timing.frames, *encoded.shape[3:])
        latents[:, :, :1] = encoded
        mask = torch.zeros_like(latents[:, :1])
        mask[:, :, 0] = 1
        dtype = self.sparse_control.dtype
        return Keyframe(*(torch.cat([each.to(dtype)] * times) for each in (latents, mask)))

    def _refuse(self, conditioning: Conditioning, rows: int) -> None:
        """Refuse conditions that are missing, or that have no effect."""
        images, channels = conditioning.images, self.latent_shape(64)[0]
        if images is None and self.sparse_control is not None:
            raise BrainhiveError(
                "SparseCtrl needs a keyframe, and the conditioning has no images",
                "a chain whose first stage makes it (receives: images), or generator.sparse_control=null",
            )
        if images is not None and self.sparse_control is None:
            raise BrainhiveError(
                "keyframes have no effect without SparseCtrl", "generator.sparse_control, or another prior"
            )
        if conditioning.embeddings is not None:
            raise BrainhiveError("animatediff takes no condition embeddings", "use another prior")
        if conditioning.masks is not None and conditioning.start is None:
            raise BrainhiveError("masks have no effect without a start", "use a prior that gives one")
        start = conditioning.start
        if start is not None and start.shape[-3] not in (3, channels):
            raise BrainhiveError(
                f"latents to start from have {start.shape[-3]} channels, the generator's {channels}",
                "use a head that predicts the encoder sd15-vae",
            )
        _sampling.check_rows(conditioning, rows)
