"""Versatile Diffusion: the published folder in, pictures by image and text tokens out."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import versatile_repository
from hub_server import serving
from safetensors import safe_open
from torch import Tensor
from versatile_repository import NAME, SIDE_PX, WIDTH

from brainhive_cli.core.device_memory import size_of
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.inputs import require
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import demo
from brainhive_cli.models import priors
from brainhive_cli.models.generators import Sampling, versatile_diffusion
from brainhive_cli.models.generators._latent_diffusion import Request
from brainhive_cli.models.generators.versatile_diffusion import TINY, Config
from brainhive_cli.models.heads import Conditioning, Decoded

TOLERANCE = 1e-4
"""Of the largest value: the golden folder calls it safe."""
DOCS = Path(__file__).parents[3] / "docs/recipes.md"
HALF = 0.05
"""Of pictures, by weights in half precision."""
Golden = dict[str, Tensor]
LOOP = re.compile(r"out\.(ddim|unipc)_(\d+)_steps_strength([\d.]+)_mix([\d.]+)_cfg([\d.]+)(_zeros)?")
"""Scheduler, steps, strength, text share, guidance, and whether the unconditional side is zeros."""


def read(path: Path) -> tuple[dict[str, Any], Golden]:
    with safe_open(path, "pt") as file:
        config: dict[str, Any] = json.loads(file.metadata()["config"])
        return config, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def below(golden: Golden, prefix: str) -> Golden:
    return {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()  # which may be 0


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return versatile_repository.write(tmp_path_factory.mktemp("vd") / NAME)


@pytest.fixture
def folder(published: Path, home: Path) -> Path:
    """The published folder, to spoil."""
    return Path(shutil.copytree(published, home / "vd"))


@pytest.fixture
def given() -> Conditioning:
    """Two rows of what HAVIR's heads are."""
    random = torch.Generator().manual_seed(1)
    sizes = {"start": (4, 8, 8), "texts": (77, WIDTH), "embeddings": (5, WIDTH)}
    return Conditioning(**{name: torch.randn(2, *size, generator=random) for name, size in sizes.items()})


def make(generator: Any, given: Conditioning, seeds: Sequence[int] = (1, 2), **sampling: Any) -> Tensor:
    """Generate small pictures as Brain-Diffuser does, in few steps."""
    asked = {"steps": 4, "guidance": 7.5, **sampling}
    return generator.generate(given, seeds, SIDE_PX, Sampling(**asked))


@pytest.fixture
def dual(golden: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Golden:
    """The reference's weights in a folder `vd` as the hub has it; its noise is drawn by row."""
    config, found = read(golden / "havir" / "vd_dual.safetensors")
    of_vae, values = read(golden / "havir" / "latent_target.safetensors")
    states = {name: below(found, f"{name}.") for name in ("image_unet", "text_unet")}
    sizes = {name: config[name] for name in states} | {"vae": of_vae["vae"]}
    versatile_repository.write(home / "vd", {**states, "vae": below(values, "vae.")}, sizes)
    for module in ("pipeline_stable_diffusion", "pipeline_stable_diffusion_img2img"):
        drawn = f"diffusers.pipelines.stable_diffusion.{module}.randn_tensor"
        monkeypatch.setattr(drawn, lambda shape, generator, **_: found["in.noise"][_rows(generator)])
    return found


def _rows(generators: Sequence[torch.Generator]) -> list[int]:
    return [each.initial_seed() for each in generators]


def side_of(golden: Golden) -> int:
    """Height and width of a picture: the autoencoder halves it once."""
    return 2 * golden["in.latent"].shape[-1]


def conditions(golden: Golden) -> tuple[Conditioning, Conditioning]:
    """What the identity prior makes of the heads of HAVIR, and the unconditional side."""
    heads = {name: golden[f"in.{name}"] for name in ("latent", "image", "text")}
    null = Conditioning(golden["in.image_unconditional"], golden["in.text_unconditional"])
    return priors.load("identity").condition(Decoded(heads), range(len(heads["latent"]))), null


def test_image_and_text_tokens_are_mixed_in_each_block_as_in_the_reference(dual):
    """Golden values: Versatile Diffusion's dual-guided U-Net of diffusers, at tiny widths."""
    given, _ = conditions(dual)
    mixed = {name: re.fullmatch(r"out\.eps_mix([\d.]+)_t(\d+)", name) for name in dual}
    assert any(mixed.values())
    for name, found in mixed.items():
        if found is not None:
            generator = Config(source="vd", text_share=float(found[1])).build()
            assert_near(generator.predict(dual["in.latent"], torch.tensor(int(found[2])), given), dual[name])


@pytest.mark.parametrize("scheduler", ["ddim", "unipc"])
def test_sampling_from_the_decoded_latent_gives_the_references_latents_and_their_pictures(dual, scheduler):
    """Golden values: Brain-Diffuser's and MindEye1's loops; pictures by the weights of a tiny autoencoder."""
    given, null = conditions(dual)
    rows, side_px = range(len(given)), side_of(dual)
    loops = {name: found for name in dual if (found := LOOP.fullmatch(name)) and found[1] == scheduler}
    assert loops
    for name, loop in loops.items():
        _, steps, strength, text_share, guidance, zeros = loop.groups()
        config = Config(source="vd", text_share=float(text_share), unconditional="zeros")
        generator = config.build()
        numbers = {"steps": int(steps), "strength": float(strength), "guidance": float(guidance)}
        asked, other = Sampling(scheduler=scheduler, **numbers), None if zeros else null

        latents = generator.sample(Request(given, rows, side_px, asked, other or Conditioning()))
        pictures = generator.generate(given, rows, side_px, asked, other)
        second = generator.generate(given[1:], rows[1:], side_px, asked, other)
        noise_alone = generator.sample(
            Request(replace(given, start=None), rows, side_px, asked, other or Conditioning())
        )

        assert_near(latents, dual[name])
        assert torch.allclose(pictures, generator.decode(dual[name]), atol=TOLERANCE)
        assert torch.allclose(second[0], pictures[1], atol=TOLERANCE)
        assert torch.allclose(noise_alone, latents, atol=TOLERANCE) == (asked.strength == 1)


def test_its_autoencoder_gives_the_references_latents_and_pictures(dual, golden):
    """Golden values: a tiny AutoencoderKL; the reference does not clamp."""
    _, expected = read(golden / "havir" / "latent_target.safetensors")
    generator = Config(source="vd").build()

    assert_near(generator.encode(expected["in.image"]), expected["out.latent"])
    assert_near(generator.decode(expected["out.latent"]), expected["out.image"].clamp(0, 1))


def test_the_weights_are_converted_once_and_then_no_longer_needed(folder, given, capsys):
    first = make(Config(source=str(folder)).build(), given)
    told = capsys.readouterr().err
    again = make(Config(source=str(folder)).build(), given)

    assert told.count("converted once") == 1 and not capsys.readouterr().err
    assert torch.equal(first, again)
    (kept,) = (folder.parent / "models").glob("*")
    shutil.rmtree(folder)
    assert torch.equal(make(Config(source=str(kept)).build(), given), first)


def test_an_interrupted_conversion_leaves_nothing_that_is_taken_for_whole(folder, given, monkeypatch):
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(versatile_diffusion.clip, "tower_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Config(source=str(folder)).build()
    assert not [path for path in (folder.parent / "models").iterdir() if path.name[0] != "."]
    monkeypatch.undo()
    monkeypatch.chdir(folder.parent)

    assert make(Config(source=str(folder)).build(), given).isfinite().all()
    assert [path.name[0] for path in (folder.parent / "models").iterdir()] == ["v"]


def test_the_hub_is_asked_for_configs_alone_once_the_weights_are_converted(published, home, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    with serving(published.parents[1]) as hub:
        hub.lead(monkeypatch)
        config = Config(source=f"hub:{NAME}")
        config.check()
        listed = config.inputs()
        assert not [path for path in hub.fetched if path.endswith(".bin")]
        config.build()
        fetched = [path.removeprefix(f"{NAME}/") for path in hub.fetched if path.endswith((".bin", ".pth"))]
        shutil.rmtree(home / "hub")
        hub.fetched.clear()
        config.build()
        after = config.inputs()

    sizes = {file: (published / file).stat().st_size for file in versatile_diffusion.FILES}
    assert {one.name.removeprefix(f"{NAME}/"): one.size for one in listed} == sizes
    assert {one.state for one in listed} == {"to download"} and after == []
    assert sorted(fetched) == sorted(versatile_diffusion.FILES)
    assert not [path for path in hub.fetched if path.endswith(".bin")]


@pytest.mark.parametrize(
    "absent", [*versatile_diffusion.FILES, "vae/config.json", "scheduler/scheduler_config.json"]
)
def test_a_folder_without_one_component_is_refused_by_the_name_of_its_file(folder, absent):
    (folder / absent).unlink()
    for ask in (Config(source=str(folder)).check, Config(source=str(folder)).build):
        with pytest.raises(MissingData, match=f"has no {absent}"):
            ask()


@pytest.mark.parametrize("absent", ["tokenizer", "image_feature_extractor"])
def test_a_folder_without_what_prepares_texts_or_pictures_is_refused_by_its_name(folder, absent):
    shutil.rmtree(folder / absent)
    for ask in (Config(source=str(folder)).check, Config(source=str(folder)).build):
        with pytest.raises(MissingData, match=f"has no {absent}$"):
            ask()


def test_a_converted_folder_without_a_tokenizer_takes_no_prompts(folder, given):
    Config(source=str(folder)).build()
    (kept,) = (folder.parent / "models").glob("*")

    with pytest.raises(MissingData, match=r"has no tokenizer$"):
        make(Config(source=str(kept)).build(), Conditioning(texts=["a dog", "a cat"]))


def test_the_docs_make_pictures_of_captions(folder, home):
    """Where its GPU, its sizes and NSD are replaced by small ones."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    for large, small in (
        ("published import nsd", "datasets import demo as nsd"),
        ("nsd.Pictures()", "nsd.Config(concepts=2)"),
        ("text_share=1", f"text_share=1, source={str(folder)!r}"),
        ('"cuda", torch.float16', ""),
        ("dataset.splits", '["train"]'),
        (" 512,", f" {SIDE_PX},"),
        ("steps=50", "steps=2"),
    ):
        assert code.count(large) == 1
        code = code.replace(large, small)

    def run() -> dict[str, int]:
        exec(compile(code, str(DOCS), "exec"), {})
        return {path.name: path.stat().st_mtime_ns for path in (home / "data/caption_images").rglob("*.png")}

    first = run()
    assert len(first) == len(demo.Config(concepts=2).build(Paths()).images("train"))
    assert run() == first  # what is there is not made again


def test_a_hub_without_one_component_is_refused_before_anything_large_is_fetched(
    published, home, monkeypatch
):
    root = Path(shutil.copytree(published.parents[1], home / "other"))
    (root / NAME / "text_unet/diffusion_pytorch_model.bin").unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    with serving(root) as hub:
        hub.lead(monkeypatch)
        with pytest.raises(MissingData, match=r"has no text_unet/diffusion_pytorch_model.bin"):
            require(Config(source=f"hub:{NAME}").inputs())
        with pytest.raises(MissingData, match=r"has no text_unet/diffusion_pytorch_model.bin"):
            Config(source=f"hub:{NAME}").build()


def test_half_a_pickle_and_a_pickle_with_code_are_refused(folder):
    file = folder / "image_unet/diffusion_pytorch_model.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MissingData, match="damaged or half-downloaded"):
        Config(source=str(folder)).build()
    torch.save({"conv_in.weight": Sampling()}, file)
    with pytest.raises(MissingData, match="no code of a file is run"):
        Config(source=str(folder)).build()


def test_each_condition_changes_the_picture_as_far_as_the_text_share_lets_it(folder, given):
    other = given[[1, 0]]

    def differs(text_share: float, name: str) -> bool:
        generator = Config(source=str(folder), text_share=text_share).build()
        changed = replace(given, **{name: getattr(other, name)})
        return not torch.allclose(make(generator, given), make(generator, changed), atol=TOLERANCE)

    assert [differs(share, "texts") for share in (0, 0.4, 1)] == [False, True, True]
    assert [differs(share, "embeddings") for share in (0, 0.4, 1)] == [True, True, False]


def test_a_picture_depends_on_its_row_and_seed_and_not_on_the_batch(folder, given):
    generator = Config(source=str(folder)).build()
    for scheduler in ("ddim", "euler-ancestral"):  # the latter draws noise at each step
        both = make(generator, given, scheduler=scheduler)
        alone = make(generator, given[1:], [2], scheduler=scheduler)
        assert torch.allclose(both[1], alone[0], atol=TOLERANCE)
        assert not torch.allclose(both[1], make(generator, given[1:], [3], scheduler=scheduler)[0], atol=0.01)


def test_the_strength_goes_from_the_start_itself_to_noise_alone(folder, given):
    generator = Config(source=str(folder)).build()
    known = generator.decode(given.start)

    distances = [float((make(generator, given, strength=s) - known).abs().mean()) for s in (0, 0.25, 1)]
    noise = make(generator, replace(given, start=None))

    assert distances[0] == 0 < distances[1] < distances[2]
    assert torch.equal(make(generator, given, strength=1.0), noise)


def test_pictures_and_prompts_are_encoded_where_there_are_no_latents_and_tokens(folder, given):
    generator = Config(source=str(folder)).build()
    pictures = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(3))
    both = replace(given, start=pictures, texts=["a b", "b"])

    found = make(generator, both)

    assert torch.allclose(found[1], make(generator, both[1:], [2])[0], atol=TOLERANCE)
    assert not torch.allclose(found, make(generator, replace(both, texts=["b", "b"])), atol=TOLERANCE)
    prompted = make(generator, replace(both, texts=None), prompt="b")
    assert torch.allclose(prompted[1], found[1], atol=TOLERANCE)
    assert not torch.allclose(prompted, make(generator, replace(both, texts=None)), atol=TOLERANCE)
    moved = make(generator, both, negative_prompt="a")
    assert not torch.allclose(found, moved, atol=TOLERANCE)


def test_guidance_moves_away_from_the_encoded_or_from_zeros(folder, given):
    by = {kind: Config(source=str(folder), unconditional=kind).build() for kind in ("encoded", "zeros")}
    encoded, zeros = (make(each, given) for each in by.values())
    assert not torch.allclose(encoded, zeros, atol=TOLERANCE)
    assert torch.equal(*(make(each, given, guidance=1.0) for each in by.values()))

    nothing = Conditioning(torch.zeros(2, 5, WIDTH), torch.zeros(2, 77, WIDTH))
    assert torch.allclose(
        make(by["zeros"], nothing), make(by["zeros"], nothing, guidance=1.0), atol=TOLERANCE
    )


def test_wrong_conditions_are_refused(folder, given):
    generator = Config(source=str(folder)).build()
    with pytest.raises(BrainhiveError, match=r"takes text tokens \[B, S, 12\], not \[2, 77, 13\]"):
        make(generator, replace(given, texts=torch.zeros(2, 77, 13)))
    with pytest.raises(
        BrainhiveError, match=r"the image tokens are \[2, 4, 12\], the unconditional ones \[2, 5, 12\]"
    ):
        make(generator, replace(given, embeddings=torch.zeros(2, 4, WIDTH)))
    with pytest.raises(BrainhiveError, match=r"latents to start from are \[4, 4, 4\]"):
        make(generator, replace(given, start=torch.zeros(2, 4, 4, 4)))
    with pytest.raises(BrainhiveError, match="takes no condition images"):
        make(generator, replace(given, images=torch.zeros(2, 3, 8, 8)))
    with pytest.raises(BrainhiveError, match="3 seeds need a conditioning of 3 rows; got 2"):
        make(generator, given, [1, 2, 3])
    with pytest.raises(BrainhiveError, match="prompt has no effect"):
        make(generator, given, prompt="a")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept_apart_and_gives_nearly_the_same_pictures(folder, given, dtype):
    whole = make(Config(source=str(folder)).build(), given, guidance=3.5)
    generator = Config(source=str(folder)).build(dtype=dtype)

    half = make(generator, given, guidance=3.5)

    assert {network.dtype for network in generator.networks} == {dtype} and half.dtype == torch.float32
    assert 0 < (half - whole).abs().mean() < HALF
    assert len(list((folder.parent / "models").iterdir())) == 2


def test_tiles_are_decoded_to_the_same_pictures(folder, given):
    config = Config(source=str(folder))
    generator = config.build()
    plain = make(generator, given)
    generator.spare_memory(tile=True)
    assert torch.allclose(make(generator, given), plain, atol=TOLERANCE)


def test_the_published_size_takes_what_the_facts_say() -> None:
    unet, vae = Config(source="random").build("meta", torch.float16).networks
    millions = [round(size_of(network) / 2 / 1e6) for network in (unet, vae)]
    assert millions == [1127, 84]  # 860 of the image U-Net and 267 of the text U-Net's attentions


def test_the_loss_is_smallest_for_the_noise_that_was_added(given):
    generator = TINY.build()
    latents, sizes = torch.randn(2, 4, 8, 8), torch.zeros(2, 6)
    tokens = replace(given, embeddings=torch.randn(2, 3, 16), texts=torch.randn(2, 2, 16), start=None)
    first, second, other = (
        generator.loss(latents, tokens, torch.Generator().manual_seed(seed), sizes) for seed in (0, 0, 1)
    )
    assert first == second != other and first > 0
