"""Base of latent diffusion models: how it is built, encodes, samples, learns and takes
memory.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from brainhive_cli.core import console, hub, parts, weights
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.models.clip_conditions import (
    PLAIN_TEXT_TOWER,
    load_tokenizer,
    load_tower,
)
from brainhive_cli.models.foreign_weights import load_network
from brainhive_cli.models.generators import (
    GeneratedMedia,
    Sampling,
    _components,
    _denoising,
)
from brainhive_cli.models.generators._components import RANDOM, Architecture, Placement
from brainhive_cli.models.generators._denoising import Random
from brainhive_cli.models.heads import Conditioning, name_latent_space

AT_ONCE = 4
"""Pictures that a VAE takes at once: enough to fill a GPU at 512 px, where each needs
0.75 GiB in fp32.
"""
TEXT_STEM = "text_encoder/model"
TEXT_TOKENS = 77
"""Tokens of a text, by CLIP's text encoders."""
OnStep = Callable[[int], None] | None
"""Called with the number of each step done."""


class Request(NamedTuple):
    """A request for B media: their conditions, and how they are sampled.

    Attributes:
        conditioning: Of B rows, or no condition at all.
        seeds: One for each of the B rows.
        size_px: Height and width of the media.
        sampling: Steps, guidance, scheduler and prompts.
        null: Unconditional side of guidance; without conditions the generator has its
            own.
        on_step: Called with the number of each step done.
    """

    conditioning: Conditioning
    seeds: Sequence[int]
    size_px: int
    sampling: Sampling
    null: Conditioning = Conditioning()
    on_step: OnStep = None


class Config(parts.Config):
    """From a source to a generator.

    Attributes:
        published: Architecture of random weights, and of the usual source while it
            cannot be reached.
        folders: Folders of the components below the source.
        family: Whose type the U-Net must be of.
        addition: What its U-Net takes next to tokens, as diffusers'
            `addition_embed_type` names it.
        usual: What to use instead of a U-Net of another type.
    """

    published: ClassVar[Architecture]
    folders: ClassVar[Mapping[str, str]] = {
        "unet": "unet",
        "vae": "vae",
        "scheduler": "scheduler",
    }
    family: ClassVar[str] = "Stable Diffusion 1"
    addition: ClassVar[str | None] = None
    usual: ClassVar[str] = (
        "hub:stable-diffusion-v1-5/stable-diffusion-v1-5, or generator.kind=sdxl"
    )
    if TYPE_CHECKING:
        source: str = ""

    architecture: Architecture | None = Field(
        None,
        description="Arguments of the components of source `random`, and of "
        "checkpoints of another size; default: as published.",
    )

    def build(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Any:
        """Load the generator, frozen, onto a device; at first a publisher's own format
        is converted and kept.

        On the device "meta" only configs are read, and weights have shapes alone.

        Raises:
            MissingData: if the source, or one of its components, is absent or
                half-downloaded.
            BrainhiveError: if the networks are of another kind.
            RecipeError: if an architecture for random weights cannot be built.
        """
        device = torch.device(device)
        if self.source != RANDOM and device.type != "meta":
            with weights.reading(f"the generator {self.source}"):
                return self.assemble(self.load(dtype), device)

        # the usual source is published: its architecture is known where the hub cannot
        # be reached
        architecture = {**self.published, **(self.architecture or {})}
        if self.source != RANDOM:
            try:
                architecture = self.read_configs()
            except hub.Unreachable:
                if self.source != type(self).model_fields["source"].default:
                    raise

        # check the architecture, and draw its weights
        where = f"the architecture of the generator {self.source}"
        hint = "compare it with the published one"
        with weights.reading(where, hint, RecipeError, problem="cannot be built"):
            self.check_unet(architecture["unet"], "the architecture")
            return self.assemble(self.draw(architecture, device, dtype), device)

    def build_shapes(self) -> Any:
        """Make the generator by its configs, without weights; raises as `build`."""
        return self.build("meta")

    @property
    def weights_variant(self) -> str | None:
        """Variant of the weight files, as diffusers names it; None where publishers
        have none.
        """
        return None

    def inputs(self) -> list[Input]:
        """Look for the weights."""
        return _components.list_inputs(self.source, variant=self.weights_variant)

    def assemble(
        self, components: dict[str, Any], device: torch.device
    ) -> "LatentDiffusion":
        """Make the generator of its components."""
        raise NotImplementedError

    def load(self, dtype: torch.dtype, folder: Path | None = None) -> dict[str, Any]:
        """Load the components from a folder of diffusers, by default the source's."""
        from diffusers import AutoencoderKL, UNet2DConditionModel

        # configs first, so that an absent component is named
        folder = folder or _components.find_folder(self.source, self.weights_variant)
        self.check_unet(_components.read_config(folder, "unet"), folder)
        _components.read_config(folder, "vae")

        # networks in the requested precision
        components = {}
        for name, cls in {"unet": UNet2DConditionModel, "vae": AutoencoderKL}.items():
            where = f"{name} of the generator {folder}"
            variant = self.weights_variant
            components[name] = load_network(
                cls, folder / name, where, torch_dtype=dtype, variant=variant
            )
        config = _components.read_config(folder, "scheduler")
        return {**components, "scheduler": _components.make_scheduler(config, folder)}

    def draw(
        self, architecture: Architecture, device: torch.device, dtype: torch.dtype
    ) -> dict[str, Any]:
        """Make the components with random weights."""
        return _components.draw_components(architecture, device, dtype)

    def check_unet(self, config: dict[str, Any], where: Path | str) -> None:
        """Refuse the config of a U-Net of another type."""
        kind = config.get("addition_embed_type")
        if kind != self.addition:
            raise BrainhiveError(
                f"the U-Net of {where} is not {self.family}'s type: "
                f"addition_embed_type is {kind}, not {self.addition}",
                f"use {self.usual}",
            )

    def check(self) -> None:
        """Raise as `build` does, but read configs alone."""
        if self.source != RANDOM:
            self.check_unet(self.read_configs()["unet"], self.source)

    def read_configs(self) -> Architecture:
        """Read the architecture of the source."""
        if error := _components.describe_file(self.source):
            raise error
        # from the hub nothing but configs
        folder = hub.folder(self.source, allow=["*/*.json"])
        return {
            name: _components.read_config(folder, component)
            for name, component in self.folders.items()
        }


class LatentDiffusion:
    """U-Net, VAE and scheduler; a subclass says what conditions the U-Net (`predict`,
    `pipeline_inputs`).

    Args:
        config: Knobs, and where text encoders are.
        components: unet, vae and scheduler; what else the subclass takes.
        device: Where all compute.

    Attributes:
        pipelines: Classes of diffusers that start from noise, and from a start; empty
            without them.
        pipeline_options: Arguments of both, such as components left out.
        refused: Conditions that it does not take.
        overflows_in_half: Whether its VAE overflows in float16, as SDXL's does.
    """

    pipelines: ClassVar[tuple[str, ...]] = ()
    pipeline_options: ClassVar[Mapping[str, Any]] = {}
    refused: ClassVar[tuple[str, ...]] = ()
    overflows_in_half: ClassVar[bool] = False
    pipeline: Any

    def __init__(
        self, config: Any, components: dict[str, Any], device: torch.device
    ) -> None:
        from diffusers import DDPMScheduler

        self.config = config
        self._scheduler = components["scheduler"]
        self.unet = components["unet"]
        self.vae = components["vae"]
        self.networks: tuple[Any, ...] = (self.unet, self.vae)

        # wrap the components in diffusers' pipeline, and add those of the subclass
        if self.pipelines:
            modules = {"unet": self.unet, "vae": self.vae, "scheduler": self._scheduler}
            self.pipeline = self._wrap(self.pipelines[0], modules)
        self.prepare(components)
        # at each step of sampling all networks work but the VAE
        self.denoisers = [
            network for network in self.networks if network is not self.vae
        ]

        # freeze the networks on the device; a VAE that overflows in float16 computes in
        # float32
        self.placement = Placement(self.networks, device)
        self.device = device
        is_upcast = self.overflows_in_half and self.vae.dtype == torch.float16
        if is_upcast and self.vae.config.force_upcast:
            self.use_float32_autoencoder()

        # training adds noise by this schedule
        self.noise_schedule = DDPMScheduler.from_config(self._scheduler.config)
        kind = self.noise_schedule.config.prediction_type
        if kind not in (
            "epsilon",
            "v_prediction",
        ):
            raise BrainhiveError(
                f"the scheduler's prediction_type is {kind}",
                "use a generator that predicts epsilon or v_prediction",
            )

    def prepare(self, components: dict[str, Any]) -> None:
        """Take the subclass's own components, before networks are frozen."""

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
        raise NotImplementedError

    @cached_property
    def latent_space(self) -> str:
        """Name of the autoencoder's latent space, the same in any precision."""
        return name_latent_space(self.vae)

    def latent_shape(self, size_px: int) -> tuple[int, int, int]:
        """Return the shape [C, h, w] of the latent of a picture or frame; raises as
        `check_size` does.
        """
        self.check_size(size_px)
        side = size_px // shrink_factor(self.vae)
        return self.vae.config.latent_channels, side, side

    def check_size(self, size_px: int) -> None:
        """Refuse a size of pictures that the VAE does not have."""
        factor = max(8, shrink_factor(self.vae))  # 8: diffusers' own demand
        if size_px % factor or size_px <= 0:
            raise BrainhiveError(
                f"resolution_px is {size_px}", f"give a multiple of {factor}"
            )

    def use_float32_autoencoder(self) -> None:
        """Encode and decode in float32, whatever the U-Net's dtype."""
        _components.cast(self.vae, torch.float32)

    def spare_memory(
        self, offload_to: torch.device | None = None, tile: bool = False
    ) -> None:
        """Take less memory and more time: networks on a device only while they compute,
        tiles in decoding.
        """
        # decode one picture at a time, in tiles
        if tile:
            self.vae.enable_slicing()
            self.vae.enable_tiling()

        # a pipeline moves its own networks, other generators use `placement`
        if offload_to is None:
            return
        self.device = offload_to
        if self.pipelines:
            self.placement.device = offload_to
            self.pipeline.enable_model_cpu_offload(device=offload_to)
        else:
            self.placement.offload(offload_to)

    def encode(self, media: GeneratedMedia, random: Random | None = None) -> Tensor:
        """Encode pictures [B, 3, H, W] or clips [B, F, 3, H, W] in 0..1 as latents,
        each [C, h, w].

        Args:
            media: Pictures or clips.
            random: Samples the posterior, for all rows or by row; None takes its mode.
        """
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        # encode a few pictures at once; frames of clips count as pictures
        self.placement.use(self.vae)
        rows = media.shape[:-3]
        pictures = media.flatten(0, -4)
        with torch.no_grad():
            batches = (pictures.to(self.device, self.vae.dtype) * 2 - 1).split(AT_ONCE)
            moments = torch.cat(
                [self.vae.encode(batch).latent_dist.parameters for batch in batches]
            )

        # take the mode of the posterior, or a sample: all frames of a clip by the
        # clip's generator
        posterior = DiagonalGaussianDistribution(moments)
        if random is not None and not isinstance(random, torch.Generator):
            random = [
                generator for generator in random for _ in range(math.prod(rows[1:]))
            ]
        # [B F, C, h, w]
        latents = posterior.mode() if random is None else posterior.sample(random)
        return (latents.float() * self.vae.config.scaling_factor).unflatten(0, rows)

    def decode(
        self, latents: Tensor, scale: float = 0.5, shift: float = 0.5
    ) -> GeneratedMedia:
        """Decode latents [B, C, h, w] or [B, F, C, h, w] to pictures or clips in 0..1.

        A decoded pixel x, about −1..1, becomes scale · x + shift.
        """
        self.placement.use(self.vae)
        pictures = decode_pictures(
            self.vae, latents.flatten(0, -4), self.device, scale, shift
        )
        return pictures.unflatten(0, latents.shape[:-3])

    def generate(
        self,
        conditioning: Conditioning,
        seeds: Sequence[int],
        size_px: int,
        sampling: Sampling,
        null: Conditioning | None = None,
        on_step: OnStep = None,
    ) -> GeneratedMedia:
        """Generate pictures [B, 3, H, W] or clips [B, F, 3, H, W], as the shelf
        says.
        """
        self.check_size(size_px)
        request = Request(
            conditioning, seeds, size_px, sampling, null or Conditioning(), on_step
        )
        return self.to_media(self.sample(request))

    def to_media(self, latents: Tensor) -> GeneratedMedia:
        """Decode what was sampled."""
        return self.decode(latents)

    def loss(
        self,
        latents: Tensor,
        conditioning: Conditioning,
        random: Random,
        sizes: Tensor,
        levels: Tensor | None = None,
    ) -> Tensor:
        """Mean squared error of the predicted noise (or velocity, if that is what the
        U-Net predicts).

        Args:
            latents: Clean latents [B, C, h, w]; of clips [B, F, C, h, w].
            conditioning: As `generate` takes it.
            random: Draws noise and timesteps, for all rows or by row.
            sizes: [B, 6], pixels, as the shelf says; only SDXL's U-Net takes them.
            levels: [B] in 0..1, shares of the noise schedule, instead of drawn
                timesteps.

        Source: SDXL (arXiv 2307.01952), section 2.2; BrainHiVE (arXiv 2602.07495).
        """
        # draw noise and a timestep for each row; a clip's frames share the timestep
        schedule = self.noise_schedule
        latents = latents.to(self.device)
        self.check_conditioning(conditioning, len(latents))
        flat = latents.flatten(1, -3)  # [B, C, h, w], of clips [B, F C, h, w]
        count = schedule.config.num_train_timesteps
        noise, times = _denoising.draw_noise(random, flat.shape, count, self.device)
        if levels is not None:
            times = (levels * count).long().to(self.device)

        # compare the prediction with the noise that was added
        noisy = schedule.add_noise(flat, noise, times).view(latents.shape)
        predicted = self.predict(noisy, times, conditioning, sizes).flatten(1, -3)
        is_velocity = schedule.config.prediction_type == "v_prediction"
        target = schedule.get_velocity(flat, noise, times) if is_velocity else noise
        return F.mse_loss(predicted.float(), target.float())

    def check_conditioning(
        self, conditioning: Conditioning, rows: int, sampling: Sampling | None = None
    ) -> None:
        """Refuse conditions that the generator does not take; one of no rows serves any
        number.
        """
        for name in self.refused:
            if getattr(conditioning, name) is not None:
                raise BrainhiveError(
                    f"{self.config.kind} takes no condition {name}", "use another prior"
                )
        if len(conditioning) not in (0, rows):
            raise BrainhiveError(
                f"{rows} seeds need a conditioning of {rows} rows; got "
                f"{len(conditioning)}",
                "give one seed for each row",
            )

    def fit_tokens(
        self, name: str, tokens: Tensor, width: int, rows: int, hint: str
    ) -> Tensor:
        """Give tokens [B, S, D] as the U-Net takes them; one row stands for all."""
        if tokens.ndim != 3 or tokens.shape[-1] != width:
            raise BrainhiveError(
                f"the generator takes {name} [B, S, {width}], not {list(tokens.shape)}",
                hint,
            )
        return tokens.to(self.device, self.unet.dtype).expand(rows, -1, -1)  # [B, S, D]

    def run_unet(
        self, latents: Tensor, times: Tensor, text: Tensor, **inputs: Any
    ) -> Tensor:
        """Predict from latents at timesteps by text tokens [B, S, D] and what else the
        U-Net takes.
        """
        # the U-Net computes in its own precision, whatever that of the latents
        dtype = self.unet.dtype
        return self.unet(
            latents.to(dtype), times.to(self.device), text, return_dict=False, **inputs
        )[0]

    def sample(self, request: Request) -> Tensor:
        """Sample the latents that `generate` decodes, by diffusers' pipelines: from
        noise, or a noised start.

        Of the denoising steps from a start the share `strength` is done (SDEdit, arXiv
        2108.01073), one at least.
        """
        # refuse conditions that do not fit before any step is done
        conditioning = request.conditioning
        sampling = request.sampling
        size_px = request.size_px
        self.check_conditioning(conditioning, len(request.seeds), sampling)
        inputs = self.pipeline_inputs(request)
        self.pipeline.scheduler = _denoising.choose_scheduler(self._scheduler, sampling)

        # begin at noise, or at the encoded start, which strength 0 returns as it is
        pipeline = self.pipeline
        extent: dict[str, Any] = {"height": size_px, "width": size_px}
        if conditioning.start is not None and sampling.strength < 1:
            latents = self.encode_start(conditioning.start, size_px)
            if sampling.strength == 0:
                return latents
            _denoising.count_steps(sampling)
            pipeline = self._wrap(self.pipelines[1], self.pipeline.components)
            extent = {"image": latents, "strength": sampling.strength}

        def report(
            pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]
        ) -> dict[str, Any]:
            if request.on_step is not None:
                request.on_step(step + 1)
            return tensors

        # noise is drawn on the CPU by each row's seed: the same in any batch and on any
        # device
        return pipeline(
            generator=[torch.Generator().manual_seed(seed) for seed in request.seeds],
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            output_type="latent",
            callback_on_step_end=request.on_step and report,
            **extent,
            **inputs,
        ).images

    def pipeline_inputs(self, request: Request) -> dict[str, Any]:
        """Give what diffusers' pipelines condition the U-Net on, for both sides of
        guidance.
        """
        raise NotImplementedError

    def encode_start(self, start: Tensor, size_px: int) -> Tensor:
        """Give the latents of pictures, or latents themselves; BrainhiveError if of
        another shape.
        """
        shape = self.latent_shape(size_px)
        # three channels are a picture; latents must have the right size already
        if start.shape[1] == 3:
            return self.encode(resize(start, size_px))
        if tuple(start.shape[1:]) != shape:
            raise BrainhiveError(
                f"latents to start from are {list(start.shape[1:])}, the "
                f"generator's are {list(shape)}",
                "use the resolution_px and the autoencoder that the latents were "
                "made with",
            )
        return start.to(self.device)

    def _wrap(self, name: str, components: Mapping[str, Any]) -> Any:
        """Make a pipeline of diffusers around components."""
        import diffusers

        with console.mute_libraries():
            pipeline = getattr(diffusers, name)(
                **{**components, **self.pipeline_options}
            )
        pipeline.set_progress_bar_config(disable=True)  # `on_step` reports progress
        return pipeline


class StableDiffusion(LatentDiffusion):
    """Latents by text tokens.

    Attributes:
        encodes_absent: Whether an absent text is encoded; else it is zeros.
        text_encoder: Encoder whose embeddings these are, for hints.
    """

    pipelines: ClassVar[tuple[str, ...]] = (
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
    )
    pipeline_options = {  # noqa: RUF012 (never changed)
        **dict.fromkeys(
            ("text_encoder", "tokenizer", "safety_checker", "feature_extractor")
        ),
        "requires_safety_checker": False,
    }
    refused: ClassVar[tuple[str, ...]] = ("images", "masks")
    text_encoder: ClassVar[str] = "sd15-text"

    def prepare(self, components: dict[str, Any]) -> None:
        """Know no text yet."""
        self.embedded_texts: dict[str, Tensor] = {}
        self._encode_text: Callable[[str], Tensor] | None = None
        # for which there must be weights
        self.encodes_absent = self.config.source != RANDOM

    def load_text_encoder(self) -> Callable[[str], Tensor]:
        """Load what embeds a text as tokens [1, S, D]: here a Stable Diffusion 1
        folder's last states.
        """
        folder = _components.find_folder(self.config.source, text=True)
        # configs first, so that an absent component is named
        for name in ("text_encoder", "tokenizer"):
            _components.read_config(folder, name)
        tower = load_tower(folder, "text_encoder", PLAIN_TEXT_TOWER)
        ids = load_tokenizer(folder)
        return lambda words: tower(input_ids=ids(words)[None]).last_hidden_state

    def text_tokens(
        self,
        texts: Tensor | list[str] | None,
        prompt: str,
        rows: int,
        towards: Tensor | None = None,
        absent: str = "",
    ) -> Tensor:
        """Give text tokens [B, S, D] of the rows' texts, else of the prompt, or of no
        text.

        Args:
            texts: Of B rows, or their tokens.
            prompt: For all rows; on the other side of guidance it replaces texts.
            rows: B.
            towards: Tokens whose other side of guidance these are.
            absent: What is embedded where there is neither text nor prompt.
        """
        # choose between texts and prompt
        width = self.unet.config.cross_attention_dim
        if prompt and towards is not None:
            texts = None
        if texts is not None and prompt:
            raise RecipeError(
                "prompt has no effect where the conditioning has texts",
                "leave prompt out",
            )

        # where there is no text, encode an empty one, or take zeros
        if texts is None and (prompt or self.encodes_absent):
            texts = [prompt or absent]
        if texts is None:
            texts = torch.zeros(
                1, TEXT_TOKENS if towards is None else towards.shape[1], width
            )

        # bring the tokens to B rows, and to as many tokens as `towards` has
        tokens = texts if isinstance(texts, Tensor) else self._embed(texts)
        return self.match_tokens(
            "text", tokens, width, rows, self.text_encoder, towards
        )

    def match_tokens(
        self,
        kind: str,
        tokens: Tensor,
        width: int,
        rows: int,
        encoder: str,
        towards: Tensor | None,
    ) -> Tensor:
        """Give tokens as the U-Net takes them; on the other side of guidance there are
        as many.
        """
        hint = f"use a head that predicts the encoder {encoder}"
        tokens = self.fit_tokens(f"{kind} tokens", tokens, width, rows, hint)
        # both sides of guidance are rows of one batch
        if towards is not None and tokens.shape != towards.shape:
            raise BrainhiveError(
                f"the {kind} tokens are {list(towards.shape)}, the unconditional "
                f"ones {list(tokens.shape)}",
                hint,
            )
        return tokens

    def _embed(self, texts: Sequence[str]) -> Tensor:
        """Embed texts, each once, by an encoder that is loaded for that alone: [B, S,
        D].
        """
        # texts that were not embedded before, each once
        for words in {*texts} - {*self.embedded_texts}:
            if self._encode_text is None:
                if self.config.source == RANDOM:
                    raise MissingData(
                        "a generator of random weights has no text encoder for prompts",
                        "leave prompts out",
                    )
                self._encode_text = self.load_text_encoder()
            with torch.inference_mode():
                self.embedded_texts[words] = self._encode_text(words)
        return torch.cat([self.embedded_texts[words] for words in texts])


def decode_pictures(
    vae: Any,
    latents: Tensor,
    device: torch.device,
    scale: float = 0.5,
    shift: float = 0.5,
) -> GeneratedMedia:
    """Decode latents [B, C, h, w] to float32 pictures [B, 3, H, W] in 0..1, as
    `LatentDiffusion.decode`.
    """
    # undo the scaling of latents, and decode a few at once
    batches = (latents.to(device, vae.dtype) / vae.config.scaling_factor).split(AT_ONCE)
    with torch.no_grad():
        pixels = torch.cat([vae.decode(batch).sample.float() for batch in batches])
    # what overflowed stays recognisable: a picture of it would be black or white
    pixels = pixels.where(pixels.isfinite(), torch.nan)
    return (pixels * scale + shift).clamp(0, 1)


def shrink_factor(vae: Any) -> int:
    """Return how many times smaller the sides of a latent are than those of its
    picture.
    """
    # each block but the last halves the sides
    return 2 ** (len(vae.config.block_out_channels) - 1)


def resize(pictures: Tensor, side_px: int, mode: str = "bicubic") -> Tensor:
    """Resize pictures [B, 3, H, W] in 0..1 to [B, 3, side, side]."""
    square = F.interpolate(
        pictures.float(), (side_px, side_px), mode=mode, antialias=True
    )
    return square.clamp(0, 1)  # bicubic overshoots


def mask_weights(masks: Tensor, side: int) -> Tensor:
    """Turn masks [B, F, 1, H, W] or [B, 1, H, W] in 0..1 to weights, NEURONS' 0.5
    outside and 1 inside.

    Returns:
        [B, F, 1, side, side], means over the mask; F is 1 where masks have no frames.
    """
    masks = masks[:, None] if masks.ndim == 4 else masks  # [B, F, 1, H, W]

    # weight 0.5 outside of the mask and 1 inside, averaged over each latent's area
    inside = 0.5 + 0.5 * (masks > 0.5).float()
    return F.interpolate(inside.flatten(0, 1), (side, side), mode="area").unflatten(
        0, masks.shape[:2]
    )
