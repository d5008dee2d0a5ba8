"""Calls of the Python api with bad arguments, which must raise our two-line errors."""

import random
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from brainhive_cli import aligner, api
from brainhive_cli.core.base.errors import BrainhiveError
from tests.soak.recipes import refuse_riddles
from tests.soak.runner import Case

CALLS_PER_CASE = 25
ARGUMENT_VALUES = [
    None,
    True,
    0,
    -1,
    3,
    1.5,
    float("nan"),
    10**400,
    "",
    "x",
    "x" * 300,
    "é" * 300,
    "a\0b",
    "a\nb",
    "\u202e",
    "..",
    "/",
    "/etc/passwd",
    "../../x",
    "**",
    "[",
    "cuda",
    "cuda:99",
    "tpu",
    "mps",
    "meta",
    b"x",
    b"\xff",
    [],
    {},
    (),
    [1],
    ["x"],
    {"a": 1},
    {1, 2},
    object(),
    object,
    print,
    Path("x"),
    Path("x" * 300),
    Ellipsis,
    np.zeros(3),
    np.zeros((2, 1, 17, 20), "c8"),
    np.zeros((2, 1, 17, 20), "U3"),
    np.array(None),
    1j,
    "\ud800",
]


def cases(seed, count):
    """Yield batches of calls."""
    for number in range(0, count, CALLS_PER_CASE):
        numbers = range(number, min(number + CALLS_PER_CASE, count))
        yield Case(
            "api",
            f"{number}-{number + len(numbers) - 1}",
            call=partial(_try_calls, seed, numbers),
        )


def _list_functions():
    """List functions of the api with valid arguments."""
    aligned_run, store = api.open_run("aligned"), api.open_signals("things-eeg", 1)
    recording = store["test"]
    fields = {
        "signal": np.asarray(recording.signal),
        "image_ids": list(recording.image_ids),
        "space": recording.space,
        "times_s": recording.times_s,
        "rate_hz": 250.0,
        "unit": recording.unit,
        "repetitions": None,
        "sessions": None,
        "whiteners": None,
        "runs": None,
        "provenance": {},
    }
    names = list(recording.space.names)
    member = {"cell": aligned_run.cells[0].name, "device": "cpu"}
    trials = {"subject": 1, "split": "test", **member}
    return {
        "open_run": (api.open_run, {"name": "aligned"}),
        "open_store": (
            api.open_store,
            {"dataset": "things-eeg", "split": "test", "encoder": "local--encoder"},
        ),
        "open_signals": (
            api.open_signals,
            {"dataset": "things-eeg", "subject": 1, "name": "default"},
        ),
        "signals": (lambda key: store[key], {"key": "test"}),
        "aligner": (aligned_run.aligner, member),
        "member": (aligned_run.member, member),
        "predictions": (aligned_run.predictions, trials),
        "decode": (api.decode, {"model": aligned_run, "signal": recording, **trials}),
        "Trials": (api.Trials, fields),
        "Sensors": (
            api.Sensors,
            {"names": names, "positions": np.zeros((len(names), 3))},
        ),
        "Voxels": (api.Voxels, {"regions": {"V1": np.ones(4, bool)}}),
        "Paths": (api.Paths, {"data": "data", "runs": "runs"}),
        "load": (aligner.load, {"path": next(aligned_run.path.glob("cells/*/model"))}),
    }


def _try_calls(seed, numbers):
    problems, counts, functions = {}, Counter[str](), _list_functions()
    for number in numbers:
        rng = random.Random(f"{seed}/{number}")
        name = rng.choice(list(functions))
        function, arguments = functions[name]
        n_changes = min(len(arguments), rng.choice((1, 1, 2)))
        keys = rng.sample(list(arguments), n_changes)
        changes = {key: rng.choice(ARGUMENT_VALUES) for key in keys}
        verdict = "same result"
        try:
            with warnings.catch_warnings(action="error"):
                function(**{**arguments, **changes})
        except BaseException as error:
            verdict = "refused"
            is_own = isinstance(error, BrainhiveError)
            try:
                refuse_riddles(error if is_own else BrainhiveError(""))
            except AssertionError:
                verdict, problem = "failed", f"{type(error).__name__}: {error!s:.150}"
                problems[f"{number} {name} {changes!r:.150}"] = problem
        counts[verdict] += 1
    return problems, dict(counts)
