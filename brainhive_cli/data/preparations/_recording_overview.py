"""Overview of recordings before preparation: channels, and how often pictures were shown."""

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np

from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.tables import Table
from brainhive_cli.data.electrodes import are_inputs, plain_name, standard_positions
from brainhive_cli.data.preparations import Overview
from brainhive_cli.data.preparations._recording_selection import KeptChannels
from brainhive_cli.data.signals.noise import SMALLEST
from brainhive_cli.data.stores.ids import spans, summarise_names

NO_EEG = re.compile(
    r".*(EOG|ECG|EKG|EMG|TRIG|STIM|STATUS|MARKER|EVENT|PHOTO|DIODE|AUDIO|PULSE|PLETH|RESP|GSR|AUX|COUNTER|BATTERY).*"
    r"|(EXG|HEO|VEO|LO|SO|IO|ERG|BIP|DC|DIN|ACC|GYR|TEMP|SPO|STI|CHIN|EDA|PPG|CMS|DRL)[ _-]?[A-Z]?\d*",
    re.IGNORECASE,
)
"""Names that amplifiers give to channels without EEG: eyes, heart, muscles, triggers, other sensors."""
MANY_TIMES = 20
"""Times the median variance that a channel of EEG or MEG reaches only if it is noise, or something else."""
EEG_UV = (0.01, 10_000)
"""Standard deviations of EEG within a second, in microvolts, of any amplifier that works."""
LEAST_ELECTRODES = 8
"""Electrodes from which on their positions are compared with a head and with their names."""
HEAD_M = (0.04, 0.2)
"""Metres from the middle of electrodes to one of them, on any head."""
MOST_ANGLE = 45
"""Degrees by which caps differ at most from the 10-05 system."""
KEPT_AT_LEAST = 2 / 3
"""Share of the channels that a suggested exclusion keeps: subjects with fewer in common wear other caps."""
OTHER_CAPS = (
    "preparation.rename={NAME IN THE FILE: NAME} where names differ, preparation.montage=CAP where channels "
    "are called by inputs; or prepare subjects with other caps apart: preparation.files=PATTERN"
)
"""What to do where too few channels are left that all subjects have."""
MOSTLY = 0.8
"""Share of a split's pictures from which on a session is one that shows all of them."""
Rows = Mapping[str, Int64]
"""The rows of each split among all pictures."""
Counts = Mapping[int, Int64]
"""Number of times that each picture was shown, [pictures] by session."""


def describe_subjects(
    subject_channels: Mapping[int, KeptChannels],
    counts: Mapping[int, Counts],
    image_ids: Sequence[str],
    split_rows: Rows,
) -> Overview:
    """Describe the recordings of subjects, and warn of what is unusual.

    Args:
        subject_channels: The channels that are kept of each subject.
        counts: Number of times that each subject was shown each picture, by session.
        image_ids: [pictures].
        split_rows: The rows of each split among them.
    """
    # one line for all subjects with the same warning
    warnings = defaultdict(list)
    suspects = []
    for subject, channels in subject_channels.items():
        for text, names in _unusual_channels(channels):
            warnings[text].append(subject)
            suspects += names
        for text in _unusual_counts(counts[subject], image_ids, split_rows):
            warnings[text].append(subject)
    lines = [f"subject {spans(numbers)}: {text}" for text, numbers in warnings.items()]
    lines += (difference := _difference(subject_channels))

    # the override that leaves suspects out and gives all subjects the same channels
    way = ""
    if suspects or difference:
        override = _way_to_equal_channels(subject_channels, suspects)
        way = f"{override} leaves them out" if override else OTHER_CAPS
        headers = [header for channels in subject_channels.values() for header in channels.headers.values()]
        if not next(iter(subject_channels.values())).interpolate and any(header.bad for header in headers):
            way += "; preparation.interpolate=true keeps those that were marked as bad"

    # one row for all subjects with the same channels of a type
    groups = _group_by_entry(
        {subject: [*_channel_rows(channels)] for subject, channels in subject_channels.items()}
    )
    rows = [(spans(subjects), *row) for row, subjects in groups.items()]  # type: ignore[misc]
    columns = ("subject", "type", "channels", "kept", "bad", "positions", "names")
    return Overview(
        (Table("Channels", columns, tuple(rows)), _tabulate_pictures(counts, split_rows)), tuple(lines), way
    )


def _group_by_entry(items: Mapping[int, Sequence[Hashable]]) -> dict[Hashable, list[int]]:
    """Group numbers that have an entry in common."""
    groups = defaultdict(list)
    for number, entries in items.items():
        for entry in entries:
            groups[entry].append(number)
    return groups


def _channel_rows(channels: KeptChannels) -> Iterator[tuple[str, int, int, str, str, str]]:
    """Describe the channels of each type: their number, those that are kept or bad, positions and names."""
    # source of the positions
    header = next(iter(channels.headers.values()))
    if channels.has_own_positions:
        positions = "of the file"
    elif without := channels.without_position:
        positions = f"none, without {' '.join(without)}" if len(without) < len(channels.names) else "none"
    else:
        positions = "10-05, by name"

    # one row for each type, in the order of the first file
    files, bad_in = len(channels.headers), _count_bad(channels)
    for kind in dict.fromkeys(header.types):
        names = [name for name, type_ in zip(header.names, header.types, strict=True) if type_ == kind]
        count = sum(name in channels.names for name in names)
        bad = [
            name if bad_in[name] == files else f"{name} (in {bad_in[name]} of {files} files)"
            for name in names
            if name in bad_in
        ]
        yield kind, len(names), count, " ".join(bad) or "–", positions if count else "–", " ".join(names)


def _count_bad(channels: KeptChannels) -> Counter[str]:
    """Count the recordings in which each channel was marked as bad."""
    return Counter(name for header in channels.headers.values() for name in {*header.bad})


def _unusual_channels(channels: KeptChannels) -> Iterator[tuple[str, list[str]]]:
    """Yield a warning about channels that are probably noise or no signal of the brain, and their names."""
    # names of eyes, heart, triggers and the like
    names = np.array(channels.names)
    kinds = np.array(channels.kinds)
    plain = [plain_name(name) for name in names]
    has_such_name = np.array([bool(NO_EEG.fullmatch(name)) for name in plain]) & (kinds == "eeg")
    if other := names[has_such_name].tolist():
        yield f"{', '.join(other)}: EEG by the file, but not by name", other

    # names of an amplifier's inputs say nothing of positions
    if are_inputs(channels.names) and not channels.has_own_positions:
        yield (
            "channels are called by inputs of BioSemi's amplifier: preparation.montage=biosemi64, or what "
            "the cap is called in mne, gives their names and positions",
            [],
        )

    # names outside the 10-05 system, where most names are in it
    if "eeg" in kinds and not channels.has_own_positions:
        is_unknown = ~np.isfinite(standard_positions(channels.names)).all(1)
        if is_unknown.mean() < 0.5 and (strange := names[is_unknown & ~has_such_name].tolist()):
            yield f"{', '.join(strange)}: no electrode of the 10-05 system has that name", strange

    bad_in = {} if channels.interpolate else _count_bad(channels)
    if bad := [name for name in channels.names if name in bad_in]:
        yield f"{', '.join(bad)}: named in preparation.channels, but marked as bad", bad

    # signals of no brain's size
    spread_uv = 1e6 * channels.spread(next(iter(channels.headers.values())))
    if {*channels.kinds} == {"eeg"} and spread_uv and not EEG_UV[0] < spread_uv < EEG_UV[1]:
        yield f"EEG has a spread of {spread_uv:.2g} µV: in another unit than the V that mne takes", []

    # positions in another unit, or turned
    if doubt := _unusual_positions(channels):
        yield f"{doubt}: preparation.montage=CAP gives those of a cap", []

    # channels that stand still for a part of their file
    for path, header in channels.headers.items():
        is_still = header.is_still[:, [header.names.index(name) for name in names if name in header.names]]
        shares = zip(names, is_still.sum(0).tolist(), strict=False)
        if partly_still := [f"{name} in {share}" for name, share in shares if 1 < share < len(is_still)]:
            summary, parts = (
                summarise_names(partly_still, len(names)),
                f"{len(is_still)} parts of {path.name}",
            )
            yield f"channels stand still in some of {parts}, {summary}: flat trials are dropped", []

    # variances far from the median of the channel's type in its file
    for path, header in channels.headers.items():
        if not {*channels.names} <= {*header.names}:
            continue  # which the preparation refuses
        is_used = ~np.isin(names, channels.bad_of(path))
        variances = header.variances[[header.names.index(name) for name in names]]  # [C]
        medians = np.array([np.median(variances[(kinds == kind) & is_used]) for kind in kinds])  # [C]
        ratios = np.divide(variances, medians, out=np.ones(len(names)), where=medians > 0)
        for name, ratio in zip(names[is_used], ratios[is_used], strict=True):
            if ratio > MANY_TIMES:
                yield f"{name} has {ratio:.0f} times the median variance in {path.name}", [str(name)]
            elif ratio <= SMALLEST:
                yield f"{name} is flat in {path.name}", [str(name)]


def _unusual_positions(channels: KeptChannels) -> str:
    """Describe positions of EEG that lie on no head, or on one that looks elsewhere than to the front."""
    is_eeg = {*channels.kinds} == {"eeg"} and len(channels.names) >= LEAST_ELECTRODES
    if not (is_eeg and channels.has_own_positions):
        return ""
    recorded, standard = channels.positions, standard_positions(channels.names)
    radius_m = float(np.median(np.linalg.norm(recorded - recorded.mean(0), axis=1)))
    if not HEAD_M[0] < radius_m < HEAD_M[1]:
        return f"electrodes lie {radius_m:.3g} m from their middle, which is no head: another unit"
    is_known = np.isfinite(standard).all(1)
    if is_known.sum() < LEAST_ELECTRODES:
        return ""
    centred = np.array([where[is_known] - where[is_known].mean(0) for where in (recorded, standard)])
    directions = centred / np.linalg.norm(centred, axis=2, keepdims=True)  # [2, C, 3]
    angle = float(np.degrees(np.arccos(np.median(directions.prod(0).sum(1)).clip(-1, 1))))
    return f"electrodes are turned by some {angle:.0f}° against their names" if angle > MOST_ANGLE else ""


def _difference(subject_channels: Mapping[int, KeptChannels]) -> list[str]:
    """Describe the subjects that lack channels of others, or have them in another order."""
    all_names = dict.fromkeys(name for channels in subject_channels.values() for name in channels.names)
    lacking = {
        subject: [" ".join(name for name in all_names if name not in channels.names)]
        for subject, channels in subject_channels.items()
    }
    if any(names for [names] in lacking.values()):
        texts = [
            f"subject {spans(subjects)} {f'lacks {names}' if names else 'has all'}"
            for names, subjects in _group_by_entry(lacking).items()
        ]
        return [f"subjects keep different channels, and cannot be trained together: {'; '.join(texts)}"]
    if len({channels.names for channels in subject_channels.values()}) > 1:
        return ["subjects have their channels in different orders: they cannot be trained together"]
    return []


def _way_to_equal_channels(subject_channels: Mapping[int, KeptChannels], suspects: Sequence[str]) -> str:
    """Write the override by which no suspect is kept, and all subjects have the same channels in order.

    Empty where it would leave out more than a third of the channels.
    """
    # channels that all subjects have and are no suspects
    first = next(iter(subject_channels.values()))
    names = [
        name
        for name in first.names
        if name not in suspects and all(name in channels.names for channels in subject_channels.values())
    ]

    # subjects who share less than most of their channels have different caps
    counts = [len({*channels.names} - {*suspects}) for channels in subject_channels.values()]
    if len(names) < KEPT_AT_LEAST * max(counts):
        return ""

    # an exclusion keeps the order of each subject, so different orders need a list
    orders = {
        tuple(name for name in channels.names if name in names) for channels in subject_channels.values()
    }
    if len(orders) > 1 or first.wanted:
        return shlex.quote(f"preparation.channels=[{','.join(names)}]")
    all_names = dict.fromkeys(name for channels in subject_channels.values() for name in channels.names)
    out = [*first.exclude, *(name for name in all_names if name not in names)]
    return shlex.quote(f"preparation.exclude=[{','.join(dict.fromkeys(out))}]")


def _tabulate_pictures(counts: Mapping[int, Counts], split_rows: Rows) -> Table:
    """Tabulate how often pictures were shown; a row stands for all subjects and sessions that are alike."""
    subject_rows = {}
    for subject, sessions in counts.items():
        # pictures of each session and split, and how often these were shown
        session_rows: dict[int, list[tuple[str, str, str]]] = {session: [] for session in sessions}
        for session, times_shown in sessions.items():
            for split, rows in split_rows.items():
                seen = times_shown[rows][times_shown[rows] > 0]
                if len(seen):
                    low, high = seen.min(), seen.max()
                    often = str(low) if low == high else f"{low} to {high}, mostly {np.median(seen):g}"
                    session_rows[session].append((split, f"{len(seen)} of {len(rows)}", often))
        subject_rows[subject] = [
            (spans(numbers), *row)  # type: ignore[misc]
            for row, numbers in _group_by_entry(session_rows).items()
        ]

    table_rows = [(spans(numbers), *row) for row, numbers in _group_by_entry(subject_rows).items()]  # type: ignore[misc]
    columns = ("subject", "session", "split", "pictures", "times shown")
    return Table("Pictures that were shown", columns, tuple(table_rows))


def _unusual_counts(session_counts: Counts, image_ids: Sequence[str], split_rows: Rows) -> Iterator[str]:
    """Name sessions that show pictures less than half as often, or over twice as often, as is usual."""
    for split, rows in split_rows.items():
        seen = {session: counts[rows] for session, counts in session_counts.items() if counts[rows].any()}
        if not seen:
            continue

        # the median over sessions of the median over pictures that were shown
        usual = float(np.median([np.median(counts[counts > 0]) for counts in seen.values()]))
        for session, counts in seen.items():
            if np.mean(counts > 0) < MOSTLY:  # by design, each session shows other pictures
                counts = np.where(counts > 0, counts, usual)
            is_unusual = (counts < usual / 2) | (counts > 2 * usual)
            if not is_unusual.any():
                continue

            # three pictures, as an example
            unusual = np.flatnonzero(is_unusual)
            examples = [f"{image_ids[rows[index]]} {counts[index]:g}" for index in unusual]
            yield (
                f"ses-{session:02d} shows {split} pictures {counts.min():g} to {counts.max():g} times, "
                f"where {usual:g} is usual: {', '.join(examples[:3])}{' …' if len(examples) > 3 else ''}"
            )
