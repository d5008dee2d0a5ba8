"""Recipes of commands: the base class, and its values from files, flags and overrides.

A recipe holds all settings of a command. A section is a block of it, such as `train`. A
part is a section whose key `kind` selects an implementation.
"""

import copy
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
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

from brainhive_cli.core.base import RecipeError, guess
from brainhive_cli.core.files import (
    describe_bad_text,
    documents,
    home_folder,
    locate,
    make_portable,
    shipped_folder,
    show_value,
)
from brainhive_cli.core.recipes.keys import (
    STEPS,
    Arguments,
    Cluster,
    NameList,
    OneRun,
    RunLabel,
    Section,
    flag_field,
    is_same_kind,
    merge_with_default,
    refuse_idle,
    split_commas,
)

M = TypeVar("M", bound=BaseModel)
SIGNALS = "signals"
"""First word of the names of signal stores in `Recipe.digests`."""
EMBEDDINGS = "embeddings"
"""First word of the names of stores with imported vectors in `Recipe.digests`."""
STORE_PREFIXES = (f"{SIGNALS} ", f"{EMBEDDINGS} ")
"""Beginnings of the names of stores in `Recipe.digests`."""
DEFAULTS_VERSION = 1
"""Version of all default values. Increase it when a default changes, because
fingerprints contain only the values that differ from the defaults.
"""

Tracker = Literal["tensorboard", "trackio", "wandb", "swanlab"]


class Published(Section):
    """Published results of a paper, which reports show next to the measured results."""

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


PublishedKey = Annotated[
    Published | None,
    Field(description="numbers that a paper reports for this recipe, with source"),
]
"""Published results in a recipe."""


class Paths(Section):
    """Folders of a recipe, relative to the working directory or to BRAINHIVE_HOME."""

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
        """Accept `pathlib.Path` values, and turn pydantic errors into RecipeErrors."""
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
            root: Folder of the data set if it is elsewhere, or "".
        """
        folder = locate(root) if root else self.under_home("data") / name
        return Path(os.path.abspath(folder))


MAX_STEPS = 500
"""Largest number of steps of a workflow. Each step may be a job of a cluster."""


class RunOptions(Section):
    """Options for running the work, which change neither results nor fingerprint."""

    # processes that share the work
    processes: int | None = flag_field(
        None, "number of processes; default: one per GPU", ge=1, le=4_096
    )
    mixed_precision: Literal["no", "bf16"] | None = flag_field(
        None,
        "precision of the computation: no (float32) or bf16. It replaces the recipe's "
        "precision",
    )

    label: RunLabel | None = flag_field(
        None,
        "text that tells the run from others, also where a run is named; may be "
        "changed later; '' removes it; default: none",
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
    """True if several processes can share the work of the command."""
    writes_run: ClassVar[bool] = False
    """True if the command writes the folder of a run."""
    skips_finished: ClassVar[bool] = True
    """True if the command leaves out finished work."""
    runs_code: ClassVar[bool] = True
    """True if the command can run code from outside Brainhive."""
    switches: ClassVar[tuple[str, ...]] = ()
    """Flags without a value that set no key, by their names in `cli.table`."""
    section: ClassVar[str] = STEPS
    """Section of the help that lists the command."""
    summary: ClassVar[str] = ""
    """Help text of the command, a sentence."""
    example: ClassVar[str] = ""
    """Arguments of an example in the help of the command."""
    FINGERPRINT_EXCLUDE: ClassVar[frozenset[str]] = frozenset(
        {"run", "paths", "recipe_name"}
    )
    """Keys that do not change the results, such as `run` or `section.key`."""

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
                ("processes", "mixed_precision"),
                "in this command, which only reads and writes files",
            )
        if not self.writes_run:
            refuse_idle(self.run, "label", "in this command, which writes no run")
        return self

    @model_validator(mode="before")
    @classmethod
    def _copy_mixed_precision(cls, fields: Any) -> Any:
        """Copy `run.mixed_precision` to the key `precision`, or to `train.precision`.

        Fingerprints contain the precision, but not the section `run`. Without a key
        `precision`, or with another value than "no" or "bf16", nothing changes.
        """
        run = fields.get("run") if isinstance(fields, Mapping) else None
        mixed = run.get("mixed_precision") if isinstance(run, Mapping) else None
        # YAML reads an unquoted `no` as False
        if mixed is not False and mixed not in ("no", "bf16"):
            return fields

        precision = {"precision": "bf16" if mixed == "bf16" else "fp32"}
        if "precision" in cls.model_fields:
            return {**fields, **precision}
        train = fields.get("train", {})
        if "train" in cls.model_fields and isinstance(train, Mapping):
            return {**fields, "train": {**train, **precision}}
        return fields

    def fingerprint(self) -> str:
        """Return a hash of the recipe and of its files, in 10 hexadecimal digits.

        Values equal to the defaults and keys in `FINGERPRINT_EXCLUDE` do not count. The
        digest of a file or reference counts instead of its path.
        """
        # exclude whole sections, and single keys of sections
        excluded: dict[str, Any] = {"digests": True}
        for key in self.FINGERPRINT_EXCLUDE:
            section, _, section_key = key.partition(".")
            excluded[section] = {section_key} if section_key else True
        fields = self.model_dump(mode="json", exclude_defaults=True, exclude=excluded)
        # drop sections in which only excluded keys are set
        for name in excluded:
            if name in fields and not fields[name]:
                del fields[name]

        # List all digests, because `fields` lacks paths with default values. Leave out
        # the paths, because they may differ on another machine.
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
        """Set a dotted key in the fields of a recipe, and add missing sections.

        A new `kind` removes the other settings of its section.

        Args:
            fields: Nested values by key, which are changed in place.
            key: Dotted key, such as `train.lr`. A number is an index of a list.
            value: New value.

        Raises:
            RecipeError: if an index in the key is outside of its list.
        """
        # begin with a copy of the default if the outermost section is not set
        *section_keys, last_key = key.split(".")
        if section_keys:
            top_key = section_keys[0]
            field = cls.model_fields.get(top_key)
            if field is not None and isinstance(field.default, dict):
                fields.setdefault(top_key, copy.deepcopy(field.default))

        # find the innermost section, or make it
        section: Any = fields
        for section_key in section_keys:
            index = _to_index(section, section_key, key)
            inner = section[index] if isinstance(section, list) else section.get(index)
            if isinstance(inner, str):  # a part that is written as its kind
                inner = {"kind": inner}
            elif not isinstance(inner, dict | list):
                inner = {}
            section[index] = inner
            section = inner

        # another kind has other settings
        is_kind = last_key == "kind" and isinstance(section, dict)
        if is_kind and not is_same_kind(section.get("kind"), value):
            section.clear()
        section[_to_index(section, last_key, key)] = value

    @classmethod
    def drop_replaced(cls, fields: dict[str, Any], layer: Mapping[str, Any]) -> None:
        """Let subclasses remove fields that do not fit the keys of a recipe file.

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
        """Make a recipe from a file, flags and overrides, of which the last wins.

        Args:
            command: Name of the subcommand.
            name: YAML file, name of a shipped recipe, or None for the default recipe.
            flags: Value of each flag by dotted recipe key, or None if it is not set.
            overrides: Texts `key.path=value`, whose values are YAML.

        Raises:
            RecipeError: if there is no such recipe, or a key or value is invalid.
        """
        # the recipe file and the files that it extends
        path = find_recipe(command, name)
        fields: dict[str, Any] = {}
        layers: dict[Path, dict[str, Any]] = {}
        # a command may have no default recipe
        if name is not None or path.is_file():
            layers = read_extended(path, command)
        for layer in reversed(layers.values()):
            cls.drop_replaced(fields, layer)
            fields = merge_with_default(fields, layer, merges_all=True)
        # the recipe of a run already has a name
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
"""Second name of the base class, for modules that define their own `Recipe`."""


class FileRecipe(Recipe):
    """Base class for recipes of commands that only read and write files."""

    can_share_work = False
    skips_finished = False
    run: RunOptions = RunOptions(device="cpu")


class TrainedRunRecipe(Recipe):
    """Base class for recipes of commands that evaluate a run of train-align.

    The override `run=FOLDER` is short for `align_run=FOLDER`.
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
        full_overrides = [re.sub("^run=", "align_run=", text) for text in overrides]
        return super().resolve(command, name, flags, full_overrides)


class OneRunRecipe(TrainedRunRecipe):
    """Base class for recipes of commands that take a single run of train-align."""

    align_run: Annotated[OneRun, Arguments(names="@runs/train-align")] = flag_field(
        None,
        "run of train-align (folder, name, recipe or "
        "hub:owner/name[@revision]), or model folder; default: the newest run on the "
        "data set; run= is short for align_run=",
        flag="--run",
        names="@runs/train-align",
    )


def _refuse_bad_text(value: Any, key: str = "recipe") -> None:
    """Raise a RecipeError if a text has control characters or is not UTF-8.

    Values of `says` are texts for people, may have several lines, and are not checked.
    The error names the last key above a text.
    """
    if isinstance(value, Mapping):
        for name, item in value.items():
            _refuse_bad_text(name, f"the key {name!r}")
            _refuse_bad_text(item, str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_bad_text(item, key)
    elif isinstance(value, str) and key != "says":
        reason = describe_bad_text(value)
        if reason:
            raise RecipeError(f"{key} {reason}: {show_value(value)}", "rename it")


def _insert_digests(value: Any, digests: Mapping[str, str]) -> Any:
    """Replace each text in nested lists and dicts by its digest, if it has one."""
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
        section: Dotted key of the section for error messages, or "" for a recipe.

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
        error: Error of pydantic.
        section: Dotted key of the section, or "" for a whole recipe.
    """
    # join the location of the problem, without validators (`function-after[…]`)
    problem = error.errors()[0]
    steps = [step for step in map(str, problem["loc"]) if "[" not in step]
    key = _join_keys(section, *steps)
    if not key.isprintable():  # a key of a mapping may be any text
        key = repr(key)

    # the key is unknown
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

    # the value is invalid. Pydantic puts a prefix before messages of our own checks
    reason = problem["msg"].removeprefix("Value error, ")
    # Words for types of problems that pydantic describes for programmers.
    plain_reasons = {
        "int_parsing": "must be a whole number (integer)",
        "int_type": "must be a whole number (integer)",
        "int_from_float": "must be a whole number (integer)",
        "float_parsing": "must be a number",
        "float_type": "must be a number",
        "bool_parsing": "must be true or false",
        "bool_type": "must be true or false",
        "string_type": "must be a text",
        "list_type": "must be a list, such as [1, 2]",
        "dict_type": "must be a mapping, such as {KEY: VALUE}",
        "missing": "is required, but missing",
    }
    reason = plain_reasons.get(problem["type"], reason)
    reason = reason.replace("Input should be", "must be")
    hint = _write_example(model, problem, section)
    # YAML reads null, true and 7 as other values than texts
    if problem["type"] == "string_type" and not isinstance(problem["input"], dict):
        text = json.dumps(json.dumps(problem["input"]))
        if isinstance(problem["loc"][-1], int):
            text = f"[{text}, …]"
        hint = f"quote the text, and the whole value for the shell: KEY='{text}'"
    # our own checks of a whole section name the values that do not fit
    is_own_check = problem["type"] == "value_error" and isinstance(
        problem["input"], Mapping
    )
    value = "" if is_own_check else f", got {show_value(problem['input'])}"
    return RecipeError(
        f"{key}: {reason}{value}",
        hint or f"change {key or 'the recipe'} in the recipe or on the command line",
    )


def _join_keys(*keys: str) -> str:
    """Join keys to a dotted key, without empty keys."""
    return ".".join(key for key in keys if key)


def _find_section(
    model: type[BaseModel], location: Sequence[int | str]
) -> tuple[type[BaseModel], list[str]]:
    """Return the class of the section at an error, and the keys that lead to it.

    Args:
        model: Class of the outermost section.
        location: Keys and list indices that lead to the error, from pydantic.
    """
    for index, step in enumerate(location):
        field = model.model_fields.get(str(step))
        # an index of a list, or a validator of pydantic, is not a field
        if field is None:
            continue
        # the type of a field may be a section, or a union such as `Section | None`
        annotations = [field.annotation]
        annotations += get_args(field.annotation)
        for annotation in annotations:
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                inner_model, keys = _find_section(annotation, location[index + 1 :])
                return inner_model, [str(step)] + keys
    return model, []


def _write_example(model: type[BaseModel], problem: ErrorDetails, section: str) -> str:
    """Write a hint with valid values of a key, such as `as in train.lr=0.001`.

    The hint has the examples of the field, else a default that is a number or text,
    else the first allowed value, else nothing. For a whole section, it has the keys.
    """
    # the innermost section, and the name of the key in it
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
    """Find the file of a recipe. A file of the user wins over a shipped recipe.

    Args:
        command: Name of the subcommand.
        name: Path of a file, name of a shipped recipe or of its folder, or None for
            the default recipe.

    Raises:
        RecipeError: if there is no such recipe.
    """
    root = shipped_recipes()
    file_name = f"{command}.yaml"
    if name is None:
        return root / file_name

    # the names of shipped recipes have hyphens
    shipped_name = name.replace("_", "-")
    shipped_files = [root / shipped_name / file_name, root / f"{shipped_name}.yaml"]
    for candidate in [Path(name)] + shipped_files:
        # Path.is_file raises an error if the name is too long
        if os.path.isfile(candidate):
            return candidate

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
        The folder of a shipped recipe, such as `papers/nice`, or "" for a default
        recipe. For any other file its path, relative to home if possible.
    """
    root = shipped_recipes().resolve()
    if path.resolve().is_relative_to(root):
        return path.resolve().parent.relative_to(root).as_posix().removeprefix(".")
    return str(make_portable(os.path.abspath(path)))


def read_recipe(path: Path, command: str = "") -> dict[str, Any]:
    """Read a YAML recipe, and merge it with the recipes that it extends.

    Args:
        path: File of the recipe.
        command: Subcommand whose recipes `extends` may name. By default the file name.

    Returns:
        Values by key, in nested dictionaries.

    Raises:
        MissingData: if the file does not exist.
        RecipeError: if a file is damaged, or extends itself or no known recipe.
    """
    # a file replaces values of the recipe that it extends
    merged: dict[str, Any] = {}
    for fields in reversed(read_extended(path, command).values()):
        merged = merge_with_default(merged, fields, merges_all=True)
    return merged


def read_extended(path: Path, command: str = "") -> dict[Path, dict[str, Any]]:
    """Read a YAML recipe and the recipes that it extends, without merging them.

    Args:
        path: File of the recipe.
        command: Subcommand whose recipes `extends` may name. By default the file name.

    Returns:
        The values by key of each file, by its path. The file `path` comes first, and
        each file is followed by the file that it extends.

    Raises:
        MissingData: if the file does not exist.
        RecipeError: if a file is damaged, or extends itself or no known recipe.
    """
    kind = TypeAdapter(dict[str, Any] | None)
    fields_by_file: dict[Path, dict[str, Any]] = {}
    file = path
    # Largest number of recipes that extend one another.
    max_extended = 50
    while True:
        if file.resolve() in map(Path.resolve, fields_by_file):
            raise RecipeError(
                f"{path} extends itself", "name another recipe after `extends`"
            )
        if len(fields_by_file) == max_extended:
            raise RecipeError(
                f"{path} extends a chain of more than {max_extended} recipes",
                "write the keys of some of them into one",
            )

        document = documents.read(file, kind, "fix the file", RecipeError, is_yaml=True)
        fields = document or {}
        base = fields.pop("extends", None)
        # the extended recipe of a run has these keys, which describe only that run
        if fields_by_file:
            fields.pop("recipe_name", None)
            fields.pop("digests", None)
        fields_by_file[file] = fields

        # continue with the extended file
        if base is None:
            return fields_by_file
        if not isinstance(base, str):
            raise RecipeError(
                f"extends: must be the name of a recipe, got {show_value(base)}",
                "write the name of a recipe after `extends`",
            )
        sibling = file.parent / base
        if os.path.isfile(sibling):
            file = sibling
        else:
            file = find_recipe(command or path.stem, base)


def parse_value(text: str, override: str) -> Any:
    """Read the value of an override `KEY=VALUE` as YAML.

    Args:
        text: Value. It is returned unchanged if it begins with a special character of
            YAML, such as `*`, or if YAML would read its end as a comment.
        override: Whole override, for the error message.

    Raises:
        RecipeError: if the value is not valid YAML.
    """
    # YAML reads these characters as aliases, anchors, tags, directives or comments
    has_comment = re.search(r"^[^\[{'\"].*\s#", text)
    if has_comment or text.startswith(("*", "&", "!", "%", "@", "`", "#")):
        return text
    source = f"the value of {show_value(override)}"
    hint = (
        "quote the value for the shell, and inside it each text with [ ] { } # or :, "
        "as in KEY='[\"a[12]*.nii\"]'; instead of nested {NAME: VALUE}, write "
        "KEY.NAME=VALUE"
    )
    return documents.parse(text, source, Any, hint, RecipeError, is_yaml=True)


def _to_index(section: dict[str, Any] | list[Any], step: str, key: str) -> Any:
    """Return a step of a dotted key, as an integer if it is the index of a list.

    Args:
        section: Section or list in which the step selects an item.
        step: Name or number between two dots of the key.
        key: Whole dotted key, for the error message.
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
