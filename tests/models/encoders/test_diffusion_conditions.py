"""Encoders of conditions of diffusion models, compared with golden values."""

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from brainhive_cli.core.recipes import parts
from brainhive_cli.models import encoders
from brainhive_cli.models.encoders import vd_image, vd_text
from tests.repositories import (
    hub_repositories,
    sd15_repositories,
    versatile_diffusion_repository,
)
from tests.tools.golden_files import assert_near, read, select_prefix

TOLERANCE = 1e-4
"""Of the largest value: the golden folder calls it safe."""
SAME = 1e-5
"""A picture and the library's own batch of it, in float32."""


pytestmark = pytest.mark.usefixtures("without_gradients")


def assert_far(actual, expected):
    assert (actual - expected).abs().max() > 1000 * TOLERANCE * expected.abs().max()


@pytest.fixture
def conditions(golden, tmp_path):
    """Versatile Diffusion's tokens of the golden pictures and texts, and the golden
    tensors.
    """
    config, expected = read(golden / "havir" / "vd_condition.safetensors")
    sizes = {"image_encoder": config["vision"], "text_encoder": config["text"]}
    states = {
        "image_encoder": select_prefix(expected, "vision."),
        "text_encoder": select_prefix(expected, "text."),
    }
    folder = str(versatile_diffusion_repository.write(tmp_path / "vd", states, sizes))
    image = vd_image.Config(source=folder).build().module(expected["in.pixel_values"])
    text = vd_text.Config(source=folder).build().module(expected["in.input_ids"])
    return image, text, expected


def test_conditions_of_versatile_diffusion_equal_the_reference(conditions):
    """Golden values: diffusers' own normalisation of a tiny CLIP's tokens."""
    image, text, expected = conditions

    assert_near(image, expected["out.image_condition"])
    assert_near(text, expected["out.text_condition"])
    mistakes = select_prefix(expected, "wrong.")
    assert mistakes
    for mistake in mistakes.values():
        assert_far(image, mistake)


def test_conditions_have_clips_embedding_of_length_1_as_a_token(conditions):
    """Golden values: CLIP's projected class token and end token."""
    image, text, expected = conditions
    image_embeds = expected["out.image_embeds"]
    text_embeds = expected["out.text_embeds"]
    # CLIP's rule: the end token has the largest id
    end = expected["in.input_ids"].argmax(1)

    assert_near(image[:, 0], image_embeds / image_embeds.norm(dim=-1, keepdim=True))
    assert_near(
        text[torch.arange(len(text)), end],
        text_embeds / text_embeds.norm(dim=-1, keepdim=True),
    )


def test_latents_equal_the_reference_times_the_missing_factor(golden, tmp_path):
    """Golden values: a tiny AutoencoderKL, whose weights have the attention's old names
    here.
    """
    config, expected = read(golden / "havir" / "latent_target.safetensors")
    sizes = {
        "vae": {
            name: value
            for name, value in config["vae"].items()
            if name != "scaling_factor"
        }
    }
    folder = versatile_diffusion_repository.write(
        tmp_path / "vd", {"vae": select_prefix(expected, "vae.")}, sizes
    )
    assert "scaling_factor" not in (folder / "vae/config.json").read_text()
    assert (
        "mid_block.attentions.0.query.weight"
        in torch.load(folder / "vae/diffusion_pytorch_model.bin").__str__()
    )

    encoder = encoders.resolve(
        {"kind": "vd-vae", "source": str(folder / "vae")}
    ).build()

    assert_near(encoder.module(expected["in.image"] * 2 - 1), expected["out.latent"])


def view_of(side_px):
    """Make an encoder of pictures with this side."""
    tiny = parts.load("encoders", "vd-vae").TINY
    return tiny.model_copy(update={"resolution_px": side_px}).build()


def test_pictures_are_resized_with_antialiasing_and_not_rounded(golden, tmp_path):
    """Golden values: resized floats. A picture rounds them to bytes."""
    _, expected = read(golden / "havir" / "latent_target.safetensors")
    pixels_before = expected["in.image_to_resize"][0]
    large = Image.fromarray(
        (pixels_before * 255).round().byte().permute(1, 2, 0).numpy()
    )
    (resized_by_reference,) = select_prefix(
        expected, "out.resized_bilinear_antialias_"
    ).values()
    side_px = resized_by_reference.shape[-1]

    resized_by_encoder = view_of(side_px).preprocess(large) / 2 + 0.5

    rounding = 0.5 / 255
    options = {"mode": "bilinear", "antialias": True, "align_corners": False}
    assert (resized_by_encoder - resized_by_reference[0]).abs().max() <= rounding + SAME
    assert_near(
        torch.nn.functional.interpolate(
            expected["in.image_to_resize"], (side_px, side_px), **options
        ),
        resized_by_reference,
    )
    small = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    )
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None] / 255
    resized = torch.nn.functional.interpolate(pixels, (32, 41), **options)[
        0, :, :, 4:36
    ]
    assert torch.allclose(view_of(32).preprocess(small) / 2 + 0.5, resized, atol=SAME)


def test_text_of_sd15_is_the_last_hidden_state_of_its_encoder(tmp_path):
    sd15_repositories.write(tmp_path)
    folder = tmp_path / sd15_repositories.SD15
    encoder = encoders.resolve({"kind": "sd15-text", "source": str(folder)}).build()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    ids = tokenizer(
        "a b", padding="max_length", max_length=77, return_tensors="pt"
    ).input_ids
    expected = transformers.CLIPTextModel.from_pretrained(folder / "text_encoder")(
        ids
    ).last_hidden_state

    assert torch.equal(encoder.preprocess("a b"), ids[0])
    assert torch.allclose(encoder.module(ids), expected, atol=SAME)


def test_text_of_clip_h14_is_the_projected_end_token(
    tmp_path,
):
    folder = hub_repositories.write_encoders(tmp_path) / hub_repositories.H14
    encoder = encoders.resolve({"kind": "clip-h14-text", "source": str(folder)}).build()
    ids = torch.stack(
        [encoder.preprocess(text) for text in ("This picture is aardvark", "ab")]
    )
    model = transformers.CLIPModel.from_pretrained(folder)
    # tokens after the end of a text have no effect
    tower = model.text_model(input_ids=ids[:, :30])

    embedded = encoder.module(ids)

    assert ids.shape == (2, 77)
    assert embedded.shape == (2,) + tuple(encoders.resolve("clip-h14-text").shape)
    assert torch.allclose(
        embedded, model.text_projection(tower.pooler_output), atol=SAME
    )
    assert (embedded[0] - embedded[1]).abs().max() > 1000 * SAME
