"""Random weights of the image metrics' networks, under their real file names."""

from collections.abc import Callable
from pathlib import Path

import torch
import transformers as tf
from torch import Tensor
from torchvision import models

SMALL_CLIP = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_attention_heads": 1,
    "num_hidden_layers": 1,
}

CLASSES = 60
"""Classes of the classifiers, enough for 50-way trials."""


def write(folder: Path) -> Path:
    """Write torch's weight files into a folder, and CLIP's files into `clip` below."""
    torch.manual_seed(0)
    networks = {
        "alexnet-owt-7be5be79.pth": models.alexnet(),
        "inception_v3_google-0cc3c7bd.pth": models.inception_v3(init_weights=False),
        "efficientnet_b1-c27df63c.pth": models.efficientnet_b1(),
    }
    for name, network in networks.items():
        torch.save(thin(network.state_dict()), folder / name)
    resnet = models.resnet50().state_dict()
    swav = {
        f"module.{name}": value
        for name, value in resnet.items()
        if not name.startswith("fc.")
    }
    swav["module.prototypes.weight"] = torch.zeros(3, 4)
    torch.save(swav, folder / "swav_800ep_pretrain.pth.tar")
    clip = tf.CLIPVisionConfig(
        **SMALL_CLIP, image_size=224, patch_size=32, projection_dim=16
    )
    tf.CLIPVisionModelWithProjection(clip).save_pretrained(folder / "clip")
    return folder


def write_clip_networks(snapshot: Callable[[str], Path]) -> None:
    """Write small networks of video metrics into snapshots of their repositories."""
    torch.manual_seed(0)
    shape = {**SMALL_CLIP, "image_size": 224, "patch_size": 32, "num_labels": CLASSES}
    vit = tf.ViTForImageClassification(tf.ViTConfig(**shape))
    vit.save_pretrained(snapshot("google/vit-base-patch16-224"))
    videomae = tf.VideoMAEForVideoClassification(
        tf.VideoMAEConfig(**shape, num_frames=16)
    )
    videomae.save_pretrained(snapshot("MCG-NJU/videomae-base-finetuned-kinetics"))
    dino = tf.ViTModel(tf.ViTConfig(**shape), add_pooling_layer=False)
    folder = snapshot("facebook/dino-vitb16")
    dino.config.save_pretrained(folder)
    torch.save(dino.state_dict(), folder / "pytorch_model.bin")
    clip = tf.CLIPVisionConfig(
        **SMALL_CLIP, image_size=224, patch_size=32, projection_dim=16
    )
    tf.CLIPVisionModelWithProjection(clip).save_pretrained(
        snapshot("openai/clip-vit-large-patch14")
    )


def link(weights: Path, checkpoints: Path, snapshot: Callable[[str], Path]) -> Path:
    """Link the written files into the folders where libraries look for them."""
    checkpoints.mkdir(parents=True)
    for files, folder in (
        (weights, checkpoints),
        (weights / "clip", snapshot("openai/clip-vit-large-patch14")),
    ):
        for file in filter(Path.is_file, files.iterdir()):
            (folder / file.name).symlink_to(file)
    return checkpoints


def thin(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace classifier weights, which no metric reads, by expanded zeros.

    AlexNet's classifier alone would take 235 MB.
    """
    thin_state = state.copy()
    for key, weight in state.items():
        if key.startswith(("classifier.", "fc.")) and weight.ndim > 1:
            thin_state[key] = torch.zeros(1).expand(weight.shape)
    return thin_state
