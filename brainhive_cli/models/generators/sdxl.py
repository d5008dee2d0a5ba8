"""Generator of the SDXL type, conditioned on a prior's image tokens."""

import hashlib
import inspect
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from brainhive_cli.core.base import BrainhiveError, MissingData
from brainhive_cli.core.files import Input
from brainhive_cli.core.runs import weights
from brainhive_cli.models import Conditioning, load_network
from brainhive_cli.models.generators import _components, _latent_diffusion
from brainhive_cli.models.generators._components import (
    ARCHITECTURES,
    RANDOM,
    TEXT_COMPONENTS,
)
from brainhive_cli.models.generators._latent_diffusion import (
    N_TEXT_TOKENS,
    LatentDiffusion,
    Request,
)

ARCHITECTURE = ARCHITECTURES["sdxl"]
PROMPT_EMBEDS_KEYS = ("prompt_embeds", "pooled_prompt_embeds")
"""Keys of text and pooled text in a file, as diffusers names them."""
TEXT_CONFIGS = tuple(
    f"{name}/{_components.CONFIG_FILES.get(name, 'config.json')}"
    for name in TEXT_COMPONENTS
)
"""Config files of text encoders and tokenizers."""


class PromptEmbeds(NamedTuple):
    """Embeddings of prompts.

    Attributes:
        text: Text tokens [B, S, D_text].
        pooled: Pooled text [B, D_pooled].
    """

    text: Tensor
    pooled: Tensor


class Conditions(NamedTuple):
    """Conditions as the U-Net takes them.

    Attributes:
        text: Tokens [B, S, D] of the cross-attention.
        pooled: Pooled text [B, D_pooled].
        image_tokens: Tokens [B, S, D] of the attached prior, or None.
    """

    text: Tensor
    pooled: Tensor
    image_tokens: Tensor | None


class Config(_latent_diffusion.Config):
    """Folder of diffusers with a U-Net of the SDXL type."""

    cites = ("podell2024",)
    called = "An SDXL-type diffusion model"
    published_architecture = ARCHITECTURE
    family = "SDXL"
    addition_embed_type = "text_time"
    alternative = "an SDXL-type generator, such as hub:stabilityai/sdxl-turbo"

    source: str = Field(
        "hub:stabilityai/sdxl-turbo",
        description="hub:OWNER/NAME, a folder, demo:NAME, or `random` weights. "
        "BrainHiVE: sdxl-turbo to reconstruct, "
        "stable-diffusion-xl-base-1.0 to train the prior.",
    )
    variant: str | None = Field(
        None,
        description="Variant of the weight files, such as fp16 for half the download.",
    )
    target_px: int | None = Field(
        None,
        gt=0,
        le=16_384,
        description="Target size in pixels, a condition of the U-Net in sampling. By "
        "default the size of the picture. MindEye2's refinement: 1024.",
    )

    @property
    def weights_variant(self) -> str | None:
        """Variant of the weight files, as the recipe gives it."""
        return self.variant

    def text_inputs(self) -> list[Input]:
        """List the text encoders of prompts and captions, with their states."""
        if self.source == RANDOM:
            error = MissingData(
                "a generator of random weights has no text encoders",
                "give a folder of SDXL",
            )
            return [Input("text encoders", None, error)]
        # Weight files of the text encoders, without ending.
        text_stems = tuple(f"{name}/model" for name in TEXT_COMPONENTS[:2])
        return _components.list_inputs(
            self.source, text_stems, TEXT_CONFIGS, self.variant
        )

    def assemble(self, components: dict[str, Any], device: torch.device) -> "SDXL":
        """Make the generator from its components."""
        return SDXL(self, components, device)


TINY = Config(source=RANDOM, architecture=ARCHITECTURES["sdxl TINY"])
"""Config for tests, for pictures from 16 px. Latents have a fourth of their side."""


class SDXL(LatentDiffusion):
    """Generator of pictures from text, pooled text, sizes and image tokens.

    Image tokens go to the attached prior. Without one, they follow the text tokens in
    the U-Net's own cross-attention.
    """

    pipeline_classes = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline")
    pipeline_options = {  # noqa: RUF012 (never changed)
        "text_encoder": None,
        "text_encoder_2": None,
        "tokenizer": None,
        "tokenizer_2": None,
        "add_watermarker": False,
    }
    refused_conditions = ("images", "masks")
    overflows_in_float16 = True

    def add_components(self, components: dict[str, Any]) -> None:
        """Start with an empty cache of prompts."""
        self.prompt_cache: dict[str, PromptEmbeds] = {}

    def digest_autoencoder(self) -> str:
        """Return the SHA-256 digest of the VAE, which identifies its latents."""
        digest = hashlib.sha256(f"{self.vae.config.scaling_factor}".encode())
        # in float32, because NumPy has no bfloat16
        for name, weight in self.vae.state_dict().items():
            digest.update(name.encode() + weight.float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def prepare_training(
        self, gradient_checkpointing: bool = False, compiled: bool = False
    ) -> None:
        """Prepare the U-Net for training.

        Args:
            gradient_checkpointing: If True, save memory by computing activations twice.
            compiled: If True, compile the U-Net for each batch size.
        """
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        if compiled:
            self.unet.compile(dynamic=False)

    def pipeline_inputs(self, request: Request) -> dict[str, Any]:
        """Return the arguments of the pipelines, with and without the condition.

        Raises:
            BrainhiveError: if guidance lacks the null conditioning of the prior.
        """
        conditioning = request.conditioning
        sampling = request.sampling
        rows = len(request.seeds)
        conditional = self._prepare_conditions(conditioning, sampling.prompt, rows)

        # without a prior, zeros are the unconditional tokens
        null_embeddings = request.null.embeddings
        null_texts = request.null.texts
        embeddings = conditioning.embeddings
        if null_embeddings is None and embeddings is not None and not self._has_prior:
            null_embeddings = torch.zeros_like(embeddings)
        if null_texts is None and isinstance(conditioning.texts, Tensor):
            null_texts = torch.zeros_like(conditioning.texts)
        null = Conditioning(null_embeddings, null_texts)
        unconditional = self._prepare_conditions(null, sampling.negative_prompt, rows)

        # guidance takes both batches at once, the unconditional batch first
        image_tokens = conditional.image_tokens
        has_guidance_embedding = self.unet.config.time_cond_proj_dim is not None
        is_guided = sampling.guidance > 1 and not has_guidance_embedding
        if image_tokens is not None and is_guided:
            if unconditional.image_tokens is None:
                raise BrainhiveError(
                    "guidance above 1 needs the prior's null conditioning",
                    "give null, or guidance 0",
                )
            image_tokens = torch.cat([unconditional.image_tokens, image_tokens])

        target_px = self.config.target_px
        return {
            "prompt_embeds": conditional.text,
            "pooled_prompt_embeds": conditional.pooled,
            # in training, the empty prompt and the zeroed token
            "negative_prompt_embeds": unconditional.text,
            "negative_pooled_prompt_embeds": unconditional.pooled,
            "cross_attention_kwargs": _pass_image_tokens(image_tokens),
            "target_size": target_px and (target_px, target_px),
        }

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise, or velocity, in latents [B, C, h, w] with sizes [B, 6]."""
        assert sizes is not None
        conditions = self._prepare_conditions(conditioning, "", len(latents))
        return self.run_unet(
            latents,
            timesteps,
            conditions.text,
            added_cond_kwargs={
                "text_embeds": conditions.pooled,
                "time_ids": sizes.to(self.device),
            },
            cross_attention_kwargs=_pass_image_tokens(conditions.image_tokens),
        )

    def embed_empty_prompt(self, batch: int) -> PromptEmbeds:
        """Embed the empty prompt for B rows."""
        text, pooled = self._embed_prompts([""])
        return PromptEmbeds(text.expand(batch, -1, -1), pooled.expand(batch, -1))

    def save_empty_prompt(self, file: Path) -> None:
        """Write the embeddings of the empty prompt to a file."""
        text, pooled = self.embed_empty_prompt(1)
        text_key, pooled_key = PROMPT_EMBEDS_KEYS
        weights.save(file, {text_key: text, pooled_key: pooled})

    def load_empty_prompt(self, file: Path) -> None:
        """Read the file of `save_empty_prompt`, in place of the text encoders.

        Raises:
            MissingData: if the file is damaged.
        """
        text_key, pooled_key = PROMPT_EMBEDS_KEYS
        with weights.reading(file):
            tensors = weights.read(file)
            self._cache_prompt("", PromptEmbeds(tensors[text_key], tensors[pooled_key]))

    @property
    def _has_prior(self) -> bool:
        """True if a prior is attached. diffusers drops image tokens silently if not."""
        # stop at the first processor, because listing all takes milliseconds
        for module in self.unet.modules():
            if hasattr(module, "processor"):
                parameters = inspect.signature(module.processor.__call__).parameters
                if "ip_hidden_states" in parameters:
                    return True
        return False

    def require_width(self, width: int) -> None:
        """Raise an error if the U-Net has no prior and cannot take tokens this wide."""
        unet_width = self.unet.config.cross_attention_dim
        if not self._has_prior and width != unet_width:
            raise BrainhiveError(
                "no prior is attached to the U-Net, whose own cross-attention "
                f"takes tokens of width {unet_width}, not {width}",
                "use a prior that was trained for this generator",
            )

    def _prepare_conditions(
        self, conditioning: Conditioning, prompt: str, rows: int
    ) -> Conditions:
        """Embed texts and check tokens, with the condition or without it.

        Args:
            conditioning: Conditions. Embedded texts replace the tokens of the prompt,
                but not its pooled text.
            prompt: Text of all rows, if the conditioning has no list of texts.
            rows: Number of rows B.
        """
        texts = conditioning.texts
        prompts = texts if isinstance(texts, list) else [prompt]
        text, pooled = self._embed_prompts(prompts)
        text = text.expand(rows, -1, -1)
        pooled = pooled.expand(rows, -1)
        if isinstance(texts, Tensor):
            text = texts.to(text)

        if conditioning.embeddings is None:
            return Conditions(text, pooled, image_tokens=None)
        width = conditioning.embeddings.shape[-1]
        self.require_width(width)
        image_tokens = self.prepare_tokens(
            "embeddings", conditioning.embeddings, width, rows, "use another prior"
        )
        if self._has_prior:
            return Conditions(text, pooled, image_tokens)
        return Conditions(torch.cat([text, image_tokens], 1), pooled, image_tokens=None)

    def _embed_prompts(self, prompts: Sequence[str]) -> PromptEmbeds:
        """Embed prompts. Equal prompts are embedded once.

        Text encoders stay loaded on the CPU, because other prompts may follow.

        Raises:
            MissingData: if the text encoders are absent or damaged.
        """
        for prompt in set(prompts) - set(self.prompt_cache):
            if prompt:
                self._cache_prompt(prompt, self._encode_prompt(prompt))
            elif self.config.source == RANDOM:
                self._cache_prompt("", self._make_zero_prompt())
            else:
                # a folder may hold the empty prompt in place of text encoders
                folder = _components.find_folder(
                    self.config.source, self.config.variant, text=True
                )
                file = folder / _components.EMPTY_PROMPT_FILE
                if file.is_file():
                    self.load_empty_prompt(file)
                else:
                    self._cache_prompt("", self._encode_prompt(""))

        if "_text_pipeline" in vars(self):
            self._text_pipeline.to("cpu", silence_dtype_warnings=True)
        embeds = [self.prompt_cache[prompt] for prompt in prompts]
        text = torch.cat([prompt_embeds.text for prompt_embeds in embeds])
        pooled = torch.cat([prompt_embeds.pooled for prompt_embeds in embeds])
        return PromptEmbeds(text, pooled)

    def _make_zero_prompt(self) -> PromptEmbeds:
        """Return zeros as the empty prompt of random weights."""
        config = self.unet.config
        # pooled text is embedded together with six numbers of size and crop
        n_pooled = (
            config.projection_class_embeddings_input_dim
            - 6 * config.addition_time_embed_dim
        )
        text = torch.zeros(1, N_TEXT_TOKENS, config.cross_attention_dim)
        return PromptEmbeds(text, torch.zeros(1, n_pooled))

    def _cache_prompt(self, prompt: str, prompt_embeds: PromptEmbeds) -> None:
        """Keep the embeddings of a prompt on the device of the U-Net."""
        self.prompt_cache[prompt] = PromptEmbeds(
            prompt_embeds.text.to(self.device, self.unet.dtype),
            prompt_embeds.pooled.to(self.device, self.unet.dtype),
        )

    def _encode_prompt(self, prompt: str) -> PromptEmbeds:
        """Embed a prompt with the text encoders."""
        text_pipeline = self._text_pipeline.to(self.device, silence_dtype_warnings=True)
        with torch.no_grad():
            text, _, pooled, _ = text_pipeline.encode_prompt(
                prompt, device=self.device, do_classifier_free_guidance=False
            )
        return PromptEmbeds(text, pooled)

    @cached_property
    def _text_pipeline(self) -> Any:
        """Pipeline of text encoders and tokenizers, without U-Net and VAE."""
        import transformers as tf
        from diffusers import StableDiffusionXLPipeline

        # check configs first, so that an absent component is named
        source = self.config.source
        variant = self.config.variant
        folder = _components.find_folder(source, variant, text=True)
        for name in TEXT_COMPONENTS:
            _components.read_config(folder, name)

        # load the text encoders in the U-Net's precision, and their tokenizers
        components = dict.fromkeys(("vae", "unet", "scheduler"))
        classes = {
            "text_encoder": tf.CLIPTextModel,
            "text_encoder_2": tf.CLIPTextModelWithProjection,
        }
        for name, encoder_class in classes.items():
            components[name] = load_network(
                encoder_class,
                folder / name,
                f"{name} of the generator {folder}",
                dtype=self.unet.dtype,
                variant=variant,
            )
        for name in TEXT_COMPONENTS[2:]:
            with weights.reading(f"{name} of the generator {folder}"):
                components[name] = tf.CLIPTokenizer.from_pretrained(folder / name)
        return StableDiffusionXLPipeline(**components, add_watermarker=False)


def _pass_image_tokens(image_tokens: Tensor | None) -> dict[str, Tensor] | None:
    """Return the arguments of the attention processors of a prior."""
    return None if image_tokens is None else {"ip_hidden_states": image_tokens}
