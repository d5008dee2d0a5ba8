"""LoRA: low-rank changes of a frozen network's linear maps, learned with a brain model
(arXiv 2106.09685).
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainhive_cli.core.errors import BrainhiveError, RecipeError

HOOKS = "_adapter_hooks"
"""Attribute of a network that holds what the adapter attached last has registered."""


class Adapter(nn.Module):
    """y + (alpha / rank) B A x for every map y of x that it changes; B starts as zeros,
    which change nothing.

    Args:
        shapes: Outputs and inputs of each map, by the name of its module in the
            network.
        rank: Rows of A, columns of B.
        alpha: Numerator of the factor.
    """

    def __init__(
        self, shapes: Mapping[str, Sequence[int]], rank: int, alpha: float
    ) -> None:
        super().__init__()
        self.names, self.factor = tuple(shapes), alpha / rank
        # A [rank, inputs] is random and B [outputs, rank] zero
        self.down = nn.ParameterList(
            torch.randn(rank, inputs) / rank for _, inputs in shapes.values()
        )
        self.up = nn.ParameterList(
            torch.zeros(outputs, rank) for outputs, _ in shapes.values()
        )

    def attach(self, network: nn.Module) -> None:
        """Change a network's maps from now on, instead of the adapter that did so
        before.
        """
        # the adapter attached before would go on adding its change
        for hook in getattr(network, HOOKS, ()):
            hook.remove()
        hooks = [
            network.get_submodule(name).register_forward_hook(
                partial(self._change, index)
            )
            for index, name in enumerate(self.names)
        ]
        setattr(network, HOOKS, hooks)

    def _change(
        self, index: int, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
    ) -> Tensor:
        # in the adapter's precision: the network's may be lower
        # [..., rank]
        low = F.linear(inputs[0].to(self.down[index].dtype), self.down[index])
        return output + (self.factor * F.linear(low, self.up[index])).to(output.dtype)


def shapes_of(network: nn.Module, endings: Sequence[str]) -> dict[str, list[int]]:
    """Give the outputs and inputs of a network's linear maps, by name: all, or those
    whose names end so.

    Raises:
        RecipeError: if no name ends so.
        BrainhiveError: if the network has attention that calls its maps' weights, where
            nothing can be added.
    """
    # torch's own attention calls weights, not modules
    if any(isinstance(module, nn.MultiheadAttention) for module in network.modules()):
        raise BrainhiveError(
            (
                "train.lora cannot change torch's own attention, whose query, key and "
                "value are one map"
            ),
            "an encoder of transformers, as clip-b32",
        )

    # linear maps whose names end as the recipe says
    maps = {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear)}
    # a misspelt ending would silently change no map
    for ending in endings:
        if not any(name.endswith(ending) for name in maps):
            known = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in maps))
            raise RecipeError(
                f"train.lora.modules names {ending!r}", f"there are: {known}"
            )
    chosen = {
        name: m
        for name, m in maps.items()
        if not endings or name.endswith(tuple(endings))
    }
    return {
        name: [module.out_features, module.in_features]
        for name, module in chosen.items()
    }
