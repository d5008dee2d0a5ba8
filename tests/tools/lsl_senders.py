"""LSL without a network: a configuration of loopback, an amplifier that counts its
samples, and markers.

A process that uses LSL ends by `os._exit`: liblsl may abort when inlets of lost streams
are destroyed.
"""

import random
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CHANNELS = ("Fp1", "OZ", "count", "TRIGGER")


def write_loopback(folder: Path) -> dict[str, str]:
    """Write LSL's configuration for streams of this machine that nobody else sees;
    returns its variable.
    """
    lines = [
        "[ports]",
        "IPv6 = disable",
        f"BasePort = {random.SystemRandom().randrange(18_000, 30_000, 40)}",
    ]
    lines += [
        "[multicast]",
        "ResolveScope = machine",
        "[lab]",
        "KnownPeers = {127.0.0.1}",
    ]
    lines += [f"SessionID = {uuid.uuid4()}", "[log]", "level = -2", ""]
    path = folder / "lsl_api.cfg"
    path.write_text("\n".join(lines))
    return {"LSLAPICFG": str(path)}


class Amplifier:
    """Sender of samples whose channel `count` numbers them; their times are exact, and
    long past.

    Args:
        name: Of the stream.
        channels: Names; empty for none.
        kind: Type of the stream.
        rate_hz: Sampling rate.
        unit: Of all channels.
        age_s: By which sample 0 is older than the outlet, so that samples may be sent
            faster than recorded.
        count: Number of channels without names.
        source_id: By default the name. An inlet whose stream is gone recovers any that
            has name, type and source_id in common, of all sessions on the machine.
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
            self._info.set_channel_types(
                ["stim" if each == "TRIGGER" else "eeg" for each in channels]
            )
            self._info.set_channel_units([unit] * len(channels))
        self.rate_hz, self.channels, self.sent = rate_hz, channels, 0
        self.start_s = local_clock() - age_s
        self.open()

    def open(self) -> None:
        """Make the outlet, as a program does that is started again."""
        from mne_lsl.lsl import StreamOutlet

        self._outlet: Any = StreamOutlet(self._info)

    def close(self) -> None:
        """Take the outlet away, as a program that ends."""
        self._outlet = None

    def time_of(self, sample: float) -> float:
        return self.start_s + sample / self.rate_hz

    def send(
        self,
        stop: int,
        speed: float = 1.0,
        codes: Sequence[int] = (),
        sizes: Sequence[int] = (10,),
    ) -> Iterator[int]:
        """Send samples up to `stop` in chunks, at the rate times `speed`; yields the
        count after each.

        Args:
            stop: Number of the first sample that is not sent.
            speed: Of which the pauses between chunks are shortened.
            codes: [stop] values of the channel TRIGGER; empty for 0.
            sizes: Of the chunks, in turns.
        """
        first, begun_s, turn = self.sent, time.monotonic(), 0
        while self.sent < stop:
            rows = np.arange(self.sent, min(stop, self.sent + sizes[turn % len(sizes)]))
            chunk = np.zeros((len(rows), len(self.channels) or 4), np.float32)
            chunk[:, 0] = np.sin(rows / 50)
            if "count" in self.channels:
                chunk[:, self.channels.index("count")] = rows
            if len(codes):
                chunk[:, self.channels.index("TRIGGER")] = np.asarray(codes)[rows]
            self.sent, turn = int(rows[-1]) + 1, turn + 1
            pause_s = (
                begun_s + (self.sent - first) / self.rate_hz / speed - time.monotonic()
            )
            time.sleep(max(0.0, pause_s))
            if len(rows) == 1:
                self._outlet.push_sample(chunk[0], self.time_of(rows[-1]))
            else:
                self._outlet.push_chunk(chunk, timestamp=self.time_of(rows[-1]))
            yield self.sent


def open_markers(
    name: str = "markers", dtype: str = "string", kind: str = "Markers", width: int = 1
) -> Any:
    """Open an outlet of markers."""
    from mne_lsl.lsl import StreamInfo, StreamOutlet

    return StreamOutlet(StreamInfo(name, kind, width, 0.0, dtype, name))
