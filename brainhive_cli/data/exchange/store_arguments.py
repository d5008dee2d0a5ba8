"""Target stores named on a command line: files, folders that hold some, patterns."""

import glob
from collections.abc import Iterable
from pathlib import Path

from brainhive_cli.core import console
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.stores.health import Health
from brainhive_cli.data.stores.target_store import TargetStore

COLUMNS = ("store", "vectors", "norm", "spread", "dead", "NaN", "cosine", "near", "check")
PASSED, FAILED = "passed", "failed"


def expand(named: Iterable[str]) -> list[Path]:
    """List the files and folders that names and patterns stand for, each once.

    Raises:
        MissingData: for a name that stands for none.
    """
    found: dict[Path, None] = {}
    for name in named:
        path = Path(name).expanduser()
        paths = [path] if path.exists() else [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
        if not paths:
            raise MissingData(f"no file, folder or pattern {name}", "check the name")
        found.update(dict.fromkeys(paths))
    return list(found)


def find(named: Iterable[str] | None, paths: Paths) -> list[Path]:
    """List the stores that names stand for, also those in a folder; all below paths.embeddings when None.

    Raises:
        MissingData: if there is none.
    """
    places = [paths.under_home("embeddings")] if named is None else expand(named)
    found = [
        file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("*.h5")))
    ]
    if not found:
        where = ", ".join(map(str, places))
        raise MissingData(f"no embedding store in {where}", "brainhive embed or import-embeddings makes one")
    return list(dict.fromkeys(found))


def short(found: TargetStore) -> str:
    """Name a store by data set, split and encoder: where it lies below paths.embeddings."""
    return "/".join(found.path.with_suffix("").parts[-3:])


def row(found: TargetStore, health: Health, has_failed: bool) -> tuple[object, ...]:
    """Write a store's figures under `COLUMNS`, rounded; the spread is the median dimension's."""
    shares = (health.median_pair_cosine, health.near_duplicates)
    return (
        short(found),
        health.vectors,
        *(float(f"{value:.3g}") for value in (health.mean_norm, health.spread[2])),
        health.dead_dimensions,
        health.non_finite,
        *(round(value, 3) for value in shares),
        FAILED if has_failed else PASSED,
    )


def table(rows: Iterable[tuple[object, ...]]) -> console.Table:
    """Make the table of rows that `row` wrote."""
    return console.Table("Health of embeddings", COLUMNS, tuple(rows))
