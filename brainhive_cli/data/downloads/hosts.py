"""Lists of the files of data sets on the hub, NEMAR, OpenNeuro and S3."""

import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from http.client import HTTPException, InvalidURL
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote, urljoin
from urllib.request import Request
from xml.etree import ElementTree

from pydantic import BaseModel, Field

from brainhive_cli.core.base import MissingData, RecipeError, first_line
from brainhive_cli.core.files import (
    BUSY_STATUSES,
    documents,
    find_bad_proxy,
    hub,
    is_web_address,
    open_web,
    resolve_below,
)
from brainhive_cli.data.files import RECORDS

Document = TypeVar("Document")
NEMAR = "https://data.nemar.org/"
S3 = "https://{}.s3.amazonaws.com/"
"""Address of a bucket. Its certificate excludes names with a dot."""
S3_WITH_DOT = "https://s3.amazonaws.com/{}/"
"""Address of a bucket whose name has a dot."""
S3_HOST = "s3.amazonaws"
REGION_HEADER = "x-amz-bucket-region"
"""Header in which S3 names the region of a bucket that it redirects to."""
MAX_LIST_BYTES = 1 << 26
"""Largest size of a list. NEMAR's list of 3,689 files has 2 MB."""
MAX_PAGES = 2_000
"""Largest number of pages in the list of a bucket. A page has 1,000 files."""
DESCRIPTION_FILE = "dataset_description.json"
"""File of a BIDS data set that names its licence."""
ETAG = "etag"
"""Algorithm of digests that are not computed from the content, but change with it."""
HOST_HINT = "check the name, or tell its host"


NOTES_FILE = ".fetched.jsonl"
"""File with a line for each checked file. The last line of a file counts."""


@dataclass(frozen=True)
class RemoteFile:
    """File on a host.

    Attributes:
        name: Path in the folder of the data set.
        url: Address, or reference of the repository for the hub.
        size: Size in bytes.
        digest: Digest such as "sha256:1544e7…", by `sha256`, `md5`, `git` or `etag`, or
            "" if the host has none.
        version: Data set and version such as "nemar:nm000232@2", or "" if the host has
            no versions.
    """

    name: str
    url: str
    size: int
    digest: str = ""
    version: str = ""

    @property
    def algorithm(self) -> str:
        """Algorithm of the digest."""
        return self.digest.partition(":")[0]

    @property
    def is_hashed(self) -> bool:
        """True if the digest can be computed from the content."""
        return self.algorithm not in ("", ETAG)

    @property
    def data_set(self) -> str:
        """Data set without its version."""
        return self.version.partition("@")[0]


class _NemarVersion(BaseModel):
    """Version of a data set of NEMAR."""

    version: str
    manifest_url: str


class _NemarIndex(BaseModel):
    """Versions of a data set of NEMAR."""

    latest: str | None = None
    versions: list[_NemarVersion]


class _NemarFile(BaseModel):
    """File in the manifest of a version of NEMAR."""

    path: str
    url: str | None = None
    bytes_url: str = ""
    size: Annotated[int, Field(strict=True)]
    checksum_algorithm: Literal["sha256", "md5", "git"]
    checksum: str


def list_files(reference: str) -> list[RemoteFile]:
    """List the files of a data set.

    Args:
        reference: `hub:[datasets/]owner/name[/folder][@revision]`,
            `nemar:ID[/folder][@version]`, `openneuro:ID[/folder]`, or
            `s3:bucket/prefix` with a folder or file as prefix.

    Raises:
        MissingData: if the host cannot be reached or has no such files.
        RecipeError: if the reference has another form.
    """
    host, _, path = reference.partition(":")
    path = path.strip("/")
    if host not in LISTERS or not path:
        raise RecipeError(
            f"{reference!r} names no data set of a known host",
            "nemar:ID, openneuro:ID, s3:BUCKET/PREFIX or hub:datasets/OWNER/NAME",
        )
    files = LISTERS[host](path)
    names: set[str] = set()
    for file in files:
        resolve_below(
            Path(), file.name, source=f"the list of {reference}", error=MissingData
        )
        problem = ""
        if host != "hub" and not is_web_address(file.url):
            problem = f"{file.url!r}, which is no web address"
        elif not 0 <= file.size <= sys.maxsize:
            problem = f"{file.name} with {documents.show_value(file.size)} bytes"
        elif file.name in names:
            problem = f"{file.name} twice"
        elif file.name == NOTES_FILE:
            problem = f"{file.name}, which Brainhive writes itself"
        if problem:
            raise MissingData(f"{reference} lists {problem}", "tell its host")
        names.add(file.name)
    if not files:
        raise MissingData(f"{reference} has no files", "check the name and the folder")
    return files


def choose_files(
    files: Sequence[RemoteFile],
    subjects: Collection[int] | None = None,
    include: Sequence[str] = (),
) -> list[RemoteFile]:
    """Select files by subjects and patterns.

    Args:
        files: Files of a data set.
        subjects: Subjects to select, or None for all. They do not exclude files without
            a subject in their name.
        include: Patterns such as "sub-*/**". "!" before a pattern excludes files.
    """
    patterns = []
    excluded_patterns = []
    for pattern in include:
        if pattern.startswith("!"):
            excluded_patterns.append(pattern[1:])
        else:
            patterns.append(pattern)
    selected_files = []
    for file in files:
        is_included = _matches_any(file.name, patterns or ["*"])
        is_excluded = _matches_any(file.name, excluded_patterns)
        subject = _parse_subject(file.name)
        has_subject = subjects is None or subject is None or subject in subjects
        if has_subject and is_included and not is_excluded:
            selected_files.append(file)
    return selected_files


def read_licence(reference: str, files: Sequence[RemoteFile]) -> str:
    """Read the licence of a repository or BIDS data set, or return an empty text."""
    from huggingface_hub import HfApi

    # the licence is only shown, so no answer of a host is an error
    licences: list[str] = []
    with suppress(Exception):
        if reference.startswith("hub:"):
            repository = hub.Repository.parse(reference)
            info: Any = HfApi().repo_info(repository.name, repo_type=repository.type)
            licences = _Licence(License=info.card_data["license"]).names
        for file in files:
            if file.name == DESCRIPTION_FILE:
                licences = _read_json(file.url, _Licence).names
    return ", ".join(licences)[: documents.MAX_SHOWN_CHARACTERS]


def open_url(url: str, start: int = 0) -> Any:
    """Request an address from a byte on, as `open_web` does."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    # lists of hosts may hold letters that addresses write as %C3%A9
    address = quote(url, safe="".join(map(chr, range(128))))
    timeout_s = 60
    return open_web(Request(address, headers=headers), timeout_s)


@contextmanager
def report_host_errors(url: str, command: str = "") -> Iterator[None]:
    """Raise errors of requests and responses with a hint, as a context manager.

    Args:
        url: Address of the request.
        command: Command that downloads the file in another way, for the hint.

    Raises:
        MissingData: if the host refuses, or if its response cannot be read.
        hub.Unreachable: if the host does not respond.
    """
    try:
        yield
    except HTTPError as error:
        status_meanings = {
            403: "it is not public",
            404: "it does not exist",
            **dict.fromkeys(
                BUSY_STATUSES, "the server is busy: try again in some minutes"
            ),
        }
        reason = status_meanings.get(error.code, "")
        region = error.headers.get(REGION_HEADER)
        if region:
            reason = f"the bucket is in the region {region}"
        problem = f"{url} cannot be fetched: {first_line(error)}"
        if reason:
            problem += f", {reason}"
        raise MissingData(
            problem, "check the name, or fetch it later, or with another program"
        ) from error
    except (
        OSError,
        HTTPException,
        ValueError,
        LookupError,  # unknown encoding
        ElementTree.ParseError,
    ) as error:
        bad_proxy = find_bad_proxy(error)
        if bad_proxy:
            raise bad_proxy from error

        # an invalid address is an HTTPException, but no problem of the network
        is_network_error = isinstance(error, OSError | HTTPException)
        if is_network_error and not isinstance(error, InvalidURL):
            cause = getattr(error, "reason", error)
            hint = "check the network, or fetch it later"
            if command:
                hint = f"{hub.DOWNLOAD_ELSEWHERE}{command}"
            raise hub.Unreachable(f"{url} cannot be fetched: {cause}", hint) from error
        raise MissingData(
            f"{url} cannot be read: {first_line(error)}", HOST_HINT
        ) from error


def _matches_any(name: str, patterns: Sequence[str]) -> bool:
    """Return True if a path, or its last part for patterns without /, matches."""
    base_name = name.rpartition("/")[2]
    return any(
        fnmatch(name if "/" in pattern else base_name, pattern) for pattern in patterns
    )


def _parse_subject(name: str) -> int | None:
    """Parse the subject in a path, or the number of a record of MOSAIC."""
    # Subject in a file name: its number, and the study of a record of MOSAIC.
    match = re.search(r"sub(?:ject|j)?[-_]?(\d{1,18})(_[A-Za-z0-9]+)?", name)
    return RECORDS.get(match[0], int(match[1])) if match else None


def _list_hub(path: str) -> list[RemoteFile]:
    """List the files of a repository of the hub at its present commit."""
    repository = hub.Repository.parse(path)
    # the client of the hub would create the folder
    with hub.silence_hub(), TemporaryDirectory() as empty_folder:
        hub_files = repository.snapshot(
            repository.prefix(["**"]), dry_run=True, local_dir=empty_folder
        )
    if not hub_files:
        return []
    commit = hub_files[0].commit_hash
    digests = repository._replace(revision=commit).list_digests()
    return [
        RemoteFile(
            name=file.filename,
            url=f"hub:{path.partition('@')[0]}@{commit}",
            size=file.file_size or 0,
            digest=digests.get(file.filename, ""),
            version=f"hub:{repository.type}/{repository.name}@{commit}",
        )
        for file in hub_files
    ]


def _list_nemar(path: str) -> list[RemoteFile]:
    """List the files of a version of a data set, the latest by default.

    An index names a manifest for each version. The manifest lists the files.
    """
    data_set, _, version = path.partition("@")
    identifier, _, folder = data_set.partition("/")
    server = urljoin(NEMAR, f"{quote(identifier)}/")
    index = _read_json(server, _NemarIndex)
    version = version or index.latest or "(none is published)"
    manifests = {item.version: item.manifest_url for item in index.versions}
    if version not in manifests:
        raise MissingData(
            f"{identifier} has no version {version}",
            f"it has: {', '.join(manifests) or 'none'}",
        )
    with report_host_errors(server):
        url = urljoin(server, manifests[version])
    content = _read_json(url, object)
    entries = content.get("files") if isinstance(content, dict) else content
    files = []
    with report_host_errors(url):
        for entry in documents.check(
            entries, url, list[_NemarFile], HOST_HINT, MissingData
        ):
            if not folder or entry.path.startswith(f"{folder}/"):
                file = RemoteFile(
                    name=entry.path,
                    url=urljoin(url, entry.url or entry.bytes_url),
                    size=entry.size,
                    digest=f"{entry.checksum_algorithm}:{entry.checksum.lower()}",
                    version=f"nemar:{identifier}@{version}",
                )
                files.append(file)
    return files


def _list_openneuro(path: str) -> list[RemoteFile]:
    """List the files of a data set, with names below its folder."""
    identifier = path.partition("/")[0]
    # Bucket of OpenNeuro, which holds a folder for each data set.
    return _list_bucket("openneuro.org", f"{path}/", n_removed=len(identifier) + 1)


def _list_s3(path: str) -> list[RemoteFile]:
    """List the files of a folder of a bucket, or a single file, named by their keys."""
    bucket, _, prefix = path.partition("/")
    files = _list_bucket(bucket, f"{prefix}/" if prefix else "")
    if files:
        return files
    return [file for file in _list_bucket(bucket, prefix) if file.name == prefix]


def _list_bucket(bucket: str, prefix: str, n_removed: int = 0) -> list[RemoteFile]:
    """List the files of a public bucket whose keys begin with a prefix.

    Args:
        bucket: Name of the bucket.
        prefix: Start of the keys.
        n_removed: Number of characters to remove at the start of each key.
    """
    server = (S3_WITH_DOT if "." in bucket else S3).format(quote(bucket, safe=""))
    files = []
    keys: set[str] = set()
    token = ""
    for _ in range(MAX_PAGES):
        url = f"{server}?list-type=2&prefix={quote(prefix, safe='')}"
        if token:
            url += f"&continuation-token={quote(token, safe='')}"
        with report_host_errors(url):
            try:
                content = _read_bytes(url)
            except HTTPError as error:
                # a bucket of another region has its own address
                region = error.headers.get(REGION_HEADER) or ""
                regional_server = server.replace(S3_HOST, f"s3.{region}.amazonaws")
                is_name = re.fullmatch("[a-z0-9-]+", region)
                if error.code != 301 or regional_server == server or not is_name:
                    raise
                server = regional_server
                continue
            parser = ElementTree.XMLParser(target=_PlainTree())
            page = ElementTree.fromstring(content, parser)
            n_previous_keys = len(keys)
            for entry in page.iterfind("{*}Contents"):
                key = entry.findtext("{*}Key", "")
                size = entry.findtext("{*}Size", "")
                etag = entry.findtext("{*}ETag", "").strip('"')
                keys.add(key)
                # a key with a slash at its end stands for a folder
                if key and size and not key.endswith("/"):
                    # the tag of a file in several uploads is no MD5
                    is_md5 = re.fullmatch("[0-9a-f]{32}", etag)
                    algorithm = "md5" if is_md5 else ETAG
                    file = RemoteFile(
                        name=key[n_removed:],
                        url=f"{server}{quote(key)}",
                        size=int(size),
                        digest=f"{algorithm}:{etag}" if etag else "",
                    )
                    files.append(file)
        token = page.findtext("{*}NextContinuationToken") or ""
        if not token:
            return files
        if len(keys) == n_previous_keys:
            break
    raise MissingData(
        f"the list of {server} does not end after {len(keys):,} files",
        "name a folder of it, or tell its host",
    )


LISTERS: Mapping[str, Callable[[str], list[RemoteFile]]] = {
    "hub": _list_hub,
    "nemar": _list_nemar,
    "openneuro": _list_openneuro,
    "s3": _list_s3,
}
"""Function by host that lists the files of a reference without the host."""


class _PlainTree(ElementTree.TreeBuilder):
    """Parsed document without declarations, which could define growing entities."""

    def doctype(self, *_: object) -> None:
        """Refuse a declaration."""
        raise ValueError("it declares a document type")


class _Licence(BaseModel):
    """Licence in a description of a data set."""

    License: str | list[str]

    @property
    def names(self) -> list[str]:
        """Names of the licence."""
        return [self.License] if isinstance(self.License, str) else self.License


def _read_bytes(url: str) -> bytes:
    """Read a list of at most `MAX_LIST_BYTES`."""
    with open_url(url) as response:
        content = bytes(response.read(MAX_LIST_BYTES + 1))
    if len(content) > MAX_LIST_BYTES:
        raise ValueError(f"it is longer than {MAX_LIST_BYTES:,} bytes")
    return content


def _read_json(url: str, model: type[Document]) -> Document:
    """Read a JSON list and validate it."""
    with report_host_errors(url):
        text = _read_bytes(url).decode("utf-8-sig")
    return documents.parse(text, url, model, HOST_HINT, MissingData)
