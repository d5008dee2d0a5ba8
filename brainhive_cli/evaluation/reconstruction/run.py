"""The runs of reconstruct: media that are generated from signals, a sweep of such runs,
and folders of media that are scored.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Self

import torch

from brainhive_cli.core import driver, parts
from brainhive_cli.core.command import Input, Result, Work, collect_inputs
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.facts import ReconstructionFacts, cite, flatten
from brainhive_cli.core.jobs import CellStage, LoggedMetrics, OpenRun, RunJob, Summary
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.runs import RunFolder, split_variant
from brainhive_cli.core.sweep import make_variants, read_sweep_run
from brainhive_cli.data.stores.learned import summarise_tested_pictures
from brainhive_cli.evaluation.reconstruction.evaluation import (
    combine_variants,
    find_runs_to_compare,
    make_sweep_tables,
    measure_run,
    read_result,
    require_values,
    write_comparisons,
)
from brainhive_cli.evaluation.reconstruction.folders import (
    leave_out_originals,
    make_baselines,
    make_stills,
    match_folders,
    shuffle_items,
)
from brainhive_cli.evaluation.reconstruction.generation import (
    DecodedSet,
    Sampler,
    StimulusHeads,
    decode_signals,
    generate_set,
    make_decoded_sets,
)
from brainhive_cli.evaluation.reconstruction.job import (
    PRIOR_KEYS,
    RUN_KEYS,
    Job,
    find_align_run,
    require_start,
)
from brainhive_cli.evaluation.reconstruction.metric_parts import (
    choose_metrics,
    find_computable,
    is_available,
    list_metric_inputs as inputs_of_metrics,
)
from brainhive_cli.evaluation.reconstruction.recipe import DEFAULT_STRENGTH, Recipe
from brainhive_cli.evaluation.reconstruction.scoring import (
    GeneratedSet,
    Stimuli,
    pool_folds,
    require_stimulus_frames,
)
from brainhive_cli.measurement.metrics import Medium
from brainhive_cli.models import priors
from brainhive_cli.training.alignment.trained.model import TrainedModel

GENERATION_KEYS = PRIOR_KEYS | {
    *("generator", "resolution_px", "steps", "guidance", "strength"),
    *("repeats", "best_of"),
}
"""Keys that decide what is generated of a decoded signal."""


class ScoredRun(RunJob):
    """Run whose media are scored, and compared with those of other runs."""

    summarises_together = True
    tracker_name = "reconstruction"
    recipe: Recipe

    @cached_property
    def runs_to_compare(self) -> list[RunFolder]:
        """Finished runs that this one is compared with."""
        return find_runs_to_compare(self.recipe.paths, self.recipe.against or [])

    def list_inputs(self) -> list[Input]:
        """List the inputs, and the runs to compare with."""

        def list_runs() -> list[Input]:
            return [Input(f"run {run.path.name}") for run in self.runs_to_compare]

        return collect_inputs(super().list_inputs, list_runs)

    def check(self) -> None:
        """Find the runs to compare with."""
        super().check()
        _ = self.runs_to_compare

    def require_metrics(self, medium: Medium, items: int) -> None:
        """Refuse media that no metric can compare, or none that other runs have."""
        recipe = self.recipe
        metrics = choose_metrics(medium, recipe.metrics)
        names, missing = find_computable(metrics, recipe.metric_encoders)
        require_values(names if items > 1 or metrics else [], missing, medium)
        for run in self.runs_to_compare:
            measurements = run.measurements()
            source = measurements.facts.sources[0]
            if measurements.scopes[source].keys().isdisjoint(names):
                raise BrainhiveError(
                    f"this run and {run.path} have no metric in common",
                    "measure both by one metric",
                )

    def is_outdated(self, run: OpenRun) -> bool:
        """Return True if a metric that was missing can be computed now."""
        missing = run.folder.measurements().missing
        return any(is_available(name, self.recipe.metric_encoders) for name in missing)

    def describe(self, run: OpenRun) -> Result:
        """Compare a finished run with others, and show its tables."""
        if compared := self.runs_to_compare:
            run.launch.run_on_main(lambda: write_comparisons(run.folder, compared))
        return read_result(run.folder, self.recipe.published)

    def choose_logged_metrics(self, measurements: Measurements) -> LoggedMetrics:
        """Choose the metrics of all sources."""
        return {
            source: measurements.scopes[source] for source in measurements.facts.sources
        }


@dataclass(frozen=True)
class FolderRun(ScoredRun):
    """Run that scores a folder of media which others have made.

    Attributes:
        recipe: Its settings.
        generated_set: The media.
        stimuli: What was seen.
        medium: What the media are.
        digests: Digests of both folders, by what the user calls them.
        facts: What is known of the media.
    """

    recipe: Recipe
    generated_set: GeneratedSet
    stimuli: Stimuli
    medium: Medium
    digests: Mapping[str, str]
    facts: ReconstructionFacts

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Match the media with what was seen; raises as `match_folders`."""
        return cls(
            recipe, *match_folders(str(recipe.score), recipe.truth, recipe.medium)
        )

    @property
    def label(self) -> str:
        """First part of the run's name."""
        return f"score-{self.generated_set.name}"

    def inputs(self) -> list[Input]:
        """List the folders, and the weights of the metrics."""
        metrics = choose_metrics(self.medium, self.recipe.metrics)
        folders = [
            Input(f"folder {name}", reference=name, digest=digest)
            for name, digest in self.digests.items()
        ]
        return [*folders, *inputs_of_metrics(metrics, self.recipe.metric_encoders)]

    @cached_property
    def without_originals(self) -> tuple[GeneratedSet, ReconstructionFacts]:
        """The media without the true ones among them."""
        return leave_out_originals(
            self.generated_set, self.stimuli, self.facts, self.recipe.truth
        )

    def check(self) -> None:
        """Refuse a folder that holds the true media alone."""
        super().check()
        self.require_metrics(self.medium, len(self.generated_set.files))
        scored, _ = self.without_originals
        image_id, (file, *_) = next(iter(scored.files.items()))
        require_stimulus_frames(self.stimuli.open(image_id), scored.open(file))

    def summarise(self, run: OpenRun) -> Summary:
        """Score the media; of clips also those of other items, and still pictures."""
        launch = run.launch
        scored, facts = self.without_originals
        generated = [scored]
        if self.medium == "clip":
            if len(scored.files) > 1:
                generated.append(shuffle_items(scored))  # needs another item
            first = generated[:1]
            generated += launch.run_on_main(partial(make_stills, first, run.folder))
        return measure_run(
            run.folder,
            self.recipe,
            generated,
            self.stimuli,
            "scored",
            launch,
            {},
            facts,
        )


@dataclass(frozen=True)
class GenerationSetUp:
    """What a run generates from, on its device.

    Attributes:
        job: The job, its prior on the device and the stimuli with their files.
        heads: Makes heads of stimuli.
        brain_sets: Heads decoded from the signals of each cell and subject.
        decoded_sets: All sets of heads from which media are generated.
    """

    job: "ReconstructionRun"
    heads: StimulusHeads
    brain_sets: list[DecodedSet]
    decoded_sets: list[DecodedSet]


class ReconstructionRun(Job, ScoredRun):
    """Run that generates media from signals, and scores them."""

    @property
    def label(self) -> str:
        """First part of the run's name."""
        return self.align.label

    def check(self) -> None:
        """Refuse what does not fit; raises as the checks of both."""
        Job.check(self)
        ScoredRun.check(self)
        # further heads have scores of their own
        if len(self.align.models[0].layout.heads) == 1:
            items = min(len(self.images), self.recipe.items or len(self.images))
            self.require_metrics(self.images.medium, items)

    @cached_property
    def _opened(self) -> dict[str, GenerationSetUp]:
        return {}

    def open(self, launch: Launch) -> GenerationSetUp:
        """Take the prior to the device, and decode the signals, once."""
        key = str(launch.device)
        if key not in self._opened:
            self._opened[key] = self._open(launch)
        return self._opened[key]

    def _open(self, launch: Launch) -> GenerationSetUp:
        recipe, align = self.recipe, self.align
        # the files of the stimuli must be here
        stored_split = align.dataset.holdout.name_stored_split(recipe.split)
        images = align.dataset.images(stored_split)
        if images.missing_error is not None:
            raise images.missing_error
        job = replace(self, prior=self.prior.to(launch.device), images=images)
        heads = StimulusHeads.from_prior(align, job.prior, launch.device)

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
                require_start(job.prior.condition(decoded[:1], [0]))
        return GenerationSetUp(job, heads, brain, sets)

    def stages(self, run: OpenRun) -> Iterator[CellStage]:
        """Generate the media of each set of heads, all processes together."""
        opened = self.open(run.launch)
        job, recipe, launch = opened.job, self.recipe, run.launch
        sampler = Sampler(
            recipe.generator.build,
            job.prior,
            recipe,
            recipe.sampling,
            launch.device,
            self.align.models[0].layout.heads,
        )
        rerank = opened.heads.build_reranker(launch) if recipe.best_of > 1 else None
        is_clip = job.images.medium == "clip"
        rate_hz = job.images.open(0).rate_hz if is_clip else None
        set_of_name = {
            decoded_set.name: decoded_set for decoded_set in opened.decoded_sets
        }
        media = {
            name: [
                decoded_set.name_file(image_id, number)
                for image_id in decoded_set.image_ids
                for number in range(recipe.repeats)
            ]
            for name, decoded_set in set_of_name.items()
        }

        def draw(name: str, launch: Launch) -> None:
            generate_set(
                sampler,
                set_of_name[name],
                run.folder,
                launch,
                recipe.repeats,
                recipe.seed,
                count=recipe.best_of,
                rerank=rerank,
                rate_hz=rate_hz,
            )

        def is_finished(name: str) -> bool:
            return all((run.folder.path / file).is_file() for file in media[name])

        last_files = {name: files[-1] for name, files in media.items()}
        yield CellStage("generating", last_files, draw, "together", is_finished)

    def summarise(self, run: OpenRun) -> Summary:
        """Add training pictures instead of reconstructions, and score all of it."""
        opened = self.open(run.launch)
        return score_media(opened.job, run, opened)


def score_media(job: Job, run: OpenRun, opened: GenerationSetUp) -> Summary:
    """Score generated media, training pictures, and other items' signals."""
    recipe, align = job.recipe, job.align
    folder, launch = run.folder, run.launch
    brain, sets, heads = opened.brain_sets, opened.decoded_sets, opened.heads

    # what was generated, and training pictures, in the order of the sources
    models = job.describe_models()
    items = [decoded_set.take_first(recipe.items) for decoded_set in brain]
    generated = [
        job.make_generated_set(decoded_set, models, folder) for decoded_set in sets
    ]
    make = partial(
        make_baselines,
        align,
        recipe,
        job.sources,
        items,
        generated,
        heads,
        models,
        folder,
    )
    training_media, missing = launch.run_on_main(make)
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
                floor = job.make_generated_set(
                    decoded_set.shuffle_signals().take_first(recipe.items),
                    models,
                    folder,
                )
                if floor.task_scores.values:
                    generated.append(
                        replace(floor, files={image_id: [] for image_id in floor.files})
                    )
    generated = pool_folds(generated)

    # what the numbers are of: models, set-up, and pictures that were left out
    generated_by = recipe.model_dump(mode="json", include=GENERATION_KEYS)
    prior = parts.load("priors", priors.describe(recipe.prior.source).kind).Config.cites
    papers = cite(prior=prior, generator=parts.list_papers(recipe.generator))
    seen, warnings = summarise_tested_pictures(
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
    return measure_run(
        folder,
        recipe,
        generated,
        job.make_stimuli(),
        recipe.split,
        launch,
        missing,
        facts,
    )


@dataclass(frozen=True)
class ReconstructionSweep(RunJob):
    """Run of a sweep, which consists of a run for each variant.

    Attributes:
        recipe: Its settings.
        jobs: The variants, by label.
    """

    recipe: Recipe
    jobs: Mapping[str, ReconstructionRun]

    @property
    def label(self) -> str:
        """First part of the run's name."""
        first = next(iter(self.jobs.values()))
        return f"{first.align.label}-sweep"

    def inputs(self) -> list[Input]:
        """List the inputs of all variants."""
        return [one for job in self.jobs.values() for one in job.inputs()]

    def list_inputs(self) -> list[Input]:
        """List the inputs of all variants, and the runs to compare with."""
        return collect_inputs(*(job.list_inputs for job in self.jobs.values()))

    def count_work(self) -> Work:
        """Count the media of all variants."""
        works = [job.count_work() for job in self.jobs.values()]
        return replace(
            works[0],
            count=sum(one.count for one in works),
            cells=sum(one.cells for one in works),
        )

    def check(self) -> None:
        """Refuse what does not fit in any variant."""
        for job in self.jobs.values():
            job.check()

    def prepare(self, launch: Launch) -> None:
        """Make the signal stores that are missing."""
        for job in self.jobs.values():
            job.prepare(launch)

    def make_parts(self, run: OpenRun, force: bool) -> Mapping[str, Result]:
        """Make the run of each variant."""
        return driver.run_each("reconstruct", self.jobs, run.launch, force)

    def is_outdated(self, run: OpenRun) -> bool:
        """Return True if a variant has got a metric since."""
        return run.folder.measurements().missing != combine_variants(run.parts).missing

    def summarise(self, run: OpenRun) -> Summary:
        """Compare the variants with the first one."""
        return Summary(combine_variants(run.parts))

    def describe(self, run: OpenRun) -> Result:
        """Show all variants in one table."""
        measurements = read_sweep_run(run.folder)
        tables = make_sweep_tables(measurements, self.recipe.published)
        return Result(run.folder.path, tables, measurements)


def resolve_job(recipe: Recipe) -> RunJob:
    """Resolve a folder to score, a sweep, or the run of a single recipe."""
    if recipe.score is not None:
        return FolderRun.resolve(recipe)
    jobs = resolve_variants(recipe)
    if not recipe.is_swept:
        return jobs[""]
    first = next(iter(jobs.values()))
    resolved = recipe.model_copy(update={"align_run": first.align.reference})
    return ReconstructionSweep(resolved, jobs)


def foresee(recipe: Recipe) -> list[Input]:
    """List the inputs that are known without a run: priors, and the weights of
    generators and metrics.
    """
    if recipe.score is not None:
        return []
    recipes = list(make_variants(recipe).values())
    sources = dict.fromkeys(variant.prior.source for variant in recipes)
    listed = [priors.find_input(source) for source in sources]

    # metrics of both media: which one it is, the run says
    metrics = recipe.metrics or [
        *choose_metrics("picture", None),
        *choose_metrics("clip", None),
    ]
    listed += inputs_of_metrics(metrics, recipe.metric_encoders)
    for variant in recipes:
        listed += variant.generator.inputs()
    return listed


def resolve_variants(recipe: Recipe) -> dict[str, ReconstructionRun]:
    """Resolve every variant of a sweep, by label, on one run unless they name others.

    Variants share the prior and the run, with all that it has decoded, where their keys
    choose the same.
    `align_run: :VARIANT` is a variant of the first one's run.
    """
    # `reference` names the first variant's run for the next ones, `requested` is its
    # name in the recipe
    jobs: dict[str, ReconstructionRun] = {}
    opened = {}  # priors and runs, by the keys that choose them
    requested = reference = None
    for label, variant in make_variants(recipe).items():
        # the run of the first variant, unless it names another one, or another variant
        # of it
        name = variant.align_run
        if jobs and name in (None, requested):
            variant = variant.model_copy(update={"align_run": reference})
        elif jobs and name is not None and name.startswith(":"):
            variant = variant.model_copy(
                update={"align_run": f"{split_variant(reference)[0] or ''}{name}"}
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
            opened[run_key] = find_align_run(variant, opened[prior_key])
        job = ReconstructionRun.resolve(variant, opened[prior_key], opened[run_key])

        # the next variants are to find this run, not a newer one
        if not jobs:
            requested = name
            reference = job.align.reference
            renamed = variant.model_copy(update={"align_run": reference})
            opened[renamed.model_dump_json(include=RUN_KEYS)] = job.align
        jobs[label] = job
    return jobs
