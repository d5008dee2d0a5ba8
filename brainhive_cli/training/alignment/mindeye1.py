"""The checkpoints that MindEye1's training wrote, as those that were published, read as brain models.

Source: MindEye1's Train_MindEye.py and train_autoencoder.py (arXiv 2305.18274, MIT); its best epoch is chosen
on test pictures.
"""

import re
from math import isqrt
from pathlib import Path

from torch import Tensor

from brainhive_cli.core import weights
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.heads import Head
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.layout import Layout

State = dict[str, Tensor]

LATENT, IMAGE, PROJECTED = "latent", "image", "image_projected"
TARGETS = {LATENT: "vd-vae", IMAGE: "vd-image", PROJECTED: "vd-image"}
"""Encoders of what the heads predict."""
HIGH_LEVEL = "voxel2clip."
"""Before the names of the brain model where the diffusion prior lies in the same file."""
ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of attention in diffusers 0.13, which trained these models, and today's."""
NORMALISED = "upsampler.conv_norm_out.weight"


def read(path: Path, state: State, subject: int) -> tuple[Layout, State]:
    """Read a checkpoint of the low level (latents), or of the high level (image tokens, without its prior).

    Maps and their head, which serve training alone, are left out.

    Raises:
        BrainhiveError: if it is no such model.
    """
    if own := {name: value for name, value in state.items() if name.startswith(HIGH_LEVEL)}:
        state = {name.removeprefix(HIGH_LEVEL): value for name, value in own.items()}
    problem = "is no brain model of MindEye1"
    with weights.reading(
        path, "give the checkpoint of one of its trainings", BrainhiveError, problem=problem
    ):
        stream, sizes, shapes = _low_level(state) if NORMALISED in state else _high_level(state)
        hidden, width = state["lin0.0.weight"].shape
    heads = {name: Head(shape, TARGETS[name]) for name, shape in shapes.items()}
    layout = Layout(
        spec=SignalSpec((), 1, (subject,), (width,)),
        heads=heads,
        backbone={
            "kind": "havir",
            "hidden": hidden,
            "blocks": _count(state, r"mlp\.(\d+)\.0\.weight"),
            **sizes,
        },
        encoders={head.target: head.target for head in heads.values()},
        retrieval_heads=(next(reversed(heads)),),
    )
    return layout, {f"backbone.{name}": value for name, value in _renamed(state, stream, subject).items()}


def _low_level(state: State) -> tuple[str, dict[str, object], dict[str, tuple[int, ...]]]:
    """Return the stream, its sizes, and the shapes of the heads."""
    count = _count(state, r"upsampler\.up_blocks\.(\d+)\.resnets\.0\.conv1\.weight")
    blocks = [f"upsampler.up_blocks.{number}.resnets" for number in range(count)]
    channels = [len(state[f"{block}.0.conv1.weight"]) for block in reversed(blocks)]
    features = len(state["norm.weight"])
    side = isqrt(len(state["lin1.weight"]) // features) << (len(channels) - 1)
    depth = _count(state, re.escape(blocks[0]) + r"\.(\d+)\.conv1\.weight") - 1
    sizes = {"features": features, "decoder_channels": channels, "decoder_layers": depth}
    return "structural", sizes, {LATENT: (len(state["upsampler.conv_out.weight"]), side, side)}


def _high_level(state: State) -> tuple[str, dict[str, object], dict[str, tuple[int, ...]]]:
    dim = len(state["projector.0.weight"])
    shape = (len(state["lin1.weight"]) // dim, dim)
    return "semantic", {"projector": len(state["projector.2.weight"])}, {IMAGE: shape, PROJECTED: shape}


def _renamed(state: State, stream: str, subject: int) -> State:
    region = {"structural": "spatial", "semantic": "semantic"}[stream]
    old = re.compile(rf"(upsampler\..*\.attentions\.\d+)\.({'|'.join(ATTENTION)})\.")
    prefixes = {"lin0.": f"inputs.{region}.{subject}."}
    if stream == "semantic":
        prefixes |= {each: f"semantic.{each}{IMAGE}." for each in ("lin1.", "projector.")}
    found = {}
    for name, value in state.items():
        if name.startswith("maps_projector."):
            continue
        prefix = next((each for each in prefixes if name.startswith(each)), "")
        new = prefixes.get(prefix, f"{stream}.") + name.removeprefix(prefix)
        found[old.sub(lambda match: f"{match[1]}.{ATTENTION[match[2]]}.", new)] = value
    return found


def _count(state: State, pattern: str) -> int:
    """Count the numbers that a part of the names has."""
    return len({match[1] for name in state if (match := re.fullmatch(pattern, name))})
