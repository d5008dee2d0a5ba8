"""Encoders of what diffusion models are conditioned on, against golden values and the libraries."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hub_repositories
import numpy as np
import pytest
import sd15_repositories
import torch
import transformers
import versatile_repository
from diffusers import AutoencoderKL
from hub_server import serving
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.core.inputs import describe_missing
from brainhive_cli.models import encoders
from brainhive_cli.models.encoders import vd_image, vd_text
from brainhive_cli.models.generators import versatile_diffusion

TOLERANCE = 1e-4
"""Of the largest value: the golden folder calls it safe."""
SAME = 1e-5
"""One picture and the library's own batch of it, in float32."""
VD = versatile_repository.NAME


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versatile Diffusion and Stable Diffusion 1.5, as the hub has them."""
    root = tmp_path_factory.mktemp("hub")
    versatile_repository.write(root / VD)
    sd15_repositories.write(root)
    for folder in (VD, sd15_repositories.SD15):  # shrinks 8 times: few places to attend to
        deep = {"block_out_channels": [8] * 4, "down_block_types": ["DownEncoderBlock2D"] * 4}
        deep |= {"up_block_types": ["UpDecoderBlock2D"] * 4}
        AutoencoderKL(**{**sd15_repositories.VAE, **deep}).save_pretrained(root / folder / "vae")
    return root


def read(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def config_of(path: Path) -> dict[str, Any]:
    """Sizes of the networks of a golden file."""
    with safe_open(path, "pt") as file:
        config: dict[str, Any] = json.loads(file.metadata()["config"])
        return config


def below(golden: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()  # which may be 0


def assert_far(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() > 1000 * TOLERANCE * expected.abs().max()


def test_versatile_diffusions_conditions_are_the_references_and_not_the_two_common_mistakes(golden, tmp_path):
    """Golden values: diffusers' own normalisation of a tiny CLIP's tokens."""
    file = golden / "havir" / "vd_condition.safetensors"
    expected, config = read(file), config_of(file)
    sizes = {"image_encoder": config["vision"], "text_encoder": config["text"]}
    states = {"image_encoder": below(expected, "vision."), "text_encoder": below(expected, "text.")}
    folder = str(versatile_repository.write(tmp_path / "vd", states, sizes))

    image = vd_image.Config(source=folder).build().module(expected["in.pixel_values"])
    text = vd_text.Config(source=folder).build().module(expected["in.input_ids"])

    assert_near(image, expected["out.image_condition"])
    assert_near(text, expected["out.text_condition"])
    wrong = below(expected, "wrong.")
    assert len(wrong) == 2
    for mistake in wrong.values():
        assert_far(image, mistake)


def test_latents_are_the_references_mode_times_the_factor_that_its_config_lacks(golden, tmp_path):
    """Golden values: a tiny AutoencoderKL, whose weights have the attention's old names here."""
    expected = read(golden / "havir" / "latent_target.safetensors")
    vae = config_of(golden / "havir" / "latent_target.safetensors")["vae"]
    sizes = {"vae": {name: value for name, value in vae.items() if name != "scaling_factor"}}
    folder = versatile_repository.write(tmp_path / "vd", {"vae": below(expected, "vae.")}, sizes)
    assert "scaling_factor" not in (folder / "vae/config.json").read_text()
    assert (
        "mid_block.attentions.0.query.weight"
        in torch.load(folder / "vae/diffusion_pytorch_model.bin").__str__()
    )

    encoder = encoders.resolve({"kind": "vd-vae", "source": str(folder / "vae")}).build()

    assert_near(encoder.module(expected["in.image"] * 2 - 1), expected["out.latent"])


def view_of(side_px: int) -> Any:
    """An encoder that sees pictures of this height and width."""
    tiny = parts.load("encoders", "vd-vae").TINY
    return tiny.model_copy(update={"resolution_px": side_px}).build()


def test_pictures_are_resized_bilinearly_with_antialiasing_and_not_rounded(golden, tmp_path):
    """Golden values: the resize of floats, which a picture holds rounded to bytes."""
    expected = read(golden / "havir" / "latent_target.safetensors")
    given = expected["in.image_to_resize"][0]
    large = Image.fromarray((given * 255).round().byte().permute(1, 2, 0).numpy())
    (resized_by_reference,) = below(expected, "out.resized_bilinear_antialias_").values()
    side = resized_by_reference.shape[-1]

    found = view_of(side).preprocess(large) / 2 + 0.5

    rounding = 0.5 / 255
    options = {"mode": "bilinear", "antialias": True, "align_corners": False}
    assert (found - resized_by_reference[0]).abs().max() <= rounding + SAME
    assert_near(
        torch.nn.functional.interpolate(expected["in.image_to_resize"], (side, side), **options),
        resized_by_reference,
    )
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8))
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None] / 255
    resized = torch.nn.functional.interpolate(pixels, (32, 41), **options)[0, :, :, 4:36]
    assert torch.allclose(view_of(32).preprocess(small) / 2 + 0.5, resized, atol=SAME)


@pytest.mark.parametrize("name", ["vd-image", "vd-vae", "vd-text", "sd15-text", "sd15-vae"])
def test_encoders_by_name_fetch_from_the_hub_only_what_they_load(hub, name, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with serving(hub) as served:
        served.lead(monkeypatch)
        config = encoders.resolve(name)
        assert config.name == name and not config.is_here
        listed = config.inputs()
        size = sum(one.size or 0 for one in listed)
        assert not describe_missing(listed)
        encoder = config.build()
        shape = encoder.module(encoder.preprocess(example_of(encoder))[None]).shape[1:]
        sent = [path for path in served.fetched if path.endswith((".bin", ".safetensors", ".pth"))]
        assert config.is_here

    component = {"vd-image": "image_encoder", "vd-vae": "vae", "sd15-vae": "vae"}.get(name, "text_encoder")
    (weights,) = sent
    assert Path(weights).parent.name == component and size >= (hub / weights).stat().st_size
    same = config.shape == shape if component == "vae" else len(config.shape or ()) == len(shape)
    assert same and len(encoder.weights["digest"]) == 64


def example_of(encoder: Any) -> Any:
    return "a b" if encoder.reads == "captions" else Image.new("RGB", (40, 30), "red")


def test_sd15_text_is_the_last_hidden_state_of_its_own_text_encoder(hub):
    folder = hub / sd15_repositories.SD15
    encoder = encoders.resolve({"kind": "sd15-text", "source": str(folder)}).build()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    ids = tokenizer("a b", padding="max_length", max_length=77, return_tensors="pt").input_ids
    expected = transformers.CLIPTextModel.from_pretrained(folder / "text_encoder")(ids).last_hidden_state

    assert torch.equal(encoder.preprocess("a b"), ids[0])
    assert torch.allclose(encoder.module(ids), expected, atol=SAME)


def test_clip_h14s_text_is_the_projected_end_token_in_the_space_of_its_pictures(tmp_path):
    folder = hub_repositories.write_encoders(tmp_path) / hub_repositories.H14
    encoder = encoders.resolve({"kind": "clip-h14-text", "source": str(folder)}).build()
    ids = torch.stack([encoder.preprocess(text) for text in ("This picture is aardvark", "ab")])
    model = transformers.CLIPModel.from_pretrained(folder)
    tower = model.text_model(input_ids=ids[:, :30])  # what follows the end of a text changes nothing

    embedded = encoder.module(ids)

    assert ids.shape == (2, 77) and embedded.shape == (2, *encoders.resolve("clip-h14-text").shape)
    assert torch.allclose(embedded, model.text_projection(tower.pooler_output), atol=SAME)
    assert (embedded[0] - embedded[1]).abs().max() > 1000 * SAME


def test_an_autoencoders_latents_have_the_name_of_the_generator_that_decodes_them(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path))
    sd15 = hub / sd15_repositories.SD15
    generator = versatile_diffusion.Config(source=str(hub / VD)).build(dtype=torch.float16)
    latents = [
        encoders.resolve({"kind": kind, "source": str(folder / "vae")}).build().module.latent_space
        for kind, folder in (("vd-vae", hub / VD), ("sd15-vae", sd15))
    ]
    assert latents[0] == generator.latent_space != latents[1]


def test_a_folder_without_a_component_or_with_half_of_one_is_named(hub, tmp_path):
    folder = Path(shutil.copytree(hub / VD, tmp_path / "vd"))
    for kind, file in (
        ("vd-image", "image_encoder/pytorch_model.bin"),
        ("vd-text", "text_encoder/pytorch_model.bin"),
    ):
        whole = (folder / file).read_bytes()
        (folder / file).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(MissingData, match="damaged or half-downloaded"):
            encoders.resolve({"kind": kind, "source": str(folder)}).build().module  # noqa: B018
        (folder / file).unlink()
        with pytest.raises(MissingData, match=f"has no .*{file}"):
            encoders.resolve({"kind": kind, "source": str(folder)}).build()
    (folder / "image_feature_extractor/preprocessor_config.json").unlink()
    with pytest.raises(MissingData, match=r"has no .*preprocessor_config\.json"):
        encoders.resolve({"kind": "vd-image", "source": str(folder)}).build()


def test_captions_are_combined_as_the_output_says_and_named_by_it():
    assert [encoders.resolve(name).combines for name in ("vd-text", "vd-text:average")] == ["", "average"]
    assert encoders.resolve("sd15-text:first").name == "sd15-text-first"
    assert encoders.resolve("vd-text:average").known_shape == (77, 768)
    with pytest.raises(RecipeError, match="pictures has no effect on an encoder of captions"):
        encoders.resolve({"kind": "vd-text", "pictures": "folder"})
