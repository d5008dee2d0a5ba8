"""Parquet files, read by pyarrow."""

from pathlib import Path
from typing import Any

from brainhive_cli.core.base import MissingExtra, install_line


def import_pyarrow() -> Any:
    """Import pyarrow's module of parquet files.

    Raises:
        MissingExtra: if it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("parquet needs pyarrow", install_line("parquet")) from error
    return pyarrow.parquet


def open_parquet(path: Path) -> Any:
    """Open a file as pyarrow's ParquetFile, which verifies checksums of pages.

    Raises:
        MissingExtra: if pyarrow is not installed.
        ValueError: if it is damaged. pyarrow may raise other errors too.
    """
    return import_pyarrow().ParquetFile(
        path, memory_map=True, page_checksum_verification=True
    )
