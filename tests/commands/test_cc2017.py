"""cc2017 from files to stores, checks and downloads."""

import shutil
from pathlib import Path
from typing import Any

import cc2017_files
import numpy as np
import pytest
import torch
from cc2017_files import COUNTS, captions_of, frames_of, key_masks_of, labels_of
from hub_server import serving
from PIL import Image

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data import inventory
from brainhive_cli.data.published.cc2017 import Clips
from brainhive_cli.data.stores.target_store import TargetStore, path_of
from brainhive_cli.data.targets.encoder_groups import grouped
from brainhive_cli.data.targets.target_stores import open_stores
from brainhive_cli.data.targets.targets import OnlineTargets, Targets
from brainhive_cli.models import encoders
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


def test_one_frame_is_stored_and_all_six_are_encoded_at_each_step(go, home, root, code_allowed):
    stored, all_six = ({"kind": "python", "source": COLOURS, "views": views} for views in (2, "all"))
    go("embed", "dataset=cc2017", f"encoders=[{stored}]", "run.workers=0")
    launch = Launch(0, 1, torch.device("cpu"))
    (group,) = grouped([encoders.resolve(all_six)], "fp32", launch)
    clips = Clips().build(Paths()).images("train")

    found = OnlineTargets(clips, group, group.name).gather(torch.tensor([3, 0]))

    (path,) = (home / "embeddings/cc2017/train").glob("*-view-2.h5")
    third = TargetStore.open(path)
    assert third.alternatives is None and third.shape == (12,) and found.shape == (2, 6, 12)
    assert np.allclose(found[:, 2], third.embedding[[3, 0]]) and not np.allclose(found[:, 1], found[:, 2])


def test_one_frame_is_read_from_the_store_of_all_six_and_not_stored_again(go, home, root, code_allowed):
    one, other, all_six = ({"kind": "python", "source": COLOURS, "views": views} for views in (2, 6, "all"))
    go("embed", "dataset=cc2017", f"encoders=[{all_six}]", "run.workers=0")
    (of_all,) = (home / "embeddings/cc2017/train").glob("*-all.h5")
    config, beyond = encoders.resolve(one), encoders.resolve(other)
    given = (Clips().build(Paths()), Clips(), "train")

    stores = open_stores(*given, [config, encoders.resolve(all_six)], Paths())

    third, every = stores.values()
    assert third.path == every.path == of_all and third.attributes["config"]["views"] == 2
    assert np.array_equal(third.embedding, np.asarray(every.embedding)[:, 2]) and third.shape == (12,)
    assert third.attributes["encoder"] == config.name and third.alternatives is None
    rows = torch.tensor([3, 0])
    gathered = Targets.of(stores, Launch(0, 1, torch.device("cpu")), hold=False).gather(rows)
    assert np.array_equal(gathered[config.name], np.asarray(every.embedding)[[3, 0], 2])
    with pytest.raises(BrainhiveError, match=r"-all\.h5 has 6 views, none is 6"):
        open_stores(*given, [beyond], Paths())

    go("embed", "dataset=cc2017", f"encoders=[{one}]", "run.workers=0")  # a store of its own comes first
    own = open_stores(*given, [config], Paths())[config.name]
    assert own.path != of_all and np.array_equal(own.embedding, third.embedding)


@pytest.mark.parametrize(
    ("missing", "encoder", "way"),
    [
        ("GT_train_caption.pt", "caption-tokens", "brainhive fetch cc2017 gets GT_train_caption.pt"),
        ("masks/mask_cls_train_qwen_video", "key-object-mask", "tar -xf "),
    ],
)
def test_what_an_encoder_needs_and_is_not_there_is_said_with_the_file(go, root, missing, encoder, way):
    path = root / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(MissingData, match=f"cc2017/train has no .*, which {encoder} reads") as seen:
        go("embed", "dataset=cc2017", f"encoders={encoder}", "run.workers=0")
    assert seen.value.hint.startswith(way)


def test_why_no_clip_can_be_read_is_said(go, root, code_allowed):
    torch.save(torch.full((5, 6, 3, 8, 8), 255.0), root / "GT_train_3fps.pt")
    with pytest.raises(
        BrainhiveError, match=r"none of the 5 .* clip 0 of .* lie in 255 to 255, not in 0 to 1"
    ):
        go("embed", "dataset=cc2017", f"encoders='{COLOURS}'", "run.workers=0")


def check(root: Path, monkeypatch: pytest.MonkeyPatch, everything: bool = False) -> tuple[Any, ...]:
    monkeypatch.setitem(inventory.PUBLISHED, "cc2017", dict(COUNTS))
    return inventory.inspect_dataset(Clips(), Paths(), None, everything)


def test_check_counts_clips_and_recordings_before_and_after_they_are_prepared(go, root, monkeypatch):
    found = check(root, monkeypatch)[1]["parts"]
    pictures, raw = found["pictures"], found["subject 2, raw"]
    assert pictures["state"] == "complete" and pictures["counts"] == {"train": "5", "test": "3"}
    assert raw["state"] == "not prepared"
    assert raw["problem"].endswith("(brainhive prepare --from cc2017)")

    go("prepare", "preparation.kind=cc2017")

    parts = check(root, monkeypatch, everything=True)[1]["parts"]
    states = {name: part["state"] for name, part in parts.items()}
    prepared = [f"signals default/sub-0{subject}" for subject in cc2017_files.WIDTHS]
    assert states == dict.fromkeys(["pictures", *prepared], "complete")


def test_check_names_clips_that_are_too_few_recordings_of_others_and_masks_that_are_damaged(
    go, root, monkeypatch
):
    go("prepare", "preparation.kind=cc2017", "subjects=2")
    torch.save(torch.from_numpy(frames_of("train", 4)), root / "GT_train_3fps.pt")
    for name in ("GT_train_caption.pt", "qwen_annotation/qwen_train_caption_tag_category_id.json"):
        (root / name).unlink()
    shutil.rmtree(root / "masks/mask_cls_train_qwen_video")
    (root / "masks/mask_cls_test_qwen_video/mask_0_f3_1.png").write_bytes(b"half")

    problems = " ".join(error.in_one_line for error in check(root, monkeypatch)[2])

    assert "cc2017 has 4 of 5 train pictures" in problems and "brainhive fetch cc2017" in problems
    assert "signals of pictures that the data set does not have: 1 of 5: train/4" in problems
    (root / "GT_train_3fps.pt").unlink()
    torch.save(torch.from_numpy(frames_of("train", 5)), root / "GT_train_3fps.pt")
    assert "mask_0_f3_1.png cannot be decoded" in " ".join(
        error.in_one_line for error in check(root, monkeypatch)[2]
    )


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
