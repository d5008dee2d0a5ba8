"""import-embeddings: vectors that another project made, as embedding stores."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from brainhive_cli.core import console, home, parts, recipe, runs
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.data.command_lines import after_embedding
from brainhive_cli.data.health_checks import illness, warn_of_illness
from brainhive_cli.datasets import Dataset, ImageSet
from brainhive_cli.encoders import EncoderConfig, Encoders
from brainhive_cli.exchange import store_arguments as _stores
from brainhive_cli.exchange.filling import Share, fill
from brainhive_cli.exchange.matching import match, shown
from brainhive_cli.exchange.reading import Vectors, open_vectors
from brainhive_cli.stores.target_store import TargetStore, path_of


class Keys(recipe.Section):
    """Which entries of a dictionary to read, where it has several that could be meant."""

    ids: str = Field("", description="key of the list of names")
    vectors: str = Field("", description="key of the array of vectors")


class Recipe(recipe.Recipe):
    """Whose vectors, and which pictures and encoder they stand for."""

    sources: recipe.Names = Field([], description="files, folders or patterns")
    dataset: Annotated[Any, parts.part("datasets", "things_eeg")] = Field(
        "things-eeg", validate_default=True, description="whose pictures"
    )
    encoders: Encoders = Field(
        ["clip-h14", "vae"],
        validate_default=True,
        min_length=1,
        description="which encoders made the vectors",
    )
    splits: recipe.Names | None = Field(None, description="splits; default: those that have vectors")
    suffix: str = Field("", description="what follows a picture's name in the name of its own .npy")
    keys: Keys = Keys()
    dtype: Literal["float32", "float16"] = Field("float32", description="dtype of the store")
    skip_missing: bool = Field(False, description="accept pictures without a vector as gaps")
    run: recipe.Run = recipe.Run(device="cpu")  # copies files only: one process does


def plan(what: Recipe) -> Plan:
    """Say which stores there would be."""
    return Plan.of({config.name: partial(_outlook, config, what) for config in what.encoders})


def _outlook(config: EncoderConfig, what: Recipe) -> str:
    vectors, shares = _shares(config, _sets(what), what)
    return f"{vectors.layout} to {', '.join(str(share.path) for share in shares)}"


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Match names with image ids, then write one store an encoder and split.

    Raises:
        MissingData: if pictures have no vector and `skip_missing` is not set.
        BrainhiveError: if a store of other vectors is there and `again` is not set.
    """
    sets, found = _sets(what), []
    for config in what.encoders:
        vectors, shares = _shares(config, sets, what)
        digest = _digest(vectors.files)
        todo = [share for share in shares if again or not _is_done(share, config, digest)]
        if launch.is_main and todo:
            fill(todo, vectors, _identity(config, vectors, digest), what.dtype)
        launch.barrier()
        found += [TargetStore.open(share.path) for share in shares]
    for one in found:
        warn_of_illness(one)
    rows = [_stores.row(one, one.health, bool(illness(one))) for one in found]
    folder = what.paths.under_home("embeddings") / sets[0].dataset
    return Result(
        folder, (_stores.table(rows),), hint=after_embedding(what.dataset, what.encoders, what.paths)
    )


def _sets(what: Recipe) -> list[ImageSet]:
    dataset: Dataset = what.dataset.build(what.paths)
    return [dataset.images(split) for split in what.splits or dataset.splits]


def _shares(config: EncoderConfig, sets: Sequence[ImageSet], what: Recipe) -> tuple[Vectors, list[Share]]:
    """Share one encoder's vectors out to the splits that their names belong to."""
    if not what.sources:
        raise MissingData(
            "nothing to import", "brainhive import-embeddings FILE --dataset NAME --encoders NAME"
        )
    keys = what.keys.ids, what.keys.vectors
    vectors = open_vectors(_stores.expand(what.sources), config.known_as, what.suffix, keys)
    if len(what.encoders) > 1 and not vectors.says_encoder:
        whose = f"{vectors.files[0]} does not say which of the encoders made it"
        raise BrainhiveError(whose, "give one: --encoders NAME")
    matched = match(vectors.names, [image_id for images in sets for image_id in images.image_ids])
    root, shares, first = what.paths.under_home("embeddings"), [], 0
    for images in sets:
        is_here = (matched.rows >= first) & (matched.rows < first + len(images))
        if is_here.any() or what.splits:
            rows = np.where(is_here, matched.rows - first, -1)
            _refuse_gaps(images, rows, what.skip_missing, matched.unknown)
            shares.append(Share(images, path_of(root, images.dataset, images.split, config.name), rows))
        first += len(images)
    if not shares:
        raise MissingData(
            f"no picture of {sets[0].dataset} is named in {vectors.files[0]}: {shown(vectors.names)}",
            "check --dataset; where names have an ending of their own: suffix=_ENDING",
        )
    if matched.unknown:
        unknown = shown(matched.unknown, len(vectors.names))
        console.warn(f"{config.name}: vectors of no picture of {sets[0].dataset} left out, {unknown}")
    return vectors, shares


def _refuse_gaps(images: ImageSet, rows: NDArray[np.int64], skip: bool, unknown: Sequence[str]) -> None:
    has = np.zeros(len(images), bool)
    has[rows[rows >= 0]] = True
    if not has.all() and not skip:
        absent = shown([images.image_ids[row] for row in np.flatnonzero(~has)], len(images))
        others = f"; vectors without a picture, {shown(unknown)}" if unknown else ""
        raise MissingData(
            f"{images.dataset}/{images.split}: pictures without a vector, {absent}{others}",
            "give all files, or accept the gaps with --skip-missing",
        )


def _is_done(share: Share, config: EncoderConfig, digest: str) -> bool:
    """Whether the store is there and holds these vectors.

    Raises:
        BrainhiveError: if it holds others.
    """
    if not share.path.is_file():
        return False
    found = TargetStore.open(share.path)
    made_of = found.attributes["config"], found.attributes["weights"].get("digest")
    same = made_of == (home.portable(config.model_dump(mode="json")), digest)
    if not same or found.image_ids != share.images.image_ids:
        raise BrainhiveError(f"{share.path} is there and holds other vectors", "--again replaces it")
    return True


def _identity(config: EncoderConfig, vectors: Vectors, digest: str) -> dict[str, Any]:
    return {
        "encoder": config.name,
        "config": home.portable(config.model_dump(mode="json")),
        "weights": {"source": f"imported: {vectors.layout}", "digest": digest},
        "preprocessing": "not known: imported",
        "imported": [file.name for file in vectors.files[:8]],
        "versions": runs.versions(),
    }


def _digest(files: Sequence[Path]) -> str:
    """Digest the files' contents (sha256, hexadecimal)."""
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
