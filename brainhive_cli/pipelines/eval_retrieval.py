"""eval-retrieval: which picture of the gallery was seen, for every cell of an align run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from brainhive_cli import console, recipe, runs
from brainhive_cli.launch import Launch
from brainhive_cli.metrics.retrieval import ranks, summarise
from brainhive_cli.pipelines import Plan, Result
from brainhive_cli.pipelines._align_run import AlignRun
from brainhive_cli.pipelines._cells import Cell
from brainhive_cli.pipelines._data import as_tensors
from brainhive_cli.reports.sheets import top_k_sheet
from brainhive_cli.runs import RunFolder
from brainhive_cli.store import match_ids

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

    @classmethod
    def resolve(
        cls, command: str, name: str | None, flags: Mapping[str, Any], overrides: Iterable[str]
    ) -> Self:
        """Resolve as every recipe; `run=FOLDER` is short for `align_run=FOLDER`."""
        spelt_out = [f"align_{each}" if each.startswith("run=") else each for each in overrides]
        return super().resolve(command, name, flags, spelt_out)

    @model_validator(mode="before")
    @classmethod
    def _run_names_a_run(cls, fields: Any) -> Any:
        """Let `run: FOLDER` in a file mean the align run; as a section, `run:` says how to run."""
        run = fields.get("run") if isinstance(fields, dict) else None
        if isinstance(run, str):
            run = {"kind": run}  # what it becomes when run.processes is put below it
        if not isinstance(run, dict) or "kind" not in run:
            return fields
        how = {key: value for key, value in run.items() if key != "kind"}
        return {"align_run": run["kind"], **fields, "run": how}


def plan(what: Recipe) -> Plan:
    """Say which run and cells would be evaluated, and what is missing."""
    return Plan.of(
        {
            "run": lambda: str(_find(what).path),
            "cells": lambda: len(AlignRun.open(_find(what), what.paths).cells),
            f"{what.gallery} pictures of": lambda: ", ".join(
                AlignRun.open(_find(what), what.paths).stores(what.gallery)
            ),
        }
    )


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


@dataclass(frozen=True)
class _Queries:
    """Signals and what they are to be found among.

    Attributes:
        tokens: [N, D] of the signals.
        target: [N] place of the seen picture in the gallery.
        gallery: [M, D] of the pictures.
        image_ids: [M] of the pictures.
    """

    tokens: Tensor
    target: NDArray[np.int64]
    gallery: Tensor
    image_ids: list[str]

    @classmethod
    def encode(cls, align: AlignRun, cell: Cell, subject: int, what: Recipe, device: torch.device) -> Self:
        """Encode a subject's signals and the pictures; one that was skipped as bad is no candidate."""
        model = align.model(cell, device)
        stores = align.stores(what.gallery)
        pictures = next(iter(stores.values()))
        rows = np.flatnonzero(pictures.done)
        embeddings = as_tensors(stores, model.layout.encoders, device)
        with torch.inference_mode():
            gallery = model.encode_image({key: each[rows] for key, each in embeddings.items()}).float()
        tokens, shown = align.tokens(model, cell, subject, what.gallery, pictures)
        image_ids = [pictures.image_ids[row] for row in rows]
        return cls(tokens, np.searchsorted(rows, shown), gallery, image_ids)


def _evaluate(
    align: AlignRun, cell: Cell, what: Recipe, device: torch.device
) -> dict[int, tuple[list[int], int]]:
    """Rank the true picture for every test signal of a cell: ranks and pool size by subject."""
    scores = {}
    for subject in cell.tested_on:
        queries = _Queries.encode(align, cell, subject, what, device)
        target = queries.target
        if what.control == "shuffled":
            target = np.random.default_rng((what.seed, cell.seed, subject)).permutation(target)
        found = ranks(queries.tokens, queries.gallery, torch.from_numpy(target).to(device))
        scores[subject] = (found.tolist(), len(queries.gallery))
    return scores


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
    by_subject: dict[int, list[list[int]]] = {}
    for cell in align.cells:
        for subject, (found, pool) in scores[cell.name].items():
            metrics = _summary([found], pool, (cell.seed,), protocol, what)
            cells.setdefault(cell.name, {})[f"sub-{subject:02d}"] = {"metrics": metrics, "ranks": found}
            by_subject.setdefault(subject, []).append(found)
    pool = next(iter(next(iter(scores.values())).values()))[1]
    seeds = tuple(sorted({cell.seed for cell in align.cells}))
    overall = _summary(list(by_subject.values()), pool, seeds, protocol, what)
    if what.sheet_rows:
        folder.replace("top_k.png", lambda beside: _sheet(align, what, device, beside))
    folder.finish({"run": str(align.folder.path), "protocol": protocol, "overall": overall, "cells": cells})


def _summary(groups: Sequence[Any], pool: int, seeds: Sequence[int], protocol: str, what: Recipe) -> Any:
    found = [torch.tensor(group) for group in groups]
    metrics = summarise(found, pool, split=what.gallery, protocol=protocol, seeds=seeds)
    return {metric.name: metric.as_dict() for metric in metrics}


def _sheet(align: AlignRun, what: Recipe, device: torch.device, path: Path) -> None:
    """Draw queries of the first cell beside what was retrieved."""
    cell = align.cells[0]
    queries = _Queries.encode(align, cell, cell.tested_on[0], what, device)
    normal = torch.nn.functional.normalize
    scores = (normal(queries.tokens, dim=1) @ normal(queries.gallery, dim=1).T).cpu().numpy()
    chosen = np.random.default_rng(what.seed).permutation(len(scores))[: what.sheet_rows]
    images = align.dataset.images(what.gallery)
    places = match_ids(queries.image_ids, images.image_ids, f"{images.dataset} {images.split}")
    sheet = top_k_sheet(lambda place: images.open(int(places[place])), scores[chosen], queries.target[chosen])
    sheet.save(path)


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
