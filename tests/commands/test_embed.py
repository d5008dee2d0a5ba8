"""embed: what a store holds, and how it is found, resumed and made again."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.media.decoding import describe_pixels
from brainhive_cli.data.stores import target_store
from brainhive_cli.data.stores.hdf5 import part_of
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.encoder_groups import encode, grouped
from brainhive_cli.models import encoders
from tests.resealed import resealed

COLOURS = "python:brainhive_cli.models.encoders.python:example"
TIMM = {"kind": "timm", "source": "random", "architecture": "test_vit"}
ROUNDING = 1e-5
"""Batches of other sizes round differently in float32."""


@pytest.fixture
def folder(home: Path, pictures: Path) -> tuple[str, ...]:
    """Overrides for the folder of pictures, in an empty home."""
    return (f"dataset={{kind: image-folder, root: {pictures}}}",)


def store_of(home: Path, encoder: str = "brainhive_cli-models-encoders-python-example") -> Path:
    return target_store.path_of(home / "embeddings", "pictures", "train", encoder)


def directly(reference: object, pictures: Path, but: Path | None = None) -> np.ndarray:
    encoder = encoders.resolve(reference).build()
    files = [file for file in sorted(pictures.rglob("*.png")) if file != but]
    views = torch.stack([encoder.preprocess(Image.open(file).convert("RGB")) for file in files])
    with torch.inference_mode():
        return encoder.module.eval()(views).numpy()


def test_two_encoders_in_one_pass_give_what_each_gives_directly(go, home, pictures, folder):
    go("embed", *folder, f"encoders=[{COLOURS!r}, {TIMM}]", "batch_size=5")

    for reference in (COLOURS, TIMM):
        found = TargetStore.open(store_of(home, encoders.resolve(reference).name))
        assert np.allclose(found.embedding, directly(reference, pictures), atol=ROUNDING)
        assert found.image_ids[:2] == ["concept_0/0", "concept_0/1"]
        assert found.concepts[-1] == "concept_3"
        assert found.done.all()


def test_every_store_of_pictures_has_the_digests_of_their_pixels_resumed_or_not(go, home, pictures, folder):
    Image.open(pictures / "concept_0/1.png").save(pictures / "concept_3/2.png")  # a copy
    go("embed", *folder, f"encoders=[{COLOURS!r}]", "batch_size=5")
    go("embed", *folder, f"encoders=[{COLOURS!r}, {TIMM}]", "batch_size=4", "run.workers=2")

    first, second = (
        TargetStore.open(store_of(home, encoders.resolve(name).name)).pixels for name in (COLOURS, TIMM)
    )

    expected = [describe_pixels(Image.open(file)).tolist() for file in sorted(pictures.rglob("*.png"))]
    assert first.tolist() == second.tolist() == expected
    assert (first[1] == first[-1]).all() and len(set(map(tuple, expected))) == len(expected) - 1


def test_a_store_of_another_format_is_refused_with_the_line_that_makes_it_again(go, home, folder):
    asked = ("embed", *folder, f"encoders=[{COLOURS!r}]")
    go(*asked)
    with resealed(store_of(home)) as file:
        file.attrs["format"] = 1

    with pytest.raises(BrainhiveError, match="is not a target store of format 4") as caught:
        go(*asked)
    assert caught.value.hint.startswith("brainhive embed") and caught.value.hint.endswith("--again")
    go(*asked, again=True)
    assert TargetStore.open(store_of(home)).pixels is not None


def test_a_store_says_how_it_was_made(go, home, folder):
    go("embed", *folder, f"encoders=[{TIMM}]")

    attributes = TargetStore.open(store_of(home, encoders.resolve(TIMM).name)).attributes

    assert attributes["config"]["architecture"] == "test_vit"
    assert attributes["weights"] == {"source": "random"}
    assert "input_size" in attributes["preprocessing"]
    assert attributes["versions"]["torch"] == torch.__version__.split("+")[0]
    assert attributes["health"]["non_finite"] == 0


def test_a_finished_store_is_found_and_not_written_again(go, home, folder):
    first = go("embed", *folder, f"encoders=[{COLOURS!r}]")
    inode = store_of(home).stat().st_ino

    second = go("embed", *folder, f"encoders=[{COLOURS!r}]")

    assert second.as_dict() == first.as_dict()
    assert store_of(home).stat().st_ino == inode


def test_again_embeds_anew(go, home, pictures, folder):
    go("embed", *folder, f"encoders=[{COLOURS!r}]")
    Image.new("RGB", (16, 16), (255, 0, 0)).save(pictures / "concept_0" / "0.png")

    go("embed", *folder, f"encoders=[{COLOURS!r}]", again=True)

    assert np.allclose(TargetStore.open(store_of(home)).embedding, directly(COLOURS, pictures))


def test_again_keeps_nothing_of_an_interrupted_store(go, home, pictures, folder):
    (broken := pictures / "concept_3" / "2.png").write_bytes(b"no picture")
    with pytest.raises(BrainhiveError, match="1 pictures cannot be decoded"):
        go("embed", *folder, f"encoders=[{COLOURS!r}]")
    for file in (broken, pictures / "concept_0" / "0.png"):
        Image.new("RGB", (16, 16), (255, 0, 0)).save(file)

    go("embed", *folder, f"encoders=[{COLOURS!r}]", again=True)

    assert np.allclose(TargetStore.open(store_of(home)).embedding, directly(COLOURS, pictures))


def test_each_encoder_computes_only_the_rows_that_it_lacks(go, home, pictures, folder):
    (broken := pictures / "concept_3" / "2.png").write_bytes(b"no picture")
    with pytest.raises(BrainhiveError, match="1 pictures cannot be decoded"):
        go("embed", *folder, f"encoders=[{COLOURS!r}]")
    before = directly(COLOURS, pictures, but=broken)
    for file in pictures.rglob("*.png"):
        Image.new("RGB", (16, 16), (255, 0, 0)).save(file)

    go("embed", *folder, f"encoders=[{COLOURS!r}, {TIMM}]")

    found = TargetStore.open(store_of(home)).embedding
    assert np.array_equal(found[:11], before)
    assert np.allclose(found[11], directly(COLOURS, pictures)[11])
    other = TargetStore.open(store_of(home, encoders.resolve(TIMM).name)).embedding
    assert np.allclose(other, directly(TIMM, pictures), atol=ROUNDING)


def test_a_changed_picture_folder_is_embedded_again(go, home, pictures, folder):
    go("embed", *folder, f"encoders=[{COLOURS!r}]")
    Image.new("RGB", (16, 16), (0, 0, 255)).save(pictures / "concept_0" / "new.png")

    go("embed", *folder, f"encoders=[{COLOURS!r}]")

    found = TargetStore.open(store_of(home))
    assert "concept_0/new" in found.image_ids
    assert np.allclose(found.embedding, directly(COLOURS, pictures))


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_an_embed_that_is_interrupted_resumes_where_it_stopped(
    blow, brainhive, rows_done, home, pictures, folder, go
):
    argv = ("embed", *folder, "encoders=['python:slow:load']", "batch_size=1", "run.workers=0")
    store, expected = store_of(home, "slow-load"), directly(COLOURS, pictures)
    process = brainhive(*argv, wait=False)
    rows_done(store, at_least=3)
    process.send_signal(blow)
    errors = process.communicate()[1]
    done = rows_done(store, at_least=3)

    assert process.returncode == (130 if blow == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in errors
    assert not store.exists() and 3 <= done < 12

    for file in sorted(pictures.rglob("*.png"))[:done]:
        file.write_bytes(b"it must not be read a second time")
    go("embed", *folder, "encoders=['python:slow:load']", "batch_size=1", "run.workers=0")

    assert not part_of(store).exists()
    assert TargetStore.open(store).done.all()
    assert np.array_equal(TargetStore.open(store).embedding, expected)


def test_what_an_encoder_gives_outlives_the_memory_of_its_batch():
    (group,) = grouped([encoders.resolve(COLOURS)], "fp32", Launch(0, 1, torch.device("cpu")))
    batch = torch.rand(3, 3, 2, 2)  # the encoder only flattens it

    (found,) = group.encode(batch).values()
    expected = batch.flatten(1).clone()
    batch.zero_()

    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", ["timm", "transformers_clip", "diffusers_vae", "open_clip", "dreamsim"])
def test_weights_cast_once_give_just_what_autocast_gives(kind):
    launch, config = Launch(0, 1, torch.device("cpu")), parts.load("encoders", kind).TINY
    (ready,) = grouped([config], "bf16", launch)
    picture = ready.encoder.preprocess(Image.radial_gradient("L").convert("RGB"))[None]

    (as_it_is,) = encode(config.build().module, picture, "bf16", launch)

    assert any(weight.dtype == torch.bfloat16 for weight in ready.network.module.parameters())
    assert torch.equal(ready.encode(picture)[config.name], as_it_is)
