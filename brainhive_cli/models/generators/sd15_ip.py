"""Stable Diffusion 1.5 with an IP-Adapter, by text tokens and image embeddings, from noise or a latent.

Source: arXiv 2112.10752; IP-Adapter (arXiv 2308.06721); both as diffusers has them (Apache 2.0).
"""

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from brainhive_cli.core import console, weights
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.inputs import Input
from brainhive_cli.models.clip_conditions import VISION, tower_of
from brainhive_cli.models.conditioning import Conditioning
from brainhive_cli.models.foreign_weights import file_input, find_file, find_neighbours
from brainhive_cli.models.generators import _components, _latent_diffusion
from brainhive_cli.models.generators import _stable_diffusion as sd
from brainhive_cli.models.generators._components import ARCHITECTURES, RANDOM, Architecture

IMAGE_ENCODER = "image_encoder"
"""The folder next to the adapters, of the encoder that they were trained with."""
ADAPTER = "adapter"
"""In an architecture: `width` of the image embeddings."""
ARCHITECTURE = ARCHITECTURES["sd15-ip"]


class Config(_latent_diffusion.Config):
    """A folder of Stable Diffusion 1's kind, and an IP-Adapter for it.

    Texts are CLIP ViT-L/14's last hidden states (encoder sd15-text). Image embeddings are what the adapter
    was trained on: those of clip-h14 for ip-adapter_sd15 (several tokens stand for as many pictures), of
    clip-h14:block-30 for ip-adapter-plus_sd15.
    """

    cites = ("rombach2022", "ye2023")
    published = ARCHITECTURE

    source: str = Field(
        "hub:stable-diffusion-v1-5/stable-diffusion-v1-5",
        description="hub:OWNER/NAME, a folder, demo:NAME, or `random` (tests, benchmarks).",
    )
    variant: str | None = Field(None, description="Variant of the weight files, such as fp16.")
    adapter: str = Field(
        "hub:h94/IP-Adapter/models/ip-adapter_sd15.safetensors",
        description="IP-Adapter as a safetensors file: a path, or hub:OWNER/NAME/FILE.",
    )
    image_share: float = Field(
        1.0, ge=0, description="Weight of the image attention next to the text attention; IP-Adapter: 1."
    )
    unconditional: Literal["encoded", "zeros"] = Field(
        "encoded",
        description="What guidance moves away from, and what stands for a condition that the prior does not "
        "give: the empty prompt, and what IP-Adapter has for no picture (zeros, or for `plus` the tokens of "
        "a zero picture); or zeros for both.",
    )

    def inputs(self) -> list[Input]:
        """Look for the weights."""
        stems = (*_components.STEMS, *([sd.TEXT_STEM] if self.unconditional == "encoded" else []))
        adapter = [] if self.source == RANDOM else [file_input(self.adapter)]
        return _components.list_inputs(self.source, self.variant, stems) + adapter

    def read_configs(self) -> Architecture:
        """Read the architecture of the source; the adapter is small, and any stands for it."""
        return {**super().read_configs(), ADAPTER: ARCHITECTURE[ADAPTER]}

    def load(self, dtype: torch.dtype, folder: Path | None = None) -> dict[str, Any]:
        """Load the components and the adapter, as diffusers takes it."""
        components, file = super().load(dtype, folder), find_file(self.adapter)
        adapter: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        for name, value in weights.read(file).items():
            part, _, rest = name.partition(".")
            if part in adapter:
                adapter[part][rest] = value
        if not all(adapter.values()):
            raise MissingData(
                f"{file} holds no image_proj and ip_adapter", "give an IP-Adapter's safetensors file"
            )
        return {**components, ADAPTER: adapter}

    def draw(self, architecture: Architecture, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """Make the components and the adapter with random weights."""
        components = super().draw(architecture, device, dtype)
        adapter = _draw_adapter(components["unet"], architecture[ADAPTER]["width"], self.seed)
        return {**components, ADAPTER: adapter}

    def assemble(self, components: dict[str, Any], device: torch.device) -> "StableDiffusionIP":
        """Make the generator of its components."""
        return StableDiffusionIP(self, components, device)


TINY = Config(source=RANDOM, architecture=ARCHITECTURES["sd15-ip TINY"])
"""Small enough for tests; its VAE shrinks pictures 4 times."""


class StableDiffusionIP(sd.StableDiffusion):
    """Pictures by text tokens, and by image embeddings through an IP-Adapter."""

    def prepare(self, components: dict[str, Any]) -> None:
        """Attach the IP-Adapter."""
        # diffusers adds the adapter to the U-Net
        super().prepare(components)
        where = f"the IP-Adapter {self.config.adapter}"
        with (
            console.hushed(),
            weights.reading(where, "use one for Stable Diffusion 1", problem="does not fit"),
        ):
            self.pipeline.load_ip_adapter(components[ADAPTER], None, None, image_encoder_folder=None)
        self.pipeline.set_ip_adapter_scale(self.config.image_share)

        # the form of its projection tells a plain adapter, of one vector, from `plus`
        projection = self.unet.encoder_hid_proj.image_projection_layers[0]
        self._is_plus = hasattr(projection, "proj_in")  # of all tokens of the image encoder
        layer = projection.proj_in if self._is_plus else projection.image_embeds
        self.image_shape = (sd.IMAGE_TOKENS if self._is_plus else 1, int(layer.in_features))
        self.image_encoder = "clip-h14:block-30" if self._is_plus else "clip-h14"
        self._zero_picture: Tensor | None = None

    def pipeline_inputs(self, request: _latent_diffusion.Request) -> dict[str, Any]:
        """Give text tokens and image embeddings of both sides of guidance, which has a null of its own."""
        (text, image), (null_text, null_image) = self.both_sides(request)
        images = torch.cat([null_image, image]) if request.sampling.guidance > 1 else image

        # the adapter takes embeddings [B, S, D] as S pictures, and `plus` as one picture of S tokens
        return {
            "prompt_embeds": text,
            "negative_prompt_embeds": null_text,
            "ip_adapter_image_embeds": [images[:, None] if self._is_plus else images],
        }

    def predict(
        self, latents: Tensor, times: Tensor, conditioning: Conditioning, sizes: Tensor | None = None
    ) -> Tensor:
        """Predict the noise of latents [B, C, h, w] at timesteps [B], or what else the U-Net predicts."""
        text, image = self.tokens(conditioning, "", len(latents))
        added = {"image_embeds": [image[:, None] if self._is_plus else image]}
        return self.run_unet(latents, times, text, added_cond_kwargs=added)

    def encode_no_image(self) -> Tensor | None:
        """Encode the zero picture by the encoder next to the adapter: [1, S, D], before the last block.

        Source: IP-Adapter's repository, IPAdapterPlus.get_image_embeds (Apache 2.0).
        """
        if self._is_plus and self.encodes_absent and self._zero_picture is None:
            files = [f"{IMAGE_ENCODER}/config.json", f"{IMAGE_ENCODER}/model.safetensors"]
            tower: Any = tower_of(find_neighbours(self.config.adapter, files), IMAGE_ENCODER, VISION)
            side = tower.config.image_size
            with torch.inference_mode():
                encoded = tower(torch.zeros(1, 3, side, side), output_hidden_states=True)
            self._zero_picture = encoded.hidden_states[-2]
        return self._zero_picture


def _draw_adapter(unet: Any, width: int, seed: int) -> dict[str, dict[str, Tensor]]:
    """Draw an adapter for embeddings of a width, with random weights on the U-Net's device."""
    cross, tokens = unet.config.cross_attention_dim, 4  # IP-Adapter's number
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return (0.1 * torch.randn(shape, generator=random)).to(unet.device, unet.dtype)

    # projection of an embedding to image tokens
    image = {"proj.weight": draw(tokens * cross, width), "proj.bias": draw(tokens * cross)}
    image |= {"norm.weight": draw(cross) + 1, "norm.bias": draw(cross)}

    # keys and values of every cross-attention, numbered as IP-Adapter does: odd numbers
    attentions = [unet.get_submodule(name.removesuffix(".processor")) for name in unet.attn_processors]
    crossed = [attention for attention in attentions if attention.is_cross_attention]
    maps = {
        f"{1 + 2 * index}.to_{kind}_ip.weight": draw(*getattr(attention, f"to_{kind}").weight.shape)
        for index, attention in enumerate(crossed)
        for kind in "kv"
    }
    return {"image_proj": image, "ip_adapter": maps}
