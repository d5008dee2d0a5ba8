"""Small EEG data sets in BIDS."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image


def paint(path: Path) -> None:
    """Write a black picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def describe_dataset(root: Path, name: str) -> None:
    """Write the description that makes a folder a BIDS data set."""
    root.mkdir(parents=True, exist_ok=True)
    content = {"Name": name, "BIDSVersion": "1.10.0"}
    (root / "dataset_description.json").write_text(json.dumps(content))


def write_tsv(path: Path, columns: str, rows: Iterable[Sequence[Any]]) -> None:
    """Write a table whose columns are named in a text, separated by blanks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(map(str, row)) for row in (columns.split(), *rows)]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def write_edf(
    path: Path, signal_uv: NDArray[Any], channels: Sequence[str], rate_hz: float
) -> None:
    """Write a recording [C, samples] as .edf or .bdf."""
    import edfio

    path.parent.mkdir(parents=True, exist_ok=True)
    is_bdf = path.suffix == ".bdf"
    make_signal = edfio.BdfSignal if is_bdf else edfio.EdfSignal
    signals = []
    for name, row in zip(channels, signal_uv, strict=True):
        signals.append(make_signal(row, rate_hz, label=name, physical_dimension="uV"))
    (edfio.Bdf if is_bdf else edfio.Edf)(signals).write(path)


def write_sidecars(stem: Path, channels: Sequence[str], rate_hz: float) -> None:
    """Write _eeg.json and _channels.tsv of a recording, or of all below a folder."""
    content = {"SamplingFrequency": rate_hz, "TaskName": "images"}
    stem.with_name(f"{stem.name}_eeg.json").write_text(json.dumps(content))
    rows = [(name, "EEG", "uV") for name in channels]
    write_tsv(stem.with_name(f"{stem.name}_channels.tsv"), "name type units", rows)
