"""fMRI of cc2017 as it is distributed, and the stores that it becomes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.published.cc2017 import Cc2017Bold
from brainhive_cli.data.signals.spaces import Voxels
from brainhive_cli.data.stores.signal_store import SignalStore
from tests.publishers import cc2017_files
from tests.publishers.cc2017_files import COUNTS, WIDTHS, signal_of
from tests.tools.trial_numbers import numbers_of_stores


@pytest.fixture
def root(home: Path) -> Path:
    return cc2017_files.write(home / "data/cc2017", masks="none")


def test_both_splits_of_all_subjects_become_stores_of_voxels_without_regions(
    go, home, root, recorded
):
    go("prepare", "preparation.kind=cc2017")

    for subject, width in WIDTHS.items():
        store = SignalStore.open(home / f"signals/cc2017/default/sub-{subject:02d}.h5")
        for split, count in COUNTS.items():
            found, expected = store[split], signal_of(subject, split, count)
            assert (
                found.signal.shape == (*expected.shape, 1)
                and found.signal.shape[2] == width
            )
            assert np.array_equal(found.signal[..., 0], expected)
            assert list(found.image_ids) == [f"{split}/{clip}" for clip in range(count)]
            assert (
                isinstance(found.space, Voxels)
                and not found.space.regions
                and found.rate_hz is None
            )
            assert found.unit == "z-score"
    recorded(digits=5, **numbers_of_stores(home))


def test_files_of_another_kind_are_one_line(root, go):
    path = root / "subj01_test_fmri.pt"
    sound = path.read_bytes()
    for content, message in (
        (
            torch.zeros(4, 2),
            r"it holds torch.float32 \[4, 2\], not numbers \[N, R, V\]",
        ),
        (torch.full((3, 10, 11), torch.nan), "signals that are not finite"),
        (sound[:-300], "damaged or cut short"),
    ):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(BrainhiveError, match=message) as caught:
            go("prepare", "preparation.kind=cc2017", "subjects=1")
        assert "\n" not in caught.value.message and caught.value.hint


def test_the_sizes_of_files_are_those_of_all_repetitions(home):
    sizes = Cc2017Bold().build(Paths()).sizes
    # 4,320 clips twice, 1,200 ten times, in float32 of 13,447 vertices
    assert sizes["train"][1] == 34_560 * 13_447
    assert sizes["test"][1] == 48_000 * 13_447
