"""What controls of a brain model cost each of its heads, as differences with intervals."""

from collections.abc import Mapping
from typing import Any

from brainhive_cli.core.console import Table
from brainhive_cli.core.measurements import ALL, Measurements, interval_text, scope

RIGHT = "none"
"""The variant without a control."""
SHUFFLED = "shuffled trials"


def control_effects(
    swept: Mapping[str, Measurements], shuffled: Mapping[str, Measurements]
) -> list[dict[str, Any]]:
    """List the effect of each control on each head.

    Args:
        swept: What eval-retrieval measured of each head, for a sweep over controls.
        shuffled: What it measured of each head without a control, and in draws with shuffled trials.

    Returns:
        head, control, its top1, and how much less that is than without it (`loss`): the value, with the 95 %
        interval `low` to `high`, and `these_subjects` over units alone. Those of shuffled trials are of the
        draws. Without a control `loss` is 0 and the interval is that of top1.
    """
    found: list[dict[str, Any]] = []
    for head, measured in swept.items():
        right = measured.scopes[scope(RIGHT, ALL)]["top1"]
        ends = {"low": right.low, "high": right.high, "these_subjects": right.these_subjects}
        found.append({"head": head, "control": RIGHT, "top1": right.value, "loss": 0.0, **ends})
        for pair in measured.notes["comparisons"]:
            if pair["pair"][0] == RIGHT:
                control = pair["pair"][1]
                top1 = measured.scopes[scope(control, ALL)]["top1"].value
                ends = {name: pair[name] for name in ("low", "high", "these_subjects")}
                found.append(
                    {"head": head, "control": control, "top1": top1, "loss": pair["difference"], **ends}
                )
        drawn = shuffled[head].notes["control"]["metrics"]["top1"]
        ends = {
            "low": right.value - drawn["high"],
            "high": right.value - drawn["low"],
            "these_subjects": None,
        }
        loss = right.value - drawn["mean"]
        found.append({"head": head, "control": SHUFFLED, "top1": drawn["mean"], "loss": loss, **ends})
    return found


def effects_table(effects: list[dict[str, Any]], title: str) -> Table:
    """Lay out what `control_effects` found."""
    rows = []
    for each in effects:
        interval = interval_text(each["low"], each["high"])
        these = interval_text(*(each["these_subjects"] or (None, None)))
        is_right = each["control"] == RIGHT
        shown = ("–", f"{interval} (top-1)") if is_right else (f"{each['loss']:.3f}", interval)
        rows.append((each["head"], each["control"], each["top1"], *shown, these))
    columns = ("head", "control", "top-1", "loss", "95 % CI", "these subjects")
    return Table(title, columns, tuple(rows))
