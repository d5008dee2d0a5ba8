"""fetch: data sets from the hub, unpacked; or the exact steps where people must agree to something first."""

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import starmap
from pathlib import Path
from typing import Any

from pydantic import Field

from brainhive_cli.core import console, parts
from brainhive_cli.core.archives import bytes_to_write, destination, is_archive, unpack
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.needs import Need
from brainhive_cli.core.recipe import Names, Run, Subjects
from brainhive_cli.core.recipe import Recipe as BaseRecipe
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.data.exchange.downloads import (
    SOURCES,
    HubFile,
    Repository,
    Source,
    download_files,
    is_of_subjects,
    list_files,
    read_licence,
)

LISTED = 20
"""Files that a table lists; the largest first."""


class Recipe(BaseRecipe):
    """Which data sets."""

    names: Names = Field([], description=f"data sets: {', '.join(SOURCES)}")
    root: str = Field("", description="folder of the data set; default: its name below paths.data")
    repository: str = Field(
        "", description="data set of the hub to take in place of the usual one, owner/name"
    )
    subjects: Subjects = Field(None, description="whose recordings; default: all")
    dry_run: bool = Field(False, description="list the files, their size and licence; fetch nothing")
    unpack: bool = Field(True, description="unpack archives; they stay where they are")
    run: Run = Run(device="cpu")


@dataclass(frozen=True)
class Job:
    """One data set."""

    recipe: Recipe
    name: str

    @property
    def source(self) -> Source:
        """Where it is.

        Raises:
            RecipeError: if nobody said.
        """
        found = SOURCES.get(self.name.replace("_", "-"))
        if found is None:
            raise RecipeError(
                f"no source of a data set {self.name!r} is known", f"known: {', '.join(SOURCES)}"
            )
        return found

    @property
    def repository(self) -> str:
        """The repository that it is fetched from; empty where the hub does not have it."""
        return self.recipe.repository or self.source.repository

    @property
    def repositories(self) -> list[Repository]:
        """That one, and those with more of the data set."""
        return [Repository(self.repository), *self.source.further]

    @property
    def root(self) -> Path:
        """The folder of the data set."""
        return self.recipe.paths.dataset(self.name.replace("_", "-"), self.recipe.root)

    @cached_property
    def files(self) -> list[HubFile]:
        """The files that are wanted, as the hub lists them."""
        listed = (file for each in self.repositories for file in list_files(each, self.root))
        return [file for file in listed if is_of_subjects(file.name, self.recipe.subjects)]

    @property
    def due(self) -> list[HubFile]:
        """Those that are not there."""
        return [file for file in self.files if not file.is_there]

    def archives(self, files: Sequence[HubFile]) -> dict[Path, Path]:
        """List the archives among files, and into which folder each is unpacked; none with unpack=false."""
        paths = [self.root / file.name for file in files if self.recipe.unpack]
        return {path: destination(path, self.root, self.source.tops) for path in paths if is_archive(path)}

    def bytes_to_unpack(self, files: Sequence[HubFile]) -> int:
        """Count what unpacking these files, which are there, would write."""
        return sum(starmap(bytes_to_write, self.archives(files).items()))

    def bytes_needed(self) -> tuple[int, int]:
        """Count the bytes to download, and those to unpack; of archives to download at least their own."""
        packed = sum(file.size for file in self.due if self.recipe.unpack and is_archive(Path(file.name)))
        there = self.bytes_to_unpack([file for file in self.files if file.is_there])
        return sum(file.size for file in self.due), packed + there

    def summary(self) -> str:
        """Say from where, how much and on whose terms."""
        total = sum(file.size for file in self.files)
        due, unpacked = self.bytes_needed()
        licences = ", ".join(read_licence(each) or "its page names none" for each in self.repositories)
        names = " and ".join(each.name for each in self.repositories)
        return (
            f"{self.name} from the hub's {names} to {self.root}: {len(self.files)} files, "
            f"{console.size(total)}, {console.size(due) if due else 'nothing'} to download"
            f"{f', at least {console.size(unpacked)} to unpack' if unpacked else ''}; "
            f"licence: {licences}; terms: {self.source.terms}"
        )

    def steps(self) -> list[str]:
        """List what people do themselves."""
        subjects = " ".join(map(str, self.recipe.subjects or self.source.subjects))
        root = shlex.quote(str(self.root))
        return [step.format(root=root, subjects=subjects) for step in self.source.steps]


def _jobs(recipe: Recipe) -> list[Job]:
    if not recipe.names:
        raise RecipeError("no data set is named", f"brainhive fetch NAME, of: {', '.join(SOURCES)}")
    for key in ("root", "repository"):
        if len(recipe.names) > 1 and getattr(recipe, key):
            raise RecipeError(f"{key} is of one data set, not of {len(recipe.names)}", "fetch one at a time")
    return [Job(recipe, name) for name in recipe.names]


def plan(recipe: Recipe) -> Plan:
    """Say what would be downloaded, how large it is and on whose terms; the hub is asked."""
    jobs = Plan.of({"data sets": lambda: ", ".join(job.name for job in _jobs(recipe))})
    if jobs.missing:
        return jobs
    named = [(job, each) for job in _jobs(recipe) for each in job.repositories if each.name]
    needs = [Need.of(f"files of {each.name}", partial(list_files, each, job.root)) for job, each in named]
    checks = {job.name: partial(_planned, job) for job in _jobs(recipe)}
    return Plan.of(checks, needs=lambda: [need for need in needs if need.error])


def _planned(job: Job) -> str:
    if not job.repository and job.source:
        raise MissingData(
            f"{job.name} is not on the hub; terms: {job.source.terms}", " && ".join(job.steps())
        )
    return job.summary()


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Fetch what the hub has, and unpack it; show the steps for what it does not have.

    Raises:
        MissingData: if the hub cannot be reached, or its terms were not accepted.
        BrainhiveError: if the disk has no room.
    """
    tables: list[console.Table] = []
    notes: dict[str, Any] = {}
    lacks = False
    jobs = _jobs(recipe)
    for job in jobs:
        if not job.repository and job.source:
            rows = tuple(enumerate(job.steps(), start=1))
            tables.append(
                console.Table(
                    f"{job.name}: get it by yourself; terms: {job.source.terms}",
                    ("", "step"),
                    rows,
                    is_copied=True,
                )
            )
            lacks |= not _is_there(job)
        else:
            tables.append(_fetched(job, recipe, notes))
        if job.source.others:
            console.say(f"{job.name}, also: {job.source.others}")
    return Result(
        jobs[0].root,
        tuple(tables),
        Measurements(notes={"fetched": notes}),
        hint=f"brainhive check {' '.join(recipe.names)}",
        exit_code=MissingData.exit_code * lacks,
    )


def _fetched(job: Job, recipe: Recipe, notes: dict[str, Any]) -> console.Table:
    console.say(job.summary())
    to_download, to_unpack = job.bytes_needed()
    notes[job.name] = {
        "repositories": [each.name for each in job.repositories],
        "files": len(job.files),
        "bytes": sum(f.size for f in job.files),
        "bytes_to_download": to_download,
        "bytes_to_unpack_at_least": to_unpack,
    }
    table = _table(job)  # as it was before
    if recipe.dry_run:
        return table
    _refuse_a_full_disk(job, to_download, to_unpack)
    if job.due:
        download_files(job.due, job.root)
        _refuse_a_full_disk(job, 0, job.bytes_to_unpack(job.files))  # as is known now
    for path, into in job.archives(job.files).items():
        console.say(f"unpacking {path} into {into}")
        notes[job.name][f"unpacked {path.name}"] = unpack(path, into)
    return table


def _refuse_a_full_disk(job: Job, download: int, unpacked: int) -> None:
    place = next(each for each in (job.root, *job.root.parents) if each.is_dir())
    free = shutil.disk_usage(place).free
    if download + unpacked > free:
        raise BrainhiveError(
            f"{job.name} needs {console.size(download)} to download and at least {console.size(unpacked)} to "
            f"unpack, {console.size(download + unpacked)} together; {console.size(free)} are free in {place}",
            "make room; take some: --subjects 1; another disk: root=FOLDER; or only download: unpack=false",
        )


def _table(job: Job) -> console.Table:
    largest = sorted(job.files, key=lambda file: -file.size)
    rows: list[tuple[str, ...]] = [
        (file.name, console.size(file.size), "there" if file.is_there else "to download")
        for file in largest[:LISTED]
    ]
    if rest := largest[LISTED:]:
        rows.append((f"{len(rest)} more", console.size(sum(file.size for file in rest)), ""))
    return console.Table(f"Files of {job.name}", ("file", "size", "state"), tuple(rows))


def _is_there(job: Job) -> bool:
    """Whether the pictures of every split are there already."""
    try:
        config = parts.resolve(
            "datasets", {"kind": job.name, **({"root": job.recipe.root} if job.recipe.root else {})}
        )
        dataset = config.build(job.recipe.paths)
        splits: Sequence[str] = dataset.splits
        return all(len(dataset.images(split)) for split in splits)
    except BrainhiveError:
        return False
