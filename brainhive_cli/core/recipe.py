"""Base of every recipe, and the way from a file, flags and overrides to a valid one."""

import copy
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from brainhive_cli.core import documents
from brainhive_cli.core.cluster import Cluster
from brainhive_cli.core.documents import show_value
from brainhive_cli.core.errors import RecipeError, guess
from brainhive_cli.core.files import (
    describe_bad_text,
    home_folder,
    locate,
    make_portable,
    shipped_folder,
)
from brainhive_cli.core.key_types import NameList, no, split
from brainhive_cli.core.sections import Section, is_same_kind, lay_over, refuse_idle

M = TypeVar("M", bound=BaseModel)
SIGNALS = "signals"
"""Before the name of a signal store among the digests of a recipe, which no key of the
recipe names.
"""
EMBEDDINGS = "embeddings"
"""The same before the name of a store of a user's own vectors."""
TEXTS = ("says",)
"""Keys of texts for people."""
STORES = (f"{SIGNALS} ", f"{EMBEDDINGS} ")
"""Beginnings of the names by which digests name stores."""
DEFAULTS_VERSION = 1
"""Version of the defaults: raised where one changes, as fingerprints hold what differs
from them.
"""


Tracker = Literal["tensorboard", "trackio", "wandb", "swanlab"]


class Published(Section):
    """Values that a paper prints, shown with what is measured; nobody compares the
    set-ups.
    """

    source: str = Field(
        description="where they are printed, and how well that is known"
    )
    values: dict[str, float] = Field(min_length=1, description="metric to value")
    differs: Annotated[list[str], BeforeValidator(split)] = Field(
        [], description="how its set-up differs from that of the recipe, in words"
    )
    cites: NameList = Field(
        [], description="papers of the method, by the keys of reports/references.bib"
    )

    def as_dict(self) -> dict[str, Any]:
        """Give them as facts: the values by metric, `source` and `differs`."""
        return {**self.values, "source": self.source, "differs": self.differs}


class Paths(Section):
    """Folders, below home (the working directory or BRAINHIVE_HOME)."""

    data: str = Field("data", description="data sets, one folder each")
    embeddings: str = Field("embeddings", description="embedding stores")
    signals: str = Field("signals", description="signal stores")
    runs: str = Field("runs", description="run folders")
    latents: str = Field(
        "latents", description="what a VAE makes of pictures, for train-prior"
    )

    @model_validator(mode="wrap")
    @classmethod
    def _refuses_in_one_line(cls, fields: Any, handler: Any) -> Self:
        """Take folders of pathlib too, and refuse what Python code gives as a recipe's
        keys are refused.
        """
        if isinstance(fields, Mapping):
            fields = {
                name: str(folder) if isinstance(folder, Path) else folder
                for name, folder in fields.items()
            }
        try:
            paths: Self = handler(fields)
        except ValidationError as error:
            raise _in_one_line(cls, error, "paths") from error
        return paths

    def under_home(
        self, name: Literal["data", "embeddings", "signals", "runs", "latents"]
    ) -> Path:
        """Resolve one of the folders against home."""
        return home_folder().joinpath(getattr(self, name))

    def dataset(self, name: str, root: str = "") -> Path:
        """Locate a data set: at `root`, else at its name below data; absolute, as hints
        name it.
        """
        return Path(
            os.path.abspath(locate(root) if root else self.under_home("data") / name)
        )


LAUNCHED = ("processes", "mixed_precision")
"""Keys of `run` that say how several processes share the work, and in which
precision.
"""


MAX_STEPS = 500
"""Of a workflow: each may be a job of a cluster."""


class RunOptions(Section):
    """Options of running the work: they change no result, and are no part of the
    fingerprint.
    """

    # processes that share the work
    processes: int | None = Field(
        None, ge=1, le=4_096, description="processes in all (default: one per GPU)"
    )
    mixed_precision: Annotated[Literal["no", "bf16"] | None, no] = Field(
        None, description="autocast dtype, instead of the recipe's own precision"
    )

    # device, decoding and logging of each process
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: cuda where there is one"
    )
    workers: int | None = Field(
        None,
        ge=0,
        le=1_024,
        description=(
            "processes that decode pictures (default: spare cores; macOS: none)"
        ),
    )
    trackers: Annotated[list[Tracker], BeforeValidator(split)] = Field(
        [],
        description="where train-align and train-prior log their progress, "
        "eval-retrieval and reconstruct their results",
    )

    cluster: Cluster = Cluster()


class Recipe(Section):
    """Base of every command's recipe."""

    is_tracked: ClassVar[bool] = False
    """Whether the command logs to trackers."""
    computes: ClassVar[bool] = True
    """Whether several processes can share the work of the command; else it only reads
    and writes files.
    """
    FINGERPRINT_EXCLUDE: ClassVar[frozenset[str]] = frozenset(
        {"run", "paths", "recipe_name"}
    )
    """Keys, also of a section (`section.key`), that do not change what is computed, and
    so are no part of the fingerprint.
    """

    LESS_MEMORY: ClassVar[str] = ""
    """Changes of the recipe with which the command needs less memory, the best first,
    in words.
    """

    paths: Paths = Paths()
    run: RunOptions = RunOptions()
    digests: dict[str, str] = Field(
        {},
        description=(
            "digests of what paths and references of the recipe hold, and of signals, "
            "filled in"
        ),
    )
    recipe_name: str = Field(
        "",
        description=(
            "what `--recipe` named, by which its newest run is found, filled in"
        ),
    )

    @model_validator(mode="after")
    def _has_no_idle_keys_of_run(self) -> Self:
        if not self.is_tracked:
            refuse_idle(self.run, "trackers", "in this command", "run.trackers=[]")
        if not self.computes:
            refuse_idle(
                self.run, LAUNCHED, "in this command, which only reads and writes files"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _takes_over_mixed_precision(cls, fields: Any) -> Any:
        """Let `run.mixed_precision`, which changes numbers, be the recipe's
        precision.
        """
        run = fields.get("run") if isinstance(fields, Mapping) else None
        mixed = run.get("mixed_precision") if isinstance(run, Mapping) else None
        if mixed is not False and mixed not in ("no", "bf16"):
            return fields

        # the precision stands at the top of the recipe, or in its training
        precision = {"precision": "bf16" if mixed == "bf16" else "fp32"}
        if "precision" in cls.model_fields:
            return {**fields, **precision}
        train = fields.get("train", {})
        has_precision = "train" in cls.model_fields and isinstance(train, Mapping)
        return {**fields, "train": {**train, **precision}} if has_precision else fields

    def fingerprint(self) -> str:
        """Digest what differs from the defaults, without FINGERPRINT_EXCLUDE, and
        contents (10 hex digits).

        So a key that is added later changes the fingerprint of those recipes alone that
        set it. A path or reference that has a digest counts as that; other paths below
        home count from there.
        """
        # all of a section, or single keys of it
        excluded: dict[str, Any] = {"digests": True}
        for key in self.FINGERPRINT_EXCLUDE:
            section, _, below = key.partition(".")
            excluded[section] = {below} if below else True
        fields = self.model_dump(mode="json", exclude_defaults=True, exclude=excluded)
        # a section that is empty without its excluded keys says nothing
        fields = {
            name: value
            for name, value in fields.items()
            if value or name not in excluded
        }

        # contents count beside the recipe, as a path or reference may be its default;
        # stores have a name, too
        contents = sorted(
            (name if name.startswith(STORES) else "", digest)
            for name, digest in self.digests.items()
        )
        known = [
            DEFAULTS_VERSION,
            make_portable(_replaced(fields, self.digests)),
            contents,
        ]
        return documents.digest_text(json.dumps(known, sort_keys=True))[:10]

    def to_yaml(self) -> str:
        """Write the resolved recipe as YAML that runs as it is."""
        return write_yaml(self.model_dump(mode="json"))

    @classmethod
    def put(cls, fields: dict[str, Any], key: str, value: Any) -> None:
        """Set a dotted key of a recipe's fields, as flags, overrides and sweeps do.

        A number in it is an index in a list; another `kind` drops the knobs of the part
        before.

        Raises:
            RecipeError: if the list has no such index.
        """
        # a key of a mapping is set in its default
        first, dot, _ = key.partition(".")
        default = cls.model_fields[first].default if first in cls.model_fields else None
        if dot and first not in fields and isinstance(default, dict):
            fields[first] = copy.deepcopy(default)

        # down to the last section, which is made where it is absent
        *path, last = key.split(".")
        section: Any = fields
        for step in path:
            index = _index(section, step, key)
            below = section[index] if isinstance(section, list) else section.get(index)
            if isinstance(below, str):  # a part named by its kind alone
                below = {"kind": below}
            section[index] = section = below if isinstance(below, dict | list) else {}

        # knobs of another kind would be unknown to this one
        if (
            last == "kind"
            and isinstance(section, dict)
            and not is_same_kind(section.get("kind"), value)
        ):
            section.clear()
        section[_index(section, last, key)] = value

    @classmethod
    def drop_replaced(cls, fields: dict[str, Any], layer: Mapping[str, Any]) -> None:
        """Drop what a recipe's keys replace in the recipe that it extends; by default
        nothing.

        Keys of the same name need no dropping: the later one wins.
        """

    @classmethod
    def resolve(
        cls,
        command: str,
        name: str | None,
        flags: Mapping[str, Any],
        overrides: Iterable[str],
    ) -> Self:
        """Load the recipe, apply flags and then `key.path=value` overrides, validate.

        Args:
            command: The subcommand, whose shipped default is used when `name` is None.
            name: A YAML file, or the name of a shipped recipe.
            flags: Dotted recipe key to value; None means not given.
            overrides: `key.path=value` strings; values are YAML.

        Raises:
            RecipeError: with the key, the value seen and the nearest known key.
        """
        # the file, then flags, then overrides: the later wins
        path = find_recipe(command, name)
        fields: dict[str, Any] = {}
        for layer in reversed(read_extended(path, command).values()):
            cls.drop_replaced(fields, layer)
            fields = lay_over(fields, layer, merges_all=True)
        # that of a run names the one that made it
        if "recipe_name" not in fields and name is not None:
            fields["recipe_name"] = name_of(path)
        for key, value in flags.items():
            if value is not None:
                cls.put(fields, key, value)
        for override in overrides:
            key, equals, text = override.partition("=")
            if not equals:
                raise RecipeError(
                    f"override {override!r} has no value", "write key.path=value"
                )
            cls.put(fields, key, parse_value(text, override))

        _refuse_bad_text(fields)
        return validate(cls, fields)


BaseRecipe = Recipe
"""The same by the name that commands use, each of which has a `Recipe` of its own."""


class FileRecipe(Recipe):
    """Base of recipes of commands that only read and write files: one process does it,
    and loads no torch.
    """

    computes = False
    run: RunOptions = RunOptions(device="cpu")


class TrainedRunRecipe(Recipe):
    """Base of recipes that measure an align run: `run=FOLDER` is short for
    `align_run=FOLDER`.
    """

    @classmethod
    def resolve(
        cls,
        command: str,
        name: str | None,
        flags: Mapping[str, Any],
        overrides: Iterable[str],
    ) -> Self:
        """Resolve as every recipe, with the short form."""
        # `run=FOLDER` would replace the section that says how the work runs
        return super().resolve(
            command,
            name,
            flags,
            [
                f"align_{word}" if word.startswith("run=") else word
                for word in overrides
            ],
        )


def _refuse_bad_text(value: Any, key: str = "recipe") -> None:
    """Refuse names and texts with control characters, or that are not UTF-8; texts for
    people may have several lines.

    Raises:
        RecipeError: naming the key.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _refuse_bad_text(name, f"the key {name!r}")
            _refuse_bad_text(inner, str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_bad_text(inner, key)
    elif isinstance(value, str) and key not in TEXTS:
        reason = describe_bad_text(value)
        if reason:
            raise RecipeError(f"{key} {reason}: {show_value(value)}", "rename it")


def _replaced(value: Any, digests: Mapping[str, str]) -> Any:
    """Replace every string that has a digest by it."""
    if isinstance(value, dict):
        return {key: _replaced(inner, digests) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, digests) for inner in value]
    return digests.get(value, value) if isinstance(value, str) else value


def validate(model: type[M], fields: Mapping[str, Any], where: str = "") -> M:
    """Validate `fields`, turning pydantic's report into one clear line."""
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        raise _in_one_line(model, error, where) from error


def _in_one_line(
    model: type[BaseModel], error: ValidationError, where: str
) -> RecipeError:
    # the first of the problems that pydantic lists
    first = error.errors()[0]
    # the others are pydantic's own
    steps = [step for step in map(str, first["loc"]) if "[" not in step]
    key = ".".join([where, *steps] if where else steps)
    key = key if key.isprintable() else repr(key)  # a name in a mapping may be any text
    if first["type"] == "extra_forbidden":
        section, path = _below(model, first["loc"][:-1])
        known = list(section.model_fields)
        before = ".".join([*filter(None, [where]), *path, ""])
        return RecipeError(
            f"unknown recipe key {key!r}",
            f"{guess(str(first['loc'][-1]), known, before)}known here: "
            f"{', '.join(known)}",
        )

    # a value that does not fit: what is wrong, and what would fit
    # pydantic's mark of what our own checks say
    reason = first["msg"].removeprefix("Value error, ")
    hint = _example(model, first, where) or "fix the recipe, flag or override"
    return RecipeError(f"{key}: {reason}, got {show_value(first['input'])}", hint)


def _below(
    model: type[BaseModel], loc: Iterable[int | str]
) -> tuple[type[BaseModel], list[str]]:
    """Find the innermost section of an error's location, and the keys that lead
    there.
    """
    keys = []
    for step in loc:
        # sections lie in one another, and may be optional
        field = model.model_fields.get(str(step))
        inner = field.annotation if field else None
        # a section may be absent: Section | None
        for annotation in (inner, *get_args(inner)):
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
                keys.append(str(step))
    return model, keys


def _example(model: type[BaseModel], error: ErrorDetails, where: str) -> str:
    """Write values that a key takes: the field's examples, its default, or one that is
    allowed.
    """
    # the key that is meant
    section, path = _below(model, error["loc"])
    name = next(
        (
            str(step)
            for step in error["loc"][len(path) :]
            if step in section.model_fields
        ),
        "",
    )
    key = ".".join(filter(None, [where, *path, name]))
    if not name:
        known = ", ".join(section.model_fields)
        if error["type"].startswith("model"):
            return f"as in {key}.KEY=VALUE, with the keys {known}"
        return ""

    # values: the field's own examples, its default, or one that is allowed
    field = section.model_fields[name]
    plain = field.get_default(call_default_factory=True, validated_data={})
    default = [plain] if plain != "" and type(plain) in (int, float, str) else None
    allowed = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))[
        :1
    ]
    values = field.examples or default or allowed
    return f"as in {', '.join(f'{key}={value}' for value in values)}" if values else ""


def shipped_recipes() -> Path:
    """Return the folder of the shipped recipes."""
    return shipped_folder("recipes")


def find_recipe(command: str, name: str | None) -> Path:
    """Find a recipe: a file, a shipped recipe, or the command's recipe in a shipped
    folder.
    """
    # a file of the user's goes before a shipped recipe of the same name
    root = shipped_recipes()
    file = f"{command}.yaml"
    if name is None:
        return root / file
    spelt = name.replace("_", "-")
    for candidate in (Path(name), root / spelt / file, root / f"{spelt}.yaml"):
        if os.path.isfile(candidate):  # to a Path, a name that is too long is an error
            return candidate

    # none: name the nearest
    folders = [path.parent for path in sorted(root.rglob(file)) if path.parent != root]
    known = [folder.relative_to(root).as_posix() for folder in folders]
    raise RecipeError(
        f"no recipe {show_value(name)}: neither a file nor a shipped recipe",
        f"{guess(name, known)}shipped for {command}: {', '.join(known) or 'none'}",
    )


def name_of(path: Path) -> str:
    """Give the name by which a recipe's file is known: that of its shipped folder, or
    its path from home.
    """
    root = shipped_recipes().resolve()

    # a shipped recipe is known by its folder
    if path.resolve().is_relative_to(root):
        return path.resolve().parent.relative_to(root).as_posix().removeprefix(".")
    return str(make_portable(os.path.abspath(path)))


def read_recipe(path: Path, command: str = "") -> dict[str, Any]:
    """Read a YAML recipe into a plain dict, with the keys of the recipe that it
    extends.

    A key that both have is the file's own; parts and sections are merged, unless they
    are of two kinds.

    Args:
        path: The file.
        command: Whose recipe a name after `extends` means; default: the command that
            the file is called by.

    Raises:
        RecipeError: if it is no YAML, no mapping, has a key twice, or extends itself.
    """
    # from the base upwards, as the nearest file has the last word
    merged: dict[str, Any] = {}
    for fields in reversed(read_extended(path, command).values()):
        merged = lay_over(merged, fields, merges_all=True)
    return merged


def read_extended(path: Path, command: str = "") -> dict[Path, dict[str, Any]]:
    """Read a YAML recipe and those that it extends, nearest first: the keys that each
    file has, by its path.

    Arguments and errors are those of `read_recipe`.
    """
    kind = TypeAdapter(dict[str, Any] | None)
    read: dict[Path, dict[str, Any]] = {}
    file = path
    while True:
        if file.resolve() in map(Path.resolve, read):
            raise RecipeError(
                f"{path} extends itself", "another recipe after `extends`"
            )

        # the keys of this file
        fields = (
            documents.read(file, kind, "fix the file", RecipeError, is_yaml=True) or {}
        )
        base = fields.pop("extends", None)
        # of what is extended, a run's recipe as it may be, these say what that run was
        if read:
            fields = {
                key: value
                for key, value in fields.items()
                if key not in ("recipe_name", "digests")
            }
        read[file] = fields

        # the file that it extends: beside it, or by name
        if base is None:
            return read
        if not isinstance(base, str):
            raise RecipeError(
                f"extends: Input should be a string, got {show_value(base)}",
                "a recipe's name",
            )
        sibling = file.parent / base
        file = (
            sibling
            if os.path.isfile(sibling)
            else find_recipe(command or path.stem, base)
        )


def parse_value(text: str, override: str) -> Any:
    """Read the value of an override as YAML; one that begins as no value of YAML does
    is a text.

    Raises:
        RecipeError: if it is not.
    """
    # YAML reads these as aliases, anchors, tags or comments; patterns may begin so
    if text.startswith(("*", "&", "!", "%", "@", "`", "#")):
        return text
    where = f"the value of {show_value(override)}"
    way_out = (
        "quote it for the shell, and in it each text with [ ] { } or :, as "
        "KEY='[\"a[12]*.nii\"]'; of {NAME: VALUE} with more { in it, write "
        "KEY.NAME=VALUE instead"
    )
    return documents.parse(text, where, Any, way_out, RecipeError, is_yaml=True)


def _index(section: dict[str, Any] | list[Any], step: str, key: str) -> Any:
    """Take a step of a dotted key as an index, where it leads into a list."""
    if isinstance(section, dict):
        return step
    if step.isdecimal() and int(step) < len(section):
        return int(step)
    raise RecipeError(
        f"{key}: {step!r} is no index of a list of {len(section)}",
        f"a number from 0 to {len(section) - 1}" if section else "set the whole list",
    )


def write_yaml(fields: Mapping[str, Any]) -> str:
    """Write a recipe's fields as YAML, in their order."""
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
