"""Mapping of the channels of a cap to another cap, compared with MNE."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.signals import (
    Normaliser,
    Sensors,
    Trials,
    look_up_positions,
    map_channels,
)
from brainhive_cli.data.signals.channel_mapping import (
    compute_spline_weights,
    fit_head_centre,
)
from brainhive_cli.data.targets.model_input import choose_input, model_input
from tests.worlds.model_layouts import make_signal_spec

ROUNDING = 1e-6
"""Rounding of golden values in float32."""
CAP = (
    "Fp1",
    "Fp2",
    "F3",
    "F4",
    "C3",
    "Cz",
    "C4",
    "P3",
    "P4",
    "O1",
    "Oz",
    "O2",
    "T7",
    "T8",
)
MODEL = ("Oz", "Pz", "cz")


def read_golden(golden):
    tensors = load_file(golden / "calibrate/spline.safetensors")
    names = (
        [bytes(row).decode().strip() for row in tensors[f"{name}_name"]]
        for name in ("from", "to")
    )
    return (tensors,) + tuple(names)


def test_positions_by_name_are_relative_to_the_fitted_origin(
    golden,
):
    tensors, from_names, to_names = read_golden(golden)
    from_m, to_m = look_up_positions(from_names), look_up_positions(to_names)

    origin = fit_head_centre(from_m)

    np.testing.assert_allclose(origin, tensors["origin"], atol=ROUNDING)
    np.testing.assert_allclose(from_m - origin, tensors["from_position"], atol=ROUNDING)
    np.testing.assert_allclose(to_m - origin, tensors["to_position"], atol=ROUNDING)


def test_weights_of_splines_are_those_of_mne(golden):
    tensors, from_names, to_names = read_golden(golden)
    from_m, to_m = look_up_positions(from_names), look_up_positions(to_names)
    from_m, to_m = from_m - fit_head_centre(from_m), to_m - fit_head_centre(from_m)

    weights = compute_spline_weights(from_m, to_m)

    np.testing.assert_allclose(weights, tensors["expected.matrix"], atol=ROUNDING)
    np.testing.assert_allclose(weights.sum(1), 1, atol=ROUNDING)
    unregularised = compute_spline_weights(from_m, to_m, alpha=0.0)
    np.testing.assert_allclose(
        unregularised, tensors["expected.matrix_alpha_0"], atol=ROUNDING
    )
    signal = weights @ tensors["signal"].astype(np.float64)
    np.testing.assert_allclose(signal, tensors["expected.signal"], atol=ROUNDING)


def test_positions_outside_the_head_frame_give_wrong_weights(golden):
    """Golden value: wrong weights, from positions without head frame and origin."""
    tensors, from_names, to_names = read_golden(golden)
    from_m, to_m = look_up_positions(from_names), look_up_positions(to_names)
    montage = [tensors[f"montage_{name}"].astype(np.float64) for name in ("from", "to")]
    wrong_tensor = tensors["wrong.matrix_uncentred"]

    correct_spline_weights = compute_spline_weights(
        from_m - fit_head_centre(from_m), to_m - fit_head_centre(from_m)
    )
    uncentred = compute_spline_weights(*montage)

    np.testing.assert_allclose(uncentred, wrong_tensor, atol=ROUNDING)
    assert np.abs(correct_spline_weights - wrong_tensor).max() > 1000 * ROUNDING


def test_equal_names_are_copied_and_the_mapping_equals_mne(
    golden,
):
    tensors, from_names, to_names = read_golden(golden)

    mapping = map_channels("spline", to_names, None, Sensors(from_names), "here")

    columns = [from_names.index(name) for name in mapping.sources]
    weights = np.zeros((len(to_names), len(from_names)))
    weights[:, columns] = mapping.matrix
    np.testing.assert_allclose(
        weights, tensors["expected.matrix_name_match"], atol=ROUNDING
    )
    recorded = tensors["signal"].astype(np.float64)
    np.testing.assert_allclose(
        mapping(recorded[..., columns, :]),
        tensors["expected.matrix_name_match"] @ recorded,
        atol=10 * ROUNDING,
    )


def recording(names=CAP, unit="uV", seed=0):
    signal = (
        np.random.default_rng(seed)
        .normal(size=(3, 2, len(names), 5))
        .astype(np.float32)
    )
    return Trials.from_repetitions(
        signal, ["a", "b", "c"], Sensors(names), np.arange(5) / 100, 100.0, unit
    )


SPEC = replace(
    make_signal_spec(MODEL, 5), rate_hz=100.0, times_s=tuple(np.arange(5) / 100)
)


def test_channels_are_mapped_on_request_only():
    with pytest.raises(
        BrainhiveError, match="here has no channel Pz, which the model was trained on"
    ) as caught:
        choose_input(SPEC, recording(), "here")
    assert "channel_mapping=spline, or common" in caught.value.hint

    selection = choose_input(SPEC, recording(), "here", channel_mapping="spline")
    averages = recording().as_repetitions().mean(1)
    mapped = selection.averages
    assert (
        selection.mapping.description == "channels mapped by splines: 2 of 3 recorded"
    )
    assert mapped.shape == (3, 3, 5)
    assert selection.singles.shape == (6, 3, 5)
    np.testing.assert_allclose(
        mapped[:, 0], averages[:, CAP.index("Oz")], atol=ROUNDING
    )
    np.testing.assert_allclose(
        mapped[:, 2], averages[:, CAP.index("Cz")], atol=ROUNDING
    )


def test_missing_channels_are_zero_after_normalisation():
    signal = {"normalise": "channel"}
    normaliser = Normaliser(
        np.array([[1.0], [2], [3]], np.float32), np.array([[2.0], [4], [8]], np.float32)
    )
    averages = recording().as_repetitions().mean(1)

    mapped = model_input(
        replace(SPEC, signal=signal), recording(), normaliser, channel_mapping="common"
    )

    np.testing.assert_allclose(
        mapped[:, 0], 2 * (averages[:, CAP.index("Oz")] - 1), atol=1e-5
    )
    assert (mapped[:, 1] == 0).all()
    assert (
        model_input(SPEC, recording(), None, channel_mapping="common")[:, 1] == 0
    ).all()


def test_recordings_that_cannot_be_mapped_are_refused():
    for kind, names, facts in (
        ("spline", tuple(CAP) + ("E1",), "E1 of here"),
        ("spline", ("Oz", "O1", "O2"), "here.* 3 sensors"),
        ("spline", tuple(CAP) + ("MEG0113",), "here.* EEG.* MEG0113"),
        ("common", ("MLC11", "MEG0113"), "here.* model"),
    ):
        with pytest.raises(BrainhiveError, match=facts) as caught:
            choose_input(SPEC, recording(names), "here", channel_mapping=kind)
        assert caught.value.hint


def sphere(count, radius_m, centre_m):
    """Points [count, 3] on a sphere."""
    directions = np.random.default_rng(0).normal(size=(count, 3))
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    return np.asarray(centre_m) + radius_m * directions / lengths


@pytest.mark.parametrize(
    ("count", "radius_m", "is_head"),
    [
        (4, 0.09, True),
        (3, 0.09, False),
        (20, 0.051, True),
        (20, 0.049, False),
        (20, 0.149, True),
        (20, 0.151, False),
        (20, 90.0, False),
    ],
)
def test_the_centre_of_a_head_is_that_of_its_sensors(count, radius_m, is_head):
    # so far from the origin that no sensor lies in the face
    centre_m = (0.02, -0.3, 0.2)
    positions = sphere(count, radius_m, centre_m)
    if not is_head:
        with pytest.raises(BrainhiveError, match=r"\d sensors"):
            fit_head_centre(positions)
        return
    np.testing.assert_allclose(fit_head_centre(positions), centre_m, atol=1e-6)
    face = np.array([[0.0, 0.2, -0.1], [0.3, 0.1, -0.2]])
    with_face = fit_head_centre(np.concatenate([face, positions]))
    np.testing.assert_allclose(with_face, centre_m, atol=1e-6)
