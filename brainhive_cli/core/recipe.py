"""Recipes of commands: the base class, and its values from files, flags and overrides.

A recipe holds all settings of a command. A section is a block of a recipe, such as
`train`. A part is a section whose key `kind` selects an implementation, such as
`backbone: {kind: nice, dropout: 0.4}`.
"""

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
from brainhive_cli.core.key_types import NameList, split_commas, yaml_no_as_text
from brainhive_cli.core.sections import (
    Section,
    is_same_kind,
    merge_with_default,
    refuse_idle,
)

M = TypeVar("M", bound=BaseModel)
SIGNALS = "signals"
"""First word of the names of signal stores in `Recipe.digests`. No recipe key names
these stores.
"""
EMBEDDINGS = "embeddings"
"""First word of the names of stores with imported vectors in `Recipe.digests`."""
TEXT_KEYS = ("says",)
"""Recipe keys with texts for people. These texts may have several lines."""
STORE_PREFIXES = (f"{SIGNALS} ", f"{EMBEDDINGS} ")
"""Beginnings of the names of stores in `Recipe.digests`. Other names are the values of
recipe keys.
"""
DEFAULTS_VERSION = 1
"""Version of the default values of all keys. Increase it when a default changes,
because fingerprints only contain the values that differ from the defaults.
"""

Tracker = Literal["tensorboard", "trackio", "wandb", "swanlab"]


class Published(Section):
    """Published results of a paper, which reports show next to the measured results.

    The set-up of the paper is not checked against the recipe.
    """

    source: str = Field(
        description="paper and table with the values, and how certain they are"
    )
    values: dict[str, float] = Field(min_length=1, description="value by metric")
    differs: Annotated[list[str], BeforeValidator(split_commas)] = Field(
        [], description="differences between the set-up of the paper and the recipe"
    )
    cites: NameList = Field(
        [], description="papers of the method, as keys of reports/references.bib"
    )

    def as_dict(self) -> dict[str, Any]:
        """Return the values by metric, with `source` and `differs`."""
        return {**self.values, "source": self.source, "differs": self.differs}


class Paths(Section):
    """Folders of a recipe, relative to home.

    Home is the working directory, or the folder in BRAINHIVE_HOME.
    """

    data: str = Field("data", description="folder of the data sets, one folder each")
    embeddings: str = Field("embeddings", description="folder of the embedding stores")
    signals: str = Field("signals", description="folder of the signal stores")
    runs: str = Field("runs", description="folder of the run folders")
    latents: str = Field(
        "latents", description="folder of VAE latents of pictures, for train-prior"
    )

    @model_validator(mode="wrap")
    @classmethod
    def _validate_folders(cls, fields: Any, handler: Any) -> Self:
        """Accept `pathlib.Path` values, and turn errors of pydantic into a RecipeError.

        The function `validate` does this for whole recipes. This validator is needed
        because Python code may make `Paths` without a recipe.

        Args:
            fields: Folders by name, or an object of this class.
            handler: Function of pydantic that makes the object from the fields.
        """
        if isinstance(fields, Mapping):
            fields = dict(fields)
            for name, folder in fields.items():
                if isinstance(folder, Path):
                    fields[name] = str(folder)
        try:
            paths: Self = handler(fields)
        except ValidationError as error:
            raise _describe_problem(cls, error, "paths") from error
        return paths

    def under_home(
        self, name: Literal["data", "embeddings", "signals", "runs", "latents"]
    ) -> Path:
        """Return the path of a folder, such as "data", below home."""
        return home_folder().joinpath(getattr(self, name))

    def dataset(self, name: str, root: str = "") -> Path:
        """Return the absolute path of a data set.

        Args:
            name: Name of the data set, which is its folder below `data`.
            root: Folder that replaces the default folder. Empty for none.
        """
        folder = locate(root) if root else self.under_home("data") / name
        return Path(os.path.abspath(folder))


LAUNCH_KEYS = ("processes", "mixed_precision")
"""Keys of `run` for commands with several processes: their number and precision."""
MAX_STEPS = 500
"""Largest number of steps of a workflow. Each step may be a job of a cluster."""


class RunOptions(Section):
    """Options for running the work. They do not change the results, so the fingerprint
    does not contain them.
    """

    # processes that share the work
    processes: int | None = Field(
        None, ge=1, le=4_096, description="number of processes (default: one per GPU)"
    )
    mixed_precision: Annotated[Literal["no", "bf16"] | None, yaml_no_as_text] = Field(
        None, description="autocast dtype, which replaces the recipe's precision"
    )

    # device, decoding and logging of each process
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="device; auto: cuda if there is a GPU, otherwise cpu"
    )
    workers: int | None = Field(
        None,
        ge=0,
        le=1_024,
        description=(
            "number of processes that decode pictures "
            "(default: spare cores; macOS: none)"
        ),
    )
    trackers: Annotated[list[Tracker], BeforeValidator(split_commas)] = Field(
        [],
        description="trackers to which train-align and train-prior log their progress, "
        "and eval-retrieval and reconstruct their results",
    )

    cluster: Cluster = Cluster()


class Recipe(Section):
    """Base class of the recipes of all commands."""

    is_tracked: ClassVar[bool] = False
    """True if the command logs to trackers."""
    can_share_work: ClassVar[bool] = True
    """True if several processes can share the work of the command. False if the command
    only reads and writes files.
    """
    FINGERPRINT_EXCLUDE: ClassVar[frozenset[str]] = frozenset(
        {"run", "paths", "recipe_name"}
    )
    """Keys that do not change the results, so that the fingerprint does not contain
    them. A key of a section is written as `section.key`.
    """

    MEMORY_HINT: ClassVar[str] = ""
    """Advice on changes of the recipe that need less memory, the best change first."""

    paths: Paths = Paths()
    run: RunOptions = RunOptions()
    digests: dict[str, str] = Field(
        {},
        description=(
            "digests of the contents of the recipe's paths and references, and of "
            "signals (filled in)"
        ),
    )
    recipe_name: str = Field(
        "",
        description=(
            "name of the recipe in `--recipe`, for finding its newest run (filled in)"
        ),
    )

    @model_validator(mode="after")
    def _refuse_idle_run_keys(self) -> Self:
        """Raise an error if a key of `run` is set that has no effect here."""
        if not self.is_tracked:
            refuse_idle(self.run, "trackers", "in this command", "run.trackers=[]")
        if not self.can_share_work:
            refuse_idle(
                self.run,
                LAUNCH_KEYS,
                "in this command, which only reads and writes files",
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _copy_mixed_precision(cls, fields: Any) -> Any:
        """Copy `run.mixed_precision` to the key `precision` of the recipe.

        The fingerprint of a recipe, a hash that identifies its results, does not
        contain the section `run`. The precision changes the results, so the precision
        needs a key outside this section.

        Args:
            fields: Values of the recipe by key, as the user wrote them.

        Returns:
            The fields with `precision` set to "bf16" or "fp32". The fields are
            unchanged if `mixed_precision` is neither "no" nor "bf16", or if recipes of
            this command have no key `precision`.
        """
        run = fields.get("run") if isinstance(fields, Mapping) else None
        mixed = run.get("mixed_precision") if isinstance(run, Mapping) else None
        # YAML reads a bare `no` as False
        if mixed is not False and mixed not in ("no", "bf16"):
            return fields

        # The key `precision` is at the top of the recipe, or in its section `train`.
        precision = {"precision": "bf16" if mixed == "bf16" else "fp32"}
        if "precision" in cls.model_fields:
            return {**fields, **precision}
        train = fields.get("train", {})
        if "train" in cls.model_fields and isinstance(train, Mapping):
            return {**fields, "train": {**train, **precision}}
        return fields

    @property
    def is_swept(self) -> bool:
        """True if the recipe has several variants (see `SweptRecipe`)."""
        return False

    def fingerprint(self) -> str:
        """Return a hash of the recipe and of the files to which the recipe refers.

        The fingerprint identifies the results of a run. Only values that differ from
        the defaults count, without the keys in `FINGERPRINT_EXCLUDE`. If a later
        version adds a key, a recipe that does not set this key keeps its
        fingerprint. A digest (a hash of the content) replaces each path or reference
        that has a digest. Other paths below Brainhive's home folder are written
        relative to this folder.

        Returns:
            10 hexadecimal digits.
        """
        # exclude whole sections, and single keys of sections
        excluded: dict[str, Any] = {"digests": True}
        for key in self.FINGERPRINT_EXCLUDE:
            section, _, section_key = key.partition(".")
            excluded[section] = {section_key} if section_key else True
        fields = self.model_dump(mode="json", exclude_defaults=True, exclude=excluded)
        # drop sections in which only excluded keys are set
        fields = {
            name: value
            for name, value in fields.items()
            if value or name not in excluded
        }

        # `fields` lacks paths and references with default values, so all digests are
        # listed too. The digest of a store (a file of imported signals or vectors) is
        # listed with the name of the store. The name of a path is left out, because the
        # same content may have another path on another machine.
        contents = []
        for name, digest in self.digests.items():
            is_store = name.startswith(STORE_PREFIXES)
            contents.append((name if is_store else "", digest))
        contents.sort()
        portable_fields = make_portable(_insert_digests(fields, self.digests))
        document = [DEFAULTS_VERSION, portable_fields, contents]
        return documents.digest_text(json.dumps(document, sort_keys=True))[:10]

    def to_yaml(self) -> str:
        """Write the resolved recipe as YAML, which `--recipe` accepts."""
        return write_yaml(self.model_dump(mode="json"))

    @classmethod
    def set_key(cls, fields: dict[str, Any], key: str, value: Any) -> None:
        """Set a dotted key in the fields of a recipe.

        Flags, overrides and sweeps set their keys with this function. Missing sections
        are added. A new value of the key `kind`, which selects an implementation,
        removes the settings of the previous kind.

        Args:
            fields: Nested values by key, which are changed in place.
            key: Dotted key, such as `train.lr`. A number in it is an index of a list.
            value: New value.

        Raises:
            RecipeError: if a step of the key is not the index of an item in a list.
        """
        # If the outermost section is not set and its default is a mapping, set the key
        # in a copy of the default.
        top_key, dot, _ = key.partition(".")
        field = cls.model_fields.get(top_key)
        if dot and top_key not in fields and field and isinstance(field.default, dict):
            fields[top_key] = copy.deepcopy(field.default)

        # find the innermost section, or make it
        *section_keys, last_key = key.split(".")
        section: Any = fields
        for section_key in section_keys:
            index = _to_index(section, section_key, key)
            inner = section[index] if isinstance(section, list) else section.get(index)
            if isinstance(inner, str):  # a part that is written as its kind only
                inner = {"kind": inner}
            elif not isinstance(inner, dict | list):
                inner = {}
            section[index] = inner
            section = inner

        # another kind does not have the settings of the previous kind
        is_kind = last_key == "kind" and isinstance(section, dict)
        if is_kind and not is_same_kind(section.get("kind"), value):
            section.clear()
        section[_to_index(section, last_key, key)] = value

    @classmethod
    def drop_replaced(cls, fields: dict[str, Any], layer: Mapping[str, Any]) -> None:
        """Remove fields that cannot be combined with the keys of a recipe file.

        The base class removes nothing. A subclass may override this method. It does not
        need to remove a key that the file sets itself, because the file's value
        replaces the previous value.

        Args:
            fields: Values by key from the extended recipes, which are changed in place.
            layer: Values by key of the recipe file.
        """

    @classmethod
    def resolve(
        cls,
        command: str,
        name: str | None,
        flags: Mapping[str, Any],
        overrides: Iterable[str],
    ) -> Self:
        """Make a recipe from a file, flags and overrides.

        An override wins over a flag, and a flag wins over the file.

        Args:
            command: Name of the subcommand. Its default recipe is used if `name` is
                None.
            name: YAML file, or name of a shipped recipe.
            flags: Value of each flag, by dotted recipe key. None stands for a flag that
                is not set.
            overrides: Texts `key.path=value`, whose values are YAML.

        Returns:
            The valid recipe.

        Raises:
            RecipeError: if a key or value is invalid. The message names the key and its
                value, and the hint suggests a valid key.
        """
        # the recipe file and the files that it extends
        path = find_recipe(command, name)
        fields: dict[str, Any] = {}
        for layer in reversed(read_extended(path, command).values()):
            cls.drop_replaced(fields, layer)
            fields = merge_with_default(fields, layer, merges_all=True)
        # the recipe in a run folder already names the recipe of that run
        if "recipe_name" not in fields and name is not None:
            fields["recipe_name"] = recipe_name_of(path)

        # flags and overrides
        for key, value in flags.items():
            if value is not None:
                cls.set_key(fields, key, value)
        for override in overrides:
            key, equals, text = override.partition("=")
            if not equals:
                raise RecipeError(
                    f"override {override!r} has no value", "write key.path=value"
                )
            cls.set_key(fields, key, parse_value(text, override))

        _refuse_bad_text(fields)
        return validate(cls, fields)


BaseRecipe = Recipe
"""Second name of the base class. The module of each command calls its own recipe class
`Recipe`, so it imports the base class under this name.
"""


class FileRecipe(Recipe):
    """Base class for recipes of commands that only read and write files.

    Such a command runs in one process, and does not load torch.
    """

    can_share_work = False
    run: RunOptions = RunOptions(device="cpu")


class TrainedRunRecipe(Recipe):
    """Base class for recipes of commands that evaluate a run of train-align.

    The override `run=FOLDER` is short for `align_run=FOLDER`, the key with the run.
    """

    @classmethod
    def resolve(
        cls,
        command: str,
        name: str | None,
        flags: Mapping[str, Any],
        overrides: Iterable[str],
    ) -> Self:
        """Make a recipe as `Recipe.resolve` does, and accept `run=FOLDER`."""
        # without this, `run=FOLDER` would replace the section `run`
        full_overrides = []
        for override in overrides:
            is_short = override.startswith("run=")
            full_overrides.append(f"align_{override}" if is_short else override)
        return super().resolve(command, name, flags, full_overrides)


def _refuse_bad_text(value: Any, key: str = "recipe") -> None:
    """Raise an error if a text in the recipe has control characters or is not UTF-8.

    Texts for people, whose keys are in `TEXT_KEYS`, are not checked.

    Args:
        value: Value of a key. Sections and lists are checked recursively.
        key: Key of the value, for the error message.

    Raises:
        RecipeError: if a text is invalid. The message names the key.
    """
    if isinstance(value, Mapping):
        for name, item in value.items():
            _refuse_bad_text(name, f"the key {name!r}")
            _refuse_bad_text(item, str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_bad_text(item, key)
    elif isinstance(value, str) and key not in TEXT_KEYS:
        reason = describe_bad_text(value)
        if reason:
            raise RecipeError(f"{key} {reason}: {show_value(value)}", "rename it")


def _insert_digests(value: Any, digests: Mapping[str, str]) -> Any:
    """Replace the texts in nested lists and dictionaries by their digests.

    Args:
        value: Value of a recipe key.
        digests: Digests by text. Other texts stay unchanged.
    """
    if isinstance(value, dict):
        return {key: _insert_digests(item, digests) for key, item in value.items()}
    if isinstance(value, list):
        return [_insert_digests(item, digests) for item in value]
    return digests.get(value, value) if isinstance(value, str) else value


def validate(model: type[M], fields: Mapping[str, Any], section: str = "") -> M:
    """Make a recipe or section from its fields, with error messages of one line.

    Args:
        model: Class of the recipe or section, a model of pydantic.
        fields: Values by key.
        section: Dotted key of the section in its recipe, for error messages. Empty for
            a whole recipe.

    Returns:
        The recipe or section, an instance of `model`.

    Raises:
        RecipeError: if a key or value is invalid.
    """
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        raise _describe_problem(model, error, section) from error


def _describe_problem(
    model: type[BaseModel], error: ValidationError, section: str
) -> RecipeError:
    """Describe the first problem of a validation in one line, with a hint.

    Args:
        model: Class of the recipe or section that was validated.
        error: Error of pydantic, which lists all problems.
        section: Dotted key of the section in its recipe. Empty for a whole recipe.

    Returns:
        The error that the caller raises.
    """
    # The location of a problem is a list of keys and list indices. Pydantic also lists
    # its own validators, such as `function-after[…]`, which are left out.
    problem = error.errors()[0]
    steps = [step for step in map(str, problem["loc"]) if "[" not in step]
    key = _join_keys(section, *steps)
    if not key.isprintable():  # a key of a mapping may be any text
        key = repr(key)

    # The key is unknown. List the valid keys of the section, and suggest a similar key.
    if problem["type"] == "extra_forbidden":
        *outer_steps, unknown_key = problem["loc"]
        inner_model, inner_keys = _find_section(model, outer_steps)
        known_keys = list(inner_model.model_fields)
        prefix = _join_keys(section, *inner_keys)
        if prefix:
            prefix += "."
        suggestion = guess(str(unknown_key), known_keys, prefix)
        return RecipeError(
            f"unknown recipe key {key!r}",
            f"{suggestion}valid keys: {', '.join(known_keys)}",
        )

    # The value is invalid. Pydantic puts a prefix before messages of our own checks.
    reason = problem["msg"].removeprefix("Value error, ")
    hint = _write_example(model, problem, section)
    return RecipeError(
        f"{key}: {reason}, got {show_value(problem['input'])}",
        hint or "fix the recipe, flag or override",
    )


def _join_keys(*keys: str) -> str:
    """Join keys to a dotted key, without empty keys."""
    return ".".join(key for key in keys if key)


def _find_section(
    model: type[BaseModel], location: Iterable[int | str]
) -> tuple[type[BaseModel], list[str]]:
    """Find the innermost section at the location of an error.

    Args:
        model: Class of the outermost section.
        location: Keys and list indices that lead to the error, from pydantic.

    Returns:
        The class of the innermost section, and the keys that lead to it.
    """
    keys = []
    for step in location:
        field = model.model_fields.get(str(step))
        # an index of a list, or a validator of pydantic, is not a field
        if field is None:
            continue
        # the type of a field may be a section, or a union such as `Section | None`
        annotations = [field.annotation]
        annotations += get_args(field.annotation)
        for annotation in annotations:
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
                keys.append(str(step))
    return model, keys


def _write_example(model: type[BaseModel], problem: ErrorDetails, section: str) -> str:
    """Write a hint with valid values of a key, such as `as in train.lr=0.001`.

    Args:
        model: Class of the recipe or section that was validated.
        problem: Problem of the key, as pydantic describes it.
        section: Dotted key of the section in its recipe. Empty for a whole recipe.

    Returns:
        The hint. It contains the examples of the field, else the default, else the
        first allowed value. If the section itself has an invalid value, the hint lists
        the keys of the section. The hint is empty if no valid value is known.
    """
    # find the innermost section, and the name of the key in this section
    inner_model, inner_keys = _find_section(model, problem["loc"])
    name = ""
    for step in problem["loc"][len(inner_keys) :]:
        if step in inner_model.model_fields:
            name = str(step)
            break
    key = _join_keys(section, *inner_keys, name)

    # without a name, the section itself has an invalid value, such as a number
    if not name:
        if problem["type"].startswith("model"):
            known_keys = ", ".join(inner_model.model_fields)
            return f"as in {key}.KEY=VALUE, with the keys {known_keys}"
        return ""

    # take the examples of the field, or a default that is a number or text
    field = inner_model.model_fields[name]
    values = list(field.examples or [])
    default = field.get_default(call_default_factory=True, validated_data={})
    is_example = type(default) in (int, float, str) and default != ""
    if not values and is_example:
        values = [default]
    if not values:
        # pydantic writes the allowed values as text: "'a', 'b' or 'c'"
        expected = str(problem.get("ctx", {}).get("expected", ""))
        values = re.findall(r"'([^']*)'", expected)[:1]
    if not values:
        return ""
    examples = [f"{key}={value}" for value in values]
    return f"as in {', '.join(examples)}"


def shipped_recipes() -> Path:
    """Return the folder of the shipped recipes."""
    return shipped_folder("recipes")


def find_recipe(command: str, name: str | None) -> Path:
    """Find the file of a recipe.

    A file of the user wins over a shipped recipe of the same name.

    Args:
        command: Name of the subcommand.
        name: Path of a file, name of a shipped folder that contains a recipe of the
            command, or name of a shipped recipe without `.yaml`. None stands for the
            default recipe of the command.

    Returns:
        Path of the file.

    Raises:
        RecipeError: if there is no such recipe.
    """
    root = shipped_recipes()
    file_name = f"{command}.yaml"
    if name is None:
        return root / file_name

    # return a file of the user, or a shipped recipe, whose name has hyphens
    shipped_name = name.replace("_", "-")
    shipped_files = [root / shipped_name / file_name, root / f"{shipped_name}.yaml"]
    for candidate in [Path(name)] + shipped_files:
        # Path.is_file raises an error if the name is too long
        if os.path.isfile(candidate):
            return candidate

    # no such recipe: suggest the most similar name
    names = []
    for path in sorted(root.rglob(file_name)):
        if path.parent != root:
            names.append(path.parent.relative_to(root).as_posix())
    raise RecipeError(
        f"no recipe {show_value(name)}: neither a file nor a shipped recipe",
        f"{guess(name, names)}shipped for {command}: {', '.join(names) or 'none'}",
    )


def recipe_name_of(path: Path) -> str:
    """Return the name under which the key `recipe_name` stores a recipe.

    Args:
        path: File of the recipe.

    Returns:
        For a shipped recipe, its shipped folder, such as `papers/nice`. For the default
        recipe of a command, an empty text. For any other file, its path from home.
    """
    root = shipped_recipes().resolve()
    if path.resolve().is_relative_to(root):
        return path.resolve().parent.relative_to(root).as_posix().removeprefix(".")
    return str(make_portable(os.path.abspath(path)))


def read_recipe(path: Path, command: str = "") -> dict[str, Any]:
    """Read a YAML recipe, together with the recipes that it extends.

    A value in a file replaces the value of the same key in the recipe that the file
    extends. Sections are merged key by key. Parts, such as a loss with its settings,
    are merged only if they have the same `kind`.

    Args:
        path: File of the recipe.
        command: Name of a subcommand. A name after the key `extends` stands for the
            recipe of this subcommand. The default is the name of the file without
            `.yaml`.

    Returns:
        Values by key, in nested dictionaries.

    Raises:
        RecipeError: if a file is not valid YAML, is not a mapping, contains a key
            twice, or extends itself.
    """
    # begin with the recipe that extends no other recipe, because the values of a later
    # recipe replace its values
    merged: dict[str, Any] = {}
    for fields in reversed(read_extended(path, command).values()):
        merged = merge_with_default(merged, fields, merges_all=True)
    return merged


def read_extended(path: Path, command: str = "") -> dict[Path, dict[str, Any]]:
    """Read a YAML recipe and the recipes that it extends, without merging them.

    Args:
        path: File of the recipe.
        command: Name of a subcommand. A name after the key `extends` stands for the
            recipe of this subcommand. The default is the name of the file without
            `.yaml`.

    Returns:
        The values by key that each file sets itself, by the path of the file. The first
        file is `path`, and each file is followed by the file that it extends.

    Raises:
        RecipeError: if a file is not valid YAML, is not a mapping, contains a key
            twice, or extends itself.
    """
    kind = TypeAdapter(dict[str, Any] | None)
    fields_by_file: dict[Path, dict[str, Any]] = {}
    file = path
    while True:
        if file.resolve() in map(Path.resolve, fields_by_file):
            raise RecipeError(
                f"{path} extends itself", "name another recipe after `extends`"
            )

        # the keys that this file sets
        document = documents.read(file, kind, "fix the file", RecipeError, is_yaml=True)
        fields = document or {}
        base = fields.pop("extends", None)
        # An extended recipe may be the recipe of a run. The keys below describe that
        # run, and not the new recipe.
        if fields_by_file:
            fields.pop("recipe_name", None)
            fields.pop("digests", None)
        fields_by_file[file] = fields

        # continue with the recipe that this file extends: a file in the same folder, or
        # the name of a recipe
        if base is None:
            return fields_by_file
        if not isinstance(base, str):
            raise RecipeError(
                f"extends: Input should be a string, got {show_value(base)}",
                "write the name of a recipe after `extends`",
            )
        sibling = file.parent / base
        if os.path.isfile(sibling):
            file = sibling
        else:
            file = find_recipe(command or path.stem, base)


def parse_value(text: str, override: str) -> Any:
    """Read the value of an override (`KEY=VALUE` on the command line) as YAML.

    Args:
        text: Value of the override. A text that begins with a special character of
            YAML, such as the pattern `*.tsv`, is returned unchanged.
        override: Whole override `KEY=VALUE`, for the error message.

    Returns:
        The value, such as a number, a text, a list or a dict.

    Raises:
        RecipeError: if the value is not valid YAML.
    """
    # YAML reads these characters as aliases, anchors, tags, directives or comments
    if text.startswith(("*", "&", "!", "%", "@", "`", "#")):
        return text
    source = f"the value of {show_value(override)}"
    hint = (
        "quote the value for the shell, and inside it each text with [ ] { } or :, as "
        "in KEY='[\"a[12]*.nii\"]'; instead of nested {NAME: VALUE}, write "
        "KEY.NAME=VALUE"
    )
    return documents.parse(text, source, Any, hint, RecipeError, is_yaml=True)


def _to_index(section: dict[str, Any] | list[Any], step: str, key: str) -> Any:
    """Turn a step of a dotted key into the key of a section or the index of a list.

    The steps of `train.lr` are `train` and `lr`.

    Args:
        section: Section or list in which the step selects an item.
        step: Name or number between two dots of the key.
        key: Whole dotted key, for the error message.

    Returns:
        The step unchanged for a section, or its integer for a list.

    Raises:
        RecipeError: if the section is a list, and the step is not the index of an item.
    """
    if isinstance(section, dict):
        return step
    n_items = len(section)
    if step.isdecimal() and int(step) < n_items:
        return int(step)
    hint = "the list is empty: set the whole list"
    if section:
        hint = f"write a number from 0 to {n_items - 1}"
    raise RecipeError(
        f"{key}: {step!r} is no index of a list of length {n_items}", hint
    )


def write_yaml(fields: Mapping[str, Any]) -> str:
    """Write the fields of a recipe as YAML, in their order."""
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
