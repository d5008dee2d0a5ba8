"""export-embeddings: embeddings as parquet or NumPy files, for other projects."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import Failures, Int64, Table, console
from brainhive_cli.core.files import Input, atomic_write, resolve_below
from brainhive_cli.core.recipes import (
    STORES,
    Arguments,
    FileRecipe,
    NameList,
    flag_field,
)
from brainhive_cli.core.runs import Launch, Result
from brainhive_cli.data.exchange import (
    NAMES_FILE,
    PARQUET_PART,
    VECTORS_PER_BATCH,
    write_parquet,
)
from brainhive_cli.data.files import shorten_store_path
from brainhive_cli.data.stores import TargetStore, list_stores
from brainhive_cli.data.targets import find_encoder_config, warn_of_problems


class Recipe(FileRecipe):
    """Recipe of export-embeddings, with the stores, the file format and the folder."""

    section = STORES
    summary = (
        "Export embeddings to parquet or NumPy files, which import-embeddings can read."
    )
    example = "embeddings/things-eeg --format npy"

    stores: Annotated[NameList | None, Arguments("PATH")] = Field(
        None,
        description=(
            "stores: files, folders or patterns; default: all below paths.embeddings"
        ),
    )
    to: str = flag_field("exports", "folder for the files")
    format: Literal["parquet", "npy"] = flag_field(
        "parquet",
        "format: parquet or npy. parquet as BrainHiVE's cache, or "
        "features.npy as thingsvision's",
    )


def inputs(recipe: Recipe) -> list[Input]:
    """List the target stores (files of embeddings) to export."""
    return [Input(str(path)) for path in list_stores(recipe.stores, recipe.paths)]


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Export the embeddings of each target store to a parquet or NumPy file.

    Pictures without an embedding are left out. If a store cannot be read, the others
    are exported.

    Args:
        recipe: Settings of the command.
        launch: Processes, of which the main process writes the files.
        force: Not used, because existing files are always replaced.

    Returns:
        A table of the stores, numbers of embeddings and new files.
    """
    write_store = _write_parquet if recipe.format == "parquet" else _write_npy
    folder = Path(recipe.to)
    paths = list_stores(recipe.stores, recipe.paths)
    table_rows = []
    failures = Failures()
    with console.progress("writing stores", len(paths)) as bar:
        for path in paths:
            with failures.collect():
                store = TargetStore.open(path)
                warn_of_problems(store)
                embedded_rows = np.flatnonzero(store.done)  # [N]
                write = partial(write_store, store, embedded_rows, folder)
                file = launch.run_on_main(write)
                table_rows.append(
                    (shorten_store_path(store.path), len(embedded_rows), str(file))
                )
            bar.advance()
    exit_code = failures.finish(len(paths))
    table = Table("Exported embeddings", ("store", "vectors", "file"), table_rows)
    return Result(folder, (table,), exit_code=exit_code, details=failures.as_details())


def _write_parquet(store: TargetStore, rows: Int64, folder: Path) -> Path:
    """Write a parquet file with the name that the project BrainHiVE gives its caches.

    Args:
        store: Target store.
        rows: Rows [N] of the embeddings to write.
        folder: Folder for the file.

    Returns:
        Path of the file.
    """
    dataset = store.attributes["dataset"]
    split = store.attributes["split"]
    encoder_name = store.attributes["encoder"]

    # BrainHiVE names only encoders with default options
    encoder_config = find_encoder_config(store)
    has_default_options = encoder_name == encoder_config.model_construct().name
    if has_default_options and encoder_config.upstream:
        encoder_name = encoder_config.upstream

    # a store of a stranger may have a name such as `../..`
    file_name = f"{dataset}_{split}_{encoder_name}{PARQUET_PART}00000-of-00000.parquet"
    file = resolve_below(folder, file_name, source=f"{store.path} names a file")
    write_parquet(store, file, rows)
    return file


def _write_npy(store: TargetStore, rows: Int64, folder: Path) -> Path:
    """Write embeddings as a NumPy file, with a text file of image ids next to it.

    Args:
        store: Target store.
        rows: Rows [N] of the embeddings to write.
        folder: Folder for the files, in subfolders `DATASET/SPLIT/ENCODER`.

    Returns:
        Path of the NumPy file, whose array has the shape [N, …].
    """
    # a store of a stranger may have a name such as `../..`
    encoder_folder = resolve_below(
        folder,
        store.attributes["dataset"],
        store.attributes["split"],
        store.attributes["encoder"],
        source=f"{store.path}: its data set, split or encoder",
    )
    file = encoder_folder / "features.npy"
    ids_file = encoder_folder / NAMES_FILE
    shape = (len(rows),) + store.embedding.shape[1:]
    id_lines = "".join(f"{image_id}\n" for image_id in store.image_ids[rows])

    # copy the embeddings in batches, because a store may not fit into memory
    with atomic_write(file) as new_file, atomic_write(ids_file) as new_ids_file:
        new_ids_file.write_text(id_lines, "utf-8")
        array = np.lib.format.open_memmap(new_file, "w+", store.embedding.dtype, shape)
        for start in range(0, len(rows), VECTORS_PER_BATCH):
            batch_rows = rows[start : start + VECTORS_PER_BATCH]
            array[start : start + VECTORS_PER_BATCH] = store.embedding[batch_rows]
        array.flush()
    return file
