"""push: a trained run on the hub with a model card, which a colleague loads by name."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from pydantic import Field

from brainhive_cli.core import console, documents, runs
from brainhive_cli.core.command import Input, Result, collect
from brainhive_cli.core.errors import (
    BrainhiveError,
    Line,
    MissingData,
    RecipeError,
    first_line,
)
from brainhive_cli.core.facts import RetrievalFacts
from brainhive_cli.core.files import locate_stored
from brainhive_cli.core.hub import (
    MANIFEST,
    MODEL_CARD,
    RUN_FILES,
    SCHEME,
    quiet,
    transport_error,
)
from brainhive_cli.core.key_types import NameList
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import caveats_of, merge_caveats
from brainhive_cli.core.network import call_in_thread, find_bad_proxy
from brainhive_cli.core.recipe import FileRecipe, Paths, write_yaml
from brainhive_cli.core.runs import ENVIRONMENT, Environment, of_variant
from brainhive_cli.core.tables import Table
from brainhive_cli.data.downloads.sources import SOURCES
from brainhive_cli.reports.model_card import CardScores, choose_metrics, render_card
from brainhive_cli.reports.runs_shown import ShownRun
from brainhive_cli.reports.sentences import list_entries
from brainhive_cli.training.alignment.trained.sharing import Files, SharedRun

USAGE = Line("push", "RUN", "hub:owner/name")
TESTS = ("eval-retrieval", "reconstruct")
"""Commands whose runs test a brain model."""
FILES_OF_THE_HUB = {".gitattributes"}
"""Files that the hub itself puts into a new repository."""
TARGET = re.compile(
    r"hub:(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<tag>\w[\w.-]*))?", re.ASCII
)
RESERVED_TAG = re.compile(r"main|[0-9a-f]{40}|.*\.lock")
"""Names that cannot be those of a tag here."""
LOGIN = "hf auth login, with a token that may write"


class Recipe(FileRecipe):
    """Recipe of push: the run, the repository, and what a person confirms."""

    words: NameList = Field(
        [],
        description="the run of train-align or train-prior, and hub:owner/name[@tag]",
    )
    public: bool = Field(
        False, description="everybody may see the model; else only its owner"
    )
    licence: str = Field(
        "",
        description=(
            "licence of the weights; default: that of the data, where it is known"
        ),
    )
    data_terms_checked: bool = Field(
        False,
        description="a person has read the terms of the data, and what people have "
        "agreed to: both allow sharing this model, with what it holds of "
        "each person's recordings",
    )
    citation: str = Field(
        "", description="how the authors of the model want to be cited"
    )
    contact: str = Field("", description="whom users of the model may ask")


def inputs(recipe: Recipe) -> list[Input]:
    """List the run, and the terms of its data."""
    _, shared = _resolve(recipe)

    def look() -> list[Input]:
        require_terms(shared, recipe)
        return [Input("terms of the data")]

    return [Input(f"run {shared.run.path.name}"), *collect(look)]


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
    return [
        planned,
        files,
        Table(f"Card ({MODEL_CARD})", ("line",), lines, is_copied=True),
    ]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Push a run by one commit.

    Raises:
        BrainhiveError: if the terms of the data are not known, or the name has other
            contents.
    """
    from huggingface_hub import constants

    # one commit with all files
    target, shared = _resolve(recipe)
    repository, tag = _parse_target(target)
    require_terms(shared, recipe)
    files = shared.pack(write_card(shared, recipe, target))
    message = f"{shared.run.command} run {shared.run.path.name}" + (
        f", {tag}" if tag else ""
    )
    with console.progress(f"pushing to {target}"):
        commit, is_private = _push(target, files, message, recipe.public)
    # a push does not publish a repository that was private before
    if recipe.public and is_private:
        console.warn(
            f"{target} was private before and stays so: its page makes it public"
        )

    # where it is, and how to load it
    pinned = f"{SCHEME}{repository}@{commit}"  # later pushes change nothing
    facts = {
        "page": f"{constants.ENDPOINT}/{repository}",
        "commit": commit,
        "visible to": "its owner" if is_private else "everybody",
    }
    pushed = Table(f"On the hub as {target}", ("item", "value"), tuple(facts.items()))
    # a brain model is evaluated next, a prior is trained for
    hint = (
        Line("eval-retrieval", pinned)
        if shared.cells
        else Line("train-align", ("prior", pinned))
    )
    return Result(shared.run.path, (pushed, tabulate(target, files)), hint=hint)


def _resolve(recipe: Recipe) -> tuple[str, SharedRun]:
    """Find the repository, and the run as it may be shared; nothing is asked of the
    hub.

    Raises:
        RecipeError: if the run or the repository is not named.
        MissingData: if there is no such run.
        BrainhiveError: if a file holds what no shared one may.
    """
    # one run, one repository
    if len(recipe.words) != 2 or not recipe.words[1].startswith(SCHEME):
        raise RecipeError("push takes a run and a repository", USAGE)
    target, (name, variant) = recipe.words[1], of_variant(recipe.words[0])
    _parse_target(target)
    # a variant is a part of a run, and a run of the hub is shared already
    if variant or str(name).startswith(SCHEME):
        raise RecipeError(f"{recipe.words[0]} is no whole run of this machine", USAGE)
    run = runs.find(recipe.paths.under_home("runs"), None, str(name))
    with console.progress("reading the run"):
        return target, SharedRun.of(run)


def _parse_target(reference: str) -> tuple[str, str]:
    """Read `hub:owner/name[@tag]`: the repository, and the tag of a version, empty
    where none is named.

    Raises:
        RecipeError: if it is no such name.
    """
    # the hub itself refuses `--` and `..` in names
    match = TARGET.fullmatch(reference)
    if match is None or "--" in reference or ".." in reference:
        raise RecipeError(
            f"{documents.show_value(reference)} names no repository of the hub",
            "hub:owner/name, or hub:owner/name@v2",
        )
    if match["tag"] and RESERVED_TAG.fullmatch(match["tag"]):
        raise RecipeError(f"{match['tag']} is no name of a tag", "hub:owner/name@v2")
    return match["repository"], match["tag"] or ""


def _push(
    reference: str, files: Mapping[str, Path | bytes], message: str, is_public: bool
) -> tuple[str, bool]:
    """Put files into a repository in place of those of an earlier model, by one commit.

    Large files are uploaded before it: an interrupted push leaves no commit.

    Args:
        reference: A repository, which is created if it is not there, and a new tag, if
            any.
        files: By name in the repository; manifest, card and list of digests as bytes.
        message: Of the commit.
        is_public: Whether everybody may see a new repository.

    Returns:
        The commit that holds the files, and whether only the repository's owner can see
        it.

    Raises:
        MissingData: if there is no token, or the hub cannot be reached.
        BrainhiveError: if the tag exists, the repository has files of others, this user
            may not write, or the repository is public and `is_public` is not set.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api, (name, tag) = HfApi(), _parse_target(reference)
    with _describing_refusals(f"{SCHEME}{name}"):
        # the repository, and what it holds
        try:
            info = api.model_info(name)
        except RepositoryNotFoundError:
            api.create_repo(name, private=not is_public, exist_ok=True)
            info = api.model_info(name)
        names = {file.rfilename for file in info.siblings or ()} - FILES_OF_THE_HUB

        # nothing becomes public, and nothing of others is replaced, unless the user
        # says so
        if not info.private and not is_public:
            raise BrainhiveError(
                f"{SCHEME}{name} is public on the hub",
                "--public, if everybody may see the model",
            )
        if names and MANIFEST not in names:
            raise BrainhiveError(
                (
                    f"{SCHEME}{name} exists with files of others "
                    f"({console.summarise_names(sorted(names))})"
                ),
                "another name, or remove them on its page",
            )
        if tag and tag in {known.name for known in api.list_repo_refs(name).tags}:
            raise BrainhiveError(
                f"{reference} exists", f"another tag: {SCHEME}{name}@TAG"
            )

        # weights of an earlier model would be mixed with these
        patterns = [pattern for patterns in RUN_FILES.values() for pattern in patterns]
        earlier = [
            file
            for file in names - files.keys()
            if any(fnmatch(file, each) for each in patterns)
        ]
        additions = [CommitOperationAdd(*file) for file in sorted(files.items())]
        deletions = [CommitOperationDelete(path) for path in sorted(earlier)]
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *additions,
            *deletions,
        ]
        with quiet():
            # Ctrl-C does not wait for uploads
            call_in_thread(partial(api.preupload_lfs_files, name, additions))
            # with `parent_commit` the hub refuses if another commit came in between
            commit = api.create_commit(
                name, operations, commit_message=message, parent_commit=info.sha
            ).oid
        if tag:
            api.create_tag(name, tag=tag, revision=commit)
        console.say(f"pushed {len(files)} files")
        return commit, bool(info.private)


@contextmanager
def _describing_refusals(name: str) -> Iterator[None]:
    """Require a token, and describe in our words why the hub refuses a request that
    writes.

    Raises:
        MissingData: if there is no token, it is not accepted, or the hub does not
            answer.
        BrainhiveError: if the hub refuses.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError

    if get_token() is None:
        raise MissingData(
            "no token of the hub is on this machine", f"{LOGIN}; or HF_TOKEN"
        )
    try:
        yield
    except BrainhiveError:  # some of which are ValueErrors, too
        raise
    except HfHubHTTPError as error:
        # by the status of the answer
        status = error.response.status_code
        refusals = {
            401: MissingData(
                "the hub does not accept the token of this machine", LOGIN
            ),
            403: BrainhiveError(
                f"no right to write to {name}", f"another owner, or {LOGIN}"
            ),
            404: MissingData(
                f"no repository {name} that this user sees",
                f"check the name, or {LOGIN}",
            ),
            412: BrainhiveError(
                f"{name} has changed meanwhile",
                "look at it, then the same command again",
            ),
        }
        problem = f"the hub answers {status} for {name}: {first_line(error)}"
        raise refusals.get(
            status, BrainhiveError(problem, "the same command continues")
        ) from error
    except ValueError as error:  # of a card or a name that the hub does not accept
        raise find_bad_proxy(error) or BrainhiveError(
            f"the hub refuses {name}: {' '.join(str(error).split())}",
            "other words in the recipe of push, or another name",
        ) from error
    except (ConnectionError, TimeoutError, RuntimeError, transport_error()) as error:
        raise MissingData(
            f"the hub cannot be reached, or has stopped answering: {first_line(error)}",
            "the same command continues: what has arrived is not sent again",
        ) from error


def require_terms(shared: SharedRun, recipe: Recipe) -> None:
    """Require terms of the data that are known to allow it, or the word of a person who
    has read them.

    Raises:
        BrainhiveError: if nobody has.
        RecipeError: if no licence is named.
    """
    # weights hold statistics of recordings, so a person must know the terms of these
    if shared.unknown_terms and not recipe.data_terms_checked:
        sources = "; ".join(f"{name}: {about}" for name, about in shared.terms.items())
        raise BrainhiveError(
            (
                "no known terms allow sharing "
                f"{shared.unknown_terms}{f' ({sources})' if sources else ''}"
            ),
            "read them, and what people agreed to: files of a model hold statistics of "
            "each person's recordings; then: --data-terms-checked --licence NAME",
        )
    # the card states a licence: that of the recipe, or of the data
    if not (recipe.licence or shared.licence):
        raise RecipeError(
            "nothing says under which licence the weights are", "--licence cc-by-nc-4.0"
        )


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
    measured = [
        metric for _, rows, _ in scores for row in rows.values() for metric in row
    ]
    environment = shared.run.read_json(ENVIRONMENT, Environment)
    commit = {"code": environment.commit} if environment.commit else {}

    # values of the card's template
    repository, _ = _parse_target(target)
    page = {
        "name": repository.partition("/")[2],
        "reference": f"{SCHEME}{repository}",
        "command": shared.run.command,
        "run": shared.run.path.name,
        "dataset": shared.learned.dataset or str(shared.recipe["dataset"]["kind"]),
        "licence": recipe.licence or shared.licence,
        "terms": shared.terms,
        "modality": shared.layout.spec.modality if shared.layout else "",
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
    prefix = "hub:datasets/"
    hosts = [
        host
        for name in shared.terms
        if name in SOURCES
        for host in SOURCES[name].hosts
        if host.startswith(prefix)
    ]
    return render_card(page, [host.removeprefix(prefix) for host in hosts])


def _find_scores(shared: SharedRun, paths: Paths) -> list[CardScores]:
    """Find the newest test of a run by each command on each data set, without controls;
    then its training.
    """
    tests: dict[tuple[str, str, str], CardScores] = {}
    for command in TESTS:
        for folder in runs.finished_runs(paths.under_home("runs"), command):
            run = ShownRun(command, folder)
            facts = run.measured.facts
            # a test must be of this run; controls are no result of the model
            is_of_run = (
                Path(locate_stored(facts.run)).resolve() == shared.run.path.resolve()
            )
            if not is_of_run or run.is_control or not run.metrics:
                continue

            # everything together, then the headline of each cell
            dataset = str(facts.set_up.get("dataset", facts.dataset))
            gallery = facts.gallery if isinstance(facts, RetrievalFacts) else None
            key = command, dataset, str(gallery.splits if gallery else "")
            rows = {"all": choose_metrics(run.metrics)}
            rows |= {
                cell.name: choose_metrics(cell.metrics)[:1]
                for cell in run.cells
                if len(run.cells) > 1
            }
            # finished runs come newest first, so older tests of one key are dropped
            tests.setdefault(key, (f"{command} on {dataset}", rows, dataset))

    # what the training measured on pictures that it did not learn from
    training = ShownRun("training", shared.run)
    if shared.layout is None:
        rows = {"all": list(training.metrics.values())}
        title = "Pictures kept from training"
    else:
        rows = {
            cell.name: choose_metrics(cell.metrics)
            for cell in training.cells
            if cell.metrics
        }
        title = "Held-out training pictures, by model"
    return [*tests.values(), *([(title, rows, "")] if any(rows.values()) else [])]
