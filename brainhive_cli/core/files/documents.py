"""Reader of JSON and YAML documents, which checks their types and digests.

The digest list `SHA256SUMS` of a finished run has the digests of its documents.
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

from brainhive_cli.core.base import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files.files import (
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
MAX_SHOWN_CHARACTERS = 300
"""Longest text of a value or reason in a message. Longer texts are cut."""
SHA256SUMS = "SHA256SUMS"
"""Name of the digest list of a finished run, in the format of `sha256sum -c`."""
CHANGED_PROBLEM = f"was changed or damaged: {SHA256SUMS} has another digest of it"
"""End of a message, after the path of a document that differs from its digest."""
CHANGED_HINT = "copy it again, or run its command with --again, which keeps this run"
"""Hint for a document that differs from its digest. A new run keeps the changed run,
which may be evidence.
"""
MAX_LIST_BYTES = 1 << 24
"""Size limit of a digest list."""


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
    """Read a JSON or YAML document, and check its digest and the type of its content.

    Args:
        path: File of the document.
        kind: Type that pydantic can check, such as a model or `dict[str, int]`.
        hint: Advice in the error about a damaged document.
        error: Class of the error about a damaged document.
        is_yaml: True for YAML, False for JSON, None to decide by the suffix .yaml.
        max_bytes: Size limit in bytes. 0 for 64 MiB of JSON or 256 KiB of YAML.
        has_nan: True to allow NaN in JSON.

    Returns:
        Content of the document as an instance of `kind`.

    Raises:
        MissingData: if there is no such file.
        BrainhiveError: of the class `error`, if the document is too large, changed or
            damaged, or is not a `kind`.
        PermissionError: if the file may not be read.
    """
    if not is_file(path):
        raise MissingData(f"there is no file {path}", hint)

    if is_yaml is None:
        is_yaml = path.suffix == ".yaml"
    # Default size limit of a document in bytes, by suffix. PyYAML takes two seconds to
    # parse this size.
    max_document_bytes = {".json": 64 << 20, ".yaml": 1 << 18}
    limit = max_bytes or max_document_bytes[".yaml" if is_yaml else ".json"]
    try:
        content = read_regular(path, limit)
    except PermissionError:
        raise
    except OSError as reason:
        # too large a file, a link to a folder or device, or a damaged disk
        raise error(f"{path} cannot be read: {reason.strerror}", hint) from reason

    digest = _find_digest(path)
    if digest and hashlib.sha256(content).hexdigest() != digest:
        raise error(f"{path} {CHANGED_PROBLEM}", CHANGED_HINT)

    # decode and parse the text
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"{path} is not a text in UTF-8: {reason}", hint) from reason
    del content  # a large document should not be in memory twice
    return parse(text, str(path), kind, hint, error, is_yaml=is_yaml, has_nan=has_nan)


def _find_digest(path: Path) -> str:
    """Return the digest of a document in the digest list of its run, or ""."""
    path = path.absolute()
    # Number of parent folders of a document that are searched for a digest list.
    # Documents such as `RUN/cells/CELL/model/config.json` need four.
    for folder in path.parents[:6]:
        digest = read_digests(folder).get(path.relative_to(folder).as_posix())
        # Files that mark the folder of a run. Other folders have no valid digest list.
        if digest and any(
            (folder / name).is_file() for name in ("recipe.yaml", "metrics.json")
        ):
            return digest
    return ""


def read_download(path: Path) -> dict[str, Any]:
    """Read a JSON or YAML mapping that was downloaded from another project.

    Raises:
        MissingData: if the document is missing or damaged, with a hint to download it.
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
    """Parse the text of a JSON or YAML document, and check the type of its content.

    Args:
        text: Text of the document.
        name: Name of the document in messages, such as its path.
        kind: Type that pydantic can check, such as a model or `dict[str, int]`.
        hint: Advice in the error about a damaged document.
        error: Class of the error about a damaged document.
        is_yaml: True for YAML, False for JSON.
        has_nan: True to allow NaN in JSON.

    Returns:
        Content of the document as an instance of `kind`.

    Raises:
        BrainhiveError: of the class `error`, if the text cannot be parsed or is
            not a `kind`.
    """
    try:
        if is_yaml:
            value = _parse_yaml(text)
        else:
            # Configs may hold Infinity, which the parser accepts only together with NaN
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
    """Convert the parsed content of a document to the expected type.

    Args:
        value: Content of a JSON or YAML document: dicts, lists, numbers and texts.
        name: Name of the document in messages, such as its path.
        kind: Type that pydantic can check, or a `TypeAdapter` of such a type.
        hint: Advice in the error about another type.
        error: Class of the error about another type.

    Returns:
        The content as an instance of the expected type.

    Raises:
        BrainhiveError: of the class `error`, or of a special class that
            a validator raises.
    """
    try:
        if isinstance(kind, TypeAdapter):
            adapter = kind
        else:
            adapter = _make_adapter(cast(Hashable, kind))
        return adapter.validate_python(value)
    except ValidationError as reason:
        problem = reason.errors()[0]
        path = ".".join(map(str, problem["loc"]))
        key = f"{path}: " if path else ""
        # pydantic puts this prefix before the message of a ValueError from a validator
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] != "missing":
            message = f"{message}, got {show_value(problem['input'])}"
        raise error(f"{name}: {key}{message}", hint) from reason
    except BrainhiveError as reason:
        # add the name of the document to errors of validators
        if type(reason) not in (BrainhiveError, RecipeError):
            raise
        raise error(f"{name}: {reason.message}", reason.hint or hint) from reason


def require_schema(document: Mapping[str, Any], version: int, subject: str) -> None:
    """Raise an error if a document has a version of its format that cannot be read.

    Args:
        document: Content of the document, with its version under the key `schema`.
        version: Version number that this program reads.
        subject: Beginning of the error message, such as `PATH holds metrics`.

    Raises:
        BrainhiveError: if the version number is missing or is not `version`.
    """
    schema = document.get("schema")
    if schema != version:
        raise BrainhiveError(
            f"{subject} of schema {show_value(schema)}, but this version reads schema "
            f"{version}",
            "run the command of the run again with --again",
        )


def show_value(value: Any) -> str:
    """Write a value as a single line of text for a message, and cut long texts."""
    text = " ".join(repr(value).split())
    if len(text) <= MAX_SHOWN_CHARACTERS:
        return text
    return f"{text[:MAX_SHOWN_CHARACTERS]}…"


_make_adapter = cache(TypeAdapter)
"""Function that makes the pydantic adapter of a type, once per type because it is slow.
"""
JSON_TAGS = [
    f"tag:yaml.org,2002:{kind}"
    for kind in ("null", "bool", "int", "float", "str", "seq", "map")
]
"""YAML tags (names of types) of the types that JSON has too."""


# PyYAML stores the constructor for all other tags, which raises an error, under None
LOADED_TAGS = [None, *JSON_TAGS]
CONSTRUCTORS = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in LOADED_TAGS}
"""Functions that make Python values from YAML nodes, by tag."""
YAML_1_2 = {
    "tag:yaml.org,2002:bool": re.compile("(true|True|TRUE|false|False|FALSE)$"),
    "tag:yaml.org,2002:int": re.compile("[-+]?(0|[1-9][0-9]*)$"),
}
"""Patterns of YAML 1.2 by tag. PyYAML also reads yes, no, on and off as booleans, and
010 as 8.
"""
RESOLVERS = {}
"""Rules by which PyYAML recognises the type of a value without quotes, by its first
letter. Dates have no rule, so they are read as texts.
"""
for _first_letter, _rules in yaml.SafeLoader.yaml_implicit_resolvers.items():
    RESOLVERS[_first_letter] = [
        (tag, YAML_1_2.get(tag, pattern))
        for tag, pattern in _rules
        if not tag.endswith(":timestamp")
    ]


class _Loader(yaml.CSafeLoader):
    """YAML loader that makes only values of types that JSON has too."""

    yaml_constructors = CONSTRUCTORS
    yaml_implicit_resolvers = RESOLVERS


def _parse_yaml(text: str) -> Any:
    """Parse YAML, and refuse repeated keys, keys that are not texts, and many aliases.

    With aliases of aliases, a small malicious file could fill the memory. A document
    must not have more nodes than letters.
    """
    loader = _Loader(text)
    try:
        # count the nodes level by level, the target of an alias once for each alias
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
    """Raise a ValueError if a key of a mapping is repeated or is not a text."""
    first_lines: dict[tuple[str, str], int] = {}
    for key, _ in mapping.value:
        # the key `<<`, which inserts another mapping, has the tag `merge`
        line = key.start_mark.line + 1
        if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            raise ValueError(f"the key in line {line} is not a text: put it in quotes")
        identity = (key.tag, key.value)
        if identity in first_lines:
            raise ValueError(
                f"key {show_value(key.value)} appears twice, in lines "
                f"{first_lines[identity]} and {line}"
            )
        first_lines[identity] = line


def write_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Write the digest list of a folder.

    Args:
        folder: Folder of the run.
        digests: Digests in hexadecimal, by path of the document below the folder.
    """
    lines = [f"{digests[name]}  {name}\n" for name in sorted(digests)]
    with atomic_write(folder / SHA256SUMS) as partial_file:
        partial_file.write_text("".join(lines), "utf-8")

    # a file that is written twice in a moment may keep its time and size
    _parse_digests.cache_clear()


def find_changes(folder: Path, exclude: Container[str] = ()) -> Iterator[str]:
    """Find files of a run that were deleted or changed after the run was finished.

    Args:
        folder: Folder with the results of a command.
        exclude: Paths below the folder, which are not checked, and suffixes such as
            `.json`, whose files must exist but may have changed.

    Yields:
        A message for each listed file that is missing or has another digest.
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
    """List the documents that belong into the digest list of a run.

    Yields:
        Paths below the folder, sorted.
    """
    for path in list_files(folder):
        # Suffixes of files in a digest list. Weights and stores have their own digests.
        if path.suffix in {".json", ".yaml", ".csv", ".html"}:
            yield path.relative_to(folder).as_posix()


def list_files(folder: Path) -> Iterator[Path]:
    """List the files in the folder of a run and its subfolders.

    Hidden files, files of experiment trackers and files without a suffix are left out.

    Yields:
        Paths of the files, which begin with `folder`, in sorted order.
    """
    for path in sorted(folder.rglob("*.*")):
        names = path.relative_to(folder).parts
        is_hidden = any(name.startswith(".") for name in names)
        # Prefixes of the files and folders that experiment trackers write into a run
        # folder. They do not belong to the run.
        tracker_prefixes = ("tensorboard", "wandb", "swan", "run-")
        is_of_tracker = names[0].startswith(tracker_prefixes)
        if not is_hidden and not is_of_tracker and path.is_file():
            yield path


def read_digests(folder: Path) -> Mapping[str, str]:
    """Read the digest list of a run.

    Returns:
        SHA-256 digests in hexadecimal, by path below the folder. Empty if there is no
        list, or if it is larger than `MAX_LIST_BYTES`.
    """
    path = folder / SHA256SUMS
    if not path.is_file():
        return {}
    status = path.stat()
    if status.st_size > MAX_LIST_BYTES:
        return {}
    return _parse_digests(path.absolute(), status.st_mtime_ns, status.st_size)


def digest_text(text: str) -> str:
    """Compute the SHA-256 digest of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: Path) -> str:
    """Compute the SHA-256 digest of a file, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _parse_digests(path: Path, mtime_ns: int, size: int) -> Mapping[str, str]:
    """Parse a digest list, without lines of another form.

    Args:
        path: Absolute path of the list.
        mtime_ns: Time of the last change, for the key of the cache.
        size: Size in bytes, for the key of the cache.
    """
    digests = {}
    for line in read_lines(path, MAX_LIST_BYTES, "replace"):
        # Line of a digest list: digest, text or binary mode of sha256sum, and path.
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if match:
            digests[match[2]] = match[1]
    return digests
