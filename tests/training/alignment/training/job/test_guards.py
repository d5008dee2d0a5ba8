"""Guards against leaks from test data into training."""

import json
from dataclasses import replace

import torch
from safetensors.torch import load_file

from brainhive_cli.core.recipes import parts
from brainhive_cli.training.alignment.model import Aligner
from tests.tools.changed_stores import resealed
from tests.worlds.command_fixtures import use_home
from tests.worlds.model_layouts import make_signal_spec, make_token_layout

CHANNELS = tuple("ABCDE")
ROUNDING = 1e-5
FUSERS = [kind for kind in parts.list_kinds("fusers") if kind != "heads"]


def aligner_of(fuser, backbone="linear"):
    """Make a model of three encoders and two subjects with random weights."""
    configs = {
        shelf: parts.load(shelf, kind).TINY
        for shelf, kind in (("fusers", fuser), ("backbones", backbone))
    }
    dims = {"one": 6, "two": 6, "three": 6}
    layout = make_token_layout(
        make_signal_spec(CHANNELS, 100, (1, 2)),
        configs["fusers"].token_dim(dims, 8),
        dims,
        backbone=configs["backbones"].model_dump(),
        fuser=configs["fusers"].model_dump(),
    )
    torch.manual_seed(0)
    model = Aligner(
        replace(layout, backbone={**layout.backbone, "kind": backbone})
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def test_a_picture_has_one_token_in_any_batch_and_for_any_signal():
    """Otherwise the batch or the subject would reveal the seen picture."""
    for kind in FUSERS:
        model = aligner_of(fuser=kind)
        gallery = {key: torch.randn(12, 6) for key in model.layout.dims}
        order = torch.randperm(12)

        with torch.inference_mode():
            tokens = model.encode_image(gallery)
            permuted = model.encode_image(
                {key: rows[order] for key, rows in gallery.items()}
            )
            single_images = [
                model.encode_image({k: v[[n]] for k, v in gallery.items()})
                for n in range(12)
            ]
            of_subject = model.compute_targets(
                gallery, torch.ones(12, dtype=torch.long)
            )["token"]

        assert not torch.allclose(tokens[0], tokens[1], atol=1e-3), kind
        for same in (permuted[order.argsort()], torch.cat(single_images), of_subject):
            torch.testing.assert_close(same, tokens, atol=ROUNDING, rtol=0)


VIT = {"kind": "timm", "source": "random", "architecture": "test_vit"}
WORLD = ("dataset={kind: demo, noise: 0.3, subjects: 2, concepts: 8}",)
ENCODERS = (
    f"encoders=[{json.dumps(VIT)}, {json.dumps({**VIT, 'degrade': 'gaussian-3'})}]"
)
CLIP = "{kind: clip, normalise_signal: false, positives: stimulus}"
TRAINING = tuple(
    tuple(WORLD) + (ENCODERS, "dim=8", "fuser={kind: router, hidden: 8, signal_dim: 8}")
) + (
    "backbone={kind: segments, hidden: 8}",
    "terms=[{prediction: token, stage: 0, loss: mmd}, {prediction: token, stage: 0, "
    f"loss: {CLIP}}}, {{prediction: token, stage: 1, loss: {CLIP}}}]",
    (
        "train.stages=[{epochs: 1, lr: 1e-3}, {epochs: 1, lr: 1e-3, freeze: "
        "[fuser.share]}]"
    ),
    "train.augment.parts=[{kind: smooth, p: 0.3}]",
    "signal.normalise=template",
    "mode=inter",
    "subjects=1",
    "seeds=1",
    "train.batch_size=16",
    "train.precision=fp32",
    "train.selection=last",
    "signal.scale=0.2",
)
"""With a router, MMD, positives, smoothing, a template, segments and two stages."""


def test_a_training_does_not_depend_on_tests_or_left_out_people(tmp_path, run_command):
    """Test signals, test targets and recordings of the left-out subject are changed."""
    with use_home(tmp_path) as home:
        run_command("embed", *WORLD, ENCODERS, "splits=train")
        weights = []
        for _ in range(2):
            run_folder = run_command("train-align", *TRAINING, again=True).folder
            weights.append(
                load_file(run_folder / "cells/sub-01_seed-1/model/model.safetensors")
            )
            # subject 1's is there if it was read
            for store in home.glob("signals/*/default/*.h5"):
                with resealed(store) as file:
                    for split in (
                        ("test",) if store.stem == "sub-02" else ("test", "train")
                    ):
                        file[f"{split}/signal"][:] = (
                            3 * file[f"{split}/signal"][:][::-1] + 20
                        )
    first_weights, second = weights
    assert all(
        torch.equal(value, second[name]) for name, value in first_weights.items()
    )
