"""All that is measured on one cell: ranks, subsets, curves, ceiling, regions and control, by subject."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import compress

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.measurements import TRIALS_TOGETHER
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.signals.augmentation import Augment, mix_repetitions, shuffle_repetitions
from brainhive_cli.data.signals.selection import inside, region_masks, window_starts
from brainhive_cli.evaluation.retrieval.rankings import Gallery, Models, encode_signals, tested_trials
from brainhive_cli.evaluation.retrieval.recipe import EvaluationSpec, Sliding
from brainhive_cli.evaluation.retrieval.scores import (
    CellScores,
    Scores,
    encode_items,
    rank,
    rank_corrected,
    rank_split,
)
from brainhive_cli.measurement.interleaving import separate_repetitions
from brainhive_cli.measurement.ranks import subset_expectations, subset_hits
from brainhive_cli.measurement.reliability import (
    average_halves,
    correlation_shares,
    rank_halves,
    unit_vectors,
)
from brainhive_cli.measurement.units import MANY_UNITS
from brainhive_cli.training.alignment.trained import TrainedModel

Points = Iterator[tuple[float, list[Tensor]]]
"""Number of repetitions, or centre of a window in milliseconds, with the tokens [N, D] of each draw."""
NEIGHBOURS = "repetitions of a picture follow one another, so halves would agree by slow drift alone"
SIGNALS_AT_ONCE = 64
"""Signals whose heads are predicted at once: 272,896 outputs of each are 70 MB."""


@console.progress("ranking pictures by signals")
def measure_cell(models: Models, spec: EvaluationSpec) -> CellScores:
    """Measure everything requested of a cell; its gallery is encoded once.

    Args:
        models: The cell's model, or several.
        spec: What is measured. A control permutes alike in all cells: seeds share a subject's signals.
    """
    # rank all subjects at once
    gallery = Gallery.of(models, spec.splits, spec.distractors, spec.seed, spec.only_shown)
    tokens, items = {}, {}
    for subject in models[0].cell.tested_on:
        tokens[subject], items[subject] = encode_items(models, gallery, subject, spec)
    scores = rank(gallery, tokens, items)
    corrected = rank_corrected(gallery, tokens, items, spec.corrections)

    # further measures of each subject
    for subject, signals in tokens.items():
        # subsets of the pictures; all of these where they are fewer
        target, subsets = gallery.find(items[subject].labels), {}
        if spec.subsets:
            images, ways = gallery.tokens[target], min(spec.subsets.ways, len(target))
            drawn = subset_hits(signals, images, ways, spec.subsets.draws, spec.seed)
            subsets = {"top1": drawn, "top1_expected": subset_expectations(signals, images, ways)}

        # ranks [draws, N] at the points of curves
        curves = {
            name: {
                at: gallery.rank(torch.cat(draws), np.tile(target, len(draws)))
                .numpy()
                .reshape(len(draws), -1)
                for at, draws in CURVES[name](models, subject, spec)
            }
            for name in spec.curves
        }

        # ranks for the verdict, ceiling and regions
        scores[subject] = replace(
            rank_split(gallery, signals, scores[subject]),
            subsets=subsets,
            curves=curves,
            ceiling=_open_ceiling(models, subject, spec) if spec.ceiling_splits else None,
            regions=measure_region_shares(models[0], subject, spec.split) if spec.region_shares else None,
            corrected={name: ranked[subject] for name, ranked in corrected.items()},
        )

    # a prediction that needs other test signals is no result of one trial
    if dependent := [str(subject) for subject, listed in items.items() if not listed.is_trialwise]:
        console.warn(
            f"{models[0].cell.name}: tokens of subject {', '.join(dependent)} depend on the other "
            f"test signals, and every number is stamped “{TRIALS_TOGETHER}”; let the backbone use no mean or "
            "other statistic of the batch in evaluation mode"
        )
    return CellScores(gallery.pool, gallery.image_ids, gallery.concepts, scores)


def over_repetitions(models: Models, subject: int, spec: EvaluationSpec) -> Points:
    """Average k repetitions, for each k; which ones is drawn at random, several times.

    A picture with fewer repetitions averages all it has.

    Raises:
        RecipeError: if there are fewer repetitions than requested.
    """
    # numbers of repetitions
    trials = tested_trials(models, subject, spec.split)
    singles = [torch.from_numpy(each.singles) for each in trials]
    available = torch.from_numpy(trials[0].counts)
    most = int(available.max())
    chosen = doubling(most) if spec.repetitions == "all" else spec.repetitions or []
    if max(chosen) > most:
        raise RecipeError(
            f"repetitions: {max(chosen)} of a picture requested, subject {subject} has {most}",
            "repetitions=all takes 1, 2, 4, … and all that there are",
        )

    # averages [N, C, T] of k random repetitions, alike for all models; of all there is one choice
    for k in chosen:
        tokens = []
        for draw in range(spec.repetition_draws if k < most else 1):
            averages = []
            for single in singles:  # [N, R, C, T]
                random = torch.Generator().manual_seed(derive_seed(spec.seed, subject, k, draw))
                shuffled = shuffle_repetitions(single, available, k, random)
                averages.append(mix_repetitions(*shuffled, Augment(), random))
            tokens.append(encode_signals(models, subject, averages))
        yield float(k), tokens


def doubling(most: int) -> list[int]:
    """List 1, 2, 4, … and `most`."""
    return [*(2**n for n in range(most.bit_length()) if 2**n < most), most]


def over_time(models: Models, subject: int, spec: EvaluationSpec) -> Points:
    """Replace all of the signal but a window, by the window's centre in milliseconds.

    Outside is the subject's mean training signal, in which no test picture has a part. The models are those
    trained on the whole signal: the curve says what they use of each window when nothing else distinguishes
    the pictures, not what a model trained on that window could decode.

    Raises:
        RecipeError: if the window is wider than the signal.
    """
    # signals, times and mean training signals as each model takes them
    sliding = spec.sliding or Sliding()
    trials = tested_trials(models, subject, spec.split)
    signals = [torch.from_numpy(each.averages) for each in trials]
    times_ms = [1000 * each.times_s for each in trials]
    rest = [torch.from_numpy(model.mean_training_signal(subject)) for model in models]

    # tokens of each window alone
    for start_ms in window_starts(times_ms[0], sliding.width_ms, sliding.step_ms):
        masks = [torch.from_numpy(inside(times, start_ms, sliding.width_ms)) for times in times_ms]
        seen = [torch.where(*parts) for parts in zip(masks, signals, rest, strict=True)]
        centre_ms = round(start_ms + sliding.width_ms / 2, 3)
        yield centre_ms, [encode_signals(models, subject, seen)]


CURVES = {"repetitions": over_repetitions, "sliding": over_time}
"""Function that measures each curve."""


def _open_ceiling(models: Models, subject: int, spec: EvaluationSpec) -> Scores:
    """Measure the ceiling of a subject's signals, once for all cells: they depend on no model."""

    def measure() -> Scores:
        tested = tested_trials(models, subject, spec.split)[0]
        trials, available = torch.from_numpy(tested.singles), torch.from_numpy(tested.counts)
        image_ids = models[0].pictures(spec.split).image_ids
        ids = [image_ids[row] for row in tested.stimulus]

        # halves are of repetitions that are far apart, as far as their times are known
        sessions, times = tested.sessions, (tested.runs, tested.onset_s)
        is_there = (torch.arange(trials.shape[1]) < available[:, None]).numpy()
        parts = separate_repetitions(is_there, sessions, *times)
        if parts is None:
            return Scores(repetitions=int(available.max()), reason=NEIGHBOURS)

        # what all pictures of a session share is no agreement of a picture's repetitions
        for number in np.unique(sessions[is_there]) if sessions is not None else ():
            is_of_session = torch.from_numpy(is_there & (sessions == number))
            if int(is_of_session.any(1).sum()) >= MANY_UNITS:
                trials[is_of_session] -= trials[is_of_session].mean(0)
        seed = derive_seed(spec.seed, subject)
        return measure_ceiling(trials, available, ids, spec.ceiling_splits, seed, torch.from_numpy(parts))

    return models[0].once("ceiling", subject, spec.split, measure)


def measure_ceiling(
    trials: Tensor,
    available: Tensor,
    image_ids: Sequence[str],
    splits: int,
    seed: int,
    parts: Tensor | None = None,
) -> Scores:
    """Halve the single trials [N, R, …] of pictures at random, `splits` times; [N] of the R exist.

    Halves are of different `parts` [N, R] of the recording, see `separate_repetitions`.
    """
    # pictures that were repeated
    numbers = torch.arange(trials.shape[1])
    is_there = numbers < available[:, None]  # [N, R]
    parts = numbers.expand(is_there.shape) if parts is None else parts
    most, is_repeated = int(available.max()), parts.masked_fill(~is_there, 0).amax(1) >= 1
    ids = [*compress(image_ids, is_repeated.tolist())]
    if len(ids) < 2:
        few = "one repetition of each picture" if most < 2 else "fewer than two pictures were repeated"
        return Scores(repetitions=most, reason=few)
    if not is_repeated.all():
        trials, available, is_there, parts = (
            values[is_repeated] for values in (trials, available, is_there, parts)
        )
    signal = trials.flatten(2)  # [N, R, F]
    if not is_there.all():  # the padding may be NaN
        signal = signal.masked_fill(~is_there[:, :, None], 0)

    # ranks of the pictures, and their shares in the correlation of the halves, by split
    ranks_by_split, shares, sizes = [], [], []
    with console.progress("measuring the ceiling", splits) as bar:
        for split in range(splits):
            random = torch.Generator().manual_seed(derive_seed(seed, split))
            *halves, size = average_halves(signal, available, random, parts=parts)
            ranks_by_split.append(rank_halves(*halves).numpy())
            shares.append(correlation_shares(*(unit_vectors(half.numpy()) for half in halves)).mean(1))
            sizes.append(float(size.sum()))
            bar.advance()
    times = float(available.sum()) / float(np.mean(sizes))
    ranks, correlation = np.stack(ranks_by_split), np.mean(shares, 0)
    return Scores(ids, ranks=ranks, correlation=correlation, repetitions=most, times=times)


def measure_region_shares(member: TrainedModel, subject: int, split: str) -> Scores:
    """Replace the voxels of each region by their mean over training signals, and predict again.

    A share is the squared change of a head's prediction, over that with all voxels replaced: 0 where the
    region has no effect. Shares of regions that interact, or overlap, do not add up to 1.

    Raises:
        RecipeError: if the signals are not of voxels.
    """
    # voxels of each region, and the mean training signal
    trials = member.trials(subject, split)
    rest = torch.from_numpy(member.mean_training_signal(subject))  # [V, 1]
    regions = region_masks(trials.regions, len(rest))
    masks = {name: torch.from_numpy(mask) for name, mask in regions.items()}
    if not masks:
        raise RecipeError("region_shares is of voxels in regions, which the signals have not", "leave it")

    # squared change [N] of each head without a region, over that without all voxels
    def measure_change(values: Tensor, changed: Tensor) -> Tensor:
        return (values - changed).flatten(1).square().sum(1).cpu()

    empty = member.predicted(subject, rest[None])
    shares: dict[str, dict[str, list[float]]] = {head: {name: [] for name in masks} for head in empty}
    for part in torch.from_numpy(trials.averages).split(SIGNALS_AT_ONCE):
        predicted = member.predicted(subject, part)
        for name, mask in masks.items():
            for head, values in member.predicted(subject, torch.where(mask, rest, part)).items():
                total = measure_change(predicted[head], empty[head]).clamp(min=1e-30)
                shares[head][name] += (measure_change(predicted[head], values) / total).tolist()
    image_ids = member.pictures(split).image_ids
    ids = member.name_trials(subject, split)[0] or [image_ids[row] for row in trials.stimulus]
    voxels = {name: int(mask.sum()) for name, mask in masks.items()}
    return Scores(ids, voxels=voxels, shares=shares)
