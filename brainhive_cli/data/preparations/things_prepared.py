"""THINGS-EEG2 and THINGS-MEG in the forms that other projects prepare, whatever their files are called.

Forms: UBP's and BrainHiVE's train.pt; NICE's, AlignVis's and ATM's bare pickles named .npy; the .npy of the
data's authors; NeuroBridge's and SAMGA's train.npy, an array with an info.json or a bare pickle; ATM's and
AlignVis's pickles of MEG. Nothing but arrays and plain types is ever read of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations._prepared import Files, FilesByRow, PreparedFiles
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.things_files import (
    METADATA,
    SHOWN,
    has_signal,
    make_recording,
    rate_of,
    read_info,
    read_metadata,
    refusing,
)
from brainhive_cli.data.trials import Lazy, Trials

NAMES = {
    "train": (
        *("train.pt", "preprocessed_eeg_training.npy", "train.npy", "preprocessed_meg_training.pkl"),
        "train_sub{subject}.pkl",
    ),
    "test": (
        *("test.pt", "preprocessed_eeg_test.npy", "test.npy", "preprocessed_meg_zs_test.pkl"),
        "test_sub{subject}.pkl",
    ),
}
"""Names of the file of a split: by UBP; NICE, AlignVis, ATM and the data's authors; NeuroBridge and SAMGA;
ATM, of MEG; AlignVis, of MEG."""
PLACES = ("sub-{subject:02d}/", "*/sub-{subject:02d}/", "", "*/")
"""Folders of the file below root; the last two only where its name says the subject."""
FILES = {
    split: Files(
        tuple(f"{folder}{name}" for folder in PLACES for name in names if "sub" in folder + name),
        label="sub-{subject:02d}/" + f"{', '.join(names[:-1])} or {names[-1]}",
        is_alone=True,
    )
    for split, names in NAMES.items()
}
FORMS = "a dict of eeg and img, preprocessed_eeg_data, data or meg_data, or an array [..., R, C, T]"
SOURCE = "get the prepared files of a project, or prepare raw ones: preparation.kind=things-eeg or things-meg"


class Config(parts.Config):
    """Prepared files: sub-XX/{train,test}.pt and the like, one folder below root or two.

    Files that do not say what their pictures are must be in the order of the pictures' paths, which
    image_metadata.npy lists, or the pictures themselves do.
    """

    root: str = Field("", description="folder of the subjects; default: that of `stimuli`")
    stimuli: Annotated[Any, parts.part("datasets", "things-eeg")] = Field(
        "things-eeg", validate_default=True, description="the data set of the pictures that were shown"
    )
    unit: str = Field(
        "",
        description="where files do not say it; default: as the data set's own, whitened or z-score",
    )

    def build(self, paths: Paths) -> PreparedFiles:
        """Point at the data; nothing is read yet."""
        if not hasattr(self.stimuli, "open"):
            name = self.stimuli.build(paths).name
            raise RecipeError(f"no project prepares {name}", "stimuli: things-eeg or things-meg")
        stimuli = self.stimuli.open(paths)
        root = paths.dataset(stimuli.name, self.root or self.stimuli.root)
        read = partial(_read, root, stimuli, self.unit)
        return PreparedFiles(stimuli.name, root, SOURCE, FILES, read)


TINY = Config(root="prepared")


def _read(root: Path, stimuli: Any, unit: str, files: FilesByRow, subject: int, split: str) -> Trials:
    """Read the signals of a split, in any of the forms."""
    path = files[split][0]
    content = pickles.load(path)
    is_array = isinstance(content, np.ndarray)
    if not (is_array or has_signal(content)):
        held = f"has keys {sorted(map(str, content))}" if isinstance(content, dict) else "is another"
        raise BrainhiveError(f"{path} {held}, not {FORMS}", SOURCE)
    info = read_info(path) if is_array else None
    with refusing(path, SOURCE):
        form = "array" if is_array else "dict of " + ", ".join(sorted(map(str, content)))
        provenance: dict[str, Any] = {"source": path.name, "form": f"{path.suffix.removeprefix('.')}: {form}"}
        provenance |= SHOWN[stimuli.name]

        # the info.json next to an array says its channels, times and unit
        if info is not None:
            content = info.add_to(content, split)
            provenance["info"] = info.model_dump(exclude={"ch_names", "times"})
            if info.unit and unit not in ("", info.unit):
                problem = f"unit {unit!r}: info.json says {info.unit!r}"
                raise RecipeError(problem, "leave out preparation.unit")
            unit = info.unit or unit

        # what neither file nor info.json says is as in the data set's own files
        rate_hz = (info.sfreq if info else rate_of(content)) or stimuli.rate_hz
        list_pictures = partial(_list_pictures, root, stimuli, split)
        known = rate_hz, unit or stimuli.unit, stimuli.montage, list_pictures
        recording = make_recording(path, content, split, *known, provenance)

    signal = recording.signal
    shape, dtype = tuple(signal.shape), np.dtype(signal.dtype)
    return replace(recording, signal=Lazy(path, shape, dtype, lambda part: np.asarray(signal[part])))


def _list_pictures(root: Path, stimuli: Any, split: str) -> Sequence[str]:
    """List the pictures in the order of their paths."""
    for folder in (root, root.parent, stimuli.root):
        if stimuli.name == "things-eeg" and (path := folder / METADATA).is_file():
            return read_metadata(path, SOURCE)[split]
    return list(stimuli.images(split).image_ids)
