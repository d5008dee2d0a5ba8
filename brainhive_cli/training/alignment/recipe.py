"""Recipe of train-align, with its defaults and the checks of its keys."""

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

from brainhive_cli.core.base import BrainhiveError, RecipeError
from brainhive_cli.core.recipes import (
    BaseRecipe,
    Flag,
    Numbers,
    Paths,
    PublishedKey,
    added_field,
    flag_field,
    parts,
    refuse_idle,
)
from brainhive_cli.core.runs import SweptRecipe, read_sweep
from brainhive_cli.data.datasets import HasFewPictures
from brainhive_cli.data.files import Subjects
from brainhive_cli.data.signals import Signal, list_regions
from brainhive_cli.data.targets import add_usual_encoders, find_prior_encoders
from brainhive_cli.models import FUSED_TARGET, TOKEN_HEAD, check_head_names
from brainhive_cli.models.encoders import (
    DEFAULT_ENCODERS,
    EncoderConfig,
    Encoders,
    join_names,
    resolve,
    resolve_all,
)
from brainhive_cli.training.alignment.layout import FROM_MEAN, Similarity
from brainhive_cli.training.alignment.stages import Finetune, Train
from brainhive_cli.training.alignment.terms import Term, check_active

DEFAULT_BACKBONE = "brain-mlp"
DEFAULT_FUSER = "fusion-encoder"
DEFAULT_DIM = 1024
"""Width of a fused token that no recipe, fuser or prior sets, as in BrainHiVE."""
FIRST_SEED = 2025
"""First seed of BrainHiVE."""
CLOSED_FORM_TRAIN_KEYS = {"validation", "validation_by", "shuffled_labels"}
"""Keys of `train` that have an effect on backbones in closed form."""


def make_ridge_keys(mode: str, max_components: int) -> dict[str, Any]:
    """Make the recipe keys of a ridge that chooses its penalty by cross-validation.

    Args:
        mode: Mode of the recipe. In `inter`, all subjects share a ridge.
        max_components: Largest number of principal components of a subject's ridge.
    """
    backbone: dict[str, Any] = {"kind": "shared-ridge"}
    if mode != "inter":
        backbone = {
            "kind": "ridge",
            "alpha": "auto",
            "standardise": False,
            "components": max_components,
        }
    return {"backbone": backbone, "similarity": FROM_MEAN}


def add_usual_backbone(fields: Any) -> Any:
    """Set a ridge as backbone, unless training keys are set or pictures are many."""
    # Keys that say how a model is trained. With any of them, the default is no ridge.
    training_keys = {
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
        "finetune",
    }
    if not isinstance(fields, dict) or not training_keys.isdisjoint(fields):
        return fields
    mode = fields.get("mode", "intra")
    train = fields.get("train") or {}
    if not isinstance(train, dict) or mode == "finetune":
        return fields
    if not train.keys() <= CLOSED_FORM_TRAIN_KEYS:
        return fields

    # wrong values are reported by the types of the keys
    with suppress(BrainhiveError, ValidationError):
        dataset = parts.resolve("datasets", fields.get("dataset"))
        paths = Paths.model_validate(fields.get("paths") or {})
        if not isinstance(dataset, HasFewPictures):
            return fields
        max_components = dataset.few_pictures(paths)
        if max_components:
            # a ridge is not random, and needs no validation
            usual_train = {"validation": 0.0} | train
            usual_fields = {"seeds": [FIRST_SEED]} | fields | {"train": usual_train}
            return usual_fields | make_ridge_keys(mode, max_components)
    return fields


def _resolve_head_targets(heads: Any) -> Any:
    """Replace the names of encoders in a mapping by their configs."""
    if not isinstance(heads, dict):
        return heads
    head_targets = {}
    for name, target in heads.items():
        head_targets[name] = target if target == FUSED_TARGET else resolve(target)
    return head_targets


def _add_head_encoders(fields: dict[str, Any]) -> dict[str, Any]:
    """Add each encoder whose embedding a head predicts to `encoders`.

    Raises:
        RecipeError: if other encoders are named, and no head is `fused`.
    """
    heads = fields.get("heads")
    if not heads or not isinstance(heads, dict):
        return fields
    head_targets = _resolve_head_targets(heads)
    is_fused = FUSED_TARGET in head_targets.values()
    head_encoders = {
        target.name: target
        for target in head_targets.values()
        if target != FUSED_TARGET
    }
    encoders = resolve_all(
        fields.get("encoders", list(DEFAULT_ENCODERS) if is_fused else [])
    )
    if not isinstance(encoders, list):  # the type of the key reports it
        return fields

    named_encoders = {config.name: config for config in encoders}
    if not is_fused and not named_encoders.keys() <= head_encoders.keys():
        raise RecipeError(
            "encoders has no effect without a head whose target is `fused`",
            "leave encoders out, or give a head the target fused",
        )
    all_encoders = named_encoders | head_encoders
    return {**fields, "heads": head_targets, "encoders": list(all_encoders.values())}


def _add_closed_form_fuser(fields: dict[str, Any]) -> dict[str, Any]:
    """Set the fuser `heads` for a backbone in closed form, which trains no fuser."""
    if fields.get("heads") or fields.get("prior"):
        return fields
    with suppress(BrainhiveError):  # wrong values are reported by the types of the keys
        backbone = parts.resolve("backbones", fields.get("backbone", DEFAULT_BACKBONE))
        fuser = parts.resolve("fusers", fields.get("fuser", DEFAULT_FUSER))
        is_default = fuser == parts.resolve("fusers", DEFAULT_FUSER)
        if backbone.is_closed_form and is_default:
            return {**fields, "fuser": "heads"}
    return fields


def _add_prior_encoders(fields: dict[str, Any]) -> dict[str, Any]:
    """Set `encoders` to the encoders of the first prior of the recipe or its sweep."""
    if "encoders" in fields:
        return fields
    priors = [fields.get("prior")]
    sweep = read_sweep(fields.get("sweep") or {})
    if isinstance(sweep, dict):
        priors += sweep.get("prior", [])
    names = [prior for prior in priors if isinstance(prior, str)]
    if names and names[0]:
        return {**fields, "encoders": find_prior_encoders(names[0])}
    return fields


HeadTargets = Annotated[
    dict[str, SerializeAsAny[EncoderConfig] | Literal["fused"]],
    BeforeValidator(_resolve_head_targets),
]


class Recipe(SweptRecipe):
    """Recipe of train-align: signals, embeddings and the training that aligns them."""

    FINGERPRINT_EXCLUDE = BaseRecipe.FINGERPRINT_EXCLUDE | {"published"}
    is_tracked = True
    writes_run = True
    MEMORY_HINT = "a smaller train.batch_size"
    summary = (
        "Train a decoder for each person and seed, which predicts the embedding of the "
        "seen picture from brain signals."
    )
    example = "--mode inter"

    mode: Literal["intra", "inter", "joint", "finetune"] = flag_field(
        "intra",
        "training mode: intra, inter (leave one subject out), joint or "
        "finetune. intra: one model per subject; inter: test each subject on a model "
        "of the others; joint: one model of all; finetune: adapt a model to new "
        "subjects",
    )
    dataset: Annotated[Any, Flag()] = parts.part_field(
        "datasets",
        "things-eeg",
        "data set of the signals and pictures, such as things-meg or demo",
    )
    encoders: Encoders = flag_field(
        list(DEFAULT_ENCODERS),
        "encoders whose embeddings are fused, by name or reference, "
        "separated by commas. With a prior, the default is the prior's",
        validate_default=True,
        min_length=1,
    )
    subjects: Subjects = flag_field(
        None,
        "subjects, in inter those left out, as in 1,2,5; default: all of the data set",
    )
    trained_on: Subjects = Field(
        None,
        description="inter: training subjects, without the one left out; default: all "
        "of the data set",
    )
    seeds: Numbers = flag_field(
        [FIRST_SEED, FIRST_SEED + 1, FIRST_SEED + 2],
        "random seeds, with a model for each. The paper has three from "
        "2025; a default ridge has the first seed alone",
    )
    dim: int | None = Field(
        None,
        gt=0,
        le=2**20,
        description="width D of the fused token; default: of the prior or the fuser, "
        f"else {DEFAULT_DIM}",
    )
    backbone: Annotated[Any, Flag("--backbone", step="kind")] = parts.part_field(
        "backbones",
        DEFAULT_BACKBONE,
        "brain encoder. It is a network from signals to heads",
    )
    fuser: Any = parts.part_field(
        "fusers", DEFAULT_FUSER, "fusion encoder: combines embeddings into one target"
    )
    loss: Any = parts.part_field(
        "losses", "clip", "loss of every head, unless `terms` are set"
    )
    heads: HeadTargets = Field(
        {},
        description="{head: encoder that it predicts, or fused}; default: one head "
        "`token` for the fused `encoders`",
    )
    targets: Annotated[
        dict[str, SerializeAsAny[EncoderConfig]], BeforeValidator(_resolve_head_targets)
    ] = added_field(
        {},
        description="{name: encoder} of targets without a head, for `terms`, such as "
        "captions; only the training reads them",
    )
    terms: list[Term] = Field(
        [],
        description="loss terms; default: `loss` for every head, with equal weights "
        "that sum to one",
    )
    head: str | None = Field(
        None,
        description="head that retrieval compares; default: `token`, or the only head "
        "of vectors or tokens",
    )
    prior: str | None = flag_field(
        None,
        "Fusion Prior whose frozen fusion encoder and encoders give the "
        "training targets",
    )
    subject_layer: Literal["none", "linear"] = Field(
        "none",
        description="layer of each subject before the backbone; linear: a mixing of "
        "the channels",
    )
    similarity: Similarity = Field(
        "cosine",
        description="similarity of tokens: cosine; centred_cosine (correlation); "
        "cosine_from_mean (cosine after subtracting the mean training target, only in "
        "closed form)",
    )
    signal: Signal = Signal()
    train: Train = Train()
    finetune: Finetune = Finetune()
    published: PublishedKey = None

    @classmethod
    def set_key(cls, fields: dict[str, Any], key: str, value: Any) -> None:
        """Set a dotted key. Stages replace the keys of a single stage.

        Raises:
            RecipeError: if a list has no such index.
        """
        super().set_key(fields, key, value)
        if f"{key}.".startswith("train.stages."):
            cls.drop_replaced(fields, {"train": {"stages": fields["train"]["stages"]}})

    @classmethod
    def drop_replaced(cls, fields: dict[str, Any], layer: Mapping[str, Any]) -> None:
        """Drop the keys of a single stage from `fields` if `layer` sets stages."""
        train = fields.get("train")
        new_train = layer.get("train")
        has_stages = isinstance(new_train, dict) and new_train.get("stages")
        if isinstance(train, dict) and has_stages:
            # Keys of `train` that describe a training with a single stage.
            for key in ("epochs", "lr", "warmup_steps"):
                train.pop(key, None)

    @model_validator(mode="before")
    @classmethod
    def _add_defaults(cls, fields: Any) -> Any:
        """Add the defaults that depend on other keys of the recipe."""
        if not isinstance(fields, dict):
            return fields
        fields = add_usual_backbone(fields)
        fields = _add_head_encoders(fields)
        fields = _add_closed_form_fuser(fields)
        fields = _add_prior_encoders(fields)
        return add_usual_encoders(fields)

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        """Refuse heads, terms and fusers that cannot be trained together."""
        if self.sweep:  # each run of a sweep is checked by itself
            return self

        # names and fuser of the heads
        check_head_names(self.heads)
        self._refuse_idle_keys()
        if self.heads and self.is_fused and self.fuser.kind == "heads":
            raise RecipeError(
                "the fuser `heads` makes no target for a head that is `fused`",
                "set another fuser, or give the head an encoder as its target",
            )
        fused_heads = [
            name for name, target in self.heads.items() if target == FUSED_TARGET
        ]
        if len(fused_heads) > 1:
            raise RecipeError(
                f"{len(fused_heads)} heads have the target `fused`: "
                f"{', '.join(fused_heads)}",
                "keep one of them, and give it several terms",
            )

        # fine-tuning has the heads and terms of its run
        if self.mode != "finetune":
            if self.head is not None and self.head not in self.head_targets:
                raise RecipeError(
                    f"the recipe has no head {self.head!r}",
                    f"choose from its heads: {', '.join(self.head_targets)}",
                )
            self.check_terms()
            self._check_streams()

        # targets are constant in closed form, and a fuser learns only in steps
        if not self.backbone.is_closed_form:
            if self.similarity == FROM_MEAN:
                raise RecipeError(
                    f"similarity={FROM_MEAN} needs a fixed mean of the fused target, "
                    "which changes during training",
                    "set similarity=cosine or centred_cosine, or backbone=ridge",
                )
        elif self.is_fused and not self.prior:
            reason = CLOSED_FORM_REASON.format(backbone=self.backbone.kind)
            raise RecipeError(
                f"no fuser can be trained {reason}",
                "set fuser.kind=heads, or heads with an encoder as target, or a prior",
            )
        return self

    def _check_streams(self) -> None:
        """Refuse sets of voxels in `region_split` that the backbone does not read."""
        streams = self.backbone.streams
        split = self.signal.region_split
        if not split or not streams:
            return

        # a set is used by a stream, or in the expression of another set
        used_sets = set(streams)
        for expression in split.values():
            used_sets.update(list_regions(expression))
        for name in split:
            if name not in used_sets:
                raise RecipeError(
                    f"signal.region_split.{name} has no effect: it is no stream of "
                    f"{self.backbone.kind}, and no other set uses it",
                    f"streams: {', '.join(streams)}",
                )

    def check_terms(self) -> None:
        """Check that the loss terms train every head and use every target.

        Raises:
            RecipeError: if they do not, or contradict the keys of `train.lora`.
        """
        # encoders that learn with the model
        lora_encoders = self.train.lora.encoders
        encoder_names = [config.name for config in self.encoders]
        for name in lora_encoders:
            if name not in encoder_names:
                raise RecipeError(
                    f"train.lora.encoders names {name!r}, which is not in encoders",
                    f"encoders: {', '.join(encoder_names)}",
                )
        if lora_encoders and (self.prior or self.train.ema):
            other_key = "prior" if self.prior else "train.ema"
            raise RecipeError(
                f"train.lora and {other_key} cannot be used together",
                f"leave out {other_key} or train.lora",
            )

        # active epochs of the terms; names of targets
        terms = self.loss_terms
        check_active(terms, self.train.epochs)
        head_names = list(self.head_targets)
        repeated_names = self.targets.keys() & set(head_names + encoder_names)
        if repeated_names:
            raise RecipeError(
                f"targets names {min(repeated_names)}, which is already a head or an "
                "encoder",
                "choose another name",
            )
        idle_targets = self.targets.keys() - {term.target for term in terms}
        if idle_targets:
            target = min(idle_targets)
            raise RecipeError(
                f"targets.{target} has no effect", f"add a term with target: {target}"
            )

        # the heads of a custom backbone may be unknown before it is trained
        if self.backbone.takes_spec:
            return
        predictions = {term.prediction for term in terms}
        compared_targets = {term.target_name for term in terms} - self.targets.keys()
        unknown_names = (predictions | compared_targets) - set(head_names)
        if unknown_names:
            raise RecipeError(
                f"terms names {', '.join(sorted(unknown_names))}, which is no head or "
                "target",
                f"heads and targets: {', '.join(head_names + list(self.targets))}",
            )
        untrained_heads = set(head_names) - predictions
        if untrained_heads:
            raise RecipeError(
                f"no term trains the head {', '.join(sorted(untrained_heads))}",
                "add a term for it",
            )

    def name_run(self, paths: Paths) -> str:
        """Return the name of the run's folder, without the fingerprint.

        It has the data set, the mode, the backbone and the encoders.
        """
        words = [self.dataset.build(paths).name, self.mode, self.backbone.kind]
        if self.encoders:
            words.append(join_names(self.encoders))
        return "-".join(words)

    def _refuse_idle_keys(self) -> None:
        """Refuse keys that have no effect in this recipe, as `IDLE_KEYS` lists them."""
        for row in IDLE_KEYS:
            if not row.is_idle(self):
                continue
            reason = row.reason.format(backbone=self.backbone.kind, mode=self.mode)
            for key in row.keys:
                path, _, name = key.rpartition(".")
                section = getattr(self, path) if path else self
                if key in PART_SHELVES:
                    self._refuse_part(key, reason, row.hint)
                else:
                    refuse_idle(section, name, reason, row.hint)

    def _refuse_part(self, key: str, reason: str, hint: str) -> None:
        """Refuse a part that differs from the default of its key."""
        part = getattr(self, key)
        default = type(self).model_fields[key].default
        if part != parts.resolve(PART_SHELVES[key], default):
            raise RecipeError(f"{key}={part.kind} has no effect {reason}", hint)

    @property
    def is_fused(self) -> bool:
        """Return True if a head predicts a target that a fuser makes."""
        if self.heads:
            return FUSED_TARGET in self.heads.values()
        return bool(self.fuser.kind != "heads")

    @property
    def head_targets(self) -> dict[str, Any]:
        """Target of each head of the model: the config of an encoder, or `fused`."""
        if self.heads:
            return self.heads
        if self.is_fused:
            return {TOKEN_HEAD: FUSED_TARGET}
        return {config.name: config for config in self.encoders}

    @property
    def fused_encoders(self) -> list[EncoderConfig]:
        """Encoders whose embeddings are fused, because no head predicts them."""
        predicted_encoders = {
            target.name
            for target in self.head_targets.values()
            if target != FUSED_TARGET
        }
        return [
            config for config in self.encoders if config.name not in predicted_encoders
        ]

    @property
    def stored_encoders(self) -> list[EncoderConfig]:
        """Encoders whose embeddings the training reads, with `targets` last."""
        return self.encoders + [
            config for config in self.targets.values() if config not in self.encoders
        ]

    @property
    def loss_terms(self) -> list[Term]:
        """Loss terms, with epochs counted from the start of the training."""
        terms = self.terms
        if not terms:
            names = list(self.head_targets)
            terms = [
                Term(prediction=name, loss=self.loss, weight=1 / len(names))
                for name in names
            ]
        return [term.in_stage(*self.train.span(term.stage)) for term in terms]

    @model_validator(mode="after")
    def _check_prior_and_mode(self) -> Self:
        """Refuse keys that contradict the prior or the mode."""
        # a prior has a fuser and a similarity of its own
        if self.prior and self.fuser.kind != DEFAULT_FUSER:
            raise RecipeError(
                f"fuser is {self.fuser.kind}, but the prior {self.prior} has its own "
                "fuser",
                "set prior=null, or leave fuser out",
            )
        if self.prior and self.similarity != "cosine":
            raise RecipeError(
                f"similarity is {self.similarity}, but the prior {self.prior} takes "
                "tokens unchanged",
                "set similarity=cosine or prior=null",
            )

        # fine-tuning starts from its run alone
        if self.mode == "finetune" and self.train.starts[0]:
            raise RecipeError(
                "train.start_from has no effect on fine-tuning, which starts from "
                "finetune.run",
                "leave one of them out",
            )

        # fine-tuning has the prior of its run. Each run of a sweep is checked by itself
        if self.mode != "finetune" and not self.sweep:
            self.train.check_prior(self.prior)
            if self.finetune != Finetune():
                raise RecipeError(
                    f"finetune has no effect in mode {self.mode}",
                    "set --mode finetune, or leave finetune out",
                )
        return self


@dataclass(frozen=True)
class IdleKeys:
    """Keys that have no effect in some recipes, which must not set them.

    Attributes:
        keys: Dotted keys of the recipe.
        is_idle: Returns True for a recipe where the keys have no effect.
        reason: End of the message "KEY has no effect …". `{backbone}` and `{mode}`
            stand for the values of the recipe.
        hint: Advice for the user.
    """

    keys: Sequence[str]
    is_idle: Callable[[Recipe], object]
    reason: str
    hint: str = "leave it out"


PART_SHELVES = {"fuser": "fusers", "loss": "losses"}
"""Shelf of each key in `IDLE_KEYS` that names a part."""
CLOSED_FORM_REASON = "with the backbone {backbone}, which is fitted without epochs"
IDLE_KEYS = (
    IdleKeys(
        ("dim", "prior", "fuser"),
        lambda recipe: recipe.heads and not recipe.is_fused,
        "without a head whose target is `fused`",
        "give a head the target fused",
    ),
    IdleKeys(
        ("loss",),
        lambda recipe: recipe.terms,
        "with terms",
        "set the loss of each term",
    ),
    IdleKeys(
        [
            f"train.{key}"
            for key in sorted(Train.model_fields.keys() - CLOSED_FORM_TRAIN_KEYS)
        ],
        lambda recipe: recipe.backbone.is_closed_form,
        CLOSED_FORM_REASON,
    ),
    IdleKeys(
        ("terms", "loss"),
        lambda recipe: recipe.backbone.is_closed_form,
        CLOSED_FORM_REASON,
        "leave it out: every head is fitted",
    ),
    IdleKeys(
        ("signal.repetitions",),
        lambda recipe: recipe.backbone.is_closed_form,
        CLOSED_FORM_REASON,
        "set it to average",
    ),
    IdleKeys(
        ("signal.region_control",),
        lambda recipe: (
            recipe.mode != "finetune"
            and recipe.signal.region_split
            and not recipe.backbone.streams
        ),
        "on {backbone}, which reads all voxels of region_split as one set",
    ),
    IdleKeys(
        ("train.init",),
        lambda recipe: recipe.mode == "finetune",
        "on a model that starts from a run",
    ),
    IdleKeys(
        ("trained_on",),
        lambda recipe: recipe.mode not in ("inter", "finetune"),
        "in mode {mode}",
        "name the training subjects in subjects",
    ),
    IdleKeys(
        ("train.start_pull",),
        lambda recipe: recipe.mode != "finetune" and not any(recipe.train.starts),
        "without weights to start from",
        "set train.start_from, or mode=finetune",
    ),
)
"""Idle keys of each kind of recipe. The first row that applies is reported."""
