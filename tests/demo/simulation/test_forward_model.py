"""Tests of the simulated EEG and fMRI."""

import numpy as np
import pytest

from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.datasets import demo
from brainhive_cli.data.signals.spaces import Voxels
from brainhive_cli.demo import simulation
from brainhive_cli.demo.pictures import BACKGROUNDS, draw_scene, list_scenes

ONSET = round(0.080 * simulation.RATE_HZ)


@pytest.fixture(scope="module")
def features():
    train_scenes = list_scenes("train")[:700]
    low = np.stack(
        [simulation.measure_looks(draw_scene(scene)) for scene in train_scenes]
    )
    return low, np.stack([simulation.measure_meaning(scene) for scene in train_scenes])


def _decode_background(signal, backgrounds):
    """Return the accuracy of a ridge classifier that is trained on 400 pictures."""
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
    predicted = (test @ train.T @ weights).argmax(1)
    return (predicted == one_hot[400:].argmax(1)).mean()


def test_simulated_eeg_depends_on_subject_seed_and_noise(features):
    low, semantic = features[0][:10], features[1][:10]
    arguments = {"subject": 1, "repetitions": 3, "seed": 0, "noise": 1.0}
    signal = simulation.simulate(low, semantic, **arguments)
    assert signal.shape == (10, 3, 17, 250)
    assert signal.dtype == np.float32
    assert 5 < signal.std() < 20  # microvolt
    for changes in ({"subject": 2}, {"seed": 1}, {"noise": 0.5}):
        assert (
            np.abs(
                signal - simulation.simulate(low, semantic, **(arguments | changes))
            ).mean()
            > 1
        )
    assert simulation.PROVENANCE.startswith("simulated")


def test_the_signal_decodes_the_picture_only_after_its_onset(features):
    backgrounds = [scene.background for scene in list_scenes("train")[:700]]
    signal = simulation.simulate(*features, subject=1, repetitions=4, seed=0)
    assert _decode_background(signal[..., ONSET:], backgrounds) > 0.5
    assert (
        _decode_background(signal[..., :ONSET], backgrounds)
        < 1 / 6 + 3 * (1 / 6 * 5 / 6 / 300) ** 0.5
    )


def test_voxels_have_a_row_for_each_shown_trial():
    dataset = demo.Config(space="voxels", subjects=2, noise=0.5).build(Paths())
    first_recording, second = (dataset.recording(subject, "test") for subject in (1, 2))

    assert dataset.name == "demo-noise-0.5"
    assert dataset.recorded_as == "demo-noise-0.5-voxels"
    assert len(first_recording.pictures) == 100
    assert first_recording.signal.shape[2] == 1
    assert set(first_recording.counts) > {15, 16}
    assert first_recording.signal.shape[0] == sum(first_recording.counts)
    assert first_recording.signal.shape[1] != second.signal.shape[1]
    assert isinstance(first_recording.space, Voxels)
    assert {"V1", "FFA", "early"} <= first_recording.space.regions.keys()
    assert "no brain was recorded" in first_recording.provenance["simulated"]
    assert dataset.is_simulated
    assert np.asarray(first_recording.signal).all()
