"""push: a trained run on the hub with a model card, which a colleague loads by name."""

from functools import partial
from pathlib import Path

from pydantic import Field

from brainhive_cli.core import console, hub_uploads, runs
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.facts import RetrievalFacts
from brainhive_cli.core.files import locate_stored
from brainhive_cli.core.hub import SCHEME
from brainhive_cli.core.hub_uploads import parse_target
from brainhive_cli.core.inputs import Input
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.lines import Line
from brainhive_cli.core.measurements import caveats_of, merge_caveats
from brainhive_cli.core.recipe import BaseRecipe, Names, Paths, Run, write_yaml
from brainhive_cli.core.results import Result
from brainhive_cli.core.runs import ENVIRONMENT, Environment
from brainhive_cli.core.shared_runs import CARD
from brainhive_cli.core.sweep import of_variant
from brainhive_cli.core.tables import Table
from brainhive_cli.data.exchange.downloads import SOURCES
from brainhive_cli.data.signals.channel_mapping import name_modality
from brainhive_cli.reports.methods import list_entries
from brainhive_cli.reports.model_card import Scores, choose_metrics, render_card
from brainhive_cli.reports.runs_shown import ShownRun
from brainhive_cli.training.alignment.sharing import Files, SharedRun

USAGE = Line("push", "RUN", "hub:owner/name")
TESTS = ("eval-retrieval", "reconstruct")
"""Commands whose runs test a brain model."""


class Recipe(BaseRecipe):
    """Recipe of push: the run, the repository, and what a person confirms."""

    computes = False

    words: Names = Field([], description="the run of train-align or train-prior, and hub:owner/name[@tag]")
    public: bool = Field(False, description="everybody may see the model; else only its owner")
    licence: str = Field(
        "", description="licence of the weights; default: that of the data, where it is known"
    )
    data_terms_checked: bool = Field(
        False,
        description="a person has read the terms of the data, and what people have agreed to: both allow "
        "sharing this model, with what it holds of each person's recordings",
    )
    citation: str = Field("", description="how the authors of the model want to be cited")
    contact: str = Field("", description="whom users of the model may ask")
    run: Run = Run(device="cpu")


def inputs(recipe: Recipe) -> list[Input]:
    """List the run, and the terms of its data."""
    _, shared = _resolve(recipe)
    terms = Input.of("terms of the data", partial(require_terms, shared, recipe))
    return [Input(f"run {shared.run.path.name}"), terms]


def preview(recipe: Recipe) -> list[Table]:
    """List each file with its size, and the card; nothing is sent or asked."""
    target, shared = _resolve(recipe)
    # pack all, as `run` does, but send nothing
    card = write_card(shared, recipe, target)
    files = tabulate(target, shared.pack(card))
    total = sum(int(row[1]) for row in files.rows)
    items = {
        "to": f"{target}, {'public' if recipe.public else 'private'}",
        "licence": recipe.licence or shared.licence or "none yet",
        "terms of the data": shared.unknown_terms or "known to allow it",
        "files": f"{len(files.rows)}, {console.size(total)}",
        "sent now": "nothing: --check asks nothing of the hub",
    }
    # the card line by line, as it will stand on the hub
    lines = tuple((line,) for line in card.splitlines())
    planned = Table("Upload", ("item", "value"), tuple(items.items()))
    return [planned, files, Table(f"Card ({CARD})", ("line",), lines, is_copied=True)]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Push a run by one commit.

    Raises:
        BrainhiveError: if the terms of the data are not known, or the name has other contents.
    """
    from huggingface_hub import constants

    # one commit with all files
    target, shared = _resolve(recipe)
    repository, tag = parse_target(target)
    require_terms(shared, recipe)
    files = shared.pack(write_card(shared, recipe, target))
    message = f"{shared.run.command} run {shared.run.path.name}" + (f", {tag}" if tag else "")
    with console.progress(f"pushing to {target}"):
        commit, is_private = hub_uploads.push(target, files, message, recipe.public)
    # a push does not publish a repository that was private before
    if recipe.public and is_private:
        console.warn(f"{target} was private before and stays so: its page makes it public")

    # where it is, and how to load it
    pinned = f"{SCHEME}{repository}@{commit}"  # later pushes change nothing
    facts = {
        "page": f"{constants.ENDPOINT}/{repository}",
        "commit": commit,
        "visible to": "its owner" if is_private else "everybody",
    }
    pushed = Table(f"On the hub as {target}", ("item", "value"), tuple(facts.items()))
    # a brain model is evaluated next, a prior is trained for
    hint = Line("eval-retrieval", pinned) if shared.cells else Line("train-align", ("prior", pinned))
    return Result(shared.run.path, (pushed, tabulate(target, files)), hint=hint)


def _resolve(recipe: Recipe) -> tuple[str, SharedRun]:
    """Find the repository, and the run as it may be shared; nothing is asked of the hub.

    Raises:
        RecipeError: if the run or the repository is not named.
        MissingData: if there is no such run.
        BrainhiveError: if a file holds what no shared one may.
    """
    # one run, one repository
    if len(recipe.words) != 2 or not recipe.words[1].startswith(SCHEME):
        raise RecipeError("push takes a run and a repository", USAGE)
    target, (name, variant) = recipe.words[1], of_variant(recipe.words[0])
    parse_target(target)
    # a variant is a part of a run, and a run of the hub is shared already
    if variant or str(name).startswith(SCHEME):
        raise RecipeError(f"{recipe.words[0]} is no whole run of this machine", USAGE)
    run = runs.find(recipe.paths.under_home("runs"), None, str(name))
    with run.reading(), console.progress("reading the run"):
        return target, SharedRun.of(run)


def require_terms(shared: SharedRun, recipe: Recipe) -> None:
    """Require terms of the data that are known to allow it, or the word of a person who has read them.

    Raises:
        BrainhiveError: if nobody has.
        RecipeError: if no licence is named.
    """
    # weights hold statistics of recordings, so a person must know the terms of these
    if shared.unknown_terms and not recipe.data_terms_checked:
        sources = "; ".join(f"{name}: {about}" for name, about in shared.terms.items())
        raise BrainhiveError(
            f"no known terms allow sharing {shared.unknown_terms}{f' ({sources})' if sources else ''}",
            "read them, and what people agreed to: files of a model hold statistics of each person's "
            "recordings; then: --data-terms-checked --licence NAME",
        )
    # the card states a licence: that of the recipe, or of the data
    if not (recipe.licence or shared.licence):
        raise RecipeError("nothing says under which licence the weights are", "--licence cc-by-nc-4.0")


def tabulate(target: str, files: Files) -> Table:
    """List the files with their sizes."""
    rows = [
        # bytes were written for sharing, paths are files of the run
        (name, len(content), "written for sharing")
        if isinstance(content, bytes)
        else (name, content.stat().st_size, "the run's own")
        for name, content in sorted(files.items())
    ]
    return Table(f"Files of {target}", ("file", "bytes", "content"), rows, is_list=True)


def write_card(shared: SharedRun, recipe: Recipe, target: str) -> str:
    """Write the card of a run, each line from what the run says of itself."""
    # what was measured, and the environment of the training
    scores = _find_scores(shared, recipe.paths)
    measured = [metric for table in scores for row in table.metrics.values() for metric in row]
    environment = shared.run.read_json(ENVIRONMENT, Environment)
    commit = {"code": environment.commit} if environment.commit else {}

    # values of the card's template
    repository, _ = parse_target(target)
    page = {
        "name": repository.partition("/")[2],
        "reference": f"{SCHEME}{repository}",
        "command": shared.run.command,
        "run": shared.run.path.name,
        "dataset": shared.learned.dataset or str(shared.recipe["dataset"]["kind"]),
        "licence": recipe.licence or shared.licence,
        "terms": shared.terms,
        "modality": name_modality(shared.layout.spec.names) if shared.layout else "",
        "layout": shared.layout,
        "learned": shared.learned,
        "keys": shared.recipe,
        "cells": shared.cells,
        "scores": scores,
        "caveats": merge_caveats(caveats_of(measured), shared.learned.caveats),
        "recipe": write_yaml(shared.recipe),
        "environment": {**environment.versions, **commit},
        "citation": recipe.citation,
        "bibtex": list_entries([shared.run.measurements().facts.set_up]),
        "contact": recipe.contact,
    }

    # data sets of the hub, to which the card's metadata link
    sources = [SOURCES[name].repository for name in shared.terms if name in SOURCES]
    return render_card(page, [repository for repository in sources if repository])


def _find_scores(shared: SharedRun, paths: Paths) -> list[Scores]:
    """Find the newest test of a run by each command on each data set, without controls; then its training."""
    tests: dict[tuple[str, str, str], Scores] = {}
    for command in TESTS:
        for folder in runs.finished_runs(paths.under_home("runs"), command):
            run = ShownRun(command, folder)
            facts = run.measured.facts
            # a test must be of this run; controls are no result of the model
            is_of_run = Path(locate_stored(facts.run)).resolve() == shared.run.path.resolve()
            if not is_of_run or run.is_control or not run.metrics:
                continue

            # everything together, then the headline of each cell
            dataset = str(facts.set_up.get("dataset", facts.dataset))
            gallery = facts.gallery if isinstance(facts, RetrievalFacts) else None
            key = command, dataset, str(gallery.splits if gallery else "")
            rows = {"all": choose_metrics(run.metrics)}
            rows |= {cell.name: choose_metrics(cell.metrics)[:1] for cell in run.cells if len(run.cells) > 1}
            # finished runs come newest first, so older tests of one key are dropped
            tests.setdefault(key, Scores(f"{command} on {dataset}", rows, True, dataset))

    # what the training measured on pictures that it did not learn from
    training, dataset = ShownRun("training", shared.run), shared.learned.dataset
    if shared.layout is None:
        rows, title = {"all": list(training.metrics.values())}, "Pictures kept from training"
    else:
        rows = {cell.name: choose_metrics(cell.metrics) for cell in training.cells if cell.metrics}
        title = "Held-out training pictures, by model"
    return [*tests.values(), *([Scores(title, rows, False, dataset)] if any(rows.values()) else [])]
