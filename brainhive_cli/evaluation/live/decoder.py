"""Decoding of live windows: tokens, the best pictures of the gallery, ranks of what was shown."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Bool, Float32, Float64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.event_names import EventNames
from brainhive_cli.data.model_input import choose_input
from brainhive_cli.data.signals.noise import whiten
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.signals.windows import CutWindow
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.live.preparation import LivePreparation
from brainhive_cli.measurement.ranks import ranks
from brainhive_cli.training.alignment.trained import TrainedModel

BEST = 5
"""Pictures that are shown of each window."""
COMPARED_NUMBERS = 1024
"""Numbers of a trial by which it is known again: 20,000 trials of the training are 80 MB."""
SAME, NEARER = 0.999, 0.75
"""A trial is one of the training if their correlation is so high; or if its distance is such a share of that
to any other: of simulated EEG that is filtered or whitened otherwise .46 to .92, of new trials .9 to 1."""
Best = list[dict[str, Any]]
"""Image ids, `image`, and similarities of the most similar pictures, the best first."""
SHOWN = ("shown", "best", "rank", "repetitions", "average_best", "average_rank")
"""Attributes of a result that others see."""
AVERAGED_PICTURES = 2000
"""Pictures whose trials are averaged; of more, the one that was shown longest ago begins anew."""


@dataclass(frozen=True)
class LiveResult:
    """Result of decoding one window.

    Attributes:
        number: Number of the window, from 1.
        window: The window.
        shown: Image id of the shown picture; None where it is not known.
        best: The most similar pictures by this trial.
        rank: Rank of the shown picture by this trial; 1 is best.
        repetitions: How often the picture was shown so far.
        average_best: As `best`, by the average of all its trials so far; None where there is one.
        average_rank: As `rank`, by that average.
        is_tested: Whether it counts: what was shown is known, and the model has not learned from it.
        is_learned: Whether it is a trial that the model has learned from.
        signal: [C, T] the average, or the trial, as the model takes it.
        token: [D] of this trial.
    """

    number: int
    window: CutWindow
    shown: str | None
    best: Best
    rank: int | None
    repetitions: int
    average_best: Best | None
    average_rank: int | None
    is_tested: bool
    is_learned: bool
    signal: Tensor = field(repr=False)
    token: Tensor = field(repr=False)


@dataclass
class WindowDecoder:
    """Decodes windows as `eval-retrieval` decodes trials of a store.

    Attributes:
        member: The model; its cell is tested on the person alone.
        names: Finds the picture of an event, among the M that are searched.
        pictures: [M, D] tokens of these, as the model compares them.
        is_tested: [M] whether a window of the picture counts: the model has not learned from it.
        normaliser: Of the person; None where signals are not normalised.
        template: Trials of one window: channels, times and unit, by which the model's input is chosen.
        preparation: Whitens windows; None where they come prepared.
        learned_trials: [n, F] what `read_learned_trials` gives.
        whitener: [E, E] Σ^(-1/2) of windows; None where none is, or none was measured yet.
    """

    member: TrainedModel
    names: EventNames
    pictures: Tensor
    is_tested: Bool
    normaliser: Normaliser | None
    template: Trials
    preparation: LivePreparation | None = None
    learned_trials: Tensor | None = None

    def __post_init__(self) -> None:
        """Begin with no windows."""
        self._number = 0
        self._shown: OrderedDict[str, int | None] = OrderedDict()  # row by the name of an event
        self._sums: OrderedDict[int, tuple[Float64, int]] = OrderedDict()  # [E, T], and trials
        self._noise_trials: list[tuple[Float32, str]] = []
        self._units = normalize(self.pictures.float())  # [M, D]
        self.whitener = None if self.preparation is None else self.preparation.whitener  # [E, E]

    @property
    def subject(self) -> int:
        """The person."""
        return self.member.cell.tested_on[0]

    @property
    def image_ids(self) -> Sequence[str]:
        """[M] pictures that are searched."""
        return self.names.image_ids

    @property
    def unknown_events(self) -> list[str]:
        """Names of the events so far of which no picture is known."""
        return [event for event, row in self._shown.items() if row is None]

    @property
    def missing_trials(self) -> int:
        """Trials that are still needed until whitening begins."""
        if self.preparation is None or self.whitener is not None:
            return 0
        return self.preparation.whiten_trials - len(self._noise_trials)

    def find_shown(self, event: str) -> int | None:
        """Find the row in the gallery of the picture that an event stands for; None if it has none."""
        if event not in self._shown:
            try:
                self._shown[event] = self.names.find_row(event)
            except BrainhiveError as error:  # a marker that anyone sends must not end the session
                console.warn(f"{error.message}: no picture is known of event {event}")
                self._shown[event] = None
            if len(self._shown) > 10 * AVERAGED_PICTURES:  # so that numbered events do not fill the memory
                self._shown.popitem(last=False)
        return self._shown[event]

    def warm_up(self) -> None:
        """Decode the template once: the first window takes longer than all others."""
        tokens = self.member.encode(self._read(np.asarray(self.template.signal)[:, 0]))
        (normalize(tokens) @ self._units.T).cpu().topk(1)
        ranks(tokens, self.pictures, torch.zeros(1, dtype=torch.long, device=tokens.device))

    def decode(self, windows: Sequence[CutWindow]) -> list[LiveResult]:
        """Decode windows together; those that whitening is measured of give no result.

        Raises:
            BrainhiveError: if a signal is not what the model takes, or noise cannot be measured.
        """
        rows = [self.find_shown(window.name) for window in windows]

        # the first trials are kept for the whitener; those after them are decoded
        if self.preparation is not None and (missing := self.missing_trials):
            for window, row in zip(windows[:missing], rows, strict=False):
                stimulus = window.name if row is None else self.image_ids[row]
                self._noise_trials.append((window.signal, stimulus))
            if not self.missing_trials:
                noise, names = zip(*self._noise_trials, strict=True)
                _, stimuli = np.unique(names, return_inverse=True)
                self.whitener = self.preparation.measure_whitener(np.stack(noise), stimuli)
                self._noise_trials = []
            windows, rows = windows[missing:], rows[missing:]
        if not windows:
            return []

        # windows, whitened as those of a store
        epochs = np.stack([window.signal for window in windows])  # [n, E, T]
        if self.whitener is not None:
            whiten(epochs, self.whitener)

        # averages of each picture's trials so far
        averages, counts = np.empty_like(epochs), np.ones(len(windows), np.int64)
        for index, (epoch, row) in enumerate(zip(epochs, rows, strict=True)):
            averages[index] = epoch
            if row is not None:
                total, count = self._sums.pop(row, (np.zeros(epoch.shape), 0))
                self._sums[row] = total + epoch, count + 1
                averages[index], counts[index] = self._sums[row][0] / (count + 1), count + 1
                if len(self._sums) > AVERAGED_PICTURES:
                    self._sums.popitem(last=False)

        # tokens of trials, then of averages of several; ranks of what was shown, any of what is not known
        averaged = np.flatnonzero(counts > 1)
        trials = self._read(np.concatenate([epochs, averages[averaged]]))
        signals = torch.from_numpy(trials.averages)  # [n + a, C, T]
        tokens = self.member.encode(trials)  # [n + a, D]
        best = (normalize(tokens) @ self._units.T).cpu().topk(min(BEST, len(self.image_ids)), dim=1)
        shown = [rows[index] or 0 for index in (*range(len(rows)), *averaged)]
        ranked = ranks(tokens, self.pictures, torch.tensor(shown, device=tokens.device)).tolist()

        # trials that the model has learned from
        is_learned, learned = [False] * len(rows), self.learned_trials
        if learned is not None and len(learned) > 1:
            nearest = (describe_trials(signals[: len(rows)]) @ learned.T).topk(2, dim=1).values  # [n, 2]
            first, second = (1 - nearest).clamp(min=0).sqrt().unbind(1)  # distances, by a factor
            is_learned = ((nearest[:, 0] > SAME) | (first < NEARER * second)).tolist()

        def list_best(index: int) -> Best:
            pairs = zip(best.indices[index].tolist(), best.values[index].tolist(), strict=True)
            return [{"image": self.image_ids[row], "similarity": round(value, 6)} for row, value in pairs]

        # a result for each window
        results, average = [], len(rows) - 1
        for index, (window, row) in enumerate(zip(windows, rows, strict=True)):
            self._number += 1
            has_average = counts[index] > 1
            average += has_average  # index of the last average
            results.append(
                LiveResult(
                    self._number,
                    window,
                    None if row is None else self.image_ids[row],
                    list_best(index),
                    None if row is None else ranked[index],
                    int(counts[index]),
                    list_best(average) if has_average else None,
                    ranked[average] if has_average else None,
                    row is not None and bool(self.is_tested[row]),
                    is_learned[index],
                    signals[average if has_average else index],
                    tokens[index].cpu(),
                )
            )
        return results

    def _read(self, epochs: Float32) -> Trials:
        """Choose of prepared windows [n, E, T] what the model takes."""
        spec, run = self.member.module.layout.spec, self.member.run
        trials: dict[str, Any] = dict.fromkeys(("repetitions", "sessions", "runs", "onset_s", "index"))
        windows = replace(self.template, signal=epochs[:, None], image_ids=(), subject=self.subject, **trials)
        options = run.dataset.channels, False, run.channel_mapping
        chosen = choose_input(spec, windows, "the stream", *options)
        return chosen.normalise(self.normaliser)


def describe_trials(signals: Tensor) -> Tensor:
    """Describe trials [n, C, T] by unit vectors [n, F] of some of their numbers."""
    numbers = signals.flatten(1).float()
    numbers = numbers[:, :: max(1, numbers.shape[1] // COMPARED_NUMBERS)]
    return normalize(numbers - numbers.mean(1, keepdim=True), dim=1)


def read_learned_trials(member: TrainedModel) -> tuple[Tensor | None, bool]:
    """Read the trials that a model has learned from, where their stores are here and have not changed.

    Returns:
        [n, F] see `describe_trials`, None of no trial; and whether these are all.
    """
    learned, source = member.module.learned, member.source
    stored = source.identities(learned.subjects)
    described = [
        describe_trials(torch.from_numpy(member.trials(subject, "train", is_tested=False).averages))
        for subject in learned.subjects
        if (name := source.name_of(subject)) in stored and stored[name] == learned.signals.get(name)
    ]
    is_complete = learned.has_all_subjects and stored == {**learned.signals}
    return (torch.cat(described) if described else None), is_complete


def as_event(result: LiveResult, start_s: float) -> dict[str, Any]:
    """Write a result as plain values, for the page, lines of JSON and other programs.

    Args:
        result: The result.
        start_s: Time of the first sample.
    """
    best = result.best
    return {
        "kind": "result",
        "window": result.number,
        "event": result.window.name,
        "onset_s": round(result.window.time_s - start_s, 6),
        "margin": round(best[0]["similarity"] - best[1]["similarity"], 6) if len(best) > 1 else None,
        **{name: getattr(result, name) for name in SHOWN},
    }
