"""Tests that results of a small random model equal recorded numbers."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.results.measurements import (
    CALIBRATED,
    SEEN_PICTURES,
    SIMULATED,
    TRAINED_TRIALS,
    TWINS,
    UNKNOWN_TRIALS,
)
from brainhive_cli.data.recordings.event_names import EventNames
from brainhive_cli.data.signals import Cutting, CutWindow, Sensors, Steps, Trials
from brainhive_cli.evaluation.live import loop as loops
from brainhive_cli.evaluation.live.decoder import (
    LivePreparation,
    WindowDecoder,
    compute_trial_vectors,
    plan_preparation,
    read_learned_trials,
)
from brainhive_cli.evaluation.live.job import OpenSession, choose_columns
from brainhive_cli.evaluation.live.loop import Loop
from brainhive_cli.models.signal_spec import SignalSpec

CHANNELS = ("Fz", "Cz", "Pz", "Oz")
PICTURES = [f"a/p{row}" for row in range(7)]
OTHERS = ["a/q0", "a/q1"]
TIMES_S = np.arange(6) / 100
ONE = np.ones(1, np.uint64)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spec_of(names=("Cz", "Oz", "Fz"), **facts):
    times_s = tuple(TIMES_S.tolist())
    width = len(names) or 9
    return SignalSpec(names, 6, (1,), (width,), 100.0, times_s, unit="µV", **facts)


def person_of(spec, **history):
    """Make a person whose signals a linear model of three channels reads."""
    weights = draw(18, 5, seed=1)
    layout = SimpleNamespace(spec=spec)
    facts = {"recorded_channels": CHANNELS, "whiteners": {}, **history}
    model = SimpleNamespace(
        layout=layout,
        module=SimpleNamespace(layout=layout),
        history=SimpleNamespace(**facts),
        path="a model",
        encode=lambda trials: torch.from_numpy(trials.averages).flatten(1) @ weights,
    )
    return SimpleNamespace(
        subject=1,
        model=model,
        recordings=SimpleNamespace(dataset=SimpleNamespace(channels=())),
        channel_mapping="none",
        normaliser=None,
        recorded_unit="V",
    )


def decoder_of(pictures=7, **options):
    template = Trials.from_repetitions(
        np.zeros((1, 1, 4, 6), np.float32), (), Sensors(CHANNELS), TIMES_S, 100.0, "µV"
    )
    person = person_of(spec_of())
    return WindowDecoder(
        person.model,
        person,
        EventNames(None, PICTURES[:pictures]),
        EventNames(None, OTHERS),
        picture_tokens=draw(pictures, 5, seed=2),
        is_tested=np.arange(pictures) != 2,
        template=template,
        **options,
    )


def windows_of(names, seed=0):
    """Make windows of the pictures p0 to p6, q0, q1, or of the unknown picture x0."""
    made = []
    for number, name in enumerate(names.split()):
        signal = draw(4, 6, seed=100 * seed + number).numpy() + 0.3
        time_s = 10 * seed + number + 0.5
        made.append(CutWindow(name, time_s, number, signal, time_s + 0.06))
    return made


SHOWN = ("p1 p4 p1 q0", "p1 x0 p2 p4", "p6 p1")


def test_lists_of_the_template_are_not_those_of_windows():
    plain_decoder, numbered = decoder_of(), decoder_of()
    lists = {"trial_numbers": np.zeros(1, np.int64), "known_digests": ONE}
    numbered.template = replace(numbered.template, **lists)
    results = [
        each.decode(windows_of("p1 p4 p2")) for each in (plain_decoder, numbered)
    ]
    first, second = ([result.event for result in each] for each in results)
    assert first == second
    assert len(first) == 3


def test_of_one_picture_there_is_no_margin():
    (result,) = decoder_of(1).decode(windows_of("p0"))
    assert result.event["margin"] is None
    assert result.event["rank"] == 1
    assert len(result.event["best"]) == 1
    few, many = (decoder_of(count).decode(windows_of("p0")) for count in (3, 7))
    assert [len(found[0].event["best"]) for found in (few, many)] == [3, 5]


@pytest.mark.parametrize("sizes", [(12, 12), (5, 7, 12), (20, 4), (3, 17, 4)])
def test_first_trials_are_kept_for_the_whitener(recorded, sizes):
    steps = Steps(epoch_ms=(0, 60), keep_ms=(0, 60), baseline=False, rate_hz=100)
    preparation = LivePreparation(steps, CHANNELS, "µV", whiten_trials=15)
    decoder = decoder_of(preparation=preparation)
    names = " ".join(f"p{number % 5}" for number in range(24))
    windows = windows_of(names, 3)
    results, missing = [], []
    start = 0
    for size in sizes:
        results += decoder.decode(windows[start : start + size])
        missing.append(decoder.missing_trials)
        start += size
        assert (decoder.whitener is None) == (missing[-1] > 0)

    left = 15 - np.cumsum(sizes)
    assert missing == np.maximum(left, 0).tolist()
    assert len(results) == 9
    # whatever arrives together, the whitener and the results are one
    assert decoder.whitener is not None
    np.testing.assert_allclose(decoder.whitener, whitener_of(windows[:15]), rtol=1e-5)
    assert [result.event["window"] for result in results] == list(range(1, 10))
    recorded(digits=4, whitener=decoder.whitener, last=results[-1].event["best"])


def whitener_of(windows):
    """Compute the whitener of these windows."""
    decoder = decoder_of(
        preparation=LivePreparation(
            Steps(epoch_ms=(0, 60), keep_ms=(0, 60), baseline=False, rate_hz=100),
            CHANNELS,
            "µV",
            whiten_trials=len(windows),
        )
    )
    decoder.decode(windows)
    assert decoder.whitener is not None
    return decoder.whitener


def test_a_whitener_of_the_training_is_used_at_once():
    matrix = np.diag([2.0, 0.5, 1.0, 3.0]).astype(np.float32)
    steps = Steps(epoch_ms=(0, 60), keep_ms=(0, 60), baseline=False, rate_hz=100)
    preparation = LivePreparation(steps, CHANNELS, "µV", whitener=matrix)
    window = windows_of("p0")[0]
    expected = matrix @ window.signal

    (result,) = decoder_of(preparation=preparation).decode([window])

    np.testing.assert_allclose(result.signal, expected[[1, 3, 0]], rtol=1e-6)


def test_trials_of_the_training_are_known_again():
    windows = windows_of("p0 p1 p3 p4", 2)
    signals = torch.stack(
        [torch.from_numpy(single_window.signal[[1, 3, 0]]) for single_window in windows]
    )
    nearly = signals[2] + 0.25 * draw(3, 6, seed=9)
    learned = compute_trial_vectors(
        torch.stack([2 * signals[0] + 3, nearly] + list(draw(9, 3, 6)))
    )

    found = decoder_of(learned_trials=learned).decode(windows)
    of_one = decoder_of(learned_trials=learned[:1]).decode(windows_of("p0", 2))

    assert [result.is_learned for result in found] == [True, False, True, False]
    assert not of_one[0].is_learned


def test_learned_trials_come_from_unchanged_stores():
    trials = {subject: draw(4, 2, 3, seed=subject).numpy() for subject in (1, 2, 3)}
    source = SimpleNamespace(
        collect_identities=lambda subjects: {"s1": "a", "s2": "changed"},
        name_store=lambda subject: f"s{subject}",
    )
    learned = SimpleNamespace(
        subjects=(1, 2, 3),
        signals={"s1": "a", "s2": "b", "s3": "c"},
        has_all_subjects=True,
    )
    model = SimpleNamespace(history=learned)
    tests = SimpleNamespace(
        get_recordings=lambda model: source,
        open_person=lambda model, subject: SimpleNamespace(
            train_trials=SimpleNamespace(averages=trials[subject])
        ),
    )
    found, is_complete = read_learned_trials(tests, model)
    assert found is not None
    assert not is_complete
    torch.testing.assert_close(
        found, compute_trial_vectors(torch.from_numpy(trials[1]))
    )
    learned.signals = {"s1": "a", "s2": "changed"}
    found, is_complete = read_learned_trials(tests, model)
    assert found is not None
    assert len(found) == 8
    assert is_complete
    learned.has_all_subjects = False
    assert not read_learned_trials(tests, model)[1]
    learned.signals = {}
    assert read_learned_trials(tests, model)[0] is None


STEPS = {"kind": "recording", "epoch_ms": (-50, 60), "keep_ms": (0, 60)}
STEPS |= {"rate_hz": 100.0, "whiten": "no"}
WHITE = {"preparation": {**STEPS, "whiten": "epochs"}}


def plan(spec, whiten_trials=None, **learned):
    recipe = SimpleNamespace(whiten_trials=whiten_trials)
    return plan_preparation(person_of(spec, **learned), recipe)


def test_preparations_are_planned_by_the_model():
    plain = plan(spec_of(preparation={**STEPS, "band_hz": (1, 40), "phase": "forward"}))
    assert plain.channels == ("Cz", "Oz", "Fz")
    assert plain.unit == "µV"
    assert plain.band_hz == (1, 40)
    assert plain.whitener is None
    assert plain.differences == []
    assert plan(spec_of(preparation=STEPS)).band_hz == (None, None)
    # without a delay nothing can be filtered live
    assert (
        len(plan(spec_of(preparation={**STEPS, "band_hz": (1, 40)})).differences) == 1
    )
    assert (
        len(plan(spec_of(preparation={**STEPS, "band_hz": (None, 40)})).differences)
        == 1
    )

    # signals of a program have no steps
    made = plan(spec_of(preparation={"simulated": "a"}))
    assert made.steps.epoch_ms == pytest.approx((0, 60))
    assert not made.steps.baseline
    assert (made.steps.whiten, made.steps.rate_hz) == ("no", 100)

    # whitened by the training's last session, or by this one
    sessions = [np.eye(4), 2 * np.eye(4)]
    learned = plan(spec_of(**WHITE), whiteners={1: sessions})
    assert learned.whitener is sessions[1]
    assert learned.channels == CHANNELS
    assert len(learned.differences) == 1
    assert learned.whiten_trials == 0
    own = plan(spec_of(**WHITE), 40)
    assert own.whiten_trials == 40
    assert own.whitener is None
    assert own.channels == CHANNELS
    assert len(own.differences) == 1
    no_names = plan(spec_of(**WHITE), 40, recorded_channels=())
    assert no_names.channels == ("Cz", "Oz", "Fz")
    counted = plan(spec_of(("0", "1", "2"), preparation=STEPS))
    assert counted.channels == ("0", "1", "2")


@pytest.mark.parametrize(
    ("spec", "trials", "error"),
    [
        (spec_of((), preparation=STEPS), None, BrainhiveError),
        (spec_of(preparation={**STEPS, "regress": 1}), None, BrainhiveError),
        (spec_of(preparation={}), None, BrainhiveError),
        (spec_of(preparation=STEPS), 30, RecipeError),
        (spec_of(**WHITE), None, MissingData),
    ],
    ids=["voxels", "unknown step", "unknown steps", "not whitened", "no whitener"],
)
def test_what_no_stream_can_have_is_refused(spec, trials, error):
    with pytest.raises(error):
        plan(spec, trials)


def test_the_template_says_of_windows_what_stores_say():
    steps = Steps(epoch_ms=(-50, 60), keep_ms=(0, 60), rate_hz=100, whiten="no")
    cutting = Cutting(steps, 500.0)
    places = tuple((0.01 * row, 0.02, 0.03) for row in range(3))
    preparation = LivePreparation(steps, CHANNELS, "µV")
    own_template = preparation.make_template(
        CHANNELS, cutting, spec_of(positions=places)
    )
    assert own_template.signal.shape == (1, 4, 6)
    assert own_template.rate_hz == 100
    assert own_template.positions is not None
    np.testing.assert_allclose(np.array(own_template.positions)[[1, 3, 0]], places)
    strange = preparation.make_template(("Fz", "X1"), cutting, spec_of())
    assert strange.positions is None
    assert strange.unit == "µV"
    white = Steps(epoch_ms=(-50, 60), keep_ms=(0, 60), rate_hz=100)
    whitened = LivePreparation(white, CHANNELS, "µV")
    assert whitened.make_template(CHANNELS, cutting, spec_of()).unit == "whitened"


class Replay:
    """Stream of windows whose clock advances a second at each reading."""

    def __init__(self, chunks):
        self.chunks, self.clock_s, self.is_closed = list(chunks), 0.0, False
        self.template = decoder_of().template

    def now_s(self):
        self.clock_s += 1
        return self.clock_s

    def read_windows(self, wait_s):
        return self.chunks.pop(0) if self.chunks else None

    def close(self):
        self.is_closed = True


def session_of(speed=1.0, **options):
    chunks = [windows_of(names, number) for number, names in enumerate(SHOWN)]
    replay = Replay(list(chunks) + [[]])
    session = SimpleNamespace(
        decoder=decoder_of(**options),
        stream=replay,
        windows=None,
        columns=None,
        job=SimpleNamespace(
            recipe=SimpleNamespace(source=SimpleNamespace(speed=speed))
        ),
        collect_caveats=lambda learned, trials: [TRAINED_TRIALS] * (learned > 1),
        is_exchangeable=True,
    )
    return session, replay


def test_a_session_ends_after_so_many_windows_or_with_its_stream():
    for most, ending in ((5, "after 5 windows"), (None, "the stream ended")):
        session, replay = session_of()
        events = []
        loop = Loop(session, events.append, max_windows=most)
        assert loop.run() == ending
        assert replay.is_closed
        assert loop.decoded == len(events) == (most or 10)
        assert loop._should_stop.is_set()


def test_a_replay_at_another_speed_has_no_latencies():
    session, _ = session_of(speed=20.0)
    loop = Loop(session, lambda event: None)
    loop.run()
    assert loop.summarise_latencies() == {}
    assert len(loop.latencies_ms) == 0
    timed = Loop(session_of()[0], lambda event: None)
    timed.run()
    assert len(timed.latencies_ms) == 10


def test_trials_of_the_training_are_said_once():
    signals = [
        torch.from_numpy(window.signal[[1, 3, 0]])
        for number, names in enumerate(SHOWN)
        for window in windows_of(names, number)
    ]
    learned = compute_trial_vectors(torch.stack(signals))
    session, _ = session_of(learned_trials=learned)
    events = []
    Loop(session, events.append).run()
    assert [event["kind"] for event in events].count("warning") == 1


def test_windows_are_dropped_where_decoding_is_too_slow(
    monkeypatch,
):
    monkeypatch.setattr(loops, "MAX_WAITING_CHUNKS", 1)
    session, _ = session_of()
    loop = Loop(session, lambda event: None)
    loop._read()
    # two chunks wait, and the third has two windows
    assert loop.counts.dropped == {"decoding was too slow": 2}
    assert loop.counts.windows == 10


def test_an_error_of_the_stream_is_raised_by_the_decoding_thread():
    session, replay = session_of()

    def fail(wait_s):
        raise BrainhiveError("the stream is lost")

    replay.read_windows = fail  # type: ignore[method-assign]
    with pytest.raises(BrainhiveError, match="lost"):
        Loop(session, lambda event: None).run()
    assert replay.is_closed


def stream_of(channels, units="µV", kinds="eeg"):
    names = tuple(channels.split())
    return SimpleNamespace(
        name="a",
        channels=names,
        units=[units] * len(names),
        channel_types=[kinds] * (len(names) - 1) + ["misc"],
    )


def test_columns_are_those_of_the_model():
    steps = Steps(epoch_ms=(-50, 60), keep_ms=(0, 60), rate_hz=100, whiten="no")
    preparation = LivePreparation(steps, ("Cz", "Oz"), "µV")
    source = type("Source", (), {"model_fields": {"unit": None}})()
    columns = choose_columns(preparation, stream_of("Oz Fz Cz x"), "none", source)
    assert columns == [2, 0]
    # a mapping reads all channels of the kind
    mapped = choose_columns(preparation, stream_of("Oz Fz Pz x"), "spline", source)
    assert mapped == [0, 1, 2]
    for stream, mapping in (
        (stream_of("Oz Fz x"), "none"),
        (stream_of("Oz Cz x", units="V"), "none"),
        (stream_of("Oz Cz x", units=""), "none"),
    ):
        with pytest.raises(BrainhiveError):
            choose_columns(preparation, stream, mapping, source)
    white = LivePreparation(Steps(), ("Cz", "Oz"), "µV")
    with pytest.raises(BrainhiveError):
        choose_columns(white, stream_of("Oz Fz x"), "spline", source)


def test_caveats_of_a_session():
    holdout = SimpleNamespace(caveats=lambda template: [TWINS])
    pictures = SimpleNamespace(caveats=[SEEN_PICTURES])
    learned = SimpleNamespace(list_caveats={"eeg": [CALIBRATED]}.get)
    job = SimpleNamespace(
        align=SimpleNamespace(dataset=SimpleNamespace(holdout=holdout, people="eeg")),
        tests=SimpleNamespace(compare_pictures={1: pictures}.get),
        cell=SimpleNamespace(fold=1),
    )
    model = SimpleNamespace(history=learned)
    decoder = SimpleNamespace(template=None, model=model)
    stream = None

    def caveats(knows, *counts):
        session = OpenSession(job, decoder, stream, None, None, [SIMULATED], knows)
        return set(session.collect_caveats(*counts))

    always = {SIMULATED, TWINS, SEEN_PICTURES, CALIBRATED}
    assert caveats(True) == always
    assert caveats(True, 5, 100) == always
    assert caveats(False) == set(always) | {UNKNOWN_TRIALS}
    # the stronger caveat replaces the weaker one
    for knows in (False, True):
        assert caveats(knows, 6, 100) == set(always) | {TRAINED_TRIALS}
