"""Reader of JSON and YAML documents, which checks their types and digests.

A finished run has a file `SHA256SUMS`, which lists the digests of its documents. Such a
file is called a list below.
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
DAMAGED_HINT = "copy it again, or delete it and run the command that made it again"
"""Hint for a damaged document that a command of ours has written."""
DOWNLOAD_HINT = "download it again"
"""Hint for a damaged document of another project."""
MAX_DOCUMENT_BYTES = {".json": 64 << 20, ".yaml": 1 << 18}
"""Default size limit of a document, by format. YAML of this size takes two seconds."""
MAX_SHOWN_CHARACTERS = 300
"""Longest value or reason in a message. Longer ones are cut."""
SHA256SUMS = "SHA256SUMS"
"""File of a finished run with the digests of its documents, in the format of `sha256sum
-c`.
"""
DIGESTED_SUFFIXES = {".json", ".yaml", ".csv", ".html"}
"""Suffixes of the files that this list covers. Weights and stores carry their own
digests.
"""
RUN_FILES = ("recipe.yaml", "metrics.json")
"""Files that mark the folder of a run. A list counts only next to such a file."""
MAX_FOLDERS_ABOVE = 6
"""Number of parent folders of a document that are searched for a list. The document
`run/cells/VARIANT/CELL/model/config.json` needs five.
"""
CHANGED_PROBLEM = f"was changed or damaged: {SHA256SUMS} has another digest of it"
"""Second half of a message on a document that differs from its digest, after the path.
"""
CHANGED_HINT = "copy it again, or run its command with --again, which keeps this run"
"""Hint for a document that differs from its digest. The changed run is kept, because it
may be evidence.
"""
MAX_LIST_BYTES = 1 << 24
"""Size limit of a list."""
DIGEST_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def read(
    path: Path,
    kind: type[T] | TypeAdapter[T] = dict[str, Any],  # type: ignore[assignment]
    hint: str = DAMAGED_HINT,
    error: type[BrainhiveError] = BrainhiveError,
    *,
    is_yaml: bool | None = None,
    max_bytes: int = 0,
    has_nan: bool = False,
) -> T:
    """Read a document, and check its type.

    If a list in a folder above covers the document, the digest is checked too.

    Args:
        path: File of the document.
        kind: Type of the content: a pydantic model, or another type that pydantic can
            check.
        hint: Hint of the error for a damaged document.
        error: Class of the error for a damaged document.
        is_yaml: True for YAML, False for JSON. By default YAML if the suffix is .yaml.
        max_bytes: Size limit. 0 takes the limit of the format.
        has_nan: Allow NaN in JSON.

    Returns:
        Content of the document, of type `kind`.

    Raises:
        MissingData: if there is no such file.
        BrainhiveError: if the document is too large, changed or damaged, or is not a
            `kind`. The class is `error`, and the message names the path and the key.
    """
    if not is_file(path):
        raise MissingData(f"there is no file {path}", hint)

    # read the file, unless it is too large
    if is_yaml is None:
        is_yaml = path.suffix == ".yaml"
    limit = max_bytes or MAX_DOCUMENT_BYTES[".yaml" if is_yaml else ".json"]
    try:
        content = read_regular(path, limit)
    except PermissionError:
        raise
    except OSError as reason:
        # the file is too large or a link to a folder or device, or the disk is damaged
        raise error(f"{path} cannot be read: {reason.strerror}", hint) from reason

    # compare the content with its digest
    digest = _find_digest(path)
    if digest and hashlib.sha256(content).hexdigest() != digest:
        raise error(f"{path} {CHANGED_PROBLEM}", CHANGED_HINT)

    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"{path} is not a text in UTF-8: {reason}", hint) from reason
    del content  # a large document should not be in memory twice
    return parse(text, str(path), kind, hint, error, is_yaml=is_yaml, has_nan=has_nan)


def _find_digest(path: Path) -> str:
    """Find the digest of a document in the list of its run.

    Returns:
        The digest, or an empty text if no list covers the document.
    """
    path = path.absolute()
    for folder in path.parents[:MAX_FOLDERS_ABOVE]:
        digest = read_digests(folder).get(path.relative_to(folder).as_posix())
        if digest and any((folder / name).is_file() for name in RUN_FILES):
            return digest
    return ""


def read_download(path: Path) -> dict[str, Any]:
    """Read a document of another project.

    Raises:
        MissingData: if the document is missing or damaged.
    """
    return read(path, hint=DOWNLOAD_HINT, error=MissingData)


def parse(
    text: str,
    name: str,
    kind: type[T] | TypeAdapter[T] = dict[str, Any],  # type: ignore[assignment]
    hint: str = DAMAGED_HINT,
    error: type[BrainhiveError] = BrainhiveError,
    *,
    is_yaml: bool = False,
    has_nan: bool = False,
) -> T:
    """Parse a document, and check its type.

    Args:
        text: Content of the document.
        name: Name of the document in messages, such as its path.
        kind: Type of the content.
        hint: Hint of the error for a damaged document.
        error: Class of the error for a damaged document.
        is_yaml: True for YAML, False for JSON.
        has_nan: Allow NaN in JSON.

    Raises:
        BrainhiveError: if the text cannot be parsed or is not a `kind`.
    """
    try:
        if is_yaml:
            value = _parse_yaml(text)
        else:
            # configs may hold Infinity, but NaN is usually a damaged number
            value = from_json(text, allow_inf_nan=has_nan or "NaN" not in text)
    except (
        yaml.YAMLError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as reason:
        description = " ".join(str(reason).split())[:MAX_SHOWN_CHARACTERS]
        if not description:
            description = type(reason).__name__
        syntax = "YAML" if is_yaml else "JSON"
        raise error(f"{name} is not valid {syntax}: {description}", hint) from reason
    return check(value, name, kind, hint, error)


def check(
    value: Any,
    name: str,
    kind: type[T] | TypeAdapter[T],
    hint: str = DAMAGED_HINT,
    error: type[BrainhiveError] = BrainhiveError,
) -> T:
    """Check that plain values have a type.

    Args:
        value: Plain values, such as dicts, lists and numbers.
        name: Name of the document in messages.
        kind: The type.
        hint: Hint of the error.
        error: Class of the error.

    Returns:
        The values as an instance of `kind`.

    Raises:
        BrainhiveError: if the values are not a `kind`. The message has the first
            problem.
    """
    try:
        if isinstance(kind, TypeAdapter):
            adapter = kind
        else:
            adapter = _make_adapter(cast(Hashable, kind))
        return adapter.validate_python(value)
    except ValidationError as reason:
        # the message has the key, the reason and the value
        problem = reason.errors()[0]
        path = ".".join(map(str, problem["loc"]))
        key = f"{path}: " if path else ""
        # pydantic adds this prefix to the messages of our own checks
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] != "missing":
            message = f"{message}, got {show_value(problem['input'])}"
        raise error(f"{name}: {key}{message}", hint) from reason
    except BrainhiveError as reason:
        # errors of our own checks lack the name of the document
        if type(reason) not in (BrainhiveError, RecipeError):
            raise
        raise error(f"{name}: {reason.message}", reason.hint or hint) from reason


def require_schema(document: Mapping[str, Any], version: int, subject: str) -> None:
    """Raise an error if a document has another schema than this program can read.

    Args:
        document: Content of the document.
        version: Schema that this program reads.
        subject: Beginning of the message, such as `PATH holds metrics`.
    """
    schema = document.get("schema")
    if schema != version:
        raise BrainhiveError(
            f"{subject} of schema {show_value(schema)}, but this version reads schema "
            f"{version}",
            "run the command of the run again with --again",
        )


def show_value(value: Any) -> str:
    """Write a value for a message, in a single line. Long values are cut."""
    text = " ".join(repr(value).split())
    if len(text) <= MAX_SHOWN_CHARACTERS:
        return text
    return f"{text[:MAX_SHOWN_CHARACTERS]}…"


_make_adapter = cache(TypeAdapter)
JSON_TAGS = [
    f"tag:yaml.org,2002:{kind}"
    for kind in ("null", "bool", "int", "float", "str", "seq", "map")
]
"""Tags of the YAML types that JSON has too."""


# the constructor of all other tags, stored under None, raises an error
LOADED_TAGS = [None, *JSON_TAGS]
CONSTRUCTORS = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in LOADED_TAGS}
RESOLVERS = {}
"""Rules that recognise the type of an unquoted value, by first letter. The rule for
dates is left out, so dates are read as texts.
"""
for _first_letter, _rules in yaml.SafeLoader.yaml_implicit_resolvers.items():
    RESOLVERS[_first_letter] = [
        (tag, pattern) for tag, pattern in _rules if not tag.endswith(":timestamp")
    ]


class _Loader(yaml.CSafeLoader):
    """Loader for YAML that has only the types of JSON."""

    yaml_constructors = CONSTRUCTORS
    yaml_implicit_resolvers = RESOLVERS


def _parse_yaml(text: str) -> Any:
    """Parse YAML without the features that no recipe needs.

    Raises:
        ValueError: if aliases repeat nodes too often, or a key is not a text or
            repeated. The error is raised before any value is made.
    """
    loader = _Loader(text)
    try:
        # walk the nodes level by level. Aliases may repeat a node, but a document
        # without aliases has at most as many nodes as letters
        root = loader.get_single_node()
        level = [] if root is None else [root]
        count = 0
        while level:
            children: list[Any] = []
            for node in level:
                if isinstance(node, yaml.MappingNode):
                    _check_keys(node)
                    for key_and_value in node.value:
                        children += key_and_value
                elif isinstance(node, yaml.SequenceNode):
                    children += node.value
                if count + len(children) > len(text):
                    raise ValueError("its aliases repeat too much")
            level = children
            count += len(children)
        return None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def _check_keys(mapping: yaml.MappingNode) -> None:
    """Raise an error if a mapping has a repeated key, or a key that is not a text.

    YAML itself would silently keep the last value of a repeated key.
    """
    key_nodes: dict[tuple[str, str], Any] = {}
    for key, _ in mapping.value:
        # the key `<<` merges another mapping, and has a tag of its own
        line = key.start_mark.line + 1
        if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            raise ValueError(f"the key in line {line} is not a text: put it in quotes")
        first_key = key_nodes.setdefault((key.tag, key.value), key)
        if first_key is not key:
            raise ValueError(
                f"key {show_value(key.value)} appears twice, in lines "
                f"{first_key.start_mark.line + 1} and {line}"
            )


def write_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Write the list of a folder.

    The file gets its final name only when it is complete.

    Args:
        folder: Folder of the list.
        digests: Digests by path below the folder.
    """
    lines = [f"{digests[name]}  {name}\n" for name in sorted(digests)]
    with atomic_write(folder / SHA256SUMS) as partial_file:
        partial_file.write_text("".join(lines), "utf-8")

    # the size and time of the file may be unchanged if two writes follow each other
    # within one tick of the clock
    _parse_digests.cache_clear()


def find_changes(folder: Path, exclude: Container[str] = ()) -> Iterator[str]:
    """Compare the files of a folder with its list.

    Args:
        folder: Folder of the list.
        exclude: Names of files that are not checked at all, and suffixes of files whose
            content is not compared with the list.

    Yields:
        A message for each file that is missing or differs from the list.
    """
    for name, digest in read_digests(folder).items():
        path = folder / name
        if name in exclude:
            continue
        if not path.is_file():
            yield f"{path} is missing"
        elif path.suffix not in exclude and digest_file(path) != digest:
            yield f"{path} {CHANGED_PROBLEM}"


def list_documents(folder: Path) -> Iterator[str]:
    """List the documents that the list of a folder should have, sorted.

    Yields:
        Paths below the folder.
    """
    for path in list_files(folder):
        if path.suffix in DIGESTED_SUFFIXES:
            yield path.relative_to(folder).as_posix()


def list_files(folder: Path) -> Iterator[Path]:
    """List the files of a run, sorted.

    Hidden files (locks and unfinished files) and the folders of experiment trackers are
    left out.
    """
    for path in sorted(folder.rglob("*.*")):
        names = path.relative_to(folder).parts
        is_hidden = any(name.startswith(".") for name in names)
        is_of_tracker = names[0].startswith(TRACKER_PREFIXES)
        if not is_hidden and not is_of_tracker and path.is_file():
            yield path


def read_digests(folder: Path) -> Mapping[str, str]:
    """Read the list of a folder.

    Returns:
        Digests by path below the folder. Empty without a list.
    """
    path = folder / SHA256SUMS
    if not path.is_file():
        return {}
    status = path.stat()
    if status.st_size > MAX_LIST_BYTES:
        return {}
    # an unchanged list is parsed only once
    return _parse_digests(path.absolute(), status.st_mtime_ns, status.st_size)


def digest_text(text: str) -> str:
    """Compute the sha256 digest of a text, in hexadecimal.

    Fingerprints in names are the first digits of such digests.
    """
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: Path) -> str:
    """Compute the sha256 digest of a file, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _parse_digests(path: Path, mtime_ns: int, size: int) -> Mapping[str, str]:
    """Parse a list. The results are kept by time and size of the file."""
    digests = {}
    for line in read_lines(path, MAX_LIST_BYTES, "replace"):
        match = DIGEST_LINE.fullmatch(line)
        if match:
            digests[match[2]] = match[1]
    return digests
