"""HAVIR, with separate streams for structure (early visual voxels) and meaning."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.models import Dropout, Heads, Share, SignalSpec, Width
from brainhive_cli.models.backbones import BackboneConfig, _layers

LATENT = "latent"
"""Name of the Structural Generator's head."""
SPATIAL, SEMANTIC = "spatial", "semantic"
"""Sets of `signal.region_split` that the two streams read."""
PROJECTED = "_projected"
"""Suffix of a head's name. The head's tokens pass a projector, for contrastive losses
and retrieval.
"""


class Config(BackboneConfig):
    """Settings of HAVIR (arXiv 2510.03122), for voxels [B, V, 1].

    Its networks and defaults are those of MindEye1 (arXiv 2305.18274). With `hidden`
    1024 and a `head_rank`, a model needs much less memory.

    Heads are `latent` [C, H, W] and `maps` [S, D] of the Structural Generator, and
    tokens [S, D] or vectors of the Semantic Extractor. `NAME_projected` is the output
    of the projector on the tokens of NAME. Loss terms may use it without a head.
    """

    cites = ("zhang2025", "scotti2023")
    called = "HAVIR"
    takes_spec = True
    streams = (SPATIAL, SEMANTIC)

    hidden: Width = Field(4096, description="Width H of the residual MLPs.")
    blocks: int = Field(
        4, ge=0, le=1_000, description="Number of residual MLPs in each stream."
    )
    head_rank: Width | None = Field(
        None,
        description=(
            "Rank of the linear maps to the Semantic Extractor's heads. Default: full."
        ),
    )
    projector: int = Field(
        2048,
        ge=0,
        le=2**16,
        description="Width of the projectors. 0 means no projectors.",
    )
    features: Width = Field(
        64,
        description="Number F of feature maps that the Structural Generator upsamples.",
    )
    decoder_channels: Annotated[
        tuple[Width, ...], Field(min_length=1, max_length=10)
    ] = Field(
        (64, 128, 256),
        description=(
            "Channels of the decoder's blocks, from output to input. All but one block "
            "double the size."
        ),
    )
    decoder_layers: int = Field(
        1, gt=0, le=1_000, description="Number of layers per block of the decoder."
    )
    decoder_groups: Width = Field(
        32, description="Number of groups of the decoder's normalisations."
    )
    input_dropout: Share = Field(
        0.5, description="Probability of dropping a unit after the input layers."
    )
    structural_dropout: Share = Field(
        0.25, description="Probability of dropping a unit in the Structural Generator."
    )
    semantic_dropout: Share = Field(
        0.15, description="Probability of dropping a unit in the Semantic Extractor."
    )

    def build(self, spec: SignalSpec, heads: Heads) -> "Havir":
        """Make the model, with the streams that the heads need.

        Raises:
            BrainhiveError: if signals, regions or heads do not suit HAVIR.
        """
        return Havir(self, spec, heads)


TINY = Config(
    hidden=8,
    blocks=1,
    projector=8,
    features=8,
    decoder_channels=(8, 8),
    decoder_groups=4,
    head_rank=4,
)


class Havir(nn.Module):
    """Structural Generator and Semantic Extractor, with input layers for each subject.

    Attributes:
        inputs: Input layers, by stream and by the subject's number. A new subject
            trains these alone.
        projected: Heads that are outputs of projectors.
    """

    def __init__(self, config: Config, spec: SignalSpec, heads: Heads) -> None:
        super().__init__()
        _layers.refuse_sensors("havir", spec)
        _check_heads(heads, config.projector)

        # sort the heads by the network that predicts them
        self.projected = set()
        structural_heads = {}
        semantic_heads = {}
        for name, head in heads.items():
            if name.endswith(PROJECTED):
                self.projected.add(name)
            elif name in (LATENT, _layers.MAPS):
                structural_heads[name] = head
            else:
                semantic_heads[name] = head

        # make the streams that the heads need
        hidden = config.hidden
        self.structural = None
        self.semantic = None
        self.inputs = nn.ModuleDict()
        self.dropout = Dropout(config.input_dropout)
        if structural_heads:
            self.structural = StructuralGenerator(config, structural_heads)
            self.inputs[SPATIAL] = _make_inputs(
                spec, SPATIAL, hidden, nn.SiLU(), bias=False
            )
        if semantic_heads:
            self.semantic = SemanticExtractor(config, semantic_heads)
            self.inputs[SEMANTIC] = _make_inputs(
                spec, SEMANTIC, hidden, nn.GELU(), bias=True
            )

    def forward(
        self, signal: Tensor, subject_index: Tensor | None
    ) -> dict[str, Tensor]:
        """Predict the heads from voxels [B, V, 1] of subjects [B] of equal width."""
        return self._predict(signal, subject_index, self.projected)

    def learn(
        self,
        signal: Tensor,
        subject_index: Tensor | None,
        targets: Mapping[str, Tensor],
        context: Any,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Predict the heads, and the outputs of all projectors for loss terms."""
        return self._predict(signal, subject_index, projected=None), {}

    def _predict(
        self, signal: Tensor, subject_index: Tensor | None, projected: set[str] | None
    ) -> dict[str, Tensor]:
        """Predict the heads, and the projected heads (default: of all projectors)."""
        outputs: dict[str, Tensor] = {}
        if self.structural is not None:
            hidden = self.dropout(self.inputs[SPATIAL](signal, subject_index))
            outputs |= self.structural(hidden)
        if self.semantic is not None:
            hidden = self.dropout(self.inputs[SEMANTIC](signal, subject_index))
            outputs |= self.semantic(hidden, projected)
        return outputs


class SemanticExtractor(nn.Module):
    """Network from a hidden vector [B, H] to tokens of CLIP.

    It has shared residual MLPs, and a linear map and a projector for each head.

    Args:
        config: Sizes.
        heads: Heads of any name, vectors [D] or tokens [S, D].

    Source: BrainNetwork of MindEye1 (arXiv 2305.18274, MIT), which HAVIR (arXiv
    2510.03122) follows.
    """

    def __init__(self, config: Config, heads: Heads) -> None:
        super().__init__()
        hidden = config.hidden
        rank = config.head_rank
        self.shapes = {name: head.shape for name, head in heads.items()}
        self.mlp = _make_blocks(
            config, nn.GELU(), dropout=config.semantic_dropout, bias=True
        )

        # linear maps of full or low rank
        self.lin1 = nn.ModuleDict()
        for name, head in heads.items():
            if rank is None:
                self.lin1[name] = nn.Linear(hidden, head.width)
            else:
                self.lin1[name] = nn.Sequential(
                    nn.Linear(hidden, rank, bias=False), nn.Linear(rank, head.width)
                )

        # projectors of three layers
        self.projector = nn.ModuleDict()
        if config.projector == 0:
            return
        for name, head in heads.items():
            width = head.shape[-1]
            widths = (width, config.projector, config.projector, width)
            layers: list[nn.Module] = []
            for width_in, width_out in pairwise(widths):
                layers.append(nn.LayerNorm(width_in))
                layers.append(nn.GELU())
                layers.append(nn.Linear(width_in, width_out))
            self.projector[name] = nn.Sequential(*layers)

    def forward(
        self, x: Tensor, projected: set[str] | None = None
    ) -> dict[str, Tensor]:
        """Predict heads and projected heads.

        Args:
            x: Hidden vectors [B, H].
            projected: Names of the projected heads. Default: of all projectors.

        Returns:
            Outputs [B, *shape] by name.
        """
        for block in self.mlp:
            x = x + block(x)
        outputs = {}
        for name, linear in self.lin1.items():
            outputs[name] = linear(x).unflatten(1, self.shapes[name])
        for name, projector in self.projector.items():
            if projected is None or name + PROJECTED in projected:
                outputs[name + PROJECTED] = projector(outputs[name])
        return outputs


class StructuralGenerator(nn.Module):
    """Network from a hidden vector [B, H] to a latent, through feature maps.

    Args:
        config: Sizes.
        heads: `latent` [C, H, W], and `maps` [S, D] if trained, with a position S for
            each pixel of the feature maps.

    Raises:
        BrainhiveError: if the decoder cannot make a latent of that size, or `maps` has
            another number of positions.

    Source: Voxel2StableDiffusionModel of MindEye1 (arXiv 2305.18274, MIT), as in HAVIR.
    """

    def __init__(self, config: Config, heads: Heads) -> None:
        super().__init__()
        features = config.features
        channels = config.decoder_channels
        scale = 2 ** (len(channels) - 1)
        self.size = _layers.find_map_size(heads, LATENT, scale)
        self.mlp = _make_blocks(
            config, nn.SiLU(), dropout=config.structural_dropout, bias=False
        )

        # F feature maps, normalised together, and the decoder that upsamples them
        height, width = self.size
        self.lin1 = nn.Linear(config.hidden, features * height * width, bias=False)
        self.norm = nn.GroupNorm(1, features)
        self.upsampler = _layers.make_upsampler(
            features,
            heads[LATENT].shape[0],
            channels,
            config.decoder_layers,
            config.decoder_groups,
        )

        # the head `maps` of the same feature maps
        self.maps_projector = None
        if _layers.MAPS in heads:
            dim = heads[_layers.MAPS].shape[-1]
            self.maps_projector = _layers.make_maps_projector(features, (dim, dim, dim))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Predict `latent` [B, C, H, W] and `maps` [B, S, D] from vectors [B, H]."""
        for block in self.mlp:
            x = x + block(x)
        features = self.norm(self.lin1(x).unflatten(1, (-1, *self.size)))
        outputs = {LATENT: self.upsampler(features)}  # features are [B, F, h, w]
        if self.maps_projector is not None:
            maps = self.maps_projector(features)  # [B, D, h, w]
            outputs[_layers.MAPS] = maps.flatten(2).transpose(1, 2)
        return outputs


class InputLayer(nn.Sequential):
    """Linear map of selected voxels, LayerNorm and activation.

    Attributes:
        indices: Indices [n] of the selected voxels, or None for all voxels.
    """

    indices: Tensor | None

    def __init__(self, voxels: Sequence[int] | None, *layers: nn.Module) -> None:
        super().__init__(*layers)
        indices = None if voxels is None else torch.tensor(voxels)
        # the spec stores them
        self.register_buffer("indices", indices, persistent=False)

    def forward(self, voxels: Tensor) -> Tensor:
        """Map voxels [B, V] to [B, H]."""
        if self.indices is not None:
            voxels = voxels[:, self.indices]
        return super().forward(voxels)


def _make_blocks(
    config: Config, activation: nn.Module, dropout: float, bias: bool
) -> nn.ModuleList:
    """Make the residual MLPs of a stream."""
    hidden = config.hidden
    return nn.ModuleList(
        nn.Sequential(
            *_layers.make_dense_layers(hidden, hidden, activation, dropout, bias)
        )
        for _ in range(config.blocks)
    )


def _make_inputs(
    spec: SignalSpec, stream: str, hidden: int, activation: nn.Module, bias: bool
) -> nn.Module:
    """Make the input layers of a stream, by the subject's number.

    Raises:
        BrainhiveError: if voxels are split between streams, and this one has none.
    """
    if stream not in spec.regions and {SPATIAL, SEMANTIC} & spec.regions.keys():
        raise BrainhiveError(
            f"heads of the backbone havir need voxels of {stream}, which "
            "signal.region_split lacks",
            f"name it there: signal.region_split={{{SPATIAL}: …, {SEMANTIC}: …}}",
        )

    # without a split every stream reads all voxels
    layers = []
    for index, width in enumerate(spec.widths):
        voxels = spec.regions[stream][index] if stream in spec.regions else None
        n_voxels = width if voxels is None else len(voxels)
        # all subjects share the dropout of the stream
        linear, norm, activation, _ = _layers.make_dense_layers(
            n_voxels, hidden, activation, 0.0, bias
        )
        layers.append(InputLayer(voxels, linear, norm, activation))
    return _layers.BySubject("havir", spec, layers)


def _check_heads(heads: Heads, projector: int) -> None:
    """Raise an error for heads that neither stream can predict."""
    if _layers.MAPS in heads and LATENT not in heads:
        raise BrainhiveError(
            f"the head maps comes with the head {LATENT}", f"add the head {LATENT}"
        )

    for name in heads:
        if not name.endswith(PROJECTED):
            continue
        source = name.removesuffix(PROJECTED)
        has_source = source in heads and heads[source].shape == heads[name].shape
        if projector == 0 or not has_source:
            raise BrainhiveError(
                f"the head {name} is of a projector, on a head {source} of its shape",
                f"a head {source} that predicts the same, and backbone.projector "
                "above 0",
            )
