"""Pictures that were shown in a recording, as a preparation's key names them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import walk
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.files.ids import (
    PICTURES,
    match_names,
    plain_id,
    read_category,
    summarise_names,
)

StimuliKey = Annotated[
    Any,
    parts.part_validator("datasets", "image-folder"),
    Field(
        validate_default=True,
        description="the data set of the pictures that were shown",
    ),
]
"""Key of preparations of anyone's own data, by default `image-folder`."""


def list_pictures(stimuli: Any) -> tuple[list[str], NDArray[np.str_]]:
    """List image id and split [pictures] of the pictures of a data set, one split after
    the other.
    """
    # keys of the data set are nested in the preparation's recipe
    with name_stimuli_keys():
        split_ids = {
            split: [*stimuli.images(split).image_ids] for split in stimuli.splits
        }
    # one list over all splits
    image_ids = [image_id for ids in split_ids.values() for image_id in ids]
    return image_ids, np.repeat([*split_ids], [len(ids) for ids in split_ids.values()])


def choose_stimuli(config: Any, paths: Paths, root: Path) -> Any:
    """Choose the pictures in `stimuli` of a BIDS data set where a preparation's config
    names none, and there is no usual folder.
    """
    keys = config.stimuli
    folder = root / "stimuli"
    if (
        keys.kind != "image-folder"
        or keys.root
        or paths.dataset("image-folder").is_dir()
        or not any(Path(name).suffix.lower() in PICTURES for name, _ in walk(folder))
    ):
        return config
    keys = keys.model_copy(update={"root": str(folder), "name": keys.name or root.name})
    return config.model_copy(update={"stimuli": keys})


def build_stimuli(config: Any, paths: Paths) -> Any:
    """Build the data set of the pictures that the key `stimuli` of a preparation
    names.
    """
    with name_stimuli_keys():
        return config.stimuli.build(paths)


@contextmanager
def name_stimuli_keys() -> Iterator[None]:
    """Name keys of pictures as the preparation's recipe does, in errors of the
    block.
    """
    try:
        yield
    except BrainhiveError as error:
        # the data set writes its keys as if it were a section of the recipe
        error.hint = error.hint.replace("dataset.", "preparation.stimuli.")
        raise


def match_pictures(
    names: Sequence[str], stimuli: Any, pictures: tuple[Sequence[str], NDArray[np.str_]]
) -> tuple[list[str], NDArray[np.str_], Counter[str]]:
    """Match the names of pictures in trials with the pictures of a data set.

    Args:
        names: [n] a path, a file name or an id; "" where no picture was shown.
        stimuli: The data set.
        pictures: Image ids and splits [pictures] of its pictures.

    Returns:
        Image ids [n] and splits [n], "" where there is none, and the number of trials
        without, by reason.

    Raises:
        MissingData: if no picture of the data set was shown.
    """
    # match paths, and shorten those that match nothing by one folder at a time
    image_ids, image_splits = pictures
    distinct = list(dict.fromkeys(filter(None, names)))
    stems = Counter(image_id.rpartition("/")[2] for image_id in image_ids)
    rows = {}
    ends = {name: name.replace("\\", "/") for name in distinct}
    # names that are ids themselves, or contain all of one
    exact_names: set[str] | None = None
    if stimuli.are_categories:  # `cue/face` is no `face`
        known = {read_category(name): row for row, name in enumerate(image_ids)}
        rows = {
            name: known[key]
            for name in distinct
            if (key := read_category(name)) in known
        }
        ends = {}
        exact_names = {*rows}
    # a path may begin with a folder that the data set has not, as images/cat/cat_01.jpg
    while ends:
        matched, _ = match_names([*ends.values()], image_ids)
        rows |= {
            name: row
            for name, row in zip(ends, matched.tolist(), strict=True)
            if row >= 0
        }
        exact_names = {*rows} if exact_names is None else exact_names
        ends = {
            name: end.partition("/")[2]
            for name, end in ends.items()
            if name not in rows
        }
        ends = {
            name: end
            for name, end in ends.items()
            if "/" in end or stems[plain_id(end)] == 1
        }
    if not rows:
        raise MissingData(
            f"no picture that was shown is in {stimuli.name}, of "
            f"{summarise_names(distinct)}",
            f"it has: {', '.join(image_ids[:3])} …: preparation.stimuli.root=FOLDER",
        )

    # dog/01.jpg is not the data set's cat/01, though that has no other 01, where
    # cat/01.jpg was shown, too
    shared = Counter(rows.values())
    rows = {
        name: row
        for name, row in rows.items()
        if name in (exact_names or ()) or shared[row] == 1
    }

    # blank trials and pictures of no data set have no id
    absent = f"trials of pictures that {stimuli.name} does not have"
    return (
        [image_ids[rows[name]] if name in rows else "" for name in names],
        np.array(
            [image_splits[rows[name]] if name in rows else "" for name in names], str
        ),
        Counter(
            absent if name else "blank trials" for name in names if name not in rows
        ),
    )
