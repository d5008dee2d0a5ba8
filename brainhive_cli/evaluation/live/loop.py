"""Loop of a live session, with threads that read, decode and draw.

No thread waits for the next: reading never waits for decoding, nor decoding for
drawing.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType
from typing import Protocol, runtime_checkable

import numpy as np

from brainhive_cli.core.base import (
    INTERRUPT_SIGNALS,
    BrainhiveError,
    Float64,
    console,
    leave_closed_terminal,
    set_handlers,
)
from brainhive_cli.core.results import TRAINED_TRIALS
from brainhive_cli.data.exchange import SessionFolder
from brainhive_cli.data.signals import Counts, CutWindow
from brainhive_cli.data.streams import Chunk, Event, Stream, WindowStream
from brainhive_cli.evaluation.live.decoder import EventRow, LiveResult
from brainhive_cli.evaluation.live.job import OpenSession
from brainhive_cli.measurement import HitRate

READ_WAIT_S = 0.1
"""Longest time that a read waits for samples."""
STALL_S = 1.0
"""Time without a sample after which the user is warned of a stall."""
MAX_WAITING_CHUNKS = 1000
"""Largest number of chunks of windows that wait to be decoded. Windows of further
chunks are dropped and counted.
"""
SHEET_ROWS = 12
"""Number of first results that are kept for the sheet of the run."""
STAGES = ("acquisition", "window", "decoding", "from the window's end", "from onset")
"""Stages of the latency: from the last sample of a window to its read, from the read to
the cut, and from the cut to the ranks. The last two are sums, from the last sample and
from the event to the ranks.
"""


TimedWindow = tuple[CutWindow, float, float]
"""Window, and the times when its last sample was read and when it was cut, on the clock
of the stream.
"""


@runtime_checkable
class HasSpeed(Protocol):
    """Config of a stream that can be replayed faster or slower.

    Attributes:
        speed: Seconds of the replay in a second.
    """

    speed: float


class Score:
    """Hits of single trials so far, for pictures that the model was not trained on.

    Args:
        session: Session that is decoded.

    Attributes:
        hits: Hit rate of trials that rank the shown picture first.
        learned: Number of trials that the model was trained on.
        image_ids: Image ids [N] of the shown pictures.
        ranks: Ranks [N] of the shown pictures, by single trials.
        average_ranks: Rank of each shown picture by the average of its trials so far.
    """

    def __init__(self, session: OpenSession) -> None:
        self._session = session
        self.hits = HitRate(len(session.decoder.image_ids))
        self.learned = 0
        self.image_ids = list[str]()
        self.ranks = list[int]()
        self.average_ranks = dict[str, int]()

    def add(self, result: LiveResult) -> None:
        """Count a result whose picture is known, and new to the model."""
        event = result.event
        image_id = event["shown"]
        rank = event["rank"]
        answer = image_id
        if rank != 1:
            # a tie with the shown picture is no answer
            best = event["best"][0]["image"]
            answer = "" if best == image_id else best
        self.hits.add(image_id, answer)
        self.learned += result.is_learned
        self.image_ids.append(image_id)
        self.ranks.append(rank)
        # the first trial of a picture has no average
        self.average_ranks[image_id] = event["average_rank"] or rank

    def list_caveats(self) -> list[str]:
        """List the caveats of the session and of its trials so far."""
        return self._session.collect_caveats(self.learned, self.hits.trials)

    def summarise(self) -> EventRow | None:
        """Return the hit rate with its interval, or None before the first trial.

        The interval holds at every moment, so the session may stop when it is narrow.
        """
        hits = self.hits
        if not hits.trials:
            return None
        return {
            "n": hits.trials,
            "top1": hits.hits,
            "rate": hits.rate,
            "chance": hits.chance,
            "interval": list(hits.interval),
            "level": 0.95,
            # Kind of the interval of hit rates, and its assumption.
            "confidence": "a confidence sequence; pictures in random order",
            "p": hits.p_value if self._session.is_exchangeable else None,
            "caveats": self.list_caveats(),
        }


class Drawer:
    """Thread that draws the newest result. Results that arrive meanwhile are skipped.

    Args:
        draw: Draws the signal of a result, and returns a PNG.
        show: Called with an event and the PNG. The event gives the number of the
            window, the seconds of the drawing and the number of skipped results.
    """

    def __init__(
        self,
        draw: Callable[[LiveResult], bytes],
        show: Callable[[EventRow, bytes], None],
    ) -> None:
        self._draw = draw
        self._show = show
        self._n_skipped = 0
        self._newest = queue.Queue[LiveResult | None]()
        self._thread = threading.Thread(target=self._run, name="drawing", daemon=True)
        self._thread.start()

    def add(self, result: LiveResult) -> None:
        """Draw a result next, instead of a result that waits."""
        with suppress(queue.Empty):
            self._newest.get_nowait()
            self._n_skipped += 1
        self._newest.put(result)

    def close(self) -> None:
        """Finish the drawings, for at most 30 seconds."""
        self._newest.put(None)
        self._thread.join(timeout=30)

    def _run(self) -> None:
        """Draw the newest results until `close` or an error."""
        while True:
            result = self._newest.get()
            if result is None:
                return
            start_s = time.perf_counter()
            try:
                picture = self._draw(result)
                event = {
                    "kind": "drawing",
                    "window": result.event["window"],
                    "skipped": self._n_skipped,
                    "seconds": round(time.perf_counter() - start_s, 3),
                }
                self._show(event, picture)
            except Exception as error:  # decoding goes on without drawings
                console.warn(
                    f"no more pictures are drawn: {type(error).__name__}: {error}"
                )
                return


class Loop:
    """Running live session.

    The reading thread runs `_read`: it reads samples, cuts windows and saves the
    samples. The calling thread runs `run`: it decodes windows and publishes results.

    Args:
        session: Session with its model and open stream.
        publish: Called with each event as plain values. Kinds of events are result,
            stalled, resumed and warning. The decoding thread calls it, and the reading
            thread for a failure to save and for another clock.
        recorder: Saves the stream, or None to save nothing.
        drawer: Draws results, or None.
        max_windows: Number of windows after which the session ends, or None to continue
            until the end of the stream or Ctrl-C.
    """

    def __init__(
        self,
        session: OpenSession,
        publish: Callable[[EventRow], None],
        recorder: SessionFolder | None = None,
        drawer: Drawer | None = None,
        max_windows: int | None = None,
    ) -> None:
        self.session = session
        self._publish = publish
        self._recorder = recorder
        self._drawer = drawer
        self._max_windows = max_windows

        # results so far
        self.score = Score(session)
        self.decoded = 0
        self.unknown = 0  # number of windows without a known picture
        self.stalls = 0
        self.first_results: list[EventRow] = []
        # latencies of each stage, which another speed of a replay would change
        source = session.job.recipe.source
        self.is_timed = not isinstance(source, HasSpeed) or source.speed == 1
        # Number of last windows whose latencies are kept.
        self.latencies_ms = deque[Float64](maxlen=10_000)
        # samples and events are counted where windows are cut
        self.counts = Counts() if session.windows is None else session.windows.counts
        if not isinstance(session.stream, WindowStream):
            self.counts.dropped.update(session.stream.format.dropped)

        # state of the threads
        self._queue = queue.Queue[list[TimedWindow] | BaseException | None]()
        self._should_stop = threading.Event()  # set by Ctrl-C, or when the loop ends
        self._start_s: float | None = None  # time of the first sample
        self._arrival_s = -np.inf  # time of the first sample of the newest chunk
        self._has_other_clock = False
        self._read_at_s = time.monotonic()
        self._stalled_at_s: float | None = None
        self._has_warned = False

    def run(self) -> str:
        """Read, cut and decode until the stream or the session ends.

        Returns:
            The reason of the end.

        Raises:
            BrainhiveError: if the stream is lost, or a window cannot be decoded.
        """
        # a daemon does not keep the process alive if a read hangs
        reader = threading.Thread(target=self._read, name="reading", daemon=True)
        reader.start()
        try:
            with stop_at_interrupt(self._should_stop):
                for windows in self._iterate_waiting():
                    self._report_stall(is_reading=reader.is_alive())
                    if self._max_windows is None:
                        self._decode(windows)
                        continue
                    # windows beyond the limit are not decoded
                    self._decode(windows[: self._max_windows - self.decoded])
                    if self.decoded >= self._max_windows:
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

    def _read(self) -> None:
        """Read until the stream or the session ends, and pass errors to `run`."""
        stream = self.session.stream
        try:
            if isinstance(stream, WindowStream):
                chunks = self._read_windows(stream)
            else:
                chunks = self._cut_windows(stream)
            for windows in chunks:
                # a slow decoder must not fill the memory
                if self._queue.qsize() > MAX_WAITING_CHUNKS:
                    self.counts.dropped["decoding was too slow"] += len(windows)
                else:
                    self._queue.put(windows)
            self._queue.put(None)
        except BaseException as error:
            # `_iterate_waiting` raises it again
            self._queue.put(error)

    def _read_windows(self, stream: WindowStream) -> Iterator[list[TimedWindow]]:
        """Yield the windows of a stream that is already cut into windows."""
        while not self._should_stop.is_set():
            windows = stream.read_windows(READ_WAIT_S)
            if windows is None:
                return
            if windows:
                self._note_arrival(windows[0].time_s)
                self.counts.events += len(windows)
                self.counts.windows += len(windows)
                read_s = stream.now_s()
                yield [(window, read_s, read_s) for window in windows]

    def _cut_windows(self, stream: Stream) -> Iterator[list[TimedWindow]]:
        """Read a continuous stream, and yield windows as soon as they are complete."""
        windows = self.session.windows
        columns = self.session.columns
        assert windows is not None and columns is not None
        while not self._should_stop.is_set():
            chunk = stream.read(READ_WAIT_S)
            if chunk is None:
                # the stream ended before these windows were complete
                windows.drop_waiting()
                return
            read_s = stream.now_s()
            if len(chunk.samples):
                self._note_arrival(float(chunk.times_s[0]))

            # lost samples (NaN) become a gap
            is_lost = np.isnan(chunk.samples).all(1)
            if is_lost.any():
                samples = chunk.samples[~is_lost]
                chunk = replace(chunk, samples=samples, times_s=chunk.times_s[~is_lost])

            # cut the windows that are complete
            gaps = windows.add_samples(chunk.samples[:, columns], chunk.times_s)
            for event in chunk.events:
                self._check_clock(event)
                windows.add_event(event.name, event.time_s)
            located_events = windows.locate_events()
            cut_windows = list(windows.cut_windows())
            if cut_windows:
                cut_s = stream.now_s()
                yield [(window, read_s, cut_s) for window in cut_windows]

            # saving comes last, so that it does not delay the windows
            self._save_chunk(chunk, gaps, located_events)

    def _note_arrival(self, time_s: float) -> None:
        """Note that samples arrived, of which the first has this time."""
        self._read_at_s = time.monotonic()
        self._arrival_s = time_s
        if self._start_s is None:
            self._start_s = time_s

    def _check_clock(self, event: Event) -> None:
        """Warn once of an event that has not happened yet, or long before it arrives.

        The samples tell when it arrives, because a stall delays both.
        """
        ahead_s = event.time_s - self.session.stream.now_s()
        difference_s = max(ahead_s, self._arrival_s - event.time_s)
        # Time between an event and the samples of its chunk beyond which it
        # has another clock.
        clock_tolerance_s = 2.0
        if self._has_other_clock or difference_s < clock_tolerance_s:
            return
        self._has_other_clock = True
        direction = "ahead of" if ahead_s > 0 else "behind"
        self._warn(
            f"markers are {difference_s:.0f} s {direction} the samples, so their "
            "windows are lost or wrong: their program must stamp them by the clock of "
            "the samples (LSL: local_clock)"
        )

    def _warn(self, text: str) -> None:
        """Write a warning, and publish it."""
        console.warn(text)
        self._publish({"kind": "warning", "text": text})

    def _save_chunk(
        self, chunk: Chunk, gaps: Sequence[int], events: Sequence[tuple[str, int]]
    ) -> None:
        """Save samples, gaps, events and the pictures of the events.

        Args:
            chunk: Samples.
            gaps: Numbers of the samples before which others are missing.
            events: Name of each event and number of its sample.
        """
        recorder = self._recorder
        if recorder is None:
            return
        with self._catch_save_error():
            recorder.add_samples(chunk.samples)
            for sample in gaps:
                recorder.mark_gap(sample)
            for name, sample in events:
                _, image_id = self.session.decoder.find_picture(name)
                recorder.add_event(sample, name, image_id or "")

    @contextmanager
    def _catch_save_error(self) -> Iterator[None]:
        """Stop saving after an error in the block, such as a full disk, with a warning.

        Decoding goes on.
        """
        try:
            yield
        except BrainhiveError as error:
            self._recorder = None
            console.warn(error.in_one_line)
            self._publish({"kind": "warning", "text": error.message})

    def _iterate_waiting(self) -> Iterator[list[TimedWindow]]:
        """Yield all windows that wait, or an empty list after `READ_WAIT_S`.

        Raises:
            BaseException: the error of the reading thread.
        """
        item: list[TimedWindow] | BaseException | None = []
        while isinstance(item, list):
            waiting = list[TimedWindow]()
            with suppress(queue.Empty):
                item = self._queue.get(timeout=READ_WAIT_S)
                while isinstance(item, list):
                    # only the first read waits
                    waiting += item
                    item = self._queue.get(timeout=0.0)
            yield waiting
        if item is not None:
            raise item

    def _report_stall(self, is_reading: bool) -> None:
        """Report that a continuous stream has stalled or resumed, each once."""
        silence_s = time.monotonic() - self._read_at_s
        if silence_s > STALL_S:
            is_continuous = self.session.windows is not None
            if self._stalled_at_s is None and is_continuous and is_reading:
                self._stalled_at_s = self._read_at_s
                self.stalls += 1
                console.warn(f"the stream sent no samples for {silence_s:.1f} s")
                self._publish({"kind": "stalled", "for_s": round(silence_s, 3)})
        elif self._stalled_at_s is not None:
            after_s = self._read_at_s - self._stalled_at_s
            console.say(f"the stream sends samples again, after {after_s:.1f} s")
            self._publish({"kind": "resumed", "after_s": round(after_s, 3)})
            self._stalled_at_s = None

    def _decode(self, windows: Sequence[TimedWindow]) -> None:
        """Decode windows in a single batch, and publish their results."""
        if not windows:
            return
        decoder = self.session.decoder
        needs_whitener = decoder.missing_trials > 0
        results = decoder.decode([window for window, _, _ in windows])
        ranked_s = self.session.stream.now_s()
        self.decoded += len(windows)
        if needs_whitener:
            text = "windows are whitened now"
            if decoder.missing_trials:
                text = f"whitening begins after {decoder.missing_trials} more trials"
            self._publish({"kind": "warning", "text": text})

        # latencies in the order of STAGES, without windows that only whitening used
        if self.is_timed:
            for window, read_s, cut_s in windows[len(windows) - len(results) :]:
                starts_s = (window.end_s, read_s, cut_s, window.end_s, window.time_s)
                stops_s = (read_s, cut_s, ranked_s, ranked_s, ranked_s)
                self.latencies_ms.append(1000 * np.subtract(stops_s, starts_s))
        latencies = self.summarise_latencies()
        stream_counts = self.describe_stream()
        for result in results:
            self._publish_result(result, latencies, stream_counts)

    def _publish_result(
        self,
        result: LiveResult,
        latencies: dict[str, dict[str, float]],
        stream_counts: EventRow,
    ) -> None:
        """Count a result, and publish, save and draw it."""
        self.unknown += result.event["shown"] is None
        if result.is_tested:
            self.score.add(result)
            if not self._has_warned and TRAINED_TRIALS in self.score.list_caveats():
                self._has_warned = True
                self._warn(
                    "trials of the training are shown, so the hit rate is not a result"
                )

        # seconds since the first sample
        onset_s = round(result.window.time_s - (self._start_s or 0.0), 6)
        event = result.event | {
            "onset_s": onset_s,
            "hits": self.score.summarise(),
            "latency_ms": latencies,
            "stream": stream_counts,
        }
        if len(self.first_results) < SHEET_ROWS:
            self.first_results.append(event)
        recorder = self._recorder
        if recorder is not None:
            with self._catch_save_error():
                recorder.add_result(event)
        self._publish(event)
        if self._drawer is not None:
            self._drawer.add(result)

    def summarise_latencies(self) -> dict[str, dict[str, float]]:
        """Return median, 95th percentile and maximum of each stage in ms.

        Empty before the first result, and for a replay at another speed.
        """
        if not self.latencies_ms:
            return {}
        percentiles = np.percentile(self.latencies_ms, (50, 95, 100), axis=0)
        values_of_stages = percentiles.round(2).T.tolist()  # [stages, 3]
        latencies = {}
        for stage, (median, p95, maximum) in zip(STAGES, values_of_stages, strict=True):
            latencies[stage] = {"p50": median, "p95": p95, "max": maximum}
        return latencies

    def describe_stream(self) -> EventRow:
        """Return counts of samples, events and windows, and of losses by reason."""
        return vars(self.counts) | {
            "dropped": dict(self.counts.dropped),
            "decoded": self.decoded,
            "stalls": self.stalls,
        }


@contextmanager
def stop_at_interrupt(should_stop: threading.Event) -> Iterator[None]:
    """Set `should_stop` at the first interrupt, such as Ctrl-C, to end a session.

    A second interrupt of its kind acts as usual. Outside the main thread, handlers are
    not changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        leave_closed_terminal()
        should_stop.set()
        set_handlers({number: handlers[number]})

    handlers = set_handlers(dict.fromkeys(INTERRUPT_SIGNALS, stop))
    try:
        yield
    finally:
        set_handlers(handlers)
