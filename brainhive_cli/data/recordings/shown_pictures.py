"""Pictures that were shown in a recording."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from brainhive_cli.core.base import BrainhiveError, MissingData
from brainhive_cli.core.files import walk
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.files import PICTURES, match_names, summarise_names

StimuliKey = Annotated[
    Any,
    parts.part_validator("datasets", "image-folder"),
    Field(
        validate_default=True,
        description="the data set of the pictures that were shown",
    ),
]
"""Recipe key of a preparation for its data set of pictures."""
UNFITTED_STEPS = {"whiten": "no", "estimator": "lsa", "zscore": "no"}
"""Values of keys of preparations with which no step is fitted to several trials."""


def list_pictures(stimuli: Any) -> tuple[list[str], NDArray[np.str_]]:
    """List the image id and the split of each picture, split by split.

    Args:
        stimuli: Data set.
    """
    image_ids: list[str] = []
    splits: list[str] = []
    with name_stimuli_keys():
        for split in stimuli.splits:
            split_ids = list(stimuli.images(split).image_ids)
            image_ids += split_ids
            splits += [split] * len(split_ids)
    return image_ids, np.array(splits, str)


def leave_trials_apart(fields: Any, keys: Collection[str]) -> Any:
    """Set `UNFITTED_STEPS` as defaults of a preparation if it is of categories.

    Categories have no test split. Their trials are held out after the preparation, so
    no step may be fitted to all trials.

    Args:
        fields: Fields of the config of a preparation, before they are checked.
        keys: Keys that the config has.
    """
    if not isinstance(fields, Mapping):
        return fields
    stimuli = fields.get("stimuli")
    if isinstance(stimuli, Mapping):
        stimuli = stimuli.get("kind")
    if getattr(stimuli, "kind", stimuli) != "categories":
        return fields
    defaults = {key: value for key, value in UNFITTED_STEPS.items() if key in keys}
    return {**defaults, **fields}


def choose_stimuli(config: Any, paths: Paths, root: Path) -> Any:
    """Set the key `stimuli` to the folder `stimuli` of a BIDS data set.

    The key stays unchanged if it is set, if the default image folder exists, or if the
    data set has no pictures.

    Args:
        config: Config of a preparation.
        paths: Paths of the data sets.
        root: Folder of the BIDS data set.

    Returns:
        The config, or a copy with the new value.
    """
    keys = config.stimuli
    if keys.kind != "image-folder" or keys.root:
        return config
    if paths.dataset("image-folder").is_dir():
        return config
    folder = root / "stimuli"
    for name, _ in walk(folder):
        if Path(name).suffix.lower() in PICTURES:
            values = {"root": str(folder), "name": keys.name or root.name}
            stimuli = keys.model_copy(update=values)
            return config.model_copy(update={"stimuli": stimuli})
    return config


def build_stimuli(config: Any, paths: Paths) -> Any:
    """Build the data set of the key `stimuli` of a preparation."""
    with name_stimuli_keys():
        return config.stimuli.build(paths)


@contextmanager
def name_stimuli_keys() -> Iterator[None]:
    """Context manager that writes `preparation.stimuli.` for `dataset.` in hints."""
    try:
        yield
    except BrainhiveError as error:
        error.hint = error.hint.replace("dataset.", "preparation.stimuli.")
        raise


def match_pictures(
    names: Sequence[str], stimuli: Any, pictures: tuple[Sequence[str], NDArray[np.str_]]
) -> tuple[list[str], NDArray[np.str_], Counter[str]]:
    """Match the picture names of trials with the pictures of a data set.

    Args:
        names: Path, file name or image id [n] of each trial, or "" for a blank trial.
        stimuli: Data set.
        pictures: Image ids and splits of its pictures, from `list_pictures`.

    Returns:
        Image id [n] and split [n] of each trial ("" without a match), and counts of the
        trials without a match by reason.

    Raises:
        MissingData: if no trial has a match.
    """
    image_ids, image_splits = pictures
    distinct_names = list(dict.fromkeys(filter(None, names)))
    rows, unknown_names = match_names(
        distinct_names,
        image_ids,
        are_categories=stimuli.are_categories,
        allows_other_folders=True,
    )
    if len(unknown_names) == len(distinct_names):
        raise MissingData(
            f"no picture that was shown is in {stimuli.name}, of "
            f"{summarise_names(distinct_names)}",
            f"it has: {', '.join(image_ids[:3])} …: preparation.stimuli.root=FOLDER",
        )

    row_of = dict(zip(distinct_names, rows.tolist(), strict=True))
    trial_ids = []
    trial_splits = []
    missing_counts = Counter[str]()
    for name in names:
        row = row_of.get(name, -1)
        trial_ids.append("" if row < 0 else image_ids[row])
        trial_splits.append("" if row < 0 else image_splits[row])
        if row < 0:
            absent = f"trials of pictures that {stimuli.name} does not have"
            missing_counts[absent if name else "blank trials"] += 1
    return trial_ids, np.array(trial_splits, str), missing_counts
