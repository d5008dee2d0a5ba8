"""How alike reconstructions and their stimuli are, batch by batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from brainhive_cli.core import console
from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.encoder_groups import encode
from brainhive_cli.encoders import EncoderConfig
from brainhive_cli.metrics import image as image_metrics
from brainhive_cli.metrics.networks import FEATURE_METRICS, NETWORKS

PIXEL_METRICS = {"pixcorr": image_metrics.pixcorr, "ssim": image_metrics.ssim}
METRICS = (*PIXEL_METRICS, *FEATURE_METRICS)
READERS = 4
"""Threads that decode pictures, beside the one that compares them."""

Open = Callable[[], Image.Image]


class Views(NamedTuple):
    """Pictures of one batch.

    Attributes:
        pictures: As they are.
        prepared: At the protocol's size, [B, 3, P, P] in 0..1.
    """

    pictures: Sequence[Image.Image]
    prepared: Tensor


class Comparison(NamedTuple):
    """One metric in features: which ones, and how they are compared."""

    features: str
    is_distance: bool


@dataclass(frozen=True)
class Comparer:
    """What pictures are compared by, loaded once.

    Attributes:
        extractors: Views to features by name, [B, D].
        comparisons: Metrics in these features, by the metric's name.
        pixels: Metrics of the pictures themselves, by name.
        missing: Metrics whose weights are not here, with what to do about it.
    """

    protocol: str
    device: torch.device
    batch_size: int
    pixels: dict[str, Callable[[Tensor, Tensor], Tensor]] = field(default_factory=dict)
    extractors: list[Callable[[Views], dict[str, Tensor]]] = field(default_factory=list)
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        metrics: Sequence[str],
        encoders: Sequence[EncoderConfig],
        protocol: str,
        batch_size: int,
        launch: Launch,
    ) -> Self:
        """Load the networks of the metrics asked for; one whose weights are not here is passed over."""
        comparer = cls(protocol, launch.device, batch_size)
        comparer.pixels.update({name: PIXEL_METRICS[name] for name in metrics if name in PIXEL_METRICS})
        for network in dict.fromkeys(FEATURE_METRICS[n].network for n in metrics if n in FEATURE_METRICS):
            comparer._add_network(network, metrics)
        for config in encoders:
            try:
                comparer._add_encoder(config, launch)
            except MissingData as error:
                comparer.missing[two_way_name(config)] = error.in_one_line
        return comparer

    def _add_network(self, network: str, metrics: Sequence[str]) -> None:
        mine = {n: m for n, m in FEATURE_METRICS.items() if n in metrics and m.network == network}
        try:
            features = NETWORKS[network].build(self.device)
        except MissingData as error:
            self.missing.update(dict.fromkeys(mine, error.in_one_line))
            return
        self.extractors.append(
            lambda views: {f"{network}/{node}": f for node, f in features(views.prepared).items()}
        )
        for name, metric in mine.items():
            self.comparisons[name] = Comparison(f"{network}/{metric.node}", metric.is_distance)

    def _add_encoder(self, config: EncoderConfig, launch: Launch) -> None:
        encoder, name = config.build(), two_way_name(config)
        encoder.module.to(self.device)

        def extract(views: Views) -> dict[str, Tensor]:
            seen = torch.stack([encoder.preprocess(picture) for picture in views.pictures])
            return {name: encode(encoder, seen, "fp32", launch)[0].flatten(1)}

        self.extractors.append(extract)
        self.comparisons[name] = Comparison(name, is_distance=False)

    def views(self, pictures: Sequence[Open]) -> Iterator[Views]:
        """Decode pictures and bring them to the protocol's size, batch by batch."""
        with ThreadPoolExecutor(READERS) as readers:
            for start in range(0, len(pictures), self.batch_size):
                batch = pictures[start : start + self.batch_size]
                opened = list(readers.map(lambda open_picture: open_picture(), batch))
                prepared = [image_metrics.prepare(_as_tensor(each), self.protocol) for each in opened]
                yield Views(opened, torch.cat(prepared).to(self.device))

    def features(self, views: Views) -> dict[str, Tensor]:
        """Take the features that the metrics compare: standardised, [B, D]."""
        wanted = {comparison.features for comparison in self.comparisons.values()}
        found = {name: f for extract in self.extractors for name, f in extract(views).items()}
        return {name: image_metrics.standardised(found[name]) for name in wanted}


@dataclass(frozen=True)
class Truth:
    """N stimuli as the metrics see them.

    Attributes:
        count: N.
        pixels: [N, 3, 425, 425] in 0..1, on the CPU; None if no metric is of pixels.
        features: Standardised, [N, D] by name.
    """

    comparer: Comparer
    count: int
    pixels: Tensor | None
    features: Mapping[str, Tensor]

    @classmethod
    def of(cls, comparer: Comparer, stimuli: Sequence[Open]) -> Self:
        """Look at the stimuli, once for all that they will be compared with."""
        pixels, features = [], []
        for views in comparer.views(stimuli):
            if comparer.pixels:
                pixels.append(_pixels_of(views))
            features.append(comparer.features(views))
        joined = {name: torch.cat([each[name] for each in features]) for name in features[0]}
        return cls(comparer, len(stimuli), torch.cat(pixels) if pixels else None, joined)

    def score(
        self,
        reconstructions: Sequence[Open],
        own: NDArray[np.int64],
        among: NDArray[np.int64],
        bar: console.Bar,
    ) -> dict[str, NDArray[np.float64]]:
        """Compare reconstructions with their stimuli.

        Args:
            reconstructions: B pictures.
            own: The stimulus of each, [B].
            among: The stimuli that two-way identification chooses from, `own` among them.
            bar: Is told how many are done.

        Returns:
            Each metric's values, [B].
        """
        place = torch.from_numpy(np.searchsorted(among, own))  # [B] in `among`, which is sorted
        is_all = len(among) == self.count  # then AlexNet's large features need no copy
        pool = {name: f if is_all else f[among] for name, f in self.features.items()}
        values: dict[str, list[Tensor]] = {}
        start = 0
        for views in self.comparer.views(reconstructions):
            stop = start + len(views.prepared)
            for name, found in self._scores(views, own[start:stop], place[start:stop], pool).items():
                values.setdefault(name, []).append(found)
            bar.advance(stop - start)
            start = stop
        return {name: torch.cat(found).numpy() for name, found in values.items()}

    def _scores(
        self, views: Views, own: NDArray[np.int64], place: Tensor, pool: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        found = {}
        if self.pixels is not None:
            seen, made = self.pixels[own], _pixels_of(views)
            found = {name: metric(seen, made) for name, metric in self.comparer.pixels.items()}
        features = self.comparer.features(views)
        for name, (key, is_distance) in self.comparer.comparisons.items():
            if is_distance:
                found[name] = 1 - (pool[key][place] * features[key]).sum(1)
            elif len(pool[key]) > 1:  # one picture cannot be told from others
                found[name] = image_metrics.identified(pool[key], features[key], place)
        return found


def known_metrics(names: list[str]) -> list[str]:
    """Refuse a metric that is not known."""
    if unknown := [name for name in names if name not in METRICS]:
        raise RecipeError(f"no image metric called {unknown[0]!r}", f"there are: {', '.join(METRICS)}")
    return names


def two_way_name(encoder: EncoderConfig) -> str:
    """Name the two-way identification in an encoder's embeddings."""
    return f"two_way_{encoder.name}"


def is_here(metric: str, encoders: Sequence[EncoderConfig]) -> bool:
    """Whether a metric needs no weights, or they are on this machine.

    Args:
        metric: Its name.
        encoders: Those that identification is asked for in, beside the metrics' own networks.
    """
    if metric in FEATURE_METRICS:
        return NETWORKS[FEATURE_METRICS[metric].network].is_here()
    asked = [encoder for encoder in encoders if two_way_name(encoder) == metric]
    # a function brings its own weights
    return metric in PIXEL_METRICS or any(encoder.is_here or encoder.kind == "python" for encoder in asked)


def lower_is_better(metric: str) -> bool:
    """Whether a metric is a distance."""
    return metric in FEATURE_METRICS and FEATURE_METRICS[metric].is_distance


def chance_of(metric: str) -> float | None:
    """What guessing gives; None for metrics without such a level."""
    return None if metric in PIXEL_METRICS or lower_is_better(metric) else 0.5


def limits_of(metric: str) -> tuple[float, float]:
    """The least and the largest value: a share's, a correlation distance's, or a correlation's (SSIM too)."""
    if chance_of(metric) is not None:
        return (0.0, 1.0)
    return (0.0, 2.0) if lower_is_better(metric) else (-1.0, 1.0)


def _as_tensor(picture: Image.Image) -> Tensor:
    return pil_to_tensor(picture)[None] / 255  # [1, 3, H, W]


def _pixels_of(views: Views) -> Tensor:
    """Resize from the protocol's size to that of the metrics of pixels, once for all of them."""
    return image_metrics.resize(views.prepared, image_metrics.PIXELS_PX).cpu()
