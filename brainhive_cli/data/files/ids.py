"""Names of pictures: packed in arrays, normalised, and matched to each other."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, Self, overload
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.base import BrainhiveError, Int64, MissingData

PICTURES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .avif .avifs .bmp .dib .gif .ico .jp2 .j2k "
    ".j2c .jpc .jpf .jpx .pbm .pgm .ppm .pnm .pfm .tif .tiff".split()
)
"""Extensions of picture files, as Pillow registers them for the formats we decode."""


def name_stimulus(image_id: str) -> str:
    """Name a stimulus for people: the name of its file, with spaces for underscores.

    The name of the folder comes first if the name of the file has no letter, as in
    `cat 1`.
    """
    folders, _, name = image_id.rpartition("/")
    if not any(map(str.isalpha, name)):
        name = f"{folders.rpartition('/')[2]} {name}"
    return name.replace("_", " ").strip()


class Names(Sequence[str]):
    """Immutable strings, packed in one array as fixed-width UTF-8.

    Processes can share the array. Reading a list would write reference counts, so that
    each process copies its pages.

    Args:
        packed: Array [N] of UTF-8.
    """

    def __init__(self, packed: NDArray[np.bytes_]) -> None:
        self.packed = packed

    @classmethod
    def of(cls, names: Iterable[str]) -> Self:
        """Pack strings.

        Raises:
            BrainhiveError: if a name is not UTF-8, as the name of a file may be.
        """
        if isinstance(names, cls):
            return names
        try:
            return cls(np.array([name.encode() for name in names], np.bytes_))
        except UnicodeEncodeError as error:
            raise BrainhiveError(
                f"{error.object!r} is not UTF-8", "rename the file"
            ) from error

    def __len__(self) -> int:
        """Return N."""
        return len(self.packed)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> str: ...

    @overload
    def __getitem__(self, index: slice | Int64) -> Self: ...

    def __getitem__(self, index: int | np.integer[Any] | slice | Int64) -> str | Self:
        """Return the name at an integer, or the names of a slice or an array."""
        packed = self.packed[index]
        return packed.decode() if isinstance(packed, bytes) else type(self)(packed)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return map(bytes.decode, self.packed.tolist())

    def __repr__(self) -> str:
        """Return the number of names and the first names."""
        # Largest number of names that `print(names)` shows.
        max_printed_names = 3
        first_names = ", ".join(map(repr, self[:max_printed_names]))
        dots = ", …" if len(self) > max_printed_names else ""
        return f"<{len(self)} Names: {first_names}{dots}>"

    def __eq__(self, other: object) -> bool:
        """Compare with Names, a list or a tuple, including the order."""
        if isinstance(other, list | tuple):
            return list(self) == list(other)
        return isinstance(other, Names) and np.array_equal(self.packed, other.packed)

    @property
    def digest(self) -> str:
        """Digest of the names in their order, 16 hexadecimal digits."""
        # separate the names, so that [ab, c] and [a, bc] differ
        return hashlib.sha256(b"\0".join(self.packed.tolist())).hexdigest()[:16]


def compose_characters(name: str) -> str:
    """Compose the characters of a name (NFC), since macOS decomposes `é`."""
    return name if name.isascii() else normalize("NFC", name)


def normalise_name(name: str) -> str:
    """Normalise the name of an event: NFC, and whole numbers without a point."""
    # Whole number with a point, such as 13.0, as programs write in columns with gaps.
    match = re.fullmatch(r"(-?\d+)\.0*", name)
    return compose_characters(match[1] if match else name)


def to_image_id(name: str) -> str:
    """Convert a path to the form of image ids: with /, without picture extension."""
    # events may have paths written on Windows
    path = PurePosixPath(name.strip().replace("\\", "/"))
    is_picture = path.suffix.lower() in PICTURES
    return (path.with_suffix("") if is_picture else path).as_posix()


def to_table_cell(name: str) -> str:
    """Convert a name to the cell of a TSV.

    Characters that a cell cannot hold become spaces, and an initial quotation mark
    becomes an apostrophe.
    """
    # A cell of a TSV cannot hold tabs, line ends and control characters.
    text = re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", " ", name)
    return re.sub('^"', "'", text.strip())


def read_category(name: str) -> str:
    """Normalise the name of a category from a recipe, a folder or an event."""
    return normalise_name(to_image_id(to_table_cell(name)))


def match_ids(requested: Sequence[str], image_ids: Sequence[str], source: str) -> Int64:
    """Find the row of each image id by `match_names`.

    Args:
        requested: Image ids, or names of picture files in users' signal stores.
        image_ids: Image id of each row.
        source: Source of the rows, for the message.

    Raises:
        MissingData: if an id is absent.
        BrainhiveError: if a name could mean several pictures.
    """
    rows, unknown_names = match_names(requested, image_ids)
    if unknown_names:
        raise MissingData(
            f"{source} has no picture {unknown_names[0]!r}, of "
            f"{summarise_names(image_ids)}",
            "name pictures by their paths below the image root, or their stems; if "
            "pictures were added since, embed the same data set and split again",
        )
    return rows


def match_names(
    names: Sequence[str],
    image_ids: Sequence[str],
    *,
    each_once: bool = False,
    are_categories: bool = False,
    allows_other_folders: bool = False,
) -> tuple[Int64, list[str]]:
    """Find the picture of each name.

    The name and the image id are equal, else either is the end of the other: `b` or
    `x/a/b` for the id `a/b`.

    Args:
        names: Names of pictures.
        image_ids: Image ids of the data set.
        each_once: If True, raise an error if two names mean the same picture.
        are_categories: If True, only whole names match, as read by `read_category`:
            `cue/face` does not match `face`.
        allows_other_folders: If True, other names match without their first folders, as
            `x/a/b` matches the id `y/a/b`, unless several of them match one picture. A
            name without its folders must be the end of a single image id.

    Returns:
        Row [N] of the image id of each name, -1 if there is none, and the names without
        a match.

    Raises:
        BrainhiveError: if a name could mean several pictures, or for `each_once`.
    """
    row_of_id = {image_id: row for row, image_id in enumerate(image_ids)}
    rows = np.array([row_of_id.get(name, -1) for name in names], np.int64)
    positions = np.flatnonzero(rows < 0).tolist()
    read = read_category if are_categories else compose_characters
    plain_names = []
    for position in positions:
        name = names[position]
        plain_names.append(read(name if are_categories else to_image_id(name)))
    rows_of_id = defaultdict(list)
    for image_id, row in row_of_id.items() if positions else ():
        rows_of_id[read(image_id)].append(row)

    # find the first few ids that end in a name, or in an end of it
    rows_of_end: dict[str, list[int]] = {}
    for name in set(plain_names) - rows_of_id.keys():
        if not are_categories:
            rows_of_end[name] = []
            ends = path_ends(name) if allows_other_folders else ()
            rows_of_end |= {end: [] for end in ends}
    # Largest number of pictures that a message lists for an ambiguous name.
    shown_matches = 3
    if rows_of_end:
        for image_id, id_rows in rows_of_id.items():
            for end in path_ends(image_id):
                end_rows = rows_of_end.get(end)
                if end_rows is not None and len(end_rows) < shown_matches:
                    end_rows += id_rows

    clashes = []
    shortened = []  # positions of names that match without their first folders
    for position, name in zip(positions, plain_names, strict=True):
        matches = rows_of_id.get(name, [])
        if not matches and name in rows_of_end:
            matches = list(rows_of_end[name])
            for end in path_ends(name):
                matches += rows_of_id.get(end, [])
            matches.sort()
            if not matches and allows_other_folders:
                shortened.append(position)
                for end in path_ends(name):
                    end_rows = rows_of_end[end]
                    if not matches and ("/" in end or len(end_rows) == 1):
                        matches = end_rows
        if len(matches) > 1:
            texts = [image_ids[row] for row in matches[:shown_matches]]
            clashes.append(f"{name} could be {' or '.join(texts)}")
        if matches:
            rows[position] = matches[0]
    if clashes:
        raise BrainhiveError(
            f"names mean several pictures, {summarise_names(clashes)}",
            "name them by their path below the image folder",
        )

    unknown_names = [name for name, row in zip(names, rows, strict=True) if row < 0]
    counts = Counter(rows.tolist())
    repeated_ids = []
    for row in sorted(counts.keys() - {-1}):
        if counts[row] > 1:
            repeated_ids.append(image_ids[row])
    if each_once and repeated_ids:
        raise BrainhiveError(
            f"pictures have several vectors, {summarise_names(repeated_ids)}",
            "give the vectors of a single encoder",
        )
    # if cat/01.jpg matches the picture cat/01, the short match of dog/01.jpg is wrong
    for position in shortened:
        if counts[int(rows[position])] > 1:
            rows[position] = -1
    return rows, unknown_names


def path_ends(path: str) -> Iterator[str]:
    """Yield the text after each slash of a path, the longest first."""
    start = path.find("/") + 1
    while start:
        yield path[start:]
        start = path.find("/", start) + 1


def summarise_names(names: Sequence[str], of: int | None = None) -> str:
    """Count names and list the first three, such as `12 of 200: a, b, c …`.

    Args:
        names: The names. Unprintable characters are escaped.
        of: Total number, if the text should have it.
    """
    count = f"{len(names)} of {of}" if of else str(len(names))
    texts = [name if name.isprintable() else repr(name) for name in names[:3]]
    return f"{count}: {', '.join(texts)}{' …' if len(names) > 3 else ''}"


def format_ranges(numbers: Sequence[int]) -> str:
    """Format whole numbers as ranges, such as `1–3, 5`."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    texts = []
    for start, stop in ranges:
        texts.append(str(start) if start == stop else f"{start}–{stop}")
    return ", ".join(texts)
