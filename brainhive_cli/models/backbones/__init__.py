"""Backbones, which are networks from signals [B, C, T] to named heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from brainhive_cli.core.base import BrainhiveError, first_line
from brainhive_cli.core.files import foreign_code
from brainhive_cli.core.recipes import parts
from brainhive_cli.models import Decoded, Heads, SignalSpec, heads as outputs

if TYPE_CHECKING:
    from torch import Tensor, nn

Tensors = dict[str, "Tensor"]


class BackboneConfig(parts.Config):
    """Base class of the settings of backbones.

    Most backbones predict one vector. `build(channels, samples, dim, subjects)` makes
    their module, and `forward(signal, subject)` returns vectors [B, D], which are split
    into heads.

    A backbone with `takes_spec` has `build(spec, heads)`, and its `forward` returns
    heads by name. Parameters of one subject are in a `ModuleDict` by the subject's
    number, so that only this subject uses them.

    A module whose Config has a key `pretrained` has a method `load_pretrained()`. It is
    called when a training begins, not when a trained model is loaded.
    """

    takes_spec: ClassVar[bool] = False
    """If True, `build` takes spec and heads, and `forward` returns heads by name."""
    pads_widths: ClassVar[bool] = False
    """If True, subjects may differ in width. `channels` is the largest width."""
    reads_sensors: ClassVar[bool] = False
    """If True, `build` takes the SignalSpec as a last argument, for names, positions or
    sampling rate.
    """
    is_closed_form: ClassVar[bool] = False
    """If True, the module's `fit` is called once per subject on averaged signals, then
    `solve` if there is one.
    """
    is_classifier: ClassVar[bool] = False
    """If True, it learns labels, and test signals have the same labels."""
    continues: ClassVar[bool] = False
    """If True, a fit in closed form depends on the initial weights."""
    streams: ClassVar[Sequence[str]] = ()
    """Sets of `signal.region_split` that it reads separately."""

    @property
    def input_unit(self) -> str:
        """Unit that pretrained weights take, or "" for signals with a spread of 1."""
        return ""


class SelectiveBackbone(Protocol):
    """Backbone that can predict a few heads faster than all of them."""

    def predict_heads(
        self, signal: Tensor, subject_index: Tensor | None, names: Sequence[str]
    ) -> Tensors:
        """Predict the named heads, [B, *shape] by name."""
        ...


class LearningBackbone(Protocol):
    """Backbone that sees the targets in training, or predicts more than the heads."""

    def learn(
        self,
        signal: Tensor,
        subject_index: Tensor | None,
        targets: Mapping[str, Tensor],
        context: Any,
    ) -> tuple[Tensors, Tensors]:
        """Return predictions by name, and targets that replace the given ones."""
        ...


class SamplingBackbone(Protocol):
    """Backbone whose decoded heads are sampled, or written as texts."""

    def decode(
        self, signal: Tensor, subject_index: Tensor | None, seeds: Sequence[int]
    ) -> Decoded:
        """Decode B signals, with a seed [B] per signal."""
        ...


def build(config: BackboneConfig, spec: SignalSpec, heads: Heads) -> nn.Module:
    """Make a backbone.

    Args:
        config: Settings of the backbone.
        spec: Signals that it reads.
        heads: Heads that it predicts.

    Raises:
        BrainhiveError: if it does not suit the signals or the heads.
    """
    arguments: list[Any] = [spec, heads]
    if not config.takes_spec:
        if spec.widths and config.pads_widths:
            channels = max(spec.widths)
        else:
            channels = spec.channels
        dim = sum(head.width for head in heads.values())
        arguments = [channels, spec.samples, dim, len(spec.subjects)]
        if config.reads_sensors:
            arguments.append(spec)
    try:
        return parts.build_module(config, *arguments)
    except ValueError as error:  # from torch, if groups do not divide channels
        if "." in config.kind:  # errors of users' modules keep their traceback
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
    """Predict heads.

    Args:
        module: Backbone.
        heads: Heads that it was built for.
        signal: Signals [B, C, T] of one subject, or of several of equal width.
        subject: Index [B] of each signal's subject, or None for a new subject.
        names: Heads that are needed. Default: all. Backbones may predict more.

    Returns:
        Predictions [B, *shape] by head.

    Raises:
        BrainhiveError: if the module returns other heads or shapes.
    """
    from torch import Tensor

    # hasattr also finds the methods of a wrapped network, such as a compiled one
    if names is not None and hasattr(module, "predict_heads"):
        selective = cast(SelectiveBackbone, module)
        return dict(selective.predict_heads(signal, subject, names))

    # a user's backbone may return anything. `len()` would fix B in an exported model.
    predicted = module(signal, subject)
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
    """Predict heads in a training step.

    Returns:
        Predictions by name, and targets that replace the given ones. The second dict is
        empty if the backbone has no `learn`.

    Raises:
        BrainhiveError: if the backbone's `learn` does not return two dicts.
    """
    if not hasattr(module, "learn"):
        return predict(module, heads, signal, subject), {}

    # a user's backbone may return anything
    learner = cast(LearningBackbone, module)
    result: Any = learner.learn(signal, subject, targets, context)
    is_pair = isinstance(result, tuple) and len(result) == 2
    if not is_pair or not all(isinstance(tensors, Mapping) for tensors in result):
        raise BrainhiveError(
            f"{foreign_code.name_object(module, 'the backbone')}: learn gives "
            f"{type(result).__name__}",
            "return two dicts: predictions by head, and the targets that replace "
            "others",
        )
    predictions, replaced_targets = result
    return predictions, replaced_targets


def decode(
    module: nn.Module,
    heads: Heads,
    signal: Tensor,
    subject: Tensor | None,
    seeds: Sequence[int],
) -> Decoded:
    """Decode signals, with a seed [B] per signal for backbones that sample.

    Raises:
        BrainhiveError: if the backbone's `decode` does not return `Decoded`.
    """
    import torch

    with torch.inference_mode():
        if not hasattr(module, "decode"):
            return Decoded(predict(module, heads, signal, subject))
        sampler = cast(SamplingBackbone, module)
        decoded: Any = sampler.decode(signal, subject, seeds)

    # a user's backbone may return anything
    if not isinstance(decoded, Decoded):
        raise BrainhiveError(
            f"{foreign_code.name_object(module, 'the backbone')}: decode gives "
            f"{type(decoded).__name__}",
            "return Decoded(tensors, texts)",
        )
    return decoded
