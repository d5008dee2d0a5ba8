"""Simulated voxels of two subjects with different widths, through training and evaluation."""

import json

from brainhive_cli.core import documents
from brainhive_cli.models.signal_spec import SignalSpec

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
    result = go("eval-retrieval", runs, f"align_run={run}", "region_shares=true", "sheet_rows=0")
    scopes = result.metrics.scopes
    for subject in ("sub-01", "sub-02"):
        top1 = scopes[f"all_seed-1 · {subject}"]["top1"]
        assert top1.low > 3 * top1.chance

    # regions are said to carry what the model reads of them
    (token,) = {head for name, each in scopes.items() if name == "regions · early" for head in each}
    shares = {name: scopes[f"regions · {name}"][token] for name in ("early", "FFA", "V1", "V2")}
    assert all(0 < each.value < 1.2 and each.low <= each.value <= each.high for each in shares.values())
    assert max(shares["V1"].value, shares["V2"].value) < shares["early"].value  # which they lie in
    assert not any("LOC" in name for name in scopes)  # of which the model reads nothing
    table = next(table for table in result.tables if table.title.startswith("What each region carries"))
    assert [row[0] for row in table.rows if row[0] in shares]


SPLIT = (*VOXELS[:-2], "signal.region_split={spatial: V1, semantic: higher - spatial}", VOXELS[-1])


def test_a_split_into_regions_is_kept_with_the_model_and_used_when_it_is_opened(go, small, world, tmp_path):
    runs = f"paths.runs={tmp_path / 'runs'}"

    swapped = (
        *SPLIT,
        "backbone={kind: havir, hidden: 64, blocks: 1, input_dropout: 0.1}",
        "signal.region_control=swapped",
    )
    run = go("train-align", *small, *swapped, runs).folder
    scopes = go("eval-retrieval", runs, f"align_run={run}").metrics.scopes

    model = run / "cells/all_seed-1/model"
    spec = documents.check(json.loads((model / "config.json").read_text())["spec"], "", SignalSpec)
    assert (spec.regions["spatial"], spec.regions["semantic"]) == (spec.regions["higher"], spec.regions["V1"])
    assert spec.regions["V2"] == ((), ())
    assert scopes["all_seed-1 · sub-01"]["top1"].low > scopes["all_seed-1 · sub-01"]["top1"].chance
    dataset = VOXELS[0]
    alone = go("eval-retrieval", runs, f"align_run={model}", dataset, "subjects=2").metrics.scopes
    assert alone["model · sub-02"]["top1"].value == scopes["all_seed-1 · sub-02"]["top1"].value
