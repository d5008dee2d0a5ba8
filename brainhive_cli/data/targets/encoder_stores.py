"""Target stores of the encoders that a recipe, a prior or a model names."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np

from brainhive_cli.core import console, parts
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingData,
    RecipeError,
)
from brainhive_cli.core.files import locate_stored
from brainhive_cli.core.recipe import EMBEDDINGS, Paths
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.stores import target_store
from brainhive_cli.data.stores.health import Health
from brainhive_cli.data.stores.target_store import (
    TargetStore,
)
from brainhive_cli.data.targets.next_commands import write_embed_commands
from brainhive_cli.models.encoders import (
    IMPORTED,
    AnnotationConfig,
    EncoderConfig,
)

IDENTITIES = "embeddings.json"
"""Where a run keeps it, by the encoder's name."""
MADE_BY = ("weights", "preprocessing", "network")
"""What the stores of all splits have in common."""


def open_stores(
    dataset: Dataset,
    dataset_config: parts.Config,
    split: str,
    encoders: Sequence[EncoderConfig],
    paths: Paths,
    images: StimulusSet | None = None,
) -> dict[str, TargetStore]:
    """Open the stores of several encoders over the same stimuli, by encoder; arguments
    as `open_targets`.
    """
    root = paths.under_home("embeddings")
    line = write_embed_commands(dataset_config, encoders)
    split = dataset.holdout.name_stored_split(split)
    try:
        stores = target_store.open_stores(
            root, dataset.name, split, [config.name for config in encoders]
        )
    except MissingData as error:
        raise MissingData(error.message, line) from error

    # the name of a store that an encoder made is not the encoder's
    for config in encoders:
        made_by = stores[config.name].attributes["config"]
        if config.kind == IMPORTED and not stores[config.name].has_own_vectors:
            reference = made_by.get("source") or made_by.get("kind", "NAME")
            raise RecipeError(
                f"{stores[config.name].path} holds no own vectors: "
                f"{made_by.get('kind')} made it",
                f"--encoders {reference}",
            )

    # stores are of the pictures that the data set has today
    first = next(iter(stores.values()))
    with suppress(MissingData):  # the pictures need not be on this machine
        first.require_pictures((images or dataset.images(split)).image_ids, line)
    for other in stores.values():
        warn_of_problems(other)
        # all are of the same stimuli, row by row
        if difference := _difference(first, other):
            raise BrainhiveError(
                f"{first.path} and {other.path} hold {difference}", f"{line} --again"
            )
    return stores


def store_inputs(
    dataset: Dataset,
    config: parts.Config,
    split: str,
    encoders: Sequence[EncoderConfig],
    paths: Paths,
) -> list[Input]:
    """List the stores of several encoders, those of own vectors with digests; arguments
    as `open_targets`.

    A name says nothing of what made own vectors, so that others of one name must make
    another run.
    """
    root = paths.under_home("embeddings")
    stored = dataset.holdout.name_stored_split(split)
    listed = list[Input]()
    files = [
        target_store.find_store(root, dataset.name, stored, encoder.name)[0]
        for encoder in encoders
    ]
    # all stores are opened once, and their error stands for each that is missing
    error = None
    if not all(path.is_file() for path in files):
        try:
            open_stores(dataset, config, split, encoders, paths)
        except BrainhiveError as absence:
            error = absence
    for encoder, path in zip(encoders, files, strict=True):
        is_here = path.is_file()
        digest = ""
        if is_here and encoder.kind == IMPORTED:
            digest = str(TargetStore.open(path).attributes["weights"].get("digest", ""))
        name = f"{EMBEDDINGS} {dataset.name}/{stored}/{encoder.name}"
        listed.append(Input(name, None, None if is_here else error, digest=digest))
    return listed


def _difference(first: TargetStore, other: TargetStore) -> str:
    """Say how the stimuli of two stores differ; empty if row by row they do not."""
    if first.image_ids != other.image_ids:
        is_order = sorted(first.image_ids) == sorted(other.image_ids)
        if is_order:
            return "the same pictures in another order"
        return "different pictures"
    # stimuli that could not be decoded must be the same, too
    if np.array_equal(first.done, other.done):
        return ""
    return "gaps at different pictures"


def open_alternatives(
    alternatives: Mapping[str, Sequence[str]],
    stores: Mapping[str, TargetStore],
    paths: Paths,
) -> dict[str, list[TargetStore]]:
    """Open further stores of the same stimuli.

    Args:
        alternatives: Names of further stores, by the encoder whose targets they are
            alternatives of.
        stores: Its store, by the encoder's name.
        paths: Where stores lie.

    Raises:
        MissingData: if a store is missing.
        BrainhiveError: if one is not of the same stimuli and shape.
    """
    # alternatives belong to encoders that are fused
    if unknown := set(alternatives) - set(stores):
        raise BrainhiveError(
            f"train.embedding_alternatives names {', '.join(sorted(unknown))}, which "
            "is not fused",
            f"encoders: {', '.join(stores)}",
        )

    # open the further stores, which must have the stimuli and the shape of the first
    further = {}
    for name, names in alternatives.items():
        first = stores[name]
        dataset = first.attributes["dataset"]
        split = first.attributes["split"]
        try:
            opened = target_store.open_stores(
                paths.under_home("embeddings"), dataset, split, names
            )
        except MissingData as error:
            here = sorted(path.stem for path in first.path.parent.glob("*.h5"))
            raise MissingData(
                error.message, f"name stores that are there: {', '.join(here)}"
            ) from error
        for other in opened.values():
            is_alike = first.shape == other.shape
            if reason := _difference(first, other) or (
                "" if is_alike else "targets of another shape"
            ):
                raise BrainhiveError(
                    f"{first.path} and {other.path} hold {reason}", "name another store"
                )
        further[name] = list(opened.values())
    return further


def identity_of(store: TargetStore) -> dict[str, str]:
    """Return what made a store, and its path; the dtype is no part, as it only
    rounds.
    """
    made_by = store.attributes
    # what made an imported store is not known
    weights = (
        "imported"
        if "imported" in made_by
        else made_by.get("weights", {}).get("digest", "")
    )
    return {
        "store": str(store.path),
        "weights": weights,
        "preprocessing": made_by.get("preprocessing", ""),
        "network": made_by.get("weights", {}).get("network", ""),
        "pictures": store.image_ids.digest,
        "content": store.digest,
    }


def is_same_network(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two descriptions have one digest of a network's config or code; older
    ones have none.
    """
    known = {digest for about in (one, other) if (digest := about.get("network"))}
    return len(known) < 2


def digest_of(store: TargetStore) -> str:
    """Return what identifies a store's targets: a latent space, or weights; "" if
    unknown.
    """
    return str(store.attributes.get("latent_space") or identity_of(store)["weights"])


def keep_identity(folder: RunFolder, stores: Mapping[str, TargetStore]) -> None:
    """Record what made the stores that a run starts with; a run that is resumed must
    find the same.

    Raises:
        BrainhiveError: naming a store that was made in another way since.
    """
    if (folder.path / IDENTITIES).is_file():  # the run is resumed
        refuse_others(folder, stores, (*MADE_BY, "pictures"))
    identities = {name: identity_of(store) for name, store in stores.items()}
    folder.write_json(IDENTITIES, identities)


def refuse_others(
    folder: RunFolder, stores: Mapping[str, TargetStore], keys: Sequence[str] = MADE_BY
) -> None:
    """Refuse stores of any split that differ in `keys` from those that a run was
    trained on, by encoder.

    Raises:
        BrainhiveError: naming both stores.
    """
    for name, trained_on in folder.read_json(
        IDENTITIES, dict[str, dict[str, str]]
    ).items():
        if name not in stores:  # of another variant of a sweep
            continue
        here = identity_of(stores[name])
        differs = [
            key for key in keys if key != "network" and here[key] != trained_on.get(key)
        ]
        # older runs did not record the network, and match any
        differs += [] if is_same_network(trained_on, here) else ["network"]
        if differs:
            raise BrainhiveError(
                f"{here['store']} was made with other {' and '.join(differs)} than "
                f"{locate_stored(trained_on.get('store', name))} was when "
                f"{folder.path} was trained on it",
                f"make both in one way ({stores[name].command_line} --again), or train "
                "again",
            )


def list_changed(folder: RunFolder, stores: Mapping[str, TargetStore]) -> list[str]:
    """Say which stores hold other embeddings than a run was made with, by the names
    under which it keeps them. Rows are compared with their checksums.
    """
    if not (folder.path / IDENTITIES).is_file():
        return []
    changed = []
    recorded = folder.read_json(IDENTITIES, dict[str, dict[str, str]])
    for name, store in stores.items():
        store.verify()
        there = recorded.get(name, {}).get("content", store.digest)
        if there != store.digest:
            changed.append(f"{store.path}: {there} there, {store.digest} here")
    return changed


def problem_of(store: TargetStore, health: Health | None = None) -> str:
    """Say in one line what is wrong with a store, the likely cause, and the command
    that makes it again.

    Args:
        store: The store.
        health: Its figures; those in the store when None.

    Returns:
        The line; empty if the store passes its health check.
    """
    encoder = encoder_of(store)
    problems = (health or store.health).list_problems(
        encoder.usual_cosine, encoder.usual_repeats, encoder.usual_dead
    )
    if not problems:
        return ""
    # all figures, and the cause of the most severe, which is the first
    figures = "; ".join(figure for figure, _ in problems)
    is_ours = "imported" not in store.attributes
    advice = (
        "fix that"
        if is_ours or store.has_own_vectors
        else "it was imported, and some public caches are broken"
    )
    return (
        f"{figures} (likely {problems[0][1]}); {advice}; "
        f"then: {store.command_line} --again"
    )


def warn_of_problems(store: TargetStore) -> None:
    """Warn, in one line, of a store that fails its health check."""
    if line := problem_of(store):
        console.warn(f"{store.path} failed its health check: {line}")


def holds_annotations(store: TargetStore) -> bool:
    """Whether a store holds labels, masks or captions, of which figures of health say
    nothing.
    """
    return issubclass(encoder_of(store), AnnotationConfig)


def encoder_of(store: TargetStore) -> type[EncoderConfig]:
    """Find the part that made a store; the general one where this version does not have
    it.
    """
    try:
        return parts.load("encoders", store.attributes["config"]["kind"]).Config
    except (KeyError, RecipeError):
        return EncoderConfig
