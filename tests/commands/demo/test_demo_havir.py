"""demo --system havir: from simulated voxels to pictures in two streams, and what
controls cost each head.
"""

import json
from pathlib import Path

import pytest

from brainhive_cli.commands.demo import HEADS
from brainhive_cli.demo import voxels
from tests.worlds.command_fixtures import at_home

pytestmark = pytest.mark.nightly

CONTROLS = ["none", "swapped", "random", "shuffled trials"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory):
    home = tmp_path_factory.mktemp("havir")
    with at_home(home):
        yield home


@pytest.fixture(scope="module")
def shown(home: Path, go):
    few, one = "dataset.concepts=16", "subjects=1"
    overrides = {
        "embed": [few],
        "train-align": [few, one, "train.epochs=10"],
        "eval-retrieval": [one, "baseline=none"],
    }
    return go(
        "demo", "system=havir", "quick=true", f"overrides={json.dumps(overrides)}"
    )


def test_it_ends_with_a_page_of_pictures_that_says_all_is_simulated(
    shown, home
) -> None:
    page = (home / shown.files["page"]).read_text()
    title = page.partition("<h1>")[2].partition("</h1>")[0]
    assert voxels.PROVENANCE in page and title == "Brainhive demo, on simulated fMRI"
    assert page.count("<img") >= 8 and "By variant" in page
    assert (home / shown.files["page"]).stat().st_size < 2**22


def test_meaning_is_above_chance_and_every_head_at_chance_with_shuffled_trials(
    shown,
) -> None:
    effects = shown.metrics.facts.control_effects
    expected = [
        (head, control) for head in HEADS for control in CONTROLS if control != "none"
    ]
    assert [(each.first, each.second) for each in effects] == expected
    for head in HEADS:
        drawn = shown.metrics.scopes[f"{head}, shuffled"]["top1"]
        (shuffled,) = [
            row
            for row in effects
            if (row.first, row.second) == (head, "shuffled trials")
        ]
        assert (
            drawn.value <= 0.05 and shuffled.low < shuffled.difference < shuffled.high
        )
        if head != HEADS[0]:  # so few steps teach the latents little
            assert shuffled.low > 0, head  # of this subject
