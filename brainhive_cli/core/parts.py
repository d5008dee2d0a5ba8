"""What a part is: a frozen Config that builds, in a file whose name is its kind."""

import importlib
import pkgutil
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import BeforeValidator, model_serializer

from brainhive_cli.core import foreign_code
from brainhive_cli.core.errors import BrainhiveError, RecipeError, guess
from brainhive_cli.core.recipe import Keys, validate

if TYPE_CHECKING:
    import torch

SHELVES = {
    "datasets": "dataset",
    "preparations": "preparation",
    "encoders": "encoder",
    "backbones": "backbone",
    "fusers": "fuser",
    "losses": "loss",
    "priors": "prior",
    "generators": "generator",
}
"""The folders whose every file is a part (names that begin with an underscore are shared pieces), and what
one part of each is called."""
PACKAGE = "brainhive_cli."


class Config(Keys):
    """Every knob of one part, with its unit, default and source; `build` makes the part."""

    @property
    def kind(self) -> str:
        """The part's name, after its file; the whole import path of one outside the package."""
        module = type(self).__module__
        return name_of(module.rsplit(".", 1)[-1]) if module.startswith(PACKAGE) else module

    @model_serializer(mode="wrap")
    def _with_kind(self, fields: Any) -> dict[str, Any]:
        return {"kind": self.kind, **fields(self)}


def package(shelf: str) -> ModuleType:
    """Import what the parts of a shelf have in common, for parts that are made of parts of another shelf."""
    return importlib.import_module(f"brainhive_cli.{shelf}")


def kinds(shelf: str) -> list[str]:
    """List the parts on a shelf without importing them."""
    found = pkgutil.iter_modules(package(shelf).__path__)
    return [name_of(module.name) for module in found if not module.name.startswith("_")]


def name_of(file: str) -> str:
    """Name a part after its file: `my_net` is shown as `my-net`, and may be written either way."""
    return file.replace("_", "-")


def file_of(kind: str) -> str:
    """Name the file of a part: `my-net` is `my_net`, and `base+alignment` is `base_alignment`."""
    return kind.replace("-", "_").replace("+", "_")


def is_kind(shelf: str, name: str) -> bool:
    """Whether a shelf has a part of this name, however it is written."""
    return name_of(file_of(name)) in kinds(shelf)


def load(shelf: str, kind: str) -> ModuleType:
    """Import the part called `kind`; a kind with a dot is the import path of a module that is a part.

    Raises:
        RecipeError: if the shelf has no such part, or the module is no part, or the user did not allow it.
        MissingExtra: if the module is not there.
    """
    if not isinstance(kind, str):  # as files have it
        raise RecipeError(f"a {SHELVES[shelf]} of kind {kind!r}", f"kinds: {', '.join(kinds(shelf))}")
    if "." in kind:
        return _load_module(shelf, kind)
    if not is_kind(shelf, kind):
        known = kinds(shelf)
        hint = f"{guess(name_of(kind), known)}there are: {', '.join(known)}"
        raise RecipeError(f"no {SHELVES[shelf]} called {kind!r}", hint)
    return importlib.import_module(f"brainhive_cli.{shelf}.{file_of(kind)}")


def _load_module(shelf: str, path: str) -> ModuleType:
    module = foreign_code.import_module(path, path, f"the {SHELVES[shelf]} {path}")
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Config) and config.__module__ == path):
        raise RecipeError(
            f"the module {path!r} is no {SHELVES[shelf]}",
            "a part defines `Config`, a subclass of brainhive_cli.core.parts.Config",
        )
    return module


def resolve(shelf: str, value: Any, default: str | None = None) -> Any:
    """Turn `kind`, or `{kind: …, knob: …}` (kind `default` if it names none), into the part's Config."""
    if isinstance(value, Config):
        return value
    fields = dict(value) if isinstance(value, dict) else {"kind": value}
    kind = fields.pop("kind", default)
    if not isinstance(kind, str):
        raise RecipeError(f"{value!r} names no {SHELVES[shelf]}", f"kinds: {', '.join(kinds(shelf))}")
    return validate(load(shelf, kind).Config, fields, where=SHELVES[shelf])


def build_module(config: Any, *arguments: Any) -> "torch.nn.Module":
    """Build a part that is a network or a loss.

    Raises:
        BrainhiveError: if its `build` returns something else.
    """
    import torch

    module = config.build(*arguments)
    if not isinstance(module, torch.nn.Module):
        name = foreign_code.name_of(config, config.kind)
        raise BrainhiveError(
            f"{name}: build returns {type(module).__name__}, not a torch.nn.Module", "return the module"
        )
    return module


def part(shelf: str, default: str) -> BeforeValidator:
    """Mark a recipe key, as `Annotated[Any, part(…)]`, as a part of `shelf`, of kind `default` if unnamed."""
    return BeforeValidator(partial(resolve, shelf, default=default))


def optional(shelf: str, default: str) -> BeforeValidator:
    """Mark a recipe key as `part` does, and leave None as it is."""
    return BeforeValidator(lambda value: None if value is None else resolve(shelf, value, default))
