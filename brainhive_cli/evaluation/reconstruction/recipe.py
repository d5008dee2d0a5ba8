"""The recipe of reconstruct."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from brainhive_cli.core import parts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.key_types import Copies, NameList, Numbers, OneRun, split_commas
from brainhive_cli.core.recipe import BaseRecipe, Published, find_recipe, read_recipe
from brainhive_cli.core.sections import Section, refuse_idle
from brainhive_cli.core.sweep import SweptRecipe
from brainhive_cli.data.files.subjects import Subjects
from brainhive_cli.evaluation.reconstruction.metric_parts import (
    CLIP_METRICS,
    PICTURE_METRICS,
    require_known_metrics,
)
from brainhive_cli.models.encoders import IMPORTED, EncoderConfig, Encoders
from brainhive_cli.models.generators import DEFAULT_KIND, Sampling

SourceName = Literal[
    "brain",
    "images",
    "shuffled",
    "zeroed",
    "mean_embedding",
    "nearest",
    "mean",
    "still",
]
"""From the last three nothing is generated: media of the training set, and stills of
the brain's clips (see `baselines`).
"""
DEFAULT_STRENGTH = Sampling.model_fields["strength"].default
"""Strength at which what sampling starts from has no part in the words of a
protocol.
"""
DEFAULT_PRIOR = "hub:Fusion-Prior-SynCLR_B32_VAE"
"""BrainHiVE's published prior."""


class PriorSection(Section):
    """A prior, and its own way of conditioning."""

    source: str = Field(
        DEFAULT_PRIOR, description="hub:NAME, hub:owner/name, a folder, or `identity`"
    )
    scale: float | None = Field(
        None,
        description=(
            "weight of the image attention next to the text attention; default: the "
            "prior's own"
        ),
    )


def _read_prior_section(prior: Any) -> Any:
    """Let `prior: REFERENCE` mean its source, also where `prior.scale` is given too."""
    if isinstance(prior, str):
        return {"source": prior}
    # `kind` is what a reference becomes when a key is put below it
    if isinstance(prior, dict):
        return {
            "source" if key == "kind" else key: value for key, value in prior.items()
        }
    return prior


def _refuse_own_vectors(encoders: list[EncoderConfig]) -> list[EncoderConfig]:
    # imported vectors come without a network that could encode new pictures
    if imported := [config.name for config in encoders if config.kind == IMPORTED]:
        problem = (
            f"metric_encoders encode what is drawn, and {imported[0]} was imported as "
            "vectors"
        )
        raise RecipeError(problem, f"leave {imported[0]} out")
    for config in encoders:
        if config.content != "pixels":
            raise RecipeError(
                f"metric_encoders encode pictures, and {config.name} reads "
                f"{config.content}",
                f"leave {config.name} out",
            )
    return encoders


SCORING_KEYS = {
    *("metrics", "metric_encoders", "protocol", "metric_batch_size", "sheet_rows"),
    *("score", "truth", "medium", "against"),
    *BaseRecipe.model_fields,
}
"""Keys that have an effect where pictures that already exist are scored."""


class Recipe(SweptRecipe, Sampling):
    """Recipe of reconstruct: the run, the prior and the generator; or which folder is
    scored.

    How much is done at once is not part of the fingerprint: a run that was too large
    continues with less. Nor is what a run is compared with.
    """

    # a run continues with other values of these keys
    FINGERPRINT_EXCLUDE = BaseRecipe.FINGERPRINT_EXCLUDE | {
        *("batch_size", "offload", "tiling", "metric_batch_size"),
        *("against", "published"),
    }
    is_tracked = True
    MEMORY_HINT = (
        "a smaller batch_size, or tiling=true, or offload=true, or a smaller "
        "metric_batch_size"
    )

    # which parts generate, and from whose signals
    prior: Annotated[PriorSection, BeforeValidator(_read_prior_section)] = (
        PriorSection()
    )
    adapter: Literal["apply", "skip"] | None = Field(
        None,
        description=(
            "the Fusion Prior's trained adapter; default: skip, as in the paper"
        ),
    )
    align_run: OneRun = Field(
        None,
        description="an align run, or the train-align recipe that made it; "
        "RUN:VARIANT, or :VARIANT of the newest sweep that has it; a model "
        "folder or published checkpoint; hub:owner/name[@revision]; "
        "default: the newest run",
    )
    dataset: parts.OtherDataset = Field(
        None,
        description=(
            "what a model folder or published checkpoint decodes; default: the run's "
            "data set"
        ),
    )
    generator: Any = parts.part_field("generators", DEFAULT_KIND, "diffusion model")

    # what media are generated from, and for which items
    sources: (
        Annotated[list[SourceName], BeforeValidator(split_commas), Field(min_length=1)]
        | None
    ) = Field(
        None,
        description="brain; images: heads of the stimuli, the ceiling; shuffled: other "
        "items' signals, the floor; zeroed: no brain; mean_embedding: "
        "heads of the training stimuli, averaged; nearest: the training "
        "picture nearest to the decoded head; mean: that of all; still: of "
        "clips, the first frame; default: brain,nearest,mean of pictures, "
        "brain,nearest,still of clips",
    )
    split: str = Field("test", description="split whose signals are decoded")
    subjects: Subjects = Field(None, description="subjects; default: the run's")
    copies: Copies = "refuse"
    seeds: Numbers | None = Field(
        None,
        examples=["2025", "2025-2027"],
        description="cells of these seeds; default: the run's first seed",
    )
    items: int | None = Field(
        None, gt=0, description="pictures of the split, from its start; default: all"
    )

    # how many media, and the noise
    repeats: int = Field(10, gt=0, le=10_000, description="pictures kept for each item")
    best_of: int = Field(
        1,
        gt=0,
        le=10_000,
        description=(
            "candidates for each picture kept: the one most similar to its decoded head"
        ),
    )
    seed: int = Field(0, ge=0, description="seed of the noise")

    # size and precision of what is generated, and how much at once
    resolution_px: int = Field(
        512, gt=0, le=16_384, description="side of the pictures that are made"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp16", description="dtype of the generator; a CPU takes fp32 for fp16"
    )
    batch_size: int = Field(
        20, gt=0, le=16_384, description="pictures generated at once, on each process"
    )
    offload: bool = Field(
        False, description="keep networks off the GPU while they do not compute"
    )
    tiling: bool = Field(
        False, description="decode picture by picture, and large ones in tiles"
    )

    # comparison with the stimuli
    metrics: Annotated[NameList, AfterValidator(require_known_metrics)] | None = Field(
        None,
        description=f"of pictures: {', '.join(PICTURE_METRICS)}; of clips: "
        f"{', '.join(CLIP_METRICS)}; default: all of the medium without seed_score, "
        "object_f1, cap_sim",
    )
    metric_encoders: Annotated[Encoders, AfterValidator(_refuse_own_vectors)] = Field(
        [],
        validate_default=True,
        description="more encoders for two-way identification",
    )
    protocol: Literal["brainhive", "mindeye2"] = Field(
        "brainhive", description="how pictures are sized for metrics"
    )
    metric_batch_size: int = Field(
        32, gt=0, le=2**16, description="pictures compared at once"
    )
    sheet_rows: int = Field(12, ge=0, description="items on a sheet; 0 writes none")

    # comparisons, which are not part of the fingerprint
    against: NameList | None = Field(
        None,
        description=(
            "reconstruct runs to compare with, item by item; nothing is generated again"
        ),
    )
    published: Published | None = Field(
        None, description="numbers that a paper reports for this recipe, with source"
    )

    # media that others made, instead of generation
    score: str | None = Field(
        None, description="a folder of reconstructions to score; none are generated"
    )
    truth: str | None = Field(
        None,
        description="the folder of the true pictures or clips; `left`: the left half "
        "of each clip, as in NEURONS' GIFs",
    )
    medium: Literal["picture", "clip"] | None = Field(
        None,
        description=(
            "what is scored; needed where clips are folders of frames, else seen from "
            "the files"
        ),
    )

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        if self.score is None:
            refuse_idle(
                self, ("truth", "medium"), "without pictures to score", "--score FOLDER"
            )
        if self.sources == ["still"]:
            raise RecipeError(
                "sources: still has no clips of the brain to make stills of",
                "add brain to sources",
            )
        if self.published is not None:
            require_known_metrics([*self.published.values])
        return self

    @classmethod
    def resolve(
        cls,
        command: str,
        name: str | None,
        flags: Mapping[str, Any],
        overrides: Iterable[str],
    ) -> Self:
        """Resolve like every recipe; where a folder is scored, keys of generation are
        refused.

        `--recipe NAME --score FOLDER` takes the metrics of a recipe that generates.
        """
        # keys that the user names, or a recipe of scoring does
        overrides = list(overrides)
        written = read_recipe(find_recipe(command, name))
        keys = [key for key, value in flags.items() if value is not None]
        keys += [override.partition("=")[0] for override in overrides]
        is_resolved = "digests" in written  # as in a run folder: it names every key
        keys += list(written) if written.get("score") and not is_resolved else []

        # keys of generation have no effect
        idle = [key for key in keys if key.split(".")[0] not in SCORING_KEYS]
        if "score" in keys and idle:
            raise RecipeError(
                f"{idle[0]} has no effect on pictures that others made",
                f"leave out {idle[0]}, or score",
            )
        return super().resolve(command, name, flags, overrides)

    @property
    def has_prompt(self) -> bool:
        """Whether words decide what is generated."""
        return bool(self.prompt or (self.guidance > 1 and self.negative_prompt))

    @property
    def sampling(self) -> Sampling:
        """Keys of sampling alone, as generators take them."""
        fields = {key: getattr(self, key) for key in Sampling.model_fields}
        return Sampling.model_construct(self.model_fields_set & fields.keys(), **fields)

    def describe_generation(self, is_decoded: bool) -> str:
        """Say how pictures are generated, in words that travel with their metrics.

        Args:
            is_decoded: Whether they are generated from heads; of noise alone nothing
                chooses.
        """
        # only what differs from the default is named
        words = [f"{self.repeats} {'repeat' if self.repeats == 1 else 'repeats'}"]
        if self.best_of > 1 and is_decoded:
            words.append(f"each the best of {self.best_of} by its decoded head")
        if self.adapter is not None:
            words.append(f"adapter {self.adapter}")
        if self.prior.scale is not None:
            words.append(f"scale {self.prior.scale:g}")
        if self.strength != DEFAULT_STRENGTH and is_decoded:
            words.append(f"from the decoded start at strength {self.strength:g}")
        return ", ".join([*words, *self.changed_settings])
