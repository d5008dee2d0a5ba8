"""Networks of the image metrics: found in their libraries' caches, or missing with the way to get them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as TF

from brainhive_cli.core.errors import MissingData
from brainhive_cli.measurement.metrics import networks
from brainhive_cli.measurement.metrics.image import resize
from brainhive_cli.measurement.metrics.networks import CLIP, IMAGENET

CPU = torch.device("cpu")
NETWORKS = {name: networks.NETWORKS[name] for name in ("alexnet", "inception", "clip", "effnet", "swav")}
FEATURE_METRICS = {n: row for n, row in networks.FEATURE_METRICS.items() if row[2].medium == "picture"}
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
"""D of each metric's features, of the published architectures at the protocol's sizes."""


SIDES = {"alexnet": 256, "inception": 342, "clip": 224, "effnet": 255, "swav": 224}
"""Pixels that each network sees, as in the protocol's evaluation code (MindEye2)."""


class Seen(nn.Module):
    """Keeps what a network would see."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.images = images
        return {node: images[:, 0] for _, node, _ in FEATURE_METRICS.values()}


def rewrite(link: Path, write: Callable[[Path], Any]) -> None:
    link.unlink()  # the file behind it is other tests' too
    write(link)


def test_without_weights_every_network_says_how_to_get_them(image_networks_absent):
    for name, network in NETWORKS.items():
        with pytest.raises(MissingData, match=r"not on this machine|not in the hub's cache") as caught:
            network.build(CPU)
        assert (FILES.get(name) or CLIP.removeprefix("hub:")) in caught.value.hint


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_see_pictures_of_the_protocols_size_in_their_own_colours(name):
    images = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    seen = Seen()

    network = dataclasses.replace(NETWORKS[name], load=lambda path: seen)
    object.__setattr__(network, "fetch", Path)
    network.build(CPU)(images)

    processor = tf.CLIPImageProcessor()  # its defaults are OpenAI's
    clip = {"mean": processor.image_mean, "std": processor.image_std}
    colours = clip if name == "clip" else {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    expected = TF.normalize(TF.resize(images, [SIDES[name]] * 2, antialias=True), **colours)
    assert torch.allclose(seen.images, expected, atol=1e-5)


def test_the_metrics_features_are_the_published_nodes_of_the_published_networks(image_networks):
    images = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))

    found: dict[str, Tensor] = {}
    for name, network in NETWORKS.items():
        features = network.build(CPU)(images)
        found |= {
            m: features[node] for m, (network_of, node, _) in FEATURE_METRICS.items() if network_of == name
        }

    assert {name: values.shape[1] for name, values in found.items() if name != "clip"} == WIDTHS
    assert all(values.shape[0] == 2 and values.isfinite().all() for values in found.values())
    assert not any(torch.equal(values[0], values[1]) for values in found.values())


def test_features_are_those_of_the_whole_network_up_to_the_node(image_networks):
    from torchvision.models import alexnet

    images = torch.rand(1, 3, 256, 256)
    plain = alexnet(weights="IMAGENET1K_V1").eval()
    mean, std = (torch.tensor(colour).view(3, 1, 1) for colour in IMAGENET)

    features = NETWORKS["alexnet"].build(CPU)(images)

    with torch.no_grad():
        expected = plain.features[:5]((resize(images, 256) - mean) / std).flatten(1)
    assert torch.allclose(features["features.4"], expected, atol=1e-5)


def test_swav_takes_the_names_that_its_file_has(image_networks):
    saved = torch.load(image_networks / FILES["swav"])
    assert any(name.startswith("module.prototypes") for name in saved)  # which no ResNet has

    del saved["module.layer1.0.conv1.weight"]
    rewrite(image_networks / FILES["swav"], lambda path: torch.save(saved, path))
    with pytest.raises(
        MissingData,
        match=r"SwAV in .* is damaged.*: Error.*Missing key\(s\) in state_dict: \"layer1\.0\.conv1\.weight\"",
    ):
        NETWORKS["swav"].build(CPU)


def test_weights_with_other_names_are_refused_with_the_first_that_is_missing(image_networks):
    path = image_networks / FILES["alexnet"]
    saved = {f"module.{name}": value for name, value in torch.load(path).items()}
    rewrite(path, lambda path: torch.save(saved, path))

    with pytest.raises(MissingData, match=r"AlexNet in .*: Error.*Missing key\(s\).*\"features\.0\.weight\""):
        NETWORKS["alexnet"].build(CPU)


def test_damaged_weights_are_named_with_their_file(image_networks):
    path = image_networks / FILES["alexnet"]
    rewrite(path, lambda path: path.write_bytes(b"PK" + bytes(1000)))

    with pytest.raises(MissingData, match=f"{path} is damaged") as caught:
        NETWORKS["alexnet"].build(CPU)
    assert f"delete {path}" in caught.value.hint


def test_clip_is_the_projected_embedding_of_the_hubs_weights(image_networks):
    images = torch.rand(2, 3, 64, 64)
    network = NETWORKS["clip"]
    tower = tf.CLIPVisionModelWithProjection.from_pretrained(network.fetch())
    mean, std = (torch.tensor(colour).view(3, 1, 1) for colour in network.colours)

    features = network.build(CPU)(images)["embedding"]

    with torch.no_grad():
        expected = tower(pixel_values=(resize(images, 224) - mean) / std).image_embeds
    assert torch.allclose(features, expected, atol=1e-5)
