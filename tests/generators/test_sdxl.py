"""The SDXL generator: folders in, pictures and training losses out."""

import json
import shutil
from pathlib import Path

import pytest
import text_encoders
import torch
from diffusers import DDPMScheduler, EulerAncestralDiscreteScheduler
from diffusers.utils import logging
from safetensors.torch import load_file, save_file

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.generators import sdxl
from brainhive_cli.generators.sdxl import SDXL, TINY, Config
from brainhive_cli.priors import fusion_prior

SAME_PICTURE = 1e-4
"""Batched and single matrix products round differently in float32."""
PX = 32


@pytest.fixture
def generator() -> SDXL:
    return TINY.build()


@pytest.fixture
def prior(generator: SDXL) -> fusion_prior.FusionPrior:
    torch.manual_seed(0)
    prior = fusion_prior.TINY.build({"vae": 8}, generator.unet).requires_grad_(False)
    for part in prior.attn_adapter.parameters():
        part.mul_(10)  # a new adapter is too faint to see in a tiny picture
    prior.attach(generator.unet)
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
    turbo = EulerAncestralDiscreteScheduler.from_config(generator.scheduler.config)
    turbo.save_pretrained(folder / "scheduler")
    text_encoders.write(folder)
    return folder


@pytest.fixture
def folder(whole_folder: Path, tmp_path: Path) -> Path:
    """The same, to spoil."""
    return Path(shutil.copytree(whole_folder, tmp_path / "sdxl"))


def test_a_picture_depends_on_its_seed_and_not_on_the_batch(folder):
    generator = Config(source=str(folder)).build()  # an ancestral sampler, which draws noise at each step

    together = generator.generate(None, [7, 8, 9], steps=3, resolution_px=PX)
    alone = generator.generate(None, [8], steps=3, resolution_px=PX)

    assert together.shape == (3, 3, PX, PX)
    assert together.min() >= 0 and together.max() <= 1
    assert torch.allclose(together[1], alone[0], atol=SAME_PICTURE)
    assert not torch.allclose(together[0], alone[0], atol=100 * SAME_PICTURE)


def test_tokens_change_the_picture_each_its_own(generator, prior):
    tokens = tokens_of(prior, 2)

    both = generator.generate(tokens, [1, 1], steps=2, resolution_px=PX)
    second = generator.generate(tokens[1:], [1], steps=2, resolution_px=PX)

    assert torch.allclose(both[1], second[0], atol=SAME_PICTURE)
    assert (both[0] - both[1]).abs().max() > 10 * SAME_PICTURE


def test_guidance_moves_away_from_the_zeroed_token(generator, prior):
    tokens, empty = tokens_of(prior, 2), prior.tokens(torch.zeros(1, prior.dim))

    def make(tokens: torch.Tensor, guidance: float) -> torch.Tensor:
        return generator.generate(
            tokens, [1, 2], steps=2, guidance=guidance, resolution_px=PX, empty_tokens=empty
        )

    plain, guided = make(tokens, 1.0), make(tokens, 6.0)
    nowhere = empty.expand_as(tokens)
    assert (guided - plain).abs().max() > 10 * SAME_PICTURE
    assert torch.allclose(make(nowhere, 6.0), make(nowhere, 1.0), atol=SAME_PICTURE)


def test_guidance_without_the_empty_tokens_is_an_error(generator, prior):
    with pytest.raises(BrainhiveError, match="tokens of the zeroed token"):
        generator.generate(tokens_of(prior, 1), [1], guidance=5.0, resolution_px=PX)


def test_tokens_without_a_prior_are_an_error_rather_than_dropped(generator):
    with pytest.raises(BrainhiveError, match="no prior is attached"):
        generator.generate(torch.zeros(1, 4, 16), [1], resolution_px=PX)


def test_wrong_requests_are_refused(generator, prior):
    with pytest.raises(BrainhiveError, match="2 seeds need tokens"):
        generator.generate(tokens_of(prior, 1), [1, 2], resolution_px=PX)
    with pytest.raises(BrainhiveError, match="resolution_px is 30"):
        generator.generate(None, [1], resolution_px=30)


def test_starting_from_a_picture_keeps_the_more_of_it_the_less_the_strength(generator, prior):
    initial = torch.zeros(2, 3, 8, 8)
    initial[0, 0] = 1.0  # red, and black
    known = generator.decode(generator.encode(torch.nn.functional.interpolate(initial, (PX, PX)) * 2 - 1))

    def make(
        strength: float, seeds: tuple[int, ...] = (1, 2), pictures: torch.Tensor = initial
    ) -> torch.Tensor:
        tokens = tokens_of(prior, 2)[: len(seeds)]
        return generator.generate(
            tokens, list(seeds), steps=8, resolution_px=PX, initial=pictures, strength=strength
        )

    distances = [(make(strength) - known).abs().mean() for strength in (0.13, 0.5, 1.0)]
    assert distances[0] < distances[1] < distances[2]
    assert torch.allclose(make(0.5, (1,), initial[:1])[0], make(0.5)[0], atol=SAME_PICTURE)
    with pytest.raises(BrainhiveError, match=r"strength 0\.1 of 8 steps leaves none"):
        make(0.1)


def test_a_prompt_and_a_negative_prompt_change_the_picture(folder):
    generator = Config(source=str(folder)).build()

    def make(guidance: float, **words: str) -> torch.Tensor:
        return generator.generate(None, [1], steps=2, guidance=guidance, resolution_px=PX, **words)

    plain, prompted = make(0.0), make(0.0, prompt="a b")
    assert not torch.allclose(plain, prompted, atol=SAME_PICTURE)
    assert torch.equal(plain, make(0.0, negative_prompt="a b"))  # which only guidance heeds
    assert not torch.allclose(make(6.0), make(6.0, negative_prompt="a b"), atol=SAME_PICTURE)


def test_a_prompt_without_text_encoders_is_an_error_that_names_it(generator):
    with pytest.raises(MissingData, match="the prompt 'a cat' needs text encoders"):
        generator.generate(None, [1], resolution_px=PX, prompt="a cat")


@pytest.mark.parametrize("name", sdxl._schedulers.SCHEDULERS)
def test_every_scheduler_draws_and_a_picture_stays_its_own(name):
    generator = TINY.build()
    generator.sample_with(name)

    both = generator.generate(None, [1, 2], steps=3, resolution_px=PX)
    second = generator.generate(None, [2], steps=3, resolution_px=PX)

    assert type(generator.scheduler).__name__ == sdxl._schedulers.SCHEDULERS[name][0]
    assert torch.allclose(both[1], second[0], atol=SAME_PICTURE)


def test_schedulers_differ_and_an_unknown_one_is_refused(generator):
    euler = generator.generate(None, [1], steps=3, resolution_px=PX)
    generator.sample_with("lcm")

    assert not torch.allclose(
        euler, generator.generate(None, [1], steps=3, resolution_px=PX), atol=SAME_PICTURE
    )
    with pytest.raises(BrainhiveError, match="no scheduler called 'turbo'"):
        generator.sample_with("turbo")


def test_each_step_is_told(generator):
    steps: list[int] = []
    generator.generate(None, [1], steps=3, resolution_px=PX, on_step=steps.append)
    assert steps == [1, 2, 3]


def test_sparing_memory_changes_no_picture(prior, generator):
    def make() -> torch.Tensor:
        return generator.generate(tokens_of(prior, 2), [1, 2], steps=2, resolution_px=PX)

    plain = make()
    generator.spare_memory(offload_to=torch.device("cpu"), tile=True)

    assert generator.vae.use_slicing and generator.vae.use_tiling
    assert hasattr(generator.unet, "_hf_hook") and hasattr(generator.vae, "_hf_hook")
    assert torch.allclose(plain, make(), atol=SAME_PICTURE)


def test_the_vae_takes_few_at_once_and_gives_each_what_it_gets_alone(generator):
    random = torch.Generator().manual_seed(0)
    images = torch.rand(sdxl.VAE_BATCH + 1, 3, PX, PX, generator=random) * 2 - 1
    taken: list[int] = []
    generator.vae.decoder.register_forward_pre_hook(lambda _, given: taken.append(len(given[0])))
    generator.vae.encoder.register_forward_pre_hook(lambda _, given: taken.append(len(given[0])))

    latents = generator.encode(images)
    decoded = generator.decode(latents)

    assert taken == [sdxl.VAE_BATCH, 1] * 2
    alone = [generator.encode(image[None]) for image in images]
    assert torch.allclose(latents, torch.cat(alone), atol=SAME_PICTURE)
    assert torch.allclose(decoded, torch.cat([generator.decode(one) for one in alone]), atol=SAME_PICTURE)


def test_encoding_then_decoding_is_what_the_vae_does(generator):
    images = torch.rand(2, 3, PX, PX) * 2 - 1

    latents = generator.encode(images)
    sampled = generator.encode(images, torch.Generator().manual_seed(0))

    assert latents.shape == (2, 4, PX // 4, PX // 4)
    assert torch.equal(latents, generator.encode(images))
    assert not torch.equal(latents, sampled)
    direct = generator.vae(images).sample / 2 + 0.5  # mode, decoded, without the scaling factor
    assert torch.allclose(generator.decode(latents), direct.clamp(0, 1), atol=SAME_PICTURE)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weighs_each_pictures_error_by_its_level(generator, prior, prediction):
    config, gamma = generator.scheduler.config, 5.0
    generator.noise_schedule = DDPMScheduler.from_config(config, prediction_type=prediction)
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    timesteps, tokens, sizes = torch.tensor([10, 900]), tokens_of(prior, 2), torch.ones(2, 6)

    def loss(pick: slice, **knobs: float) -> torch.Tensor:
        return generator.loss(latents[pick], tokens[pick], noise[pick], timesteps[pick], sizes[pick], **knobs)

    weighed = loss(slice(0, 2), min_snr_gamma=gamma)

    kept = generator.noise_schedule.alphas_cumprod[timesteps]
    snr = kept / (1 - kept)
    assert snr[0] > gamma > snr[1]
    weights = snr.clamp(max=gamma) / (snr if prediction == "epsilon" else snr + 1)
    plain = torch.stack([loss(slice(0, 1)), loss(slice(1, 2))])
    assert torch.allclose(weighed, (weights * plain).mean(), rtol=1e-5)
    assert not torch.allclose(weighed, plain.mean(), rtol=1e-2)


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
        generator.scheduler.config, prediction_type=prediction
    )
    draw = torch.Generator().manual_seed(3)
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=draw)
    timesteps, tokens = torch.tensor([10, 900]), tokens_of(prior, 2)
    sizes = torch.tensor([[64, 48, 0, 3, 32, 32], [32, 32, 0, 0, 32, 32]])

    loss = generator.loss(latents, tokens, noise, timesteps, sizes)

    signal = generator.noise_schedule.alphas_cumprod[timesteps].sqrt().view(-1, 1, 1, 1)
    spread = (1 - signal**2).sqrt()
    text, pooled = generator.empty_prompt(2)
    predicted = generator.unet(
        signal * latents + spread * noise,
        timesteps,
        text,
        added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes},
        cross_attention_kwargs={"ip_hidden_states": tokens},
    ).sample
    target = noise if prediction == "epsilon" else signal * noise - spread * latents
    assert torch.allclose(loss, (predicted - target).square().mean(), rtol=1e-5)


def test_the_loss_feels_the_sizes_and_reaches_the_tokens_only(generator, prior):
    latents, noise, timesteps = torch.ones(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), torch.tensor([500])
    tokens = tokens_of(prior, 1).requires_grad_()

    small = generator.loss(latents, tokens, noise, timesteps, torch.tensor([[32, 32, 0, 0, 32, 32]]))
    large = generator.loss(latents, tokens, noise, timesteps, torch.tensor([[640, 480, 9, 9, 32, 32]]))
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

    with pytest.raises(MissingData, match="cannot load tokenizer_2"):
        Config(source=str(folder)).build().empty_prompt(1)


@pytest.mark.parametrize("spoil", [lambda f: f.unlink(), lambda f: f.write_bytes(f.read_bytes()[:500])])
def test_absent_or_half_downloaded_weights_are_named(folder, spoil):
    spoil(folder / "unet" / "diffusion_pytorch_model.safetensors")

    with pytest.raises(MissingData, match="cannot load unet"):
        Config(source=str(folder)).build()


@pytest.mark.parametrize("text", ['{"_class_name": "EulerDi', '{"_class_name": "TomorrowsScheduler"}', "{}"])
def test_a_damaged_config_or_an_unknown_scheduler_is_named(folder, text):
    (folder / "scheduler" / "scheduler_config.json").write_text(text)

    with pytest.raises(MissingData, match="cannot load scheduler of the generator"):
        Config(source=str(folder)).build()


def test_weights_that_a_file_lacks_are_named_and_not_drawn_at_random(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["conv_in.bias"], weights["conv_out.bias"]
    save_file(weights, file, metadata={"format": "pt"})

    with pytest.raises(MissingData, match=r"cannot load unet .* lacks conv_in.bias and 1 more"):
        Config(source=str(folder)).build()


def test_a_unet_of_another_type_is_refused(folder):
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "addition_embed_type": None}))

    with pytest.raises(BrainhiveError, match="addition_embed_type is None, not text_time"):
        Config(source=str(folder)).build()


def test_a_scheduler_that_predicts_the_sample_is_refused():
    scheduler = {**sdxl._architecture.TINY["scheduler"], "prediction_type": "sample"}

    with pytest.raises(BrainhiveError, match="prediction_type is sample"):
        Config(source="random", architecture={**sdxl._architecture.TINY, "scheduler": scheduler}).build()


def test_random_weights_repeat_with_their_seed_and_leave_the_global_one_alone():
    torch.manual_seed(3)
    first = TINY.build()
    after = torch.rand(1)
    other = TINY.model_copy(update={"seed": 1}).build()

    assert torch.equal(first.unet.conv_in.weight, TINY.build().unet.conv_in.weight)
    assert not torch.equal(first.unet.conv_in.weight, other.unet.conv_in.weight)
    assert torch.equal(after, torch.rand(1, generator=torch.Generator().manual_seed(3)))
