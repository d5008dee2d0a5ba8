"""Recipe of train-align."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.key_types import Numbers
from brainhive_cli.core.recipe import BaseRecipe, Paths, Published
from brainhive_cli.core.sections import added_field, refuse_idle
from brainhive_cli.core.sweep import SweptRecipe, make_variants, read_sweep
from brainhive_cli.data.datasets import HasFewPictures
from brainhive_cli.data.files.subjects import Subjects
from brainhive_cli.data.signals.selection import Signal, list_regions
from brainhive_cli.data.targets.encoder_keys import (
    add_usual_encoders,
    find_prior_encoders,
)
from brainhive_cli.models.encoders import (
    DEFAULT_ENCODERS,
    EncoderConfig,
    Encoders,
    resolve,
    resolve_all,
)
from brainhive_cli.models.heads import FUSED, TOKEN, check_names
from brainhive_cli.training.alignment.layout import FROM_MEAN, Similarity
from brainhive_cli.training.alignment.stages import SHORT_FORM, Finetune, Train
from brainhive_cli.training.alignment.terms import Term, check_active


def _head_targets(heads: Any) -> Any:
    if not isinstance(heads, dict):
        return heads
    return {
        name: target if target == FUSED else resolve(target)
        for name, target in heads.items()
    }


BACKBONE, FUSER = "brain-mlp", "fusion-encoder"
"""The usual parts."""
USED_IN_CLOSED_FORM = {"validation", "validation_by", "shuffled_labels"}
"""Keys of `train` that have an effect where nothing is trained step by step."""
SEED = 2025
"""The first seed; BrainHiVE's."""
TRAINED_IN_STEPS = {
    "backbone",
    "fuser",
    "loss",
    "terms",
    "heads",
    "head",
    "dim",
    "prior",
    "subject_layer",
    "similarity",
    "sweep",
    "ablations",
    "finetune",
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
    """Add a ridge to a recipe without keys of training, if its data set is small."""
    if not isinstance(fields, dict) or not TRAINED_IN_STEPS.isdisjoint(fields):
        return fields
    mode, train = fields.get("mode", "intra"), fields.get("train") or {}
    if mode == "finetune" or not {*train} <= USED_IN_CLOSED_FORM:
        return fields
    with suppress(BrainhiveError, ValidationError):  # which the keys' own types raise
        config = parts.resolve("datasets", fields.get("dataset"))
        paths = Paths.model_validate(fields.get("paths") or {})
        if isinstance(config, HasFewPictures):
            most = config.few_pictures(paths)
            if most:
                # a ridge has no randomness, and chooses its penalty without validation
                usual_train = {"validation": 0.0} | train
                usual = {"seeds": [SEED]} | fields | {"train": usual_train}
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
    MEMORY_HINT = "a smaller train.batch_size"

    dataset: Any = parts.part_field("datasets", "things-eeg", "signals and pictures")
    encoders: Encoders = Field(
        [*DEFAULT_ENCODERS],
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
    backbone: Any = parts.part_field("backbones", BACKBONE, "brain encoder")
    fuser: Any = parts.part_field("fusers", FUSER, "fusion encoder")
    loss: Any = parts.part_field(
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
    def set_key(cls, fields: dict[str, Any], key: str, value: Any) -> None:
        """Set a dotted key. Stages replace the keys that are short for one stage.

        Raises:
            RecipeError: if a list has no such index.
        """
        super().set_key(fields, key, value)
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
                fields = {**fields, "encoders": find_prior_encoders(reference)}
        return add_usual_encoders(fields)

    @model_validator(mode="after")
    def _every_head_is_trained(self) -> Self:
        if self.is_swept:  # each of its variants is checked by itself
            return self

        # names and fuser of the heads
        check_names(self.heads)
        self._refuse_idle_keys()
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

        # the head of retrieval, and the terms of all heads
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

        # no fuser that would have to learn
        when = CLOSED_FORM.format(backbone=self.backbone.kind)
        if self.is_fused and not self.prior:
            raise RecipeError(
                f"no fuser is trained {when}",
                "fuser.kind=heads, heads of encoders, or a prior",
            )
        return self

    def _check_streams(self) -> None:
        """Refuse sets of voxels that no stream of the backbone reads."""
        streams = self.backbone.streams
        if not (split := self.signal.region_split) or not streams:
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

    def _refuse_idle_keys(self) -> None:
        """Refuse keys that have no effect in this recipe, by the table IDLE_KEYS."""
        for row in IDLE_KEYS:
            if not row.is_idle(self):
                continue
            when = row.when.format(backbone=self.backbone.kind, mode=self.mode)
            for key in row.keys:
                path, _, name = key.rpartition(".")
                section = getattr(self, path) if path else self
                if key in PART_SHELVES:
                    self._refuse_part(key, when, row.hint)
                else:
                    refuse_idle(section, name, when, row.hint)

    def _refuse_part(self, key: str, when: str, hint: str) -> None:
        part, default = getattr(self, key), type(self).model_fields[key].default
        if part != parts.resolve(PART_SHELVES[key], default):
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

        if self.is_swept:  # each of its variants is checked by itself
            modes = {
                self.mode,
                *(variant.mode for variant in make_variants(self).values()),
            }
            if modes > {"finetune"}:
                raise RecipeError(
                    "sweep: finetune goes with no other mode", "make a run of each"
                )
        elif self.mode != "finetune":  # there the run decides the prior
            self.train.check_prior(self.prior)
            if self.finetune != Finetune():
                raise RecipeError(
                    f"finetune is set, but mode is {self.mode}", "--mode finetune"
                )
        return self


@dataclass(frozen=True)
class IdleKeys:
    """Keys that have no effect in recipes of some kind, and so must not be set there.

    Attributes:
        keys: Dotted keys of the recipe.
        is_idle: Tells whether a recipe is of this kind.
        when: Reason, which follows "has no effect" in the message. `{backbone}` and
            `{mode}` stand for those of the recipe.
        hint: What the user can do.
    """

    keys: Sequence[str]
    is_idle: Callable[[Recipe], object]
    when: str
    hint: str = "leave it out"


PART_SHELVES = {"fuser": "fusers", "loss": "losses"}
"""Keys of the table that name a part, and the shelf of the part."""
CLOSED_FORM = "on {backbone}, which is fitted in closed form"
IDLE_KEYS = (
    IdleKeys(
        ("dim", "prior", "fuser"),
        lambda recipe: recipe.heads and not recipe.is_fused,
        "where no head is `fused`",
        "give a head the target fused",
    ),
    IdleKeys(
        ("loss",),
        lambda recipe: recipe.terms,
        "where terms are given",
        "set the loss of each term",
    ),
    IdleKeys(
        [
            f"train.{key}"
            for key in sorted(Train.model_fields.keys() - USED_IN_CLOSED_FORM)
        ],
        lambda recipe: recipe.backbone.is_closed_form,
        CLOSED_FORM,
    ),
    IdleKeys(
        ("terms", "loss"),
        lambda recipe: recipe.backbone.is_closed_form,
        CLOSED_FORM,
        "leave it out: every head is fitted",
    ),
    IdleKeys(
        ("signal.repetitions",),
        lambda recipe: recipe.backbone.is_closed_form,
        CLOSED_FORM,
        "average",
    ),
    IdleKeys(
        ("signal.region_control",),
        lambda recipe: (
            recipe.mode != "finetune"
            and recipe.signal.region_split
            and not recipe.backbone.streams
        ),
        "on {backbone}, which reads all voxels of region_split as one",
    ),
    IdleKeys(
        ("train.init",),
        lambda recipe: recipe.mode == "finetune",
        "on weights of a run",
        "no train.init",
    ),
    IdleKeys(
        ("trained_on",),
        lambda recipe: recipe.mode not in ("inter", "finetune"),
        "in mode {mode}",
        "name them in subjects",
    ),
    IdleKeys(
        ("train.start_pull",),
        lambda recipe: recipe.mode != "finetune" and not any(recipe.train.starts),
        "without a start",
        "train.start_from, or mode=finetune",
    ),
)
"""Keys that have no effect, by the kind of the recipe. The first row that applies is
reported.
"""
