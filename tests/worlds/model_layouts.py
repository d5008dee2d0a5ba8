"""Layouts of models with one token, as most of BrainHiVE's are."""

from typing import Any

from brainhive_cli.models.heads import FUSED_TARGET, TOKEN_HEAD, Head
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.layout import Layout


def spec_of(
    names: tuple[str, ...], samples: int, subjects: tuple[int, ...] = (1,)
) -> SignalSpec:
    """Sensors of these names, the same for all subjects."""
    return SignalSpec(names, samples, subjects, (len(names),) * len(subjects))


def one_token(spec: SignalSpec, dim: int, dims: dict[str, int], **more: Any) -> Layout:
    """A fused token [D] of embeddings of these widths; the store of each encoder has
    its key.
    """
    given = {
        "backbone": {"kind": "linear"},
        "fuser": {"kind": "fusion_encoder", "intermediate_size": 8},
    }
    given |= {"dims": dims, "encoders": {key: key for key in dims}}
    return Layout(spec, {TOKEN_HEAD: Head((dim,), FUSED_TARGET)}, **{**given, **more})
