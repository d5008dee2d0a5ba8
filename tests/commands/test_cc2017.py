"""cc2017 from files to stores, checks and downloads."""

import shutil
from pathlib import Path

import cc2017_files
import numpy as np
import pytest
from cc2017_files import COUNTS, captions_of, frames_of, key_masks_of, labels_of
from hub_server import serving
from PIL import Image

from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.published.cc2017 import Clips
from brainhive_cli.data.stores.target_store import TargetStore, path_of
from brainhive_cli.models.clip_conditions import CaptionTokens
from brainhive_cli.models.encoders.python import example

COLOURS = "python:brainhive_cli.models.encoders.python:example"
HUB = {"gongzx/cc2017_dataset": ("*.pt",), "McGregorW/NEURONS": ("masks", "qwen_annotation")}


@pytest.fixture
def root(home: Path) -> Path:
    root = cc2017_files.write(home / "data/cc2017")
    cc2017_files.unpack_masks(root)
    return root


def store(home: Path, name: str, split: str = "train") -> TargetStore:
    return TargetStore.open(path_of(home / "embeddings", "cc2017", split, name))


def test_clips_and_what_they_are_annotated_with_are_embedded_in_one_pass(go, home, root, code_allowed):
    names = f"encoders=['{COLOURS}', key-object-mask, concepts, caption-tokens]"
    go("embed", "dataset=cc2017", names, "run.workers=0", "batch_size=2")

    (module, view), tokens = example(), CaptionTokens()
    for split, count in COUNTS.items():
        colours = store(home, "brainhive_cli-models-encoders-python-example", split)
        assert (colours.alternatives, colours.shape) == (6, (12,))
        pixels = np.rint(np.moveaxis(frames_of(split, count), 2, -1) * 255).astype(np.uint8)
        seen = [[module(view(Image.fromarray(frame))[None])[0].numpy() for frame in clip] for clip in pixels]
        assert np.allclose(colours.embedding, seen)
        masks = store(home, "key-object-mask", split).embedding[:, :, 0]
        assert np.array_equal(masks[:, :, ::8, ::8], key_masks_of(count))
        assert np.array_equal(store(home, "concepts", split).embedding, labels_of(split, count))
        ids = store(home, "caption-tokens", split).embedding
        texts = [tokens.text(row[0].tolist()).replace(" ", "") for row in ids]
        assert texts == [text.replace(" ", "") for text in captions_of(split, count)]
        assert store(home, "concepts", split).concepts == [f"{split}/film-01"] * count


def test_fetch_takes_both_repositories_and_unpacks_the_masks(go, home, tmp_path_factory, monkeypatch):
    made, hub = cc2017_files.write(tmp_path_factory.mktemp("made")), tmp_path_factory.mktemp("hub")
    for repository, patterns in HUB.items():
        (hub / repository).mkdir(parents=True)
        for path in (path for pattern in patterns for path in made.glob(pattern)):
            (shutil.copytree if path.is_dir() else shutil.copy)(path, hub / repository / path.name)
    weights = hub / "McGregorW/NEURONS/weights/brain_model_prior_last.pth"
    weights.parent.mkdir()
    weights.write_bytes(b"13 GB")
    with serving(hub) as served:
        served.lead(monkeypatch)
        served.commits["McGregorW/NEURONS"] = "f" * 40  # by which the hub's client keeps what it listed
        go("fetch", "names=cc2017", "subjects=2")
        first = list(served.fetched)
        served.fetched.clear()
        go("fetch", "names=cc2017", "subjects=2")

        assert served.fetched == []  # all is there
    names = [Path(name).name for name in first]
    assert {"GT_train_3fps.pt", "subj02_train_fmri.pt", "mask_cls_test_qwen_video.tar.gz"} <= {*names}
    assert not {"subj01_train_fmri.pt", weights.name} & {*names}
    images = Clips().build(Paths()).images("train")
    assert images.absent == {} and np.array_equal(np.stack(images.masks_of(0)), key_masks_of(2)[0])
