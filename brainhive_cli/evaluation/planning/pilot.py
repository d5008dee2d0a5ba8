"""Pilot of a study: single trials and amounts of an earlier recording."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainhive_cli.core import parts, runs
from brainhive_cli.core.arrays import Float32, Float64, Int64
from brainhive_cli.core.errors import Line, MissingData, RecipeError
from brainhive_cli.core.files import locate
from brainhive_cli.core.measurements import merge_caveats
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.signals.overlap import measure_spacing_s
from brainhive_cli.data.signals.trials import Trials, index_optional
from brainhive_cli.data.stores.signal_store import SignalStore
from brainhive_cli.data.stores.target_store import TargetStore, open_stores
from brainhive_cli.data.targets.encoder_stores import holds_annotations
from brainhive_cli.data.targets.model_input import match_stimuli
from brainhive_cli.evaluation.planning.assumptions import PilotPerson
from brainhive_cli.evaluation.planning.designs import Design
from brainhive_cli.measurement.trial_order import TrialOrder
from brainhive_cli.training.alignment.trained.run import open_model, refuse_sweep

if TYPE_CHECKING:
    from torch import Tensor

EVALUATION = "eval-retrieval"
"""Command whose runs name the training that they evaluate."""
MAX_PICTURES = 2000
"""Largest number of pictures of a person that are read. If trials of seen pictures are
held out, it is the number of trials.
"""
MAX_TEST_PICTURES = 500
"""Largest number of test pictures among these, if there are enough training pictures.
"""
MAX_REPETITIONS = 8
"""Largest number of repetitions of a picture that are read."""
MAX_VALUES = 2 * 10**8
"""Largest number of values that are in memory together: 0.8 GB in float32."""
PICTURES_PER_READ = 32
"""Number of pictures whose repetitions are read together."""
MAX_FEATURES = 400
"""Largest number of features of a trial. More are reduced to principal components."""
MAX_ROWS_FOR_AXES = 2000
"""Largest number of trials or pictures from which principal axes are computed."""
MAX_WIDTH = 256
"""Largest width of embeddings. Wider ones are reduced to principal components."""

Recording = dict[str, Trials]
"""Trials of a person by split. `stimulus` numbers the pictures of all splits."""
Stores = dict[str, list[TargetStore]]
"""Target stores of each stored split, one for each encoder."""


@dataclass(frozen=True)
class Pilot:
    """Earlier recording from which the results of a study are predicted.

    Attributes:
        name: Name of the run or of the signals.
        people: Single trials of each person. All people share their `targets`.
        design: Amount that was recorded, even if only a part of it was read. Minutes
            and the time between onsets are 0 if onsets are unknown.
        warnings: Sentences about trials that were not read or not recorded.
        caveats: Caveats of the signals, such as "simulated".
        orders: Order of all trials of each person and split, if it is known. Items are
            pictures, and their labels are concepts.
        spacing_s: Times [K] from each onset to the next, of all people.
    """

    name: str
    people: list[PilotPerson]
    design: Design
    warnings: list[str]
    caveats: list[str]
    orders: list[TrialOrder]
    spacing_s: Float64


def read_pilot(reference: str, paths: Paths, encoder: str | None = None) -> Pilot:
    """Read single trials of a run or of signal stores, and count what was recorded.

    Args:
        reference: Run of `eval-retrieval` or `train-align`, signal store
            (`signals/DATASET/PREPARATION/sub-01.h5`), or folder of signal stores.
        paths: Folders of the project.
        encoder: Encoder of the pictures. The default is the encoders of the run, or the
            first encoder that has embedded the pictures of the signal stores.

    Raises:
        MissingData: if there is no such run or store, or there are no embeddings.
        RecipeError: if the run does not have the encoder.
    """
    path = locate(reference)
    store_paths = [path] if path.suffix == ".h5" else sorted(path.glob("sub-*.h5"))
    if store_paths:
        recordings = [SignalStore.open(path).splits for path in store_paths]
        folder = store_paths[0].absolute().parent
        dataset = folder.parent.name
        stores = _open_embeddings(dataset, recordings[0], paths, encoder)
        people = [_match_pictures(recording, stores) for recording in recordings]
        name = f"{dataset}/{folder.name}"
    else:
        name, people, stores = _open_run(reference, paths, encoder)

    # an even selection of trials, and the embeddings of their pictures
    width = sum(int(np.prod(store.shape)) for store in next(iter(stores.values())))
    selections = [_select_trials(person, width * len(people)) for person in people]
    numbers = [_list_pictures(selection) for selection in selections]
    pictures = np.unique(np.concatenate(numbers))
    targets = _read_targets(stores, pictures)
    pilot_people = []
    for selection, shown in zip(selections, numbers, strict=True):
        signals = _read_signals(selection)
        pilot_people.append(
            PilotPerson(signals, np.searchsorted(pictures, shown), targets)
        )

    # facts of the whole recording
    orders = []
    spacings_s = []
    recorded: list[Trials] = []
    for person in people:
        recorded += person.values()
        spacings_s.append(measure_spacing_s(person.values()))
        orders += _list_orders(person, stores)
    warnings = []
    n_trials = sum(int(trials.counts.sum()) for trials in recorded)
    n_read = sum(map(len, numbers))
    if n_read < n_trials:
        warnings.append(
            f"The plan reads {n_read:,} of the {n_trials:,} trials of {name}."
        )
    if not orders:
        warnings.append(f"The order of the trials of {name} is unknown.")
    spacing_s = np.concatenate(spacings_s)
    design = _describe_design(people, spacing_s)
    if max(design.train_repetitions, design.test_repetitions) == 1:
        warnings.append(
            f"{name} has one signal of each picture, so nothing in it shows how much "
            "repetitions help."
        )
    return Pilot(
        name=name,
        people=pilot_people,
        design=design,
        warnings=warnings,
        caveats=merge_caveats(*(trials.caveats for trials in recorded)),
        orders=orders,
        spacing_s=spacing_s,
    )


def _open_embeddings(
    dataset: str, splits: Iterable[str], paths: Paths, encoder: str | None
) -> Stores:
    """Open the embeddings of the pictures of signal stores.

    Raises:
        MissingData: if there are none.
    """
    root = paths.under_home("embeddings")
    stores = {}
    for split in splits:
        encoder = encoder or _choose_encoder(root / dataset / split)
        if encoder is None:
            raise MissingData(
                f"the {split} pictures of {dataset} have no embeddings in {root}",
                Line("embed", ("dataset", dataset)),
            )
        stores[split] = list(open_stores(root, dataset, split, [encoder]).values())
    return stores


def _choose_encoder(folder: Path) -> str | None:
    """Choose the first encoder of pictures in a folder, or else labels, or None."""
    labels = None
    for path in sorted(folder.glob("[!.]*.h5")):
        store = TargetStore.open(path)
        if not holds_annotations(store):
            return path.stem
        if store.attributes["config"]["kind"] == "concepts":
            labels = path.stem
    return labels


def _match_pictures(recording: Mapping[str, Trials], stores: Stores) -> Recording:
    """Look up the pictures of a person's trials in the target stores."""
    starts = _list_starts(stores)
    person = {}
    for split, trials in recording.items():
        matched = match_stimuli(trials, stores[split][0], f"{split} trials")
        person[split] = matched.change(stimulus=matched.stimulus + starts[split])
    return person


def _open_run(
    reference: str, paths: Paths, encoder: str | None
) -> tuple[str, list[Recording], Stores]:
    """Open the signals and embeddings of a run. Cross-validation has its first fold.

    Returns:
        The name of the run, the trials of each person, and the embeddings.
    """
    # an evaluation names its training and its data set
    root = paths.under_home("runs")
    recipe: dict[str, Any] = {"align_run": [reference]}
    with suppress(MissingData):  # the reference may name a training
        recipe = runs.find(root, EVALUATION, reference).recipe()
    dataset = recipe.get("dataset")
    run = open_model(
        recipe["align_run"][0],
        paths,
        parts.resolve("datasets", dataset) if dataset else None,
        recipe.get("subjects"),
        recipe.get("copies", "refuse"),
        recipe.get("channel_mapping", "none"),
    )
    refuse_sweep(run)

    stores: Stores = {}
    people: dict[int, Recording] = {}
    for split in ("train", "test"):
        stored_split = run.dataset.holdout.name_stored_split(split)
        if stored_split not in run.dataset.splits:
            continue
        split_stores = run.open_stores(split)
        if encoder and encoder not in split_stores:
            raise RecipeError(
                f"{run.reference} has no embeddings of {encoder}",
                f"its encoders: {', '.join(split_stores)}",
            )
        names = [encoder] if encoder else list(split_stores)
        stores[stored_split] = [split_stores[name] for name in names]
        start = _list_starts(stores)[stored_split]
        for model in run.models:
            for subject in model.cell.tested_on:
                person = people.setdefault(subject, {})
                stored = model.recordings.open_store(subject).splits
                if split in person or stored_split not in stored:
                    continue
                trials = model.open_trials(subject, split, is_tested=False)
                person[split] = trials.change(stimulus=trials.stimulus + start)
    return run.reference, list(people.values()), stores


def _list_starts(stores: Stores) -> dict[str, int]:
    """List the number of the first picture of each stored split."""
    starts = {}
    n_pictures = 0
    for split, split_stores in stores.items():
        starts[split] = n_pictures
        n_pictures += len(split_stores[0].done)
    return starts


def _select_trials(person: Recording, width: int) -> Recording:
    """Select evenly spaced pictures of a person, and repetitions of each.

    Args:
        person: All trials of the person.
        width: Number of values of a picture's embeddings, times the number of people.
    """
    n_pictures = {split: len(trials.signal) for split, trials in person.items()}
    n_repetitions = 1
    n_features = 0
    for trials in person.values():
        n_repetitions = max(n_repetitions, min(MAX_REPETITIONS, trials.signal.shape[1]))
        n_features = trials.width * trials.signal.shape[3]
    max_pictures = MAX_VALUES // max(width, n_repetitions * n_features)
    max_pictures = max(1, min(MAX_PICTURES, max_pictures))
    n_train = n_pictures.get("train", 0)
    max_test = max(min(MAX_TEST_PICTURES, max_pictures // 4), max_pictures - n_train)
    n_test = min(max_test, n_pictures.get("test", 0))
    limits = {"test": n_test, "train": max_pictures - n_test}

    selection = {}
    for split, trials in person.items():
        count = min(len(trials.signal), limits[split])
        rows = np.linspace(0, len(trials.signal) - 1, count).astype(int)
        rows_trials = trials.take(rows)
        # every second repetition if there are twice too many
        columns = np.arange(trials.signal.shape[1])
        share = np.minimum(1, MAX_REPETITIONS / rows_trials.counts)[:, None]
        is_next = np.floor(columns * share) > np.floor((columns - 1) * share)
        selection[split] = rows_trials.choose(rows_trials.is_there & is_next)
    return selection


def _list_pictures(person: Recording) -> Int64:
    """List the number [n] of the picture of each trial."""
    numbers = []
    for trials in person.values():
        numbers.append(np.repeat(trials.stimulus, trials.counts))
    return np.concatenate(numbers)


def _read_signals(person: Recording) -> Float32:
    """Read standardised single trials [n, F], reduced to `MAX_FEATURES`."""
    import torch

    from brainhive_cli.measurement.linear_maps import FeatureScaler

    blocks = []
    for trials in person.values():
        for start in range(0, len(trials.signal), PICTURES_PER_READ):
            rows = slice(start, start + PICTURES_PER_READ)
            singles = trials.read(rows, as_singles=True)[trials.is_there[rows]]
            blocks.append(singles.reshape(len(singles), -1))
    signals = torch.from_numpy(np.concatenate(blocks))
    scaler = FeatureScaler.fit(signals)
    return _reduce(signals.sub_(scaler.mean).div_(scaler.spread), MAX_FEATURES)


def _read_targets(stores: Stores, pictures: Int64) -> Float32:
    """Read embeddings of unit length, side by side, reduced to `MAX_WIDTH`.

    Args:
        stores: Target stores.
        pictures: Number [N] of each picture, ascending.

    Returns:
        Embeddings [N, D].
    """
    import torch
    from torch.nn.functional import normalize

    blocks = []
    for split, start in _list_starts(stores).items():
        rows = pictures[pictures >= start] - start
        rows = rows[rows < len(stores[split][0].done)]
        columns = [normalize(store.read_flat(rows)) for store in stores[split]]
        blocks.append(torch.cat(columns, 1))
    targets = torch.cat(blocks)
    return _reduce(targets - targets.mean(0), MAX_WIDTH)


def _reduce(values: "Tensor", width: int) -> Float32:
    """Reduce centred values [N, F] to at most `width` principal components."""
    from brainhive_cli.measurement.linear_maps import principal_axes

    if values.shape[1] > width:
        step = -(-len(values) // MAX_ROWS_FOR_AXES)
        values = values @ principal_axes(values[::step], width)
    return np.asarray(values.numpy(), np.float32)


def _describe_design(people: Sequence[Recording], spacing_s: Float64) -> Design:
    """Describe what was recorded, as means over people."""
    sessions = 1
    n_pictures = {"train": 0, "test": 0}
    n_trials = {"train": 0, "test": 0}
    for person in people:
        for split, trials in person.items():
            n_pictures[split] += len(np.unique(trials.stimulus))
            n_trials[split] += int(trials.counts.sum())
            if trials.sessions is not None:
                sessions = max(sessions, 1 + int(trials.sessions.max()))
    count = len(people)
    return Design(
        people=count,
        sessions=sessions,
        session_minutes=float(spacing_s.sum()) / 60 / count / sessions,
        onset_interval_s=float(np.median(spacing_s)) if len(spacing_s) else 0.0,
        train_pictures=round(n_pictures["train"] / count),
        train_repetitions=round(n_trials["train"] / max(1, n_pictures["train"])),
        test_pictures=round(n_pictures["test"] / count),
        test_repetitions=round(n_trials["test"] / max(1, n_pictures["test"])),
    )


def _list_orders(person: Recording, stores: Stores) -> list[TrialOrder]:
    """List the order of a person's trials in each split, if it is known."""
    concepts: list[str] = []
    for split_stores in stores.values():
        concepts += split_stores[0].concepts
    orders = []
    for trials in person.values():
        if trials.times_in_run is None:
            continue
        is_there = trials.is_there
        numbers = np.repeat(trials.stimulus, trials.counts)
        pictures, items = np.unique(numbers, return_inverse=True)
        order = TrialOrder.from_trials(
            items,
            [concepts[number] for number in pictures],
            index_optional(trials.sessions, is_there),
            index_optional(trials.runs, is_there),
            trials.times_in_run[is_there],
        )
        orders.append(order)
    return orders
