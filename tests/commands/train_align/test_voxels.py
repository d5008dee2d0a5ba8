"""Simulated voxels of two subjects with different widths, through training and
evaluation.
"""

import json

import pytest

from brainhive_cli.core import documents
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.signal_spec import SignalSpec

pytestmark = pytest.mark.nightly


VOXELS = (
    "dataset={kind: demo, noise: 0.3, space: voxels, subjects: 2, concepts: 40}",
    "mode=joint",
    "backbone.kind=voxel_ridge",
    "backbone.hidden=64",
    "signal.scale=1",
    "signal.normalise=channel",
    "signal.channels=early,FFA",
    "train.lr=2e-3",
)


def test_subjects_of_different_widths_train_in_one_run_and_are_decoded(
    go, small, world, tmp_path
):
    runs = f"paths.runs={tmp_path / 'runs'}"

    run = go("train-align", *small, *VOXELS, runs).folder

    config = json.loads((run / "cells/all_seed-1/model/config.json").read_text())
    spec = documents.check(config["spec"], "", SignalSpec)
    assert spec.subjects == (1, 2) and spec.names == () and spec.samples == 1
    assert spec.widths[0] != spec.widths[1]
    regions = {
        name: tuple(map(len, spec.regions[name])) for name in ("early", "FFA", "LOC")
    }
    assert regions["LOC"] == (0, 0)
    assert (
        tuple(map(sum, zip(regions["early"], regions["FFA"], strict=True)))
        == spec.widths
    )
    result = go(
        "eval-retrieval", runs, f"align_run={run}", "region_shares=true", "sheet_rows=0"
    )
    scopes = result.metrics.scopes
    for subject in ("sub-01", "sub-02"):
        top1 = scopes[f"all_seed-1 · {subject}"]["top1"]
        assert top1.low > 3 * top1.chance

    # regions are said to carry what the model reads of them
    (token,) = {
        head
        for name, each in scopes.items()
        if name == "regions · early"
        for head in each
    }
    shares = {
        name: scopes[f"regions · {name}"][token]
        for name in ("early", "FFA", "V1", "V2")
    }
    assert all(
        0 < each.value < 1.2 and each.low <= each.value <= each.high
        for each in shares.values()
    )
    # which they lie in
    assert max(shares["V1"].value, shares["V2"].value) < shares["early"].value
    assert not any("LOC" in name for name in scopes)  # of which the model reads nothing
    table = next(
        table
        for table in result.tables
        if table.title.startswith("What each region carries")
    )
    assert [row[0] for row in table.rows if row[0] in shares]

    # a person of other voxels, and sensors where regions are split
    others = (VOXELS[0].replace("subjects: 2", "subjects: 6"), "subjects=6")
    with pytest.raises(
        BrainhiveError,
        match=r"voxel count \d+ matches no training subject: subject 1, 2",
    ):
        go(
            "eval-retrieval",
            runs,
            f"align_run={run / 'cells/all_seed-1/model'}",
            *others,
        )
    with pytest.raises(
        BrainhiveError, match=r"signal.region_split needs voxels, demo\S* has sensors"
    ):
        go(
            "train-align",
            *small,
            runs,
            "backbone=havir",
            "signal.region_split={spatial: V1, semantic: LOC}",
        )
