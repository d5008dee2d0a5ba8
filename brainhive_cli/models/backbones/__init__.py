"""Brain models: signals [B, C, T] to named heads.

A part on this shelf is one of two kinds. Most give one vector: `Config.build(channels,
samples, dim, subjects)` makes a module whose `forward(signal, subject)` is [B, D],
which is cut into the heads here. A part whose Config has `takes_spec` has `build(spec,
heads)` and a `forward` that gives the heads by name; it may have methods `learn` and
`decode` where the defaults below do not serve. What such a part learns for one subject
alone lies in a `ModuleDict` by the subject's number, so that no other gets it.

A part with a key `pretrained` has a module with `load_pretrained()`, which is called
when a training begins, after its weights were drawn, and not when a trained model is
opened.

The aligner has checked that signals are of the size that a part was built for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from brainhive_cli.core import foreign_code, parts
from brainhive_cli.core.errors import BrainhiveError, first_line
from brainhive_cli.models import heads as outputs
from brainhive_cli.models.heads import Decoded, Heads
from brainhive_cli.models.signal_spec import SignalSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

Tensors = dict[str, "Tensor"]


class BackboneConfig(parts.Config):
    """Base of backbones' Configs; the defaults are those of a backbone that gives one
    vector.
    """

    takes_spec: ClassVar[bool] = False
    """Whether it is built as `build(spec, heads)` and gives the heads by name."""
    pads_widths: ClassVar[bool] = False
    """Whether it takes subjects of unequal width: signals of any width up to the
    largest.
    """
    reads_sensors: ClassVar[bool] = False
    """Whether its `build` gets the spec (names, positions, rate) behind the
    subjects.
    """
    is_closed_form: ClassVar[bool] = False
    """Whether it is fitted in one pass over averaged signals, without steps: by the
    module's method `fit`, a subject at a time, and by `solve` after the last one where
    it has such a method.
    """
    is_classifier: ClassVar[bool] = False
    """Whether it is fitted to labels that are tested later, by more signals than there
    are labels.
    """
    continues: ClassVar[bool] = False
    """Whether a fit in closed form begins with the weights of another model; else these
    have no effect.
    """
    streams: ClassVar[Sequence[str]] = ()
    """Sets of `signal.region_split` that it reads apart; without any it reads all
    voxels as one.
    """


def build(config: BackboneConfig, spec: SignalSpec, heads: Heads) -> nn.Module:
    """Make a brain model of either kind.

    Args:
        config: The part's Config.
        spec: What it is built for.
        heads: What it predicts.

    Raises:
        BrainhiveError: if it does not go with the signals or the heads.
    """
    arguments: tuple[Any, ...] = (spec, heads)
    if not config.takes_spec:
        # narrower subjects are padded to the widest; one vector holds all heads, one
        # after another
        channels = (
            max(spec.widths) if spec.widths and config.pads_widths else spec.channels
        )
        dim = sum(head.width for head in heads.values())
        sensors = (spec,) if config.reads_sensors else ()
        arguments = (channels, spec.samples, dim, len(spec.subjects), *sensors)
    try:
        return parts.build_module(config, *arguments)
    except ValueError as error:  # as of torch, where groups do not divide channels
        if "." in config.kind:  # a user's own part shows where it fails
            raise
        raise BrainhiveError(
            f"the backbone {config.kind} cannot be built: {first_line(error)}",
            "other sizes of the backbone",
        ) from error


def predict(
    module: nn.Module,
    heads: Heads,
    signal: Tensor,
    subject: Tensor | None,
    names: Sequence[str] | None = None,
) -> Tensors:
    """Predict every head: [B, *shape] by name.

    Args:
        module: From `build`.
        heads: Those that it was built for.
        signal: [B, C, T] of one subject, or of several of equal width.
        subject: [B] subject indices; None is a subject not seen in training.
        names: Heads that are asked for; a part whose others cost much predicts these
            alone (`some`).

    Raises:
        BrainhiveError: if the module gives other heads.
    """
    from torch import Tensor

    # predict only what is asked for, where a part can
    predict_some = getattr(module, "some", None)
    if names is not None and predict_some is not None:
        return dict(predict_some(signal, subject, names))

    # check before the cut: a user's backbone may return anything
    predicted = module(signal, subject)
    # `shape[0]`, as len() would fix the batch of an exported model
    outputs.check_outputs(predicted, heads, "the backbone", module, signal.shape[0])
    if isinstance(predicted, Tensor):
        return outputs.split_heads(predicted, heads)
    return dict(predicted)


def learn(
    module: nn.Module,
    heads: Heads,
    signal: Tensor,
    subject: Tensor | None,
    targets: Mapping[str, Tensor],
    context: Any,
) -> tuple[Tensors, Tensors]:
    """Predict for a training step, in which a part may see the targets, as to predict a
    caption's next word.

    Returns:
        Predictions by head, and the targets that replace the given ones; by default
        none.
    """
    learn_step = getattr(module, "learn", None)
    # most backbones predict alike in training and afterwards
    if learn_step is None:
        return predict(module, heads, signal, subject), {}
    pair: tuple[Tensors, Tensors] = learn_step(signal, subject, targets, context)
    if not (
        isinstance(pair, tuple)
        and len(pair) == 2
        and all(isinstance(part, Mapping) for part in pair)
    ):
        raise BrainhiveError(
            f"{foreign_code.name_object(module, 'the backbone')}: learn gives "
            f"{type(pair).__name__}",
            "return two dicts: predictions by head, and the targets that replace "
            "others",
        )
    return pair


def decode(
    module: nn.Module,
    heads: Heads,
    signal: Tensor,
    subject: Tensor | None,
    seeds: Sequence[int],
) -> Decoded:
    """Decode signals; a part whose answers are sampled or written word by word uses one
    seed a signal.
    """
    import torch

    # the part's own way of decoding, or its predictions
    sample = getattr(module, "decode", None)
    with torch.inference_mode():
        if sample is None:
            return Decoded(predict(module, heads, signal, subject))
        decoded = sample(signal, subject, seeds)

    # a user's backbone may return anything
    if not isinstance(decoded, Decoded):
        raise BrainhiveError(
            f"{foreign_code.name_object(module, 'the backbone')}: decode gives "
            f"{type(decoded).__name__}",
            "return Decoded(tensors, texts)",
        )
    return decoded
