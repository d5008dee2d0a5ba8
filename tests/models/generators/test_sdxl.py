"""Tests of the SDXL generator: its folders, pictures and training loss."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, EulerAncestralDiscreteScheduler
from safetensors.torch import load_file, save, save_file

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.models.generators import Sampling, _denoising
from brainhive_cli.models.generators.sdxl import TINY, Config
from brainhive_cli.models.heads import Conditioning
from brainhive_cli.models.priors import fusion_prior
from tests.repositories import text_encoders

SAME_PICTURE = 1e-4
"""Tolerance, because a batch rounds differently from a row in float32."""
PX = 32


@pytest.fixture
def generator():
    return TINY.build()


@pytest.fixture
def prior(generator):
    torch.manual_seed(0)
    prior = fusion_prior.TINY.build({"vae": 8}, generator).requires_grad_(False)
    for parameter in prior.attn_adapter.parameters():
        parameter.mul_(10)  # a new adapter is too faint to see in a tiny picture
    prior.attach(generator)
    return prior


def make_tokens(prior, count):
    return prior.project(
        torch.randn(count, prior.dim, generator=torch.Generator().manual_seed(5))
    )


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory):
    """Tiny folder with the layout of the hub, text encoders included."""
    folder = tmp_path_factory.mktemp("sdxl")
    generator = TINY.build()
    generator.unet.save_pretrained(folder / "unet")
    generator.vae.save_pretrained(folder / "vae")
    turbo = EulerAncestralDiscreteScheduler.from_config(
        generator.pipeline.scheduler.config
    )
    turbo.save_pretrained(folder / "scheduler")
    text_encoders.write(folder)
    return folder


@pytest.fixture
def folder(whole_folder, tmp_path):
    """Copy of the folder, which a test can damage."""
    return Path(shutil.copytree(whole_folder, tmp_path / "sdxl"))


def generate_pictures(
    generator,
    seeds=(1,),
    tokens=None,
    null=None,
    start=None,
    texts=None,
    **sampling,
):
    """Generate small pictures in two steps."""
    conditioning = Conditioning(embeddings=tokens, start=start, texts=texts)
    null_conditioning = None if null is None else Conditioning(embeddings=null)
    return generator.generate(
        conditioning, seeds, PX, Sampling(**{"steps": 2, **sampling}), null_conditioning
    )


def test_guidance_moves_away_from_the_zeroed_token(generator, prior):
    tokens = make_tokens(prior, 2)
    null = prior.null(2, [1, 2]).embeddings

    unguided = generate_pictures(generator, [1, 2], tokens, null, guidance=1.0)
    guided = generate_pictures(generator, [1, 2], tokens, null, guidance=6.0)

    assert (guided - unguided).abs().max() > 10 * SAME_PICTURE


def test_wrong_requests_are_refused(generator, prior):
    with pytest.raises(BrainhiveError, match=r"2 seeds .*2 rows.* 1"):
        generate_pictures(generator, [1, 2], make_tokens(prior, 1))
    with pytest.raises(BrainhiveError, match=r"guidance .*null"):
        generate_pictures(generator, [1], make_tokens(prior, 1), guidance=5.0)
    with pytest.raises(BrainhiveError, match="images"):
        generator.generate(
            Conditioning(images=torch.zeros(1, 3, 8, 8)), [1], PX, Sampling()
        )
    with pytest.raises(BrainhiveError, match="resolution_px is 30"):
        generator.generate(Conditioning(), [1], 30, Sampling())


def test_texts_and_prompts_change_the_picture(folder):
    generator = Config(source=str(folder)).build()
    unprompted = generate_pictures(generator)
    prompted = generate_pictures(generator, prompt="a b")
    guided = generate_pictures(generator, guidance=6.0)

    mixed = generate_pictures(generator, [1, 1], texts=["", "a b"])
    embedded = generate_pictures(generator, [1, 1], texts=torch.randn(2, 77, 16))

    assert not torch.allclose(unprompted, prompted, atol=SAME_PICTURE)
    assert not torch.allclose(
        guided,
        generate_pictures(generator, guidance=6.0, negative_prompt="a b"),
        atol=SAME_PICTURE,
    )
    assert torch.allclose(mixed, torch.cat([unprompted, prompted]), atol=SAME_PICTURE)
    assert not torch.allclose(embedded[0], embedded[1], atol=SAME_PICTURE)
    with pytest.raises(MissingData, match="random"):
        generate_pictures(TINY.build(), prompt="a cat")


LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
SIZES = torch.tensor([[64, 48, 0, 3, 32, 32], [32, 32, 0, 0, 32, 32]])
"""Sizes [2, 6] in pixels, as the U-Net takes them."""


def make_rngs():
    return [torch.Generator().manual_seed(seed) for seed in (1, 2)]


def test_the_empty_prompt_is_encoded_or_read_from_a_file(folder, tmp_path):
    generator = Config(source=str(folder)).build(dtype=torch.bfloat16)
    generator.save_empty_prompt(tmp_path / "prompt.safetensors")
    text, pooled = expected = generator.embed_empty_prompt(3)
    assert (text.shape, pooled.shape) == ((3, 77, 16), (3, 8))
    assert text.abs().sum() > 0
    assert torch.equal(text[0], text[2])

    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(MissingData, match=r"text_encoder/.*empty_prompt.safetensors"):
        Config(source=str(folder)).build().embed_empty_prompt(1)
    generator = Config(source=str(folder)).build(dtype=torch.bfloat16)
    generator.load_empty_prompt(tmp_path / "prompt.safetensors")
    assert all(
        torch.equal(embedding, b)
        for embedding, b in zip(generator.embed_empty_prompt(3), expected, strict=True)
    )

    expected_embeds = {
        "prompt_embeds": torch.randn(1, 77, 16),
        "pooled_prompt_embeds": torch.randn(1, 8),
    }
    save_file(expected_embeds, folder / "empty_prompt.safetensors")
    text, pooled = Config(source=str(folder)).build().embed_empty_prompt(1)
    assert torch.equal(text, expected_embeds["prompt_embeds"])
    assert torch.equal(pooled, expected_embeds["pooled_prompt_embeds"])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_loss_is_the_error_of_what_the_unet_predicts(generator, prior, prediction):
    schedule = generator.pipeline.scheduler.config
    generator.noise_scheduler = DDPMScheduler.from_config(
        schedule, prediction_type=prediction
    )
    tokens = make_tokens(prior, 2)

    loss = generator.loss(LATENTS, Conditioning(embeddings=tokens), make_rngs(), SIZES)

    noise, timesteps = _denoising.draw_noise(
        make_rngs(), LATENTS.shape, 1000, torch.device("cpu")
    )
    signal = (
        generator.noise_scheduler.alphas_cumprod[timesteps].sqrt().view(-1, 1, 1, 1)
    )
    spread = (1 - signal**2).sqrt()
    text, pooled = generator.embed_empty_prompt(2)
    unet_inputs = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": SIZES}}
    unet_inputs["cross_attention_kwargs"] = {"ip_hidden_states": tokens}
    predicted = generator.unet(
        signal * LATENTS + spread * noise, timesteps, text, **unet_inputs
    ).sample
    target = noise if prediction == "epsilon" else signal * noise - spread * LATENTS
    assert torch.allclose(loss, (predicted - target).square().mean(), rtol=1e-5)


def test_absent_damaged_or_other_files_of_a_folder_are_named(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    scheduler = folder / "scheduler"
    unet = folder / "unet" / "config.json"
    config = folder / "scheduler" / "scheduler_config.json"
    values = load_file(weights)
    del values["conv_in.bias"], values["conv_out.bias"]
    unet_config = json.loads(unet.read_text())

    for file, content, message_part in (
        (
            folder / "tokenizer_2" / "merges.txt",
            b"#",
            "tokenizer_2",
        ),
        (
            weights,
            save(values, {"format": "pt"}),
            r"\d+ .*conv_in.bias",
        ),
        (
            unet,
            json.dumps({**unet_config, "addition_embed_type": None}).encode(),
            r"addition_embed_type .*None",
        ),
        (
            config,
            b'{"_class_name": "EulerDi',
            "scheduler_config.json",
        ),
    ):
        original_bytes = file.read_bytes()
        file.write_bytes(content)
        with pytest.raises(BrainhiveError, match=message_part):
            Config(source=str(folder)).build().embed_empty_prompt(1)
        file.write_bytes(original_bytes)
    shutil.rmtree(scheduler)
    with pytest.raises(MissingData, match="scheduler/"):
        Config(source=str(folder)).build()
    # a check finds a missing config without reading weights
    unet.unlink()
    errors = [item.error for item in Config(source=str(folder)).inputs()]
    assert [
        str(error) for error in errors if error and "unet/config.json" in str(error)
    ]


def test_a_variant_of_the_weights_is_read_by_its_name_alone(folder):
    original = Config(source=str(folder)).build()
    prompt = original.embed_empty_prompt(1)[0]
    for file in folder.rglob("*.safetensors"):
        # as diffusers and transformers save a variant
        file.rename(file.with_suffix(".fp16.safetensors"))
    fp16_config = Config(source=str(folder), variant="fp16")

    generator = fp16_config.build()

    assert torch.equal(generator.unet.conv_in.weight, original.unet.conv_in.weight)
    assert torch.equal(generator.embed_empty_prompt(1)[0], prompt)
    needs = list(fp16_config.inputs()) + list(fp16_config.text_inputs())
    assert len(needs) == 4
    assert not any(item.error for item in needs)
    assert all(item.error for item in Config(source=str(folder)).inputs())
