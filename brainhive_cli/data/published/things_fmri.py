"""THINGS-fMRI: single-trial betas, a table of voxels and trials that pandas wrote."""

import csv
import re
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core.arrays import Float32
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.key_types import yaml_no_as_text
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.files.published_files import (
    cut_ending,
    fetch_line,
    find_file,
    read_table,
)
from brainhive_cli.data.fmri.betas import PublishedSteps, Subject
from brainhive_cli.data.signals.spaces import Voxels

NAME = "things-fmri"
SOURCE = fetch_line(NAME)
FILES = ("ResponseData.h5", "StimulusMetadata.csv", "VoxelMetadata.csv")
READ_VOXELS = 2048
"""Rows of the table that are read at a time: all trials of them are 160 MB."""
TESTED = "training trials of concepts that test pictures show"


class ThingsFmriBetas(PublishedSteps):
    """THINGS-fMRI from its single-trial betas: a table of voxels and trials, written by
    pandas, read by h5py.

    sub-0X_{ResponseData.h5,StimulusMetadata.csv,VoxelMetadata.csv} of betas_csv.

    Columns of 0 and 1 in the table of voxels are regions, other numbers maps. Noise
    ceilings and split-half correlations were measured on test pictures: who chooses
    voxels by them chooses by the test.
    """

    name = NAME
    patterns = ("sub-{subject:02d}_" + FILES[0],)
    unit = "z-score"

    zscore: Annotated[Literal["session", "run", "no"], yaml_no_as_text] = Field(
        "no",
        description="z-score voxels again, within a session or run; as published they "
        "are on that scale",
    )
    drop_test_concepts: bool = Field(
        True,
        description="leave training pictures out whose concept a test picture shows, "
        "as papers do",
    )

    def open_subject(self, root: Path, subject: int) -> Subject:
        """Read the tables of trials and of voxels, and find the responses in pandas'
        table.
        """
        # trials; training pictures of tested concepts have a reason instead of their
        # split
        responses, stimuli, voxels = (
            find_file(root, f"sub-{subject:02d}_{name}", SOURCE) for name in FILES
        )
        table = read_table(stimuli, SOURCE, _read_trial)
        tested = {
            concept
            for concept, _, split, *_ in table
            if split == "test" and self.drop_test_concepts
        }
        trials = [
            (
                picture,
                TESTED if split == "train" and concept in tested else split,
                session,
                run,
            )
            for concept, picture, split, session, run, _ in table
        ]
        # name and session of each trial, in the order of the table
        ids = [trial_id for *_, trial_id in table]
        sessions = np.array([session for _, _, session, _ in trials])

        # the block [V, trials] of pandas' table that holds the betas
        with hdf5.open_file(responses, SOURCE) as file:
            group = file["ResponseData"]
            name = max(
                (name for name in group if name.endswith("_values")),
                key=lambda name: group[name].shape[-1],
            )
            width, count = hdf5.open_numbers(file, f"ResponseData/{name}", "f").shape

            # columns by the names of trials, else in order: pandas pickles names of
            # several types
            items = hdf5.find_dataset(group, name.replace("_values", "_items"))
            names = [] if items.dtype.hasobject else items[:].astype(str).tolist()
            name_columns = {trial: column for column, trial in enumerate(names)}
            are_named = len({*ids}) == len(ids) and {*ids} <= name_columns.keys()
            if not are_named and count != len(ids):
                raise ValueError(
                    f"its {count} columns are not the {len(ids)} trials of the table "
                    "of stimuli"
                )
            columns = np.array(
                [name_columns[trial] for trial in ids] if are_named else range(count)
            )

        def read(session: int) -> Float32:
            # columns of the session, read in one slice from the first to the last
            chosen = columns[sessions == session]
            first = chosen.min()
            stop = chosen.max() + 1
            betas = np.empty((len(chosen), width), np.float32)  # [n, V]
            with hdf5.open_file(responses, SOURCE) as file:
                stored = hdf5.open_numbers(file, f"ResponseData/{name}", "f")
                # a block of voxels at a time bounds memory
                for start in range(0, width, READ_VOXELS):
                    block = stored[start : start + READ_VOXELS, first:stop]
                    betas[:, start : start + READ_VOXELS] = block[:, chosen - first].T
            return betas

        return Subject(
            [responses, stimuli, voxels],
            _read_voxels(voxels, width),
            width,
            trials,
            read,
        )


def _read_trial(row: dict[str, str]) -> tuple[str, str, str, int, int, str]:
    session = int(row["session"])
    run = int(row["run"])
    return (
        row["concept"],
        cut_ending(row["stimulus"]),
        row["trial_type"],
        session,
        run,
        row["trial_id"],
    )


def _read_voxels(path: Path, width: int) -> Voxels:
    """Read regions and maps [V]: columns of 0 and 1, and of other numbers; it has no
    positions.
    """
    # [V, columns], NaN where an entry is empty
    regions = {}
    maps = {}
    with report_damage(path, SOURCE), path.open(encoding="utf-8-sig") as file:
        names = next(csv.reader(file))
        table = np.loadtxt(
            file,
            np.float32,
            delimiter=",",
            converters=lambda text: float(text or "nan"),
            ndmin=2,
        )
        if len(table) != width:
            raise ValueError(
                f"its {len(table)} voxels are not the {width} of the responses"
            )

    for name, values in zip(names, table.T, strict=True):
        # subject_id is 1 of the first
        if np.isin(values, [0, 1]).all() and not name.endswith("_id"):
            # as LO1 (prf): sets of regions are written with blanks and brackets
            regions[re.sub(r"[\s&|()]+", "-", name).strip("-")] = values == 1
        else:
            maps[name] = np.nan_to_num(values).astype(np.float64)
    return Voxels(regions, maps)
