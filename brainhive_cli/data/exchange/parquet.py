"""Vectors in parquet, as BrainHiVE's public cache keeps them: `image_id` (the file's stem) and `emb`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.file_names import publish
from brainhive_cli.data.stores import hdf5
from brainhive_cli.data.stores.damage import described
from brainhive_cli.data.stores.parquet_files import library, open_table
from brainhive_cli.data.stores.target_store import TargetStore

MARK = "-part-"
"""Files are called {data set}_{split}_{encoder}-part-00000-of-00000.parquet."""
AGAIN = "fetch it again"
"""What to do about a damaged file."""
ROWS = 1024
"""Rows written at a time."""


def made_by(file: Path) -> str:
    """Read data set, split and encoder from a file's name, {data set}_{split}_{encoder}; empty elsewhere."""
    head, mark, _ = file.stem.rpartition(MARK)
    return head if mark else ""


def names(file: Path) -> list[str]:
    """Read what a file calls its pictures: full image ids where there is a column of them (`path`)."""
    with described(file, AGAIN):
        table = open_table(file)
    columns = table.schema_arrow.names
    column = next((name for name in ("path", "image_id") if name in columns), "")
    if not column or "emb" not in columns:
        raise BrainhiveError(f"{file} has columns {', '.join(columns)}, not image_id and emb", "rename them")
    return [str(name) for name in table.read([column]).column(0).to_pylist()]


def vectors(file: Path, batch: int) -> Iterator[NDArray[Any]]:
    """Read vectors, [n, D] or [n, S, D] at a time.

    Raises:
        BrainhiveError: if they differ in length.
    """
    for read in open_table(file).iter_batches(batch, columns=["emb"]):
        values, shape = read.column(0), [len(read)]
        while hasattr(values, "flatten") and hasattr(values.type, "value_type"):
            lengths = set(values.value_lengths().to_pylist())
            if len(lengths) != 1 or None in lengths:
                raise BrainhiveError(f"{file}: its vectors differ in length", AGAIN)
            shape.append(lengths.pop())
            values = values.flatten()
        yield values.to_numpy(zero_copy_only=False).reshape(shape)


def write(found: TargetStore, file: Path, rows: NDArray[np.int64]) -> None:
    """Write rows of a store; the file's final name appears when all is there."""
    import pyarrow

    kind = pyarrow.float32()  # exact for float16 too, which few readers know
    for _ in found.embedding.shape[1:]:
        kind = pyarrow.list_(kind)
    text = pyarrow.string()
    schema = pyarrow.schema({"image_id": text, "path": text, "concept": text, "emb": kind})
    part = hdf5.part_of(file)
    with library().ParquetWriter(part, schema, write_page_checksum=True) as writer:
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            ids = list(found.image_ids[some])
            stems = [image_id.rsplit("/", 1)[-1] for image_id in ids]
            concepts = list(found.concepts[some])
            values = _lists(np.asarray(found.embedding[some], np.float32))
            writer.write_batch(pyarrow.record_batch([stems, ids, concepts, values], schema=schema))
    publish(part, file)


def _lists(values: NDArray[np.float32]) -> Any:
    """Nest an array [n, …] as lists of lists."""
    import pyarrow

    nested = pyarrow.array(values.reshape(-1))
    for width in reversed(values.shape[1:]):
        nested = pyarrow.ListArray.from_arrays(np.arange(0, len(nested) + 1, width, dtype=np.int32), nested)
    return nested
