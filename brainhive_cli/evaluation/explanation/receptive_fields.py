"""Which samples the columns of a convolutional brain encoder see, and what it is without one of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn

from brainhive_cli.core.errors import BrainhiveError

PROBES = 4
"""Random signals whose gradients say what a column sees: an activation may be flat for one of them."""
Predict = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Columns:
    """The last feature map of a network whose columns each see a part of the window.

    Attributes:
        layer: The layer that gives it, [..., columns].
        spans: First and last sample that each column sees.
    """

    layer: nn.Module
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def find(cls, module: nn.Module, predict: Predict, channels: int, samples: int) -> Self:
        """Find it by the gradients of random signals, whatever the network is made of.

        Args:
            module: The network.
            predict: Runs it on signals [B, C, T].
            channels: C.
            samples: T.

        Raises:
            BrainhiveError: if every layer sees all samples at once, as attention and linear layers do.
        """
        probe = torch.randn(PROBES, channels, samples, generator=torch.Generator().manual_seed(0))
        device = next(module.parameters()).device
        probe = probe.to(device).requires_grad_()
        outputs: dict[nn.Module, Tensor] = {}

        def keep(layer: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim > 2 and output.shape[-1] > 1:
                outputs.pop(layer, None)  # one that is used again counts where it was used last
                outputs[layer] = output

        leaves = [layer for layer in module.modules() if not [*layer.children()]]
        handles = [layer.register_forward_hook(keep) for layer in leaves]
        try:
            with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
                predict(probe)
        finally:
            for handle in handles:
                handle.remove()
        for layer, output in reversed(outputs.items()):
            ends = [_span(output, probe, column) for column in (0, output.shape[-1] - 1)]
            if all(ends) and _moves(ends):
                spans = [_span(output, probe, column) for column in range(output.shape[-1])]
                if all(spans) and _moves(spans):
                    return cls(layer, tuple(span for span in spans if span))
        raise BrainhiveError(
            f"{type(module).__name__} has no layer whose columns see a part of the window each",
            "the time course by windows serves every brain encoder",
        )

    @contextmanager
    def replaced(self, column: int, features: Tensor) -> Iterator[None]:
        """Let a column of the feature map be that of other signals, while the block runs.

        Args:
            column: Which.
            features: Feature maps [B, ..., columns] of the other signals.
        """

        def swap(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            changed = output.clone()
            changed[..., column] = features[..., column]
            return changed

        handle = self.layer.register_forward_hook(swap)
        try:
            yield
        finally:
            handle.remove()

    def features(self, predict: Predict, signal: Tensor) -> Tensor:
        """Return the feature maps [B, ..., columns] of signals [B, C, T]."""
        found: list[Tensor] = []
        handle = self.layer.register_forward_hook(lambda _, __, output: found.append(output.detach()))
        try:
            predict(signal)
        finally:
            handle.remove()
        return found[-1]


def _span(output: Tensor, probe: Tensor, column: int) -> tuple[int, int] | None:
    """Return the first and the last sample that a column depends on; None where it depends on none."""
    if not output.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(
        output[..., column].square().sum(), probe, retain_graph=True, allow_unused=True
    )
    if gradient is None:
        return None
    seen = (gradient != 0).flatten(0, 1).any(0).nonzero()  # [T]
    return (int(seen[0]), int(seen[-1])) if len(seen) else None


def _moves(spans: list[Any]) -> bool:
    """Whether later columns see later samples: a map over channels or features does not."""
    centres = [first + last for first, last in spans]
    return all(one < other for one, other in pairwise(centres))
