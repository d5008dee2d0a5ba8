"""HAVIR: structure from early visual voxels and meaning from higher ones, decoded apart."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models import signal_shape
from brainhive_cli.models.backbones._residual import layers
from brainhive_cli.models.backbones._semantic import PROJECTED, SemanticExtractor
from brainhive_cli.models.backbones._structural import LATENT, MAPS, StructuralGenerator
from brainhive_cli.models.blocks import Dropout
from brainhive_cli.models.heads import Heads
from brainhive_cli.models.signal_spec import SignalSpec

SPATIAL, SEMANTIC = "spatial", "semantic"
"""Sets of `signal.region_split` that the two streams read; without them both read all voxels."""
Size = Annotated[int, Field(gt=0, le=2**16)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Config(parts.Config):
    """HAVIR (arXiv 2510.03122), whose networks are MindEye1's (arXiv 2305.18274); for voxels [B, V, 1].

    The head `latent` [C, H, W] is the Structural Generator's, also `maps` [S, D]; all others are the Semantic
    Extractor's, tokens [S, D] or vectors. A head `NAME_projected`, of the shape of the head NAME, is what a
    projector makes of NAME's tokens; where it is no head it is still there in training, for loss terms.
    Defaults are MindEye1's; with `hidden` 1024, and `head_rank`, a model needs much less memory.
    """

    takes_spec: ClassVar[bool] = True
    streams: ClassVar[tuple[str, ...]] = (SPATIAL, SEMANTIC)

    hidden: Size = Field(4096, description="Width of the residual MLPs.")
    blocks: int = Field(4, ge=0, le=1_000, description="Residual MLPs in each stream.")
    head_rank: Size | None = Field(
        None, description="Rank of the maps to the Semantic Extractor's heads; default: full."
    )
    projector: int = Field(2048, ge=0, le=2**16, description="Width of the projectors; 0: there are none.")
    features: Size = Field(64, description="Feature maps that the Structural Generator upsamples.")
    decoder_channels: Annotated[tuple[Size, ...], Field(min_length=1, max_length=10)] = Field(
        (64, 128, 256), description="Channels of its decoder, from the output; all but one double the size."
    )
    decoder_layers: int = Field(1, gt=0, le=1_000, description="Layers a block of the decoder.")
    decoder_groups: Size = Field(32, description="Groups of the decoder's normalisations.")
    input_dropout: Share = Field(0.5, description="Probability of dropping a unit after the input layers.")
    structural_dropout: Share = Field(0.25, description="The same in the Structural Generator.")
    semantic_dropout: Share = Field(0.15, description="The same in the Semantic Extractor.")

    @model_validator(mode="after")
    def _groups_divide_channels(self) -> Self:
        if odd := [each for each in self.decoder_channels if each % self.decoder_groups]:
            raise ValueError(
                f"decoder_groups {self.decoder_groups} does not divide decoder_channels {odd[0]}"
            )
        return self

    def build(self, spec: SignalSpec, heads: Heads) -> "Havir":
        """Make the model for voxels of these subjects, and the streams that the heads need."""
        return Havir(self, spec, heads)


TINY = Config(
    hidden=8, blocks=1, projector=8, features=8, decoder_channels=(8, 8), decoder_groups=4, head_rank=4
)


class Havir(nn.Module):
    """For each stream an input layer a subject, which reads its region, and what all subjects share.

    Attributes:
        inputs: Input layers by stream and by the subject's number; a new subject learns these alone.

    Raises:
        BrainhiveError: if the signals are no voxels, or the regions or the heads do not go with the streams.
    """

    def __init__(self, config: Config, spec: SignalSpec, heads: Heads) -> None:
        super().__init__()
        if spec.names or spec.samples != 1:
            raise BrainhiveError(
                f"the backbone havir takes voxels, not signals of {spec.samples} samples", "another backbone"
            )
        _check(heads, config.projector)
        self.spec = spec
        self.projected = {name for name in heads if name.endswith(PROJECTED)}
        own = {name: head for name, head in heads.items() if name in (LATENT, MAPS)}
        plain = {name: head for name, head in heads.items() if name not in {*own, *self.projected}}
        hidden, blocks = config.hidden, config.blocks
        self.structural, self.semantic = None, None
        self.inputs, self.dropout = nn.ModuleDict(), Dropout(config.input_dropout)
        if own:
            decoder = (config.decoder_channels, config.decoder_layers, config.decoder_groups)
            given = (own, hidden, blocks, config.structural_dropout, config.features, *decoder)
            self.structural = StructuralGenerator(*given)
            self.inputs[SPATIAL] = _inputs(spec, SPATIAL, hidden, nn.SiLU(), bias=False)
        if plain:
            sizes = (config.semantic_dropout, config.head_rank, config.projector)
            self.semantic = SemanticExtractor(plain, hidden, blocks, *sizes)
            self.inputs[SEMANTIC] = _inputs(spec, SEMANTIC, hidden, nn.GELU(), bias=True)

    def forward(self, signal: Tensor, subject_index: Tensor | None) -> dict[str, Tensor]:
        """Predict the heads from voxels [B, V, 1] of subjects [B], all of one width."""
        return self._predict(signal, subject_index, self.projected)

    def learn(
        self, signal: Tensor, subject_index: Tensor, targets: Mapping[str, Tensor], context: Any
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Predict the heads, and also those tokens through their projectors that are no heads."""
        return self._predict(signal, subject_index, None), {}

    def _predict(
        self, signal: Tensor, subject_index: Tensor | None, projected: set[str] | None
    ) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        if self.structural is not None:
            found |= self.structural(self._entered(SPATIAL, signal, subject_index))
        if self.semantic is not None:
            found |= self.semantic(self._entered(SEMANTIC, signal, subject_index), projected)
        return found

    def _entered(self, stream: str, signal: Tensor, subject_index: Tensor | None) -> Tensor:
        """Pass voxels through the input layers of their subjects: [B, H]."""
        if subject_index is None:
            known = ", ".join(map(str, self.spec.subjects))
            raise BrainhiveError(
                f"the backbone havir has input layers of subject {known} alone",
                "fine-tune the model to the other subject first: mode=finetune",
            )
        if len(self.spec.subjects) == 1:
            return self.dropout(self._of_subject(stream, signal, 0))
        order = subject_index.argsort(stable=True)
        parts = signal[order].split(subject_index.bincount().tolist())  # by the subject's place
        found = [self._of_subject(stream, part, place) for place, part in enumerate(parts) if len(part)]
        return self.dropout(torch.cat(found)[order.argsort()])

    def _of_subject(self, stream: str, signal: Tensor, place: int) -> Tensor:
        signal_shape.check(signal, self.spec.widths[place], 1)
        found: Tensor = self.get_submodule(f"inputs.{stream}.{self.spec.subjects[place]}")(signal)
        return found


class InputLayer(nn.Sequential):
    """Linear map of some voxels, LayerNorm, activation.

    Attributes:
        places: [n] which of the V voxels; None for all.
    """

    places: Tensor | None

    def __init__(self, places: Sequence[int] | None, *layers: nn.Module) -> None:
        super().__init__(*layers)
        chosen = None if places is None else torch.tensor(places)
        self.register_buffer("places", chosen, persistent=False)  # the spec holds them

    def forward(self, signal: Tensor) -> Tensor:
        """Map voxels [B, V, 1] to [B, H]."""
        voxels = signal[..., 0]
        return super().forward(voxels if self.places is None else voxels[:, self.places])


def _inputs(spec: SignalSpec, stream: str, hidden: int, activation: nn.Module, bias: bool) -> nn.ModuleDict:
    """Make the input layers of a stream, by the subject's number.

    Raises:
        BrainhiveError: if voxels are split among streams, and none are for this one.
    """
    if stream not in spec.regions and {SPATIAL, SEMANTIC} & spec.regions.keys():
        raise BrainhiveError(
            f"heads of the backbone havir need voxels of {stream}, which signal.region_split lacks",
            f"name it there: signal.region_split={{{SPATIAL}: …, {SEMANTIC}: …}}",
        )
    made = {}
    for place, (subject, width) in enumerate(zip(spec.subjects, spec.widths, strict=True)):
        places = spec.regions[stream][place] if stream in spec.regions else None
        count = width if places is None else len(places)
        made[str(subject)] = InputLayer(places, *layers(count, hidden, activation, 0.0, bias)[:-1])
    return nn.ModuleDict(made)


def _check(heads: Heads, projector: int) -> None:
    """Refuse heads that neither stream can make."""
    if MAPS in heads and LATENT not in heads:
        raise BrainhiveError(f"the head {MAPS} comes with the head {LATENT}", f"add the head {LATENT}")
    for name in heads:
        source = name.removesuffix(PROJECTED)
        if source != name and not (
            projector and source in heads and heads[source].shape == heads[name].shape
        ):
            raise BrainhiveError(
                f"the head {name} is of a projector, on a head {source} of its shape",
                f"a head {source} that predicts the same, and backbone.projector above 0",
            )
