"""Wrong arguments of public functions: the error names the argument and its value."""

import traceback

import numpy as np
import pytest

from brainhive_cli import api
from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError

DATASET = "demo-noise-0.3-40-concepts"
X = np.random.default_rng(0).normal(size=(12, 4, 20)).astype(np.float32)
SHOWN = ["a", "b"] * 6
AXES = {"channels": list("ABCD"), "times_s": np.arange(20) / 100, "unit": "uV"}


def fit(**changes):
    """Call `api.fit` with some arguments replaced."""
    arguments = {"X": X, "pictures": SHOWN, **AXES, **changes}
    return api.fit(arguments.pop("X"), arguments.pop("pictures"), **arguments)


@pytest.mark.parametrize(
    ("argument", "value", "facts"),
    [
        ("X", "x.npy", ("str", "mne.Epochs")),
        ("X", np.zeros(12), ("[12]", "[n, C, T]")),
        ("X", X.astype("U3"), ("<U3", "real numbers")),
        ("pictures", None, ("None",)),
        ("pictures", SHOWN[:5], ("5", "12 trials")),
        ("channels", ["A"], ("length 1", "4 channels")),
        ("times_s", np.arange(10) / 100, ("length 10", "20 samples")),
        ("unit", 3, ("3", "int", "text")),
        ("runs", [1, 2], ("length 2", "12 trials")),
        ("session", ["a"], ("length 1", "12 trials")),
        ("onset_s", [1, 2], ("length 2", "12 trials")),
        ("subject", "a", ("'a'", "whole number")),
        ("subject", True, ("True", "whole number")),
        ("folder", 5, ("5", "int", "path")),
        ("folder", "nowhere", ("'nowhere'", "exists")),
        ("test_share", 5, ("5", "between 0 and 1")),
        ("keys", "nice", ("'nice'", "dict")),
        ("whitened", "no", ("'no'", "True, False or None")),
        ("averaged", 1, ("1", "True, False or None")),
        ("chanels", ["A"], ("did you mean channels",)),
    ],
)
def test_fit_names_a_wrong_argument(home, argument, value, facts):
    with pytest.raises((RecipeError, MissingData)) as caught:
        fit(**{argument: value})

    message = caught.value.message
    assert argument in message
    for fact in facts:
        assert fact in f"{message} {caught.value.hint}"
    assert not (home / "signals").exists()


@pytest.fixture
def calls(trained_run):
    """Wrong calls, each by the name of its wrong argument and an allowed value."""
    trained = api.open_run(trained_run)
    cell = trained.cells[0].name
    signals = api.open_signals(DATASET, 1)
    trials = signals["test"]
    return {
        "name: name or path": lambda: api.open_run(5),
        "dataset: demo-noise": lambda: api.open_signals("demos", 1),
        "name: default": lambda: api.open_signals(DATASET, 1, "raw"),
        "subject: 2": lambda: api.open_signals(DATASET, 9),
        "split: test": lambda: api.open_store(DATASET, "val", "x"),
        "encoder: brainhive": lambda: api.open_store(DATASET, "test", "clip-b32"),
        f"cell: {cell}": lambda: trained.member("sub-09"),
        f"cell:  {cell}": lambda: trained.member(),
        "subject: 1": lambda: api.decode(trained, trials, 9, cell=cell),
        "split:  test": lambda: api.decode(trained, trials, 1, "val", cell),
        'signal: ["test"]': lambda: api.decode(trained, signals, 1, cell=cell),
        "signal: an array": lambda: api.decode(trained, "x.fif", 1, cell=cell),
        "signal: channels": lambda: api.decode(trained, X, 1, cell=cell),
        "pictures: 3": lambda: api.decode(
            trained, np.zeros((3, 17, 250)), 1, cell=cell, pictures=["a"]
        ),
        "model: open_run": lambda: api.decode(trials, trained, 1),
        "split:   test": lambda: trained.predictions(1, "val", cell),
        "labels: list": lambda: api.compare(trained, trained_run, labels="ab"),
        "runs[1]: path": lambda: api.compare(trained, 5),
        "recipe: path": lambda: api.run("embed", 5),
        "again: True": lambda: api.run("embed", again="yes"),
        "command: text": lambda: api.run(5),
    }


def test_wrong_calls_name_the_argument_and_allowed_values(calls):
    for description, call in calls.items():
        argument, _, allowed = description.partition(":")
        with pytest.raises(BrainhiveError) as caught:
            call()
        assert argument in caught.value.message, description
        assert allowed.strip() in caught.value.hint, description


def test_a_traceback_ends_with_the_hint(home):
    with pytest.raises(BrainhiveError) as caught:
        api.open_run(5)
    text = "".join(traceback.format_exception_only(caught.value))
    assert text.splitlines()[-1] == caught.value.hint != ""


def test_a_misspelt_name_of_the_api_is_corrected():
    with pytest.raises(AttributeError, match="did you mean open_run"):
        _ = api.open_runs
