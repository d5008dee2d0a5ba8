"""Keys of optimisation: stages, learning rates, and where parts start from."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    model_validator,
)

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.key_types import NameList
from brainhive_cli.core.sections import Section, added_field, refuse_idle
from brainhive_cli.core.sweep import flatten_changes
from brainhive_cli.data.signals.augmentations import Augment
from brainhive_cli.models.course import (
    read_share,
    write_share,
)

LONGEST = 100_000
"""Epochs of the longest training: each is checked for what is active in it."""

StartFrom = Annotated[
    str | dict[str, str] | None,
    BeforeValidator(flatten_changes),  # overrides nest the parts
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
    freeze: NameList = Field(
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

    encoders: NameList = Field(
        [],
        description="encoders of one network, named as in `encoders`: they see every "
        "picture at each step, and each cell's gallery is encoded by its "
        "own",
    )
    rank: int = Field(32, gt=0, description="of each change")
    alpha: float = Field(32, gt=0, description="a change is multiplied by alpha / rank")
    modules: NameList = Field(
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
        dict[str, Annotated[float, Field(gt=0)]], BeforeValidator(flatten_changes)
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
    embedding_alternatives: dict[str, NameList] = Field(
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
        description="share of a new subject's training pictures, 0.01 to 1; a smaller "
        "one is part of a larger one",
    )
    sessions: int | None = added_field(
        None,
        gt=0,
        description="first sessions of a new subject, whose trials alone are learned "
        "from; default: all",
    )
