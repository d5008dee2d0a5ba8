"""Whole studies whose signals are in other units: equal ranks and metrics."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli import api
from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.files.hdf5 import LazyRows
from brainhive_cli.data.stores.signal_store import SignalStore
from tests.worlds.command_fixtures import use_home

STORE = "signals/demo/default/sub-0{}.h5"
TRAINING = {"subjects": [1], "seeds": [0], "train": {"epochs": 2}}
Numbers = dict[str, float]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Home with the embeddings and signals of the demo."""
    with use_home(tmp_path_factory.mktemp("demo")) as home:
        api.run("embed", recipe="demo")
        train(subjects=[1, 2])  # it simulates the signals
        yield home


def scale_signals(demo, home, factor, offset=0):
    """Copy the demo, with signals (x + offset) · factor of an unknown unit."""
    shutil.copytree(demo / "embeddings", home / "embeddings")
    for subject in (1, 2):
        path = home / STORE.format(subject)
        path.parent.mkdir(parents=True, exist_ok=True)
        recordings = {}
        store = SignalStore.open(demo / STORE.format(subject))
        for split, trials in store.splits.items():
            exact = np.asarray(trials.signal[:], np.float64)
            values = ((exact + offset) * factor).astype(np.float32)
            rows = LazyRows(values.shape, values.dtype, values.__getitem__)
            recordings[split] = replace(trials, signal=rows, unit="a.u.")
        SignalStore.write(path, recordings)


def train(**keys):
    """Train a model of the demo, with a measured factor instead of the recipe's."""
    keys = {**TRAINING, "signal.scale": None, **keys}
    return str(api.run("train-align", recipe="demo", **keys).folder)


def measure(*commands):
    """Run commands on a training, and list all metrics of the results."""
    train_run = [train()]
    keys_of = {
        "eval-retrieval": {"run": train_run, "baseline": "ridge", "recipe": "demo"},
        "explain": {"align_run": train_run, "analyses": ["encoding", "similarity"]},
        "calibrate": {"align_run": train_run, "subjects": [2], "draws": 2},
        "reconstruct": {
            "align_run": train_run,
            "recipe": "demo",
            "items": 4,
            "repeats": 1,
        },
    }
    keys_of["explain"]["draws"] = 20
    keys_of["reconstruct"]["sources"] = ["brain"]
    numbers = {}
    for command in commands:
        metrics = api.run(command, **keys_of[command]).metrics
        for scope, measured_scope in metrics.scopes.items():
            for name, metric in measured_scope.items():
                numbers[f"{command}, {scope}, {name}"] = metric.value
    checked = api.run("check", stores=[STORE.format(1)], plots=True).details
    for facts in checked["stores"].values():
        for split, figures in facts["reliability"].items():
            for name, value in figures.items():
                if isinstance(value, int | float):
                    numbers[f"{split}, {name}"] = value
    return numbers


@pytest.mark.parametrize(
    ("factors", "commands"),
    [
        ((1e-13,), ("eval-retrieval", "explain")),
        pytest.param(
            (1e-13, 1e-6, 7.0, 1e4),
            ("eval-retrieval", "explain", "calibrate", "reconstruct"),
            marks=pytest.mark.nightly,
        ),
    ],
    ids=["one unit", "all units"],
)
def test_results_are_equal_in_any_unit(demo, tmp_path, factors, commands):
    results = []
    for factor in (1.0,) + tuple(factors):
        home = tmp_path / str(factor)
        scale_signals(demo, home, factor)
        with use_home(home):
            results.append(measure(*commands))
    assert len(results[0]) > 100
    for numbers in results[1:]:
        assert numbers == pytest.approx(results[0], abs=1e-4, rel=1e-4)


def test_an_offset_is_removed_or_named(demo, tmp_path):
    scale_signals(demo, tmp_path, 1e-6, offset=20_000)
    with use_home(tmp_path):
        with pytest.raises(BrainhiveError, match=r"subject 1 train have an offset"):
            train()
        train(**{"signal.normalise": "channel"})
