"""Embeddings of pictures in the file layouts of other projects."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, compress, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainhive_cli.core.base import (
    Array,
    BrainhiveError,
    Int64,
    MissingData,
    RecipeError,
    UInt64,
    console,
    first_line,
)
from brainhive_cli.core.files import atomic_write, read_regular, report_damage, walk
from brainhive_cli.core.runs import Launch
from brainhive_cli.data.files import (
    import_pyarrow,
    natural_key,
    open_parquet,
    pickles,
    summarise_names,
)
from brainhive_cli.data.media import StimulusSet, describe_pixels, sort_by_number
from brainhive_cli.data.stores import (
    PIXEL_HASH_WORDS,
    PIXELS_DATASET,
    StorePlan,
    TargetStore,
    find_finite_rows,
    finish_stores,
    open_writers,
)

VECTORS_PER_BATCH = 1024
NAMES_FILE = "file_names.txt"
"""File in which thingsvision lists the pictures of its features, a line each."""
PARQUET_PART = "-part-"
"""Text after the encoder in the names of BrainHiVE's parquet files, which are
{data set}_{split}_{encoder}-part-00000-of-00000.parquet.
"""
ORDERED_LAYOUT = "rows in the order of the pictures"
"""Layout of an array without names."""
DAMAGE_HINT = "fetch it again"
ONE_PROCESS = Launch(0, 1, torch.device("cpu"))
"""Launch of a single process, because files are read from start to end."""
StoredShare = tuple[StimulusSet, Path, Int64]
"""Pictures of a store, path of the store, and the store's row [N] of each vector, which
is -1 for vectors of other stores.
"""


@dataclass(frozen=True)
class Vectors:
    """N vectors of an encoder in files of another project.

    Attributes:
        layout: Layout of the files, such as "parquet" or "thingsvision".
        files: Files that hold the vectors.
        names: Name [N] of each picture in the files.
        read_batches: Reads batches [n, D] or [n, S, D] in the order of `names`.
        has_encoder_name: True if the file names name the encoder.
    """

    layout: str
    files: Sequence[Path]
    names: Sequence[str]
    read_batches: Callable[[], Iterator[Array]]
    has_encoder_name: bool = False


def open_vectors(
    files: Sequence[Path],
    encoder_names: Sequence[str],
    suffix: str = "",
    row_names: Sequence[str] | None = None,
) -> Vectors:
    """Recognise the layout of files and read the names of their vectors.

    Args:
        files: Files or folders.
        encoder_names: Names of the encoder, which select among BrainHiVE's parquet
            files.
        suffix: Text between the picture's name and `.npy` in files of a single vector.
        row_names: Names of the rows of an array without names, or None to refuse such
            an array.

    Raises:
        MissingData: if the layout is unknown, or if no file belongs to the encoder.
        RecipeError: if the layout does not use `suffix`.
        BrainhiveError: if a file is damaged, unsafe or in an unexpected form.
    """
    with report_damage(files[0], DAMAGE_HINT):
        parquet_files = _find_parquet_files(files)
        if len(files) == 1 and (files[0] / NAMES_FILE).is_file():
            vectors = _open_thingsvision(files[0])
        elif parquet_files:
            vectors = _open_parquet_cache(parquet_files, encoder_names)
        elif all(file.is_dir() for file in files):
            vectors = _open_folders(files, suffix)
        elif all(file.suffix.lower() in pickles.ENDINGS for file in files):
            vectors = _open_dictionaries(files, row_names)
        else:
            raise MissingData(
                f"{files[0]}: the layout of the vectors is not known",
                f"name files in .parquet, {', '.join(pickles.ENDINGS)}, a folder of "
                ".npy files, or a folder of thingsvision",
            )

    if suffix and vectors.layout != f"*{suffix}.npy":
        raise RecipeError(
            f"suffix is {suffix!r}, but the layout {vectors.layout} has no suffix",
            "leave out suffix",
        )
    return vectors


def read_checked_batches(vectors: Vectors) -> Iterator[Array]:
    """Read batches [n, D] or [n, S, D] of equal shape.

    Raises:
        BrainhiveError: if vectors differ in shape, are empty or are not numbers, or if
            a file is damaged.
    """
    file = vectors.files[0]
    shape: tuple[int, ...] = ()
    with report_damage(file, DAMAGE_HINT):
        for batch in vectors.read_batches():
            batch_shape = batch.shape[1:]
            if not shape:
                shape = batch_shape
            is_empty = not shape or 0 in shape
            is_number = batch.dtype.kind in "fiu"
            if batch_shape != shape or is_empty or not is_number:
                raise BrainhiveError(
                    f"{file} holds {batch.dtype} values of shape {list(batch_shape)}, "
                    "but all vectors must be numbers of one shape",
                    "give the vectors of one encoder only",
                )
            yield batch


def copy_vectors(
    shares: Sequence[StoredShare],
    vectors: Vectors,
    attributes: Mapping[str, Any],
    dtype: str,
    skip_missing: bool,
    pixel_digests: dict[str, UInt64],
) -> None:
    """Copy the vectors of an encoder to stores, which appear when they are complete.

    Args:
        shares: Stores with their pictures and rows.
        vectors: N vectors.
        attributes: Attributes of the stores.
        dtype: Dtype of the stored vectors.
        skip_missing: If True, vectors that are not finite are left out with a warning.
        pixel_digests: Digests [M, 25] of the M pictures of a split, keyed by split, and
            0 for pictures that were not read. New digests are added.

    Raises:
        BrainhiveError: if vectors differ in shape, are not numbers, are not finite, do
            not fit into the dtype, or if their number differs from the number of names.
    """
    # the shape of the first batch is the shape of all
    batches = read_checked_batches(vectors)
    first_batch = next(batches, np.empty((0, 0)))
    blanks = []
    digests_of_shares = []
    for images, path, store_rows in shares:
        no_digests = np.zeros((len(images), PIXEL_HASH_WORDS), np.uint64)
        split_digests = pixel_digests.setdefault(images.split, no_digests)
        digests = digest_pictures(images, store_rows, split_digests)
        digests_of_shares.append(digests)
        blanks.append(
            StorePlan(
                path,
                images.image_ids,
                images.concepts,
                first_batch.shape[1:],
                dtype,
                {**attributes, "dataset": images.dataset, "split": images.split},
                has_pixels=digests is not None,
            )
        )

    n_copied = 0
    missing_names: list[str] = []
    progress = console.progress("copying vectors", len(vectors.names))
    with (
        open_writers(
            blanks, ONE_PROCESS, force=True, keeps_unfinished=False
        ) as writers,
        progress as bar,
    ):
        for batch in chain([first_batch], batches):  # [n, *shape]
            end = n_copied + len(batch)
            names = vectors.names[n_copied:end]
            is_finite = find_finite_rows(batch)
            for (_, _, store_rows), writer, digests in zip(
                shares, writers, digests_of_shares, strict=True
            ):
                # there may be fewer names than vectors
                batch_rows = store_rows[n_copied:end]
                is_in_store = batch_rows >= 0
                is_valid = is_finite[: len(batch_rows)]
                missing_names += compress(names, is_in_store & ~is_valid)

                is_copied = is_in_store & is_valid
                rows = batch_rows[is_copied]
                datasets = {} if digests is None else {PIXELS_DATASET: digests[rows]}
                writer.write(rows, batch[: len(batch_rows)][is_copied], **datasets)
            n_copied = end
            bar.advance(len(batch))

        # an error here leaves no stores behind
        if n_copied != len(vectors.names):
            raise BrainhiveError(
                f"{vectors.files[0]} holds {n_copied} vectors for "
                f"{len(vectors.names)} names",
                "fetch it again, with the list of its names",
            )
        if missing_names:
            summary = summarise_names(missing_names, len(vectors.names))
            problem = f"{vectors.files[0]}: vectors that are not finite, {summary}"
            if not skip_missing:
                raise BrainhiveError(
                    problem,
                    "give finite vectors (half precision can overflow), or accept the "
                    "gaps with --skip-missing",
                )
            console.warn(f"{problem}; their pictures count as absent")
        finish_stores(writers, ONE_PROCESS)


def digest_pictures(images: StimulusSet, rows: Int64, digests: UInt64) -> UInt64 | None:
    """Compute the digests of pictures, by which copies of training pictures are found.

    Args:
        images: N pictures.
        rows: Rows of the pictures to read. Negative rows are ignored.
        digests: Digests [N, 25], 0 for unread pictures. The array is filled.

    Returns:
        `digests`, or None if pictures are absent or cannot be read.
    """
    if not images.has_pictures or images.missing_error is not None:
        return None
    picture_rows = np.unique(rows[rows >= 0])
    new_rows = picture_rows[~digests[picture_rows].any(1)]

    def digest_picture(row: int) -> UInt64:
        return describe_pixels(images.open(row))

    split = f"{images.dataset}/{images.split}"
    progress = console.progress(f"reading pictures of {split}", len(new_rows))
    with ThreadPoolExecutor() as pool, progress as bar:
        try:
            new_digests = pool.map(digest_picture, new_rows.tolist())
            for row, digest in zip(new_rows, new_digests, strict=True):
                digests[row] = digest
                bar.advance()
        except (BrainhiveError, OSError) as error:
            pool.shutdown(cancel_futures=True)
            console.warn(
                f"{split}: copies of pictures cannot be found, because a picture "
                f"cannot be read: {first_line(error)}"
            )
            return None
    return digests


def write_parquet(store: TargetStore, file: Path, rows: Int64) -> None:
    """Write rows of a store as a parquet file in the layout of BrainHiVE's cache.

    The file appears when it is complete.
    """
    import pyarrow

    # float32 holds float16 exactly, and more programs read it
    vector_type = pyarrow.float32()
    for _ in store.embedding.shape[1:]:
        vector_type = pyarrow.list_(vector_type)
    text = pyarrow.string()
    schema = pyarrow.schema(
        {"image_id": text, "path": text, "concept": text, "emb": vector_type}
    )
    with (
        atomic_write(file) as temporary_file,
        import_pyarrow().ParquetWriter(
            temporary_file, schema, write_page_checksum=True
        ) as writer,
    ):
        # the store may be larger than memory
        for start in range(0, len(rows), VECTORS_PER_BATCH):
            batch_rows = rows[start : start + VECTORS_PER_BATCH]
            ids = list(store.image_ids[batch_rows])
            stems = [image_id.rsplit("/", 1)[-1] for image_id in ids]
            concepts = list(store.concepts[batch_rows])

            # nest the values of each vector into lists
            values = np.asarray(store.embedding[batch_rows], np.float32)
            nested = pyarrow.array(values.reshape(-1))
            for length in reversed(values.shape[1:]):
                ends = np.arange(0, len(nested) + 1, length, dtype=np.int32)
                nested = pyarrow.ListArray.from_arrays(ends, nested)
            columns = [stems, ids, concepts, nested]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))


def _find_parquet_files(paths: Sequence[Path]) -> list[Path]:
    """List the parquet files among paths, and in the folders among them."""
    candidates = list(paths)
    for path in paths:
        candidates += [path / name for name, _ in walk(path)]
    return [
        path for path in candidates if path.suffix == ".parquet" and not path.is_dir()
    ]


def _open_parquet_cache(files: Sequence[Path], encoder_names: Sequence[str]) -> Vectors:
    """Open parquet files in the layout of BrainHiVE's cache.

    The column `emb` holds the vectors, `path` the image ids. Files without `path` have
    only the stems, in `image_id`.
    """
    # select the files whose names name the encoder
    encoder_files = []
    sources = set()
    for file in files:
        source = file.stem.rpartition(PARQUET_PART)[0]
        sources.add(source)
        if any(source.endswith(f"_{name}") for name in encoder_names):
            encoder_files.append(file)
    if any(sources) and not encoder_files:
        raise MissingData(
            f"no parquet file of {' or '.join(dict.fromkeys(encoder_names))} among "
            f"{', '.join(sorted(sources)[:6])}",
            "name the encoder of the files: --encoders NAME",
        )

    # a file that was found twice, by itself and in its folder, is read once
    selected_files = list(dict.fromkeys(encoder_files)) or files
    names: list[str] = []
    for file in selected_files:
        with report_damage(file, DAMAGE_HINT):
            table = open_parquet(file)
        columns = table.schema_arrow.names
        id_column = "path" if "path" in columns else "image_id"
        if id_column not in columns or "emb" not in columns:
            raise BrainhiveError(
                f"{file} has columns {', '.join(columns)}, but needs image_id and emb",
                "rename its columns",
            )
        ids = table.read([id_column]).column(0).to_pylist()
        names += map(str, ids)
    return Vectors(
        "parquet",
        selected_files,
        names,
        partial(_read_parquet, selected_files),
        has_encoder_name=bool(encoder_files),
    )


def _read_parquet(files: Sequence[Path]) -> Iterator[Array]:
    """Read batches [n, D] or [n, S, D] from nested lists of equal length."""
    for file in files:
        for batch in open_parquet(file).iter_batches(
            VECTORS_PER_BATCH, columns=["emb"]
        ):
            values = batch.column(0)
            shape = [len(batch)]
            while hasattr(values.type, "value_type"):
                (length,) = set(values.value_lengths().to_pylist())
                shape.append(length)
                values = values.flatten()
            yield values.to_numpy(zero_copy_only=False).reshape(shape)


def _open_dictionaries(
    files: Sequence[Path], row_names: Sequence[str] | None
) -> Vectors:
    """Open dicts of vectors, arrays next to a list of names, or a single array in the
    order of `row_names`.
    """
    names: list[str] = []
    arrays = []
    for file in files:
        content = pickles.load(file)
        if isinstance(content, Mapping):
            file_names, values = _read_dictionary(content, file)
            names += file_names
            arrays.append(values)
            continue
        if file.with_name(NAMES_FILE).is_file():
            return _open_rows(files, file.with_name(NAMES_FILE))

        is_array = isinstance(content, np.ndarray | torch.Tensor) and content.ndim > 1
        n_rows = len(content) if is_array else 0
        has_one_array = is_array and len(files) == 1
        if has_one_array and row_names is not None and n_rows == len(row_names):
            _require_single_order(row_names, file)
            read_batches = partial(_read_arrays, [content])
            return Vectors(ORDERED_LAYOUT, files, list(row_names), read_batches)

        problem = f"{file} holds "
        problem += f"{n_rows} vectors" if is_array else type(content).__name__
        problem += " without names"
        if row_names is not None:
            problem += f", for {len(row_names)} pictures"
        raise BrainhiveError(
            problem,
            "save a dict of vectors by name; or put the names of the rows into "
            f"{NAMES_FILE} next to features{file.suffix}; or name the split whose "
            "pictures have this order: --splits train",
        )
    return Vectors("dictionary", files, names, partial(_read_arrays, arrays))


def _read_dictionary(content: Mapping[Any, Any], file: Path) -> tuple[list[str], Any]:
    """Read a dict with a vector for each name, or with a list of names and an array.

    Returns:
        The N names, and an array [N, ...] or list of vectors.
    """
    name_lists = {}
    for key, value in content.items():
        texts = _read_strings(value)
        if texts:
            name_lists[key] = texts
    if not name_lists:
        return list(map(str, content)), list(content.values())

    names = _require_single(name_lists, "lists of names", file)
    arrays = {}
    for key, value in content.items():
        if getattr(value, "ndim", 0) > 1 and len(value) == len(names):
            arrays[key] = value
    return names, _require_single(arrays, f"arrays of {len(names)} vectors", file)


def _read_strings(value: Any) -> list[str]:
    """Read a list or array of strings, or return an empty list for other values."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "S":
        value = np.char.decode(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU":
        value = value.tolist()
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return list(value)
    return []


def _require_single(candidates: Mapping[str, Any], nouns: str, file: Path) -> Any:
    """Return the only value of a dict, or raise an error that names all keys."""
    if len(candidates) != 1:
        raise BrainhiveError(
            f"{file} holds {len(candidates)} {nouns}: "
            f"{', '.join(candidates) or 'none'}",
            "save a dict of one list of names and one array of vectors",
        )
    (value,) = candidates.values()
    return value


def _open_folders(folders: Sequence[Path], suffix: str) -> Vectors:
    """Open AlignVis folders, with a file `{picture}{suffix}.npy` for each picture."""
    ending = f"{suffix}.npy"
    # a file in a folder and in its subfolder is read once
    name_of_file: dict[Path, str] = {}
    for folder in folders:
        for path, _ in walk(folder):
            if path.endswith(ending):
                name_of_file[folder / path] = path.removesuffix(ending)
    files = list(name_of_file)
    names = list(name_of_file.values())
    if not files:
        raise MissingData(
            f"{folders[0]} has no files *{ending}", "name the folder of the vectors"
        )
    return Vectors(f"*{ending}", files, names, partial(_read_single_vectors, files))


def _read_single_vectors(files: Sequence[Path]) -> Iterator[Array]:
    """Read batches [n, D] or [n, S, D] from files of a single vector."""
    for start in range(0, len(files), VECTORS_PER_BATCH):
        batch_files = files[start : start + VECTORS_PER_BATCH]
        yield _stack(list(map(pickles.load, batch_files)))


def _open_thingsvision(folder: Path) -> Vectors:
    """Open a folder of thingsvision, with features in one file or in numbered parts."""
    files = list(folder.glob("features*.*"))
    suffixes = {file.suffix.lower() for file in files}
    # Suffixes of the feature files of thingsvision.
    feature_suffixes = (".npy", ".pt")
    if len(suffixes) != 1 or not suffixes.issubset(feature_suffixes):
        file_names = ", ".join(file.name for file in files) or "none"
        raise BrainhiveError(
            f"{folder} needs feature files of one type, but has {file_names}",
            f"types: {', '.join(feature_suffixes)}",
        )
    return _open_rows(files, folder / NAMES_FILE)


def _open_rows(files: Sequence[Path], names_file: Path) -> Vectors:
    """Open an array, or its parts in the order of their numbers, whose rows a list
    names.

    Raises:
        BrainhiveError: if the names of the parts state rows that do not join.
    """
    files = sort_by_number(files)
    ranges = []
    for file in files:
        # Rows of a part at the end of its name, such as 8-16.
        match = re.search(r"(\d+)[-_](\d+)$", file.stem)
        ranges += [(int(match[1]), int(match[2]))] if match else []
    # layer_3_1 and layer_3_2 are two parts without ranges
    if len({start for start, _ in ranges}) == len(files) > 1:
        gaps = {start - end for (_, end), (start, _) in pairwise(ranges)}
        if ranges[0][0] > 1 or gaps not in ({0}, {1}, set()):
            texts = [f"{start}-{end}" for start, end in ranges]
            raise BrainhiveError(
                f"{names_file.parent}: parts of the vectors are missing or overlap: "
                f"{', '.join(texts)}",
                "name all parts, each once",
            )
    lines = read_regular(names_file).decode().split("\n")
    names = list(filter(None, map(str.strip, lines)))
    return Vectors("thingsvision", files, names, partial(_read_features, files))


def _require_single_order(row_names: Sequence[str], file: Path) -> None:
    """Raise an error if file browsers sort the names of rows in another order."""
    others = sorted(row_names, key=lambda name: natural_key(name.casefold()))
    for row, (name, other) in enumerate(zip(row_names, others, strict=True)):
        if name != other:
            raise BrainhiveError(
                f"{file} has no names and can be read in two ways: row {row} is "
                f"{name} in the order of letters, and {other} in that of numbers",
                f"put the names of its rows into {NAMES_FILE} next to it, a line each",
            )


def _read_features(files: Sequence[Path]) -> Iterator[Array]:
    """Read batches [n, D] from arrays or lists of arrays in feature files."""
    for file in files:
        content = pickles.load(file)
        arrays = content if isinstance(content, list) else [content]
        yield from _read_arrays(arrays)


def _read_arrays(arrays: Iterable[Any]) -> Iterator[Array]:
    """Cut arrays, tensors, or lists of vectors into batches [n, D] or [n, S, D]."""
    for array in arrays:
        for start in range(0, len(array), VECTORS_PER_BATCH):
            batch = array[start : start + VECTORS_PER_BATCH]
            yield _stack(batch) if isinstance(batch, list) else pickles.to_array(batch)


def _stack(vectors: Sequence[Any]) -> Array:
    """Stack vectors [D], [1, D] or [S, D] to [n, D] or [n, S, D]."""
    stacked = np.stack(list(map(pickles.to_array, vectors)))
    is_row = stacked.ndim > 2 and stacked.shape[1] == 1
    return stacked[:, 0] if is_row else stacked
