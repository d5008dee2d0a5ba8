"""AnimateDiff with SparseCtrl: NEURONS' golden values, diffusers' own pipelines, the
hub's folders.
"""

import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.models.generators import Sampling
from brainhive_cli.models.generators._latent_diffusion import Request
from brainhive_cli.models.generators.animatediff import (
    SCHEDULER_CONFIG,
    TINY,
    interpolate_frames,
    normalise_frame_by_frame,
)
from brainhive_cli.models.heads import Conditioning

PX, FRAMES = 32, 4
CONFIG = TINY.model_copy(update={"frames": FRAMES, "kept": (1, 3)})
SAME = 1e-4
"""Of frames in 0..1; a batch rounds differently from a single row."""


@pytest.fixture(scope="module")
def generator() -> Any:
    return CONFIG.build()


@pytest.fixture(scope="module")
def alone() -> Any:
    return CONFIG.model_copy(update={"sparse_control": None}).build()


@pytest.fixture
def given() -> Conditioning:
    """Two rows of all conditions."""
    random = torch.Generator().manual_seed(1)
    start, images = (
        torch.rand(2, 2, 3, PX, PX, generator=random),
        torch.rand(2, 3, PX, PX, generator=random),
    )
    return Conditioning(
        texts=torch.randn(2, 5, 16, generator=random), images=images, start=start
    )


def make(
    generator: Any,
    given: Conditioning,
    seeds: tuple[int, ...] = (1, 2),
    **sampling: Any,
) -> Tensor:
    asked = {"steps": 3, "guidance": 5.0, "strength": 1.0, **sampling}
    return generator.generate(given, seeds, PX, Sampling(**asked))


def by_rule(seed: int, shape: torch.Size, name: str, is_norm: bool) -> Tensor:
    """Make a weight as the golden README says, from the file's seed."""
    random = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    drawn = torch.randn(shape, generator=random)
    if len(shape) > 1:
        return drawn / (drawn.numel() / shape[0]) ** 0.5
    return 1 + 0.1 * drawn if is_norm else 0.1 * drawn


def open_sparse_control(
    golden: Path,
) -> tuple[Any, Callable[[], list[Tensor]], dict[str, Tensor]]:
    """Make the network of the golden file, a function that runs it on the golden
    inputs, and read the tensors.
    """
    file = golden / "neurons" / "sparse_control.safetensors"
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
    network: Any = SparseControlNetModel(**json.loads(about["config"]))
    seed, frames, time = (int(about[name]) for name in ("seed", "frames", "timestep"))
    found = load_file(file)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.copy_(
                by_rule(
                    seed, weight.shape, name, "norm" in name and name.endswith("weight")
                )
            )
    inputs = {"encoder_hidden_states": found["input.text"].repeat_interleave(frames, 0)}
    inputs |= {
        "controlnet_cond": found["input.condition"],
        "conditioning_mask": found["input.mask"],
    }
    still = torch.zeros(len(found["input.text"]), *found["input.condition"].shape[1:])

    def residuals() -> list[Tensor]:
        with torch.no_grad():
            down, mid = network(still, time, **inputs, return_dict=False)
        return [*down, mid]

    return network, residuals, found


def relative_error(made: Tensor, wanted: Tensor) -> float:
    assert made.shape == wanted.shape
    return ((made - wanted).norm() / wanted.norm()).item()


def test_sparse_control_gives_the_originals_residuals_frame_by_frame(golden: Path):
    network, residuals, found = open_sparse_control(golden)
    depths = sum(name.startswith("expected.down_") for name in found)
    names = [*(f"expected.down_{depth}" for depth in range(depths)), "expected.mid"]

    made = residuals()
    normalised = normalise_frame_by_frame(network) and residuals()

    assert max(map(relative_error, made, [found[name] for name in names])) > 0.05
    for residual, name in zip(normalised, names, strict=True):
        assert relative_error(residual, found[name]) < 2e-5, name


def test_diffusers_sparse_control_has_the_known_fault(golden: Path):
    """Golden value: the last residual where groups are normalised over all frames."""
    _, residuals, found = open_sparse_control(golden)
    (fault,) = (value for name, value in found.items() if name.startswith("fault.mid"))

    assert relative_error(residuals()[-1], fault) < 2e-5


def test_frames_noise_and_schedule_are_those_of_neurons(golden: Path):
    found = load_file(golden / "neurons" / "video.safetensors")
    (motion,) = (
        each for name, each in found.items() if name.startswith("expected.motion_")
    )
    frames, steps = motion.shape[1], len(found["expected.timesteps"])
    assert torch.allclose(
        interpolate_frames(found["input.blurry"], frames, 2), motion, atol=1e-6
    )
    thirds = interpolate_frames(
        found["input.blurry"], 3 * found["input.blurry"].shape[1] - 2
    )[:, 1::3]
    wanted = (2 * found["input.blurry"][:, :-1] + found["input.blurry"][:, 1:]) / 3
    assert torch.allclose(thirds, wanted, atol=1e-6)
    scheduler = DDIMScheduler.from_config(SCHEDULER_CONFIG)
    scheduler.set_timesteps(steps)
    assert torch.equal(scheduler.timesteps, found["expected.timesteps"])
    latents = scheduler.add_noise(
        found["input.latents"], found["input.noise"], scheduler.timesteps[:1]
    )
    first = int(scheduler.timesteps[0])
    kept = found[f"expected.alphas_cumprod_{first}"]
    torch.testing.assert_close(scheduler.alphas_cumprod[first], kept)
    assert torch.allclose(latents, found[f"expected.noised_latents_{first}"], atol=1e-6)
    for time, noise in zip(scheduler.timesteps, found["input.eps_steps"], strict=True):
        latents = scheduler.step(noise, time, latents).prev_sample
    assert torch.allclose(
        latents, found[f"expected.ddim_{steps}_final"], rtol=1e-4, atol=1e-4
    )
    assert TINY.model_fields["kept"].default == tuple(
        found["expected.kept_frames"].tolist()
    )


def test_the_schedule_of_betas_is_that_of_neurons(golden: Path):
    with safe_open(golden / "neurons" / "video.safetensors", "pt") as opened:
        config = json.loads(opened.metadata()["config"])
    expected = {k: v for k, v in config["scheduler"].items() if k != "steps"}

    schedule = DDIMScheduler.from_config(SCHEDULER_CONFIG).config

    assert {name: schedule[name] for name in expected} == expected


def test_captions_get_the_suffix_and_negative_prompt_of_neurons(golden: Path):
    words = json.loads((golden / "neurons" / "words.json").read_text())

    assert TINY.prompt_suffix == words["prompt_suffix"]
    assert TINY.negative_prompt == words["negative_prompt"]


def test_a_clip_is_what_diffusers_own_pipelines_draw(given):
    """Each clip by itself, where the pipelines take one; their posteriors are sampled,
    here they are sure.
    """
    generator = CONFIG.build()
    with torch.no_grad():
        generator.vae.quant_conv.weight[4:] = 0
        generator.vae.quant_conv.bias[4:] = -30
    noised = begun(generator, given)
    other = torch.zeros(1, 5, 16)
    common = {"num_inference_steps": 3, "guidance_scale": 5.0, "output_type": "latent"}
    common |= {"height": PX, "width": PX, "negative_prompt_embeds": other}
    parts = {
        "unet": generator.unet,
        "vae": generator.vae,
        "scheduler": DDIMScheduler.from_config(SCHEDULER_CONFIG),
    }
    parts |= dict.fromkeys(("text_encoder", "tokenizer", "motion_adapter"))
    sparse: Any = AnimateDiffSparseControlNetPipeline(
        **parts, controlnet=generator.sparse_control
    )
    made = generator.sample(
        Request(given, [1, 2], PX, Sampling(steps=3, guidance=5.0, strength=1))
    )
    for row in (0, 1):
        wanted = sparse(
            prompt_embeds=given.texts[row : row + 1],
            latents=noised[row : row + 1],
            num_frames=FRAMES,
            conditioning_frames=given.images[row : row + 1],
            controlnet_frame_indices=[0],
            **common,
        ).frames
        assert torch.allclose(
            made[row].transpose(0, 1), wanted[0], rtol=1e-3, atol=1e-3
        )

    plain: Any = AnimateDiffVideoToVideoPipeline(**parts)
    wanted = plain(
        prompt_embeds=given.texts[:1],
        latents=generator.encode(interpolate_frames(given.start[:1], FRAMES)).transpose(
            1, 2
        ),
        generator=torch.Generator().manual_seed(1),
        strength=1,
        enforce_inference_steps=True,
        **common,
    ).frames
    generator.sparse_control = None
    free = replace(given, images=None)[:1]
    made = generator.sample(
        Request(free, [1], PX, Sampling(steps=3, guidance=5.0, strength=1))
    )
    assert torch.allclose(made[0].transpose(0, 1), wanted[0], rtol=1e-3, atol=1e-3)


def begun(generator: Any, given: Conditioning) -> Tensor:
    """Noise the encoded blurry frames of both clips, as a whole run begins: [B, C, F,
    h, w].
    """
    scheduler = DDIMScheduler.from_config(SCHEDULER_CONFIG)
    scheduler.set_timesteps(3)
    latents = generator.encode(interpolate_frames(given.start, FRAMES)).transpose(1, 2)
    noise = [
        torch.randn(4, FRAMES, 8, 8, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 2)
    ]
    return scheduler.add_noise(latents, torch.stack(noise), scheduler.timesteps[:1])


@pytest.mark.nightly
def test_a_clip_depends_on_its_row_and_seed_and_in_the_published_mode_on_its_row_alone(
    generator, given
):
    both, alone = make(generator, given), make(generator, given[1:], (2,))
    assert both.shape == (2, 2, 3, PX, PX) and torch.allclose(
        both[1], alone[0], atol=SAME
    )
    assert not torch.allclose(alone, make(generator, given[1:], (3,)), atol=10 * SAME)
    published = CONFIG.model_copy(update={"mode": "published"}).build()
    assert torch.equal(make(published, given, (1, 2)), make(published, given, (3, 4)))


def test_each_condition_changes_the_clip(generator, given):
    masks = torch.zeros(2, 2, 1, 16, 16)
    masks[..., :8] = 1
    given = replace(given, masks=masks)
    plain, other = make(generator, given, strength=0.7), given[[1, 0]]
    for name in ("texts", "images", "start"):
        changed = make(
            generator, replace(given, **{name: getattr(other, name)}), strength=0.7
        )
        assert not torch.allclose(plain, changed, atol=SAME), name
    changed = make(generator, replace(given, masks=None), strength=0.7)
    assert not torch.allclose(plain, changed, atol=SAME)


def test_wrong_conditions_and_frames_are_refused(generator, alone, given):
    for made, wrong, words in (
        (generator, replace(given, images=None), "SparseCtrl needs a keyframe"),
        (alone, given, "keyframes have no effect without SparseCtrl"),
    ):
        with pytest.raises(BrainhiveError, match=words):
            make(made, wrong)
    with pytest.raises(RecipeError, match=r"kept is \[16\], and there are 16 frames"):
        type(TINY)(kept=(16,))
