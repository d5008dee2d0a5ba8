"""Aligner: a backbone that predicts heads, and a fuser that makes their targets."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainhive_cli.core.base import BrainhiveError, RecipeError
from brainhive_cli.core.files import documents
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.runs import weights
from brainhive_cli.data.stores import TrainingHistory
from brainhive_cli.models import (
    CHANNEL_MIXING,
    Adapter,
    ChannelMixing,
    backbones,
    check_signal,
    fusers,
    heads as outputs,
)
from brainhive_cli.models.backbones import Tensors
from brainhive_cli.training.alignment import layout as layouts
from brainhive_cli.training.alignment.model_files import (
    DAMAGE_HINT,
    WEIGHT_FILES,
    find_weights,
    read_config,
)

LOSS_PREFIX = "losses."
"""Prefix of the learned parameters of losses among the weights of a folder."""


class MapsSignals(Protocol):
    """Fuser that also maps the output of the backbone, such as a linear map."""

    def of_signal(self, predicted: Tensor) -> Tensor:
        """Map outputs of the backbone [B, D'] to tokens [B, D]."""


class Aligner(nn.Module):
    """Model that predicts heads from signals, and makes their targets from embeddings.

    Args:
        layout: Architecture of the model.
        learned: Training history of the model, if it is known.

    Attributes:
        losses: Learned parameters of the losses, such as `0.logit_scale` of the first.

    Raises:
        RecipeError: if there is no such part, subject layer, similarity or head.
        BrainhiveError: if the parts do not fit each other, or the window is too short
            for the backbone.
    """

    scale: Tensor

    def __init__(
        self, layout: layouts.Layout, learned: TrainingHistory | None = None
    ) -> None:
        super().__init__()
        layout.check()
        self.layout = layout
        self.learned = learned or TrainingHistory()
        self.losses: Tensors = {}

        # the order of construction decides the initial weights
        spec = layout.spec
        scale = torch.tensor(spec.scale or (1.0,))[:, None]
        self.register_buffer("scale", scale, persistent=False)
        self.subject_layer: ChannelMixing | None = None
        if layout.subject_layer == CHANNEL_MIXING:
            self.subject_layer = ChannelMixing(len(spec.subjects), spec.channels)

        # a fuser that maps signals has another input width than the head
        fuser = parts.resolve("fusers", layout.fuser) if layout.fused_heads else None
        self.backbone_heads: outputs.Heads = dict(layout.heads)
        signal_width = fuser.signal_width if fuser is not None else None
        if signal_width:
            for name, head in layout.fused_heads.items():
                shape = (*head.shape[:-1], signal_width)
                self.backbone_heads[name] = replace(head, shape=shape)
        self.backbone = backbones.build(
            layout.backbone_config, spec, self.backbone_heads
        )

        self.fuser: nn.Module | None = None
        if fuser is not None:
            dim = next(iter(layout.fused_heads.values())).shape[-1]
            self.takes_subjects = fuser.takes_subjects
            self.fuser = fusers.build_fuser(fuser, layout.dims, dim, len(spec.subjects))

        # mean training target [*shape] of each head
        self.means = nn.ParameterDict()
        if layout.similarity == layouts.FROM_MEAN:
            for name, head in layout.heads.items():
                zeros = torch.zeros(head.shape)
                self.means[name] = nn.Parameter(zeros, requires_grad=False)

        # last, so that a model with an adapter has the same other weights
        self.adapter: Adapter | None = None
        if layout.adapter:
            self.adapter = Adapter(
                layout.adapter["maps"], layout.adapter["rank"], layout.adapter["alpha"]
            )

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    def make_subject_index(self, subject: int | None, count: int) -> Tensor | None:
        """Return the subject index [count] of the signals of a training subject.

        Returns None for other subjects, and for an unknown subject (None).
        """
        subjects = self.layout.spec.subjects
        if subject not in subjects:
            return None
        return torch.full((count,), subjects.index(subject), device=self.device)

    def predict(
        self,
        signal: Tensor,
        subject_index: Tensor | None = None,
        names: Sequence[str] | None = None,
    ) -> Tensors:
        """Predict heads from signals.

        Args:
            signal: Signals [B, C, T].
            subject_index: Positions [B] of the subjects in `layout.spec.subjects`, or
                None for a subject who is not a training subject.
            names: Heads that are needed, by default all. Others may be left out.

        Returns:
            Predictions [B, *shape], keyed by head.

        Raises:
            BrainhiveError: if the signals have another size.
        """
        inputs = self._apply_subject_layer(signal, subject_index)
        predicted = backbones.predict(
            self.backbone, self.backbone_heads, inputs, subject_index, names
        )
        return self._map_signals(predicted)

    def learn(
        self,
        signal: Tensor,
        subject_index: Tensor,
        targets: Mapping[str, Tensor],
        context: Any,
    ) -> tuple[Tensors, Tensors]:
        """Predict heads in a training step.

        Args:
            signal: Signals [B, C, T].
            subject_index: Positions [B] of the subjects in `layout.spec.subjects`.
            targets: Targets [B, *shape], keyed by head.
            context: Step and epoch of the training.

        Returns:
            Predictions, and the targets, some of which the backbone may replace.
        """
        inputs = self._apply_subject_layer(signal, subject_index)
        predicted, new_targets = backbones.learn(
            self.backbone,
            self.backbone_heads,
            inputs,
            subject_index,
            targets,
            context,
        )
        return self._map_signals(predicted), {**targets, **new_targets}

    def decode(
        self, signal: Tensor, subject_index: Tensor | None, seeds: Sequence[int]
    ) -> outputs.Decoded:
        """Decode signals [B, C, T] as heads [B, *shape], without gradients.

        `seeds` has a seed for each signal, for backbones that sample their outputs.
        """
        inputs = self._apply_subject_layer(signal, subject_index)
        decoded = backbones.decode(
            self.backbone, self.backbone_heads, inputs, subject_index, seeds
        )
        with torch.inference_mode():
            return replace(decoded, tensors=self._map_signals(decoded.tensors))

    def _map_signals(self, predicted: Tensors) -> Tensors:
        """Apply the fuser's map of signals, if it has one, to the fused head."""
        if not hasattr(self.fuser, "of_signal"):
            return predicted
        fuser = cast(MapsSignals, self.fuser)
        heads = [head for head in self.layout.fused_heads if head in predicted]
        return predicted | {head: fuser.of_signal(predicted[head]) for head in heads}

    def compute_targets(
        self, embeddings: Mapping[str, Tensor], subject_index: Tensor | None = None
    ) -> Tensors:
        """Compute the targets of heads from embeddings.

        Args:
            embeddings: Embeddings [B, *shape], keyed by their key.
            subject_index: Positions [B] of the subjects in `layout.spec.subjects`, for
                fusers that learn weights of each subject. None for all subjects.

        Returns:
            Targets [B, *shape], keyed by head. Heads without an embedding are left out.

        Raises:
            BrainhiveError: if an embedding has another shape than its head.
        """
        # targets that are embeddings
        heads = self.layout.heads
        head_targets = {
            name: embeddings[head.target]
            for name, head in heads.items()
            if head.target in embeddings
        }

        # the target that the fuser makes of the other embeddings
        unfused_keys = {head.target for head in heads.values()} - set(self.layout.dims)
        to_fuse = {
            key: embedding
            for key, embedding in embeddings.items()
            if key not in unfused_keys
        }
        if self.fuser is not None and to_fuse:
            fused_targets = {}
            for name in self.layout.fused_heads:
                if self.takes_subjects:
                    fused_targets[name] = self.fuser(to_fuse, subject_index)
                else:
                    fused_targets[name] = self.fuser(to_fuse)
            n_items = len(next(iter(to_fuse.values())))
            outputs.check_outputs(
                fused_targets, self.layout.fused_heads, "the fuser", self.fuser, n_items
            )
            head_targets |= fused_targets

        # check the shapes, and return the targets in the order of the heads
        outputs.check_outputs(
            head_targets, {name: heads[name] for name in head_targets}, "the target"
        )
        return {name: head_targets[name] for name in heads if name in head_targets}

    def encode_signal(
        self, signal: Tensor, subject_index: Tensor | None = None
    ) -> Tensor:
        """Encode signals [B, C, T] as the vectors [B, D] that retrieval compares.

        `subject_index` has positions [B] in `layout.spec.subjects`, None if unknown.

        Raises:
            BrainhiveError: if the signals have another size.
        """
        heads = self.predict(signal, subject_index, self.layout.compared_heads)
        return self.join_heads(heads)

    def encode_image(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        """Encode pictures as the vectors [B, D] that retrieval compares.

        `embeddings` are [B, *shape], keyed by their key.
        """
        return self.join_heads(self.compute_targets(embeddings))

    def join_heads(self, values: Mapping[str, Tensor]) -> Tensor:
        """Join heads or their targets as the vectors [B, D] that retrieval compares.

        The cosine of two joined vectors is the mean of the cosines of the heads.

        Raises:
            BrainhiveError: if one of the heads is missing.
        """
        vectors = []
        is_centred = self.layout.similarity == "centred_cosine"
        for head in self.layout.compared_heads:
            if head not in values:
                raise BrainhiveError(
                    f"retrieval needs values of the head {head}, but has only those of "
                    f"{', '.join(values) or 'no head'}",
                    f"add the embeddings of {self.layout.heads[head].target}",
                )
            value = values[head]
            if head in self.means:
                value = value - self.means[head]
            vectors.append(outputs.flatten_vectors(value, is_centred))
        if len(vectors) == 1:
            return vectors[0]
        unit_vectors = [F.normalize(vector.float(), dim=-1) for vector in vectors]
        return torch.cat(unit_vectors, -1)

    def _apply_subject_layer(
        self, signal: Tensor, subject_index: Tensor | None
    ) -> Tensor:
        """Check the size of signals [B, C, T], scale them, and mix their channels."""
        # voxels need the number of a training subject. `check_signal` tests sensors.
        spec = self.layout.spec
        widths = spec.widths or (spec.channels,)
        is_batch = signal.ndim == 3
        has_trained_width = is_batch and signal.shape[1] in widths
        has_voxels = not spec.names
        if is_batch and has_voxels and not has_trained_width and subject_index is None:
            raise BrainhiveError(
                f"the signals have {signal.shape[1]} voxels, but the training subjects "
                f"({', '.join(map(str, spec.subjects))}) have "
                f"{', '.join(map(str, widths))}",
                "fine-tune the model to the new subject first: mode=finetune",
            )
        width = signal.shape[1] if has_trained_width else max(widths)
        check_signal(signal, width, spec.samples)
        signal = self.scale_signal(signal)
        if self.subject_layer is not None:
            signal = self.subject_layer(signal, subject_index)
        return signal

    def scale_signal(self, signal: Tensor) -> Tensor:
        """Multiply signals [B, C, T] by the factors of `layout.spec.scale`."""
        return signal * self.scale if self.layout.spec.scale else signal

    def save(self, folder: Path) -> None:
        """Write `config.json`, `model.safetensors` and `learned.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = self.state_dict()
        tensors |= {f"{LOSS_PREFIX}{name}": self.losses[name] for name in self.losses}
        weights_file = folder / WEIGHT_FILES[0]
        weights.save(weights_file, tensors)

        # after the weights, because the history has their digest
        config = self.layout.as_dict()
        config["learned"] = self.learned.save(folder, weights_file)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def load(path: Path | str) -> Aligner:
    """Load an aligner from a model folder, or from a checkpoint of MindEye or NEURONS.

    Folders of BrainHiVE name no channels, window, subjects or training data. Their
    channels are called 0, 1, …

    Raises:
        MissingData: if the folder lacks a file.
        BrainhiveError: if a file is damaged, has another format, or the weights do not
            fit the config.
        RecipeError: if `path` is not a path.
    """
    # a recipe may hold any value
    if not isinstance(path, str | Path):
        raise RecipeError(
            f"{documents.show_value(path)} is not the path of a model folder",
            "runs/train-align/NAME/cells/CELL/model",
        )
    folder = Path(path)
    if layouts.is_checkpoint(folder):
        layout, state = layouts.read_checkpoint(folder)
        aligner = Aligner(layout, layouts.describe_history(folder))
        weights.fill(aligner, state, folder)
        return aligner.eval()

    # model folders of this project and of BrainHiVE
    file = find_weights(folder)
    fields, history = read_config(folder)
    state = weights.read(file, DAMAGE_HINT, BrainhiveError)
    with weights.reading(f"the model folder {folder}", DAMAGE_HINT, BrainhiveError):
        if layouts.is_upstream(state):
            layout, state = layouts.read_upstream(fields, state)
        else:
            config_file = str(folder / "config.json")
            layout = documents.check(fields, config_file, layouts.Layout, DAMAGE_HINT)
        aligner = Aligner(layout, history)

        # learned parameters of losses are not weights of the aligner
        for name in list(state):
            if name.startswith(LOSS_PREFIX):
                aligner.losses[name.removeprefix(LOSS_PREFIX)] = state.pop(name)
        weights.fill(aligner, state, file, DAMAGE_HINT)
        return aligner.eval()
