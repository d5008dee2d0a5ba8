"""Run of design: the predictions of all designs, and the study of a design."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

from brainhive_cli.core.base import RecipeError, Table, console
from brainhive_cli.core.files import Input, remove
from brainhive_cli.core.results import ALL, CellFacts, Measurements, Metric, find_model
from brainhive_cli.core.runs import (
    Launch,
    OpenRun,
    Result,
    RunJob,
    Summary,
    Work,
    artifacts,
)
from brainhive_cli.evaluation.planning.assumptions import (
    PublishedResult,
    list_devices,
)
from brainhive_cli.evaluation.planning.designs import (
    MIN_POWER,
    Design,
    Prediction,
    Question,
)
from brainhive_cli.evaluation.planning.facts import DesignFacts, PlannedDesign
from brainhive_cli.evaluation.planning.order import StudyPlan, choose_split
from brainhive_cli.evaluation.planning.pilot import Pilot, read_pilot
from brainhive_cli.evaluation.planning.recipe import Recipe
from brainhive_cli.evaluation.planning.study_files import assign_codes, write_study
from brainhive_cli.evaluation.planning.tables import (
    draw_powers,
    tabulate_amounts,
    tabulate_designs,
)
from brainhive_cli.evaluation.planning.warnings import list_warnings
from brainhive_cli.measurement import StimulusGrouping, describe_claims
from brainhive_cli.reports.sentences.sentences import state_finding
from brainhive_cli.reports.templates import render

if TYPE_CHECKING:
    from brainhive_cli.evaluation.planning.pictures import PictureFolder

STUDY = "study"
"""Folder of the written study in the run folder."""


@dataclass(frozen=True)
class DesignRun(RunJob):
    """Run of design.

    Attributes:
        recipe: Settings.
        pictures: Folder of the pictures that can be shown, or None.
        pilot: Pilot, or None with other assumptions.
        designs: Candidates, ascending in hours. Their number counts from 1.
    """

    recipe: Recipe
    pictures: "PictureFolder | None"
    pilot: Pilot | None
    designs: list[Design]
    command = "design"
    result_folders = (STUDY,)

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Open the pictures and the pilot of a recipe, and list its candidates.

        Raises:
            MissingData: if there are no such pictures, or no such pilot.
            RecipeError: if there are too many candidates or too few pictures, if no
                candidate fits into its sessions, or if there is no design to write.
        """
        pictures = None
        if recipe.pictures:
            from brainhive_cli.evaluation.planning.pictures import PictureFolder

            # Encoder of the pictures in a folder, whose weights need no download.
            encoder = recipe.encoder or "lite0"
            pictures = PictureFolder.open(recipe.pictures, encoder, recipe.paths)
        pilot = None
        if recipe.pilot:
            with console.progress("reading the pilot"):
                pilot = read_pilot(
                    recipe.pilot,
                    recipe.paths,
                    recipe.encoder,
                    # the folder is split by concept
                    new_concepts=bool(pictures),
                )
        designs = recipe.list_designs(
            n_pictures=len(pictures.concept_of) if pictures else None,
            pilot_interval_s=pilot.design.onset_interval_s if pilot else 0.0,
        )
        job = cls(recipe, pictures, pilot, designs)

        if not job.fitting:
            least_sessions = min(design.least_sessions for design in job.designs)
            raise RecipeError(
                f"no design fits into its sessions: at least {least_sessions} are "
                "needed for each person",
                "leave sessions out, or raise sessions or session_minutes",
            )
        if recipe.write is not None and recipe.write not in job.fitting:
            raise RecipeError(
                f"write={recipe.write} is no design that fits into its sessions",
                f"choose from: {', '.join(map(str, job.fitting))}",
            )
        return job

    @cached_property
    def fitting(self) -> dict[int, Design]:
        """Designs that fit into their sessions, by number."""
        designs = {}
        for number, design in enumerate(self.designs, 1):
            if design.fits:
                designs[number] = design
        return designs

    @property
    def short_name(self) -> str:
        """First part of the run's name."""
        recipe = self.recipe
        source = recipe.device_name or ("pilot" if recipe.pilot else "expected")
        return f"{source}-{recipe.question}"

    @cached_property
    def published(self) -> PublishedResult:
        """Published or expected result, in place of a pilot."""
        if self.recipe.expected:
            fields = self.recipe.expected.model_dump()
            return PublishedResult(**fields, source="expected result in the recipe")
        return list_devices()[self.recipe.device_name]

    @property
    def source(self) -> str:
        """Source of the assumptions."""
        return self.pilot.name if self.pilot else self.published.source

    @property
    def concept_of(self) -> Mapping[str, str]:
        """Concept of each picture in the folder. Empty without a folder."""
        return self.pictures.concept_of if self.pictures else {}

    def inputs(self) -> list[Input]:
        """List the pictures with their encoder, and the assumptions."""
        inputs = list(self.pictures.inputs()) if self.pictures else []
        content = hashlib.sha256()
        for person in self.pilot.people if self.pilot else []:
            for values in vars(person).values():
                content.update(values.tobytes())
        digest = content.hexdigest()[:16] if self.pilot else ""
        reference = self.recipe.pilot or ""
        return [*inputs, Input(self.source, reference=reference, digest=digest)]

    def check(self) -> None:
        """Check that the study of each design can be written.

        Raises:
            RecipeError: if a picture is shown longer than until the next.
            BrainhiveError: if the pictures cannot be split by concept, or if they have
                no trigger codes.
        """
        if self.pictures is None:
            return
        stimulus_ms = self.recipe.order.stimulus_ms
        for design in self.fitting.values():
            if stimulus_ms > 1000 * design.onset_interval_s:
                raise RecipeError(
                    f"order.stimulus_ms={stimulus_ms:g} is longer than the "
                    f"{1000 * design.onset_interval_s:g} ms until the next picture",
                    "lower order.stimulus_ms, or raise onset_interval_s",
                )
            assign_codes(self.plan_study(design))

    def preview(self) -> Sequence[Table]:
        """Tabulate the designs with their hours, for `--check`."""
        return [tabulate_amounts("Designs", self.plan_designs({}))]

    def count_work(self) -> Work:
        """Count the designs to simulate."""
        return Work(self.recipe.question, len(self.fitting), "designs")

    def prepare(self, launch: Launch) -> None:
        """Embed the pictures, and say which assumptions are the default."""
        if self.recipe.device_name and not self.recipe.device:
            console.say(
                f"planning from published results of {self.recipe.device_name}; "
                "--device names another device, --pilot your own recording"
            )
        if self.pictures:
            self.pictures.embed(launch)

    def summarise(self, run: OpenRun) -> Summary:
        """Predict all designs, and write the study of the chosen one."""
        from brainhive_cli.evaluation.planning import power

        recipe = self.recipe
        question = Question(recipe.question, recipe.size or 0.0, recipe.new_people)
        designs = list(self.fitting.values())
        embeddings = self.pictures.read_embeddings() if self.pictures else None
        test_concepts = []
        for design in designs:
            _, test_pictures = self.split_pictures(design)
            concepts = {self.concept_of.get(name, name) for name in test_pictures}
            test_concepts.append(len(concepts))
        with console.progress("simulating studies", len(designs)) as bar:
            predictions = power.predict_designs(
                designs,
                question,
                self.pilot.people if self.pilot else self.published,
                embeddings,
                recipe.seed,
                test_concepts,
                report_progress=lambda count: bar.advance(count - bar.items),
            )
        prediction_of = dict(zip(self.fitting, predictions, strict=True))
        recommended = recommend(prediction_of)

        device = list_devices().get(recipe.device_name)
        modality = device.modality if device else ""
        number = recipe.write or recommended
        design = self.fitting[number]
        split = self.split_pictures(design)
        warnings = list_warnings(
            design,
            question,
            split,
            self.concept_of,
            self.pictures.find_copies(*split) if self.pictures else [],
            self.pilot,
            recipe.window_ms,
        )
        grouping = StimulusGrouping(concept_of=self.concept_of)
        items = grouping.make_items([split[1]] * design.people)
        planned = self.plan_designs(prediction_of)
        facts = DesignFacts(
            warnings=warnings,
            caveats=self.pilot.caveats if self.pilot else [],
            modality=modality,
            question=recipe.question,
            size=recipe.size,
            new_people=recipe.new_people,
            source=self.source,
            source_note=device.note if device else "",
            designs=planned,
            recommended=recommended,
            described=number,
            sentence=write_sentence(planned[number - 1], question, modality),
            claims=describe_claims(items, design.people),
            has_pilot=self.pilot is not None,
            seed=recipe.seed,
        )
        if self.pictures and embeddings is not None:
            folder = run.folder.path / STUDY
            remove(folder)  # of an interrupted run
            embedding_of = dict(zip(self.concept_of, embeddings, strict=True))
            plan = self.plan_study(design)
            write_study(folder, self.pictures.root, plan, embedding_of)
        blocks: list[artifacts.Artifact] = [*draw_powers(facts)]
        blocks += tabulate_designs(facts)
        return Summary(Measurements(facts=facts), blocks)

    def plan_designs(
        self, prediction_of: Mapping[int, Prediction]
    ) -> list[PlannedDesign]:
        """Describe all designs with their cost and prediction.

        Args:
            prediction_of: Predictions by the number of the design.
        """
        planned = []
        price = self.recipe.price_per_hour
        for number, design in enumerate(self.designs, 1):
            fields = asdict(design)
            if number in prediction_of:
                prediction = prediction_of[number]
                fields |= asdict(prediction) | {"answer": prediction.answer}
                del fields["design"]
            planned.append(
                PlannedDesign(
                    number=number,
                    minutes=design.minutes,
                    hours=design.hours,
                    price=design.hours * price if price else None,
                    least_sessions=design.least_sessions,
                    **fields,
                )
            )
        return planned

    def split_pictures(self, design: Design) -> tuple[list[str], list[str]]:
        """Choose the training and test pictures of a design.

        Returns:
            Paths of the training and test pictures. Without a folder, numbered names.

        Raises:
            BrainhiveError: if the folder has too few concepts.
        """
        if self.pictures is None:
            train_pictures = [f"train {n}" for n in range(design.train_pictures)]
            return train_pictures, [f"test {n}" for n in range(design.test_pictures)]
        return choose_split(
            self.concept_of,
            design.train_pictures,
            design.test_pictures,
            self.recipe.seed,
        )

    def plan_study(self, design: Design) -> StudyPlan:
        """Choose the pictures of a design, and add the timing of its study."""
        order = self.recipe.order
        train_pictures, test_pictures = self.split_pictures(design)
        return StudyPlan(
            people=design.people,
            sessions=design.sessions,
            runs=order.runs,
            onset_interval_s=design.onset_interval_s,
            stimulus_s=order.stimulus_ms / 1000,
            train_pictures=train_pictures,
            test_pictures=test_pictures,
            concept_of=self.concept_of,
            train_repetitions=design.train_repetitions,
            test_repetitions=design.test_repetitions,
            catch_share=order.catch_share,
            break_s=order.break_s,
            bits=order.trigger_bits,
            seed=self.recipe.seed,
        )

    def describe(self, run: OpenRun) -> Result:
        """Print the warnings, and return the tables and the folder of the study."""
        result = super().describe(run)
        for warning in result.metrics.facts.warnings:
            console.warn(warning)
        return replace(result, begins_with_finding=True)


def recommend(prediction_of: Mapping[int, Prediction]) -> int:
    """Choose the cheapest design that surely suffices, else that probably does.

    Args:
        prediction_of: Predictions by the number of the design.

    Returns:
        Number of the design, with the largest power among designs of equal cost. If
        none suffices, the design with the largest power.
    """

    def rank(number: int) -> tuple[bool, bool, float, float]:
        prediction = prediction_of[number]
        power = prediction.power.value
        suffices = power >= MIN_POWER
        hours = prediction.design.hours if suffices else 0.0
        return prediction.answer != "yes", not suffices, hours, -power

    return min(prediction_of, key=rank)


def write_sentence(design: PlannedDesign, question: Question, modality: str) -> str:
    """Write the sentence of eval-retrieval or compare for the expected result.

    Args:
        design: Design with its prediction.
        question: Claim that the study shall support.
        modality: EEG, MEG or fMRI, or "".
    """
    n_items = design.people * design.test_pictures
    if question.claim == "difference":
        difference = {
            "first": "Model A",
            "second": "model B",
            "metric": "top1",
            "difference": question.size,
            "low": None,
            "p_adjusted": None,
            "n": n_items,
            "is_significant": True,
            "is_better": True,
        }
        return render("difference.txt", difference=difference, metrics={})
    assert design.top1 is not None
    metric = Metric(
        name="top1",
        value=design.top1.value,
        n=n_items,
        pool=design.test_pictures,
        chance=design.chance,
        low=design.top1.low,
        high=design.top1.high,
        seeds=(),
        protocol="",
        split="test",
        interval="range over studies",
    )
    cells = {}
    for person in range(1, design.people + 1):
        cells[f"person {person}"] = CellFacts(subject=person)
    facts = find_model("eval-retrieval")(
        modality=modality, stimuli=design.test_pictures, cells=cells
    )
    return state_finding(Measurements({ALL: {"top1": metric}}, facts=facts))
