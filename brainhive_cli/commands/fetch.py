"""fetch: data sets from the hub or a web server, or the exact steps where people must agree to something."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from brainhive_cli.core import console, hub, parts
from brainhive_cli.core.archives import archive_ending, bytes_to_write, destination, unpack
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files import require_room
from brainhive_cli.core.inputs import Input, collect
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.lines import Line
from brainhive_cli.core.recipe import BaseRecipe, Names, Run, Subjects
from brainhive_cli.core.results import Result
from brainhive_cli.core.tables import Table
from brainhive_cli.data.exchange import digits69
from brainhive_cli.data.exchange.downloads import (
    SOURCES,
    RemoteFile,
    Repository,
    Source,
    download_files,
    is_of_subjects,
    list_files,
    read_licence,
)

CONVERTERS = {"digits69": digits69.write_folders}
"""What turns the files of a data set into folders that commands read, and says what it wrote."""
LISTED = 20
"""Files that a table lists; the largest first."""


class Recipe(BaseRecipe):
    """Recipe of fetch: the data sets."""

    computes = False

    names: Names = Field([], description=f"data sets: {', '.join(SOURCES)}")
    root: str = Field("", description="folder of the data set; default: its name below paths.data")
    repository: str = Field(
        "", description="data set of the hub to take instead of the usual one, owner/name"
    )
    subjects: Subjects = Field(None, description="whose recordings; default: all")
    unpack: bool = Field(True, description="unpack archives; they stay where they are")
    run: Run = Run(device="cpu")


@dataclass(frozen=True)
class Job:
    """Data set to be fetched.

    Attributes:
        kind: Its kind.
        source: Source of its files.
        root: The folder of the data set.
        repositories: Repositories that it is fetched from; none if the hub does not have it.
        subjects: Subjects of the recordings; None for all.
        unpacks: Whether archives are unpacked.
    """

    kind: str
    source: Source
    root: Path
    repositories: list[Repository]
    subjects: list[int] | None
    unpacks: bool

    @classmethod
    def resolve(cls, recipe: Recipe, name: str) -> Self:
        """Resolve the source and the folder of a data set; RecipeError if no source is known."""
        kind = name.replace("_", "-")
        if (source := SOURCES.get(kind)) is None:
            raise RecipeError(f"no source of a data set {name!r} is known", f"known: {', '.join(SOURCES)}")
        repository = recipe.repository or source.repository
        # files of a web server have fixed addresses: a repository would be ignored
        if repository and source.web:
            raise RecipeError(
                f"repository has no effect on {name}, which the hub does not have", "leave it out"
            )
        repositories = [Repository(repository), *source.further] if repository else []
        root = recipe.paths.dataset(kind, recipe.root)
        return cls(kind, source, root, repositories, recipe.subjects, recipe.unpack)

    def list_files(self) -> list[RemoteFile]:
        """List the files that are wanted, as the hub does."""
        # subjects select among the hub's files; those of a web server are always needed
        web = [RemoteFile(one.name, one.size, one.is_there(self.root), one) for one in self.source.web]
        listed = (file for repository in self.repositories for file in list_files(repository, self.root))
        return [*web, *(file for file in listed if is_of_subjects(file.name, self.subjects))]

    def archives(self, files: Sequence[RemoteFile]) -> dict[Path, Path]:
        """Map the archives among files to the folders for their content; none with unpack=false."""
        paths = [self.root / file.name for file in files if self.unpacks]
        return {
            path: destination(path, self.root, self.source.tops) for path in paths if archive_ending(path)
        }

    def bytes_needed(self, files: Sequence[RemoteFile]) -> tuple[int, int]:
        """Count the bytes to download, and those to unpack; of archives to download at least their own."""
        due = [file for file in files if not file.is_there]
        # content of archives to download is not known yet: at least their size
        packed = sum(file.size for file in due if self.unpacks and archive_ending(Path(file.name)))
        # archives on this disk list what is still to unpack
        here = self.archives([file for file in files if file.is_there])
        return sum(file.size for file in due), packed + sum(starmap(bytes_to_write, here.items()))

    def summary(self, files: Sequence[RemoteFile]) -> str:
        """Describe the source, the sizes and the licence."""
        due, unpacked = self.bytes_needed(files)
        # the licence as the hub says, next to the terms of the publisher
        licences = [read_licence(repository) or "its page names none" for repository in self.repositories]
        sources = [f"the hub's {repository.name}" for repository in self.repositories]
        sources += [file.url for file in self.source.web]
        terms = f"{', '.join(licences)}; terms: {self.source.terms}" if licences else self.source.terms
        return (
            f"{self.kind} from {' and '.join(sources)} to {self.root}: {len(files)} files, "
            f"{console.size(sum(file.size for file in files))}, "
            f"{console.size(due) if due else 'nothing'} to download"
            f"{f', at least {console.size(unpacked)} to unpack' if unpacked else ''}; licence: {terms}"
        )

    def steps(self) -> list[str]:
        """List what people do themselves."""
        subjects = " ".join(map(str, self.subjects or self.source.subjects))
        root = shlex.quote(str(self.root))
        return [step.format(root=root, subjects=subjects) for step in self.source.steps]


def _resolve(recipe: Recipe) -> list[Job]:
    """Resolve all data sets; RecipeError if none is named, or a key of one is set for several."""
    if not recipe.names:
        raise RecipeError("no data set is named", f"{Line('fetch', 'NAME')}, of: {', '.join(SOURCES)}")
    # these keys describe a single data set
    for key in ("root", "repository"):
        if len(recipe.names) > 1 and getattr(recipe, key):
            raise RecipeError(f"{key} is of one data set, not of {len(recipe.names)}", "fetch one at a time")
    return [Job.resolve(recipe, name) for name in recipe.names]


def inputs(recipe: Recipe) -> list[Input]:
    """List the downloads with sizes and licences, as the hub says, or else as far as they are known."""

    def look(job: Job) -> list[Input]:
        # only people can get it, so the steps are the way out
        if not (job.repositories or job.source.web):
            raise MissingData(f"{job.kind} is not on the hub; {job.source.about}", " && ".join(job.steps()))
        try:
            files = job.list_files()
        except hub.Unreachable:  # what is known without it
            looked = [
                Input.of(f"{one.name}: {job.source.about}", partial(list_files, one, job.root))
                for one in job.repositories
            ]
            return [one for one in looked if one.error is not None]
        # sizes, and whether the disk has room for them
        missing, to_unpack = job.bytes_needed(files)
        _require_room(job, missing, to_unpack)
        return [Input(f"{job.kind}: {job.summary(files)}", missing)]

    return collect(*(partial(look, job) for job in _resolve(recipe)))


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Fetch what the hub has, and unpack it; show the steps for what it does not have.

    Raises:
        MissingData: if the hub cannot be reached, or its terms were not accepted.
        BrainhiveError: if the disk has no room.
    """
    # fetch each data set from its source, or list the steps that people do themselves
    tables = []
    details = {}
    lacks = False
    jobs = _resolve(recipe)
    for job in jobs:
        if job.repositories or job.source.web:
            table, details[job.kind] = _fetch(job)
        else:
            rows = tuple(enumerate(job.steps(), start=1))
            title = f"{job.kind}: get it by yourself; terms: {job.source.terms}"
            table = Table(title, ("", "step"), rows, is_copied=True)
            # people may have followed the steps since the last command
            lacks |= not _is_there(job, recipe)
        tables.append(table)
        if job.source.elsewhere:
            console.say(f"{job.kind}, also: {job.source.elsewhere}")

    # the exit code tells programs that a data set is still missing
    kind = jobs[0].kind
    return Result(
        jobs[0].root,
        tuple(tables),
        details={"fetched": details},
        hint=Line("workflow", ("recipe", kind)) if kind in CONVERTERS else Line("check", *recipe.names),
        exit_code=MissingData.exit_code * lacks,
    )


def _fetch(job: Job) -> tuple[Table, dict[str, Any]]:
    """Download and unpack a data set; return the table of its files before the download, and details."""
    # count files and bytes
    files = job.list_files()
    console.say(job.summary(files))
    missing, to_unpack = job.bytes_needed(files)
    details = {
        "repositories": [repository.name for repository in job.repositories],
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "bytes_to_download": missing,
        "bytes_to_unpack_at_least": to_unpack,
    }

    # list the largest files, and the others together
    largest = sorted(files, key=lambda file: -file.size)
    rows = [
        (file.name, console.size(file.size), "there" if file.is_there else "to download")
        for file in largest[:LISTED]
    ]
    if rest := largest[LISTED:]:
        rows.append((f"{len(rest)} more", console.size(sum(file.size for file in rest)), ""))
    table = Table(f"Files of {job.kind}", ("file", "size", "state"), rows)

    # download the files that are missing
    _require_room(job, missing, to_unpack)
    if due := [file for file in files if not file.is_there]:
        download_files(due, job.root)
        to_unpack = sum(starmap(bytes_to_write, job.archives(files).items()))  # as is known now
        _require_room(job, 0, to_unpack)

    # unpack the archives, or convert the files
    for path, into in job.archives(files).items():
        console.say(f"unpacking {path} into {into}")
        details[f"unpacked {path.name}"] = unpack(path, into)
    if job.kind in CONVERTERS and job.unpacks:
        details["converted"] = CONVERTERS[job.kind](job.root)
        console.say(f"converted into {job.root}: {details['converted']}")
    return table, details


def _require_room(job: Job, download: int, unpacked: int) -> None:
    what = (
        f"{job.kind}, {console.size(download)} to download and at least {console.size(unpacked)} to unpack,"
    )
    way = "make room; take some: --subjects 1; another disk: root=FOLDER; or only download: unpack=false"
    require_room(job.root, download + unpacked, what, way)


def _is_there(job: Job, recipe: Recipe) -> bool:
    """Tell whether the pictures of every split are there already."""
    # ask the data set itself, which knows where its pictures lie
    root = {"root": recipe.root} if recipe.root else {}
    try:
        dataset = parts.resolve("datasets", {"kind": job.kind, **root}).build(recipe.paths)
        return all(len(dataset.images(split)) for split in dataset.splits)
    except BrainhiveError:
        return False
