"""Stable Diffusion 1.5 with an IP-Adapter: the hub's folders in, diffusers' own pictures out."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sd15_repositories
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from hub_server import serving
from PIL import Image
from safetensors.torch import load_file, save_file
from sd15_repositories import ADAPTER, HIDDEN, IMAGE, IP, PLUS, SD15, SIDE_PX, TEXT
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from transformers import CLIPImageProcessor

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.inputs import require
from brainhive_cli.models.conditioning import Conditioning
from brainhive_cli.models.generators import Sampling
from brainhive_cli.models.generators.sd15_ip import Config

TOLERANCE = 1e-4
"""Of pictures in 0..1; a batch rounds differently from a single row."""
KINDS = [ADAPTER, PLUS]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sd15_repositories.write(tmp_path_factory.mktemp("sd15"))


def config(root: Path, adapter: str = ADAPTER, **knobs: Any) -> Config:
    return Config(source=str(root / SD15), adapter=str(root / IP / "models" / adapter), **knobs)


@pytest.fixture
def given() -> Conditioning:
    """Two rows of what the heads are, for the plain adapter."""
    random = torch.Generator().manual_seed(1)
    sizes = {"start": (4, 8, 8), "texts": (77, TEXT), "embeddings": (1, IMAGE)}
    return Conditioning(**{name: torch.randn(2, *size, generator=random) for name, size in sizes.items()})


def make(generator: Any, given: Conditioning, seeds: Sequence[int] = (1, 2), **sampling: Any) -> Tensor:
    asked = {"steps": 5, "guidance": 5.0, "strength": 0.8, **sampling}
    return generator.generate(given, seeds, SIDE_PX, Sampling(**asked))


@pytest.mark.parametrize("adapter", KINDS)
def test_a_picture_is_what_diffusers_whole_pipeline_draws(repositories, adapter):
    """It encodes prompt, picture and unconditional side itself; here the same come as embeddings."""
    pipeline: Any = StableDiffusionImg2ImgPipeline.from_pretrained(repositories / SD15)
    pipeline.load_ip_adapter(str(repositories / IP), subfolder="models", weight_name=adapter)
    pipeline.register_modules(
        feature_extractor=CLIPImageProcessor(
            size={"shortest_edge": SIDE_PX}, crop_size={"height": SIDE_PX, "width": SIDE_PX}
        )
    )
    picture = Image.effect_noise((SIDE_PX, SIDE_PX), 90).convert("RGB")
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = pipeline(
        "a b",
        image=latent,
        ip_adapter_image=picture,
        strength=0.8,
        num_inference_steps=5,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
    ).images
    hidden = adapter == PLUS
    embedded, _ = pipeline.encode_image(picture, "cpu", 1, output_hidden_states=hidden or None)
    tokens = embedded if hidden else embedded[:, None]

    generator = config(repositories, adapter).build()
    found = make(generator, Conditioning(tokens, ["a b"], start=latent), [7])
    text = pipeline.encode_prompt("a b", "cpu", 1, False)[0]
    same = make(generator, Conditioning(tokens, text, start=latent), [7])

    assert torch.allclose(found, whole, atol=TOLERANCE) and torch.allclose(same, whole, atol=TOLERANCE)
    assert not torch.allclose(make(generator, Conditioning(None, text, start=latent), [7]), whole, atol=0.01)
    pixels = F.pil_to_tensor(picture)[None] / 255
    assert generator.latent_space and generator.encode(pixels).shape == latent.shape


def test_a_picture_depends_on_its_row_and_seed_and_not_on_the_batch(repositories, given):
    generator = config(repositories).build()
    for scheduler in (None, "ddim", "euler-ancestral"):
        both = make(generator, given, scheduler=scheduler)
        assert torch.allclose(
            both[1], make(generator, given[1:], [2], scheduler=scheduler)[0], atol=TOLERANCE
        )
        other = make(generator, given[1:], [3], scheduler=scheduler)[0]
        assert not torch.allclose(both[1], other, atol=10 * TOLERANCE)


def test_each_condition_changes_the_picture_and_the_image_share_weighs_one(repositories, given):
    other = given[[1, 0]]
    for share, changed in ((1.0, ("texts", "embeddings", "start")), (0.0, ("texts", "start"))):
        generator = config(repositories, image_share=share).build()
        plain = make(generator, given)
        for name in ("texts", "embeddings", "start"):
            swapped = make(generator, replace(given, **{name: getattr(other, name)}))
            assert torch.allclose(plain, swapped, atol=TOLERANCE) == (name not in changed)


@pytest.mark.parametrize("adapter", KINDS)
def test_guidance_moves_away_from_the_encoded_or_from_zeros(repositories, given, adapter):
    tokens = torch.randn(2, 5, HIDDEN) if adapter == PLUS else given.embeddings
    given = replace(given, embeddings=tokens)
    by = {kind: config(repositories, adapter, unconditional=kind).build() for kind in ("encoded", "zeros")}
    encoded, zeros = (make(each, given) for each in by.values())

    assert not torch.allclose(encoded, zeros, atol=TOLERANCE)
    assert torch.equal(*(make(each, given, guidance=1.0) for each in by.values()))
    nothing = replace(given, embeddings=torch.zeros_like(tokens), texts=torch.zeros(2, 77, TEXT))
    assert torch.allclose(
        make(by["zeros"], nothing), make(by["zeros"], nothing, guidance=1.0), atol=TOLERANCE
    )


def test_the_hub_sends_what_is_used_and_no_more(repositories, tmp_path, monkeypatch, given):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with serving(repositories) as hub:
        hub.lead(monkeypatch)
        plain = Config()
        plain.check()
        listed = plain.inputs()
        make(plain.build(), given)

    names = [f"{SD15}/{n}/diffusion_pytorch_model.safetensors" for n in ("unet", "vae")]
    names += [f"{IP}/models/{ADAPTER}", f"{SD15}/text_encoder/model.safetensors"]
    assert sum(one.size for one in listed) == sum((repositories / name).stat().st_size for name in names)
    assert {one.state for one in listed} == {"to download"}
    sent = [name for name in hub.fetched if name.endswith(".safetensors")]
    assert sorted(sent) == sorted(names)


def test_wrong_conditions_are_refused(repositories, given):
    plain, plus = (config(repositories, adapter).build() for adapter in KINDS)
    with pytest.raises(BrainhiveError, match=r"image tokens \[B, S, 10\], not \[2, 5, 64\]") as caught:
        make(plain, replace(given, embeddings=torch.zeros(2, 5, HIDDEN)))
    assert "clip-h14" in caught.value.hint
    with pytest.raises(BrainhiveError, match=r"image tokens \[B, S, 64\], not \[2, 1, 10\]"):
        make(plus, given)
    with pytest.raises(BrainhiveError, match=r"the image tokens are \[2, 4, 64\], .* \[2, 5, 64\]"):
        make(plus, replace(given, embeddings=torch.zeros(2, 4, HIDDEN)))
    with pytest.raises(BrainhiveError, match=r"text tokens \[B, S, 12\], not \[2, 77, 13\]"):
        make(plain, replace(given, texts=torch.zeros(2, 77, 13)))
    with pytest.raises(BrainhiveError, match="2 seeds need a conditioning of 2 rows; got 1"):
        make(plain, given[:1])


def test_what_is_absent_damaged_or_of_another_kind_is_refused(repositories, tmp_path):
    root = Path(shutil.copytree(repositories, tmp_path / "other"))
    adapter = root / IP / "models" / ADAPTER
    state = load_file(adapter)
    save_file({"unet.weight": torch.zeros(1)}, adapter)
    with pytest.raises(MissingData, match="holds no image_proj and ip_adapter"):
        config(root).build()
    save_file({name: value for name, value in state.items() if ".3." not in name}, adapter)
    with pytest.raises(MissingData, match=f"the IP-Adapter .*{ADAPTER} does not fit"):
        config(root).build()
    adapter.unlink()
    with pytest.raises(MissingData, match=f"no file .*{ADAPTER}"):
        require(config(root).inputs())
    (root / SD15 / "vae/diffusion_pytorch_model.safetensors").unlink()
    for ask in (lambda: require(config(root).inputs()), config(root).build):
        with pytest.raises(MissingData, match="vae"):
            ask()
    shutil.rmtree(root / IP / "models/image_encoder")
    with pytest.raises(MissingData, match="has no image_encoder"):
        make(config(repositories, str(root / IP / "models" / PLUS)).build(), Conditioning(), [1])


def test_the_latents_of_sdxl_have_another_name_than_these(repositories):
    from brainhive_cli.models.generators import sdxl

    assert config(repositories).build().latent_space != sdxl.TINY.build().latent_space
