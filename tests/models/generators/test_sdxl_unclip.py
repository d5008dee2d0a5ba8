"""Tests of SDXL-unCLIP: golden latents of MindEye2, conversion, and refusals."""

import json
import zlib
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files.inputs import require_inputs
from brainhive_cli.models.generators import Sampling
from brainhive_cli.models.generators.sdxl_unclip import TINY, Config
from brainhive_cli.models.heads import Conditioning
from tests.repositories import unclip_checkpoint
from tests.repositories.unclip_checkpoint import SOURCE, TINY_WIDTHS, UNET, VAE
from tests.tools.hub_server import serving

PX = 32
TOLERANCE = 1e-4


@pytest.fixture
def conditioning():
    return Conditioning(
        torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(1))
    )


@pytest.fixture(scope="module")
def generator():
    return TINY.build()


def generate_pictures(
    generator,
    conditioning,
    seeds=(1, 2),
    **sampling,
):
    return generator.generate(
        conditioning, seeds, PX, Sampling(**{"steps": 3, "guidance": 5.0, **sampling})
    )


def draw_golden_weight(seed, name, shape):
    """Draw a weight as the README of the golden files describes."""
    rng = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    values = torch.randn(shape, generator=rng)
    if len(shape) > 1:
        return values / (values.numel() / shape[0]) ** 0.5
    return 1 + 0.1 * values if name.endswith("weight") else 0.1 * values


@pytest.mark.nightly
def test_latents_are_those_of_mindeye2_after_all_steps(golden, home, tmp_path):
    file = golden / "neurons/keyframe_unclip.safetensors"
    with safe_open(file, "pt") as golden_file:
        metadata = golden_file.metadata()
    unet = json.loads(metadata["config"])
    seed = int(metadata["seed"])
    shapes = json.loads((golden / "neurons/keyframe_unclip_sgm_keys.json").read_text())
    checkpoint = unclip_checkpoint.write(
        tmp_path,
        {name: draw_golden_weight(seed, name, shapes[name]) for name in shapes},
    )
    generator = Config(
        source=str(checkpoint), architecture={"unet": unet, "vae": VAE}
    ).build()
    golden_tensors = load_file(file)
    tokens = torch.cat(
        [golden_tensors["input.unconditional_tokens"], golden_tensors["input.tokens"]]
    )
    offset = (
        float(metadata["offset_noise"])
        * golden_tensors["input.offset"][:, None, None, None]
    )
    sampling = Sampling(
        steps=int(metadata["steps"]), guidance=float(metadata["guidance"]), strength=1
    )
    latents = generator.sample_from_noise(
        golden_tensors["input.z"],
        golden_tensors["input.noise"] + offset,
        tokens,
        sampling,
    )
    expected_latents = golden_tensors["expected.latents"]
    assert (
        latents - expected_latents
    ).abs().max() < 2e-5 * expected_latents.abs().max()


class Step(NamedTuple):
    """Inputs of the U-Net: latents [B, C, h, w], the timestep, and sizes [B, 4]."""

    latents: Tensor
    time: Tensor
    ids: Tensor


@pytest.fixture
def golden_steps(golden, generator, monkeypatch):
    """Steps without predicted noise, their result, the golden tensors and metadata."""
    file = golden / "neurons/keyframe_unclip.safetensors"
    with safe_open(file, "pt") as golden_file:
        header = golden_file.metadata()
    golden_tensors = load_file(file)
    steps = list[Step]()

    def record_step(latents, time, text, **inputs):
        steps.append(Step(latents, time, inputs["added_cond_kwargs"]["time_ids"]))
        return torch.zeros_like(latents)

    monkeypatch.setattr(generator, "run_unet", record_step)
    offset = (
        float(header["offset_noise"])
        * golden_tensors["input.offset"][:, None, None, None]
    )
    sampling = Sampling(
        steps=int(header["steps"]), guidance=float(header["guidance"]), strength=1
    )
    tokens = torch.cat(
        [golden_tensors["input.unconditional_tokens"], golden_tensors["input.tokens"]]
    )
    latents = generator.sample_from_noise(
        golden_tensors["input.z"],
        golden_tensors["input.noise"] + offset,
        tokens,
        sampling,
    )
    return steps, latents, golden_tensors, header


def test_sampling_has_the_timesteps_and_size_ids_of_mindeye2(golden_steps):
    steps, _, golden_tensors, header = golden_steps

    times = torch.stack([step.time for step in steps])
    ids = torch.cat([step.ids for step in steps]).unique(dim=0)

    assert torch.equal(times, golden_tensors["expected.timesteps"])
    assert ids.tolist() == [
        [float(size_id) for size_id in header["time_ids"].split(",")]
    ]


def test_latents_are_noised_and_scaled_by_the_sigmas_of_mindeye2(golden_steps):
    steps, last_latents, golden_tensors, _ = golden_steps
    # the U-Net gets latents divided by this scale
    scale = (golden_tensors["expected.sigmas"][:, None, None, None].square() + 1).sqrt()
    expected = golden_tensors["expected.start"] * scale[0] / scale

    # with guidance both rows have the same latents
    for row in (0, 1):
        step_latents = [step.latents[row] for step in steps]
        latents = torch.stack(step_latents + [last_latents[0]])
        # float32 in another order
        torch.testing.assert_close(latents, expected, atol=2e-6, rtol=2e-6)


def test_the_checkpoint_is_converted_once_from_the_hub(
    home, tmp_path, monkeypatch, conditioning
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    file = unclip_checkpoint.write(tmp_path / "served")
    config = Config(architecture=TINY_WIDTHS)
    with serving(tmp_path / "served") as hub:
        hub.redirect_client(monkeypatch)
        config.check()
        assert [(item.size, item.state) for item in config.inputs()] == [
            (file.stat().st_size, "to download")
        ]
        first_generator = config.build()
    assert config.source == SOURCE
    assert len(hub.fetched) == 1
    assert [item.state for item in config.inputs()] == ["here"]
    second_generator = config.build()  # without the hub
    converted_folder = next((home / "models").glob("sdxl-unclip-*-float32"))
    folder = Config(source=str(converted_folder)).build()
    tokens = Conditioning(torch.randn(2, 4, 12))
    assert torch.equal(
        generate_pictures(first_generator, tokens),
        generate_pictures(second_generator, tokens),
    )
    assert torch.equal(
        generate_pictures(first_generator, tokens), generate_pictures(folder, tokens)
    )


def test_frames_have_their_own_tokens_and_the_same_noise(generator, conditioning):
    # [B, F, S, D]
    frames = torch.stack(
        [
            conditioning.embeddings,
            conditioning.embeddings.flip(0),
            conditioning.embeddings,
        ],
        1,
    )

    clips = generate_pictures(generator, Conditioning(frames))

    assert clips.shape == (2, 3, 3, PX, PX)
    assert torch.allclose(
        clips[:, 0], generate_pictures(generator, conditioning), atol=TOLERANCE
    )
    assert torch.allclose(clips[:, 2], clips[:, 0], atol=TOLERANCE)
    assert not torch.allclose(clips[:, 1], clips[:, 0], atol=TOLERANCE)


def test_wrong_conditions_are_refused(generator, conditioning):
    with pytest.raises(BrainhiveError, match="texts"):
        generate_pictures(generator, replace(conditioning, texts=["a", "b"]))
    with pytest.raises(RecipeError, match="prompts"):
        generate_pictures(generator, conditioning, prompt="a dog")


def test_another_checkpoint_is_refused_in_one_line(home, tmp_path):
    file = unclip_checkpoint.write(tmp_path)
    architecture = {"unet": {**UNET, "cross_attention_dim": 16}, "vae": VAE}
    with pytest.raises(BrainhiveError) as caught:
        Config(source=str(file), architecture=architecture).build()
    assert "unclip6_epoch0_step110000.ckpt" in caught.value.hint
    assert not list((home / "models").glob("sdxl-unclip-*"))
    file.unlink()
    with pytest.raises(MissingData, match=file.name):
        require_inputs(Config(source=str(file)).inputs())
