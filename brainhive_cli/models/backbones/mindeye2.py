"""MindEye2's brain model: a ridge for each subject, mixer blocks, image tokens, text vector, blurry latent.

Source: RidgeRegression and BrainNetwork of MindEye2 (arXiv 2403.11207, MIT), whose parameter names are kept.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models.backbones import BackboneConfig, _layers
from brainhive_cli.models.blocks import Dropout, Share, Width
from brainhive_cli.models.foreign_weights import State, below, count_numbers, rename
from brainhive_cli.models.heads import Heads
from brainhive_cli.models.signal_spec import SignalSpec

TEXT = "text"
"""The head of the tokens' mean, projected into the space of texts."""
BLURRY = "blurry"
"""The head of an autoencoder's latent, from the mixer's output; `maps` come with it."""
BLURRY_WEIGHTS = r"backbone\.(blin1|bnorm|bupsampler|b_maps_projector)\."
"""How the names of its weights begin, as a pattern."""
FEATURES, CHANNELS, BLURRY_DROPOUT = 64, (32, 64, 128), 0.3
"""Of the blurry branch: feature maps, channels of its decoder from the output on, and what is dropped."""


class Config(BackboneConfig):
    """For voxels [B, V, 1] of subjects who may differ in V; heads are image tokens [S, D] and `text` [E].

    The head `blurry` [C, H, W] (4 × 28 × 28: the latent of a picture of 224 pixels) is MindEye2's branch of
    blurry pictures, for which training may want `maps` [S, D] (49 × 512) too.
    Over one volume the mixer blocks add a constant alone: a LayerNorm of one number gives its bias, and the
    residual passes the blocks over features by. So models are linear up to their tokens.
    """

    cites = ("scotti2024",)
    takes_spec = True
    streams: ClassVar[tuple[str, ...]] = ()

    hidden: Width = Field(4096, description="Width of the space that subjects share.")
    mixer: Literal["blocks", "none"] = Field(
        "none",
        description="blocks: MindEye2's mixer blocks, which change nothing but a constant; none: the same "
        "outputs without them (134 M parameters fewer at MindEye2's size).",
    )
    blocks: int = Field(4, ge=0, le=1_000, description="Mixer blocks, where there are any.")
    dropout: Share = Field(0.15, description="Probability of dropping a unit in a mixer block.")

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
        _layers.refuse_sensors("mindeye2", spec)
        # the head of tokens, and its shape
        axes = {TEXT: 1, BLURRY: 3, _layers.MAPS: 2}
        images = {name: head.shape for name, head in heads.items() if name not in axes}
        has_other_axes = any(axes.get(name, 2) != len(head.shape) for name, head in heads.items())
        if has_other_axes or len(images) != 1 or (_layers.MAPS in heads and BLURRY not in heads):
            raise RecipeError(
                f"the backbone mindeye2 predicts tokens, {TEXT}, {BLURRY} and maps, the heads are "
                f"{', '.join(heads) or 'none'}",
                f"one head of tokens [S, D], and perhaps {TEXT}, a vector, {BLURRY}, a latent, and its maps",
            )
        self.image, (tokens, width) = next(iter(images.items()))

        # a linear map for each subject, from its voxels to the space that all share
        ridges = [nn.Linear(voxels, config.hidden) for voxels in spec.widths]
        self.ridge = nn.ModuleDict({"linears": _layers.BySubject("mindeye2", spec, ridges)})

        # what all subjects share
        blocks = config.blocks if config.mixer == "blocks" else 0
        self.backbone = Backbone(config.hidden, blocks, config.dropout, tokens, width, heads)
        self.clipproj: nn.ParameterDict | None = None
        if TEXT in heads:
            matrix = torch.randn(width, heads[TEXT].width) * width**-0.5  # [D, E]
            self.clipproj = nn.ParameterDict({"proj": matrix})

    def forward(self, signal: Tensor, subject_index: Tensor | None) -> dict[str, Tensor]:
        """Predict the heads from voxels [B, V, 1] of subjects [B], all of one width."""
        return self.with_voxel_tokens(signal, subject_index)[1]

    def with_voxel_tokens(
        self, signal: Tensor, subject_index: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Predict the heads, and give the tokens [B, S, D] before `clip_proj`, which condition the prior."""
        mixed = self.backbone.mix(self.ridge["linears"](signal, subject_index))  # [B, H]
        tokens = self.backbone.backbone_linear(mixed).unflatten(1, (-1, self.backbone.width))  # [B, S, D]
        image = self.backbone.clip_proj(tokens)
        heads = {self.image: image}
        if self.clipproj is not None:
            heads[TEXT] = project_mean(self.clipproj, image)
        return tokens, heads | self.backbone.blurry(mixed)

    def adapted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bring the weights of a model with more parts to this one.

        Mixer blocks become their constant, in the bias of the layer behind the ridges, so that ridges of new
        subjects have it, too; a branch of blurry pictures is left out.
        """
        # a model without the blurry branch has no use for its weights
        if self.backbone.blin1 is None:
            state = rename(state, {BLURRY_WEIGHTS: None})
        plain = rename(state, {r"backbone\.mixer_blocks": None})
        if len(plain) == len(state) or len(self.backbone.mixer_blocks1):
            return state
        # a constant c in all H inputs of a layer adds c · (row sum of weights)
        weight, bias = (state[f"backbone.backbone_linear.{name}"] for name in ("weight", "bias"))
        return plain | {"backbone.backbone_linear.bias": bias + mixer_constant(state) * weight.sum(1)}


class Backbone(nn.Module):
    """Mixer blocks over features and over the axis of length 1, then tokens and their projection.

    With a head `blurry` the mixer's output also goes through feature maps to a decoder.
    """

    def __init__(
        self, hidden: int, blocks: int, dropout: float, tokens: int, width: int, heads: Heads
    ) -> None:
        super().__init__()
        self.width = width

        # mixer blocks, tokens, and their projection for retrieval
        self.mixer_blocks1, self.mixer_blocks2 = nn.ModuleList(), nn.ModuleList()
        for mixers, size in ((self.mixer_blocks1, hidden), (self.mixer_blocks2, 1)):
            for _ in range(blocks):
                layers = (nn.Linear(size, size), nn.GELU(), Dropout(dropout), nn.Linear(size, size))
                mixers.append(nn.Sequential(nn.LayerNorm(size), nn.Sequential(*layers)))
        self.backbone_linear = nn.Linear(hidden, tokens * width)
        triples = [(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width)) for _ in range(3)]
        self.clip_proj = nn.Sequential(*(layer for triple in triples for layer in triple))
        self.blin1: nn.Linear | None = None

        # low-level branch: feature maps of an autoencoder's latent
        if BLURRY in heads:
            self.map_size = _layers.map_size(heads, BLURRY, 2 ** (len(CHANNELS) - 1))
            self.blin1 = nn.Linear(hidden, FEATURES * self.map_size[0] * self.map_size[1])
            self.bdropout = Dropout(BLURRY_DROPOUT)
            self.bnorm = nn.GroupNorm(1, FEATURES)
            self.bupsampler = _layers.upsampler(FEATURES, heads[BLURRY].shape[0], CHANNELS)
            self.b_maps_projector = None
            if _layers.MAPS in heads:
                map_width = heads[_layers.MAPS].shape[-1]
                self.b_maps_projector = _layers.maps_projector(FEATURES, map_width, map_width, map_width)

    def mix(self, mapped: Tensor) -> Tensor:
        """Pass [B, H] through the mixer blocks: [B, H]."""
        # over features, then over the axis of length 1, as upstream does
        x = first = mapped[:, None]  # [B, 1, H]
        second = mapped[..., None]  # [B, H, 1]
        for over_features, over_length in zip(self.mixer_blocks1, self.mixer_blocks2, strict=True):
            first = over_features(x) + first
            second = over_length(first.transpose(1, 2)) + second
            x = second.transpose(1, 2)
        return x.flatten(1)

    def blurry(self, mixed: Tensor) -> dict[str, Tensor]:
        """Map the mixer's output [B, H] to the heads of the blurry branch; to none where it has none."""
        if self.blin1 is None:
            return {}
        maps = self.bnorm(self.bdropout(self.blin1(mixed)).unflatten(1, (-1, *self.map_size)))  # [B, F, h, w]
        heads = {BLURRY: self.bupsampler(maps)}
        if self.b_maps_projector is not None:
            heads[_layers.MAPS] = self.b_maps_projector(maps).flatten(2).transpose(1, 2)  # [B, S, D]
        return heads


def project_mean(projection: nn.ParameterDict, tokens: Tensor) -> Tensor:
    """Project the mean of tokens [B, S, D], or of several frames' [B, F, S, D], by a matrix: [B, E]."""
    return tokens.flatten(1, -2).mean(1) @ projection["proj"]


def mixer_constant(state: State) -> Tensor:
    """Compute what mixer blocks add to the ridge's outputs, from their weights: a scalar.

    Source: a LayerNorm over an axis of length 1 gives its bias, whatever it is given.
    """
    total = torch.zeros(())
    for number in range(count_numbers(state, r"backbone\.mixer_blocks2\.(\d+)\.")):
        block = below(state, f"backbone.mixer_blocks2.{number}.")
        # the normalised input is 0, so that the bias alone is left
        hidden = block["1.0.weight"][0] * block["0.bias"] + block["1.0.bias"]
        total = total + block["1.3.weight"][0] * nn.functional.gelu(hidden) + block["1.3.bias"]
    return total
