"""SDXL-unCLIP: MindEye2's golden latents, its checkpoint converted once, and what is
refused.
"""

import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from brainhive_cli.core.command import require_inputs
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.models.generators import Sampling
from brainhive_cli.models.generators.sdxl_unclip import TINY, Config
from brainhive_cli.models.heads import Conditioning
from tests.repositories import unclip_checkpoint
from tests.repositories.unclip_checkpoint import SOURCE, TINY_WIDTHS, UNET, VAE
from tests.tools.hub_server import serving

PX, SAME = 32, 1e-4


@pytest.fixture
def given() -> Conditioning:
    return Conditioning(
        torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(1))
    )


@pytest.fixture(scope="module")
def generator() -> Any:
    return TINY.build()


def make(
    generator: Any,
    given: Conditioning,
    seeds: tuple[int, ...] = (1, 2),
    **sampling: Any,
) -> Tensor:
    return generator.generate(
        given, seeds, PX, Sampling(**{"steps": 3, "guidance": 5.0, **sampling})
    )


def by_rule(seed: int, name: str, shape: list[int]) -> Tensor:
    """Make a weight as the golden README says, from the file's seed."""
    random = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    drawn = torch.randn(shape, generator=random)
    if len(shape) > 1:
        return drawn / (drawn.numel() / shape[0]) ** 0.5
    return 1 + 0.1 * drawn if name.endswith("weight") else 0.1 * drawn


@pytest.mark.nightly
def test_latents_are_those_of_mindeye2_after_all_steps(
    golden: Path, home: Path, tmp_path: Path
):
    file = golden / "neurons/keyframe_unclip.safetensors"
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
    unet, seed = json.loads(about["config"]), int(about["seed"])
    shapes = json.loads((golden / "neurons/keyframe_unclip_sgm_keys.json").read_text())
    checkpoint = unclip_checkpoint.write(
        tmp_path, {name: by_rule(seed, name, shapes[name]) for name in shapes}
    )
    generator = Config(
        source=str(checkpoint), architecture={"unet": unet, "vae": VAE}
    ).build()
    found = load_file(file)
    tokens = torch.cat([found["input.unconditional_tokens"], found["input.tokens"]])
    offset = float(about["offset_noise"]) * found["input.offset"][:, None, None, None]
    sampling = Sampling(
        steps=int(about["steps"]), guidance=float(about["guidance"]), strength=1
    )
    made = generator.sample_from_noise(
        found["input.z"], found["input.noise"] + offset, tokens, sampling
    )
    wanted = found["expected.latents"]
    assert (made - wanted).abs().max() < 2e-5 * wanted.abs().max()


class Step(NamedTuple):
    """Inputs of the U-Net: latents [B, C, h, w], the timestep, and size and crop ids
    [B, 4].
    """

    latents: Tensor
    time: Tensor
    ids: Tensor


@pytest.fixture
def golden_steps(
    golden: Path, generator: Any, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Step], Tensor, dict[str, Tensor], dict[str, str]]:
    """The steps from the golden start if the U-Net predicts no noise, so that only the
    scale of the latents changes; their result, the golden tensors and the header.
    """
    file = golden / "neurons/keyframe_unclip.safetensors"
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    found, steps = load_file(file), list[Step]()

    def note(latents: Tensor, time: Tensor, text: Tensor, **inputs: Any) -> Tensor:
        steps.append(Step(latents, time, inputs["added_cond_kwargs"]["time_ids"]))
        return torch.zeros_like(latents)

    monkeypatch.setattr(generator, "run_unet", note)
    offset = float(header["offset_noise"]) * found["input.offset"][:, None, None, None]
    sampling = Sampling(
        steps=int(header["steps"]), guidance=float(header["guidance"]), strength=1
    )
    tokens = torch.cat([found["input.unconditional_tokens"], found["input.tokens"]])
    made = generator.sample_from_noise(
        found["input.z"], found["input.noise"] + offset, tokens, sampling
    )
    return steps, made, found, header


def test_sampling_has_the_timesteps_and_size_ids_of_mindeye2(golden_steps: Any):
    steps, _, found, header = golden_steps

    times = torch.stack([step.time for step in steps])
    ids = torch.cat([step.ids for step in steps]).unique(dim=0)

    assert torch.equal(times, found["expected.timesteps"])
    assert ids.tolist() == [[float(part) for part in header["time_ids"].split(",")]]


def test_latents_are_noised_and_scaled_by_the_sigmas_of_mindeye2(golden_steps: Any):
    steps, made, found, _ = golden_steps
    # the U-Net gets latents over this, and without predicted noise these stay
    scale = (found["expected.sigmas"][:, None, None, None].square() + 1).sqrt()
    expected = found["expected.start"] * scale[0] / scale

    # with guidance both rows have the same latents
    for row in (0, 1):
        latents = torch.stack([*(step.latents[row] for step in steps), made[0]])
        # float32 in another order
        torch.testing.assert_close(latents, expected, atol=2e-6, rtol=2e-6)


def test_the_checkpoint_is_converted_once_from_the_hub(
    home: Path, tmp_path: Path, monkeypatch, given
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    file = unclip_checkpoint.write(tmp_path / "served")
    config = Config(architecture=TINY_WIDTHS)
    with serving(tmp_path / "served") as hub:
        hub.lead(monkeypatch)
        config.check()
        assert [(one.size, one.state) for one in config.inputs()] == [
            (file.stat().st_size, "to download")
        ]
        first = config.build()
    assert config.source == SOURCE and len(hub.fetched) == 1
    assert [one.state for one in config.inputs()] == ["here"]
    again = config.build()  # without the hub
    kept = next((home / "models").glob("sdxl-unclip-*-float32"))
    folder = Config(source=str(kept)).build()
    tokens = Conditioning(torch.randn(2, 4, 12))
    assert torch.equal(make(first, tokens), make(again, tokens))
    assert torch.equal(make(first, tokens), make(folder, tokens))


def test_a_picture_depends_on_its_row_and_seed_and_not_on_the_batch(generator, given):
    both, alone = make(generator, given), make(generator, given[1:], (2,))
    assert both.shape == (2, 3, PX, PX) and torch.allclose(both[1], alone[0], atol=SAME)
    assert not torch.allclose(alone, make(generator, given[1:], (3,)), atol=10 * SAME)


def test_the_frames_of_a_clip_are_drawn_of_their_tokens_from_the_same_noise(
    generator, given
):
    # [B, F, S, D]
    frames = torch.stack(
        [given.embeddings, given.embeddings.flip(0), given.embeddings], 1
    )

    clips = make(generator, Conditioning(frames))

    assert clips.shape == (2, 3, 3, PX, PX)
    assert torch.allclose(clips[:, 0], make(generator, given), atol=SAME)
    assert torch.allclose(clips[:, 2], clips[:, 0], atol=SAME)
    assert not torch.allclose(clips[:, 1], clips[:, 0], atol=SAME)


def test_wrong_conditions_are_refused(generator, given):
    with pytest.raises(BrainhiveError, match="takes no condition texts"):
        make(generator, replace(given, texts=["a", "b"]))
    with pytest.raises(RecipeError, match="no text encoder for prompts"):
        make(generator, given, prompt="a dog")


def test_another_checkpoint_is_refused_in_one_line(home: Path, tmp_path: Path):
    file = unclip_checkpoint.write(tmp_path)
    other = {"unet": {**UNET, "cross_attention_dim": 16}, "vae": VAE}
    with pytest.raises(BrainhiveError, match="has shape") as caught:
        Config(source=str(file), architecture=other).build()
    assert "unclip6_epoch0_step110000.ckpt" in caught.value.hint
    assert not list((home / "models").glob("sdxl-unclip-*"))
    file.unlink()
    with pytest.raises(MissingData, match="no file"):
        require_inputs(Config(source=str(file)).inputs())
