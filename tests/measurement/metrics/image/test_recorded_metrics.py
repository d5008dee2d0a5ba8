"""Metrics of fixed random pictures, clips, captions and scores beside those that were
recorded.
"""

import numpy as np
import pytest
import torch

from brainhive_cli.measurement.metrics import MetricScale, image, networks, tasks, video
from brainhive_cli.measurement.metrics.image import prepare, two_way_identification
from brainhive_cli.measurement.metrics.networks import FEATURE_METRICS, NETWORKS
from brainhive_cli.measurement.metrics.perceptual import measure_distances
from brainhive_cli.measurement.metrics.semantics import (
    CATEGORY_COUNT,
    object_f1,
    seed_score,
)
from brainhive_cli.measurement.neuralbench import score
from tests.tools.recorded_numbers import Recorded

ROWS = torch.tensor([2, 0, 1, 1])
"""Row of the stimulus of each reconstruction."""


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    """Draw numbers in 0..1."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def scene(*shape: int, seed: int = 0) -> torch.Tensor:
    """Draw pictures [..., 3, 48, 40] of coarse patches that differ in brightness."""
    patches = draw(*shape, 3, 6, 5, seed=seed)
    fine = torch.kron(patches, torch.ones(8, 8))
    return (0.8 * fine + 0.2 * draw(*fine.shape, seed=seed + 1)).clamp(0, 1)


def test_metrics_of_pictures(recorded: Recorded) -> None:
    true = scene(3)
    made = 0.5 * true[ROWS] + 0.5 * scene(4, seed=5)
    made[3] = 0.5  # one colour
    values = {
        name: part.compare(part.features(true), part.features(made), ROWS)
        for name, part in image.PARTS.items()
    }
    features = networks.standardise(true), networks.standardise(made)
    recorded(
        digits=4,
        **values,
        identification=two_way_identification(*features, ROWS),
        distance=image.correlation_distance(*features, ROWS),
        published=image.ssim(true, scene(3, seed=9), None, is_published=True),
        mindeye2=prepare(true),
        brainhive=prepare(true, "brainhive", 32),
        resized=image.resize(true, 21),
        larger=image.resize(true, 64),
    )


def test_metrics_of_clips(recorded: Recorded) -> None:
    pytest.importorskip("cv2")
    still = scene(3)
    true = torch.stack([still.roll(step, -1) for step in range(4)], 1)
    made = torch.stack([still[ROWS].roll(2 * step, -1) for step in range(4)], 1)
    made[1] = made[1].roll(3, -2)
    made[2] = scene(4, seed=7)
    values = {
        name: part.compare(part.features(true), part.features(made), ROWS)
        for name, part in video.PARTS.items()
    }
    unit = [networks.normalise(draw(n, 4, 6, seed=n)) for n in (3, 4)]
    logits = draw(3, 9), draw(4, 9, seed=1)
    of_frames = draw(3, 4, 9), draw(4, 4, 9, seed=1)
    recorded(
        digits=4,
        **values,
        displacement=video.displacement(true),
        epe_small=video.end_point_error(*map(video.frames, (true, made)), ROWS, 64),
        consistency=[
            video.consistency(*unit, ROWS, is_near) for is_near in (False, True)
        ],
        one_frame=video.consistency(unit[0][:, :1], unit[1][:, :1], ROWS),
        similarity=video.frame_similarity(*unit, ROWS),
        n_way=[
            video.n_way(*logits, ROWS, n_ways=ways, n_labels=labels)
            for ways, labels in ((2, 1), (2, 3), (5, 3))
        ],
        n_way_of_frames=video.n_way_of_frames(*of_frames, ROWS, n_ways=3, n_labels=2),
        chance=[video.n_way_chance(2, 3), video.n_way_chance(50, 1)],
    )


def test_seed_and_distances(recorded: Recorded) -> None:
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


def test_task_scores(recorded: Recorded) -> None:
    random = np.random.default_rng(0)
    true = draw(4, 2, 6, 6, seed=2) > 0.6
    true[1] = False
    shown = random.random((5, 6)) < 0.4
    words = [" ".join(random.choice(list("abc"), 9)) for _ in range(12)]
    captions = tasks.score_captions(
        words[:4], [words[4:6], words[6:8], *[words[8:]] * 2]
    )
    recorded(
        digits=5,
        dice=tasks.dice(draw(4, 2, 6, 6), true),
        recall=tasks.recall_concepts(random.random((5, 6)).round(1), shown),
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


def test_scales_and_networks(recorded: Recorded) -> None:
    parts = {**image.PARTS, **video.PARTS}
    parts |= {name: part for name, (_, _, part) in FEATURE_METRICS.items()}
    scales: dict[str, MetricScale] = {name: part.scale for name, part in parts.items()}
    kinds = {
        name: (part.medium == "clip", part.is_identification, part.is_reference_free)
        for name, part in parts.items()
    }
    recorded(
        scales={**scales, **tasks.SCALES},
        kinds=kinds,
        sides={name: network.side_px for name, network in NETWORKS.items()},
        colours={name: sum(network.colours, ()) for name, network in NETWORKS.items()},
        nodes={name: len(network.outputs) for name, network in NETWORKS.items()},
        takes_clips={name: network.takes_clips for name, network in NETWORKS.items()},
    )
