"""Parquet files, opened after a check of the sizes that they claim."""

import os
from pathlib import Path
from typing import Any

from brainhive_cli.core.errors import MissingExtra
from brainhive_cli.data.stores.damage import refuse_inflation

WIDTH = 4
"""Bytes of most values."""


def library() -> Any:
    """Import pyarrow's reader and writer.

    Raises:
        MissingExtra: if it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("parquet needs pyarrow", "pip install 'brainhive[parquet]'") from error
    return pyarrow.parquet


def open_table(path: Path) -> Any:
    """Open a file as pyarrow's ParquetFile; pages that have a checksum are verified when they are read.

    Raises:
        MissingExtra: if pyarrow is not installed.
        ValueError: if it claims more rows or values than its size allows; pyarrow's errors are these too.
    """
    file = library().ParquetFile(path, memory_map=True, page_checksum_verification=True)
    about, size = file.metadata, os.path.getsize(path)
    groups = [about.row_group(n) for n in range(about.num_row_groups)]
    columns = [group.column(n) for group in groups for n in range(group.num_columns)]
    if about.num_rows != sum(group.num_rows for group in groups) or not 0 <= about.num_rows <= size:
        raise ValueError(f"{about.num_rows} rows in {size} bytes")
    refuse_inflation(WIDTH * sum(column.num_values for column in columns), size, "its values")
    return file
