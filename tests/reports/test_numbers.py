import pytest

from brainhive_cli.core.tables import brief, number
from brainhive_cli.evaluation.reconstruction.metric_parts import SCALES
from brainhive_cli.measurement import metric_names


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.123456, "0.123"), (12.345, "12.3"), (12345.6, "12,346"), (0.00001, "1.0e-05"), (0.0, "0.000")),
        *(
            (3, "3"),
            (20000, "20,000"),
            (None, "–"),
            (float("nan"), "–"),
            (True, "True"),
            ("a", "a"),
            (-0.0001, "-1.0e-04"),
        ),
    ],
)
def test_a_number_has_as_many_digits_as_can_be_read(value, text):
    assert number(value) == text


def test_a_level_of_chance_shows_no_rounding_error():
    assert brief(0.010000000000000009) == "0.01" and brief(1 / 3) == "0.333"


def test_names_for_people_agree_with_the_parts_that_measure():
    for name in SCALES:
        assert name in metric_names.NAMES, name
    shown = list(metric_names.NAMES.values())
    assert len(set(shown)) == len(shown)  # no two metrics share a name
