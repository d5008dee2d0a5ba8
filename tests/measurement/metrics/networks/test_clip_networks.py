"""Networks of the metrics of clips: the hub's, by their real names, and what is
compared in them.
"""

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file

from brainhive_cli.evaluation.reconstruction.metric_parts import (
    find_metric,
    list_networks,
)
from brainhive_cli.measurement.metrics import networks
from brainhive_cli.measurement.metrics.image import resize
from brainhive_cli.measurement.metrics.networks import (
    FEATURE_METRICS,
    find_feature_metric,
    load_metrics,
    normalise,
)
from brainhive_cli.measurement.metrics.video import consistency

CPU = torch.device("cpu")
CLIPS = torch.rand(2, 6, 3, 40, 40, generator=torch.Generator().manual_seed(0))
CLIPS[1] = CLIPS[1].flip(-1) * torch.tensor([1, 0.3, 0.1]).view(3, 1, 1)
NETWORKS = {
    name: networks.NETWORKS[name] for name in ("vit", "videomae", "dino", "clip")
}
COLOURS = {  # of the repositories' preprocessor_config.json
    "vit": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "videomae": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "dino": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def parts(network):
    rows = FEATURE_METRICS.items()
    metrics = [
        name
        for name, (network_name, _, metric) in rows
        if network_name == network and metric.medium == "clip"
    ]
    return load_metrics(network, metrics, CPU)


def seen_by(name):
    mean, std = (torch.tensor(colour).view(3, 1, 1) for colour in COLOURS[name])
    return (resize(CLIPS.flatten(0, 1), 224) - mean) / std  # [B · F, 3, 224, 224]


@torch.inference_mode()
def test_networks_get_frames_or_six_frame_clips_in_their_colours(clip_networks):
    folder = {name: network.fetch() for name, network in NETWORKS.items()}
    assert all(network.is_here() for network in NETWORKS.values())

    vit = tf.ViTForImageClassification.from_pretrained(folder["vit"])
    logits = vit(seen_by("vit")).logits.view(2, 6, -1)
    assert torch.allclose(
        NETWORKS["vit"].build(CPU)(CLIPS)["logits"], logits, atol=1e-5
    )
    videomae = tf.VideoMAEForVideoClassification.from_pretrained(
        folder["videomae"], num_frames=6
    )
    computed = NETWORKS["videomae"].build(CPU)(CLIPS)
    expected = videomae(seen_by("videomae").view(2, 6, 3, 224, 224)).logits
    assert torch.allclose(computed["logits"], expected, atol=1e-5)
    assert computed["features"].shape == (2, videomae.config.hidden_size)
    dino = tf.ViTModel.from_pretrained(folder["dino"], add_pooling_layer=False)
    tokens = dino(seen_by("dino")).last_hidden_state[:, 0].view(2, 6, -1)
    assert torch.allclose(
        NETWORKS["dino"].build(CPU)(CLIPS)["class token"], tokens, atol=1e-5
    )


def test_metrics_of_a_network_share_a_pass_and_prefer_a_copy(clip_networks):
    same_rows, swapped = torch.tensor([0, 1]), torch.tensor([1, 0])
    for network in NETWORKS:
        for name, metric in parts(network).items():
            features = metric.features(CLIPS)
            best = metric.compare(features, features, same_rows)
            if metric.is_reference_free:
                assert torch.equal(best, metric.compare(features, features, swapped)), (
                    name
                )
            else:
                assert best.tolist() == pytest.approx([1, 1], abs=1e-6), name
            if name in ("dino", "video_50way_strict", "frame_50way_strict"):
                assert (metric.compare(features, features, swapped) < 1).any(), name
    metrics = parts("videomae")
    assert (
        len({metric.features for name, metric in metrics.items() if "way" in name}) == 1
    )


def test_clip_pcc_equals_the_reference_and_is_highest_for_stills(golden):
    reference = load_file(golden / "neurons/metrics.safetensors")
    features, row = normalise(reference["input.clip_features"])[None], torch.tensor([0])

    for name, is_of_neighbours in (("all_pairs", False), ("adjacent", True)):
        expected = reference[f"expected.clip_pcc_{name}"].item()
        assert consistency(
            features, features, row, is_of_neighbours
        ).item() == pytest.approx(expected, abs=1e-6)
        still_consistency = consistency(
            features, features[:, :1].expand_as(features), row, is_of_neighbours
        )
        assert still_consistency.item() == pytest.approx(1, abs=1e-6)
    assert consistency(features, features[:, :1], row).item() == 1


@pytest.mark.parametrize("name", ["video_40way", "frame_40way"])
def test_forty_ways_equal_the_trials_that_eeg2video_draws(name):
    """The three likeliest classes of a stimulus are right, any of which may win."""
    random = np.random.default_rng(0)
    shape = (3, 400) if name == "video_40way" else (3, 6, 400)
    seen, generated = (torch.from_numpy(random.normal(size=shape)) for _ in range(2))
    generated += seen / 2
    feature_metric = find_feature_metric(name)
    assert feature_metric is not None
    metric = feature_metric[2]
    assert (metric.scale.chance, metric.scale.pool) == (pytest.approx(3 / 42), 40)

    expected = []
    stimuli, reconstructions = seen.reshape(3, -1, 400), generated.reshape(3, -1, 400)
    for stimulus_frames, frames in zip(stimuli, reconstructions, strict=True):
        hits = []
        for stimulus, frame in zip(stimulus_frames, frames, strict=True):
            right_labels = stimulus.argsort()[-3:].numpy()
            wrong_labels = np.setdiff1d(np.arange(400), right_labels)
            probabilities = frame.softmax(0).numpy()
            for _ in range(2000):
                candidates = random.choice(wrong_labels, 39, replace=False)
                rivals = probabilities[candidates].max()
                hits.append((probabilities[right_labels] > rivals).any())
        expected.append(np.mean(hits))
    shares = metric.compare(seen, generated, torch.arange(3))
    # four standard errors of 2,000 draws
    assert shares.tolist() == pytest.approx(expected, abs=0.045)


@pytest.mark.parametrize("n_ways", [2, 3, 100, 398])
def test_any_number_of_ways_has_a_chance_of_its_own(n_ways):
    for ending, n_labels in (("", 3), ("_strict", 1)):
        metric = find_metric(f"video_{n_ways}way{ending}")
        assert metric is not None
        assert metric.scale.chance == pytest.approx(n_labels / (n_labels + n_ways - 1))
        assert list_networks(f"video_{n_ways}way{ending}") == ["videomae"]
    for name in ("video_1way", "frame_399way", "video_40way_loose"):
        assert find_metric(name) is None
