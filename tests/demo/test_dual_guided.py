"""The demo's dual-guided generator: joined from what the wheel holds, and worth looking at."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import demo
from brainhive_cli.demo import joined_generators, pictures
from brainhive_cli.models.encoders import demo_image, resolve
from brainhive_cli.models.generators import Sampling, versatile_diffusion
from brainhive_cli.models.heads import Conditioning
from tools.demo_world import plain_unet
from tools.demo_world.pool import drawn

ITEMS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "dual"
    joined_generators.DUAL_GUIDED.assemble(folder)
    return folder


@pytest.fixture(scope="module")
def generator(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(tmp_path_factory.mktemp("home")))
        return versatile_diffusion.Config(source=str(folder)).build()


@pytest.fixture(scope="module")
def shown() -> torch.Tensor:
    return drawn(pictures.scenes("test")[:ITEMS]).pictures / 255


@pytest.fixture(scope="module")
def true() -> Conditioning:
    """What encoders say of the pictures: latents, image tokens, text tokens of the first caption."""
    images = demo.Config().build(Paths()).images("test")
    found = {}
    for name, config in (("start", resolve("demo-vae:latent")), ("embeddings", demo_image.Config())):
        encoder = config.build()
        views = torch.stack([encoder.preprocess(images.open(n)) for n in range(ITEMS)])
        with torch.inference_mode():
            found[name] = encoder.module(views).clone()
    encoder = resolve("demo-text").build()
    with torch.inference_mode():
        ids = torch.stack([encoder.preprocess(images.captions_of(n)[0]) for n in range(ITEMS)])
        found["texts"] = encoder.module(ids).clone()
    return Conditioning(**found)


def correlation(image: torch.Tensor, other: torch.Tensor) -> float:
    image, other = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (image, other))
    return F.cosine_similarity(image, other).mean().item()


def made(generator, given: Conditioning, strength: float = 0.625) -> torch.Tensor:
    return generator.generate(given, range(ITEMS), 64, Sampling(steps=8, strength=strength))


def test_it_is_joined_once_and_again_where_it_is_not_whole(folder: Path) -> None:
    weights = folder / "unet.safetensors"
    before = weights.stat().st_mtime_ns

    joined_generators.DUAL_GUIDED.assemble(folder)
    assert weights.stat().st_mtime_ns == before
    (folder / joined_generators.STAMP).unlink()
    weights.unlink()
    joined_generators.DUAL_GUIDED.assemble(folder)

    assert weights.is_file()


def test_of_the_unet_the_wheel_holds_what_differs_from_the_other_demo_s(folder: Path) -> None:
    own, joined = load_file(joined_generators.DUAL_UNET), load_file(folder / "unet.safetensors")
    shared = load_file(joined_generators.SHARED / "unet/diffusion_pytorch_model.safetensors")

    assert own.keys() < joined.keys()
    assert all(torch.equal(joined[name], value) for name, value in own.items())
    name = "mid_block.resnets.0.conv1.weight"
    assert name not in own and torch.equal(joined[name], shared[name])
    of_text = [name for name in joined if ".text." in name]
    assert of_text and {name.replace(".text.", ".image.") for name in of_text} < joined.keys()


def test_without_own_weights_it_is_the_other_demo_s_unet() -> None:
    """Size ids as a bias and the prior's attention in the place of the text's change nothing but rounding."""
    from brainhive_cli.models.generators import sdxl
    from brainhive_cli.models.priors.fusion_prior import FusionPrior

    other, prior = sdxl.Config(source="demo:generator").build(), FusionPrior.load("demo:prior").float()
    prior.attach(other)
    random = torch.Generator().manual_seed(0)
    latents, tokens = (torch.randn(2, *shape, generator=random) for shape in ((4, 16, 16), (4, 128)))
    timesteps, sizes = torch.tensor([900, 300]), torch.tensor([joined_generators.SIZE_IDS]).expand(2, -1)
    with torch.no_grad():
        plain = plain_unet.load()(latents, timesteps, tokens, return_dict=False)[0]
        added = {"text_embeds": torch.zeros(2, 16), "time_ids": sizes}
        given = {"added_cond_kwargs": added, "cross_attention_kwargs": {"ip_hidden_states": tokens}}
        expected = other.unet(latents, timesteps, torch.zeros(2, 1, 128), return_dict=False, **given)[0]
    torch.testing.assert_close(plain, expected, atol=1e-4, rtol=1e-4)


def test_a_true_latent_and_true_tokens_give_the_picture(generator, shown, true) -> None:
    assert correlation(made(generator, true), shown) > 0.8


def test_the_latent_says_where(generator, shown, true) -> None:
    """From noise alone nothing says where the thing is; another picture's latent says it wrongly."""
    right = correlation(made(generator, true), shown)
    others = Conditioning(embeddings=true.embeddings, texts=true.texts, start=true.start.roll(1, 0))

    assert right > correlation(made(generator, true, 1.0), shown) + 0.02
    assert right > correlation(made(generator, others), shown) + 0.02


@pytest.mark.parametrize("name", ["embeddings", "texts"])
def test_either_stream_says_what_it_is(folder, shown, true, name, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path))
    share = 1.0 if name == "texts" else 0.0
    config = versatile_diffusion.Config(source=str(folder), text_share=share)
    generator = config.build()
    tokens = getattr(true, name)
    both = {"embeddings": true.embeddings, "texts": true.texts}
    right = made(generator, Conditioning(**both), 1.0)
    wrong = made(generator, Conditioning(**{**both, name: tokens.roll(1, 0)}), 1.0)

    assert correlation(right, shown) > correlation(wrong, shown) + 0.1


def test_every_word_of_the_captions_is_one_token() -> None:
    encoder = resolve("demo-text").build()
    for scene in pictures.scenes("train")[::50]:
        for caption in pictures.captions(scene):
            ids = encoder.preprocess(caption)
            words = caption.replace(",", " ,").split()
            assert ids.shape == (12,) and (ids[1 : 1 + len(words)] > 1).all()
            assert (ids[1 + len(words) :] == 1).all()  # the end, and padding
