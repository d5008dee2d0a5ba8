"""Training and sharing of the small autoencoder of pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.models import WEIGHTS_FILE, encoders
from brainhive_cli.models.generators import autoencoder


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "train").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(20):
        pixels = random.integers(0, 256, (28, 28), np.uint8)
        Image.fromarray(pixels).save(folder / f"train/{number:02d}.png")
    return folder


def test_an_autoencoder_trains_once_and_shares_its_latent_space(
    pictures,
):
    config = encoders.resolve({"kind": "autoencoder", "source": str(pictures)})
    assert not config.is_available
    encoder = config.build()
    written_ns = (pictures / WEIGHTS_FILE).stat().st_mtime_ns

    decoder = autoencoder.Config(source=str(pictures)).build()

    assert config.is_available
    assert (pictures / WEIGHTS_FILE).stat().st_mtime_ns == written_ns
    assert encoder.weights["digest"] == config.build().weights["digest"]
    assert decoder.latent_space == encoder.module.latent_space
    # [1, 3, H, W]
    picture = encoder.preprocess(Image.open(pictures / "train/00.png"))[None]
    latents = encoder.module(picture)
    assert latents.shape == (1, 12)
    assert torch.equal(latents, decoder.encode(picture))
    assert decoder.decode(latents).shape == (1, 3, 28, 28)


def test_absent_or_damaged_pictures_are_missing_data(tmp_path, pictures):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingData, match="holds 0 pictures"):
        encoders.resolve(
            {"kind": "autoencoder", "source": str(tmp_path / "empty")}
        ).build()
    (pictures / "train/07.png").write_bytes(b"no picture")
    with pytest.raises(MissingData, match=r"07\.png"):
        encoders.resolve({"kind": "autoencoder", "source": str(pictures)}).build()
