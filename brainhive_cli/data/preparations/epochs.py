"""Anyone's own epochs: files of mne, EEGLAB or NumPy whose trials were cut before."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.errors import RecipeError, naming
from brainhive_cli.core.recipe import Paths, validate
from brainhive_cli.data.preparations.recording import Own, OwnKeys
from brainhive_cli.data.recordings.channels import KeptChannels
from brainhive_cli.data.recordings.contract import cached_method
from brainhive_cli.data.recordings.epochs import (
    Axes,
    JoinedEpochs,
    name_trial_tables,
    read_epochs,
    require_span,
)
from brainhive_cli.data.recordings.headers import Header, make_header
from brainhive_cli.data.signals.cutting import Cutting, Milliseconds, Steps

EpochWindow = tuple[Milliseconds, Milliseconds]
LAST = 0.4
"""Share of a sample by which a window ends behind the last one of an epoch."""


class Config(OwnKeys):
    """Epochs in -epo.fif or .set, or arrays [trials, channels, times] in .npy or .npz.

    `sub-01_ses-01-epo.fif` or `sub-01_ses-01.npy`; next to it
    `sub-01_ses-01_trials.csv` with a line for each trial, unless metadata or events
    name the pictures.
    """

    # a filter takes the whole recording, and codes are no channel of epochs
    band_hz: ClassVar[tuple[None, None]] = (None, None)
    phase: ClassVar[str] = "zero"
    stim_channel: ClassVar[str] = ""

    column: str = Field(
        "",
        description="column of that table, or of mne's metadata; default: picture",
    )
    axes: Axes = Field(
        Axes(), description="of arrays whose file does not say them itself"
    )
    epoch_ms: EpochWindow | None = Field(  # type: ignore[assignment]
        None,
        exclude_if=lambda window: window is None,  # a store names what the files say
        description="start and stop of a trial; default: all of each epoch",
    )
    baseline: bool | None = Field(  # type: ignore[assignment]
        None,
        exclude_if=lambda baseline: baseline is None,
        description="subtract the mean of the samples up to the onset; default: if "
        "epochs begin before it",
    )
    keep_ms: EpochWindow | None = Field(  # type: ignore[assignment]
        None,
        exclude_if=lambda window: window is None,
        description="times that are kept, the last excluded; default: from the onset",
    )
    whitened: Literal["unknown"] | bool = Field(
        "unknown", description="whether signals were whitened before"
    )
    averaged: Literal["unknown"] | bool = Field(
        "unknown", description="whether each is an average of several trials"
    )
    in_order: bool = Field(
        True,
        exclude_if=lambda in_order: in_order,
        description="whether trials are stored in the order of time",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.whitened is True and self.whiten != "no":
            raise RecipeError(
                "preparation.whitened: they would be whitened twice",
                "preparation.whiten=no",
            )
        return self

    def build(self, paths: Paths) -> "Epochs":
        """Point at the files; nothing is read yet."""
        return Epochs.find(self, paths)


TINY = Config()


@dataclass(frozen=True)
class Epochs(Own):
    """The epochs below one folder."""

    are_epochs: ClassVar[bool] = True

    def files(self, subject: int) -> Sequence[Path]:
        """List the files of a subject, with the tables of trials."""
        paths = chain(*self._sessions(subject).values())
        tables = chain(*map(name_trial_tables, paths))
        return [*super().files(subject), *filter(Path.is_file, tables)]

    def session(self, subject: int, session: int) -> Any:
        """Prepare the trials of a session, by split, with the window of the files."""
        steps = self._make_cutting(self._channels(subject)).steps
        window = steps.model_dump(
            mode="json", include={"epoch_ms", "keep_ms", "baseline"}
        )
        recordings = super().session(subject, session)
        for trials in recordings.values():
            trials.provenance["preparation"] = window
        return recordings

    def _read(self, path: Path) -> JoinedEpochs:
        config = self.config
        return read_epochs(
            path, config.axes, config.rename, config.montage, config.column
        )

    @cached_method
    def _about(self, path: Path) -> tuple[Header, JoinedEpochs]:
        """Describe a file, without its signals."""
        epoched = self._read(path)
        with naming(path):
            raw, (first, last) = epoched.raw, epoched.span
            starts = np.arange(len(epoched.names)) * (last - first + 1) - first
            shown = []
            for start, names in zip(starts.tolist(), epoched.names, strict=True):
                shown += [(start, name) for name in names if name]
            header = make_header(
                raw, "names of trials", shown, warnings=epoched.warnings
            )
            return header, epoched._replace(raw=None)

    @cached_method
    def _read_header(self, path: Path) -> Header:
        return self._about(path)[0]

    def _open(self, path: Path) -> Any:
        return self._read(path).raw

    def _make_cutting(self, channels: KeptChannels) -> Cutting:
        path, header = next(iter(channels.headers.items()))
        span = self._about(path)[1].span
        config = self.config
        # so that the last sample, which is excluded at its own time, is kept
        ends = span[0], span[1] + LAST
        start, stop = (round(sample * 1000 / header.rate_hz, 3) for sample in ends)
        window = config.epoch_ms or (start, stop)
        fields = {
            "rate_hz": config.rate_hz,
            "whiten": config.whiten,
            "whiten_by": config.whiten_by,
            "epoch_ms": window,
            "baseline": start < 0 if config.baseline is None else config.baseline,
            "keep_ms": config.keep_ms or (max(0.0, window[0]), window[1]),
        }
        with naming(path):
            cutting = Cutting(validate(Steps, fields, "preparation"), header.rate_hz)
        for each in channels.headers:
            with naming(each):
                require_span(cutting, self._about(each)[1].span)
        return cutting

    def _when(
        self, path: Path, number: int, onsets: Int64, cutting: Cutting
    ) -> tuple[Int64, Float64, Int64]:
        # runs of the table, or the file; onsets where events have them
        _, epoched = self._about(path)
        first, last = epoched.span
        rows = (onsets + first) // (last - first + 1)
        runs = epoched.runs
        onset_s = epoched.onset_s
        runs = np.full(len(rows), number) if runs is None else runs[rows]
        onset_s = np.full(len(rows), np.nan) if onset_s is None else onset_s[rows]
        numbers = rows if self.config.in_order else np.full(len(rows), -1)
        return runs, onset_s, numbers
