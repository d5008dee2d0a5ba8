"""MindEye2's brain model, with a ridge for each subject and a shared network."""

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core.base import RecipeError
from brainhive_cli.models import Dropout, Heads, SignalSpec, Width
from brainhive_cli.models.backbones import BackboneConfig, _layers

TEXT = "text"
"""Name of the head that projects the mean of the image tokens to a text vector."""
BLURRY = "blurry"
"""Name of the head of a blurry picture's latent."""
BLURRY_FEATURES = 64
"""Number of feature maps in the blurry branch."""
BLURRY_CHANNELS = (32, 64, 128)
"""Channels of the blurry branch's decoder, from the output to the input."""


class Config(BackboneConfig):
    """Settings for voxels [B, V, 1] of subjects who may differ in V.

    Heads are image tokens [S, D] of any name, `text` [E], and `blurry` [C, H, W] with
    `maps` [S, D] of MindEye2's branch of blurry pictures. For pictures of 224 pixels
    they are 4 × 28 × 28 and 49 × 512.

    Signals are one volume. MindEye2's mixer blocks over volumes then add a learned
    constant to the shared space. Its mixer blocks over features affect no output, and
    are left out.
    """

    cites = ("scotti2024",)
    called = "MindEye2's brain model"
    takes_spec = True

    hidden: Width = Field(4096, description="Width H of the space that subjects share.")
    blocks: int = Field(
        4,
        ge=0,
        le=1000,
        description="Number of mixer blocks over volumes, by default MindEye2's.",
    )

    def build(self, spec: SignalSpec, heads: Heads) -> "MindEye2":
        """Make the model.

        Raises:
            RecipeError: if it cannot predict the heads.
            BrainhiveError: if the signals are no voxels, or the blurry branch cannot
                make such a latent or maps.
        """
        return MindEye2(self, spec, heads)


TINY = Config(hidden=8)


class MindEye2(nn.Module):
    """Ridges of the subjects, a shared network, and a projection to a text vector.

    Attributes:
        image: Name of the head of image tokens.

    Source: RidgeRegression and BrainNetwork of MindEye2 (arXiv 2403.11207, MIT), with
    the names of its parameters.
    """

    def __init__(self, config: Config, spec: SignalSpec, heads: Heads) -> None:
        super().__init__()
        _layers.refuse_sensors("mindeye2", spec)
        n_axes = {TEXT: 1, BLURRY: 3, _layers.MAPS: 2}
        image_names = [name for name in heads if name not in n_axes]
        has_other_axes = any(
            len(head.shape) != n_axes.get(name, 2) for name, head in heads.items()
        )
        has_maps_alone = _layers.MAPS in heads and BLURRY not in heads
        if has_other_axes or has_maps_alone or len(image_names) != 1:
            raise RecipeError(
                f"the backbone mindeye2 predicts tokens, {TEXT}, {BLURRY} and maps, "
                f"the heads are {', '.join(heads) or 'none'}",
                f"one head of tokens [S, D], and perhaps {TEXT}, a vector, "
                f"{BLURRY}, a latent, and its maps",
            )
        self.image = image_names[0]
        n_tokens, width = heads[self.image].shape

        # from the voxels of each subject to the shared space
        ridges = [nn.Linear(voxels, config.hidden) for voxels in spec.widths]
        self.ridge = nn.ModuleDict(
            {"linears": _layers.BySubject("mindeye2", spec, ridges)}
        )

        self.backbone = Backbone(config, n_tokens, width, heads)
        self.clipproj: nn.ParameterDict | None = None
        if TEXT in heads:
            matrix = torch.randn(width, heads[TEXT].width) * width**-0.5  # [D, E]
            self.clipproj = nn.ParameterDict({"proj": matrix})

    def forward(
        self, signal: Tensor, subject_index: Tensor | None
    ) -> dict[str, Tensor]:
        """Predict the heads from voxels [B, V, 1] of subjects [B] of equal width."""
        return self.predict_with_voxel_tokens(signal, subject_index)[1]

    def predict_with_voxel_tokens(
        self, signal: Tensor, subject_index: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Predict the heads and the voxel tokens, which condition the prior.

        Returns:
            Tokens [B, S, D] before `clip_proj`, and heads by name.
        """
        backbone = self.backbone
        mapped = self.ridge["linears"](signal, subject_index)  # [B, H]
        mixed = backbone.mix(mapped)
        flat_tokens = backbone.backbone_linear(mixed)
        tokens = flat_tokens.unflatten(1, (-1, backbone.width))  # [B, S, D]
        image = backbone.clip_proj(tokens)
        heads = {self.image: image}
        if self.clipproj is not None:
            heads[TEXT] = project_mean(self.clipproj, image)
        return tokens, heads | backbone.predict_blurry(mixed)


class Backbone(nn.Module):
    """Network that all subjects share, from the shared space [B, H] to tokens.

    With a head `blurry`, feature maps and a decoder make a latent from the same input.
    """

    def __init__(self, config: Config, n_tokens: int, width: int, heads: Heads) -> None:
        super().__init__()
        self.width = width
        hidden = config.hidden
        blocks = [_make_mixer_block() for _ in range(config.blocks)]
        self.mixer_blocks2 = nn.ModuleList(blocks)

        # tokens, and their projection for retrieval
        self.backbone_linear = nn.Linear(hidden, n_tokens * width)
        layers: list[nn.Module] = []
        for _ in range(3):
            layers.append(nn.LayerNorm(width))
            layers.append(nn.GELU())
            layers.append(nn.Linear(width, width))
        self.clip_proj = nn.Sequential(*layers)

        # blurry branch
        self.blin1: nn.Linear | None = None
        if BLURRY not in heads:
            return
        scale = 2 ** (len(BLURRY_CHANNELS) - 1)
        self.map_size = _layers.find_map_size(heads, BLURRY, scale)
        height, map_width = self.map_size
        self.blin1 = nn.Linear(hidden, BLURRY_FEATURES * height * map_width)
        # Probability of dropping a unit in the blurry branch.
        self.bdropout = Dropout(0.3)
        self.bnorm = nn.GroupNorm(1, BLURRY_FEATURES)
        self.bupsampler = _layers.make_upsampler(
            BLURRY_FEATURES, heads[BLURRY].shape[0], BLURRY_CHANNELS
        )
        self.b_maps_projector = None
        if _layers.MAPS in heads:
            dim = heads[_layers.MAPS].shape[-1]
            self.b_maps_projector = _layers.make_maps_projector(
                BLURRY_FEATURES, (dim, dim, dim)
            )

    def mix(self, mapped: Tensor) -> Tensor:
        """Add the output of each mixer block to the shared space [B, H].

        LayerNorm over one volume returns its bias for any input, so the blocks get
        zeros. In training, dropout differs by row and unit.
        """
        zeros = torch.zeros_like(mapped)[..., None]  # [B, H, 1 volume]
        for block in self.mixer_blocks2:
            mapped = mapped + block(zeros)[..., 0]
        return mapped

    def predict_blurry(self, mixed: Tensor) -> dict[str, Tensor]:
        """Predict the heads of the blurry branch, if any, from vectors [B, H]."""
        if self.blin1 is None:
            return {}
        maps = self.bdropout(self.blin1(mixed)).unflatten(1, (-1, *self.map_size))
        maps = self.bnorm(maps)  # [B, F, h, w]
        heads = {BLURRY: self.bupsampler(maps)}
        if self.b_maps_projector is not None:
            projected = self.b_maps_projector(maps)  # [B, D, h, w]
            heads[_layers.MAPS] = projected.flatten(2).transpose(1, 2)
        return heads


def _make_mixer_block() -> nn.Sequential:
    """Make a mixer block over one volume."""
    # Probability of dropping a unit of a mixer block.
    mixer_dropout = 0.15
    mlp = nn.Sequential(
        nn.Linear(1, 1), nn.GELU(), Dropout(mixer_dropout), nn.Linear(1, 1)
    )
    return nn.Sequential(nn.LayerNorm(1), mlp)


def project_mean(projection: nn.ParameterDict, tokens: Tensor) -> Tensor:
    """Project the mean of tokens to a vector.

    Args:
        projection: Matrix `proj` [D, E].
        tokens: Tokens [B, S, D], or [B, F, S, D] of several frames.

    Returns:
        Vectors [B, E].
    """
    return tokens.flatten(1, -2).mean(1) @ projection["proj"]
