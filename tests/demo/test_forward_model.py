"""The simulated EEG: it shows the picture, after a delay, and says that it is simulated."""

import numpy as np
import pytest

from brainhive_cli.demo import simulation
from brainhive_cli.demo.pictures import BACKGROUNDS, draw, scenes

ONSET = round(0.080 * simulation.RATE_HZ)


@pytest.fixture(scope="module")
def seen():
    shown = scenes("train")[:700]
    low = np.stack([simulation.low_level(draw(scene)) for scene in shown])
    return low, np.stack([simulation.semantic(scene) for scene in shown])


def _named_background(signal, backgrounds):
    """Share of backgrounds that a ridge classifier, trained on 400 pictures, names for the others."""
    flat = signal.mean(1).reshape(len(signal), -1)
    train, test = flat[:400] - flat[:400].mean(0), flat[400:] - flat[:400].mean(0)
    kernel = train @ train.T
    one_hot = np.array([[b == name for name in BACKGROUNDS] for b in backgrounds], dtype=np.float32)
    weights = np.linalg.solve(
        kernel + 0.3 * kernel.trace() / 400 * np.eye(400), one_hot[:400] - one_hot.mean(0)
    )
    named = (test @ train.T @ weights).argmax(1)
    return (named == one_hot[400:].argmax(1)).mean()


def test_a_simulation_has_the_shape_and_size_of_eeg(seen):
    signal = simulation.simulate(seen[0][:10], seen[1][:10], subject=1, repetitions=3, seed=0)
    assert signal.shape == (10, 3, 17, 250)
    assert signal.dtype == np.float32
    assert 5 < signal.std() < 20  # microvolt


def test_the_signal_shows_the_picture_but_nothing_before_it_can_have_been_seen(seen):
    backgrounds = [scene.background for scene in scenes("train")[:700]]
    signal = simulation.simulate(*seen, subject=1, repetitions=4, seed=0)
    assert _named_background(signal[..., ONSET:], backgrounds) > 0.5
    assert _named_background(signal[..., :ONSET], backgrounds) < 1 / 6 + 3 * (1 / 6 * 5 / 6 / 300) ** 0.5


@pytest.mark.parametrize("stage", [simulation.EARLY, simulation.LATE])
@pytest.mark.parametrize("subject", [1, 2, 3, 4])
def test_a_response_begins_when_its_stage_does(seen, stage, subject):
    response = simulation.Head(subject).respond(stage, seen[0])
    onset = int(stage.onsets_s[0] * simulation.RATE_HZ)
    assert not response[..., : onset + simulation.JITTER_SAMPLES].any()
    assert np.abs(response[..., onset + 20 :]).max() > 0


def test_any_part_can_be_simulated_by_itself(seen):
    whole = simulation.simulate(seen[0][:40], seen[1][:40], subject=2, repetitions=3, seed=0)
    some = [35, 36]
    part = simulation.simulate(seen[0][some], seen[1][some], subject=2, repetitions=2, seed=0, items=some)
    np.testing.assert_allclose(part, whole[some, :2], atol=1e-4)  # float32 sums in batches of another size


@pytest.mark.parametrize("changed", [{"subject": 2}, {"seed": 1}, {"noise": 0.5}])
def test_subject_seed_and_noise_each_change_the_trials(seen, changed):
    low, semantic = seen[0][:4], seen[1][:4]
    usual = {"subject": 1, "repetitions": 2, "seed": 0, "noise": 1.0}
    first = simulation.simulate(low, semantic, **usual)
    second = simulation.simulate(low, semantic, **(usual | changed))
    assert np.abs(first - second).mean() > 1


def test_photographs_can_be_shown_too(seen):
    rng = np.random.default_rng(0)
    photo = draw(scenes("test")[0], 256).crop((0, 0, 200, 150))
    embedding = rng.standard_normal((5, 512))
    means = simulation.standardise(embedding, embedding.mean(0), embedding.std(0))
    low = np.stack([simulation.low_level(photo)] * 5)
    assert low.shape == (5, seen[0].shape[1])
    assert 0.5 < np.linalg.norm(means, axis=1).mean() < 1.5
    assert simulation.simulate(low, means, subject=3, repetitions=1, seed=0).shape == (5, 1, 17, 250)


def test_the_provenance_says_that_no_brain_was_recorded():
    assert simulation.PROVENANCE.startswith("simulated")
