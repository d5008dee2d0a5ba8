"""eval-retrieval: which picture of the gallery was seen, for every cell of an align run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from brainhive_cli import aligner as aligners
from brainhive_cli import console, parts, recipe, runs
from brainhive_cli.datasets import Dataset
from brainhive_cli.embeddings import EmbeddingStore
from brainhive_cli.errors import BrainhiveError
from brainhive_cli.launch import Launch
from brainhive_cli.metrics.retrieval import ranks, summarise
from brainhive_cli.pipelines import Plan, Result
from brainhive_cli.pipelines._data import Signal, as_tensors, open_embeddings, open_trials
from brainhive_cli.pipelines.train_align import Cell, cells_of, chosen_subjects
from brainhive_cli.reports.sheets import top_k_sheet
from brainhive_cli.runs import RunFolder

SHOWN = ("top1", "top5", "median_rank")


class Recipe(recipe.Recipe):
    """Which run is evaluated, against which pictures."""

    align_run: str | None = Field(
        None, description="an align run, by folder or name; default: the newest (key: run)"
    )
    gallery: str = Field("test", description="split whose signals and pictures are used")
    control: Literal["none", "shuffled"] = Field(
        "none", description="shuffled: signals dealt to wrong pictures; chance"
    )
    sheet_rows: int = Field(10, ge=0, description="queries on the top-k sheet; 0 draws none")
    seed: int = Field(0, description="seed of bootstrap and shuffling")

    @model_validator(mode="before")
    @classmethod
    def _run_names_a_run(cls, fields: Any) -> Any:
        """Let `run: FOLDER` mean the align run; as a section, `run:` says how to run."""
        run = fields.get("run") if isinstance(fields, dict) else None
        if isinstance(run, dict) and "kind" in run:  # run=FOLDER before run.processes=2
            return {**fields, "align_run": run["kind"], "run": {k: v for k, v in run.items() if k != "kind"}}
        if isinstance(run, str):
            return {**{k: v for k, v in fields.items() if k != "run"}, "align_run": run}
        return fields


@dataclass(frozen=True)
class AlignRun:
    """A finished align run, opened to be used: its data set, cells and signals."""

    folder: RunFolder
    dataset: Dataset
    cells: list[Cell]
    signal: Signal

    @classmethod
    def open(cls, folder: RunFolder, paths: recipe.Paths) -> "AlignRun":
        """Read back what the run was made of."""
        made = folder.recipe()
        dataset: Dataset = parts.resolve("datasets", made["dataset"]).build(paths)
        subjects = chosen_subjects(dataset, made["subjects"])
        return cls(folder, dataset, cells_of(made["mode"], subjects, made["seeds"]), Signal(**made["signal"]))

    def model(self, cell: Cell, device: torch.device) -> aligners.Aligner:
        """Load a cell's aligner."""
        return aligners.load(self.folder.path / "cells" / cell.name / "model").to(device)

    def stores(self, model: aligners.Aligner, split: str, paths: recipe.Paths) -> dict[str, EmbeddingStore]:
        """Open the embeddings that an aligner takes."""
        return open_embeddings(paths, self.dataset.name, split, list(model.layout.encoders))

    def tokens(
        self,
        model: aligners.Aligner,
        cell: Cell,
        subject: int,
        split: str,
        pictures: EmbeddingStore,
        paths: recipe.Paths,
    ) -> tuple[Tensor, NDArray[np.int64]]:
        """Encode a subject's signals of a split: tokens [N, D] and the row of each one's picture [N]."""
        device, layout = model.logit_scale.device, model.layout
        trials = open_trials(self.dataset, paths, self.signal, subject, split, pictures, layout.channels)
        signal = torch.from_numpy(trials.signal).to(device)
        place = cell.trained_on.index(subject) if subject in cell.trained_on else 0
        index = torch.full((len(signal),), place, device=device)
        with torch.inference_mode():
            return model.encode_signal(signal, index).float(), trials.picture


def plan(what: Recipe) -> Plan:
    """Say which run and cells would be evaluated, and what is missing."""
    try:
        run = AlignRun.open(_find(what), what.paths)
        items = {
            "run": str(run.folder.path),
            "cells": len(run.cells),
            "gallery": f"{run.dataset.name}/{what.gallery}",
        }
        run.stores(run.model(run.cells[0], torch.device("cpu")), what.gallery, what.paths)
    except BrainhiveError as error:
        return Plan({}, [f"{error.what} ({error.hint})"])
    return Plan(items)


def _find(what: Recipe) -> RunFolder:
    return runs.find(what.paths.under_home("runs"), "train-align", what.align_run)


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Evaluate every cell on the subjects it is tested on."""
    found = _find(what)
    name = runs.reference(found, what.paths.under_home("runs") / "train-align")
    what = what.model_copy(update={"align_run": name})  # so that the fingerprint names the run
    folder = RunFolder.open("eval-retrieval", found.path.name, what, launch, again)
    if not folder.is_finished:
        align = AlignRun.open(found, what.paths)
        mine = {c.name: _evaluate(align, c, what, launch.device) for c in launch.mine(align.cells)}
        scores = {name: score for share in launch.gather(mine) for name, score in share.items()}
        if launch.is_main:
            _write(folder, align, scores, what, launch.device)
        launch.wait()
    return _result(folder)


def _evaluate(
    align: AlignRun, cell: Cell, what: Recipe, device: torch.device
) -> dict[int, tuple[list[int], int]]:
    """Rank the true picture for every test signal of a cell: ranks and pool size by subject."""
    model = align.model(cell, device)
    stores = align.stores(model, what.gallery, what.paths)
    gallery = encode_gallery(model, stores, device)
    pictures = next(iter(stores.values()))
    scores = {}
    for subject in cell.tested_on:
        tokens, target = align.tokens(model, cell, subject, what.gallery, pictures, what.paths)
        if what.control == "shuffled":
            target = np.random.default_rng((what.seed, cell.seed, subject)).permutation(target)
        found = ranks(tokens, gallery, torch.from_numpy(target).to(device))
        scores[subject] = (found.tolist(), len(gallery))
    return scores


@torch.inference_mode()
def encode_gallery(
    model: aligners.Aligner, stores: dict[str, EmbeddingStore], device: torch.device
) -> Tensor:
    """Fuse the embeddings of all pictures of a split: [M, D]."""
    return model.encode_image(as_tensors(stores, model.layout.encoders, device)).float()


def _write(
    folder: RunFolder,
    align: AlignRun,
    scores: dict[str, dict[int, tuple[list[int], int]]],
    what: Recipe,
    device: Any,
) -> None:
    mode = align.folder.metrics()["mode"]
    protocol = f"{mode}, {align.dataset.name}" + (", shuffled signals" if what.control == "shuffled" else "")
    cells: dict[str, Any] = {}
    by_subject: dict[int, list[int]] = {}
    for cell in align.cells:
        for subject, (found, pool) in scores[cell.name].items():
            metrics = _summary([found], pool, (cell.seed,), protocol, what)
            cells.setdefault(cell.name, {})[f"sub-{subject:02d}"] = {"metrics": metrics, "ranks": found}
            by_subject[subject] = by_subject.get(subject, []) + found
    pool = next(iter(next(iter(scores.values())).values()))[1]
    seeds = tuple(sorted({cell.seed for cell in align.cells}))
    overall = _summary(list(by_subject.values()), pool, seeds, protocol, what)
    if what.sheet_rows:
        folder.replace("top_k.png", lambda beside: _sheet(align, what, device, beside))
    folder.finish({"run": str(align.folder.path), "protocol": protocol, "overall": overall, "cells": cells})


def _summary(
    groups: Sequence[Sequence[int]], pool: int, seeds: Sequence[int], protocol: str, what: Recipe
) -> Any:
    found = [torch.tensor(group) for group in groups]
    metrics = summarise(found, pool, split=what.gallery, protocol=protocol, seeds=seeds)
    return {metric.name: metric.as_dict() for metric in metrics}


def _sheet(align: AlignRun, what: Recipe, device: torch.device, path: Path) -> None:
    """Draw queries of the first cell beside what was retrieved."""
    cell = align.cells[0]
    model = align.model(cell, device)
    stores = align.stores(model, what.gallery, what.paths)
    pictures = next(iter(stores.values()))
    gallery = encode_gallery(model, stores, device)
    tokens, target = align.tokens(model, cell, cell.tested_on[0], what.gallery, pictures, what.paths)
    normal = torch.nn.functional.normalize
    scores = (normal(tokens, dim=1) @ normal(gallery, dim=1).T).cpu().numpy()
    rows = np.random.default_rng(what.seed).permutation(len(scores))[: what.sheet_rows]
    images = align.dataset.images(what.gallery)
    top_k_sheet(images.open, scores[rows], target[rows]).save(path)


def _result(folder: RunFolder) -> Result:
    metrics = folder.metrics()
    rows = []
    for name, subjects in metrics["cells"].items():
        for subject, cell in subjects.items():
            label = name if name.startswith(subject) else f"{name} on {subject}"
            rows.append((label, *_row(cell["metrics"])))
    rows.append(("all", *_row(metrics["overall"])))
    columns = ("cell", "top-1", "95 % CI", "top-5", "rank", "n", "pool", "chance")
    table = console.Table(
        f"Retrieval: {metrics['protocol']}, gallery {metrics['overall']['top1']['split']}",
        columns,
        tuple(rows),
    )
    files = {"top-k sheet": folder.path / "top_k.png"} if (folder.path / "top_k.png").is_file() else {}
    return Result(folder.path, (table,), metrics, files, hint=f"brainhive reconstruct --run {metrics['run']}")


def _row(metrics: dict[str, Any]) -> tuple[Any, ...]:
    top1, top5, median = (metrics[name] for name in SHOWN)
    interval = f"{top1['low']:.3f}–{top1['high']:.3f}"
    return (top1["value"], interval, top5["value"], median["value"], top1["n"], top1["pool"], top1["chance"])
