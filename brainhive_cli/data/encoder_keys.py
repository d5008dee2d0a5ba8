"""Which encoders a Fusion Prior or an aligner means by the keys of the embeddings that it fuses."""

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.command_lines import write_encoders, write_part
from brainhive_cli.encoders import EncoderConfig, resolve
from brainhive_cli.priors.fusion_prior import fused_by


def encoders_by_key(keys: Iterable[str], maybe: Iterable[EncoderConfig] = ()) -> dict[str, EncoderConfig]:
    """Find the encoder of each key: one that may be meant, upstream's name of one, or a name that we know.

    Args:
        keys: Of the embeddings.
        maybe: Encoders that could be meant: a key need not say how to make them (a function, other knobs).

    Returns:
        What was found, in the order of the encoders' names; a key that says nothing is absent.
    """
    shelf = [parts.load("encoders", kind).Config for kind in parts.kinds("encoders")]
    upstream = {config.upstream: config for config in shelf if config.upstream}
    meant = {name: config for config in maybe for name in config.known_as}
    found = {}
    for key in keys:
        config = meant.get(key) or (upstream[key]() if key in upstream else _named(key))
        if config is not None:
            found[key] = config
    return dict(sorted(found.items(), key=lambda item: item[1].name))


def _named(key: str) -> EncoderConfig | None:
    with suppress(RecipeError):
        config = resolve(key)
        return config if config.name == key else None
    return None


def recipe_around(folder: Path) -> dict[str, Any]:
    """Read the recipe of the run that a prior's or model's folder lies in; empty outside of a run."""
    for above in folder.resolve().parents:
        if (above / "recipe.yaml").is_file() and (above / "environment.json").is_file():
            return RunFolder(above).recipe()
    return {}


def encoders_around(folder: Path) -> list[EncoderConfig]:
    """Read the encoders of the run that a prior's or model's folder lies in; none outside of a run."""
    return [resolve(each) for each in recipe_around(folder).get("encoders", [])]


def described(keys: Collection[str], maybe: Iterable[EncoderConfig] = ()) -> tuple[str, str]:
    """Say which encoders keys mean, and with which arguments to ask for them."""
    found = encoders_by_key(keys, maybe)
    unknown = sorted(set(keys) - found.keys())
    names = ", ".join([*map(write_part, found.values()), *unknown])
    if unknown:
        return names, f"name with --encoders all of them, also what made the embeddings {', '.join(unknown)}"
    return names, shlex.join(write_encoders(list(found.values())))


def match_keys(
    encoders: Sequence[EncoderConfig],
    dims: Mapping[str, int],
    whose: str,
    maybe: Iterable[EncoderConfig] = (),
) -> dict[str, str]:
    """Find under which of a prior's keys each encoder goes.

    Args:
        encoders: Those to be fused.
        dims: Width of each embedding, by the prior's key.
        whose: The prior, in words.
        maybe: Encoders that it may have been made with, to name them.

    Raises:
        BrainhiveError: naming both lists, if they are not the same encoders.
    """
    keys = {config.name: next((key for key in config.known_as if key in dims), "") for config in encoders}
    if "" in keys.values() or sorted(keys.values()) != sorted(dims):
        needed, way = described(dims, [*maybe, *encoders])
        raise BrainhiveError(
            f"{whose} takes the encoders {needed}, not {', '.join(map(write_part, encoders))}", way
        )
    return keys


def encoders_of(prior: str) -> list[EncoderConfig]:
    """Find the encoders of a Fusion Prior, without reading its weights.

    Raises:
        MissingData: if the prior is not there.
        RecipeError: if it knows one of them by a key that says nothing.
    """
    folder, dims = fused_by(prior)
    around = encoders_around(folder)
    found = encoders_by_key(dims, around)
    if len(found) < len(dims):
        names, way = described(dims, around)
        raise RecipeError(f"the prior {prior} takes the encoders {names}, not all known by name", way)
    return list(found.values())


def match_prior(prior: str, encoders: Sequence[EncoderConfig]) -> dict[str, str]:
    """Find under which of a Fusion Prior's keys each encoder goes, without reading its weights.

    Raises:
        MissingData: if the prior is not there.
        BrainhiveError: naming both lists, if they are not.
    """
    folder, dims = fused_by(prior)
    return match_keys(encoders, dims, f"the prior {prior}", encoders_around(folder))
