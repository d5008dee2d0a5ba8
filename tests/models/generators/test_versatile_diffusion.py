"""Versatile Diffusion: the published folder in, pictures by image and text tokens
out.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from brainhive_cli.core.device_memory import count_bytes
from brainhive_cli.core.errors import MissingData
from brainhive_cli.models import priors
from brainhive_cli.models.generators import Sampling, versatile_diffusion
from brainhive_cli.models.generators._latent_diffusion import Request
from brainhive_cli.models.generators.versatile_diffusion import Config
from brainhive_cli.models.heads import Conditioning, Decoded
from tests.repositories import versatile_diffusion_repository
from tests.repositories.versatile_diffusion_repository import NAME, SIDE_PX, WIDTH
from tests.tools.golden_files import assert_near, below, read

TOLERANCE = 1e-4
"""Of the largest value: the golden folder calls it safe."""
Golden = dict[str, Tensor]
LOOP = re.compile(
    r"out\.(ddim|unipc)_(\d+)_steps_strength([\d.]+)_mix([\d.]+)_cfg([\d.]+)(_zeros)?"
)
"""Scheduler, steps, strength, text share, guidance, and whether the unconditional side
is zeros.
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return versatile_diffusion_repository.write(tmp_path_factory.mktemp("vd") / NAME)


@pytest.fixture
def folder(published: Path, home: Path) -> Path:
    """The published folder, to spoil."""
    return Path(shutil.copytree(published, home / "vd"))


@pytest.fixture
def given() -> Conditioning:
    """Two rows of what HAVIR's heads are."""
    random = torch.Generator().manual_seed(1)
    sizes = {"start": (4, 8, 8), "texts": (77, WIDTH), "embeddings": (5, WIDTH)}
    return Conditioning(
        **{
            name: torch.randn(2, *size, generator=random)
            for name, size in sizes.items()
        }
    )


def make(
    generator: Any, given: Conditioning, seeds: Sequence[int] = (1, 2), **sampling: Any
) -> Tensor:
    """Generate small pictures as Brain-Diffuser does, in few steps."""
    asked = {"steps": 4, "guidance": 7.5, **sampling}
    return generator.generate(given, seeds, SIDE_PX, Sampling(**asked))


@pytest.fixture
def dual(golden: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Golden:
    """The reference's weights in a folder `vd` as the hub has it; its noise is drawn by
    row.
    """
    config, found = read(golden / "havir" / "vd_dual.safetensors")
    of_vae, values = read(golden / "havir" / "latent_target.safetensors")
    states = {name: below(found, f"{name}.") for name in ("image_unet", "text_unet")}
    sizes = {name: config[name] for name in states} | {"vae": of_vae["vae"]}
    versatile_diffusion_repository.write(
        home / "vd", {**states, "vae": below(values, "vae.")}, sizes
    )
    for module in ("pipeline_stable_diffusion", "pipeline_stable_diffusion_img2img"):
        drawn = f"diffusers.pipelines.stable_diffusion.{module}.randn_tensor"
        monkeypatch.setattr(
            drawn, lambda shape, generator, **_: found["in.noise"][_rows(generator)]
        )
    return found


def _rows(generators: Sequence[torch.Generator]) -> list[int]:
    return [each.initial_seed() for each in generators]


def side_of(golden: Golden) -> int:
    """Height and width of a picture: the autoencoder halves it once."""
    return 2 * golden["in.latent"].shape[-1]


def conditions(golden: Golden) -> tuple[Conditioning, Conditioning]:
    """What the identity prior makes of the heads of HAVIR, and the unconditional
    side.
    """
    heads = {name: golden[f"in.{name}"] for name in ("latent", "image", "text")}
    null = Conditioning(
        golden["in.image_unconditional"], golden["in.text_unconditional"]
    )
    return priors.load("identity").condition(
        Decoded(heads), range(len(heads["latent"]))
    ), null


@pytest.mark.nightly
def test_image_and_text_tokens_are_mixed_in_each_block_as_in_the_reference(dual):
    """Golden values: Versatile Diffusion's dual-guided U-Net of diffusers, at tiny
    widths.
    """
    given, _ = conditions(dual)
    mixed = {name: re.fullmatch(r"out\.eps_mix([\d.]+)_t(\d+)", name) for name in dual}
    assert any(mixed.values())
    for name, found in mixed.items():
        if found is not None:
            generator = Config(source="vd", text_share=float(found[1])).build()
            assert_near(
                generator.predict(
                    dual["in.latent"], torch.tensor(int(found[2])), given
                ),
                dual[name],
            )


@pytest.mark.nightly
def test_sampling_from_the_decoded_latent_gives_the_latents_of_the_reference(dual):
    """Golden values: Brain-Diffuser's and MindEye1's loops; pictures by the weights of
    a tiny autoencoder.
    """
    given, null = conditions(dual)
    rows, side_px = range(len(given)), side_of(dual)
    loops = {name: found for name in dual if (found := LOOP.fullmatch(name))}
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
        asked, other = Sampling(scheduler=scheduler, **numbers), None if zeros else null

        latents = generator.sample(
            Request(given, rows, side_px, asked, other or Conditioning())
        )
        pictures = generator.generate(given, rows, side_px, asked, other)
        second = generator.generate(given[1:], rows[1:], side_px, asked, other)
        noise_alone = generator.sample(
            Request(
                replace(given, start=None),
                rows,
                side_px,
                asked,
                other or Conditioning(),
            )
        )

        assert_near(latents, dual[name])
        assert torch.allclose(pictures, generator.decode(dual[name]), atol=TOLERANCE)
        assert torch.allclose(second[0], pictures[1], atol=TOLERANCE)
        assert torch.allclose(noise_alone, latents, atol=TOLERANCE) == (
            asked.strength == 1
        )


@pytest.mark.nightly
def test_the_steps_from_a_start_are_those_of_the_reference(dual):
    """Golden values: the timesteps that are left of each scheduler's."""
    given, null = conditions(dual)
    generator = Config(source="vd").build()
    times: list[int] = []
    generator.unet.register_forward_pre_hook(
        lambda _, arguments: times.append(int(arguments[1]))
    )
    loops = [found for name in dual if (found := LOOP.fullmatch(name))]
    loops = [loop for loop in loops if float(loop[3]) < 1]
    assert {loop[1] for loop in loops} == {"ddim", "unipc"}

    for scheduler, steps, strength, *_ in (loop.groups() for loop in loops):
        times.clear()
        asked = Sampling(
            scheduler=scheduler, steps=int(steps), strength=float(strength), guidance=1
        )
        generator.sample(Request(given, range(len(given)), side_of(dual), asked, null))
        assert times == dual[f"out.{scheduler}_timesteps"].tolist()


def test_its_autoencoder_gives_the_references_latents_and_pictures(dual, golden):
    """Golden values: a tiny AutoencoderKL; the reference does not clamp."""
    _, expected = read(golden / "havir" / "latent_target.safetensors")
    generator = Config(source="vd").build()

    assert_near(generator.encode(expected["in.image"]), expected["out.latent"])
    assert_near(
        generator.decode(expected["out.latent"]), expected["out.image"].clamp(0, 1)
    )


@pytest.mark.nightly
def test_weights_are_converted_once_and_then_no_longer_needed(
    folder, given, monkeypatch, capsys
):
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    config, models = Config(source=str(folder)), folder.parent / "models"
    with monkeypatch.context() as patch:
        patch.setattr(versatile_diffusion.clip, "load_tower", interrupted)
        with pytest.raises(KeyboardInterrupt):
            config.build()
    assert not [path for path in models.iterdir() if path.name[0] != "."]

    capsys.readouterr()
    first = make(config.build(), given)
    told = capsys.readouterr().err
    again = make(config.build(), given)

    assert told.count("converted once") == 1 and not capsys.readouterr().err
    assert torch.equal(first, again)
    (kept,) = models.iterdir()
    shutil.rmtree(folder)
    generator = Config(source=str(kept)).build()
    assert torch.equal(make(generator, given), first)
    with pytest.raises(MissingData, match=r"has no tokenizer$"):
        make(generator, Conditioning(texts=["a dog", "a cat"]))


def test_a_folder_without_one_component_is_refused_by_the_name_of_its_file(folder):
    config = Config(source=str(folder))
    for absent in (
        "text_unet/diffusion_pytorch_model.bin",
        "vae/config.json",
        "tokenizer",
    ):
        (folder / absent).rename(folder / "away")
        for ask in (config.check, config.build):
            with pytest.raises(MissingData, match=f"has no {absent}"):
                ask()
        (folder / "away").rename(folder / absent)
    file = folder / "image_unet/diffusion_pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(MissingData, match="damaged or half-downloaded"):
        config.build()


def test_the_published_size_takes_what_the_facts_say() -> None:
    unet, vae = Config(source="random").build("meta", torch.float16).networks
    millions = [round(count_bytes(network) / 2 / 1e6) for network in (unet, vae)]
    # 860 of the image U-Net and 267 of the text U-Net's attentions
    assert millions == [1127, 84]
