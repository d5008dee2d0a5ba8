"""fetch: downloads of data sets from the hub, NEMAR, OpenNeuro, S3 or a web server.

Some data sets are only given to people who have signed an agreement with the authors.
Fetch lists the steps by which a user gets them.

A reference names a data set on a host, as `nemar:nm000232` or `s3:BUCKET/PREFIX`. The
reference of a web server is empty, because its files are listed in `SOURCES`.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import Field

from brainhive_cli.core import console, hub
from brainhive_cli.core.archives import choose_destination, find_archive_suffix, unpack
from brainhive_cli.core.command import Input, Result, collect_inputs
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
"""Functions that convert the files of a data set to folders that other commands read,
keyed by the data set. Each takes the folder of the data set, and returns a description
of the new folders.
"""
MAX_LISTED_FILES = 20
"""Largest number of files in a table."""
FilesByHost = dict[str, list[RemoteFile]]
"""Files, keyed by the reference of their host. The key of a web server is empty."""


class Recipe(FileRecipe):
    """Recipe of fetch, with the data sets and the files to select."""

    names: NameList = Field(
        [],
        description=f"data sets: {', '.join(SOURCES)}; or nemar:ID[@VERSION], "
        "openneuro:ID, s3:BUCKET/PREFIX, hub:datasets/OWNER/NAME, each with or without "
        "a folder after it",
    )
    root: str = Field(
        "", description="folder of the data set; default: its name below paths.data"
    )
    subjects: Subjects = Field(
        None, description="subjects whose recordings are fetched; default: all"
    )
    include: NameList = Field(
        [],
        description="patterns of the files to fetch, such as sub-*/**; a pattern after "
        "! leaves files out; default: all",
    )
    unpack: bool = Field(True, description="unpack archives; they stay where they are")


def _resolve_sources(recipe: Recipe) -> dict[str, tuple[Source, Path]]:
    """Find the source (hosts and licence) and the folder of each data set to download.

    A recipe names a data set by a name that Brainhive knows, such as `things-eeg`, or
    by a reference to a host, such as `nemar:nm000232`.

    Args:
        recipe: Settings of the command, with the names or references of data sets.

    Returns:
        Pairs of a source and a local folder, keyed by the name or reference of the data
        set.

    Raises:
        RecipeError: in three cases. The recipe names no data set. It names an unknown
            data set. It names several data sets, but a single folder in `root`.
    """
    if not recipe.names:
        raise RecipeError(
            "no data set is named", f"{Line('fetch', 'NAME')}, of: {', '.join(SOURCES)}"
        )
    if len(recipe.names) > 1 and recipe.root:
        raise RecipeError(
            f"root is the folder of one data set, but {len(recipe.names)} are named",
            "fetch them one at a time",
        )

    # a reference has a colon. All other names are keys of `SOURCES`.
    sources = {}
    for name in recipe.names:
        host, colon, identifier = name.partition(":")
        kind = name if colon else name.replace("_", "-")
        if host in LISTERS and identifier.strip("/"):
            source = Source((name,))
            folder = _name_folder(host, identifier)
        elif kind in SOURCES:
            source = SOURCES[kind]
            folder = kind
        else:
            raise RecipeError(
                f"no data set {name!r} is known",
                f"known: {', '.join(SOURCES)}; or nemar:ID, openneuro:ID, "
                "s3:BUCKET/PREFIX, hub:datasets/OWNER/NAME",
            )
        sources[kind] = source, recipe.paths.dataset(folder, recipe.root)
    return sources


def _name_folder(host: str, identifier: str) -> str:
    """Return the name of the local folder for a data set of a host.

    The folder has the name of the data set, of the repository or of the bucket.

    Args:
        host: Kind of the host, such as `nemar`.
        identifier: Reference without the host, such as `nm000232@v1.1.0`.
    """
    without_version = identifier.partition("@")[0].strip("/")
    names = without_version.removeprefix("datasets/").split("/")
    # a repository of the hub has a name of two parts, OWNER/NAME
    return names[1] if host == "hub" and len(names) > 1 else names[0]


def _try_hosts(hosts: Sequence[str], use_host: Callable[[str], Any]) -> Any:
    """Call a function with one host after another, until it succeeds.

    Args:
        hosts: References of the hosts, in the order of preference.
        use_host: Function that takes the reference of a host. It raises `MissingData`
            if the host fails.

    Returns:
        Result of the function for the first host that does not fail.

    Raises:
        MissingData: if all hosts fail. The error is the error of the last host.
    """
    for index, host in enumerate(hosts):
        is_last = index == len(hosts) - 1
        try:
            return use_host(host)
        except MissingData as error:
            if is_last:
                raise
            console.warn(f"{host}: {error.message}; next host: {hosts[index + 1]}")


def _list_requested_files(
    source: Source, root: Path, recipe: Recipe, host: str
) -> list[RemoteFile]:
    """List the files on a host, and select the files that the recipe asks for.

    A warning is printed if the local folder has files of another version of the data
    set.

    Args:
        source: Source of the data set, with a list of files if the host is a web
            server.
        root: Local folder of the data set.
        recipe: Settings of the command, with subjects and patterns of file names.
        host: Reference of the host, such as `nemar:nm000232`. Empty for a web server.

    Returns:
        The selected files. They are not downloaded yet.

    Raises:
        MissingData: if the host cannot be reached.
        RecipeError: if no file of the host is selected.
    """
    # List all files. If the hub (the Hugging Face Hub) cannot be reached, the
    # hint of the error is a command that downloads the files. Add the local
    # folder to this command.
    try:
        host_files = list_files(host) if host else list(source.web)
    except hub.Unreachable as error:
        if not host.startswith("hub:"):
            raise
        hint = f"{error.hint} --local-dir {shlex.quote(str(root))}"
        raise hub.Unreachable(error.message, hint) from error

    # warn of local files that are not in the version of the host
    outdated_names = find_outdated(host_files, root)
    if outdated_names:
        console.warn(
            f"{root} holds files of another version, which are not in "
            f"{host_files[0].version}: {console.summarise_names(outdated_names)}; "
            "remove them"
        )

    # select files by the subjects and patterns of the recipe
    files = choose_files(host_files, recipe.subjects, recipe.include)
    if not files:
        examples = ", ".join(file.name for file in host_files[:3])
        raise RecipeError(
            f"none of the {len(host_files)} files of {host or host_files[0].url} "
            "matches the subjects and patterns",
            f"choose files by --include 'PATTERN', such as: {examples} …",
        )
    return files


def _group_hosts(source: Source) -> list[tuple[str, ...]]:
    """Group the hosts of a data set, such that hosts of a group have the same files.

    All groups together have all files of the data set.

    Args:
        source: Source of the data set.

    Returns:
        A tuple of references for each group. The reference of a web server is empty. If
        the list is empty, the data set cannot be downloaded from any host.
    """
    groups = [source.hosts] if source.hosts else []
    groups += [(host,) for host in source.further]
    if source.web:
        groups.append(("",))
    return groups


def _list_source(
    kind: str, source: Source, root: Path, recipe: Recipe
) -> tuple[FilesByHost, FilesByHost]:
    """List the files of a data set, and require free space for the download.

    Args:
        kind: Name of the data set.
        source: Source of the data set, with its hosts.
        root: Local folder of the data set.
        recipe: Settings of the command, with subjects and patterns of file names.

    Returns:
        The files that the recipe selects, and the files among them to download. Both
        are lists of files, keyed by the reference of the host.

    Raises:
        MissingData: if no host of a group can be reached.
        RecipeError: if no file of a host is selected.
        BrainhiveError: if the disk has too little space.
    """

    def list_host(host: str) -> tuple[str, list[RemoteFile]]:
        return host, _list_requested_files(source, root, recipe, host)

    # list the files of the first host in each group that can be reached
    files_by_host = dict(_try_hosts(hosts, list_host) for hosts in _group_hosts(source))

    # choose the files that the local folder lacks, or has with other contents
    missing_by_host = {}
    for host, files in files_by_host.items():
        missing_by_host[host] = find_missing(files, root)
    missing_files = list(chain.from_iterable(missing_by_host.values()))
    changed_names = [file.name for file in missing_files if (root / file.name).exists()]
    if changed_names:
        console.warn(
            f"{root}: files that differ from the host are fetched again and replaced: "
            f"{console.summarise_names(changed_names)}"
        )

    # archives stay next to their unpacked files, which need at least the same space
    download_bytes = _count_bytes(missing_by_host)
    unpacked_bytes = 0
    if recipe.unpack:
        for file in missing_files:
            if find_archive_suffix(Path(file.name)):
                unpacked_bytes += file.size
    require_free_space(
        root,
        download_bytes + unpacked_bytes,
        f"{kind}, {console.size(download_bytes)} to download and at least "
        f"{console.size(unpacked_bytes)} to unpack,",
        "free some space; fetch less: --subjects 1 or --include 'PATTERN'; use another "
        "disk: root=FOLDER; or only download: unpack=false",
    )
    return files_by_host, missing_by_host


def _describe_source(
    kind: str,
    source: Source,
    root: Path,
    files_by_host: Mapping[str, Sequence[RemoteFile]],
    missing_by_host: Mapping[str, Sequence[RemoteFile]],
) -> str:
    """Describe a download in a line of text, before the user confirms the download.

    Args:
        kind: Name of the data set.
        source: Source of the data set, with its terms.
        root: Local folder of the data set.
        files_by_host: Selected files, keyed by the reference of the host. The key of a
            web server is empty.
        missing_by_host: Selected files that the local folder lacks, keyed like
            `files_by_host`.

    Returns:
        The hosts, the local folder, the number and size of the files, the size of the
        download, and the licence.
    """
    # name the hosts, and sum the sizes. A web server has no reference, so the address
    # of a file stands for the server.
    files = list(chain.from_iterable(files_by_host.values()))
    total = console.size(_count_bytes(files_by_host))
    missing_bytes = _count_bytes(missing_by_host)
    download = console.size(missing_bytes) if missing_bytes else "nothing"
    addresses = [host or files[0].url for host in files_by_host]

    # add the licence that each host states to the terms of the publisher
    licences = []
    for host, host_files in files_by_host.items():
        if host:
            licence = read_licence(host, host_files) or "not stated on its page"
            if licence not in licences:
                licences.append(licence)
    licence_text = f"{', '.join(licences)}; terms: " if licences else ""
    return (
        f"{kind} from {' and '.join(addresses)} to {root}: {len(files)} files, "
        f"{total}, {download} to download; licence: {licence_text}{source.terms}"
    )


def _count_bytes(files_by_host: Mapping[str, Sequence[RemoteFile]]) -> int:
    """Sum the sizes of the files of all hosts, in bytes."""
    return sum(file.size for file in chain.from_iterable(files_by_host.values()))


def _list_steps(source: Source, root: Path, recipe: Recipe) -> list[str]:
    """List the steps by which a user downloads a data set by hand.

    Args:
        source: Source of the data set. Its steps have fields for folder and subjects.
        root: Local folder of the data set, for the field `{root}`.
        recipe: Settings of the command. Its subjects are for the field `{subjects}`.
    """
    subjects = " ".join(map(str, recipe.subjects or source.subjects))
    return [
        step.format(root=shlex.quote(str(root)), subjects=subjects)
        for step in source.steps
    ]


def inputs(recipe: Recipe) -> list[Input]:
    """List the downloads of a recipe, so that the user can confirm them.

    Args:
        recipe: Settings of the command, with the names of the data sets.

    Returns:
        An input for each data set, with the size and licence of the download. If no
        host can be reached, the input has an error, and the size and licence that
        Brainhive knows without a network. If a data set has to be downloaded by hand,
        the input has an error. The hint of this error lists the steps for the user.
    """

    def list_download(kind: str, source: Source, root: Path) -> list[Input]:
        if not _group_hosts(source):
            raise MissingData(
                f"{kind} has to be downloaded by hand; {source.about}",
                " && ".join(_list_steps(source, root, recipe)),
            )
        try:
            files_by_host, missing_by_host = _list_source(kind, source, root, recipe)
        except hub.Unreachable as error:
            return [Input(f"{kind}: {source.about}", error=error)]
        description = _describe_source(
            kind, source, root, files_by_host, missing_by_host
        )
        return [Input(f"{kind}: {description}", _count_bytes(missing_by_host))]

    list_downloads = [
        partial(list_download, kind, source, root)
        for kind, (source, root) in _resolve_sources(recipe).items()
    ]
    return collect_inputs(*list_downloads)


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Download and unpack data sets, or list the steps by which a user gets them.

    Args:
        recipe: Settings of the command, with the names of the data sets.
        launch: Processes and device. They are not used.
        force: Has no effect, because changed and missing files are downloaded at every
            call.

    Returns:
        A table for each data set: its files, or the steps to download it by hand. The
        exit code is the code of `MissingData` if a data set has to be downloaded by
        hand. The hint is the command that usually comes next.

    Raises:
        MissingData: if no host can be reached, or if the user has not accepted the
            terms of the host.
        BrainhiveError: if the disk has too little space.
    """
    # fetch one data set after another
    tables = []
    details = {}
    exit_code = 0
    sources = _resolve_sources(recipe)
    for kind, (source, root) in sources.items():
        if _group_hosts(source):
            table, details[kind] = _fetch_source(kind, source, root, recipe)
        else:
            steps = _list_steps(source, root, recipe)
            table = Table(
                f"{kind} has to be downloaded by hand; terms: {source.terms}",
                ("", "step"),
                tuple(enumerate(steps, start=1)),
                is_copied=True,
            )
            exit_code = MissingData.exit_code
        tables.append(table)
        if source.elsewhere:
            console.say(f"{kind}, also: {source.elsewhere}")

    # the hint depends on the first data set: convert, prepare or check it
    kind, (_, root) = next(iter(sources.items()))
    if kind in CONVERTERS:
        hint = Line("workflow", ("recipe", kind))
    elif (root / DESCRIPTION).is_file():
        hint = Line("prepare", ("from", "recording"), f"preparation.root={root}")
    else:
        known_names = [name for name in recipe.names if name in SOURCES]
        hint = Line("check", *known_names)
    return Result(
        root,
        tuple(tables),
        details={"fetched": details},
        hint=hint,
        exit_code=exit_code,
    )


def _fetch_source(
    kind: str, source: Source, root: Path, recipe: Recipe
) -> tuple[Table, dict[str, Any]]:
    """Download a data set, and unpack its archives if the recipe asks for it.

    Args:
        kind: Name of the data set.
        source: Source of the data set, with its hosts.
        root: Local folder of the data set.
        recipe: Settings of the command, with subjects and patterns of file names.

    Returns:
        A table of the files, and details for programs: number of files, bytes, and a
        description of each unpacked archive.
    """
    # list the files, and describe the download before it starts
    files_by_host, missing_by_host = _list_source(kind, source, root, recipe)
    console.say(_describe_source(kind, source, root, files_by_host, missing_by_host))
    files = list(chain.from_iterable(files_by_host.values()))
    missing_files = set(chain.from_iterable(missing_by_host.values()))
    table = _tabulate_files(kind, files, missing_files)
    details: dict[str, Any] = {
        "files": len(files),
        "bytes": _count_bytes(files_by_host),
    }

    # Download from the host that has listed the files. If it fails, list the files of
    # the next host of its group, and download from there.
    def download_from(host: str) -> None:
        if host not in missing_by_host:
            host_files = _list_requested_files(source, root, recipe, host)
            missing_by_host[host] = find_missing(host_files, root)
        download_files(missing_by_host[host], root)

    for hosts in _group_hosts(source):
        has_listed = [host in files_by_host for host in hosts]
        start = has_listed.index(True)  # first host that could be reached
        _try_hosts(hosts[start:], download_from)

    # unpack the archives, and convert files that no other command can read
    if recipe.unpack:
        for file in files:
            path = root / file.name
            if find_archive_suffix(path):
                folder = choose_destination(path, root, source.tops)
                console.say(f"unpacking {path} into {folder}")
                details[f"unpacked {path.name}"] = unpack(path, folder)
        if kind in CONVERTERS:
            details["converted"] = CONVERTERS[kind](root)
            console.say(f"converted into {root}: {details['converted']}")
    return table, details


def _tabulate_files(
    kind: str, files: Sequence[RemoteFile], missing_files: set[RemoteFile]
) -> Table:
    """Summarise the selected files of a data set after a download.

    Args:
        kind: Name of the data set.
        files: All files that the recipe selects.
        missing_files: Files of `files` that were absent before this download.

    Returns:
        A table of the largest files. If there are more than `MAX_LISTED_FILES` files,
        the last row has the number and the size of all other files.
    """
    # list the largest files
    sorted_files = sorted(files, key=lambda file: -file.size)
    rows = []
    for file in sorted_files[:MAX_LISTED_FILES]:
        state = "fetched" if file in missing_files else "was there"
        rows.append((file.name, console.size(file.size), state))

    # sum up the other files
    small_files = sorted_files[MAX_LISTED_FILES:]
    if small_files:
        total_bytes = sum(file.size for file in small_files)
        rows.append((f"{len(small_files)} more", console.size(total_bytes), ""))
    return Table(f"Files of {kind}", ("file", "size", "state"), rows)
