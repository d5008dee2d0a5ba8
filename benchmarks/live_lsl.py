"""How late samples of LSL are read, next to a bare loop of mne-lsl's inlet: from push
to `read`'s return.

An amplifier of 64 channels sends chunks of 10 samples at 1000 Hz in a process of its
own, over loopback. Its first channel is LSL's clock when the chunk is pushed, the
second one numbers the samples.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from harness import CHECKOUT, Bench, main

RATE_HZ, CHANNELS, CHUNK = 1000, 64, 10
MOST_P95_MS, MOST_MS = 20.0, 100.0
"""Latencies that a session of an hour may have."""


def send(seconds: float) -> None:
    """Send samples once somebody reads them, and a second more."""
    from mne_lsl.lsl import StreamInfo, StreamOutlet, local_clock

    info = StreamInfo("benchmark", "EEG", CHANNELS, RATE_HZ, "float64", "benchmark")
    info.set_channel_names([f"channel {number}" for number in range(CHANNELS)])
    outlet = StreamOutlet(info, chunk_size=CHUNK)
    outlet.wait_for_consumers(60)
    time.sleep(1.5)  # an inlet is ready a little after it is connected
    start_s = local_clock()
    for first in range(0, round((seconds + 1) * RATE_HZ), CHUNK):
        samples = np.zeros((CHUNK, CHANNELS))
        samples[:, 1] = np.arange(first, first + CHUNK)
        time.sleep(max(0.0, start_s + (first + CHUNK) / RATE_HZ - local_clock()))
        samples[:, 0] = pushed_s = local_clock()
        outlet.push_chunk(samples, timestamp=pushed_s)


def read_ours() -> Iterator[Any]:
    """Yield samples [n, C] as Brainhive's stream reads them."""
    from brainhive_cli.data.streams import StreamRequest
    from brainhive_cli.data.streams.lsl import Config

    def open_recording() -> Any:
        raise NotImplementedError

    request = StreamRequest((), "eeg", "µV", RATE_HZ, (0.0, 1.0), (), open_recording)
    stream = Config(marker_channel="channel 2").build(request)
    while (chunk := stream.read(0.5)) is not None:
        yield chunk.samples


def read_bare() -> Iterator[Any]:
    """Yield samples [n, C] as an inlet gives them: one that is waited for, then the
    rest.
    """
    from mne_lsl.lsl import StreamInlet, resolve_streams

    (info,) = resolve_streams(timeout=60, name="benchmark")
    inlet = StreamInlet(info, processing_flags="all")
    inlet.open_stream(10)
    while True:
        block, _ = inlet.pull_chunk(timeout=0.5, max_samples=1)
        first = block.copy()
        rest, _ = inlet.pull_chunk(timeout=0.0, max_samples=1024)
        yield np.concatenate([first, rest])


def receive(side: str, seconds: float, file: Path) -> None:
    """Read for some seconds, and write the latency of each chunk in ms, losses, and
    processor time.
    """
    from mne_lsl.lsl import local_clock

    late_ms, numbers, cpu_s = [], [], 0.0
    for samples in read_ours() if side == "ours" else read_bare():
        if not len(samples):
            continue
        late_ms.append(1000 * (local_clock() - samples[-1, 0]))
        cpu_s = cpu_s or time.process_time()
        numbers += samples[:, 1].tolist()
        if len(numbers) >= seconds * RATE_HZ:
            break
    lost = int(numbers[-1] - numbers[0]) + 1 - len(numbers)
    spent = (time.process_time() - cpu_s) / seconds
    file.write_text(
        json.dumps(
            {"late_ms": late_ms, "lost": lost, "samples": len(numbers), "cpu": spent}
        )
    )


def measure(on: Bench, side: str, seconds: float) -> dict[str, Any]:
    """Send and receive in two processes that nobody else sees."""
    folder = on.make_folder()
    lines = [
        "[ports]",
        "IPv6 = disable",
        "[multicast]",
        "ResolveScope = machine",
        "[lab]",
    ]
    lines += [
        "KnownPeers = {127.0.0.1}",
        f"SessionID = {folder.name}-{os.getpid()}",
        "[log]",
        "level = -2",
        "",
    ]
    (folder / "lsl_api.cfg").write_text("\n".join(lines))
    path = os.pathsep.join(
        [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "LSLAPICFG": str(folder / "lsl_api.cfg"),
    }
    seen = folder / "seen.json"
    roles = (["send"], [side, str(seen)])
    sender, receiver = (
        subprocess.Popen(
            [sys.executable, __file__, "--role", *role, str(seconds)], env=environment
        )
        for role in roles
    )
    try:
        if receiver.wait(timeout=seconds + 120):
            raise SystemExit(f"{side}: the receiver failed")
    finally:
        for process in (sender, receiver):
            process.kill()
            process.wait()
    return json.loads(seen.read_text())  # type: ignore[no-any-return]


def acquisition(on: Bench) -> None:
    """Compare latencies with a bare loop's, in turns; they are those of all turns
    together.
    """
    seconds = on.pick(1, 10, 10)
    turns: dict[str, list[dict[str, Any]]] = {side: [] for side in ("ours", "bare")}
    for _ in range(1 if on.size == "tiny" else on.rounds):
        for side, results in turns.items():
            results.append(measure(on, side, seconds))
    late = {
        side: np.concatenate([each["late_ms"] for each in results])
        for side, results in turns.items()
    }
    for name, share in (("p50", 50), ("p95", 95), ("max", 100)):
        ours, bare = (
            float(np.percentile(late[side], share)) for side in ("ours", "bare")
        )
        on.show(f"push to read, {name}: of a bare inlet", ours, bare, unit="ms")
        if share > 50:
            limit = MOST_P95_MS if share == 95 else MOST_MS
            on.show(
                f"push to read, {name}", ours, unit="ms", target=limit, at_most=True
            )
    ours, bare = (
        100 * float(np.mean([each["cpu"] for each in turns[side]]))
        for side in ("ours", "bare")
    )
    on.show("share of a core: of a bare inlet", ours, bare, unit="%")
    lost, count = (
        sum(each[name] for each in turns["ours"]) for name in ("lost", "samples")
    )
    on.show(f"lost samples of {count:,}", lost, target=0, at_most=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--role"]:
        role, *rest = sys.argv[2:]
        if role == "send":
            send(float(rest[0]))
        else:
            receive(role, float(rest[1]), Path(rest[0]))
        os._exit(0)  # liblsl may abort when inlets of lost streams are destroyed
    main(__doc__, [acquisition], {})
