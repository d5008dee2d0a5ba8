"""Versatile Diffusion, guided by image tokens and text tokens.

Source: arXiv 2211.08332. diffusers' VersatileDiffusionDualGuidedPipeline (Apache 2.0).
"""

import copy
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core.base import MissingData
from brainhive_cli.core.files import Input, hub
from brainhive_cli.core.runs import weights
from brainhive_cli.models import Conditioning, clip_conditions as clip, load_network
from brainhive_cli.models.generators import _components, _latent_diffusion
from brainhive_cli.models.generators._components import (
    ARCHITECTURES,
    RANDOM,
    Architecture,
)

ARCHITECTURE = ARCHITECTURES["versatile-diffusion"]
WEIGHTS_STEMS = {
    "image_unet": _components.WEIGHTS_STEM,
    "text_unet": _components.WEIGHTS_STEM,
    "vae": _components.WEIGHTS_STEM,
    clip.IMAGE_FOLDER: "pytorch_model",
    clip.TEXT_FOLDER: "pytorch_model",
}
"""Published weight file of each component, a pickle, without ending."""
WEIGHT_FILES = tuple(
    f"{component}/{stem}.bin" for component, stem in WEIGHTS_STEMS.items()
)
UNET_FILE = "unet.safetensors"
VAE_FILE = "vae.safetensors"
UNCONDITIONAL_FILE = "unconditional.safetensors"
"""Files of a converted folder, which replaces the published folder."""
CONFIG_PATTERNS = ("*/*.json", "tokenizer/*")
SMALL_FILES = CONFIG_PATTERNS + (UNET_FILE, VAE_FILE, UNCONDITIONAL_FILE)
"""Patterns of the files that are downloaded before the published weights."""


class Config(_latent_diffusion.Config):
    """Published folder, and the mixture of image and text.

    Brain-Diffuser samples with DDIM, 50 steps, strength 0.75 and guidance 7.5.
    """

    cites = ("xu2023",)
    called = "Versatile Diffusion"
    published_architecture = ARCHITECTURE
    component_folders = {"unet": "image_unet", "vae": "vae", "scheduler": "scheduler"}  # noqa: RUF012 (never changed)

    source: str = Field(
        clip.SOURCE,
        description="hub:OWNER/NAME, a folder, or `random` weights.",
    )
    text_share: float = Field(
        0.4,
        ge=0,
        le=1,
        description="Share of the text in the change by each attention block, besides "
        "the share of the image. Brain-Diffuser: 0.4, MindEye1: 0.",
    )
    unconditional: Literal["encoded", "zeros"] = Field(
        "encoded",
        description="Tokens from which guidance moves away, and which replace absent "
        "conditions: the empty prompt and a black picture, encoded (Brain-Diffuser), "
        "or zeros (MindEye1).",
    )

    def check(self) -> None:
        """Raise an error if a config, or a file of a local folder, is absent."""
        if self.source == RANDOM:
            return
        self.read_configs()
        folder = hub.folder(self.source, allow=SMALL_FILES)
        # files at the hub are downloaded when they are needed
        is_local = not self.source.startswith("hub:")
        if is_local and not _is_converted(self.source, folder):
            _require_files(folder)

    def inputs(self) -> list[Input]:
        """List the published weights with their states, unless they are converted."""
        if self.source == RANDOM:
            return []
        # an absent folder is reported by the inputs below
        with suppress(MissingData):
            if _is_converted(self.source, hub.folder(self.source, allow=SMALL_FILES)):
                return []
        patterns = CONFIG_PATTERNS + WEIGHT_FILES
        return [
            hub.find_input(self.source, (), (file,), patterns) for file in WEIGHT_FILES
        ]

    def load_components(
        self, dtype: torch.dtype, folder: Path | None = None
    ) -> dict[str, Any]:
        """Load the components of the converted folder, and convert it if necessary.

        Unconditional tokens are in float32.
        """
        import diffusers

        source_folder = hub.folder(self.source, allow=SMALL_FILES)
        configs = self.read_configs()
        folder = folder or _convert_once(
            self.source, source_folder, configs["unet"], dtype
        )

        # make networks with shapes only, and fill them
        with torch.device("meta"):
            plain_unet = diffusers.UNet2DConditionModel.from_config(configs["unet"])
            unet = make_dual_unet(plain_unet)
            vae = diffusers.AutoencoderKL.from_config(configs["vae"])
        for name, network in ((UNET_FILE, unet), (VAE_FILE, vae)):
            weights.fill(network, weights.read(folder / name), folder / name)
            _components.change_dtype(network, dtype)

        unconditional_tokens = {}
        if self.unconditional == "encoded":
            unconditional_tokens = weights.read(folder / UNCONDITIONAL_FILE)
        return {
            "unet": unet,
            "vae": vae,
            "scheduler": _components.make_scheduler(
                configs["scheduler"], source_folder
            ),
            "unconditional_tokens": unconditional_tokens,
        }

    def draw_components(
        self, architecture: Architecture, device: torch.device, dtype: torch.dtype
    ) -> dict[str, Any]:
        """Make the components with random weights. Unconditional tokens are zeros."""
        components = _components.draw_components(
            architecture, device, dtype, make_dual_unet
        )
        components["unconditional_tokens"] = {}
        return components

    def assemble(
        self, components: dict[str, Any], device: torch.device
    ) -> "VersatileDiffusion":
        """Make the generator from its components."""
        return VersatileDiffusion(self, components, device)


TINY = Config(source=RANDOM, architecture=ARCHITECTURES["versatile-diffusion TINY"])
"""Config for tests, whose latents have a fourth of the pictures' side."""


class TokenPair(NamedTuple):
    """Tokens of both streams of the dual U-Net.

    Attributes:
        text: Text tokens [B, S, D].
        image: Image tokens [B, S, D].
    """

    text: Tensor
    image: Tensor


class VersatileDiffusion(_latent_diffusion.StableDiffusion):
    """Generator of pictures whose dual U-Net attends to text and image tokens."""

    text_encoder = "vd-text"

    def add_components(self, components: dict[str, Any]) -> None:
        """Add the unconditional tokens [1, S, D] of `text` and `image`."""
        super().add_components(components)
        self.encodes_missing_texts &= self.config.unconditional == "encoded"
        self._unconditional_tokens = components["unconditional_tokens"]
        # the empty prompt then needs no text encoder
        if self._unconditional_tokens:
            self.text_cache[""] = self._unconditional_tokens["text"]

    def load_text_encoder(self) -> Callable[[str], Tensor]:
        """Return a function that embeds a text as tokens [1, S, D]."""
        folder = hub.folder(
            self.config.source, allow=SMALL_FILES + (f"{clip.TEXT_FOLDER}/*.bin",)
        )
        tokenize = clip.load_tokenizer(folder)
        tower = clip.load_tower(folder, clip.TEXT_FOLDER, clip.PROJECTED_TEXT_TOWER)
        return lambda text: clip.encode_texts(tower, tokenize(text)[None])

    def pipeline_inputs(self, request: _latent_diffusion.Request) -> dict[str, Any]:
        """Return the arguments of the pipelines, with and without the condition."""
        rows = len(request.seeds)
        sampling = request.sampling
        conditional = self._prepare_pair(request.conditioning, sampling.prompt, rows)
        unconditional = self._prepare_pair(
            request.null, sampling.negative_prompt, rows, conditional
        )
        return {
            "prompt_embeds": torch.cat(conditional, 1),
            "negative_prompt_embeds": torch.cat(unconditional, 1),
            "cross_attention_kwargs": self._describe_pair(conditional),
        }

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise of latents [B, C, h, w]. `sizes` have no effect."""
        pair = self._prepare_pair(conditioning, "", len(latents))
        return self.run_unet(
            latents,
            timesteps,
            torch.cat(pair, 1),
            cross_attention_kwargs=self._describe_pair(pair),
        )

    def _describe_pair(self, pair: TokenPair) -> dict[str, Any]:
        """Return the `cross_attention_kwargs` of `DualTransformer`."""
        return {
            "text_tokens": pair.text.shape[1],
            "text_share": self.config.text_share,
        }

    def _prepare_pair(
        self,
        conditioning: Conditioning,
        prompt: str,
        rows: int,
        conditional: TokenPair | None = None,
    ) -> TokenPair:
        """Prepare text and image tokens for guidance.

        Args:
            conditioning: Texts and image embeddings. Either can be absent.
            prompt: Text of all rows, or "".
            rows: Number of rows B.
            conditional: Tokens with the condition if the unconditional are prepared,
                else None.
        """
        conditional_text = None if conditional is None else conditional.text
        conditional_image = None if conditional is None else conditional.image
        text = self.prepare_text_tokens(
            conditioning.texts, prompt, rows, conditional_text
        )

        # without an image, use the tokens of the black picture, or zeros
        width = self.unet.config.cross_attention_dim
        image = conditioning.embeddings
        if image is None:
            image = self._unconditional_tokens.get("image")
        if image is None:
            # Number of tokens of a picture in CLIP ViT-L/14.
            n_tokens = 257
            if conditional_image is not None:
                n_tokens = conditional_image.shape[1]
            image = torch.zeros(1, n_tokens, width)
        image = self.prepare_guided_tokens(
            "image", image, width, rows, "vd-image", conditional_image
        )
        return TokenPair(text, image)


class DualTransformer(nn.Module):
    """Mixture of two transformers, which attend to image tokens and text tokens.

    Source: DualTransformer2DModel of diffusers (Apache 2.0), which current U-Nets
    cannot call.
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.image = transformer
        self.text = copy.deepcopy(transformer)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        cross_attention_kwargs: Mapping[str, Any],
        **_: Any,
    ) -> tuple[Tensor]:
        """Add the weighted changes of both transformers to the hidden states.

        Args:
            hidden_states: Hidden states [B, C, h, w].
            encoder_hidden_states: Text tokens followed by image tokens [B, S, D].
            cross_attention_kwargs: `text_tokens`, the number of text tokens, and
                `text_share`, the weight of the text in 0..1.
        """
        n_text_tokens = cross_attention_kwargs["text_tokens"]
        text_share = cross_attention_kwargs["text_share"]
        text_tokens, image_tokens = encoder_hidden_states.tensor_split(
            [n_text_tokens], 1
        )
        mixed = hidden_states
        for weight, transformer, tokens in (
            (text_share, self.text, text_tokens),
            (1 - text_share, self.image, image_tokens),
        ):
            # a transformer without weight is not run
            if weight:
                outputs = transformer(
                    hidden_states, encoder_hidden_states=tokens, return_dict=False
                )
                mixed = mixed + weight * (outputs[0] - hidden_states)
        return (mixed,)


def make_dual_unet(unet: nn.Module) -> nn.Module:
    """Replace each transformer of a U-Net by a `DualTransformer` of two copies."""
    from diffusers import Transformer2DModel

    # a list, because the loop replaces modules
    for name, module in list(unet.named_modules()):
        if isinstance(module, Transformer2DModel):
            parent, _, index = name.rpartition(".")
            unet.get_submodule(parent)[int(index)] = DualTransformer(module)  # type: ignore[operator,index]
    return unet


def _is_converted(source: str, folder: Path) -> bool:
    """Return True if the folder of a source, or a folder in home, is converted."""
    if (folder / UNET_FILE).is_file():
        return True
    return _components.is_converted(_name_conversion(source, folder))


def _name_conversion(source: str, folder: Path) -> str:
    """Name a conversion by the commit at the hub, or by the digest of the files."""
    if source.startswith("hub:"):
        digest = hub.read_revision(folder)
    else:
        digest = hub.digest(folder, WEIGHT_FILES)
    return f"versatile-diffusion-{digest[:12]}"


def _require_files(folder: Path) -> None:
    """Raise an error if a published file is absent."""
    for file in WEIGHT_FILES + (clip.TOKENIZER_FOLDER, clip.PROCESSOR_FOLDER):
        if not (folder / file).exists():
            raise MissingData(
                f"the generator {folder} has no {file}", "download it again"
            )


def _convert_once(
    source: str, folder: Path, unet_config: Mapping[str, Any], dtype: torch.dtype
) -> Path:
    """Return the folder of converted weights, and convert them if necessary."""
    # a source can be a folder that was converted before
    if (folder / UNET_FILE).is_file():
        return folder
    if not source.startswith("hub:"):
        _require_files(folder)
    return _components.convert_once(
        _name_conversion(source, folder),
        dtype,
        "Versatile Diffusion",
        partial(_convert, source, unet_config, dtype),
    )


def _convert(
    source: str, unet_config: Mapping[str, Any], dtype: torch.dtype, folder: Path
) -> None:
    """Convert the published weights to an existing folder, component by component."""
    import diffusers

    # copy small files, so that the converted folder replaces the published folder
    published_folder = hub.folder(source, allow=SMALL_FILES + WEIGHT_FILES)
    _require_files(published_folder)
    for name in Config.component_folders.values():
        shutil.copytree(
            published_folder / name,
            folder / name,
            ignore=shutil.ignore_patterns("*.bin"),
            dirs_exist_ok=True,
        )

    # join image U-Net and text U-Net, whose files are mapped and not loaded
    with torch.device("meta"):
        dual_unet = make_dual_unet(
            diffusers.UNet2DConditionModel.from_config(unet_config)
        )
    state_dicts = {}
    unets = ("image_unet", "text_unet")
    for name in unets:
        file = published_folder / name / f"{WEIGHTS_STEMS[name]}.bin"
        state_dicts[name] = weights.read(file)
    state_dict = _join_state_dicts(
        dual_unet, state_dicts["image_unet"], state_dicts["text_unet"]
    )
    for key, value in state_dict.items():
        state_dict[key] = value.to(dtype)
    weights.fill(
        dual_unet,
        state_dict,
        published_folder / unets[1],
        _components.WHOLE_FOLDER_HINT,
        MissingData,
    )
    weights.save(folder / UNET_FILE, state_dict)

    vae = load_network(
        diffusers.AutoencoderKL,
        published_folder / "vae",
        f"vae of the generator {published_folder}",
        torch_dtype=dtype,
    )
    weights.save(folder / VAE_FILE, vae.state_dict())

    # encode the unconditional tokens of guidance: the empty text and a black picture
    with torch.inference_mode():
        token_ids = clip.load_tokenizer(published_folder)("")
        processor = clip.read_preprocessor(
            published_folder / clip.PROCESSOR_FOLDER, "CLIPImageProcessor"
        )
        # Side of the black picture, whose tokens are the unconditional image tokens.
        black_px = 224
        black_picture = Image.new("RGB", (black_px, black_px))
        pixels = clip.preprocess_picture(processor, black_picture)  # [3, H, W]
        text_tower = clip.load_tower(
            published_folder, clip.TEXT_FOLDER, clip.PROJECTED_TEXT_TOWER
        )
        text = clip.encode_texts(text_tower, token_ids[None])
        image_tower = clip.load_tower(
            published_folder, clip.IMAGE_FOLDER, clip.IMAGE_TOWER
        )
        image = clip.encode_pictures(image_tower, pixels[None])
    weights.save(folder / UNCONDITIONAL_FILE, {"text": text, "image": image})


def _join_state_dicts(
    dual_unet: nn.Module,
    image_state: Mapping[str, Tensor],
    text_state: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Join the image U-Net with the attention weights of the text U-Net.

    The keys are the keys of the dual U-Net.
    """
    prefixes = []
    for name, module in dual_unet.named_modules():
        if isinstance(module, DualTransformer):
            prefixes.append(f"{name}.")

    joined = {}
    for kind, state_dict in (("image", image_state), ("text", text_state)):
        for key, value in state_dict.items():
            for prefix in prefixes:
                if key.startswith(prefix):
                    joined[f"{prefix}{kind}.{key.removeprefix(prefix)}"] = value
                    break
            else:
                # both U-Nets have the other weights
                if kind == "image":
                    joined[key] = value
    return joined
