"""fMRI of cc2017 as it is distributed, and the stores made from it."""

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.published.cc2017 import Cc2017Bold
from brainhive_cli.data.signals.spaces import Voxels
from brainhive_cli.data.stores.signal_store import SignalStore
from tests.publishers import cc2017_files
from tests.publishers.cc2017_files import COUNTS, WIDTHS, draw_signal
from tests.worlds.array_trials import arrange


@pytest.fixture
def root(home):
    return cc2017_files.write(home / "data/cc2017", masks="none")


def test_all_subjects_become_stores_of_voxels_without_regions(run_command, home, root):
    run_command("prepare", "preparation.kind=cc2017")

    for subject, width in WIDTHS.items():
        store = SignalStore.open(home / f"signals/cc2017/default/sub-{subject:02d}.h5")
        for split, count in COUNTS.items():
            split_trials = store[split]
            arranged = arrange(split_trials)
            expected = draw_signal(subject, split, count)
            assert arranged.signal.shape == tuple(expected.shape) + (1,)
            assert split_trials.signal.shape[1] == width
            assert np.array_equal(arranged.signal[..., 0], expected)
            assert arranged.image_ids == [f"{split}/{clip}" for clip in range(count)]
            assert isinstance(split_trials.space, Voxels)
            assert not split_trials.space.regions
            assert split_trials.rate_hz is None
            assert split_trials.unit == "z-score"
            assert split_trials.times_s.tolist() == [0]


def test_wrong_files_are_refused(root, run_command):
    path = root / "subj01_test_fmri.pt"
    sound = path.read_bytes()
    for content, facts in (
        (torch.zeros(4, 2), r"float32 \[4, 2\].* \[N, R, V\]"),
        (torch.full((3, 10, 11), torch.nan), "finite"),
        (sound[:-300], r"subj01_test_fmri\.pt"),
    ):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(BrainhiveError, match=facts) as caught:
            run_command("prepare", "preparation.kind=cc2017", "subjects=1")
        assert "\n" not in caught.value.message
        assert caught.value.hint


def test_sizes_of_files_include_all_repetitions(home):
    sizes = Cc2017Bold().build(Paths()).sizes
    # 4,320 clips twice, 1,200 ten times, in float32 of 13,447 vertices
    assert sizes["train"][1] == 34_560 * 13_447
    assert sizes["test"][1] == 48_000 * 13_447
