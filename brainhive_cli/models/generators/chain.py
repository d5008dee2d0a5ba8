"""A generator of stages: each generates from the media of the one before, with its own
prior and sampling.

The last may be averaged with a blurry picture that is decoded from the brain's latent:
MindEye2's last step.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator

from brainhive_cli.core import parts, weights
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.measurements import MIXED_WITH_BLURRY
from brainhive_cli.core.sections import Section
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.models.foreign_weights import (
    find_file_input,
    find_weight_file,
    is_weight_file,
)
from brainhive_cli.models.generators import (
    DEFAULT,
    SCHEDULERS,
    GeneratedMedia,
    Sampling,
    SchedulerName,
    _captioner,
    _components,
    sdxl,
)
from brainhive_cli.models.generators._components import Placement
from brainhive_cli.models.generators._latent_diffusion import decode_pictures, resize
from brainhive_cli.models.heads import Conditioning, Decoded, name_latent_space

MIX_PX = 256
"""Side of the mean with a blurry picture: the size at which MindEye2 averages, and its
protocol compares.
"""
MIX_AUTOENCODER = {**_components.ARCHITECTURES["shared"]["vae"]}
"""Architecture of `sd_image_var_autoenc.pth`; source: MindEye2's recon_inference.ipynb
(MIT).
"""


class ChainStage(Section):
    """One stage; what it leaves out is as the command's recipe says."""

    generator: Annotated[Any, parts.part_validator("generators", DEFAULT)] = Field(
        description="Generator of the stage."
    )
    prior: str | dict[str, Any] | None = Field(
        None,
        description="Prior of the stage, from the decoded heads: a reference, or a "
        "kind without weights with its knobs; without one the stage takes "
        "the conditioning that the chain is given.",
    )
    receives: Literal["start", "images", "both"] = Field(
        "start",
        description="As which condition the media of the stage before are taken; both: "
        "clips to start from, the first frames of which are keyframes, "
        "too.",
    )
    caption: str | _captioner.HeadCaption | None = Field(
        None,
        description="BLIP-2 that captions the media of the stage before, as texts of "
        "this one, such as hub:Salesforce/blip2-opt-2.7b (NEURONS); or a "
        "GIT that captions a decoded head (MindEye2: {head: image}); "
        "without it texts are the prior's.",
    )
    resolution_px: int | None = Field(
        None, gt=0, le=16_384, description="Height and width."
    )
    steps: int | None = Field(None, gt=0, le=10_000, description="Denoising steps.")
    guidance: float | None = Field(
        None, ge=0, description="Classifier-free guidance scale."
    )
    scheduler: SchedulerName = Field(
        None, description=f"One of {', '.join(SCHEDULERS)}."
    )
    negative_prompt: str | None = Field(
        None, description="Text that guidance above 1 moves away from."
    )
    strength: float | None = Field(
        None, ge=0, le=1, description="Share of the steps done from a start."
    )


Link = tuple[ChainStage, Any, Any, _captioner.Captioner | None]
"""A stage, its generator, its prior (None where the stage takes the chain's
conditioning), and captioner.
"""


class LowLevelMix(Section):
    """The mean of each picture and the blurry one of a head, at 256 px: better in
    pixels by construction.
    """

    head: str = Field(
        "blurry",
        description="Head of the latent that is decoded to the blurry picture.",
    )
    share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Of the blurry picture in the mean; MindEye2: 0.25.",
    )
    autoencoder: str = Field(
        "hub:stable-diffusion-v1-5/stable-diffusion-v1-5/vae",
        description="Whose latent it is: a folder of diffusers; for MindEye2's "
        "published weights "
        "hub:datasets/pscotti/mindeyev2/sd_image_var_autoenc.pth.",
    )

    def build(self, device: torch.device | str, dtype: torch.dtype) -> Placement:
        """Load the autoencoder of the head's latents onto a device.

        Raises:
            MissingData: if it is absent or half-downloaded.
            BrainhiveError: if a file is of another autoencoder.
        """
        import diffusers

        # MindEye2's file has a known architecture, a folder of diffusers states its own
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
        return Placement((_components.cast(network, dtype),), torch.device(device))

    def inputs(self) -> list[Input]:
        """Look for the autoencoder's weights."""
        if is_weight_file(self.autoencoder):
            return [find_file_input(self.autoencoder)]
        return _components.list_inputs(self.autoencoder, [_components.WEIGHTS])

    def mix(
        self, autoencoder: Placement, pictures: GeneratedMedia, decoded: Decoded | None
    ) -> GeneratedMedia:
        """Average pictures [B, 3, H, W] in 0..1 with the blurry ones: [B, 3, 256, 256].

        Raises:
            BrainhiveError: if there is no such head of latents, or the media are clips.
        """
        # a head of latents [B, C, h, w] is needed, and pictures, not clips
        latents = None if decoded is None else decoded.tensors.get(self.head)
        if latents is None or latents.ndim != 4 or pictures.ndim != 4:
            raise BrainhiveError(
                "low_level_mix averages pictures with the latent of the head "
                f"{self.head}, and there is no "
                f"{'such picture' if pictures.ndim != 4 else 'such head'}",
                "decode with a brain model that has it (papers/mindeye2-blurry), "
                "or leave low_level_mix out",
            )

        # decode the blurry pictures, and average at the size of MindEye2's protocol
        network = autoencoder.networks[0]
        autoencoder.use(network)
        blurry = decode_pictures(network, latents, autoencoder.device)
        autoencoder.use()
        clear, blurry = (
            resize(batch, MIX_PX, "bilinear") for batch in (pictures, blurry)
        )
        return (1 - self.share) * clear + self.share * blurry.to(pictures.device)


class Config(parts.Config):
    """Stages in their order, such as a keyframe and then its motion."""

    stages: tuple[ChainStage, ...] = Field(
        min_length=1, description="The stages, in order."
    )
    low_level_mix: LowLevelMix | None = Field(
        None,
        description="Average the pictures of the last stage with a decoded blurry one "
        "(MindEye2: {}): a low-level gain by construction, which every "
        "number of such a run says.",
    )

    @property
    def caveats(self) -> tuple[str, ...]:
        """Notes that accompany every number of these media."""
        return (MIXED_WITH_BLURRY,) if self.low_level_mix is not None else ()

    @model_validator(mode="after")
    def _captions_media(self) -> "Config":
        if isinstance(self.stages[0].caption, str):
            raise RecipeError(
                "the first stage has no media to caption", "caption in the second stage"
            )
        return self

    def build(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "Chain":
        """Load every stage's generator, prior and captioner onto a device."""
        links: list[Link] = []
        for stage in self.stages:
            # networks of the stage
            generator = stage.generator.build(device, dtype)
            captioner = (
                None
                if stage.caption is None
                else _captioner.load(stage.caption, device, dtype)
            )

            # attach the stage's own prior, a reference or a kind without weights
            prior: Any = None
            if isinstance(stage.prior, str):
                prior = parts.import_shelf("priors").load(stage.prior)
            elif stage.prior is not None:
                prior = parts.resolve("priors", stage.prior).build({}, generator)
            if prior is not None:
                prior.attach(generator)
                prior = prior.to(device)
            links.append((stage, generator, prior, captioner))

        # the mean is of the pictures of the last stage
        mix = self.low_level_mix
        return Chain(links, mix, None if mix is None else mix.build(device, dtype))

    def check(self) -> None:
        """Raise as `build` does of every stage, but read configs alone."""
        for stage in self.stages:
            stage.generator.check()
            if stage.caption is not None:
                _captioner.find_folder(stage.caption)

    def inputs(self) -> list[Input]:
        """Look for what every stage needs, captioners too."""
        needs = []
        for stage in self.stages:
            needs += stage.generator.inputs()
            if stage.caption is not None:
                # text encoders, which most generators need for prompts and captions
                # alone
                needs += [
                    *_captioner.inputs(stage.caption),
                    *getattr(stage.generator, "text_inputs", list)(),
                ]
        return needs + (
            [] if self.low_level_mix is None else self.low_level_mix.inputs()
        )


TINY = Config(
    stages=(
        ChainStage(generator=sdxl.TINY),
        ChainStage(generator=sdxl.TINY, steps=2, strength=0.5),
    )
)
"""Small enough for tests."""


class Chain:
    """Generators in a row; what concerns latents is the first one's.

    Args:
        links: The stages.
        mix: How their pictures are averaged with a blurry one; None to leave them.
        autoencoder: Decodes the blurry one.
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
        generators = [generator for _, generator, _, _ in links]
        self.first = generators[0]
        # networks of captioners and mean, which are offloaded with the generators
        self.helpers = [
            captioner.placement for *_, captioner in links if captioner is not None
        ]
        self.helpers += [] if autoencoder is None else [autoencoder]
        # latents are those of the first stage
        self.encode = self.first.encode
        self.decode = self.first.decode

        # all networks with weights, the stages' priors included
        networks = [
            network for generator in generators for network in generator.networks
        ]
        networks += [network for helper in self.helpers for network in helper.networks]
        networks += [prior for _, _, prior, _ in links if prior is not None]
        self.networks = tuple(networks)

    @property
    def latent_space(self) -> str:
        """Name of the first stage's latent space."""
        return str(self.first.latent_space)

    def latent_spaces(self, head: str, starts: bool) -> list[str]:
        """Name the spaces that a head may be of: the mean's; or any stage's, if one
        starts from latents.
        """
        # the mean decodes its head by an autoencoder of its own
        if (
            self.mix is not None
            and self.autoencoder is not None
            and head == self.mix.head
        ):
            return [name_latent_space(self.autoencoder.networks[0])]
        if starts:
            return [str(generator.latent_space) for _, generator, _, _ in self.links]
        return []

    def latent_shape(self, size_px: int) -> Any:
        """Return the shape [C, h, w] of the first stage's latents."""
        return self.first.latent_shape(self.links[0][0].resolution_px or size_px)

    def check_size(self, size_px: int) -> None:
        """Refuse a size that a stage does not have."""
        for stage, generator, _, _ in self.links:
            generator.check_size(stage.resolution_px or size_px)

    def spare_memory(
        self, offload_to: torch.device | None = None, tile: bool = False
    ) -> None:
        """Take less memory in every stage."""
        for _, generator, _, _ in self.links:
            generator.spare_memory(offload_to, tile)
        # captioners and autoencoder leave the device while they are not used
        if offload_to is not None:
            for helper in self.helpers:
                helper.offload(offload_to)

    def generate(
        self,
        conditioning: Conditioning,
        seeds: Sequence[int],
        size_px: int,
        sampling: Sampling,
        null: Conditioning | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> GeneratedMedia:
        """Run the stages, and return the media of the last.

        The noise of a stage depends on the row's seed and the index of the stage.
        Stages without a prior take `conditioning` and `null`, those with one the
        decoded heads that `conditioning` brings; a captioner's texts replace those of
        the conditioning, and what a stage sets itself `size_px` and `sampling`.
        `on_step` counts over all stages.
        """
        # media of the stage before, and the number of steps in all stages before
        media: Any = None
        steps_before = 0
        for index, (stage, generator, prior, captioner) in enumerate(self.links):
            # each stage has noise of its own; the first has that of a generator alone
            settings = stage.model_dump(
                include={*Sampling.model_fields}, exclude_none=True
            )
            stage_sampling = Sampling(**{**dict(sampling), **settings})
            stage_seeds = [
                seed if index == 0 else derive_seed(seed, index) for seed in seeds
            ]

            # condition on the stage's own prior where it has one
            condition = conditioning
            stage_null = null
            if prior is not None:
                # the stage's prior conditions on decoded heads, not on another prior's
                # output
                if conditioning.decoded is None:
                    raise BrainhiveError(
                        "a stage of the chain has a prior of its own, and the "
                        "conditioning brings no decoded heads",
                        "use the prior identity for the whole chain",
                    )
                condition = prior.condition(conditioning.decoded, stage_seeds)
                stage_null = prior.null(len(seeds), stage_seeds)

            # add the media of the stage before, and their captions
            if media is not None:
                names = (
                    ("start", "images")
                    if stage.receives == "both"
                    else (stage.receives,)
                )
                condition = replace(condition, **dict.fromkeys(names, media))
            if captioner is not None:
                condition = replace(
                    condition, texts=captioner.captions(media, conditioning.decoded)
                )

            # count the steps on over all stages
            report = (
                None if on_step is None else partial(_report, on_step, steps_before)
            )
            stage_px = stage.resolution_px or size_px
            media = generator.generate(
                condition, stage_seeds, stage_px, stage_sampling, stage_null, report
            )
            steps_before += stage_sampling.steps
        if self.mix is None or self.autoencoder is None:
            return media
        return self.mix.mix(self.autoencoder, media, conditioning.decoded)


def _report(on_step: Callable[[int], None], steps_before: int, step: int) -> None:
    on_step(steps_before + step)
