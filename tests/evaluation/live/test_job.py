"""Channels of a stream are chosen by name, and what it lacks is refused by keys that the stream has."""

import pytest

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.cutting import Steps
from brainhive_cli.data.streams import StreamConfig, StreamFormat, lsl, mock, recording
from brainhive_cli.evaluation.live.decoder import LivePreparation
from brainhive_cli.evaluation.live.job import choose_columns

MODEL = LivePreparation(Steps(whiten="no"), ("Cz", "Oz"), "µV")


def stream_of(*names: str, unit: str = "µV") -> StreamFormat:
    return StreamFormat("cap", names, ("eeg",) * len(names), (unit,) * len(names), 250.0)


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("Oz", "oz", "Cz"), [2, 0]),
        (("oz", "Oz", "Cz"), [2, 1]),
        (("OZ", "cz"), [1, 0]),
    ],
)
def test_the_exact_name_wins_over_one_of_other_case(names, columns):
    assert choose_columns(MODEL, stream_of(*names), "none", lsl.Config()) == columns


def test_two_names_that_match_equally_are_refused():
    with pytest.raises(BrainhiveError) as caught:
        choose_columns(MODEL, stream_of("OZ", "oz", "Cz"), "none", lsl.Config())
    assert caught.value.message == "stream cap has 2 names that may be 'Oz': OZ, oz"


def test_one_channel_is_not_taken_for_two():
    model = LivePreparation(Steps(whiten="no"), ("Oz", "oz"), "µV")
    assert choose_columns(model, stream_of("oz", "Oz"), "none", lsl.Config()) == [1, 0]
    for name in ("Oz", "oz", "OZ"):
        with pytest.raises(BrainhiveError, match=r"stream cap has no channel [oO]z, which the model needs"):
            choose_columns(model, stream_of(name, "Cz"), "none", lsl.Config())


@pytest.mark.parametrize(
    ("source", "way"),
    [
        (lsl.Config(), "source.channels=A,B,… in order; or channel_mapping=spline"),
        (recording.Config(), "source.rename={theirs: ours}; or channel_mapping=spline"),
        (mock.Config(), "channel_mapping=spline"),
    ],
)
def test_the_way_out_of_missing_channels_names_keys_of_that_stream(source: StreamConfig, way: str):
    with pytest.raises(BrainhiveError, match="stream cap has no channel Oz") as caught:
        choose_columns(MODEL, stream_of("Cz"), "none", source)
    assert caught.value.hint == way


@pytest.mark.parametrize(
    ("source", "way"),
    [(lsl.Config(), "source.unit=V (or"), (recording.Config(), "a stream of channels in µV")],
)
def test_the_way_out_of_another_unit_names_keys_of_that_stream(source: StreamConfig, way: str):
    with pytest.raises(BrainhiveError, match="2: Cz, Oz in fT") as caught:
        choose_columns(MODEL, stream_of("Cz", "Oz", unit="fT"), "none", source)
    assert caught.value.hint.startswith(way)
