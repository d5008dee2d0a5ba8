"""Tests of whole evaluations against recorded metrics.

Models are closed-form ridges, which have no random start.
"""

from dataclasses import replace
from operator import attrgetter

import numpy as np
import pytest

from brainhive_cli import api
from brainhive_cli.evaluation.explanation import encoding_model
from tests.tools.recorded_numbers import FLOAT32
from tests.worlds.command_fixtures import COLOURS, use_home

WORLD = "dataset={kind: demo, noise: 0.6, subjects: 2, concepts: 30}"
ENCODERS = f"encoders=[{COLOURS!r}]"
VOXELS = "dataset={kind: demo, noise: 0.6, space: voxels, subjects: 1, concepts: 30}"


@pytest.fixture(scope="module")
def home(tmp_path_factory, run_command):
    """Home with the embeddings of the demo's pictures."""
    with use_home(tmp_path_factory.mktemp("home")) as home:
        run_command("embed", WORLD, ENCODERS)
        yield home


@pytest.fixture(scope="module")
def ridge(home, run_command):
    """Run of two seeds of a ridge for each of two people."""
    return run_command(
        "train-align", WORLD, ENCODERS, "backbone=ridge", "seeds=1,2"
    ).folder


FIELDS = ("value", "n", "pool", "chance", "low", "high", "seed_sd", "these_subjects")
"""Numbers of a metric."""
FACTS = {"unit_count", "stimuli", "inflation", "comparisons", "answers", "control"}
FACTS |= {"confusion_matrix", "plain", "baseline", "subset_pools", "repetitions"}
FACTS |= {"ceilings", "generalisation", "strength", "suffices", "better", "people"}
"""Facts of a command that are numbers."""


def summary(measurements):
    """Return the recorded values: metrics, items and facts."""
    read_fields = attrgetter(*FIELDS)
    metrics = {
        f"{scope}, {name}": read_fields(metric)
        for scope, listed_scope in measurements.scopes.items()
        for name, metric in listed_scope.items()
    }
    columns = {
        f"{scope}, {name}": values
        for scope, items in measurements.items.items()
        for name, values in items.items()
        if name not in ("image_ids", "units")
    }
    items = {
        name: np.array([np.nan if value is None else value for value in values])
        for name, values in columns.items()
        if values and isinstance(values[0], int | float | None)
    }
    facts = measurements.facts.model_dump(include=FACTS)
    return {"metrics": metrics, "items": items, "facts": facts}


RETRIEVALS = {
    "all measures": (
        "subsets=30",
        "repetitions=all",
        "corrections=whitening,csls",
        "baseline=ridge",
        "ceiling_splits=3",
    ),
    "permuted among all": ("gallery=train+test", "control=permuted", "seed=3"),
    "shuffled": ("control=shuffled", "subjects=2", "repetitions=2,5"),
}


@pytest.mark.parametrize("name", RETRIEVALS)
def test_retrieval(recorded, ridge, run_command, name):
    result = run_command(
        "eval-retrieval", f"run={ridge}", "sheet_rows=0", *RETRIEVALS[name]
    )

    recorded(digits=4, **summary(result.metrics))


def test_two_runs_compared(recorded, ridge, run_command):
    second = run_command(
        "train-align",
        WORLD,
        ENCODERS,
        "backbone={kind: ridge, alpha: 100}",
        "signal.window_ms=[100, 600]",
        "seeds=1,2",
    ).folder

    arguments = [f"run={ridge}", f"against={second}", "ceiling_splits=0"]
    result = run_command("eval-retrieval", *arguments, "sheet_rows=0")
    joined = run_command(
        "eval-retrieval", f"run={ridge},{second}", *arguments[2:], "sheet_rows=0"
    )

    # scopes of single runs have their folder
    scopes = joined.metrics.scopes
    for folder, label in ((ridge, "first"), (second, "second")):
        scopes = {name.replace(str(folder), label): scopes[name] for name in scopes}
    both_summary = summary(replace(joined.metrics, scopes=scopes))
    recorded(digits=4, **summary(result.metrics), joined=both_summary)


@pytest.mark.parametrize("design", ["two in runs", "three in trials"])
def test_categories(recorded, home, run_command, design):
    random = np.random.default_rng(0)
    names = ["face", "house", "shoe"][: 2 if "two" in design else 3]
    joined_array = np.concatenate([random.permutation(names * 8) for _ in range(4)])
    runs = np.repeat(np.arange(4), len(names) * 8)
    patterns = {name: random.normal(size=(6, 5)) for name in names}
    signal = np.stack([patterns[name] for name in joined_array])
    signal = signal + 3 * random.normal(size=signal.shape)

    trained, evaluated = api.fit(
        signal,
        joined_array.tolist(),
        runs=runs if "runs" in design else None,
        channels=[f"E{number}" for number in range(6)],
        times_s=np.arange(5) / 100,
        unit="µV",
        onset_s="in order",
    )
    # windows of two samples
    explained = run_command(
        "explain",
        f"align_run={trained.path}",
        "draws=40",
        "window={width_ms: 20, step_ms: 10}",
    )

    explained_summary = summary(explained.metrics)
    recorded(digits=4, **summary(evaluated.measurements), explained=explained_summary)


def test_shares_of_regions(
    recorded,
    home,
    run_command,
    monkeypatch,
):
    monkeypatch.setattr(encoding_model, "MAX_COMPONENTS", 12)
    arguments = [VOXELS, ENCODERS, "signal.normalise=channel"]
    run_command("embed", *arguments[:2])
    trained = run_command("train-align", *arguments, "backbone=ridge", "seeds=1").folder

    result = run_command(
        "eval-retrieval",
        f"run={trained}",
        "region_shares=true",
        "ceiling_splits=0",
        "sheet_rows=0",
    )
    explained = run_command("explain", f"align_run={trained}", "draws=40")

    explained_summary = summary(explained.metrics)
    recorded(digits=4, **summary(result.metrics), explained=explained_summary)


def test_explanation(
    recorded,
    ridge,
    run_command,
    monkeypatch,
):
    monkeypatch.setattr(encoding_model, "MAX_COMPONENTS", 12)

    result = run_command(
        "explain",
        f"align_run={ridge}",
        "draws=40",
        "window={width_ms: 200, step_ms: 200}",
    )

    # correlations of shuffled labels are sums near 0
    recorded(digits=4, rounding=FLOAT32, **summary(result.metrics))


def test_calibration(recorded, ridge, run_command):
    result = run_command("calibrate", f"align_run={ridge}", "subjects=2", "draws=1")

    recorded(digits=4, **summary(result.metrics))
