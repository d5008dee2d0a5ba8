"""Signals of one subject as a trained model reads them: similarity of every signal with every picture."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.explanation.profiles import (
    REGION,
    SENSOR,
    SPACE_PART,
    Axis,
    Labels,
    Profile,
    locate,
)
from brainhive_cli.evaluation.explanation.sensor_space import SensorSpace, find_mixture
from brainhive_cli.measurement.ranks import ranks_of_all
from brainhive_cli.measurement.units import Items
from brainhive_cli.training.alignment.trained import TrainedModel


@dataclass(frozen=True)
class Reader:
    """A cell's model, one subject's signals, and the pictures among which the seen ones are to be found.

    Attributes:
        member: The model.
        split: Whose signals.
        trials: These signals as the model reads them.
        gallery_rows: [M] rows of the candidates.
        labels: Index of each signal's picture among the candidates, and permutations.
        pictures: Those that all subjects were shown, in the order of the signals, and which are alike.
    """

    member: TrainedModel
    split: str
    trials: Trials
    gallery_rows: Int64
    labels: Labels
    pictures: Items

    @cached_property
    def gallery(self) -> Tensor:
        """[M, D] the candidates' vectors."""
        return self.member.images(self.split, self.gallery_rows)

    @cached_property
    def signal(self) -> Tensor:
        """[N, C, T] repetitions averaged."""
        return torch.from_numpy(self.trials.averages)

    @cached_property
    def learned(self) -> Trials:
        """The subject's training trials."""
        return self.member.trials(self.trials.subject, "train", is_tested=False)

    @cached_property
    def baseline(self) -> Tensor:
        """[C, T] the subject's mean training signal, in which no tested picture has a part."""
        return torch.from_numpy(self.member.mean_training_signal(self.trials.subject))

    @cached_property
    def space(self) -> SensorSpace:
        """Signals in sensor space, where mixing is undone."""
        return SensorSpace.of(self.trials, self.learned, self.signal.numpy(), self.baseline.numpy())

    @property
    def times_ms(self) -> Float64:
        """[T] times of the samples after stimulus onset."""
        return self.trials.times_s * 1000

    @property
    def mixture(self) -> BrainhiveError | None:
        """Reason why channels are unknown mixtures of sensors; None where they are not."""
        return find_mixture(self.recorded)

    @property
    def sensors(self) -> tuple[str, ...]:
        """[E] sensors whose signals are known, all where whitening is undone; () of voxels and mixtures."""
        # unmixed signals have all recorded sensors, others those that the model reads
        space = self.recorded.space
        if not isinstance(space, Sensors) or self.mixture:
            return ()
        return self.trials.channels if self.recorded.whiteners is None else tuple(space.names)

    def spatial_parts(self) -> dict[str, tuple[Axis, list[Any]]]:
        """List sensors, or regions of voxels, with their indices of signals [N, E, T] in sensor space.

        Returns:
            By the part of an analysis that they are; nothing of mixtures.
        """
        if self.mixture:
            return {}

        # a sensor is one row of the signal, a region several
        regions = {} if self.sensors else self.regions()
        axis = Axis(SENSOR, self.sensors) if self.sensors else Axis(REGION, [*regions])
        rows = [[*voxels] for voxels in regions.values()] or [[row] for row in range(len(self.sensors))]
        return {SPACE_PART: (axis, [np.s_[:, part] for part in rows])}

    def regions(self) -> dict[str, tuple[int, ...]]:
        """List the regions that have voxels, by name, as rows among those that the model reads.

        Raises:
            BrainhiveError: if there are none.
        """
        # regions may lie outside of the voxels that the model reads
        regions = {name: rows for name, rows in self.trials.regions.items() if rows}
        if not regions:
            raise BrainhiveError("the voxels belong to no region", "prepare the signals with regions")
        return regions

    @property
    def recorded(self) -> Trials:
        """The same trials with all channels and samples."""
        return self.trials.recorded or self.trials

    def margins(self, signal: Tensor) -> Float64:
        """Compute the cosine similarity of signals with candidates, less its mean over candidates: [N, M]."""
        return margins_among(self.member.encode(self.trials, signal), self.gallery)

    def rank(self, axis: Axis, tokens: Iterable[Tensor]) -> dict[str, Profile]:
        """Rank all candidates by the tokens [N, D] of each position."""
        # ranks are computed position by position, to bound memory
        pool = len(self.gallery)
        ranks = (ranks_of_all(part, self.gallery, pool) for part in tokens)  # [N, M] each
        return Profile.of_ranks(axis, ranks, self.labels, pool)

    @cached_property
    def whole(self) -> Float64:
        """[N, M] margins of the signals as they are."""
        return self.margins(self.signal)


def match_pictures(trials: Trials, rows: Int64) -> Trials:
    """Bring a subject's trials into the order of the pictures of some rows; other trials are left out."""
    # all subjects have one order of pictures, so that values can be averaged
    return trials.take(locate(trials.stimulus.tolist(), rows))


def margins_among(tokens: Tensor, gallery: Tensor) -> Float64:
    """Compute cosine similarities [N, M] of tokens with candidates, less their mean over candidates."""
    # the mean over candidates says how close a signal is to any picture
    candidates = F.normalize(gallery)
    cosine = (F.normalize(tokens.to(candidates)) @ candidates.T).double().cpu().numpy()  # [N, M]
    return cosine - cosine.mean(1, keepdims=True)
