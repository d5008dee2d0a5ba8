"""Latency of LSL samples from push to read, next to a bare loop of mne-lsl's inlet.

A simulated amplifier of 64 channels sends chunks of 10 samples at 1000 Hz from its own
process, over loopback. Its first channel is LSL's clock at the push of the chunk. The
second channel numbers the samples.
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

RATE_HZ = 1000
CHANNELS = 64
SAMPLES_PER_CHUNK = 10
LIMITS_MS = {"p95": 20.0, "max": 100.0}
"""Latencies that a session of an hour may have."""


def send(seconds: float) -> None:
    """Send samples for the time and another second, once an inlet is connected."""
    from mne_lsl.lsl import StreamInfo, StreamOutlet, local_clock

    info = StreamInfo("benchmark", "EEG", CHANNELS, RATE_HZ, "float64", "benchmark")
    info.set_channel_names([f"channel {number}" for number in range(CHANNELS)])
    outlet = StreamOutlet(info, chunk_size=SAMPLES_PER_CHUNK)
    outlet.wait_for_consumers(60)
    time.sleep(1.5)  # an inlet is ready a little after it is connected
    start_s = local_clock()
    for number in range(0, round((seconds + 1) * RATE_HZ), SAMPLES_PER_CHUNK):
        end = number + SAMPLES_PER_CHUNK
        samples = np.zeros((SAMPLES_PER_CHUNK, CHANNELS))
        samples[:, 1] = np.arange(number, end)
        time.sleep(max(0.0, start_s + end / RATE_HZ - local_clock()))
        push_time_s = local_clock()
        samples[:, 0] = push_time_s
        outlet.push_chunk(samples, timestamp=push_time_s)


def read_ours() -> Iterator[Any]:
    """Yield samples [T, C] that Brainhive's stream reads."""
    from brainhive_cli.data.streams import StreamRequest
    from brainhive_cli.data.streams.lsl import Config

    def open_recording() -> Any:
        raise NotImplementedError

    request = StreamRequest((), "eeg", "µV", RATE_HZ, (0.0, 1.0), (), open_recording)
    stream = Config(marker_channel="channel 2").build(request)
    while (chunk := stream.read(0.5)) is not None:
        yield chunk.samples


def read_bare() -> Iterator[Any]:
    """Yield samples [T, C] of an inlet, which waits for a sample, then takes all."""
    from mne_lsl.lsl import StreamInlet, resolve_streams

    info = resolve_streams(timeout=60, name="benchmark")[0]
    inlet = StreamInlet(info, processing_flags="all")
    inlet.open_stream(10)
    while True:
        sample, _ = inlet.pull_chunk(timeout=0.5, max_samples=1)
        sample = sample.copy()
        chunk, _ = inlet.pull_chunk(timeout=0.0, max_samples=1024)
        yield np.concatenate([sample, chunk])


def receive(reader: str, seconds: float, path: Path) -> None:
    """Read samples, and write latencies, losses and processor time as JSON.

    The reader is "ours" or "bare".
    """
    from mne_lsl.lsl import local_clock

    latencies_ms = []
    numbers: list[float] = []
    start_cpu_s = 0.0
    for samples in read_ours() if reader == "ours" else read_bare():
        if not len(samples):
            continue
        latencies_ms.append(1000 * (local_clock() - samples[-1, 0]))
        if not numbers:
            start_cpu_s = time.process_time()
        numbers += samples[:, 1].tolist()
        if len(numbers) >= seconds * RATE_HZ:
            break
    result = {
        "latencies_ms": latencies_ms,
        "lost": int(numbers[-1] - numbers[0]) + 1 - len(numbers),
        "samples": len(numbers),
        "cpu_share": (time.process_time() - start_cpu_s) / seconds,
    }
    path.write_text(json.dumps(result))


def measure(bench: Bench, reader: str, seconds: float) -> dict[str, Any]:
    """Send and receive in two processes, and return the result of `receive`."""
    folder = bench.make_folder()
    # hide the stream from other programs
    config = f"""[ports]
IPv6 = disable
[multicast]
ResolveScope = machine
[lab]
KnownPeers = {{127.0.0.1}}
SessionID = {folder.name}-{os.getpid()}
[log]
level = -2
"""
    (folder / "lsl_api.cfg").write_text(config)
    python_path = [str(CHECKOUT)]
    if os.environ.get("PYTHONPATH"):
        python_path.append(os.environ["PYTHONPATH"])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(python_path),
        "LSLAPICFG": str(folder / "lsl_api.cfg"),
    }
    path = folder / "latencies.json"
    command = [sys.executable, __file__, "--role"]
    sender = subprocess.Popen(command + ["send", str(seconds)], env=environment)
    receiver = subprocess.Popen(
        command + [reader, str(seconds), str(path)], env=environment
    )
    try:
        if receiver.wait(timeout=seconds + 120):
            raise SystemExit(f"{reader}: the receiver failed")
    finally:
        for process in (sender, receiver):
            process.kill()
            process.wait()
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def acquisition(bench: Bench) -> None:
    """Compare the latencies of all rounds with a bare loop, in turns."""
    seconds = bench.pick(1, 10, 10)
    our_results = []
    bare_results = []
    for _ in range(1 if bench.size == "tiny" else bench.rounds):
        our_results.append(measure(bench, "ours", seconds))
        bare_results.append(measure(bench, "bare", seconds))

    our_latencies = np.concatenate([result["latencies_ms"] for result in our_results])
    bare_latencies = np.concatenate([result["latencies_ms"] for result in bare_results])
    for name, percentile in (("p50", 50), ("p95", 95), ("max", 100)):
        ours = float(np.percentile(our_latencies, percentile))
        bare = float(np.percentile(bare_latencies, percentile))
        bench.show(f"push to read, {name}: of a bare inlet", ours, bare, unit="ms")
        if name in LIMITS_MS:
            bench.show(
                f"push to read, {name}",
                ours,
                unit="ms",
                target=LIMITS_MS[name],
                at_most=True,
            )

    ours = 100 * float(np.mean([result["cpu_share"] for result in our_results]))
    bare = 100 * float(np.mean([result["cpu_share"] for result in bare_results]))
    bench.show("share of a core: of a bare inlet", ours, bare, unit="%")
    n_lost = sum(result["lost"] for result in our_results)
    n_samples = sum(result["samples"] for result in our_results)
    bench.show(f"lost samples of {n_samples:,}", n_lost, target=0, at_most=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--role"]:
        role, duration = sys.argv[2:4]
        if role == "send":
            send(float(duration))
        else:
            receive(role, float(duration), Path(sys.argv[4]))
        os._exit(0)  # liblsl may abort when inlets of lost streams are destroyed
    main(__doc__, [acquisition], {})
