"""Tests of fetch with cc2017, whose files are in two repositories."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.published.cc2017 import Clips
from tests.publishers import cc2017_files
from tests.publishers.cc2017_files import make_key_masks
from tests.tools.hub_server import serving

pytestmark = pytest.mark.nightly


HUB = {
    "gongzx/cc2017_dataset": ("*.pt",),
    "McGregorW/NEURONS": ("masks", "qwen_annotation"),
}


def test_fetch_takes_both_repositories_and_unpacks_the_masks(
    run_command, home, tmp_path_factory, monkeypatch
):
    files = cc2017_files.write(tmp_path_factory.mktemp("files"))
    hub = tmp_path_factory.mktemp("hub")
    for repository, patterns in HUB.items():
        (hub / repository).mkdir(parents=True)
        for pattern in patterns:
            for path in files.glob(pattern):
                copy = shutil.copytree if path.is_dir() else shutil.copy
                copy(path, hub / repository / path.name)
    weights = hub / "McGregorW/NEURONS/weights/brain_model_prior_last.pth"
    weights.parent.mkdir()
    weights.write_bytes(b"13 GB")
    with serving(hub) as server:
        server.redirect_client(monkeypatch)
        # the hub's client caches the list of files by the commit
        server.commits["McGregorW/NEURONS"] = "f" * 40
        run_command("fetch", "names=cc2017", "subjects=2")
        fetched_names = {Path(name).name for name in server.fetched}
        server.fetched.clear()
        run_command("fetch", "names=cc2017", "subjects=2")

        # the second run downloads nothing
        assert server.fetched == []
    assert fetched_names >= {
        "GT_train_3fps.pt",
        "subj02_train_fmri.pt",
        "mask_cls_test_qwen_video.tar.gz",
    }
    assert fetched_names.isdisjoint({"subj01_train_fmri.pt", weights.name})
    images = Clips().build(Paths()).images("train")
    assert np.array_equal(np.stack(images.get_masks(0)), make_key_masks(2)[0])
