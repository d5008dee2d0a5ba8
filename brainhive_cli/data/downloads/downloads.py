"""Downloads of files, which are resumed after an interruption and checked."""

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

from brainhive_cli.core.base import MissingData, console
from brainhive_cli.core.files import (
    PARTIAL_SUFFIX,
    documents,
    hub,
    open_unless_link,
    publish,
    read_lines,
)
from brainhive_cli.core.runs import Claim, find_holder
from brainhive_cli.data.downloads.hosts import (
    ETAG,
    NOTES_FILE,
    RemoteFile,
    open_url,
    report_host_errors,
)

MEGABYTE = 1_000_000
MAX_THREADS = 8
GRACE_S = 1.6
"""Time that other downloads have to end before the error of a download is raised."""
HASH_PATTERN = "[0-9a-f]" * 8
"""Pattern of the two hashes in the name of a partial file: content and writer."""
POLL_INTERVAL_S = 0.2
"""Time between two looks at a file that another process downloads."""
POLLS_BEFORE_MESSAGE = 10
HTTP_PARTIAL_CONTENT = 206
HTTP_RANGE_NOT_SATISFIABLE = 416
Reports = SimpleQueue[int | BaseException | None]
"""Reports of threads: number of received bytes, None at the end of a file, or an error.
"""


class Note(BaseModel):
    """Note of a file whose content was checked.

    Attributes:
        name: Path in the folder of the data set.
        size: Size in bytes.
        mtime_ns: Modification time. Another time means that the file has changed.
        digest: Digest of the content, as in `RemoteFile`.
        version: Version of the data set, as in `RemoteFile`.
        url: Address of the file.
    """

    name: str
    size: int
    mtime_ns: int
    digest: str
    version: str
    url: str


def find_missing_files(files: Sequence[RemoteFile], folder: Path) -> list[RemoteFile]:
    """List the files that a folder lacks or holds with other content.

    Files are read and noted, unless a note has their size and modification time.
    """
    notes = _read_notes(folder)
    missing_files = []
    with console.progress("compare files", len(files)) as bar:
        for file in files:
            if not _check_file(file, folder, notes):
                missing_files.append(file)
            bar.advance()
    return missing_files


def find_outdated_files(files: Sequence[RemoteFile], folder: Path) -> list[str]:
    """List local files of other versions of a data set, which this version lacks.

    Args:
        files: All files of this version, or all in a folder of it.
        folder: Local folder of the data set.

    Returns:
        Names of the files.
    """
    names = {file.name for file in files}
    versions = {file.version for file in files}
    data_sets = {version.partition("@")[0] for version in versions if version}
    top = os.path.commonpath([os.path.dirname(f"/{name}") for name in names])
    outdated_names = []
    for note in _read_notes(folder).values():
        is_other = note.version not in versions and note.name not in names
        is_in_top = os.path.commonpath([top, f"/{note.name}"]) == top
        has_data_set = note.version.partition("@")[0] in data_sets
        if is_other and is_in_top and has_data_set and (folder / note.name).is_file():
            outdated_names.append(note.name)
    return outdated_names


def download_files(files: Sequence[RemoteFile], folder: Path) -> None:
    """Download files into a folder, and resume interrupted downloads.

    Raises:
        MissingData: if a host cannot be reached, or sends other content.
        OSError: if the disk is full or fails.
    """
    # the client of the hub downloads a whole repository, and replaces files if forced
    repositories = defaultdict[tuple[str, bool], list[RemoteFile]](list)
    queue = SimpleQueue[RemoteFile]()
    total_bytes = 0
    for file in files:
        if file.url.startswith(hub.HUB_PREFIX):
            is_changed = (folder / file.name).exists()
            repositories[file.url, is_changed].append(file)
        else:
            queue.put(file)
            total_bytes += file.size
    for (reference, is_changed), repository_files in repositories.items():
        _download_repository(reference, repository_files, folder, is_changed)

    # Ctrl-C does not wait for daemon threads
    reports = Reports()
    stop_event = Event()
    n_unfinished = queue.qsize()
    received_bytes = 0
    threads = []
    for _ in range(min(n_unfinished, MAX_THREADS)):
        thread = Thread(
            target=_run_worker, args=(queue, folder, reports, stop_event), daemon=True
        )
        thread.start()
        threads.append(thread)
    with console.progress("download, MB", total_bytes // MEGABYTE or None) as bar:
        try:
            while n_unfinished:
                report = reports.get()
                if isinstance(report, BaseException):
                    raise report
                if report is None:
                    n_unfinished -= 1
                else:
                    shown_mb = received_bytes // MEGABYTE
                    received_bytes += report
                    bar.advance(received_bytes // MEGABYTE - shown_mb)
        except Exception:
            # start no further files, and let the others end
            with suppress(Empty):
                while True:
                    queue.get_nowait()
            for thread in threads:
                thread.join(GRACE_S / MAX_THREADS)
            raise
        finally:
            stop_event.set()


def _read_notes(folder: Path) -> dict[str, Note]:
    """Read the notes of a folder, keyed by file name."""
    notes = {}
    with suppress(FileNotFoundError):
        for line in read_lines(folder / NOTES_FILE, errors="replace"):
            # a killed process may leave half a line
            with suppress(ValueError):
                note = Note.model_validate_json(line)
                notes[note.name] = note
    return notes


def _write_note(file: RemoteFile, folder: Path) -> None:
    """Append the note of a checked file, if the folder is writable."""
    stat = (folder / file.name).stat()
    note = Note(
        name=file.name,
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        digest=file.digest,
        version=file.version,
        url=file.url,
    )
    # other processes may append at the same time
    with (
        suppress(OSError),
        open(folder / NOTES_FILE, "a", opener=open_unless_link) as notes,
    ):
        notes.write(f"{note.model_dump_json()}\n")


def _check_file(file: RemoteFile, folder: Path, notes: Mapping[str, Note]) -> bool:
    """Return True if a folder holds a file as listed, and note it."""
    path = folder / file.name
    if not path.is_file() or path.stat().st_size != file.size:
        return False

    algorithm = file.digest.partition(":")[0]
    note = notes.get(file.name)
    if note is not None:
        is_unchanged = note.mtime_ns == path.stat().st_mtime_ns
        has_algorithm = note.digest.partition(":")[0] == algorithm
        if is_unchanged and has_algorithm and note.size == file.size:
            return note.digest == file.digest

    # the size decides if the digest cannot be computed
    if algorithm in ("", ETAG):
        return True
    if _digest_file(path, algorithm) != file.digest:
        return False
    _write_note(file, folder)
    return True


def _digest_file(path: Path, algorithm: str) -> str:
    """Compute a digest such as "md5:900150983cd2…" by `sha256`, `md5` or `git`."""
    hash_name = algorithm
    prefix = b""
    if algorithm == "git":
        hash_name = "sha1"
        prefix = b"blob %d\0" % path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, partial(hashlib.new, hash_name, prefix))
    return f"{algorithm}:{digest.hexdigest()}"


def _download_repository(
    reference: str, files: Sequence[RemoteFile], folder: Path, is_changed: bool
) -> None:
    """Download files of a repository of the hub.

    Args:
        reference: Reference such as "hub:datasets/owner/name@commit".
        files: Files to download.
        folder: Local folder.
        is_changed: If True, files that exist are downloaded again.
    """
    # names may hold wildcards
    hub.Repository.parse(reference).snapshot(
        [escape(file.name) for file in files],
        local_dir=folder,
        force_download=is_changed,
    )
    wrong_files = find_missing_files(files, folder)
    if wrong_files:
        for file in wrong_files:
            (folder / file.name).unlink(missing_ok=True)
        raise MissingData(
            f"{reference}: the content of {wrong_files[0].name} is not as listed",
            "fetch it again, or tell its owner",
        )


def _run_worker(
    queue: "SimpleQueue[RemoteFile]",
    folder: Path,
    reports: Reports,
    stop_event: Event,
) -> None:
    """Download the files of a queue in a thread, until it is empty or must stop."""
    with suppress(Empty):
        while True:
            file = queue.get_nowait()
            try:
                for n_bytes in _download_file(file, folder):
                    reports.put(n_bytes)
                    if stop_event.is_set():
                        return
            except BaseException as error:
                reports.put(error)
                return
            reports.put(None)


def _download_file(file: RemoteFile, folder: Path) -> Iterator[int]:
    """Download a file, or its missing end, and rename the partial file if it is valid.

    Yields:
        Numbers of received bytes.
    """
    path = folder / file.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        claim = yield from _claim_file(path)
        try:
            # another process may have downloaded it
            if path.exists() and _check_file(file, folder, _read_notes(folder)):
                yield file.size
                return
            partial_path = _adopt_partial_file(file, path)
            yield from _complete_file(file, partial_path, path)
            publish(partial_path, path)
            _write_note(file, folder)
            # remove partial files of other versions
            for other_path in _list_partial_files(path):
                other_path.unlink()
        finally:
            claim.release()
    except OSError as error:
        # errors of writing have no file name
        error.filename = error.filename or str(path)
        raise


def _claim_file(path: Path) -> Generator[int, None, Claim]:
    """Wait until no other process downloads a file, and claim it.

    Yields:
        0 new bytes, each time that another process is still downloading the file.
    """
    claim_path = path.with_name(f".{path.name}.claim")
    n_polls = 0
    claim = Claim.attempt(claim_path)
    while claim is None:
        n_polls += 1
        if n_polls == POLLS_BEFORE_MESSAGE:
            holder = find_holder(claim_path)
            console.say(f"waiting for {path}, which {holder} downloads")
        yield 0
        time.sleep(POLL_INTERVAL_S)
        claim = Claim.attempt(claim_path)
    return claim


def _adopt_partial_file(file: RemoteFile, path: Path) -> Path:
    """Rename the longest partial file of this content for this process.

    The new name is random, so that a process that is still writing finds its file gone.
    """
    content_hash = documents.digest_text(f"{file.size} {file.digest}")[:8]
    partial_path = path.with_name(
        f"{path.name}.{content_hash}.{token_hex(4)}{PARTIAL_SUFFIX}"
    )
    old_paths = _list_partial_files(path, content_hash)
    # later renames replace earlier ones
    for old_path in sorted(old_paths, key=lambda item: item.lstat().st_size):
        old_path.rename(partial_path)
    return partial_path


def _list_partial_files(path: Path, content_hash: str = HASH_PATTERN) -> list[Path]:
    """List the partial files of a file, of any content by default."""
    pattern = f"{escape(path.name)}.{content_hash}.{HASH_PATTERN}{PARTIAL_SUFFIX}"
    return list(path.parent.glob(pattern))


def _complete_file(file: RemoteFile, partial_path: Path, path: Path) -> Iterator[int]:
    """Download the missing end of a partial file, and check the whole file.

    Requests are repeated as long as each of them brings bytes.

    Yields:
        Numbers of received bytes.
    """
    command = shlex.join(["curl", "-L", "--create-dirs", "-o", str(path), file.url])
    start = -1
    size = partial_path.stat().st_size if partial_path.exists() else 0
    if not file.size:
        partial_path.touch()
    while start < size < file.size:
        start = size
        try:
            with report_host_errors(file.url, command):
                response, response_start = _request_range(file, start)
            mode = "ab" if response_start else "wb"
            with response, open(partial_path, mode, opener=open_unless_link) as stream:
                # read a byte more than expected, as a server may never end
                max_bytes = file.size + 1 - response_start
                while max_bytes:
                    with report_host_errors(file.url, command):
                        block = bytes(response.read1(min(MEGABYTE, max_bytes)))
                    if not block:
                        break
                    partial_path.stat()  # an error if another process has renamed it
                    max_bytes -= stream.write(block)
                    yield len(block)
        except MissingData as error:
            # the file of the server may be shorter than the partial file
            if getattr(error.__cause__, "code", 0) == HTTP_RANGE_NOT_SATISFIABLE:
                break
            has_grown = partial_path.exists() and partial_path.stat().st_size > start
            if not (isinstance(error, hub.Unreachable) and has_grown):
                raise
        size = partial_path.stat().st_size

    algorithm = file.digest.partition(":")[0]
    is_valid = size == file.size
    if is_valid and algorithm not in ("", ETAG):
        is_valid = _digest_file(partial_path, algorithm) == file.digest
    if not is_valid:
        partial_path.unlink(missing_ok=True)
        problem = (
            f"{file.url} sent {size:,} bytes, which are not the expected {file.size:,}"
        )
        if size == file.size:
            problem += " (buckets that encrypt may list wrong digests)"
        raise MissingData(problem, f"fetch it again, or by hand: {command}")


def _request_range(file: RemoteFile, start: int) -> tuple[Any, int]:
    """Request a file from byte `start`, or whole if the host gives no such range.

    Returns:
        The response, and the position of its first byte: `start` or 0.
    """
    # after a wrong range, request the whole file
    for requested_start in dict.fromkeys((start, 0)):
        response = open_url(file.url, requested_start)
        response_start = _read_range_start(response, file.size)
        if response_start in (requested_start, 0):
            return response, response_start
        response.close()
    raise MissingData(
        f"{file.url} sends another range of the file than the requested range",
        "fetch it later, or tell its host",
    )


def _read_range_start(response: Any, size: int) -> int:
    """Read the position of a response's first byte in a file of `size` bytes.

    Returns:
        The position, or -1 if it is not stated or belongs to a file of another size.
    """
    if response.status != HTTP_PARTIAL_CONTENT:
        return 0
    content_range = response.headers.get("Content-Range", "")
    pattern = r"bytes (\d{1,18})-\d+/(\d+|\*)"
    match = re.fullmatch(pattern, content_range, re.ASCII)
    return int(match[1]) if match and match[2] in (str(size), "*") else -1
