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

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.models.backbones import havir
from brainhive_cli.models.generators import sdxl

DATASET = "dataset={kind: demo, noise: 0.1, space: voxels, subjects: 3}"
LATENT, TOKENS = (f"python:tests.contracts.parts.targets:{name}" for name in ("latent", "tokens"))
DROPOUT = {"input_dropout": 0.1, "structural_dropout": 0.0, "semantic_dropout": 0.0}
WIDER = {"hidden": 32, "head_rank": None, "features": 16, "decoder_channels": (16, 16)}
TINY = havir.TINY.model_copy(update={**WIDER, **DROPOUT})
TERMS = [
    {"prediction": "latent", "loss": "mse"},
    {"prediction": "latent", "loss": "sobel", "weight": 0.1},
    {"prediction": "image", "loss": "mse"},
    {"prediction": "image_projected", "loss": {"kind": "mixco", "temperature": 0.1}, "epochs": [0, 6]},
    {
        "prediction": "image_projected",
        "loss": {
            "kind": "soft_clip",
            "temperature": {"from": 0.1, "to": 0.2, "epochs": [6, 15], "course": "cosine"},
        },
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


@pytest.mark.parametrize("head", ["image_projected", "image"])
def test_projected_tokens_and_tokens_retrieve_above_chance(run: Path, go: Go, head: str) -> None:
    scopes = go("eval-retrieval", f"align_run={run}", f"head={head}", "sheet_rows=0").metrics.scopes

    for subject in ("sub-01", "sub-02"):
        top5 = scopes[f"all_seed-1 · {subject}"]["top5"]
        assert top5.low > top5.chance


def test_pictures_come_from_both_streams(run: Path, go: Go) -> None:
    generator = "generator=" + flow(sdxl.TINY.model_dump(mode="json"))
    small = ("resolution_px=32", "steps=2", "repeats=1", "items=4", "metrics=[pixcorr]")

    result = go("reconstruct", f"align_run={run}", "prior=identity", generator, *small)

    assert result.metrics.scopes["brain"]["pixcorr"].n == 8


def test_a_new_subject_learns_its_input_layers_alone(run: Path, go: Go) -> None:
    tuned = go(
        "train-align", "mode=finetune", f"finetune.run={run}", "subjects=3", *INPUTS_ALONE, *FIT
    ).folder

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


def test_terms_of_the_run_that_have_no_epoch_left_are_named(run: Path, go: Go) -> None:
    short = [each.replace("8", "4") for each in INPUTS_ALONE]

    with pytest.raises(RecipeError, match=r"terms\[4\] has no effect: its weight is 0 in all 4 epochs"):
        go("train-align", "mode=finetune", f"finetune.run={run}", "subjects=3", *short, *FIT)


def test_a_subject_who_was_not_trained_on_is_one_line(run: Path, go: Go) -> None:
    model = run / "cells/all_seed-1/model"

    with pytest.raises(
        BrainhiveError, match="voxel count 82 matches no training subject: subject 1, 2 with 86, 90"
    ):
        go(
            "eval-retrieval",
            f"align_run={model}",
            DATASET.replace("subjects: 3", "subjects: 6"),
            "subjects=6",
        )


def published(run: Path, folder: Path) -> Path:
    """Write the semantic stream of subject 1 as MindEye1's training writes its high level."""
    names = {"inputs.semantic.1.": "lin0.", "semantic.lin1.image.": "lin1."}
    names |= {"semantic.projector.image.": "projector.", "semantic.mlp.": "mlp."}
    state = {}
    for name, value in weights_of(run, "all_seed-1").items():
        name = name.removeprefix("backbone.")
        if old := next((old for old in names if name.startswith(old)), ""):
            state[f"module.voxel2clip.{names[old]}{name.removeprefix(old)}"] = value
    path = folder / "prior_257_final_subj01_bimixco_softclip_byol/last.pth"
    path.parent.mkdir(parents=True)
    torch.save({"epoch": 239, "model_state_dict": state, "train_losses": [0.1]}, path)
    return path


def test_a_training_starts_from_a_published_checkpoint_and_says_that_it_saw_the_test(
    run: Path, go: Go, tmp_path: Path
) -> None:
    start = published(run, tmp_path)
    heads = f"heads={{image: '{TOKENS}', image_projected: '{TOKENS}'}}"
    terms = "terms=[{prediction: image_projected, loss: {kind: clip, temperature: 0.1}}]"
    stage = f"train.stages=[{{epochs: 1, freeze: [backbone.semantic], start_from: '{start}'}}]"
    whole = ("signal.channels=[higher]", "subjects=1", "mode=joint", "train.epochs=1")

    made = go("train-align", DATASET, heads, terms, *ALIGN[3:5], *whole, stage, *FIT).folder

    new, old = weights_of(made, "all_seed-1"), weights_of(run, "all_seed-1")
    kept = {name for name in new if name.startswith("backbone.semantic.")}
    assert kept and all(torch.equal(new[name], old[name]) for name in kept)
    scopes = go("eval-retrieval", f"align_run={made}", "sheet_rows=0").metrics.scopes
    top5 = scopes["all_seed-1 · sub-01"]["top5"]
    assert top5.low > top5.chance and "selected on test" in top5.protocol


def test_sensors_have_no_regions_to_split(run: Path, go: Go) -> None:
    with pytest.raises(BrainhiveError, match=r"signal.region_split needs voxels, demo\S* has sensors"):
        go("train-align", "dataset={kind: demo, noise: 0.1, subjects: 3}", *ALIGN[1:])
