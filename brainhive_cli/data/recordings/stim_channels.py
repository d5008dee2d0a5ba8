"""Events from the codes of stimulus channels."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainhive_cli.core.base import (
    Bool,
    BrainhiveError,
    Float64,
    Int64,
    choose_only,
    naming,
)
from brainhive_cli.data.recordings.opening import get_scales
from brainhive_cli.data.recordings.tables import RowKinds

MIN_REPEAT_S = 0.01
"""Shortest time between two events of the same name."""

FindPictures = Callable[[Collection[str]], Collection[str]]
"""Returns the names of events, among all names, that stand for pictures."""


class EventList(NamedTuple):
    """Events of a recording from a single source.

    Attributes:
        events: Sample and name of each event. The sample is None without an onset.
        source: Name of the source, such as "channel STI101".
        warnings: Unusual facts about the events, a line each.
        kinds: Kinds of the rows of a table by sample.
    """

    events: Sequence[tuple[int | None, str]]
    source: str
    warnings: list[str]
    kinds: Mapping[int, RowKinds] = {}


def list_stim_channels(raw: Any) -> list[str]:
    """List the names of the channels of type `stim`."""
    pairs = zip(raw.ch_names, raw.get_channel_types(), strict=True)
    return [name for name, ch_type in pairs if ch_type == "stim"]


def read_stim_events(
    raw: Any, path: Path, stim_channels: Sequence[str], find_pictures: FindPictures
) -> EventList:
    """Read the events of the stimulus channel that codes pictures.

    The arguments are the same as in `read_codes`. Errors name `path`.
    """
    with naming(path):
        channel, codes = read_codes(raw, stim_channels, find_pictures)
    rate_hz = float(raw.info["sfreq"])
    resting_level, events, warnings = find_code_changes(codes, rate_hz, find_pictures)
    source = f"channel {channel}"
    if resting_level:
        source += f", which adds {resting_level} to each code"
    lines = [f"channel {channel}: {warning}" for warning in warnings]
    return EventList(events, source, lines)


def read_codes(
    raw: Any, stim_channels: Sequence[str], find_pictures: FindPictures
) -> tuple[str, Int64]:
    """Read the codes of a stimulus channel, or of trigger lines that form a code.

    Args:
        raw: Recording in mne.
        stim_channels: Names of channels. If no name says that a channel combines the
            others, the channel with the most codes of pictures is read.
        find_pictures: Selects the codes of pictures.

    Returns:
        Name of the channel or lines, and the code [n_times] of each sample.

    Raises:
        BrainhiveError: if codes are not whole numbers, or if the channel or the bit of
            a line is ambiguous.
    """
    # STI101 is preferred to other channels that combine lines
    # Names of channels that combine single trigger lines, in MEGIN, mne, BioSemi
    # and CTF files.
    combined = [
        name
        for name in stim_channels
        if re.fullmatch(r"STI ?101|STI ?014|Status|UPPT001", name, re.IGNORECASE)
    ]
    combined.sort(key=lambda name: "101" not in name)
    codes = {}
    counts = {}
    changing_channels = {}
    for name in combined[:1] or stim_channels:
        picks = [raw.ch_names.index(name)]
        (values,) = raw.get_data(picks=picks)
        (ch_type,) = raw.get_channel_types(picks=picks)
        # mne scales the codes of a channel whose type is a signal
        if ch_type != "stim" and np.abs(values).max(initial=0) < 0.5:
            values = values * get_scales([ch_type])[0]
        codes[name] = _round_codes(np.nan_to_num(values), name)
        counts[name] = len(np.unique(codes[name]))
        if counts[name] > 1:
            changing_channels[name] = codes[name]

    # channels with two values are the bits of a code
    if len(changing_channels) > 1 and max(counts.values()) == 2:
        return _combine_lines(changing_channels, stim_channels)

    # rank channels by their numbers of pictures and of codes
    scores = {}
    for name, values in codes.items():
        picture_codes = find_pictures(list(map(str, np.unique(values))))
        scores[name] = (len(picture_codes), counts[name])
    best_score = max(scores.values())
    best_channels = [name for name, score in scores.items() if score == best_score]
    if len(changing_channels) > 1:
        readings = {f"channel {name}": codes[name] for name in best_channels}
        choose_only(readings, "codes", "preparation.stim_channel=NAME")
    return best_channels[0], codes[best_channels[0]]


def find_code_changes(
    codes: Int64, rate_hz: float, find_pictures: FindPictures
) -> tuple[int, list[tuple[int, str]], list[str]]:
    """Find the changes of a stimulus channel to a code.

    Bits that no picture's code has, and that change while the other bits stay, are
    lines of their own, such as a key.

    Args:
        codes: Code [n_times] of each sample.
        rate_hz: Sampling rate.
        find_pictures: Selects the codes of pictures, which count even if short.

    Returns:
        Resting level, which lines that are always high add to each code, or 0. Sample
        and code of each event. Warnings.
    """
    levels = list(map(str, np.unique(codes)))
    picture_bits = np.bitwise_or.reduce(list(map(int, find_pictures(levels))) or [0])
    lines = codes & ~picture_bits
    is_line_change = np.diff(lines) != 0
    is_alone = np.diff(codes & picture_bits)[is_line_change] == 0
    # The bits are a line of their own if the other bits stay during at least 95 % of
    # their changes. A key and a code change in the same sample by chance only.
    if not picture_bits or not len(is_alone) or is_alone.mean() < 0.95:
        return _find_changes(codes, rate_hz, find_pictures)

    resting_level, events, warnings = _find_changes(
        codes & picture_bits, rate_hz, find_pictures
    )
    _, line_events, _ = _find_changes(lines, rate_hz, find_pictures)
    return resting_level, sorted(events + line_events), warnings


def _find_changes(
    codes: Int64, rate_hz: float, find_pictures: FindPictures
) -> tuple[int, list[tuple[int, str]], list[str]]:
    """Find the changes of a code. Arguments and results as in `find_code_changes`."""
    # spans of a code. mne.find_events would miss an event at sample 0
    starts = np.flatnonzero(np.diff(codes, prepend=codes[:1] - 1))
    values = codes[starts]
    lengths = np.diff(starts, append=len(codes))
    # Longest time for which the lines of a port differ while a code is set. It is at
    # least one sample.
    max_glitch = max(1, int(1e-3 * rate_hz))
    warnings = []

    # if most codes last long, short spans are lines that change at different times
    if (values != 0).any() and np.median(lengths[values != 0]) >= 2 * max_glitch:
        is_glitch = lengths <= max_glitch
        is_glitch[-1] = False  # the recording may end within a code
        is_glitch &= ~_are_pulses(values, is_glitch, find_pictures)
        for index in np.flatnonzero(is_glitch)[::-1].tolist():
            values[index] = values[index + 1]
        is_start = np.diff(values, prepend=values[:1] - 1) != 0
        starts = starts[is_start]
        values = values[is_start]
        if is_glitch.any():
            length_ms = 1000 * max_glitch / rate_hz
            warnings.append(
                f"codes or gaps of up to {length_ms:.2g} ms are left out, "
                f"{is_glitch.sum()} times"
            )

    # the most frequent level is a resting level if it is high enough
    levels, counts = np.unique(values, return_counts=True)
    resting_level = int(levels[counts.argmax()])
    # A channel can rest at 256 or more, because lines are always high.
    is_low = 0 <= resting_level < 256
    if is_low or counts.max() <= 0.4 * len(values):
        resting_level = 0

    # where a port returns to rest, a fall to fewer bits ends an added code. A port that
    # holds its value may fall to its next code
    is_rest = (values == 0) | (values == resting_level)
    previous = np.append(resting_level, values[:-1])
    follows_code = ~is_rest & ~np.append(True, is_rest[:-1])
    is_fall = follows_code & ((values & previous) == values)
    is_rise = follows_code & ((values & previous) == previous)
    is_event = ~is_rest
    # Smallest number of returns to rest, as a share of the codes, in a port that does
    # not hold its value.
    if is_rest.sum() >= 0.3 * is_event.sum():
        is_event &= ~is_fall
        added_codes = (values ^ previous)[is_rise]
        is_added = _are_pictures(added_codes, find_pictures)
        is_added &= ~_are_pictures(values[is_rise], find_pictures)
        values[is_rise] = np.where(is_added, added_codes, values[is_rise])
    code_names = map(str, values[is_event])
    pairs = zip(starts[is_event].tolist(), code_names, strict=True)
    events, repeat_warnings = drop_repeats(pairs, rate_hz)
    return resting_level, events, warnings + repeat_warnings


def drop_repeats(
    events: Iterable[tuple[int, str]], rate_hz: float
) -> tuple[list[tuple[int, str]], list[str]]:
    """Drop events that follow an event of the same name within `MIN_REPEAT_S`.

    Returns:
        The remaining events in order, and a warning if events were dropped.
    """
    last_samples: dict[str, int] = {}
    distinct = []
    ordered = sorted(events)
    for sample, name in ordered:
        distance = sample - last_samples.get(name, -np.inf)
        if distance > MIN_REPEAT_S * rate_hz:
            distinct.append((sample, name))
        # dropped events count too, so a bouncing line makes a single event
        last_samples[name] = sample
    count = len(ordered) - len(distinct)
    if not count:
        return distinct, []
    limit_ms = MIN_REPEAT_S * 1000
    warning = (
        f"events that repeat one within {limit_ms:.0f} ms count once, {count} times"
    )
    return distinct, [warning]


def _round_codes(values: Float64, name: str) -> Int64:
    """Round values to codes, and raise an error if they were resampled or filtered."""
    codes = np.rint(values).astype(np.int64)
    levels, counts = np.unique(codes, return_counts=True)
    is_changed = codes != levels[counts.argmax()]
    is_fractional = np.abs(values - codes)[is_changed] > 0.25
    # Largest share of samples, among those that differ from the most frequent code,
    # that are more than 0.25 from a whole number. Noise stays below. Codes that were
    # resampled or filtered have 0.3 to 0.5.
    if len(is_fractional) and is_fractional.mean() > 0.2:
        raise BrainhiveError(
            f"channel {name} has no whole numbers in {is_fractional.mean():.0%} of its "
            "samples, so it was resampled or filtered",
            "find the events before that, and save them as annotations or events.tsv",
        )
    return codes


def _combine_lines(
    lines: Mapping[str, Int64], names: Sequence[str]
) -> tuple[str, Int64]:
    """Combine trigger lines, which are numbered from 0 or 1, into a code.

    Args:
        lines: Values [n_times] of each line that changes.
        names: Names of all lines.

    Returns:
        Name of the lines, and the code [n_times].

    Raises:
        BrainhiveError: if the names do not number the lines.
    """
    numbers = []
    stems = set()
    for name in names:
        # Name of a trigger line. The number says which bit of the code the line is.
        match = re.fullmatch(r"(.*?)(\d+)(\D*)", name)
        if match:
            numbers.append(int(match[2]))
            stems.add((match[1], match[3]))
    is_numbered = len(set(numbers)) == len(names) and len(stems) == 1
    # Largest number of a trigger line. No port has more lines.
    if not is_numbered or max(numbers) > 32:
        raise BrainhiveError(
            f"channels {', '.join(lines)} have two values each, and their names do not "
            "say which bit of a code each channel is",
            "preparation.stim_channel=NAME of the channel that marks pictures, or "
            "write an events.tsv",
        )
    first_number = min(1, *numbers)
    code = np.zeros(len(next(iter(lines.values()))), np.int64)
    for name, number in zip(names, numbers, strict=True):
        if name in lines:
            is_high = lines[name] > lines[name].min()
            code += is_high.astype(np.int64) << (number - first_number)
    return f"{names[0]} to {names[-1]}", code


def _are_pulses(values: Int64, is_short: Bool, find_pictures: FindPictures) -> Bool:
    """Mark the short spans [n] that are codes of pictures.

    Such a code never lasts longer, and sets a line that is low in both neighbours.
    """
    neighbours = np.append(0, values[:-1]) | np.append(values[1:], 0)
    sets_line = (values & ~neighbours) != 0
    is_only_short = is_short & ~np.isin(values, values[~is_short])
    return is_only_short & sets_line & _are_pictures(values, find_pictures)


def _are_pictures(codes: Int64, find_pictures: FindPictures) -> Bool:
    """Mark the codes [n] of pictures."""
    picture_codes = find_pictures(list(map(str, np.unique(codes))))
    return np.isin(codes, list(map(int, picture_codes)))
