"""Writes recordings of the EEG of NeuroTechX, in which a person saw gratings.

The tables lie in `data/visual/spatial_freq` of the repository
NeuroTechX/eeg-notebooks_v0.1 (BSD-3). Each becomes a FIF file whose markers are spatial
frequencies.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

FILES = (
    "data_2017-09-27-22.54.54.csv",
    "data_2017-09-27-23.01.58.csv",
    "data_2017-09-27-23.08.19.csv",
)
"""Runs of one person. Columns: time, five channels, spatial frequency (0 except at the
onset of a grating), contrast, orientation.
"""
CHANNELS = ("TP9", "AF7", "AF8", "TP10", "Oz")
RATE_HZ = 256.0
VOLTS = 1e-6
FREQUENCIES = (1, 2, 3, 4)


def write(tables: Sequence[Path], home: Path) -> None:
    """Write the recordings into a home, and `frequency.csv` with their markers."""
    import mne

    folder = home / "data/recordings"
    folder.mkdir(parents=True)
    info = mne.create_info(list(CHANNELS), RATE_HZ, "eeg")
    for number, path in enumerate(tables, start=1):
        # the last columns are empty but at onsets
        table = np.genfromtxt(path, delimiter=",", skip_header=1, filling_values=0)
        signals = table[:, 1 : 1 + len(CHANNELS)].T * VOLTS  # [C, T]
        markers = table[:, 1 + len(CHANNELS)].astype(int)
        onsets = np.flatnonzero(markers)
        labels = [f"f{frequency}" for frequency in markers[onsets]]
        raw = mne.io.RawArray(signals, info, verbose="error")
        raw.set_annotations(mne.Annotations(onsets / RATE_HZ, 0, labels))
        raw.save(folder / f"sub-01_ses-{number:02d}_raw.fif", verbose="error")
    rows = [f"f{frequency},f{frequency}" for frequency in FREQUENCIES]
    text = "\n".join(["event,picture", *rows]) + "\n"
    (home / "frequency.csv").write_text(text, encoding="utf-8")
