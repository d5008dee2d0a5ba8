"""fetch of cc2017, whose files lie in two repositories."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.published.cc2017 import Clips
from tests.publishers import cc2017_files
from tests.publishers.cc2017_files import key_masks_of
from tests.tools.hub_server import serving

pytestmark = pytest.mark.nightly


HUB = {
    "gongzx/cc2017_dataset": ("*.pt",),
    "McGregorW/NEURONS": ("masks", "qwen_annotation"),
}


def test_fetch_takes_both_repositories_and_unpacks_the_masks(
    go, home, tmp_path_factory, monkeypatch
):
    made, hub = (
        cc2017_files.write(tmp_path_factory.mktemp("made")),
        tmp_path_factory.mktemp("hub"),
    )
    for repository, patterns in HUB.items():
        (hub / repository).mkdir(parents=True)
        for path in (path for pattern in patterns for path in made.glob(pattern)):
            (shutil.copytree if path.is_dir() else shutil.copy)(
                path, hub / repository / path.name
            )
    weights = hub / "McGregorW/NEURONS/weights/brain_model_prior_last.pth"
    weights.parent.mkdir()
    weights.write_bytes(b"13 GB")
    with serving(hub) as served:
        served.lead(monkeypatch)
        # by which the hub's client keeps what it listed
        served.commits["McGregorW/NEURONS"] = "f" * 40
        go("fetch", "names=cc2017", "subjects=2")
        first = list(served.fetched)
        served.fetched.clear()
        go("fetch", "names=cc2017", "subjects=2")

        assert served.fetched == []  # all is there
    names = [Path(name).name for name in first]
    assert {
        "GT_train_3fps.pt",
        "subj02_train_fmri.pt",
        "mask_cls_test_qwen_video.tar.gz",
    } <= {*names}
    assert not {"subj01_train_fmri.pt", weights.name} & {*names}
    images = Clips().build(Paths()).images("train")
    assert np.array_equal(np.stack(images.masks_of(0)), key_masks_of(2)[0])
