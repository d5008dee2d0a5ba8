"""export-embeddings: target stores as parquet or NumPy files, for other projects."""

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.command import Input, Result
from brainhive_cli.core.files import atomic_write, below
from brainhive_cli.core.key_types import NameList
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import FileRecipe
from brainhive_cli.core.tables import Table
from brainhive_cli.data.exchange.vectors import (
    BATCH,
    NAMES,
    PARQUET_PART,
    write_parquet,
)
from brainhive_cli.data.files.hdf5 import short_name
from brainhive_cli.data.stores.target_store import TargetStore, list_stores
from brainhive_cli.data.targets.encoder_stores import encoder_of, warn_of_problems


class Recipe(FileRecipe):
    """Recipe of export-embeddings: the stores, the format and the folder."""

    stores: NameList | None = Field(
        None,
        description=(
            "stores: files, folders or patterns; default: all below paths.embeddings"
        ),
    )
    to: str = Field("exports", description="folder for the files")
    format: Literal["parquet", "npy"] = Field(
        "parquet",
        description="parquet as BrainHiVE's cache, or features.npy as thingsvision's",
    )


def inputs(recipe: Recipe) -> list[Input]:
    """List the stores."""
    return [Input(str(path)) for path in list_stores(recipe.stores, recipe.paths)]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Write one file a store, of the stimuli that have a target."""
    # write the files, and warn of stores with problems
    write = {"parquet": _write_parquet, "npy": _write_npy}[recipe.format]
    rows = []
    paths = list_stores(recipe.stores, recipe.paths)
    with console.progress("writing stores", len(paths)) as bar:
        for path in paths:
            store = TargetStore.open(path)
            warn_of_problems(store)
            done = np.flatnonzero(store.done)  # [N] rows with a target
            written = launch.run_on_main(partial(write, store, done, Path(recipe.to)))
            rows.append((short_name(store.path), len(done), str(written)))
            bar.advance()
    table = Table("Exported embeddings", ("store", "vectors", "file"), rows)

    return Result(Path(recipe.to), (table,))


def _write_parquet(store: TargetStore, rows: Int64, to: Path) -> Path:
    """Write `{data set}_{split}_{encoder}-part-00000-of-00000.parquet`, by upstream's
    name of the encoder.
    """
    dataset, split, name = (
        store.attributes[key] for key in ("dataset", "split", "encoder")
    )
    encoder = encoder_of(store)
    # with knobs of its own it is not upstream's
    if name == encoder.model_construct().name:
        name = encoder.upstream or name
    file_name = f"{dataset}_{split}_{name}{PARQUET_PART}00000-of-00000.parquet"
    # names come from the store, and must not lead out of the folder
    file = below(to, file_name, source=f"{store.path} names a file")
    write_parquet(store, file, rows)
    return file


def _write_npy(store: TargetStore, rows: Int64, to: Path) -> Path:
    """Write `{data set}/{split}/{encoder}/features.npy` [N, *shape], and a list of
    image ids.
    """
    names = (store.attributes[key] for key in ("dataset", "split", "encoder"))
    # data set, split and encoder become folders below `to`
    folder = below(to, *names, source=f"{store.path}: its data set, split or encoder")
    file = folder / "features.npy"
    listed = folder / NAMES
    shape = (len(rows), *store.embedding.shape[1:])  # [N, *shape]

    # names and vectors; vectors are copied in batches, since a store may not fit into
    # memory
    with atomic_write(file) as part, atomic_write(listed) as names_part:
        names_part.write_text(
            "".join(f"{image_id}\n" for image_id in store.image_ids[rows]), "utf-8"
        )
        array = np.lib.format.open_memmap(part, "w+", store.embedding.dtype, shape)
        for start in range(0, len(rows), BATCH):
            array[start : start + BATCH] = store.embedding[rows[start : start + BATCH]]
        array.flush()
    return file
