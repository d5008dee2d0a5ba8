"""Task scores, by hand and by small simulations: masks, concepts and captions."""

import numpy as np
import pytest
import torch

from brainhive_cli.measurement.metrics.tasks import (
    bleu,
    dice,
    recall_concepts,
    score_captions,
)
from brainhive_cli.measurement.statistics import estimate_interval

RANDOM = np.random.default_rng(0)


def test_dice_is_twice_the_common_pixels_divided_by_all():
    true_masks = torch.zeros(3, 2, 4, 4, dtype=torch.uint8)
    true_masks[:2, :, 0] = 1  # 4 pixels in each of two frames
    decoded = torch.full((3, 2, 4, 4), 0.5)  # at the threshold: outside
    decoded[0, 0, 0] = 0.51  # a frame of two: 2 · 4 / (4 + 8)
    decoded[1, :, 1:3] = 0.9

    values = dice(decoded, true_masks)

    assert values[:2] == pytest.approx([2 / 3, 0])
    assert np.isnan(values[2])


def test_recall_counts_as_many_concepts_as_the_stimulus_shows():
    likelihood = np.array(
        [[0.9, 0.2, 0.8, 0.1], [0.9, 0.2, 0.8, 0.1], [0.1, 0.1, 0.1, 0.1]]
    )
    shown_concepts = np.array(
        [[True, False, True, False], [False, False, True, False], [False] * 4]
    )

    assert np.array_equal(
        recall_concepts(likelihood, shown_concepts),
        [[1, np.nan, 1, np.nan], [np.nan, np.nan, 0, np.nan], [np.nan] * 4],
        equal_nan=True,
    )


def test_bleu_is_that_of_the_paper_and_of_torchmetrics():
    from torchmetrics.functional.text import bleu_score

    # Papineni et al. 2002, example 2: clipped
    assert bleu(
        ["the the the the the the the"],
        [["the cat is on the mat", "there is a cat on the mat"]],
    )["bleu_1"] == pytest.approx([2 / 7])
    # all right, but brief
    assert bleu(["the cat"], [["the cat is on the mat"]])["bleu_2"] == pytest.approx(
        [np.exp(1 - 6 / 2)]
    )

    captions = [" ".join(RANDOM.choice(list("abcdef"), 8)) for _ in range(90)]
    texts, references = captions[:30], [captions[30 + n : 90 : 30] for n in range(30)]
    for order in range(1, 5):
        expected = float(bleu_score(texts, references, n_gram=order))
        assert bleu(texts, references)[f"bleu_{order}"].mean() == pytest.approx(
            expected, abs=1e-6
        )


@pytest.mark.nightly
def test_the_interval_of_bleu_is_as_wide_as_new_captions_vary():
    """Its width is that of 200 corpora of 60 captions drawn anew, to a fifth: of which
    5 % is their noise.
    """

    def corpus():
        lengths = RANDOM.integers(4, 12, 60)
        texts = [RANDOM.choice(list("abcdef"), length) for length in lengths]
        return [" ".join(text) for text in texts], [
            [" ".join(RANDOM.permutation(t)[:6])] for t in texts
        ]

    corpus_means = [bleu(*corpus())["bleu_2"].mean() for _ in range(200)]
    intervals = [estimate_interval([bleu(*corpus())["bleu_2"]]) for _ in range(10)]
    widths = [interval.high - interval.low for interval in intervals]

    assert np.mean(widths) == pytest.approx(2 * 2.0 * np.std(corpus_means), rel=0.2)


def test_captions_are_compared_without_case_and_punctuation():
    scores = score_captions(
        ["A man rides, slowly!", "a dog"], [["x y z", "a man rides slowly"], ["a cat"]]
    )

    assert scores["rouge_1"] == pytest.approx([1, 0.5])
    assert scores["rouge_l"] == pytest.approx([1, 0.5])
    turned = score_captions(["slowly rides a man"], [["a man rides slowly"]])
    assert turned["rouge_1"] == pytest.approx([1])
    assert turned["rouge_l"] == pytest.approx([0.5])
    assert scores["bleu_1"].mean() == pytest.approx(5 / 6)
    quoted = score_captions(
        ["a 'stop' sign - it's well-worn"], [["a stop sign it's well-worn"]]
    )
    assert quoted["rouge_1"] == pytest.approx([1])  # quotes and dashes are no words
    assert score_captions(["", ""], [["a"], ["b"]])["bleu_4"] == pytest.approx([0, 0])


def test_cider_is_ten_for_true_captions_and_ignores_common_words():
    pytest.importorskip(
        "pycocoevalcap.cider.cider", reason="pycocoevalcap is not installed"
    )
    true_captions = [["a man rides a brown horse"], ["a red car drives past a house"]]

    scores_of_true = score_captions(
        [captions[0] for captions in true_captions], true_captions
    )["cider"]
    shuffled = score_captions(
        [captions[0] for captions in reversed(true_captions)], true_captions
    )["cider"]

    assert scores_of_true == pytest.approx([10, 10])
    assert shuffled == pytest.approx([0, 0])
    # a single item: no word is rarer than others
    assert "cider" not in score_captions(["a man"], [["a man"]])
