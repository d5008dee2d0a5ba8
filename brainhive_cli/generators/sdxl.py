"""An SDXL-type diffusion model that a prior's image tokens condition."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from brainhive_cli.core import hub, parts
from brainhive_cli.generators import _architecture, _components, _objective, _sampling, _schedulers
from brainhive_cli.generators._components import RANDOM
from brainhive_cli.generators._conditioning import check_attached, conditioning
from brainhive_cli.generators._prompts import Prompts

VAE_BATCH = 4
"""Pictures that the VAE takes at once: enough to fill a GPU at 512 px, where each needs 0.75 GiB in fp32."""


class Config(parts.Config):
    """Any diffusers folder with an SDXL-type U-Net."""

    source: str = Field(
        "hub:stabilityai/sdxl-turbo",
        description="hub:OWNER/NAME, a folder, demo:NAME, or `random` (tests, benchmarks). "
        "BrainHiVE: sdxl-turbo to reconstruct, stable-diffusion-xl-base-1.0 to train the prior.",
    )
    variant: str | None = Field(
        None, description="Variant of the weight files, such as fp16: half the download."
    )
    architecture: _architecture.Architecture | None = Field(
        None, description="Arguments of unet, vae and scheduler for source `random`; without them SDXL's."
    )
    seed: int = Field(0, description="Seed of the weights for source `random`.")

    def build(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> "SDXL":
        """Load the generator, frozen, onto a device.

        Raises:
            MissingData: if the folder or one of its components is absent or half-downloaded.
            BrainhiveError: if the U-Net is not of SDXL's type.
        """
        device = torch.device(device)
        if self.source == RANDOM:
            architecture = self.architecture or _architecture.SDXL
            return SDXL(self, _components.draw(architecture, device, dtype, self.seed), device)
        folder = _components.folder_of(self.source, self.variant)
        return SDXL(self, _components.load(folder, dtype, self.variant), device)

    def check(self) -> str:
        """Say, without loading it, what the generator is and how much of it would be downloaded.

        Raises:
            MissingData: if the folder is absent or lacks a component.
            BrainhiveError: if the U-Net is not of SDXL's type.
        """
        if self.source == RANDOM:
            return "random weights"
        return f"{self.source}, {hub.to_download(_components.bytes_to_fetch(self.source, self.variant))}"

    def skeleton(self, dtype: torch.dtype) -> "SDXL":
        """Make the generator of shapes alone, as `build` would hold it in `dtype`: on the meta device."""
        architecture = {name: self._architecture(name) for name in ("unet", "vae", "scheduler")}
        return SDXL(self, _components.skeleton(architecture, dtype), torch.device("meta"))

    def _architecture(self, component: str) -> dict[str, Any]:
        if self.source == RANDOM:
            return (self.architecture or _architecture.SDXL)[component]
        return _components.read_config(self.source, component)


TINY = Config(source=RANDOM, architecture=_architecture.TINY)
"""Small enough for tests; pictures from 16 px."""


class SDXL:
    """U-Net, VAE and scheduler, with diffusers' pipeline around them.

    Args:
        config: Where the text encoders are, should the empty prompt need them.
        components: unet, vae and scheduler.
        device: Where all run.
    """

    def __init__(self, config: Config, components: dict[str, Any], device: torch.device) -> None:
        from diffusers import DDPMScheduler, StableDiffusionXLPipeline

        self.config = config
        self.device = device
        text = dict.fromkeys(_components.TEXT)  # only the empty prompt is used, and it is embedded once
        pipeline: Any = StableDiffusionXLPipeline(**components, **text, add_watermarker=False)
        pipeline.set_progress_bar_config(disable=True)
        # half precision on a CPU is right while an offloaded model waits there
        self.pipeline = pipeline.to(device, silence_dtype_warnings=True)
        self.unet.eval().requires_grad_(False)
        self.vae.eval().requires_grad_(False)
        _components.upcast(self.vae)
        self._prompts = Prompts(config, self.unet)
        self.noise_schedule = DDPMScheduler.from_config(self.scheduler.config)
        _objective.check(self.noise_schedule)

    @property
    def unet(self) -> Any:
        """The U-Net; a prior attaches itself to it."""
        return self.pipeline.unet

    @property
    def vae(self) -> Any:
        """The autoencoder between pictures and latents."""
        return self.pipeline.vae

    @property
    def scheduler(self) -> Any:
        """The sampler of `generate`."""
        return self.pipeline.scheduler

    def prompt(self, words: str, batch: int) -> tuple[Tensor, Tensor]:
        """Embed a prompt: text [B, S, D_text] and pooled text [B, D_pooled].

        Raises:
            MissingData: if there are words, and no text encoders to read them.
        """
        return self._prompts.embed(words, batch, self.device)

    def empty_prompt(self, batch: int) -> tuple[Tensor, Tensor]:
        """Embed the empty prompt, as `prompt` does."""
        return self.prompt("", batch)

    def sample_with(self, scheduler: str) -> None:
        """Take another sampler, by its name in `SCHEDULERS`."""
        self.pipeline.scheduler = _schedulers.make(scheduler, self.scheduler.config)

    def check_size(self, resolution_px: int) -> None:
        """Refuse a size of pictures that the VAE has not.

        Raises:
            BrainhiveError: with the number that sizes are multiples of.
        """
        _sampling.check_size(self.pipeline, resolution_px)

    def spare_memory(self, offload_to: torch.device | None = None, tile: bool = False) -> None:
        """Take less of the device's memory, and more time.

        Args:
            offload_to: The device that U-Net and VAE are moved to only while they compute.
            tile: The VAE decodes one picture at a time, and a large one in tiles.
        """
        if tile:
            self.vae.enable_slicing()
            self.vae.enable_tiling()
        if offload_to is not None:
            self.device = offload_to
            self.pipeline.enable_model_cpu_offload(device=offload_to)

    def encode(
        self, images: Tensor, generator: torch.Generator | list[torch.Generator] | None = None
    ) -> Tensor:
        """Turn images [B, 3, H, W] in -1..1 into latents [B, C, H / f, W / f].

        Args:
            images: Pictures, -1..1.
            generator: Samples the posterior, or one for each image; without it, its mode is taken.
        """
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        with torch.no_grad():
            some = images.to(self.device, self.vae.dtype).split(VAE_BATCH)
            moments = torch.cat([self.vae.encode(each).latent_dist.parameters for each in some])
        posterior = DiagonalGaussianDistribution(moments)
        latents = posterior.mode() if generator is None else posterior.sample(generator)
        return latents.float() * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Turn latents [B, C, H / f, W / f] into images [B, 3, H, W] in 0..1."""
        some = (latents.to(self.vae.dtype) / self.vae.config.scaling_factor).split(VAE_BATCH)
        with torch.no_grad():
            images = torch.cat([self.vae.decode(each).sample for each in some])
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def generate(
        self,
        tokens: Tensor | None,
        seeds: list[int],
        *,
        steps: int = 4,
        guidance: float = 0.0,
        resolution_px: int = 512,
        empty_tokens: Tensor | None = None,
        prompt: str = "",
        negative_prompt: str = "",
        initial: Tensor | None = None,
        strength: float = 1.0,
        on_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Make one picture a seed; a picture depends on its own token and seed, not on the batch.

        Args:
            tokens: Image tokens of the attached prior [B, S, D_cross]; None for pictures without a prior.
            seeds: Seed of each picture's noise, B of them.
            steps: Denoising steps; BrainHiVE: 4 with turbo.
            guidance: Classifier-free guidance scale; 1 and less means none, as turbo wants it.
            resolution_px: Height and width.
            empty_tokens: The prior's tokens of the zeroed token [1, S, D_cross]; needed for guidance.
            prompt: Text beside the tokens; BrainHiVE: none.
            negative_prompt: Text that guidance moves away from, beside the empty tokens.
            initial: Pictures to start from instead of noise alone, [B, 3, H, W] in 0..1, of any size.
            strength: Share of the steps that are done when starting from pictures (SDEdit, arXiv 2108.01073).
            on_step: Is told the number of each step done.

        Returns:
            Pictures [B, 3, H, W] in 0..1, float32.
        """
        self.check_size(resolution_px)
        _sampling.check_tokens(tokens, seeds)
        is_guided = guidance > 1 and self.unet.config.time_cond_proj_dim is None  # as diffusers decides it
        text, pooled = self.prompt(prompt, len(seeds))
        other_text, other_pooled = self.prompt(negative_prompt, len(seeds))
        if initial is None:
            pipeline, start = self.pipeline, {"height": resolution_px, "width": resolution_px}
        else:
            pictures = _sampling.resized(initial, resolution_px)
            pipeline, start = _sampling.from_latents(self.pipeline, self.encode(pictures), steps, strength)
        latents = pipeline(
            prompt_embeds=text,
            pooled_prompt_embeds=pooled,
            negative_prompt_embeds=other_text,  # in training: the empty prompt and the zeroed token
            negative_pooled_prompt_embeds=other_pooled,
            cross_attention_kwargs=conditioning(self.unet, tokens, empty_tokens, self.device, is_guided),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="latent",
            callback_on_step_end=_sampling.told(on_step),
            **start,
        ).images
        return self.decode(latents)

    def save_empty_prompt(self, file: Path) -> None:
        """Write the embeddings of the empty prompt, so that the text encoders are not needed again."""
        self._prompts.save_empty(file, self.device)

    def load_empty_prompt(self, file: Path) -> None:
        """Read the embeddings of the empty prompt that `save_empty_prompt` wrote."""
        self._prompts.load_empty(file, self.device)

    def loss(
        self,
        latents: Tensor,
        tokens: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        sizes: Tensor,
        min_snr_gamma: float | None = None,
    ) -> Tensor:
        """Mean squared error of the predicted noise (or velocity, if that is what the U-Net predicts).

        Args:
            latents: Clean latents [B, C, h, w].
            tokens: Image tokens of the attached prior [B, S, D_cross].
            noise: As the latents, standard normal.
            timesteps: [B], 0 to `noise_schedule.config.num_train_timesteps` - 1.
            sizes: [B, 6], pixels: original height, width; top, left of the crop; target height, width.
            min_snr_gamma: Each picture's error is weighed by min(SNR, gamma), if given (arXiv 2303.09556).

        Returns:
            A scalar, float32.

        Source: SDXL (arXiv 2307.01952), section 2.2; BrainHiVE (arXiv 2602.07495).
        """
        check_attached(self.unet)
        schedule = self.noise_schedule
        text, pooled = self.empty_prompt(len(latents))
        predicted = self.unet(
            schedule.add_noise(latents, noise, timesteps).to(self.unet.dtype),
            timesteps,
            text,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes.to(self.device)},
            cross_attention_kwargs={"ip_hidden_states": tokens},
            return_dict=False,
        )[0]
        return _objective.error(schedule, predicted, latents, noise, timesteps, min_snr_gamma)
