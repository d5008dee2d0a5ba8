"""eval-retrieval: which picture of the gallery was seen, for every cell of an align run."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from brainhive_cli.alignment.trained import AlignRun, find, refuse_sweep, rejoined
from brainhive_cli.core import console, home, hub, parts, recipe, runs, trackers
from brainhive_cli.core.caveats import SIMULATED, said_in, together
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.command_lines import command, taking
from brainhive_cli.metrics.run_comparison import between, comparisons
from brainhive_cli.reports.curve_plot import require_matplotlib
from brainhive_cli.retrieval.ceiling import ceilings
from brainhive_cli.retrieval.cell_scores import EvaluationSpec, Scores, Subsets
from brainhive_cli.retrieval.concepts import read_categories
from brainhive_cli.retrieval.curves import Sliding
from brainhive_cli.retrieval.ensembles import Ensemble, groups
from brainhive_cli.retrieval.figures import draw_curves, draw_sheet
from brainhive_cli.retrieval.summary import (
    MetricContext,
    above_chance,
    concept_tables,
    control,
    described_gallery,
    how_curves_are_made,
    items,
    per_cell,
    protocol_of,
    totals,
)
from brainhive_cli.retrieval.tables import sweep_tables, tables

FILES = {
    "top-k sheet": "top_k.png",
    "repetitions": "repetitions.png",
    "sliding window": "sliding.png",
}


def _data_set(value: Any) -> Any:
    return None if value is None else parts.resolve("datasets", value, "things_eeg")


class Recipe(recipe.Recipe):
    """Which run is evaluated, against which pictures."""

    is_tracked: ClassVar[bool] = True

    align_run: recipe.Names | None = Field(
        None,
        description="an align run, by folder or name, or SWEEP:VARIANT; several are averaged; or a model "
        "folder; default: the newest run (key: run)",
    )
    dataset: Annotated[Any, BeforeValidator(_data_set)] = Field(
        None, description="another data set than the run's: zero-shot transfer"
    )
    subjects: recipe.Numbers | None = Field(None, description="subjects tested on; default: the run's")
    gallery: str = Field(
        "test", description="splits whose pictures are searched, as in train+test; signals are the last's"
    )
    distractors: int = Field(
        0, ge=0, description="random vectors, with the gallery's mean and covariance, searched too"
    )
    control: Literal["none", "shuffled", "permuted"] = Field(
        "none", description="shuffled: signals dealt to wrong pictures; permuted: pictures' labels; chance"
    )
    subsets: Subsets | None = Field(None, description="small galleries drawn from the test pictures (NSD)")
    repetitions: Annotated[list[PositiveInt], BeforeValidator(recipe.split)] | Literal["all"] | None = Field(
        None, description="curve over how many are averaged, as [1, 2, 4]; all: 1, 2, 4, … and all"
    )
    repetition_draws: int = Field(10, gt=0, description="random choices of repetitions at each number")
    sliding: Sliding | None = Field(None, description="curve over time; {} takes the defaults")
    ceiling_splits: int = Field(
        10, ge=0, description="random halvings of repetitions for the ceiling of the signals; 0 leaves it out"
    )
    against: recipe.Names | None = Field(None, description="align runs to compare with, item by item")
    categories: str | None = Field(None, description="a table (.csv or tabs): concept, category")
    concept_rows: int = Field(5, ge=0, description="best and worst concepts shown; --json has all")
    sheet_rows: int = Field(10, ge=0, description="queries on the top-k sheet; 0 draws none")
    seed: int = Field(0, description="seed of all that is drawn")

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        if self.repetitions is None:
            recipe.refuse_idle(self, ("repetition_draws",), "without that curve", "repetitions=all")
        return self

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
        if isinstance(run, str | list):
            run = {"kind": run}  # what it becomes when run.processes is put below it
        if not isinstance(run, dict) or "kind" not in run:
            return fields
        how = {key: value for key, value in run.items() if key != "kind"}
        return {"align_run": run["kind"], **fields, "run": how}

    def asked(self) -> EvaluationSpec:
        """Say what is measured on each cell."""
        return EvaluationSpec(
            splits=tuple(self.gallery.split("+")),
            random=self.distractors,
            control=self.control,
            seed=self.seed,
            subsets=self.subsets,
            repetitions=self.repetitions,
            repetition_draws=self.repetition_draws,
            sliding=self.sliding,
            ceiling_splits=self.ceiling_splits,
        )


def plan(what: Recipe) -> Plan:
    """Say which run and cells would be evaluated, and what is missing."""
    splits, opened = what.asked().splits, cache(lambda: _open(what))
    return Plan.of(
        {
            "run": lambda: ", ".join(align.name for align in opened()),
            "cells": lambda: len(groups(opened())),
            f"{what.gallery} pictures of": lambda: ", ".join(
                dict.fromkeys(name for align in opened() for split in splits for name in align.stores(split))
            ),
            "curves": lambda: _curves(what) or "none",
            **trackers.looks(what.run.trackers),
        }
    )


def _open(what: Recipe) -> list[AlignRun]:
    """Open the runs; those that are averaged are tested on one data set."""
    names: Sequence[str | None] = rejoined(what.align_run, what.paths) if what.align_run else [None]
    aligns = [find(name, what.paths, what.dataset, what.subjects) for name in names]
    for align in aligns if len(aligns) > 1 else ():
        refuse_sweep(align)
    for other in aligns[1:]:
        if other.dataset.name != aligns[0].dataset.name:
            raise BrainhiveError(
                f"{aligns[0].folder.path} is tested on {aligns[0].dataset.name}, "
                f"{other.folder.path} on {other.dataset.name}",
                "name one data set for both: --dataset",
            )
    known = aligns[0].dataset.splits
    if unknown := [split for split in what.asked().splits if split not in known]:
        raise RecipeError(
            f"gallery: {aligns[0].dataset.name} has no split {unknown[0]!r}", f"it has: {', '.join(known)}"
        )
    return aligns


def _curves(what: Recipe) -> str:
    """Name the curves asked for; they need a library that is not always there."""
    wanted = {"repetitions": what.repetitions is not None, "sliding": what.sliding is not None}
    if any(wanted.values()):
        require_matplotlib()
    return ", ".join(name for name, is_wanted in wanted.items() if is_wanted)


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Evaluate every cell on the subjects it is tested on, then beside other runs."""
    trackers.require(what.run.trackers)
    aligns, root = _open(what), what.paths.under_home("runs") / "train-align"
    _curves(what)
    names = [runs.reference(align.folder, root, align.variant) for align in aligns]
    if aligns[0].variants and len(aligns) == 1:
        return _each_variant(what, aligns[0], names[0], launch, again)
    others = [_beside(what, other, launch) for other in rejoined(what.against or [], what.paths)]
    what = what.model_copy(
        update={"align_run": names, "against": [name for name, _ in others] or None}
    ).holding(_held(what, aligns))  # so that the fingerprint names the runs
    folder = RunFolder.open("eval-retrieval", aligns[0].label, what, launch, again)
    if not folder.is_finished:
        asked = what.asked()
        cells = groups(aligns)
        mine = {}
        for group in launch.shard(cells):
            ensemble = Ensemble.load(aligns, group, launch.device)
            mine[group[0].name] = Scores.measure(ensemble, asked)
        scores = {name: score for share in launch.gather(mine) for name, score in share.items()}
        if launch.is_main:
            metrics = _metrics(aligns, scores, asked, what)
            metrics["against"] = comparisons(metrics, [theirs for _, theirs in others])
            if what.sheet_rows:
                first = Ensemble.load(aligns, cells[0], launch.device)
                draw_sheet(folder, first, asked, what.sheet_rows, metrics["protocol"])
            draw_curves(folder, metrics)
            folder.finish(metrics)
        launch.barrier()
    result = _result(folder, what)
    if launch.is_main:
        found = {name: result.metrics[name] for name in ("overall", "backward")}
        shown, caveats = what.model_dump(mode="json"), said_in(result.metrics["protocol"])
        trackers.tell_results(what.run.trackers, folder.path, "retrieval", shown, found, caveats)
    return result


def _each_variant(what: Recipe, align: AlignRun, name: str, launch: Launch, again: bool) -> Result:
    """Evaluate every variant of a sweep by itself, then compare them in pairs; nothing is pooled."""
    found = {}
    for variant in align.variants:
        one = what.model_copy(update={"align_run": [f"{name}:{variant}"]})
        found[variant] = run(one, launch, again)
    what = what.model_copy(update={"align_run": [name]}).holding(_held(what, [align]))
    folder = RunFolder.open("eval-retrieval", align.folder.path.name, what, launch, again)
    if launch.is_main and not folder.is_finished:
        each = {variant: result.metrics for variant, result in found.items()}
        caveats = together(*(found["caveats"] for found in each.values()))
        said = {"run": align.name, "caveats": caveats}
        compared, reasons = between(each)
        folder.finish({**said, "variants": each, "comparisons": compared, "not_compared": reasons})
    launch.barrier()
    metrics = folder.metrics()
    for reason in metrics.get("not_compared", []):
        console.warn(f"not compared: {reason}")
    files = {f"{v} {kind}": path for v, result in found.items() for kind, path in result.files.items()}
    return Result(folder.path, sweep_tables(metrics), metrics, files)


def _held(what: Recipe, aligns: Sequence[AlignRun]) -> dict[str, str]:
    """Digest what is known by its path alone: model folders, and the table of categories."""
    held = {str(align.folder.path): hub.digest(align.folder.path) for align in aligns if align.is_model}
    if what.categories:
        read = read_categories(what.categories)
        held[what.categories] = hashlib.sha256(repr(read).encode()).hexdigest()
    return held


def _beside(what: Recipe, other: str, launch: Launch) -> tuple[str, dict[str, Any]]:
    """Evaluate a run to compare with in the same way; give its name and metrics."""
    refuse_sweep(find(other, what.paths))
    plain = {"align_run": [other], "against": None, "repetitions": None, "sliding": None, "subsets": None}
    result = run(what.model_copy(update=plain), launch)
    return result.metrics["run"], result.metrics


def _metrics(
    aligns: list[AlignRun], scores: Mapping[str, Scores], asked: EvaluationSpec, what: Recipe
) -> dict[str, Any]:
    cells, first = [group[0] for group in groups(aligns)], next(iter(scores.values()))
    common = MetricContext(protocol_of(aligns, asked), asked.split, first.pool, asked.subsets)
    together = totals(cells, scores, common)
    test = above_chance(scores)
    if test.verdict != "above chance" and what.control == "none":
        console.warn(
            f"retrieval is {test.verdict}: do signals and pictures belong together as they are filed?"
        )
    together["curves"]["how"] = how_curves_are_made(asked)
    return {
        "run": aligns[0].name,
        "runs": [align.name for align in aligns],
        "mode": " + ".join(dict.fromkeys(align.mode for align in aligns)),
        "protocol": common.protocol,
        "caveats": said_in(common.protocol),
        "gallery": described_gallery(aligns[0], first, asked),
        "verdict": test.verdict,
        "above_chance": test.as_dict(),
        "control": control(scores, asked, common),
        "prior": aligns[0].prior,
        "published": aligns[0].published(first.pool) if len(aligns) == 1 and what.control == "none" else {},
        **together,
        "ceiling": _ceiling(aligns[0], scores, asked),
        "cells": per_cell(cells, scores, common),
        "items": items(scores),
        **concept_tables(scores, read_categories(what.categories) if what.categories else {}),
    }


def _ceiling(align: AlignRun, scores: Mapping[str, Scores], asked: EvaluationSpec) -> dict[str, Any]:
    found = {subject: each for score in scores.values() for subject, each in score.ceilings.items()}
    simulated = [SIMULATED] if align.dataset.is_simulated else []  # no model has a part in it
    return ceilings(found, align.dataset.name, asked.split, asked.ceiling_splits, simulated) if found else {}


def _result(folder: RunFolder, what: Recipe) -> Result:
    metrics = folder.metrics()
    metrics |= {"run": home.stored(metrics["run"]), "runs": [home.stored(each) for each in metrics["runs"]]}
    for each in metrics["against"]:
        each["run"] = home.stored(each["run"])
    files = {name: folder.path / file for name, file in FILES.items() if (folder.path / file).is_file()}
    hint = ""
    if prior := metrics.get("prior"):  # without one there is nothing to draw through
        hint = command("reconstruct", None, [], *taking("reconstruct", prior), "--run", metrics["run"])
    return Result(folder.path, tables(metrics, what.concept_rows), metrics, files, hint=hint)
