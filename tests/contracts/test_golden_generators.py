"""A prior and a generator of the systems to come load and run, with their references' weights."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from brainhive_cli import priors
from brainhive_cli.core import parts
from brainhive_cli.core.conditioning import Conditioning
from brainhive_cli.core.decoded import Decoded
from brainhive_cli.generators import Sampling

TOLERANCE = 1e-4
"""Of the largest value: the golden folder calls it safe."""
Golden = dict[str, Tensor]
LOOP = re.compile(r"out\.\w+?_(\d+)_steps_strength([\d.]+)_mix([\d.]+)_cfg([\d.]+)(_zeros)?")
"""Steps, strength, text share, guidance, and whether the unconditional side is zeros."""


def read(path: Path) -> tuple[dict[str, Any], Golden]:
    with safe_open(path, "pt") as file:
        config: dict[str, Any] = json.loads(file.metadata()["config"])
        return config, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def below(golden: Golden, prefix: str) -> Golden:
    return {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() < TOLERANCE * expected.abs().max()


@pytest.fixture
def dual(golden: Path) -> tuple[dict[str, Any], Golden]:
    return read(golden / "havir" / "vd_dual.safetensors")


def dual_guided(dual: tuple[dict[str, Any], Golden], text_share: float, vae: Any = None) -> Any:
    """The reference's U-Nets as one generator, with its noise."""
    config, golden = dual
    knobs = {"unet": config["image_unet"], "scheduler": config["scheduler"], "text_share": text_share}
    kind = {"kind": "tests.contracts.parts.dual_guided", **knobs, **({"vae": vae} if vae else {})}
    made = parts.resolve("generators", kind).build()
    made.load(below(golden, "image_unet."), below(golden, "text_unet."))
    made.draw = lambda seeds, shape: golden["in.noise"][list(seeds)]
    return made


def conditions(golden: Golden) -> tuple[Conditioning, Conditioning]:
    """What the identity prior makes of the heads of HAVIR, and the unconditional side."""
    heads = {name: golden[f"in.{name}"] for name in ("latent", "image", "text")}
    null = Conditioning(golden["in.image_unconditional"], golden["in.text_unconditional"])
    return priors.load("identity").condition(Decoded(heads), range(len(heads["latent"]))), null


def test_image_and_text_tokens_are_mixed_as_in_the_reference(dual: tuple[dict[str, Any], Golden]) -> None:
    """Golden values: Versatile Diffusion's dual-guided U-Net of diffusers, at tiny widths."""
    given, _ = conditions(dual[1])
    mixed = {name: re.fullmatch(r"out\.eps_mix([\d.]+)_t(\d+)", name) for name in dual[1]}
    assert any(mixed.values())
    for name, found in mixed.items():
        if found is not None:
            generator = dual_guided(dual, float(found[1]))
            assert_near(generator.predict(dual[1]["in.latent"], int(found[2]), given), dual[1][name])


@pytest.mark.parametrize("scheduler", ["ddim", "unipc"])
def test_sampling_from_the_decoded_latent_gives_the_references_latents_and_their_pictures(
    dual: tuple[dict[str, Any], Golden], golden: Path, scheduler: str
) -> None:
    """Golden values: Brain-Diffuser's and MindEye1's loops; pictures by the weights of a tiny autoencoder."""
    vae, weights = read(golden / "havir" / "latent_target.safetensors")
    given, null = conditions(dual[1])
    size_px, rows = weights["in.image"].shape[-1], range(len(given))
    loops = {name: LOOP.fullmatch(name) for name in dual[1] if name.startswith(f"out.{scheduler}_")}
    assert any(loops.values())
    for name, loop in loops.items():
        if loop is None:
            continue
        steps, strength, text_share, guidance, zeros = loop.groups()
        generator = dual_guided(dual, float(text_share), vae["vae"])
        generator.vae.load_state_dict(below(weights, "vae."))
        numbers = {"steps": int(steps), "strength": float(strength), "guidance": float(guidance)}
        asked, other = Sampling(scheduler=scheduler, **numbers), Conditioning() if zeros else null

        latents = generator.sample(given, rows, size_px, asked, other)
        pictures = generator.generate(given, rows, size_px, asked, other)
        second = generator.generate(given[1:], rows[1:], size_px, asked, other)
        noise_alone = generator.sample(replace(given, start=None), rows, size_px, asked, other)

        assert_near(latents, dual[1][name])
        assert torch.allclose(pictures, generator.decode(dual[1][name]), atol=TOLERANCE)
        assert torch.allclose(second[0], pictures[1], atol=TOLERANCE)
        assert torch.allclose(noise_alone, latents, atol=TOLERANCE) == (asked.strength == 1)


def test_its_autoencoder_gives_the_references_latents_and_pictures(
    dual: tuple[dict[str, Any], Golden], golden: Path
) -> None:
    """Golden values: a tiny AutoencoderKL; the reference does not clamp."""
    config, expected = read(golden / "havir" / "latent_target.safetensors")
    generator = dual_guided(dual, 0.4, config["vae"])
    generator.vae.load_state_dict(below(expected, "vae."))

    assert_near(generator.encode(expected["in.image"]), expected["out.latent"])
    assert_near(generator.decode(expected["out.latent"]), expected["out.image"].clamp(0, 1))
