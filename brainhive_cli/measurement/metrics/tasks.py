"""Task scores: masks, concepts and captions that were decoded, compared with what
stimuli truly have.
"""

import importlib.util
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core.arrays import Bool, Float64
from brainhive_cli.core.errors import MissingExtra, install_line
from brainhive_cli.measurement.metrics import MetricScale

DICE = "mask_dice"
RECALL = "concept_recall"
OBJECT = "caption_object"
BLEU = {f"bleu_{order}": order for order in range(1, 5)}
"""Longest n-grams by name."""
ROUGE = {"rouge_1": "rouge1", "rouge_l": "rougeL"}
"""Our names to those of torchmetrics."""
LIBRARIES = {**dict.fromkeys([*BLEU, *ROUGE], "torchmetrics"), "cider": "pycocoevalcap"}
"""The library that each score of captions needs, both of the extra `captions`."""
WORD = re.compile(r"\w+(?:['-]\w+)*")
"""A word: hyphens and apostrophes stay inside of it."""
MIN_PROBABILITY = 0.5
"""Probability above which a pixel is the object's (NEURONS)."""
SCALES = {
    DICE: MetricScale(0.0, 1.0, ranks=False),
    RECALL: MetricScale(0.0, 1.0, ranks=False),
    OBJECT: MetricScale(0.0, 1.0, ranks=False),
    **{
        name: MetricScale(0.0, 10.0 if name == "cider" else 1.0, ranks=False)
        for name in LIBRARIES
    },
}
"""Items are not sorted by them: they are no scores of the pictures and clips that
people are shown.
"""


def dice(decoded: Tensor, true: Tensor) -> Float64:
    """Compute the Dice coefficient of decoded masks with their stimuli's: 2 |A ∩ B| /
    (|A| + |B|).

    Args:
        decoded: Probabilities [N, F, H, W]; a pixel is the object's above 0.5.
        true: 1 where the object is, else 0, [N, F, H, W].

    Returns:
        [N], over all frames and pixels of an item; NaN of a stimulus without an object,
        which has none.
    """
    # areas over all frames of an item
    inside = (decoded > MIN_PROBABILITY).flatten(1)
    object_mask = true.flatten(1).bool()
    area = object_mask.sum(1)
    values = (
        2 * (inside & object_mask).sum(1, dtype=torch.float64) / (inside.sum(1) + area)
    )
    return values.where(area > 0, torch.nan).numpy()


def recall_concepts(likelihood: NDArray[np.floating[Any]], true: Bool) -> Float64:
    """Find which concepts that a stimulus shows are among its k likeliest, k being how
    many it shows.

    Precision equals recall by this rule, so naming more concepts does not raise it, and
    no threshold is set. A guess of k among K is right with the chance k / K. A model
    that always names what is frequent is right more often without any signal: what
    shuffled pairs score is the floor.

    Args:
        likelihood: [N, K], on any scale; of equal ones the first come first.
        true: Which concepts each stimulus shows, [N, K].

    Returns:
        [N, K]: 1 where a concept is recalled, 0 where it is not, NaN where the stimulus
        does not show it.
    """
    # rank of each concept by its likelihood, from 0
    rank = np.argsort(np.argsort(-likelihood, 1, kind="stable"), 1)
    return np.where(true, rank < true.sum(1, keepdims=True), np.nan)


def find_named_objects(texts: Sequence[str], objects: Sequence[str]) -> Float64:
    """Find which captions name the object of their stimulus, as a word of its own or
    several in a row.

    Args:
        texts: Captions, [N].
        objects: Name of each stimulus' object, [N].

    Returns:
        [N]: 1 where the caption names it, else 0.
    """
    # blanks around words, so that no name matches inside of another word
    captions, names = (
        [f" {_split_words(text)} " for text in column] for column in (texts, objects)
    )
    return np.array(
        [float(name in caption) for caption, name in zip(captions, names, strict=True)]
    )


def score_captions(
    texts: Sequence[str], true: Sequence[Sequence[str]]
) -> dict[str, Float64]:
    """Compare captions with all true ones of their stimuli, by the metrics whose
    library is installed.

    Words are in lower case, without punctuation, as the tokenizer of COCO's evaluation
    leaves them, which also separates clitics (man 's); hyphens and apostrophes stay
    inside of words. BLEU: see `bleu`. ROUGE: F1 with the true caption that is nearest.
    CIDEr: CIDEr-D of COCO's evaluation, 0 to 10, n-grams weighed by how few of these N
    stimuli have them.

    Args:
        texts: [N].
        true: At least one a stimulus, [N].

    Returns:
        [N] by metric; no CIDEr of one item, whose n-grams have no weight.
    """
    # words between single spaces, in lower case
    written = [_split_words(text) for text in texts]
    truths = [[_split_words(text) for text in references] for references in true]
    values: dict[str, Float64] = {}

    # n-grams and longest common subsequences, by torchmetrics
    if not find_missing_library("bleu_1"):
        from torchmetrics.functional.text import rouge_score

        values |= bleu(written, truths)
        for name, key in ROUGE.items():
            scores = [
                rouge_score(
                    text,
                    [references],
                    rouge_keys=key,
                    normalizer=str,
                    tokenizer=str.split,
                )
                for text, references in zip(written, truths, strict=True)
            ]
            values[name] = np.array(
                [float(score[f"{key}_fmeasure"]) for score in scores]
            )

    # n-grams weighed by their rarity, by COCO's evaluation
    if not find_missing_library("cider") and len(written) > 1:
        from pycocoevalcap.cider.cider import Cider

        _, scores = Cider().compute_score(
            dict(enumerate(truths)), {n: [t] for n, t in enumerate(written)}
        )
        values["cider"] = np.asarray(scores, np.float64)
    return values


def _split_words(text: str) -> str:
    return " ".join(WORD.findall(text.lower()))


def bleu(texts: Sequence[str], true: Sequence[Sequence[str]]) -> dict[str, Float64]:
    """Compute BLEU of all captions together, as papers give it, and share it out among
    the items.

    BLEU is a ratio of sums over items, no mean of items. The value of an item is the
    BLEU of all plus what the item adds to it, N - 1 times the loss of leaving it out.
    The mean of these values is the BLEU of all, and their variance its jackknife
    variance, so that intervals and paired tests are of what is reported; that of one
    item may lie outside of 0 to 1.

    Args:
        texts: Words between single spaces, [N].
        true: At least one a stimulus, [N].

    Returns:
        [N] by metric, whose number is the longest n-grams.

    Source: Papineni et al. 2002, unsmoothed, with the nearest length; Efron and Stein
    1981 (jackknife).
    """
    from torchmetrics.text import BLEUScore

    # what BLEU sums up of each item: matching n-grams by length, all n-grams, and words
    # of both
    longest = max(BLEU.values())
    metric = BLEUScore(n_gram=longest, compute_with_cache=False)
    counts = []
    # one item at a time, so that the sums of others can be left out
    for text, references in zip(texts, true, strict=True):
        metric.reset()
        metric.update([text], [references])
        sizes = metric.preds_len, metric.target_len
        counts.append(
            torch.hstack((metric.numerator, metric.denominator, *sizes))
            .double()
            .numpy()
        )
    # of all, and without each
    sums = np.sum(counts, 0) - np.stack([np.zeros_like(counts[0]), *counts])

    # BLEU of all items, and without each
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.log(sums[:, :longest] / sums[:, longest:-2])  # [1 + N, n]
        brevity = np.minimum(0, 1 - sums[:, -1] / sums[:, -2])

    # value of an item: BLEU of all plus what the item adds to it
    values = {}
    for name, order in BLEU.items():
        score = np.nan_to_num(np.exp(brevity + precision[:, :order].mean(1)))
        values[name] = score[0] + (len(counts) - 1) * (score[1:].mean() - score[1:])
    return values


def find_missing_library(metric: str) -> MissingExtra | None:
    """Say how to install what a score needs; None if it is installed."""
    if (
        metric not in LIBRARIES
        or importlib.util.find_spec(LIBRARIES[metric]) is not None
    ):
        return None
    return MissingExtra(f"{metric} needs {LIBRARIES[metric]}", install_line("captions"))
