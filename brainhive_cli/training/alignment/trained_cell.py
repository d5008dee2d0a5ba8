"""One cell of an align run with its model: signals to heads, signals and pictures to comparable vectors."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.signal_stores import open_signals
from brainhive_cli.data.signals.normalisation import Normaliser
from brainhive_cli.data.signals.section import Signal
from brainhive_cli.data.signals.selection import Selection, sample_range
from brainhive_cli.data.stores.recordings import Recording
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.encoder_keys import match_keys
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.data.trials import Trials, open_trials, select_trials
from brainhive_cli.models.heads import Decoded, refuse_other_target
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.identity import digest_of
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.trained import AlignRun
from brainhive_cli.training.alignment.transfer import match_recording

SIGNALS, PICTURES = 4000, 8192
"""How many are encoded at once; signals a multiple of 20, the batches that NEURONS' weights were read in."""


@dataclass(frozen=True)
class Member:
    """A cell of a run, its model loaded."""

    align: AlignRun
    cell: Cell
    model: Aligner

    @classmethod
    def load(cls, align: AlignRun, cell: Cell, device: torch.device, head: str | None = None) -> Self:
        """Load the model; with a head's name it is compared by that head.

        Raises:
            RecipeError: if it has no such head.
        """
        model = align.model(cell, device)
        if head is not None:
            model.layout = replace(model.layout, retrieval_heads=(head,))
            model.layout.check()
        return cls(align, cell, model)

    def pictures(self, split: str) -> TargetStore:
        """Open one of the target stores; all have the same rows."""
        return next(iter(self.align.stores(split, self.cell).values()))

    def images(self, split: str, rows: NDArray[np.int64], without: str = "") -> Tensor:
        """Encode the pictures of some rows as the vectors [M, D] that retrieval compares.

        Args:
            split: Whose pictures.
            rows: Which of them.
            without: Key of an embedding that is replaced by its mean over these pictures.

        Raises:
            BrainhiveError: if a head predicts embeddings of other weights than a store has.
        """
        stores, layout = self.align.stores(split, self.cell), self.model.layout
        keys = layout.encoders
        if not stores.keys() <= keys.keys():  # BrainHiVE's own folders know encoders by its names for them
            encoders, _ = self.align.made_with[self.cell.variant]
            keys = match_keys(encoders, layout.dims, f"the model {self.align.folder.path}")
        stores = {name: store for name, store in stores.items() if keys[name] in layout.compared_keys}
        for name, head in layout.heads.items():
            for store in (store for store_name, store in stores.items() if keys[store_name] == head.target):
                refuse_other_target(name, head, digest_of(store), str(store.path))
        targets, tokens = Targets.of(stores, Launch(0, 1, self.model.device), keys, hold=False), []
        if without:
            mean = targets.sources[without].gather(rows).mean(0)
        for part in np.array_split(rows, max(1, -(-len(rows) // PICTURES))):
            with torch.inference_mode():
                given = targets.gather(part)
                if without:
                    given[without] = mean.expand_as(given[without])
                tokens.append(self.model.encode_image(given).float())
        return torch.cat(tokens)

    def decoded(self, subject: int, split: str) -> tuple[Decoded, NDArray[np.int64]]:
        """Decode a subject's averaged signals, once: answers that are sampled are then the same for everyone.

        Returns:
            Heads [N, *shape], and the row of each one's picture [N].
        """
        trials = self.averaged(subject, split)
        ids = self.pictures(split).image_ids[trials.stimulus]
        found: Decoded = self.align.once(
            ("decoded", self.cell.name, str(subject), split),
            lambda: self._decode(subject, np.asarray(trials.signal), ids),
        )
        return found, trials.stimulus

    def _decode(self, subject: int, signal: NDArray[np.float32], ids: Sequence[str]) -> Decoded:
        seeds = [derive_seed(self.cell.seed, zlib.crc32(each.encode())) for each in ids]
        parts = []
        for start in range(0, len(signal), SIGNALS):
            part = torch.from_numpy(signal[start : start + SIGNALS]).to(self.model.device)
            index = self.index(subject, len(part))
            parts.append(self.model.decode(part, index, seeds[start : start + SIGNALS]).float())
        return Decoded.join(parts)

    def tokens(self, subject: int, split: str) -> tuple[Tensor, NDArray[np.int64]]:
        """Encode a subject's averaged signals: vectors [N, D], and the row of each one's picture [N]."""
        trials = self.averaged(subject, split)
        return self.encode(subject, torch.from_numpy(trials.signal)), trials.stimulus

    def encode(self, subject: int, signal: Tensor) -> Tensor:
        """Encode a subject's signals [N, C, T] as the vectors [N, D] that retrieval compares."""
        tokens = []
        with torch.inference_mode():
            for part in signal.split(SIGNALS):
                index = self.index(subject, len(part))
                tokens.append(self.model.encode_signal(part.to(self.model.device), index).float())
        return torch.cat(tokens)

    def predicted(self, subject: int, signal: Tensor) -> dict[str, Tensor]:
        """Predict the heads of a subject's signals [N, C, T], float32 [N, *shape]; nothing is sampled."""
        with torch.inference_mode():
            index = self.index(subject, len(signal))
            found = self.model.predict(signal.to(self.model.device), index)
            return {head: values.float() for head, values in found.items()}

    def index(self, subject: int, count: int) -> Tensor | None:
        """Give the subject index of signals [N]; None for a subject who was not trained on."""
        known = self.model.layout.spec.subjects
        if subject not in known or self.align.are_strangers:
            return None
        return torch.full((count,), known.index(subject), device=self.model.device)

    def averaged(self, subject: int, split: str) -> Trials:
        """Open the signals that a subject is tested on, repetitions averaged; kept for the cells that follow.

        Those of pictures that were seen in training, validation included, are left out.

        Raises:
            BrainhiveError: if these are too many.
        """
        key = self.key("trials", subject, split)
        trials: Trials = self.align.once(key, lambda: self._tested(subject, split))
        return trials

    def recorded(self, recording: Recording, subject: int, split: str) -> Trials:
        """Average the repetitions of a recording that no store holds; its pictures are those of a split.

        Those of pictures that were seen in training are left out, as `averaged` does.

        Raises:
            BrainhiveError: if the recording is not what the model takes, or too many pictures were seen.
        """
        where = f"the recording of subject {subject}"
        spec, (_, signal) = self.model.layout.spec, self.align.made_with[self.cell.variant]
        signal, channels = match_recording(spec, recording, signal, self.align.dataset.channels, where)
        return self._unseen(
            subject, split, self._opened(subject, split, signal, channels, recording=recording)
        )

    def training(self, subject: int) -> Trials:
        """Open a subject's training signals, repetitions averaged; they are not kept."""
        return self._trials(subject, "train")

    def shown(self, subject: int, split: str) -> NDArray[np.int64]:
        """Find the rows of all pictures that a subject was shown, those that are left out included."""
        key = self.key("shown", subject, split)
        rows: NDArray[np.int64] = self.align.once(key, lambda: np.unique(self._selection(subject, split)[1]))
        return rows

    def mean_training_signal(self, subject: int) -> NDArray[np.float32]:
        """Average a subject's training signals over pictures: [C, T]; kept for the cells that follow."""
        key = self.key("mean", subject, "train")
        mean: NDArray[np.float32] = self.align.once(
            key, lambda: np.asarray(self.training(subject).signal).mean(0)
        )
        return mean

    def with_single(self, subject: int, split: str) -> Trials:
        """Open the signals that a subject is tested on, as `averaged` does, with their single trials."""
        return self._tested(subject, split, with_single=True)

    def _tested(self, subject: int, split: str, with_single: bool = False) -> Trials:
        return self._unseen(subject, split, self._trials(subject, split, with_single))

    def _unseen(self, subject: int, split: str, trials: Trials) -> Trials:
        unseen = self._are_unseen(subject, split, trials.stimulus)
        return trials if unseen.all() else trials.take(np.flatnonzero(unseen))

    def _are_unseen(self, subject: int, split: str, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Find the signals [N] of pictures that no model which is tested on the subject learned from.

        Whatever tests a model asks here: no result is of a picture that was seen in training.
        """
        tested = self.align.tested_pictures(split)
        unseen = tested.are_unseen(subject, rows, f"{self.align.folder.path}, {self.cell.name},")
        self.align.once(("warned of pictures", split), lambda: [*map(console.warn, tested.warnings)])
        return unseen

    def times_ms(self, subject: int, split: str) -> NDArray[np.floating[Any]]:
        """Return the times of the samples of a subject's signals, milliseconds after stimulus onset: [T]."""
        signal, _ = self._taken(subject, split)
        times_s = open_signals(self.align.dataset, self.align.paths, signal, subject)[split].times_s
        return 1000 * times_s[sample_range(times_s, signal.window_ms)]

    def _trials(self, subject: int, split: str, with_single: bool = False) -> Trials:
        return self._opened(subject, split, *self._taken(subject, split), with_single=with_single)

    def _opened(
        self, subject: int, split: str, signal: Signal, channels: Sequence[str], **more: Any
    ) -> Trials:
        given = (self.align.dataset, self.align.paths, signal, subject, split)
        trials = open_trials(*given, self.pictures(split), channels, self._normaliser(subject), **more)
        if not self.align.are_strangers:
            where = f"{self.align.dataset.name} subject {subject} {split}"
            width = trials.signal.shape[-2]
            self.model.layout.spec.refuse_other_voxels(subject, width, trials.regions, where)
        return trials

    def selection(self, subject: int, split: str) -> tuple[Selection, NDArray[np.int64]]:
        """Choose what the model reads of a recording that it is tested on, as `averaged` does.

        Returns:
            The selection, of which nothing is averaged yet, and the rows of its pictures [N].
        """
        selection, rows = self._selection(subject, split)
        unseen = self._are_unseen(subject, split, rows)
        return replace(selection, pictures=selection.pictures[unseen]), rows[unseen]

    def training_selection(self, subject: int) -> tuple[Selection, NDArray[np.int64]]:
        """Choose what the model reads of a subject's training signals, likewise."""
        return self._selection(subject, "train")

    def _selection(self, subject: int, split: str) -> tuple[Selection, NDArray[np.int64]]:
        signal, channels = self._taken(subject, split)
        given = (self.align.dataset, self.align.paths, signal, subject, split)
        found, stimulus, _ = select_trials(*given, self.pictures(split), channels, self._normaliser(subject))
        return found, stimulus

    def _normaliser(self, subject: int) -> Normaliser | None:
        """Return what normalises a subject's signals; None: the subject's own training signals do."""
        learned = self.model.learned
        return learned.normaliser if self.align.are_strangers else learned.normaliser_of(subject)

    def _taken(self, subject: int, split: str) -> tuple[Signal, tuple[str, ...]]:
        """Return the window and the like, and the channels, that the model takes of a recording."""
        spec, (_, signal) = self.model.layout.spec, self.align.made_with[self.cell.variant]
        if self.align.origin is None:
            return signal, spec.names
        dataset, where = self.align.dataset, f"{self.align.dataset.name} subject {subject}"
        recording = open_signals(dataset, self.align.paths, signal, subject)[split]
        return match_recording(spec, recording, signal, dataset.channels, where)

    def key(self, what: str, subject: int, split: str) -> tuple[str, ...]:
        """Name something computed from a subject's signals, to keep it for cells that take the same ones."""
        signal = self.align.made_with[self.cell.variant][1]
        own = self.cell.name if self._normaliser(subject) else ""  # which no other cell shares
        return (what, str(subject), split, *self.model.layout.spec.names, signal.model_dump_json(), own)
