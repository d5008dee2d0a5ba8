"""A single channel that carries a result alone, such as a noisy trigger."""

from collections.abc import Sequence

import numpy as np
import torch

from brainhive_cli.core.base import Int64
from brainhive_cli.evaluation.retrieval.job import Job
from brainhive_cli.evaluation.retrieval.measure import (
    encode_gallery,
    open_gallery,
    open_signals,
)
from brainhive_cli.measurement import FeatureScaler, Products, rank_targets
from brainhive_cli.training.alignment.trained import open_targets


def find_lone_channel(job: Job, device: torch.device) -> str:
    """Find a channel that ranks stimuli better than any other, and than all together.

    Ridge regressions on each channel are compared, then on all other channels.

    Returns:
        Name of the channel. Empty without such a channel, and for voxels.
    """
    names = job.runs[0].open_first().layout.spec.names
    if len(names) < 2:
        return ""
    channels = list(range(len(names)))
    ranks = rank_by_channels(job, device, [[channel] for channel in channels])
    best, second = ranks.mean(1).argsort()[:2]
    if not is_better(ranks[best], ranks[second], len(names)):
        return ""
    (others,) = rank_by_channels(job, device, [channels[:best] + channels[best + 1 :]])
    return names[best] if is_better(ranks[best], others, len(names)) else ""


def rank_by_channels(
    job: Job, device: torch.device, channel_sets: Sequence[Sequence[int]]
) -> Int64:
    """Rank the gallery by ridge regressions on sets of channels.

    Returns:
        Ranks [G, N] of the seen stimuli for each of the G sets, in all cells of the
        first seed.
    """
    ranks = []
    recipe = job.recipe
    tests = job.tests
    for group in job.groups:
        if group[0].seed != job.groups[0][0].seed:
            continue
        models = job.open_models(group, device)
        first_model = models[0]
        gallery = open_gallery(models, tests, recipe.splits, recipe.only_shown)
        images = encode_gallery([first_model], tests, gallery)
        train_embeddings = open_targets(tests, first_model, "train")
        for subject in group[0].tested_on:
            signals = open_signals(models, tests, subject, gallery.test_rows)
            tested = signals.trials[0]
            training = signals.people[0].train_trials
            last = len(training.stimulus) - 1
            # Largest number of training stimuli to which ridge regressions are fitted.
            rows = np.linspace(0, last, min(last + 1, 500))
            training = training.take(rows.astype(np.int64))
            targets = first_model.encode_pictures(
                train_embeddings, training.stimulus
            ).float()

            # standardise by the training signals
            features = torch.from_numpy(training.averages).to(device)
            scale = FeatureScaler.fit(features)
            features = scale(features)
            inputs = scale(torch.from_numpy(tested.averages).to(device))
            cell_ranks = []
            for channels in channel_sets:
                ridge = Products.from_samples(
                    features[:, channels].flatten(1), [targets]
                )
                tokens = ridge.predict(inputs[:, channels].flatten(1))
                cell_ranks.append(
                    rank_targets(tokens, images, torch.from_numpy(signals.targets))
                )
            ranks.append(torch.stack(cell_ranks))
    return torch.cat(ranks, 1).numpy()


def is_better(ranks: Int64, other_ranks: Int64, n_channels: int) -> bool:
    """Test if ranks [N] are smaller than others, by the signs of the differences."""
    from scipy.stats import binomtest

    wins = int((ranks < other_ranks).sum())
    n_different = int((ranks != other_ranks).sum())
    if not n_different:
        return False
    p = binomtest(wins, n_different, alternative="greater").pvalue
    # Largest p, corrected for the number of channels, at which a channel is named.
    return bool(p * n_channels <= 0.001)
