"""Categories with labels, names or exemplar pictures as targets."""

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.core.base.errors import MissingData, RecipeError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.datasets.categories import Config
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.training.alignment.recipe import Recipe
from tests.worlds.command_fixtures import use_home

SHADES = {"bright": (250, 200), "dark": (20, 40, 60)}
"""Grey levels of the exemplars of each category."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with use_home(tmp_path_factory.mktemp("categories")) as home:
        for name, levels in SHADES.items():
            for level in levels:
                path = home / f"exemplars/{name}/{level}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (40, 30), (level, level, level)).save(path)
        yield home


def test_a_label_is_embedded_without_any_picture(home, run_command):
    run_command("embed", "dataset={kind: categories, names: [face, house, shoe]}")

    (file,) = (home / "embeddings/categories/train").glob("concepts-*.h5")
    store = TargetStore.open(file)
    assert np.asarray(store.embedding).tolist() == np.eye(3).tolist()
    assert list(store.image_ids) == ["face", "house", "shoe"]


def test_exemplars_are_averaged_each_once(home, run_command):
    dataset = (
        f"dataset={{kind: categories, name: shades, root: {home / 'exemplars'}, "
        "target: exemplars}"
    )
    run_command(
        "embed", dataset, "encoders=[demo-clip, {kind: demo-clip, views: average}]"
    )

    stores = home / "embeddings/shades/train"
    averages, views = (
        TargetStore.open(stores / f"demo-clip{end}.h5").embedding
        for end in ("-average", "")
    )
    # the first category repeats its first exemplar
    assert np.asarray(views).shape[:2] == (2, 3)
    for row, levels in enumerate(SHADES.values()):
        expected = np.asarray(views)[row, : len(levels)].mean(0)
        np.testing.assert_allclose(averages[row], expected, atol=1e-5)


def test_a_name_is_the_caption_of_a_category():
    stimuli = (
        Config(names=["face", "scrambled_pictures"], target="name")
        .build(Paths())
        .images("train")
    )

    assert stimuli.get_captions(1) == ["scrambled pictures"]
    assert not stimuli.has_pictures
    with pytest.raises(MissingData, match="name of a category"):
        stimuli.open(0)


def test_recipes_without_encoders_have_the_target_s_encoder():
    arguments = ["dataset={kind: categories, names: [a, b, c]}"]
    label = Recipe.resolve("train-align", None, {}, arguments)
    name = Recipe.resolve(
        "train-align",
        None,
        {},
        ["dataset={kind: categories, names: [a, b], target: name}"],
    )

    assert label.encoders[0].static_shape == (3,)
    assert [encoder.name for encoder in name.encoders] == ["clip-h14-text"]


def test_categories_without_two_names_that_differ_are_refused():
    for fields in (
        {"names": ["a"]},
        {"names": ["a", "b"], "target": "exemplars"},
        {"names": ["a", "b", " "]},
    ):
        with pytest.raises(RecipeError):
            Config(**fields)
    for first_name, second in (
        ("x", "x.png"),
        ("a", "a "),
        ("caf\u00e9", "cafe\u0301"),
        ("1", "1.0"),
    ):
        with pytest.raises(RecipeError) as caught:
            Config(names=["b", first_name, second])
        assert repr(first_name) in caught.value.message
        assert repr(second) in caught.value.message


def test_folders_of_exemplars_name_the_categories(tmp_path):
    for number, name in enumerate(("owl", "cat", ".cache")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (300, 512), (number, 0, 0)).save(tmp_path / name / "1.png")
    (tmp_path / "cat/notes.txt").write_text("")
    config = Config(root=str(tmp_path), target="exemplars", name="animals")
    stimuli = config.build(Paths()).images("train")
    assert list(stimuli.image_ids) == list(stimuli.concepts) == ["cat", "owl"]
    assert (stimuli.dataset, stimuli.split, stimuli.frames) == ("animals", "train", 1)
    assert stimuli.unread_counts == {".txt": 1}
    assert stimuli.has_pictures
    assert stimuli.open(1).frames.shape == (1, 256, 256, 3)
    for names in (["cat", "dog"], ["cat", "none"]):
        (tmp_path / "dog").mkdir(exist_ok=True)
        with pytest.raises(MissingData):
            config.model_copy(update={"names": names}).build(Paths()).images("train")
    with pytest.raises(MissingData):
        Config(root=str(tmp_path / "none"), target="exemplars").build(Paths())


@pytest.mark.parametrize("size", [(25, 40), (700, 300)])
def test_exemplars_are_cut_to_their_centre(tmp_path, size):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (size[1], size[0], 3), np.uint8)
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "1.png")
    config = Config(root=str(tmp_path), target="exemplars")

    (frame,) = config.build(Paths()).images("train").open(0).frames

    scale = 256 / min(size)
    width, height = (max(256, round(side_px * scale)) for side_px in size)
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    left_px, top = (width - 256) // 2, (height - 256) // 2
    expected = np.asarray(resized)[top : top + 256, left_px : left_px + 256]
    assert np.array_equal(frame, expected)


def test_labels_are_flags_in_the_order_of_names():
    config = Config(names=["b", "a", "c"])
    stimuli = config.build(Paths()).images("train")
    assert stimuli.label_names == ("b", "a", "c")
    assert not stimuli.has_pictures
    assert [stimuli.get_labels(row).tolist() for row in (0, 2)] == [
        [1, 0, 0],
        [0, 0, 1],
    ]
    assert config.usual_encoders == [{"kind": "concepts", "count": 3}]
    assert config.build(Paths()).stimulus == "category"
    assert Config(root="x", target="label").usual_encoders == []
