"""One cell of an align run with its model: signals to heads, signals and pictures to comparable vectors."""

import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Self

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Bool, Float32, Int64
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.datasets import stored_split, tested_rows
from brainhive_cli.data.model_input import (
    choose_input,
    match_split,
    match_stimuli,
    measure_new_subject,
)
from brainhive_cli.data.signal_stores import SignalSource
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.encoder_groups import EncoderGroup, grouped
from brainhive_cli.data.targets.encoder_keys import match_keys
from brainhive_cli.data.targets.target_stores import digest_of
from brainhive_cli.data.targets.targets import Targets, TargetSource, compute_online
from brainhive_cli.data.trials import Trials
from brainhive_cli.measurement.interleaving import Interleaving, TrialOrder, of_pictures, of_trials
from brainhive_cli.models.heads import Decoded, refuse_other_target
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.trained import AlignRun

SIGNALS, PICTURES = 4000, 8192
"""Numbers encoded at once; signals a multiple of 20, the batches in which NEURONS' weights were read."""


@dataclass(frozen=True)
class TrainedCell:
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

    @property
    def source(self) -> SignalSource:
        """Signals of the cell's fold."""
        return self.align.source(self.cell.variant, self.cell.fold)

    def pictures(self, split: str) -> TargetStore:
        """Open one of the target stores; all have the same rows."""
        return next(iter(self.align.stores(split, self.cell).values()))

    def rows(self, split: str) -> Int64:
        """Find the rows of the pictures of a split that have targets; in the cell's fold.

        A category that no trial shows is none of them.
        """
        store = self.pictures(split)
        is_listed = store.done & tested_rows(self.align.dataset, store, split, self.cell.fold)

        def find_shown() -> Bool:
            # categories [M] that a trial shows, in training or test; all where no signals are here
            people = {person for cell in self.align.cells for person in (*cell.trained_on, *cell.tested_on)}
            is_shown = np.zeros(len(store.image_ids), bool)
            for person, part in product(sorted(people), sorted({split, "train"})):
                with suppress(MissingData):
                    is_shown[match_split(self.source, person, part, store).stimulus] = True

            if not is_shown.any():
                return ~is_shown
            if absent := [store.image_ids[row] for row in np.flatnonzero(~is_shown)]:
                console.warn(f"no trial shows {', '.join(absent)}: left out of the candidates")
            return is_shown

        if self.align.dataset.are_categories:
            is_listed &= self.align.once(("shown categories", split), find_shown)
        return np.flatnonzero(is_listed)

    def images(self, split: str, rows: Int64, without: str = "") -> Tensor:
        """Encode the pictures of some rows as the vectors [M, D] that retrieval compares.

        Args:
            split: Whose pictures.
            rows: Which of them.
            without: Key of an embedding that is replaced by its mean over these pictures.

        Raises:
            BrainhiveError: if a head predicts embeddings of other weights than a store has.
        """
        # keys of the embeddings in the model
        stores, layout = self.align.stores(split, self.cell), self.model.layout
        keys = layout.encoders
        if not stores.keys() <= keys.keys():  # BrainHiVE's own folders know encoders by its names for them
            encoders = self.align.training_settings[self.cell.variant].encoders
            keys = match_keys(encoders, layout.dims, f"the model {self.align.folder.path}")

        # open the stores of the compared heads, with the weights that the heads were trained on
        stores = {name: store for name, store in stores.items() if keys[name] in layout.compared_keys}
        for name, head in layout.heads.items():
            for store in (store for store_name, store in stores.items() if keys[store_name] == head.target):
                refuse_other_target(name, head, digest_of(store), str(store.path))

        # targets from stores, and from the network that learned with the model
        stored = Targets.of(stores, Launch(0, 1, self.model.device), keys, hold=False)
        targets, tokens = Targets({**stored.sources, **self._compute_adapted(split, keys)}), []

        # an ablated embedding is replaced by its mean
        if without:
            mean = targets.sources[without].gather(rows).mean(0)

        # encode in blocks: tokens [M, D]
        for part in np.array_split(rows, max(1, -(-len(rows) // PICTURES))):
            with torch.inference_mode():
                embeddings = targets.gather(part)
                if without:
                    embeddings[without] = mean.expand_as(embeddings[without])
                tokens.append(self.model.encode_image(embeddings).float())
        return torch.cat(tokens)

    def _compute_adapted(self, split: str, keys: Mapping[str, str]) -> dict[str, TargetSource]:
        """Compute what the network that learned with the model gives, by key.

        Raises:
            BrainhiveError: if its weights are not those that the model changes, or the pictures not those
                of the store.
        """
        adapter, described = self.model.adapter, self.model.layout.adapter
        if adapter is None:
            return {}

        # configs of the encoders that learned
        names, encoders = described["encoders"], self.align.training_settings[self.cell.variant].encoders
        configs = [config for config in encoders if config.name in names]

        def open_network() -> EncoderGroup:
            group = grouped(configs, "fp32", Launch(0, 1, self.model.device))[0]
            if group.digest != described["digest"]:
                problem = (
                    f"{self.align.folder.path} changes weights {described['digest']}, and {names[0]} has"
                )
                raise BrainhiveError(f"{problem} {group.digest}", "the weights that it was trained with")
            return group

        # the changed network encodes the pictures anew
        group = self.align.once(("network", *names), open_network)
        adapter.attach(group.module)
        images = self.align.dataset.images(stored_split(self.align.dataset, split))
        computed = compute_online([group], images, self.pictures(split))
        return {keys[name]: source for name, source in computed.items()}

    def decoded(self, subject: int, split: str) -> tuple[Decoded, Int64]:
        """Decode a subject's averaged signals, once: answers that are sampled are then the same for everyone.

        Returns:
            Heads [N, *shape], and the row of each one's picture [N].
        """
        # one seed for each signal, by the cell and the picture
        trials = self.trials(subject, split)
        ids = self.pictures(split).image_ids[trials.stimulus]
        seeds = [derive_seed(self.cell.seed, zlib.crc32(image_id.encode())) for image_id in ids]

        def decode() -> Decoded:
            blocks = []
            for start in range(0, len(seeds), SIGNALS):
                signal = torch.from_numpy(trials.read(slice(start, start + SIGNALS))).to(self.model.device)
                index = self.index(subject, len(signal))
                blocks.append(self.model.decode(signal, index, seeds[start : start + SIGNALS]).float())
            return Decoded.join(blocks)

        decoded = self.align.once(("decoded", self.cell.name, subject, split), decode)
        return decoded, trials.stimulus

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
            heads = self.model.predict(signal.to(self.model.device), index)
            return {head: values.float() for head, values in heads.items()}

    def index(self, subject: int, count: int) -> Tensor | None:
        """Give the subject index of signals [N]; None for a subject who was not trained on."""
        known = self.model.layout.spec.subjects
        if subject not in known or self.align.tests_new_subjects:
            return None
        return torch.full((count,), known.index(subject), device=self.model.device)

    def name_trials(self, subject: int, split: str) -> tuple[list[str], list[str]]:
        """Name each of a subject's held-out trials, and its run or session, [N]; none of other designs.

        The names of a subject's trials are those of no other, as nobody else was there.
        """
        # only a holdout of trials tests trials of seen pictures
        holdout = self.align.dataset.holdout
        if holdout is None or not holdout.shows_seen or split != "test":
            return [], []

        # sessions and runs of the trials; 0 where they are not known
        trials = self.trials(subject, split)
        absent = np.zeros((len(trials.stimulus), 1), np.int64)
        sessions, runs = (absent if known is None else known for known in (trials.sessions, trials.runs))
        shown = {
            "runs": [f"session {s + 1} run {r}" for s, r in zip(sessions[:, 0], runs[:, 0], strict=True)],
            "sessions": [f"session {session + 1}" for session in sessions[:, 0]],
            "trials": [f"fold {self.cell.fold}"] * len(absent),
        }[holdout.by]

        # a name for each group and each trial
        groups = [f"subject {subject} {name}" for name in shown]
        stimuli = self.pictures(split).image_ids[trials.stimulus]
        names = [f"{image_id}, {group}" for image_id, group in zip(stimuli, groups, strict=True)]
        return [f"{name}, trial {number}" for number, name in enumerate(names, 1)], groups

    def interleaving(self, subject: int, split: str) -> Interleaving:
        """Find which of a subject's tested signals [N] may exchange labels, as far as time is known.

        The order of all trials is looked at, those that the cell's fold has learned from included.
        """
        dataset, where = self.align.dataset, f"{self.align.dataset.name} subject {subject}"
        holdout = dataset.holdout if split == "test" else None
        source = self.source
        recording = source.open(subject)[stored_split(dataset, split)]
        is_there, stimuli = recording.is_there, self.pictures(split)

        def find() -> Interleaving:
            # items and their labels: trials and what they show, or pictures and their concepts
            row = np.nonzero(is_there)[0]  # [n] of each trial
            shown, by = [*map(str, recording.image_ids)], ""
            if holdout is not None and holdout.shows_seen:
                item, label, by = np.arange(len(row)), [shown[index] for index in row], holdout.by
                group = holdout.number_tested(recording, where)[is_there]
            else:
                item, rows, group = row, stimuli.rows(shown), np.zeros(len(shown), np.int64)
                stored = zip(rows.tolist(), shown, strict=True)
                label = [stimuli.concepts[index] if index >= 0 else name for index, name in stored]
                for fold in holdout.fold_numbers if holdout else ():
                    group[tested_rows(dataset, stimuli, split, fold)[rows] & (rows >= 0)] = fold

            # their order in time
            known = [recording.sessions, recording.runs, recording.onset_s]
            if dataset.alike_by == "neighbours" or all(times is None for times in known):
                return Interleaving(group.tolist(), [*range(len(label))])
            order = TrialOrder.of(
                item, label, *(None if times is None else times[is_there] for times in known)
            )
            return of_trials(order, group, by) if by else of_pictures(order, group)

        # those of the cell's fold
        interleaving = self.align.once(("interleaving", subject, split, source.name_of(subject)), find)
        rows = np.asarray(self.trials(subject, split).index)
        if holdout is not None and holdout.shows_seen:
            rows = np.flatnonzero(holdout.hold_out_trials(recording, self.cell.fold, where)[is_there])[rows]
        return interleaving.take(rows)

    def trials(
        self,
        subject: int,
        split: str,
        *,
        is_tested: bool = True,
        recording: Trials | None = None,
        is_normalised: bool = True,
    ) -> Trials:
        """Open a subject's trials as the model reads them.

        Args:
            subject: Whose.
            split: Of the data set.
            is_tested: Whether they test the model: those of pictures that were seen in training, validation
                included, are then left out, and what is read is kept for the cells that follow.
            recording: Trials of the split that no store holds; default: those of the subject's store.
            is_normalised: Whether they are normalised.

        Raises:
            BrainhiveError: if the recording is not what the model takes, or too many pictures were seen.
        """

        def choose() -> Trials:
            # trials of the recording, or of the store of the subject
            align, spec, source = self.align, self.model.layout.spec, self.source
            where, is_same_store = f"{align.dataset.name} subject {subject}", False
            if recording is not None:
                where = f"the recording of subject {subject}"
                trials = match_stimuli(recording, self.pictures(split), where)
            else:
                folder = source.name_of(subject).rpartition("/")[0]
                is_same_store = any(name.rpartition("/")[0] == folder for name in self.model.learned.signals)
                trials = match_split(source, subject, split, self.pictures(split))

            # match channels and window to the input of the model
            options = align.dataset.channels, is_same_store, align.channel_mapping
            trials = choose_input(spec, trials, where, *options)
            if not align.tests_new_subjects:
                spec.refuse_other_voxels(subject, trials.signal.shape[2], trials.regions, f"{where} {split}")

            # leave out pictures that were seen in training
            if is_tested:
                trials = trials.take(self.are_unseen(subject, split, trials.stimulus))
            if not is_normalised:
                return trials
            return trials.normalise(self.find_normaliser(subject, split, is_same_store))

        if recording is not None or not is_tested or not is_normalised:
            return choose()
        return self.align.once(self.key("trials", subject, split), choose)

    def find_normaliser(self, subject: int, split: str, is_same_store: bool = False) -> Normaliser | None:
        """Find what normalises a subject's signals: of new subjects, their own training signals say it.

        Args:
            subject: Whose signals.
            split: Of the data set, whose pictures are in the target stores.
            is_same_store: As for `choose_input`.

        Returns:
            The normaliser; None where signals are not normalised.
        """
        if (normaliser := self._normaliser(subject)) is not None:
            return normaliser
        options = self.pictures(split), is_same_store, self.align.channel_mapping
        return measure_new_subject(self.model.layout.spec, self.source, subject, *options)

    def shown(self, subject: int, split: str) -> Int64:
        """Find the rows of all pictures that a subject was shown, those that are left out included."""
        key = self.key("shown", subject, split)
        return self.align.once(
            key, lambda: np.unique(self.trials(subject, split, is_tested=False, is_normalised=False).stimulus)
        )

    def mean_training_signal(self, subject: int) -> Float32:
        """Average a subject's training signals over pictures: [C, T]; kept for the cells that follow."""

        def average() -> Float32:
            return self.trials(subject, "train", is_tested=False).averages.mean(0)

        return self.align.once(self.key("mean", subject, "train"), average)

    def are_unseen(self, subject: int, split: str, rows: Int64) -> Bool:
        """Find the signals [N] of pictures that no model which is tested on the subject learned from.

        Whatever tests a model asks here: no result is of a picture that was seen in training.
        """
        tested = self.align.tested_pictures(split, self.cell.fold)
        unseen = tested.are_unseen(subject, rows, f"{self.align.folder.path}, {self.cell.name},")
        self.align.once(
            ("warned of pictures", split, self.cell.fold), lambda: [*map(console.warn, tested.warnings)]
        )
        return unseen

    def _normaliser(self, subject: int) -> Normaliser | None:
        """Return what normalises a subject's signals; None: the subject's own training signals do."""
        learned = self.model.learned
        return learned.normaliser if self.align.tests_new_subjects else learned.normaliser_of(subject)

    def key(self, what: str, subject: int, split: str) -> tuple[str, ...]:
        """Name something computed from a subject's signals, to keep it for cells that take the same ones."""
        # everything that changes the signals is part of the key
        signal = self.align.training_settings[self.cell.variant].signal
        normaliser = self._normaliser(subject)
        whose = normaliser.digest if normaliser else ""
        names, fold = self.model.layout.spec.names, f"fold {self.cell.fold}"
        mapping = self.align.channel_mapping
        return (what, str(subject), split, fold, *names, signal.model_dump_json(), whose, mapping)
