"""Tests of sampling steps and media of all generators, by recorded numbers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.models.generators import (
    SCHEDULERS,
    Sampling,
    _components,
    _denoising,
    _latent_diffusion as latent,
    animatediff,
    autoencoder,
    chain,
    sdxl,
    sdxl_unclip,
    versatile_diffusion,
)
from brainhive_cli.models.heads import Conditioning, Decoded
from tests.tools.network_digests import digest

pytestmark = pytest.mark.usefixtures("doubles")
PX, SEEDS = 32, [4, 1]


def draw_normal(*shape: int, seed: int = 7) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def test_noise(recorded) -> None:
    cpu = torch.device("cpu")
    alone = [torch.Generator().manual_seed(seed) for seed in (3, 5, 3)]
    one = torch.Generator().manual_seed(3)
    recorded(
        6,
        rows=digest(_denoising.draw_noise(alone, (3, 2, 4, 4), 1000, cpu)),
        again=digest(_denoising.draw_noise(alone, (3, 2, 4, 4), 50, cpu)),
        together=digest(_denoising.draw_noise(one, (3, 2, 4, 4), 1000, cpu)),
    )


@pytest.mark.parametrize("name", [None, *SCHEDULERS])
def test_steps(recorded, name: Any) -> None:
    # UniPC solves in single precision
    digits = 3 if name == "unipc" else 4
    torch.set_default_dtype(torch.float32 if digits == 3 else torch.float64)
    config = animatediff.ARCHITECTURE["scheduler"]
    config = {**config, "_class_name": "EulerDiscreteScheduler"}
    scheduler = _components.make_scheduler(config, "here")
    noise = draw_normal(2, 3, 4, 4).to(torch.get_default_dtype())
    numbers: dict[str, Any] = {}
    for case, start, options in (
        ("noise", False, {"steps": 4, "guidance": 3.0}),
        ("start", True, {"steps": 5, "strength": 0.7, "guidance": 1.5}),
        ("whole", True, {"steps": 3, "strength": 1.0, "guidance": 1.0}),
        ("none", True, {"steps": 3, "strength": 0.0}),
    ):
        calls: list[Any] = []

        def predict(rows: Tensor, time: Tensor, calls: list[Any] = calls) -> Tensor:
            calls.append([float(time), *digest(rows)])
            return (rows * torch.linspace(0.2, 0.9, len(rows)).view(-1, 1, 1, 1)).sin()

        rng = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        times = [900, 500, 20, 3] if name is None and case == "noise" else []
        media = _denoising.denoise(
            scheduler,
            Sampling(scheduler=name, **options),
            noise,
            draw_normal(2, 3, 4, 4, seed=8).to(noise) if start else None,
            predict,
            rng,
            calls.append,
            times,
        )
        numbers[case] = {"steps": calls, "made": digest(media)}
    recorded(digits, **numbers)


@pytest.mark.parametrize(
    ("steps", "strength", "count"),
    [(4, 0.75, 3), (4, 0.74, 2), (5, 1.0, 5), (1, 1.0, 1), (10, 0.1, 1), (3, 0.3, 0)],
)
def test_a_share_of_the_steps_is_done(steps: int, strength: float, count: int) -> None:
    sampling = Sampling(steps=steps, strength=strength)
    if count:
        assert _denoising.count_steps(sampling) == count
    else:
        with pytest.raises(RecipeError):
            _denoising.count_steps(sampling)


def test_frames_masks_and_sizes(recorded) -> None:
    frames, pictures = draw_normal(2, 3, 1, 4), draw_normal(2, 3, 9, 7).sigmoid()
    masks = draw_normal(2, 3, 1, 9, 12)
    recorded(
        5,
        frames=digest(
            [animatediff.interpolate_frames(frames, n) for n in (1, 2, 3, 5, 8)]
        ),
        rounded=digest([animatediff.interpolate_frames(frames, n, 2) for n in (5, 8)]),
        one=digest(animatediff.interpolate_frames(frames[:, :1], 3)),
        masks=digest([latent.compute_mask_weights(masks, side) for side in (1, 3, 5)]),
        still=digest(latent.compute_mask_weights(masks[:, 0], 4)),
        sizes=digest(
            [
                *(latent.resize(pictures, side) for side in (3, 16)),
                *(latent.resize(pictures, side, "bilinear") for side in (3, 16)),
            ]
        ),
    )


CONDITIONS = {
    "texts": draw_normal(2, 6, 16, seed=1),
    "embeddings": draw_normal(2, 4, 16, seed=2),
    "start": draw_normal(2, 4, 8, 8, seed=3),
    "pictures": draw_normal(2, 3, 20, 24, seed=4).sigmoid(),
    "masks": (draw_normal(2, 2, 1, 16, 16, seed=5) > 0).double(),
}
UNCLIP = sdxl_unclip.TINY.model_copy(update={"offset_noise": 0.3})
DUAL = versatile_diffusion.TINY.model_copy(update={"text_share": 0.7})
CASES: dict[str, tuple[Any, dict[str, str], dict[str, Any]]] = {
    "sdxl": (sdxl.TINY, {}, {}),
    "sdxl guided": (
        sdxl.TINY.model_copy(update={"target_px": 64}),
        {"texts": "texts", "embeddings": "embeddings"},
        {"guidance": 1.5, "scheduler": "euler-ancestral"},
    ),
    "sdxl from latents": (sdxl.TINY, {"start": "start"}, {"strength": 0.5}),
    "sdxl from pictures": (sdxl.TINY, {"start": "pictures"}, {"strength": 0.8}),
    "sdxl start alone": (sdxl.TINY, {"start": "pictures"}, {"strength": 0.0}),
    "unclip": (UNCLIP, {}, {}),
    "unclip guided": (
        UNCLIP,
        {"embeddings": "embeddings", "masks": "masks"},
        {"guidance": 1.5},
    ),
    "unclip from latents": (
        sdxl_unclip.TINY,
        {"embeddings": "embeddings", "start": "start"},
        {"strength": 0.5, "guidance": 1.0},
    ),
    "dual": (DUAL, {"texts": "texts", "embeddings": "embeddings"}, {"guidance": 4.0}),
    "dual of images": (
        versatile_diffusion.TINY,
        {"embeddings": "embeddings", "start": "start"},
        {"strength": 0.6},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_latents_and_pictures(recorded, case: str) -> None:
    config, names, options = CASES[case]
    torch.set_default_dtype(torch.float32)
    generator = config.build(dtype=torch.float64)
    torch.set_default_dtype(torch.float64)
    conditioning = Conditioning(
        **{name: CONDITIONS[key] for name, key in names.items()}
    )
    steps: list[int] = []
    request = latent.Request(
        conditioning,
        SEEDS,
        PX,
        Sampling(**{"steps": 4, **options}),
        on_step=steps.append,
    )
    sampled = generator.sample(request)
    other = request._replace(null=Conditioning(CONDITIONS["embeddings"].flip(1)))
    numbers: dict[str, Any] = {"sampled": digest(sampled), "steps": steps}
    if options.get("guidance", 0) > 1:
        numbers["another side"] = digest(generator.sample(other))
    numbers["decoded"] = digest(generator.decode_media(sampled))
    numbers["noisy"] = digest(
        generator.encode(CONDITIONS["pictures"], torch.Generator().manual_seed(2))
    )
    sizes = torch.tensor([[64, 48, 0, 3, 32, 32], [32, 32, 0, 0, 32, 32]]).double()
    free = replace(conditioning, start=None)
    for name, levels in (("drawn", None), ("set", torch.tensor([0.1, 0.95]))):
        rng = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        loss = generator.loss(CONDITIONS["start"], free, rng, sizes, levels)
        numbers[f"loss of levels {name}"] = digest(loss)
    recorded(4, **numbers)


CLIPS = animatediff.TINY.model_copy(update={"frames": 4, "kept": (1, 3)})
FREE = CLIPS.model_copy(update={"sparse_control": None, "mode": "published"})


@pytest.mark.parametrize("config", [CLIPS, FREE], ids=["keyframe", "published"])
def test_clips(recorded, config: Any) -> None:
    torch.set_default_dtype(torch.float32)
    generator = config.build(dtype=torch.float64)
    torch.set_default_dtype(torch.float64)
    conditioning = Conditioning(texts=CONDITIONS["texts"])
    if config is CLIPS:
        images = CONDITIONS["pictures"][:, None].expand(-1, 2, -1, -1, -1)
        conditioning = replace(conditioning, images=images)
    numbers: dict[str, Any] = {}
    start = draw_normal(2, 2, 4, 8, 8)
    for name, more, options in (
        ("noise", {}, {"guidance": 1.5}),
        ("latents", {"start": start}, {"strength": 1.0}),
        ("masked", {"start": start, "masks": CONDITIONS["masks"]}, {"guidance": 1.0}),
        ("picture", {"start": CONDITIONS["pictures"]}, {"strength": 0.6}),
    ):
        steps: list[int] = []
        sampling = Sampling(**{"steps": 3, **options})
        asked = replace(conditioning, **more)
        media = generator.sample(
            latent.Request(asked, SEEDS, PX, sampling, on_step=steps.append)
        )
        numbers[name] = {"sampled": digest(media), "steps": steps}
    numbers["clip"] = digest(generator.decode_media(media))
    rng = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    clips = draw_normal(2, 4, 4, 8, 8)
    loss = generator.loss(clips, conditioning, rng, torch.zeros(2, 6))
    recorded(4, **numbers, loss=digest(loss))


def test_decoders_give_pictures_without_gradients() -> None:
    torch.set_default_dtype(torch.float32)
    decoder, steps = autoencoder.TINY.build(), []
    assert not any(weight.requires_grad for weight in decoder.model.parameters())
    assert not decoder.model.training
    media = decoder.generate(Conditioning(), SEEDS, 9, Sampling(), on_step=steps.append)
    assert media.shape == (2, 3, 9, 9) and steps == [1]
    mean = decoder.generate(
        Conditioning(start=torch.zeros(2, 16)), SEEDS, 9, Sampling()
    )
    assert torch.equal(media, mean)
    maps = draw_normal(2, 4, 2, 2)
    drawn = decoder.generate(Conditioning(start=maps), SEEDS, 9, Sampling())
    assert not torch.equal(drawn, mean)
    for wrong in (Conditioning(start=torch.zeros(2, 15)), Conditioning(texts=["a"])):
        with pytest.raises(BrainhiveError):
            decoder.generate(wrong, SEEDS, 9, Sampling())


def test_networks_leave_the_device_when_others_are_used() -> None:
    networks = [nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1)]
    placement = _components.Placement(networks, torch.device("cpu"))
    assert not any(net.training or net.weight.requires_grad for net in networks)
    # nothing moves before memory is spared
    placement.device = torch.device("meta")
    placement.use(networks[0])
    assert [net.weight.device.type for net in networks] == ["cpu"] * 3
    placement.offload(torch.device("meta"))
    placement.use(networks[0], networks[2])
    assert [net.weight.device.type for net in networks] == ["meta", "cpu", "meta"]


def test_the_decoder_of_blurry_pictures_leaves_the_device() -> None:
    torch.set_default_dtype(torch.float32)
    used: list[tuple[Any, ...]] = []
    vae = sdxl.TINY.build().vae
    placement = _components.Placement((vae,), torch.device("cpu"))
    placement.use = lambda *networks: used.append(networks)  # type: ignore[method-assign]
    decoded = Decoded({"blurry": torch.randn(1, 4, 2, 2)})
    mix = chain.LowLevelMix(share=0.5)
    mix.mix(placement, torch.rand(1, 3, 8, 8), decoded)
    assert used == [(vae,), ()]
    for pictures, heads in (
        (torch.rand(1, 2, 3, 8, 8), decoded),
        (torch.rand(1, 3, 8, 8), None),
        (torch.rand(1, 3, 8, 8), Decoded({"other": torch.rand(1, 4, 2, 2)})),
        (torch.rand(1, 3, 8, 8), Decoded({"blurry": torch.rand(1, 4)})),
    ):
        with pytest.raises(BrainhiveError):
            mix.mix(placement, pictures, heads)


@pytest.mark.parametrize("spares", [False, True])
def test_training_spares_memory_where_it_is_asked_to(spares: bool) -> None:
    generator, compiled = sdxl.TINY.build(), []
    generator.unet.compile = lambda **options: compiled.append(options)
    generator.prepare_training(spares) if spares else generator.prepare_training()
    assert generator.unet.is_gradient_checkpointing is spares
    assert compiled == []
    generator.prepare_training(compiled=True)
    assert compiled == [{"dynamic": False}]
