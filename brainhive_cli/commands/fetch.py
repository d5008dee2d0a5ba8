"""fetch: data sets from the hub or a web server, or the exact steps where people must
agree to something.
"""

import shlex
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from brainhive_cli.core import console, hub
from brainhive_cli.core.command import Input, Result, collect
from brainhive_cli.core.damage import archive_ending, destination, unpack
from brainhive_cli.core.errors import Line, MissingData, RecipeError
from brainhive_cli.core.files import require_room
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import FileRecipe, Names, Subjects
from brainhive_cli.core.tables import Table
from brainhive_cli.data.exchange import digits69
from brainhive_cli.data.exchange.downloads import (
    SOURCES,
    RemoteFile,
    Repository,
    download_files,
    is_of_subjects,
    list_files,
    look_for,
    read_licence,
)

CONVERTERS = {"digits69": digits69.write_folders}
"""What turns the files of a data set into folders that commands read, and says what it
wrote.
"""
LISTED = 20
"""Files that a table lists; the largest first."""


class Recipe(FileRecipe):
    """Recipe of fetch: the data sets."""

    names: Names = Field([], description=f"data sets: {', '.join(SOURCES)}")
    root: str = Field(
        "", description="folder of the data set; default: its name below paths.data"
    )
    subjects: Subjects = Field(None, description="whose recordings; default: all")
    unpack: bool = Field(True, description="unpack archives; they stay where they are")


def _resolve(recipe: Recipe) -> dict[str, Path]:
    """Give the folder of each data set; RecipeError if none is named, or one has no
    known source.
    """
    if not recipe.names:
        raise RecipeError(
            "no data set is named", f"{Line('fetch', 'NAME')}, of: {', '.join(SOURCES)}"
        )
    if len(recipe.names) > 1 and recipe.root:
        raise RecipeError(
            f"root is of one data set, not of {len(recipe.names)}",
            "fetch one at a time",
        )
    roots = {}
    for name in recipe.names:
        kind = name.replace("_", "-")
        if kind not in SOURCES:
            raise RecipeError(
                f"no source of a data set {name!r} is known",
                f"known: {', '.join(SOURCES)}",
            )
        roots[kind] = recipe.paths.dataset(kind, recipe.root)
    return roots


def _list_repositories(kind: str) -> list[Repository]:
    """List the repositories of a data set; none if the hub does not have it."""
    source = SOURCES[kind]
    return [Repository(source.repository), *source.further] if source.repository else []


def _list_files(kind: str, root: Path, recipe: Recipe) -> list[RemoteFile]:
    """List the files that are wanted, as the hub does, and require room for those that
    are not here.
    """
    # subjects select among the hub's files; those of a web server are always needed
    files = [look_for(file, root) for file in SOURCES[kind].web]
    for repository in _list_repositories(kind):
        listed = list_files(repository, root)
        files += [file for file in listed if is_of_subjects(file.name, recipe.subjects)]

    # archives take at least their own size again when they are unpacked
    due = [file for file in files if not file.is_there]
    packed = sum(
        file.size for file in due if recipe.unpack and archive_ending(Path(file.name))
    )
    download = sum(file.size for file in due)
    what = (
        f"{kind}, {console.size(download)} to download and at least "
        f"{console.size(packed)} to unpack,"
    )
    way = (
        "make room; take some: --subjects 1; another disk: root=FOLDER; or only "
        "download: unpack=false"
    )
    require_room(root, download + packed, what, way)
    return files


def _describe(kind: str, root: Path, files: list[RemoteFile]) -> str:
    """Describe the source of a data set, its size and licence."""
    # the licence as the hub says, next to the terms of the publisher
    source, repositories = SOURCES[kind], _list_repositories(kind)
    licences = [
        read_licence(repository) or "its page names none" for repository in repositories
    ]
    sources = [f"the hub's {repository.name}" for repository in repositories]
    sources += [file.url for file in source.web]
    terms = (
        f"{', '.join(licences)}; terms: {source.terms}" if licences else source.terms
    )
    due = sum(file.size for file in files if not file.is_there)
    return (
        f"{kind} from {' and '.join(sources)} to {root}: {len(files)} files, "
        f"{console.size(sum(file.size for file in files))}, "
        f"{console.size(due) if due else 'nothing'} to download; licence: {terms}"
    )


def _list_steps(kind: str, root: Path, recipe: Recipe) -> list[str]:
    """List what people do themselves."""
    subjects = " ".join(map(str, recipe.subjects or SOURCES[kind].subjects))
    return [
        step.format(root=shlex.quote(str(root)), subjects=subjects)
        for step in SOURCES[kind].steps
    ]


def inputs(recipe: Recipe) -> list[Input]:
    """List the downloads with sizes and licences, as the hub says, or else as far as
    they are known.
    """

    def look(kind: str, root: Path) -> list[Input]:
        # only people can get it, so the steps are the way out
        source, repositories = SOURCES[kind], _list_repositories(kind)
        if not (repositories or source.web):
            steps = " && ".join(_list_steps(kind, root, recipe))
            raise MissingData(f"{kind} is not on the hub; {source.about}", steps)
        try:
            files = _list_files(kind, root, recipe)
        except hub.Unreachable:  # what is known without it
            looked = [
                Input.of(f"{one.name}: {source.about}", partial(list_files, one, root))
                for one in repositories
            ]
            return [one for one in looked if one.error is not None]
        size = sum(file.size for file in files if not file.is_there)
        return [Input(f"{kind}: {_describe(kind, root, files)}", size)]

    return collect(
        *(partial(look, kind, root) for kind, root in _resolve(recipe).items())
    )


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Fetch what the hub has, and unpack it; show the steps for what it does not have.

    Raises:
        MissingData: if the hub cannot be reached, or its terms were not accepted.
        BrainhiveError: if the disk has no room.
    """
    # fetch each data set from its source, or list the steps that people do themselves
    tables, details, lacks = list[Table](), dict[str, Any](), False
    roots = _resolve(recipe)
    for kind, root in roots.items():
        source = SOURCES[kind]
        if source.repository or source.web:
            table, details[kind] = _fetch(kind, root, recipe)
        else:
            rows = tuple(enumerate(_list_steps(kind, root, recipe), start=1))
            title = f"{kind}: get it by yourself; terms: {source.terms}"
            table = Table(title, ("", "step"), rows, is_copied=True)
            lacks = True
        tables.append(table)
        if source.elsewhere:
            console.say(f"{kind}, also: {source.elsewhere}")

    # the exit code tells programs that people have to get a data set
    kind, root = next(iter(roots.items()))
    return Result(
        root,
        tuple(tables),
        details={"fetched": details},
        hint=Line("workflow", ("recipe", kind))
        if kind in CONVERTERS
        else Line("check", *recipe.names),
        exit_code=MissingData.exit_code * lacks,
    )


def _fetch(kind: str, root: Path, recipe: Recipe) -> tuple[Table, dict[str, Any]]:
    """Download and unpack a data set; return the table of its files before the
    download, and details.
    """
    # list the largest files, and the others together
    files = _list_files(kind, root, recipe)
    console.say(_describe(kind, root, files))
    largest = sorted(files, key=lambda file: -file.size)
    rows = [
        (
            file.name,
            console.size(file.size),
            "there" if file.is_there else "to download",
        )
        for file in largest[:LISTED]
    ]
    if rest := largest[LISTED:]:
        rows.append(
            (f"{len(rest)} more", console.size(sum(file.size for file in rest)), "")
        )
    table = Table(f"Files of {kind}", ("file", "size", "state"), rows)
    details: dict[str, Any] = {
        "files": len(files),
        "bytes": sum(file.size for file in files),
    }

    # download the files that are missing, unpack the archives, convert what no command
    # reads
    if due := [file for file in files if not file.is_there]:
        download_files(due, root)
    for path in (root / file.name for file in files if recipe.unpack):
        if archive_ending(path):
            into = destination(path, root, SOURCES[kind].tops)
            console.say(f"unpacking {path} into {into}")
            details[f"unpacked {path.name}"] = unpack(path, into)
    if kind in CONVERTERS and recipe.unpack:
        details["converted"] = CONVERTERS[kind](root)
        console.say(f"converted into {root}: {details['converted']}")
    return table, details
