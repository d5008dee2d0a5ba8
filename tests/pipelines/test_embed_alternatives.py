"""embed: several targets of one stimulus: the captions of a picture, the frames of a clip."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.core.errors import MissingData
from brainhive_cli.datasets import Clip, StimulusSet, image_folder
from brainhive_cli.datasets._pictures import Pictures
from brainhive_cli.encoders.python import example
from brainhive_cli.stores.ids import Names
from brainhive_cli.stores.target_store import TargetStore, path_of

LETTERS = "{kind: python, source: 'python:test_embed_alternatives:letters', reads: captions}"
COLOURS = "python:brainhive_cli.encoders.python:example"
COUNT, FRAMES = 5, 3


def letters():
    """Count a to d in a caption, [4]: an encoder that reads captions."""
    return torch.nn.Identity(), lambda text: torch.tensor([float(text.count(one)) for one in "abcd"])


@pytest.fixture
def coco(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five pictures with two captions each."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    (home / "data/coco/annotations").mkdir(parents=True)
    (home / "data/coco/train2017").mkdir()
    names = [f"{number:012d}" for number in range(COUNT)]
    for name in names:
        Image.new("RGB", (6, 4)).save(home / f"data/coco/train2017/{name}.jpg")
    content = {
        "images": [{"id": n, "file_name": f"{name}.jpg"} for n, name in enumerate(names)],
        "annotations": [
            {"image_id": n, "caption": text} for n in range(COUNT) for text in (n * "a" + "d", n * "b")
        ],
    }
    (home / "data/coco/annotations/captions_train2017.json").write_text(json.dumps(content))
    return home


def test_captions_are_embedded_each_and_no_picture_is_decoded(go, coco):
    for file in (coco / "data/coco/train2017").glob("*.jpg"):
        file.write_bytes(b"no picture")

    go("embed", "dataset=coco", f"encoders=[{LETTERS}]", "run.workers=0", "batch_size=2")

    (path,) = (coco / "embeddings/coco/train").glob("*.h5")
    found = TargetStore.open(path)
    assert found.embedding.shape == (COUNT, 5, 4)
    assert (found.alternatives, found.shape) == (5, (4,))
    for number, row in enumerate(found.embedding):
        assert row[0].tolist() == row[2].tolist() == [number, 0, 0, 1]
        assert row[1].tolist() == [0, number, 0, 0]


def test_pictures_and_their_captions_are_embedded_in_one_pass(go, coco):
    go("embed", "dataset=coco", f"encoders=[{LETTERS}, '{COLOURS}']", "run.workers=2", "batch_size=1")

    shapes = [TargetStore.open(path).embedding.shape for path in (coco / "embeddings").rglob("*.h5")]
    assert sorted(shapes) == [(COUNT, 5, 4), (COUNT, 12)]


def test_a_data_set_without_captions_is_refused(go, coco):
    (coco / "data/coco/annotations/captions_train2017.json").unlink()
    with pytest.raises(MissingData, match="coco/train has no captions"):
        go("embed", "dataset=coco", f"encoders=[{LETTERS}]", "run.workers=0")


def test_each_frame_of_a_clip_is_embedded(go, home, monkeypatch):
    frames = np.random.default_rng(0).integers(0, 256, (COUNT, FRAMES, 8, 8, 3), np.uint8)
    names = Names.of(map(str, range(COUNT)))
    clips = StimulusSet("clips", "train", names, names, lambda i: Clip(frames[i], rate_hz=3.0), frames=FRAMES)
    listed = Pictures("clips", ("train",), lambda split: clips, home / "signals")
    monkeypatch.setattr(image_folder.Config, "build", lambda self, paths: listed)

    go("embed", "dataset=image-folder", f"encoders=['{COLOURS}']", "run.workers=2", "batch_size=1")

    found = TargetStore.open(
        path_of(home / "embeddings", "clips", "train", "brainhive_cli-encoders-python-example")
    )
    assert clips.medium == "clip" and found.alternatives == FRAMES and found.shape == (12,)
    module, view = example()
    expected = [[module(view(Image.fromarray(frame))[None])[0].numpy() for frame in clip] for clip in frames]
    assert np.allclose(found.embedding, expected)
