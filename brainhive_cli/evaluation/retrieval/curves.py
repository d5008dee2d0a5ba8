"""How accuracy grows with the repetitions that are averaged, and when in time the signal carries it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.signals.augmentation import Augment, mix_repetitions, shuffle_repetitions
from brainhive_cli.data.signals.selection import inside, window_starts
from brainhive_cli.evaluation.retrieval.ensembles import Ensemble
from brainhive_cli.evaluation.retrieval.rankings import Gallery, Places
from brainhive_cli.evaluation.retrieval.recipe import EvaluationSpec, Sliding

Curve = dict[float, list[list[int]]]
"""Ranks [draws, N] by the number of repetitions, or by the centre of a window in milliseconds."""


def over_repetitions(
    ensemble: Ensemble, gallery: Gallery, target: Places, subject: int, spec: EvaluationSpec
) -> Curve:
    """Rank with k repetitions averaged, for each k; which ones is drawn at random, several times.

    A picture with fewer repetitions averages all it has.

    Args:
        ensemble: The models.
        gallery: The candidates.
        target: [N] what each signal showed.
        subject: Whose signals.
        spec: Which k, and how often they are drawn.

    Raises:
        RecipeError: if there are fewer repetitions than requested.
    """
    trials, available = ensemble.single_trials(subject, spec.split)
    most, curve = int(available.max()), {}
    chosen = doubling(most) if spec.repetitions == "all" else spec.repetitions or []
    if max(chosen) > most:
        raise RecipeError(
            f"repetitions: {max(chosen)} of a picture requested, subject {subject} has {most}",
            "repetitions=all takes 1, 2, 4, … and all that there are",
        )
    for k in chosen:
        averages = [
            [_average_some(each, available, k, derive_seed(spec.seed, subject, k, draw)) for each in trials]
            for draw in range(spec.repetition_draws if k < most else 1)
        ]
        curve[float(k)] = _ranked(gallery, [ensemble.tokens(subject, each) for each in averages], target)
    return curve


def doubling(most: int) -> list[int]:
    """List 1, 2, 4, … and `most`."""
    return [*(2**n for n in range(most.bit_length()) if 2**n < most), most]


def _average_some(trials: Tensor, available: Tensor, k: int, seed: int) -> Tensor:
    """Average k random repetitions of trials [N, R, C, T], or as many as there are [N]: [N, C, T]."""
    random = torch.Generator().manual_seed(seed)
    return mix_repetitions(*shuffle_repetitions(trials, available, k, random), Augment(), random)


def over_time(
    ensemble: Ensemble, gallery: Gallery, target: Places, subject: int, split: str, sliding: Sliding
) -> Curve:
    """Rank with all of the signal but a window replaced, by the window's centre in milliseconds.

    Outside is the subject's mean training signal, in which no test picture has a part. The models are those
    trained on the whole signal: the curve says what they use of each window when nothing else distinguishes
    the pictures, not what a model trained on that window could decode.

    Raises:
        RecipeError: if the window is wider than the signal.
    """
    signals, _ = ensemble.signals(subject, split)
    times_ms = [1000 * np.array(member.responses(subject, split).times_s) for member in ensemble.members]
    rest = [torch.from_numpy(member.mean_training_signal(subject)) for member in ensemble.members]
    curve = {}
    for start_ms in window_starts(times_ms[0], sliding.width_ms, sliding.step_ms):
        masks = [torch.from_numpy(inside(each, start_ms, sliding.width_ms)) for each in times_ms]
        seen = [torch.where(*each) for each in zip(masks, signals, rest, strict=True)]
        centre_ms = round(start_ms + sliding.width_ms / 2, 3)
        curve[centre_ms] = _ranked(gallery, [ensemble.tokens(subject, seen)], target)
    return curve


def _ranked(gallery: Gallery, tokens: Sequence[Tensor], target: Places) -> list[list[int]]:
    """Rank what the same items showed in several ways: [ways, N]."""
    found = gallery.rank(torch.cat(list(tokens)), np.tile(target, len(tokens)))
    return found.reshape(len(tokens), -1).tolist()  # type: ignore[no-any-return]
