"""Where a stage's weights come from: a model folder, a run, a published checkpoint, or a file of weights."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from brainhive_cli.core import home, hub, parts, weights
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files import below
from brainhive_cli.core.needs import Need
from brainhive_cli.core.recipe import Paths
from brainhive_cli.models import single_file
from brainhive_cli.training.alignment import model as aligners
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.initialisation import (
    modules_of_subjects,
    refuse_other_voxels,
    take_over,
)
from brainhive_cli.training.alignment.matching_run import RunNeeds
from brainhive_cli.training.alignment.model import Aligner, holds_model, is_model

BACKBONE = "backbone."
"""Before the names of a backbone's weights in a model."""
FILES = ("*.safetensors", "*.bin", "*.pt", "*.pth")
"""Weight files of a folder, the best first."""
ENDINGS = tuple(each[1:] for each in FILES)


@dataclass(frozen=True)
class Start:
    """Weights that a stage starts from.

    Attributes:
        path: A model folder, a checkpoint, or a file of weights.
        part: The part of the model that they are for; empty for all of it.
    """

    path: Path
    part: str = ""

    @property
    def is_model(self) -> bool:
        """Whether it is a model, which says what it learned from, and not weights of a part alone."""
        return holds_model(self.path)

    def give(self, aligner: Aligner) -> None:
        """Put the weights into a model.

        Raises:
            BrainhiveError: if they are of another architecture, or lack the part.
        """
        if not self.part:
            take_over(aligner, self.path)
            return
        needed = {n.removeprefix(f"{self.part}."): v for n, v in aligner.state_dict().items() if self._has(n)}
        state = self._plain(needed) or self._of_model(aligner, needed)
        of_subjects = modules_of_subjects(aligner)
        absent = [name for name in needed if name not in state and f"{self.part}.{name}" not in of_subjects]
        if absent:
            raise BrainhiveError(
                f"{self.path} has no weights for the part {self.part}: {absent[0]} is missing",
                "name a model that has this part, or leave it out of start_from",
            )
        if unlike := [name for name, each in state.items() if each.shape != needed[name].shape]:
            sizes = [list(each[unlike[0]].shape) for each in (state, needed)]
            raise BrainhiveError(
                f"{self.path}: {self.part}.{unlike[0]} has the shape {sizes[0]}, {sizes[1]} is needed",
                "give the same sizes in the recipe's backbone, or leave the part out of start_from",
            )
        aligner.load_state_dict({f"{self.part}.{n}": v for n, v in state.items()}, strict=False)

    def _has(self, name: str) -> bool:
        return name.startswith(f"{self.part}.")

    def _plain(self, needed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take weights from a file of the part, or of a module around it; empty if some are not in it.

        GPT-2's, for one, are `wte.weight` in the file of the hub, and `transformer.wte.weight` in one that
        was saved with the last layer.
        """
        if self.path.is_dir():
            return {}
        state, modules = weights.read(self.path), self.part.split(".")
        depths = 1 if self.is_model else len(modules) + 1  # a model's are read with what it says of itself
        for depth in range(depths):
            above = "".join(f"{module}." for module in modules[len(modules) - depth :])
            if all(above + name in state for name in needed):
                return {name: state[above + name] for name in needed}
        return {}

    def _of_model(self, aligner: Aligner, needed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take the part of a model, wherever in its backbone it lies."""
        start = aligners.load(self.path)
        state, where = start.state_dict(), f"{self.part}."
        if not any(self._has(name) for name in state):
            where = _place_of(needed, state, self.part)
        of_part = {f"{self.part}.{n.removeprefix(where)}": v for n, v in state.items() if n.startswith(where)}
        adapted = getattr(aligner.backbone, "adapted", None)
        if adapted is not None:
            of_backbone = adapted({n.removeprefix(BACKBONE): v for n, v in of_part.items()})
            of_part = {BACKBONE + n: v for n, v in of_backbone.items()}
        matching = {n: of_part[f"{self.part}.{n}"] for n in needed if f"{self.part}.{n}" in of_part}
        if modules_of_subjects(aligner) & {f"{self.part}.{name}" for name in matching}:
            refuse_other_voxels(start, aligner)
        return matching


def _place_of(needed: Mapping[str, Tensor], state: Mapping[str, Tensor], part: str) -> str:
    """Find what stands before the names of a part in a model that has it elsewhere: where most are."""
    counts: Counter[str] = Counter()
    for name in state:
        pieces = name.split(".")
        counts.update(
            ".".join(pieces[:place]) + "."
            for place in range(1, len(pieces))
            if ".".join(pieces[place:]) in needed
        )
    last = f".{part.rpartition('.')[2]}."
    return max(counts, key=lambda each: (counts[each], f".{each}".endswith(last)), default=f"{part}.")


def starts_of(
    references: Sequence[str | Mapping[str, str] | None], cell: Cell, paths: Paths, backbone: Any = None
) -> dict[int, tuple[Start, ...]]:
    """Find what each stage starts from, by the stage's number.

    A reference is a model folder or checkpoint, an align run, a file of weights, or `hub:owner/name` with
    one; or one for each of some parts; None is no start. Of runs whose name, but for its fingerprint, is the
    reference, the newest is taken whose sizes are those of `backbone`, the recipe's.

    Raises:
        MissingData: if there is no such run or file.
        RecipeError: if several models of a run could be meant.
    """
    starts = {}
    for number, reference in enumerate(references):
        if reference is not None:
            by_part = {"": reference} if isinstance(reference, str) else reference
            starts[number] = tuple(
                Start(_path(each, cell, _needs(each, part, paths, backbone)), part)
                for part, each in by_part.items()
            )
    return starts


def needs_of(reference: str | Mapping[str, str], cell: Cell, paths: Paths, backbone: Any) -> dict[str, Need]:
    """Look for what a stage starts from, by part; nothing is fetched.

    The key of a run is the reference.
    """
    by_part = {"": reference} if isinstance(reference, str) else reference
    looked_for = {}
    for part, each in by_part.items():
        if each.startswith("hub:"):
            is_file = each.partition("@")[0].endswith(ENDINGS)
            need = single_file.need(each) if is_file else hub.need(each, (), FILES[:1], ("config.json",))
        else:
            try:
                need = Need(home.portable(str(_path(each, cell, _needs(each, part, paths, backbone)))))
            except BrainhiveError as error:
                need = Need(each if Path(each).suffix else f"run {each}", None, error, key=each)
        looked_for[part] = need
    return looked_for


def _needs(label: str, part: str, paths: Paths, backbone: Any) -> RunNeeds:
    """Say what the runs of a name must have for a part of a model with this backbone to start from one."""
    below = part.removeprefix(BACKBONE) if part.startswith(BACKBONE) else ""
    weights_for = backbone if below or part in ("", "backbone") else None
    for key in below.split(".") if below else ():
        weights_for = getattr(weights_for, key, None)
    if not isinstance(weights_for, parts.Config):  # of a part that has no sizes of its own
        weights_for = None
    return RunNeeds(paths, label=label, weights_for=weights_for, part=below, choose="train.start_from=")


def _path(reference: str, cell: Cell, needs: RunNeeds) -> Path:
    """Take a model or file as it is; of a run the only model, or that of the cell with the same name."""
    if reference.startswith("hub:"):
        if reference.partition("@")[0].endswith(ENDINGS):
            return single_file.find(reference)
        folder = hub.folder(reference, allow=[*FILES[:1], "config.json"])
        return next((file for pattern in FILES for file in sorted(folder.glob(pattern))), folder)
    path = home.located(reference)
    if is_model(path) or (path.is_file() and path.suffix == ".safetensors"):
        return path
    if path.suffix in (".pth", ".pt", ".safetensors"):
        is_fetched = parts.is_kind("datasets", path.parent.name)  # as in data/cc2017/FILE
        hint = f"brainhive fetch {path.parent.name}" if is_fetched else "train.stages start_from=FILE"
        raise MissingData(f"no file {path}, which a stage starts from", hint)
    run, variant = needs.find(None if needs.names_runs else reference)
    cells = below(run.path / "cells", *filter(None, [variant]), source=f"{reference} names the variant")
    models = {path.parent.name: path for path in sorted(cells.glob("*/model"))}
    name = cell.name.rpartition("/")[2]
    if name not in models and len(models) != 1:
        raise RecipeError(
            f"{cell.name} could start from {' or '.join(models) or 'no model'} of {run.path.name}",
            f"train.stages start_from={cells / next(iter(models), 'CELL') / 'model'}",
        )
    return models.get(name) or next(iter(models.values()))
