"""Tests of the loop of a live session and its threads."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from brainhive_cli.commands.live import MAX_CURVE_POINTS, draw_session
from brainhive_cli.core.runs import Launch, RunFolder
from brainhive_cli.data.exchange.session_folder import SessionFolder
from brainhive_cli.data.streams import Chunk
from brainhive_cli.evaluation.live import loop as loops
from brainhive_cli.evaluation.live.job import Job
from brainhive_cli.evaluation.live.loop import SHEET_ROWS, Drawer, Loop, Score
from brainhive_cli.evaluation.live.recipe import Recipe
from tests.worlds.command_fixtures import COLOURS, use_home

DEMO = "dataset={kind: demo, subjects: 1, concepts: 8}"
QUICK = (
    "seeds=1",
    "dim=16",
    "fuser.intermediate_size=16",
    "train.epochs=1",
    "train.precision=fp32",
)
HERE = Launch(0, 1, torch.device("cpu"))
WAIT_S = 20
"""Longest wait of a test for a thread."""


@pytest.fixture(scope="module")
def run(tmp_path_factory, run_command):
    """Folder of a model of a simulated person."""
    with use_home(tmp_path_factory.mktemp("loop")):
        run_command("embed", DEMO, f"encoders=[{COLOURS!r}]")
        yield run_command("train-align", DEMO, f"encoders=[{COLOURS!r}]", *QUICK).folder


def open_mock(run, *overrides):
    arguments = (f"run={run}", "source.kind=mock", "source.speed=1000") + tuple(
        overrides
    )
    return Job.resolve(Recipe.resolve("live", None, {}, arguments)).open(HERE)


class Passing:
    """Stream that passes on the samples of another stream, changed by a function."""

    def __init__(self, stream, happen):
        self.format, self.now_s, self.close = stream.format, stream.now_s, stream.close
        self._stream, self._happen, self._number = stream, happen, 0

    def read(self, wait_s):
        self._number += 1
        return self._happen(self._number, self._stream.read(wait_s))


def change(session, happen):
    object.__setattr__(session, "stream", Passing(session.stream, happen))
    return session


def test_a_stall_is_said_once_and_nothing_is_lost(run, capsys, monkeypatch):
    monkeypatch.setattr(loops, "STALL_S", 0.2)

    def stall(number, chunk):
        if number == 5:  # the sender is silent, and then sends all that it has
            time.sleep(0.5)
        return chunk

    session, events = change(open_mock(run, "source.events=8"), stall), []
    loop = Loop(session, events.append)

    assert loop.run() == "the stream ended"

    assert loop.counts.windows == loop.decoded == 8
    assert not loop.counts.dropped
    kinds = [event["kind"] for event in events]
    assert kinds.count("stalled") == kinds.count("resumed") == 1 == loop.stalls
    assert "no samples for" in capsys.readouterr().err
    assert next(event for event in events if event["kind"] == "stalled")["for_s"] >= 0.2


@pytest.mark.parametrize(("shift_s", "text"), [(60, "s ahead of"), (-60, "s behind")])
def test_markers_of_another_clock_are_said_once(run, capsys, shift_s, text):
    def shift(number, chunk):
        if chunk is None:
            return None
        events = [
            event._replace(time_s=event.time_s + shift_s) for event in chunk.events
        ]
        return replace(chunk, events=tuple(events))

    published = []
    session = change(open_mock(run, "source.events=4", "source.speed=20"), shift)
    Loop(session, published.append).run()

    (warning,) = (event for event in published if event["kind"] == "warning")
    assert text in warning["text"] in capsys.readouterr().err.replace("\n", " ")


def test_lost_samples_are_reported_with_the_next_result(run):
    def lose(number, chunk):
        if chunk is not None and number == 3:
            return Chunk(chunk.samples[:0], chunk.times_s[:0], chunk.events)
        return chunk

    session, events = (
        change(open_mock(run, "source.events=6", "source.speed=50"), lose),
        [],
    )
    loop = Loop(session, events.append)
    loop.run()

    assert loop.counts.gaps == 1
    assert loop.counts.lost > 0
    assert loop.counts.dropped == {"in a gap of the stream": 1}
    assert loop.decoded == 5
    assert events[-1]["stream"]["gaps"] == 1
    assert events[-1]["stream"]["lost"] == loop.counts.lost


def test_reading_never_waits_for_decoding(run):
    """The first window is decoded only when all samples have been read."""
    has_ended = threading.Event()

    def note_end(number, chunk):
        if chunk is None:
            has_ended.set()
        return chunk

    session = change(open_mock(run, "source.events=30"), note_end)
    decode = session.decoder.decode

    def wait(windows):
        assert has_ended.wait(WAIT_S)
        return decode(windows)

    session.decoder.decode = wait
    loop = Loop(session, lambda event: None)
    loop.run()
    assert loop.decoded == 30


def test_decoding_never_waits_for_drawing_and_skips_are_counted(run):
    has_decoded, drawn, shown = threading.Event(), [], []

    def draw(result):
        assert has_decoded.wait(WAIT_S)
        drawn.append(result.event["window"])
        return b"picture"

    drawer = Drawer(draw, lambda event, picture: shown.append(event))
    events = []

    def publish(event):
        events.append(event)
        if len(events) == 30:
            has_decoded.set()

    Loop(
        open_mock(run, "source.events=30", "source.speed=30"), publish, drawer=drawer
    ).run()

    assert len(events) == 30
    assert drawn[-1] == 30
    assert len(drawn) < 30
    assert [event["window"] for event in shown] == drawn
    assert shown[-1]["skipped"] == 30 - len(drawn)


def test_a_model_of_the_demo_decodes_the_session_that_it_saved(run, tmp_path):
    session = open_mock(run, "source.events=4")
    recorder = SessionFolder(tmp_path / "session", session.stream.format, 1)
    loop = Loop(session, lambda event: None, recorder)
    loop.run()
    recorder.close()

    (file,) = (tmp_path / "session").rglob("*.vhdr")
    arguments = (
        f"run={run}",
        "source.kind=recording",
        f"source.file={file}",
        "source.speed=1000",
    )
    replayed = Job.resolve(Recipe.resolve("live", None, {}, arguments)).open(HERE)
    second_loop = Loop(replayed, lambda event: None)
    second_loop.run()
    assert second_loop.score.ranks == loop.score.ranks
    assert len(loop.score.ranks) == 4


def test_the_run_shows_first_windows_and_a_curve_of_the_hit_rate(run, tmp_path):
    session, events = open_mock(run, "source.events=300"), []
    loop = Loop(session, events.append)
    loop.run()
    (tmp_path / "drawings").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "drawings/000002.png")

    drawn_session = draw_session(
        RunFolder(tmp_path),
        loop.first_results,
        loop.score,
        lambda name: (tmp_path / "drawings/000002.png").read_bytes(),
    )

    sheet, curve = drawn_session
    assert len(sheet.rows) == SHEET_ROWS
    assert sheet.columns[-1] == "drawn from the signal"
    assert [row.tiles[-1].lines for row in sheet.rows[:3]] == [
        ["skipped"],
        (),
        ["skipped"],
    ]
    for row, event in zip(sheet.rows, events, strict=False):
        names = [tile.lines[0] for tile in row.tiles[:-1]]
        assert not any("/" in name or "_" in name for name in names)
        assert (row.rank, row.n_candidates) == (event["rank"], loop.score.hits.pool)
        rights = [tile.verdict == "right" for tile in row.tiles[1:-1]]
        assert any(rights) == (event["rank"] <= 5)
        assert rights[0] == (event["rank"] == 1)
    (line,) = curve.lines
    assert len(curve.at) == MAX_CURVE_POINTS
    assert curve.at[-1] == 300
    assert line.values[-1] == events[-1]["hits"]["rate"]
    assert (line.low[-1], line.high[-1]) == tuple(events[-1]["hits"]["interval"])


def count_trial(score, shown, best, rank, average=None, learned=False):
    event = {"shown": shown, "best": [{"image": best}], "rank": rank}
    event["average_rank"] = average
    score.add(SimpleNamespace(event=event, is_learned=learned))


def test_no_p_is_given_if_the_order_tells_the_pictures():
    session = SimpleNamespace(
        decoder=SimpleNamespace(image_ids=["a", "b"]),
        collect_caveats=lambda *arguments: [],
        is_exchangeable=False,
    )
    score = Score(session)
    count_trial(score, "a", "a", 1)
    assert score.summarise()["p"] is None


def test_a_tie_for_the_first_place_is_no_hit():
    decoder = SimpleNamespace(image_ids=["a", "b", "c", "d"])
    caveats = []
    session = SimpleNamespace(
        decoder=decoder,
        collect_caveats=lambda *arguments: caveats.append(arguments),
        is_exchangeable=True,
    )
    score = Score(session)
    assert score.summarise() is None

    for trial in range(8):
        # b stands first by its place in the gallery, not by its similarity
        count_trial(score, "b", "b", 2 if trial < 6 else 1)

    counted = score.summarise()
    assert (score.hits.hits, counted["top1"], counted["n"]) == (2, 2, 8)
    assert counted["rate"] == 0.25
    assert score.ranks == [2] * 6 + [1] * 2
    assert score.image_ids == ["b"] * 8
    # such an answer is none: with it, pictures b would have been named each time
    count_trial(score, "c", "c", 1, learned=True)
    assert score.hits.hits == 3
    assert score.learned == 1
    score.list_caveats()
    assert caveats[-1] == (1, 9)


def test_a_picture_has_the_rank_of_the_average_of_its_trials():
    decoder = SimpleNamespace(image_ids=["a", "b", "c", "d"])
    score = Score(SimpleNamespace(decoder=decoder))

    count_trial(score, "a", "b", 4)
    count_trial(score, "b", "b", 1)
    count_trial(score, "a", "c", 3, average=2)

    assert score.average_ranks == {"a": 2, "b": 1}
    assert score.ranks == [4, 1, 3]
