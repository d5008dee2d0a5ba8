"""The recipe of train-align."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from brainhive_cli.alignment.settings import Finetune, Published, Train
from brainhive_cli.alignment.sweep import SweptRecipe, read_sweep, variants
from brainhive_cli.core import parts, recipe
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.data.encoder_keys import encoders_of
from brainhive_cli.encoders import Encoders
from brainhive_cli.signals.section import Signal


class Recipe(SweptRecipe):
    """Whose signals are aligned with which embeddings, and how."""

    FINGERPRINT_EXCLUDE: ClassVar[frozenset[str]] = recipe.Recipe.FINGERPRINT_EXCLUDE | {
        "published",
        "train.memory_map",
    }
    is_tracked: ClassVar[bool] = True
    LESS_MEMORY: ClassVar[recipe.Savings] = ({"train.batch_size": 0.5},)

    dataset: Annotated[Any, parts.part("datasets", "things_eeg")] = Field(
        "things-eeg", validate_default=True, description="signals and pictures"
    )
    encoders: Encoders = Field(
        ["clip-h14", "vae"],
        validate_default=True,
        min_length=1,
        description="embeddings that are fused; default with a prior: the prior's",
    )
    mode: Literal["intra", "inter", "joint", "finetune"] = Field(
        "intra",
        description="intra: one subject; inter: leave one out; joint: all on all; finetune: new subjects",
    )
    subjects: recipe.Numbers | None = Field(None, description="subjects; default: all of the data set")
    seeds: recipe.Numbers = Field([2025, 2026, 2027], description="one cell a seed (paper: three from 2025)")
    dim: int | None = Field(
        None, gt=0, description="D of the token; default: the prior's or the fuser's own, else 1024"
    )
    backbone: Annotated[Any, parts.part("backbones", "brain_mlp")] = Field(
        "brain_mlp", validate_default=True, description="brain encoder"
    )
    fuser: Annotated[Any, parts.part("fusers", "fusion_encoder")] = Field(
        "fusion_encoder", validate_default=True, description="fusion encoder"
    )
    loss: Annotated[Any, parts.part("losses", "clip")] = Field(
        "clip", validate_default=True, description="what pulls tokens together"
    )
    prior: str | None = Field(None, description="Fusion Prior whose fusion encoder is the frozen target")
    subject_layer: Literal["none", "token", "linear", "channel_attention"] = Field(
        "none", description="what is learned for each subject before the brain encoder"
    )
    similarity: Literal["cosine", "centred_cosine"] = Field("cosine", description="how tokens are compared")
    signal: Signal = Signal()
    train: Train = Train()
    finetune: Finetune = Finetune()
    published: Published | None = None

    @model_validator(mode="before")
    @classmethod
    def _takes_the_encoders_of_its_prior(cls, fields: Any) -> Any:
        """Fuse what the prior fuses where no encoders are named."""
        if not isinstance(fields, dict) or "encoders" in fields:
            return fields
        swept = read_sweep(fields.get("sweep") or {})
        priors = [fields.get("prior"), *(swept.get("prior", []) if isinstance(swept, dict) else [])]
        named = next((prior for prior in priors if isinstance(prior, str)), None)
        return {**fields, "encoders": encoders_of(named)} if named else fields

    @model_validator(mode="after")
    def _has_one_target(self) -> Self:
        if self.prior and self.fuser.kind != "fusion_encoder":
            raise RecipeError(
                f"fuser is {self.fuser.kind}, but the prior {self.prior} brings a fuser of its own",
                "prior=null, or no fuser.kind",
            )
        if self.prior and self.similarity != "cosine":
            raise RecipeError(
                f"similarity is {self.similarity}, but the prior {self.prior} draws from tokens as they are",
                "similarity=cosine, or prior=null",
            )
        return self

    @model_validator(mode="after")
    def _no_key_of_training_is_without_effect(self) -> Self:
        if self.sweep:  # each of its variants is checked by itself
            return self
        if self.mode == "finetune":  # whose run decides the prior
            recipe.refuse_idle(self.train, ("init",), "on weights of a run", "no train.init")
        else:
            self.train.check_prior(self.prior)
        return self

    @model_validator(mode="after")
    def _every_variant_holds(self) -> Self:
        if self.sweep:
            modes = {self.mode, *(each.mode for each in variants(self).values())}
            if modes > {"finetune"}:
                raise RecipeError("sweep: finetune goes with no other mode", "make a run of each")
        elif self.mode != "finetune" and self.finetune != Finetune():
            raise RecipeError(f"finetune is set, but mode is {self.mode}", "--mode finetune")
        return self
