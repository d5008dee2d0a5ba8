"""Scores of decoded masks, concepts and captions."""

import importlib.util
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core.base import Bool, Float64, MissingExtra, install_line
from brainhive_cli.measurement.metrics import MetricScale

DICE = "mask_dice"
RECALL = "concept_recall"
OBJECT = "caption_object"
BLEU = {f"bleu_{order}": order for order in range(1, 5)}
"""Length of the longest n-grams of each BLEU score, by its name."""
ROUGE = {"rouge_1": "rouge1", "rouge_l": "rougeL"}
"""Name in torchmetrics of each ROUGE score, by its name here."""
CIDER = "cider"
LIBRARIES = dict.fromkeys(list(BLEU) + list(ROUGE), "torchmetrics") | {
    CIDER: "pycocoevalcap"
}
"""Library of each caption score. Both libraries belong to the extra `captions`."""
SHARE_SCALE = MetricScale(0.0, 1.0, sorts_items=False)
"""Scale of scores from 0 to 1 that do not sort items."""
SCALES = (
    {DICE: SHARE_SCALE, RECALL: SHARE_SCALE, OBJECT: SHARE_SCALE}
    | dict.fromkeys(LIBRARIES, SHARE_SCALE)
    | {CIDER: MetricScale(0.0, 10.0, sorts_items=False)}
)
"""Scale of each score, by its name. Items are not sorted by these scores, because they
do not measure the pictures and clips in the tables.
"""


def dice(decoded: Tensor, masks: Tensor) -> Float64:
    """Compute the Dice coefficient 2 |A ∩ B| / (|A| + |B|) of decoded and true masks.

    Args:
        decoded: Decoded probabilities [N, F, H, W] that a pixel belongs to the object.
        masks: Masks [N, F, H, W] of the stimuli: 1 for pixels of the object, else 0.

    Returns:
        Coefficient [N] over all frames and pixels. NaN if a stimulus has no object.
    """
    # Probability above which a pixel belongs to the object (NEURONS).
    is_decoded = (decoded > 0.5).flatten(1)
    is_object = masks.flatten(1).bool()
    object_area = is_object.sum(1)
    common_area = (is_decoded & is_object).sum(1, dtype=torch.float64)
    values = 2 * common_area / (is_decoded.sum(1) + object_area)
    return values.where(object_area > 0, torch.nan).numpy()


def recall_concepts(likelihood: NDArray[np.floating[Any]], is_shown: Bool) -> Float64:
    """Mark the concepts of each stimulus that a model has recalled from the signal.

    The k most likely concepts are recalled if the stimulus shows k concepts.

    Args:
        likelihood: Decoded likelihood [N, K] of each concept, on any scale. The first
            of equal likelihoods counts as higher.
        is_shown: Mask [N, K] of the concepts that each stimulus shows.

    Returns:
        Values [N, K]: 1 if a shown concept is recalled, 0 if it is not, and NaN if the
        concept is not shown.
    """
    # rank of each concept, from 0 for the likeliest
    ranks = np.argsort(np.argsort(-likelihood, 1, kind="stable"), 1)
    is_recalled = ranks < is_shown.sum(1, keepdims=True)
    return np.where(is_shown, is_recalled, np.nan)


def find_named_objects(texts: Sequence[str], objects: Sequence[str]) -> Float64:
    """Mark the decoded captions that contain the name of the stimulus's object.

    Args:
        texts: Decoded caption [N] for each stimulus.
        objects: Name [N] of the object in each stimulus, such as "hot dog".

    Returns:
        Values [N]: 1 if the words of the name follow each other in the caption, else 0.
    """
    hits = []
    for text, object_name in zip(texts, objects, strict=True):
        # the blanks keep "cat" from matching inside "catch"
        caption = f" {_split_words(text)} "
        name = f" {_split_words(object_name)} "
        hits.append(float(name in caption))
    return np.array(hits)


def score_captions(
    texts: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, Float64]:
    """Compare captions with the reference captions of their stimuli.

    Case and punctuation are ignored, except for hyphens and apostrophes inside words.
    ROUGE is the F1 with the most similar reference. CIDEr is CIDEr-D, from 0 to 10.

    Args:
        texts: Caption [N] of each stimulus.
        references: Reference captions [N] of each stimulus, at least one.

    Returns:
        Values [N], keyed by metric. A metric whose library is missing is left out, and
        so is CIDEr for a single item.
    """
    captions = [_split_words(text) for text in texts]
    split_references = []
    for item_references in references:
        split_references.append([_split_words(text) for text in item_references])
    values: dict[str, Float64] = {}

    if not find_missing_library("bleu_1"):
        from torchmetrics.functional.text import rouge_score

        values |= bleu(captions, split_references)
        for name, key in ROUGE.items():
            scores = []
            for caption, item_references in zip(
                captions, split_references, strict=True
            ):
                score = rouge_score(
                    caption,
                    [item_references],
                    rouge_keys=key,
                    normalizer=str,
                    tokenizer=str.split,
                )
                scores.append(float(score[f"{key}_fmeasure"]))
            values[name] = np.array(scores)

    if not find_missing_library(CIDER) and len(captions) > 1:
        from pycocoevalcap.cider.cider import Cider

        captions_by_item = {item: [text] for item, text in enumerate(captions)}
        references_by_item = dict(enumerate(split_references))
        _, cider = Cider().compute_score(references_by_item, captions_by_item)
        values[CIDER] = np.asarray(cider, np.float64)
    return values


def _split_words(text: str) -> str:
    """Return the words of a text in lower case, joined by single blanks."""
    # Matches a word, including its hyphens and apostrophes.
    return " ".join(re.findall(r"\w+(?:['-]\w+)*", text.lower()))


def bleu(
    texts: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, Float64]:
    """Compute a value for each item, so that the mean is the BLEU of all captions.

    The jackknife's pseudo-value is b + (N - 1) * (m - b_i), for BLEU b of all items,
    BLEU b_i without item i, and the mean m of all b_i.

    Args:
        texts: Caption [N] of each stimulus, with single blanks between words.
        references: Reference captions [N] of each stimulus, at least one.

    Returns:
        Values [N], keyed by metric, `bleu_1` to `bleu_4`.

    Source: Papineni et al. 2002 (BLEU, without smoothing, with the reference of nearest
    length). Efron and Stein 1981 (jackknife).
    """
    from torchmetrics.text import BLEUScore

    # counts of each item: matching n-grams and all n-grams by length, words of the
    # caption, words of the reference
    longest = max(BLEU.values())
    metric = BLEUScore(n_gram=longest, compute_with_cache=False)
    counts = []
    for text, item_references in zip(texts, references, strict=True):
        metric.reset()
        metric.update([text], [item_references])
        item_counts = torch.hstack(
            (
                metric.numerator,
                metric.denominator,
                metric.preds_len,
                metric.target_len,
            )
        )
        counts.append(item_counts.double().numpy())

    # sums over all items in row 0, and without an item in each further row
    counts_of_item = np.stack(counts)
    total = counts_of_item.sum(0)
    sums = np.vstack([total, total - counts_of_item])  # [1 + N, counts]

    # precision of n-grams, and penalty for short captions
    with np.errstate(divide="ignore", invalid="ignore"):
        log_precision = np.log(sums[:, :longest] / sums[:, longest:-2])  # [1 + N, n]
        log_penalty = np.minimum(0, 1 - sums[:, -1] / sums[:, -2])

    # BLEU of all items and without each item, then the pseudo-values
    values = {}
    for name, order in BLEU.items():
        log_score = log_penalty + log_precision[:, :order].mean(1)
        score = np.nan_to_num(np.exp(log_score))  # [1 + N]
        losses = score[1:].mean() - score[1:]
        values[name] = score[0] + (len(counts) - 1) * losses
    return values


def find_missing_library(metric: str) -> MissingExtra | None:
    """Find out if the library that computes a score is not installed.

    Args:
        metric: Name of the score, such as `bleu_1` or `cider`.

    Returns:
        Error that says how to install the library, or None if no library is missing.
    """
    library = LIBRARIES.get(metric)
    if library is None or importlib.util.find_spec(library) is not None:
        return None
    return MissingExtra(f"{metric} needs {library}", install_line("captions"))
