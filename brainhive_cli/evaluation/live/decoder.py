"""Live windows: preparation by the model's own steps, tokens, the best pictures, ranks
of what was shown.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Bool, Float32, Float64
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.data.recordings.event_names import EventNames
from brainhive_cli.data.signals.cutting import (
    Cutting,
    Steps,
    apply_whitener,
    compute_whitener,
    measure_noise,
)
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.signals.spaces import Sensors, look_up_positions
from brainhive_cli.data.signals.trials import PADDING_VALUES, Trials
from brainhive_cli.data.signals.windows import CutWindow
from brainhive_cli.data.targets.model_input import choose_input
from brainhive_cli.evaluation.live.recipe import Recipe
from brainhive_cli.measurement.ranks import rank_targets
from brainhive_cli.models.signal_spec import SignalSpec, normalise_unit
from brainhive_cli.training.alignment.trained.model import TrainedModel

BEST = 5
"""Pictures that are shown of each window."""
COMPARED_NUMBERS = 1024
"""Numbers of a trial by which it is known again: 20,000 trials of the training are 80
MB.
"""
SAME, NEARER = 0.999, 0.75
"""A trial is one of the training if their correlation is so high; or if its distance is
such a share of that to any other: of simulated EEG that is filtered or whitened
otherwise .46 to .92, of new trials .9 to 1.
"""
BestPictures = list[dict[str, Any]]
"""Image ids, `image`, and similarities of the most similar pictures, the best first."""
EventRow = dict[str, Any]
"""Plain values that the page, lines of JSON and other programs get."""
REMEMBERED_EVENTS = 20_000
"""Names of events, which anyone on the network sends, whose pictures are looked up
once.
"""
KNOWN = {*Steps.model_fields, "kind", "band_hz", "phase", "simulated"}
"""Steps of preparations that live windows can go through, or that change nothing of
them.
"""
PREPARED = (
    "train on signals of prepare --from recording, or replay a store: --source signals"
)
"""Way out for a model whose signals no stream can have."""
STREAM = "the stream"
"""What windows are of, in errors."""
KINDS = {"µV": "eeg", "fT": "mag", "fT/cm": "grad"}
"""Type of channels, as mne names it, by the unit of their signals."""


@dataclass(frozen=True)
class LivePreparation:
    """Steps from a continuous stream to the signals that a model takes.

    Attributes:
        steps: Cut, baseline, resampling.
        channels: [E] channels of the stream that are needed, in order.
        unit: Unit of the continuous samples.
        band_hz: Edges of the filter; None where there is none.
        whitener: Σ^(-1/2) [E, E] of the training; None where it is measured, or nothing
            is whitened.
        whiten_trials: Trials of the session of which its whitener is measured; 0 where
            none is.
        differs: In what windows differ from those offline, in sentences.
    """

    steps: Steps
    channels: tuple[str, ...]
    unit: str
    band_hz: tuple[float | None, float | None] = (None, None)
    whitener: Float32 | None = None
    whiten_trials: int = 0
    differs: Sequence[str] = ()

    def make_template(
        self, channels: tuple[str, ...], cutting: Cutting, spec: SignalSpec
    ) -> Trials:
        """Make a recording [1, 1, E, T] of zeros that says of prepared windows what
        stores say of trials.

        Args:
            channels: [E] as the stream has them.
            cutting: Of the windows.
            spec: What the model is built for.
        """
        # positions of the model's electrodes, or standard ones; none if one is unknown
        known = dict(zip(channels, look_up_positions(list(channels)), strict=True))
        # the model's positions replace standard ones
        known |= dict(zip(spec.names, spec.positions or (), strict=False))
        positions = np.array([known[name] for name in channels])  # [E, 3]

        return Trials(
            np.zeros((1, 1, len(channels), len(cutting.times_s)), np.float32),
            (),
            Sensors(channels, positions if np.isfinite(positions).all() else None),
            cutting.times_s,
            cutting.rate_hz,
            spec.unit or self.unit if self.steps.whiten == "no" else "whitened",
        )


def plan_preparation(member: TrainedModel, recipe: Recipe) -> LivePreparation:
    """Plan how live windows are prepared for a model.

    Args:
        member: The model, whose cell is tested on one person.
        recipe: Its keys of whitening.

    Raises:
        BrainhiveError: if the model reads voxels, or its preparation has steps that no
            stream can go through.
        MissingData: if signals are to be whitened and no whitener of the person is
            known.
        RecipeError: if keys of the whitening have no effect.
    """
    run, (subject,) = member.run, member.cell.tested_on
    spec, learned, where = member.layout.spec, member.learned, member.path
    # a model that only counts its channels
    if spec.names == tuple(map(str, range(len(spec.names)))):
        chosen = spec.signal.get("channels") or run.dataset.channels or spec.names
        spec = replace(spec, names=tuple(chosen))

    # fMRI needs motion correction and registration
    if not spec.names:
        raise BrainhiveError(
            f"{where} reads voxels, and live decodes EEG and MEG",
            "docs/live.md names RT-Cloud, which decodes fMRI while it is recorded",
        )

    # steps of the model's preparation: cut and filter
    known = dict(spec.preparation)
    if unknown := sorted(key for key in known if key.partition(".")[0] not in KNOWN):
        raise BrainhiveError(
            f"{where} was trained on signals with steps that no stream can go "
            f"through: {', '.join(unknown)}",
            PREPARED,
        )

    # signals of a program are what it makes, without a step; others must say theirs
    if "epoch_ms" not in known:
        if "simulated" not in known or spec.times_s is None or not spec.rate_hz:
            raise BrainhiveError(
                f"{where} does not say how its signals were prepared", PREPARED
            )
        first_ms, last_ms = (1000 * spec.times_s[index] for index in (0, -1))
        # keep_ms ends before its second time
        span_ms = first_ms, last_ms + 1000 / spec.rate_hz
        known |= {"epoch_ms": span_ms, "keep_ms": span_ms, "rate_hz": spec.rate_hz}
        known |= {"baseline": False, "whiten": "no"}
    steps = Steps.from_preparation(known)
    low, high = known.get("band_hz") or (None, None)

    # what cannot be as it was offline
    differs = []
    if (low or high) and known.get("phase", "zero") == "zero":
        differs.append(
            "the model's signals were filtered without delay, which looks ahead; live "
            "windows are filtered forward, later by some 20 ms: train on "
            "preparation.phase=forward for the same numbers"
        )

    # whitening: of the training, or of the session's first trials
    channels, matrix, whiten_trials = spec.names, None, recipe.whiten_trials or 0
    if steps.whiten == "no" and whiten_trials:
        raise RecipeError(
            f"{where} has signals that were not whitened", "leave out --whiten-trials"
        )
    if whiten_trials:
        channels = tuple(learned.recorded_channels or spec.names)
        differs.append(
            f"the noise of the first {whiten_trials} trials whitens the others"
        )
    elif steps.whiten != "no":
        matrices = learned.whiteners.get(subject)
        if matrices is None:
            raise MissingData(
                f"{where} takes whitened signals, and has no whitener of subject "
                f"{subject}",
                "--whiten-trials 100, of this session; or a model of "
                "preparation.whiten=no",
            )
        channels, matrix = tuple(learned.recorded_channels), matrices[-1]
        differs.append(
            f"the noise of session {len(matrices)} of the training whitens the "
            "windows; for this session's own: --whiten-trials 100"
        )

    # unit of the continuous samples, which stores of whitened signals say
    unit = normalise_unit(
        member.find_recorded_unit(subject)
        if spec.unit in ("", "whitened")
        else spec.unit
    )
    return LivePreparation(
        steps, channels, unit, (low, high), matrix, whiten_trials, differs
    )


class LiveResult(NamedTuple):
    """Result of decoding one window.

    Attributes:
        event: The result as plain values: number of the `window` from 1, name of its
            `event`, image id of the picture that was `shown`, `best` pictures by this
            trial with their `margin`, `rank` of the shown one, None if it is not
            searched, `repetitions` of it so far, `average_best` and `average_rank` by
            the average of all its trials; None for what is not known, and for averages
            of one trial.
        window: The window.
        is_tested: Whether it counts: what was shown is known, and the model has not
            learned from it.
        is_learned: Whether it is a trial that the model has learned from.
        signal: [C, T] the average, or the trial, as the model takes it.
    """

    event: EventRow
    window: CutWindow
    is_tested: bool
    is_learned: bool
    signal: Tensor


@dataclass
class WindowDecoder:
    """Decodes windows as `eval-retrieval` decodes trials of a store.

    Attributes:
        member: The model; its cell is tested on the person alone.
        names: Finds the picture of an event, among the M that are searched.
        further_names: The same among pictures that are not searched, such as those of
            the training; windows of these are known, and do not count.
        pictures: [M, D] tokens of these, as the model compares them.
        is_tested: [M] whether a window of the picture counts: the model has not learned
            from it.
        normaliser: Of the person; None where signals are not normalised.
        template: Trials of one window: channels, times and unit, by which the model's
            input is chosen.
        preparation: Whitens windows; None where they come prepared.
        learned_trials: [n, F] what `read_learned_trials` gives.
        whitener: [E, E] Σ^(-1/2) of windows; None where none is, or none was measured
            yet.
        missing_trials: Trials that are still needed until whitening begins.
        image_ids: [M] pictures that are searched.
        find_shown: Finds the picture that an event stands for: its row in the gallery,
            None if it is not searched, and its image id, None if it is not known.
        unknown_events: Names of the last events of which no picture is known.
    """

    member: TrainedModel
    names: EventNames
    further_names: EventNames
    pictures: Tensor
    is_tested: Bool
    normaliser: Normaliser | None
    template: Trials
    preparation: LivePreparation | None = None
    learned_trials: Tensor | None = None

    def __post_init__(self) -> None:
        """Begin with no windows."""
        self._number, self.image_ids = 0, self.names.image_ids
        self.find_shown = lru_cache(REMEMBERED_EVENTS)(self._find_shown)
        self.unknown_events = deque[str](maxlen=REMEMBERED_EVENTS)
        self._sums = dict[int, tuple[Float64, int]]()  # [E, T], and trials
        self._noise_trials = list[tuple[Float32, str]]()
        self._units = normalize(self.pictures.float())  # [M, D]
        self.whitener: Float32 | None = None  # [E, E]
        self.missing_trials = 0
        if self.preparation is not None:
            self.whitener = self.preparation.whitener
            self.missing_trials = self.preparation.whiten_trials

    def _find_shown(self, event: str) -> tuple[int | None, str | None]:
        try:
            if (row := self.names.find_row(event)) is not None:
                return row, self.image_ids[row]
            if (further := self.further_names.find_row(event)) is not None:
                return None, self.further_names.image_ids[further]
        except BrainhiveError as error:
            # a marker that anyone sends must not end the session
            console.warn(f"{error.message}: no picture is known of event {event}")
        self.unknown_events.append(event)
        return None, None

    def warm_up(self) -> None:
        """Decode the template once: the first window takes longer than all others."""
        self._rank(np.asarray(self.template.signal)[:, 0], [0])

    def decode(self, windows: Sequence[CutWindow]) -> list[LiveResult]:
        """Decode windows together; those that whitening is measured of give no result.

        Raises:
            BrainhiveError: if a signal is not what the model takes, or noise cannot be
                measured.
        """
        shown = [self.find_shown(window.name) for window in windows]

        # the first trials are kept for the whitener; those after them are decoded
        missing = self.missing_trials
        if self.preparation is not None and missing:
            for window, (_, image_id) in zip(windows[:missing], shown, strict=False):
                self._noise_trials.append((window.signal, image_id or window.name))
            self.missing_trials = max(0, missing - len(windows))
            if not self.missing_trials:
                trials, names = zip(*self._noise_trials, strict=True)
                _, stimuli = np.unique(names, return_inverse=True)
                steps, channels = self.preparation.steps, self.preparation.channels
                noise = measure_noise(
                    {"train": np.stack(trials)}, {"train": stimuli}, steps, channels
                )
                self.whitener = compute_whitener(noise, channels).astype(np.float32)
                self._noise_trials = []
            windows, shown = windows[missing:], shown[missing:]
        if not windows:
            return []

        # windows, whitened as those of a store
        epochs = np.stack([window.signal for window in windows])  # [n, E, T]
        if self.whitener is not None:
            apply_whitener(epochs, self.whitener)

        # averages of each searched picture's trials so far, where there are several
        rows = [row for row, _ in shown]
        counts, averages = [1] * len(rows), dict[int, Float64]()
        for index, (epoch, row) in enumerate(zip(epochs, rows, strict=True)):
            if row is not None:
                total, count = self._sums.get(row, (np.zeros(epoch.shape), 0))
                self._sums[row] = total, count = total + epoch, count + 1
                if count > 1:
                    counts[index], averages[index] = count, total / count

        # trials, then averages, decoded together
        # [n + a, E, T]
        decoded = np.stack([*epochs, *averages.values()]).astype(np.float32)
        ranked_rows = [*rows, *(rows[index] for index in averages)]
        signals, best, ranked = self._rank(decoded, ranked_rows)
        average_of = dict(zip(averages, range(len(rows), len(decoded)), strict=True))

        # trials that the model has learned from
        is_learned, learned = [False] * len(rows), self.learned_trials
        if learned is not None and len(learned) > 1:
            similarities = describe_trials(signals[: len(rows)]) @ learned.T
            nearest = similarities.topk(2, dim=1).values  # [n, 2]
            # distances, by a factor
            first, second = (1 - nearest).clamp(min=0).sqrt().unbind(1)
            is_learned = ((nearest[:, 0] > SAME) | (first < NEARER * second)).tolist()

        # a result for each window
        results = []
        for index, (window, (row, image_id)) in enumerate(
            zip(windows, shown, strict=True)
        ):
            self._number += 1
            average, (top, *further) = average_of.get(index), best[index]
            event = {
                "kind": "result",
                "window": self._number,
                "event": window.name,
                "shown": image_id,
                "best": best[index],
                "margin": round(top["similarity"] - further[0]["similarity"], 6)
                if further
                else None,
                "rank": ranked[index],
                "repetitions": counts[index],
                "average_best": best[average] if average else None,
                "average_rank": ranked[average] if average else None,
            }
            is_tested = row is not None and bool(self.is_tested[row])
            signal = signals[average or index]
            results.append(
                LiveResult(event, window, is_tested, is_learned[index], signal)
            )
        return results

    def _rank(
        self, epochs: Float32, shown: Sequence[int | None]
    ) -> tuple[Tensor, list[BestPictures], list[int | None]]:
        """Encode prepared windows [n, E, T], and rank the gallery by each.

        Args:
            epochs: The windows.
            shown: [n] rows of the shown pictures; None where it is not known.

        Returns:
            [n, C, T] what the model takes of them, the most similar pictures of each,
            and the rank of the shown one.
        """
        # what the model takes of the windows, of which the lists of the template say
        # nothing
        unknown: dict[str, Any] = dict.fromkeys(PADDING_VALUES)
        windows = replace(
            self.template,
            signal=epochs[:, None],
            image_ids=(),
            subject=self.member.cell.tested_on[0],
            repetitions=None,
            index=None,
            **unknown,
        )
        spec, run = self.member.module.layout.spec, self.member.run
        channels, mapping = run.dataset.channels, run.channel_mapping
        chosen = choose_input(spec, windows, STREAM, channels, False, mapping)
        chosen = chosen.normalise(self.normaliser)

        # tokens, the most similar pictures, and ranks, also of the first picture where
        # it is not known
        tokens = self.member.encode(chosen)  # [n, D]
        top = (
            (normalize(tokens) @ self._units.T)
            .cpu()
            .topk(min(BEST, len(self.image_ids)), dim=1)
        )
        best = [
            [
                {"image": self.image_ids[row], "similarity": round(value, 6)}
                for row, value in pairs
            ]
            for pairs in map(zip, top.indices.tolist(), top.values.tolist())
        ]
        targets = torch.tensor([row or 0 for row in shown], device=tokens.device)
        ranked = zip(
            shown, rank_targets(tokens, self.pictures, targets).tolist(), strict=True
        )
        known = [None if row is None else rank for row, rank in ranked]
        return torch.from_numpy(chosen.averages), best, known


def describe_trials(signals: Tensor) -> Tensor:
    """Describe trials [n, C, T] by unit vectors [n, F] of some of their numbers."""
    # every k-th number is enough to know a trial again, and takes little memory
    numbers = signals.flatten(1).float()
    numbers = numbers[:, :: max(1, numbers.shape[1] // COMPARED_NUMBERS)]
    return normalize(numbers - numbers.mean(1, keepdim=True), dim=1)


def read_learned_trials(member: TrainedModel) -> tuple[Tensor | None, bool]:
    """Read the trials that a model has learned from, where their stores are here and
    have not changed.

    Returns:
        [n, F] see `describe_trials`, None of no trial; and whether these are all.
    """
    # stores that changed since the training hold other trials
    learned, source = member.module.learned, member.recordings
    stored = source.collect_identities(learned.subjects)
    described = [
        describe_trials(
            torch.from_numpy(
                member.open_trials(subject, "train", is_tested=False).averages
            )
        )
        for subject in learned.subjects
        if (name := source.name_store(subject)) in stored
        and stored[name] == learned.signals.get(name)
    ]
    is_complete = learned.has_all_subjects and stored == {**learned.signals}
    return (torch.cat(described) if described else None), is_complete
