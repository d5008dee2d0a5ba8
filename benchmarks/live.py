"""Latency and memory of `brainhive live`, alone and with viewers.

The demo's model decodes its simulated stream. Nothing else may use the machine. An hour
is replayed thirty times as fast.
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

from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.data.signals.cutting import Cutting, Steps
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.signals.windows import Windows
from brainhive_cli.evaluation.live.job import Job, OpenSession
from brainhive_cli.evaluation.live.loop import STAGES, Loop
from brainhive_cli.evaluation.live.recipe import Recipe
from brainhive_cli.reports.pages.live_page import LivePage

TARGETS_MS = {"acquisition": 20.0, "from the window's end": 50.0}
"""Upper limits of the 95th percentile of the windows, keyed by stage."""
FIRST_S = 10.0
"""Upper limit from the start of the command to the first result, with its window of a
second.
"""
MAX_GROWTH = 0.01
"""Upper limit of the growth of memory from the fifth minute of an hour to its end."""
EARLY_S = 300.0
INTERVAL_S = 2.25
"""Interval of the pictures. The demo's subject has 1,600 trials in an hour."""
N_VIEWERS = 50
MAX_SLOWDOWN = 1.5
"""Upper limit of the factor by which the viewers slow the decoding."""
N_PEER_WINDOWS = 40
PAUSE_S = 1.0
"""Pause before each window of the bare model, in which caches cool down."""


def prepare_demo(bench: Bench) -> None:
    """Train a model of a subject of the demo."""
    epochs = bench.pick(["train.epochs=1"], ["train.epochs=5"], [])
    training = ["train-align", "--recipe", "demo", "subjects=1"] + epochs
    for arguments in (["embed", "--recipe", "demo"], training):
        command = prepare_command(arguments, bench.home)
        subprocess.run(**command, cwd=CHECKOUT, check=True, capture_output=True)


def open_session(bench: Bench, *overrides: str) -> OpenSession:
    """Open the demo's stream without drawings, page or files."""
    os.environ["BRAINHIVE_HOME"] = str(bench.home)
    settings = ["draw=null", "page=false", "save=false"]
    recipe = Recipe.resolve("live", "demo", {}, list(overrides) + settings)
    return Job.resolve(recipe).open(Launch(0, 1, bench.device))


def latency(bench: Bench) -> None:
    """Measure the latency of each stage, and of decoding with a bare model."""
    prepare_demo(bench)
    count = bench.pick(3, 50, 200)
    session = open_session(bench, f"windows={count}")
    windows: list[Trials] = []
    encode = session.decoder.model.encode

    def keep(trials: Trials) -> torch.Tensor:
        windows.append(trials.take(np.arange(1)))
        return encode(trials)

    object.__setattr__(session.decoder.model, "encode", keep)
    loop = Loop(session, lambda event: None, max_windows=count)
    loop.run()

    # decode the same windows with the bare model, with pauses as between windows
    gallery = session.decoder.picture_tokens
    bare_ms = []
    for trials in windows[-N_PEER_WINDOWS:]:
        time.sleep(PAUSE_S)
        start = time.perf_counter()
        tokens = encode(trials)
        scores = torch.nn.functional.cosine_similarity(
            tokens[:, None], gallery[None], dim=2
        )
        scores.topk(5)
        bare_ms.append(1000 * (time.perf_counter() - start))
    latencies = loop.summarise_latencies()
    for stage in STAGES:
        times = latencies[stage]
        label = f"{stage}: 95 % of windows"
        peer = None
        if stage == "decoding":
            label = f"{stage}, next to a bare model: 95 % of windows"
            peer = float(np.percentile(bare_ms, 95))
        bench.show(
            label,
            times["p95"],
            peer,
            unit="ms",
            target=TARGETS_MS.get(stage),
            at_most=True,
            note=f"median {times['p50']:g}, most {times['max']:g}",
        )
    lost = loop.counts.lost + sum(loop.counts.dropped.values())
    bench.show("samples and events lost", lost, unit="", target=0, at_most=True)


def cut(bench: Bench) -> None:
    """Cut filtered and resampled windows, next to the same computation in NumPy."""
    from scipy.signal import butter, resample, sosfilt

    channels, rate_hz, seconds = bench.pick(
        (4, 250, 8), (63, 1000, 60), (63, 1000, 300)
    )
    names = [f"E{number}" for number in range(channels)]
    samples = np.random.default_rng(0).standard_normal((seconds * rate_hz, channels))
    steps = Steps(whiten="no", rate_hz=min(250, rate_hz))
    band_hz = (0.1, 40.0)
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

    def cut_bare() -> None:
        sections = butter(4, band_hz, "bandpass", fs=rate_hz, output="sos")
        state = np.zeros((len(sections), 2, channels))
        filtered = []
        for start in range(0, len(samples), chunk):
            block = samples[start : start + chunk]
            block, state = sosfilt(sections, block, axis=0, zi=state)
            filtered.append(block)
        signal = np.concatenate(filtered)
        for onset_s in onsets:
            first_row = round((onset_s - 0.2) * rate_hz)
            window = signal[first_row : first_row + round(1.2 * rate_hz) + 1]
            window = window - window[: round(0.2 * rate_hz) + 1].mean(0)
            n_samples = round(len(window) * steps.rate_hz / rate_hz)
            resample(window.astype(np.float32), n_samples, axis=0)

    label = f"{channels} channels at {rate_hz} Hz: seconds of stream a second"
    bench.compare(label, ours, cut_bare, count=seconds, unit="s/s")


def first_picture(bench: Bench) -> None:
    """Time the command with its page until its first result, and until its end."""
    prepare_demo(bench)
    arguments = ["live", "--recipe", "demo", "--windows", "2", "--lines"]
    times: list[list[float]] = []
    for _ in range(bench.rounds):
        start = time.perf_counter()
        command = prepare_command(arguments, bench.home)
        process = subprocess.Popen(
            **command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        result = json.loads(process.stdout.readline())
        first_s = time.perf_counter() - start
        process.communicate()
        assert process.returncode == 0 and result["kind"] == "result"
        times.append([first_s, time.perf_counter() - start])
    first_s, end_s = np.median(times, axis=0)
    bench.show(
        "command to first result", first_s, unit="s", target=FIRST_S, at_most=True
    )
    bench.show("command to its end, after two windows and a drawing", end_s, unit="s")


def open_hour(bench: Bench, speed: int) -> OpenSession:
    """Open the demo's stream at a multiple of real time."""
    return open_session(
        bench, f"source.speed={speed}", f"source.interval_s={INTERVAL_S}"
    )


def find_early_memory(memory: list[tuple[float, int]], seconds: int) -> int:
    """Find the memory after five minutes, or after a quarter of a shorter stream."""
    limit_s = min(EARLY_S, seconds / 4)
    for onset_s, resident in memory:
        if onset_s >= limit_s:
            return resident
    raise ValueError(f"no window after {limit_s:g} s")


def hour(bench: Bench) -> None:
    """Decode an hour, and measure the growth of memory after five minutes."""
    prepare_demo(bench)
    speed, seconds = bench.pick((100, 60), (30, 3600), (30, 3600))
    session = open_hour(bench, speed)
    process = psutil.Process()
    memory: list[tuple[float, int]] = []

    def record(event: dict[str, Any]) -> None:
        memory.append((event["onset_s"], process.memory_info().rss))

    loop = Loop(session, record, max_windows=round(seconds / INTERVAL_S))
    loop.run()
    early = find_early_memory(memory, seconds)
    _, late = memory[-1]
    growth = late / early - 1
    counts = loop.describe_stream()
    note = (
        f"{early / 2**20:.0f} MiB then {late / 2**20:.0f} MiB; "
        f"{counts['decoded']} windows decoded"
    )
    bench.show(
        f"{seconds / 60:g} minutes: growth of memory",
        growth,
        target=MAX_GROWTH,
        at_most=True,
        note=note,
    )
    lost = counts["lost"] + sum(counts["dropped"].values())
    bench.show("samples and events lost", lost, target=0, at_most=True)


def view(url: str, count: int, semaphore: Any) -> None:
    """Read a page as browsers do: all events, and the pictures of the newest result.

    Args:
        url: Address of the page.
        count: Number of browsers.
        semaphore: Semaphore that each browser releases when it receives events.
    """
    address = urlsplit(url)
    host = address.hostname
    port = address.port

    async def ask(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(host, port, limit=1 << 22)
        target = f"{path}{address.query}"
        request = f"GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"
        writer.write(request.encode())
        await reader.readuntil(b"\r\n\r\n")
        return reader, writer

    async def load(images: set[str]) -> None:
        with suppress(OSError, EOFError):  # the page has ended
            for image in images:
                reader, writer = await ask(f"/picture?image={quote(image, safe='')}&")
                await reader.read(1000)
                writer.close()

    async def look() -> None:
        reader, _ = await ask("/events?")
        semaphore.release()
        loading = asyncio.create_task(load(set()))
        images: set[str] = set()
        while data := await reader.readline():
            if data.startswith(b'data: {"kind": "result"') and loading.done():
                result = json.loads(data[6:])
                old_images = images
                images = {candidate["image"] for candidate in result["best"]}
                images.add(result["shown"])
                loading = asyncio.create_task(load(images - old_images))

    async def look_together() -> None:
        await asyncio.gather(*(look() for _ in range(count)), return_exceptions=True)

    asyncio.run(look_together())


def viewers(bench: Bench) -> None:
    """Decode an hour with viewers, next to the same hour without."""
    prepare_demo(bench)
    speed, seconds = bench.pick((100, 60), (30, 3600), (30, 3600))
    pixels = np.random.default_rng(0).integers(0, 255, (192, 192, 3), np.uint8)
    picture = io.BytesIO()
    Image.fromarray(pixels).save(picture, "PNG")

    def decode(count: int, seconds: int) -> tuple[dict[str, float], float, float]:
        """Return latencies of decoding, the last memory in MiB, and its growth."""
        session = open_hour(bench, speed)
        page = LivePage("an hour", lambda image: picture.getvalue())
        url = page.start()
        spawn = multiprocessing.get_context("spawn")
        semaphore = spawn.Semaphore(0)
        browsers = spawn.Process(target=view, args=(url, count, semaphore), daemon=True)
        if count:
            browsers.start()
            for _ in range(count):
                semaphore.acquire()
        process = psutil.Process()
        memory: list[tuple[float, int]] = []

        def publish(event: dict[str, Any]) -> None:
            page.publish(event)
            memory.append((event["onset_s"], process.memory_info().rss))

        loop = Loop(session, publish, max_windows=round(seconds / INTERVAL_S))
        loop.is_timed = True
        loop.run()
        page.stop()
        if count:
            browsers.terminate()
        assert loop.counts.lost + sum(loop.counts.dropped.values()) == 0
        _, late = memory[-1]
        growth = late / find_early_memory(memory, seconds) - 1
        latencies = loop.summarise_latencies()["decoding"]
        times = {name: value / speed for name, value in latencies.items()}
        return times, late / 2**20, growth

    decode(0, seconds // 10)
    times_alone, _, growth_alone = decode(0, seconds)
    times, memory_mib, growth = decode(N_VIEWERS, seconds)
    label = (
        f"{seconds / 60:g} minutes at {speed} times, {N_VIEWERS} viewers next to none"
    )
    for name, title in (("p50", "median"), ("p95", "95 % of windows")):
        bench.show(
            f"{label}: decoding, {title}",
            times[name],
            times_alone[name],
            unit="ms",
            target=MAX_SLOWDOWN,
            at_most=True,
        )
    note = f"{memory_mib:.0f} MiB in the end; without viewers {growth_alone:.4f}"
    bench.show(
        f"{label}: growth of memory", growth, target=MAX_GROWTH, at_most=True, note=note
    )


if __name__ == "__main__":
    main(__doc__, [latency, cut, first_picture, hour, viewers], {})
