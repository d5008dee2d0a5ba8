"""What a brain model is built for: checked when it is made, and the same after a trip through JSON."""

import json
from typing import Any

import pytest

from brainhive_cli.core import documents
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.signal_spec import SignalSpec

VOXELS: dict[str, Any] = {
    "names": (),
    "samples": 1,
    "subjects": (1, 5),
    "widths": (3, 4),
    "regions": {"V1": ((0, 2), (3,)), "FFA": ((), (0, 1))},
}
SENSORS: dict[str, Any] = {
    "names": ("O1", "O2"),
    "samples": 2,
    "subjects": (1, 2),
    "widths": (2, 2),
    "rate_hz": 100.0,
    "times_s": (0.0, 0.01),
}


@pytest.mark.parametrize("fields", [VOXELS, SENSORS])
def test_a_spec_is_the_same_after_json(fields: dict[str, Any]) -> None:
    spec = SignalSpec(**fields)

    assert documents.check(json.loads(json.dumps(spec.as_dict())), "", SignalSpec) == spec


def test_subjects_of_one_width_have_that_many_channels() -> None:
    assert SignalSpec(**SENSORS).channels == 2
    assert SignalSpec(("O1", "O2", "Oz"), 5, (), ()).channels == 3


def test_subjects_of_different_widths_have_no_single_number_of_channels() -> None:
    with pytest.raises(BrainhiveError, match="different widths: 3, 4"):
        _ = SignalSpec(**VOXELS).channels


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (VOXELS | {"widths": (3,)}, "1 widths for 2 subjects"),
        (SENSORS | {"widths": (2, 3)}, r"2 sensors, but widths \[2, 3\]"),
        (SENSORS | {"times_s": (0.0,)}, "1 times for 2 samples"),
        (VOXELS | {"regions": {"V1": ((0,),)}}, "region V1 has indices for 1 of 2 subjects"),
        (VOXELS | {"regions": {"V1": ((3,), ())}}, "region V1 of subject 1 goes beyond its 3 voxels"),
        (VOXELS | {"regions": {"V1": ((-1,), ())}}, "region V1 of subject 1 goes beyond its 3 voxels"),
    ],
)
def test_lists_that_contradict_each_other_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BrainhiveError, match=message):
        SignalSpec(**fields)


def test_other_voxels_of_a_subject_trained_on_are_refused_and_anothers_are_not() -> None:
    spec, own = SignalSpec(**VOXELS), {"V1": (3,), "FFA": (0, 1)}

    spec.refuse_other_voxels(5, 4, own, "here")
    spec.refuse_other_voxels(2, 99, {}, "here")
    SignalSpec(**SENSORS).refuse_other_voxels(1, 99, {}, "here")
    with pytest.raises(BrainhiveError, match="here has 6 voxels, the model was trained on 4 of this subject"):
        spec.refuse_other_voxels(5, 6, own, "here")
    with pytest.raises(BrainhiveError, match="here has another mask of FFA: 2 voxels, 2 in training"):
        spec.refuse_other_voxels(5, 4, {**own, "FFA": (0, 2)}, "here")
