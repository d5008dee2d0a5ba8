"""Latents that are computed before the training: once, with their crop, and again after an interruption."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.models.generators.sdxl import SDXL
from brainhive_cli.training.prior.examples import batches
from brainhive_cli.training.prior.loop import Training
from tests.resealed import resealed

CACHED = "cache_latents=true"
ROUNDING = 1e-5
"""Batches of other sizes round differently in float32."""


def loss(training: Training) -> torch.Tensor:
    return training.loss(next(batches(training.pictures, range(1), 4, 1, 0, 0, training.launch)))


def latents_of(training: Training) -> np.ndarray:
    pictures = training.pictures
    return np.stack([pictures.latents(index)[0].numpy() for index in range(len(pictures.images))])


def stores(home: Path) -> list[Path]:
    return sorted((home / "latents").rglob("*.h5*"))


def test_training_on_kept_latents_is_training_on_the_pictures(settings, begun, home, pictures):
    from PIL import Image

    wide = Image.open(sorted(pictures.rglob("*.png"))[0]).resize((48, 16))
    wide.save(sorted(pictures.rglob("*.png"))[0])  # so that it is cropped

    plain, cached = begun(*settings), begun(*settings, CACHED)

    pixels, sizes = plain.pictures.items[0]["image"], plain.pictures.items[0]["sizes"]
    assert cached.pictures.items[0]["sizes"].tolist() == sizes.tolist() == [16, 48, 0, 32, 32, 32]
    assert pixels.shape == (3, 32, 32) and cached.pictures.items[0]["image"].shape == (4, 8, 8)
    assert torch.allclose(loss(plain), loss(cached), rtol=ROUNDING)
    shutil.rmtree(pictures / "concept_0")  # nothing is decoded any more
    assert torch.isfinite(loss(cached))
    assert len(stores(home)) == 1


def test_an_interrupted_store_is_completed_and_then_only_read(settings, begun, home, monkeypatch):
    encode, seen = SDXL.encode, []

    def until(most: int):
        def counted(generator: SDXL, images: torch.Tensor, random: object = None) -> torch.Tensor:
            if len(seen) == most:
                raise KeyboardInterrupt
            seen.append(len(images))
            return encode(generator, images)

        return counted

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SDXL, "encode", until(1))  # one batch
        begun(*settings, CACHED)
    left = stores(home)
    with monkeypatch.context() as patch:
        patch.setattr(SDXL, "encode", until(100))
        resumed = begun(*settings, CACHED)
        again = begun(*settings, CACHED)

    assert [path.suffix for path in left] == [".part"] and [path.suffix for path in stores(home)] == [".h5"]
    assert seen == [4, 4, 4]  # of twelve pictures, none was encoded twice
    shutil.rmtree(home / "latents")
    straight = begun(*settings, CACHED)
    for found in (resumed, again):
        assert np.array_equal(latents_of(found), latents_of(straight))


def test_a_damaged_row_is_refused_and_the_store_made_again_has_the_same_values(settings, begun, home):
    begun(*settings, CACHED)
    (path,) = stores(home)
    content, before = path.read_bytes(), np.array(TargetStore.open(path).embedding)
    with h5py.File(path) as file:
        row = file["embedding"].id.get_offset() + 6 * file["embedding"][:1].nbytes
    path.write_bytes(content[:row] + bytes([content[row] ^ 2]) + content[row + 1 :])

    found = begun(*settings, CACHED).pictures.latents
    assert np.array_equal(found(5)[0], before[5])
    with pytest.raises(BrainhiveError, match=f"{path} is damaged: row 6 of embedding does not") as caught:
        found(6)
    assert caught.value.hint == "delete it, then: brainhive train-prior cache_latents=true"
    path.unlink()
    begun(*settings, CACHED)

    assert np.array_equal(TargetStore.open(path).embedding, before)


def test_other_weights_of_the_vae_or_another_size_have_a_store_of_their_own(settings, begun, home, tmp_path):
    other = "generator={kind: sdxl, source: random, seed: 1, architecture: " + _tiny() + "}"

    begun(*settings, CACHED)
    begun(*settings, CACHED, "resolution_px=40")
    begun(*settings, CACHED, other)

    assert len(stores(home)) == 3


def _tiny() -> str:
    import json

    from brainhive_cli.models.generators.sdxl import TINY

    return json.dumps(TINY.architecture)


def test_kept_latents_lie_where_the_recipe_says(settings, begun, home, tmp_path):
    begun(*settings, CACHED, f"paths.latents={tmp_path / 'elsewhere'}")

    assert not stores(home) and len(list((tmp_path / "elsewhere" / "pictures" / "train").glob("*.h5"))) == 1


def test_a_picture_that_cannot_be_decoded_is_named(settings, begun, pictures):
    bad = sorted(pictures.rglob("*.png"))[3]
    bad.write_bytes(b"no picture")

    with pytest.raises(BrainhiveError, match=f"{bad.name} cannot be decoded"):
        begun(*settings, CACHED)
    with pytest.raises(BrainhiveError, match=f"{bad.name} cannot be decoded"):
        for batch in batches(begun(*settings).pictures, range(3), 4, 1, 0, 0, begun(*settings).launch):
            assert len(batch.rows)


def test_latents_of_pictures_that_were_not_known_before_are_added(settings, begun, home):
    whole = latents_of(begun(*settings, CACHED))
    (path,) = stores(home)
    with resealed(path) as file:
        file["done"][5], file["embedding"][5] = 0, 0

    added = latents_of(begun(*settings, CACHED))

    assert np.allclose(added, whole, atol=ROUNDING) and added[5].any() and stores(home) == [path]
