"""Categories that events name, such as face and house, with or without pictures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL.Image import Resampling
from pydantic import Field, model_validator

from brainhive_cli.core.base import MissingData, RecipeError
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.files import Names, read_category
from brainhive_cli.data.media import Clip, StimulusSet, decode, find_pictures
from brainhive_cli.data.signals import SEPARATE_TEST, Holdout

FOLDER_HINT = "dataset.root=FOLDER, with a subfolder for each category"


class Config(parts.Config):
    """Categories that were shown in trials.

    The target of a category is its label, the text embedding of its name, or the mean
    embedding of its exemplar pictures.
    """

    names: list[str] = Field(
        [],
        description=(
            "categories as events call them; default: names of the folders in `root`"
        ),
    )
    target: Literal["label", "name", "exemplars"] = Field(
        "label",
        description="target of a brain model: the label, or an embedding of the name, "
        "or of the exemplar pictures",
    )
    root: str = Field(
        "",
        description="folder with a subfolder of exemplars for each category, below "
        "paths.data",
    )
    name: str = Field(
        "categories", description="name under which stores and runs are kept"
    )
    holdout: Holdout | None = Field(
        None,
        description="tested trials, such as {by: runs, folds: 12}; default: none",
    )

    @model_validator(mode="after")
    def _check_names(self) -> "Config":
        """Require two different names, and a folder if the target needs pictures."""
        has_folder_names = bool(self.root) and not self.names
        if len(self.names) < 2 and not has_folder_names:
            raise RecipeError(
                f"dataset.names is {self.names}",
                "two categories or more, as events call them: [face,house]",
            )
        _require_different_names(self.names)
        if self.target == "exemplars" and not self.root:
            raise RecipeError("target=exemplars needs pictures", FOLDER_HINT)
        return self

    @property
    def usual_encoders(self) -> list[Any]:
        """Default encoder of the target, or [] if the number of labels is unknown."""
        if self.target != "label":
            # Default encoder by target. Labels have the encoder `concepts`.
            encoders: dict[str, Any] = {
                "name": "clip-h14-text",
                "exemplars": {"kind": "clip-h14", "views": "average"},
            }
            return [encoders[self.target]]
        if not self.names:
            return []
        return [{"kind": "concepts", "count": len(self.names)}]

    def build(self, paths: Paths) -> Dataset:
        """Make the data set. The categories are `names`, or else the names of folders.

        Raises:
            MissingData: if the folder of exemplars does not exist.
        """
        root = paths.dataset("categories", self.root) if self.root else None
        names = self.names
        if root is not None:
            if not root.is_dir():
                raise MissingData(f"categories: no folder {root}", FOLDER_HINT)
            if not names:
                names = sorted(
                    path.name
                    for path in root.iterdir()
                    if path.is_dir() and path.name[0] != "."
                )
                _require_different_names(names)
        # all trials are in one split, which the holdout divides
        return Dataset(
            self.name,
            ("train",),
            partial(_list_categories, self, tuple(names), root),
            holdout=self.holdout or SEPARATE_TEST,
            are_categories=True,
        )


def _require_different_names(names: Sequence[str]) -> None:
    """Raise an error if a name is blank, or if events cannot tell two names apart."""
    hint = "dataset.names: name each category once, by a different name"
    names_by_key: dict[str, str] = {}
    for name in names:
        if not name.strip():
            raise RecipeError(f"a category has the name {name!r}", hint)
        key = read_category(name)
        if key in names_by_key:
            raise RecipeError(
                f"categories {names_by_key[key]!r} and {name!r} are equal in events",
                hint,
            )
        names_by_key[key] = name


TINY = Config(names=["face", "house"])


def _list_categories(
    config: Config, names: Sequence[str], root: Path | None, split: str
) -> StimulusSet:
    """List the categories as stimuli with labels, names or exemplars.

    Args:
        config: Keys of the data set.
        names: Name of each category.
        root: Folder of exemplars, or None.
        split: Name of the split.
    """
    ids = Names.of(names)
    stimuli = StimulusSet(
        config.name,
        split,
        ids,
        ids,
        partial(_refuse_picture, config),
        has_pictures=False,
        way_out="dataset.target=name for captions, or label for labels, not "
        f"{config.target}",
        open_example=partial(_open_example, root, names) if root else None,
    )
    if config.target == "label":
        labels = np.eye(len(names), dtype=np.uint8)  # [N, N]
        return replace(stimuli, labels=labels.__getitem__, label_names=tuple(names))
    if config.target == "name" or root is None:
        captions = [[name.replace("_", " ")] for name in names]
        return replace(stimuli, captions=captions.__getitem__, captions_each=1)

    files, unread_counts = _find_exemplars(root, names)
    n_views = max(map(len, files))
    return replace(
        stimuli,
        open=partial(_read_exemplars, root, files, n_views),
        has_pictures=True,
        frames=n_views,
        unread_counts=unread_counts,
    )


def _open_example(root: Path, names: Sequence[str], index: int) -> Any:
    """Open the first picture in the folder of a category.

    Raises:
        MissingData: if the folder has no pictures.
    """
    files = sorted(find_pictures(root, names[index]))
    if not files:
        raise MissingData(f"categories: no pictures in {root / names[index]}")
    path = root / files[0]
    return decode(str(path), path)


def _refuse_picture(config: Config, index: int) -> Any:
    """Raise an error, because the target is a label or a name."""
    raise MissingData(
        f"the target of {config.name} is the {config.target} of a category, no picture",
        "use an encoder of it, or dataset.target=exemplars with dataset.root=FOLDER",
    )


def _find_exemplars(
    root: Path, names: Sequence[str]
) -> tuple[list[list[str]], Counter[str]]:
    """Find the pictures of each category, and count the other files by extension.

    Raises:
        MissingData: if a category has no pictures.
    """
    unread_counts = Counter[str]()
    files = []
    for name in names:
        category_files = list(find_pictures(root, name, unread_counts))
        if not category_files:
            raise MissingData(
                f"categories: no pictures in {root / name}",
                "put pictures into the folder of each category",
            )
        files.append(category_files)
    return files, unread_counts


def _read_exemplars(
    root: Path, files: Sequence[Sequence[str]], n_views: int, index: int
) -> Clip:
    """Read the exemplars of a category as frames [n_views, 256, 256, 3].

    Fewer exemplars are repeated. An average over views counts each of them once.
    """
    exemplars = []
    # Height and width to which exemplars are resized and cropped, so that they fit
    # into an array.
    side_px = 256
    for file in files[index]:
        # resize the shorter side, and crop the centre
        picture = decode(str(root / file), root / file)
        scale = side_px / min(picture.size)
        width, height = (round(length * scale) for length in picture.size)
        resized = picture.resize((width, height), Resampling.BICUBIC)
        x = (width - side_px) // 2
        y = (height - side_px) // 2
        exemplars.append(np.asarray(resized.crop((x, y, x + side_px, y + side_px))))
    views = [exemplars[view % len(exemplars)] for view in range(n_views)]
    return Clip(np.stack(views), None)
