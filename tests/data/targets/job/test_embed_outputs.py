"""embed: several outputs of a network, from a single forward pass and preprocessing."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from brainhive_cli.data.stores import TargetStore, target_store
from brainhive_cli.models import encoders
from brainhive_cli.models.encoders import degrade, diffusers_vae

OUTPUTS = ["class", "mean", "block-2.patches"]
TIMM = {"kind": "timm", "source": "random", "architecture": "test_vit"}
ROUNDING = 1e-5
"""Batches of other sizes round differently in float32."""


@pytest.fixture
def folder(home, pictures):
    """Overrides for the folder of pictures, in an empty home."""
    encoder = {**TIMM, "output": OUTPUTS}
    return (
        f"dataset={{kind: image-folder, root: {pictures}}}",
        f"encoders=[{encoder}]",
        "batch_size=5",
        "run.workers=0",
    )


def config_of(output):
    return encoders.resolve({**TIMM, "output": output})


def store_of(home, output):
    return target_store.build_store_path(
        home / "embeddings", "pictures", "train", config_of(output).name
    )


def directly(pictures, output):
    encoder = config_of(output).build()
    views = [
        encoder.preprocess(Image.open(file).convert("RGB"))
        for file in sorted(pictures.rglob("*.png"))
    ]
    with torch.inference_mode():
        return encoder.module(torch.stack(views)).numpy()


@pytest.fixture
def call_counts(monkeypatch):
    """Pictures that went through timm's transform, and through its networks."""
    counts = {"transform": 0, "network": 0}
    create_transform = timm.data.create_transform

    def count_call(*args, **knobs):
        transform = create_transform(*args, **knobs)

        def call(picture):
            counts["transform"] += 1
            return transform(picture)

        return call

    def hook(module, inputs, output):
        if isinstance(module, timm.models.VisionTransformer):
            counts["network"] += len(output)

    monkeypatch.setattr(timm.data, "create_transform", count_call)
    handle = torch.nn.modules.module.register_module_forward_hook(hook)
    yield counts
    handle.remove()


def test_latents_and_tokens_keep_their_shape_in_a_store(
    run_command, home, pictures, folder
):
    knobs = {**diffusers_vae.TINY.model_dump(), "output": ["embedding", "latent"]}
    run_command(
        "embed", *folder, f"encoders=[{knobs}, { {**TIMM, 'output': 'tokens'} }]"
    )

    flat, latent = (
        TargetStore.open(
            target_store.build_store_path(
                home / "embeddings", "pictures", "train", single_store_config.name
            )
        )
        for single_store_config in encoders.resolve(knobs).store_configs
    )
    assert latent.embedding.shape == (12, 4, 16, 16)
    assert np.array_equal(latent.embedding[:].reshape(12, -1), flat.embedding)
    assert latent.health == flat.health
    tokens = TargetStore.open(store_of(home, "tokens"))
    assert np.allclose(tokens.embedding, directly(pictures, "tokens"), atol=ROUNDING)
    assert len(tokens.embedding.shape) == 3


def test_degraded_pictures_share_one_network_and_one_decoding(
    run_command, home, pictures, folder, call_counts, monkeypatch
):
    loads, opened_rows = [], []
    make, open_picture = timm.create_model, Image.open
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda *args, **knobs: loads.append(1) or make(*args, **knobs),
    )
    monkeypatch.setattr(
        Image,
        "open",
        lambda *args, **knobs: (
            opened_rows.append(knobs) or open_picture(*args, **knobs)
        ),
    )
    blurs = ["gaussian-9", "mosaic-5", "noise-25"]
    encoder = {**TIMM, "degrade": blurs, "output": ["class", "mean"]}

    run_command(
        "embed", *folder, f"encoders=[{ {**TIMM, 'output': 'class'} }, {encoder}]"
    )

    # which verifies checksums
    decoded = [knobs for knobs in opened_rows if knobs["formats"] != ("PNG",)]
    assert (len(loads), len(decoded)) == (1, len(list(pictures.rglob("*.png"))))
    assert call_counts["network"] == (1 + len(blurs)) * (
        12 + 1
    )  # a forward for each that is seen, and for its shapes
    plain_network, networks = encoders.resolve(TIMM).build(), set()
    for config in encoders.resolve(encoder).store_configs:
        output_store = TargetStore.open(
            target_store.build_store_path(
                home / "embeddings", "pictures", "train", config.name
            )
        )
        assert output_store.attributes["config"]["degrade"] == config.degrade
        assert config.degrade in output_store.attributes["preprocessing"]
        files = sorted(pictures.rglob("*.png"))
        shape = plain_network.preprocess(Image.new("RGB", (64, 64))).shape[-1]
        views = [
            degrade(Image.open(file).convert("RGB"), config.degrade, shape)
            for file in files
        ]
        module = encoders.resolve({**TIMM, "output": config.output}).build().module
        with torch.inference_mode():
            expected = module(
                torch.stack([plain_network.preprocess(view) for view in views])
            ).numpy()
        assert np.allclose(output_store.embedding, expected, atol=ROUNDING)
        networks.add(output_store.embedding[...].tobytes())
    assert len(networks) == 2 * len(blurs)
