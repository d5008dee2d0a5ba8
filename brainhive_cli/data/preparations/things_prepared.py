"""THINGS-EEG2 and THINGS-MEG in the forms that other projects prepare, whatever their files are called.

Forms: UBP's and BrainHiVE's train.pt; NICE's, AlignVis's and ATM's bare pickles named .npy; the .npy of the
data's authors; NeuroBridge's and SAMGA's train.npy, an array with an info.json or a bare pickle; ATM's and
AlignVis's pickles of MEG. Nothing but arrays and plain types is ever read of them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.damage import RAISED
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError, first_line
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations._neurobridge_info import info_of
from brainhive_cli.data.preparations._things_eeg_pictures import METADATA, image_ids
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.stores.published_signals import Usual, has_signal, rate_of, recording
from brainhive_cli.data.stores.recordings import Recording, Sliced

FILES = {
    "train": (
        *("train.pt", "preprocessed_eeg_training.npy", "train.npy", "preprocessed_meg_training.pkl"),
        "train_sub{subject}.pkl",
    ),
    "test": (
        *("test.pt", "preprocessed_eeg_test.npy", "test.npy", "preprocessed_meg_zs_test.pkl"),
        "test_sub{subject}.pkl",
    ),
}
"""What the file of a split is called: by UBP; NICE, AlignVis, ATM and the data's authors; NeuroBridge and
SAMGA; ATM, of MEG; AlignVis, of MEG."""
PLACES = ("sub-{subject:02d}", "*/sub-{subject:02d}", "", "*")
"""Where it lies below root; the last two only where its name says the subject."""
NUMBERED = re.compile(r"(?:.*/)?sub-(\d+)/[^/]+|(?:.*/)?train_sub(\d+)\.pkl")
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

    def build(self, paths: Paths) -> "Prepared":
        """Point at the data; nothing is read yet."""
        stimuli = self.stimuli.build(paths)
        if not hasattr(stimuli, "montage"):
            raise RecipeError(f"no project prepares {stimuli.name}", "stimuli: things-eeg or things-meg")
        return Prepared(self, paths.dataset(stimuli.name, self.root or self.stimuli.root), stimuli)


TINY = Config(root="prepared")


@dataclass(frozen=True)
class Prepared:
    """Prepared files below one root.

    Attributes:
        stimuli: The data set of the pictures.
    """

    config: Config
    root: Path
    stimuli: Any
    splits: tuple[str, ...] = ("train", "test")

    @property
    def dataset(self) -> str:
        """The data set of the pictures."""
        return str(self.stimuli.name)

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects whose training files are there."""
        patterns = [f"{place}/sub-*/{name}" for place in (".", "*") for name in FILES["train"]]
        patterns += [f"{place}/train_sub*.pkl" for place in (".", "*")]
        paths = {path.relative_to(self.root).as_posix() for each in patterns for path in self.root.glob(each)}
        found = filter(None, map(NUMBERED.fullmatch, paths))
        return tuple(sorted({int(match[1] or match[2]) for match in found}))

    def files(self, subject: int) -> Sequence[Path]:
        """List the files of both splits."""
        return [self._file(subject, split) for split in self.splits]

    def recording(self, subject: int, split: str) -> Recording:
        """Open a split's signals; they are read, and must be finite, when they are sliced."""
        path = self._file(subject, split)
        content = pickles.load(path)
        if not (isinstance(content, np.ndarray) or has_signal(content)):
            held = f"has keys {sorted(map(str, content))}" if isinstance(content, dict) else "is another"
            raise BrainhiveError(f"{path} {held}, not {FORMS}", SOURCE)
        info = info_of(path) if isinstance(content, np.ndarray) else None
        try:
            provenance: dict[str, Any] = {"source": path.name, "form": _form(path, content)}
            if info is not None:
                content = info.content(content, split)
                provenance["info"] = info.model_dump(exclude={"ch_names", "times"})
            rate_hz = (info.sfreq if info else rate_of(content)) or self.stimuli.rate_hz
            unit = self._unit(info.unit if info else "")
            usual = Usual(rate_hz, unit, self.stimuli.montage, lambda: self._listed(split))
            found = recording(path, content, split, usual, provenance)
        except (MissingData, RecipeError):
            raise
        except (BrainhiveError, *RAISED) as error:
            raise BrainhiveError(f"{path}: {first_line(error)}", SOURCE) from error
        signal = found.signal
        shape, dtype = tuple(signal.shape), np.dtype(signal.dtype)
        return replace(found, signal=Sliced(path, shape, dtype, lambda part: np.asarray(signal[part])))

    def _unit(self, said: str) -> str:
        if said and self.config.unit not in ("", said):
            raise RecipeError(
                f"unit {self.config.unit!r}: info.json says {said!r}", "leave out preparation.unit"
            )
        return said or self.config.unit or self.stimuli.unit

    def _file(self, subject: int, split: str) -> Path:
        found: dict[Path, None] = {}
        for place in PLACES:
            for name in FILES[split]:
                if "sub" in place or "sub" in name:
                    pattern = f"{place}/{name}".lstrip("/").format(subject=subject)
                    found |= dict.fromkeys(sorted(self.root.glob(pattern)))
        if not found:
            names = ", ".join(name.format(subject=subject) for name in FILES[split])
            raise MissingData(f"no {self.root}/sub-{subject:02d}/: none of {names}", SOURCE)
        if len(found) > 1:
            several = ", ".join(path.relative_to(self.root).as_posix() for path in found)
            raise MissingData(
                f"{self.root} has several {split} files of subject {subject}: {several}",
                "preparation.root=FOLDER, that of one of them",
            )
        return next(iter(found))

    def _listed(self, split: str) -> Sequence[str]:
        """List the pictures in the order of their paths."""
        for folder in (self.root, self.root.parent, self.stimuli.root):
            if self.dataset == "things-eeg" and (path := folder / METADATA).is_file():
                return image_ids(path, SOURCE)[split]
        return list(self.stimuli.images(split).image_ids)


def _form(path: Path, content: Any) -> str:
    """Say what kind of file was read, for the provenance."""
    held = "array" if isinstance(content, np.ndarray) else "dict of " + ", ".join(sorted(map(str, content)))
    return f"{path.suffix.removeprefix('.')}: {held}"
