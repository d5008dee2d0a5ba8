"""A generator of the kind of Stable Diffusion 1, whatever conditions its U-Net."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.memory_estimate import peak, size_of
from brainhive_cli.models.conditioning import Conditioning, Media
from brainhive_cli.models.generators import Objective, Sampling, _autoencoder, _objective, _sampling
from brainhive_cli.models.generators._objective import Random
from brainhive_cli.models.heads import latent_space

TINY_NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 8,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "block_out_channels": [8, 16],
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    },
    "vae": {
        "block_out_channels": [4, 4, 4],
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
}
"""Of the `TINY` instances: small enough for tests."""


class Inputs(NamedTuple):
    """What the U-Net is conditioned on, for B rows."""

    text: Tensor  # [B, S, D_cross]
    image: Tensor | None = None  # of an IP-Adapter, [B, 1, …]
    attention: dict[str, Any] | None = None  # arguments of its attention blocks


class Conditions(Protocol):
    """From conditionings to the inputs of one kind of U-Net."""

    def given(self, conditioning: Conditioning, prompt: str, rows: int) -> Inputs:
        """Give the inputs of B rows; `prompt` stands where rows bring no text."""
        ...

    def unconditional(self, null: Conditioning, prompt: str, like: Inputs) -> Inputs:
        """Give the other side of guidance, of `like`'s shape: what `null` brings, else the generator's."""
        ...


class StableDiffusion:
    """Networks and scheduler, with diffusers' pipelines around them.

    Args:
        components: unet, vae and scheduler.
        conditions: Makes the U-Net's inputs.
        device: Where all run.
        prepare: Changes the pipeline before its networks are frozen.
    """

    def __init__(
        self,
        components: dict[str, Any],
        conditions: Conditions,
        device: torch.device,
        prepare: Callable[[Any], None] = lambda pipeline: None,
    ) -> None:
        from diffusers import DDPMScheduler, StableDiffusionPipeline

        self.conditions, self.device = conditions, device
        without = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
        with console.hushed():
            pipeline: Any = StableDiffusionPipeline(**components, **without, requires_safety_checker=False)
        pipeline.set_progress_bar_config(disable=True)
        prepare(pipeline)
        self.pipeline = pipeline.to(device, silence_dtype_warnings=True)
        self._unet, self._vae = self.networks = pipeline.unet, pipeline.vae
        for network in self.networks:
            network.eval().requires_grad_(False)
        self._scheduler = pipeline.scheduler
        self._schedule = DDPMScheduler.from_config(self._scheduler.config)
        _objective.check(self._schedule)

    @cached_property
    def latent_space(self) -> str:
        """Name of the autoencoder's latent space, the same in any precision."""
        return latent_space(self._vae)

    def latent_shape(self, size_px: int) -> tuple[int, int, int]:
        """Return the shape [C, h, w] of the latent of a picture; raises as `check_size` does."""
        return _autoencoder.latent_shape(self._vae, size_px)

    def check_size(self, size_px: int) -> None:
        """Refuse a size of pictures that the VAE does not have."""
        _autoencoder.check_size(self._vae, size_px)

    def spare_memory(self, offload_to: torch.device | None = None, tile: bool = False) -> None:
        """Take less memory and more time: networks on a device only while they compute, tiles in decoding."""
        if tile:
            self._vae.enable_slicing()
            self._vae.enable_tiling()
        if offload_to is not None:
            self.device = offload_to
            self.pipeline.enable_model_cpu_offload(device=offload_to)

    def encode(self, media: Media, random: Random | None = None) -> Tensor:
        """Encode pictures [B, 3, H, W] in 0..1 as latents [B, C, h, w]; `random` samples the posterior."""
        return _autoencoder.encode(self._vae, media, self.device, random)

    def decode(self, latents: Tensor) -> Media:
        """Decode latents [B, C, h, w] to pictures [B, 3, H, W] in 0..1."""
        return _autoencoder.decode(self._vae, latents, self.device)

    def generate(
        self,
        conditioning: Conditioning,
        seeds: Sequence[int],
        size_px: int,
        sampling: Sampling,
        null: Conditioning | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> Media:
        """Generate pictures [B, 3, H, W], as `Generator.generate` says; guidance has a null of its own."""
        self.check_size(size_px)
        return self.decode(self.sample(conditioning, seeds, size_px, sampling, null, on_step))

    def sample(
        self,
        conditioning: Conditioning,
        seeds: Sequence[int],
        size_px: int,
        sampling: Sampling,
        null: Conditioning | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Sample the latents [B, C, h, w] that `generate` decodes."""
        from diffusers import StableDiffusionImg2ImgPipeline

        _refuse(conditioning, len(seeds), sampling)
        given = self.conditions.given(conditioning, sampling.prompt, len(seeds))
        other = self.conditions.unconditional(null or Conditioning(), sampling.negative_prompt, given)
        self.pipeline.scheduler = _sampling.scheduler_of(self._scheduler, sampling)
        pipeline, start = _sampling.begin(
            self, self.pipeline, StableDiffusionImg2ImgPipeline, conditioning.start, size_px, sampling
        )
        if pipeline is None:
            return start["image"]
        images = _images(given, other, sampling)
        if (
            images is not None
        ):  # diffusers' own would repeat all rows for each row, as if they had one picture
            pipeline.prepare_ip_adapter_image_embeds = lambda *_: images
        latents: Tensor = pipeline(
            prompt_embeds=given.text,
            negative_prompt_embeds=other.text,
            ip_adapter_image_embeds=images,
            cross_attention_kwargs=given.attention,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            output_type="latent",
            callback_on_step_end=_sampling.callback(on_step),
            **start,
        ).images
        return latents

    @torch.no_grad()
    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Predict the noise of latents [B, C, h, w] at timesteps [B], or what else the U-Net predicts."""
        return self._predict(latents, timesteps, self.conditions.given(conditioning, "", len(latents)))

    def loss(
        self,
        latents: Tensor,
        conditioning: Conditioning,
        random: Random,
        sizes: Tensor,
        objective: Objective = Objective(),  # noqa: B008 (frozen)
    ) -> Tensor:
        """Mean squared error of what the U-Net predicts, as `Generator.loss` says; sizes have no effect."""
        count = self._schedule.config.num_train_timesteps
        noise, timesteps = _objective.draw(random, latents.shape, count, objective.noise_offset, self.device)
        given = self.conditions.given(conditioning, "", len(latents))
        predicted = self._predict(self._schedule.add_noise(latents, noise, timesteps), timesteps, given)
        return _objective.error(self._schedule, predicted, latents, noise, timesteps, objective.min_snr_gamma)

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
        weights = (max if offload else sum)(map(size_of, self.networks))
        rows, decoded = batch * (2 if guidance > 1 else 1), 1 if tile else min(batch, _autoencoder.AT_ONCE)
        latents = torch.empty(rows, *self.latent_shape(size_px), device="meta", dtype=self._unet.dtype)
        first, times = torch.empty_like(latents[:decoded]), torch.empty(rows, device="meta")

        def denoise() -> None:
            self._predict(latents, times, self.conditions.given(Conditioning(), "", rows))

        with torch.no_grad():
            decoding = peak(lambda: self._vae.decode(first), self._vae)
            return weights + max(peak(denoise, self._unet) + latents.nbytes, decoding)

    def _predict(self, latents: Tensor, timesteps: Tensor, given: Inputs) -> Tensor:
        found: Tensor = self._unet(
            latents.to(self._unet.dtype),
            timesteps,
            given.text,
            added_cond_kwargs=None if given.image is None else {"image_embeds": [given.image]},
            cross_attention_kwargs=given.attention,
            return_dict=False,
        )[0]
        return found


def _images(given: Inputs, other: Inputs, sampling: Sampling) -> list[Tensor] | None:
    """Join the image embeddings of both sides of guidance, the unconditional side first: [2 B, 1, …]."""
    if given.image is None or other.image is None:
        return None
    return [torch.cat([other.image, given.image]) if sampling.guidance > 1 else given.image]


def _refuse(conditioning: Conditioning, rows: int, sampling: Sampling) -> None:
    """Refuse conditions that such a generator does not take, and prompts without effect."""
    for name in ("images", "masks"):
        if getattr(conditioning, name) is not None:
            raise BrainhiveError(f"this generator takes no condition {name}", "use another prior")
    _sampling.check_rows(conditioning, rows)
    if conditioning.texts is not None and sampling.prompt:
        raise RecipeError("prompt has no effect where the prior gives texts", "leave prompt out")
