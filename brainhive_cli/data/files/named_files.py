"""Files that the header of a recording names: they lie next to it, and are its own."""

import re
import warnings
from glob import escape
from pathlib import Path

from brainhive_cli.core.damage import is_machine_error
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.files import require_regular
from brainhive_cli.data.files.ids import composed

SPLIT = re.compile(r"_split-\d+(?=_|$)")
CONTINUED = re.compile(r"(.+)(?:_split-(?!0*1_)\d+(_.+)?|-\d+)\.fif(?:\.gz)?")
"""Names of the further files of a recording in several."""
BLOCK = re.compile(r"\s*\d+ += FIFFB_")
REFERENCE = re.compile(
    r".*= FIFF_REF_(ROLE|FILE_NAME|FILE_NUM) .*?\) += (.*?)(?: \.\.\. str len=\d+)?"
)
"""Lines by which mne shows the blocks and tags of a .fif file."""
NEXT_FILE = "[2]"
"""Role of a reference to the next part of a recording."""
MAX_TAG_BYTES = 1000
"""Tags that are larger hold no name of a file."""


def list_named_parts(path: Path) -> list[Path]:
    """List the files that a .fif continues, or may continue, by their names."""
    match = CONTINUED.fullmatch(path.name)
    if match is None:
        return []
    if SPLIT.search(path.name):
        unsplit = SPLIT.sub("", path.name)
        others = path.parent.iterdir()
        parts = [other for other in others if SPLIT.sub("", other.name) == unsplit]
    else:
        firsts = [path.with_name(f"{match[1]}{end}") for end in (".fif", ".fif.gz")]
        parts = [*filter(Path.is_file, firsts)]
        if parts:
            parts += path.parent.glob(f"{escape(match[1])}-*.fif*")
    return [part for part in parts if part != path]


def find_next_part(path: Path) -> Path | None:
    """Find the file that a .fif names as its next part; None where there is none."""
    if not (path.is_file() and path.name.endswith((".fif", ".fif.gz"))):
        return None
    try:
        name = read_next_name(path)
    except Exception as error:  # of a damaged file, which is refused when it is opened
        if is_machine_error(error):
            raise
        return None
    part = path.with_name(re.split(r"[/\\]", name)[-1]) if name else path
    return part if part != path and part.is_file() else None


def list_further_parts(path: Path) -> list[Path]:
    """List the further files of a .fif: those that each names as its next part."""
    parts: list[Path] = []
    if not any(CONTINUED.fullmatch(other.name) for other in path.parent.iterdir()):
        return parts
    part = find_next_part(path)
    while part is not None and part not in parts:
        parts.append(part)
        part = find_next_part(part)
    return parts


def read_next_name(path: Path) -> str:
    """Read the name of the next part that mne finds in a .fif; empty if there is
    none.
    """
    from mne.io import show_fiff

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines = show_fiff(
            path, output=list, read_limit=MAX_TAG_BYTES, max_str=MAX_TAG_BYTES
        )
    references: list[dict[str, str]] = [{}]
    for line in lines:
        if BLOCK.match(line):
            references.append({})
        elif match := REFERENCE.fullmatch(line):
            references[-1][match[1]] = match[2]
    for reference in references:
        if reference.get("ROLE", NEXT_FILE) != NEXT_FILE:
            continue
        if name := reference.get("FILE_NAME"):
            return name
        if number := reference.get("FILE_NUM"):
            # mne makes the name of a part that has a number alone
            end = f"-{number.strip('[]')}."
            return re.sub(r"(-\d+)?\.", end, path.name, count=1)
    return ""


def require_own_parts(path: Path) -> None:
    """Refuse a .fif whose parts lie in another folder, or of which one names a part
    before it as the next: mne would follow them wherever they lead, and for ever.

    Raises:
        ValueError: naming the file.
        BrainhiveError: if a part is a file of another recording.
    """
    parts = [path]
    name = read_next_name(path)
    while name:
        require_own(path, name)
        part = path.with_name(name)
        if part in parts:
            raise ValueError(f"{parts[-1].name} names {name} as its next part")
        if not part.is_file():
            return  # of which mne says what it misses
        parts.append(part)
        name = read_next_name(part)


def require_own(path: Path, name: str) -> None:
    """Refuse a file that a recording names in another folder, that by its name is of
    another recording, or that is no plain file.

    Raises:
        ValueError, UnfitFile: naming the file.
        BrainhiveError: if it is a file of another recording.
    """
    if name in ("", ".", "..") or re.search(r"[/\\\0]", name):
        raise ValueError(f"it names a file outside its folder, {name!r}")
    if path.with_name(name).exists():
        require_regular(path.with_name(name))
    # the same name, apart from numbers of splits; or the target of a link
    stem, named_stem = (
        composed(SPLIT.sub("", each.stem)) for each in (path, Path(name))
    )
    unnumbered = re.sub(r"-\d+(\.fif)?$", r"\1", named_stem)
    if stem in (named_stem, unnumbered) or name == path.resolve().name:
        return
    ways = {
        ".vhdr": (
            f"if it was renamed, write DataFile={path.stem}.eeg and "
            f"MarkerFile={path.stem}.vmrk into it"
        ),
        ".set": (
            f"if it was renamed, write EEG.data = EEG.datfile = '{path.stem}.fdt' "
            "into it in EEGLAB"
        ),
    }
    raise BrainhiveError(
        f"{path} names {name}, a file of another recording",
        ways.get(
            path.suffix.lower(),
            "give all parts their old names, open the first with mne, and save that by "
            "the new name",
        ),
    )
