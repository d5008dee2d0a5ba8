"""fMRI of cc2017 as it is distributed, and the stores that it becomes."""

from pathlib import Path

import cc2017_files
import numpy as np
import pytest
import torch
from cc2017_files import COUNTS, WIDTHS, signal_of

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations import Merged
from brainhive_cli.data.published import PreparedFiles
from brainhive_cli.data.published.cc2017 import Bold
from brainhive_cli.data.spaces import Voxels
from brainhive_cli.data.stores.recordings import SignalStore


def films() -> PreparedFiles:
    return Bold().build(Paths())


@pytest.fixture
def root(home: Path) -> Path:
    return cc2017_files.write(home / "data/cc2017", masks="none")


@pytest.mark.parametrize("is_archive", [True, False], ids=["zip", "legacy"])
def test_both_splits_of_all_subjects_become_stores_of_voxels_without_regions(go, home, is_archive):
    cc2017_files.write(home / "data/cc2017", masks="none", is_archive=is_archive)

    go("prepare", "preparation.kind=cc2017")

    for subject, width in WIDTHS.items():
        store = SignalStore.open(home / f"signals/cc2017/default/sub-{subject:02d}.h5")
        for split, count in COUNTS.items():
            found, expected = store[split], signal_of(subject, split, count)
            assert found.signal.shape == (*expected.shape, 1) and found.signal.shape[2] == width
            assert np.array_equal(found.signal[..., 0], expected)
            assert list(found.image_ids) == [f"{split}/{clip}" for clip in range(count)]
            assert isinstance(found.space, Voxels) and not found.space.regions and found.rate_hz is None
            assert found.unit == "z-score"


def test_subjects_are_those_whose_files_are_there_in_any_folder(root):
    (root / "fmri").mkdir()
    (root / "subj01_train_fmri.pt").rename(root / "fmri/subj01_train_fmri.pt")
    (root / "subj02_train_fmri.pt").unlink()
    assert isinstance(films(), Merged) and films().subjects == (1,)
    assert films().files(1) == [root / "fmri/subj01_train_fmri.pt", root / "subj01_test_fmri.pt"]
    with pytest.raises(MissingData, match=r"no .*/subj02_train_fmri\.pt") as caught:
        films().files(2)
    assert caught.value.hint == "brainhive fetch cc2017"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(4, 10, 11), r"has 4 clips, and GT_test_3fps\.pt has 3"),
        (torch.zeros(4, 2), r"it holds torch.float32 \[4, 2\], not numbers \[N, R, V\]"),
        (torch.zeros(3, 0, 11), r"it holds torch.float32 \[3, 0, 11\], not numbers"),
        (torch.zeros(3, 10, 12), r"has 12 voxels, and subj01_train_fmri\.pt has 11"),
        (torch.full((3, 10, 11), torch.nan), "signals that are not finite"),
        (b"half", "damaged or cut short"),
    ],
    ids=[
        "clips",
        "axes",
        "no repetition",
        "other voxels",
        "not a number",
        "half downloaded",
    ],
)
def test_files_of_another_kind_are_one_line(root, go, content, message):
    path = root / "subj01_test_fmri.pt"
    if isinstance(content, bytes):
        path.write_bytes(path.read_bytes()[:-300])
    else:
        torch.save(content, path)
    with pytest.raises(BrainhiveError, match=message) as caught:
        go("prepare", "preparation.kind=cc2017", "subjects=1")
    assert "\n" not in caught.value.message and caught.value.hint
