"""push: a trained run on the hub with a model card, which a colleague loads by name; and its removal."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from brainhive_cli.core import console, hub_uploads, runs
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.facts import RetrievalFacts
from brainhive_cli.core.files import locate_stored
from brainhive_cli.core.hub import SCHEME
from brainhive_cli.core.hub_uploads import Target
from brainhive_cli.core.inputs import Input
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.lines import Line
from brainhive_cli.core.measurements import caveats_of, merge_caveats
from brainhive_cli.core.private_texts import find_private
from brainhive_cli.core.recipe import BaseRecipe, Names, Paths, Run, write_yaml
from brainhive_cli.core.results import Result
from brainhive_cli.core.set_up import say
from brainhive_cli.core.shared_runs import CARD
from brainhive_cli.core.sweep import of_variant
from brainhive_cli.core.tables import Table
from brainhive_cli.data.exchange.downloads import SOURCES
from brainhive_cli.data.signals.channel_mapping import name_modality
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.reports.methods import list_entries
from brainhive_cli.reports.model_card import ModelCard, Scores, choose_metrics
from brainhive_cli.reports.runs_shown import ShownRun
from brainhive_cli.training.alignment.recipe import Recipe as AlignRecipe
from brainhive_cli.training.alignment.sharing import SharedRun
from brainhive_cli.training.prior.recipe import Recipe as PriorRecipe

USAGE = Line("push", "RUN", "hub:owner/name")
SCALING = ("scale", "normalise", "normalise_by", "repetitions", "region_split")
"""Keys of the section `signal` that say how a model's input is scaled, averaged and divided."""
RECIPES = {
    "train-align": AlignRecipe.model_fields,
    "train-prior": PriorRecipe.model_fields,
}
"""Keys of recipes whose runs are shared; values are not validated, as parts may be code."""
TESTS = ("eval-retrieval", "reconstruct")
"""Commands whose runs test a brain model."""


class Recipe(BaseRecipe):
    """Recipe of push: the run, the repository, and what a person confirms."""

    computes = False

    words: Names = Field([], description="the run of train-align or train-prior, and hub:owner/name[@tag]")
    delete: bool = Field(
        False, description="remove the repository hub:owner/name, or one version of it, hub:owner/name@tag"
    )
    yes: bool = Field(False, description="remove without asking")
    public: bool = Field(False, description="everybody may see the model; else only its owner")
    licence: str = Field(
        "", description="licence of the weights; default: that of the data, where it is known"
    )
    data_terms_checked: bool = Field(
        False,
        description="a person has read the terms of the data, and what people have agreed to: both allow "
        "sharing this model",
    )
    with_positions: bool = Field(False, description="share digitised positions of sensors on a person's head")
    with_whiteners: bool = Field(
        False, description="share whiteners, normalisers and means of one person's recordings"
    )
    citation: str = Field("", description="how the authors of the model want to be cited")
    contact: str = Field("", description="whom users of the model may ask")
    run: Run = Run(device="cpu")


@dataclass(frozen=True)
class Job:
    """Run that is pushed.

    Attributes:
        recipe: What the user wrote.
        target: The repository.
        shared: The run as it may be shared.
        licence: Of the weights.
        card: The page of the repository.
        files: All that is sent, by name.
    """

    recipe: Recipe
    target: Target
    shared: SharedRun
    licence: str
    card: str
    files: Mapping[str, Path | bytes]

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Find the run, and make what would be sent; nothing is asked of the hub.

        Raises:
            RecipeError: if the run or the repository is not named.
            MissingData: if there is no such run.
            BrainhiveError: if a file holds what no shared one may.
        """
        # one run, one repository
        if len(recipe.words) != 2 or not recipe.words[1].startswith(SCHEME):
            raise RecipeError("push takes a run and a repository", USAGE)
        target, (name, variant) = Target.parse(recipe.words[1]), of_variant(recipe.words[0])
        if variant or str(name).startswith(SCHEME):
            raise RecipeError(f"{recipe.words[0]} is no whole run of this machine", USAGE)
        run = runs.find(recipe.paths.under_home("runs"), None, str(name))
        resolved: dict[str, Any] = run.recipe()
        if further := sorted(resolved.keys() - RECIPES.get(run.command, resolved).keys()):
            raise BrainhiveError(
                f"{run.path / 'recipe.yaml'} has {further[0]}, a key that no recipe of {run.command} has",
                "leave it out, or train again",
            )
        with run.reading(), console.progress("reading the run"):
            shared = SharedRun.of(run, recipe.with_positions, recipe.with_whiteners)

        # the card is shared, too; its owner may say anything in it
        licence = recipe.licence or shared.licence
        unsigned = recipe.model_copy(update={"contact": "", "citation": "", "licence": ""})
        if private := next(find_private(f"{_describe(shared, unsigned, target, '')}\n{target.tag}"), ""):
            raise BrainhiveError(
                f"the card or tag holds {private}, which would be shared",
                "rename it, and train again; or another tag",
            )
        card = _describe(shared, recipe, target, licence)
        return cls(recipe, target, shared, licence, card, shared.pack(card))

    def require_terms(self) -> None:
        """Require terms of the data that are known to allow it, or the word of a person who has read them.

        Raises:
            BrainhiveError: if nobody has.
            RecipeError: if no licence is named.
        """
        unknown = self.shared.unknown_terms
        if unknown and not self.recipe.data_terms_checked:
            sources = "; ".join(f"{name}: {about}" for name, about in self.shared.terms.items())
            raise BrainhiveError(
                f"no known terms allow sharing {unknown}{f' ({sources})' if sources else ''}",
                "read them, and what people agreed to; then: --data-terms-checked --licence NAME",
            )
        if not self.licence:
            raise RecipeError("nothing says under which licence the weights are", "--licence cc-by-nc-4.0")

    def tabulate(self) -> Table:
        """List the files with their sizes."""
        rows = [
            (name, len(content), "written for sharing")
            if isinstance(content, bytes)
            else (name, content.stat().st_size, "the run's own")
            for name, content in sorted(self.files.items())
        ]
        return Table(f"Files of {self.target}", ("file", "bytes", "content"), rows, is_list=True)


def inputs(recipe: Recipe) -> list[Input]:
    """List the run, and the terms of its data."""
    if recipe.delete:
        return [Input(str(_parse_removed(recipe)))]
    job = Job.resolve(recipe)
    return [Input(f"run {job.shared.run.path.name}"), Input.of("terms of the data", job.require_terms)]


def preview(recipe: Recipe) -> list[Table]:
    """List each file with its size, what stays at home, and the card; nothing is sent or asked."""
    if recipe.delete:
        return []
    job = Job.resolve(recipe)
    table = job.tabulate()
    total = sum(int(row[1]) for row in table.rows)
    items = {
        "to": f"{job.target}, {'public' if recipe.public else 'private'}",
        "licence": job.licence or "none yet",
        "terms of the data": job.shared.unknown_terms or "known to allow it",
        "files": f"{len(table.rows)}, {console.size(total)}",
        "left at home": "; ".join(job.shared.left_out) or "nothing that the model uses",
        "sent now": "nothing: --check asks nothing of the hub",
    }
    lines = tuple((line,) for line in job.card.splitlines())
    planned = Table("Upload", ("item", "value"), tuple(items.items()))
    return [planned, table, Table(f"Card ({CARD})", ("line",), lines, is_copied=True)]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Push a run by one commit, or remove what was pushed.

    Raises:
        BrainhiveError: if the name has other contents, or the user does not agree to a removal.
    """
    root = recipe.paths.under_home("runs")
    if recipe.delete:
        # show what is removed, and ask
        target = _parse_removed(recipe)
        repository = hub_uploads.find_pushed(target)
        version = repository.tags[target.tag][:10] if target.tag else "all versions"
        console.say(f"{target}: {len(repository.pushed)} files, {version}; copies of others stay")
        if not recipe.yes and not console.confirm(f"remove {target}?"):
            raise BrainhiveError("nothing was removed", "--yes removes without asking")
        console.say(f"removed: {hub_uploads.delete(target, repository)}")
        if target.tag:
            console.say(f"its commit can still be read; all goes by --delete {SCHEME}{target.repository}")
        return Result(root, (Table("Removed from the hub", ("what",), ((str(target),),), is_list=True),))

    # one commit with all files
    job = Job.resolve(recipe)
    job.require_terms()
    shared, target = job.shared, job.target
    message = f"{shared.run.command} run {shared.run.path.name}" + (f", {target.tag}" if target.tag else "")
    with console.progress(f"pushing to {target}"):
        pushed = hub_uploads.push(target, job.files, message, recipe.public)
    console.say(f"pushed {pushed.sent}" if pushed.sent else "the model is there already: nothing was sent")
    if pushed.is_edited:
        console.warn(
            "the card was edited on its page and stays so; a new @tag with other weights replaces it"
        )
    if recipe.public and pushed.is_private:
        console.warn(f"{target} was private before and stays so: its page makes it public")
    for sentence in shared.left_out:
        console.say(f"left at home: {sentence}")
    facts = {
        "page": pushed.url,
        "commit": pushed.commit,
        "visible to": "its owner" if pushed.is_private else "everybody",
    }
    tables = (Table(f"On the hub as {target}", ("item", "value"), tuple(facts.items())), job.tabulate())
    pinned = f"{SCHEME}{target.repository}@{pushed.commit}"
    hint = Line("eval-retrieval", pinned) if shared.cells else Line("train-align", ("prior", pinned))
    return Result(shared.run.path, tables, hint=hint)


def _parse_removed(recipe: Recipe) -> Target:
    if len(recipe.words) != 1:
        raise RecipeError(
            "push --delete takes one repository, or one tag of it",
            Line("push", "--delete", "hub:owner/name@v1"),
        )
    return Target.parse(recipe.words[0])


def _describe(shared: SharedRun, recipe: Recipe, target: Target, licence: str) -> str:
    """Write the card of a run, each line from what the run says of itself."""
    # the model, by the recipe and the architecture of its first cell
    fields, layout, learned = shared.recipe, shared.layout, shared.learned
    about: dict[str, Any] = {"command": shared.run.command, "run": shared.run.path.name}
    contract = {}
    modality = ""
    if layout is not None:
        modality = name_modality(layout.spec.names)
        contract = _describe_signals(layout.spec)
        about |= {
            "brain encoder": layout.backbone["kind"],
            "predicts": [f"{name} {list(head.shape)} ({head.target})" for name, head in layout.heads.items()],
            "encoders of the pictures": [*layout.encoders] or [*layout.dims],
            "prior": layout.prior or "none",
            "mode": fields.get("mode", ""),
            "subjects": [f"{name} {', '.join(map(str, people))}" for name, people in learned.people.items()],
            "seeds": fields.get("seeds", []),
            "models": len(shared.cells),
        }
        if layout.prior and not layout.prior.startswith((SCHEME, "demo:")):
            about["prior"] += ", which is not on the hub: others retrieve, and cannot draw, with this model"
    else:
        about |= {
            "encoders of the pictures": [str(encoder["kind"]) for encoder in fields.get("encoders", [])],
            "generator": fields.get("generator", {}).get("source", ""),
        }
    about |= {
        "pictures learned from": f"{len(learned.pictures):,}" if len(learned.pictures) else "not known",
        "epoch selected": {"": "not known", "test": "on the test: its numbers are too good"}.get(
            learned.selection, learned.selection
        ),
    }
    if layout is not None:
        is_alone = {*learned.recording_kinds} <= {"simulated"}
        simulated = "simulated by a program" + (": no brain was recorded" if is_alone else ", and recorded")
        about["signals"] = simulated if learned.is_simulated else "recorded"

    # what was measured, and the environment of the training
    scores = _find_scores(shared, recipe.paths)
    measured = [metric for table in scores for row in table.metrics.values() for metric in row]
    environment: dict[str, Any] = shared.run.read_json("environment.json")
    commit = {"code": environment["commit"]} if environment.get("commit") else {}
    card = ModelCard(
        name=target.repository.partition("/")[2],
        reference=f"{SCHEME}{target.repository}",
        is_prior=layout is None,
        dataset=learned.dataset or str(fields["dataset"]["kind"]),
        licence=licence,
        terms=shared.terms,
        hub_datasets=[
            SOURCES[name].repository for name in shared.terms if name in SOURCES and SOURCES[name].repository
        ],
        modality=modality,
        about=about,
        contract=contract,
        cells=shared.cells,
        scores=scores,
        caveats=merge_caveats(caveats_of(measured), learned.caveats),
        left_out=shared.left_out,
        recipe=write_yaml(fields),
        environment={**environment.get("versions", {}), **commit},
        citation=recipe.citation,
        bibtex=list_entries([shared.run.measurements().facts.set_up]),
        contact=recipe.contact,
    )
    return card.write()


def _describe_signals(spec: SignalSpec) -> dict[str, Any]:
    """Describe the signals that a model takes; others are refused when it is used."""
    if spec.names:
        described = {"channels, in order": ", ".join(spec.names)}
    else:
        widths = zip(spec.subjects, spec.widths, strict=True)
        described = {"voxels": ", ".join(f"{width} of subject {subject}" for subject, width in widths)}
        described |= {"regions": ", ".join(spec.regions)} if spec.regions else {}
    if spec.rate_hz:
        described["rate"] = f"{spec.rate_hz:g} Hz, {spec.samples} samples"
    if spec.times_s and spec.samples > 1:
        described["window"] = f"{1000 * spec.times_s[0]:g} to {1000 * spec.times_s[-1]:g} ms after onset"
    described["unit"] = spec.unit or "not known"
    scaled = {key: value for key, value in spec.signal.items() if key in SCALING}
    for section, fields in {"preparation": spec.preparation, "signal": scaled}.items():
        stated = {key: value for key, value in fields.items() if value not in ({}, [], None, "")}
        described |= {f"{section}.{key}": say(key, value) for key, value in stated.items()}
    return described


def _find_scores(shared: SharedRun, paths: Paths) -> list[Scores]:
    """Find the newest test of a run by each command on each data set, without controls; then its training."""
    tests: dict[tuple[str, str, str], Scores] = {}
    for command in TESTS:
        for folder in runs.finished_runs(paths.under_home("runs"), command):
            run = ShownRun(command, folder)
            facts = run.measured.facts
            is_of_run = Path(locate_stored(facts.run)).resolve() == shared.run.path.resolve()
            if not is_of_run or run.is_control or not run.metrics:
                continue

            # everything together, then the headline of each cell
            dataset = str(facts.set_up.get("dataset", facts.dataset))
            gallery = facts.gallery if isinstance(facts, RetrievalFacts) else None
            key = command, dataset, str(gallery.splits if gallery else "")
            rows = {"all": choose_metrics(run.metrics)}
            rows |= {cell.name: choose_metrics(cell.metrics)[:1] for cell in run.cells if len(run.cells) > 1}
            tests.setdefault(key, Scores(f"{command} on {dataset}", rows, True, dataset))

    # what the training measured on pictures that it did not learn from
    training, dataset = ShownRun("training", shared.run), shared.learned.dataset
    if shared.layout is None:
        rows, title = {"all": list(training.metrics.values())}, "Pictures kept from training"
    else:
        rows = {cell.name: choose_metrics(cell.metrics) for cell in training.cells if cell.metrics}
        title = "Held-out training pictures, by model"
    return [*tests.values(), *([Scores(title, rows, False, dataset)] if any(rows.values()) else [])]
