"""Documents in JSON and YAML, anyone's: each is read here, whatever it holds; and the
digests of ours.
"""

import hashlib
import re
from collections.abc import Container, Hashable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files import (
    TRACKER_PREFIXES,
    atomic_write,
    is_file,
    open_regular,
    read_lines,
    read_regular,
)

T = TypeVar("T")
AGAIN = "copy it again, or delete it and run the command that made it again"
"""Way out of a damaged document of ours."""
DOWNLOAD = "download it again"
"""Way out of a damaged document of another project."""
MAX_DOCUMENT_BYTES = {".json": 64 << 20, ".yaml": 1 << 18}
"""Bytes of the largest document that is read by default; so much YAML takes two
seconds.
"""
MAX_SHOWN_CHARACTERS = 300
"""Characters of a value or reason that a message shows."""
SHA256SUMS = "SHA256SUMS"
"""The list that a finished run carries: the digests of its documents, as `sha256sum -c`
reads them.
"""
DOCUMENTS = {".json", ".yaml", ".csv", ".html"}
"""The files of a run that have a digest there; weights and stores carry their own."""
RUN = ("recipe.yaml", "metrics.json")
"""Files of a run, of which one must lie next to a list: a list elsewhere governs none
of its documents.
"""
MAX_FOLDERS_ABOVE = 6
"""Folders above a document that may have the list:
`run/cells/VARIANT/CELL/model/config.json` needs five.
"""
CHANGED = f"was changed or damaged: {SHA256SUMS} has another digest of it"
"""Problem of a document that differs from its digest, to follow its path."""
COPY_AGAIN = "copy it again, or run its command with --again, which keeps this run"
"""Way out of a document that differs from its digest: evidence stays."""
MAX_LIST_BYTES = 1 << 24
DIGEST_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def read(
    path: Path,
    kind: type[T] | TypeAdapter[T] = dict[str, Any],  # type: ignore[assignment]
    hint: str = AGAIN,
    error: type[BrainhiveError] = BrainhiveError,
    *,
    is_yaml: bool | None = None,
    most: int = 0,
    has_nan: bool = False,
) -> T:
    """Read one document, and check its type and, if a SHA256SUMS lists it, its digest.

    Args:
        path: The file.
        kind: What it holds: a pydantic model, or any type that pydantic checks.
        hint: What to do if it is damaged.
        error: What is raised if it is damaged.
        is_yaml: Whether it is YAML, not JSON; None: if it is called .yaml.
        most: Bytes that it may have; 0 for the default of its format.
        has_nan: Whether JSON may hold NaN.

    Raises:
        MissingData: if there is no such file.
        BrainhiveError: `error`, with path and key, if it is too large, changed, or does
            not hold a `kind`.
    """
    if not is_file(path):
        raise MissingData(f"there is no file {path}", hint)

    # its bytes, at most so many
    is_yaml = path.suffix == ".yaml" if is_yaml is None else is_yaml
    most = most or MAX_DOCUMENT_BYTES[".yaml" if is_yaml else ".json"]
    try:
        content = read_regular(path, most)
    except PermissionError:
        raise
    except OSError as reason:
        # of a damaged disk, a file that is too large, or a link to what is no file
        raise error(f"{path} cannot be read: {reason.strerror}", hint) from reason

    # the digest that a list in its folder, or in one above, has of it
    absolute = path.absolute()
    for above in absolute.parents[:MAX_FOLDERS_ABOVE]:
        known = read_digests(above).get(absolute.relative_to(above).as_posix())
        if known and any((above / name).is_file() for name in RUN):
            if hashlib.sha256(content).hexdigest() != known:
                raise error(f"{path} {CHANGED}", COPY_AGAIN)
            break

    # bytes to text, text to values
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"{path} is not a text in UTF-8: {reason}", hint) from reason
    del content  # a large one is not kept twice
    return parse(text, str(path), kind, hint, error, is_yaml=is_yaml, has_nan=has_nan)


def read_download(path: Path) -> dict[str, Any]:
    """Read a document of another project; MissingData if it is absent or damaged."""
    return read(path, hint=DOWNLOAD, error=MissingData)


def parse(
    text: str,
    where: str,
    kind: type[T] | TypeAdapter[T] = dict[str, Any],  # type: ignore[assignment]
    hint: str = AGAIN,
    error: type[BrainhiveError] = BrainhiveError,
    *,
    is_yaml: bool = False,
    has_nan: bool = False,
) -> T:
    """Read a document that is a string, as `read` does; `where` names it in the
    message.
    """
    try:
        # Python writes Infinity, which configs hold, and NaN, which is no number
        value = (
            _parse_yaml(text)
            if is_yaml
            else from_json(text, allow_inf_nan=has_nan or "NaN" not in text)
        )
    except (
        yaml.YAMLError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as reason:
        why = (
            " ".join(str(reason).split())[:MAX_SHOWN_CHARACTERS]
            or type(reason).__name__
        )
        raise error(
            f"{where} is not valid {'YAML' if is_yaml else 'JSON'}: {why}", hint
        ) from reason
    return check(value, where, kind, hint, error)


def check(
    value: Any,
    where: str,
    kind: type[T] | TypeAdapter[T],
    hint: str = AGAIN,
    error: type[BrainhiveError] = BrainhiveError,
) -> T:
    """Check plain values, wherever they come from, against a type."""
    try:
        # a type checks plain values; its adapter is built once
        adapter = (
            kind if isinstance(kind, TypeAdapter) else _adapter(cast(Hashable, kind))
        )
        return adapter.validate_python(value)
    except ValidationError as reason:
        # the first problem: key, reason, value
        first = reason.errors()[0]
        path = ".".join(map(str, first["loc"]))
        key = f"{path}: " if path else ""
        # pydantic's mark of what our own checks say
        message = first["msg"].removeprefix("Value error, ")
        got = (
            "" if first["type"] == "missing" else f", got {show_value(first['input'])}"
        )
        raise error(f"{where}: {key}{message}{got}", hint) from reason
    except BrainhiveError as reason:  # of checks of our own, which do not know the file
        if type(reason) not in (BrainhiveError, RecipeError):
            raise
        raise error(f"{where}: {reason.message}", reason.hint or hint) from reason


def require_schema(document: Mapping[str, Any], known: int, what: str) -> None:
    """Refuse a document of another schema; `what` begins the message."""
    schema = document.get("schema")
    if schema != known:
        raise BrainhiveError(
            f"{what} of schema {show_value(schema)}, this version reads {known}",
            "run its command again with --again",
        )


def show_value(value: Any) -> str:
    """Write a value for a message, cut where it is long."""
    # one line, whatever line breaks the value has
    text = " ".join(repr(value).split())
    if len(text) <= MAX_SHOWN_CHARACTERS:
        return text
    return f"{text[:MAX_SHOWN_CHARACTERS]}…"


_adapter = cache(TypeAdapter)
PLAIN = [
    f"tag:yaml.org,2002:{kind}"
    for kind in ("null", "bool", "int", "float", "str", "seq", "map")
]
"""Tags of YAML's types that JSON has too."""
CONSTRUCTORS = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in (None, *PLAIN)}
RESOLVERS = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
"""Types of what is not in quotes: dates stay texts."""


class _Loader(yaml.CSafeLoader):
    """YAML with JSON's types only."""

    yaml_constructors = CONSTRUCTORS
    yaml_implicit_resolvers = RESOLVERS


def _parse_yaml(text: str) -> Any:
    """Read YAML; what YAML allows and no recipe needs is refused before a value is
    made.
    """
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        # level by level: aliases may repeat a node, and a document holds no more nodes
        # than letters
        level = [] if root is None else [root]
        count = 0
        while level:
            below: list[Any] = []
            for node in level:
                if isinstance(node, yaml.MappingNode):
                    _check_keys(node)
                    below += [part for pair in node.value for part in pair]
                elif isinstance(node, yaml.SequenceNode):
                    below += node.value
                if count + len(below) > len(text):
                    raise ValueError("its aliases repeat too much")
            level = below
            count += len(below)
        return None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def _check_keys(mapping: yaml.MappingNode) -> None:
    """Refuse a mapping with a key that is no text, or that stands twice: YAML would
    keep the last.
    """
    first: dict[tuple[str, str], Any] = {}
    for key, _ in mapping.value:
        # `<<`, which merges another mapping, has a tag of its own
        if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            raise ValueError(
                f"the key in line {key.start_mark.line + 1} is not a text: put it in "
                "quotes"
            )
        other = first.setdefault((key.tag, key.value), key)
        if other is not key:
            lines = " and ".join(
                str(mark.line + 1) for mark in (other.start_mark, key.start_mark)
            )
            raise ValueError(
                f"key {show_value(key.value)} appears twice, in lines {lines}"
            )


def write_digests(folder: Path, listed: Mapping[str, str]) -> None:
    """Write digests by name as a folder's list, under the final name only when
    complete.
    """
    with atomic_write(folder / SHA256SUMS) as part:
        part.write_text(
            "".join(f"{listed[name]}  {name}\n" for name in sorted(listed)), "utf-8"
        )
    # size and time alone do not tell two writes within one tick of the clock
    _parsed.cache_clear()


def find_changes(folder: Path, but: Container[str] = ()) -> Iterator[str]:
    """Compare all files of a list with it: yield what is wrong with each that is
    missing or differs.

    Args:
        folder: The folder that has the list.
        but: Names that are written again, or endings of which the content is checked
            elsewhere.
    """
    for name, listed_digest in read_digests(folder).items():
        path = folder / name
        if name in but:
            continue
        if not path.is_file():
            yield f"{path} is missing"
        elif path.suffix not in but and digest_file(path) != listed_digest:
            yield f"{path} {CHANGED}"


def list_documents(folder: Path) -> Iterator[str]:
    """Name the documents below a folder that a list should have, in order."""
    for path in list_files(folder):
        if path.suffix in DOCUMENTS:
            yield path.relative_to(folder).as_posix()


def list_files(folder: Path) -> Iterator[Path]:
    """List the files of a run, in order."""
    for path in sorted(folder.rglob("*.*")):
        parts = path.relative_to(folder).parts
        # locks and unfinished files
        is_hidden = any(part.startswith(".") for part in parts)
        if (
            not is_hidden
            and not parts[0].startswith(TRACKER_PREFIXES)
            and path.is_file()
        ):
            yield path


def read_digests(folder: Path) -> Mapping[str, str]:
    """Read a folder's list: digests by name; empty where there is none."""
    # a list is parsed again only when it was changed
    path = folder / SHA256SUMS
    if not path.is_file() or (about := path.stat()).st_size > MAX_LIST_BYTES:
        return {}
    return _parsed(path.absolute(), about.st_mtime_ns, about.st_size)


def digest_text(text: str) -> str:
    """Digest a text (sha256, hexadecimal), of which names take the first digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: Path) -> str:
    """Digest a file (sha256, hexadecimal)."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _parsed(path: Path, mtime_ns: int, size: int) -> Mapping[str, str]:
    """Parse a list once for each time that it was changed; it is looked up for each
    document.
    """
    lines = read_lines(path, MAX_LIST_BYTES, "replace")
    return {line[2]: line[1] for line in map(DIGEST_LINE.fullmatch, lines) if line}
