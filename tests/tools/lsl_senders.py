"""Senders of LSL streams on this machine, without a network.

A process that uses LSL must end by `os._exit`, as liblsl may abort when it destroys
inlets of lost streams.
"""

import random
import time
import uuid
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

CHANNELS = ("Fp1", "OZ", "count", "TRIGGER")


def write_loopback(folder: Path) -> dict[str, str]:
    """Write LSL's configuration for private streams, and return its variable."""
    port = random.SystemRandom().randrange(18_000, 30_000, 40)
    lines = ["[ports]", "IPv6 = disable", f"BasePort = {port}"]
    lines += ["[multicast]", "ResolveScope = machine"]
    lines += ["[lab]", "KnownPeers = {127.0.0.1}", f"SessionID = {uuid.uuid4()}"]
    lines += ["[log]", "level = -2", ""]
    path = folder / "lsl_api.cfg"
    path.write_text("\n".join(lines))
    return {"LSLAPICFG": str(path)}


class Amplifier:
    """Sender of samples with exact times in the past.

    The channel `count` holds the number of each sample.

    Args:
        name: Name of the stream.
        channels: Names of the channels, or empty.
        kind: Type of the stream.
        rate_hz: Sampling rate.
        unit: Unit of all channels.
        age_s: Age of sample 0 at the start. It allows sending faster than recording.
        count: Number of channels without names.
        source_id: Source id, by default the name. An inlet of a lost stream connects to
            any stream on the machine with its name, type and source id.
    """

    def __init__(
        self,
        name: str = "amp",
        channels: Sequence[str] = CHANNELS,
        kind: str = "EEG",
        rate_hz: float = 1000.0,
        unit: str = "microvolts",
        age_s: float = 20.0,
        count: int = len(CHANNELS),
        source_id: str = "",
    ) -> None:
        from mne_lsl.lsl import StreamInfo, local_clock

        self._info = StreamInfo(
            name, kind, len(channels) or count, rate_hz, "float32", source_id or name
        )
        if channels:
            self._info.set_channel_names(list(channels))
            types = ["stim" if name == "TRIGGER" else "eeg" for name in channels]
            self._info.set_channel_types(types)
            self._info.set_channel_units([unit] * len(channels))
        self.rate_hz, self.channels, self.sent = rate_hz, channels, 0
        self.start_s = local_clock() - age_s
        self.open()

    def open(self) -> None:
        """Make the outlet, as a program that starts."""
        from mne_lsl.lsl import StreamOutlet

        self._outlet: Any = StreamOutlet(self._info)

    def close(self) -> None:
        """Remove the outlet, as a program that ends."""
        self._outlet = None

    def compute_time(self, sample: float) -> float:
        return self.start_s + sample / self.rate_hz

    def send(
        self,
        stop: int,
        speed: float = 1.0,
        codes: Sequence[int] = (),
        sizes: Sequence[int] = (10,),
    ) -> Iterator[int]:
        """Send samples in chunks, and yield the number of samples after each chunk.

        Args:
            stop: Number of the first sample that is not sent.
            speed: Factor of the rate.
            codes: Values [stop] of the channel TRIGGER, or empty for 0.
            sizes: Sizes of the chunks, in turn.
        """
        first_sample, started_s = self.sent, time.monotonic()
        chunk_sizes = cycle(sizes)
        while self.sent < stop:
            rows = np.arange(self.sent, min(stop, self.sent + next(chunk_sizes)))
            chunk = np.zeros((len(rows), len(self.channels) or 4), np.float32)
            chunk[:, 0] = np.sin(rows / 50)
            if "count" in self.channels:
                chunk[:, self.channels.index("count")] = rows
            if len(codes):
                chunk[:, self.channels.index("TRIGGER")] = np.asarray(codes)[rows]
            self.sent = int(rows[-1]) + 1
            duration_s = (self.sent - first_sample) / self.rate_hz / speed
            time.sleep(max(0.0, started_s + duration_s - time.monotonic()))
            if len(rows) == 1:
                self._outlet.push_sample(chunk[0], self.compute_time(rows[-1]))
            else:
                self._outlet.push_chunk(chunk, timestamp=self.compute_time(rows[-1]))
            yield self.sent


def open_markers(
    name: str = "markers", dtype: str = "string", kind: str = "Markers", width: int = 1
) -> Any:
    """Open an outlet of markers."""
    from mne_lsl.lsl import StreamInfo, StreamOutlet

    return StreamOutlet(StreamInfo(name, kind, width, 0.0, dtype, name))
