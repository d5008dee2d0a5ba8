"""Further files of a recording, which its header names."""

import re
import warnings
from glob import escape
from pathlib import Path

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.core.files import is_machine_error, require_regular
from brainhive_cli.data.files.ids import compose_characters

SPLIT = re.compile(r"_split-\d+(?=_|$)")
CONTINUED = re.compile(r"(.+)(?:_split-(?!0*1_)\d+(_.+)?|-\d+)\.fif(?:\.gz)?")
"""File name of a part of a .fif recording, other than the first part."""


def list_named_parts(path: Path) -> list[Path]:
    """List the other parts of a .fif whose name says that it is a later part."""
    match = CONTINUED.fullmatch(path.name)
    if match is None:
        return []
    paths = list[Path]()
    if SPLIT.search(path.name):
        unsplit_name = SPLIT.sub("", path.name)
        for other in path.parent.iterdir():
            if SPLIT.sub("", other.name) == unsplit_name:
                paths.append(other)
    else:
        for extension in (".fif", ".fif.gz"):
            first_part = path.with_name(f"{match[1]}{extension}")
            if first_part.is_file():
                paths.append(first_part)
        # without a first part, the number may have another meaning
        if paths:
            paths += path.parent.glob(f"{escape(match[1])}-*.fif*")
    return [other for other in paths if other != path]


def find_next_part(path: Path) -> Path | None:
    """Return the next part that a .fif names, or None if it is absent or unnamed.

    None is returned for a damaged file too, which is refused when it is opened.
    """
    if not (path.is_file() and path.name.endswith((".fif", ".fif.gz"))):
        return None
    try:
        name = read_next_name(path)
    except Exception as error:
        if is_machine_error(error):
            raise
        return None
    if not name:
        return None
    next_path = path.with_name(re.split(r"[/\\]", name)[-1])
    return next_path if next_path != path and next_path.is_file() else None


def list_further_parts(path: Path) -> list[Path]:
    """List the parts of a recording after this .fif, as each part names the next."""
    paths = list[Path]()
    if not any(CONTINUED.fullmatch(other.name) for other in path.parent.iterdir()):
        return paths
    next_path = find_next_part(path)
    while next_path is not None and next_path not in paths:
        paths.append(next_path)
        next_path = find_next_part(next_path)
    return paths


def read_next_name(path: Path) -> str:
    """Read the name of the next part in a .fif, as mne does, or an empty text."""
    from mne.io import show_fiff

    # Largest size of a tag with the name of a file.
    max_tag_bytes = 1000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines = show_fiff(
            path, output=list, read_limit=max_tag_bytes, max_str=max_tag_bytes
        )
    # tags of each block
    references: list[dict[str, str]] = [{}]
    for line in lines:
        # Line by which mne shows a tag of a reference to another file.
        match = re.fullmatch(
            r".*= FIFF_REF_(ROLE|FILE_NAME|FILE_NUM) .*?\) += (.*?)"
            r"(?: \.\.\. str len=\d+)?",
            line,
        )
        # Line by which mne shows a block of a .fif file.
        if re.match(r"\s*\d+ += FIFFB_", line):
            references.append({})
        elif match:
            references[-1][match[1]] = match[2]

    # Role of a reference to the next part of a recording.
    next_file = "[2]"
    for reference in references:
        if reference.get("ROLE", next_file) != next_file:
            continue
        if reference.get("FILE_NAME"):
            return reference["FILE_NAME"]
        if reference.get("FILE_NUM"):
            # mne makes a name from the number
            number = reference["FILE_NUM"].strip("[]")
            return re.sub(r"(-\d+)?\.", f"-{number}.", path.name, count=1)
    return ""


def require_own_parts(path: Path) -> None:
    """Raise an error if a .fif names parts that mne must not follow.

    mne would read parts in other folders, and loop forever over parts in a circle.

    Raises:
        ValueError: if a part is in another folder, or parts form a circle.
        BrainhiveError: if a part belongs to another recording.
    """
    parts = [path]
    name = read_next_name(path)
    while name:
        require_own(path, name)
        part = path.with_name(name)
        if part in parts:
            raise ValueError(f"{parts[-1].name} names {name} as its next part")
        if not part.is_file():
            return  # mne reports the absent part
        parts.append(part)
        name = read_next_name(part)


def require_own(path: Path, name: str) -> None:
    """Raise an error if a file that a recording names does not belong to it.

    Args:
        path: Header of the recording.
        name: Name of the file in the header.

    Raises:
        ValueError: if the file is in another folder.
        UnfitFile: if it is a pipe, socket or device.
        BrainhiveError: if its name belongs to another recording.
    """
    if name in ("", ".", "..") or re.search(r"[/\\\0]", name):
        raise ValueError(f"it names a file outside its folder, {name!r}")
    named_path = path.with_name(name)
    if named_path.exists():
        require_regular(named_path)

    # accept equal stems, apart from numbers of parts, and the target of a link
    stem = compose_characters(SPLIT.sub("", path.stem))
    named_stem = compose_characters(SPLIT.sub("", Path(name).stem))
    unnumbered_stem = re.sub(r"-\d+(\.fif)?$", r"\1", named_stem)
    if stem in (named_stem, unnumbered_stem) or name == path.resolve().name:
        return
    # Advice for a renamed header, keyed by its extension.
    renamed_hints = {
        ".vhdr": "if it was renamed, write DataFile={stem}.eeg and "
        "MarkerFile={stem}.vmrk into it",
        ".set": "if it was renamed, write EEG.data = EEG.datfile = '{stem}.fdt' into "
        "it in EEGLAB",
    }
    renamed_fif_hint = (
        "give all parts their old names, open the first with mne, and save that by "
        "the new name"
    )
    hint = renamed_hints.get(path.suffix.lower(), renamed_fif_hint)
    raise BrainhiveError(
        f"{path} names {name}, a file of another recording",
        hint.replace("{stem}", path.stem),
    )
