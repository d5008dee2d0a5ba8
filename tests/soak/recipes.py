"""Mutated recipes: resolved, fingerprinted, written, read again and checked, in
process.
"""

import copy
import datetime
import importlib
import random
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from brainhive_cli.core.recipe import read_recipe, shipped_recipes
from tests.soak.runner import Case
from tests.soak.world import ALIGN, CPU_KEYS, DRAW, ENCODER, PICTURE_KEYS, PRIOR

BATCH = 50
TIME_S = 20
DEEP: Any = 1
for _ in range(60):
    DEEP = [DEEP]
VALUES: list[Any] = [
    *(
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
    ),
    "x" * 10_000,
    *(
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
    ),
    *(
        float("inf"),
        float("-inf"),
        float("nan"),
        "inf",
        "nan",
        ".inf",
        datetime.date(2026, 1, 1),
    ),
    *(
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
    ),
    *(
        {"kind": None},
        {"kind": "nothing"},
        {"kind": "os.path"},
        {"kind": ["a"]},
        {"kind": "demo", "x": 1},
    ),
    *({None: 1}, {True: 1}, {"": 1}, {"a.b": 1}, DEEP),
    {"kind": "image-folder", "root": "pictures", "name": "../x"},
    *(
        "hub:",
        "hub:a",
        "hub:a/b/../..",
        "hub:a/b@c@d",
        "demo:",
        "demo:../../..",
        "python:",
        "python:a:b:c",
    ),
    *(
        "python:os:getcwd",
        ENCODER,
        "a,b",
        ",",
        "2026-01-01",
        "9" * 400,
        "weights/prior",
        "runs/aligned",
    ),
    *("runs/aligned:x", ":", "clip-h14", "clip-h14:nothing", "timm", [ENCODER]),
    [{"kind": "timm", "source": 3}],
]
TEXTS = [
    *(
        ".inf",
        "-.inf",
        ".nan",
        "1e400",
        "2026-11-21",
        "2026-13-45",
        "2026-11-21T25:00:00Z",
        "!!int x",
    ),
    "!!int ''",
    *(
        "!!float x",
        "!!bool x",
        "!!null x",
        "!!binary a",
        "!!binary '*'",
        "!!timestamp x",
        "!!set {a}",
    ),
    "!!set [a]",
    *(
        "!!omap [a]",
        "!!pairs [a]",
        "!!python/object/apply:os.getcwd []",
        "!!python/name:os.system",
        "!x y",
    ),
    *(
        "&a [*a]",
        "*a",
        "{<<: 3}",
        "{<<: {a: 1}}",
        "{<<: [{a: 1}, 2]}",
        "? x",
        "- a\n- b",
        "a: 1\na: 2",
        "|",
    ),
    ">",
    *(
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
    ),
    "1__0",
    *(
        "~",
        "=",
        "9" * 5000,
        "-" + "9" * 5000,
        "0." + "9" * 5000,
        "[" * 300 + "]" * 300,
        "[" * 5000,
    ),
    "{a: " * 2000,
    *(
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
    ),
    *(
        "{1: 2}",
        "{null: 1}",
        "{[a]: 1}",
        "{{a: 1}: 2}",
        "{2026-01-01: 1}",
        "[.inf, .nan]",
        "",
        " ",
    ),
    "190:20:30",
]
"""Values of overrides, as they are typed."""
WORLD = {
    "embed": [(*PICTURE_KEYS,), ("dataset=things-eeg", f"encoders=[{ENCODER}]")],
    "train-align": [
        ALIGN[1:],
        (*ALIGN[1:5], "prior=weights/prior"),
        (*ALIGN[1:], "mode=joint", "subjects=1,2"),
    ],
    "eval-retrieval": [
        ("align_run=runs/aligned",),
        ("align_run=runs/aligned", "against=runs/aligned"),
    ],
    "train-prior": [PRIOR[1:]],
    "reconstruct": [DRAW[1:], ("score=scored", "truth=pictures")],
    "check": [(), ("stores=embeddings",)],
    "import-embeddings": [("sources=vectors/dict.npz", *PICTURE_KEYS)],
    "export-embeddings": [("stores=embeddings",)],
    "demo": [()],
    "doctor": [()],
}
PAPERS = sorted(shipped_recipes().glob("papers/*/*.yaml"))
WEIGHTS = (4, 8, 5, 5, 6, 1, 2, 1, 1, 1)


def cases(seed: int, count: int, group: str = "recipes") -> Iterator[Case]:
    """Make batches of recipes: of commands on the world, or of papers (`methods`)."""
    for number in range(0, count, BATCH):
        numbers = range(number, min(number + BATCH, count))
        batch = partial(_try, seed, numbers, group == "methods")
        yield Case(group, f"{number}-{number + len(numbers) - 1}", call=batch)


def _try(
    seed: int, numbers: range, is_of_paper: bool
) -> tuple[dict[str, str], dict[str, int]]:
    problems, counts = {}, Counter[str]()
    for number in numbers:
        chosen = random.Random(f"{seed}/{number}")
        if is_of_paper:
            file = chosen.choice(PAPERS)
            command = file.stem
            recipe = read_recipe(file) | {"run": {"device": "cpu", "workers": 0}}
            fields = (
                _command(command)
                .Recipe.resolve(command, str(file), {}, CPU_KEYS)
                .model_dump(mode="json")
            )
        else:
            (command,) = chosen.choices(list(WORLD), WEIGHTS)
            base = chosen.choice(WORLD[command])
            words = [*base, *CPU_KEYS]
            fields = (
                _command(command)
                .Recipe.resolve(command, None, {}, words)
                .model_dump(mode="json")
            )
            recipe = _of(fields, base)
        text, overrides = _mutated(chosen, fields, recipe)
        shown = f"{number} {command} {text!r:.200} {' '.join(overrides)!r:.300}"
        print(shown, file=sys.stderr, flush=True)
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(TIME_S)
        try:
            verdict = _checked(command, text, overrides)
        except BaseException as error:
            verdict = "failed"
            at = traceback.extract_tb(error.__traceback__)
            ours = next(
                (each for each in reversed(at) if "brainhive_cli" in each.filename),
                at[-1],
            )
            where = f"{Path(ours.filename).name}:{ours.lineno}"
            problems[shown] = f"{type(error).__name__} in {where}: {str(error)[:200]}"
        signal.alarm(0)
        counts[verdict] += 1
    return problems, dict(counts)


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"over {TIME_S} s")


def _command(name: str) -> Any:
    return importlib.import_module(f"brainhive_cli.commands.{name.replace('-', '_')}")


def _mutated(
    chosen: random.Random, fields: dict[str, Any], changed: dict[str, Any]
) -> tuple[str, list[str]]:
    """Make the text of a recipe, and overrides: of all fields of a resolved one, and
    what its file sets.
    """
    fields.pop("digests", None)
    keys = list(_keys(fields, ()))
    given: list[str] = []
    for _ in range(chosen.choice((1, 1, 1, 2, 3))):
        key = chosen.choice(keys)
        how = chosen.random()
        if how < 0.45:
            _put(changed, key, copy.deepcopy(chosen.choice(VALUES)))
        elif how < 0.6:
            other = chosen.choice(keys)
            _put(changed, key, copy.deepcopy(_get(fields, other)))
        elif how < 0.68:
            _put(
                changed,
                (
                    *key[:-1],
                    chosen.choice(("unknown", "kind", "", "a b", key[-1] + "s")),
                ),
                1,
            )
        elif how < 0.92:
            given.append(f"{'.'.join(key)}={chosen.choice(TEXTS)}")
        else:
            odd = chosen.choice(
                (
                    "a..b",
                    "",
                    ".",
                    "x." * 300 + "x",
                    "__class__",
                    "run",
                    f"{key[0]}.x.y",
                    "0",
                )
            )
            given.append(f"{odd}={chosen.choice(TEXTS)}")
    text = yaml.dump(changed, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    if chosen.random() < 0.05:
        at = chosen.randrange(len(text) or 1)
        text = (
            text[:at]
            + chosen.choice(
                ("\x00", "\t", "&a ", "*a ", "!!int ", "}", "\ud800", "é" * 9)
            )
            + text[at:]
        )
    return text, given


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _of(fields: dict[str, Any], base: tuple[str, ...]) -> dict[str, Any]:
    """Keep the keys that the base sets, and how it runs."""
    kept = {word.partition("=")[0].split(".")[0] for word in base}
    return {key: fields[key] for key in fields if key in kept} | {
        "run": {"device": "cpu", "workers": 0}
    }


def _keys(fields: Any, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, value in fields.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _keys(value, (*above, key))


def _get(fields: Any, key: tuple[str, ...]) -> Any:
    for step in key:
        fields = fields[step]
    return fields


def _put(fields: dict[str, Any], key: tuple[str, ...], value: Any) -> None:
    for step in key[:-1]:
        below = fields.get(step)
        fields[step] = fields = below if isinstance(below, dict) else {}
    fields[key[-1]] = value


def _checked(command: str, text: str, overrides: list[str]) -> str:
    from brainhive_cli.cli.execute import describe_error
    from brainhive_cli.core.command import describe_missing
    from brainhive_cli.core.errors import BrainhiveError
    from brainhive_cli.core.jobs import resolve

    pipeline = _command(command)
    path = Path("mutated.yaml")
    path.write_bytes(text.encode(errors="surrogatepass"))
    try:
        recipe = pipeline.Recipe.resolve(command, str(path), {}, overrides)
        fingerprint, written = recipe.fingerprint(), recipe.to_yaml()
        written.encode()
    except BrainhiveError as error:
        refuse_riddles(error)
        return "refused"
    path.write_text(written)
    try:
        again = pipeline.Recipe.resolve(command, str(path), {}, ())
    except BrainhiveError as error:
        raise AssertionError(
            f"accepted, but refused when read again: {error.message:.150}"
        ) from error
    if again.fingerprint() != fingerprint:
        raise AssertionError("accepted, but another recipe when read again")
    try:
        job = resolve(pipeline, recipe)
        missing = describe_missing(job.list_inputs())
        _ = () if missing else job.preview()
    except (BrainhiveError, OSError) as error:
        refuse_riddles(describe_error(error))
        return "refused"
    for line in missing:
        if "this is a bug" in line or "MemoryError" in line:
            raise AssertionError(line)
    return "checked, something missing" if missing else "checked"


def refuse_riddles(error: Any) -> None:
    """An error is two lines, each of which a terminal shows whole."""
    if "this is a bug" in error.hint or "free space" in error.hint:
        raise AssertionError(f"{error.message} ({error.hint})")
    if not error.message or "\n" in error.message or "\n" in error.hint:
        raise AssertionError(f"not two lines: {error.message!r:.150}")
