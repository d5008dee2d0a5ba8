"""train-align: a brain encoder a cell (subjects × seed), trained to hit the visual token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from brainhive_cli import console, parts, recipe
from brainhive_cli.aligner import Layout
from brainhive_cli.datasets import Dataset
from brainhive_cli.embeddings import EmbeddingStore
from brainhive_cli.encoders import Encoders
from brainhive_cli.errors import BrainhiveError
from brainhive_cli.launch import Launch
from brainhive_cli.pipelines import Plan, Result
from brainhive_cli.pipelines._batches import CellData
from brainhive_cli.pipelines._data import (
    Signal,
    Trials,
    as_tensors,
    chosen_subjects,
    concepts_of,
    match_keys,
    open_embeddings,
    open_jitter,
    open_trials,
    prepare_all,
)
from brainhive_cli.pipelines._form import form_of
from brainhive_cli.pipelines._train import Train
from brainhive_cli.pipelines._training import train_cell
from brainhive_cli.priors.fusion_prior import FusionPrior
from brainhive_cli.runs import RunFolder

Mode = Literal["intra", "inter", "joint"]


class Recipe(recipe.Recipe):
    """Whose signals are aligned with which embeddings, and how."""

    dataset: Annotated[Any, parts.part("datasets", "things_eeg")] = Field(
        "things-eeg", validate_default=True, description="signals and pictures"
    )
    encoders: Encoders = Field(
        ["clip-h14", "vae"], validate_default=True, min_length=1, description="embeddings that are fused"
    )
    mode: Mode = Field("intra", description="intra: one subject; inter: leave one out; joint: all on all")
    subjects: recipe.Numbers | None = Field(None, description="subjects; default: all of the data set")
    seeds: recipe.Numbers = Field([2025, 2026, 2027], description="one cell a seed (paper: three from 2025)")
    dim: int = Field(1024, gt=0, description="D of the token; a prior brings its own")
    backbone: Annotated[Any, parts.part("backbones", "brain_mlp")] = Field(
        "brain_mlp", validate_default=True, description="brain encoder"
    )
    fuser: Annotated[Any, parts.part("fusers", "fusion_encoder")] = Field(
        "fusion_encoder", validate_default=True, description="fusion encoder"
    )
    loss: Annotated[Any, parts.part("losses", "clip")] = Field(
        "clip", validate_default=True, description="what pulls tokens together"
    )
    prior: str | None = Field(None, description="Fusion Prior whose fusion encoder is the frozen target")
    signal: Signal = Signal()
    train: Train = Train()


@dataclass(frozen=True)
class Cell:
    """One training: who it learns from, who it is tested on, and its seed."""

    name: str
    trained_on: tuple[int, ...]
    tested_on: tuple[int, ...]
    seed: int


def cells_of(mode: Mode, subjects: Sequence[int], seeds: Sequence[int]) -> list[Cell]:
    """List the cells of a protocol.

    Raises:
        BrainhiveError: if `inter` is left with nobody to train on.
    """
    if mode == "joint":
        return [Cell(f"all_seed-{seed}", tuple(subjects), tuple(subjects), seed) for seed in seeds]
    if mode == "inter" and len(subjects) < 2:
        raise BrainhiveError(
            "mode inter leaves one subject out, so it needs at least two", "name more subjects"
        )
    cells = []
    for subject in subjects:
        others = tuple(s for s in subjects if s != subject)
        trained_on = (subject,) if mode == "intra" else others
        cells += [Cell(f"sub-{subject:02d}_seed-{seed}", trained_on, (subject,), seed) for seed in seeds]
    return cells


def plan(what: Recipe) -> Plan:
    """Say which cells there would be, and what is missing for them."""
    dataset: Dataset = what.dataset.build(what.paths)
    subjects = chosen_subjects(dataset, what.subjects)
    return Plan.of(
        {
            "subjects": lambda: subjects,
            "seeds": lambda: what.seeds,
            "cells": lambda: len(cells_of(what.mode, subjects, what.seeds)),
            "embeddings": lambda: ", ".join(
                open_embeddings(dataset, what.dataset, "train", what.encoders, what.paths)
            ),
            "signal": lambda: "×".join(map(str, dataset.recording(subjects[0], "train").signal.shape)),
            "target": lambda: _target(what)[0].prior or "a fusion encoder of its own",
        }
    )


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Train every cell that is not finished; the test split is never read."""
    dataset: Dataset = what.dataset.build(what.paths)
    subjects = chosen_subjects(dataset, what.subjects)
    cells = cells_of(what.mode, subjects, what.seeds)
    folder = RunFolder.open(
        "train-align", f"{dataset.name}-{what.mode}-{what.backbone.kind}", what, launch, again
    )
    if not folder.is_finished:
        _train(what, dataset, cells, folder, launch)
        if launch.is_main:
            done = {cell.name: folder.read_json(f"cells/{cell.name}/metrics.json") for cell in cells}
            folder.finish({"mode": what.mode, "dataset": dataset.name, "cells": done})
        launch.wait()
    return _result(folder, what)


def _train(what: Recipe, dataset: Dataset, cells: list[Cell], folder: RunFolder, launch: Launch) -> None:
    """Take whole cells when there are enough for every process; else share each cell's batches."""
    todo = [cell for cell in cells if not (folder.path / f"cells/{cell.name}/metrics.json").is_file()]
    todo = launch.gather(todo)[0]
    alone = len(todo) >= launch.processes
    worker = Launch(0, 1, launch.device, launch.mixed_precision) if alone else launch
    stores = open_embeddings(dataset, what.dataset, "train", what.encoders, what.paths)
    target, keys = _target(what)
    images = as_tensors(stores, keys, launch.device)
    pictures = next(iter(stores.values()))
    prepare_all(dataset, what.paths, what.signal, chosen_subjects(dataset, what.subjects), launch)
    form = form_of(dataset, what.paths, what.signal, what.train, what.subjects or dataset.subjects, launch)
    jitter = open_jitter(what.train.jitter, stores, keys, what.paths, launch.device)
    held_out = _held_out(pictures, what.train.validation)
    trials: dict[int, Trials] = {}
    mine = launch.mine(todo) if alone else todo
    with console.progress("cells", len(mine)) as bar:
        for cell in mine:
            for subject in set(cell.trained_on) - trials.keys():
                trials[subject] = open_trials(
                    dataset, what.paths, what.signal, subject, "train", pictures, form=form
                )
            tested, tested_images = _tested(what, dataset, cell, keys, launch)
            data = CellData(
                [trials[s] for s in cell.trained_on],
                images,
                held_out,
                target.prior_fuser,
                jitter,
                tested=tested,
                tested_images=tested_images,
            )
            layout = target.layout(what, keys, images, data.trials, cell.trained_on)
            train_cell(cell.name, cell.seed, layout, data, what.loss, what.train, folder, worker)
            bar.advance()
    launch.wait()


@dataclass(frozen=True)
class _Target:
    """What the brain encoder is to hit: a fuser of its own, or a prior's frozen one."""

    fuser: dict[str, Any]
    dim: int
    prior: str = ""
    prior_fuser: Any = None

    def layout(
        self,
        what: Recipe,
        keys: dict[str, str],
        images: dict[str, Any],
        trials: list[Trials],
        subjects: tuple[int, ...],
    ) -> Layout:
        return Layout(
            backbone=what.backbone.model_dump(mode="json"),
            fuser=self.fuser,
            dims={key: embedding.shape[-1] for key, embedding in images.items()},
            encoders=keys,
            dim=self.dim,
            channels=trials[0].channels,
            samples=trials[0].signal.shape[-1],
            window_ms=what.signal.window_ms,
            scale=what.signal.scale,
            subjects=subjects,
            prior=self.prior,
            normalise=what.signal.normalise,
        )


def _target(what: Recipe) -> tuple[_Target, dict[str, str]]:
    """Find the target, and its key of each encoder."""
    if what.prior is None:
        keys = {config.name: config.name for config in what.encoders}
        return _Target(what.fuser.model_dump(mode="json"), what.dim), keys
    prior = FusionPrior.load(what.prior).float()
    keys = match_keys(what.encoders, prior.dims, f"the prior {what.prior}")
    hidden = prior.configs["fusion_encoder"]["intermediate_size"]
    fuser = {"kind": "fusion_encoder", "intermediate_size": hidden, "dropout": 0.0}
    return _Target(fuser, prior.dim, what.prior, prior.fusion_encoder["vision_model"]), keys


def _tested(
    what: Recipe, dataset: Dataset, cell: Cell, keys: dict[str, str], launch: Launch
) -> tuple[list[Trials] | None, dict[str, Any]]:
    """Open the test split, where it selects the epoch; it is never read otherwise."""
    if what.train.selection != "test":
        return None, {}
    stores = open_embeddings(dataset, what.dataset, "test", what.encoders, what.paths)
    pictures = next(iter(stores.values()))
    trials = [
        open_trials(dataset, what.paths, what.signal, subject, "test", pictures) for subject in cell.tested_on
    ]
    return trials, as_tensors(stores, keys, launch.device)


def _held_out(pictures: EmbeddingStore, share: float) -> NDArray[np.bool_]:
    """Choose whole training concepts for validation; the same for every cell of every run."""
    concepts = concepts_of(pictures)
    names = np.unique(concepts)
    chosen = np.random.default_rng(0).permutation(names)[: round(share * len(names))]
    return np.isin(concepts, chosen)


def _result(folder: RunFolder, what: Recipe) -> Result:
    metrics = folder.metrics()
    rows = []
    for name, cell in metrics["cells"].items():
        top1 = cell["validation"].get("top1")
        shown = (
            ("–",) * 4
            if top1 is None
            else (top1["value"], f"{top1['low']:.3f}–{top1['high']:.3f}", top1["n"], top1["chance"])
        )
        rows.append((name, cell["epoch"], *shown))
    columns = ("cell", "epoch", "val top-1", "95 % CI", "n", "chance")
    title = f"{metrics['dataset']} {metrics['mode']}: validation on held-out training concepts"
    hint = f"brainhive eval-retrieval --run {folder.path}"
    return Result(folder.path, (console.Table(title, columns, tuple(rows)),), metrics, hint=hint)
