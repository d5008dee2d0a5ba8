"""Registry of the interchangeable parts of a recipe, such as data sets and backbones.

Some words recur:

- A part is a component that a recipe selects, such as a loss or an encoder. Its module
  has a frozen class `Config` with a `build` method.
- A knob is a field of a Config, which a recipe can set.
- A shelf is the collection of all parts of one sort, such as all losses. Most shelves
  are folders, in which each file is a part, and so is each row of `rows.yaml`. A small
  shelf is a single file whose dict `TINY` holds the parts.
- The kind of a part is its name on the shelf. A part that a user has written is named
  by the import path of its module.
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
"""Noun in messages for a part of a shelf, by name of the shelf. In the folder of a
shelf, files whose names begin with an underscore hold code that several parts share.
"""
PACKAGE = "brainhive_cli."
"""Beginning of the import paths of this package."""
PACKAGE_OF_SHELF = {
    **dict.fromkeys(("datasets", "preparations", "streams"), "data"),
    **dict.fromkeys(("augmentations", "normalisations"), "data.signals"),
    **dict.fromkeys(("corrections", "alignments"), "measurement"),
}
"""Package that contains a shelf, by name of the shelf. All other shelves are in
`brainhive_cli.models`.
"""


class Config(Section):
    """Base of the Configs of all parts.

    A subclass is the Config of one part. Its fields are the part's knobs, each with a
    unit, a default and a source. Its method `build` makes the part.
    """

    cites: ClassVar[Sequence[str]] = ()
    """Keys in `reports/references.bib` of the papers that describe the part."""

    @property
    def kind(self) -> str:
        """Name of the part among all parts of its sort, such as the losses.

        The name is made from the name of the part's file. If all parts of a sort are in
        a single file, the name is the key of the part in the dict `TINY` of this file.
        If a user has written the part, the name is the import path of the user's
        module.
        """
        module = type(self).__module__
        if not module.startswith(PACKAGE):
            return module

        # look the part up in the dict `TINY` of a single file that holds all parts
        table = getattr(sys.modules.get(module), "TINY", None)
        if isinstance(table, dict):
            for kind, config in table.items():
                if type(config) is type(self):
                    return str(kind)
        return kind_from_file_name(module.rsplit(".", 1)[-1])

    def inputs(self) -> "list[Input]":
        """List the files and weights that the part needs. By default it needs none."""
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
        # when the document is read back, the kind selects the class of the part
        return {"kind": self.kind, **serialize(self)}


class PartRow(BaseModel):
    """Part without a file of its own: an entry of the `rows.yaml` of a shelf.

    Such a part is another part (its family) with different defaults. Further keys of
    the entry set these defaults, or attributes of the Config class.

    Attributes:
        family: Part whose Config the row takes. It is the kind of another part of the
            shelf, or a class below `brainhive_cli.data`, such as
            `published.nsd.NsdPictures`.
        about: Description of the part in one sentence. If empty, the docstring of the
            family's Config is used.
        tiny: Knobs of the small example for tests (`TINY`), as far as they differ from
            the example of the family.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    family: str
    about: str = ""
    tiny: dict[str, Any] = {}


def shelf_module_name(shelf: str) -> str:
    """Return the import path of a shelf, such as `brainhive_cli.models.losses`."""
    return f"{PACKAGE}{PACKAGE_OF_SHELF.get(shelf, 'models')}.{shelf}"


def import_shelf(shelf: str) -> ModuleType:
    """Import the module of a shelf: a package, or a single file.

    A part that contains parts of another shelf calls this function when it is built,
    because an import at the top of its file could be circular.
    """
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

    A shelf is the collection of all parts of one sort. It is a folder with a file for
    each part, or a single file. Only a single file is imported.

    Args:
        shelf: Name of the shelf, such as `losses`.

    Returns:
        Kinds. The kinds in a folder are sorted.
    """
    spec = _find(shelf)
    if spec.submodule_search_locations is None:
        return list(import_shelf(shelf).TINY)

    # In a folder, each row of `rows.yaml` is a part. Each file is a part, too, if its
    # name does not begin with an underscore.
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
    """Return the kind of the part in a file, such as `my-net` for the file `my_net`.

    Recipes may use either spelling, so `file` may also be a kind from a recipe.
    """
    return file.replace("_", "-")


def file_name_from_kind(kind: str) -> str:
    """Return the name of the file that a part of this kind has, without `.py`.

    The file of `my-net` is `my_net`, and the file of `base+alignment` is
    `base_alignment`.
    """
    return kind.replace("-", "_").replace("+", "_")


def is_kind(shelf: str, name: str) -> bool:
    """Return True if a shelf has a part of this name.

    Hyphens and underscores in the name count as equal.
    """
    return kind_from_file_name(file_name_from_kind(name)) in list_kinds(shelf)


def load(shelf: str, kind: str) -> ModuleType:
    """Import the module of a part, such as a loss or an encoder.

    Args:
        shelf: Name of the collection that the part belongs to, such as `losses`.
        kind: Name of the part in this collection. A name with a dot is the import path
            of a module that the user has written.

    Returns:
        Module with the part's class `Config`. If the part belongs to Brainhive, the
        module also has `TINY`, small values of the Config for tests.

    Raises:
        RecipeError: if the shelf has no such part, if the user's module does not define
            a part, or if its import is not allowed.
        MissingExtra: if the user's module, or a package that it imports, is not
            installed.
    """
    # check the kind, which may be a number in a recipe
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
            f"{guess(kind_from_file_name(kind), kinds)}there are: {', '.join(kinds)}",
        )

    # Find the part in a row of `rows.yaml`, in a file of its own, or in the dict `TINY`
    # of a shelf that is a single file. A row and an entry of `TINY` have no module of
    # their own, so a module is made.
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
        path: Import path of the module.

    Returns:
        Module with a class `Config`. This class is a subclass of the base class of the
        shelf, such as `LossConfig`.

    Raises:
        RecipeError: if the module does not define such a class, or if its import is
            not allowed.
        MissingExtra: if the module, or a module that it imports, is not installed.
    """
    module = foreign_code.import_module(
        path, path, f"the {SHELVES[shelf]} {path}", shelf_module_name(shelf)
    )
    config = getattr(module, "Config", None)
    base = find_base_class(shelf)

    # a Config that the user's module imports from elsewhere belongs to another part
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
    """Make a module object for a part that has no file.

    Args:
        name: Import path of the module.
        config: Class of the part's Config.
        tiny: Config with small values for tests.
    """
    module = ModuleType(name, config.__doc__)
    vars(module).update(Config=config, TINY=tiny)
    return module


@cache
def _module_of_row(shelf: str, kind: str) -> ModuleType:
    """Make the module of a part that is a row of a `rows.yaml`.

    A row is a copy of another part, its family, with different defaults.

    Args:
        shelf: Shelf of the part, such as `datasets`.
        kind: Name of the row.

    Returns:
        Module with `Config`, a subclass of the family's Config, and with `TINY`, a
        Config with small values for tests.
    """
    # find the family, which is a class of a published data set or a part of this shelf
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

    # divide the values of the row into knobs (fields of the Config) and attributes
    # of the Config class
    family_fields = family.model_fields
    attributes = {}
    knobs = {}
    for name, value in (row.model_extra or {}).items():
        if name in family_fields:
            knobs[name] = value
        else:
            attributes[name] = value
    validated = validate(family, knobs, kind)

    # copy the field of each knob that the row sets, and replace its default. The field
    # of the family stays as it is
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

    # derive the class of the row. Its module is named after the row, because `kind` is
    # derived from this name
    path = f"{shelf_module_name(shelf)}.{file_name_from_kind(kind)}"
    config: Any = create_model(
        "Config",
        __base__=family,
        __module__=path,
        __doc__=row.about or family.__doc__,
        **fields,
    )

    # set the attributes. Lists become tuples, which cannot be changed
    for name, value in attributes.items():
        setattr(config, name, tuple(value) if isinstance(value, list) else value)
    return _make_module(path, config, config(**tiny | row.tiny))


def resolve(shelf: str, value: Any, default: str | None = None) -> Any:
    """Turn the value of a recipe key into the Config of a part.

    Args:
        shelf: Collection to which the part belongs, such as `losses`.
        value: Kind (name) of the part, or a mapping with its kind and its settings,
            `{kind: …, setting: …}`. A Config is returned unchanged.
        default: Kind of the part if `value` is a mapping without the key `kind`.

    Returns:
        Config of the part, with checked settings.

    Raises:
        RecipeError: if the value names no part of the shelf, or a setting is wrong.
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
        value: Config of a part, section of a recipe, or mapping or list of these. The
            fields and items of the value are searched too.

    Returns:
        BibTeX keys in `reports/references.bib`, each once.
    """
    papers = list(value.citations()) if isinstance(value, Config) else []

    # collect the papers of the fields or items
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

    Returns:
        The network or loss.

    Raises:
        BrainhiveError: if the part's `build` does not return a `torch.nn.Module`.
    """
    import torch

    # the part may be the code of a user, so the type of the result is checked
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
    """Make the pydantic validator of a recipe key that holds a part.

    The key is declared as `Annotated[Any, part_validator(…)]`.

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
        default: Kind of the part if the recipe does not have the key, or gives knobs
            without the key `kind`.
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
