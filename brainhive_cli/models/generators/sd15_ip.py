"""Stable Diffusion 1.5 with an IP-Adapter, by text tokens and image embeddings, from noise or a latent.

Source: arXiv 2112.10752; IP-Adapter (arXiv 2308.06721); both as diffusers has them (Apache 2.0).
"""

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from brainhive_cli.core import console, weights
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.results import Need
from brainhive_cli.models import single_file
from brainhive_cli.models.clip_conditions import PLAIN_TEXT, VISION, token_ids, tower_of
from brainhive_cli.models.conditioning import Conditioning
from brainhive_cli.models.generators import Sampling, _components, _latent_diffusion
from brainhive_cli.models.generators._components import BETAS, RANDOM, VAE, Architecture
from brainhive_cli.models.generators._latent_diffusion import TEXT_TOKENS, LatentDiffusion

IMAGE_TOKENS = 257
"""Of CLIP's image encoders with 14-pixel patches."""
IMAGE_ENCODER = "image_encoder"
"""The folder next to the adapters, of the encoder that they were trained with."""
TEXT_STEM = "text_encoder/model"
ADAPTER = "adapter"
"""In an architecture: `width` of the image embeddings."""
ARCHITECTURE: Architecture = {
    "unet": {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "attention_head_dim": 8,
        "cross_attention_dim": 768,
    },
    "vae": VAE,
    "scheduler": {
        "_class_name": "PNDMScheduler",
        **BETAS,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    },
    ADAPTER: {"width": 1024},
}
"""config.json of stable-diffusion-v1-5's components; what is left out is diffusers' default."""
TINY_NETWORKS: Architecture = {
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
"""Of the `TINY` instances of this kind: small enough for tests; the VAE shrinks pictures 4 times."""
PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
PIPELINE_OPTIONS = {
    **dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor")),
    "requires_safety_checker": False,
}
"""Of diffusers, for this kind."""


class Config(_latent_diffusion.Config):
    """A folder of Stable Diffusion 1's kind, and an IP-Adapter for it.

    Texts are CLIP ViT-L/14's last hidden states (encoder sd15-text). Image embeddings are what the adapter
    was trained on: those of clip-h14 for ip-adapter_sd15 (several tokens stand for as many pictures), of
    clip-h14:block-30 for ip-adapter-plus_sd15.
    """

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
    architecture: Architecture | None = Field(
        None, description="Arguments of unet, vae, scheduler, adapter for `random`; without them SD 1.5's."
    )
    seed: int = Field(0, ge=0, description="Seed of the weights for source `random`.")

    @property
    def described(self) -> str:
        """The source and the adapter."""
        return f"{self.source} with {self.adapter}"

    def needs(self) -> list[Need]:
        """Look for the weights."""
        stems = (*_components.STEMS, *([TEXT_STEM] if self.unconditional == "encoded" else []))
        adapter = [] if self.source == RANDOM else [single_file.need(self.adapter)]
        return _components.list_needs(self.source, self.variant, stems) + adapter

    def read_configs(self) -> Architecture:
        """Read the architecture of the source; the adapter is small, and any stands for it."""
        return {**super().read_configs(), ADAPTER: ARCHITECTURE[ADAPTER]}

    def load(self, dtype: torch.dtype) -> dict[str, Any]:
        """Load the components and the adapter."""
        return {**super().load(dtype), ADAPTER: _read_adapter(single_file.find(self.adapter))}

    def draw(self, architecture: Architecture, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """Make the components and the adapter with random weights."""
        components = super().draw(architecture, device, dtype)
        adapter = _draw_adapter(components["unet"], architecture[ADAPTER]["width"], self.seed)
        return {**components, ADAPTER: adapter}

    def assemble(self, components: dict[str, Any], device: torch.device) -> "StableDiffusionIP":
        """Make the generator of its components."""
        return StableDiffusionIP(self, components, device)


TINY = Config(
    source=RANDOM,
    architecture={**TINY_NETWORKS, "scheduler": ARCHITECTURE["scheduler"], ADAPTER: {"width": 16}},
)
"""Small enough for tests; its VAE shrinks pictures 4 times."""


class Inputs(NamedTuple):
    """What the U-Net is conditioned on, for B rows."""

    text: Tensor  # [B, S, D_cross]
    image: Tensor  # [B, S, D_image]; of `plus` [B, 1, S, D_image]


class StableDiffusionIP(LatentDiffusion):
    """Pictures by text tokens, and by image embeddings through an IP-Adapter."""

    pipelines, pipeline_options = PIPELINES, PIPELINE_OPTIONS
    refused = ("images", "masks")

    def prepare(self, components: dict[str, Any]) -> None:
        """Attach the IP-Adapter."""
        where = f"the IP-Adapter {self.config.adapter}"
        with (
            console.hushed(),
            weights.reading(where, "use one for Stable Diffusion 1", problem="does not fit"),
        ):
            self.pipeline.load_ip_adapter(components[ADAPTER], None, None, image_encoder_folder=None)
        self.pipeline.set_ip_adapter_scale(self.config.image_share)
        projection = self.unet.encoder_hid_proj.image_projection_layers[0]
        self._is_plus = hasattr(projection, "proj_in")  # of all tokens of the image encoder
        layer = projection.proj_in if self._is_plus else projection.image_embeds
        self._image_width = int(layer.in_features)
        self._texts = TextTokens(self.config, self.unet)
        self._zero_picture: Tensor | None = None

    def pipeline_inputs(
        self, conditioning: Conditioning, null: Conditioning, sampling: Sampling, rows: int
    ) -> dict[str, Any]:
        """Give text tokens and image embeddings of both sides of guidance, which has a null of its own."""
        inputs = self._condition(conditioning, sampling.prompt, rows)
        other = self._condition(null, sampling.negative_prompt, rows, inputs)
        images = torch.cat([other.image, inputs.image]) if sampling.guidance > 1 else inputs.image
        return {
            "prompt_embeds": inputs.text,
            "negative_prompt_embeds": other.text,
            "ip_adapter_image_embeds": [images],
        }

    def predict(
        self, latents: Tensor, times: Tensor, conditioning: Conditioning, sizes: Tensor | None = None
    ) -> Tensor:
        """Predict the noise of latents [B, C, h, w] at timesteps [B], or what else the U-Net predicts."""
        text, image = self._condition(conditioning, "", len(latents))
        return self.run_unet(latents, times, text, added_cond_kwargs={"image_embeds": [image]})

    def _condition(
        self, conditioning: Conditioning, prompt: str, rows: int, condition: Inputs | None = None
    ) -> Inputs:
        """Give the inputs of B rows; what the conditioning leaves out is the unconditional one.

        With a condition, these are the other side of guidance, of its shapes, and a prompt replaces texts.
        """
        texts, text_count, image_count = conditioning.texts, TEXT_TOKENS, IMAGE_TOKENS if self._is_plus else 1
        if condition is not None:
            texts = None if prompt else texts
            text_count, image_count = condition.text.shape[1], condition.image.shape[-2]
        text, image = self._texts.of(texts, prompt, "", text_count), conditioning.embeddings
        if image is None:
            is_encoded = self._is_plus and self._texts.embeds_absent
            image = torch.zeros(1, image_count, self._image_width)
            image = self._encode_zero_picture() if is_encoded else image
        width = self.unet.config.cross_attention_dim
        hint = "use a head that predicts the encoder {}, or another generator.adapter"
        encoder = "clip-h14:block-30" if self._is_plus else "clip-h14"
        text = self.fit_tokens("text embeddings", text, width, rows, hint.format("sd15-text"))
        image = self.fit_tokens("image embeddings", image, self._image_width, rows, hint.format(encoder))
        inputs = Inputs(text, image[:, None] if self._is_plus else image)
        for tensor, expected in zip(inputs, condition or inputs, strict=True):
            if tensor.shape != expected.shape:
                raise BrainhiveError(
                    f"the condition has the shape {list(expected.shape)}, the unconditional "
                    f"{list(tensor.shape)}",
                    "use heads that predict sd15-text and clip-h14, or generator.unconditional=zeros",
                )
        return inputs

    def _encode_zero_picture(self) -> Tensor:
        """Encode the zero picture by the encoder next to the adapter: [1, S, D], before the last block.

        Source: IP-Adapter's repository, IPAdapterPlus.get_image_embeds (Apache 2.0).
        """
        if self._zero_picture is not None:
            return self._zero_picture
        files = [f"{IMAGE_ENCODER}/config.json", f"{IMAGE_ENCODER}/model.safetensors"]
        tower: Any = tower_of(single_file.folder_of(self.config.adapter, files), IMAGE_ENCODER, VISION)
        side = tower.config.image_size
        with torch.inference_mode():
            encoded = tower(torch.zeros(1, 3, side, side), output_hidden_states=True)
        self._zero_picture = encoded.hidden_states[-2]
        return self._zero_picture


class TextTokens:
    """Text tokens as they are given, or of texts by an encoder that is loaded for that alone.

    Args:
        config: The generator's; no text is embedded if it says so and there are weights, else it is zeros.
        unet: Whose width the tokens have.
        load: Loads what embeds a text as tokens [1, S, D]; by default the source's text encoder.
        embedded: What is known already.
    """

    def __init__(
        self,
        config: Any,
        unet: Any,
        load: Callable[[], Callable[[str], Tensor]] | None = None,
        embedded: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._config, self._width = config, unet.config.cross_attention_dim
        self._embedded = dict(embedded or {})
        self._load = load or partial(load_clip_text, config.source, getattr(config, "variant", None))
        has_weights = config.source != RANDOM and unet.device.type != "meta"
        self.embeds_absent = has_weights and config.unconditional == "encoded"

    def of(
        self,
        texts: Tensor | list[str] | None,
        prompt: str = "",
        absent: str = "",
        count: int = TEXT_TOKENS,
    ) -> Tensor:
        """Give tokens [B, S, D] of the rows' texts, else [1, S, D] of the prompt, or of no text.

        Args:
            texts: Of B rows, or their tokens.
            prompt: For all rows.
            absent: What is embedded where there is neither.
            count: S of the zeros that stand for no text.
        """
        if texts is not None and prompt:
            raise RecipeError("prompt has no effect where the conditioning has texts", "leave prompt out")
        if isinstance(texts, Tensor):
            return texts
        if texts is None and not prompt and not self.embeds_absent:
            return torch.zeros(1, count, self._width)
        texts = [prompt or absent] if texts is None else texts
        return torch.cat([self._embed(words) for words in texts])

    def _embed(self, words: str) -> Tensor:
        if words not in self._embedded:
            with torch.inference_mode():
                self._embedded[words] = self._encoder(words)
        return self._embedded[words]

    @cached_property
    def _encoder(self) -> Callable[[str], Tensor]:
        if self._config.source == RANDOM:
            raise MissingData(
                "a generator of random weights has no text encoder for prompts", "leave prompts out"
            )
        return self._load()


def load_clip_text(source: str, variant: str | None) -> Callable[[str], Tensor]:
    """Load the text encoder of a Stable Diffusion 1 folder: from a text to its last states [1, S, D]."""
    folder = _components.find_folder(source, variant, text=True)
    for name in ("text_encoder", "tokenizer"):
        _components.read_config(folder, name)
    tower: Any = tower_of(folder, "text_encoder", PLAIN_TEXT, variant)
    ids = token_ids(folder)
    return lambda words: tower(input_ids=ids(words)[None]).last_hidden_state


def _read_adapter(file: Path) -> dict[str, dict[str, Tensor]]:
    """Read an IP-Adapter as diffusers takes it."""
    adapter: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in weights.read(file).items():
        part, _, rest = name.partition(".")
        if part in adapter:
            adapter[part][rest] = value
    if not all(adapter.values()):
        raise MissingData(
            f"{file} holds no image_proj and ip_adapter", "give an IP-Adapter's safetensors file"
        )
    return adapter


def _draw_adapter(unet: Any, width: int, seed: int) -> dict[str, dict[str, Tensor]]:
    """Draw an adapter for embeddings of a width, with random weights on the U-Net's device."""
    cross, tokens = unet.config.cross_attention_dim, 4  # IP-Adapter's number
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return (0.1 * torch.randn(shape, generator=random)).to(unet.device, unet.dtype)

    image = {"proj.weight": draw(tokens * cross, width), "proj.bias": draw(tokens * cross)}
    image |= {"norm.weight": draw(cross) + 1, "norm.bias": draw(cross)}
    attentions = [unet.get_submodule(name.removesuffix(".processor")) for name in unet.attn_processors]
    crossed = [attention for attention in attentions if attention.is_cross_attention]
    maps = {
        f"{1 + 2 * place}.to_{kind}_ip.weight": draw(*getattr(attention, f"to_{kind}").weight.shape)
        for place, attention in enumerate(crossed)
        for kind in "kv"
    }
    return {"image_proj": image, "ip_adapter": maps}
