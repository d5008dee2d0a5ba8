"""Publishers' checkpoints under our names: tables that rename, and counts that tell a model's size."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

State = dict[str, Tensor]
Table = Mapping[str, str | None]
"""What stands for the beginning of a weight's name, by a pattern of it; None: the weight is left out."""


def rename(state: Mapping[str, Tensor], table: Table) -> State:
    """Rename weights by the first pattern of a table that a name begins with; other names stay.

    Which of our weights are then missing, and which names are left over, is said by `weights.fill`.
    """
    renamed = {}
    for name, value in state.items():
        pattern = next((pattern for pattern in table if re.match(pattern, name)), None)
        if pattern is None:
            renamed[name] = value
        elif (replacement := table[pattern]) is not None:
            renamed[re.sub(pattern, replacement, name, count=1)] = value
    return renamed


def below(state: Mapping[str, Tensor], prefix: str) -> State:
    """Select the weights whose names begin with a prefix, and leave the prefix out."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def count_numbers(state: Mapping[str, Tensor], pattern: str) -> int:
    """Count the numbers that a pattern's group has among the names of weights."""
    return len({match[1] for name in state if (match := re.match(pattern, name))})


def adapt(module: Any, state: State, prefix: str) -> State:
    """Bring the weights below a prefix to a module of fewer parts, where its method `adapted` says how."""
    if not hasattr(module, "adapted"):
        return state
    others = {name: value for name, value in state.items() if not name.startswith(prefix)}
    return others | {prefix + name: value for name, value in module.adapted(below(state, prefix)).items()}
