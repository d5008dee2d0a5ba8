"""Hosts of data sets (the hub, NEMAR, OpenNeuro, S3, web servers): their files are
listed, downloaded, resumed and checked.
"""

import hashlib
import json
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from glob import escape
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import Request, urlopen
from xml.etree import ElementTree

from brainhive_cli.core import console, hub
from brainhive_cli.core.errors import MissingData, RecipeError, first_line
from brainhive_cli.core.files import PART, below
from brainhive_cli.core.network import BUSY, ask, find_bad_proxy
from brainhive_cli.core.recipe import RECORDS

NEMAR = "https://data.nemar.org/"
# the certificate of the first form has no bucket whose name has a dot
S3, S3_WITH_DOT = "https://{}.s3.amazonaws.com/", "https://s3.amazonaws.com/{}/"
ALGORITHMS = {"sha256", "md5", "git"}
"""Algorithms of NEMAR's digests."""
OPENNEURO = "openneuro.org"
"""Bucket of OpenNeuro, with a folder for each data set."""
TIMEOUT_S = 60
"""Seconds without an answer after which a server counts as unreachable."""
MAX_LIST_BYTES = 1 << 28
"""Bytes of the longest list that is read; NEMAR's of 3,689 files has 2 MB."""
MEGABYTE = 1_000_000
DOWNLOADS_AT_ONCE = 8
GLOBAL = "s3.amazonaws"
"""In the addresses of S3; that of a region has its name in between."""
REGION = "x-amz-bucket-region"
"""Header by which S3 says where a bucket is that is asked for elsewhere."""
REFUSALS = {
    403: "it is not public",
    404: "there is none of this name",
    **dict.fromkeys(BUSY, "the server is busy: try again in some minutes"),
}
"""Meaning of answers."""
DESCRIPTION = "dataset_description.json"
"""File of a BIDS data set that names its licence."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a host.

    Attributes:
        name: Its path in the folder of the data set.
        url: Its address; of the hub's files, the reference of their repository.
        size: Bytes.
        digest: `sha256:`, `md5:` or `git:` and the digest of its content; empty where
            the host gives none.
    """

    name: str
    url: str
    size: int
    digest: str = ""

    def is_in(self, folder: Path) -> bool:
        """Whether a folder holds the file; its content was checked before it got its
        name.
        """
        path = folder / self.name
        return path.is_file() and path.stat().st_size == self.size


def list_files(reference: str) -> list[RemoteFile]:
    """List the files of a data set.

    Args:
        reference: `hub:[datasets/]owner/name[/folder][@revision]`,
            `nemar:ID[/folder][@version]`, `openneuro:ID[/folder]` or
            `s3:bucket/prefix`, where a prefix may be a file.

    Raises:
        MissingData: if the host cannot be reached, or does not have it.
        RecipeError: if it is no such reference.
    """
    host, _, rest = reference.partition(":")
    if host not in LISTERS or not rest.strip("/"):
        raise RecipeError(
            f"no host is known of {reference!r}",
            "nemar:ID, openneuro:ID, s3:BUCKET/PREFIX or hub:datasets/OWNER/NAME",
        )
    files = LISTERS[host](rest.strip("/"))
    for file in files:
        below(Path(), file.name, source=f"the list of {reference}", error=MissingData)
        if host != "hub" and urlsplit(file.url).scheme not in ("http", "https"):
            raise MissingData(
                f"{reference} lists {file.url}, which is no web address",
                "tell its host",
            )
    if not files:
        raise MissingData(f"{reference} has no files", "check the name and the folder")
    return files


def _list_hub(rest: str) -> list[RemoteFile]:
    kind, repository, folder, revision = hub.parse_repository(rest)
    patterns = [f"{folder}/**"] if folder else None
    # the hub's client would create the folder
    with hub.quiet(), TemporaryDirectory() as empty:
        listed = hub.snapshot(
            repository,
            kind,
            revision=revision,
            allow_patterns=patterns,
            dry_run=True,
            local_dir=empty,
        )
    return [
        RemoteFile(file.filename, f"hub:{rest}", file.file_size or 0) for file in listed
    ]


def _list_nemar(rest: str) -> list[RemoteFile]:
    # the index names the versions, and each version's manifest its files
    path, _, version = rest.partition("@")
    identifier, _, folder = path.partition("/")
    server = urljoin(NEMAR, f"{quote(identifier)}/")
    with _asking(server):
        index = json.loads(_read(server))
        tag = version or index["latest"] or "(none is published)"
        manifests = {one["version"]: one["manifest_url"] for one in index["versions"]}
        if tag not in manifests:
            raise MissingData(
                f"{identifier} has no version {tag}",
                f"it has: {', '.join(manifests) or 'none'}",
            )
    url = urljoin(server, manifests[tag])
    with _asking(url):
        entries = json.loads(_read(url))
        entries = entries["files"] if isinstance(entries, dict) else entries
        if unknown := {entry["checksum_algorithm"] for entry in entries} - ALGORITHMS:
            raise ValueError(f"digests by {', '.join(map(str, unknown))}")
        return [
            RemoteFile(
                entry["path"],
                urljoin(url, entry.get("url") or entry["bytes_url"]),
                int(entry["size"]),
                f"{entry['checksum_algorithm']}:{entry['checksum']}",
            )
            for entry in entries
            if not folder or str(entry["path"]).startswith(f"{folder}/")
        ]


def _list_openneuro(rest: str) -> list[RemoteFile]:
    return _list_bucket(OPENNEURO, f"{rest}/", rest.find("/") + 1 or len(rest) + 1)


def _list_s3(rest: str) -> list[RemoteFile]:
    # the prefix of a folder, or else the key of a file; both keep their path
    bucket, _, prefix = rest.partition("/")
    return _list_bucket(bucket, prefix and f"{prefix}/") or [
        file for file in _list_bucket(bucket, prefix) if file.name == prefix
    ]


def _list_bucket(bucket: str, prefix: str, cut: int = 0) -> list[RemoteFile]:
    """List the files of a public bucket whose keys begin with a prefix; their names
    lack the first `cut` characters of the key.
    """
    server = (S3_WITH_DOT if "." in bucket else S3).format(bucket)
    files, token = list[RemoteFile](), ""
    while True:
        # a page has a thousand keys
        url = f"{server}?list-type=2&prefix={quote(prefix, safe='')}"
        if token:
            url += f"&continuation-token={quote(token, safe='')}"
        with _asking(url):
            try:
                content = _read(url)
            except HTTPError as error:
                # a bucket of another region has its own address
                region = error.headers.get(REGION)
                regional = server.replace(GLOBAL, f"s3.{region}.amazonaws")
                if error.code != 301 or regional == server:
                    raise
                server = regional
                continue
            page = ElementTree.fromstring(content)
            for entry in page.iterfind("{*}Contents"):
                key, size, etag = (
                    entry.findtext(f"{{*}}{tag}", "") for tag in ("Key", "Size", "ETag")
                )
                # the tag of a file that was uploaded in parts is no digest of it
                digest = re.fullmatch('"?([0-9a-f]{32})"?', etag)
                # a key with a slash at its end stands for a folder
                if key and size and not key.endswith("/"):
                    url = f"{server}{quote(key)}"
                    known = f"md5:{digest[1]}" if digest else ""
                    files.append(RemoteFile(key[cut:], url, int(size), known))
        token = page.findtext("{*}NextContinuationToken") or ""
        if not token:
            return files


LISTERS: Mapping[str, Callable[[str], list[RemoteFile]]] = {
    "hub": _list_hub,
    "nemar": _list_nemar,
    "openneuro": _list_openneuro,
    "s3": _list_s3,
}


def choose_files(
    files: Sequence[RemoteFile],
    subjects: Mapping[int, object] | list[int] | None = None,
    include: Sequence[str] = (),
) -> list[RemoteFile]:
    """Choose files of some subjects, those of no subject included, that match a
    pattern; a pattern after `!` leaves files out.
    """
    wanted = [pattern for pattern in include if not pattern.startswith("!")] or ["*"]
    unwanted = [pattern[1:] for pattern in include if pattern.startswith("!")]

    def matches(name: str, pattern: str) -> bool:
        # a pattern without a folder is of files in any
        return fnmatch(name if "/" in pattern else name.rpartition("/")[2], pattern)

    def is_chosen(name: str) -> bool:
        # MOSAIC's records have numbers over all of its studies
        match = re.search(r"sub(?:ject|j)?[-_]?(\d+)(_[A-Za-z0-9]+)?", name)
        subject = match and RECORDS.get(match[0], int(match[1]))
        return (
            (subjects is None or match is None or subject in subjects)
            and any(matches(name, pattern) for pattern in wanted)
            and not any(matches(name, pattern) for pattern in unwanted)
        )

    return [file for file in files if is_chosen(file.name)]


def read_licence(reference: str, files: Sequence[RemoteFile]) -> str:
    """Read the licence that a repository's page or a BIDS data set names; empty if none
    is named.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    # a licence is information only, so an unreachable host is no error
    licence: Any = ""
    errors = HfHubHTTPError, HTTPException, OSError, ValueError, LookupError, TypeError
    with suppress(MissingData, *errors):
        if reference.startswith("hub:"):
            kind, name, *_ = hub.parse_repository(reference.removeprefix("hub:"))
            info = HfApi().repo_info(name, repo_type=kind)
            licence = (getattr(info, "card_data", None) or {}).get("license") or ""
        for file in files:
            if file.name == DESCRIPTION:
                licence = json.loads(_read(file.url))["License"]
    return ", ".join(map(str, licence)) if isinstance(licence, list) else str(licence)


def download_files(files: Sequence[RemoteFile], folder: Path) -> None:
    """Download files into a folder; what was interrupted is resumed.

    Raises:
        MissingData: if a host cannot be reached, or has another content.
    """
    # the hub's own client fetches its files, one request for each repository
    repositories = defaultdict[str, list[str]](list)
    rest = []
    for file in files:
        if file.url.startswith("hub:"):
            # file names may hold characters that patterns read as wildcards
            repositories[file.url.removeprefix("hub:")].append(escape(file.name))
        else:
            rest.append(file)
    for reference, names in repositories.items():
        kind, repository, _, revision = hub.parse_repository(reference)
        hub.snapshot(
            repository, kind, revision=revision, local_dir=folder, allow_patterns=names
        )

    # small files wait for answers, so several are fetched at once
    total = sum(file.size for file in rest) // MEGABYTE
    received = 0

    def count(size: int) -> None:
        nonlocal received
        bar.advance((received + size) // MEGABYTE - received // MEGABYTE)
        received += size

    with (
        console.progress("download, MB", total or None) as bar,
        ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool,
    ):
        try:
            list(pool.map(lambda file: _download(file, folder, count), rest))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _download(file: RemoteFile, folder: Path, count: Callable[[int], None]) -> None:
    """Download a file, or what is missing of it; it gets its name when it is whole and
    its content was checked.
    """
    # hosts share the part of a file, whose content is checked at the end
    path = folder / file.name
    part = path.with_name(f"{path.name}.{file.size}{PART}")
    part.parent.mkdir(parents=True, exist_ok=True)
    line = shlex.join(["curl", "-L", "--create-dirs", "-o", str(path), file.url])
    if not file.size:
        part.touch()
    start = -1
    while start < (size := part.stat().st_size if part.exists() else 0) < file.size:
        # ask for what is missing, as long as something comes
        start, request = size, Request(file.url)
        if start:
            request.add_header("Range", f"bytes={start}-")
        try:
            with (
                _asking(file.url, line),
                _open(request) as answer,
                # a server may ignore the range
                part.open("ab" if answer.status == 206 else "wb") as out,
            ):
                # a server may send without end
                room = file.size + 1 - out.tell()
                while block := answer.read(min(MEGABYTE, room)):
                    room -= out.write(block)
                    count(len(block))
        except MissingData as error:
            # the range is not satisfiable where the server's file is shorter
            if getattr(error.__cause__, "code", 0) == 416:
                break
            is_longer = part.exists() and part.stat().st_size > start
            if not (isinstance(error, hub.Unreachable) and is_longer):
                raise

    # the content is known, so anything else that a server sends is refused
    if size != file.size or (file.digest and _digest(part, file.digest) != file.digest):
        part.unlink(missing_ok=True)
        tag = "; a bucket that encrypts may give wrong tags" * (size == file.size)
        raise MissingData(
            f"{file.url} gave {size:,} bytes that are not the known {file.size:,}{tag}",
            f"fetch it again, or by hand: {line}",
        )
    part.replace(path)


def _digest(path: Path, pattern: str) -> str:
    """Digest a file by the algorithm that a digest names."""
    name = algorithm = pattern.partition(":")[0]
    prefix = b""
    if name == "git":  # which digests the size, too
        algorithm, prefix = "sha1", b"blob %d\0" % path.stat().st_size
    with path.open("rb") as file:
        content = hashlib.file_digest(file, partial(hashlib.new, algorithm, prefix))
    return f"{name}:{content.hexdigest()}"


def _read(url: str) -> bytes:
    """Read a list."""
    with _open(Request(url)) as answer:
        return bytes(answer.read(MAX_LIST_BYTES))


def _open(request: Request) -> Any:
    """Open an address; a server that is busy is asked again."""

    def read_answer(error: Exception) -> tuple[int, Any]:
        return (error.code, error.headers) if isinstance(error, HTTPError) else (0, {})

    return ask(partial(urlopen, request, timeout=TIMEOUT_S), read_answer)


@contextmanager
def _asking(url: str, line: str = "") -> Iterator[None]:
    """Turn errors of an answer, or of its absence, into errors of ours."""
    way = f"{hub.ELSEWHERE}{line}" if line else "check the network, or fetch it later"
    try:
        yield
    except HTTPError as error:
        cause = REFUSALS.get(error.code, "")
        if region := error.headers.get(REGION):
            cause = f"the bucket is in the region {region}"
        raise MissingData(
            f"{url} cannot be fetched: {error.code} {error.reason}"
            f"{f', {cause}' if cause else ''}",
            "check the name, or fetch it later, or with another program",
        ) from error
    except (
        OSError,  # as urllib's errors are
        HTTPException,
        LookupError,
        TypeError,
        ValueError,
        ElementTree.ParseError,
    ) as error:
        if bad_proxy := find_bad_proxy(error):
            raise bad_proxy from error
        if isinstance(error, OSError | HTTPException):
            reason = getattr(error, "reason", error)
            raise hub.Unreachable(f"{url} cannot be fetched: {reason}", way) from error
        raise MissingData(
            f"{url} gives another list than its host's: {first_line(error)}",
            "check the name",
        ) from error
