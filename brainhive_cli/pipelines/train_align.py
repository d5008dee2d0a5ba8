"""train-align: a brain encoder a cell (subjects × seed), trained to hit the visual token."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from brainhive_cli import console, parts, recipe
from brainhive_cli.aligner import Layout
from brainhive_cli.datasets import Dataset
from brainhive_cli.embeddings import EmbeddingStore
from brainhive_cli.encoders import Encoders
from brainhive_cli.errors import RecipeError
from brainhive_cli.launch import Launch
from brainhive_cli.pipelines import Plan, Result, _finetune, _trackers
from brainhive_cli.pipelines._align import CellData, Train, train_cell
from brainhive_cli.pipelines._align_tables import tables
from brainhive_cli.pipelines._cells import Cell, cells_of, read_sweep, variants
from brainhive_cli.pipelines._data import (
    Signal,
    Trials,
    as_tensors,
    concepts_of,
    match_keys,
    open_embeddings,
    open_trials,
    prepare_all,
)
from brainhive_cli.pipelines._finetune import Finetune
from brainhive_cli.pipelines._watch import Watch
from brainhive_cli.priors.fusion_prior import FusionPrior
from brainhive_cli.runs import RunFolder

Listed = Annotated[list[Any], Field(min_length=1)]


class Published(recipe.Section):
    """What a paper reports for this recipe, to be printed beside what is measured."""

    top1: float | None = Field(None, ge=0, le=1, description="of the 200-way retrieval on test")
    top5: float | None = Field(None, ge=0, le=1)
    source: str = Field(description="where it is printed")


class Recipe(recipe.Recipe):
    """Whose signals are aligned with which embeddings, and how."""

    beside: ClassVar[frozenset[str]] = frozenset({"run", "published"})

    dataset: Annotated[Any, parts.part("datasets", "things_eeg")] = Field(
        "things-eeg", validate_default=True, description="signals and pictures"
    )
    encoders: Encoders = Field(
        ["clip-h14", "vae"], validate_default=True, min_length=1, description="embeddings that are fused"
    )
    mode: Literal["intra", "inter", "joint", "finetune"] = Field(
        "intra",
        description="intra: one subject; inter: leave one out; joint: all on all; finetune: new subjects",
    )
    subjects: recipe.Numbers | None = Field(None, description="subjects; default: all of the data set")
    seeds: recipe.Numbers = Field([2025, 2026, 2027], description="one cell a seed (paper: three from 2025)")
    dim: int = Field(1024, gt=0, description="D of the token, where neither fuser nor prior decides it")
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
    finetune: Finetune = Finetune()
    sweep: Annotated[dict[str, Listed], BeforeValidator(read_sweep)] = Field(
        {}, description="dotted recipe key to the values to compare; cells for each combination"
    )
    published: Published | None = None

    @model_validator(mode="after")
    def _every_variant_holds(self) -> Self:
        if self.sweep:
            variants(self)
        elif self.mode != "finetune" and self.finetune != Finetune():
            raise RecipeError(f"finetune is set, but mode is {self.mode}", "--mode finetune")
        return self


def plan(what: Recipe) -> Plan:
    """Say which cells there would be, and what is missing for them."""
    dataset: Dataset = what.dataset.build(what.paths)

    @cache
    def cells() -> list[Cell]:
        return cells_of(_finetune.inherit(what))

    def subjects() -> list[int]:
        return sorted({subject for cell in cells() for subject in (*cell.trained_on, *cell.tested_on)})

    def embeddings(variant: Recipe) -> Iterable[str]:
        return open_embeddings(dataset, what.dataset, "train", variant.encoders, what.paths)

    def target() -> str:
        return "a fuser of its own" if what.prior is None else FusionPrior.load(what.prior) and what.prior

    recipes = list(variants(what).values())
    looks: dict[str, Callable[[], Any]] = {
        "subjects": subjects,
        "seeds": lambda: what.seeds,
        "variants": lambda: ", ".join(filter(None, variants(what))) or "one",
        "cells": lambda: _few([cell.name for cell in cells()]),
        "trained from": lambda: _finetune.inherit(what).finetune.run or "new weights",
        "embeddings": lambda: ", ".join(dict.fromkeys(name for each in recipes for name in embeddings(each))),
        "signal": lambda: "×".join(map(str, dataset.recording(subjects()[0], "train").signal.shape)),
        "target": target,
        "trackers": lambda: ", ".join(_trackers.require(what.run.trackers)) or "none",
    }
    return Plan.of(looks)


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Train every cell that is not finished; the test split is never read."""
    what = _finetune.inherit(what)
    dataset: Dataset = what.dataset.build(what.paths)
    cells = cells_of(what)
    _trackers.require(what.run.trackers)
    label = f"{dataset.name}-{what.mode}-" + ("sweep" if what.sweep else what.backbone.kind)
    folder = RunFolder.open("train-align", label, what, launch, again)
    if not folder.is_finished:
        _train(what, cells, folder, launch)
        if launch.is_main:
            done = {cell.name: folder.read_json(f"cells/{cell.name}/metrics.json") for cell in cells}
            published = {"published": what.published.model_dump()} if what.published else {}
            folder.finish({"mode": what.mode, "dataset": dataset.name, "cells": done, **published})
        launch.wait()
    metrics = folder.metrics()
    hint = f"brainhive eval-retrieval --run {folder.path}"
    return Result(folder.path, tables(metrics, cells), metrics, hint=hint)


def _train(what: Recipe, cells: Sequence[Cell], folder: RunFolder, launch: Launch) -> None:
    """Take whole cells from a queue when there are enough for all; else share each cell's batches."""
    todo = [cell for cell in cells if not (folder.path / f"cells/{cell.name}/metrics.json").is_file()]
    todo = sorted(launch.gather(todo)[0], key=lambda cell: -len(cell.trained_on))  # the longest first
    alone = len(todo) >= launch.processes
    worker = Launch(0, 1, launch.device, launch.mixed_precision) if alone else launch
    recipes = variants(what)
    _prepare(recipes, todo, launch)
    watch = Watch(folder.path, todo, {label: each.train.epochs for label, each in recipes.items()})
    material = None
    with console.live(watch.table):
        for cell in launch.queue(todo, str(folder.path)) if alone else todo:
            mine = recipes[cell.variant]
            if material is None or not material.fits(mine):
                material = _Material.open(mine, launch.device)
            _train_cell(mine, cell, material, folder, worker)
    launch.wait()


def _prepare(recipes: Mapping[str, Recipe], cells: Sequence[Cell], launch: Launch) -> None:
    """Make the signal stores that are missing, before processes go separate ways."""
    for label, what in recipes.items():
        subjects = {subject for cell in cells if cell.variant == label for subject in cell.trained_on}
        prepare_all(what.dataset.build(what.paths), what.paths, what.signal, sorted(subjects), launch)


def _train_cell(what: Recipe, cell: Cell, material: "_Material", folder: RunFolder, worker: Launch) -> None:
    """Train one cell, telling the log and the trackers of its epochs."""
    held_out = _held_out(material.pictures, what.train.validation)
    trials = [material.trials_of(subject) for subject in cell.trained_on]
    layout, start = material.layout(what, trials, cell), None
    if what.mode == "finetune":
        start, known = _finetune.model_for(what, cell)
        layout = _finetune.grown(known, layout, cell.name)
        trials = [_finetune.share_of(each, held_out, what.finetune) for each in trials]
    data = CellData(trials, material.images, held_out, material.frozen_fuser, layout.subjects, start)
    names = what.run.trackers if worker.is_main else ()
    with _trackers.tracked(names, folder.path, cell.name, what.model_dump(mode="json")) as track:

        def told(event: dict[str, Any]) -> None:
            folder.log(**event)
            track(event)

        train_cell(cell.name, cell.seed, layout, data, what.loss, what.train, folder, worker, told)


@dataclass(frozen=True)
class _Material:
    """The embeddings and signals of all cells that learn from the same ones.

    Attributes:
        what: The recipe of one of them.
        dataset: Whose they are.
        pictures: One of the embedding stores: which picture each row is.
        keys: The fuser's key of each encoder, by the encoder's store name.
        images: Embeddings [M, D_encoder] by the fuser's key, on the device.
        prior: The Fusion Prior whose fusion encoder is the target, or None.
        trials: Signals by subject, as far as they are open.
    """

    what: Recipe
    dataset: Dataset
    pictures: EmbeddingStore
    keys: dict[str, str]
    images: dict[str, Tensor]
    prior: FusionPrior | None
    trials: dict[int, Trials]

    @classmethod
    def open(cls, what: Recipe, device: torch.device) -> Self:
        dataset: Dataset = what.dataset.build(what.paths)
        stores = open_embeddings(dataset, what.dataset, "train", what.encoders, what.paths)
        prior = FusionPrior.load(what.prior).float() if what.prior else None
        keys = {config.name: config.name for config in what.encoders}
        if prior:
            keys = match_keys(what.encoders, prior.dims, f"the prior {what.prior}")
        pictures = next(iter(stores.values()))
        return cls(what, dataset, pictures, keys, as_tensors(stores, keys, device), prior, {})

    def fits(self, what: Recipe) -> bool:
        """Tell whether it is what another recipe learns from, too."""
        mine, other = ((each.encoders, each.prior, each.signal) for each in (self.what, what))
        return mine == other

    def trials_of(self, subject: int) -> Trials:
        """Open a subject's signals, or find them open."""
        if subject not in self.trials:
            what = self.what
            self.trials[subject] = open_trials(
                self.dataset, what.paths, what.signal, subject, "train", self.pictures
            )
        return self.trials[subject]

    @property
    def frozen_fuser(self) -> Any:
        """The prior's fusion encoder; None where the fuser is trained."""
        return self.prior.fusion_encoder["vision_model"] if self.prior else None

    def layout(self, what: Recipe, trials: Sequence[Trials], cell: Cell) -> Layout:
        """Say what a cell's model is made of."""
        dims = {key: embedding.shape[-1] for key, embedding in self.images.items()}
        fuser, dim = what.fuser.model_dump(mode="json"), what.fuser.token_dim(dims, what.dim)
        if self.prior:
            hidden = self.prior.configs["fusion_encoder"]["intermediate_size"]
            fuser = {"kind": "fusion_encoder", "intermediate_size": hidden, "dropout": 0.0}
            dim = self.prior.dim
        return Layout(
            backbone=what.backbone.model_dump(mode="json"),
            fuser=fuser,
            dims=dims,
            encoders=self.keys,
            dim=dim,
            channels=trials[0].channels,
            samples=trials[0].signal.shape[-1],
            window_ms=what.signal.window_ms,
            scale=what.signal.scale,
            subjects=cell.trained_on,
            prior=what.prior or "",
        )


def _few(names: Sequence[str]) -> str:
    """Count names, and give the first and the last."""
    return f"{len(names)}: " + (", ".join(names) if len(names) <= 4 else f"{names[0]} … {names[-1]}")


def _held_out(pictures: EmbeddingStore, share: float) -> NDArray[np.bool_]:
    """Choose whole training concepts for validation; the same for every cell of every run."""
    concepts = concepts_of(pictures)
    names = np.unique(concepts)
    chosen = np.random.default_rng(0).permutation(names)[: round(share * len(names))]
    return np.isin(concepts, chosen)
