"""Encoders that a prior, a model or a recipe names."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from brainhive_cli.core.base import BrainhiveError, RecipeError, join_words
from brainhive_cli.core.files import documents
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.core.runs import RunFolder, run_folder as runs
from brainhive_cli.data.datasets import HasOfflineEncoders, HasUsualEncoders
from brainhive_cli.data.stores import find_own_vectors
from brainhive_cli.models import priors
from brainhive_cli.models.encoders import (
    DEFAULT_ENCODERS,
    IMPORTED,
    STORE_NAME_PATTERN,
    EncoderConfig,
    resolve,
)


def add_usual_encoders(fields: Any) -> Any:
    """Add encoders to a recipe that names no encoders, heads or prior.

    These are the usual encoders of its data set, or else the offline encoders if
    weights of the default encoders are absent.

    Args:
        fields: Keys of the recipe before validation.
    """
    if not isinstance(fields, dict):
        return fields
    if not {"encoders", "heads", "prior"}.isdisjoint(fields):
        return fields
    with suppress(BrainhiveError):  # the validation of `dataset` raises it again
        dataset = fields.get("dataset")
        config = parts.resolve("datasets", dataset) if dataset else None
        encoders: Sequence[Any] = ()
        if isinstance(config, HasUsualEncoders):
            encoders = config.usual_encoders
        if (
            not encoders
            and isinstance(config, HasOfflineEncoders)
            and not all(resolve(name).is_available for name in DEFAULT_ENCODERS)
        ):
            encoders = config.offline_encoders
        if encoders:
            return fields | {"encoders": list(encoders)}
    return fields


def find_encoders(
    keys: Iterable[str], candidates: Iterable[EncoderConfig] = ()
) -> dict[str, EncoderConfig]:
    """Find the encoder of each key, such as `clip-h14`.

    A key is looked up among the candidates, the names of upstream projects, and the
    names of encoders, in this order.

    Args:
        keys: Keys of the embeddings.
        candidates: Encoders with keys that do not describe them, such as a user's
            function.

    Returns:
        Encoders by key, in the order of their names, without keys that name no encoder.
    """
    upstream = {}
    for kind in parts.list_kinds("encoders"):
        config_class = parts.load("encoders", kind).Config
        if config_class.upstream:
            upstream[config_class.upstream] = config_class
    candidate_of_key: dict[str, EncoderConfig] = {}
    for candidate in candidates:
        candidate_of_key[candidate.name] = candidate
        candidate_of_key[candidate.published_name] = candidate

    encoders = {}
    for key in keys:
        config = candidate_of_key.get(key)
        if config is None and key in upstream:
            config = upstream[key]()
        elif config is None:
            config = _find_by_name(key)
        if config is not None:
            encoders[key] = config
    return dict(sorted(encoders.items(), key=lambda item: item[1].name))


def _find_by_name(key: str) -> EncoderConfig | None:
    """Return the encoder with a name such as lite0-gaussian-15, or None."""
    match = STORE_NAME_PATTERN.fullmatch(key)
    options = {}  # kind, degrade and views
    if match:
        options = {name: value for name, value in match.groupdict().items() if value}
    with suppress(RecipeError):
        config = resolve(options if len(options) > 1 else key)
        # any other name may be a store of imported vectors
        embeddings = Paths().under_home("embeddings")
        if config.kind == IMPORTED and not find_own_vectors(embeddings, key):
            return None
        return config if config.name == key else None
    return None


def read_run_recipe(folder: Path) -> dict[str, Any]:
    """Read the recipe of the run that contains the folder of a prior or model.

    Returns:
        The recipe, or an empty dict outside of a run.
    """
    for parent in folder.resolve().parents:
        # a run has both files
        has_recipe = (parent / "recipe.yaml").is_file()
        if has_recipe and (parent / "environment.json").is_file():
            return RunFolder(parent).recipe()
    return {}


def read_run_encoders(folder: Path) -> list[EncoderConfig]:
    """Read the encoders of the run that contains the folder of a prior or model.

    A run of calibrate names the run of its model, whose encoders are then read.

    Returns:
        The encoders, or an empty list outside of a run.
    """
    recipe = read_run_recipe(folder)
    reference = recipe.get("align_run")
    if "encoders" not in recipe and isinstance(reference, str):
        paths = documents.check(
            recipe.get("paths", {}), f"the recipe around {folder}: paths", Paths
        )
        with suppress(BrainhiveError):  # the run may be absent
            model_run = runs.find(paths.under_home("runs"), "train-align", reference)
            recipe = model_run.recipe()
    return [resolve(encoder) for encoder in recipe.get("encoders", [])]


def describe_keys(
    keys: Collection[str], candidates: Iterable[EncoderConfig]
) -> tuple[str, str]:
    """Return the names of the encoders of keys, and advice on how to select them."""
    encoders = find_encoders(keys, candidates)
    unknown_keys = sorted(set(keys) - encoders.keys())
    names = ", ".join([str(config) for config in encoders.values()] + unknown_keys)
    if unknown_keys:
        return names, (
            "name all encoders with --encoders, also the encoders of the embeddings "
            f"{', '.join(unknown_keys)}"
        )
    return names, join_words([("encoders", list(encoders.values()))])


def match_keys(
    encoders: Sequence[EncoderConfig],
    dims: Mapping[str, int],
    owner: str,
    candidates: Iterable[EncoderConfig] = (),
) -> dict[str, str]:
    """Find the key by which a prior knows each encoder.

    Args:
        encoders: Encoders to fuse.
        dims: Width of each embedding, by the prior's key.
        owner: Name of the prior for the message.
        candidates: Encoders of the prior's training, for the message.

    Returns:
        Key of each encoder, by the encoder's name.

    Raises:
        BrainhiveError: if the prior has other encoders.
    """
    keys = {}
    for config in encoders:
        is_published = config.published_name in dims and config.name not in dims
        keys[config.name] = config.published_name if is_published else config.name
    if sorted(keys.values()) != sorted(dims):
        names, hint = describe_keys(dims, list(candidates) + list(encoders))
        raise BrainhiveError(
            f"{owner} takes the encoders {names}, not {', '.join(map(str, encoders))}",
            hint,
        )
    return keys


def _describe_fusion(prior: str) -> tuple[Path, Mapping[str, int]]:
    """Return the folder of a prior, and the width of each embedding that it fuses."""
    description = priors.describe(prior)
    if description.folder is None or not description.dims:
        raise RecipeError(
            f"the prior {prior} fuses no embeddings",
            "leave prior out, or name another prior",
        )
    return description.folder, description.dims


def find_prior_encoders(prior: str) -> list[EncoderConfig]:
    """Find the encoders of a prior without reading its weights.

    Raises:
        RecipeError: if the prior fuses no embeddings, or a key names no encoder.
    """
    folder, dims = _describe_fusion(prior)
    candidates = read_run_encoders(folder)
    encoders = find_encoders(dims, candidates)
    if len(encoders) < len(dims):
        names, hint = describe_keys(dims, candidates)
        raise RecipeError(
            f"the prior {prior} takes the encoders {names}, not all known by name", hint
        )
    return list(encoders.values())


def match_prior_keys(prior: str, encoders: Sequence[EncoderConfig]) -> dict[str, str]:
    """Find the key by which a prior knows each encoder, without reading its weights.

    Raises:
        BrainhiveError: if the prior has other encoders.
    """
    folder, dims = _describe_fusion(prior)
    return match_keys(encoders, dims, f"the prior {prior}", read_run_encoders(folder))
