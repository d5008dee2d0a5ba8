"""fetch: data sets from the hub, NEMAR, OpenNeuro, S3 or a web server, or the exact
steps where people must agree to something.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from pydantic import Field

from brainhive_cli.core import console, hub
from brainhive_cli.core.archives import choose_destination, find_archive_suffix, unpack
from brainhive_cli.core.command import Input, Result, collect
from brainhive_cli.core.errors import Line, MissingData, RecipeError
from brainhive_cli.core.files import require_free_space
from brainhive_cli.core.key_types import NameList
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import FileRecipe
from brainhive_cli.core.tables import Table
from brainhive_cli.data.downloads.downloads import (
    download_files,
    find_missing,
    find_outdated,
)
from brainhive_cli.data.downloads.hosts import (
    DESCRIPTION,
    LISTERS,
    RemoteFile,
    choose_files,
    list_files,
    read_licence,
)
from brainhive_cli.data.downloads.sources import SOURCES, Source
from brainhive_cli.data.exchange import digits69
from brainhive_cli.data.files.subjects import Subjects

CONVERTERS = {"digits69": digits69.write_folders}
"""What turns the files of a data set into folders that commands read, and says what it
wrote.
"""
LISTED = 20
"""Files that a table lists; the largest first."""


class Recipe(FileRecipe):
    """Recipe of fetch: the data sets."""

    names: NameList = Field(
        [],
        description=f"data sets: {', '.join(SOURCES)}; or nemar:ID[@VERSION], "
        "openneuro:ID, s3:BUCKET/PREFIX, hub:datasets/OWNER/NAME, each with or without "
        "a folder after it",
    )
    root: str = Field(
        "", description="folder of the data set; default: its name below paths.data"
    )
    subjects: Subjects = Field(None, description="whose recordings; default: all")
    include: NameList = Field(
        [],
        description="patterns of the files that are wanted, as in sub-*/**; files that "
        "match a pattern after ! are left out; default: all",
    )
    unpack: bool = Field(True, description="unpack archives; they stay where they are")


def _resolve(recipe: Recipe) -> dict[str, tuple[Source, Path]]:
    """Give source and folder of each data set; RecipeError if none is named, or one has
    no known source.
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
    sources = {}
    for name in recipe.names:
        host, is_reference, rest = name.partition(":")
        kind = name if is_reference else name.replace("_", "-")
        if host in LISTERS and rest.strip("/"):
            # the identifier of a data set, or a bucket
            parts = rest.partition("@")[0].strip("/").removeprefix("datasets/")
            folder = parts.split("/")[host == "hub" and "/" in parts]
            source = Source((name,))
        elif kind in SOURCES:
            folder, source = kind, SOURCES[kind]
        else:
            raise RecipeError(
                f"no source of a data set {name!r} is known",
                f"known: {', '.join(SOURCES)}; or nemar:ID, openneuro:ID, "
                "s3:BUCKET/PREFIX, hub:datasets/OWNER/NAME",
            )
        sources[kind] = source, recipe.paths.dataset(folder, recipe.root)
    return sources


def _try_hosts(hosts: Sequence[str], use: Callable[[str], Any]) -> Any:
    """Use the first host that does not fail."""
    for host, following in pairwise(hosts):
        try:
            return use(host)
        except MissingData as error:
            console.warn(f"{host}: {error.message}; next host: {following}")
    return use(hosts[-1])


def _list_wanted(
    source: Source, root: Path, recipe: Recipe, host: str
) -> list[RemoteFile]:
    """List the files of a host that are wanted; without a host, those of a web
    server.
    """
    try:
        listed = list_files(host) if host else [*source.web]
    except hub.Unreachable as error:
        if host.startswith("hub:"):
            raise hub.Unreachable(
                error.message, f"{error.hint} --local-dir {shlex.quote(str(root))}"
            ) from error
        raise
    if outdated := find_outdated(listed, root):
        console.warn(
            f"{root} holds files of another version, which {listed[0].version} lacks, "
            f"{console.summarise_names(outdated)}: remove them"
        )
    files = choose_files(listed, recipe.subjects, recipe.include)
    if not files:
        raise RecipeError(
            f"none of the {len(listed)} files of {host or listed[0].url} is of these "
            "subjects and patterns",
            f"--include 'PATTERN', of: {', '.join(file.name for file in listed[:3])} …",
        )
    return files


def _group_hosts(source: Source) -> list[tuple[str, ...]]:
    """Group the hosts of the same files; an empty one is a web server."""
    groups = [source.hosts, *((one,) for one in source.further)]
    return [group for group in groups if group] + [("",)] * bool(source.web)


def _list_source(
    kind: str, source: Source, root: Path, recipe: Recipe
) -> tuple[dict[str, list[RemoteFile]], dict[str, list[RemoteFile]]]:
    """List the files that are wanted, and those to download, by host; require room for
    them.
    """

    def look(host: str) -> tuple[str, list[RemoteFile]]:
        return host, _list_wanted(source, root, recipe, host)

    wanted = dict(_try_hosts(group, look) for group in _group_hosts(source))

    missing = {host: find_missing(files, root) for host, files in wanted.items()}
    due = [*chain(*missing.values())]
    if changed := [file.name for file in due if (root / file.name).exists()]:
        console.warn(
            f"{root} differs from the host in {console.summarise_names(changed)}: "
            "fetched again, and replaced"
        )

    # archives take at least their own size again when they are unpacked
    packed = sum(
        file.size
        for file in due
        if recipe.unpack and find_archive_suffix(Path(file.name))
    )
    download = sum(file.size for file in due)
    require_free_space(
        root,
        download + packed,
        f"{kind}, {console.size(download)} to download and at least "
        f"{console.size(packed)} to unpack,",
        "make room; take some: --subjects 1 or --include 'PATTERN'; another disk: "
        "root=FOLDER; or only download: unpack=false",
    )
    return wanted, missing


def _describe(
    kind: str,
    source: Source,
    root: Path,
    wanted: Mapping[str, Sequence[RemoteFile]],
    missing: Mapping[str, Sequence[RemoteFile]],
) -> str:
    """Describe the hosts of a data set, its size and licence."""
    # the licence as a host says, next to the terms of the publisher
    files = [*chain(*wanted.values())]
    due = sum(file.size for file in chain(*missing.values()))
    licences = dict.fromkeys(
        read_licence(host, listed) or "its page names none"
        for host, listed in wanted.items()
        if host
    )
    terms = f"{', '.join(licences)}; terms: " if licences else ""
    return (
        f"{kind} from {' and '.join(host or files[0].url for host in wanted)} to "
        f"{root}: {len(files)} files, "
        f"{console.size(sum(file.size for file in files))}, "
        f"{console.size(due) if due else 'nothing'} to download; licence: "
        f"{terms}{source.terms}"
    )


def _list_steps(source: Source, root: Path, recipe: Recipe) -> list[str]:
    """List what people do themselves."""
    subjects = " ".join(map(str, recipe.subjects or source.subjects))
    return [
        step.format(root=shlex.quote(str(root)), subjects=subjects)
        for step in source.steps
    ]


def inputs(recipe: Recipe) -> list[Input]:
    """List the downloads with sizes and licences, as their hosts say, or else as far as
    they are known.
    """

    def look(kind: str, source: Source, root: Path) -> list[Input]:
        # only people can get it, so the steps are the way out
        if not _group_hosts(source):
            raise MissingData(
                f"{kind} is on no host; {source.about}",
                " && ".join(_list_steps(source, root, recipe)),
            )
        try:
            wanted, missing = _list_source(kind, source, root, recipe)
        except hub.Unreachable as error:  # what is known without it
            return [Input(f"{kind}: {source.about}", error=error)]
        description = _describe(kind, source, root, wanted, missing)
        due = sum(file.size for file in chain(*missing.values()))
        return [Input(f"{kind}: {description}", due)]

    return collect(
        *(partial(look, kind, *where) for kind, where in _resolve(recipe).items())
    )


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Fetch what a host has, and unpack it; show the steps for what none has.

    Raises:
        MissingData: if no host can be reached, or its terms were not accepted.
        BrainhiveError: if the disk has no room.
    """
    # fetch each data set from its source, or list the steps that people do themselves
    tables, details, lacks = list[Table](), dict[str, Any](), False
    sources = _resolve(recipe)
    for kind, (source, root) in sources.items():
        if _group_hosts(source):
            table, details[kind] = _fetch(kind, source, root, recipe)
        else:
            rows = tuple(enumerate(_list_steps(source, root, recipe), start=1))
            title = f"{kind}: get it by yourself; terms: {source.terms}"
            table = Table(title, ("", "step"), rows, is_copied=True)
            lacks = True
        tables.append(table)
        if source.elsewhere:
            console.say(f"{kind}, also: {source.elsewhere}")

    # the exit code tells programs that people have to get a data set
    kind, (_, root) = next(iter(sources.items()))
    hint = Line("check", *(name for name in recipe.names if name in SOURCES))
    if kind in CONVERTERS:
        hint = Line("workflow", ("recipe", kind))
    elif (root / DESCRIPTION).is_file():
        hint = Line("prepare", ("from", "recording"), f"preparation.root={root}")
    return Result(
        root,
        tuple(tables),
        details={"fetched": details},
        hint=hint,
        exit_code=MissingData.exit_code * lacks,
    )


def _fetch(
    kind: str, source: Source, root: Path, recipe: Recipe
) -> tuple[Table, dict[str, Any]]:
    """Download and unpack a data set; return the table of its files, and details."""
    # list the largest files, and the others together
    wanted, missing = _list_source(kind, source, root, recipe)
    console.say(_describe(kind, source, root, wanted, missing))
    files, due = [*chain(*wanted.values())], {*chain(*missing.values())}
    largest = sorted(files, key=lambda file: -file.size)
    rows = [
        (file.name, file.size, "fetched" if file in due else "was there")
        for file in largest[:LISTED]
    ]
    if rest := largest[LISTED:]:
        rows.append((f"{len(rest)} more", sum(file.size for file in rest), ""))
    table = Table(
        f"Files of {kind}",
        ("file", "size", "state"),
        [(name, console.size(size), state) for name, size, state in rows],
    )
    details: dict[str, Any] = {
        "files": len(files),
        "bytes": sum(file.size for file in files),
    }

    # download the files that are missing, from the next host where one fails
    def download(host: str) -> None:
        if host not in missing:
            listed = _list_wanted(source, root, recipe, host)
            missing[host] = find_missing(listed, root)
        download_files(missing[host], root)

    for group in _group_hosts(source):
        first = next(index for index, host in enumerate(group) if host in wanted)
        _try_hosts(group[first:], download)

    # unpack the archives, convert what no command reads
    for path in (root / file.name for file in files if recipe.unpack):
        if find_archive_suffix(path):
            into = choose_destination(path, root, source.tops)
            console.say(f"unpacking {path} into {into}")
            details[f"unpacked {path.name}"] = unpack(path, into)
    if kind in CONVERTERS and recipe.unpack:
        details["converted"] = CONVERTERS[kind](root)
        console.say(f"converted into {root}: {details['converted']}")
    return table, details
