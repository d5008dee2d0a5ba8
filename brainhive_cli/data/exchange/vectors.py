"""Vectors of pictures as other projects keep them: recognised by layout, copied to
stores, and written.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Array, Int64, UInt64
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingData,
    RecipeError,
    first_line,
)
from brainhive_cli.core.files import atomic_write, read_regular, walk
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.files import pickles
from brainhive_cli.data.files.ids import summarise_names
from brainhive_cli.data.files.parquet import import_pyarrow, open_parquet
from brainhive_cli.data.media.picture_digests import describe_pixels
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.stores.target_store import (
    PIXEL_WORDS,
    PIXELS,
    TargetStore,
    find_finite,
)
from brainhive_cli.data.stores.target_writer import Blank, filling, finish_stores

VECTORS_PER_BATCH = 1024
"""Vectors read or written at a time."""
NAMES = "file_names.txt"
"""Where thingsvision keeps the order of its features."""
FEATURES = (".npy", ".pt")
"""Endings of the files of its features."""
PARQUET_PART = "-part-"
"""BrainHiVE's parquet files are called {data
set}_{split}_{encoder}-part-00000-of-00000.parquet.
"""
ORDERED_LAYOUT = "rows in the order of the pictures"
"""The layout of an array without names."""
AGAIN = "fetch it again"
"""What to do about a damaged file."""
ALONE = Launch(0, 1, torch.device("cpu"))
"""One process reads files from start to end."""


@dataclass(frozen=True)
class Vectors:
    """Vectors in somebody else's files.

    Attributes:
        layout: Whose way of keeping them it is.
        files: The files that hold them.
        names: [N] what the files call the pictures.
        batches: Reads the vectors, [n, D] or [n, S, D] at a time, in the order of
            `names`.
        says_encoder: Whether the files' names say which encoder made them.
    """

    layout: str
    files: Sequence[Path]
    names: Sequence[str]
    read_batches: Callable[[], Iterator[Array]]
    has_encoder_name: bool = False


def open_vectors(
    files: Sequence[Path],
    known_as: Sequence[str],
    suffix: str = "",
    row_names: Sequence[str] | None = None,
) -> Vectors:
    """Recognise the layout of files or folders; the vectors stay on disk where the
    layout allows.

    Args:
        files: Files, or one folder.
        known_as: Names of the encoder, which choose among BrainHiVE's parquet files.
        suffix: What follows the picture's name in the names of files that hold one
            vector each.
        row_names: Names of the rows of an array that has none; None where such an array
            is refused.

    Raises:
        MissingData: if nothing there is known.
        BrainhiveError: if a file is broken, unsafe or of another layout.
    """
    with report_damage(files[0], AGAIN):
        # the layout follows from the files
        below = (file / name for file in files for name, _ in walk(file))
        tables = [
            file
            for file in (*files, *below)
            if file.suffix == ".parquet" and not file.is_dir()
        ]
        if len(files) == 1 and (files[0] / NAMES).is_file():
            vectors = _thingsvision(files[0])
        elif tables:
            vectors = _cache(tables, known_as)
        elif all(file.is_dir() for file in files):
            vectors = _tree(files, suffix)
        elif all(file.suffix in pickles.ENDINGS for file in files):
            vectors = _dictionaries(files, row_names)
        else:
            raise MissingData(
                f"{files[0]} is in no known layout",
                f"known: .parquet, {', '.join(pickles.ENDINGS)}, a folder of .npy, "
                "a folder of thingsvision",
            )

    # a suffix that selects nothing is an error in the command line
    if suffix and vectors.layout != f"*{suffix}.npy":
        raise RecipeError(
            f"suffix is {suffix!r}, which has no effect on the layout {vectors.layout}",
            "no suffix",
        )
    return vectors


def read_checked_batches(vectors: Vectors) -> Iterator[Array]:
    """Read batches [n, *shape], all of one shape without an axis of 0.

    Raises:
        BrainhiveError: if they differ in shape, are empty or are no numbers.
    """
    # batches are read lazily, so damage may show only here
    file = vectors.files[0]
    shape = ()
    with report_damage(file, AGAIN):
        for batch in vectors.read_batches():
            # the first batch fixes the shape of all
            shape = shape or batch.shape[1:]
            if (
                batch.shape[1:] != shape
                or not shape
                or 0 in shape
                or batch.dtype.kind not in "fiu"
            ):
                problem = (
                    f"{file} has {batch.dtype} {list(batch.shape[1:])} where vectors "
                    "of numbers should be"
                )
                raise BrainhiveError(
                    f"{problem}, all of one shape", "give one encoder's vectors only"
                )
            yield batch


def _cache(files: Sequence[Path], known_as: Sequence[str]) -> Vectors:
    """BrainHiVE's cache: `image_id` (the file's stem) and `emb`; files' names say which
    encoder made them.
    """
    # files of the encoder, where file names say it
    makers = {file: file.stem.rpartition(PARQUET_PART)[0] for file in files}
    endings = tuple(f"_{name}" for name in known_as)
    ours = [file for file, maker in makers.items() if maker.endswith(endings)]
    if any(makers.values()) and not ours:
        raise MissingData(
            f"no parquet of {' or '.join(known_as)}, only "
            f"{', '.join(sorted({*makers.values()})[:6])}",
            "give the encoder that made them: --encoders NAME",
        )

    # names of the rows, without their vectors
    files = ours or files
    names: list[str] = []
    for file in files:
        with report_damage(file, AGAIN):
            table = open_parquet(file)
        columns = table.schema_arrow.names
        # full ids, or stems
        column = "path" if "path" in columns else "image_id"
        if not {column, "emb"} <= {*columns}:
            raise BrainhiveError(
                f"{file} has columns {', '.join(columns)}, not image_id and emb",
                "rename them",
            )
        names += map(str, table.read([column]).column(0).to_pylist())
    return Vectors("parquet", files, names, partial(_from_parquet, files), bool(ours))


def _from_parquet(files: Sequence[Path]) -> Iterator[Array]:
    for file in files:
        # nested lists are flattened level by level, each of one length: [n, …]
        for batch in open_parquet(file).iter_batches(
            VECTORS_PER_BATCH, columns=["emb"]
        ):
            values = batch.column(0)
            shape = [len(batch)]
            while hasattr(values.type, "value_type"):
                (length,) = {*values.value_lengths().to_pylist()}
                shape.append(length)
                values = values.flatten()
            yield values.to_numpy(zero_copy_only=False).reshape(shape)


def _dictionaries(files: Sequence[Path], row_names: Sequence[str] | None) -> Vectors:
    """Dicts of {name: vector}, or of a list of names with an array of vectors; one
    array in a known order.
    """
    names = []
    arrays = []
    for file in files:
        content = pickles.load(file)
        # an array without names, whose rows are those of a known list
        is_array = isinstance(content, np.ndarray | torch.Tensor) and content.ndim > 1
        if (
            is_array
            and row_names is not None
            and len(content) == len(row_names)
            and len(files) == 1
        ):
            return Vectors(
                ORDERED_LAYOUT, files, list(row_names), partial(_in_batches, [content])
            )
        # other objects have no names by which vectors could be matched
        if not isinstance(content, Mapping):
            counted = f"{len(content)} vectors" if is_array else type(content).__name__
            names_known = (
                "" if row_names is None else f", for {len(row_names)} pictures"
            )
            raise BrainhiveError(
                f"{file} holds {counted} without ids, not a dict{names_known}",
                "save a dict of vectors by name, or put the names of its rows into "
                f"{NAMES} next to features{file.suffix}, or name the split whose "
                "pictures they are, in order: --splits train",
            )

        # lists of names with arrays of vectors, or a vector for each name
        ids = {
            key: texts for key, value in content.items() if (texts := _strings(value))
        }
        if ids:
            chosen = _take_only(ids, "ids", file)
            vectors = {
                key: value
                for key, value in content.items()
                if getattr(value, "ndim", 0) > 1 and len(value) == len(chosen)
            }
            arrays.append(_take_only(vectors, "vectors", file))
        else:
            chosen = map(str, content)
            arrays.append(list(content.values()))
        names += chosen
    return Vectors("dictionary", files, names, partial(_in_batches, arrays))


def _strings(value: Any) -> list[str]:
    """Read a list or array of strings; empty if it is none."""
    # arrays of byte strings are decoded
    if isinstance(value, np.ndarray) and value.dtype.kind == "S":
        value = np.char.decode(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU":
        value = value.tolist()
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return list(value)
    return []


def _take_only(candidates: Mapping[str, Any], what: str, file: Path) -> Any:
    if len(candidates) == 1:
        return next(iter(candidates.values()))
    names = ", ".join(candidates) or "nothing"
    raise BrainhiveError(
        f"{file}: its {what} could be {names}", "save a dict of one list and one array"
    )


def _tree(folders: Sequence[Path], suffix: str) -> Vectors:
    """One `.npy` a picture, in the pictures' own folders (AlignVis:
    `<stem>_<encoder>.npy`).
    """
    ending = f"{suffix}.npy"
    # names of pictures are paths below the folder, without the ending
    names = {
        folder / name: name.removesuffix(ending)
        for folder in folders
        for name, _ in walk(folder)
        if name.endswith(ending)
    }
    if not names:
        raise MissingData(
            f"{folders[0]} has no *{ending}", "give the folder that holds the vectors"
        )
    files = list(names)

    def batches() -> Iterator[Array]:
        for start in range(0, len(files), VECTORS_PER_BATCH):
            yield _stacked(
                [*map(pickles.load, files[start : start + VECTORS_PER_BATCH])]
            )

    return Vectors(f"*{ending}", files, list(names.values()), batches)


def _thingsvision(folder: Path) -> Vectors:
    """`file_names.txt` next to `features.npy` (or .pt), or to `features_01.npy` and so
    on.
    """
    # thingsvision writes one name a line, and numbers its files by parts
    names = read_regular(folder / NAMES).decode().split("\n")
    files = sorted(folder.glob("features*.*"))
    if len({file.suffix for file in files}) != 1 or files[0].suffix not in FEATURES:
        present = ", ".join(file.name for file in files) or "none"
        raise BrainhiveError(
            f"{folder}: needs features of one kind, has {present}",
            f"known: {', '.join(FEATURES)}",
        )

    def batches() -> Iterator[Array]:
        for file in files:
            content = pickles.load(file)
            yield from _in_batches(content if isinstance(content, list) else [content])

    return Vectors("thingsvision", files, [name for name in names if name], batches)


def _in_batches(arrays: Iterable[Any]) -> Iterator[Array]:
    """Cut arrays, tensors, or lists of either, into batches [n, D]; one vector of a
    list may be [1, D].
    """
    for array in arrays:
        for start in range(0, len(array), VECTORS_PER_BATCH):
            batch = array[start : start + VECTORS_PER_BATCH]
            yield _stacked(batch) if isinstance(batch, list) else pickles.array(batch)


def _stacked(vectors: Sequence[Any]) -> Array:
    stacked = np.stack([*map(pickles.array, vectors)])
    # encoders may save one picture's vector as [1, D]
    return stacked[:, 0] if stacked.ndim > 2 and stacked.shape[1] == 1 else stacked


StoredShare = tuple[StimulusSet, Path, Int64]
"""The vectors that go to one store: its pictures, its path, and [N] its row of each
vector of the source; -1 for those that go elsewhere.
"""


def copy_vectors(
    shares: Sequence[StoredShare],
    vectors: Vectors,
    attributes: Mapping[str, Any],
    dtype: str,
    skip_missing: bool,
    pixel_digests: dict[str, UInt64],
) -> None:
    """Copy vectors to their stores, which get their final names when complete, or leave
    nothing.

    Args:
        shares: The stores.
        vectors: Of one encoder.
        attributes: Attributes of the stores.
        dtype: In which the vectors are kept.
        skip_missing: Accept vectors that are not finite, which count as none.
        identified: What pictures are known by, [N, 25] by split; it grows, so that the
            vectors of the next encoder read no picture again.

    Raises:
        BrainhiveError: if vectors differ in shape, are no numbers, are not finite, do
            not fit into the dtype, or are not as many as their names.
    """
    # the first batch tells the shape of all
    batches = read_checked_batches(vectors)
    first = next(batches, np.empty((0, 0)))
    blanks = []
    pixels = []
    for images, path, store_rows in shares:
        blank_pixels = np.zeros((len(images), PIXEL_WORDS), np.uint64)
        split_pixels = pixel_digests.setdefault(images.split, blank_pixels)
        pixels.append(digest_pictures(images, store_rows, split_pixels))
        about = {**attributes, "dataset": images.dataset, "split": images.split}
        blanks.append(
            Blank(
                path,
                images.image_ids,
                images.concepts,
                first.shape[1:],
                dtype,
                about,
                has_pixels=pixels[-1] is not None,
            )
        )

    # copy batch by batch; rows that no share wants are left out
    at = 0
    absent = list[str]()
    progress = console.progress("copying vectors", len(vectors.names))
    with filling(blanks, ALONE, force=True, keep=False) as writers, progress as bar:
        for batch in chain([first], batches):  # [n, *shape]
            is_finite = find_finite(batch)
            for (_, _, store_rows), writer, known in zip(
                shares, writers, pixels, strict=True
            ):
                # the store's rows of this batch; names may end before the vectors do
                rows = store_rows[at : at + len(batch)]
                # gaps are of interest only where a store wants the row
                is_wanted = rows >= 0
                is_known = is_finite[: len(rows)]
                names = vectors.names[at : at + len(batch)]
                absent += compress(names, is_wanted & ~is_known)
                is_copied = is_wanted & is_known
                to = rows[is_copied]
                more = {} if known is None else {PIXELS: known[to]}
                writer.write(to, batch[: len(rows)][is_copied], **more)
            at += len(batch)
            bar.advance(len(batch))
        # a mismatch is seen only at the end, and leaves no store behind
        if at != len(vectors.names):
            raise BrainhiveError(
                f"{vectors.files[0]} holds {at} vectors for {len(vectors.names)} names",
                "fetch it again, with the list of names that belongs to it",
            )
        if absent:
            listed = summarise_names(absent, len(vectors.names))
            problem = f"{vectors.files[0]}: vectors that are not finite, {listed}"
            if not skip_missing:
                raise BrainhiveError(
                    problem,
                    "give finite ones (half precision overflows), or accept the gaps "
                    "with --skip-missing",
                )
            console.warn(f"{problem}; these pictures count as absent")
        finish_stores(writers, ALONE)


def digest_pictures(images: StimulusSet, rows: Int64, pixels: UInt64) -> UInt64 | None:
    """Give what the pictures of some rows are known by, [N, 25]; None where they are
    not all here.

    Copies of training pictures among tested ones are known by it.

    Args:
        images: The pictures.
        rows: Rows of pictures; negative ones are of none.
        pixels: [N, 25] to be filled; zeros where a picture was not read yet.
    """
    if not images.has_pictures or images.missing is not None:
        return None
    rows = np.unique(rows[rows >= 0])
    rows = rows[~pixels[rows].any(1)]

    def identify(row: int) -> UInt64:
        return describe_pixels(images.open(row))

    title = f"reading pictures of {images.dataset}/{images.split}"
    with ThreadPoolExecutor() as pool, console.progress(title, len(rows)) as bar:
        try:
            for row, words in zip(rows, pool.map(identify, rows.tolist()), strict=True):
                pixels[row] = words
                bar.advance()
        except (BrainhiveError, OSError) as error:
            pool.shutdown(cancel_futures=True)
            console.warn(
                f"copies among {images.dataset}/{images.split} stay unknown: "
                f"{first_line(error)}"
            )
            return None
    return pixels


def write_parquet(store: TargetStore, file: Path, rows: Int64) -> None:
    """Write rows of a store as BrainHiVE's cache has them; the final name appears when
    all is there.
    """
    import pyarrow

    # schema of BrainHiVE's cache; vectors of tokens are lists of lists
    kind = pyarrow.float32()  # exact for float16 too, which few readers know
    for _ in store.embedding.shape[1:]:
        kind = pyarrow.list_(kind)
    text = pyarrow.string()
    schema = pyarrow.schema(
        {"image_id": text, "path": text, "concept": text, "emb": kind}
    )
    with (
        atomic_write(file) as part,
        import_pyarrow().ParquetWriter(
            part, schema, write_page_checksum=True
        ) as writer,
    ):
        # batch by batch, as a store may be larger than memory
        for start in range(0, len(rows), VECTORS_PER_BATCH):
            batch = rows[start : start + VECTORS_PER_BATCH]
            ids = list(store.image_ids[batch])
            values = np.asarray(store.embedding[batch], np.float32)
            nested = pyarrow.array(values.reshape(-1))  # [n, …] as lists of lists
            for width in reversed(values.shape[1:]):
                ends = np.arange(0, len(nested) + 1, width, dtype=np.int32)
                nested = pyarrow.ListArray.from_arrays(ends, nested)
            columns = [
                [name.rsplit("/", 1)[-1] for name in ids],
                ids,
                list(store.concepts[batch]),
                nested,
            ]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))
