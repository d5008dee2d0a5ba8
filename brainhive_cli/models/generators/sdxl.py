"""An SDXL-type diffusion model, conditioned by a prior's image tokens."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from brainhive_cli.core import parts, weights
from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.core.memory_estimate import peak, size_of
from brainhive_cli.core.needs import Need, to_download
from brainhive_cli.models.conditioning import Conditioning, Media
from brainhive_cli.models.generators import (
    Objective,
    Sampling,
    _architecture,
    _autoencoder,
    _components,
    _objective,
    _sampling,
)
from brainhive_cli.models.generators._components import RANDOM
from brainhive_cli.models.generators._conditioning import Inputs, guided, inputs_of, is_attached
from brainhive_cli.models.generators._objective import Random
from brainhive_cli.models.generators._prompts import Prompts
from brainhive_cli.models.heads import latent_space


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
    target_px: int | None = Field(
        None,
        gt=0,
        le=16_384,
        description="Target size among the U-Net's size conditions in sampling; default: the picture's. "
        "MindEye2's refinement: 1024.",
    )
    architecture: _architecture.Architecture | None = Field(
        None, description="Arguments of unet, vae and scheduler for source `random`; without them SDXL's."
    )
    seed: int = Field(0, ge=0, description="Seed of the weights for source `random`.")

    def build(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> "SDXL":
        """Load the generator, frozen, onto a device.

        Raises:
            MissingData: if the folder or one of its components is absent or half-downloaded.
            BrainhiveError: if the U-Net is not of SDXL's type.
        """
        device = torch.device(device)
        if self.source == RANDOM:
            return self._drawn(device, dtype)
        folder = _components.folder_of(self.source, self.variant)
        with weights.reading(f"the generator {folder}"):
            return SDXL(self, _components.load(folder, dtype, self.variant, _components.check_unet), device)

    def check(self) -> str:
        """Describe the generator and how much of it would be downloaded; raises as `build` does."""
        if self.source == RANDOM:
            return "random weights"
        _components.check_configs(self.source, _components.check_unet)
        return f"{self.source}, {to_download(self.needs())}"

    def needs(self) -> list[Need]:
        """Look for the weights."""
        return _components.needs(self.source, self.variant)

    def text_needs(self) -> list[Need]:
        """Look for the text encoders that prompts and captions need."""
        if self.source == RANDOM:
            error = MissingData("a generator of random weights has no text encoders", "give a folder of SDXL")
            return [Need("text encoders", None, error)]
        stems, files = _components.TEXT_STEMS, _components.TEXT_CONFIGS
        return _components.needs(self.source, self.variant, stems, files)

    def skeleton(self, dtype: torch.dtype) -> "SDXL":
        """Make the generator as `build` would, of shapes alone, on the meta device."""
        return self._drawn(torch.device("meta"), dtype)

    def _drawn(self, device: torch.device, dtype: torch.dtype) -> "SDXL":
        architecture = self._architecture()
        where, hint = f"the architecture of the generator {self.source}", "compare it with SDXL's config.json"
        with weights.reading(where, hint, RecipeError, problem="cannot be built"):
            weights.check_sizes(architecture, where, hint, RecipeError)
            _components.check_unet(architecture["unet"], "the architecture")
            return SDXL(self, _components.draw(architecture, device, dtype, self.seed), device)

    def _architecture(self) -> _architecture.Architecture:
        return _components.architecture_of(self, _architecture.SDXL)


TINY = Config(source=RANDOM, architecture=_architecture.TINY)
"""Small enough for tests; pictures from 16 px."""


class SDXL:
    """U-Net, VAE and scheduler, with diffusers' pipeline around them.

    Args:
        config: Where the text encoders are, should a prompt need them.
        components: unet, vae and scheduler.
        device: Where all run.
    """

    def __init__(self, config: Config, components: dict[str, Any], device: torch.device) -> None:
        from diffusers import DDPMScheduler, StableDiffusionXLPipeline

        self.config = config
        self.device = device
        text = dict.fromkeys(_components.TEXT)  # prompts are embedded once each, outside the pipeline
        pipeline: Any = StableDiffusionXLPipeline(**components, **text, add_watermarker=False)
        pipeline.set_progress_bar_config(disable=True)
        # half precision on a CPU is right while an offloaded model waits there
        self.pipeline = pipeline.to(device, silence_dtype_warnings=True)
        self.unet, self.vae = self.networks = self.pipeline.unet, self.pipeline.vae
        for network in self.networks:
            network.eval().requires_grad_(False)
        if self.vae.dtype == torch.float16 and self.vae.config.force_upcast:  # as SDXL's own overflows
            self.use_float32_autoencoder()
        self._prompts = Prompts(config, self.unet)
        self._scheduler = self.pipeline.scheduler  # the generator's own
        self.noise_schedule = DDPMScheduler.from_config(self._scheduler.config)
        _objective.check(self.noise_schedule)

    @cached_property
    def latent_digest(self) -> str:
        """Identity of the autoencoder: latents of another one mean nothing to this generator."""
        digest = hashlib.sha256(f"{self.vae.config.scaling_factor}".encode())
        for name, weight in self.vae.state_dict().items():
            digest.update(name.encode() + weight.float().cpu().numpy().tobytes())
        return digest.hexdigest()

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

    def prepare_training(self, gradient_checkpointing: bool = False, compiled: bool = False) -> None:
        """Compute the U-Net's activations twice instead of keeping them; compile it for each batch size."""
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        if compiled:
            self.unet.compile(dynamic=False)

    def use_float32_autoencoder(self) -> None:
        """Encode and decode in float32, whatever the U-Net's dtype."""
        _components.cast(self.vae, torch.float32)

    def spare_memory(self, offload_to: torch.device | None = None, tile: bool = False) -> None:
        """Take less memory and more time: networks on a device only while they compute, tiles in decoding."""
        if tile:
            self.vae.enable_slicing()
            self.vae.enable_tiling()
        if offload_to is not None:
            self.device = offload_to
            self.pipeline.enable_model_cpu_offload(device=offload_to)

    def encode(self, media: Media, random: Random | None = None) -> Tensor:
        """Encode pictures [B, 3, H, W] in 0..1 as latents [B, C, h, w]; `random` samples the posterior."""
        return _autoencoder.encode(self.vae, media, self.device, random)

    def decode(self, latents: Tensor) -> Media:
        """Decode latents [B, C, h, w] to pictures [B, 3, H, W] in 0..1."""
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
        """Generate pictures [B, 3, H, W], as `Generator.generate` says; with a prior, guidance needs null."""
        from diffusers import StableDiffusionXLImg2ImgPipeline

        self.check_size(size_px)
        given = self._inputs(conditioning, sampling.prompt, len(seeds))
        other = self._inputs(self._null(conditioning, null), sampling.negative_prompt, len(seeds))
        self.pipeline.scheduler = _sampling.scheduler_of(self._scheduler, sampling)
        other_pipeline = partial(StableDiffusionXLImg2ImgPipeline, add_watermarker=False)
        pipeline, start = _sampling.begin(
            self, self.pipeline, other_pipeline, conditioning.start, size_px, sampling
        )
        if pipeline is None:
            return self.decode(start["image"])
        is_guided = sampling.guidance > 1 and self.unet.config.time_cond_proj_dim is None  # as in diffusers
        tokens = guided(given, other) if is_guided else given.tokens
        latents = pipeline(
            prompt_embeds=given.text,
            pooled_prompt_embeds=given.pooled,
            negative_prompt_embeds=other.text,  # in training: the empty prompt and the zeroed token
            negative_pooled_prompt_embeds=other.pooled,
            cross_attention_kwargs=None if tokens is None else {"ip_hidden_states": tokens},
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            target_size=self.config.target_px and (self.config.target_px,) * 2,
            output_type="latent",
            callback_on_step_end=_sampling.callback(on_step),
            **start,
        ).images
        return self.decode(latents)

    def loss(
        self,
        latents: Tensor,
        conditioning: Conditioning,
        random: Random,
        sizes: Tensor,
        objective: Objective = Objective(),  # noqa: B008 (frozen)
        levels: Tensor | None = None,
    ) -> Tensor:
        """Mean squared error of the predicted noise (or velocity, if that is what the U-Net predicts).

        Args:
            latents: Clean latents [B, C, h, w].
            conditioning: As `generate` takes it.
            random: Draws noise and timesteps, as `Generator.loss` says.
            sizes: [B, 6], as `Generator.loss` says.
            objective: What errors are weighted and noise is shifted by.
            levels: [B] in 0..1, shares of the noise schedule, instead of drawn timesteps.

        Source: SDXL (arXiv 2307.01952), section 2.2; BrainHiVE (arXiv 2602.07495).
        """
        schedule = self.noise_schedule
        count = schedule.config.num_train_timesteps
        noise, timesteps = _objective.draw(random, latents.shape, count, objective.noise_offset, self.device)
        if levels is not None:
            timesteps = (levels * count).long().to(self.device)
        given = self._inputs(conditioning, "", len(latents))
        predicted = self.unet(
            schedule.add_noise(latents, noise, timesteps).to(self.unet.dtype),
            timesteps,
            given.text,
            added_cond_kwargs={"text_embeds": given.pooled, "time_ids": sizes.to(self.device)},
            cross_attention_kwargs=None if given.tokens is None else {"ip_hidden_states": given.tokens},
            return_dict=False,
        )[0]
        return _objective.error(schedule, predicted, latents, noise, timesteps, objective.min_snr_gamma)

    def empty_prompt(self, batch: int) -> tuple[Tensor, Tensor]:
        """Embed the empty prompt: text [B, S, D_text] and pooled text [B, D_pooled]."""
        return self._prompts.embed("", batch, self.device)

    def save_empty_prompt(self, file: Path) -> None:
        """Write the embeddings of the empty prompt, so that the text encoders are not needed again."""
        self._prompts.save_empty(file, self.device)

    def load_empty_prompt(self, file: Path) -> None:
        """Read what `save_empty_prompt` wrote."""
        self._prompts.load_empty(file, self.device)

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
        latents = torch.empty(rows, *self.latent_shape(size_px), device="meta", dtype=self.unet.dtype)
        sizes = torch.empty(rows, 6, device="meta", dtype=self.unet.dtype)
        first = torch.empty_like(latents[:decoded], dtype=self.vae.dtype)

        def denoise() -> None:
            text, pooled = self.empty_prompt(rows)
            added = {"text_embeds": pooled, "time_ids": sizes}
            self.unet(latents, sizes[:, 0], text, added_cond_kwargs=added)

        with torch.no_grad():
            decoding = peak(lambda: self.vae.decode(first), self.vae)
            return weights + max(peak(denoise, self.unet) + latents.nbytes + sizes.nbytes, decoding)

    def _inputs(self, conditioning: Conditioning, prompt: str, rows: int) -> Inputs:
        return inputs_of(conditioning, prompt, rows, self.unet, self._prompts, self.device)

    def _null(self, conditioning: Conditioning, null: Conditioning | None) -> Conditioning:
        """Complete the unconditional side by zeros where the U-Net's own cross-attention takes conditions."""
        found = null or Conditioning()
        embeddings, texts = found.embeddings, found.texts
        if embeddings is None and conditioning.embeddings is not None and not is_attached(self.unet):
            embeddings = torch.zeros_like(conditioning.embeddings)
        if texts is None and isinstance(conditioning.texts, Tensor):
            texts = torch.zeros_like(conditioning.texts)
        return Conditioning(embeddings, texts)
