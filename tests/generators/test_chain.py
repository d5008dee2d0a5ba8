"""A chain of generators: media handed on, each stage with its own prior, sampling and noise."""

from dataclasses import replace

import pytest
import torch

from brainhive_cli import priors
from brainhive_cli.core import parts
from brainhive_cli.core.conditioning import Conditioning
from brainhive_cli.core.decoded import Decoded
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.generators import Sampling, chain, sdxl
from brainhive_cli.generators.chain import TINY, Config, Stage
from brainhive_cli.priors import fusion_prior

SAME_PICTURE = 1e-4
PX, SAMPLING = 32, Sampling(steps=4)


def test_the_second_stage_starts_from_the_media_of_the_first_with_noise_of_its_own():
    one = sdxl.TINY.build()
    first = one.generate(Conditioning(), [3, 4], PX, SAMPLING)
    noise = [derive_seed(seed, 1) for seed in (3, 4)]
    wanted = one.generate(Conditioning(start=first), noise, PX, Sampling(steps=2, strength=0.5))

    made = TINY.build().generate(Conditioning(), [3, 4], PX, SAMPLING)
    alone = TINY.build().generate(Conditioning(), [4], PX, SAMPLING)

    assert torch.allclose(made, wanted, atol=SAME_PICTURE)
    assert torch.allclose(made[1], alone[0], atol=SAME_PICTURE)
    assert not torch.allclose(made, first, atol=10 * SAME_PICTURE)


def test_a_stage_with_a_prior_conditions_on_the_decoded_heads(tmp_path):
    torch.manual_seed(0)
    prior = fusion_prior.TINY.build({"vae": 8}, sdxl.TINY.build())
    with torch.no_grad():
        for weight in prior.attn_adapter.parameters():
            weight.mul_(10)  # a new adapter is too faint to see in a tiny picture
    prior.save(tmp_path / "prior")
    generator = Config(stages=[Stage(generator=sdxl.TINY, prior=str(tmp_path / "prior"))] * 2).build()
    token = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    given = priors.load("identity").condition(Decoded({"token": token}), [1, 1])
    first, second = generator.links

    with torch.no_grad():
        made = generator.generate(given, [1, 1], PX, SAMPLING)
        picture = first.generator.generate(prior.condition(given.decoded, []), [1, 1], PX, SAMPLING)
        again = replace(prior.condition(given.decoded, []), start=picture)
        wanted = second.generator.generate(again, [derive_seed(1, 1)] * 2, PX, SAMPLING)

    assert torch.allclose(made, wanted, atol=SAME_PICTURE)
    assert (made[0] - made[1]).abs().max() > 10 * SAME_PICTURE  # the same seed, another token
    with pytest.raises(BrainhiveError, match="brings no decoded heads"):
        generator.generate(Conditioning(), [1], PX, SAMPLING)


def test_a_stage_chooses_its_heads_and_its_size():
    stages = [
        {"generator": sdxl.TINY, "prior": {"kind": "identity", "embeddings": ["tokens"], "start": []}},
        {"generator": sdxl.TINY, "prior": {"kind": "identity", "embeddings": ["other"]}, "resolution_px": 64},
    ]
    generator = parts.resolve("generators", {"kind": "chain", "stages": stages}).build()
    heads = {
        "tokens": torch.randn(1, 2, 16),
        "other": torch.randn(1, 3, 16),
        "latent": torch.randn(1, 4, 8, 8),
    }
    given = priors.load("identity").condition(Decoded(heads), [1])
    steps: list[int] = []

    with torch.no_grad():
        made = generator.generate(given, [1], PX, SAMPLING, on_step=steps.append)
        single = generator.links[0].generator
        first = single.generate(Conditioning(embeddings=heads["tokens"]), [1], PX, SAMPLING)
        given = Conditioning(embeddings=heads["other"], start=first)
        wanted = generator.links[1].generator.generate(given, [derive_seed(1, 1)], 64, SAMPLING)

    assert made.shape == (1, 3, 64, 64) and torch.allclose(made, wanted, atol=SAME_PICTURE)
    assert steps == [1, 2, 3, 4, 5, 6, 7]  # of the second stage three quarters


def test_what_concerns_latents_is_the_first_stages_and_memory_is_the_largest_stages():
    generator, single = TINY.build(), sdxl.TINY.build()
    picture = torch.rand(1, 3, PX, PX)

    assert generator.latent_shape(PX) == single.latent_shape(PX)
    assert generator.latent_space == single.latent_space
    assert torch.equal(generator.encode(picture), single.encode(picture))
    assert torch.equal(generator.decode(single.encode(picture)), single.decode(single.encode(picture)))
    one, two = (config.skeleton(torch.float32).memory_estimate(2, PX) for config in (sdxl.TINY, TINY))
    weights = sum(chain.size_of(network) for network in single.networks)
    assert two == one + weights
    with pytest.raises(BrainhiveError, match="resolution_px is 30"):
        generator.check_size(30)
    with pytest.raises(RecipeError, match="stages"):
        parts.resolve("generators", {"kind": "chain", "stages": []})
