"""Account of the recordings in a folder: files, people, events, trials and scales."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path

import numpy as np

from brainhive_cli.data.files import (
    find_label,
    list_named_parts,
    natural_key,
    read_entities,
    summarise_names,
)
from brainhive_cli.data.recordings.account import MAX_SOURCES, Account, Dispute
from brainhive_cli.data.recordings.event_names import (
    NOT_RECORDED,
    EventNames,
    read_code,
)
from brainhive_cli.data.recordings.files import list_signal_files, list_unread_files
from brainhive_cli.data.recordings.headers import Header
from brainhive_cli.data.recordings.showings import (
    PAIR_SEPARATOR,
    TASK,
    find_copies,
    find_mixed_kinds,
    find_names_at_pace,
)
from brainhive_cli.data.recordings.tables import WORKBOOK_ENDINGS


def join_showings(
    headers: Mapping[Path, Header], names: Mapping[Path, EventNames]
) -> dict[Path, Header]:
    """Join events that are one showing: a picture, and its offset, answer or copy.

    Args:
        headers: Headers of a person's recordings.
        names: Pictures of the events of each recording.
    """
    events: list[tuple[Path, tuple[int, str]]] = []
    pictures: list[str] = []
    times_s: list[float] = []
    first_s = 0.0
    are_categories = False
    for path, header in headers.items():
        are_categories = names[path].are_categories
        picture_of = names[path].name_events(header.events)
        for event in sorted(set(header.events)):
            if event[1] in picture_of:
                events.append((path, event))
                pictures.append(picture_of[event[1]])
                times_s.append(first_s + event[0] / header.rate_hz)
        # a file is far from the next
        first_s += header.n_times / header.rate_hz + 1e5
    is_copy, lags_s = find_copies(np.array(times_s), pictures, are_categories)
    if not is_copy.any():
        return dict(headers)

    copies = set(compress(events, is_copy.tolist()))
    joined = {}
    for path, header in headers.items():
        kept = [event for event in header.events if (path, event) not in copies]
        count = len(set(header.events)) - len(set(kept))
        warning = (
            f"{count} events repeat the picture before them, after "
            f"{np.median(lags_s):.2g} s, and count once with it"
        )
        warnings = header.warnings + ((warning,) if count else ())
        joined[path] = replace(header, events=tuple(kept), warnings=warnings)
    return joined


def list_disputes(
    headers: Mapping[Path, Header],
    names: Mapping[Path, EventNames],
    spreads: Mapping[Path, float],
) -> list[Dispute]:
    """List what does not add up in the recordings of a person.

    Args:
        headers: Headers of the recordings, after `join_showings`.
        names: Pictures of the events of each recording.
        spreads: Spread of the signals of each recording.
    """
    disputes = _compare_scales(spreads)
    pictures: list[str] = []
    kinds = []
    at_pace = Counter[str]()
    absent = Counter[str]()
    # Largest share of the pictures outside a recording that needs no yes.
    max_lost_share = 0.2
    for path, header in headers.items():
        disputes += header.disputes
        picture_of = names[path].name_events(header.events)
        times_s = []
        others = []
        task = read_entities(path).get("task", "")
        for onset, name in sorted(header.events):
            if name not in picture_of:
                if not names[path].is_blank(name):
                    others.append((onset / header.rate_hz, read_code(name)))
                continue
            times_s.append(onset / header.rate_hz)
            pictures.append(picture_of[name])
            kinds.append(((TASK, task), *header.kinds.get(onset, ())))
        # the names of categories in the recipe select them
        if names[path].are_categories and not (names[path].table or header.has_table):
            others = []
        # others at the pace are pictures that the data set lacks, if a table names them
        for name, count in find_names_at_pace(np.array(times_s), others).items():
            is_named = header.has_table or names[path].is_listed(name)
            (absent if is_named else at_pace)[name] += count
        n_lost = header.n_outside
        n_announced = n_lost + len(times_s)
        if n_lost > max_lost_share * n_announced:
            problem = (
                f"{n_lost} of {n_announced} events of {path.name} lie outside the "
                "recording"
            )
            remedy = "write onsets from the first sample of the file"
            disputes.append(Dispute("lost-trials", problem, (), n_lost, remedy))
    folder = next(iter(headers)).parent.name
    disputes += find_mixed_kinds(pictures, kinds, folder)
    if at_pace:
        disputes.append(_dispute_unnamed(headers, names, at_pace))
    if absent.total() > max_lost_share * (len(pictures) + absent.total()):
        problem = (
            f"{absent.total()} trials show pictures that the data set does not have, "
            f"{summarise_names(list(absent))}"
        )
        disputes.append(
            Dispute("absent-pictures", problem, tuple(absent), 0, "add these pictures")
        )
    return disputes


def list_rows(
    headers: Mapping[Path, Header],
    names: Mapping[Path, EventNames],
    n_trials: int,
    dropped: Counter[str],
) -> list[tuple[object, ...]]:
    """List the rows of the account on the events and trials of a person.

    Args:
        headers: Headers of the recordings, after `join_showings`.
        names: Pictures of the events of each recording.
        n_trials: Number of trials that are used.
        dropped: Number of other trials, by reason.
    """
    n_pictures = 0
    n_outside = 0
    others = Counter[str]()
    for path, header in headers.items():
        picture_of = names[path].name_events(header.events)
        n_outside += header.n_outside
        for _, name in header.events:
            n_pictures += name in picture_of
            others[read_code(name)] += name not in picture_of
    tasks = {read_entities(path).get("task", "") for path in headers} - {""}
    sources = [header.event_source for header in headers.values()]
    sources += [f"task {task}" for task in sorted(tasks)]
    source = ", ".join(dict.fromkeys(sources))
    dropped = dropped + Counter({"outside the recording": n_outside})
    n_events = n_pictures + others.total()
    return [
        ("events", n_events, n_pictures, f"{source}{_list_counts(others)}"),
        ("trials", n_pictures + n_outside, n_trials, _list_counts(dropped)[2:]),
    ]


def _list_counts(counts: Counter[str]) -> str:
    """List the largest counts with their names, after a semicolon."""
    largest = (+counts).most_common(MAX_SOURCES)
    texts = [f"{count} {name}" for name, count in largest]
    ellipsis = " …" if len(+counts) > MAX_SOURCES else ""
    return f"; not used: {', '.join(texts)}{ellipsis}" if texts else ""


def list_unrecorded(
    headers: Mapping[Path, Header], names: Mapping[Path, EventNames]
) -> list[str]:
    """List the events of the table that no recording of a person has.

    Without any event of the table, another error says so.
    """
    unrecorded: dict[str, None] = {}
    for table_names in set(names.values()):
        own = [headers[path] for path in headers if names[path] is table_names]
        rows, unmatched = table_names.match(own)
        if rows:
            unrecorded |= dict.fromkeys(unmatched.get(NOT_RECORDED, ()))
    return sorted(unrecorded, key=natural_key)


def dispute_unrecorded(unrecorded: Sequence[str], recorded: Iterable[str]) -> Dispute:
    """Dispute events of the table that no recording has."""
    never = ""
    codes = [int(name) for name in unrecorded if name.isdecimal()]
    others = [int(name) for name in recorded if name.isdecimal()]
    for bit in range(16) if len(codes) == len(unrecorded) else ():
        is_lost = all(code >> bit & 1 for code in codes)
        if is_lost and not any(code >> bit & 1 for code in others):
            never = f". No code has the bit {2**bit}: other codes may stand for these"
    return Dispute(
        "unrecorded-codes",
        f"{len(unrecorded)} events of the table never came: "
        f"{summarise_names(list(unrecorded))}{never}",
        names=tuple(unrecorded),
        remedy="correct the codes in the table, or delete their lines",
    )


def _dispute_unnamed(
    headers: Mapping[Path, Header],
    names: Mapping[Path, EventNames],
    at_pace: Mapping[str, int],
) -> Dispute:
    """Dispute events that stand where a picture is expected."""
    unrecorded = list_unrecorded(headers, names)
    missing = summarise_names(unrecorded)
    missing = f"; of the table never came {missing}" if unrecorded else ""
    listed = set(next(iter(names.values())).table or ())
    cause = _explain(list(at_pace), listed)
    return Dispute(
        "unnamed-codes",
        f"{sum(at_pace.values())} events stand at the pace of pictures, and name none, "
        f"{summarise_names(sorted(at_pace, key=natural_key))}{missing}{cause}",
        names=tuple(at_pace),
        remedy="name their pictures in the table, or list them without a picture",
    )


def _explain(recorded: Sequence[str], listed: Collection[str]) -> str:
    """Name the rule by which all recorded names become listed ones, if there is one."""
    if all(set(re.findall(r"\w+", name)) & set(listed) for name in recorded):
        return ". They contain listed names"
    if all(_decode_utf_8(name) in listed for name in recorded):
        return ". They are UTF-8, read byte by byte"
    if not all(map(str.isdecimal, recorded)):
        return ""
    for bit in range(16):
        for step, word in ((-(2**bit), "without"), (2**bit, "with")):
            if all(str(int(name) + step) in listed for name in recorded):
                return (
                    f". The table lists them {word} {2**bit}: a bit is lost or stays up"
                )
    return ""


def _decode_utf_8(name: str) -> str:
    """Decode a name, or two successive codes, whose bytes are UTF-8."""
    codes = name.split(PAIR_SEPARATOR)
    try:
        if len(codes) == 2 and all(map(str.isdecimal, codes)):
            return str(ord(bytes(map(int, codes)).decode()))
        return name.encode("cp1252").decode()
    except (UnicodeError, ValueError, TypeError):
        return ""


def _compare_scales(spreads: Mapping[Path, float]) -> list[Dispute]:
    """Find recordings whose scale differs from that of the person's others."""
    values = [spread for spread in spreads.values() if spread]
    usual = float(np.median(values)) if len(values) > 2 else max(values[:1], default=0)
    disputes = []
    # Largest ratio of the spread of a recording to the median of the person's others.
    max_scale_ratio = 6
    for path, spread in spreads.items():
        ratio = spread / usual if usual and spread else 1.0
        if not 1 / max_scale_ratio < ratio < max_scale_ratio:
            problem = (
                f"{path.name} has signals {ratio:.2g} times as large as "
                f"{next(iter(spreads)).name} and others"
            )
            remedy = "multiply them with mne's raw.apply_function, and save them"
            disputes.append(Dispute("other-scale", problem, (path.name,), 0, remedy))
    return disputes


def account_for_files(
    account: Account,
    root: Path,
    recordings: Mapping[Path, str],
    tables: Collection[Path | None],
    are_epochs: bool,
    pattern: str,
) -> None:
    """Set aside files that are not read, and dispute people without a recording.

    Args:
        account: Account to which the files are added.
        root: Folder of the recordings.
        recordings: Label of the person of each recording, such as "sub-01".
        tables: Tables of events that are read.
        are_epochs: True if epochs are read instead of continuous recordings.
        pattern: Pattern of the recipe for the paths of recordings.
    """
    labels = set(recordings.values())
    for path in sorted(recordings):
        if list_named_parts(path):
            reason = "read as recordings of their own: no file names them as a part"
            account.set_aside("files", reason, path.name)

    # files of other formats, and recordings of the other kind
    left_out: dict[str, str] = {}
    unread_tables = []
    for path, label in list_unread_files(root).items():
        if path in tables:
            continue
        if label or path.suffix.lower() in WORKBOOK_ENDINGS:
            account.set_aside("files", "not read", path.name)
        if label in labels and "event" in path.name.lower():
            unread_tables.append(path.name)
        elif label and label not in labels:
            left_out.setdefault(label, path.name)
    other_kind = "recording" if are_epochs else "epochs"
    for path in list_signal_files(root, "*", not are_epochs):
        if path not in recordings:
            reason = f"not read here but by prepare --from {other_kind}"
            account.set_aside("files", reason, path.name)
            label = find_label(path, root)
            if label not in labels:
                left_out.setdefault(label, path.name)

    people = len(labels | left_out.keys())
    account.rows.append(("all", "people", people, len(labels), ", ".join(left_out)))
    if left_out and pattern == "*":
        problem = (
            f"no recording of {', '.join(left_out)} is read, only of "
            f"{', '.join(sorted(labels))}; not read: "
            f"{summarise_names(list(left_out.values()))}"
        )
        remedy = (
            "save them as .fif with mne (raw.save('sub-01_raw.fif')), or name the "
            "others: --subjects"
        )
        account.disputes.append(
            Dispute("left-out-people", problem, tuple(left_out), 0, remedy)
        )
    if unread_tables:
        problem = f"tables of events are not read, {summarise_names(unread_tables)}"
        remedy = "save them as CSV with the columns event and picture"
        account.disputes.append(
            Dispute("unread-files", problem, tuple(unread_tables), 0, remedy)
        )
