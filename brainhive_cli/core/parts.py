"""Registry of the interchangeable parts of a recipe, such as data sets and backbones.

A part is a frozen `Config` with a `build` method. The parts of one sort stand on a
shelf, where each has a name, its kind. Most shelves are folders: each file is a part,
and so is each row of the folder's `rows.yaml`. A small shelf is a single file whose
dict `TINY` holds the parts by kind. A part of a user is named by the import path of its
module. The fields of a Config are the knobs that a recipe can set.
"""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from importlib.machinery import ModuleSpec
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
"""Name of each shelf, and the word for one of its parts. In the folder of a shelf,
files whose names begin with an underscore are code that several parts share.
"""
PACKAGE = "brainhive_cli."
PACKAGE_OF_SHELF = {
    **dict.fromkeys(("datasets", "preparations", "streams"), "data"),
    **dict.fromkeys(("augmentations", "normalisations"), "data.signals"),
    **dict.fromkeys(("corrections", "alignments"), "measurement"),
}
"""Packages of the shelves that are not in `brainhive_cli.models`."""


class Config(Section):
    """Base of the configs of all parts.

    A subclass lists the knobs of one part, each with its unit, default and source. Its
    `build` makes the part.
    """

    cites: ClassVar[Sequence[str]] = ()
    """Keys of the part's papers in `reports/references.bib`."""

    @property
    def kind(self) -> str:
        """Name of the part.

        The name comes from the part's file. A part without a file is named by its key
        in the table of the shelf, and a part of a user by its import path.
        """
        module = type(self).__module__
        if not module.startswith(PACKAGE):
            return module

        # a shelf that is a single file has a table of its parts
        table = getattr(sys.modules.get(module), "TINY", None)
        if isinstance(table, dict):
            for kind, config in table.items():
                if type(config) is type(self):
                    return str(kind)
        return kind_from_file_name(module.rsplit(".", 1)[-1])

    def inputs(self) -> "list[Input]":
        """List the files and weights that the part needs. The default is none."""
        return []

    def citations(self) -> Sequence[str]:
        """List the papers of the part with its present knobs. The default is `cites`.

        Returns:
            Keys in `reports/references.bib`.
        """
        return self.cites

    def __str__(self) -> str:
        """Write the part as a recipe does, by its kind or with the changed knobs."""
        knobs = self.model_dump(mode="json", exclude_defaults=True)
        # `kind` is always among them
        return write_value(knobs) if len(knobs) > 1 else self.kind

    @model_serializer(mode="wrap")
    def _with_kind(self, serialize: Any) -> dict[str, Any]:
        # the kind selects the class that reads the document back
        return {"kind": self.kind, **serialize(self)}


class PartRow(BaseModel):
    """A part that has no file: one entry of a shelf's `rows.yaml`.

    Further fields of the entry set knobs of the family, which become the defaults, or
    attributes of the Config class.

    Attributes:
        family: The part whose Config the row takes. Either the kind of a file or of
            another row, or a class below `brainhive_cli.data`, such as
            `published.nsd.NsdPictures`.
        about: Description in one sentence. Empty for the docstring of the family.
        tiny: Knobs of the row's TINY that differ from the family's TINY.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    family: str
    about: str = ""
    tiny: dict[str, Any] = {}


def shelf_module_name(shelf: str) -> str:
    """Return the import path of a shelf, such as `brainhive_cli.models.losses`."""
    return f"{PACKAGE}{PACKAGE_OF_SHELF.get(shelf, 'models')}.{shelf}"


def import_shelf(shelf: str) -> ModuleType:
    """Import the package of a shelf, or the file if the shelf is a single file.

    Parts that contain parts of another shelf use this to avoid circular imports.
    """
    return importlib.import_module(shelf_module_name(shelf))


def find_base_class(shelf: str) -> type[Config]:
    """Return the base class of a shelf's Configs, such as `BackboneConfig`."""
    names = vars(import_shelf(shelf))
    base: type[Config] = names.get(f"{SHELVES[shelf].capitalize()}Config", Config)
    return base


@cache
def read_rows(shelf: str) -> Mapping[str, PartRow]:
    """Read the `rows.yaml` of a shelf without importing the shelf.

    Returns:
        The rows by kind. Empty if the shelf has no such file.
    """
    file = Path(str(_find(shelf).origin)).with_name("rows.yaml")
    return documents.read(file, dict[str, PartRow]) if file.is_file() else {}


@cache
def list_kinds(shelf: str) -> list[str]:
    """List the kinds of all parts on a shelf. Only a shelf of one file is imported."""
    spec = _find(shelf)
    if spec.submodule_search_locations is None:
        return list(import_shelf(shelf).TINY)

    # in a folder: the rows, and the files without shared code
    files = [file_name_from_kind(kind) for kind in read_rows(shelf)]
    for module in pkgutil.iter_modules(spec.submodule_search_locations):
        if not module.name.startswith("_"):
            files.append(module.name)
    return [kind_from_file_name(file) for file in sorted(files)]


def _find(shelf: str) -> ModuleSpec:
    """Find the import spec of a shelf without importing the shelf.

    Returns:
        The spec. It has `submodule_search_locations` only if the shelf is a folder.
    """
    spec = importlib.util.find_spec(shelf_module_name(shelf))
    assert spec is not None
    return spec


def kind_from_file_name(file: str) -> str:
    """Return the kind of the part in a file, such as `my-net` for `my_net`.

    A recipe may use either spelling.
    """
    return file.replace("_", "-")


def file_name_from_kind(kind: str) -> str:
    """Return the file name of a part, without its ending.

    The name of `my-net` is `my_net`, and the name of `base+alignment` is
    `base_alignment`.
    """
    return kind.replace("-", "_").replace("+", "_")


def is_kind(shelf: str, name: str) -> bool:
    """Return True if a shelf has a part of this name, in any spelling."""
    return kind_from_file_name(file_name_from_kind(name)) in list_kinds(shelf)


def load(shelf: str, kind: str) -> ModuleType:
    """Import a part.

    Args:
        shelf: Shelf of the part.
        kind: Kind of the part. A kind with a dot is the import path of a user's module.

    Returns:
        A module with the class `Config`. For parts of the package it also has `TINY`,
        an instance with small values for tests.

    Raises:
        RecipeError: if the shelf has no such part, the user's module does not define a
            part, or its import is not allowed.
        MissingExtra: if the user's module, or a package that it imports, is not
            installed.
    """
    if not isinstance(kind, str):  # recipes may hold numbers
        raise RecipeError(
            f"the kind of a {SHELVES[shelf]} is a text, not {kind!r}",
            f"kinds: {', '.join(list_kinds(shelf))}",
        )
    if "." in kind:
        return _load_own_part(shelf, kind)
    if not is_kind(shelf, kind):
        kinds = list_kinds(shelf)
        raise RecipeError(
            f"there is no {SHELVES[shelf]} called {kind!r}",
            f"{guess(kind_from_file_name(kind), kinds)}there are: {', '.join(kinds)}",
        )

    # the part is a row of the shelf, a file, or an entry of the table
    name = kind_from_file_name(file_name_from_kind(kind))
    module_name = f"{shelf_module_name(shelf)}.{file_name_from_kind(kind)}"
    if name in read_rows(shelf):
        return _module_of_row(shelf, name)
    if _find(shelf).submodule_search_locations is not None:
        return importlib.import_module(module_name)
    tiny = import_shelf(shelf).TINY[name]
    return _make_module(module_name, type(tiny), tiny)


def _load_own_part(shelf: str, path: str) -> ModuleType:
    """Import a user's module that defines a part of a shelf."""
    module = foreign_code.import_module(
        path, path, f"the {SHELVES[shelf]} {path}", shelf_module_name(shelf)
    )
    config = getattr(module, "Config", None)
    base = find_base_class(shelf)

    # a Config that was imported from another module is a different part
    is_part = (
        isinstance(config, type)
        and issubclass(config, base)
        and config.__module__ == path
    )
    if not is_part:
        raise RecipeError(
            f"the module {path!r} does not define a {SHELVES[shelf]}",
            f"define a class `Config` in it, a subclass of "
            f"{base.__module__}.{base.__name__}",
        )
    return module


def _make_module(name: str, config: Any, tiny: Any) -> ModuleType:
    """Make the module of a part that has no file."""
    module = ModuleType(name, config.__doc__)
    vars(module).update(Config=config, TINY=tiny)
    return module


@cache
def _module_of_row(shelf: str, kind: str) -> ModuleType:
    """Make the module of a row, with its `Config` and `TINY`."""
    # the family is a class of a published data set, or a part of this shelf
    row = read_rows(shelf)[kind]
    module_name, _, class_name = row.family.rpartition(".")
    if module_name:
        module = importlib.import_module(f"{PACKAGE}data.{module_name}")
        family: Any = getattr(module, class_name)
        tiny = {}
    else:
        family_module = load(shelf, row.family)
        family = family_module.Config
        tiny = dict(family_module.TINY)

    # values that the row sets are knobs of the family, or attributes of the class
    family_fields = family.model_fields
    attributes = {}
    knobs = {}
    for name, value in (row.model_extra or {}).items():
        if name in family_fields:
            knobs[name] = value
        else:
            attributes[name] = value
    validated = validate(family, knobs, kind)

    # a knob becomes the default of a copied field, so the family keeps its own default
    fields: dict[str, Any] = {}
    for name in validated.model_fields_set:
        field = family_fields[name].asdict()
        settings = dict(field["attributes"])
        settings["default"] = getattr(validated, name)
        settings["default_factory"] = None
        annotation = [field["annotation"]]
        annotation += field["metadata"]
        annotation.append(Field(**settings))
        fields[name] = Annotated[tuple(annotation)]

    # the kind of the row is read from the module's name
    path = f"{shelf_module_name(shelf)}.{file_name_from_kind(kind)}"
    config: Any = create_model(
        "Config",
        __base__=family,
        __module__=path,
        __doc__=row.about or family.__doc__,
        **fields,
    )

    # lists become tuples, which nobody can change
    for name, value in attributes.items():
        setattr(config, name, tuple(value) if isinstance(value, list) else value)
    return _make_module(path, config, config(**tiny | row.tiny))


def resolve(shelf: str, value: Any, default: str | None = None) -> Any:
    """Turn the value of a recipe key into the Config of a part.

    Args:
        shelf: Shelf of the part.
        value: A kind, a mapping `{kind: …, knob: …}`, or a Config, which is returned
            unchanged.
        default: Kind of a mapping without `kind`.

    Raises:
        RecipeError: if the value names no part of the shelf, or a knob is wrong.
    """
    if isinstance(value, Config):
        return value
    fields = dict(value) if isinstance(value, dict) else {"kind": value}
    kind = fields.pop("kind", default)
    if not isinstance(kind, str):
        raise RecipeError(
            f"{value!r} does not name a {SHELVES[shelf]}",
            f"kinds: {', '.join(list_kinds(shelf))}",
        )
    return validate(load(shelf, kind).Config, fields, section=SHELVES[shelf])


def list_papers(value: object) -> list[str]:
    """List the papers of all parts in a value, each once.

    Args:
        value: A part, a section of a recipe, or a mapping or list of these. Parts
            inside them count too.

    Returns:
        Keys in `reports/references.bib`.
    """
    papers = list(value.citations()) if isinstance(value, Config) else []
    children: Iterable[object] = ()
    if isinstance(value, BaseModel):
        children = vars(value).values()
    elif isinstance(value, Mapping):
        children = value.values()
    elif isinstance(value, list | tuple):
        children = value
    for child in children:
        papers += list_papers(child)
    return list(dict.fromkeys(papers))


def build_module(config: Any, *arguments: Any) -> "torch.nn.Module":
    """Build a part that is a network or a loss.

    Raises:
        BrainhiveError: if the part's `build` does not return a `torch.nn.Module`.
    """
    import torch

    # the `build` of a user may return anything
    module = config.build(*arguments)
    if not isinstance(module, torch.nn.Module):
        name = foreign_code.name_object(config, config.kind)
        raise BrainhiveError(
            f"{name}: build returns {type(module).__name__}, not a torch.nn.Module",
            "let build return the module",
        )
    return module


def part_validator(
    shelf: str, default: str, is_optional: bool = False
) -> BeforeValidator:
    """Return the validator of a recipe key that holds a part.

    The key is declared as `Annotated[Any, part_validator(…)]`.

    Args:
        shelf: Shelf of the part.
        default: Kind of a part that is written without `kind`.
        is_optional: Accept None, for no part.
    """
    return BeforeValidator(partial(_resolve_key, shelf, default, is_optional))


def part_field(shelf: str, default: str, description: str) -> Any:
    """Return the pydantic field of a recipe key that holds a part.

    Args:
        shelf: Shelf of the part.
        default: Kind of the default part, and of a part that is written without `kind`.
        description: Help text of the key.
    """
    field = Field(default, validate_default=True, description=description)
    field.metadata.append(part_validator(shelf, default))
    return field


def _resolve_key(shelf: str, default: str, is_optional: bool, value: Any) -> Any:
    return None if is_optional and value is None else resolve(shelf, value, default)


OtherDataset = Annotated[Any, part_validator("datasets", "things-eeg", True)]
"""Type of a recipe key that may name a second data set."""
