"""train-align: a brain encoder a cell (subjects × seed), trained to hit the visual token."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli import priors
from brainhive_cli.alignment import finetune as _finetune
from brainhive_cli.alignment.batches import CellData
from brainhive_cli.alignment.cells import Cell, cells_of
from brainhive_cli.alignment.identity import keep_identity
from brainhive_cli.alignment.initialisation import learned_by
from brainhive_cli.alignment.loop import train_cell
from brainhive_cli.alignment.progress import Watch
from brainhive_cli.alignment.published import compared_with_published
from brainhive_cli.alignment.recipe import Recipe
from brainhive_cli.alignment.starts import starts_of
from brainhive_cli.alignment.sweep import variants
from brainhive_cli.alignment.tables import tables
from brainhive_cli.alignment.training_data import TrainingData
from brainhive_cli.core import console, trackers
from brainhive_cli.core.caveats import together
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.data.encoder_keys import match_prior
from brainhive_cli.data.signal_stores import prepare_signals, require_signals, size_up
from brainhive_cli.data.targets import open_stores
from brainhive_cli.datasets import Dataset
from brainhive_cli.stores.target_store import TargetStore


def plan(what: Recipe) -> Plan:
    """Say which cells there would be, and what is missing for them."""

    @cache
    def found() -> Recipe:
        return _finetune.inherit(what)

    @cache
    def cells() -> list[Cell]:
        return cells_of(found())

    def dataset() -> Dataset:
        built: Dataset = found().dataset.build(what.paths)
        return built

    def subjects() -> list[int]:
        return sorted({subject for cell in cells() for subject in (*cell.trained_on, *cell.tested_on)})

    def signal() -> str:
        require_signals(dataset(), what.paths, found().signal, subjects())
        signals = {repr(each.signal): each.signal for each in variants(found()).values()}
        sizes = [size_up(dataset(), what.paths, each, subjects()) for each in signals.values()]
        (count, most, channels, samples), to_write = sizes[0]
        kept = 1 if found().signal.repetitions == "average" else 1 + most
        held = 4 * kept * count * channels * samples * max(len(cell.trained_on) for cell in cells())
        stores = f"signal stores: {console.size(to_write)} to write" if to_write else "signal stores: done"
        return f"{count}×{most}×{channels}×{samples}; a cell holds at most {held / 1e9:.2g} GB; {stores}"

    looks: dict[str, Callable[[], Any]] = {
        "subjects": subjects,
        "seeds": lambda: found().seeds,
        "cells": lambda: _few([cell.name for cell in cells()]),
        "embeddings": lambda: ", ".join(_embeddings(found())),
        "signal": signal,
        "target": lambda: _targets(found()),
        **trackers.checks(what.run.trackers),
    }
    if what.sweep:
        looks["variants"] = lambda: ", ".join(variants(what))
    if what.mode == "finetune":
        looks["trained from"] = lambda: found().finetune.run
    return Plan.of(looks)


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Train every cell that is not finished; the test split is never read."""
    what = _finetune.inherit(what)
    what = what.holding({prior: priors.describe(prior).digest for prior in _priors(what)})
    dataset: Dataset = what.dataset.build(what.paths)
    cells = cells_of(what)
    trackers.require(what.run.trackers)
    label = f"{dataset.name}-{what.mode}-" + ("sweep" if what.sweep else what.backbone.kind)
    folder = RunFolder.open("train-align", label, what, launch, again)
    if not folder.is_finished:
        _train(what, cells, folder, launch)
        if launch.is_main:
            notes = {"mode": what.mode, "dataset": dataset.name, **_published(what, dataset, cells)}
            folder.finish(_measurements(folder, cells, notes))
        launch.barrier()
    metrics = folder.measurements()
    hint = shlex.join(["brainhive", "eval-retrieval", "--run", str(folder.path)])
    return Result(folder.path, tables(metrics, cells), metrics, hint=hint)


def _measurements(folder: RunFolder, cells: Sequence[Cell], notes: Mapping[str, Any]) -> Measurements:
    """Collect what the cells measured."""
    found = {
        cell.name: Measurements.read(folder.read_json(f"cells/{cell.name}/{FINISHED}"), folder.path)
        for cell in cells
    }
    scopes = {name: metrics for each in found.values() for name, metrics in each.scopes.items()}
    caveats = together(*(each.caveats for each in found.values()))
    of_cells = {name: dict(each.notes) for name, each in found.items()}
    return Measurements(scopes, notes={**notes, "caveats": caveats, "cells": of_cells})


def _train(what: Recipe, cells: Sequence[Cell], folder: RunFolder, launch: Launch) -> None:
    """Take whole cells from a queue when there are enough for all; else share each cell's batches."""
    todo = [cell for cell in cells if not (folder.path / f"cells/{cell.name}/metrics.json").is_file()]
    todo = sorted(launch.gather(todo)[0], key=lambda cell: -len(cell.trained_on))  # the longest first
    alone = len(todo) >= launch.processes
    worker = Launch(0, 1, launch.device) if alone else launch
    recipes, material = variants(what), None
    _match_priors(what)
    keep_identity(
        folder, _embeddings(what), launch.is_main
    )  # what is missing is told before signals are made
    subjects = sorted({subject for cell in cells for subject in cell.trained_on})
    tested = {subject for cell in cells for subject in cell.tested_on}
    for each in recipes.values():
        needed = {*subjects, *tested} if each.train.selection == "test" else subjects
        prepare_signals(what.dataset.build(what.paths), what.paths, each.signal, sorted(needed), launch)
    watch = Watch(folder.path, todo, {label: each.train.epochs for label, each in recipes.items()})
    with console.live(watch.table):
        for cell in launch.queue(todo, str(folder.path)) if alone else todo:
            mine = recipes[cell.variant]
            if material is None or not material.is_compatible(mine):
                material = TrainingData.open(mine, subjects, launch)
            _train_cell(mine, cell, material, folder, worker)
    launch.barrier()


def _train_cell(what: Recipe, cell: Cell, material: TrainingData, folder: RunFolder, worker: Launch) -> None:
    """Train one cell, telling the log and the trackers of its epochs."""
    held_out = _held_out(material.pictures, what.train.validation)
    trials = [material.trials_of(subject) for subject in cell.trained_on]
    starts = starts_of(what.train.stages, cell, what.paths)
    if what.mode == "finetune":
        starts[0] = _finetune.model_for(what, cell)
        trials = [_finetune.share_of(each, held_out, what.finetune) for each in trials]
    layout, learned = material.layout(what, trials), material.learned(what, trials)
    tested, tested_images = material.tested(cell, learned) if what.train.selection == "test" else (None, None)
    data = CellData(
        trials,
        material.images,
        held_out,
        material.frozen_fuser,
        starts,
        tested,
        tested_images,
        learned,
        what.signal.repetitions,
        what.signal.random_k,
    )
    names, caveats = what.run.trackers if worker.is_main else (), learned_by(data, what.train).caveats
    with trackers.tracked(names, folder.path, cell.name, what.model_dump(mode="json"), caveats) as track:

        def told(event: dict[str, Any]) -> None:
            folder.log(**event)
            track(event)

        train_cell(cell.name, cell.seed, layout, data, what.loss_terms, what.train, folder, worker, told)


def _published(what: Recipe, dataset: Dataset, cells: Sequence[Cell]) -> dict[str, Any]:
    """Give what was published, if anything was, and how the set-up differs; by variant for a sweep."""
    if what.published is None:
        return {}
    found = {}
    for label, each in variants(what).items():
        tested = sorted({s for cell in cells if cell.variant == label for s in cell.tested_on})
        found[label] = compared_with_published(each, dataset.recorded_as, tested)
    return {"published": found if what.sweep else found[""]}


def _targets(what: Recipe) -> str:
    """Load the priors that are trained for, to find out whether they are whole, and name them."""
    _match_priors(what)
    for prior in _priors(what):
        priors.load(prior)
    targets = dict.fromkeys(each.prior for each in variants(what).values())
    return ", ".join(prior or "a fuser of its own" for prior in targets)


def _priors(what: Recipe) -> list[str]:
    """List the priors that the variants are trained for."""
    return list(dict.fromkeys(each.prior for each in variants(what).values() if each.prior is not None))


def _match_priors(what: Recipe) -> None:
    """Hold that the encoders of every variant are those of its prior, and so is D of the token."""
    for each in variants(what).values():
        if each.prior is not None:
            match_prior(each.prior, each.encoders)
            _refuse_other_sizes(
                each, {**priors.describe(each.prior).fuser, "dropout": each.train.prior_dropout}
            )


def _refuse_other_sizes(what: Recipe, made: Mapping[str, float]) -> None:
    """Refuse a fuser, or a width of the token, other than the prior's, which is taken as it is.

    Raises:
        RecipeError: naming both.
    """
    asked = {"dim": what.dim, **what.fuser.model_dump(exclude_defaults=True)}
    for name, value in asked.items():
        if value is not None and value != made.get(name, value):
            key = name if name == "dim" else f"fuser.{name}"
            hint = f"train.prior_dropout={value:g}" if name == "dropout" else f"leave {key} out"
            raise RecipeError(f"{key} is {value}, but the prior {what.prior} has {made[name]}", hint)


def _embeddings(what: Recipe) -> dict[str, TargetStore]:
    """Open the embeddings of all variants: of the same pictures, or refused."""
    encoders = {each.name: each for variant in variants(what).values() for each in variant.encoders}
    dataset: Dataset = what.dataset.build(what.paths)
    return open_stores(dataset, what.dataset, "train", list(encoders.values()), what.paths)


def _few(names: Sequence[str]) -> str:
    """Count names, and give the first and the last."""
    return f"{len(names)}: " + (", ".join(names) if len(names) <= 4 else f"{names[0]} … {names[-1]}")


def _held_out(pictures: TargetStore, share: float) -> NDArray[np.bool_]:
    """Choose whole training concepts for validation; the same for every cell of every run."""
    concepts = np.asarray(pictures.concepts)
    names = np.unique(concepts)
    chosen = np.random.default_rng(0).permutation(names)[: round(share * len(names))]
    return np.isin(concepts, chosen)
