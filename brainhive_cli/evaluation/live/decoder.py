"""Decoding of windows from a live stream."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core.base import (
    Bool,
    BrainhiveError,
    Float32,
    Float64,
    MissingData,
    RecipeError,
    console,
)
from brainhive_cli.data.recordings import EventNames
from brainhive_cli.data.signals import (
    COLUMNS,
    Cutting,
    CutWindow,
    Sensors,
    Steps,
    Trials,
    apply_whitener,
    compute_whitener,
    look_up_positions,
    measure_noise,
)
from brainhive_cli.data.targets import choose_input
from brainhive_cli.evaluation.live.recipe import Recipe
from brainhive_cli.measurement import rank_targets
from brainhive_cli.models import SignalSpec, normalise_unit
from brainhive_cli.training.alignment.trained import TestedPerson, TestSet, TrainedModel

MIN_CORRELATION, MAX_DISTANCE_RATIO = 0.999, 0.75
"""A trial is a training trial if their correlation is above the minimum, or if the
distance to it is less than this share of the distance to any other. In simulated EEG,
the ratio is .46 to .92 for training trials after another filter or whitener, and .9 to
1 for new trials.
"""
BestPictures = list[dict[str, Any]]
"""Image id `image` and `similarity` of the most similar pictures, best first."""
EventRow = dict[str, Any]
"""Plain values, which the page, lines of JSON and other programs receive."""
PREPARED_ADVICE = (
    "train on signals of prepare --from recording, or replay a store: --source signals"
)
"""Advice for a model whose signals no stream can have."""
STREAM_NAME = "the stream"
"""Name of the source of windows, in errors."""
CHANNEL_TYPES = {"µV": "eeg", "fT": "mag", "fT/cm": "grad"}
"""MNE's type of channels, by the unit of their signals."""


@dataclass(frozen=True)
class LivePreparation:
    """Steps from a continuous stream to the signals that a model receives.

    Attributes:
        steps: Cut, baseline and resampling.
        channels: Channels [E] of the stream that are needed, in order.
        unit: Unit of the continuous samples.
        band_hz: Edges of the filter, or None without an edge.
        whitener: Matrix Σ^(-1/2) [E, E] of the training. None without whitening, or if
            it is computed from the session.
        whiten_trials: Number of first trials from which the whitener is computed. 0
            without such a whitener.
        differences: Sentences that say how windows differ from windows of a store.
    """

    steps: Steps
    channels: tuple[str, ...]
    unit: str
    band_hz: tuple[float | None, float | None] = (None, None)
    whitener: Float32 | None = None
    whiten_trials: int = 0
    differences: Sequence[str] = ()

    def make_template(
        self, channels: tuple[str, ...], cutting: Cutting, spec: SignalSpec
    ) -> Trials:
        """Make a trial with the channels, times and unit of the prepared windows.

        Its signal [1, 1, E, T] is zero. The signals of windows take its place.

        Args:
            channels: Names [E] of the channels in the stream.
            cutting: Cutting of the windows.
            spec: Signals for which the model is built.
        """
        # the positions of the model replace standard positions
        position_of = dict(
            zip(channels, look_up_positions(list(channels)), strict=True)
        )
        position_of |= dict(zip(spec.names, spec.positions or (), strict=False))
        positions = np.array([position_of[name] for name in channels])  # [E, 3]
        is_complete = np.isfinite(positions).all()

        unit = "whitened"
        if self.steps.whiten == "no":
            unit = spec.unit or self.unit
        return Trials(
            np.zeros((1, len(channels), len(cutting.times_s)), np.float32),
            (),
            Sensors(channels, positions if is_complete else None),
            cutting.times_s,
            cutting.rate_hz,
            unit,
        )


def plan_preparation(person: TestedPerson, recipe: Recipe) -> LivePreparation:
    """Plan how live windows are prepared for a model.

    Args:
        person: Person, as the model reads the signals.
        recipe: Recipe with the keys of whitening.

    Raises:
        BrainhiveError: if the model reads voxels, or its preparation has steps that
            live windows do not support.
        MissingData: if signals must be whitened, and there is no whitener of the
            person.
        RecipeError: if a key of whitening has no effect.
    """
    spec = person.model.layout.spec
    learned = person.model.history
    path = person.model.path
    # a model that only counts its channels has numbers as names
    if spec.names == tuple(map(str, range(len(spec.names)))):
        channel_names = spec.signal.get("channels")
        channel_names = channel_names or person.recordings.dataset.channels
        spec = replace(spec, names=tuple(channel_names or spec.names))

    # fMRI needs motion correction and registration
    if not spec.names:
        raise BrainhiveError(
            f"{path} is a model of fMRI, but live decodes only EEG and MEG",
            "use RT-Cloud to decode fMRI while it is recorded (docs/live.md)",
        )

    # steps of the model's preparation: cut and filter
    preparation = dict(spec.preparation)
    unsupported_steps = []
    # Steps of preparations that live windows support, or that do not change them.
    supported_steps = set(Steps.model_fields) | {
        "kind",
        "band_hz",
        "phase",
        "simulated",
    }
    for key in sorted(preparation):
        if key.partition(".")[0] not in supported_steps:
            unsupported_steps.append(key)
    if unsupported_steps:
        raise BrainhiveError(
            f"the signals of {path} were prepared by steps that are impossible live: "
            f"{', '.join(unsupported_steps)}",
            PREPARED_ADVICE,
        )

    # simulated signals need no steps
    if "epoch_ms" not in preparation:
        is_simulated = "simulated" in preparation
        if not is_simulated or spec.times_s is None or not spec.rate_hz:
            raise BrainhiveError(
                f"it is unknown how the signals of {path} were prepared",
                PREPARED_ADVICE,
            )
        # keep_ms ends before its second time
        start_ms = 1000 * spec.times_s[0]
        stop_ms = 1000 * spec.times_s[-1] + 1000 / spec.rate_hz
        preparation |= {
            "epoch_ms": (start_ms, stop_ms),
            "keep_ms": (start_ms, stop_ms),
            "rate_hz": spec.rate_hz,
            "baseline": False,
            "whiten": "no",
        }
    steps = Steps.from_preparation(preparation)
    low_hz, high_hz = preparation.get("band_hz") or (None, None)
    differences = []
    if (low_hz or high_hz) and preparation.get("phase", "zero") == "zero":
        differences.append(
            "the model's signals were filtered without delay, which looks ahead; live "
            "windows are filtered forward, later by some 20 ms: train on "
            "preparation.phase=forward for the same numbers"
        )

    # whitening by the first trials of the session, or by the training
    channels = spec.names
    whitener = None
    whiten_trials = recipe.whiten_trials or 0
    if steps.whiten == "no" and whiten_trials:
        raise RecipeError(
            f"{path} was trained on signals that were not whitened",
            "leave out --whiten-trials",
        )
    subject = person.subject
    if whiten_trials:
        channels = tuple(learned.recorded_channels or spec.names)
        differences.append(
            f"the noise of the first {whiten_trials} trials whitens the others"
        )
    elif steps.whiten != "no":
        whiteners = learned.whiteners.get(subject)
        if whiteners is None:
            raise MissingData(
                f"{path} needs whitened signals, but has no noise whitener of subject "
                f"{subject}",
                "measure the noise in this session: --whiten-trials 100; or train on "
                "signals with preparation.whiten=no",
            )
        channels = tuple(learned.recorded_channels)
        whitener = whiteners[-1]
        differences.append(
            f"the noise of session {len(whiteners)} of the training whitens the "
            "windows; for this session's own: --whiten-trials 100"
        )

    # the store knows the unit before whitening
    unit = spec.unit
    if unit in ("", "whitened"):
        unit = person.recorded_unit
    return LivePreparation(
        steps,
        channels,
        normalise_unit(unit),
        (low_hz, high_hz),
        whitener,
        whiten_trials,
        differences,
    )


class LiveResult(NamedTuple):
    """Result of decoding a window.

    Attributes:
        event: Plain values. Values that are not known are None:

            - `window`: number of the window, from 1.
            - `event`: name of the event.
            - `shown`: image id of the picture.
            - `best`, `margin`: most similar pictures, and the difference between the
              similarities of the first two.
            - `rank`: rank of the shown picture in the gallery.
            - `repetitions`: number of trials of the picture so far.
            - `average_best`, `average_rank`: the same for the average of all trials of
              the picture, if there are several.
        window: The window.
        is_tested: True if the window counts for the hit rate, because its picture is
            known and was not used for training.
        is_learned: True if the window is a trial that the model was trained on.
        signal: Signal [C, T] of the average, or of the trial, as the model receives it.
    """

    event: EventRow
    window: CutWindow
    is_tested: bool
    is_learned: bool
    signal: Tensor


@dataclass
class WindowDecoder:
    """Decoder of windows, which decodes as `eval-retrieval` does.

    Attributes:
        model: Model, on the device.
        person: Person, as the model reads the signals.
        event_names: Names of events of the M pictures in the gallery.
        other_event_names: Names of events of other pictures, such as training pictures.
            Their windows do not count.
        picture_tokens: Tokens [M, D] of the gallery.
        is_tested: True for pictures [M] that the model was not trained on.
        template: Trial that describes the windows, to choose the input of the model.
        preparation: Preparation with the whitening, or None for prepared windows.
        learned_trials: Vectors [n, F] of training trials, from `read_learned_trials`.
        whitener: Matrix Σ^(-1/2) [E, E] of windows, or None before it is computed or
            without whitening.
        missing_trials: Number of trials that are needed until whitening begins.
        image_ids: Image ids [M] of the gallery.
        find_picture: Cached function that finds the picture of an event: its row in the
            gallery and its image id, or None for each that is not known.
        unknown_events: Names of the last events without a known picture.
    """

    model: TrainedModel
    person: TestedPerson
    event_names: EventNames
    other_event_names: EventNames
    picture_tokens: Tensor
    is_tested: Bool
    template: Trials
    preparation: LivePreparation | None = None
    learned_trials: Tensor | None = None

    def __post_init__(self) -> None:
        """Begin without windows."""
        self.image_ids = self.event_names.image_ids
        # Largest number of event names whose pictures are kept, as anyone on the
        # network can send new names.
        max_cached_events = 20_000
        self.find_picture = lru_cache(max_cached_events)(self._find_picture)
        self.unknown_events = deque[str](maxlen=max_cached_events)
        self.whitener: Float32 | None = None  # [E, E]
        self.missing_trials = 0
        if self.preparation is not None:
            self.whitener = self.preparation.whitener
            self.missing_trials = self.preparation.whiten_trials
        self._n_windows = 0
        # sum [E, T] and number of the trials of each picture
        self._sums = dict[int, tuple[Float64, int]]()
        self._noise_trials = list[Float32]()
        self._noise_names = list[str]()
        self._unit_tokens = normalize(self.picture_tokens.float())  # [M, D]

    def warm_up(self) -> None:
        """Decode the template once, as the first window takes longer than others."""
        self._rank_gallery(np.asarray(self.template.signal), [0])

    def decode(self, windows: Sequence[CutWindow]) -> list[LiveResult]:
        """Decode windows together.

        The first trials of the session give no result if the whitener is computed from
        them.

        Raises:
            BrainhiveError: if the model does not accept a signal, or the noise cannot
                be measured.
        """
        pictures = [self.find_picture(window.name) for window in windows]

        # collect the first trials for the whitener, and decode the windows after them
        n_missing = self.missing_trials
        if n_missing:
            self._collect_noise(windows[:n_missing], pictures[:n_missing])
            windows = windows[n_missing:]
            pictures = pictures[n_missing:]
        if not windows:
            return []
        epochs = np.stack([window.signal for window in windows])  # [n, E, T]
        if self.whitener is not None:
            apply_whitener(epochs, self.whitener)

        # averages of all trials so far, for pictures with several trials
        rows = [row for row, _ in pictures]
        counts = [1] * len(rows)
        averages = list[Float64]()
        average_rows = []
        average_index_of = {}
        for index, row in enumerate(rows):
            if row is None:
                continue
            epoch = epochs[index]
            previous_sum, count = self._sums.get(row, (np.zeros(epoch.shape), 0))
            total = previous_sum + epoch
            count += 1
            self._sums[row] = (total, count)
            if count > 1:
                counts[index] = count
                average_index_of[index] = len(rows) + len(averages)
                averages.append(total / count)
                average_rows.append(row)

        # rank the gallery by the trials and then by the averages, in a single batch
        batch = np.stack(list(epochs) + averages)  # [n + a, E, T]
        batch_rows = rows + average_rows
        signals, best, ranks = self._rank_gallery(batch.astype(np.float32), batch_rows)
        is_learned = self._find_learned(signals[: len(rows)])

        results = []
        for index, window in enumerate(windows):
            self._n_windows += 1
            row, image_id = pictures[index]
            average = average_index_of.get(index)
            margin = None
            if len(best[index]) > 1:
                first, second = best[index][:2]
                margin = round(first["similarity"] - second["similarity"], 6)
            event = {
                "kind": "result",
                "window": self._n_windows,
                "event": window.name,
                "shown": image_id,
                "best": best[index],
                "margin": margin,
                "rank": ranks[index],
                "repetitions": counts[index],
                "average_best": None if average is None else best[average],
                "average_rank": None if average is None else ranks[average],
            }
            is_tested = row is not None and bool(self.is_tested[row])
            signal = signals[index if average is None else average]
            results.append(
                LiveResult(event, window, is_tested, is_learned[index], signal)
            )
        return results

    def _find_picture(self, event: str) -> tuple[int | None, str | None]:
        """Find the row in the gallery and the image id of an event's picture."""
        try:
            row = self.event_names.find_row(event)
            if row is not None:
                return row, self.image_ids[row]
            row = self.other_event_names.find_row(event)
            if row is not None:
                return None, self.other_event_names.image_ids[row]
        except BrainhiveError as error:
            # anyone on the network can send a marker, so it must not end the session
            console.warn(f"the picture of event {event} is unknown: {error.message}")
        self.unknown_events.append(event)
        return None, None

    def _collect_noise(
        self,
        windows: Sequence[CutWindow],
        pictures: Sequence[tuple[int | None, str | None]],
    ) -> None:
        """Keep trials for the whitener, and compute it when they are enough."""
        assert self.preparation is not None
        for window, (_, image_id) in zip(windows, pictures, strict=True):
            self._noise_trials.append(window.signal)
            self._noise_names.append(image_id or window.name)
        self.missing_trials -= len(windows)
        if self.missing_trials:
            return
        _, stimuli = np.unique(self._noise_names, return_inverse=True)
        channels = self.preparation.channels
        noise = measure_noise(
            {"train": np.stack(self._noise_trials)},
            {"train": stimuli},
            self.preparation.steps,
            channels,
        )
        self.whitener = compute_whitener(noise, channels).astype(np.float32)
        self._noise_trials = []
        self._noise_names = []

    def _find_learned(self, signals: Tensor) -> list[bool]:
        """Return True for trials [n, C, T] that the model was trained on."""
        learned_trials = self.learned_trials
        if learned_trials is None or len(learned_trials) < 2:
            return [False] * len(signals)
        correlations = compute_trial_vectors(signals) @ learned_trials.T
        nearest = correlations.topk(2, dim=1).values  # [n, 2]
        # distances up to a factor: a learned trial is much nearer to its copy in the
        # training than to any other training trial
        first, second = (1 - nearest).clamp(min=0).sqrt().unbind(1)
        is_same = nearest[:, 0] > MIN_CORRELATION
        is_learned: list[bool] = (
            is_same | (first < MAX_DISTANCE_RATIO * second)
        ).tolist()
        return is_learned

    def _rank_gallery(
        self, epochs: Float32, rows: Sequence[int | None]
    ) -> tuple[Tensor, list[BestPictures], list[int | None]]:
        """Encode prepared windows, and rank the gallery by similarity to each window.

        Args:
            epochs: Prepared windows [n, E, T].
            rows: Row [n] of the shown picture in the gallery, or None if unknown.

        Returns:
            The signals [n, C, T] that the model receives, the most similar pictures,
            and the rank of the shown picture or None.
        """
        # choose the channels of the model, and normalise
        no_columns: dict[str, Any] = dict.fromkeys(COLUMNS)
        windows = replace(
            self.template,
            signal=epochs,
            image_ids=(),
            subject=self.person.subject,
            repetitions=None,
            index=None,
            **no_columns,
        )
        trials = choose_input(
            self.model.layout.spec,
            windows,
            STREAM_NAME,
            self.person.recordings.dataset.channels,
            False,
            self.person.channel_mapping,
        )
        trials = trials.normalise(self.person.normaliser)

        # the most similar pictures
        tokens = self.model.encode(trials)  # [n, D]
        similarities = (normalize(tokens) @ self._unit_tokens.T).cpu()
        # Number of pictures that are shown for each window.
        top = similarities.topk(min(5, len(self.image_ids)), dim=1)
        top_values = top.values.tolist()
        best = []
        for window, top_rows in enumerate(top.indices.tolist()):
            pictures = []
            for row, value in zip(top_rows, top_values[window], strict=True):
                similarity = round(value, 6)
                pictures.append(
                    {"image": self.image_ids[row], "similarity": similarity}
                )
            best.append(pictures)

        # ranks of the shown pictures, with a placeholder for unknown pictures
        targets = torch.tensor([row or 0 for row in rows], device=tokens.device)
        target_ranks = rank_targets(tokens, self.picture_tokens, targets).tolist()
        ranks = []
        for row, rank in zip(rows, target_ranks, strict=True):
            ranks.append(None if row is None else rank)
        return torch.from_numpy(trials.averages), best, ranks


def compute_trial_vectors(signals: Tensor) -> Tensor:
    """Compute unit vectors [n, F] by which trials [n, C, T] are recognised.

    They hold every k-th value, with the largest k that keeps 1,024.
    """
    values = signals.flatten(1).float()
    # Largest number of values by which a trial is recognised. 20,000 training trials
    # then take 80 MB.
    values = values[:, :: max(1, values.shape[1] // 1024)]
    return normalize(values - values.mean(1, keepdim=True), dim=1)


def read_learned_trials(
    tests: TestSet, model: TrainedModel
) -> tuple[Tensor | None, bool]:
    """Read the trials that a model was trained on, if their stores are unchanged.

    Returns:
        Vectors [n, F] of the trials, or None without trials, and True if no trial of
        the training is missing.
    """
    learned = model.history
    source = tests.get_recordings(model)
    stored = source.collect_identities(learned.subjects)
    vectors = []
    for subject in learned.subjects:
        name = source.name_store(subject)
        # a store that changed since the training holds other trials
        if name in stored and stored[name] == learned.signals.get(name):
            trials = tests.open_person(model, subject).train_trials
            vectors.append(compute_trial_vectors(torch.from_numpy(trials.averages)))
    is_complete = learned.has_all_subjects and stored == dict(learned.signals)
    return (torch.cat(vectors) if vectors else None), is_complete
