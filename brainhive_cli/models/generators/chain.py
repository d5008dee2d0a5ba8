"""Generators in a chain, whose stages use the media of the previous stage.

Source: MindEye2 (arXiv 2403.11207), for the average with a blurry picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator

from brainhive_cli.core.base import BrainhiveError, RecipeError, derive_seed
from brainhive_cli.core.files import Input
from brainhive_cli.core.recipes import Section, parts
from brainhive_cli.core.results import MIXED_WITH_BLURRY
from brainhive_cli.core.runs import weights
from brainhive_cli.models import (
    Conditioning,
    Decoded,
    find_file_input,
    find_weight_file,
    is_weight_file,
    name_latent_space,
)
from brainhive_cli.models.generators import (
    DEFAULT_KIND,
    SCHEDULERS,
    GeneratedMedia,
    NeedsTextEncoders,
    Sampling,
    SchedulerName,
    _captioner,
    _components,
    sdxl,
)
from brainhive_cli.models.generators._components import Placement
from brainhive_cli.models.generators._latent_diffusion import decode_pictures, resize

MIX_AUTOENCODER = dict(_components.ARCHITECTURES["shared"]["vae"])
"""Architecture of `sd_image_var_autoenc.pth`.

Source: MindEye2's recon_inference.ipynb (MIT).
"""


class ChainStage(Section):
    """Stage of a chain. Keys that are left out keep the values of the recipe."""

    generator: Annotated[Any, parts.part_validator("generators", DEFAULT_KIND)] = Field(
        description="Generator of the stage."
    )
    prior: str | dict[str, Any] | None = Field(
        None,
        description="Prior of the stage, which conditions on the decoded heads: a "
        "reference, or a kind without weights and its keys. By default the stage "
        "takes the conditioning of the chain.",
    )
    receives: Literal["start", "images", "both"] = Field(
        "start",
        description="Condition for which the media of the previous stage are used. "
        "With both, clips are the start, and their first frames the keyframes.",
    )
    caption: str | _captioner.HeadCaption | None = Field(
        None,
        description="Captioner that writes the texts of this stage: BLIP-2 for the "
        "media of the previous stage, such as hub:Salesforce/blip2-opt-2.7b (NEURONS), "
        "or GIT for a decoded head (MindEye2: {head: image}). By default the texts "
        "are the prior's.",
    )
    resolution_px: int | None = Field(
        None, gt=0, le=16_384, description="Height and width in pixels."
    )
    steps: int | None = Field(
        None, gt=0, le=10_000, description="Number of denoising steps."
    )
    guidance: float | None = Field(
        None, ge=0, description="Scale of classifier-free guidance."
    )
    scheduler: SchedulerName = Field(
        None, description=f"One of {', '.join(SCHEDULERS)}."
    )
    negative_prompt: str | None = Field(
        None, description="Text from which guidance above 1 moves away."
    )
    strength: float | None = Field(
        None, ge=0, le=1, description="Share of the denoising steps after a start."
    )


class Link(NamedTuple):
    """Loaded stage of a chain.

    Attributes:
        stage: Config of the stage.
        generator: Generator of the stage.
        prior: Prior, or None if the stage takes the conditioning of the chain.
        captioner: Captioner, or None.
    """

    stage: ChainStage
    generator: Any
    prior: Any
    captioner: _captioner.Captioner | None


class LowLevelMix(Section):
    """Average of each picture and a blurry picture that is decoded from a head.

    It raises pixel-level metrics by construction.
    """

    head: str = Field(
        "blurry",
        description="Head whose latent is decoded to the blurry picture.",
    )
    share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Share of the blurry picture in the average. MindEye2: 0.25.",
    )
    autoencoder: str = Field(
        "hub:stable-diffusion-v1-5/stable-diffusion-v1-5/vae",
        description="Autoencoder of the latent: a folder of diffusers, or for "
        "MindEye2's published weights "
        "hub:datasets/pscotti/mindeyev2/sd_image_var_autoenc.pth.",
    )

    def build(self, device: torch.device | str, dtype: torch.dtype) -> Placement:
        """Load the autoencoder of the head's latents onto a device.

        Raises:
            MissingData: if the autoencoder is absent or half-downloaded.
            BrainhiveError: if the file holds another autoencoder.
        """
        import diffusers

        # a folder of diffusers states its architecture, the file of MindEye2 does not
        if is_weight_file(self.autoencoder):
            file = find_weight_file(self.autoencoder)
            network = diffusers.AutoencoderKL(**MIX_AUTOENCODER)
            weights.fill(
                network,
                weights.read(file),
                file,
                "give sd_image_var_autoenc.pth, or a folder",
            )
        else:
            network = _components.load_network_folder(
                diffusers.AutoencoderKL, self.autoencoder, dtype
            )
        return Placement(
            (_components.change_dtype(network, dtype),), torch.device(device)
        )

    def inputs(self) -> list[Input]:
        """List the weights of the autoencoder, with their state."""
        if is_weight_file(self.autoencoder):
            return [find_file_input(self.autoencoder)]
        return _components.list_inputs(self.autoencoder, [_components.WEIGHTS_STEM])

    def mix(
        self, autoencoder: Placement, pictures: GeneratedMedia, decoded: Decoded | None
    ) -> GeneratedMedia:
        """Average pictures with blurry pictures, which are decoded from a head.

        Args:
            autoencoder: Autoencoder that `build` returns.
            pictures: Pictures [B, 3, H, W] in 0..1.
            decoded: Decoded heads.

        Returns:
            Pictures [B, 3, 256, 256].

        Raises:
            BrainhiveError: if there is no such head of latents, or the media are clips.
        """
        latents = None if decoded is None else decoded.tensors.get(self.head)
        if latents is None or latents.ndim != 4 or pictures.ndim != 4:
            missing = "such picture" if pictures.ndim != 4 else "such head"
            raise BrainhiveError(
                "low_level_mix averages pictures with the latent of the head "
                f"{self.head}, and there is no {missing}",
                "decode with a brain model that has it (papers/mindeye2-blurry), "
                "or leave low_level_mix out",
            )

        network = autoencoder.networks[0]
        autoencoder.use(network)
        blurry_pictures = decode_pictures(network, latents, autoencoder.device)
        autoencoder.use()  # makes room for the generator

        # Side of the averaged picture, at which MindEye2 averages and compares.
        mix_px = 256
        sharp = resize(pictures, mix_px, "bilinear")
        blurry = resize(blurry_pictures, mix_px, "bilinear")
        return (1 - self.share) * sharp + self.share * blurry.to(pictures.device)


class Config(parts.Config):
    """Stages of a chain, such as a keyframe and its motion."""

    called = "A chain of diffusion models"

    stages: tuple[ChainStage, ...] = Field(
        min_length=1, description="Stages, in their order."
    )
    low_level_mix: LowLevelMix | None = Field(
        None,
        description="Average of the last stage's pictures with a decoded blurry "
        "picture (MindEye2: {}). It raises pixel-level metrics by construction, which "
        "all numbers of the run state.",
    )

    @property
    def caveats(self) -> tuple[str, ...]:
        """Caveats of every number about these media."""
        return (MIXED_WITH_BLURRY,) if self.low_level_mix is not None else ()

    @model_validator(mode="after")
    def _check_first_caption(self) -> "Config":
        if isinstance(self.stages[0].caption, str):
            raise RecipeError(
                "the first stage has no media to caption", "caption in the second stage"
            )
        return self

    def build(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "Chain":
        """Load the generator, prior and captioner of every stage onto a device."""
        links: list[Link] = []
        for stage in self.stages:
            generator = stage.generator.build(device, dtype)
            captioner = None
            if stage.caption is not None:
                captioner = _captioner.load_captioner(stage.caption, device, dtype)

            # the stage's own prior is a reference, or a kind without weights
            prior: Any = None
            if isinstance(stage.prior, str):
                prior = parts.import_shelf("priors").load(stage.prior)
            elif stage.prior is not None:
                prior = parts.resolve("priors", stage.prior).build({}, generator)
            if prior is not None:
                prior.attach(generator)
                prior = prior.to(device)
            links.append(Link(stage, generator, prior, captioner))

        mix = self.low_level_mix
        return Chain(links, mix, None if mix is None else mix.build(device, dtype))

    def check(self) -> None:
        """Raise the errors of `build` that the configs of the stages show."""
        for stage in self.stages:
            stage.generator.check()
            if stage.caption is not None:
                _captioner.find_folder(stage.caption)

    def inputs(self) -> list[Input]:
        """List the weights of every stage, with their states."""
        inputs: list[Input] = []
        for stage in self.stages:
            inputs += stage.generator.inputs()
            if stage.caption is not None:
                inputs += _captioner.list_inputs(stage.caption)
                if isinstance(stage.generator, NeedsTextEncoders):
                    inputs += stage.generator.text_inputs()
        if self.low_level_mix is not None:
            inputs += self.low_level_mix.inputs()
        return inputs


TINY = Config(
    stages=(
        ChainStage(generator=sdxl.TINY),
        ChainStage(generator=sdxl.TINY, steps=2, strength=0.5),
    )
)
"""Small enough for tests."""


class Chain:
    """Chain of generators. Its latents are the latents of the first stage.

    Args:
        links: Loaded stages.
        mix: Average with a blurry picture, or None.
        autoencoder: Autoencoder of the blurry picture, or None.
    """

    def __init__(
        self,
        links: Sequence[Link],
        mix: LowLevelMix | None = None,
        autoencoder: Placement | None = None,
    ) -> None:
        self.links = list(links)
        self.mix = mix
        self.autoencoder = autoencoder
        generators = [link.generator for link in links]
        self.first_generator = generators[0]
        self.encode = self.first_generator.encode
        self.decode = self.first_generator.decode

        # captioners and the autoencoder are offloaded like the generators
        self.helper_placements: list[Placement] = []
        for link in links:
            if link.captioner is not None:
                self.helper_placements.append(link.captioner.placement)
        if autoencoder is not None:
            self.helper_placements.append(autoencoder)

        # all networks with weights
        networks: list[Any] = []
        for generator in generators:
            networks += generator.networks
        for placement in self.helper_placements:
            networks += placement.networks
        networks += [link.prior for link in links if link.prior is not None]
        self.networks = tuple(networks)

    @property
    def latent_space(self) -> str:
        """Name of the first stage's latent space."""
        return str(self.first_generator.latent_space)

    def latent_spaces(self, head: str, starts: bool) -> list[str]:
        """Name the latent spaces to which a head of latents may belong.

        Args:
            head: Name of the head. The head of the blurry picture belongs to the
                autoencoder that decodes it.
            starts: True if sampling starts from latents. Another head then belongs to
                the space of any stage, else to none.
        """
        if (
            self.mix is not None
            and self.autoencoder is not None
            and head == self.mix.head
        ):
            return [name_latent_space(self.autoencoder.networks[0])]
        if starts:
            return [str(link.generator.latent_space) for link in self.links]
        return []

    def latent_shape(self, size_px: int) -> Any:
        """Return the shape [C, h, w] of the first stage's latents."""
        stage_px = self.links[0].stage.resolution_px or size_px
        return self.first_generator.latent_shape(stage_px)

    def check_size(self, size_px: int) -> None:
        """Raise an error if a stage cannot generate media of its size."""
        for link in self.links:
            link.generator.check_size(link.stage.resolution_px or size_px)

    def spare_memory(
        self, offload_to: torch.device | None = None, tile: bool = False
    ) -> None:
        """Use less memory and more time in every stage."""
        for link in self.links:
            link.generator.spare_memory(offload_to, tile)
        if offload_to is not None:
            for placement in self.helper_placements:
                placement.offload(offload_to)

    def generate(
        self,
        conditioning: Conditioning,
        seeds: Sequence[int],
        size_px: int,
        sampling: Sampling,
        null: Conditioning | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> GeneratedMedia:
        """Run the stages, and return the media of the last stage.

        - Noise depends on the row's seed and the index of the stage.
        - A stage with a prior is conditioned on `conditioning.decoded`, a stage without
          on `conditioning` and `null`. A captioner's texts replace theirs.
        - `on_step` counts the steps of all stages.
        """
        media: Any = None
        n_previous_steps = 0
        for index, (stage, generator, prior, captioner) in enumerate(self.links):
            # keys of the stage replace the sampling of the recipe
            settings = dict(sampling)
            settings |= stage.model_dump(
                include=set(Sampling.model_fields), exclude_none=True
            )
            stage_sampling = Sampling(**settings)
            # the first stage has the noise of a generator outside of a chain
            stage_seeds = list(seeds)
            if index > 0:
                stage_seeds = [derive_seed(seed, index) for seed in seeds]

            stage_conditioning = conditioning
            stage_null = null
            if prior is not None:
                if conditioning.decoded is None:
                    raise BrainhiveError(
                        "a stage of the chain has a prior of its own, and the "
                        "conditioning brings no decoded heads",
                        "use the prior identity for the whole chain",
                    )
                stage_conditioning = prior.condition(conditioning.decoded, stage_seeds)
                stage_null = prior.null(len(seeds), stage_seeds)

            # condition on the media of the previous stage, and on captions
            if media is not None and stage.receives in ("start", "both"):
                stage_conditioning = replace(stage_conditioning, start=media)
            if media is not None and stage.receives in ("images", "both"):
                stage_conditioning = replace(stage_conditioning, images=media)
            if captioner is not None:
                captions = captioner.caption(media, conditioning.decoded)
                stage_conditioning = replace(stage_conditioning, texts=captions)

            stage_on_step = None
            if on_step is not None:
                stage_on_step = partial(_report_step, on_step, n_previous_steps)
            media = generator.generate(
                stage_conditioning,
                stage_seeds,
                stage.resolution_px or size_px,
                stage_sampling,
                stage_null,
                stage_on_step,
            )
            n_previous_steps += stage_sampling.steps

        if self.mix is None or self.autoencoder is None:
            return media
        return self.mix.mix(self.autoencoder, media, conditioning.decoded)


def _report_step(
    on_step: Callable[[int], None], n_previous_steps: int, step: int
) -> None:
    """Report a finished step of a stage, counted over all stages."""
    on_step(n_previous_steps + step)
