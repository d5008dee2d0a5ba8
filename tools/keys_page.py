"""Writes docs/keys/, the pages of every recipe key: `python -m tools.keys_page`."""

import importlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from brainhive_cli.cli.table import COMMANDS
from brainhive_cli.commands.recipes import format_value, list_shipped
from brainhive_cli.core import parts
from brainhive_cli.core.recipe import Recipe

FOLDER = Path(__file__).parents[1] / "docs" / "keys"
PAGE_OF_SHELF = {
    "datasets": "embed",
    "preparations": "prepare",
    "streams": "live",
    "encoders": "embed",
    "backbones": "train-align",
    "fusers": "train-align",
    "losses": "train-align",
    "augmentations": "train-align",
    "normalisations": "train-align",
    "priors": "reconstruct",
    "generators": "reconstruct",
    "corrections": "eval-retrieval",
    "alignments": "calibrate",
}
"""Command on whose page the parts of a shelf stand, once."""
LONGEST_DEFAULT = 90
"""Characters of a default that is shown whole; a longer one is cut."""
LONG_MEANING = 60
"""Characters from which a description is told once."""
NOTHING = ("", "null", "[]", "{}")
"""Defaults that are not shown."""
HEAD = """# Recipe keys

One page for each command, written from the code by `python -m tools.keys_page`; a test
compares them. `brainhive recipes demo` prints the keys of a recipe with its values.
[Install and first steps](../start.md) says how recipes, flags and overrides meet. The
default of a key follows its name; without one it is `null`, `[]` or `{}`."""
PARTS = """## Parts

A part is a `kind` and its keys. In a recipe: `backbone: {kind: nice, dropout: 0.5}`, on
the command line `backbone.kind=nice backbone.dropout=0.5`. A kind alone may be written
without braces (`backbone: nice`), and an import path (`my_package.my_net`) names a part
of your own ([From Python](../python.md)). Each shelf stands on the page of one command,
whichever commands take its parts:"""


@dataclass(frozen=True)
class Key:
    """Key of a recipe.

    Attributes:
        path: Its dotted name.
        meaning: Its description, with its unit.
        default: Its default, as a recipe would write it.
    """

    path: str
    meaning: str
    default: str


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """List the keys of a recipe or of a part, those of sections below the section's
    name.
    """
    for attribute, field in model.model_fields.items():
        name = field.alias or attribute
        default = format_value(
            field.get_default(call_default_factory=True, validated_data={})
        )
        inner = section_of(field.annotation)
        if inner is None or field.default is None or issubclass(inner, parts.Config):
            yield Key(
                prefix + name,
                field.description or "",
                "required" if field.is_required() else default,
            )
        if inner is not None and not issubclass(inner, parts.Config):
            yield from keys_of(inner, f"{prefix}{name}.")


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Find the model of a section: the annotation, or the first model in a union or
    list of it.
    """
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(section_of, get_args(annotation))), None)


def pages() -> dict[str, str]:
    """Write the pages, by file name."""
    common = {key.path for key in keys_of(Recipe)}
    keys_by_command = {
        command.name: [
            key
            for key in keys_of(
                importlib.import_module(
                    f"brainhive_cli.commands.{command.name.replace('-', '_')}"
                ).Recipe
            )
            if key.path not in common
        ]
        for command in COMMANDS
    }
    uses = Counter(key for keys in keys_by_command.values() for key in keys)
    shared = {key for key, count in uses.items() if count > 1}
    written_pages = {"index.md": _index(keys_by_command, shared)}
    for command in COMMANDS:
        keys = keys_by_command[command.name]
        blocks = [f"# {command.name}", command.description]
        blocks += _list([key for key in keys if key not in shared])
        names = [_code(key.path) for key in keys if key in shared]
        if names := [name for name in names if "." not in name]:
            blocks.append(
                f"Also [keys of several commands](index.md#keys-of-several-commands): "
                f"{', '.join(names)}."
            )
        for shelf, page in PAGE_OF_SHELF.items():
            if page == command.name:
                blocks += _shelf(shelf)
        if command.name == "recipes":
            blocks += ["## Shipped recipes", _recipes()]
        written_pages[f"{command.name}.md"] = "\n\n".join(blocks) + "\n"
    return _tell_once(written_pages)


def _tell_once(written_pages: dict[str, str]) -> dict[str, str]:
    """Replace a long description that an earlier key has by that key's name."""
    told: dict[str, tuple[str, str]] = {}
    for page, text in written_pages.items():
        lines = text.splitlines()
        for index, line in enumerate(lines):
            match = re.fullmatch(r"- `([^`]+)`(?: \(`.*?`\))?: (.*)", line)
            if match is None or len(match[2]) < LONG_MEANING:
                continue
            key, first_page = told.setdefault(match[2], (match[1], page))
            if (key, first_page) != (match[1], page):
                where = "" if first_page == page else f" of [{first_page[:-3]}]"
                link = f"({first_page})" if where else ""
                lines[index] = line[: match.start(2)] + f"as `{key}`{where}{link}"
        written_pages[page] = "\n".join(lines) + "\n"
    return written_pages


def _index(keys_by_command: dict[str, list[Key]], shared: set[Key]) -> str:
    """Write the page that lists the others, and what they have in common."""
    commands = [
        f"- [{each.name}]({each.name}.md): {each.description}" for each in COMMANDS
    ]
    shelves = [f"[{shelf}]({page}.md#{shelf})" for shelf, page in PAGE_OF_SHELF.items()]
    in_order = dict.fromkeys(
        key for keys in keys_by_command.values() for key in keys if key in shared
    )
    blocks = [
        HEAD,
        "\n".join(commands),
        f"{PARTS} {', '.join(shelves)}.",
        "## Keys of every command",
        *_list(keys_of(Recipe)),
        "## Keys of several commands",
        *_list(in_order),
    ]
    return "\n\n".join(blocks) + "\n"


def _shelf(shelf: str) -> Iterator[str]:
    """Write the parts of a shelf: keys that several parts have, parts with a file, and
    rows below their family.
    """
    yield f"## {shelf.capitalize()}"
    rows = {
        kind: row.family
        for kind, row in parts.read_rows(shelf).items()
        if "." not in row.family
    }
    keys = {
        kind: [*keys_of(parts.load(shelf, kind).Config)]
        for kind in parts.list_kinds(shelf)
    }
    kinds = [kind for kind in keys if kind not in rows]

    # keys of several parts, with the default of the first; one meaning a path
    uses = Counter(_meaning(key) for kind in kinds for key in keys[kind])
    shared: dict[tuple[str, str], Key] = {}
    for key in (key for kind in kinds for key in keys[kind]):
        most = max(count for (path, _), count in uses.items() if path == key.path)
        is_named = any(path == key.path for path, _ in shared)
        if uses[_meaning(key)] == most > 1 and not is_named:
            shared[_meaning(key)] = key
    common = {meaning for meaning in shared if uses[meaning] == len(kinds)}
    yield from _of_several(shelf, shared, common)

    for kind in kinds:
        part = parts.load(shelf, kind)
        yield f"### `{kind}`"
        yield _about(part.__doc__, part.Config.__doc__)
        yield from _list([key for key in keys[kind] if _meaning(key) not in shared])
        also = [
            _with_default(key, shared[_meaning(key)])
            for key in keys[kind]
            if _meaning(key) in shared.keys() - common and "." not in key.path
        ]
        if also:
            yield f"Also {', '.join(also)}."
        yield from _rows(shelf, kind, rows, keys)


def _of_several(
    shelf: str, shared: dict[tuple[str, str], Key], common: set[tuple[str, str]]
) -> Iterator[str]:
    """Write the keys that all parts of a shelf have, and those that several have."""
    if common:
        yield f"Keys of every {parts.SHELVES[shelf]}:"
        yield from _list([key for meaning, key in shared.items() if meaning in common])
    if several := [key for meaning, key in shared.items() if meaning not in common]:
        yield "Keys that several of them have:"
        yield from _list(several)


def _meaning(key: Key) -> tuple[str, str]:
    return key.path, key.meaning


def _with_default(key: Key, base: Key) -> str:
    """Name a key, with its default where that is not the base's."""
    differs = key.default != base.default
    return _code(f"{key.path}={_shortened(key.default)}" if differs else key.path)


def _rows(
    shelf: str, family: str, rows: dict[str, str], keys: dict[str, list[Key]]
) -> Iterator[str]:
    """Write the table of the parts that have the keys of a family."""
    members = [kind for kind, base in rows.items() if base == family]
    for member in [*members]:  # a row may be the family of rows
        members += [kind for kind, base in rows.items() if base == member]
    if not members:
        return
    base = {key.path: key for key in keys[family]}
    lines = []
    for kind in sorted(members):
        part = parts.load(shelf, kind)
        about = _plain(_about(part.__doc__, part.Config.__doc__))
        defaults = [
            _with_default(key, base[key.path])
            for key in keys[kind]
            if key.path in base and key.default != base[key.path].default
        ]
        lines.append(
            f"- `{kind}`: {about}{' ' if defaults else ''}{', '.join(defaults)}"
        )
    yield f"With the keys of `{family}` and these defaults:"
    yield "\n".join(lines)


def _list(keys: Iterable[Key]) -> list[str]:
    """Write keys as a list, or nothing where there are none."""
    lines = []
    for key in keys:
        has_default = key.default not in NOTHING
        default = f" ({_code(_shortened(key.default))})" if has_default else ""
        lines.append(f"- `{key.path}`{default}: {_plain(key.meaning)}")
    return ["\n".join(lines)] if lines else []


def _shortened(default: str) -> str:
    """Cut a long default to its beginning."""
    if len(default) <= LONGEST_DEFAULT:
        return default
    if not default.startswith("["):
        return f"{default[:LONGEST_DEFAULT].rpartition(' ')[0]} …"
    values = default[1:-1].split(", ")
    return f"[{', '.join(values[:3])}, … {len(values)} in all]"


def _plain(text: str) -> str:
    """Write a text on one line, without what Markdown would read as markup."""
    pieces = re.split(r"(`[^`]*`)", " ".join(text.split()))
    pieces[::2] = [
        piece.replace("*", r"\*").replace("<", "&lt;") for piece in pieces[::2]
    ]
    return "".join(pieces)


def _code(value: str) -> str:
    return f"`{' '.join(value.split())}`" if value else ""


def _about(*docstrings: str | None) -> str:
    """Take what a part is, and where it comes from, of its docstrings."""
    texts = [*dict.fromkeys(text for text in docstrings if text)]
    sources = re.findall(r"Source: (.*?)(?:\n\s*\n|$)", "\n\n".join(texts), re.DOTALL)
    first = " ".join(texts[0].partition("\n\n")[0].split())
    return "\n\n".join(
        [
            first,
            *(
                f"Source: {' '.join(source.split())}"
                for source in dict.fromkeys(sources)
            ),
        ]
    )


def _recipes() -> str:
    """List the shipped recipes with their commands; `brainhive recipes` says more."""
    commands: dict[str, list[str]] = {}
    for each in list_shipped():
        if each.name:
            commands.setdefault(each.name, []).append(each.command)
    papers = [name for name in commands if name.startswith("papers/")]
    rows = [
        f"- `{name}`: {', '.join(of)}"
        for name, of in commands.items()
        if name not in papers
    ]
    named = ", ".join(f"`{name}`" for name in papers)
    return "\n".join([*rows, f"- of [papers](../papers.md): {named}"])


if __name__ == "__main__":
    for name, text in pages().items():
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / name).write_text(text, encoding="utf-8")
