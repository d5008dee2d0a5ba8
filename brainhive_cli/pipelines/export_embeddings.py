"""export-embeddings: embedding stores as parquet or NumPy files, for other projects."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from brainhive_cli.core import console, recipe
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.data.health_checks import encoder_of, warn_of_illness
from brainhive_cli.exchange import parquet as _parquet
from brainhive_cli.exchange import store_arguments as _stores
from brainhive_cli.exchange.reading import BATCH, NAMES
from brainhive_cli.stores import hdf5
from brainhive_cli.stores.target_store import TargetStore


class Recipe(recipe.Recipe):
    """Which stores, as what, and where to."""

    stores: recipe.Names | None = Field(
        None, description="stores: files, folders or patterns; default: all below paths.embeddings"
    )
    to: str = Field("exports", description="folder for the files")
    format: Literal["parquet", "npy"] = Field(
        "parquet", description="parquet as BrainHiVE's cache, or features.npy as thingsvision's"
    )
    run: recipe.Run = recipe.Run(device="cpu")  # copies files only: one process does


def plan(what: Recipe) -> Plan:
    """List the stores that would be exported."""
    looks = {
        f"{what.format} in {what.to}": lambda: ", ".join(map(str, _stores.find(what.stores, what.paths)))
    }
    return Plan.of(looks)


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Write one file a store, of the pictures that have a vector."""
    write, rows, opened = {"parquet": _write_parquet, "npy": _write_npy}[what.format], [], []
    for path in _stores.find(what.stores, what.paths):
        found = TargetStore.open(path)
        opened.append(found)
        warn_of_illness(found)
        there = np.flatnonzero(found.done)
        if launch.is_main:
            written = write(found, there, Path(what.to))
            rows.append((_stores.short(found), len(there), str(written)))
    launch.barrier()
    table = console.Table("Exported embeddings", ("store", "vectors", "file"), tuple(rows))
    return Result(Path(what.to), (table,), hint=_importing(opened, what))


def _importing(opened: Sequence[TargetStore], what: Recipe) -> str:
    """Write the line that reads the files back; empty where each wants a line of its own.

    A parquet file says by its name what it holds, a features.npy does not.
    """
    dataset, *others = dict.fromkeys(found.attributes["dataset"] for found in opened)
    if others or what.format == "npy":
        return ""
    encoders = ",".join(dict.fromkeys(found.attributes["encoder"] for found in opened))
    arguments = ["--dataset", dataset, "--encoders", encoders]
    return shlex.join(["brainhive", "import-embeddings", what.to, *arguments])


def _write_parquet(found: TargetStore, rows: NDArray[np.int64], to: Path) -> Path:
    """Write `{data set}_{split}_{encoder}-part-00000-of-00000.parquet`, by upstream's name of the encoder."""
    dataset, split, name = (found.attributes[key] for key in ("dataset", "split", "encoder"))
    known = encoder_of(found)
    if name == known.model_construct().name:  # with knobs of its own it is not upstream's
        name = known.upstream or name
    file = to / f"{dataset}_{split}_{name}{_parquet.MARK}00000-of-00000.parquet"
    to.mkdir(parents=True, exist_ok=True)
    _parquet.write(found, file, rows)
    return file


def _write_npy(found: TargetStore, rows: NDArray[np.int64], to: Path) -> Path:
    """Write `{data set}/{split}/{encoder}/features.npy` [N, …] and the image id of each row beside it."""
    folder = to.joinpath(*(found.attributes[key] for key in ("dataset", "split", "encoder")))
    folder.mkdir(parents=True, exist_ok=True)
    file, listed = folder / "features.npy", folder / NAMES
    shape = (len(rows), *found.embedding.shape[1:])
    header = {"descr": found.embedding.dtype.str, "fortran_order": False, "shape": shape}
    with hdf5.part_of(file).open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, len(rows), BATCH):
            stream.write(np.ascontiguousarray(found.embedding[rows[start : start + BATCH]]).tobytes())
    hdf5.part_of(listed).write_text("".join(f"{image_id}\n" for image_id in found.image_ids[rows]))
    for final in (listed, file):
        os.replace(hdf5.part_of(final), final)
    return file
