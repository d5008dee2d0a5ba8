"""NEURONS' networks at their real sizes, by the names and shapes in its checkpoints."""

import json
import re

import pytest
import torch

from brainhive_cli.models import Head, SignalSpec, backbones
from brainhive_cli.models.backbones import mindeye2, neurons

SUBJECT = 1
HEADS = {
    "image": Head((256, 1664)),
    "text": Head((1280,)),
    "motion": Head((6, 256, 1664)),
    "mask": Head((6, 1, 64, 64)),
    "latents": Head((6, 4, 28, 28)),
    "concepts": Head((51,)),
    "caption": Head((60,)),
}
SCHEDULE = r"diffusion_prior\.noise_scheduler\."
"""Noise schedule of the prior, which follows from its number of steps."""
IDLE = r"backbone\.mixer_blocks1\."
"""Mixer blocks over features, which affect no output."""
TIED = r"text_dec\.decoder\.lm_head\.weight"
"""Last layer of GPT-2, which shares its weight with the embedding."""
Shapes = dict[str, list[int]]


@pytest.fixture
def manifest(golden):
    """Shapes of the weights in NEURONS' checkpoints."""
    file = golden / "neurons" / "state_dict_manifest.json"
    content = json.loads(file.read_text())
    return content


def read_shapes(network):
    """Read the shapes of a network's weights, by published names."""
    shapes = {}
    for name, value in network.state_dict().items():
        published = re.sub(r"^brain\.", "", name)
        published = re.sub(r"^prior\.", "diffusion_prior.", published)
        published = published.replace(f"linears.{SUBJECT}.", "linears.0.")
        shapes[published] = list(value.shape)
    return shapes


def leave_out(shapes, *patterns):
    """Leave out the weights whose names begin with a pattern."""
    pattern = "|".join(patterns)
    return {
        name: shape for name, shape in shapes.items() if not re.match(pattern, name)
    }


def spec_of(manifest, checkpoint):
    """Describe the voxels of a checkpoint's subject."""
    _, voxels = manifest["state_dicts"][checkpoint]["ridge.linears.0.weight"]
    return SignalSpec((), 1, (SUBJECT,), (voxels,))


def test_the_brain_model_has_the_weights_of_its_checkpoint(
    manifest,
):
    published = manifest["state_dicts"]["brain_model.pth"]
    heads = {name: HEADS[name] for name in ("image", "text")}

    with torch.device("meta"):
        spec = spec_of(manifest, "brain_model.pth")
        model = backbones.build(mindeye2.Config(), spec, heads)

    assert read_shapes(model) == leave_out(published, IDLE)


def test_the_whole_model_has_the_weights_of_its_checkpoint(
    manifest,
):
    published = manifest["state_dicts"]["brain_model_prior.pth"]
    embedding = published["text_dec.decoder.transformer.wte.weight"]
    assert published["text_dec.decoder.lm_head.weight"] == embedding

    with torch.device("meta"):
        spec = spec_of(manifest, "brain_model_prior.pth")
        model = backbones.build(neurons.Config(), spec, HEADS)

    assert read_shapes(model) == leave_out(published, IDLE, SCHEDULE, TIED)
