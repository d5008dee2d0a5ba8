"""No part lets a test leak: whatever the test split, the left-out subject, or the order of pictures is."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from layouts import one_token, spec_of
from resealed import resealed
from safetensors.torch import load_file

from brainhive_cli.core import parts
from brainhive_cli.models.encoders import resolve, resolve_all
from brainhive_cli.models.losses import LossContext
from brainhive_cli.training.alignment.model import Aligner
from tests.worlds import Go, at_home

CHANNELS = tuple("ABCDE")
ROUNDING = 1e-5
FUSERS = [kind for kind in parts.kinds("fusers") if kind != "heads"]


def aligner_of(fuser: str = "concatenation", backbone: str = "linear") -> Aligner:
    """A model of three encoders and two subjects whose every weight is drawn, biases of subjects too."""
    configs = {
        shelf: parts.load(shelf, kind).TINY for shelf, kind in (("fusers", fuser), ("backbones", backbone))
    }
    dims = {"one": 6, "two": 6, "three": 6}
    layout = one_token(
        spec_of(CHANNELS, 100, (1, 2)),
        configs["fusers"].token_dim(dims, 8),
        dims,
        backbone=configs["backbones"].model_dump(),
        fuser=configs["fusers"].model_dump(),
    )
    torch.manual_seed(0)
    model = Aligner(replace(layout, backbone={**layout.backbone, "kind": backbone})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("kind", FUSERS)
def test_a_picture_has_one_token_whatever_is_beside_it_and_whosever_signal_it_is_compared_with(
    kind: str,
) -> None:
    """Else the gallery's statistics, its order, or the subject would tell which picture was seen."""
    model = aligner_of(fuser=kind)
    gallery = {key: torch.randn(12, 6) for key in model.layout.dims}
    order = torch.randperm(12)

    with torch.inference_mode():
        tokens = model.encode_image(gallery)
        permuted = model.encode_image({key: rows[order] for key, rows in gallery.items()})
        alone = torch.cat([model.encode_image({k: v[[n]] for k, v in gallery.items()}) for n in range(12)])
        of_subject = model.targets(gallery, torch.ones(12, dtype=torch.long))["token"]

    assert not torch.allclose(tokens[0], tokens[1], atol=1e-3)
    for same in (permuted[order.argsort()], alone, of_subject):
        torch.testing.assert_close(same, tokens, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("kind", ["linear", "nice"])
def test_a_test_signal_has_one_token_whatever_the_others_are(kind: str) -> None:
    """Of every brain encoder alone, `test_backbones.py` holds it."""
    model = aligner_of(backbone=kind)
    signal = torch.randn(6, len(CHANNELS), 100)

    with torch.inference_mode():
        token = model.encode_signal(signal)[0]
        beside_others = model.encode_signal(torch.cat([signal[:1], 5 * signal[1:].flip(0) + 20]))[0]

    torch.testing.assert_close(beside_others, token, atol=ROUNDING, rtol=ROUNDING)


@pytest.mark.parametrize(
    ("config", "tells_pairs"),
    [
        ({"kind": "mmd"}, False),  # it compares distributions, whichever belongs to which
        ({"kind": "clip", "positives": "stimulus"}, True),
        ({"kind": "clip", "normalise_signal": False, "scale_by": "softplus"}, True),
    ],
)
def test_a_loss_is_of_pairs_and_not_of_their_place_in_the_batch(
    config: dict[str, Any], tells_pairs: bool
) -> None:
    loss = parts.resolve("losses", config).build()
    stimuli = torch.tensor([4, 7, 4, 9, 1, 7])
    image = torch.randn(10, 16)[stimuli]
    signal, order = image + 0.5 * torch.randn(6, 16), torch.tensor([3, 0, 5, 1, 4, 2])

    def cost(rows: torch.Tensor, targets: torch.Tensor) -> float:
        with torch.inference_mode():
            return float(loss(signal[rows], image[targets], LossContext(stimuli=stimuli[targets])))

    plain = cost(torch.arange(6), torch.arange(6))
    assert cost(order, order) == pytest.approx(plain, abs=ROUNDING)
    assert (cost(torch.arange(6), order) != pytest.approx(plain, abs=ROUNDING)) == tells_pairs


VIT = {"kind": "timm", "source": "random", "architecture": "test_vit"}
WORLD = ("dataset={kind: demo, noise: 0.3, subjects: 2, concepts: 8}",)
DEGRADED = [
    encoder.name for encoder in resolve_all([{**VIT, "degrade": ["gaussian-3", "noise-9", "fovea-5"]}])
]
ENCODERS = (
    f"encoders=[{json.dumps(VIT)}, {json.dumps({**VIT, 'degrade': ['gaussian-3', 'noise-9', 'fovea-5']})}]"
)
FIRST = f"encoders={json.dumps([{**VIT, 'degrade': 'gaussian-3'}])}"
CLIP = "{kind: clip, normalise_signal: false, positives: stimulus}"
TRAININGS = {
    "a router, MMD, positives, smoothing, a template, segments": (
        ENCODERS,
        "dim=8",
        "fuser={kind: router, hidden: 8, signal_dim: 8}",
        "backbone={kind: segments, hidden: 8}",
        "terms=[{prediction: token, stage: 0, loss: mmd}, "
        f"{{prediction: token, stage: 0, loss: {CLIP}}}, {{prediction: token, stage: 1, loss: {CLIP}}}]",
        "train.stages=[{epochs: 1, lr: 1e-3}, {epochs: 1, lr: 1e-3, freeze: [fuser.share]}]",
        "train.augment.parts=[{kind: smooth, p: 0.3}]",
        "signal.normalise=template",
    ),
    "feedback, a map of each side, spatial filters": (
        FIRST,
        "dim=8",
        "fuser={kind: linear, signal_dim: 8}",
        "backbone=spatial-mlp",
        f"train.embedding_alternatives={{{DEGRADED[0]}: [{DEGRADED[1]}, {DEGRADED[2]}]}}",
        "train.alternatives=uncertainty",
        "train.epochs=2",
    ),
    "LoRA": (
        f"encoders={json.dumps([VIT])}",
        "fuser=concatenation",
        f"train.lora={{encoders: [{resolve(VIT).name}], rank: 2, alpha: 2}}",
        "train.epochs=1",
    ),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, go: Go) -> Iterator[Path]:
    """A home with the embeddings of training pictures and the signals of two subjects."""
    with at_home(tmp_path_factory.mktemp("guards")) as home:
        go("embed", *WORLD, ENCODERS, "splits=train")
        yield home


@pytest.mark.parametrize("parts_used", TRAININGS)
def test_a_training_is_the_same_whatever_is_tested_and_whoever_is_left_out(
    parts_used: str, pictures: Path, go: Go
) -> None:
    """The test split has other signals and no targets, the left-out subject other recordings altogether."""
    how = (
        *(*WORLD, *TRAININGS[parts_used], "mode=inter", "subjects=1", "seeds=1"),
        *("train.batch_size=16", "train.precision=fp32", "train.selection=last", "signal.scale=0.2"),
    )
    weights = []
    for _ in range(2):
        model = go("train-align", *how, again=True).folder / "cells/sub-01_seed-1/model/model.safetensors"
        weights.append(load_file(model))
        for store in pictures.glob("signals/*/default/*.h5"):  # subject 1's is there if it was read
            with resealed(store) as file:
                for split in ("test",) if store.stem == "sub-02" else ("test", "train"):
                    file[f"{split}/signal"][:] = 3 * file[f"{split}/signal"][:][::-1] + 20
    first, second = weights
    assert all(torch.equal(value, second[name]) for name, value in first.items())
