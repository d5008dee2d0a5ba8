"""The loop of a live session: one thread reads, one decodes, one draws, and none waits
for the next.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType

import numpy as np

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.errors import (
    INTERRUPT_SIGNALS,
    BrainhiveError,
    leave_closed_terminal,
    set_handlers,
)
from brainhive_cli.core.measurements import TRAINED_TRIALS
from brainhive_cli.data.exchange.session_folder import SessionFolder
from brainhive_cli.data.signals.windows import Counts, CutWindow
from brainhive_cli.data.streams import WindowStream
from brainhive_cli.evaluation.live.decoder import EventRow, LiveResult
from brainhive_cli.evaluation.live.job import OpenSession
from brainhive_cli.measurement.confidence_sequence import HitRate

READ_WAIT_S = 0.1
"""How long a read waits for samples."""
STALL_S = 1.0
"""Time without a sample after which a stream is called stalled."""
WAITING_WINDOWS = 1000
"""Chunks of windows that wait to be decoded, at most; further ones are dropped and
counted.
"""
SHEET_ROWS = 12
"""First results that are kept, for the run's sheet."""
REMEMBERED = 10_000
"""Windows whose latencies are kept; those before are forgotten."""
CONFIDENCE = "a confidence sequence; pictures in random order"
"""Kind of the interval of hit rates, and what it presumes."""
STAGES = ("acquisition", "window", "decoding", "from the window's end", "from onset")
"""Stages of the latency: last sample to read, read to cut, cut to ranks; and the sums,
from the window's last sample and from the event to ranks.
"""


TimedWindow = tuple[CutWindow, float, float]
"""A window, and the times on the stream's clock when its last sample was read and it
was cut.
"""


class Score:
    """Hits of single trials so far, of pictures that the model has not learned from.

    Args:
        session: What is decoded.

    Attributes:
        hits: Trials that ranked the shown picture first.
        image_ids: [N] shown pictures.
        ranks: [N] their ranks by single trials.
        average_ranks: Rank of each shown picture by the average of all its trials so
            far.
        learned: How many of the trials the model has learned from.
    """

    def __init__(self, session: OpenSession) -> None:
        self._session = session
        self.hits, self.learned = HitRate(len(session.decoder.image_ids)), 0
        self.image_ids, self.ranks = list[str](), list[int]()
        self.average_ranks = dict[str, int]()

    def add(self, result: LiveResult) -> None:
        """Count a result whose shown picture is known and tested."""
        event = result.event
        image_id, best = event["shown"], event["best"][0]["image"]
        miss = "" if best == image_id else best  # a tie answers nothing
        self.hits.add(image_id, image_id if event["rank"] == 1 else miss)
        self.learned += result.is_learned
        self.image_ids.append(image_id)
        self.ranks.append(event["rank"])
        # of a single trial the average is the trial
        self.average_ranks[image_id] = event["average_rank"] or event["rank"]

    def list_caveats(self) -> list[str]:
        """List the caveats of the session and of its trials so far."""
        return self._session.caveats(self.learned, self.hits.trials)

    def summarise(self) -> EventRow | None:
        """Give the hit rate with its interval that holds at every moment; None before
        the first trial.
        """
        # the interval holds at every moment: a user may stop when it is narrow
        hits = self.hits
        if not hits.trials:
            return None
        return {
            "n": hits.trials,
            "top1": hits.hits,
            "rate": hits.rate,
            "chance": hits.chance,
            "interval": [*hits.interval],
            "level": 0.95,
            "confidence": CONFIDENCE,
            "p": hits.p_value,
            "caveats": self.list_caveats(),
        }


class Drawer:
    """Draws the newest result in a thread of its own; results that come meanwhile are
    skipped.

    Args:
        draw: Draws the average, or the trial, of a result; returns a PNG.
        show: Called with an event that says which window was drawn, the seconds it took
            and how many were skipped, and the PNG.
    """

    def __init__(
        self,
        draw: Callable[[LiveResult], bytes],
        show: Callable[[EventRow, bytes], None],
    ) -> None:
        self._draw, self._show, self._skipped = draw, show, 0
        self._newest = queue.Queue[LiveResult | None]()
        self._thread = threading.Thread(target=self._run, name="drawing", daemon=True)
        self._thread.start()

    def add(self, result: LiveResult) -> None:
        """Draw a result next, instead of one that waits."""
        with suppress(queue.Empty):
            self._newest.get_nowait()
            self._skipped += 1
        self._newest.put(result)

    def close(self) -> None:
        """Finish the drawing that was begun, and the one that waits."""
        self._newest.put(None)
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while (result := self._newest.get()) is not None:
            started_s = time.perf_counter()
            try:
                picture = self._draw(result)
                about = {
                    "kind": "drawing",
                    "window": result.event["window"],
                    "skipped": self._skipped,
                    "seconds": round(time.perf_counter() - started_s, 3),
                }
                self._show(about, picture)
            except Exception as error:  # decoding goes on without drawings
                console.warn(f"drawing ends: {type(error).__name__}: {error}")
                return


class Loop:
    """A live session that runs.

    Args:
        session: Model and open stream.
        publish: Called with each event as plain values, of the kinds result, stalled,
            resumed and warning, by the thread that decodes, and by the one that reads
            where a session can no longer be saved.
        recorder: Saves the stream; None where nothing is saved.
        drawer: Draws results; None without a generator.
        most_windows: Windows after which the session ends; None: the stream's end, or
            Ctrl-C.
    """

    def __init__(
        self,
        session: OpenSession,
        publish: Callable[[EventRow], None],
        recorder: SessionFolder | None = None,
        drawer: Drawer | None = None,
        most_windows: int | None = None,
    ) -> None:
        self.session, self.score = session, Score(session)
        # windows of a replay at another speed would take another time than those of a
        # person
        self.is_timed = getattr(session.job.recipe.source, "speed", 1.0) == 1
        self.times_ms = deque[Float64](maxlen=REMEMBERED)  # of each stage
        # continuous streams count where windows are cut
        self.counts = Counts() if session.windows is None else session.windows.counts
        if not isinstance(session.stream, WindowStream):
            self.counts.dropped.update(session.stream.format.dropped)
        self._publish, self._recorder = publish, recorder
        self._drawer, self._most = drawer, most_windows
        self._queue = queue.Queue[list[TimedWindow] | BaseException | None]()
        # set by Ctrl-C, or by the end of the session
        self._should_stop = threading.Event()
        self._start_s: float | None = None  # time of the first sample
        self._read_at = time.monotonic()
        self.decoded, self.stalls, self._has_warned = 0, 0, False
        self.unknown = 0  # windows of which no picture is known
        self.first_results: list[EventRow] = []  # as plain values, for the run's sheet

    def run(self) -> str:
        """Read, cut and decode until the stream or the session ends; return why it
        ended.

        Raises:
            BrainhiveError: if the stream is lost, or a window cannot be decoded.
        """
        # a daemon, so that a read which hangs does not keep the process alive
        reader = threading.Thread(target=self._read, name="reading", daemon=True)
        reader.start()
        stalled_at: float | None = None
        try:
            with stop_at_interrupt(self._should_stop):
                for timed in self._take():
                    # a stall is said once, and its end
                    silence_s = time.monotonic() - self._read_at
                    is_read = self.session.windows is not None and reader.is_alive()
                    if silence_s > STALL_S and stalled_at is None and is_read:
                        stalled_at, self.stalls = self._read_at, self.stalls + 1
                        console.warn(
                            f"no samples for {silence_s:.1f} s: the stream is stalled"
                        )
                        self._publish({"kind": "stalled", "for_s": round(silence_s, 3)})
                    elif silence_s <= STALL_S and stalled_at is not None:
                        after_s = self._read_at - stalled_at
                        console.say(f"samples again after {after_s:.1f} s")
                        self._publish({"kind": "resumed", "after_s": round(after_s, 3)})
                        stalled_at = None

                    if timed:
                        # windows beyond the limit are not decoded
                        self._decode(timed[: self._most and self._most - self.decoded])
                    if self._most is not None and self.decoded >= self._most:
                        return f"after {self.decoded} windows"
                return "stopped" if self._should_stop.is_set() else "the stream ended"
        finally:
            if self._should_stop.is_set():
                console.say("ending the session; Ctrl-C again interrupts")
            self._should_stop.set()
            reader.join(timeout=5)
            if self._drawer is not None:
                self._drawer.close()
            self.session.stream.close()

    @contextmanager
    def _saving(self) -> Iterator[None]:
        """Save a part of the session; decoding goes on where that fails, as where the
        disk is full.
        """
        try:
            yield
        except BrainhiveError as error:
            # a failing disk would fail at each window
            self._recorder = None
            console.warn(error.in_one_line)
            self._publish({"kind": "warning", "text": error.message})

    def _take(self) -> Iterator[list[TimedWindow]]:
        """Yield all windows that wait, together, or none after a while; then raise what
        went wrong.
        """
        item: list[TimedWindow] | BaseException | None = []
        while isinstance(item, list):
            timed, wait_s = list[TimedWindow](), READ_WAIT_S
            with suppress(queue.Empty):
                while isinstance(item := self._queue.get(timeout=wait_s), list):
                    # the first read waits, the next ones take what is there
                    timed += item
                    wait_s = 0.0
            yield timed
        if item is not None:
            raise item

    def _decode(self, timed: Sequence[TimedWindow]) -> None:
        """Decode windows, and publish each result with what is known of the session so
        far.
        """
        decoder, stream = self.session.decoder, self.session.stream

        # all that wait are decoded in one batch, which is how decoding catches up
        waited = decoder.missing_trials
        results = decoder.decode([window for window, *_ in timed])
        ranked_s = stream.now_s()
        if waited:
            text = "windows are whitened now"
            if decoder.missing_trials:
                text = f"whitening begins after {decoder.missing_trials} more trials"
            self._publish({"kind": "warning", "text": text})
        self.decoded += len(timed)
        # those after the windows that whitening was measured of, in the order of STAGES
        for window, read_s, cut_s in (
            timed[len(timed) - len(results) :] if self.is_timed else ()
        ):
            starts_s = window.end_s, read_s, cut_s, window.end_s, window.time_s
            stops_s = read_s, cut_s, ranked_s, ranked_s, ranked_s
            self.times_ms.append(1000 * np.subtract(stops_s, starts_s))
        latency_ms, counts = self.summarise_latencies(), self.describe_stream()
        for result in results:
            self.unknown += result.event["shown"] is None
            # only pictures that the model has not learned from count
            if result.is_tested:
                self.score.add(result)
                if not self._has_warned and TRAINED_TRIALS in self.score.list_caveats():
                    self._has_warned = True
                    text = "trials of the training are shown: hit rates are no result"
                    console.warn(text)
                    self._publish({"kind": "warning", "text": text})

            # seconds since the first sample
            onset_s = round(result.window.time_s - (self._start_s or 0.0), 6)
            event = {
                **result.event,
                "onset_s": onset_s,
                "hits": self.score.summarise(),
                "latency_ms": latency_ms,
                "stream": counts,
            }
            if len(self.first_results) < SHEET_ROWS:
                self.first_results.append(event)
            if (recorder := self._recorder) is not None:
                with self._saving():
                    recorder.add_result(event)
            self._publish(event)
            if self._drawer is not None:
                self._drawer.add(result)

    def summarise_latencies(self) -> dict[str, dict[str, float]]:
        """Give median, 95th percentile and maximum of each stage; {} of a replay at
        another speed.
        """
        if not self.times_ms:
            return {}
        # [3, stages]
        shares = np.percentile(self.times_ms, (50, 95, 100), axis=0).round(2)
        return {
            stage: dict(zip(("p50", "p95", "max"), values, strict=True))
            for stage, values in zip(STAGES, shares.T.tolist(), strict=True)
        }

    def describe_stream(self) -> EventRow:
        """Count what came of the stream, and what was lost or dropped, by reason."""
        counts = {**vars(self.counts), "dropped": dict(self.counts.dropped)}
        return {**counts, "decoded": self.decoded, "stalls": self.stalls}

    def _read(self) -> None:
        """Read until the stream or the session ends; what goes wrong is raised by the
        decoding thread.
        """
        try:
            for windows in self._windows():
                # a slow decoder must not fill the memory
                if self._queue.qsize() > WAITING_WINDOWS:
                    self.counts.dropped["decoding was too slow"] += len(windows)
                else:
                    self._queue.put(windows)
            self._queue.put(None)
        except BaseException as error:
            # raised again by `_take`, where windows are decoded
            self._queue.put(error)

    def _note_arrival(self, time_s: float) -> None:
        self._read_at = time.monotonic()
        # onsets count from the first sample
        self._start_s = time_s if self._start_s is None else self._start_s

    def _windows(self) -> Iterator[list[TimedWindow]]:
        """Yield the windows that are complete, as soon as they are."""
        stream, windows = self.session.stream, self.session.windows
        while not self._should_stop.is_set():
            # a stream of windows
            if isinstance(stream, WindowStream):
                if (ready := stream.read_windows(READ_WAIT_S)) is None:
                    return
                if ready:
                    self._note_arrival(ready[0].time_s)
                    self.counts.events += len(ready)
                    self.counts.windows += len(ready)
                    read_s = stream.now_s()
                    yield [(window, read_s, read_s) for window in ready]
                continue

            # a continuous stream: samples and events as they come
            assert windows is not None and self.session.columns is not None
            if (chunk := stream.read(READ_WAIT_S)) is None:
                # the stream ended before these windows were complete
                windows.drop_waiting()
                return
            read_s = stream.now_s()
            if len(chunk.samples):
                self._note_arrival(float(chunk.times_s[0]))

            # samples that were lost (NaN) are a gap
            if (is_lost := np.isnan(chunk.samples).all(1)).any():
                samples, times_s = chunk.samples[~is_lost], chunk.times_s[~is_lost]
                chunk = replace(chunk, samples=samples, times_s=times_s)

            # samples that follow a gap, which the recording marks
            gaps = windows.add_samples(
                chunk.samples[:, self.session.columns], chunk.times_s
            )
            for event in chunk.events:
                windows.add_event(event.name, event.time_s)
            located = windows.locate_events()
            if ready := [*windows.cut_windows()]:
                cut_s = stream.now_s()
                yield [(window, read_s, cut_s) for window in ready]

            # saved after windows were handed on
            if (recorder := self._recorder) is not None:
                with self._saving():
                    recorder.add_samples(chunk.samples)
                    for sample in gaps:
                        recorder.mark_gap(sample)
                    for name, sample in located:
                        # events without a picture are saved without one
                        _, image_id = self.session.decoder.find_shown(name)
                        recorder.add_event(sample, name, image_id or "")


@contextmanager
def stop_at_interrupt(should_stop: threading.Event) -> Iterator[None]:
    """Let the first signal that interrupts end a session in order; the second one of
    its kind interrupts as usual.
    """
    # signals can be set in the main thread alone
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        leave_closed_terminal()
        should_stop.set()
        set_handlers({number: before[number]})

    before = set_handlers(dict.fromkeys(INTERRUPT_SIGNALS, stop))
    try:
        yield
    finally:
        set_handlers(before)
