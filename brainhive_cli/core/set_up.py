"""The set-up behind a number: whose signals, how prepared and averaged, read by which
model, trained how.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any

SetUp = Mapping[str, Any]
"""Plain values by key. Keys of a recipe are those that users write (`train.lr`);
signals are described by `SIGNALS`. A key whose value is not known is left out.
"""
SIGNALS = (
    "channels",
    "channel_mapping",
    "window_ms",
    "rate_hz",
    "repetitions",
    "unit",
    "preparation",
)
"""Keys of the signals that models were tested on: runs that differ in them compare more
than models.
"""
CITES = "cites"
"""Section of the papers behind the data set, the signals, the model, its encoders and
the generator, by the keys of reports/references.bib.
"""
LISTED = 6
"""Values of a list that are named one by one; of a longer one its length, first and
last.
"""
NOTHING = "none"
"""Word for a value that is not there."""
TEXT = 80
"""Characters of a value that is shown in a difference."""


def flatten(fields: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Give nested values by dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        name = f"{before}.{key}" if before else key
        flat |= (
            flatten(value, name)
            if isinstance(value, Mapping) and value
            else {name: value}
        )
    return flat


def cite(**papers: Sequence[str]) -> dict[str, list[str]]:
    """Give the papers behind each part of a set-up, each once; parts without any are
    left out.
    """
    return {
        f"{CITES}.{part}": [*dict.fromkeys(keys)]
        for part, keys in papers.items()
        if keys
    }


def merge(set_ups: Sequence[SetUp]) -> dict[str, Any]:
    """Put several into one, as those of the subjects or the runs that one number is of.

    What they differ in is said in words. Keys that some do not know are left out;
    papers are those of all.
    """
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(chain(*set_ups)):
        values = [set_up[key] for set_up in set_ups if key in set_up]
        # papers of all; any other key only where all know it
        if key.startswith(CITES):
            merged[key] = [*dict.fromkeys(chain(*values))]
        elif len(values) == len(set_ups):
            # a value that all have, or each of theirs in words
            words = dict.fromkeys(say(key, value) for value in values)
            merged[key] = (
                values[0]
                if all(value == values[0] for value in values)
                else " or ".join(words)
            )
    return merged


def differences(
    here: SetUp, there: SetUp, only: Collection[str] | None = None
) -> list[str]:
    """Say in which keys two set-ups differ, as `train.lr 1, not 0.0005`.

    A key that only one of them has counts where both have keys of its section; else the
    other does not know the whole section. Backbones of two kinds may read other keys of
    `train`, which do not count, as papers.

    Args:
        here: The one that is spoken of.
        there: The other.
        only: First parts of the keys that are compared; default: all.
    """
    # keys of sections that both know
    said = []
    known = {key.split(".")[0] for key in here} & {
        key.split(".")[0] for key in there
    } - {CITES}
    keys = [key for key in {**here, **there} if key.split(".")[0] in known]
    differing = [key for key in keys if here.get(key) != there.get(key)]
    other_kinds = [
        key.removesuffix("kind") for key in differing if key.endswith(".kind")
    ]
    for key in differing:
        if only is not None and key.split(".")[0] not in only:
            continue
        is_of_part = any(key.startswith(part) for part in other_kinds)
        is_read_by_one = "backbone." in other_kinds and (
            key not in here or key not in there
        )
        if not key.endswith(".kind") and (
            is_of_part or (is_read_by_one and key.startswith("train."))
        ):
            continue  # knobs of another part

        # values in words, which may be the same for long ones
        one, other = (say(key, set_up.get(key)) for set_up in (here, there))
        name = {"window_ms": "window", "rate_hz": "rate"}.get(
            key, key.removesuffix(".kind")
        )
        if one != other:
            said.append(f"{name} {one}, not {other}")
        elif one != NOTHING:
            said.append(f"{name} of other values")
    return said


def describe_signals(set_up: SetUp) -> list[str]:
    """Say which signals a model was tested on, for a protocol: channels, window, rate,
    repetitions, unit.
    """
    # channels and their mapping, window and rate
    channels, repetitions = set_up.get("channels"), set_up.get("repetitions")
    words = []
    if channels is not None:
        many = isinstance(channels, list) and len(channels) > LISTED
        words.append(f"{len(channels)} channels" if many else say("channels", channels))
    if (mapping := set_up.get("channel_mapping", NOTHING)) != NOTHING:
        words.append(mapping)
    if (window := set_up.get("window_ms")) is not None:
        words.append(say("window_ms", window))
    if (rate_hz := set_up.get("rate_hz")) is not None:
        words.append(say("rate_hz", rate_hz))

    # repetitions, unit and preparation
    if repetitions is not None:
        count = say("repetitions", repetitions)
        words.append(f"{count} repetition{'s' * (count != '1')} averaged")
    words += [str(set_up["unit"])] if set_up.get("unit") else []
    words += (
        [f"prepared by {set_up['preparation.kind']}"]
        if set_up.get("preparation.kind")
        else []
    )

    # normalisation, if there is one
    how = set_up.get("signal.normalise.kind") or set_up.get("signal.normalise", "none")
    return [*words, *([] if how == "none" else [f"normalised by {how}"])]


def say(key: str, value: Any) -> str:
    """Write a value for people, by what its key is."""
    if isinstance(value, str):
        return value
    if value is None or value in ([], {}):
        return NOTHING

    # numbers with their units
    if key == "window_ms":
        return f"{value[0]:g} to {value[1]:g} ms"
    if key == "rate_hz":
        return f"{value:g} Hz"
    if key == "repetitions":
        least, most = value
        return f"{most}" if least == most else f"{least} to {most}"

    # long lists by their length, first and last
    if isinstance(value, list):
        texts = [say("", inner) for inner in value]
        lists_all = len(texts) <= LISTED
        text = (
            ", ".join(texts) if lists_all else f"{len(texts)}: {texts[0]} … {texts[-1]}"
        )
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= TEXT else f"{text[: TEXT - 1]}…"
