"""Recipe keys of the optimisation: stages, learning rates, validation and batches."""

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

from brainhive_cli.core.base import RecipeError
from brainhive_cli.core.recipes import NameList, Section, added_field, refuse_idle
from brainhive_cli.core.results import flatten
from brainhive_cli.data.signals import Augment
from brainhive_cli.models import format_share, parse_share

MAX_EPOCHS = 100_000
"""Largest number of epochs. A check looks at the active terms of every epoch."""


def flatten_changes(fields: Any) -> Any:
    """Flatten sections to dotted keys.

    For example, `{backbone: {embed: 2}}` becomes `{backbone.embed: 2}`.
    """
    return flatten(fields) if isinstance(fields, Mapping) else fields


StartFrom = Annotated[
    str | dict[str, str] | None,
    BeforeValidator(flatten_changes),  # overrides nest the parts
    Field(
        description="initial weights: a model folder, a published checkpoint, an align "
        "run, hub:owner/name[@revision], or a train-align recipe, "
        "whose newest run is taken; or {part: any of these, or a file or hub: "
        "reference of the part's weights}"
    ),
]

Warmup = Annotated[
    Annotated[float, Field(ge=0)] | Fraction | None,
    BeforeValidator(parse_share),
    PlainSerializer(format_share),
]


class Stage(Section):
    """Stage of a training, which starts from the last weights of the previous one."""

    epochs: int = Field(gt=0, le=MAX_EPOCHS, description="number of epochs")
    lr: float = Field(5e-4, gt=0, description="peak learning rate of AdamW")
    schedule: Literal["cosine", "constant", "one_cycle"] = Field(
        "cosine", description="schedule of the learning rate per step"
    )
    warmup_epochs: Warmup = Field(
        None,
        description="warm-up in epochs (0.5), or as a share of the stage (1/25); "
        "default: 0, for one_cycle 0.3 of the stage",
    )
    final_div: float = Field(
        1000.0,
        ge=1,
        description="one_cycle: first learning rate divided by the last (MindEye1's)",
    )
    freeze: NameList = Field(
        [],
        description="parts kept frozen and in evaluation mode: backbone, fuser, or a "
        "submodule's name",
    )
    start_from: StartFrom = None

    @property
    def warmup(self) -> float:
        """Length of the warm-up in epochs."""
        is_share = isinstance(self.warmup_epochs, Fraction)
        return float((self.warmup_epochs or 0.0) * (self.epochs if is_share else 1))

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        """Refuse a key without an effect, or a warm-up longer than the stage."""
        if self.schedule != "one_cycle":
            refuse_idle(self, "final_div", f"with schedule {self.schedule}")
        if self.warmup > self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup:g}, but the stage has {self.epochs} "
                "epochs"
            )
        return self


def scale_stages(lengths: Sequence[int], epochs: int) -> list[int]:
    """Scale the lengths of stages to another total, in proportion.

    Args:
        lengths: Epochs of each stage.
        epochs: Epochs of all stages together after scaling.

    Returns:
        Epochs of each stage, at least 1.

    Raises:
        RecipeError: if there are fewer epochs than stages.
    """
    n_stages = len(lengths)
    if epochs < n_stages:
        raise RecipeError(
            f"train.epochs is {epochs}, but the training has {n_stages} stages",
            f"set train.epochs={n_stages} or more",
        )

    # round the ends of the stages, so that the total is exact
    stops = [0]
    for number, stop in enumerate(accumulate(lengths), 1):
        scaled_stop = round(Fraction(stop * epochs, sum(lengths)))
        last_stop = epochs - (n_stages - number)
        stops.append(min(max(scaled_stop, stops[-1] + 1), last_stop))
    return [stop - start for start, stop in pairwise(stops)]


class LoraSection(Section):
    """Encoders that are trained with the brain model, by low-rank changes.

    Source: LoRA (arXiv 2106.09685).
    """

    encoders: NameList = Field(
        [],
        description="encoders to train, all of one network and of `encoders`; they "
        "encode the pictures at each step, and each model encodes its own gallery",
    )
    rank: int = Field(32, gt=0, description="rank of each change")
    alpha: float = Field(32, gt=0, description="a change is multiplied by alpha / rank")
    modules: NameList = Field(
        [],
        description="ends of the names of the changed linear maps, such as q_proj; "
        "default: all linear maps",
    )

    @model_validator(mode="after")
    def _refuse_idle_keys(self) -> Self:
        """Refuse keys that have no effect without encoders to train."""
        if not self.encoders:
            refuse_idle(
                self,
                ("rank", "alpha", "modules"),
                "without encoders to train",
                "set train.lora.encoders=[...]",
            )
        return self


class Train(Section):
    """Training of each model. BrainHiVE has these defaults for THINGS-EEG."""

    # length and start of the training
    epochs: int = Field(
        25,
        gt=0,
        le=MAX_EPOCHS,
        description="number of epochs; default with stages: their sum, which another "
        "number scales",
    )
    stages: list[Stage] = Field(
        [],
        description="stages, one after another; default: one with the epochs and lr of "
        "this section",
    )
    start_from: StartFrom = None
    # batches
    batch_size: int = Field(
        1024,
        gt=1,
        le=2**24,
        description="number of trials per step, over all processes",
    )
    epoch_trials: int | None = added_field(
        None,
        gt=0,
        description="trials per epoch; each step then has equally many of each "
        "subject, and all trials are used before any is repeated; with "
        "finetune.sessions: trials per session; default: every trial once, subjects "
        "mixed",
    )
    last_batch: Literal["even", "keep", "drop"] = Field(
        "even",
        description="if trials remain at the end of an epoch; even: all batches have "
        "nearly one size; keep: the last batch is smaller (BrainHiVE: 156 of 16540 "
        "trials); drop: they are left out of the epoch",
    )
    init: Literal["torch", "reference"] = Field(
        "torch",
        description="initial weights: of torch, or (reference) of transformers' "
        "PreTrainedModel as in BrainHiVE (normal with sd 0.02, bias 0)",
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
        description="share of the distance to the start's weights that each step takes "
        "back, at the peak learning rate (decoupled L2-SP)",
    )
    weight_decay: float = Field(0.05, ge=0, description="weight decay of AdamW")
    decay: Literal["all", "not_biases", "weights"] = Field(
        "all",
        description="parameters that weight_decay acts on: all, not_biases (MindEye1, "
        "MindEye2), or weights, without biases and LayerNorm (transformers' Trainer, "
        "used by BrainHiVE)",
    )
    betas: tuple[float, float] = Field(
        (0.9, 0.995),
        description="betas of AdamW; one_cycle moves the first from 0.95 to 0.85 and "
        "back, as in torch",
    )
    warmup_steps: int = Field(
        0, ge=0, description="steps of linear warm-up before the cosine (paper: 10)"
    )
    grad_norm: float | None = Field(
        1.0, gt=0, description="largest norm of the gradient; null: no limit"
    )
    precision: Literal["fp32", "bf16"] = Field("bf16", description="autocast dtype")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of a moving average of the weights, which is validated and "
        "kept; 0: none",
    )
    prior_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="dropout in the prior's frozen fusion encoder (BrainHiVE: 0.1)",
    )
    # validation, and the epoch that is kept
    validation: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of training concepts or pictures held out",
    )
    validation_by: Literal["concepts", "pictures"] = added_field(
        "concepts",
        description="hold out whole concepts, or pictures of all concepts (NICE, "
        "AlignVis, VBP)",
    )
    selection: Literal["best", "last", "test", "recordings"] = Field(
        "best",
        description="epoch that is kept, by top-1: best (on validation), last, test "
        "(best on test pictures, only to reproduce others' numbers: it is no result), "
        "or recordings (best on `validation_recordings`)",
    )
    validation_recordings: dict[int, list[int]] = added_field(
        {},
        description="{subject: [sessions]} that select the epoch and are not trained "
        "on; other sessions may show the same pictures",
    )
    patience: int | None = Field(
        None,
        gt=0,
        description="stop after this many epochs without a better validation top-1",
    )
    # samples and targets of each step
    augment: Augment = Augment()
    lora: LoraSection = added_field(
        LoraSection(),
        description="encoders trained with the brain model; lr_of: {adapter: …} sets "
        "their learning rate",
    )
    embedding_alternatives: dict[str, NameList] = Field(
        {},
        description="{encoder: further stores of the same pictures and width}; one is "
        "drawn each time",
    )
    alternatives: Literal["random", "uncertainty"] = added_field(
        "random",
        description="choice among a stimulus's alternative targets: random; or "
        "uncertainty: of three, the first if it was found easily before, the last if "
        "hardly (UBP's blurs, from weak to strong)",
    )
    gallery_level: int = added_field(
        0,
        ge=0,
        le=2,
        description="with alternatives: uncertainty, level of the encoder's own store, "
        "the gallery: 0 (weak) to 2 (strong)",
    )
    shuffled_labels: bool = Field(
        False,
        description="control: train each signal with another signal's picture, drawn "
        "once",
    )

    @model_validator(mode="before")
    @classmethod
    def _scale_stages(cls, fields: Any) -> Any:
        """Set `epochs` to the sum of the stages, or scale the stages to `epochs`."""
        if not isinstance(fields, dict):
            return fields
        if not fields.get("stages") or not isinstance(fields["stages"], list):
            return fields
        stages = [dict(Stage.model_validate(stage)) for stage in fields["stages"]]
        lengths = [stage["epochs"] for stage in stages]

        # the type of the key refuses values that are not numbers
        epochs = fields.get("epochs", sum(lengths))
        if isinstance(epochs, int) and epochs > 0:
            scaled_lengths = scale_stages(lengths, epochs)
            for stage, length in zip(stages, scaled_lengths, strict=True):
                stage["epochs"] = length
        return {**fields, "stages": stages, "epochs": epochs}

    @model_validator(mode="after")
    def _refuse_idle_keys(self) -> Self:
        """Refuse keys that contradict each other or have no effect."""
        if self.stages:
            refuse_idle(
                self,
                ("lr", "warmup_steps"),
                "with stages, which have their own",
                "set it in train.stages",
            )
        if self.start_from and self.stages and self.stages[0].start_from:
            raise ValueError(
                "train.start_from and the start_from of the first stage are both set: "
                "leave one out"
            )
        if len(self.stages) > 1:
            refuse_idle(self, "patience", "on several stages, which have fixed epochs")
        if not self.validation:
            refuse_idle(self, "validation_by", "with validation 0")
        if self.alternatives != "uncertainty":
            refuse_idle(self, "gallery_level", f"with alternatives {self.alternatives}")
        if self.epoch_trials is not None:
            refuse_idle(
                self, "last_batch", "with epoch_trials, where all batches are full"
            )
        is_by_recordings = self.selection == "recordings"
        if is_by_recordings != bool(self.validation_recordings):
            raise ValueError(
                "validation_recordings and selection: recordings need each other: set "
                "both, or neither"
            )
        if self.patience is not None and not (self.validation or is_by_recordings):
            raise ValueError(
                "patience needs validation top-1: set train.validation above 0"
            )
        return self

    def span(self, stage: int | None) -> tuple[int, int]:
        """Return the first epoch and the number of epochs of a stage.

        Args:
            stage: Index of the stage, or None for the whole training.

        Raises:
            RecipeError: if there is no such stage.
        """
        if stage is None:
            return 0, self.epochs
        lengths = [stage.epochs for stage in self.stages] or [self.epochs]
        if stage >= len(lengths):
            raise RecipeError(
                f"a term has stage {stage}, but the training has {len(lengths)} stages",
                f"set a stage from 0 to {len(lengths) - 1}",
            )
        return sum(lengths[:stage]), lengths[stage]

    @property
    def starts(self) -> list[dict[str, str]]:
        """References of the weights that each stage starts from, keyed by module.

        For example, `[{"": "RUN"}, {"backbone": "FILE"}, {}]`: the first stage loads a
        whole model, the third nothing.
        """
        stage_starts = [stage.start_from for stage in self.stages] or [None]
        first_start = stage_starts[0] or self.start_from
        starts: list[dict[str, str]] = []
        for start in [first_start] + stage_starts[1:]:
            if not start:
                starts.append({})
            else:
                starts.append({"": start} if isinstance(start, str) else start)
        return starts

    def pin_starts(self, names: Mapping[str, str]) -> Self:
        """Replace references of weights, for instance by references with a commit.

        Args:
            names: New references, keyed by old ones. Other references stay.
        """
        stages = []
        for stage in self.stages:
            start = _replace_references(stage.start_from, names)
            stages.append(stage.model_copy(update={"start_from": start}))
        start = _replace_references(self.start_from, names)
        return self.model_copy(update={"start_from": start, "stages": stages})

    def list_stages(self, steps_per_epoch: int) -> list[Stage]:
        """List the stages, or the single stage that this section describes.

        Args:
            steps_per_epoch: Number of steps in an epoch.

        Raises:
            RecipeError: if the warm-up is longer than the training.
        """
        n_steps = self.epochs * steps_per_epoch
        if self.warmup_steps > n_steps:
            raise RecipeError(
                f"train.warmup_steps is {self.warmup_steps}, but the training of a "
                f"cell has {n_steps} steps",
                f"train.warmup_steps={n_steps // 10}, more train.epochs or a smaller "
                "train.batch_size",
            )
        if self.stages:
            return self.stages
        warmup_epochs = self.warmup_steps / max(1, steps_per_epoch)
        return [Stage(epochs=self.epochs, lr=self.lr, warmup_epochs=warmup_epochs)]

    def check_prior(self, prior: str | None) -> None:
        """Refuse keys that act on a prior if the recipe has no prior."""
        if prior is None:
            refuse_idle(
                self,
                "prior_dropout",
                "without a prior",
                "set fuser.dropout, or name a prior (--prior)",
            )


def _replace_references(start: StartFrom, names: Mapping[str, str]) -> StartFrom:
    """Replace the references in a start that are keys of `names`."""
    if isinstance(start, dict):
        return {
            part: names.get(reference, reference) for part, reference in start.items()
        }
    return names.get(start, start) if start else start


class Finetune(Section):
    """Keys of fine-tuning: the run to start from, and the data of the new subjects."""

    run: str | None = Field(
        None,
        description="align run, by folder or name, the train-align "
        "recipe that made it, or hub:owner/name[@revision]; default: the newest on the "
        "data set that is not fine-tuned",
    )
    share: float = Field(
        1.0,
        ge=0.01,
        le=1,
        description="share of a new subject's training pictures, 0.01 to 1; a larger "
        "share contains a smaller one",
    )
    sessions: int | None = added_field(
        None,
        gt=0,
        description="train on this many first sessions of a new subject; default: all",
    )
