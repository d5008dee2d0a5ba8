"""Weights from which a model starts."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.stores.training_history import TrainingHistory
from brainhive_cli.models import FusionEncoder, Head, SignalSpec
from brainhive_cli.training.alignment import Aligner, Cell, Layout, Train
from brainhive_cli.training.alignment.training.batches import CellData
from brainhive_cli.training.alignment.training.initialisation import (
    copy_weights,
    find_starts,
    list_pretrained_weights,
    list_start_inputs,
    list_subject_weights,
    load_start,
    make_aligner,
    make_history,
    pin_starts,
    read_history,
    refuse_other_voxels,
)
from tests.worlds.alignment_cells import PICTURES, make_cell_data, make_layout
from tests.worlds.model_layouts import make_signal_spec, make_token_layout


@pytest.fixture
def data():
    return make_cell_data(np.zeros((PICTURES, 8), np.float32))


@pytest.mark.parametrize("init", ["torch", "reference"])
def test_only_the_seed_decides_the_initial_weights(data, init):
    weights = []
    for seed in (1, 1, 2):
        torch.rand(7)
        model = make_aligner(seed, make_layout(data), data, init)  # type: ignore[arg-type]
        weights.append(model.state_dict())
    first_weights, repeated_weights, other_weights = weights
    assert all(
        torch.equal(value, repeated_weights[name])
        for name, value in first_weights.items()
    )
    names = [name for name, value in first_weights.items() if value.ndim > 1]
    assert names
    assert not any(
        torch.equal(first_weights[name], other_weights[name]) for name in names
    )


@pytest.mark.parametrize(
    ("backbone", "weights"),
    [
        ("brain-mlp", []),
        ("labram", ["labram"]),
        ({"kind": "labram", "pretrained": None}, []),
        ({"kind": "reve", "pretrained": "hub:owner/name"}, ["hub:owner/name"]),
        ({"kind": "with-prior", "backbone": "biot"}, ["biot"]),
    ],
)
def test_published_weights_of_a_backbone_are_named(backbone, weights):
    config = parts.resolve("backbones", backbone)
    assert list_pretrained_weights(config) == weights


def test_the_fuser_of_a_prior_is_taken_over_and_frozen(data):
    fuser = FusionEncoder({"e": 8}, 16, 16)
    for parameter in fuser.parameters():
        torch.nn.init.normal_(parameter)
    with_prior = CellData(data.trials, data.targets, data.held_out, fuser)

    model = make_aligner(1, make_layout(data), with_prior, "torch")

    assert model.fuser is not None
    for name, parameter in model.fuser.named_parameters():
        assert torch.equal(parameter, fuser.state_dict()[name])
        assert not parameter.requires_grad
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())


@pytest.mark.parametrize("init", ["torch", "reference"])
def test_initial_weights_are_those_that_were_recorded(data, init, recorded):
    model = make_aligner(3, make_layout(data), data, init)
    recorded(4, **model.state_dict())


def sensors_model(subjects, seed=0, **fields):
    """Make a model with a matrix of channels for each person."""
    torch.manual_seed(seed)
    spec = replace(make_signal_spec(("Oz", "Pz"), 5, subjects), **fields)
    layer = "linear" if subjects else "none"
    model = Aligner(make_token_layout(spec, 6, {"e": 8}, subject_layer=layer))
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_()
    return model


def voxels_model(subjects, widths, seed=0, **fields):
    """Make a model with a ridge of voxels for each person."""
    torch.manual_seed(seed)
    backbone = {"kind": "mindeye2", "hidden": 8, "blocks": 1}
    heads = {"image": Head((3, 5), "e")}
    spec = SignalSpec((), 1, subjects, widths, **fields)
    return Aligner(Layout(spec, heads, backbone, retrieval_heads=("image",)))


def test_a_new_person_gets_the_mean_of_known_matrices():
    start, model = sensors_model((1, 2, 3), 1), sensors_model((9, 3), 2)
    (name,) = {
        name
        for name, value in model.state_dict().items()
        if value.shape != start.state_dict()[name].shape
    }
    start.losses = {"0.logit_scale": torch.tensor(2.0)}
    copy_weights(model, start)
    weights, known_weights = model.state_dict(), start.state_dict()
    torch.testing.assert_close(weights[name][0], known_weights[name].mean(0))
    assert torch.equal(weights[name][1], known_weights[name][2])
    assert all(
        torch.equal(weights[weight], known_weights[weight])
        for weight in weights
        if weight != name
    )
    assert model.losses == start.losses


def test_a_model_of_nobody_is_a_start_like_any_other():
    start, model = sensors_model((), 1), sensors_model((), 2)
    copy_weights(model, start)
    weights = start.state_dict()
    assert all(
        torch.equal(weight, weights[name])
        for name, weight in model.state_dict().items()
    )


def test_ridges_of_known_people_are_taken_over_and_others_stay():
    start, model = voxels_model((4, 7), (5, 6), 1), voxels_model((7, 9), (6, 3), 2)
    own_names = {name: f"backbone.ridge.linears.{name}.weight" for name in (4, 7, 9)}
    assert own_names[9] in list_subject_weights(model)
    assert own_names[4] not in model.state_dict()
    initial = model.state_dict()[own_names[9]].clone()
    copy_weights(model, start)
    assert torch.equal(model.state_dict()[own_names[9]], initial)
    weights = start.state_dict()
    for name, value in model.state_dict().items():
        assert ".9." in name or torch.equal(value, weights[name]), name


def test_modules_of_people_are_named_by_their_numbers():
    model = voxels_model((4, 7), (5, 6))
    expected = {
        name for name in model.state_dict() if ".linears.4." in name or ".7." in name
    }
    assert list_subject_weights(model) == expected
    assert len(expected) == 4
    assert list_subject_weights(sensors_model((1, 2))) == set()


def test_a_person_has_the_same_voxels_in_a_start():
    start, regions = voxels_model((4, 7), (5, 6)), {"V1": ((0, 1), (2,))}
    refuse_other_voxels(start, voxels_model((7, 9), (6, 5)))
    with pytest.raises(BrainhiveError):
        refuse_other_voxels(start, voxels_model((9, 7), (6, 5)))
    known_voxels_model = voxels_model((4, 7), (5, 6), regions=regions)
    swapped = {"V1": ((2,), (0, 1))}
    refuse_other_voxels(
        known_voxels_model, voxels_model((7, 4), (6, 5), regions=swapped)
    )
    with pytest.raises(BrainhiveError):
        refuse_other_voxels(
            known_voxels_model, voxels_model((7, 4), (6, 5), regions=regions)
        )


def test_a_start_of_another_size_or_unit_is_refused_or_named(
    capsys,
):
    with pytest.raises(BrainhiveError):
        copy_weights(voxels_model((1,), (5,)), sensors_model((1,)))
    copy_weights(sensors_model((1,), unit="µV"), sensors_model((1,), unit="µV"))
    assert capsys.readouterr().err == ""
    copy_weights(sensors_model((1,), unit="T"), sensors_model((1,), unit="µV"))
    assert "µV" in capsys.readouterr().err


def test_a_part_is_found_below_any_prefix_of_its_file(tmp_path):
    module_name = "backbone.backbone"
    weights = {
        name: torch.randn_like(value)
        for name, value in voxels_model((1,), (5,))
        .get_submodule(module_name)
        .state_dict()
        .items()
    }
    for number, prefix in enumerate(("", f"{module_name}.", "backbone.")):
        model = voxels_model((1,), (5,), 3)
        other_copies_by_name = {
            name: value.clone()
            for name, value in model.state_dict().items()
            if not name.startswith(f"{module_name}.")
        }
        file = tmp_path / f"{number}.safetensors"
        # names of another network are not taken for the part's
        surplus = {f"text.{name}": value * 0 for name, value in weights.items()}
        save_file({f"{prefix}{n}": v for n, v in weights.items()} | surplus, file)

        load_start(model, file, module_name)

        loaded_weights = model.get_submodule(module_name).state_dict()
        assert all(torch.equal(loaded_weights[name], weights[name]) for name in weights)
        state = model.state_dict()
        assert all(
            torch.equal(state[name], value)
            for name, value in other_copies_by_name.items()
        )


def test_a_file_without_the_part_is_refused(tmp_path):
    file = tmp_path / "other.safetensors"
    save_file({"text.weight": torch.ones(2)}, file)
    with pytest.raises(BrainhiveError):
        load_start(voxels_model((1,), (5,)), file, "backbone.backbone")


def test_a_part_of_a_model_keeps_ridges_of_new_people(tmp_path, capsys):
    start, model = voxels_model((4, 7), (5, 6), 1), voxels_model((7, 9), (6, 3), 2)
    start.save(tmp_path / "model")
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    load_start(model, tmp_path / "model", "backbone.ridge")
    weights = start.state_dict()
    for name, value in model.state_dict().items():
        is_taken = ".linears.7." in name
        assert torch.equal(value, (weights if is_taken else initial)[name]), name
    assert capsys.readouterr().err == ""
    # the same person with other voxels
    with pytest.raises(BrainhiveError):
        load_start(voxels_model((7,), (5,)), tmp_path / "model", "backbone.ridge")


SELECTIONS = {"best": "last epoch", "last": "last epoch", "test": "test"}


@pytest.mark.parametrize("selection", list(SELECTIONS) + ["recordings"])
def test_the_record_says_what_selected_the_epoch(data, selection):
    extra_fields = (
        {"validation_recordings": {1: [0]}} if selection == "recordings" else {}
    )
    train = Train(selection=selection, **extra_fields)
    without_held_out = replace(data, held_out=np.zeros(PICTURES, np.bool_))
    expected = SELECTIONS.get(selection, "validation")
    assert make_history(without_held_out, train).selection == expected
    # pictures that nobody was shown validate nothing
    unseen = np.arange(PICTURES + 3) >= PICTURES
    trials = [data.trials[0].change(stimulus=np.arange(PICTURES) - 1)]
    hidden = replace(data, held_out=unseen, trials=trials)
    assert make_history(hidden, train).selection == expected
    held_out = "validation" if selection == "best" else expected
    assert make_history(data, train).selection == held_out


def test_the_record_of_a_training_has_those_of_its_starts(data, tmp_path):
    start = sensors_model((1,))
    start.learned = TrainingHistory("test", "demo", "demo", {"demo": (3,)}, True)
    start.save(tmp_path / "model")
    own_training_history = TrainingHistory(
        "last epoch", "demo", "demo", {"demo": (1,)}, True
    )
    cell = replace(data, history=own_training_history)
    assert make_history(cell, Train()).people == {"demo": (1,)}
    begun = replace(cell, start_files={1: {"": tmp_path / "model"}})
    history = make_history(begun, Train(selection="last"))
    assert history.people == {"demo": (1, 3)}
    assert history.selection == "test"


def test_public_networks_alone_need_no_history(tmp_path):
    weights = {"h.0.weight": torch.ones(2)}
    own_file, public, fetched = (
        tmp_path / name / "model.safetensors" for name in ("own", "gpt2", "cc2017")
    )
    for file in (own_file, public, fetched):
        file.parent.mkdir()
        save_file(weights, file)
    (public.parent / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (own_file.parent / "config.json").write_text(json.dumps({"sizes": [1]}))
    assert read_history(public, "backbone.text") is None
    assert read_history(fetched, "backbone.text") is None
    for file, prefix in ((own_file, "backbone.text"), (public, ""), (fetched, "")):
        history = read_history(file, prefix)
        assert history is not None
        assert not history.has_all_subjects
    # upstream's models have the layout of transformers, and have seen brains
    save_file({"brain_model.backbone.weight": torch.ones(2)}, public)
    assert read_history(public, "backbone.text") is not None


def test_each_stage_starts_from_files_of_its_own(home):
    cell = Cell("all_seed-1", (1, 2), (1, 2), 1)
    model = home / "folder"
    sensors_model((1,)).save(model)
    file = home / "coca.pth"
    torch.save({"weight": torch.ones(2)}, file)
    references = [{}, {"": str(model), "backbone": str(file)}, {}]
    assert find_starts(references, cell, Paths(), {}) == {
        1: {"": model, "backbone": file}
    }
    with pytest.raises(MissingData):
        find_starts([{"fuser": str(home / "absent.pth")}], cell, Paths(), {})
    # neither a folder nor a file changes under its name
    assert pin_starts(references, Paths(), {}) == {}
    assert len(list_start_inputs(references, cell, Paths(), None, {})) == 2


def test_a_prior_of_other_widths_is_refused_by_name(data):
    layout = replace(make_layout(data), prior="runs/train-prior/other")
    other_data = replace(data, fuser=FusionEncoder({"e": 7}, 16, 16))
    with pytest.raises(BrainhiveError, match=r"runs/train-prior/other: .*7.*8"):
        make_aligner(1, layout, other_data, "torch")
