"""Tests that the strength of transfer is chosen without any test picture."""

import shutil

import numpy as np
import pytest

from brainhive_cli.evaluation.calibration.measure import choose_strength
from tests.data.stores.learned_pictures.test_seen_pictures import SMALL, simulated
from tests.tools.changed_stores import resealed
from tests.worlds.command_fixtures import COLOURS, paint_pictures, use_home

ASKED = (
    "pictures=6",
    "draws=1",
    "arms=zero-shot,transfer",
    "transfer.pulls=1,0.3,0.1,0.03,0",
    "subjects=3",
)


def test_the_strength_nearest_to_zero_shot_is_chosen():
    # differences from the best: mean .1, and a standard error of .1 or a little less
    # sd .163, standard error .082
    best, loss = np.full(4, 0.5), np.array([-0.1, 0.3, 0.1, 0.1])
    assert choose_strength({None: best - loss, 0.3: best}) == 0.3
    assert (
        choose_strength({None: best - 0.8 * loss, 1.0: best - loss + 0.03, 0.3: best})
        == 1.0
    )
    assert choose_strength({None: best, 1.0: best, 0.0: best}) is None


@pytest.fixture(scope="module")
def homes(tmp_path_factory, run_command):
    """Two homes with a model of two people for each third person.

    The test signals of the second home are noise.
    """
    home, noisy = (tmp_path_factory.mktemp(name) for name in ("strengths", "noisy"))
    dataset = simulated(paint_pictures(home / "photos", 16, 3)).replace(
        "subjects: 1", "subjects: 3"
    )
    train = (
        (dataset, f"encoders=[{COLOURS!r}]")
        + tuple(SMALL)
        + ("train.epochs=8", "mode=inter")
    )
    with use_home(home):
        run_command("embed", dataset, f"encoders=[{COLOURS!r}]")
        run_command("train-align", *train)
    for folder in ("embeddings", "signals"):
        shutil.copytree(home / folder, noisy / folder)
    for store in noisy.glob("signals/*/default/*.h5"):
        with resealed(store) as file:
            signal = file["test/signal"][()]
            file["test/signal"][...] = (
                np.random.default_rng(0).normal(size=signal.shape) * signal.std()
            )
    with use_home(noisy):
        run_command("train-align", *train, "subjects=3")
    return home, noisy


@pytest.mark.nightly
def test_test_signals_have_no_part_in_the_choice(homes, run_command):
    measured = []
    for home in homes:
        with use_home(home):
            measured.append(run_command("calibrate", *ASKED).metrics)

    first, noisy = measured
    assert first.facts.strength == noisy.facts.strength
    assert (
        first.scopes["zero-shot"]["mrr"].value
        > noisy.scopes["zero-shot"]["mrr"].value + 0.05
    )
    (choice,) = first.facts.strength.values()
    assert choice.people == 2
    assert len(choice.mrr["everything"]) == 6
