"""Metrics of fixed random pictures, clips, captions and scores beside those that were
recorded.
"""

import numpy as np
import pytest
import torch

from brainhive_cli.measurement.metrics import image, networks, tasks, video
from brainhive_cli.measurement.metrics.image import prepare, two_way_identification
from brainhive_cli.measurement.metrics.networks import FEATURE_METRICS, NETWORKS
from brainhive_cli.measurement.metrics.perceptual import measure_distances
from brainhive_cli.measurement.metrics.semantics import (
    CATEGORY_COUNT,
    object_f1,
    seed_score,
)
from brainhive_cli.measurement.neuralbench import score

ROWS = torch.tensor([2, 0, 1, 1])
"""Row of the stimulus of each reconstruction."""


def draw(*shape, seed=0):
    """Draw numbers in 0..1."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def scene(*shape, seed=0):
    """Draw pictures [..., 3, 48, 40] of coarse patches that differ in brightness."""
    patches = draw(*shape, 3, 6, 5, seed=seed)
    fine = torch.kron(patches, torch.ones(8, 8))
    return (0.8 * fine + 0.2 * draw(*fine.shape, seed=seed + 1)).clamp(0, 1)


def test_metrics_of_pictures(recorded):
    stimuli = scene(3)
    reconstructions = 0.5 * stimuli[ROWS] + 0.5 * scene(4, seed=5)
    reconstructions[3] = 0.5  # a single colour
    values = {
        name: metric.compare(
            metric.features(stimuli), metric.features(reconstructions), ROWS
        )
        for name, metric in image.PARTS.items()
    }
    features = [networks.standardise(stimuli), networks.standardise(reconstructions)]
    recorded(
        digits=4,
        **values,
        identification=two_way_identification(*features, ROWS),
        distance=image.correlation_distance(*features, ROWS),
        published=image.ssim(stimuli, scene(3, seed=9), None, is_published=True),
        mindeye2=prepare(stimuli),
        brainhive=prepare(stimuli, "brainhive", 32),
        resized=image.resize(stimuli, 21),
        larger=image.resize(stimuli, 64),
    )


def test_metrics_of_clips(recorded):
    pytest.importorskip("cv2")
    pictures = scene(3)
    stimuli = torch.stack([pictures.roll(step, -1) for step in range(4)], 1)
    reconstructions = torch.stack(
        [pictures[ROWS].roll(2 * step, -1) for step in range(4)], 1
    )
    reconstructions[1] = reconstructions[1].roll(3, -2)
    reconstructions[2] = scene(4, seed=7)
    values = {
        name: metric.compare(
            metric.features(stimuli), metric.features(reconstructions), ROWS
        )
        for name, metric in video.PARTS.items()
    }
    unit = [networks.normalise(draw(n, 4, 6, seed=n)) for n in (3, 4)]
    recorded(
        digits=4,
        **values,
        displacement=video.displacement(stimuli),
        epe_small=video.end_point_error(
            video.frames(stimuli), video.frames(reconstructions), ROWS, 64
        ),
        consistency=[
            video.consistency(*unit, ROWS, is_near) for is_near in (False, True)
        ],
        one_frame=video.consistency(unit[0][:, :1], unit[1][:, :1], ROWS),
        similarity=video.frame_similarity(*unit, ROWS),
        n_way=[
            video.n_way(
                draw(3, 9), draw(4, 9, seed=1), ROWS, n_ways=n_ways, n_labels=labels
            )
            for n_ways, labels in ((2, 1), (2, 3), (5, 3))
        ],
        n_way_of_frames=video.n_way_of_frames(
            draw(3, 4, 9), draw(4, 4, 9, seed=1), ROWS, n_ways=3, n_labels=2
        ),
        chance=[video.n_way_chance(2, 3), video.n_way_chance(50, 1)],
    )


def test_seed_and_distances(recorded):
    scores = draw(3, CATEGORY_COUNT) ** 4, draw(4, CATEGORY_COUNT, seed=1) ** 4
    scores[1][3] = 0  # nothing is shown
    embeddings = [networks.normalise(draw(n, 10, seed=n)) for n in (3, 4)]
    features = [torch.cat(pair, 1) for pair in zip(scores, embeddings, strict=True)]
    distances = measure_distances(
        draw(23, 5), draw(23, 5, seed=1) + 0.2, protocol="", split="", seeds=(0,)
    )
    recorded(
        digits=4,
        object_f1=object_f1(*scores, ROWS),
        seed=seed_score(*features, ROWS),
        distances=[(metric.value, metric.low, metric.high) for metric in distances],
    )


def test_task_scores(recorded):
    random = np.random.default_rng(0)
    true_masks = draw(4, 2, 6, 6, seed=2) > 0.6
    true_masks[1] = False
    shown_concepts = random.random((5, 6)) < 0.4
    captions_of_words = [" ".join(random.choice(list("abc"), 9)) for _ in range(12)]
    captions = tasks.score_captions(
        captions_of_words[:4],
        [captions_of_words[4:6], captions_of_words[6:8]]
        + list([captions_of_words[8:]] * 2),
    )
    recorded(
        digits=5,
        dice=tasks.dice(draw(4, 2, 6, 6), true_masks),
        recall=tasks.recall_concepts(random.random((5, 6)).round(1), shown_concepts),
        named=tasks.find_named_objects(
            ["A red fire-truck!", "red", "Two fires"], ["fire-truck", "red car", "fire"]
        ),
        captions={name: captions[name] for name in sorted(captions)},
        neuralbench=score(
            draw(6, 4),
            draw(15, 4, seed=1).round(decimals=1),
            torch.arange(15) % 6,
            torch.arange(15) // 8,
        ),
    )


def test_scales_and_networks(recorded):
    parts = dict(image.PARTS) | dict(video.PARTS)
    for name, (_, _, metric) in FEATURE_METRICS.items():
        parts[name] = metric
    scales = dict(tasks.SCALES)
    for name, metric in parts.items():
        scales[name] = metric.scale
    recorded(
        low_high_chance_pool={
            name: [scale.low, scale.high, scale.chance, scale.pool, scale.sorts_items]
            for name, scale in scales.items()
        },
        networks={
            name: [network.side_px, len(network.outputs), network.takes_clips]
            + list(network.colours[0])
            + list(network.colours[1])
            for name, network in NETWORKS.items()
        },
    )
    identifications = {
        name for name, metric in parts.items() if metric.is_identification
    }
    assert identifications == {"alexnet2", "alexnet5", "clip", "inception", "videomae"}
    reference_free = {
        name for name, metric in parts.items() if metric.is_reference_free
    }
    assert reference_free == {"clip_pcc", "clip_pcc_neighbours"}
    picture_metrics = {
        name for name, metric in parts.items() if metric.medium != "clip"
    }
    assert picture_metrics == {
        "alexnet2",
        "alexnet5",
        "cap_sim",
        "clip",
        "effnet",
        "inception",
        "object_f1",
        "pixcorr",
        "ssim",
        "swav",
    }
