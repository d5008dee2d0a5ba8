"""BOLD5000 2.0 from its single-trial betas, which GLMsingle estimated over groups of five sessions."""

from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import Field

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations._betas import BetaSteps
from brainhive_cli.data.preparations._brain_images import open_image
from brainhive_cli.data.preparations._published import PublishedBetas, Subject
from brainhive_cli.data.preparations._volumes import Mask
from brainhive_cli.data.published_data import BOLD5000_LIST, WAY_OUT, find_file, read_bold5000_names
from brainhive_cli.data.stores.recordings import Voxels

SESSIONS = {1: 15, 2: 15, 3: 15, 4: 9}
"""Of each subject."""
RUN_TRIALS = 37
"""Sessions have 333 or 370 trials, of nine or ten runs."""
TYPES = Literal["TYPEA-ASSUMEHRF", "TYPEB-FITHRF", "TYPEC-FITHRF-GLMDENOISE", "TYPED-FITHRF-GLMDENOISE-RR"]


class Config(BetaSteps):
    """CSI{1…4}_GLMbetas-TYPE_ses-NN.nii.gz, CSIN_brainmask.nii.gz and CSIN_imgnames.txt, in percent.

    All sessions of a subject must be there: the list of pictures is divided by how many volumes they have.
    """

    root: str = Field("", description="folder of the files; default: bold5000 below paths.data")
    betas: TYPES = Field("TYPED-FITHRF-GLMDENOISE-RR", description="type of the betas, as files are called")

    def build(self, paths: Paths) -> PublishedBetas:
        """Point at the data; nothing is read yet."""
        root, pattern = paths.dataset("bold5000", self.root), BOLD5000_LIST % "{subject}"
        return PublishedBetas(self, root, dataset="bold5000", pattern=pattern, find=_find)


TINY = Config()


def _find(config: Config, root: Path, subject: int) -> Subject:
    """Divide the list of pictures among the sessions, by how many volumes they have."""
    lists = [find_file(root, BOLD5000_LIST % whose) for whose in (subject, "[1-4]")]
    names, counts = read_bold5000_names(lists[0]), Counter(read_bold5000_names(lists[1]))
    mask = Mask.open(find_file(root, f"CSI{subject}_brainmask.nii.gz"), WAY_OUT)
    # type B may be called as the publisher's README has it
    betas = f"CSI{subject}_GLMbetas-{config.betas.replace('TYPEB', 'TY[PB]EB')}_ses-"
    numbers = range(1, SESSIONS.get(subject, 1) + 1)
    volumes = [find_file(root, f"{betas}{number:02d}.nii.gz") for number in numbers]
    lengths = [int(open_image(volume, WAY_OUT).shape[-1]) for volume in volumes]
    if sum(lengths) != len(names):
        problem = f"{lists[0]} lists {len(names)} trials, all sessions have {sum(lengths)} betas"
        raise BrainhiveError(problem, WAY_OUT)
    left, trials = iter(names), []
    for number, length in zip(numbers, lengths, strict=True):
        for place in range(length):
            split = "test" if counts[name := next(left)] > 1 else "train"
            trials.append((name, split, number, 1 + place // RUN_TRIALS))
    return Subject(
        [*lists, mask.path, *volumes],
        Voxels({}, grid=mask.grid),
        mask.width,
        trials,
        lambda session: mask.read_series(volumes[session - 1]),
        "over groups of five sessions, training and test together",
    )
