"""The checkpoints that MindEye2's and NEURONS' trainings wrote, read as brain models.

Source: MindEye2 (arXiv 2403.11207, MIT), `train_logs/*/last.pth`; NEURONS (arXiv 2503.11167),
`brain_model.pth` of its first training, `brain_model_prior.pth` and `*_last` of its second.
"""

import re
from collections.abc import Sequence
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from brainhive_cli.core import console, weights
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.heads import Head
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.layout import Layout

State = dict[str, Tensor]

NEURONS_FILE = "brain_model"
"""How the names of NEURONS' files begin."""
IMAGE, TEXT = "clip-bigg-tokens", "clip-bigg-text"
"""Encoders of what the heads predict."""
FRAME = f"{IMAGE}-view-2"
"""The same of a clip's third frame, which NEURONS' training takes."""
BRAIN, PRIOR = ("ridge.", "backbone.", "clipproj."), "diffusion_prior."
DECODERS = ("motion_proj.", "text_seg_dec.", "text_dec.", "classifier.")
SCHEDULE = f"{PRIOR}noise_scheduler."
"""Before the tables of the prior's schedule, which follow from its steps."""
TIED = "text_dec.decoder.lm_head.weight"
"""GPT-2's last layer, which is its embedding."""
CAPTION_LENGTH, HEAD_WIDTH = 60, 64
"""Ids of NEURONS' captions, and GPT-2's width of an attention head: neither is in the weights."""


def read(path: Path, state: State, subjects: Sequence[int]) -> tuple[Layout, State]:
    """Read a checkpoint: with its prior and its decoders, where it has them.

    Raises:
        BrainhiveError: if it is no such model, has other parts or subjects, or decoders without their prior.
    """
    if (count := _count(state, r"ridge\.linears\.(\d+)\.weight")) != len(subjects):
        raise BrainhiveError(
            f"{path} has ridges of {count} subjects, its folder is named as that of {len(subjects)}",
            "keep it in a folder named as it was published",
        )
    other = sorted({n.partition(".")[0] for n in state if not n.startswith((*BRAIN, PRIOR, *DECODERS))})
    if other:
        raise BrainhiveError(
            f"{path} has the part {other[0]}, which neither MindEye2 nor NEURONS has", "another checkpoint"
        )
    decoders = [part for part in DECODERS if any(name.startswith(part) for name in state)]
    has_prior = any(name.startswith(f"{PRIOR}net.") for name in state)
    if decoders and (missing := sorted({*DECODERS, PRIOR} - {*decoders, *([PRIOR] if has_prior else [])})):
        raise BrainhiveError(
            f"{path} has decoders of NEURONS without their part {missing[0].rstrip('.')}",
            "give the checkpoint of its second training: brain_model_prior.pth, or brain_model_prior_last",
        )
    with weights.reading(
        path, "give the checkpoint of one of its trainings", BrainhiveError, problem="is no such model"
    ):
        image = FRAME if path.name.startswith(NEURONS_FILE) else IMAGE
        layout = _layout(state, subjects, bool(decoders), has_prior, image)
    _say(path, state)
    return layout, _renamed(state, subjects, bool(decoders), has_prior)


def _layout(state: State, subjects: Sequence[int], has_decoders: bool, has_prior: bool, image: str) -> Layout:
    ridges = [state[f"ridge.linears.{place}.weight"] for place in range(len(subjects))]
    hidden, widths = len(ridges[0]), tuple(ridge.shape[1] for ridge in ridges)
    width = state["backbone.clip_proj.0.weight"].shape[0]
    tokens = len(state["backbone.backbone_linear.weight"]) // width
    blocks = _count(state, r"backbone\.mixer_blocks1\.(\d+)\..*")
    brain = {"kind": "mindeye2", "hidden": hidden, "mixer": "blocks" if blocks else "none", "blocks": blocks}
    heads = {"image": Head((tokens, width), image)}
    if "clipproj.proj" in state:
        heads["text"] = Head((state["clipproj.proj"].shape[1],), TEXT)
    backbone: dict[str, Any] = brain
    if has_decoders:
        backbone = {"kind": "neurons", "brain": brain, "prior": _prior(state), **_decoders(state, width)}
        backbone["mode"] = "published"
        heads |= _heads(state, tokens, backbone)
    elif has_prior:
        prior = {**_prior(state), "head": "image"}
        backbone = {"kind": "with_prior", "backbone": brain, "prior": prior, "condition": "voxel_tokens"}
    if "backbone.blin1.weight" in state:
        heads |= _blurry(state)
    encoders = {head.target: head.target for head in heads.values() if head.target}
    spec = SignalSpec((), 1, tuple(subjects), widths)
    return Layout(spec, heads, backbone, encoders=encoders, retrieval_heads=("image",))


def _prior(state: State) -> dict[str, Any]:
    null = state[_layer("null_kv")]
    steps = state.get(f"{SCHEDULE}alphas_cumprod")
    return {
        "kind": "mindeye1",
        "depth": _count(state, rf"{re.escape(PRIOR)}net\.causal_transformer\.layers\.(\d+)\..*"),
        "heads": len(state[_layer("to_q.weight")]) // null.shape[1],
        "dim_head": null.shape[1],
        **({} if steps is None else {"timesteps": len(steps)}),
    }


def _decoders(state: State, width: int) -> dict[str, Any]:
    maps = [len(state[f"text_seg_dec.maps_projector.{place}.weight"]) for place in (0, 3, 6)]
    blocks = _count(state, r"text_seg_dec\.video_decoder\.up_blocks\.(\d+)\..*")
    up = [f"text_seg_dec.video_decoder.up_blocks.{place}.resnets.0.conv1.weight" for place in range(blocks)]
    vocabulary, caption_width = state["text_dec.decoder.transformer.wte.weight"].shape
    return {
        "frames": len(state["motion_proj.motion_proj.weight"]) // width,
        "maps": maps,
        "channels": [len(state[name]) for name in reversed(up)],
        "concept_width": len(state["classifier.vision_proj_channel.weight"]),
        "vocabulary": vocabulary,
        "caption_width": caption_width,
        "caption_layers": _count(state, r"text_dec\.decoder\.transformer\.h\.(\d+)\..*"),
        "caption_heads": max(1, caption_width // HEAD_WIDTH),
        "caption_positions": len(state["text_dec.decoder.transformer.wpe.weight"]),
    }


def _heads(state: State, tokens: int, backbone: dict[str, Any]) -> dict[str, Head]:
    frames, width = backbone["frames"], len(state["backbone.clip_proj.0.weight"])
    side = isqrt(tokens) << (len(backbone["channels"]) - 1)
    latent = side * 7 // 16  # 28 of 64: the autoencoder's, of 224 pixels
    channels = len(state["text_seg_dec.recon_head.weight"])
    return {
        "motion": Head((frames, tokens, width)),
        "mask": Head((frames, 1, side, side)),
        "latents": Head((frames, channels, latent, latent)),
        "concepts": Head((len(state["classifier.classifier.weight"]),)),
        "caption": Head((CAPTION_LENGTH,)),
    }


def _blurry(state: State) -> dict[str, Head]:
    """Find the shapes of the blurry latent, and of its maps; which autoencoder's it is, nothing says."""
    side = isqrt(len(state["backbone.blin1.weight"]) // len(state["backbone.bnorm.weight"]))
    blocks = _count(state, r"backbone\.bupsampler\.up_blocks\.(\d+)\..*")
    channels, latent = len(state["backbone.bupsampler.conv_out.weight"]), side << (blocks - 1)
    width = len(state["backbone.b_maps_projector.6.weight"])
    return {"blurry": Head((channels, latent, latent)), "maps": Head((side * side, width))}


def _renamed(state: State, subjects: Sequence[int], has_decoders: bool, has_prior: bool) -> State:
    brain = "backbone.brain." if has_decoders or has_prior else "backbone."
    found = {}
    for name, value in state.items():
        if name.startswith(SCHEDULE) or name == TIED:
            continue
        ridge = re.match(r"ridge\.linears\.(\d+)\.", name)
        new = name.replace(f".{ridge[1]}.", f".{subjects[int(ridge[1])]}.", 1) if ridge else name
        if new.startswith(PRIOR):
            found[f"backbone.prior.{new.removeprefix(PRIOR)}"] = value
        else:
            found[(brain if new.startswith(BRAIN) else "backbone.") + new] = value
    return found


def _say(path: Path, state: State) -> None:
    """Warn of weights that have no effect here."""
    mixers = sum(value.numel() for name, value in state.items() if ".mixer_blocks" in name)
    if mixers:
        console.warn(
            f"{path}: {mixers / 1e6:.3g} M weights of mixer blocks have no effect but a constant; a recipe "
            "with the backbone's `mixer: none` that starts from it gives equal outputs without them"
        )


def _layer(name: str) -> str:
    return f"{PRIOR}net.causal_transformer.layers.0.0.{name}"


def _count(state: State, pattern: str) -> int:
    """Count the numbers that a part of the names has."""
    return len({match[1] for name in state if (match := re.fullmatch(pattern, name))})
