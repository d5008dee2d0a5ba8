"""Runs of the command reconstruct."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Self

import torch

from brainhive_cli.core.base import BrainhiveError, MissingData
from brainhive_cli.core.files import Input, collect_inputs, is_saved
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.results import Measurements, call, cite, flatten
from brainhive_cli.core.runs import (
    CellStage,
    Launch,
    LoggedMetrics,
    OpenRun,
    Result,
    RunFolder,
    RunJob,
    Summary,
)
from brainhive_cli.evaluation.reconstruction.baselines import (
    make_baselines,
    make_stills,
    shuffle_items,
)
from brainhive_cli.evaluation.reconstruction.evaluation import (
    find_runs_to_compare,
    measure_run,
    read_result,
    require_values,
    write_comparisons,
)
from brainhive_cli.evaluation.reconstruction.facts import ReconstructionFacts
from brainhive_cli.evaluation.reconstruction.folders import (
    leave_out_originals,
    match_folders,
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
    list_metric_inputs,
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
from brainhive_cli.models.priors import Prior


class ScoredRun(RunJob):
    """Run whose media are scored, and compared with the media of other runs."""

    command = "reconstruct"
    summarises_together = True
    tracker_name = "reconstruction"
    recipe: Recipe

    @cached_property
    def runs_to_compare(self) -> list[RunFolder]:
        """Finished runs that this run is compared with."""
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

    def require_metrics(self, medium: Medium, n_items: int) -> None:
        """Raise an error if no metric can be computed, or none of a run to compare."""
        recipe = self.recipe
        metrics = choose_metrics(medium, recipe.metrics)
        names, missing = find_computable(metrics, recipe.metric_encoders)
        has_values = n_items > 1 or bool(metrics)
        require_values(names if has_values else [], missing, medium)
        for run in self.runs_to_compare:
            measurements = run.measurements()
            source = measurements.facts.sources[0]
            if measurements.scopes[source].keys().isdisjoint(names):
                raise BrainhiveError(
                    f"this run and {run.path} have no metric in common",
                    "measure both by the same metric",
                )

    def is_outdated(self, run: OpenRun) -> bool:
        """Return True if a metric that was missing can be computed now."""
        missing = run.folder.measurements().missing
        return any(is_available(name, self.recipe.metric_encoders) for name in missing)

    def describe(self, run: OpenRun) -> Result:
        """Compare a finished run with the other runs, and show its tables."""
        if self.runs_to_compare:
            compare = partial(write_comparisons, run.folder, self.runs_to_compare)
            run.launch.run_on_main(compare)
        return read_result(run.folder, self.recipe.published)

    def choose_logged_metrics(self, measurements: Measurements) -> LoggedMetrics:
        """Choose the metrics of all sources."""
        return {
            source: measurements.scopes[source] for source in measurements.facts.sources
        }


@dataclass(frozen=True)
class GenerationSetUp:
    """Objects on the device from which a run generates media.

    Attributes:
        prior: Prior on the device.
        stimulus_heads: Computes the heads of stimuli.
        brain_sets: Heads decoded from the signals of each cell and subject.
        decoded_sets: Heads of all sources from which media are generated.
    """

    prior: Prior
    stimulus_heads: StimulusHeads
    brain_sets: list[DecodedSet]
    decoded_sets: list[DecodedSet]


class ReconstructionRun(Job, ScoredRun):
    """Run that generates media from brain signals, and scores them.

    It has these steps:

    1. `set_up` decodes the heads of all signals, and collects the heads of other
       sources, such as the stimuli themselves.
    2. `stages` generates media from each set of heads.
    3. `summarise` makes baselines, and scores all media.
    """

    def set_up(self, launch: Launch) -> GenerationSetUp:
        """Move the prior to the device, and decode the signals, once per device."""
        device = str(launch.device)
        if device not in self._set_ups:
            self._set_ups[device] = self._set_up(launch)
        return self._set_ups[device]

    @cached_property
    def _set_ups(self) -> dict[str, GenerationSetUp]:
        return {}

    def _set_up(self, launch: Launch) -> GenerationSetUp:
        """Move the prior to the device, and decode all signals.

        Raises:
            MissingData: if the files of the stimuli are absent.
        """
        recipe = self.recipe
        align = self.align
        tests = self.tests
        # the files of the stimuli must be present
        if self.images.missing_error is not None:
            raise self.images.missing_error

        # heads decoded from signals, then the heads of all sources
        prior = self.prior.to(launch.device)
        model = align.open(align.cells[0], launch.device)
        stimulus_heads = StimulusHeads.from_prior(tests, model, prior)
        brain_sets = []
        for cell, subject in self.cells:
            model = align.open(cell, launch.device)
            brain_sets.append(decode_signals(tests, model, subject))
        decoded_sets = make_decoded_sets(
            self.sources, brain_sets, stimulus_heads, recipe.split, recipe.items
        )

        # `strength` needs a prior that gives sampling a start
        if recipe.strength != DEFAULT_STRENGTH:
            for decoded_set in decoded_sets:
                if decoded_set.decoded is not None:
                    with torch.inference_mode():
                        require_start(prior.condition(decoded_set.decoded[:1], [0]))
                    break
        return GenerationSetUp(prior, stimulus_heads, brain_sets, decoded_sets)

    def stages(self, run: OpenRun) -> Iterator[CellStage]:
        """Generate media from each set of heads, all processes together."""
        recipe = self.recipe
        set_up = self.set_up(run.launch)
        sampler = Sampler(
            recipe.generator.build,
            set_up.prior,
            recipe,
            recipe.sampling,
            run.launch.device,
            heads=self.align.open_first().layout.heads,
        )
        rerank = None
        if recipe.best_of > 1:
            rerank = set_up.stimulus_heads.build_reranker(run.launch)
        images = self.images
        rate_hz = images.open(0).rate_hz if images.medium == "clip" else None

        # sets by name, and the names of their files
        set_of_name = {}
        media = {}
        last_files = {}
        for decoded_set in set_up.decoded_sets:
            set_of_name[decoded_set.name] = decoded_set
            files = []
            for image_id in decoded_set.image_ids:
                for repeat in range(recipe.repeats):
                    files.append(decoded_set.name_file(image_id, repeat))
            media[decoded_set.name] = files
            last_files[decoded_set.name] = files[-1]

        def generate(name: str, launch: Launch) -> None:
            generate_set(
                sampler,
                set_of_name[name],
                run.folder,
                launch,
                recipe.repeats,
                recipe.seed,
                n_candidates=recipe.best_of,
                rerank=rerank,
                rate_hz=rate_hz,
            )

        def is_finished(name: str) -> bool:
            return all(is_saved(run.folder.path / file) for file in media[name])

        yield CellStage(
            "generating",
            files=last_files,
            compute=generate,
            sharing="together",
            is_finished=is_finished,
        )

    def summarise(self, run: OpenRun) -> Summary:
        """Make baselines, score all media, and compute the metrics."""
        set_up = self.set_up(run.launch)
        recipe = self.recipe

        # generated media
        models = self.describe_models()
        generated = []
        for decoded_set in set_up.decoded_sets:
            generated.append(self.make_generated_set(decoded_set, models, run.folder))

        # baselines, such as the nearest training pictures, in the order of the sources
        make = partial(
            make_baselines,
            self.tests,
            recipe,
            self.sources,
            [decoded_set.take_first(recipe.items) for decoded_set in set_up.brain_sets],
            generated,
            set_up.stimulus_heads,
            models,
            run.folder,
            self.caveats,
        )
        baselines, missing = run.launch.run_on_main(make)
        generated += baselines
        if not generated:
            raise MissingData(
                f"none of the sources can be made: {', '.join(missing)}",
                "; ".join(dict.fromkeys(missing.values())),
            )
        sources: list[str] = list(self.sources)
        generated.sort(key=lambda media: sources.index(media.source))

        # the chance level of decoded captions, masks and concepts needs no media
        if "brain" in sources and "shuffled" not in sources:
            for decoded_set in set_up.brain_sets:
                if len(decoded_set.image_ids) < 2:
                    continue
                floor_set = decoded_set.shuffle_signals().take_first(recipe.items)
                floor = self.make_generated_set(floor_set, models, run.folder)
                if floor.task_scores.values:
                    no_files = dict.fromkeys(floor.files, ())
                    generated.append(replace(floor, files=no_files))

        return measure_run(
            run.folder,
            recipe,
            pool_folds(generated),
            self.make_stimuli(),
            recipe.split,
            run.launch,
            missing,
            self.collect_facts(),
        )

    def collect_facts(self) -> ReconstructionFacts:
        """Collect the facts that are stored with the metrics.

        They are the models, settings, papers to cite, and warnings about test pictures
        that were seen in training.
        """
        recipe = self.recipe
        align = self.align
        # Keys that decide which media are generated from a decoded signal.
        generation_keys = PRIOR_KEYS | {
            "generator",
            "resolution_px",
            "steps",
            "guidance",
            "strength",
            "repeats",
            "best_of",
        }
        settings = recipe.model_dump(mode="json", include=generation_keys)
        prior = parts.load("priors", priors.describe(recipe.prior.source).kind)
        generator_papers = parts.list_papers(recipe.generator)
        set_up: dict[str, Any] = dict(self.tests.set_up)
        set_up |= flatten(settings, "reconstruct")
        set_up |= cite(prior=prior.Config.cites, generator=generator_papers)
        set_up |= call(generator=recipe.generator.called)
        seen_in_training, warnings = self.tests.summarise_seen()
        return ReconstructionFacts(
            dataset=align.dataset.name,
            modality=align.modality,
            stimulus=align.dataset.stimulus,
            prior=recipe.prior.source,
            mode=align.mode,
            published=recipe.published.as_dict() if recipe.published else {},
            set_up=set_up,
            seen_in_training=seen_in_training,
            warnings=warnings,
        )

    def check(self) -> None:
        """Check the parts of the generation, and that the media can be scored."""
        Job.check(self)
        ScoredRun.check(self)
        # further heads, such as captions, have scores of their own
        if len(self.align.open_first().layout.heads) == 1:
            n_images = len(self.images)
            n_items = min(n_images, self.recipe.items or n_images)
            self.require_metrics(self.images.medium, n_items)


@dataclass(frozen=True)
class FolderRun(ScoredRun):
    """Run that scores a folder of media that other programs have made.

    Attributes:
        recipe: Settings.
        generated_set: Media to score.
        stimuli: True pictures or clips.
        medium: Medium of both folders.
        digests: Digest of each folder, by the path that the user gave.
        facts: Names that match nothing, for the result.
    """

    recipe: Recipe
    generated_set: GeneratedSet
    stimuli: Stimuli
    medium: Medium
    digests: Mapping[str, str]
    facts: ReconstructionFacts

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Match the media with the true ones. Raises the errors of `match_folders`."""
        matched = match_folders(str(recipe.score), recipe.truth, recipe.medium)
        return cls(recipe, *matched)

    @property
    def short_name(self) -> str:
        """First part of the name of the run."""
        return f"score-{self.generated_set.name}"

    def inputs(self) -> list[Input]:
        """List the folders, and the weights of the metrics."""
        inputs = []
        for folder, digest in self.digests.items():
            item = Input(f"folder {folder}", reference=folder, digest=digest)
            inputs.append(item)
        metrics = choose_metrics(self.medium, self.recipe.metrics)
        return inputs + list_metric_inputs(metrics, self.recipe.metric_encoders)

    @cached_property
    def without_originals(self) -> tuple[GeneratedSet, ReconstructionFacts]:
        """Media without copies of the true ones, and facts that name the copies."""
        return leave_out_originals(
            self.generated_set, self.stimuli, self.facts, self.recipe.truth
        )

    def check(self) -> None:
        """Check that metrics can be computed, and that the media are no copies."""
        super().check()
        self.require_metrics(self.medium, len(self.generated_set.files))
        generated_set, _ = self.without_originals
        image_id = next(iter(generated_set.files))
        first_file = generated_set.files[image_id][0]
        require_stimulus_frames(
            self.stimuli.open(image_id), generated_set.open(first_file)
        )

    def summarise(self, run: OpenRun) -> Summary:
        """Score the media, and for clips also shuffled clips and stills."""
        generated_set, facts = self.without_originals
        generated = [generated_set]
        if self.medium == "clip":
            if len(generated_set.files) > 1:
                generated.append(shuffle_items(generated_set))
            make = partial(make_stills, [generated_set], run.folder)
            generated += run.launch.run_on_main(make)
        return measure_run(
            run.folder,
            self.recipe,
            generated,
            self.stimuli,
            "scored",
            run.launch,
            missing={},
            facts=facts,
        )


def resolve_job(recipe: Recipe, like: RunJob | None = None) -> RunJob:
    """Resolve a recipe to a scored folder, or to a run that generates media.

    Args:
        recipe: Settings of the run.
        like: Run whose prior and brain models are shared if the recipe names the same,
            or None.
    """
    recipe.require_single_run()
    if recipe.score is not None:
        return FolderRun.resolve(recipe)
    if isinstance(like, ReconstructionRun):
        run_keys = recipe.model_dump(include=RUN_KEYS)
        # the job has the reference of the run that its recipe names
        if run_keys == like.recipe.model_dump(include=RUN_KEYS):
            return ReconstructionRun.resolve(recipe, like.prior, like.align)
    prior = priors.load(
        recipe.prior.source, scale=recipe.prior.scale, adapter=recipe.adapter
    )
    return ReconstructionRun.resolve(recipe, prior, find_align_run(recipe, prior))


def list_known_inputs(recipe: Recipe) -> list[Input]:
    """List the inputs that are known before the run that decodes is found.

    They are the priors, and the weights of metrics and generators. Empty if a folder
    is scored.
    """
    if recipe.score is not None:
        return []
    inputs = [priors.find_input(recipe.prior.source)]

    # only the run says if the stimuli are pictures or clips
    metrics = recipe.metrics
    if not metrics:
        metrics = choose_metrics("picture", None) + choose_metrics("clip", None)
    inputs += list_metric_inputs(metrics, recipe.metric_encoders)
    return inputs + recipe.generator.inputs()
