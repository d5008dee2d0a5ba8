"""Trained brain model of one cell, which encodes and ranks the trials of a subject."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from brainhive_cli.core import console, documents
from brainhive_cli.core.arrays import Bool, Float32, Int64
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.signals.channel_mapping import ChannelChoice
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.signals.overlap import Overlap
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.learned import (
    TestedPictures,
    TrainingHistory,
)
from brainhive_cli.data.stores.recordings import Recordings
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.encoder_keys import (
    match_keys,
)
from brainhive_cli.data.targets.encoder_stores import (
    digest_of,
    open_stores,
    require_same_identities,
)
from brainhive_cli.data.targets.model_input import (
    choose_input,
    match_split,
    match_stimuli,
    measure_new_subject,
)
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.models.heads import Decoded, refuse_other_target
from brainhive_cli.models.signal_spec import normalise_unit
from brainhive_cli.training.alignment import model_files
from brainhive_cli.training.alignment.cells import Cell, list_subjects
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from brainhive_cli.data.targets.encoder_groups import EncoderGroup
    from brainhive_cli.data.targets.targets import OnlineTargets
    from brainhive_cli.measurement.retrieval import Gallery, Scores
    from brainhive_cli.training.alignment import model as aligners


T = TypeVar("T")
DEFAULT_UNIT = "µV"
"""Unit of continuous samples of a whitened store that does not say it: that of EEG."""

SIGNALS, PICTURES = 4000, 8192
"""Numbers encoded at once; signals a multiple of 20, the batches in which NEURONS'
weights were read.
"""


class ModelRun(Protocol):
    """Contract of the run, or of the model folder, that trained models belong to.

    A `TrainedRun` satisfies it.
    """

    name: str
    label: str
    folder: RunFolder
    is_model: bool
    paths: Paths
    dataset: Dataset
    dataset_config: Any
    recipes: dict[str, Recipe]
    cells: list[Cell]
    channel_mapping: ChannelChoice
    tests_new_subjects: bool
    origin: str | None

    def compute_once(
        self, key: Hashable, compute: Callable[[], T], is_of_data: bool = False
    ) -> T:
        """Compute a value once for all cells.

        If it depends on the data alone, it is computed once for all runs of these data.
        """

    def get_recordings(self, variant: str, fold: int = 1) -> Recordings:
        """Return the signals that cells of a variant are tested on, in a fold."""

    def compare_pictures(self, split: str, fold: int = 1) -> TestedPictures:
        """Compare the pictures of a split with the training pictures, in one fold."""

    def list_caveats(self, split: str) -> list[str]:
        """List the caveats of measurements on a split."""


@dataclass(eq=False)
class TrainedModel:
    """The model of one cell; its weights are loaded when they are first asked for.

    Attributes:
        run: The run, or model folder, that it is of.
        cell: Its training, with the subjects that it is tested on.
        device: Where it computes.
        head: The only head by which it is compared; None leaves it to the model.
        path: The folder of the model.
        source: Signals of the cell's fold.
        encoders: Encoders whose embeddings it was trained to predict.
    """

    run: ModelRun
    cell: Cell
    device: torch.device | str = "cpu"
    head: str | None = None

    def __post_init__(self) -> None:
        """Find the model's folder, the signals and the encoders."""
        run, cell = self.run, self.cell
        self.path = run.folder.path
        if not run.is_model:
            self.path = self.path / "cells" / cell.name / "model"
        self.recordings = run.get_recordings(cell.variant, cell.fold)
        self.encoders = run.recipes[cell.variant].encoders

    @cached_property
    def module(self) -> aligners.Aligner:
        """The network.

        Raises:
            RecipeError: if it has no such head.
        """
        from brainhive_cli.training.alignment import model as aligners

        layout = self.layout
        module = aligners.load(self.path).to(self.device)
        module.layout = layout
        return module

    @cached_property
    def _described(self) -> tuple[Layout, TrainingHistory]:
        """Its architecture and the record of its training, as its folder says them;
        once for all that open it.
        """

        def read() -> tuple[Layout, TrainingHistory]:
            if self.run.is_model:
                from brainhive_cli.training.alignment import model as aligners

                model = aligners.load(self.path)
                return model.layout, model.learned
            fields, learned = model_files.read_config(self.path)
            file = str(self.path / "config.json")
            return documents.check(
                fields, file, Layout, model_files.DAMAGE_HINT
            ), learned

        return self.run.compute_once(("described", self.path), read)

    @cached_property
    def layout(self) -> Layout:
        """Its architecture, in which retrieval compares the requested head alone.

        Raises:
            RecipeError: if it has no such head.
        """
        layout, _ = self._described
        if self.head is not None:
            layout = replace(layout, retrieval_heads=(self.head,))
            layout.check()
        return layout

    @cached_property
    def learned(self) -> TrainingHistory:
        """Record of its training data, with all that it started from.

        Raises:
            BrainhiveError: if a subject who is to be new to it is among these.
        """
        (_, learned), run, cell = self._described, self.run, self.cell

        # a subject who is tested as new must be absent from the complete history
        recipe = run.recipes.get(cell.variant)
        if run.tests_new_subjects or (recipe is not None and recipe.mode == "inter"):
            model = f"{run.name}, {cell.name},"
            learned.require_new_subjects(run.dataset, cell.tested_on, model)
        return learned

    def refuse_learned_trials(self, subject: int, split: str) -> None:
        """Refuse trials that the model learned from; of a person who is new to it, any
        trial.

        Raises:
            BrainhiveError: naming the first; of trials that a fold holds out,
                `match_split` raises it.
        """
        run = self.run
        learned = self.learned
        source = self.run.get_recordings(self.cell.variant)
        is_known = subject in learned.subjects and not run.tests_new_subjects
        stored = (
            source.open_store(subject).splits
            if source.build_path(subject).is_file()
            else {}
        )
        for name, recording in stored.items():
            # any split of a new person, the tested split of a known one
            if not is_known or name == split != "train":
                recording.refuse_copies(
                    learned.trials,
                    f"{run.dataset.name} subject {subject} {name}",
                    f"trials that {run.name} learned from",
                    "test on other people, or recordings of another day",
                )

    def open_stores(self, split: str) -> dict[str, TargetStore]:
        """Open the embeddings that the model takes.

        Raises:
            BrainhiveError: if they were made in another way than those that it was
                trained on.
        """
        # cells with the same encoders share the open stores
        run, encoders = self.run, self.encoders
        wanted = run.dataset, run.dataset_config, split, encoders, run.paths
        stores = run.compute_once(
            ("stores", split, *(config.name for config in encoders)),
            lambda: open_stores(*wanted),
            is_of_data=True,
        )
        # a run records which embeddings it was trained on, a model folder does not
        if not run.is_model:
            require_same_identities(run.folder, stores)
        return stores

    def open_pictures(self, split: str) -> TargetStore:
        """Open one of the target stores; all have the same rows."""
        return next(iter(self.open_stores(split).values()))

    def find_rows(self, split: str) -> Int64:
        """Find the rows of the pictures of a split that have targets; in the cell's
        fold.

        A category that no trial shows is none of them.
        """
        store = self.open_pictures(split)
        # rows [M] that the holdout of this fold selects
        is_listed = store.done & self.run.dataset.holdout.choose_stimuli(
            store, split, self.cell.fold
        )

        def find_shown() -> Bool:
            # categories [M] that a trial shows, in training or test; all where no
            # signals are here
            people = list_subjects(self.run.cells)
            is_shown = np.zeros(len(store.image_ids), bool)
            for person, part in product(people, sorted({split, "train"})):
                with suppress(MissingData):
                    trials = match_split(self.recordings, person, part, store)
                    is_shown[trials.stimulus] = True

            if not is_shown.any():  # no signals here: any category may be a candidate
                return ~is_shown
            if absent := [store.image_ids[row] for row in np.flatnonzero(~is_shown)]:
                console.warn(
                    f"no trial shows {', '.join(absent)}: left out of the candidates"
                )
            return is_shown

        if self.run.dataset.are_categories:
            is_listed &= self.run.compute_once(("shown categories", split), find_shown)
        return np.flatnonzero(is_listed)

    def encode_pictures(self, split: str, rows: Int64, without: str = "") -> Tensor:
        """Encode the pictures of some rows as the vectors [M, D] that retrieval
        compares.

        Args:
            split: Whose pictures.
            rows: Which of them.
            without: Key of an embedding that is replaced by its mean over these
                pictures.

        Raises:
            BrainhiveError: if a head predicts embeddings of other weights than a store
                has.
        """
        import torch

        from brainhive_cli.data.targets.targets import Targets

        # keys of the embeddings in the model
        stores, layout = self.open_stores(split), self.module.layout
        keys = layout.encoders
        # BrainHiVE's own folders know encoders by its names for them
        if not stores.keys() <= keys.keys():
            keys = match_keys(
                self.encoders, layout.dims, f"the model {self.run.folder.path}"
            )

        # open the stores of the compared heads, with the weights that the heads were
        # trained on
        stores = {
            name: store
            for name, store in stores.items()
            if keys[name] in layout.compared_keys
        }
        for (name, head), (encoder, store) in product(
            layout.heads.items(), stores.items()
        ):
            if keys[encoder] == head.target:
                refuse_other_target(name, head, digest_of(store), str(store.path))

        # targets from stores, and from the network that learned with the model
        stored = Targets.from_stores(
            stores, Launch(0, 1, self.module.device), keys, on_device=False
        )
        targets = Targets({**stored.sources, **self._compute_adapted(split, keys)})

        # encode in blocks: tokens [M, D]; an ablated embedding is replaced by its mean
        tokens = []
        if without:
            ablated = Targets({without: targets.sources[without]})
            mean = ablated.gather(rows)[without].mean(0)
        for part in np.array_split(rows, max(1, -(-len(rows) // PICTURES))):
            with torch.inference_mode():
                embeddings = targets.gather(part)
                if without:
                    embeddings[without] = mean.expand_as(embeddings[without])
                tokens.append(self.module.encode_image(embeddings).float())
        return torch.cat(tokens)

    def _compute_adapted(
        self, split: str, keys: Mapping[str, str]
    ) -> dict[str, OnlineTargets]:
        """Compute what the network that learned with the model gives, by key.

        Raises:
            BrainhiveError: if its weights are not those that the model changes, or the
                pictures not those of the store.
        """
        from brainhive_cli.data.targets.encoder_groups import group_encoders
        from brainhive_cli.data.targets.targets import make_online_targets

        run, adapter = self.run, self.module.adapter
        if adapter is None:
            return {}
        described = self.module.layout.adapter
        names, digest = described["encoders"], described["digest"]

        def open_network() -> EncoderGroup:
            configs = [config for config in self.encoders if config.name in names]

            # these encoders are outputs of one network, which the model changes
            group = group_encoders(configs, "fp32", Launch(0, 1, self.module.device))[0]
            if group.digest != digest:
                raise BrainhiveError(
                    f"{run.folder.path} changes weights {digest}, and {names[0]} has "
                    f"{group.digest}",
                    "the weights that it was trained with",
                )
            return group

        # the changed network encodes the pictures anew
        group = run.compute_once(("network", *names), open_network)
        adapter.attach(group.network.module)
        images = run.dataset.images(run.dataset.holdout.name_stored_split(split))
        return make_online_targets(group, images, self.open_pictures(split), keys)

    def decode_signals(self, subject: int, split: str) -> tuple[Decoded, Int64]:
        """Decode a subject's averaged signals, once: answers that are sampled are then
        the same for everyone.

        Returns:
            Heads [N, *shape], and the row of each one's picture [N].
        """
        import torch

        # one seed for each signal, by the cell and the picture
        trials, module = self.open_trials(subject, split), self.module
        seeds = [
            derive_seed(self.cell.seed, zlib.crc32(image_id.encode()))
            for image_id in self.open_pictures(split).image_ids[trials.stimulus]
        ]

        def decode() -> Decoded:
            blocks = []
            for start in range(0, len(seeds), SIGNALS):  # [SIGNALS, C, T] at a time
                part = slice(start, start + SIGNALS)
                signal = torch.from_numpy(trials.read(part)).to(module.device)
                index = self.make_subject_index(subject, len(signal))
                blocks.append(module.decode(signal, index, seeds[part]).float())
            return Decoded.join(blocks)

        key = "decoded", self.cell.name, subject, split
        return self.run.compute_once(key, decode), trials.stimulus

    def encode(self, trials: Trials, signals: Tensor | None = None) -> Tensor:
        """Encode a subject's trials as the vectors [N, D] that retrieval compares.

        Args:
            trials: As `trials` opens them.
            signals: [N, C, T] instead of their averages, as with a part of these
                replaced.
        """
        import torch

        module, subject = self.module, trials.subject
        # [N, C, T]
        signals = torch.from_numpy(trials.averages) if signals is None else signals
        with torch.inference_mode():
            tokens = [
                module.encode_signal(
                    part.to(module.device), self.make_subject_index(subject, len(part))
                ).float()
                for part in signals.split(SIGNALS)
            ]
        return torch.cat(tokens)

    def rank(
        self,
        trials: Trials,
        gallery: Gallery,
        images: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Scores:
        """Rank what each trial showed among the pictures of a gallery.

        Args:
            trials: As `trials` opens them, of pictures of the gallery's first split.
            gallery: The candidates.
            images: [M, D] what `images` gives of them, where it is known.
            tokens: [N, D] what `encode` gives of the trials, where it is known.
        """
        import torch

        from brainhive_cli.measurement.retrieval import Scores, rank_gallery

        # vectors of the candidates [M, D] and of the trials [N, D], unless the caller
        # has them
        if images is None:
            images = torch.cat(
                [self.encode_pictures(*each) for each in gallery.rows.items()]
            )
        if tokens is None:
            tokens = self.encode(trials)

        # rows are ascending: bisection gives the candidate that each trial showed
        seen = np.searchsorted(gallery.test_rows, trials.stimulus)
        names, concepts = (
            [listed[row] for row in seen]
            for listed in (gallery.image_ids, gallery.concepts)
        )
        items = {trials.subject: Scores(names, names, concepts)}
        return rank_gallery(gallery, images, {trials.subject: tokens}, items)[
            trials.subject
        ]

    def predict(self, subject: int, signal: Tensor) -> dict[str, Tensor]:
        """Predict the heads of a subject's signals [N, C, T], float32 [N, *shape];
        nothing is sampled.
        """
        import torch

        module = self.module
        with torch.inference_mode():
            heads = module.predict(
                signal.to(module.device), self.make_subject_index(subject, len(signal))
            )
            return {head: values.float() for head, values in heads.items()}

    def make_subject_index(self, subject: int, count: int) -> Tensor | None:
        """Give the subject index of signals [N]; None for a subject who was not trained
        on.
        """
        known = None if self.run.tests_new_subjects else subject
        return self.module.make_subject_index(known, count)

    def name_trials(self, subject: int, split: str) -> tuple[list[str], list[str]]:
        """Name each of a subject's held-out trials, and its run or session, [N]; none
        of other designs.

        The names of a subject's trials are those of no other, as nobody else was there.
        """
        # only held-out trials in groups (runs or sessions) have such names
        holdout = self.run.dataset.holdout
        if split != "test" or not holdout.has_seen_pictures:
            return [], []
        trials = self.open_trials(subject, split)
        groups = holdout.name_groups(trials, f"subject {subject}", self.cell.fold)
        # the number tells repetitions of one picture apart
        shown = self.open_pictures(split).image_ids[trials.stimulus]
        numbered = enumerate(zip(shown, groups, strict=True), 1)
        return [
            f"{name}, {group}, trial {number}" for number, (name, group) in numbered
        ], groups

    def find_interleaving(self, trials: Trials, split: str) -> Interleaving:
        """Find which of a subject's trials [N] may exchange labels, as far as time is
        known.

        The order of all trials is looked at, those that the cell's fold has learned
        from included.
        """
        # from the order of all trials to the tested ones
        order = self.find_order(trials.subject, split)
        return order.take(np.asarray(trials.index))

    def find_order(self, subject: int, split: str) -> Interleaving:
        """Find which of all trials of a subject in a split may exchange labels."""
        from brainhive_cli.data.targets.likeness import find_features

        dataset = self.run.dataset

        def find() -> Interleaving:
            return dataset.holdout.find_interleaving(
                self.recordings.open_store(subject)[
                    dataset.holdout.name_stored_split(split)
                ],
                self.open_pictures(split),
                split,
                f"{dataset.name} subject {subject}",
                has_order=dataset.alike_by == "neighbours",
                features=lambda: find_features(self.open_stores(split).values()),
            )

        # cells of the same encoders have the same order
        encoders = (config.name for config in self.encoders)
        key = "order", self.recordings.build_path(subject), split, *encoders
        return self.run.compute_once(key, find, is_of_data=True)

    def find_overlap(self, trials: Trials, split: str) -> Overlap | None:
        """Find by how much the windows that the model reads of a subject overlap."""
        stored = self.run.dataset.holdout.name_stored_split(split)
        recording = self.recordings.open_store(trials.subject)[stored]
        return Overlap.measure([recording], trials.times_s)

    def open_trials(
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
            is_tested: Whether they test the model: those of pictures that were seen in
                training, validation included, are then left out, and what is read is
                kept for the cells that follow.
            recording: Trials of the split that no store holds; default: those of the
                subject's store.
            is_normalised: Whether they are normalised.

        Raises:
            BrainhiveError: if the recording is not what the model takes, or too many
                pictures were seen.
        """

        def choose() -> Trials:
            # trials of the recording, or of the store of the subject
            run, spec, source = self.run, self.layout.spec, self.recordings
            where, is_same_store = f"{run.dataset.name} subject {subject}", False
            if recording is not None:
                where = f"the recording of subject {subject}"
                trials = replace(recording, subject=subject)
                if len(recording.image_ids):  # else nobody knows what was seen
                    trials = match_stimuli(trials, self.open_pictures(split), where)
            else:
                # stores of one preparation lie in one folder
                folder = source.name_store(subject).rpartition("/")[0]
                is_same_store = any(
                    name.rpartition("/")[0] == folder
                    for name in self._described[1].signals
                )
                trials = match_split(source, subject, split, self.open_pictures(split))

            # match channels and window to the input of the model
            options = run.dataset.channels, is_same_store, run.channel_mapping
            trials = choose_input(spec, trials, where, *options)
            if not run.tests_new_subjects:
                spec.refuse_other_voxels(
                    subject, trials.signal.shape[2], trials.regions, f"{where} {split}"
                )

            # leave out pictures that were seen in training
            if is_tested and len(trials.image_ids):
                trials = trials.take(~self.find_seen(subject, split, trials.stimulus))
            if not is_normalised:
                return trials
            return trials.normalise(self.find_normaliser(subject, split, is_same_store))

        # only plain tested trials are shared between cells
        if recording is not None or not is_tested or not is_normalised:
            return choose()
        return self.compute_once("trials", subject, split, choose)

    def find_normaliser(
        self, subject: int, split: str, is_same_store: bool = False
    ) -> Normaliser | None:
        """Find what normalises a subject's signals: of new subjects, their own training
        signals say it.

        Args:
            subject: Whose signals.
            split: Of the data set, whose pictures are in the target stores.
            is_same_store: As for `choose_input`.

        Returns:
            The normaliser; None where signals are not normalised.
        """
        # statistics of the training, if the model has them for this subject
        normaliser = self._normaliser(subject)
        if normaliser is not None or self.recordings.signal.normalise is None:
            return normaliser
        # otherwise those of the new subject's own training signals
        options = self.open_pictures(split), is_same_store, self.run.channel_mapping
        return measure_new_subject(self.layout.spec, self.recordings, subject, *options)

    def find_recorded_unit(self, subject: int) -> str:
        """Give the unit of a subject's continuous samples, as stores of whitened
        signals say it.
        """
        units = (
            facts["recorded_unit"]
            for facts in self._stored_facts(subject)
            if "recorded_unit" in facts
        )
        return normalise_unit(next(units, DEFAULT_UNIT))

    def find_delay_s(self, subject: int) -> float:
        """Give the seconds from events to pictures on the screen, which `prepare` added
        for a subject.
        """
        delays_ms = (
            facts["preparation"].get("delay_ms", 0.0)
            for facts in self._stored_facts(subject)
            if "preparation" in facts
        )
        return float(next(delays_ms, 0.0)) / 1000

    def _stored_facts(self, subject: int) -> Iterator[Mapping[str, Any]]:
        """Yield the provenance of a subject's store, then of those of the training."""
        for person in (subject, *self.cell.trained_on):
            if self.recordings.build_path(person).is_file():
                for recording in self.recordings.open_store(person).splits.values():
                    yield recording.provenance
                    yield from recording.provenance.get("sessions", ())

    def find_shown_rows(self, subject: int, split: str) -> Int64:
        """Find the rows of all pictures that a subject was shown, those that are left
        out included.
        """

        return np.unique(
            self.open_trials(
                subject, split, is_tested=False, is_normalised=False
            ).stimulus
        )

    def average_training_signal(self, subject: int) -> Float32:
        """Average a subject's training signals over pictures: [C, T]; kept for the
        cells that follow.
        """

        return self.compute_once(
            "mean",
            subject,
            "train",
            lambda: self.open_trials(subject, "train", is_tested=False).averages.mean(
                0
            ),
        )

    def find_seen(self, subject: int, split: str, rows: Int64) -> Bool:
        """Find the signals [N] of pictures that a model which is tested on the subject
        learned from.

        So did what it started from; copies count. Whatever tests a model leaves these
        out, and asks here.

        Args:
            subject: Whose signals.
            split: Of the data set.
            rows: [N] row of what each signal shows.

        Raises:
            BrainhiveError: if they are too many.
        """
        tested = self.run.compare_pictures(split, self.cell.fold)
        is_seen = tested.find_seen_signals(
            subject, rows, f"{self.run.folder.path}, {self.cell.name},"
        )

        # warn once for each split and fold, whichever cell comes first
        warned = "warned of pictures", split, self.cell.fold
        self.run.compute_once(warned, lambda: [*map(console.warn, tested.warnings)])
        return is_seen

    def has_normaliser(self, subject: int) -> bool:
        """Return True if a subject's signals are normalised without reading others."""
        is_normalised = self.recordings.signal.normalise is not None
        return not is_normalised or self._normaliser(subject) is not None

    def _normaliser(self, subject: int) -> Normaliser | None:
        """Return what normalises a subject's signals; None: the subject's own training
        signals do.
        """
        _, learned = self._described
        return (
            learned.normaliser
            if self.run.tests_new_subjects
            else learned.normaliser_of(subject)
        )

    def compute_once(
        self, what: str, subject: int, split: str, compute: Callable[[], T]
    ) -> T:
        """Compute something from a subject's signals once, for all cells that take the
        same ones.
        """
        # everything that changes the signals is part of the key
        normaliser = self._normaliser(subject)
        key = (
            what,
            subject,
            split,
            self.cell.fold,
            self.layout.spec.names,
            self.recordings.signal.model_dump_json(),
            normaliser and normaliser.digest,
            self.run.channel_mapping,
        )
        return self.run.compute_once(key, compute)
