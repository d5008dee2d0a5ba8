"""reconstruct: what was seen, drawn from test signals through a Fusion Prior."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from brainhive_cli.alignment.cells import Cell
from brainhive_cli.alignment.learned import Learned
from brainhive_cli.alignment.matching_run import find_run
from brainhive_cli.alignment.trained import AlignRun
from brainhive_cli.core import parts, recipe, recipe_files, runs, trackers
from brainhive_cli.core.caveats import in_protocol
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.memory_estimate import in_words
from brainhive_cli.core.recipe import Section
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.priors.fusion_prior import FusionPrior, digest, fused_by
from brainhive_cli.reconstruction.baselines import BASELINES, Baselines
from brainhive_cli.reconstruction.conditions import Source, TokenSet, brain_takes, takes_of
from brainhive_cli.reconstruction.evaluation import (
    Measuring,
    Stimuli,
    compare_with,
    measure_run,
    open_run,
    result_of,
)
from brainhive_cli.reconstruction.folders import digest_of, pictures_in
from brainhive_cli.reconstruction.generated import GeneratedSet
from brainhive_cli.reconstruction.generation import GenerationJob
from brainhive_cli.reconstruction.initial_images import Initial, Start, initial_of
from brainhive_cli.reconstruction.memory import estimate
from brainhive_cli.reconstruction.reranker import Reranker
from brainhive_cli.reconstruction.sampler import Sampler, Sampling
from brainhive_cli.reconstruction.scored_folders import Folders

DEFAULT_PRIOR = "hub:Fusion-Prior-SynCLR_B32_VAE"


SCORING = {*Measuring.model_fields, *recipe.Recipe.model_fields, "score", "truth", "against"}
"""Keys that have an effect on pictures which somebody else drew."""


class Prior(Section):
    """A Fusion Prior and how much it weighs."""

    source: str = Field(DEFAULT_PRIOR, description="hub:NAME, hub:owner/name or a folder")
    scale: float | None = Field(
        None, description="weight of the image attention beside the text; default: the prior's own"
    )

    def load(self) -> FusionPrior:
        """Load it, in float32 on the CPU."""
        prior = FusionPrior.load(self.source).float()
        if self.scale is not None:
            prior.scale = self.scale
        return prior


def _spelt_out(prior: Any) -> Any:
    """Let `prior: REFERENCE` mean its source, also with `prior.scale` beside it."""
    if isinstance(prior, str):
        return {"source": prior}
    if isinstance(prior, dict) and "kind" in prior:  # what the reference becomes when a key is put below it
        return {"source": prior["kind"], **{key: value for key, value in prior.items() if key != "kind"}}
    return prior


class Recipe(recipe.Recipe, Measuring, Sampling):
    """What is drawn from which run, with which prior and generator; or which folder is scored.

    How much is done at once stands beside the fingerprint: a run that was too large goes on with less. What a
    run is compared with does too.
    """

    FINGERPRINT_EXCLUDE: ClassVar[frozenset[str]] = recipe.Recipe.FINGERPRINT_EXCLUDE | {
        *("batch_size", "offload", "vae_tiling", "metric_batch_size", "against")
    }
    is_tracked: ClassVar[bool] = True
    LESS_MEMORY: ClassVar[recipe.Savings] = (
        *({"batch_size": 0.5}, {"vae_tiling": True}, {"offload": True}),
        {"metric_batch_size": 0.5},
    )

    prior: Annotated[Prior, BeforeValidator(_spelt_out)] = Prior()
    align_run: str | None = Field(
        None, description="an align run; default: the newest whose token is the prior's"
    )
    generator: Annotated[Any, parts.part("generators", "sdxl")] = Field(
        "sdxl", validate_default=True, description="diffusion model"
    )
    sources: Annotated[list[Source], BeforeValidator(recipe.split)] = Field(
        ["brain", "nearest", "mean"],
        min_length=1,
        description="brain; images: tokens of the stimuli, the ceiling; shuffled: wrong signals, the floor; "
        "zeroed: no brain; nearest: the training picture nearest to the brain token; mean: that of all",
    )
    split: str = Field("test", description="split whose signals are drawn")
    subjects: recipe.Numbers | None = Field(None, description="subjects drawn for; default: the run's")
    seeds: recipe.Numbers | None = Field(
        None, description="cells of these seeds; default: the run's first seed"
    )
    items: int | None = Field(None, gt=0, description="pictures of the split, from its start; default: all")
    repeats: int = Field(10, gt=0, description="pictures kept an item")
    best_of: int = Field(1, gt=0, description="pictures drawn for each one kept: the one most like its token")
    initial: Start = Start()
    seed: int = Field(0, description="seed of the noise")
    against: recipe.Names | None = Field(
        None, description="runs of reconstruct to compare with, item by item; nothing is drawn again for it"
    )
    score: str | None = Field(None, description="a folder of reconstructions to score instead of drawing any")
    truth: str | None = Field(None, description="the folder of the true pictures")

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        if self.score is None:
            recipe.refuse_idle(self, ("truth",), "without pictures to score", "--score FOLDER")
        return self

    @classmethod
    def resolve(
        cls, command: str, name: str | None, flags: Mapping[str, Any], overrides: Iterable[str]
    ) -> Self:
        """Resolve as every recipe; what names pictures to score, file or command line, says not how to draw.

        `--recipe NAME --score FOLDER` takes the metrics of a recipe that draws.
        """
        overrides, written = list(overrides), recipe_files.read(recipe_files.find(command, name))
        given = [key for key, value in flags.items() if value is not None]
        given += [override.partition("=")[0] for override in overrides]
        given += list(written) if written.get("score") else []
        idle = [key for key in given if key.split(".")[0] not in SCORING]
        if "score" in given and idle:
            raise RecipeError(
                f"{idle[0]} has no effect on pictures that others made", f"leave out {idle[0]}, or score"
            )
        return super().resolve(command, name, flags, overrides)

    @property
    def made(self) -> str:
        """How pictures are made, in words that travel with their metrics."""
        words = [f"{self.repeats} {'repeat' if self.repeats == 1 else 'repeats'}", f"adapter {self.adapter}"]
        if self.best_of > 1:
            words.insert(1, f"each the best of {self.best_of} by its token")
        if self.prior.scale is not None:
            words.append(f"scale {self.prior.scale:g}")
        if self.initial.folder or self.initial.align_run:
            words.append(f"from pictures at strength {self.initial.strength:g}")
        if self.scheduler:
            words.append(self.scheduler)
        if self.guidance > 1:
            words.append(f"guidance {self.guidance:g}")
        if self.prompt:
            words.append(f"prompt {self.prompt!r}")
        if self.negative_prompt:
            words.append(f"not {self.negative_prompt!r}")
        return ", ".join(words)


def plan(what: Recipe) -> Plan:
    """Say which run, prior and generator would be used, how much they need, and what is missing."""
    if what.score is not None:
        return Plan.of(
            {
                "pictures": lambda: len(Folders.match(what.score or "", what.truth).drawn.pictures),
                "metrics": lambda: what.measured,
            }
        )
    prior = cache(what.prior.load)
    run = cache(lambda: find_run(what.align_run, prior(), what.prior.source, what.paths))
    align = cache(lambda: _opened(what, *run()))
    return Plan.of(
        {
            "prior": lambda: f"{what.prior.source}: {', '.join(prior().dims)}",
            "align run": lambda: ":".join(filter(None, map(str, (run()[0].path, run()[1])))),
            "pictures": lambda: _count(what, align()),
            "baselines": lambda: _baselines(what, align(), prior()),
            "generator": what.generator.check,
            "memory, estimated": lambda: in_words(estimate(what.generator, what, prior())),
            "metrics": lambda: what.measured,
            "against": lambda: ", ".join(str(other.path) for other in _others(what)) or "none",
            **trackers.checks(what.run.trackers),
        }
    )


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Draw every item that is not drawn yet, then measure; or measure what others drew."""
    trackers.require(what.run.trackers)
    others = _others(what)
    folder = _score(what, launch, again) if what.score is not None else _reconstruct(what, launch, again)
    if launch.is_main and others:
        compare_with(folder, others)
    launch.barrier()
    made = result_of(folder)
    if launch.is_main:
        shown = what.model_dump(mode="json")
        found, caveats = made.metrics["sources"], made.metrics.get("caveats", [])
        trackers.log_results(what.run.trackers, made.folder, "reconstruction", shown, found, caveats)
    return made


def _others(what: Recipe) -> list[RunFolder]:
    """Find the runs to compare with, before anything is drawn."""
    return [runs.find(what.paths.under_home("runs"), "reconstruct", name) for name in what.against or []]


def _score(what: Recipe, launch: Launch, again: bool) -> RunFolder:
    folders = Folders.match(str(what.score), what.truth)
    what = what.holding(folders.digests)
    folder = open_run(f"score-{folders.drawn.name}", what, launch, again)
    if not folder.is_finished:
        more = {"score": what.score, "unmatched": folders.unmatched, "without": folders.without}
        measure_run(folder, what, [folders.drawn], folders.stimuli, "scored", launch, more)
    launch.barrier()
    return folder


def _reconstruct(what: Recipe, launch: Launch, again: bool) -> RunFolder:
    prior = what.prior.load().to(launch.device)
    found, variant = find_run(what.align_run, prior, what.prior.source, what.paths)
    name = runs.reference(found, what.paths.under_home("runs") / "train-align", variant)
    held = {what.prior.source: digest(what.prior.source)}
    if start := what.initial.folder:
        held[start] = digest_of(pictures_in(start))
    what = what.model_copy(update={"align_run": name}).holding(held)  # so that the fingerprint names them
    align = _opened(what, found, variant)
    baselines = Baselines(align, prior, what.split, what.resolution_px, what.protocol)
    folder = open_run(align.label, what, launch, again, baselines.is_here)
    if not folder.is_finished:
        cells = _cells(align, what)
        align.prepare_signals(launch)
        brain = brain_takes(align, cells, what.split, launch.device)
        takes = takes_of(what.sources, brain, align, prior, what.split, what.items)
        _refuse_learned(what.prior.source, align.dataset.name, takes)
        drawing = _drawing(what, align, prior, launch)
        trained = _trained(align, drawing.initial)
        if drawing.initial is not None:
            drawing.initial.prepare(takes, launch)
        for take in takes:
            drawing.draw(take, folder, launch)
        del drawing  # and with it the generator: its memory is the metrics' now
        shown = [take.first(what.items) for take in brain]
        others, missing = baselines.make(what.sources, shown, trained, folder, launch)
        drawn = [*(_drawn(take, what, trained, folder) for take in takes), *others]
        if not drawn:
            raise MissingData(
                f"none of the sources asked for can be made: {', '.join(missing)}",
                "; ".join(dict.fromkeys(missing.values())),
            )
        order = list[str](what.sources)
        drawn.sort(key=lambda each: order.index(each.source))
        more = {"prior": what.prior.source, "mode": align.mode, "missing_sources": missing}
        measure_run(folder, what, drawn, _stimuli(align, what.split), what.split, launch, more)
    launch.barrier()
    return folder


def _opened(what: Recipe, run: RunFolder, variant: str) -> AlignRun:
    return AlignRun.open(run, what.paths, subjects=what.subjects, variant=variant)


def _count(what: Recipe, align: AlignRun) -> str:
    """Say how many pictures would be drawn."""
    cells, items = len(_cells(align, what)), len(align.dataset.images(what.split))
    items = min(items, what.items or items)
    drawn_once, not_drawn = {"images", "zeroed"}, set(BASELINES)
    sets = sum(1 if each in drawn_once else cells for each in set(what.sources) - not_drawn)
    drawn = sets * items * what.repeats
    more = f", of {drawn * what.best_of} drawn" if what.best_of > 1 else ""
    return f"{drawn}: {items} items × {what.repeats} repeats × {sets} cells and sources{more}"


def _baselines(what: Recipe, align: AlignRun, prior: FusionPrior) -> str:
    """Name the baselines of training pictures that are asked for, and those that cannot be made."""
    makes = Baselines(align, prior, what.split, what.resolution_px, what.protocol)
    asked = [each for each in BASELINES if each in what.sources]
    missing = [each for each in asked if not makes.is_here(each)]
    words = [", ".join(each for each in asked if each not in missing)]
    words += [f"missing: {', '.join(missing)}"] if missing else []
    return "; ".join(filter(None, words)) or "none"


def _cells(align: AlignRun, what: Recipe) -> list[tuple[Cell, int]]:
    seeds, known = what.seeds or [align.cells[0].seed], sorted({cell.seed for cell in align.cells})
    if absent := [seed for seed in seeds if seed not in known]:
        raise MissingData(f"run {align.folder.path} has no cell of seeds {absent}", f"it has seeds {known}")
    return [(cell, subject) for cell in align.cells if cell.seed in seeds for subject in cell.tested_on]


def _trained(align: AlignRun, initial: Initial | None) -> str:
    """Say what a reader must know of the brain encoders, also of those that made the first guesses."""
    return in_protocol(
        f"{align.mode} {align.dataset.name}", [*align.caveats, *(initial.caveats if initial else [])]
    )


def _refuse_learned(prior: str, dataset: str, takes: Sequence[TokenSet]) -> None:
    """Refuse to draw pictures that the prior was trained to draw."""
    image_ids = sorted({image_id for take in takes for image_id in take.image_ids})
    seen = Learned.read(fused_by(prior)[0]).has_seen(dataset, image_ids)
    if seen.any():
        raise BrainhiveError(
            f"the prior {prior} was trained on {seen.sum()} of the {len(seen)} pictures of {dataset} that "
            "would be drawn",
            "draw pictures that were held out, or train a prior on a split without them",
        )


def _drawing(what: Recipe, align: AlignRun, prior: FusionPrior, launch: Launch) -> GenerationJob:
    return GenerationJob(
        Sampler(what, what.generator.build, prior, launch),
        what.repeats,
        what.batch_size,
        what.steps,
        what.seed,
        initial_of(what.initial, what.split, what.resolution_px, what.paths),
        what.best_of,
        Reranker(align.made_with[align.cells[0].variant][0], prior, launch) if what.best_of > 1 else None,
    )


def _drawn(take: TokenSet, what: Recipe, trained: str, folder: RunFolder) -> GeneratedSet:
    files = {
        image_id: [folder.path / take.file(image_id, repeat) for repeat in range(what.repeats)]
        for image_id in take.image_ids
    }
    if take.source == "zeroed":  # which starts from noise alone
        what = what.model_copy(update={"initial": Start()})
    seeds, made = (take.cell.seed,) if take.cell else (), f"{what.made}, {trained}"
    return GeneratedSet(take.source, take.name, seeds, files, take.subject, made)


def _stimuli(align: AlignRun, split: str) -> Stimuli:
    images = align.dataset.images(split)
    rows = {image_id: row for row, image_id in enumerate(images.image_ids)}
    return Stimuli(lambda i: images.open(rows[i]), lambda i: images.concepts[rows[i]])
