"""Tests of demo --system havir: its page, and the effects of its controls."""

import json

import pytest

from brainhive_cli.commands.demo import (
    HEADS,
    NO_CONTROL,
    SHUFFLED_STEP,
    SHUFFLED_TRIALS,
    SYSTEMS,
)
from brainhive_cli.demo import voxels
from tests.worlds.command_fixtures import use_home

pytestmark = pytest.mark.nightly

CONTROLS = ["swapped", "random", SHUFFLED_TRIALS]


@pytest.fixture(scope="module")
def home_folder(tmp_path_factory):
    home_folder = tmp_path_factory.mktemp("havir")
    with use_home(home_folder):
        yield home_folder


@pytest.fixture(scope="module")
def result(home_folder, run_command):
    overrides = {
        "embed": ["dataset.concepts=16"],
        "train-align": ["dataset.concepts=16", "subjects=1", "train.epochs=10"],
        "eval-retrieval": ["subjects=1", "baseline=none"],
    }
    return run_command(
        "demo", "system=havir", "quick=true", f"overrides={json.dumps(overrides)}"
    )


def test_the_page_has_pictures_and_states_the_simulation(result, home_folder):
    page = (home_folder / result.files["page"]).read_text()
    title = page.partition("<h1>")[2].partition("</h1>")[0]
    assert voxels.PROVENANCE in page
    assert SYSTEMS["havir"].signals in title
    assert page.count("<img") >= 8
    for control in (NO_CONTROL,) + tuple(CONTROLS):
        assert control in page
    assert (home_folder / result.files["page"]).stat().st_size < 2**22


def test_meaning_is_above_chance_but_not_with_shuffled_trials(
    result,
):
    effects = result.metrics.facts.control_effects
    pairs = [(effect.first, effect.second) for effect in effects]
    assert pairs == [(head, control) for head in HEADS for control in CONTROLS]
    for head in HEADS:
        top1 = result.metrics.scopes[SHUFFLED_STEP.format(head=head)]["top1"]
        effect = effects[pairs.index((head, SHUFFLED_TRIALS))]
        assert top1.value <= 0.05
        assert effect.low < effect.difference < effect.high
        # the head of latents needs more training steps
        if head != "latent":
            assert effect.low > 0, head
