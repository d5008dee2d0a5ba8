from brainhive_cli.core.base.tables import format_number, format_tick
from brainhive_cli.core.results import measurements
from brainhive_cli.evaluation.reconstruction.metric_parts import PARTS
from brainhive_cli.measurement.metrics import tasks


def test_a_number_has_as_many_digits_as_can_be_read():
    values = (
        0.123456,
        12.345,
        12345.6,
        -0.0001,
        0.0,
        20000,
        None,
        float("nan"),
        True,
        "a",
    )
    texts = [
        "0.123",
        "12.3",
        "12,346",
        "-1.0e-04",
        "0.000",
        "20,000",
        "–",
        "–",
        "True",
        "a",
    ]
    assert [format_number(value) for value in values] == texts
    assert format_tick(0.010000000000000009) == "0.01"
    assert format_tick(1 / 3) == "0.333"


def test_names_for_people_agree_with_the_parts_that_measure():
    names = set(PARTS) | set(tasks.SCALES) | set(measurements.METRIC_NAMES)
    for name in names:
        has_title = name in measurements.METRIC_NAMES
        assert has_title or measurements.N_WAY.fullmatch(name), (
            f"add a title of {name} to names in core/results/metric_table.json"
        )
    titles = [measurements.metric_title(name) for name in sorted(names)]
    assert len(set(titles)) == len(titles)  # no two metrics share a name
