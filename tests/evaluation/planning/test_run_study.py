"""The script that shows a study, without a screen and with a stand-in of PsychoPy."""

import ast
import sys
import types

import pytest

from tests.evaluation.planning.test_study_files import (
    load_script,
    make_study,
    plan_study,
    read_rows,
)

RATE_HZ = 60


@pytest.fixture
def study(home):
    plan = plan_study(4, 1, 2, sessions=1, train_repetitions=4, test_repetitions=6)
    return make_study(home, plan)


def read_trials(study, run_number):
    rows = read_rows(study / "order.csv")
    return [row for row in rows if row["run"] == str(run_number)]


def test_the_script_is_plain_python_with_the_plan_s_settings(study):
    source = (study / "run_study.py").read_text()
    compile(source, "run_study.py", "exec")
    ast.parse(source, feature_version=(3, 8))  # of older versions of PsychoPy
    script = load_script(study)
    assert (script.STIMULUS_S, script.ONSET_INTERVAL_S) == (0.1, 0.2)
    assert (script.BREAK_S, script.BITS, script.MARGIN_S) == (30.0, 8, 10.0)


def test_a_dry_run_logs_each_run_of_the_session(study):
    load_script(study).main(["--person", "1", "--session", "1", "--dry-run"])
    assert "psychopy" not in sys.modules
    for run_number in (1, 2):
        name = f"sub-01_ses-01_task-pictures_run-{run_number:02d}_events.tsv"
        rows = read_rows(study / "logs-dry-run" / name)
        trials = read_trials(study, run_number)
        assert [row["stim_file"] for row in rows] == [row["picture"] for row in trials]
        assert [row["value"] for row in rows] == [row["event"] for row in trials]
        for row, trial in zip(rows, trials, strict=True):
            onset_s = float(row["onset"])
            assert onset_s == pytest.approx(float(trial["onset_s"]), abs=0.02)
            assert float(row["duration"]) == pytest.approx(0.1, abs=1e-3)
            is_catch = trial["picture"] == "n/a"
            assert row["trial_type"] == ("catch" if is_catch else "picture")
    assert not (study / "logs").exists() or not list((study / "logs").iterdir())


def test_a_missing_psychopy_is_named(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "psychopy", None)
    with pytest.raises(SystemExit, match="PsychoPy"):
        load_script(study).main(["--person", "1", "--session", "1"])


def test_one_run_can_be_shown_alone(study):
    arguments = ["--person", "1", "--session", "1", "--run", "2", "--dry-run"]
    load_script(study).main(arguments)
    (log,) = (study / "logs-dry-run").iterdir()
    assert "run-02" in log.name


@pytest.mark.parametrize("person", ["1", "3"])
def test_logs_are_kept_and_unknown_people_are_refused(study, person):
    (study / "logs").mkdir()
    log = study / "logs/sub-01_ses-01_task-pictures_run-02_events.tsv"
    log.write_text("recorded")
    with pytest.raises(SystemExit) as caught:
        load_script(study).main(["--person", person, "--session", "1"])
    assert ("exists" if person == "1" else "order.csv") in str(caught.value)
    assert log.read_text() == "recorded"


class Clock:
    """Clock that flips advance."""

    def __init__(self):
        self.n_flips = 0
        self.start = 0

    def reset(self):
        self.start = self.n_flips

    def getTime(self):
        return (self.n_flips - self.start) / RATE_HZ


class Stimulus:
    """Stimulus of PsychoPy that notes when it is drawn."""

    def __init__(self, window, **values):
        self.window = window
        self.values = values

    def draw(self):
        self.window.drawn.append(self.values)


class Window:
    """Window of PsychoPy that notes its frames."""

    size = (1920, 1080)
    nDroppedFrames = 0

    def __init__(self, **values):
        self.values = values
        self.clock = clocks[-1]
        self.drawn = []
        self.functions = []
        self.frames = []
        self.is_closed = False
        windows.append(self)

    def getActualFrameRate(self):
        return float(RATE_HZ)

    def callOnFlip(self, function, *arguments):
        self.functions.append((function, arguments))

    def flip(self):
        self.clock.n_flips += 1
        for function, arguments in self.functions:
            function(*arguments)
        self.frames.append((self.clock.getTime(), self.drawn))
        self.functions = []
        self.drawn = []

    def close(self):
        self.is_closed = True


clocks = []
windows = []


@pytest.fixture
def psychopy(monkeypatch):
    """Stand-in of PsychoPy, whose keys are chosen by tests."""
    clocks[:] = [Clock()]
    windows.clear()
    state = types.SimpleNamespace(codes=[], keys={}, windows=windows)

    def get_keys(keyList, timeStamped=False):
        time_s = clocks[0].getTime()
        for moment in sorted(state.keys):
            if moment <= time_s and state.keys[moment] in keyList:
                return [(state.keys.pop(moment), time_s)]
        return []

    class ParallelPort:
        def __init__(self, address):
            state.address = address

        def setData(self, code):
            state.codes.append((clocks[0].getTime(), code))

    visual = types.SimpleNamespace(Window=Window)
    for name in ("TextStim", "ImageStim", "Circle", "Rect"):
        setattr(visual, name, type(name, (Stimulus,), {"text": ""}))
    core = types.SimpleNamespace(
        Clock=lambda: clocks[0],
        CountdownTimer=lambda _: types.SimpleNamespace(getTime=lambda: 0.0),
    )
    event = types.SimpleNamespace(
        getKeys=get_keys,
        waitKeys=lambda keyList: [keyList[0]],
        clearEvents=lambda: None,
    )
    module = types.ModuleType("psychopy")
    for name, value in {
        "visual": visual,
        "core": core,
        "event": event,
        "parallel": types.SimpleNamespace(ParallelPort=ParallelPort),
    }.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, "psychopy", module)
    return state


def show_first_run(study):
    arguments = ["--person", "1", "--session", "1", "--run", "1"]
    load_script(study).main(list(arguments) + ["--triggers", "parallel"])
    return read_rows(study / "logs/sub-01_ses-01_task-pictures_run-01_events.tsv")


def test_the_square_is_on_the_screen_exactly_with_the_picture(study, psychopy):
    show_first_run(study)
    (window,) = psychopy.windows
    assert window.is_closed
    trials = read_trials(study, 1)
    n_frames = 0
    for time_s, drawn_stimuli in window.frames[-(20 * RATE_HZ + 12 * len(trials)) :]:
        squares = [values for values in drawn_stimuli if "pos" in values]
        pictures = [
            values
            for values in drawn_stimuli
            if "image" in values or "radius" in values
        ]
        assert len(squares) == len(pictures) <= 1
        frame = round((time_s - 10) * RATE_HZ) - 1
        trial, frame_of_trial = divmod(frame, 12)
        is_shown = 0 <= trial < len(trials) and frame_of_trial < 6
        assert bool(pictures) == is_shown
        if is_shown:
            n_frames += 1
            name = trials[trial]["picture"]
            assert pictures[0].get("image", "n/a").endswith(name)
            x, y = squares[0]["pos"]
            assert x < -0.8
            assert y < -0.4
    assert n_frames == 6 * len(trials)


def test_codes_are_sent_with_the_first_frame_of_a_trial(study, psychopy):
    rows = show_first_run(study)
    assert psychopy.address == 0x378
    sent_codes = [(time_s, code) for time_s, code in psychopy.codes if code]
    assert [code for _, code in sent_codes] == [int(row["value"]) for row in rows]
    for (time_s, _), row in zip(sent_codes, rows, strict=True):
        assert time_s == pytest.approx(float(row["onset"]), abs=1e-3)
    lengths = {
        round((second[0] - first[0]) * RATE_HZ)
        for first, second in zip(psychopy.codes, psychopy.codes[1:], strict=False)
        if first[1]
    }
    assert lengths == {1}


def test_a_response_to_a_catch_trial_is_logged(study, psychopy):
    trials = read_trials(study, 1)
    (catch,) = [trial for trial in trials if trial["picture"] == "n/a"]
    psychopy.keys = {float(catch["onset_s"]) + 0.5: "space", 3.0: "space"}
    rows = show_first_run(study)
    (logged,) = [row for row in rows if row["trial_type"] == "catch"]
    assert float(logged["response_time"]) == pytest.approx(0.5, abs=0.03)
    responses = [row for row in rows if row["trial_type"] == "response"]
    assert [float(row["onset"]) for row in responses] == pytest.approx(
        [3.0, float(catch["onset_s"]) + 0.5], abs=0.03
    )
    assert {row["stim_file"] for row in responses} == {"n/a"}


def test_the_log_of_a_stopped_run_is_kept(study, psychopy):
    psychopy.keys = {10.7: "escape"}
    rows = show_first_run(study)
    pictures = [row["stim_file"] for row in rows]
    assert pictures == [row["picture"] for row in read_trials(study, 1)[:3]]
    assert psychopy.windows[0].is_closed


def test_16_bits_need_another_port(home, psychopy):
    study = make_study(home, plan_study(4, 1, 2, sessions=1, bits=16))
    with pytest.raises(SystemExit, match="8 bits"):
        show_first_run(study)


@pytest.mark.parametrize(
    ("bits", "code", "sent_bytes"), [(8, 200, b"\xc8"), (16, 258, b"\x02\x01")]
)
def test_a_trigger_box_gets_the_bytes_of_a_code(
    home, monkeypatch, bits, code, sent_bytes
):
    study = make_study(home, plan_study(4, 1, 2, sessions=1, bits=bits))
    written_bytes = []
    port = types.SimpleNamespace(write=written_bytes.append)
    serial = types.SimpleNamespace(Serial=lambda address, rate: port)
    monkeypatch.setitem(sys.modules, "serial", serial)
    load_script(study).open_port("serial", "COM3").send(code)
    assert written_bytes == [sent_bytes]


def test_lsl_gets_the_codes_as_text(study, monkeypatch):
    samples = []
    outlet = types.SimpleNamespace(push_sample=samples.append)
    pylsl = types.SimpleNamespace(
        StreamInfo=lambda *_: None, StreamOutlet=lambda _: outlet
    )
    monkeypatch.setitem(sys.modules, "pylsl", pylsl)
    port = load_script(study).open_port("lsl", "")
    port.send(17)
    port.send(0)
    assert samples == [["17"]]
