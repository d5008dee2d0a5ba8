"""Tests of the SDXL generator: its folders, pictures and training loss."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, EulerAncestralDiscreteScheduler
from pydantic import ValidationError
from safetensors.torch import load_file, save, save_file

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.models.generators import SCHEDULERS, Sampling, _denoising
from brainhive_cli.models.generators.sdxl import SDXL, TINY, Config
from brainhive_cli.models.heads import Conditioning
from brainhive_cli.models.priors import fusion_prior
from brainhive_cli.models.priors._fusion_network import FusionPrior
from tests.repositories import text_encoders

SAME_PICTURE = 1e-4
"""Tolerance, because a batch rounds differently from a row in float32."""
PX = 32


@pytest.fixture
def generator() -> SDXL:
    return TINY.build()


@pytest.fixture
def prior(generator: SDXL) -> FusionPrior:
    torch.manual_seed(0)
    prior = fusion_prior.TINY.build({"vae": 8}, generator).requires_grad_(False)
    for part in prior.attn_adapter.parameters():
        part.mul_(10)  # a new adapter is too faint to see in a tiny picture
    prior.attach(generator)
    return prior


def make_tokens(prior: FusionPrior, count: int) -> torch.Tensor:
    return prior.project(
        torch.randn(count, prior.dim, generator=torch.Generator().manual_seed(5))
    )


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
def folder(whole_folder: Path, tmp_path: Path) -> Path:
    """Copy of the folder, which a test can damage."""
    return Path(shutil.copytree(whole_folder, tmp_path / "sdxl"))


def generate_pictures(
    generator: SDXL,
    seeds: Sequence[int] = (1,),
    tokens: torch.Tensor | None = None,
    null: torch.Tensor | None = None,
    start: torch.Tensor | None = None,
    texts: torch.Tensor | list[str] | None = None,
    **sampling: Any,
) -> torch.Tensor:
    """Generate small pictures in two steps."""
    conditioning = Conditioning(embeddings=tokens, start=start, texts=texts)
    null_conditioning = None if null is None else Conditioning(embeddings=null)
    return generator.generate(
        conditioning, seeds, PX, Sampling(**{"steps": 2, **sampling}), null_conditioning
    )


def test_a_picture_depends_on_its_seed_and_not_on_the_batch(folder):
    # an ancestral sampler, which draws noise at each step
    generator = Config(source=str(folder)).build()

    pictures = generate_pictures(generator, [7, 8, 9], steps=3)
    single_picture = generate_pictures(generator, [8], steps=3)

    assert pictures.shape == (3, 3, PX, PX)
    assert pictures.min() >= 0 and pictures.max() <= 1
    assert torch.allclose(pictures[1], single_picture[0], atol=SAME_PICTURE)
    assert not torch.allclose(pictures[0], single_picture[0], atol=100 * SAME_PICTURE)


def test_guidance_moves_away_from_the_zeroed_token(generator, prior):
    tokens, null = make_tokens(prior, 2), prior.null(2, [1, 2]).embeddings

    plain, guided = (
        generate_pictures(generator, [1, 2], tokens, null, guidance=scale)
        for scale in (1.0, 6.0)
    )

    assert (guided - plain).abs().max() > 10 * SAME_PICTURE
    with pytest.raises(BrainhiveError, match=r"guidance .*null"):
        generate_pictures(generator, [1], make_tokens(prior, 1), guidance=5.0)


def test_wrong_requests_are_refused(generator, prior):
    with pytest.raises(BrainhiveError, match=r"2 seeds .*2 rows.* 1"):
        generate_pictures(generator, [1, 2], make_tokens(prior, 1))
    with pytest.raises(BrainhiveError, match="images"):
        generator.generate(
            Conditioning(images=torch.zeros(1, 3, 8, 8)), [1], PX, Sampling()
        )
    with pytest.raises(BrainhiveError, match="resolution_px is 30"):
        generator.generate(Conditioning(), [1], 30, Sampling())


def test_texts_and_prompts_change_the_picture(folder):
    generator = Config(source=str(folder)).build()
    plain, prompted, guided = (
        generate_pictures(generator),
        generate_pictures(generator, prompt="a b"),
        generate_pictures(generator, guidance=6.0),
    )

    mixed = generate_pictures(generator, [1, 1], texts=["", "a b"])
    embedded = generate_pictures(generator, [1, 1], texts=torch.randn(2, 77, 16))

    assert not torch.allclose(plain, prompted, atol=SAME_PICTURE)
    assert not torch.allclose(
        guided,
        generate_pictures(generator, guidance=6.0, negative_prompt="a b"),
        atol=SAME_PICTURE,
    )
    assert torch.allclose(mixed, torch.cat([plain, prompted]), atol=SAME_PICTURE)
    assert not torch.allclose(embedded[0], embedded[1], atol=SAME_PICTURE)
    with pytest.raises(MissingData, match="random"):
        generate_pictures(TINY.build(), prompt="a cat")


@pytest.mark.nightly
def test_each_scheduler_is_used_and_an_unknown_is_refused(generator):
    default_pictures = generate_pictures(generator, steps=3)
    for name, (class_name, _) in SCHEDULERS.items():
        both = generate_pictures(generator, [1, 2], steps=3, scheduler=name)
        single_picture = generate_pictures(generator, [2], steps=3, scheduler=name)
        assert type(generator.pipeline.scheduler).__name__ == class_name
        assert torch.allclose(both[1], single_picture[0], atol=SAME_PICTURE)

    assert not torch.allclose(
        default_pictures,
        generate_pictures(generator, steps=3, scheduler="lcm"),
        atol=SAME_PICTURE,
    )
    assert torch.equal(
        default_pictures, generate_pictures(generator, steps=3)
    )  # the generator's own again
    with pytest.raises(
        ValidationError, match=r"scheduler\n.*'euler', 'euler-ancestral'"
    ):
        Sampling(scheduler="turbo")


def test_encoding_then_decoding_is_what_the_vae_does(generator):
    images = torch.rand(2, 3, PX, PX)

    latents = generator.encode(images)
    sampled = generator.encode(images, torch.Generator().manual_seed(0))

    assert latents.shape[1:] == generator.latent_shape(PX) == (4, PX // 4, PX // 4)
    assert torch.equal(latents, generator.encode(images))
    assert not torch.equal(latents, sampled)
    # mode, decoded, without the scaling factor
    direct = generator.vae(images * 2 - 1).sample / 2 + 0.5
    assert torch.allclose(
        generator.decode(latents), direct.clamp(0, 1), atol=SAME_PICTURE
    )


LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
SIZES = torch.tensor([[64, 48, 0, 3, 32, 32], [32, 32, 0, 0, 32, 32]])
"""Sizes [2, 6] in pixels, as the U-Net takes them."""


def make_rngs() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in (1, 2)]


def test_the_empty_prompt_is_encoded_or_read_from_a_file(folder, tmp_path):
    generator = Config(source=str(folder)).build(dtype=torch.bfloat16)
    generator.save_empty_prompt(tmp_path / "prompt.safetensors")
    text, pooled = expected = generator.embed_empty_prompt(3)
    assert (text.shape, pooled.shape) == ((3, 77, 16), (3, 8))
    assert text.abs().sum() > 0 and torch.equal(text[0], text[2])

    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(MissingData, match=r"text_encoder/.*empty_prompt.safetensors"):
        Config(source=str(folder)).build().embed_empty_prompt(1)
    generator = Config(source=str(folder)).build(dtype=torch.bfloat16)
    generator.load_empty_prompt(tmp_path / "prompt.safetensors")
    assert all(
        torch.equal(a, b)
        for a, b in zip(generator.embed_empty_prompt(3), expected, strict=True)
    )

    expected_embeds = {
        "prompt_embeds": torch.randn(1, 77, 16),
        "pooled_prompt_embeds": torch.randn(1, 8),
    }
    save_file(expected_embeds, folder / "empty_prompt.safetensors")
    text, pooled = Config(source=str(folder)).build().embed_empty_prompt(1)
    assert torch.equal(text, expected_embeds["prompt_embeds"]) and torch.equal(
        pooled, expected_embeds["pooled_prompt_embeds"]
    )


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
    weights, scheduler = (
        folder / "unet" / "diffusion_pytorch_model.safetensors",
        folder / "scheduler",
    )
    unet, config = (
        folder / "unet" / "config.json",
        folder / "scheduler" / "scheduler_config.json",
    )
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


def test_a_variant_of_the_weights_is_read_by_its_name_alone(folder):
    plain = Config(source=str(folder)).build()
    prompt = plain.embed_empty_prompt(1)[0]
    for file in folder.rglob("*.safetensors"):
        # as diffusers and transformers save a variant
        file.rename(file.with_suffix(".fp16.safetensors"))
    fp16_config = Config(source=str(folder), variant="fp16")

    generator = fp16_config.build()

    assert torch.equal(generator.unet.conv_in.weight, plain.unet.conv_in.weight)
    assert torch.equal(generator.embed_empty_prompt(1)[0], prompt)
    needs = [*fp16_config.inputs(), *fp16_config.text_inputs()]
    assert len(needs) == 4 and not any(need.error for need in needs)
    assert all(need.error for need in Config(source=str(folder)).inputs())
