"""A generator of stages: each generates from the media of the one before, with its own prior and sampling.

The last may be averaged with a blurry picture that is decoded from the brain's latent: MindEye2's last step.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator

from brainhive_cli.core import parts, weights
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.inputs import Input
from brainhive_cli.core.measurements import MIXED_WITH_BLURRY
from brainhive_cli.core.recipe import Section
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.models.foreign_weights import file_input, find_file, is_file
from brainhive_cli.models.generators import (
    DEFAULT,
    SCHEDULERS,
    Media,
    Sampling,
    SchedulerName,
    _captioner,
    _components,
    sdxl,
)
from brainhive_cli.models.generators._latent_diffusion import decode_pictures, resize
from brainhive_cli.models.heads import Conditioning, Decoded, latent_space

MIX_PX = 256
"""Side of the mean with a blurry picture: the size at which MindEye2 averages, and its protocol compares."""
MIX_AUTOENCODER = {**_components.ARCHITECTURES["shared"]["vae"]}
"""Architecture of `sd_image_var_autoenc.pth`; source: MindEye2's recon_inference.ipynb (MIT)."""


class Stage(Section):
    """One stage; what it leaves out is as the command's recipe says."""

    generator: Annotated[Any, parts.part("generators", DEFAULT)] = Field(
        description="Generator of the stage."
    )
    prior: str | dict[str, Any] | None = Field(
        None,
        description="Prior of the stage, from the decoded heads: a reference, or a kind without weights with "
        "its knobs; without one the stage takes the conditioning that the chain is given.",
    )
    receives: Literal["start", "images", "both"] = Field(
        "start",
        description="As which condition the media of the stage before are taken; both: clips to start from, "
        "the first frames of which are keyframes, too.",
    )
    caption: str | _captioner.HeadCaption | None = Field(
        None,
        description="BLIP-2 that captions the media of the stage before, as texts of this one, such as "
        "hub:Salesforce/blip2-opt-2.7b (NEURONS); or a GIT that captions a decoded head (MindEye2: "
        "{head: image}); without it texts are the prior's.",
    )
    resolution_px: int | None = Field(None, gt=0, le=16_384, description="Height and width.")
    steps: int | None = Field(None, gt=0, le=10_000, description="Denoising steps.")
    guidance: float | None = Field(None, ge=0, description="Classifier-free guidance scale.")
    scheduler: SchedulerName = Field(None, description=f"One of {', '.join(SCHEDULERS)}.")
    negative_prompt: str | None = Field(None, description="Text that guidance above 1 moves away from.")
    strength: float | None = Field(None, ge=0, le=1, description="Share of the steps done from a start.")


class LowLevelMix(Section):
    """The mean of each picture and the blurry one of a head, at 256 px: better in pixels by construction."""

    head: str = Field("blurry", description="Head of the latent that is decoded to the blurry picture.")
    share: float = Field(0.25, gt=0, le=1, description="Of the blurry picture in the mean; MindEye2: 0.25.")
    autoencoder: str = Field(
        "hub:stable-diffusion-v1-5/stable-diffusion-v1-5/vae",
        description="Whose latent it is: a folder of diffusers; for MindEye2's published weights "
        "hub:datasets/pscotti/mindeyev2/sd_image_var_autoenc.pth.",
    )

    def build(self, device: torch.device | str, dtype: torch.dtype) -> "LowLevelMixer":
        """Load the autoencoder onto a device.

        Raises:
            MissingData: if it is absent or half-downloaded.
            BrainhiveError: if a file is of another autoencoder.
        """
        import diffusers

        # MindEye2's file has a known architecture, a folder of diffusers states its own
        if is_file(self.autoencoder):
            file, network = find_file(self.autoencoder), diffusers.AutoencoderKL(**MIX_AUTOENCODER)
            weights.fill(network, weights.read(file), file, "give sd_image_var_autoenc.pth, or a folder")
        else:
            network = _components.load_network_folder(diffusers.AutoencoderKL, self.autoencoder, dtype)
        return LowLevelMixer(self, _components.cast(network, dtype), torch.device(device))

    def inputs(self) -> list[Input]:
        """Look for the autoencoder's weights."""
        if is_file(self.autoencoder):
            return [file_input(self.autoencoder)]
        return _components.list_inputs(self.autoencoder, [_components.WEIGHTS])


class Config(parts.Config):
    """Stages in their order, such as a keyframe and then its motion."""

    stages: tuple[Stage, ...] = Field(min_length=1, description="The stages, in order.")
    low_level_mix: LowLevelMix | None = Field(
        None,
        description="Average the pictures of the last stage with a decoded blurry one (MindEye2: {}): a "
        "low-level gain by construction, which every number of such a run says.",
    )

    @property
    def caveats(self) -> tuple[str, ...]:
        """Notes that accompany every number of these media."""
        return (MIXED_WITH_BLURRY,) if self.low_level_mix is not None else ()

    @model_validator(mode="after")
    def _captions_media(self) -> "Config":
        if isinstance(self.stages[0].caption, str):
            raise RecipeError("the first stage has no media to caption", "caption in the second stage")
        return self

    def build(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> "Chain":
        """Load every stage's generator, prior and captioner onto a device."""
        links = []
        for stage in self.stages:
            # networks of the stage
            generator = stage.generator.build(device, dtype)
            captioner = None if stage.caption is None else _captioner.load(stage.caption, device, dtype)

            # attach the stage's own prior, a reference or a kind without weights
            prior: Any = None
            if isinstance(stage.prior, str):
                prior = parts.package("priors").load(stage.prior)
            elif stage.prior is not None:
                prior = parts.resolve("priors", stage.prior).build({}, generator)
            if prior is not None:
                prior.attach(generator)
                prior = prior.to(device)
            links.append(Link(stage, generator, prior, captioner))

        # the mixer works on the pictures of the last stage
        mix = self.low_level_mix
        return Chain(links, None if mix is None else mix.build(device, dtype))

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
                # text encoders, which most generators need for prompts and captions alone
                needs += [*_captioner.inputs(stage.caption), *getattr(stage.generator, "text_inputs", list)()]
        return needs + ([] if self.low_level_mix is None else self.low_level_mix.inputs())


TINY = Config(stages=(Stage(generator=sdxl.TINY), Stage(generator=sdxl.TINY, steps=2, strength=0.5)))
"""Small enough for tests."""


class Link(NamedTuple):
    """A stage that is loaded."""

    stage: Stage
    generator: Any
    prior: Any  # attached; None where the stage takes the chain's conditioning
    captioner: Any = None


class Chain:
    """Generators in a row; what concerns latents is the first one's.

    Args:
        links: The stages.
        mixer: Averages their pictures with a blurry one; None to leave them.
    """

    def __init__(self, links: Sequence[Link], mixer: "LowLevelMixer | None" = None) -> None:
        self.links, self.mixer = list(links), mixer
        self.first = links[0].generator
        # captioners and mixer, which are offloaded with the generators
        models = (*(link.captioner for link in links), mixer)
        self.helpers = [model for model in models if model is not None]
        # latents are those of the first stage
        self.encode, self.decode = self.first.encode, self.first.decode

        # all networks with weights, the stages' priors included
        networks = [network for link in links for network in link.generator.networks]
        networks += [helper.model for helper in self.helpers]
        networks += [link.prior for link in links if link.prior is not None]
        self.networks = tuple(networks)

    @property
    def latent_space(self) -> str:
        """Name of the first stage's latent space."""
        return str(self.first.latent_space)

    def latent_spaces(self, head: str, starts: bool) -> list[str]:
        """Name the spaces that a head may be of: the mixer's; or any stage's, if one starts from latents."""
        # the mixer decodes its head by an autoencoder of its own
        if self.mixer is not None and head == self.mixer.config.head:
            return [latent_space(self.mixer.model)]
        return [str(link.generator.latent_space) for link in self.links] if starts else []

    def latent_shape(self, size_px: int) -> Any:
        """Return the shape [C, h, w] of the first stage's latents."""
        return self.first.latent_shape(self.links[0].stage.resolution_px or size_px)

    def check_size(self, size_px: int) -> None:
        """Refuse a size that a stage does not have."""
        for link in self.links:
            link.generator.check_size(link.stage.resolution_px or size_px)

    def spare_memory(self, offload_to: torch.device | None = None, tile: bool = False) -> None:
        """Take less memory in every stage."""
        for link in self.links:
            link.generator.spare_memory(offload_to, tile)
        # captioners and mixer leave the device while they are not used
        for helper in self.helpers if offload_to is not None else ():
            helper.placement.offload(offload_to)

    def generate(
        self,
        conditioning: Conditioning,
        seeds: Sequence[int],
        size_px: int,
        sampling: Sampling,
        null: Conditioning | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> Media:
        """Run the stages, and return the media of the last.

        The noise of a stage depends on the row's seed and the index of the stage. Stages without a prior take
        `conditioning` and `null`, those with one the decoded heads that `conditioning` brings; a captioner's
        texts replace those of the conditioning, and what a stage sets itself `size_px` and `sampling`.
        `on_step` counts over all stages.
        """
        # media of the stage before, and the number of steps in all stages before
        media: Any = None
        steps_before = 0
        for index, link in enumerate(self.links):
            # each stage has noise of its own; the first has that of a generator alone
            settings = link.stage.model_dump(include={*Sampling.model_fields}, exclude_none=True)
            stage_sampling = Sampling(**{**dict(sampling), **settings})
            stage_seeds = [seed if index == 0 else derive_seed(seed, index) for seed in seeds]

            # condition on the stage's own prior where it has one
            condition, stage_null = conditioning, null
            if link.prior is not None:
                # the stage's prior conditions on decoded heads, not on another prior's output
                if conditioning.decoded is None:
                    raise BrainhiveError(
                        "a stage of the chain has a prior of its own, and the conditioning brings no decoded "
                        "heads",
                        "use the prior identity for the whole chain",
                    )
                condition = link.prior.condition(conditioning.decoded, stage_seeds)
                stage_null = link.prior.null(len(seeds), stage_seeds)

            # add the media of the stage before, and their captions
            if media is not None:
                names = ("start", "images") if link.stage.receives == "both" else (link.stage.receives,)
                condition = replace(condition, **dict.fromkeys(names, media))
            if link.captioner is not None:
                condition = replace(condition, texts=link.captioner.captions(media, conditioning.decoded))

            # count the steps on over all stages
            report = None if on_step is None else _shift(on_step, steps_before)
            stage_px = link.stage.resolution_px or size_px
            media = link.generator.generate(
                condition, stage_seeds, stage_px, stage_sampling, stage_null, report
            )
            steps_before += stage_sampling.steps
        return media if self.mixer is None else self.mixer.mix(media, conditioning.decoded)


def _shift(on_step: Callable[[int], None], steps_before: int) -> Callable[[int], None]:
    return lambda step: on_step(steps_before + step)


class LowLevelMixer:
    """An autoencoder, and the mean of what it decodes with pictures.

    Args:
        config: Head and share.
        model: The autoencoder of the head's latents.
        device: Where it runs.
    """

    def __init__(self, config: LowLevelMix, model: Any, device: torch.device) -> None:
        self.config, self.model = config, model
        self.placement = _components.Placement((model,), device)

    def mix(self, pictures: Media, decoded: Decoded | None) -> Media:
        """Average pictures [B, 3, H, W] in 0..1 with the blurry ones: [B, 3, 256, 256].

        Raises:
            BrainhiveError: if there is no such head of latents, or the media are clips.
        """
        # a head of latents [B, C, h, w] is needed, and pictures, not clips
        latents = None if decoded is None else decoded.tensors.get(self.config.head)
        if latents is None or latents.ndim != 4 or pictures.ndim != 4:
            raise BrainhiveError(
                f"low_level_mix averages pictures with the latent of the head {self.config.head}, and there "
                f"is no {'such picture' if pictures.ndim != 4 else 'such head'}",
                "decode with a brain model that has it (papers/mindeye2-blurry), or leave low_level_mix out",
            )

        # decode the blurry pictures, and average at the size of MindEye2's protocol
        self.placement.use(self.model)
        blurry = decode_pictures(self.model, latents, self.placement.device)
        self.placement.use()
        clear, blurry = (resize(batch, MIX_PX, "bilinear") for batch in (pictures, blurry))
        return (1 - self.config.share) * clear + self.config.share * blurry.to(pictures.device)
