"""Tests of scores of decoded masks, concepts and captions."""

import numpy as np
import pytest
import torch

from brainhive_cli.core.runs import Launch, RunFolder, artifacts
from brainhive_cli.data.media import Clip, StimulusSet, media_files
from brainhive_cli.evaluation.reconstruction.evaluation import measure_run
from brainhive_cli.evaluation.reconstruction.facts import ReconstructionFacts
from brainhive_cli.evaluation.reconstruction.recipe import Recipe
from brainhive_cli.evaluation.reconstruction.scoring import (
    GeneratedSet,
    Stimuli,
    TaskScores,
)
from brainhive_cli.models.heads import Decoded

HERE = Launch(0, 1, torch.device("cpu"))
IDS, NAMES, FRAMES = ["a", "b", "c", "d"], ("animal", "human", "vehicle", "plant"), 2
LABELS = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], np.uint8)
CAPTIONS = [
    ["a man with a dog", "two walk"],
    ["a man runs"],
    ["a red car on a road"],
    [],
]


def masks(row):
    """Make the masks of a clip: the upper half, or nothing for the last clip."""
    zeros = np.zeros((FRAMES, 8, 8), np.uint8)
    zeros[:, :4] = 255 * (row < 3)
    return zeros


def films(**annotations):
    known = {
        "captions": CAPTIONS.__getitem__,
        "masks": masks,
        "labels": LABELS.__getitem__,
        "label_names": NAMES,
    }
    return StimulusSet(
        "films", "test", IDS, IDS, str, frames=FRAMES, **(known | annotations)
    )


def decoded_as(givers):
    """Make heads with the truth of the stimuli in this order, at half the size."""
    upper = torch.zeros(4, FRAMES, 1, 4, 4)
    upper[:3, :, :, :2] = 0.9
    upper[1] = upper[1].flip(-2)  # the second's is decoded upside down
    texts = ["a man with a dog", "a man runs", "a red car on a road", "nothing"]
    concepts = torch.from_numpy(LABELS).float() + torch.tensor([0.3, 0.2, 0.1, 0.0])
    return Decoded({"mask": upper, "concepts": concepts}, {"caption": texts})[
        list(givers)
    ]


def test_items_without_truth_have_no_task_score():
    scores = TaskScores.from_decoded(decoded_as(range(4)), films(), IDS)

    nan = pytest.approx(np.nan, nan_ok=True)
    assert list(scores.values["mask_dice"]) == [1, 0, 1, nan]
    assert list(scores.values["concept_recall"]) == [1, 1, 1, nan]
    assert list(scores.values["rouge_l"]) == [1, 1, 1, nan]
    assert np.nanmean(scores.values["bleu_2"]) == pytest.approx(1)
    assert list(scores.chance["concept_recall"]) == [0.5, 0.25, 0.25, 0]
    assert list(scores.recall["human"]) == [1, 1, nan, nan]


def test_a_caption_that_names_the_object_is_right():
    objects = {
        "objects": ["dog", "man", "red car", "cat"],
        "object_names": ("dog", "man", "red car", "cat", "bee"),
    }
    texts = ["a Man with a dog.", "a manual", "a red, car", "a red car"]
    scores = TaskScores.from_decoded(
        Decoded({}, {"caption": texts}), films(**objects), IDS
    )

    assert list(scores.values["caption_object"]) == [1, 0, 1, 0]
    assert list(scores.chance["caption_object"]) == pytest.approx([0.2] * 4)
    assert (
        "caption_object"
        not in TaskScores.from_decoded(
            Decoded({}, {"caption": texts}), films(), IDS
        ).values
    )


@pytest.fixture
def measured(tmp_path):
    """Result of clips of two subjects. Only the first is decoded without error."""
    pixels = {
        i: np.random.default_rng(n).integers(0, 256, (FRAMES, 8, 8, 3), np.uint8)
        for n, i in enumerate(IDS)
    }
    for image_id, frames in pixels.items():
        media_files.save(frames, tmp_path / f"{image_id}.png", 8)
    no_files = {image_id: [] for image_id in IDS}
    files = {image_id: [tmp_path / f"{image_id}.png"] for image_id in IDS}
    tasks = [
        TaskScores.from_decoded(decoded_as(order), films(), IDS)
        for order in ([0, 1, 2, 3], [0, 2, 1, 3], [1, 2, 0, 3])
    ]
    make_set = GeneratedSet
    drawn = ["drawn", ["simulated"]]
    generated = (
        [
            make_set(
                "brain", "all/sub-01", (1,), files, 1, *drawn, task_scores=tasks[0]
            ),
            make_set(
                "brain", "all/sub-02", (1,), files, 2, *drawn, task_scores=tasks[1]
            ),
        ]
        + [make_set("nearest", f"nearest/all/sub-0{n}", (1,), files, n) for n in (1, 2)]
        + [
            make_set(
                "shuffled",
                f"shuffled/all/sub-0{n}",
                (1,),
                no_files,
                n,
                task_scores=tasks[2],
            )
            for n in (1, 2)
        ]
    )
    run_folder, stimuli = (
        RunFolder(tmp_path),
        Stimuli(lambda i: Clip(pixels[i], 8), str),
    )
    summary = measure_run(
        run_folder,
        Recipe(metrics=["frame_ssim"], sheet_rows=1),
        generated,
        stimuli,
        "test",
        HERE,
        {},
        ReconstructionFacts(),
    )
    artifacts.write(run_folder, summary.artifacts)
    run_folder.finish(summary.measurements)
    return run_folder


def test_task_scores_have_a_floor_and_their_own_n_and_chance(measured):
    measurements = measured.measurements()

    brain, floor = (measurements.scopes[source] for source in ("brain", "shuffled"))
    # nothing was generated of shuffled pairs
    assert brain["frame_ssim"].n == 8
    assert "frame_ssim" not in floor
    assert (brain["concept_recall"].n, brain["concept_recall"].chance) == (
        6,
        pytest.approx(1 / 3),
    )
    assert brain["concept_recall"].value == pytest.approx((1 + 1 / 3) / 2)
    assert brain["concept_recall"].value > floor["concept_recall"].value
    # the second's mask is upside down, wherever it is
    assert (brain["mask_dice"].value, brain["mask_dice"].n) == (pytest.approx(2 / 3), 6)
    assert {brain[name].interval for name in ("mask_dice", "concept_recall")} == {
        "none: 3 pictures are too few"
    }
    assert (brain["bleu_1"].protocol, measurements.caveats) == (
        "brainhive, drawn, simulated",
        ["simulated"],
    )
    items = measurements.items["brain · all/sub-01"]
    assert items["mask_dice"] == [1, 0, 1, None]
    assert len(items["bleu_4"]) == 4
    ns_by_name = {
        (row.second, row.metric): row.n for row in measurements.facts.comparisons
    }
    assert ns_by_name["shuffled", "concept_recall"] == 6
    assert [metric for source, metric in ns_by_name if source == "nearest"] == [
        "frame_ssim"
    ]
