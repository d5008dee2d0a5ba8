"""Tests of sampling steps and media of all generators, by recorded numbers."""

from dataclasses import replace

import pytest
import torch
from torch import nn

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
from tests.worlds.number_rows import weighted_means

pytestmark = pytest.mark.usefixtures("doubles")
PX = 32
SEEDS = [4, 1]


def draw_normal(*shape, seed=7):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def test_noise(recorded):
    cpu = torch.device("cpu")
    rngs_of_rows = [torch.Generator().manual_seed(seed) for seed in (3, 5, 3)]
    rng_of_batch = torch.Generator().manual_seed(3)
    shape = (3, 2, 4, 4)

    noise_of_rows = _denoising.draw_noise(rngs_of_rows, shape, 1000, cpu)
    second = _denoising.draw_noise(rngs_of_rows, shape, 50, cpu)
    noise_of_batch = _denoising.draw_noise(rng_of_batch, shape, 1000, cpu)

    recorded(6, noise_and_times=weighted_means([noise_of_rows, second, noise_of_batch]))


STEPS = {
    "noise": ("noise", {"steps": 4, "guidance": 3.0}),
    "start": ("start", {"steps": 5, "strength": 0.7, "guidance": 1.5}),
    "whole": ("start", {"steps": 3, "strength": 1.0, "guidance": 1.0}),
    "none": ("start", {"steps": 3, "strength": 0.0}),
}
"""Latents that sampling starts from, and options of the sampling."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_steps(recorded, dtype):
    torch.set_default_dtype(dtype)
    # UniPC solves in single precision
    if dtype == torch.float32:
        names = ["unipc"]
        digits = 3
    else:
        names = [None] + [name for name in SCHEDULERS if name != "unipc"]
        digits = 4
    config = animatediff.ARCHITECTURE["scheduler"]
    config = {**config, "_class_name": "EulerDiscreteScheduler"}
    rows = {}
    for name in names:
        torch.manual_seed(0)
        scheduler = _components.make_scheduler(config, "here")
        noise = draw_normal(2, 3, 4, 4).to(dtype)
        start = draw_normal(2, 3, 4, 4, seed=8).to(dtype)
        for case, (start_name, options) in STEPS.items():
            steps = []

            def predict(latents, time, steps=steps):
                steps += [float(time)] + weighted_means(latents)
                scales = torch.linspace(0.2, 0.9, len(latents)).view(-1, 1, 1, 1)
                return (latents * scales).sin()

            media = _denoising.denoise(
                scheduler,
                Sampling(scheduler=name, **options),
                noise,
                start if start_name == "start" else None,
                predict,
                [torch.Generator().manual_seed(seed) for seed in SEEDS],
                steps.append,
                [900, 500, 20, 3] if name is None and case == "noise" else [],
            )
            rows[f"{name} {case}"] = weighted_means(media) + steps
    recorded(digits, **rows)


@pytest.mark.parametrize(
    ("steps", "strength", "count"),
    [(4, 0.75, 3), (4, 0.74, 2), (5, 1.0, 5), (1, 1.0, 1), (10, 0.1, 1), (3, 0.3, 0)],
)
def test_a_share_of_the_steps_is_done(steps, strength, count):
    sampling = Sampling(steps=steps, strength=strength)
    if count:
        assert _denoising.count_steps(sampling) == count
    else:
        with pytest.raises(RecipeError):
            _denoising.count_steps(sampling)


def test_frames_masks_and_sizes(recorded):
    frames = draw_normal(2, 3, 1, 4)
    pictures = draw_normal(2, 3, 9, 7).sigmoid()
    masks = draw_normal(2, 3, 1, 9, 12)
    interpolated = [animatediff.interpolate_frames(frames, n) for n in (1, 2, 3, 5, 8)]
    rounded = [animatediff.interpolate_frames(frames, n, 2) for n in (5, 8)]
    repeated = animatediff.interpolate_frames(frames[:, :1], 3)
    weights = [latent.compute_mask_weights(masks, side_px) for side_px in (1, 3, 5)]
    weights_of_still = latent.compute_mask_weights(masks[:, 0], 4)
    resized = [latent.resize(pictures, side_px) for side_px in (3, 16)]
    resized += [latent.resize(pictures, side_px, "bilinear") for side_px in (3, 16)]

    recorded(
        5,
        frames=weighted_means([interpolated, rounded, repeated]),
        masks=weighted_means([weights, weights_of_still]),
        sizes=weighted_means(resized),
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
CASES = {
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


def test_latents_and_pictures(recorded):
    sizes = torch.tensor([[64, 48, 0, 3, 32, 32], [32, 32, 0, 0, 32, 32]]).double()
    rows = {}
    for case, (config, names, options) in CASES.items():
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float32)
        generator = config.build(dtype=torch.float64)
        torch.set_default_dtype(torch.float64)
        conditions = {name: CONDITIONS[key] for name, key in names.items()}
        conditioning = Conditioning(**conditions)
        steps = []
        sampling = Sampling(**{"steps": 4, **options})
        request = latent.Request(
            conditioning, SEEDS, PX, sampling, on_step=steps.append
        )

        sampled = generator.sample(request)
        tensors = [sampled]
        n_steps = len(steps)
        if options.get("guidance", 0) > 1:
            null = Conditioning(CONDITIONS["embeddings"].flip(1))
            tensors.append(generator.sample(request._replace(null=null)))
        tensors.append(generator.decode_media(sampled))
        rng = torch.Generator().manual_seed(2)
        tensors.append(generator.encode(CONDITIONS["pictures"], rng))
        without_start = replace(conditioning, start=None)
        for levels in (None, torch.tensor([0.1, 0.95])):
            rngs = [torch.Generator().manual_seed(seed) for seed in SEEDS]
            tensors.append(
                generator.loss(CONDITIONS["start"], without_start, rngs, sizes, levels)
            )
        rows[case] = [n_steps] + weighted_means(tensors)
    recorded(4, **rows)


CLIPS = animatediff.TINY.model_copy(update={"frames": 4, "kept": (1, 3)})
FREE = CLIPS.model_copy(update={"sparse_control": None, "mode": "published"})


def test_clips(recorded):
    start = draw_normal(2, 2, 4, 8, 8)
    images = CONDITIONS["pictures"][:, None].expand(-1, 2, -1, -1, -1)
    clips = draw_normal(2, 4, 4, 8, 8)
    cases = {
        "noise": ({}, {"guidance": 1.5}),
        "latents": ({"start": start}, {"strength": 1.0}),
        "masked": ({"start": start, "masks": CONDITIONS["masks"]}, {"guidance": 1.0}),
        "picture": ({"start": CONDITIONS["pictures"]}, {"strength": 0.6}),
    }
    rows = {}
    for mode, config in {"keyframe": CLIPS, "published": FREE}.items():
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float32)
        generator = config.build(dtype=torch.float64)
        torch.set_default_dtype(torch.float64)
        conditioning = Conditioning(texts=CONDITIONS["texts"])
        if mode == "keyframe":
            conditioning = replace(conditioning, images=images)
        row = []
        for more_conditions, options in cases.values():
            steps = []
            sampling = Sampling(**{"steps": 3, **options})
            all_conditions = replace(conditioning, **more_conditions)
            request = latent.Request(
                all_conditions, SEEDS, PX, sampling, on_step=steps.append
            )
            media = generator.sample(request)
            row += weighted_means(media) + steps
        rngs = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        loss = generator.loss(clips, conditioning, rngs, torch.zeros(2, 6))
        rows[mode] = row + weighted_means([generator.decode_media(media), loss])
    recorded(4, **rows)


def test_decoders_give_pictures_without_gradients():
    torch.set_default_dtype(torch.float32)
    decoder = autoencoder.TINY.build()
    steps = []
    assert not any(weight.requires_grad for weight in decoder.model.parameters())
    assert not decoder.model.training
    media = decoder.generate(Conditioning(), SEEDS, 9, Sampling(), on_step=steps.append)
    assert media.shape == (2, 3, 9, 9)
    assert steps == [1]
    mean = decoder.generate(
        Conditioning(start=torch.zeros(2, 16)), SEEDS, 9, Sampling()
    )
    assert torch.equal(media, mean)
    maps = draw_normal(2, 4, 2, 2)
    pictures_of_maps = decoder.generate(Conditioning(start=maps), SEEDS, 9, Sampling())
    assert not torch.equal(pictures_of_maps, mean)
    for wrong_conditions in (
        Conditioning(start=torch.zeros(2, 15)),
        Conditioning(texts=["a"]),
    ):
        with pytest.raises(BrainhiveError):
            decoder.generate(wrong_conditions, SEEDS, 9, Sampling())


def test_networks_leave_the_device_when_others_are_used():
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


def test_only_pictures_are_mixed_with_blurry_pictures():
    torch.set_default_dtype(torch.float32)
    vae = sdxl.TINY.build().vae
    placement = _components.Placement((vae,), torch.device("cpu"))
    mix = chain.LowLevelMix(share=0.5)
    picture = torch.rand(1, 3, 8, 8)
    clip = torch.rand(1, 2, 3, 8, 8)
    blurry = Decoded({"blurry": torch.randn(1, 4, 2, 2)})
    other_head = Decoded({"other": torch.rand(1, 4, 2, 2)})
    vector = Decoded({"blurry": torch.rand(1, 4)})

    assert mix.mix(placement, picture, blurry).shape == (1, 3, 256, 256)
    for media, decoded in (
        (clip, blurry),
        (picture, None),
        (picture, other_head),
        (picture, vector),
    ):
        with pytest.raises(BrainhiveError):
            mix.mix(placement, media, decoded)


@pytest.mark.parametrize("spares", [False, True])
def test_training_spares_memory_where_it_is_asked_to(spares):
    generator = sdxl.TINY.build()
    compiled = []
    generator.unet.compile = lambda **options: compiled.append(options)
    generator.prepare_training(spares) if spares else generator.prepare_training()
    assert generator.unet.is_gradient_checkpointing is spares
    assert compiled == []
    generator.prepare_training(compiled=True)
    assert compiled == [{"dynamic": False}]
