"""reconstruct: what was seen, drawn from test signals through a Fusion Prior."""

import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor

from brainhive_cli import aligner as aligners
from brainhive_cli import console, parts, recipe, runs
from brainhive_cli.datasets import ImageSet
from brainhive_cli.encoders import Encoders
from brainhive_cli.errors import BrainhiveError, MissingData
from brainhive_cli.launch import Launch
from brainhive_cli.metrics.statistics import Metric, measure
from brainhive_cli.pipelines import Plan, Result
from brainhive_cli.pipelines._align_run import AlignRun
from brainhive_cli.pipelines._cells import Cell
from brainhive_cli.pipelines._data import encoder_names
from brainhive_cli.pipelines._member import Member
from brainhive_cli.pipelines._scores import score
from brainhive_cli.pipelines.train_prior import to_pictures
from brainhive_cli.priors.fusion_prior import FusionPrior
from brainhive_cli.reports.sheets import contact_sheet
from brainhive_cli.runs import RunFolder

DEFAULT_PRIOR = "hub:Fusion-Prior-SynCLR_B32_VAE"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Recipe(recipe.Recipe):
    """What is drawn from which run, with which prior and generator."""

    prior: str = Field(DEFAULT_PRIOR, description="Fusion Prior: hub:NAME, hub:owner/name or a folder")
    align_run: str | None = Field(
        None, description="an align run; default: the newest whose token is the prior's"
    )
    generator: Annotated[Any, parts.part("generators", "sdxl")] = Field(
        "sdxl", validate_default=True, description="diffusion model"
    )
    split: str = Field("test", description="split whose signals are drawn")
    seeds: recipe.Numbers | None = Field(
        None, description="cells of these seeds; default: the run's first seed"
    )
    items: int | None = Field(None, gt=0, description="pictures of the split, from its start; default: all")
    repeats: int = Field(10, gt=0, description="pictures drawn an item")
    resolution_px: int = Field(512, gt=0)
    steps: int = Field(4, gt=0, description="denoising steps")
    guidance: float = Field(0.0, ge=0, description="classifier-free guidance; turbo models want 0")
    adapter: Literal["apply", "skip"] = Field(
        "skip", description="the prior's adapter on the token (paper: skip)"
    )
    batch_size: int = Field(20, gt=0, description="pictures drawn at once, on each process")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp16", description="dtype of the generator; fp32 on a CPU"
    )
    metric_encoders: Encoders = Field(
        [], validate_default=True, description="encoders for two-way identification"
    )
    protocol: Literal["brainhive", "mindeye2"] = Field(
        "brainhive", description="how pictures are sized for metrics"
    )
    sheet_rows: int = Field(12, ge=0, description="items on the contact sheet")
    seed: int = Field(0, description="seed of the noise and of the bootstrap")


def plan(what: Recipe) -> Plan:
    """Say which run, prior and generator would be used, and what is missing."""
    return Plan.of(
        {
            "prior": lambda: f"{what.prior}: {', '.join(FusionPrior.load(what.prior).dims)}",
            "align run": lambda: str(_find_run(what, FusionPrior.load(what.prior)).path),
            "generator": lambda: what.generator.build("cpu").config.source,
        }
    )


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Draw every item that is not drawn yet, then measure."""
    prior = FusionPrior.load(what.prior).float().to(launch.device)
    found = _find_run(what, prior)
    name = runs.reference(found, what.paths.under_home("runs") / "train-align")
    what = what.model_copy(update={"align_run": name})  # so that the fingerprint names the run
    folder = RunFolder.open("reconstruct", found.path.name, what, launch, again)
    if not folder.is_finished:
        align = AlignRun.open(found, what.paths)
        images = align.dataset.images(what.split)
        cells, painter = _cells(align, what), _Painter(what, prior, launch)
        for cell, subject in cells:
            _draw(what, align, cell, subject, painter, folder, launch)
        launch.wait()
        if launch.is_main:
            _measure(what, cells, images, folder, launch)
        launch.wait()
    return _result(folder)


def _cells(align: AlignRun, what: Recipe) -> list[tuple[Cell, int]]:
    seeds = what.seeds or [align.cells[0].seed]
    cells = [(cell, subject) for cell in align.cells if cell.seed in seeds for subject in cell.tested_on]
    if not cells:
        known = sorted({cell.seed for cell in align.cells})
        raise MissingData(f"run {align.folder.path} has no cell of seeds {seeds}", f"it has seeds {known}")
    return cells


def _find_run(what: Recipe, prior: FusionPrior) -> RunFolder:
    """Take the run asked for, or the newest whose fusion encoder is the prior's."""
    root = what.paths.under_home("runs")
    if what.align_run is not None:
        run = runs.find(root, "train-align", what.align_run)
        layout, is_same = _compare(run, prior)
        if layout.dim != prior.dim:
            raise BrainhiveError(
                f"the tokens of {run.path} have {layout.dim} dimensions, those of {what.prior} {prior.dim}",
                f"brainhive train-align --prior {what.prior}",
            )
        if not is_same:
            console.warn(f"{run.path} was trained against another fusion encoder than that of {what.prior}")
        return run
    found = runs.newest(root, "train-align", lambda run: _fits(run, prior))
    if found is None:
        raise MissingData(
            f"no finished align run under {root / 'train-align'} has the tokens of {what.prior}",
            f"brainhive train-align --prior {what.prior} --encoders {','.join(encoder_names(prior.dims))}",
        )
    console.say(f"align run: {found.path}")
    return found


def _fits(run: RunFolder, prior: FusionPrior) -> bool:
    """Whether a run has the prior's tokens; one that is damaged is passed over, with a warning."""
    try:
        return _compare(run, prior)[1]
    except BrainhiveError as error:
        console.warn(f"{error.what}; passed over")
        return False


def _compare(run: RunFolder, prior: FusionPrior) -> tuple[aligners.Layout, bool]:
    """Read a run's layout, and whether its fusion encoder is the prior's."""
    model = aligners.load(next((run.path / "cells").iterdir()) / "model")
    mine = model.fuser.state_dict()
    theirs = prior.fusion_encoder["vision_model"].state_dict()
    same = mine.keys() == theirs.keys() and all(
        mine[key].shape == value.shape and torch.allclose(mine[key], value.float().cpu())
        for key, value in theirs.items()
    )
    return model.layout, same


def _path(folder: RunFolder, cell: Cell, subject: int, image_id: str, repeat: int) -> str:
    return f"samples/{cell.name}/sub-{subject:02d}/{image_id}/{repeat:02d}.png"


def _draw(
    what: Recipe,
    align: AlignRun,
    cell: Cell,
    subject: int,
    painter: "_Painter",
    folder: RunFolder,
    launch: Launch,
) -> None:
    """Draw my share of the pictures of one cell and subject that are not there yet."""
    member = Member.load(align, cell, launch.device)
    pictures = member.pictures(what.split)
    tokens, rows = member.tokens(subject, what.split)
    chosen = [(n, pictures.image_ids[row]) for n, row in enumerate(rows[: what.items])]
    todo = [(n, i, r) for n, i in chosen for r in range(what.repeats)]
    mine = [
        (n, i, r)
        for n, i, r in launch.mine(todo)
        if not (folder.path / _path(folder, cell, subject, i, r)).is_file()
    ]
    with console.progress(f"reconstruct {cell.name}", len(mine)) as bar:
        for start in range(0, len(mine), what.batch_size):
            batch = mine[start : start + what.batch_size]
            token = torch.stack([tokens[n] for n, _, _ in batch])
            seeds = [_seed(what.seed, image_id, repeat) for _, image_id, repeat in batch]
            for (_, image_id, repeat), picture in zip(batch, painter.draw(token, seeds), strict=True):
                folder.replace(_path(folder, cell, subject, image_id, repeat), picture.save)
            bar.advance(len(batch))


def _seed(seed: int, image_id: str, repeat: int) -> int:
    """Make the noise of a picture depend on the item and the repeat, and nothing else."""
    return zlib.crc32(f"{seed}/{image_id}/{repeat}".encode())


class _Painter:
    """Prior and generator; they are joined when the first picture is drawn, once for all cells."""

    def __init__(self, what: Recipe, prior: FusionPrior, launch: Launch) -> None:
        self._what, self._prior, self._launch = what, prior, launch

    @cached_property
    def _generator(self) -> Any:
        on_cpu = self._launch.device.type == "cpu"
        generator = self._what.generator.build(
            self._launch.device, torch.float32 if on_cpu else DTYPES[self._what.precision]
        )
        self._prior.attach(generator.unet)
        return generator

    @torch.inference_mode()
    def draw(self, token: Tensor, seeds: Sequence[int]) -> list[Image.Image]:
        """Draw a picture for each token [B, D] and seed."""
        what, prior = self._what, self._prior
        adapt = prior.adapt if what.adapter == "apply" else lambda token: token
        images = self._generator.generate(
            prior.tokens(adapt(token)),
            list(seeds),
            steps=what.steps,
            guidance=what.guidance,
            resolution_px=what.resolution_px,
            empty_tokens=prior.tokens(adapt(torch.zeros_like(token[:1]))),
        )
        return to_pictures(images)


def _measure(
    what: Recipe, cells: list[tuple[Cell, int]], images: ImageSet, folder: RunFolder, launch: Launch
) -> None:
    """Compare every reconstruction with its stimulus, average over repeats, and draw the sheet."""
    by_id = {image_id: index for index, image_id in enumerate(images.image_ids)}
    encoders = {config.name: config.build() for config in what.metric_encoders}
    values: dict[str, list[NDArray[np.float64]]] = {}
    figures: dict[str, Any] = {}
    for cell, subject in cells:
        ids = sorted(
            path.relative_to(folder.path / "samples" / cell.name / f"sub-{subject:02d}").parent.as_posix()
            for path in (folder.path / "samples" / cell.name / f"sub-{subject:02d}").rglob("00.png")
        )
        seen = [images.open(by_id[image_id]) for image_id in ids]
        drawn = [[_open(folder, cell, subject, i, r) for r in range(what.repeats)] for i in ids]
        scores = score(seen, drawn, encoders, what.protocol, launch)
        for name, each in scores.items():
            values.setdefault(name, []).append(each)
        own = [_metric(name, [each], (cell.seed,), what) for name, each in scores.items()]
        figures[f"{cell.name}/sub-{subject:02d}"] = {
            "metrics": {metric.name: metric.as_dict() for metric in own},
            "items": {i: {name: float(each[n]) for name, each in scores.items()} for n, i in enumerate(ids)},
        }
        if len(figures) == 1 and what.sheet_rows:
            labels = [images.concepts[by_id[image_id]] for image_id in ids]
            sheet = contact_sheet(
                seen[: what.sheet_rows], drawn[: what.sheet_rows], labels[: what.sheet_rows]
            )
            folder.replace("contact_sheet.png", sheet.save)
    seeds = tuple(sorted({cell.seed for cell, _ in cells}))
    overall = [_metric(name, groups, seeds, what) for name, groups in values.items()]
    folder.finish({"overall": {m.name: m.as_dict() for m in overall}, "cells": figures, "prior": what.prior})


def _open(folder: RunFolder, cell: Cell, subject: int, image_id: str, repeat: int) -> Image.Image:
    with Image.open(folder.path / _path(folder, cell, subject, image_id, repeat)) as picture:
        return picture.convert("RGB")


def _metric(name: str, groups: list[NDArray[np.float64]], seeds: tuple[int, ...], what: Recipe) -> Metric:
    protocol = f"{what.protocol}, {what.repeats} repeats, adapter {what.adapter}"
    chance = 0.5 if name.startswith("two_way") else None
    return measure(name, groups, seeds=seeds, protocol=protocol, split=what.split, chance=chance)


def _result(folder: RunFolder) -> Result:
    metrics = folder.metrics()
    rows = [
        (
            name,
            m["value"],
            f"{m['low']:.3f}–{m['high']:.3f}",
            m["n"],
            "–" if m["chance"] is None else m["chance"],
        )
        for name, m in metrics["overall"].items()
    ]
    protocol = next(iter(metrics["overall"].values()))["protocol"]
    table = console.Table(
        f"Reconstruction: {protocol}", ("metric", "value", "95 % CI", "n", "chance"), tuple(rows)
    )
    sheet = folder.path / "contact_sheet.png"
    files: dict[str, Path] = {"contact sheet": sheet} if sheet.is_file() else {}
    return Result(folder.path, (table,), metrics, files)
