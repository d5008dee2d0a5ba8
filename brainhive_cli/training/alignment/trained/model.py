"""Trained brain model of one cell, which encodes and ranks the trials of subjects."""

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
from brainhive_cli.core.cards import draw_card
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.signals.channel_mapping import ChannelChoice
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.signals.study import StudyDesign
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
    measure_trials,
)
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
"""Unit of EEG, for stores of whitened signals that do not record a unit."""
SIGNALS_PER_BLOCK = 4000
"""Number of signals that are encoded together. It is a multiple of 20, the batch size
with which the weights of NEURONS were published.
"""
PICTURES_PER_BLOCK = 8192
"""Number of pictures that are encoded together."""


class ModelRun(Protocol):
    """Contract of the run or model folder to which trained models belong.

    A `TrainedRun` satisfies it.
    """

    name: str
    short_name: str
    file_name: str
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
        """Compute a value once for all cells, and keep it under `key`.

        If `is_of_data`, it depends on the data alone, and runs of these data share it.
        """

    def get_recordings(self, variant: str, fold: int = 1) -> Recordings:
        """Return the signals that cells of a variant are tested on, in a fold."""

    def compare_pictures(self, split: str, fold: int = 1) -> TestedPictures:
        """Compare the pictures of a split with the training pictures, in one fold."""

    def list_caveats(self, split: str) -> list[str]:
        """List the caveats of measurements on a split."""

    def find_study(self, split: str) -> StudyDesign | None:
        """Describe the design of the study of all tested subjects on a split."""


@dataclass(eq=False)
class TrainedModel:
    """Model of one cell, whose weights are loaded at their first use.

    Attributes:
        run: Run or model folder of the model.
        cell: Training of the model, with the subjects of the test.
        device: Device of the model.
        head: Head that retrieval compares, or None for the model's own choice.
        path: Folder of the model.
        recordings: Signals of the cell's fold.
        encoders: Encoders whose embeddings the model predicts.
    """

    run: ModelRun
    cell: Cell
    device: torch.device | str = "cpu"
    head: str | None = None

    def __post_init__(self) -> None:
        """Set the folder of the model, the recordings and the encoders."""
        run = self.run
        cell = self.cell
        self.path = run.folder.path
        if not run.is_model:
            self.path = self.path / "cells" / cell.name / "model"
        self.recordings = run.get_recordings(cell.variant, cell.fold)
        self.encoders = run.recipes[cell.variant].encoders

    def __repr__(self) -> str:
        """Return the names of the run and the cell, and the subjects."""
        return f"<TrainedModel {self.cell.name} of {self.run.folder.name}>"

    def _repr_html_(self) -> str:
        """Return a card for a notebook: subjects, seed, encoders and device."""
        cell = self.cell
        rows = [
            ["trained on subjects", ", ".join(map(str, cell.trained_on))],
            ["tested on subjects", ", ".join(map(str, cell.tested_on))],
            ["seed", str(cell.seed)],
            ["predicts", ", ".join(encoder.name for encoder in self.encoders)],
            ["device", str(self.device)],
        ]
        return draw_card(f"model · {cell.name}", (), ("", ""), rows)

    @cached_property
    def module(self) -> aligners.Aligner:
        """Network on the device, in evaluation mode.

        Raises:
            RecipeError: if it lacks the head.
        """
        from brainhive_cli.training.alignment import model as aligners

        layout = self.layout
        module = aligners.load(self.path).to(self.device)
        module.layout = layout
        return module

    @cached_property
    def _described(self) -> tuple[Layout, TrainingHistory]:
        """Architecture and training history, as recorded in the model folder."""

        def read() -> tuple[Layout, TrainingHistory]:
            if self.run.is_model:
                from brainhive_cli.training.alignment import model as aligners

                model = aligners.load(self.path)
                return model.layout, model.learned
            fields, history = model_files.read_config(self.path)
            file = str(self.path / "config.json")
            layout = documents.check(fields, file, Layout, model_files.DAMAGE_HINT)
            return layout, history

        return self.run.compute_once(("described", self.path), read)

    @cached_property
    def layout(self) -> Layout:
        """Architecture, in which retrieval compares `head` if that is given.

        Raises:
            RecipeError: if the model lacks the head.
        """
        layout, _ = self._described
        if self.head is not None:
            layout = replace(layout, retrieval_heads=(self.head,))
            layout.check()
        return layout

    @cached_property
    def learned(self) -> TrainingHistory:
        """Training history, which includes the models that it started from.

        Raises:
            BrainhiveError: if it has a subject who is tested as a new subject.
        """
        _, history = self._described
        run = self.run
        cell = self.cell
        recipe = run.recipes.get(cell.variant)
        is_inter = recipe is not None and recipe.mode == "inter"
        if run.tests_new_subjects or is_inter:
            model = f"{run.name}, {cell.name},"
            history.require_new_subjects(run.dataset, cell.tested_on, model)
        return history

    def refuse_learned_trials(self, subject: int, split: str) -> None:
        """Raise an error if trials of a test are copies of training trials.

        Trials that a fold holds out are checked by `match_split`.

        Args:
            subject: Number of the subject.
            split: Split of the test. All splits of a new subject are checked.

        Raises:
            BrainhiveError: naming the first of these trials.
        """
        run = self.run
        learned = self.learned
        recordings = run.get_recordings(self.cell.variant)
        if not recordings.build_path(subject).is_file():
            return
        is_known = subject in learned.subjects and not run.tests_new_subjects
        for name, recording in recordings.open_store(subject).splits.items():
            if not is_known or name == split != "train":
                recording.refuse_copies(
                    learned.trials,
                    f"{run.dataset.name} subject {subject} {name}",
                    f"trials that {run.name} was trained on",
                    "test on other people, or recordings of another day",
                )

    def open_stores(self, split: str) -> dict[str, TargetStore]:
        """Open the embeddings of a split, keyed by encoder.

        Raises:
            BrainhiveError: if a store was made in another way than in the training.
        """
        # cells with the same encoders share the stores
        run = self.run
        names = [config.name for config in self.encoders]
        stores = run.compute_once(
            ("stores", split, *names),
            lambda: open_stores(
                run.dataset, run.dataset_config, split, self.encoders, run.paths
            ),
            is_of_data=True,
        )
        # a model folder does not record the embeddings of its training
        if not run.is_model:
            require_same_identities(run.folder, stores)
        return stores

    def open_pictures(self, split: str) -> TargetStore:
        """Open any of the target stores, all of which have the same pictures."""
        return next(iter(self.open_stores(split).values()))

    def find_rows(self, split: str) -> Int64:
        """Find the rows [M] of the pictures of a split that are candidates.

        They have targets and belong to the cell's fold. If the data set has categories
        instead of pictures, only categories that some trial shows are candidates.
        """
        store = self.open_pictures(split)
        holdout = self.run.dataset.holdout
        has_target = store.done & holdout.choose_stimuli(store, split, self.cell.fold)
        if self.run.dataset.are_categories:
            has_target &= self.run.compute_once(
                ("shown categories", split), lambda: self._find_categories(split, store)
            )
        return np.flatnonzero(has_target)

    def _find_categories(self, split: str, store: TargetStore) -> Bool:
        """Find the categories that some subject was shown, as candidates.

        Returns:
            True [M] for categories of the store that a trial of `split` or of the
            training split shows. All True if there are no signals.
        """
        is_shown = np.zeros(len(store.image_ids), bool)
        subjects = list_subjects(self.run.cells)
        for subject, name in product(subjects, sorted({split, "train"})):
            with suppress(MissingData):
                trials = match_split(self.recordings, subject, name, store)
                is_shown[trials.stimulus] = True

        # without any signals, every category is a candidate
        if not is_shown.any():
            return ~is_shown
        absent = [store.image_ids[row] for row in np.flatnonzero(~is_shown)]
        if absent:
            console.warn(
                f"no trial shows {', '.join(absent)}: left out of the candidates"
            )
        return is_shown

    def encode_pictures(self, split: str, rows: Int64, without: str = "") -> Tensor:
        """Encode pictures as the vectors [M, D] that retrieval compares.

        Args:
            split: Split of the pictures.
            rows: Rows [M] of the pictures.
            without: Key of an embedding that is replaced by its mean over these
                pictures, to measure its contribution, or "".

        Raises:
            BrainhiveError: if a store was made with other weights than the targets of a
                head.
        """
        import torch

        from brainhive_cli.data.targets.targets import Targets

        # folders of BrainHiVE have their own keys of encoders
        stores = self.open_stores(split)
        layout = self.module.layout
        keys = layout.encoders
        if not stores.keys() <= keys.keys():
            keys = match_keys(
                self.encoders, layout.dims, f"the model {self.run.folder.path}"
            )

        # stores of the compared heads, made with the weights of the training
        stores = {
            name: store
            for name, store in stores.items()
            if keys[name] in layout.compared_keys
        }
        for name, head in layout.heads.items():
            for encoder, store in stores.items():
                if keys[encoder] == head.target:
                    refuse_other_target(name, head, digest_of(store), str(store.path))

        # embeddings from stores, and of encoders that were trained with the model
        stored = Targets.from_stores(
            stores, Launch(0, 1, self.module.device), keys, on_device=False
        )
        targets = Targets({**stored.sources, **self._compute_adapted(split, keys)})
        if without:
            mean = Targets({without: targets.sources[without]}).gather(rows)
            mean_embedding = mean[without].mean(0)

        # encode the pictures in blocks, whose number is rounded up
        n_blocks = max(1, -(-len(rows) // PICTURES_PER_BLOCK))
        tokens = []
        for block in np.array_split(rows, n_blocks):
            with torch.inference_mode():
                embeddings = targets.gather(block)
                if without:
                    embedding = embeddings[without]
                    embeddings[without] = mean_embedding.expand_as(embedding)
                tokens.append(self.module.encode_image(embeddings).float())
        return torch.cat(tokens)

    def _compute_adapted(
        self, split: str, keys: Mapping[str, str]
    ) -> dict[str, OnlineTargets]:
        """Make the targets of encoders that were trained with the model, by key.

        They are computed from pictures, because stores have the untrained encoders.

        Args:
            split: Split of the pictures.
            keys: Key of each encoder's embedding, by the encoder's name.

        Raises:
            BrainhiveError: if the encoders have other weights than in the training, or
                the store has other pictures.
        """
        from brainhive_cli.data.targets.encoder_groups import group_encoders
        from brainhive_cli.data.targets.targets import make_online_targets

        run = self.run
        adapter = self.module.adapter
        if adapter is None:
            return {}
        names = self.module.layout.adapter["encoders"]
        digest = self.module.layout.adapter["digest"]

        def open_network() -> EncoderGroup:
            # these encoders are outputs of one network
            configs = [config for config in self.encoders if config.name in names]
            group = group_encoders(configs, "fp32", Launch(0, 1, self.module.device))[0]
            if group.digest != digest:
                raise BrainhiveError(
                    f"{run.folder.path} changes weights {digest}, but {names[0]} has "
                    f"{group.digest}",
                    "use the weights of the training",
                )
            return group

        group = run.compute_once(("network", *names), open_network)
        adapter.attach(group.network.module)
        images = run.dataset.images(run.dataset.holdout.name_stored_split(split))
        return make_online_targets(group, images, self.open_pictures(split), keys)

    def decode_signals(self, subject: int, split: str) -> tuple[Decoded, Int64]:
        """Decode the averaged signals of a subject.

        They are decoded once, so that all callers get the same samples.

        Returns:
            Heads [N, *shape], and the row [N] of each signal's picture in the stores.
        """
        import torch

        # a seed for each signal, derived from the cell and the picture
        trials = self.open_trials(subject, split)
        module = self.module
        seeds = [
            derive_seed(self.cell.seed, zlib.crc32(image_id.encode()))
            for image_id in self.open_pictures(split).image_ids[trials.stimulus]
        ]

        def decode() -> Decoded:
            blocks = []
            for start in range(0, len(seeds), SIGNALS_PER_BLOCK):
                rows = slice(start, start + SIGNALS_PER_BLOCK)
                signal = torch.from_numpy(trials.read(rows)).to(module.device)
                index = self.make_subject_index(subject, len(signal))
                blocks.append(module.decode(signal, index, seeds[rows]).float())
            return Decoded.join(blocks)

        key = "decoded", self.cell.name, subject, split
        return self.run.compute_once(key, decode), trials.stimulus

    def encode(self, trials: Trials, signals: Tensor | None = None) -> Tensor:
        """Encode trials of a subject as the vectors [N, D] that retrieval compares.

        Args:
            trials: Trials from `open_trials`.
            signals: Signals [N, C, T] that replace the averages of the trials.
        """
        import torch

        module = self.module
        if signals is None:
            signals = torch.from_numpy(trials.averages)
        tokens = []
        with torch.inference_mode():
            for block in signals.split(SIGNALS_PER_BLOCK):
                index = self.make_subject_index(trials.subject, len(block))
                encoded = module.encode_signal(block.to(module.device), index)
                tokens.append(encoded.float())
        return torch.cat(tokens)

    def rank(
        self,
        trials: Trials,
        gallery: Gallery,
        images: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Scores:
        """Rank the pictures of a gallery for each trial.

        Args:
            trials: Trials from `open_trials`, of the gallery's first split.
            gallery: Candidates.
            images: Vectors [M, D] of the candidates, if they are already computed.
            tokens: Vectors [N, D] of the trials, if they are already computed.

        Returns:
            Scores with the rank of the shown picture of each trial.
        """
        import torch

        from brainhive_cli.measurement.retrieval import Scores, rank_gallery

        if images is None:
            images = torch.cat(
                [
                    self.encode_pictures(split, rows)
                    for split, rows in gallery.rows.items()
                ]
            )
        if tokens is None:
            tokens = self.encode(trials)

        # position of each shown picture in the gallery, whose rows ascend
        shown_indices = np.searchsorted(gallery.test_rows, trials.stimulus)
        names = [gallery.image_ids[index] for index in shown_indices]
        concepts = [gallery.concepts[index] for index in shown_indices]
        subject = trials.subject
        items = {subject: Scores(names, names, concepts)}
        return rank_gallery(gallery, images, {subject: tokens}, items)[subject]

    def predict(self, subject: int, signal: Tensor) -> dict[str, Tensor]:
        """Predict the heads [N, *shape] of signals [N, C, T], without sampling."""
        import torch

        index = self.make_subject_index(subject, len(signal))
        with torch.inference_mode():
            heads = self.module.predict(signal.to(self.module.device), index)
            return {head: values.float() for head, values in heads.items()}

    def make_subject_index(self, subject: int, count: int) -> Tensor | None:
        """Return the subject index [count] of signals, or None for a new subject."""
        training_subject = None if self.run.tests_new_subjects else subject
        return self.module.make_subject_index(training_subject, count)

    def name_trials(self, subject: int, split: str) -> tuple[list[str], list[str]]:
        """Name the held-out trials [N] of a subject, and the run or session of each.

        Both lists are empty unless trials of seen pictures are held out.
        """
        holdout = self.run.dataset.holdout
        if split != "test" or not holdout.has_seen_pictures:
            return [], []
        trials = self.open_trials(subject, split)
        groups = holdout.name_groups(trials, f"subject {subject}", self.cell.fold)

        # the number distinguishes repetitions of a picture
        image_ids = self.open_pictures(split).image_ids[trials.stimulus]
        names = []
        for number, (image_id, group) in enumerate(
            zip(image_ids, groups, strict=True), 1
        ):
            names.append(f"{image_id}, {group}, trial {number}")
        return names, groups

    def open_trials(
        self,
        subject: int,
        split: str,
        *,
        is_tested: bool = True,
        recording: Trials | None = None,
        is_normalised: bool = True,
    ) -> Trials:
        """Open the trials of a subject as the model reads them.

        Args:
            subject: Number of the subject.
            split: Split of the data set.
            is_tested: If True, trials of pictures that were seen in training or
                validation are left out, and cells with the same input share the result.
            recording: Trials of the split in memory, instead of trials of the store.
            is_normalised: If True, normalise the trials as in the training.

        Raises:
            BrainhiveError: if the recording does not fit the model, or too many
                pictures were seen.
        """

        def read() -> Trials:
            return self._read_trials(
                subject, split, is_tested, recording, is_normalised
            )

        if recording is not None or not is_tested or not is_normalised:
            return read()
        return self.compute_once("trials", subject, split, read)

    def _read_trials(
        self,
        subject: int,
        split: str,
        is_tested: bool,
        recording: Trials | None,
        is_normalised: bool,
    ) -> Trials:
        """Read the trials of a subject, with the arguments of `open_trials`."""
        run = self.run
        spec = self.layout.spec
        is_same_store = False
        if recording is None:
            source = f"{run.dataset.name} subject {subject}"
            trials = match_split(
                self.recordings, subject, split, self.open_pictures(split)
            )
            # stores of one preparation are in one folder
            folder = self.recordings.name_store(subject).rpartition("/")[0]
            _, history = self._described
            is_same_store = any(
                name.rpartition("/")[0] == folder for name in history.signals
            )
        else:
            source = f"the recording of subject {subject}"
            trials = replace(recording, subject=subject)
            if len(recording.image_ids):
                trials = match_stimuli(trials, self.open_pictures(split), source)

        # the channels and the window of the model
        trials = choose_input(
            spec,
            trials,
            source,
            run.dataset.channels,
            is_same_store,
            run.channel_mapping,
        )
        if not run.tests_new_subjects:
            n_voxels = trials.signal.shape[2]
            spec.refuse_other_voxels(
                subject, n_voxels, trials.regions, f"{source} {split}"
            )
        if is_tested and len(trials.image_ids):
            trials = trials.take(~self.find_seen(subject, split, trials.stimulus))
        if not is_normalised:
            return trials
        # trials of the split `train` keep the statistics of the training
        signal = self.recordings.signal
        if signal.normalise_by == "tested_trials" and split != "train":
            statistics = measure_trials(self.recordings, trials)
            return trials.normalise(signal.normalise.build(statistics))
        return trials.normalise(self.find_normaliser(subject, split, is_same_store))

    def find_normaliser(
        self, subject: int, split: str, is_same_store: bool = False
    ) -> Normaliser | None:
        """Return the normaliser of a subject, or None if signals are not normalised.

        The normaliser of a new subject is fitted to its own training signals.

        Args:
            subject: Number of the subject.
            split: Split of the data set, whose target stores have the pictures.
            is_same_store: True if the model was trained on the subject's store, whose
                preparation must then be equal.
        """
        normaliser = self._get_stored_normaliser(subject)
        if normaliser is not None or self.recordings.signal.normalise is None:
            return normaliser
        return measure_new_subject(
            self.layout.spec,
            self.recordings,
            subject,
            self.open_pictures(split),
            is_same_store,
            self.run.channel_mapping,
        )

    def find_recorded_unit(self, subject: int) -> str:
        """Return the unit of a subject's samples before whitening."""
        for facts in self._iterate_provenance(subject):
            if "recorded_unit" in facts:
                return normalise_unit(facts["recorded_unit"])
        return normalise_unit(DEFAULT_UNIT)

    def find_delay_s(self, subject: int) -> float:
        """Return the seconds from events to pictures in a subject's preparation."""
        for facts in self._iterate_provenance(subject):
            if "preparation" in facts:
                return float(facts["preparation"].get("delay_ms", 0.0)) / 1000
        return 0.0

    def _iterate_provenance(self, subject: int) -> Iterator[Mapping[str, Any]]:
        """Yield the provenance of a subject's store, then of the training subjects."""
        for person in (subject, *self.cell.trained_on):
            if self.recordings.build_path(person).is_file():
                for recording in self.recordings.open_store(person).splits.values():
                    yield recording.provenance
                    yield from recording.provenance.get("sessions", ())

    def find_shown_rows(self, subject: int, split: str) -> Int64:
        """Find the rows of all pictures that a subject was shown."""
        trials = self.open_trials(subject, split, is_tested=False, is_normalised=False)
        return np.unique(trials.stimulus)

    def average_training_signal(self, subject: int) -> Float32:
        """Average the training signals [C, T] of a subject over pictures."""

        def average() -> Float32:
            trials = self.open_trials(subject, "train", is_tested=False)
            return trials.averages.mean(0, np.float64).astype(np.float32)

        return self.compute_once("mean", subject, "train", average)

    def find_seen(self, subject: int, split: str, rows: Int64) -> Bool:
        """Find the signals [N] whose pictures were seen in training.

        Copies of training pictures count, and pictures of models that this model
        started from. All models that are tested on the subject count.

        Args:
            subject: Number of the subject.
            split: Split of the data set.
            rows: Row [N] of the picture of each signal.

        Raises:
            BrainhiveError: if there are too many.
        """
        tested = self.run.compare_pictures(split, self.cell.fold)
        is_seen = tested.find_seen_signals(
            subject, rows, f"{self.run.folder.path}, {self.cell.name},"
        )

        def warn() -> bool:
            for warning in tested.warnings:
                console.warn(warning)
            return True

        # warn once for each split and fold
        self.run.compute_once(("warned of pictures", split, self.cell.fold), warn)
        return is_seen

    def has_normaliser(self, subject: int) -> bool:
        """Return True if normalising a subject needs no other signals."""
        if self.recordings.signal.normalise is None:
            return True
        return self._get_stored_normaliser(subject) is not None

    def _get_stored_normaliser(self, subject: int) -> Normaliser | None:
        """Return the normaliser that the model stores for a subject, or None."""
        _, history = self._described
        if self.run.tests_new_subjects:
            return history.normaliser
        return history.normaliser_of(subject)

    def compute_once(
        self, name: str, subject: int, split: str, compute: Callable[[], T]
    ) -> T:
        """Compute a value from a subject's signals once, for all cells that share them.

        Args:
            name: Name of the value.
            subject: Number of the subject.
            split: Split of the data set.
            compute: Function that computes the value.
        """
        normaliser = self._get_stored_normaliser(subject)
        key = (
            name,
            subject,
            split,
            self.cell.fold,
            self.layout.spec.names,
            self.recordings.signal.model_dump_json(),
            normaliser and normaliser.digest,
            self.run.channel_mapping,
        )
        return self.run.compute_once(key, compute)
