"""The recipe of train-prior."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from brainhive_cli.core import parts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.key_types import NameList
from brainhive_cli.core.recipe import BaseRecipe
from brainhive_cli.core.sections import Section, refuse_idle
from brainhive_cli.models import encoders, generators, priors
from brainhive_cli.models.encoders import DEFAULT_ENCODERS, EncoderConfig, Encoders

INCEPTION = "inception"
"""The features of FID as it was defined: torchmetrics' InceptionV3."""


def _generator_or_none(value: Any) -> Any:
    # a string is a kind, or else the source of a diffusion model
    if isinstance(value, str) and not parts.is_kind("generators", value):
        value = {"source": value}
    return (
        None
        if value is None
        else parts.resolve("generators", value, default=generators.DEFAULT_KIND)
    )


def _known_features(name: str) -> str:
    # any other name must be an encoder; refused here, not when FID is measured
    if name != INCEPTION:
        try:
            _of_pictures([encoders.resolve(name)])
        except RecipeError as error:
            raise RecipeError(
                f"fid_features: {error.message}", f"{INCEPTION}, or {error.hint}"
            ) from error
    return name


def _of_pictures(configs: Sequence[EncoderConfig]) -> Sequence[EncoderConfig]:
    # samples are pictures, without captions, masks or labels
    for config in configs:
        if config.content != "pixels":
            raise RecipeError(
                f"{config.name} reads {config.content}, and samples are pictures",
                "an encoder of pictures, as clip-l14",
            )
    return configs


class PriorTrain(Section):
    """Training of the prior; defaults are BrainHiVE's."""

    # length of the training, and pictures a step
    steps: int = Field(
        100_000, gt=0, le=1_000_000_000, description="steps of the optimiser"
    )
    batch_size: int = Field(
        16, gt=0, le=2**14, description="pictures a backward pass, on each process"
    )
    accumulate: int = Field(
        1,
        gt=0,
        le=10_000,
        description="backward passes a step, of batch_size pictures each",
    )

    # optimiser, at a constant learning rate
    lr: float = Field(1e-4, gt=0, description="learning rate of AdamW, constant")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")

    # the repository of BrainHiVE, where it differs from the paper
    weights: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="dtype of the prior's weights and of AdamW's state; bf16 is the "
        "published code's, and rounds most steps of AdamW away",
    )
    equal_noise: bool = Field(
        False,
        description="all processes draw the same noise, timesteps and dropped tokens, "
        "as the published code does; default: each picture has its own",
    )

    # speed and memory
    precision: Literal["fp32", "bf16"] = Field(
        "bf16", description="dtype of the diffusion model and of autocast"
    )
    gradient_checkpointing: bool = Field(
        False, description="less memory, a third more time"
    )
    compile: bool = Field(
        False,
        description="compile the diffusion model; the first step then takes minutes",
    )
    checkpoint_steps: int = Field(1000, gt=0, description="steps between checkpoints")


class Recipe(BaseRecipe):
    """Recipe of train-prior: the prior, its pictures and its diffusion model."""

    is_tracked = True
    MEMORY_HINT = (
        "a smaller train.batch_size and as much more train.accumulate, or "
        "cache_latents=true, or train.gradient_checkpointing=true"
    )

    # pictures and their embeddings
    dataset: Any = parts.part_field("datasets", "image-folder", "pictures")
    split: str = Field("train", description="split whose pictures are learned")
    encoders: Encoders = Field(
        [*DEFAULT_ENCODERS],
        validate_default=True,
        min_length=1,
        description="embeddings that are fused",
    )
    embed_missing: bool = Field(
        False, description="compute embeddings that no store holds, at every step"
    )
    cache_latents: bool = Field(
        False, description="encode each picture once, into a store under paths.latents"
    )

    # the diffusion model, and the prior that is trained on it
    generator: Annotated[
        Any, parts.part_validator("generators", generators.DEFAULT_KIND)
    ] = Field(
        {
            "kind": generators.DEFAULT_KIND,
            "source": "hub:stabilityai/stable-diffusion-xl-base-1.0",
        },
        validate_default=True,
        description="frozen diffusion model",
    )
    prior: Any = parts.part_field(
        "priors", priors.DEFAULT, "kind and sizes of a new prior"
    )
    continue_from: str | None = Field(
        None,
        description="a prior whose training is continued, instead of a new one: it "
        "brings its own sizes and weights, so that prior.start_from counts "
        "for nothing",
    )
    freeze: NameList = Field(
        [], description="names of the prior's modules that stay as they are"
    )

    # how pictures and tokens reach the diffusion model
    resolution_px: int = Field(
        512, gt=0, le=16_384, description="short side and centre crop of the pictures"
    )
    resize: Literal["lanczos", "bilinear"] = Field(
        "lanczos", description="interpolation to that size (BrainHiVE: bilinear)"
    )
    crop_ids: Literal["resized", "original"] = Field(
        "resized",
        description="picture in whose pixels the corner of the crop is given to the "
        "diffusion model: the resized one, as it was trained, or the "
        "original one, as BrainHiVE's repository does",
    )
    posterior: Literal["mode", "sample"] = Field(
        "mode",
        description="value of the autoencoder's posterior that is trained on; sample "
        "(BrainHiVE's) is drawn from the seed in each step, which "
        "cache_latents cannot do",
    )
    token_dropout: float = Field(0.1, ge=0, lt=1, description="share of tokens zeroed")

    # pictures held out of training: their loss, and samples of them
    validation_items: int = Field(
        32, ge=0, description="pictures kept from training, for the validation loss"
    )
    sampler: Annotated[Any, BeforeValidator(_generator_or_none)] = Field(
        None,
        description="few-step diffusion model for the samples, or its source; default: "
        "the one trained on",
    )
    sample_items: int = Field(
        6, ge=0, description="validation pictures that are generated"
    )
    sample_steps: int = Field(
        4, gt=0, le=1000, description="denoising steps of the samples"
    )
    sample_every: int = Field(
        5000, ge=0, description="steps between samples; 0: only at the end"
    )

    # metrics of the samples
    similarity: Annotated[Encoders, AfterValidator(_of_pictures)] = Field(
        ["clip-l14"],
        validate_default=True,
        description="encoders that compare samples with the true pictures",
    )
    lpips: bool = Field(True, description="compare them by LPIPS too (AlexNet, 233 MB)")
    fid_items: int = Field(
        0, ge=0, description="pictures kept from training for FID and KID at the end"
    )
    fid_features: Annotated[str, AfterValidator(_known_features)] = Field(
        INCEPTION, description=f"{INCEPTION}, or an encoder, whose features these take"
    )

    # how it is trained
    seed: int = Field(0, ge=0, description="seed of weights, noise and order")
    train: PriorTrain = PriorTrain()

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        # keys that act on a new prior, samples or distances; those of how samples are
        # drawn go with them said of continue_from
        sizes = self.prior.model_copy(update={"start_from": None})
        if self.continue_from is not None and sizes != parts.resolve(
            "priors", priors.DEFAULT
        ):
            raise RecipeError(
                "prior has no effect with continue_from, which brings its own sizes",
                "leave one out",
            )
        if self.train.weights == "bf16" and self.train.precision == "fp32":
            raise RecipeError(
                "train.weights is bf16, and train.precision fp32 computes in float32",
                "train.precision=bf16, or train.weights=fp32",
            )
        if not self.sample_items:
            refuse_idle(self, "sample_every", "with sample_items=0", "sample_items=6")
        if not self.fid_items:
            refuse_idle(self, "fid_features", "with fid_items=0", "fid_items=5000")

        # cached latents are computed once, samples differ from step to step
        if self.cache_latents and self.posterior == "sample":
            raise RecipeError(
                "posterior is sample, but cache_latents keeps one latent of each "
                "picture",
                "posterior=mode, or cache_latents=false",
            )
        return self
