"""HAVIR's backbone goes through every command: two regions, several subjects, a new one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from worlds import at_home

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.backbones import havir
from brainhive_cli.models.generators import sdxl

DATASET = "dataset={kind: demo, noise: 0.1, space: voxels, subjects: 3}"
LATENT, TOKENS = (f"python:tests.contracts.parts.targets:{name}" for name in ("latent", "tokens"))
DROPOUT = {"input_dropout": 0.1, "structural_dropout": 0.0, "semantic_dropout": 0.0}
WIDER = {"hidden": 32, "head_rank": None, "features": 16, "decoder_channels": (16, 16)}
TINY = havir.TINY.model_copy(update={**WIDER, **DROPOUT})
COURSE = {"from": 0.1, "to": 0.2, "epochs": [6, 15], "course": "cosine"}
TERMS = [
    {"prediction": "latent", "loss": "mse"},
    {"prediction": "latent", "loss": "sobel", "weight": 0.1},
    {"prediction": "image", "loss": "mse"},
    {"prediction": "image_projected", "loss": {"kind": "mixco", "temperature": 0.1}, "epochs": [0, 6]},
    {
        "prediction": "image_projected",
        "loss": {"kind": "soft_clip", "temperature": COURSE},
        "epochs": [6, 16],
    },
]


def flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).strip()


FIT = ("seeds=1", "train.batch_size=256", "train.precision=fp32", "train.selection=last")
ALIGN = (
    DATASET,
    f"heads={{latent: '{LATENT}', image: '{TOKENS}', image_projected: '{TOKENS}'}}",
    f"terms={flow(TERMS)}",
    "head=image_projected",
    f"backbone={flow(TINY.model_dump(mode='json'))}",
    "signal.region_split={spatial: early - LOC, semantic: higher}",
    "subjects=1,2",
    "mode=joint",
    "train.epochs=16",
    "train.lr=0.005",
    *FIT,
)
FREEZE = "freeze: [backbone.structural, backbone.semantic]"
INPUTS_ALONE = ("train.epochs=8", f"train.stages=[{{epochs: 8, lr: 0.01, {FREEZE}}}]")
Go = Callable[..., Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, go: Go) -> Any:
    """A home with the targets of both streams embedded and the model trained."""
    home = tmp_path_factory.mktemp("havir")
    with at_home(home):
        go("embed", DATASET, f"encoders=['{LATENT}', '{TOKENS}']")
        yield go("train-align", *ALIGN).folder


def weights_of(run: Path, cell: str) -> dict[str, torch.Tensor]:
    return load_file(run / "cells" / cell / "model/model.safetensors")


def test_either_head_retrieves_and_pictures_come_from_both_streams(run: Path, go: Go) -> None:
    for head in ("image_projected", "image"):
        scopes = go("eval-retrieval", f"align_run={run}", f"head={head}", "sheet_rows=0").metrics.scopes
        for subject in ("sub-01", "sub-02"):
            top5 = scopes[f"all_seed-1 · {subject}"]["top5"]
            assert top5.low > top5.chance
    generator = "generator=" + flow(sdxl.TINY.model_dump(mode="json"))
    small = ("resolution_px=32", "steps=2", "repeats=1", "items=4", "metrics=[pixcorr]")

    result = go("reconstruct", f"align_run={run}", "prior=identity", generator, *small)

    assert result.metrics.scopes["brain"]["pixcorr"].n == 8


def test_a_new_subject_learns_its_input_layers_alone(run: Path, go: Go) -> None:
    third = ("mode=finetune", f"finetune.run={run}", "subjects=3")
    tuned = go("train-align", *third, *INPUTS_ALONE, *FIT).folder

    cell = "sub-03_seed-1"
    new, old = weights_of(tuned, cell), weights_of(run, "all_seed-1")
    shared = {name for name in new if not name.startswith("backbone.inputs.")}
    assert shared and all(torch.equal(new[name], old[name]) for name in shared)
    own = {name for name in new if name.startswith("backbone.inputs.")}
    assert own and all(".3." in name for name in own)
    config = json.loads((tuned / "cells" / cell / "model/config.json").read_text())
    assert config["spec"]["subjects"] == [3] and len(config["spec"]["regions"]["spatial"]) == 1
    scopes = go("eval-retrieval", f"align_run={tuned}", "sheet_rows=0").metrics.scopes
    top5 = scopes[f"{cell} · sub-03"]["top5"]
    assert top5.low > top5.chance


def test_other_subjects_and_sensors_are_one_line(run: Path, go: Go) -> None:
    others = (DATASET.replace("subjects: 3", "subjects: 6"), "subjects=6")
    with pytest.raises(BrainhiveError, match="voxel count 82 matches no training subject: subject 1, 2 with"):
        go("eval-retrieval", f"align_run={run / 'cells/all_seed-1/model'}", *others)
    with pytest.raises(BrainhiveError, match=r"signal.region_split needs voxels, demo\S* has sensors"):
        go("train-align", "dataset={kind: demo, noise: 0.1, subjects: 3}", *ALIGN[1:])
