"""import-embeddings: vectors that another project made, as target stores."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli.core import console, parts
from brainhive_cli.core.arrays import UInt64
from brainhive_cli.core.command import Input, Result, collect
from brainhive_cli.core.errors import BrainhiveError, Line, MissingData, RecipeError
from brainhive_cli.core.files import make_portable
from brainhive_cli.core.key_types import NameList
from brainhive_cli.core.launch import Launch, library_versions
from brainhive_cli.core.recipe import FileRecipe
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.exchange.vectors import (
    IN_ORDER,
    StoredShare,
    Vectors,
    checked_batches,
    copy_vectors,
    open_vectors,
)
from brainhive_cli.data.files.ids import match_names, summarise_names
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.stores.health import health_row, health_table
from brainhive_cli.data.stores.target_store import TargetStore, expand_patterns, path_of
from brainhive_cli.data.targets.encoder_keys import encoders_by_key
from brainhive_cli.data.targets.encoder_stores import problem_of, warn_of_problems
from brainhive_cli.data.targets.next_commands import next_command
from brainhive_cli.models.encoders import (
    IMPORTED,
    OWN_NAME_HINT,
    USUAL,
    EncoderConfig,
    Encoders,
    resolve,
    resolve_all,
)
from brainhive_cli.models.heads import FUSED, check_names


class Recipe(FileRecipe):
    """Recipe of import-embeddings: the files, their data set and their encoders."""

    sources: NameList = Field([], description="files, folders or patterns")
    dataset: Any = parts.part_field("datasets", "things-eeg", "whose pictures")
    encoders: Encoders = Field(
        [*USUAL],
        validate_default=True,
        min_length=1,
        description="which encoders made the vectors",
    )
    name: str | None = Field(
        None,
        description=(
            "name of your own model, which made the vectors: an encoder's name from "
            "then on"
        ),
    )
    splits: NameList | None = Field(
        None, description="splits; default: those that have vectors"
    )
    suffix: str = Field(
        "", description="what follows a picture's name in the name of its own .npy"
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="dtype of the store"
    )
    skip_missing: bool = Field(
        False, description="accept pictures without a vector as gaps"
    )

    @model_validator(mode="before")
    @classmethod
    def _takes_own_vectors_by_their_name(cls, fields: Any) -> Any:
        """Let `name` stand for an encoder that no file of the shelf describes."""
        name = fields.get("name") if isinstance(fields, dict) else None
        if not isinstance(name, str):
            return fields

        # a name that is free: of no shipped encoder, of nothing that a head can be
        # called
        imported = resolve({"kind": IMPORTED, "source": name})
        shipped = encoders_by_key([name]).get(name)
        if shipped is not None and shipped.kind != IMPORTED:
            raise RecipeError(
                (
                    f"own vectors cannot be called {name!r}: BrainHiVE calls "
                    f"{shipped.name} so"
                ),
                OWN_NAME_HINT,
            )
        check_names([name])
        if name == FUSED:
            raise RecipeError(
                f"own vectors cannot be called {name!r}: a fuser's target is",
                OWN_NAME_HINT,
            )
        # with both keys it would be open which encoder the stores belong to
        if "encoders" in fields and resolve_all(fields["encoders"]) != [imported]:
            raise RecipeError(
                f"name is {name}, and encoders are named too", "leave one of them out"
            )
        return {**fields, "encoders": [imported]}


def _resolve(recipe: Recipe) -> tuple[list[Path], list[StimulusSet]]:
    """List the files that are named, and the pictures of each split of the data set;
    both must be here.
    """
    if not recipe.sources:
        raise MissingData(
            "nothing to import",
            Line(
                "import-embeddings", "FILE", "--dataset", "NAME", "--encoders", "NAME"
            ),
        )
    dataset: Dataset = recipe.dataset.build(recipe.paths)
    files = expand_patterns(recipe.sources)
    return files, [dataset.images(split) for split in recipe.splits or dataset.splits]


def match_vectors(
    recipe: Recipe,
    files: Sequence[Path],
    splits: Sequence[StimulusSet],
    config: EncoderConfig,
) -> tuple[Vectors, list[StoredShare]]:
    """Match one encoder's vectors in files with the pictures of the splits that their
    names belong to.

    Returns:
        The vectors, and the rows of them that belong to each split.

    Raises:
        MissingData: if no picture is named, or pictures have no vector and
            `skip_missing` is not set.
        BrainhiveError: if the files do not say which of several encoders made them, or
            the one that is named makes vectors of another shape.
    """
    # open the encoder's vectors; several encoders need files that tell them apart
    # an array without names is matched by order, within a single split
    ordered_ids = splits[0].image_ids if recipe.splits and len(splits) == 1 else None
    vectors = open_vectors(files, config.known_as, recipe.suffix, ordered_ids)
    first_file = vectors.files[0]
    if len(recipe.encoders) > 1 and not vectors.says_encoder:
        raise BrainhiveError(
            f"{first_file} does not say which of the encoders made it",
            "give one: --encoders NAME",
        )

    # the rows of each split; pictures without a vector are gaps, where these are
    # accepted
    image_ids = [image_id for images in splits for image_id in images.image_ids]
    matched, unknown = match_names(vectors.names, image_ids, each_once=True)
    root = recipe.paths.under_home("embeddings")
    start = 0
    shares = []
    for images in splits:
        # matched rows count over all splits; those of other splits become -1
        is_here = (matched >= start) & (matched < start + len(images))
        if is_here.any() or recipe.splits:
            rows = np.where(is_here, matched - start, -1)
            gaps = np.setdiff1d(np.arange(len(images)), rows)
            if len(gaps) and not recipe.skip_missing:
                absent = summarise_names(
                    [images.image_ids[row] for row in gaps], len(images)
                )
                unmatched = ""
                if unknown:
                    unmatched = (
                        f"; vectors without a picture, {summarise_names(unknown)}"
                    )
                raise MissingData(
                    (
                        f"{images.dataset}/{images.split}: pictures without a vector, "
                        f"{absent}{unmatched}"
                    ),
                    "give all files, or accept the gaps with --skip-missing",
                )
            shares.append(
                (images, path_of(root, images.dataset, images.split, config.name), rows)
            )
        start += len(images)

    # names that match nothing are an error, or a warning if others match
    dataset = splits[0].dataset
    if not shares:
        raise MissingData(
            (
                f"no picture of {dataset} is named in {first_file}: "
                f"{summarise_names(vectors.names)}"
            ),
            "check --dataset; where names have an ending of their own: suffix=_ENDING",
        )
    if unknown:
        left_out = summarise_names(unknown, len(vectors.names))
        console.warn(
            f"{config.name}: vectors of no picture of {dataset} left out, {left_out}"
        )

    # their shape, and that of the encoder where it is known without its weights
    batch = next(checked_batches(vectors), None)
    if batch is None:
        raise BrainhiveError(f"{first_file} holds no vectors", "fetch it again")
    expected = None if config.views == "all" else config.known_shape
    if expected is not None and batch.shape[1:] != expected:
        width, usual = (
            "×".join(map(str, sizes)) for sizes in (batch.shape[1:], expected)
        )
        raise BrainhiveError(
            (
                f"{first_file} holds vectors of {width} values, but {config.name} "
                f"makes {usual}"
            ),
            "name the encoder that made them: --encoders NAME "
            f"(all, with their D: {Line('embed', '--list')})",
        )
    return vectors, shares


def is_imported(share: StoredShare, config: Any, digest: str) -> bool:
    """Tell whether a store is there and holds these vectors.

    Args:
        share: The store.
        config: That of the encoder, as stores keep it.
        digest: Of the vectors' files.

    Raises:
        BrainhiveError: if it holds others.
    """
    images, path, _ = share
    if not path.is_file():
        return False

    # the same encoder, pictures and files
    store = TargetStore.open(path)
    is_same = (
        store.attributes["config"] == config and store.image_ids == images.image_ids
    )
    if not is_same or store.attributes["weights"].get("digest") != digest:
        raise BrainhiveError(
            f"{path} is there and holds other vectors", "--again replaces it"
        )
    return True


def inputs(recipe: Recipe) -> list[Input]:
    """List the vectors of each encoder, with the stores that they are for."""
    files, splits = _resolve(recipe)

    def look(config: EncoderConfig) -> list[Input]:
        vectors, shares = match_vectors(recipe, files, splits, config)
        return [
            Input(
                f"{vectors.layout} to {', '.join(str(path) for _, path, _ in shares)}"
            )
        ]

    return collect(*(partial(look, config) for config in recipe.encoders))


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Match names with image ids, then write one store an encoder and split.

    Raises:
        MissingData: if pictures have no vector and `skip_missing` is not set.
        BrainhiveError: if a store of other vectors is there and `again` is not set.
    """
    files, splits = _resolve(recipe)
    stores = []
    identified: dict[str, UInt64] = {}  # each picture is read once for all encoders
    for config in recipe.encoders:
        # match names and pictures, and leave out stores that hold these vectors already
        with console.progress(f"matching the vectors of {config.name}"):
            vectors, shares = match_vectors(recipe, files, splits, config)
            digest = _digest(vectors.files)
        stored_config = make_portable(config.model_dump(mode="json"))
        # nothing verifies the order of rows without names: the user must
        if vectors.layout == IN_ORDER:
            images = splits[0]
            ends = (
                f"row 0 is {images.image_ids[0]}, row {len(images) - 1} is "
                f"{images.image_ids[-1]}"
            )
            console.say(
                f"{vectors.files[0]} has no names; in the order of "
                f"{images.dataset}/{images.split}, {ends}"
            )
        todo = [
            share
            for share in shares
            if again or not is_imported(share, stored_config, digest)
        ]

        # copy the vectors, with their source instead of weights
        if todo:
            attributes = {
                "encoder": config.name,
                "config": stored_config,
                "weights": {"source": f"imported: {vectors.layout}", "digest": digest},
                "preprocessing": "not known: imported",
                "imported": [file.name for file in vectors.files[:8]],
                "versions": library_versions(),
            }
            copy = partial(
                copy_vectors,
                todo,
                vectors,
                attributes,
                recipe.dtype,
                recipe.skip_missing,
                identified,
            )
            launch.run_on_main(copy)
        stores += [TargetStore.open(path) for _, path, _ in shares]

    # report the health of each store
    for store in stores:
        warn_of_problems(store)
    rows = [
        health_row(store.path, store.health, bool(problem_of(store)))
        for store in stores
    ]
    folder = recipe.paths.under_home("embeddings") / splits[0].dataset
    hint = next_command(recipe.dataset, recipe.encoders, recipe.paths)
    return Result(folder, (health_table(rows),), hint=hint)


def _digest(files: Sequence[Path]) -> str:
    """Digest the files' contents (sha256, hexadecimal)."""
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            # the order of files counts
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
