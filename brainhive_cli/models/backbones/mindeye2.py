"""MindEye2's brain model: a ridge for each subject, image tokens, a text vector and a
blurry latent.

Source: RidgeRegression and BrainNetwork of MindEye2 (arXiv 2403.11207, MIT), whose
parameter names are kept.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models.backbones import BackboneConfig, _layers
from brainhive_cli.models.blocks import Dropout
from brainhive_cli.models.heads import Heads
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.models.sizes import Width

TEXT = "text"
"""The head of the tokens' mean, projected into the space of texts."""
BLURRY = "blurry"
"""The head of an autoencoder's latent, from the ridges' outputs; `maps` come with
it.
"""
FEATURES, CHANNELS, BLURRY_DROPOUT = 64, (32, 64, 128), 0.3
"""Of the blurry branch: feature maps, channels of its decoder from the output on, and
what is dropped.
"""
MIXER_DROPOUT = 0.15
"""Probability of dropping a unit of a mixer block."""


class Config(BackboneConfig):
    """For voxels [B, V, 1] of subjects who may differ in V; heads are image tokens [S,
    D] and `text` [E].

    The head `blurry` [C, H, W] (4 × 28 × 28: the latent of a picture of 224 pixels) is
    MindEye2's branch of blurry pictures, for which training may want `maps` [S, D] (49
    × 512) too.
    Signals are one volume, so MindEye2's mixer blocks over volumes add a learned
    constant to the shared space. They are kept. Its mixer blocks over features reach no
    output and get no gradient. They are left out.
    """

    cites = ("scotti2024",)
    takes_spec = True

    hidden: Width = Field(4096, description="Width of the space that subjects share.")
    blocks: int = Field(
        4, ge=0, le=1000, description="Mixer blocks over volumes; MindEye2's."
    )

    def build(self, spec: SignalSpec, heads: Heads) -> "MindEye2":
        """Make the model; its heads are one of tokens [S, D], of any name, and those of
        the class as wanted.

        Raises:
            RecipeError: if the heads are others.
            BrainhiveError: if the signals are no voxels, or the blurry branch has no
                such latent or maps.
        """
        return MindEye2(self, spec, heads)


TINY = Config(hidden=8)


class MindEye2(nn.Module):
    """Ridge of the subject, backbone that all share, and the projection of the tokens'
    mean to a text vector.

    Attributes:
        image: Name of the head of tokens.
    """

    def __init__(self, config: Config, spec: SignalSpec, heads: Heads) -> None:
        super().__init__()
        _layers.refuse_sensors("mindeye2", spec)
        # the head of tokens, and its shape
        axes = {TEXT: 1, BLURRY: 3, _layers.MAPS: 2}
        images = {name: head.shape for name, head in heads.items() if name not in axes}
        has_other_axes = any(
            axes.get(name, 2) != len(head.shape) for name, head in heads.items()
        )
        if (
            has_other_axes
            or len(images) != 1
            or (_layers.MAPS in heads and BLURRY not in heads)
        ):
            raise RecipeError(
                f"the backbone mindeye2 predicts tokens, {TEXT}, {BLURRY} and maps, "
                f"the heads are {', '.join(heads) or 'none'}",
                f"one head of tokens [S, D], and perhaps {TEXT}, a vector, "
                f"{BLURRY}, a latent, and its maps",
            )
        self.image, (tokens, width) = next(iter(images.items()))

        # a linear map for each subject, from its voxels to the space that all share
        ridges = [nn.Linear(voxels, config.hidden) for voxels in spec.widths]
        self.ridge = nn.ModuleDict(
            {"linears": _layers.BySubject("mindeye2", spec, ridges)}
        )

        # what all subjects share
        self.backbone = Backbone(config, tokens, width, heads)
        self.clipproj: nn.ParameterDict | None = None
        if TEXT in heads:
            matrix = torch.randn(width, heads[TEXT].width) * width**-0.5  # [D, E]
            self.clipproj = nn.ParameterDict({"proj": matrix})

    def forward(
        self, signal: Tensor, subject_index: Tensor | None
    ) -> dict[str, Tensor]:
        """Predict the heads from voxels [B, V, 1] of subjects [B], all of one width."""
        return self.with_voxel_tokens(signal, subject_index)[1]

    def with_voxel_tokens(
        self, signal: Tensor, subject_index: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Predict the heads, and give the tokens [B, S, D] before `clip_proj`, which
        condition the prior.
        """
        mapped = self.ridge["linears"](signal, subject_index)  # [B, H]
        mixed = self.backbone.mix(mapped)
        # [B, S, D]
        tokens = self.backbone.backbone_linear(mixed).unflatten(
            1, (-1, self.backbone.width)
        )
        image = self.backbone.clip_proj(tokens)
        heads = {self.image: image}
        if self.clipproj is not None:
            heads[TEXT] = project_mean(self.clipproj, image)
        return tokens, heads | self.backbone.blurry(mixed)


class Backbone(nn.Module):
    """Tokens of the ridges' outputs, and their projection.

    With a head `blurry` the ridges' outputs also go through feature maps to a decoder.
    """

    def __init__(self, config: Config, tokens: int, width: int, heads: Heads) -> None:
        super().__init__()
        self.width = width
        hidden = config.hidden
        self.mixer_blocks2 = nn.ModuleList(_mixer_block() for _ in range(config.blocks))

        # tokens, and their projection for retrieval
        self.backbone_linear = nn.Linear(hidden, tokens * width)
        triples = [
            (nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width)) for _ in range(3)
        ]
        self.clip_proj = nn.Sequential(
            *(layer for triple in triples for layer in triple)
        )
        self.blin1: nn.Linear | None = None

        # low-level branch: feature maps of an autoencoder's latent
        if BLURRY in heads:
            self.map_size = _layers.find_map_size(
                heads, BLURRY, 2 ** (len(CHANNELS) - 1)
            )
            self.blin1 = nn.Linear(
                hidden, FEATURES * self.map_size[0] * self.map_size[1]
            )
            self.bdropout = Dropout(BLURRY_DROPOUT)
            self.bnorm = nn.GroupNorm(1, FEATURES)
            self.bupsampler = _layers.make_upsampler(
                FEATURES, heads[BLURRY].shape[0], CHANNELS
            )
            self.b_maps_projector = None
            if _layers.MAPS in heads:
                map_width = heads[_layers.MAPS].shape[-1]
                self.b_maps_projector = _layers.make_maps_projector(
                    FEATURES, map_width, map_width, map_width
                )

    def mix(self, mapped: Tensor) -> Tensor:
        """Add the output of each mixer block to the ridges' outputs, [B, H] to [B, H].

        LayerNorm over one volume returns its bias whatever the input, so each block
        gets zeros. In training, dropout differs by row and unit.
        """
        zeros = torch.zeros_like(mapped)[..., None]  # [B, H, 1]: one volume
        for block in self.mixer_blocks2:
            mapped = mapped + block(zeros)[..., 0]
        return mapped

    def blurry(self, mixed: Tensor) -> dict[str, Tensor]:
        """Map mixed outputs of the ridges [B, H] to the heads of the blurry branch.

        Return no heads if the model has no such branch.
        """
        if self.blin1 is None:
            return {}
        maps = self.bdropout(self.blin1(mixed)).unflatten(1, (-1, *self.map_size))
        maps = self.bnorm(maps)  # [B, F, h, w]
        heads = {BLURRY: self.bupsampler(maps)}
        if self.b_maps_projector is not None:
            # [B, S, D]
            heads[_layers.MAPS] = self.b_maps_projector(maps).flatten(2).transpose(1, 2)
        return heads


def _mixer_block() -> nn.Sequential:
    """Make a mixer block over one volume, by MindEye2's names."""
    layers = (nn.Linear(1, 1), nn.GELU(), Dropout(MIXER_DROPOUT), nn.Linear(1, 1))
    return nn.Sequential(nn.LayerNorm(1), nn.Sequential(*layers))


def project_mean(projection: nn.ParameterDict, tokens: Tensor) -> Tensor:
    """Project the mean of tokens [B, S, D], or of several frames' [B, F, S, D], by a
    matrix: [B, E].
    """
    return tokens.flatten(1, -2).mean(1) @ projection["proj"]
