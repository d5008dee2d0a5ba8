"""Signal store of a subject, written from arrays in memory."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.base import BrainhiveError, Int64, RecipeError, console
from brainhive_cli.core.runs import library_versions
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.recordings import list_pictures, match_pictures, warn_of_size
from brainhive_cli.data.signals import Trials
from brainhive_cli.data.stores.session_store import complete_session, join_sessions
from brainhive_cli.data.stores.signal_store import SignalStore


def store_arrays(
    trials: Trials,
    dataset: Dataset,
    path: Path,
    subject: int,
    earlier_steps: Mapping[str, Any],
    session: Any = None,
    run: Any = None,
) -> Trials:
    """Write trials [n, C, T] as the store of a subject, by split of a data set.

    Trials of pictures that the data set does not have are left out with a warning.

    Args:
        trials: Trials, whose image ids are paths, file names, image ids or categories.
        dataset: Data set of the pictures.
        path: Path of the store.
        subject: Number of the subject.
        earlier_steps: Values of `whitened` and `averaged`, as far as they are known.
        session: Session label [n] of each trial, or a label for all. None if all trials
            are of the same session.
        run: Run label [n] of each trial, or a label for all, or None if unknown.

    Returns:
        The stored trials, in their order. `index` holds their positions in `trials`.

    Raises:
        BrainhiveError: if no picture is in the data set, or the number of labels is
            wrong.
    """
    warn_of_size(trials, path.stem)
    try:
        image_ids, splits, dropped = match_pictures(
            trials.image_ids, dataset, list_pictures(dataset)
        )
    except BrainhiveError as error:
        # the advice names the argument of the function, not a key of a recipe
        key = "preparation.stimuli.root=FOLDER"
        error.hint = error.hint.replace(key, "dataset={'kind': …, 'root': FOLDER}")
        raise
    sessions, session_labels = _number_labels(session, "session", len(splits))
    runs, _ = _number_labels(run, "run", len(splits))
    steps = {"kind": "arrays", "whitened": "unknown", "averaged": "unknown"}
    provenance = {
        "source": "arrays",
        "preparation": {**steps, **earlier_steps},
        "dataset": dataset.recorded_as,
        "subject": subject,
        "dtype": "float32",
        "files": {},
        "versions": library_versions(),
    }

    # make a store for each session, as preparations do
    names = np.array(image_ids)
    stores = []
    unreported_drops = dict(dropped)
    for number, label in enumerate(session_labels):
        recordings = {}
        for split in dataset.splits:
            is_stored = (splits == split) & (sessions == number)
            if not is_stored.any():
                continue
            recordings[split] = replace(
                trials.choose(is_stored),
                image_ids=names[is_stored].tolist(),
                provenance={"dropped": unreported_drops},
                runs=None if run is None else runs[is_stored].astype(np.int16),
            )
            # the first recording reports all dropped trials
            unreported_drops = {}
        if recordings:
            session_trials = complete_session(label, recordings, "float32")
            stores.append(SignalStore(path, session_trials))
    SignalStore.write(path, join_sessions(stores, None, provenance))
    for reason, count in dropped.items():
        console.warn(f"{path.stem}: {count} of {len(splits)} trials left out, {reason}")

    is_stored = splits != ""
    return replace(
        trials.choose(is_stored),
        image_ids=names[is_stored].tolist(),
        provenance=provenance,
    )


def _number_labels(labels: Any, name: str, count: int) -> tuple[Int64, list[Any]]:
    """Number the labels of sessions or runs.

    Args:
        labels: Label [n] of each trial, or a label for all, or None.
        name: Noun for a label, for the error.
        count: Number n of trials.

    Returns:
        Number [n] of each trial's label, from 0, and the distinct labels, sorted.
    """
    is_list = np.iterable(labels) and not isinstance(labels, str)
    if is_list and len(labels) != count:
        raise RecipeError(
            f"the list of {name}s has length {len(labels)}, but there are {count} "
            "trials",
            "give a label for each trial, or a single one for all",
        )
    label_array = np.atleast_1d(0 if labels is None else labels)
    distinct_labels, numbers = np.unique(
        np.broadcast_to(label_array, count), return_inverse=True
    )
    return numbers, distinct_labels.tolist()
