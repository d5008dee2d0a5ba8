"""The demo's dual-guided generator: joined from what the wheel holds, and worth looking
at.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import demo
from brainhive_cli.demo import joined_generators, pictures
from brainhive_cli.models.encoders import demo_image, resolve
from brainhive_cli.models.generators import Sampling, versatile_diffusion
from brainhive_cli.models.heads import Conditioning

pytestmark = pytest.mark.nightly


ITEMS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "dual"
    joined_generators.assemble_generator(joined_generators.DUAL_GUIDED, folder)
    return folder


@pytest.fixture(scope="module")
def generator(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(tmp_path_factory.mktemp("home")))
        return versatile_diffusion.Config(source=str(folder)).build()


@pytest.fixture(scope="module")
def shown() -> torch.Tensor:
    scenes = pictures.list_scenes("test")[:ITEMS]
    drawn = np.stack([np.asarray(pictures.draw_scene(scene)) for scene in scenes])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2) / 255


@pytest.fixture(scope="module")
def true() -> Conditioning:
    """What encoders say of the pictures: latents, image tokens, text tokens of the
    first caption.
    """
    images = demo.Config().build(Paths()).images("test")
    found = {}
    for name, config in (
        ("start", resolve("demo-vae:latent")),
        ("embeddings", demo_image.Config()),
    ):
        encoder = config.build()
        views = torch.stack([encoder.preprocess(images.open(n)) for n in range(ITEMS)])
        with torch.inference_mode():
            found[name] = encoder.module(views).clone()
    encoder = resolve("demo-text").build()
    with torch.inference_mode():
        ids = torch.stack(
            [encoder.preprocess(images.get_captions(n)[0]) for n in range(ITEMS)]
        )
        found["texts"] = encoder.module(ids).clone()
    return Conditioning(**found)


def correlation(image: torch.Tensor, other: torch.Tensor) -> float:
    image, other = (
        x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (image, other)
    )
    return F.cosine_similarity(image, other).mean().item()


def made(generator, given: Conditioning, strength: float = 0.625) -> torch.Tensor:
    return generator.generate(
        given, range(ITEMS), 64, Sampling(steps=8, strength=strength)
    )


def test_a_true_latent_and_true_tokens_give_the_picture_and_the_latent_says_where(
    generator, shown, true
) -> None:
    """From noise alone nothing says where the thing is; another picture's latent says
    it wrongly.
    """
    right = correlation(made(generator, true), shown)
    others = Conditioning(
        embeddings=true.embeddings, texts=true.texts, start=true.start.roll(1, 0)
    )

    assert right > 0.8
    assert right > correlation(made(generator, true, 1.0), shown) + 0.02
    assert right > correlation(made(generator, others), shown) + 0.02


def test_either_stream_says_what_it_is(
    folder, shown, true, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path))
    both = {"embeddings": true.embeddings, "texts": true.texts}
    for name, share in (("embeddings", 0.0), ("texts", 1.0)):
        generator = versatile_diffusion.Config(
            source=str(folder), text_share=share
        ).build()
        right = made(generator, Conditioning(**both), 1.0)
        wrong = made(
            generator, Conditioning(**{**both, name: both[name].roll(1, 0)}), 1.0
        )

        assert correlation(right, shown) > correlation(wrong, shown) + 0.1, name
