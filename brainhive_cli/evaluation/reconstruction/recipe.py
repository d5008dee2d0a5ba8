"""Recipe of the command reconstruct."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from brainhive_cli.core.base import RecipeError
from brainhive_cli.core.recipes import (
    Arguments,
    BaseRecipe,
    Copies,
    Flag,
    NameList,
    Numbers,
    OneRun,
    PublishedKey,
    Section,
    find_recipe,
    flag_field,
    parts,
    read_recipe,
    refuse_idle,
    split_commas,
)
from brainhive_cli.core.runs import SweptRecipe
from brainhive_cli.data.files import Subjects
from brainhive_cli.evaluation.reconstruction.metric_parts import (
    CLIP_METRICS,
    PICTURE_METRICS,
    require_known_metrics,
)
from brainhive_cli.measurement.metrics.networks import MAX_WAYS, USUAL_WAYS
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
"""Sources of media. The last three are baselines, which no generator makes."""
DEFAULT_STRENGTH = Sampling.model_fields["strength"].default
"""Strength of sampling that a protocol does not mention."""
DEFAULT_PRIOR = "hub:Fusion-Prior-SynCLR_B32_VAE"
"""Published prior of BrainHiVE."""


class PriorSection(Section):
    """Prior, and the weight of its condition."""

    source: str = Field(
        DEFAULT_PRIOR, description="hub:NAME, hub:owner/name, a folder, or identity"
    )
    scale: float | None = Field(
        None,
        description=(
            "weight of the image attention, relative to the text attention; default: "
            "the weight of the prior"
        ),
    )


def _read_prior_section(prior: Any) -> Any:
    """Read `prior: REFERENCE` as its source, also next to a key such as `scale`."""
    if isinstance(prior, str):
        return {"source": prior}
    if not isinstance(prior, dict):
        return prior
    # merging with another key has turned the reference into a `kind`
    section = {}
    for key, value in prior.items():
        section["source" if key == "kind" else key] = value
    return section


def _require_picture_encoders(encoders: list[EncoderConfig]) -> list[EncoderConfig]:
    """Return encoders, or raise an error if they cannot encode new pictures."""
    for config in encoders:
        # imported vectors have no network
        if config.kind == IMPORTED:
            raise RecipeError(
                f"metric_encoders encode generated pictures, and {config.name} was "
                "imported as vectors",
                f"leave {config.name} out",
            )
    for config in encoders:
        if config.content != "pixels":
            raise RecipeError(
                f"metric_encoders encode pictures, and {config.name} reads "
                f"{config.content}",
                f"leave {config.name} out",
            )
    return encoders


class Recipe(SweptRecipe, Sampling):
    """Recipe of reconstruct.

    It names the run, the prior and the generator, or a folder of media to score.
    """

    # a run that ran out of memory can continue with other values of these keys
    FINGERPRINT_EXCLUDE = BaseRecipe.FINGERPRINT_EXCLUDE | {
        "batch_size",
        "offload",
        "tiling",
        "metric_batch_size",
        "against",
        "published",
    }
    is_tracked = True
    writes_run = True
    MEMORY_HINT = (
        "a smaller batch_size, or tiling=true, or offload=true, or a smaller "
        "metric_batch_size"
    )
    summary = (
        "Reconstruct the seen pictures from test signals with a picture generator."
    )
    example = "--prior hub:Fusion-Prior-SynCLR_B32_VAE"

    # models, and the signals that are decoded
    prior: Annotated[PriorSection, BeforeValidator(_read_prior_section)] = flag_field(
        PriorSection(),
        "prior: hub:NAME, hub:owner/name, a folder, or identity; default: "
        f"{DEFAULT_PRIOR}",
    )
    adapter: Literal["apply", "skip"] | None = Field(
        None,
        description=(
            "use of the Fusion Prior's trained adapter; default: skip, as in the paper"
        ),
    )
    align_run: Annotated[OneRun, Arguments(names="@runs/train-align")] = flag_field(
        None,
        "run of train-align (folder, name, recipe or "
        "hub:owner/name[@revision]), model folder or published checkpoint; default: "
        "the newest run on the data set",
        flag="--run",
        names="@runs/train-align",
    )
    dataset: parts.OtherDataset = flag_field(
        None,
        "data set that a model folder or published checkpoint decodes; "
        "default: the run's",
    )
    generator: Annotated[Any, Flag("--generator", step="source")] = parts.part_field(
        "generators",
        DEFAULT_KIND,
        "diffusion model: hub:owner/name or a folder",
    )

    # sources and stimuli
    sources: (
        Annotated[list[SourceName], BeforeValidator(split_commas), Field(min_length=1)]
        | None
    ) = flag_field(
        None,
        "sources of the pictures: brain, images (ceiling), shuffled "
        "(floor), zeroed, or the nearest or mean training picture. images: heads of "
        "the stimuli; shuffled: other items' signals; zeroed: no condition; "
        "mean_embedding: mean of the training heads; nearest: training picture nearest "
        "to the decoded head; still: first frame of a clip; default: "
        "brain,nearest,mean for pictures, brain,nearest,still for clips",
        flag="--from",
    )
    split: str = Field("test", description="split whose signals are decoded")
    subjects: Subjects = flag_field(
        None, "subjects to use, as in 1,2; default: the run's"
    )
    copies: Copies = "refuse"
    seeds: Numbers | None = Field(
        None,
        examples=["2025", "2025-2027"],
        description="seeds of the models that decode; default: the run's first seed",
    )
    items: int | None = Field(
        None,
        gt=0,
        description="number of stimuli, from the start of the split; default: all",
    )

    # number of media, and their noise
    repeats: int = flag_field(
        10, "number of pictures for each stimulus", gt=0, le=10_000
    )
    best_of: int = Field(
        1,
        gt=0,
        le=10_000,
        description=(
            "number of candidates for each picture; the candidate most similar to its "
            "decoded head is kept"
        ),
    )
    seed: int = Field(0, ge=0, description="seed of the noise")

    # size, precision and memory
    resolution_px: int = Field(
        512, gt=0, le=16_384, description="side of generated pictures in pixels"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp16", description="dtype of the generator; a CPU uses fp32 instead of fp16"
    )
    batch_size: int = Field(
        20, gt=0, le=16_384, description="pictures generated at once by each process"
    )
    offload: bool = Field(
        False, description="keep networks off the GPU while they are not in use"
    )
    tiling: bool = Field(
        False,
        description="decode latents picture by picture, and large pictures in tiles",
    )

    # comparison with the stimuli
    metrics: Annotated[NameList, AfterValidator(require_known_metrics)] | None = Field(
        None,
        description=f"for pictures: {', '.join(PICTURE_METRICS)}; for clips: "
        f"{', '.join(CLIP_METRICS)}, and other numbers of ways up to {MAX_WAYS} "
        "(video_40way); default: all of the medium except seed_score, object_f1, "
        f"cap_sim, with {' and '.join(map(str, USUAL_WAYS))} ways",
    )
    metric_encoders: Annotated[Encoders, AfterValidator(_require_picture_encoders)] = (
        Field(
            [],
            validate_default=True,
            description="further encoders for two-way identification",
        )
    )
    protocol: Literal["brainhive", "mindeye2"] = Field(
        "brainhive", description="size of pictures for metrics"
    )
    metric_batch_size: int = Field(
        32, gt=0, le=2**16, description="pictures compared at once"
    )
    sheet_rows: int = Field(
        12, ge=0, description="number of stimuli on a sheet; 0 writes no sheets"
    )

    # comparisons, which are not part of the fingerprint
    against: NameList | None = flag_field(
        None,
        "runs of reconstruct to compare with, stimulus by stimulus",
        names="@runs/reconstruct",
    )
    published: PublishedKey = None

    # existing media, instead of generation
    score: str | None = flag_field(
        None, "folder of pictures or clips to score, instead of generating them"
    )
    truth: str | None = flag_field(
        None,
        "folder of the seen pictures or clips with the same file names, or "
        "the word left for the left half of each clip. NEURONS' GIFs show them there",
    )
    medium: Literal["picture", "clip"] | None = Field(
        None,
        description=(
            "medium of both folders; default: found from the files; needed if clips "
            "are folders of frames"
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
            require_known_metrics(list(self.published.values))
        return self

    @classmethod
    def resolve(
        cls,
        command: str,
        name: str | None,
        flags: Mapping[str, Any],
        overrides: Iterable[str],
    ) -> Self:
        """Resolve the recipe, and refuse keys of generation if a folder is scored.

        `--recipe NAME --score FOLDER` takes the metrics of a recipe that generates, and
        ignores its other keys.

        Raises:
            RecipeError: if a key is wrong, or has no effect.
        """
        # keys that the user names, on the command line or in a recipe of scoring
        overrides = list(overrides)
        document = read_recipe(find_recipe(command, name))
        keys = [key for key, value in flags.items() if value is not None]
        keys += [override.partition("=")[0] for override in overrides]
        # the recipe in a run folder has digests, and names every key
        if document.get("score") and "digests" not in document:
            keys += list(document)

        # Keys that have an effect if existing media are scored.
        scoring_keys = {
            "metrics",
            "metric_encoders",
            "protocol",
            "metric_batch_size",
            "sheet_rows",
            "score",
            "truth",
            "medium",
            "against",
        } | set(BaseRecipe.model_fields)
        idle_keys = [key for key in keys if key.split(".")[0] not in scoring_keys]
        if "score" in keys and idle_keys:
            raise RecipeError(
                f"{idle_keys[0]} has no effect on pictures that others made",
                f"leave out {idle_keys[0]}, or score",
            )
        return super().resolve(command, name, flags, overrides)

    @property
    def has_prompt(self) -> bool:
        """True if a text is part of the condition."""
        return bool(self.prompt or (self.guidance > 1 and self.negative_prompt))

    @property
    def sampling(self) -> Sampling:
        """Keys of sampling, without the other keys."""
        fields = {key: getattr(self, key) for key in Sampling.model_fields}
        return Sampling.model_construct(self.model_fields_set & fields.keys(), **fields)

    def describe_generation(self, is_decoded: bool) -> str:
        """Describe the generation by its settings that differ from the default.

        Args:
            is_decoded: True if media are generated from heads, which select the best
                candidate and may give sampling a start.
        """
        words = [f"{self.repeats} {'repeat' if self.repeats == 1 else 'repeats'}"]
        if self.best_of > 1 and is_decoded:
            words.append(f"each the best of {self.best_of} by its decoded head")
        if self.adapter is not None:
            words.append(f"adapter {self.adapter}")
        if self.prior.scale is not None:
            words.append(f"scale {self.prior.scale:g}")
        if self.strength != DEFAULT_STRENGTH and is_decoded:
            words.append(f"from the decoded start at strength {self.strength:g}")
        return ", ".join(words + self.changed_settings)
