"""A reconstruction, resolved: which run, prior and generator, which cells and items."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from brainhive_cli.core import runs
from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import PRIOR_OF_OTHERS, extend_protocol
from brainhive_cli.core.memory_estimate import in_words, size_of
from brainhive_cli.core.results import Need, Work
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.set_up import describe_signals, flatten
from brainhive_cli.core.sweep import of_variant, variants
from brainhive_cli.data.datasets import StimulusSet, files_of, images_for_plan
from brainhive_cli.evaluation.reconstruction.annotations import TaskScores, of_decoded, of_stimulus
from brainhive_cli.evaluation.reconstruction.baselines import BASELINES, DEFAULT, Baselines
from brainhive_cli.evaluation.reconstruction.conditions import (
    CELL_INDEPENDENT,
    TRAIN,
    DecodedSet,
    Source,
    StimulusHeads,
)
from brainhive_cli.evaluation.reconstruction.folders import digest_of, pictures_in
from brainhive_cli.evaluation.reconstruction.generation import (
    DTYPES,
    FromFolder,
    FromTokens,
    GenerationJob,
    Reranker,
    Sampler,
    StartPictures,
)
from brainhive_cli.evaluation.reconstruction.metric_parts import is_here, names_for, two_way_name
from brainhive_cli.evaluation.reconstruction.metric_parts import needs_of as needs_of_metrics
from brainhive_cli.evaluation.reconstruction.recipe import Output, Recipe
from brainhive_cli.evaluation.reconstruction.scoring import GeneratedSet, Stimuli
from brainhive_cli.measurement.metrics import Medium
from brainhive_cli.measurement.units import Alike
from brainhive_cli.models import priors
from brainhive_cli.models.generators import Sampling
from brainhive_cli.training.alignment.learned import JOINED, Learned
from brainhive_cli.training.alignment.matching_run import RunNeeds, check_tokens
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.trained import AlignRun, find, refuse_sweep

GENERATES = {
    "prior",
    "generator",
    "resolution_px",
    "steps",
    "guidance",
    "strength",
    "repeats",
    "best_of",
    "adapter",
}
"""Keys of the recipe that decide what is generated of a decoded signal."""


@dataclass(frozen=True)
class Job:
    """What reconstruct generates, and from what.

    Attributes:
        recipe: Its settings.
        prior: On the CPU.
        align: The run or model that decodes; in a plan it may be absent, and is what its recipe would train.
        align_reference: The name by which the run is found again.
        cells: The cells, each with a subject that it is tested on.
        images: The stimuli; where their files are absent, as many as are published stand for them.
        sources: What media are made from.
        baselines: What puts training pictures in the place of reconstructions.
    """

    recipe: Recipe
    prior: Any
    align: AlignRun
    align_reference: str
    cells: list[tuple[Cell, int]]
    images: StimulusSet
    sources: list[Source]
    baselines: Baselines

    @classmethod
    def resolve(cls, recipe: Recipe, prior: Any, is_plan: bool = False) -> Self:
        """Find the run that decodes: the one named, or the newest that fits recipe and prior; then its cells.

        Args:
            recipe: What the user wrote; no sweep, and no folder to score.
            prior: What `load_prior` returns.
            is_plan: Whether the run may be absent: what it will be is then read in the recipe that trains it.
        """
        source = recipe.prior.source
        fused = None if prior.fuser is None else prior
        needs = RunNeeds(recipe.paths, recipe.dataset, recipe.trained_by, prior=fused, source=source)
        align = find(recipe.align_run, recipe.paths, recipe.dataset, recipe.subjects, needs, is_plan)
        refuse_sweep(align)
        if align.is_model and fused is not None:
            (encoders, _), cell = align.training_settings[""], align.cells[0]
            model = align.model(cell, torch.device("cpu"))
            check_tokens(model, encoders, align.folder.path, fused, source, recipe.paths, recipe.dataset)

        # what the prior was trained to generate is no test of it either
        folder = priors.describe(source).folder
        learned = Learned() if folder is None else Learned.read(folder)
        if len(learned.pictures):
            align = replace(align, sources={f"the prior {source}": learned})
        reference = runs.reference(
            align.folder, recipe.paths.under_home("runs") / "train-align", align.variant
        )

        known_seeds = sorted({cell.seed for cell in align.cells})
        seeds = recipe.seeds or [align.cells[0].seed]
        if absent := [seed for seed in seeds if seed not in known_seeds]:
            raise MissingData(
                f"run {align.folder.path} has no cell of seeds {absent}", f"it has seeds {known_seeds}"
            )
        cells = [(cell, subject) for cell in align.cells if cell.seed in seeds for subject in cell.tested_on]

        images = images_for_plan(align.dataset, recipe.split)
        if recipe.best_of > 1 and images.medium == "clip":  # encoders make the heads of pictures
            raise RecipeError("best_of compares pictures, and the stimuli are clips", "best_of=1")
        baselines = Baselines(align, recipe.split, recipe.resolution_px, recipe.protocol)
        sources = recipe.sources or [*DEFAULT[images.medium]]
        return cls(recipe, prior, align, reference, cells, images, sources, baselines)

    @property
    def medium(self) -> Medium:
        """What the stimuli are."""
        return self.images.medium

    @property
    def item_count(self) -> int:
        """Items that media are generated for, from each set of conditions."""
        return min(len(self.images), self.recipe.items or len(self.images))

    @property
    def set_count(self) -> int:
        """Sets of conditions: cells with a subject each, and sources that are of no cell."""
        generated = {*self.sources} - {*BASELINES}
        return sum(1 if source in CELL_INDEPENDENT else len(self.cells) for source in generated)

    @property
    def work(self) -> Work:
        """How many media are generated, and by what."""
        recipe = self.recipe
        kind = f"{recipe.generator.kind} at {recipe.resolution_px} px in {recipe.steps} steps"
        count = self.set_count * self.item_count * recipe.repeats * recipe.best_of
        return Work(kind, count, "pictures")

    def pinned(self) -> Recipe:
        """Name the run that decodes, the sources and the content of all else, for the run's fingerprint."""
        recipe, source = self.recipe, self.recipe.prior.source
        digests = {source: priors.describe(source).digest, **self.align.digests}
        if start := recipe.initial.folder:
            digests[start] = digest_of(pictures_in(start))
        digests = {reference: digest for reference, digest in digests.items() if digest}
        chosen = {"align_run": self.align_reference, "sources": self.sources}
        return recipe.model_copy(update=chosen).holding(digests)

    def needs(self) -> list[Need]:
        """List all that is read and not made, but for the generator."""
        splits = {"mean_embedding": TRAIN, "images": self.recipe.split}
        names = names_for(self.medium, self.recipe.metrics)
        return [
            *self.align.needs([split for source, split in splits.items() if source in self.sources]),
            *files_of(self.align.dataset, self.recipe.split, "pixels"),
            *needs_of_metrics(names, self.recipe.metric_encoders),
        ]

    def describe_count(self) -> str:
        """Count the media that are generated, for a plan."""
        recipe, count = self.recipe, self.set_count * self.item_count * self.recipe.repeats
        more = f", of {count * recipe.best_of} generated" if recipe.best_of > 1 else ""
        return (
            f"{count}: {self.item_count} items × {recipe.repeats} repeats × {self.set_count} cells and "
            f"sources{more}"
        )

    def describe_baselines(self) -> str:
        """Name the baselines that are made, and those whose training pictures are missing, for a plan."""
        names = [
            source if self.baselines.is_here(source) else f"{source} (missing)"
            for source in BASELINES
            if source in self.sources
        ]
        return ", ".join(names) or "none"

    def set_up(self) -> dict[str, Any]:
        """Describe the set-up of the run that decodes, and of what generates."""
        fields = self.recipe.model_dump(mode="json", include=GENERATES)
        return {**self.align.set_up(self.recipe.split), **flatten(fields, "reconstruct")}

    def describe_models(self, start: StartPictures | None) -> str:
        """Say what a reader must know of the brain models, also of those that decoded the start pictures."""
        caveats = [
            *self.align.caveats(self.recipe.split),
            *priors.describe(self.recipe.prior.source).caveats,
            *([PRIOR_OF_OTHERS] if self._prior_is_of_other_pictures() else []),
            *(start.caveats if start else []),
            *getattr(self.recipe.generator, "caveats", ()),
        ]
        signals = describe_signals(self.align.set_up(self.recipe.split))
        return extend_protocol(", ".join([f"{self.align.mode} {self.align.dataset.name}", *signals]), caveats)

    def _prior_is_of_other_pictures(self) -> bool:
        """Whether the prior is known to have learned from another data set than is drawn."""
        source, drawn = self.recipe.prior.source, self.align.dataset.pictured_as
        if source.startswith("demo:"):  # whose noise and number of concepts are part of a data set's name
            return f"{drawn}-".partition("-")[0] != "demo"
        folder = priors.describe(source).folder
        learned_on = Learned.read(folder).dataset.split(JOINED) if folder else [""]
        return learned_on != [""] and drawn not in learned_on

    def generation(self, start: StartPictures | None, heads: StimulusHeads, launch: Launch) -> GenerationJob:
        """Prepare what generates the media; the prior is on the launch's device."""
        recipe = self.recipe
        output, sampling = recipe.section(Output), recipe.section(Sampling)
        is_clip = self.medium == "clip"
        return GenerationJob(
            Sampler(recipe.generator.build, self.prior, output, sampling, launch.device, self.align.heads),
            recipe.repeats,
            recipe.seed,
            start,
            recipe.best_of,
            Reranker(heads, launch) if recipe.best_of > 1 else None,
            self.align.dataset.images(recipe.split).open(0).rate_hz if is_clip else None,
        )

    def refuse_idle_strength(self, decoded_sets: Sequence[DecodedSet]) -> None:
        """Refuse `strength` where neither pictures nor the prior give anything to start from."""
        decoded = next((some.decoded for some in decoded_sets if some.decoded is not None), None)
        if not self._start_in_words() or self.recipe.initial.is_given or decoded is None:
            return
        with torch.inference_mode():
            starts = self.prior.condition(decoded[:1], [0]).start is not None
        if not starts:
            raise RecipeError(
                "strength has no effect without pictures to start from", "initial.folder=FOLDER"
            )

    def _start_in_words(self) -> str:
        """Say what sampling starts from; "" where nothing is known but the default strength."""
        if self.recipe.initial.is_given:
            return "pictures"
        is_default = self.recipe.strength == Sampling.model_fields["strength"].default
        return "" if is_default else "the decoded start"

    def generated(self, decoded_set: DecodedSet, models: str, folder: RunFolder) -> GeneratedSet:
        """Name the files of a set in the run's folder, and describe how they and the `models` were made."""
        files = {
            image_id: [folder.path / decoded_set.file(image_id, n) for n in range(self.recipe.repeats)]
            for image_id in decoded_set.image_ids
        }
        start = "" if decoded_set.source == "zeroed" else self._start_in_words()  # that is from noise alone
        seeds = (decoded_set.cell.seed,) if decoded_set.cell else ()
        described = f"{self.recipe.described(start)}, {models}"
        source, subject = decoded_set.source, decoded_set.subject
        generated = GeneratedSet(source, decoded_set.name, seeds, files, subject, described)
        if (decoded := decoded_set.decoded) is None:
            return generated
        images, ids = self.align.dataset.images(self.recipe.split), decoded_set.image_ids
        annotations = of_decoded(decoded, ids, images.label_names) if self.medium == "clip" else {}
        return replace(generated, annotations=annotations, tasks=TaskScores.of(decoded, images, ids))

    def task_floors(self, brain: Sequence[DecodedSet], models: str, folder: RunFolder) -> list[GeneratedSet]:
        """Score the masks, concepts and captions of other items' signals, where these generate no media."""
        if "brain" not in self.sources or "shuffled" in self.sources:
            return []
        floors = []
        for decoded_set in brain:
            if len(decoded_set.image_ids) > 1:
                shuffled = decoded_set.shuffled().first(self.recipe.items)
                floors.append(self.generated(shuffled, models, folder))
        return [
            replace(floor, files={image_id: [] for image_id in floor.files})
            for floor in floors
            if floor.tasks.values
        ]

    def stimuli(self) -> Stimuli:
        """Open what was seen, by image id."""
        images = self.align.dataset.images(self.recipe.split)
        rows = {image_id: row for row, image_id in enumerate(images.image_ids)}
        concept_of = dict(zip(images.image_ids, images.concepts, strict=True))
        return Stimuli(
            lambda image_id: images.open(rows[image_id]),
            concept_of.__getitem__,
            lambda image_id: of_stimulus(images, rows[image_id]),
            Alike(self.align.dataset.alike_by, concept_of, images.medium),
        )


def load_prior(recipe: Recipe) -> Any:
    """Load the prior, on the CPU."""
    return priors.load(recipe.prior.source, scale=recipe.prior.scale, adapter=recipe.adapter)


def resolve_variants(recipe: Recipe, is_plan: bool = False) -> dict[str, Job]:
    """Resolve every variant of a sweep, by label, on one run unless they name others.

    `align_run: :VARIANT` is a variant of that run.
    """
    (first_label, first), *following = variants(recipe).items()
    first_job = Job.resolve(first, load_prior(first), is_plan)
    run = first_job.align_reference if first_job.align.absent is None else first.align_run
    jobs = {first_label: first_job}
    for label, variant in following:
        named = variant.align_run
        if named in (None, first.align_run):
            named = run
        elif named.startswith(":"):
            named = f"{of_variant(run)[0] or ''}{named}"
        variant = variant.model_copy(update={"align_run": named})
        jobs[label] = Job.resolve(variant, load_prior(variant), is_plan)
    return jobs


def find_start_pictures(recipe: Recipe) -> StartPictures | None:
    """Find the pictures that sampling starts from; None for noise alone, or what the prior gives."""
    initial = recipe.initial
    if initial.folder:
        return FromFolder(initial.folder, pictures_in(initial.folder), recipe.resolution_px)
    if initial.align_run:
        align = find(initial.align_run, recipe.paths)
        refuse_sweep(align)
        return FromTokens(align, recipe.split)
    return None


def find_runs_to_compare(recipe: Recipe) -> list[RunFolder]:
    """Find the runs to compare with.

    Raises:
        RecipeError: if one is a sweep; the hint names its variants.
    """
    root = recipe.paths.under_home("runs")
    folders = [runs.find(root, "reconstruct", name) for name in recipe.against or []]
    for folder in folders:
        if swept := folder.measurements().notes.get("variants"):
            names = [variant["run"] for variant in swept.values()]
            raise RecipeError(f"{folder.path.name} is a sweep: name the run of a variant", " or ".join(names))
    return folders


def describe_memory(recipe: Recipe, prior: Any) -> str:
    """Estimate how much GPU memory generation takes: weights and the tensors that live at once."""
    generator = recipe.generator.skeleton(DTYPES[recipe.precision])
    needed = generator.memory_estimate(
        recipe.batch_size, recipe.resolution_px, recipe.guidance, recipe.tiling, recipe.offload
    )
    unsized = "".join(f", and what {part} takes" for part in getattr(generator, "unsized", ()))
    return f"{in_words(needed + size_of(prior))} for {recipe.batch_size} at once{unsized}"


def describe_metrics(recipe: Recipe, medium: Medium) -> str:
    """Name what is measured, and which weights are still to be downloaded for it."""
    encoders = recipe.metric_encoders
    names = [*names_for(medium, recipe.metrics), *map(two_way_name, encoders)]
    absent = [name for name in names if not is_here(name, encoders)]
    return ", ".join(names) + (f"; weights not here yet: {', '.join(absent)}" if absent else "")
