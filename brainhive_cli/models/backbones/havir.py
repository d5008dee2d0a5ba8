"""HAVIR: structure from early visual voxels and meaning from higher ones, decoded
apart.
"""

from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.backbones import BackboneConfig, _layers
from brainhive_cli.models.blocks import Dropout
from brainhive_cli.models.heads import Heads
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.models.sizes import Share, Width

LATENT = "latent"
"""The head of the Structural Generator, with which `maps` come."""
SPATIAL, SEMANTIC = "spatial", "semantic"
"""Sets of `signal.region_split` that the two streams read; without them both read all
voxels.
"""
PROJECTED = "_projected"
"""After the name of a head: its tokens through the projector, for contrastive losses
and retrieval.
"""


class Config(BackboneConfig):
    """HAVIR (arXiv 2510.03122), whose networks are MindEye1's (arXiv 2305.18274); for
    voxels [B, V, 1].

    The head `latent` [C, H, W] is the Structural Generator's, also `maps` [S, D]; all
    others are the Semantic Extractor's, tokens [S, D] or vectors. A head
    `NAME_projected`, of the shape of the head NAME, is what a projector makes of NAME's
    tokens; where it is no head it is still there in training, for loss terms. Defaults
    are MindEye1's; with `hidden` 1024, and `head_rank`, a model needs much less memory.
    """

    cites = ("zhang2025", "scotti2023")
    takes_spec = True
    streams = (SPATIAL, SEMANTIC)

    hidden: Width = Field(4096, description="Width of the residual MLPs.")
    blocks: int = Field(4, ge=0, le=1_000, description="Residual MLPs in each stream.")
    head_rank: Width | None = Field(
        None,
        description=(
            "Rank of the maps to the Semantic Extractor's heads; default: full."
        ),
    )
    projector: int = Field(
        2048, ge=0, le=2**16, description="Width of the projectors; 0: there are none."
    )
    features: Width = Field(
        64, description="Feature maps that the Structural Generator upsamples."
    )
    decoder_channels: Annotated[
        tuple[Width, ...], Field(min_length=1, max_length=10)
    ] = Field(
        (64, 128, 256),
        description=(
            "Channels of its decoder, from the output; all but one double the size."
        ),
    )
    decoder_layers: int = Field(
        1, gt=0, le=1_000, description="Layers a block of the decoder."
    )
    decoder_groups: Width = Field(
        32, description="Groups of the decoder's normalisations."
    )
    input_dropout: Share = Field(
        0.5, description="Probability of dropping a unit after the input layers."
    )
    structural_dropout: Share = Field(
        0.25, description="The same in the Structural Generator."
    )
    semantic_dropout: Share = Field(
        0.15, description="The same in the Semantic Extractor."
    )

    def build(self, spec: SignalSpec, heads: Heads) -> "Havir":
        """Make the model for voxels of these subjects, and the streams that the heads
        need.
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
    """For each stream an input layer a subject, which reads its region, and what all
    subjects share.

    Attributes:
        inputs: Input layers by stream and by the subject's number; a new subject learns
            these alone.

    Raises:
        BrainhiveError: if the signals are no voxels, or the regions or the heads do not
            go with the streams.
    """

    def __init__(self, config: Config, spec: SignalSpec, heads: Heads) -> None:
        super().__init__()
        _layers.refuse_sensors("havir", spec)
        _check(heads, config.projector)

        # heads of the projectors, of the Structural Generator, and of the Semantic
        # Extractor
        self.projected = {name for name in heads if name.endswith(PROJECTED)}
        structural = {
            name: head for name, head in heads.items() if name in (LATENT, _layers.MAPS)
        }
        semantic = {
            n: head
            for n, head in heads.items()
            if n not in {*structural, *self.projected}
        }

        # the streams that the heads need, with input layers of their own
        hidden = config.hidden
        self.structural = None
        self.semantic = None
        self.inputs = nn.ModuleDict()
        self.dropout = Dropout(config.input_dropout)
        if structural:
            self.structural = StructuralGenerator(config, structural)
            self.inputs[SPATIAL] = _inputs(spec, SPATIAL, hidden, nn.SiLU(), bias=False)
        if semantic:
            self.semantic = SemanticExtractor(config, semantic)
            self.inputs[SEMANTIC] = _inputs(
                spec, SEMANTIC, hidden, nn.GELU(), bias=True
            )

    def forward(
        self, signal: Tensor, subject_index: Tensor | None
    ) -> dict[str, Tensor]:
        """Predict the heads from voxels [B, V, 1] of subjects [B], all of one width."""
        return self._predict(signal, subject_index, self.projected)

    def learn(
        self,
        signal: Tensor,
        subject_index: Tensor,
        targets: Mapping[str, Tensor],
        context: Any,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Predict the heads, and also those tokens through their projectors that are no
        heads.
        """
        return self._predict(signal, subject_index, None), {}

    def _predict(
        self, signal: Tensor, subject_index: Tensor | None, projected: set[str] | None
    ) -> dict[str, Tensor]:
        # each stream through the input layer of its subject
        outputs: dict[str, Tensor] = {}
        if self.structural is not None:
            outputs |= self.structural(
                self.dropout(self.inputs[SPATIAL](signal, subject_index))
            )
        if self.semantic is not None:
            hidden = self.dropout(self.inputs[SEMANTIC](signal, subject_index))
            outputs |= self.semantic(hidden, projected)
        return outputs


class SemanticExtractor(nn.Module):
    """A hidden vector to CLIP's tokens: shared residual MLPs, and for each head a
    linear map and a projector.

    Args:
        config: Sizes.
        heads: Any names; vectors [D] or tokens [S, D].

    Source: BrainNetwork of MindEye1 (arXiv 2305.18274, MIT), which HAVIR (arXiv
    2510.03122) follows.
    """

    def __init__(self, config: Config, heads: Heads) -> None:
        super().__init__()
        hidden = config.hidden
        rank = config.head_rank
        self.shapes = {name: head.shape for name, head in heads.items()}
        # residual MLPs that all heads share
        layers = (hidden, hidden, nn.GELU(), config.semantic_dropout, True)
        self.mlp = nn.ModuleList(
            nn.Sequential(*_layers.make_dense_layers(*layers))
            for _ in range(config.blocks)
        )

        # a linear map for each head, of full or low rank
        self.lin1 = nn.ModuleDict()
        for name, head in heads.items():
            linear = nn.Linear(
                hidden, head.width if rank is None else rank, bias=rank is None
            )
            self.lin1[name] = (
                linear
                if rank is None
                else nn.Sequential(linear, nn.Linear(rank, head.width))
            )

        # a projector for each head: three times LayerNorm, GELU and a linear map
        self.projector = nn.ModuleDict()
        for name, head in heads.items() if config.projector else ():
            widths = (
                head.shape[-1],
                config.projector,
                config.projector,
                head.shape[-1],
            )
            triples = [
                (nn.LayerNorm(a), nn.GELU(), nn.Linear(a, b))
                for a, b in pairwise(widths)
            ]
            self.projector[name] = nn.Sequential(*chain(*triples))

    def forward(
        self, x: Tensor, projected: set[str] | None = None
    ) -> dict[str, Tensor]:
        """Map [B, H] to the heads [B, *shape], and those of `projected` (default: all)
        through projectors.
        """
        for block in self.mlp:
            x = x + block(x)
        # heads [B, *shape], then through projectors those that are asked for
        outputs = {
            name: linear(x).unflatten(1, self.shapes[name])
            for name, linear in self.lin1.items()
        }
        for name, projector in self.projector.items():
            if projected is None or name + PROJECTED in projected:
                outputs[name + PROJECTED] = projector(outputs[name])
        return outputs


class StructuralGenerator(nn.Module):
    """Residual MLPs, a map to feature maps, and a decoder that upsamples them.

    Args:
        config: Sizes.
        heads: `latent` [C, H, W], and `maps` [S, D] where training wants them; S is the
            area of the features.

    Raises:
        BrainhiveError: if the decoder cannot make a latent of that size, or as many
            maps.

    Source: Voxel2StableDiffusionModel of MindEye1 (arXiv 2305.18274, MIT), as HAVIR has
    it.
    """

    def __init__(self, config: Config, heads: Heads) -> None:
        super().__init__()
        hidden = config.hidden
        features = config.features
        channels = config.decoder_channels
        # height and width of the maps that the decoder enlarges
        self.size = _layers.find_map_size(heads, LATENT, 2 ** (len(channels) - 1))
        layers = (hidden, hidden, nn.SiLU(), config.structural_dropout, False)
        self.mlp = nn.ModuleList(
            nn.Sequential(*_layers.make_dense_layers(*layers))
            for _ in range(config.blocks)
        )

        # from a vector to F feature maps, normalised over all of them
        self.lin1 = nn.Linear(
            hidden, features * self.size[0] * self.size[1], bias=False
        )
        self.norm = nn.GroupNorm(1, features)
        self.upsampler = _layers.make_upsampler(
            features,
            heads[LATENT].shape[0],
            channels,
            config.decoder_layers,
            config.decoder_groups,
        )

        # a second head of the same maps, where training wants it
        self.maps_projector = None
        if _layers.MAPS in heads:
            width = heads[_layers.MAPS].shape[-1]
            self.maps_projector = _layers.make_maps_projector(
                features, width, width, width
            )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map [B, H] to the heads."""
        for block in self.mlp:
            x = x + block(x)
        # [B, F, h, w]
        features = self.norm(self.lin1(x).unflatten(1, (-1, *self.size)))
        outputs = {LATENT: self.upsampler(features)}
        if self.maps_projector is not None:
            # [B, S, D]
            outputs[_layers.MAPS] = (
                self.maps_projector(features).flatten(2).transpose(1, 2)
            )
        return outputs


class InputLayer(nn.Sequential):
    """Linear map of selected voxels, LayerNorm, activation.

    Attributes:
        indices: [n] of the V voxels; None for all.
    """

    indices: Tensor | None

    def __init__(self, voxels: Sequence[int] | None, *layers: nn.Module) -> None:
        super().__init__(*layers)
        indices = None if voxels is None else torch.tensor(voxels)
        # the spec holds them
        self.register_buffer("indices", indices, persistent=False)

    def forward(self, voxels: Tensor) -> Tensor:
        """Map voxels [B, V] to [B, H]."""
        return super().forward(
            voxels if self.indices is None else voxels[:, self.indices]
        )


def _inputs(
    spec: SignalSpec, stream: str, hidden: int, activation: nn.Module, bias: bool
) -> nn.Module:
    """Make the input layers of a stream, by the subject's number.

    Raises:
        BrainhiveError: if voxels are split among streams, and none are for this one.
    """
    if stream not in spec.regions and {SPATIAL, SEMANTIC} & spec.regions.keys():
        raise BrainhiveError(
            f"heads of the backbone havir need voxels of {stream}, which "
            "signal.region_split lacks",
            f"name it there: signal.region_split={{{SPATIAL}: …, {SEMANTIC}: …}}",
        )

    # without a split of the voxels every stream reads all of them
    layers = []
    for index, width in enumerate(spec.widths):
        voxels = spec.regions[stream][index] if stream in spec.regions else None
        count = width if voxels is None else len(voxels)
        # without dropout, which follows the input layers of all subjects
        layers.append(
            InputLayer(
                voxels,
                *_layers.make_dense_layers(count, hidden, activation, 0.0, bias)[:-1],
            )
        )
    return _layers.BySubject("havir", spec, layers)


def _check(heads: Heads, projector: int) -> None:
    """Refuse heads that neither stream can make."""
    # maps and latent come from the same feature maps
    if _layers.MAPS in heads and LATENT not in heads:
        raise BrainhiveError(
            f"the head maps comes with the head {LATENT}", f"add the head {LATENT}"
        )

    # a projector changes no shape, and needs tokens of a head to start from
    for name in heads:
        source = name.removesuffix(PROJECTED)
        if source != name and not (
            projector and source in heads and heads[source].shape == heads[name].shape
        ):
            raise BrainhiveError(
                f"the head {name} is of a projector, on a head {source} of its shape",
                f"a head {source} that predicts the same, and backbone.projector "
                "above 0",
            )
