"""Categories that events name, as face and house: a stimulus with many exemplar
pictures, or with none.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL.Image import Resampling
from pydantic import Field, model_validator

from brainhive_cli.core import parts
from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.files.ids import Names, read_category
from brainhive_cli.data.media.pictures import decode
from brainhive_cli.data.media.stimuli import Clip, StimulusSet, find_pictures
from brainhive_cli.data.signals.holdout import SEPARATE_TEST, Holdout

SIDE_PX = 256
"""Side of the square that exemplars are resized and cropped to, so that they lie in one
array.
"""
ENCODERS: dict[str, Any] = {
    "name": "clip-h14-text",
    "exemplars": {"kind": "clip-h14", "views": "average"},
}
"""Encoders that are usual for a target; a label has one number a category."""


class Config(parts.Config):
    """Categories by name, shown in trials of which some are held out.

    The target of a category is its label, its name as a text encoder embeds it, or the
    mean embedding of its exemplar pictures.
    """

    names: list[str] = Field(
        [],
        description=(
            "as events call them; default: the folders below `root`, one a category"
        ),
    )
    target: Literal["label", "name", "exemplars"] = Field(
        "label",
        description="what a brain model predicts: `concepts`, an encoder of text, or "
        "one of pictures",
    )
    root: str = Field(
        "", description="folder of exemplars, a sub-folder a category, below paths.data"
    )
    name: str = Field(
        "categories", description="name under which stores and runs are kept"
    )
    holdout: Holdout | None = Field(
        None,
        description="which trials are tested, as {by: runs, folds: 12}; default: none",
    )

    @model_validator(mode="after")
    def _names_categories(self) -> "Config":
        if len(self.names) < 2 and (self.names or not self.root):
            raise RecipeError(
                f"dataset.names is {self.names}",
                "two categories or more, as events call them: [face,house]",
            )
        # names must differ as events are read: 'face' and 'face ' are one
        _refuse_equal(self.names)
        # names and labels need no files
        if self.target == "exemplars" and not self.root:
            raise RecipeError(
                "target=exemplars needs pictures",
                "dataset.root=FOLDER, a sub-folder a category",
            )
        return self

    @property
    def usual_encoders(self) -> list[Any]:
        """Encoders of the target, where a recipe names none."""
        if self.target != "label":
            return [ENCODERS[self.target]]
        # one number a category, so that the names must be in the recipe
        return [{"kind": "concepts", "count": len(self.names)}] if self.names else []

    def build(self, paths: Paths) -> Dataset:
        """List the categories; MissingData where exemplars are absent."""
        # names of the recipe, or of the folders of exemplars
        root = paths.dataset("categories", self.root) if self.root else None
        if root is not None and not root.is_dir():
            raise MissingData(
                f"categories: no folder {root}",
                "dataset.root=FOLDER, a sub-folder a category",
            )
        names = self.names
        if root is not None and not names:
            names = sorted(
                path.name
                for path in root.iterdir()
                if path.is_dir() and path.name[0] != "."
            )
            _refuse_equal(names)
        # one split; a holdout divides its trials
        return Dataset(
            self.name,
            ("train",),
            partial(_list, self, tuple(names), root),
            holdout=self.holdout or SEPARATE_TEST,
            are_categories=True,
        )


def _refuse_equal(names: Sequence[str]) -> None:
    """Refuse names without letters, and two that are one as events are read."""
    first: dict[str, str] = {}
    for name in names:
        way = "dataset.names: two categories or more, each once, by another name"
        if not name.strip():
            raise RecipeError(f"a category is called {name!r}", way)
        key = read_category(name)
        if key in first:
            raise RecipeError(
                f"categories {first[key]!r} and {name!r} are one, as events are read",
                way,
            )
        first[key] = name


TINY = Config(names=["face", "house"])


def _list(
    config: Config, names: Sequence[str], root: Path | None, split: str
) -> StimulusSet:
    """List the categories with the labels, names or exemplars of their target."""

    def refuse(index: int) -> Any:
        raise MissingData(
            f"the target of {config.name} is the {config.target} of a category, no "
            "picture",
            "an encoder of it, or dataset.target=exemplars with dataset.root=FOLDER",
        )

    # one label a category, its name in words, or its exemplars
    offered: dict[str, Any] = {"open": refuse, "has_pictures": False}
    if config.target == "label":
        labels = np.eye(len(names), dtype=np.uint8)  # [N, N]
        offered |= {"labels": labels.__getitem__, "label_names": tuple(names)}
    elif config.target == "name":
        # names as a text encoder reads them
        words = [name.replace("_", " ") for name in names]
        offered |= {"captions": lambda index: [words[index]], "captions_each": 1}
    elif root is not None:
        # files of each category, and the number of other files among them
        unread = Counter[str]()
        files = {
            name: [*find_pictures(root, name, unread)] if (root / name).is_dir() else []
            for name in names
        }
        if empty := [name for name, listed in files.items() if not listed]:
            raise MissingData(
                f"categories: no pictures in {root / empty[0]}",
                "exemplars of each category",
            )
        # all categories have as many views, so that they lie in one array
        most = max(map(len, files.values()))
        offered = {
            "open": partial(_open, root, [*files.values()], most),
            "frames": most,
            "unread_counts": unread,
        }
    ids = Names.of(names)
    way_out = (
        f"dataset.target=name for captions, or label for labels, not {config.target}"
    )
    return StimulusSet(config.name, split, ids, ids, way_out=way_out, **offered)


def _open(root: Path, files: Sequence[Sequence[str]], most: int, index: int) -> Clip:
    """Open the exemplars of a category; one that has fewer repeats them, which an
    average counts once.
    """
    exemplars = []  # [256, 256, 3] each
    for file in files[index]:
        # resize the short side, and crop the centre
        picture = decode(str(root / file), root / file)
        scale = SIDE_PX / min(picture.size)
        width, height = (max(SIDE_PX, round(side * scale)) for side in picture.size)
        resized = picture.resize((width, height), Resampling.BICUBIC)
        left = (width - SIDE_PX) // 2
        top = (height - SIDE_PX) // 2
        exemplars.append(
            np.asarray(resized.crop((left, top, left + SIDE_PX, top + SIDE_PX)))
        )
    # [F, 256, 256, 3], with F of the category that has most exemplars
    return Clip(
        np.stack([exemplars[number % len(exemplars)] for number in range(most)]), None
    )
