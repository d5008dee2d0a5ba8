"""Lists of the files that hosts of data sets have: the hub, NEMAR, OpenNeuro, S3."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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

from brainhive_cli.core import documents, hub
from brainhive_cli.core.errors import MissingData, RecipeError, first_line
from brainhive_cli.core.files import resolve_below
from brainhive_cli.core.network import (
    BUSY_STATUSES,
    find_bad_proxy,
    is_web_address,
    open_web,
)
from brainhive_cli.data.files.subjects import RECORDS

Document = TypeVar("Document")
NEMAR = "https://data.nemar.org/"
# the certificate of the first form has no bucket whose name has a dot
S3 = "https://{}.s3.amazonaws.com/"
S3_WITH_DOT = "https://s3.amazonaws.com/{}/"
OPENNEURO = "openneuro.org"
"""Bucket of OpenNeuro, with a folder for each data set."""
TIMEOUT_S = 60
"""Seconds without an answer after which a server counts as unreachable."""
MAX_LIST_BYTES = 1 << 26
"""Bytes of the longest list that is read; NEMAR's of 3,689 files has 2 MB."""
MAX_PAGES = 2_000
"""Pages of the longest list of a bucket; each has a thousand files."""
GLOBAL = "s3.amazonaws"
"""In the addresses of S3; that of a region has its name in between."""
REGION = "x-amz-bucket-region"
"""Header by which S3 says where a bucket is that is asked for elsewhere."""
REFUSALS = {
    403: "it is not public",
    404: "there is none of this name",
    **dict.fromkeys(BUSY_STATUSES, "the server is busy: try again in some minutes"),
}
"""Meaning of answers."""
DESCRIPTION_FILE = "dataset_description.json"
"""File of a BIDS data set that names its licence."""
ETAG = "etag"
"""In the place of a digest's algorithm: the content has another tag in each version."""
FAULTY = "check the name, or tell its host"
"""Way out of a list that is none."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a host.

    Attributes:
        name: Its path in the folder of the data set.
        url: Its address; of the hub's files, the reference of their repository.
        size: Bytes.
        digest: `sha256:`, `md5:` or `git:` and the digest of its content; or `etag:`
            and a tag that changes with the content; empty where the host gives neither.
        version: The data set and its version, as `nemar:ID@2`; empty where the host has
            no versions.
    """

    name: str
    url: str
    size: int
    digest: str = ""
    version: str = ""


class _Version(BaseModel):
    """A version of a data set of NEMAR."""

    version: str
    manifest_url: str


class _Index(BaseModel):
    """The versions of a data set of NEMAR."""

    latest: str | None = None
    versions: list[_Version]


class _Entry(BaseModel):
    """A file in the manifest of a version."""

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
    names = set[str]()
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
        if problem:
            raise MissingData(f"{reference} lists {problem}", "tell its host")
        names.add(file.name)
    if not files:
        raise MissingData(f"{reference} has no files", "check the name and the folder")
    return files


def _list_hub(rest: str) -> list[RemoteFile]:
    kind, repository, folder, revision = hub.parse_repository(rest)
    patterns = [f"{folder}/**"] if folder else None
    # the hub's client would create the folder
    with hub.silence_hub(), TemporaryDirectory() as empty:
        listed = hub.snapshot(
            repository,
            kind,
            revision=revision,
            allow_patterns=patterns,
            dry_run=True,
            local_dir=empty,
        )
    if not listed:
        return []
    # files are fetched of the commit that was listed
    commit = listed[0].commit_hash
    pinned = f"hub:{rest.partition('@')[0]}@{commit}"
    digests = hub.list_digests(repository, kind, commit)
    return [
        RemoteFile(
            name=file.filename,
            url=pinned,
            size=file.file_size or 0,
            digest=digests.get(file.filename, ""),
            version=f"hub:{kind}/{repository}@{commit}",
        )
        for file in listed
    ]


def _list_nemar(rest: str) -> list[RemoteFile]:
    # the index names the versions, and each version's manifest its files
    path, _, version = rest.partition("@")
    identifier, _, folder = path.partition("/")
    server = urljoin(NEMAR, f"{quote(identifier)}/")
    index = _read_json(server, _Index)
    tag = version or index.latest or "(none is published)"
    manifests = {item.version: item.manifest_url for item in index.versions}
    if tag not in manifests:
        raise MissingData(
            f"{identifier} has no version {tag}",
            f"it has: {', '.join(manifests) or 'none'}",
        )
    with report_host_errors(server):
        url = urljoin(server, manifests[tag])
    content = _read_json(url, object)
    entries = content.get("files") if isinstance(content, dict) else content
    with report_host_errors(url):
        return [
            RemoteFile(
                name=entry.path,
                url=urljoin(url, entry.url or entry.bytes_url),
                size=entry.size,
                digest=f"{entry.checksum_algorithm}:{entry.checksum.lower()}",
                version=f"nemar:{identifier}@{tag}",
            )
            for entry in documents.check(
                entries, url, list[_Entry], FAULTY, MissingData
            )
            if not folder or entry.path.startswith(f"{folder}/")
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
    server = (S3_WITH_DOT if "." in bucket else S3).format(quote(bucket, safe=""))
    files = list[RemoteFile]()
    keys = set[str]()
    token = ""
    for _ in range(MAX_PAGES):
        # a page has a thousand keys
        url = f"{server}?list-type=2&prefix={quote(prefix, safe='')}"
        if token:
            url += f"&continuation-token={quote(token, safe='')}"
        with report_host_errors(url):
            try:
                content = _read(url)
            except HTTPError as error:
                # a bucket of another region has its own address
                region = error.headers.get(REGION) or ""
                regional = server.replace(GLOBAL, f"s3.{region}.amazonaws")
                is_name = re.fullmatch("[a-z0-9-]+", region)
                if error.code != 301 or regional == server or not is_name:
                    raise
                server = regional
                continue
            parser = ElementTree.XMLParser(target=_PlainTree())
            page = ElementTree.fromstring(content, parser)
            previous_keys = len(keys)
            for entry in page.iterfind("{*}Contents"):
                key, size, etag = (
                    entry.findtext(f"{{*}}{tag}", "") for tag in ("Key", "Size", "ETag")
                )
                keys.add(key)
                # a key with a slash at its end stands for a folder
                if key and size and not key.endswith("/"):
                    # the tag of a file that was uploaded in parts is no digest of it
                    tag = etag.strip('"')
                    kind = "md5" if re.fullmatch("[0-9a-f]{32}", tag) else ETAG
                    files.append(
                        RemoteFile(
                            name=key[cut:],
                            url=f"{server}{quote(key)}",
                            size=int(size),
                            digest=f"{kind}:{tag}" if tag else "",
                        )
                    )
        token = page.findtext("{*}NextContinuationToken") or ""
        if not token:
            return files
        if len(keys) == previous_keys:
            break
    raise MissingData(
        f"{server} does not end its list, after {len(keys):,} files",
        "name a folder of it, or tell its host",
    )


class _PlainTree(ElementTree.TreeBuilder):
    """Elements of a document that declares nothing, as entities that grow."""

    def doctype(self, *_: object) -> None:
        """Refuse declarations, which no list has."""
        raise ValueError("it declares a document type")


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
        match = re.search(r"sub(?:ject|j)?[-_]?(\d{1,18})(_[A-Za-z0-9]+)?", name)
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

    # a licence is information only, so whatever a host answers is no error
    licences: list[str] = []
    with suppress(Exception):
        if reference.startswith("hub:"):
            kind, name, *_ = hub.parse_repository(reference.removeprefix("hub:"))
            info: Any = HfApi().repo_info(name, repo_type=kind)
            licences = _Licence(License=info.card_data["license"]).names
        for file in files:
            if file.name == DESCRIPTION_FILE:
                licences = _read_json(file.url, _Licence).names
    return ", ".join(licences)[: documents.MAX_SHOWN_CHARACTERS]


class _Licence(BaseModel):
    """The licence in a description of a data set."""

    License: str | list[str]

    @property
    def names(self) -> list[str]:
        """Its names; a description may have several."""
        return [self.License] if isinstance(self.License, str) else self.License


def _read(url: str) -> bytes:
    """Read a list."""
    with open_url(url) as answer:
        content = bytes(answer.read(MAX_LIST_BYTES + 1))
    if len(content) > MAX_LIST_BYTES:
        raise ValueError(f"it is longer than {MAX_LIST_BYTES:,} bytes")
    return content


def _read_json(url: str, kind: type[Document]) -> Document:
    """Read a list in JSON."""
    with report_host_errors(url):
        text = _read(url).decode("utf-8-sig")
    return documents.parse(text, url, kind, FAULTY, MissingData)


def open_url(url: str, start: int = 0) -> Any:
    """Ask for what has an address, from a byte on; see `open_web`."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    return open_web(Request(url, headers=headers), TIMEOUT_S)


@contextmanager
def report_host_errors(url: str, line: str = "") -> Iterator[None]:
    """Turn errors of an answer, or of its absence, into errors of ours."""
    way = (
        f"{hub.DOWNLOAD_ELSEWHERE}{line}"
        if line
        else "check the network, or fetch it later"
    )
    try:
        yield
    except HTTPError as error:
        cause = REFUSALS.get(error.code, "")
        if region := error.headers.get(REGION):
            cause = f"the bucket is in the region {region}"
        raise MissingData(
            f"{url} cannot be fetched: {first_line(error)}"
            f"{f', {cause}' if cause else ''}",
            "check the name, or fetch it later, or with another program",
        ) from error
    except (
        OSError,
        HTTPException,
        ValueError,
        LookupError,  # of an encoding that nobody knows
        ElementTree.ParseError,
    ) as error:
        if bad_proxy := find_bad_proxy(error):
            raise bad_proxy from error
        # errors of urllib are of the system; an address may be none
        if isinstance(error, OSError | HTTPException) and not isinstance(
            error, InvalidURL
        ):
            reason = getattr(error, "reason", error)
            raise hub.Unreachable(f"{url} cannot be fetched: {reason}", way) from error
        raise MissingData(
            f"{url} cannot be read: {first_line(error)}", FAULTY
        ) from error
