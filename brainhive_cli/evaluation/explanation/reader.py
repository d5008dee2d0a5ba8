"""Signals of one subject as a trained model reads them: similarity of every signal with every picture."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.datasets import alike_of
from brainhive_cli.data.signals.selection import Selection
from brainhive_cli.data.stores.recordings import Sensors
from brainhive_cli.evaluation.explanation.profiles import Labels
from brainhive_cli.evaluation.explanation.sensor_space import SensorSpace, refuse_unknown_whitening
from brainhive_cli.measurement.ranks import ranks_of_all
from brainhive_cli.measurement.units import Items
from brainhive_cli.training.alignment.trained_cell import TrainedCell


@dataclass(frozen=True)
class Reader:
    """A cell's model, one subject's signals, and the pictures among which the seen ones are to be found.

    Attributes:
        selection: What the model reads of the recording.
        rows: [N] picture of each signal in the target stores.
        gallery_rows: [M] rows of the candidates.
        labels: Place of each signal's picture among the candidates, and permutations.
        shared: One list: the pictures that all subjects were shown, and which of them are alike.
    """

    member: TrainedCell
    subject: int
    split: str
    selection: Selection
    rows: NDArray[np.int64]
    gallery_rows: NDArray[np.int64]
    labels: Labels
    shared: Items

    @classmethod
    def open(
        cls, member: TrainedCell, subject: int, split: str, shared: NDArray[np.int64], draws: int, seed: int
    ) -> Self:
        """Open the signals; the labels are permuted alike for all cells and subjects.

        Args:
            member: The cell's model.
            subject: Whose signals.
            split: Which of them.
            shared: [n] rows of the pictures that all subjects were shown.
            draws: Permutations.
            seed: Of the permutations.
        """
        selection, rows = member.selection(subject, split)
        candidates, units = np.flatnonzero(member.pictures(split).done), units_of(member, split, shared)
        right, pictures = np.searchsorted(candidates, rows), np.searchsorted(candidates, shared)
        labels = Labels.of(right, pictures, units, draws, seed)
        return cls(member, subject, split, selection, rows, candidates, labels, units)

    @cached_property
    def gallery(self) -> Tensor:
        """[M, D] the candidates' vectors."""
        return self.member.images(self.split, self.gallery_rows)

    @cached_property
    def signal(self) -> Tensor:
        """[N, C, T] repetitions averaged."""
        return torch.from_numpy(self.member.responses(self.subject, self.split).signal)

    @cached_property
    def baseline(self) -> Tensor:
        """[C, T] the subject's mean training signal, in which no tested picture has a part."""
        return torch.from_numpy(self.member.mean_training_signal(self.subject))

    @cached_property
    def space(self) -> SensorSpace:
        """The same in sensor space, where mixing is undone."""
        learned, _ = self.member.selection(self.subject, "train", is_tested=False)
        return SensorSpace.of(self.selection, learned, self.signal.numpy(), self.baseline.numpy())

    @property
    def times_ms(self) -> NDArray[np.float64]:
        """[T]."""
        return self.selection.times_s * 1000

    @property
    def mixture(self) -> str:
        """Why the sensors whose signals channels are mixtures of are not known; empty where they are."""
        try:
            refuse_unknown_whitening(self.selection.recording)
        except BrainhiveError as error:
            return error.in_one_line
        return ""

    @property
    def sensors(self) -> tuple[str, ...]:
        """[E] sensors whose signals are known, all where whitening is undone; () of voxels and mixtures."""
        recording = self.selection.recording
        if not isinstance(recording.space, Sensors) or self.mixture:
            return ()
        return self.selection.channels if recording.whiteners is None else tuple(recording.space.names)

    @cached_property
    def image_ids(self) -> list[str]:
        """[N] what each signal showed."""
        image_ids = self.member.pictures(self.split).image_ids
        return [image_ids[row] for row in self.rows]

    @property
    def shared_items(self) -> NDArray[np.int64]:
        """[n] the signal that showed each picture of `shared`, in their order."""
        item: dict[Hashable, int] = {name: row for row, name in enumerate(self.image_ids)}
        return np.array([item[name] for name in self.shared.ids[0]], np.int64)

    def ranks(self, signal: Tensor) -> NDArray[np.int64]:
        """Rank every candidate by every signal: [N, M]."""
        return ranks_of_all(self.member.encode(self.subject, signal), self.gallery, len(self.gallery))

    def margins(self, signal: Tensor) -> NDArray[np.float64]:
        """Give the cosine similarity of signals with candidates, less its mean over candidates: [N, M]."""
        return self.margins_of(self.member.encode(self.subject, signal))

    @cached_property
    def whole(self) -> NDArray[np.float64]:
        """[N, M] margins of the signals as they are."""
        return self.margins(self.signal)

    def margins_of(self, tokens: Tensor, gallery: Tensor | None = None) -> NDArray[np.float64]:
        """Do so for tokens [N, D], with candidates [M, D]; those of the gallery by default."""
        candidates = F.normalize(self.gallery if gallery is None else gallery, dim=1)
        cosine = (F.normalize(tokens.to(candidates), dim=1) @ candidates.T).double().cpu().numpy()
        return np.asarray(cosine - cosine.mean(1, keepdims=True))

    def predict(self, signal: Tensor) -> Any:
        """Run the model on signals [B, C, T], with gradients where they are enabled."""
        index = self.member.index(self.subject, len(signal))
        return self.member.model.predict(signal.to(self.member.model.device), index)

    def margin_of(self, signal: Tensor, targets: Tensor) -> Tensor:
        """Compute the margin of signals [B, C, T] with targets [B, D] of unit length, with gradients."""
        model, index = self.member.model, self.member.index(self.subject, len(signal))
        tokens = model.encode_signal(signal.to(model.device), index)
        return (F.normalize(tokens.float(), dim=1) * targets.to(tokens.device)).sum(1)


def units_of(member: TrainedCell, split: str, rows: NDArray[np.int64]) -> Items:
    """Say which of the pictures of some rows [n] are alike: one list, of image ids."""
    store, dataset = member.pictures(split), member.align.dataset
    alike = alike_of(dataset, store.image_ids, store.concepts)
    return alike.items([[store.image_ids[row] for row in rows]])
