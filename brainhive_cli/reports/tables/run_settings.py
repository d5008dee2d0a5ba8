"""Settings of runs, which tell runs apart in a list and describe a single run."""

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.core.files import SECRET_ADDRESS, documents
from brainhive_cli.core.results import (
    DESCRIPTIONS,
    SHORT_NAMES,
    SIGNAL_KEYS,
    Facts,
    flatten,
    format_setting,
    keep_independent_keys,
)
from brainhive_cli.core.runs import FINGERPRINTS, MAX_RECIPE_BYTES, RunFolder

Settings = Mapping[str, str]
"""Settings of a run as texts, by dotted recipe key such as `train.lr`."""
ENCODERS = "encoders"
SEEDS = "seeds"
LISTED_KEYS = (ENCODERS, "backbone.kind", SEEDS)
"""Settings that every list of runs has."""
MODEL = "align_run"
"""Key of the runs whose models a command reads."""
MAX_DIFFERENCES = 6
"""Largest number of settings that a list of runs shows because they differ."""
SECRET_KEY = re.compile(
    r"(^|[._])(password|passwd|secret|credentials?|api_?key|access_?key|auth_?token)"
    r"($|[._])",
    re.IGNORECASE,
)
"""Pattern of keys whose values are never shown."""
HIDDEN = "(hidden)"
"""Text in the place of a secret."""
GROUPS = {
    "Data": (
        "dataset",
        "trained_on_dataset",
        "subjects",
        "trained_on",
        "split",
        "copies",
        "preparation",
        "signal",
        "unit",
        "channels",
        "channel_mapping",
        "window_ms",
        "rate_hz",
        "repetitions",
    ),
    "Model": (
        ENCODERS,
        "backbone",
        "fuser",
        "heads",
        "head",
        "targets",
        "dim",
        "subject_layer",
        "similarity",
        "prior",
    ),
    "Training": (
        "mode",
        SEEDS,
        "loss",
        "terms",
        "epochs",
        "selection",
        "train",
        "finetune",
        "sweep",
        "ablations",
    ),
}
"""Sections of settings by the title of the table that shows them."""


def read_settings(folder: RunFolder, facts: Facts) -> dict[str, str]:
    """Read the settings of a run, as texts without secrets.

    Facts of the results replace a section of the recipe, because they have the values
    that were used, such as all subjects instead of the default. A damaged recipe gives
    no settings. As in other lists of runs, no digest is checked, which would be slow.

    Args:
        folder: Folder of the run, which may be unfinished.
        facts: Facts of the finished run, or empty facts.
    """
    recipe: dict[str, Any] = {}
    with suppress(BrainhiveError, OSError):
        text = folder.read_text("recipe.yaml", MAX_RECIPE_BYTES)
        recipe = _flatten_recipe(documents.parse(text, "recipe.yaml", is_yaml=True))

    values: dict[str, Any] = {}
    set_up_sections = {_section(key) for key in facts.set_up} - {"dataset"}
    for key, value in recipe.items():
        key = SHORT_NAMES.get(key, key)
        # Key of the signal store, which the facts of signals do not have.
        if _section(key) not in set_up_sections or key == "signal.name":
            values[key] = value
    # the facts of a reconstruction repeat its recipe
    for key, value in facts.set_up.items():
        if _section(key) not in (*DESCRIPTIONS, folder.command):
            values[key] = value

    settings = {}
    is_finetuned = values.get("mode") == "finetune"
    for key, value in values.items():
        # Sections of a recipe that change no result.
        is_hidden = _section(key) in {
            "paths",
            "run",
            "digests",
            "recipe_name",
            "published",
        } or value in (None, [], {}, "")
        if not is_hidden and (is_finetuned or _section(key) != "finetune"):
            settings[key] = write_setting(key, value)
    return settings


def _flatten_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a recipe. Sections in a list have numbers, as in `terms.0.weight`."""
    settings: dict[str, Any] = {}
    for key, value in flatten(recipe).items():
        has_sections = isinstance(value, list) and any(
            isinstance(item, Mapping) for item in value
        )
        if has_sections and key != ENCODERS:
            numbered_items = {str(number): item for number, item in enumerate(value)}
            settings |= flatten(numbered_items, key)
        else:
            settings[key] = value
    return settings


def _section(key: str) -> str:
    """Return the section of a dotted key, such as `train` of `train.lr`."""
    return key.partition(".")[0]


def write_setting(key: str, value: Any) -> str:
    """Write the value of a setting as text, without secrets.

    Encoders and tested models are written by their names and fingerprints.
    """
    if SECRET_KEY.search(key):
        return HIDDEN
    if key == ENCODERS and isinstance(value, list):
        return hide_secrets("+".join(map(_name_encoder, value)))
    if key == MODEL:
        models = value if isinstance(value, list) else [value]
        return ", ".join(map(_name_model, models))
    if isinstance(value, bool):
        return str(value).lower()
    # recipes may have other values of these keys than the facts of signals
    has_own_format = key in SIGNAL_KEYS and isinstance(value, list | float)
    with suppress(TypeError, ValueError, IndexError):
        return hide_secrets(format_setting(key if has_own_format else "", value))
    return hide_secrets(format_setting("", value))


def _name_encoder(encoder: Any) -> str:
    """Return the name of an encoder, which a recipe may write as its Config."""
    if not isinstance(encoder, Mapping):
        return str(encoder)
    kind = encoder.get("kind", "")
    is_kind = kind not in ("", "imported", "reference", "python")
    return str(kind if is_kind else encoder.get("source", kind))


def _name_model(reference: Any) -> str:
    """Return the fingerprint of a tested model, or its name without a fingerprint."""
    match = FINGERPRINTS.search(str(reference))
    return match[0].removeprefix("-") if match else str(reference)


def hide_secrets(text: str) -> str:
    """Hide names and passwords in the addresses of a text."""
    return SECRET_ADDRESS.sub(f"{HIDDEN}@", text)


def find_differing_keys(settings_of_runs: Sequence[Settings]) -> list[str]:
    """Find the settings in which runs of a command differ.

    Encoders, backbone and seeds are left out. Settings of a part are left out if the
    kinds of the part differ.

    Returns:
        At most `MAX_DIFFERENCES` keys. Kinds of parts come first, and the models that
        were tested come last.
    """
    differing = []
    for key in dict.fromkeys(chain.from_iterable(settings_of_runs)):
        if len({settings.get(key) for settings in settings_of_runs}) > 1:
            differing.append(key)

    def order(key: str) -> int:
        """Return the rank of a key: kinds, other settings, models."""
        if key.endswith(".kind"):
            return 0
        return 2 if key == MODEL else 1

    keys = sorted(keep_independent_keys(differing), key=order)
    return [key for key in keys if key not in LISTED_KEYS][:MAX_DIFFERENCES]


def group_settings(
    settings: Settings, command: str
) -> dict[str, list[tuple[str, str]]]:
    """Group the settings of a run.

    Returns:
        Pairs of key and value, by the title of the group: data, model, training and all
        other settings of the command. Tested models are left out.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    sections_of_others = {_section(key) for key in settings} - {MODEL}
    for title, sections in GROUPS.items():
        groups[title] = []
        sections_of_others -= set(sections)
        for section in sections:
            groups[title] += _select_section(settings, [section])
    groups[f"Settings of {command}"] = _select_section(settings, sections_of_others)
    return {title: rows for title, rows in groups.items() if rows}


def _select_section(
    settings: Settings, sections: Collection[str]
) -> list[tuple[str, str]]:
    """List the settings of some sections as pairs of key and value."""
    return [(key, text) for key, text in settings.items() if _section(key) in sections]
