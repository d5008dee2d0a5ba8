"""An SDXL-type diffusion model, conditioned by a prior's image tokens."""

import hashlib
import inspect
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from brainhive_cli.core import weights
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.models.foreign_weights import load_network
from brainhive_cli.models.generators import _components, _latent_diffusion
from brainhive_cli.models.generators._components import ARCHITECTURES, RANDOM, TEXT
from brainhive_cli.models.generators._latent_diffusion import (
    TEXT_TOKENS,
    LatentDiffusion,
    Request,
)
from brainhive_cli.models.heads import Conditioning

ARCHITECTURE = ARCHITECTURES["sdxl"]
NAMES = ("prompt_embeds", "pooled_prompt_embeds")
"""Of text and pooled text in a file, as diffusers' pipelines name them."""
TEXT_STEMS = tuple(f"{name}/model" for name in TEXT[:2])
TEXT_CONFIGS = tuple(
    f"{name}/{_components.CONFIGS.get(name, 'config.json')}" for name in TEXT
)
"""Of the text encoders: weight files without ending, and the files that must lie next
to them.
"""
Embedded = tuple[Tensor, Tensor]
"""Text [B, S, D_text] and pooled text [B, D_pooled]."""


class Config(_latent_diffusion.Config):
    """Any diffusers folder with an SDXL-type U-Net."""

    cites = ("podell2024",)
    published = ARCHITECTURE
    family = "SDXL"
    addition = "text_time"
    usual = "an SDXL-type generator, such as hub:stabilityai/sdxl-turbo"

    source: str = Field(
        "hub:stabilityai/sdxl-turbo",
        description="hub:OWNER/NAME, a folder, demo:NAME, or `random` (tests, "
        "benchmarks). BrainHiVE: sdxl-turbo to reconstruct, "
        "stable-diffusion-xl-base-1.0 to train the prior.",
    )
    variant: str | None = Field(
        None,
        description="Variant of the weight files, such as fp16: half the download.",
    )
    target_px: int | None = Field(
        None,
        gt=0,
        le=16_384,
        description="Target size among the U-Net's size conditions in sampling; "
        "default: the picture's. MindEye2's refinement: 1024.",
    )

    @property
    def weights_variant(self) -> str | None:
        """The variant of the recipe."""
        return self.variant

    def text_inputs(self) -> list[Input]:
        """Look for the text encoders that prompts and captions need."""
        if self.source == RANDOM:
            error = MissingData(
                "a generator of random weights has no text encoders",
                "give a folder of SDXL",
            )
            return [Input("text encoders", None, error)]
        return _components.list_inputs(
            self.source, TEXT_STEMS, TEXT_CONFIGS, self.variant
        )

    def assemble(self, components: dict[str, Any], device: torch.device) -> "SDXL":
        """Make the generator of its components."""
        return SDXL(self, components, device)


TINY = Config(source=RANDOM, architecture=ARCHITECTURES["sdxl TINY"])
"""Small enough for tests; pictures from 16 px; its VAE shrinks them 4 times."""


class SDXL(LatentDiffusion):
    """Pictures by text, pooled text and sizes, and by the image tokens of an attached
    prior.

    Where no prior is attached, embeddings stand behind the text in the U-Net's own
    cross-attention.
    """

    pipelines = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline")
    pipeline_options = {**dict.fromkeys(TEXT), "add_watermarker": False}  # noqa: RUF012 (never changed)
    refused = ("images", "masks")
    overflows_in_half = True

    def prepare(self, components: dict[str, Any]) -> None:
        """Embed prompts once each, outside of the pipeline."""
        self.embedded: dict[str, Embedded] = {}

    def digest_autoencoder(self) -> str:
        """Digest the autoencoder: latents of another one mean nothing to this
        generator.
        """
        digest = hashlib.sha256(f"{self.vae.config.scaling_factor}".encode())
        # names and values, in float32, as NumPy has no bfloat16
        for name, weight in self.vae.state_dict().items():
            digest.update(name.encode() + weight.float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def prepare_training(
        self, gradient_checkpointing: bool = False, compiled: bool = False
    ) -> None:
        """Compute the U-Net's activations twice instead of keeping them; compile it for
        each batch size.
        """
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        if compiled:
            self.unet.compile(dynamic=False)

    def pipeline_inputs(self, request: Request) -> dict[str, Any]:
        """Give text, pooled text and image tokens of both sides of guidance; with a
        prior, it needs null.
        """
        conditioning = request.conditioning
        sampling = request.sampling
        rows = len(request.seeds)
        # the side that guidance moves towards
        text, pooled, tokens = self._condition(conditioning, sampling.prompt, rows)

        # where the U-Net's own cross-attention takes conditions, zeros are the other
        # side of guidance
        embeddings = request.null.embeddings
        texts = request.null.texts
        if (
            embeddings is None
            and conditioning.embeddings is not None
            and not self._has_prior
        ):
            embeddings = torch.zeros_like(conditioning.embeddings)
        if texts is None and isinstance(conditioning.texts, Tensor):
            texts = torch.zeros_like(conditioning.texts)
        null = Conditioning(embeddings, texts)
        null_text, null_pooled, null_tokens = self._condition(
            null, sampling.negative_prompt, rows
        )

        # image tokens of both sides go through the attention processors, the
        # unconditional first as in diffusers
        is_guided = (
            sampling.guidance > 1 and self.unet.config.time_cond_proj_dim is None
        )
        if tokens is not None and is_guided:
            if null_tokens is None:
                raise BrainhiveError(
                    "guidance above 1 needs the prior's null conditioning",
                    "give null, or guidance 0",
                )
            tokens = torch.cat([null_tokens, tokens])
        return {
            "prompt_embeds": text,
            "pooled_prompt_embeds": pooled,
            # in training: the empty prompt and the zeroed token
            "negative_prompt_embeds": null_text,
            "negative_pooled_prompt_embeds": null_pooled,
            "cross_attention_kwargs": None
            if tokens is None
            else {"ip_hidden_states": tokens},
            "target_size": self.config.target_px and (self.config.target_px,) * 2,
        }

    def predict(
        self,
        latents: Tensor,
        times: Tensor,
        conditioning: Conditioning,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise, or velocity, of latents [B, C, h, w] at timesteps [B];
        sizes [B, 6].
        """
        assert sizes is not None
        # without a prompt: the empty one, unless the conditioning has texts
        text, pooled, tokens = self._condition(conditioning, "", len(latents))
        return self.run_unet(
            latents,
            times,
            text,
            added_cond_kwargs={
                "text_embeds": pooled,
                "time_ids": sizes.to(self.device),
            },
            cross_attention_kwargs=None
            if tokens is None
            else {"ip_hidden_states": tokens},
        )

    def empty_prompt(self, batch: int) -> Embedded:
        """Embed the empty prompt: text [B, S, D_text] and pooled text [B, D_pooled]."""
        text, pooled = self._embed([""])
        return text.expand(batch, -1, -1), pooled.expand(batch, -1)

    def save_empty_prompt(self, file: Path) -> None:
        """Write the embeddings of the empty prompt, so that the text encoders are not
        needed again.
        """
        weights.save(file, dict(zip(NAMES, self.empty_prompt(1), strict=True)))

    def load_empty_prompt(self, file: Path) -> None:
        """Read what `save_empty_prompt` wrote; MissingData if the file is damaged."""
        with weights.reading(file):
            tensors = weights.read(file)
            self._keep("", (tensors[NAMES[0]], tensors[NAMES[1]]))

    @property
    def _has_prior(self) -> bool:
        """Whether a prior is attached: without one, diffusers would drop image tokens
        silently.
        """
        # up to the first that takes tokens: listing all takes milliseconds
        modules = self.unet.modules()
        processors = (
            module.processor for module in modules if hasattr(module, "processor")
        )
        return any(
            "ip_hidden_states" in inspect.signature(p.__call__).parameters
            for p in processors
        )

    def require_width(self, tokens: int) -> None:
        """Refuse a width of tokens that the U-Net does not take without a prior."""
        width = self.unet.config.cross_attention_dim
        if not self._has_prior and tokens != width:
            raise BrainhiveError(
                "no prior is attached to the U-Net, whose own cross-attention "
                f"takes tokens of width {width}, not {tokens}",
                "use a prior that was trained for this generator",
            )

    def _condition(
        self, conditioning: Conditioning, prompt: str, rows: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Give text [B, S, D], pooled text [B, D_pooled], and the tokens [B, S, D] of
        the attached prior.
        """
        # embed the texts or the prompt; texts that are embedded already replace its
        # tokens
        texts = conditioning.texts
        tokens = conditioning.embeddings
        text, pooled = self._embed(texts if isinstance(texts, list) else [prompt])
        text = text.expand(rows, -1, -1)
        pooled = pooled.expand(rows, -1)
        if isinstance(texts, Tensor):
            text = texts.to(text)

        # image tokens are the attached prior's; without one they stand behind the text
        if tokens is not None:
            self.require_width(tokens.shape[-1])
            tokens = self.fit_tokens(
                "embeddings", tokens, tokens.shape[-1], rows, "use another prior"
            )
            if not self._has_prior:
                text = torch.cat([text, tokens], 1)
                tokens = None
        return text, pooled, tokens

    def _embed(self, texts: Sequence[str]) -> Embedded:
        """Embed a text for each row; MissingData if text encoders are absent or
        damaged.

        They stay loaded, on the CPU, since other rows may bring other texts.
        """
        # texts that were not embedded before, each once
        for words in {*texts} - {*self.embedded}:
            if words:
                self._keep(words, self._encode(words))
            elif self.config.source == RANDOM:
                # the U-Net's vector has SDXL's six size and crop ids next to pooled
                # text
                sizes = self.unet.config
                pooled = (
                    sizes.projection_class_embeddings_input_dim
                    - 6 * sizes.addition_time_embed_dim
                )
                zeros = (
                    torch.zeros(1, TEXT_TOKENS, sizes.cross_attention_dim),
                    torch.zeros(1, pooled),
                )
                self._keep("", zeros)
            else:
                # some folders have the embeddings of the empty prompt instead of text
                # encoders
                folder = _components.find_folder(
                    self.config.source, self.config.variant, text=True
                )
                file = folder / _components.EMPTY_PROMPT
                if file.is_file():
                    self.load_empty_prompt(file)
                else:
                    self._keep("", self._encode(""))

        # encoders wait on the CPU; rows are joined to [B, S, D_text] and [B, D_pooled]
        if "_encoders" in vars(self):
            self._encoders.to("cpu", silence_dtype_warnings=True)
        embedded_text, embedded_pooled = zip(
            *(self.embedded[words] for words in texts), strict=True
        )
        return torch.cat(embedded_text), torch.cat(embedded_pooled)

    def _keep(self, words: str, embedded: Embedded) -> None:
        text, pooled = embedded
        self.embedded[words] = (
            text.to(self.device, self.unet.dtype),
            pooled.to(self.device, self.unet.dtype),
        )

    def _encode(self, words: str) -> Embedded:
        encoders = self._encoders.to(self.device, silence_dtype_warnings=True)
        with torch.no_grad():
            embedded = encoders.encode_prompt(
                words, device=self.device, do_classifier_free_guidance=False
            )
        return embedded[0], embedded[2]  # text and pooled text

    @cached_property
    def _encoders(self) -> Any:
        """Load text encoders and tokenizers, as a pipeline without networks that
        draw.
        """
        import transformers as tf
        from diffusers import StableDiffusionXLPipeline

        # check configs first, so that an absent component is named
        source = self.config.source
        variant = self.config.variant
        folder = _components.find_folder(source, variant, text=True)
        components = dict.fromkeys(("vae", "unet", "scheduler"))
        for name in TEXT:
            _components.read_config(folder, name)

        # load the two text encoders in the U-Net's precision, and their tokenizers
        classes = {
            "text_encoder": tf.CLIPTextModel,
            "text_encoder_2": tf.CLIPTextModelWithProjection,
        }
        for name, cls in classes.items():
            where = f"{name} of the generator {folder}"
            components[name] = load_network(
                cls, folder / name, where, dtype=self.unet.dtype, variant=variant
            )
        for name in TEXT[2:]:
            with weights.reading(f"{name} of the generator {folder}"):
                components[name] = tf.CLIPTokenizer.from_pretrained(folder / name)
        return StableDiffusionXLPipeline(**components, add_watermarker=False)
