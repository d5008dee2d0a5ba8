"""All that is measured on one cell: rankings, subsets, curves, ceiling, regions and control, by subject."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Array, Float64, Int64
from brainhive_cli.core.cell_files import CellFile
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.measurements import TRIALS_TOGETHER
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.signals.augmentation import Augment, mix_repetitions, shuffle_repetitions
from brainhive_cli.data.signals.selection import inside, region_masks, window_starts
from brainhive_cli.evaluation.retrieval.rankings import (
    Ensemble,
    Gallery,
    Ranking,
    SplitRanks,
    controlled,
    encode_queries,
    rank_all,
    rank_corrected,
)
from brainhive_cli.evaluation.retrieval.recipe import EvaluationSpec, Sliding
from brainhive_cli.measurement.interleaving import Interleaving, separate_repetitions
from brainhive_cli.measurement.ranks import ranks_of_all, subset_expectations, subset_hits
from brainhive_cli.measurement.reliability import (
    average_halves,
    correlation_shares,
    rank_halves,
    unit_vectors,
)
from brainhive_cli.measurement.units import MANY_UNITS
from brainhive_cli.training.alignment.trained import TrainedModel

Hits = tuple[Float64, Float64]
"""Share of subsets in which an item was found first, [N] signal to image and [N] image to signal."""
Curve = dict[float, list[list[int]]]
"""Ranks [draws, N] by the number of repetitions, or by the centre of a window in milliseconds."""
DRAWS = 1000
"""Permutations of a control; the smallest p is 1 / (DRAWS + 1)."""
CONTROL_METRICS: Mapping[str, Callable[[Array], Array]] = {
    "top1": lambda ranks: (ranks == 1).mean(-1),
    "top5": lambda ranks: (ranks <= 5).mean(-1),
    "mean_rank": lambda ranks: ranks.mean(-1),
    "mrr": lambda ranks: (1 / ranks).mean(-1),
}
NEIGHBOURS = "repetitions of a picture follow one another, so halves would agree by slow drift alone"
SIGNALS_AT_ONCE = 64
"""Signals whose heads are predicted at once: 272,896 outputs of each are 70 MB."""


@dataclass(frozen=True)
class Ceiling:
    """Agreement of the halves of one subject's repetitions.

    Attributes:
        image_ids: [N] pictures with two repetitions at least.
        repetitions: The most that a picture has.
        ranks: [splits, N] of a picture's own signal in the other half.
        correlation: [N] share of each picture in the correlation over pictures of the halves, a mean over
            channels, times and splits: its mean over pictures is that correlation.
        times: Repetitions of a picture over those of its half, on average: 2 or, of odd numbers, more.
        reason: Why there is none; empty if there is.
    """

    image_ids: list[str]
    repetitions: int
    ranks: list[list[int]]
    correlation: list[float]
    times: float = 2.0
    reason: str = ""


@dataclass(frozen=True)
class RegionShares:
    """Share of each region in the heads that a cell predicts of one subject.

    Attributes:
        image_ids: [N], as those of a ranking.
        voxels: How many voxels each region has among those that the model reads.
        shares: By head and region, [N].
    """

    image_ids: list[str]
    voxels: Mapping[str, int]
    shares: Mapping[str, Mapping[str, list[float]]]


@dataclass(frozen=True)
class SubjectScores:
    """Measurements of one subject; what was not requested is None or empty.

    Attributes:
        ranking: Of all its signals.
        split_ranks: Of all pictures of the signals' split, which the verdict compares.
        subsets: Hits by metric: among drawn subsets, and among all possible ones, for whose share the drawn
            ones are an estimate.
        curves: By name.
        ceiling: Of the signals, whatever the model.
        control: Float64 [1 + K] of each metric: as it is measured, then in every draw of the control.
        regions: What each region carries of each head.
        corrected: Of similarities that were corrected, by the names of the corrections.
    """

    ranking: Ranking
    split_ranks: SplitRanks | None = None
    subsets: Mapping[str, Hits] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    ceiling: Ceiling | None = None
    control: Mapping[str, Float64] = field(default_factory=dict)
    regions: RegionShares | None = None
    corrected: Mapping[str, Ranking] = field(default_factory=dict)


@dataclass(frozen=True)
class CellScores(CellFile):
    """Measurements of one cell.

    Attributes:
        pool: Number of candidates.
        pictures: Image ids of those candidates that are pictures.
        concepts: What each of these shows, by image id, in the order of the data set.
        subjects: Scores by subject.
        are_trialwise: Whether tokens of test signals are those of one signal at a time.
    """

    pool: int
    pictures: list[str]
    concepts: Mapping[str, str]
    subjects: dict[int, SubjectScores]
    are_trialwise: bool = True

    stored_types = (SubjectScores, Ranking, SplitRanks, Interleaving, Ceiling, RegionShares)


@console.progress("ranking pictures by signals")
def measure_cell(ensemble: Ensemble, spec: EvaluationSpec) -> CellScores:
    """Measure everything requested of a cell; its gallery is encoded once.

    Args:
        ensemble: The cell's model, or several.
        spec: What is measured. A control permutes alike in all cells: seeds share a subject's signals.
    """
    # rank all subjects at once
    gallery = Gallery.of(ensemble, spec.splits, spec.distractors, spec.seed, spec.only_shown)
    queries = encode_queries(ensemble, gallery, spec.split, spec.control, spec.seed)
    rankings = rank_all(gallery, queries)
    corrected = rank_corrected(gallery, queries, spec.corrections)
    scores = {}

    # further measures of each subject
    for subject, signals in queries.items():
        # subsets of the pictures; all of these where they are fewer
        subsets = {}
        if spec.subsets:
            images, ways = gallery.tokens[signals.target], min(spec.subsets.ways, len(signals.target))
            drawn = subset_hits(signals.tokens, images, ways, spec.subsets.draws, spec.seed)
            subsets = {"top1": drawn, "top1_expected": subset_expectations(signals.tokens, images, ways)}

        # a control ranks all pictures of the split once, and looks up the permuted ones of each draw
        control = {}
        if spec.control != "none":
            split_ranks = ranks_of_all(
                signals.tokens, gallery.tokens, len(gallery.rows), gallery.distractors()
            )  # [N, M]
            seeds = (derive_seed(spec.seed, draw) for draw in range(DRAWS))
            parts = signals.interleaving.parts if signals.trials else ()
            targets = [signals.seen, *controlled(signals.seen, gallery, spec.control, seeds, parts)]
            rows = np.arange(len(signals.seen))
            drawn_ranks = np.stack([split_ranks[rows, target] for target in targets])  # [1 + K, N]
            control = {name: metric(drawn_ranks) for name, metric in CONTROL_METRICS.items()}

        # curves, ceiling and regions
        curves = {
            name: CURVES[name](ensemble, gallery, signals.target, subject, spec) for name in spec.curves
        }
        scores[subject] = SubjectScores(
            rankings[subject],
            SplitRanks.of(gallery, signals),
            subsets,
            curves,
            _open_ceiling(ensemble, subject, spec) if spec.ceiling_splits else None,
            control,
            measure_region_shares(ensemble.members[0], subject, spec.split) if spec.region_shares else None,
            {name: ranked[subject] for name, ranked in corrected.items()},
        )
    concepts = dict(zip(gallery.image_ids, gallery.concepts, strict=True))

    # a prediction that needs other test signals is no result of one trial
    dependent = [subject for subject, signals in queries.items() if signals.depend_on_each_other]
    if dependent:
        console.warn(
            f"{ensemble.cell.name}: tokens of subject {', '.join(map(str, dependent))} depend on the other "
            f"test signals, and every number is stamped “{TRIALS_TOGETHER}”; let the backbone use no mean or "
            "other statistic of the batch in evaluation mode"
        )
    return CellScores(gallery.pool, gallery.image_ids, concepts, scores, not dependent)


def over_repetitions(
    ensemble: Ensemble, gallery: Gallery, target: Int64, subject: int, spec: EvaluationSpec
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
    # numbers of repetitions
    trials, available = ensemble.single_trials(subject, spec.split)
    most, curve = int(available.max()), {}
    chosen = doubling(most) if spec.repetitions == "all" else spec.repetitions or []
    if max(chosen) > most:
        raise RecipeError(
            f"repetitions: {max(chosen)} of a picture requested, subject {subject} has {most}",
            "repetitions=all takes 1, 2, 4, … and all that there are",
        )

    # averages [N, C, T] of k random repetitions, alike for all members; of all there is one choice
    for k in chosen:
        tokens = []
        for draw in range(spec.repetition_draws if k < most else 1):
            averages = []
            for single in trials:  # [N, R, C, T]
                random = torch.Generator().manual_seed(derive_seed(spec.seed, subject, k, draw))
                shuffled = shuffle_repetitions(single, available, k, random)
                averages.append(mix_repetitions(*shuffled, Augment(), random))
            tokens.append(ensemble.tokens(subject, averages))
        curve[float(k)] = _rank_ways(gallery, tokens, target)
    return curve


def doubling(most: int) -> list[int]:
    """List 1, 2, 4, … and `most`."""
    return [*(2**n for n in range(most.bit_length()) if 2**n < most), most]


def over_time(
    ensemble: Ensemble, gallery: Gallery, target: Int64, subject: int, spec: EvaluationSpec
) -> Curve:
    """Rank with all of the signal but a window replaced, by the window's centre in milliseconds.

    Outside is the subject's mean training signal, in which no test picture has a part. The models are those
    trained on the whole signal: the curve says what they use of each window when nothing else distinguishes
    the pictures, not what a model trained on that window could decode.

    Raises:
        RecipeError: if the window is wider than the signal.
    """
    # signals, times and mean training signals as each member takes them
    sliding = spec.sliding or Sliding()
    signals, _ = ensemble.signals(subject, spec.split)
    responses = [member.responses(subject, spec.split) for member in ensemble.members]
    times_ms = [1000 * np.array(part.times_s) for part in responses]
    rest = [torch.from_numpy(member.mean_training_signal(subject)) for member in ensemble.members]

    # ranks with each window alone
    curve = {}
    for start_ms in window_starts(times_ms[0], sliding.width_ms, sliding.step_ms):
        masks = [torch.from_numpy(inside(times, start_ms, sliding.width_ms)) for times in times_ms]
        seen = [torch.where(*parts) for parts in zip(masks, signals, rest, strict=True)]
        centre_ms = round(start_ms + sliding.width_ms / 2, 3)
        curve[centre_ms] = _rank_ways(gallery, [ensemble.tokens(subject, seen)], target)
    return curve


CURVES = {"repetitions": over_repetitions, "sliding": over_time}
"""Function that measures each curve."""


def _rank_ways(gallery: Gallery, tokens: Sequence[Tensor], target: Int64) -> list[list[int]]:
    """Rank what the same items showed in several ways: [ways, N]."""
    ranked = gallery.rank(torch.cat(list(tokens)), np.tile(target, len(tokens)))
    return ranked.reshape(len(tokens), -1).tolist()  # type: ignore[no-any-return]


def _open_ceiling(ensemble: Ensemble, subject: int, spec: EvaluationSpec) -> Ceiling:
    """Measure the ceiling of a subject's signals, once for all cells: they depend on no model."""
    first = ensemble.members[0]

    def measure() -> Ceiling:
        (trials, *_), available = ensemble.single_trials(subject, spec.split)
        _, picture = ensemble.signals(subject, spec.split)
        image_ids = first.pictures(spec.split).image_ids
        ids = [image_ids[row] for row in picture]

        # halves are of repetitions that are far apart, as far as their times are known
        responses = first.responses(subject, spec.split)
        is_tested = ensemble.are_tested(responses, subject, spec.split)
        known = (responses.sessions, responses.runs, responses.onset_s)
        sessions, *times = (None if values is None else values[is_tested] for values in known)
        is_there = (torch.arange(trials.shape[1]) < available[:, None]).numpy()
        parts = separate_repetitions(is_there, sessions, *times)
        if parts is None:
            return Ceiling([], int(available.max()), [], [], reason=NEIGHBOURS)

        # what all pictures of a session share is no agreement of a picture's repetitions
        for number in np.unique(sessions[is_there]) if sessions is not None else ():
            is_of_session = torch.from_numpy(is_there & (sessions == number))
            if int(is_of_session.any(1).sum()) >= MANY_UNITS:
                trials[is_of_session] -= trials[is_of_session].mean(0)
        seed = derive_seed(spec.seed, subject)
        return measure_ceiling(trials, available, ids, spec.ceiling_splits, seed, torch.from_numpy(parts))

    return first.run.once(first.key("ceiling", subject, spec.split), measure)


def measure_ceiling(
    trials: Tensor,
    available: Tensor,
    image_ids: Sequence[str],
    splits: int,
    seed: int,
    parts: Tensor | None = None,
) -> Ceiling:
    """Halve the single trials [N, R, …] of pictures at random, `splits` times; [N] of the R exist.

    Halves are of different `parts` [N, R] of the recording, see `separate_repetitions`.
    """
    # pictures that were repeated
    is_there = torch.arange(trials.shape[1]) < available[:, None]  # [N, R]
    numbers = torch.arange(trials.shape[1]).expand(is_there.shape) if parts is None else parts
    most, is_repeated = int(available.max()), numbers.masked_fill(~is_there, 0).amax(1) >= 1
    ids = [*compress(image_ids, is_repeated.tolist())]
    if len(ids) < 2:
        few = "one repetition of each picture" if most < 2 else "fewer than two pictures were repeated"
        return Ceiling([], most, [], [], reason=few)
    if not is_repeated.all():
        trials, available, is_there = trials[is_repeated], available[is_repeated], is_there[is_repeated]
        parts = None if parts is None else parts[is_repeated]
    signal = trials.flatten(2)  # [N, R, F]
    if not is_there.all():  # the padding may be NaN
        signal = signal.masked_fill(~is_there[:, :, None], 0)

    # ranks of the pictures, and their shares in the correlation of the halves, by split
    ranks_by_split, shares, sizes = [], [], []
    with console.progress("measuring the ceiling", splits) as bar:
        for split in range(splits):
            random = torch.Generator().manual_seed(derive_seed(seed, split))
            *halves, size = average_halves(signal, available, random, parts=parts)
            ranks_by_split.append(rank_halves(*halves).tolist())
            shares.append(correlation_shares(*(unit_vectors(half.numpy()) for half in halves)).mean(1))
            sizes.append(float(size.sum()))
            bar.advance()
    times = float(available.sum()) / float(np.mean(sizes))
    return Ceiling(ids, most, ranks_by_split, np.mean(shares, 0).tolist(), times)


def measure_region_shares(member: TrainedModel, subject: int, split: str) -> RegionShares:
    """Replace the voxels of each region by their mean over training signals, and predict again.

    A share is the squared change of a head's prediction, over that with all voxels replaced: 0 where the
    region has no effect. Shares of regions that interact, or overlap, do not add up to 1.

    Raises:
        RecipeError: if the signals are not of voxels.
    """
    # voxels of each region, and the mean training signal
    trials = member.responses(subject, split)
    rest = torch.from_numpy(member.mean_training_signal(subject))  # [V, 1]
    regions = region_masks(trials.regions, len(rest))
    masks = {name: torch.from_numpy(mask) for name, mask in regions.items()}
    if not masks:
        raise RecipeError("region_shares is of voxels in regions, which the signals have not", "leave it")

    # squared change of each head without a region, over that without all voxels, [N] each
    empty = member.predicted(subject, rest[None])
    shares: dict[str, dict[str, list[float]]] = {head: {name: [] for name in masks} for head in empty}
    for part in torch.from_numpy(trials.signal).split(SIGNALS_AT_ONCE):
        predicted = member.predicted(subject, part)
        total = {
            head: (values - empty[head]).flatten(1).square().sum(1).cpu()
            for head, values in predicted.items()
        }
        for name, mask in masks.items():
            for head, values in member.predicted(subject, torch.where(mask, rest, part)).items():
                change = (predicted[head] - values).flatten(1).square().sum(1).cpu()
                shares[head][name] += (change / total[head].clamp(min=1e-30)).tolist()
    image_ids = member.pictures(split).image_ids
    ids = member.name_trials(subject, split)[0] or [image_ids[row] for row in trials.stimulus]
    return RegionShares(ids, {name: int(mask.sum()) for name, mask in masks.items()}, shares)
