"""Downloads of files, which are resumed after an interruption and checked."""

import hashlib
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from glob import escape
from pathlib import Path
from queue import Empty, SimpleQueue
from secrets import token_hex
from threading import Event, Lock, Thread
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
    NOTES_FILE,
    RemoteFile,
    open_url,
    report_host_errors,
)

MEGABYTE = 1_000_000
CLAIM_FILE = ".fetch.claim"
"""File of the claim of the process that downloads into a folder."""
GRACE_S = 1.6
"""Time that other downloads have to end before the error of a download is raised."""


class Note(BaseModel):
    """Note of a file whose content was checked.

    Attributes:
        file: The file as listed.
        mtime_ns: Modification time. Another time means that the file has changed.
    """

    file: RemoteFile
    mtime_ns: int


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
    data_sets = {file.data_set for file in files if file.version}
    top = os.path.commonpath([os.path.dirname(f"/{name}") for name in names])
    outdated_names = []
    for name, note in _read_notes(folder).items():
        is_absent = name not in names and Path(f"/{name}").is_relative_to(top)
        has_data_set = note.file.data_set in data_sets
        if is_absent and has_data_set and (folder / name).is_file():
            outdated_names.append(name)
    return outdated_names


def download_files(files: Sequence[RemoteFile], folder: Path) -> None:
    """Download files of a host into a folder, and resume interrupted downloads.

    Raises:
        MissingData: if the host cannot be reached, or sends other content.
        OSError: if the disk is full or fails.
    """
    if not files:
        return
    claim_path = folder / CLAIM_FILE
    claim = Claim.attempt(claim_path)
    if claim is None:
        console.say(f"waiting for {find_holder(claim_path)}, which fetches {folder}")
        claim = Claim(claim_path, str(folder), wait=True)
    try:
        # another process may have downloaded them
        missing_files = find_missing_files(files, folder)
        if files[0].url.startswith(hub.HUB_PREFIX):
            _download_from_hub(missing_files, folder)
        else:
            _download_from_web(missing_files, folder)
    finally:
        claim.release()


def _download_from_hub(files: Sequence[RemoteFile], folder: Path) -> None:
    """Download files of a repository of the hub."""
    # the client of the hub replaces files only if forced
    groups = defaultdict[bool, list[RemoteFile]](list)
    for file in files:
        groups[(folder / file.name).exists()].append(file)
    for is_changed, group in groups.items():
        # names may hold wildcards
        hub.Repository.parse(group[0].url).snapshot(
            [escape(file.name) for file in group],
            local_dir=folder,
            force_download=is_changed,
        )
    wrong_files = find_missing_files(files, folder)
    for file in wrong_files:
        (folder / file.name).unlink(missing_ok=True)
    if wrong_files:
        raise MissingData(
            f"{wrong_files[0].url}: the content of {wrong_files[0].name} is not as "
            "listed",
            "fetch it again, or tell its owner",
        )


def _download_from_web(files: Sequence[RemoteFile], folder: Path) -> None:
    """Download files of web servers in threads."""
    queue = SimpleQueue[RemoteFile]()
    for file in files:
        queue.put(file)
    results = SimpleQueue[BaseException | None]()
    stop_event = Event()
    lock = Lock()
    received_bytes = 0
    total_bytes = sum(file.size for file in files)
    max_threads = 8
    with console.progress("download, MB", total_bytes // MEGABYTE or None) as bar:

        def advance(n_bytes: int) -> None:
            """Count received bytes, or raise an error in a thread that must stop."""
            nonlocal received_bytes
            with lock:
                if stop_event.is_set():
                    raise CancelledError
                received_bytes += n_bytes
                bar.advance(received_bytes // MEGABYTE - bar.items)

        def run_worker() -> None:
            """Download files of the queue, in a thread."""
            try:
                while True:
                    _download_file(queue.get_nowait(), folder, advance)
                    results.put(None)
            except Empty:
                pass
            except BaseException as error:
                results.put(error)

        # Ctrl-C does not wait for daemon threads. For those of an executor, Python
        # would wait until a server responds
        threads = []
        for _ in range(max_threads):
            thread = Thread(target=run_worker, daemon=True)
            thread.start()
            threads.append(thread)
        try:
            for _ in files:
                error = results.get()
                if error is not None:
                    raise error
        except Exception:
            # let other downloads end
            for thread in threads:
                thread.join(GRACE_S / max_threads)
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
                notes[note.file.name] = note
    return notes


def _write_note(file: RemoteFile, folder: Path) -> None:
    """Append the note of a checked file, if the folder is writable."""
    note = Note(file=file, mtime_ns=(folder / file.name).stat().st_mtime_ns)
    # other threads may append at the same time
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
    note = notes.get(file.name)
    if note is not None and note.mtime_ns == path.stat().st_mtime_ns:
        noted_file = note.file
        if (noted_file.algorithm, noted_file.size) == (file.algorithm, file.size):
            return noted_file.digest == file.digest
    if not _has_digest(path, file):
        return False
    if file.is_hashed:
        _write_note(file, folder)
    return True


def _has_digest(path: Path, file: RemoteFile) -> bool:
    """Return True if the digest of a local file is as listed, or cannot be computed."""
    return not file.is_hashed or _digest_file(path, file.algorithm) == file.digest


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


def _download_file(
    file: RemoteFile, folder: Path, advance: Callable[[int], None]
) -> None:
    """Download a file, and rename the partial file if it is valid.

    Args:
        file: File to download.
        folder: Local folder.
        advance: Function that is called with the number of bytes after each block. Its
            error stops the download.
    """
    path = folder / file.name
    content_hash = documents.digest_text(f"{file.size} {file.digest}")[:8]
    # the name is random, so that a process that is still writing finds its file gone
    partial_path = path.with_name(
        f"{path.name}.{content_hash}.{token_hex(4)}{PARTIAL_SUFFIX}"
    )
    # Pattern of the two hashes in the name of a partial file: content and writer.
    hash_pattern = "[0-9a-f]" * 8
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # continue the longest partial file of this content, and remove all others
        pattern = f"{escape(path.name)}.{hash_pattern}.{hash_pattern}{PARTIAL_SUFFIX}"
        old_paths = path.parent.glob(pattern)
        for old_path in sorted(old_paths, key=lambda item: item.lstat().st_size):
            if old_path.name.startswith(f"{path.name}.{content_hash}."):
                old_path.rename(partial_path)
            else:
                old_path.unlink()
        _complete_file(file, partial_path, path, advance)
        publish(partial_path, path)
        _write_note(file, folder)
    except OSError as error:
        # errors of writing have no file name
        error.filename = error.filename or str(path)
        raise


def _complete_file(
    file: RemoteFile, partial_path: Path, path: Path, advance: Callable[[int], None]
) -> None:
    """Download the missing end of a partial file, and check the whole file.

    Requests are repeated as long as each of them brings bytes.
    """
    command = shlex.join(["curl", "-L", "--create-dirs", "-o", str(path), file.url])
    size = partial_path.stat().st_size if partial_path.exists() else 0
    if not file.size:
        partial_path.touch()
    start = -1
    while start < size < file.size:
        start = size
        try:
            with report_host_errors(file.url, command):
                response, response_start = _request_range(file, start)
            mode = "ab" if response_start else "wb"
            with response, open(partial_path, mode, opener=open_unless_link) as stream:
                # read a byte more than expected, as a server may never end
                while max_bytes := file.size + 1 - stream.tell():
                    with report_host_errors(file.url, command):
                        block = response.read1(min(MEGABYTE, max_bytes))
                    if not block:
                        break
                    partial_path.stat()  # an error if another process has renamed it
                    stream.write(block)
                    advance(len(block))
        except MissingData as error:
            # the file of the server may be shorter than the partial file, so that the
            # range is not satisfiable (416)
            if getattr(error.__cause__, "code", 0) == 416:
                break
            if not partial_path.exists() or partial_path.stat().st_size <= start:
                raise
        size = partial_path.stat().st_size

    if size != file.size or not _has_digest(partial_path, file):
        partial_path.unlink()
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
    for requested_start in (start, 0):
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
    # 206 is partial content
    if response.status != 206:
        return 0
    content_range = response.headers.get("Content-Range", "")
    pattern = rf"bytes (\d{{1,18}})-\d+/({size}|\*)"
    match = re.fullmatch(pattern, content_range, re.ASCII)
    return int(match[1]) if match else -1
