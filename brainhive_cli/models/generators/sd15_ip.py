"""Stable Diffusion 1.5 with an IP-Adapter, by text tokens and image embeddings, from noise or a latent.

Source: arXiv 2112.10752; IP-Adapter (arXiv 2308.06721); both as diffusers has them (Apache 2.0).
"""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from brainhive_cli.core import console, parts, weights
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.needs import Need, to_download
from brainhive_cli.models import single_file
from brainhive_cli.models.clip_conditions import VISION, tower_of
from brainhive_cli.models.conditioning import Conditioning
from brainhive_cli.models.generators import _components
from brainhive_cli.models.generators._architecture import Architecture
from brainhive_cli.models.generators._components import RANDOM
from brainhive_cli.models.generators._stable_diffusion import TINY_NETWORKS, Inputs, StableDiffusion
from brainhive_cli.models.generators._texts import STEM, TOKENS, Texts, clip_text

IMAGE_TOKENS = 257
"""Of CLIP's image encoders with 14-pixel patches."""
IMAGE_ENCODER = "image_encoder"
"""The folder next to the adapters, of the encoder that they were trained with."""
ADAPTER = "adapter"
"""In an architecture: `width` of the image embeddings."""
SD15: Architecture = {
    "unet": {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "attention_head_dim": 8,
        "cross_attention_dim": 768,
    },
    "vae": {
        "sample_size": 512,
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
    },
    "scheduler": {
        "_class_name": "PNDMScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    },
    ADAPTER: {"width": 1024},
}
"""config.json of stable-diffusion-v1-5's components; what is left out is diffusers' default."""


class Config(parts.Config):
    """A folder of Stable Diffusion 1's kind, and an IP-Adapter for it.

    Texts are CLIP ViT-L/14's last hidden states (encoder sd15-text). Image embeddings are what the adapter
    was trained on: those of clip-h14 for ip-adapter_sd15 (several tokens stand for as many pictures), of
    clip-h14:block-30 for ip-adapter-plus_sd15.
    """

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

    def build(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> StableDiffusion:
        """Load the generator, frozen, onto a device.

        Raises:
            MissingData: if the folder, one of its components or the adapter is absent or half-downloaded.
            BrainhiveError: if the U-Net is not of Stable Diffusion 1's type.
        """
        device = torch.device(device)
        if self.source == RANDOM:
            return self._drawn(device, dtype, self.architecture or SD15)
        folder = _components.folder_of(self.source, self.variant)
        components = _components.load(folder, dtype, self.variant, check_unet)
        state = _read_adapter(single_file.find(self.adapter))
        return self._of(components, state, device)

    def check(self) -> str:
        """Describe the generator and how much of it would be downloaded; raises as `build` does."""
        if self.source == RANDOM:
            return "random weights"
        _components.check_configs(self.source, check_unet)
        return f"{self.source} with {self.adapter}, {to_download(self.needs())}"

    def needs(self) -> list[Need]:
        """Look for the weights."""
        stems = (*_components.STEMS, *([STEM] if self.unconditional == "encoded" else []))
        adapter = [] if self.source == RANDOM else [single_file.need(self.adapter)]
        return _components.needs(self.source, self.variant, stems) + adapter

    def skeleton(self, dtype: torch.dtype) -> StableDiffusion:
        """Make the generator as `build` would, of shapes alone, on the meta device; the adapter is small."""
        further = {ADAPTER: SD15[ADAPTER]}
        architecture = _components.architecture_of(self, SD15, further=lambda: further)
        return self._drawn(torch.device("meta"), dtype, architecture)

    def _drawn(self, device: torch.device, dtype: torch.dtype, architecture: Architecture) -> StableDiffusion:
        where, hint = (
            f"the architecture of the generator {self.source}",
            "compare it with SD 1.5's config.json",
        )
        with weights.reading(where, hint, RecipeError, problem="cannot be built"):
            weights.check_sizes(architecture, where, hint, RecipeError)
            components = _components.draw(architecture, device, dtype, self.seed)
            adapter = _draw_adapter(components["unet"], architecture[ADAPTER]["width"], self.seed)
            return self._of(components, adapter, device)

    def _of(
        self, components: dict[str, Any], adapter: dict[str, Any], device: torch.device
    ) -> StableDiffusion:
        def attach(pipeline: Any) -> None:
            where = f"the IP-Adapter {self.adapter}"
            with (
                console.hushed(),
                weights.reading(where, "use one for Stable Diffusion 1", problem="does not fit"),
            ):
                pipeline.load_ip_adapter(adapter, None, None, image_encoder_folder=None)
            pipeline.set_ip_adapter_scale(self.image_share)

        return StableDiffusion(components, _Conditions(self, components["unet"], device), device, attach)


TINY = Config(
    source=RANDOM,
    architecture={
        **TINY_NETWORKS,
        "scheduler": SD15["scheduler"],
        ADAPTER: {"width": 16},
    },
)
"""Small enough for tests; its VAE shrinks pictures 4 times."""


def check_unet(config: dict[str, Any], where: Path | str) -> None:
    """Refuse a U-Net that needs more than text."""
    kind = config.get("addition_embed_type")
    if kind is not None:
        raise BrainhiveError(
            f"the U-Net of {where} is not of Stable Diffusion 1's type: addition_embed_type is {kind}",
            "use hub:stable-diffusion-v1-5/stable-diffusion-v1-5, or generator.kind=sdxl",
        )


def _read_adapter(file: Path) -> dict[str, dict[str, Tensor]]:
    """Read an IP-Adapter as diffusers takes it."""
    found: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in weights.read(file).items():
        part, _, rest = name.partition(".")
        if part in found:
            found[part][rest] = value
    if not all(found.values()):
        raise MissingData(
            f"{file} holds no image_proj and ip_adapter", "give an IP-Adapter's safetensors file"
        )
    return found


def _draw_adapter(unet: Any, width: int, seed: int) -> dict[str, dict[str, Tensor]]:
    """Draw an adapter for embeddings of a width, with random weights on the U-Net's device."""
    cross, tokens = unet.config.cross_attention_dim, 4  # IP-Adapter's number
    random = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return (0.1 * torch.randn(shape, generator=random)).to(unet.device, unet.dtype)

    image = {"proj.weight": drawn(tokens * cross, width), "proj.bias": drawn(tokens * cross)}
    image |= {"norm.weight": drawn(cross) + 1, "norm.bias": drawn(cross)}
    attentions = [unet.get_submodule(name.removesuffix(".processor")) for name in unet.attn_processors]
    crossed = [each for each in attentions if each.is_cross_attention]
    own = {
        f"{1 + 2 * place}.to_{kind}_ip.weight": drawn(*getattr(each, f"to_{kind}").weight.shape)
        for place, each in enumerate(crossed)
        for kind in "kv"
    }
    return {"image_proj": image, "ip_adapter": own}


class _Conditions:
    """Text tokens and the adapter's image embeddings.

    Args:
        config: Where encoders are.
        unet: With the adapter, once it is attached.
        device: Where the U-Net takes them.
    """

    def __init__(self, config: Config, unet: Any, device: torch.device) -> None:
        self.config, self.unet, self.device = config, unet, device
        self.texts = Texts(partial(clip_text, config.source, config.variant))
        self._no_picture: Tensor | None = None

    def given(self, conditioning: Conditioning, prompt: str, rows: int) -> Inputs:
        """Give text tokens and image embeddings of B rows; what is not there is the unconditional one."""
        text = self.texts.tokens(conditioning.texts, prompt)
        text = self._own_text(TOKENS) if text is None else text
        embeddings = conditioning.embeddings
        if embeddings is None:
            embeddings = self._own_image(IMAGE_TOKENS if self._is_plus else 1)
        return self._checked(text, embeddings, rows)

    def unconditional(self, null: Conditioning, prompt: str, like: Inputs) -> Inputs:
        """Give the unconditional side: what `null` or the negative prompt says, else the generator's own."""
        text = self.texts.tokens(None if prompt else null.texts, prompt)
        text = self._own_text(like.text.shape[1]) if text is None else text
        image = null.embeddings
        if image is None:
            image = self._own_image(0 if like.image is None else like.image.shape[-2])
        found = self._checked(text, image, len(like.text))
        for one, other in ((found.text, like.text), (found.image, like.image)):
            if one is not None and other is not None and one.shape != other.shape:
                raise BrainhiveError(
                    f"the condition has the shape {list(other.shape)}, the unconditional {list(one.shape)}",
                    "use heads that predict sd15-text and clip-h14, or generator.unconditional=zeros",
                )
        return found

    @property
    def _is_plus(self) -> bool:
        return hasattr(self._projection, "proj_in")

    @property
    def _projection(self) -> Any:
        return self.unet.encoder_hid_proj.image_projection_layers[0]

    @property
    def _image_width(self) -> int:
        layer = self._projection.proj_in if self._is_plus else self._projection.image_embeds
        return int(layer.in_features)

    def _own_text(self, count: int) -> Tensor:
        if self.config.unconditional == "encoded" and self.config.source != RANDOM:
            found = self.texts.tokens([""], "")
            assert found is not None
            return found
        return torch.zeros(1, count, self.unet.config.cross_attention_dim)

    def _own_image(self, count: int) -> Tensor:
        is_encoded = self.config.unconditional == "encoded" and self.config.source != RANDOM
        if not (self._is_plus and is_encoded):
            return torch.zeros(1, count, self._image_width)
        if self._no_picture is None:
            self._no_picture = _tokens_of_no_picture(self.config.adapter)
        return self._no_picture

    def _checked(self, text: Tensor, image: Tensor, rows: int) -> Inputs:
        widths = {"text": self.unet.config.cross_attention_dim, "image": self._image_width}
        for (name, width), given in zip(widths.items(), (text, image), strict=True):
            if given.ndim != 3 or given.shape[-1] != width:
                encoder = {"text": "sd15-text", "image": "clip-h14:block-30" if self._is_plus else "clip-h14"}
                raise BrainhiveError(
                    f"the generator takes {name} embeddings [B, S, {width}], not {list(given.shape)}",
                    f"use a head that predicts the encoder {encoder[name]}, or another generator.adapter",
                )
        text, image = (each.to(self.device, self.unet.dtype).expand(rows, -1, -1) for each in (text, image))
        return Inputs(text, image[:, None] if self._is_plus else image)


def _tokens_of_no_picture(adapter: str) -> Tensor:
    """Encode the zero picture by the encoder next to the adapter: [1, S, D], before the last block.

    Source: IP-Adapter's repository, IPAdapterPlus.get_image_embeds (Apache 2.0).
    """
    folder = single_file.folder_of(
        adapter, [f"{IMAGE_ENCODER}/config.json", f"{IMAGE_ENCODER}/model.safetensors"]
    )
    tower: Any = tower_of(folder, IMAGE_ENCODER, VISION)
    side = tower.config.image_size
    with torch.inference_mode():
        found = tower(torch.zeros(1, 3, side, side), output_hidden_states=True)
    tokens: Tensor = found.hidden_states[-2]
    return tokens
