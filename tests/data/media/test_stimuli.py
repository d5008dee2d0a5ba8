"""Stimulus sets, and the data sets that have them."""

import os
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files.inputs import Input
from brainhive_cli.data.datasets import (
    Dataset,
    PublishedFacts,
    list_pictures,
    list_stimuli,
    require_split,
)
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media import (
    BadPicture,
    StimulusSet,
    decode,
    describe_unread,
    find_pictures,
    make_stimulus_set,
    require_unique_ids,
    stimuli as media_stimuli,
)

NAMES = Names.of(["a", "b"])


def stimuli(**facts):
    return StimulusSet("set", "train", NAMES, NAMES, lambda row: row, **facts)


def test_captions_repeat_to_fill_up():
    captions = {0: ["x", "y"], 1: []}
    captioned_stimuli = stimuli(captions=captions.__getitem__, captions_each=5)
    assert captioned_stimuli.get_captions(0) == ["x", "y", "x", "y", "x"]
    for missing in (
        lambda: captioned_stimuli.get_captions(1),
        lambda: stimuli().get_captions(0),
    ):
        with pytest.raises(MissingData):
            missing()
    assert captioned_stimuli.get_reader("captions")(
        0
    ) == captioned_stimuli.get_captions(0)
    assert captioned_stimuli.medium == "picture"
    assert len(captioned_stimuli) == 2


def test_each_frame_has_a_mask():
    masks = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    of_clip = stimuli(masks=lambda row: masks[: 3 - row], frames=3)
    assert [mask.tolist() for mask in of_clip.get_masks(0)] == masks.tolist()
    of_picture = stimuli(masks=lambda row: masks[:1] if row == 0 else masks[0])
    assert np.array_equal(of_picture.get_masks(0), masks[0])
    assert of_clip.medium == "clip"
    for missing in (of_clip, of_picture):
        with pytest.raises(MissingData):
            missing.get_masks(1)
    with pytest.raises(MissingData):
        stimuli().get_masks(0)


def test_each_label_name_has_a_flag():
    flags = [np.array([1, 0], np.uint8), np.ones(3, np.uint8)]
    labelled = stimuli(labels=flags.__getitem__, label_names=("x", "y"))
    assert labelled.get_labels(0).tolist() == [1, 0]
    with pytest.raises(MissingData):
        labelled.get_labels(1)
    assert stimuli().get_labels(0).shape == (0,)


def dataset(**facts):
    facts = {"images": lambda split: stimuli(), "splits": ("train", "test"), **facts}
    return Dataset("set", **facts)


def test_names_of_signals_pictures_and_people_follow_each_other():
    plain_dataset, named_dataset = dataset(), dataset(recorded_as="r", pictured_as="p")
    assert (
        plain_dataset.recorded_as,
        plain_dataset.pictured_as,
        plain_dataset.people,
    ) == ("set",) * 3
    assert (
        named_dataset.recorded_as,
        named_dataset.pictured_as,
        named_dataset.people,
    ) == ("r", "p", "r")
    assert dataset(recorded_as="r", people="q").people == "q"
    kinds = [{}, {"alike_by": "neighbours"}, {"are_categories": True}]
    stimulus = [dataset(**facts).stimulus for facts in kinds]
    assert stimulus == ["picture", "clip", "category"]


@pytest.mark.parametrize(
    ("crosses", "left_out", "other_numbers"),
    [(False, {2, 3}, (1, 4)), (True, {2}, (3,))],
)
def test_one_person_is_not_learned_from_under_another_number(
    crosses, left_out, other_numbers
):
    def same_person(subject):
        return (2, 3) if subject in (2, 3) else (subject,)

    compared_dataset = dataset(same_person=same_person, crosses_studies=crosses)
    assert compared_dataset.list_excluded_subjects([2]) == left_out
    assert compared_dataset.choose_training_subjects([1, 2, 3, 4], 2) == other_numbers


def test_recordings_and_splits_that_are_not_there_are_refused():
    opened_dataset = dataset(open_recording=lambda subject, split: (subject, split))
    assert opened_dataset.recording(2, "test") == (2, "test")
    for call in (
        lambda: dataset().recording(1, "test"),
        lambda: dataset().images("validation"),
    ):
        with pytest.raises(MissingData):
            call()
    require_split(opened_dataset, "test", "split")
    with pytest.raises(RecipeError):
        require_split(opened_dataset, "validation", "split")


def test_published_numbers_stand_for_stimuli_that_are_not_here():
    def absent(split):
        raise MissingData("no files", "fetch")

    sizes = PublishedFacts(stimuli={"train": 3}, frames=6, captions=5)
    stimuli = list_stimuli(dataset(images=absent, published_sizes=sizes), "train")
    assert list(stimuli.image_ids) == ["train/0", "train/1", "train/2"]
    assert (stimuli.captions_each, stimuli.frames, stimuli.medium) == (5, 6, "clip")
    assert stimuli.missing_error is not None
    assert stimuli.captions
    assert stimuli.masks
    assert stimuli.labels
    plain_published_facts = PublishedFacts(stimuli={"train": 1})
    stimuli = list_stimuli(
        dataset(images=absent, published_sizes=plain_published_facts), "train"
    )
    assert stimuli.captions is None
    assert stimuli.masks is None
    assert stimuli.medium == "picture"
    for published in (None, plain_published_facts):
        with pytest.raises(MissingData):
            list_stimuli(dataset(images=absent, published_sizes=published), "test")
    assert list_stimuli(dataset(), "train").missing_error is None


def test_pictures_are_listed_by_ending_and_others_counted(tmp_path):
    for name in (
        "x/b.PNG",
        "x/a.jpg",
        "x/c.txt",
        "x/d",
        "x/e.heic",
        "x/f.heic",
        "y/g.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "x/folder.png").mkdir()
    os.symlink(tmp_path / "none", tmp_path / "x/link.png")
    unread = Counter[str]()
    pictures = list(find_pictures(tmp_path, "x", unread))
    assert sorted(pictures) == ["x/a.jpg", "x/b.PNG", "x/link.png"]
    assert unread == {".heic": 2, ".txt": 1, "": 1}
    assert describe_unread(unread) == "4 not read: 2 .heic, 1 without ending, 1 .txt"
    assert describe_unread({}) == ""
    assert list(find_pictures(tmp_path, "x", extensions={".txt"})) == ["x/c.txt"]


def test_ids_are_paths_without_endings(tmp_path):
    for name, level in (("a.x.png", 10), ("b/c.webp", 200)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), level).save(tmp_path / name, lossless=True)
    stimulus_set = make_stimulus_set(
        "set", "test", tmp_path, ["a.x.png", "b/c.webp"], ["u", "v"], {".t": 2}
    )
    assert list(stimulus_set.image_ids) == ["a.x", "b/c"]
    assert list(stimulus_set.concepts) == [
        "u",
        "v",
    ]
    assert (stimulus_set.dataset, stimulus_set.split, stimulus_set.unread_counts) == (
        "set",
        "test",
        {".t": 2},
    )
    assert [stimulus_set.open(row).getpixel((0, 0)) for row in (0, 1)] == [
        (10,) * 3,
        (200,) * 3,
    ]
    require_unique_ids(["a", "b"], str)
    with pytest.raises(BrainhiveError) as caught:
        require_unique_ids(["a", "b", "a"], lambda index: f"file{index}")
    assert "file2 and file0" in caught.value.message


def test_grey_of_sixteen_bits_becomes_eight(tmp_path):
    levels = np.array([[0, 255, 256, 25_700], [32_768, 65_535, 511, 512]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "grey.png")
    array = np.asarray(decode(str(tmp_path / "grey.png"), "grey"))
    assert array[..., 0].tolist() == (levels // 256).tolist()
    assert (array == array[..., :1]).all()
    Image.fromarray(levels.astype(np.float32)).save(tmp_path / "floats.tiff")
    with pytest.raises(BadPicture):
        decode(str(tmp_path / "floats.tiff"), "floats")


def test_pictures_are_seen_as_their_orientation_says(tmp_path):
    picture = Image.new("RGB", (8, 4), "white")
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert decode(str(tmp_path / "turned.jpg"), "turned").size == (4, 8)


def test_few_of_many_files_are_examined(tmp_path, monkeypatch):
    examined = []

    def find(paths):
        examined.append(len(paths))

    monkeypatch.setattr(media_stimuli, "find_unfetched", find)
    for count in (999, 1000, 2500):
        files = [f"{number}.png" for number in range(count)]
        make_stimulus_set("set", "train", tmp_path, files, files)
    assert examined == [999, 500, 834]


@pytest.mark.parametrize(
    "facts, state",
    [
        ({}, ["here"]),
        ({"missing_error": MissingData("not fetched")}, ["missing"]),
        ({"has_pictures": False}, []),
    ],
)
def test_pictures_are_inputs_where_files_have_no_names(facts, state):
    dataset = Dataset("set", ("train",), lambda split: stimuli(**facts))
    assert [picture.state for picture in list_pictures(dataset, "train")] == state
    assert [picture.state for picture in list_pictures(dataset, "test")] == ["missing"]


def test_files_that_a_data_set_names_stand_for_its_pictures():
    file = Input("images.zip", 5, MissingData("no images.zip"))
    dataset = Dataset(
        "set", ("train",), lambda split: stimuli(), files=lambda split, reads: [file]
    )
    assert list_pictures(dataset, "train") == [file]
