"""A reconstruction, resolved: which run, prior and generator, which cells, and what it is compared with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from brainhive_cli.core import runs
from brainhive_cli.core.caveats import PRIOR_OF_OTHERS, extend_protocol
from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.memory_estimate import in_words, size_of
from brainhive_cli.core.needs import Need
from brainhive_cli.core.pace import Work
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.set_up import describe_signals, flatten
from brainhive_cli.core.sweep import of_variant, variants
from brainhive_cli.data.datasets import StimulusSet, files_of, images_for_plan
from brainhive_cli.evaluation.reconstruction.annotations import of_decoded, of_stimulus
from brainhive_cli.evaluation.reconstruction.baselines import BASELINES, DEFAULT, Baselines
from brainhive_cli.evaluation.reconstruction.conditions import CELL_INDEPENDENT, TRAIN, DecodedSet, Source
from brainhive_cli.evaluation.reconstruction.evaluation import Stimuli
from brainhive_cli.evaluation.reconstruction.folders import MatchedFolders, digest_of, pictures_in
from brainhive_cli.evaluation.reconstruction.generated import GeneratedSet
from brainhive_cli.evaluation.reconstruction.generation import DTYPES, GenerationJob, Sampler
from brainhive_cli.evaluation.reconstruction.metric_parts import is_here, names_for, two_way_name
from brainhive_cli.evaluation.reconstruction.metric_parts import needs_of as needs_of_metrics
from brainhive_cli.evaluation.reconstruction.recipe import Output, Recipe
from brainhive_cli.evaluation.reconstruction.start_pictures import FromFolder, FromTokens, StartPictures
from brainhive_cli.evaluation.reconstruction.stimulus_heads import Reranker, StimulusHeads
from brainhive_cli.evaluation.reconstruction.task_scores import TaskScores
from brainhive_cli.measurement.metrics import Medium
from brainhive_cli.measurement.units import Alike
from brainhive_cli.models import priors
from brainhive_cli.models.generators import Sampling
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.learned import JOINED, Learned
from brainhive_cli.training.alignment.matching_run import RunNeeds, check_tokens
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
    """What reconstruct is going to do; each member is resolved once, when it is first needed.

    Attributes:
        recipe: What the user wrote.
        is_plan: Whether the run may be absent: what it will be is then read in the recipe that trains it.
    """

    recipe: Recipe
    is_plan: bool = False

    @cached_property
    def variants(self) -> "dict[str, Job]":
        """The job of every variant of a sweep, by label, on one run unless they name others; else none.

        `align_run: :VARIANT` is a variant of that run.
        """
        if not self.recipe.is_swept:
            return {}
        (first, recipe), *others = variants(self.recipe).items()
        found = {first: Job(recipe, self.is_plan)}
        is_here = found[first].align.absent is None
        for label, each in others:
            run, used = each.align_run, found[first].pinned.align_run if is_here else recipe.align_run
            if run in (None, recipe.align_run):
                run = used
            elif run.startswith(":"):
                run = f"{of_variant(used)[0] or ''}{run}"
            found[label] = Job(each.model_copy(update={"align_run": run}), self.is_plan)
        return found

    @cached_property
    def folders(self) -> MatchedFolders:
        """The folders of reconstructions and true pictures that are scored."""
        return MatchedFolders.match(str(self.recipe.score), self.recipe.truth, self.recipe.medium)

    @cached_property
    def prior(self) -> Any:
        """The prior, on the CPU."""
        section = self.recipe.prior
        return priors.load(section.source, scale=section.scale, adapter=self.recipe.adapter)

    @cached_property
    def align(self) -> AlignRun:
        """The run or model that decodes: the one named, or the newest run that fits recipe and prior."""
        recipe, source = self.recipe, self.recipe.prior.source
        fused = None if self.prior.fuser is None else self.prior
        needs = RunNeeds(recipe.paths, recipe.dataset, recipe.trained_by, prior=fused, source=source)
        given = recipe.paths, recipe.dataset, recipe.subjects, needs, self.is_plan
        align = find(recipe.align_run, *given)
        refuse_sweep(align)
        if align.is_model and fused is not None:
            (encoders, _), cell = align.training_settings[""], align.cells[0]
            model = align.model(cell, torch.device("cpu"))
            check_tokens(model, encoders, align.folder.path, fused, source, recipe.paths, recipe.dataset)

        # what the prior was trained to generate is no test of it either
        folder = priors.describe(source).folder
        learned = Learned() if folder is None else Learned.read(folder)
        return replace(align, sources={f"the prior {source}": learned}) if len(learned.pictures) else align

    def needs(self) -> Iterator[Need]:
        """List all that is read and not made."""
        recipe, splits = self.recipe, {"mean_embedding": TRAIN, "images": self.recipe.split}
        try:
            yield from self.align.needs([splits[each] for each in splits if each in self.sources])
            yield from files_of(self.align.dataset, recipe.split, "pixels")
            yield from needs_of_metrics(names_for(self.medium, recipe.metrics), recipe.metric_encoders)
        finally:  # without a run, too
            yield from getattr(recipe.generator, "needs", list)()

    @cached_property
    def cells(self) -> list[tuple[Cell, int]]:
        """The cells, each with a subject that it is tested on."""
        align, known = self.align, sorted({cell.seed for cell in self.align.cells})
        seeds = self.recipe.seeds or [align.cells[0].seed]
        if absent := [seed for seed in seeds if seed not in known]:
            raise MissingData(
                f"run {align.folder.path} has no cell of seeds {absent}", f"it has seeds {known}"
            )
        return [(cell, subject) for cell in align.cells if cell.seed in seeds for subject in cell.tested_on]

    @cached_property
    def start(self) -> StartPictures | None:
        """The pictures that sampling starts from; None for noise alone, or what the prior gives."""
        initial, recipe = self.recipe.initial, self.recipe
        if initial.folder:
            return FromFolder(initial.folder, pictures_in(initial.folder), recipe.resolution_px)
        if initial.align_run:
            align = find(initial.align_run, recipe.paths)
            refuse_sweep(align)
            return FromTokens(align, recipe.split)
        return None

    @cached_property
    def baselines(self) -> Baselines:
        """What puts training pictures in the place of reconstructions."""
        recipe = self.recipe
        return Baselines(self.align, recipe.split, recipe.resolution_px, recipe.protocol)

    @cached_property
    def against(self) -> list[RunFolder]:
        """The runs to compare with."""
        root = self.recipe.paths.under_home("runs")
        found = [runs.find(root, "reconstruct", name) for name in self.recipe.against or []]
        for run in found:
            if swept := run.measurements().notes.get("variants"):
                names = [each["run"] for each in swept.values()]
                raise RecipeError(
                    f"{run.path.name} is a sweep: name the run of a variant", " or ".join(names)
                )
        return found

    @cached_property
    def stimuli(self) -> Stimuli:
        """What was seen."""
        images = self.align.dataset.images(self.recipe.split)
        rows = {image_id: row for row, image_id in enumerate(images.image_ids)}
        return Stimuli(
            lambda i: images.open(rows[i]),
            lambda i: images.concepts[rows[i]],
            lambda i: of_stimulus(images, rows[i]),
            Alike(
                self.align.dataset.alike_by,
                dict(zip(images.image_ids, images.concepts, strict=True)),
                images.medium,
            ),
        )

    @cached_property
    def trained(self) -> str:
        """What a reader must know of the brain models, also of those that decoded the start pictures."""
        of_prior = priors.describe(self.recipe.prior.source).caveats
        caveats = [
            *self.align.caveats(self.recipe.split),
            *of_prior,
            *([PRIOR_OF_OTHERS] if self._prior_is_of_other_pictures else []),
            *(self.start.caveats if self.start else []),
            *getattr(self.recipe.generator, "caveats", ()),
        ]
        words = [
            f"{self.align.mode} {self.align.dataset.name}",
            *describe_signals(self.align.set_up(self.recipe.split)),
        ]
        return extend_protocol(", ".join(words), caveats)

    @property
    def set_up(self) -> dict[str, Any]:
        """The set-up of the run that decodes, and of what generates."""
        fields = self.pinned.model_dump(mode="json", include=GENERATES)
        return {**self.align.set_up(self.recipe.split), **flatten(fields, "reconstruct")}

    @property
    def _prior_is_of_other_pictures(self) -> bool:
        """Whether the prior is known to have learned from another data set than is drawn."""
        source, drawn = self.recipe.prior.source, self.align.dataset.pictured_as
        if source.startswith("demo:"):  # whose noise and number of concepts are part of a data set's name
            return f"{drawn}-".partition("-")[0] != "demo"
        folder = priors.describe(source).folder
        learned_on = Learned.read(folder).dataset.split(JOINED) if folder else [""]
        return learned_on != [""] and drawn not in learned_on

    @cached_property
    def pinned(self) -> Recipe:
        """The recipe whose fingerprint names the run, and the content of what else it refers to."""
        recipe = self.recipe
        if recipe.score is not None:
            return recipe.holding(self.folders.digests)
        if jobs := [each.pinned for each in self.variants.values()]:
            held = {name: digest for each in jobs for name, digest in each.digests.items()}
            return recipe.model_copy(update={"align_run": jobs[0].align_run}).holding(held)
        align, source = self.align, recipe.prior.source
        held = {source: priors.describe(source).digest, **align.digests}
        if start := recipe.initial.folder:
            held[start] = digest_of(pictures_in(start))
        name = runs.reference(align.folder, recipe.paths.under_home("runs") / "train-align", align.variant)
        held = {reference: digest for reference, digest in held.items() if digest}
        return recipe.model_copy(update={"align_run": name, "sources": self.sources}).holding(held)

    @cached_property
    def medium(self) -> Medium:
        """What the stimuli are."""
        return self._images.medium

    @property
    def _images(self) -> StimulusSet:
        """The stimuli; for a plan without files as many as are published."""
        dataset, split = self.align.dataset, self.recipe.split
        return images_for_plan(dataset, split) if self.is_plan else dataset.images(split)

    @property
    def sources(self) -> list[Source]:
        """What media are made from: what the recipe says, or the usual of the medium."""
        return self.recipe.sources or [*DEFAULT[self.medium]]

    @property
    def metrics_line(self) -> str:
        """What is measured, and which weights are still to be downloaded for it."""
        recipe, encoders = self.recipe, self.recipe.metric_encoders
        medium = self.medium if recipe.score is None else self.folders.medium
        names = [*names_for(medium, recipe.metrics), *map(two_way_name, encoders)]
        absent = [name for name in names if not is_here(name, encoders)]
        return ", ".join(names) + (f"; weights not here yet: {', '.join(absent)}" if absent else "")

    @property
    def work(self) -> Work:
        """How many pictures are generated, and by what."""
        generator, recipe = self.recipe.generator, self.recipe
        kind = f"{generator.kind} at {recipe.resolution_px} px in {recipe.steps} steps"
        return Work(kind, self._counts[0] * recipe.best_of, "pictures")

    @property
    def count_line(self) -> str:
        """How many pictures are generated."""
        self._refuse_best_clip()
        recipe = self.recipe
        count, items, sets = self._counts
        more = f", of {count * recipe.best_of} generated" if recipe.best_of > 1 else ""
        return f"{count}: {items} items × {recipe.repeats} repeats × {sets} cells and sources{more}"

    @property
    def _counts(self) -> tuple[int, int, int]:
        """How many pictures are kept, of how many items, from how many sets of conditions."""
        recipe, cells = self.recipe, len(self.cells)
        items = len(self._images)
        items = min(items, recipe.items or items)
        generated = {*self.sources} - {*BASELINES}
        sets = sum(1 if source in CELL_INDEPENDENT else cells for source in generated)
        if "mean_embedding" in generated and not self.is_plan:
            self.align.stores(TRAIN)  # which are averaged
        return sets * items * recipe.repeats, items, sets

    @property
    def baselines_line(self) -> str:
        """Which baselines of training pictures are made, and which are missing."""
        chosen = [each for each in BASELINES if each in self.sources]
        here = {each: self.baselines.is_here(each) for each in chosen}
        return ", ".join(each if here[each] else f"{each} (missing)" for each in chosen) or "none"

    @property
    def memory_line(self) -> str:
        """How much GPU memory generation takes, estimated: weights and the tensors that live at once."""
        recipe = self.recipe
        generator = recipe.generator.skeleton(DTYPES[recipe.precision])
        needed = generator.memory_estimate(
            recipe.batch_size, recipe.resolution_px, recipe.guidance, recipe.tiling, recipe.offload
        )
        unsized = "".join(f", and what {each} takes" for each in getattr(generator, "unsized", ()))
        return f"{in_words(needed + size_of(self.prior))} for {recipe.batch_size} at once{unsized}"

    def generation(self, prior: Any, heads: StimulusHeads, launch: Launch) -> GenerationJob:
        """Prepare what generates the media, by a prior on the launch's device."""
        recipe = self.recipe
        output, sampling = recipe.section(Output), recipe.section(Sampling)
        return GenerationJob(
            Sampler(recipe.generator.build, prior, output, sampling, launch.device, self.align.heads),
            recipe.repeats,
            recipe.seed,
            self.start,
            recipe.best_of,
            Reranker(heads, launch) if recipe.best_of > 1 else None,
            self._rate_hz,
        )

    def generated(self, decoded_set: DecodedSet, folder: RunFolder) -> GeneratedSet:
        """Name the files of a set in the run's folder, and describe how they were made."""
        files = {
            image_id: [folder.path / decoded_set.file(image_id, n) for n in range(self.recipe.repeats)]
            for image_id in decoded_set.image_ids
        }
        start = "" if decoded_set.source == "zeroed" else self._start  # that is from noise alone
        seeds = (decoded_set.cell.seed,) if decoded_set.cell else ()
        described = f"{self.recipe.described(start)}, {self.trained}"
        source, subject = decoded_set.source, decoded_set.subject
        generated = GeneratedSet(source, decoded_set.name, seeds, files, subject, described)
        if (decoded := decoded_set.decoded) is None:
            return generated
        images, ids = self.align.dataset.images(self.recipe.split), decoded_set.image_ids
        in_words = of_decoded(decoded, ids, images.label_names) if self.medium == "clip" else {}
        return replace(generated, annotations=in_words, tasks=TaskScores.of(decoded, images, ids))

    def task_floors(self, brain: Sequence[DecodedSet], folder: RunFolder) -> list[GeneratedSet]:
        """Score the masks, concepts and captions of other items' signals, where these generate no media."""
        if "brain" not in self.sources or "shuffled" in self.sources:
            return []
        shuffled = [each.shuffled().first(self.recipe.items) for each in brain if len(each.image_ids) > 1]
        floors = [self.generated(each, folder) for each in shuffled]
        return [replace(each, files={i: [] for i in each.files}) for each in floors if each.tasks.values]

    def check(self, decoded_sets: Sequence[DecodedSet], prior: Any, launch: Launch) -> None:
        """Refuse what cannot be generated, before the generator is loaded.

        Raises:
            MissingData: if an item has no picture to start from.
            RecipeError: if `strength` has no effect, or the best of several clips would be chosen.
        """
        self._refuse_best_clip()
        if self.start is not None:
            self.start.prepare(decoded_sets, launch)
        decoded = next((each.decoded for each in decoded_sets if each.decoded is not None), None)
        if self._start and self.start is None and decoded is not None:
            with torch.inference_mode():
                starts = prior.condition(decoded[:1], [0]).start is not None
            if not starts:
                raise RecipeError(
                    "strength has no effect without pictures to start from", "initial.folder=FOLDER"
                )

    @property
    def _rate_hz(self) -> float | None:
        """Frames a second of the stimuli, which generated clips take over; None of pictures."""
        if self.medium == "picture":
            return None
        rate: float | None = self.align.dataset.images(self.recipe.split).open(0).rate_hz
        return rate

    @property
    def _start(self) -> str:
        """What sampling starts from, for people; "" where nothing is known but the default strength."""
        if self.recipe.initial.is_given:
            return "pictures"
        is_default = self.recipe.strength == Sampling.model_fields["strength"].default
        return "" if is_default else "the decoded start"

    def _refuse_best_clip(self) -> None:
        """Refuse to choose among clips: encoders make the heads of pictures."""
        if self.recipe.best_of > 1 and self.medium == "clip":
            raise RecipeError("best_of compares pictures, and the stimuli are clips", "best_of=1")
