"""Registry of the interchangeable parts of a recipe, such as data sets and backbones.

- part: component that a recipe selects, such as a loss, with a class `Config`
- knob: field of a Config, which a recipe can set
- shelf: all parts of one sort, such as all losses. It is a folder whose files and rows
  of `rows.yaml` are the parts, or a file with the parts in the dict `TINY`.
- kind: name of a part on its shelf, or import path of a user's part
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

from brainhive_cli.core.base import BrainhiveError, RecipeError, guess, write_value
from brainhive_cli.core.files import documents, foreign_code
from brainhive_cli.core.recipes.keys import Section
from brainhive_cli.core.recipes.recipe import validate

if TYPE_CHECKING:
    import torch

    from brainhive_cli.core.files import Input

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
"""Noun in messages for a part of a shelf, by name of the shelf."""
PACKAGE = "brainhive_cli."
"""Beginning of the import paths of this package."""


class Config(Section):
    """Base of the Configs of all parts.

    The fields are the part's knobs. The method `build` of a subclass makes the part.
    """

    cites: ClassVar[Sequence[str]] = ()
    """Keys in `reports/references.bib` of the papers that describe the part."""
    called: ClassVar[str] = ""
    """Words for the part in a methods paragraph, such as `averaged` for a fuser."""

    @property
    def kind(self) -> str:
        """Name of the part among all parts of its sort, such as `my-net`.

        - user's part: the import path of its module
        - part in a single file with the dict `TINY`: its key in `TINY`
        - other part: the name of its file, with hyphens
        """
        module = type(self).__module__
        if not module.startswith(PACKAGE):
            return module

        table = getattr(sys.modules.get(module), "TINY", None)
        if isinstance(table, dict):
            for kind, config in table.items():
                if type(config) is type(self):
                    return str(kind)
        return kind_from_file_name(module.rsplit(".", 1)[-1])

    def inputs(self) -> "list[Input]":
        """List the files and weights that the part needs, by default none."""
        return []

    def citations(self) -> Sequence[str]:
        """List the papers that describe the part with its present knobs.

        Returns:
            Keys in `reports/references.bib`, by default the keys in `cites`.
        """
        return self.cites

    def __str__(self) -> str:
        """Write the part as in a recipe: its kind, with the knobs that were changed."""
        knobs = self.model_dump(mode="json", exclude_defaults=True)
        # the key `kind` is always present, so a second key is a changed knob
        return write_value(knobs) if len(knobs) > 1 else self.kind

    @model_serializer(mode="wrap")
    def _with_kind(self, serialize: Any) -> dict[str, Any]:
        # the kind selects the class when the document is read
        return {"kind": self.kind, **serialize(self)}


class PartRow(BaseModel):
    """Entry of a `rows.yaml`: a part that is another part with different defaults.

    Further keys of the entry set these defaults, or attributes of the Config class.

    Attributes:
        family: Kind of the other part, or a class below `brainhive_cli.data`,
            such as `published.nsd.NsdPictures`.
        about: Description of the part, or "" for the description of the family.
        tiny: Knobs of the example for tests (`TINY`) that differ from the family's.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    family: str
    about: str = ""
    tiny: dict[str, Any] = {}


def shelf_module_name(shelf: str) -> str:
    """Return the import path of a shelf, such as `brainhive_cli.models.losses`."""
    # Package that contains a shelf, by name of the shelf, if it is not `models`.
    package_of_shelf = {
        **dict.fromkeys(("datasets", "preparations", "streams"), "data"),
        **dict.fromkeys(("augmentations", "normalisations"), "data.signals"),
        **dict.fromkeys(("corrections", "alignments"), "measurement"),
    }
    return f"{PACKAGE}{package_of_shelf.get(shelf, 'models')}.{shelf}"


def import_shelf(shelf: str) -> ModuleType:
    """Import the module of a shelf: a package, or a single file."""
    return importlib.import_module(shelf_module_name(shelf))


def find_base_class(shelf: str) -> type[Config]:
    """Return the base class of the Configs on a shelf, such as `BackboneConfig`."""
    class_name = f"{SHELVES[shelf].capitalize()}Config"
    base: type[Config] = vars(import_shelf(shelf)).get(class_name, Config)
    return base


@cache
def read_rows(shelf: str) -> Mapping[str, PartRow]:
    """Read the `rows.yaml` of a shelf without importing the shelf.

    Returns:
        Rows by kind of the part. Empty if the shelf has no such file.
    """
    file = Path(str(_find(shelf).origin)).with_name("rows.yaml")
    return documents.read(file, dict[str, PartRow]) if file.is_file() else {}


@cache
def list_kinds(shelf: str) -> list[str]:
    """List the kinds (names) of all parts on a shelf.

    Args:
        shelf: Name of the collection of parts, such as `losses`.

    Returns:
        Kinds, sorted by file name, or in the order of `TINY` if the shelf is a file.
    """
    spec = _find(shelf)
    if spec.submodule_search_locations is None:
        return list(import_shelf(shelf).TINY)

    # files whose names begin with an underscore hold code that several parts share
    files = [file_name_from_kind(kind) for kind in read_rows(shelf)]
    for module in pkgutil.iter_modules(spec.submodule_search_locations):
        if not module.name.startswith("_"):
            files.append(module.name)
    return [kind_from_file_name(file) for file in sorted(files)]


def _find(shelf: str) -> ModuleSpec:
    """Find the import spec of a shelf without importing the shelf.

    The spec has `submodule_search_locations` only if the shelf is a folder.
    """
    spec = importlib.util.find_spec(shelf_module_name(shelf))
    assert spec is not None
    return spec


def kind_from_file_name(file: str) -> str:
    """Return the kind of the part in a file, such as `my-net` for the file `my_net`."""
    return file.replace("_", "-")


def file_name_from_kind(kind: str) -> str:
    """Return the file name of a kind, such as `my_net` for `my-net`.

    A plus sign becomes an underscore too.
    """
    return kind.replace("-", "_").replace("+", "_")


def is_kind(shelf: str, name: str) -> bool:
    """Return True if a shelf has a part of this name, with hyphens or underscores."""
    return kind_from_file_name(file_name_from_kind(name)) in list_kinds(shelf)


def load(shelf: str, kind: str) -> ModuleType:
    """Import the module of a part, such as a loss or an encoder.

    Args:
        shelf: Name of the collection that the part belongs to, such as `losses`.
        kind: Name of the part, or import path (with a dot) of a user's module.

    Returns:
        Module with the part's class `Config`. A part of Brainhive also has `TINY`,
        small values of the Config for tests.

    Raises:
        RecipeError: if the shelf has no such part, or the user's module defines none or
            is not allowed.
        MissingExtra: if the user's module, or a package that it imports, is missing.
    """
    # the kind may be a number in a recipe
    if not isinstance(kind, str):
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
            f"{guess(kind_from_file_name(kind), kinds)}choose from: {', '.join(kinds)}",
        )

    # a row of `rows.yaml` and an entry of `TINY` have no module, so a module is made
    name = kind_from_file_name(file_name_from_kind(kind))
    module_name = f"{shelf_module_name(shelf)}.{file_name_from_kind(kind)}"
    if name in read_rows(shelf):
        return _module_of_row(shelf, name)
    if _find(shelf).submodule_search_locations is not None:
        return importlib.import_module(module_name)
    tiny = import_shelf(shelf).TINY[name]
    return _make_module(module_name, type(tiny), tiny)


def _load_own_part(shelf: str, path: str) -> ModuleType:
    """Import a module of a user that defines a part, such as a loss.

    Args:
        shelf: Collection to which the part belongs, such as `losses`.
        path: Import path of the module, which must have a class `Config` of its own.
    """
    module = foreign_code.import_module(
        path, path, f"the {SHELVES[shelf]} {path}", shelf_module_name(shelf)
    )
    config = getattr(module, "Config", None)
    base = find_base_class(shelf)

    # an imported Config belongs to another part
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
    """Make a module object for a part that has no file."""
    module = ModuleType(name, config.__doc__)
    vars(module).update(Config=config, TINY=tiny)
    return module


@cache
def _module_of_row(shelf: str, kind: str) -> ModuleType:
    """Make the module of a part that is a row of a `rows.yaml`.

    Its `Config` is a subclass of the Config of the row's family.
    """
    # find the family: a class of a published data set, or a part of this shelf
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

    # divide the values into knobs and class attributes
    family_fields = family.model_fields
    attributes = {}
    knobs = {}
    for name, value in (row.model_extra or {}).items():
        if name in family_fields:
            knobs[name] = value
        else:
            attributes[name] = value
    validated = validate(family, knobs, kind)

    # copy the field of each knob that the row sets, with another default
    fields: dict[str, Any] = {}
    for name in validated.model_fields_set:
        field = family_fields[name].asdict()
        settings = dict(field["attributes"])
        settings["default"] = getattr(validated, name)
        settings["default_factory"] = None
        # a type and its metadata
        annotation = [field["annotation"]]
        annotation += field["metadata"]
        annotation.append(Field(**settings))
        fields[name] = Annotated[tuple(annotation)]

    # the name of its module gives the class its `kind`
    path = f"{shelf_module_name(shelf)}.{file_name_from_kind(kind)}"
    config: Any = create_model(
        "Config",
        __base__=family,
        __module__=path,
        __doc__=row.about or family.__doc__,
        **fields,
    )

    # lists become tuples, which cannot be changed
    for name, value in attributes.items():
        setattr(config, name, tuple(value) if isinstance(value, list) else value)
    return _make_module(path, config, config(**tiny | row.tiny))


def resolve(shelf: str, value: Any, default: str | None = None) -> Any:
    """Turn the value of a recipe key into the Config of a part.

    Args:
        shelf: Collection to which the part belongs, such as `losses`.
        value: Kind of the part, a mapping `{kind: …, setting: …}`, or a Config, which
            is returned unchanged.
        default: Kind of the part if `value` is a mapping without the key `kind`.

    Returns:
        Config of the part, with checked settings.

    Raises:
        RecipeError: if the value names no part of the shelf, or a setting is wrong.
        MissingExtra: if the module of a user's part is not installed.
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
    """List the papers that describe the parts in a recipe or in a section of a recipe.

    Args:
        value: Config, section of a recipe, or nested mapping or list of these.

    Returns:
        BibTeX keys in `reports/references.bib`, each once.
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

    Args:
        config: Config of the part.
        arguments: Arguments of the method `build` of this Config.

    Raises:
        BrainhiveError: if `build` does not return a `torch.nn.Module`.
    """
    import torch

    # a user's part may return another type
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
    """Make the validator of a recipe key `Annotated[Any, part_validator(…)]`.

    Args:
        shelf: Shelf of the part, such as `losses`.
        default: Kind of the part if the recipe gives knobs without the key `kind`.
        is_optional: True if the key may also be None, for no part.
    """
    return BeforeValidator(partial(_resolve_key, shelf, default, is_optional))


def part_field(shelf: str, default: str, description: str) -> Any:
    """Make the pydantic field of a recipe key that holds a part.

    Args:
        shelf: Shelf of the part, such as `losses`.
        default: Kind of the part if the recipe does not name a kind.
        description: Help text of the recipe key.
    """
    field = Field(default, validate_default=True, description=description)
    field.metadata.append(part_validator(shelf, default))
    return field


def _resolve_key(shelf: str, default: str, is_optional: bool, value: Any) -> Any:
    """Resolve the value of a recipe key, as a validator of pydantic."""
    return None if is_optional and value is None else resolve(shelf, value, default)


OtherDataset = Annotated[Any, part_validator("datasets", "things-eeg", True)]
"""Type of a recipe key that may name a second data set."""
