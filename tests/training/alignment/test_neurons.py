"""NEURONS' second training: from the brain model of the first, which stays as it is, term by term."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cell_data import HERE, targets_of
from safetensors.torch import save_file
from trials import make_trials

from brainhive_cli import aligner
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.models.backbones import neurons
from brainhive_cli.models.heads import Head
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.batches import CellData
from brainhive_cli.training.alignment.initialisation import load_start
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.loop import train_cell
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.objective import Term
from brainhive_cli.training.alignment.recipe import Train

GPT2 = "backbone.text_dec.decoder.transformer"
CLIPS, VOXELS = 32, 12
SHAPES = {
    "image": (4, 16),
    "text": (6,),
    "motion": (2, 4, 16),
    "mask": (2, 1, 4, 4),
    "latents": (2, 4, 3, 3),
    "concepts": (5,),
    "caption": (8,),
}
SPEC = SignalSpec((), 1, (1,), (VOXELS,))
BRAIN = neurons.TINY.brain.model_dump(mode="json")
WEIGHT = {"base": 1, "peak": 10, "epochs": [0, 2], "course": "sine"}
TERMS = [
    {"prediction": "denoised", "loss": "mse", "weight": 30},
    {"prediction": "motion", "loss": {"kind": "soft_clip", "items": "frames", "temperature": 0.01}},
    {"prediction": "text", "loss": {"kind": "clip", "temperature": 0.1}},
    {"prediction": "mask", "loss": "dice", "weight": WEIGHT},
    {"prediction": "concepts", "loss": "bce", "weight": WEIGHT},
    {"prediction": "caption", "loss": "cross_entropy", "weight": WEIGHT},
    {"prediction": "latents", "loss": "l1", "weight": WEIGHT},
]


@pytest.fixture(scope="module")
def data() -> CellData:
    """Clips whose targets all follow from four numbers, which also lie in the voxels."""
    random = np.random.default_rng(0)
    causes = random.normal(size=(CLIPS, 4))
    made = {}
    for name, shape in SHAPES.items():
        values = (causes @ random.normal(size=(4, np.prod(shape)))).reshape(CLIPS, *shape)
        values = values > 0 if name in ("mask", "concepts") else values
        values = 1 + (values > 0) if name == "caption" else values
        made[name] = torch.tensor(values, dtype=torch.float32)
    voxels = causes @ random.normal(size=(4, VOXELS)) + 0.1 * random.normal(size=(CLIPS, VOXELS))
    trials = make_trials(1, voxels.astype(np.float32)[..., None], np.arange(CLIPS), (), None)
    return CellData([trials], targets_of(made), np.arange(CLIPS) < 8, None)


def layout(backbone: dict, names: list[str]) -> Layout:
    heads = {name: Head(SHAPES[name], name) for name in names}
    return Layout(SPEC, heads, backbone, encoders={n: n for n in names}, retrieval_heads=("image",))


def train(data: CellData, made: Layout, terms: list[dict], folder: Path, epochs: int, **stage) -> Aligner:
    stages = [{"epochs": epochs, "lr": 1e-2, "schedule": "constant", **stage}]
    settings = Train.model_validate(
        {"batch_size": 8, "precision": "fp32", "stages": stages, "selection": "last"}
    )
    folder.mkdir()
    given = [Term.model_validate(term) for term in terms]
    train_cell("cell", 1, made, data, given, settings, RunFolder(folder), HERE)
    return aligner.load(folder / "cells/cell/model")


def test_decoders_learn_behind_the_brain_model_of_the_first_training(data: CellData, tmp_path: Path) -> None:
    first_terms = [
        {"prediction": name, "loss": {"kind": "clip", "temperature": 0.1}, "weight": weight}
        for name, weight in (("image", 1), ("text", 0.25))
    ]
    blocks = {**BRAIN, "mixer": "blocks", "blocks": 1}
    first = train(data, layout(blocks, ["image", "text"]), first_terms, tmp_path / "first", 3)
    start = {"backbone.brain": tmp_path / "first/cells/cell/model"}
    begun = CellData(data.trials, data.targets, data.held_out, None, starts={0: start})
    second_layout = layout(neurons.TINY.model_dump(mode="json"), list(SHAPES))

    second = train(begun, second_layout, TERMS, tmp_path / "second", 2, freeze=["backbone.brain"])

    signal, subject = torch.from_numpy(data.trials[0].averages), torch.zeros(CLIPS, dtype=torch.long)
    with torch.no_grad():
        one, other = first.predict(signal, subject), second.predict(signal, subject, ["image"])
    assert torch.allclose(one["image"], other["image"], atol=1e-5)
    assert second.learned.selection == "last epoch"
    truth = data.targets.sources["concepts"].values
    decoded = second.decode(signal, subject, range(CLIPS))
    assert {name: tuple(each.shape[1:]) for name, each in decoded.tensors.items()} == {
        name: shape for name, shape in SHAPES.items() if name != "motion"
    }
    untrained = Aligner(second_layout).eval().decode(signal, subject, range(CLIPS))
    errors = [(each.tensors["concepts"] - truth).square().mean() for each in (decoded, untrained)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("wrapping", [(), ("transformer",), ("decoder", "transformer")])
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_gpt2_starts_from_the_hubs_file_and_from_one_that_was_saved_with_its_last_layer(
    tmp_path: Path, wrapping: tuple[str, ...], ending: str
) -> None:
    new = Aligner(layout(neurons.TINY.model_dump(mode="json"), list(SHAPES)))
    above = "".join(f"{name}." for name in wrapping)
    published = {above + n: torch.randn_like(v) for n, v in new.get_submodule(GPT2).state_dict().items()}
    surplus = {f"{above}h.0.attn.bias": torch.ones(1, 1, 4, 4), "lm_head.weight": torch.zeros(2, 2)}
    path = tmp_path / f"model{ending}"
    (save_file if ending == ".safetensors" else torch.save)(published | surplus, path)

    load_start(new, path, GPT2)

    for name, value in new.get_submodule(GPT2).state_dict().items():
        assert torch.equal(value, published[above + name]), name


@pytest.mark.parametrize("lacking", [1, 0])
def test_a_file_of_which_few_or_none_of_a_parts_weights_match_is_refused_with_their_count(
    tmp_path: Path, lacking: int
) -> None:
    new = Aligner(layout(neurons.TINY.model_dump(mode="json"), list(SHAPES)))
    before = {name: value.clone() for name, value in new.state_dict().items()}
    needed = new.get_submodule(GPT2).state_dict()
    names = sorted(needed)[lacking:] if lacking else []
    others = {f"model.layers.{name}": torch.randn_like(value) for name, value in needed.items()}
    save_file(
        {**others, **{name: torch.ones_like(needed[name]) for name in names}}, tmp_path / "m.safetensors"
    )

    match = (
        rf"m\.safetensors has no weights for the part {GPT2}: {len(names)} of {len(needed)} weights match by "
    )
    with pytest.raises(BrainhiveError, match=rf"{match}name and size; first missing {sorted(needed)[0]}"):
        load_start(new, tmp_path / "m.safetensors", GPT2)
    assert all(torch.equal(value, before[name]) for name, value in new.state_dict().items())
