"""Settings of runs, which tell runs apart in a list and describe a single run."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from brainhive_cli.core import documents
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import (
    DESCRIPTIONS,
    SHORT_NAMES,
    SIGNAL_KEYS,
    Facts,
    flatten,
    format_setting,
    keep_independent_keys,
)
from brainhive_cli.core.network import SECRET_ADDRESS
from brainhive_cli.core.runs import FINGERPRINTS, MAX_RECIPE_BYTES, RunFolder

Settings = dict[str, Any]
"""Settings of a run by dotted recipe key, such as `train.lr`."""
SettingGroups = dict[str, list[tuple[str, str]]]
"""Pairs of key and value as text, by the title of their group."""
ENCODERS = "encoders"
BACKBONE = "backbone.kind"
SEEDS = "seeds"
MODEL = "align_run"
"""Key of the runs whose models a command reads."""
STORE_NAME = "signal.name"
"""Key of the signal store, which the facts of signals do not have."""
NO_SETTINGS = {"paths", "run", "digests", "recipe_name", "published"}
"""Sections of a recipe that change no result."""
MAX_DIFFERENCES = 6
"""Largest number of settings that a list of runs shows because they differ."""
MAX_LETTERS = 40
"""Largest number of letters of a setting in a list of runs."""
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


def read_recipe_settings(folder: RunFolder) -> Settings:
    """Read the settings in the recipe of a run, without `NO_SETTINGS`.

    A missing or damaged recipe gives no settings. As in other lists of runs, no digest
    is checked, which would be slow.
    """
    settings: Settings = {}
    with suppress(BrainhiveError, OSError):
        text = folder.read_text("recipe.yaml", MAX_RECIPE_BYTES)
        # each section begins with a line that is not indented, and is no list item
        for section_text in re.split(r"\n(?=[^\s#-])", text):
            if section_text.partition(":")[0] not in NO_SETTINGS:
                settings |= _parse_section(section_text)
    return settings


@lru_cache(maxsize=4096)
def _parse_section(text: str) -> Settings:
    """Parse a section of a recipe. Most sections of a list of runs are equal.

    Sections in a list, such as loss terms, have numbers: `terms.0.weight`.
    """
    settings: Settings = {}
    for key, value in flatten(
        documents.parse(text, "recipe.yaml", is_yaml=True)
    ).items():
        has_sections = isinstance(value, list) and any(
            isinstance(item, Mapping) for item in value
        )
        if not has_sections or key == ENCODERS:
            settings[key] = value
            continue
        numbered_items = {str(number): item for number, item in enumerate(value)}
        settings |= flatten(numbered_items, key)
    return settings


def read_settings(folder: RunFolder, facts: Facts) -> Settings:
    """Read the settings of a run from its recipe and from the facts of its results.

    Facts replace a section of the recipe, because they have the values that were used,
    such as all subjects instead of the default. A damaged recipe gives no settings.

    Args:
        folder: Folder of the run, which may be unfinished.
        facts: Facts of the finished run, or empty facts.
    """
    settings: Settings = {}
    set_up_sections = {_section(key) for key in facts.set_up} - {"dataset"}
    for key, value in read_recipe_settings(folder).items():
        key = SHORT_NAMES.get(key, key)
        if _section(key) not in set_up_sections or key == STORE_NAME:
            settings[key] = value

    # the facts of a reconstruction repeat its recipe
    repeated_section = folder.command
    for key, value in facts.set_up.items():
        if _section(key) not in (*DESCRIPTIONS, repeated_section):
            settings[key] = value
    if settings.get("mode") != "finetune":
        for key in list(settings):
            if _section(key) == "finetune":
                del settings[key]
    if ENCODERS in settings:
        settings[ENCODERS] = _name_encoders(settings[ENCODERS])
    for key in settings:
        if SECRET_KEY.search(key):
            settings[key] = HIDDEN
    return settings


def _section(key: str) -> str:
    """Return the section of a dotted key, such as `train` of `train.lr`."""
    return key.partition(".")[0]


def _name_encoders(encoders: Any) -> Any:
    """Return the names of encoders, which a recipe may write as their Configs."""
    if not isinstance(encoders, list):
        return encoders
    names = []
    for encoder in encoders:
        if isinstance(encoder, Mapping):
            kind = str(encoder.get("kind", ""))
            is_kind = kind not in ("", "imported", "reference", "python")
            encoder = kind if is_kind else encoder.get("source", kind)
        names.append(str(encoder))
    return names


def write_setting(key: str, value: Any) -> str:
    """Write the value of a setting as text, without secrets."""
    if key == ENCODERS and isinstance(value, list):
        return hide_secrets("+".join(value))
    if isinstance(value, bool):
        return str(value).lower()
    # recipes may have other values of these keys than the facts of signals
    has_own_format = key in SIGNAL_KEYS and isinstance(value, list | float)
    with suppress(TypeError, ValueError, IndexError):
        text = format_setting(key if has_own_format else "", value)
        return hide_secrets(text)
    return hide_secrets(format_setting("", value))


def hide_secrets(text: str) -> str:
    """Hide names and passwords in the addresses of a text."""
    return SECRET_ADDRESS.sub(f"{HIDDEN}@", text)


def cut(text: str, max_letters: int = MAX_LETTERS) -> str:
    """Cut a text that is too long for a list of runs."""
    if len(text) <= max_letters:
        return text
    return f"{text[: max_letters - 1]}…"


def find_differing_keys(settings_of_runs: Sequence[tuple[str, Settings]]) -> list[str]:
    """Find the settings in which runs of a command differ.

    Encoders, backbone and seeds are left out. Settings of a part are left out if the
    kinds of the part differ.

    Args:
        settings_of_runs: Command and settings of each run.

    Returns:
        At most `MAX_DIFFERENCES` keys. Kinds of parts come first, and the models that
        were tested come last.
    """
    settings_by_command: dict[str, list[Settings]] = {}
    for command, settings in settings_of_runs:
        settings_by_command.setdefault(command, []).append(settings)

    differing_keys: dict[str, None] = {}
    for command_settings in settings_by_command.values():
        for key in _list_differences(command_settings):
            differing_keys[key] = None
    for key in (ENCODERS, BACKBONE, SEEDS):
        differing_keys.pop(key, None)

    def order(key: str) -> int:
        """Return the rank of a key: kinds, other settings, models."""
        if key.endswith(".kind"):
            return 0
        return 2 if key == MODEL else 1

    return sorted(differing_keys, key=order)[:MAX_DIFFERENCES]


def _list_differences(settings_of_runs: Sequence[Settings]) -> list[str]:
    """List the settings in which runs of the same command differ."""
    keys: dict[str, None] = {}
    for settings in settings_of_runs:
        keys |= dict.fromkeys(settings)

    differing_keys = []
    for key in keys:
        values = [settings.get(key) for settings in settings_of_runs]
        # most values are equal, and comparing them is faster than writing them
        if values.count(values[0]) == len(values):
            continue
        texts = {write_setting(key, value) for value in values}
        if len(texts) > 1:
            differing_keys.append(key)
    return keep_independent_keys(differing_keys)


def name_models(reference: Any) -> str:
    """Write the fingerprints of tested models, or their names without fingerprints."""
    references = reference if isinstance(reference, list) else [reference]
    texts = []
    for text in references:
        match = FINGERPRINTS.search(str(text))
        texts.append(match[0].removeprefix("-") if match else str(text))
    return ", ".join(texts)


def choose_headings(keys: Sequence[str], taken: Iterable[str]) -> list[str]:
    """Choose a short heading for each key: its last step, if that is unique.

    Args:
        keys: Dotted keys.
        taken: Headings of other columns.
    """
    short_headings = []
    for key in keys:
        is_model = key == MODEL
        short = "model" if is_model else key.removesuffix(".kind").rpartition(".")[2]
        short_headings.append(short)

    all_headings = list(taken) + short_headings
    headings = []
    for key, short in zip(keys, short_headings, strict=True):
        headings.append(short if all_headings.count(short) == 1 else key)
    return headings


def group_settings(settings: Settings, command: str) -> SettingGroups:
    """Group the settings of a run, without those that are not set.

    Returns:
        Pairs of key and value as text, by the title of the group: data, model, training
        and all other settings of the command.
    """
    title_of_section = {}
    for title, sections in GROUPS.items():
        for section in sections:
            title_of_section[section] = title
    sorted_sections = list(title_of_section)

    groups: SettingGroups = {title: [] for title in GROUPS}
    other_settings = groups.setdefault(f"Settings of {command}", [])
    for key, value in settings.items():
        if key == MODEL or value is None or value in ([], {}, ""):
            continue
        section = _section(key)
        rows = other_settings
        if section in title_of_section:
            rows = groups[title_of_section[section]]
        rows.append((key, write_setting(key, value)))

    # sort each group by the order of its sections
    for title in GROUPS:
        groups[title].sort(key=lambda row: sorted_sections.index(_section(row[0])))
    return {title: rows for title, rows in groups.items() if rows}
