"""Reader of JSON and YAML documents, which checks their types and digests.

A finished run (a folder with the results of a command) has a file `SHA256SUMS`. This
file lists the digests of the run's documents, and is called the digest list below.
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
"""Default size limit of a document in bytes, by suffix. Parsing YAML of this size takes
two seconds.
"""
MAX_SHOWN_CHARACTERS = 300
"""Longest text of a value or reason in a message. Longer texts are cut."""
SHA256SUMS = "SHA256SUMS"
"""Name of the digest list of a finished run, in the format of `sha256sum -c`."""
DIGESTED_SUFFIXES = {".json", ".yaml", ".csv", ".html"}
"""Suffixes of the files in a digest list. Weights and stores hold digests of their own.
"""
RUN_FILES = ("recipe.yaml", "metrics.json")
"""Files that mark the folder of a run. A digest list without such a file next to it is
ignored.
"""
MAX_FOLDERS_ABOVE = 6
"""Number of parent folders of a document that are searched for a digest list. The
document `RUN/cells/VARIANT/CELL/model/config.json` needs five.
"""
CHANGED_PROBLEM = f"was changed or damaged: {SHA256SUMS} has another digest of it"
"""End of a message, after the path of a document that differs from its digest."""
CHANGED_HINT = "copy it again, or run its command with --again, which keeps this run"
"""Hint for a document that differs from its digest. The changed run is kept, because it
may be evidence.
"""
MAX_LIST_BYTES = 1 << 24
"""Size limit of a digest list."""
DIGEST_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
"""Line of a digest list: digest, text or binary mode of sha256sum, and path."""


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
    """Read a JSON or YAML document, and check the type of its content.

    If the document belongs to a finished run, its digest is checked too.

    Args:
        path: File of the document.
        kind: Expected type of the content. It is a pydantic model, or another type that
            pydantic can check, such as `dict[str, int]`.
        hint: Advice in the error message if the document is damaged.
        error: Class of the error that is raised for a damaged document.
        is_yaml: True for YAML, False for JSON. If None, a file with the suffix .yaml is
            YAML, and all other files are JSON.
        max_bytes: Size limit in bytes. 0 for the limit in `MAX_DOCUMENT_BYTES`.
        has_nan: True to allow NaN in JSON.

    Returns:
        Content of the document as an instance of `kind`.

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

    # decode and parse the text
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"{path} is not a text in UTF-8: {reason}", hint) from reason
    del content  # a large document should not be in memory twice
    return parse(text, str(path), kind, hint, error, is_yaml=is_yaml, has_nan=has_nan)


def _find_digest(path: Path) -> str:
    """Find the digest of a document in the digest list of its run.

    Args:
        path: File of the document.

    Returns:
        Digest in hexadecimal. Empty if the document is not in a finished run, or the
        digest list does not have it.
    """
    path = path.absolute()
    for folder in path.parents[:MAX_FOLDERS_ABOVE]:
        digest = read_digests(folder).get(path.relative_to(folder).as_posix())
        if digest and any((folder / name).is_file() for name in RUN_FILES):
            return digest
    return ""


def read_download(path: Path) -> dict[str, Any]:
    """Read a JSON or YAML document that was downloaded from another project.

    Args:
        path: File of the document. Its content must be a mapping.

    Raises:
        MissingData: if the document is missing or damaged. The hint says to download it
            again.
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
        kind: Expected type of the content. It is a pydantic model, or another type that
            pydantic can check, such as `dict[str, int]`.
        hint: Advice in the error message if the document is damaged.
        error: Class of the error that is raised for a damaged document.
        is_yaml: True for YAML, False for JSON.
        has_nan: True to allow NaN in JSON.

    Returns:
        Content of the document as an instance of `kind`.

    Raises:
        BrainhiveError: if the text cannot be parsed, or its content is not a `kind`.
            The class is `error`.
    """
    try:
        if is_yaml:
            value = _parse_yaml(text)
        else:
            # the parser accepts NaN and Infinity together or not at all. Configs may
            # hold Infinity, so both are accepted unless the text has a NaN, which is
            # usually the result of a failed computation
            value = from_json(text, allow_inf_nan=has_nan or "NaN" not in text)
    except (
        yaml.YAMLError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as reason:
        # write the reason in one line
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
        name: Name of the document in error messages, such as its path.
        kind: Expected type. It is a pydantic model, another type that pydantic can
            check, such as `dict[str, int]`, or a `TypeAdapter` of such a type.
        hint: Advice to the user, which the error carries.
        error: Class of the error that is raised if the content has another type.

    Returns:
        The content as an instance of the expected type.

    Raises:
        BrainhiveError: if the content does not have the expected type. The class of the
            error is `error`. The message has the key, the reason and the value of the
            first problem. Errors that validators of this project raise keep their
            class.
    """
    # building an adapter is slow, so `_make_adapter` caches the adapter of each type
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
        # Validators in this project raise a BrainhiveError, or a RecipeError about a
        # setting. Add the name of the document to these messages. Errors of other
        # subclasses pass unchanged.
        if type(reason) not in (BrainhiveError, RecipeError):
            raise
        raise error(f"{name}: {reason.message}", reason.hint or hint) from reason


def require_schema(document: Mapping[str, Any], version: int, subject: str) -> None:
    """Raise an error if the format of a document has a version that cannot be read.

    Args:
        document: Content of the document. The value of the key `schema` is the version
            number of its format.
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
    """Write a value as a single line of text for a message. Long texts are cut."""
    text = " ".join(repr(value).split())
    if len(text) <= MAX_SHOWN_CHARACTERS:
        return text
    return f"{text[:MAX_SHOWN_CHARACTERS]}…"


_make_adapter = cache(TypeAdapter)
"""Makes the pydantic adapter of a type, only once per type because this is slow."""
JSON_TAGS = [
    f"tag:yaml.org,2002:{kind}"
    for kind in ("null", "bool", "int", "float", "str", "seq", "map")
]
"""YAML tags (names of types) of the types that JSON has too."""


# PyYAML stores the constructor for all other tags under None. It raises an error
LOADED_TAGS = [None, *JSON_TAGS]
CONSTRUCTORS = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in LOADED_TAGS}
"""Functions that make Python values from YAML nodes, by tag."""
RESOLVERS = {}
"""Rules by which PyYAML recognises the type of a value without quotes, by the first
letter of the value. The rule for dates is left out, so dates are read as texts.
"""
for _first_letter, _rules in yaml.SafeLoader.yaml_implicit_resolvers.items():
    RESOLVERS[_first_letter] = [
        (tag, pattern) for tag, pattern in _rules if not tag.endswith(":timestamp")
    ]


class _Loader(yaml.CSafeLoader):
    """YAML loader that makes only values of types that JSON has too."""

    yaml_constructors = CONSTRUCTORS
    yaml_implicit_resolvers = RESOLVERS


def _parse_yaml(text: str) -> Any:
    """Parse YAML, and refuse keys and aliases that no file of settings needs.

    An alias is a reference to another node of the document. Aliases of aliases let a
    small malicious file stand for a huge document that fills the memory. So nodes are
    counted before values are made from them.

    Args:
        text: Text of a YAML document.

    Returns:
        Content of the document: dicts, lists, numbers and texts. None if the document
        is empty.

    Raises:
        ValueError: if a key is not a text, if a key is repeated in its mapping, or if
            the document has more nodes than letters because of its aliases.
    """
    loader = _Loader(text)
    try:
        # Walk through the tree of nodes level by level. The target of an alias is
        # visited again at each alias. Without aliases, a document has at most as many
        # nodes as letters.
        root = loader.get_single_node()
        level = [] if root is None else [root]
        count = 0
        while level:
            children: list[Any] = []
            for node in level:
                if isinstance(node, yaml.MappingNode):
                    # raise an error if a key is not a text or is repeated
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

    The YAML loader itself would silently keep the last value of a repeated key.

    Args:
        mapping: Node of the mapping, as parsed by PyYAML.

    Raises:
        ValueError: if a key is repeated or is not a text. The message has the line
            numbers, starting at 1.
    """
    key_nodes: dict[tuple[str, str], Any] = {}
    for key, _ in mapping.value:
        # allow texts, and the special key `<<`, which merges another mapping into this
        # mapping and has the tag `merge`
        line = key.start_mark.line + 1
        if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            raise ValueError(f"the key in line {line} is not a text: put it in quotes")
        # setdefault returns the earlier node if the key is already present
        first_key = key_nodes.setdefault((key.tag, key.value), key)
        if first_key is not key:
            raise ValueError(
                f"key {show_value(key.value)} appears twice, in lines "
                f"{first_key.start_mark.line + 1} and {line}"
            )


def write_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Write the digest list of a folder.

    The file gets its final name only when it is complete.

    Args:
        folder: Folder of the run.
        digests: Digests in hexadecimal, by path of the document below the folder.
    """
    lines = [f"{digests[name]}  {name}\n" for name in sorted(digests)]
    with atomic_write(folder / SHA256SUMS) as partial_file:
        partial_file.write_text("".join(lines), "utf-8")

    # the cache recognises a file by size and time. Both may stay the same if the file
    # is written twice within a tick of the clock
    _parse_digests.cache_clear()


def find_changes(folder: Path, exclude: Container[str] = ()) -> Iterator[str]:
    """Find files of a run that were deleted or changed after the run was finished.

    The run folder has a list of SHA-256 digests. The digest of each listed file is
    computed again and compared.

    Args:
        folder: Folder with the results of a command.
        exclude: Exceptions of two kinds. A path (relative to the folder) excludes the
            file from all checks. A suffix, such as `.json`, excludes files from the
            comparison of digests, but they must exist.

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

    Args:
        folder: Folder of the run.

    Yields:
        Paths below the folder, sorted.
    """
    for path in list_files(folder):
        if path.suffix in DIGESTED_SUFFIXES:
            yield path.relative_to(folder).as_posix()


def list_files(folder: Path) -> Iterator[Path]:
    """List the files of a run (the results of a command), in its folder and subfolders.

    Three kinds of files are left out: hidden files and files in hidden folders (such as
    locks and unfinished files), files of experiment trackers (such as the folder
    `wandb`), and files without a suffix.

    Args:
        folder: Folder of the run.

    Yields:
        Paths of the files, which begin with `folder`, in sorted order.
    """
    for path in sorted(folder.rglob("*.*")):
        names = path.relative_to(folder).parts
        is_hidden = any(name.startswith(".") for name in names)
        is_of_tracker = names[0].startswith(TRACKER_PREFIXES)
        if not is_hidden and not is_of_tracker and path.is_file():
            yield path


def read_digests(folder: Path) -> Mapping[str, str]:
    """Read the list of SHA-256 digests of a run.

    Args:
        folder: Folder with the results of a command.

    Returns:
        Digests in hexadecimal, keyed by the path of the file relative to the folder.
        Empty if there is no list, or if the list is larger than `MAX_LIST_BYTES`.
    """
    path = folder / SHA256SUMS
    if not path.is_file():
        return {}
    status = path.stat()
    if status.st_size > MAX_LIST_BYTES:
        return {}
    # this function caches its results, so an unchanged list is parsed only once
    return _parse_digests(path.absolute(), status.st_mtime_ns, status.st_size)


def digest_text(text: str) -> str:
    """Compute the sha256 digest of a text, in hexadecimal.

    The fingerprint in the name of a run is the beginning of such a digest.
    """
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: Path) -> str:
    """Compute the sha256 digest of a file, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _parse_digests(path: Path, mtime_ns: int, size: int) -> Mapping[str, str]:
    """Parse a list of SHA-256 digests, and cache the results of 64 argument values.

    The last two arguments only belong to the key of the cache. If the list changes,
    they change, so the list is parsed again.

    Args:
        path: Absolute path of the list.
        mtime_ns: Time of the last change of the list in nanoseconds.
        size: Size of the list in bytes.

    Returns:
        Digests in hexadecimal, keyed by the path of the file that they belong to. Lines
        of another form are ignored.
    """
    digests = {}
    for line in read_lines(path, MAX_LIST_BYTES, "replace"):
        match = DIGEST_LINE.fullmatch(line)
        if match:
            digests[match[2]] = match[1]
    return digests
