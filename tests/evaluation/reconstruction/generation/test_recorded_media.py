"""Tests that generated media and baselines equal recorded numbers."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media import Clip, media_files
from brainhive_cli.evaluation.reconstruction import baselines, generation
from brainhive_cli.evaluation.reconstruction.baselines import (
    make_baselines,
    make_stills,
    shuffle_items,
)
from brainhive_cli.evaluation.reconstruction.folders import (
    digest_media,
    list_media,
    match_folders,
    open_column,
)
from brainhive_cli.evaluation.reconstruction.generation import (
    DecodedSet,
    Sampler,
    StimulusHeads,
)
from brainhive_cli.evaluation.reconstruction.recipe import Recipe
from brainhive_cli.evaluation.reconstruction.scoring import (
    GeneratedSet,
)
from brainhive_cli.models.generators import Sampling
from brainhive_cli.models.heads import Conditioning, Decoded
from brainhive_cli.training.alignment.cells import Cell
from tests.worlds.reconstructions import draw_media

CPU = torch.device("cpu")
IDS = [f"p{row}" for row in range(7)]


def test_one_column_of_a_clip_is_cut(tmp_path):
    truth, media = draw_media(1, 12, 2), draw_media(2, 12, 2)
    grid = np.zeros((2, 16, 30, 3), np.uint8)
    grid[:, 2:14, 2:14], grid[:, 2:14, 16:28] = truth, media
    columns = {"border": grid, "plain": np.concatenate([truth, media], 2)}
    for name, pixels in columns.items():
        media_files.save(pixels, tmp_path / f"{name}.png", 8)
        for column, expected in enumerate((truth, media)):
            cut_column = open_column(tmp_path / f"{name}.png", column)
            np.testing.assert_array_equal(cut_column.frames, expected)
    media_files.save(grid[:, :, :-1], tmp_path / "other.png", 8)
    with pytest.raises(BrainhiveError, match="29 × 16"):
        open_column(tmp_path / "other.png", 0)


def test_folders_of_clips_are_matched(tmp_path):
    names = ("truth/b 2", "truth/b 10", "made/b 2", "made/b 10_1")
    for number, name in enumerate(names):
        frames = draw_media(number, 12, 2)
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for row, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / f"{row}.png")
    (tmp_path / "made/.hidden").mkdir()
    where = str(tmp_path / "made"), str(tmp_path / "truth")

    generated, seen, medium, digests, facts = match_folders(*where, "clip")

    assert medium == "clip"
    assert list(generated.files) == ["b 2", "b 10"]
    assert seen.grouping.criterion == "neighbours"
    assert np.array_equal(seen.open("b 10").frames, draw_media(1, 12, 2))
    assert facts.unmatched == facts.without == []
    assert list(list_media(where[1], "clip")) == ["b 2", "b 10"]
    assert digests == {
        where[1]: digest_media(list_media(where[1], "clip")),
        where[0]: digest_media(list_media(where[0], "clip")),
    }
    initial_digest_media = digest_media(list_media(where[0], "clip"))
    Image.fromarray(draw_media(9, 12)).save(tmp_path / "made/b 2/1.png")
    assert digest_media(list_media(where[0], "clip")) != initial_digest_media
    Image.fromarray(draw_media(1, 12)).save(tmp_path / "made/alone.png")
    with pytest.raises(BrainhiveError):
        list_media(where[0], "clip")


def test_shuffled_folders_have_other_items(tmp_path):
    files = {image_id: [Path(image_id)] for image_id in IDS}
    shuffled = shuffle_items(
        GeneratedSet("scored", "made", (), files, description="two")
    )
    assert list(shuffled.files) == IDS
    assert shuffled.source == "shuffled"
    assert sorted(str(one) for (one,) in shuffled.files.values()) == IDS
    assert all(str(one) != name for name, (one,) in shuffled.files.items())
    assert shuffled.description.endswith("two")


def test_stills_repeat_the_first_frame(tmp_path):
    files = {name: [tmp_path / f"{name}-{n}.png" for n in (0, 1)] for name in IDS[:3]}
    for number, (clip, _) in enumerate(files.values()):
        for file in (clip, clip.with_name(clip.name.replace("-0", "-1"))):
            media_files.save(draw_media(number, 12, 3), file, 8)
    clips = GeneratedSet("brain", "sub-01", (4,), files, 1)
    run_folder, nearest = RunFolder(tmp_path / "run"), replace(clips, source="nearest")

    (stills,) = make_stills([clips, nearest], run_folder)

    assert (stills.source, stills.subject, stills.seeds) == ("still", 1, (4,))
    for (_, clip), (_, still) in zip(clips.media, stills.media, strict=True):
        made, frames = media_files.read(still), media_files.read(clip).frames
        assert np.array_equal(made.frames, frames[[0, 0, 0]])
        assert made.rate_hz == 8
    with pytest.raises(MissingData):
        make_stills([nearest], run_folder)
    picture = tmp_path / "picture.png"
    Image.fromarray(draw_media(1, 12)).save(picture)
    with pytest.raises(MissingData):
        make_stills([replace(clips, files={"a": [picture]})], run_folder)


class Store:
    """Store of the embeddings of some stimuli."""

    def __init__(self, split, count, width):
        self.values = np.random.default_rng([count, width]).normal(size=(count, width))
        self.embedding = torch.from_numpy(self.values.astype(np.float32))
        self.image_ids = Names.of(f"{split} {row}" for row in range(count))
        self.done = np.arange(count) % 4 != 2
        self.alternatives = self.pixels = None

    def find_rows(self, image_ids):
        return np.array([self.image_ids.index(name) for name in image_ids])


class Sized:
    """Stand-in for the targets of stores."""

    @staticmethod
    def from_stores(stores, launch, keys, on_device):
        sources = {
            keys[name]: SimpleNamespace(shape=store.embedding.shape[1:], store=store)
            for name, store in stores.items()
        }
        return Sized(sources)

    def __init__(self, sources):
        self.sources = sources

    def gather(self, rows):
        return {
            key: source.store.embedding[torch.from_numpy(rows)]
            for key, source in self.sources.items()
        }


STORES = {
    split: {"looks": Store(split, count, 4), "words": Store(split, count, 3)}
    for split, count in (("train", 23), ("test", 9))
}
TRAINING = {
    f"train {row}": draw_media(row + 300, 30 if row % 2 else 20) for row in range(23)
}


def made_run(holdout_folds=False, frames=0):
    def images(split):
        def open_image(row):
            pixels = TRAINING[f"train {row}"]
            return Clip(pixels[None], 8) if frames else Image.fromarray(pixels)

        return SimpleNamespace(
            medium="clip" if frames else "picture",
            image_ids=list(TRAINING),
            dataset="made",
            open=open_image,
        )

    def choose(store, split, fold):
        rows = np.arange(len(store.image_ids))
        return rows % 3 != fold if holdout_folds else rows >= 0

    def find_rows(split, fold):
        store = STORES[split]["looks"]
        return np.flatnonzero(store.done & choose(store, split, fold))

    holdout = SimpleNamespace(choose_stimuli=choose)
    return SimpleNamespace(
        open_stores=STORES.__getitem__,
        open_pictures=lambda split: STORES[split]["looks"],
        find_rows=find_rows,
        dataset=SimpleNamespace(images=images, holdout=holdout),
    )


def heads_of(align):
    def targets(embeddings):
        joined = torch.cat(list(embeddings.values()), 1)
        return {"token": joined, "square": joined[:, :2, None] ** 2}

    keys = {"looks": "a", "words": "b"}
    return StimulusHeads(align, [], keys, targets, CPU)


def brain_sets(width=7):
    random = torch.Generator().manual_seed(1)
    ids = [f"test {row}" for row in (1, 3, 4, 6, 8)]
    sets = []
    for subject, fold in ((1, 1), (2, 2)):
        tensors = {"token": torch.randn(5, width, generator=random)}
        cell = Cell(f"sub-{subject:02d}", (subject,), (subject,), 3, fold=fold)
        sets.append(DecodedSet("brain", cell, subject, ids, Decoded(tensors)))
    return sets


@pytest.mark.parametrize("folds", [False, True])
def test_baselines(monkeypatch, recorded, tmp_path, folds):
    monkeypatch.setattr(generation, "Targets", Sized)
    monkeypatch.setattr(generation, "MAX_VALUES_PER_BLOCK", 5 * 7)
    monkeypatch.setattr(baselines, "MAX_AVERAGED_PICTURES", 11)
    monkeypatch.setattr(baselines, "READ_AHEAD_PICTURES", 4)
    align, run_folder = made_run(folds), RunFolder(tmp_path)
    recipe = Recipe(resolution_px=16)
    sources = ["nearest", "mean", "still"]

    made, missing = make_baselines(
        align, recipe, sources, brain_sets(), [], heads_of(align), "a", run_folder
    )

    pixels = {
        f"{one.source} {one.name}": [
            np.asarray(media_files.read(file), float) for _, file in one.media
        ]
        for one in made
    }
    recorded(pixels=pixels, described=[one.description for one in made])
    assert [one.source for one in made] == list(["nearest"] * 2) + list(["mean"] * 2)
    assert list(missing) == ["still"]
    # files that are there are kept
    times = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.png")}
    make_baselines(
        align, recipe, sources, brain_sets(), [], heads_of(align), "a", run_folder
    )
    assert times == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.png")}
    # training pictures are no baseline of themselves
    own_recipe = Recipe(split="train")
    again, missing = make_baselines(
        align, own_recipe, sources, brain_sets(), [], heads_of(align), "a", run_folder
    )
    assert again == []
    assert set(missing) == {"still", "nearest", "mean"}
    # clips have no mean
    clips = make_baselines(
        made_run(frames=1), recipe, ["mean"], brain_sets(), [], None, "a", run_folder
    )
    assert list(clips[1]) == ["mean"]


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_sampler_gives_each_row_its_conditions(guidance):
    asked = {}

    def draw_zeros(conditioning, seeds, number, *more, **fields):
        asked.update(tokens=conditioning.embeddings, side=number, null=fields["null"])
        return torch.zeros(len(seeds), 3, number, number)

    prior = SimpleNamespace(
        null=lambda count, seeds: Conditioning(torch.zeros(count, 1, 2)),
        condition=lambda decoded, seeds: Conditioning(torch.ones(2, 1, 2)),
    )
    sampling = Sampling(steps=2, guidance=guidance)
    output = SimpleNamespace(resolution_px=8, precision="fp16")
    sampler = Sampler(lambda *_: None, prior, output, sampling, CPU)
    vars(sampler)["generator"] = SimpleNamespace(generate=draw_zeros, latent_space="a")

    drawn = sampler.sample(Decoded({"token": torch.zeros(2, 3)}), [1, 2])

    assert sampler.precision == "fp32"
    assert drawn.shape == (2, 3, 8, 8)
    assert asked["tokens"].sum() == 4
    assert asked["side"] == 8
    assert (asked["null"] is None) == (guidance == 1)
    sampler.sample(None, [1, 2, 3])
    assert asked["tokens"].shape == (3, 1, 2)
    assert asked["tokens"].sum() == 0


def test_words_of_a_recipe():
    plain_recipe = Recipe(repeats=1)
    assert plain_recipe.describe_generation(True) == "1 repeat"
    keys = {"best_of": 2, "strength": 0.5, "adapter": "skip"}
    recipe = Recipe(repeats=3, prior={"scale": 0.5}, **keys)
    words = recipe.describe_generation(True).split(", ")
    assert words[0] == "3 repeats"
    assert "2" in words[1]
    assert "0.5" in words[3]
    assert "0.5" in words[4]
    assert len(recipe.describe_generation(False).split(", ")) == 3
    for idle in ({"truth": "x"}, {"medium": "clip"}):
        with pytest.raises(RecipeError):
            Recipe(**idle)
    with pytest.raises(RecipeError):
        Recipe.resolve("reconstruct", None, {}, ["score=a", "truth=b", "steps=3"])
