"""MindEye2's brain model: a ridge for each subject, mixer blocks, image tokens, text vector, blurry latent.

Source: RidgeRegression and BrainNetwork of MindEye2 (arXiv 2403.11207, MIT), whose parameter names are kept.
"""

import re
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.models import signal_shape
from brainhive_cli.models.backbones._structural import MAPS, map_size, maps_projector
from brainhive_cli.models.blocks import Dropout
from brainhive_cli.models.heads import Heads
from brainhive_cli.models.signal_spec import SignalSpec

TEXT = "text"
"""The head of the tokens' mean, projected into the space of texts."""
BLURRY = "blurry"
"""The head of an autoencoder's latent, from the mixer's output; `maps` come with it."""
BLURRY_WEIGHTS = re.compile(r"backbone\.(blin1|bnorm|bupsampler|b_maps_projector)\.")
"""How the names of its weights begin."""
FEATURES, CHANNELS, BLURRY_DROPOUT = 64, (32, 64, 128), 0.3
"""Of the blurry branch: feature maps, channels of its decoder from the output on, and what is dropped."""


class Config(parts.Config):
    """For voxels [B, V, 1] of subjects who may differ in V; heads are image tokens [S, D] and `text` [E].

    The head `blurry` [C, H, W] (4 × 28 × 28: the latent of a picture of 224 pixels) is MindEye2's branch of
    blurry pictures, for which training may want `maps` [S, D] (49 × 512) too.
    Over one volume the mixer blocks add a constant alone: a LayerNorm of one number gives its bias, and the
    residual passes the blocks over features by. So models are linear up to their tokens.
    """

    takes_spec: ClassVar[bool] = True
    streams: ClassVar[tuple[str, ...]] = ()

    hidden: int = Field(4096, gt=0, le=2**16, description="Width of the space that subjects share.")
    mixer: Literal["blocks", "none"] = Field(
        "none",
        description="blocks: MindEye2's mixer blocks, which change nothing but a constant; none: the same "
        "outputs without them (134 M parameters fewer at MindEye2's size).",
    )
    blocks: int = Field(4, ge=0, le=1_000, description="Mixer blocks, where there are any.")
    dropout: float = Field(0.15, ge=0, lt=1, description="Probability of dropping a unit in a mixer block.")

    def build(self, spec: SignalSpec, heads: Heads) -> "MindEye2":
        """Make the model; its heads are one of tokens [S, D], of any name, and those of the class as wanted.

        Raises:
            RecipeError: if the heads are others.
            BrainhiveError: if the signals are no voxels, or the blurry branch has no such latent or maps.
        """
        return MindEye2(self, spec, heads)


TINY = Config(hidden=8, mixer="blocks", blocks=1)


class MindEye2(nn.Module):
    """Ridge of the subject, backbone that all share, and the projection of the tokens' mean to a text vector.

    Attributes:
        image: Name of the head of tokens.
    """

    def __init__(self, config: Config, spec: SignalSpec, heads: Heads) -> None:
        super().__init__()
        if spec.names or spec.samples != 1:
            raise BrainhiveError(
                f"the backbone mindeye2 takes voxels, not signals of {spec.samples} samples",
                "another backbone",
            )
        self.subjects, self.widths = spec.subjects, spec.widths
        self.image, (tokens, width) = _image_of(heads)
        self.ridge = Ridges(spec, config.hidden)
        blocks = config.blocks if config.mixer == "blocks" else 0
        self.backbone = Backbone(config.hidden, blocks, config.dropout, tokens, width, heads)
        self.clipproj: Projection | None = None
        if TEXT in heads:
            self.clipproj = Projection(width, heads[TEXT].width)

    def forward(self, signal: Tensor, subject_index: Tensor | None) -> dict[str, Tensor]:
        """Predict the heads from voxels [B, V, 1] of subjects [B], all of one width."""
        return self.with_voxel_tokens(signal, subject_index)[1]

    def with_voxel_tokens(
        self, signal: Tensor, subject_index: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Predict the heads, and give the tokens [B, S, D] before `clip_proj`, which condition the prior."""
        mixed = self.backbone.mix(self.ridge(signal, subject_index))
        tokens = self.backbone.tokens(mixed)
        image = self.backbone.clip_proj(tokens)
        heads = {self.image: image}
        if self.clipproj is not None:
            heads[TEXT] = self.clipproj(image)
        return tokens, heads | self.backbone.blurry(mixed)

    def adapted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bring the weights of a model with more parts to this one.

        Mixer blocks become their constant, in the bias of the layer behind the ridges, so that ridges of new
        subjects have it, too; a branch of blurry pictures is left out.
        """
        if self.backbone.blin1 is None:
            state = {name: value for name, value in state.items() if not BLURRY_WEIGHTS.match(name)}
        mixers = {name: value for name, value in state.items() if name.startswith("backbone.mixer_blocks")}
        if not mixers or len(self.backbone.mixer_blocks1):
            return state
        weight, bias = (state[f"backbone.backbone_linear.{name}"] for name in ("weight", "bias"))
        plain = {name: value for name, value in state.items() if name not in mixers}
        return plain | {"backbone.backbone_linear.bias": bias + mixer_constant(mixers) * weight.sum(1)}


class Ridges(nn.Module):
    """A linear map for each subject, by the subject's number."""

    def __init__(self, spec: SignalSpec, hidden: int) -> None:
        super().__init__()
        self.subjects, self.widths = spec.subjects, spec.widths
        pairs = zip(spec.subjects, spec.widths, strict=True)
        self.linears = nn.ModuleDict({str(each): nn.Linear(width, hidden) for each, width in pairs})

    def forward(self, signal: Tensor, subject_index: Tensor | None) -> Tensor:
        """Map voxels [B, V, 1] to [B, H], each by the map of its subject.

        Raises:
            BrainhiveError: for a subject without one, or one of other voxels.
        """
        if subject_index is None:
            raise BrainhiveError(
                f"mindeye2 has a ridge of subject {', '.join(map(str, self.subjects))} alone",
                "fine-tune the model to the other subject first: mode=finetune",
            )
        if len(self.subjects) == 1:
            return self._of(0, signal)
        order = subject_index.argsort(stable=True)
        counts = subject_index.bincount(minlength=len(self.subjects)).tolist()
        found = [self._of(place, rows) for place, rows in enumerate(signal[order].split(counts)) if len(rows)]
        return torch.cat(found)[order.argsort()]

    def _of(self, place: int, signal: Tensor) -> Tensor:
        signal_shape.check(signal, self.widths[place], 1)
        found: Tensor = self.linears[str(self.subjects[place])](signal[..., 0])
        return found


class Backbone(nn.Module):
    """Mixer blocks over features and over the axis of length 1, then tokens and their projection.

    With a head `blurry` the mixer's output also goes through feature maps to a decoder.
    """

    def __init__(
        self, hidden: int, blocks: int, dropout: float, tokens: int, width: int, heads: Heads
    ) -> None:
        super().__init__()
        self.width = width
        self.mixer_blocks1 = nn.ModuleList(_mixer(hidden, dropout) for _ in range(blocks))
        self.mixer_blocks2 = nn.ModuleList(_mixer(1, dropout) for _ in range(blocks))
        self.backbone_linear = nn.Linear(hidden, tokens * width)
        layers = [(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width)) for _ in range(3)]
        self.clip_proj = nn.Sequential(*(layer for three in layers for layer in three))
        self.blin1: nn.Linear | None = None
        if BLURRY in heads:
            from diffusers.models.autoencoders.vae import Decoder

            self.map_size = map_size(heads, BLURRY, 2 ** (len(CHANNELS) - 1))
            self.blin1 = nn.Linear(hidden, FEATURES * self.map_size[0] * self.map_size[1])
            self.bdropout = Dropout(BLURRY_DROPOUT)
            self.bnorm = nn.GroupNorm(1, FEATURES)
            kinds = ("UpDecoderBlock2D",) * len(CHANNELS)
            self.bupsampler = Decoder(FEATURES, heads[BLURRY].shape[0], kinds, CHANNELS, layers_per_block=1)
            self.b_maps_projector = maps_projector(FEATURES, heads[MAPS].shape[-1]) if MAPS in heads else None

    def mix(self, mapped: Tensor) -> Tensor:
        """Pass [B, H] through the mixer blocks: [B, H]."""
        x = first = mapped[:, None]  # [B, 1, H]
        second = mapped[..., None]  # [B, H, 1]
        for over_features, over_length in zip(self.mixer_blocks1, self.mixer_blocks2, strict=True):
            first = over_features(x) + first
            second = over_length(first.transpose(1, 2)) + second
            x = second.transpose(1, 2)
        return x.flatten(1)

    def tokens(self, mixed: Tensor) -> Tensor:
        """Map the mixer's output [B, H] to tokens [B, S, D]."""
        tokens: Tensor = self.backbone_linear(mixed)
        return tokens.unflatten(1, (-1, self.width))

    def blurry(self, mixed: Tensor) -> dict[str, Tensor]:
        """Map the mixer's output [B, H] to the heads of the blurry branch; to none where it has none."""
        if self.blin1 is None:
            return {}
        maps = self.bnorm(self.bdropout(self.blin1(mixed)).unflatten(1, (-1, *self.map_size)))  # [B, F, h, w]
        heads = {BLURRY: self.bupsampler(maps)}
        if self.b_maps_projector is not None:
            heads[MAPS] = self.b_maps_projector(maps).flatten(2).transpose(1, 2)  # [B, S, D]
        return heads


class Projection(nn.Module):
    """The mean of tokens [B, S, D], or of several frames' [B, F, S, D], times a matrix: [B, E]."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Parameter(torch.randn(width, dim) * width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Project the mean of all tokens."""
        return tokens.flatten(1, -2).mean(1) @ self.proj


def mixer_constant(mixers: dict[str, Tensor]) -> Tensor:
    """Compute what mixer blocks add to the ridge's outputs, from their weights: a scalar.

    Source: a LayerNorm over an axis of length 1 gives its bias, whatever it is given.
    """
    numbers = sorted({int(name.split(".")[2]) for name in mixers if ".mixer_blocks2." in name})
    total = torch.zeros(())
    for number in numbers:
        own = f"backbone.mixer_blocks2.{number}"
        hidden = mixers[f"{own}.1.0.weight"][0] * mixers[f"{own}.0.bias"] + mixers[f"{own}.1.0.bias"]
        out = mixers[f"{own}.1.3.weight"][0] * nn.functional.gelu(hidden) + mixers[f"{own}.1.3.bias"]
        total = total + out
    return total


def _mixer(width: int, dropout: float) -> nn.Sequential:
    layers = (nn.Linear(width, width), nn.GELU(), Dropout(dropout), nn.Linear(width, width))
    return nn.Sequential(nn.LayerNorm(width), nn.Sequential(*layers))


def _image_of(heads: Heads) -> tuple[str, tuple[int, ...]]:
    """Find the head of tokens, and its shape."""
    axes = {TEXT: 1, BLURRY: 3, MAPS: 2}
    tokens = {name: head.shape for name, head in heads.items() if name not in axes}
    has_other_axes = any(axes.get(name, 2) != len(head.shape) for name, head in heads.items())
    if has_other_axes or len(tokens) != 1 or (MAPS in heads and BLURRY not in heads):
        raise RecipeError(
            f"the backbone mindeye2 predicts tokens, {TEXT}, {BLURRY} and {MAPS}, the heads are "
            f"{', '.join(heads) or 'none'}",
            f"one head of tokens [S, D], and perhaps {TEXT}, a vector, {BLURRY}, a latent, and its {MAPS}",
        )
    return next(iter(tokens.items()))
