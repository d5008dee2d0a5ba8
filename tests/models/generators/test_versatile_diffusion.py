"""Tests of Versatile Diffusion: its folder, sampling and conversion."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from brainhive_cli.core.base.device_memory import count_bytes
from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.models import Conditioning, Decoded, priors
from brainhive_cli.models.generators import Sampling, versatile_diffusion
from brainhive_cli.models.generators._latent_diffusion import Request
from brainhive_cli.models.generators.versatile_diffusion import Config
from tests.repositories import versatile_diffusion_repository
from tests.repositories.versatile_diffusion_repository import NAME, SIDE_PX, WIDTH
from tests.tools.golden_files import assert_near, read, select_prefix

TOLERANCE = 1e-4
"""Tolerance as a share of the largest value, from the README of the golden files."""
Golden = dict[str, Tensor]
LOOP = re.compile(
    r"out\.(ddim|unipc)_(\d+)_steps_strength([\d.]+)_mix([\d.]+)_cfg([\d.]+)(_zeros)?"
)
"""Name of a golden tensor: scheduler, steps, strength, text share and guidance, and a
suffix if the unconditional side is zeros.
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return versatile_diffusion_repository.write(tmp_path_factory.mktemp("vd") / NAME)


@pytest.fixture
def folder(published, home):
    """Copy of the published folder, which a test can damage."""
    return Path(shutil.copytree(published, home / "vd"))


@pytest.fixture
def conditioning():
    """Conditions of two rows, as HAVIR's heads give them."""
    rng = torch.Generator().manual_seed(1)
    sizes = {"start": (4, 8, 8), "texts": (77, WIDTH), "embeddings": (5, WIDTH)}
    return Conditioning(
        **{name: torch.randn(2, *size, generator=rng) for name, size in sizes.items()}
    )


def generate_pictures(
    generator,
    conditioning,
    seeds=(1, 2),
    **sampling,
):
    """Generate small pictures in four steps, with the guidance of Brain-Diffuser."""
    sampling = {"steps": 4, "guidance": 7.5, **sampling}
    return generator.generate(conditioning, seeds, SIDE_PX, Sampling(**sampling))


@pytest.fixture
def dual(golden, home, monkeypatch):
    """Golden tensors, whose weights and noise the generator `vd` has."""
    config, match = read(golden / "havir" / "vd_dual.safetensors")
    vae_config, values = read(golden / "havir" / "latent_target.safetensors")
    states = {
        name: select_prefix(match, f"{name}.") for name in ("image_unet", "text_unet")
    }
    sizes = {name: config[name] for name in states} | {"vae": vae_config["vae"]}
    versatile_diffusion_repository.write(
        home / "vd", {**states, "vae": select_prefix(values, "vae.")}, sizes
    )
    for module in ("pipeline_stable_diffusion", "pipeline_stable_diffusion_img2img"):
        function_name = f"diffusers.pipelines.stable_diffusion.{module}.randn_tensor"
        monkeypatch.setattr(
            function_name,
            lambda shape, generator, **_: match["in.noise"][_list_seeds(generator)],
        )
    return match


def _list_seeds(generators):
    return [generator.initial_seed() for generator in generators]


def get_side_px(golden):
    """Return the side of a picture, which the autoencoder halves."""
    return 2 * golden["in.latent"].shape[-1]


def conditions(golden):
    """Return the conditions from the heads of HAVIR, and the unconditional side."""
    heads = {name: golden[f"in.{name}"] for name in ("latent", "image", "text")}
    null = Conditioning(
        golden["in.image_unconditional"], golden["in.text_unconditional"]
    )
    return priors.load("identity").condition(
        Decoded(heads), range(len(heads["latent"]))
    ), null


@pytest.mark.nightly
def test_image_and_text_tokens_are_mixed_as_in_the_reference(dual):
    """Golden values: a tiny dual-guided U-Net of diffusers."""
    conditioning, _ = conditions(dual)
    mixed = {name: re.fullmatch(r"out\.eps_mix([\d.]+)_t(\d+)", name) for name in dual}
    assert any(mixed.values())
    for name, match in mixed.items():
        if match is not None:
            generator = Config(source="vd", text_share=float(match[1])).build()
            assert_near(
                generator.predict(
                    dual["in.latent"], torch.tensor(int(match[2])), conditioning
                ),
                dual[name],
            )


@pytest.mark.nightly
def test_sampling_gives_the_latents_of_the_reference(dual):
    """Golden values: the loops of Brain-Diffuser and MindEye1."""
    conditioning, null = conditions(dual)
    rows = range(len(conditioning))
    side_px = get_side_px(dual)
    loops = {name: match for name in dual if (match := LOOP.fullmatch(name))}
    assert {loop[1] for loop in loops.values()} == {"ddim", "unipc"}
    for name, loop in loops.items():
        scheduler, steps, strength, text_share, guidance, zeros = loop.groups()
        generator = Config(
            source="vd", text_share=float(text_share), unconditional="zeros"
        ).build()
        numbers = {
            "steps": int(steps),
            "strength": float(strength),
            "guidance": float(guidance),
        }
        sampling = Sampling(scheduler=scheduler, **numbers)
        unconditional = None if zeros else null

        latents = generator.sample(
            Request(
                conditioning, rows, side_px, sampling, unconditional or Conditioning()
            )
        )
        pictures = generator.generate(
            conditioning, rows, side_px, sampling, unconditional
        )
        second = generator.generate(
            conditioning[1:], rows[1:], side_px, sampling, unconditional
        )
        noise_alone = generator.sample(
            Request(
                replace(conditioning, start=None),
                rows,
                side_px,
                sampling,
                unconditional or Conditioning(),
            )
        )

        assert_near(latents, dual[name])
        assert torch.allclose(pictures, generator.decode(dual[name]), atol=TOLERANCE)
        assert torch.allclose(second[0], pictures[1], atol=TOLERANCE)
        assert torch.allclose(noise_alone, latents, atol=TOLERANCE) == (
            sampling.strength == 1
        )


@pytest.mark.nightly
def test_the_steps_from_a_start_are_those_of_the_reference(dual):
    """Golden values: the timesteps after the start, of each scheduler."""
    conditioning, null = conditions(dual)
    generator = Config(source="vd").build()
    times = []
    generator.unet.register_forward_pre_hook(
        lambda _, arguments: times.append(int(arguments[1]))
    )
    loops = [match for name in dual if (match := LOOP.fullmatch(name))]
    loops = [loop for loop in loops if float(loop[3]) < 1]
    assert {loop[1] for loop in loops} == {"ddim", "unipc"}

    for scheduler, steps, strength, *_ in (loop.groups() for loop in loops):
        times.clear()
        sampling = Sampling(
            scheduler=scheduler, steps=int(steps), strength=float(strength), guidance=1
        )
        generator.sample(
            Request(
                conditioning,
                range(len(conditioning)),
                get_side_px(dual),
                sampling,
                null,
            )
        )
        assert times == dual[f"out.{scheduler}_timesteps"].tolist()


def test_the_autoencoder_gives_latents_and_pictures_as_published(dual, golden):
    """Golden values: a tiny AutoencoderKL, without clamping."""
    _, expected = read(golden / "havir" / "latent_target.safetensors")
    generator = Config(source="vd").build()

    assert_near(generator.encode(expected["in.image"]), expected["out.latent"])
    assert_near(
        generator.decode(expected["out.latent"]), expected["out.image"].clamp(0, 1)
    )


@pytest.mark.nightly
def test_weights_are_converted_once_and_then_no_longer_needed(
    folder, conditioning, monkeypatch, capsys
):
    def interrupted(*_):
        raise KeyboardInterrupt

    config = Config(source=str(folder))
    models = folder.parent / "models"
    with monkeypatch.context() as patch:
        patch.setattr(versatile_diffusion.clip, "load_tower", interrupted)
        with pytest.raises(KeyboardInterrupt):
            config.build()
    assert not [path for path in models.iterdir() if path.name[0] != "."]

    capsys.readouterr()
    first_pictures = generate_pictures(config.build(), conditioning)
    messages = capsys.readouterr().err
    second_pictures = generate_pictures(config.build(), conditioning)

    assert messages.count("converted once") == 1
    assert not capsys.readouterr().err
    assert torch.equal(first_pictures, second_pictures)
    (converted_folder,) = models.iterdir()
    shutil.rmtree(folder)
    generator = Config(source=str(converted_folder)).build()
    assert torch.equal(generate_pictures(generator, conditioning), first_pictures)
    with pytest.raises(MissingData, match=r"(?m)tokenizer$"):
        generate_pictures(generator, Conditioning(texts=["a dog", "a cat"]))


def test_an_absent_file_of_a_component_is_named(folder):
    config = Config(source=str(folder))
    for absent in (
        "text_unet/diffusion_pytorch_model.bin",
        "vae/config.json",
        "tokenizer",
    ):
        (folder / absent).rename(folder / "away")
        for method in (config.check, config.build):
            with pytest.raises(MissingData, match=absent):
                method()
        (folder / "away").rename(folder / absent)
    file = folder / "image_unet/diffusion_pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(MissingData, match=file.name):
        config.build()


def test_the_published_size_takes_what_the_facts_say():
    unet, vae = Config(source="random").build("meta", torch.float16).networks
    millions = [round(count_bytes(network) / 2 / 1e6) for network in (unet, vae)]
    # 860 of the image U-Net and 267 of the text U-Net's attentions
    assert millions == [1127, 84]
