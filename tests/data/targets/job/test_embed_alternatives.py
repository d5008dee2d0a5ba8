"""embed: several targets of a stimulus: the captions of a picture, the frames of a
clip.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.data.datasets import Dataset, image_folder
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media.stimuli import Clip, StimulusSet
from brainhive_cli.data.stores.target_store import TargetStore, build_store_path
from brainhive_cli.models.encoders import vd_text
from brainhive_cli.models.encoders.python import example

LETTERS = (
    "{kind: python, source: 'python:test_embed_alternatives:letters', reads: captions}"
)
WORDS = (
    "{kind: vd-text, source: random, output: [embedding, average, first], "
    "architecture: "
) + json.dumps(vd_text.TINY.architecture)
WORDS += "}"
COLOURS = "python:brainhive_cli.models.encoders.python:example"
COUNT, FRAMES = 5, 3
SAME = 1e-6
"""Batches of several sizes round differently."""


def letters():
    """Count a to d in a caption, [4]: an encoder that reads captions."""
    return torch.nn.Identity(), lambda text: torch.tensor(
        [float(text.count(letter)) for letter in "abcd"]
    )


@pytest.fixture
def coco(home, monkeypatch):
    """Five pictures with two captions each."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    (home / "data/coco/annotations").mkdir(parents=True)
    (home / "data/coco/train2017").mkdir()
    names = [f"{number:012d}" for number in range(COUNT)]
    for name in names:
        Image.new("RGB", (6, 4)).save(home / f"data/coco/train2017/{name}.jpg")
    content = {
        "images": [
            {"id": n, "file_name": f"{name}.jpg"} for n, name in enumerate(names)
        ],
        "annotations": [
            {"image_id": n, "caption": text}
            for n in range(COUNT)
            for text in (n * "a" + "d", n * "b")
        ],
    }
    (home / "data/coco/annotations/captions_train2017.json").write_text(
        json.dumps(content)
    )
    return home


def test_captions_are_embedded_each_and_no_picture_is_decoded(run_command, coco):
    for file in (coco / "data/coco/train2017").glob("*.jpg"):
        file.write_bytes(b"no picture")

    run_command(
        "embed",
        "dataset=coco",
        f"encoders=[{LETTERS}]",
        "run.workers=0",
        "batch_size=2",
    )

    (path,) = (coco / "embeddings/coco/train").glob("*.h5")
    target_store = TargetStore.open(path)
    assert target_store.embedding.shape == (COUNT, 5, 4)
    assert (target_store.alternatives, target_store.shape) == (5, (4,))
    for number, row in enumerate(target_store.embedding):
        assert row[0].tolist() == row[2].tolist() == [number, 0, 0, 1]
        assert row[1].tolist() == [0, number, 0, 0]


def test_captions_are_kept_each_averaged_or_cut_to_the_first(run_command, coco):
    run_command(
        "embed", "dataset=coco", f"encoders=[{WORDS}]", "run.workers=0", "batch_size=2"
    )

    by_name = {
        path.stem: TargetStore.open(path)
        for path in (coco / "embeddings/coco/train").glob("*.h5")
    }
    each_caption, first_caption, average = (
        by_name[name] for name in sorted(by_name, key=len)
    )
    assert [store.alternatives for store in (each_caption, first_caption, average)] == [
        5,
        None,
        None,
    ]
    assert each_caption.embedding.shape == (
        COUNT,
        5,
        77,
        8,
    )
    assert first_caption.embedding.shape == (
        COUNT,
        77,
        8,
    )
    assert np.array_equal(first_caption.embedding, each_caption.embedding[:, 0])
    # two captions, which fill five places: each counts once
    assert np.allclose(
        average.embedding, each_caption.embedding[:, :2].mean(1), atol=SAME
    )
    assert not np.allclose(
        average.embedding, each_caption.embedding[:].mean(1), atol=1e-3
    )


def test_other_pictures_stand_for_stimuli_by_their_ids(run_command, coco):
    other_folder = coco / "data/made"
    other_folder.mkdir()
    for number in range(COUNT):
        Image.new("RGB", (5, 5), (50 * number, 0, 0)).save(
            other_folder / f"{number:012d}.png"
        )
    encoder = "{kind: python, source: '" + COLOURS + "', pictures: data/made}"

    run_command(
        "embed",
        "dataset=coco",
        f"encoders=['{COLOURS}', {encoder}]",
        "run.workers=2",
        "batch_size=1",
    )

    stores = [
        TargetStore.open(path) for path in (coco / "embeddings/coco/train").glob("*.h5")
    ]
    own_store, replaced = sorted(stores, key=lambda store: len(store.path.stem))
    assert own_store.image_ids == replaced.image_ids
    assert not own_store.embedding[...].any()
    assert [round(float(row.max()) * 255) for row in replaced.embedding] == [
        0,
        50,
        100,
        150,
        200,
    ]
    (other_folder / f"{0:012d}.png").unlink()
    with pytest.raises(
        MissingData,
        match=r"data/made lacks pictures of coco/train, 1 of 5: train2017/0+",
    ):
        run_command(
            "embed",
            "dataset=coco",
            f"encoders=[{encoder}]",
            "run.workers=0",
            again=True,
        )


def test_each_frame_of_a_clip_is_embedded(run_command, home, monkeypatch):
    frames = np.random.default_rng(0).integers(
        0, 256, (COUNT, FRAMES, 8, 8, 3), np.uint8
    )
    names = Names.of(map(str, range(COUNT)))
    clips = StimulusSet(
        "clips",
        "train",
        names,
        names,
        lambda i: Clip(frames[i], rate_hz=3.0),
        frames=FRAMES,
    )
    dataset = Dataset("clips", ("train",), lambda split: clips, home / "signals")
    monkeypatch.setattr(image_folder.Config, "build", lambda self, paths: dataset)

    run_command(
        "embed",
        "dataset=image-folder",
        f"encoders=['{COLOURS}']",
        "run.workers=2",
        "batch_size=1",
    )

    target_store = TargetStore.open(
        build_store_path(
            home / "embeddings",
            "clips",
            "train",
            "brainhive_cli-models-encoders-python-example",
        )
    )
    assert clips.medium == "clip"
    assert target_store.alternatives == FRAMES
    assert target_store.shape == (12,)
    module, view = example()
    expected = [
        [module(view(Image.fromarray(frame))[None])[0].numpy() for frame in clip]
        for clip in frames
    ]
    assert np.allclose(target_store.embedding, expected)
