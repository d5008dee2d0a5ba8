"""embed: several outputs of one network, from one forward and one preprocessing."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import timm
import torch
from PIL import Image

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.stores import target_store
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.models import encoders
from brainhive_cli.models.encoders import diffusers_vae
from brainhive_cli.models.encoders._degradations import degrade

OUTPUTS = ["class", "mean", "block-2.patches"]
TIMM = {"kind": "timm", "source": "random", "architecture": "test_vit"}
ROUNDING = 1e-5
"""Batches of other sizes round differently in float32."""


@pytest.fixture
def folder(home: Path, pictures: Path) -> tuple[str, ...]:
    """Overrides for the folder of pictures, in an empty home."""
    encoder = {**TIMM, "output": OUTPUTS}
    return (
        f"dataset={{kind: image-folder, root: {pictures}}}",
        f"encoders=[{encoder}]",
        "batch_size=5",
        "run.workers=0",
    )


def config_of(output: str) -> encoders.EncoderConfig:
    return encoders.resolve({**TIMM, "output": output})


def store_of(home: Path, output: str) -> Path:
    return target_store.path_of(home / "embeddings", "pictures", "train", config_of(output).name)


def directly(pictures: Path, output: str) -> np.ndarray:
    encoder = config_of(output).build()
    views = [encoder.preprocess(Image.open(file).convert("RGB")) for file in sorted(pictures.rglob("*.png"))]
    with torch.inference_mode():
        return encoder.module(torch.stack(views)).numpy()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Pictures that went through timm's transform, and through its networks."""
    counts = {"transform": 0, "network": 0}
    made = timm.data.create_transform

    def counted(*args, **knobs):
        transform = made(*args, **knobs)

        def call(picture):
            counts["transform"] += 1
            return transform(picture)

        return call

    def hook(module, inputs, output):
        if isinstance(module, timm.models.VisionTransformer):
            counts["network"] += len(output)

    monkeypatch.setattr(timm.data, "create_transform", counted)
    handle = torch.nn.modules.module.register_module_forward_hook(hook)
    yield counts
    handle.remove()


def test_outputs_are_a_store_each_from_one_forward(go, home, pictures, folder, seen):
    go("embed", *folder)

    assert seen == {"transform": 12 + 2, "network": 12 + 1}  # to try it, and to learn the shapes
    for output in OUTPUTS:
        found = TargetStore.open(store_of(home, output))
        assert found.attributes["config"]["output"] == output
        assert np.allclose(found.embedding, directly(pictures, output), atol=ROUNDING)
    assert found.embedding.shape == (12, 100, 64)


def test_an_output_more_is_computed_alone(go, home, pictures, folder):
    go("embed", *folder, f"encoders=[{ {**TIMM, 'output': 'class'} }]")
    inode = store_of(home, "class").stat().st_ino

    go("embed", *folder)

    assert store_of(home, "class").stat().st_ino == inode
    assert np.allclose(TargetStore.open(store_of(home, "mean")).embedding, directly(pictures, "mean"))


def test_each_output_of_a_network_gets_only_the_rows_that_it_lacks(go, home, pictures, folder):
    (broken := pictures / "concept_3" / "2.png").write_bytes(b"no picture")
    with pytest.raises(BrainhiveError, match="1 pictures cannot be decoded"):
        go("embed", *folder, f"encoders=[{ {**TIMM, 'output': 'class'} }]")
    with h5py.File(store_of(home, "class").with_suffix(".h5.part")) as file:
        before = file["embedding"][:11]
    for file in pictures.rglob("*.png"):
        Image.new("RGB", (16, 16), (255, 0, 0)).save(file)

    go("embed", *folder)

    assert broken.is_file()
    found = TargetStore.open(store_of(home, "class")).embedding
    assert np.array_equal(found[:11], before)
    assert np.allclose(found[11], directly(pictures, "class")[11], atol=ROUNDING)
    other = TargetStore.open(store_of(home, "mean")).embedding
    assert np.allclose(other, directly(pictures, "mean"), atol=ROUNDING)


def test_latents_and_tokens_keep_their_shape_in_a_store(go, home, pictures, folder):
    knobs = {**diffusers_vae.TINY.model_dump(), "output": ["embedding", "latent"]}
    go("embed", *folder, f"encoders=[{knobs}, { {**TIMM, 'output': 'tokens'} }]")

    flat, latent = (
        TargetStore.open(target_store.path_of(home / "embeddings", "pictures", "train", one.name))
        for one in encoders.resolve(knobs).outputs
    )
    assert latent.embedding.shape == (12, 4, 16, 16)
    assert np.array_equal(latent.embedding[:].reshape(12, -1), flat.embedding)
    assert latent.health == flat.health
    tokens = TargetStore.open(store_of(home, "tokens"))
    assert np.allclose(tokens.embedding, directly(pictures, "tokens"), atol=ROUNDING)
    assert len(tokens.embedding.shape) == 3


def test_degraded_pictures_share_one_network_and_one_decoding(go, home, pictures, folder, seen, monkeypatch):
    loads, opened = [], []
    make, open_picture = timm.create_model, Image.open
    monkeypatch.setattr(timm, "create_model", lambda *args, **knobs: loads.append(1) or make(*args, **knobs))
    monkeypatch.setattr(
        Image, "open", lambda *args, **knobs: opened.append(knobs) or open_picture(*args, **knobs)
    )
    blurs = ["gaussian-9", "mosaic-5", "noise-25"]
    encoder = {**TIMM, "degrade": blurs, "output": ["class", "mean"]}

    go("embed", *folder, f"encoders=[{ {**TIMM, 'output': 'class'} }, {encoder}]")

    decoded = [knobs for knobs in opened if knobs["formats"] != ("PNG",)]  # which verifies checksums
    assert (len(loads), len(decoded)) == (1, len([*pictures.rglob("*.png")]))
    assert seen["network"] == (1 + len(blurs)) * (
        12 + 1
    )  # a forward for each that is seen, and for its shapes
    plain, made = encoders.resolve(TIMM).build(), set()
    for config in encoders.resolve(encoder).outputs:
        found = TargetStore.open(target_store.path_of(home / "embeddings", "pictures", "train", config.name))
        assert found.attributes["config"]["degrade"] == config.degrade
        assert config.degrade in found.attributes["preprocessing"]
        files = sorted(pictures.rglob("*.png"))
        side = plain.preprocess(Image.new("RGB", (64, 64))).shape[-1]
        views = [degrade(Image.open(file).convert("RGB"), config.degrade, side) for file in files]
        module = encoders.resolve({**TIMM, "output": config.output}).build().module
        with torch.inference_mode():
            expected = module(torch.stack([plain.preprocess(view) for view in views])).numpy()
        assert np.allclose(found.embedding, expected, atol=ROUNDING)
        made.add(found.embedding[...].tobytes())
    assert len(made) == 2 * len(blurs)


def test_a_store_of_a_degradation_is_made_anew_alone(go, home, pictures, folder):
    paths = []
    for how in ("gaussian-9", "gaussian-15"):
        go("embed", *folder, f"encoders=[{ {**TIMM, 'degrade': how} }]")
        name = encoders.resolve({**TIMM, "degrade": how}).name
        paths.append(target_store.path_of(home / "embeddings", "pictures", "train", name))
    first, second = (TargetStore.open(path) for path in paths)
    assert paths[0].name.replace("-9", "-15") == paths[1].name
    assert not np.allclose(first.embedding, second.embedding)
