"""The model folder of the BrainHiVE repository (commit f06db69, `CLIPConfig`), read and written."""

import re
from contextlib import suppress
from typing import Any

import torch
from torch import Size

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.heads import FUSED, TOKEN, Head
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.models.weight_names import State, Table, rename
from brainhive_cli.training.alignment.layout import Layout

Fields = dict[str, Any]

KINDS = ("brain_mlp", "brain_projection", "nice", "atm", "shallow_net", "deep_net", "eeg_net", "ts_conv")
"""Upstream's brain encoders; they have its names here too."""
BRAIN, VISION = "brain_model.backbone.", "vision_model."
"""Upstream's prefixes of what is `backbone.` and `fuser.` here."""
OURS: Table = {
    re.escape(BRAIN): "backbone.",
    re.escape(VISION): "fuser.",
    "logit_scale": "losses.0.logit_scale",
}
BLOCK = "fuser.block.layers.0.ff.w1.weight"
SUBJECT_TOKENS = "backbone.encoder.enc_embedding.subject_embedding.subject_embedding.weight"
SHARED = "backbone.encoder.enc_embedding.subject_embedding.shared_embedding"
SUBJECTS = 10
"""Upstream's ATM takes a subject's number as the row of its token; numbers from here on share one token."""


def is_upstream(state: State) -> bool:
    """Whether weights have upstream's names."""
    return any(name.startswith(BRAIN) for name in state)


def read(config: Fields, upstream: State) -> tuple[Layout, State]:
    """Make a Layout, and our names of weights.

    Raises:
        BrainhiveError: if the config lacks what the weights do not show, or no brain encoder has them.
    """
    state = rename(upstream, OURS)
    absent = [key for key in ("brain_channels", "brain_sequence_length", "proj_meta") if key not in config]
    if absent:
        raise BrainhiveError(
            f"the upstream model's config.json has no {', '.join(absent)}", "add what it was trained with"
        )
    channels, samples = config["brain_channels"], config["brain_sequence_length"]
    hidden, dim = state[BLOCK].shape
    dims = {key: len(state[f"fuser.proj_maps.{key}.weight"][0]) for key in config["proj_meta"]}
    kind = config.get("brain_backbone") or _kind_of(state, channels, samples, dim)
    subjects: tuple[int, ...] = ()
    if kind == "atm":
        state[SUBJECT_TOKENS] = torch.cat([state[SUBJECT_TOKENS], state[SHARED]])
        subjects = tuple(range(len(state[SUBJECT_TOKENS])))
    knobs = {"dropout": config["dropout"]} if "dropout" in config else {}
    layout = Layout(
        spec=SignalSpec(tuple(map(str, range(channels))), samples, subjects, (channels,) * len(subjects)),
        heads={TOKEN: Head((dim,), FUSED)},
        backbone={"kind": kind, **knobs},
        fuser={"kind": "fusion_encoder", "intermediate_size": hidden, **knobs},
        dims=dims,
        encoders={key: key for key in dims},
    )
    return layout, state


def write(layout: Layout, state: State) -> tuple[Fields, State]:
    """Make upstream's config and weights from a Layout and our weights.

    Raises:
        BrainhiveError: if upstream's model has no such parts.
    """
    _check(layout, state)
    kind = _upstreams(layout.backbone)
    if kind == "atm":
        state = state | _tokens_by_number(state, layout.spec.subjects)
    keys = {key: _upstream_key(name) or key for name, key in layout.encoders.items()}
    config = {
        "architectures": ["BrainCLIPModel"],
        "model_type": "clip",
        "brain_backbone": kind,
        "brain_channels": layout.spec.channels,
        "brain_sequence_length": layout.spec.samples,
        "dropout": layout.backbone.get("dropout", 0.0),
        "hidden_size": layout.heads[TOKEN].width,
        "intermediate_size": len(state[BLOCK]),
        "proj_meta": {keys[key]: width for key, width in layout.dims.items()},
    }
    for name in ("backbone.proj_eeg.0.weight", "backbone.project.1.weight"):
        if name in state:
            config["brain_embedding_dim"] = state[name].shape[1]
    table = {
        rf"fuser\.proj_maps\.{re.escape(key)}\.": f"{VISION}proj_maps.{upstreams}."
        for key, upstreams in keys.items()
    }
    return config, rename(state, table | {r"backbone\.": BRAIN, r"fuser\.": VISION})


def _check(layout: Layout, state: State) -> None:
    kind, spec, fuser = _upstreams(layout.backbone), layout.spec, _upstreams(layout.fuser)
    width = sum(head.width for head in layout.heads.values())
    size = (spec.channels, spec.samples, width, len(spec.subjects))
    shapes = {name: value.shape for name, value in state.items() if name.startswith("backbone.")}
    for is_upstreams, what in (
        (list(layout.heads) == [TOKEN], f"heads {', '.join(layout.heads)}"),
        (fuser == "fusion_encoder", f"fuser {fuser}"),
        (kind in KINDS and shapes == _shapes(kind, *size), f"brain encoder {layout.backbone}"),
        (layout.subject_layer == "none", f"subject layer {layout.subject_layer}"),
        (layout.similarity == "cosine", f"similarity {layout.similarity}"),
        (kind != "atm" or max(spec.subjects) <= SUBJECTS, f"subjects above {SUBJECTS}"),
    ):
        if not is_upstreams:
            raise BrainhiveError(f"upstream's model has no {what}", "keep it in this project's own layout")


def _upstreams(part: Fields) -> str:
    """Return upstream's name of a part's kind: with underscores."""
    return str(part.get("kind", "")).replace("-", "_")


def _tokens_by_number(state: State, subjects: tuple[int, ...]) -> State:
    """Put each subject's token in the row of its number, the mean of all in those of other numbers."""
    learned = dict(zip(subjects, state[SUBJECT_TOKENS], strict=True))
    mean = state[SUBJECT_TOKENS].mean(0)
    table = torch.stack([learned.get(number, mean) for number in range(SUBJECTS + 1)])
    return {SUBJECT_TOKENS: table[:SUBJECTS].clone(), SHARED: table[SUBJECTS:].clone()}


def _kind_of(state: State, channels: int, samples: int, dim: int) -> str:
    """Find the brain encoder whose weights have these names."""
    names = {name for name in state if name.startswith("backbone.")}
    for kind in KINDS:
        with suppress(BrainhiveError):  # too short a window for this one
            if names == set(_shapes(kind, channels, samples, dim, 1)):
                return kind
    raise BrainhiveError(
        "no brain encoder of upstream has such weights", f"name one as brain_backbone: {', '.join(KINDS)}"
    )


def _shapes(kind: str, channels: int, samples: int, dim: int, subjects: int) -> dict[str, Size]:
    with torch.device("meta"):
        module = parts.resolve("backbones", kind).build(channels, samples, dim, subjects)
    return {f"backbone.{name}": value.shape for name, value in module.state_dict().items()}


def _upstream_key(name: str) -> str:
    """Return upstream's name of the encoder of a store; empty if it has none."""
    is_known = parts.is_kind("encoders", name)
    return str(parts.load("encoders", name).Config.upstream) if is_known else ""
