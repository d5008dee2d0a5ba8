"""Downloads of the files of a data set, which are resumed, checked and noted."""

import hashlib
import os
import re
import shlex
import time
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from glob import escape
from pathlib import Path
from queue import Empty, SimpleQueue
from secrets import token_hex
from threading import Event, Thread
from typing import Any

from pydantic import BaseModel

from brainhive_cli.core import console, documents, hub
from brainhive_cli.core.claims import Claim, find_holder
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.files import (
    PARTIAL_SUFFIX,
    open_unless_link,
    publish,
    read_lines,
)
from brainhive_cli.data.downloads.hosts import (
    ETAG,
    RemoteFile,
    open_url,
    report_host_errors,
)

MEGABYTE = 1_000_000
DOWNLOADS_AT_ONCE = 8
GRACE_S = 1.6
"""Time that other downloads have to end before the failure of one is raised."""
NOTES_FILE = ".fetched.jsonl"
"""File in the folder of a data set that notes the files which were checked, a line
each; the last line of a file counts.
"""
HEX = "[0-9a-f]" * 8
"""Pattern of the content, and of the writer, in the name of a part."""
POLL_S = 0.2
"""Time between two looks at a file that another process downloads."""
POLLS_UNTIL_SAID = 10
"""Looks after which it is said that another process is waited for."""
Reports = SimpleQueue[int | BaseException | None]
"""What threads report: bytes that came, None at the end of a file, or an error."""


class Note(BaseModel):
    """A file whose content was checked.

    Attributes:
        name: Its path in the folder of the data set.
        size: Its bytes.
        mtime_ns: Its time; another one says that the file was changed since.
        digest: As the host listed it; see `RemoteFile`.
        version: The data set and its version; see `RemoteFile`.
        url: Its address.
    """

    name: str
    size: int
    mtime_ns: int
    digest: str
    version: str
    url: str


def find_missing_files(files: Sequence[RemoteFile], folder: Path) -> list[RemoteFile]:
    """List the files that a folder lacks, or holds with another content.

    Files are read for their digests, unless size and time are as noted.
    """
    notes = _read_notes(folder)
    missing = []
    with console.progress("compare files", len(files)) as bar:
        for file in files:
            if not _is_there(file, folder, notes):
                missing.append(file)
            bar.advance()
    return missing


def find_outdated_files(listed: Sequence[RemoteFile], folder: Path) -> list[str]:
    """Name the files of another version of a data set that a folder holds, and that
    this version lacks.

    Args:
        listed: All files of this version, or of one of its folders.
        folder: The folder of the data set.
    """
    names = {file.name for file in listed}
    versions = {file.version for file in listed}
    data_sets = {version.partition("@")[0] for version in versions if version}
    top = os.path.commonpath([os.path.dirname(f"/{name}") for name in names])
    outdated = []
    for note in _read_notes(folder).values():
        is_other = note.version not in versions and note.name not in names
        is_listed_here = os.path.commonpath([top, f"/{note.name}"]) == top
        is_of_these = note.version.partition("@")[0] in data_sets
        if is_other and is_listed_here and is_of_these:
            outdated.append(note.name)
    return [name for name in outdated if (folder / name).is_file()]


def _is_there(file: RemoteFile, folder: Path, notes: Mapping[str, Note]) -> bool:
    """Return True if a folder holds the file with the listed content."""
    path = folder / file.name
    if not path.is_file() or path.stat().st_size != file.size:
        return False

    # the note knows the digest, if the host gives one of the same algorithm
    algorithm = file.digest.partition(":")[0]
    note = notes.get(file.name)
    if (
        note
        and (note.size, note.mtime_ns) == (file.size, path.stat().st_mtime_ns)
        and note.digest.partition(":")[0] == algorithm
    ):
        return note.digest == file.digest

    # size alone decides where the content has no digest
    if algorithm in ("", ETAG):
        return True
    if _digest(path, algorithm) != file.digest:
        return False
    _write_note(file, folder)
    return True


def _read_notes(folder: Path) -> dict[str, Note]:
    """Read the notes of a folder by the names of files."""
    notes = {}
    with suppress(FileNotFoundError):
        for line in read_lines(folder / NOTES_FILE, errors="replace"):
            # a process that was killed may leave half a line
            with suppress(ValueError):
                note = Note.model_validate_json(line)
                notes[note.name] = note
    return notes


def _write_note(file: RemoteFile, folder: Path) -> None:
    """Note a file that was checked; without a note it is read again."""
    state = (folder / file.name).stat()
    note = Note(
        name=file.name,
        size=state.st_size,
        mtime_ns=state.st_mtime_ns,
        digest=file.digest,
        version=file.version,
        url=file.url,
    )
    # a line at the end, since several processes may write; the folder may be read-only
    with (
        suppress(OSError),
        open(folder / NOTES_FILE, "a", opener=open_unless_link) as notes,
    ):
        notes.write(f"{note.model_dump_json()}\n")


def _digest(path: Path, algorithm: str) -> str:
    """Digest a file, by `sha256`, `md5` or `git`."""
    name = algorithm
    prefix = b""
    if algorithm == "git":  # which digests the size, too
        name = "sha1"
        prefix = b"blob %d\0" % path.stat().st_size
    with path.open("rb") as file:
        content = hashlib.file_digest(file, partial(hashlib.new, name, prefix))
    return f"{algorithm}:{content.hexdigest()}"


def download_files(files: Sequence[RemoteFile], folder: Path) -> None:
    """Download files into a folder; what was interrupted is resumed.

    Raises:
        MissingData: if a host cannot be reached, or has another content.
        OSError: if the disk of the folder is full or fails.
    """
    # the hub's own client fetches its files, one request for each repository; it would
    # keep a file that was changed since it came
    repositories = defaultdict[tuple[str, bool], list[RemoteFile]](list)
    waiting = SimpleQueue[RemoteFile]()
    size = 0
    for file in files:
        if file.url.startswith(hub.HUB_PREFIX):
            repositories[file.url, (folder / file.name).exists()].append(file)
        else:
            waiting.put(file)
            size += file.size
    for (reference, is_changed), group in repositories.items():
        _download_repository(reference, group, folder, is_changed)

    # small files wait for answers, so several are fetched at once; the threads are
    # daemons, for which Ctrl-C does not wait
    reports = Reports()
    is_over = Event()
    remaining = waiting.qsize()
    received = 0
    threads = []
    for _ in range(min(remaining, DOWNLOADS_AT_ONCE)):
        thread = Thread(
            target=_work, args=(waiting, folder, reports, is_over), daemon=True
        )
        thread.start()
        threads.append(thread)
    with console.progress("download, MB", size // MEGABYTE or None) as bar:
        try:
            while remaining:
                report = reports.get()
                if isinstance(report, BaseException):
                    raise report
                if report is None:
                    remaining -= 1
                else:
                    before = received
                    received += report
                    bar.advance(received // MEGABYTE - before // MEGABYTE)
        except Exception:
            # no more files are begun, and those that are nearly there may end
            with suppress(Empty):
                while True:
                    waiting.get_nowait()
            for thread in threads:
                thread.join(GRACE_S / DOWNLOADS_AT_ONCE)
            raise
        finally:
            is_over.set()


def _download_repository(
    reference: str, files: Sequence[RemoteFile], folder: Path, is_changed: bool
) -> None:
    """Download files of a repository of the hub; again those that were changed here."""
    kind, repository, _, revision = hub.parse_repository(
        reference.removeprefix(hub.HUB_PREFIX)
    )
    hub.snapshot(
        repository,
        kind,
        revision=revision,
        local_dir=folder,
        # file names may hold characters that patterns read as wildcards
        allow_patterns=[escape(file.name) for file in files],
        force_download=is_changed,
    )
    if wrong := find_missing_files(files, folder):
        raise MissingData(
            f"{reference} gave another content of {wrong[0].name} than it lists",
            "fetch it again, or tell its owner",
        )


def _work(
    files: "SimpleQueue[RemoteFile]", folder: Path, reports: Reports, is_over: Event
) -> None:
    """Download files until there are no more, in one of several threads."""
    with suppress(Empty):
        while True:
            file = files.get_nowait()
            try:
                for size in _download(file, folder):
                    reports.put(size)
                    if is_over.is_set():
                        return
            except BaseException as error:
                reports.put(error)
                return
            reports.put(None)


def _download(file: RemoteFile, folder: Path) -> Iterator[int]:
    """Download a file, or what is missing of it; it gets its name when it is whole and
    its content was checked.

    Yields:
        Bytes that came.
    """
    path = folder / file.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        claim = yield from _claim(path)
        try:
            # another process may have downloaded it meanwhile
            if path.exists() and _is_there(file, folder, _read_notes(folder)):
                yield file.size
                return
            part = _take_part(file, path)
            yield from _complete(file, part, path)
            publish(part, path)
            _write_note(file, folder)
            for other in _list_parts(path):  # of other versions
                other.unlink()
        finally:
            claim.release()
    except OSError as error:  # writing names no file
        error.filename = error.filename or str(path)
        raise


def _claim(path: Path) -> Generator[int, None, Claim]:
    """Claim a file, of which one process alone may write the part."""
    claimed = path.with_name(f".{path.name}.claim")
    polls = 0
    while (claim := Claim.attempt(claimed)) is None:
        polls += 1
        if polls == POLLS_UNTIL_SAID:
            console.say(
                f"{path} is being downloaded by {find_holder(claimed)}: waiting for it"
            )
        yield 0
        time.sleep(POLL_S)
    return claim


def _take_part(file: RemoteFile, path: Path) -> Path:
    """Name the part of a file, and take over what a process that has ended left of it.

    The name is new each time: a process that was taken for dead finds its own gone. It
    is of this content alone, as one of another version has another size or digest.
    """
    key = documents.digest_text(f"{file.size} {file.digest}")[:8]
    part = path.with_name(f"{path.name}.{key}.{token_hex(4)}{PARTIAL_SUFFIX}")
    parts = _list_parts(path, key)
    for other in sorted(parts, key=lambda item: item.lstat().st_size):
        other.rename(part)  # the longest is the last
    return part


def _list_parts(path: Path, key: str = HEX) -> list[Path]:
    """List the parts of a file, of all contents or of one."""
    return [*path.parent.glob(f"{escape(path.name)}.{key}.{HEX}{PARTIAL_SUFFIX}")]


def _complete(file: RemoteFile, part: Path, path: Path) -> Iterator[int]:
    """Download what a part lacks, as long as something comes, and check the whole.

    Yields:
        Bytes that came.
    """
    line = shlex.join(["curl", "-L", "--create-dirs", "-o", str(path), file.url])
    start = -1
    size = part.stat().st_size if part.exists() else 0
    if not file.size:
        part.touch()
    while start < size < file.size:
        start = size
        try:
            with report_host_errors(file.url, line):
                answer, first = _ask_from(file, start)
            mode = "ab" if first else "wb"
            with answer, open(part, mode, opener=open_unless_link) as out:
                # a server may send without end
                room = file.size + 1 - first
                while block := _read_block(answer, min(MEGABYTE, room), file.url, line):
                    part.stat()  # an error if another process has taken it over
                    room -= out.write(block)
                    yield len(block)
        except MissingData as error:
            # the range is not satisfiable where the server's file is shorter
            if getattr(error.__cause__, "code", 0) == 416:
                break
            is_longer = part.exists() and part.stat().st_size > start
            if not (isinstance(error, hub.Unreachable) and is_longer):
                raise
        size = part.stat().st_size

    # the content is known, so anything else that a server sends is refused
    algorithm = file.digest.partition(":")[0]
    is_unchecked = algorithm in ("", ETAG)
    if size != file.size or not (
        is_unchecked or _digest(part, algorithm) == file.digest
    ):
        part.unlink(missing_ok=True)
        tag = "; a bucket that encrypts may give wrong tags" * (size == file.size)
        raise MissingData(
            f"{file.url} gave {size:,} bytes that are not the known {file.size:,}{tag}",
            f"fetch it again, or by hand: {line}",
        )


def _read_block(answer: Any, size: int, url: str, line: str) -> bytes:
    """Read what has come of an answer, at most so many bytes; none at its end."""
    with report_host_errors(url, line):
        return bytes(answer.read1(size))


def _ask_from(file: RemoteFile, start: int) -> tuple[Any, int]:
    """Ask for a file from a byte on; for all of it where the answer begins elsewhere.

    Returns:
        The answer, and the byte that it begins with: `start`, or 0.
    """
    for requested_start in dict.fromkeys((start, 0)):
        answer = open_url(file.url, requested_start)
        first = _find_first_byte(answer, file.size)
        if first in (requested_start, 0):
            return answer, first
        answer.close()
    raise MissingData(
        f"{file.url} answers with another part of the file than the one requested",
        "fetch it later, or tell its host",
    )


def _find_first_byte(answer: Any, size: int) -> int:
    """Find the first byte of an answer; -1 if it is of a file of another size, or does
    not say.
    """
    if answer.status != 206:
        return 0
    pattern = r"bytes (\d{1,18})-\d+/(\d+|\*)"
    match = re.fullmatch(pattern, answer.headers.get("Content-Range", ""), re.ASCII)
    return int(match[1]) if match and match[2] in (str(size), "*") else -1
