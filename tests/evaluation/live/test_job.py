"""Channels of a stream are chosen by name, and what it lacks is refused by keys that the stream has."""

import pytest

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.cutting import Steps
from brainhive_cli.data.streams import StreamFormat, lsl, recording
from brainhive_cli.evaluation.live.decoder import LivePreparation
from brainhive_cli.evaluation.live.job import choose_columns

MODEL = LivePreparation(Steps(whiten="no"), ("Cz", "Oz"), "µV")


def stream_of(*names: str, unit: str = "µV") -> StreamFormat:
    return StreamFormat("cap", names, ("eeg",) * len(names), (unit,) * len(names), 250.0)


def test_the_exact_name_wins_over_one_of_other_case_and_two_equal_ones_are_refused():
    for names, columns in ((("oz", "Oz", "Cz"), [2, 1]), (("OZ", "cz"), [1, 0])):
        assert choose_columns(MODEL, stream_of(*names), "none", lsl.Config()) == columns
    with pytest.raises(BrainhiveError, match="stream cap has 2 names that may be 'Oz': OZ, oz"):
        choose_columns(MODEL, stream_of("OZ", "oz", "Cz"), "none", lsl.Config())


def test_the_way_out_of_missing_channels_and_other_units_names_keys_of_that_stream():
    for source, channels, unit in (
        (lsl.Config(), "source.channels=A,B,… in order; or", "source.unit=V (or"),
        (recording.Config(), "source.rename={theirs: ours}; or", "a stream of channels in µV"),
    ):
        with pytest.raises(BrainhiveError, match="stream cap has no channel Oz") as caught:
            choose_columns(MODEL, stream_of("Cz"), "none", source)
        assert caught.value.hint == f"{channels} channel_mapping=spline"
        with pytest.raises(BrainhiveError, match="2: Cz, Oz in fT") as caught:
            choose_columns(MODEL, stream_of("Cz", "Oz", unit="fT"), "none", source)
        assert caught.value.hint.startswith(unit)
