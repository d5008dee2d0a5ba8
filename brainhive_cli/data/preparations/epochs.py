"""Trials of epochs that mne, EEGLAB or NumPy saved."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli.core.base import Float64, Int64, RecipeError, naming
from brainhive_cli.core.recipes import Paths, validate
from brainhive_cli.data.preparations.recording import OwnRecordings, OwnSignalKeys
from brainhive_cli.data.recordings import (
    Axes,
    EventNames,
    Header,
    JoinedEpochs,
    KeptChannels,
    cached_method,
    make_header,
    name_trial_tables,
    read_epochs,
    require_span,
)
from brainhive_cli.data.signals import Cutting, Milliseconds, Steps

EpochWindow = tuple[Milliseconds, Milliseconds]


class Config(OwnSignalKeys):
    """Epochs in -epo.fif or .set, or arrays [trials, channels, times] in .npy or .npz.

    The files are called `sub-01_ses-01-epo.fif` or `sub-01_ses-01.npy`. The table
    `sub-01_ses-01_trials.csv` next to them has a line for each trial, unless metadata
    or events name the pictures.
    """

    # filters need the whole recording, and epochs have no channel of codes
    band_hz: ClassVar[tuple[None, None]] = (None, None)
    phase: ClassVar[str] = "zero"
    stim_channel: ClassVar[str] = ""

    column: str = Field(
        "",
        description="column of the pictures in the table of trials or in mne's "
        "metadata; default: picture",
    )
    axes: Axes = Field(
        Axes(), description="axes of arrays whose file does not describe them"
    )
    epoch_ms: EpochWindow | None = Field(  # type: ignore[assignment]
        None,
        exclude_if=lambda window: window is None,  # a store has the window of the files
        description="start and stop of a trial; default: the whole epoch",
    )
    baseline: bool | None = Field(  # type: ignore[assignment]
        None,
        exclude_if=lambda baseline: baseline is None,
        description="subtract the mean of the samples up to the onset; default: true "
        "for epochs that begin before the onset",
    )
    keep_ms: EpochWindow | None = Field(  # type: ignore[assignment]
        None,
        exclude_if=lambda window: window is None,
        description="times to keep, the last excluded; default: from the onset",
    )
    whitened: Literal["unknown"] | bool = Field(
        "unknown", description="true if the signals were whitened before"
    )
    averaged: Literal["unknown"] | bool = Field(
        "unknown", description="true if each epoch is an average of several trials"
    )
    in_order: bool | None = Field(
        None,
        exclude_if=lambda in_order: in_order is None,
        description="true if the epochs are stored in the order of time; default: "
        "true for .set, unknown for arrays and .fif without the times of events",
    )

    # replaces the validator of `Steps`, which needs a window
    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.whitened is True and self.whiten != "no":
            raise RecipeError(
                "preparation.whitened is true, so the signals would be whitened twice",
                "preparation.whiten=no",
            )
        return self

    def build(self, paths: Paths) -> "Epochs":
        """Create the preparation without reading a file."""
        return Epochs.from_config(self, paths)


TINY = Config()


@dataclass(frozen=True)
class Epochs(OwnRecordings):
    """The epochs below a folder."""

    are_epochs: ClassVar[bool] = True

    def files(self, subject: int) -> Sequence[Path]:
        """List the files of a subject and the tables of trials."""
        paths = list(super().files(subject))
        for epochs_path in self._list_paths(subject):
            paths += filter(Path.is_file, name_trial_tables(epochs_path))
        return paths

    def session(self, subject: int, session: int) -> Any:
        """Prepare the trials of a session, and note their window."""
        steps = self._make_cutting(self._channels(subject)).steps
        window = steps.model_dump(
            mode="json", include={"epoch_ms", "keep_ms", "baseline"}
        )
        recordings = super().session(subject, session)
        for trials in recordings.values():
            trials.provenance["preparation"] = window
        return recordings

    def _read(self, path: Path) -> JoinedEpochs:
        """Read the epochs of a file."""
        config = self.config
        return read_epochs(
            path, config.axes, config.rename, config.montage, config.column
        )

    @cached_method
    def _read_without_signals(self, path: Path) -> tuple[Header, JoinedEpochs]:
        """Read the header and the trials of a file once, without the signals."""
        epochs = self._read(path)
        first_sample, last_sample = epochs.span
        n_samples = last_sample - first_sample + 1
        with naming(path):
            # `raw` holds the epochs end to end
            onsets = np.arange(len(epochs.names)) * n_samples - first_sample
            events: list[tuple[int, str]] = []
            for onset, names in zip(onsets.tolist(), epochs.names, strict=True):
                events += [(onset, name) for name in names if name]
            header = make_header(
                epochs.raw, "names of trials", events, warnings=epochs.warnings
            )
            return header, epochs._replace(raw=None)

    @cached_method
    def _read_header(self, path: Path, names: EventNames) -> Header:
        return self._read_without_signals(path)[0]

    def _open(self, path: Path) -> Any:
        return self._read(path).raw

    def _make_cutting(self, channels: KeptChannels) -> Cutting:
        """Return the cutting of the recipe's window, or of all samples in the first
        file.
        """
        config = self.config
        first_path, header = next(iter(channels.headers.items()))
        first_sample, last_sample = self._read_without_signals(first_path)[1].span
        start_ms = round(first_sample * 1000 / header.rate_hz, 3)
        # Samples by which the default window ends after the last sample of an epoch,
        # because `keep_ms` excludes the sample at its end.
        stop_ms = round((last_sample + 0.4) * 1000 / header.rate_hz, 3)
        window_ms = config.epoch_ms or (start_ms, stop_ms)
        fields = {
            "rate_hz": config.rate_hz,
            "whiten": config.whiten,
            "whiten_by": config.whiten_by,
            "epoch_ms": window_ms,
            "baseline": start_ms < 0 if config.baseline is None else config.baseline,
            "keep_ms": config.keep_ms or (max(0.0, window_ms[0]), window_ms[1]),
        }
        with naming(first_path):
            cutting = Cutting(validate(Steps, fields, "preparation"), header.rate_hz)
        for path in channels.headers:
            with naming(path):
                require_span(cutting, self._read_without_signals(path)[1].span)
        return cutting

    def _locate_trials(
        self, path: Path, file_number: int, onsets: Int64, cutting: Cutting
    ) -> tuple[Int64, Float64, Int64]:
        _, epochs = self._read_without_signals(path)
        first_sample, last_sample = epochs.span
        rows = (onsets + first_sample) // (last_sample - first_sample + 1)
        if epochs.runs is None:
            runs = np.full(len(rows), file_number)
        else:
            runs = epochs.runs[rows]
        if epochs.onset_s is None:
            onset_s = np.full(len(rows), np.nan)
        else:
            onset_s = epochs.onset_s[rows]
        in_order = self.config.in_order
        if in_order is None:
            in_order = epochs.is_ordered
        numbers = rows if in_order else np.full(len(rows), -1)
        return runs, onset_s, numbers
