"""Target stores of the encoders that a recipe, a prior or a model names."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np

from brainhive_cli.core.base import BrainhiveError, MissingData, RecipeError, console
from brainhive_cli.core.files import Input, locate_stored
from brainhive_cli.core.recipes import EMBEDDINGS, Paths, parts
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.media import StimulusSet
from brainhive_cli.data.stores import Health, TargetStore, target_store
from brainhive_cli.data.targets.next_commands import write_embed_commands
from brainhive_cli.models.encoders import (
    IMPORTED,
    AnnotationConfig,
    EncoderConfig,
)

IDENTITIES = "embeddings.json"
"""File of a run that identifies its stores, keyed by encoder."""
MADE_BY = ("weights", "preprocessing", "network")
"""Keys of an identity that are the same for all splits."""


def open_stores(
    dataset: Dataset,
    dataset_config: parts.Config,
    split: str,
    encoders: Sequence[EncoderConfig],
    paths: Paths,
    images: StimulusSet | None = None,
) -> dict[str, TargetStore]:
    """Open the stores of several encoders, keyed by encoder, for the same stimuli.

    A store that fails its health check gives a warning.

    Args:
        dataset: Data set of the stimuli.
        dataset_config: Its config, for the command line that would embed it.
        split: Split of the data set.
        encoders: The encoders.
        paths: Folders of the stores.
        images: Stimuli of the split, if they are already listed.

    Raises:
        MissingData: if a store is missing.
        RecipeError: if a store of own vectors was made by an encoder.
        BrainhiveError: if a store has other stimuli than the data set or another store.
    """
    root = paths.under_home("embeddings")
    line = write_embed_commands(dataset_config, encoders)
    stored_split = dataset.holdout.name_stored_split(split)
    names = [config.name for config in encoders]
    try:
        stores = target_store.open_stores(root, dataset.name, stored_split, names)
    except MissingData as error:
        raise MissingData(error.message, line) from error

    for config in encoders:
        store = stores[config.name]
        made_by = store.attributes["config"]
        if config.kind == IMPORTED and not store.has_own_vectors:
            reference = made_by.get("source") or made_by.get("kind", "NAME")
            raise RecipeError(
                f"{store.path} has no own vectors: {made_by.get('kind')} made it",
                f"--encoders {reference}",
            )

    first_store = next(iter(stores.values()))
    with suppress(MissingData):  # the pictures may be on another machine
        stimuli = images or dataset.images(stored_split)
        first_store.require_pictures(stimuli.image_ids, line)
    for store in stores.values():
        warn_of_problems(store)
        difference = _describe_difference(first_store, store)
        if difference:
            raise BrainhiveError(
                f"{first_store.path} and {store.path} have {difference}",
                f"{line} --again",
            )
    return stores


def list_store_inputs(
    dataset: Dataset,
    config: parts.Config,
    split: str,
    encoders: Sequence[EncoderConfig],
    paths: Paths,
) -> list[Input]:
    """List the stores of several encoders as inputs. Arguments as for `open_stores`.

    Stores of own vectors have a digest, since their name does not say what made them.
    """
    root = paths.under_home("embeddings")
    stored_split = dataset.holdout.name_stored_split(split)
    files = []
    for encoder in encoders:
        file, _ = target_store.find_store(
            root, dataset.name, stored_split, encoder.name
        )
        files.append(file)

    # the error of opening all stores describes each missing store
    error = None
    if not all(file.is_file() for file in files):
        try:
            open_stores(dataset, config, split, encoders, paths)
        except BrainhiveError as raised_error:
            error = raised_error

    inputs = list[Input]()
    for encoder, file in zip(encoders, files, strict=True):
        has_file = file.is_file()
        digest = ""
        if has_file and encoder.kind == IMPORTED:
            digest = str(TargetStore.open(file).attributes["weights"].get("digest", ""))
        name = f"{EMBEDDINGS} {dataset.name}/{stored_split}/{encoder.name}"
        inputs.append(Input(name, None, None if has_file else error, digest=digest))
    return inputs


def _describe_difference(first_store: TargetStore, store: TargetStore) -> str:
    """Describe how the stimuli of two stores differ, or return an empty text."""
    if first_store.image_ids != store.image_ids:
        if sorted(first_store.image_ids) == sorted(store.image_ids):
            return "the same pictures in another order"
        return "different pictures"
    # the stimuli that could not be decoded must be the same too
    if not np.array_equal(first_store.done, store.done):
        return "gaps at different pictures"
    return ""


def open_alternatives(
    alternatives: Mapping[str, Sequence[str]],
    stores: Mapping[str, TargetStore],
    paths: Paths,
) -> dict[str, list[TargetStore]]:
    """Open stores whose targets are alternatives to the targets of fused encoders.

    Args:
        alternatives: Names of the alternative stores, keyed by encoder.
        stores: Stores of the fused encoders, keyed by encoder.
        paths: Folders of the stores.

    Returns:
        Alternative stores, keyed by encoder.

    Raises:
        MissingData: if a store is missing.
        BrainhiveError: if a key is no fused encoder, or a store has other stimuli or
            another shape.
    """
    unknown_names = sorted(set(alternatives) - set(stores))
    if unknown_names:
        raise BrainhiveError(
            f"train.embedding_alternatives names {', '.join(unknown_names)}, which "
            "is not fused",
            f"encoders: {', '.join(stores)}",
        )

    stores_of = {}
    for encoder, names in alternatives.items():
        first_store = stores[encoder]
        dataset = first_store.attributes["dataset"]
        split = first_store.attributes["split"]
        root = paths.under_home("embeddings")
        try:
            other_stores = target_store.open_stores(root, dataset, split, names)
        except MissingData as error:
            files = first_store.path.parent.glob("*.h5")
            stems = ", ".join(sorted(path.stem for path in files))
            raise MissingData(
                error.message, f"name stores that exist: {stems}"
            ) from error
        for store in other_stores.values():
            difference = _describe_difference(first_store, store)
            if not difference and first_store.shape != store.shape:
                difference = "targets of another shape"
            if difference:
                raise BrainhiveError(
                    f"{first_store.path} and {store.path} have {difference}",
                    "name another store",
                )
        stores_of[encoder] = list(other_stores.values())
    return stores_of


def identity_of(store: TargetStore) -> dict[str, str]:
    """Return the path of a store, and digests of its encoder, pictures and content.

    The dtype is left out, since it only rounds. The encoder of an imported store is
    unknown.
    """
    made_by = store.attributes
    weights = made_by.get("weights", {})
    return {
        "store": str(store.path),
        "weights": "imported" if "imported" in made_by else weights.get("digest", ""),
        "preprocessing": made_by.get("preprocessing", ""),
        "network": weights.get("network", ""),
        "pictures": store.image_ids.digest,
        "content": store.digest,
    }


def is_same_network(identity: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Return True unless two identities have different digests of the network.

    Identities from earlier versions have no digest.
    """
    digest = identity.get("network")
    other_digest = other.get("network")
    return not digest or not other_digest or digest == other_digest


def digest_of(store: TargetStore) -> str:
    """Return the latent space of a store, else the digest of its weights, or ""."""
    return str(store.attributes.get("latent_space") or identity_of(store)["weights"])


def keep_identity(folder: RunFolder, stores: Mapping[str, TargetStore]) -> None:
    """Write the identities of a run's stores into its folder.

    Args:
        folder: Folder of the run.
        stores: Stores, keyed by encoder.

    Raises:
        BrainhiveError: if a resumed run started with another store.
    """
    if (folder.path / IDENTITIES).is_file():  # the run is resumed
        require_same_identities(folder, stores, MADE_BY + ("pictures",))
    identities = {name: identity_of(store) for name, store in stores.items()}
    folder.write_json(IDENTITIES, identities)


def require_same_identities(
    folder: RunFolder, stores: Mapping[str, TargetStore], keys: Sequence[str] = MADE_BY
) -> None:
    """Raise an error if a store was made otherwise than the store a run was trained on.

    Args:
        folder: Folder of the run.
        stores: Stores of any split, keyed by encoder.
        keys: Keys of the identities that must be equal.

    Raises:
        BrainhiveError: naming both stores.
    """
    identities = folder.read_json(IDENTITIES, dict[str, dict[str, str]])
    for name, trained_on in identities.items():
        if name not in stores:  # another variant of a sweep has it
            continue
        identity = identity_of(stores[name])
        different_keys = []
        for key in keys:
            if key != "network" and identity[key] != trained_on.get(key):
                different_keys.append(key)
        if not is_same_network(trained_on, identity):
            different_keys.append("network")
        if different_keys:
            trained_path = locate_stored(trained_on.get("store", name))
            raise BrainhiveError(
                f"{identity['store']} was made with other "
                f"{' and '.join(different_keys)} than {trained_path} was when "
                f"{folder.path} was trained on it",
                f"make both in the same way ({stores[name].command_line} --again), or "
                "train again",
            )


def list_changed(folder: RunFolder, stores: Mapping[str, TargetStore]) -> list[str]:
    """Describe the stores whose embeddings differ from those that a run used.

    All rows are compared with their checksums.

    Args:
        folder: Folder of the run.
        stores: Stores, keyed by the names in the run.
    """
    if not (folder.path / IDENTITIES).is_file():
        return []
    changes = []
    identities = folder.read_json(IDENTITIES, dict[str, dict[str, str]])
    for name, store in stores.items():
        store.verify()
        digest = identities.get(name, {}).get("content", store.digest)
        if digest != store.digest:
            changes.append(f"{store.path}: {digest} there, {store.digest} here")
    return changes


def describe_health_problem(store: TargetStore, health: Health | None = None) -> str:
    """Describe the failed health check of a store, its likely cause, and the way out.

    Args:
        store: The store.
        health: Measured health, by default the figures in the store.

    Returns:
        One line, or an empty text if the store passes.
    """
    encoder = find_encoder_config(store)
    problems = (health or store.health).list_problems(
        encoder.usual_cosine, encoder.usual_repeats, encoder.usual_dead
    )
    if not problems:
        return ""
    figures = "; ".join(figure for figure, _ in problems)
    # the first problem is the most severe
    likely_cause = problems[0][1]
    advice = "Remove the cause"
    if "imported" in store.attributes and not store.has_own_vectors:
        advice = "It was imported, and some public caches are broken"
    return (
        f"{figures}. Likely cause: {likely_cause}. {advice}, "
        f"then run: {store.command_line} --again"
    )


def warn_of_problems(store: TargetStore) -> None:
    """Warn of a store that fails its health check."""
    problem = describe_health_problem(store)
    if problem:
        console.warn(f"{store.path} failed its health check: {problem}")


def holds_annotations(store: TargetStore) -> bool:
    """Return True if a store has labels, masks or captions, without a health check."""
    return issubclass(find_encoder_config(store), AnnotationConfig)


def find_encoder_config(store: TargetStore) -> type[EncoderConfig]:
    """Return the config class of a store's encoder, or the base class if unknown."""
    try:
        return parts.load("encoders", store.attributes["config"]["kind"]).Config
    except (KeyError, RecipeError):
        return EncoderConfig
