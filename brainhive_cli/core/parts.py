"""Parts: a part is a frozen Config that builds, named by its kind on a shelf, or by its
module's import path.

A shelf is a folder: every file is a part, and so is every row of its `rows.yaml`. A
small shelf is a file, whose table `TINY` lists the parts.
"""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from importlib.machinery import ModuleSpec
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    create_model,
    model_serializer,
)

from brainhive_cli.core import documents, foreign_code
from brainhive_cli.core.errors import BrainhiveError, RecipeError, guess, write_value
from brainhive_cli.core.recipe import validate
from brainhive_cli.core.sections import Section

if TYPE_CHECKING:
    import torch

    from brainhive_cli.core.command import Input

SHELVES = {
    "datasets": "dataset",
    "preparations": "preparation",
    "streams": "source",
    "encoders": "encoder",
    "backbones": "backbone",
    "fusers": "fuser",
    "losses": "loss",
    "priors": "prior",
    "generators": "generator",
    "augmentations": "augmentation",
    "normalisations": "normalisation",
    "corrections": "correction",
    "alignments": "alignment",
}
"""The shelves, and what one part of each is called. In a folder, files whose names
begin with an underscore are shared pieces.
"""
PACKAGE = "brainhive_cli."
ROOMS = {
    **dict.fromkeys(("datasets", "preparations", "streams"), "data"),
    **dict.fromkeys(("augmentations", "normalisations"), "data.signals"),
    **dict.fromkeys(("corrections", "alignments"), "measurement"),
}
"""Packages of the shelves that are not in `models`."""


class Config(Section):
    """Every knob of one part, with its unit, default and source; `build` makes the
    part.
    """

    cites: ClassVar[Sequence[str]] = ()
    """Keys of the papers behind it in `reports/references.bib`."""

    @property
    def kind(self) -> str:
        """Name of the part: its file's, or its key in a shelf's file; outside the
        package the import path.
        """
        module = type(self).__module__
        if not module.startswith(PACKAGE):
            return module

        # on a shelf that is one file, the key of this class in its table
        table = getattr(sys.modules.get(module), "TINY", None)
        # of a shelf that is one file
        kinds = table.items() if isinstance(table, dict) else ()
        by_file = name_of(module.rsplit(".", 1)[-1])
        return next(
            (str(kind) for kind, tiny in kinds if type(tiny) is type(self)), by_file
        )

    def inputs(self) -> "list[Input]":
        """List the files and weights that the part needs; by default none."""
        return []

    def citations(self) -> Sequence[str]:
        """List the papers behind it as its knobs are set; by default `cites`."""
        return self.cites

    def __str__(self) -> str:
        """Write the part as a recipe names it: by its kind, else with its knobs."""
        knobs = self.model_dump(mode="json", exclude_defaults=True)
        return write_value(knobs) if len(knobs) > 1 else self.kind

    @model_serializer(mode="wrap")
    def _with_kind(self, fields: Any) -> dict[str, Any]:
        # the kind tells which Config reads the knobs back
        return {"kind": self.kind, **fields(self)}


class PartRow(BaseModel):
    """A part without a file on its shelf: an entry of the shelf's `rows.yaml`.

    All further fields are values: defaults of knobs, and attributes of the Config's
    class, by name.

    Attributes:
        family: The kind whose Config it takes, a file's or another row's; or a class
            below `data` that is its Config, as `published.nsd.NsdPictures`.
        about: What it is, in one sentence; default: as the class says.
        tiny: The knobs of its TINY that differ from the family's.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    family: str
    about: str = ""
    tiny: dict[str, Any] = {}


def path_of(shelf: str) -> str:
    """Give the import path of a shelf."""
    return f"{PACKAGE}{ROOMS.get(shelf, 'models')}.{shelf}"


def package(shelf: str) -> ModuleType:
    """Import what the parts of a shelf have in common, for parts that are made of parts
    of another shelf.
    """
    return importlib.import_module(path_of(shelf))


def base_of(shelf: str) -> type[Config]:
    """Return the base of a shelf's Configs, such as `BackboneConfig`: the contract,
    with its defaults.
    """
    base: type[Config] = vars(package(shelf)).get(
        f"{SHELVES[shelf].capitalize()}Config", Config
    )
    return base


@cache
def rows(shelf: str) -> Mapping[str, PartRow]:
    """Read the rows of a shelf's families, by kind, without importing the shelf."""
    file = Path(str(_find(shelf).origin)).with_name("rows.yaml")
    return documents.read(file, dict[str, PartRow]) if file.is_file() else {}


@cache
def kinds(shelf: str) -> list[str]:
    """List the parts on a shelf; a folder is not imported for it."""
    spec = _find(shelf)
    if spec.submodule_search_locations is None:
        return [*package(shelf).TINY]

    # a folder: its files without shared pieces, and its rows
    names = (
        module.name for module in pkgutil.iter_modules(spec.submodule_search_locations)
    )
    files = [name for name in names if not name.startswith("_")]
    return [name_of(file) for file in sorted([*files, *map(file_of, rows(shelf))])]


def _find(shelf: str) -> ModuleSpec:
    """Find a shelf without importing it: a folder has search locations, a file has
    none.
    """
    spec = importlib.util.find_spec(path_of(shelf))
    assert spec is not None
    return spec


def name_of(file: str) -> str:
    """Name a part after its file: `my_net` is shown as `my-net`, and may be written
    either way.
    """
    return file.replace("_", "-")


def file_of(kind: str) -> str:
    """Name the file of a part: `my-net` is `my_net`, and `base+alignment` is
    `base_alignment`.
    """
    return kind.replace("-", "_").replace("+", "_")


def is_kind(shelf: str, name: str) -> bool:
    """Whether a shelf has a part of this name, however it is written."""
    return name_of(file_of(name)) in kinds(shelf)


def load(shelf: str, kind: str) -> ModuleType:
    """Import the part called `kind`, as a module with its `Config` and, if it is the
    package's, its `TINY`.

    A kind with a dot is the import path of a module that is a part.

    Raises:
        RecipeError: if the shelf has no such part, or the module is no part, or the
            user did not allow it.
        MissingExtra: if the module is not there.
    """
    if not isinstance(kind, str):  # as files have it
        raise RecipeError(
            f"a {SHELVES[shelf]} of kind {kind!r}", f"kinds: {', '.join(kinds(shelf))}"
        )

    # a module of the user
    if "." in kind:
        module = foreign_code.import_module(
            kind, kind, f"the {SHELVES[shelf]} {kind}", path_of(shelf)
        )
        config = getattr(module, "Config", None)
        base = base_of(shelf)
        # a Config imported from another module belongs to that part
        if not (
            isinstance(config, type)
            and issubclass(config, base)
            and config.__module__ == kind
        ):
            raise RecipeError(
                f"the module {kind!r} is no {SHELVES[shelf]}",
                "a part defines `Config`, a subclass of "
                f"{base.__module__}.{base.__name__}",
            )
        return module

    # a row, a file, or an entry of the table in the shelf's file
    if not is_kind(shelf, kind):
        known = kinds(shelf)
        raise RecipeError(
            f"no {SHELVES[shelf]} called {kind!r}",
            f"{guess(name_of(kind), known)}there are: {', '.join(known)}",
        )
    name = name_of(file_of(kind))
    if name in rows(shelf):
        return _module_of_row(shelf, name)
    if _find(shelf).submodule_search_locations is not None:
        return importlib.import_module(f"{path_of(shelf)}.{file_of(kind)}")

    # an entry of the table gets the module that its file would be
    tiny = package(shelf).TINY[name]
    return _make_module(f"{path_of(shelf)}.{file_of(kind)}", type(tiny), tiny)


def _make_module(name: str, config: Any, tiny: Any) -> ModuleType:
    """Make what the file of a part without one would be."""
    module = ModuleType(name, config.__doc__)
    vars(module).update(Config=config, TINY=tiny)
    return module


@cache
def _module_of_row(shelf: str, kind: str) -> ModuleType:
    """Make the Config and TINY of a row."""
    # the Config and TINY of a family, or a class of a published data set
    row = rows(shelf)[kind]
    module_name, _, class_name = row.family.rpartition(".")
    if module_name:
        family: Any = getattr(
            importlib.import_module(f"{PACKAGE}data.{module_name}"), class_name
        )
        tiny = {}
    else:
        part_of_family = load(shelf, row.family)
        family = part_of_family.Config
        tiny = dict(part_of_family.TINY)

    # knobs that the row sets become defaults; other values are attributes
    known = family.model_fields
    values = dict(row.model_extra or {})
    knobs = validate(
        family, {name: values.pop(name) for name in known.keys() & values.keys()}, kind
    )
    fields: dict[str, Any] = {}
    for name in knobs.model_fields_set:
        # a copy of the field, so that the family has its default still
        field = known[name].asdict()
        changed = field["attributes"] | {
            "default": getattr(knobs, name),
            "default_factory": None,
        }
        annotation = (field["annotation"], *field["metadata"], Field(**changed))
        fields[name] = Annotated[annotation]

    # the module of the row
    path = f"{path_of(shelf)}.{file_of(kind)}"
    config: Any = create_model(
        "Config",
        __base__=family,
        __module__=path,  # which its kind is read from
        __doc__=row.about or family.__doc__,
        **fields,
    )

    # attributes of the class; lists become tuples, which nobody can change
    for name, value in values.items():
        setattr(config, name, tuple(value) if isinstance(value, list) else value)
    return _make_module(path, config, config(**tiny | row.tiny))


def resolve(shelf: str, value: Any, default: str | None = None) -> Any:
    """Turn `kind`, or `{kind: …, knob: …}` (kind `default` if it names none), into the
    part's Config.
    """
    if isinstance(value, Config):
        return value

    # a kind alone, or a kind with knobs
    fields = dict(value) if isinstance(value, dict) else {"kind": value}
    kind = fields.pop("kind", default)
    if not isinstance(kind, str):
        raise RecipeError(
            f"{value!r} names no {SHELVES[shelf]}", f"kinds: {', '.join(kinds(shelf))}"
        )
    return validate(load(shelf, kind).Config, fields, where=SHELVES[shelf])


def cited(value: object) -> list[str]:
    """List the papers behind a part and the parts in it, or behind all parts of a
    section of a recipe.
    """
    # parts may lie in models, mappings and lists
    inner: Iterable[object] = ()
    if isinstance(value, BaseModel):
        inner = vars(value).values()
    elif isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    of_part = value.citations() if isinstance(value, Config) else ()
    return [*dict.fromkeys(chain(of_part, *map(cited, inner)))]


def build_module(config: Any, *arguments: Any) -> "torch.nn.Module":
    """Build a part that is a network or a loss.

    Raises:
        BrainhiveError: if its `build` returns something else.
    """
    import torch

    # code of users may return anything
    module = config.build(*arguments)
    if not isinstance(module, torch.nn.Module):
        name = foreign_code.name_of(config, config.kind)
        raise BrainhiveError(
            f"{name}: build returns {type(module).__name__}, not a torch.nn.Module",
            "return the module",
        )
    return module


def part(shelf: str, default: str, is_optional: bool = False) -> BeforeValidator:
    """Mark a recipe key, as `Annotated[Any, part(…)]`, as a part of `shelf`, of kind
    `default` if unnamed.
    """
    return BeforeValidator(partial(_resolve_key, shelf, default, is_optional))


def key(shelf: str, default: str, description: str) -> Any:
    """Describe a recipe key as a part of `shelf`, by default of this kind."""
    field = Field(default, validate_default=True, description=description)
    field.metadata.append(part(shelf, default))
    return field


def _resolve_key(shelf: str, default: str, is_optional: bool, value: Any) -> Any:
    return None if is_optional and value is None else resolve(shelf, value, default)


OtherDataset = Annotated[Any, part("datasets", "things-eeg", is_optional=True)]
"""Another data set than that of a run."""
