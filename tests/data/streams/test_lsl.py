"""LSL streams over loopback.

All scenarios run at once, each in a process of its own, and write results that the
tests check.

"""

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingExtra, install_line
from brainhive_cli.data.streams import Chunk, StreamRequest
from brainhive_cli.data.streams.lsl import Config

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = 10_000
EVENTS = 100
WAIT_S = 90.0

needs_lsl = pytest.mark.skipif(
    importlib.util.find_spec("mne_lsl") is None, reason="mne-lsl is not installed"
)


def make_request(unit="µV", kind="eeg"):
    def open_recording():
        raise NotImplementedError

    return StreamRequest(
        ("Fp1", "Oz"), kind, unit, 1000.0, (-0.2, 0.8), (), open_recording
    )


def read_until(stream, is_done, limit_s=30.0):
    """Read and join chunks until a chunk is the last, or the time limit is over."""
    chunks = [Chunk(np.empty((0, len(stream.format.channels))), np.empty(0))]
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        chunk = stream.read(0.2)
        assert chunk is not None
        chunks.append(chunk)
        if is_done(chunk):
            break
    samples, times_s = (
        np.concatenate([getattr(part_of_stream, name) for part_of_stream in chunks])
        for name in ("samples", "times_s")
    )
    return Chunk(
        samples,
        times_s,
        tuple(event for part_of_stream in chunks for event in part_of_stream.events),
    )


def call_in_threads(call, *arguments):
    """Call a function with each row of arguments, each in a thread."""
    with ThreadPoolExecutor(max_workers=len(arguments[0])) as threads:
        return list(threads.map(call, *arguments))


# the scenarios


def run_counting():
    """Count samples and events that are sent at four times their rate."""
    from tests.tools.lsl_senders import Amplifier, open_markers

    amplifier = Amplifier()
    texts = open_markers("texts")
    numbers = open_markers("numbers", "int32")
    streams = [Config(markers="texts", marker_delay_s=0.5), Config(markers="numbers")]
    streams.append(Config(marker_channel="TRIGGER"))
    opened_streams = call_in_threads(
        lambda config: config.build(make_request()), streams
    )
    for stream in opened_streams:
        stream.read(0)

    # codes 1 to 100 over 40 samples; markers are sent up to 300 samples early or late
    onsets = np.arange(EVENTS) * 95 + 205
    codes = np.zeros(SAMPLES, int)
    for number, onset in enumerate(onsets, 1):
        codes[onset : onset + 40] = number
    due = sorted(
        (onset + (-1) ** row * 3 * row, row, onset) for row, onset in enumerate(onsets)
    )

    def send():
        for n_sent in amplifier.send(
            SAMPLES, speed=4.0, codes=codes, sizes=(1, 7, 10, 39, 16)
        ):
            while due and (due[0][0] < n_sent or n_sent == SAMPLES):
                _, row, onset = due.pop(0)
                texts.push_sample([f"bild/ä {row + 1}"], amplifier.compute_time(onset))
                numbers.push_sample(
                    np.array([row + 1], np.int32), amplifier.compute_time(onset)
                )

    sender = threading.Thread(target=send)
    sender.start()
    counts_by_stream = []
    for stream in opened_streams:
        totals = {"samples": 0, "events": 0}

        def is_done(chunk, totals=totals):
            totals["samples"] += len(chunk.times_s)
            totals["events"] += len(chunk.events)
            return totals == {"samples": SAMPLES, "events": EVENTS}

        chunk = read_until(stream, is_done, limit_s=15)
        counts = chunk.samples[:, 2]
        times_s = chunk.times_s - amplifier.start_s
        counts_by_stream.append(
            {
                "is_sequence": bool(np.array_equal(counts, np.arange(SAMPLES))),
                "off_samples": float(np.abs(times_s * 1000 - counts).max()),
                "names": [event.name for event in chunk.events],
                "event_samples": [
                    (event.time_s - amplifier.start_s) * 1000 for event in chunk.events
                ],
            }
        )
    sender.join()
    signal_format = opened_streams[0].format
    clock_s = opened_streams[0].now_s()
    for stream in opened_streams * 2:
        stream.close()
    return {
        "seen": counts_by_stream,
        "onsets": onsets.tolist(),
        "channels": signal_format.channels,
        "kinds": signal_format.channel_types,
        "units": signal_format.units,
        "rate_hz": signal_format.rate_hz,
        "after_close": opened_streams[0].read(0),
        "age_s": clock_s - amplifier.start_s,
    }


def run_interruptions():
    """Read a stream that starts late, stalls, loses samples, stops and starts again."""
    from tests.tools.lsl_senders import Amplifier, open_markers

    started_s = time.monotonic()
    senders = []

    def start_late():
        time.sleep(1)
        senders.extend([Amplifier(source_id=str(uuid.uuid4())), open_markers()])

    threading.Thread(target=start_late).start()
    stream = Config(wait_s=30).build(make_request())
    waited_s = time.monotonic() - started_s
    amplifier = senders[0]
    stream.read(0)
    pauses_s = []

    def send():
        list(amplifier.send(1000, speed=4))
        time.sleep(1.5)  # all samples come, later
        list(amplifier.send(2000, speed=4))
        amplifier.sent += 3000  # a loss without an interruption of the stream
        list(amplifier.send(6000, speed=4))
        amplifier.close()
        time.sleep(1.5)
        amplifier.open()
        amplifier.sent += 3000
        while not senders[0]._outlet.has_consumers:
            list(amplifier.send(amplifier.sent + 10))
        list(amplifier.send(amplifier.sent + 1500, speed=4))

    sender = threading.Thread(target=send)
    sender.start()
    stalled_s = time.monotonic()

    def is_done(chunk):
        nonlocal stalled_s
        if len(chunk.times_s):
            pauses_s.append(time.monotonic() - stalled_s)
            stalled_s = time.monotonic()
        return not sender.is_alive() and not len(chunk.times_s)

    chunk = read_until(stream, is_done, limit_s=50)
    counts = chunk.samples[:, 2]
    off_samples = (chunk.times_s - amplifier.start_s) * 1000 - chunk.samples[:, 2]
    steps = np.diff(chunk.times_s) * 1000
    return {
        "waited_s": waited_s,
        "pauses_s": sorted(pauses_s)[-2:],
        "counted_gaps": np.flatnonzero(np.diff(counts) != 1).tolist(),
        "timed_gaps": np.flatnonzero(steps >= 1.5).tolist(),
        "gap_sizes": (np.diff(counts)[np.diff(counts) != 1] - 1).tolist(),
        "least_step": float(steps.min()),
        "off_samples": float(np.abs(off_samples).max()),
        "first_and_last": [float(counts[0]), float(counts[-1]), amplifier.sent],
    }


def run_refusals():
    """Build streams that do not fit."""
    from tests.tools.lsl_senders import Amplifier, open_markers

    senders = [
        Amplifier("one"),
        Amplifier("two"),
        Amplifier("raw", (), "Raw"),
    ]
    senders += [open_markers("notes", kind="Notes"), open_markers("texts")]
    cases = {
        "several": (Config(), make_request()),
        "text": (Config(name="notes"), make_request()),
        "absent": (Config(), make_request("fT", "mag")),
        "nameless": (Config(type="Raw"), make_request()),
        "absent markers": (Config(name="one", markers="triggers"), make_request()),
        "absent channel": (Config(name="one", marker_channel="STATUS"), make_request()),
        "wrong unit": (Config(name="one", unit="fT"), make_request()),
    }
    results = {}

    def build(case, config, request):
        try:
            config.model_copy(update={"wait_s": 0.0}).build(request)
        except BrainhiveError as error:
            results[case] = [type(error).__name__, error.message, error.hint]

    call_in_threads(build, list(cases), *map(list, zip(*cases.values(), strict=True)))

    # a second stream of markers, and stamps of another clock
    senders.append(open_markers("codes", "int32"))
    foreign = Amplifier("foreign", kind="Foreign", age_s=-1e9)
    threading.Thread(
        target=lambda: list(foreign.send(20_000, speed=2)), daemon=True
    ).start()

    def read_for_ten_seconds(case, config):
        try:
            stream = config.build(make_request())
            read_until(stream, lambda chunk: False, limit_s=10)
        except BrainhiveError as error:
            results[case] = [type(error).__name__, error.message, error.hint]

    configs = [Config(name="one"), Config(name="foreign", markers="codes")]
    call_in_threads(read_for_ten_seconds, ["several markers", "clock"], configs)
    return results


# how they are run


class Scenarios:
    """Processes of all scenarios."""

    def __init__(self, folder):
        from tests.tools.lsl_senders import write_loopback

        self._processes = {}
        self._folder = folder
        for name in ("interruptions", "refusals", "counting"):
            home = folder / name
            home.mkdir()
            environment = (
                os.environ
                | write_loopback(home)
                | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
            )
            self._processes[name] = subprocess.Popen(
                [sys.executable, __file__, name, str(home / "seen.json")],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=(home / "stderr").open("w"),
                text=True,
                cwd=home,
            )

    def read_results(self, name):
        """Wait for a scenario, and return its results, with its stdout as `stdout`."""
        process = self._processes[name]
        stdout, _ = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, self.stderr(name)
        (self._folder / name / "stdout").write_text(stdout)
        return json.loads((self._folder / name / "seen.json").read_text())

    def stderr(self, name):
        return (self._folder / name / "stderr").read_text()

    def close(self):
        for process in self._processes.values():
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory):
    running = Scenarios(tmp_path_factory.mktemp("lsl"))
    yield running
    running.close()


# the tests


@pytest.mark.nightly
def test_no_sample_is_lost_and_every_event_arrives_once(
    scenarios,
):
    counting = scenarios.read_results("counting")
    assert [stream_counts["is_sequence"] for stream_counts in counting["seen"]] == [
        True
    ] * 3
    assert max(stream_counts["off_samples"] for stream_counts in counting["seen"]) < 0.5
    expected = (("bild/ä {}", 500), ("{}", 0), ("{}", 0))  # texts, numbers, a channel
    for stream_counts, (name, delay_samples) in zip(
        counting["seen"], expected, strict=True
    ):
        times = dict(
            zip(stream_counts["names"], stream_counts["event_samples"], strict=True)
        )
        assert sorted(stream_counts["names"]) == sorted(
            name.format(number + 1) for number in range(EVENTS)
        )
        errors = [
            times[name.format(row + 1)] - delay_samples - onset
            for row, onset in enumerate(counting["onsets"])
        ]
        assert np.abs(errors).max() < 1
    # the format has standard names, kinds and units
    assert counting["channels"] == ["Fp1", "Oz", "count", "TRIGGER"]
    assert counting["rate_hz"] == 1000
    assert counting["kinds"] == ["eeg", "eeg", "eeg", "stim"]
    assert counting["units"][:2] == ["µV", "µV"]
    assert counting["after_close"] is None
    assert 20 < counting["age_s"] < WAIT_S


@pytest.mark.nightly
@needs_lsl
def test_only_lost_samples_are_reported_as_gaps(
    scenarios,
):
    interruptions = scenarios.read_results("interruptions")
    assert interruptions["waited_s"] > 1
    assert interruptions["pauses_s"][0] > 1.25
    assert interruptions["first_and_last"][0] == 0
    # none where the sender stalled, after 1,000 samples
    assert min(interruptions["counted_gaps"]) == 1999
    # lost samples, and a sender that comes back
    assert interruptions["timed_gaps"] == interruptions["counted_gaps"]
    lost, n_while_absent = interruptions["gap_sizes"]
    assert lost == 3000
    assert n_while_absent >= 3000
    assert interruptions["off_samples"] < 1
    assert interruptions["least_step"] > 0
    assert interruptions["first_and_last"][1] == interruptions["first_and_last"][2] - 1


def test_a_stream_that_does_not_fit_is_refused_by_name(scenarios):
    refusals = scenarios.read_results("refusals")
    for case, kind, message, hint in (
        (
            "several",
            "RecipeError",
            ["2 streams", "'one' (type EEG", "'two'", "1000 Hz"],
            "source.name=",
        ),
        (
            "text",
            "RecipeError",
            ["'notes'", "text"],
            "source.name= one of: one, raw, two",
        ),
        ("absent", "MissingData", ["no stream with type 'MEG'"], "KnownPeers"),
        ("nameless", "RecipeError", ["4 channels, and 0 names"], "source.channels="),
        (
            "absent markers",
            "MissingData",
            ["no stream of markers with name 'triggers'"],
            "source.markers=",
        ),
        ("absent channel", "RecipeError", ["'STATUS'", "'one'"], "TRIGGER"),
        ("wrong unit", "RecipeError", ["'fT'", "'µV'"], "V, mV, µV"),
        (
            "several markers",
            "RecipeError",
            ["2 streams", "'codes'", "'texts'"],
            "source.markers=",
        ),
        ("clock", "BrainhiveError", ["'foreign'", "s from LSL's clock"], "local_clock"),
    ):
        error = refusals[case]
        assert error[0] == kind and hint in error[2], case
        assert [text for text in message if text not in error[1]] == []


def test_without_mne_lsl_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mne_lsl", None)
    with pytest.raises(MissingExtra, match="mne-lsl") as caught:
        Config().build(make_request())
    assert caught.value.hint == install_line("live")


if __name__ == "__main__":
    import faulthandler

    faulthandler.dump_traceback_later(WAIT_S, exit=True)
    scenario_results = globals()[f"run_{sys.argv[1]}"]()
    Path(sys.argv[2]).write_text(json.dumps(scenario_results, default=float))
    sys.stdout.flush()
    os._exit(0)
