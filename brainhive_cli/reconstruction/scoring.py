"""Compare reconstructions with their stimuli, batch by batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.media_files import to_media
from brainhive_cli.metrics.image import prepare
from brainhive_cli.metrics.part import MetricPart

READERS = 4
"""Threads that decode media while others are compared."""
Open = Callable[[], Any]
"""Opens a picture or a clip."""


class Batch(NamedTuple):
    """Some media.

    Attributes:
        originals: As they were opened.
        sized: At the protocol's size, [B, 3, P, P] or [B, F, 3, P, P] in 0..1.
    """

    originals: Sequence[Any]
    sized: Tensor


@dataclass(frozen=True)
class Scorer:
    """Stimuli and the metrics by which reconstructions are compared with them.

    Attributes:
        parts: The metrics, by name.
        protocol: How media are sized.
        batch_size: Media compared at once.
        device: Where networks compute.
        seen: Features [N, …] of the N stimuli, by the function that gives them.
    """

    parts: Mapping[str, MetricPart]
    protocol: str
    batch_size: int
    device: torch.device
    seen: Mapping[Callable[..., Tensor], Tensor]

    @classmethod
    def of(
        cls,
        parts: Mapping[str, MetricPart],
        protocol: str,
        batch_size: int,
        device: torch.device,
        stimuli: Sequence[Open],
    ) -> Self:
        """Compute the features of the stimuli, once for all that they will be compared with."""
        empty = cls(parts, protocol, batch_size, device, {})
        batches = [empty.features(batch) for batch in empty.batches(stimuli)]
        return cls(
            parts,
            protocol,
            batch_size,
            device,
            {function: torch.cat([batch[function] for batch in batches]) for function in batches[0]},
        )

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
        for batch in self.batches(reconstructions):
            stop = start + len(batch.originals)
            made = self.features(batch)
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

    def batches(self, media: Sequence[Open]) -> Iterator[Batch]:
        """Decode media and bring them to the protocol's size, batch by batch."""
        with ThreadPoolExecutor(READERS) as readers:
            for start in range(0, len(media), self.batch_size):
                opened = list(
                    readers.map(lambda open_one: open_one(), media[start : start + self.batch_size])
                )
                yield Batch(opened, self._together([self._sized(each) for each in opened]))

    def _together(self, sized: Sequence[Tensor]) -> Tensor:
        """Stack media onto the device.

        Raises:
            BrainhiveError: if clips differ in their number of frames, or some media are pictures.
        """
        shapes = {tuple(each.shape) for each in sized}
        if len(shapes) > 1:
            raise BrainhiveError(
                f"pictures and clips cannot be compared that differ in shape: {sorted(shapes)}",
                "bring all clips to one number of frames",
            )
        return torch.stack([*sized]).to(self.device)

    def features(self, batch: Batch) -> dict[Callable[..., Tensor], Tensor]:
        """Compute all features of a batch, each once."""
        functions = {part.features: part.takes_originals for part in self.parts.values()}
        return {
            function: function(batch.originals if takes_originals else batch.sized)
            for function, takes_originals in functions.items()
        }

    def _sized(self, opened: Any) -> Tensor:
        media = to_media(opened)
        sized = prepare(media if media.ndim == 4 else media[None], self.protocol)
        return sized if media.ndim == 4 else sized[0]
