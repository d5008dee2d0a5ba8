"""A chain of generators: media handed on, each stage with its own prior, sampling and noise."""

from dataclasses import replace

import animatediff_repositories
import blip2_repository
import pytest
import torch
from hub_server import serving

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.evaluation.reconstruction.generation import Sampler
from brainhive_cli.evaluation.reconstruction.recipe import Output
from brainhive_cli.models import priors
from brainhive_cli.models.generators import Sampling, animatediff, sdxl, sdxl_unclip
from brainhive_cli.models.generators.chain import TINY, Config, Stage
from brainhive_cli.models.heads import Conditioning, Decoded, Head
from brainhive_cli.models.priors import fusion_prior

SAME_PICTURE = 1e-4
PX, SAMPLING, CPU = 32, Sampling(steps=4), torch.device("cpu")


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


def test_what_concerns_latents_is_the_first_stages():
    generator, single = TINY.build(), sdxl.TINY.build()
    picture = torch.rand(1, 3, PX, PX)

    assert generator.latent_shape(PX) == single.latent_shape(PX)
    assert generator.latent_space == single.latent_space
    assert torch.equal(generator.encode(picture), single.encode(picture))
    assert torch.equal(generator.decode(single.encode(picture)), single.decode(single.encode(picture)))
    with pytest.raises(BrainhiveError, match="resolution_px is 30"):
        generator.check_size(30)
    with pytest.raises(RecipeError, match="stages"):
        parts.resolve("generators", {"kind": "chain", "stages": []})


def test_a_keyframe_is_captioned_and_set_in_motion(tmp_path, monkeypatch, home):
    """NEURONS' two stages, by tiny folders in the hub's cache under their real names."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    root = blip2_repository.write(animatediff_repositories.write(tmp_path / "served"))
    motion = {"kind": "animatediff", "frames": 3, "kept": [0, 2], "prompt_suffix": " b"}
    own = {"kind": "identity", "embeddings": [], "start": ["latents"]}
    stages = [
        {"generator": sdxl_unclip.TINY, "prior": {"kind": "identity", "start": []}, "steps": 1},
        {"generator": motion, "receives": "images", "prior": own, "caption": f"hub:{blip2_repository.NAME}"}
        | {"guidance": 8.5, "strength": 1, "resolution_px": 16},
    ]
    config = parts.resolve("generators", {"kind": "chain", "stages": stages})
    heads = {"tokens": torch.randn(2, 4, 16), "latents": torch.randn(2, 2, 4, 8, 8)}
    given = priors.load("identity").condition(Decoded(heads), [1, 2])
    with serving(root) as hub:
        hub.lead(monkeypatch)
        config.check()
        assert "Salesforce/blip2-opt-2.7b" in {one.name for one in config.inputs()}
        generator = config.build()
        made = generator.generate(given, [1, 2], PX, Sampling(steps=1))

    keyframe, video = generator.links
    picture = keyframe.generator.generate(Conditioning(heads["tokens"]), [1, 2], PX, Sampling(steps=1))
    captions = video.captioner.captions(picture, None)
    assert all(captions) and video.captioner.captions(picture[1:], None) == captions[1:]
    random = torch.rand(8, 3, PX, PX, generator=torch.Generator().manual_seed(0))
    assert len(set(video.captioner.captions(random * torch.linspace(0.2, 1, 8).view(-1, 1, 1, 1), None))) > 1
    assert video.captioner.captions(picture[:, None].expand(-1, 3, -1, -1, -1), None) == captions
    conditions = Conditioning(texts=captions, images=picture, start=heads["latents"])
    seeds = [derive_seed(seed, 1) for seed in (1, 2)]
    wanted = video.generator.generate(conditions, seeds, 16, Sampling(steps=1, guidance=8.5, strength=1))
    assert made.shape == (2, 2, 3, 16, 16) and torch.allclose(made, wanted, atol=SAME_PICTURE)
    others = replace(conditions, texts=["a", "b"])
    other = video.generator.generate(others, seeds, 16, Sampling(steps=1, guidance=8.5, strength=1))
    assert not torch.allclose(other, made, atol=SAME_PICTURE)
    assert not [name for name in hub.fetched if name.endswith(".bin")]


def test_a_clip_of_the_first_stage_is_the_start_of_the_second_and_its_first_frame_the_keyframe():
    whole = {"kind": "identity", "texts": [], "start": [], "images": [], "masks": []}
    motion = animatediff.TINY.model_copy(update={"frames": 3, "kept": (0, 1, 2)})
    stages = [
        {"generator": sdxl_unclip.TINY, "prior": whole | {"embeddings": ["motion"]}},
        {"generator": motion, "prior": whole | {"embeddings": []}, "receives": "both"},
    ]
    generator = parts.resolve("generators", {"kind": "chain", "stages": stages}).build()
    heads = Decoded({"motion": torch.randn(2, 3, 4, 16, generator=torch.Generator().manual_seed(0))})
    sampling = Sampling(steps=2, strength=0.5)

    made = generator.generate(Conditioning(decoded=heads), [1, 2], PX, sampling)

    frames, video = (link.generator for link in generator.links)
    clips = frames.generate(Conditioning(heads.tensors["motion"]), [1, 2], PX, sampling)
    conditions = Conditioning(images=clips[:, 0], start=clips)
    wanted = video.generate(conditions, [derive_seed(seed, 1) for seed in (1, 2)], PX, sampling)
    assert torch.allclose(made, wanted, atol=SAME_PICTURE)


def test_a_captioner_of_another_kind_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "blip"}')
    stages = [Stage(generator=sdxl.TINY), Stage(generator=sdxl.TINY, caption=str(tmp_path))]
    for ask in (Config(stages=stages).check, Config(stages=stages).build):
        with pytest.raises(MissingData, match=r"is no blip-2 \(model_type blip\)"):
            ask()
    with pytest.raises(RecipeError, match="first stage has no media to caption"):
        Config(stages=stages[::-1])


def test_a_latent_may_be_of_any_stage_and_of_no_other_autoencoder():
    second = sdxl_unclip.TINY.model_copy(update={"seed": 5})
    generator = Config(stages=(Stage(generator=sdxl.TINY), Stage(generator=second))).build()
    decoded = Decoded({"latent": torch.randn(1, 4, 8, 8)})
    spaces = generator.latent_spaces("latent", starts=True)
    for digest in (*spaces, "latents:another"):
        heads = {"latent": Head((4, 8, 8), "latent", digest=digest)}
        output = Output(resolution_px=PX, precision="fp32")
        sampler = Sampler(lambda *_: generator, priors.load("identity"), output, SAMPLING, CPU, heads)
        if digest in spaces:
            assert sampler.sample(decoded, [1]).shape == (1, 3, PX, PX)
        else:
            with pytest.raises(BrainhiveError, match="latents:another"):
                sampler.sample(decoded, [1])
    assert len(set(spaces)) == 2
