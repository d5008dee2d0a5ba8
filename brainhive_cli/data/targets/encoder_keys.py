"""Keys of targets: the encoders that a prior, a model or a recipe names."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from brainhive_cli.core import documents, parts, runs
from brainhive_cli.core.errors import (
    BrainhiveError,
    RecipeError,
    join_words,
)
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.runs import RunFolder, split_variant
from brainhive_cli.data.datasets import HasOfflineEncoders, HasUsualEncoders
from brainhive_cli.data.stores.target_store import (
    find_own_vectors,
)
from brainhive_cli.models import priors
from brainhive_cli.models.encoders import (
    IMPORTED,
    NAME,
    USUAL,
    EncoderConfig,
    resolve,
)


def add_usual_encoders(fields: Any) -> Any:
    """Complete a recipe that names no encoders by those of its data set, where that has
    some, as a label, or has others where weights of the usual ones are not here.
    """
    # a recipe that names encoders, heads or a prior stays as it is
    if not isinstance(fields, dict) or not {"encoders", "heads", "prior"}.isdisjoint(
        fields
    ):
        return fields
    with suppress(BrainhiveError):  # which the key's own type raises
        dataset = fields.get("dataset")
        config = parts.resolve("datasets", dataset) if dataset else None
        usual: Sequence[Any] = ()
        if isinstance(config, HasUsualEncoders):
            usual = config.usual_encoders
        if (
            not usual
            and isinstance(config, HasOfflineEncoders)
            and not all(resolve(name).is_here for name in USUAL)
        ):
            usual = config.offline_encoders
        if usual:
            return {**fields, "encoders": [*usual]}
    return fields


def find_encoders(
    keys: Iterable[str], candidates: Iterable[EncoderConfig] = ()
) -> dict[str, EncoderConfig]:
    """Find the encoder of each key: a candidate, the one of that upstream name, or the
    one of that name.

    Args:
        keys: Of the embeddings.
        maybe: Candidates, whose keys may not say how to build them (a function, other
            options).

    Returns:
        The encoders by key, in the order of their names; a key that names no encoder is
        absent.
    """
    # names of upstream projects, and of the candidates
    shelf = [
        parts.load("encoders", kind).Config for kind in parts.list_kinds("encoders")
    ]
    upstream = {config.upstream: config for config in shelf if config.upstream}
    meant = {name: config for config in candidates for name in config.known_as}
    # a candidate first, since its options are known
    encoder_of_key = {
        key: meant.get(key) or (upstream[key]() if key in upstream else _named(key))
        for key in keys
    }
    known = {
        key: config for key, config in encoder_of_key.items() if config is not None
    }
    return dict(sorted(known.items(), key=lambda item: item[1].name))


def _named(key: str) -> EncoderConfig | None:
    match = NAME.fullmatch(key)
    # options that the name says, as degradation and view
    seen = match.groupdict() if match else {}
    knobs = {knob: value for knob, value in seen.items() if value}
    with suppress(RecipeError):
        config = resolve(knobs if len(knobs) > 1 else key)
        # an unknown name is that of own vectors, if a store of them is here
        is_known = config.kind != IMPORTED or find_own_vectors(
            Paths().under_home("embeddings"), key
        )
        return config if config.name == key and is_known else None
    return None


def read_run_recipe(folder: Path) -> dict[str, Any]:
    """Read the recipe of the run that a prior's or model's folder lies in; empty
    outside of a run.
    """
    for above in folder.resolve().parents:
        # a folder with both files is that of a run
        if (above / "recipe.yaml").is_file() and (above / "environment.json").is_file():
            return RunFolder(above).recipe()
    return {}


def read_run_encoders(folder: Path) -> list[EncoderConfig]:
    """Read the encoders of the run that a prior's or model's folder lies in; none
    outside of a run.

    A run that goes on from a model, as calibrate's, has the encoders of the run of that
    model.
    """
    recipe = read_run_recipe(folder)
    # calibrate names the run of its model, and no encoders
    if "encoders" not in recipe and isinstance(
        reference := recipe.get("align_run"), str
    ):
        paths = documents.check(
            recipe.get("paths", {}), f"the recipe around {folder}: paths", Paths
        )
        with suppress(BrainhiveError):  # of a run that is not here
            name, _ = split_variant(reference)
            recipe = runs.find(
                paths.under_home("runs"), "train-align", str(name)
            ).recipe()
    return [resolve(encoder) for encoder in recipe.get("encoders", [])]


def describe_keys(
    keys: Collection[str], candidates: Iterable[EncoderConfig]
) -> tuple[str, str]:
    """Name the encoders of keys, and the arguments that select them."""
    encoders = find_encoders(keys, candidates)
    unknown = sorted(set(keys) - encoders.keys())
    names = ", ".join([*map(str, encoders.values()), *unknown])
    if unknown:
        return (
            names,
            (
                "name with --encoders all of them, also what made the embeddings "
                f"{', '.join(unknown)}"
            ),
        )
    return names, join_words([("encoders", [*encoders.values()])])


def match_keys(
    encoders: Sequence[EncoderConfig],
    dims: Mapping[str, int],
    owner: str,
    candidates: Iterable[EncoderConfig] = (),
) -> dict[str, str]:
    """Find a prior's key of each encoder.

    Args:
        encoders: Those to be fused.
        dims: Width of each embedding, by the prior's key.
        owner: The prior, for the message.
        maybe: Encoders that it may have been trained with, to name them.

    Raises:
        BrainhiveError: naming both lists, if they are not the same encoders.
    """
    keys = {
        config.name: next((key for key in config.known_as if key in dims), "")
        for config in encoders
    }
    # each encoder has a key, and each key an encoder
    if "" in keys.values() or sorted(keys.values()) != sorted(dims):
        wanted, hint = describe_keys(dims, [*candidates, *encoders])
        raise BrainhiveError(
            f"{owner} takes the encoders {wanted}, not {', '.join(map(str, encoders))}",
            hint,
        )
    return keys


def _fused_by(prior: str) -> tuple[Path, Mapping[str, int]]:
    described = priors.describe(prior)
    if described.folder is None or not described.dims:
        raise RecipeError(
            f"the prior {prior} fuses no embeddings",
            "leave prior out, or name another one",
        )
    return described.folder, described.dims


def find_prior_encoders(prior: str) -> list[EncoderConfig]:
    """Find the encoders of a prior, without reading its weights.

    Raises:
        RecipeError: if it fuses no embeddings, or has one of them under a key that
            names no encoder.
    """
    folder, dims = _fused_by(prior)
    around = read_run_encoders(folder)
    encoders = find_encoders(dims, around)
    # an encoder that its key does not name cannot be built from the key
    if len(encoders) < len(dims):
        names, hint = describe_keys(dims, around)
        raise RecipeError(
            f"the prior {prior} takes the encoders {names}, not all known by name", hint
        )
    return list(encoders.values())


def match_prior_keys(prior: str, encoders: Sequence[EncoderConfig]) -> dict[str, str]:
    """Find a prior's key of each encoder, without reading its weights; raises as
    `match_keys` does.
    """
    folder, dims = _fused_by(prior)
    return match_keys(encoders, dims, f"the prior {prior}", read_run_encoders(folder))
