"""A generator of stages: each generates from the media of the one before, with its own prior and sampling."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import AfterValidator, Field, model_validator

from brainhive_cli.core import hub, parts
from brainhive_cli.core.caveats import MIXED_WITH_BLURRY
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.memory_estimate import size_of
from brainhive_cli.core.needs import Need, to_download
from brainhive_cli.core.recipe import Section
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.models.conditioning import Conditioning, Media
from brainhive_cli.models.generators import DEFAULT, SCHEDULERS, Sampling, _captioner, known, sdxl
from brainhive_cli.models.generators._low_level_mix import LowLevelMix, LowLevelMixer
from brainhive_cli.models.heads import latent_space


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
    receives: Literal["start", "images"] = Field(
        "start", description="As which condition the media of the stage before are taken."
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
    scheduler: Annotated[str | None, AfterValidator(known)] = Field(
        None, description=f"One of {', '.join(SCHEDULERS)}."
    )
    negative_prompt: str | None = Field(None, description="Text that guidance above 1 moves away from.")
    strength: float | None = Field(None, ge=0, le=1, description="Share of the steps done from a start.")

    def sampling(self, requested: Sampling) -> Sampling:
        """Replace what the stage sets itself."""
        own = self.model_dump(include={*Sampling.model_fields}, exclude_none=True)
        return Sampling(**{**dict(requested), **own})

    def load_prior(self, generator: Any, device: torch.device | str) -> Any:
        """Load the prior of the stage onto a device and attach it; None without one."""
        if self.prior is None:
            return None
        if isinstance(self.prior, str):
            made = parts.package("priors").load(self.prior)
        else:
            made = parts.resolve("priors", self.prior).build({}, generator)
        made.attach(generator)
        return made.to(device)


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
        """What a reader must know of every number of these media."""
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
            network = stage.generator.build(device, dtype)
            reader = None if stage.caption is None else _captioner.load(stage.caption, device, dtype)
            links.append(Link(stage, network, stage.load_prior(network, device), reader))
        mix = self.low_level_mix
        return Chain(links, None if mix is None else mix.build(device, dtype))

    def check(self) -> str:
        """Describe every stage without loading it."""
        described = []
        for stage in self.stages:
            described.append(stage.generator.check())
            if stage.caption is not None:
                described.append(_captioner.check(stage.caption))
                texts: list[Need] = getattr(stage.generator, "text_needs", list)()
                if texts:  # most draw without texts
                    described.append(f"text encoders of {stage.generator.source}, {to_download(texts)}")
        if self.low_level_mix is not None:
            described.append(self.low_level_mix.check())
        return "; ".join(described)

    def needs(self) -> list[Need]:
        """Look for what every stage needs, captioners too."""
        listed: list[Need] = []
        for stage in self.stages:
            listed += getattr(stage.generator, "needs", list)()
            if stage.caption is not None:
                listed += _captioner.needs(stage.caption)
                listed += getattr(stage.generator, "text_needs", list)()
        return listed + ([] if self.low_level_mix is None else self.low_level_mix.needs())

    def skeleton(self, dtype: torch.dtype) -> "Chain":
        """Make generators and captioners of shapes alone, on the meta device, without priors."""
        links, unsized = [], []
        for stage in self.stages:
            reader = None
            try:
                reader = None if stage.caption is None else _captioner.skeleton(stage.caption, dtype)
            except hub.Unreachable:
                unsized.append(str(stage.caption))
            links.append(Link(stage, stage.generator.skeleton(dtype), None, reader))
        mix = self.low_level_mix
        return Chain(links, None if mix is None else mix.skeleton(dtype), unsized)


TINY = Config(stages=(Stage(generator=sdxl.TINY), Stage(generator=sdxl.TINY, steps=2, strength=0.5)))
"""Small enough for tests."""


class Link(NamedTuple):
    """A stage that is loaded."""

    stage: Stage
    generator: Any
    prior: Any  # attached; None where the stage takes the chain's conditioning
    captioner: Any = None

    def size(self, size_px: int) -> int:
        """Return the stage's own size, or that of the chain."""
        return self.stage.resolution_px or size_px


class Chain:
    """Generators in a row; what concerns latents is the first one's.

    Args:
        links: The stages.
        mixer: Averages their pictures with a blurry one; None to leave them.
        unsized: Captioners whose size is not known.
    """

    def __init__(
        self, links: Sequence[Link], mixer: LowLevelMixer | None = None, unsized: Sequence[str] = ()
    ) -> None:
        self.links, self.mixer, self.unsized = list(links), mixer, unsized
        self.first = links[0].generator
        self.further = [each for each in (*(link.captioner for link in links), mixer) if each is not None]
        self.encode, self.decode = self.first.encode, self.first.decode

    @property
    def networks(self) -> tuple[Any, ...]:
        """All networks with weights, the stages' priors included."""
        found = [network for link in self.links for network in link.generator.networks]
        found += [each.model for each in self.further]
        return (*found, *(link.prior for link in self.links if link.prior is not None))

    @property
    def latent_space(self) -> str:
        """Name of the first stage's latent space."""
        return str(self.first.latent_space)

    def latent_spaces(self, head: str, starts: bool) -> list[str]:
        """Name the spaces that a head may be of: the mixer's; or any stage's, if one starts from latents."""
        if self.mixer is not None and head == self.mixer.config.head:
            return [latent_space(self.mixer.model)]
        return [str(link.generator.latent_space) for link in self.links] if starts else []

    def latent_shape(self, size_px: int) -> Any:
        """Return the shape [C, h, w] of the first stage's latents."""
        return self.first.latent_shape(self.links[0].size(size_px))

    def check_size(self, size_px: int) -> None:
        """Refuse a size that a stage does not have."""
        for link in self.links:
            link.generator.check_size(link.size(size_px))

    def spare_memory(self, offload_to: torch.device | None = None, tile: bool = False) -> None:
        """Take less memory in every stage."""
        for link in self.links:
            link.generator.spare_memory(offload_to, tile)
        for each in self.further if offload_to is not None else ():
            each.placement.offload(offload_to)

    def memory_estimate(
        self, batch: int, size_px: int, guidance: float = 0.0, tile: bool = False, offload: bool = False
    ) -> int:
        """Estimate the bytes that generating takes: all weights, and the largest stage's tensors."""
        weights, totals = [], []
        further = [size_of(each.model) for each in self.further]
        for stage, generator, *_ in self.links:
            size, scale = stage.resolution_px or size_px, stage.guidance
            scale = guidance if scale is None else scale
            weights.append(sum(map(size_of, generator.networks)))
            totals.append(generator.memory_estimate(batch, size, scale, tile, offload))
        if offload:
            return int(max(totals + further))
        return sum(weights + further) + max(t - w for t, w in zip(totals, weights, strict=True))

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

        The noise of a stage depends on the row's seed and the place of the stage. Stages without a prior take
        `conditioning` and `null`, those with one the decoded heads that `conditioning` brings; a captioner's
        texts replace those of the conditioning, and what a stage sets itself `size_px` and `sampling`.
        `on_step` counts over all stages.
        """
        media: Any = None
        done = 0
        for place, link in enumerate(self.links):
            own = link.stage.sampling(sampling)
            noise = [seed if place == 0 else derive_seed(seed, place) for seed in seeds]
            given, other = _conditions(link, conditioning, null, noise)
            if media is not None:
                given = replace(given, **{link.stage.receives: media})
            if link.captioner is not None:
                given = replace(given, texts=link.captioner.captions(media, conditioning.decoded))
            after = None if on_step is None else _offset(on_step, done)
            media = link.generator.generate(given, noise, link.size(size_px), own, other, after)
            done += own.steps
        return media if self.mixer is None else self.mixer.mix(media, conditioning.decoded)


def _conditions(
    link: Link, conditioning: Conditioning, null: Conditioning | None, seeds: Sequence[int]
) -> tuple[Conditioning, Conditioning | None]:
    """Take the chain's conditioning, or condition by the stage's own prior on the decoded heads."""
    if link.prior is None:
        return conditioning, null
    if conditioning.decoded is None:
        raise BrainhiveError(
            "a stage of the chain has a prior of its own, and the conditioning brings no decoded heads",
            "use the prior identity for the whole chain",
        )
    return link.prior.condition(conditioning.decoded, seeds), link.prior.null(len(seeds), seeds)


def _offset(on_step: Callable[[int], None], done: int) -> Callable[[int], None]:
    return lambda step: on_step(done + step)
