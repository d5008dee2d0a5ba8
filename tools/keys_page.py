"""Writes docs/keys/, the pages of every recipe key: `python -m tools.keys_page`."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from brainhive_cli.cli.table import COMMANDS
from brainhive_cli.commands.recipes import format_value, import_recipe, list_shipped
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.recipes.recipe import Recipe

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
"""Command whose page lists the parts of a shelf."""
LONGEST_DEFAULT = 90
"""Characters after which a default is cut."""
LONG_MEANING = 60
"""Characters from which a description is not repeated."""
LIMITS = {
    "gt": ">",
    "ge": "≥",
    "lt": "<",
    "le": "≤",
    "min_length": "length ≥",
    "max_length": "length ≤",
}
"""How a page writes the limits of a key, by the names of Pydantic."""
EMPTY_DEFAULTS = ("", "null", "[]", "{}")
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
Meaning = tuple[str, str]
"""Path and description of a key."""


@dataclass(frozen=True)
class Key:
    """Key of a recipe.

    Attributes:
        path: Its dotted name.
        meaning: Its description, with its unit and its limits.
        default: Its default, as a recipe would write it.
    """

    path: str
    meaning: str
    default: str

    @property
    def path_and_meaning(self) -> Meaning:
        """The facts that parts of a shelf share, without the default."""
        return self.path, self.meaning


def list_keys(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """Yield the keys of a recipe or part.

    Keys of a section have its name in front.
    """
    for attribute, field in model.model_fields.items():
        name = field.alias or attribute
        section = find_section(field.annotation)
        is_part = section is not None and issubclass(section, parts.Config)
        if section is None or field.default is None or is_part:
            default = "required"
            if not field.is_required():
                value = field.get_default(call_default_factory=True, validated_data={})
                default = format_value(value)
            yield Key(prefix + name, describe(field), default)
        if section is not None and not is_part:
            yield from list_keys(section, f"{prefix}{name}.")


def describe(field: FieldInfo) -> str:
    """Return the description of a key and its limits: `size in px (≥ 64, ≤ 1024)`."""
    limits = []
    for constraint in field.metadata:
        for name, sign in LIMITS.items():
            limit = getattr(constraint, name, None)
            if limit is not None:
                limits.append(f"{sign} {limit}")
    description = field.description or ""
    return f"{description} ({', '.join(limits)})" if limits else description


def find_section(annotation: Any) -> type[BaseModel] | None:
    """Find the model of a section: the annotation, or the first model inside it."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    for argument in get_args(annotation):
        section = find_section(argument)
        if section is not None:
            return section
    return None


def write_pages() -> dict[str, str]:
    """Return the text of each page by file name."""
    common_paths = {key.path for key in list_keys(Recipe)}
    command_keys: dict[str, list[Key]] = {}
    uses = Counter[Key]()
    for command in COMMANDS:
        recipe = import_recipe(command.name)
        keys = [key for key in list_keys(recipe) if key.path not in common_paths]
        command_keys[command.name] = keys
        uses.update(keys)
    shared_keys = [key for key, count in uses.items() if count > 1]

    pages = {"index.md": _write_index(shared_keys)}
    for command in COMMANDS:
        keys = command_keys[command.name]
        blocks = [f"# {command.name}", command.summary]
        blocks += _write_list(key for key in keys if key not in shared_keys)
        names = []
        for key in keys:
            if key in shared_keys and "." not in key.path:
                names.append(_write_code(key.path))
        if names:
            blocks.append(
                f"Also [keys of several commands](index.md#keys-of-several-commands): "
                f"{', '.join(names)}."
            )
        for shelf, page in PAGE_OF_SHELF.items():
            if page == command.name:
                blocks += _write_shelf(shelf)
        if command.name == "recipes":
            blocks += ["## Shipped recipes", _write_recipes()]
        pages[f"{command.name}.md"] = "\n\n".join(blocks) + "\n"
    return _drop_repetitions(pages)


def _drop_repetitions(pages: dict[str, str]) -> dict[str, str]:
    """Replace a repeated long description by the name of the first key that has it."""
    first_uses: dict[str, tuple[str, str]] = {}
    for page, text in pages.items():
        lines = text.splitlines()
        for index, line in enumerate(lines):
            match = re.fullmatch(r"- `([^`]+)`(?: \(`.*?`\))?: (.*)", line)
            if match is None or len(match[2]) < LONG_MEANING:
                continue
            use = (match[1], page)
            first_use = first_uses.setdefault(match[2], use)
            if first_use == use:
                continue
            first_key, first_page = first_use
            reference = f"as `{first_key}`"
            if first_page != page:
                reference += f" of [{first_page[:-3]}]({first_page})"
            lines[index] = line[: match.start(2)] + reference
        pages[page] = "\n".join(lines) + "\n"
    return pages


def _write_index(shared_keys: Iterable[Key]) -> str:
    """Write the page that lists the other pages, and the keys of several commands."""
    commands = []
    for command in COMMANDS:
        name = command.name
        commands.append(f"- [{name}]({name}.md): {command.summary}")
    shelves = [f"[{shelf}]({page}.md#{shelf})" for shelf, page in PAGE_OF_SHELF.items()]
    blocks = [HEAD, "\n".join(commands), f"{PARTS} {', '.join(shelves)}."]
    blocks += ["## Keys of every command"] + _write_list(list_keys(Recipe))
    blocks += ["## Keys of several commands"] + _write_list(shared_keys)
    return "\n\n".join(blocks) + "\n"


def _write_shelf(shelf: str) -> Iterator[str]:
    """Write the blocks of a shelf: shared keys, then each kind and its rows."""
    yield f"## {shelf.capitalize()}"
    families = {}
    for kind, row in parts.read_rows(shelf).items():
        if "." not in row.family:
            families[kind] = row.family
    keys = {}
    for kind in parts.list_kinds(shelf):
        keys[kind] = list(list_keys(parts.load(shelf, kind).Config))
    kinds = [kind for kind in keys if kind not in families]

    # shared keys, with the default of the first part and the most frequent meaning
    kind_keys = list(chain.from_iterable(keys[kind] for kind in kinds))
    uses = Counter(key.path_and_meaning for key in kind_keys)
    most_uses: dict[str, int] = {}
    for (path, _), count in uses.items():
        most_uses[path] = max(count, most_uses.get(path, 0))
    shared: dict[Meaning, Key] = {}
    shared_paths = []
    for key in kind_keys:
        count = uses[key.path_and_meaning]
        if count == most_uses[key.path] > 1 and key.path not in shared_paths:
            shared[key.path_and_meaning] = key
            shared_paths.append(key.path)
    common = {meaning for meaning in shared if uses[meaning] == len(kinds)}
    yield from _write_shared_keys(shelf, shared, common)

    for kind in kinds:
        part = parts.load(shelf, kind)
        yield f"### `{kind}`"
        yield _describe_part(part.__doc__, part.Config.__doc__)
        own_keys = []
        shared_names = []
        for key in keys[kind]:
            meaning = key.path_and_meaning
            if meaning not in shared:
                own_keys.append(key)
            elif meaning not in common and "." not in key.path:
                shared_names.append(_name_with_default(key, shared[meaning]))
        yield from _write_list(own_keys)
        if shared_names:
            yield f"Also {', '.join(shared_names)}."
        yield from _write_rows(shelf, kind, families, keys)


def _write_shared_keys(
    shelf: str, shared: dict[Meaning, Key], common: set[Meaning]
) -> Iterator[str]:
    """Write the keys that all parts of a shelf have, and the keys of several parts."""
    if common:
        yield f"Keys of every {parts.SHELVES[shelf]}:"
        yield from _write_list(
            key for meaning, key in shared.items() if meaning in common
        )
    keys = [key for meaning, key in shared.items() if meaning not in common]
    if keys:
        yield "Keys that several of them have:"
        yield from _write_list(keys)


def _name_with_default(key: Key, base: Key) -> str:
    """Return the path of a key, with its default if the default of `base` differs."""
    if key.default == base.default:
        return _write_code(key.path)
    return _write_code(f"{key.path}={_shorten_default(key.default)}")


def _write_rows(
    shelf: str, family: str, families: dict[str, str], keys: dict[str, list[Key]]
) -> Iterator[str]:
    """Write the table of the parts that have the keys of a family."""
    members = []
    for kind, base in families.items():
        # a row may be the family of other rows
        if family in (base, families.get(base)):
            members.append(kind)
    if not members:
        return
    base_keys = {key.path: key for key in keys[family]}
    lines = []
    for kind in sorted(members):
        part = parts.load(shelf, kind)
        description = _escape(_describe_part(part.__doc__, part.Config.__doc__))
        defaults = []
        for key in keys[kind]:
            base = base_keys.get(key.path)
            if base is not None and key.default != base.default:
                defaults.append(_name_with_default(key, base))
        separator = " " if defaults else ""
        lines.append(f"- `{kind}`: {description}{separator}{', '.join(defaults)}")
    yield f"With the keys of `{family}` and these defaults:"
    yield "\n".join(lines)


def _write_list(keys: Iterable[Key]) -> list[str]:
    """Write keys as one block with a list, or as no block if there are no keys."""
    lines = []
    for key in keys:
        default = ""
        if key.default not in EMPTY_DEFAULTS:
            default = f" ({_write_code(_shorten_default(key.default))})"
        lines.append(f"- `{key.path}`{default}: {_escape(key.meaning)}")
    return ["\n".join(lines)] if lines else []


def _shorten_default(default: str) -> str:
    """Cut a long default to its beginning."""
    if len(default) <= LONGEST_DEFAULT:
        return default
    if not default.startswith("["):
        return f"{default[:LONGEST_DEFAULT].rpartition(' ')[0]} …"
    values = default[1:-1].split(", ")
    return f"[{', '.join(values[:3])}, … {len(values)} in all]"


def _escape(text: str) -> str:
    """Write a text on one line, and escape Markdown outside its code."""
    pieces = re.split(r"(`[^`]*`)", " ".join(text.split()))
    for index in range(0, len(pieces), 2):
        piece = pieces[index].replace("*", r"\*").replace("<", "&lt;")
        # two brackets in a row would be a link
        pieces[index] = piece.replace("][", r"]\[")
    return "".join(pieces)


def _write_code(value: str) -> str:
    return f"`{' '.join(value.split())}`" if value else ""


def _describe_part(*docstrings: str | None) -> str:
    """Return the first paragraph of the docstrings, and their sources."""
    texts = list(dict.fromkeys(filter(None, docstrings)))
    blocks = [" ".join(texts[0].partition("\n\n")[0].split())]
    sources = re.findall(r"Source: (.*?)(?:\n\s*\n|$)", "\n\n".join(texts), re.DOTALL)
    for source in dict.fromkeys(sources):
        blocks.append(f"Source: {' '.join(source.split())}")
    return "\n\n".join(blocks)


def _write_recipes() -> str:
    """List the shipped recipes with their commands. Papers share a line."""
    commands: dict[str, list[str]] = {}
    for recipe in list_shipped():
        if recipe.name:
            commands.setdefault(recipe.name, []).append(recipe.command)
    papers = []
    lines = []
    for name, recipe_commands in commands.items():
        if name.startswith("papers/"):
            papers.append(f"`{name}`")
        else:
            lines.append(f"- `{name}`: {', '.join(recipe_commands)}")
    lines.append(f"- of [papers](../papers.md): {', '.join(papers)}")
    return "\n".join(lines)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in write_pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
