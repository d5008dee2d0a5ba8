"""Mutated recipes that are resolved, written, read again and checked."""

import copy
import datetime
import importlib
import random
import signal
import sys
import traceback
from collections import Counter
from functools import partial
from pathlib import Path

import yaml

from brainhive_cli.core.recipes.recipe import read_recipe, shipped_recipes
from tests.soak.runner import Case
from tests.soak.world import (
    ALIGN,
    CPU_KEYS,
    DRAW,
    ENCODER,
    PICTURE_KEYS,
    PRIOR,
    THINGS_KEYS,
)

RECIPES_PER_CASE = 50
MAX_RECIPE_S = 20
DEEP_LIST = 1
for _ in range(60):
    DEEP_LIST = [DEEP_LIST]
RECIPE_VALUES = [
    None,
    True,
    False,
    "",
    " ",
    "a",
    "no",
    "null",
    "..",
    "../../x",
    "/nowhere/x",
    "a\0b",
    "\u202e",
    "x" * 10_000,
    0,
    -1,
    1,
    2,
    3.5,
    2**31,
    2**63,
    -(2**64),
    10**30,
    1e308,
    1e-320,
    -0.0,
    "1e3",
    "0x1F",
    "1_000",
    "1:30",
    float("inf"),
    float("-inf"),
    float("nan"),
    "inf",
    "nan",
    ".inf",
    datetime.date(2026, 1, 1),
    datetime.datetime(2026, 1, 1, 1),
    b"\xff\x00",
    {1, 2},
    [],
    {},
    [None],
    [[]],
    [1, 1],
    [1, "a"],
    {1: 2},
    {"kind": None},
    {"kind": "nothing"},
    {"kind": "os.path"},
    {"kind": ["a"]},
    {"kind": "demo", "x": 1},
    {None: 1},
    {True: 1},
    {"": 1},
    {"a.b": 1},
    DEEP_LIST,
    {"kind": "image-folder", "root": "pictures", "name": "../x"},
    "hub:",
    "hub:a",
    "hub:a/b/../..",
    "hub:a/b@c@d",
    "demo:",
    "demo:../../..",
    "python:",
    "python:a:b:c",
    "python:os:getcwd",
    ENCODER,
    "a,b",
    ",",
    "2026-01-01",
    "9" * 400,
    "weights/prior",
    "runs/aligned",
    "runs/aligned:x",
    ":",
    "clip-h14",
    "clip-h14:nothing",
    "timm",
    [ENCODER],
    [{"kind": "timm", "source": 3}],
]
OVERRIDE_TEXTS = [
    ".inf",
    "-.inf",
    ".nan",
    "1e400",
    "2026-11-21",
    "2026-13-45",
    "2026-11-21T25:00:00Z",
    "!!int x",
    "!!int ''",
    "!!float x",
    "!!bool x",
    "!!null x",
    "!!binary a",
    "!!binary '*'",
    "!!timestamp x",
    "!!set {a}",
    "!!set [a]",
    "!!omap [a]",
    "!!pairs [a]",
    "!!python/object/apply:os.getcwd []",
    "!!python/name:os.system",
    "!x y",
    "&a [*a]",
    "*a",
    "{<<: 3}",
    "{<<: {a: 1}}",
    "{<<: [{a: 1}, 2]}",
    "? x",
    "- a\n- b",
    "a: 1\na: 2",
    "|",
    ">",
    "'",
    '"',
    "%",
    "@",
    "\t",
    "`",
    "!!str",
    "!!str []",
    "!<tag:yaml.org,2002:int> x",
    "0o17",
    "0b1",
    "0x",
    "1__0",
    "~",
    "=",
    "9" * 5000,
    "-" + "9" * 5000,
    "0." + "9" * 5000,
    "[" * 300 + "]" * 300,
    "[" * 5000,
    "{a: " * 2000,
    "{" * 500,
    "\x00",
    "\x07",
    "\ud800",
    "\ufeff1",
    "...",
    "---",
    "--- 1\n--- 2",
    "#",
    "1:60:60",
    "1.5:60",
    "{1: 2}",
    "{null: 1}",
    "{[a]: 1}",
    "{{a: 1}: 2}",
    "{2026-01-01: 1}",
    "[.inf, .nan]",
    "",
    " ",
    "190:20:30",
]
"""Values of overrides on the command line."""
WORLD_OVERRIDES = {
    "embed": [PICTURE_KEYS, THINGS_KEYS],
    "train-align": [
        ALIGN[1:],
        ALIGN[1:5] + ("prior=weights/prior",),
        ALIGN[1:] + ("mode=joint", "subjects=1,2"),
    ],
    "eval-retrieval": [
        ("align_run=runs/aligned",),
        ("align_run=runs/aligned", "against=runs/aligned"),
    ],
    "train-prior": [PRIOR[1:]],
    "reconstruct": [DRAW[1:], ("score=scored", "truth=pictures")],
    "check": [(), ("stores=embeddings",)],
    "import-embeddings": [("sources=vectors/dict.npz",) + PICTURE_KEYS],
    "export-embeddings": [("stores=embeddings",)],
    "demo": [()],
    "doctor": [()],
}
PAPER_RECIPES = sorted(shipped_recipes().glob("papers/*/*.yaml"))
COMMAND_WEIGHTS = (4, 8, 5, 5, 6, 1, 2, 1, 1, 1)


def cases(seed, count, group="recipes"):
    """Yield batches of recipes: commands on the world, or papers (`methods`)."""
    for number in range(0, count, RECIPES_PER_CASE):
        numbers = range(number, min(number + RECIPES_PER_CASE, count))
        batch = partial(_try_recipes, seed, numbers, group == "methods")
        yield Case(group, f"{number}-{number + len(numbers) - 1}", call=batch)


def _try_recipes(seed, numbers, is_of_paper):
    problems, counts = {}, Counter[str]()
    for number in numbers:
        rng = random.Random(f"{seed}/{number}")
        if is_of_paper:
            file = rng.choice(PAPER_RECIPES)
            command = file.stem
            recipe = read_recipe(file) | {"run": {"device": "cpu", "workers": 0}}
            resolve = _import_command(command).Recipe.resolve
            resolved = resolve(command, str(file), {}, CPU_KEYS)
            fields = resolved.model_dump(mode="json")
        else:
            (command,) = rng.choices(list(WORLD_OVERRIDES), COMMAND_WEIGHTS)
            base = rng.choice(WORLD_OVERRIDES[command])
            resolve = _import_command(command).Recipe.resolve
            resolved = resolve(command, None, {}, list(base + CPU_KEYS))
            fields = resolved.model_dump(mode="json")
            recipe = _select_fields(fields, base)
        text, overrides = _mutate_recipe(rng, fields, recipe)
        label = f"{number} {command} {text!r:.200} {' '.join(overrides)!r:.300}"
        print(label, file=sys.stderr, flush=True)
        signal.signal(signal.SIGALRM, _raise_timeout)
        signal.alarm(MAX_RECIPE_S)
        try:
            verdict = _check_recipe(command, text, overrides)
        except BaseException as error:
            verdict = "failed"
            frames = traceback.extract_tb(error.__traceback__)
            own_frames = [
                frame for frame in frames if "brainhive_cli" in frame.filename
            ]
            frame = (own_frames or frames)[-1]
            location = f"{Path(frame.filename).name}:{frame.lineno}"
            problems[label] = (
                f"{type(error).__name__} in {location}: {str(error)[:200]}"
            )
        signal.alarm(0)
        counts[verdict] += 1
    return problems, dict(counts)


def _raise_timeout(*_):
    raise TimeoutError(f"over {MAX_RECIPE_S} s")


def _import_command(name):
    return importlib.import_module(f"brainhive_cli.commands.{name.replace('-', '_')}")


def _mutate_recipe(rng, resolved_fields, file_fields):
    """Change the fields of a recipe file. Return its text and overrides."""
    resolved_fields.pop("digests", None)
    keys = list(_list_keys(resolved_fields, ()))
    overrides = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        key = rng.choice(keys)
        draw = rng.random()
        if draw < 0.45:
            _set_value(file_fields, key, copy.deepcopy(rng.choice(RECIPE_VALUES)))
        elif draw < 0.6:
            value = _get_value(resolved_fields, rng.choice(keys))
            _set_value(file_fields, key, copy.deepcopy(value))
        elif draw < 0.68:
            name = rng.choice(("unknown", "kind", "", "a b", key[-1] + "s"))
            _set_value(file_fields, key[:-1] + (name,), 1)
        elif draw < 0.92:
            overrides.append(f"{'.'.join(key)}={rng.choice(OVERRIDE_TEXTS)}")
        else:
            wrong_keys = ("a..b", "", ".", "x." * 300 + "x", "__class__", "run")
            wrong_key = rng.choice(wrong_keys + (f"{key[0]}.x.y", "0"))
            overrides.append(f"{wrong_key}={rng.choice(OVERRIDE_TEXTS)}")
    text = yaml.dump(
        file_fields, Dumper=_DumperWithoutAliases, sort_keys=False, allow_unicode=True
    )
    if rng.random() < 0.05:
        index = rng.randrange(len(text) or 1)
        insertions = ("\x00", "\t", "&a ", "*a ", "!!int ", "}", "\ud800", "é" * 9)
        text = text[:index] + rng.choice(insertions) + text[index:]
    return text, overrides


class _DumperWithoutAliases(yaml.SafeDumper):
    def ignore_aliases(self, data):
        return True


def _select_fields(fields, base):
    """Select the fields that the overrides `base` set, and `run`."""
    names = {override.partition("=")[0].split(".")[0] for override in base}
    selected_fields = {name: fields[name] for name in fields if name in names}
    return selected_fields | {"run": {"device": "cpu", "workers": 0}}


def _list_keys(fields, prefix):
    for name, value in fields.items():
        key = prefix + (name,)
        yield key
        if isinstance(value, dict):
            yield from _list_keys(value, key)


def _get_value(fields, key):
    for step in key:
        fields = fields[step]
    return fields


def _set_value(fields, key, value):
    for step in key[:-1]:
        if not isinstance(fields.get(step), dict):
            fields[step] = {}
        fields = fields[step]
    fields[key[-1]] = value


def _check_recipe(command, text, overrides):
    from brainhive_cli.cli.execute import describe_error
    from brainhive_cli.core.base.errors import BrainhiveError
    from brainhive_cli.core.files.inputs import describe_missing
    from brainhive_cli.core.runs.jobs import resolve

    pipeline = _import_command(command)
    path = Path("mutated.yaml")
    path.write_bytes(text.encode(errors="surrogatepass"))
    try:
        recipe = pipeline.Recipe.resolve(command, str(path), {}, overrides)
        fingerprint, yaml_text = recipe.fingerprint(), recipe.to_yaml()
        yaml_text.encode()
    except BrainhiveError as error:
        refuse_riddles(error)
        return "refused"
    path.write_text(yaml_text)
    try:
        second_recipe = pipeline.Recipe.resolve(command, str(path), {}, ())
    except BrainhiveError as error:
        raise AssertionError(
            f"accepted, but refused when read again: {error.message:.150}"
        ) from error
    if second_recipe.fingerprint() != fingerprint:
        raise AssertionError("accepted, but another recipe when read again")
    try:
        job = resolve(pipeline, recipe)
        missing = describe_missing(job.list_inputs())
        if not missing:
            job.preview()
    except (BrainhiveError, OSError) as error:
        refuse_riddles(describe_error(error))
        return "refused"
    for line in missing:
        if "this is a bug" in line or "MemoryError" in line:
            raise AssertionError(line)
    return "checked, something missing" if missing else "checked"


def refuse_riddles(error):
    """Raise an AssertionError unless an error has a one-line message and hint."""
    if "this is a bug" in error.hint or "free space" in error.hint:
        raise AssertionError(f"{error.message} ({error.hint})")
    if not error.message or "\n" in error.message or "\n" in error.hint:
        raise AssertionError(f"not two lines: {error.message!r:.150}")
