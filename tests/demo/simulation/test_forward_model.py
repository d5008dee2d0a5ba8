"""The simulated EEG and fMRI: they show the picture, after a delay, and say that they
are simulated.
"""

import numpy as np
import pytest

from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import demo
from brainhive_cli.data.signals.spaces import Voxels
from brainhive_cli.demo import simulation
from brainhive_cli.demo.pictures import BACKGROUNDS, draw_scene, list_scenes

ONSET = round(0.080 * simulation.RATE_HZ)


@pytest.fixture(scope="module")
def seen():
    shown = list_scenes("train")[:700]
    low = np.stack([simulation.measure_looks(draw_scene(scene)) for scene in shown])
    return low, np.stack([simulation.measure_meaning(scene) for scene in shown])


def _named_background(signal, backgrounds):
    """Share of backgrounds that a ridge classifier, trained on 400 pictures, names for
    the others.
    """
    flat = signal.mean(1).reshape(len(signal), -1)
    train, test = flat[:400] - flat[:400].mean(0), flat[400:] - flat[:400].mean(0)
    kernel = train @ train.T
    one_hot = np.array(
        [[b == name for name in BACKGROUNDS] for b in backgrounds], dtype=np.float32
    )
    weights = np.linalg.solve(
        kernel + 0.3 * kernel.trace() / 400 * np.eye(400),
        one_hot[:400] - one_hot.mean(0),
    )
    named = (test @ train.T @ weights).argmax(1)
    return (named == one_hot[400:].argmax(1)).mean()


def test_a_simulation_looks_like_eeg_and_changes_with_subject_seed_and_noise(seen):
    low, semantic = seen[0][:10], seen[1][:10]
    usual = {"subject": 1, "repetitions": 3, "seed": 0, "noise": 1.0}
    signal = simulation.simulate(low, semantic, **usual)
    assert signal.shape == (10, 3, 17, 250)
    assert signal.dtype == np.float32
    assert 5 < signal.std() < 20  # microvolt
    for changed in ({"subject": 2}, {"seed": 1}, {"noise": 0.5}):
        assert (
            np.abs(
                signal - simulation.simulate(low, semantic, **(usual | changed))
            ).mean()
            > 1
        )
    assert simulation.PROVENANCE.startswith("simulated")


def test_the_signal_shows_the_picture_but_nothing_before_it_can_have_been_seen(seen):
    backgrounds = [scene.background for scene in list_scenes("train")[:700]]
    signal = simulation.simulate(*seen, subject=1, repetitions=4, seed=0)
    assert _named_background(signal[..., ONSET:], backgrounds) > 0.5
    assert (
        _named_background(signal[..., :ONSET], backgrounds)
        < 1 / 6 + 3 * (1 / 6 * 5 / 6 / 300) ** 0.5
    )


def test_voxels_say_what_they_are_and_are_silent_where_nothing_was_shown() -> None:
    built = demo.Config(space="voxels", subjects=2, noise=0.5).build(Paths())
    one, two = (built.recording(subject, "test") for subject in (1, 2))

    assert (
        built.name == "demo-noise-0.5" and built.recorded_as == "demo-noise-0.5-voxels"
    )
    assert one.signal.shape[:2] == (100, 16) and one.signal.shape[3] == 1
    assert one.repetitions is not None and set(one.repetitions) > {15, 16}
    assert one.signal.shape[2] != two.signal.shape[2]
    assert (
        isinstance(one.space, Voxels)
        and {"V1", "FFA", "early"} <= one.space.regions.keys()
    )
    assert "no brain was recorded" in one.provenance["simulated"] and built.is_simulated
    assert not any(
        one.signal[row, count:].any() for row, count in enumerate(one.repetitions)
    )
    assert all(
        one.signal[row, count - 1].all() for row, count in enumerate(one.repetitions)
    )
