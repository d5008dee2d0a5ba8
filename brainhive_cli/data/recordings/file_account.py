"""Account of the files and people in a folder of recordings."""

from collections.abc import Collection, Mapping
from pathlib import Path

from brainhive_cli.data.files import list_named_parts, summarise_names
from brainhive_cli.data.recordings.account import Account, Dispute
from brainhive_cli.data.recordings.files import list_signal_files, list_unread_files
from brainhive_cli.data.recordings.labels import find_label
from brainhive_cli.data.recordings.tables import WORKBOOK_ENDINGS


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
