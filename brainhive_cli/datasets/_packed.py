"""Pictures that lie packed, many to a file."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Protocol

from PIL import Image

from brainhive_cli import datasets
from brainhive_cli.stores.ids import Names


class Archive(Protocol):
    """Files that hold encoded pictures; it is pickled into worker processes and holds no open file."""

    def path(self, index: int) -> Path:
        """Say which file holds a picture."""
        ...

    def read(self, index: int) -> bytes:
        """Read an encoded picture; OSError or ValueError when it cannot be."""
        ...


@dataclass(frozen=True)
class Listing:
    """What lies in an archive.

    Attributes:
        names: Each picture's name there, without ending.
        labels: Each picture's class there: a number or a name, empty when it has none.
    """

    names: list[str]
    labels: list[str]
    archive: Archive


@dataclass(frozen=True)
class Packed:
    """Opens the pictures of an archive."""

    image_ids: Names
    archive: Archive

    def __call__(self, index: int) -> Image.Image:
        """Decode a picture."""
        name = f"{self.image_ids[index]} in {self.archive.path(index)}"
        try:
            data = self.archive.read(index)
        except (OSError, ValueError) as error:
            raise datasets.bad_picture(name, error) from error
        return datasets.decode(BytesIO(data), name)
