"""Stores of embeddings and of signals, opened, and written from trials in memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from brainhive_cli.api.arguments import (
    check_flags,
    check_folders,
    check_subject,
    check_text,
    list_allowed,
    refuse,
)

if TYPE_CHECKING:
    from brainhive_cli.data.signals import Trials
    from brainhive_cli.data.stores import SignalStore, TargetStore


def open_store(dataset: str, split: str, encoder: str) -> "TargetStore":
    """Open the embeddings (vectors of pictures) that `embed` has stored.

    Args:
        dataset: Name of the data set, as a folder in `embeddings/`.
        split: Split of the data set, such as `train` or `test`.
        encoder: Name of the encoder, such as `clip-h14`.

    Returns:
        The store of N pictures, with these arrays:

        - `embedding` [N, *shape]: output of the encoder
        - `image_ids` [N]: name of the picture
        - `concepts` [N]: concept that the picture shows
        - `done` [N]: True if the picture is embedded already

    Examples:
        >>> store = api.open_store("DATASET", "test", "ENCODER")
        >>> store.embedding[:2]  # embeddings of the first two pictures
        >>> store.image_ids[0], store.concepts[0]
    """
    from brainhive_cli.core.base import MissingData
    from brainhive_cli.core.recipes import Paths
    from brainhive_cli.data.stores import target_store

    check_text(dataset=dataset, split=split, encoder=encoder)
    folder = Paths().under_home("embeddings")
    try:
        return target_store.open_stores(folder, dataset, split, [encoder])[encoder]
    except MissingData as error:
        # name the argument that is wrong, or else add the encoders that are there
        check_folders(folder, dataset=dataset, split=split)
        stores = (folder / dataset / split).glob("*.h5")
        names = sorted(path.stem for path in stores)
        if encoder not in names:
            error.message = f"encoder is {encoder!r}: {error.message}"
            error.hint = f"{list_allowed(names)}; to make it: {error.hint}"
        raise


def open_signals(dataset: str, subject: int, name: str = "default") -> "SignalStore":
    """Open the prepared signals of a subject.

    Args:
        dataset: Name of the data set, as a folder in `signals/`.
        subject: Number of the subject.
        name: Name of the stored signals, as in the recipe key `signal.name`.

    Returns:
        The store. `store["test"]` gives the `Trials` of the test split. They have
        `image_ids` [n] and `signal` [n, C, T]: n trials, C channels and T samples. The
        trials of a picture follow one another. `as_repetitions()` arranges them as
        [N, R, C, T]: N pictures and R repetitions.

    Examples:
        >>> signals = api.open_signals("DATASET", subject=1)
        >>> signals  # the size of each split
        >>> signals["test"].signal.shape
    """
    from brainhive_cli.core.base import MissingData
    from brainhive_cli.core.recipes import Paths
    from brainhive_cli.data.stores import signal_store

    check_text(dataset=dataset, name=name)
    check_subject(subject)
    folder = Paths().under_home("signals")
    path = signal_store.build_store_path(folder, dataset, name, subject)
    try:
        return signal_store.SignalStore.open(path)
    except MissingData as error:
        # name the argument that is wrong
        check_folders(folder, dataset=dataset, name=name)
        subjects = signal_store.list_store_subjects(folder, dataset, name)
        if subject not in subjects:
            error.message = f"subject is {subject}: {error.message}"
            error.hint = list_allowed(subjects)
        raise


def store_trials(
    X: Any,
    pictures: Any = None,
    dataset: Any = "image-folder",
    subject: int = 1,
    session: Any = None,
    run: Any = None,
    *,
    name: str = "default",
    whitened: bool | None = None,
    averaged: bool | None = None,
    **axes: Any,
) -> "Trials":
    """Write trials from memory to the signal store of a subject.

    Other commands read the store. A store of the same name is replaced.

    Args:
        X: Signals of n trials, as an array [n, C, T] of sensors or [n, V] of voxels, as
            mne.Epochs, or as xarray.DataArray.
        pictures: Picture [n] that was seen in each trial, as

            - a list of paths, file names, image ids or categories
            - the name of a column of the MNE metadata, or of an xarray coordinate
            - None, if the names of the MNE events are the pictures
        dataset: Data set of the pictures, as its kind, or as a dict such as
            `{"kind": "image-folder", "root": FOLDER, "test_share": 0.2}`. The pictures
            of the kind `categories` are the categories in `pictures`, without files.
        subject: Number of the subject.
        session: Session label [n] of each trial, or None for a single session.
        run: Label [n] of the recording run (block) of each trial, or None if unknown.
        name: Name of the stored signals, as in the recipe key `signal.name`.
        whitened: True if the signals are whitened, False if not. None adds a caveat.
        averaged: True if each trial is an average of several trials, False if not. None
            adds a caveat.
        axes: Axes of the signals, by name:

            - arrays: `channels` or `space` (`Sensors`, `Voxels`), `times_s` [T] from
              the onset of the picture, `rate_hz` and `unit`
            - epochs: `channels` or `types` of the channels to select
            - arrays and epochs: `onset_s` [n], the time of each trial in its recording
              run, or `"in order"` if the trials are in the order of time. Without it,
              the order of arrays is unknown, which adds a caveat.

    Returns:
        The m stored trials, in the order of `X`, with their positions in `X` in `index`
        [m]. A trial whose picture is not in the data set is left out, with a warning.

    Raises:
        BrainhiveError: if an axis is missing or does not fit, or if no trial shows a
            picture of the data set.

    Examples:
        >>> axes = {"channels": channels, "times_s": times_s, "unit": "µV"}
        >>> axes["onset_s"] = "in order"  # the rows of X are in the order of time
        >>> stored = api.store_trials(X, labels, "categories", subject=1, **axes)
        >>> api.open_signals("categories", subject=1)
    """
    from brainhive_cli.core.recipes import Paths
    from brainhive_cli.data.recordings import epochs
    from brainhive_cli.data.stores import own_arrays, signal_store

    check_subject(subject)
    check_text(name=name)
    check_flags(whitened=whitened, averaged=averaged)
    if pictures is None and not hasattr(X, "event_id"):
        raise refuse("pictures", pictures, "the picture or category [n] of each trial")
    if axes.get("unit") is not None:
        check_text(unit=axes["unit"])
    trials = epochs.as_trials(X, pictures, "X", **axes)
    stimuli = _resolve_dataset(dataset, trials.image_ids).build(Paths())
    folder = Paths().under_home("signals")
    path = signal_store.build_store_path(folder, stimuli.recorded_as, name, subject)

    # steps before storing, as far as they are known
    earlier_steps = {}
    if whitened is not None:
        earlier_steps["whitened"] = bool(whitened)
    if averaged is not None:
        earlier_steps["averaged"] = bool(averaged)
    return own_arrays.store_arrays(
        trials, stimuli, path, subject, earlier_steps, session, run
    )


def _resolve_dataset(dataset: Any, image_ids: Sequence[str]) -> Any:
    """Return the config of a data set, whose method `build` makes the data set.

    Args:
        dataset: Config, which is returned unchanged, kind (such as `image-folder`), or
            dict of the kind and other settings.
        image_ids: Picture or category [n] of each trial. They are the categories if the
            kind is `categories`, with neither `names` nor `root`.
    """
    from brainhive_cli.core.base import RecipeError
    from brainhive_cli.core.recipes import parts

    if hasattr(dataset, "build"):
        return dataset
    settings = dict(dataset) if isinstance(dataset, dict) else {"kind": dataset}

    # if the settings do not list the categories, take them from the trials
    has_categories = "names" in settings or "root" in settings
    if settings.get("kind") == "categories" and not has_categories:
        categories = sorted(set(image_ids) - {""})  # "" is a trial without a category
        if len(categories) < 2:
            raise RecipeError(
                f"all trials show {', '.join(categories) or 'nothing'}",
                "give at least two categories: pictures=[n] is the category of each "
                "trial of X",
            )
        settings["names"] = categories
    return parts.resolve("datasets", settings)
