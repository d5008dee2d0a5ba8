"""Single-trial betas of THINGS-fMRI."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import Float32, Int64
from brainhive_cli.core.files import report_damage
from brainhive_cli.data.files import cut_ending, fetch_line, find_file, hdf5, read_table
from brainhive_cli.data.fmri import PublishedSteps, Subject
from brainhive_cli.data.signals import Voxels

FETCH_HINT = fetch_line("things-fmri")
RESPONSES = "sub-{subject:02d}_ResponseData.h5"
STIMULI = "sub-{subject:02d}_StimulusMetadata.csv"
VOXELS = "sub-{subject:02d}_VoxelMetadata.csv"
"""Tables of betas (written by pandas), trials and voxels."""


class ThingsFmriBetas(PublishedSteps):
    """THINGS-fMRI from its single-trial betas: a table of voxels and trials, written by
    pandas, read by h5py.

    sub-0X_{ResponseData.h5,StimulusMetadata.csv,VoxelMetadata.csv} of betas_csv.

    Columns of 0 and 1 in the table of voxels are regions, other columns maps. Noise
    ceilings and split-half correlations were measured on test pictures, so voxels that
    are chosen by them are chosen by the test.
    """

    name = "things-fmri"
    patterns = (RESPONSES,)
    unit = "z-score"

    zscore: Literal["session", "run", "no"] = Field(
        "no",
        description="z-score the published z-scores again, within a session or run",
    )

    def open_subject(self, root: Path, subject: int) -> Subject:
        """Read the tables of trials and voxels, and find the columns of the betas."""
        responses, stimuli, voxels = (
            find_file(root, name.format(subject=subject), FETCH_HINT)
            for name in (RESPONSES, STIMULI, VOXELS)
        )
        table = read_table(stimuli, FETCH_HINT, _read_trial)
        test_concepts = {trial.concept for trial in table if trial.split == "test"}
        trials = []
        for trial in table:
            split = trial.split
            # papers leave them out
            if split == "train" and trial.concept in test_concepts:
                split = "training trials of concepts that test pictures show"
            trials.append((trial.picture, split, trial.session, trial.run))
        ids = [trial.trial_id for trial in table]
        sessions = np.array([trial.session for trial in table])
        dataset_name, width, columns = _find_columns(responses, ids)

        # Rows of the table that are read at a time. All trials of them take 160 MB.
        voxels_per_read = 2048

        def read_session(session: int) -> Float32:
            # read from the first to the last column in one slice
            session_columns = columns[sessions == session]
            start = session_columns.min()
            stop = session_columns.max() + 1
            betas = np.empty((len(session_columns), width), np.float32)  # [n, V]
            with hdf5.open_file(responses, FETCH_HINT) as file:
                dataset = hdf5.open_numbers(file, dataset_name, "f")
                for voxel in range(0, width, voxels_per_read):
                    block = dataset[voxel : voxel + voxels_per_read, start:stop]
                    block = block[:, session_columns - start]
                    betas[:, voxel : voxel + voxels_per_read] = block.T
            return betas

        files = [responses, stimuli, voxels]
        return Subject(files, _read_voxels(voxels, width), width, trials, read_session)


class StimulusTrial(NamedTuple):
    """Row of the table of trials."""

    concept: str
    picture: str
    split: str
    session: int
    run: int
    trial_id: str


def _find_columns(path: Path, trial_ids: Sequence[str]) -> tuple[str, int, Int64]:
    """Find the betas of trials in pandas' table.

    Columns are matched by name, or by order if pandas pickled their names, as it does
    with names of several types.

    Returns:
        Name of the HDF5 dataset, number of voxels, and column [n] of each trial.
    """
    with hdf5.open_file(path, FETCH_HINT) as file:
        # blocks of columns: …_items, their names, and …_values [V, columns], of which
        # all but the widest hold the number of the voxel
        group = file["ResponseData"]
        blocks = [name for name in group if name.endswith("_values")]
        block = max(blocks, key=lambda name: group[name].shape[-1])
        dataset_name = f"ResponseData/{block}"
        width, count = hdf5.open_numbers(file, dataset_name, "f").shape

        items = hdf5.find_dataset(group, block.replace("_values", "_items"))
        names = [] if items.dtype.hasobject else items[:].astype(str).tolist()
        column_of = {name: column for column, name in enumerate(names)}
        unique_ids = set(trial_ids)
        if len(unique_ids) == len(trial_ids) and unique_ids <= column_of.keys():
            columns = [column_of[trial_id] for trial_id in trial_ids]
        elif count == len(trial_ids):
            columns = list(range(count))
        else:
            raise ValueError(
                f"its {count} columns are not the {len(trial_ids)} trials of the table "
                "of stimuli"
            )
        return dataset_name, width, np.array(columns)


def _read_trial(cells: dict[str, str]) -> StimulusTrial:
    """Read a row of the table of trials."""
    return StimulusTrial(
        cells["concept"],
        cut_ending(cells["stimulus"]),
        cells["trial_type"],
        int(cells["session"]),
        int(cells["run"]),
        cells["trial_id"],
    )


def _read_voxels(path: Path, width: int) -> Voxels:
    """Read the regions and maps of the voxels. The table has no positions."""
    with report_damage(path, FETCH_HINT), path.open(encoding="utf-8-sig") as file:
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

    regions = {}
    maps = {}
    for name, values in zip(names, table.T, strict=True):
        # subject_id is 1 for the first subject
        if np.isin(values, [0, 1]).all() and not name.endswith("_id"):
            # names of regions have no blanks or brackets, unlike "LO1 (prf)"
            regions[re.sub(r"[\s&|()]+", "-", name).strip("-")] = values == 1
        else:
            maps[name] = np.nan_to_num(values).astype(np.float64)
    return Voxels(regions, maps)
