"""Versatile Diffusion with dual guidance, by image tokens and text tokens, from noise or a latent.

Source: arXiv 2211.08332; diffusers' VersatileDiffusionDualGuidedPipeline (Apache 2.0).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from brainhive_cli.core import hub, parts, weights
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.needs import Need, to_download
from brainhive_cli.models.clip_conditions import PROJECTED_TEXT, SOURCE, TEXT, of_texts, token_ids, tower_of
from brainhive_cli.models.conditioning import Conditioning
from brainhive_cli.models.generators import _components, _versatile_folder
from brainhive_cli.models.generators._components import RANDOM
from brainhive_cli.models.generators._dual import make_dual
from brainhive_cli.models.generators._stable_diffusion import TINY_NETWORKS, Inputs, StableDiffusion
from brainhive_cli.models.generators._texts import Texts

LENGTHS = {"text": 77, "image": 257}
"""Tokens of a text and of a picture, by CLIP ViT-L/14."""
ARCHITECTURE: dict[str, dict[str, Any]] = {
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
        "_class_name": "DDIMScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    },
}
"""config.json of the components of shi-labs/versatile-diffusion; what is left out is diffusers' default."""


class Config(parts.Config):
    """The published folder, and how image and text are mixed.

    Sampling is the recipe's; Brain-Diffuser's is DDIM, 50 steps, strength 0.75, guidance 7.5.
    """

    source: str = Field(SOURCE, description="hub:OWNER/NAME, a folder, or `random` (tests, benchmarks).")
    text_share: float = Field(
        0.4,
        ge=0,
        le=1,
        description="Share of the text in the change by each attention block, the rest is the image's; "
        "Brain-Diffuser: 0.4, MindEye1: 0.",
    )
    unconditional: Literal["encoded", "zeros"] = Field(
        "encoded",
        description="What guidance moves away from, and what stands for a condition that the prior does not "
        "give: the empty prompt and a black picture, encoded (Brain-Diffuser), or zeros (MindEye1).",
    )
    architecture: dict[str, dict[str, Any]] | None = Field(
        None,
        description="Arguments of unet, vae and scheduler for source `random`; without them the published.",
    )
    seed: int = Field(0, ge=0, description="Seed of the weights for source `random`.")

    def build(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> StableDiffusion:
        """Load the generator, frozen, onto a device; at first its weights are converted and kept.

        Raises:
            MissingData: if the folder or one of its components is absent or half-downloaded.
        """
        device = torch.device(device)
        if self.source == RANDOM:
            return self._drawn(device, dtype, self.architecture or ARCHITECTURE)
        components, encoded = _versatile_folder.load(self.source, dtype)
        with weights.reading(f"the generator {self.source}"):
            return self._of(components, encoded if self.unconditional == "encoded" else {}, device)

    def check(self) -> str:
        """Describe the generator and how much of it would be downloaded; raises as `build` does."""
        if self.source == RANDOM:
            return "random weights"
        _versatile_folder.check(self.source)
        return f"{self.source}, {to_download(self.needs())}"

    def needs(self) -> list[Need]:
        """Look for the published weights, which are not needed once they are converted."""
        return [] if self.source == RANDOM else _versatile_folder.needs(self.source)

    def skeleton(self, dtype: torch.dtype) -> StableDiffusion:
        """Make the generator as `build` would, of shapes alone, on the meta device."""
        folders = {"unet": "image_unet", "vae": "vae", "scheduler": "scheduler"}
        architecture = _components.architecture_of(self, ARCHITECTURE, folders)
        return self._drawn(torch.device("meta"), dtype, architecture)

    def _drawn(
        self, device: torch.device, dtype: torch.dtype, architecture: dict[str, dict[str, Any]]
    ) -> StableDiffusion:
        where, hint = f"the architecture of the generator {self.source}", "compare it with the published one"
        with weights.reading(where, hint, RecipeError, problem="cannot be built"):
            weights.check_sizes(architecture, where, hint, RecipeError)
            drawn = _components.draw(architecture, device, dtype, self.seed, make_dual)
            return self._of(drawn, {}, device)

    def _of(
        self, components: dict[str, Any], encoded: Mapping[str, Tensor], device: torch.device
    ) -> StableDiffusion:
        return StableDiffusion(components, _Tokens(self, components["unet"], encoded, device), device)


TINY = Config(
    source=RANDOM,
    architecture={
        **TINY_NETWORKS,
        "scheduler": ARCHITECTURE["scheduler"],
    },
)
"""Small enough for tests; its VAE shrinks pictures 4 times."""


class _Tokens:
    """Text tokens, then image tokens, as the dual U-Net takes them.

    Args:
        config: Shares, and where the text encoder is, should there be prompts.
        unet: Whose width and dtype they have.
        encoded: `text` and `image` [1, S, D] of the unconditional side; zeros where they are not given.
        device: Where the U-Net takes them.
    """

    def __init__(
        self, config: Config, unet: Any, encoded: Mapping[str, Tensor], device: torch.device
    ) -> None:
        self.config, self.width, self.dtype, self.device = (
            config,
            unet.config.cross_attention_dim,
            unet.dtype,
            device,
        )
        self.encoded = encoded
        self.texts = Texts(partial(_text_encoder, config.source))

    def given(self, conditioning: Conditioning, prompt: str, rows: int) -> Inputs:
        """Give text and image tokens of B rows; a condition that is not there is the unconditional one."""
        texts = self.texts.tokens(conditioning.texts, prompt)
        text, image = (
            self._own(name, LENGTHS[name]) if tokens is None else tokens
            for name, tokens in (("text", texts), ("image", conditioning.embeddings))
        )
        return self._joined(text, image, rows)

    def unconditional(self, null: Conditioning, prompt: str, like: Inputs) -> Inputs:
        """Give the unconditional side: tokens of `null` or the negative prompt, else the generator's own."""
        count = like.attention["text_tokens"] if like.attention else 0
        texts = self.texts.tokens(None if prompt else null.texts, prompt)
        text = self._own("text", count) if texts is None else texts
        image = null.embeddings
        if image is None:
            image = self._own("image", like.text.shape[1] - count)
        found = self._joined(text, image, len(like.text))
        if found.text.shape != like.text.shape or found.attention != like.attention:
            raise BrainhiveError(
                f"the condition has {count} text tokens and {like.text.shape[1] - count} image tokens, the "
                f"unconditional side {text.shape[1]} and {image.shape[1]}",
                "use heads that predict the encoders vd-text and vd-image, or generator.unconditional=zeros",
            )
        return found

    def _own(self, name: str, count: int) -> Tensor:
        """Give the unconditional tokens: encoded, or as many zeros."""
        return self.encoded[name] if name in self.encoded else torch.zeros(1, count, self.width)

    def _joined(self, text: Tensor, image: Tensor, rows: int) -> Inputs:
        for name, tokens in (("text", text), ("image", image)):
            if tokens.ndim != 3 or tokens.shape[-1] != self.width:
                raise BrainhiveError(
                    f"the generator takes {name} tokens [B, S, {self.width}], not {list(tokens.shape)}",
                    f"use a head that predicts the encoder vd-{name}",
                )
        both = [tokens.to(self.device, self.dtype).expand(rows, -1, -1) for tokens in (text, image)]
        attention = {"text_tokens": text.shape[1], "text_share": self.config.text_share}
        return Inputs(torch.cat(both, 1), attention=attention)


def _text_encoder(source: str) -> Callable[[str], Tensor]:
    """Load the text encoder: a prompt to its tokens [1, S, D]."""
    if source == RANDOM:
        raise MissingData(
            "a generator of random weights has no text encoder for prompts", "leave prompts out"
        )
    folder = hub.folder(source, allow=(*_versatile_folder.SMALL, f"{TEXT}/*.bin"))
    ids, tower = token_ids(folder), tower_of(folder, TEXT, PROJECTED_TEXT)
    return lambda words: of_texts(tower, ids(words)[None])
