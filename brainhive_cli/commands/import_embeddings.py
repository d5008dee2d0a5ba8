"""The command `import-embeddings`: target stores from embeddings of other programs.

A target store is a file with the vectors of an encoder for the pictures of a split.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli.core.base import (
    BrainhiveError,
    Failures,
    Int64,
    Line,
    MissingData,
    RecipeError,
    UInt64,
    console,
)
from brainhive_cli.core.files import Input, collect_inputs, make_portable
from brainhive_cli.core.recipes import (
    STORES,
    Arguments,
    FileRecipe,
    Flag,
    NameList,
    flag_field,
    parts,
)
from brainhive_cli.core.runs import Claim, Launch, Result, library_versions
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.exchange import (
    ORDERED_LAYOUT,
    StoredShare,
    Vectors,
    copy_vectors,
    open_vectors,
    read_checked_batches,
)
from brainhive_cli.data.files import match_names, summarise_names
from brainhive_cli.data.media import StimulusSet
from brainhive_cli.data.stores import (
    TargetStore,
    expand_patterns,
    make_health_row,
    make_health_table,
)
from brainhive_cli.data.stores.target_store import build_store_path
from brainhive_cli.data.targets import (
    describe_health_problem,
    find_encoders,
    warn_of_problems,
    write_next_command,
)
from brainhive_cli.models import FUSED_TARGET, check_head_names
from brainhive_cli.models.encoders import (
    DEFAULT_ENCODERS,
    IMPORTED,
    OWN_NAME_HINT,
    EncoderConfig,
    Encoders,
    resolve,
    resolve_all,
)


class Recipe(FileRecipe):
    """Recipe of `import-embeddings`: the files, their data set and their encoders."""

    skips_finished = True
    section = STORES
    summary = (
        "Import embeddings that other programs computed: parquet, .pt, .npy or "
        "thingsvision."
    )
    example = "cache/things_*.parquet --encoders clip-h14,vae"

    sources: Annotated[NameList, Arguments("PATH")] = Field(
        [], description="files, folders or patterns"
    )
    dataset: Annotated[Any, Flag()] = parts.part_field(
        "datasets",
        "things-eeg",
        "data set of the pictures, such as image-folder or demo",
    )
    encoders: Encoders = flag_field(
        list(DEFAULT_ENCODERS),
        "encoders that made the vectors, by name or reference, separated by commas",
        validate_default=True,
        min_length=1,
    )
    name: str | None = flag_field(
        None,
        "name of your own model that made the vectors. It is an encoder's "
        "name from then on",
        flag="--as",
    )
    splits: NameList | None = flag_field(
        None, "splits to use, as in train,test; default: all splits with vectors"
    )
    suffix: str = Field(
        "",
        description="text between the name of a picture and .npy, if each picture has "
        "a file of its own",
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="dtype of the store"
    )
    skip_missing: bool = flag_field(False, "leave gaps for pictures without a vector")

    @model_validator(mode="before")
    @classmethod
    def _set_encoder_from_name(cls, fields: Any) -> Any:
        """Set `encoders` to the user's own model, if `name` is set.

        Raises:
            RecipeError: if a shipped encoder has the name, if the name is not valid for
                a head (output of a brain model), or if the recipe names other encoders.
        """
        name = fields.get("name") if isinstance(fields, dict) else None
        if not isinstance(name, str):
            return fields

        # a head is named after its encoder, so the name must be free and valid
        imported = resolve({"kind": IMPORTED, "source": name})
        known_encoder = find_encoders([name]).get(name)
        if known_encoder is not None and known_encoder.kind != IMPORTED:
            raise RecipeError(
                f"own vectors cannot be called {name!r}, which is a name of the "
                f"encoder {known_encoder.name}",
                OWN_NAME_HINT,
            )
        check_head_names([name])
        if name == FUSED_TARGET:
            raise RecipeError(
                f"own vectors cannot be called {name!r}, which is the name of fused "
                "embeddings",
                OWN_NAME_HINT,
            )

        # only a single model can have made the vectors
        if "encoders" in fields and resolve_all(fields["encoders"]) != [imported]:
            raise RecipeError(
                f"the recipe has the name {name}, and encoders, too",
                "leave out name or encoders",
            )
        return fields | {"encoders": [imported]}


def _resolve(recipe: Recipe) -> tuple[list[Path], list[StimulusSet]]:
    """Return the files to import, and the pictures of each split of the recipe.

    Raises:
        MissingData: if the recipe names no files, or if files or pictures are absent.
    """
    if not recipe.sources:
        raise MissingData(
            "name the files to import",
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
    """Match the vectors of an encoder with the pictures of each split, by their names.

    Args:
        recipe: Recipe with the names of the splits. If `skip_missing` is set, a picture
            need not have a vector.
        files: Files with N vectors.
        splits: Pictures of each split.
        config: Config of the encoder that made the vectors.

    Returns:
        The vectors, and a tuple for each split: its pictures, the path of its target
        store, and the row [N] in the split of each vector, or -1 outside the split.
        Splits without vectors are left out if the recipe names no splits.

    Raises:
        MissingData: if no vector belongs to a picture, or if pictures have no vector
            and the recipe does not accept gaps.
        BrainhiveError: if the files do not say which of several encoders made them, or
            if the encoder makes vectors of another shape.
    """
    # vectors without names have the order of the pictures of a single split
    has_single_split = bool(recipe.splits) and len(splits) == 1
    ordered_ids = splits[0].image_ids if has_single_split else None
    vectors = open_vectors(
        files, [config.name, config.published_name], recipe.suffix, ordered_ids
    )

    first_file = vectors.files[0]
    if len(recipe.encoders) > 1 and not vectors.has_encoder_name:
        raise BrainhiveError(
            f"{first_file} does not say which of the encoders made it",
            "name one encoder: --encoders NAME",
        )

    # match the names with the pictures of all splits together
    image_ids: list[str] = []
    for images in splits:
        image_ids += images.image_ids
    matched_rows, unknown_names = match_names(vectors.names, image_ids, each_once=True)

    # a split has the rows from `first_row` to `end_row`
    root = recipe.paths.under_home("embeddings")
    shares = []
    first_row = 0
    for images in splits:
        end_row = first_row + len(images)
        is_in_split = (matched_rows >= first_row) & (matched_rows < end_row)
        if is_in_split.any() or recipe.splits:
            rows = np.where(is_in_split, matched_rows - first_row, -1)
            if not recipe.skip_missing:
                _require_all_pictures(images, rows, unknown_names)
            path = build_store_path(root, images.dataset, images.split, config.name)
            shares.append((images, path, rows))
        first_row = end_row

    dataset = splits[0].dataset
    if not shares:
        raise MissingData(
            f"no picture of {dataset} has a vector in {first_file}: "
            f"{summarise_names(vectors.names)}",
            "check --dataset; if all names have the same ending: suffix=_ENDING",
        )
    if unknown_names:
        summary = summarise_names(unknown_names, len(vectors.names))
        console.warn(
            f"{config.name}: left out vectors whose names are not pictures of "
            f"{dataset}, {summary}"
        )
    _check_shape(vectors, config)
    return vectors, shares


def _require_all_pictures(
    images: StimulusSet, rows: Int64, unknown_names: Sequence[str]
) -> None:
    """Raise an error if a picture of a split has no vector.

    Args:
        images: Pictures of the split.
        rows: Row [N] in the split of each vector, or -1 outside the split.
        unknown_names: Names of vectors that belong to no picture, for the message.
    """
    missing_rows = np.setdiff1d(np.arange(len(images)), rows)
    if not len(missing_rows):
        return

    missing_ids = [images.image_ids[row] for row in missing_rows]
    problem = (
        f"{images.dataset}/{images.split}: pictures without a vector, "
        f"{summarise_names(missing_ids, len(images))}"
    )
    if unknown_names:
        problem += f"; vectors without a picture, {summarise_names(unknown_names)}"
    raise MissingData(problem, "name all files, or accept the gaps with --skip-missing")


def _check_shape(vectors: Vectors, config: EncoderConfig) -> None:
    """Raise an error if there are no vectors, or if the encoder makes another shape.

    Shapes are not compared if `config` does not tell the shape, or has views "all".
    """
    first_file = vectors.files[0]
    batch = next(read_checked_batches(vectors), None)
    if batch is None:
        raise BrainhiveError(f"{first_file} holds no vectors", "fetch it again")

    expected_shape = None if config.views == "all" else config.static_shape
    shape = batch.shape[1:]
    if expected_shape is not None and shape != expected_shape:
        raise BrainhiveError(
            f"{first_file} holds vectors of {_format_shape(shape)} values, but "
            f"{config.name} makes {_format_shape(expected_shape)}",
            "name the encoder that made the vectors: --encoders NAME (all encoders "
            f"with their D: {Line('embed', '--list')})",
        )


def _format_shape(shape: Sequence[int]) -> str:
    """Return a shape as text, such as 257×1024."""
    return "×".join(map(str, shape))


def is_imported(share: StoredShare, config: Any, digest: str) -> bool:
    """Return True if the target store of a split exists and holds these vectors.

    Args:
        share: Pictures of the split, path of the store, and row in the split of each
            vector.
        config: Config of the encoder as plain values.
        digest: SHA-256 digest of the files to import.

    Raises:
        BrainhiveError: if the store holds other vectors.
    """
    images, path, _ = share
    if not path.is_file():
        return False

    store = TargetStore.open(path)
    has_same_config = store.attributes["config"] == config
    has_same_pictures = store.image_ids == images.image_ids
    has_same_files = store.attributes["weights"].get("digest") == digest
    if not (has_same_config and has_same_pictures and has_same_files):
        raise BrainhiveError(
            f"{path} exists and holds other vectors", "--again replaces it"
        )
    return True


def inputs(recipe: Recipe) -> list[Input]:
    """List the vectors of each encoder, and the stores that they will be written to."""
    files, splits = _resolve(recipe)
    sources = [
        partial(_list_vectors, recipe, files, splits, config)
        for config in recipe.encoders
    ]
    return collect_inputs(*sources)


def _list_vectors(
    recipe: Recipe,
    files: Sequence[Path],
    splits: Sequence[StimulusSet],
    config: EncoderConfig,
) -> list[Input]:
    """Return an input with the layout of the files and the paths of the stores."""
    vectors, shares = match_vectors(recipe, files, splits, config)
    paths = ", ".join(str(path) for _, path, _ in shares)
    return [Input(f"{vectors.layout} to {paths}")]


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Import vectors, and write a target store for each encoder and split.

    Args:
        recipe: Recipe with the files, the data set and the encoders.
        launch: Processes of the command, of which the main process writes the stores.
        force: If True, replace stores that exist.

    Returns:
        A table with a health check of each store.

    Raises:
        MissingData: if pictures have no vector and the recipe does not accept gaps.
        BrainhiveError: if a store of other vectors exists and `force` is False.
    """
    files, splits = _resolve(recipe)
    stores: list[TargetStore] = []

    # digests of pictures, shared by the encoders
    identified: dict[str, UInt64] = {}
    failures = Failures()
    for config in recipe.encoders:
        with failures.collect():
            stores += _import_encoder(
                recipe, launch, files, splits, config, identified, force
            )
    exit_code = failures.finish(len(recipe.encoders))

    rows = []
    for store in stores:
        warn_of_problems(store)
        has_problem = bool(describe_health_problem(store))
        rows.append(make_health_row(store.path, store.health, has_problem))
    folder = recipe.paths.under_home("embeddings") / splits[0].dataset
    hint = write_next_command(recipe.dataset, recipe.encoders, recipe.paths)
    return Result(
        folder,
        (make_health_table(rows),),
        hint=hint,
        exit_code=exit_code,
        details=failures.as_details(),
    )


def _import_encoder(
    recipe: Recipe,
    launch: Launch,
    files: Sequence[Path],
    splits: Sequence[StimulusSet],
    config: EncoderConfig,
    identified: dict[str, UInt64],
    force: bool,
) -> list[TargetStore]:
    """Write the missing target stores of an encoder, and return all its stores.

    Args:
        recipe: Recipe with the files, the data set and the encoders.
        launch: Processes of the command, of which the main process writes the stores.
        files: Files of vectors.
        splits: Pictures of each split.
        config: Config of the encoder.
        identified: Digests of pictures, to which new digests are added.
        force: If True, replace stores that exist.
    """
    with console.progress(f"matching the vectors of {config.name}"):
        vectors, shares = match_vectors(recipe, files, splits, config)
        digest = _digest(vectors.files)

    # only the user can check the order of vectors without names
    if vectors.layout == ORDERED_LAYOUT:
        images = splits[0]
        console.say(
            f"{vectors.files[0]} has no names, so its rows are taken in the order "
            f"of {images.dataset}/{images.split}: row 0 is {images.image_ids[0]}, "
            f"row {len(images) - 1} is {images.image_ids[-1]}"
        )

    # a record of where the vectors come from
    stored_config = make_portable(config.model_dump(mode="json"))
    file_names = [file.name for file in vectors.files]
    attributes = {
        "encoder": config.name,
        "config": stored_config,
        "weights": {"source": f"imported: {vectors.layout}", "digest": digest},
        "preprocessing": "not known: imported",
        # Largest number of imported files whose names a store keeps.
        "imported": file_names[:8],
        "versions": library_versions(),
    }

    def write_stores() -> None:
        """Write the stores that do not hold these vectors already."""
        # another import of the same name must end first
        path = shares[0][1]
        claim = Claim(path.with_name(f".{path.name}.import"), config.name, wait=True)
        try:
            new_shares = []
            for share in shares:
                if force or not is_imported(share, stored_config, digest):
                    new_shares.append(share)
            if new_shares:
                copy_vectors(
                    new_shares,
                    vectors,
                    attributes,
                    dtype=recipe.dtype,
                    skip_missing=recipe.skip_missing,
                    pixel_digests=identified,
                )
        finally:
            claim.release()

    launch.run_on_main(write_stores)
    return [TargetStore.open(path) for _, path, _ in shares]


def _digest(files: Sequence[Path]) -> str:
    """Return the SHA-256 digest of the SHA-256 digests of files."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
