"""reconstruct: from test signals to pictures or clips, through a prior and a
generator.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import torch

from brainhive_cli.commands import trackers
from brainhive_cli.core import console, parts
from brainhive_cli.core.cells import (
    announce,
    claim_cells,
    finishing,
    is_untouched,
    start_run,
)
from brainhive_cli.core.command import Input, Result, Work, collect, digests_of
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.facts import (
    ReconstructionFacts,
    cite,
    describe_signals,
    flatten,
)
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import PRIOR_OF_OTHERS, extend_protocol
from brainhive_cli.core.runs import RunFolder, of_variant
from brainhive_cli.core.sweep import read_sweep_run, variants
from brainhive_cli.data.datasets import (
    StimulusSet,
    alike_of,
    list_pictures,
    list_stimuli,
)
from brainhive_cli.evaluation.reconstruction.evaluation import (
    compare_with,
    find_runs_to_compare,
    measure_run,
    measure_variants,
    open_run,
    read_result,
    sweep_tables,
)
from brainhive_cli.evaluation.reconstruction.folders import (
    BASELINES,
    DEFAULT,
    leave_out_originals,
    make_baselines,
    make_stills,
    match_folders,
    shuffle,
)
from brainhive_cli.evaluation.reconstruction.generation import (
    CELL_INDEPENDENT,
    TRAIN,
    DecodedSet,
    Sampler,
    StimulusHeads,
    decode_signals,
    generate,
    make_decoded_sets,
)
from brainhive_cli.evaluation.reconstruction.metric_parts import (
    choose_metrics,
    inputs_of as inputs_of_metrics,
)
from brainhive_cli.evaluation.reconstruction.recipe import (
    DEFAULT_STRENGTH,
    Recipe,
    Source,
)
from brainhive_cli.evaluation.reconstruction.scoring import (
    GeneratedSet,
    Stimuli,
    TaskScores,
    annotate_decoded,
    annotate_stimulus,
    pool_folds,
)
from brainhive_cli.models import priors
from brainhive_cli.models.encoders import IMPORTED
from brainhive_cli.training.alignment.learned import JOINED, Learned, describe_tested
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.references import name_of_training
from brainhive_cli.training.alignment.trained import (
    TrainedModel,
    TrainedRun,
    check_tokens,
    open_model,
    refuse_sweep,
    write_training,
)

PRIOR_KEYS = {"prior", "adapter"}
"""Keys of the recipe that choose the prior."""
RUN_KEYS = PRIOR_KEYS | {"align_run", "dataset", "subjects", "copies"}
"""Keys that choose the run that decodes."""
GENERATED_BY = PRIOR_KEYS | {
    *("generator", "resolution_px", "steps", "guidance", "strength"),
    *("repeats", "best_of"),
}
"""Keys that decide what is generated of a decoded signal."""


@dataclass(frozen=True)
class Job:
    """Media that reconstruct generates: cells, stimuli, sources and the prior.

    Attributes:
        recipe: Its settings.
        prior: On the CPU.
        align: The run or model that decodes.
        cells: The cells, each with a subject that it is tested on.
        images: The stimuli; where their files are absent, as many as are published
            stand for them.
        sources: What media are made from.
    """

    recipe: Recipe
    prior: Any
    align: TrainedRun
    cells: list[tuple[Cell, int]]
    images: StimulusSet
    sources: list[Source]

    @classmethod
    def resolve(cls, recipe: Recipe, prior: Any, align: TrainedRun) -> Self:
        """Choose the cells that decode, and the stimuli.

        Args:
            recipe: What the user wrote; no sweep, and no folder to score.
            prior: What `priors.load` returns.
            align: What `find_run` returns.
        """
        # the cells of the seeds that the recipe names, with each subject that they are
        # tested on
        known_seeds = sorted({cell.seed for cell in align.cells})
        seeds = recipe.seeds or [align.cells[0].seed]
        if absent := [seed for seed in seeds if seed not in known_seeds]:
            raise MissingData(
                f"run {align.folder.path} has no cell of seeds {absent}",
                f"it has seeds {known_seeds}",
            )
        cells = [
            (cell, subject)
            for cell in align.cells
            if cell.seed in seeds
            for subject in cell.tested_on
        ]

        # settings that contradict the stimuli or the folds
        images = list_stimuli(
            align.dataset, align.dataset.holdout.stored_split(recipe.split)
        )
        is_folded = len({cell.fold for cell, _ in cells}) > 1
        if (holdout := align.dataset.holdout).shows_seen:
            raise RecipeError(
                (
                    f"{align.name} holds out {holdout.by} of seen pictures, and "
                    "drawings are of new ones"
                ),
                (
                    "a run with dataset.holdout.by=pictures; eval-retrieval says which "
                    "of the seen ones it was"
                ),
            )
        if is_folded and "mean_embedding" in (recipe.sources or ()):
            raise RecipeError(
                "mean_embedding averages pictures that other folds hold out",
                "sources=[brain,images,shuffled]",
            )
        # encoders make the heads of pictures
        if recipe.best_of > 1 and images.medium == "clip":
            raise RecipeError(
                "best_of compares pictures, and the stimuli are clips", "best_of=1"
            )
        encoders = align.models[0].encoders
        if recipe.best_of > 1 and (
            imported := [config.name for config in encoders if config.kind == IMPORTED]
        ):
            raise RecipeError(
                (
                    f"best_of encodes what is drawn, and {imported[0]} was imported as "
                    "vectors"
                ),
                "best_of=1",
            )

        return cls(
            recipe,
            prior,
            align,
            cells,
            images,
            recipe.sources or [*DEFAULT[images.medium]],
        )

    @property
    def work(self) -> Work:
        """Media to generate, with the generator and its steps as the kind of work."""
        recipe = self.recipe
        kind = (
            f"{recipe.generator.kind} at {recipe.resolution_px} px in {recipe.steps} "
            "steps"
        )

        # sets of heads: trainings with a subject each, and sources that are of no cell
        generated = {*self.sources} - {*BASELINES}
        trainings = {(cell.name_over_folds, subject) for cell, subject in self.cells}
        sets = sum(
            1 if source in CELL_INDEPENDENT else len(trainings) for source in generated
        )

        # candidates of each item; nothing is decoded of `zeroed` that could choose
        items = min(len(self.images), recipe.items or len(self.images))
        unchosen = int("zeroed" in self.sources)
        candidates = (sets - unchosen) * recipe.best_of + unchosen
        return Work(kind, candidates * items * recipe.repeats, "pictures", cells=sets)

    def inputs(self) -> list[Input]:
        """List the prior, the run, and what it decodes."""
        recipe = self.recipe
        source = self.recipe.prior.source
        # sources that start from stored embeddings need their split
        splits = {"mean_embedding": TRAIN, "images": recipe.split}
        return [
            Input(
                f"prior {source}",
                reference=source,
                digest=priors.describe(source).digest,
            ),
            *self.align.inputs(
                [split for source, split in splits.items() if source in self.sources]
            ),
        ]

    def describe_models(self) -> str:
        """Say what a reader must know of the brain models and the prior."""
        # whether the prior learned from pictures of another data set
        align = self.align
        split = self.recipe.split
        source = self.recipe.prior.source
        prior = priors.describe(source)
        drawn = align.dataset.pictured_as
        # whose noise and number of concepts are part of a data set's name
        if source.startswith("demo:"):
            is_of_others = f"{drawn}-".partition("-")[0] != "demo"
        else:
            learned_on = (
                Learned.read(prior.folder).dataset.split(JOINED)
                if prior.folder
                else [""]
            )
            is_of_others = learned_on != [""] and drawn not in learned_on

        # caveats of all models, and the signals in words
        caveats = [
            *align.caveats(split),
            *prior.caveats,
            *([PRIOR_OF_OTHERS] if is_of_others else []),
            *getattr(self.recipe.generator, "caveats", ()),
        ]
        words = [
            *filter(
                None,
                [f"{align.mode} {align.dataset.name}", align.dataset.holdout.words],
            )
        ]
        return extend_protocol(
            ", ".join([*words, *describe_signals(align.set_up(split))]), caveats
        )

    def generated(
        self, decoded_set: DecodedSet, models: str, folder: RunFolder
    ) -> GeneratedSet:
        """Name the files of a set in the run's folder, and describe how they and the
        `models` were made.
        """
        # decoded captions, masks and concepts
        ids = decoded_set.image_ids
        decoded = decoded_set.decoded
        images = self.images
        recipe = self.recipe
        if decoded is None:
            annotations, tasks = {}, TaskScores()
        else:
            annotations = (
                annotate_decoded(decoded, ids, images.label_names)
                if images.medium == "clip"
                else {}
            )
            tasks = TaskScores.of(decoded, images, ids)

        return GeneratedSet(
            decoded_set.source,
            decoded_set.name,
            (decoded_set.cell.seed,) if decoded_set.cell else (),
            {
                image_id: [
                    folder.path / decoded_set.file(image_id, n)
                    for n in range(recipe.repeats)
                ]
                for image_id in ids
            },
            decoded_set.subject,
            f"{recipe.described(decoded is not None)}, {models}",
            annotations=annotations,
            tasks=tasks,
        )

    def stimuli(self) -> Stimuli:
        """Open what was seen, by image id."""
        images = self.images
        rows = {image_id: row for row, image_id in enumerate(images.image_ids)}
        return Stimuli(
            lambda image_id: images.open(rows[image_id]),
            dict(zip(images.image_ids, images.concepts, strict=True)).__getitem__,
            lambda image_id: annotate_stimulus(images, rows[image_id]),
            replace(
                alike_of(self.align.dataset, images.image_ids, images.concepts),
                has_folds=len({cell.fold for cell, _ in self.cells}) > 1,
            ),
        )


def find_run(recipe: Recipe, prior: Any) -> TrainedRun:
    """Find the run that decodes: the one named, or else the newest; it must have the
    prior's tokens.

    Args:
        recipe: What the user wrote.
        prior: What `priors.load` returns.

    Raises:
        MissingData: if there is none, or its tokens are not the prior's; it says what
            trains one.
    """
    source = recipe.prior.source
    paths = recipe.paths
    name, variant = of_variant(recipe.align_run)
    # a run that the user did not name can be replaced: the error says what trains one
    is_newest = not variant and (
        name is None or name_of_training(name, paths.under_home("runs")) is not None
    )

    try:
        align = open_model(
            recipe.align_run, paths, recipe.dataset, recipe.subjects, recipe.copies
        )
    except MissingData as error:  # any run for this prior would do
        if not is_newest or prior.fuser is None:
            raise
        raise MissingData(
            error.message, write_training(source, paths, recipe.dataset)
        ) from None
    refuse_sweep(align)
    if prior.fuser is not None:
        check_tokens(align, prior, source, recipe.dataset or align.dataset_config)

    # what the prior was trained to generate is no test of it either
    folder = priors.describe(source).folder
    learned = Learned() if folder is None else Learned.read(folder)
    return (
        replace(align, sources={f"the prior {source}": learned})
        if len(learned.pictures)
        else align
    )


def resolve_variants(recipe: Recipe) -> dict[str, Job]:
    """Resolve every variant of a sweep, by label, on one run unless they name others.

    Variants share the prior and the run, with all that it has decoded, where their keys
    choose the same.
    `align_run: :VARIANT` is a variant of the first one's run.
    """
    # `reference` names the first variant's run for the next ones, `requested` is its
    # name in the recipe
    jobs: dict[str, Job] = {}
    opened = {}  # priors and runs, by the keys that choose them
    requested = reference = None
    for label, variant in variants(recipe).items():
        # the run of the first variant, unless it names another one, or another variant
        # of it
        name = variant.align_run
        if jobs and name in (None, requested):
            variant = variant.model_copy(update={"align_run": reference})
        elif jobs and name is not None and name.startswith(":"):
            variant = variant.model_copy(
                update={"align_run": f"{of_variant(reference)[0] or ''}{name}"}
            )

        # the prior and the run, opened already or now
        prior_key, run_key = (
            variant.model_dump_json(include=keys) for keys in (PRIOR_KEYS, RUN_KEYS)
        )
        if prior_key not in opened:
            opened[prior_key] = priors.load(
                variant.prior.source, scale=variant.prior.scale, adapter=variant.adapter
            )
        if run_key not in opened:
            opened[run_key] = find_run(variant, opened[prior_key])
        job = Job.resolve(variant, opened[prior_key], opened[run_key])

        # the next variants are to find this run, not a newer one
        if not jobs:
            requested = name
            reference = job.align.reference
            renamed = variant.model_copy(update={"align_run": reference})
            opened[renamed.model_dump_json(include=RUN_KEYS)] = job.align
        jobs[label] = job
    return jobs


def inputs(recipe: Recipe) -> list[Input]:
    """List the prior, the generator, the run that decodes, and what it is tested with;
    or what is scored.
    """

    def others() -> list[Input]:
        runs = find_runs_to_compare(recipe.paths, recipe.against or [])
        return [Input(f"run {run.path.name}") for run in runs]

    # scoring reads files only: no prior or brain model is opened
    if recipe.score is not None:
        score = str(recipe.score)

        def list_networks() -> list[Input]:
            matched = match_folders(score, recipe.truth, recipe.medium)
            generated, stimuli, medium, _, facts = matched
            leave_out_originals(generated, stimuli, facts, recipe.truth)
            return inputs_of_metrics(
                choose_metrics(medium, recipe.metrics), recipe.metric_encoders
            )

        return collect(others, list_networks)

    def list_jobs() -> list[Input]:
        try:
            jobs = resolve_variants(recipe).values()
        except BrainhiveError as error:
            # priors, and metrics of both media: which one it is, the run says
            sources = dict.fromkeys(
                variant.prior.source for variant in variants(recipe).values()
            )
            metrics = recipe.metrics or [
                *choose_metrics("picture", None),
                *choose_metrics("clip", None),
            ]
            return [
                Input(error.message, None, error),
                *(
                    Input.of(f"prior {source}", partial(priors.describe, source))
                    for source in sources
                ),
                *inputs_of_metrics(metrics, recipe.metric_encoders),
            ]

        # with the stimuli that media are compared with, and the networks of metrics
        listed = []
        for job in jobs:
            metrics = choose_metrics(job.images.medium, job.recipe.metrics)
            dataset = job.align.dataset
            stored_split = dataset.holdout.stored_split(job.recipe.split)
            listed += [*job.inputs(), *list_pictures(dataset, stored_split)]
            listed += inputs_of_metrics(metrics, job.recipe.metric_encoders)
        return listed

    generators = [variant.generator for variant in variants(recipe).values()]
    return collect(
        lambda: trackers.inputs(recipe.run.trackers),
        list_jobs,
        lambda: [one for generator in generators for one in generator.inputs()],
        others,
        checks=[generator.check for generator in generators],
    )


def work(recipe: Recipe) -> Work | None:
    """Count the media of all variants."""
    if recipe.score is not None:
        return None
    works = [job.work for job in resolve_variants(recipe).values()]
    return replace(
        works[0],
        count=sum(one.count for one in works),
        cells=sum(one.cells for one in works),
    )


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Generate what is not there yet, then measure; or score what others made."""
    # each variant is a run of its own
    trackers.require(recipe.run.trackers)
    if recipe.score is not None:
        return _run(recipe, None, launch, again)
    with console.progress("opening models, signals and embeddings"):
        jobs = resolve_variants(recipe)
    results = {
        label: _run(job.recipe, job, launch, again) for label, job in jobs.items()
    }
    if not recipe.is_swept:
        return results[""]

    # all variants in one table; they are compared with the first
    first = next(iter(jobs.values()))
    digests = digests_of(one for job in jobs.values() for one in job.inputs())
    resolved = recipe.model_copy(update={"align_run": first.align.reference})
    folder = start_run(
        "reconstruct", f"{first.align.label}-sweep", resolved, launch, again, digests
    )
    if launch.is_main:  # again where it is finished: a variant may have got a metric
        folder.finish(measure_variants(results))
    launch.barrier()
    measurements = read_sweep_run(folder)
    return Result(
        folder.path, sweep_tables(measurements, recipe.published), measurements
    )


def _run(recipe: Recipe, job: Job | None, launch: Launch, again: bool) -> Result:
    """Run a recipe that is no sweep, or one variant of it; then compare it with other
    runs.
    """
    # before anything is generated
    runs_to_compare = find_runs_to_compare(recipe.paths, recipe.against or [])
    folder, work = (
        _score(recipe, launch, again)
        if job is None
        else _reconstruct(job, launch, again)
    )
    if launch.is_main and runs_to_compare:
        compare_with(folder, runs_to_compare)
    launch.barrier()
    result = read_result(folder, recipe.published)
    if launch.is_main:
        # trackers get the metrics of all sources, from one process
        metrics = result.metrics
        values = {source: metrics.scopes[source] for source in metrics.facts.sources}
        trackers.log_results(
            recipe, folder.path, "reconstruction", values, metrics.caveats
        )
    return replace(result, work=work)


def _score(recipe: Recipe, launch: Launch, again: bool) -> tuple[RunFolder, None]:
    """Score a folder of reconstructions."""
    scored, stimuli, medium, digests, facts = match_folders(
        str(recipe.score), recipe.truth, recipe.medium
    )
    folder = open_run(f"score-{scored.name}", recipe, launch, again, digests)
    if not folder.is_finished:
        scored, facts = leave_out_originals(scored, stimuli, facts, recipe.truth)
        # floors of clips: clips of other items, and still pictures
        generated = [scored]
        if medium == "clip":
            if len(scored.files) > 1:
                generated.append(shuffle(scored))  # needs another item
            generated += launch.gather(
                make_stills(generated[:1], folder) if launch.is_main else []
            )[0]
        measure_run(folder, recipe, generated, stimuli, "scored", launch, {}, facts)
    launch.barrier()
    return folder, None


def _reconstruct(
    job: Job, launch: Launch, again: bool
) -> tuple[RunFolder, Work | None]:
    """Decode, generate and score; a finished run is left as it is.

    Returns:
        The run, and the work that was done, where it was all of it.
    """
    recipe, align = job.recipe, job.align
    align.prepare_signals(launch)
    # store the run and the sources that defaults chose, so that the recipe repeats them
    resolved = recipe.model_copy(
        update={"align_run": job.align.reference, "sources": job.sources}
    )
    folder = open_run(align.label, resolved, launch, again, digests_of(job.inputs()))
    work = job.work if is_untouched(folder) else None
    if not folder.is_finished:
        # the prior on its device, and the stimuli, whose files must be here
        images = align.dataset.images(align.dataset.holdout.stored_split(recipe.split))
        if images.missing is not None:
            raise images.missing
        job = replace(job, prior=job.prior.to(launch.device), images=images)
        heads = StimulusHeads.of(align, job.prior, launch.device)

        # heads: decoded from signals, then of all other sources
        brain = [
            decode_signals(
                TrainedModel(align, cell, launch.device), subject, recipe.split
            )
            for cell, subject in job.cells
        ]
        sets = make_decoded_sets(job.sources, brain, heads, recipe.split, recipe.items)

        # `strength` needs a prior that gives something to start from
        decoded = next(
            (chosen.decoded for chosen in sets if chosen.decoded is not None), None
        )
        if recipe.strength != DEFAULT_STRENGTH and decoded is not None:
            with torch.inference_mode():
                if job.prior.condition(decoded[:1], [0]).start is None:
                    problem = (
                        "strength has no effect: the prior gives nothing to start from"
                    )
                    raise RecipeError(problem, "leave strength out")

        # media, written to the run's folder
        build = recipe.generator.build
        layout = align.models[0].layout
        sampler = Sampler(
            build, job.prior, recipe, recipe.sampling, launch.device, layout.heads
        )
        rerank = heads.build_reranker(launch) if recipe.best_of > 1 else None
        rate_hz = images.open(0).rate_hz if images.medium == "clip" else None
        set_of_name = {decoded_set.name: decoded_set for decoded_set in sets}
        media = {
            name: [
                decoded_set.file(image_id, n)
                for image_id in decoded_set.image_ids
                for n in range(recipe.repeats)
            ]
            for name, decoded_set in set_of_name.items()
        }
        paths = [folder.path / file for files in media.values() for file in files]
        if due := sum(not path.is_file() for path in paths):
            runs = folder.path.parents[1]
            share = due / len(paths)
            announce(job.work, "reconstruct", runs, launch, share)
        with claim_cells(
            folder,
            {name: files[-1] for name, files in media.items()},
            launch,
            lambda name: all((folder.path / file).is_file() for file in media[name]),
        ) as free:
            count = 0
            for name in free:
                generate(
                    sampler,
                    set_of_name[name],
                    folder,
                    launch,
                    recipe.repeats,
                    recipe.seed,
                    count=recipe.best_of,
                    rerank=rerank,
                    rate_hz=rate_hz,
                )
                count += 1
        if count < len(set_of_name):  # others have shared it: its time says no pace
            work = None
        # and with them all networks: their memory is the metrics' now
        del sampler, rerank

        # training pictures as baselines, then scores, by one worker
        launch.barrier()  # stills are made of what all processes generated
        with finishing(folder, launch) as is_due:
            if is_due:
                _finish(job, folder, brain, sets, heads, launch)
    return folder, work


def _finish(
    job: Job,
    folder: RunFolder,
    brain: Sequence[DecodedSet],
    sets: Sequence[DecodedSet],
    heads: StimulusHeads,
    launch: Launch,
) -> None:
    """Add training pictures instead of reconstructions, score all of it, and finish the
    run.
    """
    recipe, align = job.recipe, job.align

    # what was generated, and training pictures, in the order of the sources
    models = job.describe_models()
    items = [decoded_set.first(recipe.items) for decoded_set in brain]
    generated = [job.generated(decoded_set, models, folder) for decoded_set in sets]
    training_media, missing = make_baselines(
        align, recipe, job.sources, items, generated, heads, models, folder, launch
    )
    generated += training_media
    if not generated:
        raise MissingData(
            f"none of the sources can be made: {', '.join(missing)}",
            "; ".join(dict.fromkeys(missing.values())),
        )
    generated.sort(key=lambda media: [*map(str, job.sources)].index(media.source))

    # scores of the masks, concepts and captions of other items' signals, where these
    # generate no media
    if "brain" in job.sources and "shuffled" not in job.sources:
        for decoded_set in brain:
            if len(decoded_set.image_ids) > 1:
                floor = job.generated(
                    decoded_set.shuffled().first(recipe.items), models, folder
                )
                if floor.tasks.values:
                    generated.append(
                        replace(floor, files={image_id: [] for image_id in floor.files})
                    )
    generated = pool_folds(generated)

    # what the numbers are of: models, set-up, and pictures that were left out
    generated_by = recipe.model_dump(mode="json", include=GENERATED_BY)
    prior = parts.load("priors", priors.describe(recipe.prior.source).kind).Config.cites
    papers = cite(prior=prior, generator=parts.cited(recipe.generator))
    seen, warnings = describe_tested(
        [align.tested_pictures(recipe.split)], align.signal_warnings
    )
    facts = ReconstructionFacts(
        dataset=align.dataset.name,
        modality=align.modality,
        stimulus=align.dataset.stimulus,
        prior=recipe.prior.source,
        mode=align.mode,
        published=recipe.published.as_dict() if recipe.published else {},
        set_up={
            **align.set_up(recipe.split),
            **flatten(generated_by, "reconstruct"),
            **papers,
        },
        seen_in_training=seen,
        warnings=warnings,
    )
    measure_run(
        folder, recipe, generated, job.stimuli(), recipe.split, launch, missing, facts
    )
