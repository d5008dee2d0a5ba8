"""Tests of AnimateDiff, by golden values of NEURONS and by diffusers' pipelines."""

import json
import zlib
from dataclasses import replace

import pytest
import torch
from diffusers import (
    AnimateDiffSparseControlNetPipeline,
    AnimateDiffVideoToVideoPipeline,
    DDIMScheduler,
    SparseControlNetModel,
)
from safetensors import safe_open
from safetensors.torch import load_file

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.models.generators import Sampling
from brainhive_cli.models.generators._latent_diffusion import Request
from brainhive_cli.models.generators.animatediff import (
    SCHEDULER_CONFIG,
    TINY,
    interpolate_frames,
    normalise_frame_by_frame,
)
from brainhive_cli.models.heads import Conditioning

PX = 32
FRAMES = 4
CONFIG = TINY.model_copy(update={"frames": FRAMES, "kept": (1, 3)})


@pytest.fixture(scope="module")
def generator():
    return CONFIG.build()


@pytest.fixture(scope="module")
def generator_without_keyframe():
    return CONFIG.model_copy(update={"sparse_control": None}).build()


@pytest.fixture
def conditioning():
    """Conditions of two rows, without masks."""
    rng = torch.Generator().manual_seed(1)
    start = torch.rand(2, 2, 3, PX, PX, generator=rng)
    images = torch.rand(2, 3, PX, PX, generator=rng)
    return Conditioning(
        texts=torch.randn(2, 5, 16, generator=rng), images=images, start=start
    )


def generate_clips(
    generator,
    conditioning,
    seeds=(1, 2),
    **sampling,
):
    settings = {"steps": 3, "guidance": 5.0, "strength": 1.0, **sampling}
    return generator.generate(conditioning, seeds, PX, Sampling(**settings))


def draw_golden_weight(seed, shape, name, is_norm):
    """Draw a weight as the README of the golden files describes."""
    rng = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    values = torch.randn(shape, generator=rng)
    if len(shape) > 1:
        return values / (values.numel() / shape[0]) ** 0.5
    return 1 + 0.1 * values if is_norm else 0.1 * values


def open_sparse_control(
    golden,
):
    """Return the golden network, a function that runs it, and the golden tensors."""
    file = golden / "neurons" / "sparse_control.safetensors"
    with safe_open(file, "pt") as file_with_metadata:
        metadata = file_with_metadata.metadata()
    network = SparseControlNetModel(**json.loads(metadata["config"]))
    seed, frames, time = (
        int(metadata[name]) for name in ("seed", "frames", "timestep")
    )
    golden_tensors = load_file(file)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.copy_(
                draw_golden_weight(
                    seed, weight.shape, name, "norm" in name and name.endswith("weight")
                )
            )
    inputs = {
        "encoder_hidden_states": golden_tensors["input.text"].repeat_interleave(
            frames, 0
        )
    }
    inputs |= {
        "controlnet_cond": golden_tensors["input.condition"],
        "conditioning_mask": golden_tensors["input.mask"],
    }
    frames_without_noise = torch.zeros(
        len(golden_tensors["input.text"]), *golden_tensors["input.condition"].shape[1:]
    )

    def residuals():
        with torch.no_grad():
            down_residuals, mid = network(
                frames_without_noise, time, **inputs, return_dict=False
            )
        return list(down_residuals) + [mid]

    return network, residuals, golden_tensors


def relative_error(actual, expected):
    assert actual.shape == expected.shape
    return ((actual - expected).norm() / expected.norm()).item()


def test_sparse_control_equals_the_original_in_each_frame(golden):
    network, residuals, golden_tensors = open_sparse_control(golden)
    depths = sum(name.startswith("expected.down_") for name in golden_tensors)
    names = [f"expected.down_{depth}" for depth in range(depths)] + ["expected.mid"]

    diffusers_residuals = residuals()
    normalised = normalise_frame_by_frame(network) and residuals()

    assert (
        max(
            map(
                relative_error,
                diffusers_residuals,
                [golden_tensors[name] for name in names],
            )
        )
        > 0.05
    )
    for residual, name in zip(normalised, names, strict=True):
        assert relative_error(residual, golden_tensors[name]) < 2e-5, name


def test_diffusers_sparse_control_has_the_known_fault(golden):
    """Golden value: the last residual, normalised over all frames."""
    _, residuals, golden_tensors = open_sparse_control(golden)
    (fault,) = (
        value for name, value in golden_tensors.items() if name.startswith("fault.mid")
    )

    assert relative_error(residuals()[-1], fault) < 2e-5


def test_frames_noise_and_schedule_are_those_of_neurons(golden):
    golden_tensors = load_file(golden / "neurons" / "video.safetensors")
    (motion,) = (
        value
        for name, value in golden_tensors.items()
        if name.startswith("expected.motion_")
    )
    frames = motion.shape[1]
    steps = len(golden_tensors["expected.timesteps"])
    assert torch.allclose(
        interpolate_frames(golden_tensors["input.blurry"], frames, 2), motion, atol=1e-6
    )
    thirds = interpolate_frames(
        golden_tensors["input.blurry"], 3 * golden_tensors["input.blurry"].shape[1] - 2
    )[:, 1::3]
    expected = (
        2 * golden_tensors["input.blurry"][:, :-1]
        + golden_tensors["input.blurry"][:, 1:]
    ) / 3
    assert torch.allclose(thirds, expected, atol=1e-6)
    scheduler = DDIMScheduler.from_config(SCHEDULER_CONFIG)
    scheduler.set_timesteps(steps)
    assert torch.equal(scheduler.timesteps, golden_tensors["expected.timesteps"])
    latents = scheduler.add_noise(
        golden_tensors["input.latents"],
        golden_tensors["input.noise"],
        scheduler.timesteps[:1],
    )
    first_time = int(scheduler.timesteps[0])
    signal_share = golden_tensors[f"expected.alphas_cumprod_{first_time}"]
    torch.testing.assert_close(scheduler.alphas_cumprod[first_time], signal_share)
    assert torch.allclose(
        latents, golden_tensors[f"expected.noised_latents_{first_time}"], atol=1e-6
    )
    for time, noise in zip(
        scheduler.timesteps, golden_tensors["input.eps_steps"], strict=True
    ):
        latents = scheduler.step(noise, time, latents).prev_sample
    assert torch.allclose(
        latents, golden_tensors[f"expected.ddim_{steps}_final"], rtol=1e-4, atol=1e-4
    )
    assert TINY.model_fields["kept"].default == tuple(
        golden_tensors["expected.kept_frames"].tolist()
    )


def test_the_schedule_of_betas_is_that_of_neurons(golden):
    with safe_open(golden / "neurons" / "video.safetensors", "pt") as golden_file:
        config = json.loads(golden_file.metadata()["config"])
    expected = {k: v for k, v in config["scheduler"].items() if k != "steps"}

    schedule = DDIMScheduler.from_config(SCHEDULER_CONFIG).config

    assert {name: schedule[name] for name in expected} == expected


def test_captions_get_the_suffix_and_negative_prompt_of_neurons(golden):
    prompts = json.loads((golden / "neurons" / "words.json").read_text())

    assert TINY.prompt_suffix == prompts["prompt_suffix"]
    assert TINY.negative_prompt == prompts["negative_prompt"]


def test_a_clip_is_what_diffusers_own_pipelines_draw(conditioning):
    """The pipelines take a clip at a time. They sample posteriors, whose variance is 0
    here.
    """
    generator = CONFIG.build()
    with torch.no_grad():
        generator.vae.quant_conv.weight[4:] = 0
        generator.vae.quant_conv.bias[4:] = -30
    start_latents = add_first_noise(generator, conditioning)
    negative_embeds = torch.zeros(1, 5, 16)
    options = {"num_inference_steps": 3, "guidance_scale": 5.0, "output_type": "latent"}
    options |= {"height": PX, "width": PX, "negative_prompt_embeds": negative_embeds}
    components = {
        "unet": generator.unet,
        "vae": generator.vae,
        "scheduler": DDIMScheduler.from_config(SCHEDULER_CONFIG),
    }
    components |= dict.fromkeys(("text_encoder", "tokenizer", "motion_adapter"))
    keyframe_pipeline = AnimateDiffSparseControlNetPipeline(
        **components, controlnet=generator.sparse_control
    )
    clips = generator.sample(
        Request(conditioning, [1, 2], PX, Sampling(steps=3, guidance=5.0, strength=1))
    )
    for row in (0, 1):
        expected = keyframe_pipeline(
            prompt_embeds=conditioning.texts[row : row + 1],
            latents=start_latents[row : row + 1],
            num_frames=FRAMES,
            conditioning_frames=conditioning.images[row : row + 1],
            controlnet_frame_indices=[0],
            **options,
        ).frames
        assert torch.allclose(
            clips[row].transpose(0, 1), expected[0], rtol=1e-3, atol=1e-3
        )

    start_pipeline = AnimateDiffVideoToVideoPipeline(**components)
    expected = start_pipeline(
        prompt_embeds=conditioning.texts[:1],
        latents=generator.encode(
            interpolate_frames(conditioning.start[:1], FRAMES)
        ).transpose(1, 2),
        generator=torch.Generator().manual_seed(1),
        strength=1,
        enforce_inference_steps=True,
        **options,
    ).frames
    generator.sparse_control = None
    free = replace(conditioning, images=None)[:1]
    clips = generator.sample(
        Request(free, [1], PX, Sampling(steps=3, guidance=5.0, strength=1))
    )
    assert torch.allclose(clips[0].transpose(0, 1), expected[0], rtol=1e-3, atol=1e-3)


def add_first_noise(generator, conditioning):
    """Add the first noise to the encoded blurry frames [B, C, F, h, w]."""
    scheduler = DDIMScheduler.from_config(SCHEDULER_CONFIG)
    scheduler.set_timesteps(3)
    latents = generator.encode(
        interpolate_frames(conditioning.start, FRAMES)
    ).transpose(1, 2)
    noise = [
        torch.randn(4, FRAMES, 8, 8, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 2)
    ]
    return scheduler.add_noise(latents, torch.stack(noise), scheduler.timesteps[:1])


def test_wrong_conditions_and_frames_are_refused(
    generator, generator_without_keyframe, conditioning
):
    with pytest.raises(BrainhiveError, match=r"SparseCtrl.* images"):
        generate_clips(generator, replace(conditioning, images=None))
    with pytest.raises(BrainhiveError, match=r"keyframes.* SparseCtrl"):
        generate_clips(generator_without_keyframe, conditioning)
    with pytest.raises(RecipeError, match=r"kept .*\[16\].* 16 frames"):
        type(TINY)(kept=(16,))
