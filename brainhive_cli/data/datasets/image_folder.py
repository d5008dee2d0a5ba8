"""Any folder of pictures, one sub-folder a concept."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Bool, Int64
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files import hint_at_folder, locate, read_lines
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import SPLIT_FOLDERS, Dataset
from brainhive_cli.data.downloads.sources import SOURCES
from brainhive_cli.data.files.ids import match_names, summarise_names
from brainhive_cli.data.files.published_files import fetch_line
from brainhive_cli.data.media.stimuli import (
    StimulusSet,
    describe_unread,
    find_pictures,
    make_stimulus_set,
)
from brainhive_cli.data.signals.holdout import HOLDOUT_FIELD, SEPARATE_TEST, Holdout

FEW_PICTURES = 300
"""Training pictures up to which a ridge is the usual brain encoder."""


class Config(parts.Config):
    """A folder of pictures.

    With sub-folders named train, validation (or val) or test these are the splits; else
    all pictures are `train`, less the share of concepts held out as `test`, or the
    pictures that `test_list` names.
    """

    offline_encoders: ClassVar[Sequence[str]] = ("lite0", "gabor")
    """Encoders of recipes that name none, where weights of the hub are not here."""

    root: str = Field(
        "", description="the folder; default: image-folder below paths.data"
    )
    name: str = Field(
        "",
        description=(
            "name under which stores and runs are kept; default: the folder's name"
        ),
    )
    test_share: float = Field(
        0.0, ge=0, lt=1, description="share of concepts held out as the test split"
    )
    seed: int = Field(0, ge=0, description="seed of the choice of held-out concepts")
    test_list: str = Field(
        "",
        description="text file with a test picture in each line, as CONCEPT/FILE.jpg; "
        "all others are train, whatever folders are called",
    )
    holdout: Holdout | None = HOLDOUT_FIELD
    exclude_test_concepts: bool = Field(
        True,
        description="with test_list: leave training pictures out whose concept a test "
        "picture shows",
    )

    @model_validator(mode="after")
    def _chooses_test_pictures_once(self) -> Self:
        choices = [
            name
            for name in ("test_list", "test_share", "holdout")
            if getattr(self, name)
        ]
        if len(choices) > 1:
            raise ValueError(
                f"{' and '.join(choices)} all choose what is tested: leave one"
            )
        if not (self.test_list or self.exclude_test_concepts):
            raise ValueError("exclude_test_concepts needs a test_list")
        return self

    def few_pictures(self, paths: Paths) -> int:
        """Count to how many training pictures a ridge is the usual brain encoder; 0
        where there are more.
        """
        is_few = len(self.build(paths).images("train").image_ids) <= FEW_PICTURES
        return FEW_PICTURES if is_few else 0

    def build(self, paths: Paths) -> Dataset:
        """Open the folder; MissingData when it is absent or empty."""
        # the folder, or the line that fetches the data set it belongs to
        root = paths.dataset("image-folder", self.root)
        if not root.is_dir():
            way = hint_at_folder(
                root, "dataset.root", self.root, "one sub-folder a concept"
            )
            fetched = (kind for kind, source in SOURCES.items() if source.web_files)
            from_web = next(
                (kind for kind in fetched if paths.dataset(kind, "") in root.parents),
                "",
            )
            raise MissingData(
                f"image-folder: no folder {root}",
                fetch_line(from_web) if from_web else way,
            )
        # as the user calls it, whatever a link leads to
        name = self.name or Path(os.path.abspath(root)).name

        # folders of splits; with a list, `train` and `test` may be concepts
        folders = {}
        for split, names in {} if self.test_list else SPLIT_FOLDERS.items():
            # the first name counts
            if there := [name for name in names if (root / name).is_dir()]:
                folders[split] = there[0]
        if self.holdout and folders.keys() - {"train"}:
            raise RecipeError(
                f"dataset.holdout divides pictures of train, and {root} has a "
                f"folder {[*folders][-1]}, too",
                "put all pictures into train, or leave holdout out",
            )

        # without such folders, a share or a list divides the pictures
        divided = ("train", "test") if self.test_share or self.test_list else ("train",)
        return Dataset(
            name,
            tuple(folders) or divided,
            partial(_images, self, name, root, folders),
            lists=(locate(self.test_list),) if self.test_list else (),
            holdout=self.holdout or SEPARATE_TEST,
        )


TINY = Config(test_share=0.5)


def _images(
    config: Config, name: str, root: Path, folders: Mapping[str, str], split: str
) -> StimulusSet:
    """List the pictures of a split, sorted by path."""
    folder = folders.get(split, "")
    unread = Counter[str]()
    files = list(find_pictures(root, folder, unread))
    if not files:
        problem = f"image-folder: no pictures under {root / folder}"
        if unread:
            problem += f", {describe_unread(unread)}"
        raise MissingData(problem, "pictures end in .jpg, .png, .webp …")

    # a picture directly in the folder, or in a split's, is a concept of its own
    paths = [PurePath(file.removeprefix(f"{folder}/")) for file in files]
    concepts = [path.parent.name or path.stem for path in paths]

    # a share of concepts, or the pictures of a list, are the test
    if not folders and (config.test_share or config.test_list):
        rows = _choose(config, root, split, files, np.array(concepts)).tolist()
        files = [files[row] for row in rows]
        concepts = [concepts[row] for row in rows]
    return make_stimulus_set(name, split, root, files, concepts, unread)


def _choose(
    config: Config,
    root: Path,
    split: str,
    files: Sequence[str],
    concepts: NDArray[np.str_],
) -> Int64:
    """Choose the pictures of a split among all: by a list, or by the concepts that are
    held out.
    """
    if config.test_list:
        # other pictures of a tested concept are in no split, unless the recipe keeps
        # them
        is_test = _is_listed(locate(config.test_list), root, files)
        is_tested = (
            np.isin(concepts, concepts[is_test])
            if config.exclude_test_concepts
            else is_test
        )
    else:
        # whole concepts are held out, in an order that the seed draws
        names = sorted(set(concepts.tolist()))
        order = np.random.default_rng(config.seed).permutation(len(names))
        held_out = [
            names[index] for index in order[: round(config.test_share * len(names))]
        ]
        is_test = is_tested = np.isin(concepts, held_out)
    return np.flatnonzero(is_test if split == "test" else ~is_tested)


def _is_listed(path: Path, root: Path, files: Sequence[str]) -> Bool:
    """Mark the pictures [N] that a list names, or refuse a file that is no list of
    pictures.
    """
    # a name in each line, with quotes or commas around it
    try:
        lines = read_lines(path)
    except (OSError, ValueError) as error:
        raise MissingData(
            f"no list of test pictures {path}", "dataset.test_list=FILE"
        ) from error
    hint = "a picture in each line: CONCEPT/FILE.jpg"
    if not (names := [name for line in lines if (name := line.strip(' ",'))]):
        raise BrainhiveError(f"{path} lists no pictures", hint)

    # each name must be that of a picture
    rows, unknown = match_names(names, [os.path.splitext(file)[0] for file in files])
    if unknown:
        problem = (
            f"test pictures that are not below {root}, "
            f"{summarise_names(unknown, len(names))}"
        )
        raise BrainhiveError(f"{path}: {problem}", hint)
    return np.isin(np.arange(len(files)), rows)  # [N]
