"""Simulated voxels of two subjects with different widths, through training and evaluation."""

import json

from brainhive_cli.core import documents
from brainhive_cli.core.signal_spec import SignalSpec

VOXELS = (
    "dataset={kind: demo, noise: 0.3, space: voxels, subjects: 2}",
    "mode=joint",
    "backbone.kind=voxel_ridge",
    "backbone.hidden=64",
    "signal.scale=1",
    "signal.normalise=channel",
    "signal.channels=early,FFA",
    "train.lr=2e-3",
)


def test_subjects_of_different_widths_train_in_one_run_and_are_decoded(go, small, world, tmp_path):
    runs = f"paths.runs={tmp_path / 'runs'}"

    run = go("train-align", *small, *VOXELS, runs).folder

    config = json.loads((run / "cells/all_seed-1/model/config.json").read_text())
    spec = documents.check(config["spec"], "", SignalSpec)
    assert spec.subjects == (1, 2) and spec.names == () and spec.samples == 1
    assert spec.widths[0] != spec.widths[1]
    regions = {name: tuple(map(len, spec.regions[name])) for name in ("early", "FFA", "LOC")}
    assert regions["LOC"] == (0, 0)
    assert tuple(map(sum, zip(regions["early"], regions["FFA"], strict=True))) == spec.widths
    scopes = go("eval-retrieval", runs, f"align_run={run}").metrics.scopes
    for subject in ("sub-01", "sub-02"):
        top1 = scopes[f"all_seed-1 · {subject}"]["top1"]
        assert top1.low > 3 * top1.chance
