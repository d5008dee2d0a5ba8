"""Simulated recordings, of the demo's pictures and of anyone's: labelled as such, and
always the same.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import Dataset, demo
from brainhive_cli.data.stores import simulated, target_store
from brainhive_cli.data.stores.target_writer import StorePlan, TargetWriter
from brainhive_cli.demo import simulation

COUNTS = {"train": 12, "test": 4}


@pytest.fixture
def pictures(home: Path) -> Path:
    """A folder of real files and the embeddings that stand for their meaning."""
    generator = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for number in range(count):
            path = home / f"photos/{split}/c{number % 3}/p{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(
                generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            ).save(path)
        images = dataset(home).images(split)
        path = target_store.build_store_path(
            home / "embeddings", "photos", split, "vae"
        )
        StorePlan(path, images.image_ids, images.concepts, (8,), "float32", {}).create()
        writer = TargetWriter(path)
        writer.write(
            writer.pending_rows, generator.normal(size=(count, 8)).astype(np.float32)
        )
        writer.close()
        writer.finish()
    return home


def dataset(home: Path, **knobs: object) -> Dataset:
    images = {"kind": "image-folder", "root": str(home / "photos")}
    return simulated.Simulated(images=images, meaning="vae", **knobs).build(Paths())


def test_signals_simulated_from_anyones_pictures_are_labelled_and_repeatable(
    pictures: Path,
) -> None:
    first, second = (dataset(pictures).recording(2, "test") for _ in range(2))
    np.testing.assert_array_equal(first.signal, second.signal)
    assert first.signal.shape == (
        4,
        demo.REPETITIONS["test"],
        len(simulation.CHANNELS),
        simulation.SAMPLES,
    )
    assert "simulated" in first.provenance and np.isfinite(first.signal).all()
    assert tuple(first.image_ids) == dataset(pictures).images("test").image_ids
    assert not np.array_equal(
        first.signal, dataset(pictures).recording(3, "test").signal
    )


def test_the_demos_recordings_are_labelled_and_differ_by_subject_and_noise() -> None:
    made = demo.Config().build(Paths())
    recording = made.recording(1, "test")
    assert "simulated" in recording.provenance and recording.signal.shape[0] == len(
        made.images("test")
    )
    assert tuple(recording.image_ids) == made.images("test").image_ids
    assert demo.Config(noise=2).build(Paths()).name == "demo-noise-2"
    with pytest.raises(MissingData, match="has no split 'validation'"):
        made.images("validation")
