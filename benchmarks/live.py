"""How fast `brainhive live` is: latency by stage, the first picture, memory over an
hour, and with viewers.

The model is that of the demo, the stream its mock at the rate of real time; nothing
else may use the machine. An hour is replayed thirty times as fast.
"""

import asyncio
import io
import json
import multiprocessing
import os
import subprocess
import time
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import psutil
import torch
from harness import CHECKOUT, Bench, main, prepare_command
from PIL import Image

from brainhive_cli.core.launch import Launch
from brainhive_cli.data.signals.cutting import Cutting, Steps
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.signals.windows import Windows
from brainhive_cli.evaluation.live.job import Job, OpenSession
from brainhive_cli.evaluation.live.loop import STAGES, Loop
from brainhive_cli.evaluation.live.recipe import Recipe
from brainhive_cli.reports.live_page import LivePage

TARGETS_MS = {"acquisition": 20.0, "from the window's end": 50.0}
"""Most milliseconds of these stages in 95 % of windows."""
FIRST_S = 10.0
"""Most seconds from the command's start to its first result, of which the window itself
takes one.
"""
MOST_GROWTH = 0.01
"""Share by which memory may grow from the fifth minute of an hour to its end."""
MARKED_S = 300.0
VIEWERS, MOST_SLOWER = 50, 1.5
"""Browsers that look at an hour, and by which factor they may slow the decoding of its
windows.
"""
PEERS, PAUSE_S = 40, 1.0
"""Windows of the bare model, and the pause before each, in which caches cool down as
between windows.
"""


def prepare(on: Bench) -> None:
    """Embed the demo's pictures and train a model of one person, as `--recipe demo`
    does.
    """
    epochs = on.pick(["train.epochs=1"], ["train.epochs=5"], [])
    for words in (
        ["embed", "--recipe", "demo"],
        ["train-align", "--recipe", "demo", "subjects=1", *epochs],
    ):
        subprocess.run(
            **prepare_command(words, on.home),
            cwd=CHECKOUT,
            check=True,
            capture_output=True,
        )


def open_session(on: Bench, *overrides: str) -> OpenSession:
    """Open the demo's stream without drawing."""
    os.environ["BRAINHIVE_HOME"] = str(on.home)
    words = (*overrides, "draw=null", "page=false", "save=false")
    return Job.resolve(Recipe.resolve("live", "demo", {}, words)).open(
        Launch(0, 1, on.device)
    )


def latency(on: Bench) -> None:
    """Decode windows as they come; next to what a bare model and one product with the
    gallery take.
    """
    prepare(on)
    count = on.pick(3, 50, 200)
    session = open_session(on, f"windows={count}")
    windows: list[Trials] = []
    encode = session.decoder.member.encode

    def keep(trials: Trials) -> torch.Tensor:
        windows.append(trials.take(np.arange(1)))
        return encode(trials)

    object.__setattr__(session.decoder.member, "encode", keep)
    loop = Loop(session, lambda event: None, max_windows=count)
    loop.run()

    # the same windows through the bare model, one by one, after a pause as between
    # windows
    gallery = session.decoder.picture_tokens
    bare_ms = []
    for trials in windows[-PEERS:]:
        time.sleep(PAUSE_S)
        start = time.perf_counter()
        tokens = encode(trials)
        torch.nn.functional.cosine_similarity(
            tokens[:, None], gallery[None], dim=2
        ).topk(5)
        bare_ms.append(1000 * (time.perf_counter() - start))
    stages = loop.summarise_latencies()
    for stage in STAGES:
        times = stages[stage]
        peer = float(np.percentile(bare_ms, 95)) if stage == "decoding" else None
        note = f"median {times['p50']:g}, most {times['max']:g}"
        if peer is not None:
            on.show(
                f"{stage}, next to a bare model: 95 % of windows",
                times["p95"],
                peer,
                "ms",
                note=note,
            )
            continue
        target = TARGETS_MS.get(stage)
        on.show(
            f"{stage}: 95 % of windows",
            times["p95"],
            None,
            "ms",
            target,
            at_most=True,
            note=note,
        )
    lost = loop.counts.lost + sum(loop.counts.dropped.values())
    on.show("samples and events lost", lost, unit="", target=0, at_most=True)


def cut(on: Bench) -> None:
    """Cut windows of 63 channels at 1000 Hz, filtered and resampled; next to the same
    sums in numpy.
    """
    from scipy.signal import butter, resample, sosfilt

    channels, rate_hz, seconds = on.pick((4, 250, 8), (63, 1000, 60), (63, 1000, 300))
    names = [f"E{number}" for number in range(channels)]
    samples = np.random.default_rng(0).standard_normal((seconds * rate_hz, channels))
    steps, band_hz = Steps(whiten="no", rate_hz=min(250, rate_hz)), (0.1, 40.0)
    chunk = rate_hz // 50
    onsets = np.arange(1.0, seconds - 2.0)

    def ours() -> None:
        windows = Windows(Cutting(steps, rate_hz), names, band_hz)
        for onset_s in onsets:
            windows.add_event("event", onset_s)
        for start in range(0, len(samples), chunk):
            block = samples[start : start + chunk]
            windows.add_samples(block, (start + np.arange(len(block))) / rate_hz)
            windows.locate_events()
            list(windows.cut_windows())
        assert windows.counts.windows == len(onsets)

    def bare() -> None:
        sections = butter(4, band_hz, "bandpass", fs=rate_hz, output="sos")
        state = np.zeros((len(sections), 2, channels))
        filtered = []
        for start in range(0, len(samples), chunk):
            block, state = sosfilt(
                sections, samples[start : start + chunk], axis=0, zi=state
            )
            filtered.append(block)
        signal = np.concatenate(filtered)
        for onset_s in onsets:
            first = round((onset_s - 0.2) * rate_hz)
            window = signal[first : first + round(1.2 * rate_hz) + 1]
            window = window - window[: round(0.2 * rate_hz) + 1].mean(0)
            resample(
                window.astype(np.float32),
                round(len(window) * steps.rate_hz / rate_hz),
                axis=0,
            )

    what = f"{channels} channels at {rate_hz} Hz: seconds of stream a second"
    on.compare(what, ours, bare, count=seconds, unit="s/s")


def first_picture(on: Bench) -> None:
    """Time the command from its start to the first result and the first drawing, page
    included.
    """
    prepare(on)
    words = ["live", "--recipe", "demo", "--windows", "2", "--lines"]
    times: list[list[float]] = []
    for _ in range(on.rounds):
        start = time.perf_counter()
        started: Any = prepare_command(words, on.home)
        process = subprocess.Popen(
            **started, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        result = json.loads(process.stdout.readline())
        first_s = time.perf_counter() - start
        process.communicate()
        assert process.returncode == 0 and result["kind"] == "result"
        times.append([first_s, time.perf_counter() - start])
    first, whole = np.median(times, axis=0)
    on.show("command to first result", first, unit="s", target=FIRST_S, at_most=True)
    on.show("command to its end, after two windows and a drawing", whole, unit="s")


def hour(on: Bench) -> None:
    """Decode an hour of the mock; memory after five minutes and at its end."""
    prepare(on)
    speed, seconds = on.pick((100, 60), (30, 3600), (30, 3600))
    interval_s = 2.25  # of the 1,600 trials of the demo's person
    session = open_session(
        on, f"source.speed={speed}", f"source.interval_s={interval_s}"
    )
    process, marks = psutil.Process(), list[tuple[float, int]]()

    def remember(event: dict[str, Any]) -> None:
        marks.append((event["onset_s"], process.memory_info().rss))

    loop = Loop(session, remember, max_windows=round(seconds / interval_s))
    loop.run()
    early = next(rss for onset_s, rss in marks if onset_s >= min(MARKED_S, seconds / 4))
    growth = marks[-1][1] / early - 1
    counts = loop.describe_stream()
    note = (
        f"{early / 2**20:.0f} MiB then {marks[-1][1] / 2**20:.0f} MiB; "
        f"{counts['decoded']} windows decoded"
    )
    on.show(
        f"{seconds / 60:g} minutes: growth of memory",
        growth,
        target=MOST_GROWTH,
        at_most=True,
        note=note,
    )
    lost = counts["lost"] + sum(counts["dropped"].values())
    on.show("samples and events lost", lost, target=0, at_most=True)


def view(url: str, count: int, opened: Any) -> None:
    """Look at a page as so many browsers do: all events, and the pictures of the newest
    result.

    Args:
        url: Address of the page.
        count: Number of browsers.
        opened: Semaphore that each of them releases when it sees events.
    """
    host, port, query = urlsplit(url).hostname, urlsplit(url).port, urlsplit(url).query

    async def ask(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(host, port, limit=1 << 22)
        writer.write(
            f"GET {path}{query} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        return reader, writer

    async def load(images: set[str]) -> None:
        with suppress(OSError, EOFError):  # where the page has ended
            for image in images:
                reader, writer = await ask(f"/picture?image={quote(image, safe='')}&")
                await reader.read(1000)
                writer.close()

    async def look() -> None:
        reader, _ = await ask("/events?")
        opened.release()
        loading, shown = asyncio.create_task(load(set())), set[str]()
        while data := await reader.readline():
            if data.startswith(b'data: {"kind": "result"') and loading.done():
                result = json.loads(data[6:])
                before, shown = (
                    shown,
                    {result["shown"], *(best["image"] for best in result["best"])},
                )
                loading = asyncio.create_task(load(shown - before))

    async def look_together() -> None:
        await asyncio.gather(*(look() for _ in range(count)), return_exceptions=True)

    asyncio.run(look_together())


def viewers(on: Bench) -> None:
    """Decode an hour while browsers look at it; next to the same hour without any, in
    turns.
    """
    prepare(on)
    speed, seconds = on.pick((100, 60), (30, 3600), (30, 3600))
    interval_s = 2.25
    pixels = np.random.default_rng(0).integers(0, 255, (192, 192, 3), np.uint8)
    picture = io.BytesIO()
    Image.fromarray(pixels).save(picture, "PNG")

    def decode(count: int, seconds: int) -> tuple[dict[str, float], float, float]:
        """Decode with so many viewers; the latency of decoding, MiB in the end, and
        their growth.
        """
        session = open_session(
            on, f"source.speed={speed}", f"source.interval_s={interval_s}"
        )
        page = LivePage("an hour", lambda image: picture.getvalue())
        url = page.start()
        spawn = multiprocessing.get_context("spawn")
        opened = spawn.Semaphore(0)
        browsers = spawn.Process(target=view, args=(url, count, opened), daemon=True)
        if count:
            browsers.start()
            for _ in range(count):
                opened.acquire()
        process, marks = psutil.Process(), list[tuple[float, int]]()

        def publish(event: dict[str, Any]) -> None:
            page.publish(event)
            marks.append((event["onset_s"], process.memory_info().rss))

        loop = Loop(session, publish, max_windows=round(seconds / interval_s))
        loop.is_timed = True
        loop.run()
        page.stop()
        if count:
            browsers.terminate()
        assert loop.counts.lost + sum(loop.counts.dropped.values()) == 0
        early = next(
            rss for onset_s, rss in marks if onset_s >= min(MARKED_S, seconds / 4)
        )
        times = {
            name: value / speed
            for name, value in loop.summarise_latencies()["decoding"].items()
        }
        return times, marks[-1][1] / 2**20, marks[-1][1] / early - 1

    decode(0, seconds // 10)
    alone, _, growth_alone = decode(0, seconds)
    watched, memory, growth = decode(VIEWERS, seconds)
    what = f"{seconds / 60:g} minutes at {speed} times, {VIEWERS} viewers next to none"
    for name, title in (("p50", "median"), ("p95", "95 % of windows")):
        on.show(
            f"{what}: decoding, {title}",
            watched[name],
            alone[name],
            "ms",
            MOST_SLOWER,
            at_most=True,
        )
    note = f"{memory:.0f} MiB in the end; without viewers {growth_alone:.4f}"
    on.show(
        f"{what}: growth of memory", growth, target=MOST_GROWTH, at_most=True, note=note
    )


if __name__ == "__main__":
    main(__doc__, [latency, cut, first_picture, hour, viewers], {})
