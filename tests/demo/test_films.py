"""Tests of the drawn films, and of the demo's generators of clips."""

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.demo import films, joined_generators
from brainhive_cli.demo.pictures import write_captions
from brainhive_cli.measurement.metrics import video
from brainhive_cli.models.encoders import demo_tokens, resolve
from brainhive_cli.models.generators import Sampling, animatediff, sdxl_unclip
from brainhive_cli.models.heads import Conditioning


@pytest.fixture(scope="module")
def dataset():
    return parts.resolve("datasets", {"kind": "demo-films", "concepts": 20}).build(
        Paths()
    )


def test_the_mask_of_an_object_moves_in_the_films_direction():
    for film in films.list_films("test")[:8]:
        # x, y of each frame
        centres = [np.argwhere(mask).mean(0)[::-1] for mask in film.draw_masks()]
        displacement = (centres[-1] - centres[0]) / 64
        step = np.array(films.DIRECTIONS[film.direction])
        np.testing.assert_allclose(displacement, 2 * films.MAX_OFFSET * step, atol=0.03)


def test_directions_are_balanced_and_test_concepts_are_new():
    train, test = films.list_films("train"), films.list_films("test")
    assert set(Counter(film.direction for film in train).values()) == {len(train) // 4}
    assert not {film.scene.concept for film in train} & {
        film.scene.concept for film in test
    }
    assert (len(train), len(test)) == (960, 100)


def test_the_data_set_gives_clips_with_captions_masks_and_labels(dataset):
    clips_of_split = dataset.images("train")
    film, clip = films.list_films("train")[5], clips_of_split.open(5)
    assert len(clips_of_split) == 120
    assert clips_of_split.medium == "clip"
    assert clips_of_split.frames == len(clip.frames) == 6
    assert clips_of_split.get_masks(5)[0].shape == clip.frames.shape[1:3]
    names = [
        name
        for name, is_shown in zip(
            clips_of_split.label_names, clips_of_split.get_labels(5), strict=True
        )
        if is_shown
    ]
    assert names == [film.scene.category, film.scene.background]
    assert film.scene.shape in " ".join(clips_of_split.get_captions(5))


TEST_FILMS = films.list_films("test")[:6]
DDIM = {"scheduler": "ddim"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("models")
    joined_generators.assemble_generator(
        joined_generators.TOKEN_GUIDED, home / "tokens"
    )
    joined_generators.assemble_generator(joined_generators.TEXT_GUIDED, home / "text")
    return home / "tokens", home / "text"


@pytest.fixture(scope="module")
def clips():
    frames = torch.stack([torch.from_numpy(film.draw_frames()) for film in TEST_FILMS])
    return frames.permute(0, 1, 4, 2, 3) / 255  # [N, F, 3, H, W]


@pytest.fixture(scope="module")
def tokens(clips):
    from torchvision.transforms.v2.functional import to_pil_image

    encoder = demo_tokens.Config().build()
    with torch.inference_mode():
        views = torch.stack(
            [encoder.preprocess(to_pil_image(clip[0])) for clip in clips]
        )
        return encoder.module(views).clone()


def correlation(media, reference):
    media, reference = (
        values.flatten(1) - values.flatten(1).mean(1, keepdim=True)
        for values in (media, reference)
    )
    return F.cosine_similarity(media, reference).mean().item()


def test_a_keyframe_is_drawn_from_its_tokens(folders, clips, tokens):
    settings = {"offset_noise": 0, "pixel_scale": 0.5, "pixel_shift": 0.5}
    generator = sdxl_unclip.Config(source=str(folders[0]), **settings).build()
    sampling = Sampling(steps=2, **DDIM)
    media = generator.generate(Conditioning(embeddings=tokens), range(6), 64, sampling)
    assert correlation(media, clips[:, 0]) > 0.8
    other_media = generator.generate(
        Conditioning(embeddings=tokens.roll(1, 0)), range(6), 64, sampling
    )
    assert correlation(other_media, clips[:, 0]) < 0.5


@pytest.mark.nightly
def test_an_object_moves_as_in_blurry_frames(folders, clips):
    generator = animatediff.Config(
        source=str(folders[1]),
        motion="demo:films/motion",
        sparse_control="demo:films/sparse_control",
        domain_adapter=None,
        noise="source",
        frames=6,
        kept=range(6),
        prompt_suffix="",
    ).build()
    steps = torch.tensor(
        [films.DIRECTIONS[film.direction] for film in TEST_FILMS]
    ).double()
    encoder = resolve("demo-vae:latent").build()
    with torch.inference_mode():
        latents = encoder.module((clips * 2 - 1).flatten(0, 1)).unflatten(
            0, clips.shape[:2]
        )
    blurry = (
        F.avg_pool2d(latents.flatten(0, 1), 2)
        .repeat_interleave(2, -1)
        .repeat_interleave(2, -2)
    )
    start = blurry.unflatten(0, clips.shape[:2])
    conditioning = Conditioning(
        images=clips[:, 0],
        start=start,
        texts=[write_captions(film.scene)[0] for film in TEST_FILMS],
    )
    media = generator.generate(
        conditioning, range(6), 64, Sampling(steps=4, strength=0.5, **DDIM)
    )
    rows = torch.arange(6)
    assert video.direction(steps, video.displacement(media), rows).mean() > 0.6
    assert correlation(media[:, 0], clips[:, 0]) > 0.8
    assert correlation(media, clips) > 0.6
