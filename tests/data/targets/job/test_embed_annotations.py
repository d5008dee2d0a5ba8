"""embed: what stimuli are annotated with: masks of the key object, labels, captions as
ids.
"""

from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.data.datasets import Dataset, image_folder
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.stores.target_store import TargetStore, build_store_path

COUNT, FRAMES, NAMES = 5, 6, ("animal", "human", "vehicle")
ENCODERS = "encoders=[key-object-mask, {kind: concepts, count: 3}, caption-tokens]"


@pytest.fixture
def clips(home, monkeypatch):
    """Clips that no encoder of annotations decodes; `train` may be replaced."""
    masks = (
        np.random.default_rng(0)
        .integers(0, 2, (COUNT, FRAMES, 16, 16))
        .astype(np.uint8)
    )
    labels = np.eye(3, dtype=np.uint8)[[0, 1, 2, 0, 1]]
    names = Names.of(map(str, range(COUNT)))

    def refuse(index):
        raise AssertionError("decoded")

    stimulus_set = StimulusSet(
        "clips",
        "train",
        names,
        names,
        refuse,
        captions=lambda index: ["a dog " * index],
        captions_each=1,
        frames=FRAMES,
        masks=masks.__getitem__,
        labels=labels.__getitem__,
        label_names=NAMES,
    )
    sets = {"train": stimulus_set}
    dataset = Dataset("clips", ("train",), sets.__getitem__, home / "signals")
    monkeypatch.setattr(image_folder.Config, "build", lambda self, paths: dataset)
    return sets


def embed(run_command):
    return run_command(
        "embed", "dataset=image-folder", ENCODERS, "run.workers=0", "dtype=float16"
    )


def store(home, name):
    (path,) = build_store_path(home / "embeddings", "clips", "train", name).parent.glob(
        f"{name}*.h5"
    )
    return TargetStore.open(path)


def test_annotations_are_stored_as_integers_without_decoding(run_command, home, clips):
    embed(run_command)

    masks, labels, ids = (
        store(home, name) for name in ("key-object-mask", "concepts", "caption-tokens")
    )
    assert [made.pixels for made in (masks, labels, ids)] == [None] * 3
    assert (masks.alternatives, masks.shape, masks.embedding.dtype) == (
        FRAMES,
        (1, 64, 64),
        np.uint8,
    )
    large = np.repeat(np.repeat(clips["train"].masks(3), 4, 1), 4, 2)
    assert np.array_equal(masks.embedding[3, :, 0], large)
    assert (labels.alternatives, labels.embedding.dtype) == (None, np.uint8)
    assert np.asarray(labels.embedding).tolist() == np.eye(3)[[0, 1, 2, 0, 1]].tolist()
    assert (ids.alternatives, ids.shape, ids.embedding.dtype) == (1, (60,), np.int32)
    assert ids.embedding[1, 0].tolist() == [49406, 320, 1929, 49407] + [0] * 56
    assert ids.embedding[0, 0].tolist() == [49406, 49407] + [0] * 58


def test_a_target_has_all_views_or_the_numbered_view(run_command, home, clips):
    masks = "{kind: key-object-mask, views: %s}"
    run_command(
        "embed",
        "dataset=image-folder",
        f"encoders=[{masks % 'all'}, {masks % 2}]",
        "run.workers=0",
    )

    all_views, numbered_view = (
        store(home, f"key-object-mask-{name}") for name in ("all", "view-2")
    )
    assert (all_views.alternatives, all_views.shape) == (None, (FRAMES, 1, 64, 64))
    assert (numbered_view.alternatives, numbered_view.shape) == (None, (1, 64, 64))
    assert np.array_equal(numbered_view.embedding, all_views.embedding[:, 2])
    assert all_views.embedding[:, 2].any()
    with pytest.raises(MissingData, match=r"views: 6.* clips/train has 6"):
        run_command("embed", "dataset=image-folder", f"encoders=[{masks % 6}]")


def test_missing_or_foreign_annotations_are_named(run_command, clips):
    whole_train = clips["train"]
    for change, message in (
        ({"masks": None}, "clips/train has no masks, which key-object-mask reads"),
        (
            {"label_names": NAMES[:2]},
            r"clips/train.*labels.*\[3\].*2 names",
        ),
    ):
        clips["train"] = replace(whole_train, **change)
        with pytest.raises(MissingData, match=message) as raised:
            embed(run_command)
        assert raised.value.hint
