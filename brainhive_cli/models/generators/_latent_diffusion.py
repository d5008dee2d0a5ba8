"""Base classes of generators that are latent diffusion models.

- `Config.build` loads U-Net, VAE and scheduler.
- `LatentDiffusion.generate` samples latents and decodes them.
- `LatentDiffusion.loss` is the training loss.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from brainhive_cli.core.base import BrainhiveError, MissingData, RecipeError, console
from brainhive_cli.core.files import Input, hub
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.runs import weights
from brainhive_cli.models import (
    PLAIN_TEXT_TOWER,
    Conditioning,
    load_network,
    load_tokenizer,
    load_tower,
    name_latent_space,
)
from brainhive_cli.models.generators import (
    GeneratedMedia,
    Sampling,
    _components,
    _denoising,
)
from brainhive_cli.models.generators._components import RANDOM, Architecture, Placement
from brainhive_cli.models.generators._denoising import RandomGenerators

VAE_BATCH_SIZE = 4
"""Number of pictures that a VAE encodes or decodes at once. Four fill a GPU at 512 px,
where a picture needs 0.75 GiB in fp32.
"""
N_TEXT_TOKENS = 77
"""Number of tokens of a text in CLIP's text encoders."""
OnStep = Callable[[int], None] | None
"""Function that is called with the number of each finished step."""


class Request(NamedTuple):
    """Request for B media.

    Attributes:
        conditioning: Conditions of B rows, or no condition at all.
        seeds: Seeds [B].
        size_px: Height and width of the media.
        sampling: Steps, guidance, scheduler and prompts.
        null: Conditions of the unconditional batch of guidance. The generator replaces
            absent conditions.
        on_step: Function that is called with the number of each finished step.
    """

    conditioning: Conditioning
    seeds: Sequence[int]
    size_px: int
    sampling: Sampling
    null: Conditioning = Conditioning()
    on_step: OnStep = None


class Config(parts.Config):
    """Config of a latent diffusion model.

    Attributes:
        published_architecture: Architecture of random weights, and of the default
            source while the hub cannot be reached.
        component_folders: Folder of each component in the source.
        family: Name of the model family, for messages.
        addition_embed_type: Kind of further conditions that the U-Net must take, as
            diffusers names it.
        alternative: Advice to users of a U-Net of another family.
    """

    published_architecture: ClassVar[Architecture]
    component_folders: ClassVar[Mapping[str, str]] = {
        "unet": "unet",
        "vae": "vae",
        "scheduler": "scheduler",
    }
    family: ClassVar[str] = "Stable Diffusion 1"
    addition_embed_type: ClassVar[str | None] = None
    alternative: ClassVar[str] = (
        "hub:stable-diffusion-v1-5/stable-diffusion-v1-5, or generator.kind=sdxl"
    )
    if TYPE_CHECKING:
        source: str = ""

    architecture: Architecture | None = Field(
        None,
        description="Arguments of the components, for the source `random` and for "
        "checkpoints of another size. By default the published architecture.",
    )

    def build(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Any:
        """Load the generator onto a device, with frozen weights.

        The first call may convert weights into the home folder. On the device "meta",
        only configs are read, and weights have shapes without values.

        Raises:
            MissingData: if the source or a component is absent or half-downloaded.
            BrainhiveError: if the networks are of another kind.
            RecipeError: if the architecture of random weights cannot be built.
        """
        device = torch.device(device)
        if self.source != RANDOM and device.type != "meta":
            with weights.reading(f"the generator {self.source}"):
                return self.assemble(self.load_components(dtype), device)

        architecture = self.published_architecture | (self.architecture or {})
        if self.source != RANDOM:
            try:
                architecture = self.read_configs()
            except hub.Unreachable:
                # the default source has the published architecture
                if self.source != type(self).model_fields["source"].default:
                    raise

        # check the architecture, and draw its weights
        description = f"the architecture of the generator {self.source}"
        hint = "compare it with the published one"
        with weights.reading(description, hint, RecipeError, problem="cannot be built"):
            self.check_unet(architecture["unet"], "the architecture")
            components = self.draw_components(architecture, device, dtype)
            return self.assemble(components, device)

    def build_shapes(self) -> Any:
        """Make the generator from its configs, with the errors of `build`."""
        return self.build("meta")

    @property
    def weights_variant(self) -> str | None:
        """Variant of the weight files in diffusers, such as fp16, or None."""
        return None

    def inputs(self) -> list[Input]:
        """List the weights, with their states."""
        return _components.list_inputs(self.source, variant=self.weights_variant)

    def assemble(
        self, components: dict[str, Any], device: torch.device
    ) -> "LatentDiffusion":
        """Make the generator from its components."""
        raise NotImplementedError

    def load_components(
        self, dtype: torch.dtype, folder: Path | None = None
    ) -> dict[str, Any]:
        """Load the components from a folder of diffusers, by default the source's."""
        from diffusers import AutoencoderKL, UNet2DConditionModel

        # read configs first, so that an absent component is named
        folder = folder or _components.find_folder(self.source, self.weights_variant)
        self.check_unet(_components.read_config(folder, "unet"), folder)
        _components.read_config(folder, "vae")

        components = {}
        classes = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
        for name, network_class in classes.items():
            components[name] = load_network(
                network_class,
                folder / name,
                f"{name} of the generator {folder}",
                torch_dtype=dtype,
                variant=self.weights_variant,
            )
        config = _components.read_config(folder, "scheduler")
        components["scheduler"] = _components.make_scheduler(config, folder)
        return components

    def draw_components(
        self, architecture: Architecture, device: torch.device, dtype: torch.dtype
    ) -> dict[str, Any]:
        """Make the components with random weights."""
        return _components.draw_components(architecture, device, dtype)

    def check_unet(self, config: dict[str, Any], source: Path | str) -> None:
        """Raise an error if the config is from a U-Net of another family."""
        embed_type = config.get("addition_embed_type")
        if embed_type != self.addition_embed_type:
            raise BrainhiveError(
                f"the U-Net of {source} is not {self.family}'s type: "
                f"addition_embed_type is {embed_type}, not {self.addition_embed_type}",
                f"use {self.alternative}",
            )

    def check(self) -> None:
        """Raise the errors of `build` that the configs show."""
        if self.source != RANDOM:
            self.check_unet(self.read_configs()["unet"], self.source)

    def read_configs(self) -> Architecture:
        """Read the architecture of the source."""
        error = _components.find_source_error(self.source)
        if error is not None:
            raise error
        folder = hub.folder(self.source, allow=["*/*.json"])
        architecture = {}
        for name, component in self.component_folders.items():
            architecture[name] = _components.read_config(folder, component)
        return architecture


class LatentDiffusion:
    """Generator with U-Net, VAE and scheduler.

    Subclasses condition the U-Net, in `predict` and `pipeline_inputs` or `sample`.

    Args:
        config: Config of the generator.
        components: `unet`, `vae` and `scheduler`, and further components of subclasses.
        device: Device of the networks.

    Attributes:
        pipeline_classes: Classes of diffusers that sample from noise and from a start,
            or empty.
        pipeline_options: Arguments of these classes.
        refused_conditions: Names of conditions that the generator does not take.
        overflows_in_float16: True if the VAE overflows in float16, as SDXL's does.
    """

    pipeline_classes: ClassVar[tuple[str, ...]] = ()
    pipeline_options: ClassVar[Mapping[str, Any]] = {}
    refused_conditions: ClassVar[tuple[str, ...]] = ()
    overflows_in_float16: ClassVar[bool] = False
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

        if self.pipeline_classes:
            modules = {"unet": self.unet, "vae": self.vae, "scheduler": self._scheduler}
            self.pipeline = self._make_pipeline(self.pipeline_classes[0], modules)
        self.add_components(components)
        # networks that compute at each step of sampling
        self.denoising_networks = [
            network for network in self.networks if network is not self.vae
        ]

        # freeze the networks on the device
        self.placement = Placement(self.networks, device)
        self.device = device
        is_upcast = self.overflows_in_float16 and self.vae.dtype == torch.float16
        if is_upcast and self.vae.config.force_upcast:
            self.use_float32_autoencoder()

        # training adds noise with this scheduler
        self.noise_scheduler = DDPMScheduler.from_config(self._scheduler.config)
        prediction_type = self.noise_scheduler.config.prediction_type
        if prediction_type not in ("epsilon", "v_prediction"):
            raise BrainhiveError(
                f"the scheduler's prediction_type is {prediction_type}",
                "use a generator that predicts epsilon or v_prediction",
            )

    def add_components(self, components: dict[str, Any]) -> None:
        """Add the subclass's own components, before the networks are frozen."""

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise, or velocity, in latents [B, C, h, w] at timesteps [B]."""
        raise NotImplementedError

    @cached_property
    def latent_space(self) -> str:
        """Name of the VAE's latent space, the same in any precision."""
        return name_latent_space(self.vae)

    def latent_shape(self, size_px: int) -> tuple[int, int, int]:
        """Return the shape [C, h, w] of the latent of a picture, after `check_size`."""
        self.check_size(size_px)
        side = size_px // get_vae_scale_factor(self.vae)
        return self.vae.config.latent_channels, side, side

    def check_size(self, size_px: int) -> None:
        """Raise an error if pictures cannot have this height and width."""
        # diffusers requires a multiple of 8
        factor = max(8, get_vae_scale_factor(self.vae))
        if size_px % factor or size_px <= 0:
            raise BrainhiveError(
                f"resolution_px is {size_px}", f"give a multiple of {factor}"
            )

    def use_float32_autoencoder(self) -> None:
        """Encode and decode in float32, whatever the data type of the U-Net."""
        _components.change_dtype(self.vae, torch.float32)

    def spare_memory(
        self, offload_to: torch.device | None = None, tile: bool = False
    ) -> None:
        """Use less memory and more time.

        Args:
            offload_to: Device that holds networks only while they compute.
            tile: If True, decode pictures in tiles.
        """
        if tile:
            self.vae.enable_slicing()
            self.vae.enable_tiling()

        if offload_to is None:
            return
        self.device = offload_to
        # a pipeline moves its own networks
        if self.pipeline_classes:
            self.placement.device = offload_to
            self.pipeline.enable_model_cpu_offload(device=offload_to)
        else:
            self.placement.offload(offload_to)

    def encode(
        self, media: GeneratedMedia, rng: RandomGenerators | None = None
    ) -> Tensor:
        """Encode pictures or clips as latents.

        Args:
            media: Pictures [B, 3, H, W] or clips [B, F, 3, H, W] in 0..1.
            rng: Random generator, or one for each row, that samples the posterior. With
                None its mode is taken.

        Returns:
            Latents [B, C, h, w] or [B, F, C, h, w].
        """
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        # encode a few pictures at once, and frames of clips as pictures
        self.placement.use(self.vae)
        batch_shape = media.shape[:-3]
        pictures = media.flatten(0, -4).to(self.device, self.vae.dtype)
        with torch.no_grad():
            batches = (pictures * 2 - 1).split(VAE_BATCH_SIZE)
            moments = torch.cat(
                [self.vae.encode(batch).latent_dist.parameters for batch in batches]
            )

        posterior = DiagonalGaussianDistribution(moments)
        if rng is None:
            latents = posterior.mode()
        elif isinstance(rng, torch.Generator):
            latents = posterior.sample(rng)
        else:
            # all frames of a clip use the clip's random generator
            n_frames = math.prod(batch_shape[1:])
            frame_rngs: list[torch.Generator] = []
            for row_rng in rng:
                frame_rngs += [row_rng] * n_frames
            latents = posterior.sample(frame_rngs)
        latents = latents.float() * self.vae.config.scaling_factor  # [B F, C, h, w]
        return latents.unflatten(0, batch_shape)

    def decode(
        self, latents: Tensor, scale: float = 0.5, shift: float = 0.5
    ) -> GeneratedMedia:
        """Decode latents [B, C, h, w] or [B, F, C, h, w] to media in 0..1.

        A decoded pixel x in −1..1 becomes scale · x + shift.
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
        """Generate pictures [B, 3, H, W] or clips [B, F, 3, H, W] in 0..1."""
        self.check_size(size_px)
        request = Request(
            conditioning, seeds, size_px, sampling, null or Conditioning(), on_step
        )
        return self.decode_media(self.sample(request))

    def decode_media(self, latents: Tensor) -> GeneratedMedia:
        """Decode sampled latents to pictures or clips."""
        return self.decode(latents)

    def loss(
        self,
        latents: Tensor,
        conditioning: Conditioning,
        rng: RandomGenerators,
        sizes: Tensor,
        levels: Tensor | None = None,
    ) -> Tensor:
        """Return the mean squared error of the predicted noise, or velocity.

        Args:
            latents: Clean latents [B, C, h, w], or of clips [B, F, C, h, w].
            conditioning: Conditions of B rows, or no condition at all.
            rng: Random generator of noise and timesteps, or one for each row.
            sizes: Sizes [B, 6] in pixels, which only SDXL's U-Net takes: original
                height and width, top and left of the crop, target height and width.
            levels: Timesteps [B] as shares of the schedule in 0..1, or None to draw
                them.

        Source: SDXL (arXiv 2307.01952), section 2.2. BrainHiVE (arXiv 2602.07495).
        """
        noise_scheduler = self.noise_scheduler
        latents = latents.to(self.device)
        self.check_conditioning(conditioning, len(latents))

        # draw noise and a timestep for each row, shared by the frames of a clip
        flat_latents = latents.flatten(1, -3)  # [B, C, h, w], of clips [B, F C, h, w]
        n_timesteps = noise_scheduler.config.num_train_timesteps
        noise, timesteps = _denoising.draw_noise(
            rng, flat_latents.shape, n_timesteps, self.device
        )
        if levels is not None:
            timesteps = (levels * n_timesteps).long().to(self.device)

        # add the noise, and predict it
        noisy_latents = noise_scheduler.add_noise(flat_latents, noise, timesteps)
        model_pred = self.predict(
            noisy_latents.view(latents.shape), timesteps, conditioning, sizes
        ).flatten(1, -3)
        target = noise
        if noise_scheduler.config.prediction_type == "v_prediction":
            target = noise_scheduler.get_velocity(flat_latents, noise, timesteps)
        return F.mse_loss(model_pred.float(), target.float())

    def check_conditioning(
        self, conditioning: Conditioning, rows: int, sampling: Sampling | None = None
    ) -> None:
        """Raise an error if the generator does not take these conditions.

        Args:
            conditioning: Conditions of `rows` rows, or no condition at all.
            rows: Number of rows.
            sampling: Settings of sampling, which subclasses check.
        """
        for name in self.refused_conditions:
            if getattr(conditioning, name) is not None:
                raise BrainhiveError(
                    f"{self.config.kind} takes no condition {name}", "use another prior"
                )
        if len(conditioning) not in (0, rows):
            raise BrainhiveError(
                f"{rows} seeds need a conditioning of {rows} rows, not "
                f"{len(conditioning)}",
                "give one seed for each row",
            )

    def prepare_tokens(
        self, name: str, tokens: Tensor, width: int, rows: int, hint: str
    ) -> Tensor:
        """Check tokens, and move them to the device and data type of the U-Net.

        Args:
            name: Name of the tokens, for the message.
            tokens: Tokens [B, S, D] or [1, S, D].
            width: Expected width D.
            rows: Number of rows B of the result.
            hint: Advice to users of other tokens.

        Returns:
            Tokens [B, S, D].
        """
        if tokens.ndim != 3 or tokens.shape[-1] != width:
            raise BrainhiveError(
                f"the generator takes {name} [B, S, {width}], not {list(tokens.shape)}",
                hint,
            )
        return tokens.to(self.device, self.unet.dtype).expand(rows, -1, -1)  # [B, S, D]

    def run_unet(
        self, latents: Tensor, timesteps: Tensor, text_tokens: Tensor, **inputs: Any
    ) -> Tensor:
        """Run the U-Net in its own precision, with text tokens [B, S, D]."""
        outputs = self.unet(
            latents.to(self.unet.dtype),
            timesteps.to(self.device),
            text_tokens,
            return_dict=False,
            **inputs,
        )
        return outputs[0]

    def sample(self, request: Request) -> Tensor:
        """Sample latents with the pipelines of diffusers, from noise or a noisy start.

        With a start, the share `strength` of the denoising steps is done, at least one.

        Source: SDEdit (arXiv 2108.01073).
        """
        # check the conditions before the first step
        conditioning = request.conditioning
        sampling = request.sampling
        self.check_conditioning(conditioning, len(request.seeds), sampling)
        inputs = self.pipeline_inputs(request)
        self.pipeline.scheduler = _denoising.make_scheduler(self._scheduler, sampling)

        # begin with noise, or with the encoded start
        pipeline = self.pipeline
        size_px = request.size_px
        start_inputs: dict[str, Any] = {"height": size_px, "width": size_px}
        if conditioning.start is not None and sampling.strength < 1:
            latents = self.encode_start(conditioning.start, size_px)
            if sampling.strength == 0:
                return latents
            _denoising.count_steps(sampling)
            pipeline = self._make_pipeline(
                self.pipeline_classes[1], self.pipeline.components
            )
            start_inputs = {"image": latents, "strength": sampling.strength}

        # noise from the CPU is the same in any batch and on any device
        rngs = [torch.Generator().manual_seed(seed) for seed in request.seeds]
        on_step_end = None
        if request.on_step is not None:
            on_step_end = partial(_report_step, request.on_step)
        return pipeline(
            generator=rngs,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            output_type="latent",
            callback_on_step_end=on_step_end,
            **start_inputs,
            **inputs,
        ).images

    def pipeline_inputs(self, request: Request) -> dict[str, Any]:
        """Return the arguments of the pipelines that condition the U-Net."""
        raise NotImplementedError

    def encode_start(self, start: Tensor, size_px: int) -> Tensor:
        """Resize and encode pictures [B, 3, H, W], or return latents unchanged.

        Raises:
            BrainhiveError: if latents have another shape than the generator's.
        """
        shape = self.latent_shape(size_px)
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

    def _make_pipeline(self, class_name: str, components: Mapping[str, Any]) -> Any:
        """Make a pipeline of diffusers from components."""
        import diffusers

        pipeline_class = getattr(diffusers, class_name)
        arguments = dict(components) | dict(self.pipeline_options)
        with console.mute_libraries():
            pipeline = pipeline_class(**arguments)
        pipeline.set_progress_bar_config(disable=True)  # `on_step` reports progress
        return pipeline


def _report_step(
    on_step: Callable[[int], None],
    pipeline: Any,
    step: int,
    timestep: Any,
    tensors: dict[str, Any],
) -> dict[str, Any]:
    """Report a finished step of a pipeline, as its callback."""
    on_step(step + 1)
    return tensors


class StableDiffusion(LatentDiffusion):
    """Generator whose U-Net is conditioned on text tokens.

    Attributes:
        encodes_missing_texts: If True, absent texts become the empty text, else zeros.
        text_encoder: Encoder whose embeddings are these tokens, for hints.
    """

    pipeline_classes: ClassVar[tuple[str, ...]] = (
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
    )
    pipeline_options = {  # noqa: RUF012 (never changed)
        "text_encoder": None,
        "tokenizer": None,
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    refused_conditions: ClassVar[tuple[str, ...]] = ("images", "masks")
    text_encoder: ClassVar[str] = "sd15-text"

    def add_components(self, components: dict[str, Any]) -> None:
        """Start with an empty cache of texts."""
        self.text_cache: dict[str, Tensor] = {}
        self._encode_text: Callable[[str], Tensor] | None = None
        # random weights have no text encoder
        self.encodes_missing_texts = self.config.source != RANDOM

    def load_text_encoder(self) -> Callable[[str], Tensor]:
        """Return a function that embeds a text as tokens [1, S, D]."""
        folder = _components.find_folder(self.config.source, text=True)
        # read configs first, so that an absent component is named
        for name in ("text_encoder", "tokenizer"):
            _components.read_config(folder, name)
        tower = load_tower(folder, "text_encoder", PLAIN_TEXT_TOWER)
        tokenize = load_tokenizer(folder)
        return lambda text: tower(input_ids=tokenize(text)[None]).last_hidden_state

    def prepare_text_tokens(
        self,
        texts: Tensor | list[str] | None,
        prompt: str,
        rows: int,
        conditional_tokens: Tensor | None = None,
        default_text: str = "",
    ) -> Tensor:
        """Return the tokens [B, S, D] of texts, else of the prompt or the default text.

        Args:
            texts: Texts [B], their tokens [B, S, D] or None.
            prompt: Text of all rows. In an unconditional batch it replaces `texts`.
            rows: Number of rows B.
            conditional_tokens: Tokens with the condition. If given, tokens of the same
                number are returned for the unconditional batch of guidance.
            default_text: Text without texts and prompt.
        """
        is_unconditional = conditional_tokens is not None
        if prompt and is_unconditional:
            texts = None
        if texts is not None and prompt:
            raise RecipeError(
                "prompt has no effect where the conditioning has texts",
                "leave prompt out",
            )

        # without texts, embed a prompt or the default text, or take zeros
        width = self.unet.config.cross_attention_dim
        if isinstance(texts, Tensor):
            tokens = texts
        elif texts is not None:
            tokens = self._embed_texts(texts)
        elif prompt or self.encodes_missing_texts:
            tokens = self._embed_texts([prompt or default_text])
        else:
            n_tokens = N_TEXT_TOKENS
            if conditional_tokens is not None:
                n_tokens = conditional_tokens.shape[1]
            tokens = torch.zeros(1, n_tokens, width)
        return self.prepare_guided_tokens(
            "text", tokens, width, rows, self.text_encoder, conditional_tokens
        )

    def prepare_guided_tokens(
        self,
        kind: str,
        tokens: Tensor,
        width: int,
        rows: int,
        encoder: str,
        conditional_tokens: Tensor | None,
    ) -> Tensor:
        """Check tokens for guidance, which needs tokens with and without the condition.

        Both must have the same shape, because the U-Net takes them in a single batch.

        Args:
            kind: `text` or `image`, for messages.
            tokens: Tokens [B, S, D] or [1, S, D].
            width: Expected width D.
            rows: Number of rows B of the result.
            encoder: Encoder of the tokens, for messages.
            conditional_tokens: Tokens with the condition if `tokens` are the others,
                else None.

        Returns:
            Tokens [B, S, D] on the device of the U-Net.
        """
        hint = f"use a head that predicts the encoder {encoder}"
        tokens = self.prepare_tokens(f"{kind} tokens", tokens, width, rows, hint)
        if conditional_tokens is not None and tokens.shape != conditional_tokens.shape:
            raise BrainhiveError(
                f"the {kind} tokens are {list(conditional_tokens.shape)}, the "
                f"unconditional ones {list(tokens.shape)}",
                hint,
            )
        return tokens

    def _embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts as tokens [B, S, D]. Equal texts are embedded once."""
        for text in set(texts) - set(self.text_cache):
            if self._encode_text is None:
                if self.config.source == RANDOM:
                    raise MissingData(
                        "a generator of random weights has no text encoder for prompts",
                        "leave prompts out",
                    )
                self._encode_text = self.load_text_encoder()
            with torch.inference_mode():
                self.text_cache[text] = self._encode_text(text)
        return torch.cat([self.text_cache[text] for text in texts])


def decode_pictures(
    vae: Any,
    latents: Tensor,
    device: torch.device,
    scale: float = 0.5,
    shift: float = 0.5,
) -> GeneratedMedia:
    """Decode latents [B, C, h, w] to float32 pictures [B, 3, H, W] in 0..1.

    A decoded pixel x in −1..1 becomes scale · x + shift.
    """
    unscaled_latents = latents.to(device, vae.dtype) / vae.config.scaling_factor
    batches = unscaled_latents.split(VAE_BATCH_SIZE)
    with torch.no_grad():
        pixels = torch.cat([vae.decode(batch).sample.float() for batch in batches])
    # clamping would hide an overflow as black or white
    pixels = pixels.where(pixels.isfinite(), torch.nan)
    return (pixels * scale + shift).clamp(0, 1)


def get_vae_scale_factor(vae: Any) -> int:
    """Return the side of a picture divided by the side of its latent."""
    # each block but the last halves the sides
    return 2 ** (len(vae.config.block_out_channels) - 1)


def resize(pictures: Tensor, side_px: int, mode: str = "bicubic") -> Tensor:
    """Resize pictures [B, 3, H, W] in 0..1 to squares [B, 3, side, side]."""
    squares = F.interpolate(
        pictures.float(), (side_px, side_px), mode=mode, antialias=True
    )
    return squares.clamp(0, 1)  # bicubic overshoots


def compute_mask_weights(masks: Tensor, side: int) -> Tensor:
    """Compute weights from masks: 1 inside and 0.5 outside, averaged over each area.

    Args:
        masks: Masks [B, F, 1, H, W] of clips or [B, 1, H, W] of pictures, in 0..1.
        side: Height and width of the result.

    Returns:
        Weights [B, F, 1, side, side], with F = 1 for pictures.

    Source: NEURONS (arXiv 2503.11167).
    """
    clip_masks = masks[:, None] if masks.ndim == 4 else masks  # [B, F, 1, H, W]
    pixel_weights = 0.5 + 0.5 * (clip_masks > 0.5).float()
    area_weights = F.interpolate(pixel_weights.flatten(0, 1), (side, side), mode="area")
    return area_weights.unflatten(0, clip_masks.shape[:2])
