"""Signals in memory, written as a subject's store."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import library_versions
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.files.hdf5 import LazyRows
from brainhive_cli.data.recordings.epochs import warn_of_size
from brainhive_cli.data.recordings.shown_pictures import list_pictures, match_pictures
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.session_store import join_sessions
from brainhive_cli.data.stores.signal_store import SignalStore


def store_arrays(
    trials: Trials,
    dataset: Dataset,
    path: Path,
    subject: int,
    session: Any = None,
    run: Any = None,
    said: Mapping[str, Any] = MappingProxyType({}),
) -> Trials:
    """Write trials [n, 1, C, T] as a subject's store, by the splits of a data set.

    Args:
        trials: What each showed is named by path, file, id or category.
        dataset: Whose pictures these are.
        path: Of the store.
        subject: Its number.
        session: [n] label of the session of each, in any form; None where all are of
            one.
        run: [n] of the run of each; None if not known.
        said: `whitened` and `averaged`, as far as it is known.

    Returns:
        The trials that were stored, in their order: `index` says which of the n.

    Raises:
        BrainhiveError: if no picture is of the data set, or lists have other lengths.
    """
    warn_of_size(trials, path.stem)
    # pictures of the data set, and the trials that show one
    try:
        image_ids, splits, dropped = match_pictures(
            trials.image_ids, dataset, list_pictures(dataset)
        )
    except BrainhiveError as error:
        key = "preparation.stimuli.root=FOLDER"
        error.hint = error.hint.replace(key, "dataset={'kind': …, 'root': FOLDER}")
        raise
    rows = np.flatnonzero(splits != "")
    sessions, labels = _number_labels(session, "session", len(splits))
    runs, _ = _number_labels(run, "run", len(splits))
    steps = {"kind": "arrays", "whitened": "unknown", "averaged": "unknown", **said}
    left = dict(dropped)
    provenance = {
        "source": "arrays",
        "preparation": steps,
        "dataset": dataset.recorded_as,
        "subject": subject,
        "dtype": "float32",
        "files": {},
        "versions": library_versions(),
    }

    # a session after another, as preparations write them
    stores = []
    for number, label in enumerate(labels):
        session_trials = {}
        for split in dataset.splits:
            chosen = np.flatnonzero((splits == split) & (sessions == number))
            if not len(chosen):
                continue
            session_part = trials.take(chosen)
            values = np.asarray(session_part.signal, np.float32)
            session_trials[split] = replace(
                session_part,
                signal=LazyRows(values.shape, values.dtype, values.__getitem__),
                image_ids=[image_ids[row] for row in chosen.tolist()],
                provenance={"session": label, "trials": len(chosen), "dropped": left},
                runs=None if run is None else runs[chosen, None].astype(np.int16),
            )
            left = {}
        if session_trials:
            stores.append(SignalStore(path, session_trials))
    SignalStore.write(path, join_sessions(stores, None, provenance))
    for reason, count in dropped.items():
        console.warn(f"{path.stem}: {count} of {len(splits)} trials left out, {reason}")
    return replace(
        trials.take(rows),
        image_ids=[image_ids[row] for row in rows.tolist()],
        provenance=provenance,
    )


def _number_labels(labels: Any, name: str, count: int) -> tuple[Int64, list[Any]]:
    """Number the labels [n] of sessions or runs, sorted; one alone is that of all."""
    listed = np.atleast_1d(0 if labels is None else labels)
    if len(listed) not in (1, count):
        raise BrainhiveError(
            f"{len(listed)} labels of {name}, and {count} trials", "one for each trial"
        )
    known, numbers = np.unique(np.broadcast_to(listed, count), return_inverse=True)
    return numbers, known.tolist()
