"""EEGCVPR40 and EEG-ImageNet in files as their publishers write them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.signals import look_up_positions
from brainhive_cli.data.stores.session_store import (
    collect_file_facts,
    describe_file_difference,
)
from tests.publishers.imagenet_eeg_files import (
    BLOCK,
    SYNSETS,
    make_eeg_imagenet,
    make_eegcvpr40,
    name_pictures,
    save_eegcvpr40,
    write_imagenet,
)
from tests.worlds.array_trials import arrange

AUTHORS_LIST = (
    "FP1 FPZ FP2 AF3 AF4 F7 F5 F3 F1 FZ F2 F4 F6 F8 FT7 FC5 FC3 FC1 FCZ FC2 FC4 FC6 "
    "FT8 T7 C5 C3 C1 CZ C2 C4 C6 T8 M1 TP7 CP5 CP3 CP1 CPZ CP2 CP4 CP6 TP8 M2 P7 P5 P3 "
    "P1 PZ P2 P4 P6 P8 PO7 PO5 PO3 POZ PO4 PO6 PO8 CB1 O1 OZ O2 CB2 "
    "HEO VEO EKG EMG Trigger"
).split()
"""data/mode/montage_ch_names.json of EEG-ImageNet's authors."""
NO_EEG = ("M1", "M2", "HEO", "VEO", "EKG", "EMG", "Trigger")


@pytest.fixture
def cvpr_root(home):
    return home / "data/eegcvpr40"


@pytest.fixture
def imagenet_root(home):
    root = home / "data/eeg-imagenet"
    root.mkdir(parents=True)
    return root


def build(shelf, kind, **keys):
    return parts.resolve(shelf, {"kind": kind, **keys}).build(Paths())


def read_trials(kind, subject, split, **keys):
    return build("preparations", kind, **keys).recording(subject, split)


def list_ids(kind, split, **keys):
    return set(build("datasets", kind, **keys).images(split).image_ids)


def save_imagenet(root, content, file="EEG-ImageNet_1.pth"):
    torch.save(content, root / file)


@pytest.mark.parametrize("is_older", [False, True])
def test_segments_lie_at_their_pictures_and_blocks(cvpr_root, is_older):
    content = make_eegcvpr40(lengths={3: 520})
    save_eegcvpr40(cvpr_root, content, is_older=is_older)

    assert build("preparations", "eegcvpr40").subjects == (1, 2)
    trials = read_trials("eegcvpr40", 2, "train")

    assert trials.signal.shape == (120, 4, 440)
    assert trials.times_s[[0, -1]].tolist() == [0.02, 0.459]
    assert trials.unit == "z-score"
    assert trials.onset_s is None
    assert trials.trial_numbers is None
    signals = np.asarray(trials.signal)
    for row, image_id in enumerate(trials.image_ids):
        synset, name = image_id.split("/")
        number = content["images"].index(name)
        segment = content["dataset"][3 * BLOCK + number]
        np.testing.assert_array_equal(signals[row], segment["eeg"][:, 20:460])
        assert synset == content["labels"][segment["label"]]
        assert trials.runs is not None
        assert trials.runs[row] == segment["label"]
    assert trials.sessions is not None
    assert not trials.sessions.any()


def test_a_class_is_a_block_in_any_order_of_rows(cvpr_root):
    content = make_eegcvpr40([1], n_classes=2)
    content["dataset"] = content["dataset"][::-1]
    content["dataset"][1], content["dataset"][-1] = (
        content["dataset"][-1],
        content["dataset"][1],
    )
    save_eegcvpr40(cvpr_root, content)
    trials = read_trials("eegcvpr40", 1, "train")
    first_rows = [image_id.startswith(SYNSETS[1]) for image_id in trials.image_ids]
    assert trials.runs is not None
    assert (trials.runs == 0).tolist() == first_rows


def test_other_lengths_and_unlisted_pictures_are_counted(cvpr_root):
    content = make_eegcvpr40([1], lengths={0: 449, 1: 455, 2: 601, 3: 600})
    path = save_eegcvpr40(cvpr_root, content)
    splits = torch.load(path.parent / "block_splits_by_image_all.pth")
    splits["splits"][0]["train"].remove(4)
    torch.save(splits, path.parent / "block_splits_by_image_all.pth")

    trials = read_trials("eegcvpr40", 1, "train")

    assert len(trials.image_ids) == 120 - 4
    (facts,) = trials.provenance["sessions"]
    assert list(facts["dropped"].values()) == [3, 1]
    # a shorter window keeps the segment of 455 samples
    trials = read_trials("eegcvpr40", 1, "train", samples=[0, 440])
    assert len(trials.image_ids) == 120 - 3
    assert len(trials.times_s) == 440
    with pytest.raises(MissingData, match="0 to 900"):
        read_trials("eegcvpr40", 1, "train", samples=[0, 900])


def test_each_band_is_a_file_and_only_raw_has_no_unit(cvpr_root):
    raw = {**make_eegcvpr40([1], seed=1), "means": 0, "stddevs": 1}
    save_eegcvpr40(cvpr_root, make_eegcvpr40([1], seed=2), "eeg_14_70_std.pth")
    save_eegcvpr40(cvpr_root, raw, "eeg_signals_raw_with_mean_std.pth")

    with pytest.raises(MissingData, match=r"eeg_5_95_std\.pth"):
        read_trials("eegcvpr40", 1, "test")
    filtered = read_trials("eegcvpr40", 1, "test", file="eeg_14_70_std.pth")
    unfiltered = read_trials(
        "eegcvpr40", 1, "test", file="eeg_signals_raw_with_mean_std.pth"
    )
    assert [filtered.unit, unfiltered.unit] == ["z-score", "unknown unit"]
    assert not np.array_equal(filtered.signal[:1], unfiltered.signal[:1])


def test_pictures_are_in_the_published_split(home, cvpr_root):
    save_eegcvpr40(cvpr_root, make_eegcvpr40())
    write_imagenet(home / "data/imagenet/ILSVRC/train", SYNSETS[:3])
    names = [name_pictures(synset) for synset in SYNSETS[:3]]
    numbers = {"train": range(40), "validation": range(40, 45), "test": range(45, 50)}
    for split, indices in numbers.items():
        expected = set()
        for synset, pictures in zip(SYNSETS, names, strict=False):
            expected |= {f"{synset}/{pictures[index]}" for index in indices}
        assert list_ids("eegcvpr40", split) == expected
    images = build("datasets", "eegcvpr40").images("test")
    assert set(images.concepts) == set(SYNSETS[:3])


def test_missing_pictures_are_named(home, cvpr_root):
    save_eegcvpr40(cvpr_root, make_eegcvpr40())
    write_imagenet(home / "elsewhere", SYNSETS[:2])
    with pytest.raises(MissingData, match="15 test"):
        list_ids("eegcvpr40", "test")
    with pytest.raises(MissingData, match=f"lacks 5 test .*{SYNSETS[2]}"):
        list_ids("eegcvpr40", "test", images="elsewhere")
    write_imagenet(cvpr_root / "imageNet_images", SYNSETS[:3])
    assert len(list_ids("eegcvpr40", "test")) == 15


def drop_key(key):
    def change(content):
        del content[key]

    return change


def cut_channel(content):
    content["dataset"][5]["eeg"] = content["dataset"][5]["eeg"][:3]


def drop_signal(content):
    del content["dataset"][5]["eeg"]


def list_signal(content):
    content["dataset"][5]["eeg"] = content["dataset"][5]["eeg"].tolist()


def count_from_end(content):
    content["dataset"][5]["image"] = -1


def empty_rows(content):
    content["dataset"] = []


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (drop_key("dataset"), "dataset"),
        (drop_key("images"), "images"),
        (drop_signal, "eeg"),
        (cut_channel, "3 channels, not 4"),
        (list_signal, "shape"),
        (empty_rows, "no segments"),
        (count_from_end, "the picture -1"),
    ],
)
def test_a_file_of_another_form_is_refused(cvpr_root, change, fact):
    content = make_eegcvpr40([1], n_classes=1)
    path = save_eegcvpr40(cvpr_root, content)
    change(content)
    torch.save(content, path)
    result = CliRunner().invoke(app, ["prepare", "--from", "eegcvpr40"])
    assert result.exit_code == 3
    assert fact in result.stderr
    assert path.name in result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_cut_short_is_refused(cvpr_root):
    for is_older in (False, True):
        path = save_eegcvpr40(
            cvpr_root, make_eegcvpr40([1], n_classes=1), is_older=is_older
        )
        path.write_bytes(path.read_bytes()[:-200_000])
        with pytest.raises(MissingData, match=path.name) as caught:
            read_trials("eegcvpr40", 1, "train")
        assert caught.value.hint == "brainhive fetch eegcvpr40"


@pytest.mark.parametrize("subjects", [[1], [1, 3]])
def test_splits_of_another_file_are_refused(cvpr_root, subjects):
    save_eegcvpr40(cvpr_root, make_eegcvpr40([1, 2], n_classes=2))
    path = save_eegcvpr40(cvpr_root, make_eegcvpr40(subjects, n_classes=2))
    splits = path.parent / "block_splits_by_image_all.pth"
    # rows of a larger file, or of a file without a segment of the second subject
    content = make_eegcvpr40([1, 2], n_classes=2)
    if len(subjects) == 2:
        del content["dataset"][120]
    wrong_save_eegcvpr40 = save_eegcvpr40(cvpr_root.parent / "other", content)
    splits.write_bytes((wrong_save_eegcvpr40.parent / splits.name).read_bytes())
    with pytest.raises(BrainhiveError, match=splits.name) as caught:
        read_trials("eegcvpr40", 1, "train")
    assert path.name in caught.value.message
    assert caught.value.hint


def test_unknown_electrodes_have_numbers_and_no_position(cvpr_root):
    save_eegcvpr40(cvpr_root, make_eegcvpr40([1], n_classes=1, n_channels=128))
    trials = read_trials("eegcvpr40", 1, "test")
    assert trials.channels[0] == "E001"
    assert trials.channels[-1] == "E128"
    assert trials.positions is None
    assert np.isnan(look_up_positions(trials.channels)).all()
    with pytest.raises(RecipeError, match="'O1'"):
        trials.select(channels=["O1"])


def test_electrodes_of_eeg_imagenet_are_its_authors(imagenet_root):
    save_imagenet(imagenet_root, make_eeg_imagenet({0: [("coarse", SYNSETS[0])]}))
    channels = read_trials("eeg-imagenet", 1, "test").channels
    expected = [name for name in AUTHORS_LIST if name not in NO_EEG]
    assert [name.upper() for name in channels] == expected
    assert len(expected) == 62
    unknown = np.isnan(look_up_positions(channels)).any(1)
    assert [channels[row] for row in np.flatnonzero(unknown)] == ["CB1", "CB2"]

    few_eeg_imagenet = make_eeg_imagenet({0: [("coarse", SYNSETS[0])]}, n_channels=61)
    save_imagenet(imagenet_root, few_eeg_imagenet)
    with pytest.raises(MissingData, match="61 channels, not 62"):
        read_trials("eeg-imagenet", 1, "test")


def test_the_first_30_rows_of_a_block_are_for_training(imagenet_root):
    # the second block of a class directly follows the first
    blocks = [("coarse", SYNSETS[0]), ("fine0", SYNSETS[1]), ("fine0", SYNSETS[1])]
    content = make_eeg_imagenet({3: blocks})
    save_imagenet(imagenet_root, content, "EEG-ImageNet.pth")
    counts = {}
    for split, numbers in (("train", range(30)), ("test", range(30, BLOCK))):
        trials = read_trials("eeg-imagenet", 4, split)
        expected = set()
        for synset in SYNSETS[:2]:
            pictures = name_pictures(synset)
            expected |= {f"{synset}/{pictures[number]}" for number in numbers}
        assert set(trials.image_ids) == expected
        assert trials.runs is not None
        assert trials.sessions is not None
        arranged = arrange(trials)
        is_first = [name.startswith(SYNSETS[0]) for name in arranged.image_ids]
        assert (arranged.runs[is_first] == [0, -1]).all()
        assert (arranged.runs[~np.array(is_first)] == [1, 2]).all()
        assert (arranged.sessions[~np.array(is_first)] == [0, 1]).all()
        counts[split] = int(trials.counts.sum())
    assert counts == {"train": 90, "test": 60}
    assert len(trials.times_s) == 400
    assert trials.times_s[0] == 0.04
    signal = np.asarray(trials.signal)[0]
    segment = content["dataset"][30]["eeg_data"]
    np.testing.assert_array_equal(signal, segment[:, 40:440].float())


def test_parts_hold_their_own_subjects(imagenet_root):
    block = [("coarse", SYNSETS[0])]
    save_imagenet(imagenet_root, make_eeg_imagenet({0: block}))
    save_imagenet(imagenet_root, make_eeg_imagenet({8: block}), "EEG-ImageNet_2.pth")
    preparation = build("preparations", "eeg-imagenet")
    assert preparation.subjects == (1, 9)
    (path,) = preparation.files(9)
    assert Path(path).name == "EEG-ImageNet_2.pth"
    with pytest.raises(MissingData, match="no subject 2"):
        preparation.files(2)


@pytest.mark.parametrize(
    ("granularity", "classes"),
    [
        ("", {0, 1, 9, 17}),
        ("-coarse", {0}),
        ("-fine", {1, 9, 17}),
    ],
)
def test_granularity_selects_classes(home, imagenet_root, granularity, classes):
    blocks = [("coarse", 0), ("fine0", 1), ("fine", 9), ("fine", 17)]
    blocks_of_classes = [(name, SYNSETS[number]) for name, number in blocks]
    save_imagenet(imagenet_root, make_eeg_imagenet({0: blocks_of_classes}, length=450))
    write_imagenet(
        imagenet_root / "imageNet_images", [name for _, name in blocks_of_classes]
    )
    kind = f"eeg-imagenet{granularity}"
    ids = list_ids(kind, "test")
    assert {image_id.split("/")[0] for image_id in ids} == {
        SYNSETS[number] for number in classes
    }
    assert len(ids) == 20 * len(classes)
    # recordings have the pictures of the data set, and no others
    assert set(read_trials(kind, 1, "test").image_ids) == ids


def test_the_next_command_has_the_classes_that_were_prepared(
    imagenet_root,
):
    save_imagenet(imagenet_root, make_eeg_imagenet({0: [("coarse", SYNSETS[0])]}))
    line = ["prepare", "--recipe", "papers/eeg-imagenet", "--from"]
    result = CliRunner().invoke(app, list(line) + ["eeg-imagenet-coarse"])
    assert result.exit_code == 0, result.stderr
    assert "--dataset eeg-imagenet-coarse" in result.stderr + result.stdout


def test_later_blocks_of_a_class_can_be_tested(imagenet_root):
    first_blocks = [("coarse", SYNSETS[0]), ("coarse", SYNSETS[1])]
    content = make_eeg_imagenet(
        {0: list(first_blocks) + [first_blocks[0]], 1: first_blocks}
    )
    save_imagenet(imagenet_root, content)
    trials = read_trials("eeg-imagenet-time", 1, "train")
    assert len(trials.counts) == 100
    assert len(trials.signal) == 150
    holdout = build("datasets", "eeg-imagenet-time").holdout
    tested_trials = holdout.choose_trials(trials, "test", 1, "subject 1")
    assert len(tested_trials.image_ids) == 50
    assert all(image_id.startswith(SYNSETS[0]) for image_id in tested_trials.image_ids)
    with pytest.raises(MissingData, match="subject 2") as caught:
        read_trials("eeg-imagenet-time", 2, "train")
    assert "eeg-imagenet" in caught.value.hint


ENCODERS = "encoders=[pixels]"
RIDGE = ("backbone={kind: ridge, alpha: auto}", "train.validation=0", "seeds=[0]")


def run_json(*arguments):
    result = CliRunner().invoke(app, list(arguments) + ["--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_which_picture_is_tested_and_which_concept_is_not(home, cvpr_root):
    """Noise that drifts from block to block."""
    save_eegcvpr40(cvpr_root, make_eegcvpr40([1, 2], n_classes=8, drift=2.0))
    write_imagenet(home / "data/imagenet/train", SYNSETS[:8])
    run_json("prepare", "--from", "eegcvpr40")
    run_json("embed", "--dataset", "eegcvpr40", ENCODERS)
    run_json("train-align", "--dataset", "eegcvpr40", ENCODERS, *RIDGE)
    evaluation = run_json("eval-retrieval")

    answers = {
        answer["question"]: answer
        for answer in evaluation["metrics"]["facts"]["answers"]
    }
    assert answers["which picture"]["p"] > 0.05
    assert answers["which picture"]["pool"] == 40
    assert answers["which concept"]["p"] is None
    assert answers["which concept"]["side"] == "not testable"


def test_pictures_in_two_splits_are_listed_by_subject(home, imagenet_root):
    """Subject 2 saw the pictures of a class in the opposite order."""
    block = [("coarse", SYNSETS[0]), ("coarse", SYNSETS[1])]
    content = make_eeg_imagenet(
        {0: block, 1: block}, orders={1: range(BLOCK - 1, -1, -1)}, length=450
    )
    save_imagenet(imagenet_root, content)
    write_imagenet(imagenet_root / "imageNet_images", SYNSETS[:2])
    with pytest.raises(MissingData, match="80 test") as caught:
        list_ids("eeg-imagenet", "test")
    assert "dataset.subject" in caught.value.hint
    first_ids, second = (list_ids("eeg-imagenet", "test", subject=n) for n in (1, 2))
    assert len(first_ids) == len(second) == 40
    assert not first_ids & second

    run_json("prepare", "--from", "eeg-imagenet")
    dataset = "dataset={kind: eeg-imagenet, subject: 2}"
    run_json("embed", dataset, ENCODERS)
    run_json("train-align", dataset, ENCODERS, *RIDGE, "--subjects", "2")
    facts = run_json("eval-retrieval")["metrics"]["facts"]
    assert facts["seen_in_training"]["count"] == 0
    assert not facts["warnings"]
    assert facts["answers"][0]["n"] == facts["answers"][0]["pool"] == 40


@pytest.mark.parametrize("samples", [[400, 300], [-5, 460], [20, 20]])
def test_a_window_without_samples_is_a_wrong_recipe(samples):
    result = CliRunner().invoke(
        app, ["prepare", "--from", "eegcvpr40", f"preparation.samples={samples}"]
    )
    assert result.exit_code == 2
    assert str(samples) in result.stderr


def test_a_signal_with_another_checksum_is_damaged(cvpr_root):
    path = save_eegcvpr40(cvpr_root, make_eegcvpr40([1], n_classes=2, n_channels=64))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    with pytest.raises(MissingData, match=path.name):
        read_trials("eegcvpr40", 1, "train").signal[:]


def test_a_changed_file_is_no_longer_what_was_prepared(cvpr_root):
    """Files of the same size differ in pieces, and splits are files, too."""
    names = {"eeg_5_95_std.pth", "block_splits_by_image_all.pth"}
    facts = []
    for seed in (1, 2):
        save_eegcvpr40(cvpr_root, make_eegcvpr40([1], n_classes=3, seed=seed))
        files = build("preparations", "eegcvpr40").files(1)
        assert {path.name for path in files} == names
        facts.append(collect_file_facts(files))
    large = [name for name in facts[0] if name.endswith("eeg_5_95_std.pth")]
    assert facts[0][large[0]]["bytes"] == facts[1][large[0]]["bytes"] > 2**20
    assert "eeg_5_95_std.pth" in describe_file_difference(*facts)
    assert describe_file_difference(facts[0], facts[0]) == ""
