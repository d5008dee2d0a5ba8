"""Simulated recordings of the demo's pictures and of other pictures."""

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.datasets import demo
from brainhive_cli.data.stores import StorePlan, TargetWriter, simulated, target_store
from brainhive_cli.demo import simulation

COUNTS = {"train": 12, "test": 4}


@pytest.fixture
def pictures(home):
    """Write a folder of pictures and their embeddings."""
    generator = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for number in range(count):
            path = home / f"photos/{split}/c{number % 3}/p{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(
                generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            ).save(path)
    write_embeddings(home)
    return home


def write_embeddings(home, unit=1, origin=0):
    """Write random embeddings of all pictures."""
    generator = np.random.default_rng(1)
    for split, count in COUNTS.items():
        images = build_dataset(home).images(split)
        path = target_store.build_store_path(
            home / "embeddings", "photos", split, "vae"
        )
        path.unlink(missing_ok=True)
        StorePlan(path, images.image_ids, images.concepts, (8,), "float32", {}).create()
        writer = TargetWriter(path)
        embeddings = unit * generator.normal(size=(count, 8)) + origin
        writer.write(writer.pending_rows, embeddings.astype(np.float32))
        writer.close()
        writer.finish()


def build_dataset(home):
    images = {"kind": "image-folder", "root": str(home / "photos")}
    return simulated.Simulated(images=images, meaning="vae").build(Paths())


def test_simulated_signals_are_labelled_and_reproducible(
    pictures,
):
    dataset = build_dataset(pictures)
    recording = dataset.recording(2, "test")
    repeated = build_dataset(pictures).recording(2, "test")
    np.testing.assert_array_equal(recording.signal, repeated.signal)
    n_channels = len(simulation.CHANNELS)
    shape = (4 * demo.REPETITIONS["test"], n_channels, simulation.N_SAMPLES)
    assert recording.signal.shape == shape
    assert "simulated" in recording.provenance
    assert np.isfinite(recording.signal).all()
    assert tuple(recording.pictures) == dataset.images("test").image_ids
    other_subject = dataset.recording(3, "test")
    assert not np.array_equal(recording.signal, other_subject.signal)


def test_demo_recordings_differ_by_subject_and_noise():
    dataset = demo.Config().build(Paths())
    recording = dataset.recording(1, "test")
    image_ids = dataset.images("test").image_ids
    assert "simulated" in recording.provenance
    assert len(recording.counts) == len(image_ids)
    assert tuple(recording.pictures) == image_ids
    assert demo.Config(noise=2).build(Paths()).name == "demo-noise-2"
    with pytest.raises(MissingData, match="validation"):
        dataset.images("validation")


def test_signals_are_of_embeddings_in_units_of_the_training(pictures):
    recording = build_dataset(pictures).recording(1, "test")

    write_embeddings(pictures, unit=3, origin=20)

    moved = build_dataset(pictures).recording(1, "test")
    np.testing.assert_allclose(moved.signal, recording.signal, atol=1e-3)
