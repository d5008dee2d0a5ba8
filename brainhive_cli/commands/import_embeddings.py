"""import-embeddings: vectors that another project made, as target stores."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from brainhive_cli.core import console, parts
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import portable
from brainhive_cli.core.launch import Launch, library_versions
from brainhive_cli.core.recipe import Names, Run, Section
from brainhive_cli.core.recipe import Recipe as BaseRecipe
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.data.command_lines import next_command
from brainhive_cli.data.datasets import Dataset, StimulusSet
from brainhive_cli.data.exchange.vectors import (
    Share,
    Vectors,
    checked_batches,
    copy_vectors,
    holds_vectors,
    open_vectors,
)
from brainhive_cli.data.stores.health import health_row, health_table
from brainhive_cli.data.stores.ids import match_names, summarise_names
from brainhive_cli.data.stores.target_store import TargetStore, expand_patterns, path_of
from brainhive_cli.data.targets.target_stores import problem_of, warn_of_problems
from brainhive_cli.models.encoders import EncoderConfig, Encoders


class Keys(Section):
    """Which entries of a dictionary to read, where it has several that could be meant."""

    ids: str = Field("", description="key of the list of names")
    vectors: str = Field("", description="key of the array of vectors")


class Recipe(BaseRecipe):
    """Whose vectors, and which pictures and encoder they stand for."""

    sources: Names = Field([], description="files, folders or patterns")
    dataset: Annotated[Any, parts.part("datasets", "things-eeg")] = Field(
        "things-eeg", validate_default=True, description="whose pictures"
    )
    encoders: Encoders = Field(
        ["clip-h14", "vae"],
        validate_default=True,
        min_length=1,
        description="which encoders made the vectors",
    )
    splits: Names | None = Field(None, description="splits; default: those that have vectors")
    suffix: str = Field("", description="what follows a picture's name in the name of its own .npy")
    keys: Keys = Keys()
    dtype: Literal["float32", "float16"] = Field("float32", description="dtype of the store")
    skip_missing: bool = Field(False, description="accept pictures without a vector as gaps")
    run: Run = Run(device="cpu")  # copies files only: one process does


@dataclass(frozen=True)
class Job:
    """One encoder's vectors, and the stores that they go to.

    Attributes:
        config: The encoder.
        vectors: In their files.
        shares: The rows of the vectors that belong to each split.
    """

    config: EncoderConfig
    vectors: Vectors
    shares: list[Share]

    @classmethod
    def resolve(
        cls, recipe: Recipe, config: EncoderConfig, files: Sequence[Path], splits: Sequence[StimulusSet]
    ) -> Self:
        """Match one encoder's vectors with the pictures of the splits that their names belong to.

        Raises:
            MissingData: if no picture is named, or pictures have no vector and `skip_missing` is not set.
            BrainhiveError: if the files do not say which of several encoders made them, or the one that is
                named makes vectors of another shape.
        """
        keys = recipe.keys.ids, recipe.keys.vectors
        vectors = open_vectors(files, config.known_as, recipe.suffix, keys)
        if len(recipe.encoders) > 1 and not vectors.says_encoder:
            problem = f"{vectors.files[0]} does not say which of the encoders made it"
            raise BrainhiveError(problem, "give one: --encoders NAME")
        matched = match_names(vectors.names, [image_id for images in splits for image_id in images.image_ids])
        root, first = recipe.paths.under_home("embeddings"), 0
        shares = []
        for images in splits:
            is_here = (matched.rows >= first) & (matched.rows < first + len(images))
            if is_here.any() or recipe.splits:
                rows = np.where(is_here, matched.rows - first, -1)
                if not recipe.skip_missing:
                    _refuse_gaps(images, rows, matched.unknown)
                shares.append(Share(images, path_of(root, images.dataset, images.split, config.name), rows))
            first += len(images)
        dataset = splits[0].dataset
        if not shares:
            raise MissingData(
                f"no picture of {dataset} is named in {vectors.files[0]}: {summarise_names(vectors.names)}",
                "check --dataset; where names have an ending of their own: suffix=_ENDING",
            )
        if matched.unknown:
            unknown = summarise_names(matched.unknown, len(vectors.names))
            console.warn(f"{config.name}: vectors of no picture of {dataset} left out, {unknown}")
        _refuse_other_shape(config, vectors)
        return cls(config, vectors, shares)


def _files_and_splits(recipe: Recipe) -> tuple[list[Path], list[StimulusSet]]:
    """List the files that are named, and the pictures of the splits that vectors may belong to."""
    if not recipe.sources:
        line = "brainhive import-embeddings FILE --dataset NAME --encoders NAME"
        raise MissingData("nothing to import", line)
    dataset: Dataset = recipe.dataset.build(recipe.paths)
    files = expand_patterns(recipe.sources)
    return files, [dataset.images(split) for split in recipe.splits or dataset.splits]


def plan(recipe: Recipe) -> Plan:
    """Say which stores there would be."""
    try:
        files, splits = _files_and_splits(recipe)
    except BrainhiveError as error:
        return Plan.of({"vectors": error})

    def describe(config: EncoderConfig) -> str:
        job = Job.resolve(recipe, config, files, splits)
        return f"{job.vectors.layout} to {', '.join(str(share.path) for share in job.shares)}"

    return Plan.of({config.name: partial(describe, config) for config in recipe.encoders})


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Match names with image ids, then write one store an encoder and split.

    Raises:
        MissingData: if pictures have no vector and `skip_missing` is not set.
        BrainhiveError: if a store of other vectors is there and `again` is not set.
    """
    files, splits = _files_and_splits(recipe)
    stores: list[TargetStore] = []
    for config in recipe.encoders:
        job = Job.resolve(recipe, config, files, splits)
        digest = _digest(job.vectors.files)
        todo = [share for share in job.shares if again or not _is_done(share, job, digest)]
        if launch.is_main and todo:
            attributes = {
                "encoder": config.name,
                "config": portable(config.model_dump(mode="json")),
                "weights": {"source": f"imported: {job.vectors.layout}", "digest": digest},
                "preprocessing": "not known: imported",
                "imported": [file.name for file in job.vectors.files[:8]],
                "versions": library_versions(),
            }
            copy_vectors(todo, job.vectors, attributes, recipe.dtype)
        launch.barrier()
        stores += [TargetStore.open(share.path) for share in job.shares]
    for store in stores:
        warn_of_problems(store)
    rows = [health_row(store.path, store.health, bool(problem_of(store))) for store in stores]
    folder = recipe.paths.under_home("embeddings") / splits[0].dataset
    hint = next_command(recipe.dataset, recipe.encoders, recipe.paths)
    return Result(folder, (health_table(rows),), hint=hint)


def _refuse_other_shape(config: EncoderConfig, vectors: Vectors) -> None:
    """Refuse vectors that the encoder cannot have made, where their shape is known without its weights."""
    expected = config.known_shape
    if expected is None or config.views == "all" or (first := next(checked_batches(vectors), None)) is None:
        return
    if (shape := first.shape[1:]) != expected:
        width, usual = ("×".join(map(str, sizes)) for sizes in (shape, expected))
        raise BrainhiveError(
            f"{vectors.files[0]} holds vectors of {width} values, but {config.name} makes {usual}",
            "name the encoder that made them: --encoders NAME (all, with their D: brainhive embed --list)",
        )


def _refuse_gaps(images: StimulusSet, rows: NDArray[np.int64], unknown: Sequence[str]) -> None:
    has_vector = np.zeros(len(images), bool)
    has_vector[rows[rows >= 0]] = True
    if not has_vector.all():
        absent = summarise_names([images.image_ids[row] for row in np.flatnonzero(~has_vector)], len(images))
        without_picture = f"; vectors without a picture, {summarise_names(unknown)}" if unknown else ""
        raise MissingData(
            f"{images.dataset}/{images.split}: pictures without a vector, {absent}{without_picture}",
            "give all files, or accept the gaps with --skip-missing",
        )


def _is_done(share: Share, job: Job, digest: str) -> bool:
    """Whether the store is there and holds these vectors, wherever they came from.

    Raises:
        BrainhiveError: if it holds others.
    """
    if not share.path.is_file():
        return False
    store = TargetStore.open(share.path)
    is_same = store.attributes["config"] == portable(job.config.model_dump(mode="json"))
    is_same &= store.image_ids == share.images.image_ids
    if not is_same or (
        store.attributes["weights"].get("digest") != digest and not holds_vectors(share, job.vectors)
    ):
        raise BrainhiveError(f"{share.path} is there and holds other vectors", "--again replaces it")
    return True


def _digest(files: Sequence[Path]) -> str:
    """Digest the files' contents (sha256, hexadecimal)."""
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
