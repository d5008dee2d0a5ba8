"""Tests with simulated voxels of two subjects, who have different numbers of voxels."""

import json

import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.files import documents
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


def test_subjects_with_different_numbers_of_voxels_share_a_run(
    run_command, align_overrides, world, tmp_path
):
    runs = f"paths.runs={tmp_path / 'runs'}"

    run_folder = run_command("train-align", *align_overrides, *VOXELS, runs).folder

    config = json.loads((run_folder / "cells/all_seed-1/model/config.json").read_text())
    spec = documents.check(config["spec"], "", SignalSpec)
    assert spec.subjects == (1, 2)
    assert spec.names == ()
    assert spec.samples == 1
    assert spec.widths[0] != spec.widths[1]
    assert [len(voxels) for voxels in spec.regions["LOC"]] == [0, 0]
    for row, width in enumerate(spec.widths):
        early, ffa = spec.regions["early"][row], spec.regions["FFA"][row]
        assert len(early) + len(ffa) == width
    result = run_command(
        "eval-retrieval",
        runs,
        f"align_run={run_folder}",
        "region_shares=true",
        "sheet_rows=0",
    )
    scopes = result.metrics.scopes
    for subject in ("sub-01", "sub-02"):
        top1 = scopes[f"all_seed-1 · {subject}"]["top1"]
        assert top1.low > 3 * top1.chance

    # share of the information in each region that the model reads
    (head,) = scopes["regions · early"]
    names = ("early", "FFA", "V1", "V2")
    shares = {name: scopes[f"regions · {name}"][head] for name in names}
    for share in shares.values():
        assert 0 < share.value < 1.2
        assert share.low <= share.value <= share.high
    # V1 and V2 are parts of the early region
    assert max(shares["V1"].value, shares["V2"].value) < shares["early"].value
    # the model does not read LOC
    assert not any("LOC" in name for name in scopes)
    region_tables = [
        table for table in result.tables if any(row[0] == "early" for row in table.rows)
    ]
    assert region_tables

    # a subject with another number of voxels
    other_subject = [VOXELS[0].replace("subjects: 2", "subjects: 6"), "subjects=6"]
    model = run_folder / "cells/all_seed-1/model"
    with pytest.raises(BrainhiveError, match=r"\d+ .*subjects \(1, 2\)"):
        run_command("eval-retrieval", runs, f"align_run={model}", *other_subject)

    # sensors have no regions to split
    with pytest.raises(BrainhiveError, match=r"signal\.region_split.*demo"):
        run_command(
            "train-align",
            *align_overrides,
            runs,
            "backbone=havir",
            "signal.region_split={spatial: V1, semantic: LOC}",
        )
