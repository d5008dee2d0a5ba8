"""Networks of the image metrics: found in their libraries' caches, or missing with the
way to get them.
"""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf
from scipy.spatial.distance import cdist
from torch import nn
from torchvision.transforms.v2 import functional as TF

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.measurement.metrics import networks
from brainhive_cli.measurement.metrics.networks import CLIP

CPU = torch.device("cpu")
NETWORKS = {
    name: networks.NETWORKS[name]
    for name in ("alexnet", "inception", "clip", "effnet", "swav")
}
FEATURE_METRICS = {
    n: row for n, row in networks.FEATURE_METRICS.items() if row[2].medium == "picture"
}
FILES = {
    "alexnet": "alexnet-owt-7be5be79.pth",
    "inception": "inception_v3_google-0cc3c7bd.pth",
    "effnet": "efficientnet_b1-c27df63c.pth",
    "swav": "swav_800ep_pretrain.pth.tar",
}
"""What the real weights are called in torch's cache."""
WIDTHS = {
    "alexnet2": 192 * 31 * 31,
    "alexnet5": 256 * 15 * 15,
    "inception": 2048,
    "effnet": 1280,
    "swav": 2048,
}
"""D of each metric's features, of the published architectures at the protocol's
sizes.
"""


SIDES = {"alexnet": 256, "inception": 342, "clip": 224, "effnet": 255, "swav": 224}
"""Pixels that each network sees, as in the protocol's evaluation code (MindEye2)."""


class Seen(nn.Module):
    """Keeps what a network would see."""

    def forward(self, images):
        self.images = images
        return {node: images[:, 0] for _, node, _ in FEATURE_METRICS.values()}


def rewrite(link, write):
    link.unlink()  # the file behind it is other tests' too
    write(link)


def test_without_weights_every_network_says_how_to_get_them(image_networks_absent):
    for name, network in NETWORKS.items():
        with pytest.raises(MissingData) as caught:
            network.build(CPU)
        assert (FILES.get(name) or CLIP.removeprefix("hub:")) in caught.value.hint


def test_networks_get_pictures_of_the_protocols_size():
    images = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    processor, recorder = tf.CLIPImageProcessor(), Seen()  # whose defaults are OpenAI's
    clip = {"mean": processor.image_mean, "std": processor.image_std}
    for name, real_network in NETWORKS.items():
        network = dataclasses.replace(
            real_network, load=lambda path: recorder, outputs={}
        )
        object.__setattr__(network, "fetch", Path)
        network.build(CPU)(images)

        colours = (
            clip
            if name == "clip"
            else {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
        )
        expected = TF.normalize(
            TF.resize(images, [SIDES[name]] * 2, antialias=True), **colours
        )
        assert torch.allclose(recorder.images, expected, atol=1e-5), name


def test_weights_are_downloaded_once_and_checked_by_their_name(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    digest = hashlib.sha256(b"weights").hexdigest()[:8]
    source = tmp_path / f"net-{digest}.pth"
    source.write_bytes(b"weights")
    path = networks.fetch_file(source.as_uri(), "a network")
    assert path.parent == tmp_path / "cache/checkpoints"
    assert path.read_bytes() == b"weights"
    source.unlink()
    assert networks.fetch_file(source.as_uri(), "a network") == path

    other_file = tmp_path / f"other-{digest}.pth"
    other_file.write_bytes(b"other weights")
    with pytest.raises(MissingData):
        networks.fetch_file(other_file.as_uri(), "a network")
    assert not networks.cached_file(other_file.as_uri()).exists()


@pytest.mark.parametrize("name", ["effnet", "swav"])
def test_distances_of_networks_are_scipys_correlation_distance(name):
    random = np.random.default_rng(0)
    stimuli, generated = random.normal(size=(5, 12)), random.normal(size=(3, 12))
    rows = [4, 0, 2]
    metric = FEATURE_METRICS[name][2]
    sides = [
        metric.features(torch.from_numpy(values)) for values in (stimuli, generated)
    ]
    distances = metric.compare(*sides, torch.tensor(rows))
    expected = np.diag(cdist(stimuli[rows], generated, "correlation"))
    np.testing.assert_allclose(distances.numpy(), expected, atol=1e-12)


@pytest.mark.nightly
def test_features_come_from_the_published_nodes_of_the_networks(
    image_networks,
):
    images = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))

    values_by_metric = {}
    for name, network in NETWORKS.items():
        features = network.build(CPU)(images)
        values_by_metric |= {
            m: features[node]
            for m, (network_of, node, _) in FEATURE_METRICS.items()
            if network_of == name
        }

    assert {
        name: values.shape[1]
        for name, values in values_by_metric.items()
        if name != "clip"
    } == WIDTHS
    assert all(
        values.shape[0] == 2 and values.isfinite().all()
        for values in values_by_metric.values()
    )
    assert not any(
        torch.equal(values[0], values[1]) for values in values_by_metric.values()
    )


def test_damaged_weights_are_named_with_their_file(image_networks):
    path = image_networks / FILES["alexnet"]
    rewrite(path, lambda path: path.write_bytes(b"PK" + bytes(1000)))

    with pytest.raises(MissingData) as caught:
        NETWORKS["alexnet"].build(CPU)
    assert str(path) in str(caught.value)
    assert f"delete {path}" in caught.value.hint
