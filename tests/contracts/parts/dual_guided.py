"""A generator as HAVIR has it: Versatile Diffusion, guided by image tokens and text tokens at once.

Source: diffusers' VersatileDiffusionDualGuidedPipeline (Apache 2.0), arXiv 2211.08332.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.core.conditioning import Conditioning
from brainhive_cli.core.media import Media
from brainhive_cli.generators import SCHEDULERS, Sampling

UNET = {
    "sample_size": 8,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "cross_attention_dim": 12,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
SCALE = 0.18215
"""Of latents; the published VAE's config lacks it."""


class Config(parts.Config):
    """Sizes, the noise schedule, and how image and text are mixed."""

    unet: dict[str, Any] = Field(UNET, description="Arguments of the image U-Net.")
    vae: dict[str, Any] = Field(
        {"block_out_channels": [4], "norm_num_groups": 4}, description="Arguments of the autoencoder."
    )
    scheduler: dict[str, Any] = Field({}, description="Arguments of the sampler.")
    text_share: float = Field(0.4, ge=0, le=1, description="Share of the text; Brain-Diffuser's.")

    def build(self, device: Any = "cpu", dtype: torch.dtype = torch.float32) -> "DualGuided":
        """Make the generator with random weights."""
        return DualGuided(self)


TINY = Config()


class Dual(nn.Module):
    """Two transformers in the place of one: each sees its part of the condition, their changes are mixed."""

    def __init__(self, image: nn.Module, text_share: float) -> None:
        super().__init__()
        self.image, self.text, self.text_share, self.text_length = image, copy.deepcopy(image), text_share, 0

    def forward(self, hidden: Tensor, encoder_hidden_states: Tensor, **_: Any) -> tuple[Tensor]:
        text, image = encoder_hidden_states.tensor_split([self.text_length], 1)
        by_text = self.text(hidden, encoder_hidden_states=text, return_dict=False)[0] - hidden
        by_image = self.image(hidden, encoder_hidden_states=image, return_dict=False)[0] - hidden
        return (hidden + self.text_share * by_text + (1 - self.text_share) * by_image,)


class DualGuided:
    """A U-Net with dual transformers, an autoencoder and a scheduler."""

    def __init__(self, config: Config) -> None:
        import diffusers

        self.config = config
        self.unet: Any = diffusers.UNet2DConditionModel(**config.unet).eval()
        self.vae: Any = diffusers.AutoencoderKL(**config.vae).eval()
        self.duals: dict[str, Dual] = {}
        for name, module in list(self.unet.named_modules()):
            if type(module).__name__ == "Transformer2DModel":
                parent, _, place = name.rpartition(".")
                self.duals[name] = Dual(module, config.text_share)
                self.unet.get_submodule(parent)[int(place)] = self.duals[name]
        self.draw: Callable[[Sequence[int], tuple[int, ...]], Tensor] = draw

    def load(self, image: Mapping[str, Tensor], text: Mapping[str, Tensor]) -> None:
        """Take the weights of the image U-Net, and of the text U-Net its attentions."""
        renamed = {}
        for key, value in image.items():
            name = next((name for name in self.duals if key.startswith(f"{name}.")), None)
            renamed[key if name is None else key.replace(name, f"{name}.image", 1)] = value
        for key, value in text.items():
            name = next(name for name in self.duals if key.startswith(f"{name}."))
            renamed[key.replace(name, f"{name}.text", 1)] = value
        self.unet.load_state_dict(renamed)

    @torch.no_grad()
    def encode(self, media: Media, random: Any = None) -> Tensor:
        return self.vae.encode(media * 2 - 1).latent_dist.mode() * SCALE

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Media:
        return (self.vae.decode(latents / SCALE).sample / 2 + 0.5).clamp(0, 1)

    def loss(self, *_: Any, **__: Any) -> Tensor:
        raise NotImplementedError("it is used as published")

    def generate(
        self,
        conditioning: Conditioning,
        seeds: Sequence[int],
        size_px: int,
        sampling: Sampling,
        null: Conditioning | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> Media:
        return self.decode(self.sample(conditioning, seeds, size_px, sampling, null))

    @torch.no_grad()
    def sample(
        self,
        conditioning: Conditioning,
        seeds: Sequence[int],
        size_px: int,
        sampling: Sampling,
        null: Conditioning | None = None,
    ) -> Tensor:
        """Denoise latents [B, C, h, w], from the start's where there is one."""
        scheduler = self._scheduler(sampling)
        count = sampling.steps
        kept = scheduler.timesteps if conditioning.start is None else self._kept(scheduler, sampling)
        shape = (len(seeds), 4, self.unet.config.sample_size, self.unet.config.sample_size)
        latents = self.draw(seeds, shape)
        if conditioning.start is not None and len(kept) < count:
            latents = scheduler.add_noise(conditioning.start, latents, kept[:1].expand(len(seeds)))
        for timestep in kept:
            noise = self.predict(latents, timestep, conditioning)
            away = self.predict(latents, timestep, _zeros(conditioning, null))
            guided = away + sampling.guidance * (noise - away)
            latents = scheduler.step(guided, timestep, latents).prev_sample
        return latents

    @torch.no_grad()
    def predict(self, latents: Tensor, timestep: Any, given: Conditioning) -> Tensor:
        """Predict the noise of latents under text tokens [B, S, D] and image tokens [B, S', D]."""
        text, image = (each.expand(len(latents), -1, -1) for each in (given.texts, given.embeddings))
        for dual in self.duals.values():
            dual.text_length = text.shape[1]
        return self.unet(latents, timestep, torch.cat([text, image], 1), return_dict=False)[0]

    def _scheduler(self, sampling: Sampling) -> Any:
        import diffusers

        name, more = SCHEDULERS[sampling.scheduler or "ddim"]
        scheduler = getattr(diffusers, name).from_config({**self.config.scheduler, **more})
        scheduler.set_timesteps(sampling.steps)
        return scheduler

    def _kept(self, scheduler: Any, sampling: Sampling) -> Tensor:
        return scheduler.timesteps[sampling.steps - int(sampling.steps * sampling.strength) :]


def draw(seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Draw the noise of each row by its seed."""
    return torch.stack([torch.randn(shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds])


def _zeros(given: Conditioning, null: Conditioning | None) -> Conditioning:
    """Take the unconditional side, zeros where it is empty."""
    found = null or Conditioning()
    pairs = ((found.embeddings, given.embeddings), (found.texts, given.texts))
    return Conditioning(*(torch.zeros_like(there) if own is None else own for own, there in pairs))
