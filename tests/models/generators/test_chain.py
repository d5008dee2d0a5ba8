"""Tests of a chain of generators."""

from dataclasses import replace

import pytest
import torch

from brainhive_cli.core.base.seeds import derive_seed
from brainhive_cli.core.recipes import parts
from brainhive_cli.models import Conditioning, Decoded, priors
from brainhive_cli.models.generators import Sampling, sdxl, sdxl_unclip
from brainhive_cli.models.generators.chain import TINY
from tests.repositories import animatediff_repositories, blip2_repository
from tests.tools.hub_server import serving

SAME_PICTURE = 1e-4
PX = 32
SAMPLING = Sampling(steps=4)


def test_the_second_stage_starts_from_the_first_with_new_noise():
    generator = sdxl.TINY.build()
    first_pictures = generator.generate(Conditioning(), [3, 4], PX, SAMPLING)
    noise = [derive_seed(seed, 1) for seed in (3, 4)]
    expected = generator.generate(
        Conditioning(start=first_pictures), noise, PX, Sampling(steps=2, strength=0.5)
    )

    media = TINY.build().generate(Conditioning(), [3, 4], PX, SAMPLING)
    single_picture = TINY.build().generate(Conditioning(), [4], PX, SAMPLING)

    assert torch.allclose(media, expected, atol=SAME_PICTURE)
    assert torch.allclose(media[1], single_picture[0], atol=SAME_PICTURE)
    assert not torch.allclose(media, first_pictures, atol=10 * SAME_PICTURE)


@pytest.mark.nightly
def test_a_keyframe_is_captioned_and_set_in_motion(tmp_path, monkeypatch, home):
    """NEURONS' two stages, with tiny folders at the hub under the real names."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    root = blip2_repository.write(animatediff_repositories.write(tmp_path / "served"))
    motion = {"kind": "animatediff", "frames": 3, "kept": [0, 2], "prompt_suffix": " b"}
    start_prior = {"kind": "identity", "embeddings": [], "start": ["latents"]}
    stages = [
        {
            "generator": sdxl_unclip.TINY,
            "prior": {"kind": "identity", "start": []},
            "steps": 1,
        },
        {
            "generator": motion,
            "receives": "images",
            "prior": start_prior,
            "caption": f"hub:{blip2_repository.NAME}",
        }
        | {"guidance": 8.5, "strength": 1, "resolution_px": 16},
    ]
    config = parts.resolve("generators", {"kind": "chain", "stages": stages})
    heads = {"tokens": torch.randn(2, 4, 16), "latents": torch.randn(2, 2, 4, 8, 8)}
    conditioning = priors.load("identity").condition(Decoded(heads), [1, 2])
    with serving(root) as hub:
        hub.redirect_client(monkeypatch)
        config.check()
        assert "Salesforce/blip2-opt-2.7b" in {item.name for item in config.inputs()}
        generator = config.build()
        media = generator.generate(conditioning, [1, 2], PX, Sampling(steps=1))

    keyframe_link, video_link = generator.links
    video = video_link.generator
    captioner = video_link.captioner
    picture = keyframe_link.generator.generate(
        Conditioning(heads["tokens"]), [1, 2], PX, Sampling(steps=1)
    )
    captions = captioner.caption(picture, None)
    assert all(captions)
    assert captioner.caption(picture[1:], None) == captions[1:]
    noise_pictures = torch.rand(
        8, 3, PX, PX, generator=torch.Generator().manual_seed(0)
    )
    assert (
        len(
            set(
                captioner.caption(
                    noise_pictures * torch.linspace(0.2, 1, 8).view(-1, 1, 1, 1), None
                )
            )
        )
        > 1
    )
    assert (
        captioner.caption(picture[:, None].expand(-1, 3, -1, -1, -1), None) == captions
    )
    conditions = Conditioning(texts=captions, images=picture, start=heads["latents"])
    seeds = [derive_seed(seed, 1) for seed in (1, 2)]
    expected = video.generate(
        conditions, seeds, 16, Sampling(steps=1, guidance=8.5, strength=1)
    )
    assert media.shape == (2, 2, 3, 16, 16)
    assert torch.allclose(media, expected, atol=SAME_PICTURE)
    other_conditions = replace(conditions, texts=["a", "b"])
    media_of_other_texts = video.generate(
        other_conditions, seeds, 16, Sampling(steps=1, guidance=8.5, strength=1)
    )
    assert not torch.allclose(media_of_other_texts, media, atol=SAME_PICTURE)
    assert not [name for name in hub.fetched if name.endswith(".bin")]
