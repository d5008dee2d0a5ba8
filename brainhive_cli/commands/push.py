"""The command `push`: upload of a trained run, with a model card, to the hub.

The hub is the Hugging Face Hub. The run has brain models (cells), or a prior, which
turns decoded embeddings into the input of a picture generator.
"""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

from brainhive_cli.core.base import (
    BrainhiveError,
    Line,
    MissingData,
    RecipeError,
    Table,
    console,
    first_line,
)
from brainhive_cli.core.files import (
    HUB_PREFIX,
    MANIFEST,
    MODEL_CARD,
    RUN_FILES,
    Input,
    advise_login,
    call_in_thread,
    collect_inputs,
    describe_token,
    documents,
    find_bad_proxy,
    http_error_class,
    locate_stored,
    silence_hub,
)
from brainhive_cli.core.recipes import (
    Arguments,
    FileRecipe,
    NameList,
    Paths,
    flag_field,
    write_yaml,
)
from brainhive_cli.core.results import Metric, list_metric_caveats, merge_caveats
from brainhive_cli.core.runs import (
    ENVIRONMENT_FILE,
    Environment,
    FunctionJob,
    Launch,
    Result,
    run_folder as runs,
)
from brainhive_cli.data.downloads import SOURCES
from brainhive_cli.evaluation.retrieval.facts import RetrievalFacts
from brainhive_cli.reports.pages.model_card import (
    CardScores,
    choose_metrics,
    render_card,
)
from brainhive_cli.reports.sentences.sentences import list_entries
from brainhive_cli.reports.tables import ShownRun
from brainhive_cli.training.alignment.trained import Files, SharedRun


class Recipe(FileRecipe):
    """Recipe of `push`: the run, the repository, and the statements of its owner."""

    summary = (
        "Upload a trained model with a model card to the Hugging Face hub, private by "
        "default."
    )
    example = "RUN hub:owner/name"

    words: Annotated[NameList, Arguments(names="@runs/train-*")] = Field(
        [],
        description="a run of train-align or train-prior, and hub:owner/name[@tag]",
    )
    public: bool = flag_field(
        False, "make the model public; default: only its owner sees it"
    )
    licence: str = flag_field(
        "", "licence of the weights; default: the licence of the data, if known"
    )
    data_terms_checked: bool = flag_field(
        False,
        "confirm that the terms of the data and the participants allow the "
        "upload. The model holds statistics of their recordings",
    )
    citation: str = flag_field("", "how users should cite the model")
    contact: str = flag_field("", "contact for users of the model")


def inputs(recipe: Recipe) -> list[Input]:
    """List the run that is pushed, and the terms of the data that it was trained on."""
    _, shared_run = _resolve(recipe)
    return [Input(f"run {shared_run.run.path.name}")] + collect_inputs(
        partial(_list_terms, shared_run, recipe)
    )


def _list_terms(shared_run: SharedRun, recipe: Recipe) -> list[Input]:
    """List the terms of the data as an input, or raise an error if they are unclear."""
    require_terms(shared_run, recipe)
    return [Input("terms of the data")]


def resolve_job(recipe: Recipe) -> FunctionJob:
    """Make the job of a recipe."""
    return FunctionJob(recipe, inputs, preview)


def preview(recipe: Recipe) -> list[Table]:
    """Describe the upload for `push --check`, without contacting the hub.

    Args:
        recipe: Recipe of `push`, with the run and the repository.

    Returns:
        Tables of the upload, of its files, and of the lines of the model card.
    """
    target, shared_run = _resolve(recipe)

    card = write_card(shared_run, recipe, target)
    file_table = tabulate(target, shared_run.pack(card))
    total_bytes = sum(int(row[1]) for row in file_table.rows)
    visibility = "public" if recipe.public else "private"
    upload_rows = (
        ("to", f"{target}, {visibility}"),
        ("licence", recipe.licence or shared_run.licence or "not set yet"),
        ("terms of the data", shared_run.unknown_terms or "known, sharing is allowed"),
        ("files", f"{len(file_table.rows)}, {console.size(total_bytes)}"),
        ("sent now", "nothing: --check does not contact the hub"),
    )

    card_rows = tuple((line,) for line in card.splitlines())
    return [
        Table("Upload", ("item", "value"), upload_rows),
        file_table,
        Table(f"Card ({MODEL_CARD})", ("line",), card_rows, is_copied=True),
    ]


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Push a trained run to a repository of the hub, in a single commit.

    Args:
        recipe: Recipe of `push`, with the run and the repository.
        launch: Not used, since a single process pushes.
        force: Not used, since a push replaces the files of an earlier push.

    Returns:
        A table with the page and the commit of the model, and a table of its files.

    Raises:
        BrainhiveError: if nobody has confirmed unknown terms of the data, or if the
            repository cannot take the files.
        RecipeError: if there is no licence.
        MissingData: if there is no valid token, or the hub cannot be reached.
    """
    from huggingface_hub import constants

    target, shared_run = _resolve(recipe)
    repository, tag = _parse_target(target)
    require_terms(shared_run, recipe)

    files = shared_run.pack(write_card(shared_run, recipe, target))
    message = f"{shared_run.run.command} run {shared_run.run.path.name}"
    if tag:
        message += f", {tag}"
    with console.progress(f"pushing to {target}"):
        commit, is_private = _push_files(target, files, message, recipe.public)
    if recipe.public and is_private:
        console.warn(
            f"{target} already existed and is private; make it public on its web page"
        )

    rows = (
        ("page", f"{constants.ENDPOINT}/{repository}"),
        ("commit", commit),
        ("visible to", "its owner" if is_private else "everybody"),
    )
    pushed_table = Table(f"On the hub as {target}", ("item", "value"), rows)

    # suggest the next command, with the commit, because later pushes change the files
    reference = f"{HUB_PREFIX}{repository}@{commit}"
    if shared_run.cells:
        hint = Line("eval-retrieval", reference)
    else:
        hint = Line("train-align", ("prior", reference))
    return Result(
        shared_run.run.path, (pushed_table, tabulate(target, files)), hint=hint
    )


def _resolve(recipe: Recipe) -> tuple[str, SharedRun]:
    """Find the run to push, and validate the name of the repository.

    Returns:
        The repository as in the recipe, such as `hub:owner/name@tag`, and the run with
        the terms of its data and the files that may be shared.

    Raises:
        RecipeError: if the words are not a repository and the name of a run.
        MissingData: if the run does not exist.
        BrainhiveError: if a file must not be shared, such as one with an absolute path.
    """
    usage = Line("push", "RUN", "hub:owner/name")
    if len(recipe.words) != 2 or not recipe.words[1].startswith(HUB_PREFIX):
        raise RecipeError("push takes a run and a repository", usage)
    reference, target = recipe.words
    _parse_target(target)

    if reference.startswith(HUB_PREFIX):
        raise RecipeError(
            f"{reference} cannot be pushed, it is not a run on this machine", usage
        )
    run_folder = runs.find(recipe.paths.under_home("runs"), None, reference)
    with console.progress("reading the run"):
        return target, SharedRun.from_run(run_folder)


def _parse_target(target: str) -> tuple[str, str]:
    """Split `hub:owner/name[@tag]` into `owner/name` and the tag, or "" without a tag.

    Raises:
        RecipeError: if the text does not have this form, or if the tag is reserved.
    """
    # Name of a repository, with an optional tag.
    target_pattern = re.compile(
        r"hub:(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<tag>\w[\w.-]*))?", re.ASCII
    )
    # the hub does not allow `--` or `..` in the name of a repository
    match = target_pattern.fullmatch(target)
    if match is None or "--" in target or ".." in target:
        raise RecipeError(
            f"{documents.show_value(target)} does not name a repository on the hub",
            "hub:owner/name, or hub:owner/name@v2",
        )
    tag = match["tag"] or ""
    # Tags that are refused: the main branch, a full commit hash, and names that end
    # with `.lock`, which git does not allow.
    if re.fullmatch(r"main|[0-9a-f]{40}|.*\.lock", tag):
        raise RecipeError(f"{tag!r} cannot be used as a tag", "hub:owner/name@v2")
    return match["repository"], tag


def _push_files(
    target: str, files: Files, message: str, is_public: bool
) -> tuple[str, bool]:
    """Push files in a single commit, which also removes the files of an earlier model.

    Args:
        target: `hub:owner/name[@tag]`. A missing repository is created. The tag must be
            new.
        files: Contents or local paths, by file name in the repository.
        message: Message of the commit.
        is_public: True if everybody may see the files.

    Returns:
        The commit, and True if the repository is private.

    Raises:
        MissingData: if there is no valid token, or the hub cannot be reached.
        BrainhiveError: if the tag exists, or if the repository is public without
            `is_public`, holds other files or does not accept the files.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()
    repository, tag = _parse_target(target)
    with _explain_refusals(f"{HUB_PREFIX}{repository}"):
        # find or create the repository, and list its files
        try:
            info = api.model_info(repository)
        except RepositoryNotFoundError:
            api.create_repo(repository, private=not is_public, exist_ok=True)
            info = api.model_info(repository)
        remote_names = {file.rfilename for file in info.siblings or ()}
        # Files that the hub itself adds to a new repository.
        remote_names -= {".gitattributes"}

        # refuse to publish by accident, to replace other files, or to move a tag
        if not info.private and not is_public:
            raise BrainhiveError(
                f"{HUB_PREFIX}{repository} is public on the hub",
                "--public, if everybody may see the model",
            )
        _require_brainhive_files(repository, remote_names)
        if tag:
            remote_tags = {ref.name for ref in api.list_repo_refs(repository).tags}
            if tag in remote_tags:
                raise BrainhiveError(
                    f"the tag {target} exists",
                    f"choose another tag: {HUB_PREFIX}{repository}@TAG",
                )

        additions = []
        for name, content in sorted(files.items()):
            additions.append(
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
            )
        operations: list[CommitOperationAdd | CommitOperationDelete] = list(additions)
        # delete other run files, since weights of an earlier model would be loaded
        for name in sorted(remote_names - files.keys()):
            if _is_run_file(name):
                operations.append(CommitOperationDelete(name))

        # upload in a thread, so that Ctrl-C need not wait for large files
        with silence_hub():
            upload = partial(api.preupload_lfs_files, repository, additions)
            call_in_thread(upload)

            # `parent_commit` lets the hub refuse a commit if the repository has changed
            commit = api.create_commit(
                repository,
                operations,
                commit_message=message,
                parent_commit=info.sha,
            ).oid
        if tag:
            api.create_tag(repository, tag=tag, revision=commit)
        console.say(f"pushed {len(files)} files")
        return commit, bool(info.private)


def _require_brainhive_files(repository: str, remote_names: Collection[str]) -> None:
    """Raise an error if a repository has files, but not the manifest of a pushed run.

    Args:
        repository: Repository as owner/name.
        remote_names: Names of its files.
    """
    if remote_names and MANIFEST not in remote_names:
        shown_names = console.summarise_names(sorted(remote_names))
        raise BrainhiveError(
            f"{HUB_PREFIX}{repository} holds other files than a Brainhive model "
            f"({shown_names})",
            "choose another name, or remove the files on its web page",
        )


def _is_run_file(name: str) -> bool:
    """Return True if `push` uploads files with this path in the repository."""
    for patterns in RUN_FILES.values():
        if any(fnmatch(name, pattern) for pattern in patterns):
            return True
    return False


@contextmanager
def _explain_refusals(name: str) -> Iterator[None]:
    """Require a token of the hub, and explain errors of the hub's client to users.

    Args:
        name: Name of the repository, for the messages.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError

    # Kind of token that a push needs.
    write_token = "a token that may write"
    if get_token() is None:
        raise MissingData(
            "this machine has no token of the hub", advise_login(write_token)
        )
    try:
        yield
    except BrainhiveError:
        # some errors of Brainhive are a ValueError too
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code
        advice = advise_login(write_token)
        refusals = {
            401: MissingData(
                f"the hub does not accept the token of {describe_token()}",
                advice,
            ),
            403: BrainhiveError(
                f"your token may not write to {name}",
                f"choose another owner, or {advice}",
            ),
            404: MissingData(
                f"the hub has no repository {name}, or your token may not see it",
                f"check the name, or {advice}",
            ),
            412: BrainhiveError(
                f"somebody else changed {name} during the push",
                "look at the change, then run the same command again",
            ),
        }
        other_refusal = BrainhiveError(
            f"the hub answers {status} for {name}: {first_line(error)}",
            "run the same command again, which continues the push",
        )
        raise refusals.get(status, other_refusal) from error
    except ValueError as error:
        # the client checks names and the card before it sends them
        reason = " ".join(str(error).split())
        proxy_error = find_bad_proxy(error)
        raise proxy_error or BrainhiveError(
            f"the hub does not accept {name}: {reason}",
            "change the name, or the citation and contact in the recipe of push",
        ) from error
    except (ConnectionError, TimeoutError, RuntimeError, http_error_class()) as error:
        raise MissingData(
            f"the hub cannot be reached, or has stopped answering: {first_line(error)}",
            "run the same command again, which continues with the remaining files",
        ) from error


def require_terms(shared_run: SharedRun, recipe: Recipe) -> None:
    """Raise an error unless a run may be shared and has a licence.

    Args:
        shared_run: Run with the terms of its data.
        recipe: Recipe of `push`, with the confirmation and the licence.

    Raises:
        BrainhiveError: if terms are unknown, and the recipe has no confirmation.
        RecipeError: if neither the recipe nor the data states a licence.
    """
    if shared_run.unknown_terms and not recipe.data_terms_checked:
        terms = "; ".join(f"{name}: {text}" for name, text in shared_run.terms.items())
        raise BrainhiveError(
            f"the terms for sharing {shared_run.unknown_terms} are not known"
            + (f" ({terms})" if terms else ""),
            "check that the terms and each person's consent allow it, since a model "
            "holds statistics of each person's recordings; then add "
            "--data-terms-checked --licence NAME",
        )

    if not (recipe.licence or shared_run.licence):
        raise RecipeError(
            "the weights have no licence", "add --licence, such as cc-by-nc-4.0"
        )


def tabulate(target: str, files: Files) -> Table:
    """Return a table of the name, size in bytes and origin of each file to push.

    Args:
        target: Name of the repository, for the title.
        files: Contents or local paths, by file name in the repository.
    """
    rows = []
    for name, content in sorted(files.items()):
        if isinstance(content, bytes):
            rows.append((name, len(content), "written for sharing"))
        else:
            rows.append((name, content.stat().st_size, "copied from the run"))
    return Table(f"Files of {target}", ("file", "bytes", "content"), rows, is_list=True)


def write_card(shared_run: SharedRun, recipe: Recipe, target: str) -> str:
    """Write the model card (first page of the repository) of a run, in Markdown.

    Args:
        shared_run: Run with its files, the terms of its data and its recipe.
        recipe: Recipe of `push`, with the licence, citation and contact of the owner.
        target: Name of the repository.
    """
    # list the metrics of all scores, for their caveats
    scores = _find_scores(shared_run, recipe.paths)
    metrics: list[Metric] = []
    for _, metrics_by_row, _ in scores:
        for row_metrics in metrics_by_row.values():
            metrics += row_metrics

    environment = shared_run.run.read_json(ENVIRONMENT_FILE, Environment)
    versions = dict(environment.versions)
    if environment.commit:
        versions["code"] = environment.commit

    repository, _ = _parse_target(target)
    page = {
        "name": repository.partition("/")[2],
        "reference": f"{HUB_PREFIX}{repository}",
        "command": shared_run.run.command,
        "run": shared_run.run.path.name,
        "dataset": shared_run.learned.dataset
        or str(shared_run.recipe["dataset"]["kind"]),
        "licence": recipe.licence or shared_run.licence,
        "terms": shared_run.terms,
        "modality": shared_run.layout.spec.modality if shared_run.layout else "",
        "layout": shared_run.layout,
        "learned": shared_run.learned,
        "keys": shared_run.recipe,
        "cells": shared_run.cells,
        "scores": scores,
        "caveats": merge_caveats(
            list_metric_caveats(metrics), shared_run.learned.caveats
        ),
        "recipe": write_yaml(shared_run.recipe),
        "environment": versions,
        "citation": recipe.citation,
        "bibtex": list_entries([shared_run.run.measurements().facts.set_up]),
        "contact": recipe.contact,
    }
    return render_card(page, _list_hub_datasets(shared_run))


def _list_hub_datasets(shared_run: SharedRun) -> list[str]:
    """List the training data sets of a run that are on the hub, as owner/name."""
    names = []
    # Start of the address of a data set on the hub.
    dataset_prefix = "hub:datasets/"
    for dataset in shared_run.terms:
        if dataset in SOURCES:
            for host in SOURCES[dataset].hosts:
                if host.startswith(dataset_prefix):
                    names.append(host.removeprefix(dataset_prefix))
    return names


def _find_scores(shared_run: SharedRun, paths: Paths) -> list[CardScores]:
    """Find the tests and the validation of a run for its model card.

    Args:
        paths: Folders of the user. Tests are searched in the folder of runs.

    Returns:
        The title, the metrics by row, and the tested data set of each table of the
        card:
        - the newest test by each command, on each data set and gallery
        - the validation on training pictures, with "" as its data set
    """
    # find the newest test by each command on each data set and gallery
    tests: dict[tuple[str, str, str], CardScores] = {}
    # Commands whose runs test a brain model.
    for command in ("eval-retrieval", "reconstruct"):
        for folder in runs.list_finished_runs(paths.under_home("runs"), command):
            test_run = ShownRun(command, folder)
            facts = test_run.measurements.facts

            # skip tests of other runs, controls (shuffled signals) and empty tests
            tested_path = Path(locate_stored(facts.run)).resolve()
            is_other_run = tested_path != shared_run.run.path.resolve()
            if is_other_run or test_run.is_control or not test_run.metrics:
                continue

            # the metrics over all cells, then the first metric of each cell
            rows = {"all": choose_metrics(test_run.metrics)}
            if len(test_run.cells) > 1:
                for cell in test_run.cells:
                    rows[cell.label] = choose_metrics(cell.metrics)[:1]

            # keep the first test of each key, since the newest run comes first
            dataset = str(facts.set_up.get("dataset", facts.dataset))
            gallery = facts.gallery if isinstance(facts, RetrievalFacts) else None
            key = (command, dataset, str(gallery.splits if gallery else ""))
            tests.setdefault(key, (f"{command} on {dataset}", rows, dataset))
    scores = list(tests.values())

    # add the validation of the training, in a row for a prior or for each cell
    training = ShownRun("training", shared_run.run)
    rows = {}
    if shared_run.layout is None:
        rows["all"] = list(training.metrics.values())
        title = "Pictures kept from training"
    else:
        for cell in training.cells:
            rows[cell.label] = choose_metrics(cell.metrics)
        title = "Held-out training pictures, by model"
    if any(rows.values()):
        scores.append((title, rows, ""))
    return scores
