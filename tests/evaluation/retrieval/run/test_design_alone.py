"""Tests of the baseline of the design alone, in commands on noise that drifts."""

import numpy as np
import pytest

from brainhive_cli import api
from brainhive_cli.core.results.measurements import DESIGN_ALONE
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.reports.sentences.sentences import explain_chance, state_finding
from brainhive_cli.reports.tables.tables import published_tables
from tests.worlds.command_fixtures import COLOURS, paint_pictures

CHANNELS = 8
AXES = {
    "channels": [f"C{number}" for number in range(CHANNELS)],
    "times_s": [0.0, 0.01],
    "unit": "µV",
    "onset_s": "in order",
}


def walk(count):
    """Simulate trials [n, C, 2] of noise that drifts from trial to trial."""
    rng = np.random.default_rng(0)
    drift = rng.normal(size=(count, CHANNELS, 1)).cumsum(0)
    return drift + rng.normal(size=(count, CHANNELS, 2))


def find(run, scope, name):
    """Find a metric of a run."""
    return run.measurements.scopes[scope][name]


@pytest.mark.parametrize("is_blocked", [True, False])
def test_concepts_in_blocks_are_found_by_design(home, monkeypatch, is_blocked):
    """Noise tells the concept as well as the design does, but no picture of it."""
    monkeypatch.setenv("BRAINHIVE_ALLOW_CODE", "1")
    root = home / "pictures"
    paint_pictures(root / "train", 12, 24)
    for path in sorted(root.rglob("*.png")):
        if int(path.stem) < 4:
            tested = root / "test" / path.parent.name / path.name
            tested.parent.mkdir(parents=True, exist_ok=True)
            path.rename(tested)
    # numbers must not depend on the order of the file system
    paths = sorted(root.rglob("*.png"), key=lambda path: (path.parent.name, path.name))
    as_posixs = [path.relative_to(root).as_posix() for path in paths]
    rng = np.random.default_rng(1)
    if is_blocked:
        blocks = [rng.permutation(24) + start for start in range(0, 288, 24)]
        order = np.concatenate(blocks)
    else:
        order = rng.permutation(288)
    as_posixs = [as_posixs[row] for row in order]

    _, evaluated = api.fit(walk(288), as_posixs, "pictures", encoders=[COLOURS], **AXES)

    by_signal = find(evaluated, "all", "concept_top1")
    by_design = find(evaluated, DESIGN_ALONE, "top1")
    # the four pictures of the concept come first if the design tells it
    of_concept = find(evaluated, DESIGN_ALONE, "top5")
    assert by_signal.chance == pytest.approx(1 / 12)
    assert by_design.chance == pytest.approx(1 / 48)
    assert by_signal.n == by_design.n == 48
    assert by_design.pool == 48
    sides = {}
    for answer in evaluated.measurements.facts.answers:
        sides[answer.question] = answer.side
    assert sides["which picture"] == "at chance"
    assert sides["which picture of its concept"] == "at chance"
    text = state_finding(evaluated.measurements)
    explanation = explain_chance(evaluated.measurements, home / "absent")
    if is_blocked:
        assert of_concept.value > 0.9
        assert by_signal.value > 0.3
        assert by_design.low > by_design.chance
        assert sides["which concept"] == "not testable"
        assert f"{100 * by_design.value:.3g} %" in text
        assert "tells" in explanation
    else:
        assert of_concept.value < 0.3
        assert by_design.low <= by_design.chance <= by_design.high
        assert sides["which concept"] == "at chance"
        assert "design" not in text
        assert "time" not in text
        assert explanation
        assert "tells" not in explanation


@pytest.mark.parametrize(("by", "block_size"), [("trials", 12), ("runs", 6)])
def test_categories_are_compared_with_the_design(home, by, block_size):
    """Categories in blocks, in the same order again and again, are known by time."""
    block = np.repeat(["face", "house", "tool"], block_size)
    labels = np.resize(block, 72).tolist()
    runs = np.repeat([1, 2, 3, 4], 18).tolist()

    _, evaluated = api.fit(
        walk(72), labels, runs=runs if by == "runs" else None, **AXES
    )

    by_design = find(evaluated, DESIGN_ALONE, "accuracy")
    assert by_design.value > 0.8
    assert by_design.n == 72
    assert find(evaluated, "all", "accuracy").chance == pytest.approx(1 / 3)
    assert by_design.chance == pytest.approx(1 / 3)
    assert evaluated.measurements.facts.answers[0].side == "not testable"
    assert f"{100 * by_design.value:.3g} %" in state_finding(evaluated.measurements)


def test_short_blocks_are_told_up_to_their_borders(home):
    """In blocks of six, only the borders leave a choice, and noise tells no label."""
    labels = np.tile(np.repeat(["face", "house", "tool"], 6), 4).tolist()

    _, evaluated = api.fit(walk(72), labels, **AXES)

    by_design = find(evaluated, DESIGN_ALONE, "accuracy")
    assert by_design.low > by_design.chance
    (answer,) = evaluated.measurements.facts.answers
    assert answer.side == "at chance"
    assert answer.design == "time in the run"
    assert f"{100 * by_design.value:.3g} %" in state_finding(evaluated.measurements)


def test_a_published_number_stands_beside_the_design():
    published = {"concept_top1": 0.5, "top1": 0.1, "source": "a paper", "differs": []}
    metric = measure("top1", [[1, 1, 0]], protocol="", split="test")

    (table,) = published_tables(published, {DESIGN_ALONE: {"top1": metric}})

    assert list(table.rows[0][:2]) == [0.5, 0.1]
    assert table.rows[1][1] == pytest.approx(2 / 3)
    assert len(published_tables(published)[0].rows) == 1
