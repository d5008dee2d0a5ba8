"""Compare reconstructions with their stimuli, batch by batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.media.media_files import to_media
from brainhive_cli.measurement.metrics import MetricPart
from brainhive_cli.measurement.metrics.image import prepare
from brainhive_cli.measurement.metrics.video import FRAME_PX

READERS = 4
"""Threads that decode media while others are compared."""
Open = Callable[[], Any]
"""Opens a picture or a clip."""
Features = Callable[..., Tensor]


@dataclass(frozen=True)
class Scorer:
    """Stimuli and the metrics by which reconstructions are compared with them.

    Attributes:
        parts: The metrics, by name.
        protocol: How media are sized.
        batch_size: Media compared at once.
        device: Where networks compute.
        stimuli: N pictures or clips.
        frames: Frames of the stimuli where they are clips; None of pictures.
    """

    parts: Mapping[str, MetricPart]
    protocol: str
    batch_size: int
    device: torch.device
    stimuli: Sequence[Open]
    frames: int | None = None

    @cached_property
    def seen(self) -> dict[Features, Tensor]:
        """Features [N, …] of the stimuli, once for all that they are compared with."""
        batches = list(self._features(self.stimuli))
        return {function: torch.cat([batch[function] for batch in batches]) for function in batches[0]}

    def score(
        self,
        reconstructions: Sequence[Open],
        own: NDArray[np.int64],
        among: NDArray[np.int64],
        bar: console.Bar,
    ) -> dict[str, NDArray[np.float64]]:
        """Compare reconstructions with their stimuli.

        Args:
            reconstructions: B pictures or clips.
            own: The stimulus of each, [B].
            among: The stimuli that two-way identification chooses from, sorted, `own` among them.
            bar: Advanced by each batch.

        Returns:
            Each metric's values, [B].
        """
        own_row, row_among = (torch.from_numpy(rows) for rows in (own, np.searchsorted(among, own)))
        pools = {
            part.features: self.seen[part.features][among]
            for part in self.parts.values()
            if part.is_identification and len(among) < len(self.seen[part.features])
        }
        values: dict[str, list[Tensor]] = {}
        start = 0
        for made in self._features(reconstructions):
            stop = min(start + self.batch_size, len(reconstructions))
            for name, part in self.parts.items():
                if not part.is_identification:
                    found = part.compare(self.seen[part.features], made[part.features], own_row[start:stop])
                elif len(among) > 1:  # one item cannot be distinguished from others
                    pool = pools.get(part.features, self.seen[part.features])
                    found = part.compare(pool, made[part.features], row_among[start:stop])
                else:
                    continue
                values.setdefault(name, []).append(found)
            bar.advance(stop - start)
            start = stop
        return {name: torch.cat(found).numpy() for name, found in values.items()}

    def describe(self) -> dict[str, NDArray[np.float64]]:
        """Values [N] of the stimuli themselves, by the metrics that describe media by themselves."""
        rows = torch.arange(len(self.stimuli))
        parts = {name: part for name, part in self.parts.items() if part.is_of_one}
        seen = {name: self.seen[part.features] for name, part in parts.items()}
        return {name: part.compare(seen[name], seen[name], rows).numpy() for name, part in parts.items()}

    def _features(self, media: Sequence[Open]) -> Iterator[dict[Features, Tensor]]:
        """Decode media and compute all features, each once, batch by batch."""
        functions = {part.features: part.takes_originals for part in self.parts.values()}
        with ThreadPoolExecutor(READERS) as readers:
            for start in range(0, len(media), self.batch_size):
                some = media[start : start + self.batch_size]
                opened = list(readers.map(lambda open_one: open_one(), some))
                sized = self._sized(opened)
                yield {
                    function: function(opened if takes_originals else sized)
                    for function, takes_originals in functions.items()
                }

    def _sized(self, opened: Sequence[Any]) -> Tensor:
        """Bring media to the protocol's size, [B, 3, P, P] or [B, F, 3, P, P] in 0..1, on the device.

        Raises:
            BrainhiveError: if clips differ in their number of frames, or some media are pictures.
        """
        sized = []
        for media in map(to_media, opened):
            if media.ndim == 3 and self.frames is not None:
                media = media.expand(self.frames, -1, -1, -1)  # a keyframe, held still
            if media.ndim == 4:
                sized.append(prepare(media, self.protocol, FRAME_PX))
            else:
                sized.append(prepare(media[None], self.protocol)[0])
        if len(shapes := {tuple(each.shape) for each in sized}) > 1:
            raise BrainhiveError(
                f"pictures and clips cannot be compared that differ in shape: {sorted(shapes)}",
                "bring all clips to one number of frames",
            )
        return torch.stack(sized).to(self.device)
