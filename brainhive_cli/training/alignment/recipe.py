"""The recipe of train-align with its sections, and the cells that it asks for: one
training for each.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate, chain, pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.recipe import (
    BaseRecipe,
    Names,
    Numbers,
    Paths,
    Published,
    Section,
    Subjects,
    added_field,
    refuse_idle,
)
from brainhive_cli.core.sweep import SweptRecipe, flattened, read_sweep, variants
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.signals.augmentations import Augment
from brainhive_cli.data.signals.holdout import Holdout
from brainhive_cli.data.signals.selection import Signal, list_regions
from brainhive_cli.data.stores.signal_store import Recordings
from brainhive_cli.data.targets.encoder_stores import encoders_of, with_usual_encoders
from brainhive_cli.models.course import (
    Course,
    Epochs,
    Wave,
    at,
    count_courses,
    count_epochs,
    read_share,
    write_share,
)
from brainhive_cli.models.encoders import (
    USUAL,
    EncoderConfig,
    Encoders,
    resolve,
    resolve_all,
)
from brainhive_cli.models.heads import FUSED, TOKEN, check_names
from brainhive_cli.training.alignment.layout import FROM_MEAN, Similarity

LONGEST = 100_000
"""Epochs of the longest training: each is checked for what is active in it."""


StartFrom = Annotated[
    str | dict[str, str] | None,
    BeforeValidator(flattened),  # overrides nest the parts
    Field(
        description="weights to start from: a model folder, a published checkpoint, an "
        "align run (SWEEP:VARIANT), hub:owner/name[@revision], or a "
        "train-align recipe: its newest run; or {part: any of these, or a "
        "file or hub: reference of the part's own weights}"
    ),
]


Warmup = Annotated[
    Annotated[float, Field(ge=0)] | Fraction | None,
    BeforeValidator(read_share),
    PlainSerializer(write_share),
]


class Stage(Section):
    """One stage of a training: it continues from the last weights of the stage
    before.
    """

    epochs: int = Field(gt=0, le=LONGEST, description="epochs of the stage")
    lr: float = Field(5e-4, gt=0, description="peak learning rate of AdamW")
    schedule: Literal["cosine", "constant", "one_cycle"] = Field(
        "cosine", description="of the learning rate, step by step"
    )
    warmup_epochs: Warmup = Field(
        None,
        description="epochs up to the peak (0.5: half of one), or a share of the stage "
        "(1/25); default: 0, of one_cycle 0.3 of all",
    )
    final_div: float = Field(
        1000.0,
        ge=1,
        description="one_cycle: first over last learning rate (MindEye1's)",
    )
    freeze: Names = Field(
        [],
        description="parts that do not learn, in evaluation mode: backbone, fuser, or "
        "a submodule's name",
    )
    start_from: StartFrom = None

    @property
    def warmup(self) -> float:
        """Epochs up to the peak; a share counts in those of the stage."""
        is_share = isinstance(self.warmup_epochs, Fraction)
        return float((self.warmup_epochs or 0.0) * (self.epochs if is_share else 1))

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        if self.schedule != "one_cycle":
            refuse_idle(self, "final_div", f"with schedule {self.schedule}")

        # the rate must reach its peak within the stage
        if self.warmup > self.epochs:
            raise ValueError(
                f"warmup_epochs is above the {self.epochs} epochs of the stage"
            )
        return self


def scale_stages(lengths: Sequence[int], epochs: int) -> list[int]:
    """Bring the lengths of stages to another sum, in their proportions; none is empty.

    Raises:
        RecipeError: if there are fewer epochs than stages.
    """
    # every stage keeps at least one epoch
    if epochs < len(lengths):
        raise RecipeError(
            f"train.epochs is {epochs}, and the training has {len(lengths)} stages",
            f"train.epochs={len(lengths)} or more",
        )

    # round the ends of the stages, not their lengths, so that the sum is exact
    stops = [0]
    for number, stop in enumerate(accumulate(lengths), 1):
        share = round(Fraction(stop * epochs, sum(lengths)))
        stops.append(min(max(share, stops[-1] + 1), epochs - (len(lengths) - number)))
    return [stop - start for start, stop in pairwise(stops)]


SHORT_FORM = ("epochs", "lr", "warmup_steps")
"""Keys of the section `train` that stand for one stage."""


class LoraSection(Section):
    """Encoders that learn with the brain model, by low-rank changes (LoRA, arXiv
    2106.09685).
    """

    encoders: Names = Field(
        [],
        description="encoders of one network, named as in `encoders`: they see every "
        "picture at each step, and each cell's gallery is encoded by its "
        "own",
    )
    rank: int = Field(32, gt=0, description="of each change")
    alpha: float = Field(32, gt=0, description="a change is multiplied by alpha / rank")
    modules: Names = Field(
        [],
        description="ends of the names of the maps that are changed, as q_proj; "
        "default: all linear maps",
    )

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        if not self.encoders:
            refuse_idle(
                self,
                ("rank", "alpha", "modules"),
                "where no encoder learns",
                "train.lora.encoders=[...]",
            )
        return self


class Train(Section):
    """Training of a cell; defaults are BrainHiVE's for THINGS-EEG."""

    # length and start of the training
    epochs: int = Field(
        25,
        gt=0,
        le=LONGEST,
        description="with stages, their sum: another number scales them",
    )
    stages: list[Stage] = Field(
        [],
        description=(
            "stages, one after another; default: one with this section's epochs and lr"
        ),
    )
    start_from: StartFrom = None
    # batches
    batch_size: int = Field(
        1024, gt=1, le=2**24, description="trials a step, over all processes"
    )
    epoch_trials: int | None = added_field(
        None,
        gt=0,
        description="trials of an epoch, as many of each subject in every step, in "
        "rounds of all that a subject has; with finetune.sessions for each "
        "session; default: every trial once, subjects mixed",
    )
    last_batch: Literal["even", "keep", "drop"] = Field(
        "even",
        description="what happens to trials that fill no batch: even, all batches of "
        "an epoch get nearly one size; keep, the last batch is smaller "
        "(BrainHiVE: 156 of 16540 trials); drop, they wait for another "
        "epoch",
    )
    init: Literal["torch", "reference"] = Field(
        "torch",
        description="initial weights: torch's, or those of transformers' "
        "PreTrainedModel, as BrainHiVE's (normal with sd 0.02, bias 0)",
    )
    # optimiser
    lr: float = Field(5e-4, gt=0, description="peak learning rate of AdamW")
    lr_of: Annotated[
        dict[str, Annotated[float, Field(gt=0)]], BeforeValidator(flattened)
    ] = added_field(
        {},
        description="{part: factor of its learning rate} in all stages; a part is "
        "backbone, fuser, or a submodule's name",
    )
    start_pull: float = added_field(
        0.0,
        ge=0,
        le=1,
        description="share of the distance to the weights of the start that each step "
        "takes back, at the peak learning rate (decoupled L2-SP)",
    )
    weight_decay: float = Field(0.05, ge=0, description="of AdamW")
    decay: Literal["all", "not_biases", "weights"] = Field(
        "all",
        description="what weight_decay acts on: all parameters, all but biases "
        "(MindEye1, MindEye2), or all but biases and LayerNorm (the rule "
        "of transformers' Trainer, which trained BrainHiVE)",
    )
    betas: tuple[float, float] = Field(
        (0.9, 0.995),
        description="of AdamW; the schedule one_cycle moves the first from 0.95 to "
        "0.85 and back, as torch's does",
    )
    warmup_steps: int = Field(
        0, ge=0, description="linear warm-up before the cosine (paper: 10)"
    )
    grad_norm: float | None = Field(
        1.0, gt=0, description="largest norm of the gradient; null: any"
    )
    precision: Literal["fp32", "bf16"] = Field("bf16", description="autocast dtype")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of the moving average of the weights, which is then what is "
        "validated and kept",
    )
    prior_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="dropout in the prior's frozen fusion encoder while it is the "
        "target (BrainHiVE: 0.1)",
    )
    # validation, and the epoch that is kept
    validation: float = Field(
        0.1, ge=0, lt=1, description="share of training concepts, or pictures, held out"
    )
    validation_by: Literal["concepts", "pictures"] = added_field(
        "concepts",
        description="whether validation holds out whole concepts, or pictures of all "
        "concepts (NICE, AlignVis, VBP)",
    )
    selection: Literal["best", "last", "test", "recordings"] = Field(
        "best",
        description="the epoch that is kept: best validation top-1, the last, or best "
        "test top-1 (only to reproduce others' numbers: it is no result); recordings: "
        "best top-1 on `validation_recordings`",
    )
    validation_recordings: dict[int, list[int]] = added_field(
        {},
        description="{subject: [sessions]} whose training trials are not learned from, "
        "and select the epoch; their pictures may be learned from other sessions",
    )
    patience: int | None = Field(
        None,
        gt=0,
        description="stop when validation top-1 has not risen for so many epochs",
    )
    # what samples and targets are at each step
    augment: Augment = Augment()
    lora: LoraSection = added_field(
        LoraSection(),
        description="encoders that learn with the brain model; lr_of: {adapter: …} is "
        "their learning rate",
    )
    embedding_alternatives: dict[str, Names] = Field(
        {},
        description="encoder: names of further stores of the same pictures and width, "
        "one drawn each time",
    )
    alternatives: Literal["random", "uncertainty"] = added_field(
        "random",
        description="which of a stimulus's alternative targets a sample learns from: "
        "random, or of three the first where it was found easily before, "
        "the last where hardly (UBP's blurs, from weak to strong)",
    )
    gallery_level: int = added_field(
        0,
        ge=0,
        le=2,
        description="with alternatives: uncertainty, the level of the encoder itself, "
        "whose store is the gallery: 0 to 2, from weak to strong",
    )
    shuffled_labels: bool = Field(
        False,
        description="signals are trained with the pictures of others, drawn once: a "
        "control of what a model shows that has learned nothing of the "
        "pictures",
    )

    @model_validator(mode="before")
    @classmethod
    def _counts_the_epochs_of_its_stages(cls, fields: Any) -> Any:
        # without stages, `epochs` is a plain setting
        if not (
            isinstance(fields, dict)
            and fields.get("stages")
            and isinstance(fields["stages"], list)
        ):
            return fields
        stages = [dict(Stage.model_validate(stage)) for stage in fields["stages"]]
        lengths = [stage["epochs"] for stage in stages]

        # another sum scales the stages; whatever is no number is refused by the key's
        # own type
        epochs = fields.get("epochs", sum(lengths))
        if isinstance(epochs, int) and epochs > 0:
            for stage, length in zip(
                stages, scale_stages(lengths, epochs), strict=True
            ):
                stage["epochs"] = length
        return {**fields, "stages": stages, "epochs": epochs}

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        # a key without an effect is a mistake in the recipe
        if self.stages:
            refuse_idle(
                self,
                ("lr", "warmup_steps"),
                "where stages have their own",
                "set it in train.stages",
            )
        if self.start_from and self.stages and self.stages[0].start_from:
            raise ValueError(
                "start_from is given for the training and for its first stage: leave "
                "one out"
            )
        if len(self.stages) > 1:
            refuse_idle(self, "patience", "on several stages, which have fixed epochs")
        if not self.validation:
            refuse_idle(self, "validation_by", "with validation 0")
        if self.alternatives != "uncertainty":
            refuse_idle(self, "gallery_level", f"with alternatives {self.alternatives}")
        if self.epoch_trials is not None:
            refuse_idle(
                self, "last_batch", "with epoch_trials, whose steps are all full"
            )
        is_by_recordings = self.selection == "recordings"
        if is_by_recordings != bool(self.validation_recordings):
            raise ValueError(
                "selection: recordings goes with validation_recordings, and no other"
            )
        if self.patience is not None and not (self.validation or is_by_recordings):
            raise ValueError(
                "patience needs validation top-1, so train.validation must be above 0"
            )
        return self

    def span(self, stage: int | None) -> tuple[int, int]:
        """Return the first epoch of a stage, and how many it has; of the whole training
        without a number.

        Raises:
            RecipeError: if there is no such stage.
        """
        if stage is None:
            return 0, self.epochs

        # without `stages` there is stage 0 alone
        lengths = [stage.epochs for stage in self.stages] or [self.epochs]
        if stage >= len(lengths):
            raise RecipeError(f"a term is of stage {stage}", f"0 to {len(lengths) - 1}")
        return sum(lengths[:stage]), lengths[stage]

    @property
    def starts(self) -> list[dict[str, str]]:
        """References of the weights that each stage starts from, by the part of a
        model; "" is all of it.
        """
        # `train.start_from` is that of the first stage, unless the stage names its own
        first, *later = [stage.start_from for stage in self.stages] or [None]
        starts = [start or {} for start in (first or self.start_from, *later)]
        return [{"": start} if isinstance(start, str) else start for start in starts]

    def pin_starts(self, names: Mapping[str, str]) -> Self:
        """Rename the weights from which the stages start, as to names with a commit.

        Args:
            names: New names by those of the recipe; others stay.
        """

        def pin(start: StartFrom) -> StartFrom:
            if isinstance(start, dict):
                return {
                    part: names.get(reference, reference)
                    for part, reference in start.items()
                }
            return start and names.get(start, start)

        stages = [
            stage.model_copy(update={"start_from": pin(stage.start_from)})
            for stage in self.stages
        ]
        return self.model_copy(
            update={"start_from": pin(self.start_from), "stages": stages}
        )

    def all_stages(self, steps: int) -> list[Stage]:
        """List the stages of a training whose epochs have so many steps.

        Raises:
            RecipeError: if the warm-up is longer than the training.
        """
        if self.warmup_steps > (total := self.epochs * steps):
            raise RecipeError(
                f"train.warmup_steps is {self.warmup_steps}, but the training of a "
                f"cell has {total} steps",
                f"train.warmup_steps={total // 10}, more train.epochs or a smaller "
                "train.batch_size",
            )

        # without stages, the section itself is the only one
        one = Stage(
            epochs=self.epochs,
            lr=self.lr,
            warmup_epochs=self.warmup_steps / max(1, steps),
        )
        return self.stages or [one]

    def check_prior(self, prior: str | None) -> None:
        """Refuse keys that act on a prior where there is none."""
        if prior is None:
            refuse_idle(
                self,
                "prior_dropout",
                "without a prior",
                "fuser.dropout, or name one (--prior)",
            )


class Finetune(Section):
    """Models that are fitted to new subjects, and the share of data for it."""

    run: str | None = Field(
        None,
        description="align run, by folder or name (SWEEP:VARIANT), the train-align "
        "recipe that made it, or hub:owner/name[@revision]; default: the "
        "newest on the data set that is not fine-tuned itself",
    )
    share: float = Field(
        1.0,
        ge=0.01,
        le=1,
        description="share of a new subject's training pictures, 0.01 to 1",
    )
    seed: int = Field(
        0,
        ge=0,
        description="chooses these pictures; a smaller share is part of a larger one",
    )
    sessions: int | None = added_field(
        None,
        gt=0,
        description="first sessions of a new subject, whose trials alone are learned "
        "from; default: all",
    )


class Term(Section):
    """One loss term: a prediction, its target, the loss between them, and how much it
    counts when.
    """

    prediction: str = Field(
        description="head, or another output of the backbone in training"
    )
    target: str | None = Field(
        None,
        description=(
            "head whose target, or one of `targets`; default: the prediction's own"
        ),
    )
    loss: Any = parts.key("losses", "clip", "between the prediction and its target")
    loss_of: Annotated[int, Field(ge=0)] | None = added_field(
        None,
        description="index, from 0, of an earlier term whose loss this one takes, with "
        "the scale it learns",
    )
    weight: Annotated[float, Field(gt=0)] | Course | Wave = Field(
        1.0,
        description="number, or {from, to, epochs: [a, b], course: linear|cosine}, by "
        "default over the epochs in which the term is active, or {base, "
        "peak, epochs: [a, b], course: sine}, up and down",
    )
    epochs: Epochs | None = Field(
        None,
        description="active from the first up to, not including, the second: epochs, "
        "or shares of the stage (1/3), which a training of another length "
        "keeps; default: always",
    )
    stage: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="stage of train.stages, from 0, in which the term is active, and "
        "whose epochs and shares its own are; default: the whole training",
    )

    @model_validator(mode="after")
    def _has_one_loss(self) -> Self:
        if self.loss_of is not None and self.loss != parts.resolve("losses", "clip"):
            raise ValueError("loss has no effect with loss_of: leave one of them out")
        return self

    @property
    def of(self) -> str:
        """Name of the target with which the prediction is compared."""
        return self.target or self.prediction

    def in_stage(self, start: int, length: int) -> Self:
        """Count its epochs, and those of its courses, in epochs of the training.

        Args:
            start: First epoch of its stage.
            length: Epochs of its stage.
        """
        # of a term that is active throughout only the courses are counted so
        is_everywhere = self.epochs is None and self.stage is None
        active = count_epochs(self.epochs or (Fraction(0), Fraction(1)), start, length)
        term = count_courses(self, active, start, length)
        return (
            term
            if is_everywhere
            else term.model_copy(update={"epochs": active, "stage": None})
        )

    def weight_at(self, moment: float) -> float:
        """Return the weight at a moment, in epochs from 0; 0 where the term is not
        active.
        """
        if self.epochs is not None and not self.epochs[0] <= moment < self.epochs[1]:
            return 0.0
        return at(self.weight, moment)


def check_active(terms: Sequence[Term], epochs: int) -> None:
    """Refuse terms, in epochs of the training, that cannot be trained together, or have
    no effect.

    Raises:
        RecipeError: naming the term or the epoch.
    """
    # a shared loss is built by an earlier term
    for number, term in enumerate(terms):
        first = term.loss_of
        if first is not None and (first >= number or terms[first].loss_of is not None):
            raise RecipeError(
                f"terms[{number}].loss_of is {first}",
                "an earlier term that has a loss of its own",
            )
    # between two borders the same terms are active; at a border itself a wave may be 0
    spans = [
        span
        for term in terms
        for span in (term.epochs, getattr(term.weight, "epochs", None))
        if span
    ]
    borders = {
        *map(float, range(epochs + 1)),
        *(float(end) for end in chain(*spans) if end < epochs),
    }
    moments = [(one + other) / 2 for one, other in pairwise(sorted(borders))]

    # a term that never counts is a mistake in the recipe
    for number, term in enumerate(terms):
        if not any(map(term.weight_at, moments)):
            raise RecipeError(
                f"terms[{number}] has no effect: its weight is 0 in all {epochs} "
                "epochs",
                f"terms[{number}].epochs within [0, {epochs}], shares of the stage "
                "(1/3), or leave it out",
            )

    # every moment needs an active term, and one way of mixing signals
    for moment in moments:
        if not any(term.weight_at(moment) for term in terms):
            raise RecipeError(
                f"no term is active in epoch {int(moment)}",
                "a term whose epochs include it",
            )
        mixing_of(terms, moment)


def mixing_of(terms: Sequence[Term], moment: float) -> tuple[float, float]:
    """Return how signals are mixed at a moment: alpha (0: not at all), and the share
    that is mixed.

    Raises:
        RecipeError: if two active terms want different ones.
    """
    # losses of the active terms; a shared loss is that of the earlier term
    losses = [
        term.loss if term.loss_of is None else terms[term.loss_of].loss
        for term in terms
        if term.weight_at(moment)
    ]
    # losses that compare pairs in a batch have these keys
    mixed = [loss for loss in losses if getattr(loss, "mix_alpha", 0)]
    wanted = sorted({(loss.mix_alpha, loss.mix_share) for loss in mixed})

    # a batch is mixed once for all terms
    if len(wanted) > 1:
        raise RecipeError(
            f"in epoch {int(moment)} terms mix signals with (mix_alpha, mix_share) "
            f"{wanted[0]} and {wanted[1]}",
            "one loss.mix_alpha and loss.mix_share, or other epochs",
        )
    return wanted[0] if wanted else (0.0, 1.0)


def _head_targets(heads: Any) -> Any:
    if not isinstance(heads, dict):
        return heads
    return {
        name: target if target == FUSED else resolve(target)
        for name, target in heads.items()
    }


BACKBONE, FUSER = "brain-mlp", "fusion-encoder"
"""The usual parts."""
People = tuple[int, ...]
"""Numbers of subjects."""
FOLD = re.compile(r"_fold-\d+(?=_seed-)")
"""In the name of a cell."""
USED_IN_CLOSED_FORM = {"validation", "validation_by", "shuffled_labels"}
"""Keys of `train` that have an effect where nothing is trained step by step."""
SEED = 2025
"""The first seed; BrainHiVE's."""
TRAINED_IN_STEPS = {
    *("backbone", "fuser", "loss", "terms", "heads", "head", "dim", "prior"),
    *("subject_layer", "similarity", "sweep", "ablations", "finetune"),
}
"""Keys by which a recipe chooses how a model is trained."""


def ridge_keys(mode: str, components: int) -> dict[str, Any]:
    """Choose a ridge with a penalty of its own: for each subject, exact with as many
    components as training signals; or one for subjects whom it did not see.
    """
    own: dict[str, Any] = {"kind": "ridge", "alpha": "auto", "standardise": False}
    own["components"] = components
    return {
        "backbone": {"kind": "shared-ridge"} if mode == "inter" else own,
        "similarity": FROM_MEAN,
    }


def with_usual_backbone(fields: Any) -> Any:
    """Complete a recipe that says nothing of training by a ridge, where its data set
    has few pictures.
    """
    if not isinstance(fields, dict) or not TRAINED_IN_STEPS.isdisjoint(fields):
        return fields
    mode, train = fields.get("mode", "intra"), fields.get("train") or {}
    if mode == "finetune" or not {*train} <= USED_IN_CLOSED_FORM:
        return fields
    with suppress(BrainhiveError, ValidationError):  # which the keys' own types raise
        config = parts.resolve("datasets", fields.get("dataset"))
        paths = Paths.model_validate(fields.get("paths") or {})
        few_pictures = getattr(config, "few_pictures", lambda paths: 0)
        if most := few_pictures(paths):
            # a ridge has no randomness, and chooses its penalty without validation
            usual = {"seeds": [SEED], **fields, "train": {"validation": 0.0, **train}}
            return usual | ridge_keys(mode, most)
    return fields


HeadTargets = Annotated[
    dict[str, SerializeAsAny[EncoderConfig] | Literal["fused"]],
    BeforeValidator(_head_targets),
]


class Recipe(SweptRecipe):
    """Recipe of train-align: signals, embeddings and the alignment of the two."""

    FINGERPRINT_EXCLUDE = BaseRecipe.FINGERPRINT_EXCLUDE | {"published"}
    is_tracked = True
    LESS_MEMORY = "a smaller train.batch_size"

    dataset: Any = parts.key("datasets", "things-eeg", "signals and pictures")
    encoders: Encoders = Field(
        [*USUAL],
        validate_default=True,
        min_length=1,
        description="embeddings that are fused; default with a prior: the prior's",
    )
    mode: Literal["intra", "inter", "joint", "finetune"] = Field(
        "intra",
        description="intra: one subject; inter: leave one out; joint: all on all; "
        "finetune: new subjects",
    )
    subjects: Subjects = Field(
        None,
        description="subjects, in inter those left out; default: all of the data set",
    )
    trained_on: Subjects = Field(
        None,
        description="inter: whom a cell learns from, without the one left out; "
        "default: all of the data set",
    )
    seeds: Numbers = Field(
        [SEED, SEED + 1, SEED + 2],
        description="one cell a seed (paper: three from 2025); of a usual ridge, the "
        "first",
    )
    dim: int | None = Field(
        None,
        gt=0,
        le=2**20,
        description=(
            "D of the token; default: the prior's or the fuser's own, else 1024"
        ),
    )
    backbone: Any = parts.key("backbones", BACKBONE, "brain encoder")
    fuser: Any = parts.key("fusers", FUSER, "fusion encoder")
    loss: Any = parts.key(
        "losses", "clip", "between predictions and targets, where no terms are given"
    )
    heads: HeadTargets = Field(
        {},
        description="head: the encoder whose output it predicts, or `fused`; default: "
        "one head, `token`, that predicts what the fuser makes of "
        "`encoders`",
    )
    targets: Annotated[
        dict[str, SerializeAsAny[EncoderConfig]], BeforeValidator(_head_targets)
    ] = added_field(
        {},
        description="name: encoder whose output terms compare predictions with, and no "
        "head is made for, as of captions; only training reads it",
    )
    terms: list[Term] = Field(
        [],
        description="loss terms; default: `loss` for every head, with equal weights "
        "that sum to 1",
    )
    head: str | None = Field(
        None,
        description="head that retrieval compares; default: `token`, or the only "
        "vector or tokens",
    )
    prior: str | None = Field(
        None, description="Fusion Prior whose fusion encoder is the frozen target"
    )
    subject_layer: Literal["none", "linear"] = Field(
        "none",
        description="learned for each subject before the brain encoder: linear, a "
        "mixing of the channels",
    )
    similarity: Similarity = Field(
        "cosine",
        description="how tokens are compared: by their cosine; centred_cosine, their "
        "correlation; cosine_from_mean, the cosine of their differences from the mean "
        "training target, of backbones in closed form",
    )
    signal: Signal = Signal()
    train: Train = Train()
    finetune: Finetune = Finetune()
    published: Published | None = Field(
        None, description="what a paper reports of this recipe, and where"
    )

    @classmethod
    def put(cls, fields: dict[str, Any], key: str, value: Any) -> None:
        """Set a dotted key; a change of stages removes their short form.

        Raises:
            RecipeError: if a list has no such index.
        """
        super().put(fields, key, value)
        if key.startswith("train.stages"):
            cls.drop_replaced(fields, {"train": {"stages": fields["train"]["stages"]}})

    @classmethod
    def drop_replaced(cls, fields: dict[str, Any], layer: Mapping[str, Any]) -> None:
        """Drop the short form of a single stage where a recipe has stages of its
        own.
        """
        before, train = fields.get("train"), layer.get("train")
        has_stages = isinstance(train, dict) and train.get("stages")
        if isinstance(before, dict) and has_stages:
            for key in SHORT_FORM:
                before.pop(key, None)

    @model_validator(mode="before")
    @classmethod
    def _takes_usual_fuser_and_encoders(cls, fields: Any) -> Any:
        """Take the encoders of heads, a prior or what shows categories, and a fuser for
        closed form.
        """
        if not isinstance(fields, dict):
            return fields

        # encoders of heads, next to those that are fused; the keys' own types refuse
        # what is no list
        fields = with_usual_backbone(fields)
        heads = fields.get("heads")
        if heads and isinstance(heads, dict):
            heads = _head_targets(heads)
            opened = {
                target.name: target for target in heads.values() if target != FUSED
            }
            default = (
                cls.model_fields["encoders"].default if FUSED in heads.values() else []
            )
            encoders = resolve_all(fields.get("encoders", default))
            if isinstance(encoders, list):
                config_of_name = {config.name: config for config in encoders}
                if (
                    FUSED not in heads.values()
                    and not config_of_name.keys() <= opened.keys()
                ):
                    raise RecipeError(
                        "encoders has no effect where no head is `fused`",
                        "leave encoders out",
                    )
                encoders = [*(config_of_name | opened).values()]
                fields = {**fields, "heads": heads, "encoders": encoders}

        # a head for each encoder where the backbone is fitted in closed form, which
        # trains no fuser
        if not fields.get("heads") and not fields.get("prior"):
            with suppress(BrainhiveError):  # which the keys' own types raise
                backbone = parts.resolve("backbones", fields.get("backbone", BACKBONE))
                is_usual = parts.resolve(
                    "fusers", fields.get("fuser", FUSER)
                ) == parts.resolve("fusers", FUSER)
                if backbone.is_closed_form and is_usual:
                    fields = {**fields, "fuser": "heads"}

        # the first prior, of the recipe or of its sweep, names the encoders where
        # nothing else does
        if "encoders" not in fields:
            swept = read_sweep(fields.get("sweep") or {})
            priors = [
                fields.get("prior"),
                *(swept.get("prior", []) if isinstance(swept, dict) else []),
            ]
            if reference := next(
                (prior for prior in priors if isinstance(prior, str)), None
            ):
                fields = {**fields, "encoders": encoders_of(reference)}
        return with_usual_encoders(fields)

    @model_validator(mode="after")
    def _every_head_is_trained(self) -> Self:
        if self.is_swept:  # each of its variants is checked by itself
            return self

        # names, fuser and loss of the heads
        check_names(self.heads)
        if self.heads and not self.is_fused:
            refuse_idle(
                self,
                ("dim", "prior"),
                "where no head is `fused`",
                "give a head the target fused",
            )
            self._refuse_part(
                "fuser", "where no head is `fused`", "give a head the target fused"
            )
        if self.heads and self.is_fused and self.fuser.kind == "heads":
            raise RecipeError(
                "the fuser `heads` fuses nothing",
                "another fuser, or no head that is `fused`",
            )
        if (
            len(
                fused := [
                    name for name, target in self.heads.items() if target == FUSED
                ]
            )
            > 1
        ):
            raise RecipeError(
                f"{' and '.join(fused)} both predict `fused`",
                "one head, with several terms",
            )

        # a loss beside terms, and an unknown head, have no effect
        if self.terms:
            self._refuse_part(
                "loss", "where terms are given", "set the loss of each term"
            )
        if self.mode != "finetune":  # whose run has the heads
            if self.head is not None and self.head not in self.head_targets:
                raise RecipeError(
                    f"head is {self.head!r}", f"heads: {', '.join(self.head_targets)}"
                )
            self.check_terms()
            self._check_streams()
        if not self.backbone.is_closed_form:
            if self.similarity == FROM_MEAN:
                raise RecipeError(
                    f"similarity={FROM_MEAN} goes with no training in steps, in which "
                    "the mean of a fused target changes",
                    "cosine or centred_cosine, or a backbone in closed form as ridge",
                )
            return self

        # in one pass over averaged signals there are no settings of steps, terms or
        # losses
        when = f"on {self.backbone.kind}, which is fitted in closed form"
        refuse_idle(
            self.train,
            sorted(Train.model_fields.keys() - USED_IN_CLOSED_FORM),
            when,
            "leave it out",
        )
        if self.terms:
            raise RecipeError(
                f"terms has no effect {when}", "leave it out: every head is fitted"
            )
        self._refuse_part("loss", when, "leave it out: every head is fitted")

        # averaged signals and no fuser that would have to learn
        if (repetitions := self.signal.repetitions) != "average":
            raise RecipeError(
                f"signal.repetitions={repetitions} has no effect {when}", "average"
            )
        if self.is_fused and not self.prior:
            raise RecipeError(
                f"no fuser is trained {when}",
                "fuser.kind=heads, heads of encoders, or a prior",
            )
        return self

    def _check_streams(self) -> None:
        """Refuse sets of voxels that no stream of the backbone reads, and their control
        where it has none.
        """
        # streams of voxels that the backbone reads
        streams = self.backbone.streams
        if not (split := self.signal.region_split):
            return
        if not streams:
            when = (
                f"on {self.backbone.kind}, which reads all voxels of region_split as "
                "one"
            )
            refuse_idle(self.signal, ("region_control", "region_seed"), when)
            return

        # a set is used by a stream or by the expression of another set
        used = {
            name for expression in split.values() for name in list_regions(expression)
        }
        if unread := [
            name for name in split if name not in streams and name not in used
        ]:
            raise RecipeError(
                f"signal.region_split.{unread[0]} has no effect: it is no stream of "
                f"{self.backbone.kind} and no other set uses it",
                f"streams: {', '.join(streams)}",
            )

    def check_terms(self) -> None:
        """Refuse terms that cannot be trained together, and heads that none of them
        trains.

        Raises:
            RecipeError: naming the term or the head.
        """
        # encoders that learn with the model
        lora = self.train.lora.encoders
        known = [config.name for config in self.encoders]
        if unknown := [name for name in lora if name not in known]:
            raise RecipeError(
                f"train.lora.encoders names {unknown[0]!r}",
                f"encoders: {', '.join(known)}",
            )
        if lora and (self.prior or self.train.ema):
            what = "prior" if self.prior else "train.ema"
            raise RecipeError(
                f"train.lora goes with no {what}", f"leave {what} out, or train.lora"
            )

        # terms fit the epochs, and every target has a name and a term of its own
        terms = self.loss_terms
        check_active(terms, self.train.epochs)
        if twice := self.targets.keys() & {
            *self.head_targets,
            *(config.name for config in self.encoders),
        }:
            raise RecipeError(
                f"targets name {min(twice)}, as heads or encoders do", "another name"
            )
        if idle := sorted(self.targets.keys() - {term.target for term in terms}):
            raise RecipeError(
                f"targets.{idle[0]} has no effect", f"a term with target: {idle[0]}"
            )

        # every term has a head, and every head a term
        if not self.backbone.takes_spec:  # such a part may give more names in training
            predicted, names = {term.prediction for term in terms}, {*self.head_targets}
            compared = {term.of for term in terms} - self.targets.keys()
            if absent := sorted((predicted | compared) - names):
                raise RecipeError(
                    f"terms name {', '.join(absent)}",
                    "heads and targets: "
                    f"{', '.join([*self.head_targets, *self.targets])}",
                )
            if untrained := sorted(names - predicted):
                raise RecipeError(
                    f"no term trains the head {', '.join(untrained)}",
                    "add a term for it",
                )

    def run_label(self, paths: Paths) -> str:
        """Name the run's folder, before the fingerprint."""
        last = "sweep" if self.is_swept else self.backbone.kind
        return f"{self.dataset.build(paths).name}-{self.mode}-{last}"

    def _refuse_part(self, key: str, when: str, hint: str) -> None:
        shelf = {"fuser": "fusers", "loss": "losses"}[key]
        if (part := getattr(self, key)) != parts.resolve(
            shelf, type(self).model_fields[key].default
        ):
            raise RecipeError(f"{key} has no effect {when}, and is {part.kind}", hint)

    @property
    def is_fused(self) -> bool:
        """Whether a head predicts what a fuser makes of several embeddings."""
        return (
            self.fuser.kind != "heads"
            if not self.heads
            else FUSED in self.heads.values()
        )

    @property
    def head_targets(self) -> dict[str, Any]:
        """Target of each head of the model: an encoder, or `fused`."""
        if self.heads:
            return self.heads
        return (
            {TOKEN: FUSED}
            if self.is_fused
            else {config.name: config for config in self.encoders}
        )

    @property
    def fused_encoders(self) -> list[EncoderConfig]:
        """The encoders whose embeddings are fused: those that no head predicts by
        itself.
        """
        direct = {
            target.name for target in self.head_targets.values() if target != FUSED
        }
        return [config for config in self.encoders if config.name not in direct]

    @property
    def stored_encoders(self) -> list[EncoderConfig]:
        """The encoders whose training targets are read from stores, those of terms
        alone last.
        """
        return self.encoders + [
            config for config in self.targets.values() if config not in self.encoders
        ]

    @property
    def loss_terms(self) -> list[Term]:
        """The terms in epochs of this training; where none are given, the loss for
        every head.
        """
        names = list(self.head_targets)
        terms = self.terms or [
            Term(prediction=name, loss=self.loss, weight=1 / len(names))
            for name in names
        ]
        return [term.in_stage(*self.train.span(term.stage)) for term in terms]

    @model_validator(mode="after")
    def _is_without_contradiction(self) -> Self:
        # a prior brings its fuser and its similarity
        if self.prior and self.fuser.kind != FUSER:
            raise RecipeError(
                f"fuser is {self.fuser.kind}, but the prior {self.prior} brings a "
                "fuser of its own",
                "prior=null, or no fuser.kind",
            )
        if self.prior and self.similarity != "cosine":
            raise RecipeError(
                f"similarity is {self.similarity}, but the prior {self.prior} "
                "draws from tokens as they are",
                "similarity=cosine, or prior=null",
            )

        # fine-tuning starts from its run alone
        if self.mode == "finetune" and self.train.starts[0]:
            raise RecipeError(
                "train.start_from has no effect on fine-tuning, which starts from "
                "finetune.run",
                "leave one of them out",
            )

        # keys of one mode have no effect in another
        if self.is_swept:  # each of its variants is checked by itself
            modes = {self.mode, *(variant.mode for variant in variants(self).values())}
            if modes > {"finetune"}:
                raise RecipeError(
                    "sweep: finetune goes with no other mode", "make a run of each"
                )
        elif self.mode == "finetune":  # whose run decides the prior
            refuse_idle(self.train, "init", "on weights of a run", "no train.init")
        else:
            if self.mode != "inter":
                refuse_idle(
                    self,
                    "trained_on",
                    f"in mode {self.mode}",
                    "name them in subjects",
                )
            self.train.check_prior(self.prior)
            if not any(self.train.starts):
                refuse_idle(
                    self.train,
                    "start_pull",
                    "without a start",
                    "train.start_from, or mode=finetune",
                )
            if self.finetune != Finetune():
                raise RecipeError(
                    f"finetune is set, but mode is {self.mode}", "--mode finetune"
                )
        return self


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        name: Its folder below `cells/`; in a sweep it starts with the variant.
        trained_on: Subjects.
        tested_on: Subjects.
        variant: Label of the sweep's values that it has; empty without a sweep.
        fold: Which trials it holds out, from 1, where the data set holds out any.
    """

    name: str
    trained_on: People
    tested_on: People
    seed: int
    variant: str = ""
    fold: int = 1

    @property
    def name_over_folds(self) -> str:
        """The name without its fold: that of all folds of one training."""
        return FOLD.sub("", self.name)


def cells_of(variants: Mapping[str, Recipe], dataset: Dataset) -> list[Cell]:
    """List the cells of every variant of a recipe, by label; signals of published
    subjects may be absent.

    Raises:
        MissingData: if the data set does not have the subjects.
        BrainhiveError: if a cell of `inter` has nobody to train on.
    """
    cells = []
    for label, recipe in variants.items():
        # one group of a name, trained and tested subjects for each training
        source = Recordings(dataset, recipe.paths, recipe.signal)
        subjects = tuple(source.list_subjects(recipe.subjects))
        groups: list[tuple[str, People, People]]
        groups = [
            (f"sub-{subject:02d}", (subject,), (subject,)) for subject in subjects
        ]
        if recipe.mode == "joint":
            groups = [("all", subjects, subjects)]
        elif recipe.mode == "inter":
            among = source.list_subjects(recipe.trained_on)
            groups = [
                (name, dataset.choose_others(among, *tested), tested)
                for name, _, tested in groups
            ]
            # without a choice, only those whom another study recorded are tested
            if dataset.crosses_studies and not recipe.subjects:
                groups = [group for group in groups if group[1]] or groups
            if alone := [name for name, trained, _ in groups if not trained]:
                raise BrainhiveError(
                    f"mode inter trains on others, and there are none for {alone[0]}",
                    "name more in trained_on",
                )

        # names of variant, fold and seed make up the name of the cell
        below, numbers = f"{label}/" if label else "", dataset.holdout.fold_numbers
        if dataset.holdout.divides_train:
            _check_holdout(recipe, dataset.holdout)
        folds = {
            number: f"_fold-{number:02d}" if len(numbers) > 1 else ""
            for number in numbers
        }
        listed = []
        for name, trained, tested in groups:
            for fold, of_fold in folds.items():
                # a subject with fewer runs or sessions takes no part in further folds
                here = replace(source, fold=fold)
                absent = {one for one in trained if not here.can_fill_fold(one)}
                people = tuple(one for one in trained if one not in absent)
                of_test = tuple(one for one in tested if one not in absent)
                listed += [
                    Cell(
                        f"{below}{name}{of_fold}_seed-{seed}",
                        people,
                        of_test,
                        seed,
                        label,
                        fold,
                    )
                    for seed in recipe.seeds
                    if people
                ]
        if not listed:  # the holdout itself says why
            source.recordings(subjects, "test")
        cells += listed
    return cells


def list_subjects(cells: Iterable[Cell], with_tested: bool = True) -> list[int]:
    """List the subjects that some cell is trained on, or tested on."""
    people = [
        cell.trained_on + (cell.tested_on if with_tested else ()) for cell in cells
    ]
    return sorted({*chain(*people)})


def _check_holdout(recipe: Recipe, holdout: Holdout) -> None:
    """Refuse what would test seen trials, or claim what seen pictures cannot show.

    Raises:
        RecipeError: naming the key.
    """
    # seen trials: only their own subjects can be tested
    if recipe.mode not in ("intra", "joint"):
        raise RecipeError(
            f"mode {recipe.mode} tests subjects who are left out, and dataset.holdout "
            f"holds out {holdout.by} of those trained on",
            "mode=intra or joint, or no dataset.holdout",
        )

    # labels are known from training
    if recipe.backbone.is_classifier and not holdout.shows_seen:
        raise RecipeError(
            f"{recipe.backbone.kind} tells apart what it was trained on, and pictures "
            "are held out",
            "dataset.holdout.by=trials, runs or sessions",
        )

    # seen pictures: neither zero-shot results nor other starts
    if holdout.shows_seen and recipe.published is not None:
        raise RecipeError(
            f"published results are zero-shot, and with {holdout.by} held out a "
            "model has seen all pictures",
            "published=null, or dataset.holdout.by=pictures",
        )
    if holdout.shows_seen and any(recipe.train.starts):
        raise RecipeError(
            f"train.start_from names what may have learned from the {holdout.by} "
            "that are held out",
            "leave it out: each fold begins anew",
        )
    if recipe.train.selection == "test":
        raise RecipeError(
            "train.selection=test goes with no dataset.holdout", "train.selection=last"
        )
