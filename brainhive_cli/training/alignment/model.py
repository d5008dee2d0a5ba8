"""Backbone and fuser as one model folder: signals to predictions of heads, embeddings
to their targets.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainhive_cli.core import documents, parts, weights
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.data.stores.learned import TrainingHistory
from brainhive_cli.models import backbones, fusers, heads as outputs
from brainhive_cli.models.blocks import CHANNEL_MIXING, Adapter, ChannelMixing
from brainhive_cli.models.signal_spec import check_signal
from brainhive_cli.training.alignment import layout as layouts
from brainhive_cli.training.alignment.layout import FROM_MEAN, Layout
from brainhive_cli.training.alignment.model_files import (
    DAMAGE_HINT,
    WEIGHT_FILES,
    find_weights,
    read_config,
)

Tensors = dict[str, Tensor]
LOSSES = "losses."
"""Before the names of what losses learned, among a folder's weights."""


class Aligner(nn.Module):
    """Predicts heads from brain signals, and computes their targets from embeddings.

    Args:
        layout: Its architecture.
        learned: Record of its training data; default: not known.

    Attributes:
        losses: Learned parameters of the losses that trained it, as `0.logit_scale` of
            the first.

    Raises:
        RecipeError: if there is no such part, subject layer, similarity or head.
        BrainhiveError: if the parts do not go together, or the window is too short for
            the backbone.
    """

    def __init__(self, layout: Layout, learned: TrainingHistory | None = None) -> None:
        super().__init__()
        layout.check()

        # the order of construction decides the initial weights
        self.layout, self.learned, spec = (
            layout,
            learned or TrainingHistory(),
            layout.spec,
        )
        self.losses: Tensors = {}
        self.subject_layer: ChannelMixing | None = None
        if layout.subject_layer == CHANNEL_MIXING:
            self.subject_layer = ChannelMixing(len(spec.subjects), spec.channels)

        # the fuser may predict its input from signals, so the backbone is built for its
        # width
        fuser = parts.resolve("fusers", layout.fuser) if layout.fused else None
        self.backbone_heads: outputs.Heads = layout.heads
        if width := fuser and fuser.signal_width:
            self.backbone_heads = {**layout.heads} | {
                name: replace(head, shape=(*head.shape[:-1], width))
                for name, head in layout.fused.items()
            }
        self.backbone = backbones.build(
            parts.resolve("backbones", layout.backbone), spec, self.backbone_heads
        )

        # the fuser makes the targets of the fused heads, and has their width
        self.fuser: nn.Module | None = None
        if fuser is not None:
            dim = next(iter(layout.fused.values())).shape[-1]
            self.takes_subjects = fuser.takes_subjects
            self.fuser = fusers.build_fuser(fuser, layout.dims, dim, len(spec.subjects))

        # the mean training target of each head, [*shape], from which vectors differ
        self.means = nn.ParameterDict()
        if layout.similarity == FROM_MEAN:
            for name, head in layout.heads.items():
                zeros = torch.zeros(head.shape)
                self.means[name] = nn.Parameter(zeros, requires_grad=False)

        self.adapter: Adapter | None = None
        # drawn last: a model with one starts from the same weights as one without
        if layout.adapter:
            self.adapter = Adapter(
                *(layout.adapter[key] for key in ("maps", "rank", "alpha"))
            )

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    def index_of(self, subject: int | None, count: int) -> Tensor | None:
        """Give the subject index of a subject's signals [N]; None for a subject who was
        not trained on.
        """
        known = self.layout.spec.subjects
        return (
            torch.full((count,), known.index(subject), device=self.device)
            if subject in known
            else None
        )

    def predict(
        self,
        signal: Tensor,
        subject_index: Tensor | None = None,
        names: Sequence[str] | None = None,
    ) -> Tensors:
        """Predict every head, [B, *shape] by name, from signals [B, C, T] of equal
        width.

        `subject_index` [B] are positions in `layout.spec.subjects`; None is a subject
        not seen in training. Heads that are not among `names` may be left out.

        Raises:
            BrainhiveError: if the signals are of another size.
        """
        checked, heads = self._check_signal(signal, subject_index), self.backbone_heads
        return self._map_signals(
            backbones.predict(self.backbone, heads, checked, subject_index, names)
        )

    def learn(
        self,
        signal: Tensor,
        subject_index: Tensor,
        targets: Mapping[str, Tensor],
        context: Any,
    ) -> tuple[Tensors, Tensors]:
        """Predict for a training step: predictions, and the targets they are compared
        with, by head.
        """
        checked, heads = self._check_signal(signal, subject_index), self.backbone_heads
        predicted, replaced = backbones.learn(
            self.backbone, heads, checked, subject_index, targets, context
        )
        return self._map_signals(predicted), {**targets, **replaced}

    def decode(
        self, signal: Tensor, subject_index: Tensor | None, seeds: Sequence[int]
    ) -> outputs.Decoded:
        """Decode signals [B, C, T], without gradients; where answers are sampled, by
        one seed a signal.
        """
        checked = self._check_signal(signal, subject_index)
        decoded = backbones.decode(
            self.backbone, self.backbone_heads, checked, subject_index, seeds
        )
        with torch.inference_mode():
            return replace(decoded, tensors=self._map_signals(decoded.tensors))

    def _map_signals(self, predicted: Tensors) -> Tensors:
        """Map what the backbone gives for the fused head as the fuser does, if it has a
        map of signals.
        """
        mapping = getattr(self.fuser, "of_signal", None)
        if mapping is None:
            return predicted
        return predicted | {
            head: mapping(predicted[head])
            for head in self.layout.fused
            if head in predicted
        }

    def targets(
        self, embeddings: Mapping[str, Tensor], subject_index: Tensor | None = None
    ) -> Tensors:
        """Compute the targets of heads, [B, *shape] by head, from embeddings [B,
        *shape] by key.

        A head whose embedding is not given is left out. `subject_index` [B] are
        positions in `layout.spec.subjects`, for fusers that learn something of each;
        None is everyone.

        Raises:
            BrainhiveError: if an embedding has another shape than the head that
                predicts it.
        """
        # targets that are embeddings themselves
        heads = self.layout.heads
        head_targets = {
            name: embeddings[head.target]
            for name, head in heads.items()
            if head.target in embeddings
        }
        direct = {head.target for head in heads.values()} - {*self.layout.dims}

        # embeddings of the fuser, which makes one head at most
        to_fuse = {
            key: embedding for key, embedding in embeddings.items() if key not in direct
        }
        if self.fuser is not None and to_fuse:
            subjects = (subject_index,) if self.takes_subjects else ()
            fused = {head: self.fuser(to_fuse, *subjects) for head in self.layout.fused}
            outputs.check_outputs(
                fused,
                self.layout.fused,
                "the fuser",
                self.fuser,
                len(next(iter(to_fuse.values()))),
            )
            head_targets |= fused

        # every target must have the shape of its head
        outputs.check_outputs(
            head_targets, {name: heads[name] for name in head_targets}, "the target"
        )
        return {name: head_targets[name] for name in heads if name in head_targets}

    def encode_signal(
        self, signal: Tensor, subject_index: Tensor | None = None
    ) -> Tensor:
        """Encode signals [B, C, T] of subjects [B] as tokens [B, D]; None is a subject
        not seen in training.

        Raises:
            BrainhiveError: if the signals are of another size.
        """
        return self.join(self.predict(signal, subject_index, self.layout.compared))

    def encode_image(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        """Fuse embeddings, [B, D_encoder] by key, to tokens [B, D]."""
        return self.join(self.targets(embeddings))

    def join(self, values: Mapping[str, Tensor]) -> Tensor:
        """Join the heads that retrieval compares to vectors [B, D], whose cosine is the
        mean of theirs.

        Raises:
            BrainhiveError: if one of them is not there.
        """
        # all compared heads must be there
        if absent := [head for head in self.layout.compared if head not in values]:
            raise BrainhiveError(
                f"retrieval compares the head {absent[0]}, and only "
                f"{', '.join(values)} is given",
                f"give the embeddings of {self.layout.heads[absent[0]].target}",
            )

        # unit vectors of each head, joined: [B, D]
        values = {
            head: value - self.means[head] if head in self.means else value
            for head, value in values.items()
        }
        is_centred = self.layout.similarity == "centred_cosine"
        vectors = [
            outputs.flatten_vectors(values[head], is_centred)
            for head in self.layout.compared
        ]
        if len(vectors) == 1:
            return vectors[0]
        return torch.cat(
            [F.normalize(vector.float(), dim=-1) for vector in vectors], -1
        )

    def _check_signal(self, signal: Tensor, subject_index: Tensor | None) -> Tensor:
        """Check signals [B, C, T], and pass them through what is learned for each
        subject.
        """
        # an unknown subject may have another number of channels, but not of voxels
        spec = self.layout.spec
        widths = spec.widths or (spec.channels,)
        is_known = signal.ndim == 3 and signal.shape[1] in widths
        if (
            signal.ndim == 3
            and not is_known
            and not spec.names
            and subject_index is None
        ):
            raise BrainhiveError(
                f"voxel count {signal.shape[1]} matches no training subject: subject "
                f"{', '.join(map(str, spec.subjects))} with "
                f"{', '.join(map(str, widths))}",
                "fine-tune it to the other subject first: mode=finetune",
            )
        check_signal(signal, signal.shape[1] if is_known else max(widths), spec.samples)
        return (
            signal
            if self.subject_layer is None
            else self.subject_layer(signal, subject_index)
        )

    def save(self, folder: Path) -> None:
        """Write `config.json`, `model.safetensors` and `learned.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)

        # weights and learned parameters of losses in one file
        losses = {f"{LOSSES}{name}": value for name, value in self.losses.items()}
        weights.save(folder / WEIGHT_FILES[0], self.state_dict() | losses)

        # the record of the training data needs the digest of the weights, so it comes
        # second
        config = {
            **self.layout.as_dict(),
            "learned": self.learned.save(folder, folder / WEIGHT_FILES[0]),
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def load(path: Path | str) -> Aligner:
    """Load an aligner from its model folder, or one of upstream's, or a checkpoint of
    MindEye or NEURONS.

    An upstream folder names no channels, window or subjects: channels are called 0, 1,
    …, and encoders by upstream's keys. Such a folder does not record what the model
    learned from.

    Raises:
        MissingData: if the folder lacks a file.
        BrainhiveError: if a file is damaged, the weights do not fit the config, or the
            format is another.
        RecipeError: if it is no path.
    """
    # a value of a recipe, or of the api, may be no path at all
    if not isinstance(path, str | Path):
        raise RecipeError(
            f"{path!r} is no path of a model folder",
            "runs/train-align/NAME/cells/CELL/model",
        )

    # checkpoints of MindEye and NEURONS
    folder = Path(path)
    if layouts.is_checkpoint(folder):
        layout, state = layouts.read_checkpoint(folder)
        aligner = Aligner(layout, layouts.describe_history(folder))
        weights.fill(aligner, state, folder)
        return aligner.eval()

    # model folders of this project and of upstream
    file = find_weights(folder)
    fields, learned = read_config(folder)
    state = weights.read(file, DAMAGE_HINT, BrainhiveError)

    # upstream is known by the names of its weights
    with weights.reading(f"the model folder {folder}", DAMAGE_HINT, BrainhiveError):
        if layouts.is_upstream(state):
            layout, state = layouts.read_upstream(fields, state)
        else:
            layout = documents.check(
                fields, str(folder / "config.json"), Layout, DAMAGE_HINT
            )
        aligner = Aligner(layout, learned)

        # learned parameters of losses are no weights of the aligner
        names = [name for name in state if name.startswith(LOSSES)]
        aligner.losses = {name.removeprefix(LOSSES): state.pop(name) for name in names}
        weights.fill(aligner, state, file, DAMAGE_HINT)
        return aligner.eval()
