"""Image sets and the recordings made with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image, UnidentifiedImageError

from brainhive_cli.errors import BrainhiveError, MissingData
from brainhive_cli.recordings import Recording

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


class BadPicture(BrainhiveError):
    """A picture that cannot be decoded."""


@dataclass(frozen=True)
class ImageSet:
    """The ordered pictures of one split.

    Attributes:
        image_ids: Path below the image root, POSIX, without extension.
        concepts: What each picture shows.
        open: Index to picture; raises BadPicture.
    """

    dataset: str
    split: str
    image_ids: tuple[str, ...]
    concepts: tuple[str, ...]
    open: Callable[[int], Image.Image]

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.image_ids)


class Dataset(Protocol):
    """A data set, built by its part's Config."""

    @property
    def name(self) -> str:
        """The name under which its stores and runs are kept."""
        ...

    @property
    def recorded_as(self) -> str:
        """The name under which its signals are kept; not `name` where the same pictures have several."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of its pictures."""
        ...

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects who saw them."""
        ...

    @property
    def channels(self) -> tuple[str, ...] | None:
        """The channels that decoding uses unless told otherwise; None is all."""
        ...

    def images(self, split: str) -> ImageSet:
        """List the pictures of a split."""
        ...

    def recording(self, subject: int, split: str) -> Recording:
        """Open one subject's recording of a split."""
        ...


def check_split(dataset: Dataset, split: str) -> None:
    """Refuse a split that the data set does not have."""
    if split not in dataset.splits:
        raise MissingData(f"{dataset.name} has no split {split!r}", f"it has: {', '.join(dataset.splits)}")


def from_files(
    dataset: str, split: str, root: Path, files: Sequence[Path], concepts: Sequence[str]
) -> ImageSet:
    """Make an image set of files below an image root.

    Raises:
        BrainhiveError: if two files differ in their endings only, and so have one image id.
    """
    image_ids = tuple(file.relative_to(root).with_suffix("").as_posix() for file in files)
    by_id: dict[str, Path] = {}
    for image_id, file in zip(image_ids, files, strict=True):
        if by_id.setdefault(image_id, file) != file:
            raise BrainhiveError(
                f"{file} and {by_id[image_id].name} have one image id", "rename or remove one"
            )
    return ImageSet(dataset, split, image_ids, tuple(concepts), lambda index: open_picture(files[index]))


def open_picture(path: Path) -> Image.Image:
    """Decode a picture as RGB.

    Raises:
        BadPicture: naming the file.
    """
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadPicture(
            f"{path} cannot be decoded: {error}", "replace the file, or accept the gap with --skip-bad"
        ) from error


def pictures_below(folder: Path) -> list[Path]:
    """List the picture files below a folder, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
