"""Versatile Diffusion with dual guidance, by image tokens and text tokens, from noise
or a latent.

Source: arXiv 2211.08332; diffusers' VersatileDiffusionDualGuidedPipeline (Apache 2.0).
"""

import copy
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import hub, weights
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import MissingData
from brainhive_cli.models import clip_conditions as clip
from brainhive_cli.models.foreign_weights import load_network
from brainhive_cli.models.generators import _components, _latent_diffusion
from brainhive_cli.models.generators._components import (
    ARCHITECTURES,
    RANDOM,
    Architecture,
)
from brainhive_cli.models.heads import Conditioning

ARCHITECTURE = ARCHITECTURES["versatile-diffusion"]
UNETS = ("image_unet", "text_unet")
STEMS = {**dict.fromkeys((*UNETS, "vae"), _components.WEIGHTS)}
STEMS |= dict.fromkeys((clip.IMAGE_FOLDER, clip.TEXT_FOLDER), "pytorch_model")
"""Weights of each component; the publisher's are pickles."""
FILES = tuple(f"{component}/{stem}.bin" for component, stem in STEMS.items())
UNET_FILE, VAE_FILE, UNCONDITIONAL = (
    "unet.safetensors",
    "vae.safetensors",
    "unconditional.safetensors",
)
"""Files of a converted folder, which stands for the whole."""
SMALL = ("*/*.json", "tokenizer/*", UNET_FILE, VAE_FILE, UNCONDITIONAL)
"""What is fetched before it is known whether the published weights are needed."""
IMAGE_TOKENS = 257
"""Of a picture, by CLIP ViT-L/14."""
BLACK_PX = 224
"""Side of the black picture that is the unconditional one."""


class Config(_latent_diffusion.Config):
    """The published folder, and how image and text are mixed.

    Sampling is the recipe's; Brain-Diffuser's is DDIM, 50 steps, strength 0.75,
    guidance 7.5.
    """

    cites = ("xu2023",)
    published = ARCHITECTURE
    folders = {"unet": "image_unet", "vae": "vae", "scheduler": "scheduler"}  # noqa: RUF012 (never changed)

    source: str = Field(
        clip.SOURCE,
        description="hub:OWNER/NAME, a folder, or `random` (tests, benchmarks).",
    )
    text_share: float = Field(
        0.4,
        ge=0,
        le=1,
        description="Share of the text in the change by each attention block, the rest "
        "is the image's; Brain-Diffuser: 0.4, MindEye1: 0.",
    )
    unconditional: Literal["encoded", "zeros"] = Field(
        "encoded",
        description="What guidance moves away from, and what stands for a condition "
        "that the prior does not give: the empty prompt and a black "
        "picture, encoded (Brain-Diffuser), or zeros (MindEye1).",
    )

    def check(self) -> None:
        """Read the configs; all files of a folder that is not the hub's must be there
        too.
        """
        if self.source == RANDOM:
            return
        self.read_configs()
        folder = hub.folder(self.source, allow=SMALL)
        # the hub's files are downloaded when needed, a folder must have them all
        if not self.source.startswith("hub:") and not _is_converted(
            self.source, folder
        ):
            _require(folder)

    def inputs(self) -> list[Input]:
        """Look for the published weights, which are not needed once they are
        converted.
        """
        if self.source == RANDOM:
            return []
        # an absent folder is reported by the inputs below
        with suppress(MissingData):
            if _is_converted(self.source, hub.folder(self.source, allow=SMALL)):
                return []
        patterns = (*SMALL[:2], *FILES)
        return [hub.find_input(self.source, (), (file,), patterns) for file in FILES]

    def load(self, dtype: torch.dtype, folder: Path | None = None) -> dict[str, Any]:
        """Load U-Net, VAE and scheduler of the converted folder, and its unconditional
        tokens in float32.
        """
        import diffusers

        # convert the published weights, if that was not done before
        published = hub.folder(self.source, allow=SMALL)
        configs = self.read_configs()
        folder = folder or _convert_once(self.source, published, configs["unet"], dtype)

        # fill networks of shapes alone
        with torch.device("meta"):
            unet = make_dual(
                diffusers.UNet2DConditionModel.from_config(configs["unet"])
            )
            vae = diffusers.AutoencoderKL.from_config(configs["vae"])
        for name, network in ((UNET_FILE, unet), (VAE_FILE, vae)):
            weights.fill(network, weights.read(folder / name), folder / name)
            _components.cast(network, dtype)

        # tokens of the empty prompt and the black picture
        unconditional = (
            weights.read(folder / UNCONDITIONAL)
            if self.unconditional == "encoded"
            else {}
        )
        scheduler = _components.make_scheduler(configs["scheduler"], published)
        return {
            "unet": unet,
            "vae": vae,
            "scheduler": scheduler,
            UNCONDITIONAL: unconditional,
        }

    def draw(
        self, architecture: Architecture, device: torch.device, dtype: torch.dtype
    ) -> dict[str, Any]:
        """Make the components with random weights; zeros are their unconditional
        tokens.
        """
        components = _components.draw_components(architecture, device, dtype, make_dual)
        return {**components, UNCONDITIONAL: {}}

    def assemble(
        self, components: dict[str, Any], device: torch.device
    ) -> "VersatileDiffusion":
        """Make the generator of its components."""
        return VersatileDiffusion(self, components, device)


TINY = Config(source=RANDOM, architecture=ARCHITECTURES["versatile-diffusion TINY"])
"""Small enough for tests; its VAE shrinks pictures 4 times."""


class VersatileDiffusion(_latent_diffusion.StableDiffusion):
    """Pictures by text tokens and image tokens, which a dual U-Net attends to at
    once.
    """

    text_encoder = "vd-text"

    def prepare(self, components: dict[str, Any]) -> None:
        """Take the unconditional tokens: `text` and `image` [1, S, D]; zeros stand for
        those left out.
        """
        super().prepare(components)
        self.encodes_absent &= self.config.unconditional == "encoded"
        self._unconditional = components[UNCONDITIONAL]
        # converted tokens of the empty prompt spare the text encoder
        if self._unconditional:
            self.embedded_texts[""] = self._unconditional["text"]

    def load_text_encoder(self) -> Callable[[str], Tensor]:
        """Load the text encoder: from a text to its tokens [1, S, D]."""
        folder = hub.folder(
            self.config.source, allow=(*SMALL, f"{clip.TEXT_FOLDER}/*.bin")
        )
        ids = clip.load_tokenizer(folder)
        tower = clip.load_tower(folder, clip.TEXT_FOLDER, clip.PROJECTED_TEXT_TOWER)
        return lambda words: clip.encode_texts(tower, ids(words)[None])

    def pipeline_inputs(self, request: _latent_diffusion.Request) -> dict[str, Any]:
        """Give the tokens of both sides of guidance, which has a null of its own."""
        rows = len(request.seeds)
        sampling = request.sampling
        towards = self.tokens(request.conditioning, sampling.prompt, rows)
        away = self.tokens(request.null, sampling.negative_prompt, rows, towards)
        # of `Dual`
        attention = {
            "text_tokens": towards[0].shape[1],
            "text_share": self.config.text_share,
        }
        return {
            "prompt_embeds": torch.cat(towards, 1),
            "negative_prompt_embeds": torch.cat(away, 1),
            "cross_attention_kwargs": attention,
        }

    def predict(
        self,
        latents: Tensor,
        times: Tensor,
        conditioning: Conditioning,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise of latents [B, C, h, w] at timesteps [B], or what else the
        U-Net predicts.
        """
        tokens = self.tokens(conditioning, "", len(latents))
        # of `Dual`
        attention = {
            "text_tokens": tokens[0].shape[1],
            "text_share": self.config.text_share,
        }
        return self.run_unet(
            latents, times, torch.cat(tokens, 1), cross_attention_kwargs=attention
        )

    def tokens(
        self,
        conditioning: Conditioning,
        prompt: str,
        rows: int,
        towards: tuple[Tensor, ...] = (),
    ) -> tuple[Tensor, Tensor]:
        """Give text and image tokens of B rows; on the other side of guidance as many
        as `towards`.
        """
        towards_text, towards_image = towards or (None, None)
        text = self.text_tokens(conditioning.texts, prompt, rows, towards_text)

        # without an image, the tokens of the black picture, or zeros
        image = conditioning.embeddings
        width = self.unet.config.cross_attention_dim
        if image is None:
            image = self._unconditional.get("image")
        if image is None:
            count = IMAGE_TOKENS if towards_image is None else towards_image.shape[1]
            image = torch.zeros(1, count, width)
        return text, self.match_tokens(
            "image", image, width, rows, "vd-image", towards_image
        )


class Dual(nn.Module):
    """Two transformers side by side: each attends to its own tokens, and their changes
    are mixed.

    Source: DualTransformer2DModel of diffusers (Apache 2.0), which today's U-Nets
    cannot call.
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.image = transformer
        self.text = copy.deepcopy(transformer)

    def forward(
        self,
        hidden: Tensor,
        encoder_hidden_states: Tensor,
        cross_attention_kwargs: Mapping[str, Any],
        **_: Any,
    ) -> tuple[Tensor]:
        """Change hidden states [B, C, h, w].

        Args:
            hidden: The states.
            encoder_hidden_states: Text tokens, then image tokens: [B, S, D].
            cross_attention_kwargs: `text_tokens`, how many are text; `text_share` of
                the change, 0 to 1.
        """
        # both start from the same states; a transformer of share 0 is not run
        text, image = encoder_hidden_states.tensor_split(
            [cross_attention_kwargs["text_tokens"]], 1
        )
        share = cross_attention_kwargs["text_share"]
        mixed = hidden
        for weight, transformer, tokens in (
            (share, self.text, text),
            (1 - share, self.image, image),
        ):
            if weight:
                changed = transformer(
                    hidden, encoder_hidden_states=tokens, return_dict=False
                )[0]
                mixed = mixed + weight * (changed - hidden)
        return (mixed,)


def make_dual(unet: nn.Module) -> nn.Module:
    """Replace each transformer of a U-Net by two of its kind, which attend to image and
    text at once.
    """
    from diffusers import Transformer2DModel

    # a list, as modules are replaced on the way
    for name, module in list(unet.named_modules()):
        if isinstance(module, Transformer2DModel):
            parent, _, index = name.rpartition(".")
            unet.get_submodule(parent)[int(index)] = Dual(module)  # type: ignore[operator,index]
    return unet


def _is_converted(source: str, folder: Path) -> bool:
    return (folder / UNET_FILE).is_file() or _components.is_converted(
        _converted_name(source, folder)
    )


def _converted_name(source: str, folder: Path) -> str:
    """Name the folder of converted weights by what they are made of: the hub's commit,
    or the files.
    """
    digest = (
        hub.read_revision(folder)
        if source.startswith("hub:")
        else hub.digest(folder, FILES)
    )
    return f"versatile-diffusion-{digest[:12]}"


def _require(folder: Path) -> None:
    for file in (*FILES, clip.TOKENIZER_FOLDER, clip.PROCESSOR_FOLDER):
        if not (folder / file).exists():
            raise MissingData(
                f"the generator {folder} has no {file}", "download it again"
            )


def _convert_once(
    source: str, folder: Path, unet: Mapping[str, Any], dtype: torch.dtype
) -> Path:
    """Find the converted weights, or convert them, one component after the other."""
    import diffusers

    if (folder / UNET_FILE).is_file():  # converted elsewhere
        return folder
    if not source.startswith("hub:"):
        _require(folder)

    def convert(part: Path) -> None:
        # copy the small files, so that the converted folder stands for the complete one
        original = hub.folder(source, allow=SMALL + FILES)
        _require(original)
        for name in Config.folders.values():
            ignored = shutil.ignore_patterns("*.bin")
            shutil.copytree(
                original / name, part / name, ignore=ignored, dirs_exist_ok=True
            )

        # join image U-Net and text U-Net
        with torch.device("meta"):
            dual = make_dual(diffusers.UNet2DConditionModel.from_config(unet))
        states = [
            weights.read(original / name / f"{STEMS[name]}.bin") for name in UNETS
        ]  # mapped, not loaded
        state = {
            key: value.to(dtype) for key, value in _join_states(dual, *states).items()
        }
        weights.fill(dual, state, original / UNETS[1], _components.WHOLE, MissingData)
        weights.save(part / UNET_FILE, state)

        # store the autoencoder in the same precision
        where = f"vae of the generator {original}"
        vae = load_network(
            diffusers.AutoencoderKL, original / "vae", where, torch_dtype=dtype
        )
        weights.save(part / VAE_FILE, vae.state_dict())

        # encode an empty caption and a black picture: the unconditional side of
        # guidance
        with torch.inference_mode():
            ids = clip.load_tokenizer(original)("")
            processor = clip.read_preprocessor(
                original / clip.PROCESSOR_FOLDER, "CLIPImageProcessor"
            )
            # [3, H, W]
            pixels = clip.preprocess_picture(
                processor, Image.new("RGB", (BLACK_PX, BLACK_PX))
            )
            text = clip.encode_texts(
                clip.load_tower(original, clip.TEXT_FOLDER, clip.PROJECTED_TEXT_TOWER),
                ids[None],
            )
            image = clip.encode_pictures(
                clip.load_tower(original, clip.IMAGE_FOLDER, clip.IMAGE_TOWER),
                pixels[None],
            )
        weights.save(part / UNCONDITIONAL, {"text": text, "image": image})

    return _components.convert_once(
        _converted_name(source, folder), dtype, "Versatile Diffusion", convert
    )


def _join_states(
    unet: nn.Module, image: Mapping[str, Tensor], text: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Give a dual U-Net's weights: those of an image U-Net, and of a text U-Net its
    attentions'.
    """
    # the image U-Net gives all weights but the text attentions, which the text U-Net
    # gives
    duals = [
        f"{name}." for name, module in unet.named_modules() if isinstance(module, Dual)
    ]
    joined = {}
    for kind, state in (("image", image), ("text", text)):
        for key, value in state.items():
            dual = next((name for name in duals if key.startswith(name)), None)
            if dual is not None:
                joined[f"{dual}{kind}.{key.removeprefix(dual)}"] = value
            elif kind == "image":
                joined[key] = value
    return joined
