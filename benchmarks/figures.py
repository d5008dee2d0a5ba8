"""Figures of a benchmark and their targets: printed, and kept as they are measured."""

import json
import os
import resource
from pathlib import Path

import torch

KEPT = "BRAINHIVE_FIGURES"
"""Names a file that takes every figure at once, as a line of JSON, so that a crash loses none."""


def show(
    name: str, value: float, target: float | None = None, detail: str = "", at_most: bool = False
) -> None:
    """Print one figure and its target, and keep it.

    Args:
        name: What was measured, with its unit where it has one.
        value: The figure.
        target: What it should reach; None where it has none.
        detail: What it was computed from.
        at_most: Whether the target is the most that is allowed, rather than the least.
    """
    met = None if target is None else value <= target if at_most else value >= target
    figure = {
        "name": name,
        "value": value,
        "target": target,
        "at_most": at_most,
        "met": met,
        "detail": detail,
    }
    print(line(figure), flush=True)
    if file := os.environ.get(KEPT):
        with Path(file).open("a") as kept:
            kept.write(json.dumps(figure) + "\n")


def line(figure: dict) -> str:
    """Write a figure as a row of a table."""
    target = ""
    if figure["target"] is not None:
        sign, verdict = "<=" if figure["at_most"] else ">=", "met" if figure["met"] else "MISSED"
        target = f"{sign} {figure['target']:<5g} {verdict}"
    return f"{figure['name']:56} {figure['value']:9.3f}  {target:16} {figure['detail']}".rstrip()


def reset_peak() -> None:
    """Forget the peak of the GPU's memory, and give back what is cached."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> tuple[int, int]:
    """Read the most bytes of tensors, and of what was reserved for them; without a GPU, of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    held = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held, held
