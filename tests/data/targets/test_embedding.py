"""Which stage limits a stream, by the seconds that each takes."""

import pytest

from brainhive_cli.data.targets.embedding import DECODING, WRITING, Pace


@pytest.mark.parametrize(
    ("parallel", "spent_s", "limit"),
    [
        (True, {DECODING: 0.0, "clip-h14": 3.0, "vae": 1.0, WRITING: 0.1}, "clip-h14"),
        (
            True,
            {DECODING: 0.8, "clip-h14": 3.0, "vae": 1.0, WRITING: 0.1},
            DECODING,
        ),  # they wait: it is slower
        (False, {DECODING: 0.8, "clip-h14": 3.0, "vae": 1.0, WRITING: 0.1}, "clip-h14"),
        (False, {DECODING: 5.0, "clip-h14": 3.0, "vae": 1.0, WRITING: 0.1}, DECODING),
        (True, {DECODING: 0.0, "vae": 1.0, WRITING: 2.0}, WRITING),
        (True, {}, ""),
    ],
)
def test_what_limits_is_found_from_the_time_that_each_stage_takes(parallel, spent_s, limit):
    pace = Pace(parallel)
    for stage, seconds in spent_s.items():
        pace.count(stage, seconds)
    assert pace.limit == limit


def test_what_limited_long_ago_is_forgotten():
    pace = Pace(parallel=False)
    pace.count("vae", 100.0)
    for _ in pace.batches(range(100)):
        pace.count("clip-h14", 1.0)
    assert pace.limit == "clip-h14"
