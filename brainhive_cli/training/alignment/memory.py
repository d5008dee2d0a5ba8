"""Memory that training takes: on a device for weights; on a CPU, which the process keeps between steps."""

import contextlib
import ctypes
from collections.abc import Mapping
from typing import Any

import torch

from brainhive_cli.core.memory_estimate import in_words
from brainhive_cli.models import backbones
from brainhive_cli.models.heads import Heads
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.optimisation import is_below
from brainhive_cli.training.alignment.recipe import Recipe

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's malloc.h."""
KEPT = 2**30
"""Bytes; a step of BrainHiVE's training on a CPU allocates and frees half as many."""
TRAINED, HELD = 16, 4
"""Bytes of a weight in float32: with its gradient and AdamW's two moments, and alone."""


def memory_of_weights(recipe: Recipe, heads: Heads, cell: Cell, voxels: Mapping[int, int]) -> str:
    """Estimate the memory of a cell's backbone in training, before the tensors of a batch, in words.

    Regions are taken to share the voxels equally: a model whose regions have layers alike is as large however
    they share them.
    """
    widths = tuple(voxels[subject] for subject in cell.trained_on)
    step = len(names := [*recipe.signal.region_split])
    shares = [tuple(tuple(range(place, width, step)) for width in widths) for place in range(step)]
    regions = dict(zip(names, shares, strict=True))
    spec = SignalSpec((), 1, cell.trained_on, widths, regions=regions)
    with torch.device("meta"):
        module: Any = backbones.build(recipe.backbone, spec, heads)
    frozen = [{*stage.freeze} for stage in recipe.train.stages] or [set()]
    always = tuple(set.intersection(*frozen))
    is_fitted = getattr(recipe.backbone, "is_closed_form", False)
    total = held = 0
    for name, weight in module.named_parameters():
        is_trained = not is_fitted and not is_below(f"backbone.{name}", always)
        total, held = total + weight.numel(), held + weight.numel() * (TRAINED if is_trained else HELD)
    what = "weights" if is_fitted else "weights, gradients and moments, without a batch's tensors"
    return f"{in_words(held)} a cell: {total / 1e6:,.0f} million {what}"


def keep_freed_memory() -> None:
    """Let glibc keep freed memory, rather than return it and fetch it again, page by page, in each step.

    Otherwise a step of the backbone `nice` takes 1.4 times the CPU time (batch 1024, fp32).
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, KEPT)
        mallopt(M_TRIM_THRESHOLD, KEPT)
