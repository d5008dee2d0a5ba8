"""Sweeps: values of recipe keys that are compared, of which each combination is a run.

A swept recipe means a workflow (see `commands/workflow.py`): it is expanded to a step
for each combination before any run is made.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from brainhive_cli.core.base import RecipeError, write_value
from brainhive_cli.core.recipes import Recipe, flag_field, split_commas
from brainhive_cli.core.results import flatten


def read_sweep(value: Any) -> Any:
    """Flatten the sections of a sweep to dotted keys, and split texts at commas.

    For example, `{train: {lr: "1e-3,1e-4"}}` becomes `{train.lr: [1e-3, 1e-4]}`, like
    the text `train.lr=1e-3,1e-4` of the flag `--sweep`. Spaces separate several keys.
    """
    if isinstance(value, str):
        value = dict(text.partition("=")[::2] for text in value.split())
    if not isinstance(value, Mapping):
        return value
    # an empty section sets no key
    flat_values = flatten(value).items()
    return {key: split_commas(values) for key, values in flat_values if values != {}}


def _refuse_shared_keys(sweep: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return a sweep, or raise an error for a key that all runs must share."""
    for key in sweep:
        # Sections that are the same for all runs of a sweep.
        if key.split(".")[0] in ("paths", "run", "published", "sweep"):
            raise RecipeError(
                f"sweep: {key} must be the same for all runs of a sweep",
                "run the command for each value",
            )
    return sweep


SweptValues = Annotated[list[Any], Field(min_length=1)]
"""Values of a key that a sweep compares."""
Sweep = Annotated[
    dict[str, SweptValues],
    BeforeValidator(read_sweep),
    AfterValidator(_refuse_shared_keys),
]
"""Values to compare, by dotted recipe key."""


class SweptRecipe(Recipe):
    """Base class of recipes that may compare values of their keys."""

    sweep: Sweep = flag_field(
        {},
        "values to compare, by dotted recipe key, as in train.lr=1e-3,1e-4. Every "
        "combination is a run, and a workflow compares the runs; default: none",
    )

    def require_single_run(self) -> None:
        """Raise a RecipeError if the recipe means several runs."""
        if self.sweep:
            raise RecipeError(
                f"a run has no sweep, and the recipe sweeps {', '.join(self.sweep)}",
                "set sweep in the recipe of a step, or on its own command line",
            )


def list_axes(sweep: Mapping[str, list[Any]]) -> dict[str, dict[str, str]]:
    """Label the values of a sweep.

    Args:
        sweep: Values to compare, by dotted recipe key.

    Returns:
        By key, the override `key=value` of each value, by the label of the value.

    Raises:
        RecipeError: if two values of a key have the same label.
    """
    axes: dict[str, dict[str, str]] = {}
    for key, values in sweep.items():
        axis = axes[key] = {}
        for value in values:
            label = _write_label(key, value)
            if label in axis:
                raise RecipeError(
                    f"sweep: two values of {key} are called {label}",
                    "leave one of them out",
                )
            axis[label] = f"{key}={write_value(value)}"
    return axes


def _write_label(key: str, value: Any) -> str:
    """Write the label of a swept value, which becomes part of the name of a step.

    A word is its own label, such as `nice`. Other values have the key too,
    as in `lr=0.1`.

    Args:
        key: Dotted recipe key. The label contains only its last step.
        value: Value of the key.
    """
    text = _write_text(value)
    is_word = re.match(r"[A-Za-z]", text) and not isinstance(value, bool | None)
    return text if is_word else f"{key.split('.')[-1]}={text}"


def _write_text(value: Any) -> str:
    """Write a value as a text that the name of a step may contain."""
    # write the kind of a part first, then its settings
    if isinstance(value, Mapping):
        texts = [_write_text(value["kind"])] if "kind" in value else []
        for key, setting in value.items():
            if key != "kind":
                texts.append(f"{key}={_write_text(setting)}")
        return ",".join(texts)
    if isinstance(value, list | tuple):
        return "+".join(map(_write_text, value))
    if isinstance(value, bool | None):
        return str(value).lower()
    return re.sub(r"[^\w.+-]+", "-", str(value)).strip("-.") or "none"
