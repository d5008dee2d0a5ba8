"""Layouts of models with a single token, as most of BrainHiVE's are."""

from typing import Any

from brainhive_cli.models import FUSED_TARGET, TOKEN_HEAD, Head, SignalSpec
from brainhive_cli.training.alignment.layout import Layout


def make_signal_spec(
    names: tuple[str, ...], samples: int, subjects: tuple[int, ...] = (1,)
) -> SignalSpec:
    """Describe signals whose sensors have the same names in all subjects."""
    return SignalSpec(names, samples, subjects, (len(names),) * len(subjects))


def make_token_layout(
    spec: SignalSpec, dim: int, dims: dict[str, int], **options: Any
) -> Layout:
    """Lay out a model that predicts a fused token [D].

    Args:
        spec: The signals.
        dim: Width D of the token.
        dims: Width of the embeddings of each encoder.
        options: Further arguments of `Layout`.
    """
    defaults = {
        "backbone": {"kind": "linear"},
        "fuser": {"kind": "fusion_encoder", "intermediate_size": 8},
        "dims": dims,
        "encoders": {key: key for key in dims},
    }
    heads = {TOKEN_HEAD: Head((dim,), FUSED_TARGET)}
    return Layout(spec, heads, **(defaults | options))
