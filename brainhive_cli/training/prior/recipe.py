"""Recipe of train-prior."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from brainhive_cli.core.base import RecipeError
from brainhive_cli.core.recipes import (
    BaseRecipe,
    Flag,
    NameList,
    Section,
    flag_field,
    parts,
    refuse_idle,
)
from brainhive_cli.models import encoders, generators, priors
from brainhive_cli.models.encoders import DEFAULT_ENCODERS, EncoderConfig, Encoders

INCEPTION = "inception"
"""Original features of FID: InceptionV3 of torchmetrics."""


def _resolve_sampler(value: Any) -> Any:
    """Make the config of a sampler from a kind, a source or a config."""
    if value is None:
        return None
    if isinstance(value, str) and not parts.is_kind("generators", value):
        value = {"source": value}
    return parts.resolve("generators", value, default=generators.DEFAULT_KIND)


def _check_features(name: str) -> str:
    """Raise an error if the features of FID do not come from a picture encoder."""
    if name != INCEPTION:
        try:
            _check_picture_encoders([encoders.resolve(name)])
        except RecipeError as error:
            raise RecipeError(
                f"fid_features: {error.message}",
                f"choose {INCEPTION}, or {error.hint}",
            ) from error
    return name


def _check_picture_encoders(
    configs: Sequence[EncoderConfig],
) -> Sequence[EncoderConfig]:
    """Raise an error if an encoder needs captions, masks or labels."""
    for config in configs:
        if config.content != "pixels":
            raise RecipeError(
                f"{config.name} reads {config.content}, and samples are pictures",
                "choose an encoder of pictures, such as clip-l14",
            )
    return configs


class PriorTrain(Section):
    """Settings of the training of a prior. The defaults are BrainHiVE's."""

    # length of the training, and pictures in a step
    steps: int = flag_field(
        100_000, "number of optimizer steps", gt=0, le=1_000_000_000
    )
    batch_size: int = Field(
        16,
        gt=0,
        le=2**14,
        description="number of pictures in a backward pass of each process",
    )
    accumulate: int = Field(
        1,
        gt=0,
        le=10_000,
        description="number of backward passes in a step",
    )

    # optimizer, with a constant learning rate
    lr: float = Field(1e-4, gt=0, description="constant learning rate of AdamW")
    weight_decay: float = Field(0.01, ge=0, description="weight decay of AdamW")

    # options of BrainHiVE's repository that differ from the paper
    weights: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="dtype of the prior's weights and of AdamW's state; bf16, as in "
        "the published code, rounds most of its steps away",
    )
    equal_noise: bool = Field(
        False,
        description="draw equal noise, timesteps and dropped tokens in all processes, "
        "as in the published code; default: different for each picture",
    )

    # speed and memory
    precision: Literal["fp32", "bf16"] = Field(
        "bf16", description="dtype of the diffusion model and of autocast"
    )
    gradient_checkpointing: bool = Field(
        False, description="take less memory and a third more time"
    )
    compile: bool = Field(
        False,
        description="compile the diffusion model; the first step then takes minutes",
    )
    checkpoint_steps: int = Field(
        1000, gt=0, description="number of steps between checkpoints"
    )


class Recipe(BaseRecipe):
    """Recipe of train-prior: a prior, its pictures and its diffusion model."""

    is_tracked = True
    writes_run = True
    MEMORY_HINT = (
        "set a smaller train.batch_size and as much more train.accumulate, or "
        "cache_latents=true, or train.gradient_checkpointing=true"
    )

    summary = (
        "Train a prior, which turns decoded embeddings into the input of a picture "
        "generator."
    )
    example = "--dataset demo --recipe demo"

    # pictures and their embeddings
    dataset: Annotated[Any, Flag()] = parts.part_field(
        "datasets",
        "image-folder",
        "data set of the pictures, such as image-folder or demo",
    )
    split: str = Field("train", description="split of the training pictures")
    encoders: Encoders = flag_field(
        list(DEFAULT_ENCODERS),
        "encoders whose embeddings are fused, by name or reference, "
        "separated by commas",
        validate_default=True,
        min_length=1,
    )
    embed_missing: bool = flag_field(
        False, "compute the embeddings that no store holds, at each step"
    )
    cache_latents: bool = Field(
        False,
        description="encode each picture once, into a store under paths.latents",
    )

    # diffusion model and prior
    generator: Annotated[
        Any,
        parts.part_validator("generators", generators.DEFAULT_KIND),
        Flag("--generator", step="source"),
    ] = Field(
        {
            "kind": generators.DEFAULT_KIND,
            "source": "hub:stabilityai/stable-diffusion-xl-base-1.0",
        },
        validate_default=True,
        description="frozen diffusion model: hub:owner/name or a folder",
    )
    prior: Any = parts.part_field(
        "priors", priors.DEFAULT, "kind and sizes of a new prior"
    )
    continue_from: str | None = Field(
        None,
        description="prior whose training is continued, with its sizes and weights, so "
        "that prior.start_from has no effect; default: a new prior",
    )
    freeze: NameList = Field([], description="names of the prior's frozen modules")

    # input of the diffusion model
    resolution_px: int = Field(
        512,
        gt=0,
        le=16_384,
        description="short side of the resized pictures and side of their centre crop",
    )
    resize: Literal["lanczos", "bilinear"] = Field(
        "lanczos", description="interpolation of the pictures (BrainHiVE: bilinear)"
    )
    crop_ids: Literal["resized", "original"] = Field(
        "resized",
        description="picture in whose pixels the diffusion model gets the corner of "
        "the crop: resized, as it was trained, or original, as in BrainHiVE's "
        "repository",
    )
    posterior: Literal["mode", "sample"] = Field(
        "mode",
        description="value of the autoencoder's posterior in training; sample "
        "(BrainHiVE) draws it in each step, which cache_latents cannot do",
    )
    token_dropout: float = Field(
        0.1, ge=0, lt=1, description="share of tokens that are set to 0"
    )

    # held-out pictures, their loss and samples
    validation_items: int = Field(
        32, ge=0, description="number of held-out pictures for the validation loss"
    )
    sampler: Annotated[Any, BeforeValidator(_resolve_sampler)] = Field(
        None,
        description="few-step diffusion model for samples, or its source; default: the "
        "generator",
    )
    sample_items: int = Field(
        6, ge=0, description="number of held-out pictures that are generated"
    )
    sample_steps: int = Field(
        4, gt=0, le=1000, description="number of denoising steps of the samples"
    )
    sample_every: int = Field(
        5000, ge=0, description="number of steps between samples; 0: only at the end"
    )

    # metrics of the samples
    similarity: Annotated[Encoders, AfterValidator(_check_picture_encoders)] = Field(
        ["clip-l14"],
        validate_default=True,
        description="encoders that compare samples with the true pictures",
    )
    lpips: bool = Field(
        True, description="also compare samples by LPIPS (AlexNet, 233 MB)"
    )
    fid_items: int = Field(
        0,
        ge=0,
        description="number of held-out pictures for FID and KID at the end; 0: none",
    )
    fid_features: Annotated[str, AfterValidator(_check_features)] = Field(
        INCEPTION,
        description=f"{INCEPTION}, or the encoder whose features FID and KID compare",
    )

    seed: int = Field(0, ge=0, description="seed of weights, noise and order")
    train: PriorTrain = PriorTrain()

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        """Raise an error if a key has no effect, or contradicts another key."""
        # prior.start_from may be set, although it has no effect
        sizes = self.prior.model_copy(update={"start_from": None})
        default_prior = parts.resolve("priors", priors.DEFAULT)
        if self.continue_from is not None and sizes != default_prior:
            raise RecipeError(
                "prior has no effect with continue_from, which brings its own sizes",
                "leave one of them out",
            )
        if self.train.weights == "bf16" and self.train.precision == "fp32":
            raise RecipeError(
                "train.weights is bf16, and train.precision fp32 computes in float32",
                "set train.precision=bf16, or train.weights=fp32",
            )
        if not self.sample_items:
            refuse_idle(self, "sample_every", "with sample_items=0", "sample_items=6")
        if not self.fid_items:
            refuse_idle(self, "fid_features", "with fid_items=0", "fid_items=5000")
        if self.cache_latents and self.posterior == "sample":
            raise RecipeError(
                "posterior is sample, but cache_latents keeps one latent of each "
                "picture",
                "set posterior=mode, or cache_latents=false",
            )
        return self
