"""fetch: downloads of data sets from the hub, NEMAR, OpenNeuro, S3 or a web server."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from brainhive_cli.core.base import (
    Failures,
    Line,
    MissingData,
    RecipeError,
    Table,
    console,
)
from brainhive_cli.core.files import (
    Input,
    choose_destination,
    collect_inputs,
    find_archive_suffix,
    hub,
    require_free_space,
    unpack,
)
from brainhive_cli.core.recipes import (
    START,
    Arguments,
    FileRecipe,
    NameList,
    flag_field,
)
from brainhive_cli.core.runs import Launch, Result
from brainhive_cli.data.downloads import (
    DESCRIPTION_FILE,
    LISTERS,
    NOTES_FILE,
    SOURCES,
    RemoteFile,
    Source,
    choose_files,
    download_files,
    find_missing_files,
    find_outdated_files,
    list_files,
    read_licence,
)
from brainhive_cli.data.exchange import digits69
from brainhive_cli.data.files import Subjects

CONVERTERS = {"digits69": digits69.write_folders}
"""Function by data set that converts its folder for other commands, and returns a
description of the new folders.
"""
FilesByHost = dict[str, list[RemoteFile]]
"""Files by the reference of their host, such as `nemar:nm1`, or "" for a web server."""


class Recipe(FileRecipe):
    """Recipe of fetch, with the data sets and the files to select."""

    runs_code = False
    section = START
    summary = (
        "Download a data set, or list the steps if you must accept its terms first."
    )
    example = "things-eeg --subjects 1,2"

    names: Annotated[NameList, Arguments(names="@datasets")] = Field(
        [],
        description=f"data sets: {', '.join(SOURCES)}; or nemar:ID[@VERSION], "
        "openneuro:ID, s3:BUCKET/PREFIX, hub:datasets/OWNER/NAME, each with or without "
        "a folder after it",
    )
    root: str = Field(
        "", description="folder of the data set; default: its name below paths.data"
    )
    subjects: Subjects = flag_field(
        None, "subjects to download, as in 1,2; default: all"
    )
    include: NameList = flag_field(
        [],
        "patterns of the files to download, as in 'sub-*/**'. A pattern "
        "after ! leaves files out; default: all",
    )
    unpack: bool = Field(True, description="unpack archives; they stay where they are")


def _resolve_sources(recipe: Recipe) -> dict[str, tuple[Source, Path]]:
    """Find the source (hosts and licence) and the local folder of each data set.

    Returns:
        Sources and folders by name (`things-eeg`) or reference (`nemar:nm000232`).

    Raises:
        RecipeError: if no data set or an unknown data set is named, or if several are
            named for a single `root`.
    """
    if not recipe.names:
        raise RecipeError(
            "fetch needs the name of a data set",
            f"{Line('fetch', 'NAME')}, where NAME is one of: {', '.join(SOURCES)}",
        )
    if len(recipe.names) > 1 and recipe.root:
        raise RecipeError(
            f"root is the folder of one data set, but {len(recipe.names)} are named",
            "fetch them one at a time",
        )

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
                f"the data set {name!r} is unknown",
                f"choose from: {', '.join(SOURCES)}. Other data: nemar:ID, "
                "openneuro:ID, s3:BUCKET/PREFIX, hub:datasets/OWNER/NAME",
            )
        sources[kind] = source, recipe.paths.dataset(folder, recipe.root)
    return sources


def _name_folder(host: str, identifier: str) -> str:
    """Name a local folder after the data set, the repository or the bucket.

    Args:
        host: Kind of the host, such as `nemar`.
        identifier: Identifier on the host, such as `nm000232@v1.1.0`.
    """
    without_version = identifier.partition("@")[0].strip("/")
    names = without_version.removeprefix("datasets/").split("/")
    # repositories of the hub are called OWNER/NAME
    return names[1] if host == "hub" and len(names) > 1 else names[0]


def _try_hosts(hosts: Sequence[str], use_host: Callable[[str], Any]) -> Any:
    """Call a function with one host after another, until it succeeds.

    Args:
        hosts: References of the hosts, in the order of preference.
        use_host: Function that raises `MissingData` if the host fails.

    Returns:
        Result of the first call that succeeds.

    Raises:
        MissingData: if all hosts fail (the error of the last host).
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
    """List the files of a host that the subjects and patterns of a recipe select.

    Args:
        source: Source of the data set.
        root: Local folder of the data set, in which files of other versions give a
            warning.
        recipe: Settings of the command.
        host: Reference of the host, such as `nemar:nm000232`, or "" for a web server.

    Raises:
        MissingData: if the host cannot be reached.
        RecipeError: if no file of the host is selected.
    """
    # if the hub cannot be reached, the hint is a download command without the folder
    try:
        host_files = list_files(host) if host else list(source.web_files)
    except hub.Unreachable as error:
        if not host.startswith("hub:"):
            raise
        hint = f"{error.hint} --local-dir {shlex.quote(str(root))}"
        raise hub.Unreachable(error.message, hint) from error

    outdated_names = find_outdated_files(host_files, root)
    if outdated_names:
        console.warn(
            f"{root} holds files of another version, which are not in "
            f"{host_files[0].version}: {console.summarise_names(outdated_names)}; "
            "remove them"
        )

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
    """Group the references of hosts by equal files, with "" for a web server.

    The list is empty if the data set has to be downloaded by hand.
    """
    groups = [source.hosts] if source.hosts else []
    groups += [(host,) for host in source.further_hosts]
    if source.web_files:
        groups.append(("",))
    return groups


def _list_source(
    kind: str, source: Source, root: Path, recipe: Recipe
) -> tuple[FilesByHost, FilesByHost]:
    """List the files of a data set, and require free space for the download.

    Args:
        kind: Name of the data set.
        source: Source of the data set.
        root: Local folder of the data set.
        recipe: Settings of the command.

    Returns:
        The files that the recipe selects, and the files among them to download.

    Raises:
        MissingData: if no host of a group can be reached.
        RecipeError: if no file of a host is selected.
        BrainhiveError: if the disk has too little space.
    """

    def list_host(host: str) -> tuple[str, list[RemoteFile]]:
        return host, _list_requested_files(source, root, recipe, host)

    # list files, and the files that the local folder lacks or has with other contents
    files_by_host = {}
    missing_by_host = {}
    for hosts in _group_hosts(source):
        host, files = _try_hosts(hosts, list_host)
        files_by_host[host] = files
        missing_by_host[host] = find_missing_files(files, root)
    missing_files = list(chain.from_iterable(missing_by_host.values()))
    changed_names = [file.name for file in missing_files if (root / file.name).exists()]
    if changed_names:
        console.warn(
            f"{root}: files that differ from the host are fetched again and replaced: "
            f"{console.summarise_names(changed_names)}"
        )

    # unpacked files need at least the space of the archive, which stays
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
    """Describe the hosts, the folder, the sizes and the licence of a download.

    Args:
        kind: Name of the data set.
        source: Source of the data set, with its terms.
        root: Local folder of the data set.
        files_by_host: Selected files.
        missing_by_host: Files to download.
    """
    files = list(chain.from_iterable(files_by_host.values()))
    total = console.size(_count_bytes(files_by_host))
    missing_bytes = _count_bytes(missing_by_host)
    download = console.size(missing_bytes) if missing_bytes else "nothing"

    addresses = []
    licences = []
    for host, host_files in files_by_host.items():
        # a web server has no reference, so the address of its first file is shown
        addresses.append(host or host_files[0].url)
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
    """Sum the sizes of files in bytes."""
    return sum(file.size for file in chain.from_iterable(files_by_host.values()))


def _list_steps(source: Source, root: Path, recipe: Recipe) -> list[str]:
    """List the steps by which a user downloads a data set by hand."""
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
        An input for each data set. It has an error if no host can be reached, or if the
        data set has to be downloaded by hand.
    """

    def list_download(kind: str, source: Source, root: Path) -> list[Input]:
        if not _group_hosts(source):
            raise MissingData(
                f"{kind} has to be downloaded by hand; {source.summary}",
                " && ".join(_list_steps(source, root, recipe)),
            )
        try:
            files_by_host, missing_by_host = _list_source(kind, source, root, recipe)
        except hub.Unreachable as error:
            return [Input(f"{kind}: {source.summary}", error=error)]
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
    """Download and unpack data sets, or list the steps to download them by hand.

    If a data set cannot be downloaded, the others are downloaded nevertheless.

    Args:
        recipe: Settings of the command, with the names of the data sets.
        launch: Processes and device. They are not used.
        force: Not used, because missing and changed files are always downloaded.

    Returns:
        A table of files or steps for each data set. Steps set the exit code of
        `MissingData`.

    Raises:
        MissingData: if no host can be reached, or if the user has not accepted the
            terms of the host.
        RecipeError: if a data set is unknown, or if no file is selected.
        BrainhiveError: if the disk has too little space.
    """
    tables = []
    details = {}
    exit_code = 0
    failures = Failures()
    sources = _resolve_sources(recipe)
    for kind, (source, root) in sources.items():
        if _group_hosts(source):
            with failures.collect():
                table, details[kind] = _fetch_source(kind, source, root, recipe)
                tables.append(table)
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
        if source.other_sources:
            console.say(f"{kind}, also: {source.other_sources}")
    exit_code = max(exit_code, failures.finish(len(sources)))

    # suggest the next command for the first data set
    kind, (_, root) = next(iter(sources.items()))
    if kind in CONVERTERS:
        hint = Line("workflow", ("recipe", kind))
    elif (root / DESCRIPTION_FILE).is_file():
        hint = Line("prepare", ("from", "recording"), f"preparation.root={root}")
    else:
        known_names = [name for name in recipe.names if name in SOURCES]
        hint = Line("check", *known_names)
    return Result(
        root,
        tuple(tables),
        details={"fetched": details} | failures.as_details(),
        hint=hint,
        exit_code=exit_code,
    )


def _fetch_source(
    kind: str, source: Source, root: Path, recipe: Recipe
) -> tuple[Table, dict[str, Any]]:
    """Download a data set, and unpack its archives if the recipe asks for it.

    Args:
        kind: Name of the data set.
        source: Source of the data set.
        root: Local folder of the data set.
        recipe: Settings of the command.

    Returns:
        A table of the files, and details by name, such as `files` (their number).
    """
    files_by_host, missing_by_host = _list_source(kind, source, root, recipe)
    console.say(_describe_source(kind, source, root, files_by_host, missing_by_host))
    files = list(chain.from_iterable(files_by_host.values()))
    missing_files = set(chain.from_iterable(missing_by_host.values()))
    table = _tabulate_files(kind, files, missing_files)
    details: dict[str, Any] = {
        "files": len(files),
        "bytes": _count_bytes(files_by_host),
    }

    # download from the host that has listed the files, or else the next of its group
    def download_from(host: str) -> None:
        if host not in missing_by_host:
            host_files = _list_requested_files(source, root, recipe, host)
            missing_by_host[host] = find_missing_files(host_files, root)
        download_files(missing_by_host[host], root)

    for hosts in _group_hosts(source):
        has_listed = [host in files_by_host for host in hosts]
        start = has_listed.index(True)
        _try_hosts(hosts[start:], download_from)

    if recipe.unpack:
        for file in files:
            path = root / file.name
            if find_archive_suffix(path):
                folder = choose_destination(path, root, source.member_prefixes)
                console.say(f"unpacking {path} into {folder}")
                details[f"unpacked {path.name}"] = unpack(path, folder, NOTES_FILE)
        if kind in CONVERTERS:
            details["converted"] = CONVERTERS[kind](root)
            console.say(f"converted into {root}: {details['converted']}")
    return table, details


def _tabulate_files(
    kind: str, files: Sequence[RemoteFile], missing_files: set[RemoteFile]
) -> Table:
    """Make a table of the largest files of a data set, and of the sum of the others.

    Args:
        kind: Name of the data set.
        files: All files that the recipe selects.
        missing_files: Files that this command downloads.
    """
    sorted_files = sorted(files, key=lambda file: -file.size)
    rows = []
    # Largest number of files in a table.
    max_listed_files = 20
    for file in sorted_files[:max_listed_files]:
        state = "fetched" if file in missing_files else "was there"
        rows.append((file.name, console.size(file.size), state))

    small_files = sorted_files[max_listed_files:]
    if small_files:
        total_bytes = sum(file.size for file in small_files)
        rows.append((f"{len(small_files)} more", console.size(total_bytes), ""))
    return Table(f"Files of {kind}", ("file", "size", "state"), rows)
