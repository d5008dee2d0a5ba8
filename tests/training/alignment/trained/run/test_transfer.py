"""Zero-shot transfer of models to another data set."""

from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.data.signals import Sensors, Signal, Trials, Voxels
from brainhive_cli.data.targets.model_input import match_recording
from brainhive_cli.models.signal_spec import SignalSpec
from tests.worlds.model_layouts import make_signal_spec

COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"
QUICK = ("sheet_rows=0", "ceiling_splits=0")
OTHER = "{kind: demo, noise: 0.5, subjects: 2, concepts: 8}"
SPEC = replace(
    make_signal_spec(("Oz", "P7"), 50),
    rate_hz=100.0,
    times_s=tuple(np.arange(50) / 100),
)


def recorded(channels=("P7", "Cz", "oz"), rate_hz=100.0, samples=80, start_s=0.0):
    """Make a recording of another data set, which fits the model by default."""
    signal = np.zeros((1, 1, len(channels), samples), np.float32)
    times_s = start_s + np.arange(samples) / rate_hz
    return Trials.from_repetitions(
        signal, ["a"], Sensors(channels), times_s, rate_hz, "µV"
    )


def match(recording, spec=SPEC, signal=Signal()):  # noqa: B008
    return match_recording(spec, recording, signal, None, "other subject 1")


def test_channels_are_matched_by_name_and_the_window_is_cut():
    selection = match(recorded(start_s=-0.1))
    assert selection.channels == ("oz", "P7")
    assert selection.samples == slice(10, 60)

    unknown, signal_spec = (
        replace(SPEC, times_s=None, rate_hz=None),
        make_signal_spec(("0", "1"), 50),
    )
    assert match(
        recorded(samples=80), unknown, Signal(window_ms=(0, 500))
    ).samples == slice(0, 50)
    assert match(
        recorded(samples=50), signal_spec, Signal(channels=["oz", "P7"])
    ).channels == ("oz", "P7")


def test_signals_that_do_not_match_are_refused_in_one_line():
    voxels = Trials.from_repetitions(
        np.zeros((1, 1, 3, 1)), ["a"], Voxels({}), np.zeros(1), None, "z"
    )
    for recording, spec, problem in (
        (
            recorded(("Cz", "Fz")),
            SPEC,
            "no channel Oz, P7, which the model was trained on",
        ),
        (recorded(samples=40), SPEC, "has 40 samples where the model takes 50"),
        (
            recorded(samples=50),
            make_signal_spec(("0", "1"), 50),
            "gives 3 channels where the model takes 2",
        ),
        (voxels, SPEC, "has voxels where the model takes sensors"),
        (
            recorded(samples=1),
            SignalSpec((), 1, (1,), (3,)),
            "has sensors where the model takes voxels",
        ),
    ):
        with pytest.raises(BrainhiveError) as caught:
            match(recording, spec)
        assert problem in caught.value.message
        assert caught.value.hint


@pytest.mark.nightly
def test_models_decode_subjects_of_another_data_set_above_chance(
    run_command, align_overrides, world
):
    run_override = f"run={run_command('train-align', *align_overrides).folder}"
    with pytest.raises(MissingData, match=r"demo-noise-0.7") as caught:
        run_command(
            "eval-retrieval",
            run_override,
            "dataset={kind: demo, noise: 0.7, subjects: 1, concepts: 8}",
        )
    assert caught.value.hint.startswith("brainhive embed")
    run_command("embed", f"dataset={OTHER}", COLOURS, "splits=test")

    result = run_command("eval-retrieval", run_override, f"dataset={OTHER}", *QUICK)
    fewer = run_command(
        "eval-retrieval", run_override, f"dataset={OTHER}", "subjects=2", *QUICK
    )

    metrics = result.metrics
    sets = "demo-noise-0.5-8-concepts, zero-shot from demo-noise-0.3-40-concepts"
    signals = "17 channels, 0 to 1000 ms, 250 Hz, 16 repetitions averaged, uV"
    protocol = f"intra, {sets}, {signals}, simulated"
    assert (metrics.facts.protocol, metrics.facts.verdict) == (protocol, "above chance")
    cells = [
        f"sub-0{trained}_seed-1 · sub-0{value}"
        for trained in (1, 2)
        for value in (1, 2)
    ]
    assert list(metrics.items) == cells
    assert list(fewer.metrics.items) == cells[1::2]
    ranks = [
        scored.metrics.items["sub-01_seed-1 · sub-02"]["ranks"]
        for scored in (result, fewer)
    ]
    assert ranks[0] == ranks[1]
