"""The SDXL generator: folders in, pictures and training losses out."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import text_encoders
import torch
from diffusers import DDPMScheduler, EulerAncestralDiscreteScheduler
from diffusers.utils import logging
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.models.generators import (
    SCHEDULERS,
    Sampling,
    _denoising,
    _latent_diffusion,
)
from brainhive_cli.models.generators.sdxl import SDXL, TINY, Config
from brainhive_cli.models.heads import Conditioning
from brainhive_cli.models.priors import fusion_prior

SAME_PICTURE = 1e-4
"""Batched and single matrix products round differently in float32."""
PX = 32


@pytest.fixture
def generator() -> SDXL:
    return TINY.build()


@pytest.fixture
def prior(generator: SDXL) -> fusion_prior.FusionPrior:
    torch.manual_seed(0)
    prior = fusion_prior.TINY.build({"vae": 8}, generator).requires_grad_(False)
    for part in prior.attn_adapter.parameters():
        part.mul_(10)  # a new adapter is too faint to see in a tiny picture
    prior.attach(generator)
    return prior


def tokens_of(prior: fusion_prior.FusionPrior, count: int) -> torch.Tensor:
    return prior.tokens(torch.randn(count, prior.dim, generator=torch.Generator().manual_seed(5)))


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the layout that the hub has, at tiny width: U-Net, VAE, scheduler, both texts."""
    folder = tmp_path_factory.mktemp("sdxl")
    generator = TINY.build()
    generator.unet.save_pretrained(folder / "unet")
    generator.vae.save_pretrained(folder / "vae")
    turbo = EulerAncestralDiscreteScheduler.from_config(generator.pipeline.scheduler.config)
    turbo.save_pretrained(folder / "scheduler")
    text_encoders.write(folder)
    return folder


@pytest.fixture
def folder(whole_folder: Path, tmp_path: Path) -> Path:
    """The same, to spoil."""
    return Path(shutil.copytree(whole_folder, tmp_path / "sdxl"))


def make(
    generator: SDXL,
    seeds: Sequence[int] = (1,),
    tokens: torch.Tensor | None = None,
    null: torch.Tensor | None = None,
    start: torch.Tensor | None = None,
    texts: torch.Tensor | list[str] | None = None,
    **sampling: Any,
) -> torch.Tensor:
    """Generate small pictures in two steps."""
    given = Conditioning(embeddings=tokens, start=start, texts=texts)
    other = None if null is None else Conditioning(embeddings=null)
    return generator.generate(given, seeds, PX, Sampling(**{"steps": 2, **sampling}), other)


def test_a_picture_depends_on_its_seed_and_not_on_the_batch(folder):
    generator = Config(source=str(folder)).build()  # an ancestral sampler, which draws noise at each step

    together = make(generator, [7, 8, 9], steps=3)
    alone = make(generator, [8], steps=3)

    assert together.shape == (3, 3, PX, PX)
    assert together.min() >= 0 and together.max() <= 1
    assert torch.allclose(together[1], alone[0], atol=SAME_PICTURE)
    assert not torch.allclose(together[0], alone[0], atol=100 * SAME_PICTURE)


def test_tokens_change_the_picture_each_its_own(generator, prior):
    tokens = tokens_of(prior, 2)

    both = make(generator, [1, 1], tokens)
    second = make(generator, [1], tokens[1:])

    assert torch.allclose(both[1], second[0], atol=SAME_PICTURE)
    assert (both[0] - both[1]).abs().max() > 10 * SAME_PICTURE


def test_guidance_moves_away_from_the_zeroed_token(generator, prior):
    tokens, null = tokens_of(prior, 2), prior.null(2, [1, 2]).embeddings

    plain, guided = (make(generator, [1, 2], tokens, null, guidance=scale) for scale in (1.0, 6.0))
    same, alike = (make(generator, [1, 2], null, null, guidance=scale) for scale in (1.0, 6.0))

    assert (guided - plain).abs().max() > 10 * SAME_PICTURE
    assert torch.allclose(same, alike, atol=SAME_PICTURE)


def test_guidance_without_the_null_conditioning_is_an_error(generator, prior):
    with pytest.raises(BrainhiveError, match="guidance above 1 needs the prior's null conditioning"):
        make(generator, [1], tokens_of(prior, 1), guidance=5.0)


def test_without_a_prior_embeddings_condition_the_unets_own_cross_attention(generator):
    tokens = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(2))
    plain, both = make(generator, [1, 1]), make(generator, [1, 1], tokens)

    assert torch.allclose(both[1], make(generator, [1], tokens[1:])[0], atol=SAME_PICTURE)
    assert min((both[0] - both[1]).abs().max(), (both - plain).abs().max()) > SAME_PICTURE
    guided = make(generator, [1, 1], tokens, guidance=6.0)  # away from as many zeros
    assert (guided - both).abs().max() > SAME_PICTURE
    with pytest.raises(BrainhiveError, match=r"no prior is attached to the U-Net, .* width 16, not 8"):
        make(generator, [1], torch.zeros(1, 4, 8))


def test_wrong_requests_are_refused(generator, prior):
    with pytest.raises(BrainhiveError, match="2 seeds need a conditioning of 2 rows"):
        make(generator, [1, 2], tokens_of(prior, 1))
    with pytest.raises(BrainhiveError, match=r"takes embeddings \[B, S, 16\], not \[1, 16\]"):
        make(generator, [1], tokens_of(prior, 1)[:, 0])
    with pytest.raises(BrainhiveError, match="takes no condition images"):
        generator.generate(Conditioning(images=torch.zeros(1, 3, 8, 8)), [1], PX, Sampling())
    with pytest.raises(BrainhiveError, match="resolution_px is 30"):
        generator.generate(Conditioning(), [1], 30, Sampling())
    with pytest.raises(BrainhiveError, match=r"latents to start from are \[4, 4, 4\], .* \[4, 8, 8\]"):
        make(generator, [1], start=torch.zeros(1, 4, 4, 4))


def test_the_less_the_strength_the_more_of_the_start_is_kept(generator, prior):
    pictures = torch.zeros(2, 3, 8, 8)
    pictures[0, 0] = 1.0  # red, and black
    latents = generator.encode(torch.nn.functional.interpolate(pictures, (PX, PX)))
    known = generator.decode(latents)

    def started(
        strength: float, seeds: Sequence[int] = (1, 2), start: torch.Tensor = pictures
    ) -> torch.Tensor:
        tokens = tokens_of(prior, 2)[: len(seeds)]
        return make(generator, seeds, tokens, start=start, strength=strength, steps=8)

    distances = [(started(strength) - known).abs().mean() for strength in (0.13, 0.5, 1.0)]
    assert distances[0] < distances[1] < distances[2]
    assert torch.allclose(started(0.5, (1,), pictures[:1])[0], started(0.5)[0], atol=SAME_PICTURE)
    assert torch.allclose(started(0.5, start=latents), started(0.5), atol=SAME_PICTURE)
    with pytest.raises(BrainhiveError, match=r"strength 0\.1 of 8 steps leaves none"):
        started(0.1)


def test_a_prompt_and_a_negative_prompt_change_the_picture(folder):
    generator = Config(source=str(folder)).build()

    plain, prompted = make(generator), make(generator, prompt="a b")
    guided = make(generator, guidance=6.0)

    assert not torch.allclose(plain, prompted, atol=SAME_PICTURE)
    assert not torch.allclose(guided, make(generator, guidance=6.0, negative_prompt="a b"), atol=SAME_PICTURE)


def test_a_row_can_bring_its_own_text_as_words_or_embedded(folder):
    generator = Config(source=str(folder)).build()

    mixed = make(generator, [1, 1], texts=["", "a b"])
    embedded = make(generator, [1, 1], texts=torch.randn(2, 77, 16))

    assert torch.allclose(mixed[0], make(generator)[0], atol=SAME_PICTURE)
    assert torch.allclose(mixed[1], make(generator, prompt="a b")[0], atol=SAME_PICTURE)
    assert not torch.allclose(embedded[0], embedded[1], atol=SAME_PICTURE)


def test_text_encoders_of_captions_are_loaded_once_for_all_batches(folder):
    generator, again = (Config(source=str(folder)).build() for _ in range(2))
    make(generator, [1], texts=["a"])
    wanted = make(again, [1], texts=["b"])

    shutil.rmtree(folder / "text_encoder_2")

    assert torch.equal(make(generator, [1], texts=["b"]), wanted)


def test_a_prompt_without_text_encoders_is_an_error_that_names_it(generator):
    with pytest.raises(MissingData, match="the prompt 'a cat' needs text encoders"):
        make(generator, prompt="a cat")


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_draws_and_a_picture_stays_its_own(name):
    generator = TINY.build()

    both = make(generator, [1, 2], steps=3, scheduler=name)
    second = make(generator, [2], steps=3, scheduler=name)

    assert type(generator.pipeline.scheduler).__name__ == SCHEDULERS[name][0]
    assert torch.allclose(both[1], second[0], atol=SAME_PICTURE)


def test_schedulers_differ_and_an_unknown_one_is_refused(generator):
    euler, other = make(generator, steps=3), make(generator, steps=3, scheduler="lcm")

    assert not torch.allclose(euler, other, atol=SAME_PICTURE)
    assert torch.equal(euler, make(generator, steps=3))  # the generator's own again
    with pytest.raises(ValidationError, match=r"scheduler\n.*'euler', 'euler-ancestral'"):
        Sampling(scheduler="turbo")


def test_the_callback_gets_each_step(generator):
    steps: list[int] = []
    generator.generate(Conditioning(), [1], PX, Sampling(steps=3), on_step=steps.append)
    assert steps == [1, 2, 3]


def test_sparing_memory_changes_no_picture(prior, generator):
    plain = make(generator, [1, 2], tokens_of(prior, 2))
    generator.spare_memory(offload_to=torch.device("cpu"), tile=True)

    assert generator.vae.use_slicing and generator.vae.use_tiling
    assert hasattr(generator.unet, "_hf_hook") and hasattr(generator.vae, "_hf_hook")
    assert torch.allclose(plain, make(generator, [1, 2], tokens_of(prior, 2)), atol=SAME_PICTURE)


def test_the_vae_takes_few_at_once_and_gives_each_what_it_gets_alone(generator):
    random = torch.Generator().manual_seed(0)
    images = torch.rand(_latent_diffusion.AT_ONCE + 1, 3, PX, PX, generator=random)
    taken: list[int] = []
    generator.vae.decoder.register_forward_pre_hook(lambda _, given: taken.append(len(given[0])))
    generator.vae.encoder.register_forward_pre_hook(lambda _, given: taken.append(len(given[0])))

    latents = generator.encode(images)
    decoded = generator.decode(latents)

    assert taken == [_latent_diffusion.AT_ONCE, 1] * 2
    alone = [generator.encode(image[None]) for image in images]
    assert torch.allclose(latents, torch.cat(alone), atol=SAME_PICTURE)
    assert torch.allclose(decoded, torch.cat([generator.decode(one) for one in alone]), atol=SAME_PICTURE)


def test_encoding_then_decoding_is_what_the_vae_does(generator):
    images = torch.rand(2, 3, PX, PX)

    latents = generator.encode(images)
    sampled = generator.encode(images, torch.Generator().manual_seed(0))

    assert latents.shape[1:] == generator.latent_shape(PX) == (4, PX // 4, PX // 4)
    assert torch.equal(latents, generator.encode(images))
    assert not torch.equal(latents, sampled)
    direct = generator.vae(images * 2 - 1).sample / 2 + 0.5  # mode, decoded, without the scaling factor
    assert torch.allclose(generator.decode(latents), direct.clamp(0, 1), atol=SAME_PICTURE)


LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
SIZES = torch.tensor([[64, 48, 0, 3, 32, 32], [32, 32, 0, 0, 32, 32]])
"""Shares of the noise schedule: little noise, and much."""


def randoms() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in (1, 2)]


def test_noise_and_timestep_of_a_row_depend_on_its_own_random_numbers_alone():
    shape, cpu = (2, 4, 8, 8), torch.device("cpu")

    noise, timesteps = _denoising.draw_noise(randoms(), shape, 1000, cpu)
    alone, timestep = _denoising.draw_noise(randoms()[1:], (1, *shape[1:]), 1000, cpu)

    assert torch.equal(noise[1:], alone) and torch.equal(timesteps[1:], timestep)
    assert not torch.equal(noise[0], noise[1]) and timesteps[0] != timesteps[1]
    many = _denoising.draw_noise(torch.Generator().manual_seed(0), (4000, 1, 1, 1), 1000, cpu)[1]
    assert many.min() < 5 and many.max() > 994 and abs(float(many.float().mean()) - 499.5) < 20


def test_an_empty_prompt_that_was_kept_needs_no_text_encoders(folder, tmp_path):
    Config(source=str(folder)).build().save_empty_prompt(tmp_path / "prompt.safetensors")
    expected = Config(source=str(folder)).build().empty_prompt(2)
    shutil.rmtree(folder / "text_encoder")

    generator = Config(source=str(folder)).build()
    generator.load_empty_prompt(tmp_path / "prompt.safetensors")

    assert all(torch.equal(a, b) for a, b in zip(generator.empty_prompt(2), expected, strict=True))


def test_an_empty_prompt_that_was_kept_is_given_in_the_unets_dtype(folder, tmp_path):
    Config(source=str(folder)).build().save_empty_prompt(tmp_path / "prompt.safetensors")

    generator = Config(source=str(folder)).build(dtype=torch.bfloat16)
    generator.load_empty_prompt(tmp_path / "prompt.safetensors")

    assert {each.dtype for each in generator.empty_prompt(2)} == {torch.bfloat16}


def test_half_precision_that_waits_on_the_cpu_is_no_cause_for_a_warning(folder, caplog):
    logging.enable_propagation()

    Config(source=str(folder)).build("cpu", torch.float16)

    logging.disable_propagation()
    assert not caplog.records


def test_random_weights_wake_no_gpu_that_they_are_not_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: pytest.fail(f"{device} is woken"))

    TINY.build("cpu")


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_loss_is_the_error_of_what_the_unet_predicts(generator, prior, prediction):
    generator.noise_schedule = DDPMScheduler.from_config(
        generator.pipeline.scheduler.config, prediction_type=prediction
    )
    tokens = tokens_of(prior, 2)

    loss = generator.loss(LATENTS, Conditioning(embeddings=tokens), randoms(), SIZES)

    noise, timesteps = _denoising.draw_noise(randoms(), LATENTS.shape, 1000, torch.device("cpu"))
    signal = generator.noise_schedule.alphas_cumprod[timesteps].sqrt().view(-1, 1, 1, 1)
    spread = (1 - signal**2).sqrt()
    text, pooled = generator.empty_prompt(2)
    predicted = generator.unet(
        signal * LATENTS + spread * noise,
        timesteps,
        text,
        added_cond_kwargs={"text_embeds": pooled, "time_ids": SIZES},
        cross_attention_kwargs={"ip_hidden_states": tokens},
    ).sample
    target = noise if prediction == "epsilon" else signal * noise - spread * LATENTS
    assert torch.allclose(loss, (predicted - target).square().mean(), rtol=1e-5)


def test_the_loss_depends_on_the_sizes_and_reaches_the_tokens_only(generator, prior):
    tokens = tokens_of(prior, 1).requires_grad_()

    def loss(*sizes: int) -> torch.Tensor:
        return generator.loss(
            LATENTS[:1], Conditioning(embeddings=tokens), randoms()[:1], torch.tensor([sizes])
        )

    small, large = loss(32, 32, 0, 0, 32, 32), loss(640, 480, 9, 9, 32, 32)
    small.backward()

    assert small != large
    assert tokens.grad is not None and tokens.grad.abs().max() > 0
    assert all(p.grad is None for p in generator.unet.parameters())


def test_the_empty_prompt_comes_from_the_text_encoders_of_the_folder(folder):
    generator = Config(source=str(folder)).build()

    text, pooled = generator.empty_prompt(3)

    assert (text.shape, pooled.shape) == ((3, 77, 16), (3, 8))
    assert text.abs().sum() > 0 and torch.equal(text[0], text[2])


def test_a_folder_without_text_encoders_holds_the_empty_prompt_in_a_file(folder):
    wanted = {"prompt_embeds": torch.randn(1, 77, 16), "pooled_prompt_embeds": torch.randn(1, 8)}
    save_file(wanted, folder / "empty_prompt.safetensors")
    shutil.rmtree(folder / "text_encoder")

    text, pooled = Config(source=str(folder)).build().empty_prompt(1)

    assert torch.equal(text, wanted["prompt_embeds"]) and torch.equal(pooled, wanted["pooled_prompt_embeds"])


@pytest.mark.parametrize("component", ["unet", "vae", "scheduler"])
def test_a_missing_component_is_named(folder, component):
    shutil.rmtree(folder / component)

    with pytest.raises(MissingData, match=f"no {component}/"):
        Config(source=str(folder)).build()


@pytest.mark.parametrize("component", ["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"])
def test_a_missing_text_component_is_named_when_it_is_needed(folder, component):
    shutil.rmtree(folder / component)

    with pytest.raises(MissingData, match=f"no {component}/.* nor empty_prompt.safetensors"):
        Config(source=str(folder)).build().empty_prompt(1)


@pytest.mark.parametrize("file", ["vocab.json", "merges.txt"])
@pytest.mark.parametrize("spoil", [lambda f: f.unlink(), lambda f: f.write_bytes(f.read_bytes()[:-2])])
def test_absent_or_half_downloaded_words_of_a_tokenizer_are_named(folder, file, spoil):
    spoil(folder / "tokenizer_2" / file)

    with pytest.raises(MissingData, match=r"tokenizer_2 of the generator .* is damaged"):
        Config(source=str(folder)).build().empty_prompt(1)


@pytest.mark.parametrize("spoil", [lambda f: f.unlink(), lambda f: f.write_bytes(f.read_bytes()[:500])])
def test_absent_or_half_downloaded_weights_are_named(folder, spoil):
    spoil(folder / "unet" / "diffusion_pytorch_model.safetensors")

    with pytest.raises(MissingData, match=r"unet of the generator .* is damaged"):
        Config(source=str(folder)).build()


@pytest.mark.parametrize(
    "text",
    [
        '{"_class_name": "EulerDi',
        '{"_class_name": "TomorrowsScheduler"}',
        '{"_class_name": "DiffusionPipeline"}',
        "{}",
    ],
)
def test_a_damaged_config_or_an_unknown_scheduler_is_named(folder, text):
    (folder / "scheduler" / "scheduler_config.json").write_text(text)

    with pytest.raises(
        MissingData,
        match=r"scheduler of the .* is of the class|scheduler_config.json is not valid JSON",
    ):
        Config(source=str(folder)).build()


def test_weights_that_a_file_lacks_are_named_and_not_drawn_at_random(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["conv_in.bias"], weights["conv_out.bias"]
    save_file(weights, file, metadata={"format": "pt"})

    with pytest.raises(
        MissingData, match=r"unet of the generator .*\d of \d+ weights match .*; first missing conv_in.bias"
    ):
        Config(source=str(folder)).build()


def test_a_unet_of_another_type_is_refused(folder):
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "addition_embed_type": None}))

    with pytest.raises(BrainhiveError, match="addition_embed_type is None, not text_time"):
        Config(source=str(folder)).build()


def test_a_scheduler_that_predicts_the_sample_is_refused():
    scheduler = {**TINY.architecture["scheduler"], "prediction_type": "sample"}

    with pytest.raises(BrainhiveError, match="prediction_type is sample"):
        Config(source="random", architecture={**TINY.architecture, "scheduler": scheduler}).build()


def test_random_weights_repeat_with_their_seed_and_leave_the_global_one_alone():
    torch.manual_seed(3)
    first = TINY.build()
    after = torch.rand(1)
    other = TINY.model_copy(update={"seed": 1}).build()

    assert torch.equal(first.unet.conv_in.weight, TINY.build().unet.conv_in.weight)
    assert not torch.equal(first.unet.conv_in.weight, other.unet.conv_in.weight)
    assert torch.equal(after, torch.rand(1, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize(
    ("component", "changes"),
    [
        ("unet", {"block_out_channels": "wide"}),
        ("unet", {"sample_size": -1, "down_block_types": ["DownBlock2D"]}),
        ("scheduler", {"beta_schedule": "steep"}),
        ("scheduler", {"beta_end": "one"}),
    ],
)
def test_a_component_whose_config_has_values_of_another_kind_is_named(folder, component, changes):
    file = folder / component / ("scheduler_config.json" if component == "scheduler" else "config.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    with pytest.raises(MissingData, match=f"{component}|generator"):
        Config(source=str(folder)).build()
