"""Pilot of a study: single trials and amounts of an earlier recording."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainhive_cli.core.base import Float32, Int64, Line, MissingData
from brainhive_cli.core.files import locate
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.core.results import merge_caveats
from brainhive_cli.core.runs import run_folder as runs
from brainhive_cli.data.signals import SEPARATE_TEST, Trials, measure_spacing_s
from brainhive_cli.data.stores import SignalStore, TargetStore, open_stores
from brainhive_cli.data.targets import holds_annotations, match_stimuli
from brainhive_cli.evaluation.planning.assumptions import PilotPerson
from brainhive_cli.evaluation.planning.designs import Design
from brainhive_cli.measurement import TrialOrder
from brainhive_cli.training.alignment.trained import (
    TrainedModels,
    open_model,
    open_test_set,
)

if TYPE_CHECKING:
    from torch import Tensor

MAX_PICTURES = {"train": 1500, "test": 500}
"""Largest number of pictures of a person that are read, by split. If trials of seen
pictures are held out, it is the number of trials.
"""
MAX_REPETITIONS = 8
"""Largest number of repetitions of a picture that are read, if there are many pictures.
"""
MAX_REPEATED_TRIALS = 4000
"""Largest number of trials of a split that are read if there are few pictures."""
MAX_VALUES = 10**8
"""Largest number of values of a split that are in memory: 0.4 GB in float32."""
MAX_FEATURES = 400
"""Largest number of features of a trial. More are reduced to principal components."""
MAX_WIDTH = 256
"""Largest width of embeddings. Wider ones are reduced to principal components."""
MAX_ORDERED_TRIALS = 4000
"""Largest number of trials of a person and split whose order is checked. The tests take
minutes for tens of thousands.
"""

Recording = dict[str, Trials]
"""Trials of a person by split. `stimulus` has the rows in the target stores."""
Stores = dict[str, list[TargetStore]]
"""Target stores of each split, one for each encoder."""


@dataclass(frozen=True)
class Pilot:
    """Earlier recording from which the results of a study are predicted.

    Attributes:
        name: Name of the run, or data set and preparation of the signals.
        people: Single trials of each person. All people share their `targets`.
        design: Amount that was recorded, even if only a part of it was read. Minutes
            and the time between onsets are 0 if onsets are unknown.
        warnings: Sentences about trials that were not read or not recorded.
        caveats: Caveats of the signals, such as "simulated".
        orders: Order in time of the first `MAX_ORDERED_TRIALS` trials of each person
            and split, if it is known. Items are pictures, and labels are concepts.
        window_ms: First and last time of the signals after onset. None for voxels.
    """

    name: str
    people: list[PilotPerson]
    design: Design
    warnings: list[str]
    caveats: list[str]
    orders: list[TrialOrder]
    window_ms: tuple[float, float] | None


def read_pilot(
    reference: str, paths: Paths, encoder: str | None = None, new_concepts: bool = False
) -> Pilot:
    """Read single trials of a run or of signal stores, and count what was recorded.

    Args:
        reference: Run of `eval-retrieval` or `train-align`, signal store
            (`signals/DATASET/PREPARATION/sub-01.h5`), or folder of signal stores.
        paths: Folders of the project.
        encoder: Encoder of the pictures. The default is the encoders of the run, or the
            first encoder that has embedded the pictures of the signal stores.
        new_concepts: True if the planned test shows no concept of the training. Else it
            is assumed to show them if the test of the pilot shows no other concepts.

    Raises:
        MissingData: if there is no such run or store, or there are no embeddings.
    """
    import torch

    name, recordings, stores = _open_source(reference, paths, encoder)

    # an even selection of trials, and the embeddings of their pictures
    selections = []
    vectors: dict[str, Tensor] = {}
    concept_of: dict[str, str] = {}
    concepts: dict[str, set[str]] = {split: set() for split in MAX_PICTURES}
    for recording in recordings:
        selection = _select_trials(recording, stores, len(recordings))
        selections.append(selection)
        for split, trials in selection.items():
            values = _read_targets(trials, stores[split])
            vectors |= zip(trials.pictures, values, strict=True)
        for split, trials in recording.items():
            shown_concepts = stores[split][0].concepts[trials.stimulus]
            concept_of |= zip(trials.pictures, shown_concepts, strict=True)
            concepts[split] |= set(shown_concepts)
    pictures = sorted(vectors)
    # hold out concepts or pictures, as the planned test does
    names = pictures
    if new_concepts or not concepts["test"] or concepts["test"] - concepts["train"]:
        names = [concept_of[picture] for picture in pictures]
    group = np.unique(names, return_inverse=True)[1]
    vector_rows = torch.stack([vectors[picture] for picture in pictures])
    targets = _reduce(vector_rows - vector_rows.mean(0), MAX_WIDTH)
    people = []
    for selection in selections:
        shown: list[str] = []
        for trials in selection.values():
            shown += trials.image_ids
        picture = np.searchsorted(pictures, shown)
        people.append(PilotPerson(_read_signals(selection), picture, targets, group))

    design = _describe_design(recordings)
    orders = []
    caveats = []
    n_trials = 0
    for recording in recordings:
        for split, trials in recording.items():
            caveats.append(trials.caveats)
            n_trials += len(trials.signal)
            if trials.times_in_run is not None:
                orders.append(_find_order(trials, stores[split][0]))
    n_read = sum(len(person.signals) for person in people)
    warnings = []
    if n_read < n_trials:
        warnings.append(
            f"The plan reads {n_read:,} of the {n_trials:,} trials of {name}."
        )
    if not orders:
        warnings.append(f"The order of the trials of {name} is unknown.")
    if max(design.train_repetitions, design.test_repetitions) == 1:
        warnings.append(
            f"{name} has one signal of each picture, so nothing in it shows how much "
            "repetitions help."
        )
    times_ms = 1000 * next(iter(recordings[0].values())).times_s
    window_ms = (float(times_ms[0]), float(times_ms[-1]))
    return Pilot(
        name=name,
        people=people,
        design=design,
        warnings=warnings,
        caveats=merge_caveats(*caveats),
        orders=orders,
        window_ms=window_ms if len(times_ms) > 1 else None,
    )


def _open_source(
    reference: str, paths: Paths, encoder: str | None
) -> tuple[str, list[Recording], Stores]:
    """Open the trials and embeddings that a reference means, as `read_pilot`.

    Returns:
        Name for messages, trials of each person, and target stores.
    """
    root = paths.under_home("embeddings")
    path = locate(reference)
    store_paths = [path] if path.suffix == ".h5" else sorted(path.glob("sub-*.h5"))
    if store_paths:
        recordings = [_choose_splits(SignalStore.open(path)) for path in store_paths]
        folder = store_paths[0].absolute().parent
        dataset = folder.parent.name
        name = f"{dataset}/{folder.name}"
        holdout = SEPARATE_TEST
        encoders = [encoder or _choose_encoder(root / dataset)]
    else:
        run = _find_run(reference, paths)
        recordings = _open_recordings(run)
        dataset = run.dataset.name
        name = run.reference
        holdout = run.dataset.holdout
        encoders = [encoder] if encoder else [e.name for e in run.encoders]

    # look up the pictures of all trials
    stores: Stores = {}
    for recording in recordings:
        for split, trials in recording.items():
            stored_split = holdout.name_stored_split(split)
            opened = open_stores(root, dataset, stored_split, encoders)
            stores[split] = list(opened.values())
            where = f"{name} {split}"
            recording[split] = match_stimuli(trials, stores[split][0], where)
    return name, recordings, stores


def _choose_splits(store: SignalStore) -> Recording:
    """Choose the training and test trials of a store, which may have other splits."""
    chosen = {split: store[split] for split in MAX_PICTURES if split in store.splits}
    return chosen or {"train": store["train"]}


def _choose_encoder(folder: Path) -> str:
    """Choose the first encoder of pictures of a data set, or else labels.

    Raises:
        MissingData: if there are no embeddings.
    """
    stores = map(TargetStore.open, sorted(folder.glob("train/[!.]*.h5")))
    for store in sorted(stores, key=holds_annotations):
        is_picture = not holds_annotations(store)
        if is_picture or store.attributes["config"]["kind"] == "concepts":
            return store.path.stem
    raise MissingData(
        f"the pictures have no embeddings in {folder}",
        Line("embed", ("dataset", folder.name)),
    )


def _find_run(reference: str, paths: Paths) -> TrainedModels:
    """Open the training that a run of `train-align` or `eval-retrieval` means."""
    recipe: dict[str, Any] = {"align_run": [reference]}
    with suppress(MissingData):  # the reference may name a training
        root = paths.under_home("runs")
        # Command whose runs name the training that they evaluate.
        recipe = runs.find(root, "eval-retrieval", reference).recipe()
    dataset = recipe.get("dataset")
    run = open_model(
        recipe["align_run"][0],
        paths,
        parts.resolve("datasets", dataset) if dataset else None,
        recipe.get("subjects"),
        channel_mapping=recipe.get("channel_mapping", "none"),
    )
    return run


def _open_recordings(run: TrainedModels) -> list[Recording]:
    """Open the normalised trials of each person, in the first fold."""
    recordings: dict[int, Recording] = {}
    tests = open_test_set(run, "test")
    for model in tests.models[0]:
        for subject in model.cell.tested_on:
            if subject in recordings:
                continue
            person = tests.open_person(model, subject)
            stored = person.recordings.open_store(subject).splits
            recordings[subject] = {}
            if "train" in stored:
                recordings[subject]["train"] = person.train_trials
            if run.dataset.holdout.name_stored_split("test") in stored:
                recordings[subject]["test"] = person.all_trials
    return list(recordings.values())


def _select_trials(recording: Recording, stores: Stores, n_people: int) -> Recording:
    """Select evenly spaced pictures of a person, and repetitions of each.

    Args:
        recording: All trials of the person.
        stores: Target stores.
        n_people: Number of people, whose embeddings are in memory together.
    """
    selection = {}
    for split, trials in recording.items():
        # as many pictures as memory allows
        n_pictures = len(trials.counts)
        n_repetitions = trials.max_repetitions
        max_repetitions = max(MAX_REPETITIONS, MAX_REPEATED_TRIALS // n_pictures)
        n_read = min(max_repetitions, n_repetitions)
        n_values = n_read * trials.width * len(trials.times_s)
        for store in stores[split]:
            n_values += n_people * int(np.prod(store.shape))
        max_pictures = max(1, min(MAX_PICTURES[split], MAX_VALUES // n_values))
        pictures = _space_evenly(n_pictures, max_pictures)
        repetitions = _space_evenly(n_repetitions, max_repetitions)
        is_read = np.isin(trials.picture_of_trial, pictures)
        is_read &= np.isin(trials.repetition, repetitions)
        selection[split] = trials.choose(is_read)
    return selection


def _space_evenly(count: int, most: int) -> Int64:
    """Choose at most `most` of `count` rows, from the first to the last."""
    return np.linspace(0, count - 1, min(count, most)).astype(int)


def _read_signals(recording: Recording) -> Float32:
    """Read standardised single trials [n, F], reduced to `MAX_FEATURES`."""
    import torch

    from brainhive_cli.measurement import FeatureScaler

    blocks = []
    # Number of trials that are read together.
    trials_per_read = 256
    for trials in recording.values():
        for start in range(0, len(trials.signal), trials_per_read):
            singles = trials.read_trials(slice(start, start + trials_per_read))
            blocks.append(torch.from_numpy(singles).flatten(1))
    signals = torch.cat(blocks)
    return _reduce(FeatureScaler.fit(signals)(signals), MAX_FEATURES)


def _read_targets(trials: Trials, stores: list[TargetStore]) -> "Tensor":
    """Read the embeddings [N, D] of pictures, of unit length and side by side."""
    import torch

    columns = [store.read_flat(trials.stimulus) for store in stores]
    return torch.cat(list(map(torch.nn.functional.normalize, columns)), 1)


def _reduce(values: "Tensor", width: int) -> Float32:
    """Reduce centred values [N, F] to at most `width` principal components."""
    from brainhive_cli.measurement import Components

    if values.shape[1] > width:
        # Largest number of trials or pictures from which principal axes are computed.
        step = -(-len(values) // 2000)
        values = values @ Components.fit(values[::step], width).basis
    return values.numpy()


def _describe_design(recordings: list[Recording]) -> Design:
    """Describe what was recorded, as means over people."""
    n_people = len(recordings)
    sessions = 1
    spacings_s = []
    for recording in recordings:
        spacings_s.append(measure_spacing_s(recording.values()))
        for trials in recording.values():
            if trials.sessions is not None:
                sessions = max(sessions, 1 + int(trials.sessions.max()))
    amounts = {}
    for split in MAX_PICTURES:
        shown = [recording[split] for recording in recordings if split in recording]
        n_pictures = sum(len(np.unique(trials.stimulus)) for trials in shown)
        n_trials = sum(len(trials.signal) for trials in shown)
        amounts[f"{split}_pictures"] = round(n_pictures / n_people)
        amounts[f"{split}_repetitions"] = round(n_trials / max(1, n_pictures))
    spacing_s = np.concatenate(spacings_s)
    return Design(
        people=n_people,
        sessions=sessions,
        session_minutes=float(spacing_s.sum()) / 60 / n_people / sessions,
        onset_interval_s=float(np.median(spacing_s)) if len(spacing_s) else 0.0,
        **amounts,
    )


def _find_order(trials: Trials, store: TargetStore) -> TrialOrder:
    """Find the order in time of the first trials of a person and split."""
    order = TrialOrder.from_trials(
        np.repeat(trials.stimulus, trials.counts),
        store.concepts,
        trials.sessions,
        trials.runs,
        trials.times_in_run,
    )
    first = slice(MAX_ORDERED_TRIALS)
    pictures, items = np.unique(order.item[first], return_inverse=True)
    label = order.label[pictures]
    return TrialOrder(items, label, order.session[first], order.run[first])
