"""Pictures in the place of stimuli, such as those that were made from their captions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from PIL import Image

from brainhive_cli.core import home
from brainhive_cli.core.errors import MissingData
from brainhive_cli.data.datasets import StimulusSet, decode, pictures_below
from brainhive_cli.data.stores.ids import Names, match_names, summarise_names


@dataclass(frozen=True)
class Replacements:
    """Opens the picture of each stimulus; like a data set's own, it is pickled and holds no open file.

    Attributes:
        root: The folder.
        files: [N] each stimulus's picture below it.
    """

    root: Path
    files: Names

    @classmethod
    def of(cls, folder: str, stimuli: StimulusSet) -> Self:
        """Find the pictures of all stimuli by their ids, or the ids' last part.

        Raises:
            MissingData: if the folder is not there, or a stimulus has no picture.
            BrainhiveError: if a stimulus has several.
        """
        root = home.located(folder)
        if not root.is_dir():
            raise MissingData(f"no folder {folder!r} of pictures", "name a folder that exists")
        names = list(pictures_below(root))
        by_row = dict(zip(match_names(names, stimuli.image_ids).rows.tolist(), names, strict=True))
        where = f"{stimuli.dataset}/{stimuli.split}"
        if absent := [each for row, each in enumerate(stimuli.image_ids) if row not in by_row]:
            raise MissingData(
                f"{folder} lacks pictures of {where}, {summarise_names(absent, len(stimuli))}",
                "name its pictures by image id",
            )
        return cls(root, Names.of(by_row[row] for row in range(len(stimuli))))

    def __call__(self, index: int) -> Image.Image:
        """Decode a picture; raises BadPicture."""
        path = f"{self.root}/{self.files[index]}"
        return decode(path, path)
