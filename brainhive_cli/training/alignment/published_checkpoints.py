"""Checkpoints that other projects' trainings wrote, read as brain models: MindEye1's, MindEye2's, NEURONS'.

MindEye1 and NEURONS choose their best epoch on test stimuli; MindEye2 keeps its last.
"""

import re
from pathlib import Path

from torch import Tensor

from brainhive_cli.core import documents, weights
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.training.alignment import mindeye1, mindeye2
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.learned import Learned

ENDINGS = (".pth", ".pt")
NSD, CC2017 = "nsd", "cc2017"
FOLDERS = 5
"""Last parts of a path that may name the subject: NEURONS' has EXP/exp_*/subj_*/checkpoints/FILE."""


def is_checkpoint(path: Path) -> bool:
    """Whether a path may be such a checkpoint: a file that torch wrote."""
    return path.suffix in ENDINGS and path.is_file()


def holds_model(path: Path) -> bool:
    """Whether such a file holds a whole brain model, by the names of its weights."""
    names = _state(path)
    return any(name.startswith(("ridge.linears.", "lin0.", mindeye1.HIGH_LEVEL)) for name in names)


def learned_in(path: Path) -> Learned:
    """Say what such a model learned from; which stimuli is not in the file.

    Raises:
        BrainhiveError: if neither file nor folder is named by the subject.
    """
    dataset = CC2017 if path.name.startswith(mindeye2.NEURONS_FILE) else NSD
    subjects = subjects_of(path)
    is_mindeye2s = dataset == NSD and any(name.startswith("ridge.linears.") for name in _state(path))
    selection = "last epoch" if is_mindeye2s else "test"
    return Learned(selection=selection, dataset=dataset, recordings=dataset, subjects=subjects)


def read(path: Path) -> tuple[Layout, dict[str, Tensor]]:
    """Read a checkpoint's architecture and weights.

    Raises:
        BrainhiveError: if it is damaged, or no such model.
    """
    state = _state(path)
    if any(name.startswith("ridge.linears.") for name in state):
        return mindeye2.read(path, state, subjects_of(path))
    return mindeye1.read(path, state, subjects_of(path)[0])


def subjects_of(path: Path) -> tuple[int, ...]:
    """Find the subjects in a path's names; MindEye2's `multisubject_subj01` learned from the seven others.

    Raises:
        BrainhiveError: if there is none.
    """
    parts = "/".join(path.absolute().parts[-FOLDERS:])
    if not (named := re.findall(r"subj_?0?([1-8])(?!\d)", parts)):
        raise BrainhiveError(
            f"{path} does not say whose voxels it takes",
            "keep it in a folder named as it was published, with subj01 to subj08 in its name",
        )
    subject = int(named[-1])
    others = tuple(each for each in range(1, 9) if each != subject)
    return others if "multisubject" in parts else (subject,)


def _state(path: Path) -> dict[str, Tensor]:
    found = weights.read(path, documents.DOWNLOAD, BrainhiveError)
    return {name.removeprefix("module."): value for name, value in found.items()}
