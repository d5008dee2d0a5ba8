"""Selection of the channels, voxels and samples that a brain model reads."""

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.data.signals import (
    list_window_starts,
    make_region_masks,
    mark_window,
)
from brainhive_cli.data.signals.spaces import (
    Sensors,
    Voxels,
    find_channel_rows,
    find_sample_range,
)
from brainhive_cli.data.signals.trials import MAX_STIMULI_PER_READ, Trials

CHANNELS = ("P7", "POz", "PO7", "Oz")
MS = np.arange(250) / 250
ROUNDING = 1e-6
"""Averaging in float32 against float64."""


def recording(signal, repetitions=None):
    ids = [f"train/c/p{number}" for number in range(len(signal))]
    times_s = np.arange(signal.shape[-1]) / 250
    return Trials.from_repetitions(
        signal, ids, Sensors(CHANNELS), times_s, 250.0, "µV", repetitions=repetitions
    )


def average(recording, channels, window_ms, scale, text):
    return recording.select(channels, window_ms, scale, text).averages


@pytest.fixture
def signal():
    return (
        np.random.default_rng(0)
        .normal(size=(MAX_STIMULI_PER_READ + 5, 3, 4, 6))
        .astype(np.float32)
    )


def test_channels_are_taken_by_name_in_the_order_asked_for(signal):
    averaged = average(recording(signal), ["Oz", "p7"], None, 1.0, "here")
    np.testing.assert_allclose(averaged, signal.mean(axis=1)[:, [3, 0]], atol=ROUNDING)


def test_an_unknown_channel_is_named_with_the_nearest_name():
    with pytest.raises(RecipeError, match="poz2") as caught:
        find_channel_rows(CHANNELS, ["Oz", "poz2"])
    assert "POz?" in caught.value.hint
    assert "P7 POz PO7 Oz" in caught.value.hint


def test_a_window_includes_its_start_and_excludes_its_stop():
    for window_ms, expected in (
        (None, (0, 250)),
        ((100, 200), (25, 50)),
        ((-3.9, 4), (0, 1)),
    ):
        sample_range = find_sample_range(MS, window_ms)
        assert (sample_range.start, sample_range.stop) == expected
    with pytest.raises(RecipeError, match=r"\[-4, 1000\] ms") as caught:
        find_sample_range(MS, (-4, 1000))
    assert "0 to 996 ms" in caught.value.hint


def test_sliding_windows_lie_in_the_signal_without_their_stop():
    # 21 samples of 4 ms, which last from -20 to 64 ms
    times_ms = np.arange(-20, 61, 4.0)
    assert list_window_starts(times_ms, 20, 7) == [
        -20,
        -13,
        -6,
        1,
        8,
        15,
        22,
        29,
        36,
        43,
    ]
    assert list_window_starts(times_ms, 84, 4) == [-20]
    assert times_ms[mark_window(times_ms, 0, 12)].tolist() == [0, 4, 8]
    assert times_ms[mark_window(times_ms, -20, 4)].tolist() == [-20]


def test_regions_without_voxels_have_no_mask():
    masks = make_region_masks({"a": [0, 3], "b": []}, 5)
    assert list(masks) == ["a"]
    assert masks["a"].ravel().tolist() == [True, False, False, True, False]


def test_infinite_values_are_refused_with_picture_and_channel(
    signal,
):
    signal[MAX_STIMULI_PER_READ + 2, 1, 1, 3] = np.nan
    with pytest.raises(
        BrainhiveError,
        match=(rf"here.*train/c/p{MAX_STIMULI_PER_READ + 2}\D.*channel POz"),
    ):
        average(recording(signal), ["Oz", "POz"], None, 1.0, "here")
    assert np.isfinite(average(recording(signal), ["Oz"], None, 1.0, "here")).all()


def test_each_trial_is_centred_and_divided_by_its_norm(signal):
    """Source: things_eeg_2.py of AlignVis, with the norm before centring."""
    signal = signal + 3
    signal[1, 2, 3] = 0
    counts = np.full(len(signal), 3)
    counts[0] = 2
    norm = np.linalg.norm(signal, axis=-1, keepdims=True)
    centred = signal - signal.mean(-1, keepdims=True)
    trials = centred / np.where(norm == 0, 1, norm)
    expected = trials.sum(1) - trials[:, 2] * (counts < 3)[:, None, None]

    selected_recording = recording(signal, counts).select(
        None, None, 2.0, "here", normalises_trials=True
    )

    np.testing.assert_allclose(
        selected_recording.averages, 2 * expected / counts[:, None, None], atol=ROUNDING
    )
    assert (selected_recording.as_repetitions()[1, 2, 3] == 0).all()
    # the window is cut before, as the loader of AlignVis cuts it
    window = recording(signal).select(
        ["Oz"], (4, 20), 1.0, "here", normalises_trials=True
    )
    partial_signal = signal[:, :, 3:, 1:5]
    norm = np.linalg.norm(partial_signal, axis=-1, keepdims=True)
    expected = (partial_signal - partial_signal.mean(-1, keepdims=True)) / np.where(
        norm == 0, 1, norm
    )
    np.testing.assert_allclose(window.averages, expected.mean(1), atol=ROUNDING)


def test_trials_of_one_sample_cannot_be_normalised(voxels):
    with pytest.raises(RecipeError, match=r"normalise_trials.*here"):
        voxels.select(None, None, 1.0, "here", normalises_trials=True)


REGIONS = {
    "V1": np.array([1, 0, 0, 1], bool),
    "FFA": np.array([0, 0, 1, 1], bool),
    "none": np.zeros(4, bool),
}


@pytest.fixture
def voxels():
    signal = np.arange(8, dtype=np.float16).reshape(2, 1, 4, 1)
    return Trials.from_repetitions(
        signal, ["a", "b"], Voxels(REGIONS), np.zeros(1), None, "z"
    )


def test_regions_select_each_voxel_once_in_the_order_of_the_data(
    voxels,
):
    for requested_regions, rows, regions in (
        (None, [0, 1, 2, 3], {"V1": (0, 3), "FFA": (2, 3), "none": ()}),
        (["ffa", "V1"], [0, 2, 3], {"V1": (0, 2), "FFA": (1, 2), "none": ()}),
    ):
        selected = voxels.select(requested_regions)
        assert selected.rows.tolist() == rows
        assert selected.signal.shape == (
            2,
            len(rows),
            1,
        )
        assert selected.channels == ()
        assert selected.regions == regions
        np.testing.assert_array_equal(selected.averages, voxels.signal[:, rows])


def test_a_region_that_is_not_in_the_data_or_empty_is_refused(voxels):
    with pytest.raises(RecipeError, match="FFB") as caught:
        voxels.select(["FFB"])
    assert "FFA?" in caught.value.hint
    assert "V1 FFA none" in caught.value.hint
    with pytest.raises(RecipeError, match=r"\bnone$"):
        voxels.select(["none"])
